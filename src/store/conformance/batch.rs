//! Batches: many jobs of one lane under one attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::domain::job::Outcome;
use crate::domain::settle::LaneEffect;
use crate::store::BATCH_BYTES;

use super::world::{SPAN, World, ids_of, told};

pub async fn a_batch_counts_as_one_and_is_alone(world: World) {
    let sheet = world.connect_batched("acme", 500).await;
    world.fill("acme", sheet, 1_200).await;
    let other = world.connect("acme", 1).await;
    world.fill("acme", other, 1).await;
    let mut seen = Vec::new();
    let leases = world.lease(2).await;
    let batch: Vec<_> = leases.iter().filter(|lease| lease.batch).cloned().collect();
    assert!(batch.len() > 100 && batch.len() <= 500 && leases.len() == batch.len() + 1, "{}", batch.len());
    assert!(batch.iter().all(|lease| lease.job.connection == sheet));
    assert!(world.lease(9).await.is_empty(), "one batch at a time");
    // Not even when all but one of it are settled.
    assert_eq!(world.settle(&batch[1..], Outcome::Delivered).await, batch.len() - 1);
    assert!(world.lease(9).await.is_empty());
    assert_eq!(world.settle(&batch[..1], Outcome::Delivered).await, 1);
    seen.extend(ids_of(&batch));
    while seen.len() < 1_200 {
        let batch = world.lease(1).await;
        assert!(!batch.is_empty() && batch.len() <= 500);
        assert_eq!(world.settle(&batch, Outcome::Delivered).await, batch.len());
        seen.extend(ids_of(&batch));
    }
    assert!(seen.is_sorted_by(|left, right| left < right), "in the order of writing, each once");
    // Another size holds from the next batch on.
    world.change(sheet, |connection| connection.batch = 3).await;
    world.fill("acme", sheet, 10).await;
    assert_eq!(world.lease(1).await.len(), 3);
}

pub async fn a_batch_is_tried_again_in_its_order(world: World) {
    let sheet = world.connect_batched("acme", 5).await;
    world.fill("acme", sheet, 7).await;
    let first = world.lease(9).await;
    assert_eq!(first.len(), 5);
    let mut failed: Vec<_> =
        first.iter().map(|lease| world.settlement(lease, Outcome::Ambiguous, None)).collect();
    // As workers do: a batch is one failure of its lane.
    for settlement in failed.iter_mut().skip(1) {
        settlement.effect = LaneEffect::default();
    }
    assert_eq!(world.store.settle(failed).await, Ok(5));
    assert!(world.lease(9).await.is_empty(), "those behind it wait");
    world.fill("acme", sheet, 1).await;
    let world = world.crash().await;
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(5);
    let again = world.lease(9).await;
    assert_eq!(ids_of(&again), ids_of(&first));
    // Released and renewed as one; given back, it comes again as it was.
    let refs: Vec<_> = again.iter().map(super::super::types::Lease::reference).collect();
    world.store.renew(&refs, 2 * SPAN).await.unwrap();
    world.advance(SPAN);
    assert!(world.lease(9).await.is_empty());
    world.store.release(&refs).await.unwrap();
    assert_eq!(world.settle(&again, Outcome::Delivered).await, 0, "it was given back");
    let again = world.lease(9).await;
    assert_eq!(ids_of(&again), ids_of(&first));
    // Told to come later: the whole lane waits, and nobody passes.
    let later = again.iter().map(|lease| world.settlement(lease, Outcome::Throttled, Some(30))).collect();
    assert_eq!(world.store.settle(later).await, Ok(5));
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(30);
    let again = world.lease(9).await;
    assert_eq!(ids_of(&again), ids_of(&first));
    assert_eq!((again[0].job.attempts, again[0].job.tries), (1, 2));
    assert_eq!(world.settle(&again, Outcome::Delivered).await, 5);
    assert_eq!(world.lease(9).await.len(), 3);
}

pub async fn a_batch_ends_before_it_is_too_large(world: World) {
    let sheet = world.connect_batched("acme", 500).await;
    let large = |bytes: usize| {
        let event = world.event("acme", &[sheet]);
        let there = event.event.document.text().len() + r#","pad":"""#.len();
        let padded = |document: &mut Value| document["pad"] = " ".repeat(bytes.saturating_sub(there)).into();
        told(event, padded)
    };
    let sizes = [900_000, 900_000, 900_000, 100, BATCH_BYTES + 1, 100, 100];
    world.ingest(sizes.map(large).to_vec()).await;
    let mut counts = Vec::new();
    let mut order = Vec::new();
    while order.len() < sizes.len() {
        let batch = world.lease(1).await;
        counts.push(batch.len());
        order.extend(ids_of(&batch));
        assert_eq!(world.settle(&batch, Outcome::Delivered).await, batch.len());
    }
    assert_eq!(counts, [2, 2, 1, 2]);
    assert!(order.is_sorted());
}

pub async fn a_lost_lease_leaves_a_doubt(world: World) {
    let sheet = world.connect_batched("acme", 3).await;
    // What was made when the store was opened may be older than it.
    world.advance_secs(1);
    world.fill("acme", sheet, 3).await;
    let given_back = world.lease(9).await;
    assert!(given_back.iter().all(|lease| !lease.doubtful));
    let refs: Vec<_> = given_back.iter().map(super::super::types::Lease::reference).collect();
    world.store.release(&refs).await.unwrap();
    assert!(world.lease(9).await.iter().all(|lease| !lease.doubtful), "nothing was begun under it");
    world.advance(SPAN);
    let run_out = world.lease(9).await;
    assert_eq!(run_out.len(), 3);
    assert!(run_out.iter().all(|lease| lease.doubtful));
    let world = world.crash().await;
    world.advance(SPAN);
    let crashed = world.lease(9).await;
    assert_eq!(crashed.len(), 3);
    assert!(crashed.iter().all(|lease| lease.doubtful));
    assert_eq!(world.settle(&crashed, Outcome::Delivered).await, 3);
    // What came after it is not concerned.
    world.advance(Duration::from_millis(1));
    world.fill("acme", sheet, 3).await;
    assert!(world.lease(9).await.iter().all(|lease| !lease.doubtful));
}

pub async fn a_batch_lane_is_fair_to_others(world: World) {
    let sheet = world.connect_batched("acme", 100).await;
    world.fill("acme", sheet, 5_000).await;
    let hook = world.connect("acme", 64).await;
    world.fill("acme", hook, 200).await;
    let mut got = BTreeMap::new();
    for _ in 0..20 {
        let leases = world.lease(16).await;
        assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
        for lease in leases {
            *got.entry(lease.job.connection).or_insert(0) += 1;
        }
    }
    assert_eq!(got[&hook], 200);
}
