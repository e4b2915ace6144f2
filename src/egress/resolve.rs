//! Looks names up and lets through only answers that are public as a whole.
//!
//! An answer with one forbidden address is refused entirely, though the others would do: no honest public endpoint
//! has one, a mixed answer is how rebinding attacks look, and dropping the bad address would make a delivery work or
//! fail by the order of the answer. What is let through is what the connector gets, with no lookup in between.
//!
//! The system's resolver blocks a thread, for as long as a silent name server likes, and cannot be interrupted. So
//! lookups of one name share one thread, and no more than [`LOOKUPS_AT_ONCE`] run: the many threads left to the rest
//! of the process are out of reach of a tenant's dead name server. Who waits is bound by its own connect timeout.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::guard::AddressPolicy;
use super::refusal::Refusal;

/// The most lookups under way.
const LOOKUPS_AT_ONCE: usize = 64;

/// Why a name gave no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupFault {
    #[error(transparent)]
    Refused(Refusal),
    #[error("{0}")]
    Failed(Arc<str>),
}

type Lookup = Shared<BoxFuture<'static, Result<Arc<[SocketAddr]>, LookupFault>>>;

/// The resolver of the client; clones share the lookups under way.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    policy: Arc<AddressPolicy>,
    under_way: Arc<Mutex<HashMap<String, Lookup>>>,
    permits: Arc<Semaphore>,
}

impl GuardedResolver {
    pub(super) fn new(policy: Arc<AddressPolicy>) -> Self {
        Self { policy, under_way: Arc::default(), permits: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)) }
    }

    /// Joins the lookup of this name that is under way, or starts one.
    pub(super) fn lookup(&self, name: &str) -> Lookup {
        let mut under_way = self.under_way.lock();
        if let Some(lookup) = under_way.get(name) {
            return lookup.clone();
        }
        let this = self.clone();
        let host = name.to_owned();
        // A task of its own, so that it ends, and leaves the map, though all who waited have given up.
        let task = tokio::spawn(async move {
            let answer = this.look_up(&host).await;
            this.under_way.lock().remove(&host);
            answer
        });
        let lookup = task
            .map(|ended| {
                ended.unwrap_or_else(|_| Err(LookupFault::Failed("the lookup was cut short".into())))
            })
            .boxed()
            .shared();
        under_way.insert(name.to_owned(), lookup.clone());
        lookup
    }

    async fn look_up(&self, host: &str) -> Result<Arc<[SocketAddr]>, LookupFault> {
        // The semaphore is never closed, so there is a permit in the end.
        let _permit = self.permits.acquire().await;
        let found: Vec<SocketAddr> = match tokio::net::lookup_host((host, 0)).await {
            Ok(found) => found.collect(),
            Err(error) => return Err(LookupFault::Failed(in_words(&error).into())),
        };
        vet(&self.policy, host, &found)?;
        Ok(found.into())
    }
}

fn vet(policy: &AddressPolicy, host: &str, found: &[SocketAddr]) -> Result<(), LookupFault> {
    if found.is_empty() {
        return Err(LookupFault::Failed("the name has no addresses".into()));
    }
    match found.iter().find_map(|socket| policy.forbidding(socket.ip())) {
        Some(range) => Err(LookupFault::Refused(Refusal::Resolved { host: host.to_owned(), range })),
        None => Ok(()),
    }
}

fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let reason = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    reason.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn one_forbidden_address_spoils_the_answer() {
        let policy = AddressPolicy { allow_http: false, allowed: vec!["10.9.0.0/16".parse().unwrap()] };
        for (addresses, fine) in [
            (&["93.184.216.34"][..], true),
            (&["93.184.216.34", "2606:2800:220:1::1"], true),
            (&["93.184.216.34", "10.9.1.1"], true),
            (&["93.184.216.34", "127.0.0.1"], false),
            (&["10.0.0.1", "93.184.216.34"], false),
            (&["93.184.216.34", "::ffff:169.254.169.254"], false),
            (&[], false),
        ] {
            assert_eq!(vet(&policy, "a.example", &sockets(addresses)).is_ok(), fine, "{addresses:?}");
        }
    }

    #[test]
    fn a_refused_answer_does_not_tell_the_address() {
        let fault = vet(&AddressPolicy::default(), "a.example", &sockets(&["10.20.30.40"])).unwrap_err();
        assert!(fault.to_string().contains("private network"), "{fault}");
        assert!(!fault.to_string().contains("10.20.30.40"), "{fault}");
    }

    #[tokio::test]
    async fn lookups_of_one_name_are_shared_and_forgotten() {
        let policy = AddressPolicy {
            allow_http: false,
            allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        };
        let resolver = GuardedResolver::new(Arc::new(policy));
        let (first, second) = (resolver.lookup("localhost"), resolver.lookup("localhost"));
        assert!(first.ptr_eq(&second));
        let found = first.await.unwrap();
        assert!(found.iter().all(|socket| socket.ip().is_loopback()));
        second.await.unwrap();
        assert!(resolver.under_way.lock().is_empty());
    }
}
