//! How much each script of a large request does, whatever its size: counts are held, times are printed.

use redis::Arg;

use super::bounds::calls;
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
    let names = [("stage", &scripts.stage), ("commit", &scripts.commit), ("apply", &scripts.apply)];
    let names = names.map(|(name, script)| (hash_of(script), name));
    let entries: Vec<Vec<redis::Value>> =
        redis::from_redis_value(bench.server.command(&["SLOWLOG", "GET", "-1"]).await).unwrap();
    let mut runs = Vec::new();
    for entry in entries {
        let words: Vec<Vec<u8>> = redis::from_redis_value(entry[3].clone()).unwrap();
        if words[0] != b"EVALSHA" {
            continue;
        }
        let text = |at: usize| String::from_utf8_lossy(&words[at]).into_owned();
        // The log cuts long commands, and says how much.
        let more = text(words.len() - 1);
        let more = more.strip_prefix("... (").and_then(|more| more.split(' ').next()?.parse::<usize>().ok());
        let all = more.map_or(words.len(), |more| words.len() - 1 + more);
        let keys: usize = text(2).parse().unwrap();
        runs.push(Run {
            script: names.iter().find(|(hash, _)| *hash == words[1]).map_or("other", |(_, name)| name),
            us: redis::from_redis_value(entry[2].clone()).unwrap(),
            keys,
            values: all - 3 - keys,
        });
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_of_a_batch_grows_with_it() {
    let bench = Bench::new().await;
    bench.server.command(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    bench.server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    let mut most = Vec::new();
    for fan_out in [1, 10] {
        let mut lanes = Vec::new();
        for _ in 0..fan_out {
            lanes.push(bench.connection("acme", 256).await);
        }
        for events in [250, 1_000, 2_000] {
            bench.server.command(&["SLOWLOG", "RESET"]).await;
            bench.server.command(&["CONFIG", "RESETSTAT"]).await;
            let rounds = if is_soak() { 20 } else { 1 };
            for _ in 0..rounds {
                let key = || Some(Dedupe { key: bench.ids.next().to_be_bytes(), content: [1; 16] });
                let batch = (0..events).map(|_| NewEvent { dedupe: key(), ..bench.event("acme", &lanes) });
                let ingest = Ingest { idempotency: key(), events: batch.collect() };
                bench.store.ingest(ingest).await.unwrap();
            }
            let runs = runs(&bench).await;
            let commands: u64 = calls(&bench.server).await.values().sum();
            let each = commands / runs.len() as u64;
            println!("{events} events, fan-out {fan_out}: {each} commands a script");
            for script in ["stage", "commit", "apply", "other"] {
                let mut runs: Vec<&Run> = runs.iter().filter(|run| run.script == script).collect();
                runs.sort_by_key(|run| run.us);
                let Some(longest) = runs.last() else { continue };
                println!(
                    "  {script}: {} runs, median {} us, longest {} us; at most {} keys and {} values",
                    runs.len(),
                    runs[runs.len() / 2].us,
                    longest.us,
                    runs.iter().map(|run| run.keys).max().unwrap(),
                    runs.iter().map(|run| run.values).max().unwrap(),
                );
            }
            let keys = runs.iter().map(|run| run.keys).max().unwrap();
            let values = runs.iter().map(|run| run.values).max().unwrap();
            most.push((events, fan_out, each, keys, values));
        }
    }
    // A part has at most 64 events and jobs, and a script a few commands for each.
    for (events, fan_out, each, keys, values) in most {
        let of = format!("{events} events, fan-out {fan_out}");
        assert!(each < 300, "{of}: {each} commands a script");
        assert!(keys < FIXED + 200 && values < 700, "{of}: {keys} keys and {values} values");
    }
}
