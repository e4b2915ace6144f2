//! What people are told about sheets.

use serde_json::{Value, json};

use super::{BOOK, Scene, name_and_email};
use crate::support::receiver::Receiver;
use crate::support::within;

/// The alerts that a connection was told of, once there are so many.
async fn told(scene: &Scene, receiver: &Receiver, count: usize) -> Vec<Value> {
    within(&format!("{count} alerts"), async {
        while receiver.arrivals().len() < count {
            scene.gateway.gateway.raise_alerts().await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut told: Vec<Value> = receiver.arrivals().iter().map(|arrival| arrival.json()).collect();
    told.sort_by_key(|event| event["data"]["connection"]["id"].as_str().unwrap().to_owned());
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_told_of_each_connection() {
    let scene = Scene::new(&["Leads", "Others"]).await;
    let receiver = Receiver::start().await;
    scene.gateway.connection(&scene.tenant, &receiver.url, json!({"events": ["gateway.*"]})).await;
    let wanted = json!(["lead.*"]);
    let mut ids = Vec::new();
    for tab in ["Leads", "Others"] {
        let id = scene.connect(json!({"tab": tab}), name_and_email()).await;
        let narrow = json!({"events": wanted});
        scene.gateway.gateway.update_connection(None, id, &narrow).await.unwrap();
        ids.push(id.to_string());
    }
    scene.google.revoke_key(true);
    for n in 0..20 {
        scene.lead(json!({"name": n.to_string()})).await;
    }
    let told = told(&scene, &receiver, 2).await;
    for (event, id) in told.iter().zip(&ids) {
        assert_eq!(event["type"], "gateway.connection.paused");
        assert_eq!(
            (&event["data"]["connection"]["id"], &event["data"]["by"]),
            (&json!(id), &json!("auth_failed"))
        );
        assert!(!event.to_string().contains("Invalid JWT"), "Google's words stay in the log: {event}");
    }
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_spreadsheet_is_told() {
    let scene = Scene::new(&["Leads"]).await;
    let receiver = Receiver::start().await;
    scene
        .gateway
        .connection(&scene.tenant, &receiver.url, json!({"events": ["gateway.sheets.nearly_full"]}))
        .await;
    scene.google.edit(BOOK, |book| book.ballast = 9_100_000);
    let id = scene.connect(json!({}), name_and_email()).await;
    scene.lead(json!({"name": "Jane"})).await;
    scene.rows("Leads", 2).await;
    let told = told(&scene, &receiver, 1).await;
    let data = &told[0]["data"];
    assert_eq!(data["connection"]["id"], json!(id.to_string()));
    assert_eq!(data["limit"], json!(10_000_000));
    assert!(data["cells"].as_u64().unwrap() >= 9_100_000, "{data}");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_for_good_is_a_dead_letter() {
    let scene = Scene::new(&["Leads"]).await;
    let receiver = Receiver::start().await;
    scene.gateway.connection(&scene.tenant, &receiver.url, json!({"events": ["gateway.dead_letter"]})).await;
    scene.connect(json!({}), name_and_email()).await;
    scene.lead(json!({"name": "x".repeat(60_000)})).await;
    let told = told(&scene, &receiver, 1).await;
    assert_eq!((&told[0]["data"]["event_type"]), &json!("lead.captured"));
    scene.gateway.stop().await;
}
