//! A socket that says where each datagram came to, and sends from where it is told: [`DatagramSocket`], which
//! [`crate::udp`] and [`crate::raw`] open.
//!
//! `IP_PKTINFO` and `IPV6_RECVPKTINFO` (RFC 3542 §6) give the local address, which one socket on the unspecified
//! address needs: IKE answers from the address it was asked at (RFC 7296 §2.11). `IP_RECVTOS` and `IPV6_RECVTCLASS`
//! give the traffic class, whose ECN bits a tunnel carries on (RFC 6040). Raw IPv4 needs neither: it has the header.
//!
//! Datagrams travel in batches (`recvmmsg`, `sendmmsg`): up to 64 by one system call. Datagrams of one UDP flow with
//! equal lengths may also travel as one that the kernel cuts up as late as it can ([`Run`], `UDP_SEGMENT`), and be
//! received as one ([`DatagramSocket::set_coalescing`], `UDP_GRO`, [`Arrival::segment`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::control::{Control, Name};
use crate::error::Tried;
use crate::sys::{self, Incoming, MAX_BATCH, Outgoing};

/// What the "don't fragment" bit of outgoing IPv4 packets is, and what happens to a datagram that does not fit
/// (`IP_MTU_DISCOVER`; for IPv6 only the second matters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// DF is clear: routers may fragment, and so does this host. Right for large IKE messages.
    Allow,
    /// DF is set; this host fragments what exceeds the path MTU it has learnt (the kernel's default).
    PathMtu,
    /// DF is set; what exceeds the learnt path MTU is refused with `EMSGSIZE`.
    Forbid,
    /// DF is set; the learnt path MTU is not looked at, and only what exceeds the device's MTU is refused.
    Probe,
}

/// How to open a [`DatagramSocket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The receive and send buffer, each, in bytes as the kernel counts them. 8 MB by default: bursts of a fast tunnel
    /// overflow the 212 KB that Linux gives. Without `CAP_NET_ADMIN` the kernel caps it at `net.core.[rw]mem_max`.
    pub buffer: usize,
    /// `PathMtu` by default.
    pub fragmentation: Fragmentation,
    /// Lets several sockets bind the same port; the kernel spreads flows over them.
    pub reuse_port: bool,
    /// A firewall mark on everything sent, so that a rule can keep it out of the tunnel. Needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Sends and receives through this device only.
    pub device: Option<String>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { buffer: 8 << 20, fragmentation: Fragmentation::PathMtu, reuse_port: false, mark: None, device: None }
    }
}

/// Where a received datagram came from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it; the port is 0 for raw ESP.
    pub remote: SocketAddr,
    /// The address of ours that it was sent to.
    pub local: IpAddr,
    /// The IPv4 TOS octet or the IPv6 traffic class: DSCP above, ECN in the two low bits.
    pub tos: u8,
    /// The length of the payload in bytes.
    pub len: usize,
    /// When it is several datagrams back to back, the length of each but the last, which may be shorter; else 0.
    pub segment: usize,
}

impl Arrival {
    /// Cuts a payload into the datagrams that it is made of.
    pub fn cut<'a>(&self, payload: &'a mut [u8]) -> impl Iterator<Item = &'a mut [u8]> + use<'a> {
        let segment = if self.segment == 0 { payload.len().max(1) } else { self.segment };
        payload.chunks_mut(segment)
    }
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The receiver; raw ESP ignores the port.
    pub remote: SocketAddr,
    /// The source address; `None` leaves the choice to the kernel. It must be of the family of `remote`.
    pub local: Option<IpAddr>,
    /// The IPv4 TOS octet or the IPv6 traffic class.
    pub tos: u8,
    /// The payload.
    pub bytes: &'a [u8],
}

/// Datagrams back to back in one buffer, all to one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where to, and the bytes of all of them: at most 65,507 over IPv4.
    pub datagram: Datagram<'a>,
    /// The length of each but the last, which may be shorter; at most [`MAX_SEGMENTS`] of them. 0 when it is a single
    /// datagram.
    pub segment: u16,
}

/// The most datagrams of a [`Run`] (`UDP_MAX_SEGMENTS` of older kernels).
pub const MAX_SEGMENTS: usize = 64;

impl<'a> From<Datagram<'a>> for Run<'a> {
    fn from(datagram: Datagram<'a>) -> Self {
        Self { datagram, segment: 0 }
    }
}

/// Slots begin at odd multiples of this many bytes from each other. A power of two between them would have the beginnings
/// of all compete for the same few places of the processor's caches, and short datagrams are nothing but beginnings.
const STAGGER: usize = 1_600;

/// Bytes that one receive should bring at most, as far as the last one tells: they fit into a processor's second cache
/// beside what is made of them.
const NEAR: usize = 256 << 10;
/// Slots that a receive has at least.
const FEWEST: usize = 4;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many datagrams from the front are dealt with: sent or refused. Fewer than were given when the socket's
    /// buffer is full; the caller offers the rest again once the socket is writable, or drops it.
    pub done: usize,
    /// Those of them that the kernel refused, with their place in the batch: `EMSGSIZE` larger than the path takes,
    /// `ENETUNREACH` and `EHOSTUNREACH` no route, `EPERM` the firewall, `EINVAL` not our address. They are lost.
    pub refused: Vec<(usize, io::Error)>,
}

/// Buffers for a batch of received datagrams, made once and used again and again.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Vec<u8>,
    /// Bytes from one slot to the next.
    stride: usize,
    slot_len: usize,
    incoming: Vec<Incoming>,
    found: Vec<Found>,
    /// Slots that the next receive fills at most.
    wanted: usize,
    unusable: u64,
    errors: u64,
}

/// An arrival, and where in `RecvBatch::bytes` its payload begins.
#[derive(Clone, Copy, Debug)]
struct Found {
    arrival: Arrival,
    start: usize,
}

impl RecvBatch {
    /// Room for `slots` datagrams (1 to 64) of at most `slot_len` bytes each. 65,535 bytes take any datagram.
    pub fn new(slots: usize, slot_len: usize) -> Self {
        let (slots, slot_len) = (slots.clamp(1, MAX_BATCH), slot_len.max(1));
        let stride = slot_len.next_multiple_of(STAGGER) + STAGGER;
        Self {
            bytes: vec![0; slots * stride],
            stride,
            slot_len,
            incoming: vec![Incoming::EMPTY; slots],
            found: Vec::with_capacity(slots),
            wanted: slots,
            unusable: 0,
            errors: 0,
        }
    }

    /// How many datagrams the last receive brought.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether the last receive brought nothing.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many datagrams were dropped since the batch was made, because they did not fit into a slot or said no
    /// address.
    pub fn unusable(&self) -> u64 {
        self.unusable
    }

    /// How many ICMP errors about datagrams sent earlier were passed over while receiving.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// The datagrams, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (Arrival, &[u8])> {
        self.found.iter().map(|f| (f.arrival, self.bytes.get(f.start..f.start + f.arrival.len).unwrap_or_default()))
    }

    /// The datagrams, in the order they came, to be opened in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Arrival, &mut [u8])> {
        let stride = self.stride;
        let mut slots = self.bytes.chunks_exact_mut(stride).enumerate();
        self.found.iter().filter_map(move |f| {
            let (at, slot) = slots.find(|(at, _)| *at == f.start / stride)?;
            let start = f.start - at * stride;
            Some((f.arrival, slot.get_mut(start..start + f.arrival.len)?))
        })
    }

    /// Reads the kernel's words on the first `count` slots. `strip`: an IPv4 header precedes the payload.
    fn note(&mut self, count: usize, strip: bool) {
        self.found.clear();
        for (slot, incoming) in self.incoming.iter().take(count).enumerate() {
            let start = slot * self.stride;
            let bytes = self.bytes.get(start..start + incoming.len.min(self.slot_len)).unwrap_or_default();
            match arrival(incoming, bytes, strip) {
                Some((arrival, header)) => self.found.push(Found { arrival, start: start + header }),
                None => self.unusable += 1,
            }
        }
        // Of long ones fewer are taken at once: what was received is read while it is still near.
        let bytes: usize = self.incoming.iter().take(count).map(|incoming| incoming.len).sum();
        let slots = self.incoming.len();
        self.wanted = (NEAR * count / bytes.max(1)).clamp(slots.min(FEWEST), slots);
    }
}

/// Who a datagram came from and to, and the length of the header before its payload.
fn arrival(incoming: &Incoming, bytes: &[u8], strip: bool) -> Option<(Arrival, usize)> {
    if incoming.truncated {
        return None;
    }
    let remote = incoming.name.0.decode(incoming.name.1)?;
    if strip {
        // RFC 791 §3.1: IHL counts 32-bit words, at least five; the second byte is the TOS, the destination ends the
        // header that every packet has.
        let (fixed, _) = bytes.split_first_chunk::<20>()?;
        let header = usize::from(fixed[0] & 0x0f).max(5) * 4;
        let local = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into();
        let len = bytes.len().checked_sub(header)?;
        return Some((Arrival { remote, local, tos: fixed[1], len, segment: 0 }, header));
    }
    let (local, tos, segment) = incoming.control.0.arrival(incoming.control.1);
    let unspecified = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Some((Arrival { remote, local: local.unwrap_or(unspecified), tos, len: bytes.len(), segment }, 0))
}

/// A non-blocking socket for UDP or raw ESP, of one family. It may be shared between threads.
///
/// An error that concerns one datagram, such as an ICMP message about a peer that is gone, never makes it useless:
/// receiving goes on past it and sending reports it in [`Sent::refused`].
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Socket,
    local: SocketAddr,
    raw: bool,
}

impl DatagramSocket {
    /// Opens and binds a socket; `kind` says for errors what it is.
    pub(crate) fn open(
        local: SocketAddr,
        (ty, protocol): (Type, Protocol),
        kind: &str,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(local), ty, Some(protocol)).tried(|| format!("open a {kind} socket"))?;
        let raw = ty == Type::RAW;
        socket.set_nonblocking(true)?;
        if local.is_ipv6() && !raw {
            // A raw IPv6 socket is for IPv6 only anyway, and refuses to be told so.
            socket.set_only_v6(true).tried(|| format!("keep IPv4 out of an IPv6 {kind} socket"))?;
        }
        let this = Self { socket, local, raw };
        if !this.gives_header() {
            this.ask_for_metadata().tried(|| format!("have the local address of each {kind} datagram told"))?;
        }
        this.set_buffers(options.buffer);
        this.set_fragmentation(options.fragmentation)?;
        if options.reuse_port {
            this.socket.set_reuse_port(true).tried(|| "share the port (SO_REUSEPORT)".into())?;
        }
        if let Some(mark) = options.mark {
            this.socket.set_mark(mark).tried(|| format!("set the firewall mark {mark:#x}"))?;
        }
        if let Some(device) = &options.device {
            this.socket.bind_device(Some(device.as_bytes())).tried(|| format!("bind to the device {device}"))?;
        }
        this.socket.bind(&local.into()).tried(|| format!("bind {kind} {local}"))?;
        let bound = this.socket.local_addr()?.as_socket().unwrap_or(local);
        Ok(Self { local: bound, ..this })
    }

    /// A socket that another process has opened and bound in the same way, and passed on ([`crate::rights`]).
    ///
    /// # Errors
    /// `InvalidInput` when it is something else.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let tried = || "look at a socket that was passed on".to_owned();
        let raw = socket.r#type().tried(tried)? == Type::RAW;
        if !raw && socket.r#type().tried(tried)? != Type::DGRAM {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a socket that was passed on carries no datagrams",
            ));
        }
        let local = socket.local_addr().tried(tried)?.as_socket();
        let mut local =
            local.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no Internet address"))?;
        if raw {
            local.set_port(0);
        }
        Ok(Self { socket, local, raw })
    }

    /// The same socket once more, to be passed on.
    ///
    /// # Errors
    /// When the process has no more file descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The address it is bound to, with the port the kernel chose if port 0 was asked for; port 0 for raw ESP.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Lets sockets of this user that ask for it too ([`SocketOptions::reuse_port`]) bind the same port from now on. That
    /// it was bound without shows that nobody else had the port.
    pub fn share_port(&self) -> io::Result<()> {
        self.socket.set_reuse_port(true).tried(|| "share the port (SO_REUSEPORT)".into())
    }

    /// Changes what happens to datagrams that exceed an MTU.
    pub fn set_fragmentation(&self, fragmentation: Fragmentation) -> io::Result<()> {
        let (v4, v6) = match fragmentation {
            Fragmentation::Allow => (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT),
            Fragmentation::PathMtu => (libc::IP_PMTUDISC_WANT, libc::IPV6_PMTUDISC_WANT),
            Fragmentation::Forbid => (libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO),
            Fragmentation::Probe => (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE),
        };
        let (level, name, value) = if self.local.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6)
        };
        sys::set_option(self.as_fd(), level, name, value)
            .tried(|| format!("set path MTU discovery to {fragmentation:?}"))
    }

    /// The receive and the send buffer in bytes, as the kernel set them (it doubles what was asked for).
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        Ok((self.socket.recv_buffer_size()?, self.socket.send_buffer_size()?))
    }

    /// Receives what is waiting, at most as much as `batch` has room for, and returns how many datagrams came.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is waiting; anything else means that the socket is of no more use.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.found.clear();
        let mut passed = 0;
        loop {
            let RecvBatch { bytes, stride, slot_len, incoming, wanted, .. } = batch;
            let slots = incoming.get_mut(..*wanted).unwrap_or_default();
            match sys::receive_many(self.as_fd(), bytes, (*stride, *slot_len), slots) {
                Ok(count) => batch.note(count, self.gives_header()),
                Err(e) => {
                    Self::pass(e, &mut passed)?;
                    batch.errors += 1;
                }
            }
            if !batch.is_empty() {
                return Ok(batch.len());
            }
        }
    }

    /// Sends `datagrams` in order. One that the kernel refuses does not stop the rest.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full and nothing was sent; anything else means that the socket is of
    /// no more use.
    pub fn send_batch(&self, datagrams: &[Datagram<'_>]) -> io::Result<Sent> {
        self.send_all(datagrams)
    }

    /// The same with runs of datagrams; a run counts as one. Beside the reasons of [`Sent::refused`] the kernel refuses
    /// a run with `EIO` when a device cannot compute checksums, and with `EINVAL` or `EMSGSIZE` when its datagrams are
    /// too large: the caller sends them one by one then.
    ///
    /// # Errors
    /// As [`Self::send_batch`].
    pub fn send_runs(&self, runs: &[Run<'_>]) -> io::Result<Sent> {
        self.send_all(runs)
    }

    /// Whether the kernel cuts up runs.
    pub fn can_segment(&self) -> bool {
        !self.raw && sys::option(self.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
    }

    /// Lets the kernel hand out datagrams of one flow with equal lengths as one. Slots to receive into should then hold
    /// 65,535 bytes.
    ///
    /// # Errors
    /// A kernel before 5.0, or a socket that is not UDP.
    pub fn set_coalescing(&self, on: bool) -> io::Result<()> {
        sys::set_option(self.as_fd(), libc::SOL_UDP, libc::UDP_GRO, i32::from(on))
            .tried(|| "receive several datagrams as one (UDP_GRO)".into())
    }

    fn send_all<'a, T: Copy + Into<Run<'a>>>(&self, datagrams: &[T]) -> io::Result<Sent> {
        let mut sent = Sent::default();
        while let Some(rest) = datagrams.get(sent.done..).filter(|rest| !rest.is_empty()) {
            match self.send_some(rest) {
                Ok(count) => sent.done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || is_fatal(&e) => {
                    if sent.done == 0 {
                        return Err(e);
                    }
                    break;
                }
                Err(e) => {
                    sent.refused.push((sent.done, e));
                    sent.done += 1;
                }
            }
        }
        Ok(sent)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full; those of [`Sent::refused`].
    pub fn send(&self, datagram: &Datagram<'_>) -> io::Result<()> {
        loop {
            match self.send_some(std::slice::from_ref(datagram)) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Receives one datagram into `bytes` and returns who it is from, and its payload.
    ///
    /// # Errors
    /// As [`Self::recv_batch`]. A datagram that is longer than `bytes` is dropped.
    pub fn recv<'a>(&self, bytes: &'a mut [u8]) -> io::Result<(Arrival, &'a mut [u8])> {
        let slot_len = bytes.len().max(1);
        let mut incoming = [Incoming::EMPTY];
        let mut passed = 0;
        loop {
            if let Err(e) = sys::receive_many(self.as_fd(), bytes, (slot_len, slot_len), &mut incoming) {
                Self::pass(e, &mut passed)?;
                continue;
            }
            let [first] = &incoming;
            let got = bytes.get(..first.len).unwrap_or_default();
            if let Some((arrival, header)) = arrival(first, got, self.gives_header()) {
                return Ok((arrival, bytes.get_mut(header..header + arrival.len).unwrap_or_default()));
            }
        }
    }

    /// Passes over an ICMP error about an earlier datagram, which reading it cleared; one that stays is returned.
    fn pass(error: io::Error, passed: &mut u32) -> io::Result<()> {
        *passed += 1;
        if error.kind() == io::ErrorKind::WouldBlock || is_fatal(&error) || *passed > 100 { Err(error) } else { Ok(()) }
    }

    /// Sends the first few, by one system call on as small a frame as will do.
    fn send_some<'a, T: Copy + Into<Run<'a>>>(&self, datagrams: &[T]) -> io::Result<usize> {
        match datagrams.len() {
            1 => self.send_up_to::<1, T>(datagrams),
            2..=8 => self.send_up_to::<8, T>(datagrams),
            _ => self.send_up_to::<MAX_BATCH, T>(datagrams),
        }
    }

    fn send_up_to<'a, const N: usize, T: Copy + Into<Run<'a>>>(&self, datagrams: &[T]) -> io::Result<usize> {
        let mut outgoing = [Outgoing::EMPTY; N];
        let mut count = 0;
        for (out, datagram) in outgoing.iter_mut().zip(datagrams) {
            let Some(prepared) = self.prepare((*datagram).into()) else { break };
            *out = prepared;
            count += 1;
        }
        match outgoing.get_mut(..count).filter(|some| !some.is_empty()) {
            Some(some) => sys::send_many::<N>(self.as_fd(), some),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the addresses are not of the socket's family")),
        }
    }

    /// The datagram as the kernel wants it; nothing when its addresses are not all of this socket's family.
    fn prepare<'a>(&self, Run { datagram, segment }: Run<'a>) -> Option<Outgoing<'a>> {
        let mut remote = datagram.remote;
        let v4 = self.local.is_ipv4();
        if remote.is_ipv4() != v4 || datagram.local.is_some_and(|local| local.is_ipv4() != v4) {
            return None;
        }
        if self.raw {
            // raw(7): a port in the address is either ignored or an error.
            remote.set_port(0);
        }
        let control = Control::for_send(remote.ip(), datagram.local, datagram.tos, segment);
        Some(Outgoing { name: Name::encode(remote), control, bytes: datagram.bytes })
    }

    /// Whether datagrams come with their IP header, as they do from a raw socket of IPv4 (raw(7)).
    fn gives_header(&self) -> bool {
        self.raw && self.local.is_ipv4()
    }

    fn ask_for_metadata(&self) -> io::Result<()> {
        let (level, info, class) = if self.local.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVTOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS)
        };
        sys::set_option(self.as_fd(), level, info, 1)?;
        sys::set_option(self.as_fd(), level, class, 1)
    }

    /// A smaller buffer than asked for costs speed, not correctness, so it is no error.
    fn set_buffers(&self, bytes: usize) {
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        let set = |name| sys::set_option(self.as_fd(), libc::SOL_SOCKET, name, value);
        let _ = set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF));
        let _ = set(libc::SO_SNDBUFFORCE).or_else(|_| set(libc::SO_SNDBUF));
    }
}

/// Whether a datagram was refused because it is larger than the path takes.
pub fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Whether a [`Run`] was refused for what it is, so that its datagrams may pass one by one: a device without checksums,
/// more datagrams or larger ones than the kernel cuts.
pub fn is_run_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

/// Whether an error concerns the socket itself and not one datagram.
fn is_fatal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP))
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
