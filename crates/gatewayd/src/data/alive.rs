//! Which peers gave a sign of life: told once in a while, however many packets came.

use std::collections::BTreeMap;
use std::time::Duration;

use base::Instant;
use esp::InboundSa;
use sa::SaId;

/// How often one SA is told to be alive, and how late at most.
const EVERY: Duration = Duration::from_secs(1);

/// What was told. Looking through the SAs costs something once a second, and nothing per packet.
#[derive(Debug, Default)]
pub(super) struct Alive {
    /// The last packet of each SA that was told of.
    told: BTreeMap<SaId, Instant>,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Alive {
    /// Packets arrived.
    pub(super) fn note(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(self.last.map_or(now, |last| now.max(last + EVERY)));
        }
    }

    /// When to call [`Self::tell`].
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells of the SAs that packets arrived on since the last time, and when the last one did.
    pub(super) fn tell<'a>(
        &mut self,
        sas: impl Iterator<Item = &'a InboundSa>,
        mut tell: impl FnMut(SaId, Instant),
        now: Instant,
    ) {
        self.due = None;
        self.last = Some(now);
        let mut told = BTreeMap::new();
        for sa in sas {
            let Some(at) = sa.last_used() else { continue };
            if self.told.get(&sa.id()) != Some(&at) {
                tell(sa.id(), at);
            }
            told.insert(sa.id(), at);
        }
        // Those that are not there any more are forgotten.
        self.told = told;
    }
}
