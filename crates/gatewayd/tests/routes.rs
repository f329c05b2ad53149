//! Routes into a real kernel, in a network namespace of its own, while others meddle with them by `ip`.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use gatewayd::routes::{Event, Farewell, Hop, Path, Place, RouteKind, Routes, Standing};
use ipnet::{IpNet, Ipv4Net};
use os::netlink::{Bulk, Filter, Netlink, TABLE_MAIN};
use os::netns::Namespace;
use os::tun::{Tun, TunOptions};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// Runs `test` in a namespace with two devices, a (10.8.1.1/24, fd08:1::1/64) and b (the same with 2), or says why not.
fn with_devices(name: &str, test: impl AsyncFnOnce(Tun, Tun) + Send) {
    let namespace = match Namespace::new() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let _ = writeln!(io::stderr(), "left out: {name}: it needs the right to make network namespaces");
            return;
        }
        namespace => namespace.unwrap(),
    };
    namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::open().unwrap();
                let (a, b) = (device(&netlink, "a", 1).await, device(&netlink, "b", 2).await);
                timeout(Duration::from_secs(120), test(a, b)).await.unwrap();
            });
        })
        .unwrap();
}

async fn device(netlink: &Netlink, name: &str, number: u8) -> Tun {
    let tun = Tun::open(&TunOptions::new(name)).unwrap();
    for net in [format!("10.8.{number}.1/24"), format!("fd08:{number}::1/64")] {
        netlink.add_address(tun.index(), net.parse().unwrap()).await.unwrap();
    }
    netlink.set_up(tun.index(), true).await.unwrap();
    tun
}

fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The routes with our number, as `ip` tells them, each on a line with single spaces.
fn shown(family: &str) -> Vec<String> {
    let text = ip(&format!("{family} -o route show table all proto 83"));
    let mut lines: Vec<_> =
        text.lines().map(|line| line.replace('\\', "").split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

/// Waits until `is` holds.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = timeout(SOON, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: {:?} {:?}", shown("-4"), shown("-6"));
}

async fn told(events: &mut Receiver<Event>) -> Event {
    timeout(SOON, events.recv()).await.unwrap().unwrap()
}

fn place(destination: &str) -> Place {
    Place::new(TABLE_MAIN, destination.parse().unwrap(), 20)
}

fn both() -> Path {
    Path::over(vec![Hop::through("a"), Hop::through("b")])
}

#[test]
fn routes_come_and_go_in_both_families_and_nothing_is_left_at_the_end() {
    with_devices("routes_come_and_go_in_both_families_and_nothing_is_left_at_the_end", async |_a, _b| {
        let (routes, _events) = Routes::start(Duration::ZERO).unwrap();
        for (destination, source) in [("10.1.0.0/16", "10.8.1.1"), ("fd10::/32", "fd08:1::1")] {
            assert_eq!(routes.apply(place(destination), both()).await, Standing::InPlace);
            let source = Path { source: Some(source.parse().unwrap()), ..Path::through("a") };
            assert_eq!(routes.apply(place(destination), source).await, Standing::InPlace);
            let unreachable = Path::nowhere(RouteKind::Unreachable);
            assert_eq!(
                routes.apply(Place { table: 1_000, ..place(destination) }, unreachable).await,
                Standing::InPlace
            );
        }
        assert_eq!(
            shown("-4"),
            ["10.1.0.0/16 dev a scope link src 10.8.1.1 metric 20", "unreachable 10.1.0.0/16 table 1000 metric 20"]
        );
        let v6 = shown("-6");
        assert!(v6[0].starts_with("fd10::/32 dev a src fd08:1::1 metric 20"), "{v6:?}");
        assert!(v6[1].starts_with("unreachable fd10::/32 dev lo table 1000 metric 20"), "{v6:?}");
        routes.withdraw(place("10.1.0.0/16")).await;
        assert_eq!(shown("-4").len(), 1);
        let refused =
            Path::over(vec![Hop { device: None, gateway: Some([203, 0, 113, 1].into()), ..Hop::through("") }]);
        let standing = routes.apply(place("10.2.0.0/16"), refused).await;
        assert!(matches!(&standing, Standing::Refused(why) if why.contains("gateway")), "{standing:?}");
        routes.end(Farewell::Remove).await;
        assert_eq!((shown("-4"), shown("-6")), (vec![], vec![]));
    });
}

#[test]
fn routes_that_somebody_deletes_are_put_back_and_told() {
    with_devices("routes_that_somebody_deletes_are_put_back_and_told", async |_a, _b| {
        let (routes, mut events) = Routes::start(Duration::ZERO).unwrap();
        let all = ["10.1.0.0/16", "10.2.0.0/16", "fd10::/32"];
        for destination in all {
            assert_eq!(routes.apply(place(destination), both()).await, Standing::InPlace);
        }
        ip("route del 10.1.0.0/16");
        ip("-6 route flush proto 83");
        until("put back", || shown("-4").len() == 2 && shown("-6").len() == 1).await;
        let mut back = 0;
        while back < 2 {
            let Event::PutBack { routes, .. } = told(&mut events).await else { panic!("another event") };
            back += routes;
        }
        // Changed is as bad as deleted; the second time it takes a second.
        ip("route change 10.1.0.0/16 metric 20 dev a proto 83 mtu 1300");
        until("changed back", || !shown("-4").concat().contains("1300")).await;
        assert_eq!(told(&mut events).await, Event::PutBack { routes: 1, example: place(all[0]) });
        routes.end(Farewell::Remove).await;
        assert!(shown("-4").is_empty());
    });
}

#[test]
fn a_source_address_that_goes_takes_its_routes_and_brings_them_back() {
    with_devices("a_source_address_that_goes_takes_its_routes_and_brings_them_back", async |_a, _b| {
        let (routes, mut events) = Routes::start(Duration::ZERO).unwrap();
        let path = Path { source: Some([10, 8, 2, 1].into()), ..Path::through("a") };
        assert_eq!(routes.apply(place("10.1.0.0/16"), path).await, Standing::InPlace);
        ip("address del 10.8.2.1/24 dev b");
        assert!(shown("-4").is_empty(), "the kernel has dropped it, without a word");
        let event = told(&mut events).await;
        assert!(matches!(event, Event::Refused { routes: 1, .. }), "{event}");
        ip("address add 10.8.2.1/24 dev b");
        until("back", || shown("-4").len() == 1).await;
        assert_eq!(told(&mut events).await, Event::PutBack { routes: 1, example: place("10.1.0.0/16") });
        routes.end(Farewell::Remove).await;
    });
}

#[test]
fn a_device_that_goes_leaves_the_other_way_and_comes_back() {
    with_devices("a_device_that_goes_leaves_the_other_way_and_comes_back", async |a, _b| {
        let netlink = Netlink::open().unwrap();
        let (routes, mut events) = Routes::start(Duration::ZERO).unwrap();
        for destination in ["10.1.0.0/16", "fd10::/32"] {
            assert_eq!(routes.apply(place(destination), both()).await, Standing::InPlace);
        }
        assert_eq!(routes.apply(place("10.2.0.0/16"), Path::through("a")).await, Standing::InPlace);
        drop(a);
        assert_eq!(told(&mut events).await, Event::DeviceGone { device: "a".into(), routes: 3 });
        routes.settled().await;
        assert_eq!(shown("-4"), ["10.1.0.0/16 dev b scope link metric 20"]);
        assert!(shown("-6")[0].starts_with("fd10::/32 dev b metric 20"), "{:?}", shown("-6"));
        // Wanted before it is up, and before it is there.
        let _a = device(&netlink, "a", 1).await;
        routes.settled().await;
        assert_eq!(routes.apply(place("10.3.0.0/16"), Path::through("a")).await, Standing::InPlace);
        assert_eq!(shown("-4").len(), 3);
        assert!(shown("-4")[0].contains("dev a") && shown("-4")[0].contains("dev b"), "{:?}", shown("-4"));
        until("both", || shown("-6")[0].contains("dev a")).await;
        ip("link set dev a down");
        routes.settled().await;
        assert_eq!(shown("-4"), ["10.1.0.0/16 dev b scope link metric 20"]);
        ip("link set dev a up");
        routes.settled().await;
        assert_eq!(shown("-4").len(), 3);
        assert_eq!(routes.apply(place("10.4.0.0/16"), Path::through("c")).await, Standing::Waits);
        routes.end(Farewell::Remove).await;
        assert!(shown("-4").is_empty());
    });
}

#[test]
fn a_route_of_somebody_else_is_named_and_left_alone() {
    with_devices("a_route_of_somebody_else_is_named_and_left_alone", async |_a, _b| {
        let (routes, mut events) = Routes::start(Duration::ZERO).unwrap();
        for (family, destination) in [("-4", "10.1.0.0/16"), ("-6", "fd10::/32")] {
            ip(&format!("{family} route add {destination} dev b metric 20 proto bird"));
            assert!(matches!(routes.apply(place(destination), both()).await, Standing::InTheWay(_)));
            let example = place(destination);
            assert_eq!(told(&mut events).await, Event::InTheWay { routes: 1, example, protocol: 12 });
            ip(&format!("{family} route del {destination} dev b metric 20 proto bird"));
            routes.settled().await;
            assert_eq!(shown(family).len(), 1, "ours comes when theirs goes");
            ip(&format!("{family} route replace {destination} dev b metric 20 proto bird"));
            assert_eq!(told(&mut events).await, Event::InTheWay { routes: 1, example, protocol: 12 });
            routes.withdraw(example).await;
            assert!(ip(&format!("{family} route show proto bird")).contains(destination));
        }
        routes.end(Farewell::Remove).await;
        assert!(ip("route show proto bird").contains("10.1.0.0/16"));
    });
}

#[test]
fn what_a_killed_process_left_is_taken_over_without_a_gap() {
    with_devices("what_a_killed_process_left_is_taken_over_without_a_gap", async |_a, _b| {
        let (routes, _) = Routes::start(Duration::ZERO).unwrap();
        for destination in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd10::/32"] {
            assert_eq!(routes.apply(place(destination), both()).await, Standing::InPlace);
        }
        // As far as the kernel can tell, this is no different from SIGKILL.
        routes.end(Farewell::Leave).await;
        assert_eq!((shown("-4").len(), shown("-6").len()), (3, 1));

        let mut monitor =
            Command::new("ip").args(["-o", "monitor", "route"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (routes, mut events) = Routes::start(Duration::from_secs(1)).unwrap();
        assert_eq!(told(&mut events).await, Event::Adopted { routes: 4 });
        assert_eq!(routes.apply(place("10.1.0.0/16"), both()).await, Standing::InPlace);
        assert_eq!(routes.apply(place("fd10::/32"), both()).await, Standing::InPlace);
        assert_eq!(routes.apply(place("10.2.0.0/16"), Path::through("b")).await, Standing::InPlace);
        assert_eq!(routes.counts().await.unclaimed, 1);
        assert_eq!(shown("-4").len(), 3);
        assert_eq!(told(&mut events).await, Event::Swept { routes: 1, example: place("10.3.0.0/16") });
        routes.settled().await;
        assert_eq!(shown("-4").len(), 2);
        tokio::time::sleep(Duration::from_millis(200)).await;
        monitor.kill().unwrap();
        let seen = monitor.wait_with_output().unwrap().stdout;
        let seen = String::from_utf8(seen).unwrap();
        let lines: Vec<_> = seen.lines().filter(|line| line.contains("10.") || line.contains("fd10")).collect();
        assert_eq!(lines.len(), 2, "one is changed and one removed, no more: {lines:?}");
        assert!(lines[1].starts_with("Deleted 10.3.0.0/16"), "{lines:?}");
        routes.end(Farewell::Remove).await;
        assert!(shown("-4").is_empty());
    });
}

fn many(count: u32, device: &str) -> Vec<(Place, Option<Path>)> {
    let first = u32::from(Ipv4Addr::new(16, 0, 0, 0));
    let net = |n: u32| IpNet::V4(Ipv4Net::new((first + n).into(), 32).unwrap());
    (0..count).map(|n| (Place::new(TABLE_MAIN, net(n), 20), Some(Path::through(device)))).collect()
}

fn how_many() -> usize {
    let mut count = 0;
    Bulk::open().unwrap().routes(Filter::own(), |_, _| count += 1).unwrap();
    count
}

#[test]
fn many_routes_keep_nobody_waiting() {
    with_devices("many_routes_keep_nobody_waiting", async |_a, _b| {
        let (routes, _events) = Routes::start(Duration::ZERO).unwrap();
        routes.change(many(50_000, "a"));
        routes.settled().await;
        assert_eq!(how_many(), 50_000);
        // They move; and so many changes by somebody else at once overrun the monitor.
        routes.change(many(50_000, "b"));
        routes.settled().await;
        ip("route flush proto 83");
        until("put back", || how_many() == 50_000).await;
        assert_eq!(routes.counts().await.in_place, 50_000);
        routes.end(Farewell::Remove).await;
        assert_eq!(how_many(), 0);
    });
}

#[test]
#[ignore = "a measurement; it takes a gigabyte of kernel memory"]
fn a_million_routes() {
    with_devices("a_million_routes", async |_a, _b| {
        let clock = os::clock::Clock::start();
        let mut last = clock.now();
        let mut lap = |what: &str| {
            let (now, used) = (clock.now(), os::process::usage(std::process::id()).unwrap().resident >> 20);
            let _ = writeln!(io::stderr(), "{what}: {:?}, {used} MB", now - last);
            last = now;
        };
        let (routes, _events) = Routes::start(Duration::ZERO).unwrap();
        routes.settled().await;
        lap("started");
        let changes = many(1_000_000, "a");
        lap("made");
        routes.change(changes);
        lap("told");
        routes.settled().await;
        lap("in place");
        ip("link set dev b down");
        routes.settled().await;
        lap("a device that matters to none went down");
        routes.change(many(1_000_000, "a"));
        routes.settled().await;
        lap("told once more");
        routes.end(Farewell::Leave).await;
        lap("left");
        let (routes, mut events) = Routes::start(Duration::from_secs(60)).unwrap();
        told(&mut events).await;
        lap("adopted");
        routes.change(many(1_000_000, "a"));
        routes.settled().await;
        lap("wanted again");
        routes.end(Farewell::Remove).await;
        lap("removed");
    });
}

/// The devices that flows from these ports take to an address.
fn ways(to: &str) -> Vec<String> {
    let way = |port: u16| {
        let text = ip(&format!("route get {to} ipproto udp sport {port} dport 53"));
        text.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned()
    };
    (1_000..1_060).map(way).collect()
}

/// How many flows took another way. On a busy machine one of 60 was seen to move when a way came back; of three ways in a plain
/// route it would be 20.
fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// More than that are no accident.
const FEW: usize = 3;

#[test]
fn flows_stay_on_their_way_when_another_goes_and_when_it_comes_back() {
    with_devices("flows_stay_on_their_way_when_another_goes_and_when_it_comes_back", async |_a, _b| {
        for family in ["ipv4", "ipv6"] {
            os::sysctl::write(&format!("net/{family}/fib_multipath_hash_policy"), "1").unwrap();
        }
        let netlink = Netlink::open().unwrap();
        let _c = device(&netlink, "c", 3).await;
        let (routes, _events) = Routes::start(Duration::ZERO).unwrap();
        let over = |devices: &[&str]| Path {
            keeps_flows: true,
            ..Path::over(devices.iter().map(|name| Hop::through(*name)).collect())
        };
        for (destination, to) in [("10.1.0.0/16", "10.1.2.3"), ("fd10::/32", "fd10::1")] {
            let place = place(destination);
            for first in [&["a"][..], &["a", "b", "c"]] {
                assert_eq!(routes.apply(place, over(first)).await, Standing::InPlace);
            }
            let before = ways(to);
            for device in ["a", "b", "c"] {
                assert!(before.iter().filter(|way| *way == device).count() > 5, "{before:?}");
            }
            assert_eq!(routes.apply(place, over(&["a", "c"])).await, Standing::InPlace);
            let less = ways(to);
            for (way, now) in before.iter().zip(&less) {
                assert!(if way == "b" { now != "b" } else { now == way }, "{before:?} {less:?}");
            }
            assert_eq!(routes.apply(place, over(&["a", "b", "c"])).await, Standing::InPlace);
            assert!(moved(&less, &ways(to)) <= FEW, "none is idle");
            // One way is a group too: what comes back then finds flows that stay.
            assert_eq!(routes.apply(place, over(&["c"])).await, Standing::InPlace);
            let one = ways(to);
            assert!(one.iter().all(|way| way == "c"));
            assert_eq!(routes.apply(place, over(&["b", "c"])).await, Standing::InPlace);
            assert!(moved(&one, &ways(to)) <= FEW);
        }
        // Another process follows, and knows the groups.
        routes.end(Farewell::Leave).await;
        let (routes, _events) = Routes::start(Duration::from_secs(60)).unwrap();
        for (destination, to) in [("10.1.0.0/16", "10.1.2.3"), ("fd10::/32", "fd10::1")] {
            assert_eq!(routes.apply(place(destination), over(&["b", "c"])).await, Standing::InPlace);
            let before = ways(to);
            assert_eq!(routes.apply(place(destination), over(&["a", "b", "c"])).await, Standing::InPlace);
            assert!(moved(&before, &ways(to)) <= FEW);
        }
        // A device that is set down takes its next hops along, and what is left goes on.
        ip("link set dev c down");
        until("the other ways", || shown("-4").concat().contains("dev b") && shown("-6").concat().contains("dev b"))
            .await;
        ip("link set dev c up");
        until("all ways", || shown("-4").concat().contains("dev c") && shown("-6").concat().contains("dev c")).await;
        assert_eq!(routes.counts().await.in_place, 2);
        routes.end(Farewell::Remove).await;
        assert_eq!((shown("-4"), shown("-6")), (vec![], vec![]));
        assert!(!ip("nexthop").contains("group"), "{}", ip("nexthop"));
        // Where the ways of a group could not be seen there is none.
        os::sysctl::write("net/ipv4/nexthop_compat_mode", "0").unwrap();
        let (routes, _events) = Routes::start(Duration::ZERO).unwrap();
        assert_eq!(routes.apply(place("10.1.0.0/16"), over(&["a", "b"])).await, Standing::InPlace);
        assert!(shown("-4").concat().contains("nexthop dev b") && !ip("nexthop").contains("group"));
        routes.end(Farewell::Remove).await;
    });
}
