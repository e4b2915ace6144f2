//! A large request cut into parts: what each holds, and how it is read again by whoever puts it into the lanes.

use crate::domain::id::ConnectionId;
use crate::store::redis::keys::{BASE, Base};
use crate::store::types::{Dedupe, NewEvent, NewJob};

/// Events and jobs in a part: half of what a small request may have, as each may touch a lane of its own.
pub(super) const PART: usize = 64;
/// Bytes of a job in a part: connection, mapping, whether it is triggered.
const JOB: usize = 33;

/// A request that is cut into parts.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// That of its first event.
    pub name: Base,
    pub parts: Vec<Part<'a>>,
}

/// Some of its events and their jobs, at most [`PART`] together.
#[derive(Debug, Default)]
pub(super) struct Part<'a> {
    /// As they lie in Redis.
    pub bytes: Vec<u8>,
    /// The events that begin in it, in the request's order.
    pub heads: Vec<Head<'a>>,
}

/// An event of a request.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// Its number in the request.
    pub at: usize,
    pub base: Base,
    pub jobs: usize,
    pub new: &'a NewEvent,
}

/// An event with the jobs it gets.
pub(super) struct Named<'a> {
    pub new: &'a NewEvent,
    pub base: Base,
    pub meta: Vec<u8>,
    pub jobs: Vec<NewJob>,
}

impl<'a> Request<'a> {
    /// Cuts events, in their order, into as few parts as carry them.
    pub fn cut(events: impl Iterator<Item = Named<'a>>) -> Self {
        let mut name = None;
        let mut parts = vec![Part::default()];
        let mut room = PART;
        for (at, Named { new, base, meta, jobs }) in events.enumerate() {
            name.get_or_insert(base);
            let mut first = 0;
            loop {
                if room < 2 {
                    parts.push(Part::default());
                    room = PART;
                }
                let some = &jobs[first..jobs.len().min(first + room - 1)];
                if let Some(part) = parts.last_mut() {
                    write_jobs(&mut part.bytes, at, &base, jobs.len(), first, some);
                    if first == 0 {
                        part.heads.push(Head { at, base, jobs: jobs.len(), new });
                        write_head(&mut part.bytes, &meta, new);
                    } else {
                        write_number(&mut part.bytes, 0);
                    }
                }
                room -= 1 + some.len();
                first += some.len();
                if first >= jobs.len() {
                    break;
                }
            }
        }
        Self { name: name.unwrap_or([0; BASE]), parts }
    }
}

/// Some jobs of an event: its number in the request, base, number of all its jobs, the first of these, and they.
fn write_jobs(part: &mut Vec<u8>, at: usize, base: &Base, all: usize, first: usize, jobs: &[NewJob]) {
    write_number(part, at);
    part.extend_from_slice(base);
    write_number(part, all);
    write_number(part, first);
    write_number(part, jobs.len());
    for job in jobs {
        part.extend_from_slice(&job.connection.bits().to_be_bytes());
        part.extend_from_slice(&job.mapping.bits().to_be_bytes());
        part.push(u8::from(job.triggered));
    }
}

/// The event itself: meta, document, dedupe key (nothing for none). Where only further jobs of it follow, its meta is empty
/// and the rest is not there.
fn write_head(part: &mut Vec<u8>, meta: &[u8], new: &NewEvent) {
    write_bytes(part, meta);
    write_bytes(part, new.event.document.text());
    write_bytes(part, new.dedupe.as_ref().map_or(&[], |Dedupe { key, .. }| key));
}

fn write_number(part: &mut Vec<u8>, number: usize) {
    // A request has at most some thousand events and connections.
    part.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn write_bytes(part: &mut Vec<u8>, bytes: &[u8]) {
    write_number(part, bytes.len());
    part.extend_from_slice(bytes);
}

/// Some jobs of an event, read from a part.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// The event's number in the request.
    pub at: u32,
    pub base: Base,
    /// How many jobs the event has.
    pub all: u32,
    /// The number of the first of these.
    pub first: u32,
    jobs: &'a [u8],
    /// The event itself, where these are its first jobs.
    pub head: Option<Written<'a>>,
}

/// An event, read from a part.
#[derive(Debug)]
pub(super) struct Written<'a> {
    /// Without the count of jobs.
    pub meta: &'a [u8],
    pub document: &'a [u8],
    pub dedupe: Option<[u8; 16]>,
}

/// A job, read from a part.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub connection: ConnectionId,
    pub mapping: &'a [u8],
    pub triggered: bool,
}

impl<'a> Piece<'a> {
    /// The next piece of what is left to read of a part, which gets shorter; `None` where it can't be read.
    pub fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let (at, base) = (number(rest)?, Base::try_from(take(rest, BASE)?).ok()?);
        let (all, first, count) = (number(rest)?, number(rest)?, number(rest)?);
        let jobs = take(rest, usize::try_from(count).ok()?.checked_mul(JOB)?)?;
        let meta = bytes(rest)?;
        let head = if meta.is_empty() {
            None
        } else {
            let (document, dedupe) = (bytes(rest)?, bytes(rest)?);
            Some(Written { meta, document, dedupe: dedupe.try_into().ok() })
        };
        Some(Self { at, base, all, first, jobs, head })
    }

    /// Its jobs.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = Job<'a>> + use<'a> {
        let jobs = self.jobs.as_chunks::<JOB>().0;
        jobs.iter().map(|[ids @ .., triggered]| {
            let (connection, mapping) = ids.split_at(16);
            let bits = connection.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte));
            Job { connection: ConnectionId::from_bits(bits), mapping, triggered: *triggered == 1 }
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    take(rest, usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::event::Event;
    use crate::domain::id::{EventKey, MappingVersion};
    use crate::domain::time::Timestamp;

    #[test]
    fn parts_read_back_and_none_holds_too_much() {
        let new = |at: u8, jobs: u32| NewEvent {
            event: Arc::new(Event {
                key: EventKey::from_bits(u128::from(at)),
                id: at.to_string(),
                kind: "lead.captured".to_owned(),
                tenant: "acme".parse().unwrap(),
                source: None,
                received: Timestamp::from_millis(1),
                document: serde_json::json!({ "id": at }).into(),
            }),
            dedupe: at.is_multiple_of(2).then_some(Dedupe { key: [at; 16], content: [1; 16] }),
            jobs: (0..jobs)
                .map(|job| NewJob {
                    connection: ConnectionId::from_bits(u128::from(job)),
                    mapping: MappingVersion::from_bits(7),
                    triggered: job % 3 == 0,
                })
                .collect(),
        };
        let events: Vec<NewEvent> =
            [0, 1, 62, 63, 200].into_iter().zip(1..).map(|(n, at)| new(at, n)).collect();
        let named = events.iter().zip(1_u8..).map(|(new, at)| Named {
            new,
            base: [at; BASE],
            meta: vec![at; 3],
            jobs: new.jobs.clone(),
        });
        let request = Request::cut(named);
        assert_eq!(request.name, [1; BASE]);
        let mut found: Vec<(usize, Vec<NewJob>)> = Vec::new();
        for part in &request.parts {
            let (mut rest, mut weight, mut heads) = (&part.bytes[..], 0, Vec::new());
            while !rest.is_empty() {
                let piece = Piece::read(&mut rest).unwrap();
                let at = usize::try_from(piece.at).unwrap();
                weight += 1 + piece.jobs().len();
                if let Some(head) = &piece.head {
                    heads.push(at);
                    assert_eq!(
                        (head.document, head.meta),
                        (&events[at].event.document.text()[..], &[piece.base[0]; 3][..])
                    );
                    assert_eq!(head.dedupe, events[at].dedupe.map(|dedupe| dedupe.key));
                    found.push((usize::try_from(piece.all).unwrap(), Vec::new()));
                }
                let (_, jobs) = found.last_mut().unwrap();
                assert_eq!(jobs.len(), usize::try_from(piece.first).unwrap());
                jobs.extend(piece.jobs().map(|job| NewJob {
                    connection: job.connection,
                    mapping: MappingVersion::from_bits(u128::from_be_bytes(job.mapping.try_into().unwrap())),
                    triggered: job.triggered,
                }));
            }
            assert!(weight <= PART, "{weight}");
            assert_eq!(part.heads.iter().map(|head| head.at).collect::<Vec<_>>(), heads);
        }
        let wanted: Vec<_> = events.iter().map(|event| (event.jobs.len(), event.jobs.clone())).collect();
        assert_eq!(found, wanted);
        let whole = &request.parts[0].bytes;
        assert!(Piece::read(&mut &whole[..20]).is_none());
    }
}
