//! Gateways behind one trait: simplon, strongSwan in user space, and strongSwan and Libreswan on a
//! real kernel in a guest.

pub mod cache;
pub mod guest;
mod kernel;
mod libreswan;
pub mod simplon;
pub mod strongswan;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::spec::{ConnectionSpec, Encapsulation};

pub use kernel::StrongSwanKernel;
pub use libreswan::Libreswan;
pub use simplon::Simplon;
pub use strongswan::StrongSwan;

/// The kinds of gateway that a scenario can put at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerKind {
    /// This project.
    Simplon,
    /// strongSwan with its ESP in user space: in UDP only, no ESN.
    Strongswan,
    /// strongSwan on the kernel of a guest.
    StrongswanKernel,
    /// Libreswan on the kernel of a guest.
    Libreswan,
}

impl PeerKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Simplon, Self::Strongswan, Self::StrongswanKernel, Self::Libreswan];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simplon => "simplon",
            Self::Strongswan => "strongswan",
            Self::StrongswanKernel => "strongswan-kernel",
            Self::Libreswan => "libreswan",
        }
    }

    /// Whether it runs in a guest with a kernel of its own.
    pub const fn in_guest(self) -> bool {
        match self {
            Self::Simplon | Self::Strongswan => false,
            Self::StrongswanKernel | Self::Libreswan => true,
        }
    }

    /// What is missing on this machine to run it, and how to get it.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Simplon => simplon::missing(),
            Self::Strongswan => strongswan::missing(),
            Self::StrongswanKernel => strongswan::missing().or_else(cache::missing),
            Self::Libreswan => cache::missing(),
        }
    }

    /// Fetches what it needs and what no package installation brings: the guest's kernel.
    ///
    /// # Errors
    ///
    /// When a download fails.
    pub fn prepare(self, shell: &crate::shell::Shell) -> Result<()> {
        if self.in_guest() { cache::Cache::prepare(shell).map(drop) } else { Ok(()) }
    }

    /// Why it cannot carry a connection like this.
    pub fn refuses(self, encapsulation: Encapsulation, esn: bool) -> Option<&'static str> {
        match self {
            Self::Strongswan if encapsulation == Encapsulation::Plain => {
                Some("strongSwan's user-space ESP always travels in UDP")
            }
            Self::Strongswan if esn => Some("strongSwan's user-space ESP has no extended sequence numbers"),
            Self::Strongswan | Self::Simplon | Self::StrongswanKernel | Self::Libreswan => None,
        }
    }

    /// A gateway of this kind, not yet started.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn build(self, lab: &Lab, place: &Place, plan: Plan) -> Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Simplon => Box::new(Simplon::new(lab, place, plan)?),
            Self::Strongswan => Box::new(StrongSwan::new(lab, place, plan.spec)?),
            Self::StrongswanKernel => Box::new(StrongSwanKernel::new(lab, place, plan.spec)?),
            Self::Libreswan => Box::new(Libreswan::new(lab, place, plan.spec)?),
        })
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PeerKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::Asked(format!("no peer is called {text:?}: there are {}", known())))
    }
}

/// What a gateway is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The connection.
    pub spec: ConnectionSpec,
    /// For simplon: run these files instead of a configuration written from the connection.
    pub files: Option<Files>,
}

/// An ipsec.conf and its secrets, as somebody wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The connections.
    pub conf: PathBuf,
    /// The keys.
    pub secrets: PathBuf,
}

/// Where a gateway stands: a namespace with interfaces into the namespaces around it. A gateway on
/// this kernel takes the interfaces as they are; a guest is bridged to them.
pub struct Place {
    /// Its name in the topology.
    pub name: String,
    /// The namespace.
    pub node: Node,
    /// Its interfaces, without addresses yet; the one towards the internet first.
    pub interfaces: Vec<Interface>,
    /// Its default router.
    pub router: Ipv4Addr,
}

/// An interface of a gateway.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address with the prefix length.
    pub address: Ipv4Net,
}

impl Place {
    /// Gives the namespace itself the addresses, and makes it a router for `kind`.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn settle(&self, kind: PeerKind) -> Result<()> {
        for interface in &self.interfaces {
            self.node.address(&interface.name, &interface.address.to_string())?;
        }
        self.node.route("default", &self.router.to_string())?;
        self.node.forward()?;
        if kind == PeerKind::Simplon {
            // As simplon asks: what arrives in clear must not pass for what came out of the tunnel.
            let names = self.interfaces.iter().map(|interface| interface.name.as_str());
            let strict: Vec<String> =
                names.chain(["all", "default"]).map(|name| format!("net.ipv4.conf.{name}.rp_filter=1")).collect();
            self.node.sysctl(&strict.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// What a gateway says about its tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether an IKE SA is established.
    pub established: bool,
    /// How many IKE SAs.
    pub ike_sas: usize,
    /// In its own words, such as ESTABLISHED or MM_ACTIVE.
    pub state: String,
    /// IKE version of the SA, where it says.
    pub version: Option<u8>,
    /// What phase 1 agreed on.
    pub ike: String,
    /// The Child SAs that carry traffic.
    pub children: Vec<ChildStatus>,
}

/// A Child SA as its gateway describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChildStatus {
    /// The inbound SPI in hexadecimal.
    pub spi_in: String,
    /// The outbound SPI in hexadecimal.
    pub spi_out: String,
    /// What phase 2 agreed on.
    pub esp: String,
    /// Whether it travels in UDP, where the gateway says.
    pub udp: Option<bool>,
    /// Whether it has extended sequence numbers, where the gateway says.
    pub esn: Option<bool>,
    /// Packets received, where the gateway counts them.
    pub packets_in: Option<u64>,
    /// Packets sent, where the gateway counts them.
    pub packets_out: Option<u64>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// A gateway at one end of the tunnel.
pub trait Peer {
    /// What it is.
    fn kind(&self) -> PeerKind;

    /// Starts it; when this returns, it answers.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    fn start(&mut self) -> Result<()>;

    /// Tells it to bring the tunnel up.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn initiate(&mut self) -> Result<()>;

    /// Whether it brings the tunnel up by itself when traffic comes.
    fn starts_on_traffic(&self) -> bool {
        true
    }

    /// What it says about the tunnel.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    fn status(&mut self) -> Result<Status>;

    /// Everything that it says about itself, where it says it in JSON.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    fn detail(&mut self) -> Result<Option<serde_json::Value>> {
        Ok(None)
    }

    /// The same for a person.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    fn detail_text(&mut self) -> Result<Option<String>> {
        Ok(None)
    }

    /// The configuration that it runs, for whoever wants to see it.
    fn configuration(&self) -> String;

    /// The last lines of its log.
    fn log_tail(&mut self, lines: usize) -> String;

    /// Ends it as a power cut would: nothing is said to the other end. It can be started again.
    fn crash(&mut self) {
        self.stop();
    }

    /// Ends it.
    fn stop(&mut self);
}

/// The last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Writes a file that only its user can read: most of what a peer is told has a key in it.
pub(crate) fn write_private(path: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Error::io(format!("writing {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in PeerKind::ALL {
            assert_eq!(kind.name().parse::<PeerKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("cisco".parse::<PeerKind>().is_err());
    }

    #[test]
    fn the_tail_of_a_short_text_is_the_text() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
