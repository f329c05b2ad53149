//! A network between hosts: every datagram suffers the link's fate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Random};

use crate::Nat;

/// A UDP datagram under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it seems to come from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Its UDP payload.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Bytes of the IP packet that it is.
    pub fn packet_len(&self) -> usize {
        self.payload.len() + if self.destination.is_ipv4() { 28 } else { 48 }
    }
}

/// What happens to datagrams on the way. Shares are per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Share that is lost.
    pub loss: u8,
    /// Share that arrives twice.
    pub duplicate: u8,
    /// Time on the way.
    pub delay: Duration,
    /// Up to this is added at random, so that datagrams overtake each other.
    pub jitter: Duration,
}

impl Default for Link {
    /// Nothing is lost, and all takes 10 ms.
    fn default() -> Self {
        Self { loss: 0, duplicate: 0, delay: Duration::from_millis(10), jitter: Duration::ZERO }
    }
}

impl Link {
    /// A bad link: losing, duplicating, reordering.
    pub fn bad(loss: u8) -> Self {
        Self { loss, duplicate: 10, delay: Duration::from_millis(10), jitter: Duration::from_millis(60) }
    }
}

/// The network between all hosts.
#[derive(Debug)]
pub struct Network {
    /// What happens to each datagram.
    pub link: Link,
    /// While true, nothing arrives.
    pub is_cut: bool,
    /// IP packets that are larger are dropped in silence, in bytes: a black hole.
    pub mtu: Option<usize>,
    /// NATs on the way.
    pub nats: Vec<Nat>,
    /// Every datagram as it was sent behind the NATs, lost or not: what an eavesdropper sees.
    pub wire: Vec<Datagram>,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    random: Random,
}

impl Network {
    /// A network with this link; what it loses follows from `seed`.
    pub fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            is_cut: false,
            mtu: None,
            nats: Vec::new(),
            wire: Vec::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            random: Random::for_test(seed),
        }
    }

    /// Takes a datagram from a host.
    pub fn send(&mut self, mut datagram: Datagram, now: Instant) {
        for nat in &mut self.nats {
            nat.outbound(&mut datagram);
        }
        self.wire.push(datagram.clone());
        let copies = 1 + u64::from(self.happens(self.link.duplicate));
        for _ in 0..copies {
            let is_large = self.mtu.is_some_and(|mtu| datagram.packet_len() > mtu);
            if self.is_cut || is_large || self.happens(self.link.loss) {
                continue;
            }
            let jitter = Duration::from_micros(self.random.below(self.link.jitter.as_micros() as u64 + 1));
            self.sent += 1;
            self.under_way.insert((now + self.link.delay + jitter, self.sent), datagram.clone());
        }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    /// The next datagram that has arrived by `now`, as its receiver sees it. Those that no NAT lets in are dropped.
    pub fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        loop {
            let entry = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
            let mut datagram = entry.remove();
            if !self.is_cut && self.nats.iter_mut().rev().all(|nat| nat.inbound(&mut datagram)) {
                return Some(datagram);
            }
        }
    }

    fn happens(&mut self, per_cent: u8) -> bool {
        self.random.below(100) < u64::from(per_cent)
    }
}
