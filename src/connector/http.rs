//! From an event to the request that delivers it.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use bytes::Bytes;
use serde_json::Value;
use url::Url;

use crate::domain::time::Timestamp;
use crate::egress::Request;
use crate::mapping::{Context, Mapping, MappingError};
use crate::signature::{Message, SigningKey};
use crate::spec::{ConnectorSpec, ContentType, HeaderTemplate, Names};

/// The body for one event: the mapped fields in the connector's content type. The same event and context give the
/// same bytes.
pub fn render(
    spec: &ConnectorSpec,
    mapping: &Mapping,
    event: &Value,
    context: &Context<'_>,
) -> Result<Bytes, MappingError> {
    let fields = mapping.apply(event, context)?;
    match spec.request.content_type {
        ContentType::Json => Ok(Value::Object(fields).to_string().into()),
    }
}

/// A decoded signing secret and when it stops being used; `None` for the current one.
#[derive(Debug)]
pub struct Key {
    /// The secret, decoded.
    pub key: SigningKey,
    /// From then on it signs no more.
    pub expires: Option<Timestamp>,
}

/// A connection has no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text is no URL.
    #[error("the URL can't be read: {0}")]
    Url(url::ParseError),
    /// Requests must be signed and there is nothing to sign with.
    #[error("the connector \"{0}\" signs every request, and the connection has no secret")]
    NoSecret(String),
}

/// Where and how a connection's requests go: all that does not change from one event to the next.
#[derive(Debug)]
pub struct Endpoint {
    spec: Arc<ConnectorSpec>,
    url: Url,
    headers: HeaderMap,
    templates: Vec<(HeaderName, HeaderTemplate)>,
    keys: Vec<Key>,
    timeout: Duration,
}

impl Endpoint {
    /// Compiles a connection. `custom` are the connection's own headers out of
    /// [`check_custom_headers`](super::check_custom_headers), `keys` its secrets, newest first, `timeout` is the
    /// policy's in force. Whether a request may go to `url` is for
    /// [`AddressPolicy`](crate::egress::AddressPolicy) to say.
    pub fn compile(
        spec: Arc<ConnectorSpec>,
        url: &str,
        custom: HeaderMap,
        keys: Vec<Key>,
        timeout: Duration,
    ) -> Result<Self, EndpointError> {
        let url = Url::parse(url).map_err(EndpointError::Url)?;
        if spec.secret == crate::spec::SecretUse::Required && keys.is_empty() {
            return Err(EndpointError::NoSecret(spec.id.clone()));
        }
        let mut headers = custom;
        let content_type = HeaderValue::from_static(spec.request.content_type.header_value());
        headers.insert(header::CONTENT_TYPE, content_type);
        let mut templates = Vec::new();
        for (name, template) in &spec.request.headers {
            match template.fixed() {
                Some(value) => drop(headers.insert(name, value)),
                None => templates.push((name.clone(), template.clone())),
            }
        }
        Ok(Self { spec, url, headers, templates, keys, timeout })
    }

    /// The connector that it was compiled for.
    pub fn spec(&self) -> &Arc<ConnectorSpec> {
        &self.spec
    }

    /// Where requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The request of one attempt. `body` is what [`render`] made, `now` becomes the signature's timestamp.
    pub fn request(&self, names: &Names<'_>, body: Bytes, now: Timestamp) -> Request {
        let method: &Method = &self.spec.request.method;
        let mut headers = self.headers.clone();
        for (name, template) in &self.templates {
            headers.insert(name, template.render(names));
        }
        // The newest signs whatever its date says: no request goes out unsigned because a clock is wrong.
        let is_active =
            |index: usize, key: &Key| index == 0 || key.expires.is_none_or(|expires| now < expires);
        let keys: Vec<&SigningKey> = self
            .keys
            .iter()
            .enumerate()
            .filter(|(index, key)| is_active(*index, key))
            .map(|(_, key)| &key.key)
            .collect();
        let message = Message {
            id: names.job_id,
            timestamp: now,
            event_type: names.event_type,
            method: method.as_str(),
            url: self.url.as_str(),
            body: &body,
        };
        for (name, value) in self.spec.signature.sign(&keys, &message) {
            headers.insert(name, value);
        }
        Request { method: method.clone(), url: self.url.clone(), headers, body, timeout: self.timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Catalogue;

    const NAMES: Names<'_> = Names { event_type: "lead.captured", event_id: "e1", job_id: "job_1" };
    const SECRETS: [&str; 2] =
        ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];

    fn webhook() -> Arc<ConnectorSpec> {
        Arc::clone(Catalogue::load(None).unwrap().connector("webhook").unwrap())
    }

    fn key(secret: &str, expires: Option<i64>) -> Key {
        let key = webhook().signature.key(secret).unwrap();
        Key { key, expires: expires.map(Timestamp::from_millis) }
    }

    fn signatures(endpoint: &Endpoint, now: i64) -> usize {
        let request = endpoint.request(&NAMES, Bytes::from_static(b"{}"), Timestamp::from_millis(now));
        request.headers["webhook-signature"].to_str().unwrap().split(' ').count()
    }

    fn endpoint(custom: HeaderMap, keys: Vec<Key>) -> Result<Endpoint, EndpointError> {
        Endpoint::compile(webhook(), "https://crm.example/hook", custom, keys, Duration::from_secs(15))
    }

    #[test]
    fn an_older_secret_signs_until_it_expires_and_the_newest_always() {
        let keys = vec![key(SECRETS[0], None), key(SECRETS[1], Some(5_000))];
        let rotating = endpoint(HeaderMap::new(), keys).unwrap();
        assert_eq!(signatures(&rotating, 4_999), 2);
        assert_eq!(signatures(&rotating, 5_000), 1);
        let expired = endpoint(HeaderMap::new(), vec![key(SECRETS[0], Some(1))]).unwrap();
        assert_eq!(signatures(&expired, 5_000), 1);
    }

    #[test]
    fn nothing_is_sent_unsigned_where_a_secret_is_required() {
        let error = endpoint(HeaderMap::new(), Vec::new()).unwrap_err();
        assert_eq!(error, EndpointError::NoSecret("webhook".to_owned()));
        let nowhere = Endpoint::compile(webhook(), "crm", HeaderMap::new(), Vec::new(), Duration::ZERO);
        assert!(matches!(nowhere, Err(EndpointError::Url(_))));
    }

    #[test]
    fn a_connection_cannot_overrule_its_connector() {
        let mut custom = HeaderMap::new();
        for name in ["content-type", "webhook-signature", "webhook-id", "x-own"] {
            custom.insert(name, HeaderValue::from_static("forged"));
        }
        let endpoint = endpoint(custom, vec![key(SECRETS[0], None)]).unwrap();
        let request = endpoint.request(&NAMES, Bytes::new(), Timestamp::from_millis(0));
        let forged: Vec<&str> = request
            .headers
            .iter()
            .filter(|(_, value)| *value == "forged")
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(forged, ["x-own"]);
        assert!(!format!("{request:?} {endpoint:?}").contains("C2FVsBQ"));
    }
}
