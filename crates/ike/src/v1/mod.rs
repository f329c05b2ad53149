//! IKEv1 sessions (RFC 2407, 2408, 2409): main mode with pre-shared keys, quick mode, informational exchanges, NAT
//! traversal (RFC 3947 and drafts 02, 03), dead peer detection (RFC 3706).
//!
//! A [`Session`] is an ISAKMP SA from its first message to its end. Main mode walks through [`State`] one message a
//! state; an established session ([`established`]) owns its Child SAs ([`children`]), negotiates them
//! ([`quick`]) and speaks of them ([`info`]), and probes the path ([`probe`]). Phase 1 is not rekeyed but negotiated anew: the endpoint hands the
//! children over to the successor.
//!
//! Refused with a reason: aggressive and base mode, XAUTH and mode config, certificates, AH, transport mode. Left out:
//! fragments of IKE messages (Cisco's vendor ID "FRAGMENTATION" is never sent, so no peer makes them), NAT-OA (it
//! serves transport mode only), extended sequence numbers.

mod children;
mod established;
mod export;
mod flight;
mod identity;
mod info;
mod keys;
mod main_mode;
mod phase1;
mod phase2;
mod probe;
mod quick;
mod vendor;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use base::{Deadline, Instant};
use model::{Ports, Version};
use sa::SaId;

use self::children::Child;
use self::established::{Established, Standing};
use self::keys::Cookies;
use self::main_mode::{AuthSent, KeAnswered, KeSent, Refused, SaAnswered, SaSent};
use self::phase1::Suite;
use self::vendor::Nat;
use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Rekey};
use crate::peer::{Peer, PeerId};
use crate::probe::{CannotProbe, Probe};
use crate::session::{Algorithms, IkeSaView, IkeState};
use crate::wire::header::Header;
use crate::wire::v1::{exchange, notify};
use crate::{Cause, Failure, Side};

pub(crate) use self::children::Handover;
pub(crate) use self::export::ExportedSession;

/// An ISAKMP SA.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    state: State,
}

/// What names a session and where its messages go.
#[derive(Clone, Copy, Debug)]
struct Link {
    cookies: Cookies,
    is_initiator: bool,
    ends: Ends,
}

impl Link {
    /// A NAT was found: from now on both sides use the ports that they share with ESP (RFC 3947 §4).
    fn float(&mut self, ports: Ports) {
        self.ends.local.set_port(ports.natt);
        if self.ends.remote.port() == ports.ike {
            self.ends.remote.set_port(ports.natt);
        }
    }
}

/// How far a session is.
#[derive(Debug)]
enum State {
    SaSent(Box<SaSent>),
    KeSent(Box<KeSent>),
    AuthSent(Box<AuthSent>),
    SaAnswered(Box<SaAnswered>),
    KeAnswered(Box<KeAnswered>),
    Refused(Box<Refused>),
    Established(Box<Established>),
    Closed,
}

impl Session {
    /// Begins a negotiation with `peer`; `children` are the names of the children to bring up with it. Without any
    /// it is the renewal of an established session, whose children will be handed over: no INITIAL_CONTACT is sent.
    pub(crate) fn initiate(peer: &Peer, ends: Ends, children: &[Arc<str>], ctx: &mut Context<'_>) -> Self {
        let (link, sent) = main_mode::begin(peer, ends, children, ctx);
        Self { link, state: State::SaSent(Box::new(sent)) }
    }

    /// Goes on in place of another gateway, which may still live.
    pub(crate) fn succeed(&mut self, ctx: &mut Context<'_>) {
        if let State::Established(established) = &mut self.state {
            established.succeed(ctx);
        }
    }

    /// Answers a first message. `None` where no state is kept: refused, malformed, nobody's; answered and counted
    /// here.
    pub(crate) fn respond(ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) -> Option<Self> {
        let refused = match header.exchange {
            exchange::MAIN => {
                let (link, answered) = main_mode::respond(ends, header, message, ctx)?;
                return Some(Self { link, state: State::SaAnswered(Box::new(answered)) });
            }
            exchange::AGGRESSIVE => "aggressive mode: it shows the pre-shared key to whoever guesses; use main mode",
            exchange::BASE => "base mode: use main mode",
            exchange::AUTHENTICATION_ONLY => "authentication only: use main mode",
            _ => {
                ctx.drop(DropReason::UnknownSpi);
                return None;
            }
        };
        ctx.drop(DropReason::RefusedExchange);
        let peers = ctx.peers.candidates(ends.local.ip(), ends.remote.ip(), Version::V1);
        let connection = peers.first().map(|peer| peer.connection.as_ref());
        let failure = Failure::new(Cause::RefusedExchange(refused), Side::Ours, connection);
        let peer = peers.first().map(|peer| peer.id);
        main_mode::refuse_first(ends, header, notify::UNSUPPORTED_EXCHANGE_TYPE, peer, failure, ctx);
        None
    }

    /// Takes the state out, to move it by value; `act` gives the next one.
    fn step(&mut self, act: impl FnOnce(State, &mut Link) -> State) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = act(state, &mut self.link);
    }

    pub(crate) fn handle_message(&mut self, ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        let is_info = header.exchange == exchange::INFORMATIONAL;
        if header.exchange == exchange::MAIN && header.message_id != 0 {
            return ctx.drop(DropReason::Malformed);
        }
        let is_main = header.exchange == exchange::MAIN;
        self.step(|state, link| match state {
            State::SaSent(s) if is_main => s.handle_main(link, header, message, ctx),
            State::KeSent(s) if is_main => s.handle_main(link, header, message, ctx),
            State::AuthSent(s) if is_main => s.handle_main(link, ends, message, ctx),
            State::SaAnswered(s) if is_main => s.handle_main(link, ends, header, message, ctx),
            State::KeAnswered(s) if is_main => s.handle_main(link, ends, message, ctx),
            State::Refused(s) if is_main => {
                s.handle_main(ends, message, ctx);
                State::Refused(s)
            }
            State::SaSent(mut s) if is_info => {
                s.handle_info(header, message, ctx);
                State::SaSent(s)
            }
            State::KeSent(mut s) if is_info => {
                s.handle_info(header, message, ctx);
                State::KeSent(s)
            }
            State::AuthSent(s) if is_info => s.handle_info(link, header, message, ctx),
            State::Established(mut s) => {
                let after = s.handle_message(link, ends, header, message, ctx);
                State::after(s, after)
            }
            state @ (State::SaSent(_)
            | State::KeSent(_)
            | State::AuthSent(_)
            | State::SaAnswered(_)
            | State::KeAnswered(_)
            | State::Refused(_)
            | State::Closed) => {
                ctx.drop(DropReason::OutOfOrder);
                state
            }
        });
    }

    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        self.step(|state, link| match state {
            State::SaSent(s) => s.handle_timeout(link, ctx),
            State::KeSent(s) => s.handle_timeout(link, ctx),
            State::AuthSent(s) => s.handle_timeout(link, ctx),
            State::SaAnswered(s) => s.handle_timeout(ctx),
            State::KeAnswered(s) => s.handle_timeout(ctx),
            State::Refused(s) => s.handle_timeout(ctx),
            State::Established(mut s) => {
                let after = s.handle_timeout(link, ctx);
                State::after(s, after)
            }
            State::Closed => State::Closed,
        });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Deadline> {
        let half_open = |at| Some(Deadline { at, why: "half-open phase 1 to forget" });
        match &self.state {
            State::SaSent(s) => s.attempt.poll_timeout(),
            State::KeSent(s) => s.attempt.poll_timeout(),
            State::AuthSent(s) => s.attempt.poll_timeout(),
            State::SaAnswered(s) => half_open(s.until),
            State::KeAnswered(s) => half_open(s.until),
            State::Refused(s) => half_open(s.until),
            State::Established(s) => s.poll_timeout(),
            State::Closed => None,
        }
    }

    fn established(&mut self) -> Option<(&mut Established, &mut Link)> {
        match &mut self.state {
            State::Established(s) => Some((s, &mut self.link)),
            State::SaSent(_)
            | State::KeSent(_)
            | State::AuthSent(_)
            | State::SaAnswered(_)
            | State::KeAnswered(_)
            | State::Refused(_)
            | State::Closed => None,
        }
    }

    /// The children to bring up with a negotiation of ours.
    fn wanted(&mut self) -> Option<&mut Vec<Arc<str>>> {
        match &mut self.state {
            State::SaSent(s) => Some(&mut s.attempt.children),
            State::KeSent(s) => Some(&mut s.attempt.children),
            State::AuthSent(s) => Some(&mut s.attempt.children),
            State::SaAnswered(_) | State::KeAnswered(_) | State::Refused(_) | State::Established(_) | State::Closed => {
                None
            }
        }
    }

    pub(crate) fn initiate_child(&mut self, child: &str, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.initiate_child(child, link, ctx);
        } else if let Some(wanted) = self.wanted()
            && !wanted.iter().any(|name| **name == *child)
        {
            wanted.push(child.into());
        }
    }

    pub(crate) fn rekey(&mut self, what: Rekey, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.rekey(what, link, ctx);
        }
    }

    pub(crate) fn rekey_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.rekey_child(id, link, ctx);
        }
    }

    pub(crate) fn expire_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.expire_child(id, link, ctx);
        }
    }

    /// Probes the path.
    pub(crate) fn probe(&mut self, probe: Probe, ctx: &mut Context<'_>) -> Result<(), CannotProbe> {
        match self.established() {
            Some((established, link)) => established.probe(probe, link, ctx),
            None => Err(CannotProbe::NoIkeSa),
        }
    }

    pub(crate) fn close_child(&mut self, child: &str, reason: CloseReason, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.close_child(child, reason, link, ctx);
        } else if let Some(wanted) = self.wanted() {
            wanted.retain(|name| **name != *child);
        }
    }

    pub(crate) fn close(&mut self, reason: CloseReason, ctx: &mut Context<'_>) {
        let peer = self.peer();
        self.step(|state, link| match state {
            State::Established(mut s) => {
                let after = s.close(reason, link, ctx);
                State::after(s, after)
            }
            State::SaSent(_)
            | State::KeSent(_)
            | State::AuthSent(_)
            | State::SaAnswered(_)
            | State::KeAnswered(_)
            | State::Refused(_) => {
                ctx.signals.push(Signal::Closed { peer, reason, again: Again::No });
                State::Closed
            }
            State::Closed => State::Closed,
        });
    }

    pub(crate) fn note_alive(&mut self, at: Instant) {
        if let Some((established, _)) = self.established() {
            established.watch.note_alive(at);
        }
    }

    pub(crate) fn note_first_inbound(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.note_first_inbound(id, link, ctx);
        }
    }

    pub(crate) fn note_peer_moved(&mut self, to: SocketAddr, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.note_peer_moved(link, to, ctx);
        }
    }

    /// Gives up the Child SAs, and what was still wanted, to a successor. What remains is to close this session: that
    /// deletes the ISAKMP SA alone. Let some seconds pass before: a peer that reads the delete before the message that
    /// establishes the successor would take it for the end of everything.
    pub(crate) fn take_children(&mut self, ctx: &mut Context<'_>) -> Handover {
        self.established().map_or_else(Handover::default, |(established, _)| established.hand_over(ctx))
    }

    /// Takes over the Child SAs of a predecessor. To be called when this session has said that it is established, in
    /// the same input: then nothing is negotiated twice.
    pub(crate) fn adopt_children(&mut self, handover: Handover, ctx: &mut Context<'_>) {
        if let Some((established, link)) = self.established() {
            established.adopt_children(handover, link, ctx);
        }
    }

    pub(crate) fn local_spi(&self) -> u64 {
        let cookies = self.link.cookies;
        if self.link.is_initiator { cookies.initiator } else { cookies.responder }
    }

    pub(crate) fn remote_spi(&self) -> u64 {
        let cookies = self.link.cookies;
        if self.link.is_initiator { cookies.responder } else { cookies.initiator }
    }

    pub(crate) fn is_initiator(&self) -> bool {
        self.link.is_initiator
    }

    /// Whose it is: known from the start where we began, else when the peer has proved it.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        match &self.state {
            State::SaSent(s) => Some(s.attempt.peer()),
            State::KeSent(s) => Some(s.attempt.peer()),
            State::AuthSent(s) => Some(s.attempt.peer()),
            State::Established(s) => Some(s.peer),
            State::SaAnswered(_) | State::KeAnswered(_) | State::Refused(_) | State::Closed => None,
        }
    }

    pub(crate) fn state(&self) -> IkeState {
        match &self.state {
            State::Established(s) => match s.standing {
                Standing::Current => IkeState::Established,
                Standing::Renewing | Standing::Deleted | Standing::Succeeded => IkeState::Rekeying,
            },
            State::SaSent(_) | State::KeSent(_) | State::AuthSent(_) | State::SaAnswered(_) | State::KeAnswered(_) => {
                IkeState::Connecting
            }
            State::Refused(_) | State::Closed => IkeState::Closing,
        }
    }

    /// The state as a Cisco ASA names it.
    fn state_name(&self) -> &'static str {
        match &self.state {
            State::SaSent(_) => "MM_WAIT_MSG2",
            State::SaAnswered(_) => "MM_WAIT_MSG3",
            State::KeSent(_) => "MM_WAIT_MSG4",
            State::KeAnswered(_) => "MM_WAIT_MSG5",
            State::AuthSent(_) => "MM_WAIT_MSG6",
            State::Established(s) => match s.standing {
                Standing::Current => "MM_ACTIVE",
                Standing::Renewing | Standing::Deleted | Standing::Succeeded => "MM_REKEY",
            },
            State::Refused(_) => "MM_REFUSED",
            State::Closed => "MM_FREE",
        }
    }

    pub(crate) fn child_ids(&self) -> Vec<SaId> {
        match &self.state {
            State::Established(s) => s.children.iter().map(|child| child.id).collect(),
            State::SaSent(_)
            | State::KeSent(_)
            | State::AuthSent(_)
            | State::SaAnswered(_)
            | State::KeAnswered(_)
            | State::Refused(_)
            | State::Closed => Vec::new(),
        }
    }

    /// The suite and what is known of NATs.
    fn agreed(&self) -> (Option<Suite>, Nat) {
        match &self.state {
            State::SaSent(_) | State::Refused(_) | State::Closed => (None, Nat::default()),
            State::KeSent(s) => (Some(s.suite()), Nat::default()),
            State::AuthSent(s) => (Some(s.suite()), s.nat()),
            State::SaAnswered(s) => (Some(s.suite()), Nat::default()),
            State::KeAnswered(s) => (Some(s.suite()), s.nat()),
            State::Established(s) => (Some(s.keys.suite), s.nat),
        }
    }

    pub(crate) fn view(&self) -> IkeSaView {
        let (suite, nat) = self.agreed();
        let mut view = IkeSaView {
            peer: self.peer(),
            version: Version::V1,
            state: self.state(),
            state_name: self.state_name(),
            is_initiator: self.link.is_initiator,
            spis: (self.link.cookies.initiator, self.link.cookies.responder),
            path: (self.link.ends.local, self.link.ends.remote),
            nat: (nat.ours, nat.theirs),
            local_id: None,
            remote_id: None,
            suite: suite.map(|suite| suite.to_string()).unwrap_or_default().into(),
            algorithms: suite.map(|s| Algorithms {
                encryption: s.encryption,
                integrity: None,
                prf: s.hash,
                group: s.group,
            }),
            is_weak: suite.is_some_and(Suite::is_weak),
            established_at: None,
            rekey_at: None,
            expires_at: None,
            children: Vec::new(),
        };
        if let State::Established(s) = &self.state {
            view.local_id = Some(s.local_id.clone());
            view.remote_id = Some(s.remote_id.clone());
            view.suite = Arc::clone(&s.suite_name);
            view.established_at = Some(s.established_at);
            view.rekey_at = s.is_in_charge().then_some(s.renew_at);
            view.expires_at = Some(s.expires_at);
            view.children = s.children.iter().map(Child::view).collect();
        }
        view
    }
}
