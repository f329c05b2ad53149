//! What can be seen from outside: counters, discards by reason, and the status of a session.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use base::Instant;

use crate::config::SessionId;
use crate::wire::{Diagnostic, State};

/// Why a received packet was discarded: the checks of RFC 5880 §6.8.6 in their order, and that of RFC 5881 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// Too few bytes to say more.
    Truncated,
    /// The version is not 1.
    Version,
    /// The Length field is less than a packet has.
    LengthTooShort,
    /// The Length field is more than has arrived.
    LengthBeyondPayload,
    /// Detect Mult is 0.
    ZeroMultiplier,
    /// The Multipoint bit is set.
    Multipoint,
    /// My Discriminator is 0.
    ZeroMyDiscriminator,
    /// No session has this Your Discriminator: mostly a neighbor that has not noticed our restart.
    UnknownDiscriminator,
    /// Your Discriminator is 0 in a state in which the sender must know it.
    MissingDiscriminator,
    /// No session is between these addresses.
    UnknownAddresses,
    /// The TTL or hop limit is not 255: the packet was forwarded by somebody.
    Ttl,
    /// The packet is authenticated, and the session is not.
    UnexpectedAuthentication,
    /// The session is authenticated, and the packet is not.
    MissingAuthentication,
    /// Another kind of authentication or another key, or a wrong digest.
    BadAuthentication,
    /// The digest is right, and the sequence number is old or far ahead.
    Replay,
    /// Our session is held down.
    AdminDown,
}

impl Discard {
    /// Every reason, in order.
    pub const ALL: [Self; 16] = [
        Self::Truncated,
        Self::Version,
        Self::LengthTooShort,
        Self::LengthBeyondPayload,
        Self::ZeroMultiplier,
        Self::Multipoint,
        Self::ZeroMyDiscriminator,
        Self::UnknownDiscriminator,
        Self::MissingDiscriminator,
        Self::UnknownAddresses,
        Self::Ttl,
        Self::UnexpectedAuthentication,
        Self::MissingAuthentication,
        Self::BadAuthentication,
        Self::Replay,
        Self::AdminDown,
    ];

    /// Its stable name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::LengthTooShort => "length_too_short",
            Self::LengthBeyondPayload => "length_beyond_payload",
            Self::ZeroMultiplier => "zero_multiplier",
            Self::Multipoint => "multipoint",
            Self::ZeroMyDiscriminator => "zero_my_discriminator",
            Self::UnknownDiscriminator => "unknown_discriminator",
            Self::MissingDiscriminator => "missing_discriminator",
            Self::UnknownAddresses => "unknown_addresses",
            Self::Ttl => "ttl",
            Self::UnexpectedAuthentication => "unexpected_authentication",
            Self::MissingAuthentication => "missing_authentication",
            Self::BadAuthentication => "bad_authentication",
            Self::Replay => "replay",
            Self::AdminDown => "admin_down",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Discard {}

/// How many packets were discarded, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    pub(crate) fn count(&mut self, reason: Discard) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// How many for this reason.
    pub fn of(&self, reason: Discard) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Reasons that occurred, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().map(|reason| (reason, self.of(reason))).filter(|(_, count)| *count > 0)
    }
}

/// What a session has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control packets sent.
    pub sent: u64,
    /// Control packets accepted.
    pub received: u64,
    /// Times that it came up.
    pub ups: u64,
    /// Times that it left Up.
    pub flaps: u64,
    /// Poll Sequences that we began.
    pub polls: u64,
    /// Control packets for this session that were discarded.
    pub discards: Discards,
}

/// A session as `show` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub session: SessionId,
    /// Our address, with the source port that the session sends from.
    pub local: SocketAddr,
    /// The neighbor's address, with the port that it is sent to.
    pub remote: SocketAddr,
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// The neighbor's state as it last said it.
    pub remote_state: State,
    /// Our discriminator.
    pub local_discriminator: NonZeroU32,
    /// The neighbor's, while it is heard.
    pub remote_discriminator: Option<NonZeroU32>,
    /// Why we last changed our state.
    pub local_diagnostic: Diagnostic,
    /// Why the neighbor last changed its state, as it said.
    pub remote_diagnostic: Diagnostic,
    /// Why we last left Up or were last not able to come up; `NONE` until then. Unlike `local_diagnostic` it
    /// outlives the next Up.
    pub last_local_diagnostic: Diagnostic,
    /// The last diagnostic of the neighbor other than `NONE`.
    pub last_remote_diagnostic: Diagnostic,
    /// The interval at which we send, before jitter; `None` while nothing is sent periodically: the neighbor wants
    /// none, or we are passive and have not heard it.
    pub transmit_interval: Option<Duration>,
    /// The interval at which the neighbor sends, as agreed; `None` until it is heard.
    pub receive_interval: Option<Duration>,
    /// How long the neighbor may be silent; `None` until it is heard.
    pub detection_time: Option<Duration>,
    /// How many packets the neighbor may miss of us.
    pub local_multiplier: u8,
    /// How many packets we may miss of the neighbor; 0 until it is heard.
    pub remote_multiplier: u8,
    /// Whether a Poll Sequence of ours is under way.
    pub is_polling: bool,
    /// Whether the neighbor asked for Demand mode.
    pub remote_demand: bool,
    /// When the neighbor was last heard.
    pub heard_at: Option<Instant>,
    /// What was counted.
    pub counters: Counters,
}
