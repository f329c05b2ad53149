//! Message IDs and replay counters after one gateway of a cluster took over from another (RFC 6311).
//!
//! The one that took over does not know for certain which requests the other had sent and answered last, so it asks
//! with message ID 0, and both ends go on from the highest numbers that either knows:
//!
//! ```text
//! a -- INFORMATIONAL, ID 0 { N(IKEV2_MESSAGE_ID_SYNC: nonce, M1, P1) [, N(IPSEC_REPLAY_COUNTER_SYNC: delta)] } -> b
//! a <- INFORMATIONAL, ID 0 { N(IKEV2_MESSAGE_ID_SYNC: nonce, P2, M2) } -- b
//! ```
//!
//! M is the ID of the next request of `a`, and P that of `b`. Numbers only rise. A request that is replayed names an M1
//! that was heard already, an answer that is replayed has no nonce of ours. What is outstanding is asked anew with
//! other IDs, and made anew: no key comes of a private value that two gateways had.
//!
//! A peer that does not speak it is sent what is outstanding once more, as it was, or else asked whether it lives. A
//! checkpoint leaves before the message that it is about, so the numbers are right unless the network lost it; if they
//! are wrong beyond that the peer gives no answer, and the tunnel is negotiated anew.

use std::time::Duration;

use base::Instant;
use sa::{SaChange, Spi};
use serde::{Deserialize, Serialize};

use crate::context::{Context, Ends};
use crate::event::DropReason;
use crate::wire::header::Header;
use crate::wire::v2::{Body, Message, NotifyType, exchange, flags};

use super::Core;
use super::create::RekeyingChild;
use super::established::{After, Established, Exchange, Fate, Job, MAX_WINDOW, Outstanding};
use super::fragment::Packets;
use super::keys::{Keys, Verified};

/// IVs of AEAD suites that whoever takes over leaves to the other gateway: more than an IKE SA ever seals.
const SEALED_AHEAD: u64 = 1 << 32;
/// The furthest that a peer moves a number: a jump beyond half of all would be one backwards.
const MOST: u32 = 1 << 31;
/// The most numbers of a Child SA that are left out at once.
const MOST_SKIPPED: u64 = 1 << 30;
/// How soon after one that was heeded another request is heeded (RFC 6311 §9: they cost state and an answer).
const HEED_AGAIN: Duration = Duration::from_millis(100);

/// What both said that they speak, and where it stands.
#[derive(Debug, Default)]
pub(super) struct Sync {
    pub(super) agreed: Agreed,
    /// The highest M1 that was heard, and when.
    pub(super) heard: Option<(u32, Instant)>,
    /// Our own question, while it has no answer.
    pub(super) asking: Option<Asking>,
    /// Whether another gateway had this IKE SA before: it may still seal.
    pub(super) is_heir: bool,
}

/// What both ends said in IKE_AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Agreed {
    pub(super) message_ids: bool,
    pub(super) replay_counters: bool,
}

/// Our question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    nonce: Option<[u8; 4]>,
    sent: u32,
    pub(super) at: Instant,
    since: Instant,
}

impl Asking {
    pub(super) const fn begin(now: Instant) -> Self {
        Self { nonce: None, sent: 0, at: now, since: now }
    }
}

impl Agreed {
    /// What the peer says; we always say both.
    pub(super) fn of(message: &Message<'_>) -> Self {
        let says = |kind| message.notify(kind).is_some();
        let message_ids = says(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED);
        Self { message_ids, replay_counters: message_ids && says(NotifyType::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED) }
    }

    /// Says the same.
    pub(super) fn say(self, body: &mut Body) {
        if self.message_ids {
            body.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]);
        }
        if self.replay_counters {
            body.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED, &[]);
        }
    }

    pub(super) const BOTH: Self = Self { message_ids: true, replay_counters: true };
}

/// The data of IKEV2_MESSAGE_ID_SYNC (RFC 6311 §7.3): the numbers as its sender sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    nonce: [u8; 4],
    send: u32,
    receive: u32,
}

impl Numbers {
    fn of(message: &Message<'_>) -> Option<Self> {
        let data = message.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC)?.data;
        let (&nonce, rest) = data.split_first_chunk::<4>()?;
        let (send, rest) = rest.split_first_chunk::<4>()?;
        let receive = <[u8; 4]>::try_from(rest).ok()?;
        Some(Self { nonce, send: u32::from_be_bytes(*send), receive: u32::from_be_bytes(receive) })
    }

    fn write(self, body: &mut Body) {
        let data = [self.nonce, self.send.to_be_bytes(), self.receive.to_be_bytes()].concat();
        body.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC, &data);
    }
}

impl Established {
    /// An INFORMATIONAL message with ID 0: what is said when it is about synchronization, and `None` when it is not.
    pub(super) fn handle_sync(
        &mut self,
        core: &mut Core,
        ends: Ends,
        verified: &Verified,
        ctx: &mut Context<'_>,
    ) -> Option<After> {
        let message = Message::decode(verified.first, &verified.plain).ok()?;
        message.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC)?;
        let is_response = verified.header.flags & flags::RESPONSE != 0;
        let is_heeded = match Numbers::of(&message).filter(|_| message.unknown_critical.is_none()) {
            Some(numbers) if is_response => self.on_sync_answer(core, numbers, ctx),
            Some(numbers) => self.on_sync_request(core, ends, numbers, &message, ctx),
            None => false,
        };
        if is_heeded {
            self.last_alive = ctx.now;
            self.follow(core, ends, ctx);
            self.pump(core, ctx);
        } else {
            ctx.drop(DropReason::OutOfOrder);
        }
        Some(After::Stay)
    }

    /// a -- { N(IKEV2_MESSAGE_ID_SYNC) } -> b: we are `b`.
    fn on_sync_request(
        &mut self,
        core: &mut Core,
        ends: Ends,
        asked: Numbers,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) -> bool {
        let delta = message.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC).map(|notify| read_delta(notify.data));
        let delta = match delta {
            None => 0,
            Some(Some(delta)) if self.sync.agreed.replay_counters && delta <= MOST_SKIPPED => delta,
            Some(_) => return false,
        };
        // RFC 6311 §5.1: M1 must be higher than all that was heard, in a request or in such a message.
        let rises = asked.send.wrapping_sub(self.expected) < MOST
            && self.sync.heard.is_none_or(|(heard, _)| asked.send.wrapping_sub(heard.wrapping_add(1)) < MOST);
        let is_too_soon = self.sync.heard.is_some_and(|(_, at)| ctx.now < at + HEED_AGAIN);
        if !self.sync.agreed.message_ids || !rises || is_too_soon {
            return false;
        }
        self.sync.heard = Some((asked.send, ctx.now));
        self.expected = asked.send;
        self.answer = Packets::new();
        if asked.receive.wrapping_sub(self.next_request) < MOST {
            self.next_request = asked.receive;
        }
        self.ask_anew(ctx);
        if delta > 0 {
            for child in &self.children {
                ctx.change(SaChange::Skip { id: child.id, outbound: delta, inbound: 0 });
            }
        }
        let mut body = Body::new();
        Numbers { nonce: asked.nonce, send: self.next_request, receive: self.expected }.write(&mut body);
        let header = core.header(exchange::INFORMATIONAL, 0, true);
        let packets = self.channel.seal(header, &body, ctx.options.fragment_size, ctx.random);
        core.send(ends, &packets, ctx);
        true
    }

    /// a <- { N(IKEV2_MESSAGE_ID_SYNC) } -- b: we are `a`.
    fn on_sync_answer(&mut self, _core: &Core, told: Numbers, ctx: &mut Context<'_>) -> bool {
        let is_ours = self.sync.asking.as_ref().is_some_and(|asking| asking.nonce == Some(told.nonce));
        let rises = told.receive.wrapping_sub(self.next_request) < MOST && told.send.wrapping_sub(self.expected) < MOST;
        if !is_ours || !rises {
            return false;
        }
        self.sync.asking = None;
        (self.next_request, self.expected) = (told.receive, told.send);
        self.answer = Packets::new();
        if let Some(delta) = self.delta() {
            for child in &self.children {
                ctx.change(SaChange::Skip { id: child.id, outbound: 0, inbound: delta });
            }
        }
        true
    }

    /// Asks, or asks again: with another nonce and other numbers, for the peer drops what does not rise. `false` when the
    /// tries are used up.
    pub(super) fn ask_sync(&mut self, core: &mut Core, ctx: &mut Context<'_>) -> bool {
        let Some(asking) = &mut self.sync.asking else { return true };
        if asking.at > ctx.now {
            return true;
        }
        let timeout = self.connection.dpd.map(|dpd| dpd.timeout).filter(|timeout| !timeout.is_zero());
        let give_up_at = timeout.map(|timeout| asking.since + timeout);
        let wait = ctx.options.retransmission.wait(asking.sent);
        let Some(wait) = wait.filter(|_| give_up_at.is_none_or(|at| ctx.now < at)) else { return false };
        let (nonce, at) = (ctx.random.array(), ctx.now + wait.max(Duration::from_millis(1)));
        (asking.nonce, asking.at) = (Some(nonce), give_up_at.map_or(at, |give_up_at| give_up_at.min(at)));
        ctx.counters.retransmitted += u64::from(asking.sent > 0);
        asking.sent += 1;
        // RFC 6311 §5.1: as many ahead as may have been outstanding.
        self.next_request = self.next_request.wrapping_add(MAX_WINDOW);
        let mut body = Body::new();
        Numbers { nonce, send: self.next_request, receive: self.expected }.write(&mut body);
        if let Some(delta) = self.delta() {
            let bytes = delta.to_be_bytes();
            body.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC, if self.has_esn() { &bytes } else { &bytes[4..] });
        }
        let header = core.header(exchange::INFORMATIONAL, 0, false);
        let packets = self.channel.seal(header, &body, ctx.options.fragment_size, ctx.random);
        core.send(core.ends, &packets, ctx);
        true
    }

    /// By how much the peer's numbers are to rise; `None` where that cannot be said (RFC 6311 §7.4: one length for all
    /// Child SAs).
    fn delta(&self) -> Option<u64> {
        let is_uniform = self.children.windows(2).all(|pair| pair[0].suite.esn == pair[1].suite.esn);
        (self.sync.agreed.replay_counters && is_uniform && !self.children.is_empty()).then_some(sa::RESERVE)
    }

    fn has_esn(&self) -> bool {
        self.children.iter().any(|child| child.suite.esn)
    }

    /// Goes on in place of another gateway, which told what is here and may still live.
    pub(super) fn succeed(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        self.keep_off(ctx.now);
        if let Some(rival) = &mut self.rival {
            rival.established.keep_off(ctx.now);
        }
        if self.fate != Fate::Live {
            self.pump(core, ctx);
            return;
        }
        if self.rekeying_ike().is_some() {
            // The peer may have the successor already, and nobody could take it back: its IDs begin anew.
            self.disinherit(core, ctx);
        } else if self.sync.agreed.message_ids {
            self.ask_anew(ctx);
            self.sync.asking = Some(Asking::begin(ctx.now));
            self.ask_sync(core, ctx);
        } else if self.outstanding.is_empty() {
            self.enqueue(Job::Ask, ctx.now);
        } else {
            self.disinherit(core, ctx);
        }
        self.pump(core, ctx);
    }

    fn keep_off(&mut self, now: Instant) {
        self.sync.is_heir = true;
        self.channel.keys.keep_off();
        self.last_alive = now;
        for probe in self.outstanding.extract_if(.., |outstanding| matches!(outstanding.exchange, Exchange::Probe(_))) {
            // Another gateway asked, and its own path has nothing to do with ours; whoever wants to know asks again.
            drop(probe);
        }
    }

    /// Another gateway has asked these, and this one repeats them, byte by byte. What they were to make it makes anew:
    /// the other one has the private values, and may get the answers too.
    fn disinherit(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        for outstanding in &mut self.outstanding {
            let inherited = match &outstanding.exchange {
                Exchange::CreateChild { pending, .. } => Some((pending.id, pending.inbound)),
                Exchange::RekeyChild(rekeying) => Some((rekeying.pending.id, rekeying.pending.inbound)),
                Exchange::DeleteChild { .. }
                | Exchange::Disown { .. }
                | Exchange::Inherited { .. }
                | Exchange::RekeyIke(_)
                | Exchange::DeleteIke
                | Exchange::Ask
                | Exchange::Probe(_)
                | Exchange::Drain { .. } => None,
            };
            if let Some((id, inbound)) = inherited {
                let again = again(&outstanding.exchange, ctx);
                outstanding.exchange = Exchange::Inherited { id, inbound, again };
            }
            outstanding.sent = 0;
            outstanding.schedule(ctx.options, ctx.now);
            ctx.counters.retransmitted += 1;
            core.send(core.ends, &outstanding.packets, ctx);
        }
    }

    /// The answer to what another gateway asked.
    pub(super) fn on_inherited_answer(
        &mut self,
        (id, inbound, job): (sa::SaId, Spi, Option<Job>),
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) {
        if message.error().is_none() && message.sa.is_some() {
            self.enqueue(Job::Disown { id, inbound }, ctx.now);
        } else {
            ctx.numbers.release(id);
        }
        if let Some(job) = job {
            self.enqueue(job, ctx.now);
        }
    }

    /// Requests without an answer are forgotten, and what they are for is asked anew.
    fn ask_anew(&mut self, ctx: &mut Context<'_>) {
        for Outstanding { exchange, .. } in std::mem::take(&mut self.outstanding) {
            let job = again(&exchange, ctx);
            if let Exchange::Inherited { id, .. } = exchange {
                ctx.numbers.release(id);
            } else if !matches!(exchange, Exchange::Disown { .. }) {
                exchange.abandon(ctx);
            }
            if let Some(job) = job {
                self.enqueue(job, ctx.now);
            }
        }
        self.stillborn.clear();
    }

    /// Whether a message is to be left alone because nothing is known of the numbers yet.
    pub(super) fn awaits_sync(&self) -> bool {
        self.sync.asking.is_some()
    }

    /// An INFORMATIONAL message with ID 0 that may be about this.
    pub(super) fn may_be_sync(&self, header: &Header) -> bool {
        header.message_id == 0 && header.exchange == exchange::INFORMATIONAL && self.sync.agreed.message_ids
    }
}

impl Keys {
    /// Another gateway seals with the same keys, or did.
    pub(super) const fn keep_off(&mut self) {
        self.sealed = self.sealed.saturating_add(SEALED_AHEAD);
    }
}

/// What asks the same anew.
fn again(exchange: &Exchange, ctx: &Context<'_>) -> Option<Job> {
    match exchange {
        Exchange::CreateChild { pending, tries } => Some(Job::CreateChild {
            name: pending.name.clone(),
            group: pending.own.as_ref().map(crypto::KeyPair::group),
            tries: *tries,
        }),
        Exchange::RekeyChild(rekeying) => {
            let RekeyingChild { pending, tries, old, .. } = &**rekeying;
            Some(Job::RekeyChild { old: *old, group: pending.own.as_ref().map(crypto::KeyPair::group), tries: *tries })
        }
        Exchange::Inherited { again, .. } => again.clone(),
        Exchange::DeleteChild { id } => Some(Job::DeleteChild { id: *id }),
        Exchange::Disown { id } => ctx.numbers.spi(*id).map(|inbound| Job::Disown { id: *id, inbound }),
        Exchange::RekeyIke(rekeying) => {
            Some(Job::RekeyIke { group: Some(rekeying.own.group()), tries: rekeying.tries })
        }
        Exchange::DeleteIke => Some(Job::DeleteIke),
        Exchange::Drain { name, is_drained } => Some(Job::Drain { name: name.clone(), is_drained: *is_drained }),
        Exchange::Ask | Exchange::Probe(_) => None,
    }
}

/// RFC 6311 §7.4: four octets, or eight with ESN.
fn read_delta(data: &[u8]) -> Option<u64> {
    let short = <[u8; 4]>::try_from(data).map(|bytes| u64::from(u32::from_be_bytes(bytes)));
    short.or_else(|_| <[u8; 8]>::try_from(data).map(u64::from_be_bytes)).ok()
}
