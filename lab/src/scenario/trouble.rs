//! What can happen to a tunnel in the field: losses, doubled packets, a gateway that restarts, a
//! translator that forgets. The tunnel has to come (back) without help.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Result};
use crate::nat::{self, Impairment};
use crate::peer::PeerKind;
use crate::ping;
use crate::scenario::play::Run;
use crate::scenario::{Initiator, Options, Scenario, checks};
use crate::spec::Dpd;

/// How wide the path with the black hole is, in bytes.
const NARROW: u32 = 1_300;
/// How long a tunnel may take to be back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that happens to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// 20 % of all packets between the gateways are lost while the tunnel comes up.
    Loss,
    /// A third of all packets to the cloud arrive twice.
    Duplicates,
    /// The customer's gateway is killed and started again.
    RestartCustomer,
    /// The cloud's gateway is killed and started again.
    RestartCloud,
    /// The address translator forgets its flows and gives new ports.
    Rebind,
    /// The path between the gateways takes packets of 1,300 bytes and drops larger ones without a word.
    BlackHole,
    /// The link between the cloud's gateway and its network goes down while the tunnel is up.
    LanDown,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Loss,
        Self::Duplicates,
        Self::RestartCustomer,
        Self::RestartCloud,
        Self::Rebind,
        Self::BlackHole,
        Self::LanDown,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplicates => "duplicates",
            Self::RestartCustomer => "restart-customer",
            Self::RestartCloud => "restart-cloud",
            Self::Rebind => "rebind",
            Self::BlackHole => "black-hole",
            Self::LanDown => "lan-down",
        }
    }

    /// Why it cannot happen to a scenario like this.
    pub(crate) fn refuses(self, scenario: Scenario, options: &Options) -> Option<&'static str> {
        let restarts = |kind: PeerKind| kind.in_guest().then_some("a gateway in a guest is not restarted");
        match self {
            Self::Loss | Self::Duplicates => None,
            Self::RestartCustomer => restarts(options.customer),
            Self::RestartCloud => restarts(options.cloud),
            Self::Rebind if !scenario.has_nat() => Some("there is no NAT in this scenario"),
            // RFC 7296 §2.23 lets IKEv2 follow at once; IKEv1 has to find out by DPD and start anew.
            Self::Rebind if options.initiator == Initiator::Cloud => {
                Some("behind a NAT that gives new ports, only the customer can start anew")
            }
            Self::Rebind => None,
            Self::BlackHole if ![options.customer, options.cloud].contains(&PeerKind::Simplon) => {
                Some("only simplon looks for black holes")
            }
            Self::LanDown if options.cloud != PeerKind::Simplon => {
                Some("only simplon keeps what is for its own network")
            }
            Self::BlackHole | Self::LanDown => None,
        }
    }

    /// Short, so that a dead peer is found while somebody waits.
    pub(crate) const fn dpd() -> Dpd {
        Dpd { delay: Duration::from_secs(2), timeout: Duration::from_secs(6) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Trouble {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|trouble| trouble.name() == text)
            .ok_or_else(|| Error::Asked(format!("no trouble is called {text:?}: there are {}", known())))
    }
}

impl Run<'_> {
    /// Troubles that are there before the gateways start.
    pub(super) fn trouble_before(&mut self) -> Result<()> {
        let internet = &self.ground.internet;
        match self.options.trouble {
            Some(Trouble::Loss) => {
                nat::impair(internet, &[Impairment::Loss(20)])?;
                self.reporter.step("trouble: 20 % of all packets between the gateways are lost");
            }
            Some(Trouble::Duplicates) => {
                let to = self.ground.cloud.public.to_string();
                let twice = Impairment::Duplicate { to, device: "cloud".into(), percent: 33 };
                nat::impair(internet, &[twice])?;
                self.reporter.step("trouble: a third of all packets to the cloud arrive twice");
            }
            Some(Trouble::BlackHole) => {
                nat::black_hole(internet, &["customer", "cloud"], NARROW)?;
                let text = "trouble: packets of more than {} bytes vanish between the gateways, and nobody says so";
                self.reporter.step(text.replace("{}", &NARROW.to_string()));
            }
            Some(Trouble::RestartCustomer | Trouble::RestartCloud | Trouble::Rebind | Trouble::LanDown) | None => {}
        }
        Ok(())
    }

    /// Troubles of a tunnel that is up; then, that it is back.
    pub(super) fn trouble_after(&mut self) -> Result<()> {
        match self.options.trouble {
            Some(Trouble::Loss) => {
                nat::impair(&self.ground.internet, &[])?;
                self.reporter.step("no packets are lost any more");
                self.check_back("ping passes when no packets are lost any more")
            }
            Some(Trouble::RestartCustomer) => self.restart(Initiator::Customer),
            Some(Trouble::RestartCloud) => self.restart(Initiator::Cloud),
            Some(Trouble::Rebind) => {
                let Some(translator) = self.lab.nodes().into_iter().find(|node| node.name() == "idc-vpc") else {
                    return Ok(());
                };
                // Nothing comes in any more but on the flows that the customer begins.
                translator.nft(
                    "flush chain ip nat in\nflush chain ip nat out\n\
                     add rule ip nat out oifname igw ip saddr 10.60.0.100 ip protocol udp \
                     snat to 3.37.222.142:20000-30000 random\n",
                )?;
                nat::rebind(&translator)?;
                self.reporter.step("trouble: the translator forgets its flows and gives new ports");
                self.check_back("ping passes again behind the new ports")
            }
            Some(Trouble::BlackHole) => self.check_probed(),
            Some(Trouble::LanDown) => self.take_lan_down(),
            Some(Trouble::Duplicates) | None => Ok(()),
        }
    }

    fn restart(&mut self, end: Initiator) -> Result<()> {
        let peer = match end {
            Initiator::Customer => &mut self.customer,
            Initiator::Cloud => &mut self.cloud,
        };
        if let Some(peer) = peer {
            peer.crash();
            peer.start()?;
            self.reporter.step(format!("trouble: the {end}'s gateway was killed and started again"));
        }
        // Not by pinging: without its gateway's routes a host's pings would leave in clear.
        let waited = clock::wait_for("the same tunnel at both ends after the restart", PATIENCE, || {
            Ok(checks::common_sas(&self.customer_status()?, &self.cloud_status()?) > 0)
        })?;
        let found = format!("{:.1} s", waited.as_secs_f64());
        self.reporter.check("the tunnel is back without help", true, found);
        self.check_back("ping passes again after the restart")
    }

    /// Every simplon finds how wide the path is, and says how it knows.
    fn check_probed(&mut self) -> Result<()> {
        for (end, peer) in [("customer", &mut self.customer), ("cloud", &mut self.cloud)] {
            let Some(peer) = peer.as_mut().filter(|peer| peer.kind() == PeerKind::Simplon) else { continue };
            let mut shown = String::new();
            let waited = clock::wait_for("the width of the path", PATIENCE, || {
                let Some(detail) = peer.detail()? else { return Ok(false) };
                let sas = &detail["connections"][0]["children"][0]["sas"];
                let Some(sa) = sas.as_array().and_then(|sas| sas.last()) else { return Ok(false) };
                shown = format!("{} bytes ({}), {} inside", sa["outer_mtu"], sa["outer_mtu_from"], sa["mtu"]);
                // A probe to a peer that takes no message of one fragment reaches every sixteenth size.
                let width = sa["outer_mtu"].as_u64().unwrap_or_default();
                let is_near = (u64::from(NARROW) - 15..=u64::from(NARROW)).contains(&width);
                Ok(is_near && sa["outer_mtu_from"] == "probed")
            });
            let found = match &waited {
                Ok(waited) => format!("{shown} after {:.1} s", waited.as_secs_f64()),
                Err(_) => shown,
            };
            self.reporter.check(format!("the {end}'s gateway knows how wide the path is"), waited.is_ok(), found);
        }
        self.check_back("ping passes in the black hole")
    }

    /// The gateway's link to its network goes down, and with it the route: what comes out of the tunnel for that network must
    /// not follow the default route, which the capture would show. Then the link is back.
    fn take_lan_down(&mut self) -> Result<()> {
        let (customer, cloud) = (&self.ground.customer, &self.ground.cloud);
        let (gateway, target) = (cloud.gateway.node.clone(), cloud.host_address);
        let pings = ping::ping(&customer.host, target, 2, 56)?;
        self.reporter.check("ping passes while the link is up", pings.all_answered(), pings.to_string());
        // Linux sends an error a second to each host.
        gateway.sysctl(&["net.ipv4.icmp_ratelimit=0"])?;
        gateway.ip(&["link", "set", "dev", "inside", "down"])?;
        self.reporter.step("trouble: the link between the cloud's gateway and its network is down");
        let way =
            gateway.output(&["ip", "route", "get", &target.to_string(), "from", "10.60.1.100", "iif", "simplon0"])?;
        let found = format!("{}{}", way.stdout, way.stderr).trim().to_owned();
        self.reporter.check(
            "what comes out of the tunnel has no way to the internet",
            !found.contains("dev outside"),
            found,
        );
        let (held, said) = ping::is_refused(&customer.host, customer.host_address, target)?;
        self.reporter.check("the sender hears that its packets are refused", held, said);
        gateway.ip(&["link", "set", "dev", "inside", "up"])?;
        self.reporter.step("the link is up again");
        self.check_back("ping passes again over the link")
    }

    /// Pings until one is answered.
    fn check_back(&mut self, name: &str) -> Result<()> {
        let (from, to) = (self.ground.customer.host.clone(), self.ground.cloud.host_address);
        let waited = clock::wait_for(name, PATIENCE, || Ok(ping::ping(&from, to, 1, 56)?.all_answered()))?;
        self.reporter.check(name, true, format!("after {:.1} s", waited.as_secs_f64()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_is_found_by_its_name() {
        for trouble in Trouble::ALL {
            assert_eq!(trouble.name().parse::<Trouble>().unwrap(), trouble);
        }
        assert!("earthquake".parse::<Trouble>().is_err());
    }
}
