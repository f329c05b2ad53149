//! Continuous traffic between two hosts, each packet numbered and its sending and arrival noted, so that what a failover
//! cost is known exactly.
//!
//! Each end is a thread of this process that has entered the host's namespace: it sends a packet of every flow each
//! [`INTERVAL`] and takes in what the other sent. Flows differ in their UDP ports, so that a gateway which spreads flows
//! over tunnels spreads these.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{NETNS_DIR, Node};
use crate::ping::PATTERN;
use crate::routing::loss::{Flow, Loss};

/// How often each flow sends a packet in each direction.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// What is still under way when the last packet was sent has so long to arrive.
const STRAGGLERS: Duration = Duration::from_millis(400);

/// By then a port that an earlier stream had is free, however busy the machine is.
const PORT_FREE: Duration = Duration::from_secs(5);

/// The flow of number 0 uses this port at both ends.
const FIRST_PORT: u16 = 9000;

/// What a stream lost in each direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Losses {
    /// From the customer to the cloud.
    pub out: Loss,
    /// From the cloud to the customer.
    pub back: Loss,
}

impl Losses {
    /// The longer interruption of the two, in milliseconds.
    pub fn interrupted_ms(&self) -> f64 {
        self.out.interrupted_ms.max(self.back.interrupted_ms)
    }

    /// Packets lost in both directions.
    pub const fn lost(&self) -> u32 {
        self.out.lost + self.back.lost
    }

    /// Whether an interruption lasted until the end.
    pub const fn is_open(&self) -> bool {
        self.out.is_open || self.back.is_open
    }
}

impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "out: {}; back: {}", self.out, self.back)
    }
}

/// Where one end of a stream is.
#[derive(Clone)]
pub struct Host {
    /// Its namespace.
    pub node: Node,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A stream that runs. Dropping it ends it.
pub struct Stream {
    ends: [End; 2],
    sends: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

struct End {
    thread: Option<JoinHandle<io::Result<Seen>>>,
    heard: Arc<[AtomicU32]>,
}

/// What one end did and saw, by flow.
#[derive(Debug)]
struct Seen {
    sent: Vec<Vec<Duration>>,
    arrived: Vec<Vec<u32>>,
}

/// What an end is told.
struct Order {
    netns: PathBuf,
    from: Ipv4Addr,
    to: Ipv4Addr,
    flows: u16,
    start: Instant,
    /// Whether packets are sent: from when both ends take them in.
    sends: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    heard: Arc<[AtomicU32]>,
}

impl Stream {
    /// Starts sending both ways.
    ///
    /// # Errors
    ///
    /// When a namespace or a socket cannot be had.
    pub fn start(customer: &Host, cloud: &Host, flows: u16) -> Result<Self> {
        let (sends, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let start = clock::now();
        let end = |host: &Host, peer: &Host| -> Result<End> {
            let heard: Arc<[AtomicU32]> = (0..flows).map(|_| AtomicU32::new(0)).collect();
            let order = Order {
                netns: Path::new(NETNS_DIR).join(host.node.netns()),
                from: host.address,
                to: peer.address,
                flows,
                start,
                sends: Arc::clone(&sends),
                stop: Arc::clone(&stop),
                heard: Arc::clone(&heard),
            };
            let (ready, is_ready) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name("stream".into())
                .spawn(move || run(&order, &ready))
                .map_err(|e| Error::io("starting a stream", e))?;
            let mut end = End { thread: Some(thread), heard };
            if is_ready.recv().is_err() {
                end.join()?;
            }
            Ok(end)
        };
        let stream = Self { ends: [end(customer, cloud)?, end(cloud, customer)?], sends, stop };
        stream.sends.store(true, Ordering::SeqCst);
        Ok(stream)
    }

    /// How many packets of the flow that got the fewest arrived, over both directions.
    fn fewest_heard(&self) -> Vec<u32> {
        self.ends.iter().flat_map(|end| end.heard.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }

    /// Waits until every flow passes in both directions: `count` more packets of each have arrived.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] when one does not within `limit`.
    pub fn wait_for_packets(&self, count: u32, limit: Duration) -> Result<Duration> {
        let before = self.fewest_heard();
        clock::wait_for("traffic both ways", limit, || {
            Ok(self.fewest_heard().iter().zip(&before).all(|(now, before)| now - before >= count))
        })
    }

    /// Waits until every flow has passed in both directions, without a hole, for `time`.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] when that does not come within `limit`.
    pub fn wait_until_steady(&self, time: Duration, limit: Duration) -> Result<()> {
        let start = clock::now();
        let mut since = clock::now();
        let mut before = self.fewest_heard();
        while clock::now() - since < time {
            clock::sleep(Duration::from_millis(100))?;
            let now = self.fewest_heard();
            if now.iter().zip(&before).any(|(now, before)| now == before) {
                since = clock::now();
            }
            before = now;
            if clock::now() - start > limit {
                return Err(Error::Late {
                    what: "steady traffic both ways".into(),
                    seconds: limit.as_secs(),
                    hint: String::new(),
                });
            }
        }
        Ok(())
    }

    /// Ends it; what became of the packets.
    ///
    /// # Errors
    ///
    /// When an end failed.
    pub fn finish(mut self) -> Result<Losses> {
        self.sends.store(false, Ordering::SeqCst);
        clock::sleep(STRAGGLERS)?;
        self.stop.store(true, Ordering::SeqCst);
        let [Some(customer), Some(cloud)] = [self.ends[0].join()?, self.ends[1].join()?] else {
            return Err(Error::Asked("a stream was ended twice".into()));
        };
        Ok(Losses { out: loss(&customer, &cloud), back: loss(&cloud, &customer) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for end in &mut self.ends {
            let _ = end.join();
        }
    }
}

impl End {
    fn join(&mut self) -> Result<Option<Seen>> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        let seen = thread.join().unwrap_or_else(|_| Err(io::Error::other("the stream's thread panicked")));
        seen.map(Some).map_err(|e| Error::io("sending a stream", e))
    }
}

fn loss(from: &Seen, to: &Seen) -> Loss {
    let flows = from.sent.iter().zip(&to.arrived);
    let flows: Vec<Flow> = flows.map(|(sent, arrived)| Flow { sent: sent.clone(), arrived: arrived.clone() }).collect();
    Loss::of(&flows)
}

/// Enters the namespace, for this thread alone, then sends and takes in.
fn run(order: &Order, ready: &mpsc::Sender<()>) -> io::Result<Seen> {
    setns(File::open(&order.netns)?, CloneFlags::CLONE_NEWNET)?;
    let sockets: Vec<UdpSocket> = (0..order.flows)
        .map(|flow| {
            let socket = bind(order.from, FIRST_PORT + flow)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<io::Result<_>>()?;
    let mut seen = Seen { sent: vec![Vec::new(); sockets.len()], arrived: vec![Vec::new(); sockets.len()] };
    let _ = ready.send(());
    let mut next = clock::now();
    while !order.stop.load(Ordering::SeqCst) {
        let now = clock::now();
        if now >= next {
            if order.sends.load(Ordering::SeqCst) {
                send(order, &sockets, &mut seen);
            }
            // A thread that was late does not catch up: a burst is no traffic of a host.
            next = (next + INTERVAL).max(now);
        }
        let timeout = PollTimeout::try_from(next.saturating_duration_since(clock::now()).as_millis().max(1));
        let mut polled: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout.unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => receive(order, &sockets, &mut seen),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(seen)
}

/// Binds a port, which may be taken for a moment yet: a command that was started while an earlier stream had it holds it
/// from fork to exec.
fn bind(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let end = clock::now() + PORT_FREE;
    loop {
        match UdpSocket::bind((address, port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && clock::now() < end => {
                clock::sleep_through(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

fn send(order: &Order, sockets: &[UdpSocket], seen: &mut Seen) {
    for ((socket, sent), flow) in sockets.iter().zip(&mut seen.sent).zip(0..) {
        let number = u32::try_from(sent.len()).unwrap_or(u32::MAX);
        let mut packet = PATTERN.to_vec();
        packet.extend(number.to_be_bytes());
        sent.push(clock::now() - order.start);
        // That there is no way out is a loss like any other.
        let _ = socket.send_to(&packet, (order.to, FIRST_PORT + flow));
    }
}

fn receive(order: &Order, sockets: &[UdpSocket], seen: &mut Seen) {
    let mut buffer = [0; 256];
    for ((socket, arrived), heard) in sockets.iter().zip(&mut seen.arrived).zip(order.heard.iter()) {
        // An error is an ICMP message about an earlier packet, or that nothing waits.
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let number = buffer[..len].strip_prefix(PATTERN).and_then(|rest| rest.try_into().ok());
            if let Some(number) = number.filter(|_| from.ip() == order.to) {
                arrived.push(u32::from_be_bytes(number));
                heard.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
