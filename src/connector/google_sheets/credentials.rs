//! The key of a service account: read and checked when it is saved, so that nothing of it can fail later but Google's mind.

use std::fmt;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use url::Url;
use yup_oauth2::ServiceAccountKey;

use crate::domain::fault::Faults;
use crate::domain::secret::Secret;

/// The credential that holds the key: the JSON file that Google gives out.
pub const KEY: &str = "service_account_key";
/// Google's keys are below 3 KiB.
const MOST_BYTES: usize = 16 * 1024;
const WHERE: &str =
    "in the Google Cloud console: IAM & Admin, Service Accounts, Keys, Add key, JSON; paste the whole file";

/// A service account with its key.
#[derive(Clone)]
pub struct Account {
    key: ServiceAccountKey,
    token_url: Url,
    fingerprint: [u8; 16],
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.key.client_email)
    }
}

impl Account {
    /// Reads and checks a key. `token_hosts` are those that a token may be asked of. Faults are told at
    /// `credentials.service_account_key`, and none shows the key.
    pub fn read(text: &Secret, token_hosts: &[String]) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let field = format!("credentials.{KEY}");
        let mut refuse =
            |message: String, hint: &str| faults.at_field(field.clone(), message, Some(hint.to_owned()));
        if text.reveal().len() > MOST_BYTES {
            refuse(format!("is longer than {MOST_BYTES} bytes: no key of a service account"), WHERE);
            return Err(faults);
        }
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(text.reveal());
        let Ok(serde_json::Value::Object(fields)) = parsed else {
            refuse("is no JSON object".to_owned(), WHERE);
            return Err(faults);
        };
        let said = |name: &str| fields.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        if said("type") != "service_account" {
            let hint = "make a key of a service account; one of a user or of an OAuth client can't be shared a sheet with";
            refuse("its \"type\" is not \"service_account\"".to_owned(), hint);
        }
        let email = said("client_email");
        if email.is_empty()
            || email.len() > 320
            || !email.contains('@')
            || email.chars().any(char::is_whitespace)
        {
            refuse("its \"client_email\" is no address".to_owned(), WHERE);
        }
        if !is_signing_key(said("private_key")) {
            refuse("its \"private_key\" is no RSA key in PEM".to_owned(), WHERE);
        }
        let token_url = Url::parse(said("token_uri"));
        match &token_url {
            Ok(url) if token_hosts.iter().any(|host| Some(host.as_str()) == url.host_str()) => {}
            _ => {
                let hint = format!(
                    "the key is shown to that host; allowed: {}; an operator sets google.token_hosts",
                    token_hosts.join(", ")
                );
                refuse("its \"token_uri\" leads to a host that is not allowed".to_owned(), &hint);
            }
        }
        let key = serde_json::from_value::<ServiceAccountKey>(serde_json::Value::Object(fields));
        match (key, token_url) {
            (Ok(key), Ok(token_url)) if faults.is_empty() => {
                let digest =
                    Sha256::digest(format!("{}\n{}\n{}", key.client_email, key.token_uri, key.private_key));
                let mut fingerprint = [0; 16];
                fingerprint.copy_from_slice(&digest[..16]);
                Ok(Self { key, token_url, fingerprint })
            }
            _ => {
                if faults.is_empty() {
                    faults.at_field(field, "is no key of a service account", Some(WHERE.to_owned()));
                }
                Err(faults)
            }
        }
    }

    /// Whom a sheet is to be shared with.
    pub fn email(&self) -> &str {
        &self.key.client_email
    }

    /// Whose quota it uses: its project, or where the key does not tell, itself.
    pub fn project(&self) -> &str {
        self.key.project_id.as_deref().unwrap_or(&self.key.client_email)
    }

    /// Where tokens come from.
    pub fn token_url(&self) -> &Url {
        &self.token_url
    }

    /// The key itself, for whoever signs with it.
    pub fn key(&self) -> &ServiceAccountKey {
        &self.key
    }

    /// The same for the same key.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }
}

fn is_signing_key(pem: &str) -> bool {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .is_ok_and(|key| rustls::crypto::ring::sign::RsaSigningKey::new(&key).is_ok())
}
