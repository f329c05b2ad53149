//! What can go wrong while a lab is built or used; each error says what to do about it.

use std::fmt;
use std::io;

/// Why a lab could not be built, or a scenario could not be played to its end. A check that does
/// not hold is no error: it is a result, in [`crate::report::Report`].
#[derive(Debug)]
pub enum Error {
    /// A program is not installed, or the kernel does not allow what is asked; how to get it.
    Missing {
        /// What is missing.
        what: String,
        /// The command or the setting that brings it.
        install: String,
    },
    /// A command did not succeed.
    Command {
        /// The command as it can be typed.
        line: String,
        /// What it wrote to stderr, or its exit status.
        said: String,
    },
    /// Something did not happen in time.
    Late {
        /// What was waited for.
        what: String,
        /// For how many seconds.
        seconds: u64,
        /// What is known about the cause, often the end of a log.
        hint: String,
    },
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// What was asked for does not exist or does not go together.
    Asked(String),
    /// An operation of the system failed.
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The lab's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An I/O error with what was being done.
    pub fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, install } => write!(f, "{what} is missing; {install}"),
            Self::Command { line, said } => write!(f, "`{line}` failed: {}", said.trim_end()),
            Self::Late { what, seconds, hint } if hint.is_empty() => write!(f, "{what}: not within {seconds} s"),
            Self::Late { what, seconds, hint } => write!(f, "{what}: not within {seconds} s\n{hint}"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Asked(why) => f.write_str(why),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. } | Self::Command { .. } | Self::Late { .. } | Self::Interrupted | Self::Asked(_) => {
                None
            }
        }
    }
}
