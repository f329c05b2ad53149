//! Many tunnels between two gateways: whether they share what one tunnel has, and what each keeps in memory once it has
//! carried something.
//!
//! One gateway has a connection for each tunnel, as a customer's would; the other takes any peer. Every tunnel belongs to
//! one address behind the first gateway. For the comparison, one tunnel has all these addresses.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::Gateway;
use crate::bench::path::{COUNTER, Ends, HOSTS, OUTSIDE, load};
use crate::bench::process::resident_kb;
use crate::bench::{Part, Skipped};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{PeerKind, simplon, tail, write_private};
use crate::shell::{Process, Shell};

/// Tunnels with a stream each.
const STREAMS: u32 = 100;
/// Tunnels whose memory is counted.
const TUNNELS: u32 = 1_000;
/// The addresses behind the first gateway.
const NETWORK: &str = "10.128.0.0/16";
const FIRST: [u8; 4] = [10, 128, 0, 1];
const PSK: &str = "measured, not secret";
const IKE: &str = "aes128gcm16-prfsha256-ecp256";
const ESP: &str = "aes128gcm16";

pub(super) const ONE: &str = "100 streams, 1 tunnel";
pub(super) const HUNDRED: &str = "100 streams, 100 tunnels";
pub(super) const TAKES_ANY: &str = "1000 tunnels, one connection for all";
pub(super) const HAS_EACH: &str = "1000 tunnels, a connection each";

/// Measures simplon.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut rows = streams(rounds, shell)?;
    rows.extend(memory(shell)?);
    let why = "as many connections would have to be written for it: not done yet";
    for gateway in [Gateway::Strongswan, Gateway::WireguardGo, Gateway::Openvpn] {
        skipped.push(Skipped::of(&format!("many tunnels, {gateway}"), why));
    }
    Ok(rows)
}

fn streams(rounds: u32, shell: &Shell) -> Result<Vec<Row>> {
    let mut grounds = [
        (ONE, Ground::build(1, shell)?, Samples::default()),
        (HUNDRED, Ground::build(STREAMS, shell)?, Samples::default()),
    ];
    for round in 1..=rounds {
        for (case, ground, samples) in &mut grounds {
            let (mbit, alive) = ground.streams()?;
            samples.push("total_mbit", mbit);
            samples.push("streams_alive", alive);
            shell.say(&format!("  {case}, round {round}: {mbit:.0} Mbit/s, {alive:.0} streams alive"));
        }
    }
    Ok(grounds
        .into_iter()
        .map(|(case, _, samples)| samples.into_row(Part::Many, case, Gateway::Simplon.name()))
        .collect())
}

fn memory(shell: &Shell) -> Result<Vec<Row>> {
    let ground = Ground::build(TUNNELS, shell)?;
    let touched = ground.touch(TUNNELS)?;
    let mut rows = Vec::new();
    for (case, daemon) in [(TAKES_ANY, &ground.daemons[1]), (HAS_EACH, &ground.daemons[0])] {
        let full_kb = resident_kb(daemon.process.pid())?;
        let mut samples = Samples::default();
        samples.push("tunnels", f64::from(TUNNELS));
        samples.push("touched", touched);
        samples.push("empty_kb", daemon.empty_kb as f64);
        samples.push("full_kb", full_kb as f64);
        let each = full_kb.saturating_sub(daemon.empty_kb) as f64 / f64::from(TUNNELS);
        samples.push("kb_per_tunnel", each);
        shell.say(&format!("  {case}: {each:.1} kB each, {touched:.0} have carried packets"));
        rows.push(samples.into_row(Part::Many, case, Gateway::Simplon.name()));
    }
    Ok(rows)
}

/// A gateway, and its resident memory before it had peers.
struct Daemon {
    process: Process,
    socket: String,
    empty_kb: u64,
}

/// Two gateways with their tunnels up.
struct Ground {
    daemons: [Daemon; 2],
    ends: Ends,
    lab: Lab,
}

impl Ground {
    fn build(tunnels: u32, shell: &Shell) -> Result<Self> {
        let lab = Lab::new(shell)?;
        let ends = Ends::build(&lab)?;
        for place in &ends.places {
            place.settle(PeerKind::Simplon)?;
        }
        // All of these addresses are the first host's, without naming each.
        ends.hosts[0].ip(&["route", "add", "local", NETWORK, "dev", "lo"])?;
        ends.places[0].node.route(NETWORK, &HOSTS[0].to_string())?;
        // An address of its own in what it protects, as the other end has.
        ends.places[0].node.address("lo", "10.128.255.254/32")?;
        let responder = start(&lab, &ends.places[1].node, "gw-b", &takes_any(), None)?;
        // An empty gateway takes what the other took before it had peers; its connections count as part of the tunnels.
        let initiator = start(&lab, &ends.places[0].node, "gw-a", &has_each(tunnels), Some(responder.empty_kb))?;
        let mut ground = Self { daemons: [initiator, responder], ends, lab };
        clock::wait_for(&format!("{tunnels} tunnels"), Duration::from_secs(60), || {
            Ok(ground.up()? >= u64::from(tunnels))
        })?;
        if ground.daemons.iter_mut().any(|daemon| !daemon.process.is_running()) {
            return Err(Error::Asked("a gateway with many tunnels has ended".into()));
        }
        Ok(ground)
    }

    /// Tunnels that are up.
    fn up(&self) -> Result<u64> {
        let program = simplon::program().unwrap_or_default().to_string_lossy().into_owned();
        let words = [&*program, "status", "--json", "--socket", &self.daemons[0].socket];
        let said = self.ends.places[0].node.output(&words)?;
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let connections = status["connections"].as_array().cloned().unwrap_or_default();
        Ok(connections.iter().filter(|connection| connection["state"] == "up").count() as u64)
    }

    /// Megabits a second of all streams together, and how many were alive.
    fn streams(&self) -> Result<(f64, f64)> {
        let (to, streams) = (format!("{}:5301", HOSTS[1]), STREAMS.to_string());
        let log = self.lab.dir().join("sink");
        let words = load(&["sink", "--listen", &to, "--streams", &streams, "--warm-up", "500", "--time", "2000"])?;
        let mut sink = self.ends.hosts[1].spawn(&words, &[], &log)?;
        clock::wait_for("the sink of the streams", Duration::from_secs(5), || {
            Ok(self.ends.hosts[1].output(&["ss", "-Hltn", "sport = :5301"])?.stdout.contains("5301"))
        })?;
        let words = load(&["source", "--to", &to, "--first", &first(), "--streams", &streams])?;
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
    fn touch(&self, tunnels: u32) -> Result<f64> {
        let at = format!("{}:{COUNTER}", HOSTS[1]);
        let words = load(&["count", "--listen", &at])?;
        let _counter = self.ends.hosts[1].spawn(&words, &[], &self.lab.dir().join("counter"))?;
        let words = load(&["touch", "--to", &at, "--first", &first(), "--count", &tunnels.to_string()])?;
        let said = self.ends.hosts[0].run(&words)?;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        said["answered"].as_f64().ok_or_else(|| Error::Asked("nobody counted the tunnels".into()))
    }
}

fn start(lab: &Lab, node: &Node, name: &str, toml: &str, empty_kb: Option<u64>) -> Result<Daemon> {
    let dir = lab.subdir(name)?;
    let (conf, socket, log) = (dir.join("simplon.toml"), dir.join("socket"), dir.join("log"));
    write_private(&conf, toml)?;
    let program = simplon::program().ok_or_else(|| Error::Missing {
        what: "the program simplon".into(),
        install: simplon::missing().unwrap_or_default(),
    })?;
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let (program, conf, socket) = (shown(&program), shown(&conf), shown(&socket));
    let words = [&*program, "gateway", "-c", &conf, "--socket", &socket, "--log", "error"];
    let mut process = node.spawn(&words, &[], &log)?;
    clock::wait_for("simplon's answer", Duration::from_secs(15), || {
        Ok(node.output(&[&*program, "status", "--json", "--socket", &socket])?.ok || !process.is_running())
    })?;
    if !process.is_running() {
        let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
        return Err(Error::Command { line: process.line().into(), said });
    }
    let empty_kb = match empty_kb {
        Some(empty_kb) => empty_kb,
        None => resident_kb(process.pid())?,
    };
    Ok(Daemon { process, socket, empty_kb })
}

fn first() -> String {
    std::net::Ipv4Addr::from(FIRST).to_string()
}

/// The gateway that takes any peer.
fn takes_any() -> String {
    format!(
        "[gateway]\ncookie-threshold = 1000000\nhalf-open-limit = 1000000\n\n\
         [connection.any]\nversion = \"ikev2\"\nlocal = {{ address = \"{local}\", id = \"{local}\" }}\n\
         remote = {{ address = \"any\", id = \"%any\" }}\npsk = \"{PSK}\"\nike = [\"{IKE}\"]\nike-lifetime = \"8h\"\n\
         uniqueness = \"never\"\nencapsulation = \"force\"\ndpd = false\n\n\
         [connection.any.child.net]\nlocal = [\"{network}\"]\nremote = [\"{NETWORK}\"]\nesp = [\"{ESP}\"]\n\
         lifetime = \"4h\"\n",
        local = OUTSIDE[1],
        network = behind_the_second(),
    )
}

/// The gateway with a connection for each tunnel.
fn has_each(tunnels: u32) -> String {
    let mut out = String::from("[gateway]\ncookie-threshold = 1000000\nhalf-open-limit = 1000000\n");
    for number in 0..tunnels {
        let own = if tunnels == 1 {
            NETWORK.to_owned()
        } else {
            format!("{}/32", std::net::Ipv4Addr::from(u32::from_be_bytes(FIRST) + number))
        };
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "\n[connection.c{number}]\nversion = \"ikev2\"\nlocal = {{ address = \"{local}\", id = \"c{number}\" }}\n\
             remote = {{ address = \"{remote}\", id = \"{remote}\" }}\npsk = \"{PSK}\"\nike = [\"{IKE}\"]\n\
             ike-lifetime = \"8h\"\nuniqueness = \"never\"\nencapsulation = \"force\"\ndpd = false\n\n\
             [connection.c{number}.child.net]\nlocal = [\"{own}\"]\nremote = [\"{network}\"]\nesp = [\"{ESP}\"]\n\
             lifetime = \"4h\"\nstart = \"at-once\"\n",
            local = OUTSIDE[0],
            remote = OUTSIDE[1],
            network = behind_the_second(),
        );
    }
    out
}

fn behind_the_second() -> String {
    let [a, b, c, _] = HOSTS[1].octets();
    format!("{a}.{b}.{c}.0/24")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        for (toml, connections) in [(takes_any(), 1), (has_each(1), 1), (has_each(300), 300)] {
            let files = dialects::MemoryFiles::new().with("simplon.toml", toml);
            let config = dialects::read("simplon.toml", &files).unwrap().config;
            assert_eq!(config.connections.len(), connections);
        }
    }
}
