//! SAs that two gateways know, of which one uses them: a cluster.
//!
//! ```text
//!   numbers of one SA      told  next          ceiling = told + RESERVE
//!   -------------------------|-----|--------------|-------------------------|----------->
//!                             the active one may   the other, from its first  nobody, until somebody
//!                                                                             shares it again
//! ```
//!
//! No number may ever be sealed twice with the same keys (RFC 4303 §3.3.3), and the IV of an AEAD suite is the number
//! (RFC 4106 §3), so it must hold whoever lives, knows what, and when. There are two rules, and no clock in them:
//!
//! 1. Whoever told the other gateway that an SA's next number is `told` seals nothing from `told` + [`RESERVE`] on,
//!    until the other has confirmed a later `told` ([`DataPath::share`], [`DataPath::confirm`]).
//! 2. Whoever takes over begins with the last `told` that it heard, plus [`RESERVE`], and has [`RESERVE`] numbers
//!    ([`DataPath::succeed`]). What it heard is never less than what it confirmed, so the two never meet.
//!
//! A gateway that was told and is lost without a word may have taken over. What it heard last is not known, but it was
//! no more than the next number, so twice the reserve is left out before there is another to be told. Rekeyed SAs, of
//! which nobody was told, have no ceiling: a gateway alone is slowed down by none of this for longer than the
//! negotiation of new keys takes, which it begins with half of the reserve left.

use sa::{SaChange, SaId};
use serde::{Deserialize, Serialize};

use crate::{DataPath, Unusable};

pub use sa::RESERVE;

/// How far an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Which SA.
    pub id: SaId,
    /// The next number that is sealed, or a later one.
    pub next: u64,
    /// The highest number that was accepted.
    pub top: u64,
}

impl DataPath {
    /// Binds all SAs, before another gateway is told of them for the first time; what it is to be told.
    pub fn share(&self) -> Vec<Mark> {
        let share = |id| Some(Mark { id, next: self.outbounds.sa(id)?.share(), top: self.top(id) });
        self.outbounds.iter().filter_map(|(id, _)| share(id)).collect()
    }

    /// Binds an SA that begins: another gateway is told that its next number is 1.
    pub fn share_new(&self, id: SaId) {
        if let Some(sa) = self.outbounds.sa(id) {
            sa.bind(1);
        }
    }

    /// How far the SAs are, for another gateway that knows them.
    pub fn marks(&self) -> Vec<Mark> {
        let mark = |id| Some(Mark { id, next: self.outbounds.sa(id)?.next(), top: self.top(id) });
        self.outbounds.iter().filter_map(|(id, _)| mark(id)).collect()
    }

    /// The other gateway knows this. It must be the one that was told last.
    pub fn confirm(&self, marks: &[Mark]) {
        for mark in marks {
            if let Some(sa) = self.outbounds.sa(mark.id) {
                sa.confirm(mark.next);
            }
        }
    }

    /// Goes on in place of another gateway that said this last and may still live. SAs that are not installed here are
    /// passed over. What the other accepted since can be replayed here once (RFC 6311 §5.2 lets the peer avoid it:
    /// [`SaChange::Skip`]).
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`] where an SA has sealed something already.
    pub fn succeed(&mut self, marks: &[Mark]) -> Result<(), Unusable> {
        for mark in marks {
            let Some(sa) = self.outbounds.sa(mark.id) else { continue };
            sa.succeed(mark.next)?;
            self.inbounds.forward(mark.id, mark.top)?;
            self.known_tops.insert(mark.id, mark.top);
        }
        Ok(())
    }

    /// [`SaChange::Skip`].
    pub(crate) fn skip(&mut self, id: SaId, outbound: u64, inbound: u64) -> Result<(), Unusable> {
        self.outbounds.sa(id).ok_or(Unusable::UnknownId)?.skip(outbound);
        // Counted from what was known then: what came since may be from after the peer's own jump.
        match self.known_tops.get(&id) {
            Some(top) => self.inbounds.forward(id, top.saturating_add(inbound)),
            None => Ok(()),
        }
    }

    /// SAs that packets take or took, in the order of their activation.
    pub fn activated(&self) -> Vec<SaId> {
        self.outbounds.activated()
    }

    /// Packets that leave take these SAs, in this order.
    ///
    /// # Errors
    ///
    /// As [`DataPath::apply`].
    pub fn activate_all(&mut self, ids: &[SaId]) -> Result<(), Unusable> {
        let known: Vec<SaId> = ids.iter().copied().filter(|id| self.outbounds.sa(*id).is_some()).collect();
        known.into_iter().try_for_each(|id| self.apply(&SaChange::Activate(id)))
    }

    fn top(&self, id: SaId) -> u64 {
        self.inbounds.sa(id).map_or(0, |sa| sa.window().top())
    }
}
