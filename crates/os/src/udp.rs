//! UDP sockets for IKE and for ESP in UDP: ports 500 and 4500 (RFC 7296 §2, RFC 3948), or any other.
//!
//! ESP in UDP is taken apart in user space: `UDP_ENCAP` is not set, so everything that reaches port 4500 is received.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::datagram::{DatagramSocket, SocketOptions};
use crate::error::Tried;
use crate::sys;

/// Binds a UDP socket. An IPv6 socket takes IPv6 only: open one of each family.
///
/// # Errors
/// `AddrInUse` when another IKE daemon has the port, `AddrNotAvailable` when the address is not ours,
/// `PermissionDenied` for a port below 1024 without `CAP_NET_BIND_SERVICE` or a mark without `CAP_NET_ADMIN`.
pub fn bind(local: SocketAddr, options: &SocketOptions) -> io::Result<DatagramSocket> {
    DatagramSocket::open(local, (Type::DGRAM, Protocol::UDP), "UDP", options)
}

/// Whether the network namespace of the calling thread has IPv6 at all.
pub fn has_ipv6() -> bool {
    let any = SocketAddr::from(([0u16; 8], 0));
    Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).is_ok_and(|socket| socket.bind(&any.into()).is_ok())
}

/// The largest packet, IP header included, that the kernel believes to reach `remote` whole: the MTU of the route, or
/// less where an ICMP message said so. Nothing is sent. `local` is the source address unless it is unspecified; of
/// `options` only mark and device count.
///
/// # Errors
/// `NetworkUnreachable` without a route, `AddrNotAvailable` when `local` is not ours.
pub fn path_mtu(local: IpAddr, remote: IpAddr, options: &SocketOptions) -> io::Result<usize> {
    let tried = || format!("find the path MTU to {remote}");
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(remote, 0)), Type::DGRAM, Some(Protocol::UDP)).tried(tried)?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).tried(tried)?;
    }
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes())).tried(tried)?;
    }
    socket.bind(&SocketAddr::new(local, 0).into()).tried(tried)?;
    // The port means nothing; it must not be 0.
    socket.connect(&SocketAddr::new(remote, 4500).into()).tried(tried)?;
    let (level, name) =
        if remote.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mtu = sys::option(socket.as_fd(), level, name).tried(tried)?;
    Ok(usize::try_from(mtu).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::datagram::{Datagram, Fragmentation, RecvBatch, Run};
    use crate::poll::{Events, Interest, Poller};

    const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

    fn small() -> SocketOptions {
        SocketOptions { buffer: 64 << 10, ..SocketOptions::default() }
    }

    /// A socket, or nothing on a machine without IPv6.
    fn open(address: &str) -> Option<DatagramSocket> {
        match bind(address.parse().unwrap(), &small()) {
            Err(e) if address.starts_with('[') && e.kind() == io::ErrorKind::AddrNotAvailable => None,
            socket => Some(socket.unwrap()),
        }
    }

    /// Waits until `socket` has something to read, for at most ten seconds.
    fn wait(socket: &DatagramSocket) {
        let poller = Poller::new().unwrap();
        poller.add(socket, 0, Interest::READ).unwrap();
        let mut events = Events::with_capacity(1);
        poller.wait(&mut events, Some(std::time::Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().count(), 1, "nothing came");
    }

    fn datagram(remote: SocketAddr, bytes: &[u8]) -> Datagram<'_> {
        Datagram { remote, local: None, tos: 0, bytes }
    }

    #[test]
    fn a_datagram_tells_its_local_address_and_its_traffic_class() {
        for address in LOOPBACKS {
            let (Some(a), Some(b)) = (open(address), open(address)) else { continue };
            let mut message = datagram(b.local_addr(), b"\0\0\0\0ike");
            message.tos = 0xb8 | 3;
            a.send(&message).unwrap();
            wait(&b);
            let mut bytes = [0; 100];
            let (arrival, payload) = b.recv(&mut bytes).unwrap();
            assert_eq!(payload, b"\0\0\0\0ike");
            assert_eq!(arrival.remote, a.local_addr());
            assert_eq!(arrival.local, a.local_addr().ip());
            assert_eq!(arrival.tos, 0xbb);
        }
    }

    #[test]
    fn on_the_unspecified_address_each_datagram_says_where_it_was_sent_and_is_answered_from_there() {
        let server = open("0.0.0.0:0").unwrap();
        let client = open("127.0.0.1:0").unwrap();
        let port = server.local_addr().port();
        for asked in ["127.0.0.2", "127.0.0.3"] {
            let asked: IpAddr = asked.parse().unwrap();
            client.send(&datagram(SocketAddr::new(asked, port), b"?")).unwrap();
            wait(&server);
            let mut bytes = [0; 10];
            let (arrival, _) = server.recv(&mut bytes).unwrap();
            assert_eq!(arrival.local, asked);
            let answer = Datagram { local: Some(arrival.local), ..datagram(arrival.remote, b"!") };
            server.send(&answer).unwrap();
            wait(&client);
            let (arrival, _) = client.recv(&mut bytes).unwrap();
            assert_eq!(arrival.remote, SocketAddr::new(asked, port));
        }
    }

    #[test]
    fn a_batch_keeps_its_order_its_bytes_and_its_traffic_classes() {
        for address in LOOPBACKS {
            let (Some(a), Some(b)) = (open(address), open(address)) else { continue };
            let payloads: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
            let batch: Vec<_> = (0u8..)
                .zip(&payloads)
                .map(|(tos, bytes)| Datagram { tos: tos << 2, ..datagram(b.local_addr(), bytes) })
                .collect();
            let sent = a.send_batch(&batch).unwrap();
            assert_eq!(sent.done, 100);
            assert!(sent.refused.is_empty());
            let mut got = RecvBatch::new(32, 2048);
            let mut seen = 0u8;
            while seen < 100 {
                wait(&b);
                let count = b.recv_batch(&mut got).unwrap();
                assert!((1..=32).contains(&count));
                assert_eq!(got.iter().count(), count);
                for (arrival, bytes) in got.iter_mut() {
                    assert_eq!(bytes, vec![seen; usize::from(seen)]);
                    assert_eq!((arrival.tos, arrival.len), (seen << 2, usize::from(seen)));
                    seen += 1;
                }
            }
            assert_eq!(b.recv_batch(&mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(got.is_empty());
        }
    }

    #[test]
    fn a_run_arrives_as_one_and_is_cut_where_it_was_joined() {
        for address in LOOPBACKS {
            let (Some(a), Some(b)) = (open(address), open(address)) else { continue };
            if !a.can_segment() || b.set_coalescing(true).is_err() {
                continue;
            }
            let bytes: Vec<u8> = (0..2_500u16).map(|n| (n / 1_000) as u8).collect();
            let run = Run { datagram: Datagram { tos: 3, ..datagram(b.local_addr(), &bytes) }, segment: 1_000 };
            let single = Run::from(datagram(b.local_addr(), b"alone"));
            assert_eq!(a.send_runs(&[run, single]).unwrap().done, 2);
            let mut got = RecvBatch::new(4, 65_535);
            let mut seen = Vec::new();
            while seen.len() < 4 {
                wait(&b);
                b.recv_batch(&mut got).unwrap();
                for (arrival, bytes) in got.iter_mut() {
                    assert!(arrival.len < 1_000 || arrival.tos == 3);
                    seen.extend(arrival.cut(bytes).map(|piece| piece.to_vec()));
                }
            }
            assert_eq!(seen, [vec![0; 1_000], vec![1; 1_000], vec![2; 500], b"alone".to_vec()]);
        }
    }

    #[test]
    fn one_that_is_refused_does_not_stop_the_rest() {
        let (a, b) = (open("127.0.0.1:0").unwrap(), open("127.0.0.1:0").unwrap());
        let to = b.local_addr();
        let long = vec![0; 65_508];
        let foreign = Datagram { local: Some("::1".parse().unwrap()), ..datagram(to, b"wrong family") };
        let not_ours = Datagram { local: Some("192.0.2.77".parse().unwrap()), ..datagram(to, b"not our address") };
        let batch =
            [datagram(to, b"1"), datagram(to, &long), datagram(to, b"2"), foreign, not_ours, datagram(to, b"3")];
        let sent = a.send_batch(&batch).unwrap();
        assert_eq!(sent.done, 6);
        assert_eq!(sent.refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(sent.refused.first().unwrap().1.raw_os_error(), Some(libc::EMSGSIZE));
        let mut got = RecvBatch::new(8, 100);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            wait(&b);
            b.recv_batch(&mut got).unwrap();
            seen.extend(got.iter().flat_map(|(_, bytes)| bytes.to_vec()));
        }
        assert_eq!(seen, b"123");
    }

    #[test]
    fn a_peer_that_is_gone_does_not_kill_the_socket() {
        let a = open("127.0.0.1:0").unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for _ in 0..10 {
            a.send(&datagram(gone, b"anyone?")).unwrap();
        }
        let mut bytes = [0; 10];
        assert_eq!(a.recv(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let b = open("127.0.0.1:0").unwrap();
        a.send(&datagram(b.local_addr(), b"hello")).unwrap();
        wait(&b);
        assert_eq!(b.recv(&mut bytes).unwrap().1, b"hello");
    }

    #[test]
    fn what_does_not_fit_into_a_slot_is_dropped_and_counted() {
        let (a, b) = (open("127.0.0.1:0").unwrap(), open("127.0.0.1:0").unwrap());
        let to = b.local_addr();
        a.send_batch(&[datagram(to, &[1; 11]), datagram(to, &[2; 10]), datagram(to, &[3; 9])]).unwrap();
        let mut got = RecvBatch::new(4, 10);
        let mut seen = Vec::new();
        while seen.len() < 2 {
            wait(&b);
            b.recv_batch(&mut got).unwrap();
            seen.extend(got.iter_mut().map(|(_, bytes)| bytes.to_vec()));
        }
        assert_eq!(seen, [vec![2; 10], vec![3; 9]]);
        assert_eq!(got.unusable(), 1);
    }

    #[test]
    fn a_full_batch_of_nothing_sends_nothing() {
        let a = open("127.0.0.1:0").unwrap();
        assert_eq!(a.send_batch(&[]).unwrap().done, 0);
    }

    #[test]
    fn with_probing_only_the_devices_mtu_counts() {
        let (a, b) = (open("127.0.0.1:0").unwrap(), open("127.0.0.1:0").unwrap());
        for fragmentation in [Fragmentation::Allow, Fragmentation::PathMtu, Fragmentation::Forbid, Fragmentation::Probe]
        {
            a.set_fragmentation(fragmentation).unwrap();
            a.send(&datagram(b.local_addr(), &[0; 1_000])).unwrap();
        }
    }

    #[test]
    fn the_path_mtu_of_a_path_within_the_host_is_that_of_the_loopback_device() {
        let (any, here) = (IpAddr::from([0; 4]), IpAddr::from([127, 0, 0, 1]));
        assert!(path_mtu(any, here, &small()).unwrap() >= 65_535);
        let elsewhere = path_mtu("192.0.2.77".parse().unwrap(), here, &small()).unwrap_err();
        assert_eq!(elsewhere.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_port_that_is_taken_is_named_in_the_error() {
        let a = open("127.0.0.1:0").unwrap();
        let error = bind(a.local_addr(), &small()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&format!("bind UDP {}", a.local_addr())), "{error}");
    }

    #[test]
    fn both_families_have_the_same_port_on_a_socket_each() {
        let Some(v6) = open("[::]:0") else { return };
        let v4 = SocketAddr::new(IpAddr::from([0; 4]), v6.local_addr().port());
        assert_eq!(bind(v4, &small()).unwrap().local_addr(), v4);
    }

    #[test]
    fn a_shared_port_can_be_bound_twice() {
        let shared = SocketOptions { reuse_port: true, ..small() };
        let a = bind("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
        let b = bind(a.local_addr(), &shared).unwrap();
        assert_eq!(a.local_addr(), b.local_addr());
    }
}
