//! Routes with several ways, by the thousand, and as others change them. Each test has a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]

mod support;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use os::netlink::{
    Bulk, Change, Filter, Monitor, Netlink, NextHop, PROTOCOL, Passed, Place, Route, RouteKind, TABLE_MAIN, Topics,
    Write,
};
use os::tun::{Tun, TunOptions};

use support::{as_root, ip, net, tunnel, with_netlink};

const ALL: Topics = Topics { routes: Some(Passed::Nothing), addresses: true, links: true, rules: true };

fn ours() -> Filter {
    Filter { protocol: Some(PROTOCOL), table: None }
}

fn list(bulk: &mut Bulk, filter: Filter) -> Vec<Route> {
    let mut all = Vec::new();
    assert!(bulk.routes(filter, |route, _| all.push(route)).unwrap(), "nobody else changes routes here");
    all.sort();
    all
}

fn one(bulk: &mut Bulk, write: Write) {
    assert_eq!(bulk.write(std::slice::from_ref(&write)).unwrap(), [], "{write}");
}

fn several(destination: &str, hops: &[NextHop]) -> Route {
    Route { hops: hops.to_vec(), metric: 20, ..Route::without_device(RouteKind::Unicast, net(destination)) }
}

fn onlink(device: u32, gateway: &str) -> NextHop {
    NextHop { gateway: Some(ip(gateway)), onlink: true, ..NextHop::through(device) }
}

/// Two tunnels with inside addresses as clouds give them.
async fn two(netlink: &Netlink) -> (Tun, Tun) {
    let a = tunnel(netlink, "a", &["169.254.10.2/30", "fd00:a::2/126"]).await;
    (a, tunnel(netlink, "b", &["169.254.11.2/30", "fd00:b::2/126"]).await)
}

#[test]
fn routes_with_several_ways_read_back_as_they_were_added() {
    with_netlink("routes_with_several_ways_read_back_as_they_were_added", |netlink| async move {
        let (tun_a, tun_b) = two(&netlink).await;
        let (a, b) = (NextHop::through(tun_a.index()), NextHop::through(tun_b.index()));
        let via = |hop: NextHop, gateway| NextHop { gateway: Some(ip(gateway)), ..hop };
        let mut bulk = Bulk::open().unwrap();
        let routes = [
            several("10.0.1.0/24", &[a, b]),
            several("10.0.2.0/24", &[via(a, "169.254.10.1"), NextHop { weight: 256, ..via(b, "169.254.11.1") }]),
            several("10.0.3.0/24", &[onlink(tun_a.index(), "192.0.2.1"), onlink(tun_b.index(), "192.0.2.2")]),
            several("10.0.4.0/24", &[onlink(tun_a.index(), "192.0.2.1")]),
            several("10.0.5.0/24", &[via(a, "fd00:a::1"), via(b, "fd00:b::1")]), // RFC 8950
            several("10.0.6.0/24", &[via(a, "fd00:a::1")]),
            several("fd10:1::/32", &[a, b]),
            several("fd10:2::/32", &[via(a, "fd00:a::1"), NextHop { weight: 3, ..via(b, "fd00:b::1") }]),
            several("fd10:3::/32", &[onlink(tun_a.index(), "2001:db8::1"), onlink(tun_b.index(), "2001:db8::2")]),
            several("fd10:4::/32", &[onlink(tun_a.index(), "2001:db8::1")]),
            Route { source: Some(ip("fd00:a::2")), table: 1_000, ..several("fd10:5::/32", &[a, b]) },
            Route { source: Some(ip("169.254.10.2")), table: 1_000, ..several("10.0.7.0/24", &[a, b]) },
        ];
        for route in &routes {
            one(&mut bulk, Write::Add(route.clone()));
        }
        let mut wanted = routes.to_vec();
        wanted.sort();
        assert_eq!(list(&mut bulk, ours()), wanted);
        let mut found = netlink.own_routes().await.unwrap();
        found.sort();
        assert_eq!(found, wanted);
        // The kernel filters by table.
        assert_eq!(list(&mut bulk, Filter { table: Some(1_000), ..ours() }).len(), 2);
        assert_eq!(list(&mut bulk, Filter { table: Some(1_001), ..ours() }), []);
        // A gateway that the kernel finds by itself.
        one(&mut bulk, Write::Add(several("10.0.8.0/24", &[NextHop::via(ip("169.254.11.1"))])));
        let found = list(&mut bulk, ours());
        let found = found.iter().find(|route| route.destination == net("10.0.8.0/24")).unwrap();
        assert_eq!(found.hops, [via(b, "169.254.11.1")]);
    });
}

#[test]
fn flows_of_both_families_take_all_of_several_ways() {
    with_netlink("flows_of_both_families_take_all_of_several_ways", |netlink| async move {
        os::sysctl::write("net/ipv4/fib_multipath_hash_policy", "1").unwrap();
        os::sysctl::write("net/ipv6/fib_multipath_hash_policy", "1").unwrap();
        let (a, b) = two(&netlink).await;
        // Packets from an address of one of the devices would prefer that one, since Linux 6.16.
        let _inside = tunnel(&netlink, "inside", &["10.7.0.1/24", "fd07::1/64"]).await;
        let hops = [NextHop::through(a.index()), NextHop::through(b.index())];
        let mut bulk = Bulk::open().unwrap();
        for (destination, far, ours) in [("10.1.0.0/16", "10.1.0.9", "10.7.0.1"), ("fd10::/16", "fd10::9", "fd07::1")] {
            one(&mut bulk, Write::Add(several(destination, &hops)));
            let mut bytes = [0; 2_000];
            for tun in [&a, &b] {
                while tun.recv(&mut bytes).is_ok() {}
            }
            let socket = UdpSocket::bind(SocketAddr::new(ip(ours), 0)).unwrap();
            for port in 1..=64 {
                socket.send_to(b"flow", SocketAddr::new(ip(far), port)).unwrap();
            }
            let mut count = |tun: &Tun| {
                let packets =
                    std::iter::from_fn(|| tun.recv(&mut bytes).ok().map(|len| bytes[..len].ends_with(b"flow")));
                packets.filter(|ours| *ours).count()
            };
            let counts = (count(&a), count(&b));
            assert_eq!(counts.0 + counts.1, 64);
            assert!(counts.0 > 8 && counts.1 > 8, "{counts:?} to {destination}");
        }
    });
}

#[test]
fn a_replacement_leaves_one_route_whatever_both_were() {
    with_netlink("a_replacement_leaves_one_route_whatever_both_were", |netlink| async move {
        let (a, b) = two(&netlink).await;
        let (one_a, one_b) = (NextHop::through(a.index()), NextHop::through(b.index()));
        let mut bulk = Bulk::open().unwrap();
        for (to, gateways) in
            [("10.1.0.0/16", ["192.0.2.1", "192.0.2.2"]), ("fd10::/16", ["2001:db8::1", "2001:db8::2"])]
        {
            let dead_end = Route { metric: 20, ..Route::without_device(RouteKind::Unreachable, net(to)) };
            let states = [
                several(to, &[one_a]),
                several(to, &[one_b]),
                several(to, &[one_a, one_b]),
                several(to, &[onlink(a.index(), gateways[0]), onlink(b.index(), gateways[1])]),
                several(to, &[onlink(b.index(), gateways[1])]),
                dead_end.clone(),
                Route { kind: RouteKind::Blackhole, ..dead_end },
            ];
            for (from, into) in states.iter().flat_map(|from| states.iter().map(move |into| (from, into))) {
                one(&mut bulk, Write::Replace(from.clone()));
                one(&mut bulk, Write::Replace(into.clone()));
                assert_eq!(list(&mut bulk, ours()), std::slice::from_ref(into), "from {from:?}");
            }
            one(&mut bulk, Write::Remove(states[0].place()));
            one(&mut bulk, Write::Remove(states[0].place()));
            assert_eq!(list(&mut bulk, ours()), []);
        }
    });
}

#[test]
fn a_refusal_leads_back_to_its_route_and_the_rest_is_made() {
    with_netlink("a_refusal_leads_back_to_its_route_and_the_rest_is_made", |netlink| async move {
        let (a, _b) = two(&netlink).await;
        let mut bulk = Bulk::open().unwrap();
        let theirs = Route::through(a.index(), net("10.0.5.0/24"));
        one(&mut bulk, Write::Add(theirs));
        let mut writes: Vec<_> = (0..1_000u32)
            .map(|n| {
                Write::Add(Route::through(
                    a.index(),
                    IpNet::V4(Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap()),
                ))
            })
            .collect();
        let lost =
            Route { hops: vec![NextHop::via(ip("203.0.113.1"))], ..Route::through(a.index(), net("10.9.9.0/24")) };
        for at in [0, 127, 128, 999] {
            writes[at] = Write::Replace(lost.clone());
        }
        writes[500] = Write::Remove(Place::new(TABLE_MAIN, net("10.200.0.0/16"), 0));
        let refused = bulk.write(&writes).unwrap();
        let told: Vec<_> = refused.iter().map(|r| (r.at, r.errno)).collect();
        let unreachable = libc::ENETUNREACH;
        assert_eq!(
            told,
            [(0, unreachable), (5, libc::EEXIST), (127, unreachable), (128, unreachable), (999, unreachable)]
        );
        assert!(refused[1].is_in_the_way());
        assert!(refused[0].to_string().contains("gateway"), "the kernel's own words: {}", refused[0]);
        // 1,000 with five that are none, and the one that was there.
        assert_eq!(list(&mut bulk, ours()).len(), 995);
        let removals: Vec<_> = writes.iter().map(|write| Write::Remove(write.place())).collect();
        assert_eq!(bulk.write(&removals).unwrap(), []);
        assert_eq!(list(&mut bulk, ours()), []);
    });
}

#[test]
fn a_removal_leaves_what_others_have_in_the_same_place() {
    with_netlink("a_removal_leaves_what_others_have_in_the_same_place", |netlink| async move {
        let (a, _b) = two(&netlink).await;
        // The kernel's own route to the device's prefix.
        let connected = Place::new(TABLE_MAIN, net("169.254.10.0/30"), 0);
        let mut bulk = Bulk::open().unwrap();
        let there = |bulk: &mut Bulk| {
            list(bulk, Filter::default()).iter().any(|r| r.place() == connected && r.hops[0].device == Some(a.index()))
        };
        assert!(there(&mut bulk));
        one(&mut bulk, Write::Remove(connected));
        assert!(there(&mut bulk));
    });
}

/// What is waiting, as short words.
fn told(monitor: &mut Monitor) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(change) = monitor.next_waiting().unwrap() {
        all.push(match change {
            Change::Route { route, protocol, replaces } => {
                format!("{} {} by {protocol}", if replaces { "=" } else { "+" }, route.destination)
            }
            Change::RouteGone { route, protocol } => format!("- {} by {protocol}", route.destination),
            Change::Link(link) => format!("+ {} {}", link.name, if link.up { "up" } else { "down" }),
            Change::LinkGone(link) => format!("- {}", link.name),
            Change::Address(address) => format!("+ {}", address.net),
            Change::AddressGone(address) => format!("- {}", address.net),
            Change::Rules => "rules".to_owned(),
            Change::Overrun => "overrun".to_owned(),
        });
    }
    all
}

#[test]
fn a_monitor_tells_what_others_change_and_not_what_it_passes_over() {
    with_netlink("a_monitor_tells_what_others_change_and_not_what_it_passes_over", |netlink| async move {
        let (mut bulk, mut others) = (Bulk::open().unwrap(), Bulk::open().unwrap());
        let mut all = Monitor::open(ALL).unwrap();
        let only = |passed| Topics { routes: Some(passed), addresses: false, links: false, rules: false };
        let mut not_own = Monitor::open(only(Passed::Own)).unwrap();
        let mut not_mine = Monitor::open(only(Passed::AskedBy(bulk.port()))).unwrap();
        let tun = Tun::open(&TunOptions::new("t0")).unwrap();
        netlink.add_address(tun.index(), net("10.9.0.1/24")).await.unwrap();
        netlink.set_up(tun.index(), true).await.unwrap();
        let seen = told(&mut all);
        for what in ["+ t0 down", "+ t0 up", "+ 10.9.0.1/24", "+ 10.9.0.0/24 by 2"] {
            assert!(seen.iter().any(|line| line == what), "no {what:?} in {seen:?}");
        }
        assert!(told(&mut not_own).contains(&"+ 10.9.0.0/24 by 2".to_owned()));
        told(&mut not_mine);

        let route = Route::through(tun.index(), net("10.1.0.0/16"));
        one(&mut bulk, Write::Add(route.clone()));
        one(&mut others, Write::Replace(Route { mtu: Some(1_400), ..route.clone() }));
        one(&mut others, Write::Remove(route.place()));
        let expected = ["+ 10.1.0.0/16 by 83", "= 10.1.0.0/16 by 83", "- 10.1.0.0/16 by 83"];
        assert_eq!(told(&mut all), expected);
        assert_eq!(told(&mut not_own), [""; 0]);
        assert_eq!(told(&mut not_mine), expected[1..]);

        drop(tun);
        let seen = told(&mut all);
        assert!(seen.contains(&"- t0".to_owned()) && seen.contains(&"- 10.9.0.1/24".to_owned()), "{seen:?}");
        let mut watch = netlink.monitor().unwrap();
        let lo = netlink.link("lo").await.unwrap().unwrap().index;
        let (change, done) = futures_util::future::join(watch.changed(), netlink.set_up(lo, true)).await;
        done.unwrap();
        assert!(matches!(change.unwrap(), Change::Link(link) if link.name == "lo" && link.up));
        while watch.next_waiting().unwrap().is_some() {}
        let nothing = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    });
}

/// As many routes as one wants, from 16.0.0.0/32 on.
fn many(device: u32, count: u32) -> impl Iterator<Item = Route> {
    let first = u32::from(Ipv4Addr::new(16, 0, 0, 0));
    (0..count).map(move |n| Route::through(device, IpNet::V4(Ipv4Net::new((first + n).into(), 32).unwrap())))
}

#[test]
fn a_monitor_that_nobody_reads_says_that_something_was_lost_and_goes_on() {
    with_netlink("a_monitor_that_nobody_reads_says_that_something_was_lost_and_goes_on", |netlink| async move {
        let (a, _b) = two(&netlink).await;
        let mut monitor = Monitor::open(ALL).unwrap();
        let mut bulk = Bulk::open().unwrap();
        let writes: Vec<_> = many(a.index(), 60_000).map(Write::Add).collect();
        assert_eq!(bulk.write(&writes).unwrap(), []);
        assert!(told(&mut monitor).contains(&"overrun".to_owned()));
        one(&mut bulk, Write::Add(Route::through(a.index(), net("10.1.0.0/16"))));
        assert_eq!(told(&mut monitor), ["+ 10.1.0.0/16 by 83"]);
    });
}

#[test]
#[ignore = "a measurement; it takes a gigabyte of kernel memory"]
fn a_million_routes() {
    as_root("a_million_routes", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let a = runtime.block_on(async { two(&Netlink::open().unwrap()).await.0 });
        let clock = os::clock::Clock::start();
        let mut bulk = Bulk::open().unwrap();
        let mut last = clock.now();
        let mut lap = |what: &str| {
            let now = clock.now();
            let _ = writeln!(std::io::stderr(), "{what}: {:?}", now - last);
            last = now;
        };
        let writes: Vec<_> = many(a.index(), 1_000_000).map(Write::Add).collect();
        lap("made");
        assert_eq!(bulk.write(&writes).unwrap(), []);
        lap("added");
        let mut count = 0;
        bulk.routes(ours(), |_, _| count += 1).unwrap();
        assert_eq!(count, 1_000_000);
        lap("listed");
        let writes: Vec<_> = writes.iter().map(|write| Write::Remove(write.place())).collect();
        assert_eq!(bulk.write(&writes).unwrap(), []);
        lap("removed");
    });
}
