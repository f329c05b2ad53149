//! Congestion marks across the tunnel (RFC 6040, normal mode) and the outer traffic class.

use packet::{Ecn, Tos};

use crate::Dropped;

/// The traffic class of the outer header. ECN is always copied (RFC 6040 §4.1); DSCP where
/// `copy_dscp` (RFC 4301 §5.1.2.1), else it is 0 so that it tells nothing about what is inside.
pub const fn outer_tos(inner: Tos, copy_dscp: bool) -> Tos {
    if copy_dscp { inner } else { Tos::new(0, inner.ecn()) }
}

/// The ECN field that the inner packet leaves the tunnel with (RFC 6040 §4.2, figure 4).
///
/// # Errors
///
/// [`Dropped::Ecn`] when congestion was marked on a packet whose sender would not understand.
pub const fn inner_ecn(inner: Ecn, outer: Ecn) -> Result<Ecn, Dropped> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(Dropped::Ecn),
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::NotEct),
        (Ecn::Ce, _) | (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ok(Ecn::Ect0),
        (Ecn::Ect1, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::Ect1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_as_in_figure_4_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let outers = [NotEct, Ect0, Ect1, Ce];
        let figure = [
            (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), Err(Dropped::Ecn)]),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ];
        for (inner, row) in figure {
            assert_eq!(outers.map(|outer| inner_ecn(inner, outer)), row, "{inner:?}");
        }
    }

    #[test]
    fn the_outer_class_hides_the_dscp_unless_told_to_copy_it() {
        assert_eq!(outer_tos(Tos(0xba), true), Tos(0xba));
        assert_eq!(outer_tos(Tos(0xba), false), Tos(0x02));
    }
}
