//! Tells a link that an address of ours is here now: gratuitous ARP (RFC 5227 §3) and unsolicited neighbour
//! advertisements (RFC 4861 §7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::Tried;
use crate::sys;

/// ETH_P_ARP.
const ARP: u16 = 0x0806;
/// Where an IPv6 host listens, whoever it is.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Says on a device that `address` has this hardware address. The address must be the device's own by then.
///
/// # Errors
/// What the kernel says: without `CAP_NET_RAW`, `PermissionDenied`.
pub fn announce(device: u32, hardware: [u8; 6], address: IpAddr) -> io::Result<()> {
    let tried = || format!("announce {address} on device {device}");
    match address {
        IpAddr::V4(ip) => announce_v4(device, hardware, ip).tried(tried),
        IpAddr::V6(ip) => announce_v6(device, hardware, ip).tried(tried),
    }
}

fn announce_v4(device: u32, hardware: [u8; 6], ip: Ipv4Addr) -> io::Result<()> {
    // Protocol 0: it receives nothing.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
    let everybody = sys::link_address(device, ARP, [0xff; 6])?;
    // Hosts differ in which of the two they heed.
    for operation in [1, 2] {
        socket.send_to(&arp(operation, hardware, ip), &everybody)?;
    }
    Ok(())
}

/// A request or a reply of which sender and target are the same.
fn arp(operation: u8, hardware: [u8; 6], ip: Ipv4Addr) -> [u8; 28] {
    let mut packet = [0; 28];
    // Ethernet, IPv4, and the lengths of their addresses.
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    packet[8..14].copy_from_slice(&hardware);
    packet[14..18].copy_from_slice(&ip.octets());
    packet[18..24].copy_from_slice(&if operation == 1 { [0; 6] } else { hardware });
    packet[24..].copy_from_slice(&ip.octets());
    packet
}

fn announce_v6(device: u32, hardware: [u8; 6], ip: Ipv6Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // RFC 4861 §7.1.2: whoever hears it refuses another hop limit.
    sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 255)?;
    socket.set_multicast_if_v6(device)?;
    socket.bind(&SocketAddrV6::new(ip, 0, 0, if ip.is_unicast_link_local() { device } else { 0 }).into())?;
    // Type 136; router and override. The kernel fills in the checksum.
    let mut packet = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    packet.extend(ip.octets());
    packet.extend([2, 1]);
    packet.extend(hardware);
    socket.send_to(&packet, &SockAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, device)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_a_request_for_the_own_address() {
        let packet = arp(1, [2, 0, 0, 0, 0, 9], [192, 0, 2, 1].into());
        assert_eq!(packet, [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    }
}
