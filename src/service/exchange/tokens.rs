//! A connection's access token, and the refresh token that a token endpoint put in place of the one used.
//!
//! Some endpoints give a new refresh token with each access token and take the old one back (RFC 6749 §6, RFC 9700 §4.14). The
//! new one is written into the connection's record, only where that still holds the one used: so a person's own change, or
//! another process's, is never undone. A process whose token another one replaced reads the record again before it
//! believes a refusal.

use std::time::Duration;

use tokio::sync::Mutex;

use super::Sends;
use crate::clock::Clock;
use crate::connector::{Client, Token, Verdict};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::egress::Answer;

/// A connection's access token. Whoever needs one waits for it to be fetched, so that it is fetched once. It outlives
/// changes of the connection that leave the client the same.
#[derive(Debug, Default)]
pub struct TokenSlot(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    token: Option<Token>,
    rotated: Option<Rotated>,
}

/// A refresh token that was replaced.
#[derive(Debug)]
struct Rotated {
    used: Secret,
    new: Secret,
    /// Whether the record has the new one.
    kept: bool,
}

/// What a fetch needs of the try that it is part of.
pub(super) struct Fetch<'a, S> {
    pub sender: &'a S,
    pub clock: &'a Clock,
    pub client: &'a Client,
    pub slot: &'a TokenSlot,
}

impl<S: Sends> Fetch<'_, S> {
    /// The access token and whether it was just fetched. `refused` is one that is of no use; `left` tells what is left of
    /// the try's time.
    pub async fn token(
        &self,
        refused: Option<&Token>,
        left: impl Fn() -> Result<Duration, Verdict>,
    ) -> Result<(Token, bool), Verdict> {
        let mut held = self.slot.0.lock().await;
        self.keep(&mut held).await;
        if let Some(token) = held.token.as_ref()
            && self.clock.now() < token.renew_at
            && refused.is_none_or(|refused| refused.text != token.text)
        {
            return Ok((token.clone(), false));
        }
        held.token = None;
        let own = self.client.refresh_token();
        let mut used = match &held.rotated {
            Some(Rotated { used, new, .. }) if Some(used) == own => Some(new.clone()),
            _ => own.cloned(),
        };
        let granted = match self.fetch(used.as_ref(), left()?).await {
            Ok(granted) => granted,
            Err(verdict) => match self.newer(used.as_ref(), &verdict).await {
                Some(newer) => {
                    used = Some(newer);
                    self.fetch(used.as_ref(), left()?).await?
                }
                None => return Err(verdict),
            },
        };
        let (token, new) = granted;
        if let (Some(used), Some(new)) = (used, new)
            && used != new
        {
            held.rotated = Some(Rotated { used, new, kept: false });
            self.keep(&mut held).await;
        }
        held.token = Some(token.clone());
        Ok((token, true))
    }

    async fn fetch(
        &self,
        refresh_token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<(Token, Option<Secret>), Verdict> {
        let result = self.sender.send(self.client.request(timeout, refresh_token)).await;
        let now = self.clock.now();
        let granted = self.client.read(result.as_ref(), now).map_err(|verdict| {
            // What it says may repeat what it was sent.
            let shown = result.as_ref().ok().and_then(|answer| self.covered(answer, refresh_token));
            match shown.map(|shown| self.client.read(Ok(&shown), now)) {
                Some(Err(shown)) => Verdict { reason: shown.reason, ..verdict },
                _ => verdict,
            }
        })?;
        Ok((granted.token, granted.refresh_token))
    }

    fn covered(&self, answer: &Answer, refresh_token: Option<&Secret>) -> Option<Answer> {
        let mut mask = self.client.mask();
        if let Some(token) = refresh_token {
            mask.add(token.reveal());
        }
        mask.cover_answer(answer)
    }

    /// The refresh token that another process put in place of a refused one.
    async fn newer(&self, used: Option<&Secret>, verdict: &Verdict) -> Option<Secret> {
        if verdict.outcome != Outcome::AuthFailed {
            return None;
        }
        self.sender.newer_refresh_token(used?).await
    }

    /// Writes a new refresh token into the record; what fails is tried again the next time that a token is needed.
    async fn keep(&self, held: &mut Held) {
        if let Some(rotated) = held.rotated.as_mut().filter(|rotated| !rotated.kept) {
            rotated.kept = self.sender.keep_refresh_token(&rotated.used, &rotated.new).await;
        }
    }
}
