//! Runs a statement that is prepared once for a connection, and says what its failure means.

use rusqlite::{Connection, Params};

use crate::store::StoreError;

/// Runs it and tells how many rows it changed.
pub(super) fn run(database: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    database
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(|error| unavailable(&error))
}

/// What an error of the engine means to a caller.
pub(super) fn unavailable(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
