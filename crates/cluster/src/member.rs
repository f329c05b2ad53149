//! What this gateway is in its cluster.
//!
//! ```text
//!             the other is active, or is to be          silence for `dead_after`
//!   Starting -------------------------------> Standby -------------------------> Active
//!      |                                         ^                                  |
//!      +-- nobody is there, or we are to be ---- | -- the other has a higher term --+
//! ```
//!
//! Each time that one becomes active it takes a term that no other had: higher than all that it heard of, even for one
//! member and odd for the other. Where both are active, because they did not hear each other, the higher term stays:
//! that one took over from the other. That both seal meanwhile does no harm (`esp::shared`); traffic goes to whom the
//! network believes.
//!
//! Only a heartbeat that echoes our own process counts: one that was recorded keeps nobody alive.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Deadline, Instant, Machine};
use serde::{Deserialize, Serialize};

use crate::Heartbeat;

/// How much longer than for a death it is listened at the start: the other may just be starting too.
const LISTEN: u32 = 3;
/// How long a preferred member stands by, in step with the other, before it asks for its place.
const SETTLED: Duration = Duration::from_secs(30);

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It listens who is there.
    Starting,
    /// It holds what it is told.
    Standby,
    /// It has the shared addresses, and carries the traffic.
    Active,
}

impl Role {
    /// As a person reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Active => "active",
        }
    }
}

/// How a member behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// 0 or 1, other than the other's.
    pub member: u8,
    /// The higher one is active where nothing else decides.
    pub preference: u8,
    /// Whether the preferred one takes its place back.
    pub preempt: bool,
    /// How often it says that it lives.
    pub interval: Duration,
    /// The silence after which the other is taken for dead.
    pub dead_after: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent over every path to the other member.
    Send(Heartbeat),
    /// This gateway is active from now on: with what it was told, where it was told something.
    TakeOver {
        /// Why, as a sentence without a full stop.
        why: &'static str,
    },
    /// It stands by from now on, and forgets what it had.
    StandBy {
        /// Why.
        why: &'static str,
    },
    /// The other member is heard, or is not.
    Partner {
        /// Whether it is.
        is_heard: bool,
    },
    /// The active one is to be asked to change places.
    AskForPlace,
}

/// What is known of the other.
#[derive(Clone, Copy, Debug)]
struct Partner {
    said: Heartbeat,
    heard_at: Instant,
}

/// The role of this gateway.
#[derive(Debug)]
pub struct Member {
    options: Options,
    boot: u64,
    counter: u64,
    role: Role,
    /// The highest that was heard of or had.
    term: u64,
    since: Instant,
    why: &'static str,
    /// The process of the other, as it says, for the echo.
    echo: u64,
    partner: Option<Partner>,
    /// When it was last in step with the active one.
    in_step_since: Option<Instant>,
    has_asked: bool,
    beat_at: Instant,
    outputs: VecDeque<Output>,
}

impl Member {
    /// A process that begins; `boot` is drawn at random and is never 0.
    pub fn new(options: Options, boot: u64, now: Instant) -> Self {
        Self {
            options,
            boot: boot.max(1),
            counter: 0,
            role: Role::Starting,
            term: 0,
            since: now,
            why: "it has just started",
            echo: 0,
            partner: None,
            in_step_since: None,
            has_asked: false,
            beat_at: now,
            outputs: VecDeque::new(),
        }
    }

    /// What it is.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Since when, and why.
    pub const fn since(&self) -> (Instant, &'static str) {
        (self.since, self.why)
    }

    /// The term in which it is active, or the last that it heard of.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// What the other said last, and when, while it is heard.
    pub fn partner(&self) -> Option<(Heartbeat, Instant)> {
        self.partner.map(|partner| (partner.said, partner.heard_at))
    }

    /// An authentic heartbeat came.
    pub fn handle_heartbeat(&mut self, said: Heartbeat, now: Instant) {
        if said.member % 2 == self.options.member % 2 || said.boot == self.boot {
            return;
        }
        let is_fresh = said.echo == self.boot;
        // While somebody is there who knows us, whoever does not is a recording, or has just started and is heard later.
        if !is_fresh && self.partner.is_none() {
            self.echo = said.boot;
        }
        let grows = |partner: Partner| partner.said.boot != said.boot || said.counter > partner.said.counter;
        if !is_fresh || !self.partner.is_none_or(grows) {
            return;
        }
        if self.partner.is_none() {
            self.outputs.push_back(Output::Partner { is_heard: true });
        }
        self.echo = said.boot;
        self.partner = Some(Partner { said, heard_at: now });
        let own_term = self.term;
        self.term = self.term.max(said.term);
        match (self.role, said.role) {
            (Role::Starting, Role::Active) => self.stand_by("the other member is active", now),
            (Role::Starting, Role::Starting) if self.is_preferred(&said) => {
                self.take_over("both have just started, and this one is preferred", now);
            }
            (Role::Starting, Role::Standby) => self.take_over("the other member stands by", now),
            (Role::Active, Role::Active) if said.term > own_term => {
                self.stand_by("the other member took over", now);
            }
            // It restarted, and we have not been told what it is now: it knows nothing more than we do.
            (Role::Standby, Role::Standby) if self.is_preferred(&said) => {
                self.take_over("nobody was active", now);
            }
            (Role::Standby, Role::Starting) => self.take_over("the active member was restarted", now),
            (Role::Starting, Role::Starting)
            | (Role::Standby, Role::Standby | Role::Active)
            | (Role::Active, Role::Starting | Role::Standby | Role::Active) => {}
        }
    }

    /// The active one has told all that it has, and goes on telling; or it has stopped to.
    pub fn note_in_step(&mut self, is_in_step: bool, now: Instant) {
        let since = self.in_step_since.unwrap_or(now);
        self.in_step_since = is_in_step.then_some(since);
        self.has_asked &= is_in_step;
    }

    /// The active one asks this one to take its place.
    pub fn take_place(&mut self, now: Instant) {
        if self.role == Role::Standby {
            self.take_over("the other member gave up its place", now);
        }
    }

    fn is_preferred(&self, other: &Heartbeat) -> bool {
        (self.options.preference, other.member) > (other.preference, self.options.member)
    }

    fn take_over(&mut self, why: &'static str, now: Instant) {
        let next = self.term.saturating_add(1);
        self.term = next.saturating_add((next % 2) ^ u64::from(self.options.member % 2));
        self.turn(Role::Active, why, now);
        self.outputs.push_back(Output::TakeOver { why });
        // So that the other hears of it at once.
        self.beat(now);
    }

    fn stand_by(&mut self, why: &'static str, now: Instant) {
        self.turn(Role::Standby, why, now);
        self.outputs.push_back(Output::StandBy { why });
        self.beat(now);
    }

    fn turn(&mut self, role: Role, why: &'static str, now: Instant) {
        (self.role, self.since, self.why) = (role, now, why);
        (self.in_step_since, self.has_asked) = (None, false);
    }

    fn beat(&mut self, now: Instant) {
        self.counter += 1;
        self.beat_at = now + self.options.interval;
        self.outputs.push_back(Output::Send(Heartbeat {
            role: self.role,
            member: self.options.member,
            preference: self.options.preference,
            boot: self.boot,
            echo: self.echo,
            counter: self.counter,
            term: self.term,
        }));
    }

    fn silence_ends_at(&self) -> Option<Instant> {
        let heard = self.partner.map(|partner| partner.heard_at + self.options.dead_after);
        let alone = || self.since + LISTEN * self.options.dead_after;
        match self.role {
            Role::Starting => Some(heard.unwrap_or_else(alone)),
            Role::Standby => Some(heard.unwrap_or(self.since + self.options.dead_after)),
            Role::Active => heard,
        }
    }

    fn place_at(&self) -> Option<Instant> {
        let other = self.partner?.said;
        let wants = self.options.preempt && self.options.preference > other.preference && !self.has_asked;
        self.in_step_since.filter(|_| wants && self.role == Role::Standby).map(|since| since + SETTLED)
    }
}

impl Machine for Member {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        if self.silence_ends_at().is_some_and(|at| at <= now) {
            if self.partner.take().is_some() {
                self.outputs.push_back(Output::Partner { is_heard: false });
            }
            match self.role {
                Role::Starting => self.take_over("no other member is there", now),
                Role::Standby => self.take_over("the active member is silent", now),
                Role::Active => {}
            }
        }
        if self.place_at().is_some_and(|at| at <= now) {
            self.has_asked = true;
            self.outputs.push_back(Output::AskForPlace);
        }
        if self.beat_at <= now {
            self.beat(now);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let beat = Some(Deadline { at: self.beat_at, why: "the other member is told that this one lives" });
        let silence = self.silence_ends_at().map(|at| Deadline { at, why: "the other member is taken for dead" });
        let place = self.place_at().map(|at| Deadline { at, why: "a preferred member asks for its place" });
        Deadline::earliest(beat, Deadline::earliest(silence, place))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
