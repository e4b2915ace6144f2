//! Sources: made, changed, given a new secret, deleted. Changes are optimistic, as those of connections.

mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::connections::renew_secrets;
use super::live::LiveSource;
use super::{Gateway, ServiceError};
use crate::domain::connection::{MappingChoice, SigningSecret};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::id::{SourceId, TenantId};
use crate::domain::secret::{Sealed, Secret};
use crate::domain::source::{Source, SourceState};
use crate::spec::{InboundSpec, SecretUse};
use crate::store::{Expected, Record, RecordId, Revision, StoreError};
use wish::{Checked, Wish};

/// How often a change is worked out again when someone else was faster.
const TRIES: usize = 5;

/// A source that was saved, and its secret where one was made for it: shown this once.
#[derive(Debug)]
pub struct SavedSource {
    /// The source.
    pub live: Arc<LiveSource>,
    /// The secret that was made.
    pub secret: Option<Secret>,
}

impl Gateway {
    /// A source of a tenant, or of anyone for the operator (`None`).
    pub fn owned_source(
        &self,
        tenant: Option<&TenantId>,
        id: SourceId,
    ) -> Result<Arc<LiveSource>, ServiceError> {
        self.directory
            .source(id)
            .filter(|live| tenant.is_none_or(|tenant| live.record.tenant == *tenant))
            .ok_or(ServiceError::Missing("source"))
    }

    /// Makes a source out of its JSON. `tenant` is the key's, or what the query names; the JSON may name it too.
    pub async fn make_source(
        &self,
        tenant: Option<&TenantId>,
        wanted: &Value,
    ) -> Result<SavedSource, ServiceError> {
        let mut faults = Faults::default();
        let node = Node::from_json(wanted);
        let Some(mut table) = node.table("", &mut faults) else { return Err(faults.into()) };
        let said = table.text("tenant");
        let given = table.text("secret").map(Secret::new);
        let wish = Wish::new(&mut table);
        let tenant = self.tenant_of_new(tenant, said, table.faults());
        table.finish();
        let checked = wish.check(&self.catalogue(), &mut faults);
        let made = checked
            .as_ref()
            .and_then(|checked| self.first_secret(&checked.inbound, given.as_ref(), &mut faults));
        if let Some(checked) = &checked {
            self.check_channel(checked, None, &mut faults);
        }
        let (Some(tenant), Some(checked), true) = (tenant, checked, faults.is_empty()) else {
            return Err(faults.into());
        };
        let limit = self.settings.connections_per_tenant;
        if self.directory.source_count(&tenant) >= limit {
            let mut faults = Faults::default();
            let hint =
                "delete what is no longer used, or ask the operator to raise limits.connections_per_tenant";
            faults.at_field(
                "tenant",
                format!("has {limit} sources, which is the most"),
                Some(hint.to_owned()),
            );
            return Err(ServiceError::Limit(faults));
        }
        let id = SourceId::from_bits(self.ids.next());
        let now = self.clock.now();
        let mut record = Source {
            id,
            tenant,
            name: String::new(),
            connector: checked.connector.clone(),
            agent: None,
            channel: None,
            public: false,
            mapping: MappingChoice::Default,
            options: BTreeMap::new(),
            credentials: BTreeMap::new(),
            secrets: Vec::new(),
            state: SourceState::Active,
            created: now,
            updated: now,
        };
        if let Some(secret) = given.as_ref().or(made.as_ref()) {
            let sealed = self.vault.seal(&id.to_string(), secret)?;
            record.secrets.push(SigningSecret { sealed, expires: None });
        }
        self.fill_source(&mut record, checked)?;
        self.store.put(Record::Source(Box::new(record)), Expected::Absent).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok(SavedSource { live: self.owned_source(None, id)?, secret: made })
    }

    /// Checks the secret that is given, or makes one where the connector wants one.
    fn first_secret(
        &self,
        spec: &InboundSpec,
        given: Option<&Secret>,
        faults: &mut Faults,
    ) -> Option<Secret> {
        match (given, spec.secret) {
            (Some(_), _) => check_secret(spec, given, faults),
            (None, SecretUse::Required) if spec.makes_secret => {
                return Some(Secret::new(spec.signature().generate_secret(self.entropy.bytes())));
            }
            (None, SecretUse::Required) => {
                let hint = "the other system makes it; take it from there".to_owned();
                faults.at_field("secret", "missing", Some(hint));
            }
            (None, _) => {}
        }
        None
    }

    /// Refuses a channel that its agent has already.
    fn check_channel(&self, checked: &Checked, own: Option<SourceId>, faults: &mut Faults) {
        let Some(agent) = &checked.agent else { return };
        let channel = checked.channel.as_deref().unwrap_or(&checked.connector);
        let other = self.directory.agent_source(agent, channel).filter(|live| Some(live.record.id) != own);
        if other.is_some() {
            let hint = "name another \"channel\", or change the source that is there".to_owned();
            let message = format!("the agent has a source for the channel \"{channel}\" already");
            faults.at_field("channel", message, Some(hint));
        }
    }

    /// Puts checked settings into a record.
    fn fill_source(&self, record: &mut Source, checked: Checked) -> Result<(), ServiceError> {
        let owner = record.id.to_string();
        let mut credentials = BTreeMap::new();
        for (name, value) in checked.credentials {
            credentials.insert(name, self.vault.seal(&owner, &value)?);
        }
        record.name = checked.name;
        record.agent = checked.agent;
        record.channel = checked.channel;
        record.public = checked.public;
        record.mapping = checked.mapping;
        record.options = checked.options;
        record.credentials = credentials;
        record.state = match (checked.paused, record.state) {
            (false, _) => SourceState::Active,
            (true, SourceState::Active) => SourceState::Paused { at: self.clock.now() },
            (true, paused) => paused,
        };
        Ok(())
    }

    /// Changes a source by a JSON merge patch (RFC 7396). With `revision` in it, only if it is still that one.
    pub async fn update_source(
        &self,
        tenant: Option<&TenantId>,
        id: SourceId,
        patch: &Value,
    ) -> Result<Arc<LiveSource>, ServiceError> {
        let node = Node::from_json(patch);
        for _ in 0..TRIES {
            let live = self.owned_source(tenant, id)?;
            let mut record = live.record.clone();
            let mut faults = Faults::default();
            let mut wish = Wish::of(&record, self.open_source(&record)?);
            let Some(mut table) = node.table("", &mut faults) else { return Err(faults.into()) };
            let revision = table.integer("revision");
            wish.change(&mut table);
            table.finish();
            let checked = wish.check(&self.catalogue(), &mut faults);
            if let Some(checked) = &checked {
                self.check_channel(checked, Some(id), &mut faults);
            }
            let (Some(checked), true) = (checked, faults.is_empty()) else { return Err(faults.into()) };
            if revision.is_some_and(|revision| Revision::try_from(revision) != Ok(live.revision)) {
                return Err(ServiceError::Conflict);
            }
            self.fill_source(&mut record, checked)?;
            if let Some(changed) = self.replace_source(record, live.revision).await? {
                return Ok(changed);
            }
        }
        Err(ServiceError::Conflict)
    }

    fn open_source(&self, record: &Source) -> Result<BTreeMap<String, Secret>, ServiceError> {
        let owner = record.id.to_string();
        let open = |(name, sealed): (&String, &Sealed)| Ok((name.clone(), self.vault.open(&owner, sealed)?));
        record.credentials.iter().map(open).collect()
    }

    /// Writes a changed record; `None` when someone else was faster.
    async fn replace_source(
        &self,
        mut record: Source,
        revision: Revision,
    ) -> Result<Option<Arc<LiveSource>>, ServiceError> {
        let id = record.id;
        record.updated = self.clock.now();
        let written = self.store.put(Record::Source(Box::new(record)), Expected::At(revision)).await;
        self.directory.catch_up(self.store.as_ref()).await?;
        match written {
            Ok(_) => Ok(Some(self.owned_source(None, id)?)),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a source a new secret, `given` or made here; what the ones it had sign is taken for a day more.
    pub async fn rotate_source_secret(
        &self,
        tenant: Option<&TenantId>,
        id: SourceId,
        given: Option<Secret>,
    ) -> Result<SavedSource, ServiceError> {
        let live = self.owned_source(tenant, id)?;
        let catalogue = self.catalogue();
        let connector = catalogue.connector(&live.record.connector);
        let Some(spec) = connector.and_then(|connector| connector.inbound.as_ref()) else {
            let message =
                format!("there is no connector \"{}\" that receives any more", live.record.connector);
            return Err(ServiceError::State(message));
        };
        if spec.secret == SecretUse::None {
            let message = format!("a source of \"{}\" has no secret", live.record.connector);
            return Err(ServiceError::State(message));
        }
        let mut faults = Faults::default();
        check_secret(spec, given.as_ref(), &mut faults);
        if given.is_none() && !spec.makes_secret {
            let hint = "the other system makes it; take it from there".to_owned();
            faults.at_field("secret", "missing", Some(hint));
        }
        faults.into_result(())?;
        let is_made = given.is_none();
        let secret =
            given.unwrap_or_else(|| Secret::new(spec.signature().generate_secret(self.entropy.bytes())));
        let sealed = self.vault.seal(&id.to_string(), &secret)?;
        for _ in 0..TRIES {
            let live = self.owned_source(tenant, id)?;
            let mut record = live.record.clone();
            renew_secrets(&mut record.secrets, sealed.clone(), self.clock.now());
            if let Some(live) = self.replace_source(record, live.revision).await? {
                return Ok(SavedSource { live, secret: is_made.then_some(secret) });
            }
        }
        Err(ServiceError::Conflict)
    }

    /// Deletes a source; what it took stays.
    pub async fn delete_source(&self, tenant: Option<&TenantId>, id: SourceId) -> Result<(), ServiceError> {
        self.owned_source(tenant, id)?;
        self.store.delete(RecordId::Source(id)).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        self.source_rates.forget(&id);
        Ok(())
    }
}

fn check_secret(spec: &InboundSpec, given: Option<&Secret>, faults: &mut Faults) {
    let Some(secret) = given else { return };
    if spec.secret == SecretUse::None {
        faults.at_field("secret", "nothing is verified by a secret here", Some("leave it out".to_owned()));
    } else if let Err(reason) = spec.signature().key(secret.reveal()) {
        faults.at_field("secret", reason.to_string(), None);
    }
}
