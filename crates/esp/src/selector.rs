//! Whether a packet is what an SA was agreed for (RFC 4301 §4.4.1.1, §5.2).

use std::net::IpAddr;

use packet::{FlowKey, Ports};
use sa::TrafficSelector;

/// Whether `flow`, as seen when it leaves through the tunnel, is within the two selectors.
pub(crate) fn pair_covers(local: &TrafficSelector, remote: &TrafficSelector, flow: &FlowKey) -> bool {
    let (source, destination) = match flow.ports {
        Ports::Known { source, destination } => (Seen::Port(source), Seen::Port(destination)),
        Ports::Message(message) => (Seen::Port(message), Seen::Port(message)),
        Ports::Without => (Seen::Without, Seen::Without),
        Ports::Opaque => (Seen::Opaque, Seen::Opaque),
    };
    one_covers(local, flow.source, flow.protocol, source)
        && one_covers(remote, flow.destination, flow.protocol, destination)
}

/// Whether any pair of the two lists covers `flow`.
pub(crate) fn covers(local: &[TrafficSelector], remote: &[TrafficSelector], flow: &FlowKey) -> bool {
    local.iter().any(|local| remote.iter().any(|remote| pair_covers(local, remote, flow)))
}

#[derive(Clone, Copy)]
enum Seen {
    Port(u16),
    Without,
    Opaque,
}

fn one_covers(selector: &TrafficSelector, address: IpAddr, protocol: u8, port: Seen) -> bool {
    let any_port = selector.ports == (0, u16::MAX);
    selector.first <= address
        && address <= selector.last
        && (selector.protocol == 0 || selector.protocol == protocol)
        && match port {
            Seen::Port(port) => selector.ports.0 <= port && port <= selector.ports.1,
            Seen::Without => any_port,
            // RFC 4301 §4.4.1.1: ANY includes OPAQUE; a range of ports does not.
            Seen::Opaque => any_port || selector.ports == (u16::MAX, 0),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> TrafficSelector {
        model::Selector::net(text.parse().unwrap()).into()
    }

    fn flow(source: &str, destination: &str, protocol: u8, ports: Ports) -> FlowKey {
        FlowKey { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol, ports }
    }

    #[test]
    fn addresses_protocol_and_ports_all_have_to_fit() {
        let local = net("10.1.0.0/16");
        let web = TrafficSelector { protocol: 6, ports: (80, 81), ..net("10.2.0.0/16") };
        let known = |destination| Ports::Known { source: 5, destination };
        assert!(pair_covers(&local, &web, &flow("10.1.0.1", "10.2.0.1", 6, known(81))));
        assert!(!pair_covers(&local, &web, &flow("10.1.0.1", "10.2.0.1", 6, known(82))));
        assert!(!pair_covers(&local, &web, &flow("10.1.0.1", "10.2.0.1", 17, known(80))));
        assert!(!pair_covers(&local, &web, &flow("10.3.0.1", "10.2.0.1", 6, known(80))));
        assert!(!pair_covers(&local, &web, &flow("10.1.0.1", "10.3.0.1", 6, known(80))));
        assert!(!pair_covers(&local, &web, &flow("10.1.0.1", "10.2.0.1", 6, Ports::Opaque)));
        assert!(!pair_covers(&net("0.0.0.0/0"), &net("0.0.0.0/0"), &flow("::1", "::1", 6, known(80))));
    }

    #[test]
    fn opaque_ports_are_covered_by_any_and_by_opaque() {
        let any = net("10.0.0.0/8");
        let opaque = TrafficSelector { ports: (u16::MAX, 0), ..any };
        let later = flow("10.1.0.1", "10.2.0.1", 6, Ports::Opaque);
        assert!(pair_covers(&any, &any, &later) && pair_covers(&opaque, &opaque, &later));
        let seen = flow("10.1.0.1", "10.2.0.1", 6, Ports::Known { source: 1, destination: 2 });
        assert!(!pair_covers(&opaque, &opaque, &seen));
    }

    #[test]
    fn an_icmp_selector_names_type_and_code() {
        let echo = TrafficSelector { protocol: 1, ports: (0x0800, 0x08ff), ..net("10.0.0.0/8") };
        assert!(pair_covers(&echo, &echo, &flow("10.1.0.1", "10.2.0.1", 1, Ports::Message(0x0800))));
        assert!(!pair_covers(&echo, &echo, &flow("10.1.0.1", "10.2.0.1", 1, Ports::Message(0x0000))));
    }
}
