//! What is counted of a connection for as long as its name is configured, and how far its two phases are. "Phase 1" is
//! the negotiation of the IKE SA and "phase 2" that of its children, in both versions of IKE.

use std::collections::BTreeMap;

use ike::{Cause, CloseReason, IkeSaView, IkeState, PeerCounters};
use model::Connection;
use serde::{Deserialize, Serialize};

/// What negotiating with the peer of a connection came to, since the gateway started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Negotiations {
    /// Of IKE SAs.
    pub phase1: Phase,
    /// Of Child SAs, with everything else that an established IKE SA says.
    pub phase2: Phase,
    /// IKE SAs rekeyed or, in IKEv1, renewed.
    pub ike_rekeys: u64,
    /// Child SAs rekeyed.
    pub child_rekeys: u64,
    /// Times that the peer was given up because it did not answer.
    pub peer_dead: u64,
    /// Failures by the name of their cause; causes that never occurred are left out.
    pub failures: BTreeMap<String, u64>,
}

/// One phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Negotiations that led to an SA, rekeying included.
    pub succeeded: u64,
    /// Negotiations that failed, timeouts included.
    pub failed: u64,
    /// Negotiations that failed because the peer did not answer.
    pub timeouts: u64,
    /// Messages whose hash or integrity check failed.
    pub hash_errors: u64,
    /// Messages of ours that were sent again unasked.
    pub resent: u64,
    /// Messages of the peer that came again and were answered with the same bytes.
    pub answered_again: u64,
}

impl Phase {
    fn with(mut self, trouble: &ike::Trouble) -> Self {
        self.hash_errors += trouble.not_authentic;
        self.resent += trouble.resent;
        self.answered_again += trouble.answered_again;
        self
    }
}

impl Negotiations {
    /// Counts an event. Whether the peer `has_ike`, an established IKE SA, tells in which phase something failed.
    pub(crate) fn count(&mut self, event: &ike::Event, has_ike: bool) {
        match event {
            ike::Event::IkeUp { rekeyed, .. } => {
                self.phase1.succeeded += 1;
                self.ike_rekeys += u64::from(*rekeyed);
            }
            ike::Event::ChildUp { replaces, .. } => {
                self.phase2.succeeded += 1;
                self.child_rekeys += u64::from(replaces.is_some());
            }
            ike::Event::IkeDown { reason: CloseReason::PeerDead, .. } => self.peer_dead += 1,
            ike::Event::Failed { failure, .. } => {
                let is_phase2 = has_ike || matches!(failure.cause, Cause::NoChildProposal | Cause::NoSelector);
                let phase = if is_phase2 { &mut self.phase2 } else { &mut self.phase1 };
                phase.failed += 1;
                phase.timeouts += u64::from(matches!(failure.cause, Cause::NoAnswer { .. }));
                *self.failures.entry(failure.cause.name().to_owned()).or_default() += 1;
            }
            ike::Event::IkeDown { .. }
            | ike::Event::ChildDown { .. }
            | ike::Event::Connecting { .. }
            | ike::Event::PeerMoved { .. }
            | ike::Event::PeerDrains { .. }
            | ike::Event::DrainHeard { .. } => {}
        }
    }

    /// With what IKE counted of the peer itself.
    pub(crate) fn with(&self, counters: &PeerCounters) -> Self {
        let (phase1, phase2) = (self.phase1.with(&counters.phase1), self.phase2.with(&counters.phase2));
        Self { phase1, phase2, ..self.clone() }
    }
}

/// How far the two phases of a connection are, and what was found on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Whether a silent peer is asked whether it lives.
    pub dpd_enabled: bool,
    /// Whether there is a NAT on either side.
    pub nat_detected: bool,
    /// The IKE SA.
    pub phase1: Progress,
    /// The Child SAs.
    pub phase2: Progress,
}

/// How far a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is there.
    Down,
    /// It is negotiated.
    Negotiating,
    /// It is there.
    Established,
    /// It is there, and being replaced.
    Rekeying,
}

impl Progress {
    /// Its name, as the tunnel logs of clouds have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Negotiating => "negotiating",
            Self::Established => "established",
            Self::Rekeying => "rekeying",
        }
    }
}

impl Phases {
    pub(crate) fn of(connection: &Connection, sas: &[IkeSaView]) -> Self {
        let any = |state: IkeState| sas.iter().any(|sa| sa.state == state);
        let phase1 = if any(IkeState::Rekeying) {
            Progress::Rekeying
        } else if any(IkeState::Established) {
            Progress::Established
        } else if any(IkeState::Connecting) {
            Progress::Negotiating
        } else {
            Progress::Down
        };
        let has_child = sas.iter().flat_map(|sa| &sa.children).any(|child| !child.is_rekeyed);
        let phase2 = match phase1 {
            _ if has_child => Progress::Established,
            Progress::Established | Progress::Rekeying => Progress::Negotiating,
            Progress::Negotiating | Progress::Down => Progress::Down,
        };
        let nat_detected = sas.iter().any(|sa| sa.nat.0 || sa.nat.1);
        Self { dpd_enabled: connection.dpd.is_some(), nat_detected, phase1, phase2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn failed(cause: Cause) -> ike::Event {
        let failure = ike::Failure::new(cause, ike::Side::Ours, Some(&Connection::named("a")));
        ike::Event::Failed { peer: None, remote: "192.0.2.1:500".parse().unwrap(), failure: Box::new(failure) }
    }

    #[test]
    fn failures_are_counted_by_phase_and_cause() {
        let mut counted = Negotiations::default();
        counted.count(&failed(Cause::NoAnswer { sent: 5 }), false);
        counted.count(&failed(Cause::NoAnswer { sent: 5 }), true);
        counted.count(&failed(Cause::NoSelector), false);
        counted.count(&failed(Cause::PeerSaid(Arc::from("X"))), false);
        assert_eq!(counted.phase1, Phase { failed: 2, timeouts: 1, ..Phase::default() });
        assert_eq!(counted.phase2, Phase { failed: 2, timeouts: 1, ..Phase::default() });
        let causes: Vec<_> = counted.failures.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
        assert_eq!(causes, [("no_answer", 2), ("no_selector", 1), ("peer_said", 1)]);
        let resent = ike::Trouble { resent: 3, ..ike::Trouble::default() };
        let with = counted.with(&PeerCounters { phase1: resent, ..PeerCounters::default() });
        assert_eq!((with.phase1.resent, with.phase2.resent, with.phase1.failed), (3, 0, 2));
    }

    #[test]
    fn without_an_ike_sa_both_phases_are_down() {
        let phases = Phases::of(&Connection::named("a"), &[]);
        assert_eq!((phases.phase1, phases.phase2), (Progress::Down, Progress::Down));
    }
}
