//! Whether a tunnel is fit to carry traffic, as the router that chooses between tunnels needs to know it.
//!
//! An SA that is up proves that the other gateway answered IKE some time ago, no more: packets may vanish behind it for
//! minutes before DPD notices. So three witnesses are heard together: the SAs with DPD, BFD (RFC 5880) where the
//! neighbor speaks it, and probes of our own through the tunnel. A tunnel is as good as its worst witness, and what a
//! witness that was switched off says counts for nothing (RFC 5882 §4.2).
//!
//! ```text
//!              SA up, every witness content,            bad for `fall`; at once
//!              first time since it was last            where the SA is gone
//!              down as planned
//!   Unhealthy -------------------------------> Healthy ------------------------> Unhealthy
//!        \                                        ^
//!         `-- content again --> Settling --------'  content for the whole hold time
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`Health`] | the machine, for all tunnels of a gateway |
//! | [`probe`] | one tunnel's probes: sent, answered, lost, round-trip times |
//! | [`hysteresis`] | how long a tunnel must be good after it fell; the more often it fell, the longer |
//!
//! A tunnel that was never judged is not healthy: it waits for the first answer of each witness. The router should
//! prefer [`Grade::Healthy`], then [`Grade::Settling`], and where there is neither may use a tunnel whose SA is up
//! ([`Status::is_sa_up`]): a probe's target that does not answer is no reason to have no path at all.

pub mod config;
pub mod hysteresis;
mod machine;
pub mod probe;
#[cfg(test)]
mod tests;
mod verdict;

pub use config::{BfdUse, HealthConfig, LossThreshold, Misconfigured, ProbeConfig, ProbeKind};
pub use machine::{Bfd, Health, Output, SaLoss, Signal, Status, TunnelId};
pub use probe::{Probe, ProbeStatus, Reply, RoundTrips, Stray};
pub use verdict::{Grade, Reason, Verdict};
