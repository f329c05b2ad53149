//! Hosts on a network, driven through virtual time.

use std::net::IpAddr;
use std::time::Duration;

use base::{Deadline, Instant};

use crate::{Datagram, Network};

/// What the world needs of a host.
pub trait Host {
    /// Its address behind any NAT.
    fn address(&self) -> IpAddr;

    /// A datagram arrived.
    fn receive(&mut self, datagram: Datagram, now: Instant);

    /// Something is due.
    fn wake(&mut self, now: Instant);

    /// When something is due.
    fn deadline(&self) -> Option<Deadline>;

    /// Takes the datagrams that it wants sent.
    fn outgoing(&mut self) -> Vec<Datagram>;
}

/// Hosts, the network between them, and the time.
#[derive(Debug)]
pub struct World<H> {
    /// The hosts.
    pub hosts: Vec<H>,
    /// The network.
    pub network: Network,
    /// The time.
    pub now: Instant,
}

/// Steps within one moment after which a host is said to spin.
const SPIN: u32 = 20_000;

impl<H: Host> World<H> {
    /// A world at time zero.
    pub fn new(network: Network, hosts: Vec<H>) -> Self {
        Self { hosts, network, now: Instant::ZERO }
    }

    /// Lets `time` pass.
    ///
    /// # Panics
    /// When a host wants to be woken again and again without time passing.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done` or until `end`; says whether it was done.
    ///
    /// # Panics
    /// When a host wants to be woken again and again without time passing.
    pub fn run_until(&mut self, end: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        let (mut steps, mut last) = (0, self.now);
        loop {
            self.collect();
            if done(self) {
                return true;
            }
            let deadline = self.hosts.iter().filter_map(H::deadline).min();
            let next = [deadline.map(|d| d.at), self.network.next_arrival()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(next);
            steps = if self.now == last { steps + 1 } else { 0 };
            last = self.now;
            assert!(steps < SPIN, "time stands still at {:?}: {deadline:?}", self.now);
            self.step();
        }
    }

    /// Delivers what has arrived and wakes who is due.
    fn step(&mut self) {
        while let Some(datagram) = self.network.arrive(self.now) {
            let to = datagram.destination.ip();
            if let Some(host) = self.hosts.iter_mut().find(|host| host.address() == to) {
                host.receive(datagram, self.now);
            }
        }
        for host in &mut self.hosts {
            if host.deadline().is_some_and(|deadline| deadline.at <= self.now) {
                host.wake(self.now);
            }
        }
    }

    fn collect(&mut self) {
        for host in &mut self.hosts {
            for datagram in host.outgoing() {
                self.network.send(datagram, self.now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Link;

    /// Sends a number to its peer, and sends back what it gets less one.
    struct Counter {
        address: IpAddr,
        got: Vec<u8>,
        out: Vec<Datagram>,
    }

    impl Host for Counter {
        fn address(&self) -> IpAddr {
            self.address
        }

        fn receive(&mut self, datagram: Datagram, _: Instant) {
            self.got.push(datagram.payload[0]);
            if let Some(less) = datagram.payload[0].checked_sub(1) {
                self.out.push(Datagram {
                    source: datagram.destination,
                    destination: datagram.source,
                    payload: vec![less],
                });
            }
        }

        fn wake(&mut self, _: Instant) {}

        fn deadline(&self) -> Option<Deadline> {
            None
        }

        fn outgoing(&mut self) -> Vec<Datagram> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn datagrams_take_their_time_and_all_arrive() {
        let host = |address: &str| Counter { address: address.parse().unwrap(), got: vec![], out: vec![] };
        let mut world = World::new(Network::new(Link::default(), 1), vec![host("10.0.0.1"), host("10.0.0.2")]);
        world.hosts[0].out.push(Datagram {
            source: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:1".parse().unwrap(),
            payload: vec![3],
        });
        let done = world.run_until(Instant::from_micros(1_000_000), |w| w.hosts[0].got.contains(&0));
        assert!(done);
        assert_eq!((&world.hosts[1].got[..], &world.hosts[0].got[..]), (&[3, 1][..], &[2, 0][..]));
        assert_eq!(world.now, Instant::from_micros(40_000));
        assert_eq!(world.network.wire.len(), 4);
    }
}
