//! BGP: a listener for each family, and for each connection a task that reads and one that writes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::bgp::ConnectionId;
use base::Secret;
use gateway::BgpConnect;
use ipnet::IpNet;
use os::Origin;
use os::tcp::{self, Listener, TcpOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Heard, Task};

/// The port of BGP (RFC 4271 §8).
const PORT: u16 = 179;
/// What is read at once at most, in bytes.
const CHUNK: usize = 16 << 10;
/// What waits to be written on a connection at most before the speaker holds UPDATE messages back, in bytes.
const ROOM: usize = 256 << 10;
/// How long the listener rests when the host lacks something, such as file descriptors.
const REST: std::time::Duration = std::time::Duration::from_secs(1);

/// A connection that is up.
#[derive(Debug)]
struct Connection {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes that wait to be written.
    waiting: Arc<AtomicUsize>,
    _reader: Task,
    /// Not aborted: what waits, such as the NOTIFICATION that says why, still leaves.
    _writer: tokio::task::JoinHandle<()>,
}

/// The sockets of BGP.
#[derive(Debug)]
pub struct BgpSockets {
    heard: mpsc::Sender<Heard>,
    dialling: BTreeMap<ConnectionId, Task>,
    connections: BTreeMap<ConnectionId, Connection>,
    listeners: BTreeMap<bool, Option<(Arc<Listener>, Task)>>,
}

impl BgpSockets {
    /// No socket yet.
    pub fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { heard, dialling: BTreeMap::new(), connections: BTreeMap::new(), listeners: BTreeMap::new() }
    }

    /// Listens for a neighbour, which must sign with `key` where there is one.
    pub fn listen(&mut self, neighbor: IpAddr, key: Option<&Secret>) {
        let heard = &self.heard;
        let listener = self.listeners.entry(neighbor.is_ipv4()).or_insert_with(|| {
            let any: IpAddr =
                if neighbor.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            match Listener::bind(SocketAddr::new(any, PORT), None) {
                Ok(listener) => {
                    let listener = Arc::new(listener);
                    Some((listener.clone(), Task::spawn(accept(listener, heard.clone()))))
                }
                Err(e) => {
                    warn!("BGP neighbours cannot connect, only we can: {e}");
                    None
                }
            }
        });
        if let Some((listener, _)) = listener
            && let Err(e) = listener.set_key(IpNet::from(neighbor), key)
            && !(key.is_none() && e.kind() == io::ErrorKind::NotFound)
        {
            warn!("the TCP MD5 key of the BGP neighbour {neighbor} cannot be set: {e}");
        }
    }

    /// A neighbour is gone: its key is forgotten.
    pub fn forget(&mut self, neighbor: IpAddr) {
        if let Some(Some((listener, _))) = self.listeners.get(&neighbor.is_ipv4()) {
            // There may have been none.
            let _ = listener.set_key(IpNet::from(neighbor), None);
        }
    }

    /// Connects to a neighbour.
    pub fn connect(&mut self, wanted: BgpConnect) {
        let (heard, connection) = (self.heard.clone(), wanted.connection);
        let task = Task::spawn(async move {
            let device = wanted.device.as_ref().map(ToString::to_string);
            let origin = Origin { address: wanted.local, device };
            let options = options(wanted.ttl, wanted.min_ttl);
            let outcome = tcp::connect(wanted.remote, &origin, &options, wanted.password.as_ref()).await;
            let heard_of = match outcome {
                Ok(stream) => Heard::BgpConnected { connection, stream },
                Err(e) => Heard::BgpConnectFailed { connection, why: e.to_string() },
            };
            // Nobody listens any more only when the process ends.
            let _ = heard.send(heard_of).await;
        });
        self.dialling.insert(connection, task);
    }

    /// A connection of ours is up: both ends of it.
    pub fn connected(&mut self, connection: ConnectionId, stream: TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
        self.dialling.remove(&connection);
        self.take(connection, stream)
    }

    /// A connection of the neighbour's is taken. `ttl` is what is sent, `min_ttl` the least that is taken.
    pub fn accepted(
        &mut self,
        connection: ConnectionId,
        stream: TcpStream,
        (ttl, min_ttl): (u8, u8),
    ) -> io::Result<(SocketAddr, SocketAddr)> {
        options(ttl, min_ttl).apply(&stream)?;
        self.take(connection, stream)
    }

    fn take(&mut self, connection: ConnectionId, stream: TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
        let ends = (stream.local_addr()?, stream.peer_addr()?);
        let (reading, writing) = stream.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let reader = Task::spawn(read(connection, reading, self.heard.clone()));
        let writer = tokio::spawn(write(connection, writing, queue, waiting.clone(), self.heard.clone()));
        self.connections.insert(connection, Connection { outgoing, waiting, _reader: reader, _writer: writer });
        Ok(ends)
    }

    /// Sends bytes, in order.
    pub fn send(&self, connection: ConnectionId, bytes: Vec<u8>) {
        if let Some(connection) = self.connections.get(&connection) {
            connection.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
            // A writer that has ended has said so.
            let _ = connection.outgoing.send(bytes);
        }
    }

    /// Room for UPDATE messages on a connection, in bytes.
    pub fn room(&self, connection: ConnectionId) -> usize {
        let waiting = self.connections.get(&connection).map(|c| c.waiting.load(Ordering::Relaxed));
        waiting.map_or(0, |waiting| ROOM.saturating_sub(waiting))
    }

    /// Closes a connection after what waits has left, or gives up connecting.
    pub fn close(&mut self, connection: ConnectionId) {
        self.dialling.remove(&connection);
        self.connections.remove(&connection);
    }
}

fn options(ttl: u8, min_ttl: u8) -> TcpOptions {
    TcpOptions { ttl, min_ttl, ..TcpOptions::default() }
}

async fn accept(listener: Arc<Listener>, heard: mpsc::Sender<Heard>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if heard.send(Heard::BgpAccepted { stream, remote }).await.is_err() {
                    return;
                }
            }
            Err(e) => {
                warn!("accepting BGP connections: {e}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn read(connection: ConnectionId, mut stream: OwnedReadHalf, heard: mpsc::Sender<Heard>) {
    let mut buffer = vec![0; CHUNK];
    let why = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break "the neighbour closed the connection".to_owned(),
            Ok(len) => {
                let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                if heard.send(Heard::BgpBytes { connection, bytes }).await.is_err() {
                    return;
                }
            }
            Err(e) => break e.to_string(),
        }
    };
    let _ = heard.send(Heard::BgpClosed { connection, why }).await;
}

async fn write(
    connection: ConnectionId,
    mut stream: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    heard: mpsc::Sender<Heard>,
) {
    while let Some(bytes) = queue.recv().await {
        if let Err(e) = stream.write_all(&bytes).await {
            // The reader hears of it too.
            debug!("writing to a BGP neighbour: {e}");
            return;
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        // The speaker holds UPDATE messages back until it hears that what it sent is gone.
        if queue.is_empty() && !queue.is_closed() {
            let _ = heard.send(Heard::BgpWritable { connection }).await;
        }
    }
    // The last bytes, such as a NOTIFICATION, are in the kernel: it sends them, and the end.
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection over loopback.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn whoever_has_sent_hears_when_it_is_gone_and_a_close_waits_for_what_was_sent() {
        let (sender, mut heard) = mpsc::channel(16);
        let mut sockets = BgpSockets::new(sender);
        let (near, mut far) = pair().await;
        let connection = ConnectionId(7);
        sockets.connected(connection, near).unwrap();
        sockets.send(connection, vec![1; 60_000]);
        assert!(sockets.room(connection) <= ROOM - 60_000, "what waits takes room");
        let mut bytes = vec![0; 60_000];
        far.read_exact(&mut bytes).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::BgpWritable { connection: ConnectionId(7) })));
        assert_eq!(sockets.room(connection), ROOM);
        sockets.send(connection, vec![2; 21]);
        sockets.close(connection);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [2; 21]);
        assert_eq!(sockets.room(connection), 0);
    }

    #[tokio::test]
    async fn what_the_neighbour_sends_comes_in_order_and_its_end_after_it() {
        let (sender, mut heard) = mpsc::channel(16);
        let mut sockets = BgpSockets::new(sender);
        let (near, mut far) = pair().await;
        sockets.connected(ConnectionId(1), near).unwrap();
        far.write_all(&[3; 40_000]).await.unwrap();
        drop(far);
        let mut count = 0;
        loop {
            let heard = heard.recv().await.unwrap();
            if let Heard::BgpBytes { bytes, .. } = heard {
                count += bytes.len();
            } else {
                assert!(matches!(heard, Heard::BgpClosed { .. }), "{heard:?}");
                break;
            }
        }
        assert_eq!(count, 40_000);
    }
}
