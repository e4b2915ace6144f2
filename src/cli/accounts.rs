//! `patchbay tenants` and `patchbay keys`: over a gateway's API where `--url` is given, else in the data folder itself,
//! whether or not a gateway runs on it.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use url::Url;

use super::client::{Client, address, secret};
use super::failure::Failure;
use super::output::{Output, cell};
use super::serve::SettingArgs;
use crate::app;
use crate::clock::{Clock, Entropy};
use crate::config::Environment;
use crate::domain::account::{ApiKey, Scope, Tenant};
use crate::domain::id::{KeyId, TenantId};
use crate::domain::secret::Secret;
use crate::service::accounts::NewKey;
use crate::service::{Gateway, ServiceError};

/// How many are listed at the most.
const LIST_LIMIT: usize = 1_000;

/// Where the accounts are.
#[derive(Debug, Clone, Args)]
pub struct Where {
    /// A running gateway; without it the data folder is opened
    #[arg(long, env = "PATCHBAY_URL", value_name = "URL", value_parser = address)]
    url: Option<Url>,
    /// An operator's key for it
    #[arg(long, env = "PATCHBAY_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret)]
    key: Option<Secret>,
    /// Which data folder.
    #[command(flatten)]
    settings: SettingArgs,
}

/// What to do with tenants.
#[derive(Debug, Clone, Subcommand)]
pub enum TenantsCommand {
    /// Make a tenant: one customer of the platform
    Create {
        /// Your own id for it: letters, digits, dots, underscores, hyphens
        id: TenantId,
        /// What people call it
        #[arg(long)]
        name: Option<String>,
        /// Where.
        #[command(flatten)]
        place: Where,
    },
    /// List the tenants
    List {
        /// Where.
        #[command(flatten)]
        place: Where,
    },
}

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key; it is shown this once
    Create {
        /// Whose: the key opens only what is this tenant's
        #[arg(long, required_unless_present = "operator", conflicts_with = "operator")]
        tenant: Option<TenantId>,
        /// What it may do, of publish, manage, read; several with commas between
        #[arg(
            long,
            alias = "scope",
            value_delimiter = ',',
            value_parser = scope,
            default_values = ["publish"],
            value_name = "SCOPE"
        )]
        scopes: Vec<Scope>,
        /// An operator's key, which opens everything
        #[arg(long)]
        operator: bool,
        /// What people call it
        #[arg(long, default_value = "made by the command line")]
        name: String,
        /// Where.
        #[command(flatten)]
        place: Where,
    },
    /// List the keys, without what opens
    List {
        /// Of this tenant only
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Where.
        #[command(flatten)]
        place: Where,
    },
    /// Revoke a key; what uses it is refused from then on
    Revoke {
        /// The key's id, key_...
        id: KeyId,
        /// Where.
        #[command(flatten)]
        place: Where,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, scope)| *scope)
        .ok_or_else(|| "one of publish, manage, read".to_owned())
}

/// A way to the accounts.
enum Door {
    Remote(Box<Client>),
    Local(Arc<Gateway>),
}

impl Where {
    async fn open(&self, environment: &Environment) -> Result<Door, Failure> {
        if let Some(url) = &self.url {
            return Ok(Door::Remote(Box::new(Client::new(url.clone(), self.key.clone())?)));
        }
        let config = self.settings.load(environment, Vec::new())?;
        if !config.data_dir.is_dir() {
            let message = format!("there is no data folder {}", config.data_dir.display());
            let hint = "`patchbay serve` makes it; --data-dir names another, --url a running gateway";
            return Err(Failure::invalid(message, hint));
        }
        Ok(Door::Local(app::open_guest(&config, Clock::system(), Entropy::system()).await?))
    }
}

impl Door {
    /// Closes the store; a client needs no closing.
    async fn close(self) {
        if let Self::Local(gateway) = self {
            gateway.store.close().await;
        }
    }
}

/// Runs a command on tenants.
pub async fn run_tenants(
    command: &TenantsCommand,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    match command {
        TenantsCommand::Create { id, name, place } => {
            let door = place.open(environment).await?;
            let name = name.as_deref().unwrap_or(id.as_str());
            let made = match &door {
                Door::Remote(client) => {
                    client.post("/v1/tenants", &json!({ "id": id, "name": name })).await?
                }
                Door::Local(gateway) => of_tenant(&gateway.make_tenant(id.clone(), name).await?),
            };
            output.either(&made, || {
                format!("tenant {id} made; next: patchbay keys create --tenant {id} --scopes publish")
            });
            door.close().await;
        }
        TenantsCommand::List { place } => {
            let door = place.open(environment).await?;
            let tenants = match &door {
                Door::Remote(client) => client.list("/v1/tenants", &[], LIST_LIMIT).await?,
                Door::Local(gateway) => {
                    let tenants = gateway.directory.tenants(None, LIST_LIMIT);
                    tenants.iter().map(|tenant| of_tenant(tenant)).collect()
                }
            };
            output.list(&tenants, &["id", "name", "created"]);
            door.close().await;
        }
    }
    Ok(())
}

/// Runs a command on keys.
pub async fn run_keys(
    command: &KeysCommand,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    match command {
        KeysCommand::Create { tenant, scopes, operator: _, name, place } => {
            let new = NewKey { tenant: tenant.clone(), scopes: scopes.clone(), name: name.clone() };
            create_key(new, place.open(environment).await?, output).await
        }
        KeysCommand::List { tenant, place } => {
            let door = place.open(environment).await?;
            let keys = match &door {
                Door::Remote(client) => {
                    let query: Vec<(&str, &str)> =
                        tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
                    client.list("/v1/keys", &query, LIST_LIMIT).await?
                }
                Door::Local(gateway) => {
                    let keys = gateway.directory.keys(tenant.as_ref(), None, LIST_LIMIT);
                    keys.iter().map(|key| of_key(key)).collect()
                }
            };
            output.list(&keys, &["id", "tenant", "scopes", "name", "created"]);
            door.close().await;
            Ok(())
        }
        KeysCommand::Revoke { id, place } => {
            let door = place.open(environment).await?;
            match &door {
                Door::Remote(client) => drop(client.delete(&format!("/v1/keys/{id}")).await?),
                Door::Local(gateway) => {
                    if !gateway.revoke_key(*id).await? {
                        return Err(Failure::failed(format!("there is no key {id}")));
                    }
                }
            }
            output.either(&json!({ "id": id, "revoked": true }), || format!("{id} is revoked"));
            door.close().await;
            Ok(())
        }
    }
}

async fn create_key(new: NewKey, door: Door, output: Output) -> Result<(), Failure> {
    let operator = new.tenant.is_none();
    let made = match &door {
        Door::Remote(client) => {
            let mut body = json!({ "name": new.name });
            if let Some(tenant) = &new.tenant {
                body["tenant"] = json!(tenant);
                body["scopes"] = json!(new.scopes);
            } else {
                body["operator"] = json!(true);
            }
            client.post("/v1/keys", &body).await?
        }
        Door::Local(gateway) => {
            let (key, token) = gateway.make_key(new).await?;
            let mut made = of_key(&key);
            made["token"] = token.reveal().into();
            made
        }
    };
    output.either(&made, || {
        let what = if operator { "an operator's key: it opens everything" } else { "a key" };
        format!(
            "{} is {what}. It is stored only as a hash, and shown this once:\n\n  {}\n\nexport \
             PATCHBAY_KEY={}",
            cell(&made, "id"),
            cell(&made, "token"),
            cell(&made, "token")
        )
    });
    door.close().await;
    Ok(())
}

fn of_tenant(tenant: &Tenant) -> Value {
    json!({ "id": tenant.id, "name": tenant.name, "created": tenant.created })
}

/// A key without its hash.
fn of_key(key: &ApiKey) -> Value {
    json!({
        "id": key.id, "tenant": key.tenant, "scopes": key.scopes, "name": key.name, "created": key.created,
    })
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(faults) => Self::Faults(faults),
            error => Self::failed(error),
        }
    }
}
