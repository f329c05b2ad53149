//! The system calls that no library wraps for us. Each is one small function, and its arguments make it safe to call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::control::{Control, Name};

/// The most datagrams that one call carries.
pub(crate) const MAX_BATCH: usize = 64;

/// Sets an integer socket option.
#[expect(unsafe_code, reason = "setsockopt for options that neither nix nor socket2 knows")]
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: `value` is a live i32 and `len` is its size; the kernel only reads it, during the call.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an integer socket option.
#[expect(unsafe_code, reason = "getsockopt for options that neither nix nor socket2 knows")]
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: `value` is a live, writable i32 and `len` is its size; the kernel writes at most that many bytes.
    let answer = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if answer == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The address of hosts on a device's link, for a packet of this protocol.
#[expect(unsafe_code, reason = "socket2 builds no address of a packet socket")]
pub(crate) fn link_address(device: u32, protocol: u16, hardware: [u8; 6]) -> io::Result<socket2::SockAddr> {
    let index = i32::try_from(device).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let mut address = [0; 8];
    address[..6].copy_from_slice(&hardware);
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a kind of socket address, and every byte pattern is valid for it.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = link;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: an address of this family and length was written there.
    Ok(unsafe { socket2::SockAddr::new(storage, len) })
}

/// `struct ifreq` of a request that carries a device name and flags.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceRequest {
    pub(crate) name: [u8; libc::IFNAMSIZ],
    pub(crate) flags: libc::c_short,
    pub(crate) rest: [u8; 22],
}

const _: () = assert!(size_of::<DeviceRequest>() == size_of::<libc::ifreq>());

/// Attaches an open `/dev/net/tun` to a device (`TUNSETIFF`) and writes the device's name into `device`.
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn attach_tun(tun: BorrowedFd<'_>, device: &mut DeviceRequest) -> io::Result<()> {
    // SAFETY: `device` is a live, writable object of the size and alignment of `struct ifreq`, which is all that this
    // request reads or writes; every byte pattern is valid for it.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, ptr::from_mut(device)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads name and flags of the device of an attached `/dev/net/tun` (`TUNGETIFF`).
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn attached_tun(tun: BorrowedFd<'_>, device: &mut DeviceRequest) -> io::Result<()> {
    // SAFETY: as above; this request only writes.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF, ptr::from_mut(device)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the device of an attached `/dev/net/tun` stays when it is closed (`TUNSETPERSIST`).
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn set_tun_persistent(tun: BorrowedFd<'_>, stays: bool) -> io::Result<()> {
    // SAFETY: this request takes the number by value and touches no memory of ours.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(stays)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which packets an attached `/dev/net/tun` hands out unfinished (`TUNSETOFFLOAD`).
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn set_tun_offloads(tun: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: this request takes the flags by value and touches no memory of ours.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One datagram to send, as the kernel wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) name: (Name, usize),
    pub(crate) control: (Control, usize),
    pub(crate) bytes: &'a [u8],
}

impl Outgoing<'_> {
    pub(crate) const EMPTY: Self = Self { name: (Name::EMPTY, 0), control: (Control::EMPTY, 0), bytes: &[] };
}

/// Sends the first `N` of `outgoing` without blocking and returns how many were taken.
#[expect(unsafe_code, reason = "sendmmsg with control messages and without allocating")]
pub(crate) fn send_many<const N: usize>(socket: BorrowedFd<'_>, outgoing: &mut [Outgoing<'_>]) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; N];
    let mut headers = [empty_header(); N];
    let mut count = 0;
    for ((header, part), out) in headers.iter_mut().zip(&mut parts).zip(outgoing) {
        *part = libc::iovec { iov_base: out.bytes.as_ptr().cast_mut().cast(), iov_len: out.bytes.len() };
        let header = &mut header.msg_hdr;
        header.msg_name = (&raw mut out.name.0).cast();
        header.msg_namelen = libc::socklen_t::try_from(out.name.1).unwrap_or_default();
        header.msg_control = (&raw mut out.control.0).cast();
        header.msg_controllen = out.control.1 as _;
        header.msg_iov = ptr::from_mut(part);
        header.msg_iovlen = 1;
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers point to names, control messages, parts and bytes that outlive the call and are
    // as long as said; the kernel only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What the kernel says of one datagram that it put into a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming {
    pub(crate) name: (Name, usize),
    pub(crate) control: (Control, usize),
    pub(crate) len: usize,
    pub(crate) truncated: bool,
}

impl Incoming {
    pub(crate) const EMPTY: Self =
        Self { name: (Name::EMPTY, 0), control: (Control::EMPTY, 0), len: 0, truncated: false };
}

/// Receives without blocking: the first datagram into the first slot of `bytes`, and so on, while datagrams wait and
/// slots are left, at most [`MAX_BATCH`]. A slot is the first `slot_len` of every `stride` bytes.
#[expect(unsafe_code, reason = "recvmmsg with control messages and without allocating")]
pub(crate) fn receive_many(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    (stride, slot_len): (usize, usize),
    incoming: &mut [Incoming],
) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_BATCH];
    let mut headers = [empty_header(); MAX_BATCH];
    let mut count = 0;
    let slots = bytes.chunks_exact_mut(stride).zip(incoming.iter_mut());
    for ((header, part), (slot, found)) in headers.iter_mut().zip(&mut parts).zip(slots) {
        let slot = &mut slot[..slot_len.min(stride)];
        *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        let header = &mut header.msg_hdr;
        header.msg_name = (&raw mut found.name.0).cast();
        header.msg_namelen = size_of::<Name>() as _;
        header.msg_control = (&raw mut found.control.0).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_iov = ptr::from_mut(part);
        header.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers point to slots, names and control buffers that outlive the call, are borrowed
    // for writing, do not overlap, and are as long as said; every byte pattern is valid for them.
    let received = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (header, found) in headers.iter().zip(incoming).take(received) {
        found.name.1 = usize::try_from(header.msg_hdr.msg_namelen).unwrap_or_default();
        found.control.1 = header.msg_hdr.msg_controllen as _;
        found.len = usize::try_from(header.msg_len).unwrap_or_default();
        found.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    }
    Ok(received)
}

#[expect(unsafe_code, reason = "the padding of msghdr is private in some C libraries")]
fn empty_header() -> libc::mmsghdr {
    // SAFETY: a plain C struct of integers and pointers; zero is valid for each.
    unsafe { std::mem::zeroed() }
}

/// The scheduling policy of the calling thread.
#[expect(unsafe_code, reason = "sched_getscheduler")]
pub(crate) fn scheduling_policy() -> io::Result<i32> {
    // SAFETY: it takes a number and touches no memory of ours.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy < 0 { Err(io::Error::last_os_error()) } else { Ok(policy) }
}

/// Sets the scheduling policy of the calling thread to one without a priority.
#[expect(unsafe_code, reason = "sched_setscheduler")]
pub(crate) fn set_scheduling_policy(policy: i32) -> io::Result<()> {
    // SAFETY: a plain C struct of integers; zero is valid for each.
    let parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameter` is live and the kernel only reads it, during the call.
    let answer = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
