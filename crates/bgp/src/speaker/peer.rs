//! One neighbour: when a connection is made, and what becomes of its connections (RFC 4271 §8).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::{Deadline, Instant};

use super::output::{EventKind, Output};
use super::restart::Restart;
use super::status::{FaultCounts, LastError, MessageCounts};
use super::turn::Turn;
use super::{ConnectionId, Neighbor, NeighborId};
use crate::session::{
    Action, Connection, Direction, Event, Expectation, Phase, Rival, State, Verdict, check, react, resolve,
};
use crate::wire::{
    self, Capabilities, Code, GracefulRestart, LongLived, Message, MessageKind, Notification, Open, cease, open_error,
};
use crate::{Families, rib};

/// The longest rest after failures that come again and again.
const LONGEST_REST: Duration = Duration::from_secs(120);

/// A session that lasted so long was no failure.
const GOOD_WHILE: Duration = Duration::from_secs(60);

/// The same failure is told again after so long.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// Different failures are told in that time at most.
const MOST_TOLD: usize = 8;

/// The attempts to get a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialer {
    /// Nothing is tried before something changes.
    Stopped,
    /// It rests, and what connects is refused (DampPeerOscillations, RFC 4271 §8.1.1).
    Idle { until: Instant },
    /// This attempt is under way, until ConnectRetryTimer runs out.
    Connect { connection: ConnectionId, give_up: Instant },
    /// It waits for the neighbour, and until the next attempt.
    Active { retry: Option<Instant> },
    /// There is a connection; no other is wanted.
    Content,
}

impl Dialer {
    const fn state(self) -> State {
        match self {
            Self::Stopped | Self::Idle { .. } | Self::Content => State::Idle,
            Self::Connect { .. } => State::Connect,
            Self::Active { .. } => State::Active,
        }
    }
}

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// We say why, and close it.
    Said(Notification),
    /// We close it without a word.
    Silent,
    /// It is closed already: the neighbour said why, or did not.
    Closed { was_told: bool },
}

/// A neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NeighborId,
    pub(super) neighbor: Neighbor,
    pub(super) is_reachable: bool,
    pub(super) is_draining: bool,
    /// Until when it is left alone after it announced too many prefixes; `FAR_FUTURE`: until it is reset.
    pub(super) held_until: Option<Instant>,
    /// Whether the whole speaker is shut down.
    pub(super) is_stopped: bool,
    dialer: Dialer,
    /// At most one is established, and of each direction at most one waits for an OPEN.
    pub(super) connections: Vec<Connection>,
    pub(super) restart: Restart,
    /// Families that were disabled in this session (RFC 7606 §2).
    pub(super) disabled: Families,
    /// Families whose End-of-RIB has come in this session.
    pub(super) heard_end: Families,
    /// Families whose End-of-RIB is to be sent, and those whose refresh has an end to be sent.
    pub(super) owes_end: Families,
    pub(super) owes_refresh_end: Families,
    /// The neighbour does not know optional parameters (RFC 5492 §3).
    is_ancient: bool,
    /// In a row.
    failures: u32,
    state: State,
    since: Instant,
    pub(super) established_at: Option<Instant>,
    pub(super) established_count: u64,
    pub(super) flaps: u64,
    pub(super) received: MessageCounts,
    pub(super) sent: MessageCounts,
    pub(super) faults: FaultCounts,
    pub(super) last_error: Option<LastError>,
    /// Failures that were told of lately.
    told: Vec<(EventKind, String, Instant)>,
    /// Prefixes that could not be announced in this session.
    pub(super) unsaid: u64,
    /// The deadline under which the speaker keeps it.
    pub(super) indexed: Option<Instant>,
}

impl Peer {
    pub(super) fn new(id: NeighborId, neighbor: Neighbor, now: Instant) -> Self {
        Self {
            id,
            neighbor,
            is_reachable: true,
            is_draining: false,
            held_until: None,
            is_stopped: false,
            dialer: Dialer::Stopped,
            connections: Vec::new(),
            restart: Restart::default(),
            disabled: Families::NONE,
            heard_end: Families::NONE,
            owes_end: Families::NONE,
            owes_refresh_end: Families::NONE,
            is_ancient: false,
            failures: 0,
            state: State::Idle,
            since: now,
            established_at: None,
            established_count: 0,
            flaps: 0,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
            faults: FaultCounts::default(),
            last_error: None,
            told: Vec::new(),
            unsaid: 0,
            indexed: None,
        }
    }

    /// The furthest state of its connections, or that of the attempts to get one.
    pub(super) fn state(&self) -> State {
        self.connections.iter().map(Connection::state).fold(self.dialer.state(), State::max)
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// The established connection.
    pub(super) fn established(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.established().is_some())
    }

    pub(super) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// Why nothing may be tried.
    pub(super) const fn held_by(&self) -> Option<&'static str> {
        if self.is_stopped {
            Some("the speaker is shut down")
        } else if self.neighbor.shut_down.is_some() {
            Some("it was taken down by command")
        } else if !self.is_reachable {
            Some("its tunnel is down")
        } else if self.held_until.is_some() {
            Some("it announced more prefixes than it may")
        } else {
            None
        }
    }

    /// Begins at once, or stops, as it may; what runs goes on.
    pub(super) fn start(&mut self, now: Instant) {
        if self.held_by().is_some() {
            self.dialer = Dialer::Stopped;
        } else if self.dialer == Dialer::Stopped {
            self.dialer = Dialer::Idle { until: now };
        }
    }

    /// The configured timers have changed.
    pub(super) fn retime(&mut self, turn: &Turn<'_>) {
        let keepalive = self.neighbor.timers.keepalive;
        for connection in &mut self.connections {
            connection.retime(keepalive);
        }
        if let Dialer::Active { retry } = self.dialer {
            let latest = turn.now + self.connect_retry();
            let retry = retry.map_or(latest, |retry| retry.min(latest));
            self.dialer = Dialer::Active { retry: Some(retry).filter(|_| !self.neighbor.passive) };
        }
    }

    /// After every input.
    pub(super) fn settle(&mut self, now: Instant) {
        let state = self.state();
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let at = |at, why| Some(Deadline { at, why });
        let dialer = match self.dialer {
            Dialer::Stopped | Dialer::Content => None,
            Dialer::Idle { until } => at(until, "rest before the next attempt"),
            Dialer::Connect { give_up, .. } => at(give_up, "TCP connection"),
            Dialer::Active { retry } => retry.and_then(|retry| at(retry, "connect retry")),
        };
        let held = self.held_until.filter(|until| *until < Instant::FAR_FUTURE);
        let held = held.and_then(|until| at(until, "pause after too many prefixes"));
        let first = Deadline::earliest(Deadline::earliest(dialer, held), self.restart.deadline());
        self.connections.iter().map(Connection::deadline).fold(first, Deadline::earliest)
    }

    /// Does what is due.
    pub(super) fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.held_until.is_some_and(|until| until <= now) {
            self.held_until = None;
            self.start(now);
        }
        match self.dialer {
            Dialer::Idle { until } if until <= now => self.act_on_dialer(Event::Start, turn),
            Dialer::Connect { give_up, .. } if give_up <= now => self.act_on_dialer(Event::RetryDue, turn),
            Dialer::Active { retry: Some(retry) } if retry <= now => self.act_on_dialer(Event::RetryDue, turn),
            Dialer::Stopped | Dialer::Idle { .. } | Dialer::Connect { .. } | Dialer::Active { .. } => {}
            Dialer::Content => {}
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            let Some(connection) = self.connection_mut(id) else { continue };
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_due(connection.hold_due) {
                self.act(id, Event::HoldExpired, &[], turn);
            } else if is_due(connection.send_hold_due()) {
                let notification = Notification::new(Code::SEND_HOLD_TIMER, 0, &[]);
                self.fail(id, notification, "it has not read what we sent for minutes", turn);
            } else if is_due(connection.keepalive_due) {
                self.act(id, Event::KeepaliveDue, &[], turn);
            }
        }
        self.wake_restart(turn);
    }

    fn act_on_dialer(&mut self, event: Event, turn: &mut Turn<'_>) {
        match react(self.dialer.state(), event) {
            Action::Dial => self.dial(turn),
            Action::Redial => {
                if let Dialer::Connect { connection, .. } = self.dialer {
                    turn.close(connection);
                }
                let hint = if self.neighbor.password.is_some() {
                    "see whether it runs BGP, is reachable, and has the same password"
                } else {
                    "see whether it runs BGP, is reachable, and wants a password"
                };
                self.tell_failure(
                    EventKind::ConnectFailed,
                    format!("it does not answer at TCP port {}: {hint}", self.neighbor.port),
                    turn,
                );
                self.dial(turn);
            }
            Action::Wait => self.wait(turn),
            Action::Ignore
            | Action::Refuse
            | Action::SendOpen
            | Action::CheckOpen
            | Action::Establish
            | Action::Hear
            | Action::Take
            | Action::SendKeepalive
            | Action::Cease
            | Action::ExpireHold
            | Action::Unexpected(_)
            | Action::Answer
            | Action::Drop => {}
        }
    }

    fn dial(&mut self, turn: &mut Turn<'_>) {
        if self.neighbor.passive {
            self.dialer = Dialer::Active { retry: None };
            return;
        }
        let give_up = turn.now + turn.jittered(self.connect_retry());
        let connection = turn.new_connection(self.id);
        self.dialer = Dialer::Connect { connection, give_up };
        turn.outputs.push_back(Output::Connect {
            connection,
            neighbor: self.id,
            local: self.neighbor.local,
            remote: SocketAddr::new(self.neighbor.remote, self.neighbor.port),
            password: self.neighbor.password.clone(),
            ttl: self.neighbor.ttl,
        });
    }

    /// Waits for the neighbour, and for the next attempt.
    fn wait(&mut self, turn: &mut Turn<'_>) {
        let retry = turn.now + turn.jittered(self.connect_retry());
        self.dialer = Dialer::Active { retry: Some(retry).filter(|_| !self.neighbor.passive) };
    }

    fn connect_retry(&self) -> Duration {
        self.neighbor.timers.connect_retry.clamp(Duration::from_secs(1), Duration::from_secs(3600))
    }

    /// Our attempt succeeded.
    pub(super) fn connected(&mut self, id: ConnectionId, local: SocketAddr, remote: SocketAddr, turn: &mut Turn<'_>) {
        let is_ours = matches!(self.dialer, Dialer::Connect { connection, .. } if connection == id);
        if is_ours && react(self.dialer.state(), Event::Connected) == Action::SendOpen {
            self.dialer = Dialer::Content;
            self.open(id, Direction::Outgoing, (local, remote), turn);
        } else {
            turn.close(id);
        }
    }

    /// Our attempt failed.
    pub(super) fn connect_failed(&mut self, id: ConnectionId, why: &str, turn: &mut Turn<'_>) {
        turn.forget(id);
        if matches!(self.dialer, Dialer::Connect { connection, .. } if connection == id) {
            let port = self.neighbor.port;
            self.tell_failure(EventKind::ConnectFailed, format!("no connection to its TCP port {port}: {why}"), turn);
            self.act_on_dialer(Event::Closed, turn);
        }
    }

    /// The neighbour connected.
    pub(super) fn accepted(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        turn: &mut Turn<'_>,
    ) -> Option<ConnectionId> {
        if let Some(expected) = self.neighbor.local.filter(|expected| *expected != local.ip()) {
            let found = local.ip();
            let sentence = format!(
                "it connected to our address {found}, and {expected} was expected: set local-address to {found}, or \
                 make the neighbour connect to {expected}"
            );
            self.tell_failure(EventKind::Refused, sentence, turn);
            return None;
        }
        if react(self.state(), Event::Accepted) != Action::SendOpen {
            return None;
        }
        // One that has not said anything yet is given up for the newer one: it may be all that is left of it.
        let silent = |c: &&Connection| c.direction == Direction::Incoming && matches!(c.phase, Phase::OpenSent(_));
        if let Some(silent) = self.connections.iter().find(silent).map(|connection| connection.id) {
            self.end(silent, Ending::Said(cease::of(cease::COLLISION)), None, turn);
        }
        let id = turn.new_connection(self.id);
        self.open(id, Direction::Incoming, (local, remote), turn);
        Some(id)
    }

    /// Sends OPEN.
    fn open(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        (local, remote): (SocketAddr, SocketAddr),
        turn: &mut Turn<'_>,
    ) {
        let open = self.our_open(turn);
        let mut bytes = Vec::new();
        open.write(&mut bytes);
        self.connections.push(Connection::new(id, direction, local, remote, open, turn.now));
        self.send(id, MessageKind::Open, bytes, turn);
    }

    fn our_open(&self, turn: &Turn<'_>) -> Open {
        let (neighbor, families) = (&self.neighbor, self.neighbor.families);
        // RFC 4724 §3: without families it says only that we know what to do when the neighbour restarts.
        let comes_back = !turn.options.restart_time.is_zero();
        let graceful_restart = neighbor.graceful_restart.then_some(GracefulRestart {
            is_restarting: turn.is_restarting,
            restart_time: turn.options.restart_time,
            families: if comes_back { families } else { Families::NONE },
            is_forwarding: if comes_back && turn.is_restarting { families } else { Families::NONE },
        });
        let time = |wanted: bool| Some(neighbor.long_lived).filter(|time| wanted && !time.is_zero());
        let long_lived = LongLived {
            ipv4: time(families.ipv4),
            ipv6: time(families.ipv6),
            is_forwarding: if turn.is_restarting { families } else { Families::NONE },
        };
        let capabilities = Capabilities {
            families: Some(families),
            route_refresh: true,
            enhanced_refresh: true,
            four_octet_as: true,
            graceful_restart,
            long_lived: Some(long_lived).filter(|_| neighbor.graceful_restart && !neighbor.long_lived.is_zero()),
            others: Vec::new(),
        };
        Open {
            asn: neighbor.our_as(turn.options),
            hold_time: neighbor.hold_seconds(),
            router_id: turn.options.router_id,
            capabilities: if self.is_ancient { Capabilities::default() } else { capabilities },
        }
    }

    /// Octets arrived.
    pub(super) fn bytes(&mut self, id: ConnectionId, bytes: &[u8], turn: &mut Turn<'_>) {
        let Some(connection) = self.connection_mut(id) else { return };
        let mut buffer = std::mem::take(&mut connection.buffer);
        let mut stream = if buffer.is_empty() {
            bytes
        } else {
            buffer.extend_from_slice(bytes);
            &buffer
        };
        loop {
            match wire::split(stream) {
                Ok(None) => break,
                Ok(Some((message, rest))) => {
                    stream = rest;
                    self.received.count(message.kind, 1);
                    self.message(id, message, turn);
                    if self.connection_mut(id).is_none() {
                        return;
                    }
                }
                Err(notification) => return self.malformed(id, notification, turn),
            }
        }
        // Less than a message.
        let rest = stream.to_vec();
        if let Some(connection) = self.connection_mut(id) {
            connection.buffer = rest;
        }
    }

    /// It is no message that a session could go on after.
    fn malformed(&mut self, id: ConnectionId, notification: Notification, turn: &mut Turn<'_>) {
        let Some(state) = self.connection_mut(id).map(|connection| connection.state()) else { return };
        if react(state, Event::Malformed) == Action::Answer {
            let sentence = format!("what it sent is no BGP: {notification}");
            self.fail(id, notification, &sentence, turn);
        }
    }

    fn message(&mut self, id: ConnectionId, message: Message<'_>, turn: &mut Turn<'_>) {
        self.act(id, Event::Message(message.kind), message.body, turn);
    }

    /// Does what an event means for a connection.
    fn act(&mut self, id: ConnectionId, event: Event, body: &[u8], turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(connection) = self.connection_mut(id) else { return };
        match react(connection.state(), event) {
            Action::CheckOpen => self.check_open(id, body, turn),
            Action::Establish => self.establish(id, turn),
            Action::Hear => connection.hear(now),
            Action::Take => {
                connection.hear(now);
                if event == Event::Message(MessageKind::RouteRefresh) {
                    self.take_refresh(id, body, turn);
                } else {
                    self.take_update(id, body, turn);
                }
            }
            Action::SendKeepalive => self.send_keepalive(id, turn),
            Action::ExpireHold => {
                let sentence = match connection.agreement() {
                    Some(agreement) => {
                        format!("it was not heard for the hold time of {} s", agreement.hold_time.as_secs())
                    }
                    None => "it connected and never sent an OPEN".to_owned(),
                };
                self.fail(id, Notification::new(Code::HOLD_TIMER, 0, &[]), &sentence, turn);
            }
            Action::Unexpected(subcode) => {
                let Event::Message(kind) = event else { return };
                let state = connection.state().name();
                let notification = Notification::new(Code::STATE_MACHINE, subcode, &[kind.number()]);
                self.fail(id, notification, &format!("it sent {} in state {state}", kind.name()), turn);
            }
            Action::Drop => self.notified(id, body, turn),
            Action::Cease | Action::Wait => self.end(id, Ending::Silent, None, turn),
            Action::Ignore | Action::Dial | Action::Redial | Action::Refuse | Action::SendOpen | Action::Answer => {}
        }
    }

    fn check_open(&mut self, id: ConnectionId, body: &[u8], turn: &mut Turn<'_>) {
        let theirs = match Open::decode(body) {
            Ok(theirs) => theirs,
            Err(notification) => {
                let sentence = format!("its OPEN cannot be read: {notification}");
                return self.refuse(id, notification, &sentence, turn);
            }
        };
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
        let Phase::OpenSent(ours) = &connection.phase else { return };
        let expected = Expectation {
            ours,
            remote_as: self.neighbor.remote_as,
            // Without capabilities it is IPv4 unicast alone (RFC 4760 §8).
            families: ours.capabilities.families_or_default(),
            keepalive: self.neighbor.timers.keepalive,
        };
        let agreement = match check(&theirs, &expected) {
            Ok(agreement) => agreement,
            Err(refusal) => return self.refuse(id, refusal.notification, &refusal.sentence, turn),
        };
        let (us, them, this) = ((ours.router_id, ours.asn), (theirs.router_id, theirs.asn), connection.direction);
        let others: Vec<ConnectionId> = self.connections.iter().map(|other| other.id).filter(|o| *o != id).collect();
        for other in others {
            let Some(rival) = self.connection_mut(other).map(|other| Rival {
                direction: other.direction,
                state: other.state(),
                is_graceful: other.established().is_some_and(|agreement| agreement.graceful_restart.is_some()),
            }) else {
                continue;
            };
            match resolve(us, them, this, rival) {
                Verdict::Both => {}
                Verdict::OtherGoes => self.end(other, Ending::Said(cease::of(cease::COLLISION)), None, turn),
                Verdict::OtherIsStale => {
                    let why = "it has connected anew: it has restarted";
                    self.end(other, Ending::Silent, Some(why), turn);
                }
                Verdict::ThisGoes => return self.end(id, Ending::Said(cease::of(cease::COLLISION)), None, turn),
            }
        }
        // No second connection is wanted any more.
        if let Dialer::Connect { connection, .. } = self.dialer {
            turn.close(connection);
        }
        self.dialer = Dialer::Content;
        let now = turn.now;
        if let Some(connection) = self.connection_mut(id) {
            connection.phase = Phase::OpenConfirm(Box::new(agreement));
            connection.hear(now);
        }
        self.send_keepalive(id, turn);
    }

    fn establish(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.hear(now);
        let Phase::OpenConfirm(agreement) = &connection.phase else { return };
        let agreement = agreement.clone();
        connection.phase = Phase::Established(agreement.clone());
        let session = rib::Session {
            router_id: agreement.router_id,
            families: agreement.families,
            long_lived: agreement.long_lived.is_some(),
        };
        turn.rib.peer_up(self.id, session);
        self.established_at = Some(now);
        self.established_count += 1;
        self.disabled = Families::NONE;
        self.heard_end = Families::NONE;
        self.owes_refresh_end = Families::NONE;
        // RFC 4724 §2: whoever speaks of restarts waits for it. To others it is an UPDATE about nothing.
        self.owes_end =
            if agreement.capabilities.graceful_restart.is_some() { agreement.families } else { Families::NONE };
        self.told.clear();
        self.unsaid = 0;
        self.restart_established(&agreement, turn);
        let sentence = format!(
            "the session is established: AS {}, BGP identifier {}, hold time {} s",
            agreement.asn,
            agreement.router_id,
            agreement.hold_time.as_secs()
        );
        self.tell(EventKind::Up, &sentence, turn);
    }

    fn send_keepalive(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let interval = self.connection_mut(id).and_then(|connection| connection.agreement().map(|a| a.keepalive));
        let interval = interval.filter(|interval| !interval.is_zero()).map(|interval| turn.jittered(interval));
        let due = interval.map(|interval| turn.now + interval);
        if let Some(connection) = self.connection_mut(id) {
            connection.keepalive_due = due;
        }
        let mut bytes = Vec::with_capacity(wire::HEADER);
        wire::write_keepalive(&mut bytes);
        self.send(id, MessageKind::Keepalive, bytes, turn);
    }

    pub(super) fn send(&mut self, id: ConnectionId, kind: MessageKind, bytes: Vec<u8>, turn: &mut Turn<'_>) {
        self.sent.count(kind, 1);
        turn.outputs.push_back(Output::Send { connection: id, bytes });
    }

    /// The neighbour sent NOTIFICATION.
    fn notified(&mut self, id: ConnectionId, body: &[u8], turn: &mut Turn<'_>) {
        let Some(notification) = Notification::decode(body) else { return };
        // RFC 5492 §3: it does not know optional parameters; next time there are none, or they are back.
        if notification.code == Code::OPEN && notification.subcode == open_error::OPTIONAL_PARAMETER {
            self.is_ancient = !self.is_ancient;
        }
        let sentence = format!("it ended the session: {notification}{}", self.hint(&notification, turn));
        if notification.code == Code::OPEN {
            self.tell_failure(EventKind::Refused, sentence.clone(), turn);
        }
        let is_collision = notification.code == Code::CEASE && notification.subcode == cease::COLLISION;
        if !is_collision {
            self.count_failure(turn.now);
        }
        let was_established = self.connection_mut(id).is_some_and(|c| c.established().is_some());
        let why = if was_established || !is_collision { Some(sentence.as_str()) } else { None };
        self.end(id, Ending::Closed { was_told: true }, why, turn);
    }

    /// What to change so that the neighbour does not say this again.
    fn hint(&self, notification: &Notification, turn: &Turn<'_>) -> String {
        let us = self.neighbor.our_as(turn.options);
        match (notification.code, notification.subcode) {
            (Code::OPEN, open_error::BAD_PEER_AS) => {
                format!("; our AS towards it is {us}: set its remote-as to {us}, or local-as here to what it expects")
            }
            (Code::OPEN, open_error::BAD_ROUTER_ID) => {
                format!("; our router-id is {}: set another", turn.options.router_id)
            }
            (Code::OPEN, open_error::HOLD_TIME) => {
                format!("; our hold time is {} s: set a longer one", self.neighbor.hold_seconds())
            }
            (Code::OPEN, open_error::CAPABILITY) => "; change the families of one of the two".to_owned(),
            (Code::CEASE, cease::MAX_PREFIXES) => {
                "; we announce more prefixes than it takes: announce fewer, or raise its limit".to_owned()
            }
            (Code::CEASE, cease::PEER_DECONFIGURED) => "; it was told to forget us".to_owned(),
            (Code::CEASE, cease::CONNECTION_REJECTED) => "; see whether it is configured for our address".to_owned(),
            _ => String::new(),
        }
    }

    /// The connection was closed by the neighbour, or broke.
    pub(super) fn closed(&mut self, id: ConnectionId, why: &str, turn: &mut Turn<'_>) {
        if matches!(self.dialer, Dialer::Connect { connection, .. } if connection == id) {
            return self.connect_failed(id, why, turn);
        }
        let Some(connection) = self.connection_mut(id) else { return turn.forget(id) };
        let action = react(connection.state(), Event::Closed);
        if action == Action::Wait {
            // It may be that it has no configuration for us, or wants another key or TTL.
            let sentence = format!("it closed the connection before it sent an OPEN: {why}");
            self.tell_failure(EventKind::ConnectFailed, sentence, turn);
        }
        let sentence = format!("the connection is gone: {why}");
        self.end(id, Ending::Closed { was_told: false }, Some(&sentence), turn);
    }

    /// Ends a connection whose OPEN is not good.
    fn refuse(&mut self, id: ConnectionId, notification: Notification, sentence: &str, turn: &mut Turn<'_>) {
        let told = format!("{sentence} (answered with {notification})");
        self.tell_failure(EventKind::Refused, told, turn);
        self.fail(id, notification, sentence, turn);
    }

    /// Ends a connection for an error of the neighbour's, and rests.
    pub(super) fn fail(&mut self, id: ConnectionId, notification: Notification, sentence: &str, turn: &mut Turn<'_>) {
        self.count_failure(turn.now);
        self.end(id, Ending::Said(notification), Some(sentence), turn);
    }

    fn count_failure(&mut self, now: Instant) {
        let lasted = self.established_at.is_some_and(|at| now.saturating_since(at) >= GOOD_WHILE);
        self.failures = if lasted { 1 } else { self.failures.saturating_add(1) };
    }

    /// Ends a connection. `why` is noted as an error; without it, it was none.
    pub(super) fn end(&mut self, id: ConnectionId, ending: Ending, why: Option<&str>, turn: &mut Turn<'_>) {
        let Some(place) = self.connections.iter().position(|connection| connection.id == id) else { return };
        let is_answer = matches!(&ending, Ending::Said(notification) if notification.code != Code::CEASE);
        if let Ending::Said(notification) = &ending {
            let mut bytes = Vec::new();
            notification.write(&mut bytes);
            self.send(id, MessageKind::Notification, bytes, turn);
        }
        let connection = self.connections.swap_remove(place);
        match ending {
            // After a NOTIFICATION of its own the neighbour closes, and so do we.
            Ending::Said(_) | Ending::Silent | Ending::Closed { was_told: true } => turn.close(id),
            Ending::Closed { was_told: false } => turn.forget(id),
        }
        if let Some(why) = why {
            self.last_error = Some(LastError { at: turn.now, sentence: why.to_owned() });
        }
        if let Phase::Established(agreement) = &connection.phase {
            self.flaps += 1;
            // RFC 4724 §4.2: only where nobody said anything.
            let may_keep = match &ending {
                Ending::Closed { was_told } => !was_told,
                Ending::Silent => why.is_some() && self.is_reachable,
                Ending::Said(_) => false,
            };
            self.session_lost(agreement, may_keep, turn);
            self.tell(EventKind::Down, &format!("the session is down: {}", why.unwrap_or("it was ended")), turn);
            let lasted = self.established_at.take().is_some_and(|at| turn.now.saturating_since(at) >= GOOD_WHILE);
            if lasted && !is_answer {
                self.failures = 0;
            }
        }
        let is_wanted = |c: &Connection| c.direction == Direction::Outgoing || !matches!(c.phase, Phase::OpenSent(_));
        if (is_answer || self.dialer == Dialer::Content) && !self.connections.iter().any(is_wanted) {
            self.rest(is_answer, turn);
        }
    }

    /// Until the next attempt. After an error of the neighbour's it must not connect either.
    fn rest(&mut self, is_answer: bool, turn: &mut Turn<'_>) {
        if let Dialer::Connect { connection, .. } = self.dialer {
            turn.close(connection);
        }
        if self.held_by().is_some() {
            self.dialer = Dialer::Stopped;
            return;
        }
        let doublings = self.failures.saturating_sub(1).min(5);
        let rest = self.connect_retry() * 2u32.pow(doublings);
        let rest = turn.jittered(rest.min(LONGEST_REST.max(self.connect_retry())));
        let until = turn.now + rest;
        self.dialer = if is_answer {
            Dialer::Idle { until }
        } else {
            Dialer::Active { retry: Some(until).filter(|_| !self.neighbor.passive) }
        };
    }

    /// Ends everything: connections and attempts. What may begin again does so at once with [`Peer::start`].
    pub(super) fn stop(&mut self, ending: &Ending, why: &str, turn: &mut Turn<'_>) {
        if let Dialer::Connect { connection, .. } = self.dialer {
            turn.close(connection);
        }
        self.dialer = Dialer::Stopped;
        while let Some(connection) = self.connections.first() {
            let (id, reaction) = (connection.id, react(connection.state(), Event::Stop));
            let ending = if reaction == Action::Cease { ending.clone() } else { Ending::Silent };
            self.end(id, ending, Some(why), turn);
        }
        self.failures = 0;
    }

    /// Tells what happened.
    pub(super) fn tell(&mut self, kind: EventKind, sentence: &str, turn: &mut Turn<'_>) {
        let sentence = format!("{}: {sentence}", self.title());
        turn.event(Some(self.id), kind, sentence);
    }

    /// Tells of a failure, and not again for a while when it comes again and again.
    pub(super) fn tell_failure(&mut self, kind: EventKind, sentence: String, turn: &mut Turn<'_>) {
        self.tell_failure_of(kind, sentence, "", turn);
    }

    /// The same, with what differs from one time to the next.
    pub(super) fn tell_failure_of(&mut self, kind: EventKind, sentence: String, detail: &str, turn: &mut Turn<'_>) {
        self.last_error = Some(LastError { at: turn.now, sentence: sentence.clone() });
        self.told.retain(|(.., at)| turn.now.saturating_since(*at) < TOLD_FOR);
        let was_told = self.told.iter().any(|(before, said, _)| *before == kind && *said == sentence);
        if was_told || self.told.len() >= MOST_TOLD {
            return;
        }
        let between = if detail.is_empty() { "" } else { "; " };
        self.tell(kind, &format!("{sentence}{between}{detail}"), turn);
        self.told.push((kind, sentence, turn.now));
    }

    /// Its name and address.
    fn title(&self) -> String {
        let (name, remote): (&str, IpAddr) = (&self.neighbor.name, self.neighbor.remote);
        if name.is_empty() || *name == remote.to_string() {
            format!("neighbour {remote}")
        } else {
            format!("neighbour {name} ({remote})")
        }
    }
}
