//! Runs a statement that is prepared once for a connection.

use rusqlite::{Connection, Params};

use super::unavailable;
use crate::store::StoreError;

/// Runs it and tells how many rows it changed.
pub(super) fn run(database: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    database
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(|error| unavailable(&error))
}
