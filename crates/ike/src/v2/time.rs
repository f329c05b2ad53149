//! What time does to an established IKE SA: repetition (RFC 7296 §2.4), liveness, NAT keepalives (RFC 3948 §4),
//! lifetimes; and what status shows of it.

use base::{Deadline, Instant};
use sa::SaId;

use crate::context::Context;
use crate::event::CloseReason;
use crate::natt::KEEPALIVE;
use crate::session::{ChildView, IkeSaView, IkeState};

use super::Core;
use super::child::{Child, Stage};
use super::established::{After, Established, Exchange, Fate, Job};

impl Established {
    pub(super) fn handle_timeout(&mut self, core: &mut Core, ctx: &mut Context<'_>) -> After {
        if matches!(self.fate, Fate::Superseded { until } if until <= ctx.now) {
            return self.finish_closing(ctx);
        }
        if !self.ask_sync(core, ctx) || !self.repeat(core, ctx) {
            return self.on_dead_peer(ctx);
        }
        if self.fate == Fate::Live {
            if self.expires_at <= ctx.now {
                return self.close_and(core, CloseReason::Expired, self.restart(), ctx);
            }
            self.age(ctx);
            if self.next_question().is_some_and(|at| at <= ctx.now) {
                self.enqueue(Job::Ask, ctx.now);
            }
            if self.next_keepalive(core).is_some_and(|at| at <= ctx.now) {
                core.last_sent = ctx.now;
                ctx.transmit_raw(core.ends, KEEPALIVE.to_vec());
            }
        }
        self.pump(core, ctx);
        After::Stay
    }

    /// Sends again what has no answer. `false` when the tries are used up.
    fn repeat(&mut self, core: &mut Core, ctx: &mut Context<'_>) -> bool {
        for place in 0..self.outstanding.len() {
            let outstanding = &mut self.outstanding[place];
            if outstanding.at > ctx.now {
                continue;
            }
            if matches!(&outstanding.exchange, Exchange::Probe(probing) if probing.is_whole()) {
                self.repeat_probe(core, place, ctx);
                continue;
            }
            outstanding.sent += 1;
            if !outstanding.schedule(ctx.options, ctx.now) {
                return false;
            }
            ctx.counters.retransmitted += 1;
            core.send(core.ends, &outstanding.packets, ctx);
        }
        true
    }

    /// Rekeys and expires what is old.
    fn age(&mut self, ctx: &mut Context<'_>) {
        if self.rekey_at.is_some_and(|at| at <= ctx.now) {
            self.rekey_at = None;
            self.enqueue(Job::RekeyIke { group: None, tries: 0 }, ctx.now);
        }
        for place in 0..self.children.len() {
            let child = &mut self.children[place];
            let id = child.id;
            if child.expires_at <= ctx.now && child.ages() {
                self.retire(id, CloseReason::Expired, ctx);
            } else if child.rekey_at.is_some_and(|at| at <= ctx.now) {
                child.rekey_at = None;
                self.enqueue(Job::RekeyChild { old: id, group: None, tries: 0 }, ctx.now);
            }
        }
    }

    /// When to ask whether the peer lives: after silence, and only if nothing else asks it.
    fn next_question(&self) -> Option<Instant> {
        let delay = self.connection.dpd.map(|dpd| dpd.delay).filter(|delay| !delay.is_zero())?;
        (self.outstanding.is_empty() && !self.awaits_sync()).then(|| self.last_alive + delay)
    }

    fn next_keepalive(&self, core: &Core) -> Option<Instant> {
        (core.nat.ours && !core.keepalive.is_zero()).then(|| core.last_sent + core.keepalive)
    }

    pub(super) fn poll_timeout(&self, core: &Core) -> Option<Deadline> {
        let mut next = None;
        let mut consider = |at: Option<Instant>, why| {
            next = Deadline::earliest(next, at.map(|at| Deadline { at, why }));
        };
        if let Fate::Superseded { until } = self.fate {
            consider(Some(until), "a replaced IKE SA is forgotten");
        }
        consider(self.sync.asking.as_ref().map(|asking| asking.at), "message IDs are synchronized");
        for outstanding in &self.outstanding {
            consider(Some(outstanding.at), "a request is repeated");
        }
        for task in self.tasks.iter().filter(|task| self.may_start(&task.job)) {
            consider(Some(task.at), "a request is made");
        }
        if self.fate == Fate::Live {
            consider(Some(self.expires_at), "the IKE SA expires");
            consider(self.rekey_at, "the IKE SA is rekeyed");
            for child in &self.children {
                consider(child.rekey_at, "a Child SA is rekeyed");
                consider(child.ages().then_some(child.expires_at), "a Child SA expires");
            }
            consider(self.next_question(), "the peer is asked whether it lives");
            consider(self.next_keepalive(core), "a NAT keepalive is sent");
        }
        next
    }

    // ---- status ----

    pub(super) fn state(&self) -> IkeState {
        match self.fate {
            Fate::Live if self.rekeying_ike().is_some() => IkeState::Rekeying,
            Fate::Live => IkeState::Established,
            Fate::Closing { .. } | Fate::Superseded { .. } => IkeState::Closing,
        }
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.fate {
            Fate::Live if self.rekeying_ike().is_some() => "REKEYING",
            Fate::Live => "ESTABLISHED",
            Fate::Closing { .. } => "DELETING",
            Fate::Superseded { .. } => "REKEYED",
        }
    }

    pub(super) fn child_ids(&self) -> Vec<SaId> {
        self.children.iter().map(|child| child.id).collect()
    }

    /// Fills in what only an established IKE SA knows.
    pub(super) fn describe(&self, core: &Core, view: &mut IkeSaView) {
        (view.local_id, view.remote_id) = (Some(self.local_id.clone()), Some(self.remote_id.clone()));
        view.established_at = Some(self.established_at);
        (view.rekey_at, view.expires_at) = (self.rekey_at, Some(self.expires_at));
        let path = core.path();
        let describe = |child: &Child| ChildView {
            id: child.id,
            child: child.name.clone(),
            spis: (child.inbound, child.outbound),
            suite: child.suite,
            pfs: child.pfs,
            selectors: (child.local.to_vec(), child.remote.to_vec()),
            path,
            is_rekeyed: !matches!(child.stage, Stage::Installed | Stage::Active),
            installed_at: child.installed_at,
            rekey_at: child.rekey_at,
            expires_at: Some(child.expires_at),
        };
        view.children = self.children.iter().map(describe).collect();
    }
}
