//! Adj-RIB-Out: what each neighbour is to be told.
//!
//! Neighbours with the same export rules form a group, for which policy is asked once. A neighbour itself has two bits
//! a prefix: whether it was told of it, and whether it may have to be told something. How a route looks on the way out
//! is computed when it goes out to the first of several members, encoded, and kept for the others; two looks are compared
//! only where a route was replaced.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::bits::Bits;
use super::export::{Class, From, ORIGINATED};
use super::peer::{Peer, Side, Staged};
use super::routes::{Route, RouteId, Routes};
use super::table::{NOBODY, Table};
use super::{Advertisement, AnnouncedNextHop, LOCALS, Outgoing, PeerId, Rib};
use crate::{Attributes, Family};

/// The entry of the default route, which every table has.
pub(super) const DEFAULT_ENTRY: u32 = 0;

/// How many prefixes are brought into order at once, so that those alike are packed together: 128 KiB of a neighbour.
const STAGE: usize = 1 << 13;

/// How many entries a page of a group has.
const PAGE: usize = 256;

/// Neighbours that are up and told the same.
#[derive(Debug)]
pub(super) struct Group {
    class: Class,
    /// Slots, ascending.
    members: Vec<u16>,
    looks: Looks,
    sides: [GroupSide; 2],
}

#[derive(Debug, Default)]
pub(super) struct GroupSide {
    /// By entry, in pages: many neighbours with a policy of their own want little each.
    wanted: Vec<Option<Box<[Wanted; PAGE]>>>,
    /// Entries in which something else was reported than `wanted` knows.
    pub(super) dirty: Bits,
}

/// How many looks of routes a group keeps at most, by the places of the routes.
const MOST_LOOKS: usize = 1 << 14;

/// How routes looked that went out to a member: the others are told the same soon after.
#[derive(Debug, Default)]
struct Looks(Vec<Option<Look>>);

#[derive(Debug)]
struct Look {
    /// What the route was: a place may have another one meanwhile.
    of: (Arc<Attributes>, Option<IpAddr>),
    rule: u16,
    from: From,
    outgoing: Arc<Outgoing>,
}

impl Look {
    fn is_of(&self, route: &Route, wanted: Wanted, from: From) -> bool {
        let (attributes, next_hop) = &self.of;
        (self.rule, self.from) == (wanted.rule, from)
            && Arc::ptr_eq(attributes, &route.attributes)
            && *next_hop == route.next_hop
    }
}

impl Looks {
    /// The look of a route, or what `make` makes of it.
    fn find(
        &mut self,
        wanted: Wanted,
        route: &Route,
        from: From,
        make: impl FnOnce() -> Arc<Outgoing>,
    ) -> Arc<Outgoing> {
        let place = wanted.route.place() as usize % MOST_LOOKS;
        if place >= self.0.len() {
            self.0.resize_with(place + 1, || None);
        }
        let slot = &mut self.0[place];
        match slot.as_ref().filter(|look| look.is_of(route, wanted, from)) {
            Some(look) => Arc::clone(&look.outgoing),
            None => {
                let (of, outgoing) = ((Arc::clone(&route.attributes), route.next_hop), make());
                *slot = Some(Look { of, rule: wanted.rule, from, outgoing: Arc::clone(&outgoing) });
                outgoing
            }
        }
    }
}

/// What goes out for an entry to all members but its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    route: RouteId,
    rule: u16,
    source: u16,
}

impl Wanted {
    const NOTHING: Self = Self { route: RouteId::NONE, rule: 0, source: NOBODY };

    fn from(self, peers: &[Option<Peer>]) -> From {
        source_kind(self.source, peers)
    }
}

impl GroupSide {
    fn wanted(&self, entry: u32) -> Wanted {
        let page = self.wanted.get(entry as usize / PAGE).and_then(Option::as_deref);
        page.map_or(Wanted::NOTHING, |page| page[entry as usize % PAGE])
    }

    /// What goes out to one member: not back to where it came from.
    fn wanted_by(&self, entry: u32, slot: u16) -> Option<Wanted> {
        Some(self.wanted(entry)).filter(|wanted| wanted.route.is_some() && wanted.source != slot)
    }

    /// All that goes out, by entry.
    fn all(&self) -> impl Iterator<Item = (u32, Wanted)> {
        let numbered =
            (0..).zip(self.wanted.iter().flat_map(|page| page.as_deref().unwrap_or(&[Wanted::NOTHING; PAGE])));
        numbered.filter(|(_, wanted)| wanted.route.is_some()).map(|(entry, wanted)| (entry, *wanted))
    }

    fn set(&mut self, entry: u32, wanted: Wanted, routes: &mut Routes) {
        let number = entry as usize / PAGE;
        if number >= self.wanted.len() {
            self.wanted.resize_with(number + 1, || None);
        }
        let page = self.wanted[number].get_or_insert_with(|| Box::new([Wanted::NOTHING; PAGE]));
        routes.hold(wanted.route);
        let before = std::mem::replace(&mut page[entry as usize % PAGE], wanted);
        routes.release(before.route);
    }

    /// Whether the group still speaks of an entry.
    pub(super) fn knows(&self, entry: u32) -> bool {
        self.wanted(entry).route.is_some() || self.dirty.contains(entry)
    }
}

fn source_kind(slot: u16, peers: &[Option<Peer>]) -> From {
    match &peers[usize::from(slot)] {
        _ if usize::from(slot) < LOCALS.len() => From::Ourselves,
        Some(peer) if peer.options.is_internal() => From::Internal,
        Some(_) | None => From::External,
    }
}

impl Group {
    /// What is wanted for an entry now.
    fn weigh(&self, entry: u32, table: &Table, peers: &[Option<Peer>], routes: &Routes, default: RouteId) -> Wanted {
        if entry == DEFAULT_ENTRY && self.class.originates_default() {
            return Wanted { route: default, rule: ORIGINATED, source: 0 };
        }
        let Some((source, route)) = table.reported_best(entry) else { return Wanted::NOTHING };
        if self.members == [source] {
            return Wanted::NOTHING;
        }
        let prefix = table.keys.prefix(entry);
        let rule = self.class.permits(&prefix, &routes.at(route).attributes, source_kind(source, peers));
        rule.map_or(Wanted::NOTHING, |rule| Wanted { route, rule, source })
    }

    fn exported(&self, wanted: Wanted, routes: &Routes, peers: &[Option<Peer>]) -> (Arc<Attributes>, AnnouncedNextHop) {
        self.class.exported(routes.at(wanted.route), wanted.rule, wanted.from(peers))
    }

    /// The same, to be told: made once for all members.
    fn outgoing(&mut self, wanted: Wanted, routes: &Routes, peers: &[Option<Peer>]) -> Arc<Outgoing> {
        let (class, route, from) = (&self.class, routes.at(wanted.route), wanted.from(peers));
        let make = || Arc::new(Outgoing::new(class.exported(route, wanted.rule, from)));
        if self.members.len() < 2 { make() } else { self.looks.find(wanted, route, from, make) }
    }

    pub(super) fn side(&self, family: Family) -> &GroupSide {
        &self.sides[family as usize]
    }

    pub(super) fn side_mut(&mut self, family: Family) -> &mut GroupSide {
        &mut self.sides[family as usize]
    }
}

impl Rib {
    /// The next part of what the neighbour is to be told, of at most `limit` prefixes; `None`: it knows everything that
    /// [`Rib::poll_change`] has reported. After a session came up the first `None` is the moment for End-of-RIB.
    pub fn next_advertisement(&mut self, peer: PeerId, limit: usize) -> Option<Advertisement> {
        let slot = self.slot(peer)?;
        Family::ALL.into_iter().find_map(|family| self.next_of_family(slot, family, limit.max(1)))
    }

    /// Whether [`Rib::next_advertisement`] may have something; costs nothing.
    pub fn has_advertisement(&self, peer: PeerId) -> bool {
        let Some(peer) = self.slot(peer).and_then(|slot| self.peers[usize::from(slot)].as_ref()) else { return false };
        let Some(group) = peer.group.and_then(|group| self.groups[group].as_ref()) else { return false };
        let is_dirty = |family| !peer.side(family).dirty.is_empty() || !group.side(family).dirty.is_empty();
        Family::ALL.into_iter().any(|family| peer.speaks(family) && is_dirty(family))
    }

    /// The neighbour asks for everything again (RFC 2918 §4).
    pub fn readvertise(&mut self, peer: PeerId, family: Family) {
        let Some(slot) = self.slot(peer) else { return };
        let Some(peer) = self.peers[usize::from(slot)].as_mut().filter(|peer| peer.speaks(family)) else { return };
        let side = peer.side_mut(family);
        let told = std::mem::take(&mut side.told);
        side.dirty.extend(&told);
        side.told = told;
    }

    /// What a neighbour is told, in order, as far as it has been told.
    pub fn advertised(&self, peer: PeerId) -> impl Iterator<Item = (IpNet, Arc<Attributes>, AnnouncedNextHop)> {
        let slot = self.slot(peer);
        let peer = slot.and_then(|slot| self.peers[usize::from(slot)].as_ref());
        let group = peer.and_then(|peer| self.groups[peer.group?].as_ref());
        let of_family = move |family: Family| {
            let (Some(slot), Some(peer), Some(group)) = (slot, peer, group) else { return None };
            let (table, side) = (&self.tables[family as usize], group.side(family));
            let is_known = |entry: &u32| !peer.side(family).dirty.contains(*entry);
            let mut entries: Vec<_> = peer.side(family).told.iter().filter(is_known).collect();
            table.keys.sort(&mut entries);
            Some(entries.into_iter().filter_map(move |entry| {
                let wanted = side.wanted_by(entry, slot)?;
                let (attributes, next_hop) = group.exported(wanted, &self.routes, &self.peers);
                Some((table.keys.prefix(entry), attributes, next_hop))
            }))
        };
        Family::ALL.into_iter().filter_map(of_family).flatten()
    }

    fn next_of_family(&mut self, slot: u16, family: Family, limit: usize) -> Option<Advertisement> {
        let index = self.peers[usize::from(slot)].as_ref().filter(|peer| peer.speaks(family))?.group?;
        self.settle(index, family);
        loop {
            let group = self.groups[index].as_ref()?;
            let (table, known) = (&self.tables[family as usize], group.side(family));
            let side = self.peers[usize::from(slot)].as_mut()?.side_mut(family);
            if side.staged.is_empty() {
                side.staged = stage(side, known, slot);
            }
            let what = side.staged.last()?.what;
            let mut served = None;
            let alike = side.staged.iter().rev().take_while(|staged| staged.what == what).take(limit).count();
            let mut prefixes = Vec::with_capacity(alike);
            while prefixes.len() < limit
                && let Some(staged) = side.staged.pop_if(|staged| staged.what == what)
            {
                let wanted = known.wanted_by(staged.entry, slot);
                // What changed since it was staged is still dirty, and comes in the next round.
                if !side.dirty.contains(staged.entry) || wanted.map(|wanted| (wanted.route, wanted.rule)) != what {
                    continue;
                }
                served = wanted;
                side.dirty.remove(staged.entry);
                if what.is_some() {
                    side.told.insert(staged.entry);
                } else {
                    side.told.remove(staged.entry);
                }
                prefixes.push(table.keys.prefix(staged.entry));
            }
            if prefixes.is_empty() {
                continue;
            }
            let Some(wanted) = served else { return Some(Advertisement::Withdraw { family, prefixes }) };
            let route = self.groups[index].as_mut()?.outgoing(wanted, &self.routes, &self.peers);
            return Some(Advertisement::Announce { family, route, prefixes });
        }
    }

    /// Brings what a group wants up to what was reported, and marks what changed for its members.
    fn settle(&mut self, index: usize, family: Family) {
        let Some(mut group) = self.groups[index].take() else { return };
        let dirty = std::mem::take(&mut group.side_mut(family).dirty);
        let table = &self.tables[family as usize];
        let mut changed = Bits::default();
        for entry in dirty.iter() {
            let wanted = group.weigh(entry, table, &self.peers, &self.routes, self.default_route);
            let before = group.side(family).wanted(entry);
            if wanted == before {
                continue;
            }
            let looks_same = wanted.route.is_some()
                && before.route.is_some()
                && group.exported(wanted, &self.routes, &self.peers)
                    == group.exported(before, &self.routes, &self.peers);
            group.side_mut(family).set(entry, wanted, &mut self.routes);
            if !looks_same {
                changed.insert(entry);
            } else if wanted.source != before.source {
                for slot in [wanted.source, before.source] {
                    if group.members.contains(&slot)
                        && let Some(peer) = self.peers[usize::from(slot)].as_mut()
                    {
                        peer.side_mut(family).dirty.insert(entry);
                    }
                }
            }
        }
        if !changed.is_empty() {
            for &slot in &group.members {
                if let Some(peer) = self.peers[usize::from(slot)].as_mut().filter(|peer| peer.speaks(family)) {
                    peer.side_mut(family).dirty.extend(&changed);
                }
            }
        }
        self.groups[index] = Some(group);
    }

    /// Puts a neighbour that came up into its group: everything is to be told.
    pub(super) fn join_group(&mut self, slot: u16) {
        let Some(index) = self.enter_group(slot) else { return };
        for family in Family::ALL {
            let Some(group) = self.groups[index].as_ref() else { return };
            let Some(peer) = self.peers[usize::from(slot)].as_mut().filter(|peer| peer.speaks(family)) else {
                continue;
            };
            group.side(family).all().for_each(|(entry, _)| peer.side_mut(family).dirty.insert(entry));
        }
    }

    /// Takes a neighbour that went down out of its group, and forgets what it was told.
    pub(super) fn leave_group(&mut self, slot: u16) {
        let Some(peer) = self.peers[usize::from(slot)].as_mut() else { return };
        for family in Family::ALL {
            let side = peer.side_mut(family);
            (side.told, side.dirty, side.staged) = (Bits::default(), Bits::default(), Vec::new());
        }
        if let Some(index) = peer.group.take() {
            self.exit_group(slot, index);
        }
    }

    /// Moves a neighbour to the group that its options ask for now. It is told of the differences.
    pub(super) fn change_group(&mut self, slot: u16) {
        let Some(before) = self.peers[usize::from(slot)].as_ref().and_then(|peer| peer.group) else { return };
        Family::ALL.into_iter().for_each(|family| self.settle(before, family));
        let Some(after) = self.enter_group(slot) else { return };
        if after == before {
            return;
        }
        for family in Family::ALL {
            // To a new group everything is new; to this member only what differs from what it was told.
            let dirty = self.peers[usize::from(slot)].as_ref().map(|peer| peer.side(family).dirty.clone());
            self.settle(after, family);
            if let Some((peer, dirty)) = self.peers[usize::from(slot)].as_mut().zip(dirty) {
                peer.side_mut(family).dirty = dirty;
            }
            let (Some(old), Some(new)) = (&self.groups[before], &self.groups[after]) else { return };
            let Some(peer) = self.peers[usize::from(slot)].as_ref().filter(|peer| peer.speaks(family)) else {
                continue;
            };
            let mut different = Bits::default();
            let mut last = None;
            for entry in 0..self.tables[family as usize].bound() {
                let told = peer.side(family).told.contains(entry);
                let was = old.side(family).wanted_by(entry, slot).filter(|_| told);
                let is = new.side(family).wanted_by(entry, slot);
                let differs = match (was, is) {
                    (None, None) => told,
                    (Some(_), None) | (None, Some(_)) => true,
                    // Neighbouring entries are often alike.
                    (Some(was), Some(is)) => match last {
                        Some((same_was, same_is, differs)) if (same_was, same_is) == (was, is) => differs,
                        Some(_) | None => {
                            let differs = old.exported(was, &self.routes, &self.peers)
                                != new.exported(is, &self.routes, &self.peers);
                            last = Some((was, is, differs));
                            differs
                        }
                    },
                };
                if differs {
                    different.insert(entry);
                }
            }
            if let Some(peer) = self.peers[usize::from(slot)].as_mut() {
                peer.side_mut(family).dirty.extend(&different);
            }
        }
        self.exit_group(slot, before);
    }

    /// Makes a neighbour that is up a member of the group of its class; says which.
    fn enter_group(&mut self, slot: u16) -> Option<usize> {
        let peer = self.peers[usize::from(slot)].as_mut()?;
        let class = Class::of(&peer.options, &peer.session?, peer.is_draining, self.options.local_pref);
        let known = self.groups.iter().position(|group| group.as_ref().is_some_and(|group| group.class == class));
        let index = known.unwrap_or_else(|| {
            let free = self.groups.iter().position(Option::is_none);
            let index = free.unwrap_or(self.groups.len());
            if free.is_none() {
                self.groups.push(None);
            }
            self.groups[index] =
                Some(Group { class, members: Vec::new(), looks: Looks::default(), sides: Default::default() });
            index
        });
        if peer.group.replace(index) == Some(index) {
            return Some(index);
        }
        let group = self.groups[index].as_mut()?;
        // A group of one wants nothing of what this one announced itself: with the second member that is over.
        if group.members.len() < 2 {
            for family in Family::ALL {
                let entries = 0..self.tables[family as usize].bound();
                entries.for_each(|entry| group.side_mut(family).dirty.insert(entry));
            }
        }
        let place = group.members.partition_point(|&member| member < slot);
        group.members.insert(place, slot);
        Some(index)
    }

    fn exit_group(&mut self, slot: u16, index: usize) {
        let Some(group) = self.groups[index].as_mut() else { return };
        group.members.retain(|&member| member != slot);
        if group.members.is_empty() {
            let wanted = group.sides.iter().flat_map(GroupSide::all);
            wanted.for_each(|(_, wanted)| self.routes.release(wanted.route));
            self.groups[index] = None;
        }
    }

    /// Notes that something else is reported for an entry.
    pub(super) fn mark_groups(&mut self, family: Family, entry: u32) {
        self.groups.iter_mut().flatten().for_each(|group| group.side_mut(family).dirty.insert(entry));
    }
}

/// The next dirty entries in the order in which they go out, the last first.
fn stage(side: &mut Side, known: &GroupSide, slot: u16) -> Vec<Staged> {
    let (mut staged, mut idle) = (Vec::new(), Vec::new());
    for entry in side.dirty.iter() {
        if staged.len() == STAGE {
            break;
        }
        let what = known.wanted_by(entry, slot).map(|wanted| (wanted.route, wanted.rule));
        if what.is_some() || side.told.contains(entry) {
            staged.push(Staged { what, entry });
        } else {
            idle.push(entry);
        }
    }
    idle.into_iter().for_each(|entry| side.dirty.remove(entry));
    staged.sort_unstable_by_key(|staged| std::cmp::Reverse(*staged));
    staged
}
