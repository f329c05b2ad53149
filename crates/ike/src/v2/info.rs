//! INFORMATIONAL (RFC 7296 §1.4): deletes, and what an IKE SA is told besides. An empty one asks whether we live.

use std::time::Duration;

use sa::SaId;

use crate::context::{Again, Context};
use crate::event::CloseReason;
use crate::failure::{Cause, Failure, Side};
use crate::wire::v2::{Body, Message, NotifyType, exchange, protocol};

use super::Core;
use super::child::Stage;
use super::established::{After, Established, Exchange, Fate, Job, Then};

/// How long a replaced IKE SA that the peer has deleted still answers that delete when it is repeated.
const LINGER: Duration = Duration::from_secs(10);

/// Most SPIs remembered that the peer deleted before it told us of them.
const MAX_STILLBORN: usize = 16;

impl Established {
    /// a -- INFORMATIONAL { [D,] [N] } -> b
    /// a <- INFORMATIONAL { [D] } -- b
    pub(super) fn on_informational(
        &mut self,
        core: &Core,
        message: &Message<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Then {
        if message.deletes.iter().any(|delete| delete.protocol == protocol::IKE) {
            return self.on_delete_ike();
        }
        if message.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            // RFC 7296 §2.21.2: the initiator did not believe our proof.
            let cause = Cause::PeerRefusedUs { claimed: self.local_id.clone() };
            ctx.fail(Some(self.peer), core.ends.remote, Failure::new(cause, Side::Theirs, Some(&self.connection)));
            return Then::Finish(CloseReason::Failed, Again::No);
        }
        self.on_drains(message, body, ctx);
        let mut gone = Vec::new();
        for spi in message.deletes.iter().flat_map(|delete| delete.esp_spis()) {
            let Some(child) = self.children.iter().find(|child| child.outbound == spi) else {
                if self.awaits_child() && self.stillborn.len() < MAX_STILLBORN {
                    self.stillborn.push(spi);
                }
                continue;
            };
            let (id, inbound) = (child.id, child.inbound);
            // RFC 7296 §1.4.1: when both delete it at once, neither names it in the answer.
            if !self.is_deleting(id) {
                gone.push(inbound);
            }
            self.on_deleted(id, ctx);
        }
        if !gone.is_empty() {
            body.delete_esp(&gone);
        }
        Then::Nothing
    }

    fn is_deleting(&self, id: SaId) -> bool {
        let is_it = |exchange: &Exchange| matches!(exchange, Exchange::DeleteChild { id: deleted } if *deleted == id);
        self.outstanding.iter().any(|outstanding| is_it(&outstanding.exchange))
    }

    /// The peer deleted a Child SA.
    fn on_deleted(&mut self, id: SaId, ctx: &mut Context<'_>) {
        let Some(child) = self.child(id) else { return };
        let name = child.name.clone();
        let was_wanted = match child.stage {
            Stage::Installed | Stage::Active => true,
            Stage::Superseded | Stage::Closing(_) | Stage::Doomed => false,
        };
        let has_heir = self.drop_child(id, &CloseReason::PeerDeleted, ctx);
        // While we rekey it, the answer decides what is in its place.
        let is_rekeyed = self.rekeying_child(id).is_some();
        let has_other = self.children.iter().any(|child| child.name == name && child.stage == Stage::Active);
        if was_wanted && !has_heir && !is_rekeyed && !has_other {
            self.restore(&name, ctx.options.retry, ctx);
        }
    }

    fn on_delete_ike(&mut self) -> Then {
        match &self.fate {
            // RFC 7296 §2.25.2: our own rekey is forgotten, and what the peer made of it stands.
            Fate::Live | Fate::Closing { .. } if self.rival.is_some() => Then::Yield,
            Fate::Live => Then::Finish(CloseReason::PeerDeleted, self.restart()),
            Fate::Closing { reason, again, .. } => Then::Finish(reason.clone(), *again),
            Fate::Superseded { .. } => Then::Yield,
        }
    }

    /// The peer deleted this IKE SA, and another has its place: this one only answers the delete again.
    pub(super) fn yield_to_rival(&mut self, ctx: &mut Context<'_>) -> After {
        let until = ctx.now + LINGER;
        if let Some(rival) = self.rival.take() {
            self.supersede(*rival, ctx);
        }
        self.fate = Fate::Superseded { until };
        After::Stay
    }

    // ---- we delete ----

    /// a -- INFORMATIONAL { D } -> b
    pub(super) fn start_delete_child(&mut self, core: &mut Core, id: SaId, ctx: &mut Context<'_>) {
        let Some(child) = self.child(id) else { return };
        let mut body = Body::new();
        body.delete_esp(&[child.inbound]);
        self.request(core, exchange::INFORMATIONAL, &body, Exchange::DeleteChild { id }, ctx);
    }

    /// Deletes a Child SA; where the connection wants it up and nothing is in its place, it is negotiated anew.
    pub(super) fn retire(&mut self, id: SaId, reason: CloseReason, ctx: &mut Context<'_>) {
        let has_heir = self.children.iter().any(|child| child.replaces == Some(id));
        let Some(child) = self.child_mut(id).filter(|child| child.ages()) else { return };
        let was_superseded = child.stage == Stage::Superseded;
        let (name, expired) = (child.name.clone(), reason == CloseReason::Expired);
        (child.stage, child.rekey_at) = (Stage::Closing(reason), None);
        self.enqueue(Job::DeleteChild { id }, ctx.now);
        if expired && !has_heir && !was_superseded {
            self.restore(&name, Duration::ZERO, ctx);
        }
    }

    /// The volume of a Child SA is used up.
    pub(super) fn expire_child(&mut self, core: &mut Core, id: SaId, ctx: &mut Context<'_>) {
        self.retire(id, CloseReason::Expired, ctx);
        self.pump(core, ctx);
    }

    pub(super) fn close_child(&mut self, core: &mut Core, name: &str, reason: &CloseReason, ctx: &mut Context<'_>) {
        self.tasks.retain(|task| !matches!(&task.job, Job::CreateChild { name: wanted, .. } if **wanted == *name));
        let named: Vec<_> = self.children.iter().filter(|child| *child.name == *name).map(|child| child.id).collect();
        named.into_iter().for_each(|id| self.retire(id, reason.clone(), ctx));
        self.pump(core, ctx);
    }
}
