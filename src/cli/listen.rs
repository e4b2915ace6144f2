//! `patchbay listen`: a local receiver that verifies what it gets, shows it, and fails on demand.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::secret;
use super::failure::Failure;
use super::output::{Output, one_line};
use super::receiver::{Answer, Arrival, Judge, Receiver, Seen, Verdict};
use super::verify::Verifier;
use crate::app::plain;
use crate::clock::{Clock, Entropy};
use crate::domain::fault::did_you_mean;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::spec::{Catalogue, ConnectorSpec};

/// How much of a body is shown, in characters.
const SHOWN_CHARS: usize = 400;

/// How to receive.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// By which connector's spec requests are signed
    #[arg(long, default_value = "webhook")]
    connector: String,
    /// The signing secret; several times while one is being replaced
    #[arg(long, env = "PATCHBAY_LISTEN_SECRET", hide_env_values = true, value_parser = secret)]
    secret: Vec<Secret>,
    /// A folder of your own with connectors/ and mappings/
    #[arg(long, env = "PATCHBAY_CATALOGUE_DIR", value_name = "DIR")]
    catalogue_dir: Option<PathBuf>,
    /// Answer the first N requests with 500
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail: u32,
    /// Answer this share of the requests with 500, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fail_rate: f64,
    /// Wait so long before each answer
    #[arg(long, value_name = "SECS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    slow: u64,
    /// Answer every request with 410 Gone
    #[arg(long)]
    gone: bool,
    /// Take one request in so many seconds, and answer the others with 429 and Retry-After
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    rate_limit: Option<u32>,
    /// End after so many requests
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Show bodies and headers whole
    #[arg(long)]
    full: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// Receives until Ctrl-C, or until `--count` is reached.
pub async fn run(args: &ListenArgs, clock: &Clock, output: Output) -> Result<(), Failure> {
    let catalogue = Catalogue::load(args.catalogue_dir.as_deref())?;
    let connector = find_connector(&args.connector, &catalogue)?;
    let secrets: Vec<&str> = args.secret.iter().map(Secret::reveal).collect();
    let verifier = Verifier::new(connector, &secrets)
        .map_err(|error| Failure::invalid(error, "the connection's secret is shown when it is made"))?;
    let judge = judge(args.clone(), verifier, clock.clone());
    let mut receiver = Receiver::start(args.listen, clock.clone(), judge).await.map_err(|error| {
        let failure = Failure::failed(format!("cannot listen on {}: {}", args.listen, plain(&error)));
        failure.hint("--listen 127.0.0.1:0 takes a free port")
    })?;
    announce(args, receiver.address, output);
    let mut left = args.count;
    while left != Some(0) {
        let seen = tokio::select! {
            seen = receiver.seen.recv() => seen,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(seen) = seen else { return Ok(()) };
        show(&seen, args.full, output);
        left = left.map(|left| left - 1);
    }
    // The last answer is still on its way.
    receiver.finish(Duration::from_secs(args.slow + 2)).await;
    Ok(())
}

fn find_connector<'c>(id: &str, catalogue: &'c Catalogue) -> Result<&'c Arc<ConnectorSpec>, Failure> {
    catalogue.connector(id).ok_or_else(|| {
        let ids = || catalogue.connectors().keys().map(String::as_str);
        let known = ids().collect::<Vec<_>>().join(", ");
        let hint = did_you_mean(id, ids()).unwrap_or_else(|| format!("one of {known}"));
        Failure::invalid(format!("there is no connector \"{id}\""), hint)
    })
}

fn announce(args: &ListenArgs, address: SocketAddr, output: Output) {
    if output.is_json() {
        return output.lines(&json!({ "listening": format!("http://{address}") }).to_string());
    }
    let checked = if args.secret.is_empty() {
        "signatures are NOT checked (--secret gives the secret)".to_owned()
    } else {
        format!("signatures are checked as {} writes them", args.connector)
    };
    output.lines(&format!("Listening on http://{address}; {checked}. Ctrl-C ends it.\n"));
}

/// Decides over each request by its signature first, then by what was asked to be played.
fn judge(args: ListenArgs, verifier: Verifier, clock: Clock) -> Arc<Judge> {
    let entropy = Entropy::system();
    let state = Mutex::new(Played { requests: 0, taken: None });
    Arc::new(move |arrival: &Arrival| {
        let now = clock.now();
        let host = arrival.header("host").unwrap_or_default();
        let verdict = verifier.judge(arrival, host, now);
        let mut answer = state.lock().play(&args, now, entropy.fraction());
        if matches!(verdict, Verdict::Refused(_)) {
            answer = Answer::at_once(401);
        }
        answer.after = Duration::from_secs(args.slow);
        (verdict, answer)
    })
}

/// What the play of failures has to remember.
struct Played {
    requests: u32,
    taken: Option<Timestamp>,
}

impl Played {
    fn play(&mut self, args: &ListenArgs, now: Timestamp, fraction: f64) -> Answer {
        self.requests = self.requests.saturating_add(1);
        if args.gone {
            return Answer::at_once(410);
        }
        if self.requests <= args.fail || fraction < args.fail_rate {
            return Answer::at_once(500);
        }
        if let Some(secs) = args.rate_limit {
            let span = Duration::from_secs(u64::from(secs));
            if let Some(taken) = self.taken
                && now < taken.plus(span)
            {
                let left = taken.plus(span).since(now).as_millis().div_ceil(1_000);
                let retry_after_secs = Some(u32::try_from(left).unwrap_or(secs));
                return Answer { retry_after_secs, ..Answer::at_once(429) };
            }
            self.taken = Some(now);
        }
        Answer::at_once(200)
    }
}

fn show(seen: &Seen, full: bool, output: Output) {
    let Seen { arrival, verdict, answer } = seen;
    let text = String::from_utf8_lossy(&arrival.body);
    if output.is_json() {
        let body = serde_json::from_slice(&arrival.body).unwrap_or_else(|_| Value::from(text.as_ref()));
        let (signature, reason) = match verdict {
            Verdict::Verified => ("verified", None),
            Verdict::Refused(reason) => ("refused", Some(reason)),
            Verdict::Unchecked => ("unchecked", None),
        };
        let line = json!({
            "at": arrival.at, "method": arrival.method, "path": arrival.path, "signature": signature,
            "reason": reason, "status": answer.status, "headers": arrival.headers, "body": body,
        });
        return output.lines(&line.to_string());
    }
    let mut lines = format!(
        "{}  {} {}  {} bytes  {}  -> {}",
        arrival.at,
        one_line(&arrival.method),
        one_line(&arrival.path),
        arrival.body.len(),
        verdict_text(verdict),
        answer_text(answer),
    );
    if full {
        for (name, value) in &arrival.headers {
            let _ = write!(lines, "\n    {}: {}", one_line(name), one_line(value));
        }
    }
    let _ = write!(lines, "\n    {}", if full { one_line(&text) } else { shortened(&text, SHOWN_CHARS) });
    output.lines(&lines);
}

/// A verdict in a few words.
pub fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Verified => "signature verified".to_owned(),
        Verdict::Refused(reason) => format!("signature REFUSED ({})", one_line(reason)),
        Verdict::Unchecked => "signature not checked".to_owned(),
    }
}

fn answer_text(answer: &Answer) -> String {
    match answer.retry_after_secs {
        Some(secs) => format!("{}, Retry-After {secs}", answer.status),
        None => answer.status.to_string(),
    }
}

/// At most `most` characters of a text, on one line.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return one_line(text);
    }
    format!("{}…", one_line(&text.chars().take(most).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ListenArgs,
    }

    fn statuses(flags: &[&str], at_secs: &[i64]) -> Vec<(u16, Option<u32>)> {
        let args = Line::parse_from(std::iter::once(&"listen").chain(flags)).args;
        let mut played = Played { requests: 0, taken: None };
        at_secs
            .iter()
            .map(|secs| {
                let answer = played.play(&args, Timestamp::from_millis(secs * 1_000), 0.5);
                (answer.status, answer.retry_after_secs)
            })
            .collect()
    }

    #[test]
    fn failures_are_played_as_asked() {
        assert_eq!(statuses(&["--fail", "2"], &[0, 1, 2]), [(500, None), (500, None), (200, None)]);
        assert_eq!(statuses(&["--gone", "--fail", "1"], &[0, 1]), [(410, None), (410, None)]);
        assert_eq!(statuses(&["--fail-rate", "0.6"], &[0]), [(500, None)]);
        assert_eq!(statuses(&["--fail-rate", "0.4"], &[0]), [(200, None)]);
        assert_eq!(
            statuses(&["--rate-limit", "10"], &[0, 4, 10, 11]),
            [(200, None), (429, Some(6)), (200, None), (429, Some(9))]
        );
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert!(share("1.5").is_err() && share("x").is_err() && share("NaN").is_err());
        assert_eq!(share("0.25"), Ok(0.25));
    }
}
