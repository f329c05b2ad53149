//! Packets that ask the other end of a tunnel for an answer: ICMP echo (RFC 792, RFC 4443 §4) and UDP.
//!
//! An echo takes a raw socket (`CAP_NET_RAW`), with a filter in the kernel so that only its own answers wake us, or else a
//! "ping" socket where `net.ipv4.ping_group_range` allows it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Protocol, SockFilter, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use crate::error::Tried;
use crate::ready;
use crate::sockopt::{self, Origin};

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// The longest payload of an echo, in bytes.
pub const MAX_PAYLOAD: usize = 1_400;

/// The types of an echo request and its reply.
const fn types(v4: bool) -> (u8, u8) {
    if v4 { (8, 0) } else { (128, 129) }
}

/// A socket that asks one address for ICMP echoes.
#[derive(Debug)]
pub struct Echo {
    socket: AsyncFd<OwnedFd>,
    identifier: u16,
    v4: bool,
    raw: bool,
}

impl Echo {
    /// Opens a socket. `identifier` tells its echoes from those of others on this host, who may ask the same address.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW` and outside of `net.ipv4.ping_group_range`; `AddrNotAvailable` when the
    /// address is not ours; `NetworkUnreachable` without a route; `NotFound` when there is no such device.
    pub fn open(remote: IpAddr, from: &Origin, identifier: u16) -> io::Result<Self> {
        let tried = || format!("open a socket for ICMP echoes from {remote}");
        let v4 = remote.is_ipv4();
        let protocol = if v4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let (socket, raw) = match sockopt::open(remote, Type::RAW, protocol) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                (sockopt::open(remote, Type::DGRAM, protocol).tried(tried)?, false)
            }
            socket => (socket.tried(tried)?, true),
        };
        if raw {
            socket.attach_filter(&only_replies(v4, identifier)).tried(tried)?;
        }
        sockopt::bind_device(&socket, from.device.as_deref())?;
        sockopt::set_cs6(socket.as_fd(), v4)?;
        let any: IpAddr = if v4 { [0; 4].into() } else { [0; 16].into() };
        // To a ping socket, the port is the identifier.
        let local = SocketAddr::new(from.address.unwrap_or(any), if raw { 0 } else { identifier });
        socket.bind(&local.into()).tried(tried)?;
        socket.connect(&SocketAddr::new(remote, 0).into()).tried(tried)?;
        Ok(Self { socket: ready::register(socket.into())?, identifier, v4, raw })
    }

    /// Asks for an echo of this number; it does not wait. Of `payload` at most [`MAX_PAYLOAD`] bytes are sent.
    ///
    /// # Errors
    /// Whatever stands in the way of this packet, or of one before it. The next one may pass.
    pub fn ask(&self, sequence: u16, payload: &[u8]) -> io::Result<()> {
        let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
        let mut packet = Vec::with_capacity(HEADER + payload.len());
        packet.extend([types(self.v4).0, 0, 0, 0]);
        packet.extend(self.identifier.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(payload);
        if self.v4 {
            // The kernel fills it in for ICMPv6 (RFC 3542 §3.1) and for ping sockets.
            let sum = checksum(&packet).to_be_bytes();
            packet.iter_mut().skip(2).zip(sum).for_each(|(to, from)| *to = from);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.get_ref().as_raw_fd(), &packet, flags).tried(|| "ask for an ICMP echo".into())?;
        Ok(())
    }

    /// Waits for an echo and returns its number. `payload` gets what came with it, and the length is the second. Nothing
    /// is lost when this is dropped before it is done.
    ///
    /// # Errors
    /// What an ICMP message says of an earlier request, such as `HostUnreachable`: receiving goes on.
    pub async fn answered(&self, payload: &mut [u8]) -> io::Result<(u16, usize)> {
        let mut bytes = [0; 60 + HEADER + MAX_PAYLOAD];
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let fd = socket.get_ref().as_raw_fd();
                Ok(recv(fd, &mut bytes, MsgFlags::MSG_DONTWAIT)?)
            });
            let Ok(received) = received else { continue };
            let packet = bytes.get(..received?).unwrap_or_default();
            if let Some((sequence, answer)) = self.reply(packet) {
                payload.iter_mut().zip(answer).for_each(|(to, from)| *to = *from);
                return Ok((sequence, answer.len().min(payload.len())));
            }
        }
    }

    /// The number and the payload of a packet that is an answer to us.
    fn reply<'a>(&self, packet: &'a [u8]) -> Option<(u16, &'a [u8])> {
        // A raw IPv4 socket also gets the IP header (RFC 791 §3.1: IHL counts 32-bit words).
        let header = if self.v4 && self.raw { usize::from(packet.first()? & 0x0f) * 4 } else { 0 };
        let (icmp, payload) = packet.get(header..)?.split_first_chunk::<HEADER>()?;
        let [kind, _, _, _, id_high, id_low, high, low] = *icmp;
        // The kernel has compared the identifier for a ping socket, which may have been given another.
        let ours = !self.raw || u16::from_be_bytes([id_high, id_low]) == self.identifier;
        (kind == types(self.v4).1 && ours).then_some((u16::from_be_bytes([high, low]), payload))
    }
}

/// A UDP socket that speaks with one address only. Must be called within a tokio runtime.
///
/// # Errors
/// As [`Echo::open`].
pub fn udp(remote: SocketAddr, from: &Origin) -> io::Result<UdpSocket> {
    let tried = || format!("open a UDP socket for probes of {remote}");
    let socket = sockopt::open(remote.ip(), Type::DGRAM, Protocol::UDP).tried(tried)?;
    sockopt::bind_device(&socket, from.device.as_deref())?;
    sockopt::set_cs6(socket.as_fd(), remote.is_ipv4())?;
    if let Some(address) = from.address {
        socket.bind(&SocketAddr::new(address, 0).into()).tried(tried)?;
    }
    socket.connect(&remote.into()).tried(tried)?;
    UdpSocket::from_std(socket.into())
}

/// A program for the kernel (classic BPF) that passes on echo replies with this identifier only. A raw IPv4 socket sees
/// the IP header, a raw IPv6 socket does not.
fn only_replies(v4: bool, identifier: u16) -> [SockFilter; 7] {
    let code = |bits: u32| libc::c_ushort::try_from(bits).unwrap_or_default();
    let line = |bits: u32, value: u32| SockFilter::new(code(bits), 0, 0, value);
    let unless = |value: u32, skip: u8| SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ), 0, skip, value);
    // The index register: the length of the IP header.
    let start = if v4 {
        line(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0)
    } else {
        line(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0)
    };
    [
        start,
        line(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0),
        unless(types(v4).1.into(), 3),
        line(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 4),
        unless(identifier.into(), 1),
        line(libc::BPF_RET, u32::MAX),
        line(libc::BPF_RET, 0),
    ]
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        let high = pair.first().copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([high, pair.get(1).copied().unwrap_or(0)]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_rfc_1071() {
        // RFC 1071 §3: the sum of these is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff; 3_000]), 0);
        assert_eq!(checksum(&[1]), !0x0100);
    }
}
