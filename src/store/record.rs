//! Records: the few small things that every process knows, their names, and how both engines write them.

use super::StoreError;
use crate::domain::account::{ApiKey, Tenant};
use crate::domain::chore::Chore;
use crate::domain::connection::Connection;
use crate::domain::id::{ChoreId, ConnectionId, KeyId, SourceId, TenantId};
use crate::domain::source::Source;

/// Something small that every process knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A tenant.
    Tenant(Tenant),
    /// An API key.
    Key(ApiKey),
    /// A connection.
    Connection(Box<Connection>),
    /// A source.
    Source(Box<Source>),
    /// A replay or an erasure.
    Chore(Box<Chore>),
}

/// Names a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordId {
    /// A tenant's.
    Tenant(TenantId),
    /// A key's.
    Key(KeyId),
    /// A connection's.
    Connection(ConnectionId),
    /// A source's.
    Source(SourceId),
    /// A replay's or an erasure's.
    Chore(ChoreId),
}

impl Record {
    /// Its name.
    pub fn id(&self) -> RecordId {
        match self {
            Self::Tenant(tenant) => RecordId::Tenant(tenant.id.clone()),
            Self::Key(key) => RecordId::Key(key.id),
            Self::Connection(connection) => RecordId::Connection(connection.id),
            Self::Source(source) => RecordId::Source(source.id),
            Self::Chore(chore) => RecordId::Chore(chore.id),
        }
    }

    /// The tenant that it goes with.
    pub(in crate::store) fn owner(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(_) => None,
            Self::Key(key) => key.tenant.as_ref(),
            Self::Connection(connection) => Some(&connection.tenant),
            Self::Source(source) => Some(&source.tenant),
            Self::Chore(chore) => chore.tenant.as_ref(),
        }
    }

    /// It as JSON, as it is kept.
    pub(in crate::store) fn document(&self) -> Result<String, StoreError> {
        match self {
            Self::Tenant(tenant) => serde_json::to_string(tenant),
            Self::Key(key) => serde_json::to_string(key),
            Self::Connection(connection) => serde_json::to_string(connection),
            Self::Source(source) => serde_json::to_string(source),
            Self::Chore(chore) => serde_json::to_string(chore),
        }
        .map_err(|error| StoreError::Corrupt(format!("a record cannot be written: {error}")))
    }
}

impl RecordId {
    /// Reads the record of this name.
    pub(in crate::store) fn parse(&self, document: &[u8]) -> Result<Record, StoreError> {
        match self {
            Self::Tenant(_) => serde_json::from_slice(document).map(Record::Tenant),
            Self::Key(_) => serde_json::from_slice(document).map(Record::Key),
            Self::Connection(_) => serde_json::from_slice(document).map(Record::Connection),
            Self::Source(_) => serde_json::from_slice(document).map(Record::Source),
            Self::Chore(_) => serde_json::from_slice(document).map(Record::Chore),
        }
        .map_err(|error| StoreError::Corrupt(format!("a record cannot be read: {error}")))
    }
}
