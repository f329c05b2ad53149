//! The endpoint: all IKE SAs of a gateway behind one ordered queue of outputs.
//!
//! It sorts datagrams to sessions by SPI, bounds what strangers can make it keep, and decides which
//! IKE SA of a peer lives on: it initiates what is wanted, tries again what failed, and settles
//! duplicates. What happens within one IKE SA is the session's affair.

mod export;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use model::{Connection, Identity, Start, Tries, Uniqueness, Version};
use sa::{SaChange, SaId};

use crate::context::{Again, Context, Ends, Numbers, Signal};
use crate::event::{CloseReason, Counters, DropReason, Event, Output, PeerCounters, Rekey, Trouble};
use crate::peer::{Options, Peer, PeerId, Peers};
use crate::probe::{CannotProbe, Probe};
use crate::session::{IkeSaView, IkeState, Session, jittered};
use crate::wire::header::Header;
use crate::{natt, v1, v2};

/// Time after which one of two IKE SAs with the same peer goes. Both ends often begin at once; the wait lets a
/// peer with other rules make its choice first, so that not each end deletes what the other keeps.
const DUPLICATE_GRACE: Duration = Duration::from_secs(3);

/// IKE SAs that came up within this time were begun by both ends at once.
const SAME_TIME: Duration = Duration::from_secs(10);

/// Names a session within the endpoint; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key(u64);

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Session(Key),
    Retry(PeerId),
    Duplicates(PeerId),
}

/// All IKE SAs of a gateway.
#[derive(Debug)]
pub struct Endpoint {
    core: Core,
    wanted: BTreeMap<PeerId, Wanted>,
    sessions: BTreeMap<Key, Slot>,
    last_key: u64,
    by_spi: HashMap<u64, Key>,
    /// First messages by the initiator's SPI and address, so that one that comes again finds its session.
    by_first_message: HashMap<(u64, SocketAddr), Key>,
    by_child: HashMap<SaId, Key>,
    by_peer: BTreeMap<PeerId, BTreeSet<Key>>,
    /// Sessions that came up, by who the peer proved to be: one connection may take thousands of strangers.
    by_identity: BTreeMap<(PeerId, Arc<Identity>), Vec<Key>>,
    /// Sessions that a stranger began and has not proved itself in, oldest first.
    half_open: BTreeSet<Key>,
    deadlines: BTreeSet<(Instant, Due)>,
    pending: VecDeque<(Key, Signal)>,
    /// Peers with whom something changed since [`Endpoint::take_changed`].
    changed: BTreeSet<PeerId>,
}

/// What the sessions share.
#[derive(Debug)]
struct Core {
    options: Options,
    peers: Peers,
    random: Random,
    numbers: Numbers,
    counters: Counters,
    cookies: v2::Cookies,
    outputs: VecDeque<Output>,
    signals: Vec<Signal>,
}

impl Core {
    fn context(&mut self, half_open: usize, first_contact: bool, now: Instant) -> Context<'_> {
        Context {
            now,
            options: &self.options,
            peers: &self.peers,
            random: &mut self.random,
            numbers: &mut self.numbers,
            counters: &mut self.counters,
            cookies: &mut self.cookies,
            half_open,
            first_contact,
            outputs: &mut self.outputs,
            signals: &mut self.signals,
        }
    }
}

/// A session and what the endpoint remembers of it.
#[derive(Debug)]
struct Slot {
    session: Session,
    deadline: Option<Deadline>,
    first_message: Option<(u64, SocketAddr)>,
    began_at: Instant,
    local_spi: u64,
    /// The peer that it serves; none while that is not known, or when it only lives until it is deleted.
    peer: Option<PeerId>,
    /// Who that peer proved to be.
    identity: Option<Arc<Identity>>,
    is_redundant: bool,
}

/// What is wanted of a peer, and what it took.
#[derive(Debug, Default)]
struct Wanted {
    /// Children that shall be up.
    children: BTreeSet<Arc<str>>,
    /// Failed tries since the last success.
    failures: u32,
    retry_at: Option<Instant>,
    settle_at: Option<Instant>,
    counters: PeerCounters,
}

impl Endpoint {
    /// An endpoint without peers. All its randomness comes from `random`.
    pub fn new(options: Options, random: Random) -> Self {
        let core = Core {
            options,
            peers: Peers::default(),
            random,
            numbers: Numbers::default(),
            counters: Counters::default(),
            cookies: v2::Cookies::default(),
            outputs: VecDeque::new(),
            signals: Vec::new(),
        };
        Self {
            core,
            wanted: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_key: 0,
            by_spi: HashMap::new(),
            by_first_message: HashMap::new(),
            by_child: HashMap::new(),
            by_peer: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            half_open: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            pending: VecDeque::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Adds a peer, or changes its connection: SAs that are up stay, and what is negotiated from now on follows the
    /// new connection.
    pub fn upsert_peer(&mut self, id: PeerId, connection: Arc<Connection>, _now: Instant) {
        let (local, remote) = self.core.peers.get(id).map_or((None, None), |peer| (peer.local, peer.remote));
        self.core.peers.insert(Peer { id, connection, local, remote });
        self.wanted.entry(id).or_default();
    }

    /// Says which addresses the shell found for a peer: ours towards it, and its own where the configuration has a
    /// name. A connection that was waiting for them begins.
    pub fn set_addresses(&mut self, id: PeerId, local: Option<IpAddr>, remote: Option<IpAddr>, now: Instant) {
        let Some(peer) = self.core.peers.get_mut(id) else { return };
        (peer.local, peer.remote) = (local, remote);
        if self.live_session(id).is_none() && self.wanted.get(&id).is_some_and(|w| w.retry_at.is_none()) {
            self.begin(id, now);
        }
    }

    /// Forgets a peer and takes down what it has.
    pub fn remove_peer(&mut self, id: PeerId, now: Instant) {
        self.stop_wanting(id, None);
        for key in self.sessions_of(id) {
            self.with(key, now, |session, ctx| session.close(CloseReason::Reconfigured, ctx));
        }
        self.forget_deadlines(id);
        self.wanted.remove(&id);
        self.core.peers.remove(id);
    }

    /// Brings up a child of the peer's connection, or all of them, and keeps them up.
    pub fn initiate(&mut self, id: PeerId, child: Option<&str>, now: Instant) {
        let (Some(peer), Some(wanted)) = (self.core.peers.get(id), self.wanted.get_mut(&id)) else { return };
        let children = peer.connection.children.iter().map(|c| c.name.as_str());
        wanted.children.extend(children.filter(|name| child.is_none_or(|c| c == *name)).map(Arc::from));
        wanted.failures = 0;
        self.set_retry(id, None);
        self.begin(id, now);
    }

    /// Takes down a child of the peer's connection, or the whole of it, until somebody wants it again.
    pub fn terminate(&mut self, id: PeerId, child: Option<&str>, now: Instant) {
        self.stop_wanting(id, child);
        for key in self.sessions_of(id) {
            self.with(key, now, |session, ctx| match child {
                Some(child) => session.close_child(child, CloseReason::Command, ctx),
                None => session.close(CloseReason::Command, ctx),
            });
        }
    }

    /// Asks the peer to send the packets of a child another way, or takes that back. [`Event::DrainHeard`] tells whether it
    /// has understood; `false`: it cannot be asked.
    pub fn drain(&mut self, id: PeerId, child: &Arc<str>, is_drained: bool, now: Instant) -> bool {
        let mut is_asked = false;
        if let Some(key) = self.established_session(id) {
            self.with(key, now, |session, ctx| is_asked = session.drain(child, is_drained, ctx));
        }
        is_asked
    }

    /// Rekeys what the peer has.
    pub fn rekey(&mut self, id: PeerId, what: Rekey, now: Instant) {
        if let Some(key) = self.established_session(id) {
            self.with(key, now, |session, ctx| session.rekey(what, ctx));
        }
    }

    /// A UDP datagram came in; `payload` is all of it, with the non-ESP marker where the ports are those of NAT
    /// traversal. ESP does not belong here.
    pub fn handle_datagram(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8], now: Instant) {
        let message = if local.port() == self.core.options.ports.natt {
            let Some(message) = natt::strip_marker(payload) else { return };
            message
        } else {
            payload
        };
        self.core.counters.received += 1;
        let header = match Header::decode(message) {
            Ok(header) => header,
            Err(_) => return self.core.counters.drop(DropReason::Malformed),
        };
        let ends = Ends { local, remote };
        match (self.session_for(&header, remote), header.responder_spi, header.major) {
            (Some(key), _, 1 | 2) => {
                self.with(key, now, |session, ctx| session.handle_message(ends, &header, message, ctx));
            }
            (None, 0, 1 | 2) => self.respond(ends, &header, message, now),
            (None, _, 1 | 2) => self.core.counters.drop(DropReason::UnknownSpi),
            (_, _, 3..) => {
                self.core.counters.drop(DropReason::UnknownVersion);
                v2::refuse_version(ends, &header, &mut self.core.context(self.half_open.len(), false, now));
            }
            (_, _, 0) => self.core.counters.drop(DropReason::UnknownVersion),
        }
    }

    /// An authentic packet came in on this SA: the peer was alive at that moment, which may be somewhat in the past.
    pub fn note_alive(&mut self, id: SaId, at: Instant) {
        let Some(key) = self.by_child.get(&id) else { return };
        if let Some(slot) = self.sessions.get_mut(key) {
            slot.session.note_alive(at);
        }
        // The deadline may be too early now, which is harmless; it is set right when it comes.
    }

    /// Probes the path that this SA's packets take. [`Output::Probed`] tells what came of it, whatever that is.
    ///
    /// # Errors
    /// When the peer cannot be asked.
    pub fn probe(&mut self, id: SaId, probe: Probe, now: Instant) -> Result<(), CannotProbe> {
        let mut result = Err(CannotProbe::NoIkeSa);
        self.with_child(id, now, |session, ctx| result = session.probe(probe, ctx));
        result
    }

    /// The first packet came in on this SA: the peer uses it.
    pub fn note_first_inbound(&mut self, id: SaId, now: Instant) {
        self.with_child(id, now, |session, ctx| session.note_first_inbound(id, ctx));
    }

    /// The SA's volume comes to an end.
    pub fn note_soft_limit(&mut self, id: SaId, now: Instant) {
        self.with_child(id, now, |session, ctx| session.rekey_child(id, ctx));
    }

    /// The SA's volume or numbers are used up.
    pub fn note_hard_limit(&mut self, id: SaId, now: Instant) {
        self.with_child(id, now, |session, ctx| session.expire_child(id, ctx));
    }

    /// An authentic packet of this SA came from a new address.
    pub fn note_peer_moved(&mut self, id: SaId, to: SocketAddr, now: Instant) {
        self.with_child(id, now, |session, ctx| session.note_peer_moved(to, ctx));
    }

    /// Every IKE SA, oldest first.
    pub fn sas(&self) -> Vec<IkeSaView> {
        self.sessions.values().map(|slot| slot.session.view()).collect()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// What was counted of one peer since it was added.
    pub fn peer_counters(&self, id: PeerId) -> PeerCounters {
        self.wanted.get(&id).map(|wanted| wanted.counters).unwrap_or_default()
    }

    /// The IKE SAs of one peer, oldest first.
    pub fn sas_of(&self, id: PeerId) -> Vec<IkeSaView> {
        self.by_peer
            .get(&id)
            .into_iter()
            .flatten()
            .filter_map(|key| Some(self.sessions.get(key)?.session.view()))
            .collect()
    }

    /// IKE SAs that strangers began and have not proved themselves in.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// When the next try with this peer is due, after one that failed.
    pub fn retry_at(&self, id: PeerId) -> Option<Instant> {
        self.wanted.get(&id)?.retry_at
    }

    /// The session that a message belongs to, going by its SPIs.
    fn session_for(&self, header: &Header, remote: SocketAddr) -> Option<Key> {
        let fits = |own: u64, other: u64| {
            let key = *self.by_spi.get(&own)?;
            let session = &self.sessions.get(&key)?.session;
            let version = if session.version() == Version::V1 { 1 } else { 2 };
            (version == header.major && [0, other].contains(&session.remote_spi())).then_some(key)
        };
        if header.responder_spi == 0 {
            let ours = fits(header.initiator_spi, 0);
            return ours.or_else(|| self.by_first_message.get(&(header.initiator_spi, remote)).copied());
        }
        fits(header.responder_spi, header.initiator_spi).or_else(|| fits(header.initiator_spi, header.responder_spi))
    }

    /// Lets a session begin for a stranger, within bounds.
    fn respond(&mut self, ends: Ends, header: &Header, message: &[u8], now: Instant) {
        let outputs = self.core.outputs.len();
        let mut ctx = self.core.context(self.half_open.len(), false, now);
        let session = if header.major == 1 {
            v1::Session::respond(ends, header, message, &mut ctx).map(Session::V1)
        } else {
            v2::Session::respond(ends, header, message, &mut ctx).map(Session::V2)
        };
        let Some(session) = session else { return };
        let key = self.insert(session, Some((header.initiator_spi, ends.remote)), now);
        self.half_open.insert(key);
        self.settle(key, outputs, now);
        // A flood from forged sources fills the table with first messages alone. A real peer goes on within a round
        // trip, so the oldest is the one that nobody will miss.
        if self.half_open.len() > self.core.options.half_open_limit
            && let Some(oldest) = self.half_open.pop_first()
        {
            self.core.counters.drop(DropReason::HalfOpenLimit);
            self.remove(oldest);
        }
    }

    /// Begins a session with a peer for whatever is wanted of it, or asks the one that is there.
    fn begin(&mut self, id: PeerId, now: Instant) {
        let (Some(peer), Some(wanted)) = (self.core.peers.get(id), self.wanted.get(&id)) else { return };
        let children: Vec<_> = wanted.children.iter().cloned().collect();
        if children.is_empty() {
            return;
        }
        if let Some(key) = self.live_session(id) {
            return self.with(key, now, |session, ctx| {
                children.iter().for_each(|child| session.initiate_child(child, ctx));
            });
        }
        self.negotiate(&peer.clone(), &children, now);
    }

    /// Begins a new session while another is up. In IKEv1 it takes the children over; in IKEv2 it brings its own.
    fn renew(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.core.peers.get(id).cloned() else { return };
        let children = match peer.connection.versions.initiate() {
            Version::V1 => Vec::new(),
            Version::V2 => peer.connection.children.iter().map(|child| Arc::from(child.name.as_str())).collect(),
        };
        self.negotiate(&peer, &children, now);
    }

    /// Begins a new session with a peer, whatever else it has.
    fn negotiate(&mut self, peer: &Peer, children: &[Arc<str>], now: Instant) {
        let Some((local, remote)) = peer.sockets(self.core.options.ports) else { return };
        let (ends, version, outputs) =
            (Ends { local, remote }, peer.connection.versions.initiate(), self.core.outputs.len());
        let first_contact = self.established_session(peer.id).is_none();
        let mut ctx = self.core.context(self.half_open.len(), first_contact, now);
        let session = match version {
            Version::V1 => Session::V1(v1::Session::initiate(peer, ends, children, &mut ctx)),
            Version::V2 => Session::V2(v2::Session::initiate(peer, ends, children, &mut ctx)),
        };
        let key = self.insert(session, None, now);
        self.settle(key, outputs, now);
    }

    fn insert(&mut self, session: Session, first_message: Option<(u64, SocketAddr)>, now: Instant) -> Key {
        self.last_key += 1;
        let key = Key(self.last_key);
        let (local_spi, peer) = (session.local_spi(), session.peer());
        self.by_spi.insert(local_spi, key);
        if let Some(first) = first_message {
            self.by_first_message.insert(first, key);
        }
        if let Some(peer) = peer {
            self.by_peer.entry(peer).or_default().insert(key);
        }
        self.by_child.extend(session.child_ids().into_iter().map(|id| (id, key)));
        self.sessions.insert(
            key,
            Slot {
                session,
                deadline: None,
                first_message,
                began_at: now,
                local_spi,
                peer,
                identity: None,
                is_redundant: false,
            },
        );
        key
    }

    fn remove(&mut self, key: Key) {
        self.forget_identity(key);
        let Some(slot) = self.sessions.remove(&key) else { return };
        self.by_spi.remove(&slot.local_spi);
        if let Some(first) = slot.first_message {
            self.by_first_message.remove(&first);
        }
        self.changed.extend(slot.session.peer());
        if let Some(keys) = slot.peer.and_then(|peer| self.by_peer.get_mut(&peer)) {
            keys.remove(&key);
        }
        if let Some(deadline) = slot.deadline {
            self.deadlines.remove(&(deadline.at, Due::Session(key)));
        }
        self.half_open.remove(&key);
    }

    fn with_child(&mut self, id: SaId, now: Instant, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        if let Some(key) = self.by_child.get(&id).copied() {
            self.with(key, now, act);
        }
    }

    /// Lets a session act, then does what it asks for.
    fn with(&mut self, key: Key, now: Instant, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let outputs = self.core.outputs.len();
        let peer = self.sessions.get(&key).and_then(|slot| slot.peer);
        let others = peer.and_then(|id| self.by_peer.get(&id)).into_iter().flatten().filter(|other| **other != key);
        let first_contact = peer.is_some() && !others.copied().any(|other| self.is_established(other));
        let Some(slot) = self.sessions.get_mut(&key) else { return };
        let is_phase1 = slot.session.state() == IkeState::Connecting;
        let before = Trouble::of(&self.core.counters);
        act(&mut slot.session, &mut self.core.context(self.half_open.len(), first_contact, now));
        if let Some(wanted) = peer.and_then(|peer| self.wanted.get_mut(&peer)) {
            let counters = &mut wanted.counters;
            let phase = if is_phase1 { &mut counters.phase1 } else { &mut counters.phase2 };
            phase.add(before, Trouble::of(&self.core.counters));
        }
        self.settle(key, outputs, now);
    }

    /// After a session acted: notes what changed about it, and handles its signals. `outputs` is how many there
    /// were before.
    fn settle(&mut self, key: Key, outputs: usize, now: Instant) {
        self.note_children(key, outputs);
        self.refresh(key);
        self.pending.extend(self.core.signals.drain(..).map(|signal| (key, signal)));
        while let Some((key, signal)) = self.pending.pop_front() {
            self.handle_signal(key, signal, now);
        }
    }

    /// Keeps `by_child` true to the changes that were just put out.
    fn note_children(&mut self, key: Key, outputs: usize) {
        for output in self.core.outputs.iter().skip(outputs) {
            match output {
                Output::Sa(SaChange::Install(sa)) => drop(self.by_child.insert(sa.id, key)),
                Output::Sa(SaChange::Remove(id)) => drop(self.by_child.remove(id)),
                Output::Sa(SaChange::Activate(_) | SaChange::Move { .. } | SaChange::Skip { .. })
                | Output::Transmit(_)
                | Output::Event(_)
                | Output::Probed(_) => {}
            }
        }
    }

    /// Keeps the indices true to a session that may have changed.
    fn refresh(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(&key) else { return };
        self.changed.extend(slot.session.peer());
        let deadline = slot.session.poll_timeout();
        if slot.deadline != deadline {
            if let Some(old) = slot.deadline {
                self.deadlines.remove(&(old.at, Due::Session(key)));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new.at, Due::Session(key)));
            }
            slot.deadline = deadline;
        }
        let (old_peer, peer) = (slot.peer, if slot.is_redundant { None } else { slot.session.peer() });
        let is_up = matches!(slot.session.state(), IkeState::Established | IkeState::Rekeying);
        let is_identified = slot.identity.is_some();
        if old_peer != peer {
            self.forget_identity(key);
            self.move_to_peer(key, peer);
        }
        if is_up && (old_peer != peer || !is_identified) {
            self.note_identity(key);
        }
    }

    fn move_to_peer(&mut self, key: Key, peer: Option<PeerId>) {
        let Some(slot) = self.sessions.get_mut(&key) else { return };
        let old_peer = std::mem::replace(&mut slot.peer, peer);
        if let Some(keys) = old_peer.and_then(|peer| self.by_peer.get_mut(&peer)) {
            keys.remove(&key);
        }
        if let Some(peer) = peer {
            self.by_peer.entry(peer).or_default().insert(key);
        }
    }

    fn note_identity(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(&key) else { return };
        let identity = slot.session.view().remote_id.map(Arc::new);
        if let Some(place) = slot.peer.zip(identity.clone()) {
            self.by_identity.entry(place).or_default().push(key);
            slot.identity = identity;
        }
    }

    fn forget_identity(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(&key) else { return };
        let Some(place) = slot.peer.zip(slot.identity.take()) else { return };
        if let Some(keys) = self.by_identity.get_mut(&place) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_identity.remove(&place);
            }
        }
    }

    fn handle_signal(&mut self, key: Key, signal: Signal, now: Instant) {
        match signal {
            Signal::Established { peer, replace_all } => self.handle_established(key, peer, replace_all, now),
            Signal::Successor(session) => {
                let key = self.insert(*session, None, now);
                self.refresh(key);
            }
            Signal::Redundant(session) => {
                let key = self.insert(*session, None, now);
                if let Some(slot) = self.sessions.get_mut(&key) {
                    slot.is_redundant = true;
                }
                self.refresh(key);
            }
            Signal::Renew { peer } => {
                if self.connecting_session(peer).is_none() {
                    self.renew(peer, now);
                }
            }
            Signal::Closed { peer, reason, again } => {
                self.remove(key);
                if let Some(peer) = peer {
                    let again = match reason {
                        CloseReason::PeerDeleted => self.after_delete(peer),
                        // Each end may have closed the one that the other end kept: then none is left.
                        CloseReason::Replaced => Again::Later,
                        CloseReason::Command
                        | CloseReason::Reconfigured
                        | CloseReason::PeerDead
                        | CloseReason::Expired
                        | CloseReason::Failed => again,
                    };
                    self.handle_closed(peer, again, now);
                }
            }
        }
    }

    fn handle_established(&mut self, key: Key, id: PeerId, replace_all: bool, now: Instant) {
        self.half_open.remove(&key);
        if let Some(wanted) = self.wanted.get_mut(&id) {
            wanted.failures = 0;
        }
        self.set_retry(id, None);
        let uniqueness = self.core.peers.get(id).map_or(Uniqueness::Replace, |peer| peer.connection.uniqueness);
        let twins = self.twins(key, id);
        let (forgotten, twins): (Vec<_>, Vec<_>) = twins
            .into_iter()
            .partition(|twin| replace_all && uniqueness != Uniqueness::Never && self.is_older(*twin, key));
        for twin in forgotten {
            self.abandon(twin, id, now);
        }
        if twins.is_empty() {
            return;
        }
        let all: Vec<Key> = twins.into_iter().chain([key]).collect();
        if let Some(winner) = self.winner(&all) {
            for loser in all.into_iter().filter(|loser| *loser != winner) {
                self.move_children(loser, winner, now);
            }
        }
        // In IKEv1 a peer that renews phase 1 has two for a moment, whatever its uniqueness.
        if uniqueness == Uniqueness::Replace || self.version_of(key) == Some(Version::V1) {
            let wait = jittered(DUPLICATE_GRACE, &mut self.core.random);
            self.set_settle(id, Some(now + wait));
        }
    }

    /// What becomes of a connection that the peer took down: it stays down, unless it is to be up always. Then it is
    /// tried again after a while, so that we do not argue with the peer's operator.
    fn after_delete(&self, id: PeerId) -> Again {
        let children = self.core.peers.get(id).map_or(&[][..], |peer| &peer.connection.children);
        if children.iter().any(|child| child.start == Start::AtOnce) { Again::Later } else { Again::OnTraffic }
    }

    /// A session of this peer is gone: another is begun where one is wanted.
    fn handle_closed(&mut self, id: PeerId, again: Again, now: Instant) {
        let Some(peer) = self.core.peers.get(id) else { return };
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        if self.by_peer.get(&id).is_some_and(|keys| !keys.is_empty()) {
            // Another session lives: what is wanted is asked of it.
            if again != Again::No && self.established_session(id).is_some() {
                self.begin(id, now);
            }
            return;
        }
        match again {
            Again::No | Again::OnTraffic => {}
            Again::AtOnce => {
                if wanted.children.is_empty() {
                    wanted.children.extend(peer.connection.children.iter().map(|child| Arc::from(child.name.as_str())));
                }
                self.begin(id, now);
            }
            Again::Later => {
                wanted.failures = wanted.failures.saturating_add(1);
                let is_last = match peer.connection.tries {
                    Tries::Forever => false,
                    Tries::Times(times) => wanted.failures >= times,
                };
                if is_last {
                    wanted.children.clear();
                } else if !wanted.children.is_empty() {
                    let wait = self.core.options.retry * 2u32.pow((wanted.failures - 1).min(4));
                    let wait = jittered(wait, &mut self.core.random);
                    self.set_retry(id, Some(now + wait));
                }
            }
        }
    }

    /// Other established sessions of this peer that proved the same identity.
    fn twins(&self, key: Key, id: PeerId) -> Vec<Key> {
        let identity = self.sessions.get(&key).and_then(|slot| slot.identity.clone());
        let all = identity.and_then(|identity| self.by_identity.get(&(id, identity)));
        let others = all.into_iter().flatten().copied().filter(|other| *other != key);
        others.filter(|other| self.is_established(*other)).collect()
    }

    /// Whether `old` was up before `new` began. INITIAL_CONTACT speaks of such alone: one that came up while the message
    /// that says it was under way is no leftover of the peer's former life.
    fn is_older(&self, old: Key, new: Key) -> bool {
        let up_at = self.sessions.get(&old).and_then(|slot| slot.session.view().established_at);
        let began_at = self.sessions.get(&new).map(|slot| slot.began_at);
        up_at.zip(began_at).is_some_and(|(up, began)| up < began)
    }

    /// In IKEv1 children belong to the peer: a newer phase 1 takes them over. In IKEv2 they stay where they are.
    fn move_children(&mut self, from: Key, to: Key, now: Instant) {
        let mut handover = None;
        self.with(from, now, |session, ctx| {
            if let Session::V1(old) = session {
                handover = Some(old.take_children(ctx));
            }
        });
        let Some(handover) = handover else { return };
        self.with(to, now, |session, ctx| {
            if let Session::V1(new) = session {
                new.adopt_children(handover, ctx);
            }
        });
        if let Some(slot) = self.sessions.get(&to) {
            self.by_child.extend(slot.session.child_ids().into_iter().map(|id| (id, to)));
        }
    }

    /// Of several IKE SAs with the same peer one lives on. Strangers that share a connection are not the same peer.
    fn settle_duplicates(&mut self, id: PeerId, now: Instant) {
        let all = self.by_identity.range((id, Arc::new(Identity::Any))..).take_while(|((peer, _), _)| *peer == id);
        let duplicates: Vec<Vec<Key>> = all.filter(|(_, keys)| keys.len() > 1).map(|(_, keys)| keys.clone()).collect();
        for keys in duplicates {
            let Some(winner) = self.winner(&keys) else { continue };
            for loser in self.twins(winner, id) {
                self.move_children(loser, winner, now);
                self.with(loser, now, |session, ctx| session.close(CloseReason::Replaced, ctx));
            }
        }
        if self.established_session(id).is_some() {
            self.begin(id, now);
        }
    }

    /// Of these, the IKE SA that lives on: the newest. But where each end began one at about the same time, each may see the
    /// other's come last; then the one with the lower initiator SPI wins, which both ends know.
    fn winner(&self, keys: &[Key]) -> Option<Key> {
        let mut views: Vec<_> = keys
            .iter()
            .copied()
            .filter(|key| self.is_established(*key))
            .filter_map(|key| Some((key, self.sessions.get(&key)?.session.view())))
            .collect();
        views.sort_by_key(|(key, view)| (view.established_at, *key));
        let (newest, last) = views.pop()?;
        let same_time = |at: Option<Instant>| at.zip(last.established_at).is_some_and(|(a, b)| b - a < SAME_TIME);
        let rival =
            views.iter().rev().find(|(_, v)| v.is_initiator != last.is_initiator && same_time(v.established_at));
        Some(rival.filter(|(_, view)| view.spis.0 < last.spis.0).map_or(newest, |(key, _)| *key))
    }

    /// Forgets a session that its peer has forgotten: nothing is sent.
    fn abandon(&mut self, key: Key, id: PeerId, now: Instant) {
        let Some(slot) = self.sessions.get(&key) else { return };
        let view = slot.session.view();
        let mut ctx = self.core.context(self.half_open.len(), false, now);
        for child in &view.children {
            ctx.change(SaChange::Remove(child.id));
            let (child, sa) = (child.child.clone(), child.id);
            ctx.tell(Event::ChildDown { peer: id, child, id: sa, reason: CloseReason::Replaced });
            self.by_child.remove(&sa);
        }
        ctx.tell(Event::IkeDown { peer: id, reason: CloseReason::Replaced });
        self.remove(key);
    }

    fn stop_wanting(&mut self, id: PeerId, child: Option<&str>) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            wanted.children.retain(|name| child.is_some_and(|child| **name != *child));
            if wanted.children.is_empty() {
                self.set_retry(id, None);
            }
        }
    }

    fn set_retry(&mut self, id: PeerId, at: Option<Instant>) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            let old = std::mem::replace(&mut wanted.retry_at, at);
            self.replace_deadline(old, at, Due::Retry(id));
        }
    }

    fn set_settle(&mut self, id: PeerId, at: Option<Instant>) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            let old = std::mem::replace(&mut wanted.settle_at, at);
            self.replace_deadline(old, at, Due::Duplicates(id));
        }
    }

    fn replace_deadline(&mut self, old: Option<Instant>, new: Option<Instant>, due: Due) {
        if let Some(old) = old {
            self.deadlines.remove(&(old, due));
        }
        if let Some(new) = new {
            self.deadlines.insert((new, due));
        }
    }

    fn forget_deadlines(&mut self, id: PeerId) {
        self.set_retry(id, None);
        self.set_settle(id, None);
    }

    fn sessions_of(&self, id: PeerId) -> Vec<Key> {
        self.by_peer.get(&id).map_or_else(Vec::new, |keys| keys.iter().copied().collect())
    }

    fn state_of(&self, key: Key) -> Option<IkeState> {
        Some(self.sessions.get(&key)?.session.state())
    }

    fn version_of(&self, key: Key) -> Option<Version> {
        Some(self.sessions.get(&key)?.session.version())
    }

    fn is_established(&self, key: Key) -> bool {
        matches!(self.state_of(key), Some(IkeState::Established | IkeState::Rekeying))
    }

    /// The newest established session of a peer.
    fn established_session(&self, id: PeerId) -> Option<Key> {
        self.by_peer.get(&id)?.iter().rev().copied().find(|key| self.is_established(*key))
    }

    /// The newest session that we are negotiating with a peer.
    fn connecting_session(&self, id: PeerId) -> Option<Key> {
        let is_ours = |key: &Key| self.sessions.get(key).is_some_and(|slot| slot.session.is_initiator());
        let connecting = |key: &Key| self.state_of(*key) == Some(IkeState::Connecting);
        self.by_peer.get(&id)?.iter().rev().copied().find(|key| is_ours(key) && connecting(key))
    }

    /// The session that a child can be asked of.
    fn live_session(&self, id: PeerId) -> Option<Key> {
        self.established_session(id).or_else(|| self.connecting_session(id))
    }
}

impl Machine for Endpoint {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        // Each once: a session that is due again at the same moment is the shell's to see.
        let due: Vec<_> = self.deadlines.iter().take_while(|(at, _)| *at <= now).copied().collect();
        for (at, due) in due {
            match due {
                Due::Session(key) => {
                    if !self.deadlines.remove(&(at, due)) {
                        continue;
                    }
                    if let Some(slot) = self.sessions.get_mut(&key) {
                        slot.deadline = None;
                    }
                    // What note_alive put off is not due yet: then this only sets the deadline right.
                    self.with(key, now, |session, ctx| session.handle_timeout(ctx));
                }
                Due::Retry(id) => {
                    self.set_retry(id, None);
                    self.begin(id, now);
                }
                Due::Duplicates(id) => {
                    self.set_settle(id, None);
                    self.settle_duplicates(id, now);
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (at, due) = *self.deadlines.first()?;
        let why = match due {
            Due::Session(key) => self.sessions.get(&key)?.deadline?.why,
            Due::Retry(_) => "try a failed connection again",
            Due::Duplicates(_) => "settle duplicate IKE SAs",
        };
        Some(Deadline { at, why })
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }
}
