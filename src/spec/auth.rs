//! How a connection shows who it is: `[[auth]]`, the ways that a system knows, the first that a connection has all
//! credentials for being taken.
//!
//! ```toml
//! [[auth]]
//! kind = "oauth2_client_credentials"
//! token_url = "{instance_url}/services/oauth2/token"
//! ```
//!
//! | kind | credentials | what is sent |
//! |---|---|---|
//! | `basic` | `user`, `password` | `Authorization: Basic …` (RFC 7617) |
//! | `bearer` | `token` | `Authorization: Bearer …` (RFC 6750), another `prefix` where one is stated |
//! | `api_key` | `api_key` | the `header` stated, with its `prefix`, or the `query` parameter |
//! | `oauth2_client_credentials` | `client_id`, `client_secret` | an access token (RFC 6749 §4.4), as for `bearer` |
//! | `oauth2_refresh_token` | `client_id`, `client_secret`, `refresh_token` | an access token (RFC 6749 §6), as for `bearer` |
//!
//! Access tokens come from `token_url`, a text over the connector's options. `client_auth` says how the client shows itself
//! there: in the `body` (the default) or by `basic`. `scope` is asked for where it is stated; `lifetime_secs` is how long a
//! token is used where the answer doesn't say.
//!
//! A file without `[[auth]]` needs no credentials; with it, a connection without them is refused.

use std::time::Duration;

use http::{HeaderName, header};

use super::header::{read_name, reserved_by_http};
use super::option::OptionSpec;
use super::template::{Known, Template};
use crate::domain::document::TableReader;

const MAX_WAYS: usize = 8;
const MAX_PREFIX_CHARS: usize = 64;
const LIFETIME_SECS: (i64, i64) = (60, 86_400);
/// How long a token is used whose lifetime nobody states.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(30);

/// One way to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSpec {
    /// What is sent.
    pub kind: AuthKind,
    /// Where it goes.
    pub place: AuthPlace,
}

/// What shows who a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthKind {
    /// User and password.
    Basic,
    /// A token that does not change.
    Bearer,
    /// A key that does not change.
    ApiKey,
    /// An access token, fetched and kept.
    OAuth(OAuthSpec),
}

/// Where it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthPlace {
    /// In this header, after the prefix.
    Header(HeaderName, String),
    /// In the query parameter of this name.
    Query(String),
}

/// Where access tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthSpec {
    /// Which grant is shown for one.
    pub grant: Grant,
    /// The token endpoint, over the connector's options.
    pub token_url: Template,
    /// What is asked for.
    pub scope: Option<String>,
    /// Whether the client shows itself by Basic, else in the body.
    pub basic_client: bool,
    /// How long a token is used where the answer doesn't say.
    pub lifetime: Duration,
}

/// An OAuth 2.0 grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 6749 §6.
    RefreshToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Basic,
    Bearer,
    ApiKey,
    OAuth(Grant),
}

pub(super) const KINDS: &[(&str, Word)] = &[
    ("basic", Word::Basic),
    ("bearer", Word::Bearer),
    ("api_key", Word::ApiKey),
    ("oauth2_client_credentials", Word::OAuth(Grant::ClientCredentials)),
    ("oauth2_refresh_token", Word::OAuth(Grant::RefreshToken)),
];
pub(super) const CLIENT_AUTHS: &[(&str, bool)] = &[("body", false), ("basic", true)];

impl AuthSpec {
    /// Its kind as a file writes it.
    pub fn name(&self) -> &'static str {
        let word = match &self.kind {
            AuthKind::Basic => Word::Basic,
            AuthKind::Bearer => Word::Bearer,
            AuthKind::ApiKey => Word::ApiKey,
            AuthKind::OAuth(oauth) => Word::OAuth(oauth.grant),
        };
        KINDS.iter().find(|(_, known)| *known == word).map_or("", |(name, _)| name)
    }

    /// The credentials that it needs, by name.
    pub fn credentials(&self) -> &'static [&'static str] {
        match &self.kind {
            AuthKind::Basic => &["user", "password"],
            AuthKind::Bearer => &["token"],
            AuthKind::ApiKey => &["api_key"],
            AuthKind::OAuth(OAuthSpec { grant: Grant::ClientCredentials, .. }) => {
                &["client_id", "client_secret"]
            }
            AuthKind::OAuth(OAuthSpec { grant: Grant::RefreshToken, .. }) => {
                &["client_id", "client_secret", "refresh_token"]
            }
        }
    }

    /// The header that it writes.
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.place {
            AuthPlace::Header(name, _) => Some(name),
            AuthPlace::Query(_) => None,
        }
    }
}

/// Reads `[[auth]]`.
pub(super) fn parse(root: &mut TableReader<'_>, options: &[OptionSpec]) -> Vec<AuthSpec> {
    let nodes = root.list("auth").unwrap_or_default();
    if nodes.len() > MAX_WAYS {
        root.fault("auth", format!("more than {MAX_WAYS} ways"), None);
    }
    let path = root.path("auth");
    let mut ways = Vec::new();
    for (index, node) in nodes.iter().take(MAX_WAYS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        ways.extend(parse_way(&mut table, options));
        table.finish();
    }
    ways
}

fn parse_way(table: &mut TableReader<'_>, options: &[OptionSpec]) -> Option<AuthSpec> {
    table.need("kind");
    let word = table.choice("kind", KINDS)?;
    let oauth = matches!(word, Word::OAuth(_));
    let prefixed = word != Word::Basic;
    for (key, fits) in [
        ("header", word == Word::ApiKey),
        ("query", word == Word::ApiKey),
        ("prefix", prefixed),
        ("token_url", oauth),
        ("scope", oauth),
        ("client_auth", oauth),
        ("lifetime_secs", oauth),
    ] {
        if table.has(key) && !fits {
            table.fault(key, "says nothing for this kind", Some(format!("leave out \"{key}\"")));
        }
    }
    let place = parse_place(table, word)?;
    let kind = match word {
        Word::Basic => AuthKind::Basic,
        Word::Bearer => AuthKind::Bearer,
        Word::ApiKey => AuthKind::ApiKey,
        Word::OAuth(grant) => AuthKind::OAuth(parse_oauth(table, grant, options)?),
    };
    Some(AuthSpec { kind, place })
}

fn parse_place(table: &mut TableReader<'_>, word: Word) -> Option<AuthPlace> {
    let prefix = table.text("prefix");
    let fits = |prefix: &str| {
        prefix.chars().count() <= MAX_PREFIX_CHARS
            && prefix.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    if prefix.is_some_and(|prefix| !fits(prefix)) {
        table.fault(
            "prefix",
            "no header can hold this",
            Some("use ASCII in one line, such as \"Token \"".to_owned()),
        );
    }
    let default = match word {
        Word::Basic => "Basic ",
        Word::ApiKey => "",
        Word::Bearer | Word::OAuth(_) => "Bearer ",
    };
    let prefix = prefix.unwrap_or(default).to_owned();
    if word != Word::ApiKey {
        return Some(AuthPlace::Header(header::AUTHORIZATION, prefix));
    }
    match (table.text("header"), table.text("query")) {
        (Some(_), Some(_)) => {
            table.fault(
                "query",
                "stands beside \"header\"",
                Some("keep the one that the system reads".to_owned()),
            );
            None
        }
        (None, None) => {
            let hint = "add header = \"X-Api-Key\", or query = \"api_key\"".to_owned();
            table.fault("header", "nothing says where the key goes", Some(hint));
            None
        }
        (Some(_), None) => {
            let name = read_name(table, "header")?;
            if let Some(why) = reserved_by_http(&name) {
                table.fault("header", format!("can't be set here: {why}"), None);
                return None;
            }
            Some(AuthPlace::Header(name, prefix))
        }
        (None, Some("")) => {
            table.fault("query", "is empty", None);
            None
        }
        (None, Some(name)) => Some(AuthPlace::Query(name.to_owned())),
    }
}

fn parse_oauth(table: &mut TableReader<'_>, grant: Grant, options: &[OptionSpec]) -> Option<OAuthSpec> {
    let token_url = table.need_text("token_url").and_then(|source| {
        let known = Known { names: false, target: false, options, secrets: false };
        super::request::parse_url(source, known)
            .map_err(|mistake| table.fault("token_url", mistake.message, mistake.hint))
            .ok()
    });
    let scope = table.text("scope").map(str::to_owned);
    let basic_client = table.choice("client_auth", CLIENT_AUTHS).unwrap_or(false);
    let lifetime = table
        .integer_within("lifetime_secs", LIFETIME_SECS.0, LIFETIME_SECS.1)
        .map_or(DEFAULT_LIFETIME, |secs| Duration::from_secs(secs.unsigned_abs()));
    Some(OAuthSpec { grant, token_url: token_url?, scope, basic_client, lifetime })
}
