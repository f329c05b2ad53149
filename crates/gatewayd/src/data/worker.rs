//! The data-path thread: it waits for what is ready, serves that in batches of what is waiting, and never waits for a
//! batch to fill. Per packet it takes no lock and allocates nothing.
//!
//! What is on the wire (RFC 3948 §2): everything on the IKE port is IKE. On the NAT traversal port four zero bytes in
//! front mean IKE, a single 0xff is a keepalive, and the rest is ESP, found by its SPI. Plain ESP (IP protocol 50) needs
//! a raw socket; without the capability the worker starts with a [`Report::Notice`].
//!
//! ESP leaves with "don't fragment". What the path does not take goes out in fragments that once, the path's MTU is
//! looked up, and from then on inner packets are fitted to it ([`esp::admit`]).
//!
//! Whatever ends this thread, a panic too, is reported. Packets then go nowhere: only sealing puts anything into what
//! is sent, so no plaintext leaves.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use base::Instant;
use esp::wire::{Encapsulated, classify};
use esp::{DataPath, Joint, Received};
use gateway::PolicyChange;
use os::RecvBatch;
use os::clock::Clock;
use os::poll::{Events, Interest, Poller};
use packet::Tos;
use packet::coalesce::Coalescer;
use sa::SaChange;

use super::alive::Alive;
use super::batch::{Batch, Outbox};
use super::device::{Device, Devices, Queues, Read};
use super::handover;
use super::pace::Pace;
use super::paths::Paths;
use super::snapshot;
use super::socket::{Kind, Sockets};
use super::sums::Sums;
use super::{Handle, Reports};
use super::{Inlet, Offloads, Options, Order, Outlet, Report, Shared};

/// Datagrams received by one call.
const RECEIVE: usize = 64;
/// Packets, and bytes of super-packets, read from a device before others have their turn.
const READ: usize = 64;
const READ_BYTES: usize = 512 << 10;
/// The largest packet.
const LARGEST: usize = 65_535;

/// The poller's tokens: the waker, then the sockets by number, then the devices by slot.
const WAKER: u64 = 0;
const SOCKETS: u64 = 1;
const DEVICES: u64 = 1 << 32;

/// A data path that was started.
#[derive(Debug)]
pub struct Running {
    /// The way down.
    pub handle: Handle,
    /// The way up.
    pub reports: Reports,
    /// The threads, the leader's first. Each reports its end.
    pub workers: Vec<JoinHandle<()>>,
}

/// What one worker is given of what another process had open.
#[derive(Debug)]
pub struct Share {
    /// Its sockets.
    pub sockets: Vec<(Kind, OwnedFd)>,
    /// Its queues of devices.
    pub devices: Vec<OwnedFd>,
}

/// Binds the sockets and starts the workers. Errors of binding come back here; what fails later is reported. The
/// sockets are in the network namespace of the calling thread, and the threads are too.
///
/// # Errors
/// As [`os::udp::bind`]; a port in use is named.
pub fn start(options: &Options) -> io::Result<Running> {
    let (leader, notes) = Sockets::open(options)?;
    let followers = (1..options.workers).map(|_| leader.beside(options.offloads)).collect::<io::Result<Vec<_>>>()?;
    run_all(options, std::iter::once(leader).chain(followers).collect(), notes, false)
}

/// Starts as many workers as another process had, with what it had open. They are paused: they serve nothing before
/// [`Order::Resume`].
///
/// # Errors
/// When a socket or a device is not what it was said to be.
pub fn take_over(options: &Options, shares: Vec<Share>) -> io::Result<Running> {
    let mut sockets: Vec<Sockets> = Vec::new();
    let mut notes = Vec::new();
    let mut devices = Vec::new();
    for share in shares {
        let own = match sockets.first() {
            Some(leader) => leader.adopt_beside(share.sockets, options.offloads)?,
            None => {
                let (leader, said) = Sockets::adopt(share.sockets, options.offloads)?;
                notes = said;
                leader
            }
        };
        sockets.push(own);
        devices.push(share.devices);
    }
    let devices = handover::devices(devices)?;
    let running = run_all(options, sockets, notes, true)?;
    for (worker, queues) in devices {
        running.handle.send_to(worker, Order::AddQueues(queues));
    }
    Ok(running)
}

fn run_all(options: &Options, sockets: Vec<Sockets>, notes: Vec<String>, is_paused: bool) -> io::Result<Running> {
    let count = sockets.len();
    let ((handle, reports), ends) = super::queues(count)?;
    let mut workers = Vec::new();
    for (number, (sockets, (inlet, outlet))) in sockets.into_iter().zip(ends).enumerate() {
        if number == 0 {
            notes.iter().for_each(|note| outlet.event(Report::Notice(note.clone())));
        }
        let mut worker = Worker::new(options, (number, count), sockets, inlet, outlet)?;
        worker.is_paused = is_paused;
        workers.push(spawn(worker)?);
    }
    Ok(Running { handle, reports, workers })
}

fn spawn(mut worker: Worker) -> io::Result<JoinHandle<()>> {
    let outlet = worker.outlet.clone();
    let name = if worker.number == 0 { "simplon-data".to_owned() } else { format!("simplon-data{}", worker.number) };
    std::thread::Builder::new().name(name).spawn(move || {
        // The worker is not looked at again after a panic.
        let why = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("it panicked: {}", panic_message(&*panic))),
        };
        outlet.event(Report::Ended(why));
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for a reason that is no text")
}

/// Whether to go on.
enum Next {
    GoOn,
    End,
}

struct Worker {
    /// 0 is the leader.
    number: usize,
    clock: Clock,
    poller: Poller,
    inlet: Inlet,
    outlet: Outlet,
    path: DataPath,
    sockets: Sockets,
    devices: Devices,
    paths: Paths,
    sums: Sums,
    alive: Alive,
    batch: Batch,
    received: RecvBatch,
    packet: Box<[u8]>,
    offloads: Offloads,
    malformed: u64,
    odd: u64,
    receive_errors: u64,
    pace: Pace,
    /// Another process serves what is open here, or is about to.
    is_paused: bool,
    /// Orders that were taken and not carried out yet.
    pending: VecDeque<Order>,
}

impl Worker {
    fn new(
        options: &Options,
        (number, count): (usize, usize),
        sockets: Sockets,
        inlet: Inlet,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&*inlet.waker, WAKER, Interest::READ)?;
        for (at, socket) in sockets.served() {
            poller.add(&socket.socket, SOCKETS + at as u64, Interest::READ)?;
        }
        let mut path = DataPath::new();
        // There are no more than `MAX_WORKERS`.
        path.outbounds.be_one_of(number as u16, count as u16);
        Ok(Self {
            number,
            clock: options.clock,
            poller,
            inlet,
            outlet,
            path,
            sockets,
            devices: Devices::default(),
            paths: Paths::default(),
            sums: Sums::default(),
            alive: Alive::default(),
            batch: Batch::new(),
            received: RecvBatch::new(RECEIVE, LARGEST),
            packet: vec![0; LARGEST].into(),
            offloads: options.offloads,
            malformed: 0,
            odd: 0,
            receive_errors: 0,
            pace: Pace::default(),
            is_paused: false,
            pending: VecDeque::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        loop {
            while self.is_paused {
                // Sockets and devices are not looked at: what arrives waits.
                if self.pending.is_empty() {
                    self.pending = self.inlet.wait();
                }
                if let Next::End = self.obey(self.clock.now())? {
                    return Ok(());
                }
            }
            let now = self.clock.now();
            let wake_at = [self.alive.due(), self.paths.refresh_at()].into_iter().flatten().min();
            self.poller.wait(&mut events, wake_at.map(|at| at.saturating_since(now)))?;
            let now = self.clock.now();
            for ready in events.iter() {
                if ready.token == WAKER {
                    self.pending.extend(self.inlet.take());
                    if let Next::End = self.obey(now)? {
                        return Ok(());
                    }
                    if self.is_paused {
                        break;
                    }
                } else if let Some(slot) = ready.token.checked_sub(DEVICES) {
                    self.serve_device(slot as usize, now)?;
                } else {
                    self.serve_socket((ready.token - SOCKETS) as usize, now)?;
                }
            }
            self.pace.count(std::mem::take(&mut self.sockets.plain));
            if let Some(patient) = self.pace.turn(now) {
                // Where it is not allowed, the worker stays eager.
                let _ = os::process::set_patient(patient);
            }
            self.tell(now);
        }
    }

    /// Carries out the orders that are waiting.
    fn obey(&mut self, now: Instant) -> io::Result<Next> {
        while let Some(order) = self.pending.pop_front() {
            let Some(order) = self.change(order, now) else { continue };
            match order {
                Order::AddDevice(tun) => self.add_device(tun.into()),
                Order::AddQueues(queues) => self.add_device(queues),
                Order::RemoveDevice(name) => {
                    let slot = Devices::slot(&mut self.path, &name);
                    drop(self.remove_device(slot));
                }
                Order::Transmit(transmit) => self.sockets.send_ike(&transmit)?,
                // Whoever asked may have gone.
                Order::Snapshot(answer) => drop(answer.send(self.snapshot(now))),
                Order::Ping(sign) => drop(sign),
                Order::Keep(names) => self.sums.keep(&names),
                Order::Offer(answer) => {
                    drop(answer.send(handover::offer(&self.path, &self.sockets, &self.devices, self.number == 0, now)));
                }
                Order::Pause(answer) => {
                    self.is_paused = true;
                    // What there is to say comes before the answer.
                    self.tell(now);
                    drop(answer.send(handover::pause(&self.path, &self.sums, now)));
                }
                Order::Restore(paused, answer) => {
                    let restored = handover::restore(&mut self.path, &mut self.sums, *paused, now);
                    drop(answer.send(restored.map_err(|why| why.to_string())));
                }
                Order::Resume => self.is_paused = false,
                Order::Share(answer) => {
                    let (sas, activated) = (self.path.export(now), self.path.activated());
                    drop(answer.send(Shared { sas, activated, marks: self.path.share() }));
                }
                Order::ShareNew(id) => self.path.share_new(id),
                Order::Marks(answer) => drop(answer.send(self.path.marks())),
                Order::Confirm(marks) => self.path.confirm(&marks),
                Order::Succeed(marks, answer) => {
                    drop(answer.send(self.path.succeed(&marks).map_err(|why| why.to_string())));
                }
                Order::Stop => return Ok(Next::End),
                // Carried out above.
                Order::Sa(_) | Order::Join(..) | Order::OuterMtu { .. } | Order::Policy(_) => {}
            }
        }
        Ok(Next::GoOn)
    }

    /// Carries out an order that changes SAs or policies; any other comes back.
    fn change(&mut self, order: Order, now: Instant) -> Option<Order> {
        match order {
            Order::Sa(change) => self.change_sa(&change, None, now),
            Order::Join(child, joint) => self.change_sa(&SaChange::Install(child), Some(joint), now),
            Order::OuterMtu { id, mtu } => {
                let result = self.path.set_outer_mtu(id, mtu.into());
                self.note(result, || format!("set the outer MTU of SA {} to {mtu}", id.0));
            }
            Order::Policy(PolicyChange::Install(policy)) => {
                let label = policy.label.clone();
                let result = self.path.set_policy(policy);
                self.note(result, || format!("install the policy {label}"));
            }
            Order::Policy(PolicyChange::Remove(label)) => self.path.remove_policy(&label),
            other @ (Order::AddDevice(_)
            | Order::AddQueues(_)
            | Order::RemoveDevice(_)
            | Order::Transmit(_)
            | Order::Snapshot(_)
            | Order::Ping(_)
            | Order::Keep(_)
            | Order::Offer(_)
            | Order::Pause(_)
            | Order::Restore(..)
            | Order::Share(_)
            | Order::ShareNew(_)
            | Order::Marks(_)
            | Order::Confirm(_)
            | Order::Succeed(..)
            | Order::Resume
            | Order::Stop) => return Some(other),
        }
        None
    }

    /// Changes SAs as far as a follower has been told: what was received since may need it. Other orders, and what is
    /// behind them, wait for the main loop: whoever gave them wakes it.
    fn keep_up(&mut self, now: Instant) {
        if self.number == 0 {
            return;
        }
        while let Some(order) = self.pending.pop_front().or_else(|| self.inlet.next()) {
            if let Some(other) = self.change(order, now) {
                return self.pending.push_front(other);
            }
        }
    }

    fn change_sa(&mut self, change: &SaChange, joint: Option<Joint>, now: Instant) {
        self.sums.note(change, |id| snapshot::traffic(&self.path, &self.paths, id, now));
        let mut result = match (change, joint) {
            (SaChange::Install(child), Some(joint)) => self.path.join(child, joint, self.number == 0),
            _ => self.path.apply(change),
        };
        if result.is_ok()
            && let SaChange::Install(child) = change
            && let Some(mtu) = self.paths.mtu(child.path.remote.ip())
        {
            result = self.path.set_outer_mtu(child.id, mtu.into());
        }
        self.note(result, || match change {
            SaChange::Install(child) => format!("install SA {} of {}", child.id.0, child.label),
            SaChange::Activate(id) => format!("activate SA {}", id.0),
            SaChange::Remove(id) => format!("remove SA {}", id.0),
            SaChange::Move { id, .. } => format!("move SA {}", id.0),
            SaChange::Skip { id, .. } => format!("leave out numbers of SA {}", id.0),
        });
    }

    fn add_device(&mut self, queues: Queues) {
        let name = queues.own().name().to_owned();
        let result = self.devices.insert(&mut self.path, queues, self.offloads).and_then(|slot| {
            let Some(device) = self.devices.get_mut(slot) else { return Ok(()) };
            self.poller.add(device.queues.own(), DEVICES + slot as u64, Interest::READ)
        });
        self.note(result, || format!("serve the device {name}"));
    }

    /// Serves a device no more. It is closed when no worker serves it.
    fn remove_device(&mut self, slot: usize) -> Option<Device> {
        let device = self.devices.remove(slot)?;
        // It was added, or it is gone.
        let _ = self.poller.remove(device.queues.own());
        Some(device)
    }

    /// Reports what could not be done.
    fn note<E: std::fmt::Display>(&self, result: Result<(), E>, what: impl FnOnce() -> String) {
        if let Err(why) = result {
            self.outlet.event(Report::Refused(format!("cannot {}: {why}", what())));
        }
    }

    /// Seals what waits on a device.
    fn serve_device(&mut self, slot: usize, now: Instant) -> io::Result<()> {
        let Self { path, sockets, devices, batch, packet, .. } = self;
        let Some(device) = devices.get_mut(slot) else { return Ok(()) };
        let via = device.via;
        let mut outbox = Outbox { batch, sockets, device, result: Ok(()) };
        let mut bytes = 0;
        for _ in 0..READ {
            if bytes > READ_BYTES {
                break;
            }
            let (len, cut) = match outbox.device.read(packet) {
                Ok(Read::Packet(len)) => (len, None),
                Ok(Read::Super(len, kind, size)) => (len, Some((kind, size))),
                Ok(Read::Odd) => {
                    self.odd += 1;
                    continue;
                }
                Ok(Read::Nothing) => break,
                Err(error) => {
                    batch.flush(sockets)?;
                    self.lose_device(slot, &error);
                    return Ok(());
                }
            };
            bytes += len;
            // A packet that is refused is counted where it is refused, and goes no further.
            let _ = path.outbounds.send_into(via, &mut packet[..len], cut, &mut outbox, now);
        }
        outbox.result?;
        batch.flush(sockets)
    }

    fn lose_device(&mut self, slot: usize, error: &io::Error) {
        if let Some(device) = self.remove_device(slot) {
            let name = device.queues.own().name();
            self.outlet.event(Report::Notice(format!("the device {name} is gone: {error}")));
        }
    }

    /// Opens what arrived on a socket, or hands it up.
    fn serve_socket(&mut self, number: usize, now: Instant) -> io::Result<()> {
        let Some(socket) = self.sockets.get(number) else { return Ok(()) };
        match socket.socket.recv_batch(&mut self.received) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => {
                self.receive_errors += 1;
                return Err(e);
            }
        }
        self.keep_up(now);
        let Self { sockets, received, path, devices, outlet, .. } = self;
        let Some(socket) = sockets.get(number) else { return Ok(()) };
        if socket.kind == Kind::Esp {
            self.pace.count(received.len());
        }
        let port = socket.socket.local_addr().port();
        let mut coalescer = Coalescer::new(devices.joins_udp);
        let packets = received
            .iter_mut()
            .flat_map(|(arrival, bytes)| arrival.cut(bytes).map(move |datagram| (arrival, datagram)));
        let esp = packets.filter_map(|(arrival, datagram)| {
            let is_esp = match socket.kind {
                Kind::Esp => true,
                Kind::Ike => {
                    outlet.datagram((arrival.local, port).into(), arrival.remote, datagram, now);
                    false
                }
                Kind::Natt => match classify(datagram) {
                    Encapsulated::Esp => true,
                    Encapsulated::Ike(_) => {
                        outlet.datagram((arrival.local, port).into(), arrival.remote, datagram, now);
                        false
                    }
                    Encapsulated::Keepalive => false,
                    Encapsulated::Malformed => {
                        self.malformed += 1;
                        false
                    }
                },
            };
            let from = (socket.kind == Kind::Natt).then_some(arrival.remote);
            is_esp.then_some(Received { esp: datagram, from, outer: Tos(arrival.tos) })
        });
        path.inbounds.open_run(esp, now, |via, inner| match self.offloads {
            Offloads::Auto => coalescer.push(via, inner, |via, joined| devices.write_joined(via, joined)),
            Offloads::Off => devices.write(via, inner),
        });
        // Nothing is kept for what may come.
        coalescer.flush(|via, joined| devices.write_joined(via, joined));
        self.alive.note(now);
        Ok(())
    }

    /// Tells what the control side should know.
    fn tell(&mut self, now: Instant) {
        while let Some(event) = self.path.poll_event() {
            self.outlet.event(Report::Esp(event));
        }
        if self.alive.due().is_some_and(|at| at <= now) {
            let outlet = &self.outlet;
            self.alive.tell(self.path.inbounds.iter(), |id, at| outlet.event(Report::Alive { id, at }), now);
        }
        if let Some(note) = self.sockets.take_note() {
            self.outlet.event(Report::Notice(note));
        }
        while let Some(remote) = self.sockets.take_narrow() {
            if let Some(mtu) = self.paths.learn(remote, now) {
                self.fit_to(remote, mtu);
            }
        }
        if self.paths.refresh_at().is_some_and(|at| at <= now) {
            for (remote, mtu) in self.paths.refresh(now) {
                self.fit_to(remote, mtu);
            }
        }
    }

    /// The path to a peer takes this much.
    fn fit_to(&mut self, remote: std::net::IpAddr, mtu: u16) {
        let leads_there = |id: &sa::SaId| self.path.outbounds.path(*id).is_some_and(|p| p.remote.ip() == remote);
        let ids: Vec<_> = self.path.outbounds.iter().map(|(id, _)| id).filter(leads_there).collect();
        for id in ids {
            let result = self.path.set_outer_mtu(id, mtu.into());
            self.note(result, || format!("set the outer MTU of SA {} to {mtu}", id.0));
        }
        self.outlet.event(Report::PathMtu { remote, mtu });
    }

    fn snapshot(&self, now: Instant) -> super::Snapshot {
        let sockets = self.sockets.stats;
        let own = [
            ("malformed_datagram", self.malformed),
            ("odd_packet", self.odd),
            ("unusable_datagram", self.received.unusable()),
            ("icmp_error", self.received.errors()),
            ("no_device", self.devices.missing),
            ("no_socket", sockets.no_socket),
            ("send_buffer_full", sockets.full),
        ];
        let refused: u64 = self.devices.iter().map(|device| device.refused).sum();
        snapshot::of(&self.path, &self.paths, &self.sums, &own, (refused + sockets.refused, self.receive_errors), now)
    }
}
