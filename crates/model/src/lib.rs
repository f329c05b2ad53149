//! A connection as a person means it: who talks to whom, what each proves, what they offer, which
//! traffic goes through, and how long keys live. Every vendor's words are read into this model, and
//! the gateway runs what stands here.
//!
//! Nothing in it is a protocol's encoding; the names are the field's own (RFC 4301, RFC 7296).

mod cluster;
mod connection;
mod identity;
mod lifetime;
mod proposal;
mod routing;
mod selector;
mod source;
mod validate;

pub use cluster::{Cluster, SharedAddress};
pub use connection::{
    Address, Child, Config, Connection, DfPolicy, Dpd, DpdAction, Encapsulation, GatewayOptions, LogFormat, Ports,
    Routing, Side, Start, Tries, Uniqueness, Version, Versions,
};
pub use identity::{Identity, IdentityMatch};
pub use lifetime::{IkeLifetime, Lifetime};
pub use proposal::{EspProposal, IkeProposal};
pub use routing::{
    BfdTimers, Bgp, Fallback, Families, Health, Mode, Neighbor, PrefixList, PrefixRule, Probe, ProbeKind, Redistribute,
    Tunnel, Vpn,
};
pub use selector::Selector;
pub use source::{Setting, Source, Sources};
pub use validate::{Problem, Severity, validate};
