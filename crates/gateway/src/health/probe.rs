//! The probes of one tunnel: when they are sent, which answers count, what is lost, and how long the way takes.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::{Deadline, Instant, Random};
use packet::{Ip, Udp, build, protocol};

use super::config::{LossThreshold, ProbeConfig, ProbeKind};
use super::machine::TunnelId;
use super::verdict::Reason;

/// Bytes that a probe carries.
pub const PAYLOAD: usize = 16;

/// Answered probes whose round trips are remembered.
const ROUND_TRIPS: usize = 100;

/// Probes without an answer that are remembered, under way or lost: an answer may be late. Timeouts are ten intervals
/// at most.
const UNANSWERED: usize = 16;

/// A probe to send through a tunnel, and through no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Through which.
    pub tunnel: TunnelId,
    /// What it is.
    pub kind: ProbeKind,
    /// From here.
    pub source: IpAddr,
    /// To here.
    pub target: IpAddr,
    /// The identifier of ICMP, and for UDP the source port: one for all probes of a tunnel.
    pub identifier: u16,
    /// The sequence number of ICMP; it counts on and wraps.
    pub sequence: u16,
    /// What it carries, and what the answer must carry: random, so that nobody off the path can answer.
    pub payload: [u8; PAYLOAD],
}

impl Probe {
    /// The probe as an IP packet, for a shell that hands packets to the tunnel itself.
    pub fn to_packet(&self) -> Option<Vec<u8>> {
        match self.kind {
            ProbeKind::IcmpEcho => {
                build::echo_request(self.source, self.target, self.identifier, self.sequence, &self.payload)
            }
            ProbeKind::UdpEcho { port } => build::udp(
                SocketAddr::new(self.source, self.identifier),
                SocketAddr::new(self.target, port),
                &self.payload,
            ),
        }
    }
}

/// An answer, as it was found in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Who answered.
    pub source: IpAddr,
    /// Whom.
    pub destination: IpAddr,
    /// What came back.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads a packet that came out of a tunnel. `None` when it is no answer to any probe: no echo reply of ICMP or
    /// ICMPv6 and no UDP, of another length, or damaged.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip = Ip::parse(packet).ok()?;
        let (source, destination) = (ip.source(), ip.destination());
        let (kind, upper) = ip.upper().ok()?;
        let upper = upper?;
        let payload = match (kind, source) {
            (protocol::ICMP, IpAddr::V4(_)) if upper.first() == Some(&0) && packet::checksum::of(upper) == 0 => {
                upper.get(8..)?
            }
            (protocol::ICMPV6, IpAddr::V6(_))
                if upper.first() == Some(&129)
                    && build::transport_checksum(source, destination, protocol::ICMPV6, upper) == 0 =>
            {
                upper.get(8..)?
            }
            (protocol::UDP, _) => {
                let udp = Udp::parse(upper).ok()?;
                let len = Udp::HEADER + udp.payload().len();
                let is_whole = udp.checksum() == 0 && source.is_ipv4()
                    || build::transport_checksum(source, destination, protocol::UDP, upper.get(..len)?) == 0;
                if !is_whole {
                    return None;
                }
                udp.payload()
            }
            _ => return None,
        };
        (payload.len() == PAYLOAD).then_some(Self { source, destination, payload })
    }
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// It answers no probe of this tunnel that is remembered, or one that was answered already.
    Unknown,
    /// It comes from somebody else than the target.
    WrongSource,
    /// It answers a probe that was given up: the path works, and is slower than the timeout.
    Late,
}

/// Round-trip times of the last 100 answered probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    /// The shortest.
    pub min: Duration,
    /// Their mean.
    pub avg: Duration,
    /// Half of them were no longer than this.
    pub p50: Duration,
    /// The longest.
    pub max: Duration,
    /// That of the last.
    pub last: Duration,
}

/// What a tunnel's probes have counted since probing began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Probes sent.
    pub sent: u64,
    /// Probes answered in time.
    pub answered: u64,
    /// Probes given up.
    pub lost: u64,
    /// Answers to probes that were given up already.
    pub late: u64,
    /// Answers that answer nothing: sent twice, forged, or from somebody else.
    pub stray: u64,
    /// Probes lost since the last answer.
    pub lost_in_a_row: u32,
    /// Round-trip times, when there was an answer.
    pub round_trips: Option<RoundTrips>,
}

/// A probe that was not answered.
#[derive(Debug)]
struct Unanswered {
    payload: [u8; PAYLOAD],
    sent_at: Instant,
    is_lost: bool,
}

/// What the probes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Good,
    Waiting,
    Bad(Reason),
}

/// The probes of one tunnel while its SA is up.
#[derive(Debug)]
pub(super) struct Prober {
    config: ProbeConfig,
    identifier: u16,
    sequence: u16,
    next_at: Instant,
    unanswered: VecDeque<Unanswered>,
    /// The fates of the last probes, the newest in the lowest bit: 1 is lost.
    fates: u64,
    /// How many fates are known, up to 64.
    known: u8,
    was_answered: bool,
    round_trips: VecDeque<Duration>,
    status: ProbeStatus,
}

impl Prober {
    /// Sends its first probe at once.
    pub(super) fn new(config: ProbeConfig, random: &mut Random, now: Instant) -> Self {
        // A UDP source port out of the dynamic range (RFC 6335 §6), which suits ICMP as well.
        let identifier = 0xc000 | random.next_u32() as u16;
        Self {
            config,
            identifier,
            sequence: 0,
            next_at: now,
            unanswered: VecDeque::with_capacity(UNANSWERED),
            fates: 0,
            known: 0,
            was_answered: false,
            round_trips: VecDeque::new(),
            status: ProbeStatus::default(),
        }
    }

    pub(super) fn config(&self) -> &ProbeConfig {
        &self.config
    }

    /// Gives up what is overdue, and says which probe to send, if one is due.
    pub(super) fn wake(&mut self, tunnel: TunnelId, random: &mut Random, now: Instant) -> Option<Probe> {
        self.give_up(now);
        if self.next_at > now {
            return None;
        }
        let payload = random.array();
        let probe = Probe {
            tunnel,
            kind: self.config.kind,
            source: self.config.source,
            target: self.config.target,
            identifier: self.identifier,
            sequence: self.sequence,
            payload,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.status.sent += 1;
        if self.unanswered.len() == UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Unanswered { payload, sent_at: now, is_lost: false });
        let wait = if self.is_in_doubt() { self.config.timeout / 2 } else { self.config.interval };
        self.next_at = now + wait.min(self.config.interval);
        Some(probe)
    }

    fn give_up(&mut self, now: Instant) {
        let timeout = self.config.timeout;
        let overdue = self.unanswered.iter_mut().filter(|probe| !probe.is_lost && probe.sent_at + timeout <= now);
        let lost = overdue.map(|probe| probe.is_lost = true).count();
        for _ in 0..lost {
            self.status.lost += 1;
            self.status.lost_in_a_row += 1;
            self.note_fate(true);
        }
        if lost > 0 && self.is_in_doubt() {
            self.next_at = now;
        }
    }

    /// Whether more probes than are under way have to be lost in a row before the path is known to be bad: then the next
    /// does not wait for its interval. Two of them are half a timeout apart, so that a short fault does not swallow all.
    fn is_in_doubt(&self) -> bool {
        let LossThreshold::InARow(most) = self.config.threshold else { return false };
        let under_way = self.unanswered.iter().filter(|probe| !probe.is_lost).count();
        let lost = self.status.lost_in_a_row as usize;
        lost > 0 && lost + under_way < usize::from(most) && self.opinion() == Opinion::Good
    }

    fn note_fate(&mut self, is_lost: bool) {
        self.fates = self.fates << 1 | u64::from(is_lost);
        self.known = (self.known + 1).min(64);
    }

    /// Takes an answer.
    pub(super) fn handle_reply(&mut self, source: IpAddr, payload: &[u8], now: Instant) -> Result<(), Stray> {
        let verdict = self.match_reply(source, payload, now);
        match verdict {
            Ok(()) => {}
            Err(Stray::Late) => self.status.late += 1,
            Err(Stray::Unknown | Stray::WrongSource) => self.status.stray += 1,
        }
        verdict
    }

    fn match_reply(&mut self, source: IpAddr, payload: &[u8], now: Instant) -> Result<(), Stray> {
        if source.to_canonical() != self.config.target.to_canonical() {
            return Err(Stray::WrongSource);
        }
        let index = self.unanswered.iter().position(|probe| probe.payload == payload).ok_or(Stray::Unknown)?;
        let probe = self.unanswered.remove(index).ok_or(Stray::Unknown)?;
        let round_trip = now - probe.sent_at;
        if probe.is_lost || round_trip >= self.config.timeout {
            if !probe.is_lost {
                // It came with the moment at which it would have been given up.
                self.status.lost += 1;
                self.status.lost_in_a_row += 1;
                self.note_fate(true);
            }
            return Err(Stray::Late);
        }
        self.status.answered += 1;
        self.status.lost_in_a_row = 0;
        self.was_answered = true;
        self.note_fate(false);
        if self.round_trips.len() == ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(round_trip);
        Ok(())
    }

    /// What the last probes say about the path.
    pub(super) fn opinion(&self) -> Opinion {
        let bad = match self.config.threshold {
            LossThreshold::InARow(most) => self.status.lost_in_a_row >= u32::from(most),
            LossThreshold::OfLast { lost, .. } => self.lost_of_last() >= lost,
        };
        match (bad, self.was_answered) {
            (true, _) => self.bad(),
            (false, false) => Opinion::Waiting,
            (false, true) => Opinion::Good,
        }
    }

    fn bad(&self) -> Opinion {
        let (lost, of) = match self.config.threshold {
            LossThreshold::InARow(most) => (most, most),
            LossThreshold::OfLast { of, .. } => (self.lost_of_last(), of.min(self.known)),
        };
        Opinion::Bad(Reason::ProbesLost { target: self.config.target, lost, of })
    }

    fn lost_of_last(&self) -> u8 {
        let of = match self.config.threshold {
            LossThreshold::InARow(of) | LossThreshold::OfLast { of, .. } => of,
        };
        let mask = u64::MAX >> (64 - u32::from(of.clamp(1, 64)));
        (self.fates & mask).count_ones() as u8
    }

    pub(super) fn deadline(&self) -> Deadline {
        let overdue =
            self.unanswered.iter().find(|probe| !probe.is_lost).map(|probe| probe.sent_at + self.config.timeout);
        let overdue = overdue.map(|at| Deadline { at, why: "a probe is unanswered" });
        let next = Deadline { at: self.next_at, why: "a probe is due" };
        Deadline::earliest(overdue, Some(next)).unwrap_or(next)
    }

    pub(super) fn status(&self) -> ProbeStatus {
        ProbeStatus { round_trips: self.round_trips(), ..self.status }
    }

    fn round_trips(&self) -> Option<RoundTrips> {
        let mut sorted: Vec<Duration> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        let (min, max, last) = (*sorted.first()?, *sorted.last()?, *self.round_trips.back()?);
        let avg = sorted.iter().sum::<Duration>() / u32::try_from(sorted.len()).ok()?;
        let p50 = *sorted.get((sorted.len() - 1) / 2)?;
        Some(RoundTrips { min, avg, p50, max, last })
    }
}
