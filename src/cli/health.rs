//! `patchbay health`: whether a process is ready, for a container that has no other program to ask with.

use std::time::Duration;

use clap::Args;
use url::Url;

use super::client::{Client, address};
use super::failure::Failure;
use super::output::Output;

/// The longest that a probe may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Which process.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// The process's address
    #[arg(long, env = "PATCHBAY_URL", default_value = "http://127.0.0.1:8080", value_name = "URL",
          value_parser = address)]
    url: Url,
}

/// Asks `/readyz`; exit code 0 means that it is ready.
pub async fn run(args: &HealthArgs, output: Output) -> Result<(), Failure> {
    let client = Client::new(args.url.clone(), None)?;
    let asked = tokio::time::timeout(LIMIT, client.get("/readyz", &[])).await;
    let ready =
        asked.map_err(|_| Failure::failed(format!("no answer from {} within {LIMIT:?}", args.url)))??;
    output.either(&ready, || "ready".to_owned());
    Ok(())
}
