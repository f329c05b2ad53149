//! Prefixes as they stand in messages: a length in bits, and as many octets as that needs (RFC 4271 §4.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Family;

/// A field of prefixes of one family that was found correct. It yields them without an allocation; bits behind a
/// prefix's length are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl<'a> Prefixes<'a> {
    /// No prefix of a family.
    pub const fn none(family: Family) -> Self {
        Self { family, bytes: &[] }
    }

    /// Takes a field; `None` where it is not syntactically correct (RFC 7606 §5.3): a prefix is longer than an address,
    /// or reaches beyond the field.
    pub fn parse(family: Family, bytes: &'a [u8]) -> Option<Self> {
        let longest = longest(family);
        let mut rest = bytes;
        while let Some((&bits, tail)) = rest.split_first() {
            if bits > longest {
                return None;
            }
            rest = tail.get(usize::from(bits.div_ceil(8))..)?;
        }
        Some(Self { family, bytes })
    }

    /// The family.
    pub const fn family(self) -> Family {
        self.family
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }
}

const fn longest(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

impl Iterator for Prefixes<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let (&bits, rest) = self.bytes.split_first()?;
        let (octets, rest) = rest.split_at_checked(usize::from(bits.div_ceil(8)))?;
        self.bytes = rest;
        match self.family {
            Family::Ipv4 => {
                let mut address = [0; 4];
                address.get_mut(..octets.len())?.copy_from_slice(octets);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                let address = Ipv4Addr::from_bits(u32::from_be_bytes(address) & mask);
                Ipv4Net::new(address, bits).ok().map(IpNet::V4)
            }
            Family::Ipv6 => {
                let mut address = [0; 16];
                address.get_mut(..octets.len())?.copy_from_slice(octets);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                let address = Ipv6Addr::from_bits(u128::from_be_bytes(address) & mask);
                Ipv6Net::new(address, bits).ok().map(IpNet::V6)
            }
        }
    }
}

/// The octets of a prefix in a message.
pub(super) fn len(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len().div_ceil(8))
}

/// Appends a prefix.
pub(super) fn write(out: &mut Vec<u8>, prefix: &IpNet) {
    let octets = usize::from(prefix.prefix_len().div_ceil(8));
    out.push(prefix.prefix_len());
    match prefix.network() {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()[..octets]),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()[..octets]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(family: Family, bytes: &[u8]) -> Option<Vec<String>> {
        Prefixes::parse(family, bytes).map(|prefixes| prefixes.map(|net| net.to_string()).collect())
    }

    #[test]
    fn prefixes_are_read_as_the_rfc_packs_them() {
        let bytes = [0, 8, 10, 24, 10, 50, 0, 12, 172, 0x1F, 32, 192, 0, 2, 1];
        let expected = ["0.0.0.0/0", "10.0.0.0/8", "10.50.0.0/24", "172.16.0.0/12", "192.0.2.1/32"];
        assert_eq!(nets(Family::Ipv4, &bytes).unwrap(), expected);
        assert_eq!(nets(Family::Ipv6, &[0, 33, 0x20, 1, 0xD, 0xB8, 0xFF]).unwrap(), ["::/0", "2001:db8:8000::/33"]);
    }

    #[test]
    fn a_prefix_too_long_or_cut_short_spoils_the_field() {
        for bytes in [&[33, 1, 2, 3, 4, 5][..], &[24, 10, 0], &[8, 10, 32], &[255], &[1]] {
            assert_eq!(nets(Family::Ipv4, bytes), None, "{bytes:?}");
        }
        assert_eq!(nets(Family::Ipv6, &[129; 20]), None);
    }

    proptest! {
        #[test]
        fn prefixes_come_back(nets in proptest::collection::vec((any::<u128>(), 0..=128u8, any::<bool>()), 0..20)) {
            for family in Family::ALL {
                let wanted: Vec<IpNet> = nets.iter().map(|&(bits, len, _)| match family {
                    Family::Ipv4 => Ipv4Net::new(Ipv4Addr::from_bits(bits as u32), len % 33).unwrap().trunc().into(),
                    Family::Ipv6 => Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap().trunc().into(),
                }).collect();
                let mut bytes = Vec::new();
                wanted.iter().for_each(|net| write(&mut bytes, net));
                prop_assert_eq!(bytes.len(), wanted.iter().map(len).sum::<usize>());
                prop_assert_eq!(Prefixes::parse(family, &bytes).unwrap().collect::<Vec<_>>(), wanted);
            }
        }

        #[test]
        fn what_parses_yields_as_many_as_it_has(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for family in Family::ALL {
                if let Some(prefixes) = Prefixes::parse(family, &bytes) {
                    prop_assert!(prefixes.map(|net| len(&net)).sum::<usize>() == bytes.len());
                }
            }
        }
    }
}
