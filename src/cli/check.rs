//! `patchbay check`: everything that is wrong with the configuration, connectors and mappings, at once, and every case of the
//! operator's own connectors that does not hold; and as warnings, which fail nothing, the paths that no sample event has
//! and connectors without cases.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::{Failure, INVALID};
use super::output::Output;
use crate::config::{Config, Environment};
use crate::connector::check_cases;
use crate::domain::fault::{Fault, Faults, Place};
use crate::service::receive::check_received;
use crate::spec::{Catalogue, case_files};

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
            let shipped = Catalogue::load(None)?;
            warnings = catalogue.unseen_paths(&shipped);
            let cases = match &folder {
                Some(folder) => check_own_cases(folder, &catalogue, &shipped, &mut faults, &mut warnings),
                None => 0,
            };
            counts = json!({
                "connectors": catalogue.connectors().len(),
                "mappings": catalogue.mappings().len(),
                "samples": catalogue.samples().len(),
                "cases": cases,
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
        "{} connectors, {} mappings, {} samples and {} cases of your own: no faults{warned}",
        counts["connectors"], counts["mappings"], counts["samples"], counts["cases"]
    ));
    Ok(())
}

/// Holds the operator's own connectors to their cases; how many there are. One without cases is a warning: it may be an
/// override that changes little.
fn check_own_cases(
    folder: &Path,
    catalogue: &Catalogue,
    shipped: &Catalogue,
    faults: &mut Faults,
    warnings: &mut Vec<Fault>,
) -> usize {
    let files = case_files(folder, faults);
    let mut count = 0;
    for (id, path, text) in &files {
        let checked = check_cases(catalogue, id, path, text);
        let received = check_received(catalogue, id, path, text);
        count += checked.requests + checked.answers + received.count;
        faults.extend(checked.faults);
        faults.extend(received.faults);
    }
    let own = catalogue.connectors().iter().filter(|(id, spec)| shipped.connector(id) != Some(*spec));
    for (id, _) in own.filter(|(id, _)| !files.iter().any(|(of, _, _)| of == *id)) {
        let hint = format!(
            "write tests/connectors/{id}.toml beside connectors/: see \"Add your CRM in ten minutes\""
        );
        let file = folder.join("connectors").join(format!("{id}.toml")).display().to_string();
        let place = Place { file: Some(file.into()), line: 1, column: 1, field: String::new() };
        warnings.push(Fault { place, message: "the connector has no cases".to_owned(), hint: Some(hint) });
    }
    count
}
