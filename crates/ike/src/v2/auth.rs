//! IKE_AUTH with pre-shared keys (RFC 7296 §1.2, §2.15), and the first Child SA that comes with it.

use std::sync::Arc;

use base::{Deadline, Instant, Secret};
use crypto::{PrfKey, prf};
use model::{Connection, Identity, IdentityMatch, Version};

use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Event};
use crate::failure::{Cause, Failure, Offer, Side};
use crate::peer::{Peer, PeerId, Peers};
use crate::wire::header::Header;
use crate::wire::v2::{AUTH_SHARED_KEY, Auth, Body, Message, NotifyType, exchange, flags};

use super::child::{self, Pending};
use super::established::{Established, Parts};
use super::fragment::{Channel, Packets};
use super::init::{HalfOpen, fail};
use super::keys::{IkeSuite, ProofKeys, Verified};
use super::propose::allows_ike;
use super::sync::Agreed;
use super::{Core, Repetition, State, id_body, identity};

/// What IKE_SA_INIT leaves for the proofs.
pub(super) struct InitExchange {
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) nonce_i: Box<[u8]>,
    pub(super) nonce_r: Box<[u8]>,
    pub(super) proof: ProofKeys,
}

impl InitExchange {
    /// RFC 7296 §2.15: prf(prf(key, "Key Pad for IKEv2"), octets), where the octets are the side's own first
    /// message, the other's nonce, and the PRF of its identity.
    fn proof(&self, suite: IkeSuite, psk: &Secret, id_body: &[u8], of_initiator: bool) -> Secret {
        let (message, nonce, key) = if of_initiator {
            (&self.request, &self.nonce_r, &self.proof.initiator)
        } else {
            (&self.response, &self.nonce_i, &self.proof.responder)
        };
        let padded = prf(suite.prf, psk.expose(), &[b"Key Pad for IKEv2"]);
        let identity = prf(suite.prf, key.expose(), &[id_body]);
        PrfKey::new(suite.prf, padded.expose()).compute(&[message, nonce, identity.expose()])
    }

    /// Which of the keys makes this proof.
    fn verify<'k>(
        &self,
        suite: IkeSuite,
        psks: &'k [Secret],
        id_body: &[u8],
        of_initiator: bool,
        proof: &[u8],
    ) -> Option<&'k Secret> {
        let claimed = Secret::from(proof);
        psks.iter().find(|psk| self.proof(suite, psk, id_body, of_initiator) == claimed)
    }
}

/// We sent IKE_AUTH and wait for the answer.
pub(super) struct AuthSent {
    channel: Channel,
    init: InitExchange,
    packets: Packets,
    repetition: Repetition,
    local_id: Identity,
    first_child: Option<Pending>,
    /// Children to bring up once this one is.
    wanted: Vec<Arc<str>>,
}

impl std::fmt::Debug for AuthSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthSent({}, sent {})", self.suite(), self.repetition.sent + 1)
    }
}

impl AuthSent {
    /// a -- IKE_AUTH { IDi, IDr, AUTH, SA, TSi, TSr } -> b
    pub(super) fn start(
        core: &mut Core,
        connection: &Arc<Connection>,
        mut channel: Channel,
        init: InitExchange,
        mut wanted: Vec<Arc<str>>,
        ctx: &mut Context<'_>,
    ) -> State {
        let local_id = connection.local_id(core.ends.local.ip());
        let id = id_body(&local_id);
        let nothing = Secret::default();
        let psk = connection.psk.first().unwrap_or(&nothing);
        let proof = init.proof(channel.keys.suite(), psk, &id, true);
        let mut body = Body::new();
        body.id(true, &id);
        if ctx.first_contact {
            body.notify(NotifyType::INITIAL_CONTACT, &[]);
        }
        let remote_id = connection.remote_id();
        if remote_id != Identity::Any {
            body.id(false, &id_body(&remote_id));
        }
        body.auth(AUTH_SHARED_KEY, proof.expose());
        // RFC 6311 §4: whoever may be a cluster, or have one as its peer, has to say so first.
        Agreed::BOTH.say(&mut body);
        // The exchange always makes a Child SA; when none is wanted by name it is the first one configured.
        let first = wanted.first().and_then(|name| connection.children.iter().find(|child| *child.name == **name));
        let first_child = first.or(connection.children.first()).map(|child| {
            let pending = Pending::new(child, None, ctx);
            pending.offer(child, false, &mut body);
            pending
        });
        if !wanted.is_empty() {
            wanted.remove(0);
        }
        let header = core.header(exchange::AUTH, 1, false);
        let packets = channel.seal(header, &body, ctx.options.fragment_size, ctx.random);
        core.send(core.ends, &packets, ctx);
        let repetition = Repetition::start(ctx.options, ctx.now);
        State::AuthSent(Box::new(Self { channel, init, packets, repetition, local_id, first_child, wanted }))
    }

    pub(super) fn suite(&self) -> IkeSuite {
        self.channel.keys.suite()
    }

    /// Remembers a child to bring up.
    pub(super) fn want(&mut self, child: &str) {
        let is_first = self.first_child.as_ref().is_some_and(|first| *first.name == *child);
        if !is_first && !self.wanted.iter().any(|wanted| **wanted == *child) {
            self.wanted.push(child.into());
        }
    }

    /// Frees what was set aside.
    pub(super) fn abandon(self, ctx: &mut Context<'_>) {
        if let Some(child) = self.first_child {
            child.abandon(ctx);
        }
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        Deadline { at: self.repetition.at, why: "IKE_AUTH is repeated" }
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, core: &mut Core, ctx: &mut Context<'_>) -> State {
        match self.repetition.due(ctx.options, ctx.now) {
            None => State::AuthSent(self),
            Some(true) => {
                ctx.counters.retransmitted += 1;
                core.send(core.ends, &self.packets, ctx);
                State::AuthSent(self)
            }
            Some(false) => {
                let cause = Cause::NoAnswer { sent: self.repetition.sent };
                self.refuse(core, Failure::new(cause, Side::Ours, core.connection.as_deref()), ctx)
            }
        }
    }

    fn refuse(self: Box<Self>, core: &Core, failure: Failure, ctx: &mut Context<'_>) -> State {
        self.abandon(ctx);
        fail(core, failure, ctx)
    }

    pub(super) fn handle_message(
        mut self: Box<Self>,
        core: &mut Core,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let is_due = header.exchange == exchange::AUTH && header.message_id == 1;
        if !core.is_named_by(header) || !is_due || header.flags & flags::RESPONSE == 0 {
            ctx.drop(DropReason::OutOfOrder);
            return State::AuthSent(self);
        }
        let assembled = self.channel.open(header, message).and_then(|piece| self.channel.assemble(piece));
        match assembled {
            Ok(None) => State::AuthSent(self),
            Ok(Some(verified)) => {
                if core.nat.theirs {
                    core.ends = ends;
                }
                self.on_response(core, &verified, ctx)
            }
            Err(reason) => {
                ctx.drop(reason);
                State::AuthSent(self)
            }
        }
    }

    /// a <- IKE_AUTH { IDr, AUTH, SA, TSi, TSr } -- b
    fn on_response(mut self: Box<Self>, core: &mut Core, verified: &Verified, ctx: &mut Context<'_>) -> State {
        let (Some(connection), Some(peer)) = (core.connection.clone(), core.peer) else { return State::AuthSent(self) };
        let misbehaved = |how| Failure::new(Cause::PeerMisbehaved(how), Side::Ours, Some(&connection));
        let message = match Message::decode(verified.first, &verified.plain) {
            Ok(message) if message.unknown_critical.is_none() => message,
            Ok(_) => return self.refuse(core, misbehaved("a critical payload in IKE_AUTH is not known"), ctx),
            Err(_) => return self.refuse(core, misbehaved("its IKE_AUTH is malformed"), ctx),
        };
        let (id_r, auth) = match (&message.id_r, message.auth) {
            (Some(id_r), Some(auth)) => (id_r, auth),
            (_, None) if message.error().is_some() => {
                let cause = match message.error().map(|error| error.kind) {
                    Some(NotifyType::AUTHENTICATION_FAILED) | None => {
                        Cause::PeerRefusedUs { claimed: self.local_id.clone() }
                    }
                    Some(other) => Cause::PeerSaid(other.to_string().into()),
                };
                return self.refuse(core, Failure::new(cause, Side::Theirs, Some(&connection)), ctx);
            }
            (_, _) => return self.refuse(core, misbehaved("its IKE_AUTH has no proof of identity"), ctx),
        };
        let remote_id = identity(id_r);
        let proved = self.prove(&connection, &remote_id, id_r.body, auth);
        if let Err(cause) = proved {
            self.tell_refusal(core, ctx);
            return self.refuse(core, Failure::new(cause, Side::Ours, Some(&connection)), ctx);
        }
        let this = *self;
        let parts = Parts {
            channel: this.channel,
            peer,
            connection,
            local_id: this.local_id,
            remote_id,
            next_request: 2,
            expected: 0,
        };
        let mut established = Established::new(parts, ctx);
        established.heed_window(&message);
        established.sync.agreed = Agreed::of(&message);
        announce(core, &established, message.notify(NotifyType::INITIAL_CONTACT).is_some(), ctx);
        if let Some(pending) = this.first_child {
            let nonces = (&this.init.nonce_i[..], &this.init.nonce_r[..]);
            established.first_child(core, pending, &message, nonces, ctx);
        }
        this.wanted.iter().for_each(|name| established.want_child(name, ctx.now));
        established.pump(core, ctx);
        State::Established(Box::new(established))
    }

    fn prove(&self, connection: &Connection, id: &Identity, body: &[u8], auth: Auth<'_>) -> Result<(), Cause> {
        let expected = connection.remote_id();
        if id.fits(&expected) == IdentityMatch::No {
            return Err(Cause::WrongRemoteId { expected, got: id.clone() });
        }
        if auth.method != AUTH_SHARED_KEY {
            return Err(Cause::RefusedExchange("the peer proves itself otherwise than with a pre-shared key"));
        }
        let verified = self.init.verify(self.suite(), &connection.psk, body, false, auth.data);
        if verified.is_some() { Ok(()) } else { Err(Cause::WrongPsk) }
    }

    /// RFC 7296 §2.21.2: the responder holds the IKE SA for established, so it is told. Once, without waiting for
    /// an answer: whoever did not prove itself gets no more state than that.
    fn tell_refusal(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let mut body = Body::new();
        body.notify(NotifyType::AUTHENTICATION_FAILED, &[]);
        let header = core.header(exchange::INFORMATIONAL, 2, false);
        let packets = self.channel.seal(header, &body, ctx.options.fragment_size, ctx.random);
        core.send(core.ends, &packets, ctx);
    }
}

/// Tells that the IKE SA is up.
fn announce(core: &Core, established: &Established, replace_all: bool, ctx: &mut Context<'_>) {
    ctx.counters.established += 1;
    ctx.signals.push(Signal::Established { peer: established.peer, replace_all });
    ctx.tell(ike_up(core, established, false));
}

pub(super) fn ike_up(core: &Core, established: &Established, rekeyed: bool) -> Event {
    Event::IkeUp {
        peer: established.peer,
        version: Version::V2,
        local_id: established.local_id.clone(),
        remote_id: established.remote_id.clone(),
        path: (core.ends.local, core.ends.remote),
        suite: established.suite().to_string().into(),
        rekeyed,
    }
}

/// Who the peer turned out to be.
struct Identified {
    peer: PeerId,
    connection: Arc<Connection>,
    remote_id: Identity,
    /// The key it proved itself with.
    psk: Secret,
}

/// a -- IKE_AUTH { IDi, IDr, AUTH, SA, TSi, TSr } -> b
/// a <- IKE_AUTH { IDr, AUTH, SA, TSi, TSr } | { N(AUTHENTICATION_FAILED) } -- b
pub(super) fn on_request(half: HalfOpen, core: &mut Core, verified: &Verified, ctx: &mut Context<'_>) -> State {
    let suite = half.suite();
    let current = core.connection.clone();
    let message = match Message::decode(verified.first, &verified.plain) {
        Ok(message) => message,
        Err(_) => {
            let cause = Cause::PeerMisbehaved("its IKE_AUTH is malformed");
            let failure = Failure::new(cause, Side::Ours, current.as_deref());
            return Refused::answer(half, core, (NotifyType::INVALID_SYNTAX, &[]), failure, ctx);
        }
    };
    if let Some(unknown) = message.unknown_critical {
        let cause = Cause::PeerMisbehaved("a critical payload in IKE_AUTH is not known");
        let failure = Failure::new(cause, Side::Ours, current.as_deref());
        let said = (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[unknown][..]);
        return Refused::answer(half, core, said, failure, ctx);
    }
    let identified = match identify(&half.init, suite, core.ends, &message, ctx.peers) {
        Ok(identified) => identified,
        Err(failure) => {
            return Refused::answer(half, core, (NotifyType::AUTHENTICATION_FAILED, &[]), *failure, ctx);
        }
    };
    accept(half, core, identified, &message, ctx)
}

fn accept(
    half: HalfOpen,
    core: &mut Core,
    identified: Identified,
    message: &Message<'_>,
    ctx: &mut Context<'_>,
) -> State {
    let HalfOpen { channel, init, .. } = half;
    let Identified { peer, connection, remote_id, psk } = identified;
    (core.peer, core.connection) = (Some(peer), Some(connection.clone()));
    let local_id = connection.local_id(core.ends.local.ip());
    let id = id_body(&local_id);
    let mut body = Body::new();
    // With the key that the peer proved itself with: while a key is being changed it may know no other.
    body.id(false, &id).auth(AUTH_SHARED_KEY, init.proof(channel.keys.suite(), &psk, &id, false).expose());

    let parts = Parts { channel, peer, connection, local_id, remote_id, next_request: 0, expected: 1 };
    let mut established = Established::new(parts, ctx);
    established.heed_window(message);
    established.sync.agreed = Agreed::of(message);
    established.sync.agreed.say(&mut body);
    announce(core, &established, message.notify(NotifyType::INITIAL_CONTACT).is_some(), ctx);
    let ask = child::Ask { nonces: Some((&init.nonce_i, &init.nonce_r)), only: None, replaces: None };
    let installed = message.sa.is_some().then(|| established.grant_child(core, message, ask, &mut body, ctx)).flatten();
    established.respond(core, core.ends, exchange::AUTH, &body, ctx);
    if let Some(id) = installed {
        established.activate(id, ctx);
    }
    State::Established(Box::new(established))
}

/// Finds the connection whose peer this is, and checks the proof.
fn identify(
    init: &InitExchange,
    suite: IkeSuite,
    ends: Ends,
    message: &Message<'_>,
    peers: &Peers,
) -> Result<Identified, Box<Failure>> {
    let candidates = peers.candidates(ends.local.ip(), ends.remote.ip(), Version::V2);
    let only = if let [only] = candidates.as_slice() { Some(&*only.connection) } else { None };
    let failure = |cause, connection: Option<&Connection>| Box::new(Failure::new(cause, Side::Ours, connection));
    let Some(id_i) = &message.id_i else {
        return Err(failure(Cause::PeerMisbehaved("its IKE_AUTH has no identity"), only));
    };
    let theirs = identity(id_i);
    let wanted = message.id_r.as_ref().map(identity);
    let fitting = Peers::identified(&candidates, &theirs, wanted.as_ref(), ends.local.ip());
    let Some(first) = fitting.first() else {
        return Err(unknown(&candidates, theirs, wanted, ends));
    };
    let best = Some(&*first.connection);
    let Some(auth) = message.auth else {
        return Err(failure(Cause::RefusedExchange("the peer wants EAP instead of a pre-shared key"), best));
    };
    if auth.method != AUTH_SHARED_KEY {
        let cause = Cause::RefusedExchange("the peer proves itself otherwise than with a pre-shared key");
        return Err(failure(cause, best));
    }
    // The suite was chosen before the peer said who it is: a connection that does not allow it cannot be meant.
    let allowing: Vec<_> = fitting.iter().filter(|peer| allows_ike(&peer.connection.ike, suite)).collect();
    if allowing.is_empty() {
        let ours = first.connection.ike.iter().map(Offer::from).collect();
        return Err(Box::new(failure(Cause::NoIkeProposal, best).with_offers(ours, Vec::new())));
    }
    let proof = |peer: &Peer| init.verify(suite, &peer.connection.psk, id_i.body, true, auth.data).cloned();
    match allowing.iter().find_map(|peer| Some((peer, proof(peer)?))) {
        Some((peer, psk)) => {
            Ok(Identified { peer: peer.id, connection: peer.connection.clone(), remote_id: theirs, psk })
        }
        None => Err(failure(Cause::WrongPsk, best)),
    }
}

/// Says which identity it is that no connection fits.
fn unknown(candidates: &[&Peer], theirs: Identity, wanted: Option<Identity>, ends: Ends) -> Box<Failure> {
    let expects = |peer: &&&Peer| theirs.fits(&peer.connection.remote_id()) != IdentityMatch::No;
    let (cause, connection) = if let (Some(peer), Some(wanted)) = (candidates.iter().find(expects), wanted) {
        let ours = peer.connection.local_id(ends.local.ip());
        (Cause::WrongLocalId { ours, wanted }, Some(&peer.connection))
    } else if let [only] = candidates {
        (Cause::WrongRemoteId { expected: only.connection.remote_id(), got: theirs }, Some(&only.connection))
    } else {
        (Cause::UnknownPeer { claimed: Some(theirs) }, None)
    };
    Box::new(Failure::new(cause, Side::Ours, connection.map(|connection| &**connection)))
}

/// We refused IKE_AUTH. The refusal is kept for a while, for it may get lost.
pub(super) struct Refused {
    channel: Channel,
    packets: Packets,
    until: Instant,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refused(until {})", self.until)
    }
}

impl Refused {
    fn answer(
        half: HalfOpen,
        core: &mut Core,
        said: (NotifyType, &[u8]),
        failure: Failure,
        ctx: &mut Context<'_>,
    ) -> State {
        let mut channel = half.channel;
        let mut body = Body::new();
        body.notify(said.0, said.1);
        let header = core.header(exchange::AUTH, 1, true);
        let packets = channel.seal(header, &body, ctx.options.fragment_size, ctx.random);
        core.send(core.ends, &packets, ctx);
        ctx.fail(core.peer, core.ends.remote, failure);
        State::Refused(Box::new(Self { channel, packets, until: half.deadline }))
    }

    pub(super) fn suite(&self) -> IkeSuite {
        self.channel.keys.suite()
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        Deadline { at: self.until, why: "a refused IKE SA is forgotten" }
    }

    pub(super) fn handle_timeout(self: Box<Self>, core: &Core, ctx: &mut Context<'_>) -> State {
        if ctx.now < self.until {
            return State::Refused(self);
        }
        let (peer, reason) = (core.peer, CloseReason::Failed);
        ctx.signals.push(Signal::Closed { peer, reason, again: Again::No });
        State::Closed
    }

    pub(super) fn handle_message(
        self: Box<Self>,
        core: &mut Core,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> State {
        let is_repeated = header.exchange == exchange::AUTH && header.flags & flags::RESPONSE == 0;
        if !core.is_named_by(header) || !is_repeated || header.message_id != 1 {
            ctx.drop(DropReason::OutOfOrder);
            return State::Refused(self);
        }
        match self.channel.open(header, message) {
            Ok(piece) if piece.fragment.is_none_or(|(number, _)| number == 1) => {
                ctx.counters.answered_again += 1;
                core.send(ends, &self.packets, ctx);
            }
            Ok(_) => {}
            Err(reason) => ctx.drop(reason),
        }
        State::Refused(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::algorithm::{Encryption, Group, Prf};

    fn bytes(digits: &str) -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    /// Computed apart from this code, with HMAC of another library, from RFC 7296 §2.15.
    #[test]
    fn proofs_are_those_of_an_independent_computation() {
        let suite =
            IkeSuite { encryption: Encryption::Aes128Gcm, integrity: None, prf: Prf::Sha256, group: Group::Ecp256 };
        let init = InitExchange {
            request: b"first message of the initiator".to_vec(),
            response: b"first message of the responder".to_vec(),
            nonce_i: (0..32).collect(),
            nonce_r: (32..64).collect(),
            proof: ProofKeys {
                initiator: bytes("5f611705f974605e3787f2aa142cf77df5b17c46f93ffab94ef8976caba4a957").into(),
                responder: bytes("3ced1c4a111c5aa008b1e5b6159e7dcc2dc48d55e97f857d58a7f96c3e0e950e").into(),
            },
        };
        let psk = Secret::from(&b"a shared secret"[..]);
        let id_i = id_body(&Identity::Fqdn("a.example".into()));
        let id_r = id_body(&Identity::Ip([192, 0, 2, 1].into()));
        let of_i = bytes("2cd2f886cb9abb84e76b723e25a3e80d464451d1634a5d4ae773a15184ea12e6");
        let of_r = bytes("256c110cb1da8a337b83edea424cc4e0d70969a9b0bf5665dcda98c35638b24c");
        assert!(init.verify(suite, &[Secret::from(&b"no"[..]), psk.clone()], &id_i, true, &of_i).is_some());
        assert_eq!(init.proof(suite, &psk, &id_r, false).expose(), of_r);
        assert!(init.verify(suite, &[psk], &id_r, true, &of_i).is_none());
    }
}
