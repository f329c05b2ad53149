//! Raw sockets for plain ESP, IP protocol 50 (RFC 4303 §2), for peers without a NAT between.
//!
//! The kernel makes the outer header. A received datagram is the ESP packet alone: the IPv4 header that the kernel
//! hands out with it is taken off. Fragments come reassembled.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Protocol, Type};

use crate::datagram::{DatagramSocket, SocketOptions};

/// ESP's IP protocol number.
pub const ESP: i32 = 50;

/// Opens a raw socket that receives the ESP packets sent to `local`, or to any address of that family when it is
/// unspecified. Needs `CAP_NET_RAW`.
///
/// The kernel gives every such socket a copy of every ESP packet, also of those for other SAs.
///
/// # Errors
/// `PermissionDenied` without the capability, `AddrNotAvailable` when the address is not ours.
pub fn bind_esp(local: IpAddr, options: &SocketOptions) -> io::Result<DatagramSocket> {
    DatagramSocket::open(SocketAddr::new(local, 0), (Type::RAW, Protocol::from(ESP)), "ESP", options)
}
