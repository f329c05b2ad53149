//! Two gateways with many tunnels between them.
//!
//! One gateway has a connection for each tunnel, as a customer's would; the other takes any peer. Every tunnel has a network
//! of its own behind the first gateway, in which one address sends; a single tunnel has all of them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::bench::path::{COUNTER, Ends, HOSTS, Hosts, OUTSIDE, load};
use crate::bench::process::resident_kb;
use crate::bench::responder::strongswan_conf;
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::strongswan::{make_swanctl_directory, swanctl};
use crate::peer::{PeerKind, simplon, tail, write_private};
use crate::ping::{Running, ping_fast};
use crate::shell::{Process, Shell};

/// All networks behind the first gateway, one of 256 addresses for each of 4,096 tunnels.
const NETWORK: &str = "10.128.0.0/12";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
const STEP: u32 = 256;
/// Behind the second.
const OTHERS: &str = "10.62.0.0/24";
const PSK: &str = "measured, not secret";
const IKE: &str = "aes128gcm16-prfsha256-ecp256";
const ESP: &str = "aes128gcm16";

/// A gateway, and its resident memory before it had peers.
pub(super) struct Daemon {
    process: Process,
    dir: PathBuf,
    log: PathBuf,
    /// How many there were, one after the other.
    processes: u32,
    pub(super) empty_kb: u64,
}

impl Daemon {
    pub(super) fn resident_kb(&self) -> Result<u64> {
        resident_kb(self.process.pid())
    }
}

/// Two gateways with their tunnels up.
pub(super) struct Swarm {
    /// The one with a connection for each tunnel, and the one that takes any peer.
    pub(super) daemons: [Daemon; 2],
    ends: Ends,
    kind: PeerKind,
    lab: Lab,
}

impl Swarm {
    pub(super) fn build(kind: PeerKind, tunnels: u32, shell: &Shell) -> Result<Self> {
        Self::build_telling(kind, tunnels, "error", shell)
    }

    /// The same, with simplon telling of this and what is worse.
    pub(super) fn build_telling(kind: PeerKind, tunnels: u32, level: &str, shell: &Shell) -> Result<Self> {
        let lab = Lab::new(shell)?;
        let ends = Ends::build(&lab, Hosts::Behind)?;
        for place in &ends.places {
            place.settle(kind)?;
        }
        // All of these addresses are the first host's, without naming each.
        ends.hosts[0].ip(&["route", "add", "local", NETWORK, "dev", "lo"])?;
        let near = &ends.places[0].node;
        near.route(NETWORK, &HOSTS[0].to_string())?;
        // strongSwan wants an address of its own in each network that it protects, as it has at the other end.
        let own = |number| Ipv4Addr::from(u32::from(FIRST) + number * STEP + 253);
        let lines = (0..tunnels).map(|number| format!("addr add {}/32 dev lo\n", own(number)));
        shell.run_with_input(&["ip", "-n", near.netns(), "-batch", "-"], &lines.collect::<String>())?;
        let [near_dir, far_dir] = [lab.subdir("gw-a")?, lab.subdir("gw-b")?];
        let start = |node: &Node, dir: PathBuf, which| match kind {
            PeerKind::Strongswan => start_strongswan(node, dir, which),
            PeerKind::Simplon | PeerKind::StrongswanKernel | PeerKind::Libreswan => {
                start_simplon(node, dir, which, level)
            }
        };
        let far = start(&ends.places[1].node, far_dir, None)?;
        // Its connections count as part of the tunnels: empty is what the other was before it had peers.
        let near = Daemon { empty_kb: far.empty_kb, ..start(near, near_dir, Some(tunnels))? };
        let mut swarm = Self { daemons: [near, far], ends, kind, lab };
        clock::wait_for(&format!("{tunnels} tunnels of {kind}"), Duration::from_secs(60), || {
            Ok(swarm.up()? >= u64::from(tunnels))
        })?;
        if swarm.daemons.iter_mut().any(|daemon| !daemon.process.is_running()) {
            return Err(Error::Asked("a gateway with many tunnels has ended".into()));
        }
        Ok(swarm)
    }

    /// Tunnels that are up.
    fn up(&self) -> Result<u64> {
        let node = &self.ends.places[0].node;
        if self.kind == PeerKind::Strongswan {
            // Who responds counts what is half open; who initiates does not.
            let said = swanctl(node.shell(), &self.daemons[1].dir, &["--stats"])?;
            return Ok(established(&said));
        }
        let (program, socket) = (program()?, shown(&self.daemons[0].dir.join("socket")));
        let said = node.output(&[&*program, "status", "--json", "--socket", &socket])?;
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let connections = status["connections"].as_array().cloned().unwrap_or_default();
        Ok(connections.iter().filter(|connection| connection["state"] == "up").count() as u64)
    }

    /// Sends pings through the first tunnel while something else happens.
    pub(super) fn ping(&self, count: u32) -> Result<Running> {
        ping_fast(&self.ends.hosts[0], FIRST, HOSTS[1], count, &self.lab.dir().join("pings"))
    }

    /// Lets another process take the place of a gateway: how long that took, and how long packets waited.
    pub(super) fn hand_over(&mut self, which: usize) -> Result<(Duration, Duration)> {
        let (node, daemon) = (&self.ends.places[which].node, &mut self.daemons[which]);
        daemon.processes += 1;
        let (conf, socket) = (shown(&daemon.dir.join("simplon.toml")), shown(&daemon.dir.join("socket")));
        let program = program()?;
        let words = [&*program, "gateway", "-c", &conf, "--socket", &socket, "--log", "info", "--hand-over"];
        let start = clock::now();
        let log = daemon.dir.join(format!("log-{}", daemon.processes));
        let next = node.spawn(&words, &[], &log)?;
        let mut former = std::mem::replace(&mut daemon.process, next);
        let ended = former.finish(Duration::from_secs(20));
        let said = fs::read_to_string(&daemon.log).unwrap_or_default();
        daemon.log = log;
        let whole = clock::now() - start;
        match (ended, waited(&said)) {
            (Ok(true), Some(pause)) => Ok((whole, pause)),
            _ => {
                let next = tail(&fs::read_to_string(&daemon.log).unwrap_or_default(), 5);
                Err(Error::Command { line: daemon.process.line().into(), said: tail(&said, 5) + &next })
            }
        }
    }

    /// Megabits a second of so many streams together, and how many were alive.
    pub(super) fn streams(&self, streams: u32) -> Result<(f64, f64)> {
        let (to, streams) = (format!("{}:5301", HOSTS[1]), streams.to_string());
        let log = self.lab.dir().join("sink");
        let words = load(&["sink", "--listen", &to, "--streams", &streams, "--warm-up", "500", "--time", "2000"])?;
        let mut sink = self.ends.hosts[1].spawn(&words, &[], &log)?;
        clock::wait_for("the sink of the streams", Duration::from_secs(5), || {
            Ok(self.ends.hosts[1].output(&["ss", "-Hltn", "sport = :5301"])?.stdout.contains("5301"))
        })?;
        let (first, step) = (FIRST.to_string(), STEP.to_string());
        let words = load(&["source", "--to", &to, "--first", &first, "--step", &step, "--streams", &streams])?;
        let mut source = self.ends.hosts[0].spawn(&words, &[], &self.lab.dir().join("source"))?;
        let ended = sink.finish(Duration::from_secs(40))?;
        source.stop();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        match (said["mbit"].as_f64(), said["alive"].as_f64()) {
            (Some(mbit), Some(alive)) if ended => Ok((mbit, alive)),
            _ => Err(Error::Command { line: sink.line().into(), said: text }),
        }
    }

    /// Lets a packet pass through each tunnel and back; how many were answered.
    pub(super) fn touch(&self, tunnels: u32) -> Result<f64> {
        let at = format!("{}:{COUNTER}", HOSTS[1]);
        let words = load(&["count", "--listen", &at])?;
        let _counter = self.ends.hosts[1].spawn(&words, &[], &self.lab.dir().join("counter"))?;
        let [first, step, count] = [FIRST.to_string(), STEP.to_string(), tunnels.to_string()];
        let words = load(&["touch", "--to", &at, "--first", &first, "--step", &step, "--count", &count])?;
        let said = self.ends.hosts[0].run(&words)?;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        said["answered"].as_f64().ok_or_else(|| Error::Asked("nobody counted the tunnels".into()))
    }
}

fn start_simplon(node: &Node, dir: PathBuf, tunnels: Option<u32>, level: &str) -> Result<Daemon> {
    let (conf, socket) = (shown(&dir.join("simplon.toml")), shown(&dir.join("socket")));
    write_private(Path::new(&conf), &simplon_toml(tunnels))?;
    let program = program()?;
    let words = [&*program, "gateway", "-c", &conf, "--socket", &socket, "--log", level];
    let process = node.spawn(&words, &[], &dir.join("log"))?;
    let status = [&*program, "status", "--json", "--socket", &socket];
    once_up(process, dir, || Ok(node.output(&status)?.ok))
}

fn start_strongswan(node: &Node, dir: PathBuf, tunnels: Option<u32>) -> Result<Daemon> {
    let conf = dir.join("strongswan.conf");
    write_private(&conf, &strongswan_conf(&shown(&dir)))?;
    make_swanctl_directory(&dir, &swanctl_conf(tunnels))?;
    let env: [(&str, &OsStr); 1] = [("STRONGSWAN_CONF", conf.as_os_str())];
    let process = node.spawn(&["/usr/sbin/charon-systemd"], &env, &dir.join("log"))?;
    let vici = dir.join("vici");
    let daemon = once_up(process, dir, || Ok(vici.exists()))?;
    swanctl(node.shell(), &daemon.dir, &["--load-all"])?;
    Ok(daemon)
}

fn once_up(mut process: Process, dir: PathBuf, mut is_up: impl FnMut() -> Result<bool>) -> Result<Daemon> {
    clock::wait_for("the gateway's answer", Duration::from_secs(15), || Ok(is_up()? || !process.is_running()))?;
    if !process.is_running() {
        let said = tail(&fs::read_to_string(dir.join("log")).unwrap_or_default(), 20);
        return Err(Error::Command { line: process.line().into(), said });
    }
    let empty_kb = resident_kb(process.pid())?;
    Ok(Daemon { process, log: dir.join("log"), processes: 1, dir, empty_kb })
}

/// How long packets waited, in the words of the process that handed over.
fn waited(log: &str) -> Option<Duration> {
    let (_, said) = log.rsplit_once("packets waited for ")?;
    Some(Duration::from_micros(said.split_whitespace().next()?.parse().ok()?))
}

fn program() -> Result<String> {
    let found = simplon::program().ok_or_else(|| Error::Missing {
        what: "the program simplon".into(),
        install: simplon::missing().unwrap_or_default(),
    })?;
    Ok(shown(&found))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What tunnel number `number` of `tunnels` protects.
fn own_network(number: u32, tunnels: u32) -> String {
    if tunnels == 1 {
        NETWORK.to_owned()
    } else {
        format!("{}/24", Ipv4Addr::from(u32::from(FIRST) - 1 + number * STEP))
    }
}

/// A gateway that takes any peer, or one with so many connections.
fn simplon_toml(tunnels: Option<u32>) -> String {
    let mut out = String::from("[gateway]\ncookie-threshold = 1000000\nhalf-open-limit = 1000000\n");
    let mut connection = |name: &str, local: String, remote: String, networks: [&str; 2], start: &str| {
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "\n[connection.{name}]\nversion = \"ikev2\"\nlocal = {{ {local} }}\nremote = {{ {remote} }}\n\
             psk = \"{PSK}\"\nike = [\"{IKE}\"]\nike-lifetime = \"8h\"\nuniqueness = \"never\"\n\
             encapsulation = \"force\"\ndpd = false\n\n[connection.{name}.child.net]\nlocal = [\"{}\"]\n\
             remote = [\"{}\"]\nesp = [\"{ESP}\"]\nlifetime = \"4h\"\nstart = \"{start}\"\n",
            networks[0], networks[1],
        );
    };
    let end = |address: Ipv4Addr, id: &str| format!("address = \"{address}\", id = \"{id}\"");
    let far = end(OUTSIDE[1], "responder");
    let Some(tunnels) = tunnels else {
        connection("any", far, "address = \"any\", id = \"%any\"".into(), [OTHERS, NETWORK], "wait");
        return out;
    };
    for number in 0..tunnels {
        let (name, own) = (format!("c{number}"), own_network(number, tunnels));
        connection(&name, end(OUTSIDE[0], &name), far.clone(), [&own, OTHERS], "at-once");
    }
    out
}

/// The same for strongSwan.
fn swanctl_conf(tunnels: Option<u32>) -> String {
    let mut out = String::from("connections {\n");
    let mut connection = |name: &str, addresses: [String; 2], ids: [&str; 2], networks: [&str; 2], start: &str| {
        let _ = write!(
            out,
            "  {name} {{\n    version = 2\n    local_addrs = {}\n    remote_addrs = {}\n    proposals = {IKE}\n    \
             unique = never\n    mobike = no\n    encap = yes\n    rekey_time = 8h\n    \
             local {{\n      auth = psk\n      id = {}\n    }}\n    remote {{\n      auth = psk\n      id = {}\n    }}\n    \
             children {{\n      net {{\n        local_ts = {}\n        remote_ts = {}\n        \
             esp_proposals = {ESP}\n        rekey_time = 4h\n        start_action = {start}\n      }}\n    }}\n  }}\n",
            addresses[0], addresses[1], ids[0], ids[1], networks[0], networks[1],
        );
    };
    let [near, far] = OUTSIDE.map(|address| address.to_string());
    match tunnels {
        None => connection("any", [far, "%any".into()], ["@responder", "%any"], [OTHERS, NETWORK], "none"),
        Some(tunnels) => {
            for number in 0..tunnels {
                let (name, own) = (format!("c{number}"), own_network(number, tunnels));
                let id = format!("@{name}");
                connection(&name, [near.clone(), far.clone()], [&id, "@responder"], [&own, OTHERS], "start");
            }
        }
    }
    let _ = write!(out, "}}\nsecrets {{\n  ike-all {{\n    secret = \"{PSK}\"\n  }}\n}}\n");
    out
}

/// The number in "IKE_SAs: 100 total, 3 half-open", less those that are half open.
fn established(stats: &str) -> u64 {
    let Some(line) = stats.lines().find_map(|line| line.trim().strip_prefix("IKE_SAs:")) else { return 0 };
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [total, half_open, ..] => total.saturating_sub(*half_open),
        [] | [_] => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        for (tunnels, connections) in [(None, 1), (Some(1), 1), (Some(300), 300)] {
            let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml(tunnels));
            let config = dialects::read("simplon.toml", &files).unwrap().config;
            assert_eq!(config.connections.len(), connections);
        }
        assert_eq!((own_network(0, 2), own_network(255, 1_000)), ("10.128.0.0/24".into(), "10.128.255.0/24".into()));
    }

    #[test]
    fn the_pause_of_a_hand_over_is_read_from_the_log() {
        let said = "INFO gateway starts\nINFO another process goes on; packets waited for 1234 us\n";
        assert_eq!(waited(said), Some(Duration::from_micros(1_234)));
        assert_eq!(waited("INFO gateway starts\n"), None);
    }

    #[test]
    fn strongswan_says_how_many_are_established() {
        let said = "uptime: 3 seconds, since Jan 01 00:00:00 2026\nIKE_SAs: 100 total, 3 half-open\nmallinfo: sbrk 1\n";
        assert_eq!(established(said), 97);
        assert_eq!(established(""), 0);
        assert_eq!(swanctl_conf(Some(3)).matches("start_action = start").count(), 3);
    }
}
