//! Folds the write-ahead log back into the database, beside the writer.
//!
//! # Theory of operation
//!
//! What is committed is in the log and on disk; copying it to where it belongs takes two more syncs and writes all over the
//! file, and an event that came meanwhile would wait for it. So a thread with a connection of its own does that, whenever
//! the log has grown by so much. The log begins anew once it has been copied whole, which under steady writes never comes
//! by itself: from a second bound on the writer copies what is left, which is little.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};

use super::{schema, unavailable};
use crate::store::StoreError;

/// How long the log may be, in pages of 4 KiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// From here on it is copied beside the writer.
    pub aside: u32,
    /// From here on the writer copies what is left.
    pub most: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { aside: 2_000, most: 16_000 }
    }
}

/// The thread. It ends with [`Checkpointer::stop`].
#[derive(Debug)]
pub(super) struct Checkpointer(std::thread::JoinHandle<()>);

impl Checkpointer {
    /// Starts it for the database of `file`, which `writer` writes.
    pub fn start(file: &Path, writer: &mut Connection, bounds: Bounds) -> Result<Self, StoreError> {
        // One that waits is enough: it copies all that is there when it begins.
        let (ask, asked) = sync_channel(1);
        let file = file.to_owned();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                // Opened when there is something to copy: a gateway that rests holds no memory for it.
                let mut connection = None;
                while asked.recv().is_ok() {
                    if connection.is_none() {
                        match schema::open_beside(&file) {
                            Ok(opened) => connection = Some(opened),
                            Err(error) => tracing::warn!(%error, "the write-ahead log is left to the writer"),
                        }
                    }
                    if let Some(connection) = &connection {
                        report(connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)"));
                    }
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
        writer.wal_hook(Some(hook(ask, bounds))).map_err(|error| unavailable(&error))?;
        Ok(Self(thread))
    }

    /// Waits until the thread has ended. From here on nobody copies the log.
    pub fn stop(self, writer: &mut Connection) {
        // Dropping the hook drops the one sender, which is what ends the thread.
        let unhooked = writer.wal_hook(None::<fn(&mut Wal, i32) -> rusqlite::Result<()>>);
        if unhooked.is_ok() {
            // A thread that panicked has nothing left to do.
            let _ = self.0.join();
        }
    }
}

/// Called after each commit with the log's length.
fn hook(
    ask: SyncSender<()>,
    bounds: Bounds,
) -> impl FnMut(&mut Wal, i32) -> rusqlite::Result<()> + Send + 'static {
    move |wal, pages| {
        let pages = u32::try_from(pages).unwrap_or(0);
        if pages >= bounds.most {
            report(wal.checkpoint());
        } else if pages >= bounds.aside {
            // Full: it is asked already.
            let _ = ask.try_send(());
        }
        // The commit stands, whatever became of the copy.
        Ok(())
    }
}

/// What could not be copied stays in the log, where it is safe, and is tried again after the next commit.
fn report(copied: rusqlite::Result<()>) {
    if let Err(error) = copied
        && error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy)
    {
        tracing::warn!(%error, "the write-ahead log cannot be copied into the database; it goes on growing");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const PAGE_BYTES: u64 = 4_096;

    /// A database with a log of these bounds; rows of one page each are written by [`write`].
    fn database(folder: &tempfile::TempDir, bounds: Bounds) -> (Connection, Checkpointer) {
        let file = folder.path().join("patchbay.db");
        let mut writer = schema::open_writer(&file).unwrap();
        writer.execute_batch("CREATE TABLE rows(bytes BLOB); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let checkpointer = Checkpointer::start(&file, &mut writer, bounds).unwrap();
        (writer, checkpointer)
    }

    fn write(writer: &Connection, pages: usize) {
        for _ in 0..pages {
            writer.execute("INSERT INTO rows VALUES(zeroblob(4000))", []).unwrap();
        }
    }

    fn pages_of(folder: &tempfile::TempDir, name: &str) -> u64 {
        std::fs::metadata(folder.path().join(name)).unwrap().len() / PAGE_BYTES
    }

    #[test]
    fn a_log_is_copied_beside_a_writer_that_does_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, checkpointer) = database(&folder, Bounds { aside: 50, most: u32::MAX });
        let before = pages_of(&folder, "patchbay.db");
        write(&writer, 60);
        let begun = Instant::now();
        while pages_of(&folder, "patchbay.db") < before + 20 {
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing was copied");
            std::thread::sleep(Duration::from_millis(1));
        }
        checkpointer.stop(&mut writer);
        // From there on what is written stays in the log.
        let copied = pages_of(&folder, "patchbay.db");
        write(&writer, 60);
        assert_eq!(pages_of(&folder, "patchbay.db"), copied);
    }

    #[test]
    fn a_log_that_is_never_at_rest_is_cut_by_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, checkpointer) = database(&folder, Bounds { aside: u32::MAX, most: 100 });
        write(&writer, 1_000);
        // A commit writes some pages at once, and the log keeps a few bytes beside each.
        let log = pages_of(&folder, "patchbay.db-wal");
        assert!((90..120).contains(&log), "the log is {log} pages long");
        assert!(pages_of(&folder, "patchbay.db") > 900);
        checkpointer.stop(&mut writer);
    }
}
