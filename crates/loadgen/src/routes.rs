//! A BGP speaker (RFC 4271) that says one thing, a whole table of routes, as fast as the other end takes it.
//!
//! The routes are made up, the same ones every time: distinct prefixes of the lengths that the internet's table has, and
//! sets of attributes that several prefixes share. The speaker keeps the session and understands nothing that it hears
//! but the end.
//!
//! ```text
//! feeder                              the speaker that is measured
//! OPEN ──────────────────────────────>
//!      <────────────────────────────── OPEN, KEEPALIVE
//! KEEPALIVE, UPDATE, … End-of-RIB ───>
//! KEEPALIVE each 20 s ───────────────>
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Random;
use os::clock::Clock;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
/// RFC 4271 §4.1.
pub(crate) const LONGEST: usize = 4_096;
pub(crate) const HEADER: usize = 19;
/// RFC 6793 §9: what stands in the two octets of OPEN.
const AS_TRANS: u16 = 23_456;
const HOLD: u16 = 90;

/// What to say to whom.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// Our address: router ID and next hop too.
    pub local: Ipv4Addr,
    /// Our AS.
    pub local_as: u32,
    /// The speaker that is measured; it must take connections.
    pub to: SocketAddr,
    /// How many prefixes.
    pub prefixes: u32,
    /// How many sets of attributes they share.
    pub attributes: u32,
    /// How long the session is kept after the last route.
    pub linger: Duration,
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fed {
    /// Prefixes.
    pub prefixes: u32,
    /// Sets of attributes.
    pub attributes: u32,
    /// UPDATE messages.
    pub updates: u32,
    /// Bytes of them.
    pub bytes: u64,
    /// From the first of them to the last taken by the kernel.
    pub seconds: f64,
}

/// Opens the session and says everything; `on_established` is told before the first route, `on_said` after the last.
///
/// # Errors
/// When the other end does not answer, refuses, or ends the session while routes are on their way.
pub fn feed(feed: &Feed, on_established: impl FnOnce(), on_said: impl FnOnce(&Fed)) -> io::Result<()> {
    let updates = Updates::of(feed);
    let clock = Clock::start();
    let mut stream = connect(feed)?;
    stream.write_all(&open(feed))?;
    expect(&mut stream, OPEN)?;
    stream.write_all(&message(KEEPALIVE, &[]))?;
    expect(&mut stream, KEEPALIVE)?;
    on_established();
    let start = clock.now();
    // What the other end says is read, so that it never has to wait for us.
    let ended = Arc::new(AtomicBool::new(false));
    let (mut heard, flag) = (stream.try_clone()?, ended.clone());
    std::thread::spawn(move || {
        while let Ok((kind, _)) = receive(&mut heard)
            && kind != NOTIFICATION
        {}
        flag.store(true, Ordering::Relaxed);
    });
    // Less than the hold time, in one go; the longest table takes seconds.
    for part in updates.bytes.chunks(1 << 16) {
        stream.write_all(part)?;
    }
    let seconds = (clock.now() - start).as_secs_f64();
    let (prefixes, attributes) = (feed.prefixes, feed.attributes);
    on_said(&Fed { prefixes, attributes, updates: updates.count, bytes: updates.bytes.len() as u64, seconds });
    let kept = keep(&mut stream, &clock, feed.linger, &ended);
    // The reader has the socket too; this ends both. It may be gone already.
    let _ = stream.shutdown(Shutdown::Both);
    kept
}

#[expect(clippy::disallowed_methods, reason = "the session lives on while somebody else measures")]
fn keep(stream: &mut TcpStream, clock: &Clock, linger: Duration, ended: &AtomicBool) -> io::Result<()> {
    let (end, mut next) = (clock.now() + linger, clock.now());
    while clock.now() < end && !ended.load(Ordering::Relaxed) {
        if clock.now() >= next {
            stream.write_all(&message(KEEPALIVE, &[]))?;
            next = clock.now() + Duration::from_secs(20);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the other end may only just be starting")]
fn connect(feed: &Feed) -> io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        let socket = Socket::new(Domain::for_address(feed.to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(feed.local, 0)).into())?;
        match socket.connect_timeout(&feed.to.into(), Duration::from_secs(2)) {
            Ok(()) => {
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                return Ok(socket.into());
            }
            Err(error) if tries == 50 => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
        tries += 1;
    }
}

fn expect(stream: &mut TcpStream, wanted: u8) -> io::Result<()> {
    let (kind, body) = receive(stream)?;
    if kind == wanted {
        return Ok(());
    }
    let why = match (kind, body.as_slice()) {
        (NOTIFICATION, [code, subcode, ..]) => format!("the other end refuses: notification {code}/{subcode}"),
        _ => format!("a message of type {kind} came in place of {wanted}"),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

pub(crate) fn receive(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER];
    read_whole(stream, &mut header)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER..=LONGEST).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut body = vec![0; len - HEADER];
    read_whole(stream, &mut body)?;
    Ok((header[18], body))
}

/// A session may be silent for longer than one read waits.
fn read_whole(stream: &mut impl Read, mut bytes: &mut [u8]) -> io::Result<()> {
    let mut silences = 0;
    while !bytes.is_empty() {
        match stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && silences < usize::from(HOLD) / 10 => {
                silences += 1
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(((HEADER + body.len()) as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// RFC 4271 §4.2 with the capabilities (RFC 5492) of IPv4 unicast (RFC 4760) and four-octet AS numbers (RFC 6793).
pub(crate) fn open(feed: &Feed) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(feed.local_as.to_be_bytes());
    let mut body = vec![4];
    body.extend(u16::try_from(feed.local_as).unwrap_or(AS_TRANS).to_be_bytes());
    body.extend(HOLD.to_be_bytes());
    body.extend(feed.local.octets());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// All UPDATE messages, End-of-RIB (RFC 4724 §2) last.
pub(crate) struct Updates {
    pub(crate) bytes: Vec<u8>,
    count: u32,
}

impl Updates {
    fn of(feed: &Feed) -> Self {
        Self::among(feed, &mut Prefixes::new(), &mut Random::for_test(1))
    }

    /// Of one speaker among several, whose prefixes are those that the others left.
    pub(crate) fn among(feed: &Feed, prefixes: &mut Prefixes, random: &mut Random) -> Self {
        let mut all = Self { bytes: Vec::new(), count: 0 };
        let (mut left, sets) = (feed.prefixes, feed.attributes.clamp(1, feed.prefixes.max(1)));
        for set in 0..sets {
            let attributes = attributes(feed, set, random);
            let rest = sets - set;
            // Some sets have one prefix and some have many; on average they come out even.
            let mean = left / rest;
            let share = if rest == 1 { left } else { (random.below(u64::from(mean) * 2) as u32).max(1) };
            let mut share = share.min(left - (rest - 1));
            left -= share;
            while share > 0 {
                let mut reachable = Vec::new();
                let room = LONGEST - HEADER - 4 - attributes.len() - 4;
                while share > 0 && reachable.len() <= room {
                    let (network, len) = prefixes.next(random);
                    reachable.push(len);
                    reachable.extend(&network.to_be_bytes()[..usize::from(len.div_ceil(8))]);
                    share -= 1;
                }
                all.push(&attributes, &reachable);
            }
        }
        all.push(&[], &[]);
        all
    }

    fn push(&mut self, attributes: &[u8], reachable: &[u8]) {
        let mut body = vec![0, 0];
        body.extend((attributes.len() as u16).to_be_bytes());
        body.extend(attributes);
        body.extend(reachable);
        self.bytes.extend(message(UPDATE, &body));
        self.count += 1;
    }
}

/// The attributes of one set; its number stands in a community, so that no two are alike.
fn attributes(feed: &Feed, set: u32, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut attribute = |flags: u8, code: u8, value: &[u8]| {
        bytes.extend([flags, code, value.len() as u8]);
        bytes.extend(value);
    };
    attribute(0x40, 1, &[if random.below(20) == 0 { 2 } else { 0 }]);
    // One AS_SEQUENCE of 2 to 7 in four octets each, ours in front.
    let others = 1 + random.below(6) as usize;
    let mut path = vec![2, others as u8 + 1];
    path.extend(feed.local_as.to_be_bytes());
    for _ in 0..others {
        path.extend((1 + random.below(60_000) as u32 + if random.below(4) == 0 { 196_608 } else { 0 }).to_be_bytes());
    }
    attribute(0x40, 2, &path);
    attribute(0x40, 3, &feed.local.octets());
    if random.below(3) == 0 {
        attribute(0x80, 4, &(random.below(200) as u32).to_be_bytes());
    }
    let mut communities: Vec<u32> = (0..random.below(6)).map(|_| (random.next_u32() & 0x7fff_ffff) | 1 << 16).collect();
    communities.push(0x8000_0000 | set);
    communities.sort_unstable();
    communities.dedup();
    let value: Vec<u8> = communities.iter().flat_map(|community| community.to_be_bytes()).collect();
    attribute(0xc0, 8, &value);
    bytes
}

/// Distinct prefixes in rising order, from 1.0.0.0 on.
pub(crate) struct Prefixes {
    next: u64,
}

impl Prefixes {
    pub(crate) const fn new() -> Self {
        Self { next: 0x0100_0000 }
    }

    /// The next one: three of five are /24, as in the internet's table; nothing shorter than /20 for want of room.
    fn next(&mut self, random: &mut Random) -> (u32, u8) {
        loop {
            let len = match random.below(100) {
                0..60 => 24,
                60..73 => 23,
                73..86 => 22,
                86..92 => 21,
                _ => 20,
            };
            let size = 1u64 << (32 - len);
            let network = self.next.next_multiple_of(size);
            self.next = network + size;
            // A million take a third of what there is.
            let address = Ipv4Addr::from(u32::try_from(network).unwrap_or(u32::MAX));
            let last = Ipv4Addr::from(u32::try_from(network + size - 1).unwrap_or(u32::MAX));
            if ![address, last].into_iter().any(is_special) {
                return (u32::from(address), len);
            }
        }
    }
}

fn is_special(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 198 && b & 0xfe == 18)
        || matches!((a, b, c), (198, 51, 100) | (203, 0, 113))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn a_feed(prefixes: u32, attributes: u32) -> Feed {
        let to = "192.0.2.2:179".parse().unwrap();
        Feed { local: Ipv4Addr::new(192, 0, 2, 1), local_as: 65_000, to, prefixes, attributes, linger: Duration::ZERO }
    }

    /// Prefixes and sets of attributes of everything that is said.
    fn read_back(updates: &Updates) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>, u32) {
        let (mut prefixes, mut sets, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut left = &updates.bytes[..];
        while !left.is_empty() {
            let (kind, body) = receive(&mut left).unwrap();
            assert_eq!(kind, UPDATE);
            count += 1;
            assert_eq!(body[..2], [0, 0]);
            let len = usize::from(u16::from_be_bytes([body[2], body[3]]));
            let (attributes, mut reachable) = body[4..].split_at(len);
            if !attributes.is_empty() {
                sets.insert(attributes.to_vec());
            }
            while let Some(bits) = reachable.first() {
                let (prefix, rest) = reachable.split_at(1 + usize::from(bits.div_ceil(8)));
                assert!(prefixes.insert(prefix.to_vec()), "{prefix:?} is said twice");
                reachable = rest;
            }
        }
        (prefixes, sets, count)
    }

    #[test]
    fn every_prefix_is_said_once_and_no_two_sets_are_alike() {
        for (wanted, of) in [(20_000, 3_000), (10_000, 1), (50, 50), (1, 1)] {
            let updates = Updates::of(&a_feed(wanted, of));
            let (prefixes, sets, count) = read_back(&updates);
            assert_eq!((prefixes.len(), sets.len()), (wanted as usize, of as usize));
            assert_eq!(count, updates.count);
        }
    }

    #[test]
    fn a_million_fit_below_the_multicast_addresses() {
        let (mut random, mut prefixes) = (Random::for_test(1), Prefixes::new());
        let last = (0..1_000_000).map(|_| prefixes.next(&mut random).0).max().unwrap();
        assert!(last < 0xe000_0000, "{last:x}");
    }

    #[test]
    fn the_session_is_opened_before_routes_are_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let feeder = std::thread::spawn(move || {
            feed(
                &Feed { local: Ipv4Addr::LOCALHOST, to, ..a_feed(100, 10) },
                || {},
                |fed| assert_eq!(fed.prefixes, 100),
            )
        });
        let (mut stream, _) = listener.accept().unwrap();
        let (kind, body) = receive(&mut stream).unwrap();
        assert_eq!((kind, body[0]), (OPEN, 4));
        assert_eq!(body[9], body.len() as u8 - 10);
        stream.write_all(&message(OPEN, &body)).unwrap();
        assert_eq!(receive(&mut stream).unwrap().0, KEEPALIVE);
        stream.write_all(&message(KEEPALIVE, &[])).unwrap();
        let mut last = Vec::new();
        while let Ok((UPDATE, body)) = receive(&mut stream) {
            last = body;
        }
        assert_eq!(last, [0; 4], "End-of-RIB comes last");
        feeder.join().unwrap().unwrap();
    }

    #[test]
    fn a_refusal_says_which() {
        let mut bytes = &message(NOTIFICATION, &[2, 2])[..];
        assert_eq!(receive(&mut bytes).unwrap(), (NOTIFICATION, vec![2, 2]));
    }
}
