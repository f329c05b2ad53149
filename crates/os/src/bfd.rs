//! UDP for BFD (RFC 5881): packets that say with which TTL, to which address and through which device they came, and that
//! leave with TTL 255, as control traffic (DSCP CS6), from a chosen address through a chosen device.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use socket2::{Protocol, SockRef, Type};
use tokio::io::unix::AsyncFd;

use crate::error::Tried;
use crate::{ready, sockopt, sys};

/// Where BFD Control packets are sent to (RFC 5881 §4).
pub const PORT: u16 = 3784;
/// Where they are sent to over several hops (RFC 5883 §5).
pub const PORT_MULTIHOP: u16 = 4784;
/// A session sends from one port of its own in this range (RFC 5881 §4).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Where a packet came from and to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address of ours that it was sent to.
    pub local: IpAddr,
    /// The index of the device that it came through.
    pub device: u32,
    /// Its TTL or hop limit: 255 when it comes from the same link and nowhere else (RFC 5881 §5).
    pub ttl: u8,
    /// The length of the payload in bytes; what did not fit is cut off.
    pub len: usize,
}

/// Where a packet is to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// The source address; `None` leaves it to the socket or the kernel.
    pub local: Option<IpAddr>,
    /// The index of the device; `None` leaves it to the routes.
    pub device: Option<u32>,
}

/// A UDP socket for BFD, of one family.
#[derive(Debug)]
pub struct BfdSocket {
    socket: AsyncFd<OwnedFd>,
    local: SocketAddr,
}

impl BfdSocket {
    /// Opens a socket: to listen at the unspecified address and [`PORT`], to send from an address and a port of
    /// [`SOURCE_PORTS`]. An IPv6 socket is for IPv6 only. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `AddrInUse` when another BFD daemon has the port, `AddrNotAvailable` when the address is not ours, `NotFound`
    /// when there is no such device.
    pub fn bind(local: SocketAddr, device: Option<&str>) -> io::Result<Self> {
        let tried = || format!("bind UDP {local} for BFD");
        let socket = sockopt::open(local.ip(), Type::DGRAM, Protocol::UDP).tried(tried)?;
        sockopt::bind_device(&socket, device)?;
        let v4 = local.is_ipv4();
        let told = if v4 {
            [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_PKTINFO)]
        } else {
            [(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)]
        };
        for (level, name) in told {
            sys::set_option(socket.as_fd(), level, name, 1).tried(tried)?;
        }
        sockopt::set_ttl(socket.as_fd(), v4, 255)?;
        sockopt::set_cs6(socket.as_fd(), v4)?;
        socket.bind(&local.into()).tried(tried)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        Ok(Self { socket: ready::register(socket.into())?, local })
    }

    /// The address it is bound to, with the port that the kernel chose if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Makes the receive buffer this large, in bytes as the kernel counts them: a listener serves all sessions.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(self.socket.get_ref()).set_recv_buffer_size(bytes)
    }

    /// Waits for a packet. Nothing is lost when this is dropped before it is done.
    ///
    /// # Errors
    /// `ConnectionRefused` and the like concern a packet that was sent earlier: receiving goes on.
    pub async fn recv(&self, bytes: &mut [u8]) -> io::Result<Arrival> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref(), bytes)) {
                Ok(Ok(Some(arrival))) => return Ok(arrival),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(e)) => return Err(e),
            }
        }
    }

    /// Sends a packet; it does not wait.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full; whatever stands in the way of this packet. The next one may pass.
    pub fn send(&self, bytes: &[u8], remote: SocketAddr, by: Departure) -> io::Result<()> {
        let tried = || format!("send to {remote}");
        let index = by.device.unwrap_or(0);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let (v4, v6);
        let control = match (remote, by.local) {
            (SocketAddr::V4(_), Some(IpAddr::V6(_))) | (SocketAddr::V6(_), Some(IpAddr::V4(_))) => {
                return Err(io::Error::from(io::ErrorKind::InvalidInput)).tried(tried);
            }
            (SocketAddr::V4(_), local) => {
                let local = if let Some(IpAddr::V4(ip)) = local { ip } else { Ipv4Addr::UNSPECIFIED };
                v4 = libc::in_pktinfo {
                    ipi_ifindex: i32::try_from(index).unwrap_or(0),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            (SocketAddr::V6(_), local) => {
                let local = if let Some(IpAddr::V6(ip)) = local { ip } else { Ipv6Addr::UNSPECIFIED };
                v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: index };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let to = SockaddrStorage::from(remote);
        let socket = self.socket.get_ref().as_raw_fd();
        sendmsg(socket, &[IoSlice::new(bytes)], &[control], flags, Some(&to)).tried(tried)?;
        Ok(())
    }
}

impl AsFd for BfdSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// One packet; nothing when it does not say what it must.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other control messages were not asked for")]
fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<Option<Arrival>> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let mut parts = [IoSliceMut::new(bytes)];
    let fd = socket.as_raw_fd();
    let message = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EINTR) => return Ok(None),
        message => message?,
    };
    let (mut ttl, mut to) = (None, None);
    for said in message.cmsgs()? {
        match said {
            ControlMessageOwned::Ipv4Ttl(said) => ttl = u8::try_from(said).ok(),
            ControlMessageOwned::Ipv6HopLimit(said) => ttl = u8::try_from(said).ok(),
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let ip = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                to = Some((IpAddr::V4(ip), u32::try_from(info.ipi_ifindex).unwrap_or(0)));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some((IpAddr::V6(info.ipi6_addr.s6_addr.into()), info.ipi6_ifindex));
            }
            _ => {}
        }
    }
    let remote = message.address.as_ref().and_then(address);
    let (Some(remote), Some(ttl), Some((local, device))) = (remote, ttl, to) else { return Ok(None) };
    Ok(Some(Arrival { remote, local, device, ttl, len: message.bytes }))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
