//! What is watched of a tunnel, and how patiently.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How a tunnel's health is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What BFD has to say.
    pub bfd: BfdUse,
    /// Probes through the tunnel, if any.
    pub probe: Option<ProbeConfig>,
    /// After it fell, a tunnel must be good for this long; doubled by each further fall. At most a day.
    pub rise: Duration,
    /// The hold time does not grow beyond this. At least `rise`, at most a day.
    pub longest_rise: Duration,
    /// Each such time without a fall halves the hold time again. 1 s to a week.
    pub calm: Duration,
    /// It must be bad for this long to fall, though not where its SA is gone. At most an hour.
    pub fall: Duration,
}

impl Default for HealthConfig {
    /// The SAs alone; 10 s to rise, up to 5 min, halved each 10 min; falls at once.
    fn default() -> Self {
        Self {
            bfd: BfdUse::Ignored,
            probe: None,
            rise: Duration::from_secs(10),
            longest_rise: Duration::from_secs(300),
            calm: Duration::from_secs(600),
            fall: Duration::ZERO,
        }
    }
}

/// What BFD has to say about a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BfdUse {
    /// Nothing.
    #[default]
    Ignored,
    /// Once it came up since the SA did, its fall is the tunnel's. A neighbor that does not speak it is no fault.
    OnceUp,
    /// The tunnel is not healthy before it is up.
    Required,
}

/// Probes through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// What is sent.
    pub kind: ProbeKind,
    /// From here: our inside address.
    pub source: IpAddr,
    /// To here: the other gateway's inside address, or a host behind it.
    pub target: IpAddr,
    /// Time from probe to probe; 100 ms to 1 min.
    pub interval: Duration,
    /// A probe without an answer for this long is lost; 10 ms to ten intervals.
    pub timeout: Duration,
    /// How many lost probes are too many.
    pub threshold: LossThreshold,
}

impl ProbeConfig {
    /// ICMP echo once a second; lost after 650 ms, and three lost in a row are too many. A lost probe is followed at
    /// once by the next, and that by another half a timeout later, so that a path is found dead 2.65 s after its last
    /// answer at the latest.
    pub fn echo(source: IpAddr, target: IpAddr) -> Self {
        Self {
            kind: ProbeKind::IcmpEcho,
            source,
            target,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(650),
            threshold: LossThreshold::InARow(3),
        }
    }
}

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// An echo request of ICMP or ICMPv6.
    IcmpEcho,
    /// A datagram to this port, on which the target must send back what it gets (RFC 862).
    UdpEcho {
        /// The port; 7 is the registered one.
        port: u16,
    },
}

/// How many lost probes are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossThreshold {
    /// So many one after the other; 1 to 64. A single answer is good news again.
    InARow(u8),
    /// So many of the last; 1 <= `lost` <= `of` <= 64.
    OfLast {
        /// Lost probes that are too many.
        lost: u8,
        /// Probes that are looked at.
        of: u8,
    },
}

/// Which value of a configuration cannot be, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misconfigured(pub &'static str);

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Misconfigured {}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl HealthConfig {
    pub(super) fn check(&self) -> Result<(), Misconfigured> {
        let rules = [
            (self.longest_rise >= self.rise && self.longest_rise <= DAY, "longest_rise is from rise to one day"),
            (self.calm >= SECOND && self.calm <= 7 * DAY, "calm is from one second to one week"),
            (self.fall <= Duration::from_secs(3600), "fall is at most one hour"),
        ];
        check(&rules)?;
        self.probe.as_ref().map_or(Ok(()), ProbeConfig::check)
    }
}

impl ProbeConfig {
    fn check(&self) -> Result<(), Misconfigured> {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(60));
        let timeouts = Duration::from_millis(10)..=self.interval * 10;
        let is_threshold = match self.threshold {
            LossThreshold::InARow(lost) => (1..=64).contains(&lost),
            LossThreshold::OfLast { lost, of } => lost >= 1 && lost <= of && of <= 64,
        };
        check(&[
            (self.source.is_ipv4() == self.target.is_ipv4(), "source and target of a probe are of one IP version"),
            (!self.target.is_unspecified() && !self.target.is_multicast(), "the target of a probe is one host"),
            ((least..=most).contains(&self.interval), "the interval of probes is from 100 ms to one minute"),
            (timeouts.contains(&self.timeout), "the timeout of probes is from 10 ms to ten intervals"),
            (is_threshold, "the loss threshold is from 1 to 64 probes"),
            (!matches!(self.kind, ProbeKind::UdpEcho { port: 0 }), "the port of a probe is not 0"),
        ])
    }
}

fn check(rules: &[(bool, &'static str)]) -> Result<(), Misconfigured> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(Misconfigured(rule)),
        None => Ok(()),
    }
}
