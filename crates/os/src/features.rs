//! What a network device does with packets by itself: its features, as `ethtool -k` shows them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::Tried;

/// Joins received packets of one flow (generic receive offload).
pub const RX_GRO: &str = "rx-gro";
/// Joins received UDP packets that no socket asked to have joined. A veth joins none without it.
pub const RX_UDP_GRO_FORWARDING: &str = "rx-udp-gro-forwarding";

/// Requests of `SIOCETHTOOL` (linux/ethtool.h).
const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`: the names of the features.
const FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, in words.
const NAME: usize = 32 / 4;
/// `struct ethtool_drvinfo`, in words.
const DRIVER: usize = 196 / 4;
/// More features than any kernel has.
const MOST: u32 = 1024;

/// A device, to be asked for its features. It is found in the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Features {
    socket: OwnedFd,
    device: String,
    /// A feature's place is its number.
    names: Vec<String>,
}

impl Features {
    /// Asks a device for the names of its features.
    ///
    /// # Errors
    /// `InvalidInput` for a name that no device can have; the kernel's error when there is no such device.
    pub fn of(device: &str) -> io::Result<Self> {
        let tried = || format!("ask the device {device} for its features");
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(io::Error::from)
            .tried(tried)?;
        let mut this = Self { socket, device: device.to_owned(), names: Vec::new() };
        // struct ethtool_sset_info: command, reserved, a mask of 64 bits, and a count for each bit that is left in it.
        let mut info = [GET_SET_INFO, 0, 0, 0, 0];
        info[2..4].copy_from_slice(&words64(1 << FEATURES));
        this.ask(&mut info).tried(tried)?;
        let count = info[4].min(MOST);
        // struct ethtool_gstrings: command, set, how many, the strings.
        let mut strings = vec![0; 3 + count as usize * NAME];
        strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, count]);
        this.ask(&mut strings).tried(tried)?;
        this.names = strings[3..].chunks_exact(NAME).map(text).collect();
        Ok(this)
    }

    /// Whether a feature is on; `None` where the device or the kernel does not know it.
    ///
    /// # Errors
    /// As of `ioctl(2)`: the device is gone.
    pub fn is_on(&self, name: &str) -> io::Result<Option<bool>> {
        let Some(at) = self.place(name) else { return Ok(None) };
        // struct ethtool_gfeatures: command, how many blocks; each has what is available, requested, active, fixed.
        let blocks = self.names.len().div_ceil(32);
        let mut request = vec![0; 2 + blocks * 4];
        request[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
        self.ask(&mut request).tried(|| format!("ask the device {} for {name}", self.device))?;
        Ok(Some(request[2 + at / 32 * 4 + 2] & bit(at) != 0))
    }

    /// Switches a feature on. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `Unsupported` where the device does not have it, or it stays off; `PermissionDenied`.
    pub fn switch_on(&self, name: &str) -> io::Result<()> {
        let tried = || format!("switch on {name} of the device {}", self.device);
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        let at = self.place(name).ok_or_else(unsupported).tried(tried)?;
        // struct ethtool_sfeatures: command, how many blocks; each has what is to change, and to what.
        let blocks = self.names.len().div_ceil(32);
        let mut request = vec![0; 2 + blocks * 2];
        request[..2].copy_from_slice(&[SET_FEATURES, blocks as u32]);
        let block = 2 + at / 32 * 2;
        request[block..block + 2].fill(bit(at));
        self.ask(&mut request).tried(tried)?;
        if self.is_on(name)? == Some(true) { Ok(()) } else { Err(unsupported()).tried(tried) }
    }

    /// The name of the device's driver, such as `veth`.
    ///
    /// # Errors
    /// As of `ioctl(2)`: the device is gone, or has no driver that has a name.
    pub fn driver(&self) -> io::Result<String> {
        let mut request = [0; DRIVER];
        request[0] = GET_DRIVER;
        self.ask(&mut request).tried(|| format!("ask the device {} for its driver", self.device))?;
        Ok(text(&request[1..1 + NAME]))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Puts a request, whose first word says which it is. Its length must be what its own fields say: the constructors
    /// above make no other.
    #[expect(unsafe_code, reason = "ioctl")]
    fn ask(&self, request: &mut [u32]) -> io::Result<()> {
        // struct ifreq: the name with its final zero, then a union of 24 bytes, here a pointer.
        #[repr(C)]
        struct Request {
            name: [u8; libc::IFNAMSIZ],
            data: *mut u32,
            rest: [u8; 16],
        }
        const { assert!(size_of::<Request>() == size_of::<libc::ifreq>()) };
        let bytes = self.device.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut name = [0; libc::IFNAMSIZ];
        name[..bytes.len()].copy_from_slice(bytes);
        let mut wrapped = Request { name, data: request.as_mut_ptr(), rest: [0; 16] };
        // SAFETY: `wrapped` is laid out as `struct ifreq` and lives until the call returns. Its pointer is to words that
        // are borrowed for writing, aligned, and as many as the request's own count fields say, which is all that the
        // kernel reads or writes there; every byte pattern is valid for them.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut wrapped) };
        if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

const fn bit(at: usize) -> u32 {
    1 << (at % 32)
}

/// The two words of a number, as they lie in memory.
fn words64(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
}

/// A name of at most 32 bytes, up to its zero.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_for_what_it_has() {
        let lo = Features::of("lo").unwrap();
        assert_eq!(lo.is_on("rx-checksum").unwrap(), Some(true));
        assert_eq!(lo.is_on("no-such-feature").unwrap(), None);
        assert_eq!(lo.switch_on("no-such-feature").unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        assert!(Features::of("no-such-device").is_err());
        for name in ["", "a-name-that-is-too-long", "a\0b"] {
            assert_eq!(Features::of(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
