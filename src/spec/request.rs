//! What goes over the wire: `[request]`, and the same for each of `[[steps]]`.

use std::collections::BTreeMap;

use http::{HeaderName, Method};
use url::Url;

use super::auth::AuthSpec;
use super::header::{HeaderTemplate, reserved_by_http};
use super::option::OptionSpec;
use super::template::{Known, Mistake, TARGET, Template};
use crate::domain::document::{Kind, TableReader};
use crate::domain::fault::Fault;
use crate::signature::SignatureSpec;

const MAX_HEADERS: usize = 32;
const MAX_PARAMETERS: usize = 32;
const MAX_URL_CHARS: usize = 2_000;
pub(super) const BODY_BYTES: (i64, i64) = (1, 1_000_000_000);

pub(super) const METHODS: &[(&str, &Method)] =
    &[("POST", &Method::POST), ("PUT", &Method::PUT), ("PATCH", &Method::PATCH), ("GET", &Method::GET)];
pub(super) const CONTENT_TYPES: &[(&str, ContentType)] =
    &[("json", ContentType::Json), ("form", ContentType::Form), ("query", ContentType::Query)];

/// What a connector's requests look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestSpec {
    /// What is sent.
    pub call: CallSpec,
    /// Headers that a connection may not set: the fixed ones, the signature's, the credentials' and those stated. What
    /// HTTP itself reserves is not listed, see [`super::header::reserved_by_http`].
    pub reserved_headers: Vec<HeaderName>,
    /// Top-level fields that a mapping may not write: those stated and those of an envelope beside them.
    pub reserved_fields: Vec<String>,
    /// The most bytes of a body that the system takes.
    pub max_bytes: Option<usize>,
}

/// One request, but for its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    /// `POST`, `PUT`, `PATCH`; `GET` where the fields go into the query.
    pub method: Method,
    /// Where to, over the connector's options and `{url}`, the connection's own target.
    pub url: Template,
    /// Parameters of the query, beside those of the URL.
    pub query: Vec<(String, Template)>,
    /// How the fields become bytes.
    pub content_type: ContentType,
    /// Headers that every request has.
    pub headers: Vec<(HeaderName, HeaderTemplate)>,
}

/// How the fields become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// In the URL's query; no body.
    Query,
}

impl ContentType {
    /// The header's value; none where there is no body.
    pub fn header_value(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("application/json"),
            Self::Form => Some("application/x-www-form-urlencoded"),
            Self::Query => None,
        }
    }
}

impl Default for CallSpec {
    fn default() -> Self {
        let known = Known { names: false, target: true, options: &[], secrets: false };
        Self {
            method: Method::POST,
            url: Template::parse("{url}", known).unwrap_or_else(|_| Template::empty()),
            query: Vec::new(),
            content_type: ContentType::Json,
            headers: Vec::new(),
        }
    }
}

impl RequestSpec {
    pub(super) fn reserve(&mut self, names: impl Iterator<Item = HeaderName>) {
        for name in names {
            if !self.reserved_headers.contains(&name) {
                self.reserved_headers.push(name);
            }
        }
    }
}

impl CallSpec {
    /// Whether it goes where the connection's own target is.
    pub fn needs_target(&self) -> bool {
        self.url.shows(TARGET)
    }

    /// The URL for a connection, its query included. The error says what is wrong, without the values of secrets.
    pub fn resolve(
        &self,
        target: &str,
        options: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Url, String> {
        let mut url = resolve_url(&self.url, target, options)?;
        if !self.query.is_empty() {
            let mut values = options.clone();
            values.extend(secrets.iter().map(|(name, value)| (name.clone(), value.clone())));
            let plain = |value: &str, _| value.to_owned();
            for (name, template) in &self.query {
                // A parameter whose option is left out is left out.
                let Ok(bound) = template.bind(&values, plain) else { continue };
                url.query_pairs_mut().append_pair(name, bound.fixed().unwrap_or_default());
            }
        }
        Ok(url)
    }
}

/// A URL with the options in their places.
pub(crate) fn resolve_url(
    template: &Template,
    target: &str,
    options: &BTreeMap<String, String>,
) -> Result<Url, String> {
    let mut values = options.clone();
    values.insert(TARGET.to_owned(), target.to_owned());
    let bound = template
        .bind(
            &values,
            |value, first| if first { value.trim_end_matches('/').to_owned() } else { encode(value) },
        )
        .map_err(|name| format!("the option \"{name}\" has no value"))?;
    // A target that is the whole URL is taken as it is, its last slash included.
    let text = match bound.fixed() {
        _ if template.is_only(TARGET) => target,
        Some(text) => text,
        None => return Err("the URL is not complete".to_owned()),
    };
    Url::parse(text).map_err(|error| format!("the URL can't be read: {error}"))
}

/// RFC 3986's unreserved characters as they are, every other byte in percent form.
fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// What a request is written beside.
pub(super) struct Surroundings<'a> {
    pub(super) options: &'a [OptionSpec],
    pub(super) auth: &'a [AuthSpec],
    pub(super) signature: Option<&'a SignatureSpec>,
}

/// Reads `[request]`.
pub(super) fn parse(mut table: TableReader<'_>, around: &Surroundings<'_>) -> RequestSpec {
    let mut request = RequestSpec { call: parse_call(&mut table, around), ..RequestSpec::default() };
    let stated = table.texts("reserved_headers").unwrap_or_default();
    for (index, text) in stated.into_iter().enumerate() {
        if let Ok(name) = text.parse() {
            request.reserve(std::iter::once(name));
        } else {
            let hint = format!("item {index} is \"{text}\"; a name is letters, digits and hyphens");
            table.fault("reserved_headers", "no header name", Some(hint));
        }
    }
    let fields = table.texts("reserved_fields").unwrap_or_default();
    if let Some(bad) = fields.iter().find(|field| field.is_empty() || field.contains('.')) {
        let hint = "name whole top-level fields".to_owned();
        table.fault("reserved_fields", format!("\"{bad}\" is no top-level field"), Some(hint));
    }
    request.reserved_fields = fields.into_iter().map(str::to_owned).collect();
    request.max_bytes = table
        .integer_within("max_bytes", BODY_BYTES.0, BODY_BYTES.1)
        .and_then(|bytes| usize::try_from(bytes).ok());
    let fixed: Vec<HeaderName> = request.call.headers.iter().map(|(name, _)| name.clone()).collect();
    request.reserve(fixed.into_iter());
    table.finish();
    request
}

/// Reads the keys that every request has.
pub(super) fn parse_call(table: &mut TableReader<'_>, around: &Surroundings<'_>) -> CallSpec {
    let mut call = CallSpec::default();
    if let Some(method) = table.choice("method", METHODS) {
        call.method = method.clone();
    }
    if let Some(content_type) = table.choice("content_type", CONTENT_TYPES) {
        call.content_type = content_type;
    }
    if call.method == Method::GET && call.content_type != ContentType::Query {
        let hint = "write content_type = \"query\", or another method".to_owned();
        table.fault("method", "a GET carries no body", Some(hint));
    }
    if let Some(source) = table.text("url") {
        let known = Known { names: false, target: true, options: around.options, secrets: false };
        match parse_url(source, known) {
            Ok(url) => call.url = url,
            Err(mistake) => table.fault("url", mistake.message, mistake.hint),
        }
    }
    call.query = parse_query(table, around);
    call.headers = parse_headers(table, around);
    call
}

/// Reads a URL's text: `{url}` or an option that is a URL at its start, or a URL whose options stand further on.
pub(super) fn parse_url(source: &str, known: Known<'_>) -> Result<Template, Mistake> {
    let template = Template::parse(source, known)?;
    let mistake =
        |message: &str, hint: &str| Err(Mistake { message: message.to_owned(), hint: Some(hint.to_owned()) });
    if source.chars().count() > MAX_URL_CHARS {
        return mistake("is too long", "2000 characters are the most");
    }
    // A host name stands for every option, whatever its place; at the start it is a whole URL.
    let stand_in = |_: &str, first: bool| if first { "https://a.example".to_owned() } else { "a".to_owned() };
    let words: BTreeMap<String, String> =
        template.options().map(|name| (name.to_owned(), String::new())).collect();
    let shown = template.bind(&words, stand_in).ok().and_then(|bound| bound.fixed().map(str::to_owned));
    match shown.map(|text| Url::parse(&text)) {
        Some(Ok(url))
            if matches!(url.scheme(), "https" | "http") && url.has_host() && url.fragment().is_none() =>
        {
            Ok(template)
        }
        _ => mistake("is no URL", "such as \"{url}\" or \"https://{domain}.example.com/api/leads\""),
    }
}

fn parse_query(table: &mut TableReader<'_>, around: &Surroundings<'_>) -> Vec<(String, Template)> {
    let known = Known { names: false, target: false, options: around.options, secrets: true };
    let mut found = Vec::new();
    for (name, source, node, field) in texts(table, "query", MAX_PARAMETERS) {
        match Template::parse(source, known) {
            Ok(template) => found.push((name.name.clone(), template)),
            Err(mistake) => table.faults().push(node.fault(&field, mistake.message, mistake.hint)),
        }
    }
    found
}

fn parse_headers(
    table: &mut TableReader<'_>,
    around: &Surroundings<'_>,
) -> Vec<(HeaderName, HeaderTemplate)> {
    let known = Known { names: true, target: false, options: around.options, secrets: true };
    let mut found: Vec<(HeaderName, HeaderTemplate)> = Vec::new();
    for (key, source, node, field) in texts(table, "headers", MAX_HEADERS) {
        let name = match fixed_name(&key.name, around) {
            Ok(name) if found.iter().any(|(other, _)| *other == name) => Err("is listed twice".to_owned()),
            other => other,
        };
        match name.map(|name| (name, HeaderTemplate::parse(source, known))) {
            Ok((name, Ok(template))) => found.push((name, template)),
            Ok((_, Err(mistake))) => table.faults().push(node.fault(&field, mistake.message, mistake.hint)),
            Err(message) => {
                table.faults().push(Fault { place: key.mark.place(&field), message, hint: None });
            }
        }
    }
    found
}

type Entry<'a> = (&'a crate::domain::document::Key, &'a str, &'a crate::domain::document::Node, String);

/// The texts of a table whose keys are free; what is no text is a fault.
fn texts<'a>(table: &mut TableReader<'a>, key: &'static str, most: usize) -> Vec<Entry<'a>> {
    let Some(node) = table.node(key) else { return Vec::new() };
    let path = table.path(key);
    let Kind::Table(entries) = &node.kind else {
        table.fault(key, format!("expected a table, found {}", node.kind.name()), None);
        return Vec::new();
    };
    if entries.len() > most {
        table.fault(key, format!("more than {most}"), None);
    }
    let mut found = Vec::with_capacity(entries.len().min(most));
    for (name, node) in entries.iter().take(most) {
        let field = format!("{path}.{}", name.name);
        match &node.kind {
            Kind::Text(source) => found.push((name, source.as_str(), node, field)),
            other => {
                table.faults().push(node.fault(
                    &field,
                    format!("expected a text, found {}", other.name()),
                    None,
                ));
            }
        }
    }
    found
}

fn fixed_name(text: &str, around: &Surroundings<'_>) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("\"{text}\" is no header name"))?;
    if let Some(why) = reserved_by_http(&name) {
        return Err(format!("can't be set here: {why}"));
    }
    if around.signature.is_some_and(|signature| signature.header_names().any(|taken| taken == name.as_str()))
    {
        return Err("is written by [signature] already".to_owned());
    }
    if around.auth.iter().any(|way| way.header() == Some(&name)) {
        return Err("is written by [[auth]] already".to_owned());
    }
    Ok(name)
}
