//! An IKE SA of either version, as the endpoint sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use base::{Deadline, Instant};
use model::{Identity, Version};
use sa::{ChildSuite, Path, SaId, Spi, TrafficSelector};

use crate::context::{Context, Ends};
use crate::event::{CloseReason, Rekey};
use crate::peer::PeerId;
use crate::probe::{CannotProbe, Probe};
use crate::wire::header::Header;
use crate::{v1, v2};

/// How far an IKE SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IkeState {
    /// The peer has not proved who it is.
    Connecting,
    /// Established.
    Established,
    /// Established, and being replaced.
    Rekeying,
    /// A delete is on its way.
    Closing,
}

/// An IKE SA as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSaView {
    /// Whose it is, once that is known.
    pub peer: Option<PeerId>,
    /// Its version of IKE.
    pub version: Version,
    /// How far it is.
    pub state: IkeState,
    /// The name the standard gives to that state, such as `MM_ACTIVE` or `ESTABLISHED`.
    pub state_name: &'static str,
    /// Whether we began it.
    pub is_initiator: bool,
    /// The initiator's and the responder's SPI (IKEv1: cookie).
    pub spis: (u64, u64),
    /// Our socket address and the peer's.
    pub path: (SocketAddr, SocketAddr),
    /// Whether a NAT was found on our side and on the peer's.
    pub nat: (bool, bool),
    /// Our identity.
    pub local_id: Option<Identity>,
    /// The peer's identity.
    pub remote_id: Option<Identity>,
    /// The suite as people spell it; empty until it is agreed.
    pub suite: Arc<str>,
    /// Its algorithms one by one, once they are agreed.
    pub algorithms: Option<Algorithms>,
    /// Whether any of its algorithms is weak.
    pub is_weak: bool,
    /// When it was established.
    pub established_at: Option<Instant>,
    /// When it will be rekeyed.
    pub rekey_at: Option<Instant>,
    /// When it ends if it is not rekeyed.
    pub expires_at: Option<Instant>,
    /// Its Child SAs.
    pub children: Vec<ChildView>,
}

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// What encrypts its messages.
    pub encryption: Encryption,
    /// What authenticates them; `None` where the encryption does, and in IKEv1, where the hash does.
    pub integrity: Option<Integrity>,
    /// The pseudorandom function; in IKEv1 the HMAC of its hash.
    pub prf: Prf,
    /// The group of the key exchange.
    pub group: Group,
}

/// A Child SA as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// Its number.
    pub id: SaId,
    /// Its name in the configuration.
    pub child: Arc<str>,
    /// Our SPI and the peer's.
    pub spis: (Spi, Spi),
    /// Its algorithms.
    pub suite: ChildSuite,
    /// The group of its own key exchange, where it had one (PFS).
    pub pfs: Option<Group>,
    /// Our traffic and the peer's, as agreed.
    pub selectors: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    /// Where its packets go.
    pub path: Path,
    /// Whether a newer one has taken its place and it only receives what is still under way.
    pub is_rekeyed: bool,
    /// When it was installed.
    pub installed_at: Instant,
    /// When it will be rekeyed.
    pub rekey_at: Option<Instant>,
    /// When it ends if it is not rekeyed.
    pub expires_at: Option<Instant>,
}

/// An IKE SA of either version.
#[derive(Debug)]
pub(crate) enum Session {
    V1(v1::Session),
    V2(v2::Session),
}

/// Hands a call on to the session of the right version.
macro_rules! either {
    ($self:expr, $session:ident => $call:expr) => {
        match $self {
            Session::V1($session) => $call,
            Session::V2($session) => $call,
        }
    };
}

impl Session {
    /// A datagram whose header names this session. Whether it is authentic, due or new is for the session to say.
    pub(crate) fn handle_message(&mut self, ends: Ends, header: &Header, message: &[u8], ctx: &mut Context<'_>) {
        either!(self, s => s.handle_message(ends, header, message, ctx));
    }

    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        either!(self, s => s.handle_timeout(ctx));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Deadline> {
        either!(self, s => s.poll_timeout())
    }

    /// Negotiates the configured child of this name, unless it is there or under way. Before the session is
    /// established this is remembered.
    pub(crate) fn initiate_child(&mut self, child: &str, ctx: &mut Context<'_>) {
        either!(self, s => s.initiate_child(child, ctx));
    }

    pub(crate) fn rekey(&mut self, what: Rekey, ctx: &mut Context<'_>) {
        either!(self, s => s.rekey(what, ctx));
    }

    /// Rekeys one Child SA: its volume comes to an end.
    pub(crate) fn rekey_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        either!(self, s => s.rekey_child(id, ctx));
    }

    /// Deletes one Child SA: its volume is used up.
    pub(crate) fn expire_child(&mut self, id: SaId, ctx: &mut Context<'_>) {
        either!(self, s => s.expire_child(id, ctx));
    }

    /// Deletes all SAs of the configured child of this name.
    pub(crate) fn close_child(&mut self, child: &str, reason: CloseReason, ctx: &mut Context<'_>) {
        either!(self, s => s.close_child(child, reason, ctx));
    }

    /// Tells the peer that a child is drained, or is not any more; whether it will be told. IKEv1 has no answer by which to
    /// know that the peer has heard.
    pub(crate) fn drain(&mut self, child: &Arc<str>, is_drained: bool, ctx: &mut Context<'_>) -> bool {
        match self {
            Self::V1(_) => false,
            Self::V2(session) => session.drain(child, is_drained, ctx),
        }
    }

    /// Deletes the IKE SA and its children, and tells the peer. Ends in `Signal::Closed`, at once or when the peer
    /// has answered.
    pub(crate) fn close(&mut self, reason: CloseReason, ctx: &mut Context<'_>) {
        either!(self, s => s.close(reason, ctx));
    }

    /// Probes the path to the peer.
    pub(crate) fn probe(&mut self, probe: Probe, ctx: &mut Context<'_>) -> Result<(), CannotProbe> {
        either!(self, s => s.probe(probe, ctx))
    }

    /// The peer sent an authentic ESP packet then.
    pub(crate) fn note_alive(&mut self, at: Instant) {
        either!(self, s => s.note_alive(at));
    }

    /// The first packet arrived on this SA: the peer uses it.
    pub(crate) fn note_first_inbound(&mut self, id: SaId, ctx: &mut Context<'_>) {
        either!(self, s => s.note_first_inbound(id, ctx));
    }

    /// An authentic ESP packet came from a new address.
    pub(crate) fn note_peer_moved(&mut self, to: SocketAddr, ctx: &mut Context<'_>) {
        either!(self, s => s.note_peer_moved(to, ctx));
    }

    /// The SPI (cookie) that we chose.
    pub(crate) fn local_spi(&self) -> u64 {
        either!(self, s => s.local_spi())
    }

    /// The SPI (cookie) that the peer chose; 0 while it has not.
    pub(crate) fn remote_spi(&self) -> u64 {
        either!(self, s => s.remote_spi())
    }

    pub(crate) fn is_initiator(&self) -> bool {
        either!(self, s => s.is_initiator())
    }

    pub(crate) fn peer(&self) -> Option<PeerId> {
        either!(self, s => s.peer())
    }

    pub(crate) fn state(&self) -> IkeState {
        either!(self, s => s.state())
    }

    /// The Child SAs that it owns.
    pub(crate) fn child_ids(&self) -> Vec<SaId> {
        either!(self, s => s.child_ids())
    }

    pub(crate) fn view(&self) -> IkeSaView {
        either!(self, s => s.view())
    }

    pub(crate) const fn version(&self) -> Version {
        match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
        }
    }
}

/// A moment in which to retry, with jitter so that a thousand tunnels do not come back in one second: up to a
/// quarter is added.
pub(crate) fn jittered(wait: Duration, random: &mut base::Random) -> Duration {
    let quarter = u64::try_from(wait.as_micros() / 4).unwrap_or(u64::MAX);
    wait + Duration::from_micros(random.below(quarter.max(1)))
}
