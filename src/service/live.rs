//! A connection ready for use: everything it is made of is read, checked and compiled once, when it is loaded.

mod mappings;
mod stock;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::mappings::Mappings;
pub use self::stock::Stock;
use super::exchange::TokenSlot;
use super::turn::Turns;
use super::vault::Vault;
use crate::connector::google_sheets::GoogleSettings;
use crate::connector::{
    Endpoint, Given, Key, Outlet, Receiver, check_custom_headers, check_settings, check_sheet,
};
use crate::domain::connection::{Connection, MappingChoice, SigningSecret};
use crate::domain::event::Event;
use crate::domain::id::MappingVersion;
use crate::domain::policy::DeliveryPolicy;
use crate::domain::secret::{Sealed, Secret};
use crate::domain::source::Source;
use crate::egress::AddressPolicy;
use crate::mapping::{Condition, Context, Mapping};
use crate::signature::SignatureSpec;
use crate::spec::{Catalogue, ConnectorKind, ConnectorSpec, SecretUse};
use crate::store::{Revision, Store, StoreError};

/// What a job is pinned to when its connection was broken: whatever the connection renders by when it is tried.
pub const UNPINNED: MappingVersion = MappingVersion::from_bits(0);

/// A connection, compiled.
#[derive(Debug)]
pub struct LiveConnection {
    /// As the store has it.
    pub record: Connection,
    /// When it was last changed.
    pub revision: Revision,
    /// What its new jobs are pinned to; [`UNPINNED`] for a broken one.
    pub mapping_version: MappingVersion,
    /// What an event must meet.
    pub filter: Option<Condition>,
    /// What delivers; else why it can't, in plain words. A broken one takes jobs and keeps them.
    pub works: Result<Working, String>,
}

/// What delivers a connection's events.
#[derive(Debug)]
pub struct Working {
    /// The connector file.
    pub connector: Arc<ConnectorSpec>,
    /// The mapping of [`LiveConnection::mapping_version`].
    pub mapping: Arc<Mapping>,
    /// The policy in force.
    pub policy: DeliveryPolicy,
    /// What deliveries go through; it leaves out secrets that have expired.
    pub outlet: Outlet,
    /// The access token, where requests need one.
    pub tokens: Arc<TokenSlot>,
    /// What a try has to wait its turn for; `None` where the system takes as many as there are.
    pub turns: Option<Turns>,
}

/// A source, compiled.
#[derive(Debug)]
pub struct LiveSource {
    /// As the store has it.
    pub record: Source,
    /// When it was last changed.
    pub revision: Revision,
    /// What receives; else why it can't, in plain words.
    pub works: Result<Receiver, String>,
}

impl LiveConnection {
    /// Takes over the access token of what it was before, where it is still good for what it is now.
    pub fn inherit(&mut self, before: &Self) {
        if let (Ok(working), Ok(before)) = (&mut self.works, &before.works)
            && let Some(client) = working.outlet.endpoint().and_then(Endpoint::client)
            && let Some(other) = before.outlet.endpoint().and_then(Endpoint::client)
            && client.is_same(other)
        {
            working.tokens = Arc::clone(&before.tokens);
        }
    }

    /// Whether it wants events of this type.
    pub fn wants_type(&self, kind: &str) -> bool {
        self.record.events.iter().any(|pattern| pattern.matches(kind))
    }

    /// Whether an event of a type that it wants passes its filter.
    pub fn passes(&self, event: &Event) -> bool {
        let Some(filter) = &self.filter else { return true };
        let id = self.record.id.to_string();
        filter.passes(&event.document, &event_context(event, &id, "", 0))
    }
}

/// What a mapping or a filter may read beside an event. `job_id` is empty and `attempt` 0 while there is no job.
pub fn event_context<'a>(
    event: &'a Event,
    connection_id: &'a str,
    job_id: &'a str,
    attempt: u32,
) -> Context<'a> {
    Context {
        event_id: &event.id,
        event_type: &event.kind,
        event_time: event.time(),
        source: event.source.as_deref(),
        tenant_id: event.tenant.as_str(),
        connection_id,
        job_id,
        attempt,
        now: event.received,
    }
}

/// Compiles connections, and shares their mappings.
pub struct Compiler {
    stock: RwLock<Arc<Stock>>,
    vault: Arc<Vault>,
    addresses: Arc<AddressPolicy>,
    google: GoogleSettings,
    mappings: Mutex<Mappings>,
}

impl Compiler {
    /// A compiler that knows these connectors and opens secrets with this vault.
    pub fn new(
        catalogue: Arc<Catalogue>,
        vault: Arc<Vault>,
        addresses: Arc<AddressPolicy>,
        google: GoogleSettings,
    ) -> Self {
        let compiler = Self {
            stock: RwLock::new(Arc::new(Stock::new(catalogue))),
            vault,
            addresses,
            google,
            mappings: Mutex::default(),
        };
        compiler.share_named(&compiler.stock());
        compiler
    }

    fn share_named(&self, stock: &Stock) {
        let mut mappings = self.mappings.lock();
        for (version, mapping) in stock.mappings() {
            mappings.know(*version, mapping);
        }
    }

    /// The catalogue that connections are compiled by.
    pub fn stock(&self) -> Arc<Stock> {
        Arc::clone(&self.stock.read())
    }

    /// Compiles by another catalogue from now on; the answer is the one before.
    pub fn adopt(&self, catalogue: Arc<Catalogue>) -> Arc<Stock> {
        let stock = Arc::new(Stock::new(catalogue));
        self.share_named(&stock);
        std::mem::replace(&mut *self.stock.write(), stock)
    }

    /// Makes a connection ready. It never fails: what can't be compiled is a broken connection.
    pub fn compile(&self, record: Connection, revision: Revision) -> LiveConnection {
        let filter = record.filter.as_ref().map(Condition::from_json).transpose();
        let (mapping_version, works) = match self.working(&record) {
            Ok((version, working)) => (version, Ok(working)),
            Err(reason) => (UNPINNED, Err(reason)),
        };
        match filter {
            Ok(filter) => LiveConnection { record, revision, mapping_version, filter, works },
            Err(faults) => LiveConnection {
                record,
                revision,
                mapping_version,
                filter: None,
                works: Err(format!("its filter can't be read: {faults}")),
            },
        }
    }

    fn working(&self, record: &Connection) -> Result<(MappingVersion, Working), String> {
        let stock = self.stock();
        let connector = stock
            .catalogue
            .connector(&record.connector)
            .ok_or_else(|| format!("there is no connector \"{}\" any more", record.connector))?;
        if !connector.sends() {
            return Err(format!("the connector \"{}\" only receives", connector.id));
        }
        let (version, mapping) = self.chosen_mapping(&stock, &connector.mapping, &record.mapping)?;
        connector
            .check_mapping(&mapping)
            .map_err(|faults| format!("its mapping no longer fits the connector: {faults}"))?;
        let policy = record.policy.over(&connector.policy);
        let owner = record.id.to_string();
        let credentials = self.open_all(&owner, &record.credentials)?;
        let url = &record.target.url;
        let given = Given { url, options: &record.options, credentials: &credentials };
        if connector.kind == ConnectorKind::GoogleSheets {
            let sheet = check_sheet(connector, &given, &self.google, policy.timeout)
                .map_err(|faults| format!("its settings are refused: {faults}"))?;
            let outlet = Outlet::GoogleSheets(Box::new(sheet));
            let (tokens, turns) = (Arc::default(), None);
            return Ok((
                version,
                Working { connector: Arc::clone(connector), mapping, policy, outlet, tokens, turns },
            ));
        }
        let settings = check_settings(connector, &given)
            .map_err(|faults| format!("its settings are refused: {faults}"))?;
        let mut headers = BTreeMap::new();
        for (name, sealed) in &record.target.headers {
            let value = self.vault.open(&owner, sealed).map_err(|error| error.to_string())?;
            headers.insert(name.clone(), value.reveal().to_owned());
        }
        let headers = check_custom_headers(connector, &headers)
            .map_err(|faults| format!("its headers are refused: {faults}"))?;
        let (mut keys, mut signing) = (Vec::with_capacity(record.signing.len()), Vec::new());
        if connector.secret != SecretUse::None {
            for secret in &record.signing {
                let clear = self.vault.open(&owner, &secret.sealed).map_err(|error| error.to_string())?;
                let key = connector.signature.key(clear.reveal()).map_err(|error| error.to_string())?;
                keys.push(Key { key, expires: secret.expires });
                signing.push(clear);
            }
        }
        let mut endpoint =
            Endpoint::compile(Arc::clone(connector), url, settings, &headers, keys, policy.timeout)
                .map_err(|error| error.to_string())?;
        for secret in &signing {
            endpoint.hide(secret);
        }
        for url in endpoint.urls() {
            self.addresses
                .check_url(url.as_str())
                .map_err(|refusal| format!("its URL is refused: {refusal}"))?;
        }
        let (calls, own) = (endpoint.calls(), (record.id, policy.rate));
        let last = endpoint.urls().nth(calls - 1);
        let turns = last.and_then(|url| Turns::of(connector, url, u32::try_from(calls).unwrap_or(1), own));
        let (outlet, tokens) = (Outlet::Http(Box::new(endpoint)), Arc::default());
        Ok((version, Working { connector: Arc::clone(connector), mapping, policy, outlet, tokens, turns }))
    }

    /// Makes a source ready. It never fails: what can't be compiled is a broken source.
    pub fn compile_source(&self, record: Source, revision: Revision) -> LiveSource {
        let works = self.receiver(&record);
        LiveSource { record, revision, works }
    }

    fn receiver(&self, record: &Source) -> Result<Receiver, String> {
        let stock = self.stock();
        let connector = stock
            .catalogue
            .connector(&record.connector)
            .ok_or_else(|| format!("there is no connector \"{}\" any more", record.connector))?;
        let spec = connector
            .inbound
            .as_ref()
            .ok_or_else(|| format!("the connector \"{}\" receives nothing", connector.id))?;
        let (_, mapping) = self.chosen_mapping(&stock, &spec.mapping, &record.mapping)?;
        spec.check_mapping(&record.connector, &mapping)
            .map_err(|faults| format!("its mapping no longer fits the connector: {faults}"))?;
        let owner = record.id.to_string();
        let credentials = self.open_all(&owner, &record.credentials)?;
        let keys = match spec.secret {
            SecretUse::None => Vec::new(),
            _ => self.keys(&owner, &record.secrets, spec.signature())?,
        };
        let given = Given { url: "", options: &record.options, credentials: &credentials };
        Receiver::compile(Arc::clone(spec), mapping, keys, &given)
            .map_err(|faults| format!("its settings are refused: {faults}"))
    }

    fn open_all(
        &self,
        owner: &str,
        sealed: &BTreeMap<String, Sealed>,
    ) -> Result<BTreeMap<String, Secret>, String> {
        let open = |(name, sealed): (&String, &Sealed)| {
            Ok((name.clone(), self.vault.open(owner, sealed).map_err(|error| error.to_string())?))
        };
        sealed.iter().map(open).collect()
    }

    fn keys(
        &self,
        owner: &str,
        secrets: &[SigningSecret],
        signature: &SignatureSpec,
    ) -> Result<Vec<Key>, String> {
        let decode = |secret: &SigningSecret| {
            let clear = self.vault.open(owner, &secret.sealed).map_err(|error| error.to_string())?;
            let key = signature.key(clear.reveal()).map_err(|error| error.to_string())?;
            Ok(Key { key, expires: secret.expires })
        };
        secrets.iter().map(decode).collect()
    }

    fn chosen_mapping(
        &self,
        stock: &Stock,
        default: &str,
        choice: &MappingChoice,
    ) -> Result<(MappingVersion, Arc<Mapping>), String> {
        let name = match choice {
            MappingChoice::Default => default,
            MappingChoice::Named(name) => name,
            MappingChoice::Inline(source) => {
                let mapping = Mapping::from_json(source)
                    .map_err(|faults| format!("its mapping can't be read: {faults}"))?;
                return Ok(self.mappings.lock().share(mapping));
            }
        };
        stock.named(name).cloned().ok_or_else(|| format!("there is no mapping \"{name}\" any more"))
    }

    /// A mapping by its version, out of the store where nobody here has it.
    pub async fn mapping(
        &self,
        store: &dyn Store,
        version: MappingVersion,
    ) -> Result<Option<Arc<Mapping>>, StoreError> {
        if let Some(mapping) = self.mappings.lock().get(version) {
            return Ok(Some(mapping));
        }
        let Some(source) = store.mapping(version).await? else { return Ok(None) };
        match Mapping::from_json(&source) {
            Ok(mapping) => {
                let mut mappings = self.mappings.lock();
                let (_, mapping) = mappings.share(mapping);
                mappings.keep(Arc::clone(&mapping));
                Ok(Some(mapping))
            }
            Err(faults) => {
                tracing::error!(%version, %faults, "a stored mapping can't be read");
                Ok(None)
            }
        }
    }
}
