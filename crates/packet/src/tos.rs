//! The traffic class: six bits of DSCP (RFC 2474) and two of ECN (RFC 3168).

/// The IPv4 type-of-service byte or the IPv6 traffic class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tos(pub u8);

impl Tos {
    /// Made of its two halves; `dscp` is 0..=63.
    pub const fn new(dscp: u8, ecn: Ecn) -> Self {
        Self(dscp << 2 | ecn as u8)
    }

    /// The differentiated services code point, 0..=63.
    pub const fn dscp(self) -> u8 {
        self.0 >> 2
    }

    /// The ECN field.
    pub const fn ecn(self) -> Ecn {
        match self.0 & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The same code point with another ECN field.
    pub const fn with_ecn(self, ecn: Ecn) -> Self {
        Self::new(self.dscp(), ecn)
    }
}

/// The ECN field (RFC 3168 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not understand ECN.
    NotEct = 0,
    /// ECN-capable transport, ECT(1).
    Ect1 = 1,
    /// ECN-capable transport, ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// Every value, by number.
    pub const ALL: [Self; 4] = [Self::NotEct, Self::Ect1, Self::Ect0, Self::Ce];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_every_byte_make_the_byte() {
        for byte in 0..=255 {
            let tos = Tos(byte);
            assert_eq!(Tos::new(tos.dscp(), tos.ecn()), tos);
        }
        assert_eq!(Tos(0xb8).dscp(), 46); // expedited forwarding
    }
}
