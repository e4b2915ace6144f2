//! The bench's suite: every row of the table is there and whole, on both engines. How fast it is says nothing here.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::redis::Server;

/// Rows that have a target, on either engine.
const TARGETED: [&str; 12] = [
    "events_per_sec",
    "deliveries_per_sec",
    "accept_per_sec",
    "drain_per_sec",
    "cpu_ms_per_delivery",
    "memory_idle_mb",
    "memory_queued_mb",
    "start_empty_ms",
    "start_queued_ms",
    "throughput_with_connections",
    "throughput_with_queued",
    "live_p99_beside_dead",
];

/// Rows that explain others.
const EXPLAINING: [&str; 10] = [
    "cpu_ms_per_delivery_fan_out",
    "own_cpu_ms_per_delivery",
    "yardstick_us",
    "memory_peak_mb",
    "memory_queued_restarted_mb",
    "memory_connections_mb",
    "connections_made_per_sec",
    "queued_in_batches_per_sec",
    "live_p99_alone_ms",
    "live_p99_beside_dead_ms",
];

const SMALL: [&str; 12] = [
    "--events",
    "60",
    "--rate",
    "300",
    "--concurrency",
    "8",
    "--backlog",
    "80",
    "--connections",
    "30",
    "--dead",
    "100",
];

fn suite(queued: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .current_dir(folder.path())
        .env_clear()
        .args(["bench", "--suite"])
        .args(SMALL)
        .args(["--queued", queued])
        .args(more)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn row<'r>(report: &'r Value, key: &str) -> &'r Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no row {key}: {report}"))
}

/// Every row is there with a figure of each run, the targeted ones with a target; nothing else is.
fn ensure_whole(report: &Value, targeted: &[&str], explaining: &[&str]) {
    for (keys, has_target) in
        [(&TARGETED[..], true), (targeted, true), (&EXPLAINING, false), (explaining, false)]
    {
        for key in keys {
            let row = row(report, key);
            let runs: Vec<f64> =
                row["runs"].as_array().unwrap().iter().map(|run| run.as_f64().unwrap()).collect();
            let median = row["median"].as_f64().unwrap();
            assert_eq!((runs.len(), &row["missing"]), (2, &Value::Null), "{row}");
            assert!((median - f64::midpoint(runs[0], runs[1])).abs() < 1e-9, "{row}");
            assert_eq!(
                (row["target"].is_object(), row["met"].is_boolean()),
                (has_target, has_target),
                "{row}"
            );
            // What is left without the disk's part may be nothing, and so may what was counted in hundredths of a second.
            let may_be_nothing = key.contains("less_fsync") || *key == "own_cpu_ms_per_delivery";
            assert!(runs.iter().all(|run| *run > 0.0 || may_be_nothing && *run == 0.0), "{row}");
        }
    }
    let expected = TARGETED.len() + targeted.len() + EXPLAINING.len() + explaining.len();
    assert_eq!(report["rows"].as_array().unwrap().len(), expected, "{report}");
    assert_eq!(
        report["sizes"],
        json!({"runs": 2, "backlog": 80, "connections": 30, "queued": 300, "dead": 100, "limit_secs": 900})
    );
    let machine = &report["machine"];
    for name in ["system", "processor", "version", "build", "rustc"] {
        assert!(machine[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {machine}");
    }
    assert!(machine["cpus"].as_u64() > Some(0) && machine["memory_mib"].as_u64() > Some(0), "{machine}");
    assert!(report["store"]["version"].as_str().is_some_and(|version| version.contains('.')), "{report}");
}

#[test]
fn the_suite_has_every_row_on_the_embedded_store() {
    let output = suite("300", &["--runs", "2", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&output);
    let disk = ["receipt_p50_ms", "receipt_p99_ms", "fsync_p50_ms", "fsync_p99_ms"];
    ensure_whole(&report, &["receipt_p50_less_fsync_ms", "receipt_p99_less_fsync_ms"], &disk);
    let settings = &report["store"]["settings"];
    assert_eq!((&report["store"]["name"], &settings["journal_mode"]), (&json!("sqlite"), &json!("wal")));
    assert_eq!(settings["synchronous"], "FULL");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("run 2 of 2: beside a dead endpoint"), "{progress}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_has_every_row_on_redis_and_leaves_nothing_there() {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let url = server.url();
    let output =
        tokio::task::spawn_blocking(move || suite("300", &["--runs", "2", "--json", "--store", &url]));
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&output);
    ensure_whole(&report, &["receipt_p50_ms", "receipt_p99_ms"], &[]);
    let settings = json!({
        "appendonly": "yes", "appendfsync": "everysec", "auto-aof-rewrite-min-size": "67108864", "maxmemory-policy": "noeviction",
    });
    assert_eq!((&report["store"]["name"], &report["store"]["settings"]), (&json!("redis"), &settings));
    let left: u64 = redis::from_redis_value(server.command(&["DBSIZE"]).await).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_row_that_cannot_be_produced_says_why() {
    let output = suite("10000000", &["--runs", "1", "--limit-secs", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let (text, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let row = text.lines().find(|line| line.contains("memory with queued jobs")).unwrap();
    assert!(row.contains("MISSING: not done within 1 s (--limit-secs)") && row.contains("<= 200"), "{text}");
    assert!(told.contains("rows could not be produced"), "{told}");
}
