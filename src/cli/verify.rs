//! Checks the signature of an arrived request by a connector's spec.

use crate::domain::time::Timestamp;
use crate::egress::{HeaderMap, HeaderName, HeaderValue};
use crate::signature::{Received, SignatureError, SignatureSpec, SigningKey};
use crate::spec::ConnectorSpec;

use super::receiver::{Arrival, Verdict};

/// A spec and the secrets that are valid for it.
#[derive(Debug)]
pub struct Verifier {
    spec: SignatureSpec,
    keys: Vec<SigningKey>,
}

impl Verifier {
    /// By a connector's signature; without secrets nothing can be checked.
    pub fn new(connector: &ConnectorSpec, secrets: &[&str]) -> Result<Self, SignatureError> {
        let spec = connector.signature.clone();
        let keys = secrets.iter().map(|secret| spec.key(secret)).collect::<Result<_, _>>()?;
        Ok(Self { spec, keys })
    }

    /// The verdict over a request that came to `host`.
    pub fn judge(&self, arrival: &Arrival, host: &str, now: Timestamp) -> Verdict {
        if self.spec.needs_secret() && self.keys.is_empty() {
            return Verdict::Unchecked;
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &arrival.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.append(name, value);
            }
        }
        let url = format!("http://{host}{}", arrival.path);
        let received = Received {
            method: &arrival.method,
            url: &url,
            headers: &headers,
            body: &arrival.body,
            form: None,
        };
        let keys: Vec<&SigningKey> = self.keys.iter().collect();
        match self.spec.verify(&keys, &received, now) {
            Ok(_) => Verdict::Verified,
            Err(error) => Verdict::Refused(error.to_string()),
        }
    }
}
