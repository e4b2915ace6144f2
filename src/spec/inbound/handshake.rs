//! `[[in.handshake]]`: a request that only asks whether we are who we should be, answered with a part of itself.

use http::{HeaderValue, Method};

use super::{MOST, path_of, reply};
use crate::domain::document::TableReader;
use crate::mapping::{Condition, Mapping};
use crate::spec::option::OptionSpec;
use crate::spec::rows::{self, BodyPath};

pub(in crate::spec) const METHODS: &[(&str, &Method)] = &[("GET", &Method::GET), ("POST", &Method::POST)];

/// A rule for a handshake. One by POST must be signed like any delivery; one by GET can't be, and shows a `token`.
///
/// | key | what it says | when left out |
/// |---|---|---|
/// | `method` | `GET` or `POST` | a fault |
/// | `when` | what the request must meet | a fault |
/// | `token` | `{ path, option }`: what is at the path must be the source's secret option | nothing is asked |
/// | `answer` | the path to the text that is sent back | `fields` |
/// | `content_type` | what that text is | plain text |
/// | `fields` | rows that make a JSON answer | `answer` |
#[derive(Debug, PartialEq)]
pub struct Handshake {
    /// By which method it comes.
    pub method: Method,
    /// What the request must meet.
    pub when: Condition,
    /// The word by which the sender shows that it knows the source.
    pub token: Option<Token>,
    /// What is sent back.
    pub answer: HandshakeAnswer,
}

/// A word that the sender shows.
#[derive(Debug, PartialEq)]
pub struct Token {
    /// Where it stands.
    pub path: BodyPath,
    /// The source's secret option that it must be.
    pub option: String,
}

/// What a handshake is answered with.
#[derive(Debug, PartialEq)]
pub enum HandshakeAnswer {
    /// What is at a path, as text.
    Text(BodyPath, HeaderValue),
    /// What the rows make, as JSON.
    Json(Mapping),
}

/// Reads `[[in.handshake]]`.
pub(super) fn parse(table: &mut TableReader<'_>, options: &[OptionSpec]) -> Vec<Handshake> {
    let nodes = table.list("handshake").unwrap_or_default();
    let path = table.path("handshake");
    if nodes.len() > MOST {
        table.fault("handshake", format!("more than {MOST}"), None);
    }
    let mut found = Vec::new();
    for (index, node) in nodes.iter().take(MOST).enumerate() {
        let table = node.table(&format!("{path}[{index}]"), table.faults());
        found.extend(table.and_then(|table| parse_one(table, options)));
    }
    found
}

fn parse_one(mut table: TableReader<'_>, options: &[OptionSpec]) -> Option<Handshake> {
    table.need("method");
    let method = table.choice("method", METHODS).cloned();
    table.need("when");
    let field = table.path("when");
    let when = table.node("when").and_then(|node| Condition::parse(node, &field, table.faults()));
    let has_token = table.has("token");
    let token = table.table("token").and_then(|table| parse_token(table, options));
    let (text, rows) = (table.has("answer"), table.has("fields"));
    if text == rows {
        let hint = "\"answer\" is a path, \"fields\" are rows of a JSON answer".to_owned();
        table.fault("answer", "exactly one of \"answer\" and \"fields\" is needed", Some(hint));
    }
    if rows && table.has("content_type") {
        table.fault("content_type", "rows make JSON", Some("leave it out".to_owned()));
    }
    let content_type = reply::content_type(&mut table);
    let field = table.path("answer");
    let answer = match table.node("answer") {
        Some(node) => {
            path_of(node, &field, table.faults()).map(|path| HandshakeAnswer::Text(path, content_type))
        }
        None => rows::parse(&mut table, "fields").map(HandshakeAnswer::Json),
    };
    table.finish();
    if has_token && token.is_none() {
        return None;
    }
    Some(Handshake { method: method?, when: when?, token, answer: answer? })
}

fn parse_token(mut table: TableReader<'_>, options: &[OptionSpec]) -> Option<Token> {
    table.need("path");
    let field = table.path("path");
    let path = table.node("path").and_then(|node| path_of(node, &field, table.faults()));
    let option = table.need_text("option").unwrap_or_default().to_owned();
    if table.has("option") && !options.iter().any(|known| known.name == option && known.secret) {
        let hint = "add it to [[in.options]] with secret = true".to_owned();
        table.fault("option", format!("there is no secret option \"{option}\""), Some(hint));
    }
    table.finish();
    Some(Token { path: path?, option })
}
