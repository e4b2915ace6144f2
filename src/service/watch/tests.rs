//! Alerts are what their samples say, and notes are few.

use std::time::Duration;

use serde_json::Value;

use super::alert::{Kind, Matter, Named, Occasion, data};
use crate::domain::breaker::BreakerPolicy;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{JobState, Outcome};
use crate::service::testing::{START, gateway};
use crate::service::{Settings, watch};
use crate::spec::Catalogue;

/// One matter of each kind.
fn matters() -> [Matter; 7] {
    let policy = BreakerPolicy::default();
    let since = START;
    [
        Matter::Failing { percent: 50, failures: 24, since, policy },
        Matter::Stopped { by: "auth_failed", closed: false, given_up: false },
        Matter::Stopped { by: "breaker", closed: false, given_up: true },
        Matter::Recovered { failures: 24 },
        Matter::DeadLetter { state: JobState::Dead },
        Matter::StoreUnhealthy { since, lasted: Duration::from_secs(42), error: "away".to_owned() },
        Matter::SheetNearlyFull { cells: 9, limit: 10 },
    ]
}

/// Members and the kinds of their values, as deep as they go.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

#[test]
fn every_kind_has_a_sample_of_the_shape_of_what_is_sent() {
    let catalogue = Catalogue::load(None).unwrap();
    let named = Named {
        id: ConnectionId::from_bits(7),
        tenant: "acme".parse().unwrap(),
        name: "CRM".to_owned(),
        connector: "webhook".to_owned(),
    };
    let kinds: Vec<Kind> = matters().iter().map(Matter::kind).collect();
    assert_eq!(kinds, Kind::ALL);
    for matter in matters() {
        let kind = matter.kind();
        let outcome = if kind == Kind::Recovered { Outcome::Delivered } else { Outcome::Retry };
        let occasion =
            Occasion::new(JobId::from_bits(9), "lead.captured", outcome, Some(503), "answered 503");
        let of_a_connection = kind != Kind::StoreUnhealthy;
        let of_a_delivery = of_a_connection && kind != Kind::SheetNearlyFull;
        let sent = data(
            &matter,
            Some(&named).filter(|_| of_a_connection),
            Some(&occasion).filter(|_| of_a_delivery),
            "https://hooks.example.com",
        );
        let sample = &catalogue.samples()[kind.event_type()];
        assert_eq!(shape(&sample["data"]), shape(&sent), "{}", kind.event_type());
        let summaries = [&sample["data"]["summary"], &sent["summary"]].map(|text| {
            let words = text.as_str().unwrap().split(' ');
            words
                .filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()))
                .collect::<Vec<_>>()
                .join(" ")
        });
        assert_eq!(summaries[0], summaries[1], "{}", kind.event_type());
    }
}

#[tokio::test]
async fn a_storm_of_the_same_is_one_note_and_what_is_too_much_is_left_out() {
    let (gateway, clock, _folder) = gateway(Settings::default()).await;
    let dead = Matter::DeadLetter { state: JobState::Dead };
    for _ in 0..1_000 {
        gateway.note(Some(ConnectionId::from_bits(1)), dead.clone(), None);
    }
    assert_eq!(gateway.watch.notes.lock().len(), 1);
    let owner = gateway.watch.notes.lock().values().next().unwrap().owner;
    gateway.note(Some(ConnectionId::from_bits(1)), dead.clone(), None);
    assert_eq!(
        gateway.watch.notes.lock().values().next().unwrap().owner,
        owner,
        "the hold stays whose it is"
    );
    for bits in 0..20_000 {
        gateway.note(Some(ConnectionId::from_bits(bits)), dead.clone(), None);
    }
    assert_eq!(gateway.watch.notes.lock().len(), watch::MOST);
    // Nobody knows these connections, so nothing is sent; and they are not looked at again for a while.
    gateway.raise_alerts().await.unwrap();
    assert!(gateway.watch.notes.lock().is_empty());
    gateway.note(Some(ConnectionId::from_bits(1)), dead.clone(), None);
    assert!(gateway.watch.notes.lock().is_empty());
    clock.advance(watch::QUIET);
    gateway.note(Some(ConnectionId::from_bits(1)), dead, None);
    assert_eq!(gateway.watch.notes.lock().len(), 1);
}

#[tokio::test]
async fn a_note_that_is_put_back_keeps_its_owner_and_what_is_newer() {
    let (gateway, _clock, _folder) = gateway(Settings::default()).await;
    let subject = Some(ConnectionId::from_bits(1));
    let key = (subject, Kind::Recovered);
    gateway.note(subject, Matter::Recovered { failures: 1 }, None);
    let (_, taken) = gateway.watch.notes.lock().pop_first().unwrap();
    gateway.note(subject, Matter::Recovered { failures: 2 }, None);
    gateway.watch.put_back(key, taken.clone());
    let note = gateway.watch.notes.lock().remove(&key).unwrap();
    assert_eq!((note.owner, note.matter), (taken.owner, Matter::Recovered { failures: 2 }));
}
