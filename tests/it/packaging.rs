//! The image and the compose file, as far as a machine without Docker can hold them to what they say: every file, command,
//! setting and option in them exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

use crate::support::fleet::Fleet;
use crate::support::redis::Server;
use crate::support::within;

/// What the compose specification knows of a service, as far as it is used here.
const SERVICE_KEYS: [&str; 17] = [
    "image",
    "build",
    "command",
    "environment",
    "ports",
    "volumes",
    "networks",
    "depends_on",
    "healthcheck",
    "restart",
    "read_only",
    "cap_drop",
    "security_opt",
    "stop_grace_period",
    "profiles",
    "user",
    "tmpfs",
];
const HEALTH_KEYS: [&str; 5] = ["test", "interval", "timeout", "retries", "start_period"];
/// Where the image has the program.
const PROGRAM: &str = "/usr/local/bin/patchbay";

fn compose() -> Yaml {
    let text = std::fs::read_to_string("docker-compose.yml").unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

fn pairs(yaml: &Yaml) -> Vec<(&str, &Yaml)> {
    let Yaml::Hash(pairs) = yaml else { panic!("no mapping: {yaml:?}") };
    pairs.iter().map(|(key, value)| (key.as_str().unwrap(), value)).collect()
}

fn words(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec()
        .unwrap_or_else(|| panic!("no list: {yaml:?}"))
        .iter()
        .map(|word| word.as_str().unwrap_or_else(|| panic!("no text, quote it: {word:?}")))
        .collect()
}

fn keys<'a>(yaml: &'a Yaml, name: &str) -> BTreeSet<&'a str> {
    pairs(&yaml[name]).into_iter().map(|(key, _)| key).collect()
}

/// Whether the program takes these arguments.
fn takes(arguments: &[&str]) -> bool {
    let output =
        Command::new(env!("CARGO_BIN_EXE_patchbay")).env_clear().args(arguments).arg("--help").output();
    output.unwrap().status.success()
}

/// What `patchbay check` says of an environment.
fn check(variables: &BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .current_dir(folder.path())
        .env_clear()
        .envs(variables)
        .arg("check")
        .output()
        .unwrap();
    assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A value with `${NAME:-default}` as it is when nothing is set.
fn substituted(text: &str) -> String {
    match text.split_once("${").and_then(|(_, rest)| rest.strip_suffix('}')?.split_once(":-")) {
        Some((_, default)) => default.to_owned(),
        None => text.to_owned(),
    }
}

#[test]
fn the_compose_file_says_only_what_there_is() {
    let compose = compose();
    for (key, _) in pairs(&compose) {
        assert!(["name", "services", "networks", "volumes"].contains(&key), "{key}");
    }
    let (services, volumes, networks) =
        (keys(&compose, "services"), keys(&compose, "volumes"), keys(&compose, "networks"));
    assert_eq!(services, BTreeSet::from(["gateway", "redis", "worker"]));
    for (name, service) in pairs(&compose["services"]) {
        for (key, _) in pairs(service) {
            assert!(SERVICE_KEYS.contains(&key), "{name}: {key}");
        }
        assert!(service["image"].as_str().is_some() || service["build"].as_str().is_some(), "{name}");
        for volume in words(&service["volumes"]) {
            let (volume, place) = volume.split_once(':').unwrap();
            assert!(volumes.contains(volume) && place.starts_with('/'), "{name}: {volume}");
        }
        for network in words(&service["networks"]) {
            assert!(networks.contains(network), "{name}: {network}");
        }
        for (key, _) in pairs(&service["healthcheck"]) {
            assert!(HEALTH_KEYS.contains(&key), "{name}: {key}");
        }
        if let Yaml::Hash(_) = service["depends_on"] {
            for (other, how) in pairs(&service["depends_on"]) {
                assert!(services.contains(other), "{name}: {other}");
                assert_eq!(how["condition"].as_str(), Some("service_healthy"), "{name}: {other}");
            }
        }
        if name == "redis" {
            assert_eq!(words(&service["healthcheck"]["test"]), ["CMD", "redis-cli", "ping"]);
            continue;
        }
        let health = words(&service["healthcheck"]["test"]);
        assert_eq!(health[..2], ["CMD", PROGRAM], "{name}");
        assert!(takes(&health[2..]), "{name}: {health:?}");
        if let Some(command) = service["command"].as_vec() {
            let command: Vec<&str> = command.iter().filter_map(Yaml::as_str).collect();
            assert!(takes(&command), "{name}: {command:?}");
        }
        let mut variables: BTreeMap<String, String> = pairs(&service["environment"])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), substituted(value.as_str().unwrap())))
            .collect();
        variables.extend(image_variables());
        check(&variables);
        let host = variables["PATCHBAY_STORE"].strip_prefix("redis://").unwrap().split(':').next().unwrap();
        assert!(services.contains(host), "{name}: {host}");
        let port = variables["PATCHBAY_LISTEN"].rsplit(':').next().unwrap();
        if let Some(ports) = service["ports"].as_vec() {
            assert!(
                ports.iter().all(|ports| ports.as_str().unwrap().ends_with(&format!(":{port}"))),
                "{name}"
            );
        }
        let data = format!(":{}", variables["PATCHBAY_DATA_DIR"]);
        assert!(words(&service["volumes"]).iter().all(|volume| volume.ends_with(&data)), "{name}");
    }
    assert_eq!(compose["services"]["gateway"]["build"].as_str(), Some("."), "the image is built from here");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_composed_redis_keeps_what_it_was_given() {
    let compose = compose();
    let command = words(&compose["services"]["redis"]["command"]);
    assert_eq!(command[0], "redis-server");
    let mut fleet = Fleet::on(Server::with(&command[1..])).await;
    let process = fleet.start(&[]);
    let ready = within("readiness", async {
        loop {
            match fleet.call(process.door(), "GET", "/readyz", None).await {
                (200, ready) => break ready,
                _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    let wanted = serde_json::json!({"engine": "redis", "durability": "fsync", "note": null});
    assert_eq!(ready["store"], wanted);
    let health = |url: String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.env_clear().args(["health", "--url", &url]).output().unwrap().status.code()
    };
    let url = format!("http://{}", process.door().address());
    assert_eq!(health(url.clone()), Some(0));
    process.kill();
    assert_eq!(health(url), Some(1));
}

/// The Dockerfile's instructions: name and the rest, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("Dockerfile").unwrap().replace("\\\n", " ");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            (name.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

/// What the image's environment has.
fn image_variables() -> BTreeMap<String, String> {
    instructions()
        .into_iter()
        .filter(|(name, _)| name == "ENV")
        .flat_map(|(_, rest)| {
            rest.split_whitespace()
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap();
                    (name.to_owned(), value.to_owned())
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Paths of the project that are copied into the build.
fn copied() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (name, rest) in instructions() {
        if name == "COPY" && !rest.contains("--from=") {
            let mut words: Vec<&str> = rest.split_whitespace().collect();
            words.pop();
            paths.extend(words.into_iter().map(PathBuf::from));
        }
    }
    paths
}

fn words_of_list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_image_is_built_from_files_that_exist_and_runs_as_nobody() {
    let instructions = instructions();
    let stages = instructions.iter().filter(|(name, _)| name == "FROM").count();
    assert_eq!(stages, 2, "what builds is not what runs");
    let first = instructions.iter().find(|(name, _)| name == "FROM").unwrap();
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    assert!(first.1.starts_with(&format!("rust:{}-", version.trim_end_matches('"'))), "{}", first.1);

    let ignored = std::fs::read_to_string(".dockerignore").unwrap();
    for path in copied() {
        assert!(path.exists(), "{}", path.display());
        assert!(ignored.lines().any(|line| line == format!("!{}", path.display())), "{}", path.display());
    }
    let last = |wanted: &str| {
        let found = instructions.iter().rev().find(|(name, _)| name == wanted);
        found.unwrap_or_else(|| panic!("no {wanted}")).1.clone()
    };
    let user: u32 = last("USER").split(':').next().unwrap().parse().unwrap();
    assert_ne!(user, 0);
    assert_eq!(words_of_list(&last("ENTRYPOINT")), [PROGRAM]);
    let program = instructions.iter().any(|(name, rest)| name == "COPY" && rest.ends_with(PROGRAM));
    assert!(program, "the program is copied to where it is run");
    let command = words_of_list(&last("CMD"));
    assert!(takes(&command.iter().map(String::as_str).collect::<Vec<_>>()), "{command:?}");
    let health = last("HEALTHCHECK");
    let health = words_of_list(health.split_once("CMD ").unwrap().1);
    assert_eq!(health[0], PROGRAM);
    assert!(takes(&health[1..].iter().map(String::as_str).collect::<Vec<_>>()), "{health:?}");
    let variables = image_variables();
    check(&variables);
    assert!(last("EXPOSE") == variables["PATCHBAY_LISTEN"].rsplit(':').next().unwrap());
    assert_eq!(last("VOLUME"), variables["PATCHBAY_DATA_DIR"]);
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn what_is_copied_is_all_that_the_build_reads() {
    let folder = tempfile::tempdir().unwrap();
    for path in copied() {
        copy(&path, &folder.path().join(&path));
    }
    // Every target that the manifest names is there.
    let read = Command::new(env!("CARGO"))
        .current_dir(folder.path())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    // Every file that the sources take in is there.
    let mut sources = vec![folder.path().join("src")];
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let tests =
            path.iter().any(|part| part == "tests") || path.file_stem().is_some_and(|name| name == "tests");
        if tests || path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for taken in ["include_str!(\"", "include_bytes!(\""] {
            for (at, _) in text.match_indices(taken) {
                let name = text[at + taken.len()..].split('"').next().unwrap();
                let file = path.parent().unwrap().join(name);
                let in_tests = name.contains("tests/");
                assert!(in_tests || file.exists(), "{}: {name} is not in the image's build", path.display());
            }
        }
    }
}

/// Words of a command as a shell reads them, up to a comment or a redirection.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars().chain([' ']) {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, ' ') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, '#' | '|' | '>' | ';' | '&') if word.is_empty() => break,
            _ => word.push(letter),
        }
    }
    words
}

#[test]
fn every_command_and_setting_in_the_documents_exists() {
    let settings = Command::new(env!("CARGO_BIN_EXE_patchbay")).env_clear().arg("settings").output().unwrap();
    let settings = String::from_utf8(settings.stdout).unwrap();
    let known: BTreeSet<String> = settings
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(|key| format!("PATCHBAY_{}", key.to_uppercase().replace('.', "_")))
        .chain(["PATCHBAY_SECRET_KEY", "PATCHBAY_KEY", "PATCHBAY_SOAK"].map(str::to_owned))
        .collect();
    let mut commands = 0;
    for file in ["README.md", "docs/store.md", "docs/production.md"] {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices("PATCHBAY_") {
            let name: String = text[at..]
                .chars()
                .take_while(|letter| letter.is_ascii_uppercase() || *letter == '_')
                .collect();
            assert!(known.contains(&name), "{file}: {name}");
        }
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        let inline = text.split('`').skip(1).step_by(2).filter(|code| !code.contains('\n'));
        for line in lines.chain(inline) {
            let words = shell_words(line);
            let words: Vec<&str> =
                words.iter().map(String::as_str).skip_while(|word| word.contains('=')).collect();
            if words.first() == Some(&"patchbay") {
                assert!(takes(&words[1..]), "{file}: {line}");
                commands += 1;
            }
        }
    }
    assert!(commands > 15, "{commands} commands were found");
}
