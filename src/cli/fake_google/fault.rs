//! Appends, and what goes wrong with them.

use std::sync::Arc;
use std::time::Duration;

use super::{Asked, Reply, Shared, State, done, refuse};

/// What goes wrong with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Applied, and the connection breaks before the answer.
    DropAfter,
    /// The connection breaks, and nothing was applied.
    DropBefore,
    /// Applied, and this status answered, as JSON.
    FailAfter(u16),
    /// This status answered, as JSON, and nothing applied.
    FailBefore(u16),
    /// Applied, and a 502 with a page answered.
    PageAfter,
    /// Answered so much later.
    Slow(Duration),
    /// The connection breaks at once, and it is applied so much later all the same.
    Late(Duration),
    /// 429, with `Retry-After` in seconds.
    Quota(Option<u32>),
}

/// Counts an append that begins; what goes wrong with it.
pub(super) fn begin(state: &mut State, id: &str) -> Fault {
    let number = state.counts.appends;
    state.counts.appends += 1;
    let under_way = state.under_way.entry(id.to_owned()).or_default();
    *under_way += 1;
    state.counts.most_at_once = state.counts.most_at_once.max(*under_way);
    (state.plan)(number)
}

/// Carries out an append, or what goes wrong with it.
pub(super) async fn append(
    shared: &Arc<Shared>,
    asked: &Asked,
    (id, action): (&str, &str),
    fault: Fault,
) -> Reply {
    let apply = || {
        let mut state = shared.state.lock();
        let reply = done(state.books.get_mut(id), |book| book.act(action, asked));
        if let Reply::Answer(200, ..) = &reply {
            let rows = asked.body["values"].as_array().map_or(0, Vec::len);
            shared.rows.send_modify(|count| *count += rows);
        }
        reply
    };
    match fault {
        Fault::None => apply(),
        Fault::DropBefore => Reply::Drop,
        Fault::DropAfter => {
            let _ = apply();
            Reply::Drop
        }
        Fault::FailBefore(status) => refuse(status, "UNAVAILABLE", "The service is currently unavailable."),
        Fault::FailAfter(status) => {
            let _ = apply();
            refuse(status, "INTERNAL", "Internal error encountered.")
        }
        Fault::PageAfter => {
            let _ = apply();
            Reply::Page(502)
        }
        Fault::Slow(wait) => {
            tokio::time::sleep(wait).await;
            apply()
        }
        Fault::Late(wait) => {
            let (shared, id, action) = (Arc::clone(shared), id.to_owned(), action.to_owned());
            let asked = Asked { body: asked.body.clone(), path: asked.path.clone(), ..Asked::empty() };
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let rows = asked.body["values"].as_array().map_or(0, Vec::len);
                let mut state = shared.state.lock();
                if let Reply::Answer(200, ..) =
                    done(state.books.get_mut(&id), |book| book.act(&action, &asked))
                {
                    shared.rows.send_modify(|count| *count += rows);
                }
            });
            Reply::Drop
        }
        Fault::Quota(after) => match refuse(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric") {
            Reply::Answer(status, _, body) => Reply::Answer(status, after, body),
            other => other,
        },
    }
}
