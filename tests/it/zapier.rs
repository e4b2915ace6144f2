//! The Zapier integration of `connectors/zapier/`, run by Zapier's own app tester against a gateway of its own.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::support::process::{Door, Process};

/// Installs what `package-lock.json` names, where nothing is installed yet; `./tests/run` keeps it current.
fn install(folder: &Path) {
    if folder.join("node_modules/zapier-platform-core/package.json").exists() {
        return;
    }
    let installed = Command::new("npm").arg("ci").current_dir(folder).output();
    let installed =
        installed.unwrap_or_else(|error| panic!("npm does not run: {error}; ./tests/run installs it"));
    assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
}

#[test]
fn the_integration_works_against_a_gateway() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors/zapier");
    install(&folder);
    let (data, door) = (TempDir::new().unwrap(), Door::default());
    let gateway = Process::start(data.path(), &door);
    let tested = Command::new("node")
        .args(["--test", "--test-reporter=tap", "test/"])
        .current_dir(&folder)
        .env("PATCHBAY_URL", format!("http://{}", door.address()))
        .env("PATCHBAY_KEY", door.key())
        .env_remove("GATEWAY_URL")
        .output();
    let tested = tested.unwrap_or_else(|error| panic!("node does not run: {error}; ./tests/run installs it"));
    let (said, failed) = (String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
    assert!(tested.status.success(), "{said}\n{failed}");
    let passed = said.lines().find_map(|line| line.strip_prefix("# pass ")?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed >= 13), "too few tests ran: {said}");
    drop(gateway);
}
