//! Tokio's word on when a socket can be read or written.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has tokio watch a file, which must not block. Must be called within a runtime with I/O.
#[expect(unsafe_code, reason = "tokio has no safe way to watch a file that it did not open")]
pub(crate) fn register(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, always the same file, and owned by the result from now on; no
    // code of this crate replaces what is within the result.
    Ok(unsafe { AsyncFd::register(file) }?)
}
