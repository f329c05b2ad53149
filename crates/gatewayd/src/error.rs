//! Why a gateway cannot run.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a gateway cannot run, in a sentence that a person can act on.
#[derive(Debug)]
pub enum Error {
    /// The configuration is wrong; each line that is, is shown.
    Configuration(dialects::Errors),
    /// Something that the kernel was asked for.
    System {
        /// What was tried.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Another gateway answers at the admin socket.
    AlreadyRunning(PathBuf),
    /// Another gateway runs in this network namespace.
    NotAlone {
        /// Its process.
        process: i32,
    },
    /// The running gateway was not handed over, and goes on.
    HandOver(String),
    /// The data path ended by itself.
    DataPath(String),
}

impl Error {
    /// An error of the system while `what` was tried.
    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(errors) => errors.fmt(f),
            Self::System { what, source } => write!(f, "cannot {what}: {source}"),
            Self::AlreadyRunning(path) => write!(f, "another gateway answers at {}", path.display()),
            Self::NotAlone { process } => write!(
                f,
                "another gateway (process {process}) runs in this network namespace: they would take each other's routes \
                 and rules for their own; stop it, or run this one in a network namespace of its own"
            ),
            Self::HandOver(why) => write!(f, "the running gateway is not handed over: {why}"),
            Self::DataPath(why) => write!(f, "the data path ended: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<dialects::Errors> for Error {
    fn from(errors: dialects::Errors) -> Self {
        Self::Configuration(errors)
    }
}
