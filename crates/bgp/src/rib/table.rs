//! The paths of one family: a chain for each prefix, and a chain for each of those from whom they are.
//!
//! Most prefixes have one path, so everything is flat: 12 bytes and a key for a prefix, 28 for a path, no boxes.

use super::keys::Keys;
use super::routes::RouteId;
use crate::Family;

/// No entry, no path.
pub(super) const NIL: u32 = u32::MAX;
/// Nobody.
pub(super) const NOBODY: u16 = u16::MAX;

/// The path survived its session, which may come back (RFC 4724).
pub(super) const RESTARTING: u16 = 1;
/// The path was not yet announced anew in a refresh (RFC 7313).
pub(super) const REFRESHING: u16 = 2;
/// The path outlived the restart time (RFC 9494).
pub(super) const LONG_LIVED: u16 = 4;

/// What is in use for a prefix, as it was last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    Nothing,
    /// A path's slot and route.
    One(u16, RouteId),
    /// Several, the best first, by their place among the sets.
    Several(u32),
}

/// A prefix.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first: u32,
    /// A route, or the place of a set.
    reported: u32,
    /// Whose route; `NOBODY`: nothing was reported.
    from: u16,
    is_queued: bool,
    is_several: bool,
}

/// A route of one prefix from one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathRecord {
    pub(super) entry: u32,
    next_of_entry: u32,
    before_of_source: u32,
    next_of_source: u32,
    pub(super) received: RouteId,
    /// What policy made of it; `NONE`: it did not pass.
    pub(super) accepted: RouteId,
    pub(super) slot: u16,
    pub(super) marks: u16,
}

/// A chain of one source's paths.
pub(super) type Chain = u32;

/// The prefixes and paths of one family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) keys: Keys,
    entries: Vec<Entry>,
    paths: Vec<PathRecord>,
    free_paths: Vec<u32>,
    sets: Vec<Box<[(u16, RouteId)]>>,
    free_sets: Vec<u32>,
}

impl Table {
    pub(super) fn new(family: Family) -> Self {
        Self {
            keys: Keys::new(family),
            entries: Vec::new(),
            paths: Vec::new(),
            free_paths: Vec::new(),
            sets: Vec::new(),
            free_sets: Vec::new(),
        }
    }

    /// An entry for a prefix that has none. `None`: the prefix is of the other family.
    pub(super) fn add_entry(&mut self, prefix: &ipnet::IpNet) -> Option<u32> {
        let number = self.keys.insert(prefix)?;
        let empty = Entry { first: NIL, reported: NIL, from: NOBODY, is_queued: false, is_several: false };
        match self.entries.get_mut(number as usize) {
            Some(entry) => *entry = empty,
            None => self.entries.push(empty),
        }
        Some(number)
    }

    /// Numbers of entries are below this.
    pub(super) fn bound(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn path(&self, id: u32) -> &PathRecord {
        &self.paths[id as usize]
    }

    pub(super) fn path_mut(&mut self, id: u32) -> &mut PathRecord {
        &mut self.paths[id as usize]
    }

    /// The paths of an entry.
    pub(super) fn paths_of(&self, entry: u32) -> impl Iterator<Item = &PathRecord> {
        std::iter::successors(self.link(self.entries[entry as usize].first), |path| self.link(path.next_of_entry))
    }

    fn link(&self, id: u32) -> Option<&PathRecord> {
        (id != NIL).then(|| &self.paths[id as usize])
    }

    /// The path of an entry from a source.
    pub(super) fn find_path(&self, entry: u32, slot: u16) -> Option<u32> {
        let mut id = self.entries[entry as usize].first;
        while let Some(path) = self.link(id) {
            if path.slot == slot {
                return Some(id);
            }
            id = path.next_of_entry;
        }
        None
    }

    /// The path behind this one in its source's chain.
    pub(super) fn next_in_chain(&self, id: u32) -> u32 {
        self.paths[id as usize].next_of_source
    }

    /// Puts a path into its entry's chain and its source's.
    pub(super) fn add_path(&mut self, chain: &mut Chain, entry: u32, slot: u16, received: RouteId, accepted: RouteId) {
        let first = &mut self.entries[entry as usize].first;
        let path = PathRecord {
            entry,
            next_of_entry: *first,
            before_of_source: NIL,
            next_of_source: *chain,
            received,
            accepted,
            slot,
            marks: 0,
        };
        let id = self.free_paths.pop().unwrap_or(self.paths.len() as u32);
        *first = id;
        if *chain != NIL {
            self.paths[*chain as usize].before_of_source = id;
        }
        *chain = id;
        match self.paths.get_mut(id as usize) {
            Some(place) => *place = path,
            None => self.paths.push(path),
        }
    }

    /// Takes a path out of both chains.
    pub(super) fn remove_path(&mut self, chain: &mut Chain, id: u32) -> PathRecord {
        let path = self.paths[id as usize];
        match path.before_of_source {
            NIL => *chain = path.next_of_source,
            before => self.paths[before as usize].next_of_source = path.next_of_source,
        }
        if path.next_of_source != NIL {
            self.paths[path.next_of_source as usize].before_of_source = path.before_of_source;
        }
        let first = self.entries[path.entry as usize].first;
        if first == id {
            self.entries[path.entry as usize].first = path.next_of_entry;
        } else {
            let mut before = first;
            while self.paths[before as usize].next_of_entry != id {
                before = self.paths[before as usize].next_of_entry;
            }
            self.paths[before as usize].next_of_entry = path.next_of_entry;
        }
        self.free_paths.push(id);
        path
    }

    /// Notes that the entry waits for the decision; `false`: it did already.
    pub(super) fn mark_queued(&mut self, entry: u32) -> bool {
        !std::mem::replace(&mut self.entries[entry as usize].is_queued, true)
    }

    pub(super) fn mark_decided(&mut self, entry: u32) {
        self.entries[entry as usize].is_queued = false;
    }

    /// Whether the entry has no path and nothing was reported that has not been taken back.
    pub(super) fn is_vacant(&self, entry: u32) -> bool {
        let Entry { first, from, is_queued, .. } = self.entries[entry as usize];
        first == NIL && from == NOBODY && !is_queued
    }

    /// Whether the entry has a path.
    pub(super) fn has_path(&self, entry: u32) -> bool {
        self.entries[entry as usize].first != NIL
    }

    pub(super) fn reported(&self, entry: u32) -> Reported {
        let Entry { reported, from, is_several, .. } = self.entries[entry as usize];
        match (from, is_several) {
            (NOBODY, _) => Reported::Nothing,
            (_, true) => Reported::Several(reported),
            (slot, false) => Reported::One(slot, RouteId::from_place(reported)),
        }
    }

    /// The reported paths of an entry, the best first.
    pub(super) fn reported_paths(&self, entry: u32) -> ReportedPaths<'_> {
        match self.reported(entry) {
            Reported::Nothing => ReportedPaths::Few(None),
            Reported::One(slot, route) => ReportedPaths::Few(Some([(slot, route)])),
            Reported::Several(set) => ReportedPaths::Set(&self.sets[set as usize]),
        }
    }

    /// The slot and the route of the best path that was reported.
    pub(super) fn reported_best(&self, entry: u32) -> Option<(u16, RouteId)> {
        self.reported_paths(entry).as_slice().first().copied()
    }

    /// Notes what is reported now. Holds of routes are the caller's business.
    pub(super) fn report(&mut self, entry: u32, paths: &[(u16, RouteId)]) {
        if let Reported::Several(set) = self.reported(entry) {
            self.sets[set as usize] = Box::default();
            self.free_sets.push(set);
        }
        let place = &mut self.entries[entry as usize];
        match paths {
            [] => (place.from, place.is_several) = (NOBODY, false),
            [(slot, route)] => (place.from, place.reported, place.is_several) = (*slot, route.place(), false),
            [(slot, _), ..] => {
                let set = self.free_sets.pop().unwrap_or(self.sets.len() as u32);
                (place.from, place.reported, place.is_several) = (*slot, set, true);
                match self.sets.get_mut(set as usize) {
                    Some(old) => *old = paths.into(),
                    None => self.sets.push(paths.into()),
                }
            }
        }
    }
}

/// Reported paths of one entry.
pub(super) enum ReportedPaths<'a> {
    Few(Option<[(u16, RouteId); 1]>),
    Set(&'a [(u16, RouteId)]),
}

impl ReportedPaths<'_> {
    pub(super) fn as_slice(&self) -> &[(u16, RouteId)] {
        match self {
            Self::Few(None) => &[],
            Self::Few(Some(one)) => one,
            Self::Set(set) => set,
        }
    }
}
