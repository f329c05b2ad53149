//! Socket options of every socket of the control side, for either family.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::error::Tried;
use crate::sys;

/// Class Selector 6 (RFC 2474 §4.2.2.2) as a TOS octet: routing protocols go before the traffic that needs them.
const CS6: i32 = 48 << 2;

/// Where a socket sends from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Our address; `None` leaves it to the kernel.
    pub address: Option<IpAddr>,
    /// Through this device only, to and fro (`SO_BINDTODEVICE`).
    pub device: Option<String>,
}

/// Opens a socket that does not block, of the family of `like` and of no other.
pub(crate) fn open(like: IpAddr, ty: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(if like.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }, ty, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if like.is_ipv6() && ty != Type::RAW {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Sends and receives through a device only (`SO_BINDTODEVICE`), if one is given.
pub(crate) fn bind_device(socket: &Socket, device: Option<&str>) -> io::Result<()> {
    let Some(device) = device else { return Ok(()) };
    socket.bind_device(Some(device.as_bytes())).tried(|| format!("bind to the device {device}"))
}

/// Marks everything sent as control traffic.
pub(crate) fn set_cs6(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    let (level, name) = if v4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    sys::set_option(socket, level, name, CS6).tried(|| "set the traffic class to CS6".into())
}

/// Sets the TTL or hop limit of everything sent.
pub(crate) fn set_ttl(socket: BorrowedFd<'_>, v4: bool, ttl: u8) -> io::Result<()> {
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) };
    sys::set_option(socket, level, name, ttl.into()).tried(|| format!("set the TTL to {ttl}"))
}

/// Has the kernel drop what arrives with less than this TTL or hop limit; 0 takes everything (RFC 5082 §3).
pub(crate) fn set_min_ttl(socket: BorrowedFd<'_>, v4: bool, ttl: u8) -> io::Result<()> {
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) };
    sys::set_option(socket, level, name, ttl.into()).tried(|| format!("set the least TTL to {ttl}"))
}

/// Whether a socket is of IPv4.
pub(crate) fn is_v4(socket: impl AsFd) -> io::Result<bool> {
    Ok(SockRef::from(&socket).domain()? == Domain::IPV4)
}

/// Sets a socket option that is a structure, given as its bytes.
#[expect(unsafe_code, reason = "setsockopt for options that neither nix nor socket2 knows")]
pub(crate) fn set_bytes(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: `value` is live and `len` bytes long; the kernel only reads it, during the call.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
