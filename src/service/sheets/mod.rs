//! Google Sheets: batches of jobs become rows, each exactly once.
//!
//! # Theory of operation
//!
//! A batch is one try (`deliver`): a token (`tokens`), the spreadsheet for this process alone (`turn`), where the columns
//! are (`layout`), which rows may be there already (`find`), and one append for each run of rows of a tab. Before each
//! request its tokens of the shared quota are taken (`budget`).
//!
//! Exactly once rests on the job id in each row. A row is written blindly only if nobody can have written it: its job was
//! never leased before, or every try before surely wrote nothing (`Row::unwritten`). Else it is looked for by its id first:
//! after a lost answer, a 5xx, a crash of this process or of another one (`Lease::doubtful`). Two looks and writes
//! never mix, because a spreadsheet belongs to one writer at a time, over all processes; after a request whose end is
//! unknown that turn is not given back but runs out, so that the request is over when somebody else looks.
//!
//! # Invariants
//!
//! - One append a spreadsheet under way, over all processes; rows of one connection in the order of their jobs.
//! - No request goes out without tokens of its account's and its project's bucket.
//! - What a person must mend pauses the connection and spends no attempt.

mod api;
mod budget;
mod check;
mod deliver;
mod find;
mod layout;
mod revoked;
mod settle;
mod tokens;
mod turn;
mod upsert;

use std::sync::Arc;

use crate::clock::{Clock, Ids};
use crate::connector::google_sheets::GoogleSettings;
use crate::domain::time::Timestamp;
use crate::egress::Egress;

use api::Api;
pub use check::SheetReport;
pub(super) use check::check;
pub(super) use deliver::deliver;
use layout::Layouts;
use tokens::Tokens;
use turn::Turns;

/// What a process keeps of Google between batches; all of it may be lost.
pub struct Sheets {
    api: Api,
    tokens: Tokens,
    layouts: Layouts,
    turns: Turns,
    /// When this process began.
    since: Timestamp,
    /// Tells this process's holds from those of another one, or of an earlier life.
    nonce: u128,
}

impl std::fmt::Debug for Sheets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sheets")
    }
}

impl Sheets {
    /// Nothing known yet.
    pub fn new(egress: &Arc<Egress>, settings: &GoogleSettings, clock: &Clock, ids: &Ids) -> Self {
        Self {
            api: Api::new(egress, settings),
            tokens: Tokens::new(egress, clock.clone()),
            layouts: Layouts::default(),
            turns: Turns::default(),
            since: clock.now(),
            nonce: ids.next(),
        }
    }
}
