//! A TUN device: what the kernel routes to it, [`Tun::recv`] reads; what [`Tun::send`] writes, the kernel takes as
//! received. One read or write is one IP packet, without a header before it (`IFF_NO_PI`).
//!
//! Left out: super-packets (`IFF_VNET_HDR`, `TUNSETOFFLOAD`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::Tried;
use crate::sys::{self, DeviceRequest};

/// How often a write is tried again when the kernel answers `EIO`.
const TRIES: u32 = 3;

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

    /// Another queue of the same device. The calling thread must be in the device's network namespace.
    ///
    /// # Errors
    /// `InvalidInput` when the device was not opened with `multi_queue`.
    pub fn add_queue(&self) -> io::Result<Self> {
        let tried = || format!("open another queue of the TUN device {}", self.name);
        if !self.multi_queue {
            return Err(io::Error::from(io::ErrorKind::InvalidInput)).tried(tried);
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

    /// Reads the next packet into `bytes` and returns its length. What does not fit is cut off, so `bytes` should
    /// hold the device's MTU.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; `EBADFD` when the device is gone.
    pub fn recv(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.file).read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    /// Hands a packet to the kernel.
    ///
    /// # Errors
    /// `EIO` when the device is down, or was at that moment: the packet is lost and the next may pass
    /// ([`is_passing`]). `InvalidInput` when it is no IP packet. `EBADFD` when the device is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let mut tries = TRIES;
        loop {
            match (&self.file).write(packet) {
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
    request.flags = (libc::IFF_TUN | libc::IFF_NO_PI | queues) as libc::c_short;
    sys::attach_tun(file.as_fd(), &mut request)?;
    let given: Vec<u8> = request.name.iter().copied().take_while(|byte| *byte != 0).collect();
    Ok((file, String::from_utf8_lossy(&given).into_owned()))
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
    use super::*;

    #[test]
    fn a_name_that_no_device_can_have_is_refused_before_the_kernel_is_asked() {
        for name in ["", "sixteen-letters!", "a/b", "a b", "..", "a:1", "a\0"] {
            let error = Tun::open(&TunOptions::new(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(device_request("fifteen-letters").is_ok());
    }
}
