//! The database: its tables, its settings, and the lock that makes one process its owner.
//!
//! # Tables
//!
//! `events` and `jobs` are append-mostly; job ids are made by the one writer, so they rise in the order of writing.
//! `jobs_lane` is the queue: a partial index over open jobs, in the order in which a lane gives them (`due` is 0 for a job
//! that never failed, the time of its retry in milliseconds else, NULL once it has ended). `events_newest` gives the newest
//! events of a type, since an index ends with the row's number. An event's own row says what a repeat of it is known by
//! (`dedupe`, `content`, `known_until`, how many jobs it `made`), so that taking it in writes no page of its own for that; table `dedupe` has
//! the keys of requests, and those of events that were removed before their day was over. `attempts`, `bodies` and `replayed` (which replay put a job back last) hang on
//! jobs. `tallies` counts what came of a connection's jobs by day and slot (`store::log`). `dedupe` forgets after a day. `waits` and `failing` are
//! what lanes must know after a crash. `records` is the few things that every process knows, under a rising revision.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use fs4::FileExt;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::unavailable;
use crate::store::StoreError;

/// Raised by one with every change of the tables.
const SCHEMA_VERSION: i64 = 5;

/// From format 1, which did not know an event's type outside of its document.
const FROM_1: &str = "
ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT '';
UPDATE events SET kind = coalesce(json_extract(CAST(document AS TEXT), '$.type'), '');
CREATE INDEX events_newest ON events(tenant, kind);
";

/// From format 2, which counted nothing by connection, and forgot with each start how often lanes had failed.
const FROM_2: &str = "
CREATE TABLE tallies(
    connection BLOB NOT NULL, day INTEGER NOT NULL, slot INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY(connection, day, slot)) WITHOUT ROWID;
CREATE INDEX tallies_day ON tallies(day);
CREATE TABLE failing(connection BLOB PRIMARY KEY, count INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
";

/// From format 3, which did not know what a replay had sent again.
const FROM_3: &str = "
CREATE TABLE replayed(job BLOB PRIMARY KEY, replay BLOB NOT NULL) WITHOUT ROWID;
";

/// From format 4, which knew every event's repeats by a row of `dedupe`. Those rows stay until their day is over.
const FROM_4: &str = "
ALTER TABLE events ADD COLUMN dedupe BLOB;
ALTER TABLE events ADD COLUMN content BLOB;
ALTER TABLE events ADD COLUMN known_until INTEGER;
ALTER TABLE events ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
";

/// How long a statement waits for another process's write before it fails.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
CREATE TABLE records(
    kind INTEGER NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL UNIQUE, document TEXT,
    PRIMARY KEY(kind, id)) WITHOUT ROWID;
CREATE TABLE mappings(version BLOB PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events(
    seq INTEGER PRIMARY KEY, key BLOB NOT NULL, tenant TEXT NOT NULL, id TEXT NOT NULL, received INTEGER NOT NULL,
    kind TEXT NOT NULL DEFAULT '', dedupe BLOB, content BLOB, known_until INTEGER,
    made INTEGER NOT NULL DEFAULT 0, document BLOB NOT NULL);
CREATE INDEX events_id ON events(tenant, id);
CREATE INDEX events_newest ON events(tenant, kind);
CREATE TABLE jobs(
    id BLOB PRIMARY KEY, connection BLOB NOT NULL, tenant TEXT NOT NULL, event INTEGER NOT NULL, kind TEXT NOT NULL,
    mapping BLOB NOT NULL, created INTEGER NOT NULL, state INTEGER NOT NULL, due INTEGER, attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL, finished INTEGER, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX jobs_lane ON jobs(connection, due, id) WHERE due IS NOT NULL;
CREATE INDEX jobs_connection ON jobs(connection, id);
CREATE INDEX jobs_tenant ON jobs(tenant, id);
CREATE INDEX jobs_event ON jobs(event);
CREATE TABLE attempts(
    job BLOB NOT NULL, number INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY(job, number)) WITHOUT ROWID;
CREATE TABLE bodies(job BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE waits(connection BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dedupe(
    key BLOB PRIMARY KEY, content BLOB NOT NULL, expires INTEGER NOT NULL, answer TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX dedupe_expires ON dedupe(expires);
";

/// Takes the lock that says which process leases jobs from this folder. Held until the file is dropped.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("patchbay.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(_) => Err(StoreError::Unavailable(format!(
            "another gateway runs on {}: stop it, or give this one a folder of its own",
            folder.display()
        ))),
    }
}

/// Opens the database for writing and brings it up to date.
pub(super) fn open_writer(file: &Path) -> Result<Connection, StoreError> {
    let connection = open_beside(file)?;
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| unavailable(&error))?;
    let apply = |changes: &str| {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE;{changes}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"))
            .map_err(|error| unavailable(&error))
    };
    match version {
        0 => apply(&format!("{SCHEMA}{FROM_2}{FROM_3}"))?,
        1 => apply(&format!("{FROM_1}{FROM_2}{FROM_3}{FROM_4}"))?,
        2 => apply(&format!("{FROM_2}{FROM_3}{FROM_4}"))?,
        3 => apply(&format!("{FROM_3}{FROM_4}"))?,
        4 => apply(FROM_4)?,
        SCHEMA_VERSION => {}
        newer => {
            return Err(StoreError::Corrupt(format!(
                "{} was written by another version of the gateway (format {newer}, this one knows {SCHEMA_VERSION})",
                file.display()
            )));
        }
    }
    Ok(connection)
}

/// Writes a page and changes nothing.
pub(super) fn touch(connection: &Connection) -> Result<(), StoreError> {
    connection
        .execute_batch(&format!("PRAGMA user_version={SCHEMA_VERSION}"))
        .map_err(|error| unavailable(&error))
}

/// Opens the database for reading.
pub(super) fn open_reader(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|error| unavailable(&error))?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .and_then(|()| plan_once(&connection))
        .map_err(|error| unavailable(&error))?;
    Ok(connection)
}

/// Opens the database beside its writer, to copy what that wrote.
pub(super) fn open_beside(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file).map_err(|error| unavailable(&error))?;
    prepare(&connection).map_err(|error| unavailable(&error))?;
    Ok(connection)
}

/// Has a statement keep its plan whatever values it is bound to. Else each use of a cached one may be a new plan, since a
/// value is thought to tell how many rows there are; ours have an index whatever it is.
/// (<https://sqlite.org/queryplanner-ng.html#qpstab>)
fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    plan_once(connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    // What is deleted is overwritten with zeros: an erasure leaves nothing in the file.
    // FULL: a commit returns when the write-ahead log is on disk, which is what a 202 promises.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL;
         PRAGMA synchronous=FULL;
         PRAGMA secure_delete=ON;
         PRAGMA temp_store=MEMORY;
         PRAGMA cache_size=-8192;
         PRAGMA wal_autocheckpoint=2000;
         PRAGMA journal_size_limit=67108864;",
    )
}
