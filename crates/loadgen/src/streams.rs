//! Many TCP streams from many addresses at once, counted where they end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use os::clock::Clock;
use os::poll::{Events, Interest, Poller};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

/// What one read or write moves at most.
const CHUNK: usize = 256 << 10;
/// How long streams that do not come are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Received {
    /// Streams.
    pub streams: u32,
    /// Streams that brought something while it was counted.
    pub alive: u32,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The time in which they arrived.
    pub seconds: f64,
    /// Megabits a second.
    pub mbit: f64,
}

/// Takes `streams` streams, lets them get going for `warm_up`, and counts for `time` what arrives; then closes them.
///
/// # Errors
/// `TimedOut` when not all come within 20 s.
pub fn sink(local: SocketAddr, streams: u32, warm_up: Duration, time: Duration) -> io::Result<Received> {
    let listener = TcpListener::bind(local)?;
    listener.set_nonblocking(true)?;
    let (clock, poller) = (Clock::start(), Poller::new()?);
    poller.add(&listener, 0, Interest::READ)?;
    let mut open: Vec<(TcpStream, bool)> = Vec::new();
    let (mut events, mut bytes) = (Events::with_capacity(256), vec![0; CHUNK]);
    let (mut total, mut begun, mut counting) = (0u64, None, false);
    loop {
        let now = clock.now();
        let due = match begun {
            None if now.since_start() > PATIENCE => {
                let why = format!("{} of {streams} streams came", open.len());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            None => Duration::from_millis(100),
            Some(at) => {
                let since = now - at;
                if !counting && since >= warm_up {
                    counting = true;
                    total = 0;
                    open.iter_mut().for_each(|(_, came)| *came = false);
                }
                if since >= warm_up + time {
                    let seconds = (since - warm_up).as_secs_f64();
                    let alive = open.iter().filter(|(_, came)| *came).count() as u32;
                    let mbit = total as f64 * 8e-6 / seconds;
                    return Ok(Received { streams, alive, bytes: total, seconds, mbit });
                }
                (warm_up + time) - since
            }
        };
        poller.wait(&mut events, Some(due.min(Duration::from_millis(100))))?;
        for ready in events.iter() {
            if ready.token == 0 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    poller.add(&stream, open.len() as u64 + 1, Interest::READ)?;
                    open.push((stream, false));
                }
                if open.len() == streams as usize && begun.is_none() {
                    begun = Some(clock.now());
                }
                continue;
            }
            let Some((stream, came)) = open.get_mut(ready.token as usize - 1) else { continue };
            match stream.read(&mut bytes) {
                Ok(0) => poller.remove(&*stream)?,
                Ok(count) => {
                    total += count as u64;
                    *came = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => poller.remove(&*stream)?,
            }
        }
    }
}

/// Opens `streams` streams, each from an address of its own, from `first` on and `step` apart, and sends as fast as they take it, until the
/// other end closes them or `time` is over.
///
/// # Errors
/// When an address is not ours, or a stream does not open.
pub fn source(first: Ipv4Addr, step: u32, streams: u32, to: SocketAddr, time: Duration) -> io::Result<()> {
    let (clock, poller) = (Clock::start(), Poller::new()?);
    let mut open: Vec<Option<TcpStream>> = Vec::new();
    for number in 0..streams {
        let from = Ipv4Addr::from(u32::from(first).wrapping_add(number.wrapping_mul(step)));
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(from, 0)).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        poller.add(&stream, u64::from(number), Interest::WRITE)?;
        open.push(Some(stream));
    }
    let (mut events, bytes, mut left) = (Events::with_capacity(256), vec![0x5a; CHUNK], streams);
    while left > 0 && clock.now().since_start() < time {
        poller.wait(&mut events, Some(Duration::from_millis(100)))?;
        for ready in events.iter() {
            let Some(slot) = open.get_mut(ready.token as usize) else { continue };
            let Some(stream) = slot else { continue };
            match stream.write(&bytes) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    *slot = None;
                    left -= 1;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_from_several_addresses_are_counted_together() {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sink = std::thread::spawn(move || sink(at, 3, Duration::ZERO, Duration::from_millis(100)));
        // The sink may not listen yet.
        let opened =
            (0..1_000).any(|_| source(Ipv4Addr::new(127, 0, 0, 2), 256, 3, at, Duration::from_secs(5)).is_ok());
        assert!(opened);
        let received = sink.join().unwrap().unwrap();
        assert_eq!((received.streams, received.alive), (3, 3));
        assert!(received.bytes > 100_000, "{received:?}");
    }
}
