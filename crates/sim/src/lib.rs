//! A virtual world for pure machines: a clock that jumps, links that lose, delay, reorder and
//! duplicate, NATs that change their mind, an eavesdropper, and the laws that every machine keeps.
//!
//! It is a dev-dependency only. Everything follows from a seed: a failure is repeated by its number.

pub mod laws;
mod nat;
mod network;
mod world;

pub use nat::Nat;
pub use network::{Datagram, Link, Network};
pub use world::{Host, World};
