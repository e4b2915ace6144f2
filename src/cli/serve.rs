//! `patchbay serve`: the gateway for real.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use crate::app::{self, AppError, RunningApp};
use crate::clock::{Clock, Entropy};
use crate::config::{Config, Environment, Given, Role};
use crate::domain::secret::Secret;
use crate::spec::Catalogue;
use crate::store::About;
use crate::telemetry;

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// With which settings.
    #[command(flatten)]
    settings: SettingFlags,
    /// Read connector and mapping files again whenever they change; SIGHUP does so too
    #[arg(long)]
    watch: bool,
    /// Stop when standard input closes: for a parent process
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// The settings that flags can give.
#[derive(Debug, Clone, Args)]
pub struct SettingFlags {
    /// Where the configuration and the data are.
    #[command(flatten)]
    settings: SettingArgs,
    /// Address and port to serve on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// What this process does: api, worker, or both (one of them alone needs Redis)
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
}

impl SettingFlags {
    /// What was given, as settings.
    pub fn flags(&self) -> Vec<Given> {
        let given = [("listen", "--listen", &self.listen), ("role", "--role", &self.role)];
        let flags = given
            .into_iter()
            .filter_map(|(key, name, text)| Some(Given { key, name: name.to_owned(), text: text.clone()? }));
        flags.chain(self.settings.folder()).collect()
    }

    /// The file that was named.
    pub fn file(&self) -> Option<&Path> {
        self.settings.config.as_deref()
    }

    /// The configuration, checked.
    pub fn load(&self, environment: &Environment) -> Result<Config, Failure> {
        Ok(Config::load(self.file(), environment, &self.flags())?)
    }
}

/// Where the configuration and the data are.
#[derive(Debug, Clone, Args)]
pub struct SettingArgs {
    /// The configuration file (patchbay.toml where there is one)
    #[arg(long, env = "PATCHBAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl SettingArgs {
    /// The configuration, with `flags` over it.
    pub fn load(&self, environment: &Environment, mut flags: Vec<Given>) -> Result<Config, Failure> {
        flags.extend(self.folder());
        Ok(Config::load(self.config.as_deref(), environment, &flags)?)
    }

    fn folder(&self) -> Option<Given> {
        let text = self.data_dir.as_ref()?.display().to_string();
        Some(Given { key: "data_dir", name: "--data-dir".to_owned(), text })
    }

    /// Faults of the configuration with those of the catalogue, so that a person mends all at once.
    fn beside_the_catalogue(&self, environment: &Environment, failure: Failure) -> Failure {
        let Failure::Faults(mut faults) = failure else { return failure };
        let folder = Config::catalogue_dir(self.config.as_deref(), environment, &[]);
        if let Err(found) = Catalogue::load(folder.as_deref()) {
            faults.extend(found);
        }
        Failure::Faults(faults)
    }
}

/// Serves until a signal comes.
pub async fn run(args: &ServeArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let config = args
        .settings
        .load(environment)
        .map_err(|failure| args.settings.settings.beside_the_catalogue(environment, failure))?;
    let _flush = telemetry::start(&config.log);
    let (mut signals, mut hangups) = (Signals::new()?, Hangups::new()?);
    let mut running = app::start(&config, Clock::system(), Entropy::system()).await?;
    if args.watch {
        running.watch();
    }
    announce(&running, &config, output);
    let mut closed = std::pin::pin!(stdin_closed());
    loop {
        tokio::select! {
            _ = signals.next() => break,
            () = &mut closed, if args.until_stdin_closes => break,
            () = hangups.next() => {
                // Beside the signals: a slow disk must not keep the process from ending.
                let reloader = running.reloader.clone();
                tokio::spawn(async move { reloader.reload().await });
            }
        }
    }
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = running.stop() => Ok(()),
        code = signals.next() => Err(Failure::Told(code)),
    }
}

fn announce(running: &RunningApp, config: &Config, output: Output) {
    let url = running.url();
    let folder = std::fs::canonicalize(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let folder = folder.display();
    let About { engine, durability, note, .. } = running.gateway.store.about();
    let role = config.role.name();
    let token = running.operator_token.as_ref().map(Secret::reveal);
    if output.is_json() {
        let line = json!({
            "address": running.address.to_string(), "url": url, "docs": format!("{url}/docs"),
            "data_dir": folder.to_string(), "role": role, "store": engine, "durability": durability, "note": note,
            "operator_key": token,
        });
        return output.lines(&line.to_string());
    }
    output.lines(&format!("Patchbay {} is ready.\n\n  address  {url}", env!("CARGO_PKG_VERSION")));
    match config.role {
        Role::Both => output.lines(&format!("  docs     {url}/docs")),
        Role::Api => output.lines(&format!("  docs     {url}/docs\n  role     api: it delivers nothing")),
        Role::Worker => output.lines("  role     worker: it delivers, and answers nothing but probes"),
    }
    output.lines(&format!("  data     {folder} (store: {engine}, durable: {durability})"));
    if let Some(note) = note {
        output.lines(&format!("\nWarning: {note}"));
    }
    if let Some(token) = token {
        output.lines(&format!(
            "\nThis is the first start, so there is a first operator key. It opens everything, is stored only as \
             a hash,\nand is shown this once:\n\n  {token}\n\nNext, in another terminal:\n\n  export \
             PATCHBAY_KEY={token}\n  patchbay tenants create acme --url {url}\n  patchbay keys create --tenant \
             acme --scopes publish --url {url}"
        ));
    }
    output.lines("\nCtrl-C stops it.");
}

async fn stdin_closed() {
    let (closed, heard) = tokio::sync::oneshot::channel();
    // A thread of its own: a blocking read would keep the runtime from ending.
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = heard.await;
}

/// The signal that asks the process to read its files again.
#[derive(Debug)]
struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Listens for it from now on.
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(unix)]
            hangup: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    /// The next one; never, where there is no such signal.
    async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// The signals that ask the process to end.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens for them from now on.
    pub fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let interrupt = signal(SignalKind::interrupt())?;
            Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// The next one that asks it to end, as the exit code that it is known by: 130 or 143.
    pub async fn next(&mut self) -> u8 {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            130
        }
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Catalogue(faults) => Self::Faults(faults),
            error => {
                let hint = error.hint();
                Self::Failed { message: error.to_string(), hint }
            }
        }
    }
}
