//! ESP packets on their way out: collected while packets are read, sent when no more wait.

use std::io;
use std::net::{IpAddr, SocketAddr};

use os::Datagram;
use packet::Tos;
use sa::Path;

use super::socket::{Sockets, source};

/// Datagrams of one batch; the kernel takes as many by one call.
const MAX: usize = 64;
/// Room for a batch of packets that fit Ethernet, and for one of any size.
const BYTES: usize = MAX * 2048 + 65_536;

/// The packets of a batch, back to back.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    socket: usize,
    remote: SocketAddr,
    local: Option<IpAddr>,
    tos: u8,
    start: usize,
    end: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BYTES].into(), used: 0, entries: Vec::with_capacity(MAX) }
    }

    /// Adds a packet; sends what is there when there is no room.
    ///
    /// # Errors
    /// As [`Sockets::send_esp`].
    pub(super) fn push(&mut self, path: &Path, tos: Tos, esp: &[u8], sockets: &mut Sockets) -> io::Result<()> {
        let Some(socket) = sockets.for_path(path) else {
            sockets.stats.no_socket += 1;
            return Ok(());
        };
        if self.entries.len() == MAX || self.bytes.len() - self.used < esp.len() {
            self.flush(sockets)?;
        }
        let (start, end) = (self.used, self.used + esp.len());
        if let Some(room) = self.bytes.get_mut(start..end) {
            room.copy_from_slice(esp);
            let (remote, local) = (path.remote, source(path.local));
            self.entries.push(Entry { socket, remote, local, tos: tos.0, start, end });
            self.used = end;
        }
        Ok(())
    }

    /// Sends what is there.
    ///
    /// # Errors
    /// As [`Sockets::send_esp`].
    pub(super) fn flush(&mut self, sockets: &mut Sockets) -> io::Result<()> {
        let result = self.send_all(sockets);
        self.entries.clear();
        self.used = 0;
        result
    }

    fn send_all(&self, sockets: &mut Sockets) -> io::Result<()> {
        for run in self.entries.chunk_by(|a, b| a.socket == b.socket) {
            let Some(first) = run.first() else { continue };
            let nothing = Datagram { remote: first.remote, local: None, tos: 0, bytes: &[] };
            let mut datagrams = [nothing; MAX];
            for (datagram, e) in datagrams.iter_mut().zip(run) {
                let bytes = self.bytes.get(e.start..e.end).unwrap_or_default();
                *datagram = Datagram { remote: e.remote, local: e.local, tos: e.tos, bytes };
            }
            sockets.send_esp(first.socket, datagrams.get(..run.len()).unwrap_or_default())?;
        }
        Ok(())
    }
}
