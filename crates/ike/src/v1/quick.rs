//! Quick mode (RFC 2409 §5.5).
//!
//! ```text
//! initiator                                              responder
//!   1  HDR*, HASH(1), SA, Ni [, KE], IDci, IDcr   -->        installs, so that packets may arrive
//!                                                 <--    2  HDR*, HASH(2), SA, Nr [, KE], IDci, IDcr [, N]
//!      installs
//!   3  HDR*, HASH(3)                              -->        activates
//!      activates
//! ```
//!
//! The initiator repeats message 1 by its timer, the responder message 2; message 3 is sent again whenever message 2
//! comes again. The commit bit is tolerated: nothing waits for CONNECTED, for the responder has installed already.

use std::net::IpAddr;

use base::{Deadline, Secret};
use crypto::KeyPair;
use model::{Connection, Tries};
use sa::{SaId, Spi, TrafficSelector};

use super::Link;
use super::children::{NewChild, Want, find_child, selector_offer, selector_offers};
use super::established::{After, Established, Gone};
use super::flight::{Due, Flight};
use super::identity::{decode_selector, encode_selector};
use super::keys::{self, Iv, is_nonce};
use super::phase2::{self, Life};
use crate::context::{Context, Ends};
use crate::event::{CloseReason, DropReason};
use crate::session::jittered;
use crate::wire::header::Header;
use crate::wire::v1::{
    Chain, Id, Notify, Padding, Payloads, Proposal, SaPayload, decode_attributes, encode_attributes, exchange, flag,
    notify, payload, protocol,
};
use crate::{Cause, Failure, Side};

/// Quick modes of ours at the same time.
const MAX_ASKED: usize = 8;
/// Quick modes of the peer's that wait for message 3.
const MAX_ANSWERED: usize = 16;

/// Message IDs of answered quick modes that are remembered for the life of a phase 1.
const MAX_REMEMBERED: usize = 1_024;

/// A quick mode under way.
#[derive(Debug)]
pub(super) struct Quick {
    pub(super) message_id: u32,
    /// The vector of the peer's next message.
    pub(super) iv: Iv,
    pub(super) flight: Flight,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    Asked(Box<Asked>),
    Answered(Answered),
}

/// Message 1 is sent.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) want: Want,
    pub(super) id: SaId,
    pub(super) spi: Spi,
    pub(super) nonce: [u8; keys::NONCE_LEN],
    pub(super) key_pair: Option<KeyPair>,
    pub(super) mode: u16,
}

/// Message 2 is sent.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) child: SaId,
    /// Our SPI.
    pub(super) spi: Spi,
    /// HASH(3).
    pub(super) expected: Secret,
}

impl Quick {
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.flight.poll_timeout("quick mode message to repeat")
    }
}

/// Whose traffic a request is about: ours, the peer's.
type Pair = (TrafficSelector, TrafficSelector);

/// Why a request of the peer's is refused: what it is told, what a person is told.
struct Refusal {
    kind: u16,
    spi: Vec<u8>,
    failure: Failure,
}

/// What becomes of an exchange with its message 2.
enum Completed {
    Installed {
        peer_nonce: Vec<u8>,
    },
    /// The peer took its SA down before we heard of it.
    Deleted,
}

/// What a request of the peer's that suits asks for.
struct Request<'a> {
    config: &'a model::Child,
    pair: Pair,
    agreed: phase2::Agreed,
    answer: Proposal,
    public: Option<&'a [u8]>,
    nonce: &'a [u8],
    ids: Option<(&'a [u8], &'a [u8])>,
}

impl Established {
    /// The quick modes that we began.
    pub(super) fn asking(&self) -> impl Iterator<Item = &Want> {
        self.quick.iter().filter_map(|quick| match &quick.stage {
            Stage::Asked(asked) => Some(&asked.want),
            Stage::Answered(_) => None,
        })
    }

    /// Goes on in place of another gateway, which may still live. Message IDs are random in IKEv1, so there is nothing to
    /// agree upon. No key comes of a nonce and a private value that two gateways had: quick modes are begun anew, and
    /// what the peer made of the old ones it deletes when they are replaced, or in its own time.
    pub(super) fn succeed(&mut self, ctx: &mut Context<'_>) {
        for quick in std::mem::take(&mut self.quick) {
            match quick.stage {
                Stage::Asked(asked) => {
                    ctx.numbers.release(asked.id);
                    self.wanted.push(Want { at: ctx.now, ..asked.want });
                }
                Stage::Answered(_) => self.quick.push(quick),
            }
        }
        self.watch.leap(ctx.now);
    }

    pub(super) fn may_ask(&self) -> bool {
        self.asking().count() < MAX_ASKED
    }

    pub(super) fn has_quick_under_way(&self) -> bool {
        self.asking().next().is_some()
    }

    /// Sends message 1.
    pub(super) fn begin_quick(&mut self, want: Want, link: &Link, ctx: &mut Context<'_>) {
        // An error of the peer's would be taken for one about this.
        self.abandon_probe(ctx);
        if !self.has_quick_under_way() {
            self.deleted.clear();
        }
        let Some(connection) = self.connection(ctx) else { return };
        let Some(config) = connection.children.iter().find(|child| *child.name == *want.child) else { return };
        let ids = encode_selector(&want.local).zip(encode_selector(&want.remote));
        let Some((own_id, peer_id)) = ids else {
            let failure = Failure::new(Cause::NoSelector, Side::Ours, Some(connection))
                .with_offers(selector_offers(connection), vec![]);
            return self.tell(failure, link, ctx);
        };
        let mode = self.nat.mode();
        let (id, spi) = ctx.numbers.allocate(ctx.random);
        let group = phase2::group_choices(&config.esp).get(want.group).copied();
        let Some((sa, group)) = group.and_then(|group| Some((phase2::offer(config, group, mode, spi)?, group))) else {
            ctx.numbers.release(id);
            return self.tell(no_child_proposal(connection, config, mode, Side::Ours), link, ctx);
        };
        let key_pair = group.map(|group| KeyPair::generate(group, ctx.random));
        let nonce = keys::nonce(ctx.random);
        let mut parts = vec![(payload::SA, sa.encode()), (payload::NONCE, nonce.to_vec())];
        parts.extend(key_pair.as_ref().map(|pair| (payload::KEY_EXCHANGE, pair.public().to_vec())));
        parts.extend([(payload::ID, own_id), (payload::ID, peer_id)]);
        let message_id = self.new_message_id(ctx);
        let first_iv = self.keys.phase2_iv(&self.last_block, message_id);
        let (message, iv) = self.seal_quick(link, message_id, &first_iv, &[], &parts);
        let flight = Flight::ask(link.ends, message, None, ctx);
        let stage = Stage::Asked(Box::new(Asked { want, id, spi, nonce, key_pair, mode }));
        self.quick.push(Quick { message_id, iv, flight, stage });
    }

    fn new_message_id(&self, ctx: &mut Context<'_>) -> u32 {
        loop {
            let id = ctx.random.next_u32();
            if id != 0 && self.quick.iter().all(|quick| quick.message_id != id) {
                return id;
            }
        }
    }

    /// A message of quick mode: HASH over message ID, `prefix` and the payloads, then the payloads.
    fn seal_quick(
        &self,
        link: &Link,
        message_id: u32,
        iv: &Iv,
        prefix: &[&[u8]],
        parts: &[(u8, Vec<u8>)],
    ) -> (Vec<u8>, Iv) {
        let add = |payloads: Payloads| parts.iter().fold(payloads, |all, (kind, body)| all.with(*kind, body));
        let covered = add(Payloads::new());
        let hash = self.keys.authenticate(&[&[&message_id.to_be_bytes()[..]], prefix, &[covered.bytes()]].concat());
        let payloads = add(Payloads::new().with(payload::HASH, hash.expose()));
        self.keys.seal(iv, link.cookies.header(exchange::QUICK, message_id), &payloads)
    }

    /// Decrypts a message 1 or 2 and verifies its hash.
    fn open_quick(
        &self,
        iv: &Iv,
        header: &Header,
        message: &[u8],
        prefix: &[&[u8]],
    ) -> Result<(Vec<u8>, Iv), DropReason> {
        if header.flags & flag::ENCRYPTED == 0 {
            return Err(DropReason::NotAuthentic);
        }
        let (plain, next_iv) = self.keys.open(iv, message)?;
        let chain =
            Chain::decode(header.next_payload, &plain, Padding::Encrypted).map_err(|_| DropReason::NotAuthentic)?;
        let (hash, covered) = chain.hashed().ok_or(DropReason::NotAuthentic)?;
        let message_id = header.message_id.to_be_bytes();
        let expected = self.keys.authenticate(&[&[&message_id[..]], prefix, &[covered]].concat());
        if expected != hash.into() {
            return Err(DropReason::NotAuthentic);
        }
        Ok((plain, next_iv))
    }

    pub(super) fn handle_quick(
        &mut self,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) {
        let Some(at) = self.quick.iter().position(|quick| quick.message_id == header.message_id) else {
            if let Some(gone) = self.confirmed_gone(header, message) {
                return self.send_delete(link, &[gone], ctx);
            }
            return self.handle_message1(link, ends, header, message, ctx);
        };
        if self.quick[at].flight.answer_again(ends, message, ctx) {
            return;
        }
        let result = match &self.quick[at].stage {
            Stage::Asked(_) => self.handle_message2(at, link, ends, header, message, ctx),
            Stage::Answered(_) => self.handle_message3(at, link, ends, header, message, ctx),
        };
        if let Err(reason) = result {
            ctx.drop(reason);
        }
    }

    fn note_answered(&mut self, message_id: u32) {
        if self.answered.len() == MAX_REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back(message_id);
    }

    fn handle_message1(&mut self, link: &mut Link, ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        // RFC 2408 §3.1: a message ID names one exchange of a phase 1. A recording of message 1 must not make a new SA
        // when the exchange itself is long over.
        if self.answered.contains(&header.message_id) {
            return ctx.drop(DropReason::OutOfOrder);
        }
        let iv = self.keys.phase2_iv(&self.last_block, header.message_id);
        let (plain, next_iv) = match self.open_quick(&iv, header, message, &[]) {
            Ok(opened) => opened,
            Err(reason) => return ctx.drop(reason),
        };
        if self.quick.len() >= MAX_ASKED + MAX_ANSWERED || !self.is_in_charge() {
            return ctx.drop(DropReason::HalfOpenLimit);
        }
        let Some(connection) = self.connection(ctx) else { return ctx.drop(DropReason::NoConnection) };
        match self.read_request(connection, link, header, &plain) {
            Ok(Ok(request)) => {
                let accepted = self.accept(&request, connection, next_iv, link, ends, (header, message), ctx);
                match accepted {
                    Ok(()) => self.note_answered(header.message_id),
                    Err(reason) => ctx.drop(reason),
                }
            }
            Ok(Err(refusal)) => {
                self.tell(refusal.failure, link, ctx);
                let note = self.notification(link, refusal.kind, &refusal.spi, ctx);
                let flight = Flight::answer(ends, note, Some(message), ctx);
                self.remember(header.message_id, flight, ctx);
            }
            Err(reason) => ctx.drop(reason),
        }
    }

    /// Reads an authentic message 1, and finds what of it suits `connection`.
    fn read_request<'a>(
        &self,
        connection: &'a Connection,
        link: &Link,
        header: &Header,
        plain: &'a [u8],
    ) -> Result<Result<Request<'a>, Refusal>, DropReason> {
        let chain = Chain::decode(header.next_payload, plain, Padding::Encrypted)?;
        let sa = SaPayload::decode(chain.first(payload::SA).ok_or(DropReason::Malformed)?)?;
        let nonce = chain.first(payload::NONCE).filter(|nonce| is_nonce(nonce)).ok_or(DropReason::Malformed)?;
        let spi = sa.proposals.first().map(|proposal| proposal.spi.clone()).unwrap_or_default();
        let refuse = |kind, failure| Ok(Err(Refusal { kind, spi: spi.clone(), failure }));
        if let Some(reason) = phase2::refused_kind(&sa) {
            let failure = Failure::new(Cause::RefusedExchange(reason), Side::Ours, Some(connection));
            return refuse(notify::NO_PROPOSAL_CHOSEN, failure);
        }
        let ids = two_ids(&chain);
        let pair = requested_pair(ids, link)?;
        let config = pair.and_then(|(local, remote)| find_child(connection, &local, &remote));
        let Some((config, pair)) = config.zip(pair) else {
            let theirs = pair.map(|(local, remote)| selector_offer(&local, &remote));
            let failure = Failure::new(Cause::NoSelector, Side::Ours, Some(connection))
                .with_offers(selector_offers(connection), theirs.into_iter().collect());
            return refuse(notify::INVALID_ID_INFORMATION, failure);
        };
        let mode = self.nat.mode();
        let Some((agreed, answer)) = phase2::choose(&sa, &config.esp, mode) else {
            let failure = Failure::new(Cause::NoChildProposal, Side::Ours, Some(connection))
                .with_offers(phase2::our_offers(&config.esp, mode), phase2::their_offers(&sa, mode));
            return refuse(notify::NO_PROPOSAL_CHOSEN, failure);
        };
        let public = chain.first(payload::KEY_EXCHANGE);
        if agreed.group.is_some() && public.is_none() {
            return Err(DropReason::Malformed);
        }
        Ok(Ok(Request { config, pair, agreed, answer, public, nonce, ids }))
    }

    /// Installs what a request asks for and sends message 2.
    #[expect(clippy::too_many_arguments, reason = "one call, where the message is taken apart")]
    fn accept(
        &mut self,
        request: &Request<'_>,
        connection: &Connection,
        iv: Iv,
        link: &Link,
        ends: Ends,
        (header, message): (&Header, &[u8]),
        ctx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let agreed = request.agreed;
        let (key_pair, shared) = match agreed.group.zip(request.public) {
            Some((group, public)) if public.len() == group.public_len() => {
                let key_pair = KeyPair::generate(group, ctx.random);
                let shared = key_pair.agree(public).map_err(|_| DropReason::Malformed)?;
                (Some(key_pair), Some(shared))
            }
            Some(_) => return Err(DropReason::Malformed),
            None => (None, None),
        };
        let nonce = keys::nonce(ctx.random);
        let (id, spi) = ctx.numbers.allocate(ctx.random);
        let spis = (spi, agreed.spi);
        let keys = self.keys.child(agreed.suite, shared.as_ref(), spis, (request.nonce, &nonce));
        let (local, remote) = request.pair;
        let config = request.config;
        let (suite, pfs, life) = (agreed.suite, agreed.group, agreed.life);
        self.install(NewChild { config, connection, id, spis, suite, pfs, keys, local, remote, life }, link, ctx);
        let answer = Proposal { spi: spi.0.to_be_bytes().to_vec(), ..request.answer.clone() };
        let sa = SaPayload { proposals: vec![answer] };
        let mut parts = vec![(payload::SA, sa.encode()), (payload::NONCE, nonce.to_vec())];
        parts.extend(key_pair.map(|pair| (payload::KEY_EXCHANGE, pair.public().to_vec())));
        if let Some((theirs, ours)) = request.ids {
            parts.extend([(payload::ID, theirs.to_vec()), (payload::ID, ours.to_vec())]);
        }
        parts.extend(responder_lifetime(Life::of(&config.lifetime), life, spi));
        let message_id = header.message_id;
        let (answer, iv) = self.seal_quick(link, message_id, &iv, &[request.nonce], &parts);
        let flight = Flight::ask(ends, answer, Some(message), ctx);
        let expected = self.keys.authenticate(&[&[0], &message_id.to_be_bytes(), request.nonce, &nonce]);
        let stage = Stage::Answered(Answered { child: id, spi, expected });
        self.quick.push(Quick { message_id, iv, flight, stage });
        Ok(())
    }

    fn handle_message2(
        &mut self,
        at: usize,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let quick = &self.quick[at];
        let Stage::Asked(asked) = &quick.stage else { return Err(DropReason::OutOfOrder) };
        let (plain, iv) = self.open_quick(&quick.iv, header, message, &[&asked.nonce])?;
        // Authentic: the exchange ends here, one way or the other.
        let quick = self.quick.remove(at);
        self.note_fresh(link, ends, ctx);
        let Stage::Asked(asked) = quick.stage else { return Err(DropReason::OutOfOrder) };
        let Some(connection) = self.connection(ctx) else {
            ctx.numbers.release(asked.id);
            return Err(DropReason::NoConnection);
        };
        match self.complete(&asked, connection, header, &plain, link, ctx) {
            Ok(Completed::Installed { peer_nonce }) => {
                let message_id = header.message_id;
                let hash = [&[0], &message_id.to_be_bytes()[..], &asked.nonce, &peer_nonce];
                let payloads = Payloads::new().with(payload::HASH, self.keys.authenticate(&hash).expose());
                let head = link.cookies.header(exchange::QUICK, message_id);
                let (answer, _) = self.keys.seal(&iv, head, &payloads);
                let flight = Flight::answer(link.ends, answer, Some(message), ctx);
                self.remember(message_id, flight, ctx);
                self.activate(asked.id, link, ctx);
            }
            // The peer has settled the exchange: it does not wait for message 3.
            Ok(Completed::Deleted) => {
                ctx.numbers.release(asked.id);
                self.want_again(asked.want, ctx);
            }
            Err(how) => {
                ctx.numbers.release(asked.id);
                let failure = Failure::new(Cause::PeerMisbehaved(how), Side::Ours, Some(connection));
                self.tell(failure, link, ctx);
                let spi = asked.spi.0.to_be_bytes();
                let note = self.notification(link, notify::NO_PROPOSAL_CHOSEN, &spi, ctx);
                ctx.transmit(link.ends, &note);
                self.want_later(asked.want, ctx);
            }
        }
        Ok(())
    }

    /// Reads an authentic message 2 and installs what it agrees to.
    fn complete(
        &mut self,
        asked: &Asked,
        connection: &Connection,
        header: &Header,
        plain: &[u8],
        link: &Link,
        ctx: &mut Context<'_>,
    ) -> Result<Completed, &'static str> {
        let malformed = "message 2 of quick mode is malformed";
        let chain = Chain::decode(header.next_payload, plain, Padding::Encrypted).map_err(|_| malformed)?;
        let sa = SaPayload::decode(chain.first(payload::SA).ok_or(malformed)?).map_err(|_| malformed)?;
        let peer_nonce = chain.first(payload::NONCE).filter(|nonce| is_nonce(nonce)).ok_or(malformed)?;
        let config = connection.children.iter().find(|child| *child.name == *asked.want.child);
        let config = config.ok_or("its child is not configured any more")?;
        let group = asked.key_pair.as_ref().map(KeyPair::group);
        let agreed = phase2::chosen(&sa, &config.esp, group, asked.mode)
            .ok_or("it chose a phase 2 proposal that was not offered")?;
        let (local, remote) = (asked.want.local, asked.want.remote);
        if let Some((first, second)) = two_ids(&chain) {
            let same = |body, selector| Id::decode(body).ok().and_then(|id| decode_selector(&id)) == Some(selector);
            if !same(first, local) || !same(second, remote) {
                return Err("it answered with other traffic selectors than it was asked for");
            }
        }
        if self.deleted.contains(&agreed.spi) {
            return Ok(Completed::Deleted);
        }
        let shared = match &asked.key_pair {
            Some(key_pair) => {
                let public = chain.first(payload::KEY_EXCHANGE).ok_or(malformed)?;
                Some(key_pair.agree(public).map_err(|_| "its public value is not of the group")?)
            }
            None => None,
        };
        let spis = (asked.spi, agreed.spi);
        let keys = self.keys.child(agreed.suite, shared.as_ref(), spis, (&asked.nonce, peer_nonce));
        let life = chain.all(payload::NOTIFY).fold(agreed.life, |life, body| life.shorter(notified_lifetime(body)));
        let (id, suite, pfs) = (asked.id, agreed.suite, agreed.group);
        self.install(NewChild { config, connection, id, spis, suite, pfs, keys, local, remote, life }, link, ctx);
        Ok(Completed::Installed { peer_nonce: peer_nonce.to_vec() })
    }

    fn handle_message3(
        &mut self,
        at: usize,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let quick = &self.quick[at];
        let Stage::Answered(answered) = &quick.stage else { return Err(DropReason::OutOfOrder) };
        self.verify_message3(&quick.iv, &answered.expected, header, message)?;
        let id = answered.child;
        self.note_fresh(link, ends, ctx);
        self.settle_quick(id, ctx);
        self.activate(id, link, ctx);
        Ok(())
    }

    fn verify_message3(&self, iv: &Iv, expected: &Secret, header: &Header, message: &[u8]) -> Result<(), DropReason> {
        if header.flags & flag::ENCRYPTED == 0 {
            return Err(DropReason::NotAuthentic);
        }
        let (plain, _) = self.keys.open(iv, message)?;
        let chain =
            Chain::decode(header.next_payload, &plain, Padding::Encrypted).map_err(|_| DropReason::NotAuthentic)?;
        let hash = chain.first(payload::HASH).ok_or(DropReason::NotAuthentic)?;
        if *expected == hash.into() { Ok(()) } else { Err(DropReason::NotAuthentic) }
    }

    /// Our SPI of an SA that was taken down, when this message confirms it all the same: the peer has not heard of
    /// the delete, which came before message 2 or not at all, and would use the SA until its rekey.
    fn confirmed_gone(&self, header: &Header, message: &[u8]) -> Option<Spi> {
        let mut named = self.recent.iter().filter(|recent| recent.message_id == header.message_id);
        let gone = named.find_map(|recent| recent.gone.as_ref())?;
        self.verify_message3(&gone.iv, &gone.expected, header, message).is_ok().then_some(gone.spi)
    }

    /// The exchange that answered with this SA is over, and so is the SA.
    pub(super) fn forsake_quick(&mut self, id: SaId, ctx: &Context<'_>) {
        let own = self.quick.iter().find_map(|quick| match &quick.stage {
            Stage::Answered(Answered { child, spi, expected }) if *child == id => {
                Some((quick.message_id, Gone { spi: *spi, iv: quick.iv, expected: expected.clone() }))
            }
            Stage::Answered(_) | Stage::Asked(_) => None,
        });
        self.settle_quick(id, ctx);
        if let Some((message_id, gone)) = own
            && let Some(recent) = self.recent.iter_mut().rfind(|recent| recent.message_id == message_id)
        {
            recent.gone = Some(gone);
        }
    }

    /// The exchange that answered with this SA is over. Its message 2 is kept for a message 1 that is still under
    /// way: it must not become another SA.
    pub(super) fn settle_quick(&mut self, id: SaId, ctx: &Context<'_>) {
        let own = |quick: &Quick| matches!(&quick.stage, Stage::Answered(answered) if answered.child == id);
        if let Some(at) = self.quick.iter().position(own) {
            let Quick { message_id, mut flight, .. } = self.quick.remove(at);
            flight.settle();
            self.remember(message_id, flight, ctx);
        }
    }

    /// Forgets every exchange under way, and what we asked for with them. SAs that they answered with are the
    /// caller's.
    pub(super) fn abandon_asking(&mut self, ctx: &mut Context<'_>) -> Vec<Want> {
        let mut wanted = Vec::new();
        for quick in self.quick.drain(..) {
            if let Stage::Asked(asked) = quick.stage {
                ctx.numbers.release(asked.id);
                wanted.push(Want { at: ctx.now, ..asked.want });
            }
        }
        wanted
    }

    /// Forgets the exchanges that we began for this child.
    pub(super) fn forget_asking(&mut self, name: &str, ctx: &mut Context<'_>) {
        self.quick.retain(|quick| match &quick.stage {
            Stage::Asked(asked) if *asked.want.child == *name => {
                ctx.numbers.release(asked.id);
                false
            }
            Stage::Asked(_) | Stage::Answered(_) => true,
        });
    }

    pub(super) fn handle_quick_timeout(&mut self, link: &Link, ctx: &mut Context<'_>) -> After {
        let mut at = 0;
        while at < self.quick.len() {
            match self.quick[at].flight.handle_timeout(link.ends, ctx) {
                Due::NotYet | Due::Repeated => at += 1,
                Due::GivenUp(sent) => match self.quick.remove(at).stage {
                    Stage::Answered(answered) => self.drop_unconfirmed(answered.child, link, ctx),
                    // A peer that answers nothing within phase 1 has forgotten it, or is gone.
                    Stage::Asked(asked) => {
                        ctx.numbers.release(asked.id);
                        return self.give_up(sent, link, ctx);
                    }
                },
            }
        }
        After::Stays
    }

    fn give_up(&mut self, sent: u32, link: &Link, ctx: &mut Context<'_>) -> After {
        let connection = self.connection(ctx).map(AsRef::as_ref);
        let failure = Failure::new(Cause::NoAnswer { sent }, Side::Ours, connection);
        self.tell(failure, link, ctx);
        let again = self.again_after_loss(ctx);
        self.end(CloseReason::PeerDead, again, ctx)
    }

    /// The peer refuses a quick mode of ours, authentically.
    pub(super) fn handle_quick_refused(&mut self, kind: u16, spi: Option<Spi>, link: &Link, ctx: &mut Context<'_>) {
        let is_asked = |quick: &Quick, wanted: Option<Spi>| match &quick.stage {
            Stage::Asked(asked) => wanted.is_none_or(|spi| asked.spi == spi),
            Stage::Answered(_) => false,
        };
        let named = self.quick.iter().position(|quick| spi.is_some() && is_asked(quick, spi));
        let Some(at) = named.or_else(|| self.quick.iter().position(|quick| is_asked(quick, None))) else {
            // It refuses what we took for done: an SA that we installed with message 3.
            if let Some(id) = spi.and_then(|spi| self.children.iter().find(|c| c.spis.0 == spi)).map(|c| c.id) {
                self.settle_quick(id, ctx);
                self.remove_child(id, CloseReason::Failed, ctx);
            }
            return;
        };
        let Stage::Asked(asked) = self.quick.remove(at).stage else { return };
        ctx.numbers.release(asked.id);
        let Some(connection) = self.connection(ctx) else { return };
        let Some(config) = connection.children.iter().find(|child| *child.name == *asked.want.child) else { return };
        let mut want = asked.want;
        let failure = match kind {
            notify::NO_PROPOSAL_CHOSEN if want.group + 1 < phase2::group_choices(&config.esp).len() => {
                want.group += 1;
                return self.begin_quick(want, link, ctx);
            }
            notify::NO_PROPOSAL_CHOSEN => no_child_proposal(connection, config, asked.mode, Side::Theirs),
            notify::INVALID_ID_INFORMATION => Failure::new(Cause::NoSelector, Side::Theirs, Some(connection))
                .with_offers(vec![selector_offer(&want.local, &want.remote)], vec![]),
            kind => Failure::new(Cause::PeerSaid(notify::name(kind).into()), Side::Theirs, Some(connection)),
        };
        self.tell(failure, link, ctx);
        self.want_later(want, ctx);
    }

    /// A refused child is tried again after a wait that doubles, while tries are left.
    fn want_later(&mut self, mut want: Want, ctx: &mut Context<'_>) {
        want.refused += 1;
        want.group = 0;
        let tries = self.connection(ctx).map(|connection| connection.tries);
        let is_over = match tries {
            Some(Tries::Forever) => false,
            Some(Tries::Times(times)) => want.refused >= times,
            None => true,
        };
        if !is_over {
            let wait = ctx.options.retry * 2u32.pow(want.refused.min(4));
            want.at = ctx.now + jittered(wait, ctx.random);
            self.wanted.push(want);
        }
    }
}

fn no_child_proposal(connection: &Connection, config: &model::Child, mode: u16, found_by: Side) -> Failure {
    Failure::new(Cause::NoChildProposal, found_by, Some(connection))
        .with_offers(phase2::our_offers(&config.esp, mode), vec![])
}

/// The two identification payloads of a message, in their order.
fn two_ids<'a>(chain: &Chain<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut ids = chain.all(payload::ID);
    ids.next().zip(ids.next())
}

/// The traffic that a request is about, ours first; the hosts themselves where it does not say (RFC 2409 §5.5). None
/// where it is not expressed in addresses.
fn requested_pair(ids: Option<(&[u8], &[u8])>, link: &Link) -> Result<Option<Pair>, DropReason> {
    let host = |ip: IpAddr| TrafficSelector::range(ip, ip);
    let Some((theirs, ours)) = ids else {
        return Ok(Some((host(link.ends.local.ip()), host(link.ends.remote.ip()))));
    };
    let (theirs, ours) = (Id::decode(theirs)?, Id::decode(ours)?);
    Ok(decode_selector(&ours).zip(decode_selector(&theirs)))
}

/// RESPONDER_LIFETIME, where ours is shorter than what was offered (RFC 2407 §4.5.4).
fn responder_lifetime(ours: Life, offered: Life, spi: Spi) -> Option<(u8, Vec<u8>)> {
    let shorter = Life {
        time: ours.time.filter(|ours| offered.time.is_some_and(|theirs| *ours < theirs)),
        bytes: ours.bytes.filter(|ours| offered.bytes.is_none_or(|theirs| *ours < theirs)),
    };
    if shorter == Life::default() {
        return None;
    }
    let (spi, data) = (spi.0.to_be_bytes(), encode_attributes(&shorter.attributes()));
    let note = Notify { protocol: protocol::ESP, spi: &spi, kind: notify::RESPONDER_LIFETIME, data: &data };
    Some((payload::NOTIFY, note.encode()))
}

/// The lifetime in a RESPONDER_LIFETIME; nothing in any other notification.
fn notified_lifetime(body: &[u8]) -> Life {
    let note = Notify::decode(body).ok().filter(|note| note.kind == notify::RESPONDER_LIFETIME);
    note.and_then(|note| decode_attributes(note.data).ok()).map_or_else(Life::default, |list| Life::read(&list))
}
