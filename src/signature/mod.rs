//! Signs what is sent and verifies what is received, by a [`SignatureSpec`] that is data.
//!
//! Pure: no clock, no randomness, no network. The time of a message and of its check come in as values.
//!
//! # The `[signature]` table
//! ```toml
//! [signature]
//! algorithm = "hmac_sha256"
//! key = "whsec"
//! content = "{id}.{timestamp}.{body}"
//! encoding = "base64"
//! format = "v1,{digest}"
//! join = " "
//! tolerance_secs = 300
//! [signature.headers]
//! "webhook-id" = "{id}"
//! "webhook-timestamp" = "{timestamp}"
//! "webhook-signature" = "{signature}"
//! ```
//!
//! | key | what it says | when left out |
//! |---|---|---|
//! | `algorithm` | `none`; `shared_secret` (a header carries the secret itself); `bearer` (`Authorization: Bearer <secret>`); `hmac_sha1`, `hmac_sha256`, `hmac_sha512` | a fault |
//! | `key` | how the secret becomes the HMAC's key: `utf8` as it is; `whsec` is `whsec_` and base64 of 24 to 64 bytes; `base64`; `hex` | `utf8` |
//! | `content` | what the HMAC is taken of, over `{id}`, `{timestamp}` (seconds), `{timestamp_ms}`, `{body}`, `{url}`, `{method}` | `{body}` |
//! | `encoding` | how the digest is written: `hex` (lower case when sent, either when received), `base64` (padded when sent) | `hex` |
//! | `format` | one signature, over `{digest}` | `{digest}` |
//! | `ed25519_format` | one signature by an ed25519 key, over `{digest}`; such keys are `whsk_` and base64 of the seed, which the public key may follow, and for receiving also `whpk_` and base64 of the public key | no such keys |
//! | `join` | what stands between several signatures, and between the items of a header that lists them | one signature only, by the newest secret |
//! | `tolerance_secs` | how far a received timestamp may be from now, either way, 1 to 86400 | 300 |
//! | `headers` | header name -> value, in order, over `{signature}`, `{secret}`, `{id}`, `{timestamp}`, `{timestamp_ms}`, `{event_type}` | none |
//! | `fields` | receiving only: the same for systems that sign in the body; name -> value, where the name is a form field or a path of JSON keys (`signature.token`) | none |
//!
//! `key`, `content`, `encoding`, `format`, `ed25519_format` and `join` belong to the HMAC algorithms. `{{` and `}}` are the
//! braces themselves.
//!
//! # Receiving
//! The same table is read backwards: a header's value must have its template's form, and what stands in
//! place of a placeholder is its value. So where the timestamp is, is where `{timestamp}` is. With `join`,
//! a header that carries `{signature}` is a list: its items may come in any order, several may be
//! signatures, and unknown ones (another version's) are passed over. Stripe's is `"{signature}"` with `join
//! = ","`, `format = "v1={digest}"` in `"t={timestamp},{signature}"`.
//!
//! A header is required when the check needs it: it carries a signature, a secret, a timestamp, or an id
//! that is signed. A required header that comes twice is refused, because two readers could take two
//! different ones. A timestamp is checked wherever one is carried; it proves nothing unless `content` signs it.
//!
//! # What holds
//! - Every active secret is tried, and comparing takes the same time wherever the difference is.
//! - Whatever the id, event type or secret, headers are single lines. An id or event type has each
//!   character that is not visible ASCII, or at which a reader would take an id to end (the `.` of
//!   `{id}.{timestamp}`), replaced by `?`, in the header and in what is signed alike. A secret that does
//!   not fit is refused by [`SignatureSpec::check_secret`] and [`SignatureSpec::key`].
//! - A received id with such a character is refused too: `{id}.{timestamp}.{body}` could be cut in two
//!   ways.
//! - No error shows a secret or the signature that was expected. Headers that carry either are marked
//!   sensitive.

mod key;
mod parse;
mod sign;
mod spec;
mod template;
mod verify;

#[cfg(test)]
mod tests;

pub use key::SigningKey;
pub use parse::choices;
pub use sign::Message;
pub use spec::SignatureSpec;
pub use verify::{Received, Slot, Verified, VerifyError};

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The secret is not what the spec asks for; the reason is a sentence that never shows the secret.
    #[error("{0}")]
    Secret(String),
}
