//! What a program that subscribes is shown before anything happens.

use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use super::hooks::{EVENT, ids};
use crate::domain::event::is_reserved;

impl TestApi {
    async fn samples(&self, key: &str, query: &str) -> Vec<Value> {
        let got = self.get(&format!("/v1/hooks/samples?{query}"), key).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.body.as_array().unwrap_or_else(|| panic!("no bare list: {got:?}")).clone()
    }
}

#[tokio::test]
async fn samples_are_the_newest_events_of_the_tenant_each_once() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    let other = api.tenant("other", &["subscribe", "publish"]).await;
    api.jobs(&other, EVENT, "of-other").await;
    let query = format!("event={EVENT}");
    let made_up = api.samples(&key, &query).await;
    assert_eq!(ids(&made_up), ["lead_7f3a9c21"], "the sample of the files");
    for number in 1..=12 {
        api.clock.advance(Duration::from_secs(1));
        api.jobs(&key, EVENT, &format!("lead-{number}")).await;
        api.jobs(&key, "rating.given", &format!("rating-{number}")).await;
    }
    // The same id of another source is another event, and no second sample.
    let twin = json!({ "type": EVENT, "id": "lead-12", "source": "bot_2", "data": {} });
    assert_eq!(api.post("/v1/events", &key, &twin).await.status, 202);
    let real = api.samples(&key, &query).await;
    assert_eq!(ids(&real)[..3], ["lead-12", "lead-11", "lead-10"]);
    assert_eq!(real.len(), 9, "of ten, one had an id that was there");
    assert_eq!(api.samples(&key, &format!("{query}&limit=3")).await.len(), 2);
    assert_eq!(ids(&api.samples(&other, &query).await), ["of-other"]);
    let again = api.samples(&key, &query).await;
    assert_eq!(again, real, "ids do not change");
    assert_eq!(api.samples(&key, "event=agent.created&connector=fetchply").await, Vec::<Value>::new());
    let got = api.get("/v1/hooks/samples?event=nothing", &key).await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/event"]), "{got:?}");
    for (query, pointer) in [("", "/event"), ("event=x&limit=101", "/limit"), ("event=x&hook=y", "/hook")] {
        let got = api.get(&format!("/v1/hooks/samples?{query}"), &key).await;
        assert_eq!((got.status, got.pointers()), (400, vec![pointer]), "{query}: {got:?}");
    }
}

/// Keys with their types; what is null has none.
fn shape(object: &Value) -> Vec<(String, Option<&'static str>)> {
    let kind = |value: &Value| match value {
        Value::Null => None,
        Value::Bool(_) => Some("boolean"),
        Value::Number(_) => Some("number"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("list"),
        Value::Object(_) => Some("object"),
    };
    object.as_object().unwrap().iter().map(|(key, value)| (key.clone(), kind(value))).collect()
}

/// What Zapier checks of an integration before it is published, as far as it concerns an API.
#[tokio::test]
async fn samples_have_the_keys_and_types_of_what_is_delivered_whatever_an_event_tells() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    let types = api.get("/v1/event-types", &key).await;
    let items = types.body["items"].as_array().unwrap();
    assert!(items.len() >= 4);
    // Events that tell little, and in other types than the samples.
    let poor = json!({ "conversation_id": 17, "lead": { "name": "Ada", "phone": 15_555_550_123_u64 }, "rating": 5,
        "duration_secs": "12", "resolved": "true", "messages": [{ "role": "user", "text": "Hi" }] });
    for item in items {
        let kind = item["type"].as_str().unwrap();
        let made_up = api.samples(&key, &format!("event={kind}")).await;
        assert_eq!(made_up, vec![item["sample"].clone()], "one and the same sample");
        if is_reserved(kind) {
            assert!(item["sample"].to_string().contains("summary"), "{item}");
            continue;
        }
        let event = json!({ "type": kind, "id": format!("{kind}-1"), "data": poor });
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
        let real = api.samples(&key, &format!("event={kind}")).await;
        let (of_sample, of_real) = (shape(&made_up[0]), shape(&real[0]));
        assert_eq!(of_sample.len(), of_real.len(), "{kind}");
        for ((name, left), (other, right)) in of_sample.iter().zip(&of_real) {
            assert_eq!(name, other, "{kind}");
            assert!(left == right || left.is_none() || right.is_none(), "{kind} {name}: {left:?} {right:?}");
        }
        for sample in [&made_up[0], &real[0]] {
            assert!(sample["id"].is_string() && sample["event"] == kind, "{sample}");
            for (name, value) in sample.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_at"))
            {
                let Some(text) = value.as_str() else { continue };
                let is_iso = text.parse::<crate::domain::time::Timestamp>().is_ok() && text.contains('T');
                assert!(is_iso, "{name} {text}");
            }
        }
    }
    // Nobody is asked to type in a URL by hand: a hook is made and ended by the API alone.
    let hook = api.hook(&key, json!({})).await;
    assert!(hook["id"].is_string());
}

#[tokio::test]
async fn other_fields_by_a_mapping_are_sampled_as_they_are_delivered() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    let mapping = json!({ "version": 1, "fields": [{ "to": "who", "from": "$.data.lead.name" }] });
    let hook = api.hook(&key, json!({ "mapping": mapping })).await;
    api.jobs(&key, EVENT, "lead-1").await;
    let of_hook = api.samples(&key, &format!("event={EVENT}&hook={}", hook["id"].as_str().unwrap())).await;
    assert_eq!(
        of_hook[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["who", "id", "event", "occurred_at"]
    );
    assert_eq!((&of_hook[0]["who"], &of_hook[0]["id"]), (&json!("Ada"), &json!("lead-1")));
    let flat = api.samples(&key, &format!("event={EVENT}&mapping=conversation_summary")).await;
    assert_eq!(flat[0]["title"], "lead.captured from acme");
    let got = api.get(&format!("/v1/hooks/samples?event={EVENT}&mapping=conversation_sumary"), &key).await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/mapping"]));
}
