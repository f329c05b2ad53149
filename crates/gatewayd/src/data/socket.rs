//! The sockets of a worker: opened, found by local address, and sent through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use os::{Datagram, DatagramSocket, Fragmentation, Run, Sent, SocketOptions, raw, udp};
use sa::Path;
use serde::{Deserialize, Serialize};

use super::{Offloads, Options};

/// Bytes of a datagram that every path takes whole, or as good as: beyond, an IKE message leaves without "don't
/// fragment".
const SURELY_WHOLE: usize = 512;
/// Peers whose paths proved too narrow and were not looked at yet, at most.
const MAX_NARROW: usize = 64;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// UDP, the port of IKE.
    Ike,
    /// UDP, the port of NAT traversal.
    Natt,
    /// ESP without UDP.
    Esp,
}

/// One socket, and what it could not pass on.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kind: Kind,
    pub(super) socket: DatagramSocket,
    /// Whether the kernel cuts up runs.
    segments: bool,
    /// Whether what arrives is received here; else it is another worker's, and packets only leave by it.
    is_served: bool,
}

impl Socket {
    const fn served(kind: Kind, socket: DatagramSocket) -> Self {
        Self { kind, socket, segments: false, is_served: true }
    }
}

/// All sockets. A place in the list is a socket's number.
#[derive(Debug)]
pub(super) struct Sockets {
    all: Vec<Socket>,
    /// Peers to whom a datagram was too large for the path.
    narrow: Vec<IpAddr>,
    note: Option<String>,
    pub(super) stats: Stats,
    /// Datagrams of ESP without UDP that were sent since somebody looked.
    pub(super) plain: usize,
}

/// What was sent and what was not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    /// The kernel refused it: no route, a firewall.
    pub(super) refused: u64,
    /// The kernel's buffer was full.
    pub(super) full: u64,
    /// No socket has its local address, port and family.
    pub(super) no_socket: u64,
}

impl Sockets {
    /// Opens what `options` ask for; also what is missing and can be done without, a sentence each.
    pub(super) fn open(options: &Options) -> io::Result<(Self, Vec<String>)> {
        let mut all = Vec::new();
        let mut notes = Vec::new();
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let listen = if options.listen.is_empty() { &any[..] } else { &options.listen };
        for local in listen {
            if options.listen.is_empty() && local.is_ipv6() && !udp::has_ipv6() {
                notes.push("there is no IPv6 here".to_owned());
                continue;
            }
            all.extend(open_udp(*local, options)?);
            match raw::bind_esp(*local, &options_for(Kind::Esp)) {
                Ok(socket) => all.push(Socket::served(Kind::Esp, socket)),
                Err(e) => notes.push(format!("ESP passes only inside UDP: {e}")),
            }
        }
        notes.extend(use_offloads(&mut all, options.offloads));
        Ok((Self::of(all), notes))
    }

    fn of(all: Vec<Socket>) -> Self {
        Self { all, narrow: Vec::with_capacity(MAX_NARROW), note: None, stats: Stats::default(), plain: 0 }
    }

    /// Sockets that another process has opened, in its order; also what can be done without and is missing.
    pub(super) fn adopt(sockets: Vec<(Kind, OwnedFd)>, offloads: Offloads) -> io::Result<(Self, Vec<String>)> {
        let adopt = |(kind, socket)| -> io::Result<Socket> { Ok(Socket::served(kind, DatagramSocket::adopt(socket)?)) };
        let mut all = sockets.into_iter().map(adopt).collect::<io::Result<Vec<_>>>()?;
        let notes = use_offloads(&mut all, offloads);
        Ok((Self::of(all), notes))
    }

    /// Sockets for another worker beside this one: at the same NAT traversal ports, where the kernel spreads flows over
    /// them. Packets without UDP leave by the same sockets.
    pub(super) fn beside(&self, offloads: Offloads) -> io::Result<Self> {
        let mut own = Vec::new();
        for Socket { socket, .. } in self.all.iter().filter(|s| s.kind == Kind::Natt) {
            // The first was bound without leave to share the port, so no other process has it.
            socket.share_port()?;
            let options = SocketOptions { reuse_port: true, ..options_for(Kind::Natt) };
            own.push(Socket::served(Kind::Natt, udp::bind(socket.local_addr(), &options)?));
        }
        self.with_plain(own, offloads)
    }

    /// The same with sockets that another process has opened.
    pub(super) fn adopt_beside(&self, sockets: Vec<(Kind, OwnedFd)>, offloads: Offloads) -> io::Result<Self> {
        let (own, _) = Self::adopt(sockets, offloads)?;
        self.with_plain(own.all, offloads)
    }

    /// Adds the sockets of this worker for packets without UDP, to send by.
    fn with_plain(&self, mut all: Vec<Socket>, offloads: Offloads) -> io::Result<Self> {
        for Socket { kind, socket, .. } in self.all.iter().filter(|s| s.kind == Kind::Esp) {
            let socket = DatagramSocket::adopt(socket.share()?)?;
            all.push(Socket { is_served: false, ..Socket::served(*kind, socket) });
        }
        // What is missing the first worker has said.
        use_offloads(&mut all, offloads);
        Ok(Self::of(all))
    }

    /// The sockets that are received from, by number.
    pub(super) fn served(&self) -> impl Iterator<Item = (usize, &Socket)> {
        self.all.iter().enumerate().filter(|(_, socket)| socket.is_served)
    }

    /// A socket by its number.
    pub(super) fn get(&self, number: usize) -> Option<&Socket> {
        self.all.get(number)
    }

    /// The socket that the packets of an SA leave by.
    pub(super) fn for_path(&self, path: &Path) -> Option<usize> {
        let kind = if path.udp { Kind::Natt } else { Kind::Esp };
        self.all.iter().position(|s| s.kind == kind && is_from(s, path.local, path.udp))
    }

    /// Whether a socket takes runs of several datagrams.
    pub(super) fn can_segment(&self, number: usize) -> bool {
        self.all.get(number).is_some_and(|s| s.segments)
    }

    /// Sends an IKE datagram. One that is larger than the path takes is fragmented on the way, unless it is a probe.
    ///
    /// # Errors
    /// The socket is of no more use.
    pub(super) fn send_ike(&mut self, transmit: &ike::Transmit) -> io::Result<()> {
        let ike::Transmit { local, remote, payload, is_probe } = transmit;
        let found = self.all.iter().find(|s| s.kind != Kind::Esp && is_from(s, *local, true));
        let Some(found) = found else {
            self.stats.no_socket += 1;
            return Ok(());
        };
        let datagram = Datagram { remote: *remote, local: source(*local), tos: 0, bytes: payload };
        let how = match (*is_probe, payload.len() > SURELY_WHOLE) {
            (true, _) => Fragmentation::Probe,
            (false, true) => Fragmentation::Allow,
            (false, false) => usually(found.kind),
        };
        match send_as(found, &datagram, how)? {
            // A probe that the device does not take has its answer: none.
            Err(e) if os::is_too_big(&e) && *is_probe => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.stats.full += 1,
            Err(_) => self.stats.refused += 1,
            Ok(()) => {}
        }
        Ok(())
    }

    /// Sends ESP datagrams through one socket. Where the kernel refuses a run, its datagrams go one by one. One that is
    /// larger than the path takes goes out in fragments this once, and its path is looked at ([`Self::take_narrow`]).
    ///
    /// # Errors
    /// The socket is of no more use.
    pub(super) fn send_esp(&mut self, number: usize, runs: &[Run<'_>]) -> io::Result<()> {
        let Some(Socket { kind, socket, .. }) = self.all.get(number) else { return Ok(()) };
        if *kind == Kind::Esp {
            self.plain += runs.len();
        }
        let sent = match socket.send_runs(runs) {
            Ok(sent) => sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Sent::default(),
            Err(e) => return Err(e),
        };
        self.stats.full += runs[sent.done..].iter().map(|run| pieces(run).count() as u64).sum::<u64>();
        for (at, error) in sent.refused {
            let Some(run) = runs.get(at) else { continue };
            if run.segment == 0 {
                self.rescue(number, &run.datagram, &error)?;
            } else if os::is_run_refused(&error) {
                self.send_apart(number, run, &error)?;
            } else {
                self.stats.refused += pieces(run).count() as u64;
            }
        }
        Ok(())
    }

    /// Sends the datagrams of a run that was refused one by one. When they pass, runs are not tried again.
    fn send_apart(&mut self, number: usize, run: &Run<'_>, error: &io::Error) -> io::Result<()> {
        let mut all_passed = true;
        for datagram in pieces(run) {
            let Some(Socket { socket, .. }) = self.all.get(number) else { break };
            if let Err(error) = socket.send(&datagram) {
                all_passed = false;
                self.rescue(number, &datagram, &error)?;
            }
        }
        if all_passed && let Some(s) = self.all.get_mut(number) {
            s.segments = false;
            self.note =
                Some(format!("packets are sent one by one from now on: the kernel refuses several at once: {error}"));
        }
        Ok(())
    }

    /// What becomes of a datagram that was refused.
    fn rescue(&mut self, number: usize, datagram: &Datagram<'_>, error: &io::Error) -> io::Result<()> {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.stats.full += 1;
            return Ok(());
        }
        if !os::is_too_big(error) {
            self.stats.refused += 1;
            return Ok(());
        }
        let ip = datagram.remote.ip();
        if self.narrow.len() < MAX_NARROW && !self.narrow.contains(&ip) {
            self.narrow.push(ip);
        }
        let Some(socket) = self.all.get(number) else { return Ok(()) };
        let sent = send_as(socket, datagram, Fragmentation::PathMtu)?;
        self.stats.refused += u64::from(sent.is_err());
        Ok(())
    }

    /// Something to tell a person.
    pub(super) const fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// A peer whose path proved too narrow since the last call.
    pub(super) fn take_narrow(&mut self) -> Option<IpAddr> {
        self.narrow.pop()
    }
}

/// What a socket does with a datagram that is larger than the path. ESP is fitted before it gets here, to what is known
/// of the path for sure: the kernel's own opinion follows from ICMP that anyone can forge, and is left aside.
const fn usually(kind: Kind) -> Fragmentation {
    match kind {
        Kind::Ike => Fragmentation::Allow,
        Kind::Natt | Kind::Esp => Fragmentation::Probe,
    }
}

fn options_for(kind: Kind) -> SocketOptions {
    SocketOptions { fragmentation: usually(kind), ..SocketOptions::default() }
}

/// Has super-packets pass between the kernel and the sockets where that is wanted; what is missing, a sentence each.
fn use_offloads(all: &mut [Socket], offloads: Offloads) -> Vec<String> {
    let mut notes = Vec::new();
    if offloads == Offloads::Auto {
        for Socket { socket, segments, .. } in all.iter_mut().filter(|s| s.kind == Kind::Natt) {
            *segments = socket.can_segment();
            if let Err(e) = socket.set_coalescing(true) {
                notes.push(format!("packets are received one by one: {e}"));
            }
        }
    }
    notes
}

fn open_udp(local: IpAddr, options: &Options) -> io::Result<[Socket; 2]> {
    let open = |kind, port| -> io::Result<Socket> {
        let socket = udp::bind(SocketAddr::new(local, port), &options_for(kind))?;
        Ok(Socket::served(kind, socket))
    };
    Ok([open(Kind::Ike, options.ports.ike)?, open(Kind::Natt, options.ports.natt)?])
}

/// The datagrams of a run.
fn pieces<'a>(run: &Run<'a>) -> impl Iterator<Item = Datagram<'a>> {
    let datagram = run.datagram;
    let len = if run.segment == 0 { datagram.bytes.len().max(1) } else { usize::from(run.segment) };
    datagram.bytes.chunks(len).map(move |bytes| Datagram { bytes, ..datagram })
}

/// Whether a packet from `local` leaves by this socket.
fn is_from(socket: &Socket, local: SocketAddr, with_port: bool) -> bool {
    let bound = socket.socket.local_addr();
    bound.is_ipv4() == local.is_ipv4()
        && (!with_port || bound.port() == local.port())
        && (bound.ip().is_unspecified() || local.ip().is_unspecified() || bound.ip() == local.ip())
}

/// The source address to ask the kernel for.
pub(super) fn source(local: SocketAddr) -> Option<IpAddr> {
    (!local.ip().is_unspecified()).then(|| local.ip())
}

/// Sends one datagram with the fragmentation given; the socket has its own before and after.
fn send_as(socket: &Socket, datagram: &Datagram<'_>, how: Fragmentation) -> io::Result<Result<(), io::Error>> {
    let usually = usually(socket.kind);
    if how == usually {
        return Ok(socket.socket.send(datagram));
    }
    socket.socket.set_fragmentation(how)?;
    let sent = socket.socket.send(datagram);
    socket.socket.set_fragmentation(usually)?;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use model::Ports;
    use os::clock::Clock;
    use os::poll::{Events, Interest, Poller};

    use super::*;

    fn sockets() -> Sockets {
        let options = Options {
            listen: vec![Ipv4Addr::LOCALHOST.into()],
            ports: Ports { ike: 0, natt: 0 },
            clock: Clock::start(),
            offloads: Offloads::Auto,
            workers: 1,
        };
        Sockets::open(&options).unwrap().0
    }

    /// What the NAT traversal socket has received, once there are `count`.
    fn received(sockets: &Sockets, count: usize) -> Vec<Vec<u8>> {
        let natt = &sockets.all[1].socket;
        let poller = Poller::new().unwrap();
        poller.add(natt, 0, Interest::READ).unwrap();
        let (mut events, mut batch) = (Events::with_capacity(1), os::RecvBatch::new(32, 65_535));
        let mut seen = Vec::new();
        while seen.len() < count {
            poller.wait(&mut events, Some(std::time::Duration::from_secs(10))).unwrap();
            natt.recv_batch(&mut batch).unwrap();
            for (arrival, bytes) in batch.iter_mut() {
                seen.extend(arrival.cut(bytes).map(|datagram| datagram.to_vec()));
            }
        }
        seen
    }

    #[test]
    fn a_run_that_the_kernel_refuses_goes_one_by_one_and_is_not_tried_again() {
        let mut sockets = sockets();
        let at = sockets.all[1].socket.local_addr();
        let path = Path { local: at, remote: at, udp: true };
        let number = sockets.for_path(&path).unwrap();
        if !sockets.can_segment(number) {
            return;
        }
        // More than the kernel cuts one datagram into (`UDP_MAX_SEGMENTS`).
        let bytes: Vec<u8> = (0..200).flat_map(|nth| [nth; 10]).collect();
        let datagram = Datagram { remote: at, local: None, tos: 0, bytes: &bytes };
        sockets.send_esp(number, &[Run { datagram, segment: 10 }]).unwrap();
        assert_eq!(received(&sockets, 200), bytes.chunks(10).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert!(!sockets.can_segment(number));
        assert!(sockets.take_note().unwrap().starts_with("packets are sent one by one"));
        assert_eq!(sockets.take_note(), None);
    }

    #[test]
    fn a_worker_beside_another_shares_its_nat_traversal_port_and_nobody_else_does() {
        let leader = sockets();
        let other = leader.beside(Offloads::Auto).unwrap();
        let port = |sockets: &Sockets, at: usize| sockets.all[at].socket.local_addr();
        assert_eq!(port(&other, 0), port(&leader, 1));
        let served: Vec<_> = other.served().map(|(_, socket)| socket.kind).collect();
        assert_eq!(served, [Kind::Natt]);
        let plain = |sockets: &Sockets| sockets.all.iter().filter(|socket| socket.kind == Kind::Esp).count();
        assert_eq!(plain(&other), plain(&leader), "what leaves plain leaves by the leader's socket");
        let stranger = udp::bind(port(&leader, 1), &options_for(Kind::Natt)).unwrap_err();
        assert_eq!(stranger.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_datagram_leaves_by_the_socket_of_its_port_and_family_or_not_at_all() {
        let mut sockets = sockets();
        let [ike, natt] = [0, 1].map(|nth| sockets.all[nth].socket.local_addr());
        let ike_of =
            |local, payload: &[u8]| ike::Transmit { local, remote: natt, payload: payload.to_vec(), is_probe: false };
        sockets.send_ike(&ike_of(natt, &[0; 40])).unwrap();
        sockets.send_ike(&ike_of(ike, &[0; 50])).unwrap();
        assert_eq!(received(&sockets, 2).iter().map(Vec::len).collect::<Vec<_>>(), [40, 50]);
        sockets.send_ike(&ike_of("127.0.0.1:9".parse().unwrap(), &[0; 40])).unwrap();
        sockets.send_ike(&ike_of("[::1]:500".parse().unwrap(), &[0; 40])).unwrap();
        assert_eq!(sockets.stats.no_socket, 2);
        let elsewhere = Path { local: "127.0.0.1:9".parse().unwrap(), remote: natt, udp: true };
        assert_eq!(sockets.for_path(&elsewhere), None);
    }
}
