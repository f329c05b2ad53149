//! What a speaker and its neighbours are configured with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base::Secret;

use crate::policy::Policy;
use crate::rib::{MaxPrefixes, PeerOptions};
use crate::{Asn, Families, Family, wire};

/// What holds for the whole speaker; it does not change while it lives.
#[derive(Clone, Debug)]
pub struct SpeakerOptions {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier: not 0, and nobody else's in our AS (RFC 6286).
    pub router_id: Ipv4Addr,
    /// How many equal paths of a prefix are used at once; 0 counts as 1.
    pub max_paths: usize,
    /// Whether equal paths may differ in the contents of their AS_PATH.
    pub multipath_relax: bool,
    /// Restart Time of graceful restart that neighbours are told (RFC 4724 §3); at most 4,095 s. Zero: we do not come
    /// back gracefully, and still keep the routes of neighbours that do.
    pub restart_time: Duration,
    /// Whether we have just restarted and packets went on being forwarded meanwhile: neighbours are told so, and
    /// nothing is chosen nor announced until they have announced all they have (RFC 4724 §4.1).
    pub is_restarting: bool,
    /// How long that may take at most: Selection_Deferral_Timer (RFC 4724 §4.1).
    pub selection_deferral: Duration,
    /// How long stale routes of a neighbour that came back may wait for its End-of-RIB.
    pub stale_time: Duration,
}

impl SpeakerOptions {
    /// Every default for this AS and BGP Identifier.
    pub const fn of(asn: Asn, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            max_paths: 1,
            multipath_relax: false,
            restart_time: Duration::from_secs(120),
            is_restarting: false,
            selection_deferral: Duration::from_secs(60),
            stale_time: Duration::from_secs(360),
        }
    }
}

/// Timers of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Time between two KEEPALIVE messages; at most a third of the Hold Time that is agreed upon counts.
    pub keepalive: Duration,
    /// Hold Time offered, in whole seconds: 0, or 3 to 65,535 s. Whatever else is given is moved there.
    pub hold: Duration,
    /// Time between two attempts to connect, and before the next one after a failure; up to a quarter less at random
    /// (RFC 4271 §10). Failures that come again and again make it longer, up to two minutes.
    pub connect_retry: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { keepalive: seconds(10), hold: seconds(30), connect_retry: seconds(5) }
    }
}

/// How far away a neighbour may be, by the TTL or hop limit of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ttl {
    /// Packets to it are sent with this TTL, and taken with any.
    Sent(u8),
    /// It is at most so many hops away, and packets that have come further are not taken (RFC 5082): 255 is sent, and
    /// at least 256 less this is wanted. 1 is a neighbour on the same link; 0 counts as 1.
    Security(u8),
}

impl Ttl {
    /// The TTL to send with.
    pub const fn sent(self) -> u8 {
        match self {
            Self::Sent(ttl) => ttl,
            Self::Security(_) => 255,
        }
    }

    /// The least TTL to take; 0 takes all.
    pub const fn least(self) -> u8 {
        match self {
            Self::Sent(_) | Self::Security(255) => 0,
            Self::Security(0) => 255,
            Self::Security(hops) => 255 - (hops - 1),
        }
    }
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its name, for people.
    pub name: String,
    /// Its address; unique among the neighbours of a speaker.
    pub remote: IpAddr,
    /// The TCP port that we connect to.
    pub port: u16,
    /// Our address; `None`: what the system chooses, and any that the neighbour connects to.
    pub local: Option<IpAddr>,
    /// Its AS, not 0. The neighbour is internal when it is ours.
    pub remote_as: Asn,
    /// Our AS towards it, where that is not the speaker's.
    pub local_as: Option<Asn>,
    /// Whether only the neighbour connects.
    pub passive: bool,
    /// Timers.
    pub timers: Timers,
    /// Key of TCP MD5 (RFC 2385).
    pub password: Option<Secret>,
    /// How far away it may be.
    pub ttl: Ttl,
    /// The families whose routes are exchanged; at least one.
    pub families: Families,
    /// The next hop of routes announced as our own that are not of the family which the session runs over. Without it,
    /// those are not announced.
    pub other_next_hop: Option<IpAddr>,
    /// How many prefixes it may announce in each family.
    pub max_prefixes: Option<MaxPrefixes>,
    /// When to try again after it announced more; `None`: at [`super::Speaker::reset`].
    pub max_prefixes_restart: Option<Duration>,
    /// What passes from it. Nothing does by default (RFC 8212).
    pub import: Arc<Policy>,
    /// What passes to it. Nothing does by default (RFC 8212).
    pub export: Arc<Policy>,
    /// Whether a default route is announced to it.
    pub default_originate: bool,
    /// Whether we and it may restart gracefully (RFC 4724).
    pub graceful_restart: bool,
    /// How long stale routes are kept after the restart time is over (RFC 9494), at most 2^24 − 1 s; zero: not at all.
    pub long_lived: Duration,
    /// How often our own AS may stand in its paths.
    pub allow_own_as: u8,
    /// Whether the next hop of what is announced is ourselves to an internal neighbour too.
    pub next_hop_self: bool,
    /// Whether private AS numbers are removed from what is announced to it.
    pub remove_private_as: bool,
    /// Whether every path from it must begin with its AS, where it is external (RFC 4271 §6.3).
    pub enforce_first_as: bool,
    /// Whether GRACEFUL_SHUTDOWN from it is honoured (RFC 8326 §4.3).
    pub graceful_shutdown: bool,
    /// Taken down by its operator, with words for the neighbour's that may be empty (RFC 9003).
    pub shut_down: Option<String>,
}

impl Neighbor {
    /// Every default for a neighbour at this address.
    pub fn of(name: impl Into<String>, remote: IpAddr, remote_as: Asn) -> Self {
        Self {
            name: name.into(),
            remote,
            port: wire::PORT,
            local: None,
            remote_as,
            local_as: None,
            passive: false,
            timers: Timers::default(),
            password: None,
            ttl: Ttl::Sent(1),
            families: Families::IPV4,
            other_next_hop: None,
            max_prefixes: None,
            max_prefixes_restart: None,
            import: Arc::default(),
            export: Arc::default(),
            default_originate: false,
            graceful_restart: true,
            long_lived: Duration::ZERO,
            allow_own_as: 0,
            next_hop_self: false,
            remove_private_as: false,
            enforce_first_as: true,
            graceful_shutdown: true,
            shut_down: None,
        }
    }

    /// Our AS towards it.
    pub(super) fn our_as(&self, options: &SpeakerOptions) -> Asn {
        self.local_as.unwrap_or(options.asn)
    }

    /// Hold Time as it stands in an OPEN.
    pub(super) fn hold_seconds(&self) -> u16 {
        match u16::try_from(self.timers.hold.as_secs()).unwrap_or(u16::MAX) {
            0 if self.timers.hold.is_zero() => 0,
            seconds => seconds.max(3),
        }
    }

    /// What the tables need to know.
    pub(super) fn peer_options(&self, options: &SpeakerOptions) -> PeerOptions {
        PeerOptions {
            address: self.remote,
            asn: self.remote_as,
            local_as: self.our_as(options),
            import: Arc::clone(&self.import),
            export: Arc::clone(&self.export),
            allow_own_as: self.allow_own_as,
            next_hop_self: self.next_hop_self,
            remove_private_as: self.remove_private_as,
            default_originate: self.default_originate,
            graceful_shutdown: self.graceful_shutdown,
            max_prefixes: self.max_prefixes,
        }
    }

    /// Our own address in a family, given our address on the session.
    pub(super) fn own_next_hop(&self, family: Family, local: IpAddr) -> Option<IpAddr> {
        let is_of_family = |address: &IpAddr| address.is_ipv6() == (family == Family::Ipv6);
        Some(local).filter(is_of_family).or(self.other_next_hop.filter(is_of_family))
    }

    /// What changed so that a session must begin anew: a setting in words, or `None` where it need not.
    pub(super) fn needs_reset(&self, new: &Self) -> Option<&'static str> {
        let changes = [
            (self.remote_as != new.remote_as, "the neighbour's AS"),
            (self.local_as != new.local_as, "our AS towards the neighbour"),
            (self.local != new.local, "our address"),
            (self.port != new.port, "the port"),
            (self.password != new.password, "the password"),
            (self.ttl != new.ttl, "the TTL"),
            (self.families != new.families, "the families"),
            (self.other_next_hop != new.other_next_hop, "the next hop of the other family"),
            (self.graceful_restart != new.graceful_restart, "graceful restart"),
            (self.long_lived != new.long_lived, "the long-lived stale time"),
        ];
        changes.into_iter().find_map(|(changed, what)| changed.then_some(what))
    }
}
