//! One process of a kind in a network namespace: what it makes in the kernel's tables is told from another's by a protocol
//! number alone, so two would take each other's for their own.
//!
//! The first one binds a name among the abstract Unix sockets, which each network namespace has of its own and which
//! the kernel frees when the process ends. Anybody may bind such a name: one that is held by another user does not count, or
//! any user could keep a gateway from starting.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// As long as this lives, no other process of its user has the name in this network namespace.
#[derive(Debug)]
pub struct Alone(Option<UnixListener>);

/// Who has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub process: i32,
}

impl Alone {
    /// Takes a name in the network namespace of this thread, or says who has it.
    ///
    /// # Errors
    /// When the kernel refuses the socket for another reason.
    pub fn take(name: &str) -> io::Result<Result<Self, Holder>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(listener) => {
                let asked = listener.try_clone()?;
                // Whoever asks connects, and must not wait. The thread ends with the last listener: see `Drop`.
                thread::Builder::new().name("alone".to_owned()).spawn(move || while asked.accept().is_ok() {})?;
                Ok(Ok(Self(Some(listener))))
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => match holder(name) {
                Some(holder) => Ok(Err(holder)),
                None => Ok(Ok(Self(None))),
            },
            Err(e) => Err(e),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(listener) = &self.0 {
            // Its thread has the socket too, and waits in it: this wakes it, and frees the name with its end.
            let _ =
                nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(listener), nix::sys::socket::Shutdown::Both);
        }
    }
}

/// Who has the name, if it is a process of our own user.
fn holder(name: &str) -> Option<Holder> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).ok()?;
    socket.connect(&SockAddr::unix(format!("\0{name}")).ok()?).ok()?;
    let credentials = getsockopt(&socket, PeerCredentials).ok()?;
    (credentials.uid() == geteuid().as_raw()).then(|| Holder { process: credentials.pid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a name that another let go of just now: its thread ends in a moment.
    fn take_soon(name: &str) -> Alone {
        for _ in 0..100_000 {
            if let Ok(alone) = Alone::take(name).unwrap() {
                return alone;
            }
            thread::yield_now();
        }
        panic!("the name is not freed");
    }

    #[test]
    fn the_second_is_told_of_the_first_and_follows_it() {
        let name = format!("simplon-test-{}", std::process::id());
        let first = Alone::take(&name).unwrap().unwrap();
        for _ in 0..300 {
            let holder = Alone::take(&name).unwrap().map(drop).unwrap_err();
            assert_eq!(holder, Holder { process: std::process::id().cast_signed() });
        }
        let other = Alone::take(&format!("{name}-another")).unwrap();
        assert!(other.is_ok());
        drop(first);
        drop(take_soon(&name));
        drop(take_soon(&name));
    }
}
