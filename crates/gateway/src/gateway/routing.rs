//! The gateway's side of routing: what BFD, probes and BGP hear goes to the router, and what the router says comes back.

use std::net::{IpAddr, SocketAddr};

use base::{Instant, Machine};
use bgp::ConnectionId;
use ike::PeerId;
use sa::ChildLabel;

use super::{Gateway, loss_of};
use crate::command::CommandError;
use crate::drain::{self, Drain};
use crate::health::Signal;
use crate::output::{Output, Severity};
use crate::status;

/// What becomes of a drain where the other end hears nothing of it.
const WITHOUT_A_WORD: &str =
    "what it sends moves by BGP, or when its operator moves it; after a minute the tunnel is taken down all the same";

impl Gateway {
    /// Moves the traffic of a connection's tunnels, or of the one that is named, to others.
    pub(super) fn begin_draining(&mut self, id: PeerId, child: Option<&str>, now: Instant) -> Result<(), CommandError> {
        let Some(record) = self.records.get(&id) else { return Ok(()) };
        let connection = record.name.to_string();
        if record.sas.is_empty() {
            return Err(CommandError::NotUp { connection });
        }
        let labels = record.labels(child);
        if labels.is_empty() || !labels.iter().all(|label| self.router.has_alternative(label, now)) {
            return Err(CommandError::NoAlternative { connection });
        }
        let text = "its traffic is moved to other tunnels by command; it is taken down when it is quiet".to_owned();
        self.tell(id, Severity::Info, "drain", text, now);
        for label in labels {
            self.router.set_drained(&label, true, now);
            let is_asked = self.endpoint.drain(id, &label.child, true, now);
            if !is_asked {
                let text = format!("IKEv1 cannot ask the other end to send around {label}: {WITHOUT_A_WORD}");
                self.tell(id, Severity::Warning, "drain", text, now);
            }
            self.drains.insert(label, Drain::new(now));
        }
        Ok(())
    }

    pub(super) fn stop_draining(&mut self, id: PeerId, child: Option<&str>, now: Instant) {
        let Some(record) = self.records.get(&id) else { return };
        for label in record.labels(child) {
            self.router.set_drained(&label, false, now);
            if self.drains.remove(&label).is_some() {
                self.endpoint.drain(id, &label.child, false, now);
            }
        }
    }

    /// The other end says something about draining.
    fn note_drain(&mut self, event: &ike::Event, now: Instant) {
        match event {
            ike::Event::PeerDrains { peer, child, is_drained } => {
                let Some(record) = self.records.get(peer) else { return };
                let label = ChildLabel { connection: record.name.clone(), child: child.clone() };
                self.router.set_drained_by_peer(&label, *is_drained, now);
            }
            ike::Event::DrainHeard { peer, child, is_drained: true, is_understood } => {
                let Some(record) = self.records.get(peer) else { return };
                let label = ChildLabel { connection: record.name.clone(), child: child.clone() };
                let Some(drain) = self.drains.get_mut(&label) else { return };
                drain.note_heard(*is_understood);
                let (severity, text) = match is_understood {
                    true => (Severity::Info, format!("the other end sends around {label} too")),
                    false => {
                        let text = format!("the other end does not know how to send around {label}: {WITHOUT_A_WORD}");
                        (Severity::Warning, text)
                    }
                };
                self.tell(*peer, severity, "drain", text, now);
            }
            ike::Event::DrainHeard { .. }
            | ike::Event::ChildUp { .. }
            | ike::Event::ChildDown { .. }
            | ike::Event::Connecting { .. }
            | ike::Event::IkeUp { .. }
            | ike::Event::IkeDown { .. }
            | ike::Event::PeerMoved { .. }
            | ike::Event::Failed { .. } => {}
        }
    }

    /// Whether a tunnel is being drained: then [`Self::note_carried`] wants to be called about once a second.
    pub fn is_draining(&self) -> bool {
        !self.drains.is_empty()
    }

    /// Says how many packets the SAs of tunnels have carried up to now, both directions together; SAs that are gone
    /// count too.
    pub fn note_carried(&mut self, carried: impl Fn(&ChildLabel) -> u64, now: Instant) {
        let labels: Vec<ChildLabel> = self.drains.keys().cloned().collect();
        for label in labels {
            let upkeep = self.router.upkeep(&label);
            let Some(drain) = self.drains.get_mut(&label) else { continue };
            let progress = drain.note(carried(&label), upkeep, now);
            let id = self.by_name.get(&label.connection).copied();
            match (progress, id) {
                (drain::Progress::Busy, Some(_)) => {}
                (drain::Progress::Quiet, Some(id)) => {
                    self.tell(id, Severity::Info, "drained", format!("{label} is quiet, and is taken down"), now);
                    self.end_drain(id, &label, now);
                }
                (drain::Progress::GivenUp { rate, is_heard: true }, Some(id)) => {
                    self.drains.remove(&label);
                    let text = format!(
                        "{label} still carries {rate} packets a second, though the other end was asked to send around \
                         it: it stays up; look at what else the other end has"
                    );
                    self.tell(id, Severity::Warning, "drain", text, now);
                }
                (drain::Progress::GivenUp { rate, is_heard: false }, Some(id)) => {
                    let text = format!(
                        "{label} still carries {rate} packets a second, and the other end cannot be asked to send \
                         around it: it is taken down; the other end moves when it sees that, and what it sends until \
                         then may be lost"
                    );
                    self.tell(id, Severity::Warning, "drained", text, now);
                    self.end_drain(id, &label, now);
                }
                (_, None) => drop(self.drains.remove(&label)),
            }
        }
        self.pump(now);
    }

    /// Takes a drained tunnel down.
    fn end_drain(&mut self, id: PeerId, label: &ChildLabel, now: Instant) {
        self.drains.remove(label);
        self.router.hold_down(label, now);
        self.pump_router(now);
        if let Some(record) = self.records.get_mut(&id) {
            record.is_held_down = true;
        }
        self.endpoint.terminate(id, Some(&label.child), now);
    }

    /// A BFD control packet came in on port 3784, with this TTL or hop limit.
    pub fn handle_bfd(&mut self, local: SocketAddr, remote: SocketAddr, ttl: u8, payload: &[u8], now: Instant) {
        self.router.handle_bfd(local, remote, ttl, payload, now);
        self.pump_router(now);
    }

    /// The source port of a BFD session belongs to somebody else on this host.
    pub fn handle_bfd_port_taken(&mut self, session: bfd::SessionId, now: Instant) {
        self.router.handle_bfd_port_taken(session, now);
        self.pump_router(now);
    }

    /// An answer to a probe came in through the device of a tunnel.
    pub fn handle_probe_reply(&mut self, device: &str, source: IpAddr, payload: &[u8], now: Instant) {
        self.router.handle_probe_reply(device, source, payload, now);
        self.pump_router(now);
    }

    /// A connection that BGP asked for is up, from this address of ours.
    pub fn handle_bgp_connected(&mut self, id: ConnectionId, local: SocketAddr, remote: SocketAddr, now: Instant) {
        self.router.with_bgp(now, |bgp| bgp.handle_connected(id, local, remote, now));
        self.pump_router(now);
    }

    /// A connection that BGP asked for could not be made, and why.
    pub fn handle_bgp_connect_failed(&mut self, id: ConnectionId, why: &str, now: Instant) {
        self.router.with_bgp(now, |bgp| bgp.handle_connect_failed(id, why, now));
        self.pump_router(now);
    }

    /// Somebody connected to BGP's port. The connection's name from now on, the TTL to send with and the least one to
    /// take; `None`: it is to be closed.
    pub fn handle_bgp_accepted(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<(ConnectionId, (u8, u8))> {
        let taken = self.router.with_bgp(now, |bgp| bgp.handle_accepted(local, remote, now)).flatten();
        self.pump_router(now);
        taken
    }

    /// Bytes came in on a connection of BGP.
    pub fn handle_bgp_bytes(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) {
        self.router.with_bgp(now, |bgp| bgp.handle_bytes(id, bytes, now));
        self.pump_router(now);
    }

    /// A connection of BGP is gone, and why.
    pub fn handle_bgp_closed(&mut self, id: ConnectionId, why: &str, now: Instant) {
        self.router.with_bgp(now, |bgp| bgp.handle_closed(id, why, now));
        self.pump_router(now);
    }

    /// A connection of BGP takes so many bytes more.
    pub fn handle_bgp_writable(&mut self, id: ConnectionId, room: usize, now: Instant) {
        self.router.with_bgp(now, |bgp| bgp.handle_writable(id, room, now));
        self.pump_router(now);
    }

    /// The paths that BGP knows, at most `limit` of them, in the order of their prefixes; of one prefix, where one is
    /// named.
    pub fn bgp_paths(&self, only: Option<ipnet::IpNet>, limit: usize) -> Vec<status::routing::BgpPath> {
        self.router.bgp_paths(only, limit)
    }

    /// The networks of this host's own interfaces, without those of tunnels: BGP may announce them.
    pub fn set_connected(&mut self, networks: Vec<ipnet::IpNet>, now: Instant) {
        self.router.set_connected(networks, now);
        self.pump_router(now);
    }

    /// Tells the router of a tunnel that came up or went down. The change of its SAs came before.
    pub(super) fn note_tunnel(&mut self, event: &ike::Event, now: Instant) {
        let (peer, child, signal) = match event {
            ike::Event::ChildUp { peer, child, .. } => (peer, child, Signal::SaUp),
            ike::Event::ChildDown { peer, child, reason, .. } => (peer, child, Signal::SaDown(loss_of(reason))),
            ike::Event::Connecting { .. }
            | ike::Event::IkeUp { .. }
            | ike::Event::IkeDown { .. }
            | ike::Event::PeerMoved { .. }
            | ike::Event::Failed { .. } => return,
            ike::Event::PeerDrains { .. } | ike::Event::DrainHeard { .. } => return self.note_drain(event, now),
        };
        let Some(record) = self.records.get(peer) else { return };
        if signal != Signal::SaUp && record.has_sa(child) {
            return;
        }
        let label = ChildLabel { connection: record.name.clone(), child: child.clone() };
        self.router.note_sa(&label, signal, now);
    }

    /// Takes what the router says.
    pub(super) fn pump_router(&mut self, now: Instant) {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Event(event) => {
                    let id = event.connection.as_ref().and_then(|name| self.by_name.get(name).copied());
                    match id {
                        Some(id) => self.tell(id, event.severity, event.name, event.text, now),
                        None => self.outputs.push_back(Output::Event(event)),
                    }
                }
                Output::Learnt(change) if self.options.install_routes => {
                    self.outputs.push_back(Output::Learnt(change.in_table(self.options.route_table)));
                }
                Output::Learnt(_) => {}
                output @ (Output::Transmit(_)
                | Output::Sa(_)
                | Output::OuterMtu { .. }
                | Output::Policy(_)
                | Output::Device(_)
                | Output::Route(_)
                | Output::Socket(_)) => self.outputs.push_back(output),
            }
        }
        self.is_plan_stale |= self.router.are_routes_stale();
    }
}
