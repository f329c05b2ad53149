//! One neighbour, as the routing tables see it.

use std::net::Ipv4Addr;

use super::bits::Bits;
use super::routes::RouteId;
use super::table::{Chain, NIL, PathRecord};
use super::{PeerId, PeerOptions, Session};
use crate::Family;

/// A neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) options: PeerOptions,
    pub(super) session: Option<Session>,
    /// Of the session, or of the last one while stale routes are kept.
    pub(super) router_id: Ipv4Addr,
    pub(super) is_reachable: bool,
    pub(super) is_draining: bool,
    /// Its export group while it is up.
    pub(super) group: Option<usize>,
    sides: [Side; 2],
}

/// What there is of one family.
#[derive(Debug)]
pub(super) struct Side {
    /// Adj-RIB-In.
    pub(super) chain: Chain,
    pub(super) fresh: u32,
    pub(super) stale: u32,
    pub(super) accepted: u32,
    pub(super) was_warned: bool,
    /// Entries that the neighbour knows from us.
    pub(super) told: Bits,
    /// Entries of which it may have to be told something.
    pub(super) dirty: Bits,
    /// Dirty entries in the order in which they will go out, the last first.
    pub(super) staged: Vec<Staged>,
}

/// An entry that waits to go out. The order puts withdrawals last, and what is packed together side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Staged {
    /// The route and the rule by which it passes; `None`: withdrawn.
    pub(super) what: Option<(RouteId, u16)>,
    pub(super) entry: u32,
}

impl Peer {
    pub(super) fn new(id: PeerId, options: PeerOptions) -> Self {
        let side = || Side {
            chain: NIL,
            fresh: 0,
            stale: 0,
            accepted: 0,
            was_warned: false,
            told: Bits::default(),
            dirty: Bits::default(),
            staged: Vec::new(),
        };
        Self {
            id,
            options,
            session: None,
            router_id: Ipv4Addr::UNSPECIFIED,
            is_reachable: true,
            is_draining: false,
            group: None,
            sides: [side(), side()],
        }
    }

    pub(super) fn side(&self, family: Family) -> &Side {
        &self.sides[family as usize]
    }

    pub(super) fn side_mut(&mut self, family: Family) -> &mut Side {
        &mut self.sides[family as usize]
    }

    /// Whether the session speaks a family.
    pub(super) fn speaks(&self, family: Family) -> bool {
        self.session.is_some_and(|session| session.families.contains(family))
    }
}

impl Side {
    /// Counts a path that was taken out.
    pub(super) fn note_gone(&mut self, path: &PathRecord) {
        *(if path.marks == 0 { &mut self.fresh } else { &mut self.stale }) -= 1;
        self.accepted -= u32::from(path.accepted.is_some());
    }

    /// Below the count that is worth a warning the next one will be worth a warning again.
    pub(super) fn calm(&mut self, warn_at: u32) {
        self.was_warned &= self.fresh >= warn_at;
    }
}
