//! A connection ready to send: from a body to the request that delivers it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use bytes::Bytes;
use serde_json::{Map, Value};
use url::Url;

use super::mask::{HIDDEN, Mask};
use super::oauth::{Client, Token};
use super::settings::{Auth, Settings};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Destination, Request};
use crate::signature::{Message, SigningKey};
use crate::spec::{CallSpec, ConnectorSpec, ContentType, HeaderTemplate, Names};

/// Headers that a request has beside its connection's own, as a rule: a signature's, and those of the way out.
const ADDED_HEADERS: usize = 8;

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
    /// A URL can't be made of what the connection says.
    #[error("{0}")]
    Url(String),
    /// Requests must be signed and there is nothing to sign with.
    #[error("the connector \"{0}\" signs every request, and the connection has no secret")]
    NoSecret(String),
}

/// Where and how a connection's requests go: all that does not change from one event to the next.
#[derive(Debug)]
pub struct Endpoint {
    spec: Arc<ConnectorSpec>,
    steps: Vec<Call>,
    last: Call,
    /// What rows may read of the connection's options.
    options: Value,
    auth: Option<Auth>,
    keys: Vec<Key>,
    mask: Mask,
    timeout: Duration,
}

/// One request, but for its body.
struct Call {
    method: Method,
    url: Destination,
    content_type: ContentType,
    headers: HeaderMap,
    templates: Vec<(HeaderName, HeaderTemplate)>,
}

impl fmt::Debug for Call {
    /// Host alone: the query may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {})", self.method, self.url.host_str().unwrap_or_default())
    }
}

impl Call {
    fn compile(
        spec: &CallSpec,
        target: &str,
        settings: &Settings,
        custom: &HeaderMap,
    ) -> Result<Self, EndpointError> {
        let url = spec.resolve(target, &settings.options, &settings.secrets).map_err(EndpointError::Url)?;
        let mut headers = custom.clone();
        if let Some(content_type) = spec.content_type.header_value() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let values: BTreeMap<String, String> =
            settings.options.iter().chain(&settings.secrets).map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut templates = Vec::new();
        for (name, template) in &spec.headers {
            // A header whose option is left out is left out.
            let Ok(bound) = template.bind(&values) else { continue };
            match bound.fixed() {
                Some(mut value) => {
                    value.set_sensitive(
                        template.options().any(|option| settings.secrets.contains_key(option)),
                    );
                    headers.insert(name, value);
                }
                None => templates.push((name.clone(), bound)),
            }
        }
        let (method, url, content_type) = (spec.method.clone(), url.into(), spec.content_type);
        Ok(Self { method, url, content_type, headers, templates })
    }
}

impl Endpoint {
    /// Compiles a connection. `target` is its own URL, `settings` are out of
    /// [`check_settings`](super::check_settings), `custom` are its own headers out of
    /// [`check_custom_headers`](super::check_custom_headers), `keys` its secrets, newest first, `timeout` is the
    /// policy's in force. Whether requests may go to [`Endpoint::urls`] is for
    /// [`AddressPolicy`](crate::egress::AddressPolicy) to say.
    pub fn compile(
        spec: Arc<ConnectorSpec>,
        target: &str,
        settings: Settings,
        custom: &HeaderMap,
        keys: Vec<Key>,
        timeout: Duration,
    ) -> Result<Self, EndpointError> {
        if spec.secret == crate::spec::SecretUse::Required && keys.is_empty() {
            return Err(EndpointError::NoSecret(spec.id.clone()));
        }
        let compile = |call| Call::compile(call, target, &settings, custom);
        let steps: Result<Vec<Call>, EndpointError> =
            spec.steps.iter().map(|step| compile(&step.call)).collect();
        let last = compile(&spec.request.call)?;
        let options: Map<String, Value> =
            settings.options.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let mut mask = settings.mask;
        for value in custom.values() {
            let text = value.to_str().unwrap_or_default();
            mask.add(text);
            mask.add(text.split(' ').next_back().unwrap_or_default());
        }
        Ok(Self {
            steps: steps?,
            last,
            spec,
            options: Value::Object(options),
            auth: settings.auth,
            keys,
            mask,
            timeout,
        })
    }

    /// Hides this secret too where an answer repeats it: a signing secret as it was given.
    pub fn hide(&mut self, secret: &Secret) {
        self.mask.add(secret.reveal());
        self.mask.add(secret.reveal().trim_start_matches("whsec_"));
    }

    /// What is hidden in answers.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The connector that it was compiled for.
    pub fn spec(&self) -> &Arc<ConnectorSpec> {
        &self.spec
    }

    /// The connection's options as rows read them.
    pub(super) fn options(&self) -> &Value {
        &self.options
    }

    /// Every URL that requests go to, the token endpoint's too.
    pub fn urls(&self) -> impl Iterator<Item = &Url> {
        self.steps
            .iter()
            .chain([&self.last])
            .map(|call| &*call.url)
            .chain(self.client().map(Client::token_url))
    }

    /// How many requests deliver an event: more than one for a chain.
    pub fn calls(&self) -> usize {
        self.steps.len() + 1
    }

    /// The time for a whole try, all its requests together.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What fetches access tokens, where requests need one.
    pub fn client(&self) -> Option<&Client> {
        match &self.auth {
            Some(Auth::Token { client, .. }) => Some(client),
            _ => None,
        }
    }

    /// The URL with secrets hidden, for a person to see.
    pub fn shown_url(&self, url: &Url) -> String {
        let secret = |name: &str| {
            let of_auth = matches!(&self.auth, Some(Auth::Query(parameter, _)) if parameter == name);
            let calls = self.spec.steps.iter().map(|step| &step.call).chain([&self.spec.request.call]);
            let of_option = calls.flat_map(|call| &call.query).any(|(parameter, template)| {
                let mut shown = template.options();
                parameter == name
                    && shown.any(|option| {
                        self.spec.options.iter().any(|known| known.secret && known.name == option)
                    })
            });
            of_auth || of_option
        };
        if !url.query_pairs().any(|(name, _)| secret(&name)) {
            return url.to_string();
        }
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if secret(&name) { HIDDEN.to_owned() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect();
        let mut shown = url.clone();
        shown.query_pairs_mut().clear().extend_pairs(pairs);
        shown.to_string()
    }

    /// The request of one attempt, where one request delivers and no access token is needed.
    pub fn request(&self, names: &Names<'_>, body: Bytes, now: Timestamp) -> Request {
        self.call(self.steps.len(), names, body, None, now)
    }

    /// The request number `index`, from 0, of an attempt. `body` is what [`Endpoint::render`] made, or of a chain
    /// [`Endpoint::body`]; `now` becomes the signature's timestamp.
    pub fn call(
        &self,
        index: usize,
        names: &Names<'_>,
        body: Bytes,
        token: Option<&Token>,
        now: Timestamp,
    ) -> Request {
        let call = self.steps.get(index).unwrap_or(&self.last);
        let mut headers = call.headers.clone();
        headers.reserve(ADDED_HEADERS);
        for (name, template) in &call.templates {
            headers.insert(name, template.render(names));
        }
        // What the query has beside the connection's own, where there is something.
        let mut extended: Option<Url> = None;
        let body = match (call.content_type, std::str::from_utf8(&body)) {
            (ContentType::Query, Ok(fields)) => {
                let mut url = Url::clone(&call.url);
                let joined =
                    [call.url.query(), Some(fields)].into_iter().flatten().filter(|part| !part.is_empty());
                let query = joined.collect::<Vec<_>>().join("&");
                url.set_query(Some(&query).filter(|query| !query.is_empty()).map(String::as_str));
                extended = Some(url);
                Bytes::new()
            }
            _ => body,
        };
        match (&self.auth, token) {
            (Some(Auth::Header(name, value)), _) => drop(headers.insert(name, value.clone())),
            (Some(Auth::Query(name, value)), _) => {
                let url = extended.get_or_insert_with(|| Url::clone(&call.url));
                url.query_pairs_mut().append_pair(name, value.reveal());
            }
            (Some(Auth::Token { name, prefix, .. }), Some(token)) => {
                // A token is visible ASCII and a prefix was checked, so this always fits.
                if let Ok(mut value) = HeaderValue::try_from(format!("{prefix}{}", token.text.reveal())) {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
            }
            _ => {}
        }
        let url = extended.map_or_else(|| call.url.clone(), Destination::from);
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
            method: call.method.as_str(),
            url: url.as_str(),
            body: &body,
        };
        for (name, value) in self.spec.signature.sign(&keys, &message) {
            headers.insert(name, value);
        }
        Request { method: call.method.clone(), url, headers, body, timeout: self.timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Given, check_settings};
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

    fn endpoint(custom: &HeaderMap, keys: Vec<Key>) -> Result<Endpoint, EndpointError> {
        let url = "https://crm.example/hook";
        let (options, credentials) = (BTreeMap::new(), BTreeMap::new());
        let given = Given { url, options: &options, credentials: &credentials };
        let settings = check_settings(&webhook(), &given).unwrap();
        Endpoint::compile(webhook(), url, settings, custom, keys, Duration::from_secs(15))
    }

    #[test]
    fn an_older_secret_signs_until_it_expires_and_the_newest_always() {
        let keys = vec![key(SECRETS[0], None), key(SECRETS[1], Some(5_000))];
        let rotating = endpoint(&HeaderMap::new(), keys).unwrap();
        assert_eq!(signatures(&rotating, 4_999), 2);
        assert_eq!(signatures(&rotating, 5_000), 1);
        let expired = endpoint(&HeaderMap::new(), vec![key(SECRETS[0], Some(1))]).unwrap();
        assert_eq!(signatures(&expired, 5_000), 1);
    }

    #[test]
    fn nothing_is_sent_unsigned_where_a_secret_is_required() {
        let error = endpoint(&HeaderMap::new(), Vec::new()).unwrap_err();
        assert_eq!(error, EndpointError::NoSecret("webhook".to_owned()));
    }

    #[test]
    fn a_connection_cannot_overrule_its_connector() {
        let mut custom = HeaderMap::new();
        for name in ["content-type", "webhook-signature", "webhook-id", "x-own"] {
            custom.insert(name, HeaderValue::from_static("forged"));
        }
        let endpoint = endpoint(&custom, vec![key(SECRETS[0], None)]).unwrap();
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
