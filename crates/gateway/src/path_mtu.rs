//! What a path takes: path MTU discovery with authenticated probes (RFC 8899 over [`ike::Probe`]).
//!
//! A path begins with what the interface or the route says (the optimistic start of RFC 8899 §5.1.1's alternatives), and
//! one probe of that size follows. What follows from it, by the names of RFC 8899 §5.2:
//!
//! ```text
//!            passes
//!  Confirm ----------> Settled --- raise timer ---> Search upwards ---> Settled
//!     | lost twice        '--- in use for a minute, a router's word, a wider interface ---> Confirm
//!     v
//!  Lower: a router's word, the base, the least -- one passes --> Search upwards ---> Settled
//!     | none passes
//!     v
//!  Unprobed: the kernel's word counts, within bounds, until the raise timer
//! ```
//!
//! A router's word ("fragmentation needed", "packet too big") makes the path be probed and decides nothing where the peer
//! can be asked: an off-path attacker can forge it (RFC 8899 §4.6). Where the peer cannot be asked it is believed, but
//! not below what every path must take, and not for longer than the raise timer. Sizes are of outer IP packets, in bytes.
//!
//! Deliberate: a path that takes more than 9,216 bytes is confirmed to take those, and no more is asked.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Deadline, Instant, Machine};
use ike::{CannotProbe, Outcome};
use sa::{ChildSuite, Path};

use crate::mtu::{self, InnerMtu};

/// Sizes worth asking for, smallest first: links, encapsulations, clouds.
const SIZES: [u16; 29] = [
    576, 1_006, 1_200, 1_280, 1_300, 1_320, 1_340, 1_360, 1_380, 1_400, 1_410, 1_420, 1_430, 1_440, 1_448, 1_454,
    1_460, 1_464, 1_468, 1_472, 1_476, 1_480, 1_488, 1_492, 1_500, 4_352, 8_500, 9_001, 9_216,
];
/// The largest probe: beyond, peers have no room to receive it in.
const LARGEST: u16 = 9_216;
/// BASE_PLPMTU for IPv4 (RFC 8899 §5.1.2).
const BASE_V4: u16 = 1_200;
/// What every IPv6 link takes (RFC 8200 §5): base and least.
const LEAST_V6: u16 = 1_280;
/// What every IPv4 host takes (RFC 791 §3.1): the least that is asked for or believed.
const LEAST_V4: u16 = 576;
/// A search ends when it has come so near.
const NEAR: u16 = 4;
/// Time from the first SA to the first probe.
const START: Duration = Duration::from_secs(1);
/// RFC 8899 §5.1.1, PMTU_RAISE_TIMER.
const RAISE: Duration = Duration::from_secs(600);
/// RFC 8899 §5.1.1, CONFIRMATION_TIMER: how often a path that is in use is asked again.
const CONFIRM: Duration = Duration::from_secs(60);
/// The wait after a probe that said nothing.
const AGAIN: Duration = Duration::from_secs(3);
/// A probe has an outcome by then, or never will.
const OVERDUE: Duration = Duration::from_secs(300);
/// Probes of the size in use that must be lost before it is given up; each is sent twice.
const TRIES: u8 = 2;
/// After a router's word that proved false, how long the next is not listened to: it doubles up to [`RAISE`].
const DEAF: Duration = Duration::from_secs(10);

/// Where the MTU of a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything: 1,500.
    Assumed,
    /// The interface that leads there.
    Interface,
    /// The route that leads there.
    Route,
    /// A router's word, which the peer was not asked about.
    Icmp,
    /// The peer received a packet of this size.
    Probed {
        /// When that was last so.
        at: Instant,
    },
}

impl Source {
    /// As status shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Interface => "interface",
            Self::Route => "route",
            Self::Icmp => "icmp (unverified)",
            Self::Probed { .. } => "probed",
        }
    }
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a probe. [`PathMtu::handle_outcome`] or [`PathMtu::cannot_probe`] is to be called once.
    Probe {
        /// The size that would do.
        least: u16,
        /// The size that must not be exceeded.
        most: u16,
    },
    /// From now on the path takes this much.
    Mtu(u16),
    /// What was found differs from what was told last: worth a person's attention.
    Found {
        /// What was told last.
        before: u16,
        /// What the path takes.
        now: u16,
        /// How that is known.
        source: Source,
    },
}

/// One path.
#[derive(Debug)]
pub struct PathMtu {
    is_ipv6: bool,
    /// What interface or route say: nothing larger leaves.
    upper: (u16, Source),
    mtu: u16,
    source: Source,
    told: u16,
    phase: Phase,
    /// The size of the probe under way.
    asked: Option<u16>,
    timer: Option<Deadline>,
    /// When to look for more than is in use.
    raise_at: Option<Instant>,
    /// SAs that take this path.
    sas: Vec<(ChildSuite, Path)>,
    is_in_use: bool,
    is_cancelled: bool,
    /// The size of the last packet that the peer received.
    arrived: u16,
    /// When it was last settled.
    confirmed_at: Instant,
    /// Until when routers are not listened to, and for how long next time.
    deaf: (Instant, Duration),
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Is what is in use right?
    Confirm { lost: u8, hint: Option<u16> },
    /// It is not: what is left to try.
    Lower { hint: Option<u16>, lost: u8, base: Base, failed: u16 },
    /// Up from what is in use, and from `above`, to below `failed`.
    Search { above: u16, failed: u16 },
    /// Found.
    Settled,
    /// Nobody can be asked, and why.
    Unprobed(&'static str),
}

/// Sizes that are tried when the one in use fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Base,
    Least,
}

impl PathMtu {
    /// A path to an IPv6 address, or an IPv4 one, of which interface or route say that it takes `upper`. Its first SA is
    /// there.
    pub fn new(is_ipv6: bool, upper: u16, from: Source, now: Instant) -> Self {
        Self {
            is_ipv6,
            upper: (upper, from),
            mtu: upper,
            source: from,
            told: upper,
            phase: Phase::Confirm { lost: 0, hint: None },
            asked: None,
            timer: Some(Deadline { at: now + START, why: "a new path is probed" }),
            raise_at: None,
            sas: Vec::new(),
            is_in_use: false,
            is_cancelled: false,
            arrived: 0,
            confirmed_at: now,
            deaf: (Instant::ZERO, DEAF),
            outputs: VecDeque::new(),
        }
    }

    /// What the path takes.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// How that is known.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Why the path is not probed, where it is not.
    pub const fn unprobed(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Unprobed(why) => Some(why),
            Phase::Confirm { .. } | Phase::Lower { .. } | Phase::Search { .. } | Phase::Settled => None,
        }
    }

    /// Whether anything is being found out.
    pub const fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Confirm { .. } | Phase::Lower { .. } | Phase::Search { .. })
    }

    /// The SAs that take this path now: their suites say which sizes ESP packets can have.
    pub fn set_sas(&mut self, sas: Vec<(ChildSuite, Path)>, now: Instant) {
        self.sas = sas;
        let is_probed = matches!(self.source, Source::Probed { .. }) && self.mtu <= LARGEST;
        if self.phase == Phase::Settled && is_probed && self.least_for(self.mtu) > self.arrived {
            // The new SA makes larger packets than any that is known to arrive.
            self.confirm(None, now);
        }
    }

    /// Interface or route say something else now.
    pub fn set_upper(&mut self, upper: u16, from: Source, now: Instant) {
        let before = std::mem::replace(&mut self.upper, (upper, from)).0;
        if upper == before {
            return;
        }
        let is_probed = matches!(self.source, Source::Probed { .. });
        if upper < self.mtu || !is_probed {
            // What leaves must fit the interface, whatever the path takes.
            self.use_mtu(upper, from);
            self.confirm(None, now);
        } else if self.phase == Phase::Settled {
            self.raise_at = (upper > before).then_some(now).or(self.raise_at);
            self.rest(now);
        }
    }

    /// Authentic packets came in: the path is in use.
    pub fn note_in_use(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.is_in_use, true) && self.phase == Phase::Settled {
            self.rest(now);
        }
    }

    /// A router, or the kernel that heard one, says that the path takes no more than `mtu`.
    pub fn note_hint(&mut self, mtu: u16, now: Instant) {
        // RFC 8899 §4.6.1: what no path can be like, and what is no news, is not looked at.
        if mtu < self.least() || mtu >= self.mtu {
            return;
        }
        match &mut self.phase {
            Phase::Confirm { hint, .. } => *hint = Some(mtu),
            Phase::Settled if now >= self.deaf.0 => self.confirm(Some(mtu), now),
            Phase::Unprobed(_) => {
                self.use_mtu(mtu, Source::Icmp);
                self.raise_at = Some(now + RAISE);
                self.set_timer(self.raise_at, "a router's word is forgotten");
                self.tell();
            }
            // It is being found out anyway.
            Phase::Settled | Phase::Lower { .. } | Phase::Search { .. } => {}
        }
    }

    /// What became of the probe: `size` is that of the packet that was sent.
    pub fn handle_outcome(&mut self, outcome: Outcome, size: u16, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        self.is_cancelled = outcome == Outcome::Cancelled && size > 0;
        match outcome {
            Outcome::Cancelled => self.set_timer(Some(now + AGAIN), "a probe is sent again"),
            Outcome::Answered => self.on_answered(asked, size, now),
            Outcome::Lost => self.on_lost(asked, now),
        }
    }

    /// Whether the last probe was sent and came to nothing.
    pub(crate) const fn was_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// The peer is not to be asked for the time of the raise timer, and why.
    pub(crate) fn leave_alone(&mut self, why: &'static str, now: Instant) {
        self.asked = None;
        self.give_up(why, now);
    }

    /// The peer cannot be asked.
    pub fn cannot_probe(&mut self, why: CannotProbe, now: Instant) {
        self.asked = None;
        self.give_up(why.why(), now);
    }

    /// A packet of `passed` bytes arrived when one of `asked` was to be tried.
    fn on_answered(&mut self, asked: u16, passed: u16, now: Instant) {
        self.arrived = passed;
        match self.phase {
            Phase::Confirm { hint, .. } => {
                if hint.is_some() {
                    self.deaf = (now + self.deaf.1, (2 * self.deaf.1).min(RAISE));
                }
                // More than the largest probe is not asked for, and not known to be wrong.
                if asked == self.mtu {
                    let does = passed >= self.least_for(asked);
                    self.use_mtu(if does { asked } else { passed }, Source::Probed { at: now });
                }
                self.settle(now);
            }
            Phase::Lower { hint, failed, .. } => {
                self.use_mtu(passed, Source::Probed { at: now });
                self.deaf.1 = DEAF;
                if hint == Some(asked) {
                    self.settle(now);
                } else {
                    self.phase = Phase::Search { above: asked, failed };
                    self.ask(now);
                }
            }
            Phase::Search { failed, .. } => {
                // What is reached of the size asked for may be no more than is in use: the next is asked for all the same.
                if passed > self.mtu {
                    self.use_mtu(passed, Source::Probed { at: now });
                }
                self.phase = Phase::Search { above: asked, failed };
                self.ask(now);
            }
            Phase::Settled | Phase::Unprobed(_) => {}
        }
    }

    fn on_lost(&mut self, asked: u16, now: Instant) {
        match self.phase {
            Phase::Confirm { lost, hint } if lost + 1 < TRIES && hint.is_none() => {
                self.phase = Phase::Confirm { lost: lost + 1, hint };
            }
            Phase::Confirm { hint, .. } => {
                self.phase = Phase::Lower { hint, lost: 0, base: Base::Base, failed: asked };
            }
            Phase::Lower { hint: Some(_), base, failed, .. } => {
                self.phase = Phase::Lower { hint: None, lost: 0, base, failed };
            }
            Phase::Lower { hint, lost, base, failed } if lost + 1 < TRIES => {
                self.phase = Phase::Lower { hint, lost: lost + 1, base, failed };
            }
            Phase::Lower { base: Base::Base, .. } if self.base() > self.least() => {
                self.phase = Phase::Lower { hint: None, lost: 0, base: Base::Least, failed: asked };
            }
            Phase::Lower { .. } => return self.give_up("the peer does not answer long requests", now),
            Phase::Search { above, .. } => self.phase = Phase::Search { above, failed: asked },
            Phase::Settled | Phase::Unprobed(_) => return,
        }
        self.ask(now);
    }

    /// Asks for what comes next.
    fn ask(&mut self, now: Instant) {
        let most = match self.phase {
            Phase::Confirm { .. } => Some(self.mtu.min(LARGEST)),
            Phase::Lower { hint, base, failed, .. } => Some(match (hint, base) {
                (Some(hint), _) => hint,
                (None, Base::Base) => self.base().min(failed),
                (None, Base::Least) => self.least(),
            }),
            Phase::Search { above, failed } => self.between(above.max(self.mtu), failed),
            Phase::Settled | Phase::Unprobed(_) => return,
        };
        match most {
            Some(most) => {
                self.asked = Some(most);
                self.set_timer(Some(now + OVERDUE), "a probe has no outcome");
                self.outputs.push_back(Output::Probe { least: self.least_for(most), most });
            }
            None => self.settle(now),
        }
    }

    /// The next size above what is in use that may pass. One that passes costs a round trip, one that does not a second
    /// or more: so upwards, one after the other, and only then between.
    fn between(&self, low: u16, failed: u16) -> Option<u16> {
        let limit = failed.min(self.upper.0.saturating_add(1)).min(LARGEST + 1);
        let inside = |size: &u16| *size > low && *size < limit;
        let next = SIZES.iter().copied().chain([self.upper.0]).filter(inside).min();
        let middle = || {
            let apart = limit.checked_sub(low).filter(|apart| *apart > NEAR)?;
            let middle = low + apart / 2;
            let even = middle - middle % NEAR;
            Some(if even > low { even } else { middle })
        };
        next.or_else(middle)
    }

    /// The size of the largest ESP packet that an MTU lets through: a probe of that size does.
    fn least_for(&self, outer: u16) -> u16 {
        let largest = |(suite, path): &(ChildSuite, Path)| {
            let fit = InnerMtu::of(*suite, path, outer, None);
            fit.inner.saturating_add(fit.overhead)
        };
        self.sas.iter().map(largest).max().map_or(outer, |largest| largest.min(outer))
    }

    const fn base(&self) -> u16 {
        if self.is_ipv6 { LEAST_V6 } else { BASE_V4 }
    }

    const fn least(&self) -> u16 {
        if self.is_ipv6 { LEAST_V6 } else { LEAST_V4 }
    }

    /// Another process found this out at that time. It is looked at again like any new path.
    pub(crate) fn resume(&mut self, mtu: u16, at: Instant) {
        self.use_mtu(mtu, Source::Probed { at });
        self.told = mtu;
    }

    fn use_mtu(&mut self, mtu: u16, source: Source) {
        self.source = source;
        if self.mtu != mtu {
            self.mtu = mtu;
            self.outputs.push_back(Output::Mtu(mtu));
        }
    }

    /// Asks at once whether what is in use is right; what is under way does not count any more.
    fn confirm(&mut self, hint: Option<u16>, now: Instant) {
        self.phase = Phase::Confirm { lost: 0, hint };
        self.asked = None;
        self.set_timer(Some(now), "a path is probed");
    }

    fn settle(&mut self, now: Instant) {
        self.phase = Phase::Settled;
        let is_low = self.mtu < self.upper.0.min(LARGEST);
        self.raise_at = is_low.then(|| self.raise_at.unwrap_or(now + RAISE));
        (self.is_in_use, self.confirmed_at) = (false, now);
        self.rest(now);
        self.tell();
    }

    /// Sets the timer of a path that is settled.
    fn rest(&mut self, now: Instant) {
        let confirm = self.is_in_use.then(|| self.confirmed_at + CONFIRM);
        let at = [confirm, self.raise_at].into_iter().flatten().min();
        self.set_timer(at.map(|at| at.max(now)), "a path is probed again");
    }

    /// Nobody can be asked: the kernel's word counts.
    fn give_up(&mut self, why: &'static str, now: Instant) {
        let hint = match self.phase {
            Phase::Confirm { hint, .. } | Phase::Lower { hint, .. } => hint,
            Phase::Search { .. } | Phase::Settled | Phase::Unprobed(_) => None,
        };
        self.phase = Phase::Unprobed(why);
        let (mtu, source) = hint.map_or(self.upper, |hint| (hint, Source::Icmp));
        self.use_mtu(mtu, source);
        self.raise_at = Some(now + RAISE);
        self.set_timer(self.raise_at, "a path is tried again");
        self.tell();
    }

    fn tell(&mut self) {
        let (before, now, source) = (self.told, self.mtu, self.source);
        if before != now {
            self.told = now;
            self.outputs.push_back(Output::Found { before, now, source });
        }
    }

    fn set_timer(&mut self, at: Option<Instant>, why: &'static str) {
        self.timer = at.map(|at| Deadline { at, why });
    }
}

impl Machine for PathMtu {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_none_or(|timer| timer.at > now) {
            return;
        }
        self.timer = None;
        self.asked = None;
        match self.phase {
            Phase::Settled if self.raise_at.is_some_and(|at| at <= now) => {
                self.raise_at = None;
                self.phase = Phase::Search { above: self.mtu, failed: self.upper.0.saturating_add(1) };
                self.ask(now);
            }
            Phase::Settled => {
                self.phase = Phase::Confirm { lost: 0, hint: None };
                self.ask(now);
            }
            Phase::Unprobed(_) => {
                self.use_mtu(self.upper.0, self.upper.1);
                self.tell();
                self.phase = Phase::Confirm { lost: 0, hint: None };
                self.ask(now);
            }
            Phase::Confirm { .. } | Phase::Lower { .. } | Phase::Search { .. } => self.ask(now),
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timer
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// The MTU that stands for a connection before it has a path.
pub(crate) const fn assumed() -> (u16, Source) {
    (mtu::DEFAULT_OUTER, Source::Assumed)
}

#[cfg(test)]
#[path = "path_mtu_tests.rs"]
mod tests;
