//! Scenarios with several gateways and several tunnels, and what their failovers cost.
//!
//! [`run`] builds the ground of a case, starts the gateways, lets numbered packets pass both ways every
//! 10 ms, lets something happen, and says exactly what was lost. Everything that passed the internet between the
//! gateways is looked at, as in the scenarios of one connection.

mod bgp_link;
mod bgp_tunnels;
mod bird;
mod charon;
mod clustered;
mod config;
mod daemon;
mod dark;
mod failover;
mod follower;
mod ground;
mod hand_over;
mod loss;
mod report;
mod stream;
mod two_tunnels;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::bgp_peer::BgpPeerKind;
use crate::capture::Capture;
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{simplon, strongswan};
use crate::ping::PATTERN;
use crate::shell::{Out, Shell};
use crate::spec::Version;
use crate::wire::{Inner, Tally};

use self::bird::Bird;
use self::charon::Charon;
use self::daemon::Daemon;
use self::follower::Follower;
use self::ground::Ground;
use self::report::Reporter;

pub use clustered::Pair;
pub use failover::{Round, Rounds, Row, failover, failover_table};
pub use hand_over::Neighbour;
pub use loss::Loss;
pub use report::{Event as EventReport, Log, Report};
pub use stream::{Host, INTERVAL, Losses, Stream};

/// A routed scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One customer gateway, two endpoints, static routes.
    TwoTunnels,
    /// A NEC IX behind NAT, two tunnels, BGP.
    NecIxVgwBgp,
    /// Two IPsec connections of one cloud, a VPN connection with two tunnels of another, BGP.
    AlibabaVgwBgp,
    /// Two customer gateways, two endpoints, four tunnels.
    TwoDevices,
    /// A gateway is handed over to another process, with another BGP speaker at the other end of its tunnel.
    HandOver(Neighbour),
    /// One customer gateway that is a pair with a shared address.
    Clustered(Pair),
    /// Another BGP speaker on a plain link.
    Bgp(BgpPeerKind),
    /// The same with a session over IPv6.
    BgpIpv6(BgpPeerKind),
}

impl Scenario {
    /// Every routed scenario.
    pub const ALL: [Self; 21] = [
        Self::TwoTunnels,
        Self::NecIxVgwBgp,
        Self::AlibabaVgwBgp,
        Self::TwoDevices,
        Self::HandOver(Neighbour::Bird { keeps: true }),
        Self::HandOver(Neighbour::Bird { keeps: false }),
        Self::HandOver(Neighbour::Frr),
        Self::Clustered(Pair::Device),
        Self::Clustered(Pair::Ikev1),
        Self::Clustered(Pair::Bgp),
        Self::Clustered(Pair::Ipv6),
        Self::Bgp(BgpPeerKind::Bird),
        Self::Bgp(BgpPeerKind::Frr),
        Self::Bgp(BgpPeerKind::Gobgp),
        Self::Bgp(BgpPeerKind::Exabgp),
        Self::Bgp(BgpPeerKind::Openbgpd),
        Self::BgpIpv6(BgpPeerKind::Bird),
        Self::BgpIpv6(BgpPeerKind::Frr),
        Self::BgpIpv6(BgpPeerKind::Gobgp),
        Self::BgpIpv6(BgpPeerKind::Exabgp),
        Self::BgpIpv6(BgpPeerKind::Openbgpd),
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoTunnels => "two-tunnels",
            Self::NecIxVgwBgp => "nec-ix-vgw-bgp",
            Self::AlibabaVgwBgp => "alibaba-vgw-bgp",
            Self::TwoDevices => "two-devices",
            Self::HandOver(Neighbour::Bird { keeps: true }) => "hand-over-bgp",
            Self::HandOver(Neighbour::Bird { keeps: false }) => "hand-over-bgp-plain",
            Self::HandOver(Neighbour::Frr) => "hand-over-bgp-frr",
            Self::Clustered(Pair::Device) => "clustered-device",
            Self::Clustered(Pair::Ikev1) => "clustered-ikev1",
            Self::Clustered(Pair::Bgp) => "clustered-bgp",
            Self::Clustered(Pair::Ipv6) => "clustered-ipv6",
            Self::Bgp(BgpPeerKind::Bird) => "bgp-bird",
            Self::Bgp(BgpPeerKind::Frr) => "bgp-frr",
            Self::Bgp(BgpPeerKind::Gobgp) => "bgp-gobgp",
            Self::Bgp(BgpPeerKind::Exabgp) => "bgp-exabgp",
            Self::Bgp(BgpPeerKind::Openbgpd) => "bgp-openbgpd",
            Self::BgpIpv6(BgpPeerKind::Bird) => "bgp-bird-ipv6",
            Self::BgpIpv6(BgpPeerKind::Frr) => "bgp-frr-ipv6",
            Self::BgpIpv6(BgpPeerKind::Gobgp) => "bgp-gobgp-ipv6",
            Self::BgpIpv6(BgpPeerKind::Exabgp) => "bgp-exabgp-ipv6",
            Self::BgpIpv6(BgpPeerKind::Openbgpd) => "bgp-openbgpd-ipv6",
        }
    }

    /// What it shows, in one line.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::TwoTunnels => "a customer gateway with two tunnels and static routes loses one of them",
            Self::NecIxVgwBgp => {
                "a NEC IX behind a NAT exchanges routes by BGP over two tunnels, and loses one after the other"
            }
            Self::AlibabaVgwBgp => "two clouds exchange routes by BGP over two tunnels, and lose one after the other",
            Self::TwoDevices => "two customer gateways with four tunnels, by BGP or static, of which one dies",
            Self::HandOver(Neighbour::Bird { keeps: true }) => {
                "a gateway is handed over to another process under BGP and BFD with BIRD, which keeps routes meanwhile"
            }
            Self::HandOver(Neighbour::Bird { keeps: false }) => "the same with a BIRD that keeps nothing",
            Self::HandOver(Neighbour::Frr) => "the same with FRR, which keeps routes unless it is told otherwise",
            Self::Clustered(Pair::Device) => {
                "a customer gateway of two members with one address, of which the active one is killed"
            }
            Self::Clustered(Pair::Ikev1) => "the same with IKEv1, and new keys after it",
            Self::Clustered(Pair::Bgp) => "the same with BGP over the tunnel",
            Self::Clustered(Pair::Ipv6) => "the same with shared addresses of IPv6",
            Self::Bgp(BgpPeerKind::Bird) => "BGP and BFD with BIRD on a plain link",
            Self::Bgp(BgpPeerKind::Frr) => "BGP and BFD with FRR on a plain link",
            Self::Bgp(BgpPeerKind::Gobgp) => "BGP with GoBGP on a plain link",
            Self::Bgp(BgpPeerKind::Exabgp) => "BGP with ExaBGP on a plain link",
            Self::Bgp(BgpPeerKind::Openbgpd) => "BGP with OpenBGPD on a plain link",
            Self::BgpIpv6(BgpPeerKind::Bird) => "BGP and BFD with BIRD over IPv6",
            Self::BgpIpv6(BgpPeerKind::Frr) => "BGP and BFD with FRR over IPv6",
            Self::BgpIpv6(BgpPeerKind::Gobgp) => "BGP with GoBGP over IPv6",
            Self::BgpIpv6(BgpPeerKind::Exabgp) => "BGP with ExaBGP over IPv6",
            Self::BgpIpv6(BgpPeerKind::Openbgpd) => "BGP with OpenBGPD over IPv6",
        }
    }

    const fn drawing(self) -> &'static str {
        match self {
            Self::TwoTunnels => two_tunnels::DRAWING,
            Self::NecIxVgwBgp => bgp_tunnels::NEC_DRAWING,
            Self::AlibabaVgwBgp => bgp_tunnels::ALIBABA_DRAWING,
            Self::TwoDevices => bgp_tunnels::DEVICES_DRAWING,
            Self::HandOver(_) => hand_over::DRAWING,
            Self::Clustered(_) => clustered::DRAWING,
            Self::Bgp(_) => bgp_link::DRAWING,
            Self::BgpIpv6(_) => bgp_link::IPV6_DRAWING,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Scenario {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| Error::Asked(format!("no routed scenario is called {text:?}: there are {}", known())))
    }
}

/// What happens to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Its path is cut, and BFD (3 × 100 ms) watches it.
    Bfd,
    /// Its path is cut, and probes (one a second) watch it.
    Probe,
    /// Its path is cut, and only dead peer detection watches it.
    Dpd,
    /// The customer drains it.
    Drain,
    /// Another connection is changed by a reload.
    Reload,
    /// The cloud deletes its SAs.
    Delete,
    /// The cloud routes around its endpoint, and then deletes the SAs, as for its replacement.
    Replace,
    /// Every path is cut, and then the gateway is killed: nothing must leave in clear.
    Dark,
    /// Another process takes the place of the customer's gateway.
    HandOver,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::Bfd,
        Self::Probe,
        Self::Dpd,
        Self::Drain,
        Self::Reload,
        Self::Delete,
        Self::Replace,
        Self::Dark,
        Self::HandOver,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bfd => "bfd",
            Self::Probe => "probe",
            Self::Dpd => "dpd",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::Delete => "delete",
            Self::Replace => "replace",
            Self::Dark => "dark",
            Self::HandOver => "hand-over",
        }
    }

    /// What happens, as a person says it.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Bfd => "a cut, seen by BFD 3 × 100 ms,",
            Self::Probe => "a cut, seen by probes each second,",
            Self::Dpd => "a cut, seen by dead peer detection after 6 s,",
            Self::Drain => "draining a tunnel",
            Self::Reload => "a reload that changes another connection",
            Self::Delete => "the deletion of a tunnel by the cloud",
            Self::Replace => "the planned replacement of an endpoint",
            Self::Dark => "a cut of every path,",
            Self::HandOver => "the hand-over to another process, and new keys after it,",
        }
    }

    /// For how many milliseconds traffic may be interrupted.
    const fn bound_ms(self, cloud: Cloud) -> f64 {
        match (self, cloud) {
            (Self::Bfd, _) => 500.0,
            // It is interrupted until the paths are healed.
            (Self::Dark, _) => f64::MAX,
            (Self::Probe, _) => 3_000.0,
            (Self::Dpd, Cloud::Simplon) => 7_000.0,
            // charon gives up after four retransmissions: 13 s after it asked, 15 s after it heard something last.
            (Self::Dpd, Cloud::Strongswan) => 17_000.0,
            // strongSwan forgets its SAs with the answer to its DELETE, while the cloud still routes to it.
            (Self::Delete | Self::Replace, Cloud::Strongswan) => 200.0,
            (Self::Delete | Self::Replace, Cloud::Simplon) | (Self::Drain | Self::Reload | Self::HandOver, _) => 0.0,
        }
    }
}

impl FromStr for Event {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|event| event.name() == text)
            .ok_or_else(|| Error::Asked(format!("no event is called {text:?}: there are {}", known())))
    }
}

/// How traffic is spread over the tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The preferred one carries all of it.
    #[default]
    ActiveStandby,
    /// Each flow takes one of them.
    ActiveActive,
}

/// How the ends learn of each other's networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routes {
    /// By BGP.
    #[default]
    Bgp,
    /// They are configured.
    Static,
}

/// What watches the sessions of BGP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// BFD, 3 × 100 ms.
    #[default]
    Bfd,
    /// The hold timer alone.
    HoldTimer,
}

/// What the cloud's endpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// This project.
    #[default]
    Simplon,
    /// strongSwan with its ESP in user space.
    Strongswan,
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Simplon => "simplon",
            Self::Strongswan => "strongswan",
        })
    }
}

impl FromStr for Cloud {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "simplon" => Ok(Self::Simplon),
            "strongswan" => Ok(Self::Strongswan),
            other => Err(Error::Asked(format!("no endpoint is {other:?}: there are simplon and strongswan"))),
        }
    }
}

/// What to run, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// What happens.
    pub event: Event,
    /// How traffic is spread.
    pub mode: Mode,
    /// What the cloud's endpoints are.
    pub cloud: Cloud,
    /// The version of IKE, in `two-tunnels`; the others have that of their documents.
    pub version: Version,
    /// What watches the sessions of BGP.
    pub watch: Watch,
    /// How the ends learn of each other's networks; `two-tunnels` has static routes, whatever is said here.
    pub routes: Routes,
    /// Say nothing while it runs: the report is what is wanted.
    #[serde(skip)]
    pub json: bool,
    /// Show every command.
    #[serde(skip)]
    pub echo: bool,
    /// Afterwards, leave everything up until Ctrl-C.
    #[serde(skip)]
    pub keep: bool,
}

impl Options {
    /// A scenario as it is run where nothing else is said.
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            event: Event::Bfd,
            mode: Mode::default(),
            cloud: Cloud::default(),
            version: Version::V2,
            watch: Watch::default(),
            routes: Routes::default(),
            json: false,
            echo: false,
            keep: false,
        }
    }

    /// Why it cannot be run like this; `None` when it can.
    pub fn refuses(&self) -> Option<&'static str> {
        let is_strongswan = self.cloud == Cloud::Strongswan;
        let is_of_two_clouds = matches!(self.scenario, Scenario::NecIxVgwBgp | Scenario::AlibabaVgwBgp);
        if is_strongswan && !is_of_two_clouds && !matches!(self.scenario, Scenario::TwoTunnels | Scenario::Clustered(_))
        {
            return Some("this scenario has no strongSwan at the cloud's ends");
        }
        if is_strongswan && is_of_two_clouds && (self.event, self.watch) != (Event::Bfd, Watch::Bfd) {
            return Some("with strongSwan and BIRD at the cloud's ends, BFD sees the cuts");
        }
        if self.scenario == Scenario::Clustered(Pair::Bgp) && self.cloud == Cloud::Strongswan {
            return Some("strongSwan speaks no BGP");
        }
        if self.routes == Routes::Static && !matches!(self.scenario, Scenario::TwoTunnels | Scenario::TwoDevices) {
            return Some("this scenario is about BGP");
        }
        if self.routes == Routes::Static && self.watch == Watch::HoldTimer {
            return Some("static routes have no hold timer");
        }
        let is_two_tunnels = self.scenario == Scenario::TwoTunnels;
        let has_event = match self.event {
            Event::Bfd => true,
            Event::Dark => is_two_tunnels || is_of_two_clouds,
            Event::Probe
            | Event::Dpd
            | Event::Drain
            | Event::Reload
            | Event::Delete
            | Event::Replace
            | Event::HandOver => is_two_tunnels,
        };
        if !has_event {
            return Some("this scenario has no such event");
        }
        if self.version == Version::V1 && !is_two_tunnels {
            return Some("the version of IKE is that of the scenario's documents");
        }
        match (self.cloud, self.event) {
            _ if self.scenario != Scenario::TwoTunnels => None,
            (Cloud::Strongswan, Event::Bfd) => Some("strongSwan has no BFD"),
            (Cloud::Strongswan, Event::Probe) => Some("strongSwan does not probe its tunnels"),
            _ => None,
        }
    }

    /// What has to be installed to run it, as an error.
    pub fn missing(&self) -> Option<Error> {
        for program in ["ip", "nft", "sysctl", "setpriv"] {
            if !crate::shell::installed(program) {
                let install = crate::shell::package_of(program).to_owned();
                return Some(Error::Missing { what: format!("the program {program}"), install });
            }
        }
        let missing = |what: &str, install: String| Error::Missing { what: what.into(), install };
        if let Some(install) = simplon::missing() {
            return Some(missing("simplon", install));
        }
        let is_strongswan = self.cloud == Cloud::Strongswan;
        if is_strongswan && let Some(install) = strongswan::missing() {
            return Some(missing("strongSwan", install));
        }
        let speaker = match self.scenario {
            Scenario::HandOver(neighbour) => Some(neighbour.kind()),
            Scenario::Bgp(kind) | Scenario::BgpIpv6(kind) => Some(kind),
            Scenario::NecIxVgwBgp | Scenario::AlibabaVgwBgp if is_strongswan => Some(BgpPeerKind::Bird),
            Scenario::TwoTunnels
            | Scenario::NecIxVgwBgp
            | Scenario::AlibabaVgwBgp
            | Scenario::TwoDevices
            | Scenario::Clustered(_) => None,
        };
        speaker.and_then(|kind| kind.missing().map(|install| missing(kind.name(), install)))
    }
}

/// As `simplon lab run` would be told: `two-tunnels bfd active-active`.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.scenario, Scenario::Bgp(_) | Scenario::BgpIpv6(_) | Scenario::HandOver(_)) {
            return self.scenario.fmt(f);
        }
        write!(f, "{}", self.scenario)?;
        match (self.scenario, self.watch) {
            (Scenario::TwoTunnels, _) => write!(f, " {}", self.event.name())?,
            (_, Watch::HoldTimer) => f.write_str(" hold-timer")?,
            (_, Watch::Bfd) => {}
        }
        if self.scenario != Scenario::TwoTunnels && self.event == Event::Dark {
            f.write_str(" dark")?;
        }
        if self.scenario != Scenario::TwoTunnels && self.routes == Routes::Static {
            f.write_str(" static")?;
        }
        if self.mode == Mode::ActiveActive {
            f.write_str(" active-active")?;
        }
        if self.cloud != Cloud::Simplon {
            write!(f, " {}", self.cloud)?;
        }
        if self.scenario == Scenario::TwoTunnels && self.version == Version::V1 {
            f.write_str(" ikev1")?;
        }
        Ok(())
    }
}

/// What the matrix runs.
pub fn cases() -> Vec<Options> {
    let mut cases = Vec::new();
    for event in Event::ALL {
        cases.push(Options { event, ..Options::new(Scenario::TwoTunnels) });
    }
    for event in [Event::Bfd, Event::Drain] {
        cases.push(Options { event, mode: Mode::ActiveActive, ..Options::new(Scenario::TwoTunnels) });
    }
    for scenario in [Scenario::NecIxVgwBgp, Scenario::AlibabaVgwBgp, Scenario::TwoDevices] {
        cases.push(Options::new(scenario));
    }
    cases.push(Options { watch: Watch::HoldTimer, ..Options::new(Scenario::AlibabaVgwBgp) });
    cases.push(Options { routes: Routes::Static, ..Options::new(Scenario::TwoDevices) });
    cases.push(Options { event: Event::Dark, ..Options::new(Scenario::AlibabaVgwBgp) });
    for neighbour in [Neighbour::Bird { keeps: true }, Neighbour::Bird { keeps: false }, Neighbour::Frr] {
        cases.push(Options::new(Scenario::HandOver(neighbour)));
    }
    for kind in BgpPeerKind::ALL {
        cases.extend([Scenario::Bgp(kind), Scenario::BgpIpv6(kind)].map(Options::new));
    }
    for pair in Pair::ALL {
        let case = Options::new(Scenario::Clustered(pair));
        cases.extend([case.clone(), Options { cloud: Cloud::Strongswan, ..case }]);
    }
    for scenario in [Scenario::NecIxVgwBgp, Scenario::AlibabaVgwBgp] {
        cases.push(Options { cloud: Cloud::Strongswan, ..Options::new(scenario) });
    }
    cases.retain(|case| case.refuses().is_none());
    let against_strongswan = Options { cloud: Cloud::Strongswan, ..Options::new(Scenario::TwoTunnels) };
    for event in [Event::Dpd, Event::Drain, Event::Delete, Event::HandOver] {
        cases.push(Options { event, ..against_strongswan.clone() });
    }
    for event in [Event::Drain, Event::HandOver] {
        cases.push(Options { event, version: Version::V1, ..against_strongswan.clone() });
    }
    cases
}

/// Runs a case; what a person reads goes to `out`.
///
/// # Errors
///
/// When it cannot be run as asked, something is missing, or it is interrupted. Checks that do not hold, and gateways
/// that do not come up, are in the report.
pub fn run(options: &Options, out: Out) -> Result<Report> {
    if let Some(why) = options.refuses() {
        return Err(Error::Asked(why.into()));
    }
    if let Some(error) = options.missing() {
        return Err(error);
    }
    let shell = Shell::new(out, options.echo);
    let mut reporter = Reporter::new(&shell, &options.to_string(), options.json);
    reporter.show(&format!("\n{options}: {}\n\n{}\n", options.scenario.summary(), options.scenario.drawing()));
    let lab = Lab::new(&shell)?;
    let ground = match options.scenario {
        Scenario::TwoTunnels => two_tunnels::ground(&lab)?,
        Scenario::NecIxVgwBgp => bgp_tunnels::nec_ground(&lab)?,
        Scenario::AlibabaVgwBgp => bgp_tunnels::alibaba_ground(&lab, options.cloud)?,
        Scenario::TwoDevices => bgp_tunnels::devices_ground(&lab)?,
        Scenario::HandOver(_) => hand_over::ground(&lab)?,
        Scenario::Clustered(pair) => clustered::ground(&lab, pair)?,
        Scenario::Bgp(kind) | Scenario::BgpIpv6(kind) => {
            let over_ipv6 = matches!(options.scenario, Scenario::BgpIpv6(_));
            bgp_link::play(kind, over_ipv6, &lab, &mut reporter)?;
            hold_if_asked(options, &reporter, &lab)?;
            return Ok(reporter.finish());
        }
    };
    let capture = Some(Capture::start(&ground.internet)?);
    let mut stage = Stage {
        options,
        reporter,
        followers: Vec::new(),
        daemons: Vec::new(),
        charons: Vec::new(),
        birds: Vec::new(),
        capture,
        ground,
        lab,
    };
    stage.reporter.step(format!("topology built: namespaces {}*", stage.lab.id()));
    let played = match options.scenario {
        Scenario::TwoTunnels => two_tunnels::steps(&mut stage),
        Scenario::NecIxVgwBgp => bgp_tunnels::nec_steps(&mut stage),
        Scenario::AlibabaVgwBgp => bgp_tunnels::alibaba_steps(&mut stage),
        Scenario::TwoDevices => bgp_tunnels::devices_steps(&mut stage),
        Scenario::HandOver(neighbour) => hand_over::steps(&mut stage, neighbour),
        Scenario::Clustered(pair) => clustered::steps(&mut stage, pair),
        Scenario::Bgp(_) | Scenario::BgpIpv6(_) => Ok(()),
    };
    match played {
        Ok(()) => {}
        // What a gateway did not do is a finding; what the lab could not do is an error.
        Err(error @ (Error::Late { .. } | Error::Command { .. })) => {
            stage.reporter.check("the scenario was played to its end", false, error.to_string());
        }
        Err(error) => return Err(error),
    }
    stage.finish()
}

/// A run: everything that is up, in the order in which it goes down.
struct Stage<'a> {
    options: &'a Options,
    reporter: Reporter,
    followers: Vec<Follower>,
    daemons: Vec<Daemon>,
    charons: Vec<Charon>,
    birds: Vec<Bird>,
    capture: Option<Capture>,
    ground: Ground,
    lab: Lab,
}

impl Stage<'_> {
    fn daemon(&self, name: &str) -> Result<&Daemon> {
        let found = self.daemons.iter().find(|daemon| daemon.name() == name);
        found.ok_or_else(|| Error::Asked(format!("no gateway is called {name}")))
    }

    fn daemon_mut(&mut self, name: &str) -> Result<&mut Daemon> {
        let found = self.daemons.iter_mut().find(|daemon| daemon.name() == name);
        found.ok_or_else(|| Error::Asked(format!("no gateway is called {name}")))
    }

    fn charon(&self, name: &str) -> Result<&Charon> {
        let found = self.charons.iter().find(|charon| charon.name() == name);
        found.ok_or_else(|| Error::Asked(format!("no strongSwan is called {name}")))
    }

    /// Starts traffic between the hosts and waits until it passes both ways.
    fn stream(&mut self) -> Result<Stream> {
        let flows = if self.options.mode == Mode::ActiveActive { 8 } else { 1 };
        let deadline = clock::now() + Duration::from_secs(20);
        // What is lost before the first packet comes through is not counted: each try is a stream of its own.
        loop {
            let stream = Stream::start(&self.ground.customer.host, &self.ground.cloud.host, flows)?;
            let passes = stream.wait_for_packets(30, Duration::from_secs(2));
            match passes {
                Ok(_) => {
                    stream.wait_until_steady(Duration::from_millis(300), Duration::from_secs(5))?;
                    drop(stream);
                    let stream = Stream::start(&self.ground.customer.host, &self.ground.cloud.host, flows)?;
                    stream.wait_for_packets(20, Duration::from_secs(5))?;
                    return Ok(stream);
                }
                Err(Error::Late { .. }) if clock::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until traffic has passed without a hole for `time`, ends it, and says what was lost.
    fn settle(&mut self, stream: Stream, time: Duration) -> Result<Losses> {
        match stream.wait_until_steady(time, Duration::from_secs(30)) {
            // Then the losses say that it did not come back.
            Ok(()) | Err(Error::Late { .. }) => stream.finish(),
            Err(error) => Err(error),
        }
    }

    fn finish(mut self) -> Result<Report> {
        self.check_wire()?;
        if self.reporter.has_failed() {
            let logs: Vec<(String, String)> = (self.daemons.iter().map(|d| (d.name().to_owned(), d.log_tail(40))))
                .chain(self.charons.iter().map(|c| (c.name().to_owned(), c.log_tail(40))))
                .chain(self.birds.iter().map(|b| (b.name().to_owned(), b.log_tail(40))))
                .collect();
            for (name, text) in logs {
                self.reporter.log(&name, &text);
            }
        }
        hold_if_asked(self.options, &self.reporter, &self.lab)?;
        self.followers.clear();
        for daemon in &mut self.daemons {
            daemon.stop();
        }
        self.birds.clear();
        for charon in &mut self.charons {
            charon.stop();
        }
        Ok(self.reporter.finish())
    }

    /// Between the gateways there is IKE and ESP, and nothing else.
    fn check_wire(&mut self) -> Result<()> {
        let Some(capture) = self.capture.take() else { return Ok(()) };
        let frames = capture.finish()?;
        if let Scenario::Clustered(pair) = self.options.scenario {
            clustered::check_numbers(self, pair, &frames)?;
        }
        let inner = Inner {
            networks: vec![self.ground.customer.network.into(), self.ground.cloud.network.into()],
            pattern: PATTERN.to_vec(),
        };
        for gateway in &self.ground.customer.gateways {
            let index = crate::topology::index_of(&self.ground.internet, &gateway.name)?;
            let tally = Tally::of(&frames, index, &inner);
            let held = tally.leaks == 0 && tally.esp + tally.esp_in_udp > 0;
            let samples = tally.leak_samples.join(", ");
            self.reporter.check(
                format!("nothing leaves {} in clear", gateway.name),
                held,
                format!("{tally} {samples}"),
            );
        }
        Ok(())
    }
}

/// Leaves everything up until Ctrl-C, where that was asked for.
fn hold_if_asked(options: &Options, reporter: &Reporter, lab: &Lab) -> Result<()> {
    if !options.keep {
        return Ok(());
    }
    reporter.show(&format!("\nEverything stays up until Ctrl-C; {} holds files.", lab.dir().display()));
    for node in lab.nodes() {
        reporter.show(&format!("  ip netns exec {} bash", node.netns()));
    }
    match clock::sleep(Duration::MAX / 4) {
        Err(Error::Interrupted) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}
