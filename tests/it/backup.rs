//! What `docs/production.md` says of backups and of access rules, done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::fleet::Fleet;
use crate::support::process::Process;
use crate::support::redis::Server;
use crate::support::within;

const DELIVERED: usize = 12;
const WAITING: usize = 3;

/// A fleet with deliveries that are done and, behind a pause, some that are not.
async fn filled() -> Fleet {
    let mut fleet = Fleet::on(Server::durable()).await;
    let process = fleet.start(&[]);
    let door = process.door().clone();
    let connection = fleet.connect(&door, 1).await.remove(0);
    for number in 0..DELIVERED {
        assert_eq!(fleet.publish(&door, &format!("lead-{number}")).await, 202);
    }
    fleet.wait_until_settled(&door).await;
    let pause = format!("/v1/connections/{connection}/pause");
    let reason = serde_json::json!({"reason": "by hand"});
    assert_eq!(fleet.call(&door, "POST", &pause, Some(&reason)).await.0, 200);
    for number in DELIVERED..DELIVERED + WAITING {
        assert_eq!(fleet.publish(&door, &format!("lead-{number}")).await, 202);
    }
    process.terminate();
    assert_eq!(process.wait(), Some(0));
    fleet
}

/// The same deliveries are in the log of a gateway on the restored server, and what was open is delivered.
async fn is_whole(fleet: &mut Fleet) {
    let process = fleet.start(&[]);
    let door = process.door().clone();
    assert_eq!(fleet.delivered(&door).await.len(), DELIVERED);
    assert_eq!(fleet.metric(&door, "patchbay_queue_depth").await, Some(WAITING as u64));
    let (_, page) = fleet.call(&door, "GET", "/v1/connections?tenant=acme", None).await;
    let resume = format!("/v1/connections/{}/resume", page["items"][0]["id"].as_str().unwrap());
    assert_eq!(fleet.call(&door, "POST", &resume, None).await.0, 200);
    fleet.receiver.wait_for(DELIVERED + WAITING).await;
    fleet.wait_until_settled(&door).await;
    assert_eq!(fleet.delivered(&door).await.len(), DELIVERED + WAITING);
    let tally = fleet.tally("restored", DELIVERED + WAITING);
    assert_eq!((tally.lost, tally.duplicated), (0, 0));
}

async fn folder_of(server: &Server) -> PathBuf {
    let answer = server.command(&["CONFIG", "GET", "dir"]).await;
    let pair: Vec<String> = redis::from_redis_value(answer).unwrap();
    PathBuf::from(&pair[1])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_restored_has_the_same_deliveries() {
    let mut fleet = filled().await;
    fleet.server.command(&["BGSAVE"]).await;
    within("the snapshot", async {
        while fleet.server.info("persistence", "rdb_bgsave_in_progress").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder_of(&fleet.server).await.join("dump.rdb");
    std::fs::copy(snapshot, folder.path().join("dump.rdb")).unwrap();
    fleet.server.kill();

    // Append-only has to be off while it starts, or it would look for its append-only files and begin empty.
    fleet.server = Server::with(&["--dir", text(folder.path()), "--appendonly", "no"]);
    fleet.server.command(&["CONFIG", "SET", "appendonly", "yes"]).await;
    fleet.server.command(&["CONFIG", "SET", "appendfsync", "always"]).await;
    is_whole(&mut fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn append_only_files_restored_have_the_same_deliveries() {
    let mut fleet = filled().await;
    fleet.server.command(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]).await;
    assert!(fleet.server.info("persistence", "aof_rewrite_in_progress").await < 1.0);
    let from = folder_of(&fleet.server).await.join("appendonlydir");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("appendonlydir");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    fleet.server.kill();
    fleet.server =
        Server::with(&["--dir", text(folder.path()), "--appendonly", "yes", "--appendfsync", "always"]);
    is_whole(&mut fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_access_rule_is_enough() {
    let docs = std::fs::read_to_string("docs/production.md").unwrap();
    let rule = docs.lines().find_map(|line| line.strip_prefix("    user patchbay ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis.conf");
    std::fs::write(&file, format!("user default on nopass ~* &* -@all +ping\nuser patchbay {rule}\n"))
        .unwrap();
    let server = Server::with(&[text(&file), "--appendonly", "yes", "--appendfsync", "always"]);
    let url = format!("redis://patchbay:PASSWORD@127.0.0.1:{}", server.port);
    let fleet = Fleet::on(server).await;
    let data = folder.path().join("data");
    let process = Process::start_on(&url, &data, &crate::support::process::Door::default(), &[]);
    let door = process.door().clone();
    fleet.connect(&door, 1).await;
    for number in 0..5 {
        assert_eq!(fleet.publish(&door, &format!("lead-{number}")).await, 202);
    }
    fleet.wait_until_settled(&door).await;
    assert_eq!(fleet.tally("with an access rule", 5).lost, 0);
    assert_eq!(fleet.delivered(&door).await.len(), 5);
    let (status, ready) = fleet.call(&door, "GET", "/readyz", None).await;
    assert_eq!((status, &ready["store"]["durability"]), (200, &serde_json::json!("fsync")));
}
