//! Why packets are dropped, and how many of each.

use std::fmt;
use std::ops::{AddAssign, Index};

macro_rules! dropped {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was not passed on. Each reason has a stable name for `status` and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Dropped {
            $($(#[$doc])* $variant,)*
        }

        impl Dropped {
            /// Every reason, in the order in which they are shown.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

dropped! {
    /// The integrity check failed: forged, corrupted, or sealed with other keys.
    BadIntegrity = "bad_integrity",
    /// The sequence number was seen before.
    Replayed = "replayed",
    /// The sequence number is older than the window, or one that no sender uses.
    OutsideWindow = "outside_window",
    /// No SA has this SPI.
    UnknownSpi = "unknown_spi",
    /// Not an ESP packet of this SA's suite: too short, or not whole blocks.
    Malformed = "malformed",
    /// The padding of an authentic packet is not as RFC 4303 §2.4 wants it.
    BadPadding = "bad_padding",
    /// What is inside, or what should be sealed, is not an IP packet.
    NotIp = "not_ip",
    /// A dummy packet (RFC 4303 §2.6): authentic, and meant to be dropped.
    Dummy = "dummy",
    /// No policy covers the packet.
    NoPolicy = "no_policy",
    /// A policy covers the packet but has no SA; it must not leave in clear.
    NoSa = "no_sa",
    /// The inner packet is not what its SA was agreed for.
    SelectorMismatch = "selector_mismatch",
    /// A hard limit of the SA is reached.
    Expired = "expired",
    /// The SA has no sequence numbers left.
    SequenceExhausted = "sequence_exhausted",
    /// Larger than the tunnel's MTU and may not be fragmented, or larger than the buffer.
    TooBig = "too_big",
    /// Congestion was marked on the outside of a packet whose sender does not know ECN (RFC 6040 §4.2).
    Ecn = "ecn",
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Dropped {}

/// How many packets were dropped for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Dropped::ALL.len()]);

impl Drops {
    /// Counts one.
    pub const fn count(&mut self, reason: Dropped) {
        self.0[reason as usize] += 1;
    }

    /// Each reason with its number, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Dropped, u64)> + '_ {
        Dropped::ALL.into_iter().map(|reason| (reason, self[reason]))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl FromIterator<(Dropped, u64)> for Drops {
    fn from_iter<I: IntoIterator<Item = (Dropped, u64)>>(all: I) -> Self {
        let mut drops = Self::default();
        all.into_iter().for_each(|(reason, count)| drops.0[reason as usize] += count);
        drops
    }
}

impl Index<Dropped> for Drops {
    type Output = u64;

    fn index(&self, reason: Dropped) -> &u64 {
        &self.0[reason as usize]
    }
}

impl AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

/// What one direction of an SA did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets passed on.
    pub packets: u64,
    /// Bytes of the inner packets.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: Drops,
}

/// What was done to packets of an SA that were larger than its tunnel's MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaping {
    /// Packets cut up before encryption.
    pub fragmented: u64,
    /// The pieces they were cut into.
    pub fragments: u64,
    /// Times that a sender was told the size that fits.
    pub too_big_sent: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.drops += other.drops;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let mut drops = Drops::default();
        for (i, reason) in Dropped::ALL.into_iter().enumerate() {
            for _ in 0..=i {
                drops.count(reason);
            }
        }
        for (i, (reason, count)) in drops.iter().enumerate() {
            assert_eq!((reason, count), (Dropped::ALL[i], i as u64 + 1));
            assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        }
        let names: std::collections::BTreeSet<_> = Dropped::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Dropped::ALL.len());
        assert_eq!(drops.total(), (1..=Dropped::ALL.len() as u64).sum::<u64>());
    }
}
