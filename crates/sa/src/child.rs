//! A Child SA and the changes to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base::algorithm::{Encryption, Integrity};
use base::{Instant, Secret};
use model::{DfPolicy, Routing};
use serde::{Deserialize, Serialize};

use crate::TrafficSelector;

/// A security parameter index (RFC 4303 §2.1): 0 to 255 are reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

/// Names one Child SA of this gateway, both its directions; never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SaId(pub u64);

/// The algorithms that an SA pair uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChildSuite {
    /// How payloads are encrypted.
    pub encryption: Encryption,
    /// How they are authenticated; `None` exactly for AEAD.
    pub integrity: Option<Integrity>,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
}

impl ChildSuite {
    /// Bytes of key material for one direction: encryption key, salt, integrity key.
    pub const fn key_material_len(self) -> usize {
        let integrity = match self.integrity {
            Some(integrity) => integrity.key_len(),
            None => 0,
        };
        self.encryption.key_len() + self.encryption.salt_len() + integrity
    }

    /// Whether any of its algorithms is weak.
    pub fn is_weak(self) -> bool {
        self.encryption.is_weak() || self.integrity.is_some_and(Integrity::is_weak)
    }
}

impl fmt::Display for ChildSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        f.write_str(if self.esn { "-esn" } else { "" })
    }
}

/// Keys of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionKeys {
    /// The encryption key, and behind it the salt of an AEAD.
    pub encryption: Secret,
    /// The integrity key; empty for AEAD.
    pub integrity: Secret,
}

/// Keys of both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildKeys {
    /// For packets that arrive.
    pub inbound: DirectionKeys,
    /// For packets that leave.
    pub outbound: DirectionKeys,
}

impl ChildKeys {
    /// Splits KEYMAT of IKEv2 (RFC 7296 §2.17): first the keys of the direction initiator to responder, in each
    /// the encryption key before the integrity key. `None` when it is too short.
    pub fn from_v2_keymat(suite: ChildSuite, keymat: &[u8], is_initiator: bool) -> Option<Self> {
        let (to_responder, rest) = DirectionKeys::split(suite, keymat)?;
        let (to_initiator, _) = DirectionKeys::split(suite, rest)?;
        let (inbound, outbound) =
            if is_initiator { (to_initiator, to_responder) } else { (to_responder, to_initiator) };
        Some(Self { inbound, outbound })
    }
}

impl DirectionKeys {
    /// Splits the keys of one direction off `keymat`, and returns what is left. `None` when it is too short.
    pub fn split(suite: ChildSuite, keymat: &[u8]) -> Option<(Self, &[u8])> {
        let encryption_len = suite.encryption.key_len() + suite.encryption.salt_len();
        let (own, rest) = keymat.split_at_checked(suite.key_material_len())?;
        let (encryption, integrity) = own.split_at_checked(encryption_len)?;
        Some((Self { encryption: encryption.into(), integrity: integrity.into() }, rest))
    }
}

/// Where an SA's packets go: the outer addresses, and whether ESP is inside UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// Our outer address and, when encapsulated, UDP port.
    pub local: SocketAddr,
    /// The peer's outer address and, when encapsulated, UDP port.
    pub remote: SocketAddr,
    /// Whether ESP is encapsulated in UDP (RFC 3948); otherwise it is IP protocol 50 and ports mean nothing.
    pub udp: bool,
}

/// When an SA is rekeyed (soft) and when it may not be used any more (hard). Time is kept by IKE too; volume
/// only here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of inner packets after which to rekey.
    pub soft_bytes: Option<u64>,
    /// Bytes of inner packets after which to stop.
    pub hard_bytes: Option<u64>,
    /// Packets after which to rekey.
    pub soft_packets: Option<u64>,
    /// Packets after which to stop.
    pub hard_packets: Option<u64>,
    /// The moment after which to stop.
    pub hard_time: Option<Instant>,
}

/// What a Child SA is called by people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChildLabel {
    /// The connection's name.
    pub connection: Arc<str>,
    /// The child's name within it.
    pub child: Arc<str>,
}

impl fmt::Display for ChildLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.connection == self.child {
            f.write_str(&self.child)
        } else {
            write!(f, "{}/{}", self.connection, self.child)
        }
    }
}

/// Both directions of a Child SA, ready to carry packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// Its number here.
    pub id: SaId,
    /// Whose it is.
    pub label: ChildLabel,
    /// The SPI we chose; in packets that arrive.
    pub inbound_spi: Spi,
    /// The SPI the peer chose; in packets that leave.
    pub outbound_spi: Spi,
    /// The algorithms.
    pub suite: ChildSuite,
    /// The keys.
    pub keys: ChildKeys,
    /// Where its packets go.
    pub path: Path,
    /// Our traffic, as agreed.
    pub local: Vec<TrafficSelector>,
    /// The peer's traffic, as agreed.
    pub remote: Vec<TrafficSelector>,
    /// How packets find it.
    pub routing: Routing,
    /// Its volume and time limits.
    pub limits: Limits,
    /// Packets that may arrive late.
    pub replay_window: u32,
    /// What becomes of packets that are too big.
    pub df: DfPolicy,
    /// Whether DSCP is copied to the outer header.
    pub copy_dscp: bool,
    /// Inner MTU, where a person chose one.
    pub mtu: Option<u16>,
    /// TCP maximum segment size: `None` follows the MTU, 0 leaves segments alone.
    pub mss: Option<u16>,
}

/// Numbers of an SA that one of two gateways may use before it hears from the other, and that one leaves out which takes
/// over: at four million packets a second those of a second, and without ESN a thousandth of all. A peer takes a jump of
/// this size for loss.
pub const RESERVE: u64 = 1 << 22;

/// A change to the SAs that carry packets, in the order in which IKE says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaChange {
    /// Packets of this SA may arrive from now on; those that leave still take the older SA of the same
    /// label and selectors, if there is one. It is said before the message leaves that lets the peer use it.
    Install(Box<ChildSa>),
    /// Packets that leave take this SA from now on.
    Activate(SaId),
    /// Neither direction is used any more.
    Remove(SaId),
    /// The peer's outer address, or ours, changed.
    Move {
        /// Which SA.
        id: SaId,
        /// Its new path.
        path: Path,
    },
    /// One of the gateways took over from another, which knew better how far they are (RFC 6311 §5.2).
    Skip {
        /// Which SA.
        id: SaId,
        /// How many of our numbers are left out.
        outbound: u64,
        /// How many of the peer's are refused from now on, beginning behind the highest that was known to have come
        /// when this gateway took over.
        inbound: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keymat_is_split_by_direction_and_then_by_purpose() {
        let suite = ChildSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::Sha1), esn: false };
        let keymat: Vec<u8> = (0..72).collect();
        let keys = ChildKeys::from_v2_keymat(suite, &keymat, true).unwrap();
        assert_eq!(keys.outbound.encryption.expose(), &keymat[..16]);
        assert_eq!(keys.outbound.integrity.expose(), &keymat[16..36]);
        assert_eq!(keys.inbound.encryption.expose(), &keymat[36..52]);
        assert_eq!(keys.inbound.integrity.expose(), &keymat[52..]);
        let theirs = ChildKeys::from_v2_keymat(suite, &keymat, false).unwrap();
        assert_eq!((theirs.inbound, theirs.outbound), (keys.outbound, keys.inbound));
        assert_eq!(ChildKeys::from_v2_keymat(suite, &keymat[..71], true), None);
    }

    #[test]
    fn the_debug_form_of_an_sa_holds_no_key() {
        let keys = DirectionKeys { encryption: vec![0xAB; 4].into(), integrity: vec![0xCD; 4].into() };
        assert_eq!(format!("{keys:?}"), "DirectionKeys { encryption: {secret}, integrity: {secret} }");
    }
}
