//! Handing an endpoint over to another process.

use std::collections::BTreeSet;

use base::Instant;
use base::export::Moment;
use model::Version;

use super::{Due, Endpoint, Slot, Wanted};
use crate::event::{PeerCounters, Trouble};
use crate::export::{Exported, ExportedPeer, ExportedSession, ExportedSlot, ExportedWanted, Import};
use crate::session::{IkeState, Session};
use crate::{PeerId, v1, v2};

impl Endpoint {
    /// Everything that another process needs to go on. This endpoint must do nothing more once the other does.
    pub fn export(&self, now: Instant) -> Exported {
        let sessions = self.export_sessions(|_| true, now);
        let numbers: BTreeSet<_> = sessions.iter().flat_map(|slot| slot.session.numbers()).collect();
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

    /// What concerns one peer, for another gateway that knows the rest.
    pub fn export_peer(&self, id: PeerId, now: Instant) -> ExportedPeer {
        let sessions = self.export_sessions(|peer| peer == id, now);
        let numbers: BTreeSet<_> = sessions.iter().flat_map(|slot| slot.session.numbers()).collect();
        ExportedPeer {
            wanted: self.wanted.get(&id).map(|wanted| export_wanted(wanted, now)),
            last_sa: self.core.numbers.last(),
            taken: self.core.numbers.taken_by(&numbers),
            is_connecting: self.is_peer(id) && self.connecting_session(id).is_some(),
            sessions,
        }
    }

    /// The peers with whom something changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    fn export_sessions(&self, wanted: impl Fn(PeerId) -> bool, now: Instant) -> Vec<ExportedSlot> {
        let is_wanted = |slot: &&Slot| slot.session.peer().is_some_and(|id| self.is_peer(id) && wanted(id));
        self.sessions
            .values()
            .filter(is_wanted)
            .filter_map(|slot| {
                let session = match &slot.session {
                    Session::V1(session) => ExportedSession::V1(Box::new(session.export(now)?)),
                    Session::V2(session) => ExportedSession::V2(Box::new(session.export(now)?)),
                };
                let (began_at, is_redundant) = (Moment::of(slot.began_at, now), slot.is_redundant);
                Some(ExportedSlot { session, first_message: slot.first_message, began_at, is_redundant })
            })
            .collect()
    }

    /// Goes on with what another endpoint exported, whose peers have been added here under the same numbers. What comes
    /// out has to be carried out like any output: negotiations that were under way are begun anew.
    ///
    /// # Errors
    /// [`Import`]; the endpoint is of no use then.
    pub fn import(&mut self, exported: Exported, now: Instant) -> Result<(), Import> {
        let connecting = self.import_sessions(exported, now)?;
        self.begin_anew(connecting, now);
        Ok(())
    }

    /// As [`Self::import`], in place of an endpoint that is lost and may still live, with what it said of each peer, and
    /// when. Nothing that it may do too is done in the same way, and the peers are asked what it did last (RFC 6311).
    ///
    /// # Errors
    /// [`Import`]; the endpoint is of no use then.
    pub fn succeed(
        &mut self,
        told: impl IntoIterator<Item = (PeerId, ExportedPeer, Instant)>,
        now: Instant,
    ) -> Result<(), Import> {
        let mut connecting = BTreeSet::new();
        for (id, peer, at) in told {
            // Its times are distances from when it was told.
            let mut exported = Exported::empty();
            exported.add_peer(id, peer);
            connecting.extend(self.import_sessions(exported, at)?);
        }
        for key in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.with(key, now, |session, ctx| match session {
                Session::V1(session) => session.succeed(ctx),
                Session::V2(session) => session.succeed(ctx),
            });
        }
        self.begin_anew(connecting, now);
        Ok(())
    }

    /// Another endpoint that knew these IKE SAs is lost, and may have gone on with them.
    pub fn keep_off(&mut self) {
        for slot in self.sessions.values_mut() {
            if let Session::V2(session) = &mut slot.session {
                session.keep_off();
            }
        }
    }

    fn import_sessions(&mut self, exported: Exported, now: Instant) -> Result<BTreeSet<PeerId>, Import> {
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
        Ok(exported.connecting)
    }

    fn begin_anew(&mut self, connecting: BTreeSet<PeerId>, now: Instant) {
        for id in connecting {
            match self.established_session(id) {
                Some(key)
                    if self.state_of(key) == Some(IkeState::Rekeying) || self.version_of(key) == Some(Version::V2) =>
                {
                    self.renew(id, now);
                }
                Some(_) | None => self.begin(id, now),
            }
        }
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
