//! Something for each of many places, in order: [`Places`].
//!
//! A million routes have few tables and metrics between them, so those stand once, and a place itself takes 5 bytes
//! (IPv4) or 17. With the places as they are in one tree, the mirror of a million routes took 150 MB; like this, 50.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use os::netlink::Place;

/// Table and metric.
type Shelf = (u32, u32);

/// An address, and the length of the prefix. Without alignment, so that nothing is wasted between them.
type Key<const N: usize> = ([u8; N], u8);

/// A map of places, sorted by table and metric, then by prefix, IPv4 first.
#[derive(Debug)]
pub(super) struct Places<T> {
    v4: BTreeMap<Shelf, BTreeMap<Key<4>, T>>,
    v6: BTreeMap<Shelf, BTreeMap<Key<16>, T>>,
}

/// A place taken apart.
enum Parts {
    V4(Shelf, Key<4>),
    V6(Shelf, Key<16>),
}

fn parts(place: Place) -> Parts {
    let shelf = (place.table, place.metric);
    match place.destination {
        IpNet::V4(net) => Parts::V4(shelf, (net.addr().octets(), net.prefix_len())),
        IpNet::V6(net) => Parts::V6(shelf, (net.addr().octets(), net.prefix_len())),
    }
}

fn whole((table, metric): Shelf, address: impl Into<IpAddr>, len: u8) -> Place {
    let address = address.into();
    // The length was that of a prefix when it was put in.
    let destination = IpNet::new(address, len).unwrap_or_else(|_| address.into());
    Place { table, destination, metric }
}

impl<T> Places<T> {
    pub(super) const fn new() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }

    pub(super) fn get(&self, place: Place) -> Option<&T> {
        match parts(place) {
            Parts::V4(shelf, key) => self.v4.get(&shelf)?.get(&key),
            Parts::V6(shelf, key) => self.v6.get(&shelf)?.get(&key),
        }
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        match parts(place) {
            Parts::V4(shelf, key) => self.v4.get_mut(&shelf)?.get_mut(&key),
            Parts::V6(shelf, key) => self.v6.get_mut(&shelf)?.get_mut(&key),
        }
    }

    /// What is there, or `make` once it is put there.
    pub(super) fn get_or_insert_with(&mut self, place: Place, make: impl FnOnce() -> T) -> &mut T {
        match parts(place) {
            Parts::V4(shelf, key) => self.v4.entry(shelf).or_default().entry(key).or_insert_with(make),
            Parts::V6(shelf, key) => self.v6.entry(shelf).or_default().entry(key).or_insert_with(make),
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        match parts(place) {
            Parts::V4(shelf, key) => take(&mut self.v4, shelf, &key),
            Parts::V6(shelf, key) => take(&mut self.v6, shelf, &key),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &T)> {
        let v4 = self.v4.iter().flat_map(|(shelf, map)| {
            map.iter().map(|((octets, len), value)| (whole(*shelf, Ipv4Addr::from(*octets), *len), value))
        });
        let v6 = self.v6.iter().flat_map(|(shelf, map)| {
            map.iter().map(|((octets, len), value)| (whole(*shelf, Ipv6Addr::from(*octets), *len), value))
        });
        v4.chain(v6)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Place, &mut T)> {
        let v4 = self.v4.iter_mut().flat_map(|(shelf, map)| {
            map.iter_mut().map(|((octets, len), value)| (whole(*shelf, Ipv4Addr::from(*octets), *len), value))
        });
        let v6 = self.v6.iter_mut().flat_map(|(shelf, map)| {
            map.iter_mut().map(|((octets, len), value)| (whole(*shelf, Ipv6Addr::from(*octets), *len), value))
        });
        v4.chain(v6)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.v4.values().flat_map(BTreeMap::values).chain(self.v6.values().flat_map(BTreeMap::values))
    }
}

/// Takes one out, and the shelf with the last on it.
fn take<K: Ord, T>(shelves: &mut BTreeMap<Shelf, BTreeMap<K, T>>, shelf: Shelf, key: &K) -> Option<T> {
    let map = shelves.get_mut(&shelf)?;
    let taken = map.remove(key);
    if map.is_empty() {
        shelves.remove(&shelf);
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        let net = (any::<bool>(), 0..4u8, 0..=32u8).prop_map(|(is_v4, octet, len)| {
            let ip = if is_v4 { IpAddr::from([octet, 0, 0, 1]) } else { Ipv6Addr::from([octet; 16]).into() };
            IpNet::new(ip, len).unwrap()
        });
        (0..3u32, net, 0..3u32).prop_map(|(table, net, metric)| Place::new(table, net, metric))
    }

    proptest! {
        /// It is the map of the standard library, in another order.
        #[test]
        fn places_are_a_map(steps in proptest::collection::vec((0..3u8, place(), any::<u16>()), 0..200)) {
            let (mut places, mut model) = (Places::new(), BTreeMap::new());
            for (what, place, value) in steps {
                match what {
                    0 => {
                        *places.get_or_insert_with(place, || 0) += u32::from(value);
                        *model.entry(place).or_insert(0) += u32::from(value);
                    }
                    1 => prop_assert_eq!(places.remove(place), model.remove(&place)),
                    _ => {
                        prop_assert_eq!(places.get_mut(place).map(|one| *one += 1), model.get_mut(&place).map(|one| *one += 1));
                    }
                }
                prop_assert_eq!(places.get(place), model.get(&place));
            }
            prop_assert_eq!(places.values().count(), model.len());
            places.iter_mut().for_each(|(place, value)| *value ^= place.metric);
            model.iter_mut().for_each(|(place, value)| *value ^= place.metric);
            prop_assert_eq!(places.iter().map(|(place, value)| (place, *value)).collect::<BTreeMap<_, _>>(), model);
        }
    }
}
