//! Adj-RIB-In: what neighbours announced, and what becomes of it when sessions, policies and tunnels change.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::import::Import;
use super::routes::Routes;
use super::table::{LONG_LIVED, NIL, PathRecord, REFRESHING, RESTARTING, Table};
use super::{LocalKind, PeerId, Rib, UpdateVerdict};
use crate::{Attributes, Community, Families, Family};

/// What is to become of a path.
enum Fate {
    Stay,
    /// It is decided on again.
    Weigh,
    /// It goes through policy again.
    Import,
    Go,
}

impl Rib {
    /// The neighbour announced these prefixes with these attributes. Bits behind a prefix's length are ignored. When
    /// the limit is exceeded, the prefixes from there on are not looked at.
    pub fn update(
        &mut self,
        peer: PeerId,
        next_hop: IpAddr,
        attributes: &Arc<Attributes>,
        prefixes: impl IntoIterator<Item = IpNet>,
    ) -> UpdateVerdict {
        let Some(slot) = self.slot(peer) else { return UpdateVerdict::NotUp };
        let Some(peer) = self.peers[usize::from(slot)].as_mut().filter(|peer| peer.session.is_some()) else {
            return UpdateVerdict::NotUp;
        };
        let received = self.routes.hold_content(attributes, Some(next_hop));
        let limits = peer.options.max_prefixes;
        let limit = limits.map_or(u32::MAX, |limits| limits.limit);
        let warn_at = limits.map_or(u32::MAX, |limits| limits.warn_at);
        let mut import = Import::new(&self.options, peer);
        let mut verdict = UpdateVerdict::Kept;
        for prefix in prefixes {
            let family = Family::of(&prefix);
            let (table, queue) = (&mut self.tables[family as usize], &mut self.queues[family as usize]);
            let side = peer.side_mut(family);
            let entry = table.keys.find(&prefix);
            let path = entry.and_then(|entry| table.find_path(entry, slot));
            let is_fresh = path.is_some_and(|path| table.path(path).marks == 0);
            if !is_fresh && side.fresh >= limit {
                verdict = UpdateVerdict::Exceeded { family, limit };
                break;
            }
            let Some(entry) = entry.or_else(|| table.add_entry(&prefix)) else { continue };
            side.fresh += u32::from(!is_fresh);
            if let Some(path) = path {
                let path = table.path_mut(path);
                side.stale -= u32::from(!is_fresh);
                let marks = std::mem::take(&mut path.marks);
                if path.received == received && marks & LONG_LIVED == 0 {
                    continue;
                }
                let accepted = import.accept(&mut self.routes, received, 0, &prefix);
                self.routes.hold(received);
                self.routes.release(std::mem::replace(&mut path.received, received));
                let before = std::mem::replace(&mut path.accepted, accepted);
                self.routes.release(before);
                side.accepted = side.accepted + u32::from(accepted.is_some()) - u32::from(before.is_some());
                if before != accepted {
                    enqueue(table, queue, entry);
                }
            } else {
                let accepted = import.accept(&mut self.routes, received, 0, &prefix);
                self.routes.hold(received);
                table.add_path(&mut side.chain, entry, slot, received, accepted);
                side.accepted += u32::from(accepted.is_some());
                if accepted.is_some() {
                    enqueue(table, queue, entry);
                }
            }
            if side.fresh >= warn_at && !side.was_warned {
                side.was_warned = true;
                verdict = UpdateVerdict::Warning { family, count: side.fresh, limit };
            }
        }
        import.finish(&mut self.routes);
        self.routes.release(received);
        verdict
    }

    /// The neighbour withdrew these prefixes, or announced them so that they count as withdrawn (RFC 7606 §2).
    pub fn withdraw(&mut self, peer: PeerId, prefixes: impl IntoIterator<Item = IpNet>) {
        let Some(slot) = self.slot(peer) else { return };
        for prefix in prefixes {
            let family = Family::of(&prefix);
            let table = &self.tables[family as usize];
            if let Some(path) = table.keys.find(&prefix).and_then(|entry| table.find_path(entry, slot)) {
                self.drop_path(slot, family, path);
            }
        }
    }

    /// The neighbour has announced all it has of a family (RFC 4724 §2), or ended a refresh (RFC 7313): what is still
    /// stale goes.
    pub fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        let Some(slot) = self.slot(peer) else { return };
        self.for_each_path(slot, family, |path, _| if path.marks == 0 { Fate::Stay } else { Fate::Go });
    }

    /// A timer of staleness has run out: whatever is stale goes, in all families.
    pub fn sweep_stale(&mut self, peer: PeerId) {
        Family::ALL.into_iter().for_each(|family| self.end_of_rib(peer, family));
    }

    /// Marks what the neighbour announced in a family as stale while its session lives: it has begun to announce
    /// everything anew (RFC 7313 §4).
    pub fn mark_stale(&mut self, peer: PeerId, family: Family) {
        let Some(slot) = self.slot(peer) else { return };
        self.for_each_path(slot, family, |path, _| {
            path.marks |= REFRESHING;
            Fate::Stay
        });
    }

    /// The restart time is over and the long-lived stale time begins: what is stale in the family is used only where
    /// there is nothing else, and bears LLGR_STALE; what bears NO_LLGR goes (RFC 9494 §4.2).
    pub fn retain_long_lived(&mut self, peer: PeerId, family: Family) {
        let Some(slot) = self.slot(peer) else { return };
        self.for_each_path(slot, family, |path, routes| {
            if path.marks & (RESTARTING | LONG_LIVED) != RESTARTING {
                return Fate::Stay;
            }
            if routes.at(path.received).attributes.communities.contains(&Community::NO_LLGR) {
                return Fate::Go;
            }
            path.marks |= LONG_LIVED;
            Fate::Import
        });
    }

    /// Whether packets reach the neighbour's next hops, as its tunnel says; they do until this says otherwise.
    pub fn set_reachable(&mut self, peer: PeerId, reachable: bool) {
        let Some(slot) = self.slot(peer) else { return };
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        if std::mem::replace(&mut peer.is_reachable, reachable) != reachable {
            self.weigh_paths(slot);
        }
    }

    /// Adds or replaces a route of our own.
    pub fn announce(&mut self, kind: LocalKind, prefix: IpNet, next_hop: Option<IpAddr>, attributes: &Arc<Attributes>) {
        let family = Family::of(&prefix);
        let slot = kind as u16;
        let table = &mut self.tables[family as usize];
        let entry = table.keys.find(&prefix);
        let Some(entry) = entry.or_else(|| table.add_entry(&prefix)) else { return };
        let route = self.routes.hold_content(attributes, next_hop);
        self.routes.hold(route);
        if let Some(path) = table.find_path(entry, slot) {
            let path = table.path_mut(path);
            for place in [&mut path.received, &mut path.accepted] {
                self.routes.release(std::mem::replace(place, route));
            }
        } else {
            table.add_path(&mut self.local_chains[usize::from(slot)][family as usize], entry, slot, route, route);
        }
        enqueue(table, &mut self.queues[family as usize], entry);
    }

    /// Removes a route of our own.
    pub fn withdraw_local(&mut self, kind: LocalKind, prefix: IpNet) {
        let family = Family::of(&prefix);
        let table = &self.tables[family as usize];
        if let Some(path) = table.keys.find(&prefix).and_then(|entry| table.find_path(entry, kind as u16)) {
            self.drop_path(kind as u16, family, path);
        }
    }

    /// What becomes of a neighbour's routes when its session ends: see [`Rib::peer_down`].
    pub(super) fn age_paths(&mut self, slot: u16, keep_stale: Families) {
        for family in Family::ALL {
            let keep = keep_stale.contains(family);
            self.for_each_path(slot, family, |path, _| {
                // RFC 4724 §4.2: what was stale from the restart before goes. RFC 9494 §4.2: unless it is long-lived.
                let was_stale = path.marks & (RESTARTING | LONG_LIVED) == RESTARTING;
                if !keep || was_stale {
                    return Fate::Go;
                }
                path.marks = (path.marks & LONG_LIVED) | RESTARTING;
                Fate::Stay
            });
        }
    }

    /// Removes a neighbour's stale routes of families that its session does not have.
    pub(super) fn drop_other_families(&mut self, slot: u16, families: Families) {
        for family in Family::ALL.into_iter().filter(|family| !families.contains(*family)) {
            self.for_each_path(slot, family, |_, _| Fate::Go);
        }
    }

    /// Lets policy see a neighbour's routes again.
    pub(super) fn import_paths(&mut self, slot: u16) {
        Family::ALL.into_iter().for_each(|family| self.for_each_path(slot, family, |_, _| Fate::Import));
    }

    /// Decides again where a neighbour has a route.
    pub(super) fn weigh_paths(&mut self, slot: u16) {
        Family::ALL.into_iter().for_each(|family| self.for_each_path(slot, family, |_, _| Fate::Weigh));
    }

    fn for_each_path(&mut self, slot: u16, family: Family, mut fate: impl FnMut(&mut PathRecord, &Routes) -> Fate) {
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        let (table, queue) = (&mut self.tables[family as usize], &mut self.queues[family as usize]);
        let mut import = Import::new(&self.options, peer);
        let side = peer.side_mut(family);
        let mut next = side.chain;
        while next != NIL {
            let id = next;
            next = table.next_in_chain(id);
            let path = table.path_mut(id);
            let was_fresh = path.marks == 0;
            let fate = fate(path, &self.routes);
            let entry = path.entry;
            if was_fresh && path.marks != 0 {
                side.fresh -= 1;
                side.stale += 1;
            }
            match fate {
                Fate::Stay => {}
                Fate::Weigh => {
                    if path.accepted.is_some() {
                        enqueue(table, queue, entry);
                    }
                }
                Fate::Import => {
                    let (received, marks) = (path.received, path.marks);
                    let accepted = import.accept(&mut self.routes, received, marks, &table.keys.prefix(entry));
                    let before = std::mem::replace(&mut table.path_mut(id).accepted, accepted);
                    self.routes.release(before);
                    side.accepted = side.accepted + u32::from(accepted.is_some()) - u32::from(before.is_some());
                    if before != accepted {
                        enqueue(table, queue, entry);
                    }
                }
                Fate::Go => {
                    let path = table.remove_path(&mut side.chain, id);
                    side.note_gone(&path);
                    forget(&mut self.routes, &path);
                    enqueue(table, queue, entry);
                }
            }
        }
        let warn_at = peer.options.max_prefixes.map_or(u32::MAX, |limits| limits.warn_at);
        peer.side_mut(family).calm(warn_at);
        import.finish(&mut self.routes);
    }

    fn drop_path(&mut self, slot: u16, family: Family, path: u32) {
        let (table, queue) = (&mut self.tables[family as usize], &mut self.queues[family as usize]);
        let path = if let Some(peer) = self.peers[usize::from(slot)].as_mut() {
            let warn_at = peer.options.max_prefixes.map_or(u32::MAX, |limits| limits.warn_at);
            let side = peer.side_mut(family);
            let path = table.remove_path(&mut side.chain, path);
            side.note_gone(&path);
            side.calm(warn_at);
            path
        } else {
            table.remove_path(&mut self.local_chains[usize::from(slot)][family as usize], path)
        };
        forget(&mut self.routes, &path);
        enqueue(table, queue, path.entry);
    }
}

fn forget(routes: &mut Routes, path: &PathRecord) {
    routes.release(path.received);
    routes.release(path.accepted);
}

fn enqueue(table: &mut Table, queue: &mut VecDeque<u32>, entry: u32) {
    if table.mark_queued(entry) {
        queue.push_back(entry);
    }
}
