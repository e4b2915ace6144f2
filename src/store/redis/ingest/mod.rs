//! Takes events in, each request as a whole.
//!
//! Small requests share script calls (`intake`). One with more events and jobs than a call should carry is written in
//! bounded steps and accepted by one of them (`staged`).

mod intake;
mod leased;
mod names;
mod parts;
mod staged;

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::codec::{self, strange};
use super::keys::Partition;
use super::settle::connection_of;
use super::{Core, REPLY};
use crate::domain::id::ConnectionId;
use crate::store::StoreError;
use crate::store::types::{Accepted, Dedupe, Ingest, Ingested, NewEvent, NewJob};
pub(super) use intake::Intake;
pub(super) use names::Bases;
pub(super) use staged::LARGE;

/// Events and jobs in one script call, which bounds how long it runs.
const WEIGHT: usize = 128;
/// How often a request is sent again because a lane had to be told of its connection, or an id was taken.
pub(super) const ROUNDS: usize = 8;

/// The part of a request that lies in one partition.
#[derive(Debug)]
struct Portion {
    partition: Partition,
    idempotency: Option<Dedupe>,
    ingest: Arc<Ingest>,
    /// Which of the events.
    events: Vec<usize>,
    /// Connections that take no jobs any more.
    closed: Vec<ConnectionId>,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

impl Portion {
    fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.events.iter().filter_map(|at| self.ingest.events.get(*at))
    }

    /// The jobs that are made of one of them.
    fn jobs<'a>(&'a self, new: &'a NewEvent) -> impl Iterator<Item = &'a NewJob> {
        new.jobs.iter().filter(|job| !self.closed.contains(&job.connection))
    }

    fn weight(&self) -> usize {
        self.events().map(weight_of).sum::<usize>().max(1)
    }
}

/// What a partition did with a portion.
#[derive(Debug)]
enum Answer {
    Stored(Vec<Written>),
    Repeated(Vec<(String, Written)>),
    Reused,
    /// An id was taken already.
    Collision,
    /// These lanes are not known there yet.
    Unruled(Vec<ConnectionId>),
    /// These lanes were closed meanwhile.
    Closed(Vec<ConnectionId>),
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    New(u32),
    Duplicate(u32),
    Reused,
}

impl Written {
    fn parse(text: &str) -> Result<Self, StoreError> {
        if text == "reused" {
            return Ok(Self::Reused);
        }
        let count: i64 = text.parse().map_err(|_| strange(text))?;
        let jobs = |count: i64| u32::try_from(count).map_err(|_| strange(text));
        if count < 0 { jobs(-1 - count).map(Self::Duplicate) } else { jobs(count).map(Self::New) }
    }

    /// Of each event, as scripts answer.
    fn read_all(answers: impl Iterator<Item = Value>) -> Result<Vec<Self>, StoreError> {
        answers.map(|answer| Self::parse(&codec::text(answer)?)).collect()
    }

    fn is_new(self) -> bool {
        matches!(self, Self::New(_))
    }

    fn accepted(self, id: &str) -> Accepted {
        let id = id.to_owned();
        match self {
            Self::New(jobs) => Accepted::Stored { id, jobs, duplicate: false },
            Self::Duplicate(jobs) => Accepted::Stored { id, jobs, duplicate: true },
            Self::Reused => Accepted::IdReused { id },
        }
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New(jobs) => write!(f, "{jobs}"),
            Self::Duplicate(jobs) => write!(f, "{}", -1 - i64::from(*jobs)),
            Self::Reused => f.write_str("reused"),
        }
    }
}

impl Core {
    /// Writes a request; see [`Store::ingest`](crate::store::Store::ingest).
    pub(super) async fn ingest(
        self: &Arc<Self>,
        intake: &Intake,
        ingest: Ingest,
    ) -> Result<Ingested, StoreError> {
        let ingest = Arc::new(ingest);
        let mut parts: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (at, event) in ingest.events.iter().enumerate() {
            parts.entry(self.keys.partition(&event.event.tenant)).or_default().push(at);
        }
        if parts.is_empty() {
            parts.insert(0, Vec::new());
        }
        if let (Some(key), true) = (ingest.idempotency, parts.len() > 1) {
            // Other content under the same key may touch other partitions: one place decides for all.
            let (home, claim) = (u16::from(key.key[0]) % self.keys.partitions(), claim_of(key));
            let nothing = Arc::new(Ingest { idempotency: None, events: Vec::new() });
            if let Answer::Reused = self.portion(intake, home, Some(claim), &nothing, &[]).await? {
                return Ok(Ingested::KeyReused);
            }
        }
        let mut accepted: Vec<Option<Accepted>> = vec![None; ingest.events.len()];
        let mut repeated = true;
        for (partition, events) in &parts {
            match self.portion(intake, *partition, ingest.idempotency, &ingest, events).await? {
                Answer::Stored(written) => {
                    repeated = false;
                    for (at, written) in events.iter().zip(written) {
                        let id = ingest.events.get(*at).map_or("", |event| &event.event.id);
                        accepted[*at] = Some(written.accepted(id));
                    }
                }
                Answer::Repeated(written) if parts.len() == 1 => {
                    let first = written.into_iter().map(|(id, written)| written.accepted(&id)).collect();
                    return Ok(Ingested::Repeated(first));
                }
                Answer::Repeated(written) => {
                    for (at, (id, written)) in events.iter().zip(written) {
                        accepted[*at] = Some(written.accepted(&id));
                    }
                }
                Answer::Reused => return Ok(Ingested::KeyReused),
                Answer::Collision | Answer::Unruled(_) | Answer::Closed(_) => {
                    return Err(StoreError::Unavailable(
                        "the lanes of this request can't be settled".to_owned(),
                    ));
                }
            }
        }
        let accepted = accepted
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| strange("fewer answers than events"))?;
        Ok(if repeated { Ingested::Repeated(accepted) } else { Ingested::Stored(accepted) })
    }

    /// Writes the part of a request that lies in one partition, telling the partition of lanes that it does not know.
    async fn portion(
        self: &Arc<Self>,
        intake: &Intake,
        partition: Partition,
        idempotency: Option<Dedupe>,
        ingest: &Arc<Ingest>,
        events: &[usize],
    ) -> Result<Answer, StoreError> {
        if events.iter().filter_map(|at| ingest.events.get(*at)).map(weight_of).sum::<usize>() > WEIGHT {
            return self.staged(partition, idempotency, ingest, events).await;
        }
        let sent = async {
            let mut closed = Vec::new();
            for _ in 0..ROUNDS {
                let (reply, answer) = oneshot::channel();
                let (ingest, events, closed_now) = (Arc::clone(ingest), events.to_vec(), closed.clone());
                let portion = Portion { partition, idempotency, ingest, events, closed: closed_now, reply };
                intake.send(portion)?;
                match answer.await.unwrap_or(Err(StoreError::Closed))? {
                    Answer::Collision => {}
                    Answer::Unruled(connections) => self.teach(partition, &connections).await?,
                    Answer::Closed(connections) => closed.extend(connections),
                    answer => return Ok(answer),
                }
            }
            Ok(Answer::Collision)
        };
        match timeout(REPLY, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unavailable(format!("no answer from Redis within {REPLY:?}"))),
        }
    }
}

/// What an event adds to a script call.
fn weight_of(event: &NewEvent) -> usize {
    1 + event.jobs.len()
}

fn claim_of(key: Dedupe) -> Dedupe {
    let mut claim = key;
    claim.key[15] ^= 0x80;
    claim
}

fn read_answer(answer: Value) -> Result<Answer, StoreError> {
    let mut parts = codec::list(answer)?.into_iter();
    let kind = codec::text(parts.next().unwrap_or(Value::Nil))?;
    Ok(match kind.as_str() {
        "stored" => Answer::Stored(Written::read_all(parts)?),
        "repeated" => {
            let json = codec::text(parts.next().unwrap_or(Value::Nil))?;
            let kept: Vec<(String, String)> =
                serde_json::from_str(&json).map_err(|_| strange("an answer that can't be read"))?;
            Answer::Repeated(
                kept.into_iter().map(|(id, written)| Ok((id, Written::parse(&written)?))).collect::<Result<
                    _,
                    StoreError,
                >>(
                )?,
            )
        }
        "reused" => Answer::Reused,
        "collision" => Answer::Collision,
        "unruled" => Answer::Unruled(parts.map(connection_of).collect::<Result<_, StoreError>>()?),
        "closed" => Answer::Closed(parts.map(connection_of).collect::<Result<_, StoreError>>()?),
        other => return Err(strange(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_wrote_reads_back() {
        let all = [
            ("3", Written::New(3)),
            ("-1", Written::Duplicate(0)),
            ("-4", Written::Duplicate(3)),
            ("reused", Written::Reused),
        ];
        for (text, written) in all {
            assert_eq!(Written::parse(text).unwrap(), written);
            assert_eq!(written.to_string(), text);
        }
        assert!(Written::parse("x").is_err());
    }
}
