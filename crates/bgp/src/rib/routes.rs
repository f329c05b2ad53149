//! Attributes with a next hop, each kept once however many prefixes have them.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{Asn, Attributes, Community};

/// A kept route, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteId(u32);

impl RouteId {
    /// No route.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// The route at a place that [`RouteId::place`] told.
    pub(super) fn from_place(place: u32) -> Self {
        Self(place)
    }

    pub(super) fn place(self) -> u32 {
        self.0
    }

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }

    pub(super) fn some(self) -> Option<Self> {
        self.is_some().then_some(self)
    }
}

/// Attributes and a next hop, with what the decision asks of them.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) attributes: Arc<Attributes>,
    pub(super) next_hop: Option<IpAddr>,
    /// Length of the AS_PATH.
    pub(super) path_length: u32,
    /// The AS it came from; 0 where the path tells none.
    pub(super) neighbor_as: Asn,
    /// How many hold it.
    holds: u32,
    hash: u64,
}

impl Route {
    pub(super) fn is_long_lived_stale(&self) -> bool {
        self.attributes.communities.contains(&Community::LLGR_STALE)
    }
}

/// All kept routes. The order of the hash table is never seen: routes are found by content and named by place.
#[derive(Debug, Default)]
pub(super) struct Routes {
    slots: Vec<Option<Route>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Routes {
    /// The place of these contents, held once more.
    pub(super) fn hold_content(&mut self, attributes: &Arc<Attributes>, next_hop: Option<IpAddr>) -> RouteId {
        let hash = self.hasher.hash_one((attributes, next_hop));
        let slots = &mut self.slots;
        let is_same = |&place: &u32| {
            slots[place as usize].as_ref().is_some_and(|route| {
                route.hash == hash
                    && route.next_hop == next_hop
                    && (Arc::ptr_eq(&route.attributes, attributes) || route.attributes == *attributes)
            })
        };
        if let Some(&place) = self.index.find(hash, is_same) {
            self.hold(RouteId(place));
            return RouteId(place);
        }
        let route = Route {
            path_length: attributes.as_path.length(),
            neighbor_as: attributes.as_path.neighbor_as().unwrap_or(0),
            attributes: Arc::clone(attributes),
            next_hop,
            holds: 1,
            hash,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            slots.push(None);
            (slots.len() - 1) as u32
        });
        slots[place as usize] = Some(route);
        let hash_of = |&place: &u32| slots[place as usize].as_ref().map_or(0, |route| route.hash);
        self.index.insert_unique(hash, place, hash_of);
        RouteId(place)
    }

    /// Holds a kept route once more.
    pub(super) fn hold(&mut self, id: RouteId) {
        if let Some(Some(route)) = self.slots.get_mut(id.0 as usize) {
            route.holds += 1;
        }
    }

    /// Lets go of a route; without any hold it is kept no longer.
    pub(super) fn release(&mut self, id: RouteId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        let Some(route) = slot else { return };
        route.holds -= 1;
        if route.holds == 0 {
            let hash = route.hash;
            *slot = None;
            if let Ok(entry) = self.index.find_entry(hash, |&place| place == id.0) {
                entry.remove();
            }
            self.free.push(id.0);
        }
    }

    /// A kept route.
    ///
    /// # Panics
    ///
    /// Nobody holds it.
    pub(super) fn at(&self, id: RouteId) -> &Route {
        self.slots[id.0 as usize].as_ref().expect("whoever names a route holds it")
    }

    /// How many different routes are kept.
    pub(super) fn count(&self) -> usize {
        self.index.len()
    }
}
