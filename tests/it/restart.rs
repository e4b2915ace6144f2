//! The gateway on its embedded store restarted under load, on a socket that outlives it: no request fails, and each event
//! is taken and delivered once.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::process::{Door, Process};
use crate::support::receiver::Receiver;
use crate::support::within;

const EVENTS: usize = 600;
const SENDERS: usize = 4;
const RESTARTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_an_inherited_socket_refuses_nobody_and_loses_nothing() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let door = Door::default();
    let mut process = Process::start_on_socket(&socket, folder.path(), &door);
    assert_eq!(door.address(), socket.local_addr().unwrap().to_string(), "it serves on what it was given");
    // The wait of a request that comes in between two processes counts; each request has a connection of its own.
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_mins(1))
        .build()
        .unwrap();
    door.connect(&client, &receiver.url).await;

    let sent = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, door, sent) = (client.clone(), door.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                for number in (sender..EVENTS).step_by(SENDERS) {
                    let event = json!({"tenant": "acme", "type": "lead.captured", "id": format!("lead-{number}"),
                                       "data": null});
                    // Once: a connection that is refused or cut off is a fault, like any answer but 202.
                    let answer = door.call(&client, "POST", "/v1/events", Some(&event)).await;
                    assert_eq!(answer.map(|(status, _)| status), Some(202), "event {number}");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for restart in 1..=RESTARTS {
        within("some events to be accepted", async {
            while sent.load(Ordering::Relaxed) < EVENTS * restart / (RESTARTS + 1) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        process.terminate();
        let ended = within("the end", tokio::task::spawn_blocking(move || process.wait())).await.unwrap();
        assert_eq!(ended, Some(0));
        process = Process::start_on_socket(&socket, folder.path(), &door);
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let arrived = || -> BTreeSet<String> {
        receiver.arrivals().iter().map(|arrival| arrival.json()["id"].as_str().unwrap().to_owned()).collect()
    };
    within("all deliveries", async {
        while arrived().len() < EVENTS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(receiver.arrivals().len(), EVENTS, "none twice");
}
