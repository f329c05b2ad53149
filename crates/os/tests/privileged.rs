//! What needs root: devices, raw sockets, routes, namespaces. Each test makes a network namespace of its own, so the
//! host is untouched, and says so when it is left out.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use os::features::{self, Features};
use os::netlink::{Hop, NextHop, Route, RouteKind, Rule, TABLE_MAIN};
use os::netns::Namespace;
use os::poll::{Events, Interest, Poller};
use os::tun::{Tun, TunOptions};
use os::{Datagram, DatagramSocket, Fragmentation, RecvBatch, SocketOptions, raw, sysctl, udp};
use support::{as_root, ip, net, tunnel, with_netlink};

/// Takes a namespace's name away also when the test fails.
struct RemoveAtEnd<'a>(&'a str);

impl Drop for RemoveAtEnd<'_> {
    fn drop(&mut self) {
        let _ = Namespace::remove(self.0);
    }
}

/// Waits until `file` can be read, for at most ten seconds.
#[track_caller]
fn wait(file: impl AsFd) {
    let poller = Poller::new().unwrap();
    poller.add(file, 0, Interest::READ).unwrap();
    let mut events = Events::with_capacity(1);
    poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
    assert_eq!(events.iter().count(), 1, "nothing came");
}

/// An address of each family.
const ADDRESSES: &[&str] = &["10.9.0.1/24", "fd09::1/64"];

/// The next packet that is one of ours: IPv6 devices also speak of themselves (router solicitation, MLD).
fn next_packet(tun: &Tun, version: u8, protocol: u8) -> Vec<u8> {
    let mut bytes = vec![0; 2_000];
    loop {
        match tun.recv(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(tun),
            answer => {
                let packet = bytes.get(..answer.unwrap()).unwrap();
                let next = if version == 4 { packet[9] } else { packet[6] };
                if packet[0] >> 4 == version && next == protocol {
                    return packet.to_vec();
                }
            }
        }
    }
}

#[test]
fn a_packet_goes_out_by_the_device_and_comes_back_in() {
    with_netlink("a_packet_goes_out_by_the_device_and_comes_back_in", |netlink| async move {
        let tun = tunnel(&netlink, "t0", ADDRESSES).await;
        for (ours, theirs, version, addresses) in
            [("10.9.0.1", "10.9.0.2", 4, 12..20), ("fd09::1", "fd09::2", 6, 8..40)]
        {
            let socket = udp::bind(SocketAddr::new(ip(ours), 0), &SocketOptions::default()).unwrap();
            let remote = SocketAddr::new(ip(theirs), 4500);
            socket.send(&Datagram { remote, local: None, tos: 0x2e << 2, bytes: b"over the mountain" }).unwrap();
            let mut packet = next_packet(&tun, version, 17);
            assert!(packet.ends_with(b"over the mountain"));

            // The answer: the same packet with both ends exchanged, whose checksums stay right.
            let addresses = packet.get_mut(addresses).unwrap();
            let half = addresses.len() / 2;
            addresses.rotate_left(half);
            let ports = if version == 4 { 20..24 } else { 40..44 };
            packet.get_mut(ports).unwrap().rotate_left(2);
            tun.send(&packet).unwrap();
            wait(&socket);
            let mut bytes = [0; 100];
            let (arrival, payload) = socket.recv(&mut bytes).unwrap();
            assert_eq!(payload, b"over the mountain");
            assert_eq!((arrival.remote, arrival.local, arrival.tos), (remote, ip(ours), 0x2e << 2));
        }
    });
}

#[test]
fn a_device_goes_away_with_its_last_queue_unless_it_is_persistent() {
    with_netlink("a_device_goes_away_with_its_last_queue_unless_it_is_persistent", |netlink| async move {
        let tun = Tun::open(&TunOptions { multi_queue: true, ..TunOptions::new("tun%d") }).unwrap();
        assert_eq!(tun.name(), "tun0");
        let second = tun.add_queue().unwrap();
        assert_eq!(second.index(), tun.index());
        drop(tun);
        assert!(netlink.link("tun0").await.unwrap().is_some());
        drop(second);
        assert_eq!(netlink.link("tun0").await.unwrap(), None);

        let stays = TunOptions { persistent: true, ..TunOptions::new("stays") };
        drop(Tun::open(&stays).unwrap());
        assert!(netlink.link("stays").await.unwrap().is_some());
        let again = Tun::open(&stays).unwrap();
        assert_eq!(again.add_queue().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let busy = Tun::open(&stays).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert!(busy.to_string().contains("TUN device stays"), "{busy}");
        again.let_go().unwrap();
        drop(again);
        assert_eq!(netlink.link("stays").await.unwrap(), None);
    });
}

#[test]
fn a_device_that_is_down_loses_a_packet_and_not_the_queue() {
    with_netlink("a_device_that_is_down_loses_a_packet_and_not_the_queue", |netlink| async move {
        let tun = Tun::open(&TunOptions::new("t0")).unwrap();
        let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1];
        assert_eq!(tun.recv(&mut [0; 100]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let error = tun.send(&packet).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(os::tun::is_passing(&error));
        netlink.set_up(tun.index(), true).await.unwrap();
        tun.send(&packet).unwrap();
        assert!(os::tun::is_passing(&tun.send(b"\0 is no version of IP").unwrap_err()));
        netlink.remove_link(tun.index()).await.unwrap();
        let gone = tun.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::EBADFD));
        assert!(!os::tun::is_passing(&tun.send(&packet).unwrap_err()));
    });
}

#[test]
fn a_link_is_what_it_was_set_to() {
    with_netlink("a_link_is_what_it_was_set_to", |netlink| async move {
        let tun = Tun::open(&TunOptions::new("t0")).unwrap();
        let link = netlink.link("t0").await.unwrap().unwrap();
        assert_eq!((link.index, link.up, link.mtu, link.tx_queue_len), (tun.index(), false, 1_500, 500));
        netlink.set_up(link.index, true).await.unwrap();
        netlink.set_mtu(link.index, 1_400).await.unwrap();
        netlink.set_tx_queue_len(link.index, 10_000).await.unwrap();
        let link = netlink.link("t0").await.unwrap().unwrap();
        assert_eq!((link.up, link.mtu, link.tx_queue_len), (true, 1_400, 10_000));
        assert!(netlink.links().await.unwrap().contains(&link));
        netlink.set_up(link.index, false).await.unwrap();
        assert!(!netlink.link("t0").await.unwrap().unwrap().up);
        assert_eq!(netlink.link("t1").await.unwrap(), None);
        let error = netlink.set_mtu(9_999, 1_400).await.unwrap_err();
        assert!(error.to_string().contains("set the MTU of device 9999 to 1400"), "{error}");
    });
}

#[test]
fn an_address_is_added_once_and_removed_once() {
    with_netlink("an_address_is_added_once_and_removed_once", |netlink| async move {
        let tun = Tun::open(&TunOptions::new("t0")).unwrap();
        for address in [net("169.254.6.1/30"), net("fd06::1/126")] {
            netlink.add_address(tun.index(), address).await.unwrap();
            let all = netlink.addresses().await.unwrap();
            let ours = all.iter().find(|a| a.net == address).unwrap();
            assert_eq!((ours.index, ours.own), (tun.index(), true));
            let again = netlink.add_address(tun.index(), address).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert!(netlink.remove_address(tun.index(), address).await.unwrap());
            assert!(!netlink.remove_address(tun.index(), address).await.unwrap());
        }
    });
}

#[test]
fn our_routes_read_back_as_they_were_added_and_others_are_not_ours() {
    with_netlink("our_routes_read_back_as_they_were_added_and_others_are_not_ours", |netlink| async move {
        let tun = tunnel(&netlink, "t0", ADDRESSES).await;
        assert_eq!(netlink.own_routes().await.unwrap(), [], "connected routes are the kernel's");
        let plain = Route { metric: 50, ..Route::through(tun.index(), net("172.31.0.0/16")) };
        let routed = |gateway| NextHop { gateway: Some(ip(gateway)), ..NextHop::through(tun.index()) };
        let routes = [
            plain.clone(),
            Route { source: Some(ip("10.9.0.1")), mtu: Some(1_390), metric: 60, ..plain.clone() },
            Route { hops: vec![routed("10.9.0.2")], table: 1_000, ..plain.clone() },
            Route { table: 220, metric: 0, ..Route::through(tun.index(), net("0.0.0.0/0")) },
            Route { metric: 70, source: Some(ip("fd09::1")), ..Route::through(tun.index(), net("fd31::/16")) },
            Route { metric: 9_000, ..Route::without_device(RouteKind::Unreachable, net("10.0.0.0/8")) },
            Route { metric: 9_000, ..Route::without_device(RouteKind::Unreachable, net("fd00::/8")) },
            Route { table: 220, metric: 1, ..Route::without_device(RouteKind::Throw, net("192.168.7.0/24")) },
            Route { metric: 2, ..Route::without_device(RouteKind::Blackhole, net("192.0.2.0/24")) },
        ];
        for route in &routes {
            netlink.add_route(route).await.unwrap();
        }
        let again = netlink.add_route(&plain).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(again.to_string().contains("172.31.0.0/16"), "{again}");
        let mut wanted = routes.to_vec();
        let mut found = netlink.own_routes().await.unwrap();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted);

        let moved = Route { mtu: Some(1_300), ..plain.clone() };
        netlink.replace_route(&moved).await.unwrap();
        let found = netlink.own_routes().await.unwrap();
        assert!(found.contains(&moved) && !found.contains(&plain));
        for route in &found {
            assert!(netlink.remove_route(route).await.unwrap(), "{route:?}");
            assert!(!netlink.remove_route(route).await.unwrap(), "{route:?}");
        }
        assert_eq!(netlink.own_routes().await.unwrap(), []);
    });
}

#[test]
fn a_rule_reads_back_as_it_was_added() {
    with_netlink("a_rule_reads_back_as_it_was_added", |netlink| async move {
        let plain = Rule { ipv6: false, priority: 220, table: 220, from: None, to: None, mark: None, invert: false };
        let rules = [
            plain.clone(),
            Rule { priority: 221, mark: Some(0x53), invert: true, ..plain.clone() },
            Rule {
                priority: 222,
                from: Some(net("10.0.0.0/8")),
                to: Some(net("10.1.0.0/16")),
                table: 1_000,
                ..plain.clone()
            },
            Rule { ipv6: true, from: Some(net("fd00::/8")), ..plain.clone() },
        ];
        for rule in &rules {
            netlink.add_rule(rule).await.unwrap();
        }
        assert_eq!(netlink.add_rule(&plain).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(netlink.own_rules().await.unwrap(), rules);
        for rule in &rules {
            assert!(netlink.remove_rule(rule).await.unwrap());
            assert!(!netlink.remove_rule(rule).await.unwrap());
        }
    });
}

#[test]
fn the_way_to_a_peer_gives_source_device_and_path_mtu() {
    with_netlink("the_way_to_a_peer_gives_source_device_and_path_mtu", |netlink| async move {
        let tun = tunnel(&netlink, "t0", ADDRESSES).await;
        let unreachable = netlink.source_address_for(ip("203.0.113.9")).await.unwrap_err();
        assert_eq!(unreachable.kind(), io::ErrorKind::NetworkUnreachable);
        for (near, far, gateway, default, ours) in [
            ("10.9.0.7", "203.0.113.9", "10.9.0.2", "0.0.0.0/0", "10.9.0.1"),
            ("fd09::7", "2001:db8::9", "fd09::2", "::/0", "fd09::1"),
        ] {
            let ipv6 = ip(ours).is_ipv6();
            assert_eq!(netlink.source_address_for(ip(near)).await.unwrap(), ip(ours));
            assert_eq!(netlink.default_route(ipv6).await.unwrap(), None);
            let hops = vec![NextHop { gateway: Some(ip(gateway)), ..NextHop::through(tun.index()) }];
            let route = Route { hops, metric: 10, ..Route::through(tun.index(), net(default)) };
            netlink.add_route(&route).await.unwrap();
            let hop = netlink.hop_to(ip(far)).await.unwrap();
            let expected =
                Hop { device: tun.index(), gateway: Some(ip(gateway)), source: ip(ours), mtu: None, is_local: false };
            assert_eq!(hop, expected);
            let found = netlink.default_route(ipv6).await.unwrap().unwrap();
            assert_eq!((found.device, found.gateway, found.source), (tun.index(), Some(ip(gateway)), ip(ours)));
            assert_eq!(netlink.path_mtu(ip(far)).await.unwrap(), 1_500);
            let narrow = Route { destination: net(&format!("{far}/{}", if ipv6 { 128 } else { 32 })), ..route.clone() };
            netlink.add_route(&Route { mtu: Some(1_280), ..narrow }).await.unwrap();
            assert_eq!(netlink.path_mtu(ip(far)).await.unwrap(), 1_280);
            netlink.remove_route(&route).await.unwrap();

            // Without a gateway the address is that of the device.
            netlink.add_route(&Route::through(tun.index(), net(default))).await.unwrap();
            assert_eq!(netlink.default_route(ipv6).await.unwrap().unwrap().source, ip(ours));
        }
        assert_eq!(TABLE_MAIN, 254);
    });
}

#[test]
fn what_exceeds_a_devices_mtu_is_refused_by_probing_and_fragmented_otherwise() {
    with_netlink("what_exceeds_a_devices_mtu_is_refused_by_probing_and_fragmented_otherwise", |netlink| async move {
        let tun = tunnel(&netlink, "t0", ADDRESSES).await;
        let socket = udp::bind("10.9.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let remote = "10.9.0.2:500".parse().unwrap();
        let large = Datagram { remote, local: None, tos: 0, bytes: &[0; 2_000] };
        for (fragmentation, fits) in [
            (Fragmentation::Allow, true),
            (Fragmentation::PathMtu, true),
            (Fragmentation::Forbid, false),
            (Fragmentation::Probe, false),
        ] {
            socket.set_fragmentation(fragmentation).unwrap();
            let small = Datagram { bytes: b"small", ..large };
            let sent = socket.send_batch(&[large, small]).unwrap();
            assert_eq!(sent.done, 2);
            let refused: Vec<_> = sent.refused.iter().map(|(at, e)| (*at, e.raw_os_error())).collect();
            assert_eq!(refused, if fits { vec![] } else { vec![(0, Some(libc::EMSGSIZE))] }, "{fragmentation:?}");
            let dont_fragment = fragmentation != Fragmentation::Allow;
            loop {
                let packet = next_packet(&tun, 4, 17);
                if packet.ends_with(b"small") {
                    assert_eq!(packet[6] & 0x40 != 0, dont_fragment, "{fragmentation:?}");
                    break;
                }
            }
        }
    });
}

#[test]
fn plain_esp_travels_with_its_addresses_and_without_its_header() {
    with_netlink("plain_esp_travels_with_its_addresses_and_without_its_header", |netlink| async move {
        let lo = netlink.link("lo").await.unwrap().unwrap().index;
        netlink.set_up(lo, true).await.unwrap();
        let _tun = tunnel(&netlink, "t0", ADDRESSES).await;
        for (any, from, to) in [("0.0.0.0", "127.0.0.2", "127.0.0.3"), ("::", "::1", "fd09::1")] {
            let a = raw::bind_esp(ip(from), &SocketOptions::default()).unwrap();
            let b: DatagramSocket = raw::bind_esp(ip(any), &SocketOptions::default()).unwrap();
            let packets: Vec<Vec<u8>> = (1..=20u8).map(|n| [&[0, 0, 1, n][..], &[n; 60]].concat()).collect();
            let datagrams: Vec<_> = packets
                .iter()
                .map(|bytes| Datagram { remote: SocketAddr::new(ip(to), 77), local: Some(ip(from)), tos: 0x8a, bytes })
                .collect();
            assert_eq!(a.send_batch(&datagrams).unwrap().done, 20);
            let mut batch = RecvBatch::new(8, 2_000);
            let mut seen = Vec::new();
            while seen.len() < 20 {
                wait(&b);
                b.recv_batch(&mut batch).unwrap();
                for (arrival, bytes) in batch.iter_mut() {
                    assert_eq!((arrival.remote.ip(), arrival.local, arrival.tos), (ip(from), ip(to), 0x8a));
                    assert_eq!(arrival.remote.port(), 0);
                    seen.push(bytes.to_vec());
                }
            }
            assert_eq!(seen, packets);
            assert_eq!(batch.unusable(), 0);
            let mut bytes = [0; 2_000];
            a.send(datagrams.first().unwrap()).unwrap();
            wait(&b);
            assert_eq!(b.recv(&mut bytes).unwrap().1, packets.first().unwrap());
        }
    });
}

#[test]
fn root_gets_the_buffers_it_asks_for() {
    as_root("root_gets_the_buffers_it_asks_for", || {
        let socket = udp::bind("0.0.0.0:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let (receive, send) = socket.buffers().unwrap();
        assert!(receive >= 8 << 20 && send >= 8 << 20, "{receive} {send}");
    });
}

#[test]
fn a_mark_sends_a_packet_by_another_table() {
    with_netlink("a_mark_sends_a_packet_by_another_table", |netlink| async move {
        let (main, other) = (tunnel(&netlink, "main", ADDRESSES).await, Tun::open(&TunOptions::new("other")).unwrap());
        netlink.set_up(other.index(), true).await.unwrap();
        let route = Route { table: 220, ..Route::through(other.index(), net("10.9.0.2/32")) };
        netlink.add_route(&route).await.unwrap();
        let all = Rule { ipv6: false, priority: 220, table: 220, from: None, to: None, mark: None, invert: false };
        netlink.add_rule(&Rule { mark: Some(7), invert: true, ..all }).await.unwrap();
        for (mark, device) in [(None, &other), (Some(7), &main)] {
            let options = SocketOptions { mark, ..SocketOptions::default() };
            let socket = udp::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();
            let remote = "10.9.0.2:500".parse().unwrap();
            socket.send(&Datagram { remote, local: Some(ip("10.9.0.1")), tos: 0, bytes: b"marked" }).unwrap();
            assert!(next_packet(device, 4, 17).ends_with(b"marked"), "{mark:?}");
        }
    });
}

#[test]
fn a_setting_is_that_of_the_namespace() {
    as_root("a_setting_is_that_of_the_namespace", || {
        sysctl::write(sysctl::IPV4_FORWARD, "1").unwrap();
        let other = Namespace::new().unwrap();
        other.run(|| sysctl::write(sysctl::IPV4_FORWARD, "0")).unwrap().unwrap();
        assert_eq!(sysctl::read(sysctl::IPV4_FORWARD).unwrap(), "1");
        assert_eq!(sysctl::write("net/no-such", "1").unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_feature_of_a_device_is_switched_on() {
    as_root("a_feature_of_a_device_is_switched_on", || {
        let words = ["link", "add", "wire", "type", "veth", "peer", "name", "end"];
        assert!(std::process::Command::new("ip").args(words).status().unwrap().success());
        let wire = Features::of("wire").unwrap();
        assert_eq!(wire.driver().unwrap(), "veth");
        assert_eq!(wire.is_on(features::RX_UDP_GRO_FORWARDING).unwrap(), Some(false));
        wire.switch_on(features::RX_UDP_GRO_FORWARDING).unwrap();
        assert_eq!(wire.is_on(features::RX_UDP_GRO_FORWARDING).unwrap(), Some(true));
        assert_eq!(Features::of("end").unwrap().is_on(features::RX_UDP_GRO_FORWARDING).unwrap(), Some(false));
        // A kernel's "fixed" feature stays as it is.
        assert_eq!(wire.switch_on("rx-gro-hw").unwrap_err().kind(), io::ErrorKind::Unsupported);
    });
}

#[test]
fn a_named_namespace_lasts_until_it_is_removed() {
    as_root("a_named_namespace_lasts_until_it_is_removed", || {
        let name = format!("simplon-test-{}", std::process::id());
        let here = Namespace::create(&name).unwrap();
        let _removed = RemoveAtEnd(&name);
        assert_eq!(Namespace::create(&name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        here.run(|| Tun::open(&TunOptions { persistent: true, ..TunOptions::new("kept") }).map(drop)).unwrap().unwrap();
        drop(here);
        let index = |namespace: &Namespace| namespace.run(|| nix::net::if_::if_nametoindex("kept").ok()).unwrap();
        let there = Namespace::open(&name).unwrap();
        assert!(index(&there).is_some());
        assert!(index(&Namespace::current().unwrap()).is_none());
        let thread = there.spawn("in-there", || nix::net::if_::if_nametoindex("kept").is_ok()).unwrap();
        assert!(thread.join().unwrap().unwrap());
        Namespace::remove(&name).unwrap();
        assert_eq!(Namespace::open(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Namespace::remove(&name).is_err());
    });
}

#[test]
fn a_panic_inside_a_namespace_is_the_callers_panic() {
    as_root("a_panic_inside_a_namespace_is_the_callers_panic", || {
        let namespace = Namespace::new().unwrap();
        let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("inside")));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
    });
}
