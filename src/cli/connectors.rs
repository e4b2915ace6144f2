//! `patchbay connectors`: the systems that can be delivered to or received from, and what each asks of a connection or a source.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::client::{Client, address, secret};
use super::failure::Failure;
use super::output::{Output, cell};
use super::serve::SettingArgs;
use crate::api::show_connector;
use crate::config::Environment;
use crate::domain::fault::did_you_mean;
use crate::domain::secret::Secret;
use crate::spec::Catalogue;

/// Which connectors.
#[derive(Debug, Clone, Args)]
pub struct ConnectorsArgs {
    /// One of them, with all that it asks for
    id: Option<String>,
    /// Those of a running gateway; without it, of the files on this machine
    #[arg(long, env = "PATCHBAY_URL", value_name = "URL", value_parser = address)]
    url: Option<Url>,
    /// A key for it
    #[arg(long, env = "PATCHBAY_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret)]
    key: Option<Secret>,
    /// Where the configuration is.
    #[command(flatten)]
    settings: SettingArgs,
}

/// Lists them, or shows one.
pub async fn run(args: &ConnectorsArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let connectors: Vec<Value> = if let Some(url) = &args.url {
        let listed = Client::new(url.clone(), args.key.clone())?.get("/v1/connectors", &[]).await?;
        listed["items"].as_array().cloned().unwrap_or_default()
    } else {
        let config = args.settings.load(environment, Vec::new())?;
        let catalogue = Catalogue::load(config.catalogue_dir.as_deref())?;
        catalogue.connectors().values().map(|spec| show_connector(spec, &catalogue)).collect()
    };
    let Some(id) = &args.id else {
        if output.is_json() {
            output.value(&json!(connectors));
        } else {
            let rows: Vec<Vec<String>> = connectors.iter().map(row).collect();
            output.rows(&["id", "name", "ways", "options", "credentials"], &rows);
        }
        return Ok(());
    };
    let found = connectors.iter().find(|connector| connector["id"] == id.as_str());
    let connector = found.ok_or_else(|| {
        let known = || connectors.iter().filter_map(|connector| connector["id"].as_str());
        let hint = did_you_mean(id, known()).unwrap_or_else(|| known().collect::<Vec<_>>().join(", "));
        Failure::invalid(format!("there is no connector \"{id}\""), hint)
    })?;
    output.either(connector, || shown(connector));
    Ok(())
}

fn items<'a>(connector: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    connector[name].as_array().into_iter().flatten()
}

/// Options that are no secret; those that must be given are marked by a star.
fn options(connector: &Value) -> impl Iterator<Item = &Value> {
    items(connector, "options").filter(|option| option["secret"] != true)
}

fn row(connector: &Value) -> Vec<String> {
    let star = |option: &Value| if option["required"] == true { "*" } else { "" };
    let options: Vec<String> =
        options(connector).map(|option| format!("{}{}", cell(option, "name"), star(option))).collect();
    let mut credentials: Vec<String> =
        items(connector, "auth").map(|way| names(&way["credentials"]).join("+")).collect();
    credentials.dedup();
    let hidden = items(connector, "options").filter(|option| option["secret"] == true);
    let hidden: Vec<String> =
        hidden.map(|option| format!("{}{}", cell(option, "name"), star(option))).collect();
    let credentials = [credentials.join(" or "), hidden.join(" ")].join(" ").trim().to_owned();
    let ways = [("sends", sends(connector)), ("receives", connector["receives"].is_object())];
    let ways: Vec<&str> = ways.iter().filter(|(_, is_so)| *is_so).map(|(way, _)| *way).collect();
    vec![cell(connector, "id"), cell(connector, "name"), ways.join(" "), options.join(" "), credentials]
}

/// What only receives has no mapping to send by.
fn sends(connector: &Value) -> bool {
    connector["mapping"].is_string()
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn shown(connector: &Value) -> String {
    let id = cell(connector, "id");
    let mut lines = vec![format!("{id}: {}", cell(connector, "name")), cell(connector, "description")];
    if let Some(docs) = connector["docs"].as_str() {
        lines.push(docs.to_owned());
    }
    if sends(connector) {
        lines.push(shown_connection(connector, &id));
    }
    if connector["receives"].is_object() {
        lines.push(shown_source(&connector["receives"], &id));
    }
    lines.join("\n")
}

/// What a source is asked for, and the command that makes one.
fn shown_source(receives: &Value, id: &str) -> String {
    let mut command = format!("patchbay sources create {id}");
    let mut lines = vec!["\nReceived at a source".to_owned()];
    lines.push(match (receives["secret"].as_str(), receives["secret_maker"].as_str()) {
        (Some("none") | None, _) => "  no secret".to_owned(),
        (Some("required"), Some("sender")) => {
            command.push_str(" --secret @secret.txt");
            "  --secret           What the other system signs by; it made it (must be given)".to_owned()
        }
        (_, Some("sender")) => "  --secret           What the other system signs by; it made it".to_owned(),
        _ => "  --secret           What the other system signs by; made here where it is left out".to_owned(),
    });
    for option in items(receives, "options") {
        let is_secret = option["secret"] == true;
        let (flag, value) = if is_secret { ("--credential", "@file") } else { ("--option", "...") };
        let must = if option["required"] == true { " (must be given)" } else { "" };
        lines.push(format!("  {flag} {}  {}{must}", cell(option, "name"), cell(option, "description")));
        if option["required"] == true {
            let _ = write!(command, " {flag} {}={value}", cell(option, "name"));
        }
    }
    lines.push(format!("\n  {command}"));
    lines.join("\n")
}

/// What a connection is asked for, and the command that makes one.
fn shown_connection(connector: &Value, id: &str) -> String {
    let mut lines = Vec::new();
    let endpoint = if connector["needs_target"] == true { "ENDPOINT " } else { "" };
    let mut command = format!("patchbay connections create {endpoint}--connector {id}");
    lines.push("\nOptions, --option name=value".to_owned());
    let before = lines.len();
    for option in options(connector) {
        let must = if option["required"] == true { " (must be given)" } else { "" };
        let default = option["default"].as_str().map(|text| format!(" [{text}]")).unwrap_or_default();
        let example = option["example"].as_str().map(|text| format!(" Such as {text}.")).unwrap_or_default();
        lines.push(format!(
            "  {:<18}{}{example}{default}{must}",
            cell(option, "name"),
            cell(option, "description")
        ));
        if option["required"] == true {
            let _ = write!(command, " --option {}=...", cell(option, "name"));
        }
    }
    if lines.len() == before {
        lines.push("  none".to_owned());
    }
    lines.push("\nCredentials, --credential name=@file, name=env:VARIABLE or name=-".to_owned());
    let before = lines.len();
    for (index, way) in items(connector, "auth").enumerate() {
        let way_names = names(&way["credentials"]);
        let or = if index == 0 { "" } else { "or " };
        lines.push(format!("  {or}{}  ({})", way_names.join(", "), cell(way, "kind")));
        if index == 0 {
            for name in way_names {
                let _ = write!(command, " --credential {name}=@{name}.txt");
            }
        }
    }
    for option in items(connector, "options").filter(|option| option["secret"] == true) {
        let must = if option["required"] == true { " (must be given)" } else { "" };
        lines.push(format!("  {:<18}{}{must}", cell(option, "name"), cell(option, "description")));
    }
    if lines.len() == before {
        lines.push("  none".to_owned());
    }
    let fields: Vec<String> = items(connector, "fields")
        .map(|field| format!("{}{}", cell(field, "name"), if field["required"] == true { "*" } else { "" }))
        .collect();
    if !fields.is_empty() {
        lines.push(format!("\nFields (* must be there): {}", fields.join(", ")));
    }
    lines.push(format!("\n  {command}"));
    lines.join("\n")
}
