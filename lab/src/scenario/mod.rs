//! The scenarios: what each one is, and the steps that all of them take.
//!
//! topology -> ping fails -> gateways -> tunnel -> ping passes -> (rekey) -> status -> wire check

mod asa;
mod checks;
mod fault;
mod ncp_vgw;
mod openswan_vgw;
mod play;
mod trouble;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{PeerKind, Plan};
use crate::report::Report;
use crate::shell::{Out, Shell};
use crate::spec::{Encapsulation, Suite, Version};
use crate::topology::{self, Ground};

pub use fault::Fault;
pub(crate) use play::play;
pub use trouble::Trouble;

/// Which end brings the tunnel up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// The customer's gateway.
    Customer,
    /// The cloud's gateway.
    Cloud,
}

impl FromStr for Initiator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "customer" => Ok(Self::Customer),
            "cloud" => Ok(Self::Cloud),
            other => Err(Error::Asked(format!("no end is called {other:?}: there are customer and cloud"))),
        }
    }
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Customer => "customer",
            Self::Cloud => "cloud",
        })
    }
}

/// How to run a scenario.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway at the customer's end.
    pub customer: PeerKind,
    /// The gateway at the cloud's end.
    pub cloud: PeerKind,
    /// The version of IKE; `None` is the scenario's own.
    pub version: Option<Version>,
    /// Which end brings the tunnel up.
    pub initiator: Initiator,
    /// How ESP travels.
    pub encapsulation: Encapsulation,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The algorithms.
    pub suite: Suite,
    /// What happens to the tunnel.
    pub trouble: Option<Trouble>,
    /// What is wrong in simplon's configuration: then the tunnel must not come up.
    pub fault: Option<Fault>,
    /// Say nothing while it runs: the report is what is wanted.
    pub json: bool,
    /// Show every command.
    pub echo: bool,
    /// Afterwards, leave everything up until Ctrl-C.
    pub keep: bool,
    /// Write what passed between the gateways to this pcap file.
    pub pcap: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            customer: PeerKind::Simplon,
            cloud: PeerKind::Strongswan,
            version: None,
            initiator: Initiator::Customer,
            encapsulation: Encapsulation::Auto,
            esn: false,
            suite: Suite::Classic,
            trouble: None,
            fault: None,
            json: false,
            echo: false,
            keep: false,
            pcap: None,
        }
    }
}

impl Options {
    /// simplon at one end and `peer` at the other: Libreswan is the customer's gateway, as in the
    /// documents; every other peer stands in for the cloud's.
    #[must_use]
    pub fn against(self, peer: PeerKind) -> Self {
        match peer {
            PeerKind::Libreswan => Self { customer: peer, cloud: PeerKind::Simplon, ..self },
            PeerKind::Simplon | PeerKind::Strongswan | PeerKind::StrongswanKernel => {
                Self { customer: PeerKind::Simplon, cloud: peer, ..self }
            }
        }
    }
}

/// A scenario of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// An Openswan customer gateway behind 1:1 NAT and a virtual private gateway.
    OpenswanVgw,
    /// An ASA-like NCP gateway and a virtual private gateway, rekeying under traffic.
    NcpVgw,
}

/// The connection at both ends.
pub(crate) struct Plans {
    pub(crate) customer: Plan,
    pub(crate) cloud: Plan,
    /// What differs from the documents that the scenario follows, for the person to know.
    pub(crate) notes: Vec<String>,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 2] = [Self::OpenswanVgw, Self::NcpVgw];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenswanVgw => "openswan-vgw",
            Self::NcpVgw => "ncp-vgw",
        }
    }

    /// What it shows, in one line.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::OpenswanVgw => {
                "an Openswan customer gateway behind a 1:1 NAT joins its VPC to a virtual private gateway"
            }
            Self::NcpVgw => "an ASA-like gateway brings a tunnel up with its first packet and rekeys under traffic",
        }
    }

    /// Its ground as a drawing.
    pub const fn drawing(self) -> &'static str {
        match self {
            Self::OpenswanVgw => topology::OPENSWAN_VGW,
            Self::NcpVgw => topology::NCP_VGW,
        }
    }

    /// The version of IKE that its documents use.
    pub const fn version(self) -> Version {
        match self {
            Self::OpenswanVgw | Self::NcpVgw => Version::V1,
        }
    }

    /// Whether its path has an address translator, which plain ESP cannot pass.
    pub const fn has_nat(self) -> bool {
        match self {
            Self::OpenswanVgw => true,
            Self::NcpVgw => false,
        }
    }

    /// Why it cannot be run like this; `None` when it can.
    pub fn refuses(self, options: &Options) -> Option<String> {
        let version = options.version.unwrap_or(self.version());
        if options.encapsulation == Encapsulation::Plain && self.has_nat() {
            return Some("plain ESP does not pass the NAT of this scenario".into());
        }
        if options.suite == Suite::Modern && version == Version::V1 {
            return Some("IKEv1 has no AEAD in phase 1".into());
        }
        if let Some(why) = options.trouble.and_then(|trouble| trouble.refuses(self, options)) {
            return Some(why.into());
        }
        if options.fault.is_some() && Fault::end(options).is_none() {
            return Some("faults are put into simplon's configuration".into());
        }
        if options.fault.is_some() && options.trouble.is_some() {
            return Some("a fault and a trouble do not go together".into());
        }
        let refusal = |kind: PeerKind| kind.refuses(options.encapsulation, options.esn).map(str::to_owned);
        refusal(options.customer).or_else(|| refusal(options.cloud))
    }

    pub(crate) fn build(self, lab: &Lab) -> Result<Ground> {
        match self {
            Self::OpenswanVgw => topology::openswan_vgw(lab),
            Self::NcpVgw => topology::ncp_vgw(lab),
        }
    }

    pub(crate) fn plans(self, lab: &Lab, ground: &Ground, options: &Options) -> Result<Plans> {
        match self {
            Self::OpenswanVgw => openswan_vgw::plans(lab, ground, options),
            Self::NcpVgw => ncp_vgw::plans(ground, options),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| Error::Asked(format!("no scenario is called {text:?}: there are {}", known())))
    }
}

/// Runs a scenario; what a person reads goes to `out`.
///
/// # Errors
///
/// When it cannot be run as asked, something is missing, or it is interrupted. Checks that do not
/// hold, and gateways that do not come up, are in the report.
pub fn run(scenario: Scenario, options: &Options, out: Out) -> Result<Report> {
    if let Some(why) = scenario.refuses(options) {
        return Err(Error::Asked(why));
    }
    if let Some(install) = missing(options) {
        return Err(install);
    }
    play(scenario, options, &Shell::new(out, options.echo))
}

/// What has to be installed to run a scenario like this, as an error.
pub(crate) fn missing(options: &Options) -> Option<Error> {
    for program in ["ip", "nft", "ping", "sysctl", "setpriv"] {
        if !crate::shell::installed(program) {
            let install = crate::shell::package_of(program).to_owned();
            return Some(Error::Missing { what: format!("the program {program}"), install });
        }
    }
    [options.customer, options.cloud]
        .into_iter()
        .find_map(|kind| kind.missing().map(|install| Error::Missing { what: format!("the peer {kind}"), install }))
}
