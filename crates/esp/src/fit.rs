//! How large the packets of one SA may be.

use packet::mss::Clamp;
use sa::{ChildSa, ChildSuite, Path};

use crate::wire;

/// The outer MTU as long as nothing else is known: Ethernet's.
const OUTER_MTU: usize = 1500;
/// No path has less (RFC 791 §3.1).
const MIN_MTU: usize = 68;

/// MTU and segment size of one SA, as a person chose them or as its path and suite leave room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    suite: ChildSuite,
    chosen_mtu: Option<u16>,
    chosen_mss: Option<u16>,
    outer_mtu: usize,
    mtu: usize,
    clamp: Option<Clamp>,
}

impl Fit {
    pub(crate) fn new(child: &ChildSa) -> Self {
        let (suite, chosen_mtu, chosen_mss) = (child.suite, child.mtu, child.mss);
        let mut fit = Self { suite, chosen_mtu, chosen_mss, outer_mtu: OUTER_MTU, mtu: 0, clamp: None };
        fit.follow(&child.path);
        fit
    }

    /// The largest inner packet.
    pub(crate) const fn mtu(&self) -> usize {
        self.mtu
    }

    /// What to bring TCP segments down to.
    pub(crate) const fn clamp(&self) -> Option<Clamp> {
        self.clamp
    }

    /// The path changed.
    pub(crate) fn follow(&mut self, path: &Path) {
        let room = wire::inner_mtu(self.suite, path, self.outer_mtu).max(MIN_MTU);
        self.mtu = self.chosen_mtu.map_or(room, usize::from);
        let follows = Clamp::for_mtu(self.mtu);
        self.clamp = match self.chosen_mss {
            None => Some(follows),
            Some(0) => None,
            // A chosen size is meant for IPv4; IPv6 has 20 bytes less room for the same packet.
            Some(mss) => Some(Clamp { v4: mss, v6: mss.min(follows.v6) }),
        };
    }

    /// The outer MTU of the path changed.
    pub(crate) fn set_outer_mtu(&mut self, outer_mtu: usize, path: &Path) {
        self.outer_mtu = outer_mtu;
        self.follow(path);
    }
}
