use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::service::{Settings, testing};

fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers
}

#[test]
fn a_digest_does_not_run_its_parts_together() {
    assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    assert_ne!(digest(&[b"", b"a"]), digest(&[b"a", b""]));
}

#[tokio::test]
async fn a_second_request_with_a_running_key_is_refused() {
    let (gateway, _clock, _folder) = testing::gateway(Settings::default()).await;
    let tenant: TenantId = "acme".parse().unwrap();
    gateway.make_tenant(tenant.clone(), "Acme").await.unwrap();
    let headers = json_headers();
    let publish = || Publish {
        key_tenant: Some(&tenant),
        named_tenant: None,
        idempotency_key: Some("k"),
        headers: &headers,
        body: br#"{"type":"x","data":1}"#,
    };
    let key = idempotency(&publish()).unwrap().unwrap().key;
    let turn = gateway.running.begin(key).unwrap();
    assert_eq!(gateway.publish(publish()).await.unwrap_err(), PublishError::StillRunning);
    drop(turn);
    let first = gateway.publish(publish()).await.unwrap();
    let again = gateway.publish(publish()).await.unwrap();
    assert_eq!(first.items, again.items);
    assert_eq!((first.replay, again.replay), (false, true));
}

#[tokio::test]
async fn a_repeat_whose_items_mean_something_else_now_is_refused() {
    let (gateway, _clock, _folder) = testing::gateway(Settings::default()).await;
    gateway.make_tenant("acme".parse().unwrap(), "Acme").await.unwrap();
    let headers = json_headers();
    let publish = || Publish {
        key_tenant: None,
        named_tenant: None,
        idempotency_key: Some("k"),
        headers: &headers,
        body: br#"[{"type":"x","tenant":"acme","data":1},{"type":"x","tenant":"late","data":1}]"#,
    };
    let first = gateway.publish(publish()).await.unwrap();
    assert!(first.items[0].is_ok() && first.items[1].is_err());
    gateway.make_tenant("late".parse().unwrap(), "Late").await.unwrap();
    assert_eq!(gateway.publish(publish()).await.unwrap_err(), PublishError::KeyReused);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((".*", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_body_is_refused_or_read_as_the_tree_of_it_is(
        data in any_json(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:\\\\a0. \u{e9}-]{0,2}"), 0..3),
        pretty in any::<bool>(),
    ) {
        let mut body = if pretty { format!("{data:#}") } else { data.to_string() }.into_bytes();
        for (at, odd) in cuts {
            let at = at.index(body.len() + 1);
            body.splice(at..(at + 1).min(body.len()), odd.bytes());
        }
        prop_assert_eq!(parse::read(&body), json(&body).map(|tree| written(&tree)));
    }
}

#[tokio::test]
async fn of_a_name_that_is_there_twice_the_last_value_is_kept() {
    let (gateway, _clock, _folder) = testing::gateway(Settings::default()).await;
    let body =
        br#"{"type":"x", "data": 1, "id":"7", "data":{"b":1,"a":[{"c":1,"\u0063":2}],"b":3.10}, "id":"8"}"#;
    let incoming = one(&json_headers(), body).unwrap().unwrap();
    let event = gateway.unstored_event(incoming, "acme".parse().unwrap());
    assert_eq!(event.document.member("data").unwrap(), r#"{"b":3.1,"a":[{"c":2}]}"#);
    assert_eq!((event.id.as_str(), event.document.string("id").as_deref()), ("8", Some("8")));
}

#[test]
fn the_stored_bytes_are_the_document() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, _clock, _folder) = runtime.block_on(testing::gateway(Settings::default()));
    proptest!(|(data in any_json(), id in "[^\\p{Cc}]{1,20}", other in any_json())| {
        let incoming = Incoming {
            id: Some(id),
            kind: "x".to_owned(),
            time: None,
            tenant: None,
            source: Some("s".to_owned()),
            others: vec![("subject".to_owned(), written(&other))],
            data: written(&data),
        };
        let document = gateway.unstored_event(incoming, "acme".parse().unwrap()).document;
        let read: Value = serde_json::from_slice(document.text()).unwrap();
        prop_assert_eq!(&read, document.tree());
        prop_assert_eq!(&read["data"], &data);
        prop_assert_eq!(&document, &Object::read(document.text()).unwrap());
        prop_assert_eq!(document.text(), &Object::from(read.clone()).text().clone());
        prop_assert_eq!(document.member("data").unwrap(), written(&data));
        let keys: Vec<&str> = read.as_object().unwrap().keys().map(String::as_str).collect();
        prop_assert_eq!(keys, ["id", "type", "time", "tenant", "source", "subject", "data"]);
    });
}

#[tokio::test]
async fn every_event_is_counted_by_what_became_of_it() {
    let (gateway, _clock, _folder) = testing::gateway(Settings::default()).await;
    let tenant: TenantId = "acme".parse().unwrap();
    gateway.make_tenant(tenant.clone(), "Acme").await.unwrap();
    let headers = json_headers();
    let send = |body: Value| {
        let (gateway, tenant, headers) = (&gateway, &tenant, &headers);
        async move {
            let body = body.to_string();
            let publish = Publish {
                key_tenant: Some(tenant),
                named_tenant: None,
                idempotency_key: None,
                headers,
                body: body.as_bytes(),
            };
            let _ = gateway.publish(publish).await;
        }
    };
    send(json!([{ "type": "x", "id": "1", "data": 1 }, { "type": "x" }, 7])).await;
    send(json!({ "type": "x", "id": "1", "data": 1 })).await;
    send(json!({ "type": "x", "id": "1", "data": 2 })).await;
    send(json!([])).await;
    let text = gateway.metrics.expose(None, true, gateway.clock.now());
    for line in ["accepted\"} 1", "duplicate\"} 1", "invalid\"} 3", "conflict\"} 1"] {
        assert!(text.contains(&format!("patchbay_events_total{{result=\"{line}")), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_stored_event_stands_for_the_same_as_when_it_came() {
    let (gateway, _clock, _folder) = testing::gateway(Settings::default()).await;
    let tenant: TenantId = "acme".parse().unwrap();
    let incoming = |value: Value| read_plain(&value, "").unwrap();
    let sent =
        json!({"type": "x", "id": "lead-1", "source": "bot", "data": {"b": 1.50, "a": ["ü", null, 1e3]}});
    let new = gateway.complete(incoming(sent), tenant.clone(), None);
    let document = Object::read(new.event.document.text()).unwrap();
    let kept = Event { document, ..(*new.event).clone() };
    assert!(new.dedupe.is_some());
    assert_eq!(dedupe_of(&kept), new.dedupe);
    let nameless = gateway.complete(incoming(json!({"type": "x", "data": 1})), tenant, None);
    assert_eq!((nameless.dedupe, dedupe_of(&nameless.event)), (None, None));
}
