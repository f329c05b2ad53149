//! Several workers: which of them is told what, and what they counted as one.
//!
//! The first is the leader: it alone sends IKE, has the IKE port and receives ESP without UDP, of which the kernel would
//! give everybody a copy. The others are followers, with a socket at the NAT traversal port and a queue of each device of
//! their own; the kernel spreads flows over them, and an SA is in service at all ([`esp::Joint`]).
//!
//! **Order.** Followers are told first. What follows an order at the leader, such as the IKE datagram that lets the peer
//! use an SA, leaves only after the order stands in every follower's queue; and a follower looks into its queue between
//! receiving packets and opening them. So no packet finds an SA missing that was installed before its sender knew of it.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use esp::Joint;
use os::poll::Waker;
use os::tun::Tun;
use sa::SaChange;
use tokio::sync::oneshot;
use tracing::warn;

use super::{Order, Queues, Snapshot};

/// The most workers.
pub const MAX_WORKERS: usize = 64;

/// Workers where the configuration does not say how many: more than one where cores are spare, since packets of a gateway
/// whose cores are busy anyway pass faster through one.
pub fn workers_for(cores: usize) -> usize {
    (cores / 2).clamp(1, 8)
}

/// The way down to one worker.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) orders: Sender<Order>,
    pub(super) waker: Arc<Waker>,
}

impl Way {
    /// Whether there is somebody to be woken.
    pub(super) fn push(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }
}

/// Tells the followers what concerns them of an order; what is left is for the leader.
pub(super) fn share_out(order: Order, followers: &[Way]) -> Order {
    let all = |make: &dyn Fn() -> Order| {
        for follower in followers {
            follower.push(make());
        }
    };
    if let Order::AddDevice(tun) = order {
        return add_queues(tun, followers);
    }
    match &order {
        Order::Sa(SaChange::Install(child)) => {
            // Where it cannot be made, the leader finds out too, and says so.
            let Ok(joint) = Joint::new(child) else { return order };
            all(&|| Order::Join(child.clone(), joint.handle()));
            return Order::Join(child.clone(), joint);
        }
        // The counters of both directions are common: one worker moves them.
        Order::Sa(SaChange::Skip { .. }) => {}
        Order::Sa(change) => all(&|| Order::Sa(change.clone())),
        Order::OuterMtu { id, mtu } => all(&|| Order::OuterMtu { id: *id, mtu: *mtu }),
        Order::Policy(change) => all(&|| Order::Policy(change.clone())),
        Order::RemoveDevice(name) => all(&|| Order::RemoveDevice(name.clone())),
        Order::Keep(names) => all(&|| Order::Keep(names.clone())),
        Order::Ping(sign) => all(&|| Order::Ping(sign.clone())),
        Order::Resume => all(&|| Order::Resume),
        Order::Stop => all(&|| Order::Stop),
        // Asked of each by itself, or the leader's alone.
        Order::Join(..)
        | Order::AddDevice(_)
        | Order::AddQueues(_)
        | Order::Transmit(_)
        | Order::Snapshot(_)
        | Order::Offer(_)
        | Order::Pause(_)
        | Order::Restore(..)
        // How far an SA is they have in common.
        | Order::Share(_)
        | Order::ShareNew(_)
        | Order::Marks(_)
        | Order::Confirm(_)
        | Order::Succeed(..) => {}
    }
    order
}

/// Opens a queue of a device for each follower. Those that the kernel does not grant are done without: it spreads flows over
/// the others.
fn add_queues(tun: Tun, followers: &[Way]) -> Order {
    let more: Vec<_> = followers.iter().map_while(|_| tun.add_queue().inspect_err(|e| warn!("{e}")).ok()).collect();
    let all: Arc<[Tun]> = std::iter::once(tun).chain(more).collect();
    for (own, follower) in (1..all.len()).zip(followers) {
        follower.push(Order::AddQueues(Queues::new(all.clone(), own)));
    }
    Order::AddQueues(Queues::new(all, 0))
}

/// A question to several workers, which is answered when all of them have dropped it.
#[derive(Debug)]
pub struct Sign(Option<oneshot::Sender<()>>);

impl Sign {
    pub(super) fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (answer, asked) = oneshot::channel();
        (Arc::new(Self(Some(answer))), asked)
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        // Whoever asked may have gone.
        let _ = self.0.take().map(|answer| answer.send(()));
    }
}

/// What several workers counted, the leader first, as one. How far an SA is they say alike.
pub(super) fn add_up(snapshots: impl IntoIterator<Item = Snapshot>) -> Option<Snapshot> {
    let mut snapshots = snapshots.into_iter();
    let mut sum = snapshots.next()?;
    for more in snapshots {
        for (id, traffic) in &more.sas {
            if let Some(of_sa) = sum.sas.get_mut(id) {
                of_sa.add(traffic);
            }
        }
        for (name, carried) in &more.carried {
            sum.carried.entry(name.clone()).or_default().merge(carried);
        }
        sum.rest.add(&more.rest);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_cores_and_stay_few() {
        let expected = [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (16, 8), (128, 8)];
        assert_eq!(expected.map(|(cores, _)| workers_for(cores)), expected.map(|(_, workers)| workers));
    }

    #[test]
    fn a_sign_comes_when_the_last_worker_has_given_it() {
        let (sign, mut asked) = Sign::new();
        let other = sign.clone();
        drop(sign);
        assert!(asked.try_recv().is_err());
        drop(other);
        assert!(asked.try_recv().is_ok());
    }
}
