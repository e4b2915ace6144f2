//! The process's environment: variables, the program itself, the folder for temporary files. Nobody else asks for them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::telemetry::VARIABLES;

const PREFIX: &str = "PATCHBAY_";

/// What Kubernetes sets by itself for a service named `patchbay`; not ours, so never a fault.
const FOREIGN: [&str; 2] = ["PATCHBAY_SERVICE_", "PATCHBAY_PORT"];

/// The variables that begin with `PATCHBAY_`, and OpenTelemetry's for the collector, by name.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process. A value that is no UTF-8 is read as far as it is.
    pub fn of_process() -> Self {
        Self::from_pairs(
            std::env::vars_os()
                .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into())),
        )
    }

    /// Those among `pairs` that are ours; empty values count as not set.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |name: &str| {
            name.starts_with(PREFIX) && !FOREIGN.iter().any(|foreign| name.starts_with(foreign))
                || VARIABLES.iter().any(|(known, _)| *known == name)
        };
        Self(pairs.into_iter().filter(|(name, value)| ours(name) && !value.is_empty()).collect())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every name that is set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A variable that a person named on the command line, such as one that holds a credential.
pub fn named_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The file of the running program, to start it once more.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Where temporary folders go.
pub fn temporary_dir() -> PathBuf {
    std::env::temp_dir()
}

/// The operating system and the processor's family: `linux x86_64`.
pub fn system_name() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Whether colours are welcome on a terminal (<https://no-color.org>).
pub fn wants_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The listening socket that the process was started with: the first that systemd, or whoever speaks as it does
/// (`LISTEN_FDS`), hands over. The socket outlives the process, so that one which takes its place misses no connection.
pub fn inherited_listener() -> io::Result<Option<std::net::TcpListener>> {
    let Some(listener) = listenfd::ListenFd::from_env().take_tcp_listener(0)? else { return Ok(None) };
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
