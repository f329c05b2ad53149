//! An established ISAKMP SA: what it owns, its timers, how it is renewed and how it ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Secret};
use model::{Connection, Dpd, DpdAction, Identity, Start};
use sa::{Path, SaChange, SaId, Spi};
use serde::{Deserialize, Serialize};

use super::children::{Child, Handover, Want};
use super::flight::{Flight, memory};
use super::info::Watch;
use super::keys::{Iv, Keys};
use super::probe::Probing;
use super::quick::Quick;
use super::vendor::Nat;
use super::{Link, State};
use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Event, Rekey};
use crate::peer::PeerId;
use crate::wire::header::Header;
use crate::wire::v1::exchange;
use crate::{Cause, Failure, Side, natt};

/// Answers that are kept for a peer that missed them.
const MAX_RECENT: usize = 32;

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Stays,
    /// It is over, and the endpoint was told.
    Closed,
}

/// Where an established session stands between its predecessor and its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It is the one.
    Current,
    /// The endpoint was asked for a successor.
    Renewing,
    /// The peer deleted it while a successor is under way: its own view of that is ahead of ours. The children wait.
    Deleted,
    /// A successor took the children over.
    Succeeded,
}

/// What main mode leaves.
pub(super) struct Outcome {
    pub(super) peer: PeerId,
    pub(super) keys: Keys,
    pub(super) last_block: Iv,
    pub(super) nat: Nat,
    pub(super) peer_has_dpd: bool,
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) lifetime: Option<Duration>,
    pub(super) children: Vec<Arc<str>>,
    pub(super) is_renewal: bool,
    pub(super) replace_all: bool,
    /// Message 6, to be sent again while message 5 comes again.
    pub(super) last_message: Option<Flight>,
}

/// An established ISAKMP SA.
#[derive(Debug)]
pub(crate) struct Established {
    pub(super) peer: PeerId,
    pub(super) keys: Keys,
    /// The last block of phase 1: every vector of phase 2 begins with it.
    pub(super) last_block: Iv,
    pub(super) nat: Nat,
    /// Dead peer detection, where it is wanted and the peer knows it.
    pub(super) dpd: Option<Dpd>,
    /// Whether the peer speaks it.
    pub(super) peer_has_dpd: bool,
    /// A probe of the path that is under way.
    pub(super) probing: Option<Probing>,
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) suite_name: Arc<str>,
    pub(super) established_at: Instant,
    pub(super) renew_at: Instant,
    pub(super) expires_at: Instant,
    pub(super) standing: Standing,
    pub(super) keepalive_at: Option<Instant>,
    pub(super) watch: Watch,
    pub(super) children: Vec<Child>,
    pub(super) wanted: Vec<Want>,
    pub(super) quick: Vec<Quick>,
    /// Message IDs of the peer's quick modes that were answered, the oldest first.
    pub(super) answered: VecDeque<u32>,
    pub(super) recent: Vec<Recent>,
    /// SPIs that the peer deleted while a quick mode of ours was under way: the message 2 that names one comes late.
    pub(super) deleted: Vec<Spi>,
    /// The last failure that was told, so that a peer that tries again and again fills no log.
    pub(super) told: Option<(&'static str, Instant)>,
}

/// The end of an exchange whose last message was ours.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) message_id: u32,
    pub(super) flight: Flight,
    pub(super) until: Instant,
    /// Where its SA is gone while the peer may still be about to confirm it.
    pub(super) gone: Option<Gone>,
}

/// An SA that was taken down before the peer confirmed it.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    /// Our SPI.
    pub(super) spi: Spi,
    /// The vector of message 3, and HASH(3).
    pub(super) iv: Iv,
    pub(super) expected: Secret,
}

impl Outcome {
    /// The ISAKMP SA is established; children are negotiated with the next timeout, which is due at once, so that
    /// the endpoint may hand over those of a predecessor first.
    pub(super) fn establish(self, connection: &Connection, link: &Link, ctx: &mut Context<'_>) -> Established {
        let configured = connection.ike_lifetime;
        let time = self.lifetime.map_or(configured.time, |theirs| theirs.min(configured.time));
        let lifetime = model::IkeLifetime { time, ..configured };
        let dice = ctx.random.next_u32();
        let suite_name: Arc<str> = self.keys.suite.to_string().into();
        ctx.counters.established += 1;
        ctx.counters.ike_rekeys += u64::from(self.is_renewal);
        ctx.tell(Event::IkeUp {
            peer: self.peer,
            version: model::Version::V1,
            local_id: self.local_id.clone(),
            remote_id: self.remote_id.clone(),
            path: (link.ends.local, link.ends.remote),
            suite: Arc::clone(&suite_name),
            rekeyed: self.is_renewal,
        });
        ctx.signals.push(Signal::Established { peer: self.peer, replace_all: self.replace_all });
        let keepalive = ctx.options.nat_keepalive;
        let mut established = Established {
            peer: self.peer,
            keys: self.keys,
            last_block: self.last_block,
            nat: self.nat,
            dpd: connection.dpd.filter(|dpd| self.peer_has_dpd && !dpd.delay.is_zero()),
            peer_has_dpd: self.peer_has_dpd,
            probing: None,
            local_id: self.local_id,
            remote_id: self.remote_id,
            suite_name,
            established_at: ctx.now,
            renew_at: ctx.now + renew_after(&lifetime, link.is_initiator, dice),
            expires_at: ctx.now + time,
            standing: Standing::Current,
            keepalive_at: (self.nat.is_found() && self.nat.ours && !keepalive.is_zero()).then(|| ctx.now + keepalive),
            watch: Watch::new(ctx),
            children: Vec::new(),
            wanted: Vec::new(),
            quick: Vec::new(),
            answered: VecDeque::new(),
            recent: Vec::new(),
            deleted: Vec::new(),
            told: None,
        };
        if let Some(flight) = self.last_message {
            established.remember(0, flight, ctx);
        }
        for name in &self.children {
            established.want_child(name, connection, ctx.now);
        }
        established
    }
}

/// When phase 1 is renewed. Both sides may do it; the initiator first, for it knows that it can reach the other.
fn renew_after(lifetime: &model::IkeLifetime, is_initiator: bool, dice: u32) -> Duration {
    let after = lifetime.rekey_after(dice);
    if is_initiator { after } else { after + (lifetime.time.saturating_sub(after)) / 2 }
}

impl Established {
    /// The connection as it is configured now.
    pub(super) fn connection<'a>(&self, ctx: &Context<'a>) -> Option<&'a Arc<Connection>> {
        let peers = ctx.peers;
        peers.get(self.peer).map(|peer| &peer.connection)
    }

    /// Where the packets of its children go.
    pub(super) fn path(&self, link: &Link) -> Path {
        Path { local: link.ends.local, remote: link.ends.remote, udp: self.nat.is_found() }
    }

    /// Keeps the last message of an exchange for a peer that did not get it.
    pub(super) fn remember(&mut self, message_id: u32, flight: Flight, ctx: &Context<'_>) {
        if self.recent.len() == MAX_RECENT {
            self.recent.remove(0);
        }
        let until = ctx.now + memory(&ctx.options.retransmission);
        self.recent.push(Recent { message_id, flight, until, gone: None });
    }

    pub(super) fn handle_message(
        &mut self,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> After {
        match header.exchange {
            exchange::QUICK if header.message_id != 0 => {
                if !self.answer_again(ends, header, message, ctx) {
                    self.handle_quick(link, ends, header, message, ctx);
                }
                After::Stays
            }
            exchange::MAIN => {
                if !self.answer_again(ends, header, message, ctx) {
                    ctx.drop(DropReason::OutOfOrder);
                }
                After::Stays
            }
            exchange::INFORMATIONAL => self.handle_info(link, ends, header, message, ctx),
            exchange::TRANSACTION => {
                self.refuse_transaction(link, ctx);
                After::Stays
            }
            _ => {
                ctx.drop(DropReason::RefusedExchange);
                After::Stays
            }
        }
    }

    /// The peer missed our last message of an exchange: sends the same bytes again.
    fn answer_again(&self, ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) -> bool {
        let mut same = self.recent.iter().filter(|recent| recent.message_id == header.message_id);
        same.any(|recent| recent.flight.answer_again(ends, message, ctx))
    }

    fn refuse_transaction(&mut self, link: &Link, ctx: &mut Context<'_>) {
        ctx.drop(DropReason::RefusedExchange);
        let why = "mode config and XAUTH: the peer takes us for a remote access client or server";
        let connection = self.connection(ctx).cloned();
        let failure = Failure::new(Cause::RefusedExchange(why), Side::Ours, connection.as_deref());
        self.tell(failure, link, ctx);
    }

    /// Tells of a failure, the same one at most every 10 s.
    pub(super) fn tell(&mut self, failure: Failure, link: &Link, ctx: &mut Context<'_>) {
        let name = failure.cause.name();
        let is_new = self.told.is_none_or(|(told, at)| told != name || ctx.now >= at + Duration::from_secs(10));
        if is_new {
            self.told = Some((name, ctx.now));
            ctx.fail(Some(self.peer), link.ends.remote, failure);
        }
    }

    pub(super) fn handle_timeout(&mut self, link: &mut Link, ctx: &mut Context<'_>) -> After {
        if ctx.now >= self.expires_at {
            return self.expire(link, ctx);
        }
        if !self.is_in_charge() {
            self.handle_children_timeout(link, ctx);
            return After::Stays;
        }
        if let Some(dpd) = self.dpd
            && let After::Closed = self.handle_dpd_timeout(link, &dpd, ctx)
        {
            return After::Closed;
        }
        if self.keepalive_at.is_some_and(|at| at <= ctx.now) {
            self.keepalive_at = Some(ctx.now + ctx.options.nat_keepalive);
            ctx.transmit_raw(link.ends, natt::KEEPALIVE.to_vec());
        }
        if self.renew_at <= ctx.now {
            self.renew(ctx);
        }
        self.handle_children_timeout(link, ctx);
        if let After::Closed = self.handle_quick_timeout(link, ctx) {
            return After::Closed;
        }
        self.handle_probe_timeout(link, ctx);
        self.start_wanted(link, ctx);
        self.recent.retain(|recent| recent.until > ctx.now);
        After::Stays
    }

    /// Its time is over, or the time that it was given after that.
    fn expire(&mut self, link: &Link, ctx: &mut Context<'_>) -> After {
        let again = self.again_after_delete(ctx);
        match self.standing {
            Standing::Deleted => self.end(CloseReason::PeerDeleted, again, ctx),
            Standing::Current | Standing::Renewing | Standing::Succeeded => {
                self.say_goodbye(link, ctx);
                self.end(CloseReason::Expired, again, ctx)
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let mut earliest = Some(Deadline { at: self.expires_at, why: "phase 1 expires" });
        let mut consider = |deadline| earliest = Deadline::earliest(earliest, deadline);
        self.children.iter().for_each(|child| consider(child.poll_timeout()));
        if !self.is_in_charge() {
            return earliest;
        }
        consider(Some(Deadline { at: self.renew_at, why: "phase 1 to renew" }));
        consider(self.dpd.map(|dpd| self.watch.poll_timeout(&dpd)));
        consider(self.keepalive_at.map(|at| Deadline { at, why: "NAT keepalive" }));
        self.quick.iter().for_each(|quick| consider(quick.poll_timeout()));
        consider(self.poll_wanted());
        consider(self.poll_probe());
        earliest
    }

    /// Asks the endpoint for a successor, again and again until it is there.
    fn renew(&mut self, ctx: &mut Context<'_>) {
        if !self.is_in_charge() {
            return;
        }
        self.standing = Standing::Renewing;
        self.renew_at = ctx.now + memory(&ctx.options.retransmission);
        ctx.signals.push(Signal::Renew { peer: self.peer });
    }

    pub(super) fn rekey(&mut self, what: Rekey, link: &Link, ctx: &mut Context<'_>) {
        match what {
            Rekey::Ike => self.renew(ctx),
            Rekey::Children => {
                let active: Vec<_> = self.children.iter().filter(|c| c.is_active()).map(|c| c.id).collect();
                active.into_iter().for_each(|id| self.rekey_child(id, link, ctx));
            }
        }
    }

    /// The peer's NAT gave it a new address, as a message shows that is no replay.
    pub(super) fn follow(&mut self, link: &mut Link, ends: Ends, ctx: &mut Context<'_>) {
        if !self.nat.is_found() || link.ends == ends || ends.local.port() != link.ends.local.port() {
            return;
        }
        let from = std::mem::replace(&mut link.ends, ends).remote;
        let path = self.path(link);
        for child in self.children.iter_mut().filter(|child| child.path.udp) {
            child.path = path;
            ctx.change(SaChange::Move { id: child.id, path });
        }
        if from != ends.remote {
            ctx.tell(Event::PeerMoved { peer: self.peer, from, to: ends.remote });
        }
    }

    pub(super) fn note_peer_moved(&mut self, link: &mut Link, to: SocketAddr, ctx: &mut Context<'_>) {
        self.watch.note_alive(ctx.now);
        self.follow(link, Ends { local: link.ends.local, remote: to }, ctx);
    }

    /// Hands everything over to a successor. What remains is to close this one.
    pub(super) fn hand_over(&mut self, ctx: &mut Context<'_>) -> Handover {
        let handover = self.take_children(ctx);
        self.standing = Standing::Succeeded;
        handover
    }

    /// Deletes for everything it owns.
    fn say_goodbye(&self, link: &Link, ctx: &mut Context<'_>) {
        let spis: Vec<_> = self.children.iter().filter(|child| !child.is_leaving()).map(|child| child.spis.0).collect();
        self.send_delete(link, &spis, ctx);
        self.send_delete_isakmp(link, ctx);
    }

    /// Children are handed to it or asked of it: if it had a successor, that is gone.
    pub(super) fn take_charge(&mut self) {
        if self.standing == Standing::Succeeded {
            self.standing = Standing::Current;
        }
    }

    /// The peer deleted the ISAKMP SA.
    pub(super) fn note_deleted(&mut self, ctx: &mut Context<'_>) -> After {
        if self.standing == Standing::Renewing && !self.children.is_empty() {
            self.standing = Standing::Deleted;
            self.expires_at = self.expires_at.min(ctx.now + memory(&ctx.options.retransmission));
            return After::Stays;
        }
        let again = self.again_after_delete(ctx);
        self.end(CloseReason::PeerDeleted, again, ctx)
    }

    pub(super) fn close(&mut self, reason: CloseReason, link: &Link, ctx: &mut Context<'_>) -> After {
        self.say_goodbye(link, ctx);
        self.end(reason, Again::No, ctx)
    }

    /// Forgets everything without a word to the peer.
    pub(super) fn end(&mut self, reason: CloseReason, again: Again, ctx: &mut Context<'_>) -> After {
        self.abandon_asking(ctx);
        self.abandon_probe(ctx);
        self.wanted.clear();
        let ids: Vec<SaId> = self.children.iter().map(|child| child.id).collect();
        ids.into_iter().for_each(|id| self.remove_child(id, reason.clone(), ctx));
        ctx.tell(Event::IkeDown { peer: self.peer, reason: reason.clone() });
        let again = if self.standing == Standing::Succeeded { Again::No } else { again };
        ctx.signals.push(Signal::Closed { peer: Some(self.peer), reason, again });
        After::Closed
    }

    /// Whether to come back when the peer is dead.
    pub(super) fn again_after_loss(&self, ctx: &Context<'_>) -> Again {
        let Some(connection) = self.connection(ctx) else { return Again::No };
        match connection.dpd.map(|dpd| dpd.action) {
            Some(DpdAction::Restart) => Again::AtOnce,
            Some(DpdAction::Hold) => Again::OnTraffic,
            Some(DpdAction::Clear) => Again::No,
            None => again_as_started(connection),
        }
    }

    /// Whether to come back when the peer deleted us, or time did.
    pub(super) fn again_after_delete(&self, ctx: &Context<'_>) -> Again {
        self.connection(ctx).map_or(Again::No, |connection| again_as_started(connection))
    }

    /// Whether it negotiates children, asks for a successor and watches the peer.
    pub(super) const fn is_in_charge(&self) -> bool {
        matches!(self.standing, Standing::Current | Standing::Renewing)
    }
}

/// Comes back the way the connection was started.
fn again_as_started(connection: &Connection) -> Again {
    let starts = |start| connection.children.iter().any(|child| child.start == start);
    if starts(Start::AtOnce) {
        Again::AtOnce
    } else if starts(Start::OnTraffic) {
        Again::OnTraffic
    } else {
        Again::No
    }
}

impl State {
    /// The state behind an input of an established session.
    pub(super) fn after(established: Box<Established>, after: After) -> Self {
        match after {
            After::Stays => Self::Established(established),
            After::Closed => Self::Closed,
        }
    }
}
