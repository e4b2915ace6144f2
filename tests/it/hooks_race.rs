//! A thousand subscriptions and a thousand unsubscriptions race with events: nobody receives after leaving but what was under
//! way, and nobody who stays misses anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Uri;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use patchbay::clock::Clock;
use patchbay::domain::job::JobState;
use patchbay::store::DeliveryQuery;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::delivery::lead;
use crate::hooks::{subscribe, subscriber};
use crate::support::gateway::TestGateway;
use crate::support::within;

const HOOKS: usize = 1_000;
const EVENTS: usize = 12;
/// Subscriptions under way at once, and as many unsubscriptions.
const AT_ONCE: usize = 8;
/// Requests of one hook that may be under way: the connector's concurrency.
const UNDER_WAY: usize = 5;

/// Everything that happens gets the next number: what has the smaller one happened before.
#[derive(Default)]
struct Order(AtomicU64);

impl Order {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What arrived: when, at which path, which event.
type Arrivals = Arc<Mutex<Vec<(u64, String, String)>>>;

async fn listen(order: &Arc<Order>) -> (String, Arrivals) {
    let (order, arrivals) = (Arc::clone(order), Arrivals::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let kept = Arc::clone(&arrivals);
    let router = Router::new().fallback(move |uri: Uri, body: Bytes| async move {
        let event: Value = serde_json::from_slice(&body).unwrap();
        let id = event["id"].as_str().unwrap().to_owned();
        kept.lock().push((order.next(), uri.path().to_owned(), id));
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, arrivals)
}

/// A user of its own for each hook, so that none waits for a turn.
fn path(group: &str, number: usize) -> String {
    format!("/hooks/standard/{group}{number}/x/")
}

#[expect(clippy::too_many_lines, reason = "one race, and what must hold of it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscriptions_and_unsubscriptions_race_with_events() {
    let order = Arc::new(Order::default());
    let (url, arrivals) = listen(&order).await;
    // Time goes on by itself: a hook that has many events at once waits for its turn.
    let app = TestGateway::start_in(Arc::new(TempDir::new().unwrap()), Clock::system()).await;
    let (tenant, key) = subscriber(&app).await;
    let at = |group: &str, number: usize| format!("{url}{}", path(group, number));
    let (app, tenant) = (&app, &tenant);
    let leaving: Vec<_> = futures::stream::iter(0..HOOKS)
        .map(|number| {
            let url = at("leaving", number);
            async move { (number, subscribe(app, tenant, key, &url).await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    let began = Instant::now();
    // How many have come or gone.
    let moved = &AtomicUsize::new(0);
    // When each hook was there, when it was gone, and when each event was begun and accepted.
    let subscribing = async {
        futures::stream::iter(0..HOOKS)
            .map(|number| {
                let (url, order) = (at("staying", number), &order);
                async move {
                    subscribe(app, tenant, key, &url).await;
                    moved.fetch_add(1, Ordering::SeqCst);
                    (path("staying", number), order.next())
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect::<HashMap<String, u64>>()
            .await
    };
    let unsubscribing = async {
        futures::stream::iter(&leaving)
            .map(|(number, hook)| {
                let order = &order;
                async move {
                    app.gateway.unsubscribe(Some(tenant), *hook).await.unwrap();
                    moved.fetch_add(1, Ordering::SeqCst);
                    (path("leaving", *number), order.next())
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect::<HashMap<String, u64>>()
            .await
    };
    let publishing = async {
        let mut published = Vec::with_capacity(EVENTS);
        let mut jobs = 0;
        for number in 0..EVENTS {
            let (id, start) = (format!("lead-{number}"), order.next());
            jobs += app.publish(tenant, &lead(&id)).await.jobs;
            published.push((id, start, order.next()));
            // Spread over the race: the next one when more hooks have come or gone.
            let until = 2 * HOOKS * (number + 1) / (EVENTS + 1);
            within("the race going on", async {
                while moved.load(Ordering::SeqCst) < until {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        (published, jobs)
    };
    let (there, gone, (published, jobs)) = tokio::join!(subscribing, unsubscribing, publishing);
    let raced = began.elapsed();
    // One more, when all of them came and went.
    let last = order.next();
    let last_jobs = app.publish(tenant, &lead("lead-last")).await.jobs;
    assert_eq!(last_jobs as usize, HOOKS, "all that stay, and none that left");
    // However long it takes, as long as it gets on.
    let mut open = u64::MAX;
    while open > 0 {
        let before = open;
        open = within(&format!("fewer than {before} open jobs"), async {
            loop {
                while app.gateway.store.sweep().await.unwrap().more {}
                let left = app.gateway.store.stats().await.unwrap().open;
                if left < before {
                    return left;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let settled = began.elapsed();

    let arrivals = arrivals.lock().clone();
    let received: HashSet<(&str, &str)> =
        arrivals.iter().map(|(_, path, id)| (path.as_str(), id.as_str())).collect();
    let mut owed = 0;
    for (path, there) in &there {
        let since = published.iter().filter(|(_, start, _)| start > there).map(|(id, ..)| id.as_str());
        for id in since.chain(["lead-last"]) {
            owed += 1;
            assert!(received.contains(&(path.as_str(), id)), "{path} missed {id}");
        }
    }
    let accepted: HashMap<&str, u64> = published.iter().map(|(id, start, _)| (id.as_str(), *start)).collect();
    let mut under_way: HashMap<&str, usize> = HashMap::new();
    for (arrived, path, id) in &arrivals {
        let Some(gone) = gone.get(path).filter(|gone| arrived > gone) else { continue };
        assert!(
            accepted.get(id.as_str()).unwrap_or(&last) < gone,
            "{path} left, and then {id} was accepted for it"
        );
        *under_way.entry(path).or_default() += 1;
    }
    assert!(under_way.values().all(|count| *count <= UNDER_WAY), "{under_way:?}");
    assert_eq!(arrivals.len(), received.len(), "nothing came twice");
    let count = |state: JobState| {
        let mut query = DeliveryQuery { state: Some(state), limit: 1_000, ..DeliveryQuery::default() };
        async move {
            let mut count = 0;
            loop {
                let page = app.gateway.store.deliveries(query.clone()).await.unwrap();
                count += page.items.len();
                query.before = page.next;
                if page.next.is_none() {
                    return count;
                }
            }
        }
    };
    let (delivered, cancelled) = (count(JobState::Delivered).await, count(JobState::Cancelled).await);
    assert_eq!(delivered + cancelled, jobs as usize + HOOKS, "every job ended, delivered or cancelled");
    assert!(delivered >= received.len().min(owed));
    eprintln!(
        "{HOOKS} subscriptions and {HOOKS} unsubscriptions raced with {EVENTS} events in {raced:.1?} ({settled:.1?} until all was \
         settled): {owed} deliveries owed to those who stay, none missing; {} received, {cancelled} cancelled, {} arrived \
         after their hook had left, all of them under way when it left",
        received.len(),
        under_way.values().sum::<usize>(),
    );
}
