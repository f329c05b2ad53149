//! The health of every tunnel of a gateway: witnesses go in, probes and verdicts come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};

use super::config::{BfdUse, HealthConfig, Misconfigured, ProbeConfig};
use super::hysteresis::Hysteresis;
use super::probe::{Opinion, Probe, ProbeStatus, Prober, Stray};
use super::verdict::{Grade, Reason, Verdict};

/// A tunnel, as whoever configured it calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u32);

/// What a witness says about a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A Child SA carries packets in both directions. Saying it again, as after a rekey, changes nothing.
    SaUp,
    /// No Child SA is left.
    SaDown(SaLoss),
    /// BFD has changed its mind.
    Bfd(Bfd),
}

/// Why there is no SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaLoss {
    /// The peer did not answer: DPD, or retransmissions of IKE in vain.
    PeerSilent,
    /// The peer deleted it.
    PeerDeleted,
    /// It could not be negotiated again; why.
    NegotiationFailed(Arc<str>),
    /// It expired.
    Expired,
    /// A person or a new configuration took it down.
    Planned,
}

impl fmt::Display for SaLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerSilent => f.write_str("the peer does not answer IKE (DPD)"),
            Self::PeerDeleted => f.write_str("the peer deleted its SA"),
            Self::NegotiationFailed(why) => write!(f, "its SA cannot be negotiated: {why}"),
            Self::Expired => f.write_str("its SA expired"),
            Self::Planned => f.write_str("its SA was taken down by command"),
        }
    }
}

/// What BFD says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bfd {
    /// Up.
    Up,
    /// It fell, for a reason that is a failure (`bfd::DownCause::is_failure`).
    Down(Arc<str>),
    /// Either end was told to hold it down: it says nothing about the path (RFC 5882 §4.2).
    AdminDown,
}

/// One thing to do or to tell, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this through its tunnel.
    Probe(Probe),
    /// The grade of a tunnel or the reason for it is another.
    Verdict(Verdict),
}

/// A tunnel's health as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which tunnel.
    pub tunnel: TunnelId,
    /// How good it is.
    pub grade: Grade,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub reason: Reason,
    /// Whether it has an SA, whatever the other witnesses say.
    pub is_sa_up: bool,
    /// Times that it fell without anybody having planned it.
    pub falls: u64,
    /// How long it must be good before it is healthy again; while it is healthy, what its falls have left of that.
    pub hold: Duration,
    /// What the probes have counted since the SA came up.
    pub probe: Option<ProbeStatus>,
}

/// The health of every tunnel of a gateway.
#[derive(Debug)]
pub struct Health {
    tunnels: BTreeMap<TunnelId, Tunnel>,
    /// The deadline of each tunnel that has one.
    deadlines: BTreeSet<(Instant, TunnelId)>,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Health {
    /// No tunnel yet.
    pub fn new(random: Random) -> Self {
        Self { tunnels: BTreeMap::new(), deadlines: BTreeSet::new(), random, outputs: VecDeque::new() }
    }

    /// Watches a tunnel, or watches it otherwise. Other probes begin anew; what is thought of the tunnel stays until
    /// they have an opinion.
    ///
    /// # Errors
    /// When the configuration cannot be; then nothing has changed.
    pub fn upsert(&mut self, id: TunnelId, config: HealthConfig, now: Instant) -> Result<(), Misconfigured> {
        config.check()?;
        self.tunnels.entry(id).or_insert_with(|| Tunnel::new(id, now));
        self.turn(id, now, |tunnel, random| tunnel.configure(config, random, now));
        Ok(())
    }

    /// Watches it no more. There is no verdict on a tunnel that is gone.
    pub fn remove(&mut self, id: TunnelId) {
        if let Some(deadline) = self.tunnels.remove(&id).and_then(|tunnel| tunnel.deadline()) {
            self.deadlines.remove(&(deadline.at, id));
        }
    }

    /// A witness has spoken. About a tunnel that is not watched it says nothing.
    pub fn handle_signal(&mut self, id: TunnelId, signal: Signal, now: Instant) {
        self.turn(id, now, |tunnel, random| tunnel.handle_signal(signal, random, now));
    }

    /// An answer to a probe came out of this tunnel ([`super::Reply::parse`]).
    ///
    /// # Errors
    /// When it does not count, and why. It is counted in [`ProbeStatus`].
    pub fn handle_reply(&mut self, id: TunnelId, source: IpAddr, payload: &[u8], now: Instant) -> Result<(), Stray> {
        let verdict = self.turn(id, now, |tunnel, _| match &mut tunnel.prober {
            Some(prober) => prober.handle_reply(source, payload, now),
            None => Err(Stray::Unknown),
        });
        verdict.unwrap_or(Err(Stray::Unknown))
    }

    /// What is known of a tunnel.
    pub fn status(&self, id: TunnelId, now: Instant) -> Option<Status> {
        self.tunnels.get(&id).map(|tunnel| tunnel.status(now))
    }

    /// Whom the probes of a tunnel ask.
    pub fn target(&self, id: TunnelId) -> Option<IpAddr> {
        self.tunnels.get(&id)?.config.probe.map(|probe| probe.target)
    }

    /// Time between the probes of a tunnel that has some.
    pub fn probe_interval(&self, id: TunnelId) -> Option<Duration> {
        Some(self.tunnels.get(&id)?.config.probe?.interval)
    }

    /// What is known of each tunnel, by their ids.
    pub fn statuses(&self, now: Instant) -> impl Iterator<Item = Status> + '_ {
        self.tunnels.values().map(move |tunnel| tunnel.status(now))
    }

    /// Lets a tunnel act, judges it, and keeps the index of deadlines right.
    fn turn<R>(&mut self, id: TunnelId, now: Instant, act: impl FnOnce(&mut Tunnel, &mut Random) -> R) -> Option<R> {
        let tunnel = self.tunnels.get_mut(&id)?;
        let before = tunnel.deadline();
        let result = act(tunnel, &mut self.random);
        let probe = tunnel.prober.as_mut().and_then(|prober| prober.wake(id, &mut self.random, now));
        self.outputs.extend(probe.map(Output::Probe));
        self.outputs.extend(tunnel.judge(now).map(Output::Verdict));
        let after = tunnel.deadline();
        if before.map(|deadline| deadline.at) != after.map(|deadline| deadline.at) {
            before.map(|deadline| self.deadlines.remove(&(deadline.at, id)));
            after.map(|deadline| self.deadlines.insert((deadline.at, id)));
        }
        Some(result)
    }
}

impl Machine for Health {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            if self.turn(id, now, |_, _| {}).is_none() {
                self.deadlines.remove(&(at, id));
            }
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (_, id) = self.deadlines.first()?;
        self.tunnels.get(id).and_then(Tunnel::deadline)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// What all witnesses together say at one moment.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good,
    /// Not all have spoken yet.
    Waiting(Reason),
    Bad(Reason),
}

#[derive(Debug)]
struct Tunnel {
    id: TunnelId,
    config: HealthConfig,
    /// Why there is no SA, while there is none.
    no_sa: Option<Reason>,
    bfd: Option<Bfd>,
    /// While the SA is up and probes are configured.
    prober: Option<Prober>,
    grade: Grade,
    since: Instant,
    reason: Reason,
    /// Since when it has been good while it is not healthy, or bad while it is.
    turning_since: Option<Instant>,
    hysteresis: Hysteresis,
    falls: u64,
}

impl Tunnel {
    fn new(id: TunnelId, now: Instant) -> Self {
        Self {
            id,
            config: HealthConfig::default(),
            no_sa: Some(Reason::NoSa),
            bfd: None,
            prober: None,
            grade: Grade::Unhealthy,
            since: now,
            reason: Reason::NoSa,
            turning_since: None,
            hysteresis: Hysteresis::default(),
            falls: 0,
        }
    }

    fn configure(&mut self, config: HealthConfig, random: &mut Random, now: Instant) {
        self.config = config;
        let probed: Option<&ProbeConfig> = self.prober.as_ref().map(Prober::config);
        if probed != self.config.probe.as_ref() {
            self.probe(random, now);
        }
    }

    /// Begins to probe, where there is something to probe.
    fn probe(&mut self, random: &mut Random, now: Instant) {
        let config = self.config.probe.filter(|_| self.no_sa.is_none());
        self.prober = config.map(|config| Prober::new(config, random, now));
    }

    fn handle_signal(&mut self, signal: Signal, random: &mut Random, now: Instant) {
        match signal {
            Signal::SaUp if self.no_sa.is_some() => {
                self.no_sa = None;
                self.probe(random, now);
            }
            Signal::SaUp => {}
            Signal::SaDown(loss) => {
                // Without an SA both other witnesses have nothing to go by, and what they said is of the past.
                (self.no_sa, self.bfd, self.prober) = (Some(Reason::SaLost(loss)), None, None);
            }
            Signal::Bfd(Bfd::Down(_)) if self.bfd.is_none() => {}
            Signal::Bfd(bfd) => self.bfd = Some(bfd),
        }
    }

    /// Hears every witness; the worst one counts.
    fn find(&self) -> Finding {
        if let Some(reason) = &self.no_sa {
            return Finding::Bad(reason.clone());
        }
        let bfd = match (&self.bfd, self.config.bfd) {
            (_, BfdUse::Ignored)
            | (Some(Bfd::Up | Bfd::AdminDown), BfdUse::OnceUp | BfdUse::Required)
            | (None, BfdUse::OnceUp) => Finding::Good,
            (None, BfdUse::Required) => Finding::Waiting(Reason::FirstBfd),
            (Some(Bfd::Down(why)), BfdUse::OnceUp | BfdUse::Required) => Finding::Bad(Reason::BfdDown(why.clone())),
        };
        let target = self.prober.as_ref().map(|prober| prober.config().target);
        let probe = match (self.prober.as_ref().map(Prober::opinion), target) {
            (Some(Opinion::Bad(reason)), _) => Finding::Bad(reason),
            (Some(Opinion::Waiting), Some(target)) => Finding::Waiting(Reason::FirstAnswer { target }),
            (Some(Opinion::Good | Opinion::Waiting) | None, _) => Finding::Good,
        };
        match (bfd, probe) {
            (Finding::Bad(reason), _) | (_, Finding::Bad(reason)) => Finding::Bad(reason),
            (Finding::Waiting(reason), _) | (_, Finding::Waiting(reason)) => Finding::Waiting(reason),
            (Finding::Good, Finding::Good) => Finding::Good,
        }
    }

    /// From what is found to what is thought of it; says so when that is new.
    fn judge(&mut self, now: Instant) -> Option<Verdict> {
        let (grade, reason) = match (self.grade, self.find()) {
            (Grade::Healthy, Finding::Good) => {
                self.turning_since = None;
                (Grade::Healthy, Reason::Good)
            }
            // A witness that was just called has nothing against it yet.
            (Grade::Healthy, Finding::Waiting(_)) => (Grade::Healthy, self.reason.clone()),
            (Grade::Healthy, Finding::Bad(reason)) => {
                let since = *self.turning_since.get_or_insert(now);
                if self.no_sa.is_none() && now < since + self.config.fall {
                    (Grade::Healthy, self.reason.clone())
                } else {
                    self.fall(now);
                    (Grade::Unhealthy, reason)
                }
            }
            (Grade::Unhealthy | Grade::Settling, Finding::Good) => {
                let since = *self.turning_since.get_or_insert(now);
                let hold = self.hysteresis.hold(&self.config, since);
                if now < since + hold {
                    (Grade::Settling, Reason::Holding { hold })
                } else {
                    self.turning_since = None;
                    (Grade::Healthy, Reason::Good)
                }
            }
            (Grade::Unhealthy | Grade::Settling, Finding::Waiting(reason) | Finding::Bad(reason)) => {
                self.turning_since = None;
                self.forgive_what_was_planned();
                (Grade::Unhealthy, reason)
            }
        };
        if grade != self.grade {
            self.since = now;
        }
        if (grade, &reason) == (self.grade, &self.reason) {
            return None;
        }
        (self.grade, self.reason) = (grade, reason.clone());
        Some(Verdict { tunnel: self.id, grade, reason })
    }

    fn fall(&mut self, now: Instant) {
        self.turning_since = None;
        if !self.forgive_what_was_planned() {
            self.falls += 1;
            self.hysteresis.note_fall(&self.config, now);
        }
    }

    /// A tunnel that somebody took down comes back as if it were new.
    fn forgive_what_was_planned(&mut self) -> bool {
        let is_planned = self.no_sa == Some(Reason::SaLost(SaLoss::Planned));
        if is_planned {
            self.hysteresis.forget();
        }
        is_planned
    }

    fn deadline(&self) -> Option<Deadline> {
        let turn = self.turning_since.map(|since| match self.grade {
            Grade::Healthy => Deadline { at: since + self.config.fall, why: "a tunnel is bad for long" },
            Grade::Unhealthy | Grade::Settling => {
                let hold = self.hysteresis.hold(&self.config, since);
                Deadline { at: since + hold, why: "a tunnel is good for long" }
            }
        });
        Deadline::earliest(turn, self.prober.as_ref().map(Prober::deadline))
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            tunnel: self.id,
            grade: self.grade,
            since: self.since,
            reason: self.reason.clone(),
            is_sa_up: self.no_sa.is_none(),
            falls: self.falls,
            hold: self.hysteresis.hold(&self.config, self.turning_since.unwrap_or(now)),
            probe: self.prober.as_ref().map(Prober::status),
        }
    }
}
