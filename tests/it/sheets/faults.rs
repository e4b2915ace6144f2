//! Exactly once, broken on purpose: answers that are lost, delayed, wrong; and a gateway that is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use patchbay::cli::fake_google::{FakeGoogle, Fault};
use serde_json::{Value, json};

use super::{BOOK, Scene, name_and_email};
use crate::support::process::{Door, Process, client};
use crate::support::redis::Server;
use crate::support::within;

/// A fault for most appends, each sort in turn; every fourth goes well, so that it comes to an end.
fn misfortune(number: usize) -> Fault {
    match number % 12 {
        0 | 10 => Fault::DropAfter,
        1 => Fault::FailAfter(500),
        2 => Fault::PageAfter,
        4 => Fault::DropBefore,
        5 => Fault::FailBefore(503),
        6 => Fault::Slow(Duration::from_millis(300)),
        8 => Fault::Late(Duration::from_millis(400)),
        9 => Fault::Quota(Some(1)),
        _ => Fault::None,
    }
}

fn counted(google: &FakeGoogle) -> (BTreeMap<String, usize>, bool) {
    let rows = google.rows(BOOK, "Leads");
    let mut counts = BTreeMap::new();
    for row in rows.iter().skip(1) {
        *counts.entry(row[0].clone()).or_insert(0) += 1;
    }
    let in_order = rows.iter().skip(1).map(|row| row[0].parse::<usize>().unwrap_or(0)).is_sorted();
    (counts, in_order)
}

/// What has a gateway take the stand-in for Google.
fn settings(google: &FakeGoogle) -> [(&'static str, String); 2] {
    [("PATCHBAY_GOOGLE_API_ROOT", google.api_root()), ("PATCHBAY_GOOGLE_TOKEN_HOSTS", "127.0.0.1".to_owned())]
}

fn start(folder: &Path, door: &Door, google: &FakeGoogle) -> Process {
    Process::start_with(folder, door, &settings(google))
}

/// A tenant with one connection, whose rows are the numbers of its events.
async fn connect(door: &Door, google: &FakeGoogle) {
    let client = client();
    door.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "acme", "name": "Acme"}))).await.unwrap();
    let connection = json!({
        "tenant": "acme", "name": "sheet", "connector": "google_sheets", "events": ["*"],
        "mapping": {"version": 1, "fields": [{"to": "Number", "from": "$.data.number"}]},
        "options": {"spreadsheet": BOOK, "tab": "Leads"},
        "credentials": {"service_account_key": google.key()},
        "policy": {"retry_delays_secs": vec![1; 20], "timeout_secs": 5},
    });
    let made = door.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    assert_eq!(made.0, 201, "{}", made.1);
}

fn lead(n: usize) -> Value {
    json!({"tenant": "acme", "type": "lead.captured", "source": "bot", "id": format!("lead-{n}"), "data": {"number": n}})
}

/// Rows go through every fault, and the gateway is killed as often as that.
async fn run(rows: usize, kills: usize) {
    let google = FakeGoogle::start().await.unwrap();
    google.make_book(BOOK, &["Leads"]);
    google.plan(misfortune);
    let folder = tempfile::tempdir().unwrap();
    let (door, client) = (Door::default(), client());
    let mut process = start(folder.path(), &door, &google);
    connect(&door, &google).await;
    let began = Instant::now();
    let mut killed = 0;
    // In slices, so that there are many appends, and kills between and during them.
    let slice = rows / if rows > 1_000 { 50 } else { 12 };
    for first in (0..rows).step_by(slice) {
        let events: Vec<_> = (first..(first + slice).min(rows)).map(lead).collect();
        for batch in events.chunks(500) {
            let batch = json!(batch);
            loop {
                match door.call(&client, "POST", "/v1/events", Some(&batch)).await {
                    Some((202, _)) => break,
                    Some((status @ 400..=499, problem)) => panic!("{status}: {problem}"),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        if killed < kills && first * (kills + 1) >= rows * (killed + 1) {
            killed += 1;
            let moment = 50 * (killed as u64 % 5);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let (path, door) = process.kill();
            process = start(&path, &door, &google);
        } else {
            // Most rows meet a fault, and each look for them costs requests of the quota: that is what takes its time.
            let arrived = async {
                while counted(&google).0.len() < (first + slice / 2).min(rows) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let in_time = tokio::time::timeout(Duration::from_mins(2), arrived).await;
            assert!(in_time.is_ok(), "the slice from {first} on does not arrive: {:?}", google.counts());
        }
    }
    let patience = Duration::from_secs(60 + rows as u64 / 20);
    let whole = tokio::time::timeout(patience, async {
        while counted(&google).0.len() < rows {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        loop {
            let mut open = 0;
            for state in ["queued", "waiting"] {
                let path = format!("/v1/deliveries?state={state}&limit=1");
                let page = door.call(&client, "GET", &path, None).await;
                open += page.map_or(1, |(_, page)| page["items"].as_array().map_or(1, Vec::len));
            }
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // What was still under way when its connection broke has come by now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (counts, in_order) = counted(&google);
    let twice = counts.values().filter(|count| **count > 1).count();
    let asked = google.counts();
    println!(
        "{rows} rows, {kills} kills: lost {}, twice {twice}, in order {in_order}, {} appends, {} reads, at most {} at \
         once, {:?}",
        rows - counts.len(),
        asked.appends,
        asked.reads,
        asked.most_at_once,
        began.elapsed()
    );
    assert!(whole.is_ok(), "not all rows came in {patience:?}");
    assert_eq!((rows - counts.len(), twice), (0, 0));
    assert_eq!(asked.most_at_once, 1, "two appends at once");
    assert!(in_order);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_lost_or_there_twice() {
    let soak = std::env::var_os("PATCHBAY_SOAK").is_some();
    if soak { run(10_000, 10).await } else { run(1_000, 2).await }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_redis_write_in_turn_and_one_that_is_killed_loses_nothing() {
    const ROWS: usize = 400;
    let (redis, google) = (Server::durable(), FakeGoogle::start().await.unwrap());
    google.make_book(BOOK, &["Leads"]);
    google.plan(|n| if n % 3 == 1 { Fault::Slow(Duration::from_millis(300)) } else { misfortune(n) });
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let begin = |name: &str, door: &Door| {
        Process::start_on_with(&redis.url(), &folder.path().join(name), door, &settings(&google), &[])
    };
    let first = begin("one", &door);
    connect(&door, &google).await;
    let second = begin("two", &door.beside());
    let (doors, client) = ([first.door().clone(), second.door().clone()], client());
    // Until the second knows the connection it would make no rows for it.
    within("the second process to know the connection", async {
        let known =
            async || doors[1].call(&client, "GET", "/v1/connections?tenant=acme", None).await.unwrap().1;
        while known().await["items"].as_array().is_none_or(Vec::is_empty) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let send = async |n: usize, door: &Door| {
        let (status, answer) = door.call(&client, "POST", "/v1/events", Some(&lead(n))).await.unwrap();
        assert_eq!(status, 202, "{answer}");
    };
    for n in 0..ROWS / 2 {
        send(n, &doors[n % 2]).await;
    }
    within("the first rows", async {
        while counted(&google).0.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    first.kill();
    for n in ROWS / 2..ROWS {
        send(n, &doors[1]).await;
    }
    let arrived = async {
        while counted(&google).0.len() < ROWS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(2), arrived).await;
    let (counts, in_order) = counted(&google);
    let twice = counts.values().filter(|count| **count > 1).count();
    println!("two processes, one killed: {ROWS} rows, lost {}, twice {twice}", ROWS - counts.len());
    assert!(in_time.is_ok(), "{:?}", google.counts());
    assert_eq!((counts.len(), twice, in_order), (ROWS, 0, true));
    assert_eq!(google.counts().most_at_once, 1, "two appends at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_of_one_sheet_take_turns() {
    let scene = Scene::new(&["Leads", "Others"]).await;
    scene.google.plan(|_| Fault::Slow(Duration::from_millis(50)));
    scene.connect(json!({}), name_and_email()).await;
    scene.connect(json!({"tab": "Others"}), name_and_email()).await;
    for n in 0..10 {
        scene.lead(json!({"name": n.to_string()})).await;
    }
    scene.rows("Leads", 11).await;
    scene.rows("Others", 11).await;
    assert_eq!(scene.google.counts().most_at_once, 1);
    within("the lanes to be empty", async {
        while scene.gateway.gateway.store.stats().await.unwrap().open > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    scene.gateway.stop().await;
}
