//! A TUN device: what the kernel routes to it, [`Tun::recv`] reads; what [`Tun::send`] writes, the kernel takes as
//! received. One read or write is one IP packet, without a header before it (`IFF_NO_PI`).
//!
//! With [`Tun::set_offloads`] the kernel hands out super-packets: many segments of one flow as a single packet of up to
//! 64 KB, checksums left open. [`Tun::recv_super`] reads them with what is left to do ([`Offload`]), and
//! [`Tun::send_super`] writes them. The kernel understands them in writing whether it hands them out or not.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::Tried;
use crate::sys::{self, DeviceRequest};

/// How often a write is tried again when the kernel answers `EIO`.
const TRIES: u32 = 3;
/// The most parts that a super-packet is put together of.
pub const MAX_PARTS: usize = 128;

/// How to open a TUN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// 1 to 15 bytes. A `%d` in it stands for the first free number: `simplon%d`.
    pub name: String,
    /// Allows [`Tun::add_queue`]: several queues, to each of which the kernel pins its share of the flows.
    pub multi_queue: bool,
    /// Leaves the device, with its routes, in place when it is closed.
    pub persistent: bool,
}

impl TunOptions {
    /// A device that goes away when it is closed, with one queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), multi_queue: false, persistent: false }
    }
}

/// Bytes of `struct virtio_net_hdr`, which stands before each packet (virtio 1.2 §5.1.6). It is in the machine's own byte
/// order.
const HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`, a flag among the kinds.
const GSO_ECN: u8 = 0x80;

/// Which super-packets the kernel hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// TCP of both families and UDP.
    TcpAndUdp,
    /// TCP of both families: what kernels before 6.2 can do.
    Tcp,
    /// None, and checksums are complete.
    Nothing,
}

/// Of what a super-packet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// Segments of TCP over IPv4.
    TcpV4,
    /// Segments of TCP over IPv6.
    TcpV6,
    /// UDP datagrams, over either.
    Udp,
    /// Something else, which the data path was not asked to take.
    Other,
}

/// What is left to do on a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// It is a super-packet: of what, and how many bytes of payload each segment has; the last may have fewer.
    pub segments: Option<(Segments, u16)>,
    /// Bytes of all headers of a super-packet, as the kernel believes.
    pub header_len: u16,
    /// The Internet checksum of everything from the first offset on belongs where the second points, counted from the
    /// first. That of the pseudo header is there already.
    pub checksum: Option<(u16, u16)>,
}

impl Offload {
    fn encode(self) -> [u8; HEADER] {
        let (kind, size) = match self.segments {
            None => (0, 0),
            Some((Segments::TcpV4, size)) => (1, size),
            Some((Segments::TcpV6, size)) => (4, size),
            Some((Segments::Udp, size)) => (5, size),
            // `VIRTIO_NET_HDR_GSO_UDP`: fragments of one datagram.
            Some((Segments::Other, size)) => (3, size),
        };
        let (start, offset) = self.checksum.unwrap_or_default();
        let mut header = [0; HEADER];
        header[0] = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        header[1] = kind;
        header[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..].copy_from_slice(&offset.to_ne_bytes());
        header
    }

    fn decode(header: [u8; HEADER]) -> Self {
        let [flags, kind, a, b, c, d, e, f, g, h] = header;
        let [header_len, size, start, offset] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes);
        let segments = match kind & !GSO_ECN {
            0 => None,
            1 => Some(Segments::TcpV4),
            4 => Some(Segments::TcpV6),
            5 => Some(Segments::Udp),
            _ => Some(Segments::Other),
        };
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some((start, offset));
        Self { segments: segments.map(|segments| (segments, size)), header_len, checksum }
    }
}

/// One queue of a TUN device. The device is in the network namespace of the thread that opened it, and stays there
/// whichever thread uses it. It goes away with its last queue, unless it is persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    index: u32,
    multi_queue: bool,
}

impl Tun {
    /// Opens the device of that name, which is made if it does not exist. A new one is down, has no address, and lets
    /// 500 packets wait to be read before it drops some: [`crate::netlink`] changes all three. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `ResourceBusy` when another process has the device open, `NotFound` without `/dev/net/tun`, `PermissionDenied`
    /// without the capability, `InvalidInput` for a name that no device can have.
    pub fn open(options: &TunOptions) -> io::Result<Self> {
        let tried = || format!("open the TUN device {}", options.name);
        let (file, name) = attach(&options.name, options.multi_queue).tried(tried)?;
        if options.persistent {
            sys::set_tun_persistent(file.as_fd(), true).tried(|| format!("keep the device {name}"))?;
        }
        let index = nix::net::if_::if_nametoindex(name.as_str()).tried(|| format!("find the device {name}"))?;
        Ok(Self { file, name, index, multi_queue: options.multi_queue })
    }

    /// A queue that another process has opened like [`Self::open`] and passed on ([`crate::rights`]).
    ///
    /// # Errors
    /// `InvalidInput` when it is something else, `NotFound` when the device is not in this network namespace.
    pub fn adopt(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        let mut request = DeviceRequest { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        sys::attached_tun(file.as_fd(), &mut request).tried(|| "look at a TUN device that was passed on".into())?;
        let flags = libc::c_int::from(request.flags);
        let (kind, how) = (libc::IFF_TUN | libc::IFF_TAP, libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        let name = device_name(&request);
        if flags & kind != libc::IFF_TUN || flags & how != how {
            let what = format!("the device {name} was opened in another way than here");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let index = nix::net::if_::if_nametoindex(name.as_str()).tried(|| format!("find the device {name}"))?;
        Ok(Self { file, name, index, multi_queue: flags & libc::IFF_MULTI_QUEUE != 0 })
    }

    /// The same queue once more, to be passed on.
    ///
    /// # Errors
    /// When the process has no more file descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Another queue of the same device. The calling thread must be in the device's network namespace.
    ///
    /// # Errors
    /// `InvalidInput` when the device was not opened with `multi_queue`, `NotFound` when it is not in this namespace.
    pub fn add_queue(&self) -> io::Result<Self> {
        let tried = || format!("open another queue of the TUN device {}", self.name);
        if !self.multi_queue {
            return Err(io::Error::from(io::ErrorKind::InvalidInput)).tried(tried);
        }
        // In another namespace a device would be made of that name.
        if nix::net::if_::if_nametoindex(self.name.as_str()).map_err(io::Error::from).tried(tried)? != self.index {
            return Err(io::Error::from(io::ErrorKind::NotFound)).tried(tried);
        }
        let (file, name) = attach(&self.name, true).tried(tried)?;
        Ok(Self { file, name, index: self.index, multi_queue: true })
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that [`crate::netlink`] knows it by.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Chooses which super-packets the kernel hands out, or as many of them as it can, and says which.
    ///
    /// # Errors
    /// As of `ioctl(2)`; the device then hands out what it did before.
    pub fn set_offloads(&self, wanted: Offloads) -> io::Result<Offloads> {
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let mut result = Ok(Offloads::Nothing);
        for (offloads, flags) in [(Offloads::TcpAndUdp, tcp | udp), (Offloads::Tcp, tcp), (Offloads::Nothing, 0)] {
            if offloads == wanted || result.is_err() {
                result = sys::set_tun_offloads(self.file.as_fd(), flags).map(|()| offloads);
            }
        }
        result.tried(|| format!("set the offloads of the device {}", self.name))
    }

    /// Reads the next packet into `bytes` and returns its length. What does not fit is cut off, so `bytes` should
    /// hold the device's MTU. Not for a device that hands out super-packets.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; `EBADFD` when the device is gone.
    pub fn recv(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.recv_super(bytes).map(|(_, len)| len)
    }

    /// Reads the next packet or super-packet, of up to 65,535 bytes, and says what is left to do on it.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_super(&self, bytes: &mut [u8]) -> io::Result<(Offload, usize)> {
        let mut header = [0; HEADER];
        loop {
            match (&self.file).read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(bytes)]) {
                Ok(len) => return Ok((Offload::decode(header), len.saturating_sub(HEADER))),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Hands a packet to the kernel.
    ///
    /// # Errors
    /// `EIO` when the device is down, or was at that moment: the packet is lost and the next may pass
    /// ([`is_passing`]). `InvalidInput` when it is no IP packet. `EBADFD` when the device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.write(&[IoSlice::new(&Offload::default().encode()), IoSlice::new(packet)])
    }

    /// Hands a packet or super-packet to the kernel, with what is left to do on it. It is put together of at most
    /// [`MAX_PARTS`] `parts`; more are cut off.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_super(&self, offload: Offload, parts: &[&[u8]]) -> io::Result<()> {
        let header = offload.encode();
        let mut all = [IoSlice::new(&[]); MAX_PARTS + 1];
        let mut count = 0;
        for (slot, part) in all.iter_mut().zip(std::iter::once(&&header[..]).chain(parts)) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        self.write(all.get(..count).unwrap_or_default())
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut tries = TRIES;
        loop {
            match (&self.file).write_vectored(parts) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::EIO) && tries > 1 => tries -= 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Lets a persistent device go away when its last queue is closed.
    pub fn let_go(&self) -> io::Result<()> {
        sys::set_tun_persistent(self.file.as_fd(), false).tried(|| format!("let the device {} go", self.name))
    }
}

/// Whether an error of [`Tun::send`] concerns one packet only: the device is down, or the packet is not IP.
pub fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN | libc::EMSGSIZE)
    )
}

/// Opens `/dev/net/tun` and attaches it to a queue of the device; also the name that the kernel gave it.
fn attach(name: &str, multi_queue: bool) -> io::Result<(File, String)> {
    let mut request = device_request(name)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .tried(|| "open /dev/net/tun".into())?;
    let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    request.flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues) as libc::c_short;
    sys::attach_tun(file.as_fd(), &mut request)?;
    Ok((file, device_name(&request)))
}

fn device_name(request: &DeviceRequest) -> String {
    let given: Vec<u8> = request.name.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&given).into_owned()
}

fn device_request(name: &str) -> io::Result<DeviceRequest> {
    let mut request = DeviceRequest { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    let bad = |byte: u8| byte == 0 || byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name == "." || name == ".." || name.bytes().any(bad) {
        let why = "a device name has 1 to 15 bytes, none of them a slash, a colon or a space";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    Ok(request)
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_to_do_reads_back_as_it_was_written(
            kind in prop::option::of(prop::sample::select(vec![
                Segments::TcpV4,
                Segments::TcpV6,
                Segments::Udp,
                Segments::Other,
            ])),
            size in 1u16..,
            header_len: u16,
            checksum: Option<(u16, u16)>,
        ) {
            let offload = Offload { segments: kind.map(|kind| (kind, size)), header_len, checksum };
            prop_assert_eq!(Offload::decode(offload.encode()), offload);
        }
    }

    #[test]
    fn a_name_that_no_device_can_have_is_refused_before_the_kernel_is_asked() {
        for name in ["", "sixteen-letters!", "a/b", "a b", "..", "a:1", "a\0"] {
            let error = Tun::open(&TunOptions::new(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(device_request("fifteen-letters").is_ok());
    }
}
