//! Real BGP speakers behind one trait: BIRD, FRR, GoBGP, ExaBGP and OpenBGPD, each in a namespace of a lab.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::shell::Process;

/// Which speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BgpPeerKind {
    /// BIRD 2.
    Bird,
    /// FRR's bgpd, with zebra and bfdd where it needs them.
    Frr,
    /// GoBGP.
    Gobgp,
    /// ExaBGP.
    Exabgp,
    /// OpenBGPD.
    Openbgpd,
}

impl BgpPeerKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Bird, Self::Frr, Self::Gobgp, Self::Exabgp, Self::Openbgpd];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Exabgp => "exabgp",
            Self::Openbgpd => "openbgpd",
        }
    }

    /// What has to be installed to run it.
    pub fn missing(self) -> Option<String> {
        let (files, package): (&[&str], _) = match self {
            Self::Bird => (&["/usr/sbin/bird", "/usr/sbin/birdc"], "bird2"),
            Self::Frr => (&["/usr/lib/frr/bgpd", "/usr/bin/vtysh"], "frr"),
            Self::Gobgp => (&["/usr/bin/gobgpd", "/usr/bin/gobgp"], "gobgpd"),
            Self::Exabgp => (&["/usr/sbin/exabgp"], "exabgp"),
            Self::Openbgpd => (&["/usr/sbin/bgpd", "/usr/sbin/bgpctl"], "openbgpd"),
        };
        let is_there = files.iter().all(|file| std::path::Path::new(file).exists());
        (!is_there).then(|| format!("apt-get install {package}"))
    }

    /// Whether it can watch the path with BFD here.
    pub const fn has_bfd(self) -> bool {
        matches!(self, Self::Bird | Self::Frr)
    }

    /// Whether it signs its segments (RFC 2385) on this system. ExaBGP's Debian package has no way to set the key on
    /// sockets of IPv4 that it opens itself.
    pub const fn has_md5(self) -> bool {
        !matches!(self, Self::Exabgp)
    }

    /// Whether it announces routes of the family that the session does not run over, with a next hop. OpenBGPD outside of
    /// OpenBSD never learns its address of the other family, and announces `::`.
    pub const fn has_other_next_hop(self) -> bool {
        !matches!(self, Self::Openbgpd)
    }

    /// A speaker of this kind, not yet started.
    ///
    /// # Errors
    ///
    /// When its directory cannot be made.
    pub(crate) fn build(self, lab: &Lab, node: &Node, plan: Plan) -> Result<Box<dyn BgpPeer>> {
        let dir = lab.subdir(self.name())?;
        // Some of them drop their privileges, and all that is in there is of this run.
        open_to_all(&dir)?;
        let place = Place { node: node.clone(), dir, plan };
        Ok(match self {
            Self::Bird => Box::new(bird::Bird::new(place)),
            Self::Frr => Box::new(frr::Frr::new(place)),
            Self::Gobgp => Box::new(gobgp::Gobgp::new(place)),
            Self::Exabgp => Box::new(exabgp::Exabgp::new(place)),
            Self::Openbgpd => Box::new(openbgpd::Openbgpd::new(place)),
        })
    }
}

impl fmt::Display for BgpPeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a speaker is told: one neighbour, some networks.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its own address.
    pub(crate) address: IpAddr,
    pub(crate) router_id: Ipv4Addr,
    /// Its interface.
    pub(crate) interface: String,
    pub(crate) asn: u32,
    /// Its neighbour.
    pub(crate) remote: IpAddr,
    pub(crate) remote_asn: u32,
    /// Its address of the other family, where routes of that are exchanged on the session too.
    pub(crate) other: Option<IpAddr>,
    /// What it announces when it starts.
    pub(crate) networks: Vec<String>,
    pub(crate) password: Option<String>,
    /// Whether BFD watches the neighbour, 3 × 100 ms.
    pub(crate) bfd: bool,
}

impl Plan {
    /// For each family whose routes are exchanged, its own address in it: that of the session first.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(self.address), self.other].into_iter().flatten()
    }

    /// Its own address of the family of a prefix.
    fn next_hop(&self, prefix: &str) -> Option<IpAddr> {
        self.addresses().find(|address| address.is_ipv6() == is_ipv6(prefix))
    }
}

/// Whether an address or a prefix is one of IPv6.
fn is_ipv6(text: &str) -> bool {
    text.contains(':')
}

/// The family of a prefix, as most speakers call it.
fn family_of(prefix: &str) -> &'static str {
    if is_ipv6(prefix) { "ipv6" } else { "ipv4" }
}

/// That of an address.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ipv6" } else { "ipv4" }
}

/// A speaker and where it is.
pub(crate) struct Place {
    node: Node,
    dir: PathBuf,
    plan: Plan,
}

/// A BGP speaker.
pub(crate) trait BgpPeer {
    /// What it was told.
    fn plan(&mut self) -> &mut Plan;

    /// Starts it, the first time or again, as its plan says now.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    fn start(&mut self) -> Result<()>;

    /// Whether the session is established.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    fn is_established(&mut self) -> Result<bool>;

    /// Whether it has this route from its neighbour.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    fn has_route(&mut self, prefix: &str) -> Result<bool>;

    /// Announces another network.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn announce(&mut self, prefix: &str) -> Result<()>;

    /// Announces a network with one attribute just as these octets have it, code, flags and value, each in hexadecimal;
    /// whether it can be made to.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn announce_with(&mut self, _prefix: &str, _attribute: [&str; 3]) -> Result<bool> {
        Ok(false)
    }

    /// Withdraws one.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn withdraw(&mut self, prefix: &str) -> Result<()>;

    /// Asks its neighbour for all routes again (RFC 2918); whether it can be made to.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn refresh(&mut self) -> Result<bool>;

    /// Lets it try again at once, where it waits longer than the lab after a session that ended with an error.
    ///
    /// # Errors
    ///
    /// When it refuses.
    fn wake(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends it at once.
    fn crash(&mut self);

    /// The last lines of its log.
    fn log_tail(&self, lines: usize) -> String;
}

impl Place {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        crate::peer::write_private(&self.dir.join(name), text)
    }

    fn tail(&self, names: &[&str], lines: usize) -> String {
        let text: String =
            names.iter().map(|name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()).collect();
        crate::peer::tail(&text, lines)
    }

    /// Waits until a program that was started answers.
    fn wait_for(&self, what: &str, process: &mut Process, mut answers: impl FnMut() -> Result<bool>) -> Result<()> {
        let mut ended = false;
        let waited = clock::wait_for(what, Duration::from_secs(10), || {
            ended = !process.is_running();
            Ok(ended || answers()?)
        });
        if ended {
            return Err(Error::Command { line: process.line().into(), said: self.tail(&["out", "log"], 15) });
        }
        waited.map(drop)
    }
}

fn open_to_all(dir: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).map_err(|e| Error::io(format!("opening {}", dir.display()), e))
}
