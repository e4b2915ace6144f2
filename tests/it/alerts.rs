//! Alerts and resumed backlogs with real processes: what the settings, the background tasks and the shared store make of them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fleet::Fleet;
use crate::support::redis::Server;
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_once_whichever_process_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("patchbay.toml");
    std::fs::write(&config, "public_url = \"https://hooks.example.com\"\n[alerts]\ntenant = \"ops\"\n")
        .unwrap();
    let settings = ["--config", config.to_str().unwrap()];
    let mut fleet = Fleet::on(Server::start()).await;
    let (one, two) = (fleet.start(&settings), fleet.start(&settings));
    let doors = [one.door().clone(), two.door().clone()];
    for tenant in ["ops", "acme"] {
        assert_eq!(fleet.call(&doors[0], "POST", "/v1/tenants", Some(&json!({"id": tenant}))).await.0, 201);
    }
    let fields = json!([{"to": "n", "from": "$.data.number", "required": true}]);
    let wanted = [
        json!({"tenant": "ops", "name": "Alerts", "connector": "webhook", "events": ["gateway.*"],
            "target": {"url": fleet.receiver.url}}),
        json!({"tenant": "acme", "name": "CRM", "connector": "webhook", "events": ["*"],
            "target": {"url": "http://127.0.0.1:9/"}, "mapping": {"version": 1, "fields": fields}}),
    ];
    let mut ids = Vec::new();
    for connection in wanted {
        let (status, made) = fleet.call(&doors[0], "POST", "/v1/connections", Some(&connection)).await;
        assert_eq!(status, 201, "{made}");
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    fleet.wait_until_known(&doors[1], ids.len()).await;
    for (number, door) in doors.iter().cycle().take(60).enumerate() {
        assert_eq!(fleet.publish(door, &format!("lead-{number}")).await, 202);
    }
    let told = fleet.receiver.wait_for(1).await;
    let alert = told[0].json();
    assert_eq!((&alert["type"], &alert["data"]["tenant"]), (&json!("gateway.dead_letter"), &json!("acme")));
    assert_eq!(
        alert["data"]["links"]["connection"],
        json!(format!("https://hooks.example.com/v1/connections/{}", ids[1]))
    );
    // What a process has noted and not sent yet it sends when it stops.
    fleet.wait_until_settled(&doors[0]).await;
    for process in [one, two] {
        process.terminate();
        assert_eq!(process.wait(), Some(0));
    }
    let last = fleet.start(&settings);
    fleet.wait_until_settled(last.door()).await;
    assert_eq!(fleet.receiver.arrivals().len(), 1, "60 failures, three processes, one alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_resumed_without_its_backlog_goes_on_by_itself() {
    let mut fleet = Fleet::on(Server::start()).await;
    let process = fleet.start(&[]);
    let door = process.door().clone();
    let path = format!("/v1/connections/{}", fleet.connect(&door, 1).await[0]);
    assert_eq!(fleet.call(&door, "POST", &format!("{path}/pause"), None).await.0, 200);
    for number in 0..300 {
        assert_eq!(fleet.publish(&door, &format!("old-{number}")).await, 202);
    }
    // The mark is in milliseconds.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let none = json!({"backlog": "none"});
    let (status, resumed) = fleet.call(&door, "POST", &format!("{path}/resume"), Some(&none)).await;
    assert_eq!(status, 200, "{resumed}");
    assert_eq!(fleet.publish(&door, "new").await, 202);
    let arrivals = fleet.receiver.wait_for(1).await;
    assert_eq!(arrivals[0].json()["id"], "new");
    within("the mark to be taken away", async {
        while fleet.call(&door, "GET", &path, None).await.1["unwanted_before"] != Value::Null {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    fleet.wait_until_settled(&door).await;
    assert_eq!(fleet.receiver.arrivals().len(), 1);
    let (_, page) = fleet.call(&door, "GET", "/v1/deliveries?state=cancelled&limit=1", None).await;
    assert!(page["items"][0]["reason"].as_str().unwrap().contains("did not want it"), "{page}");
}
