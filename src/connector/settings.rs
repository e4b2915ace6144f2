//! A connection's options and credentials, checked against its connector, and what follows from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use url::Url;

use super::google_sheets::{GoogleSettings, KEY, Sheet};
use super::mask::Mask;
use super::oauth::Client;
use crate::domain::fault::{Fault, Faults, did_you_mean, key_in_field};
use crate::domain::secret::Secret;
use crate::spec::request::resolve_url;
use crate::spec::{AuthKind, AuthPlace, AuthSpec, ConnectorSpec, InboundSpec, OptionSpec};

pub(super) const MAX_VALUE_CHARS: usize = 4_096;

/// What a connection says of itself, in clear.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Its own target; empty where the file says where requests go.
    pub url: &'a str,
    /// Options that are no secret, by name.
    pub options: &'a BTreeMap<String, String>,
    /// Credentials and secret options, by name.
    pub credentials: &'a BTreeMap<String, Secret>,
}

/// Checked settings.
#[derive(Debug)]
pub struct Settings {
    /// Where the last request goes: what [`AddressPolicy`](crate::egress::AddressPolicy) is to judge, and what a person is
    /// shown. Without the query that the file adds.
    pub url: Url,
    /// Every URL that requests go to, the token endpoint's too, each with the field that it comes from.
    pub urls: Vec<(&'static str, Url)>,
    /// Options that are no secret, with those that the file has for what was left out.
    pub options: BTreeMap<String, String>,
    /// Every secret in it, to be hidden in answers.
    pub(super) mask: Mask,
    /// Secret options.
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) auth: Option<Auth>,
}

/// How a connection shows who it is.
#[derive(Debug)]
pub(super) enum Auth {
    Header(HeaderName, HeaderValue),
    Query(String, Secret),
    Token { name: HeaderName, prefix: String, client: Box<Client> },
}

/// Checks what a connection says against its connector. All faults are told at once, at `options.<name>`,
/// `credentials.<name>` and `target.url`; none shows a credential.
pub fn check_settings(spec: &ConnectorSpec, given: &Given<'_>) -> Result<Settings, Faults> {
    let mut faults = Faults::default();
    check_names(&spec.credential_names(), &spec.options, given, &mut faults);
    let (options, secrets) = fill(&spec.options, given, &mut faults);
    let auth = chosen_way(spec, given, &mut faults).map(|way| compile_way(way, given, &options, &mut faults));
    let mut urls = check_urls(spec, given, &options, &mut faults);
    faults.into_result(())?;
    let auth = auth.flatten();
    let Some(url) = urls.last().map(|(_, url)| url.clone()) else { return Err(Faults::default()) };
    if let Some(Auth::Token { client, .. }) = &auth {
        urls.push(("options", client.token_url().clone()));
    }
    let mut mask = Mask::default();
    for credential in given.credentials.values() {
        mask.add(credential.reveal());
    }
    if let Some(Auth::Header(_, value)) = &auth {
        let text = value.to_str().unwrap_or_default();
        mask.add(text);
        mask.add(text.split(' ').next_back().unwrap_or_default());
    }
    Ok(Settings { url, urls, options, mask, secrets, auth })
}

/// Checks what a connection says of a Google sheet, all faults at once. None shows a credential.
pub fn check_sheet(
    spec: &Arc<ConnectorSpec>,
    given: &Given<'_>,
    google: &GoogleSettings,
    timeout: Duration,
) -> Result<Sheet, Faults> {
    let mut faults = Faults::default();
    check_names(&spec.credential_names(), &spec.options, given, &mut faults);
    if !given.url.is_empty() {
        let hint = "leave it out; the option \"spreadsheet\" says which sheet".to_owned();
        faults.at_field("target.url", "has no meaning for a Google sheet", Some(hint));
    }
    match Sheet::compile(Arc::clone(spec), given, google, timeout) {
        Ok(sheet) => faults.into_result(sheet),
        Err(found) => {
            faults.extend(found);
            Err(faults)
        }
    }
}

/// Options by name, those with defaults included, and secret options by name.
pub type Filled = (BTreeMap<String, String>, BTreeMap<String, String>);

/// Checks what a source says against what its connector asks of sources. All faults are told at once, at `options.<name>` and
/// `credentials.<name>`; none shows a credential.
pub fn check_source_settings(spec: &InboundSpec, given: &Given<'_>) -> Result<Filled, Faults> {
    let asked = spec.options.as_slice();
    let mut faults = Faults::default();
    let secret = asked.iter().filter(|option| option.secret);
    let names: Vec<&str> = secret.map(|option| option.name.as_str()).collect();
    check_names(&names, asked, given, &mut faults);
    let filled = fill(asked, given, &mut faults);
    faults.into_result(filled)
}

/// What is given, with the defaults for what is not.
fn fill(asked: &[OptionSpec], given: &Given<'_>, faults: &mut Faults) -> Filled {
    let mut options = given.options.clone();
    let mut secrets = BTreeMap::new();
    for option in asked {
        let name = &option.name;
        if option.secret {
            if let Some(value) = given.credentials.get(name) {
                secrets.insert(name.clone(), value.reveal().to_owned());
                continue;
            }
        } else if options.contains_key(name) {
            continue;
        }
        if let Some(default) = &option.default {
            options.insert(name.clone(), default.clone());
        } else if option.required {
            let field = if option.secret { format!("credentials.{name}") } else { format!("options.{name}") };
            let example = option.example.as_ref().map(|example| format!(" Such as \"{example}\"."));
            let hint = format!("{}{}", option.description, example.unwrap_or_default());
            faults.at_field(field, "missing", Some(hint));
        }
    }
    (options, secrets)
}

fn check_names(names: &[&str], asked: &[OptionSpec], given: &Given<'_>, faults: &mut Faults) {
    let plain = || asked.iter().filter(|option| !option.secret).map(|option| option.name.as_str());
    for (name, value) in given.options {
        let field = field("options", name);
        if names.contains(&name.as_str()) {
            faults.at_field(field, "is a secret", Some("put it under \"credentials\"".to_owned()));
        } else if !plain().any(|known| known == name) {
            faults.at_field(field, "is no option of this connector", known_hint(name, plain()));
        } else {
            check_value(field, value, faults);
        }
    }
    for (name, value) in given.credentials {
        let field = field("credentials", name);
        if names.contains(&name.as_str()) && name == KEY {
            // A whole file, with its line breaks; it is checked as what it is.
        } else if names.contains(&name.as_str()) {
            check_value(field, value.reveal(), faults);
        } else if plain().any(|known| known == name) {
            faults.at_field(field, "is no secret", Some("put it under \"options\"".to_owned()));
        } else {
            faults.at_field(
                field,
                "is no credential of this connector",
                known_hint(name, names.iter().copied()),
            );
        }
    }
}

fn field(of: &str, name: &str) -> String {
    let shown: String = name.chars().take(64).collect();
    format!("{of}.{}", key_in_field(&shown))
}

fn known_hint<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    did_you_mean(name, known.clone()).or_else(|| {
        let known: Vec<&str> = known.collect();
        Some(if known.is_empty() { "it has none".to_owned() } else { format!("known: {}", known.join(", ")) })
    })
}

fn check_value(field: String, value: &str, faults: &mut Faults) {
    if value.trim().is_empty() {
        faults.at_field(field, "is empty", Some("leave it out, or give it a value".to_owned()));
    } else if value.chars().count() > MAX_VALUE_CHARS {
        faults.at_field(field, format!("is longer than {MAX_VALUE_CHARS} characters"), None);
    } else if value.chars().any(char::is_control) {
        let hint = "delete it: often a line break at the end of what was copied";
        faults.at_field(field, "holds a control character", Some(hint.to_owned()));
    } else if value.trim() != value {
        faults.at_field(field, "begins or ends with a space", Some("delete it".to_owned()));
    }
}

/// The first way that all credentials are there for; none is needed where the file states none.
fn chosen_way<'s>(spec: &'s ConnectorSpec, given: &Given<'_>, faults: &mut Faults) -> Option<&'s AuthSpec> {
    let missing = |way: &&AuthSpec| {
        way.credentials().iter().filter(|name| !given.credentials.contains_key(**name)).count()
    };
    let way = spec.auth.iter().min_by_key(missing)?;
    if missing(&way) == 0 {
        return Some(way);
    }
    let some = way.credentials().iter().any(|name| given.credentials.contains_key(*name));
    if some {
        for name in way.credentials().iter().filter(|name| !given.credentials.contains_key(**name)) {
            let hint = format!("\"{}\" takes {}", way.name(), way.credentials().join(", "));
            faults.at_field(format!("credentials.{name}"), "missing", Some(hint));
        }
    } else {
        let ways: Vec<String> = spec.auth.iter().map(|way| way.credentials().join(" and ")).collect();
        let message = format!("the connector \"{}\" sends nothing without credentials", spec.id);
        faults.at_field("credentials", message, Some(format!("give {}", ways.join("; or "))));
    }
    None
}

fn compile_way(
    way: &AuthSpec,
    given: &Given<'_>,
    options: &BTreeMap<String, String>,
    faults: &mut Faults,
) -> Option<Auth> {
    let of = |name: &str| given.credentials.get(name).map_or("", Secret::reveal);
    let value = match &way.kind {
        AuthKind::Basic => {
            if of("user").contains(':') {
                let hint = "RFC 7617 ends the user at the first colon".to_owned();
                faults.at_field("credentials.user", "holds a colon", Some(hint));
            }
            STANDARD.encode(format!("{}:{}", of("user"), of("password")))
        }
        AuthKind::Bearer => of("token").to_owned(),
        AuthKind::ApiKey => of("api_key").to_owned(),
        AuthKind::OAuth(oauth) => {
            let AuthPlace::Header(name, prefix) = &way.place else { return None };
            // What is missing was told already.
            if oauth.token_url.options().any(|name| !options.contains_key(name)) {
                return None;
            }
            let token_url = match resolve_url(&oauth.token_url, "", options) {
                Ok(url) => url,
                Err(message) => {
                    faults.at_field("options", format!("the token's address: {message}"), None);
                    return None;
                }
            };
            let client = Client::new(oauth, token_url, given.credentials);
            return Some(Auth::Token {
                name: name.clone(),
                prefix: prefix.clone(),
                client: Box::new(client),
            });
        }
    };
    match &way.place {
        AuthPlace::Query(name) => Some(Auth::Query(name.clone(), Secret::new(value))),
        AuthPlace::Header(name, prefix) => match HeaderValue::try_from(format!("{prefix}{value}")) {
            Ok(mut header) if value.is_ascii() => {
                header.set_sensitive(true);
                Some(Auth::Header(name.clone(), header))
            }
            _ => {
                let field = format!("credentials.{}", way.credentials()[0]);
                faults.at_field(field, "holds a character that no header can", None);
                None
            }
        },
    }
}

fn check_urls(
    spec: &ConnectorSpec,
    given: &Given<'_>,
    options: &BTreeMap<String, String>,
    faults: &mut Faults,
) -> Vec<(&'static str, Url)> {
    let mut urls = Vec::new();
    if !spec.needs_target() && !given.url.is_empty() {
        let message = format!("the connector \"{}\" says itself where requests go", spec.id);
        faults.at_field("target.url", message, Some("leave it out".to_owned()));
        return urls;
    }
    for call in spec.steps.iter().map(|step| &step.call).chain([&spec.request.call]) {
        // What is missing was told already.
        if call.url.options().any(|name| name != "url" && !options.contains_key(name)) {
            return urls;
        }
        let field = if call.needs_target() { "target.url" } else { "options" };
        match resolve_url(&call.url, given.url, options) {
            Ok(resolved) => urls.push((field, resolved)),
            Err(message) => {
                let fault = Fault::at_field(field, message, None);
                if !faults.list().contains(&fault) {
                    faults.push(fault);
                }
            }
        }
    }
    urls
}
