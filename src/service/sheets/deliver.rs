//! One try of a batch: rows into a sheet, and a settlement for each job.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::api::{Asking, Failed};
use super::budget::{self, Short};
use super::layout::{Layout, NoLayout, Wanted, drifted};
use crate::connector::google_sheets::address::{Cells, range};
use crate::connector::google_sheets::quota::Kind;
use crate::connector::google_sheets::{Mode, Place, Remedy, Row, Sheet, Writer, parts};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::service::Gateway;
use crate::service::deliver::{Obstacle, mapping, settle_obstacle};
use crate::service::live::{LiveConnection, Working, event_context};
use crate::store::{Lease, Settlement, StoreError};

/// After a crash, for how long a request of the process that died may still be under way: nothing is looked for before.
const QUIET: Duration = Duration::from_secs(5);
/// How long a lane waits whose spreadsheet is somebody else's now.
const BUSY: Duration = Duration::from_secs(1);

/// A job and its row.
pub(super) struct Item {
    pub lease: Lease,
    pub row: Row,
    /// Whether an earlier try may have written it.
    pub maybe: bool,
    pub fate: Option<Fate>,
}

/// What became of a row.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// It is in the sheet.
    Written(String),
    /// It is not, or nobody knows.
    Failed(Failed),
}

/// Why a batch went no further; what has no fate by then was not touched.
pub(super) enum Stop {
    /// Nothing before this much time.
    Wait(Duration),
    /// The store failed.
    Store(StoreError),
    /// These items failed; an empty range stands for all without a fate.
    Failed(Failed, std::ops::Range<usize>),
}

impl From<Short> for Stop {
    fn from(short: Short) -> Self {
        match short {
            Short::Wait(wait) => Self::Wait(wait),
            Short::Store(error) => Self::Store(error),
        }
    }
}

impl From<NoLayout> for Stop {
    fn from(reason: NoLayout) -> Self {
        match reason {
            NoLayout::Failed(failed) => Self::Failed(failed, 0..0),
            NoLayout::Short(short) => short.into(),
        }
    }
}

/// A batch under way.
pub(super) struct Batch<'a> {
    pub gateway: &'a Gateway,
    pub live: &'a LiveConnection,
    pub working: &'a Working,
    pub sheet: &'a Sheet,
    pub deadline: Instant,
    pub items: Vec<Item>,
}

/// Tries a batch once. Answers a settlement for each lease.
pub async fn deliver(
    gateway: &Gateway,
    live: &LiveConnection,
    working: &Working,
    sheet: &Sheet,
    leases: Vec<Lease>,
) -> Vec<Settlement> {
    let began = gateway.clock.now();
    let deadline = Instant::now() + sheet.timeout;
    let mut batch =
        Batch { gateway, live, working, sheet, deadline, items: Vec::with_capacity(leases.len()) };
    let mut settlements = Vec::with_capacity(leases.len());
    let mut own_fault = false;
    for lease in leases {
        if own_fault {
            settlements.push(settle_obstacle(gateway, &lease, Obstacle::Own(String::new())));
            continue;
        }
        match render(gateway, &lease, live, working, sheet).await {
            Ok((row, maybe)) => batch.items.push(Item { lease, row, maybe, fate: None }),
            Err(obstacle) => {
                // Nobody may pass a job that is tried again for no fault of its own.
                own_fault = matches!(obstacle, Obstacle::Own(_));
                settlements.push(settle_obstacle(gateway, &lease, obstacle));
            }
        }
    }
    let stop = batch.run().await.err();
    if let Some(Stop::Failed(failed, _)) = &stop
        && failed.revoked
    {
        super::revoked::pause_all(gateway, &sheet.account, &failed.refused.verdict.reason).await;
    }
    settlements.extend(super::settle::settle(batch, stop.as_ref(), began));
    super::settle::count_once(&mut settlements);
    settlements
}

/// A job's row, and whether it may be in the sheet already.
async fn render(
    gateway: &Gateway,
    lease: &Lease,
    live: &LiveConnection,
    working: &Working,
    sheet: &Sheet,
) -> Result<(Row, bool), Obstacle> {
    if let Some(kept) = &lease.rendered {
        let lost = || Obstacle::Broken("what was kept of the row can't be read".to_owned());
        let row = Row::from_bytes(kept).ok_or_else(lost)?;
        let maybe = lease.doubtful || !row.unwritten;
        return Ok((row, maybe));
    }
    let mapping = mapping(gateway, lease, live, working).await?;
    let (connection, job) = (lease.job.connection.to_string(), lease.job.name.to_string());
    let context = event_context(&lease.event, &connection, &job, lease.job.tries + 1);
    let row = sheet.render(&mapping, lease.event.document.tree(), &context).map_err(Obstacle::Mapping)?;
    Ok((row, lease.doubtful || lease.job.tries > 0))
}

impl Batch<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        if self.items.is_empty() {
            return Ok(());
        }
        let sheets = &self.gateway.sheets;
        let quiet = sheets.since.plus(QUIET).since(self.gateway.clock.now());
        if self.items.iter().any(|item| item.lease.doubtful) && !quiet.is_zero() {
            return Err(Stop::Wait(quiet));
        }
        let failed = |failed| Stop::Failed(failed, 0..0);
        let account = &self.sheet.account;
        let mut token = sheets.tokens.get(account, None, self.deadline).await.map_err(failed)?;
        let owner = sheets.nonce ^ self.live.record.id.bits();
        let spreadsheet = &self.sheet.spreadsheet;
        let turn = sheets.turns.take(self.gateway, spreadsheet, owner, self.deadline).await;
        let turn = match turn {
            Ok(Some(turn)) => turn,
            Ok(None) => return Err(Stop::Wait(BUSY.mul_f64(1.0 + self.gateway.entropy.fraction()))),
            Err(error) => return Err(Stop::Store(error)),
        };
        let mut result = self.write_all(&token).await;
        if let Err(Stop::Failed(refused, _)) = &result
            && refused.refused.remedy == Remedy::Token
        {
            // Such a request was not carried out, so it may go out again.
            match sheets.tokens.get(account, Some(&token), self.deadline).await {
                Ok(renewed) => {
                    token = renewed;
                    result = self.write_all(&token).await;
                }
                Err(failed) => result = Err(Stop::Failed(failed, 0..0)),
            }
        }
        // One whose request may still be under way keeps the turn until it must be over.
        if !matches!(&result, Err(Stop::Failed(failed, _)) if failed.under_way) {
            turn.give_back(self.gateway).await;
        }
        result
    }

    pub fn asking<'b>(&'b self, token: &'b Secret, tab: &'b str) -> Asking<'b> {
        Asking {
            token: token.reveal(),
            spreadsheet: &self.sheet.spreadsheet,
            place: Place { email: self.sheet.account.email(), tab, writes: true },
            deadline: self.deadline,
        }
    }

    /// Every run of open rows of one tab, in order.
    async fn write_all(&mut self, token: &Secret) -> Result<(), Stop> {
        let mut at = 0;
        while at < self.items.len() {
            let tab = self.items[at].row.tab.clone();
            let end = self.items[at..]
                .iter()
                .position(|item| item.row.tab != tab)
                .map_or(self.items.len(), |n| at + n);
            if self.items[at..end].iter().any(|item| item.fate.is_none()) {
                self.write_tab(token, &tab, at..end).await?;
            }
            at = end;
        }
        Ok(())
    }

    async fn write_tab(
        &mut self,
        token: &Secret,
        tab: &str,
        run: std::ops::Range<usize>,
    ) -> Result<(), Stop> {
        let names: Vec<String> = {
            let rows = self.items[run.clone()].iter().map(|item| &item.row);
            self.sheet.wanted(&self.working.mapping, rows).into_iter().map(str::to_owned).collect()
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let open = |item: &&Item| item.fate.is_none();
        let maybe = self.items[run.clone()].iter().filter(open).any(|item| item.maybe);
        let upsert = matches!(self.sheet.mode, Mode::Upsert(_));
        let wanted = Wanted { anew: maybe || upsert, ..Wanted::by(self, tab, &names) };
        let asking = self.asking(token, tab);
        let layout = self.gateway.sheets.layout(self.gateway, &asking, &wanted).await?;
        if upsert {
            return self.upsert(token, tab, &names, &layout, run).await;
        }
        if maybe {
            self.take_found(token, tab, &layout, run.clone()).await?;
        }
        let left: Vec<usize> = run.filter(|at| self.items[*at].fate.is_none()).collect();
        self.append(token, tab, &names, &layout, &left).await
    }

    /// Marks rows that are there already.
    async fn take_found(
        &mut self,
        token: &Secret,
        tab: &str,
        layout: &Layout,
        run: std::ops::Range<usize>,
    ) -> Result<(), Stop> {
        let Some(column) = layout.columns.of(&self.sheet.id_column) else { return Ok(()) };
        let maybe = self.items[run.clone()].iter().filter(|item| item.maybe && item.fate.is_none());
        let ids: HashSet<String> = maybe.map(|item| item.lease.job.name.to_string()).collect();
        let place = (tab, column, layout.rows);
        let asking = self.asking(token, tab);
        let found = self.gateway.sheets.find(self.gateway, &asking, self.sheet, place, &ids).await?;
        for item in &mut self.items[run] {
            match found.get(&item.lease.job.name.to_string()) {
                Some(row) if item.fate.is_none() => {
                    item.fate = Some(Fate::Written(format!(
                        "the row was there already, row {row} of the tab \"{tab}\": written by a try whose answer was lost"
                    )));
                }
                _ if item.maybe => {
                    item.row.unwritten = true;
                    item.maybe = false;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends rows: in as few requests as the limits allow, and where Google refuses one of them for its content, in smaller
    /// ones until that one is alone.
    pub(super) async fn append(
        &mut self,
        token: &Secret,
        tab: &str,
        names: &[&str],
        layout: &Layout,
        all: &[usize],
    ) -> Result<(), Stop> {
        let writer = self.writer(layout);
        let cells: Vec<Vec<(String, Value)>> = all.iter().map(|at| self.cells(&writer, *at)).collect();
        let rows: Vec<Vec<Value>> = cells.iter().map(|cells| layout.columns.row(cells)).collect();
        let mut todo = parts(&rows);
        todo.reverse();
        while let Some(part) = todo.pop() {
            budget::take(self.gateway, &self.sheet.account, Kind::Write, self.deadline).await?;
            for at in &all[part.clone()] {
                self.items[*at].row.unwritten = false;
            }
            let asking = self.asking(token, tab);
            let (cells_at, input) = (range(tab, "A1"), self.sheet.input.name());
            let answer =
                self.gateway.sheets.api.append(&asking, &cells_at, input, rows[part.clone()].to_vec()).await;
            match answer {
                Ok(answer) => {
                    let updated = answer.updates.and_then(|updates| updates.updated_range);
                    let note = if drifted(&layout.columns, answer.table_range.as_deref(), updated.as_deref())
                    {
                        self.mend(token, tab, names, layout, &cells[part.clone()], updated.as_deref()).await
                    } else {
                        ""
                    };
                    let first = updated.as_deref().and_then(Cells::read).map(|cells| cells.top);
                    for (n, at) in all[part].iter().enumerate() {
                        let row = first.map_or(String::new(), |first| format!("row {} of ", first + n));
                        self.items[*at].fate =
                            Some(Fate::Written(format!("written to {row}the tab \"{tab}\"{note}")));
                    }
                }
                Err(failed) => {
                    if failed.refused.verdict.outcome != Outcome::Ambiguous {
                        for at in &all[part.clone()] {
                            self.items[*at].row.unwritten = true;
                        }
                    }
                    if failed.refused.remedy != Remedy::Row {
                        let (first, last) = (all[part.start], all[part.end - 1]);
                        return Err(Stop::Failed(failed, first..last + 1));
                    }
                    if part.len() > 1 {
                        let middle = part.start + part.len() / 2;
                        todo.push(middle..part.end);
                        todo.push(part.start..middle);
                    } else {
                        self.items[all[part.start]].fate = Some(Fate::Failed(failed));
                    }
                }
            }
        }
        Ok(())
    }

    pub fn writer(&self, layout: &Layout) -> Writer {
        Writer { input: self.sheet.input, dates: self.sheet.dates, zone: layout.zone.clone() }
    }

    /// An item's cells with the job's id.
    pub fn cells(&self, writer: &Writer, at: usize) -> Vec<(String, Value)> {
        let item = &self.items[at];
        let cells = item.row.cells.iter().map(|(name, value)| (name.clone(), writer.cell(value)));
        cells.chain([(self.sheet.id_column.clone(), item.lease.job.name.to_string().into())]).collect()
    }

    /// Rows were written under headers that had moved meanwhile: writes them again where they belong. What it can't mend is
    /// told in the delivery log.
    async fn mend(
        &self,
        token: &Secret,
        tab: &str,
        names: &[&str],
        before: &Layout,
        cells: &[Vec<(String, Value)>],
        updated: Option<&str>,
    ) -> &'static str {
        const UNMENDED: &str =
            "; the columns had moved meanwhile, so check under which headers its values stand";
        self.gateway.sheets.layouts.forget(&self.sheet.spreadsheet, tab);
        let asking = self.asking(token, tab);
        let wanted = Wanted::by(self, tab, names);
        let Ok(now) = self.gateway.sheets.layout(self.gateway, &asking, &wanted).await else {
            return UNMENDED;
        };
        let Some(at) = updated.and_then(Cells::read).filter(|at| at.rows() == cells.len()) else {
            return UNMENDED;
        };
        let same = names.iter().all(|name| now.columns.of(name) == before.columns.of(name));
        if same && at.left == 0 {
            return "";
        }
        let width = now.columns.headers.len().max(at.right + 1);
        let rows = cells.iter().map(|cells| {
            let mut row = now.columns.row(cells);
            row.resize(width, Value::from(""));
            row
        });
        let place = range(tab, &format!("A{}", at.top));
        let written = vec![(place, rows.collect())];
        if budget::take(self.gateway, &self.sheet.account, Kind::Write, self.deadline).await.is_err() {
            return UNMENDED;
        }
        match self.gateway.sheets.api.write(&asking, self.sheet.input.name(), written).await {
            Ok(()) => ", moved to the columns where its headers are now",
            Err(_) => UNMENDED,
        }
    }
}
