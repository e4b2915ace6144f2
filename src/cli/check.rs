//! `patchbay check`: everything that is wrong with the configuration, connectors and mappings, at once; and as warnings,
//! which fail nothing, the paths that no sample event has.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::{Failure, INVALID};
use super::output::Output;
use crate::config::{Config, Environment};
use crate::domain::fault::Faults;
use crate::spec::Catalogue;

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration file (patchbay.toml where there is one)
    #[arg(long, env = "PATCHBAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder with connectors/ and mappings/ (what the configuration names)
    dir: Option<PathBuf>,
}

/// Checks and prints what is wrong.
pub fn run(args: &CheckArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let mut faults = Faults::default();
    if let Err(found) = Config::load(args.config.as_deref(), environment, &[]) {
        faults.extend(found);
    }
    let mut folder =
        args.dir.clone().or_else(|| Config::catalogue_dir(args.config.as_deref(), environment, &[]));
    if let Some(missing) = folder.take_if(|folder| !folder.is_dir()) {
        let hint = "name one that holds connectors/ or mappings/".to_owned();
        faults.at_field(missing.display().to_string(), "is no folder", Some(hint));
    }
    let mut counts = json!({});
    let mut warnings = Vec::new();
    match Catalogue::load(folder.as_deref()) {
        Ok(catalogue) => {
            warnings = catalogue.unseen_paths(&Catalogue::load(None)?);
            counts = json!({
                "connectors": catalogue.connectors().len(),
                "mappings": catalogue.mappings().len(),
                "samples": catalogue.samples().len(),
            });
        }
        Err(found) => faults.extend(found),
    }
    if output.is_json() {
        output.value(
            &json!({ "ok": faults.is_empty(), "faults": faults, "warnings": warnings, "checked": counts }),
        );
        return if faults.is_empty() { Ok(()) } else { Err(Failure::Told(INVALID)) };
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    if !faults.is_empty() {
        return Err(Failure::Faults(faults));
    }
    let warned = match warnings.len() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        number => format!(", {number} warnings"),
    };
    output.lines(&format!(
        "{} connectors, {} mappings and {} samples: no faults{warned}",
        counts["connectors"], counts["mappings"], counts["samples"]
    ));
    Ok(())
}
