//! The speaker: all neighbours of one gateway, their sessions, and the routing tables between them.
//!
//! ```text
//!  handle_bytes --> wire --> session --> Adj-RIB-In --> decision --> Route --.
//!                                                                           v
//!  Send <---------- wire <-- as long as there is room <-- Adj-RIB-Out <-- in place
//! ```
//!
//! One ordered queue of outputs: a route is put in place before anybody is told of it. UPDATE messages are made when
//! the shell asks for outputs, and only while a connection has room; so what is queued here stays small, and a route
//! that changes ten times while a neighbour is slow is announced once.
//!
//! Deliberate: in place of MinRouteAdvertisementInterval (RFC 4271 §9.2.1.1, 30 s) a change is announced at once, and those
//! of the 20 ms after it together.

mod config;
mod exchange;
mod news;
mod output;
mod peer;
mod restart;
mod status;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use ipnet::IpNet;

pub use config::{Neighbor, SpeakerOptions, Timers, Ttl};
pub use output::{BgpEvent, EventKind, Output, RouteChange, Severity};
pub use status::{FaultCounts, LastError, MessageCounts, NeighborStatus, RestartStatus};

/// A neighbour, by a number that its owner chooses.
pub use crate::rib::PeerId as NeighborId;

use self::news::News;
use self::peer::{Ending, Peer};
use self::turn::{Connections, Turn};
use crate::rib::{self, LocalKind, Rib};
use crate::wire::{Notification, RefreshKind, cease};
use crate::{AsPath, Attributes, Community, Families, Family, LargeCommunity, Origin};

/// A TCP connection, by a number that the speaker chooses. None is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Strangers are told of at most this often.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);

/// Why a neighbour is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborError {
    /// Another neighbour has this address.
    AddressTaken(NeighborId),
    /// Its AS or ours is 0 (RFC 7607).
    AsZero,
    /// It has no family.
    NoFamily,
    /// There are 65,000 neighbours already.
    TooMany,
}

impl fmt::Display for NeighborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressTaken(other) => write!(f, "neighbour {} has the same address", other.0),
            Self::AsZero => f.write_str("AS 0 is nobody's"),
            Self::NoFamily => f.write_str("it needs IPv4 or IPv6 routes, or both"),
            Self::TooMany => f.write_str("there are 65,000 neighbours already"),
        }
    }
}

impl std::error::Error for NeighborError {}

/// A route of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Why it is announced.
    pub kind: LocalKind,
    /// The next hop that internal neighbours are told, where that is not ourselves.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities.
    pub communities: Vec<Community>,
    /// Large communities.
    pub large_communities: Vec<LargeCommunity>,
}

impl LocalRoute {
    /// One without attributes.
    pub const fn of(prefix: IpNet, kind: LocalKind) -> Self {
        Self { prefix, kind, next_hop: None, med: None, communities: Vec::new(), large_communities: Vec::new() }
    }

    fn attributes(&self) -> Attributes {
        let (mut communities, mut large_communities) = (self.communities.clone(), self.large_communities.clone());
        communities.sort_unstable();
        communities.dedup();
        large_communities.sort_unstable();
        large_communities.dedup();
        // RFC 4271 §5.1.1: what is redistributed is INCOMPLETE.
        let origin = match self.kind {
            LocalKind::Network => Origin::Igp,
            LocalKind::Static | LocalKind::Connected => Origin::Incomplete,
        };
        Attributes {
            origin,
            as_path: AsPath::default(),
            med: self.med,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities,
            extended_communities: Vec::new(),
            large_communities,
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

/// A BGP speaker.
///
/// The shell carries the outputs out in their order, and drains them after every input.
#[derive(Debug)]
pub struct Speaker {
    options: SpeakerOptions,
    rib: Rib,
    peers: BTreeMap<NeighborId, Peer>,
    by_address: BTreeMap<IpAddr, NeighborId>,
    connections: Connections,
    /// The deadline of each neighbour that has one.
    deadlines: BTreeSet<(Instant, NeighborId)>,
    /// Until when nothing is chosen nor announced after our own restart.
    deferral: Option<Instant>,
    /// Shut down so that neighbours keep our routes: nothing more is said, and what is in place stays.
    is_frozen: bool,
    is_stopped: bool,
    news: News,
    strangers: Strangers,
    random: Random,
    outputs: VecDeque<Output>,
    now: Instant,
}

/// Who connects and is no neighbour.
#[derive(Clone, Copy, Debug, Default)]
struct Strangers {
    count: u64,
    told: Option<Instant>,
}

impl Speaker {
    /// A speaker without neighbours. After a restart that its neighbours were promised, routes are chosen once all of
    /// them have announced theirs; the time for that begins at `now`.
    pub fn new(options: SpeakerOptions, random: Random, now: Instant) -> Self {
        let tables = rib::Options {
            max_paths: options.max_paths,
            multipath_relax: options.multipath_relax,
            ..rib::Options::of(options.asn, options.router_id)
        };
        Self {
            deferral: options.is_restarting.then(|| now + options.selection_deferral),
            options,
            rib: Rib::new(tables),
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            connections: Connections::default(),
            deadlines: BTreeSet::new(),
            is_frozen: false,
            is_stopped: false,
            news: News::default(),
            strangers: Strangers::default(),
            random,
            outputs: VecDeque::new(),
            now,
        }
    }

    /// What it was made with.
    pub const fn options(&self) -> &SpeakerOptions {
        &self.options
    }

    /// Adds a neighbour, or changes one. Sessions begin anew only where they must: with other policies, limits and
    /// attempts they go on at once, and other timers hold from the next session on (KEEPALIVE from the next one sent).
    ///
    /// # Errors
    /// When the neighbour cannot be; then nothing has changed.
    pub fn upsert_neighbor(&mut self, id: NeighborId, neighbor: Neighbor, now: Instant) -> Result<(), NeighborError> {
        if neighbor.remote_as == 0 || neighbor.our_as(&self.options) == 0 {
            return Err(NeighborError::AsZero);
        }
        if neighbor.families == Families::NONE {
            return Err(NeighborError::NoFamily);
        }
        if let Some(other) = self.by_address.get(&neighbor.remote).filter(|other| **other != id) {
            return Err(NeighborError::AddressTaken(*other));
        }
        match self.peers.get(&id).map(|peer| peer.neighbor.remote) {
            Some(remote) if remote == neighbor.remote => self.change(id, neighbor, now),
            Some(_) => {
                self.remove(id, cease::CONFIGURATION_CHANGE, "its address has changed", now);
                self.add(id, neighbor, now)?;
            }
            None => self.add(id, neighbor, now)?,
        }
        Ok(())
    }

    fn add(&mut self, id: NeighborId, neighbor: Neighbor, now: Instant) -> Result<(), NeighborError> {
        if !self.rib.upsert_peer(id, neighbor.peer_options(&self.options)) {
            return Err(NeighborError::TooMany);
        }
        self.by_address.insert(neighbor.remote, id);
        self.outputs.push_back(listen(id, &neighbor));
        let mut peer = Peer::new(id, neighbor, now);
        peer.is_stopped = self.is_stopped;
        self.peers.insert(id, peer);
        self.turn(id, now, |peer, turn| peer.start(turn.now));
        Ok(())
    }

    fn change(&mut self, id: NeighborId, new: Neighbor, now: Instant) {
        let Some(old) = self.peers.get(&id).map(|peer| &peer.neighbor).filter(|old| **old != new) else { return };
        let reset = old.needs_reset(&new);
        let shuts_down = new.shut_down.clone().filter(|_| old.shut_down.is_none());
        let listens = (old.local, &old.password, old.ttl) != (new.local, &new.password, new.ttl);
        if old.local != new.local {
            self.outputs.push_back(Output::Unlisten { neighbor: id, local: old.local, remote: old.remote });
        }
        if listens {
            self.outputs.push_back(listen(id, &new));
        }
        let (old, new) = (old.peer_options(&self.options), new);
        let tables = new.peer_options(&self.options);
        self.turn(id, now, |peer, turn| {
            peer.neighbor = new;
            if let Some(words) = shuts_down {
                let notification = Notification::cease_with_words(cease::ADMINISTRATIVE_SHUTDOWN, &words);
                peer.stop(&Ending::Said(notification), "it was taken down by command", turn);
                peer.forget_stale(turn);
            } else if let Some(what) = reset {
                let why = format!("its configuration has changed: {what}");
                peer.stop(&Ending::Said(cease::of(cease::CONFIGURATION_CHANGE)), &why, turn);
                peer.forget_stale(turn);
            }
            if old != tables {
                // A raised limit is what was asked for when the old one was exceeded.
                if old.max_prefixes != tables.max_prefixes {
                    peer.held_until = None;
                }
                turn.rib.upsert_peer(id, tables);
            }
            peer.retime(turn);
            peer.start(turn.now);
        });
    }

    /// Ends the session with a neighbour (Cease, Peer De-configured) and forgets it and all that it announced.
    pub fn remove_neighbor(&mut self, id: NeighborId, now: Instant) {
        self.remove(id, cease::PEER_DECONFIGURED, "it was removed", now);
    }

    fn remove(&mut self, id: NeighborId, subcode: u8, why: &str, now: Instant) {
        let why = why.to_owned();
        self.turn(id, now, |peer, turn| peer.stop(&Ending::Said(cease::of(subcode)), &why, turn));
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(at) = peer.indexed {
            self.deadlines.remove(&(at, id));
        }
        self.by_address.remove(&peer.neighbor.remote);
        self.rib.remove_peer(id);
        let Neighbor { local, remote, .. } = peer.neighbor;
        self.outputs.push_back(Output::Unlisten { neighbor: id, local, remote });
        self.note(now);
    }

    /// The answer to `Connect`: there is a connection.
    pub fn handle_connected(&mut self, connection: ConnectionId, local: SocketAddr, remote: SocketAddr, now: Instant) {
        self.connection_turn(connection, now, |peer, turn| peer.connected(connection, local, remote, turn));
    }

    /// The answer to `Connect`: there is none, for this reason in words.
    pub fn handle_connect_failed(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        self.connection_turn(connection, now, |peer, turn| peer.connect_failed(connection, why, turn));
    }

    /// Somebody connected. `None`: close it; it is no neighbour, or none that is awaited.
    pub fn handle_accepted(&mut self, local: SocketAddr, remote: SocketAddr, now: Instant) -> Option<ConnectionId> {
        match self.by_address.get(&remote.ip().to_canonical()).copied() {
            Some(id) => self.turn(id, now, |peer, turn| peer.accepted(local, remote, turn)).flatten(),
            None => {
                self.note(now);
                self.note_stranger(remote.ip(), now);
                None
            }
        }
    }

    fn note_stranger(&mut self, remote: IpAddr, now: Instant) {
        self.strangers.count += 1;
        if self.strangers.told.is_some_and(|at| now.saturating_since(at) < STRANGERS_EVERY) {
            return;
        }
        let others = self.strangers.count - 1;
        let also = if others == 0 { String::new() } else { format!(" ({others} others before it were not told of)") };
        self.strangers = Strangers { count: 0, told: Some(now) };
        let sentence = format!(
            "{remote} connected and is no neighbour{also}: if it should be, add a neighbour with this address, or \
             change the address that it connects from"
        );
        self.outputs.push_back(Output::Event(BgpEvent { neighbor: None, kind: EventKind::Stranger, sentence }));
    }

    /// Octets arrived, any number of them.
    pub fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        self.connection_turn(connection, now, |peer, turn| peer.bytes(connection, bytes, turn));
    }

    /// The neighbour closed the connection, or it broke, for this reason in words.
    pub fn handle_closed(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        self.connection_turn(connection, now, |peer, turn| peer.closed(connection, why, turn));
    }

    /// The shell takes `room` more octets for this connection than it has still to send; 0: none for now. Without a word
    /// of it a connection begins with 64 KB, and each `Send` takes its length of it. Some twice 64 KB are enough.
    pub fn handle_writable(&mut self, connection: ConnectionId, room: usize, now: Instant) {
        let mut had_room = false;
        self.connection_turn(connection, now, |peer, _| {
            if let Some(connection) = peer.connection_mut(connection) {
                had_room = connection.room > 0;
                connection.room = room;
                connection.blocked_since = match connection.blocked_since {
                    _ if room > 0 => None,
                    since => since.or(Some(now)),
                };
            }
        });
        // Whoever had room has been told everything but what is gathered.
        if let Some(id) = self.connections.owner(connection).filter(|_| had_room && self.news.for_all) {
            self.news.for_some.remove(&id);
        }
    }

    /// Adds or replaces a route of our own.
    pub fn announce(&mut self, route: &LocalRoute, now: Instant) {
        let attributes = Arc::new(route.attributes());
        self.rib.announce(route.kind, route.prefix.trunc(), route.next_hop, &attributes);
        self.note(now);
    }

    /// Removes a route of our own.
    pub fn withdraw(&mut self, kind: LocalKind, prefix: IpNet, now: Instant) {
        self.rib.withdraw_local(kind, prefix.trunc());
        self.note(now);
    }

    /// The tunnel under a neighbour is up or down; it is up until this says otherwise. Down: its session is dropped at
    /// once without a word, its routes go, and it is not connected to.
    pub fn set_reachable(&mut self, id: NeighborId, is_reachable: bool, now: Instant) {
        self.turn(id, now, |peer, turn| {
            if peer.is_reachable == is_reachable {
                return;
            }
            peer.is_reachable = is_reachable;
            turn.rib.set_reachable(id, is_reachable);
            if is_reachable {
                peer.start(turn.now);
            } else {
                peer.stop(&Ending::Silent, "its tunnel is down", turn);
                peer.forget_stale(turn);
            }
        });
    }

    /// BFD says that the neighbour is not reached: its session ends (Cease, BFD Down; RFC 9384), and its routes go. It
    /// is connected to again after the usual time.
    pub fn note_bfd_down(&mut self, id: NeighborId, now: Instant) {
        self.turn(id, now, |peer, turn| {
            let ids: Vec<ConnectionId> = peer.connections.iter().map(|connection| connection.id).collect();
            for connection in ids {
                let ending = Ending::Said(cease::of(cease::BFD_DOWN));
                peer.end(connection, ending, Some("BFD says that it is not reached"), turn);
            }
            peer.forget_stale(turn);
        });
    }

    /// Before the session is taken down on purpose (RFC 8326 §4): what the neighbour is told bears GRACEFUL_SHUTDOWN,
    /// and its own routes are used where there is nothing else.
    pub fn set_draining(&mut self, id: NeighborId, is_draining: bool, now: Instant) {
        self.turn(id, now, |peer, turn| {
            peer.is_draining = is_draining;
            turn.rib.set_draining(id, is_draining);
        });
    }

    /// Asks the neighbour to announce everything again (RFC 2918); whether it can. Policies need no refresh: what was
    /// received is kept.
    pub fn refresh(&mut self, id: NeighborId, now: Instant) -> bool {
        let refreshed = self.turn(id, now, |peer, turn| {
            let Some(connection) = peer.established() else { return false };
            let Some(agreement) = connection.established().filter(|agreement| agreement.route_refresh) else {
                return false;
            };
            let (connection, families) = (connection.id, agreement.families);
            families.iter().for_each(|family| peer.send_refresh(connection, RefreshKind::Request, family, turn));
            true
        });
        refreshed.unwrap_or(false)
    }

    /// Ends the session (Cease, Administrative Reset) and begins anew at once.
    pub fn reset(&mut self, id: NeighborId, now: Instant) {
        self.turn(id, now, |peer, turn| {
            peer.stop(&Ending::Said(cease::of(cease::ADMINISTRATIVE_RESET)), "it was reset by command", turn);
            peer.forget_stale(turn);
            peer.held_until = None;
            peer.start(turn.now);
        });
    }

    /// Ends all sessions for good. With `graceful_restart`, and a restart time, neighbours who agreed to it keep our
    /// routes until we are back, so nothing is said to them and what is in place stays; all others are told (Cease,
    /// Administrative Shutdown).
    pub fn shut_down(&mut self, graceful_restart: bool, now: Instant) {
        self.is_stopped = true;
        let comes_back = graceful_restart && !self.options.restart_time.is_zero();
        self.is_frozen = comes_back;
        let ids: Vec<NeighborId> = self.peers.keys().copied().collect();
        for id in ids {
            self.turn(id, now, |peer, turn| {
                peer.is_stopped = true;
                let keeps = peer.established().and_then(|connection| connection.established());
                let keeps = keeps.is_some_and(|agreement| agreement.graceful_restart.is_some());
                let ending = if comes_back && keeps {
                    Ending::Silent
                } else {
                    Ending::Said(cease::of(cease::ADMINISTRATIVE_SHUTDOWN))
                };
                peer.stop(&ending, "the speaker is shut down", turn);
                peer.forget_stale(turn);
            });
        }
    }

    /// What is known of each neighbour, by their ids.
    pub fn neighbors(&self, now: Instant) -> impl Iterator<Item = NeighborStatus> + '_ {
        self.peers.values().map(move |peer| self.status(peer, now))
    }

    /// What is known of a neighbour.
    pub fn neighbor(&self, id: NeighborId, now: Instant) -> Option<NeighborStatus> {
        self.peers.get(&id).map(|peer| self.status(peer, now))
    }

    /// The routing tables: best paths, all paths, what each neighbour announced and is told.
    pub const fn routes(&self) -> &Rib {
        &self.rib
    }

    /// Whether, after our own restart, neighbours are still announcing what they have.
    pub const fn is_restarting(&self) -> bool {
        self.deferral.is_some()
    }

    fn status(&self, peer: &Peer, now: Instant) -> NeighborStatus {
        let furthest = peer.connections.iter().max_by_key(|connection| connection.state());
        let established = peer.established_at.filter(|_| peer.established().is_some());
        NeighborStatus {
            id: peer.id,
            name: peer.neighbor.name.clone(),
            remote: peer.neighbor.remote,
            remote_as: peer.neighbor.remote_as,
            local_as: peer.neighbor.our_as(&self.options),
            state: peer.state(),
            since: peer.since(),
            uptime: established.map(|at| now.saturating_since(at)),
            addresses: furthest.map(|connection| (connection.local, connection.remote)),
            agreement: furthest.and_then(|connection| connection.agreement()).cloned(),
            received: peer.received,
            sent: peer.sent,
            ipv4: self.rib.counts(peer.id, Family::Ipv4),
            ipv6: self.rib.counts(peer.id, Family::Ipv6),
            established: peer.established_count,
            flaps: peer.flaps,
            last_error: peer.last_error.clone(),
            faults: peer.faults,
            is_reachable: peer.is_reachable,
            is_draining: peer.is_draining,
            held_by: peer.held_by(),
            restart: peer.restart.status(),
        }
    }

    fn connection_turn(&mut self, connection: ConnectionId, now: Instant, act: impl FnOnce(&mut Peer, &mut Turn<'_>)) {
        if let Some(id) = self.connections.owner(connection) {
            self.turn(id, now, act);
        }
    }

    /// Lets a neighbour act, and keeps the index of deadlines right.
    fn turn<R>(&mut self, id: NeighborId, now: Instant, act: impl FnOnce(&mut Peer, &mut Turn<'_>) -> R) -> Option<R> {
        self.note(now);
        let peer = self.peers.get_mut(&id)?;
        let mut turn = Turn {
            now,
            options: &self.options,
            is_restarting: self.deferral.is_some(),
            rib: &mut self.rib,
            random: &mut self.random,
            outputs: &mut self.outputs,
            connections: &mut self.connections,
        };
        let result = act(peer, &mut turn);
        peer.settle(now);
        let due = peer.deadline().map(|deadline| deadline.at);
        if due != peer.indexed {
            peer.indexed.map(|at| self.deadlines.remove(&(at, id)));
            due.map(|at| self.deadlines.insert((at, id)));
            peer.indexed = due;
        }
        self.news.for_some.insert(id);
        if self.deferral.is_some() && self.peers.values().all(Peer::is_complete) {
            self.converge("all neighbours have announced their routes");
        }
        Some(result)
    }

    fn note(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// After our own restart: routes are chosen and announced from now on.
    fn converge(&mut self, why: &str) {
        self.deferral = None;
        self.news.for_all = true;
        let sentence = format!("after the restart routes are chosen and announced from now on: {why}");
        self.outputs.push_back(Output::Event(BgpEvent { neighbor: None, kind: EventKind::Converged, sentence }));
    }

    /// The next change to what is in use.
    fn next_change(&mut self) -> Option<Output> {
        let change = self.rib.poll_change()?;
        self.news.for_all = true;
        let (next_hops, source, med) = match change.route {
            Some(route) => (route.next_hops, Some(route.source), route.attributes.med),
            None => (Vec::new(), None, None),
        };
        Some(Output::Route(RouteChange { prefix: change.prefix, next_hops, source, med }))
    }

    /// Lets the next neighbour that has room be told something.
    fn advertise(&mut self) -> bool {
        let Some(id) = self.next_to_tell() else { return false };
        let now = self.now;
        self.turn(id, now, |peer, turn| peer.advertise(turn));
        true
    }

    fn next_to_tell(&mut self) -> Option<NeighborId> {
        while let Some(id) = self.news.for_some.first().copied() {
            if self.peers.get(&id).is_some_and(|peer| peer.has_news(&self.rib)) {
                return Some(id);
            }
            self.news.for_some.remove(&id);
        }
        if !self.news.for_all || self.now < self.news.rests_until {
            return None;
        }
        let has_news = |(id, peer): (&NeighborId, &Peer)| peer.has_news(&self.rib).then_some(*id);
        let next = self.peers.range(self.news.next..).find_map(has_news);
        let next = next.or_else(|| self.peers.range(..self.news.next).find_map(has_news));
        match next {
            Some(id) => self.news.tell(id),
            None => self.news.rest(self.now),
        }
        next
    }
}

fn listen(id: NeighborId, neighbor: &Neighbor) -> Output {
    Output::Listen {
        neighbor: id,
        local: neighbor.local,
        remote: neighbor.remote,
        password: neighbor.password.clone(),
        ttl: neighbor.ttl,
    }
}

impl Machine for Speaker {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        self.note(now);
        if self.deferral.is_some_and(|until| until <= now) {
            self.converge("the time for it is over");
        }
        self.news.wake(now);
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            if self.turn(id, now, Peer::wake).is_none() {
                self.deadlines.remove(&(at, id));
            }
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let first = self.deadlines.first().and_then(|(_, id)| self.peers.get(id)).and_then(Peer::deadline);
        let deferral = self.deferral.map(|at| Deadline { at, why: "routes of the neighbours after our restart" });
        let is_silent = self.deferral.is_some() || self.is_frozen;
        let news = self.news.due().filter(|_| !is_silent);
        let news = news.map(|at| Deadline { at, why: "changes are announced together" });
        Deadline::earliest(Deadline::earliest(first, deferral), news)
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            // RFC 4724 §4.1: until all have announced theirs, nothing is chosen nor announced.
            if self.deferral.is_some() || self.is_frozen {
                return None;
            }
            if let Some(change) = self.next_change() {
                return Some(change);
            }
            if !self.advertise() {
                return None;
            }
        }
    }
}
