//! Traffic as ipsec.conf writes it: `10.0.0.0/16`, `10.0.0.1`, `10.0.0.0/255.255.0.0`, `10.0.0.0/16[tcp/80]`.

use std::net::IpAddr;

use ipnet::IpNet;
use model::Selector;

/// Reads a prefix, an address alone (all its bits count) or an address with a netmask. The host part is kept.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(net) = text.parse() {
        return Ok(net);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let with_mask = text.split_once('/').and_then(|(ip, mask)| {
        let prefix = ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok()?;
        IpNet::new(ip.parse().ok()?, prefix).ok()
    });
    with_mask.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/16"))
}

/// Protocols by name. Numbers of the IANA registry "Protocol Numbers".
const PROTOCOLS: [(&str, u8); 12] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ospf", 89),
    ("sctp", 132),
];

/// Services that configurations name. Any other port is a number.
const SERVICES: [(&str, u16); 8] = [
    ("ssh", 22),
    ("domain", 53),
    ("http", 80),
    ("bgp", 179),
    ("snmp", 161),
    ("https", 443),
    ("l2tp", 1701),
    ("l2f", 1701),
];

/// Reads `tcp/80`, `17/1701`, `tcp`, `6`, `udp/%any`, `tcp/1000-2000`, `%any/%any`.
pub(crate) fn parse_protocol_and_ports(text: &str) -> Result<(u8, (u16, u16)), String> {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
    let lower = protocol.to_ascii_lowercase();
    let protocol = match lower.as_str() {
        "" | "%any" | "any" => 0,
        name => match PROTOCOLS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => *number,
            None => name.parse().map_err(|_| format!("{protocol:?} is not a protocol such as tcp or 17"))?,
        },
    };
    Ok((protocol, parse_ports(ports)?))
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let fault = || format!("{text:?} is not a port such as 80 or 1000-2000");
    let port = |text: &str| {
        let named = SERVICES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, port)| *port);
        named.or_else(|| text.parse().ok()).ok_or_else(fault)
    };
    match text {
        "" | "%any" | "any" => Ok((0, u16::MAX)),
        "%opaque" | "opaque" => Err("opaque ports are not supported".to_owned()),
        range => match range.split_once('-') {
            None => port(range).map(|port| (port, port)),
            Some((first, last)) => Ok((port(first)?, port(last)?)),
        },
    }
}

/// Reads a selector, with protocol and ports in brackets where they matter. The host part of the prefix is cut off.
pub(crate) fn parse_selector(text: &str) -> Result<Selector, String> {
    let (net, behind) = match text.split_once('[') {
        None => (text, None),
        Some((net, behind)) => {
            let inner = behind.strip_suffix(']').ok_or_else(|| "the bracket is not closed".to_owned())?;
            (net, Some(inner))
        }
    };
    let (protocol, ports) = behind.map_or(Ok((0, (0, u16::MAX))), parse_protocol_and_ports)?;
    Ok(Selector { net: parse_net(net)?.trunc(), protocol, ports })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_traffic_is_read() {
        for (text, shown) in [
            ("10.60.0.0/16", "10.60.0.0/16"),
            ("10.60.1.2/16", "10.60.0.0/16"),
            ("10.60.1.2", "10.60.1.2/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/255.255.0.0", "10.0.0.0/16"),
            ("10.0.0.0/16[tcp/80]", "10.0.0.0/16[6/80]"),
            ("10.0.0.0/16[17]", "10.0.0.0/16[17]"),
            ("10.0.0.0/16[/53]", "10.0.0.0/16[0/53]"),
            ("10.0.0.0/16[udp/1000-2000]", "10.0.0.0/16[17/1000-2000]"),
            ("10.0.0.0/16[udp/l2tp]", "10.0.0.0/16[17/1701]"),
            ("10.0.0.0/16[icmp/%any]", "10.0.0.0/16[1]"),
        ] {
            assert_eq!(parse_selector(text).map(|s| s.to_string()).as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_traffic_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/16", "10.0.0.0/16[tcp/80", "10.0.0.0/16[nope]", "10.0.0.0/16[tcp/x]"] {
            assert!(parse_selector(text).is_err(), "{text}");
        }
    }
}
