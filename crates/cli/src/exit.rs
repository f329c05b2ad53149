//! How a command ends.

use std::process::ExitCode;

/// Exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It did what it was asked for.
    Ok = 0,
    /// It did not succeed: a tunnel did not come up, a check of a scenario did not hold.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No gateway answers.
    NotRunning = 3,
    /// What was waited for did not happen in time.
    Timeout = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failed {
    /// How it ends.
    pub(crate) code: Code,
    /// What a person reads.
    pub(crate) message: String,
}

impl Failed {
    /// An end with this message.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<gatewayd::admin::ClientError> for Failed {
    fn from(error: gatewayd::admin::ClientError) -> Self {
        use gatewayd::admin::ClientError::{Broken, NotRunning, Refused};
        let code = match &error {
            NotRunning { .. } => Code::NotRunning,
            Broken(_) | Refused(_) => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}
