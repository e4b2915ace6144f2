//! How fast rows flow, and how few requests that takes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BOOK, Scene};
use crate::support::within;

/// 5,000 leads a minute; the whole minute with `PATCHBAY_SOAK`, else a quarter of it and a quarter of the appends.
#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_leads_a_minute_take_sixty_appends() {
    let secs: u32 = if std::env::var_os("PATCHBAY_SOAK").is_some() { 60 } else { 15 };
    let scene = Scene::new(&["Leads"]).await;
    scene.google.limit(Some(60));
    let mapping = json!({"version": 1, "fields": [{"to": "Number", "from": "$.data.number"}]});
    scene.connect(json!({}), mapping).await;
    let (leads, began) = (5_000 * secs / 60, Instant::now());
    let mut next = 0;
    while next < leads {
        let due = Duration::from_secs(secs.into()) * next / leads;
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        // All that are due by now, so that a machine which stood still catches up.
        let passed = u64::from(leads) * u64::try_from(began.elapsed().as_millis()).unwrap()
            / (u64::from(secs) * 1_000);
        let until = u32::try_from(passed).unwrap().clamp(next + 1, leads);
        scene.leads((next..until).map(|number| json!({"number": number}))).await;
        next = until;
    }
    within("all rows", async {
        while scene.google.rows(BOOK, "Leads").len() < leads as usize + 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (took, asked) = (began.elapsed(), scene.google.counts());
    println!(
        "{leads} leads in {took:?}: {} appends, {} writes, {} reads, {} over the quota",
        asked.appends, asked.writes, asked.reads, asked.over_quota
    );
    assert!(asked.appends as u64 <= took.as_secs() + 1, "one a second: {asked:?}");
    assert_eq!(asked.over_quota, 0);
    scene.gateway.stop().await;
}

/// From the event's acceptance to its row, at one event a second.
#[tokio::test(flavor = "multi_thread")]
async fn at_one_event_a_second_a_row_is_there_within_three() {
    const EVENTS: usize = 20;
    let scene = Scene::new(&["Leads"]).await;
    scene.google.limit(Some(60));
    let mapping: Value = json!({"version": 1, "fields": [{"to": "Number", "from": "$.data.number"}]});
    scene.connect(json!({}), mapping).await;
    let mut appended = scene.google.appended();
    let seen = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.len() < EVENTS {
            appended.changed().await.unwrap();
            let count = *appended.borrow_and_update();
            times.resize(count, Instant::now());
        }
        times
    });
    let mut sent = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for number in 0..EVENTS {
        ticks.tick().await;
        sent.push(Instant::now());
        scene.lead(json!({"number": number})).await;
    }
    let seen = within("all rows", seen).await.unwrap();
    let mut took: Vec<Duration> = seen.iter().zip(&sent).map(|(seen, sent)| *seen - *sent).collect();
    took.sort();
    let (median, p95) = (took[EVENTS / 2], took[EVENTS * 95 / 100]);
    println!("one event a second: median {median:?}, p95 {p95:?}, {} appends", scene.google.counts().appends);
    assert!(p95 < Duration::from_secs(3), "{took:?}");
    scene.gateway.stop().await;
}
