//! A key that Google takes no more: every connection that uses it is paused, and one line says so.

use crate::connector::google_sheets::Account;
use crate::service::Gateway;
use crate::service::watch::alert::Matter;

/// Connections looked at in one step.
const PAGE: usize = 500;

/// Pauses all active connections of an account, and notes it for an alert about each: once a refusal, not once a job.
pub(super) async fn pause_all(gateway: &Gateway, account: &Account, reason: &str) {
    let mut after = None;
    let mut paused = 0;
    loop {
        let page = gateway.directory.connections(None, after, PAGE);
        let Some(last) = page.last() else { break };
        after = Some(last.record.id);
        for live in &page {
            let uses = live.works.as_ref().ok().and_then(|working| working.outlet.sheet());
            let same = uses.is_some_and(|sheet| sheet.account.fingerprint() == account.fingerprint());
            if !same || !live.record.state.is_active() {
                continue;
            }
            match gateway.pause_by(live.record.id, "auth_failed", reason).await {
                Ok(()) => {
                    paused += 1;
                    let matter = Matter::Stopped { by: "auth_failed", closed: false, given_up: false };
                    gateway.note(Some(live.record.id), matter, None);
                }
                Err(error) => {
                    tracing::warn!(%error, connection = %live.record.id, "cannot pause a connection");
                }
            }
        }
    }
    gateway.metrics.key_refused();
    tracing::error!(
        account = account.email(),
        connections = paused,
        reason,
        "a service account's key was refused"
    );
}
