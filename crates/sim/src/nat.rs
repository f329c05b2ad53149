//! A NAT in front of one host.

use std::net::{IpAddr, SocketAddr};

use crate::Datagram;

/// A NAT that translates the address of one inside host, and its ports too unless it is one to one.
#[derive(Debug)]
pub struct Nat {
    inside: IpAddr,
    outside: IpAddr,
    /// Inside port, remote address, outside port.
    mappings: Vec<(u16, SocketAddr, u16)>,
    next_port: u16,
    is_one_to_one: bool,
}

impl Nat {
    /// Many to one: each flow gets a port of its own, and only answers come in.
    pub fn masquerade(inside: IpAddr, outside: IpAddr) -> Self {
        Self { inside, outside, mappings: Vec::new(), next_port: 20_000, is_one_to_one: false }
    }

    /// One to one: the address alone is translated, in both directions, as an elastic IP does.
    pub fn one_to_one(inside: IpAddr, outside: IpAddr) -> Self {
        Self { is_one_to_one: true, ..Self::masquerade(inside, outside) }
    }

    /// Forgets its mappings: the next datagram of each flow gets another port.
    pub fn rebind(&mut self) {
        self.mappings.clear();
    }

    /// Moves to another outside address and forgets its mappings.
    pub fn rebind_to(&mut self, outside: IpAddr) {
        self.outside = outside;
        self.rebind();
    }

    pub(crate) fn outbound(&mut self, datagram: &mut Datagram) {
        if datagram.source.ip() != self.inside {
            return;
        }
        let port = if self.is_one_to_one { datagram.source.port() } else { self.port_for(datagram) };
        datagram.source = SocketAddr::new(self.outside, port);
    }

    fn port_for(&mut self, datagram: &Datagram) -> u16 {
        let flow = (datagram.source.port(), datagram.destination);
        let known = self.mappings.iter().find(|(inside, remote, _)| (*inside, *remote) == flow);
        if let Some((.., port)) = known {
            return *port;
        }
        self.next_port += 1;
        self.mappings.push((flow.0, flow.1, self.next_port));
        self.next_port
    }

    /// Translates the destination back; false when nothing inside is waiting for it.
    pub(crate) fn inbound(&mut self, datagram: &mut Datagram) -> bool {
        if datagram.destination.ip() == self.inside {
            // Nobody outside can send to the inside address itself.
            return false;
        }
        if datagram.destination.ip() != self.outside {
            return true;
        }
        let (port, from) = (datagram.destination.port(), datagram.source);
        let known = self.mappings.iter().find(|(_, remote, outside)| (*outside, *remote) == (port, from));
        let inside_port = if self.is_one_to_one { Some(port) } else { known.map(|(inside, ..)| *inside) };
        match inside_port {
            Some(inside_port) => {
                datagram.destination = SocketAddr::new(self.inside, inside_port);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(source: &str, destination: &str) -> Datagram {
        Datagram { source: source.parse().unwrap(), destination: destination.parse().unwrap(), payload: vec![] }
    }

    #[test]
    fn answers_find_their_way_back_and_strangers_do_not() {
        let mut nat = Nat::masquerade("10.0.0.1".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let mut out = datagram("10.0.0.1:500", "198.51.100.1:500");
        nat.outbound(&mut out);
        assert_eq!(out.source, "203.0.113.1:20001".parse().unwrap());
        let mut back = datagram("198.51.100.1:500", "203.0.113.1:20001");
        assert!(nat.inbound(&mut back));
        assert_eq!(back.destination, "10.0.0.1:500".parse().unwrap());
        assert!(!nat.inbound(&mut datagram("198.51.100.2:500", "203.0.113.1:20001")));
        nat.rebind();
        assert!(!nat.inbound(&mut datagram("198.51.100.1:500", "203.0.113.1:20001")));
    }

    #[test]
    fn one_to_one_lets_everyone_in_on_the_same_port() {
        let mut nat = Nat::one_to_one("10.0.0.1".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let mut inward = datagram("198.51.100.1:500", "203.0.113.1:500");
        assert!(nat.inbound(&mut inward));
        assert_eq!(inward.destination, "10.0.0.1:500".parse().unwrap());
    }
}
