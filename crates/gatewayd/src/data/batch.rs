//! ESP packets on their way out: built where they are sent from, sent when no more wait.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use esp::{Lens, OutboundSa, Room};
use os::{Datagram, MAX_SEGMENTS, Run};
use packet::Tos;
use sa::Path;

use super::device::Device;
use super::socket::{Sockets, source};

/// Runs that one call sends.
const MAX_RUNS: usize = 64;
/// Room for a few super-packets. More would not stay in the processor's cache until they are sent.
const BYTES: usize = 384 << 10;
/// Packets that are handed over at once to be sealed.
const TOGETHER: usize = 32;
/// The largest UDP payload over IPv4.
const MAX_RUN: usize = 65_507;

/// The packets of a batch, back to back.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    runs: Vec<Entry>,
    /// Packets that lie there in clear until all are sealed together.
    clear: Vec<Clear>,
    /// How it was before the last packets were added.
    before: (usize, usize, Option<Entry>),
}

/// A packet that waits to be sealed.
#[derive(Debug)]
struct Clear {
    sa: Arc<OutboundSa>,
    sequence: u64,
    start: usize,
    end: usize,
}

/// Packets to one receiver, all of one length but for the last.
#[derive(Clone, Copy, Debug)]
struct Entry {
    socket: usize,
    remote: SocketAddr,
    local: Option<IpAddr>,
    tos: u8,
    start: usize,
    end: usize,
    /// Bytes of each packet but the last.
    len: usize,
    count: usize,
}

impl Entry {
    /// Whether nothing may follow: the last packet is shorter than the others.
    const fn is_closed(&self) -> bool {
        self.end - self.start < self.len * self.count
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BYTES].into(),
            used: 0,
            runs: Vec::with_capacity(4 * MAX_RUNS),
            clear: Vec::new(),
            before: (0, 0, None),
        }
    }

    /// Notes packets that begin at `self.used`, and moves on.
    fn add(&mut self, socket: usize, path: &Path, tos: Tos, lens: Lens, segments: usize) {
        self.before = (self.used, self.runs.len(), self.runs.last().copied());
        let mut left = lens.count;
        while left > 0 {
            let (remote, local) = (path.remote, source(path.local));
            let fits = (MAX_RUN / lens.len).clamp(1, segments);
            if let Some(run) = self.runs.last_mut()
                && run.count < fits
                && run.len >= lens.len
                && !run.is_closed()
                && (run.socket, run.remote, run.local, run.tos) == (socket, remote, local, tos.0)
                && run.end == self.used
                && run.end - run.start + lens.len <= MAX_RUN
                && (run.len == lens.len || left == 1)
            {
                let taken = if run.len == lens.len { left.min(fits - run.count) } else { 1 };
                left -= taken;
                let bytes = if left == 0 { lens.len * (taken - 1) + lens.last } else { lens.len * taken };
                run.count += taken;
                run.end += bytes;
                self.used += bytes;
                continue;
            }
            let taken = left.min(fits);
            left -= taken;
            let bytes = if left == 0 { lens.len * (taken - 1) + lens.last } else { lens.len * taken };
            let (start, end) = (self.used, self.used + bytes);
            let len = if taken == 1 { bytes } else { lens.len };
            self.runs.push(Entry { socket, remote, local, tos: tos.0, start, end, len, count: taken });
            self.used = end;
        }
    }

    /// Takes back what was added last.
    fn undo(&mut self) {
        let (used, len, last) = self.before;
        self.used = used;
        self.runs.truncate(len);
        if let (Some(run), Some(last)) = (self.runs.last_mut(), last) {
            *run = last;
        }
    }

    /// Sends what is there.
    ///
    /// # Errors
    /// As [`Sockets::send_esp`].
    pub(super) fn flush(&mut self, sockets: &mut Sockets) -> io::Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        // Nothing leaves in clear.
        self.seal();
        let result = self.send_all(sockets);
        self.runs.clear();
        self.used = 0;
        result
    }

    /// Seals what lies there in clear, the packets of one SA side by side.
    fn seal(&mut self) {
        // Those of one SA keep their order.
        self.clear.sort_by_key(|clear| (Arc::as_ptr(&clear.sa), clear.start));
        for of_one in self.clear.chunk_by(|a, b| Arc::ptr_eq(&a.sa, &b.sa)) {
            let Some(Clear { sa, .. }) = of_one.first() else { continue };
            for group in of_one.chunks(TOGETHER) {
                let mut packets: [(u64, &mut [u8]); TOGETHER] = std::array::from_fn(|_| (0, &mut [][..]));
                let (mut rest, mut at) = (&mut self.bytes[..self.used], 0);
                for (packet, clear) in packets.iter_mut().zip(group) {
                    let (_, from) = rest.split_at_mut(clear.start - at);
                    let (bytes, behind) = from.split_at_mut(clear.end - clear.start);
                    *packet = (clear.sequence, bytes);
                    (rest, at) = (behind, clear.end);
                }
                sa.seal_framed(&mut packets[..group.len()]);
            }
        }
        self.clear.clear();
    }

    fn send_all(&self, sockets: &mut Sockets) -> io::Result<()> {
        for group in self.runs.chunk_by(|a, b| a.socket == b.socket) {
            for group in group.chunks(MAX_RUNS) {
                let Some(first) = group.first() else { continue };
                let nothing = Run::from(Datagram { remote: first.remote, local: None, tos: 0, bytes: &[] });
                let mut runs = [nothing; MAX_RUNS];
                for (run, e) in runs.iter_mut().zip(group) {
                    let bytes = self.bytes.get(e.start..e.end).unwrap_or_default();
                    run.datagram = Datagram { remote: e.remote, local: e.local, tos: e.tos, bytes };
                    run.segment = if e.count > 1 { u16::try_from(e.len).unwrap_or(0) } else { 0 };
                }
                sockets.send_esp(first.socket, runs.get(..group.len()).unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

/// Where the packets of one device are sealed into.
pub(super) struct Outbox<'a> {
    pub(super) batch: &'a mut Batch,
    pub(super) sockets: &'a mut Sockets,
    pub(super) device: &'a mut Device,
    /// A socket that is of no more use.
    pub(super) result: io::Result<()>,
}

impl Room for Outbox<'_> {
    fn take(&mut self, path: &Path, tos: Tos, lens: Lens) -> Option<&mut [u8]> {
        let Some(socket) = self.sockets.for_path(path) else {
            self.sockets.stats.no_socket += 1;
            return None;
        };
        let total = lens.total();
        if self.batch.bytes.len() - self.batch.used < total || self.batch.runs.len() >= MAX_RUNS {
            let sent = self.batch.flush(self.sockets);
            if self.result.is_ok() {
                self.result = sent;
            }
        }
        if self.batch.bytes.len() < total {
            return None;
        }
        let start = self.batch.used;
        let segments = if self.sockets.can_segment(socket) { MAX_SEGMENTS } else { 1 };
        self.batch.add(socket, path, tos, lens, segments);
        self.batch.bytes.get_mut(start..start + total)
    }

    fn give_back(&mut self) {
        self.batch.undo();
    }

    fn reply(&mut self, packet: &[u8]) {
        self.device.write(packet);
    }

    fn defers(&self) -> bool {
        true
    }

    fn defer(&mut self, sa: &Arc<OutboundSa>, sequence: u64) {
        let (start, end) = (self.batch.before.0, self.batch.used);
        self.batch.clear.push(Clear { sa: Arc::clone(sa), sequence, start, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Path { local: at(4500), remote: at(port), udp: true }
    }

    /// The runs after adding these: (length, count, end).
    fn runs(adds: &[(u16, Lens)], segments: usize) -> Vec<(usize, usize, usize)> {
        let mut batch = Batch::new();
        for (port, lens) in adds {
            batch.add(0, &path(*port), Tos(0), *lens, segments);
        }
        batch.runs.iter().map(|run| (run.len, run.count, run.end)).collect()
    }

    const fn lens(len: usize, count: usize, last: usize) -> Lens {
        Lens { len, count, last }
    }

    #[test]
    fn packets_of_equal_length_to_one_receiver_are_one_run() {
        let one = |len| (1, lens(len, 1, len));
        assert_eq!(runs(&[one(100), one(100), one(100)], 64), [(100, 3, 300)]);
        assert_eq!(runs(&[one(100), one(60), one(60)], 64), [(100, 2, 160), (60, 1, 220)], "a shorter one is the last");
        assert_eq!(runs(&[one(60), one(100)], 64), [(60, 1, 60), (100, 1, 160)]);
        assert_eq!(runs(&[one(100), (2, lens(100, 1, 100))], 64), [(100, 1, 100), (100, 1, 200)], "another receiver");
        assert_eq!(runs(&[one(100), one(100)], 1), [(100, 1, 100), (100, 1, 200)], "a kernel that cuts nothing");
    }

    #[test]
    fn a_super_packet_is_as_few_runs_as_fit_into_datagrams() {
        // 44 × 1,468 = 64,592
        assert_eq!(runs(&[(1, lens(1468, 47, 600))], 64), [(1468, 44, 64_592), (1468, 3, 68_128)][..].to_vec());
        assert_eq!(runs(&[(1, lens(100, 130, 40))], 64), [(100, 64, 6400), (100, 64, 12_800), (100, 2, 12_940)]);
        assert_eq!(runs(&[(1, lens(100, 3, 40))], 1), [(100, 1, 100), (100, 1, 200), (40, 1, 240)]);
        let two = [(1, lens(100, 2, 100)), (1, lens(100, 2, 50)), (1, lens(100, 1, 100))];
        assert_eq!(runs(&two, 64), [(100, 4, 350), (100, 1, 450)]);
    }

    #[test]
    fn what_was_added_last_can_be_taken_back() {
        let mut batch = Batch::new();
        batch.add(0, &path(1), Tos(0), lens(100, 2, 100), 64);
        batch.add(0, &path(1), Tos(0), lens(100, 70, 100), 64);
        batch.undo();
        assert_eq!((batch.used, batch.runs.len(), batch.runs[0].count, batch.runs[0].end), (200, 1, 2, 200));
    }
}
