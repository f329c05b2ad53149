//! Child SAs: which are there, which are wanted, how one takes the place of another, how they end.
//!
//! IKEv1 has no rekey exchange: a newer SA for the same traffic takes the place of the older one by being there. Both
//! sides may negotiate one at the same time, and may then differ about which is the newest. No packet is lost by
//! that, because every SA receives until it is deleted. An older SA is deleted a moment after the peer was seen to
//! use the newer one; or, where no packet shows that, by the phase 1 initiator long before the responder would, so
//! that the two sides do not delete each other's choice.

use std::sync::Arc;
use std::time::Duration;

use base::algorithm::Group;
use base::{Deadline, Instant};
use model::{Connection, Lifetime, Start};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, Limits, Path, SaChange, SaId, Spi, TrafficSelector};

use super::Link;
use super::established::{Established, Standing};
use super::phase2::Life;
use crate::context::Context;
use crate::event::{CloseReason, Event};
use crate::session::{ChildView, jittered};

/// From the peer's first packet on a newer SA until the older one is deleted: what is under way may arrive.
const GRACE: Duration = Duration::from_secs(5);
/// The same where no packet comes, for the phase 1 initiator.
const IDLE_GRACE: Duration = Duration::from_secs(10);
/// The same for the phase 1 responder: it waits for the initiator's delete, which may be lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// From the delete of a replaced SA until it is removed: the peer may still send until it has read the delete.
const LINGER: Duration = Duration::from_secs(3);
/// From the end of the session in which an SA should have been confirmed until it is deleted, if no packet does it.
const ORPHANED: Duration = Duration::from_secs(30);
/// SPIs that are remembered because they were deleted before we heard of them.
const MAX_DELETED: usize = 32;
/// How often the delete is repeated while nothing shows that the peer has read it: no answer comes to a delete, and
/// a peer that missed it would go on sending to nobody.
const REPEATS: u8 = 4;
/// How long a rekey waits at a time while phase 1 is being renewed.
const HOLD: Duration = Duration::from_secs(1);
/// Remaining lifetime from which on it does not wait.
const HURRY: Duration = Duration::from_secs(3);
/// SAs that were installed within this time may have been negotiated by both sides at once.
const CONTEST: Duration = Duration::from_secs(60);

/// A pair of Child SAs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(super) id: SaId,
    pub(super) name: Arc<str>,
    /// Ours and the peer's.
    pub(super) spis: (Spi, Spi),
    pub(super) suite: ChildSuite,
    pub(super) pfs: Option<Group>,
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    pub(super) path: Path,
    pub(super) installed_at: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Instant,
    pub(super) stage: Stage,
    /// It was told of: it has been in use.
    pub(super) was_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The peer may send; we do not yet, because it has not confirmed (message 3 of quick mode).
    Pending {
        /// Where its exchange ended with a predecessor of this session: until when a packet may confirm it.
        until: Option<Instant>,
    },
    /// Both send.
    Active,
    /// A newer one is active; this one receives.
    Replaced {
        /// The moment to delete it.
        delete_at: Instant,
        /// The peer was seen to use the newer one, and will not come back to this one.
        is_settled: bool,
    },
    /// The delete has left, and will so often again.
    Leaving { next_at: Instant, repeats: u8 },
}

/// What a quick mode agreed on, and whose it is.
pub(super) struct NewChild<'a> {
    pub(super) config: &'a model::Child,
    pub(super) connection: &'a Connection,
    pub(super) id: SaId,
    pub(super) spis: (Spi, Spi),
    pub(super) suite: ChildSuite,
    pub(super) pfs: Option<Group>,
    pub(super) keys: ChildKeys,
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    pub(super) life: Life,
}

/// What a session hands to its successor.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    children: Vec<Child>,
    wanted: Vec<Want>,
}

/// A Child SA that is to be negotiated.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) child: Arc<str>,
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    /// When to begin.
    pub(super) at: Instant,
    /// How often it was refused.
    pub(super) refused: u32,
    /// Which of the groups to try.
    pub(super) group: usize,
}

impl Want {
    pub(super) fn is_for(&self, child: &Child) -> bool {
        child.is(&self.child, &self.local, &self.remote)
    }
}

impl Child {
    fn is(&self, name: &str, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        *self.name == *name && self.local == *local && self.remote == *remote
    }

    pub(super) fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Pending { .. })
    }

    /// The exchange that made it is under way.
    fn is_being_confirmed(&self) -> bool {
        matches!(self.stage, Stage::Pending { until: None })
    }

    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. })
    }

    /// The session that negotiated it is gone. A rekey that was under way is due again; an SA that waits for its
    /// confirmation can only get it from a packet now.
    fn resume(&mut self, now: Instant) {
        match self.stage {
            Stage::Active => self.rekey_at = self.rekey_at.or(Some(now)),
            Stage::Pending { until } => self.stage = Stage::Pending { until: until.or(Some(now + ORPHANED)) },
            Stage::Replaced { .. } | Stage::Leaving { .. } => {}
        }
    }

    /// The peer uses a newer one; for good, when that is settled.
    fn note_used_newer(&mut self, is_settled: bool, now: Instant) {
        match self.stage {
            Stage::Replaced { delete_at, .. } => {
                let delete_at = delete_at.min(now + GRACE);
                self.stage = Stage::Replaced { delete_at, is_settled };
            }
            Stage::Leaving { next_at, .. } if is_settled => self.stage = Stage::Leaving { next_at, repeats: 0 },
            Stage::Leaving { .. } | Stage::Pending { .. } | Stage::Active => {}
        }
    }

    fn want(&self, at: Instant) -> Want {
        let (child, local, remote) = (Arc::clone(&self.name), self.local, self.remote);
        Want { child, local, remote, at, refused: 0, group: 0 }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let expires = Deadline { at: self.expires_at, why: "a Child SA expires" };
        let other = match self.stage {
            Stage::Pending { until } => until.map(|at| Deadline { at, why: "a Child SA that was not confirmed" }),
            Stage::Active => self.rekey_at.map(|at| Deadline { at, why: "a Child SA to rekey" }),
            Stage::Replaced { delete_at: at, .. } => Some(Deadline { at, why: "a replaced Child SA to delete" }),
            Stage::Leaving { next_at, .. } => Some(Deadline { at: next_at, why: "a deleted Child SA to remove" }),
        };
        Deadline::earliest(Some(expires), other)
    }

    pub(super) fn view(&self) -> ChildView {
        ChildView {
            id: self.id,
            child: Arc::clone(&self.name),
            spis: self.spis,
            suite: self.suite,
            pfs: self.pfs,
            selectors: (vec![self.local], vec![self.remote]),
            path: self.path,
            is_rekeyed: !matches!(self.stage, Stage::Active | Stage::Pending { .. }),
            installed_at: self.installed_at,
            rekey_at: self.rekey_at.filter(|_| self.is_active()),
            expires_at: Some(self.expires_at),
        }
    }
}

/// The pairs of selectors of a configured child: each is a quick mode of its own.
fn pairs(child: &model::Child) -> impl Iterator<Item = (TrafficSelector, TrafficSelector)> {
    child.local.iter().flat_map(|local| {
        let same_family = |remote: &&model::Selector| remote.net.addr().is_ipv4() == local.net.addr().is_ipv4();
        child.remote.iter().filter(same_family).map(|remote| ((*local).into(), (*remote).into()))
    })
}

/// The configured child that a pair of selectors belongs to: one that names the same, else one that covers it.
pub(super) fn find_child<'a>(
    connection: &'a Connection,
    local: &TrafficSelector,
    remote: &TrafficSelector,
) -> Option<&'a model::Child> {
    let equal = |child: &&model::Child| pairs(child).any(|(l, r)| l == *local && r == *remote);
    // IKEv1 does not narrow; but what the peer asks for may be less than we would allow.
    let covering = |child: &&model::Child| pairs(child).any(|(l, r)| l.covers(local) && r.covers(remote));
    connection.children.iter().find(equal).or_else(|| connection.children.iter().find(covering))
}

/// The selectors of a connection or of a peer's request as a person reads them.
pub(super) fn selector_offer(local: &TrafficSelector, remote: &TrafficSelector) -> crate::Offer {
    crate::Offer::new([("our traffic", vec![local.to_string()]), ("the peer's traffic", vec![remote.to_string()])])
}

/// The selectors that a connection has.
pub(super) fn selector_offers(connection: &Connection) -> Vec<crate::Offer> {
    let all = connection.children.iter().flat_map(pairs);
    all.take(16).map(|(local, remote)| selector_offer(&local, &remote)).collect()
}

impl Established {
    /// Wants every pair of selectors of a configured child that is neither there nor under way.
    pub(super) fn want_child(&mut self, name: &str, connection: &Connection, now: Instant) {
        let Some(child) = connection.children.iter().find(|child| child.name == *name) else { return };
        for (local, remote) in pairs(child) {
            let is_there = self.children.iter().any(|c| !c.is_leaving() && c.is(name, &local, &remote));
            if !is_there && !self.is_under_way(name, &local, &remote) {
                self.wanted.push(Want { child: name.into(), local, remote, at: now, refused: 0, group: 0 });
            }
        }
    }

    fn is_under_way(&self, name: &str, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        let same = |want: &Want| *want.child == *name && want.local == *local && want.remote == *remote;
        self.wanted.iter().any(same) || self.asking().any(same)
    }

    pub(super) fn initiate_child(&mut self, name: &str, link: &Link, ctx: &mut Context<'_>) {
        if let Some(connection) = self.connection(ctx) {
            self.take_charge();
            self.want_child(name, connection, ctx.now);
            self.start_wanted(link, ctx);
        }
    }

    pub(super) fn poll_wanted(&self) -> Option<Deadline> {
        let at = self.wanted.iter().map(|want| want.at).min()?;
        self.may_ask().then_some(Deadline { at, why: "a quick mode to begin" })
    }

    /// Begins the quick modes that are due.
    pub(super) fn start_wanted(&mut self, link: &Link, ctx: &mut Context<'_>) {
        while self.may_ask() {
            let Some(at) = self.wanted.iter().position(|want| want.at <= ctx.now) else { return };
            let want = self.wanted.remove(at);
            let pending = self.children.iter().any(|child| child.is_being_confirmed() && want.is_for(child));
            if pending {
                // The peer is negotiating the same; if that comes to nothing we go on.
                let at = ctx.now + Duration::from_secs(2);
                self.wanted.push(Want { at, ..want });
            } else {
                self.begin_quick(want, link, ctx);
            }
        }
    }

    /// Installs what a quick mode agreed on. Packets may arrive from now on.
    pub(super) fn install(&mut self, new: NewChild<'_>, link: &Link, ctx: &mut Context<'_>) {
        let NewChild { config, connection, id, spis, suite, pfs, keys, local, remote, life } = new;
        let agreed = Life::of(&config.lifetime).shorter(life);
        let time = agreed.time.unwrap_or(config.lifetime.time);
        let lifetime = Lifetime { time, ..config.lifetime };
        let (expires_at, path) = (ctx.now + time, self.path(link));
        let name: Arc<str> = config.name.as_str().into();
        let label = ChildLabel { connection: connection.name.as_str().into(), child: Arc::clone(&name) };
        let limits = Limits {
            soft_bytes: agreed.bytes.map(Lifetime::soft),
            hard_bytes: agreed.bytes,
            soft_packets: config.lifetime.packets.map(Lifetime::soft),
            hard_packets: config.lifetime.packets,
            hard_time: Some(expires_at),
        };
        ctx.change(SaChange::Install(Box::new(ChildSa {
            id,
            label,
            inbound_spi: spis.0,
            outbound_spi: spis.1,
            suite,
            keys,
            path,
            local: vec![local],
            remote: vec![remote],
            routing: config.routing.clone(),
            limits,
            replay_window: config.replay_window,
            df: config.df,
            copy_dscp: config.copy_dscp,
            mtu: config.mtu,
            mss: config.mss,
        })));
        let rekey_at = Some(ctx.now + lifetime.rekey_after(ctx.random.next_u32()));
        let (installed_at, stage) = (ctx.now, Stage::Pending { until: None });
        let child = Child {
            id,
            name,
            spis,
            suite,
            pfs,
            local,
            remote,
            path,
            installed_at,
            rekey_at,
            expires_at,
            stage,
            was_up: false,
        };
        self.children.push(child);
    }

    /// Packets that leave take this SA from now on; older ones for the same traffic only receive.
    pub(super) fn activate(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        let Some(at) = self.children.iter().position(|child| child.id == id && child.is_pending()) else { return };
        ctx.change(SaChange::Activate(id));
        let delete_at = ctx.now + if link.is_initiator { IDLE_GRACE } else { PATIENCE };
        let mut new = self.children.remove(at);
        (new.stage, new.was_up) = (Stage::Active, true);
        let mut replaces = None;
        for old in self.children.iter_mut().filter(|old| old.is(&new.name, &new.local, &new.remote)) {
            if old.is_active() {
                old.stage = Stage::Replaced { delete_at, is_settled: false };
                replaces = Some(old.id);
            }
        }
        self.wanted.retain(|want| !want.is_for(&new));
        ctx.counters.child_rekeys += u64::from(replaces.is_some());
        ctx.tell(Event::ChildUp {
            peer: self.peer,
            child: Arc::clone(&new.name),
            id,
            spis: new.spis,
            suite: new.suite,
            selectors: (vec![new.local], vec![new.remote]),
            replaces,
        });
        self.children.push(new);
    }

    /// The peer uses this SA: it has confirmed it, and older ones for the same traffic are not needed for long.
    pub(super) fn note_first_inbound(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        self.watch.note_alive(ctx.now);
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        if child.is_pending() {
            // Only the peer could make the packet, and it does not before it has sent message 3: that was lost.
            self.settle_quick(id, ctx);
            self.activate(id, link, ctx);
        }
        let Some(at) = self.children.iter().position(|child| child.id == id && child.is_active()) else { return };
        let Child { name, local, remote, installed_at, .. } = &self.children[at];
        let (name, local, remote, installed_at) = (Arc::clone(name), *local, *remote, *installed_at);
        for old in self.children.iter_mut().filter(|old| old.is(&name, &local, &remote)) {
            // Of two that came at the same time, the peer may yet come to prefer the other.
            let is_settled = installed_at.saturating_since(old.installed_at) > CONTEST;
            old.note_used_newer(is_settled, ctx.now);
        }
    }

    pub(super) fn handle_children_timeout(&mut self, link: &Link, ctx: &mut Context<'_>) {
        let due: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.poll_timeout().is_some_and(|deadline| deadline.at <= ctx.now))
            .map(|child| child.id)
            .collect();
        due.into_iter().for_each(|id| self.handle_child_timeout(id, link, ctx));
    }

    fn handle_child_timeout(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        let Some(child) = self.children.iter_mut().find(|child| child.id == id) else { return };
        if child.expires_at <= ctx.now {
            return self.expire_child(id, link, ctx);
        }
        match child.stage {
            Stage::Pending { .. } => self.drop_unconfirmed(id, link, ctx),
            Stage::Active => self.rekey_child(id, link, ctx),
            Stage::Replaced { is_settled, .. } => {
                let repeats = if is_settled { 0 } else { REPEATS };
                child.stage = Stage::Leaving { next_at: ctx.now + LINGER, repeats };
                let spi = child.spis.0;
                self.send_delete(link, &[spi], ctx);
            }
            Stage::Leaving { repeats: 0, .. } => self.remove_child(id, CloseReason::Replaced, ctx),
            Stage::Leaving { repeats, .. } => {
                child.stage = Stage::Leaving { next_at: ctx.now + LINGER, repeats: repeats - 1 };
                let spi = child.spis.0;
                self.send_delete(link, &[spi], ctx);
            }
        }
    }

    pub(super) fn rekey_child(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        let is_renewing = self.standing == Standing::Renewing;
        let Some(child) = self.children.iter_mut().find(|child| child.id == id && child.is_active()) else { return };
        // A peer that hands its children to the new phase 1 the moment that is established leaves behind, and then
        // deletes, what was negotiated on the old one meanwhile (strongSwan does): it can wait.
        if is_renewing && ctx.now + HURRY < child.expires_at {
            child.rekey_at = Some(ctx.now + HOLD);
            return;
        }
        child.rekey_at = None;
        let want = child.want(ctx.now);
        if !self.is_in_charge() || self.is_under_way(&want.child, &want.local, &want.remote) {
            return;
        }
        self.wanted.push(want);
        self.start_wanted(link, ctx);
    }

    /// Time or volume of an SA is used up.
    pub(super) fn expire_child(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let (spi, is_leaving) = (child.spis.0, child.is_leaving());
        if !is_leaving {
            self.send_delete(link, &[spi], ctx);
        }
        self.lose_child(id, CloseReason::Expired, link, ctx);
    }

    /// The peer does not use this SA any more (its inbound SPI is our outbound one).
    pub(super) fn handle_delete(&mut self, spi: Spi, link: &Link, ctx: &mut Context<'_>) {
        if let Some(id) = self.children.iter().find(|child| child.spis.1 == spi).map(|child| child.id) {
            self.lose_child(id, CloseReason::PeerDeleted, link, ctx);
        } else if self.has_quick_under_way() && self.deleted.len() < MAX_DELETED {
            self.deleted.push(spi);
        }
    }

    /// Removes an SA; where it was the one in use, another for the same traffic takes over, or a new one is wanted
    /// when the configuration says that the child is to be up.
    fn lose_child(&mut self, id: SaId, reason: CloseReason, link: &Link, ctx: &mut Context<'_>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let (was_active, want) = (child.is_active(), child.want(ctx.now));
        self.forsake_quick(id, ctx);
        self.remove_child(id, reason, ctx);
        if !was_active {
            return;
        }
        let mut others = self.children.iter().rev().filter(|other| !other.is_leaving() && want.is_for(other));
        if let Some(other) = others.next().map(|other| other.id) {
            return self.take_over(other, link, ctx);
        }
        self.want_again(want, ctx);
    }

    /// The peer took down what `want` asked for: wants it again when the configuration says that the child is to be
    /// up, or traffic depends on it.
    pub(super) fn want_again(&mut self, mut want: Want, ctx: &mut Context<'_>) {
        let connection = self.connection(ctx);
        let config = connection.and_then(|c| c.children.iter().find(|config| *config.name == *want.child));
        let is_rekey = self.children.iter().any(|child| child.is_active() && want.is_for(child));
        let is_under_way = self.is_under_way(&want.child, &want.local, &want.remote);
        if (is_rekey || config.is_some_and(|config| config.start == Start::AtOnce)) && !is_under_way {
            want.at = ctx.now + jittered(Duration::from_secs(1), ctx.random);
            self.wanted.push(want);
        }
    }

    /// An older SA, or one that was not confirmed yet, becomes the one in use.
    fn take_over(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        let Some(other) = self.children.iter_mut().find(|other| other.id == id) else { return };
        if other.is_pending() {
            self.settle_quick(id, ctx);
            return self.activate(id, link, ctx);
        }
        other.stage = Stage::Active;
        other.rekey_at = other.rekey_at.or(Some(ctx.now));
        ctx.change(SaChange::Activate(id));
    }

    /// The peer never confirmed this SA. Should it use it all the same, the delete tells it to stop.
    pub(super) fn drop_unconfirmed(&mut self, id: SaId, link: &Link, ctx: &mut Context<'_>) {
        if let Some(child) = self.children.iter_mut().find(|child| child.id == id && child.is_pending()) {
            child.stage = Stage::Leaving { next_at: ctx.now + LINGER, repeats: REPEATS };
            let spi = child.spis.0;
            self.send_delete(link, &[spi], ctx);
        }
    }

    /// Its children, for a successor, with what it wanted. It has none any more and wants none.
    pub(super) fn take_children(&mut self, ctx: &mut Context<'_>) -> Handover {
        // A recording of message 3 must not make us delete what lives on elsewhere.
        self.recent.iter_mut().for_each(|recent| recent.gone = None);
        self.abandon_probe(ctx);
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.extend(self.abandon_asking(ctx));
        Handover { children: std::mem::take(&mut self.children), wanted }
    }

    /// Takes over the children of a predecessor.
    pub(super) fn adopt_children(&mut self, mut handover: Handover, link: &Link, ctx: &mut Context<'_>) {
        self.take_charge();
        let path = self.path(link);
        for mut child in std::mem::take(&mut handover.children) {
            if child.path != path && child.path.udp == path.udp {
                child.path = path;
                ctx.change(SaChange::Move { id: child.id, path });
            }
            child.resume(ctx.now);
            if child.is_pending() {
                // Whether the peer has it nobody can say any more: negotiate it again, unless the peer does.
                handover.wanted.push(child.want(ctx.now + Duration::from_secs(2)));
            } else {
                self.wanted.retain(|want| !want.is_for(&child));
            }
            self.children.push(child);
        }
        for want in handover.wanted {
            if !self.is_under_way(&want.child, &want.local, &want.remote) {
                self.wanted.push(want);
            }
        }
    }

    /// Removes an SA without a word to the peer.
    pub(super) fn remove_child(&mut self, id: SaId, reason: CloseReason, ctx: &mut Context<'_>) {
        let Some(at) = self.children.iter().position(|child| child.id == id) else { return };
        let child = self.children.remove(at);
        ctx.change(SaChange::Remove(id));
        if child.was_up {
            ctx.tell(Event::ChildDown { peer: self.peer, child: child.name, id, reason });
        }
    }

    pub(super) fn close_child(&mut self, name: &str, reason: CloseReason, link: &Link, ctx: &mut Context<'_>) {
        self.wanted.retain(|want| *want.child != *name);
        self.forget_asking(name, ctx);
        let own = |child: &&Child| *child.name == *name;
        let spis: Vec<_> = self.children.iter().filter(own).filter(|c| !c.is_leaving()).map(|c| c.spis.0).collect();
        let ids: Vec<_> = self.children.iter().filter(own).map(|child| child.id).collect();
        self.send_delete(link, &spis, ctx);
        for id in ids {
            self.forsake_quick(id, ctx);
            self.remove_child(id, reason.clone(), ctx);
        }
    }
}
