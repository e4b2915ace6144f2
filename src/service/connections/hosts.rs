//! Where a connection's hosts lead, looked up when it is saved.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Gateway, ServiceError};
use crate::domain::fault::Faults;
use crate::egress::Url;

/// How long the lookup of a new URL's host may take; a host that can't be looked up is no fault.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// Checks the host of every URL, each host once.
    pub(super) async fn check_hosts(&self, urls: &[(&'static str, Url)]) -> Result<(), ServiceError> {
        let mut seen = BTreeSet::new();
        for (field, url) in urls {
            if seen.insert((url.domain(), url.port_or_known_default())) {
                self.check_host(field, url).await?;
            }
        }
        Ok(())
    }

    /// Refuses a host that resolves to an address where requests must not go. What does not resolve now may later, and is
    /// judged again on every connection.
    async fn check_host(&self, field: &str, url: &Url) -> Result<(), ServiceError> {
        let Some(host) = url.domain() else { return Ok(()) };
        let lookup = tokio::net::lookup_host((host, url.port_or_known_default().unwrap_or(443)));
        let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await else { return Ok(()) };
        for address in addresses {
            if let Err(refusal) = self.addresses.check_address(address.ip()) {
                // Which address it is would tell of a network that is not the tenant's.
                let mut faults = Faults::default();
                let message = "its host resolves to an address where requests may not go";
                faults.at_field(field, message, Some(refusal.hint().to_owned()));
                return Err(faults.into());
            }
        }
        Ok(())
    }
}
