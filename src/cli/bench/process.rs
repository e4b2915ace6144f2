//! The measured gateway: this same program, started as a process of its own, and what the system knows of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::config::own_program;

/// How many ticks of `/proc/<pid>/stat` make a second: fixed by Linux for user space (`USER_HZ`, proc(5)).
const TICKS_PER_SEC: f64 = 100.0;
/// How long a gateway may take until it answers that it is ready.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// A gateway in a process of its own; it ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    /// Where it serves.
    pub address: SocketAddr,
    /// Its operator key; empty where an earlier start made it.
    pub operator_key: String,
    /// From its start to saying that it is ready.
    pub started: Duration,
    /// From its start to answering that it is ready.
    pub healthy: Duration,
    child: Child,
}

impl Gateway {
    /// Starts `serve` with a configuration file and waits until it says where it listens. Its log goes to `log`.
    pub fn start(config: &Path, log: &Path) -> Result<Self, Failure> {
        let began = Instant::now();
        let mut child = Command::new(own_program()?)
            .args(["serve", "--json", "--until-stdin-closes", "--config"])
            .arg(config)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let started = began.elapsed();
        let told: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = told["address"].as_str().and_then(|text| text.parse().ok());
        let healthy = address.and_then(|address| ready(address, began));
        let (Some(address), Some(healthy)) = (address, healthy) else {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            return Err(Failure::failed(format!("the gateway did not start: {}", said.trim())));
        };
        let operator_key = told["operator_key"].as_str().unwrap_or_default().to_owned();
        Ok(Self { address, operator_key, started, healthy, child })
    }

    /// Seconds of CPU that it has used so far; `None` where the system does not tell.
    pub fn cpu_secs(&self) -> Option<f64> {
        cpu_secs_of(self.child.id())
    }

    /// KiB of memory under `name` (`VmRSS` now, `VmHWM` at most); `None` where the system does not tell.
    pub fn memory_kib(&self, name: &str) -> Option<u64> {
        memory_kib_in(&std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?, name)
    }

    /// The same in MB, millions of bytes.
    pub fn memory_mb(&self, name: &str) -> Option<f64> {
        self.memory_kib(name).map(|kib| super::mib(kib) * 1.048_576)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It stops by itself when its standard input closes.
        drop(self.child.stdin.take());
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long after `began` the gateway answers that it is ready; `None` when it doesn't in good time.
fn ready(address: SocketAddr, began: Instant) -> Option<Duration> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, READY_LIMIT)?;
        stream.set_read_timeout(Some(READY_LIMIT))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).map(|()| status)
    };
    loop {
        match ask() {
            Ok(status) if status.ends_with(b" 200") => return Some(began.elapsed()),
            _ if began.elapsed() > READY_LIMIT => return None,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Seconds of CPU that this process, which sends and receives, has used so far; `None` where the system does not tell.
pub fn own_cpu_secs() -> Option<f64> {
    cpu_secs_of(std::process::id())
}

fn cpu_secs_of(process: u32) -> Option<f64> {
    cpu_secs_in(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn cpu_secs_in(stat: &str) -> Option<f64> {
    // The name in parentheses may hold spaces; user and system time are the 14th and 15th fields.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SEC)
}

fn memory_kib_in(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu_secs_in(stat), Some(3.0));
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(memory_kib_in(status, "VmHWM"), Some(2048));
        assert_eq!(memory_kib_in(status, "VmSwap"), None);
    }
}
