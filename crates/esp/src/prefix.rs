//! A map keyed by prefixes, asked for every prefix that contains an address, longest first.

use std::collections::HashMap;
use std::net::IpAddr;

/// An address range as the shortest prefix that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix {
    is_v4: bool,
    /// The address with its host bits cleared, left-aligned.
    bits: u128,
    len: u8,
}

impl Prefix {
    /// The shortest prefix with both addresses, which are of one family.
    pub(crate) fn covering(first: IpAddr, last: IpAddr) -> Self {
        let (a, b) = (left_aligned(first), left_aligned(last));
        let width = if first.is_ipv4() { 32 } else { 128 };
        let len = ((a ^ b).leading_zeros() as u8).min(width);
        Self { is_v4: first.is_ipv4(), bits: a & mask(len), len }
    }

    /// Its length in bits.
    #[cfg(test)]
    pub(crate) const fn len(self) -> u8 {
        self.len
    }
}

const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The map. A lookup costs one hash a prefix length that is in use, of which real tables have few.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<V> {
    v4: Vec<(u8, HashMap<u128, V>)>,
    v6: Vec<(u8, HashMap<u128, V>)>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V: Default> PrefixMap<V> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The value of a prefix, made if it is not there.
    pub(crate) fn entry(&mut self, prefix: Prefix) -> &mut V {
        let lengths = self.family_mut(prefix.is_v4);
        let at = match lengths.binary_search_by(|(len, _)| prefix.len.cmp(len)) {
            Ok(at) => at,
            Err(at) => {
                lengths.insert(at, (prefix.len, HashMap::new()));
                at
            }
        };
        lengths[at].1.entry(prefix.bits).or_default()
    }

    /// Changes the value of a prefix, and forgets the prefix when `change` says so.
    pub(crate) fn shrink(&mut self, prefix: Prefix, change: impl FnOnce(&mut V) -> bool) {
        let lengths = self.family_mut(prefix.is_v4);
        let Some(at) = lengths.iter().position(|(len, _)| *len == prefix.len) else { return };
        let map = &mut lengths[at].1;
        if map.get_mut(&prefix.bits).is_some_and(change) {
            map.remove(&prefix.bits);
        }
        if map.is_empty() {
            lengths.remove(at);
        }
    }

    /// The values of all prefixes that contain `address`, longest first.
    pub(crate) fn matches(&self, address: IpAddr) -> impl Iterator<Item = &V> {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let bits = left_aligned(address);
        lengths.iter().filter_map(move |(len, map)| map.get(&(bits & mask(*len))))
    }

    const fn family_mut(&mut self, is_v4: bool) -> &mut Vec<(u8, HashMap<u128, V>)> {
        if is_v4 { &mut self.v4 } else { &mut self.v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(first: &str, last: &str) -> Prefix {
        Prefix::covering(first.parse().unwrap(), last.parse().unwrap())
    }

    #[test]
    fn the_covering_prefix_is_the_shortest() {
        assert_eq!(prefix("10.0.0.0", "10.0.255.255").len(), 16);
        assert_eq!(prefix("10.0.0.1", "10.0.0.1").len(), 32);
        assert_eq!(prefix("10.0.0.1", "10.0.0.9").len(), 28);
        assert_eq!(prefix("0.0.0.0", "255.255.255.255").len(), 0);
        assert_eq!(prefix("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff").len(), 32);
        assert_eq!(prefix("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").len(), 0);
    }

    #[test]
    fn longer_prefixes_come_first_and_families_do_not_mix() {
        let mut map = PrefixMap::<u8>::default();
        *map.entry(prefix("10.0.0.0", "10.255.255.255")) = 8;
        *map.entry(prefix("0.0.0.0", "255.255.255.255")) = 0;
        *map.entry(prefix("10.1.0.0", "10.1.255.255")) = 16;
        *map.entry(prefix("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) = 66;
        let found = |map: &PrefixMap<u8>, ip: &str| map.matches(ip.parse().unwrap()).copied().collect::<Vec<_>>();
        assert_eq!(found(&map, "10.1.2.3"), [16, 8, 0]);
        assert_eq!(found(&map, "11.1.2.3"), [0]);
        assert_eq!(found(&map, "a00::1"), [66]);
        map.shrink(prefix("10.0.0.0", "10.255.255.255"), |_| true);
        assert_eq!(found(&map, "10.1.2.3"), [16, 0]);
    }
}
