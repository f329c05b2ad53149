//! Network namespaces, veth pairs, bridges, addresses and routes: the ground a scenario stands on.
//!
//! Every name carries the lab's id (`s<pid>-<number>-`), so that labs run side by side and what a
//! killed lab left behind is recognised by its dead pid. Interface names live inside namespaces
//! and need no id. Left out: anything outside of namespaces that the lab itself made.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::clock;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::rootless::Outside;
use crate::shell::{Output, Process, Shell};

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A lab that is up. Dropping it (also while unwinding) ends every process in its namespaces and
/// removes the namespaces and its directory.
pub struct Lab {
    id: String,
    dir: PathBuf,
    shell: Shell,
    nodes: RefCell<Vec<Node>>,
    _guard: interrupt::Guard,
}

impl Lab {
    /// An empty lab. First removes what killed labs have left.
    ///
    /// # Errors
    ///
    /// When its private directory cannot be made.
    pub fn new(shell: &Shell) -> Result<Self> {
        let guard = interrupt::Guard::new();
        let outside = Outside::of_this_process();
        // In namespaces of its own there is nothing of others, and no pid means what it says.
        if outside.is_none() {
            remove_leftovers(shell)?;
            remove_leftover_directories();
        }
        let me = outside.unwrap_or(Outside { uid: nix::unistd::getuid().as_raw(), pid: std::process::id() });
        let id = format!("s{}-{}-", me.pid, NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("simplon-lab-{id}{}", me.uid));
        // `create` fails where something of that name already is: nobody else's directory is used.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Error::io(format!("creating {}", dir.display()), e))?;
        Ok(Self { id, dir, shell: shell.clone(), nodes: RefCell::default(), _guard: guard })
    }

    /// What all names of this lab start with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory, which only its user can read.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The shell that its commands run in.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// A directory of its own for a part of the lab.
    ///
    /// # Errors
    ///
    /// When it exists or cannot be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Error::io(format!("creating {}", dir.display()), e))?;
        Ok(dir)
    }

    /// A new namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn node(&self, name: &str) -> Result<Node> {
        let node = Node { name: name.into(), netns: format!("{}{name}", self.id), shell: self.shell.clone() };
        self.shell.run(&["ip", "netns", "add", &node.netns])?;
        self.nodes.borrow_mut().push(node.clone());
        node.ip(&["link", "set", "dev", "lo", "up"])?;
        // No duplicate address detection: an address is usable at once.
        node.sysctl(&["net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.default.rp_filter=0"])?;
        Ok(node)
    }

    /// All namespaces, in the order in which they were made.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.borrow().clone()
    }

    /// A veth pair: one end in each namespace, both up.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn link(&self, a: (&Node, &str), b: (&Node, &str)) -> Result<()> {
        self.shell.run(&[
            "ip", "link", "add", a.1, "netns", &a.0.netns, "type", "veth", "peer", "name", b.1, "netns", &b.0.netns,
        ])?;
        a.0.ip(&["link", "set", "dev", a.1, "up"])?;
        b.0.ip(&["link", "set", "dev", b.1, "up"])?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let nodes = self.nodes.get_mut();
        for node in nodes.iter() {
            end_processes(&self.shell, &node.netns);
        }
        for node in nodes.drain(..) {
            let _ = self.shell.output_uninterrupted(&["ip", "netns", "del", &node.netns]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A network namespace of a lab. Clones name the same namespace.
#[derive(Clone)]
pub struct Node {
    name: String,
    netns: String,
    shell: Shell,
}

impl Node {
    /// Its name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for `ip netns exec`.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The shell that its commands run in.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// `ip` with `words` in this namespace.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ip(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["ip", "-n", &self.netns];
        all.extend(words);
        self.shell.run(&all)
    }

    /// Gives an interface an address (with its prefix length).
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn address(&self, dev: &str, address: &str) -> Result<()> {
        self.ip(&["addr", "add", address, "dev", dev]).map(drop)
    }

    /// Adds a route; `destination` may be `default`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn route(&self, destination: &str, via: &str) -> Result<()> {
        self.ip(&["route", "add", destination, "via", via]).map(drop)
    }

    /// Makes a bridge with an address.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn bridge(&self, name: &str, address: &str) -> Result<()> {
        self.ip(&["link", "add", name, "type", "bridge"])?;
        self.address(name, address)?;
        self.ip(&["link", "set", "dev", name, "up"]).map(drop)
    }

    /// Plugs an interface into a bridge.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn plug(&self, dev: &str, bridge: &str) -> Result<()> {
        self.ip(&["link", "set", "dev", dev, "master", bridge, "up"]).map(drop)
    }

    /// Makes a TAP interface for a guest, up.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn tap(&self, name: &str) -> Result<()> {
        self.ip(&["tuntap", "add", "dev", name, "mode", "tap"])?;
        self.ip(&["link", "set", "dev", name, "up"]).map(drop)
    }

    /// Makes it a router, without ICMP redirects: one-armed gateways are wanted here.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn forward(&self) -> Result<()> {
        self.sysctl(&[
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        ])
    }

    pub(crate) fn sysctl(&self, settings: &[&str]) -> Result<()> {
        let mut words = vec!["sysctl", "-qw"];
        words.extend(settings);
        self.run(&words).map(drop)
    }

    /// Feeds nftables commands to `nft` in this namespace.
    ///
    /// # Errors
    ///
    /// When it refuses them.
    pub fn nft(&self, commands: &str) -> Result<()> {
        self.shell.run_with_input(&["ip", "netns", "exec", &self.netns, "nft", "-f", "-"], commands).map(drop)
    }

    /// Runs a program in this namespace to its end.
    ///
    /// # Errors
    ///
    /// When its exit status is not 0.
    pub fn run<S: AsRef<str>>(&self, words: &[S]) -> Result<String> {
        self.shell.run(&self.inside(words))
    }

    /// Runs a program in this namespace to its end, whatever its exit status.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn output<S: AsRef<str>>(&self, words: &[S]) -> Result<Output> {
        self.shell.output(&self.inside(words))
    }

    /// Starts a program in this namespace; its output goes to `log`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn<S: AsRef<str>>(&self, words: &[S], env: &[(&str, &OsStr)], log: &Path) -> Result<Process> {
        self.shell.spawn(&self.inside(words), env, log)
    }

    /// [`Node::spawn`] with something to read on standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn spawn_reading<S: AsRef<str>>(
        &self,
        words: &[S],
        env: &[(&str, &OsStr)],
        log: &Path,
        stdin: Stdio,
    ) -> Result<Process> {
        self.shell.spawn_reading(&self.inside(words), env, log, stdin)
    }

    fn inside<'a, S: AsRef<str>>(&'a self, words: &'a [S]) -> Vec<&'a str> {
        let mut all = vec!["ip", "netns", "exec", &self.netns];
        all.extend(words.iter().map(AsRef::as_ref));
        all
    }
}

/// Ends what still runs in a namespace that the lab made.
fn end_processes(shell: &Shell, netns: &str) {
    for round in 0..20 {
        let Ok(output) = shell.output_uninterrupted(&["ip", "netns", "pids", netns]) else { return };
        let pids: Vec<i32> = output.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        clock::sleep_through(Duration::from_millis(5 * (round + 1)));
    }
}

/// The pid in a name that a lab gave: `s<pid>-<number>-<rest>`.
fn owner_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix('s')?.split_once('-')?;
    let (number, _) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes the namespaces of labs whose process is gone.
fn remove_leftovers(shell: &Shell) -> Result<()> {
    for name in names_in(Path::new(NETNS_DIR)) {
        if owner_of(&name).is_some_and(is_dead) {
            shell.say(&format!("Removing {name}, left by a lab that was killed"));
            end_processes(shell, &name);
            // Another lab may be removing the same one.
            let _ = shell.output(&["ip", "netns", "del", &name])?;
        }
    }
    Ok(())
}

/// Removes this user's directories of labs whose process is gone.
pub(crate) fn remove_leftover_directories() {
    let temp = std::env::temp_dir();
    for name in names_in(&temp) {
        let path = temp.join(&name);
        let is_ours =
            || fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
        if name.strip_prefix("simplon-lab-").and_then(owner_of).is_some_and(is_dead) && is_ours() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_lab_gave_have_an_owner() {
        assert_eq!(owner_of("s123-0-idc-cgw"), Some(123));
        assert_eq!(owner_of("s123-17-0"), Some(123));
        for other in ["simplon", "s123", "s123-x-y", "sx-1-a", "123-1-a", "s-1-a", "s123-1"] {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_is_not_dead() {
        assert!(!is_dead(std::process::id()));
        assert!(is_dead(u32::MAX));
    }
}
