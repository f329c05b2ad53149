//! BFD sessions in virtual time: two neighbors and the link between them, and one session with packets made by hand.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

mod administration;
mod authentication;
mod detection;
mod handover;
mod host;
mod intervals;
mod reception;
mod scale;
