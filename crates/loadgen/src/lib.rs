//! Load generators, each in one process, to measure who takes the load.
//!
//! | module | what |
//! | --- | --- |
//! | [`run`] | a thousand IKE peers, each with an identity and a selector of its own; they carry no traffic |
//! | [`packets`] | UDP packets at a rate, counted where they arrive |
//! | [`streams`] | many TCP streams from many addresses |
//! | [`routes`] | a whole table of BGP routes |
//! | [`sessions`] | a thousand BGP speakers with some routes each |

mod handshakes;
pub mod packets;
pub mod routes;
pub mod sessions;
pub mod streams;

pub use handshakes::{Load, Report, run};
