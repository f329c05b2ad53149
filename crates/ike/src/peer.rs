//! What the endpoint knows about each peer: its connection as configured, and the addresses that the
//! shell resolved for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::{Address, Connection, Identity, IdentityMatch, Ports, Version};
use serde::{Deserialize, Serialize};

/// Names a configured connection within one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u32);

/// How unanswered requests are repeated: after `initial`, then `factor` times longer each time, `tries` times in
/// all after the first sending; then the peer counts as dead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retransmission {
    /// Wait before the first repetition.
    pub initial: Duration,
    /// Growth of the wait, at least 1.
    pub factor: f64,
    /// Number of repetitions.
    pub tries: u32,
}

impl Default for Retransmission {
    /// Repeats after 1, 1.8, 3.2 … s and gives up after some 40 s.
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), factor: 1.8, tries: 5 }
    }
}

impl Retransmission {
    /// The wait after sending number `sent` (0 is the first); `None` when the last wait is over.
    pub fn wait(&self, sent: u32) -> Option<Duration> {
        (sent <= self.tries).then(|| self.initial.mul_f64(self.factor.powi(sent.min(64) as i32)))
    }

    /// The time from the first sending until the peer counts as dead.
    pub fn total(&self) -> Duration {
        (0..=self.tries).filter_map(|sent| self.wait(sent)).sum()
    }
}

/// What concerns the endpoint as a whole.
#[derive(Clone, Debug)]
pub struct Options {
    /// UDP ports of IKE.
    pub ports: Ports,
    /// Half-open IKE SAs (as responder) from which on IKEv2 cookies are asked for, RFC 7296 §2.6.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs (as responder) at which first messages are dropped.
    pub half_open_limit: usize,
    /// Time after which a half-open IKE SA that the peer began is forgotten.
    pub half_open_timeout: Duration,
    /// Repetition of requests.
    pub retransmission: Retransmission,
    /// Interval of NAT keepalives; zero switches them off.
    pub nat_keepalive: Duration,
    /// Largest IKE message, in bytes of UDP payload, before it is fragmented (RFC 7383 §2.5.1).
    pub fragment_size: usize,
    /// Wait before a failed connection is tried again; it doubles up to 16 times this, with jitter.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: Ports::default(),
            cookie_threshold: 30,
            half_open_limit: 1_000,
            half_open_timeout: Duration::from_secs(30),
            retransmission: Retransmission::default(),
            nat_keepalive: Duration::from_secs(20),
            fragment_size: 1_232,
            retry: Duration::from_secs(2),
        }
    }
}

/// A configured peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) connection: Arc<Connection>,
    /// Our address towards it, as the kernel's routing chose it, where the configuration names none.
    pub(crate) local: Option<IpAddr>,
    /// Its address, where the configuration names it or DNS told.
    pub(crate) remote: Option<IpAddr>,
}

impl Peer {
    /// Both ends of the first message, when both addresses are known.
    pub(crate) fn sockets(&self, ports: Ports) -> Option<(SocketAddr, SocketAddr)> {
        let local = self.connection.local.address.ip().or(self.local)?;
        let remote = self.remote_ip()?;
        // A port of its own is where the peer's IKE listens from the first message on; 4500 itself means that NAT
        // traversal is taken for granted (RFC 7296 §2.23).
        let remote_port = self.connection.remote.port.unwrap_or(ports.ike);
        let local_port = if remote_port == ports.natt { ports.natt } else { ports.ike };
        Some((SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port)))
    }

    /// The peer's address when it is known.
    pub(crate) fn remote_ip(&self) -> Option<IpAddr> {
        self.connection.remote.address.ip().or(self.remote)
    }

    /// How well the outer addresses of a first message fit: `None` not at all, more is better.
    fn address_rank(&self, local: IpAddr, remote: IpAddr) -> Option<u8> {
        let connection = &self.connection;
        let local_rank = match (&connection.local.address, self.local) {
            (Address::Ip(ip), _) if *ip == local => 1,
            (Address::Ip(_), _) => return None,
            (Address::Any | Address::Prefix(_) | Address::Name(_), _) => 0,
        };
        let remote_rank = match (&connection.remote.address, &self.remote) {
            (Address::Ip(ip), _) | (Address::Name(_), Some(ip)) => 4 * u8::from(*ip == remote),
            (Address::Prefix(net), _) => 2 * u8::from(net.contains(&remote)),
            (Address::Any, _) => return Some(local_rank),
            (Address::Name(_), None) => 0,
        };
        (remote_rank > 0).then_some(local_rank + remote_rank)
    }
}

/// The configured peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_id: BTreeMap<PeerId, Peer>,
}

impl Peers {
    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    pub(crate) fn insert(&mut self, peer: Peer) -> Option<Peer> {
        self.by_id.insert(peer.id, peer)
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        self.by_id.remove(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    /// Peers that a first message between these addresses may come from, best first: their proposals are what
    /// may be chosen from, and their keys are what may be tried, before the peer has said who it is.
    pub(crate) fn candidates(&self, local: IpAddr, remote: IpAddr, version: Version) -> Vec<&Peer> {
        let mut ranked: Vec<_> = self
            .by_id
            .values()
            .filter(|peer| peer.connection.versions.accepts(version))
            .filter_map(|peer| Some((peer.address_rank(local, remote)?, peer)))
            .collect();
        ranked.sort_by_key(|(rank, peer)| (std::cmp::Reverse(*rank), peer.id));
        ranked.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Of `candidates`, those that the peer's identity (and ours, when it named one) fits, best first.
    pub(crate) fn identified<'a>(
        candidates: &[&'a Peer],
        theirs: &Identity,
        ours: Option<&Identity>,
        local: IpAddr,
    ) -> Vec<&'a Peer> {
        let mut fitting: Vec<_> = candidates
            .iter()
            .enumerate()
            .filter(|(_, peer)| ours.is_none_or(|ours| *ours == peer.connection.local_id(local)))
            .map(|(order, peer)| (theirs.fits(&peer.connection.remote_id()), order, *peer))
            .filter(|(fit, ..)| *fit != IdentityMatch::No)
            .collect();
        fitting.sort_by_key(|(fit, order, _)| (std::cmp::Reverse(*fit), *order));
        fitting.into_iter().map(|(.., peer)| peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u32, remote: Address) -> Peer {
        let mut connection = Connection::named(format!("c{id}"));
        connection.remote.address = remote;
        Peer { id: PeerId(id), connection: Arc::new(connection), local: None, remote: None }
    }

    #[test]
    fn a_peer_with_the_exact_address_comes_before_one_with_any() {
        let mut peers = Peers::default();
        peers.insert(peer(1, Address::Any));
        peers.insert(peer(2, Address::Ip("192.0.2.2".parse().unwrap())));
        peers.insert(peer(3, Address::Ip("192.0.2.3".parse().unwrap())));
        peers.insert(peer(4, Address::Prefix("192.0.2.0/24".parse().unwrap())));
        let (local, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let found: Vec<_> = peers.candidates(local, remote, Version::V2).iter().map(|p| p.id.0).collect();
        assert_eq!(found, [2, 4, 1]);
    }

    #[test]
    fn an_expected_identity_comes_before_any_identity() {
        let mut exact = peer(2, Address::Any);
        Arc::get_mut(&mut exact.connection).unwrap().remote.id = Some(Identity::Fqdn("b".into()));
        let (any, local) = (peer(1, Address::Any), "192.0.2.1".parse().unwrap());
        let fitting = Peers::identified(&[&any, &exact], &Identity::Fqdn("B".into()), None, local);
        assert_eq!(fitting.iter().map(|p| p.id.0).collect::<Vec<_>>(), [2, 1]);
        let fitting = Peers::identified(&[&any, &exact], &Identity::Fqdn("c".into()), None, local);
        assert_eq!(fitting.iter().map(|p| p.id.0).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn repetitions_grow_and_end() {
        let schedule = Retransmission::default();
        assert_eq!(schedule.wait(0), Some(Duration::from_secs(1)));
        assert_eq!(schedule.wait(1), Some(Duration::from_millis(1_800)));
        assert_eq!(schedule.wait(6), None);
        assert!(schedule.total() > Duration::from_secs(40));
    }
}
