//! What a chat's visitors may do without a key: rate an answer, and write to the chat.
//!
//! Whose event it is says the agent that the visitor names: one of its sources must be marked `public`. What comes this way is
//! only ever said by somebody: it is not verified, and is told apart by its event types. Every visitor has a rate, by address; an
//! IPv6 network of 64 bits is one visitor.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::Gateway;
use super::ingest::{MAX_ID_CHARS, read_plain};
use super::live::LiveSource;
use super::metrics::Taken;
use super::rate::Standing;
use crate::domain::document::{Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::id::EventKey;
use crate::domain::secret::Secret;
use crate::domain::source::SourceState;
use crate::egress::{HeaderMap, HeaderValue, Method, Request, Url, header};
use crate::store::{Ingest, StoreError};

/// The longest message or comment of a visitor.
const MAX_TEXT_CHARS: usize = 10_000;
/// The most of `X-Forwarded-For` that is looked through.
const MAX_HOPS: usize = 32;

/// Where a chat's messages are answered.
#[derive(Debug, Clone)]
pub struct ChatSettings {
    /// The upstream's URL.
    pub url: Url,
    /// Shown to the upstream as a bearer token.
    pub key: Option<Secret>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Why a visitor's request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicError {
    /// What was sent is wrong.
    #[error("{0}")]
    Invalid(Faults),
    /// No source of the agent is public.
    #[error("there is no public chat of this agent")]
    NoChat,
    /// The visitor or the tenant sends more than it may.
    #[error("more comes than is taken")]
    Limited(Standing),
    /// The event was kept, and nobody answers.
    #[error("no chat upstream is configured; the message is kept")]
    NoUpstream,
    /// The event was kept, and the upstream did not answer as it should.
    #[error("the chat did not answer; the message is kept")]
    Upstream(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the chat answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatReply {
    /// The conversation, new where the visitor named none.
    pub conversation_id: String,
    /// The visitor's message.
    pub message_id: String,
    /// The answer's text.
    pub reply: String,
}

/// Who a request comes from: the nearest address that is no trusted proxy's. An IPv6 address stands for its network.
pub fn visitor(peer: IpAddr, forwarded: &[&str], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut nearest = peer.to_canonical();
    let hops = forwarded.iter().rev().flat_map(|line| line.rsplit(',')).take(MAX_HOPS);
    for hop in hops {
        if !is_trusted(&nearest) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
    }
    match nearest {
        IpAddr::V4(_) => nearest,
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// A text of the body that is an id or a short word.
fn word(table: &mut TableReader<'_>, key: &'static str) -> Option<String> {
    let text = table.text(key)?;
    let fits = (1..=MAX_ID_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if !fits {
        let hint = format!("1 to {MAX_ID_CHARS} characters, none of them a control character");
        table.fault(key, "does not fit", Some(hint));
    }
    fits.then(|| text.to_owned())
}

/// A text that a person wrote.
fn words(table: &mut TableReader<'_>, key: &'static str) -> Option<String> {
    let text = table.text(key)?;
    if text.trim().is_empty() || text.chars().count() > MAX_TEXT_CHARS {
        table.fault(key, format!("is empty, or longer than {MAX_TEXT_CHARS} characters"), None);
        return None;
    }
    Some(text.to_owned())
}

/// The agent, under either of its names.
fn agent(table: &mut TableReader<'_>) -> Option<String> {
    let (agent, chatbot) = (word(table, "agentId"), word(table, "chatbotId"));
    if !table.has("agentId") && !table.has("chatbotId") {
        table.fault("agentId", "missing", Some("add \"agentId\" or \"chatbotId\"".to_owned()));
    }
    agent.or(chatbot)
}

impl Gateway {
    /// Counts a visitor's request.
    pub fn visit(&self, visitor: IpAddr) -> Result<Option<Standing>, PublicError> {
        match self.visitor_rates.take(&[(visitor, 1)], self.clock.now()) {
            Some(standing) if !standing.wait.is_zero() => Err(PublicError::Limited(standing)),
            standing => Ok(standing),
        }
    }

    fn public_chat(&self, agent: &str) -> Result<Arc<LiveSource>, PublicError> {
        let found = self.directory.public_source(agent);
        found.filter(|live| live.record.state == SourceState::Active).ok_or(PublicError::NoChat)
    }

    /// Takes a visitor's rating of one message; answers the event's id.
    pub async fn rate_message(&self, conversation: &str, body: &Value) -> Result<String, PublicError> {
        const RATINGS: &[(&str, &str)] =
            &[("up", "up"), ("down", "down"), ("thumbs_up", "up"), ("thumbs_down", "down")];
        let node = Node::from_json(body);
        let mut faults = Faults::default();
        let Some(mut table) = node.table("", &mut faults) else { return Err(PublicError::Invalid(faults)) };
        let agent = agent(&mut table);
        table.need("messageId");
        let message = word(&mut table, "messageId");
        table.need("rating");
        let rating = table.choice("rating", RATINGS);
        let comment = words(&mut table, "comment");
        table.finish();
        let (Some(agent), Some(message), Some(rating), true) = (agent, message, rating, faults.is_empty())
        else {
            return Err(PublicError::Invalid(faults));
        };
        let live = self.public_chat(&agent)?;
        let mut data = json!({ "conversation_id": conversation, "message_id": message, "rating": rating });
        if let Some(comment) = comment {
            data["comment"] = comment.into();
        }
        self.keep(&live, &agent, vec![("rating.given", data)]).await
    }

    /// Takes a visitor's message, and gets it answered.
    pub async fn chat(&self, body: &Value) -> Result<ChatReply, PublicError> {
        let node = Node::from_json(body);
        let mut faults = Faults::default();
        let Some(mut table) = node.table("", &mut faults) else { return Err(PublicError::Invalid(faults)) };
        let agent = agent(&mut table);
        let known = word(&mut table, "conversationId");
        table.need("message");
        let text = words(&mut table, "message");
        table.finish();
        let (Some(agent), Some(text), true) = (agent, text, faults.is_empty()) else {
            return Err(PublicError::Invalid(faults));
        };
        let live = self.public_chat(&agent)?;
        let fresh = |prefix: &str| {
            EventKey::from_bits(self.ids.next()).to_string().replacen(EventKey::PREFIX, prefix, 1)
        };
        let conversation_id = known.clone().unwrap_or_else(|| fresh("conv_"));
        let message_id = fresh("msg_");
        let data = |id: &str, text: &str| {
            json!({
                "conversation_id": conversation_id,
                "message_id": id,
                "channel": "website",
                "message": { "text": text },
            })
        };
        let mut events = Vec::with_capacity(2);
        if known.is_none() {
            let begun = json!({ "conversation_id": conversation_id, "channel": "website" });
            events.push(("conversation.started", begun));
        }
        events.push(("message.received", data(&message_id, &text)));
        self.keep(&live, &agent, events).await?;
        let Some(chat) = &self.settings.chat else { return Err(PublicError::NoUpstream) };
        let asked = json!({
            "agentId": agent,
            "conversationId": conversation_id,
            "messageId": message_id,
            "message": text,
        });
        let reply = self.ask(chat, &asked).await?;
        self.keep(&live, &agent, vec![("message.sent", data(&fresh("msg_"), &reply))]).await?;
        Ok(ChatReply { conversation_id, message_id, reply })
    }

    /// Asks the upstream. Its answer is JSON with the text under `reply`, `message`, `text` or `answer`.
    async fn ask(&self, chat: &ChatSettings, asked: &Value) -> Result<String, PublicError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &chat.key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
                .map_err(|_| PublicError::Upstream("chat.upstream_key is no header value".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let request = Request {
            method: Method::POST,
            url: chat.url.clone().into(),
            headers,
            body: Bytes::from(asked.to_string()),
            timeout: chat.timeout,
        };
        let failed = |reason: String| PublicError::Upstream(reason);
        let answer = self.egress.send(request).await.map_err(|error| failed(error.to_string()))?;
        if !(200..300).contains(&answer.status) || answer.truncated || !answer.body_complete {
            return Err(failed(format!("it answered {} or too much", answer.status)));
        }
        let answer: Value =
            serde_json::from_slice(&answer.body).map_err(|_| failed("its answer is not JSON".to_owned()))?;
        let texts = ["reply", "message", "text", "answer"];
        let text = texts.iter().find_map(|key| answer.get(key).and_then(Value::as_str));
        text.map(str::to_owned).ok_or_else(|| failed("its answer has no text".to_owned()))
    }

    /// Stores events of a public chat; answers the last one's id.
    async fn keep(
        &self,
        live: &LiveSource,
        agent: &str,
        events: Vec<(&str, Value)>,
    ) -> Result<String, PublicError> {
        let tenant = &live.record.tenant;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        if let Some(standing) = self.rates.take(&[(tenant.clone(), count)], self.clock.now())
            && !standing.wait.is_zero()
        {
            self.metrics.events(Taken::RateLimited, events.len());
            return Err(PublicError::Limited(standing));
        }
        if self.backlogs.full(tenant).is_some() {
            self.metrics.events(Taken::QueueFull, events.len());
            return Err(StoreError::Overloaded.into());
        }
        let mut made = Vec::with_capacity(events.len());
        let mut id = String::new();
        for (kind, data) in events {
            let mut event = Map::new();
            event.insert("type".to_owned(), kind.into());
            event.insert("source".to_owned(), agent.into());
            event.insert("data".to_owned(), data);
            let incoming = read_plain(&Value::Object(event), "").map_err(PublicError::Invalid)?;
            let new = self.complete(incoming, tenant.clone(), None);
            id.clone_from(&new.event.id);
            made.push(new);
        }
        let count = made.len();
        match self.store.ingest(Ingest { idempotency: None, events: made }).await {
            Ok(_) => {
                self.metrics.events(Taken::Accepted, count);
                Ok(id)
            }
            Err(error) => {
                self.metrics.events(Taken::Unavailable, count);
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_the_nearest_address_that_no_trusted_proxy_has() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        let cases: [(&str, &[&str], &str); 9] = [
            ("203.0.113.9", &[], "203.0.113.9"),
            // Whoever is no proxy says what he likes, and is himself.
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:203.0.113.9", &[], "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", &[], "2001:db8:1:2::"),
        ];
        for (peer, forwarded, wanted) in cases {
            let found = visitor(peer.parse().unwrap(), forwarded, &trusted);
            assert_eq!(found, wanted.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
