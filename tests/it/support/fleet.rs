//! Gateway processes on one Redis, and what is counted of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::process::{Door, Process, client};
use super::receiver::Receiver;
use super::redis::Server;
use super::within;

/// A Redis, a receiver, and the processes between them; each with a folder of its own.
pub struct Fleet {
    pub server: Server,
    pub receiver: Receiver,
    pub client: Client,
    folder: TempDir,
    door: Door,
    started: usize,
    connections: AtomicUsize,
}

impl Fleet {
    /// No process runs yet.
    pub async fn on(server: Server) -> Self {
        let (receiver, folder) = (Receiver::start().await, tempfile::tempdir().unwrap());
        Self {
            server,
            receiver,
            client: client(),
            folder,
            door: Door::default(),
            started: 0,
            connections: AtomicUsize::new(0),
        }
    }

    /// Starts a process with these further arguments.
    pub fn start(&mut self, more: &[&str]) -> Process {
        self.start_at(&self.door.beside(), more)
    }

    /// Starts one that takes over a door.
    pub fn start_at(&mut self, door: &Door, more: &[&str]) -> Process {
        self.started += 1;
        let folder = self.folder.path().join(self.started.to_string());
        Process::start_on(&self.server.url(), &folder, door, more)
    }

    /// One request through a door; it must be answered.
    pub async fn call(&self, door: &Door, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        door.call(&self.client, method, path, body).await.unwrap()
    }

    /// Makes a tenant and so many connections for all its events; answers their ids. A delivery is no more than its
    /// event's id.
    pub async fn connect(&self, door: &Door, connections: usize) -> Vec<String> {
        assert_eq!(self.call(door, "POST", "/v1/tenants", Some(&json!({"id": "acme"}))).await.0, 201);
        let mut ids = Vec::new();
        for number in 0..connections {
            let connection = json!({"tenant": "acme", "name": number.to_string(), "connector": "webhook",
                "events": ["*"], "target": {"url": format!("{}/{number}", self.receiver.url)},
                "mapping": {"version": 1, "fields": [{"to": "id", "from": "$.id"}]}});
            let (status, made) = self.call(door, "POST", "/v1/connections", Some(&connection)).await;
            assert_eq!(status, 201, "{made}");
            ids.push(made["id"].as_str().unwrap().to_owned());
        }
        self.connections.fetch_add(connections, Ordering::Relaxed);
        ids
    }

    /// Sends one event; the answer's status.
    pub async fn publish(&self, door: &Door, id: &str) -> u16 {
        self.call(door, "POST", "/v1/events", Some(&event(id))).await.0
    }

    /// Waits until the process behind a door knows so many connections: before that it makes no jobs for them.
    pub async fn wait_until_known(&self, door: &Door, connections: usize) {
        within("a process to know every connection", async {
            loop {
                let (_, page) = self.call(door, "GET", "/v1/connections", None).await;
                if page["items"].as_array().is_some_and(|items| items.len() == connections) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Sends events through these doors in turn, each until it is taken.
    pub async fn load(&self, doors: &[Door], numbers: Range<usize>) -> Load {
        const SENDERS: usize = 16;
        for door in doors {
            self.wait_until_known(door, self.connections.load(Ordering::Relaxed)).await;
        }
        let accepted = Arc::new(AtomicUsize::new(0));
        let senders = (0..SENDERS)
            .map(|sender| {
                let (client, doors, accepted) = (self.client.clone(), doors.to_vec(), Arc::clone(&accepted));
                let numbers = numbers.clone();
                tokio::spawn(async move {
                    for number in numbers.skip(sender).step_by(SENDERS) {
                        let event = event(&format!("lead-{number}"));
                        let mut tries = number;
                        loop {
                            let door = &doors[tries % doors.len()];
                            tries += 1;
                            match door.call(&client, "POST", "/v1/events", Some(&event)).await {
                                Some((202, _)) => break,
                                Some((status @ 400..=499, problem)) => panic!("{status}: {problem}"),
                                _ => tokio::time::sleep(Duration::from_millis(20)).await,
                            }
                        }
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Load { events: numbers.len(), accepted, senders }
    }

    /// Waits until no job is open any more.
    pub async fn wait_until_settled(&self, door: &Door) {
        within("every job to be settled", async {
            while self.metric(door, "patchbay_queue_depth").await != Some(0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until one of the processes behind these doors has several attempts under way; which one.
    pub async fn one_at_work(&self, doors: &[Door]) -> usize {
        within("a process to have attempts under way", async {
            loop {
                for (number, door) in doors.iter().enumerate() {
                    if self.metric(door, "patchbay_attempts_under_way").await.is_some_and(|count| count >= 4)
                    {
                        return number;
                    }
                }
            }
        })
        .await
    }

    /// A count out of `/metrics`; `None` where the store does not tell.
    pub async fn metric(&self, door: &Door, name: &str) -> Option<u64> {
        let url = format!("http://{}/metrics", door.address());
        let text = self.client.get(url).send().await.ok()?.text().await.ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Ids of jobs that the log calls delivered.
    pub async fn delivered(&self, door: &Door) -> Vec<String> {
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/deliveries?state=delivered&limit=200{cursor}");
            let (status, page) = self.call(door, "GET", &path, None).await;
            assert_eq!(status, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    }

    /// Counts what came of accepted events, and says so.
    pub fn tally(&self, what: &str, accepted: usize) -> Tally {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for arrival in self.receiver.arrivals() {
            *times.entry(arrival.json()["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let lost = (0..accepted).filter(|number| !times.contains_key(&format!("lead-{number}"))).count();
        let duplicated = times.values().sum::<usize>() - times.len();
        println!(
            "{what}: accepted {accepted}, delivered {}, lost {lost}, duplicated {duplicated}",
            times.len()
        );
        Tally { lost, duplicated }
    }
}

/// An event of the one tenant.
pub fn event(id: &str) -> Value {
    json!({"tenant": "acme", "type": "lead.captured", "source": "bot", "id": id, "data": {"about": id}})
}

/// Events on their way in.
pub struct Load {
    pub events: usize,
    accepted: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Waits until so many were accepted.
    pub async fn wait_for(&self, count: usize) {
        within(&format!("{count} events to be accepted"), async {
            while self.accepted.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until all were accepted; how many those are.
    pub async fn finish(self) -> usize {
        for sender in self.senders {
            sender.await.unwrap();
        }
        self.events
    }
}

/// What came of accepted events.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    pub lost: usize,
    pub duplicated: usize,
}
