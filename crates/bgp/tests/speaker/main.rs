//! Speakers in virtual time: two of them over a network, and one against a neighbour that is played by the test.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

mod captured;
mod collisions;
mod hostile;
mod laws;
mod net;
mod refusals;
mod restart;
mod routes;
mod sessions;
