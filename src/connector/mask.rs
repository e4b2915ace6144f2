//! Hides a connection's secrets in what the other side answers.
//!
//! Some endpoints repeat what they were sent, headers and all. What they answer is kept with the attempt and shown to
//! people, and a secret must not leave that way. It is looked for as it was given and in the forms in which texts travel: in a
//! form, in a URL, in JSON.

use std::borrow::Cow;
use std::fmt;

use ::http::HeaderValue;

use crate::domain::secret::Secret;
use crate::egress::Answer;

/// What stands where a secret stood.
pub const HIDDEN: &str = "[hidden]";
/// What is shorter stands in too many texts by chance.
const SHORTEST_CHARS: usize = 5;

/// Secrets to hide, the longest first, so that one within another leaves nothing of it.
#[derive(Clone, Default)]
pub struct Mask(Vec<Secret>);

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({})", self.0.len())
    }
}

impl Mask {
    /// Adds a secret in all its forms.
    pub fn add(&mut self, secret: &str) {
        if secret.chars().count() < SHORTEST_CHARS {
            return;
        }
        let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let in_url = form.replace('+', "%20");
        let json = serde_json::Value::from(secret).to_string();
        let json = json.get(1..json.len() - 1).unwrap_or_default().to_owned();
        let in_script = json.replace('/', "\\/");
        for text in [secret.to_owned(), form, in_url, json, in_script] {
            if !self.0.iter().any(|known| known.reveal() == text) {
                self.0.push(Secret::new(text));
            }
        }
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.reveal().len()));
    }

    /// The same with another secret.
    #[must_use]
    pub fn with(&self, secret: &str) -> Self {
        let mut mask = self.clone();
        mask.add(secret);
        mask
    }

    /// The text with every secret hidden.
    pub fn cover<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut covered = Cow::Borrowed(text);
        for secret in &self.0 {
            if covered.contains(secret.reveal()) {
                covered = Cow::Owned(covered.replace(secret.reveal(), HIDDEN));
            }
        }
        covered
    }

    /// The answer with every secret hidden; `None` when it holds none.
    pub fn cover_answer(&self, answer: &Answer) -> Option<Answer> {
        let body = String::from_utf8_lossy(&answer.body);
        let covered = match self.cover(&body) {
            Cow::Owned(covered) => Some(covered),
            Cow::Borrowed(_) => None,
        };
        let mut headers = None;
        for (name, value) in &answer.headers {
            let Ok(text) = value.to_str() else { continue };
            if let Cow::Owned(covered) = self.cover(text) {
                // What is hidden by visible ASCII is still a header's value.
                let covered = HeaderValue::try_from(covered).unwrap_or(HeaderValue::from_static(HIDDEN));
                headers.get_or_insert_with(|| answer.headers.clone()).insert(name, covered);
            }
        }
        if covered.is_none() && headers.is_none() {
            return None;
        }
        let mut shown = answer.clone();
        if let Some(covered) = covered {
            shown.body = covered.into();
        }
        if let Some(headers) = headers {
            shown.headers = headers;
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_form_and_nothing_else_is() {
        let mut mask = Mask::default();
        mask.add("s3cr/t \"&");
        mask.add("tok");
        for text in [
            "you sent s3cr/t \"&!",
            "you sent s3cr%2Ft+%22%26!",
            "you sent s3cr%2Ft%20%22%26!",
            r#"you sent s3cr/t \"&!"#,
            r#"you sent s3cr\/t \"&!"#,
        ] {
            assert_eq!(mask.cover(text), "you sent [hidden]!", "{text}");
        }
        assert!(matches!(mask.cover("a token"), Cow::Borrowed("a token")), "three letters hide nothing");
        assert!(!format!("{mask:?}").contains("s3cr"));
    }

    #[test]
    fn the_longest_is_hidden_first() {
        let mask = Mask::default().with("abcde").with("Bearer abcde fgh");
        assert_eq!(mask.cover("Bearer abcde fgh, abcde"), "[hidden], [hidden]");
    }
}
