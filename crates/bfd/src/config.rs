//! What a session is told to do, and whether that makes sense.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::auth::Authentication;

/// A session, as whoever configured it calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// Who speaks first (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// We send whether or not the neighbor is heard.
    #[default]
    Active,
    /// We send nothing before the neighbor was heard. One of the two must be active.
    Passive,
}

/// The bounds of all sessions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many sessions there may be, up to 16,384: each has a source port of its own.
    pub session_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { session_limit: 4096 }
    }
}

/// One session. [`SessionConfig::new`] has the defaults that BIRD, FRR and most vendors share: 300 ms, three packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our address on the link.
    pub local: IpAddr,
    /// The neighbor's address on the link.
    pub remote: IpAddr,
    /// The interface's number where the addresses are link-local IPv6 ones; it tells links apart, and is compared
    /// with the scope of what arrives. Other addresses ignore it.
    pub scope: u32,
    /// While Up, we want to send at this interval and no faster; 10 ms to 60 s. While not Up it is 1 s at least
    /// (RFC 5880 §6.8.3).
    pub min_tx: Duration,
    /// We can receive at this interval and no faster; 10 ms to 60 s.
    pub min_rx: Duration,
    /// How many packets of ours the neighbor may miss; 1 to 255.
    pub multiplier: u8,
    /// Who speaks first.
    pub role: Role,
    /// How packets prove where they come from.
    pub authentication: Option<Authentication>,
}

impl SessionConfig {
    /// The shortest interval.
    pub const SHORTEST: Duration = Duration::from_millis(10);
    /// The longest interval.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// A session between two addresses: 300 ms in both directions, three packets may be missed, active, without
    /// authentication.
    pub fn new(local: IpAddr, remote: IpAddr) -> Self {
        Self {
            local,
            remote,
            scope: 0,
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
            role: Role::Active,
            authentication: None,
        }
    }

    /// Which datagrams belong to it while its discriminator is not known to the neighbor.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::of(self.local, self.remote, self.scope)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (local, remote) = (self.local.to_canonical(), self.remote.to_canonical());
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(ConfigError::MixedFamilies);
        }
        for address in [local, remote] {
            let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
            if address.is_unspecified() || address.is_multicast() || is_broadcast {
                return Err(ConfigError::NotAHost(address));
            }
        }
        if local == remote {
            return Err(ConfigError::SameAddress(local));
        }
        for (name, interval) in [("min_tx", self.min_tx), ("min_rx", self.min_rx)] {
            if !(Self::SHORTEST..=Self::LONGEST).contains(&interval) {
                return Err(ConfigError::Interval { name, interval });
            }
        }
        if self.multiplier == 0 {
            return Err(ConfigError::ZeroMultiplier);
        }
        match &self.authentication {
            Some(authentication) if !(1..=20).contains(&authentication.key.len()) => Err(ConfigError::KeyLength),
            Some(_) | None => Ok(()),
        }
    }
}

/// What a datagram is told apart by while it has no discriminator of ours (RFC 5881 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Addresses {
    local: IpAddr,
    remote: IpAddr,
    scope: u32,
}

impl Addresses {
    fn of(local: IpAddr, remote: IpAddr, scope: u32) -> Self {
        let (local, remote) = (local.to_canonical(), remote.to_canonical());
        let has_scope = matches!(remote, IpAddr::V6(v6) if is_link_local(v6));
        Self { local, remote, scope: if has_scope { scope } else { 0 } }
    }

    pub(crate) fn of_datagram(local: SocketAddr, remote: SocketAddr) -> Self {
        let scope_of = |address: SocketAddr| match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        // A socket tells the scope with the sender's address; with its own only where it is bound to it.
        let scope = if scope_of(remote) != 0 { scope_of(remote) } else { scope_of(local) };
        Self::of(local.ip(), remote.ip(), scope)
    }

    pub(crate) fn local(&self, port: u16) -> SocketAddr {
        self.socket(self.local, port)
    }

    pub(crate) fn remote(&self, port: u16) -> SocketAddr {
        self.socket(self.remote, port)
    }

    fn socket(&self, address: IpAddr, port: u16) -> SocketAddr {
        match address {
            IpAddr::V4(v4) => SocketAddr::from((v4, port)),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, self.scope).into(),
        }
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// Why a session cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// One address is IPv4, the other IPv6.
    MixedFamilies,
    /// An address that no single host has.
    NotAHost(IpAddr),
    /// Both addresses are this one.
    SameAddress(IpAddr),
    /// An interval out of its range.
    Interval {
        /// Which: `min_tx` or `min_rx`.
        name: &'static str,
        /// What was found.
        interval: Duration,
    },
    /// The multiplier is 0.
    ZeroMultiplier,
    /// A key of no byte, or of more than 20 (RFC 5880 §6.7.4).
    KeyLength,
    /// Another session is between the same addresses: clients of one neighbor share one session (RFC 5882 §4.4).
    AddressesTaken(SessionId),
    /// There are as many sessions as there may be.
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MixedFamilies => f.write_str("one address is IPv4 and the other IPv6"),
            Self::NotAHost(address) => write!(f, "{address} is not the address of one host"),
            Self::SameAddress(address) => write!(f, "both ends have the address {address}"),
            Self::Interval { name, interval } => {
                write!(f, "{name} is {interval:?}; it must be from 10 ms to 60 s")
            }
            Self::ZeroMultiplier => f.write_str("the multiplier is 0; it must be from 1 to 255"),
            Self::KeyLength => f.write_str("a BFD key has 1 to 20 bytes"),
            Self::AddressesTaken(session) => write!(f, "session {} is between the same addresses", session.0),
            Self::TooMany { limit } => write!(f, "there are {limit} BFD sessions already, as many as are allowed"),
        }
    }
}

impl std::error::Error for ConfigError {}
