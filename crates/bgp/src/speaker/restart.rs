//! A neighbour that restarts: its routes are kept until it is back, and swept when it has announced everything again
//! (RFC 4724 §4.2), or are kept for longer where there is nothing else (RFC 9494 §4.2).
//!
//! Left out: keeping routes after a NOTIFICATION (RFC 8538).

use base::{Deadline, Instant};

use super::output::EventKind;
use super::peer::Peer;
use super::status::RestartStatus;
use super::turn::Turn;
use crate::session::{Agreement, common, without};
use crate::wire::LongLived;
use crate::{Families, Family};

/// What is kept of a neighbour that restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Restart {
    /// Nothing.
    #[default]
    None,
    /// It is away: routes of these families are stale until its restart time is over.
    Away { families: Families, until: Instant, long_lived: Option<LongLived> },
    /// Its restart time is over: routes are kept for what there is nothing else for, in each family for so long.
    LongLived { ipv4: Option<Instant>, ipv6: Option<Instant> },
    /// It is back: what is stale in these families waits for its End-of-RIB. Also while a refresh is under way.
    Back { families: Families, until: Instant },
}

impl Restart {
    pub(super) fn deadline(self) -> Option<Deadline> {
        let at = |at, why| Some(Deadline { at, why });
        match self {
            Self::None => None,
            Self::Away { until, .. } => at(until, "restart time of the neighbour"),
            Self::LongLived { ipv4, ipv6 } => {
                [ipv4, ipv6].into_iter().flatten().min().and_then(|until| at(until, "long-lived stale time"))
            }
            Self::Back { until, .. } => at(until, "End-of-RIB of the neighbour"),
        }
    }

    pub(super) fn status(self) -> Option<RestartStatus> {
        match self {
            Self::None => None,
            Self::Away { until, .. } => Some(RestartStatus::Away { until }),
            Self::LongLived { ipv4, ipv6 } => {
                [ipv4, ipv6].into_iter().flatten().max().map(|until| RestartStatus::LongLived { until })
            }
            Self::Back { until, .. } => Some(RestartStatus::Back { until }),
        }
    }

    /// The families in which something is stale.
    const fn families(self) -> Families {
        match self {
            Self::None => Families::NONE,
            Self::Away { families, .. } | Self::Back { families, .. } => families,
            Self::LongLived { ipv4, ipv6 } => Families { ipv4: ipv4.is_some(), ipv6: ipv6.is_some() },
        }
    }
}

impl Peer {
    /// An established session is gone; `may_keep`: nobody said that it should end.
    pub(super) fn session_lost(&mut self, agreement: &Agreement, may_keep: bool, turn: &mut Turn<'_>) {
        let graceful = agreement.graceful_restart.filter(|_| may_keep && self.neighbor.graceful_restart);
        let spoken = without(agreement.families, self.disabled);
        let kept = graceful.map_or(Families::NONE, |restart| common(restart.families, spoken));
        turn.rib.peer_down(self.id, kept);
        self.owes_end = Families::NONE;
        self.owes_refresh_end = Families::NONE;
        self.restart = match graceful {
            Some(restart) if kept != Families::NONE => {
                let until = turn.now + restart.restart_time;
                Restart::Away { families: kept, until, long_lived: agreement.long_lived }
            }
            Some(_) | None => Restart::None,
        };
    }

    /// The neighbour must not be waited for: what is stale goes.
    pub(super) fn forget_stale(&mut self, turn: &mut Turn<'_>) {
        if self.restart != Restart::None {
            self.restart = Restart::None;
            turn.rib.sweep_stale(self.id);
        }
    }

    /// A session is established, and the tables know of it.
    pub(super) fn restart_established(&mut self, agreement: &Agreement, turn: &mut Turn<'_>) {
        let stale = self.restart.families();
        if stale == Families::NONE {
            return;
        }
        // RFC 4724 §4.2: where it did not go on forwarding, or does not say so, its old routes are wrong.
        let restart = agreement.graceful_restart.unwrap_or_default();
        let held = common(common(restart.families, restart.is_forwarding), agreement.families);
        let kept = common(stale, held);
        for family in without(stale, kept).iter() {
            turn.rib.end_of_rib(self.id, family);
        }
        let until = turn.now + turn.options.stale_time;
        self.restart = if kept == Families::NONE { Restart::None } else { Restart::Back { families: kept, until } };
    }

    /// The neighbour begins to announce everything again (RFC 7313 §4).
    pub(super) fn refresh_begins(&mut self, family: Family, turn: &mut Turn<'_>) {
        turn.rib.mark_stale(self.id, family);
        let until = turn.now + turn.options.stale_time;
        self.restart = Restart::Back { families: self.restart.families().with(family), until };
    }

    /// The neighbour has announced everything of a family.
    pub(super) fn all_announced(&mut self, family: Family, turn: &mut Turn<'_>) {
        turn.rib.end_of_rib(self.id, family);
        if let Restart::Back { families, until } = self.restart {
            let families = without(families, Families::NONE.with(family));
            self.restart = if families == Families::NONE { Restart::None } else { Restart::Back { families, until } };
        }
    }

    /// Does what is due.
    pub(super) fn wake_restart(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        match self.restart {
            Restart::None => {}
            Restart::Away { families, until, long_lived } if until <= now => self.give_up(families, long_lived, turn),
            Restart::LongLived { mut ipv4, mut ipv6 } => {
                for (family, until) in [(Family::Ipv4, &mut ipv4), (Family::Ipv6, &mut ipv6)] {
                    if until.is_some_and(|until| until <= now) {
                        *until = None;
                        turn.rib.end_of_rib(self.id, family);
                    }
                }
                self.restart =
                    if ipv4.is_none() && ipv6.is_none() { Restart::None } else { Restart::LongLived { ipv4, ipv6 } };
            }
            Restart::Back { until, .. } if until <= now => {
                self.forget_stale(turn);
                self.tell(EventKind::GracefulRestart, "it is back, and never said that it announced everything", turn);
            }
            Restart::Away { .. } | Restart::Back { .. } => {}
        }
    }

    /// The restart time is over and the neighbour is not back.
    fn give_up(&mut self, families: Families, long_lived: Option<LongLived>, turn: &mut Turn<'_>) {
        let until = |family: Family| {
            let theirs = long_lived?.time(family)?;
            // RFC 9494 §4.2: the lesser of what it says and what is configured here.
            let time = theirs.min(self.neighbor.long_lived);
            Some(turn.now + time).filter(|_| families.contains(family) && !time.is_zero())
        };
        let (ipv4, ipv6) = (until(Family::Ipv4), until(Family::Ipv6));
        for (family, until) in [(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)] {
            match until {
                Some(_) => turn.rib.retain_long_lived(self.id, family),
                None => turn.rib.end_of_rib(self.id, family),
            }
        }
        let (next, sentence) = if ipv4.is_none() && ipv6.is_none() {
            (Restart::None, "it did not come back in its restart time: its routes are removed")
        } else {
            let sentence = "it did not come back in its restart time: its routes are used only where there is no other";
            (Restart::LongLived { ipv4, ipv6 }, sentence)
        };
        self.restart = next;
        self.tell(EventKind::GracefulRestart, sentence, turn);
    }
}
