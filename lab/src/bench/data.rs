//! The data path: a host, a gateway, a wire, a gateway, a host, both gateways of the same make.
//!
//! One TCP stream (iperf3), its cost in CPU seconds for each gigabyte (of both gateways together), small UDP packets
//! as fast as one sender can, and round trips of pings. All tunnels stay up; the measurements take turns.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::Value;

use crate::bench::BOTH;
use crate::bench::figures::Spread;
use crate::bench::process::cpu_seconds;
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{Interface, Peer, PeerKind, Place, Plan};
use crate::shell::{Process, Shell, installed};
use crate::spec::{ConnectionSpec, Dpd, Encapsulation, End, EspProposal, IkeProposal, Lifetime, Start, Version};

/// Seconds of a TCP stream, and of a stream of small packets.
const STREAM: u32 = 2;
const FLOOD: u32 = 1;
/// What makes an IP packet of 64 bytes.
const SMALL: u32 = 64 - 20 - 8;

const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 61, 0, 2), Ipv4Addr::new(10, 62, 0, 2)];
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 61, 0, 1), Ipv4Addr::new(10, 62, 0, 1)];
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// What one gateway carries under one transform.
#[derive(Clone, Debug, Serialize)]
pub struct Data {
    /// The ESP transform.
    pub esp: String,
    /// Both gateways are of this make.
    pub gateways: PeerKind,
    /// How ESP travels: strongSwan's in user space only in UDP.
    pub encapsulation: Encapsulation,
    /// Whether the wire between the gateways takes UDP segmentation.
    pub wire_offloads: bool,
    /// One TCP stream, megabits a second at the receiver.
    pub tcp_mbit: Spread,
    /// CPU seconds of both gateways for each gigabyte (10^9 bytes) of it.
    pub cpu_per_gb: Spread,
    /// UDP packets of 64 bytes that arrive in a second.
    pub small_per_second: Spread,
    /// Per cent of the small packets that were sent and did not arrive.
    pub small_lost_percent: Spread,
    /// Median round trip of a ping, in milliseconds.
    pub ping_p50_ms: Spread,
}

#[derive(Clone, Copy)]
struct Case {
    esp: EspProposal,
    encapsulation: Encapsulation,
    wire_offloads: bool,
}

impl Case {
    const GCM: Self = Self {
        esp: EspProposal { encryption: Encryption::Aes128Gcm, integrity: None, group: None, esn: false },
        encapsulation: Encapsulation::Udp,
        wire_offloads: true,
    };
    const CBC: Self = Self {
        esp: EspProposal {
            encryption: Encryption::Aes128Cbc,
            integrity: Some(Integrity::Sha1),
            group: None,
            esn: false,
        },
        ..Self::GCM
    };
    const PLAIN: Self = Self { encapsulation: Encapsulation::Plain, ..Self::GCM };
    const POOR_WIRE: Self = Self { wire_offloads: false, ..Self::GCM };

    fn shown(self) -> String {
        label(&self.esp.to_string(), self.encapsulation, self.wire_offloads)
    }
}

fn label(esp: &str, encapsulation: Encapsulation, wire_offloads: bool) -> String {
    let how = if encapsulation == Encapsulation::Plain { "plain" } else { "in UDP" };
    format!("{esp} {how}{}", if wire_offloads { "" } else { ", poor wire" })
}

impl Data {
    /// What was measured, in short; a poor wire is one without UDP segmentation.
    pub fn case(&self) -> String {
        label(&self.esp, self.encapsulation, self.wire_offloads)
    }

    /// Whether strongSwan's figure is what this one stands beside. Its plain ESP is in the kernel: what is plain here
    /// stands beside its ESP in UDP.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.esp == other.esp && self.wire_offloads == other.wire_offloads && other.gateways == PeerKind::Strongswan
    }
}

/// A tunnel that is up.
struct Tunnel {
    case: Case,
    kind: PeerKind,
    // Processes go before the namespaces that they run in.
    _server: Process,
    _gateways: [Box<dyn Peer>; 2],
    pids: Vec<u32>,
    hosts: [Node; 2],
    found: Found,
    _lab: Lab,
}

#[derive(Default)]
struct Found {
    tcp_mbit: Vec<f64>,
    cpu_per_gb: Vec<f64>,
    small_per_second: Vec<f64>,
    small_lost_percent: Vec<f64>,
    ping_p50_ms: Vec<f64>,
}

/// Measures all transforms, both makes by turns.
pub(super) fn measure(rounds: u32, shell: &Shell) -> Result<Vec<Data>> {
    if !installed("iperf3") {
        return Err(Error::Missing { what: "the program iperf3".into(), install: "apt-get install iperf3".into() });
    }
    let mut cases = vec![Case::GCM, Case::PLAIN, Case::CBC];
    if installed("ethtool") {
        cases.push(Case::POOR_WIRE);
    } else {
        shell.say("  ethtool is not installed: the wire without UDP segmentation is left out");
    }
    let mut tunnels = Vec::new();
    for case in cases {
        for kind in BOTH.into_iter().filter(|kind| kind.refuses(case.encapsulation, false).is_none()) {
            tunnels.push(Tunnel::build(kind, case, shell)?);
        }
    }
    for round in 1..=rounds {
        for tunnel in &mut tunnels {
            tunnel.run_once()?;
            let last = |values: &[f64]| values.last().copied().unwrap_or_default();
            shell.say(&format!(
                "  {}, round {round}: {} {:.0} Mbit/s, {:.2} CPU s/GB, {:.0} small packets a second, ping {:.3} ms",
                tunnel.case.shown(),
                tunnel.kind,
                last(&tunnel.found.tcp_mbit),
                last(&tunnel.found.cpu_per_gb),
                last(&tunnel.found.small_per_second),
                last(&tunnel.found.ping_p50_ms),
            ));
        }
    }
    Ok(tunnels.into_iter().map(Tunnel::data).collect())
}

impl Tunnel {
    fn build(kind: PeerKind, case: Case, shell: &Shell) -> Result<Self> {
        let lab = Lab::new(shell)?;
        let (places, hosts) = ground(&lab)?;
        if !case.wire_offloads {
            for place in &places {
                place.node.run(&["ethtool", "-K", "outside", "tx-udp-segmentation", "off"])?;
            }
        }
        let mut gateways = Vec::new();
        for (own, place) in places.iter().enumerate() {
            place.settle(kind)?;
            let mut gateway = kind.build(&lab, place, Plan { spec: spec(own, case), files: None })?;
            gateway.start()?;
            gateways.push(gateway);
        }
        let Ok::<[Box<dyn Peer>; 2], _>(mut gateways) = gateways.try_into() else {
            return Err(Error::Asked("a tunnel has two ends".into()));
        };
        gateways[0].initiate()?;
        let log = lab.dir().join("iperf3");
        let server = hosts[1].spawn(&["iperf3", "-s", "-B", &HOSTS[1].to_string()], &[], &log)?;
        let to = HOSTS[1].to_string();
        clock::wait_for("a ping through the tunnel", Duration::from_secs(10), || {
            Ok(hosts[0].output(&["ping", "-n", "-c", "1", "-W", "1", &to])?.ok)
        })?;
        let mut pids = Vec::new();
        for place in &places {
            let text = shell.run(&["ip", "netns", "pids", place.node.netns()])?;
            pids.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        let found = Found::default();
        Ok(Self { case, kind, _server: server, _gateways: gateways, pids, hosts, found, _lab: lab })
    }

    fn run_once(&mut self) -> Result<()> {
        let before = self.cpu()?;
        let stream = self.iperf(&["-t", &STREAM.to_string()])?;
        let used = self.cpu()? - before;
        let received = &stream["end"]["sum_received"];
        let bytes = received["bytes"].as_f64().unwrap_or(0.0);
        self.found.tcp_mbit.push(received["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6);
        self.found.cpu_per_gb.push(if bytes > 0.0 { used / (bytes / 1e9) } else { 0.0 });

        let flood = self.iperf(&["-u", "-b", "0", "-l", &SMALL.to_string(), "-t", &FLOOD.to_string()])?;
        let (arrived, lost) = small_packets(&flood);
        self.found.small_per_second.push(arrived / f64::from(FLOOD));
        self.found.small_lost_percent.push(if arrived + lost > 0.0 { lost / (arrived + lost) * 100.0 } else { 0.0 });

        // What still stands in queues goes through before.
        clock::sleep(Duration::from_millis(200))?;
        let to = HOSTS[1].to_string();
        let pings = self.hosts[0].output(&["ping", "-n", "-c", "60", "-i", "0.01", "-W", "1", &to])?;
        self.found.ping_p50_ms.push(median_round_trip(&pings.stdout));
        Ok(())
    }

    fn cpu(&self) -> Result<f64> {
        self.pids.iter().map(|pid| cpu_seconds(*pid)).sum()
    }

    fn iperf(&self, more: &[&str]) -> Result<Value> {
        let to = HOSTS[1].to_string();
        let mut words = vec!["iperf3", "-J", "-c", &to];
        words.extend(more);
        let output = self.hosts[0].output(&words)?;
        let said: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        match said["error"].as_str() {
            None if output.ok => Ok(said),
            why => Err(Error::Command {
                line: format!("iperf3 through {} with {}", self.kind, self.case.shown()),
                said: why.unwrap_or(&output.stderr).to_owned(),
            }),
        }
    }

    fn data(self) -> Data {
        Data {
            esp: self.case.esp.to_string(),
            gateways: self.kind,
            encapsulation: self.case.encapsulation,
            wire_offloads: self.case.wire_offloads,
            tcp_mbit: Spread::of(self.found.tcp_mbit),
            cpu_per_gb: Spread::of(self.found.cpu_per_gb),
            small_per_second: Spread::of(self.found.small_per_second),
            small_lost_percent: Spread::of(self.found.small_lost_percent),
            ping_p50_ms: Spread::of(self.found.ping_p50_ms),
        }
    }
}

/// The places of the gateways, and the hosts.
fn ground(lab: &Lab) -> Result<([Place; 2], [Node; 2])> {
    let gateways = [lab.node("gw-a")?, lab.node("gw-b")?];
    let hosts = [lab.node("host-a")?, lab.node("host-b")?];
    lab.link((&gateways[0], "outside"), (&gateways[1], "outside"))?;
    for end in 0..2 {
        lab.link((&hosts[end], "eth0"), (&gateways[end], "inside"))?;
        hosts[end].address("eth0", &format!("{}/24", HOSTS[end]))?;
        hosts[end].route("default", &INSIDE[end].to_string())?;
    }
    let place = |own: usize, node: Node| Place {
        name: node.name().to_owned(),
        node,
        interfaces: [("outside", OUTSIDE[own]), ("inside", INSIDE[own])]
            .map(|(name, address)| Interface { name: name.into(), address: Ipv4Net::new_assert(address, 24) })
            .into(),
        router: OUTSIDE[1 - own],
    };
    let [a, b] = gateways;
    Ok(([place(0, a), place(1, b)], hosts))
}

fn spec(own: usize, case: Case) -> ConnectionSpec {
    let end = |of: usize| End {
        address: OUTSIDE[of],
        id: OUTSIDE[of],
        network: Ipv4Net::new_assert(INSIDE[of], 24).trunc().into(),
    };
    ConnectionSpec {
        name: "bench".into(),
        version: Version::V2,
        local: end(own),
        remote: end(1 - own),
        psk: "measured, not secret".into(),
        ike: IkeProposal { encryption: Encryption::Aes128Gcm, integrity: None, prf: Prf::Sha256, group: Group::Ecp256 },
        esp: case.esp,
        ike_lifetime: Lifetime::seconds(28_800, 540),
        child_lifetime: Lifetime::seconds(28_800, 540),
        dpd: Some(Dpd { delay: Duration::from_secs(30), timeout: Duration::from_secs(120) }),
        start: Start::Wait,
        encapsulation: case.encapsulation,
    }
}

/// Small packets that arrived and that did not, as the receiver counted them.
fn small_packets(said: &Value) -> (f64, f64) {
    let sum = &said["end"]["sum"];
    let number = |key: &str| sum[key].as_f64().unwrap_or(0.0);
    ((number("packets") - number("lost_packets")).max(0.0), number("lost_packets"))
}

fn median_round_trip(said: &str) -> f64 {
    let times = said.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok());
    Spread::of(times.collect()).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_pings_is_read_from_their_lines() {
        let said = "64 bytes from 10.62.0.2: icmp_seq=1 ttl=62 time=0.9 ms\n\
            64 bytes from 10.62.0.2: icmp_seq=2 ttl=62 time=0.1 ms\n\
            64 bytes from 10.62.0.2: icmp_seq=3 ttl=62 time=0.3 ms\n3 packets transmitted\n";
        assert!((median_round_trip(said) - 0.3).abs() < 1e-9);
        assert!(median_round_trip("").abs() < 1e-9);
    }

    #[test]
    fn lost_packets_did_not_arrive() {
        let said = serde_json::json!({"end": {"sum": {"packets": 1000, "lost_packets": 250}}});
        assert_eq!(small_packets(&said), (750.0, 250.0));
        assert_eq!(small_packets(&Value::Null), (0.0, 0.0));
    }
}
