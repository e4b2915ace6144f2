//! The tables of keys: of each what it takes, whether it must be there, and what it says to whoever hovers over it.

use super::policy::POLICY;
use crate::mapping::Shape;
use crate::signature;
use crate::spec::{ConnectorKind, answer, auth, envelope, inbound, limit, read, request, subscription};

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Text,
    Boolean,
    Whole(i64, i64),
    Anything,
    /// One of these texts.
    Choice(fn() -> Vec<&'static str>),
    Texts,
    /// A table of free keys with texts.
    FreeTexts,
    /// One text or a list.
    TextOrTexts,
    /// Several of these texts.
    Choices(fn() -> Vec<&'static str>),
    /// A condition as in a mapping's `when`.
    Condition,
    Table(Keys),
    /// One table or a list.
    TableOrTables(Keys),
    Tables(Keys),
    /// Mapping rows.
    Rows,
    /// Statuses or codes, one or a list.
    Statuses,
    /// A list of whole numbers.
    Numbers,
    /// Tests of an answer, one or a list.
    Tests(Keys),
    /// Places of an answer, one or a list.
    Spots,
}

/// A key, what it takes, whether it must be there, and what it says.
pub(super) type KeySpec = (&'static str, Takes, bool, &'static str);
pub(super) type Keys = &'static [KeySpec];

pub(super) fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

const DAY: i64 = 86_400;
pub(super) const WEEK: i64 = 7 * DAY;

pub(super) const ROOT: Keys = &[
    ("version", Takes::Whole(1, 1), true, "The format's version."),
    ("id", Takes::Text, true, "The file's name without \".toml\"."),
    ("name", Takes::Text, true, "What a person calls it."),
    ("description", Takes::Text, true, "What it is for, in a sentence or two."),
    ("docs", Takes::Text, false, "Where the system's own documentation is."),
    (
        "mapping",
        Takes::Text,
        false,
        "The mapping that is used where a connection names none. Without it the file only receives.",
    ),
    (
        "secret",
        Takes::Choice(|| names(read::SECRET_USES)),
        false,
        "Whether a connection has a signing secret.",
    ),
    ("events", Takes::Tables(EVENT), false, "The event types that the system names; any where left out."),
    ("options", Takes::Tables(OPTION), false, "What it asks of each connection."),
    (
        "auth",
        Takes::Tables(AUTH),
        false,
        "Ways to be let in, of which a connection uses the first that it has all credentials for.",
    ),
    (
        "target",
        Takes::Tables(TARGET),
        false,
        "The fields that the system knows, checked before anything is sent.",
    ),
    ("request", Takes::Table(REQUEST), false, "What is sent."),
    ("steps", Takes::Tables(STEP), false, "Requests that go first, whose answers feed those that follow."),
    ("envelope", Takes::Table(ENVELOPE), false, "What stands around the mapped fields or beside them."),
    ("signature", Takes::Table(SIGNATURE), false, "How requests are signed."),
    ("kind", Takes::Choice(|| names(ConnectorKind::ALL)), false, "How the system is spoken to."),
    ("policy", Takes::Table(POLICY), false, "Time limit, retries and concurrency."),
    ("answer", Takes::Tables(ANSWER), false, "What answers mean: the first rule that matches wins."),
    ("extract", Takes::Table(EXTRACT), false, "What else an answer tells."),
    ("limits", Takes::Tables(LIMIT), false, "How many requests the system takes, the widest limit first."),
    (
        "subscription",
        Takes::Table(SUBSCRIPTION),
        false,
        "What holds for those who subscribe by themselves; without it people alone make connections.",
    ),
    ("in", Takes::Table(INBOUND), false, "What it receives."),
];
pub(super) const INBOUND: Keys = &[
    ("mapping", Takes::Text, true, "The mapping that makes an event of a request."),
    ("secret", Takes::Choice(|| names(read::SECRET_USES)), false, "Whether a source has a secret."),
    (
        "secret_maker",
        Takes::Choice(|| names(inbound::SECRET_MAKERS)),
        false,
        "Who makes the secret: the gateway where none is given, or the sender, so that it must be given.",
    ),
    (
        "signature",
        Takes::TableOrTables(SIGNATURE),
        false,
        "How requests are verified, where it differs from [signature]; several are alternatives.",
    ),
    (
        "body",
        Takes::Choices(|| names(inbound::BODY_FORMS)),
        false,
        "The forms of body that are taken; JSON where left out.",
    ),
    ("json_field", Takes::Text, false, "A form's field that holds the body as JSON, where it is there."),
    (
        "delivery_id",
        Takes::TextOrTexts,
        false,
        "What names a delivery: a path, a list of paths, or \"body\"; what was signed where left out.",
    ),
    ("ignore", Takes::Condition, false, "What meets it is acknowledged and makes no event."),
    ("options", Takes::Tables(OPTION), false, "What it asks of each source."),
    ("handshake", Takes::Tables(HANDSHAKE), false, "Requests that only ask who we are."),
    ("each", Takes::Tables(EACH), false, "Lists of which each item makes an event, from the outside in."),
    ("accepted", Takes::Table(REPLY), false, "The answer when events were taken."),
    ("ignored", Takes::Table(REPLY), false, "The answer when there was nothing to take."),
];
pub(super) const HANDSHAKE: Keys = &[
    ("method", Takes::Choice(|| names(inbound::HANDSHAKE_METHODS)), true, "By which method it comes."),
    ("when", Takes::Condition, true, "What the request must meet."),
    ("token", Takes::Table(TOKEN), false, "The word by which the sender shows that it knows the source."),
    ("answer", Takes::Text, false, "The path to the text that is sent back."),
    ("content_type", Takes::Text, false, "What that text is; plain text where left out."),
    ("fields", Takes::Rows, false, "Rows that make a JSON answer."),
];
pub(super) const TOKEN: Keys = &[
    ("path", Takes::Text, true, "Where the word stands in the request."),
    ("option", Takes::Text, true, "The source's secret option that it must be."),
];
pub(super) const EACH: Keys = &[
    ("name", Takes::Text, true, "The item's key for later paths and the mapping."),
    ("path", Takes::Text, true, "Where the items are."),
];
pub(super) const REPLY: Keys = &[
    ("status", Takes::Whole(200, 299), false, "The HTTP status; 200 where left out."),
    ("body", Takes::Text, false, "The body; a short JSON summary where left out."),
    ("content_type", Takes::Text, false, "What the body is; plain text where left out."),
];
pub(super) const EVENT: Keys = &[
    ("type", Takes::Text, true, "The event's type, such as lead.captured."),
    ("description", Takes::Text, true, "When it happens."),
    ("sample", Takes::Text, false, "A file of connectors/samples/ without \".json\"."),
    ("alias", Takes::Text, false, "What the system calls it, where that is not the type."),
];
pub(super) const OPTION: Keys = &[
    ("name", Takes::Text, true, "Its name: lower-case letters, digits and underscores."),
    ("description", Takes::Text, true, "What it is, for people."),
    ("required", Takes::Boolean, false, "Whether a connection must give it."),
    ("default", Takes::Text, false, "What it is where a connection doesn't give it."),
    ("example", Takes::Text, false, "What it may look like."),
    ("secret", Takes::Boolean, false, "Whether it is kept like a credential."),
];
pub(super) const AUTH: Keys = &[
    ("kind", Takes::Choice(|| names(auth::KINDS)), true, "What is shown."),
    ("prefix", Takes::Text, false, "What stands before it in the header, such as \"Token \"."),
    ("header", Takes::Text, false, "The header of an API key."),
    ("query", Takes::Text, false, "The query parameter of an API key."),
    ("token_url", Takes::Text, false, "Where OAuth access tokens come from, over the options."),
    ("scope", Takes::Text, false, "What is asked of the token endpoint."),
    (
        "client_auth",
        Takes::Choice(|| names(auth::CLIENT_AUTHS)),
        false,
        "How the client shows itself to the token endpoint.",
    ),
    ("lifetime_secs", Takes::Whole(60, DAY), false, "How long a token is used where the answer doesn't say."),
];
pub(super) const TARGET: Keys = &[
    ("name", Takes::Text, true, "The field; dots nest."),
    (
        "type",
        Takes::Choice(|| names(Shape::NAMES).into_iter().chain(["any"]).collect()),
        false,
        "What it takes.",
    ),
    ("required", Takes::Boolean, false, "Whether nothing may be sent without it."),
    ("max_length", Takes::Whole(1, 10_000_000), false, "The most characters of a text, or items of a list."),
    ("description", Takes::Text, false, "What it is, for people."),
    ("example", Takes::Anything, false, "A value that it takes."),
];
const URL: KeySpec =
    ("url", Takes::Text, false, "Where to, over {url}, the connection's own target, and the options.");
const METHOD: KeySpec =
    ("method", Takes::Choice(|| names(request::METHODS)), false, "The HTTP method; POST where left out.");
const CONTENT_TYPE: KeySpec = (
    "content_type",
    Takes::Choice(|| names(request::CONTENT_TYPES)),
    false,
    "How the fields become bytes; json where left out.",
);
const QUERY: KeySpec = ("query", Takes::FreeTexts, false, "Query parameters over the options.");
const HEADERS: KeySpec =
    ("headers", Takes::FreeTexts, false, "Headers over {event_type}, {event_id}, {job_id} and the options.");
pub(super) const REQUEST: Keys = &[
    URL,
    METHOD,
    CONTENT_TYPE,
    QUERY,
    HEADERS,
    ("reserved_headers", Takes::Texts, false, "Further headers that a connection may not set."),
    ("reserved_fields", Takes::Texts, false, "Top-level fields that a mapping may not write."),
    (
        "max_bytes",
        Takes::Whole(request::BODY_BYTES.0, request::BODY_BYTES.1),
        false,
        "The most bytes of a body that the system takes; a longer one is not sent.",
    ),
];
pub(super) const STEP: Keys = &[
    ("name", Takes::Text, true, "Its name, for later rows: $.answers.<name>."),
    URL,
    METHOD,
    CONTENT_TYPE,
    QUERY,
    HEADERS,
    ("fields", Takes::Rows, true, "The rows that make its fields."),
    ("take", Takes::FreeTexts, false, "What later rows read of its answer: name and JSONPath."),
];
pub(super) const ENVELOPE: Keys = &[
    (
        "mapped",
        Takes::Choice(|| names(envelope::MAPPED)),
        false,
        "Whether the mapped fields stand beside the rows' or where rows put $.fields.",
    ),
    ("fields", Takes::Rows, true, "The rows."),
];
pub(super) const SIGNATURE: Keys = &[
    ("algorithm", Takes::Choice(|| signature::choices("algorithm")), true, "How requests are signed."),
    ("key", Takes::Choice(|| signature::choices("key")), false, "How the secret becomes the key."),
    (
        "content",
        Takes::Text,
        false,
        "What is signed, over {id}, {timestamp}, {timestamp_ms}, {body}, {url}, {method}.",
    ),
    ("encoding", Takes::Choice(|| signature::choices("encoding")), false, "How the digest is written."),
    ("format", Takes::Text, false, "One signature, over {digest}."),
    ("ed25519_format", Takes::Text, false, "One signature by an ed25519 key, over {digest}."),
    ("join", Takes::Text, false, "What stands between several signatures."),
    ("tolerance_secs", Takes::Whole(1, DAY), false, "How old a received message may be."),
    (
        "headers",
        Takes::FreeTexts,
        false,
        "Headers over {signature}, {secret}, {id}, {timestamp}, {timestamp_ms}, {event_type}.",
    ),
    ("fields", Takes::FreeTexts, false, "Receiving only: body fields that carry the signature."),
];
pub(super) const ANSWER: Keys = &[
    ("status", Takes::Statuses, true, "HTTP statuses: 410, \"4xx\", \"400-499\", or a list."),
    ("retry_after", Takes::Boolean, false, "Whether it has a usable Retry-After."),
    ("header", Takes::Tests(HEADER_TEST), false, "What a header must be."),
    ("body", Takes::Tests(BODY_TEST), false, "What a field of the body must be."),
    ("json", Takes::Boolean, false, "Whether the body is JSON."),
    ("empty", Takes::Boolean, false, "Whether the body is empty."),
    ("text", Takes::Text, false, "A pattern that the raw body matches."),
    ("outcome", Takes::Choice(|| names(answer::OUTCOMES)), true, "What it comes to."),
    ("say", Takes::Text, false, "Why, for the delivery log."),
    (
        "wait_secs",
        Takes::Whole(1, DAY),
        false,
        "How long a throttled lane waits where the answer doesn't say.",
    ),
];
const EQ: KeySpec = ("eq", Takes::Anything, false, "It is this.");
const IN: KeySpec = ("in", Takes::Anything, false, "It is one of these.");
const EXISTS: KeySpec = ("exists", Takes::Boolean, false, "It is there and not null, or it is not.");
const CODE: KeySpec = ("code", Takes::Statuses, false, "It is this code, as a number or a text.");
const MATCHES: KeySpec = ("matches", Takes::Text, false, "It matches this pattern.");
pub(super) const HEADER_TEST: Keys =
    &[("name", Takes::Text, true, "The header."), EQ, IN, EXISTS, CODE, MATCHES];
pub(super) const BODY_TEST: Keys =
    &[("path", Takes::Text, true, "A JSONPath into the body."), EQ, IN, EXISTS, CODE, MATCHES];
pub(super) const EXTRACT: Keys = &[
    ("message", Takes::Spots, false, "The other side's own words, for the delivery log."),
    ("id", Takes::Spots, false, "The id that the other side gave."),
    ("retry_after", Takes::Spots, false, "Seconds to wait, of a throttled answer without Retry-After."),
];
pub(super) const SPOT: Keys = &[
    ("path", Takes::Text, false, "A JSONPath into the body."),
    ("header", Takes::Text, false, "A header."),
    ("text", Takes::Boolean, false, "The whole body."),
    ("pattern", Takes::Text, false, "Takes its first group, or all that it matches."),
];

pub(super) const LIMIT: Keys = &[
    ("per", Takes::Text, true, "What requests share the limit, over {host} and {segment_1} to {segment_9}."),
    (
        "requests",
        Takes::Whole(limit::REQUESTS.0, limit::REQUESTS.1),
        true,
        "At most so many requests in any span of so many secs.",
    ),
    ("secs", Takes::Whole(limit::SECS.0, limit::SECS.1), true, "The span in seconds."),
];
pub(super) const SUBSCRIPTION: Keys = &[
    (
        "again",
        Takes::Choice(|| names(subscription::AGAINS)),
        true,
        "Whether a second subscription of one event for one URL is another hook or the same one.",
    ),
    (
        "farewell",
        Takes::Choice(|| names(subscription::FAREWELLS)),
        false,
        "The method that tells the URL when the gateway ends a subscription.",
    ),
];
