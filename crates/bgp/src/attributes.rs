//! Path attributes as a meaning: what both the wire and the routing tables speak of (RFC 4271 §5).
//!
//! AS numbers are of four octets throughout (RFC 6793); the wire merges AS4_PATH and AS4_AGGREGATOR. The multiprotocol
//! attributes (RFC 4760) are not here: they carry prefixes and next hops, which stand beside the attributes.

use std::net::Ipv4Addr;

/// An autonomous system number (RFC 6793): 1 to 4,294,967,295, without 23,456 (AS_TRANS) for a speaker of our own.
pub type Asn = u32;

/// Where a route came from, as its originator says (RFC 4271 §5.1.1). Lower is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// An interior protocol, or `network`.
    Igp,
    /// EGP.
    Egp,
    /// By other means: redistribution.
    Incomplete,
}

/// AS_PATH (RFC 4271 §5.1.2): one AS_SEQUENCE, the nearest AS first. There is nothing else in it: a route with an AS_SET is
/// none (RFC 9774), and confederations are not spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(pub Vec<Asn>);

/// A community (RFC 1997): the AS in the upper 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xFFFF_0000);
    /// LLGR_STALE (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xFFFF_0006);
    /// NO_LLGR (RFC 9494).
    pub const NO_LLGR: Self = Self(0xFFFF_0007);
    /// BLACKHOLE (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xFFFF_029A);
    /// NO_EXPORT (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xFFFF_FF01);
    /// NO_ADVERTISE (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xFFFF_FF02);
    /// NO_EXPORT_SUBCONFED (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xFFFF_FF03);
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: an AS.
    pub global: u32,
    /// Local data, part 1.
    pub local1: u32,
    /// Local data, part 2.
    pub local2: u32,
}

/// An optional transitive attribute that this crate does not know: it is passed on with the Partial bit set
/// (RFC 4271 §9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Its flags as received, the Partial bit set.
    pub flags: u8,
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

/// The path attributes of a route, without next hop and prefixes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC; lower is preferred.
    pub med: Option<u32>,
    /// LOCAL_PREF; higher is preferred; between internal peers only.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<(Asn, Ipv4Addr)>,
    /// COMMUNITIES, sorted, each once.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES (RFC 4360), opaque, sorted, each once.
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITY, sorted, each once.
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456), from internal peers.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), from internal peers.
    pub cluster_list: Vec<Ipv4Addr>,
    /// What this crate does not know and must pass on.
    pub unknown: Vec<UnknownAttribute>,
}
