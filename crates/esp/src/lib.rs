//! ESP (RFC 4303) in user space, tunnel mode: what encrypts, authenticates, orders and refuses the
//! packets of a tunnel. Pure: bytes and a time go in, bytes and a verdict come out.
//!
//! | module | what |
//! | --- | --- |
//! | [`wire`] | layout of a packet, overhead, what a datagram on port 4500 is |
//! | [`OutboundSa`], [`InboundSa`] | one direction of an SA each: `seal` and `open` in place, no allocation |
//! | [`window`] | the replay window and extended sequence numbers (RFC 4303 §3.4.3, App. A) |
//! | [`Outbounds`], [`Inbounds`], [`DataPath`] | the tables of a data-path worker, driven by [`sa::SaChange`] |
//! | [`mod@admit`] | fragmenting before encryption, or telling the sender (RFC 4301 §8, RFC 1191) |
//! | [`ecn`] | congestion marks across the tunnel (RFC 6040) |
//! | [`measurement`] | the data path without its encryption, for benchmarks alone |
//! | [`Dropped`], [`Counters`] | every packet that is not passed on, by reason |
//!
//! A packet on its way out:
//!
//! ```text
//! tun ──> Outbounds::send ── policy ── MSS ── admit ── OutboundSa::seal ──> datagrams (and ICMP back)
//! udp ──> Inbounds::open ── SPI ── window ── ICV ── window ── selectors ── ECN ── MSS ──> the inner packet
//! ```
//!
//! Left out: transport mode, AH, encryption without integrity, multicast SAs, traffic-flow padding
//! (accepted, not sent), reassembly of inner fragments for port selectors (RFC 4301 §7: such
//! fragments match only selectors that allow any port).

pub mod admit;
mod counters;
mod datapath;
pub mod ecn;
mod event;
pub mod export;
mod fit;
mod inbound;
mod inbounds;
mod limits;
pub mod measurement;
mod outbound;
mod outbounds;
mod policy;
mod prefix;
mod rules;
mod selector;
pub mod shared;
#[cfg(test)]
mod tests;
mod transform;
pub mod window;
pub mod wire;

pub use admit::{Admit, admit};
pub use counters::{Counters, Dropped, Drops, Shaping};
pub use datapath::{DataPath, Joint};
pub use event::Event;
pub use inbound::{Content, InboundSa, Opened};
pub use inbounds::{Arrived, Inbounds, Received};
pub use limits::Limit;
pub use outbound::{OutboundSa, Reserved, Sealed};
pub use outbounds::{Lens, Outbounds, Outgoing, Room};
pub use policy::{DeviceId, Policy, Via};
pub use transform::Unusable;
