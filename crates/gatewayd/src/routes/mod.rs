//! Routes into the kernel, however many, and whoever else changes them: [`Routes`].
//!
//! A thread of its own holds a [`Table`] of what is wanted, and makes the kernel's routes like it: the control loop waits
//! for nothing. What it makes carries our protocol number ([`os::netlink::PROTOCOL`]); all of those in the network
//! namespace are the table's. Left over by a process that was killed, they stay until they are wanted again, or the
//! grace has passed. Nobody else in this process may make routes with that number.
//!
//! | type | what |
//! | --- | --- |
//! | [`Routes`] | the thread, and how to speak to it |
//! | [`Table`] | what it decides, without a kernel |
//! | [`Path`], [`Hop`] | where a route leads |
//! | [`Event`], [`Standing`], [`Counts`] | what there is to tell |

mod event;
mod groups;
mod inside;
mod kernel;
mod path;
mod places;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use os::poll::Waker;
use tokio::sync::{mpsc, oneshot};

pub use self::event::{Counts, Event, Standing};
pub use self::path::{Hop, Path};
pub use self::table::{Act, Table};
pub use os::netlink::{Place, RouteKind};

/// Events that wait to be told at most; each stands for many routes. What is beyond is dropped.
const EVENTS: usize = 256;

/// What becomes of the routes when the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// They are removed.
    Remove,
    /// They stay, for a process that follows: forwarding goes on (RFC 4724).
    Leave,
}

enum Order {
    Set(Place, Path),
    Remove(Place),
    KeepInside(Vec<IpNet>, BTreeSet<Arc<str>>),
    EndGrace,
    /// How it stands with a route once everything before has been tried.
    Ask(Place, oneshot::Sender<Standing>),
    Count(oneshot::Sender<Counts>),
    Settle(oneshot::Sender<()>),
    End(Farewell),
}

/// What this side and the thread share. Orders that have not been taken are bounded by the routes that there are.
#[derive(Default)]
struct Orders {
    queue: Mutex<Vec<Order>>,
    /// Routes that the thread has taken and the kernel has not.
    unwritten: AtomicUsize,
}

impl Orders {
    fn push(&self, orders: impl IntoIterator<Item = Order>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).extend(orders);
    }

    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The kernel's routes as they are wanted, kept by a thread. Dropped without [`Routes::end`], the thread ends and the
/// routes stay.
pub struct Routes {
    orders: Arc<Orders>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl Routes {
    /// Starts the thread, in the network namespace of this one, and returns what it will have to tell. Routes that an
    /// earlier process left stay for `grace` unless they are wanted again.
    ///
    /// # Errors
    /// When the kernel's routing cannot be talked to.
    pub fn start(grace: Duration) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (orders, waker) = (Arc::new(Orders::default()), Arc::new(Waker::new()?));
        let kernel = kernel::Kernel::open(grace, orders.clone(), waker.clone(), events)?;
        let thread = thread::Builder::new().name("routes".to_owned()).spawn(move || kernel.run())?;
        Ok((Self { orders, waker, thread: Some(thread) }, receiver))
    }

    fn order(&self, order: Order) {
        self.orders.push([order]);
        self.waker.wake();
    }

    /// Wants a route from now on, in place of what was wanted there.
    pub fn set(&self, place: Place, path: Path) {
        self.order(Order::Set(place, path));
    }

    /// Wants nothing there any more.
    pub fn remove(&self, place: Place) {
        self.order(Order::Remove(place));
    }

    /// See [`Table::keep_inside`].
    pub fn keep_inside(&self, local: Vec<IpNet>, tunnels: BTreeSet<Arc<str>>) {
        self.order(Order::KeepInside(local, tunnels));
    }

    /// Changes many: a path for what is wanted, nothing for what is not wanted any more.
    pub fn change(&self, changes: impl IntoIterator<Item = (Place, Option<Path>)>) {
        let order = |(place, path)| match path {
            Some(path) => Order::Set(place, path),
            None => Order::Remove(place),
        };
        self.orders.push(changes.into_iter().map(order));
        self.waker.wake();
    }

    /// Wants a route, waits until the kernel was asked for it, and tells how it stands: a route into a device that was
    /// set up before is in place, or there is a reason.
    pub async fn apply(&self, place: Place, path: Path) -> Standing {
        let (answer, asked) = oneshot::channel();
        self.orders.push([Order::Set(place, path), Order::Ask(place, answer)]);
        self.waker.wake();
        asked.await.unwrap_or(Standing::Absent)
    }

    /// Wants nothing there any more, and waits until the kernel was asked to remove it.
    pub async fn withdraw(&self, place: Place) {
        let (answer, asked) = oneshot::channel();
        self.orders.push([Order::Remove(place), Order::Ask(place, answer)]);
        self.waker.wake();
        let _ = asked.await;
    }

    /// Everything is wanted that will be: what an earlier process left beside that is removed now.
    pub fn end_grace(&self) {
        self.order(Order::EndGrace);
    }

    /// How many changes the kernel has not been asked for yet, about: whoever has many more should wait.
    pub fn backlog(&self) -> usize {
        let queued = self.orders.queue.lock().unwrap_or_else(PoisonError::into_inner).len();
        queued + self.orders.unwritten.load(Ordering::Relaxed)
    }

    /// Waits until everything that was wanted before has been tried.
    pub async fn settled(&self) {
        let (answer, asked) = oneshot::channel();
        self.order(Order::Settle(answer));
        let _ = asked.await;
    }

    /// How many routes stand how. It looks at each.
    pub async fn counts(&self) -> Counts {
        let (answer, asked) = oneshot::channel();
        self.order(Order::Count(answer));
        asked.await.unwrap_or_default()
    }

    /// Ends the thread, and waits until the routes are removed, if they are to be: some five seconds a million.
    pub async fn end(mut self, farewell: Farewell) {
        let (answer, asked) = oneshot::channel();
        self.orders.push([Order::End(farewell), Order::Settle(answer)]);
        self.waker.wake();
        let _ = asked.await;
        if let Some(thread) = self.thread.take() {
            // It has said its last word, so this does not wait.
            let _ = thread.join();
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.order(Order::End(Farewell::Leave));
        }
    }
}
