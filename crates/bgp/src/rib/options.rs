//! What the routing tables are told about themselves, their neighbours and limits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::policy::Policy;
use crate::{Asn, Families};

/// A neighbour, by a number that its owner chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerId(pub u32);

/// What holds for all neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier, which is our cluster's too.
    pub router_id: Ipv4Addr,
    /// LOCAL_PREF of a route that has none.
    pub local_pref: u32,
    /// How many equal paths of a prefix are used at once; 0 counts as 1.
    pub max_paths: usize,
    /// Whether equal paths may differ in the contents of their AS_PATH, as long as the lengths are equal.
    pub multipath_relax: bool,
    /// Whether MULTI_EXIT_DISC is compared between routes of different neighbouring ASes.
    pub always_compare_med: bool,
}

impl Options {
    /// Every default for this AS and BGP Identifier.
    pub const fn of(asn: Asn, router_id: Ipv4Addr) -> Self {
        Self { asn, router_id, local_pref: 100, max_paths: 1, multipath_relax: false, always_compare_med: false }
    }
}

/// What holds for one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Its address: the last tie break.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Our AS towards it. It alone is prepended, where it differs from [`Options::asn`] too. The neighbour is internal
    /// when this is its own AS.
    pub local_as: Asn,
    /// What passes from it.
    pub import: Arc<Policy>,
    /// What passes to it.
    pub export: Arc<Policy>,
    /// How often our AS may stand in an AS_PATH from it.
    pub allow_own_as: u8,
    /// Whether the next hop of what is announced is ourselves to an internal neighbour too; to an external one it
    /// always is, unless a policy sets another.
    pub next_hop_self: bool,
    /// Whether private AS numbers (RFC 6996) are removed from what is announced to it, where it is external.
    pub remove_private_as: bool,
    /// Whether a default route is announced to it in each family, whatever we have ourselves. It does not pass through
    /// the rules of the export policy, but under [`Policy::Default`] it does not pass either.
    pub default_originate: bool,
    /// Whether GRACEFUL_SHUTDOWN from it is honoured (RFC 8326 §4.3), where it is external.
    pub graceful_shutdown: bool,
    /// How many prefixes it may announce in each family.
    pub max_prefixes: Option<MaxPrefixes>,
}

impl PeerOptions {
    /// Every default for this neighbour: no policy, no routes (RFC 8212).
    pub fn of(address: IpAddr, asn: Asn, local_as: Asn) -> Self {
        Self {
            address,
            asn,
            local_as,
            import: Arc::default(),
            export: Arc::default(),
            allow_own_as: 0,
            next_hop_self: false,
            remove_private_as: false,
            default_originate: false,
            graceful_shutdown: true,
            max_prefixes: None,
        }
    }

    /// Whether this is an internal neighbour (iBGP).
    pub const fn is_internal(&self) -> bool {
        self.asn == self.local_as
    }
}

/// A limit of prefixes, of each family for itself. Stale routes do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// The most that are kept.
    pub limit: u32,
    /// The count that is worth a warning.
    pub warn_at: u32,
}

/// What a session turned out to be, once its OPEN messages were exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The neighbour's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The families that both sides speak.
    pub families: Families,
    /// Whether the neighbour understands long-lived stale routes (RFC 9494).
    pub long_lived: bool,
}
