//! One try over the wire: the access token where one is needed, the requests of a chain, the answers.
//!
//! A try has one time limit for all its requests. Its result is the answer of the request that ended it. An access token is kept for
//! the connection, renewed ahead of its end, and once when it is refused with a 401: such a request was not taken, so it is
//! sent again in the same try. Nothing that leaves here repeats one of the connection's secrets.

mod tokens;

use std::future::Future;
use std::time::Duration;

use crate::clock::Clock;
use crate::connector::{Endpoint, Mask, Names, Progress, Token, Verdict, classify};
use crate::domain::id::ConnectionId;
use crate::domain::job::Outcome;
use crate::domain::json::Object;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, HeaderValue, Request, SendError};
use crate::mapping::Context;
use crate::service::{Gateway, traces};
use bytes::Bytes;
use tokens::Fetch;
pub use tokens::TokenSlot;

/// What sends requests, and keeps what is given for later ones.
pub trait Sends: Sync {
    /// Sends one, once.
    fn send(&self, request: Request) -> impl Future<Output = Result<Answer, SendError>> + Send;

    /// Keeps the refresh token `new`, which was given in place of `used`, for every process. Whether it is settled.
    fn keep_refresh_token(&self, used: &Secret, new: &Secret) -> impl Future<Output = bool> + Send;

    /// The refresh token that the connection has now, where that is another one than `used`.
    fn newer_refresh_token(&self, used: &Secret) -> impl Future<Output = Option<Secret>> + Send;
}

/// The way out of a connection's requests: over the wire, its refresh token kept in its record.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    /// The gateway.
    pub gateway: &'a Gateway,
    /// Whose requests they are.
    pub connection: ConnectionId,
    /// What they say of the trace that they belong to.
    pub traceparent: Option<&'a HeaderValue>,
}

impl Sends for Wire<'_> {
    async fn send(&self, mut request: Request) -> Result<Answer, SendError> {
        if let Some(traceparent) = self.traceparent {
            request.headers.entry(traces::HEADER).or_insert_with(|| traceparent.clone());
        }
        self.gateway.egress.send(request).await
    }

    async fn keep_refresh_token(&self, used: &Secret, new: &Secret) -> bool {
        match self.gateway.replace_refresh_token(self.connection, used, new).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(connection = %self.connection, %error, "a new refresh token is not written yet; trying again");
                false
            }
        }
    }

    async fn newer_refresh_token(&self, used: &Secret) -> Option<Secret> {
        self.gateway.newer_refresh_token(self.connection, used).await
    }
}

/// What is delivered.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The event's document.
    pub event: &'a Object,
    /// What a mapping may read beside it.
    pub context: Context<'a>,
    /// What headers may show of it.
    pub names: Names<'a>,
}

/// What a try came to.
#[derive(Debug)]
pub struct Tried {
    /// The outcome and why.
    pub verdict: Verdict,
    /// The answer that decided it.
    pub answer: Option<Answer>,
    /// What the next try begins with.
    pub kept: Bytes,
}

/// What the requests of one try share.
struct Try<'a, S> {
    sender: &'a S,
    clock: &'a Clock,
    endpoint: &'a Endpoint,
    tokens: &'a TokenSlot,
    began: Timestamp,
    /// What must not be shown besides the connection's secrets: with them, the access tokens of this try.
    tokens_mask: parking_lot::Mutex<Option<Mask>>,
}

/// Tries once. `kept` is what [`Endpoint::render`] made, or what the last try left.
pub async fn exchange<S: Sends>(
    sender: &S,
    clock: &Clock,
    endpoint: &Endpoint,
    tokens: &TokenSlot,
    outgoing: &Outgoing<'_>,
    kept: Bytes,
) -> Tried {
    let tokens_mask = parking_lot::Mutex::default();
    let this = Try { sender, clock, endpoint, tokens, began: clock.now(), tokens_mask };
    let mut tried = if endpoint.calls() == 1 {
        let (verdict, answer) = this.deliver(0, outgoing, kept.clone()).await;
        Tried { verdict, answer, kept }
    } else {
        this.chain(outgoing, kept).await
    };
    if let Some(shown) = tried.answer.as_ref().and_then(|answer| this.cover(answer)) {
        tried.answer = Some(shown);
    }
    tried
}

impl<S: Sends> Try<'_, S> {
    /// The requests of a chain, from the first that was not answered yet.
    async fn chain(&self, outgoing: &Outgoing<'_>, kept: Bytes) -> Tried {
        let Some(mut progress) = Progress::from_bytes(&kept) else {
            let reason = "what was kept of it is not of this connector; was its file changed?";
            return Tried { verdict: Verdict::plain(Outcome::Rejected, reason), answer: None, kept };
        };
        loop {
            let index = self.endpoint.next_call(&progress);
            let body = self.endpoint.body(index, &progress, outgoing.event, &outgoing.context);
            let (mut verdict, mut answer) = match body {
                Ok(body) => self.deliver(index, outgoing, body).await,
                Err(error) => (Verdict::mapping_failed(&error), None),
            };
            let Some(step) = self.endpoint.step_name(index) else {
                return Tried { verdict, answer, kept: progress.to_bytes() };
            };
            let done = matches!(verdict.outcome, Outcome::Delivered | Outcome::Duplicate);
            if done
                && let Some(answer) = &answer
                && let Err(lack) = self.endpoint.take(index, &mut progress, answer)
            {
                // To send it again would make another of what it made.
                verdict = Verdict::plain(Outcome::Rejected, format!("{}, but {lack}", verdict.reason));
            } else if done {
                continue;
            }
            verdict.reason = format!("step \"{step}\": {}", verdict.reason);
            return Tried { verdict, answer: answer.take(), kept: progress.to_bytes() };
        }
    }

    /// One request, with what lets it in.
    async fn deliver(&self, index: usize, outgoing: &Outgoing<'_>, body: Bytes) -> (Verdict, Option<Answer>) {
        if let Some(most) = self.endpoint.spec().request.max_bytes.filter(|most| body.len() > *most) {
            let reason =
                format!("its body has {} bytes, and the endpoint takes {most} at the most", body.len());
            return (Verdict::plain(Outcome::Rejected, reason), None);
        }
        let mut token = match self.token(None).await {
            Ok(token) => token,
            Err(verdict) => return (verdict, None),
        };
        let mut fresh = token.as_ref().is_some_and(|(_, fresh)| *fresh);
        loop {
            let Some(timeout) = self.left() else { return (self.out_of_time(), None) };
            let shown = token.as_ref().map(|(token, _)| token);
            let request = self.endpoint.call(index, &outgoing.names, body.clone(), shown, self.clock.now());
            let result = self.sender.send(Request { timeout, ..request }).await;
            let refused = result.as_ref().is_ok_and(|answer| answer.status == 401);
            if let Some((old, _)) = token.as_ref().filter(|_| refused && !fresh) {
                match self.token(Some(old)).await {
                    Ok(renewed) => token = renewed,
                    Err(verdict) => return (verdict, result.ok()),
                }
                fresh = true;
                continue;
            }
            return (self.judge(result.as_ref()), result.ok());
        }
    }

    /// The answer without secrets, where it has some.
    fn cover(&self, answer: &Answer) -> Option<Answer> {
        self.tokens_mask.lock().as_ref().unwrap_or(self.endpoint.mask()).cover_answer(answer)
    }

    /// Reads the answer by the rules as it came, and tells it without secrets.
    fn judge(&self, result: Result<&Answer, &SendError>) -> Verdict {
        let (spec, now) = (self.endpoint.spec(), self.clock.now());
        let verdict = classify(spec, result, now);
        let Some(shown) = result.ok().and_then(|answer| self.cover(answer)) else {
            return verdict;
        };
        // Words are cut to a length, so they are hidden before that.
        let Verdict { reason, remote_id, .. } = classify(spec, Ok(&shown), now);
        Verdict { reason, remote_id, ..verdict }
    }

    /// The access token and whether it was just fetched; `None` where none is needed. `refused` is one that is of no use.
    async fn token(&self, refused: Option<&Token>) -> Result<Option<(Token, bool)>, Verdict> {
        let Some(client) = self.endpoint.client() else { return Ok(None) };
        let fetch = Fetch { sender: self.sender, clock: self.clock, client, slot: self.tokens };
        let left = || self.left().ok_or_else(|| self.out_of_time());
        let (token, fresh) = fetch.token(refused, left).await?;
        self.tokens_mask.lock().get_or_insert_with(|| self.endpoint.mask().clone()).add(token.text.reveal());
        Ok(Some((token, fresh)))
    }

    /// What is left of the try's time.
    fn left(&self) -> Option<Duration> {
        let spent = self.clock.now().since(self.began);
        self.endpoint.timeout().checked_sub(spent).filter(|left| !left.is_zero())
    }

    fn out_of_time(&self) -> Verdict {
        let limit = self.endpoint.timeout().as_secs();
        Verdict::plain(Outcome::Retry, format!("the {limit} s of one try were over before it could be sent"))
    }
}

#[cfg(test)]
mod tests;
