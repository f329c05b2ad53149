//! The lab as an ordinary user: the program runs itself again in namespaces of its own, in which
//! it is root.
//!
//! Killing the outer process removes everything: the inner one is the first of a PID namespace.

use std::process::Command;

use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::peer::PeerKind;
use crate::shell::{Out, Shell, installed};

const INSIDE: &str = "SIMPLON_LAB_INSIDE";

/// A private `/run`, in which `ip netns` keeps its names, and then the program itself.
const SCRIPT: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/netns && exec \"$0\" \"$@\"";

const NAMESPACES: [&str; 7] = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"];

/// In a namespace of its own: the uid outside.
pub(crate) fn is_inside() -> Option<u32> {
    std::env::var(INSIDE).ok()?.parse().ok()
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
    let status = Command::new("unshare")
        .args(NAMESPACES)
        .args(["--kill-child", "--", "sh", "-c", SCRIPT])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, geteuid().to_string())
        .status()
        .map_err(|e| Error::io("unshare", e))?;
    Ok(Some(status.code().unwrap_or(130)))
}
