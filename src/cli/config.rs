//! `patchbay config`: the settings in force, and where each came from.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::serve::SettingFlags;
use crate::config::{Environment, in_force};

/// Which settings.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What `patchbay serve` would be given.
    #[command(flatten)]
    settings: SettingFlags,
}

/// Prints the settings that `patchbay serve` would run with; fails where it would.
pub fn run(args: &ConfigArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    args.settings.load(environment)?;
    let all = in_force(args.settings.file(), environment, &args.settings.flags())?;
    if output.is_json() {
        output.value(&json!(all));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .map(|one| vec![one.key.to_owned(), one.value.unwrap_or_else(|| "not set".to_owned()), one.source])
        .collect();
    output.rows(&["setting", "value", "from"], &rows);
    Ok(())
}
