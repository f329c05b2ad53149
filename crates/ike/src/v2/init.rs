//! IKE_SA_INIT (RFC 7296 §1.2): suite, key exchange, nonces; cookies (§2.6), another group (§1.2, INVALID_KE_PAYLOAD),
//! NAT detection (§2.23). Nothing in it is authenticated yet, so whatever it says can only end a negotiation, never
//! touch an established IKE SA.

use std::net::SocketAddr;
use std::sync::Arc;

use base::algorithm::{Group, Prf};
use base::{Deadline, Instant, Random};
use crypto::{KeyPair, hash};
use model::{Connection, Version};

use crate::context::{Again, Context, Ends};
use crate::event::{DropReason, Event};
use crate::failure::{Cause, Failure, Offer, Side};
use crate::natt::address_bytes;
use crate::peer::Peer;
use crate::wire::header::Header;
use crate::wire::v2::{self, Body, Message, NotifyType, Proposal, exchange, flags, protocol};

use super::auth::{AuthSent, InitExchange};
use super::fragment::Channel;
use super::keys::{IkeSuite, Keys, Seed};
use super::propose::{Chosen, accept_ike, choose_ike, offer_ike, offers};
use super::{Core, Nat, Repetition, Session, State, answer_plainly};

/// Bytes of our nonces.
pub(super) const NONCE_LEN: usize = 32;
/// How often a peer may ask for another first message: with a cookie, with another group.
const MAX_RETRIES: u8 = 5;

/// We sent IKE_SA_INIT and wait for the answer.
pub(super) struct InitSent {
    message: Vec<u8>,
    nonce: [u8; NONCE_LEN],
    own: KeyPair,
    cookie: Option<Box<[u8]>>,
    /// Children to bring up.
    wanted: Vec<Arc<str>>,
    repetition: Repetition,
    retries: u8,
}

impl std::fmt::Debug for InitSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InitSent({}, sent {})", self.own.group(), self.repetition.sent + 1)
    }
}

/// A random SPI; zero means none.
pub(super) fn draw_spi(random: &mut Random) -> u64 {
    random.next_u64().max(1)
}

pub(super) fn initiate(peer: &Peer, ends: Ends, children: &[Arc<str>], ctx: &mut Context<'_>) -> Session {
    let connection = &peer.connection;
    let group = connection.ike.iter().flat_map(|proposal| &proposal.groups).next().copied();
    let mut core = Core {
        is_initiator: true,
        spi_i: draw_spi(ctx.random),
        spi_r: 0,
        ends,
        nat: Nat::default(),
        peer: Some(peer.id),
        connection: Some(connection.clone()),
        last_sent: ctx.now,
        keepalive: ctx.options.nat_keepalive,
        natt_port: ctx.options.ports.natt,
    };
    let mut state = InitSent {
        message: Vec::new(),
        nonce: ctx.random.array(),
        own: KeyPair::generate(group.unwrap_or(Group::Curve25519), ctx.random),
        cookie: None,
        wanted: children.to_vec(),
        repetition: Repetition::start(ctx.options, ctx.now),
        retries: 0,
    };
    ctx.tell(Event::Connecting { peer: peer.id, version: Version::V2, remote: ends.remote });
    state.send_first(connection, &mut core, ctx);
    Session { core, state: State::InitSent(Box::new(state)) }
}

impl InitSent {
    /// Remembers a child to bring up.
    pub(super) fn want(&mut self, child: &str) {
        if !self.wanted.iter().any(|wanted| **wanted == *child) {
            self.wanted.push(child.into());
        }
    }

    fn send_first(&mut self, connection: &Connection, core: &mut Core, ctx: &mut Context<'_>) {
        let mut body = Body::new();
        if let Some(cookie) = &self.cookie {
            // RFC 7296 §2.6: the cookie is the first payload, and all others stay as they were.
            body.notify(NotifyType::COOKIE, cookie);
        }
        body.sa(&offer_ike(&connection.ike, &[])).ke(self.own.group().id(), self.own.public()).nonce(&self.nonce);
        say_extensions(&mut body, connection, core, ctx.random);
        self.message = v2::message(core.header(exchange::SA_INIT, 0, false), &body);
        self.repetition = Repetition::start(ctx.options, ctx.now);
        core.send(core.ends, &vec![self.message.clone()], ctx);
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, core: &mut Core, ctx: &mut Context<'_>) -> State {
        match self.repetition.due(ctx.options, ctx.now) {
            None => State::InitSent(self),
            Some(true) => {
                ctx.counters.retransmitted += 1;
                core.send(core.ends, &vec![self.message.clone()], ctx);
                State::InitSent(self)
            }
            Some(false) => {
                let cause = Cause::NoAnswer { sent: self.repetition.sent };
                let failure = Failure::new(cause, Side::Ours, core.connection.as_deref());
                fail(core, failure, ctx)
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        Deadline { at: self.repetition.at, why: "IKE_SA_INIT is repeated" }
    }

    /// a -- IKE_SA_INIT { SA, KE, Ni } -> b
    /// a <- IKE_SA_INIT { SA, KE, Nr } | { N(COOKIE) } | { N(INVALID_KE_PAYLOAD) } | { N(error) } -- b
    pub(super) fn handle_message(
        self: Box<Self>,
        core: &mut Core,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let is_answer = header.flags & flags::RESPONSE != 0 && header.flags & flags::INITIATOR == 0;
        let is_due = header.exchange == exchange::SA_INIT && header.message_id == 0;
        if !is_answer || !is_due || header.initiator_spi != core.spi_i || ends.remote.ip() != core.ends.remote.ip() {
            ctx.drop(DropReason::OutOfOrder);
            return State::InitSent(self);
        }
        let Ok((_, decoded)) = v2::decode(message) else {
            ctx.drop(DropReason::Malformed);
            return State::InitSent(self);
        };
        let Some(connection) = core.connection.clone() else { return State::InitSent(self) };
        if decoded.unknown_critical.is_some() {
            ctx.drop(DropReason::Malformed);
            State::InitSent(self)
        } else if let Some(error) = decoded.error() {
            self.on_error(&connection, core, error, ctx)
        } else if let Some(cookie) = decoded.notify(NotifyType::COOKIE)
            && decoded.sa.is_none()
        {
            self.on_cookie(&connection, core, cookie.data, ctx)
        } else {
            self.on_answer(&connection, core, header, &decoded, message, ctx)
        }
    }

    fn on_cookie(
        mut self: Box<Self>,
        connection: &Connection,
        core: &mut Core,
        cookie: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        self.retries += 1;
        if self.retries > MAX_RETRIES || !(1..=64).contains(&cookie.len()) {
            // Whoever sends cookie after cookie need not be the peer: wait on for the peer itself.
            ctx.drop(DropReason::BadCookie);
            return State::InitSent(self);
        }
        self.cookie = Some(cookie.into());
        self.send_first(connection, core, ctx);
        State::InitSent(self)
    }

    fn on_error(
        mut self: Box<Self>,
        connection: &Connection,
        core: &mut Core,
        error: v2::Notify<'_>,
        ctx: &mut Context<'_>,
    ) -> State {
        let ours = || connection.ike.iter().map(Offer::from).collect();
        let failure = |cause| Failure::new(cause, Side::Theirs, Some(connection));
        if error.kind == NotifyType::INVALID_KE_PAYLOAD {
            let wanted = <[u8; 2]>::try_from(error.data).ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
            let offered = |group: &Group| connection.ike.iter().any(|proposal| proposal.groups.contains(group));
            self.retries += 1;
            let usable = wanted.filter(offered).filter(|group| *group != self.own.group());
            return match usable.filter(|_| self.retries <= MAX_RETRIES) {
                Some(group) => {
                    self.own = KeyPair::generate(group, ctx.random);
                    self.send_first(connection, core, ctx);
                    State::InitSent(self)
                }
                None => fail(core, failure(Cause::NoGroup { wanted }).with_offers(ours(), Vec::new()), ctx),
            };
        }
        let cause = match error.kind {
            NotifyType::NO_PROPOSAL_CHOSEN => Cause::NoIkeProposal,
            other => Cause::PeerSaid(other.to_string().into()),
        };
        fail(core, failure(cause).with_offers(ours(), Vec::new()), ctx)
    }

    fn on_answer(
        self: Box<Self>,
        connection: &Arc<Connection>,
        core: &mut Core,
        header: &Header,
        decoded: &Message<'_>,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let (Some(theirs), Some(ke), Some(nonce_r)) = (&decoded.sa, decoded.ke, decoded.nonce) else {
            ctx.drop(DropReason::Malformed);
            return State::InitSent(self);
        };
        if header.responder_spi == 0 {
            ctx.drop(DropReason::Malformed);
            return State::InitSent(self);
        }
        let misbehaved = |how| Failure::new(Cause::PeerMisbehaved(how), Side::Ours, Some(connection));
        let Some(suite) = accept_ike(&connection.ike, theirs) else {
            return fail(core, misbehaved("it chose a phase 1 proposal that was not offered"), ctx);
        };
        if ke.group != suite.group.id() || suite.group != self.own.group() {
            return fail(core, misbehaved("its key exchange is not of the group that it chose"), ctx);
        }
        let Ok(shared) = self.own.agree(ke.value) else {
            return fail(core, misbehaved("its public value is not valid"), ctx);
        };
        core.spi_r = header.responder_spi;
        core.nat = detect_nat(decoded, connection, core);
        if core.nat.udp {
            float(core, ctx);
        }
        let seed = Seed { nonce_i: &self.nonce, nonce_r, spi_i: core.spi_i, spi_r: core.spi_r };
        let (keys, proof) = Keys::first(suite, &shared, seed, true);
        let fragmentation = connection.fragmentation && decoded.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some();
        let init = InitExchange {
            request: self.message,
            response: message.to_vec(),
            nonce_i: self.nonce.into(),
            nonce_r: nonce_r.into(),
            proof,
        };
        AuthSent::start(core, connection, Channel::new(keys, fragmentation), init, self.wanted, ctx)
    }
}

/// Tells why, and ends the negotiation; it is tried again later.
pub(super) fn fail(core: &Core, failure: Failure, ctx: &mut Context<'_>) -> State {
    ctx.fail(core.peer, core.ends.remote, failure);
    core.give_up(if core.is_initiator { Again::Later } else { Again::No }, ctx)
}

/// RFC 7296 §2.23: from IKE_AUTH on the port of NAT traversal is used.
fn float(core: &mut Core, ctx: &Context<'_>) {
    let ports = ctx.options.ports;
    core.ends.local.set_port(ports.natt);
    // A port of its own is where the peer listens for everything.
    if core.ends.remote.port() == ports.ike {
        core.ends.remote.set_port(ports.natt);
    }
}

/// NAT detection and fragmentation, as both first messages say them.
fn say_extensions(body: &mut Body, connection: &Connection, core: &Core, random: &mut Random) {
    let (detects, forces) = Core::encapsulation(connection);
    if detects {
        let source = if forces { random.array::<20>().to_vec() } else { nat_hash(core, core.ends.local) };
        body.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &source);
        body.notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &nat_hash(core, core.ends.remote));
    }
    if connection.fragmentation {
        body.notify(NotifyType::FRAGMENTATION_SUPPORTED, &[]);
    }
}

/// RFC 7296 §2.23: SHA-1 of the SPIs as in this message's header, address and port.
fn nat_hash(core: &Core, address: SocketAddr) -> Vec<u8> {
    hash(Prf::Sha1, &[&core.spi_i.to_be_bytes(), &core.spi_r.to_be_bytes(), &address_bytes(address)])
}

fn detect_nat(message: &Message<'_>, connection: &Connection, core: &Core) -> Nat {
    detect_nat_with(message, connection, core, core.spi_r)
}

/// `spi_r` is the one in the header of that message: zero in a request.
fn detect_nat_with(message: &Message<'_>, connection: &Connection, core: &Core, spi_r: u64) -> Nat {
    let (detects, forces) = Core::encapsulation(connection);
    let hash_of =
        |address| hash(Prf::Sha1, &[&core.spi_i.to_be_bytes(), &spi_r.to_be_bytes(), &address_bytes(address)]);
    let said = |kind| message.notifies.iter().filter(move |notify| notify.kind == kind).map(|notify| notify.data);
    let is_seen = said(NotifyType::NAT_DETECTION_DESTINATION_IP).next().is_some();
    if !detects || !is_seen {
        return Nat::default();
    }
    let (local, remote) = (hash_of(core.ends.local), hash_of(core.ends.remote));
    let ours = !said(NotifyType::NAT_DETECTION_DESTINATION_IP).any(|hash| hash == local);
    // A peer with several addresses says several sources.
    let theirs = !said(NotifyType::NAT_DETECTION_SOURCE_IP).any(|hash| hash == remote);
    Nat { ours, theirs, udp: ours || theirs || forces }
}

/// We answered IKE_SA_INIT and wait for IKE_AUTH.
pub(super) struct HalfOpen {
    pub(super) channel: Channel,
    pub(super) init: InitExchange,
    pub(super) deadline: Instant,
}

impl std::fmt::Debug for HalfOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HalfOpen({})", self.suite())
    }
}

impl HalfOpen {
    pub(super) fn suite(&self) -> IkeSuite {
        self.channel.keys.suite()
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        Deadline { at: self.deadline, why: "a half-open IKE SA is forgotten" }
    }

    pub(super) fn handle_timeout(self: Box<Self>, core: &Core, ctx: &mut Context<'_>) -> State {
        // Nobody has proved anything: no failure is told, so that a flood of first messages stays silent.
        if ctx.now < self.deadline { State::HalfOpen(self) } else { core.give_up(Again::No, ctx) }
    }

    pub(super) fn handle_message(
        mut self: Box<Self>,
        core: &mut Core,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        if header.exchange == exchange::SA_INIT && header.responder_spi == 0 {
            // RFC 7296 §2.1: a retransmission is equal bytes; the answer is the same bytes.
            if message == self.init.request {
                ctx.counters.answered_again += 1;
                ctx.transmit(ends, &self.init.response);
            } else {
                ctx.drop(DropReason::OutOfOrder);
            }
            return State::HalfOpen(self);
        }
        let is_due = header.exchange == exchange::AUTH && header.message_id == 1;
        if !core.is_named_by(header) || !is_due || header.flags & flags::RESPONSE != 0 {
            ctx.drop(DropReason::OutOfOrder);
            return State::HalfOpen(self);
        }
        let assembled = self.channel.open(header, message).and_then(|piece| self.channel.assemble(piece));
        match assembled {
            Ok(None) => State::HalfOpen(self),
            Ok(Some(verified)) => {
                core.ends = ends;
                super::auth::on_request(*self, core, &verified, ctx)
            }
            Err(reason) => {
                ctx.drop(reason);
                State::HalfOpen(self)
            }
        }
    }
}

/// a -- IKE_SA_INIT { SA, KE, Ni } -> b
/// a <- IKE_SA_INIT { SA, KE, Nr } -- b
pub(super) fn respond(ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) -> Option<Session> {
    let is_first = header.exchange == exchange::SA_INIT && header.message_id == 0 && header.responder_spi == 0;
    if !is_first || header.flags & (flags::RESPONSE | flags::INITIATOR) != flags::INITIATOR {
        ctx.drop(DropReason::UnknownSpi);
        return None;
    }
    let Ok((_, decoded)) = v2::decode(message) else {
        ctx.drop(DropReason::Malformed);
        return None;
    };
    let mut refusal = Body::new();
    if let Some(unknown) = decoded.unknown_critical {
        ctx.drop(DropReason::Malformed);
        refusal.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[unknown]);
        answer_plainly(ends, header, &refusal, ctx);
        return None;
    }
    let (Some(theirs), Some(ke), Some(nonce_i)) = (&decoded.sa, decoded.ke, decoded.nonce) else {
        ctx.drop(DropReason::Malformed);
        return None;
    };
    if !has_cookie(ends, header, &decoded, nonce_i, ctx) {
        return None;
    }
    let (peer, connection, chosen) = match choose(ends, theirs, Group::from_id(ke.group), ctx) {
        Ok(chosen) => chosen,
        Err((peer, failure)) => {
            refusal.notify(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            answer_plainly(ends, header, &refusal, ctx);
            // Whoever it was has proved nothing: a flood must not fill the log.
            if ctx.numbers.may_tell(ends.remote.ip(), ctx.now) {
                ctx.fail(peer, ends.remote, *failure);
            }
            return None;
        }
    };
    let group = chosen.suite.group;
    if ke.group != group.id() {
        refusal.notify(NotifyType::INVALID_KE_PAYLOAD, &group.id().to_be_bytes());
        answer_plainly(ends, header, &refusal, ctx);
        return None;
    }
    let own = KeyPair::generate(group, ctx.random);
    let Ok(shared) = own.agree(ke.value) else {
        ctx.drop(DropReason::Malformed);
        return None;
    };

    let mut core = Core {
        is_initiator: false,
        spi_i: header.initiator_spi,
        spi_r: draw_spi(ctx.random),
        ends,
        nat: Nat::default(),
        peer: Some(peer),
        connection: Some(connection.clone()),
        last_sent: ctx.now,
        keepalive: ctx.options.nat_keepalive,
        natt_port: ctx.options.ports.natt,
    };
    core.nat = detect_nat_with(&decoded, &connection, &core, 0);
    let nonce_r: [u8; NONCE_LEN] = ctx.random.array();
    let mut body = Body::new();
    body.sa(&chosen.proposal(protocol::IKE, &[])).ke(group.id(), own.public()).nonce(&nonce_r);
    say_extensions(&mut body, &connection, &core, ctx.random);
    let response = v2::message(core.header(exchange::SA_INIT, 0, true), &body);
    core.send(ends, &vec![response.clone()], ctx);

    let seed = Seed { nonce_i, nonce_r: &nonce_r, spi_i: core.spi_i, spi_r: core.spi_r };
    let (keys, proof) = Keys::first(chosen.suite, &shared, seed, false);
    let fragmentation = connection.fragmentation && decoded.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some();
    let init =
        InitExchange { request: message.to_vec(), response, nonce_i: nonce_i.into(), nonce_r: nonce_r.into(), proof };
    let deadline = ctx.now + ctx.options.half_open_timeout;
    let state = HalfOpen { channel: Channel::new(keys, fragmentation), init, deadline };
    Some(Session { core, state: State::HalfOpen(Box::new(state)) })
}

/// Whether the message may make state: it always may while half-open IKE SAs are few; else only with our cookie.
fn has_cookie(ends: Ends, header: &Header, message: &Message<'_>, nonce: &[u8], ctx: &mut Context<'_>) -> bool {
    if ctx.half_open < ctx.options.cookie_threshold {
        return true;
    }
    let (remote, spi) = (ends.remote.ip(), header.initiator_spi);
    if let Some(cookie) = message.notify(NotifyType::COOKIE) {
        if ctx.cookies.verify(cookie.data, nonce, remote, spi, ctx.now) {
            return true;
        }
        ctx.drop(DropReason::BadCookie);
    }
    let cookie = ctx.cookies.make(nonce, remote, spi, ctx.random, ctx.now);
    let mut body = Body::new();
    body.notify(NotifyType::COOKIE, cookie.expose());
    ctx.counters.cookies_sent += 1;
    answer_plainly(ends, header, &body, ctx);
    false
}

type Choice = (crate::PeerId, Arc<Connection>, Chosen<IkeSuite>);

/// The best connection for these addresses that has a suite in common with the peer.
fn choose(
    ends: Ends,
    theirs: &[Proposal<'_>],
    sent: Option<Group>,
    ctx: &mut Context<'_>,
) -> Result<Choice, (Option<crate::PeerId>, Box<Failure>)> {
    let candidates = ctx.peers.candidates(ends.local.ip(), ends.remote.ip(), Version::V2);
    let Some(best) = candidates.first() else {
        ctx.counters.drop(DropReason::NoConnection);
        return Err((None, Box::new(Failure::new(Cause::UnknownPeer { claimed: None }, Side::Ours, None))));
    };
    let chosen = candidates.iter().find_map(|peer| {
        let chosen = choose_ike(&peer.connection.ike, theirs, sent)?;
        Some((peer.id, peer.connection.clone(), chosen))
    });
    chosen.ok_or_else(|| {
        let ours = best.connection.ike.iter().map(Offer::from).collect();
        let failure = Failure::new(Cause::NoIkeProposal, Side::Ours, Some(&best.connection));
        (Some(best.id), Box::new(failure.with_offers(ours, offers(theirs))))
    })
}
