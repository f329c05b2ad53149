//! The thread: it carries out what the table says, a few hundred routes at a time, and hears orders and changes between.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Instant, Machine};
use os::clock::Clock;
use os::netlink::{Bulk, Change, Filter, Monitor, Passed, Topics, Write};
use os::poll::{Events, Interest, Poller, Waker};
use tokio::sync::{mpsc, oneshot};

use super::event::{Event, Standing};
use super::groups::Groups;
use super::table::{Act, Table};
use super::{Farewell, Order, Orders, Place};

/// Changes that are heard before anything else gets its turn.
const CHANGES: usize = 4_096;
/// How long to wait after the kernel could not be talked to.
const PAUSE: Duration = Duration::from_secs(1);

/// Who waits for an answer, until the table has come to rest.
enum Waiting {
    Standing(Place, oneshot::Sender<Standing>),
    Rest(oneshot::Sender<()>),
}

pub(super) struct Kernel {
    table: Table,
    groups: Groups,
    bulk: Bulk,
    monitor: Monitor,
    clock: Clock,
    orders: Arc<Orders>,
    waker: Arc<Waker>,
    poller: Poller,
    events: mpsc::Sender<Event>,
    waiting: VecDeque<Waiting>,
    ending: Option<Farewell>,
    /// Nothing is asked of the kernel before.
    pause_until: Option<Instant>,
    must_audit: bool,
}

impl Kernel {
    pub(super) fn open(
        grace: Duration,
        orders: Arc<Orders>,
        waker: Arc<Waker>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let mut bulk = Bulk::open()?;
        let routes = Some(Passed::AskedBy(bulk.port()));
        // Before the first look, so that no change falls between.
        let monitor = Monitor::open(Topics { routes, addresses: true, links: true, rules: false })?;
        let mut table = Table::new(grace);
        table.handle_links(&bulk.links()?);
        let poller = Poller::new()?;
        poller.add(&monitor, 0, Interest::READ)?;
        poller.add(&*waker, 1, Interest::READ)?;
        Ok(Self {
            table,
            groups: Groups::open(),
            bulk,
            monitor,
            clock: Clock::start(),
            orders,
            waker,
            poller,
            events,
            waiting: VecDeque::new(),
            ending: None,
            pause_until: None,
            must_audit: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut ready = Events::with_capacity(2);
        loop {
            self.waker.clear();
            // What a system call of the control loop changed is heard before the order that it gave next.
            let orders = self.orders.take();
            let heard_all = self.or_pause(Self::hear_changes).unwrap_or(true);
            orders.into_iter().for_each(|order| self.hear_order(order));
            self.table.handle_timeout(self.clock.now());
            let busy = self.carry_out() || !heard_all;
            self.orders.unwritten.store(self.table.unwritten(), Ordering::Relaxed);
            if (heard_all && self.table.is_settled()) || self.pause_until.is_some() {
                self.answer();
                if self.ending.is_some() {
                    return;
                }
            }
            let wait = if busy { Some(Duration::ZERO) } else { self.wait() };
            if self.poller.wait(&mut ready, wait).is_err() {
                // epoll fails for nothing that could be waited out.
                return;
            }
        }
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Option<Duration> {
        let due = self.table.poll_timeout().map(|deadline| deadline.at);
        let until = match (due, self.pause_until) {
            (Some(due), Some(pause)) => due.min(pause),
            (due, pause) => due.or(pause)?,
        };
        Some(self.clock.until(until))
    }

    /// Tries something, and rests for a while when it fails.
    fn or_pause<T>(&mut self, work: impl FnOnce(&mut Self) -> io::Result<T>) -> Option<T> {
        match work(self) {
            Ok(done) => Some(done),
            Err(e) => {
                let now = self.clock.now();
                self.tell(Event::Broken(e.to_string().into()));
                self.table.handle_lost(now);
                self.pause_until = Some(now + PAUSE);
                None
            }
        }
    }

    /// Hears what changed; false when there may be more.
    fn hear_changes(&mut self) -> io::Result<bool> {
        for _ in 0..CHANGES {
            let Some(change) = self.monitor.next_waiting()? else { return Ok(true) };
            let now = self.clock.now();
            match change {
                Change::Route { route, protocol, replaces } => self.table.handle_route(route, protocol, replaces, now),
                Change::RouteGone { route, protocol } => self.table.handle_route_gone(&route, protocol, now),
                Change::Link(link) => self.table.handle_link(&link),
                Change::LinkGone(link) => self.table.handle_link_gone(&link),
                Change::Address(_) => self.table.handle_address(),
                Change::AddressGone(address) => self.table.handle_address_gone(address.net.addr(), now),
                Change::Rules => {}
                Change::Overrun => {
                    self.table.handle_overrun(now);
                    self.table.handle_links(&self.bulk.links()?);
                }
            }
        }
        Ok(false)
    }

    fn hear_order(&mut self, order: Order) {
        match order {
            Order::Set(place, path) => self.table.set(place, path),
            Order::Remove(place) => self.table.remove(place),
            Order::KeepInside(local, tunnels) => self.table.keep_inside(local, tunnels),
            Order::EndGrace => self.table.end_grace(),
            Order::Ask(place, answer) => self.waiting.push_back(Waiting::Standing(place, answer)),
            Order::Settle(answer) => self.waiting.push_back(Waiting::Rest(answer)),
            Order::Count(answer) => drop(answer.send(self.table.counts())),
            Order::End(farewell) => {
                self.ending = Some(farewell);
                if farewell == Farewell::Remove {
                    self.table.remove_all();
                }
            }
        }
    }

    /// Does the next piece of what the table says; whether there is more.
    fn carry_out(&mut self) -> bool {
        if self.pause_until.is_some_and(|until| self.clock.now() < until) {
            return false;
        }
        self.pause_until = None;
        let mut writes = Vec::new();
        while let Some(act) = self.table.poll_output() {
            match act {
                Act::Write(write) => writes.push(write),
                Act::Event(event) => self.tell(event),
                Act::Audit => self.must_audit = true,
            }
        }
        let wrote = !writes.is_empty();
        if wrote {
            self.or_pause(|this| this.write(writes));
        } else if self.must_audit && self.or_pause(Self::audit).is_some() {
            self.must_audit = false;
            return true;
        }
        wrote
    }

    fn write(&mut self, mut writes: Vec<Write>) -> io::Result<()> {
        for write in &mut writes {
            let keeps_flows = self.table.keeps_flows(write.place());
            self.groups.prepare(write, keeps_flows, &mut self.bulk)?;
        }
        let mut refused = self.bulk.write(&writes)?.into_iter().peekable();
        let now = self.clock.now();
        for (at, write) in writes.iter().enumerate() {
            let outcome = match refused.next_if(|refusal| refusal.at == at) {
                Some(refusal) => Err((refusal.errno, refusal.to_string())),
                None => Ok(()),
            };
            self.table.handle_written(write.place(), outcome, now);
        }
        self.groups.remove_unused(&writes, &mut self.bulk)
    }

    fn audit(&mut self) -> io::Result<()> {
        self.table.begin_audit();
        let (table, groups, clock) = (&mut self.table, &mut self.groups, &self.clock);
        let all = if table.must_see_others() { Filter::default() } else { Filter::own() };
        let consistent = self.bulk.routes(all, |route, protocol| {
            groups.see(&route, protocol);
            table.handle_seen(route, protocol, clock.now());
        })?;
        self.table.end_audit(consistent, self.clock.now());
        Ok(())
    }

    fn tell(&self, event: Event) {
        // Nobody listens, or not fast enough: what is lost is one line of a log.
        let _ = self.events.try_send(event);
    }

    fn answer(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Standing(place, answer) => drop(answer.send(self.table.standing(place))),
                Waiting::Rest(answer) => drop(answer.send(())),
            }
        }
    }
}
