//! An established IKE SA: the window of requests and responses (RFC 7296 §2.1–2.3), timers, and the order in which
//! what we want becomes requests. What each exchange means is in [`super::create`], [`super::rekey`], [`super::info`].
//!
//! Whatever moves it is a [`Verified`] message, a command or the time.

use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use base::algorithm::Group;
use model::{Connection, DpdAction, Identity, Start};
use sa::{SaChange, SaId, Spi};
use serde::{Deserialize, Serialize};

use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Event, Rekey};
use crate::failure::{Cause, Failure, Side};
use crate::peer::{Options, PeerId};
use crate::probe::Probe;
use crate::session::jittered;
use crate::wire::header::Header;
use crate::wire::v2::{Body, Message, NotifyType, exchange, flags};

use super::Core;
use super::child::{Ask, Child, Made, Pending, Stage, grant, install};
use super::create::{Answered, RekeyingChild};
use super::fragment::{Channel, Packets};
use super::keys::{IkeSuite, Verified};
use super::probe::{self, Probing};
use super::rekey::{Born, RekeyingIke};
use super::sync::Sync;

/// Most of our requests outstanding at once, whatever the peer would take.
pub(super) const MAX_WINDOW: u32 = 8;
/// The wait before something is tried again that the peer refused for good reason: its configuration may change.
pub(super) const SLOW_RETRY: Duration = Duration::from_secs(30);

/// An IKE SA on which both have proved who they are.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) peer: PeerId,
    pub(super) connection: Arc<Connection>,
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) channel: Channel,
    pub(super) children: Vec<Child>,
    pub(super) tasks: Vec<Task>,
    pub(super) outstanding: Vec<Outstanding>,
    /// SPIs that the peer deleted and that we do not know, while an answer of it is due that may name them: it can
    /// make a Child SA and delete it before we hear of it.
    pub(super) stillborn: Vec<Spi>,
    /// The IKE SA that the peer made of this one while we rekey it too.
    pub(super) rival: Option<Box<Born>>,
    pub(super) fate: Fate,
    /// Message ID of our next request.
    pub(super) next_request: u32,
    /// Message ID of the peer's next request.
    pub(super) expected: u32,
    /// Requests that the peer takes at once.
    pub(super) window: u32,
    /// The answer to the peer's last request.
    pub(super) answer: Packets,
    pub(super) last_alive: Instant,
    pub(super) established_at: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Instant,
    /// How long the answer to a probe of the path is waited for.
    pub(super) probe_wait: Duration,
    /// Whether the peer takes a message of one fragment, once that was tried.
    pub(super) lone_fragments: Option<bool>,
    pub(super) sync: Sync,
}

/// What an established IKE SA begins with.
pub(super) struct Parts {
    pub(super) channel: Channel,
    pub(super) peer: PeerId,
    pub(super) connection: Arc<Connection>,
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) next_request: u32,
    pub(super) expected: u32,
}

/// What will become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It carries on.
    Live,
    /// We delete it. A successor may have its children already: then nobody hears of its end.
    Closing { reason: CloseReason, again: Again, is_silent: bool },
    /// Another has its children; the peer deletes it, or the time does.
    Superseded { until: Instant },
}

/// What to do with it after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Stay,
    Closed,
}

/// Something to do once the answer to a request is sent.
pub(super) enum Then {
    Nothing,
    Activate(SaId),
    Succeed(Box<Born>),
    Finish(CloseReason, Again),
    /// The peer deleted this IKE SA while its successor of the peer's making was waiting.
    Yield,
}

/// Something that will be a request.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Not before.
    pub(super) at: Instant,
    pub(super) job: Job,
}

/// What a request of ours is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Job {
    CreateChild {
        name: Arc<str>,
        group: Option<Group>,
        tries: u8,
    },
    RekeyChild {
        old: SaId,
        group: Option<Group>,
        tries: u8,
    },
    DeleteChild {
        id: SaId,
    },
    /// Deletes what the peer made against our terms.
    Disown {
        id: SaId,
        inbound: Spi,
    },
    RekeyIke {
        group: Option<Group>,
        tries: u8,
    },
    DeleteIke,
    Ask,
    Probe(Probe),
    Drain {
        name: Arc<str>,
        is_drained: bool,
    },
}

/// A request of ours that has no answer yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) id: u32,
    pub(super) packets: Packets,
    pub(super) kind: u8,
    pub(super) sent: u32,
    pub(super) asked_at: Instant,
    pub(super) at: Instant,
    pub(super) give_up_at: Option<Instant>,
    pub(super) exchange: Exchange,
}

/// What the answer will be for.
#[derive(Debug)]
pub(super) enum Exchange {
    CreateChild {
        pending: Box<Pending>,
        tries: u8,
    },
    RekeyChild(Box<RekeyingChild>),
    DeleteChild {
        id: SaId,
    },
    Disown {
        id: SaId,
    },
    /// What another gateway asked for: whatever the peer makes of it is disowned, and made anew.
    Inherited {
        id: SaId,
        inbound: Spi,
        again: Option<Job>,
    },
    RekeyIke(Box<RekeyingIke>),
    DeleteIke,
    Ask,
    Probe(Probing),
    Drain {
        name: Arc<str>,
        is_drained: bool,
    },
}

impl Outstanding {
    /// Sets when it is sent again; `false` when there is no next time.
    pub(super) fn schedule(&mut self, options: &Options, now: Instant) -> bool {
        if self.give_up_at.is_some_and(|at| now >= at) {
            return false;
        }
        let schedule = &options.retransmission;
        let last = self.give_up_at.and_then(|_| schedule.wait(schedule.tries));
        let Some(wait) = schedule.wait(self.sent).or(last) else { return false };
        self.at = now + wait.max(Duration::from_millis(1));
        self.at = self.give_up_at.map_or(self.at, |at| at.min(self.at));
        true
    }
}

impl Exchange {
    /// Frees what was set aside for it.
    pub(super) fn abandon(&self, ctx: &mut Context<'_>) {
        match self {
            Self::CreateChild { pending, .. } => pending.abandon(ctx),
            Self::RekeyChild(rekeying) => rekeying.pending.abandon(ctx),
            Self::Disown { id } | Self::Inherited { id, .. } => ctx.numbers.release(*id),
            Self::Probe(probing) => probing.abandon(ctx),
            Self::DeleteChild { .. } | Self::RekeyIke(_) | Self::DeleteIke | Self::Ask | Self::Drain { .. } => {}
        }
    }

    /// Whether its answer may make a Child SA.
    pub(super) const fn makes_child(&self) -> bool {
        match self {
            Self::CreateChild { .. } | Self::RekeyChild(_) => true,
            Self::DeleteChild { .. }
            | Self::Disown { .. }
            | Self::Inherited { .. }
            | Self::RekeyIke(_)
            | Self::DeleteIke
            | Self::Ask
            | Self::Probe(_)
            | Self::Drain { .. } => false,
        }
    }

    /// Whether it changes Child SAs.
    pub(super) fn is_about_children(&self) -> bool {
        match self {
            Self::CreateChild { .. }
            | Self::RekeyChild(_)
            | Self::DeleteChild { .. }
            | Self::Disown { .. }
            | Self::Inherited { .. } => true,
            Self::RekeyIke(_) | Self::DeleteIke | Self::Ask | Self::Probe(_) | Self::Drain { .. } => false,
        }
    }
}

impl Established {
    pub(super) fn new(parts: Parts, ctx: &mut Context<'_>) -> Self {
        let lifetime = &parts.connection.ike_lifetime;
        let rekey_at = ctx.now + lifetime.rekey_after(ctx.random.next_u32());
        let expires_at = ctx.now + lifetime.time;
        Self {
            peer: parts.peer,
            connection: parts.connection,
            local_id: parts.local_id,
            remote_id: parts.remote_id,
            children: Vec::with_capacity(1),
            tasks: Vec::new(),
            outstanding: Vec::new(),
            stillborn: Vec::new(),
            rival: None,
            fate: Fate::Live,
            next_request: parts.next_request,
            expected: parts.expected,
            window: 1,
            answer: Packets::new(),
            last_alive: ctx.now,
            established_at: ctx.now,
            rekey_at: Some(rekey_at),
            expires_at,
            probe_wait: Self::first_wait(),
            lone_fragments: (!parts.channel.fragmentation).then_some(false),
            sync: Sync::default(),
            channel: parts.channel,
        }
    }

    pub(super) fn suite(&self) -> IkeSuite {
        self.channel.keys.suite()
    }

    // ---- messages ----

    pub(super) fn handle_message(
        &mut self,
        core: &mut Core,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> After {
        let is_response = header.flags & flags::RESPONSE != 0;
        let (id, answered) = (header.message_id, !self.answer.is_empty());
        let is_repeated = !is_response && answered && id.wrapping_add(1) == self.expected;
        let is_awaited = |outstanding: &Outstanding| outstanding.id == id && outstanding.kind == header.exchange;
        let is_due = if is_response { self.outstanding.iter().any(is_awaited) } else { id == self.expected };
        if core.is_named_by(header)
            && self.may_be_sync(header)
            && let Ok(piece) = self.channel.open(header, message)
            && let Some(verified) = piece.whole()
            && let Some(after) = self.handle_sync(core, ends, &verified, ctx)
        {
            return after;
        }
        if !core.is_named_by(header) || !is_due && !is_repeated || self.awaits_sync() {
            ctx.drop(DropReason::OutOfOrder);
            return After::Stay;
        }
        let piece = match self.channel.open(header, message) {
            Ok(piece) => piece,
            Err(reason) => {
                ctx.drop(reason);
                return After::Stay;
            }
        };
        if is_repeated {
            // RFC 7296 §2.1: the same bytes again; RFC 7383 §2.6.1: and of fragments only the first asks for them.
            if piece.fragment.is_none_or(|(number, _)| number == 1) {
                ctx.counters.answered_again += 1;
                core.send(ends, &self.answer, ctx);
            }
            return After::Stay;
        }
        match self.channel.assemble(piece) {
            Ok(None) => After::Stay,
            Ok(Some(verified)) => {
                self.last_alive = ctx.now;
                self.follow(core, ends, ctx);
                if is_response {
                    self.on_response(core, &verified, ctx)
                } else {
                    self.on_request(core, ends, &verified, ctx)
                }
            }
            Err(reason) => {
                ctx.drop(reason);
                After::Stay
            }
        }
    }

    fn on_request(&mut self, core: &mut Core, ends: Ends, verified: &Verified, ctx: &mut Context<'_>) -> After {
        let (mut body, mut then) = (Body::new(), Then::Nothing);
        match Message::decode(verified.first, &verified.plain) {
            Err(_) => {
                // RFC 7296 §2.21.3: authenticated nonsense ends the IKE SA.
                body.notify(NotifyType::INVALID_SYNTAX, &[]);
                let cause = Cause::PeerMisbehaved("an authenticated message is malformed");
                ctx.fail(Some(self.peer), ends.remote, Failure::new(cause, Side::Ours, Some(&self.connection)));
                then = Then::Finish(CloseReason::Failed, self.restart());
            }
            Ok(message) => {
                if let Some(unknown) = message.unknown_critical {
                    body.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[unknown]);
                } else {
                    self.heed_window(&message);
                    match verified.header.exchange {
                        exchange::CREATE_CHILD_SA => then = self.on_create(core, &message, &mut body, ctx),
                        exchange::INFORMATIONAL => then = self.on_informational(core, &message, &mut body, ctx),
                        _ => {
                            body.notify(NotifyType::INVALID_SYNTAX, &[]);
                        }
                    }
                }
            }
        }
        self.respond(core, ends, verified.header.exchange, &body, ctx);
        let after = match then {
            Then::Nothing => After::Stay,
            Then::Activate(id) => {
                self.activate(id, ctx);
                After::Stay
            }
            Then::Succeed(born) => self.supersede(*born, ctx),
            Then::Yield => self.yield_to_rival(ctx),
            Then::Finish(reason, again) => self.finish(reason, again, ctx),
        };
        if after == After::Stay {
            self.pump(core, ctx);
        }
        after
    }

    /// Answers the peer's request that is due. The answer is kept for when it is asked again.
    pub(super) fn respond(&mut self, core: &mut Core, to: Ends, exchange: u8, body: &Body, ctx: &mut Context<'_>) {
        let header = core.header(exchange, self.expected, true);
        self.answer = self.channel.seal(header, body, ctx.options.fragment_size, ctx.random);
        self.expected = self.expected.wrapping_add(1);
        core.send(to, &self.answer, ctx);
    }

    fn on_response(&mut self, core: &mut Core, verified: &Verified, ctx: &mut Context<'_>) -> After {
        let id = verified.header.message_id;
        let Some(place) = self.outstanding.iter().position(|outstanding| outstanding.id == id) else {
            return After::Stay;
        };
        let Outstanding { exchange, asked_at, .. } = self.outstanding.remove(place);
        let message = Message::decode(verified.first, &verified.plain).ok();
        let message = message.filter(|message| message.unknown_critical.is_none());
        let Some(message) = message.filter(|message| message.notify(NotifyType::INVALID_SYNTAX).is_none()) else {
            exchange.abandon(ctx);
            let cause = Cause::PeerMisbehaved("its answer is malformed, or it found our request so");
            let failure = Failure::new(cause, Side::Ours, Some(&self.connection));
            ctx.fail(Some(self.peer), core.ends.remote, failure);
            return self.finish(CloseReason::Failed, self.restart(), ctx);
        };
        self.heed_window(&message);
        let after = match exchange {
            Exchange::CreateChild { pending, tries } => {
                let answered = Answered { pending: *pending, tries, rekeyed: None, auth_nonces: None };
                self.on_child_answer(core, answered, &message, ctx);
                After::Stay
            }
            Exchange::RekeyChild(rekeying) => {
                let RekeyingChild { pending, tries, old, rival } = *rekeying;
                let answered = Answered { pending, tries, rekeyed: Some((old, rival)), auth_nonces: None };
                self.on_child_answer(core, answered, &message, ctx);
                After::Stay
            }
            Exchange::RekeyIke(rekeying) => self.on_ike_answer(core, *rekeying, &message, ctx),
            Exchange::DeleteChild { id } => {
                self.drop_child(id, &CloseReason::Replaced, ctx);
                After::Stay
            }
            Exchange::Disown { id } => {
                ctx.numbers.release(id);
                After::Stay
            }
            Exchange::DeleteIke => self.finish_closing(ctx),
            Exchange::Inherited { id, inbound, again } => {
                self.on_inherited_answer((id, inbound, again), &message, ctx);
                After::Stay
            }
            Exchange::Ask => After::Stay,
            Exchange::Probe(probing) => {
                self.on_probe_answer(probing, asked_at, ctx);
                After::Stay
            }
            Exchange::Drain { name, is_drained } => {
                self.on_drain_answer(name, is_drained, &message, ctx);
                After::Stay
            }
        };
        if !self.awaits_child() {
            self.stillborn.clear();
        }
        if after == After::Stay {
            self.pump(core, ctx);
        }
        after
    }

    /// Whether an answer is due that may make a Child SA.
    pub(super) fn awaits_child(&self) -> bool {
        self.outstanding.iter().any(|outstanding| outstanding.exchange.makes_child())
    }

    /// RFC 7296 §2.3: a peer may take several requests at once; the window never shrinks.
    pub(super) fn heed_window(&mut self, message: &Message<'_>) {
        let said = message.notify(NotifyType::SET_WINDOW_SIZE).and_then(|n| <[u8; 4]>::try_from(n.data).ok());
        if let Some(size) = said.map(u32::from_be_bytes) {
            self.window = size.clamp(self.window, MAX_WINDOW);
        }
    }

    /// Follows an authenticated peer behind a NAT whose mapping moved (RFC 7296 §2.23). A peer that is not behind one
    /// stays where it is, whoever forwards its messages.
    pub(super) fn follow(&mut self, core: &mut Core, ends: Ends, ctx: &mut Context<'_>) {
        let from = core.ends.remote;
        let same_family = ends.remote.is_ipv4() == from.is_ipv4();
        if !core.nat.theirs || ends.remote == from || !same_family {
            return;
        }
        core.ends = ends;
        let path = core.path();
        self.children.iter().for_each(|child| ctx.change(SaChange::Move { id: child.id, path }));
        ctx.tell(Event::PeerMoved { peer: self.peer, from, to: ends.remote });
    }

    // ---- requests of ours ----

    /// Begins what may begin.
    pub(super) fn pump(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        while let Some(place) = self.tasks.iter().position(|task| task.at <= ctx.now && self.may_start(&task.job)) {
            match self.tasks.remove(place).job {
                Job::CreateChild { name, group, tries } => self.start_create(core, &name, group, tries, ctx),
                Job::RekeyChild { old, group, tries } => self.start_rekey_child(core, old, group, tries, ctx),
                Job::DeleteChild { id } => self.start_delete_child(core, id, ctx),
                Job::Disown { id, inbound } => {
                    let mut body = Body::new();
                    body.delete_esp(&[inbound]);
                    self.request(core, exchange::INFORMATIONAL, &body, Exchange::Disown { id }, ctx);
                }
                Job::RekeyIke { group, tries } => self.start_rekey_ike(core, group, tries, ctx),
                Job::DeleteIke => {
                    let mut body = Body::new();
                    body.delete_ike();
                    self.request(core, exchange::INFORMATIONAL, &body, Exchange::DeleteIke, ctx);
                }
                Job::Ask => self.request(core, exchange::INFORMATIONAL, &Body::new(), Exchange::Ask, ctx),
                Job::Probe(probe) => self.start_probe(core, probe, ctx),
                Job::Drain { name, is_drained } => self.start_drain(core, name, is_drained, ctx),
            }
        }
        self.hurry_probe(core, ctx);
    }

    /// Whether the window has room for it, and it may go beside what is outstanding.
    pub(super) fn may_start(&self, job: &Job) -> bool {
        let first = self.outstanding.iter().map(|outstanding| outstanding.id).min();
        let has_room = first.is_none_or(|first| self.next_request.wrapping_sub(first) < self.window);
        match (&self.fate, job) {
            _ if self.awaits_sync() => false,
            (Fate::Superseded { .. }, _) => false,
            (Fate::Closing { .. }, Job::DeleteIke)
            | (Fate::Live, Job::RekeyIke { .. } | Job::DeleteIke | Job::Probe(_)) => self.outstanding.is_empty(),
            (Fate::Closing { .. }, _) => false,
            (
                Fate::Live,
                Job::CreateChild { .. }
                | Job::RekeyChild { .. }
                | Job::DeleteChild { .. }
                | Job::Disown { .. }
                | Job::Drain { .. }
                | Job::Ask,
            ) => has_room && self.rekeying_ike().is_none(),
        }
    }

    pub(super) fn request(
        &mut self,
        core: &mut Core,
        kind: u8,
        body: &Body,
        exchange: Exchange,
        ctx: &mut Context<'_>,
    ) {
        let id = self.take_id();
        let packets = self.channel.seal(core.header(kind, id, false), body, ctx.options.fragment_size, ctx.random);
        core.send(core.ends, &packets, ctx);
        self.await_answer(id, packets, kind, exchange, ctx);
    }

    /// The message ID of the next request.
    pub(super) const fn take_id(&mut self) -> u32 {
        let id = self.next_request;
        self.next_request = id.wrapping_add(1);
        id
    }

    /// From now on the request is repeated until it is answered.
    pub(super) fn await_answer(&mut self, id: u32, packets: Packets, kind: u8, exchange: Exchange, ctx: &Context<'_>) {
        let dpd = self.connection.dpd.filter(|dpd| !dpd.timeout.is_zero());
        let give_up_at = dpd.map(|dpd| (self.last_alive + dpd.timeout).max(ctx.now + dpd.least_wait()));
        let (asked_at, at) = (ctx.now, ctx.now);
        let mut outstanding = Outstanding { id, packets, kind, sent: 0, asked_at, at, give_up_at, exchange };
        outstanding.schedule(ctx.options, ctx.now);
        self.outstanding.push(outstanding);
    }

    /// Our rekeying of this IKE SA, while it has no answer.
    pub(super) fn rekeying_ike(&self) -> Option<&RekeyingIke> {
        self.outstanding.iter().find_map(|outstanding| match &outstanding.exchange {
            Exchange::RekeyIke(rekeying) => Some(&**rekeying),
            Exchange::CreateChild { .. }
            | Exchange::RekeyChild(_)
            | Exchange::DeleteChild { .. }
            | Exchange::Disown { .. }
            | Exchange::Inherited { .. }
            | Exchange::DeleteIke
            | Exchange::Ask
            | Exchange::Probe(_)
            | Exchange::Drain { .. } => None,
        })
    }

    /// Puts a job in the queue unless the same is there.
    pub(super) fn enqueue(&mut self, job: Job, at: Instant) {
        if !self.tasks.iter().any(|task| task.job == job) {
            self.tasks.push(Task { at, job });
        }
    }

    pub(super) fn want_child(&mut self, name: &str, at: Instant) {
        let is_wanted = |job: &Job| matches!(job, Job::CreateChild { name: wanted, .. } if **wanted == *name);
        if let Some(task) = self.tasks.iter_mut().find(|task| is_wanted(&task.job)) {
            task.at = task.at.min(at);
        } else {
            self.tasks.push(Task { at, job: Job::CreateChild { name: name.into(), group: None, tries: 0 } });
        }
    }

    // ---- commands ----

    pub(super) fn initiate_child(&mut self, core: &mut Core, name: &str, ctx: &mut Context<'_>) {
        if self.fate == Fate::Live {
            self.want_child(name, ctx.now);
            self.pump(core, ctx);
        }
    }

    pub(super) fn rekey(&mut self, core: &mut Core, what: Rekey, ctx: &mut Context<'_>) {
        if self.fate != Fate::Live {
            return;
        }
        match what {
            Rekey::Ike => self.enqueue(Job::RekeyIke { group: None, tries: 0 }, ctx.now),
            Rekey::Children => {
                for id in self.child_ids() {
                    self.enqueue(Job::RekeyChild { old: id, group: None, tries: 0 }, ctx.now);
                }
            }
        }
        self.pump(core, ctx);
    }

    pub(super) fn rekey_child(&mut self, core: &mut Core, id: SaId, ctx: &mut Context<'_>) {
        self.enqueue(Job::RekeyChild { old: id, group: None, tries: 0 }, ctx.now);
        self.pump(core, ctx);
    }

    pub(super) fn note_alive(&mut self, now: Instant) {
        self.last_alive = self.last_alive.max(now);
    }

    /// Deletes the IKE SA. Its children stop at once, but for those of an IKE SA that a newer one replaces: their
    /// packets may still be under way.
    pub(super) fn close(&mut self, core: &mut Core, reason: CloseReason, ctx: &mut Context<'_>) -> After {
        self.close_and(core, reason, Again::No, ctx)
    }

    pub(super) fn close_and(
        &mut self,
        core: &mut Core,
        reason: CloseReason,
        again: Again,
        ctx: &mut Context<'_>,
    ) -> After {
        match self.fate {
            Fate::Superseded { .. } => return self.finish_closing(ctx),
            Fate::Closing { .. } => return After::Stay,
            Fate::Live => {}
        }
        if reason != CloseReason::Replaced {
            self.drop_children(&reason, ctx);
        }
        self.fate = Fate::Closing { reason, again, is_silent: false };
        self.forget_tasks(ctx);
        self.tasks = vec![Task { at: ctx.now, job: Job::DeleteIke }];
        self.pump(core, ctx);
        After::Stay
    }

    // ---- children ----

    /// The Child SA of IKE_AUTH, as the initiator.
    pub(super) fn first_child(
        &mut self,
        core: &mut Core,
        pending: Pending,
        message: &Message<'_>,
        nonces: (&[u8], &[u8]),
        ctx: &mut Context<'_>,
    ) {
        let answered = Answered { pending, tries: 0, rekeyed: None, auth_nonces: Some(nonces) };
        self.on_child_answer(core, answered, message, ctx);
    }

    /// Grants a Child SA to the peer, or writes why not. Returns its number and the lower of its nonces.
    pub(super) fn grant_child(
        &mut self,
        core: &Core,
        message: &Message<'_>,
        ask: Ask<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Option<SaId> {
        self.grant_child_with_nonce(core, message, ask, body, ctx).map(|(id, _)| id)
    }

    pub(super) fn grant_child_with_nonce(
        &mut self,
        core: &Core,
        message: &Message<'_>,
        ask: Ask<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Option<(SaId, Vec<u8>)> {
        let connection = self.connection.clone();
        match grant(&connection, &self.channel.keys, message, ask, body, ctx) {
            Ok(granted) => {
                let made = Made { id: granted.id, inbound: granted.inbound, by_us: false, replaces: ask.replaces };
                let child = install(&connection, granted.child, core, &made, granted.terms, ctx);
                self.children.push(child);
                Some((granted.id, granted.lowest))
            }
            Err(refusal) => {
                body.notify(refusal.kind, &refusal.data);
                if let Some(failure) = refusal.failure {
                    ctx.fail(Some(self.peer), core.ends.remote, *failure);
                }
                None
            }
        }
    }

    pub(super) fn child(&self, id: SaId) -> Option<&Child> {
        self.children.iter().find(|child| child.id == id)
    }

    pub(super) fn child_mut(&mut self, id: SaId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// Packets that leave take this SA from now on.
    pub(super) fn activate(&mut self, id: SaId, ctx: &mut Context<'_>) {
        let peer = self.peer;
        let Some(child) = self.child_mut(id).filter(|child| child.stage == Stage::Installed) else { return };
        (child.stage, child.is_up) = (Stage::Active, true);
        let replaces = child.replaces;
        let event = Event::ChildUp {
            peer,
            child: child.name.clone(),
            id,
            spis: (child.inbound, child.outbound),
            suite: child.suite,
            selectors: (child.local.to_vec(), child.remote.to_vec()),
            replaces,
        };
        ctx.change(SaChange::Activate(id));
        if replaces.is_some() {
            ctx.counters.child_rekeys += 1;
        }
        ctx.tell(event);
        let old = replaces.and_then(|old| self.child_mut(old));
        if let Some(old) = old.filter(|old| matches!(old.stage, Stage::Active | Stage::Installed)) {
            (old.stage, old.rekey_at) = (Stage::Superseded, None);
        }
    }

    /// Forgets a Child SA. One that waits to take its place does so first. Says whether there is one in its place.
    pub(super) fn drop_child(&mut self, id: SaId, reason: &CloseReason, ctx: &mut Context<'_>) -> bool {
        let heir =
            |child: &&Child| child.replaces == Some(id) && matches!(child.stage, Stage::Installed | Stage::Active);
        let heir = self.children.iter().find(heir).map(|child| child.id);
        if let Some(heir) = heir {
            self.activate(heir, ctx);
        }
        let Some(place) = self.children.iter().position(|child| child.id == id) else { return heir.is_some() };
        let child = self.children.remove(place);
        ctx.change(SaChange::Remove(id));
        if child.is_up {
            let reason = match child.stage {
                Stage::Superseded | Stage::Doomed => CloseReason::Replaced,
                Stage::Closing(reason) => reason,
                Stage::Installed | Stage::Active => reason.clone(),
            };
            ctx.tell(Event::ChildDown { peer: self.peer, child: child.name, id, reason });
        }
        heir.is_some()
    }

    fn drop_children(&mut self, reason: &CloseReason, ctx: &mut Context<'_>) {
        for child in std::mem::take(&mut self.children) {
            ctx.change(SaChange::Remove(child.id));
            if child.is_up {
                let reason = reason.clone();
                ctx.tell(Event::ChildDown { peer: self.peer, child: child.name, id: child.id, reason });
            }
        }
    }

    /// Brings a child up again that was lost, when the connection wants it up.
    pub(super) fn restore(&mut self, name: &str, wait: Duration, ctx: &mut Context<'_>) {
        let starts = |child: &&model::Child| *child.name == *name && child.start == Start::AtOnce;
        if self.fate == Fate::Live && self.connection.children.iter().any(|child| starts(&child)) {
            let at = ctx.now + jittered(wait, ctx.random);
            self.want_child(name, at);
        }
    }

    // ---- the end ----

    /// What the connection wants when its established IKE SA is lost.
    pub(super) fn restart(&self) -> Again {
        match self.connection.dpd.map(|dpd| dpd.action) {
            Some(DpdAction::Restart) => Again::AtOnce,
            Some(DpdAction::Hold) => Again::OnTraffic,
            Some(DpdAction::Clear) => Again::No,
            None => {
                let starts = |start| self.connection.children.iter().any(|child| child.start == start);
                if starts(Start::AtOnce) {
                    Again::AtOnce
                } else if starts(Start::OnTraffic) {
                    Again::OnTraffic
                } else {
                    Again::No
                }
            }
        }
    }

    /// It is over, now.
    pub(super) fn finish(&mut self, reason: CloseReason, again: Again, ctx: &mut Context<'_>) -> After {
        let is_silent = match self.fate {
            Fate::Live => false,
            Fate::Closing { is_silent, .. } => is_silent,
            Fate::Superseded { .. } => true,
        };
        for outstanding in std::mem::take(&mut self.outstanding) {
            outstanding.exchange.abandon(ctx);
        }
        self.forget_tasks(ctx);
        self.drop_children(&reason, ctx);
        if !is_silent {
            ctx.tell(Event::IkeDown { peer: self.peer, reason: reason.clone() });
        }
        ctx.signals.push(Signal::Closed { peer: Some(self.peer), reason, again });
        After::Closed
    }

    fn forget_tasks(&mut self, ctx: &mut Context<'_>) {
        for task in std::mem::take(&mut self.tasks) {
            probe::cancel(&task.job, ctx);
            if let Job::Disown { id, .. } = task.job {
                ctx.numbers.release(id);
            }
        }
    }

    /// It is over in the way that was decided before.
    pub(super) fn finish_closing(&mut self, ctx: &mut Context<'_>) -> After {
        let (reason, again) = match &self.fate {
            Fate::Closing { reason, again, .. } => (reason.clone(), *again),
            Fate::Live | Fate::Superseded { .. } => (CloseReason::Replaced, Again::No),
        };
        self.finish(reason, again, ctx)
    }

    pub(super) fn on_dead_peer(&mut self, ctx: &mut Context<'_>) -> After {
        match self.fate {
            Fate::Live => self.finish(CloseReason::PeerDead, self.restart(), ctx),
            Fate::Closing { .. } | Fate::Superseded { .. } => self.finish_closing(ctx),
        }
    }
}
