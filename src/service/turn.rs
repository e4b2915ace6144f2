//! A connection's turn to send: tokens out of buckets, over all processes. Where its connector says how many requests a
//! system takes, all connections of one key share these buckets; where its own policy says how often it is tried, it has one of
//! its own beside them.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::ServiceError;
use crate::domain::id::ConnectionId;
use crate::domain::policy::RateLimit;
use crate::egress::Url;
use crate::spec::ConnectorSpec;
use crate::store::{Spend, Spent, Store, StoreError};

/// Of what a limit allows in its span, this share may be spent at once; the rest comes back evenly. Together they are the
/// limit: it holds for every span, not on average.
const BURST_SHARE: u32 = 6;

/// A lane that has to wait waits at least so long: to come back for one token at a time would only cost.
pub const LEAST_WAIT: Duration = Duration::from_millis(200);

/// What a try of a connection takes.
#[derive(Debug)]
pub struct Turns {
    /// The widest limit's bucket: whoever shares another of these buckets shares this one too.
    scope: String,
    spends: Vec<Spend>,
    /// The limits, for a person.
    shown: String,
}

impl Turns {
    /// What a try costs that makes `requests` requests to a URL; `None` where nothing is limited.
    pub fn of(
        spec: &ConnectorSpec,
        url: &Url,
        requests: u32,
        (connection, rate): (ConnectionId, Option<RateLimit>),
    ) -> Option<Self> {
        let mut shown = Vec::new();
        let mut spends = Vec::new();
        for limit in &spec.limits {
            let Some(key) = limit.key(url) else { continue };
            let name = format!("{}\n{}\n{}\n{key}", spec.id, limit.requests, limit.secs);
            let burst = (limit.requests / BURST_SHARE).max(1);
            spends.push(Spend {
                bucket: bucket(&name),
                cost: requests,
                rate: (limit.requests - burst).max(1),
                per: Duration::from_secs(limit.secs.into()),
                burst,
            });
            shown.push(format!(
                "the endpoint takes {} requests in {} s, shared with others",
                limit.requests, limit.secs
            ));
        }
        if let Some(RateLimit { per_second, burst }) = rate {
            // The numbers are part of the name: a policy that changes begins with a full bucket.
            let name = format!("connection\n{connection}\n{per_second}\n{burst}");
            let per = Duration::from_secs(1);
            spends.push(Spend { bucket: bucket(&name), cost: requests, rate: per_second, per, burst });
            shown.push(format!("its policy allows {per_second} requests a second"));
        }
        let scope = spends.first()?.bucket.clone();
        Some(Self { scope, spends, shown: shown.join(", and ") })
    }

    /// Takes a turn; else how long to wait for one.
    pub async fn take(&self, store: &dyn Store) -> Result<Option<Duration>, StoreError> {
        Ok(match store.spend(&self.scope, &self.spends).await? {
            Spent::Granted => None,
            Spent::Wait(span) => Some(span.max(LEAST_WAIT)),
        })
    }

    /// Takes a turn for whoever waits for the answer.
    pub async fn take_now(turns: Option<&Self>, store: &dyn Store) -> Result<(), ServiceError> {
        let Some(turns) = turns else { return Ok(()) };
        match turns.take(store).await? {
            None => Ok(()),
            Some(wait) => Err(ServiceError::Throttled(wait, turns.reason())),
        }
    }

    /// Why a job waits, in plain words.
    pub fn reason(&self) -> String {
        format!("it waits for its turn: {}", self.shown)
    }
}

/// A bucket's name; hashed, because what it stands for may be as long as a URL, and as secret.
fn bucket(name: &str) -> String {
    hex::encode(&Sha256::digest(name)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Catalogue;

    fn turns(url: &str) -> Option<Turns> {
        let catalogue = Catalogue::load(None).unwrap();
        Turns::of(catalogue.connector("zapier").unwrap(), &url.parse().unwrap(), 1, (ID, None))
    }

    const ID: ConnectionId = ConnectionId::from_bits(1);

    #[test]
    fn hooks_of_one_user_share_the_wide_bucket_and_have_their_own_narrow_one() {
        let one = turns("https://hooks.zapier.com/hooks/standard/42/abc/").unwrap();
        let two = turns("https://hooks.zapier.com/hooks/standard/42/def/").unwrap();
        let other = turns("https://hooks.zapier.com/hooks/standard/43/abc/").unwrap();
        assert_eq!((one.spends.len(), &one.scope, &one.spends[0]), (2, &two.scope, &two.spends[0]));
        assert_ne!(one.spends[1].bucket, two.spends[1].bucket);
        assert!(other.spends.iter().all(|spend| one.spends.iter().all(|own| own.bucket != spend.bucket)));
        for (spend, most) in one.spends.iter().zip([10_000, 30]) {
            assert_eq!(spend.rate + spend.burst, most, "the limit holds for every span");
        }
    }

    #[test]
    fn a_connections_own_rate_is_a_bucket_beside_the_shared_ones() {
        let catalogue = Catalogue::load(None).unwrap();
        let rate = Some(RateLimit { per_second: 50, burst: 10 });
        let of = |connector: &str, url: &str, id: u128| {
            let own = (ConnectionId::from_bits(id), rate);
            Turns::of(catalogue.connector(connector).unwrap(), &url.parse().unwrap(), 2, own).unwrap()
        };
        let (one, other) =
            (of("webhook", "https://example.com/", 1), of("webhook", "https://example.com/", 2));
        assert_eq!((one.spends[0].rate, one.spends[0].burst, one.spends[0].cost), (50, 10, 2));
        assert_ne!(one.spends[0].bucket, other.spends[0].bucket);
        let shared = of("zapier", "https://hooks.zapier.com/hooks/standard/42/abc/", 1);
        assert_eq!((shared.spends.len(), &shared.spends[2]), (3, &one.spends[0]));
        assert_eq!(shared.scope, shared.spends[0].bucket, "all are taken in one step");
    }

    #[test]
    fn what_names_no_user_is_not_limited() {
        assert!(turns("https://example.com/").is_none());
        assert!(turns("https://example.com/a/b").is_none());
        assert_eq!(turns("https://example.com/a/b/c").unwrap().spends.len(), 1);
    }
}
