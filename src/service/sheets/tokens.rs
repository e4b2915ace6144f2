//! Access tokens: one for each service account, shared by all its connections, renewed ahead of its end.
//!
//! Whoever needs a token waits for the one that is being fetched. A key that Google refuses is not shown again for a while:
//! every connection that uses it learns of the refusal without a request of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use yup_oauth2::authenticator::{Authenticator, ServiceAccountAuthenticator};
use yup_oauth2::{CustomHyperClientBuilder, Error};

use super::api::Failed;
use crate::clock::Clock;
use crate::connector::Verdict;
use crate::connector::google_sheets::{Account, Refused, Remedy, SCOPE, classify_token};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Egress, GuardedConnector, LibraryClient};

/// How long before its end a token is replaced.
const AHEAD: Duration = Duration::from_mins(5);
/// How long a token is used that does not say.
const UNSAID: Duration = Duration::from_mins(30);
/// How long a refused key is not shown again.
const REST: Duration = Duration::from_mins(1);
/// Accounts known before idle ones are forgotten.
const MANY: usize = 1_024;

#[derive(Default)]
struct Slot {
    authenticator: Option<Authenticator<GuardedConnector>>,
    token: Option<(Secret, Timestamp)>,
    refused: Option<(Refused, Timestamp)>,
}

/// All accounts' tokens.
pub(super) struct Tokens {
    client: LibraryClient<String>,
    egress: Arc<Egress>,
    clock: Clock,
    slots: Mutex<HashMap<[u8; 16], Arc<tokio::sync::Mutex<Slot>>>>,
}

/// A token, or why there is none.
pub(super) type Got = Result<Secret, Failed>;

impl Tokens {
    pub fn new(egress: &Arc<Egress>, clock: Clock) -> Self {
        Self { client: egress.library_client(), egress: Arc::clone(egress), clock, slots: Mutex::default() }
    }

    fn slot(&self, account: &Account) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock();
        if slots.len() >= MANY {
            // Those that nobody waits for; they are fetched again when they are needed.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(account.fingerprint()).or_default())
    }

    /// The account's token; a new one where it is `refused`, which Google took no more.
    pub async fn get(&self, account: &Account, refused: Option<&Secret>, deadline: Instant) -> Got {
        let slot = self.slot(account);
        let late = || Failed::of(retry("no access token came in time".to_owned()));
        let Ok(mut slot) = tokio::time::timeout_at(deadline, slot.lock()).await else { return Err(late()) };
        let now = self.clock.now();
        if let Some((known, until)) = &slot.refused
            && now < *until
        {
            return Err(Failed::of(known.clone()));
        }
        if let Some((token, renew_at)) = &slot.token
            && now < *renew_at
            && refused.is_none_or(|refused| refused.reveal() != token.reveal())
        {
            return Ok(token.clone());
        }
        let fetched = match tokio::time::timeout_at(deadline, self.fetch(&mut slot, account)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(retry("no access token came in time".to_owned())),
        };
        match fetched {
            Ok((token, renew_at)) => {
                slot.refused = None;
                slot.token = Some((token.clone(), renew_at));
                Ok(token)
            }
            Err(refused) => {
                slot.token = None;
                let revoked = refused.remedy == Remedy::Person;
                if revoked {
                    slot.refused = Some((refused.clone(), now.plus(REST)));
                }
                Err(Failed { revoked, ..Failed::of(refused) })
            }
        }
    }

    async fn fetch(&self, slot: &mut Slot, account: &Account) -> Result<(Secret, Timestamp), Refused> {
        if slot.authenticator.is_none() {
            let client = CustomHyperClientBuilder::from(self.client.clone());
            let built = ServiceAccountAuthenticator::with_client(account.key().clone(), client).build().await;
            slot.authenticator =
                Some(built.map_err(|error| Refused::person(format!("the key can't sign: {error}")))?);
        }
        let Some(authenticator) = &slot.authenticator else { return Err(retry("no key".to_owned())) };
        let token = authenticator
            .force_refreshed_token(&[SCOPE])
            .await
            .map_err(|error| self.read(account, &error))?;
        let now = self.clock.now();
        let ends = token.expiration_time().map(|time| Timestamp::from_millis(time.unix_timestamp() * 1_000));
        // One that ends at once is used for what it was fetched for.
        let renew_at =
            ends.map_or(now.plus(UNSAID), |ends| ends.minus(AHEAD)).max(now.plus(Duration::from_secs(1)));
        match token.token() {
            Some(text) if !text.is_empty() => Ok((Secret::new(text), renew_at)),
            _ => Err(retry("the answer of the token endpoint holds no token".to_owned())),
        }
    }

    /// What an error of the token endpoint means. Its own text may show what was sent, so none of it is taken over.
    fn read(&self, account: &Account, error: &Error) -> Refused {
        match error {
            Error::AuthError(error) => {
                let words = error.error_description.as_deref().unwrap_or_default();
                classify_token(error.error.as_str(), words, account.email())
            }
            Error::HttpClientError(yup_oauth2::error::SendError::Hyper(error)) => {
                let error = self.egress.explain(account.token_url(), error);
                retry(format!("no access token: {}", error.reason()))
            }
            Error::JSONError(_) | Error::MissingAccessToken => {
                retry("the token endpoint answered with something that is no token".to_owned())
            }
            _ => retry("no access token: the connection to the token endpoint broke".to_owned()),
        }
    }
}

fn retry(reason: String) -> Refused {
    Refused { verdict: Verdict::plain(Outcome::Retry, reason), remedy: Remedy::None }
}
