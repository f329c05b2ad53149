//! The routing tables (RFC 4271 §3.2): what each neighbour announced, what of it is in use, and what each is told.
//!
//! Adj-RIB-In keeps routes as they were received; policy stands between it and the decision, so that a changed policy
//! needs no route refresh. What is in use is reported by [`Rib::poll_change`], one change a prefix however often it
//! changed before, and **only what was reported is advertised**: routes are in place before others are told of them.
//! Adj-RIB-Out is computed when it is asked for ([`Rib::next_advertisement`]).
//!
//! Left out: route reflection (RFC 4456 beyond its tie breaks and loop detection), confederations, several paths from
//! one neighbour (RFC 7911), the interior cost of next hops (RFC 4271 §9.1.2.2 e: all are equally far), aggregation.

mod adj_in;
mod adj_out;
mod bits;
mod decision;
mod export;
mod import;
mod keys;
mod options;
mod output;
mod peer;
mod routes;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use adj_out::{DEFAULT_ENTRY, Group};
use bits::Bits;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use options::{MaxPrefixes, Options, PeerId, PeerOptions, Session};
pub use output::{
    Advertisement, AnnouncedNextHop, Change, LocalKind, NextHop, Outgoing, Path, PrefixCounts, Selected, Source,
    Standing, UpdateVerdict,
};
use peer::Peer;
use routes::{RouteId, Routes};
use table::{Chain, NIL, NOBODY, Table};

use crate::policy::Policy;
use crate::{AsPath, Attributes, Families, Family, Origin};

/// Routes of our own have the first slots.
const LOCALS: [LocalKind; 3] = [LocalKind::Network, LocalKind::Static, LocalKind::Connected];

/// The most neighbours.
const MOST_PEERS: usize = 65_000;

/// Vacant entries below this number are not worth a collection.
const FEW_VACANT: usize = 1_024;

/// The routing tables of one speaker.
#[derive(Debug)]
pub struct Rib {
    options: Options,
    routes: Routes,
    tables: [Table; 2],
    /// Entries that wait for the decision, in the order in which they first changed.
    queues: [VecDeque<u32>; 2],
    /// Entries that may be forgotten once no neighbour has to be told of them, and how many of them there must be.
    vacant: [Vec<u32>; 2],
    collect_at: [usize; 2],
    local_chains: [[Chain; 2]; LOCALS.len()],
    /// By slot; those of [`LOCALS`] are empty.
    peers: Vec<Option<Peer>>,
    by_id: BTreeMap<PeerId, u16>,
    free_slots: Vec<u16>,
    /// Slots of removed neighbours whose routes may still be reported.
    retired: Vec<u16>,
    groups: Vec<Option<Group>>,
    /// What [`PeerOptions::default_originate`] announces.
    default_route: RouteId,
    /// For the decision.
    chosen: Vec<(u16, RouteId)>,
}

impl Rib {
    /// Empty tables.
    pub fn new(options: Options) -> Self {
        let mut tables = Family::ALL.map(Table::new);
        let defaults = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        for (table, prefix) in tables.iter_mut().zip(defaults) {
            let entry = table.add_entry(&prefix);
            debug_assert_eq!(entry, Some(DEFAULT_ENTRY));
        }
        let mut routes = Routes::default();
        let default_route = routes.hold_content(&Arc::new(own_attributes()), None);
        Self {
            options,
            routes,
            tables,
            queues: Default::default(),
            vacant: Default::default(),
            collect_at: [FEW_VACANT; 2],
            local_chains: [[NIL; 2]; LOCALS.len()],
            peers: LOCALS.iter().map(|_| None).collect(),
            by_id: BTreeMap::new(),
            free_slots: Vec::new(),
            retired: Vec::new(),
            groups: Vec::new(),
            default_route,
            chosen: Vec::new(),
        }
    }

    /// What holds for all neighbours.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes what holds for all neighbours: everything is decided anew. Sessions under another AS or BGP Identifier
    /// are for their owner to end.
    pub fn set_options(&mut self, options: Options) {
        if self.options == options {
            return;
        }
        self.options = options;
        for slot in self.by_id.values().copied().collect::<Vec<_>>() {
            self.import_paths(slot);
            self.weigh_paths(slot);
            self.change_group(slot);
        }
    }

    /// Adds a neighbour that is down, or changes what holds for one: what it announced goes through its import policy
    /// again, and what changes in what it is told is advertised. Another AS on either side ends what session there
    /// was, as [`Rib::peer_down`] does. At most 65,000 neighbours; more are not added, which the answer says.
    pub fn upsert_peer(&mut self, id: PeerId, options: PeerOptions) -> bool {
        let Some(slot) = self.slot(id) else { return self.add_peer(id, options) };
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return false };
        if peer.options == options {
            return true;
        }
        let is_other_as = (peer.options.asn, peer.options.local_as) != (options.asn, options.local_as);
        if is_other_as {
            self.peer_down(id, Families::NONE);
        }
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return false };
        let before = std::mem::replace(&mut peer.options, options);
        let import = |of: &PeerOptions| (Arc::clone(&of.import), of.allow_own_as, of.graceful_shutdown);
        let is_other_import = import(&before) != import(&peer.options);
        let is_other_address = before.address != peer.options.address;
        if is_other_import {
            self.import_paths(slot);
        }
        if is_other_address {
            self.weigh_paths(slot);
        }
        self.change_group(slot);
        true
    }

    fn add_peer(&mut self, id: PeerId, options: PeerOptions) -> bool {
        if self.by_id.len() + self.retired.len() >= MOST_PEERS {
            return false;
        }
        let peer = Some(Peer::new(id, options));
        // One that returns takes its own place again: what was reported of it still holds.
        let is_own = |slot: &u16| self.peers[usize::from(*slot)].as_ref().is_some_and(|peer| peer.id == id);
        let own = self.retired.iter().position(is_own).map(|place| self.retired.remove(place));
        let slot = own.or_else(|| self.free_slots.pop()).unwrap_or(self.peers.len() as u16);
        match self.peers.get_mut(usize::from(slot)) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.by_id.insert(id, slot);
        true
    }

    /// Forgets a neighbour and all that it announced.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peer_down(peer, Families::NONE);
        if let Some(slot) = self.by_id.remove(&peer) {
            // What was reported still names the slot: nobody else has it until everything was decided anew.
            self.retired.push(slot);
        }
    }

    /// Changes a neighbour's policies alone, as [`Rib::upsert_peer`] does.
    pub fn set_policy(&mut self, peer: PeerId, import: Arc<Policy>, export: Arc<Policy>) {
        let Some(known) = self.peer(peer) else { return };
        let options = PeerOptions { import, export, ..known.options.clone() };
        self.upsert_peer(peer, options);
    }

    /// A session with the neighbour is established: all that may be announced to it will be. Stale routes of families
    /// that the session does not have go.
    pub fn peer_up(&mut self, peer: PeerId, session: Session) {
        let Some(slot) = self.slot(peer) else { return };
        self.leave_group(slot);
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        peer.session = Some(session);
        let is_other_id = std::mem::replace(&mut peer.router_id, session.router_id) != session.router_id;
        self.drop_other_families(slot, session.families);
        if is_other_id {
            self.weigh_paths(slot);
        }
        self.join_group(slot);
    }

    /// The session is gone. Routes of the families in `keep_stale` stay in use as stale (RFC 4724 §4.2); those that
    /// were stale already, and all others, go.
    pub fn peer_down(&mut self, peer: PeerId, keep_stale: Families) {
        let Some(slot) = self.slot(peer) else { return };
        self.leave_group(slot);
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        // Said of a neighbour that is down already it changes nothing but what is kept.
        if peer.session.take().is_some() || keep_stale == Families::NONE {
            self.age_paths(slot, keep_stale);
        }
    }

    /// The session is about to be taken down on purpose (RFC 8326 §4): what it is told bears GRACEFUL_SHUTDOWN, and
    /// what it announced has LOCAL_PREF 0.
    pub fn set_draining(&mut self, peer: PeerId, draining: bool) {
        let Some(slot) = self.slot(peer) else { return };
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        if std::mem::replace(&mut peer.is_draining, draining) != draining {
            self.import_paths(slot);
            self.change_group(slot);
        }
    }

    /// The next prefix for which something else is in use than was said before: those of IPv4 first, in each family in
    /// the order in which they first changed.
    pub fn poll_change(&mut self) -> Option<Change> {
        for family in Family::ALL {
            while let Some(entry) = self.queues[family as usize].pop_front() {
                if let Some(change) = self.decide(family, entry) {
                    return Some(change);
                }
            }
            self.collect(family);
        }
        for slot in self.retired.drain(..) {
            self.peers[usize::from(slot)] = None;
            self.free_slots.push(slot);
        }
        None
    }

    fn decide(&mut self, family: Family, entry: u32) -> Option<Change> {
        let mut chosen = std::mem::take(&mut self.chosen);
        let table = &mut self.tables[family as usize];
        table.mark_decided(entry);
        decision::decide(entry, table, &self.peers, &self.routes, &self.options, &mut chosen);
        let change = self.report(family, entry, &chosen);
        self.chosen = chosen;
        change
    }

    /// Notes what is in use for an entry, and says it if it is new.
    fn report(&mut self, family: Family, entry: u32, chosen: &[(u16, RouteId)]) -> Option<Change> {
        let table = &mut self.tables[family as usize];
        let is_new = *chosen != *table.reported_paths(entry).as_slice();
        let is_best_new = table.reported_best(entry).as_ref() != chosen.first();
        if is_new {
            chosen.iter().for_each(|(_, route)| self.routes.hold(*route));
            table.reported_paths(entry).as_slice().iter().for_each(|(_, route)| self.routes.release(*route));
            table.report(entry, chosen);
        }
        if table.is_vacant(entry) {
            self.vacant[family as usize].push(entry);
        }
        if is_best_new {
            self.mark_groups(family, entry);
        }
        let prefix = self.tables[family as usize].keys.prefix(entry);
        is_new.then(|| Change { prefix, route: self.selected(chosen) })
    }

    /// What is in use, in words.
    fn selected(&self, paths: &[(u16, RouteId)]) -> Option<Selected> {
        let (slot, route) = paths.first()?;
        let next_hop = |(slot, route): &(u16, RouteId)| {
            let peer = self.peers[usize::from(*slot)].as_ref()?.id;
            Some(NextHop { peer, address: self.routes.at(*route).next_hop? })
        };
        Some(Selected {
            source: self.source(*slot)?,
            attributes: Arc::clone(&self.routes.at(*route).attributes),
            next_hops: paths.iter().filter_map(next_hop).collect(),
        })
    }

    fn source(&self, slot: u16) -> Option<Source> {
        match LOCALS.get(usize::from(slot)) {
            Some(kind) => Some(Source::Local(*kind)),
            None => Some(Source::Peer(self.peers[usize::from(slot)].as_ref()?.id)),
        }
    }

    /// Forgets entries without a path of which nobody has to be told any more.
    fn collect(&mut self, family: Family) {
        let index = family as usize;
        if self.vacant[index].len() < self.collect_at[index] {
            return;
        }
        let mut vacant = std::mem::take(&mut self.vacant[index]);
        vacant.sort_unstable();
        vacant.dedup();
        let table = &mut self.tables[index];
        vacant.retain(|&entry| entry != DEFAULT_ENTRY && table.is_vacant(entry));
        let mut held = Bits::default();
        for side in self.peers.iter().flatten().map(|peer| peer.side(family)) {
            held.extend(&side.told);
            held.extend(&side.dirty);
        }
        vacant.retain(|&entry| {
            let is_known =
                held.contains(entry) || self.groups.iter().flatten().any(|group| group.side(family).knows(entry));
            if !is_known {
                table.keys.remove(entry);
            }
            is_known
        });
        self.collect_at[index] = vacant.len() + FEW_VACANT.max(table.keys.count() / 8);
        self.vacant[index] = vacant;
    }

    fn slot(&self, peer: PeerId) -> Option<u16> {
        self.by_id.get(&peer).copied().filter(|slot| *slot != NOBODY)
    }

    fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers[usize::from(self.slot(peer)?)].as_ref()
    }
}

/// The attributes of a route that we originate: ORIGIN IGP, and nothing else.
fn own_attributes() -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath::default(),
        med: None,
        local_pref: None,
        atomic_aggregate: false,
        aggregator: None,
        communities: Vec::new(),
        extended_communities: Vec::new(),
        large_communities: Vec::new(),
        originator_id: None,
        cluster_list: Vec::new(),
        unknown: Vec::new(),
    }
}
