//! What the suite found: each row's runs and their median beside what it should be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::super::figures::{Machine, Settings};
use super::SuiteArgs;
use super::rows::{Figures, Part, ROWS, Target};
use crate::store::engine::Engine;

/// Everything that the suite found.
#[derive(Debug, Serialize)]
pub struct SuiteReport {
    machine: Machine,
    store: Engine,
    load: Load,
    sizes: SuiteArgs,
    rows: Vec<Row>,
    /// How to read the rows.
    notes: Vec<String>,
}

/// How the gateway was loaded.
#[derive(Debug, Serialize)]
struct Load {
    events: usize,
    rate: u32,
    concurrency: usize,
    payload_bytes: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    key: &'static str,
    what: &'static str,
    target: Option<Target>,
    median: Option<f64>,
    /// Whether the median is as it should be; `None` without a target or a figure.
    met: Option<bool>,
    /// Of each run that had it.
    runs: Vec<f64>,
    /// Why it is not there, or not from every run.
    missing: Option<String>,
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

impl SuiteReport {
    /// Of the runs, and the reasons of the parts that failed.
    pub fn of(
        machine: Machine,
        store: Engine,
        (settings, sizes): (&Settings, &SuiteArgs),
        runs: &[Figures],
        missing: &BTreeMap<Part, String>,
    ) -> Self {
        let rows = ROWS.iter().filter(|row| row.not_on != Some(store.name)).map(|row| {
            let found: Vec<f64> = runs.iter().filter_map(|figures| figures.get(row.key)).collect();
            let (median, target) = (median(&found), row.target(store.name));
            let reason = (found.len() < runs.len()).then(|| {
                missing.get(&row.part).cloned().unwrap_or_else(|| "the system does not tell".to_owned())
            });
            let met = target.zip(median).map(|(target, median)| target.is_met(median));
            Row { key: row.key, what: row.what, target, median, met, runs: found, missing: reason }
        });
        let Settings { events, rate, concurrency, payload_bytes, .. } = *settings;
        Self {
            machine,
            rows: rows.collect(),
            load: Load { events, rate, concurrency, payload_bytes },
            sizes: sizes.clone(),
            notes: notes(&store),
            store,
        }
    }

    /// Rows without a figure.
    pub fn missing(&self) -> usize {
        self.rows.iter().filter(|row| row.median.is_none()).count()
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { machine, store, load, sizes, rows, notes } = self;
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {label:<11}{value}");
        };
        let memory = machine.memory_mib.map_or("unknown memory".to_owned(), |mib| format!("{mib} MiB"));
        line("machine", format!("{} x {}, {memory}, {}", machine.cpus, machine.processor, machine.system));
        line("build", format!("patchbay {} {}, {}", machine.version, machine.build, machine.rustc));
        let settings: Vec<String> =
            store.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        line("store", format!("{} {}: {}", store.name, store.version, settings.join(", ")));
        line(
            "load",
            format!(
                "{} events of about {} bytes at full load with {} senders; {}/s at the fixed rate; sender and receiver on \
                 this machine",
                load.events, load.payload_bytes, load.concurrency, load.rate
            ),
        );
        line(
            "sizes",
            format!(
                "backlog {}, connections {}, queued {}, dead {}; medians of {} run(s)",
                sizes.backlog, sizes.connections, sizes.queued, sizes.dead, sizes.runs
            ),
        );
        let _ = writeln!(text, "\n  {:<46}{:>10}  {:>10}  {:<5} runs", "", "median", "target", "met");
        for row in rows {
            let target = match row.target {
                Some(Target::AtLeast(least)) => format!(">= {}", shown(least)),
                Some(Target::AtMost(most)) => format!("<= {}", shown(most)),
                None => String::new(),
            };
            let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
            let median = row.median.map_or("-".to_owned(), shown);
            let runs: Vec<String> = row.runs.iter().map(|run| shown(*run)).collect();
            let _ = writeln!(
                text,
                "  {:<46}{median:>10}  {target:>10}  {met:<5} {}{}",
                row.what,
                runs.join(" "),
                row.missing.as_ref().map(|reason| format!("  MISSING: {reason}")).unwrap_or_default()
            );
        }
        let _ = writeln!(text);
        for note in notes {
            let _ = writeln!(text, "  {note}");
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// With as many digits as mean something.
fn shown(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.3}"),
    }
}

fn notes(store: &Engine) -> Vec<String> {
    let mut notes = vec![
        "\"while nothing is delivered\": the workers run, and the connection is paused; then it is resumed.".to_owned(),
        "Queued jobs are a paused connection's of another tenant; many connections are of other tenants, 1,000 each."
            .to_owned(),
        "The dead endpoint takes connections and never answers; its 64 attempts at once all wait.".to_owned(),
        "A ratio compares two measurements of one gateway, before and after.".to_owned(),
    ];
    if store.name == "sqlite" {
        notes.push(
            "The disk's own part: 24 KiB appended and synced (fdatasync), alone, in the store's folder; one such wait is on \
             the way of each event."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_what_there_is() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
