//! CREATE_CHILD_SA for Child SAs: further ones (RFC 7296 §1.3.1) and rekeying (§1.3.3), with the collisions of §2.8.1
//! and §2.25.1. A rekey is made before the break: the new SA receives before anybody may send on it, and the old one
//! receives until its delete is answered.

use std::sync::Arc;

use base::algorithm::Group;
use sa::{SaId, Spi};

use crate::context::{Context, Signal};
use crate::event::CloseReason;
use crate::failure::{Cause, Failure, Side};
use crate::session::jittered;
use crate::wire::v2::{Body, Message, Notify, NotifyType, exchange, protocol};

use super::Core;
use super::child::{Ask, Child, Made, Pending, Stage, install, our_offers};
use super::established::{Established, Exchange, Fate, Job, SLOW_RETRY, Task, Then};

/// Most Child SAs of one IKE SA.
const MAX_CHILDREN: usize = 256;
/// How often the peer may ask for another group in one go.
const MAX_GROUP_TRIES: u8 = 3;

/// Our rekeying of a Child SA, while it has no answer.
#[derive(Debug)]
pub(super) struct RekeyingChild {
    pub(super) pending: Pending,
    pub(super) tries: u8,
    pub(super) old: SaId,
    /// The peer rekeys the same one.
    pub(super) rival: Option<Rival>,
}

/// What the peer made of a Child SA that we rekey too.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) id: SaId,
    /// The lower of its two nonces.
    pub(super) lowest: Vec<u8>,
}

/// What an answer is to.
pub(super) struct Answered<'a> {
    pub(super) pending: Pending,
    pub(super) tries: u8,
    /// The SA that was to be rekeyed, and what the peer made of it meanwhile.
    pub(super) rekeyed: Option<(SaId, Option<Rival>)>,
    /// Nonces of IKE_SA_INIT, for the Child SA of IKE_AUTH.
    pub(super) auth_nonces: Option<(&'a [u8], &'a [u8])>,
}

impl Established {
    /// a -- CREATE_CHILD_SA { SA, Ni, [KEi,] TSi, TSr } -> b
    pub(super) fn start_create(
        &mut self,
        core: &mut Core,
        name: &Arc<str>,
        group: Option<Group>,
        tries: u8,
        ctx: &mut Context<'_>,
    ) {
        let is_there = self
            .children
            .iter()
            .any(|child| child.name == *name && matches!(child.stage, Stage::Installed | Stage::Active));
        let is_under_way = self.outstanding.iter().any(|outstanding| match &outstanding.exchange {
            Exchange::CreateChild { pending, .. } => pending.name == *name,
            Exchange::RekeyChild(rekeying) => rekeying.pending.name == *name,
            Exchange::DeleteChild { .. }
            | Exchange::Disown { .. }
            | Exchange::Inherited { .. }
            | Exchange::RekeyIke(_)
            | Exchange::DeleteIke
            | Exchange::Ask
            | Exchange::Probe(_)
            | Exchange::Drain { .. } => false,
        });
        let connection = self.connection.clone();
        let configured = connection.children.iter().find(|child| *child.name == **name);
        let Some(configured) = configured.filter(|_| !is_there && !is_under_way) else { return };
        let pending = Pending::new(configured, group.or_else(|| first_group(configured)), ctx);
        let mut body = Body::new();
        pending.offer(configured, true, &mut body);
        let exchange = Exchange::CreateChild { pending: Box::new(pending), tries };
        self.request(core, exchange::CREATE_CHILD_SA, &body, exchange, ctx);
    }

    /// a -- CREATE_CHILD_SA { N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr } -> b
    pub(super) fn start_rekey_child(
        &mut self,
        core: &mut Core,
        old: SaId,
        group: Option<Group>,
        tries: u8,
        ctx: &mut Context<'_>,
    ) {
        // The peer may have rekeyed or deleted it since.
        let has_heir = self.children.iter().any(|child| child.replaces == Some(old));
        let Some(child) = self.child(old).filter(|child| child.stage == Stage::Active && !has_heir) else { return };
        let (name, inbound) = (child.name.clone(), child.inbound);
        let connection = self.connection.clone();
        let Some(configured) = connection.children.iter().find(|child| *child.name == *name) else { return };
        let pending = Pending::new(configured, group.or_else(|| first_group(configured)), ctx);
        let mut body = Body::new();
        body.notify_esp(NotifyType::REKEY_SA, inbound);
        pending.offer(configured, true, &mut body);
        let rekeying = RekeyingChild { pending, tries, old, rival: None };
        self.request(core, exchange::CREATE_CHILD_SA, &body, Exchange::RekeyChild(Box::new(rekeying)), ctx);
    }

    // ---- the peer asks ----

    pub(super) fn on_create(
        &mut self,
        core: &mut Core,
        message: &Message<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Then {
        let protocol = message.sa.as_deref().and_then(|proposals| proposals.first()).map(|first| first.protocol);
        match protocol {
            Some(protocol::IKE) => self.on_rekey_ike(core, message, body, ctx),
            Some(_) if self.fate != Fate::Live || self.rival.is_some() || self.rekeying_ike().is_some() => {
                // RFC 7296 §2.25.2: no new Child SAs while the IKE SA itself is rekeyed or closed.
                body.notify(NotifyType::TEMPORARY_FAILURE, &[]);
                Then::Nothing
            }
            Some(_) => match message.notify(NotifyType::REKEY_SA) {
                Some(rekeyed) => self.on_rekey_child(core, rekeyed, message, body, ctx),
                None => self.on_further_child(core, message, body, ctx),
            },
            None => {
                body.notify(NotifyType::INVALID_SYNTAX, &[]);
                Then::Nothing
            }
        }
    }

    fn on_further_child(&mut self, core: &Core, message: &Message<'_>, body: &mut Body, ctx: &mut Context<'_>) -> Then {
        if self.children.len() >= MAX_CHILDREN {
            body.notify(NotifyType::NO_ADDITIONAL_SAS, &[]);
            return Then::Nothing;
        }
        let ask = Ask { nonces: None, only: None, replaces: None };
        self.grant_child(core, message, ask, body, ctx).map_or(Then::Nothing, Then::Activate)
    }

    fn on_rekey_child(
        &mut self,
        core: &Core,
        rekeyed: Notify<'_>,
        message: &Message<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Then {
        let spi = <[u8; 4]>::try_from(rekeyed.spi).map_or(Spi(0), |spi| Spi(u32::from_be_bytes(spi)));
        let Some(old) = self.children.iter().find(|child| child.outbound == spi) else {
            // RFC 7296 §2.25: the peer forgets it then.
            body.notify_esp(NotifyType::CHILD_SA_NOT_FOUND, spi);
            return Then::Nothing;
        };
        let (id, name) = (old.id, old.name.clone());
        let is_ending = match old.stage {
            Stage::Installed | Stage::Active => self.is_to_be_deleted(id),
            Stage::Superseded | Stage::Closing(_) | Stage::Doomed => true,
        };
        let unheard = |child: &&Child| child.replaces == Some(id) && child.stage == Stage::Installed;
        if self.sync.heard.is_some()
            && let Some(child) = self.children.iter().find(unheard)
        {
            // A gateway that asked before died with our answer.
            self.drop_child(child.id, &CloseReason::Replaced, ctx);
        }
        let has_heir = self.children.iter().any(|child| child.replaces == Some(id));
        if is_ending || has_heir {
            // RFC 7296 §2.25.1: it is about to be closed here, or was rekeyed already.
            body.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            return Then::Nothing;
        }
        let ask = Ask { nonces: None, only: Some(&name), replaces: Some(id) };
        if let Some((new, lowest)) = self.grant_child_with_nonce(core, message, ask, body, ctx)
            && let Some(rekeying) = self.rekeying_child(id)
        {
            rekeying.rival = Some(Rival { id: new, lowest });
        }
        Then::Nothing
    }

    fn is_to_be_deleted(&self, id: SaId) -> bool {
        self.tasks.iter().any(|task| task.job == Job::DeleteChild { id })
    }

    /// Our rekeying of this Child SA, while it has no answer.
    pub(super) fn rekeying_child(&mut self, id: SaId) -> Option<&mut RekeyingChild> {
        self.outstanding.iter_mut().find_map(|outstanding| match &mut outstanding.exchange {
            Exchange::RekeyChild(rekeying) if rekeying.old == id => Some(&mut **rekeying),
            Exchange::RekeyChild(_)
            | Exchange::CreateChild { .. }
            | Exchange::DeleteChild { .. }
            | Exchange::Disown { .. }
            | Exchange::Inherited { .. }
            | Exchange::RekeyIke(_)
            | Exchange::DeleteIke
            | Exchange::Ask
            | Exchange::Probe(_)
            | Exchange::Drain { .. } => None,
        })
    }

    // ---- the peer answers ----

    /// a <- CREATE_CHILD_SA { SA, Nr, [KEr,] TSi, TSr } | { N(error) } -- b
    pub(super) fn on_child_answer(
        &mut self,
        core: &Core,
        answered: Answered<'_>,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) {
        let connection = self.connection.clone();
        let configured = connection.children.iter().find(|child| *child.name == *answered.pending.name);
        if self.fate != Fate::Live {
            // It goes with the IKE SA.
            return answered.pending.abandon(ctx);
        }
        if let Some(error) = message.error() {
            answered.pending.abandon(ctx);
            return self.on_child_refused(core, answered, error, ctx);
        }
        let Some(configured) = configured else { return answered.pending.abandon(ctx) };
        let pending = &answered.pending;
        match pending.accept(configured, message, answered.auth_nonces, &self.channel.keys) {
            Ok(terms) if self.stillborn.contains(&terms.outbound) => {
                pending.abandon(ctx);
                let old = answered.rekeyed.as_ref().map(|(old, _)| *old);
                self.restore_lost(old, &answered.pending.name, ctx);
            }
            Ok(terms) => {
                let replaces = answered.rekeyed.as_ref().map(|(old, _)| *old);
                let made = Made { id: pending.id, inbound: pending.inbound, by_us: true, replaces };
                let child = install(&connection, configured, core, &made, terms, ctx);
                self.children.push(child);
                let theirs = message.nonce.unwrap_or_default();
                let lowest = theirs.min(&pending.nonce[..]);
                match answered.rekeyed {
                    Some((old, rival)) => self.settle(old, made.id, rival, lowest, ctx),
                    None => self.activate(made.id, ctx),
                }
            }
            Err(how) => {
                let failure = Failure::new(Cause::PeerMisbehaved(how), Side::Ours, Some(&connection));
                ctx.fail(Some(self.peer), core.ends.remote, failure);
                // The peer holds it for agreed on.
                let job = Job::Disown { id: pending.id, inbound: pending.inbound };
                self.tasks.push(Task { at: ctx.now, job });
            }
        }
    }

    /// RFC 7296 §2.8.1: of four nonces the lowest loses; the maker of that SA closes it, the other maker the old one.
    fn settle(&mut self, old: SaId, new: SaId, rival: Option<Rival>, lowest: &[u8], ctx: &mut Context<'_>) {
        let rival = rival.filter(|rival| self.child(rival.id).is_some());
        match rival {
            Some(rival) if *lowest < rival.lowest[..] => {
                if let Some(child) = self.child_mut(new) {
                    (child.stage, child.rekey_at) = (Stage::Doomed, None);
                }
                self.enqueue(Job::DeleteChild { id: new }, ctx.now);
                if self.child(old).is_none() {
                    self.activate(rival.id, ctx);
                }
            }
            rival => {
                self.activate(new, ctx);
                if let Some(loser) = rival.and_then(|rival| self.child_mut(rival.id)) {
                    (loser.stage, loser.rekey_at) = (Stage::Superseded, None);
                }
                if self.child(old).is_some() {
                    self.enqueue(Job::DeleteChild { id: old }, ctx.now);
                }
            }
        }
    }

    fn on_child_refused(&mut self, core: &Core, answered: Answered<'_>, error: Notify<'_>, ctx: &mut Context<'_>) {
        let name = answered.pending.name.clone();
        let connection = self.connection.clone();
        let configured = connection.children.iter().find(|child| *child.name == *name);
        let old = answered.rekeyed.as_ref().map(|(old, _)| *old);
        let again = |group, tries| match old {
            Some(old) => Job::RekeyChild { old, group, tries },
            None => Job::CreateChild { name: name.clone(), group, tries },
        };
        let soon = ctx.now + jittered(ctx.options.retry, ctx.random);
        let cause = match error.kind {
            NotifyType::TEMPORARY_FAILURE => {
                self.enqueue(again(None, 0), soon);
                return self.restore_lost(old, &name, ctx);
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                if let Some(old) = old
                    && !self.drop_child(old, &CloseReason::PeerDeleted, ctx)
                {
                    self.restore(&name, ctx.options.retry, ctx);
                }
                return;
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let wanted = <[u8; 2]>::try_from(error.data).ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
                let offered = |group: &Group| {
                    configured.is_some_and(|child| child.esp.iter().any(|esp| esp.groups.contains(group)))
                };
                let usable = wanted.filter(offered).filter(|group| answered.pending.group() != Some(*group));
                if let Some(group) = usable.filter(|_| answered.tries < MAX_GROUP_TRIES) {
                    return self.enqueue(again(Some(group), answered.tries + 1), ctx.now);
                }
                Cause::NoGroup { wanted }
            }
            NotifyType::NO_PROPOSAL_CHOSEN => Cause::NoChildProposal,
            NotifyType::TS_UNACCEPTABLE => Cause::NoSelector,
            other => Cause::PeerSaid(other.to_string().into()),
        };
        let ours = configured.map(|child| our_offers(&cause, child)).unwrap_or_default();
        let failure = Failure::new(cause, Side::Theirs, Some(&connection)).with_offers(ours, Vec::new());
        ctx.fail(Some(self.peer), core.ends.remote, failure);
        match old {
            // A peer that makes no further Child SAs wants a new IKE SA for them (RFC 7296 §1.3).
            Some(_) if error.kind == NotifyType::NO_ADDITIONAL_SAS => {
                ctx.signals.push(Signal::Renew { peer: self.peer });
            }
            Some(_) => {
                let at = ctx.now + jittered(SLOW_RETRY, ctx.random);
                self.enqueue(again(None, 0), at);
                self.restore_lost(old, &name, ctx);
            }
            None => self.restore(&name, SLOW_RETRY, ctx),
        }
    }

    /// When what was to be rekeyed went away meanwhile and nothing took its place, it is brought up anew.
    fn restore_lost(&mut self, old: Option<SaId>, name: &Arc<str>, ctx: &mut Context<'_>) {
        let has = |id| self.children.iter().any(|child| child.id == id || child.replaces == Some(id));
        if old.is_some_and(|old| !has(old)) {
            self.restore(name, ctx.options.retry, ctx);
        }
    }
}

/// The group that the public value is sent for: the first of the first proposal that has any.
fn first_group(child: &model::Child) -> Option<Group> {
    child.esp.iter().find_map(|esp| esp.groups.first()).copied()
}
