//! Many BGP speakers (RFC 4271) in one process, each with an address, an AS and some routes of its own, and all towards
//! one other: what it takes to have a thousand neighbours.
//!
//! ```text
//! a thousand speakers                 the speaker that is measured
//! OPEN ──────────────────────────────>                          (at once)
//!      <────────────────────────────── OPEN, KEEPALIVE
//! KEEPALIVE, UPDATE, … End-of-RIB ───>
//!      <────────────────────────────── UPDATE, …                what it tells of the others' routes
//! ```
//!
//! What is heard is counted, prefix by prefix; nothing else is made of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use base::{Instant, Random};
use os::clock::Clock;
use os::poll::{Events, Interest, Poller, Ready};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::routes::{self, Feed, Prefixes, Updates};

/// How long a speaker that was turned away waits before it tries again, and how often it does.
const AGAIN: (Duration, u32) = (Duration::from_millis(200), 50);
/// How often each says that it is alive.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
/// What one read takes at most.
const CHUNK: usize = 256 << 10;

/// Who says what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// The address of the first speaker; the others have those behind it.
    pub first: Ipv4Addr,
    /// The AS of the first; the others have those behind it.
    pub first_as: u32,
    /// How many.
    pub count: u32,
    /// How many of them may be between their first packet and an established session at once.
    pub at_once: u32,
    /// The speaker that is measured.
    pub to: SocketAddr,
    /// The next hop of all routes.
    pub next_hop: Ipv4Addr,
    /// How many prefixes each announces.
    pub prefixes: u32,
    /// How many sets of attributes they share.
    pub attributes: u32,
    /// Whether each waits until it was told of all that the others announce.
    pub hears: bool,
    /// How long the sessions are kept then.
    pub linger: Duration,
}

/// How long it took, from the first connection on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Held {
    /// Sessions.
    pub sessions: u32,
    /// Prefixes of all of them.
    pub prefixes: u32,
    /// Until the last session was established.
    pub established_s: f64,
    /// Until the last route was said.
    pub said_s: f64,
    /// Until the last of the others' routes was heard; 0 where nobody waits for them.
    pub heard_s: f64,
    /// Prefixes that were heard by all together.
    pub heard: u64,
    /// Connections that were turned away, and made again.
    pub again: u32,
}

/// How far a speaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting { until: Instant },
    Connecting,
    OpenSent,
    OpenConfirm,
    Established,
}

struct Speaker {
    feed: Feed,
    updates: Vec<u8>,
    state: State,
    stream: Option<TcpStream>,
    /// What waits to be written.
    outgoing: Vec<u8>,
    written: usize,
    /// The beginning of a message that has not come whole.
    incoming: Vec<u8>,
    heard: u64,
    tries: u32,
    is_waiting_to_write: bool,
}

/// Opens the sessions, says and hears everything; `on_done` is told then, and the sessions are kept for a while.
///
/// # Errors
/// When the other end refuses, ends a session, or is silent for a minute.
pub fn hold(sessions: &Sessions, on_done: impl FnOnce(&Held)) -> io::Result<()> {
    let mut crowd = Crowd::of(sessions)?;
    crowd.run(sessions)?;
    on_done(&crowd.held);
    crowd.keep(sessions.linger)
}

struct Crowd {
    speakers: Vec<Speaker>,
    poller: Poller,
    clock: Clock,
    held: Held,
    buffer: Vec<u8>,
}

impl Crowd {
    fn of(sessions: &Sessions) -> io::Result<Self> {
        let (mut random, mut prefixes) = (Random::for_test(1), Prefixes::new());
        let speakers = (0..sessions.count).map(|number| {
            let feed = Feed {
                local: Ipv4Addr::from(u32::from(sessions.first) + number),
                local_as: sessions.first_as + number,
                to: sessions.to,
                prefixes: sessions.prefixes,
                attributes: sessions.attributes,
                linger: Duration::ZERO,
            };
            let says = Feed { local: sessions.next_hop, ..feed };
            Speaker {
                updates: Updates::among(&says, &mut prefixes, &mut random).bytes,
                feed,
                state: State::Resting { until: Instant::ZERO },
                stream: None,
                outgoing: Vec::new(),
                written: 0,
                incoming: Vec::new(),
                heard: 0,
                tries: 0,
                is_waiting_to_write: false,
            }
        });
        let held = Held { sessions: sessions.count, prefixes: sessions.count * sessions.prefixes, ..Held::default() };
        let speakers = speakers.collect();
        Ok(Self { speakers, poller: Poller::new()?, clock: Clock::start(), held, buffer: vec![0; CHUNK] })
    }

    fn run(&mut self, sessions: &Sessions) -> io::Result<()> {
        let wanted = u64::from(sessions.prefixes) * u64::from(sessions.count.saturating_sub(1));
        let mut events = Events::with_capacity(1_024);
        let start = self.clock.now();
        let mut moved_at = start;
        loop {
            self.connect_who_rests(sessions.at_once)?;
            self.poller.wait(&mut events, Some(Duration::from_millis(50)))?;
            let now = self.clock.now();
            for ready in events.iter() {
                moved_at = now;
                self.serve(ready, now)?;
            }
            let passed = (now - start).as_secs_f64();
            let is_up = |speaker: &Speaker| speaker.state == State::Established;
            if self.held.established_s == 0.0 && self.speakers.iter().all(is_up) {
                self.held.established_s = passed;
            }
            let has_said = |speaker: &Speaker| is_up(speaker) && speaker.outgoing.is_empty();
            if self.held.said_s == 0.0 && self.speakers.iter().all(has_said) {
                self.held.said_s = passed;
            }
            let has_heard = |speaker: &Speaker| is_up(speaker) && speaker.heard >= wanted;
            if self.held.said_s > 0.0 && (!sessions.hears || self.speakers.iter().all(has_heard)) {
                self.held.heard_s = if sessions.hears { passed } else { 0.0 };
                self.held.heard = self.speakers.iter().map(|speaker| speaker.heard).sum();
                return Ok(());
            }
            if now - moved_at > PATIENCE {
                let (up, all) = (self.speakers.iter().filter(|speaker| is_up(speaker)).count(), self.speakers.len());
                let (heard, said) =
                    (self.speakers.iter().filter(|speaker| has_heard(speaker)).count(), self.held.said_s);
                let why = format!("{up} of {all} are up, {heard} have heard all, all was said after {said} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }

    /// Keeps the sessions, whatever is heard.
    fn keep(&mut self, linger: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let (end, mut next) = (self.clock.now() + linger, self.clock.now());
        loop {
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            if now >= next {
                next = now + KEEPALIVE_EVERY;
                for number in 0..self.speakers.len() {
                    self.say(number, &routes::message(routes::KEEPALIVE, &[]))?;
                }
            }
            self.poller.wait(&mut events, Some((end.min(next) - now).min(Duration::from_millis(200))))?;
            for ready in events.iter() {
                self.serve(ready, now)?;
            }
        }
    }

    fn connect_who_rests(&mut self, at_once: u32) -> io::Result<()> {
        let now = self.clock.now();
        let under_way = |speaker: &&Speaker| !matches!(speaker.state, State::Resting { .. } | State::Established);
        let mut room = (at_once as usize).saturating_sub(self.speakers.iter().filter(under_way).count());
        for (number, speaker) in self.speakers.iter_mut().enumerate() {
            if room == 0 {
                return Ok(());
            }
            if !matches!(speaker.state, State::Resting { until } if until <= now) {
                continue;
            }
            room -= 1;
            let socket = Socket::new(Domain::for_address(speaker.feed.to), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::V4(SocketAddrV4::new(speaker.feed.local, 0)).into())?;
            match socket.connect(&speaker.feed.to.into()) {
                Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let stream = TcpStream::from(socket);
            self.poller.add(&stream, number as u64, Interest::BOTH)?;
            (speaker.state, speaker.is_waiting_to_write) = (State::Connecting, true);
            speaker.stream = Some(stream);
        }
        Ok(())
    }

    fn serve(&mut self, ready: Ready, now: Instant) -> io::Result<()> {
        let number = ready.token as usize;
        let Some(speaker) = self.speakers.get_mut(number) else { return Ok(()) };
        if speaker.state == State::Connecting {
            let Some(stream) = &speaker.stream else { return Ok(()) };
            if let Some(error) = stream.take_error()? {
                return self.rest(number, &error, now);
            }
            if !ready.writable {
                return Ok(());
            }
            speaker.state = State::OpenSent;
            let open = routes::open(&speaker.feed);
            return self.say(number, &open);
        }
        let heard = if ready.readable { self.hear(number) } else { Ok(()) };
        let done = heard.and_then(|()| if ready.writable { self.flush(number) } else { Ok(()) });
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.rest(number, &error, now),
        }
    }

    /// A session that is not yet up is tried again; one that was ends everything.
    fn rest(&mut self, number: usize, error: &io::Error, now: Instant) -> io::Result<()> {
        let speaker = &mut self.speakers[number];
        if speaker.state == State::Established || speaker.tries >= AGAIN.1 {
            let why = format!("{} lost its session: {error}", speaker.feed.local);
            return Err(io::Error::new(error.kind(), why));
        }
        speaker.tries += 1;
        self.held.again += 1;
        speaker.stream = None;
        (speaker.outgoing, speaker.written, speaker.incoming) = (Vec::new(), 0, Vec::new());
        speaker.state = State::Resting { until: now + AGAIN.0 };
        Ok(())
    }

    fn hear(&mut self, number: usize) -> io::Result<()> {
        let speaker = &mut self.speakers[number];
        let Some(stream) = &mut speaker.stream else { return Ok(()) };
        let count = match stream.read(&mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        speaker.incoming.extend_from_slice(&self.buffer[..count]);
        let mut incoming = std::mem::take(&mut speaker.incoming);
        let mut rest = &incoming[..];
        while let Some((kind, body, tail)) = cut(rest)? {
            rest = tail;
            self.take(number, kind, body)?;
        }
        let done = incoming.len() - rest.len();
        incoming.drain(..done);
        self.speakers[number].incoming = incoming;
        Ok(())
    }

    fn take(&mut self, number: usize, kind: u8, body: &[u8]) -> io::Result<()> {
        let speaker = &mut self.speakers[number];
        match (kind, speaker.state) {
            (routes::OPEN, State::OpenSent) => {
                speaker.state = State::OpenConfirm;
                self.say(number, &routes::message(routes::KEEPALIVE, &[]))
            }
            (routes::KEEPALIVE, State::OpenConfirm) => {
                speaker.state = State::Established;
                let updates = std::mem::take(&mut speaker.updates);
                self.say(number, &updates)
            }
            (routes::UPDATE, State::Established) => {
                speaker.heard += announced(body);
                Ok(())
            }
            (routes::NOTIFICATION, _) => {
                let why = format!("notification {}/{}", body.first().unwrap_or(&0), body.get(1).unwrap_or(&0));
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, why))
            }
            _ => Ok(()),
        }
    }

    fn say(&mut self, number: usize, bytes: &[u8]) -> io::Result<()> {
        self.speakers[number].outgoing.extend_from_slice(bytes);
        self.flush(number)
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let speaker = &mut self.speakers[number];
        let Some(stream) = &mut speaker.stream else { return Ok(()) };
        while speaker.written < speaker.outgoing.len() {
            match stream.write(&speaker.outgoing[speaker.written..]) {
                Ok(count) => speaker.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let is_done = speaker.written == speaker.outgoing.len();
        if is_done {
            (speaker.outgoing, speaker.written) = (Vec::new(), 0);
        }
        if speaker.is_waiting_to_write == is_done {
            let interest = if is_done { Interest::READ } else { Interest::BOTH };
            self.poller.change(&*stream, number as u64, interest)?;
            speaker.is_waiting_to_write = !is_done;
        }
        Ok(())
    }
}

/// `EINPROGRESS` of Linux.
const EINPROGRESS: i32 = 115;

/// The type and the body of a message, and what is behind it.
type Cut<'a> = (u8, &'a [u8], &'a [u8]);

/// The first message; `None` where it has not come whole.
fn cut(bytes: &[u8]) -> io::Result<Option<Cut<'_>>> {
    let Some(header) = bytes.first_chunk::<{ routes::HEADER }>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(routes::HEADER..=routes::LONGEST).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let Some((message, rest)) = bytes.split_at_checked(len) else { return Ok(None) };
    Ok(Some((header[18], &message[routes::HEADER..], rest)))
}

/// How many IPv4 prefixes an UPDATE announces.
fn announced(body: &[u8]) -> u64 {
    let field =
        |bytes: &[u8], at: usize| bytes.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let withdrawn = field(body, 0);
    let attributes = field(body, 2 + withdrawn);
    let (mut rest, mut count) = (body.get(4 + withdrawn + attributes..).unwrap_or_default(), 0);
    while let Some((bits, tail)) = rest.split_first() {
        count += 1;
        rest = tail.get(usize::from(bits.div_ceil(8))..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_counted_behind_whatever_stands_before_them() {
        assert_eq!(announced(&[0, 0, 0, 0]), 0);
        assert_eq!(announced(&[0, 2, 8, 10, 0, 4, 0x40, 1, 1, 0, 24, 10, 0, 0, 0, 32, 1, 2, 3, 4]), 3);
    }

    #[test]
    fn a_message_that_has_not_come_whole_waits() {
        let message = routes::message(routes::KEEPALIVE, &[]);
        assert!(cut(&message[..18]).unwrap().is_none());
        let two = [message.clone(), message[..5].to_vec()].concat();
        let (kind, body, rest) = cut(&two).unwrap().unwrap();
        assert_eq!((kind, body.len(), rest.len()), (routes::KEEPALIVE, 0, 5));
        assert!(cut(&[0; 19]).is_err());
    }

    /// Three speakers, and one that tells each of them what the other two said.
    #[test]
    fn everybody_says_its_own_and_hears_the_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let sessions = Sessions {
            first: Ipv4Addr::new(127, 9, 0, 1),
            first_as: 4_200_000_000,
            count: 3,
            at_once: 3,
            to,
            next_hop: Ipv4Addr::LOCALHOST,
            prefixes: 20,
            attributes: 4,
            hears: true,
            linger: Duration::ZERO,
        };
        let measured = std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            let mut said = Vec::new();
            for stream in &mut streams {
                let (kind, body) = routes::receive(stream).unwrap();
                assert_eq!(kind, routes::OPEN);
                stream.write_all(&routes::message(routes::OPEN, &body)).unwrap();
                stream.write_all(&routes::message(routes::KEEPALIVE, &[])).unwrap();
                assert_eq!(routes::receive(stream).unwrap().0, routes::KEEPALIVE);
                let mut updates = Vec::new();
                while let Ok((routes::UPDATE, body)) = routes::receive(stream) {
                    if body == [0; 4] {
                        break;
                    }
                    updates.extend(routes::message(routes::UPDATE, &body));
                }
                said.push(updates);
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                for (_, updates) in said.iter().enumerate().filter(|(other, _)| *other != number) {
                    stream.write_all(updates).unwrap();
                }
            }
            // Until the others are gone.
            streams.iter_mut().for_each(|stream| drop(stream.read(&mut [0; 64])));
        });
        let mut found = Held::default();
        hold(&sessions, |held| found = *held).unwrap();
        assert_eq!((found.sessions, found.prefixes, found.heard, found.again), (3, 60, 120, 0));
        assert!(found.established_s > 0.0 && found.said_s >= found.established_s && found.heard_s >= found.said_s);
        measured.join().unwrap();
    }
}
