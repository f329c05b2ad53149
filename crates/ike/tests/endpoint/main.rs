//! Two gateways' endpoints on a virtual network: what must hold whatever the network does.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

mod failover;
mod faults;
mod flood;
mod handover;
mod host;
mod lifecycle;
mod storm;
mod strangers;
