//! Network namespaces, for tests and the lab: [`Namespace`] makes one, opens one by name, and runs code in it.
//!
//! A thread belongs to a namespace; sockets and devices stay in the one they were made in. So everything here runs
//! on a thread of its own, and the caller's thread never moves. Child processes inherit the namespace of the thread
//! that starts them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::Tried;

/// Where `ip netns` keeps the names.
const DIRECTORY: &str = "/run/netns";
/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by an open file. One without a name goes away with everything in it when the value
/// is dropped and no thread, process or socket is left in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new namespace without a name; it holds a loopback device that is down. Needs `CAP_SYS_ADMIN`.
    pub fn new() -> io::Result<Self> {
        let tried = || "make a network namespace".to_owned();
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open(OWN)
        });
        Ok(Self { file: made.tried(tried)? })
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open(OWN)? })
    }

    /// The namespace that `ip netns add` or [`Namespace::create`] made.
    ///
    /// # Errors
    /// `NotFound` when there is none of that name.
    pub fn open(name: &str) -> io::Result<Self> {
        let path = path_of(name)?;
        Ok(Self { file: File::open(&path).tried(|| format!("open the network namespace {name}"))? })
    }

    /// Makes a namespace that has a name, as `ip netns add` does: it stays until [`Namespace::remove`].
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken.
    pub fn create(name: &str) -> io::Result<Self> {
        let tried = || format!("make the network namespace {name}");
        let path = path_of(name)?;
        fs::create_dir_all(DIRECTORY).tried(tried)?;
        File::create_new(&path).tried(tried)?;
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            File::open(OWN)
        });
        if made.is_err() {
            let _ = fs::remove_file(&path);
        }
        Ok(Self { file: made.tried(tried)? })
    }

    /// Takes the name from a namespace; it ends once nothing is left in it.
    pub fn remove(name: &str) -> io::Result<()> {
        let path = path_of(name)?;
        // It fails when nothing is mounted there, which must not keep the file.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path).tried(|| format!("remove the network namespace {name}"))
    }

    /// Runs `work` in the namespace, on a thread that ends with it.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Starts a thread in the namespace. `name` is its name, of which Linux keeps 15 bytes.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let there = Self { file: self.file.try_clone()? };
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            there.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into the namespace for good. [`Namespace::run`] is the safer choice.
    pub fn enter(&self) -> io::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).tried(|| "enter a network namespace".into())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves the process into a user namespace where it is root, with a network and a mount namespace of its own and an
/// empty `/run`. Namespaces, devices and raw sockets can then be made without privileges, and end with the process.
///
/// # Errors
/// `InvalidInput` when the process has more than one thread, so call it first thing in `main`. `PermissionDenied` where
/// the system forbids user namespaces (`kernel.unprivileged_userns_clone`,
/// `kernel.apparmor_restrict_unprivileged_userns`), `StorageFull` where it has too many (`user.max_user_namespaces`).
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .tried(|| "make a user namespace".into())?;
    let map = |file: &str, text: String| fs::write(file, text).tried(|| format!("write {file}"));
    // user_namespaces(7): an unprivileged process must give up setgroups before it may map its group.
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("0 {uid} 1"))?;
    map("/proc/self/gid_map", format!("0 {gid} 1"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).tried(|| "make the mounts private".into())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0755")).tried(|| "mount a /run of its own".into())
}

fn path_of(name: &str) -> io::Result<PathBuf> {
    if name.is_empty() || name.len() > 255 || name.contains('/') || name.starts_with('.') || name.contains('\0') {
        let why = "the name of a network namespace is a file name that does not begin with a dot";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Runs `work` on a thread that ends with it, and goes on with its panic if it panics.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_directory() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"] {
            assert_eq!(Namespace::open(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_made_is_not_found() {
        let error = Namespace::open("nobody-made-this").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("nobody-made-this"));
    }
}
