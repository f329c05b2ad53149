//! A tunnel that is drained: the peer is asked to send its packets another way (a notification of our own).
//!
//! ```text
//! a -- INFORMATIONAL { N(DRAINS, SPI of a) } -> b      b moves its traffic, and takes in what comes as before
//! a <- INFORMATIONAL { N(DRAINS, SPI of b) } -- b      b has understood
//! a -- INFORMATIONAL { N(WELCOMES, SPI of a) } -> b    traffic may come again
//! ```
//!
//! A status notification of an unknown type is ignored (RFC 7296 §3.10.1): a peer that does not know these answers with
//! nothing in it, and is known by that.

use std::sync::Arc;

use crate::context::Context;
use crate::event::Event;
use crate::wire::v2::{Body, Message, Notify, NotifyType, exchange, protocol};

use super::Core;
use super::child::{Child, Stage};
use super::established::{Established, Exchange, Fate, Job};

/// Packets shall take another way; of the types for private use (RFC 7296 §3.10.1).
const DRAINS: NotifyType = NotifyType(52_428);
/// They may come again.
const WELCOMES: NotifyType = NotifyType(52_429);

const fn kind_of(is_drained: bool) -> NotifyType {
    if is_drained { DRAINS } else { WELCOMES }
}

const fn is_live(child: &Child) -> bool {
    matches!(child.stage, Stage::Installed | Stage::Active)
}

impl Established {
    /// Tells the peer that a child is drained, or is not any more.
    pub(super) fn drain(&mut self, core: &mut Core, name: &Arc<str>, is_drained: bool, ctx: &mut Context<'_>) {
        if self.fate != Fate::Live {
            return;
        }
        // What was to be said before is out of date.
        self.tasks.retain(|task| !matches!(&task.job, Job::Drain { name: other, .. } if other == name));
        self.enqueue(Job::Drain { name: name.clone(), is_drained }, ctx.now);
        self.pump(core, ctx);
    }

    pub(super) fn start_drain(&mut self, core: &mut Core, name: Arc<str>, is_drained: bool, ctx: &mut Context<'_>) {
        let Some(child) = self.children.iter().find(|child| child.name == name && is_live(child)) else { return };
        let mut body = Body::new();
        body.notify_esp(kind_of(is_drained), child.inbound);
        self.request(core, exchange::INFORMATIONAL, &body, Exchange::Drain { name, is_drained }, ctx);
    }

    /// The peer drains tunnels of ours, or does not any more.
    pub(super) fn on_drains(&self, message: &Message<'_>, body: &mut Body, ctx: &mut Context<'_>) {
        for notify in message.notifies.iter().filter(|notify| notify.protocol == protocol::ESP) {
            let is_drained = notify.kind == DRAINS;
            if !is_drained && notify.kind != WELCOMES {
                continue;
            }
            let is_named = |child: &&Child| notify.spi == child.outbound.0.to_be_bytes();
            let Some(child) = self.children.iter().find(is_named) else { continue };
            body.notify_esp(notify.kind, child.inbound);
            ctx.tell(Event::PeerDrains { peer: self.peer, child: child.name.clone(), is_drained });
        }
    }

    /// The peer's answer.
    pub(super) fn on_drain_answer(
        &self,
        child: Arc<str>,
        is_drained: bool,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) {
        let is_echo = |notify: &Notify<'_>| notify.kind == kind_of(is_drained);
        let is_understood = message.notifies.iter().any(is_echo);
        ctx.tell(Event::DrainHeard { peer: self.peer, child, is_drained, is_understood });
    }
}
