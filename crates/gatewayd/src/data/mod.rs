//! The seam between the control side and the data path: what goes down, what comes up, and in which order.
//!
//! ```text
//!            Handle ── Order ──> Inlet ──┐
//!  control                               │ worker: one thread, one poller, sockets and devices
//!            Reports <── Report ── Outlet┘
//! ```
//!
//! A worker is a thread that owns UDP sockets of IKE and NAT traversal, raw ESP sockets and TUN devices, and serves both
//! directions to completion; it never waits for the control side. On few cores there is one; `crew` says how several share
//! the work.
//!
//! **Order is kept by there being one queue down.** An [`Order::Transmit`] that follows an [`Order::Sa`] leaves after
//! the SA is in effect: nobody waits for an acknowledgement. The worker takes orders between batches of packets, and
//! all that are waiting.
//!
//! **The way up is bounded.** IKE datagrams beyond [`DATAGRAMS`] are dropped and counted: IKE sends again. Events of
//! ESP are never dropped; their number is bounded by that of SAs and policies.

mod alive;
mod batch;
mod crew;
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
use esp::Joint;
use esp::export::ExportedSa;
use esp::shared::Mark;
use gateway::PolicyChange;
use gateway::status::{Carried, DataPathCounters, Traffic};
use model::Ports;
use os::clock::Clock;
use os::poll::Waker;
use os::tun::Tun;
use sa::{ChildSa, SaChange, SaId};
use tokio::sync::{mpsc, oneshot};

use crew::{Way, share_out};

pub use crew::{MAX_WORKERS, Sign, workers_for};
pub use device::Queues;
pub use handover::{Kind, Offer, Paused};
pub use worker::{Running, Share, start, take_over};

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
    /// Threads that pass packets, 1 to [`MAX_WORKERS`].
    pub workers: usize,
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
    /// Install an SA that all workers have in service.
    Join(Box<ChildSa>, Joint),
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
    /// The same, with the queues that several workers have.
    AddQueues(Queues),
    /// Serve it no more, and close it.
    RemoveDevice(Arc<str>),
    /// Send this IKE datagram, exactly, from the socket of its local port and family. An address of the local side
    /// that is unspecified leaves the choice to the kernel.
    Transmit(ike::Transmit),
    /// Say what was counted.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Say, by dropping it, that orders are carried out.
    Ping(Arc<Sign>),
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
    /// Bind the SAs, before another gateway is told of them, and say what it is to be told.
    Share(oneshot::Sender<Shared>),
    /// Bind an SA that begins, of which the other gateway is told.
    ShareNew(SaId),
    /// Say how far the SAs are, for another gateway that knows them.
    Marks(oneshot::Sender<Vec<Mark>>),
    /// The other gateway knows this.
    Confirm(Vec<Mark>),
    /// Go on in place of another gateway, which said this last. The SAs have been installed here, and none is active.
    Succeed(Vec<Mark>, oneshot::Sender<Result<(), String>>),
    /// Send what is left of the orders before this one, then end.
    Stop,
}

/// What another gateway is told of the SAs.
#[derive(Debug)]
pub struct Shared {
    /// What they are made of.
    pub sas: Vec<ExportedSa>,
    /// Those that packets take or took, in the order of their activation.
    pub activated: Vec<SaId>,
    /// How far they are.
    pub marks: Vec<Mark>,
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
    Alive {
        /// The SA.
        id: SaId,
        /// When the last of them did.
        at: Instant,
    },
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
    /// The leader's first.
    ways: Arc<[Way]>,
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

/// What a worker has of its queues.
pub type WorkersEnd = (Inlet, Outlet);

/// The queues between the control side and so many workers.
///
/// # Errors
/// When the kernel has no more file descriptors for the wakers.
pub fn queues(workers: usize) -> io::Result<((Handle, Reports), Vec<WorkersEnd>)> {
    let (datagrams_in, datagrams_out) = mpsc::channel(DATAGRAMS);
    let (events_in, events_out) = mpsc::unbounded_channel();
    let dropped = Arc::new(AtomicU64::new(0));
    let outlet = Outlet { datagrams: datagrams_in, events: events_in, dropped: dropped.clone() };
    let mut ways = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..workers.clamp(1, MAX_WORKERS) {
        let waker = Arc::new(Waker::new()?);
        let (orders_in, orders_out) = std::sync::mpsc::channel();
        ways.push(Way { orders: orders_in, waker: waker.clone() });
        ends.push((Inlet { orders: orders_out, waker }, outlet.clone()));
    }
    let control = (Handle { ways: ways.into() }, Reports { datagrams: datagrams_out, events: events_out, dropped });
    Ok((control, ends))
}

impl Handle {
    /// Gives orders, all of which are carried out before those that are given later. A worker that has ended takes
    /// none: [`Report::Ended`] says so.
    pub fn send(&self, orders: impl IntoIterator<Item = Order>) {
        let Some((leader, followers)) = self.ways.split_first() else { return };
        let mut any = false;
        for order in orders {
            let order = if followers.is_empty() { order } else { share_out(order, followers) };
            any |= leader.push(order);
        }
        if any {
            followers.iter().chain([leader]).for_each(|way| way.waker.wake());
        }
    }

    /// Gives one order to the worker of this number alone.
    pub(crate) fn send_to(&self, worker: usize, order: Order) {
        if let Some(way) = self.ways.get(worker)
            && way.push(order)
        {
            way.waker.wake();
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.ways.len()
    }

    /// The answers of all workers to a question, the leader's first; nothing when one has ended. Followers answer before
    /// the leader is asked.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Order) -> Option<Vec<T>> {
        let mut answers = VecDeque::new();
        for worker in (0..self.workers()).rev() {
            let (answer, asked) = oneshot::channel();
            self.send_to(worker, question(answer));
            answers.push_front(asked.await.ok()?);
        }
        Some(answers.into())
    }

    /// What was counted up to now; nothing when a worker has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        crew::add_up(self.ask(Order::Snapshot).await?)
    }

    /// What another process needs to take over, from each worker; nothing when one has ended.
    pub async fn offer(&self) -> Option<io::Result<Vec<Offer>>> {
        Some(self.ask(Order::Offer).await?.into_iter().collect())
    }

    /// Has no more packets passed; how far everything is then.
    pub async fn pause(&self) -> Option<Paused> {
        // The leader says how far the SAs are once nobody else uses them.
        let mut all = self.ask(Order::Pause).await?.into_iter();
        let mut paused = all.next()?;
        all.for_each(|more| paused.add(more));
        Some(paused)
    }

    /// Binds the SAs, before another gateway is told of them; what it is to be told.
    pub async fn share(&self) -> Option<Shared> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Share(answer)]);
        asked.await.ok()
    }

    /// Goes on in place of another gateway, which said last how far its SAs are. They have been installed, and none may be
    /// activated before this is done: any worker would seal with it then.
    pub async fn succeed(&self, marks: Vec<Mark>) -> Result<(), String> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Succeed(marks, answer)]);
        asked.await.unwrap_or_else(|_| Err("the data path has ended".to_owned()))
    }

    /// How far the SAs are.
    pub async fn marks(&self) -> Option<Vec<Mark>> {
        let (answer, asked) = oneshot::channel();
        self.send([Order::Marks(answer)]);
        asked.await.ok()
    }

    /// Lets the workers, which are paused, go on where others were; why they cannot, when they cannot.
    pub async fn restore(&self, paused: Paused) -> Result<(), String> {
        let (answer, asked) = oneshot::channel();
        let activated = paused.activated().to_vec();
        self.send_to(0, Order::Restore(Box::new(paused), answer));
        asked.await.unwrap_or_else(|_| Err("the data path has ended".to_owned()))?;
        // What is common is restored with that. Which SAs packets take, each worker is told.
        for worker in 1..self.workers() {
            for id in &activated {
                self.send_to(worker, Order::Sa(SaChange::Activate(*id)));
            }
        }
        Ok(())
    }

    /// Asks the workers for a sign of life, which comes once all orders before this one are carried out.
    pub fn ping(&self) -> oneshot::Receiver<()> {
        let (sign, asked) = Sign::new();
        self.send([Order::Ping(sign)]);
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

    /// The next order that waits. The waker stays as it is.
    fn next(&self) -> Option<Order> {
        self.orders.try_recv().ok()
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
        let ((handle, mut reports), mut ends) = queues(1).unwrap();
        let (inlet, outlet) = ends.remove(0);
        handle.send([Order::RemoveDevice("a".into()), Order::Stop]);
        let orders = inlet.take();
        assert!(matches!(orders.iter().collect::<Vec<_>>()[..], [Order::RemoveDevice(_), Order::Stop]));
        let address = "127.0.0.1:500".parse().unwrap();
        outlet.datagram(address, address, b"x", Instant::ZERO);
        outlet.event(Report::Alive { id: SaId(1), at: Instant::ZERO });
        assert_eq!(reports.recv().await, Some(Report::Alive { id: SaId(1), at: Instant::ZERO }));
        assert!(matches!(reports.recv().await, Some(Report::Ike { .. })));
        drop(outlet);
        assert_eq!(reports.recv().await, None);
    }

    #[test]
    fn datagrams_beyond_the_bound_are_dropped_and_counted() {
        let ((_, mut reports), mut ends) = queues(1).unwrap();
        let (_, outlet) = ends.remove(0);
        let address = "127.0.0.1:500".parse().unwrap();
        (0..DATAGRAMS + 3).for_each(|_| outlet.datagram(address, address, b"x", Instant::ZERO));
        assert_eq!(reports.dropped(), 3);
        assert!(reports.try_recv().is_some());
    }
}
