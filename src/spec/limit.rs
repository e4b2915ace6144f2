//! How many requests a system takes: `[[limits]]`, the widest first.
//!
//! ```toml
//! [[limits]]
//! per = "{host}/{segment_3}"     # over the host and the segments of the URL's path
//! requests = 10000
//! secs = 300
//! ```
//!
//! All connections whose URLs give the same text share one limit, over all tenants and processes. A URL that lacks what
//! `per` names is not limited by it.

use url::Url;

use crate::domain::document::TableReader;

const MAX_LIMITS: usize = 4;
pub(super) const REQUESTS: (i64, i64) = (2, 1_000_000);
pub(super) const SECS: (i64, i64) = (1, 86_400);
const MAX_SEGMENT: usize = 9;
const HINT: &str = "{host}, and {segment_1} to {segment_9} of the URL's path";

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSpec {
    per: Vec<Part>,
    /// At most so many requests…
    pub requests: u32,
    /// …in any span of so many seconds.
    pub secs: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Host,
    Segment(usize),
}

impl LimitSpec {
    /// What all requests that share the limit with this URL have in common; `None` when the URL is not limited by it.
    pub fn key(&self, url: &Url) -> Option<String> {
        let mut key = String::new();
        for part in &self.per {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Host => key.push_str(url.host_str()?),
                Part::Segment(number) => {
                    key.push_str(url.path_segments()?.nth(number - 1).filter(|segment| !segment.is_empty())?);
                }
            }
        }
        Some(key)
    }
}

/// Reads `[[limits]]`.
pub(super) fn parse(root: &mut TableReader<'_>) -> Vec<LimitSpec> {
    let nodes = root.list("limits").unwrap_or_default();
    if nodes.len() > MAX_LIMITS {
        root.fault("limits", format!("more than {MAX_LIMITS} limits"), None);
    }
    let path = root.path("limits");
    let mut limits = Vec::new();
    for (index, node) in nodes.iter().take(MAX_LIMITS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        let per = table.need_text("per").and_then(|text| match parts(text) {
            Ok(parts) => Some(parts),
            Err(message) => {
                table.fault("per", message, Some(HINT.to_owned()));
                None
            }
        });
        for key in ["requests", "secs"] {
            table.need(key);
        }
        let mut whole = |key, (least, most)| {
            table.integer_within(key, least, most).and_then(|number| u32::try_from(number).ok())
        };
        let (requests, secs) = (whole("requests", REQUESTS), whole("secs", SECS));
        table.finish();
        if let (Some(per), Some(requests), Some(secs)) = (per, requests, secs) {
            limits.push(LimitSpec { per, requests, secs });
        }
    }
    limits
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let Some((name, further)) = after.split_once('}') else {
            return Err("a \"{\" without its \"}\"".to_owned());
        };
        parts.push(if name == "host" {
            Part::Host
        } else {
            let number = name.strip_prefix("segment_").and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=MAX_SEGMENT).contains(number));
            Part::Segment(number.ok_or_else(|| format!("\"{{{name}}}\" is not known here"))?)
        });
        rest = further;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
        return Err("is the same for every URL".to_owned());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Node;
    use crate::domain::fault::Faults;

    fn read(text: &str) -> Result<Vec<LimitSpec>, Faults> {
        let node = Node::from_toml("c.toml", text)?;
        let mut faults = Faults::default();
        let mut root = node.table("", &mut faults).unwrap();
        let limits = parse(&mut root);
        root.finish();
        faults.into_result(limits)
    }

    #[test]
    fn urls_share_a_limit_by_what_it_names() {
        let limits = read("[[limits]]\nper = '{host}/{segment_3}'\nrequests = 10\nsecs = 1").unwrap();
        let key = |url: &str| limits[0].key(&Url::parse(url).unwrap());
        let user = Some("hooks.zapier.com/42".to_owned());
        assert_eq!(key("https://hooks.zapier.com/hooks/standard/42/abc/"), user);
        assert_eq!(key("https://HOOKS.zapier.com/hooks/catch/42/def?x=1"), user);
        assert_eq!(key("https://hooks.zapier.com/hooks/catch"), None);
        assert_eq!(key("https://hooks.zapier.com/hooks/catch/"), None);
    }

    #[test]
    fn what_limits_nothing_is_a_fault() {
        for bad in [
            "per = '{hots}'\nrequests = 10\nsecs = 1",
            "per = '{segment_0}'\nrequests = 10\nsecs = 1",
            "per = 'all'\nrequests = 10\nsecs = 1",
            "per = '{host'\nrequests = 10\nsecs = 1",
            "per = '{host}'\nrequests = 1\nsecs = 1",
            "per = '{host}'\nrequests = 10\nsecs = 0",
            "requests = 10\nsecs = 1",
            "per = '{host}'",
        ] {
            assert!(read(&format!("[[limits]]\n{bad}")).is_err(), "{bad}");
        }
        assert!(read(&"[[limits]]\nper = '{host}'\nrequests = 10\nsecs = 1\n".repeat(5)).is_err());
    }
}
