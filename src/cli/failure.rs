//! How a command ends when it does not end well: words, a hint, and an exit code that means something.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::domain::fault::Faults;

/// Exit code of a command that failed.
pub const FAILED: u8 = 1;
/// Exit code of a command that was given something invalid; also clap's own.
pub const INVALID: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was tried and did not succeed.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// What would mend it.
        hint: Option<String>,
    },
    /// What was given makes no sense.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What would mend it.
        hint: Option<String>,
    },
    /// Files or settings are faulty.
    #[error("{0}")]
    Faults(Faults),
    /// The command itself has told it all, and only this exit code is left.
    #[error("")]
    Told(u8),
}

impl Failure {
    /// A failure without a hint.
    pub fn failed(message: impl Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None }
    }

    /// Something invalid and what would mend it.
    pub fn invalid(message: impl Display, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.to_string(), hint: Some(hint.into()) }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Failed { message, .. } => Self::Failed { message, hint: Some(text.into()) },
            Self::Invalid { message, .. } => Self::Invalid { message, hint: Some(text.into()) },
            other => other,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Told(code) => *code,
            Self::Failed { .. } => FAILED,
            Self::Invalid { .. } | Self::Faults(_) => INVALID,
        }
    }

    /// The lines for a person.
    pub fn text(&self) -> String {
        match self {
            Self::Failed { message, hint } | Self::Invalid { message, hint } => {
                let hint = hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                format!("error: {message}{hint}")
            }
            Self::Faults(faults) if faults.len() == 1 => format!("error: {faults}"),
            Self::Faults(faults) => format!("{faults}\nerror: {} faults", faults.len()),
            Self::Told(_) => String::new(),
        }
    }

    /// The same for a machine.
    pub fn json(&self) -> Value {
        match self {
            Self::Failed { message, hint } | Self::Invalid { message, hint } => {
                json!({ "error": message, "hint": hint })
            }
            Self::Faults(faults) => json!({ "error": "invalid", "faults": faults }),
            Self::Told(_) => Value::Null,
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
