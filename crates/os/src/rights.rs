//! Open files passed from one process to another over a Unix stream socket (`SCM_RIGHTS`, unix(7)).
//!
//! They travel with single bytes of their own, so that what is sent before and after stays what it is.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::error::Tried;

/// Files that travel with one byte; the kernel takes 253 (`SCM_MAX_FD`).
const BATCH: usize = 128;
/// The byte that they travel with.
const BYTE: [u8; 1] = [b'F'];

/// Sends these files over a blocking stream socket.
///
/// # Errors
/// Those of sendmsg(2); the stream is of no more use then.
pub fn send(stream: BorrowedFd<'_>, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in files.chunks(BATCH) {
        let raw: Vec<RawFd> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&BYTE)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(io::Error::from)
            .tried(|| format!("pass {} open files", raw.len()))?;
    }
    Ok(())
}

/// Receives as many files over a blocking stream socket. They are closed in programs that this process starts.
///
/// # Errors
/// Those of recvmsg(2); `InvalidData` when other files come than were announced. The stream is of no more use then.
pub fn receive(stream: BorrowedFd<'_>, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    while files.len() < count {
        let expected = (count - files.len()).min(BATCH);
        let before = files.len();
        let is_whole = receive_batch(stream, &mut files).tried(|| "take open files over".into())?;
        if !is_whole || files.len() - before != expected {
            let what = format!("{expected} open files were announced and {} came", files.len() - before);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
    Ok(files)
}

/// Whether the byte came with all of its files. Those that came are owned in any case.
fn receive_batch(stream: BorrowedFd<'_>, files: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut byte = [0];
    let mut room = nix::cmsg_space!([RawFd; BATCH]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            files.extend(raw.into_iter().map(own));
        }
    }
    let is_cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
    Ok(message.bytes == 1 && !is_cut && byte == BYTE)
}

/// Takes a file that the kernel has just opened for this process.
#[expect(unsafe_code, reason = "files come from the kernel as bare numbers")]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just put this file into the table of this process, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn file(text: &str) -> File {
        let path = std::env::temp_dir().join(format!("simplon-rights-{}-{text}", std::process::id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn files_arrive_in_order_between_other_bytes_and_are_the_same_files() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let sent: Vec<File> = (0..300).map(|number| file(&number.to_string())).collect();
        here.write_all(b"before").unwrap();
        send(here.as_fd(), &sent.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        here.write_all(b"after").unwrap();
        let mut word = [0; 6];
        there.read_exact(&mut word).unwrap();
        let received = receive(there.as_fd(), 300).unwrap();
        there.read_exact(&mut word[..5]).unwrap();
        assert_eq!(&word[..5], b"after");
        drop(sent);
        for (number, file) in received.into_iter().enumerate() {
            let (mut file, mut text) = (File::from(file), String::new());
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn bytes_without_files_and_files_that_nobody_announced_are_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"FF").unwrap();
        assert_eq!(receive(there.as_fd(), 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (here, there) = UnixStream::pair().unwrap();
        let one = file("one");
        send(here.as_fd(), &[one.as_fd(), one.as_fd()]).unwrap();
        assert_eq!(receive(there.as_fd(), 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert!(receive(there.as_fd(), 1).is_err());
    }
}
