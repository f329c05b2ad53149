//! Questions that routing asks of an AS_PATH.

use std::fmt;

use crate::{AsPath, Asn};

impl AsPath {
    /// Its length as the decision counts it (RFC 4271 §9.1.2.2 a).
    pub fn length(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The AS that announced the route to ours.
    pub fn neighbor_as(&self) -> Option<Asn> {
        self.0.first().copied()
    }

    /// Whether the AS originated the route.
    pub fn is_originated_by(&self, asn: Asn) -> bool {
        self.0.last() == Some(&asn)
    }

    /// How often the AS stands anywhere in it.
    pub fn count_of(&self, asn: Asn) -> usize {
        self.0.iter().filter(|&&other| other == asn).count()
    }

    /// Puts an AS before all others, this many times (RFC 4271 §5.1.2 b).
    pub(crate) fn prepend(&mut self, asn: Asn, times: usize) {
        self.0.splice(0..0, std::iter::repeat_n(asn, times));
    }

    /// Takes out every private AS number.
    pub(crate) fn remove_private(&mut self) {
        self.0.retain(|&asn| !is_private(asn));
    }
}

/// Whether the number is for private use (RFC 6996 §5).
pub(crate) const fn is_private(asn: Asn) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

/// As it is usually written.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, asn) in self.0.iter().enumerate() {
            write!(f, "{}{asn}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_the_neighbour_and_ends_with_the_originator() {
        let mut path = AsPath(vec![1, 2, 2]);
        assert_eq!((path.length(), path.neighbor_as(), path.count_of(2), path.count_of(3)), (3, Some(1), 2, 0));
        assert!(path.is_originated_by(2) && !path.is_originated_by(1));
        path.prepend(9, 2);
        assert_eq!(path.to_string(), "9 9 1 2 2");
        assert_eq!((AsPath::default().length(), AsPath::default().neighbor_as()), (0, None));
    }

    #[test]
    fn private_numbers_go_and_the_reserved_ones_beside_them_stay() {
        let mut mixed =
            AsPath(vec![64_511, 64_512, 65_534, 65_535, 4_199_999_999, 4_200_000_000, 4_294_967_294, 4_294_967_295]);
        mixed.remove_private();
        assert_eq!(mixed, AsPath(vec![64_511, 65_535, 4_199_999_999, 4_294_967_295]));
    }
}
