//! The responder's side of main mode.

use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Secret};
use crypto::KeyPair;
use model::{Identity, Version};

use super::super::established::Outcome;
use super::super::flight::Flight;
use super::super::identity::{decode_identity, encode_identity};
use super::super::keys::{self, Cookies, Exchanged, Iv, Skeyid};
use super::super::phase1::{self, Suite};
use super::super::vendor::{self, Abilities, Nat};
use super::super::{Link, State};
use super::{Rejected, clear, has_initial_contact, key_and_nonce, refuse};
use crate::context::{Context, Ends};
use crate::event::DropReason;
use crate::peer::{Peer, PeerId, Peers};
use crate::wire::header::Header;
use crate::wire::v1::{Chain, Id, Notify, Padding, Payloads, SaPayload, encode, exchange, notify, payload, protocol};
use crate::{Cause, Failure, Side};

/// Message 2 is sent.
#[derive(Debug)]
pub(crate) struct SaAnswered {
    /// Peers that it may be, best first.
    candidates: Vec<PeerId>,
    flight: Flight,
    pub(in crate::v1) until: Instant,
    suite: Suite,
    lifetime: Option<Duration>,
    sa: Vec<u8>,
    abilities: Abilities,
}

/// Message 4 is sent.
#[derive(Debug)]
pub(crate) struct KeAnswered {
    candidates: Vec<PeerId>,
    flight: Flight,
    pub(in crate::v1) until: Instant,
    lifetime: Option<Duration>,
    dpd: bool,
    exchanged: Exchanged,
    nat: Nat,
    /// What a message 5 that does not verify got.
    refusal: Option<Flight>,
}

/// Message 5 was authentic, but refused. Kept to say so again.
#[derive(Debug)]
pub(crate) struct Refused {
    flight: Flight,
    pub(in crate::v1) until: Instant,
}

/// Answers a message 1 with message 2, or refuses it without keeping any state.
pub(in crate::v1) fn respond(
    ends: Ends,
    header: &Header,
    message: &[u8],
    ctx: &mut Context<'_>,
) -> Option<(Link, SaAnswered)> {
    let found = read_first(ends, header, message, ctx);
    let (link, payload, abilities) = match found {
        Ok(found) => found,
        Err(reason) => {
            ctx.drop(reason);
            return None;
        }
    };
    let peers = ctx.peers.candidates(ends.local.ip(), ends.remote.ip(), Version::V1);
    let Some(best) = peers.first() else {
        let failure = Failure::new(Cause::UnknownPeer { claimed: None }, Side::Ours, None);
        ctx.drop(DropReason::NoConnection);
        refuse_first(ends, header, notify::NO_PROPOSAL_CHOSEN, None, failure, ctx);
        return None;
    };
    if let Some(reason) = phase1::refused_authentication(&payload) {
        let failure = Failure::new(Cause::RefusedExchange(reason), Side::Ours, Some(&best.connection));
        ctx.drop(DropReason::RefusedExchange);
        refuse_first(ends, header, notify::NO_PROPOSAL_CHOSEN, Some(best.id), failure, ctx);
        return None;
    }
    let Some(choice) = peers.iter().find_map(|peer| phase1::choose(&payload, &peer.connection.ike)) else {
        let failure = Failure::new(Cause::NoIkeProposal, Side::Ours, Some(&best.connection))
            .with_offers(phase1::our_offers(&best.connection), phase1::their_offers(&payload));
        refuse_first(ends, header, notify::NO_PROPOSAL_CHOSEN, Some(best.id), failure, ctx);
        return None;
    };
    let candidates: Vec<_> = peers.iter().filter(|peer| choice.suite.is_in(&peer.connection.ike)).copied().collect();
    let encapsulation = candidates.first()?.connection.encapsulation;
    let abilities = abilities.wanted(encapsulation);
    let payloads = Payloads::new().with(payload::SA, &choice.answer.encode());
    let payloads = vendor::answer_vendors(payloads, abilities.nat_t);
    let answer = encode(link.cookies.header(exchange::MAIN, 0), &payloads);
    let answered = SaAnswered {
        candidates: candidates.iter().map(|peer| peer.id).collect(),
        flight: Flight::answer(ends, answer, Some(message), ctx),
        until: ctx.now + ctx.options.half_open_timeout,
        suite: choice.suite,
        lifetime: choice.lifetime,
        sa: sa_body(header, message)?,
        abilities,
    };
    Some((link, answered))
}

/// Reads message 1.
fn read_first(
    ends: Ends,
    header: &Header,
    message: &[u8],
    ctx: &mut Context<'_>,
) -> Result<(Link, SaPayload, Abilities), Rejected> {
    if header.responder_spi != 0 {
        return Err(Rejected::UnknownSpi);
    }
    let chain = clear(header, message)?;
    let payload = SaPayload::decode(chain.first(payload::SA).ok_or(Rejected::Malformed)?)?;
    let cookies = Cookies { initiator: header.initiator_spi, responder: ctx.random.next_u64() | 1 };
    Ok((Link { cookies, is_initiator: false, ends }, payload, Abilities::read(&chain)))
}

/// The body of the SA payload: all hashes of the exchange cover it.
fn sa_body(header: &Header, message: &[u8]) -> Option<Vec<u8>> {
    clear(header, message).ok()?.first(payload::SA).map(<[u8]>::to_vec)
}

/// Says why a first message is refused, to a person and to the peer; seldom enough that a flood fills no log.
pub(in crate::v1) fn refuse_first(
    ends: Ends,
    header: &Header,
    kind: u16,
    peer: Option<PeerId>,
    failure: Failure,
    ctx: &mut Context<'_>,
) {
    if !ctx.numbers.may_tell(ends.remote.ip(), ctx.now) {
        return;
    }
    let cookies = Cookies { initiator: header.initiator_spi, responder: header.responder_spi };
    let note = notification(cookies, kind, ctx);
    ctx.transmit(ends, &note);
    ctx.fail(peer, ends.remote, failure);
}

/// A notification in the clear.
fn notification(cookies: Cookies, kind: u16, ctx: &mut Context<'_>) -> Vec<u8> {
    let note = Notify { protocol: protocol::ISAKMP, spi: &cookies.bytes(), kind, data: &[] }.encode();
    let header = cookies.header(exchange::INFORMATIONAL, ctx.random.next_u32() | 1);
    encode(header, &Payloads::new().with(payload::NOTIFY, &note))
}

impl SaAnswered {
    pub(in crate::v1) fn handle_main(
        self: Box<Self>,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        if self.flight.answer_again(ends, message, ctx) {
            return State::SaAnswered(self);
        }
        match self.answer(link, ends, header, message, ctx) {
            Ok((exchanged, nat, answer)) => {
                // A NAT may have changed its port between the messages; the cookies show that it is the same peer.
                link.ends = ends;
                let flight = Flight::answer(ends, answer, Some(message), ctx);
                let until = ctx.now + ctx.options.half_open_timeout;
                let Self { candidates, lifetime, abilities: Abilities { dpd, .. }, .. } = *self;
                let refusal = None;
                State::KeAnswered(Box::new(KeAnswered {
                    candidates,
                    flight,
                    until,
                    lifetime,
                    dpd,
                    exchanged,
                    nat,
                    refusal,
                }))
            }
            Err(reason) => {
                ctx.drop(reason);
                State::SaAnswered(self)
            }
        }
    }

    /// Reads message 3 and makes message 4.
    fn answer(
        &self,
        link: &Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> Result<(Exchanged, Nat, Vec<u8>), Rejected> {
        let chain = clear(header, message)?;
        let (key, peer_nonce) = key_and_nonce(&chain)?;
        if key.len() != self.suite.group.public_len() {
            return Err(Rejected::Malformed);
        }
        let encapsulation = encapsulation(&self.candidates, ctx);
        let key_pair = KeyPair::generate(self.suite.group, ctx.random);
        let shared = key_pair.agree(key).map_err(|_| Rejected::Malformed)?;
        let nonce = keys::nonce(ctx.random);
        let mut payloads = Payloads::new().with(payload::KEY_EXCHANGE, key_pair.public()).with(payload::NONCE, &nonce);
        let mut nat = Nat::default();
        if let Some(dialect) = self.abilities.nat_t {
            let (hash, cookies) = (self.suite.hash, link.cookies);
            nat = vendor::detected(&chain, dialect, hash, cookies, ends, encapsulation);
            payloads = vendor::detect(payloads, dialect, hash, cookies, ends, encapsulation, ctx.random);
        }
        let exchanged = Exchanged {
            suite: self.suite,
            cookies: link.cookies,
            sa: self.sa.clone(),
            public: (key.to_vec(), key_pair.public().to_vec()),
            nonces: (peer_nonce.to_vec(), nonce.to_vec()),
            shared,
        };
        Ok((exchanged, nat, encode(link.cookies.header(exchange::MAIN, 0), &payloads)))
    }

    pub(in crate::v1) fn handle_timeout(self: Box<Self>, ctx: &mut Context<'_>) -> State {
        if self.until <= ctx.now { forget(ctx) } else { State::SaAnswered(self) }
    }

    pub(in crate::v1) const fn suite(&self) -> Suite {
        self.suite
    }
}

fn encapsulation(candidates: &[PeerId], ctx: &Context<'_>) -> model::Encapsulation {
    let peers = candidates.iter().filter_map(|id| ctx.peer(*id));
    peers.map(|peer| peer.connection.encapsulation).next().unwrap_or_default()
}

/// A half-open negotiation of the peer's is over: there is nothing to tell, it may have been a scan.
fn forget(ctx: &mut Context<'_>) -> State {
    use crate::context::{Again, Signal};
    let reason = crate::event::CloseReason::Failed;
    ctx.signals.push(Signal::Closed { peer: None, reason, again: Again::No });
    State::Closed
}

/// A message 5 whose hash verified: only [`KeAnswered::verify`] makes it.
struct Verified {
    skeyid: Skeyid,
    identity: Option<Identity>,
    initial_contact: bool,
    last_block: Iv,
}

impl KeAnswered {
    pub(in crate::v1) fn handle_main(
        mut self: Box<Self>,
        link: &mut Link,
        ends: Ends,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let refused_again = self.refusal.as_ref().is_some_and(|refusal| refusal.answer_again(ends, message, ctx));
        if refused_again || self.flight.answer_again(ends, message, ctx) {
            return State::KeAnswered(self);
        }
        let peers: Vec<_> = self.candidates.iter().filter_map(|id| ctx.peers.get(*id)).collect();
        match self.verify(&peers, message) {
            Ok((verified, psk)) => {
                link.ends = ends;
                let with_key: Vec<_> = peers.into_iter().filter(|p| p.connection.psk.contains(psk)).collect();
                self.identify(verified, &with_key, link, message, ctx)
            }
            Err(Rejected::NotAuthentic) => {
                ctx.drop(DropReason::NotAuthentic);
                self.tell_wrong_psk(&peers, link, ends, message, ctx);
                State::KeAnswered(self)
            }
            Err(reason) => {
                ctx.drop(reason);
                State::KeAnswered(self)
            }
        }
    }

    /// Decrypts message 5 and verifies HASH_I with each key that the peer may have.
    fn verify<'a>(&self, peers: &[&'a Peer], message: &[u8]) -> Result<(Verified, &'a Secret), Rejected> {
        let header = Header::decode(message)?;
        if header.flags & crate::wire::v1::flag::ENCRYPTED == 0 {
            return Err(Rejected::OutOfOrder);
        }
        let mut tried: Vec<&Secret> = Vec::new();
        for psk in peers.iter().flat_map(|peer| &peer.connection.psk) {
            if tried.contains(&psk) {
                continue;
            }
            tried.push(psk);
            let skeyid = self.exchanged.with_psk(psk);
            let (plain, last_block) = skeyid.keys.open(&self.exchanged.iv(), message)?;
            let Ok(chain) = Chain::decode(header.next_payload, &plain, Padding::Encrypted) else { continue };
            let (Some(id), Some(hash)) = (chain.first(payload::ID), chain.first(payload::HASH)) else { continue };
            if self.exchanged.proof(&skeyid, true, id) == hash.into() {
                let identity = Id::decode(id).ok().and_then(|id| decode_identity(&id));
                let initial_contact = has_initial_contact(&chain);
                return Ok((Verified { skeyid, identity, initial_contact, last_block }, psk));
            }
        }
        Err(Rejected::NotAuthentic)
    }

    /// Once a negotiation: a message 5 that no key of ours opens.
    fn tell_wrong_psk(&mut self, peers: &[&Peer], link: &Link, ends: Ends, message: &[u8], ctx: &mut Context<'_>) {
        if self.refusal.is_some() {
            return;
        }
        let connection = peers.first().map(|peer| peer.connection.as_ref());
        let failure = Failure::new(Cause::WrongPsk, Side::Ours, connection);
        ctx.fail(peers.first().map(|peer| peer.id), ends.remote, failure);
        let note = notification(link.cookies, notify::AUTHENTICATION_FAILED, ctx);
        self.refusal = Some(Flight::answer(ends, note, Some(message), ctx));
    }

    /// The peer has a key of ours: whose identity does it claim?
    fn identify(
        self: Box<Self>,
        verified: Verified,
        peers: &[&Peer],
        link: &mut Link,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let identity = verified.identity.clone().unwrap_or(Identity::Any);
        let fitting = match &verified.identity {
            Some(identity) => Peers::identified(peers, identity, None, link.ends.local.ip()),
            None => Vec::new(),
        };
        match fitting.first() {
            Some(peer) => self.establish(verified, identity, peer, link, message, ctx),
            None => self.refuse_identity(&verified, identity, peers, link, message, ctx),
        }
    }

    fn refuse_identity(
        self: Box<Self>,
        verified: &Verified,
        got: Identity,
        peers: &[&Peer],
        link: &Link,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let (peer, failure) = match peers {
            [peer] => {
                let cause = Cause::WrongRemoteId { expected: peer.connection.remote_id(), got };
                (Some(peer.id), Failure::new(cause, Side::Ours, Some(&peer.connection)))
            }
            _ => (None, Failure::new(Cause::UnknownPeer { claimed: Some(got) }, Side::Ours, None)),
        };
        ctx.fail(peer, link.ends.remote, failure);
        let (keys, last_block) = (&verified.skeyid.keys, &verified.last_block);
        let refusal = refuse(link, keys, last_block, notify::INVALID_ID_INFORMATION, ctx);
        let flight = Flight::answer(link.ends, refusal, Some(message), ctx);
        State::Refused(Box::new(Refused { flight, until: self.until }))
    }

    /// Sends message 6.
    fn establish(
        self: Box<Self>,
        verified: Verified,
        remote_id: Identity,
        peer: &Peer,
        link: &mut Link,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let Verified { skeyid, initial_contact, last_block, .. } = verified;
        let local_id = peer.connection.local_id(link.ends.local.ip());
        let id = encode_identity(&local_id);
        let proof = self.exchanged.proof(&skeyid, false, &id);
        let payloads = Payloads::new().with(payload::ID, &id).with(payload::HASH, proof.expose());
        let (answer, last_block) = skeyid.keys.seal(&last_block, link.cookies.header(exchange::MAIN, 0), &payloads);
        let flight = Flight::answer(link.ends, answer, Some(message), ctx);
        let outcome = Outcome {
            peer: peer.id,
            keys: skeyid.keys,
            last_block,
            nat: self.nat,
            peer_has_dpd: self.dpd,
            local_id,
            remote_id,
            lifetime: self.lifetime,
            children: Vec::new(),
            is_renewal: false,
            replace_all: initial_contact,
            last_message: Some(flight),
        };
        State::Established(Box::new(outcome.establish(&Arc::clone(&peer.connection), link, ctx)))
    }

    pub(in crate::v1) fn handle_timeout(self: Box<Self>, ctx: &mut Context<'_>) -> State {
        if self.until <= ctx.now { forget(ctx) } else { State::KeAnswered(self) }
    }

    pub(in crate::v1) const fn suite(&self) -> Suite {
        self.exchanged.suite
    }

    pub(in crate::v1) const fn nat(&self) -> Nat {
        self.nat
    }
}

impl Refused {
    pub(in crate::v1) fn handle_main(&self, ends: Ends, message: &[u8], ctx: &mut Context<'_>) {
        if !self.flight.answer_again(ends, message, ctx) {
            ctx.drop(DropReason::OutOfOrder);
        }
    }

    pub(in crate::v1) fn handle_timeout(self: Box<Self>, ctx: &mut Context<'_>) -> State {
        if self.until <= ctx.now { forget(ctx) } else { State::Refused(self) }
    }
}
