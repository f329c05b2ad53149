//! Errors that say what was tried.

use std::error::Error;
use std::fmt;
use std::io;

/// What was tried, and what the kernel said.
#[derive(Debug)]
struct Failed {
    tried: String,
    cause: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.tried, self.cause)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// Adds "cannot {tried}: " before an error and keeps its kind.
pub(crate) trait Tried<T> {
    fn tried(self, tried: impl FnOnce() -> String) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, tried: impl FnOnce() -> String) -> io::Result<T> {
        self.map_err(|cause| {
            let cause = cause.into();
            io::Error::new(cause.kind(), Failed { tried: tried(), cause })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_tried_and_keeps_its_kind() {
        let kernel: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        let error = kernel.tried(|| "bind UDP 0.0.0.0:500".into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with("cannot bind UDP 0.0.0.0:500: "), "{error}");
    }
}
