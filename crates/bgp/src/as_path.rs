//! Questions that routing asks of an AS_PATH.

use std::fmt;

use crate::{AsPath, Asn, Segment};

/// The most ASes of one segment (RFC 4271 §4.3).
const LONGEST_SEGMENT: usize = 255;

impl AsPath {
    /// Its length as the decision counts it: a set is one, confederation segments are none (RFC 4271 §9.1.2.2 a,
    /// RFC 5065 §5.3).
    pub fn length(&self) -> u32 {
        let count = |segment: &Segment| match segment {
            Segment::Sequence(ases) => u32::try_from(ases.len()).unwrap_or(u32::MAX),
            Segment::Set(_) => 1,
            Segment::ConfedSequence(_) | Segment::ConfedSet(_) => 0,
        };
        self.0.iter().map(count).fold(0, u32::saturating_add)
    }

    /// The AS that announced the route to ours: the first one, if the path begins with a sequence.
    pub fn neighbor_as(&self) -> Option<Asn> {
        match self.outside_confederations().next()? {
            Segment::Sequence(ases) => ases.first().copied(),
            Segment::Set(_) | Segment::ConfedSequence(_) | Segment::ConfedSet(_) => None,
        }
    }

    /// Whether the AS originated the route: it is the last one, or one of a set at the end.
    pub fn is_originated_by(&self, asn: Asn) -> bool {
        match self.outside_confederations().last() {
            Some(Segment::Sequence(ases)) => ases.last() == Some(&asn),
            Some(Segment::Set(ases)) => ases.contains(&asn),
            Some(Segment::ConfedSequence(_) | Segment::ConfedSet(_)) | None => false,
        }
    }

    /// How often the AS stands anywhere in it.
    pub fn count_of(&self, asn: Asn) -> usize {
        self.0.iter().flat_map(ases).filter(|&&other| other == asn).count()
    }

    /// Puts an AS before all others, this many times (RFC 4271 §5.1.2 b).
    pub(crate) fn prepend(&mut self, asn: Asn, times: usize) {
        for _ in 0..times {
            match self.0.first_mut() {
                Some(Segment::Sequence(ases)) if ases.len() < LONGEST_SEGMENT => ases.insert(0, asn),
                Some(_) | None => self.0.insert(0, Segment::Sequence(vec![asn])),
            }
        }
    }

    /// Takes out every private AS number.
    pub(crate) fn remove_private(&mut self) {
        self.0.retain_mut(|segment| {
            let ases = ases_mut(segment);
            ases.retain(|&asn| !is_private(asn));
            !ases.is_empty()
        });
    }

    fn outside_confederations(&self) -> impl Iterator<Item = &Segment> {
        self.0.iter().filter(|segment| matches!(segment, Segment::Sequence(_) | Segment::Set(_)))
    }
}

/// Whether the number is for private use (RFC 6996 §5).
pub(crate) const fn is_private(asn: Asn) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

fn ases(segment: &Segment) -> &Vec<Asn> {
    match segment {
        Segment::Sequence(ases) | Segment::Set(ases) | Segment::ConfedSequence(ases) | Segment::ConfedSet(ases) => ases,
    }
}

fn ases_mut(segment: &mut Segment) -> &mut Vec<Asn> {
    match segment {
        Segment::Sequence(ases) | Segment::Set(ases) | Segment::ConfedSequence(ases) | Segment::ConfedSet(ases) => ases,
    }
}

/// As it is usually written: sequences bare, sets in braces, confederation segments in parentheses and brackets.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined =
            |asns: &[Asn], between: &str| asns.iter().map(ToString::to_string).collect::<Vec<_>>().join(between);
        for (place, segment) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { " " })?;
            match segment {
                Segment::Sequence(asns) => f.write_str(&joined(asns, " "))?,
                Segment::Set(asns) => write!(f, "{{{}}}", joined(asns, ","))?,
                Segment::ConfedSequence(asns) => write!(f, "({})", joined(asns, " "))?,
                Segment::ConfedSet(asns) => write!(f, "[{}]", joined(asns, ","))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[Segment]) -> AsPath {
        AsPath(segments.to_vec())
    }

    #[test]
    fn a_set_counts_once_and_a_confederation_not_at_all() {
        let mixed = path(&[
            Segment::ConfedSequence(vec![64_600, 64_601]),
            Segment::Sequence(vec![1, 2]),
            Segment::Set(vec![7, 8, 9]),
        ]);
        assert_eq!(mixed.length(), 3);
        assert_eq!(mixed.neighbor_as(), Some(1));
        assert!(mixed.is_originated_by(8) && !mixed.is_originated_by(2));
        assert_eq!((mixed.count_of(9), mixed.count_of(64_600), mixed.count_of(3)), (1, 1, 0));
        assert_eq!((AsPath::default().length(), AsPath::default().neighbor_as()), (0, None));
        assert_eq!(path(&[Segment::Set(vec![1])]).neighbor_as(), None);
    }

    #[test]
    fn a_full_segment_is_not_made_longer() {
        let mut long = path(&[Segment::Sequence(vec![5; 254])]);
        long.prepend(9, 3);
        assert_eq!(long.0.iter().map(|segment| ases(segment).len()).collect::<Vec<_>>(), [2, 255]);
        assert_eq!(long.length(), 257);
        let mut set = path(&[Segment::Set(vec![1, 2])]);
        set.prepend(9, 2);
        assert_eq!(set, path(&[Segment::Sequence(vec![9, 9]), Segment::Set(vec![1, 2])]));
    }

    #[test]
    fn private_numbers_go_and_the_reserved_ones_beside_them_stay() {
        let mut mixed = path(&[
            Segment::Sequence(vec![64_511, 64_512, 65_534, 65_535]),
            Segment::Set(vec![65_000]),
            Segment::Sequence(vec![4_199_999_999, 4_200_000_000, 4_294_967_294, 4_294_967_295]),
        ]);
        mixed.remove_private();
        let left = [Segment::Sequence(vec![64_511, 65_535]), Segment::Sequence(vec![4_199_999_999, 4_294_967_295])];
        assert_eq!(mixed, path(&left));
    }
}
