//! One try over the wire: the access token where one is needed, the requests of a chain, the answers.
//!
//! A try has one time limit for all its requests. Its result is the answer of the request that ended it. An access token is kept for
//! the connection, renewed ahead of its end, and once when it is refused with a 401: such a request was not taken, so it is
//! sent again in the same try.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::connector::{Endpoint, Names, Progress, Token, Verdict, classify};
use crate::domain::job::Outcome;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, Egress, Request, SendError};
use crate::mapping::Context;

/// What sends requests.
pub trait Sends: Sync {
    /// Sends one, once.
    fn send(&self, request: Request) -> impl Future<Output = Result<Answer, SendError>> + Send;
}

impl Sends for Egress {
    fn send(&self, request: Request) -> impl Future<Output = Result<Answer, SendError>> + Send {
        Self::send(self, request)
    }
}

/// A connection's access token. Whoever needs one waits for it to be fetched, so that it is fetched once.
#[derive(Debug, Default)]
pub struct TokenSlot(Mutex<Option<Token>>);

/// What is delivered.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The event's document.
    pub event: &'a Value,
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
    let this = Try { sender, clock, endpoint, tokens, began: clock.now() };
    if endpoint.calls() == 1 {
        let (verdict, answer) = this.deliver(0, outgoing, kept.clone()).await;
        return Tried { verdict, answer, kept };
    }
    this.chain(outgoing, kept).await
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
            let reason = format!("its body has {} bytes, and the endpoint takes {most} at the most", body.len());
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
            let verdict = classify(self.endpoint.spec(), result.as_ref(), self.clock.now());
            return (verdict, result.ok());
        }
    }

    /// The access token and whether it was just fetched; `None` where none is needed. `refused` is one that is of no use.
    async fn token(&self, refused: Option<&Token>) -> Result<Option<(Token, bool)>, Verdict> {
        let Some(client) = self.endpoint.client() else { return Ok(None) };
        let mut slot = self.tokens.0.lock().await;
        if let Some(token) = slot.as_ref()
            && self.clock.now() < token.renew_at
            && refused.is_none_or(|refused| refused.text != token.text)
        {
            return Ok(Some((token.clone(), false)));
        }
        let Some(timeout) = self.left() else { return Err(self.out_of_time()) };
        let result = self.sender.send(client.request(timeout)).await;
        *slot = None;
        let token = client.read(result.as_ref(), self.clock.now())?;
        *slot = Some(token.clone());
        Ok(Some((token, true)))
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
