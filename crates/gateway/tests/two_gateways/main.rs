//! Two whole gateways with their data paths, in virtual time: configurations, orders and packets go in; what a person
//! would see comes out. ESP is in UDP here, because the simulated network carries nothing else.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

mod failover;
mod handover;
mod leaving;
mod paths;
mod scenarios;
mod site;

pub(crate) use site::Site;
