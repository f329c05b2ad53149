//! Views for people: what `show` commands ask.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::decision::{Candidate, is_usable, select};
use super::table::{NIL, PathRecord};
use super::{Path, PeerId, PrefixCounts, Rib, Standing};
use crate::Family;

impl Rib {
    /// The paths of a prefix as they stand now: the best first, those that take no part last.
    pub fn lookup(&self, prefix: IpNet) -> Vec<Path> {
        let family = Family::of(&prefix);
        let Some(entry) = self.tables[family as usize].keys.find(&prefix) else { return Vec::new() };
        self.ranked(family, entry).into_iter().map(|(_, path)| path).collect()
    }

    /// The longest prefix with a path that contains the address.
    pub fn longest_match(&self, address: IpAddr) -> Option<IpNet> {
        let table = &self.tables[usize::from(address.is_ipv6())];
        let entry = table.keys.containing(address).find(|&entry| table.has_path(entry))?;
        Some(table.keys.prefix(entry))
    }

    /// All prefixes of a family that have a path, in order.
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let table = &self.tables[family as usize];
        let mut entries: Vec<_> = (0..table.bound()).filter(|&entry| table.has_path(entry)).collect();
        table.keys.sort(&mut entries);
        entries.into_iter().map(|entry| table.keys.prefix(entry)).collect()
    }

    /// How many prefixes of a family have a path.
    pub fn prefix_count(&self, family: Family) -> usize {
        let table = &self.tables[family as usize];
        (0..table.bound()).filter(|&entry| table.has_path(entry)).count()
    }

    /// What a neighbour announced, in order.
    pub fn received(&self, peer: PeerId) -> impl Iterator<Item = (IpNet, Path)> {
        let slot = self.slot(peer);
        let of_family = move |family: Family| {
            let table = &self.tables[family as usize];
            let mut entries = Vec::new();
            let mut next = self.peer(peer).map_or(NIL, |peer| peer.side(family).chain);
            while next != NIL {
                entries.push(table.path(next).entry);
                next = table.next_in_chain(next);
            }
            table.keys.sort(&mut entries);
            entries.into_iter().filter_map(move |entry| {
                let (_, path) = self.ranked(family, entry).into_iter().find(|(from, _)| Some(*from) == slot)?;
                Some((table.keys.prefix(entry), path))
            })
        };
        Family::ALL.into_iter().flat_map(of_family)
    }

    /// Counts of a neighbour; zeros where there is none.
    pub fn counts(&self, peer: PeerId, family: Family) -> PrefixCounts {
        let Some(peer) = self.peer(peer) else { return PrefixCounts::default() };
        let side = peer.side(family);
        let advertised = u32::try_from(side.told.count()).unwrap_or(u32::MAX);
        PrefixCounts { received: side.fresh, stale: side.stale, accepted: side.accepted, advertised }
    }

    /// How many different combinations of attributes and next hop are kept.
    pub fn attribute_count(&self) -> usize {
        self.routes.count()
    }

    /// The paths of an entry with their slots: by the decision, then those that take no part.
    fn ranked(&self, family: Family, entry: u32) -> Vec<(u16, Path)> {
        let table = &self.tables[family as usize];
        let all = || table.paths_of(entry);
        let candidate = |path| Candidate::of(path, &self.peers, &self.routes, &self.options);
        let mut candidates: Vec<_> = all().filter_map(candidate).collect();
        let used = select(&mut candidates, &self.options);
        let of_slot = |slot: u16| all().find(|path| path.slot == slot);
        let standing = |place: usize| match place {
            0 => Standing::Best,
            _ if place < used => Standing::Multipath,
            _ => Standing::Valid,
        };
        let weighed = (0..).zip(&candidates).filter_map(|(place, one)| Some((of_slot(one.slot)?, standing(place))));
        let idle = all()
            .filter(|path| !is_usable(path, &self.peers))
            .map(|path| (path, if path.accepted.is_some() { Standing::Unreachable } else { Standing::Rejected }));
        weighed.chain(idle).filter_map(|(path, standing)| Some((path.slot, self.shown(path, standing)?))).collect()
    }

    fn shown(&self, path: &PathRecord, standing: Standing) -> Option<Path> {
        let received = self.routes.at(path.received);
        Some(Path {
            source: self.source(path.slot)?,
            next_hop: received.next_hop,
            received: Arc::clone(&received.attributes),
            accepted: path.accepted.some().map(|accepted| Arc::clone(&self.routes.at(accepted).attributes)),
            standing,
            stale: path.marks != 0,
        })
    }
}
