//! The sockets of BFD, of probes and of BGP: what the gateway wants sent goes out, and what comes in is put into one
//! queue that the control loop hears.
//!
//! Each socket has a task that reads it. The queue is bounded: while the control loop is behind, BGP's connections wait
//! (TCP slows the neighbour down), and packets of BFD and probes are dropped, as the network might have done.

mod bfd;
mod probe;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::bfd::BfdSockets;
pub use self::probe::ProbeSockets;

/// What waits for the control loop at most.
const WAITING: usize = 1_024;

/// Something that came in.
#[derive(Debug)]
pub enum Heard {
    /// A BFD control packet.
    Bfd {
        /// The address it was sent to.
        local: SocketAddr,
        /// Who sent it.
        remote: SocketAddr,
        /// Its TTL or hop limit.
        ttl: u8,
        /// Its UDP payload.
        payload: Vec<u8>,
    },
    /// An answer to a probe.
    Probe {
        /// The device that it came through.
        device: Arc<str>,
        /// Who answered.
        source: IpAddr,
        /// What came back.
        payload: Vec<u8>,
    },
}

/// The queue of what came in.
pub fn queue() -> (mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
    mpsc::channel(WAITING)
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
