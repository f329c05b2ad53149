//! BFD: two listeners for all sessions, and a socket that sends for each.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bfd::SessionId;
use gateway::BfdPacket;
use os::bfd::{BfdSocket, Departure};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Heard, Task};

/// A control packet is 24 bytes, or 52 with authentication; what is longer is cut and refused.
const LONGEST: usize = 128;

/// The sockets of BFD. They are opened when the first session sends.
#[derive(Debug)]
pub(super) struct BfdSockets {
    heard: mpsc::Sender<Heard>,
    listeners: BTreeMap<bool, Option<Task>>,
    senders: BTreeMap<SessionId, (SocketAddr, BfdSocket)>,
}

impl BfdSockets {
    /// No socket yet.
    pub(super) fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { heard, listeners: BTreeMap::new(), senders: BTreeMap::new() }
    }

    /// Sends a packet. What stands in the way of one is BFD's business: it counts what does not arrive.
    ///
    /// # Errors
    /// `AddrInUse` when the source port belongs to somebody else.
    pub(super) fn send(&mut self, packet: &BfdPacket) -> io::Result<()> {
        let transmit = &packet.transmit;
        self.listen(transmit.local.is_ipv4());
        let known = self.senders.get(&transmit.session).filter(|(local, _)| *local == transmit.local);
        if known.is_none() {
            match BfdSocket::bind(transmit.local, packet.device.as_deref()) {
                Ok(socket) => drop(self.senders.insert(transmit.session, (transmit.local, socket))),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(e),
                // The device or its address may be about to come.
                Err(e) => {
                    debug!("BFD with {}: {e}", transmit.remote);
                    return Ok(());
                }
            }
        }
        if let Some((_, socket)) = self.senders.get(&transmit.session)
            && let Err(e) = socket.send(transmit.payload.as_ref(), transmit.remote, Departure::default())
        {
            debug!("BFD to {}: {e}", transmit.remote);
            if e.kind() != io::ErrorKind::WouldBlock {
                // Its device may be another one by now.
                self.senders.remove(&transmit.session);
            }
        }
        Ok(())
    }

    /// A session sends no more from here.
    pub(super) fn release(&mut self, session: SessionId, local: SocketAddr) {
        if self.senders.get(&session).is_some_and(|(known, _)| *known == local) {
            self.senders.remove(&session);
        }
    }

    /// Listens for one family, once.
    fn listen(&mut self, is_v4: bool) {
        let heard = &self.heard;
        self.listeners.entry(is_v4).or_insert_with(|| {
            let any = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            match BfdSocket::bind(SocketAddr::new(any, bfd::PORT), None) {
                Ok(socket) => Some(Task::spawn(read(socket, heard.clone()))),
                Err(e) => {
                    warn!("BFD packets cannot be received: {e}");
                    None
                }
            }
        });
    }
}

async fn read(socket: BfdSocket, heard: mpsc::Sender<Heard>) {
    let mut bytes = [0; LONGEST];
    loop {
        match socket.recv(&mut bytes).await {
            Ok(arrival) => {
                let payload = bytes.get(..arrival.len).unwrap_or_default().to_vec();
                let local = SocketAddr::new(arrival.local, bfd::PORT);
                let packet = Heard::Bfd { local, remote: arrival.remote, ttl: arrival.ttl, payload };
                if let Err(mpsc::error::TrySendError::Closed(_)) = heard.try_send(packet) {
                    return;
                }
            }
            Err(e) => {
                debug!("receiving BFD: {e}");
                tokio::task::yield_now().await;
            }
        }
    }
}
