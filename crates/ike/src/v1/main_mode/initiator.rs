//! The initiator's side of main mode.

use std::sync::Arc;
use std::time::Duration;

use base::Deadline;
use crypto::KeyPair;
use model::{Connection, Identity, IdentityMatch, Uniqueness};

use super::super::established::Outcome;
use super::super::flight::{Due, Flight};
use super::super::identity::{decode_identity, encode_identity};
use super::super::keys::{self, Cookies, Exchanged, Iv, Skeyid};
use super::super::phase1::{self, Suite};
use super::super::vendor::{self, Abilities, Nat};
use super::super::{Link, State, info};
use super::{Rejected, clear, has_initial_contact, key_and_nonce, refuse};
use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Event};
use crate::peer::{Peer, PeerId};
use crate::wire::header::Header;
use crate::wire::v1::{Chain, Id, Notify, Padding, Payloads, SaPayload, encode, exchange, notify, payload, protocol};
use crate::{Cause, Failure, Side};

/// What a negotiation of ours keeps from message to message.
#[derive(Debug)]
pub(crate) struct Attempt {
    peer: PeerId,
    connection: Arc<Connection>,
    /// The children to bring up; none where an established session is renewed.
    pub(in crate::v1) children: Vec<Arc<str>>,
    is_renewal: bool,
    flight: Flight,
    /// What an unauthenticated message let us guess.
    hint: Option<Failure>,
    told: bool,
}

/// Message 1 is sent.
#[derive(Debug)]
pub(crate) struct SaSent {
    pub(in crate::v1) attempt: Attempt,
    sa: Vec<u8>,
}

/// Message 3 is sent.
#[derive(Debug)]
pub(crate) struct KeSent {
    pub(in crate::v1) attempt: Attempt,
    sa: Vec<u8>,
    suite: Suite,
    lifetime: Option<Duration>,
    abilities: Abilities,
    key_pair: KeyPair,
    nonce: [u8; keys::NONCE_LEN],
}

/// Message 5 is sent.
#[derive(Debug)]
pub(crate) struct AuthSent {
    pub(in crate::v1) attempt: Attempt,
    exchanged: Exchanged,
    skeyid: Skeyid,
    lifetime: Option<Duration>,
    dpd: bool,
    nat: Nat,
    /// The last block of message 5.
    last_block: Iv,
}

/// A message 2 that chooses what we offered.
struct Answer {
    responder: u64,
    suite: Suite,
    lifetime: Option<Duration>,
    abilities: Abilities,
}

/// A message 6 whose hash verified: only [`AuthSent::verify`] makes it.
struct Verified {
    identity: Option<Identity>,
    initial_contact: bool,
    last_block: Iv,
}

/// Begins a negotiation with message 1.
pub(in crate::v1) fn begin(peer: &Peer, ends: Ends, children: &[Arc<str>], ctx: &mut Context<'_>) -> (Link, SaSent) {
    let connection = Arc::clone(&peer.connection);
    let cookies = Cookies { initiator: ctx.random.next_u64() | 1, responder: 0 };
    let link = Link { cookies, is_initiator: true, ends };
    let sa = phase1::offer(&connection).encode();
    let payloads = Payloads::new().with(payload::SA, &sa);
    let payloads = vendor::offer_vendors(payloads, connection.encapsulation);
    ctx.tell(Event::Connecting { peer: peer.id, version: model::Version::V1, remote: ends.remote });
    let flight = Flight::ask(ends, encode(cookies.header(exchange::MAIN, 0), &payloads), None, ctx);
    let attempt = Attempt {
        peer: peer.id,
        connection,
        children: children.to_vec(),
        is_renewal: children.is_empty(),
        flight,
        hint: None,
        told: false,
    };
    (link, SaSent { attempt, sa })
}

impl Attempt {
    pub(in crate::v1) const fn peer(&self) -> PeerId {
        self.peer
    }

    fn failure(&self, cause: Cause, found_by: Side) -> Failure {
        let failure = Failure::new(cause, found_by, Some(&self.connection));
        if matches!(failure.cause, Cause::NoIkeProposal) {
            return failure.with_offers(phase1::our_offers(&self.connection), vec![]);
        }
        failure
    }

    /// Remembers what an unauthenticated message says. It changes nothing else: if it was forged, the true answer
    /// is still on its way.
    fn guess(&mut self, cause: Cause) {
        let failure = self.failure(cause, Side::Theirs);
        self.hint.get_or_insert(failure);
    }

    fn tell(&mut self, failure: Failure, link: &Link, ctx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.told, true) {
            ctx.fail(Some(self.peer), link.ends.remote, failure);
        }
    }

    /// Ends the negotiation for a reason that is certain.
    fn fail(mut self, failure: Failure, link: &Link, ctx: &mut Context<'_>) -> State {
        self.tell(failure, link, ctx);
        ctx.signals.push(Signal::Closed { peer: Some(self.peer), reason: CloseReason::Failed, again: Again::Later });
        State::Closed
    }

    /// Repeats the last message when it is due. A hint is told then: had a better answer been under way, it would
    /// have come by now. Returns the number of messages sent when the peer is given up.
    fn handle_timeout(&mut self, link: &Link, ctx: &mut Context<'_>) -> Option<u32> {
        match self.flight.handle_timeout(link.ends, ctx) {
            Due::NotYet => None,
            Due::Repeated => {
                if let Some(hint) = self.hint.take() {
                    self.tell(hint, link, ctx);
                }
                None
            }
            Due::GivenUp(sent) => Some(sent),
        }
    }

    fn give_up(mut self, sent: u32, link: &Link, ctx: &mut Context<'_>) -> State {
        let failure = self.hint.take().unwrap_or_else(|| self.failure(Cause::NoAnswer { sent }, Side::Ours));
        self.fail(failure, link, ctx)
    }

    pub(in crate::v1) fn poll_timeout(&self) -> Option<Deadline> {
        self.flight.poll_timeout("main mode message to repeat")
    }

    /// What a notification in the clear lets us guess.
    fn guess_from(&mut self, header: &Header, message: &[u8], guess: impl Fn(u16) -> Cause) -> Result<(), Rejected> {
        for kind in info::clear_errors(header, message)? {
            self.guess(guess(kind));
        }
        Ok(())
    }
}

/// The methods that are alike in all three states.
macro_rules! common {
    ($state:ident) => {
        impl $state {
            pub(in crate::v1) fn handle_timeout(mut self: Box<Self>, link: &mut Link, ctx: &mut Context<'_>) -> State {
                match self.attempt.handle_timeout(link, ctx) {
                    Some(sent) => self.attempt.give_up(sent, link, ctx),
                    None => State::$state(self),
                }
            }
        }
    };
}
common!(SaSent);
common!(KeSent);
common!(AuthSent);

impl SaSent {
    pub(in crate::v1) fn handle_main(
        mut self: Box<Self>,
        link: &mut Link,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        match self.read(header, message) {
            Ok(answer) => self.send_key(&answer, link, message, ctx),
            Err(Rejected::NoConnection) => {
                self.attempt.guess(Cause::PeerMisbehaved("it chose a phase 1 proposal that was not offered"));
                ctx.drop(DropReason::Malformed);
                State::SaSent(self)
            }
            Err(reason) => {
                ctx.drop(reason);
                State::SaSent(self)
            }
        }
    }

    /// Reads message 2. `NoConnection` stands for a choice that was not offered.
    fn read(&self, header: &Header, message: &[u8]) -> Result<Answer, Rejected> {
        let chain = clear(header, message)?;
        if header.responder_spi == 0 {
            return Err(Rejected::Malformed);
        }
        let sa = SaPayload::decode(chain.first(payload::SA).ok_or(Rejected::Malformed)?)?;
        let connection = &self.attempt.connection;
        let (suite, lifetime) = phase1::chosen(&sa, &connection.ike).ok_or(Rejected::NoConnection)?;
        let abilities = Abilities::read(&chain).wanted(connection.encapsulation);
        Ok(Answer { responder: header.responder_spi, suite, lifetime, abilities })
    }

    /// Message 2 came: sends message 3.
    fn send_key(self: Box<Self>, answer: &Answer, link: &mut Link, message: &[u8], ctx: &mut Context<'_>) -> State {
        let Self { mut attempt, sa } = *self;
        let &Answer { responder, suite, lifetime, abilities } = answer;
        link.cookies.responder = responder;
        let key_pair = KeyPair::generate(suite.group, ctx.random);
        let nonce = keys::nonce(ctx.random);
        let mut payloads = Payloads::new().with(payload::KEY_EXCHANGE, key_pair.public()).with(payload::NONCE, &nonce);
        if let Some(dialect) = abilities.nat_t {
            let (cookies, encapsulation) = (link.cookies, attempt.connection.encapsulation);
            payloads = vendor::detect(payloads, dialect, suite.hash, cookies, link.ends, encapsulation, ctx.random);
        }
        let bytes = encode(link.cookies.header(exchange::MAIN, 0), &payloads);
        attempt.flight = Flight::ask(link.ends, bytes, Some(message), ctx);
        attempt.hint = None;
        State::KeSent(Box::new(KeSent { attempt, sa, suite, lifetime, abilities, key_pair, nonce }))
    }

    /// An informational message before the responder has chosen: a refusal, perhaps.
    pub(in crate::v1) fn handle_info(&mut self, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        let guess = |kind| match kind {
            notify::NO_PROPOSAL_CHOSEN => Cause::NoIkeProposal,
            kind => Cause::PeerSaid(notify::name(kind).into()),
        };
        if let Err(reason) = self.attempt.guess_from(header, message, guess) {
            ctx.drop(reason);
        }
    }
}

impl KeSent {
    pub(in crate::v1) fn handle_main(
        self: Box<Self>,
        link: &mut Link,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        if self.attempt.flight.answer_again(link.ends, message, ctx) {
            return State::KeSent(self);
        }
        match self.read(link, header, message) {
            Ok((exchanged, nat)) => self.send_proof(exchanged, nat, link, message, ctx),
            Err(reason) => {
                ctx.drop(reason);
                State::KeSent(self)
            }
        }
    }

    /// Reads message 4, and computes what both share.
    fn read(&self, link: &Link, header: &Header, message: &[u8]) -> Result<(Exchanged, Nat), Rejected> {
        let chain = clear(header, message)?;
        let (key, nonce) = key_and_nonce(&chain)?;
        let shared = self.key_pair.agree(key).map_err(|_| Rejected::Malformed)?;
        let exchanged = Exchanged {
            suite: self.suite,
            cookies: link.cookies,
            sa: self.sa.clone(),
            public: (self.key_pair.public().to_vec(), key.to_vec()),
            nonces: (self.nonce.to_vec(), nonce.to_vec()),
            shared,
        };
        let nat = self.abilities.nat_t.map_or_else(Nat::default, |dialect| {
            let encapsulation = self.attempt.connection.encapsulation;
            vendor::detected(&chain, dialect, self.suite.hash, link.cookies, link.ends, encapsulation)
        });
        Ok((exchanged, nat))
    }

    /// Message 4 came: sends message 5.
    fn send_proof(
        self: Box<Self>,
        exchanged: Exchanged,
        nat: Nat,
        link: &mut Link,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let Self { mut attempt, lifetime, abilities, .. } = *self;
        let Some(psk) = attempt.connection.psk.first() else {
            let failure = attempt.failure(Cause::WrongPsk, Side::Ours);
            return attempt.fail(failure, link, ctx);
        };
        if nat.is_found() {
            link.float(ctx.options.ports);
        }
        let skeyid = exchanged.with_psk(psk);
        let id = encode_identity(&attempt.connection.local_id(link.ends.local.ip()));
        let proof = exchanged.proof(&skeyid, true, &id);
        let mut payloads = Payloads::new().with(payload::ID, &id).with(payload::HASH, proof.expose());
        // A renewal is not a first contact, nor is the second of two that both sides began at once: the peer would take
        // down what is to go on.
        if ctx.first_contact && !attempt.is_renewal && attempt.connection.uniqueness != Uniqueness::Never {
            let cookies = link.cookies.bytes();
            let kind = notify::INITIAL_CONTACT;
            let note = Notify { protocol: protocol::ISAKMP, spi: &cookies, kind, data: &[] };
            payloads = payloads.with(payload::NOTIFY, &note.encode());
        }
        let (bytes, last_block) = skeyid.keys.seal(&exchanged.iv(), link.cookies.header(exchange::MAIN, 0), &payloads);
        attempt.flight = Flight::ask(link.ends, bytes, Some(message), ctx);
        attempt.hint = None;
        let dpd = abilities.dpd;
        State::AuthSent(Box::new(AuthSent { attempt, exchanged, skeyid, lifetime, dpd, nat, last_block }))
    }

    /// An informational message in the middle of the key exchange: a refusal, perhaps.
    pub(in crate::v1) fn handle_info(&mut self, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        let guess = |kind| match kind {
            notify::INVALID_KEY_INFORMATION => Cause::NoGroup { wanted: None },
            kind => Cause::PeerSaid(notify::name(kind).into()),
        };
        if let Err(reason) = self.attempt.guess_from(header, message, guess) {
            ctx.drop(reason);
        }
    }
}

impl AuthSent {
    pub(in crate::v1) fn handle_main(
        mut self: Box<Self>,
        link: &mut Link,
        ends: Ends,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        if self.attempt.flight.answer_again(link.ends, message, ctx) {
            return State::AuthSent(self);
        }
        match self.verify(message) {
            Ok(verified) => {
                link.ends = ends;
                self.establish(verified, link, ctx)
            }
            Err(reason) => {
                self.attempt.guess(Cause::WrongPsk);
                ctx.drop(reason);
                State::AuthSent(self)
            }
        }
    }

    /// Decrypts message 6 and verifies HASH_R.
    fn verify(&self, message: &[u8]) -> Result<Verified, Rejected> {
        let header = Header::decode(message)?;
        let (plain, last_block) = self.skeyid.keys.open(&self.last_block, message)?;
        let chain =
            Chain::decode(header.next_payload, &plain, Padding::Encrypted).map_err(|_| Rejected::NotAuthentic)?;
        let (Some(id), Some(hash)) = (chain.first(payload::ID), chain.first(payload::HASH)) else {
            return Err(Rejected::NotAuthentic);
        };
        if self.exchanged.proof(&self.skeyid, false, id) != hash.into() {
            return Err(Rejected::NotAuthentic);
        }
        let identity = Id::decode(id).ok().and_then(|id| decode_identity(&id));
        Ok(Verified { identity, initial_contact: has_initial_contact(&chain), last_block })
    }

    /// Message 6 is authentic: the peer has our key, but it must be who it should be as well.
    fn establish(self: Box<Self>, verified: Verified, link: &mut Link, ctx: &mut Context<'_>) -> State {
        let Self { attempt, skeyid, lifetime, dpd, nat, .. } = *self;
        let expected = attempt.connection.remote_id();
        let remote_id = match verified.identity {
            Some(id) if id.fits(&expected) != IdentityMatch::No => id,
            other => {
                let kind = notify::INVALID_ID_INFORMATION;
                let refusal = refuse(link, &skeyid.keys, &verified.last_block, kind, ctx);
                ctx.transmit(link.ends, &refusal);
                let bye = info::delete_isakmp(link, &skeyid.keys, &verified.last_block, ctx);
                ctx.transmit(link.ends, &bye);
                let got = other.unwrap_or(Identity::Any);
                let failure = attempt.failure(Cause::WrongRemoteId { expected, got }, Side::Ours);
                return attempt.fail(failure, link, ctx);
            }
        };
        let outcome = Outcome {
            peer: attempt.peer,
            keys: skeyid.keys,
            last_block: verified.last_block,
            nat,
            peer_has_dpd: dpd,
            local_id: attempt.connection.local_id(link.ends.local.ip()),
            remote_id,
            lifetime,
            children: attempt.children,
            is_renewal: attempt.is_renewal,
            replace_all: verified.initial_contact,
            last_message: None,
        };
        State::Established(Box::new(outcome.establish(&attempt.connection, link, ctx)))
    }

    /// An informational message instead of message 6. Encrypted with our keys it is the responder's word; anything
    /// else is a hint, most likely that its key differs.
    pub(in crate::v1) fn handle_info(
        mut self: Box<Self>,
        link: &mut Link,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let claimed = self.attempt.connection.local_id(link.ends.local.ip());
        if header.flags & crate::wire::v1::flag::ENCRYPTED == 0 {
            let guess = |kind| match kind {
                notify::INVALID_ID_INFORMATION => Cause::PeerRefusedUs { claimed: claimed.clone() },
                notify::AUTHENTICATION_FAILED | notify::PAYLOAD_MALFORMED | notify::INVALID_HASH_INFORMATION => {
                    Cause::WrongPsk
                }
                kind => Cause::PeerSaid(notify::name(kind).into()),
            };
            if let Err(reason) = self.attempt.guess_from(header, message, guess) {
                ctx.drop(reason);
            }
            return State::AuthSent(self);
        }
        let Ok(opened) = info::open(&self.skeyid.keys, &self.last_block, header, message) else {
            self.attempt.guess(Cause::WrongPsk);
            ctx.drop(DropReason::NotAuthentic);
            return State::AuthSent(self);
        };
        match opened.errors().first() {
            Some(&(notify::AUTHENTICATION_FAILED | notify::INVALID_ID_INFORMATION, _)) => {
                let failure = self.attempt.failure(Cause::PeerRefusedUs { claimed }, Side::Theirs);
                self.attempt.fail(failure, link, ctx)
            }
            Some(&(kind, _)) => {
                let failure = self.attempt.failure(Cause::PeerSaid(notify::name(kind).into()), Side::Theirs);
                self.attempt.fail(failure, link, ctx)
            }
            None => State::AuthSent(self),
        }
    }

    pub(in crate::v1) const fn suite(&self) -> Suite {
        self.exchanged.suite
    }

    pub(in crate::v1) const fn nat(&self) -> Nat {
        self.nat
    }
}

impl KeSent {
    pub(in crate::v1) const fn suite(&self) -> Suite {
        self.suite
    }
}
