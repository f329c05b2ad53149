//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

/// A running one's complement sum of 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The pseudo header of IPv4 (RFC 768) and IPv6 (RFC 8200 §8.1), which add up alike.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        let mut sum = Self::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(v4) => sum.add(&v4.octets()),
                IpAddr::V6(v6) => sum.add(&v6.octets()),
            }
        }
        sum.add_u16(u16::from(protocol));
        sum.add(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        sum
    }

    /// Adds bytes. A part with an odd length counts as if a zero byte followed, so only the last
    /// part may have one.
    pub fn add(&mut self, bytes: &[u8]) {
        // Words are summed in the machine's own order and turned once at the end (RFC 1071 §2 B). Several sums side by
        // side fill the machine: with one, each addition waits for the one before.
        let mut lanes = [0u64; 16];
        let mut blocks = bytes.chunks_exact(64);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut words = blocks.remainder().chunks_exact(4);
        let mut sum: u64 = lanes.iter().sum();
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut last = [0; 4];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.0 = fold32(sum + u64::from(u32::from_ne_bytes(last))) + fold32(self.0);
    }

    /// Adds one word.
    pub fn add_u16(&mut self, word: u16) {
        self.0 = fold32(self.0) + u64::from(word.to_be());
    }

    /// The sum itself, not complemented: what a checksum field holds that is left open.
    pub fn open(self) -> u16 {
        !self.finish()
    }

    /// The checksum: the complement of the sum. Over data that contains a correct checksum it is 0.
    pub fn finish(self) -> u16 {
        !u16::from_be(fold16(self.0))
    }
}

const fn fold32(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

const fn fold16(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of `bytes`.
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.finish()
}

/// Completes a checksum that was left open: everything from `start` on is summed up, the word at `start + offset`, which
/// holds the sum of the pseudo header, included, and the checksum is put there. False when it lies outside of the packet.
pub fn complete(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let at = start.saturating_add(offset);
    if at + 2 > packet.len() {
        return false;
    }
    // RFC 768: a computed 0 of UDP is sent as all ones; elsewhere both mean the same.
    let checksum = match of(&packet[start..]) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// The checksum after one of the words it covers changed from `old` to `new`.
// RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m'). It never yields a wrong zero as RFC 1141 does.
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold16(!checksum as u64 + !old as u64 + new as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        // RFC 1071 §3: the sum is ddf2.
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates() {
        // RFC 1624 §4: m = 5555, m' = 3285, HC = DD2F; the right answer is 0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0);
    }

    proptest! {
        #[test]
        fn a_sum_is_the_same_as_word_by_word(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut sum = 0u32;
            for pair in bytes.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(of(&bytes), !(sum as u16));
        }

        #[test]
        fn a_sum_may_be_taken_in_even_parts(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let mut sum = Sum::new();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            prop_assert_eq!(sum.finish(), of(&bytes));
        }

        #[test]
        fn an_updated_checksum_is_the_one_computed_anew(
            mut bytes in prop::collection::vec(any::<u8>(), 40),
            at in 0usize..20,
            new in any::<u16>(),
        ) {
            bytes[0] = 0x45; // An IP header is never all zero, which the two would represent differently.
            bytes[1] = 1;
            let at = at.max(1) * 2;
            let before = of(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), of(&bytes));
        }
    }
}
