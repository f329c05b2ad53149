//! The lab as an ordinary user: the program runs itself again in namespaces of its own, in which
//! it is root.
//!
//! The inner one is the first process of a PID namespace: with it everything ends.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::clock;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::netns;
use crate::peer::PeerKind;
use crate::shell::{Out, Shell, installed};

const INSIDE: &str = "SIMPLON_LAB_INSIDE";

/// A private `/run`, in which `ip netns` keeps its names, and then the program itself.
const SCRIPT: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/netns && exec \"$0\" \"$@\"";

const NAMESPACES: [&str; 7] = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"];

/// Who this process is outside of the namespaces that it was run in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
}

impl Outside {
    /// `None` where it was not run in namespaces.
    pub(crate) fn of_this_process() -> Option<Self> {
        Self::read(&std::env::var(INSIDE).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let (uid, pid) = text.split_once(':')?;
        Some(Self { uid: uid.parse().ok()?, pid: pid.parse().ok()? })
    }
}

/// Root can build a lab at once: `None`. For an ordinary user, the program that is running is run
/// again, with the same arguments, in namespaces where it is root; its exit status is returned and
/// there is nothing left to do. `peers` are made ready before, where the network still is.
///
/// # Errors
///
/// When the kernel does not allow user namespaces.
pub fn enter(peers: &[PeerKind], out: Out) -> Result<Option<i32>> {
    if geteuid().is_root() {
        return Ok(None);
    }
    let refused = |why: &str| Error::Missing {
        what: format!("a user namespace for a lab without root ({why})"),
        install: "run it as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), \
                  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
            .into(),
    };
    if !installed("unshare") {
        return Err(refused("unshare is not installed"));
    }
    let shell = Shell::new(out, false);
    let mut probe = vec!["unshare"];
    probe.extend(NAMESPACES);
    probe.push("true");
    let output = shell.output(&probe)?;
    if !output.ok {
        return Err(refused(output.stderr.trim()));
    }
    for peer in peers {
        peer.prepare(&shell)?;
    }
    let program = std::env::current_exe().map_err(|e| Error::io("looking for this program", e))?;
    netns::remove_leftover_directories();
    let mut outer = Command::new("unshare")
        .args(NAMESPACES)
        .args(["--kill-child", "--", "sh", "-c", SCRIPT])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, format!("{}:{}", geteuid(), std::process::id()))
        .spawn()
        .map_err(|e| Error::io("unshare", e))?;
    // Signals are for the lab inside: it removes what it made and ends, and so do we.
    let _guard = interrupt::Guard::new();
    let mut told = false;
    loop {
        if let Some(status) = outer.try_wait().map_err(|e| Error::io("waiting for unshare", e))? {
            return Ok(Some(status.code().unwrap_or(130)));
        }
        if interrupt::happened() && !std::mem::replace(&mut told, true) {
            tell_child_of(outer.id());
        }
        clock::sleep_through(Duration::from_millis(20));
    }
}

/// Asks the child of `unshare` to end: `unshare` itself waits, whatever it is told.
fn tell_child_of(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_we_are_outside_is_read_or_nothing() {
        assert_eq!(Outside::read("1000:77"), Some(Outside { uid: 1000, pid: 77 }));
        assert_eq!(Outside::read("1000"), None);
        assert_eq!(Outside::read(""), None);
    }
}
