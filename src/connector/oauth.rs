//! Access tokens of OAuth 2.0 (RFC 6749): the request for one, and its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;

use super::answer::{Verdict, quoted, retry_after};
use super::mask::Mask;
use super::settings::MAX_VALUE_CHARS;
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, Request, SendError};
use crate::spec::{Grant, OAuthSpec};

/// A token is renewed so long before it ends, or in the last tenth of a shorter life.
const AHEAD: Duration = Duration::from_mins(1);
/// The longest that a token is used, whatever its answer says.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

/// A client of a token endpoint.
#[derive(Debug)]
pub struct Client {
    token_url: Url,
    grant: Grant,
    scope: Option<String>,
    basic: bool,
    lifetime: Duration,
    id: Secret,
    secret: Secret,
    refresh_token: Option<Secret>,
}

/// An access token.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub text: Secret,
    /// From then on another is fetched.
    pub renew_at: Timestamp,
}

/// What a token endpoint gave.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The access token.
    pub token: Token,
    /// The refresh token that replaces the one used, where it gave one (RFC 6749 §6).
    pub refresh_token: Option<Secret>,
}

/// What RFC 6749 §5.1 and §5.2 say of a token endpoint's answer.
#[derive(Deserialize)]
struct Told {
    access_token: Option<Secret>,
    refresh_token: Option<Secret>,
    expires_in: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Client {
    pub(super) fn new(spec: &OAuthSpec, token_url: Url, credentials: &BTreeMap<String, Secret>) -> Self {
        let of = |name: &str| credentials.get(name).cloned();
        let empty = || Secret::new(String::new());
        Self {
            token_url,
            grant: spec.grant,
            scope: spec.scope.clone(),
            basic: spec.basic_client,
            lifetime: spec.lifetime,
            id: of("client_id").unwrap_or_else(empty),
            secret: of("client_secret").unwrap_or_else(empty),
            refresh_token: of("refresh_token").filter(|_| spec.grant == Grant::RefreshToken),
        }
    }

    /// Where tokens come from: what the address policy is to judge.
    pub fn token_url(&self) -> &Url {
        &self.token_url
    }

    /// The refresh token that the connection has; `None` where none is used.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// Hides what it shows to the token endpoint.
    pub fn mask(&self) -> Mask {
        let secrets = [Some(&self.id), Some(&self.secret), self.refresh_token.as_ref()];
        secrets.into_iter().flatten().fold(Mask::default(), |mask, secret| mask.with(secret.reveal()))
    }

    /// Whether the two are one client of one endpoint, so that a token of one serves the other.
    pub fn is_same(&self, other: &Self) -> bool {
        let of = |client: &Self| (client.token_url.clone(), client.id.clone(), client.secret.clone());
        of(self) == of(other) && self.grant == other.grant && self.scope == other.scope
    }

    /// The request for a token. `refresh_token` stands in place of the connection's own, where one is used.
    pub fn request(&self, timeout: Duration, refresh_token: Option<&Secret>) -> Request {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair(
            "grant_type",
            match self.grant {
                Grant::ClientCredentials => "client_credentials",
                Grant::RefreshToken => "refresh_token",
            },
        );
        if let (Some(own), newer) = (&self.refresh_token, refresh_token) {
            let token = newer.unwrap_or(own);
            form.append_pair("refresh_token", token.reveal());
        }
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if self.basic {
            // RFC 6749 §2.3.1: both are form-encoded before they are joined.
            let encode =
                |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let both = format!("{}:{}", encode(self.id.reveal()), encode(self.secret.reveal()));
            // Base64 always fits.
            if let Ok(mut value) = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both))) {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        } else {
            form.append_pair("client_id", self.id.reveal());
            form.append_pair("client_secret", self.secret.reveal());
        }
        let body = form.finish().into();
        Request { method: Method::POST, url: self.token_url.clone().into(), headers, body, timeout }
    }

    /// Reads what came back; without a token, what that means for the try.
    pub fn read(&self, result: Result<&Answer, &SendError>, now: Timestamp) -> Result<Granted, Verdict> {
        let failed = |outcome, reason: String, retry_after| {
            let reason = format!("there is no access token: {reason}");
            Err(Verdict { outcome, reason, retry_after, remote_id: None })
        };
        let answer = match result {
            Ok(answer) => answer,
            // A token that got lost is no delivery that got lost.
            Err(error) => return failed(Outcome::Retry, error.reason(), None),
        };
        let status = answer.status;
        let after = retry_after(&answer.headers, now);
        let told: Option<Told> = serde_json::from_slice(&answer.body).ok();
        let words = told.as_ref().and_then(|told| {
            let error = told.error.as_deref()?;
            Some(match &told.error_description {
                Some(description) => format!("{error}: {description}"),
                None => error.to_owned(),
            })
        });
        let said = words.as_deref().and_then(quoted).map(|words| format!(": {words}")).unwrap_or_default();
        match status {
            200..=299 => match told {
                Some(Told { access_token: Some(text), refresh_token, expires_in, .. }) if is_token(&text) => {
                    let token = Token { text, renew_at: now.plus(self.life(expires_in.as_ref())) };
                    let refresh_token =
                        refresh_token.filter(|new| self.refresh_token.is_some() && is_refresh_token(new));
                    Ok(Granted { token, refresh_token })
                }
                // Some answer 200 to say that the grant is no good.
                _ if words.is_some() => failed(
                    Outcome::AuthFailed,
                    format!(
                        "the token endpoint refused the credentials{said}; check them, then resume the connection"
                    ),
                    None,
                ),
                _ => {
                    failed(Outcome::Retry, format!("the token endpoint answered {status} without one"), after)
                }
            },
            400 | 401 | 403 => failed(
                Outcome::AuthFailed,
                format!(
                    "the token endpoint answered {status}{said}: it refused the credentials; check them, then resume the connection"
                ),
                None,
            ),
            429 | 503 if after.is_some() => {
                failed(Outcome::Throttled, format!("the token endpoint answered {status}{said}"), after)
            }
            _ => failed(Outcome::Retry, format!("the token endpoint answered {status}{said}"), after),
        }
    }

    /// How long a token is used.
    fn life(&self, stated: Option<&serde_json::Value>) -> Duration {
        let secs = stated.and_then(|value| match value {
            serde_json::Value::Number(number) => number.as_u64(),
            serde_json::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        });
        let life = secs.map_or(self.lifetime, Duration::from_secs).min(LONGEST_LIFE);
        life.saturating_sub(AHEAD.min(life / 10))
    }
}

/// Within what a credential may be, so that it can be kept as one.
fn is_refresh_token(text: &Secret) -> bool {
    is_token(text) && text.reveal().len() <= MAX_VALUE_CHARS
}

fn is_token(text: &Secret) -> bool {
    !text.reveal().is_empty() && text.reveal().bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn client(grant: Grant, basic: bool) -> Client {
        Client {
            token_url: "https://login.example/token".parse().unwrap(),
            grant,
            scope: (grant == Grant::ClientCredentials).then(|| "crm write".to_owned()),
            basic,
            lifetime: Duration::from_mins(30),
            id: Secret::new("id 1"),
            secret: Secret::new("s3cret&"),
            refresh_token: (grant == Grant::RefreshToken).then(|| Secret::new("r3fresh")),
        }
    }

    #[test]
    fn a_token_is_asked_for_as_the_standard_says() {
        let request = client(Grant::ClientCredentials, false).request(Duration::from_secs(5), None);
        assert_eq!(request.method, Method::POST);
        assert_eq!(
            request.body,
            "grant_type=client_credentials&scope=crm+write&client_id=id+1&client_secret=s3cret%26"
        );
        let request = client(Grant::RefreshToken, true).request(Duration::from_secs(5), None);
        assert_eq!(request.body, "grant_type=refresh_token&refresh_token=r3fresh");
        assert_eq!(request.headers["authorization"], format!("Basic {}", STANDARD.encode("id+1:s3cret%26")));
        assert!(!format!("{:?}", client(Grant::RefreshToken, true)).contains('3'), "no secret is shown");
    }

    #[test]
    fn a_newer_refresh_token_stands_in_for_the_connections_own() {
        let newer = Secret::new("n3wer");
        let request = client(Grant::RefreshToken, true).request(Duration::from_secs(5), Some(&newer));
        assert_eq!(request.body, "grant_type=refresh_token&refresh_token=n3wer");
        let request = client(Grant::ClientCredentials, true).request(Duration::from_secs(5), Some(&newer));
        assert!(!request.body.windows(5).any(|part| part == b"n3wer"));
    }

    #[test]
    fn the_answer_gives_a_token_or_says_what_follows() {
        let read = |status, headers: &[(&'static str, &'static str)], body: &'static str| {
            let answer = Answer {
                status,
                headers: headers
                    .iter()
                    .map(|(name, value)| {
                        (::http::HeaderName::from_static(name), HeaderValue::from_static(value))
                    })
                    .collect(),
                body: Bytes::from_static(body.as_bytes()),
                truncated: false,
                body_complete: true,
                elapsed: Duration::ZERO,
            };
            client(Grant::RefreshToken, false).read(Ok(&answer), NOW)
        };
        for (body, life) in [
            (r#"{"access_token": "abc", "expires_in": 3600, "token_type": "bearer"}"#, 3_540),
            (r#"{"access_token": "abc", "expires_in": "100"}"#, 90),
            (r#"{"access_token": "abc"}"#, 1_740),
            (r#"{"access_token": "abc", "expires_in": 99999999}"#, 86_340),
        ] {
            let token = read(200, &[], body).unwrap().token;
            assert_eq!(
                (token.text.reveal(), token.renew_at),
                ("abc", NOW.plus(Duration::from_secs(life))),
                "{body}"
            );
        }
        for (status, headers, body, outcome) in [
            (200, &[][..], r#"{"error": "invalid_code"}"#, Outcome::AuthFailed),
            (200, &[], "<html>", Outcome::Retry),
            (200, &[], r#"{"access_token": "a b"}"#, Outcome::Retry),
            (400, &[], r#"{"error": "invalid_grant", "error_description": "expired"}"#, Outcome::AuthFailed),
            (401, &[], "", Outcome::AuthFailed),
            (429, &[("retry-after", "9")], "", Outcome::Throttled),
            (429, &[], "", Outcome::Retry),
            (500, &[], r#"{"error": "invalid_grant"}"#, Outcome::Retry),
        ] {
            let verdict = read(status, headers, body).unwrap_err();
            assert_eq!(verdict.outcome, outcome, "{status} {body}");
            assert!(verdict.reason.starts_with("there is no access token: "), "{}", verdict.reason);
        }
        let verdict =
            read(400, &[], r#"{"error": "invalid_grant", "error_description": "expired"}"#).unwrap_err();
        assert!(verdict.reason.contains("\"invalid_grant: expired\""), "{}", verdict.reason);
    }
}
