//! Identification payloads: who someone is in phase 1, which traffic is meant in phase 2 (RFC 2407 §4.6.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::Identity;
use sa::TrafficSelector;

use crate::wire::v1::Id;

const IPV4: u8 = 1;
const FQDN: u8 = 2;
const USER_FQDN: u8 = 3;
const IPV4_SUBNET: u8 = 4;
const IPV6: u8 = 5;
const IPV6_SUBNET: u8 = 6;
const IPV4_RANGE: u8 = 7;
const IPV6_RANGE: u8 = 8;
const KEY_ID: u8 = 11;

/// The body of our identification payload. Protocol and port are 0: with NAT traversal the port may change
/// (RFC 3947 §4), and every peer takes it.
pub(super) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let (kind, data) = match identity {
        Identity::Ip(ip) => address(*ip),
        Identity::Subnet(net) => subnet(*net),
        Identity::Fqdn(name) => (FQDN, name.as_bytes().to_vec()),
        Identity::UserFqdn(name) => (USER_FQDN, name.as_bytes().to_vec()),
        Identity::KeyId(data) => (KEY_ID, data.clone()),
        Identity::Other { kind, data } => (*kind, data.clone()),
        // `Connection::local_id` never yields it; an empty key ID fits nobody.
        Identity::Any => (KEY_ID, Vec::new()),
    };
    Id { kind, protocol: 0, port: 0, data: &data }.encode()
}

/// The identity in an identification payload of phase 1; `None` where protocol and port are neither absent nor
/// those of IKE (RFC 2407 §4.6.2: 17 and 500 or both 0; RFC 3947 adds 4500 and a lone 17).
pub(super) fn decode_identity(id: &Id<'_>) -> Option<Identity> {
    if !matches!((id.protocol, id.port), (0 | 17, 0) | (17, 500 | 4500)) {
        return None;
    }
    let text = || String::from_utf8(id.data.to_vec()).ok();
    let identity = match id.kind {
        IPV4 | IPV6 => ip(id.kind == IPV4, id.data).map(Identity::Ip),
        IPV4_SUBNET | IPV6_SUBNET => net(id.kind == IPV4_SUBNET, id.data).map(Identity::Subnet),
        FQDN => text().map(Identity::Fqdn),
        USER_FQDN => text().map(Identity::UserFqdn),
        KEY_ID => Some(Identity::KeyId(id.data.to_vec())),
        _ => None,
    };
    Some(identity.unwrap_or_else(|| Identity::Other { kind: id.kind, data: id.data.to_vec() }))
}

/// The body of an identification payload of phase 2; `None` where IKEv1 has no words for the selector: a range of
/// ports.
pub(super) fn encode_selector(selector: &TrafficSelector) -> Option<Vec<u8>> {
    let port = match selector.ports {
        (0, u16::MAX) => 0,
        (first, last) if first == last => first,
        _ => return None,
    };
    let (kind, data) = match selector.as_net() {
        Some(net) if net.prefix_len() == net.max_prefix_len() => address(net.addr()),
        Some(net) => subnet(net),
        None => {
            let kind = if selector.first.is_ipv4() { IPV4_RANGE } else { IPV6_RANGE };
            (kind, [octets(selector.first), octets(selector.last)].concat())
        }
    };
    Some(Id { kind, protocol: selector.protocol, port, data: &data }.encode())
}

/// The traffic that an identification payload of phase 2 means; `None` for names, and for what is no range.
pub(super) fn decode_selector(id: &Id<'_>) -> Option<TrafficSelector> {
    let (first, last) = match id.kind {
        IPV4 | IPV6 => {
            let ip = ip(id.kind == IPV4, id.data)?;
            (ip, ip)
        }
        IPV4_SUBNET | IPV6_SUBNET => {
            let net = net(id.kind == IPV4_SUBNET, id.data)?;
            (net.network(), net.broadcast())
        }
        IPV4_RANGE | IPV6_RANGE => {
            let (first, last) = id.data.split_at_checked(id.data.len() / 2)?;
            (ip(id.kind == IPV4_RANGE, first)?, ip(id.kind == IPV4_RANGE, last)?)
        }
        _ => return None,
    };
    let ports = if id.port == 0 { (0, u16::MAX) } else { (id.port, id.port) };
    (first <= last).then_some(TrafficSelector { first, last, protocol: id.protocol, ports })
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(ip: IpAddr) -> (u8, Vec<u8>) {
    (if ip.is_ipv4() { IPV4 } else { IPV6 }, octets(ip))
}

fn subnet(net: IpNet) -> (u8, Vec<u8>) {
    let kind = if net.addr().is_ipv4() { IPV4_SUBNET } else { IPV6_SUBNET };
    (kind, [octets(net.network()), octets(net.netmask())].concat())
}

fn ip(is_v4: bool, data: &[u8]) -> Option<IpAddr> {
    if is_v4 {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into())
    } else {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into())
    }
}

/// A prefix written as address and mask.
fn net(is_v4: bool, data: &[u8]) -> Option<IpNet> {
    let (address, mask) = data.split_at_checked(data.len() / 2)?;
    IpNet::with_netmask(ip(is_v4, address)?, ip(is_v4, mask)?).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Selector;

    #[test]
    fn every_identity_comes_back_as_it_was() {
        for text in ["192.0.2.1", "2001:db8::1", "10.0.0.0/8", "2001:db8::/32", "@vpn.example", "a@b.example", "@#00ff"]
        {
            let Ok(identity) = text.parse::<Identity>();
            let body = encode_identity(&identity);
            assert_eq!(decode_identity(&Id::decode(&body).unwrap()), Some(identity), "{text}");
        }
    }

    #[test]
    fn protocol_and_port_of_an_identity_are_those_of_ike_or_absent() {
        let decode = |protocol, port| decode_identity(&Id { kind: FQDN, protocol, port, data: b"a" });
        for (protocol, port) in [(0, 0), (17, 0), (17, 500), (17, 4500)] {
            assert_eq!(decode(protocol, port), Some(Identity::Fqdn("a".into())));
        }
        assert_eq!(decode(6, 500), None);
        assert_eq!(decode(17, 501), None);
        let bad = Id { kind: IPV4, protocol: 0, port: 0, data: &[1, 2, 3] };
        assert_eq!(decode_identity(&bad), Some(Identity::Other { kind: IPV4, data: vec![1, 2, 3] }));
    }

    #[test]
    fn selectors_come_back_as_they_were_unless_they_have_a_range_of_ports() {
        let net = |text: &str| TrafficSelector::from(Selector::net(text.parse().unwrap()));
        let odd = TrafficSelector::range("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        let web = TrafficSelector { protocol: 6, ports: (80, 80), ..net("10.1.0.0/16") };
        for selector in [net("0.0.0.0/0"), net("10.60.0.0/16"), net("192.0.2.1/32"), net("::/0"), odd, web] {
            let body = encode_selector(&selector).unwrap();
            assert_eq!(decode_selector(&Id::decode(&body).unwrap()), Some(selector));
        }
        assert_eq!(encode_selector(&TrafficSelector { ports: (80, 90), ..web }), None);
    }

    #[test]
    fn a_mask_with_holes_and_a_range_backwards_mean_nothing() {
        let decode = |kind, data: &[u8]| decode_selector(&Id { kind, protocol: 0, port: 0, data });
        assert_eq!(decode(IPV4_SUBNET, &[10, 0, 0, 0, 255, 0, 255, 0]), None);
        assert_eq!(decode(IPV4_RANGE, &[10, 0, 0, 9, 10, 0, 0, 1]), None);
        assert_eq!(decode(FQDN, b"host"), None);
        assert_eq!(decode(IPV4_RANGE, &[10, 0, 0, 9, 10]), None);
    }
}
