//! Bidirectional Forwarding Detection as a pure machine: asynchronous mode of RFC 5880 over one hop (RFC 5881), for
//! IPv4 and IPv6.
//!
//! [`Sessions`] holds every session of one gateway. Datagrams and a time go in, datagrams and [`Event`]s come out. The
//! shell opens the sockets, sets and reads the TTL, and hands in what has arrived *before* it lets time pass
//! ([`base::Machine::handle_timeout`]): a packet that waited in a socket is then no reason to call a neighbor dead.
//!
//! | RFC | part | here |
//! | --- | --- | --- |
//! | 5880 §4.1 | control packet | done |
//! | 5880 §6.5, §6.8.3 | Poll Sequences, changes of intervals while Up | done |
//! | 5880 §6.6 | Demand mode | the neighbor's is honoured; we never ask for it |
//! | 5880 §6.7.4 | Keyed SHA1, Meticulous Keyed SHA1 | done |
//! | 5880 §6.7.2, §6.7.3 | Simple Password, Keyed MD5 | not done: such packets are discarded and counted |
//! | 5880 §6.8.6 | reception | done, in the order of the text, each discard counted by its reason |
//! | 5880 §6.8.8, §6.8.9 | Echo | not done: Required Min Echo RX Interval is 0, so nobody may send us Echo packets |
//! | 5880 §6.8.16 | administrative control | done |
//! | 5881 | ports, TTL 255, demultiplexing by addresses | done |
//! | 5882 §4.2 | what clients should not react to | [`DownCause::is_failure`] |
//! | - | a session is handed to another process | [`Sessions::export`], [`Sessions::resume`] |
//! | 5883, 5884, 7130, 7880 | several hops, MPLS, LAG, S-BFD | not done |

mod auth;
mod config;
mod export;
mod session;
mod sessions;
mod status;
pub mod wire;

pub use auth::{AuthKind, Authentication};
pub use config::{ConfigError, Options, Role, SessionConfig, SessionId};
pub use export::Exported;
pub use sessions::{DownCause, Event, EventKind, Output, Sessions, Transmit};
pub use status::{Counters, Discard, Discards, Status};
pub use wire::{Diagnostic, Payload, State};

/// The UDP port that control packets are sent to (RFC 5881 §4).
pub const PORT: u16 = 3784;

/// The TTL or hop limit that control packets are sent with, and the only one they are accepted with (RFC 5881 §5).
pub const TTL: u8 = 255;
