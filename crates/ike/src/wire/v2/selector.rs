//! The traffic selector payload (RFC 7296 §3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::error::Malformed;
use sa::TrafficSelector;

const IPV4_RANGE: u8 = 7;
const IPV6_RANGE: u8 = 8;

/// Reads the selectors; those of types that are not known are left out, as narrowing allows (RFC 7296 §2.9).
pub(super) fn decode(body: &[u8]) -> Result<Vec<TrafficSelector>, Malformed> {
    let (&[count, ..], mut rest) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let (mut selectors, mut seen) = (Vec::new(), 0);
    while !rest.is_empty() {
        let (&[kind, protocol, high, low], _) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (own, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        let own = own.get(4..).ok_or(Malformed::BadLength)?;
        match kind {
            IPV4_RANGE => selectors.push(range::<4, Ipv4Addr>(protocol, own)?),
            IPV6_RANGE => selectors.push(range::<16, Ipv6Addr>(protocol, own)?),
            _ => {}
        }
        seen += 1;
        rest = after;
    }
    if seen == usize::from(count) { Ok(selectors) } else { Err(Malformed::BadField("number of selectors")) }
}

fn range<const N: usize, Ip: From<[u8; N]> + Into<IpAddr>>(
    protocol: u8,
    body: &[u8],
) -> Result<TrafficSelector, Malformed> {
    let (&[a, b, c, d], rest) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let (first, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
    let (last, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
    if !rest.is_empty() {
        return Err(Malformed::BadLength);
    }
    let (first, last) = (Ip::from(*first).into(), Ip::from(*last).into());
    let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let is_opaque = ports == (u16::MAX, 0);
    if first > last || ports.0 > ports.1 && !is_opaque {
        return Err(Malformed::BadField("range of a selector"));
    }
    Ok(TrafficSelector { first, last, protocol, ports })
}

/// Appends at most 255 selectors.
pub(super) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let count = u8::try_from(selectors.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[count, 0, 0, 0]);
    for selector in selectors.iter().take(255) {
        let kind = if selector.first.is_ipv4() { IPV4_RANGE } else { IPV6_RANGE };
        let length: u8 = if selector.first.is_ipv4() { 16 } else { 40 };
        out.extend_from_slice(&[kind, selector.protocol, 0, length]);
        out.extend_from_slice(&selector.ports.0.to_be_bytes());
        out.extend_from_slice(&selector.ports.1.to_be_bytes());
        for ip in [selector.first, selector.last] {
            match ip {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
    }
}
