//! A session for another process that goes on with it, so that the neighbor notices nothing.
//!
//! Handed over is what the neighbor could tell apart: discriminators, source port, state, and the intervals that were
//! agreed. What it said goes along; counters go on. A session that is not Up has nothing to lose and is begun anew, and so
//! is one with authentication, whose sequence numbers stay here. The neighbor hears the new process at once, and has a whole
//! detection time to be heard itself: nobody listened in between.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};

use base::export::Moment;
use serde::{Deserialize, Serialize};

/// A session that is Up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Our address.
    pub local: IpAddr,
    /// The neighbor's address.
    pub remote: IpAddr,
    pub(crate) port: u16,
    pub(crate) discriminator: NonZeroU32,
    pub(crate) since: Moment,
    pub(crate) theirs: ExportedRemote,
    /// bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval in microseconds, as our packets say.
    pub(crate) advertised: (u32, u32),
    /// The same, as our timers go by.
    pub(crate) used: (u32, u32),
    /// Diagnostics: ours and theirs, those of now and the last ones.
    pub(crate) diagnostics: [u8; 4],
    /// Packets sent and received, times up and down, polls.
    pub(crate) counters: [u64; 5],
}

/// What the neighbor said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedRemote {
    pub(crate) discriminator: NonZeroU32,
    pub(crate) multiplier: NonZeroU8,
    pub(crate) min_tx: u32,
    pub(crate) min_rx: u32,
    pub(crate) demand: bool,
}
