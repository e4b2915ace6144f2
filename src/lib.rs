//! Patchbay, an integration connector gateway.
//!
//! A platform hands it events (a lead captured, an escalation, a conversation, a rating); it delivers them where the
//! platform's customers work, each mapped and signed as that place wants it. What it has accepted it delivers, or keeps
//! with a reason that a person understands.
//!
//! # The way of an event
//!
//! `api` takes it in and [`service::ingest`] checks it and finds the connections that want it; [`store`] writes it with
//! its jobs in one durable step; then comes the 202. [`worker`] leases jobs from the lanes, [`service::deliver`] maps
//! ([`mapping`]), renders and signs ([`connector`], [`signature`]), sends ([`egress`]) and reads the answer;
//! [`domain::settle`] decides what follows, and the outcome goes back into the store. Who would rather wait for the outcome
//! asks [`service::trigger`], which takes the same way without the lane. [`service::reload`] puts edited files in force.
//!
//! What other systems send comes to a source: [`service::receive`] verifies it by the connector's file, makes events of it
//! ([`connector`], [`mapping`]), and they go the same way.
//!
//! # Floors
//!
//! A module uses only those below it; `tests/it/floors.rs` holds the code to it.
//!
//! | floor | modules | what is absent there |
//! |---|---|---|
//! | 6 | `app`, `cli`, `main` | |
//! | 5 | `api` | SQL, HTTP clients |
//! | 4 | [`service`], [`worker`] | axum |
//! | 3 | [`connector`] | stores |
//! | 2 | [`store`], [`egress`] | each other; SQL lives in `store::sqlite` alone, Redis in `store::redis`, HTTP clients in `egress` |
//! | 1 | [`mapping`], [`signature`], [`spec`] | I/O, but for the catalogue's files |
//! | 0 | [`domain`], [`clock`] | I/O; the wall clock and randomness live in `clock` alone, the environment in `config` |
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | platform, operator | the system that emits events, and who runs the gateway for it |
//! | tenant | one customer of the platform; everything but the catalogue belongs to one |
//! | event | what happened: `id, type, time, tenant, source, data` |
//! | connector | a file that says how one system wants to be spoken to |
//! | connection | a tenant's use of a connector: events, filter, mapping, target, secrets, state |
//! | source | a tenant's way in for another system's webhooks, by a connector that receives |
//! | catalogue | all connectors and named mappings, built in and the operator's own |
//! | mapping | ordered rules that make the fields to be sent out of an event |
//! | job | one event for one connection, until it has ended |
//! | delivery | a job as the log shows it; of a source, one request that comes in |
//! | attempt | one try of a job |
//! | outcome | what an attempt came to: delivered, duplicate, retry, throttled, `auth_failed`, rejected, gone, ambiguous, `mapping_failed` |
//! | lane | one connection's queue of jobs |
//! | subscription, hook | a connection that a program made for itself |
//! | turn | a connection's right to send one request where a system takes only so many |
//! | lease | a worker's right to try a job until a deadline |
//! | settlement | an outcome on its way back into the store |
//! | batch | jobs of one lane that are tried together: rows of one append |
//! | outlet | what a connection delivers through: an endpoint, or a Google sheet |
//! | hold, bucket | what processes share: a thing that one has at a time, tokens of a quota |
//! | alert, note | an event of the gateway's own that tells a person something; what it is made of |
//! | backlog | the jobs that a connection kept while it did not deliver |
//! | chore | long work over what is kept that someone asked for: a replay, an erasure |
//! | record | a tenant, a key, a connection, a source or a chore: small, and known to every process |

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
pub mod domain;
pub mod egress;
pub mod mapping;
pub mod service;
pub mod signature;
pub mod spec;
pub mod store;
pub mod telemetry;
pub mod worker;
