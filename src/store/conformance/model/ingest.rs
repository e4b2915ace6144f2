//! Taking events in, as the model sees it.

use proptest::prelude::*;

use super::{Model, ModelJob, TENANTS};
use crate::domain::id::ConnectionId;
use crate::domain::job::JobState;
use crate::store::conformance::world::tenant_id;
use crate::store::types::DEDUPE_SPAN;
use crate::store::{Accepted, Dedupe, DeliveryQuery, Ingest, Ingested};

impl Model {
    pub(super) async fn ingest(
        &mut self,
        tenant: usize,
        lanes: u16,
        count: u8,
        dedupe: Option<u8>,
        content: u8,
        idempotency: Option<u8>,
    ) -> Result<(), TestCaseError> {
        let now = self.now();
        // Keys are hashes of tenant and key: no two tenants have the same.
        let own = |key: u8| key * u8::try_from(TENANTS.len()).unwrap() + u8::try_from(tenant).unwrap();
        let (dedupe, idempotency) = (dedupe.map(own), idempotency.map(own));
        let chosen: Vec<usize> = (0..self.lanes.len())
            .filter(|at| self.lanes[*at].tenant == tenant && lanes >> (at % 16) & 1 == 1)
            .collect();
        let to: Vec<ConnectionId> = chosen.iter().map(|at| self.lanes[*at].id).collect();
        let taking = chosen.iter().filter(|at| self.lanes[**at].takes_jobs()).count();
        let taking = u32::try_from(taking).unwrap();
        let key = |key: u8| Dedupe { key: [key; 16], content: [content; 16] };
        let mut events = Vec::new();
        let mut wanted = Vec::new();
        let remembered =
            idempotency.and_then(|key| self.requests.get(&key)).filter(|(_, _, expires)| *expires > now);
        let is_new = remembered.is_none();
        for at in 0..count {
            // Only the first has a key, so that it is the repeats that repeat.
            let dedupe = dedupe.filter(|_| at == 0);
            let mut event = match dedupe {
                Some(dedupe) => self.world().event_named(TENANTS[tenant], &format!("event-{dedupe}"), &to),
                None => self.world().event(TENANTS[tenant], &to),
            };
            let id = event.event.id.clone();
            event.dedupe = dedupe.map(|dedupe| key(100 + dedupe));
            let seen = dedupe
                .and_then(|key| self.events.get(&key))
                .filter(|(_, _, expires)| *expires > now)
                .copied();
            wanted.push(match seen {
                Some((other, ..)) if other != content => Accepted::IdReused { id },
                Some((_, jobs, _)) => Accepted::Stored { id, jobs, duplicate: true },
                None => {
                    if let Some(dedupe) = dedupe.filter(|_| is_new) {
                        self.events.insert(dedupe, (content, taking, now.plus(DEDUPE_SPAN)));
                    }
                    Accepted::Stored { id, jobs: taking, duplicate: false }
                }
            });
            events.push(event);
        }
        let ingest = Ingest { idempotency: idempotency.map(key), events: events.clone() };
        let answer = self.world().store.ingest(ingest).await.unwrap();
        match remembered {
            Some((other, ..)) if *other != content => {
                prop_assert_eq!(answer, Ingested::KeyReused);
                return Ok(());
            }
            Some((_, first, _)) => {
                prop_assert_eq!(answer, Ingested::Repeated(first.clone()));
                return Ok(());
            }
            None => prop_assert_eq!(answer, Ingested::Stored(wanted.clone())),
        }
        if let Some(key) = idempotency {
            self.requests.insert(key, (content, wanted.clone(), now.plus(DEDUPE_SPAN)));
        }
        for accepted in wanted {
            if let Accepted::Stored { id, jobs, duplicate: false } = accepted {
                self.learn_jobs(tenant, &id, jobs).await?;
            }
        }
        Ok(())
    }

    /// Finds the new jobs of an event in the log; its id may have been another's once.
    async fn learn_jobs(&mut self, tenant: usize, event: &str, jobs: u32) -> Result<(), TestCaseError> {
        let query = DeliveryQuery {
            tenant: Some(tenant_id(TENANTS[tenant])),
            event: Some(event.to_owned()),
            limit: 100,
            ..DeliveryQuery::default()
        };
        let mut made = self.world().store.deliveries(query).await.unwrap().items;
        made.retain(|delivery| !self.jobs.contains_key(&delivery.job.id));
        prop_assert_eq!(made.len(), jobs as usize);
        for delivery in made {
            let lane = self.lanes.iter().position(|lane| lane.id == delivery.job.connection).unwrap();
            prop_assert!(self.lanes[lane].takes_jobs());
            let job = ModelJob {
                lane,
                state: JobState::Queued,
                due: None,
                finished: None,
                attempts: 0,
                tries: 0,
                lease: None,
                shaken: false,
                by_hand: false,
            };
            self.jobs.insert(delivery.job.id, job);
        }
        Ok(())
    }
}
