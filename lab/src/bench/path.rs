//! The ground of the data path: a host, a gateway, a wire, a gateway, a host, and what runs on it.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use ipnet::Ipv4Net;
use serde_json::Value;

use crate::bench::gateways::{Gateway, Plugins, Running};
use crate::bench::process::{Cpu, cpu};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{Interface, Peer, Place, simplon};
use crate::shell::{Process, Shell};
use crate::spec::{ConnectionSpec, Dpd, Encapsulation, End, EspProposal, IkeProposal, Lifetime, Start, Version};

pub(super) const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 61, 0, 2), Ipv4Addr::new(10, 62, 0, 2)];
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 61, 0, 1), Ipv4Addr::new(10, 62, 0, 1)];
pub(super) const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// Where a counter of packets listens.
pub(super) const COUNTER: u16 = 9_009;

/// What the devices at both ends of the wire do with UDP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// As veth has it: a super-packet passes whole.
    Veth,
    /// As a plain network card: the sender's side cuts super-packets up, the receiver's joins packets of one flow.
    Card,
    /// Cut up, and not joined.
    Poor,
}

impl Wire {
    /// What `ethtool -K` switches.
    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Veth => &[],
            Self::Card => &["tx-udp-segmentation", "off", "gro", "on", "rx-udp-gro-forwarding", "on"],
            Self::Poor => &["tx-udp-segmentation", "off"],
        }
    }
}

/// Where the hosts are that talk through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    /// At the gateways themselves: two namespaces, and nothing but the tunnel is measured.
    AtGateways,
    /// One hop behind them, as a site has it: four namespaces, and both gateways forward.
    Behind,
}

/// What is negotiated, over which wire, and between which hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) esp: EspProposal,
    pub(super) encapsulation: Encapsulation,
    pub(super) wire: Wire,
    pub(super) hosts: Hosts,
}

impl Case {
    pub(super) const GCM: Self = Self {
        name: "AES-GCM in UDP",
        esp: EspProposal { encryption: Encryption::Aes128Gcm, integrity: None, group: None, esn: false },
        encapsulation: Encapsulation::Udp,
        wire: Wire::Veth,
        hosts: Hosts::AtGateways,
    };
    pub(super) const BEHIND: Self = Self { name: "AES-GCM, hosts behind", hosts: Hosts::Behind, ..Self::GCM };
    pub(super) const SHA1: Self = Self { name: "AES-CBC SHA1 in UDP", esp: Self::cbc(Integrity::Sha1), ..Self::GCM };
    pub(super) const SHA256: Self =
        Self { name: "AES-CBC SHA2-256 in UDP", esp: Self::cbc(Integrity::Sha256), ..Self::GCM };
    pub(super) const PLAIN: Self = Self { name: "AES-GCM plain ESP", encapsulation: Encapsulation::Plain, ..Self::GCM };
    pub(super) const CARD: Self = Self { name: "AES-GCM, wire of a card", wire: Wire::Card, ..Self::GCM };
    pub(super) const POOR_WIRE: Self = Self { name: "AES-GCM, poor wire", wire: Wire::Poor, ..Self::GCM };

    const fn cbc(integrity: Integrity) -> EspProposal {
        EspProposal { encryption: Encryption::Aes128Cbc, integrity: Some(integrity), group: None, esn: false }
    }
}

/// Both gateways, and the hosts that talk.
pub(super) struct Ends {
    pub(super) places: [Place; 2],
    pub(super) hosts: [Node; 2],
}

impl Ends {
    pub(super) fn build(lab: &Lab, hosts: Hosts) -> Result<Self> {
        let gateways = [lab.node("gw-a")?, lab.node("gw-b")?];
        lab.link((&gateways[0], "outside"), (&gateways[1], "outside"))?;
        let hosts = match hosts {
            Hosts::AtGateways => {
                for (gateway, host) in gateways.iter().zip(HOSTS) {
                    gateway.bridge("inside", &format!("{host}/24"))?;
                }
                gateways.clone()
            }
            Hosts::Behind => {
                let hosts = [lab.node("host-a")?, lab.node("host-b")?];
                for end in 0..2 {
                    lab.link((&hosts[end], "eth0"), (&gateways[end], "inside"))?;
                    hosts[end].address("eth0", &format!("{}/24", HOSTS[end]))?;
                    hosts[end].route("default", &INSIDE[end].to_string())?;
                }
                hosts
            }
        };
        let place = |own: usize, node: Node| Place {
            name: node.name().to_owned(),
            node,
            interfaces: [("outside", OUTSIDE[own]), ("inside", INSIDE[own])]
                .map(|(name, address)| Interface { name: name.into(), address: Ipv4Net::new_assert(address, 24) })
                .into(),
            router: OUTSIDE[1 - own],
        };
        let [a, b] = gateways;
        Ok(Self { places: [place(0, a), place(1, b)], hosts })
    }
}

/// A tunnel that is up, or two hops that only forward.
pub(super) struct Tunnel {
    pub(super) gateway: Gateway,
    pub(super) case: Case,
    // Processes go before the namespaces that they run in.
    servers: Vec<Process>,
    running: Running,
    pids: Vec<u32>,
    pub(super) ends: Ends,
    pub(super) lab: Lab,
}

impl Tunnel {
    pub(super) fn build(gateway: Gateway, case: Case, plugins: Plugins, shell: &Shell) -> Result<Self> {
        let lab = Lab::new(shell)?;
        let ends = Ends::build(&lab, case.hosts)?;
        if case.wire != Wire::Veth {
            for place in &ends.places {
                place.node.run(&[&["ethtool", "-K", "outside"][..], case.wire.features()].concat())?;
            }
        }
        let running = gateway.start(&lab, &ends, [spec(0, case), spec(1, case)], plugins)?;
        let [from, to] = HOSTS.map(|host| host.to_string());
        clock::wait_for(&format!("a ping through {gateway}"), Duration::from_secs(15), || {
            Ok(ends.hosts[0].output(&["ping", "-n", "-c", "1", "-W", "1", "-I", &from, &to])?.ok)
        })?;
        let mut pids = Vec::new();
        for place in &ends.places {
            let text = shell.run(&["ip", "netns", "pids", place.node.netns()])?;
            pids.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        Ok(Self { gateway, case, servers: Vec::new(), running, pids, ends, lab })
    }

    /// Starts what answers iperf3 at the far host.
    pub(super) fn serve_iperf(&mut self) -> Result<()> {
        let log = self.lab.dir().join("iperf3");
        let words = ["iperf3", "-s", "-B", &HOSTS[1].to_string()];
        self.servers.push(self.ends.hosts[1].spawn(&words, &[], &log)?);
        let host = &self.ends.hosts[1];
        clock::wait_for("iperf3's server", Duration::from_secs(5), || {
            Ok(host.output(&["ss", "-Hltn", "sport = :5201"])?.stdout.contains("5201"))
        })
        .map(drop)
    }

    /// Starts what counts packets at the far host. The near one sends runs, which its device cuts up: each packet
    /// reaches the gateway by itself.
    pub(super) fn serve_counter(&mut self) -> Result<()> {
        self.ends.hosts[0].run(&["ethtool", "-K", "eth0", "tx-udp-segmentation", "off"])?;
        let log = self.lab.dir().join("counter");
        self.servers.push(self.ends.hosts[1].spawn(&load(&["count", "--listen", &counter()])?, &[], &log)?);
        Ok(())
    }

    /// What the processes of both gateways have used.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        self.pids.iter().map(|pid| cpu(*pid)).sum()
    }

    /// Runs iperf3 from the near host, and returns what it says. Its server does not survive every client: then there is
    /// a new one, and a second try.
    pub(super) fn iperf(&mut self, more: &[&str]) -> Result<Value> {
        self.iperf_once(more).or_else(|error| match error {
            Error::Interrupted => Err(error),
            Error::Missing { .. } | Error::Command { .. } | Error::Late { .. } | Error::Asked(_) | Error::Io { .. } => {
                self.servers.clear();
                self.serve_iperf()?;
                self.iperf_once(more)
            }
        })
    }

    fn iperf_once(&self, more: &[&str]) -> Result<Value> {
        let [from, to] = HOSTS.map(|host| host.to_string());
        let mut words = vec!["iperf3", "-J", "-B", &from, "-c", &to];
        words.extend(more);
        let output = self.ends.hosts[0].output(&words)?;
        let said: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        match said["error"].as_str() {
            None if output.ok => Ok(said),
            why => Err(Error::Command {
                line: format!("iperf3 through {} with {}", self.gateway, self.case.name),
                said: why.unwrap_or(&output.stderr).to_owned(),
            }),
        }
    }

    /// Sends packets from the near host as `simplon bench load packets` does.
    pub(super) fn packets(&self, more: &[&str]) -> Result<Value> {
        let counter = counter();
        let mut words = vec!["packets", "--to", &counter];
        words.extend(more);
        let said = self.ends.hosts[0].run(&load(&words)?)?;
        serde_json::from_str(&said).map_err(|e| Error::Asked(format!("simplon bench load packets: {e}")))
    }

    pub(super) fn peers(&mut self) -> &mut [Box<dyn Peer>] {
        &mut self.running.peers
    }
}

fn counter() -> String {
    format!("{}:{COUNTER}", HOSTS[1])
}

/// One of our own load generators, as a command.
pub(super) fn load(words: &[&str]) -> Result<Vec<String>> {
    let program = tool().ok_or_else(|| Error::Missing {
        what: "the program simplon".into(),
        install: simplon::missing().unwrap_or_default(),
    })?;
    let mut all = vec![program, "bench".to_owned(), "load".to_owned()];
    all.extend(words.iter().map(|&word| word.to_owned()));
    Ok(all)
}

/// The program that is running, or else the one that is measured.
fn tool() -> Option<String> {
    let is_own = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name == "simplon");
    let found = std::env::current_exe().ok().filter(is_own).or_else(simplon::program)?;
    Some(found.to_string_lossy().into_owned())
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
