//! Whether a connection delivers, since when and why; and letting it deliver again.

use clap::Args;
use serde_json::{Map, Value};

use super::OneArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, cell};

/// The connection that is to stop.
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// Which one.
    #[command(flatten)]
    one: OneArgs,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Stops a connection's deliveries.
pub(super) async fn pause(args: &PauseArgs, output: Output) -> Result<(), Failure> {
    change(&args.one, "pause", &body(&[("reason", &args.reason)]), output).await
}

/// The connection that is to deliver again.
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Which one.
    #[command(flatten)]
    one: OneArgs,
    /// What of the jobs that it kept is sent: all, since, or none; the rest is cancelled, and can be replayed
    #[arg(long, value_name = "WHAT")]
    backlog: Option<String>,
    /// Send what was made at or after this time, such as 2026-05-03T14:22:08Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// Lets a connection deliver again.
pub(super) async fn resume(args: &ResumeArgs, output: Output) -> Result<(), Failure> {
    let body = body(&[("backlog", &args.backlog), ("since", &args.since)]);
    change(&args.one, "resume", &body, output).await
}

/// What was said, by name.
fn body(said: &[(&str, &Option<String>)]) -> Value {
    let said = said.iter().filter_map(|(name, text)| Some(((*name).to_owned(), (*text).clone()?.into())));
    Value::Object(said.collect::<Map<_, _>>())
}

/// Pauses or resumes a connection.
async fn change(one: &OneArgs, what: &str, body: &Value, output: Output) -> Result<(), Failure> {
    let changed = one.remote.client()?.post(&one.path(&format!("/{what}")), body).await?;
    output.either(&changed, || {
        // What is not wanted may be gone already: the reason says what was asked for, whatever is left to do.
        let then = if changed["unwanted_before"].is_null() { "" } else { "; that is cancelled first" };
        format!("{} is {}: {}{then}", one.id, cell(&changed, "state.status"), cell(&changed, "state.reason"))
    });
    Ok(())
}

/// The state, and how it came to it, newest first, a line each.
pub(super) fn lines(connection: &Value) -> Vec<String> {
    let mut lines = vec![format!("{:<18}{}", "state", told(&connection["state"]))];
    let history = connection["history"].as_array().into_iter().flatten().skip(1);
    lines.extend(history.map(|change| format!("{:<18}{}", "  before", told(change))));
    lines
}

/// A state or a change of it: `paused since 2026-05-03T15:00:00Z by person (ops): maintenance`.
fn told(change: &Value) -> String {
    let mut text = cell(change, "status");
    for (word, column) in [(" since ", "at"), (" by ", "by")] {
        let value = cell(change, column);
        if !value.is_empty() {
            text = format!("{text}{word}{value}");
        }
    }
    let (key, reason) = (cell(change, "key.name"), cell(change, "reason"));
    if !key.is_empty() {
        text = format!("{text} ({key}, {})", cell(change, "key.id"));
    }
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_with_who_when_and_why_as_far_as_that_is_known() {
        let paused = json!({ "status": "paused", "reason": "a holiday", "by": "person",
            "key": { "id": "key_1", "name": "ops" }, "at": "2026-05-03T15:00:00Z" });
        let disabled = json!({ "status": "paused", "reason": "20 failures", "by": "breaker", "key": null,
            "at": "2026-05-02T15:00:00Z" });
        let shown = lines(&json!({ "state": paused, "history": [paused, disabled] }));
        assert_eq!(
            shown,
            [
                "state             paused since 2026-05-03T15:00:00Z by person (ops, key_1): a holiday",
                "  before          paused since 2026-05-02T15:00:00Z by breaker: 20 failures",
            ]
        );
        let plain = lines(&json!({ "state": { "status": "active" } }));
        assert_eq!(plain, ["state             active"]);
    }
}
