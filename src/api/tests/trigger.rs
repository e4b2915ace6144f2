//! The synchronous way, against a real receiver.

use axum::http::Request;
use serde_json::{Value, json};

use super::deliveries::deliver_all;
use super::receiver::{Receiver, Says};
use super::{Got, TestApi};
use crate::service::Settings;
use crate::store::redis::tests::server::Port;

fn lead(id: &str) -> Value {
    json!({ "type": "lead.captured", "id": id, "time": "2026-05-03T14:22:08Z",
        "data": { "lead": { "name": "Jane", "email": "jane@example.com" }, "conversation_id": "conv_1" } })
}

struct World {
    api: TestApi,
    key: String,
    receiver: Receiver,
    connection: String,
}

impl World {
    /// A `webhook_trigger` connection to a receiver that gives these answers.
    async fn new(answers: impl IntoIterator<Item = Says>, more: Value) -> Self {
        let api = TestApi::start().await;
        Self::on(api, answers, more).await
    }

    async fn on(api: TestApi, answers: impl IntoIterator<Item = Says>, more: Value) -> Self {
        let key = api.full_tenant("acme").await;
        let receiver = Receiver::start(answers).await;
        let mut wanted = json!({ "connector": "webhook_trigger", "events": ["nothing.of.this"],
            "target": { "url": format!("{}/act", receiver.url) }, "secret": "trigger-secret" });
        let wanted_now = wanted.as_object_mut().unwrap();
        wanted_now.extend(more.as_object().unwrap().clone());
        wanted_now.retain(|_, value| !value.is_null());
        let connection = api.connection(&key, wanted).await;
        Self { api, key, receiver, connection }
    }

    fn path(&self) -> String {
        format!("/v1/connections/{}/trigger", self.connection)
    }

    async fn trigger(&self, body: &Value) -> Got {
        self.api.post(&self.path(), &self.key, body).await
    }

    async fn trigger_as(&self, idempotency_key: &str, body: &Value) -> Got {
        let request = Request::post(self.path())
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .header("idempotency-key", idempotency_key);
        self.api.send(request.body(body.to_string().into()).unwrap()).await
    }

    async fn deliveries(&self) -> Vec<Value> {
        let listed = self.api.get("/v1/deliveries", &self.key).await;
        listed.body["items"].as_array().unwrap().clone()
    }

    async fn act(&self, what: &str) {
        let path = format!("/v1/connections/{}/{what}", self.connection);
        assert_eq!(self.api.post(&path, &self.key, &json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn what_was_taken_is_a_success_and_stands_in_the_log() {
    let world = World::new([], json!({})).await;
    let got = world.trigger(&lead("e1")).await;
    assert_eq!((got.status, &got.body["success"]), (200, &json!(true)), "{got:?}");
    let came = world.receiver.came();
    assert_eq!((came.len(), came[0].path.as_str()), (1, "/act"));
    assert_eq!(came[0].headers["x-webhook-secret"], "trigger-secret");
    assert_eq!(
        came[0].json(),
        json!({ "event": "lead.captured", "source": "chat", "customer": "jane@example.com",
            "conversation_id": "conv_1", "timestamp": "2026-05-03T14:22:08Z" })
    );
    let id = got.body["delivery"]["id"].as_str().unwrap();
    let logged = world.api.get(&format!("/v1/deliveries/{id}"), &world.key).await;
    assert_eq!(logged.body, got.body["delivery"], "the log says what the answer said");
    assert_eq!(
        (&logged.body["state"], &logged.body["attempts"][0]["status"]),
        (&json!("delivered"), &json!(200))
    );
    assert_eq!(world.api.get("/v1/events/e1", &world.key).await.status, 200, "its event is kept");
    // Nothing is left for a worker.
    assert_eq!(world.api.gateway.store.stats().await.unwrap().open, 0);
}

#[tokio::test]
async fn what_was_refused_carries_the_other_sides_status_and_words_and_is_not_tried_again() {
    let world = World::new([Says::body(503, "out for lunch")], json!({})).await;
    let got = world.trigger(&lead("e1")).await;
    assert_eq!((got.status, got.code()), (502, "delivery_failed"), "{got:?}");
    assert_eq!((&got.body["success"], &got.body["error"]), (&json!(false), &json!("Webhook 503")));
    assert!(got.body["detail"].as_str().unwrap().starts_with("Webhook 503: the endpoint answered 503"));
    let attempt = &got.body["delivery"]["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["body"]), (&json!(503), &json!("out for lunch")));
    let log = world.deliveries().await;
    assert_eq!((log.len(), &log[0]["state"], &log[0]["tries"]), (1, &json!("dead"), &json!(1)));
    world.api.clock.advance(std::time::Duration::from_hours(48));
    assert_eq!(deliver_all(&world.api).await, 0);
    assert_eq!(world.receiver.came().len(), 1);

    // By hand it goes through the queue, and is delivered like any other.
    let retry = format!("/v1/deliveries/{}/retry", log[0]["id"].as_str().unwrap());
    assert_eq!(world.api.post(&retry, &world.key, &json!({})).await.status, 202);
    assert_eq!(deliver_all(&world.api).await, 1);
    assert_eq!(world.deliveries().await[0]["state"], "delivered");
}

#[tokio::test]
async fn the_same_connection_queues_events_by_its_policy() {
    let more = json!({ "events": ["lead.*"], "policy": { "retry_delays_secs": [5] } });
    let world = World::new([Says::status(503)], more).await;
    assert_eq!(world.api.post("/v1/events", &world.key, &lead("e1")).await.status, 202);
    assert_eq!(deliver_all(&world.api).await, 1);
    assert_eq!(world.deliveries().await[0]["state"], "waiting", "queued mode tries again");
    world.api.clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(deliver_all(&world.api).await, 1);
    assert_eq!(world.deliveries().await[0]["state"], "delivered");
}

#[tokio::test]
async fn a_stored_event_can_be_triggered_by_its_id() {
    let world = World::new([], json!({})).await;
    world.api.post("/v1/events", &world.key, &lead("stored-1")).await;
    let got = world.trigger(&json!({ "event_id": "stored-1" })).await;
    assert_eq!((got.status, &got.body["delivery"]["event"]), (200, &json!("stored-1")), "{got:?}");
    assert_eq!(world.receiver.came()[0].json()["customer"], "jane@example.com");
    let missing = world.trigger(&json!({ "event_id": "stored-2" })).await;
    assert_eq!((missing.status, missing.code()), (404, "not_found"));
    let both = world.trigger(&json!({ "event_id": "stored-1", "type": "x" })).await;
    assert_eq!((both.status, both.pointers()), (400, vec!["/type"]), "{both:?}");
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be() {
    let world = World::new(
        [],
        json!({ "connector": "conversica", "secret": null,
        "credentials": { "user": "user-17", "password": "pass-17" } }),
    )
    .await;
    // A required field of the target is missing.
    let mut event = lead("e1");
    event["data"]["lead"].as_object_mut().unwrap().remove("email");
    let got = world.trigger(&event).await;
    assert_eq!((got.status, got.code()), (422, "mapping_failed"), "{got:?}");
    assert!(got.body["detail"].as_str().unwrap().contains("email"), "{got:?}");
    for (body, status, code) in [
        (json!([lead("e1")]), 400, "invalid_event"),
        (json!({ "type": "lead.captured" }), 400, "invalid_event"),
        (json!({ "type": "a b", "data": 1 }), 400, "invalid_event"),
        (json!({ "type": "x", "tenant": "other", "data": 1 }), 403, "wrong_tenant"),
    ] {
        let got = world.trigger(&body).await;
        assert_eq!((got.status, got.code()), (status, code), "{body}: {got:?}");
    }
    world.act("pause").await;
    let got = world.trigger(&lead("e2")).await;
    assert_eq!((got.status, got.code()), (409, "wrong_state"), "{got:?}");
    assert!(got.body["detail"].as_str().unwrap().contains("paused by a person"));
    assert!(world.receiver.came().is_empty(), "no request went out");
    assert_eq!(world.deliveries().await.len(), 1, "what was refused at the door is in no log");
}

#[tokio::test]
async fn a_key_gives_the_first_outcome_again() {
    let world = World::new([Says::status(500)], json!({})).await;
    let first = world.trigger_as("k1", &lead("e1")).await;
    let again = world.trigger_as("k1", &lead("e1")).await;
    assert_eq!((first.status, again.status), (502, 502));
    assert_eq!(first.body["delivery"], again.body["delivery"]);
    assert_eq!((first.header("idempotent-replay"), again.header("idempotent-replay")), (None, Some("true")));
    assert_eq!(world.receiver.came().len(), 1);
    let other = world.trigger_as("k1", &lead("e2")).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"));
    // Without a key, or under another, it is sent again: whoever triggers means it.
    assert_eq!(world.trigger_as("k2", &lead("e1")).await.status, 200);
    assert_eq!(world.trigger(&lead("e1")).await.status, 200);
    assert_eq!(world.receiver.came().len(), 2);
}

#[tokio::test]
async fn while_one_runs_its_key_and_its_place_are_taken() {
    let world = World::new([], json!({ "policy": { "concurrency": 1 } })).await;
    world.receiver.hold();
    let event = lead("e1");
    let (first, ()) = tokio::join!(world.trigger_as("k1", &event), async {
        world.receiver.arrived().await;
        let same = world.trigger_as("k1", &event).await;
        assert_eq!((same.status, same.code()), (409, "still_running"), "{same:?}");
        let other = world.trigger(&lead("e2")).await;
        assert_eq!((other.status, other.code()), (503, "overloaded"), "{other:?}");
        assert_eq!(other.header("retry-after"), Some("1"));
        world.receiver.go();
    });
    assert_eq!(first.status, 200);
    assert_eq!(world.trigger(&lead("e3")).await.status, 200, "and are free again");
}

#[tokio::test]
async fn what_speaks_of_the_endpoint_holds_for_the_connection() {
    let answers = [Says(429, vec![("retry-after", "30".to_owned())], String::new())];
    let world = World::new(answers, json!({})).await;
    let got = world.trigger(&lead("e1")).await;
    assert_eq!((got.status, got.header("retry-after")), (502, Some("30")), "{got:?}");
    let held = world.trigger(&lead("e2")).await;
    assert_eq!((held.status, held.code(), held.header("retry-after")), (503, "endpoint_held", Some("30")));
    world.api.clock.advance(std::time::Duration::from_secs(30));
    assert_eq!(world.trigger(&lead("e3")).await.status, 200);

    let conversica = json!({ "connector": "conversica", "secret": null,
        "credentials": { "user": "user-17", "password": "pass-17" } });
    let world = World::new([Says::status(401)], conversica).await;
    let mut full = lead("e1");
    full["data"]["lead"]["name"] = json!("Jane Smith");
    full["data"]["messages"] = json!([{ "time": "2026-05-03T14:20:00Z", "role": "user", "text": "hi" }]);
    let got = world.trigger(&full).await;
    assert_eq!((got.status, &got.body["error"]), (502, &json!("Webhook 401")), "{got:?}");
    let shown = world.api.get(&format!("/v1/connections/{}", world.connection), &world.key).await;
    assert_eq!(
        (&shown.body["state"]["status"], &shown.body["state"]["by"]),
        (&json!("paused"), &json!("auth_failed"))
    );
    assert_eq!(world.trigger(&full).await.status, 409);
}

#[tokio::test]
async fn a_lost_answer_may_have_arrived() {
    // A port that takes connections and closes them without a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let closing = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 512];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await;
        }
    });
    let world = World::new([], json!({ "target": { "url": url } })).await;
    let got = world.trigger(&lead("e1")).await;
    assert_eq!((got.status, got.code()), (504, "delivery_unanswered"), "{got:?}");
    assert_eq!(got.body["error"], "Webhook without an answer");
    assert_eq!(world.deliveries().await[0]["state"], "dead");
    closing.abort();
    // Nobody listens there: it did not arrive.
    let free = Port::reserve();
    let url = format!("http://127.0.0.1:{}/", free.number);
    let world = World::new([], json!({ "target": { "url": url } })).await;
    let got = world.trigger(&lead("e1")).await;
    assert_eq!(
        (got.status, got.code(), &got.body["error"]),
        (502, "delivery_failed", &json!("Webhook failed"))
    );
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_an_outcome() {
    let world = World::new([], json!({})).await;
    world.receiver.hold();
    let event = lead("e1");
    tokio::select! {
        _ = world.trigger(&event) => panic!("it is held"),
        () = world.receiver.arrived() => {}
    }
    let log = world.deliveries().await;
    assert_eq!((&log[0]["state"], &log[0]["tries"]), (&json!("dead"), &json!(0)));
    assert!(log[0]["reason"].as_str().unwrap().contains("it may have arrived"), "what a crash would leave");
    world.receiver.go();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.deliveries().await[0]["state"] != "delivered" {
        assert!(std::time::Instant::now() < patience, "{:?}", world.deliveries().await);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_trigger_counts_as_an_event_of_its_tenant() {
    let settings = Settings { events_per_second: 1, ..Settings::default() };
    let world = World::on(TestApi::with(settings).await, [], json!({})).await;
    let burst = json!((0..1_000).map(|_| json!({ "type": "x", "data": 1 })).collect::<Vec<_>>());
    assert_eq!(world.api.post("/v1/events", &world.key, &burst).await.status, 202);
    let got = world.trigger(&lead("e1")).await;
    assert_eq!((got.status, got.code()), (429, "rate_limited"), "{got:?}");
    assert!(world.receiver.came().is_empty());
}
