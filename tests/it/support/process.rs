//! The built program as a process of its own, to be killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::RwLock;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Where a gateway answers and with which key; follows it from one life to the next.
#[derive(Debug, Clone, Default)]
pub struct Door {
    address: Arc<RwLock<String>>,
    key: Arc<RwLock<String>>,
}

/// What processes on one Redis seal secrets with.
pub const SECRET_KEY: &str = "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlISE=";

impl Door {
    /// A door to another process that the same key opens.
    pub fn beside(&self) -> Self {
        Self { address: Arc::default(), key: Arc::clone(&self.key) }
    }

    /// The key that opens it.
    pub fn key(&self) -> String {
        self.key.read().clone()
    }

    /// The same place with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: Arc::clone(&self.address), key: Arc::new(RwLock::new(key.to_owned())) }
    }

    /// Where it listens, or listened last.
    pub fn address(&self) -> String {
        self.address.read().clone()
    }

    /// Posts JSON; answers status, headers and body, or `None` when nothing answered.
    pub async fn ask(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: &Value,
    ) -> Option<(u16, HeaderMap, Value)> {
        let request = client
            .post(format!("http://{}{path}", self.address.read()))
            .header("authorization", format!("Bearer {}", self.key.read()))
            .header("content-type", "application/json");
        let mut response = request.body(body.to_string()).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let text = response.text().await.ok()?;
        Some((status, headers, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// One request; `None` when nothing answered.
    pub async fn call(
        &self,
        client: &reqwest::Client,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("http://{}{path}", self.address.read());
        let mut request = client
            .request(method.parse().unwrap(), url)
            .header("authorization", format!("Bearer {}", self.key.read()));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Makes the tenant `acme` and a connection for all its events; a delivery is no more than its event's id.
    pub async fn connect(&self, client: &reqwest::Client, url: &str) {
        let tenant = json!({"id": "acme", "name": "Acme"});
        let connection = json!({"tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
            "mapping": {"version": 1, "fields": [{"to": "id", "from": "$.id"}]}, "target": {"url": url}});
        for (path, wanted) in [("/v1/tenants", tenant), ("/v1/connections", connection)] {
            let (status, made) = self.call(client, "POST", path, Some(&wanted)).await.unwrap();
            assert_eq!(status, 201, "{made}");
        }
    }
}

/// A client for [`Door::call`]; a request that takes longer than 5 s has failed.
pub fn client() -> reqwest::Client {
    // An error means that another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(5)).build().unwrap()
}

/// A running `patchbay serve`.
pub struct Process {
    child: Child,
    folder: PathBuf,
    door: Door,
}

impl Process {
    /// Starts it on a folder and waits until it listens. Loopback and plain HTTP are allowed.
    pub fn start(folder: &Path, door: &Door) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.env("PATCHBAY_LOG_LEVEL", "error");
        Self::start_as(command, folder, door, &[])
    }

    /// The same on a Redis that other processes share, with `more` arguments.
    pub fn start_on(redis: &str, folder: &Path, door: &Door, more: &[&str]) -> Self {
        Self::start_on_with(redis, folder, door, &[], more)
    }

    /// The same with more settings, as environment variables.
    pub fn start_on_with(
        redis: &str,
        folder: &Path,
        door: &Door,
        settings: &[(&str, String)],
        more: &[&str],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.env("PATCHBAY_STORE", redis).env("PATCHBAY_SECRET_KEY", SECRET_KEY);
        // It is made to fail all the time, and says so.
        command.env("PATCHBAY_LOG_LEVEL", "off");
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        Self::start_as(command, folder, door, more)
    }

    /// On a folder with more settings, as environment variables.
    pub fn start_with(folder: &Path, door: &Door, settings: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.env("PATCHBAY_LOG_LEVEL", "error");
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        Self::start_as(command, folder, door, &[])
    }

    /// The same as a child of its own shell, which has it take a file that may not grow for an error and not for the end.
    #[cfg(target_os = "linux")]
    pub fn start_with_file_limits(folder: &Path, door: &Door) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_patchbay")]);
        command.env("PATCHBAY_LOG_LEVEL", "error");
        Self::start_as(command, folder, door, &[])
    }

    /// The same with the log of a default install, as JSON, in a file.
    pub fn start_logged(folder: &Path, door: &Door, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.env("PATCHBAY_LOG_FORMAT", "json").stderr(std::fs::File::create(log).unwrap());
        Self::start_as(command, folder, door, &[])
    }

    /// The same on a socket that outlives it, handed over as systemd does; by a shell, for the crate forbids unsafe code.
    #[cfg(unix)]
    pub fn start_on_socket(socket: &std::net::TcpListener, folder: &Path, door: &Door) -> Self {
        const HAND_OVER: &str = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_patchbay")]).env("PATCHBAY_LOG_LEVEL", "error");
        let socket = std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
        Self::start_from(command, Stdio::from(socket), folder, door, &[])
    }

    fn start_as(command: Command, folder: &Path, door: &Door, more: &[&str]) -> Self {
        Self::start_from(command, Stdio::null(), folder, door, more)
    }

    fn start_from(mut command: Command, stdin: Stdio, folder: &Path, door: &Door, more: &[&str]) -> Self {
        const RATE: &str = "PATCHBAY_LIMITS_EVENTS_PER_SECOND";
        if command.get_envs().all(|(name, _)| name != RATE) {
            command.env(RATE, "0");
        }
        let mut child = command
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(more)
            .env_remove("PATCHBAY_SOAK")
            .env("PATCHBAY_EGRESS_ALLOW_HTTP", "true")
            .env("PATCHBAY_EGRESS_ALLOW_RANGES", "127.0.0.0/8")
            .env("PATCHBAY_DELIVERY_DRAIN_SECS", "2")
            // The tests' own, which the program does not know.
            .env_remove("PATCHBAY_SOAK")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        told["address"].as_str().unwrap().clone_into(&mut door.address.write());
        if let Some(key) = told["operator_key"].as_str() {
            key.clone_into(&mut door.key.write());
        }
        Self { child, folder: folder.to_owned(), door: door.clone() }
    }

    /// Kills it at once (SIGKILL); answers once it is gone.
    pub fn kill(mut self) -> (PathBuf, Door) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.folder.clone(), self.door.clone())
    }

    /// Asks it to end, by SIGTERM; by the system's own tool, for the crate forbids unsafe code.
    pub fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Where it answers.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; answers the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves none behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KiB of memory that a process has in use.
pub fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
