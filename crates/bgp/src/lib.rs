//! BGP-4 (RFC 4271) as a pure machine: bytes and a time go in, bytes and routes come out.
//!
//! A [`Speaker`] holds all neighbours of one gateway, their sessions and the routing tables between them. The shell makes
//! the TCP connections, with the keys and TTLs that it is given, and puts routes in place.
//!
//! | RFC | part | here |
//! | --- | --- | --- |
//! | 4271 | BGP-4 | done; without DelayOpen, MinRouteAdvertisementInterval and aggregation |
//! | 6286, 6608, 6793, 7607 | identifiers, errors of the state machine, AS numbers of four octets, AS 0 | done |
//! | 1997, 8092, 4360 | communities, large and extended ones | done; extended ones are passed on as they are |
//! | 2385, 5082 | TCP MD5, TTL security | carried to the shell |
//! | 2918, 7313 | route refresh | done, both ways |
//! | 4456 | route reflection | as a client: loops are seen, nothing is reflected |
//! | 4724 | graceful restart | done, as the one that restarts and as its neighbour |
//! | 4760, 2545 | IPv6 unicast | done; no other family, and no IPv4 by way of IPv6 (RFC 8950) |
//! | 4486, 9003, 9384, 9687 | Cease and its words, BFD Down, Send Hold Timer | done |
//! | 5492, 9072 | capabilities, long optional parameters | done; the latter are understood, and never needed |
//! | 7606, 9774 | malformed UPDATE messages, no AS_SET | done |
//! | 8212 | no policy, no routes | done |
//! | 8326 | graceful shutdown | done |
//! | 8538 | graceful restart after a NOTIFICATION | not done |
//! | 8654, 7911, 5065, 9234 | long messages, several paths, confederations, roles | not done, and not offered |
//! | 9494 | long-lived graceful restart | done, as the neighbour of the one that restarts |

mod as_path;
mod attributes;
mod family;
pub mod policy;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;

pub use attributes::{AsPath, Asn, Attributes, Community, LargeCommunity, Origin, UnknownAttribute};
pub use family::{Families, Family};
pub use speaker::{ConnectionId, Neighbor, NeighborId, Output, Speaker, SpeakerOptions};
