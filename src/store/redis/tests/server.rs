//! A real `redis-server` of a test's own: a random port, a folder that goes with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// How long a test waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A setting that is a port of the server's own, whichever.
pub const ANY_PORT: &str = "any port";

/// A port that nobody is given by chance while this lives. Nobody listens there but who is told of it.
pub struct Port {
    _held: TcpSocket,
    pub number: u16,
}

impl Port {
    pub fn reserve() -> Self {
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { number: held.local_addr().unwrap().port(), _held: held }
    }
}

/// A running server; ends with the test.
pub struct Server {
    child: Option<Child>,
    folder: TempDir,
    pub port: u16,
    settings: Vec<String>,
    /// Its own also while it is down.
    _ports: Vec<Port>,
}

impl Server {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&["--appendonly", "no"])
    }

    /// Starts one whose every answer is on disk.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these settings.
    pub fn with(settings: &[&str]) -> Self {
        let mut ports = vec![Port::reserve()];
        let port = ports[0].number;
        let settings = settings.iter().map(|&setting| {
            if setting != ANY_PORT {
                return setting.to_owned();
            }
            ports.push(Port::reserve());
            ports[ports.len() - 1].number.to_string()
        });
        let settings = settings.collect();
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { child: None, folder, port, settings, _ports: ports };
        server.launch();
        server
    }

    /// Starts it, with what it has on disk.
    pub fn launch(&mut self) {
        // A settings file comes first, if there is one.
        let (file, settings) = match self.settings.split_first() {
            Some((first, rest)) if !first.starts_with("--") => (Some(first), rest),
            _ => (None, &self.settings[..]),
        };
        let child = Command::new("redis-server")
            .args(file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.folder.path())
            .args(settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server: install it, or run tests/run, which does");
        self.child = Some(child);
        let began = Instant::now();
        while !self.answers() {
            assert!(began.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 5];
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // One that wants a password answers too.
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && [b"+PONG", b"-NOAU"].contains(&&answer)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub fn pause(&self, pause: bool) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let signal = if pause { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The value of a setting that it was started with.
    pub fn setting(&self, name: &str) -> String {
        let at = self.settings.iter().position(|setting| setting == name).unwrap();
        self.settings[at + 1].clone()
    }

    /// Runs a command on a connection of its own.
    pub async fn run(&self, command: &redis::Cmd) -> redis::RedisResult<Value> {
        // The library's own limit is half a second, which a busy machine may take.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
        command.query_async(&mut connection).await
    }

    async fn try_command(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        self.run(&command).await
    }

    /// Runs a command that has to go well.
    pub async fn command(&self, words: &[&str]) -> Value {
        self.try_command(words).await.unwrap()
    }

    /// A number out of `INFO`.
    pub async fn info(&self, section: &str, field: &str) -> f64 {
        let text: String = redis::from_redis_value(self.command(&["INFO", section]).await).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
