//! `patchbay map`: what a mapping makes of an event, and field by field why.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::failure::{FAILED, Failure};
use super::input;
use super::output::{Output, one_line};
use crate::clock::Clock;
use crate::domain::fault::did_you_mean;
use crate::domain::time::Timestamp;
use crate::mapping::{Context, FieldTrace, Mapping, Preview, reference, transforms};
use crate::spec::Catalogue;

/// The longest value in a trace's table, in characters.
const SHOWN_CHARS: usize = 60;

/// What to map.
#[derive(Debug, Clone, Args)]
pub struct MapArgs {
    /// A mapping file, or the name of one in the catalogue
    #[arg(required_unless_present = "list")]
    mapping: Option<String>,
    /// The event: a JSON file, "-" for standard input, or the type of a sample event
    #[arg(long, default_value = "lead.captured", value_name = "EVENT")]
    event: String,
    /// Show for each field where its value comes from and what each transform did
    #[arg(long)]
    trace: bool,
    /// Print the reference of the mapping language; with --json its transforms as data
    #[arg(long, conflicts_with_all = ["mapping", "event", "trace"])]
    list: bool,
    /// A folder of your own with connectors/ and mappings/
    #[arg(long, env = "PATCHBAY_CATALOGUE_DIR", value_name = "DIR")]
    catalogue_dir: Option<PathBuf>,
}

/// Maps and prints, or prints the language.
pub fn run(args: &MapArgs, clock: &Clock, output: Output) -> Result<(), Failure> {
    // Without a name only `--list` is left.
    let Some(name) = &args.mapping else {
        output.either(&json!(transforms().collect::<Vec<_>>()), || reference().trim_end().to_owned());
        return Ok(());
    };
    let catalogue = Catalogue::load(args.catalogue_dir.as_deref())?;
    let mapping = find_mapping(name, &catalogue)?;
    let event = completed(find_event(&args.event, &catalogue)?, clock.now())?;
    let preview = mapping.preview(&event, &context_of(&event, clock.now()));
    print(&preview, args.trace, output);
    match &preview.error {
        None => Ok(()),
        Some(_) if output.is_json() => Err(Failure::Told(FAILED)),
        Some(error) if args.trace => Err(Failure::failed(error)),
        Some(error) => Err(Failure::failed(error).hint("--trace shows how each field came to be")),
    }
}

fn find_mapping(name: &str, catalogue: &Catalogue) -> Result<Mapping, Failure> {
    if let Some(mapping) = catalogue.mapping(name) {
        return Ok(Mapping::from_json(mapping.to_json())?);
    }
    let path = Path::new(name);
    if path.is_file() {
        let text = input::read_file(path)?;
        return match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {
                let value = input::json(name, &text)?;
                Ok(Mapping::from_json(&value)?)
            }
            _ => Ok(Mapping::from_toml(name, &text)?),
        };
    }
    let names = || catalogue.mappings().keys().map(String::as_str);
    let known = names().collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(name, names()).unwrap_or_else(|| format!("in the catalogue: {known}"));
    Err(Failure::invalid(format!("there is no file and no mapping \"{name}\""), hint))
}

fn find_event(name: &str, catalogue: &Catalogue) -> Result<Value, Failure> {
    if let Some(sample) = catalogue.samples().get(name) {
        return Ok(sample.clone());
    }
    if name == "-" {
        return input::json("standard input", &input::read_stdin()?);
    }
    let path = Path::new(name);
    if path.is_file() {
        return input::json(name, &input::read_file(path)?);
    }
    let kinds = || catalogue.samples().keys().map(String::as_str);
    let known = kinds().collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(name, kinds()).unwrap_or_else(|| format!("samples: {known}"));
    Err(Failure::invalid(format!("there is no file and no sample event \"{name}\""), hint))
}

/// The event with what the gateway adds to one that lacks it.
fn completed(mut event: Value, now: Timestamp) -> Result<Value, Failure> {
    let Value::Object(fields) = &mut event else {
        return Err(Failure::invalid(
            "an event is a JSON object",
            "such as {\"type\": ..., \"data\": {...}}",
        ));
    };
    for (name, value) in [("id", "evt_preview"), ("type", "preview"), ("tenant", "preview")] {
        fields.entry(name).or_insert_with(|| value.into());
    }
    fields.entry("time").or_insert_with(|| now.to_string().into());
    Ok(event)
}

fn context_of(event: &Value, now: Timestamp) -> Context<'_> {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    Context {
        event_id: text("id").unwrap_or_default(),
        event_type: text("type").unwrap_or_default(),
        event_time: text("time").unwrap_or_default(),
        source: text("source"),
        tenant_id: text("tenant").unwrap_or_default(),
        connection_id: "con_preview",
        job_id: "job_preview",
        attempt: 1,
        now,
    }
}

fn print(preview: &Preview, trace: bool, output: Output) {
    if output.is_json() {
        let value =
            if trace { json!(preview) } else { json!({ "output": preview.output, "error": preview.error }) };
        return output.value(&value);
    }
    if trace {
        print_trace(&preview.fields, output);
    }
    if let Some(mapped) = &preview.output {
        if trace {
            output.lines("");
        }
        output.lines(&serde_json::to_string_pretty(mapped).unwrap_or_default());
    }
}

/// Field by field: where its value comes from, what each transform made of it, and what became of it.
pub fn print_trace(fields: &[FieldTrace], output: Output) {
    let rows: Vec<Vec<String>> = fields.iter().map(row_of).collect();
    output.rows(&["field", "from", "found", "steps", "value", "note"], &rows);
}

fn row_of(field: &FieldTrace) -> Vec<String> {
    let steps: Vec<String> =
        field.steps.iter().map(|step| format!("{} -> {}", step.name, shown(step.result.as_ref()))).collect();
    let note = [field.note.as_deref(), field.error.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    vec![
        field.to.clone(),
        field.source.clone().unwrap_or_default(),
        shown(field.raw.as_ref()),
        steps.join("; "),
        shown(field.value.as_ref()),
        one_line(&note.join("; ")),
    ]
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "-".to_owned(), ToString::to_string);
    if text.chars().count() <= SHOWN_CHARS {
        return one_line(&text);
    }
    one_line(&text.chars().take(SHOWN_CHARS - 1).chain(['…']).collect::<String>())
}
