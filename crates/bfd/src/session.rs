//! One session: the state variables of RFC 5880 §6.8.1 and what moves them.

use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use base::export::Moment;
use base::{Deadline, Instant, Random};

use crate::PORT;
use crate::auth::Sequence;
use crate::config::{Addresses, Role, SessionConfig, SessionId};
use crate::export::{Exported, ExportedRemote};
use crate::sessions::{DownCause, Event, EventKind, Output, Transmit};
use crate::status::{Counters, Discard, Status};
use crate::wire::{Decoded, Diagnostic, Packet, State};

/// While not Up, nobody sends faster than this (RFC 5880 §6.8.3), in microseconds.
const SLOW: u32 = 1_000_000;

/// What one input may use beside the session itself.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) random: &'a mut Random,
    pub(crate) outputs: &'a mut VecDeque<Output>,
}

/// Two intervals in microseconds: bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timers {
    tx: u32,
    rx: u32,
}

/// A Poll Sequence of ours (§6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// None; one may begin.
    Idle,
    /// Packets are sent with P until one with F comes.
    Active,
    /// It has ended. Another would be ambiguous until a packet without F comes: third choice of §6.8.3.
    Settling,
}

/// What the neighbor's last packet said; there is none while bfd.RemoteDiscr is 0.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: NonZeroU32,
    multiplier: NonZeroU8,
    min_tx: u32,
    min_rx: u32,
    demand: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    config: SessionConfig,
    addresses: Addresses,
    port: u16,
    discriminator: NonZeroU32,
    state: State,
    since: Instant,
    remote: Option<Remote>,
    remote_state: State,
    local_diagnostic: Diagnostic,
    remote_diagnostic: Diagnostic,
    last_local_diagnostic: Diagnostic,
    last_remote_diagnostic: Diagnostic,
    /// What our packets say.
    advertised: Timers,
    /// What our timers go by. While Up it lags behind what is advertised until the neighbor has confirmed.
    used: Timers,
    poll: Poll,
    sequence: Sequence,
    heard_at: Option<Instant>,
    /// The last known detection time in microseconds, also when the neighbor is forgotten.
    last_detection: u64,
    detect_at: Option<Instant>,
    sent_at: Option<Instant>,
    /// What `send_at` was computed from, in microseconds.
    interval: Option<u32>,
    send_at: Option<Instant>,
    /// Something changed that the neighbor should know before its time (§6.8.7).
    is_urgent: bool,
    /// The neighbor polls.
    owes_final: bool,
    counters: Counters,
}

impl Session {
    pub(crate) fn new(
        id: SessionId,
        config: SessionConfig,
        port: u16,
        discriminator: NonZeroU32,
        turn: &mut Turn<'_>,
    ) -> Self {
        let timers = Timers { tx: micros(config.min_tx).max(SLOW), rx: micros(config.min_rx) };
        Self {
            id,
            addresses: config.addresses(),
            config,
            port,
            discriminator,
            state: State::Down,
            since: turn.now,
            remote: None,
            remote_state: State::Down,
            local_diagnostic: Diagnostic::NONE,
            remote_diagnostic: Diagnostic::NONE,
            last_local_diagnostic: Diagnostic::NONE,
            last_remote_diagnostic: Diagnostic::NONE,
            advertised: timers,
            used: timers,
            poll: Poll::Idle,
            sequence: Sequence::new(turn.random),
            heard_at: None,
            last_detection: 0,
            detect_at: None,
            sent_at: None,
            interval: None,
            send_at: None,
            is_urgent: false,
            owes_final: false,
            counters: Counters::default(),
        }
    }

    /// The session for another process; `None` where there is nothing to go on with.
    pub(crate) fn export(&self, now: Instant) -> Option<Exported> {
        let theirs = self.remote.filter(|_| self.state == State::Up && self.config.authentication.is_none())?;
        let diagnostics =
            [self.local_diagnostic, self.remote_diagnostic, self.last_local_diagnostic, self.last_remote_diagnostic];
        let Counters { sent, received, ups, flaps, polls, discards: _ } = self.counters;
        Some(Exported {
            local: self.addresses.local(self.port).ip(),
            remote: self.addresses.remote(PORT).ip(),
            port: self.port,
            discriminator: self.discriminator,
            since: Moment::of(self.since, now),
            theirs: ExportedRemote {
                discriminator: theirs.discriminator,
                multiplier: theirs.multiplier,
                min_tx: theirs.min_tx,
                min_rx: theirs.min_rx,
                demand: theirs.demand,
            },
            advertised: (self.advertised.tx, self.advertised.rx),
            used: (self.used.tx, self.used.rx),
            diagnostics: diagnostics.map(|diagnostic| diagnostic.0),
            counters: [sent, received, ups, flaps, polls],
        })
    }

    /// Goes on with what another process exported: Up, and heard just now. A poll of that process is begun again.
    pub(crate) fn resume(&mut self, exported: &Exported, turn: &mut Turn<'_>) {
        let ExportedRemote { discriminator, multiplier, min_tx, min_rx, demand } = exported.theirs;
        let timers = |(tx, rx): (u32, u32)| Timers { tx, rx };
        self.state = State::Up;
        self.remote_state = State::Up;
        self.since = exported.since.at(turn.now);
        self.remote = Some(Remote { discriminator, multiplier, min_tx, min_rx, demand });
        let [local, remote, last_local, last_remote] = exported.diagnostics.map(Diagnostic);
        (self.local_diagnostic, self.remote_diagnostic) = (local, remote);
        (self.last_local_diagnostic, self.last_remote_diagnostic) = (last_local, last_remote);
        (self.advertised, self.used) = (timers(exported.advertised), timers(exported.used));
        let [sent, received, ups, flaps, polls] = exported.counters;
        self.counters = Counters { sent, received, ups, flaps, polls, ..self.counters };
        self.poll = if self.used == self.advertised { Poll::Idle } else { Poll::Active };
        (self.heard_at, self.is_urgent) = (Some(turn.now), true);
        self.retime();
        turn.outputs.push_back(Output::Event(Event { session: self.id, kind: EventKind::Up }));
    }

    /// Takes other intervals, another multiplier, role or key; the addresses are the same.
    pub(crate) fn configure(&mut self, config: SessionConfig) {
        if config.authentication != self.config.authentication {
            self.sequence.forget();
        }
        self.config = config;
        self.retime();
    }

    /// Administrative control (§6.8.16).
    pub(crate) fn set_admin_down(&mut self, reason: Option<Diagnostic>, turn: &mut Turn<'_>) {
        match reason {
            Some(reason) => {
                let cause = if reason == Diagnostic::PATH_DOWN { DownCause::PathDown } else { DownCause::AdminDown };
                self.is_urgent |= self.local_diagnostic != reason;
                self.enter(State::AdminDown, reason, cause, turn);
                self.local_diagnostic = reason;
            }
            None if self.state == State::AdminDown => {
                self.enter(State::Down, Diagnostic::NONE, DownCause::AdminDown, turn);
            }
            None => {}
        }
    }

    /// Says goodbye: what is sent last says AdminDown, so that the neighbor's clients need not take it for a failure.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>) {
        self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN, DownCause::Removed, turn);
        self.poll = Poll::Idle;
        self.is_urgent = self.sent_at.is_some();
        self.settle(turn);
        turn.outputs.push_back(Output::Release { session: self.id, local: self.addresses.local(self.port) });
    }

    /// The checks of §6.8.6 from authentication on, and what follows from them.
    pub(crate) fn receive(&mut self, decoded: &Decoded<'_>, turn: &mut Turn<'_>) -> Result<(), Discard> {
        self.sequence.forget_if_silent(self.heard_at, self.last_detection, turn.now);
        let verified = self.sequence.verify(self.config.authentication.as_ref(), decoded)?;
        self.sequence.accept(&verified);

        let packet = &decoded.packet;
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            multiplier: packet.multiplier,
            min_tx: packet.desired_min_tx,
            min_rx: packet.required_min_rx,
            demand: packet.demand,
        });
        (self.remote_state, self.remote_diagnostic) = (packet.state, packet.diagnostic);
        if packet.diagnostic != Diagnostic::NONE {
            self.last_remote_diagnostic = packet.diagnostic;
        }
        self.heard_at = Some(turn.now);
        match self.poll {
            Poll::Active if packet.is_final => {
                self.poll = Poll::Settling;
                self.used = self.advertised;
            }
            Poll::Settling if !packet.is_final => self.poll = Poll::Idle,
            Poll::Idle | Poll::Active | Poll::Settling => {}
        }
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.counters.received += 1;
        self.follow(packet.state, turn);
        self.retime();
        self.owes_final = packet.poll;
        Ok(())
    }

    /// The state machine of §6.2 and §6.8.6.
    fn follow(&mut self, theirs: State, turn: &mut Turn<'_>) {
        match (self.state, theirs) {
            (State::Init | State::Up, State::AdminDown) => {
                self.enter(State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN, DownCause::NeighborAdminDown, turn);
            }
            (State::Up, State::Down) => {
                self.enter(State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN, DownCause::NeighborSignaledDown, turn);
            }
            // The diagnostic stays until Up: the neighbor may have missed the packets that said it first.
            (State::Down, State::Down) => {
                self.enter(State::Init, self.local_diagnostic, DownCause::NeighborSignaledDown, turn);
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::NONE, DownCause::NeighborSignaledDown, turn);
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up)
            | (State::AdminDown, _) => {}
        }
    }

    /// Goes to another state. `cause` is told when it leaves Up.
    fn enter(&mut self, state: State, diagnostic: Diagnostic, cause: DownCause, turn: &mut Turn<'_>) {
        let (was, since) = (self.state, self.since);
        if was == state {
            return;
        }
        (self.state, self.since, self.local_diagnostic, self.is_urgent) = (state, turn.now, diagnostic, true);
        if was == State::Up || state == State::Up {
            // What an older poll asked for is not waited for: of the intervals that change here, the slower ones of
            // a session that is not Up count at once, and so do the faster ones of one that came Up (§6.8.3).
            self.poll = Poll::Idle;
        }
        if state == State::Up {
            self.counters.ups += 1;
            turn.outputs.push_back(Output::Event(Event { session: self.id, kind: EventKind::Up }));
        } else if was == State::Up {
            self.counters.flaps += 1;
            self.last_local_diagnostic = diagnostic;
            let kind = EventKind::Down {
                cause,
                diagnostic,
                remote_diagnostic: self.remote_diagnostic,
                was_up_for: turn.now - since,
            };
            turn.outputs.push_back(Output::Event(Event { session: self.id, kind }));
        }
        self.retime();
    }

    /// Advertises the intervals that state and configuration ask for, and begins a Poll Sequence when they changed.
    fn retime(&mut self) {
        let tx = micros(self.config.min_tx);
        let tx = if self.state == State::Up { tx } else { tx.max(SLOW) };
        let wanted = Timers { tx, rx: micros(self.config.min_rx) };
        if wanted == self.advertised || self.state == State::Up && self.poll != Poll::Idle {
            return;
        }
        self.advertised = wanted;
        // §6.8.3: while Up, we neither send more rarely nor expect to hear more often before the neighbor knows.
        self.used = match self.state {
            State::Up => Timers { tx: wanted.tx.min(self.used.tx), rx: wanted.rx.max(self.used.rx) },
            State::AdminDown | State::Down | State::Init => wanted,
        };
        self.is_urgent = true;
        // Deliberate: a neighbor that is not heard is not polled. It takes the values from the first packet it hears.
        if self.remote.is_some() {
            self.poll = Poll::Active;
            self.counters.polls += 1;
        }
    }

    /// Does what is due.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>) {
        if self.detect_at.is_some_and(|at| at <= turn.now) {
            self.expire(turn);
        }
        if self.send_at.is_some_and(|at| at <= turn.now) {
            self.is_urgent = true;
        }
    }

    /// A detection time has passed without a packet (§6.8.4, and §6.8.1 on bfd.RemoteDiscr). All that the neighbor
    /// said goes with its discriminator: one that asked for no packets, restarted and is passive would wait for ever.
    fn expire(&mut self, turn: &mut Turn<'_>) {
        (self.remote, self.remote_state, self.poll) = (None, State::Down, Poll::Idle);
        match self.state {
            State::Init | State::Up => {
                self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, DownCause::DetectionTimeExpired, turn);
            }
            State::Down | State::AdminDown => {}
        }
    }

    /// Sends what is owed and sets both timers. Every input ends here.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.owes_final) {
            self.send(true, turn);
            // It says all that is new, unless we poll too: P and F do not go into one packet (§6.5).
            self.is_urgent &= self.poll == Poll::Active;
        }
        if std::mem::take(&mut self.is_urgent) && self.may_send() {
            self.send(false, turn);
        }
        let interval = self.transmit_interval();
        if interval != self.interval || self.send_at.is_none() {
            self.interval = interval;
            self.send_at = interval.map(|interval| match self.sent_at {
                Some(sent) => (sent + self.jittered(interval, turn.random)).max(turn.now),
                None => turn.now,
            });
        }
        let detection = self.detection();
        self.last_detection = detection.unwrap_or(self.last_detection);
        self.detect_at = self.heard_at.zip(detection).map(|(heard, after)| heard + Duration::from_micros(after));
    }

    fn send(&mut self, is_final: bool, turn: &mut Turn<'_>) {
        let packet = Packet {
            diagnostic: self.local_diagnostic,
            state: self.state,
            poll: !is_final && self.poll == Poll::Active,
            is_final,
            control_plane_independent: false,
            demand: false,
            multiplier: NonZeroU8::new(self.config.multiplier).unwrap_or(NonZeroU8::MIN),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: self.advertised.tx,
            required_min_rx: self.advertised.rx,
            required_min_echo_rx: 0,
        };
        let mut payload = packet.encode();
        if let Some(authentication) = &self.config.authentication {
            self.sequence.sign(authentication, &mut payload);
        }
        turn.outputs.push_back(Output::Transmit(Transmit {
            session: self.id,
            local: self.addresses.local(self.port),
            remote: self.addresses.remote(PORT),
            payload,
        }));
        self.counters.sent += 1;
        if !is_final {
            (self.sent_at, self.send_at) = (Some(turn.now), None);
        }
    }

    fn may_send(&self) -> bool {
        self.config.role == Role::Active || self.remote.is_some()
    }

    /// At which interval packets are sent, in microseconds, if periodically at all (§6.8.2, §6.8.7).
    fn transmit_interval(&self) -> Option<u32> {
        let demanded = self.remote.is_some_and(|remote| remote.demand)
            && self.state == State::Up
            && self.remote_state == State::Up
            && self.poll != Poll::Active;
        let their_min_rx = self.remote.map_or(1, |remote| remote.min_rx);
        (self.may_send() && their_min_rx > 0 && !demanded).then(|| self.used.tx.max(their_min_rx))
    }

    /// At which interval the neighbor sends, in microseconds.
    fn receive_interval(&self) -> Option<u32> {
        self.remote.map(|remote| self.used.rx.max(remote.min_tx))
    }

    /// The detection time in microseconds (§6.8.4).
    fn detection(&self) -> Option<u64> {
        let multiplier = u64::from(self.remote?.multiplier.get());
        self.receive_interval().map(|interval| multiplier * u64::from(interval))
    }

    /// 75 to 100 per cent of an interval; 75 to 90 when a single packet that is late is one too many (§6.8.7).
    fn jittered(&self, interval: u32, random: &mut Random) -> Duration {
        let (interval, most) = (u64::from(interval), if self.config.multiplier == 1 { 90 } else { 100 });
        let least = interval * 75 / 100;
        Duration::from_micros(least + random.below(interval * most / 100 - least + 1))
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let send = self.send_at.map(|at| Deadline { at, why: "a BFD packet is due" });
        let detect = self.detect_at.map(|at| Deadline { at, why: "a BFD neighbor is silent" });
        Deadline::earliest(detect, send)
    }

    pub(crate) fn count(&mut self, reason: Discard) {
        self.counters.discards.count(reason);
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends from another port, and at once.
    pub(crate) fn move_to(&mut self, port: u16) {
        (self.port, self.is_urgent) = (port, true);
    }

    pub(crate) fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    pub(crate) fn status(&self) -> Status {
        let interval = |micros: u32| Duration::from_micros(u64::from(micros));
        Status {
            session: self.id,
            local: self.addresses.local(self.port),
            remote: self.addresses.remote(PORT),
            state: self.state,
            since: self.since,
            remote_state: self.remote_state,
            local_discriminator: self.discriminator,
            remote_discriminator: self.remote.map(|remote| remote.discriminator),
            local_diagnostic: self.local_diagnostic,
            remote_diagnostic: self.remote_diagnostic,
            last_local_diagnostic: self.last_local_diagnostic,
            last_remote_diagnostic: self.last_remote_diagnostic,
            transmit_interval: self.transmit_interval().map(interval),
            receive_interval: self.receive_interval().map(interval),
            detection_time: self.detection().map(Duration::from_micros),
            local_multiplier: self.config.multiplier,
            remote_multiplier: self.remote.map_or(0, |remote| remote.multiplier.get()),
            is_polling: self.poll == Poll::Active,
            remote_demand: self.remote.is_some_and(|remote| remote.demand),
            heard_at: self.heard_at,
            counters: self.counters,
        }
    }
}

fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
