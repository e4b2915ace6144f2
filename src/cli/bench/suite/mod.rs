//! `patchbay bench --suite`: every figure that Patchbay is measured by, on one store, beside what it should be.
//!
//! A run has four parts, each with a gateway and a store of its own, so that none sees what another left behind: an empty
//! store, one with many connections, one with many queued jobs, one with a dead endpoint. What is compared is compared within a
//! part. Each row is the median of the runs; a row that cannot be produced says why.

mod crowd;
mod disk;
mod parts;
mod place;
mod report;
mod rows;
mod yardstick;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::figures::{Machine, Settings};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
pub use parts::FAN_OUT;
use place::Place;
use report::SuiteReport;
use rows::{Figures, PARTS, Part};

/// How large the suite is.
#[derive(Debug, Clone, Args, serde::Serialize)]
pub struct SuiteArgs {
    /// Measure every figure there is, on the store, and set them beside what they should be
    #[arg(long)]
    #[serde(skip)]
    suite: bool,
    /// Runs of the suite; each figure is their median
    #[arg(long, default_value_t = 3, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Events that are accepted while nothing is delivered, and then drained
    #[arg(long, default_value_t = 20_000, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    backlog: u32,
    /// Connections for the row with many of them
    #[arg(long, default_value_t = 100_000, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Queued jobs for the rows with many of them
    #[arg(long, default_value_t = 1_000_000, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    queued: u32,
    /// Jobs of the dead endpoint
    #[arg(long, default_value_t = 100_000, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    dead: u32,
    /// Seconds that one of a run's four parts may take before its rows are given up
    #[arg(long, default_value_t = 900, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    limit_secs: u32,
}

impl SuiteArgs {
    /// Whether the suite was asked for.
    pub fn is_wanted(&self) -> bool {
        self.suite
    }
}

/// What a part needs to know.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    sizes: &'a SuiteArgs,
    settings: &'a Settings,
    /// For the progress: `run 1 of 3`.
    run: u32,
}

impl Plan<'_> {
    /// Tells a person who waits what goes on.
    fn progress(&self, what: &str) {
        eprintln!("run {} of {}: {what}", self.run, self.sizes.runs);
    }
}

/// Runs the suite and prints its report.
pub async fn run(sizes: &SuiteArgs, settings: &Settings, output: Output) -> Result<(), Failure> {
    let engine = Place::new(&settings.store)?.engine().await?;
    let mut runs: Vec<Figures> = Vec::new();
    // The newest reason for each part.
    let mut missing: BTreeMap<Part, String> = BTreeMap::new();
    for run in 1..=sizes.runs {
        let plan = Plan { sizes, settings, run };
        let mut figures = Figures::new();
        for part in PARTS {
            if let Err(failure) = measure(plan, part, &mut figures).await {
                plan.progress(&format!("{}: {failure}", part.title()));
                missing.insert(part, failure.to_string());
            }
        }
        runs.push(figures);
    }
    let report = SuiteReport::of(Machine::here(), engine, (settings, sizes), &runs, &missing);
    output.either(&serde_json::to_value(&report).unwrap_or_default(), || report.text());
    match report.missing() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} rows could not be produced"))),
    }
}

/// Measures one part in a place of its own, within its limit. What it found before it failed counts.
async fn measure(plan: Plan<'_>, part: Part, figures: &mut Figures) -> Result<(), Failure> {
    plan.progress(part.title());
    let place = Place::new(&plan.settings.store)?;
    let limit = Duration::from_secs(plan.sizes.limit_secs.into());
    let measured = match part {
        Part::Empty => tokio::time::timeout(limit, parts::empty(plan, &place, figures)).await,
        Part::Connections => tokio::time::timeout(limit, parts::connections(plan, &place, figures)).await,
        Part::Queued => tokio::time::timeout(limit, parts::queued(plan, &place, figures)).await,
        Part::Dead => tokio::time::timeout(limit, parts::dead(plan, &place, figures)).await,
    };
    let cleared = place.clear().await;
    match measured {
        Ok(Ok(())) => cleared,
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::failed(format!("not done within {} s (--limit-secs)", limit.as_secs()))),
    }
}
