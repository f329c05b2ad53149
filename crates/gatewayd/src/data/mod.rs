//! The seam between the control side and the data path: what goes down, what comes up, and in which order.
//!
//! ```text
//!            Handle ── Order ──> Inlet ──┐
//!  control                               │ worker: one thread, one poller, all sockets and devices
//!            Reports <── Report ── Outlet┘
//! ```
//!
//! The data path is one thread (`worker`) that owns the UDP sockets of IKE and NAT traversal, the raw ESP sockets
//! and the TUN devices. It serves both directions to completion and never waits for the control side.
//!
//! **Order is kept by there being one queue down.** An [`Order::Transmit`] that follows an [`Order::Sa`] leaves after
//! the SA is in effect: nobody waits for an acknowledgement. The worker takes orders between batches of packets, and
//! all that are waiting.
//!
//! **The way up is bounded.** IKE datagrams beyond [`DATAGRAMS`] are dropped and counted: IKE sends again. Events of
//! ESP are never dropped; their number is bounded by that of SAs and policies.

mod alive;
mod batch;
mod device;
mod handover;
mod pace;
mod paths;
mod snapshot;
mod socket;
mod sums;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::Instant;
use gateway::PolicyChange;
use gateway::status::{Carried, DataPathCounters, Traffic};
use model::Ports;
use os::clock::Clock;
use os::poll::Waker;
use os::tun::Tun;
use sa::{SaChange, SaId};
use tokio::sync::{mpsc, oneshot};

pub use handover::{Kind, Offer, Paused, devices};
pub use worker::{start, take_over};

/// IKE datagrams that wait for the control side at most.
pub const DATAGRAMS: usize = 4_096;

/// How to start the data path.
#[derive(Clone, Debug)]
pub struct Options {
    /// Local addresses to listen on; empty means every address, IPv4 and (where the host has it) IPv6.
    pub listen: Vec<IpAddr>,
    /// UDP ports.
    pub ports: Ports,
    /// The clock of the whole process: ESP and IKE must see the same time.
    pub clock: Clock,
    /// Whether the kernel's offloads are used where it has them.
    pub offloads: Offloads,
}

/// Whether super-packets pass between the kernel and the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// Where the kernel and the path let them pass.
    #[default]
    Auto,
    /// One packet at a time, for whoever looks for a fault.
    Off,
}

/// Something the worker is told. Orders are carried out one after the other.
#[derive(Debug)]
pub enum Order {
    /// Change the SAs.
    Sa(SaChange),
    /// The MTU of the outer path of an SA, in bytes.
    OuterMtu {
        /// The SA.
        id: SaId,
        /// The largest outer packet.
        mtu: u16,
    },
    /// Change the policies.
    Policy(PolicyChange),
    /// Serve this TUN device from now on. Its name says which it is: `gateway::plan::SHARED_DEVICE` is that of all
    /// policy-based children (`esp::Via::Policy`), any other that of the route-based child that names it.
    AddDevice(Tun),
    /// Serve it no more, and close it.
    RemoveDevice(Arc<str>),
    /// Send this IKE datagram, exactly, from the socket of its local port and family. An address of the local side
    /// that is unspecified leaves the choice to the kernel.
    Transmit(ike::Transmit),
    /// Say what was counted.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Say that orders are carried out.
    Ping(oneshot::Sender<()>),
    /// These connections are configured: forget what others carried, as far as they have no SA.
    Keep(BTreeSet<Arc<str>>),
    /// Say what another process needs to pass packets in place of this one. Packets pass on.
    Offer(oneshot::Sender<io::Result<Offer>>),
    /// Pass no more packets until [`Order::Resume`], and say how far everything is. What arrives meanwhile waits in the
    /// kernel. Orders are still carried out.
    Pause(oneshot::Sender<Paused>),
    /// Go on where a data path of another process paused; its SAs have been installed here.
    Restore(Box<Paused>, oneshot::Sender<Result<(), String>>),
    /// Pass packets again.
    Resume,
    /// Send what is left of the orders before this one, then end.
    Stop,
}

/// Something the worker tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A UDP datagram that is IKE's: all of port `ports.ike`, and of port `ports.natt` what begins with the non-ESP
    /// marker, which is still there. NAT keepalives are dropped by the worker.
    Ike {
        /// The address it came to.
        local: SocketAddr,
        /// Who sent it.
        remote: SocketAddr,
        /// The whole UDP payload.
        payload: Vec<u8>,
        /// When it was read.
        at: Instant,
    },
    /// Word from ESP.
    Esp(esp::Event),
    /// Authentic packets arrived on this SA; at most once a second an SA.
    Alive(SaId),
    /// The path towards this address takes outer packets of at most this many bytes, IP header included: the kernel
    /// refused a larger one. The SAs of this peer know it already; devices are the control side's to change.
    PathMtu {
        /// The peer.
        remote: IpAddr,
        /// Bytes.
        mtu: u16,
    },
    /// Something is missing, or ends, that the data path can do without: a sentence without a full stop.
    Notice(String),
    /// An order could not be carried out: which, and why, in a sentence without a full stop.
    Refused(String),
    /// The worker has ended and passes no more packets; why, when it was not told to.
    Ended(Option<String>),
}

/// What the data path has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What each SA carried. `Traffic::idle_s` and the replay window are those of the moment.
    pub sas: BTreeMap<SaId, Traffic>,
    /// What the SAs of each connection carried that are gone.
    pub carried: BTreeMap<Arc<str>, Carried>,
    /// What belongs to no SA.
    pub rest: DataPathCounters,
}

/// The control side's end of the way down.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: std::sync::mpsc::Sender<Order>,
    waker: Arc<Waker>,
}

/// The control side's end of the way up.
#[derive(Debug)]
pub struct Reports {
    datagrams: mpsc::Receiver<Report>,
    events: mpsc::UnboundedReceiver<Report>,
    dropped: Arc<AtomicU64>,
}

/// The worker's end of the way down.
#[derive(Debug)]
pub struct Inlet {
    orders: std::sync::mpsc::Receiver<Order>,
    /// Readable when there are orders: to be put into the worker's poller.
    pub waker: Arc<Waker>,
}

/// The worker's end of the way up.
#[derive(Clone, Debug)]
pub struct Outlet {
    datagrams: mpsc::Sender<Report>,
    events: mpsc::UnboundedSender<Report>,
    dropped: Arc<AtomicU64>,
}

/// The queues between the control side and one worker.
///
/// # Errors
/// When the kernel has no more file descriptors for the waker.
pub fn queues() -> io::Result<((Handle, Reports), (Inlet, Outlet))> {
    let waker = Arc::new(Waker::new()?);
    let (orders_in, orders_out) = std::sync::mpsc::channel();
    let (datagrams_in, datagrams_out) = mpsc::channel(DATAGRAMS);
    let (events_in, events_out) = mpsc::unbounded_channel();
    let dropped = Arc::new(AtomicU64::new(0));
    let control = (
        Handle { orders: orders_in, waker: waker.clone() },
        Reports { datagrams: datagrams_out, events: events_out, dropped: dropped.clone() },
    );
    let worker = (Inlet { orders: orders_out, waker }, Outlet { datagrams: datagrams_in, events: events_in, dropped });
    Ok((control, worker))
}

impl Handle {
    /// Gives orders, all of which are carried out before those that are given later. A worker that has ended takes
    /// none: [`Report::Ended`] says so.
    pub fn send(&self, orders: impl IntoIterator<Item = Order>) {
        let mut any = false;
        for order in orders {
            any |= self.orders.send(order).is_ok();
        }
        if any {
            self.waker.wake();
        }
    }

    /// What was counted up to now; nothing when the worker has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Snapshot(answer)]);
        asked.await.ok()
    }

    /// What another process needs to take over; nothing when the worker has ended.
    pub async fn offer(&self) -> Option<io::Result<Offer>> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Offer(answer)]);
        asked.await.ok()
    }

    /// Has no more packets passed; how far everything is then.
    pub async fn pause(&self) -> Option<Paused> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Pause(answer)]);
        asked.await.ok()
    }

    /// Lets the worker, which is paused, go on where another was; why it cannot, when it cannot.
    pub async fn restore(&self, paused: Paused) -> Result<(), String> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Restore(Box::new(paused), answer)]);
        asked.await.unwrap_or_else(|_| Err("the data path has ended".to_owned()))
    }

    /// Asks the worker for a sign of life, which comes once all orders before this one are carried out.
    pub fn ping(&self) -> oneshot::Receiver<()> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Ping(answer)]);
        asked
    }
}

impl Reports {
    /// The next report; events come before datagrams. `None` when the worker is gone.
    pub async fn recv(&mut self) -> Option<Report> {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => Some(event),
            Some(datagram) = self.datagrams.recv() => Some(datagram),
            else => None,
        }
    }

    /// A report that is there already.
    pub fn try_recv(&mut self) -> Option<Report> {
        self.events.try_recv().or_else(|_| self.datagrams.try_recv()).ok()
    }

    /// IKE datagrams that were dropped because too many were waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Inlet {
    /// The orders that are waiting. To be called when the waker is ready; it is cleared.
    pub fn take(&self) -> VecDeque<Order> {
        // Cleared first: an order that comes in between wakes again.
        self.waker.clear();
        self.orders.try_iter().collect()
    }

    /// The orders that are waiting, or the next one.
    fn wait(&self) -> VecDeque<Order> {
        let first = self.orders.recv().unwrap_or(Order::Stop);
        self.waker.clear();
        std::iter::once(first).chain(self.orders.try_iter()).collect()
    }
}

impl Outlet {
    /// Hands up an IKE datagram; it is dropped and counted when too many are waiting.
    pub fn datagram(&self, local: SocketAddr, remote: SocketAddr, payload: &[u8], at: Instant) {
        let report = Report::Ike { local, remote, payload: payload.to_vec(), at };
        if self.datagrams.try_send(report).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands up anything else.
    pub fn event(&self, report: Report) {
        // Nobody listens any more only when the process ends.
        let _ = self.events.send(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_come_in_order_and_events_before_datagrams() {
        let ((handle, mut reports), (inlet, outlet)) = queues().unwrap();
        handle.send([Order::RemoveDevice("a".into()), Order::Stop]);
        let orders = inlet.take();
        assert!(matches!(orders.iter().collect::<Vec<_>>()[..], [Order::RemoveDevice(_), Order::Stop]));
        let address = "127.0.0.1:500".parse().unwrap();
        outlet.datagram(address, address, b"x", Instant::ZERO);
        outlet.event(Report::Alive(SaId(1)));
        assert_eq!(reports.recv().await, Some(Report::Alive(SaId(1))));
        assert!(matches!(reports.recv().await, Some(Report::Ike { .. })));
        drop(outlet);
        assert_eq!(reports.recv().await, None);
    }

    #[test]
    fn datagrams_beyond_the_bound_are_dropped_and_counted() {
        let ((_, mut reports), (_, outlet)) = queues().unwrap();
        let address = "127.0.0.1:500".parse().unwrap();
        (0..DATAGRAMS + 3).for_each(|_| outlet.datagram(address, address, b"x", Instant::ZERO));
        assert_eq!(reports.dropped(), 3);
        assert!(reports.try_recv().is_some());
    }
}
