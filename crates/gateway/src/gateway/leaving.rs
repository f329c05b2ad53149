//! Tunnels that end on purpose, and lose no packet by that.
//!
//! ```text
//! we order it:     routes lead elsewhere; DELETE leaves; its SAs carry what is under way, both ways, for [`LINGER`]
//! the peer does:   DELETE comes; routes lead elsewhere; the answer leaves; likewise
//! ```
//!
//! RFC 7296 §1.4.1 lets an end take in what arrives on a half-closed SA. Where there is no other tunnel the SAs are used
//! for that time too: whoever routes to this gateway, or to its peer, learns meanwhile that the tunnel goes. A peer that
//! forgets its SAs with its own DELETE loses what was on its way to it then; that cannot be helped from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine};
use ike::{CloseReason, PeerId};
use sa::{ChildLabel, SaChange, SaId};

use super::{Gateway, comes_with_traffic};
use crate::output::Output;

/// How long the SAs of a tunnel that ends on purpose carry packets yet: a DELETE that is lost once comes a second later.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// SAs that IKE has forgotten and the data path has not.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    sas: BTreeMap<SaId, (Instant, ChildLabel)>,
}

impl Lingering {
    pub(super) fn insert(&mut self, id: SaId, label: ChildLabel, until: Instant) {
        self.sas.insert(id, (until, label));
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let at = self.sas.values().map(|(until, _)| *until).min()?;
        Some(Deadline { at, why: "the last packets of a tunnel have arrived" })
    }

    /// Takes out those whose time is over.
    fn over(&mut self, now: Instant) -> Vec<(SaId, ChildLabel)> {
        let over: Vec<SaId> = self.sas.iter().filter(|(_, (until, _))| *until <= now).map(|(id, _)| *id).collect();
        over.into_iter().filter_map(|id| Some((id, self.sas.remove(&id)?.1))).collect()
    }

    fn has(&self, label: &ChildLabel) -> bool {
        self.sas.values().any(|(_, known)| known == label)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SaId, Instant, &ChildLabel)> {
        self.sas.iter().map(|(id, (until, label))| (*id, *until, label))
    }
}

impl Gateway {
    /// Moves traffic off a connection's tunnels, or off the one that is named, before their peer hears that they go.
    pub(super) fn leave(&mut self, id: PeerId, child: Option<&str>, now: Instant) {
        let Some(record) = self.records.get(&id).filter(|record| !record.sas.is_empty()) else { return };
        for label in record.labels(child) {
            self.router.set_leaving(&label, true, now);
        }
        self.pump_router(now);
        if self.is_plan_stale {
            self.replan();
        }
    }

    /// A Child SA is down, and its removal was said last: it stays where packets may be under way.
    pub(super) fn linger(&mut self, id: SaId, child: &Arc<str>, peer: PeerId, reason: &CloseReason, now: Instant) {
        let Some(record) = self.records.get(&peer) else { return };
        let label = ChildLabel { connection: record.name.clone(), child: child.clone() };
        let configured = record.connection.children.iter().find(|configured| *configured.name == **child);
        let lingers = match reason {
            CloseReason::Command => true,
            // What the next packet is to bring up must not swallow it.
            CloseReason::PeerDeleted => configured.is_some_and(|c| !comes_with_traffic(&record.connection, c)),
            CloseReason::Reconfigured
            | CloseReason::PeerDead
            | CloseReason::Replaced
            | CloseReason::Expired
            | CloseReason::Failed => false,
        };
        if lingers && self.outputs.pop_back_if(|last| *last == Output::Sa(SaChange::Remove(id))).is_some() {
            self.lingering.insert(id, label.clone(), now + LINGER);
            self.router.set_leaving(&label, true, now);
        } else if !self.lingering.has(&label) && !record.has_sa(child) {
            self.router.set_leaving(&label, false, now);
        }
    }

    /// Removes SAs that have lingered for long enough.
    pub(super) fn end_lingering(&mut self, now: Instant) {
        for (id, label) in self.lingering.over(now) {
            self.outputs.push_back(Output::Sa(SaChange::Remove(id)));
            if !self.lingering.has(&label) {
                self.router.set_leaving(&label, false, now);
            }
        }
    }

    /// Takes what the endpoint says about a datagram. Where the peer deletes a tunnel, packets lead elsewhere before it has
    /// its answer: it may forget its SAs then.
    pub(super) fn pump_datagram(&mut self, now: Instant) {
        let said: Vec<ike::Output> = std::iter::from_fn(|| self.endpoint.poll_output()).collect();
        let deletes = |output: &ike::Output| {
            matches!(output, ike::Output::Event(ike::Event::ChildDown { reason: CloseReason::PeerDeleted, .. }))
        };
        if !said.iter().any(deletes) {
            said.into_iter().for_each(|output| self.take(output, now));
            return self.pump(now);
        }
        let (answers, rest): (Vec<_>, Vec<_>) =
            said.into_iter().partition(|output| matches!(output, ike::Output::Transmit(_)));
        rest.into_iter().for_each(|output| self.take(output, now));
        self.pump_router(now);
        if self.is_plan_stale {
            self.replan();
        }
        answers.into_iter().for_each(|output| self.take(output, now));
        self.pump(now);
    }
}
