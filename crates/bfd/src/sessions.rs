//! All sessions of one gateway: demultiplexing, source ports, and one ordered index of deadlines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};

use crate::TTL;
use crate::config::{Addresses, ConfigError, Options, SessionConfig, SessionId};
use crate::export::Exported;
use crate::session::{Session, Turn};
use crate::status::{Discard, Discards, Status};
use crate::wire::{Decoded, Diagnostic, Packet, Payload, State};

/// The source ports that RFC 5881 §4 allows.
const PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A control packet to send: UDP, TTL or hop limit 255, to the neighbor's port 3784.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// For which session.
    pub session: SessionId,
    /// From here. The port is the session's own and stays the same; where it cannot be bound, say so with
    /// [`Sessions::handle_port_taken`].
    pub local: SocketAddr,
    /// To here.
    pub remote: SocketAddr,
    /// The UDP payload.
    pub payload: Payload,
}

/// One thing to do or to tell, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Transmit(Transmit),
    /// Nothing more will be sent from here; its socket may be closed.
    Release {
        /// Whose it was.
        session: SessionId,
        /// The address and port.
        local: SocketAddr,
    },
    /// Tell whoever relies on the session.
    Event(Event),
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub session: SessionId,
    /// What.
    pub kind: EventKind,
}

/// A change that clients should know: to Up, or from Up to anything else. A session that never came up says nothing:
/// it may be that the neighbor does not speak BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Both ends hear each other.
    Up,
    /// No longer.
    Down {
        /// What it was.
        cause: DownCause,
        /// What we tell the neighbor.
        diagnostic: Diagnostic,
        /// What the neighbor told us last.
        remote_diagnostic: Diagnostic,
        /// How long it had been up.
        was_up_for: Duration,
    },
}

/// Why a session left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownCause {
    /// The neighbor was not heard for the detection time.
    DetectionTimeExpired,
    /// The neighbor does not hear us, or has restarted.
    NeighborSignaledDown,
    /// Whoever runs the neighbor took the session down.
    NeighborAdminDown,
    /// We were told to hold it down.
    AdminDown,
    /// We were told that the path is down.
    PathDown,
    /// The session was removed, or moved to other addresses.
    Removed,
}

impl DownCause {
    /// Whether something failed. Otherwise clients should go on as if there were no BFD (RFC 5882 §4.2).
    pub const fn is_failure(self) -> bool {
        match self {
            Self::DetectionTimeExpired | Self::NeighborSignaledDown | Self::PathDown => true,
            Self::NeighborAdminDown | Self::AdminDown | Self::Removed => false,
        }
    }
}

impl fmt::Display for DownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DetectionTimeExpired => "the neighbor was not heard for the detection time",
            Self::NeighborSignaledDown => "the neighbor signaled the session down",
            Self::NeighborAdminDown => "the neighbor took the session down by command",
            Self::AdminDown => "it was taken down by command",
            Self::PathDown => "the path below it is down",
            Self::Removed => "it was removed",
        })
    }
}

/// Every session of one gateway.
///
/// An input costs the logarithm of their number. Nothing is kept for strangers. Each input adds at most four outputs
/// a session that it concerns; the shell drains them before the next input.
#[derive(Debug)]
pub struct Sessions {
    options: Options,
    sessions: BTreeMap<SessionId, Session>,
    by_discriminator: BTreeMap<NonZeroU32, SessionId>,
    by_addresses: BTreeMap<Addresses, SessionId>,
    /// The deadline of each session that has one.
    deadlines: BTreeSet<(Instant, SessionId)>,
    ports: BTreeSet<u16>,
    strangers: Discards,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Sessions {
    /// No session yet.
    pub fn new(options: Options, random: Random) -> Self {
        Self {
            options: Options { session_limit: options.session_limit.min(PORTS.len()) },
            sessions: BTreeMap::new(),
            by_discriminator: BTreeMap::new(),
            by_addresses: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            ports: BTreeSet::new(),
            strangers: Discards::default(),
            random,
            outputs: VecDeque::new(),
        }
    }

    /// Makes a session, or changes one. Other intervals are negotiated while it stays Up (RFC 5880 §6.8.3); with other
    /// addresses it is another session and begins anew.
    ///
    /// # Errors
    /// When the configuration cannot be; then nothing has changed.
    pub fn upsert(&mut self, id: SessionId, config: SessionConfig, now: Instant) -> Result<(), ConfigError> {
        config.check()?;
        let addresses = config.addresses();
        if let Some(other) = self.by_addresses.get(&addresses).filter(|other| **other != id) {
            return Err(ConfigError::AddressesTaken(*other));
        }
        match self.sessions.get(&id) {
            Some(session) if session.addresses() == addresses => {
                self.turn(id, now, |session, _| session.configure(config));
                return Ok(());
            }
            Some(_) => self.remove(id, now),
            None if self.sessions.len() >= self.options.session_limit => {
                return Err(ConfigError::TooMany { limit: self.options.session_limit });
            }
            None => {}
        }
        let (discriminator, port) = (self.free_discriminator(), self.free_port());
        self.add(id, config, (discriminator, port), now);
        self.turn(id, now, |_, _| {});
        Ok(())
    }

    fn add(&mut self, id: SessionId, config: SessionConfig, (discriminator, port): (NonZeroU32, u16), now: Instant) {
        self.by_discriminator.insert(discriminator, id);
        self.by_addresses.insert(config.addresses(), id);
        self.ports.insert(port);
        let mut turn = Turn { now, random: &mut self.random, outputs: &mut self.outputs };
        let session = Session::new(id, config, port, discriminator, &mut turn);
        self.sessions.insert(id, session);
    }

    /// Makes a session that goes on with one of another process; [`EventKind::Up`] is told of it. Where that one does not
    /// fit the configuration, a new one is made, as by [`Self::upsert`].
    ///
    /// # Errors
    /// As [`Self::upsert`].
    pub fn resume(
        &mut self,
        id: SessionId,
        config: SessionConfig,
        exported: &Exported,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let is_free = !self.sessions.contains_key(&id)
            && !self.by_discriminator.contains_key(&exported.discriminator)
            && !self.ports.contains(&exported.port)
            && !self.by_addresses.contains_key(&config.addresses())
            && self.sessions.len() < self.options.session_limit;
        let fits = config.authentication.is_none()
            && PORTS.contains(&exported.port)
            && config.addresses() == SessionConfig::new(exported.local, exported.remote).addresses();
        if !is_free || !fits {
            return self.upsert(id, config, now);
        }
        config.check()?;
        self.add(id, config, (exported.discriminator, exported.port), now);
        self.turn(id, now, |session, turn| session.resume(exported, turn));
        Ok(())
    }

    /// The sessions that are Up, for another process; this one must send nothing more once the other does.
    pub fn export(&self, now: Instant) -> Vec<Exported> {
        self.sessions.values().filter_map(|session| session.export(now)).collect()
    }

    /// Ends a session. The neighbor is told AdminDown, once; if that packet is lost it sees a failure. To be surer,
    /// hold the session down for a while before ([`Self::set_admin_down`]).
    pub fn remove(&mut self, id: SessionId, now: Instant) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        if let Some(deadline) = session.deadline() {
            self.deadlines.remove(&(deadline.at, id));
        }
        self.by_discriminator.remove(&session.discriminator());
        self.by_addresses.remove(&session.addresses());
        self.ports.remove(&session.port());
        session.close(&mut Turn { now, random: &mut self.random, outputs: &mut self.outputs });
    }

    /// Holds a session down for this reason, or with `None` lets it go up again. While held down it sends a packet a
    /// second, so that the neighbor knows. [`Diagnostic::PATH_DOWN`] says that something outside of BFD failed;
    /// otherwise say [`Diagnostic::ADMINISTRATIVELY_DOWN`] (RFC 5880 §6.8.16).
    pub fn set_admin_down(&mut self, id: SessionId, reason: Option<Diagnostic>, now: Instant) {
        self.turn(id, now, |session, turn| session.set_admin_down(reason, turn));
    }

    /// A datagram has arrived on port 3784 of `local` with this TTL or hop limit. With link-local IPv6 addresses,
    /// `remote` has the scope of the interface it came in by.
    ///
    /// Whoever sends our discriminator may do so from any address, as RFC 5880 §6.3 wants it; the TTL says that it is
    /// a neighbor, and authentication, where it is configured, says which.
    ///
    /// # Errors
    /// When it was discarded, with the reason. It is counted: with the session where it has one, else in
    /// [`Self::discards`].
    pub fn handle_packet(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        ttl: u8,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Discard> {
        let (decoded, id) = match self.session_of(local, remote, payload) {
            Ok(found) => found,
            Err(reason) => {
                self.strangers.count(reason);
                return Err(reason);
            }
        };
        let verdict = self.turn(id, now, |session, turn| {
            // RFC 5881 §5, also where packets are authenticated: there it is a MAY.
            let verdict = if ttl == TTL { session.receive(&decoded, turn) } else { Err(Discard::Ttl) };
            verdict.inspect_err(|reason| session.count(*reason))
        });
        verdict.unwrap_or(Err(Discard::UnknownDiscriminator))
    }

    /// Decodes, and finds the session (RFC 5880 §6.8.6 up to "A bit").
    fn session_of<'a>(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &'a [u8],
    ) -> Result<(Decoded<'a>, SessionId), Discard> {
        let decoded = Packet::decode(payload)?;
        let id = match (decoded.packet.your_discriminator, decoded.packet.state) {
            (Some(ours), _) => self.by_discriminator.get(&ours).ok_or(Discard::UnknownDiscriminator)?,
            (None, State::Down | State::AdminDown) => {
                let addresses = Addresses::of_datagram(local, remote);
                self.by_addresses.get(&addresses).ok_or(Discard::UnknownAddresses)?
            }
            (None, State::Init | State::Up) => return Err(Discard::MissingDiscriminator),
        };
        Ok((decoded, *id))
    }

    /// The source port of this session's last `Transmit` belongs to somebody else on this host: it sends again from
    /// another one.
    pub fn handle_port_taken(&mut self, id: SessionId, now: Instant) {
        let Some(old) = self.sessions.get(&id).map(Session::port) else { return };
        let port = self.free_port();
        if self.ports.insert(port) {
            self.ports.remove(&old);
            self.turn(id, now, |session, _| session.move_to(port));
        }
    }

    /// What is known of a session.
    pub fn status(&self, id: SessionId) -> Option<Status> {
        self.sessions.get(&id).map(Session::status)
    }

    /// What is known of each session, by their ids.
    pub fn statuses(&self) -> impl Iterator<Item = Status> + '_ {
        self.sessions.values().map(Session::status)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What was discarded before it was known whose it was.
    pub fn discards(&self) -> Discards {
        self.strangers
    }

    /// Lets a session act, and keeps the index of deadlines right.
    fn turn<R>(
        &mut self,
        id: SessionId,
        now: Instant,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let session = self.sessions.get_mut(&id)?;
        let mut turn = Turn { now, random: &mut self.random, outputs: &mut self.outputs };
        let before = session.deadline();
        let result = act(session, &mut turn);
        session.settle(&mut turn);
        let after = session.deadline();
        if before.map(|deadline| deadline.at) != after.map(|deadline| deadline.at) {
            before.map(|deadline| self.deadlines.remove(&(deadline.at, id)));
            after.map(|deadline| self.deadlines.insert((deadline.at, id)));
        }
        Some(result)
    }

    /// A discriminator that nobody can guess (RFC 5880 §6.8.1) and no session has.
    fn free_discriminator(&mut self) -> NonZeroU32 {
        loop {
            let candidate = NonZeroU32::new(self.random.next_u32());
            if let Some(free) = candidate.filter(|candidate| !self.by_discriminator.contains_key(candidate)) {
                return free;
            }
        }
    }

    /// The first port from a random one on that no session has; the random one if there is none.
    fn free_port(&mut self) -> u16 {
        let count = PORTS.len() as u64;
        let first = self.random.below(count);
        let port = |nth: u64| PORTS.start() + (nth % count) as u16;
        (first..first + count).map(port).find(|port| !self.ports.contains(port)).unwrap_or(port(first))
    }
}

impl Machine for Sessions {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            if self.turn(id, now, Session::wake).is_none() {
                self.deadlines.remove(&(at, id));
            }
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (_, id) = self.deadlines.first()?;
        self.sessions.get(id).and_then(Session::deadline)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
