//! The layout of an ESP packet and the room it takes (RFC 4303 §2, RFC 3948 §2).
//!
//! ```text
//! | SPI 4 | sequence 4 | IV | inner packet | padding | pad length 1 | next header 1 | ICV |
//!                           '------------ encrypted ------------------------------'
//! '---------------------------- authenticated --------------------------------'
//! ```

use std::net::{IpAddr, Ipv6Addr};

use sa::{ChildSuite, Path, Spi};

/// Bytes of SPI and sequence number.
pub const HEADER: usize = 8;
/// Bytes of pad length and next header.
pub const TRAILER: usize = 2;
/// Bytes of a UDP header around ESP.
const UDP: usize = 8;

/// Where the parts of a packet lie for one suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    iv_len: usize,
    icv_len: usize,
    align: usize,
}

impl Layout {
    /// The layout that a suite asks for.
    pub const fn of(suite: ChildSuite) -> Self {
        let icv_len = match suite.integrity {
            Some(integrity) => integrity.icv_len(),
            None => suite.encryption.tag_len(),
        };
        let block = suite.encryption.block_len();
        // RFC 4303 §2.4: the trailer ends at a multiple of four whatever the cipher.
        Self { iv_len: suite.encryption.iv_len(), icv_len, align: if block < 4 { 4 } else { block } }
    }

    /// Where the inner packet begins.
    pub const fn payload_at(self) -> usize {
        HEADER + self.iv_len
    }

    /// Bytes of the checksum at the end.
    pub const fn icv_len(self) -> usize {
        self.icv_len
    }

    /// Bytes of padding behind an inner packet of `inner` bytes: 0..=15.
    pub const fn pad_len(self, inner: usize) -> usize {
        (inner + TRAILER).next_multiple_of(self.align) - (inner + TRAILER)
    }

    /// Bytes of the ESP packet around an inner packet of `inner` bytes.
    pub const fn sealed_len(self, inner: usize) -> usize {
        self.payload_at() + (inner + TRAILER).next_multiple_of(self.align) + self.icv_len
    }

    /// The largest inner packet whose ESP packet has at most `sealed` bytes; 0 when there is none.
    pub const fn largest_inner(self, sealed: usize) -> usize {
        let encrypted = sealed.saturating_sub(self.payload_at() + self.icv_len);
        (encrypted - encrypted % self.align).saturating_sub(TRAILER)
    }

    /// Whether an ESP packet of this length can have been made with the suite.
    pub(crate) const fn fits(self, sealed: usize) -> bool {
        let frame = self.payload_at() + self.icv_len;
        // An AEAD peer that aligns to less than four is let through: nothing depends on it.
        let block = if self.align > 4 { self.align } else { 1 };
        sealed >= frame + TRAILER && (sealed - frame).is_multiple_of(block)
    }
}

/// Bytes around ESP: the outer IP header, and the UDP header where there is one.
pub const fn outer_overhead(path: &Path) -> usize {
    let ip = match path.remote.ip() {
        IpAddr::V4(_) => 20,
        IpAddr::V6(address) => ip_overhead_v6(address),
    };
    if path.udp { ip + UDP } else { ip }
}

/// A mapped IPv4 address, as dual-stack sockets show it, travels in an IPv4 packet.
const fn ip_overhead_v6(address: Ipv6Addr) -> usize {
    if address.to_ipv4_mapped().is_some() { 20 } else { 40 }
}

/// The largest inner packet that passes a path with this outer MTU unfragmented.
pub const fn inner_mtu(suite: ChildSuite, path: &Path, outer_mtu: usize) -> usize {
    Layout::of(suite).largest_inner(outer_mtu.saturating_sub(outer_overhead(path)))
}

/// The SPI of an ESP packet; `None` when it is too short.
pub fn spi(packet: &[u8]) -> Option<Spi> {
    packet.first_chunk().map(|spi| Spi(u32::from_be_bytes(*spi)))
}

/// What a UDP datagram on the NAT traversal port holds (RFC 3948 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulated<'a> {
    /// Keeps a NAT mapping open and says nothing.
    Keepalive,
    /// An IKE message, the marker of four zero bytes cut off.
    Ike(&'a [u8]),
    /// An ESP packet.
    Esp,
    /// Too short for either.
    Malformed,
}

/// Tells apart what a UDP datagram on the NAT traversal port holds.
pub fn classify(datagram: &[u8]) -> Encapsulated<'_> {
    match datagram {
        [0xff] => Encapsulated::Keepalive,
        [0, 0, 0, 0, message @ ..] => Encapsulated::Ike(message),
        [_, _, _, _, _, _, _, _, ..] => Encapsulated::Esp,
        _ => Encapsulated::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use base::algorithm::{Encryption, Integrity};
    use proptest::prelude::*;

    use super::*;

    fn suites() -> Vec<ChildSuite> {
        let mut all = Vec::new();
        for encryption in Encryption::ALL {
            let integrities = if encryption.is_aead() { vec![None] } else { Integrity::ALL.map(Some).to_vec() };
            all.extend(integrities.into_iter().map(|integrity| ChildSuite { encryption, integrity, esn: false }));
        }
        all
    }

    fn path(remote: &str, udp: bool) -> Path {
        Path { local: "192.0.2.1:4500".parse().unwrap(), remote: remote.parse().unwrap(), udp }
    }

    #[test]
    fn the_inner_mtu_of_well_known_suites_is_as_computed_by_hand() {
        let gcm = ChildSuite { encryption: Encryption::Aes128Gcm, integrity: None, esn: false };
        // 1500 - 20 - 8 - (8 + 8) - 16 = 1440, a multiple of 4, less the trailer
        assert_eq!(inner_mtu(gcm, &path("192.0.2.2:4500", true), 1500), 1438);
        // 1500 - 40 - 16 - 16 = 1428
        assert_eq!(inner_mtu(gcm, &path("[2001:db8::2]:0", false), 1500), 1426);
        assert_eq!(inner_mtu(gcm, &path("[::ffff:192.0.2.2]:4500", true), 1500), 1438);
        let cbc = ChildSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::Sha1), esn: false };
        // 1500 - 20 - 8 - (8 + 16) - 12 = 1436, down to 1424, less the trailer
        assert_eq!(inner_mtu(cbc, &path("192.0.2.2:4500", true), 1500), 1422);
        assert_eq!(inner_mtu(cbc, &path("192.0.2.2:4500", true), 60), 0);
    }

    #[test]
    fn a_datagram_is_ike_esp_a_keepalive_or_nothing() {
        assert_eq!(classify(&[0xff]), Encapsulated::Keepalive);
        assert_eq!(classify(&[0, 0, 0, 0, 7]), Encapsulated::Ike(&[7]));
        assert_eq!(classify(&[0, 0, 1, 0, 0, 0, 0, 1]), Encapsulated::Esp);
        for short in [&[][..], &[0xfe], &[0, 0, 0], &[1, 2, 3, 4, 5, 6, 7]] {
            assert_eq!(classify(short), Encapsulated::Malformed);
        }
    }

    proptest! {
        #[test]
        fn the_largest_inner_packet_fits_and_one_byte_more_does_not(sealed in 0usize..10_000, nth in any::<usize>()) {
            let suites = suites();
            let layout = Layout::of(suites[nth % suites.len()]);
            let inner = layout.largest_inner(sealed);
            prop_assert!(inner == 0 || layout.sealed_len(inner) <= sealed);
            prop_assert!(layout.sealed_len(inner + 1) > sealed);
        }

        #[test]
        fn what_is_sealed_fits_the_layout(inner in 0usize..10_000, nth in any::<usize>()) {
            let suites = suites();
            let layout = Layout::of(suites[nth % suites.len()]);
            prop_assert!(layout.fits(layout.sealed_len(inner)));
            prop_assert!(layout.pad_len(inner) < 16);
        }
    }
}
