//! Which tunnels of a VPN connection carry its traffic.

use model::Mode;

use crate::health::Grade;

/// A tunnel, as far as the choice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// How good it is.
    pub(super) grade: Grade,
    /// Whether traffic is kept away from it by command.
    pub(super) is_drained: bool,
    /// Whether it ends on purpose; its SAs carry what is under way.
    pub(super) is_leaving: bool,
    /// Whether a packet brings it up.
    pub(super) comes_with_traffic: bool,
}

/// How much a tunnel is wanted; the greater the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Not at all.
    Unfit,
    /// It is gone, and still carries packets for a moment.
    Leaving,
    /// For the packet that brings it up.
    Sleeping,
    /// A drained one is better than none.
    Drained(Grade),
    /// As good as it is.
    Fit(Grade),
}

impl Candidate {
    fn rank(self) -> Rank {
        match (self.grade, self.is_drained || self.is_leaving) {
            (Grade::Unhealthy, false) if self.comes_with_traffic => Rank::Sleeping,
            (Grade::Unhealthy, _) if self.is_leaving => Rank::Leaving,
            (Grade::Unhealthy, _) => Rank::Unfit,
            (grade, true) => Rank::Drained(grade),
            (grade, false) => Rank::Fit(grade),
        }
    }
}

/// The places of the tunnels to use, preferred first; none when none is fit.
pub(super) fn choose(mode: Mode, candidates: &[Candidate]) -> Vec<usize> {
    let best = candidates.iter().map(|candidate| candidate.rank()).max().filter(|best| *best > Rank::Unfit);
    let fit = candidates.iter().enumerate().filter(|(_, candidate)| Some(candidate.rank()) == best).map(|(i, _)| i);
    match mode {
        Mode::ActiveActive if best > Some(Rank::Sleeping) => fit.collect(),
        Mode::ActiveActive | Mode::ActiveStandby => fit.take(1).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Candidate =
        Candidate { grade: Grade::Healthy, is_drained: false, is_leaving: false, comes_with_traffic: false };
    const SETTLING: Candidate = Candidate { grade: Grade::Settling, ..UP };
    const DOWN: Candidate = Candidate { grade: Grade::Unhealthy, ..UP };
    const DRAINED: Candidate = Candidate { is_drained: true, ..UP };
    const LEAVING: Candidate = Candidate { is_leaving: true, ..UP };
    const GOING: Candidate = Candidate { is_leaving: true, ..DOWN };
    const SLEEPING: Candidate = Candidate { comes_with_traffic: true, ..DOWN };

    #[test]
    fn the_preferred_of_the_best_carries_traffic_or_all_of_the_best_do() {
        let cases: &[(&[Candidate], &[usize], &[usize])] = &[
            (&[], &[], &[]),
            (&[UP, UP], &[0], &[0, 1]),
            (&[DOWN, UP], &[1], &[1]),
            (&[SETTLING, UP], &[1], &[1]),
            (&[DOWN, SETTLING], &[1], &[1]),
            (&[DRAINED, UP, UP], &[1], &[1, 2]),
            (&[DRAINED, SETTLING], &[1], &[1]),
            (&[DRAINED, DOWN], &[0], &[0]),
            (&[DRAINED, SLEEPING], &[0], &[0]),
            (&[DOWN, DOWN], &[], &[]),
            (&[LEAVING, SETTLING], &[1], &[1]),
            (&[LEAVING, DOWN], &[0], &[0]),
            (&[GOING, DRAINED], &[1], &[1]),
            (&[GOING, SLEEPING], &[1], &[1]),
            (&[DOWN, GOING], &[1], &[1]),
            (&[DOWN, SLEEPING, SLEEPING], &[1], &[1]),
        ];
        for (candidates, standby, active) in cases {
            assert_eq!(choose(Mode::ActiveStandby, candidates), *standby, "{candidates:?}");
            assert_eq!(choose(Mode::ActiveActive, candidates), *active, "{candidates:?}");
        }
    }
}
