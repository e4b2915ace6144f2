//! How much each script of a large request does, whatever its size: counts are held, times are printed.

use redis::Arg;

use super::bounds::{calls, count_of, fill, logged};
use super::*;
use crate::store::redis::keys::FIXED;
use crate::store::redis::script::{Call, Script};

/// One run of a script by the server's own log.
struct Run {
    script: &'static str,
    us: u64,
    keys: usize,
    values: usize,
}

fn hash_of(script: &Script) -> Vec<u8> {
    let command = script.command(&Call::default(), false);
    match command.args_iter().nth(1) {
        Some(Arg::Simple(hash)) => hash.to_vec(),
        _ => panic!("a script is run by its hash"),
    }
}

/// The scripts that ran since the log was emptied.
async fn runs(bench: &Bench) -> Vec<Run> {
    let scripts = &bench.store.core.scripts;
    let names = [
        ("stage", &scripts.stage),
        ("commit", &scripts.commit),
        ("apply", &scripts.apply),
        ("ingest", &scripts.ingest),
    ];
    let names = names.map(|(name, script)| (hash_of(script), name));
    let logged = logged(&bench.server).await.into_iter().filter(|(_, words)| words[0] == b"EVALSHA");
    logged
        .map(|(us, words)| {
            let keys: usize = String::from_utf8_lossy(&words[2]).parse().unwrap();
            let name = names.iter().find(|(hash, _)| *hash == words[1]).map_or("other", |(_, name)| name);
            Run { script: name, us, keys, values: count_of(&words) - 3 - keys }
        })
        .collect()
}

/// Sends a batch of events whose ids their platform gave them, under a key of its own.
async fn send(bench: &Bench, events: usize, lanes: &[ConnectionId]) {
    let key = || Some(Dedupe { key: bench.ids.next().to_be_bytes(), content: [1; 16] });
    let batch = (0..events).map(|_| NewEvent { dedupe: key(), ..bench.event("acme", lanes) });
    let ingest = Ingest { idempotency: key(), events: batch.collect() };
    bench.store.ingest(ingest).await.unwrap();
}

/// What scripts did at the most.
struct Cost {
    of: String,
    /// Commands of one, on average.
    each: u64,
    keys: usize,
    values: usize,
}

async fn lanes(bench: &Bench, count: usize) -> Vec<ConnectionId> {
    let mut lanes = Vec::with_capacity(count);
    for _ in 0..count {
        lanes.push(bench.connection("acme", 256).await);
    }
    lanes
}

async fn begin(bench: &Bench) {
    bench.server.command(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    // Less is what the commands of a script take, which are logged as well.
    bench.server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "50"]).await;
    bench.server.command(&["SLOWLOG", "RESET"]).await;
    bench.server.command(&["CONFIG", "RESETSTAT"]).await;
}

/// What scripts did since `begin`; these are among them.
async fn cost(bench: &Bench, of: String, scripts: &[&str]) -> Cost {
    let runs = runs(bench).await;
    for script in scripts {
        assert!(runs.iter().any(|run| run.script == *script), "{of}: no {script} in the server's log");
    }
    let each = calls(&bench.server).await.values().sum::<u64>() / runs.len() as u64;
    println!("{of}: {each} commands a script");
    let most = |runs: &[&Run], of: fn(&Run) -> usize| runs.iter().map(|run| of(run)).max().unwrap();
    for script in ["stage", "commit", "apply", "ingest", "other"] {
        let mut runs: Vec<&Run> = runs.iter().filter(|run| run.script == script).collect();
        runs.sort_by_key(|run| run.us);
        let Some(longest) = runs.last() else { continue };
        println!(
            "  {script}: {} runs, median {} us, longest {} us; at most {} keys and {} values",
            runs.len(),
            runs[runs.len() / 2].us,
            longest.us,
            most(&runs, |run| run.keys),
            most(&runs, |run| run.values),
        );
    }
    let runs: Vec<&Run> = runs.iter().collect();
    Cost { of, each, keys: most(&runs, |run| run.keys), values: most(&runs, |run| run.values) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_of_a_batch_grows_with_it() {
    let bench = Bench::new().await;
    let mut most = Vec::new();
    for fan_out in [1, 10] {
        let lanes = lanes(&bench, fan_out).await;
        // From now on the server knows the scripts by their hashes.
        send(&bench, 250, &lanes).await;
        for events in [250, 1_000, 2_000] {
            begin(&bench).await;
            let rounds = if is_soak() { 10 } else { 1 };
            for _ in 0..rounds {
                send(&bench, events, &lanes).await;
            }
            most.push(
                cost(&bench, format!("{events} events, fan-out {fan_out}"), &["stage", "commit", "apply"])
                    .await,
            );
        }
    }
    // A part has at most 64 events and jobs, and a script a few commands for each.
    for Cost { of, each, keys, values } in most {
        assert!(each < 300, "{of}: {each} commands a script");
        assert!(keys < FIXED + 200 && values < 700, "{of}: {keys} keys and {values} values");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_of_many_small_requests_grows_with_them() {
    let bench = Bench::new().await;
    let mut most = Vec::new();
    for fan_out in [1, 10] {
        let lanes = lanes(&bench, fan_out).await;
        bench.ingest("acme", &lanes).await;
        begin(&bench).await;
        fill(&bench, "acme", &lanes, if is_soak() { 10_000 } else { 1_000 }).await;
        most.push(cost(&bench, format!("single events, fan-out {fan_out}"), &["ingest"]).await);
    }
    // A call has at most 128 events and jobs.
    for Cost { of, each, keys, values } in most {
        assert!(each < 600, "{of}: {each} commands a script");
        assert!(keys < FIXED + 400 && values < 1_200, "{of}: {keys} keys and {values} values");
    }
}
