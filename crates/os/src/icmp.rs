//! ICMP errors about packets of this host, as anyone may send them (RFC 792, RFC 4443 §3).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Protocol, SockFilter, Type};
use tokio::io::unix::AsyncFd;

use crate::error::Tried;
use crate::{ready, sockopt};

/// Bytes that the kernel keeps for us: a flood of errors costs no more.
const BUFFER: usize = 16 << 10;
/// Of a message, what is read: IP header with options, ICMP header, the quoted packet's header, and more than enough of it.
const LONGEST: usize = 60 + 8 + 60 + 64;

/// A raw socket that gets a copy of each error, and nothing else. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct IcmpErrors {
    socket: AsyncFd<OwnedFd>,
    is_v4: bool,
}

impl IcmpErrors {
    /// Opens a socket for one family. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without the capability, and whatever the kernel says where it lacks the family.
    pub fn open(is_v4: bool) -> io::Result<Self> {
        let tried = || "open a socket for ICMP errors".to_owned();
        let (like, protocol): (IpAddr, _) =
            if is_v4 { ([0; 4].into(), Protocol::ICMPV4) } else { ([0; 16].into(), Protocol::ICMPV6) };
        let socket = sockopt::open(like, Type::RAW, protocol).tried(tried)?;
        socket.attach_filter(&only_errors(is_v4)).tried(tried)?;
        socket.set_recv_buffer_size(BUFFER).tried(tried)?;
        Ok(Self { socket: ready::register(socket.into())?, is_v4 })
    }

    /// Waits for an error, and returns the beginning of the ICMP message without the IP header before it. Nothing is lost
    /// when this is dropped before it is done.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn heard(&self) -> io::Result<Vec<u8>> {
        let mut bytes = [0; LONGEST];
        loop {
            let mut ready = self.socket.readable().await?;
            let received =
                ready.try_io(|socket| Ok(recv(socket.get_ref().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?));
            let Ok(received) = received else { continue };
            let packet = bytes.get(..received?).unwrap_or_default();
            // A raw IPv4 socket also gets the IP header (RFC 791 §3.1: IHL counts 32-bit words).
            let header = if self.is_v4 { usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4 } else { 0 };
            return Ok(packet.get(header..).unwrap_or_default().to_vec());
        }
    }
}

/// A program for the kernel (classic BPF) that passes on errors only. A raw IPv4 socket sees the IP header, a raw IPv6
/// socket does not.
fn only_errors(is_v4: bool) -> [SockFilter; 8] {
    let code = |bits: u32| libc::c_ushort::try_from(bits).unwrap_or_default();
    let line = |bits: u32, value: u32| SockFilter::new(code(bits), 0, 0, value);
    let when = |value: u32, skip: u8| SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ), skip, 0, value);
    let start = if is_v4 {
        line(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0)
    } else {
        line(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0)
    };
    // Destination unreachable, time exceeded, parameter problem; for IPv6 also packet too big.
    let types = if is_v4 { [3, 11, 12, 12] } else { [1, 2, 3, 4] };
    [
        start,
        line(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0),
        when(types[0], 4),
        when(types[1], 3),
        when(types[2], 2),
        when(types[3], 1),
        line(libc::BPF_RET, 0),
        line(libc::BPF_RET, u32::MAX),
    ]
}
