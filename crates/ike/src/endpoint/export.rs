//! Handing an endpoint over to another process.

use base::Instant;
use base::export::Moment;
use model::Version;

use super::{Due, Endpoint, Wanted};
use crate::event::{PeerCounters, Trouble};
use crate::export::{Exported, ExportedSession, ExportedSlot, ExportedWanted, Import};
use crate::session::{IkeState, Session};
use crate::{PeerId, v1, v2};

impl Endpoint {
    /// Everything that another process needs to go on. This endpoint must do nothing more once the other does.
    pub fn export(&self, now: Instant) -> Exported {
        let slots = self.sessions.values().filter(|slot| slot.session.peer().is_some_and(|id| self.is_peer(id)));
        let sessions: Vec<_> = slots
            .filter_map(|slot| {
                let session = match &slot.session {
                    Session::V1(session) => ExportedSession::V1(Box::new(session.export(now)?)),
                    Session::V2(session) => ExportedSession::V2(Box::new(session.export(now)?)),
                };
                let (began_at, is_redundant) = (Moment::of(slot.began_at, now), slot.is_redundant);
                Some(ExportedSlot { session, first_message: slot.first_message, began_at, is_redundant })
            })
            .collect();
        let numbers: std::collections::BTreeSet<_> = sessions.iter().flat_map(|slot| slot.session.numbers()).collect();
        let connecting = self.by_peer.keys().filter(|id| self.is_peer(**id) && self.connecting_session(**id).is_some());
        Exported {
            connecting: connecting.copied().collect(),
            wanted: self.wanted.iter().map(|(id, wanted)| (*id, export_wanted(wanted, now))).collect(),
            last_sa: self.core.numbers.last(),
            taken: self.core.numbers.taken_by(&numbers),
            counters: self.core.counters.by_name(),
            sessions,
        }
    }

    /// Goes on with what another endpoint exported, whose peers have been added here under the same numbers. What comes
    /// out has to be carried out like any output: negotiations that were under way are begun anew.
    ///
    /// # Errors
    /// [`Import`]; the endpoint is of no use then.
    pub fn import(&mut self, exported: Exported, now: Instant) -> Result<(), Import> {
        self.core.numbers.restore(exported.last_sa, &exported.taken);
        self.core.counters.add_by_name(&exported.counters);
        for (id, wanted) in exported.wanted {
            if self.is_peer(id) {
                self.import_wanted(id, wanted, now);
            }
        }
        for slot in exported.sessions {
            let connection = self.core.peers.get(slot.session.peer()).map(|peer| peer.connection.clone());
            let connection = connection.ok_or(Import("an IKE SA belongs to a peer that is not there"))?;
            let session = match slot.session {
                ExportedSession::V1(session) => Session::V1(v1::Session::import(*session, now)?),
                ExportedSession::V2(session) => {
                    Session::V2(v2::Session::import(*session, &connection, &self.core.options, now)?)
                }
            };
            let key = self.insert(session, slot.first_message, slot.began_at.at(now));
            if let Some(added) = self.sessions.get_mut(&key) {
                added.is_redundant = slot.is_redundant;
            }
            self.refresh(key);
        }
        for id in exported.connecting {
            match self.established_session(id) {
                Some(key)
                    if self.state_of(key) == Some(IkeState::Rekeying) || self.version_of(key) == Some(Version::V2) =>
                {
                    self.renew(id, now);
                }
                Some(_) | None => self.begin(id, now),
            }
        }
        Ok(())
    }

    fn is_peer(&self, id: PeerId) -> bool {
        self.core.peers.get(id).is_some()
    }

    fn import_wanted(&mut self, id: PeerId, exported: ExportedWanted, now: Instant) {
        let [phase1, phase2] = exported.troubles.map(|(resent, answered_again, not_authentic)| Trouble {
            resent,
            answered_again,
            not_authentic,
        });
        let (retry_at, settle_at) = (exported.retry_at.map(|at| at.at(now)), exported.settle_at.map(|at| at.at(now)));
        self.forget_deadlines(id);
        let wanted = Wanted {
            children: exported.children,
            failures: exported.failures,
            retry_at,
            settle_at,
            counters: PeerCounters { phase1, phase2 },
        };
        self.wanted.insert(id, wanted);
        self.replace_deadline(None, retry_at, Due::Retry(id));
        self.replace_deadline(None, settle_at, Due::Duplicates(id));
    }
}

fn export_wanted(wanted: &Wanted, now: Instant) -> ExportedWanted {
    let PeerCounters { phase1, phase2 } = wanted.counters;
    ExportedWanted {
        children: wanted.children.clone(),
        failures: wanted.failures,
        retry_at: wanted.retry_at.map(|at| Moment::of(at, now)),
        settle_at: wanted.settle_at.map(|at| Moment::of(at, now)),
        troubles: [phase1, phase2].map(|t| (t.resent, t.answered_again, t.not_authentic)),
    }
}
