//! The sockets of BFD, of probes and of BGP: what the gateway wants sent goes out, and what comes in is put into queues
//! that the control loop hears.
//!
//! Each socket has a task that reads it. BFD and probes have a queue of their own, which is heard first: a full table
//! that BGP brings must not look like a dead path. Both queues are bounded: while the control loop is behind, BGP's
//! connections wait (TCP slows the neighbour down), and packets of BFD and probes are dropped, as the network might
//! have done.

mod bfd;
mod bgp;
mod probe;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::bfd::SessionId;
use ::bgp::ConnectionId;
use gateway::SocketOrder;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::bgp::BgpSockets;

use self::bfd::BfdSockets;
use self::probe::ProbeSockets;

/// Packets of BFD and probes that wait for the control loop at most.
const PACKETS: usize = 4_096;
/// What of BGP waits at most: with full chunks this is 4 MB.
const CHUNKS: usize = 256;

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
    /// A connection that BGP asked for is up.
    BgpConnected {
        /// Which.
        connection: ConnectionId,
        /// It.
        stream: TcpStream,
    },
    /// A connection that BGP asked for could not be made.
    BgpConnectFailed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        why: String,
    },
    /// Somebody connected to BGP's port.
    BgpAccepted {
        /// The connection.
        stream: TcpStream,
        /// Who.
        remote: SocketAddr,
    },
    /// Bytes came in on a connection of BGP.
    BgpBytes {
        /// Which.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A connection of BGP has room again for what waits.
    BgpWritable {
        /// Which.
        connection: ConnectionId,
    },
    /// A connection of BGP is gone.
    BgpClosed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        why: String,
    },
}

/// All of them, and the queue of what came in.
#[derive(Debug)]
pub struct Sockets {
    bfd: BfdSockets,
    probes: ProbeSockets,
    /// Those of BGP.
    pub bgp: BgpSockets,
    packets: mpsc::Receiver<Heard>,
    chunks: mpsc::Receiver<Heard>,
}

impl Default for Sockets {
    /// No socket yet.
    fn default() -> Self {
        let (sender, packets) = mpsc::channel(PACKETS);
        let (bfd, probes) = (BfdSockets::new(sender.clone()), ProbeSockets::new(sender));
        let (sender, chunks) = mpsc::channel(CHUNKS);
        Self { bfd, probes, bgp: BgpSockets::new(sender), packets, chunks }
    }
}

impl Sockets {
    /// Does what the gateway says. A BFD session comes back whose source port belongs to somebody else.
    pub fn carry_out(&mut self, order: SocketOrder) -> Option<SessionId> {
        match order {
            SocketOrder::Bfd(packet) => return self.bfd.send(&packet).is_err().then_some(packet.transmit.session),
            SocketOrder::BfdRelease { session, local } => self.bfd.release(session, local),
            SocketOrder::Probe(packet) => self.probes.send(&packet),
            SocketOrder::BgpListen { neighbor, key } => self.bgp.listen(neighbor, key.as_ref()),
            SocketOrder::BgpForget { neighbor } => self.bgp.forget(neighbor),
            SocketOrder::BgpConnect(wanted) => self.bgp.connect(wanted),
            SocketOrder::BgpSend { connection, bytes } => self.bgp.send(connection, bytes),
            SocketOrder::BgpClose { connection } => self.bgp.close(connection),
        }
        None
    }

    /// Waits for something to come in, of BGP only where `takes_chunks` says so; `None` never comes while this lives.
    /// Nothing is lost when this is dropped before it is done.
    pub async fn heard(&mut self, takes_chunks: bool) -> Option<Heard> {
        tokio::select! {
            biased;
            packet = self.packets.recv() => packet,
            chunk = self.chunks.recv(), if takes_chunks => chunk,
        }
    }

    /// What came in already.
    pub fn try_heard(&mut self) -> Option<Heard> {
        self.packets.try_recv().or_else(|_| self.chunks.try_recv()).ok()
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
