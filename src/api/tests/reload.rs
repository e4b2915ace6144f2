//! Connector and mapping files that change under a running gateway.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::deliveries::deliver_all;
use super::receiver::{Receiver, Says};
use super::{Got, TestApi};
use crate::service::reload::ReloadError;

struct World {
    api: TestApi,
    key: String,
    files: TempDir,
    receiver: Receiver,
    path: String,
}

const CONNECTOR: &str = "version = 1\nid = 'tidy'\nname = 'Tidy'\ndescription = 'A made-up CRM'\nmapping = 'tidy'\n\
    [[options]]\nname = 'list'\ndescription = 'Which list'\n\
    [request.headers]\nX-List = '{list}'\n\
    [policy]\nconcurrency = 3\nretry_delays_secs = [5]\n";
const MAPPING: &str = "version = 1\n[[fields]]\nto = 'email'\nfrom = '$.data.email'\n";

fn write(files: &Path, name: &str, text: &str) {
    let path = files.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl World {
    async fn new(answers: impl IntoIterator<Item = Says>) -> Self {
        let api = TestApi::start().await;
        let key = api.full_tenant("acme").await;
        let files = TempDir::new().unwrap();
        write(files.path(), "connectors/tidy.toml", CONNECTOR);
        write(files.path(), "mappings/tidy.toml", MAPPING);
        let receiver = Receiver::start(answers).await;
        // A vendor that is added with files alone, while the gateway runs.
        let done = api.gateway.reload(Some(files.path())).await.unwrap();
        assert_eq!((done.connectors, done.mappings), (vec!["tidy".to_owned()], vec!["tidy".to_owned()]));
        let wanted =
            json!({ "connector": "tidy", "options": { "list": "a" }, "target": { "url": receiver.url } });
        let path = format!("/v1/connections/{}", api.connection(&key, wanted).await);
        Self { api, key, files, receiver, path }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.files.path(), name, text);
    }

    async fn reload(&self) -> Result<crate::service::reload::Reloaded, ReloadError> {
        self.api.gateway.reload(Some(self.files.path())).await
    }

    async fn publish(&self, id: &str) {
        let event = json!({ "type": "lead.captured", "id": id, "data": { "email": "jane@example.com", "name": "Jane" } });
        let got = self.api.post("/v1/events", &self.key, &event).await;
        assert_eq!((got.status, &got.body["jobs"]), (202, &json!(1)));
    }

    async fn shown(&self) -> Got {
        self.api.get(&self.path, &self.key).await
    }

    fn sent(&self) -> Vec<Value> {
        self.receiver.came().iter().map(super::receiver::Came::json).collect()
    }
}

#[tokio::test]
async fn a_good_edit_counts_for_what_comes_and_jobs_keep_their_mapping() {
    let world = World::new([Says::status(500)]).await;
    world.publish("before").await;
    world.publish("tried").await;
    assert_eq!(deliver_all(&world.api).await, 2);
    assert_eq!(world.sent().len(), 2, "one failed and was kept as it was sent");
    world.api.post(&format!("{}/pause", world.path), &world.key, &json!({})).await;
    world.publish("waiting").await;

    world.write(
        "connectors/tidy.toml",
        &CONNECTOR.replace("concurrency = 3", "concurrency = 7").replace("[5]", "[9]"),
    );
    world.write("mappings/tidy.toml", &MAPPING.replace("'email'\n", "'address'\n"));
    let done = world.reload().await.unwrap();
    assert_eq!((done.connections, done.broken), (1, 0));
    let shown = world.shown().await;
    assert_eq!(shown.body["effective_policy"]["concurrency"], 7);
    assert_eq!(shown.body["effective_policy"]["retry_delays_secs"], json!([9]));
    let id = world.path.rsplit('/').next().unwrap().parse().unwrap();
    assert_eq!(world.api.gateway.directory.connection(id).unwrap().record.concurrency, 7, "the lane's too");
    world.publish("after").await;
    world.api.post(&format!("{}/resume", world.path), &world.key, &json!({})).await;
    world.api.clock.advance(Duration::from_secs(20));
    assert_eq!(deliver_all(&world.api).await, 3);
    let mut sent: Vec<String> = world.sent().iter().map(ToString::to_string).collect();
    sent.sort();
    let (old, new) = (r#"{"email":"jane@example.com"}"#, r#"{"address":"jane@example.com"}"#);
    assert_eq!(sent, [new, old, old], "two were made before the edit");
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_is_told_everywhere() {
    let world = World::new([]).await;
    world.api.gateway.progress.expect_nothing();
    world.write(
        "connectors/tidy.toml",
        &CONNECTOR.replace("[policy]", "[polcy]").replace("concurrency = 3", "concurrency = 7"),
    );
    world.write("mappings/tidy.toml", &MAPPING.replace("from", "form"));
    let Err(ReloadError::Faulty(faults)) = world.reload().await else { panic!("it is faulty") };
    let told = faults.to_string();
    assert!(told.contains("connectors/tidy.toml:11:") && told.contains("did you mean \"policy\"?"), "{told}");
    assert!(told.contains("mappings/tidy.toml:4:1: fields[0].form: unknown key"), "{told}");
    let shown = world.shown().await;
    assert_eq!(
        (&shown.body["effective_policy"]["concurrency"], &shown.body["broken"]),
        (&json!(3), &Value::Null)
    );
    let ready = world.api.get("/readyz", "").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(ready.body["note"].as_str().unwrap().contains("stays in force"), "{ready:?}");
    let metrics = world.api.get("/metrics", "").await.text;
    assert!(metrics.contains("patchbay_catalogue_reloads_total{result=\"refused\"} 1"), "{metrics}");
    assert!(!metrics.contains("patchbay_catalogue_faults 0"), "{metrics}");
    world.publish("e1").await;
    assert_eq!(deliver_all(&world.api).await, 1);
    assert_eq!(world.sent(), [json!({ "email": "jane@example.com" })]);

    world.write("connectors/tidy.toml", CONNECTOR);
    world.write("mappings/tidy.toml", MAPPING);
    world.reload().await.unwrap();
    assert_eq!(world.api.get("/readyz", "").await.body["note"], Value::Null);
    assert!(world.api.get("/metrics", "").await.text.contains("patchbay_catalogue_faults 0"));
}

#[tokio::test]
async fn a_connection_whose_connector_is_gone_or_refuses_it_keeps_its_jobs_and_says_why() {
    let world = World::new([]).await;
    let without_option = CONNECTOR.replace("name = 'list'", "name = 'liste'").replace("{list}", "{liste}");
    for (edit, why) in [
        (None, "there is no connector \"tidy\" any more"),
        (Some(without_option), "options.list: is no option of this connector"),
    ] {
        match edit {
            None => fs::remove_file(world.files.path().join("connectors/tidy.toml")).unwrap(),
            Some(text) => world.write("connectors/tidy.toml", &text),
        }
        let done = world.reload().await.unwrap();
        assert_eq!((done.connections, done.broken), (1, 1), "{why}");
        let broken = world.shown().await.body["broken"].as_str().unwrap().to_owned();
        assert!(broken.contains(why), "{broken}");
        world.publish(&format!("kept {why}")).await;
        for _ in 0..20 {
            deliver_all(&world.api).await;
            world.api.clock.advance(Duration::from_mins(30));
        }
        let listed = world.api.get("/v1/deliveries?state=queued", &world.key).await;
        let items = listed.body["items"].as_array().unwrap();
        assert_eq!((items.len(), &items[0]["tries"]), (1, &json!(0)), "{items:?}");
        assert!(items[0]["reason"].as_str().unwrap().contains(why), "{items:?}");

        world.write("connectors/tidy.toml", CONNECTOR);
        world.reload().await.unwrap();
        assert_eq!(world.shown().await.body["broken"], Value::Null);
        world.api.clock.advance(Duration::from_secs(15));
        assert_eq!(deliver_all(&world.api).await, 1);
        assert_eq!(world.sent().len(), 1);
    }
}

#[tokio::test]
async fn a_source_goes_by_the_edited_files_and_says_when_it_can_not() {
    const INBOUND: &str = "[in]\nmapping = 'tidy_in'\n[in.signature]\nalgorithm = 'shared_secret'\n\
        [in.signature.headers]\nX-Word = '{secret}'\n";
    const ROWS: &str = "version = 1\n[[fields]]\nto = 'type'\nvalue = 'tidy.one'\n[[fields]]\nto = 'id'\nfrom = '$.body.id'\n";
    let world = World::new([]).await;
    let connector = format!("{CONNECTOR}{INBOUND}");
    world.write("connectors/tidy.toml", &connector);
    world.write("mappings/tidy_in.toml", ROWS);
    world.reload().await.unwrap();
    let wanted = json!({ "name": "In", "connector": "tidy", "secret": "word" });
    let made = world.api.post("/v1/sources", &world.key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/v1/sources/{}", made.body["id"].as_str().unwrap());
    let id = made.body["id"].as_str().unwrap().parse().unwrap();
    let deliver = async |event: &str, word: &str| {
        let request = http::Request::post(&path).header("x-word", word);
        let body = axum::body::Body::from(json!({ "id": event }).to_string());
        world.api.send(request.body(body).unwrap()).await
    };
    let kind = async |event: &str| {
        let got = world.api.get(&format!("/v1/events/{event}"), &world.key).await;
        got.body["event"]["type"].clone()
    };
    assert_eq!(deliver("a", "word").await.status, 200);
    assert_eq!(kind("a").await, "tidy.one");

    // What does not touch it leaves it alone.
    let before = world.api.gateway.directory.source(id).unwrap();
    world.write("mappings/tidy.toml", &MAPPING.replace("'email'\n", "'address'\n"));
    world.reload().await.unwrap();
    let after = world.api.gateway.directory.source(id).unwrap();
    assert!(std::sync::Arc::ptr_eq(&before, &after), "it was compiled anew");

    world.write("mappings/tidy_in.toml", &ROWS.replace("tidy.one", "tidy.two"));
    world.reload().await.unwrap();
    assert_eq!(deliver("b", "word").await.status, 200);
    assert_eq!(kind("b").await, "tidy.two");

    world.write("connectors/tidy.toml", CONNECTOR);
    world.reload().await.unwrap();
    let got = deliver("c", "word").await;
    assert_eq!((got.status, got.code()), (503, "source_unavailable"), "{got:?}");
    let shown = world.api.get(&path, &world.key).await;
    assert!(shown.body["broken"].as_str().unwrap().contains("receives nothing"), "{shown:?}");
    world.write("connectors/tidy.toml", &connector);
    world.reload().await.unwrap();
    assert_eq!(deliver("c", "word").await.status, 200);
    assert_eq!(deliver("c", "another").await.code(), "unverified", "its secret counts again");
}
