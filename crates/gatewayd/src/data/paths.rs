//! What is known of the paths to peers: the largest packet that each takes (RFC 1191 §6.3).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use base::Instant;
use os::{SocketOptions, udp};

/// Peers whose paths are remembered, at most: then all are forgotten and learnt again.
const MAX: usize = 4096;
/// The kernel is not asked about one path more often than this, whatever is refused.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often a narrow path is asked whether it has become wide: the kernel forgets after ten minutes.
const REFRESH: Duration = Duration::from_secs(60);

/// The paths that proved narrow.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: BTreeMap<IpAddr, Known>,
    refresh_at: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    mtu: u16,
    asked: Instant,
    times: u64,
}

impl Paths {
    /// A datagram to this peer was refused as too large: the MTU of its path, when that is news.
    pub(super) fn learn(&mut self, remote: IpAddr, now: Instant) -> Option<u16> {
        if self.known.get(&remote).is_some_and(|known| now < known.asked + ASK_AGAIN) {
            return None;
        }
        let mtu = ask(remote)?;
        if self.known.len() >= MAX {
            self.known.clear();
        }
        self.refresh_at.get_or_insert(now + REFRESH);
        let known = self.known.entry(remote).or_insert(Known { mtu: 0, asked: now, times: 0 });
        known.asked = now;
        if known.mtu == mtu {
            return None;
        }
        known.mtu = mtu;
        known.times += 1;
        Some(mtu)
    }

    /// The MTU of the path to a peer, where it was learnt.
    pub(super) fn mtu(&self, remote: IpAddr) -> Option<u16> {
        self.known.get(&remote).map(|known| known.mtu)
    }

    /// How often the MTU of the path to this peer was learnt.
    pub(super) fn times_learnt(&self, remote: IpAddr) -> u64 {
        self.known.get(&remote).map_or(0, |known| known.times)
    }

    /// When to call [`Self::refresh`].
    pub(super) const fn refresh_at(&self) -> Option<Instant> {
        self.refresh_at
    }

    /// Asks about all of them again: those that changed.
    pub(super) fn refresh(&mut self, now: Instant) -> Vec<(IpAddr, u16)> {
        let mut changed = Vec::new();
        for (remote, known) in &mut self.known {
            known.asked = now;
            if let Some(mtu) = ask(*remote).filter(|mtu| *mtu != known.mtu) {
                known.mtu = mtu;
                changed.push((*remote, mtu));
            }
        }
        self.refresh_at = Some(now + REFRESH);
        changed
    }
}

/// What the kernel knows.
fn ask(remote: IpAddr) -> Option<u16> {
    let any = if remote.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let mtu = udp::path_mtu(any, remote, &SocketOptions::default()).ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}
