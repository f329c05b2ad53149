//! UDP packets of one size at one rate, numbered by their sender and counted where they arrive.
//!
//! A sender that sends as fast as it can has the processor that whoever is measured needs, where all share one machine.
//! So the rate is looked for at which no more than a given part is lost; what arrives of a flood is told beside it.
//!
//! ```text
//! sender                                       counter
//! DATA run 1, DATA run 1, … at a rate ───────> counts
//! ASK run 1 ─────────────────────────────────> how many, and over what time
//!    <───────────────────────────────────── TOLD
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base::Instant;
use os::clock::Clock;
use os::poll::{Events, Interest, Poller};
use os::{Datagram, DatagramSocket, RecvBatch, Run, SocketOptions, udp};
use serde::Serialize;

const DATA: u8 = 1;
const ASK: u8 = 2;
const TOLD: u8 = 3;
/// Kind, number of the run, two numbers.
const HEADER: usize = 21;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// Packets that leave with one call.
const BATCH: usize = 32;
/// A paced sender looks at the clock this often.
const PAUSE: Duration = Duration::from_micros(100);
/// How many rates are tried, and how many of them between one that passes and one that does not.
const STEPS: usize = 10;
const HALVINGS: u32 = 3;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of each IP packet, headers included: at least 49, for what has to stand in it.
    pub size: usize,
    /// How long one rate is tried.
    pub time: Duration,
    /// Per cent that may be lost.
    pub tolerated: f64,
}

/// What became of the packets of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Packets a second that were to be sent; 0 is as fast as can be.
    pub wanted_per_second: f64,
    /// Packets a second that were sent.
    pub sent_per_second: f64,
    /// Packets a second that arrived, over the time of sending or of arriving, whichever is longer.
    pub arrived_per_second: f64,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Per cent of them.
    pub lost_percent: f64,
}

/// The best rate, and the flood.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// As fast as one sender can.
    pub flood: Outcome,
    /// The most that arrived with no more lost than is tolerated; all zeros where no rate was slow enough.
    pub best: Outcome,
    /// Everything that was tried.
    pub tried: Vec<Outcome>,
}

/// Counts what arrives, and answers who asks, until the process is ended.
///
/// # Errors
/// When the socket does not open, or is of no more use.
pub fn count(local: SocketAddr) -> io::Result<()> {
    let socket = udp::bind(local, &SocketOptions::default())?;
    let (clock, poller) = (Clock::start(), Poller::new()?);
    poller.add(&socket, 0, Interest::READ)?;
    let (mut events, mut batch) = (Events::with_capacity(1), RecvBatch::new(64, 2_048));
    let (mut run, mut arrived, mut first, mut last) = (0, 0u64, Instant::ZERO, Instant::ZERO);
    loop {
        poller.wait(&mut events, None)?;
        while let Ok(1..) = socket.recv_batch(&mut batch) {
            let now = clock.now();
            for (arrival, bytes) in batch.iter() {
                let Some((kind, of, ..)) = read(bytes) else { continue };
                if kind == DATA {
                    if of != run {
                        (run, arrived, first) = (of, 0, now);
                    }
                    arrived += 1;
                    last = now;
                } else if kind == ASK {
                    let of_run = if of == run { arrived } else { 0 };
                    let answer = written(TOLD, of, of_run, (last - first).as_micros() as u64);
                    // Who asks and hears nothing asks again.
                    let told = Datagram { remote: arrival.remote, local: Some(arrival.local), tos: 0, bytes: &answer };
                    let _ = socket.send(&told);
                }
            }
        }
    }
}

/// Sends at one rate, in packets a second; 0 is as fast as can be.
///
/// # Errors
/// When the socket fails or nobody answers.
pub fn send(stream: &Stream, per_second: f64) -> io::Result<Outcome> {
    Sender::new(stream)?.send(per_second)
}

/// Looks for the best rate.
///
/// # Errors
/// As [`send`].
pub fn find(stream: &Stream) -> io::Result<Found> {
    let mut sender = Sender::new(stream)?;
    let flood = sender.send(0.0)?;
    let tried = search(flood.arrived_per_second.max(1_000.0), stream.tolerated, |rate| sender.send(rate))?;
    let good = tried.iter().filter(|outcome| outcome.lost_percent <= stream.tolerated);
    let best = good.max_by(|a, b| a.arrived_per_second.total_cmp(&b.arrived_per_second)).copied();
    Ok(Found { flood, best: best.unwrap_or_default(), tried })
}

/// Goes up from a rate that passes or down from one that does not, then halves what lies between.
fn search(start: f64, tolerated: f64, mut send: impl FnMut(f64) -> io::Result<Outcome>) -> io::Result<Vec<Outcome>> {
    let (mut passes, mut fails, mut halved) = (None, None, 0);
    let mut tried = Vec::new();
    let mut rate = start;
    while tried.len() < STEPS {
        let outcome = send(rate)?;
        tried.push(outcome);
        if outcome.lost_percent <= tolerated {
            passes = Some(rate);
            // A sender that is asked for more sleeps less, up to a point.
            if outcome.sent_per_second < 0.5 * rate {
                break;
            }
        } else {
            fails = Some(rate);
        }
        rate = match (passes, fails) {
            (Some(_), Some(_)) if halved == HALVINGS => break,
            (Some(low), Some(high)) => {
                halved += 1;
                f64::sqrt(low * high)
            }
            (Some(low), None) => low * 1.5,
            (None, _) => rate / 1.5,
        };
    }
    Ok(tried)
}

struct Sender<'a> {
    stream: &'a Stream,
    socket: DatagramSocket,
    /// Whether the kernel cuts up runs.
    segments: bool,
    poller: Poller,
    clock: Clock,
    run: u32,
}

impl<'a> Sender<'a> {
    fn new(stream: &'a Stream) -> io::Result<Self> {
        if stream.size < HEADERS + HEADER {
            let why = format!("a packet has at least {} bytes", HEADERS + HEADER);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let socket = udp::bind(any, &SocketOptions::default())?;
        let segments = socket.can_segment();
        let poller = Poller::new()?;
        poller.add(&socket, 0, Interest::READ)?;
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Self { stream, socket, segments, poller, clock: Clock::start(), run: u32::from_ne_bytes(seed) })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a paced sender waits for its time, which no poller tells so exactly"
    )]
    fn send(&mut self, per_second: f64) -> io::Result<Outcome> {
        self.run = self.run.wrapping_add(1);
        let mut payload = vec![0; self.stream.size - HEADERS];
        payload[..HEADER].copy_from_slice(&written(DATA, self.run, 0, 0));
        let bytes = payload.repeat(BATCH);
        let start = self.clock.now();
        let mut sent = 0u64;
        let took = loop {
            let took = self.clock.now() - start;
            if took >= self.stream.time {
                break took;
            }
            let due = (per_second * took.as_secs_f64()) as u64;
            let now = if per_second > 0.0 { due.saturating_sub(sent).min(BATCH as u64) as usize } else { BATCH };
            if now == 0 {
                std::thread::sleep(PAUSE);
                continue;
            }
            match self.send_some(&bytes[..now * payload.len()], payload.len()) {
                Ok(done) => sent += done,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        };
        let (arrived, over) = self.ask()?;
        let lost = sent.saturating_sub(arrived);
        Ok(Outcome {
            wanted_per_second: per_second,
            sent_per_second: sent as f64 / took.as_secs_f64(),
            arrived_per_second: arrived as f64 / took.max(over).as_secs_f64(),
            sent,
            lost,
            lost_percent: lost as f64 / sent.max(1) as f64 * 100.0,
        })
    }

    /// Sends payloads of `len` bytes that lie back to back; how many the kernel took. Where it cuts runs up, one call
    /// brings it all of them: what sending costs is not what is measured. On the wire they are packets of their own
    /// where the device takes no runs, for which whoever measures must care (`ethtool -K … tx-udp-segmentation off`).
    fn send_some(&self, bytes: &[u8], len: usize) -> io::Result<u64> {
        let datagram = Datagram { remote: self.stream.to, local: None, tos: 0, bytes };
        if self.segments && bytes.len() > len {
            let sent = self.socket.send_runs(&[Run { datagram, segment: len as u16 }])?;
            return Ok(if sent.refused.is_empty() { (bytes.len() / len) as u64 } else { 0 });
        }
        let all: Vec<Datagram<'_>> = bytes.chunks(len).map(|bytes| Datagram { bytes, ..datagram }).collect();
        let sent = self.socket.send_batch(&all)?;
        Ok((sent.done - sent.refused.len()) as u64)
    }

    /// What has arrived, once nothing more does.
    #[expect(clippy::disallowed_methods, reason = "what stands in queues arrives first")]
    fn ask(&mut self) -> io::Result<(u64, Duration)> {
        let mut before = None;
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(20));
            let question = written(ASK, self.run, 0, 0);
            let asked = Datagram { remote: self.stream.to, local: None, tos: 0, bytes: &question };
            match self.socket.send(&asked) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let told = self.answer(Duration::from_millis(100))?;
            if told.is_some() && told == before {
                return Ok(told.unwrap_or_default());
            }
            before = told.or(before);
        }
        before.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "nobody counts at the other end"))
    }

    fn answer(&self, patience: Duration) -> io::Result<Option<(u64, Duration)>> {
        let end = self.clock.now() + patience;
        let (mut events, mut bytes) = (Events::with_capacity(1), [0; 256]);
        loop {
            while let Ok((_, payload)) = self.socket.recv(&mut bytes) {
                if let Some((TOLD, run, arrived, micros)) = read(payload)
                    && run == self.run
                {
                    return Ok(Some((arrived, Duration::from_micros(micros))));
                }
            }
            let left = self.clock.until(end);
            if left.is_zero() {
                return Ok(None);
            }
            self.poller.wait(&mut events, Some(left))?;
        }
    }
}

/// Has each of `count` source addresses, from `first` on and `step` apart, exchange a packet with a counter: so every tunnel has carried
/// something in both directions. How many were answered.
///
/// # Errors
/// When a source address is not ours.
pub fn touch(first: Ipv4Addr, step: u32, count: u32, to: SocketAddr) -> io::Result<u32> {
    let stream = Stream { to, size: HEADERS + HEADER, time: Duration::ZERO, tolerated: 0.0 };
    let options = SocketOptions { buffer: 16 << 10, ..SocketOptions::default() };
    let mut answered = 0;
    for number in 0..count {
        let source = IpAddr::V4(Ipv4Addr::from(u32::from(first).wrapping_add(number.wrapping_mul(step))));
        let socket = udp::bind(SocketAddr::new(source, 0), &options)?;
        let poller = Poller::new()?;
        poller.add(&socket, 0, Interest::READ)?;
        let sender = Sender { stream: &stream, socket, segments: false, poller, clock: Clock::start(), run: number };
        let question = written(ASK, number, 0, 0);
        for _ in 0..5 {
            let _ = sender.socket.send(&Datagram { remote: to, local: None, tos: 0, bytes: &question });
            if sender.answer(Duration::from_millis(200))?.is_some() {
                answered += 1;
                break;
            }
        }
    }
    Ok(answered)
}

fn written(kind: u8, run: u32, a: u64, b: u64) -> [u8; HEADER] {
    let mut bytes = [kind; HEADER];
    bytes[1..5].copy_from_slice(&run.to_be_bytes());
    bytes[5..13].copy_from_slice(&a.to_be_bytes());
    bytes[13..].copy_from_slice(&b.to_be_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Option<(u8, u32, u64, u64)> {
    let (kind, rest) = bytes.split_first()?;
    let (run, rest) = rest.split_first_chunk()?;
    let (a, rest) = rest.split_first_chunk()?;
    let (b, _) = rest.split_first_chunk()?;
    Some((*kind, u32::from_be_bytes(*run), u64::from_be_bytes(*a), u64::from_be_bytes(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that takes so many packets a second, and a sender that can send so many.
    fn tried(capacity: f64, ability: f64, start: f64) -> Vec<Outcome> {
        let send = |rate: f64| {
            let sent = rate.min(ability);
            let lost_percent = ((sent - capacity) / sent * 100.0).max(0.0);
            let arrived_per_second = sent.min(capacity);
            Ok(Outcome { sent_per_second: sent, arrived_per_second, lost_percent, ..Outcome::default() })
        };
        search(start, 1.0, send).unwrap()
    }

    fn best(outcomes: &[Outcome]) -> f64 {
        let good = outcomes.iter().filter(|outcome| outcome.lost_percent <= 1.0);
        good.map(|outcome| outcome.arrived_per_second).fold(0.0, f64::max)
    }

    #[test]
    fn the_rate_is_found_from_below_and_from_above() {
        for start in [20_000.0, 90_000.0, 100_000.0, 400_000.0] {
            let outcomes = tried(100_000.0, 1e9, start);
            assert!(best(&outcomes) > 90_000.0, "{start}: {outcomes:?}");
            assert!(outcomes.len() <= STEPS);
        }
    }

    #[test]
    fn a_sender_that_cannot_do_more_is_not_asked_again_and_again() {
        let outcomes = tried(1e9, 100_000.0, 90_000.0);
        assert!(outcomes.len() <= 3, "{outcomes:?}");
        assert!(best(&outcomes) >= 100_000.0);
    }

    #[test]
    fn a_path_that_takes_nothing_is_given_up() {
        assert!(best(&tried(0.0, 1e9, 50_000.0)) <= 0.0);
    }

    #[test]
    fn what_was_written_is_read_and_less_is_not() {
        let bytes = written(TOLD, 7, 1 << 40, 12);
        assert_eq!(read(&bytes), Some((TOLD, 7, 1 << 40, 12)));
        assert_eq!(read(&bytes[..HEADER - 1]), None);
    }

    #[test]
    fn everything_arrives_over_loopback() {
        // The counter's thread ends with the process.
        let at = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || count(at));
        // Who is asked and does not listen yet is asked again.
        assert_eq!(touch(Ipv4Addr::LOCALHOST, 256, 3, at).unwrap(), 3);
        let stream = Stream { to: at, size: 64, time: Duration::from_millis(50), tolerated: 1.0 };
        let outcome = send(&stream, 2_000.0).unwrap();
        assert!(outcome.sent > 50, "{outcome:?}");
        assert_eq!(outcome.lost, 0, "{outcome:?}");
    }
}
