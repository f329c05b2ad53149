//! A load generator: one process that is a thousand IKE peers, each with an identity and a selector of
//! its own, and measures how fast a responder takes them. It opens no TUN device and carries no traffic.

mod handshakes;

pub use handshakes::{Load, Report, run};
