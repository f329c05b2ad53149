//! BGP-4 (RFC 4271) as a pure machine: bytes and a time go in, bytes and routes come out.

mod as_path;
mod attributes;
mod family;
pub mod policy;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;

pub use attributes::{AsPath, Asn, Attributes, Community, LargeCommunity, Origin, Segment, UnknownAttribute};
pub use family::{Families, Family};
pub use speaker::{ConnectionId, Neighbor, NeighborId, Output, Speaker, SpeakerOptions};
