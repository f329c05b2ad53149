//! Address families: IPv4 and IPv6 unicast (RFC 4760).

use ipnet::IpNet;

/// An address family of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast: AFI 1, SAFI 1.
    Ipv4,
    /// IPv6 unicast: AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// Every family, in order.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of a prefix.
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    /// The Address Family Identifier; the SAFI is 1 for both.
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
}

impl Families {
    /// No family.
    pub const NONE: Self = Self { ipv4: false, ipv6: false };
    /// IPv4 unicast alone.
    pub const IPV4: Self = Self { ipv4: true, ipv6: false };
    /// IPv6 unicast alone.
    pub const IPV6: Self = Self { ipv4: false, ipv6: true };
    /// Both.
    pub const ALL: Self = Self { ipv4: true, ipv6: true };

    /// Whether `family` is in the set.
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// The set with `family` in it.
    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        match family {
            Family::Ipv4 => Self { ipv4: true, ..self },
            Family::Ipv6 => Self { ipv6: true, ..self },
        }
    }

    /// Its members, in order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}
