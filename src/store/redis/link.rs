//! Connections to the server: one address, one behind sentinels, or a cluster; made anew by themselves when they break.
//!
//! A call that fails drops its connection, and the next call makes another. What a call did when no answer came is not
//! known here; every script is written so that running it again does no harm.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::RedisSettings;
use super::address::Server;
use super::script::{Call, Script};
use crate::store::StoreError;

/// How long a connection may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// After a connection could not be made, calls fail at once for this long.
const REST: Duration = Duration::from_millis(100);

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn run(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::One(connection) => query(pipeline, connection).await,
            Self::Cluster(connection) => query(pipeline, connection).await,
        }
    }

    /// Runs a command alone, as one for every node of a cluster has to be; fails only without a connection.
    async fn opens(&mut self, command: &Cmd) -> RedisResult<()> {
        let ran = match self {
            Self::One(connection) => command.query_async::<Value>(connection).await,
            Self::Cluster(connection) => command.query_async::<Value>(connection).await,
        };
        match ran {
            Err(error) if error.is_unrecoverable_error() => Err(error),
            _ => Ok(()),
        }
    }
}

async fn query(
    pipeline: &Pipeline,
    connection: &mut impl ConnectionLike,
) -> RedisResult<Vec<RedisResult<Value>>> {
    pipeline.query_async(connection).await
}

#[derive(Default)]
struct Live {
    connection: Option<Connection>,
    /// Counts the connections that were made.
    generation: u64,
    failed: Option<(Instant, StoreError)>,
}

/// One thing to run.
pub(super) enum Step<'a> {
    /// A script.
    Script(&'a Script, Call),
    /// A plain command.
    Plain(Cmd),
}

impl Step<'_> {
    fn command(&self, full: bool) -> Cmd {
        match self {
            Self::Script(script, call) => script.command(call, full),
            Self::Plain(command) => command.clone(),
        }
    }
}

/// Answers to the steps of a pipeline, in order.
pub(super) type Answers = Vec<Result<Value, StoreError>>;

/// Answers to steps, and the answer to the wait that followed them if one was asked for.
pub(super) struct Waited {
    pub answers: Answers,
    pub wait: Option<Result<Value, StoreError>>,
}

/// A connection that heals.
pub(super) struct Link {
    server: Arc<Server>,
    /// Run on every new connection.
    opening: Vec<Cmd>,
    /// Whether what got no answer is sent once more: only what reads may come twice.
    resends: bool,
    live: Mutex<Live>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// To the server of `url`; connects when it is first used.
    ///
    /// `redis://user:password@host:port/db` or `rediss://` (TLS); `redis+sentinel://user:password@host:port,host:port/name/db`;
    /// `redis+cluster://user:password@host:port,host:port`; the last two also as `rediss+`. `authorities` are the
    /// certificates (PEM) that servers are known by with TLS; without them those of the system.
    pub fn new(url: &str, authorities: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let server = Server::of(url, authorities).map_err(|error| {
            // The error's detail may repeat the URL, and with it the password.
            StoreError::Unavailable(format!("the address of Redis can't be used: {}", error.category()))
        })?;
        Ok(Self { server: Arc::new(server), opening: Vec::new(), resends: false, live: Mutex::default() })
    }

    /// To the server that the settings name.
    pub async fn of(settings: &RedisSettings) -> Result<Self, StoreError> {
        let authorities = match &settings.ca_file {
            Some(file) => Some(tokio::fs::read(file).await.map_err(|error| {
                StoreError::Unavailable(format!(
                    "the certificates in {} can't be read: {error}",
                    file.display()
                ))
            })?),
            None => None,
        };
        Self::new(&settings.url, authorities)
    }

    /// Another connection to the same server, for what only reads: that a connection was cut since it was last used costs
    /// nobody an answer.
    pub fn for_reads(&self) -> Self {
        Self { resends: true, ..self.opening_with(Vec::new()) }
    }

    /// Another connection to the same server, on which these commands run first whenever it is made. They are to save
    /// time: an answer that refuses them is passed over.
    pub fn opening_with(&self, opening: Vec<Cmd>) -> Self {
        Self { server: Arc::clone(&self.server), opening, resends: false, live: Mutex::default() }
    }

    /// Whether keys are spread over several servers.
    pub fn is_cluster(&self) -> bool {
        matches!(*self.server, Server::Cluster { .. })
    }

    async fn connection(&self) -> Result<(Connection, u64), StoreError> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &live.connection {
            return Ok((connection.clone(), live.generation));
        }
        if let Some((at, error)) = &live.failed
            && at.elapsed() < REST
        {
            return Err(error.clone());
        }
        match timeout(CONNECT, self.connect_and_open()).await {
            Ok(Ok(connection)) => {
                live.generation += 1;
                live.failed = None;
                live.connection = Some(connection.clone());
                Ok((connection, live.generation))
            }
            other => {
                let error = match other {
                    Ok(Err(error)) => store_error(&error),
                    _ => StoreError::Unavailable("no connection to Redis within a second".to_owned()),
                };
                live.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect_and_open(&self) -> RedisResult<Connection> {
        let mut connection = self.connect().await?;
        for command in &self.opening {
            connection.opens(command).await?;
        }
        Ok(connection)
    }

    async fn connect(&self) -> RedisResult<Connection> {
        // Each call has its own limit.
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(CONNECT));
        Ok(match &*self.server {
            Server::One(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Server::Sentinel(client) => {
                Connection::One(client.lock().await.get_async_connection_with_config(&config).await?)
            }
            Server::Cluster { client, .. } => Connection::Cluster(client.get_async_connection().await?),
        })
    }

    async fn forget(&self, generation: u64) {
        let mut live = self.live.lock().await;
        if live.generation == generation {
            live.connection = None;
        }
    }

    /// Runs steps whose keys lie together, as one pipeline; an answer that takes longer than `limit` counts as none.
    pub async fn run(&self, steps: &[Step<'_>], limit: Duration) -> Result<Answers, StoreError> {
        Ok(self.run_and_wait(steps, None, limit).await?.answers)
    }

    /// [`Self::run`], and then the command that waits until what the steps wrote is kept as it was promised.
    pub async fn run_and_wait(
        &self,
        steps: &[Step<'_>],
        wait: Option<&Cmd>,
        limit: Duration,
    ) -> Result<Waited, StoreError> {
        if steps.is_empty() {
            return Ok(Waited { answers: Vec::new(), wait: None });
        }
        let commands = steps.iter().map(|step| step.command(false));
        let mut answers = self.send(commands.chain(wait.cloned()), limit).await?;
        // The server forgot scripts: nothing of them ran, so they are sent again in full.
        let forgotten: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(error) if is_forgotten(error)))
            .map(|(at, _)| at)
            .collect();
        if !forgotten.is_empty() {
            let scripts = forgotten.iter().filter_map(|at| Some(steps.get(*at)?.command(true)));
            // Behind them the wait again, as the first did not know of them.
            let again = self.send(scripts.chain(wait.cloned()), limit).await?;
            let behind = wait.map(|_| steps.len());
            for (at, answer) in forgotten.into_iter().chain(behind).zip(again) {
                answers[at] = answer;
            }
        }
        let mut answers: Answers =
            answers.into_iter().map(|answer| answer.map_err(|error| store_error(&error))).collect();
        let wait = wait.and_then(|_| answers.pop());
        Ok(Waited { answers, wait })
    }

    async fn send(
        &self,
        commands: impl Iterator<Item = Cmd>,
        limit: Duration,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command(command);
        }
        let work = async {
            let (mut connection, mut generation) = self.connection().await?;
            let mut ran = connection.run(&pipeline).await;
            // The library sends again on a cluster.
            if self.resends && ran.is_err() && !self.is_cluster() {
                self.forget(generation).await;
                (connection, generation) = self.connection().await?;
                ran = connection.run(&pipeline).await;
            }
            Ok::<_, StoreError>((ran, generation))
        };
        let Ok(worked) = timeout(limit, work).await else {
            // A connection that swallows what it is sent is as bad as none.
            let generation = self.live.try_lock().map(|live| live.generation);
            if let Ok(generation) = generation {
                self.forget(generation).await;
            }
            return Err(StoreError::Unavailable(format!("no answer from Redis within {limit:?}")));
        };
        let (result, generation) = worked?;
        match result {
            Ok(answers) => {
                if answers.iter().any(|answer| matches!(answer, Err(error) if is_misplaced(error))) {
                    self.forget(generation).await;
                }
                Ok(answers)
            }
            Err(error) => {
                if !self.is_cluster() || error.is_unrecoverable_error() {
                    self.forget(generation).await;
                }
                Err(store_error(&error))
            }
        }
    }

    /// Runs groups of steps; the keys of each group lie together.
    pub async fn run_groups(
        &self,
        groups: Vec<Vec<Step<'_>>>,
        limit: Duration,
    ) -> Vec<Result<Answers, StoreError>> {
        let ran = self.run_groups_and_wait(groups, None, limit).await;
        ran.into_iter().map(|ran| Ok(ran?.answers)).collect()
    }

    /// [`Self::run_groups`], and then the command that waits, once for every server that was written to.
    pub async fn run_groups_and_wait(
        &self,
        groups: Vec<Vec<Step<'_>>>,
        wait: Option<&Cmd>,
        limit: Duration,
    ) -> Vec<Result<Waited, StoreError>> {
        if self.is_cluster() {
            return join_all(groups.iter().map(|steps| self.run_and_wait(steps, wait, limit))).await;
        }
        let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
        let all: Vec<Step<'_>> = groups.into_iter().flatten().collect();
        match self.run_and_wait(&all, wait, limit).await {
            Ok(Waited { answers, wait }) => {
                let mut answers = answers.into_iter();
                let share =
                    |length| Waited { answers: answers.by_ref().take(length).collect(), wait: wait.clone() };
                lengths.into_iter().map(share).map(Ok).collect()
            }
            Err(error) => lengths.into_iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Runs one script.
    pub async fn script(&self, script: &Script, call: Call, limit: Duration) -> Result<Value, StoreError> {
        self.one(Step::Script(script, call), limit).await
    }

    /// Runs one command.
    pub async fn plain(&self, command: Cmd, limit: Duration) -> Result<Value, StoreError> {
        self.one(Step::Plain(command), limit).await
    }

    async fn one(&self, step: Step<'_>, limit: Duration) -> Result<Value, StoreError> {
        let mut answers = self.run(&[step], limit).await?;
        answers.pop().unwrap_or(Err(StoreError::Unavailable("Redis gave no answer".to_owned())))
    }

    /// A connection for subscriptions; any node of a cluster passes messages on.
    pub async fn subscriber(&self) -> Result<redis::aio::PubSub, StoreError> {
        let connect = async {
            match &*self.server {
                Server::One(client) => client.get_async_pubsub().await,
                Server::Sentinel(client) => {
                    let client = client.lock().await.async_get_client().await?;
                    client.get_async_pubsub().await
                }
                Server::Cluster { seeds, .. } => {
                    let mut last = RedisError::from((redis::ErrorKind::Io, "no node of the cluster answers"));
                    for seed in seeds {
                        match seed.get_async_pubsub().await {
                            Ok(subscriber) => return Ok(subscriber),
                            Err(error) => last = error,
                        }
                    }
                    Err(last)
                }
            }
        };
        match timeout(CONNECT, connect).await {
            Ok(connected) => connected.map_err(|error| store_error(&error)),
            Err(_) => Err(StoreError::Unavailable("no connection to Redis within a second".to_owned())),
        }
    }
}

fn is_forgotten(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Whether the server can't take writes because another one should.
fn is_misplaced(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// What an error of Redis means to a caller, in the server's own words.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    let words = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    match error.code() {
        Some("OOM") => StoreError::Full(words),
        // A script's refusal by its flags comes as a plain error.
        _ if words.contains("maxmemory") => StoreError::Full(words),
        _ => StoreError::Unavailable(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_is_told_apart_from_one_out_of_reach() {
        let error = |code: &str, words: &str| {
            store_error(&redis::make_extension_error(code.to_owned(), Some(words.to_owned())))
        };
        assert!(matches!(
            error("OOM", "command not allowed when used memory > 'maxmemory'."),
            StoreError::Full(_)
        ));
        assert!(matches!(error("ERR", "can not run it when used memory > 'maxmemory'"), StoreError::Full(_)));
        assert_eq!(
            error("MISCONF", "Errors writing to the AOF file"),
            StoreError::Unavailable("MISCONF Errors writing to the AOF file".to_owned())
        );
    }
}
