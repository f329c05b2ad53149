//! Whom there may be something to tell, so that a thousand neighbours are not asked after each message of one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use base::Instant;

use super::NeighborId;

/// A change is announced at once; what changes in the time after it is gathered and announced together. A thousand
/// neighbours that come up at once change everything a thousand times.
pub(super) const GATHER: Duration = Duration::from_millis(20);

/// So much longer for each neighbour that was told something, and at most in all: telling takes its time too, and what came
/// in meanwhile is to be told together.
const GATHER_EACH: Duration = Duration::from_micros(200);
const GATHER_LONGEST: Duration = Duration::from_millis(500);

/// Whom there may be something to tell. Whoever is not in it has heard everything, or has no room for more.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Something changed that may concern every neighbour.
    pub(super) for_all: bool,
    /// Neighbours that may have to be told something whatever changed for all: their session is new, or has room again.
    pub(super) for_some: BTreeSet<NeighborId>,
    /// Whose turn it is.
    pub(super) next: NeighborId,
    /// Until when changes are gathered.
    pub(super) rests_until: Instant,
    /// How many were told something since the last rest.
    told: u32,
    /// It is time, and whoever takes the outputs gets it.
    is_awake: bool,
}

impl News {
    /// When what was gathered is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.for_all && !self.is_awake).then_some(self.rests_until)
    }

    /// What is due at this time waits among the outputs, and for no deadline any more.
    pub(super) fn wake(&mut self, now: Instant) {
        self.is_awake = self.due().map_or(self.is_awake, |at| at <= now);
    }

    /// It is this one's turn.
    pub(super) fn tell(&mut self, id: NeighborId) {
        (self.next, self.told) = (NeighborId(id.0.wrapping_add(1)), self.told.saturating_add(1));
    }

    /// Everybody was asked, and nobody has to be told anything more.
    pub(super) fn rest(&mut self, now: Instant) {
        let longer = GATHER_EACH.saturating_mul(std::mem::take(&mut self.told).saturating_sub(1));
        (self.for_all, self.is_awake) = (false, false);
        self.rests_until = now + (GATHER + longer).min(GATHER_LONGEST);
    }
}
