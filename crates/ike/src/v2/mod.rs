//! IKEv2 sessions (RFC 7296): one IKE SA each, from the first message to the last.
//!
//! | where | what |
//! | --- | --- |
//! | [`init`] | IKE_SA_INIT: suites, groups, cookies, NAT detection (§1.2, §2.6, §2.7, §2.23) |
//! | [`auth`] | IKE_AUTH with pre-shared keys (§2.15) |
//! | [`established`] | requests and responses (§2.1–2.3), commands, the end |
//! | [`time`] | repetition, liveness, keepalives, lifetimes (§2.4, §2.8, §2.23) |
//! | [`child`] | Child SAs: selectors, keys (§2.9, §2.17) |
//! | [`create`] | CREATE_CHILD_SA: further Child SAs, rekeying them, its collisions (§1.3, §2.8.1, §2.25.1) |
//! | [`rekey`] | rekeying the IKE SA, and its collisions (§1.3.2, §2.8.1, §2.25.2) |
//! | [`info`] | INFORMATIONAL: deletes, liveness (§1.4) |
//! | [`sync`] | message IDs and replay counters after a failover (RFC 6311) |
//! | [`probe`] | probes of the path (RFC 8899) |
//! | [`keys`], [`fragment`] | the Encrypted payload (§3.14, RFC 7383) |
//! | [`propose`] | proposals (§3.3) · [`cookie`] cookies (§2.6) |
//!
//! Left out: certificates and EAP (refused with a reason), configuration payloads, transport mode, IPComp, MOBIKE.

mod auth;
mod child;
mod cookie;
mod create;
mod drain;
mod established;
mod export;
mod fragment;
mod info;
mod init;
mod keys;
mod probe;
mod propose;
mod rekey;
mod sync;
mod time;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant};
use model::{Connection, Encapsulation, Identity, Version};
use sa::{Path, SaId};
use serde::{Deserialize, Serialize};

use crate::context::{Again, Context, Ends, Signal};
use crate::event::{CloseReason, DropReason, Rekey};
use crate::peer::{Options, Peer, PeerId};
use crate::probe::{CannotProbe, Probe};
use crate::session::{Algorithms, IkeSaView, IkeState};
use crate::wire::header::Header;
use crate::wire::v2::{Body, NotifyType, flags, message};

pub(crate) use cookie::Cookies;
pub(crate) use export::ExportedSession;

use auth::{AuthSent, Refused};
use established::{After, Established};
use fragment::Packets;
use init::{HalfOpen, InitSent};

/// One IKE SA.
#[derive(Debug)]
pub(crate) struct Session {
    core: Core,
    state: State,
}

/// What every state has.
#[derive(Debug)]
struct Core {
    is_initiator: bool,
    spi_i: u64,
    spi_r: u64,
    ends: Ends,
    nat: Nat,
    peer: Option<PeerId>,
    connection: Option<Arc<Connection>>,
    /// When anything was sent last, for NAT keepalives.
    last_sent: Instant,
    /// Interval of NAT keepalives.
    keepalive: Duration,
    /// Our port of NAT traversal.
    natt_port: u16,
}

/// Where a NAT was found, and what follows for ESP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Nat {
    ours: bool,
    theirs: bool,
    /// ESP goes in UDP.
    udp: bool,
}

/// How far it is. A state carries its data, and nothing else does.
#[derive(Debug)]
enum State {
    /// We sent IKE_SA_INIT.
    InitSent(Box<InitSent>),
    /// We sent IKE_AUTH.
    AuthSent(Box<AuthSent>),
    /// We answered IKE_SA_INIT.
    HalfOpen(Box<HalfOpen>),
    /// We refused IKE_AUTH and say so again when asked again.
    Refused(Box<Refused>),
    /// Both have proved who they are.
    Established(Box<Established>),
    /// Over.
    Closed,
}

impl Core {
    fn local_spi(&self) -> u64 {
        if self.is_initiator { self.spi_i } else { self.spi_r }
    }

    fn remote_spi(&self) -> u64 {
        if self.is_initiator { self.spi_r } else { self.spi_i }
    }

    /// The header of a message of ours; length and first payload are filled in later.
    fn header(&self, exchange: u8, message_id: u32, is_response: bool) -> Header {
        let initiator = if self.is_initiator { flags::INITIATOR } else { 0 };
        let response = if is_response { flags::RESPONSE } else { 0 };
        Header {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            next_payload: 0,
            major: 2,
            minor: 0,
            exchange,
            flags: initiator | response,
            message_id,
            length: 0,
        }
    }

    /// Whether a message of the peer names this IKE SA and its right side of it.
    fn is_named_by(&self, header: &Header) -> bool {
        let from_initiator = header.flags & flags::INITIATOR != 0;
        (header.initiator_spi, header.responder_spi) == (self.spi_i, self.spi_r) && from_initiator != self.is_initiator
    }

    fn send(&mut self, ends: Ends, packets: &Packets, ctx: &mut Context<'_>) {
        self.last_sent = ctx.now;
        packets.iter().for_each(|packet| ctx.transmit(ends, packet));
    }

    /// Where ESP of this peer goes.
    fn path(&self) -> Path {
        let mut local = self.ends.local;
        if self.nat.udp {
            local.set_port(self.natt_port);
        }
        Path { local, remote: self.ends.remote, udp: self.nat.udp }
    }

    /// Ends a negotiation that did not come to an established IKE SA.
    fn give_up(&self, again: Again, ctx: &mut Context<'_>) -> State {
        ctx.signals.push(Signal::Closed { peer: self.peer, reason: CloseReason::Failed, again });
        State::Closed
    }
}

/// An answer without an IKE SA: it is not encrypted and keeps no state.
fn answer_plainly(ends: Ends, header: &Header, body: &Body, ctx: &mut Context<'_>) {
    let flags = (header.flags & flags::INITIATOR ^ flags::INITIATOR) | flags::RESPONSE;
    let answer = Header { major: 2, minor: 0, flags, ..*header };
    ctx.transmit(ends, &message(answer, body));
}

/// Answers a message of a major version above 2 (RFC 7296 §2.5). Its header is all that is known of it;
/// the caller counts it.
pub(crate) fn refuse_version(ends: Ends, header: &Header, ctx: &mut Context<'_>) {
    if header.major > 2 && header.flags & flags::RESPONSE == 0 {
        let mut body = Body::new();
        body.notify(NotifyType::INVALID_MAJOR_VERSION, &[]);
        answer_plainly(ends, header, &body, ctx);
    }
}

/// Repetition of one request.
#[derive(Clone, Copy, Debug)]
struct Repetition {
    sent: u32,
    at: Instant,
}

impl Repetition {
    fn start(options: &Options, now: Instant) -> Self {
        Self { sent: 0, at: now + options.retransmission.wait(0).unwrap_or_default() }
    }

    /// Whether to send again; `None` while it is not time, `Some(false)` when tries are used up.
    fn due(&mut self, options: &Options, now: Instant) -> Option<bool> {
        if now < self.at {
            return None;
        }
        self.sent += 1;
        match options.retransmission.wait(self.sent) {
            Some(wait) => {
                self.at = now + wait.max(Duration::from_millis(1));
                Some(true)
            }
            None => Some(false),
        }
    }
}

impl Session {
    /// Begins a negotiation with `peer`; `children` are the names of the children to bring up with it.
    pub(crate) fn initiate(peer: &Peer, ends: Ends, children: &[Arc<str>], ctx: &mut Context<'_>) -> Self {
        init::initiate(peer, ends, children, ctx)
    }

    /// Answers a first message. `None` where no state is kept: refused, a cookie asked for, malformed; that is
    /// answered and counted here.
    pub(crate) fn respond(ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) -> Option<Self> {
        init::respond(ends, header, message, ctx)
    }

    /// A datagram that names this session, or repeats the first message that made it.
    pub(crate) fn handle_message(&mut self, ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        let core = &mut self.core;
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::InitSent(state) => state.handle_message(core, ends, header, message, ctx),
            State::AuthSent(state) => state.handle_message(core, ends, header, message, ctx),
            State::HalfOpen(state) => state.handle_message(core, ends, header, message, ctx),
            State::Refused(state) => state.handle_message(core, ends, header, message, ctx),
            State::Established(mut state) => {
                let after = state.handle_message(core, ends, header, message, ctx);
                after.state(state)
            }
            State::Closed => {
                ctx.drop(DropReason::UnknownSpi);
                State::Closed
            }
        };
    }

    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let core = &mut self.core;
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::InitSent(state) => state.handle_timeout(core, ctx),
            State::AuthSent(state) => state.handle_timeout(core, ctx),
            State::HalfOpen(state) => state.handle_timeout(core, ctx),
            State::Refused(state) => state.handle_timeout(core, ctx),
            State::Established(mut state) => {
                let after = state.handle_timeout(core, ctx);
                after.state(state)
            }
            State::Closed => State::Closed,
        };
    }

    pub(crate) fn poll_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::InitSent(state) => Some(state.poll_timeout()),
            State::AuthSent(state) => Some(state.poll_timeout()),
            State::HalfOpen(state) => Some(state.poll_timeout()),
            State::Refused(state) => Some(state.poll_timeout()),
            State::Established(state) => state.poll_timeout(&self.core),
            State::Closed => None,
        }
    }

    /// Negotiates the configured child of this name, unless it is there or under way. Before the session is
    /// established this is remembered.
    pub(crate) fn initiate_child(&mut self, child: &str, ctx: &mut Context<'_>) {
        match &mut self.state {
            State::InitSent(state) => state.want(child),
            State::AuthSent(state) => state.want(child),
            State::Established(state) => state.initiate_child(&mut self.core, child, ctx),
            State::HalfOpen(_) | State::Refused(_) | State::Closed => {}
        }
    }

    pub(crate) fn rekey(&mut self, what: Rekey, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.rekey(&mut self.core, what, ctx);
        }
    }

    pub(crate) fn rekey_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.rekey_child(&mut self.core, id, ctx);
        }
    }

    pub(crate) fn expire_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.expire_child(&mut self.core, id, ctx);
        }
    }

    /// Tells the peer that a child is drained, or is not any more; whether it will be told.
    pub(crate) fn drain(&mut self, child: &Arc<str>, is_drained: bool, ctx: &mut Context<'_>) -> bool {
        let State::Established(state) = &mut self.state else { return false };
        state.drain(&mut self.core, child, is_drained, ctx);
        true
    }

    pub(crate) fn close_child(&mut self, child: &str, reason: CloseReason, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.close_child(&mut self.core, child, &reason, ctx);
        }
    }

    /// Deletes the IKE SA and its children, and tells the peer. Ends in `Signal::Closed`, at once or when the peer
    /// has answered. Before the IKE SA is established there is nothing that the peer could be told.
    pub(crate) fn close(&mut self, reason: CloseReason, ctx: &mut Context<'_>) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Established(mut state) => {
                let after = state.close(&mut self.core, reason, ctx);
                after.state(state)
            }
            State::AuthSent(state) => {
                state.abandon(ctx);
                self.core.closed(reason, ctx)
            }
            State::InitSent(_) | State::HalfOpen(_) | State::Refused(_) => self.core.closed(reason, ctx),
            State::Closed => State::Closed,
        };
    }

    /// Goes on in place of another gateway, which may still live.
    pub(crate) fn succeed(&mut self, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.succeed(&mut self.core, ctx);
        }
    }

    /// The other gateway that knew this IKE SA is lost: it may have sealed, and may get the answers to what is asked.
    pub(crate) fn keep_off(&mut self) {
        if let State::Established(state) = &mut self.state {
            state.channel.keys.keep_off();
            state.channel.keys.keep_off();
        }
    }

    /// Probes the path.
    pub(crate) fn probe(&mut self, probe: Probe, ctx: &mut Context<'_>) -> Result<(), CannotProbe> {
        match &mut self.state {
            State::Established(state) => state.probe(&mut self.core, probe, ctx),
            State::InitSent(_) | State::AuthSent(_) | State::HalfOpen(_) | State::Refused(_) | State::Closed => {
                Err(CannotProbe::NoIkeSa)
            }
        }
    }

    /// The peer sent an authentic ESP packet.
    pub(crate) fn note_alive(&mut self, now: Instant) {
        if let State::Established(state) = &mut self.state {
            state.note_alive(now);
        }
    }

    /// The first packet arrived on this SA: the peer uses it.
    pub(crate) fn note_first_inbound(&mut self, id: SaId, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            state.activate(id, ctx);
        }
    }

    /// An authentic ESP packet came from a new address.
    pub(crate) fn note_peer_moved(&mut self, to: SocketAddr, ctx: &mut Context<'_>) {
        if let State::Established(state) = &mut self.state {
            let ends = Ends { local: self.core.ends.local, remote: to };
            state.follow(&mut self.core, ends, ctx);
        }
    }

    pub(crate) fn local_spi(&self) -> u64 {
        self.core.local_spi()
    }

    pub(crate) fn remote_spi(&self) -> u64 {
        self.core.remote_spi()
    }

    pub(crate) fn is_initiator(&self) -> bool {
        self.core.is_initiator
    }

    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.core.peer
    }

    pub(crate) fn state(&self) -> IkeState {
        match &self.state {
            State::InitSent(_) | State::AuthSent(_) | State::HalfOpen(_) => IkeState::Connecting,
            State::Refused(_) | State::Closed => IkeState::Closing,
            State::Established(state) => state.state(),
        }
    }

    /// The Child SAs that it owns.
    pub(crate) fn child_ids(&self) -> Vec<SaId> {
        match &self.state {
            State::Established(state) => state.child_ids(),
            State::InitSent(_) | State::AuthSent(_) | State::HalfOpen(_) | State::Refused(_) | State::Closed => {
                Vec::new()
            }
        }
    }

    pub(crate) fn view(&self) -> IkeSaView {
        let core = &self.core;
        let mut view = IkeSaView {
            peer: core.peer,
            version: Version::V2,
            state: self.state(),
            state_name: "CLOSED",
            is_initiator: core.is_initiator,
            spis: (core.spi_i, core.spi_r),
            path: (core.ends.local, core.ends.remote),
            nat: (core.nat.ours, core.nat.theirs),
            local_id: None,
            remote_id: None,
            suite: Arc::from(""),
            algorithms: None,
            is_weak: false,
            established_at: None,
            rekey_at: None,
            expires_at: None,
            children: Vec::new(),
        };
        let suite = match &self.state {
            State::InitSent(_) | State::Closed => None,
            State::AuthSent(state) => Some(state.suite()),
            State::HalfOpen(state) => Some(state.suite()),
            State::Refused(state) => Some(state.suite()),
            State::Established(state) => {
                state.describe(core, &mut view);
                Some(state.suite())
            }
        };
        if let Some(suite) = suite {
            view.suite = suite.to_string().into();
            view.is_weak = suite.is_weak();
            let keys::IkeSuite { encryption, integrity, prf, group } = suite;
            view.algorithms = Some(Algorithms { encryption, integrity, prf, group });
        }
        view.state_name = match &self.state {
            State::InitSent(_) => "SA_INIT_SENT",
            State::AuthSent(_) => "AUTH_SENT",
            State::HalfOpen(_) => "SA_INIT_ANSWERED",
            State::Refused(_) => "REFUSED",
            State::Established(state) => state.state_name(),
            State::Closed => "CLOSED",
        };
        view
    }
}

impl Core {
    fn closed(&self, reason: CloseReason, ctx: &mut Context<'_>) -> State {
        ctx.signals.push(Signal::Closed { peer: self.peer, reason, again: Again::No });
        State::Closed
    }

    /// What `connection` wants of ESP: whether NAT detection is spoken, and whether it is made to see a NAT.
    fn encapsulation(connection: &Connection) -> (bool, bool) {
        match connection.encapsulation {
            Encapsulation::Auto => (true, false),
            Encapsulation::Force => (true, true),
            Encapsulation::Never => (false, false),
        }
    }
}

impl After {
    fn state(self, established: Box<Established>) -> State {
        match self {
            Self::Stay => State::Established(established),
            Self::Closed => State::Closed,
        }
    }
}

/// An identity as its payload's body, which the proof covers too (RFC 7296 §2.15, §3.5).
fn id_body(identity: &Identity) -> Vec<u8> {
    let (kind, data) = match identity {
        Identity::Ip(std::net::IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
        Identity::Fqdn(name) => (2, name.as_bytes().to_vec()),
        Identity::UserFqdn(name) => (3, name.as_bytes().to_vec()),
        Identity::Ip(std::net::IpAddr::V6(ip)) => (5, ip.octets().to_vec()),
        Identity::KeyId(data) => (11, data.clone()),
        // IKEv2 has no subnet identities, and "any" is never sent; both become names that fit nothing by accident.
        Identity::Subnet(net) => (11, net.to_string().into_bytes()),
        Identity::Any => (11, Vec::new()),
        Identity::Other { kind, data } => (*kind, data.clone()),
    };
    [&[kind, 0, 0, 0], &data[..]].concat()
}

/// The identity that a payload holds.
fn identity(id: &crate::wire::v2::Id<'_>) -> Identity {
    let text = || std::str::from_utf8(id.data).ok().map(str::to_owned);
    let other = || Identity::Other { kind: id.kind, data: id.data.to_vec() };
    match id.kind {
        1 => <[u8; 4]>::try_from(id.data).map_or_else(|_| other(), |ip| Identity::Ip(ip.into())),
        2 => text().map_or_else(other, Identity::Fqdn),
        3 => text().map_or_else(other, Identity::UserFqdn),
        5 => <[u8; 16]>::try_from(id.data).map_or_else(|_| other(), |ip| Identity::Ip(ip.into())),
        11 => Identity::KeyId(id.data.to_vec()),
        _ => other(),
    }
}
