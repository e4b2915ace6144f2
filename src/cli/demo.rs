//! `patchbay demo`: the main job by itself, on this machine and in a temporary folder.
//!
//! Nothing is staged: the gateway is the one that `serve` runs, the events go in over HTTP, and the receiver checks each
//! signature as any receiver would. Only the retry schedule is speeded up, by the connection's own policy.

mod scene;
mod sheets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::client::Client;
use super::failure::{FAILED, Failure};
use super::output::{Output, cell, one_line};
use super::receiver::{Answer, Arrival, Judge, Receiver, Seen, Verdict};
use super::scratch::Scratch;
use super::serve::Signals;
use super::verify::Verifier;
use crate::app::{self, AppError, RunningApp};
use crate::clock::{Clock, Entropy};
use crate::config::{Config, Environment};
use crate::domain::secret::Secret;
use crate::spec::Catalogue;
use crate::telemetry;
use scene::Scene;

/// The events of the demo: types of the catalogue's samples.
const EVENTS: [&str; 4] = ["lead.captured", "escalation.requested", "conversation.ended", "rating.given"];
/// The one that the receiver fails at first, and how often.
const UNLUCKY: &str = "escalation.requested";
const FAILURES: u32 = 2;
const RETRY_DELAYS_SECS: [u32; 3] = [1, 2, 3];
const TENANT: &str = "acme";
/// For how long all must have arrived.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tried first, because people expect it there.
const USUAL_PORT: u16 = 8080;

/// How to show it.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// End when the four events have arrived: exit code 0 if all did, 1 if not
    #[arg(long)]
    once: bool,
    /// Show leads become rows of a Google sheet, in a stand-in for Google
    #[arg(long)]
    sheets: bool,
}

/// Runs the demo.
pub async fn run(args: &DemoArgs, output: Output) -> Result<(), Failure> {
    if args.sheets {
        return sheets::run(args.once, output).await;
    }
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let mut signals = Signals::new()?;
    let scratch = Scratch::new("demo", &entropy)?;
    let catalogue = Catalogue::load(None)?;
    let connector =
        catalogue.connector("webhook").ok_or_else(|| Failure::failed("no connector \"webhook\""))?;
    let secret = Secret::new(connector.signature.generate_secret(entropy.bytes()));
    let verifier = Verifier::new(connector, &[secret.reveal()]).map_err(Failure::failed)?;
    let receiver = Receiver::start(loopback(0), clock.clone(), judge(verifier, clock.clone())).await?;
    let running = start_gateway(&scratch, clock.clone(), entropy, "").await?;

    let scene = Scene::new(output);
    let stage = set_up(&running, &receiver, &secret).await?;
    scene.introduce(&running.url(), &format!("http://{}/hook", receiver.address), &stage.connection);
    let mut show = Show { receiver, scene, clock, deliveries: HashMap::new(), arrived: Vec::new() };
    for kind in EVENTS {
        let mut event = catalogue.samples().get(kind).cloned().unwrap_or_default();
        event["tenant"] = TENANT.into();
        let accepted = stage.client.post("/v1/events", &event).await?;
        show.scene.accepted(kind, &cell(&accepted, "id"));
    }
    show.scene.between();
    let url = running.url();
    let result = tokio::select! {
        result = show.play(args.once, &url, &stage.token) => result,
        // Ctrl-C is how it ends, unless it was asked to see all events arrive.
        code = signals.next() => if args.once { Err(Failure::Told(code)) } else { Ok(()) },
    };
    running.stop().await;
    result
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A gateway on a scratch folder that may reach loopback; `more` is the end of its configuration.
async fn start_gateway(
    scratch: &Scratch,
    clock: Clock,
    entropy: Entropy,
    more: &str,
) -> Result<RunningApp, Failure> {
    let data_dir = Value::from(scratch.path().join("data").display().to_string());
    let text = |port: u16| {
        format!(
            "listen = \"127.0.0.1:{port}\"\ndata_dir = {data_dir}\n[egress]\nallow_http = true\n\
             allow_ranges = [\"127.0.0.0/8\"]\n[delivery]\ndrain_secs = 2\n[log]\nlevel = \"error\"\n{more}"
        )
    };
    let config = |port| Config::from_text("demo", &text(port), &Environment::default(), &[]);
    let mut config_now = config(USUAL_PORT)?;
    let _flush = telemetry::start(&config_now.log);
    match app::start(&config_now, clock.clone(), entropy.clone()).await {
        Err(AppError::Listen { .. }) => {
            config_now = config(0)?;
            Ok(app::start(&config_now, clock, entropy).await?)
        }
        started => Ok(started?),
    }
}

/// What the demo works with once all is set up.
struct Stage {
    client: Client,
    connection: String,
    token: String,
}

async fn set_up(running: &RunningApp, receiver: &Receiver, secret: &Secret) -> Result<Stage, Failure> {
    let base = Url::parse(&running.url()).map_err(Failure::failed)?;
    let operator = Client::new(base.clone(), running.operator_token.clone())?;
    operator.post("/v1/tenants", &json!({ "id": TENANT, "name": "Acme Plumbing" })).await?;
    let key = json!({ "tenant": TENANT, "name": "demo", "scopes": ["publish", "manage", "read"] });
    let key = operator.post("/v1/keys", &key).await?;
    let token = cell(&key, "token");
    let client = Client::new(base, Some(Secret::new(token.as_str())))?;
    let connection = json!({
        "name": "Demo receiver",
        "connector": "webhook",
        "events": ["*"],
        "mapping": mapping(),
        "target": { "url": format!("http://{}/hook", receiver.address) },
        "secret": secret.reveal(),
        "policy": { "retry_delays_secs": RETRY_DELAYS_SECS },
    });
    let connection = client.post("/v1/connections", &connection).await?;
    Ok(Stage { client, connection: cell(&connection, "id"), token })
}

/// Four kinds of events become one kind of message.
fn mapping() -> Value {
    json!({
        "version": 1,
        "fields": [
            { "to": "event", "from": "$event.type" },
            { "to": "at", "from": "$event.time" },
            { "to": "customer.name", "from": ["$.data.lead.name", "$.data.customer.name"], "default": "someone" },
            { "to": "customer.email", "from": ["$.data.lead.email", "$.data.customer.email"], "apply": ["lower"] },
            {
                "to": "about",
                "from": ["$.data.intent", "$.data.reason", "$.data.comment", "$.data.channel"],
                "default": "nothing in particular",
            },
            { "to": "conversation", "from": "$.data.conversation_id" },
        ],
    })
}

/// Verifies, and fails the unlucky event's first tries.
fn judge(verifier: Verifier, clock: Clock) -> Arc<Judge> {
    let tries = Mutex::new(HashMap::<String, u32>::new());
    Arc::new(move |arrival: &Arrival| {
        let host = arrival.header("host").unwrap_or_default();
        let verdict = verifier.judge(arrival, host, clock.now());
        if verdict != Verdict::Verified {
            return (verdict, Answer::at_once(401));
        }
        let body: Value = serde_json::from_slice(&arrival.body).unwrap_or_default();
        let mut tries = tries.lock();
        let tries = tries.entry(id_of(arrival)).or_default();
        *tries += 1;
        let unlucky = body["event"] == UNLUCKY && *tries <= FAILURES;
        (verdict, Answer::at_once(if unlucky { 500 } else { 200 }))
    })
}

fn id_of(arrival: &Arrival) -> String {
    one_line(arrival.header("webhook-id").unwrap_or_default())
}

/// What was seen of a delivery.
struct Tried {
    tries: u32,
    first_body: Bytes,
    last: crate::domain::time::Timestamp,
}

struct Show {
    receiver: Receiver,
    scene: Scene,
    clock: Clock,
    deliveries: HashMap<String, Tried>,
    /// The types that were delivered.
    arrived: Vec<String>,
}

impl Show {
    /// Shows the demo's events arrive, and then, unless it is `once`, whatever else comes.
    async fn play(&mut self, once: bool, gateway: &str, token: &str) -> Result<(), Failure> {
        let whole = self.until_all_arrived().await;
        self.scene.verdict(whole, EVENTS.len());
        if !once {
            self.scene.invite(gateway, token);
            while let Some(seen) = self.receiver.seen.recv().await {
                self.show(&seen);
            }
        }
        if whole { Ok(()) } else { Err(Failure::Told(FAILED)) }
    }

    /// Shows deliveries until each of the demo's events has arrived; `false` when that takes too long.
    async fn until_all_arrived(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !EVENTS.iter().all(|kind| self.arrived.iter().any(|arrived| arrived == kind)) {
            match tokio::time::timeout_at(deadline, self.receiver.seen.recv()).await {
                Ok(Some(seen)) => self.show(&seen),
                _ => return false,
            }
        }
        true
    }

    fn show(&mut self, seen: &Seen) {
        let Seen { arrival, verdict, answer } = seen;
        let id = id_of(arrival);
        let now = self.clock.now();
        let before = self.deliveries.get(&id).map(|tried| (tried.last, tried.first_body == arrival.body));
        let tried = self.deliveries.entry(id.clone()).or_insert_with(|| Tried {
            tries: 0,
            first_body: arrival.body.clone(),
            last: now,
        });
        tried.tries += 1;
        tried.last = now;
        let body: Value = serde_json::from_slice(&arrival.body).unwrap_or_default();
        let kind = cell(&body, "event");
        self.scene.arrival(&scene::Line {
            kind: &kind,
            id: &id,
            tries: tried.tries,
            waited: before.map(|(last, _)| now.since(last)),
            same_bytes: before.is_none_or(|(_, same)| same),
            verdict,
            status: answer.status,
            body: &String::from_utf8_lossy(&arrival.body),
        });
        if answer.status == 200 {
            self.arrived.push(kind);
        }
    }
}
