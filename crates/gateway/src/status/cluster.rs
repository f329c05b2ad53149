//! How the cluster is that a gateway is one of.

use serde::{Deserialize, Serialize};

/// A gateway as one of two that share addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// `starting`, `standby` or `active`.
    pub role: String,
    /// 1 or 2.
    pub member: u8,
    /// Seconds since it has this role.
    pub since_s: u64,
    /// Why it has it.
    pub why: String,
    /// How often the role of the active one has changed hands, counted by both.
    pub term: u64,
    /// The shared addresses, with their devices.
    pub shared: Vec<String>,
    /// The role of the other member; none while it is not heard.
    pub partner: Option<String>,
    /// Milliseconds since it was heard.
    pub partner_heard_ms: Option<u64>,
    /// Whether the one that stands by has been told all that the active one has, and goes on being told.
    pub in_step: bool,
    /// Milliseconds since the one that stands by was told something, or confirmed it.
    pub told_ms: Option<u64>,
    /// Connections and SAs that the one that stands by has been told of; of the active one, none.
    pub held: Option<(u64, u64)>,
    /// Numbers of an SA that the active one uses at most before the other confirms, and that one leaves out which takes over.
    pub reserve: u64,
    /// The last thing that went wrong between the members.
    pub trouble: Option<String>,
}
