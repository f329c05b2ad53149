//! A capture of everything that passes a router's interfaces, taken with a packet socket, and
//! written as a pcap file for other tools.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{NETNS_DIR, Node};

/// A frame as it was on the wire, with its Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Since 1970.
    pub at: Duration,
    /// The interface that it passed.
    pub interface: usize,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

/// How much a capture keeps: a run of a scenario needs far less than 1 MB.
const MAX_BYTES: usize = 256 << 20;

/// A capture that is running in a thread of its own.
pub struct Capture {
    stop: Arc<AtomicBool>,
    frames: mpsc::Receiver<Frame>,
    thread: Option<JoinHandle<io::Result<()>>>,
    seen: Vec<Frame>,
}

impl Capture {
    /// Starts capturing on all interfaces of a node; nothing that passes later is missed.
    ///
    /// # Errors
    ///
    /// When the namespace or the packet socket cannot be had.
    pub fn start(node: &Node) -> Result<Self> {
        let netns = Path::new(NETNS_DIR).join(node.netns());
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let (sender, frames) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || capture(&netns, &stopped, &ready, &sender))
            .map_err(|e| Error::io("starting a capture", e))?;
        let mut this = Self { stop, frames, thread: Some(thread), seen: Vec::new() };
        if is_ready.recv().is_err() {
            this.join()?;
        }
        Ok(this)
    }

    /// Everything that has passed until now.
    pub fn frames(&mut self) -> &[Frame] {
        self.seen.extend(self.frames.try_iter());
        &self.seen
    }

    /// Stops it and returns everything that has passed.
    ///
    /// # Errors
    ///
    /// When receiving failed.
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        self.join()?;
        self.seen.extend(self.frames.try_iter());
        Ok(std::mem::take(&mut self.seen))
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let result = thread.join().unwrap_or_else(|_| Err(io::Error::other("the capture thread panicked")));
        result.map_err(|e| Error::io("capturing", e))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Enters the namespace, for this thread alone, and hands frames on until told to stop.
fn capture(netns: &Path, stop: &AtomicBool, ready: &mpsc::Sender<()>, frames: &mpsc::Sender<Frame>) -> io::Result<()> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
    let _ = ready.send(());
    let mut buffer = vec![0; 1 << 17];
    let mut kept = 0;
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((len, from)) => {
                kept += len;
                if kept > MAX_BYTES {
                    return Err(io::Error::other("more than 256 MB passed"));
                }
                let interface = from.map_or(0, |from| from.ifindex());
                let frame = Frame { at: clock::since_epoch(), interface, bytes: buffer[..len].to_vec() };
                if frames.send(frame).is_err() {
                    return Ok(());
                }
            }
            Err(Errno::EAGAIN) if stop.load(Ordering::SeqCst) => return Ok(()),
            // Interfaces come and go while the lab is built.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Writes frames as a pcap file (link type Ethernet, microseconds).
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_pcap(path: &PathBuf, frames: &[Frame]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        file.write_all(&pcap_bytes(frames))?;
        file.flush()
    };
    write().map_err(|e| Error::io(format!("writing {}", path.display()), e))
}

fn pcap_bytes(frames: &[Frame]) -> Vec<u8> {
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4_u32.to_le_bytes());
    out.extend([2, 0, 4, 0]);
    out.extend([0; 8]);
    out.extend(word(1 << 18));
    out.extend(word(1));
    for frame in frames {
        out.extend(u32::try_from(frame.at.as_secs()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(frame.at.subsec_micros().to_le_bytes());
        out.extend(word(frame.bytes.len()));
        out.extend(word(frame.bytes.len()));
        out.extend(&frame.bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pcap_file_starts_with_its_magic_and_holds_each_frame_behind_its_length() {
        let frame = Frame { at: Duration::from_micros(5_000_007), interface: 1, bytes: vec![9, 8, 7] };
        let bytes = pcap_bytes(&[frame]);
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[24..], [5, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 9, 8, 7]);
    }
}
