//! Probes of the path (RFC 8899 §4.1, §5.2): what is asked of the endpoint and what it found. A probe is a request that
//! is filled to a size and that only the peer can answer, so that no stranger decides what a path takes.

use serde::{Deserialize, Serialize};

/// A probe to send. Sizes are those of the whole IP packet, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back with the result.
    pub number: u64,
    /// The size that would do. A suite that works in blocks does not reach every size.
    pub least: u16,
    /// The size that must not be exceeded; it is reached where the suite can.
    pub most: u16,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The number of the probe.
    pub number: u64,
    /// The size of the IP packet that was sent, in bytes; 0 when none was.
    pub size: u16,
    /// What it says.
    pub outcome: Outcome,
}

/// What a probe says about its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A packet of this size arrived, and the peer proved it.
    Answered,
    /// The peer lives, and no packet of this size was answered.
    Lost,
    /// Nothing: something else had to be asked first, or the IKE SA is gone.
    Cancelled,
}

/// Why a peer cannot be probed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotProbe {
    /// The SA has no established IKE SA.
    NoIkeSa,
    /// An IKEv1 peer that does not speak dead peer detection answers nothing that could be asked.
    NoDpd,
}

impl CannotProbe {
    /// A few words for a person.
    pub const fn why(self) -> &'static str {
        match self {
            Self::NoIkeSa => "there is no IKE SA to ask through",
            Self::NoDpd => "the peer speaks no dead peer detection",
        }
    }
}
