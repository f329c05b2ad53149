//! Probes through tunnels: a socket for each tunnel that is probed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway::ProbePacket;
use gateway::health::ProbeKind;
use os::Origin;
use os::probe::{self, Echo};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;

use super::{Heard, Task};

/// More than any answer that counts has.
const LONGEST: usize = 256;

#[derive(Debug)]
enum Asker {
    Echo(Arc<Echo>),
    Udp(Arc<UdpSocket>),
}

/// Whom a socket asks, and from where.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    kind: ProbeKind,
    source: IpAddr,
    target: IpAddr,
    identifier: u16,
}

/// The sockets of probes, by the tunnel's device.
#[derive(Debug)]
pub(super) struct ProbeSockets {
    heard: mpsc::Sender<Heard>,
    sockets: BTreeMap<Arc<str>, (Asked, Asker, Task)>,
}

impl ProbeSockets {
    /// No socket yet.
    pub(super) fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { heard, sockets: BTreeMap::new() }
    }

    /// Sends a probe. One that cannot be sent is lost, as far as the tunnel's health is concerned.
    pub(super) fn send(&mut self, packet: &ProbePacket) {
        if let Err(e) = self.try_send(packet) {
            debug!("a probe of {} through {}: {e}", packet.probe.target, packet.device);
            // Its device may be another one by now.
            self.sockets.remove(&packet.device);
        }
    }

    fn try_send(&mut self, packet: &ProbePacket) -> io::Result<()> {
        let probe = &packet.probe;
        let asked =
            Asked { kind: probe.kind, source: probe.source, target: probe.target, identifier: probe.identifier };
        if self.sockets.get(&packet.device).is_none_or(|(known, ..)| *known != asked) {
            let (asker, task) = self.open(packet)?;
            self.sockets.insert(packet.device.clone(), (asked, asker, task));
        }
        match self.sockets.get(&packet.device) {
            Some((_, Asker::Echo(echo), _)) => echo.ask(probe.sequence, &probe.payload),
            Some((_, Asker::Udp(socket), _)) => socket.try_send(&probe.payload).map(drop),
            None => Ok(()),
        }
    }

    fn open(&self, packet: &ProbePacket) -> io::Result<(Asker, Task)> {
        let (probe, device, heard) = (&packet.probe, packet.device.clone(), self.heard.clone());
        let origin = Origin { address: Some(probe.source), device: Some(device.to_string()) };
        let target = probe.target;
        Ok(match probe.kind {
            ProbeKind::IcmpEcho => {
                let echo = Arc::new(Echo::open(target, &origin, probe.identifier)?);
                let reader = echo.clone();
                let task = Task::spawn(async move {
                    let mut bytes = [0; LONGEST];
                    loop {
                        let answer = reader.answered(&mut bytes).await.map(|(_, len)| len);
                        if !pass_on(answer, &bytes, (&device, target), &heard).await {
                            return;
                        }
                    }
                });
                (Asker::Echo(echo), task)
            }
            ProbeKind::UdpEcho { port } => {
                let socket = Arc::new(probe::udp(SocketAddr::new(target, port), &origin)?);
                let reader = socket.clone();
                let task = Task::spawn(async move {
                    let mut bytes = [0; LONGEST];
                    loop {
                        let answer = reader.recv(&mut bytes).await;
                        if !pass_on(answer, &bytes, (&device, target), &heard).await {
                            return;
                        }
                    }
                });
                (Asker::Udp(socket), task)
            }
        })
    }
}

/// Puts an answer into the queue; false when nobody hears it any more.
async fn pass_on(
    answer: io::Result<usize>,
    bytes: &[u8],
    (device, source): (&Arc<str>, IpAddr),
    heard: &mpsc::Sender<Heard>,
) -> bool {
    match answer {
        Ok(len) => {
            let payload = bytes.get(..len).unwrap_or_default().to_vec();
            let packet = Heard::Probe { device: device.clone(), source, payload };
            !matches!(heard.try_send(packet), Err(mpsc::error::TrySendError::Closed(_)))
        }
        Err(e) => {
            debug!("a probe through {device}: {e}");
            tokio::task::yield_now().await;
            true
        }
    }
}
