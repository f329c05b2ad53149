//! Two data paths with a hand-made pair of SAs, each in a network namespace of its own, joined by a veth. It needs
//! root; without, each test says that it is left out.
//!
//! ```text
//! namespace A                                     namespace B
//! 10.1.0.1, fd01::1 -- simplon0 -- worker == veth == worker -- simplon0 -- 10.2.0.1, fd02::1
//! ```

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test picks the reports it is about")]
#![expect(clippy::disallowed_methods, reason = "packets of the kernel are on their way for a while")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::algorithm::{Encryption, Integrity};
use gateway::PolicyChange;
use gatewayd::data::{self, Handle, Offloads, Options, Order, Report, Reports};
use ipnet::IpNet;
use model::{DfPolicy, Ports, Routing, Selector};
use os::clock::Clock;
use os::netlink::{Netlink, Route};
use os::netns::Namespace;
use os::tun::{Tun, TunOptions};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaChange, SaId, Spi};

const GCM: ChildSuite = ChildSuite { encryption: Encryption::Aes128Gcm, integrity: None, esn: false };
const CBC: ChildSuite = ChildSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::Sha1), esn: false };

/// One end.
struct Site {
    namespace: Namespace,
    handle: Handle,
    reports: Reports,
    workers: Vec<JoinHandle<()>>,
}

/// What the two ends are like.
#[derive(Clone)]
struct Setup {
    suite: ChildSuite,
    udp: bool,
    routing: Routing,
    /// Outer addresses, and their MTU.
    outer: [IpAddr; 2],
    outer_mtu: u32,
    /// MTU of the TUN devices.
    inner_mtu: u32,
    df: DfPolicy,
    offloads: Offloads,
    workers: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            suite: GCM,
            udp: true,
            routing: Routing::Policy,
            outer: [ip("192.0.2.1"), ip("192.0.2.2")],
            outer_mtu: 1500,
            inner_mtu: 1500,
            df: DfPolicy::Honour,
            offloads: Offloads::Auto,
            workers: 1,
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn left_out(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "left out: {test}: {why}");
}

/// Leave to run a test, one at a time so that they do not disturb each other; without root it says that it is left out.
fn leave(test: &str) -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if let Err(e) = Namespace::new() {
        left_out(test, &format!("it needs root: {e}"));
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn keys(suite: ChildSuite, seed: u8) -> DirectionKeys {
    let bytes = |len: usize, from: u8| (0..len).map(|i| from.wrapping_add(i as u8)).collect::<Vec<_>>();
    let encryption = suite.encryption.key_len() + suite.encryption.salt_len();
    let integrity = suite.integrity.map_or(0, Integrity::key_len);
    DirectionKeys { encryption: bytes(encryption, seed).into(), integrity: bytes(integrity, !seed).into() }
}

fn label() -> ChildLabel {
    ChildLabel { connection: "alps".into(), child: "alps".into() }
}

/// The SA of one end; `id` is the same at both.
fn child(setup: &Setup, end: usize, id: u64) -> ChildSa {
    let nets: [Vec<_>; 2] = match setup.routing {
        Routing::Policy => [["10.1.0.0/16", "fd01::/16"], ["10.2.0.0/16", "fd02::/16"]]
            .map(|nets| nets.iter().map(|n| Selector::net(net(n)).into()).collect()),
        Routing::Device { .. } => {
            [(); 2].map(|()| ["0.0.0.0/0", "::/0"].iter().map(|n| Selector::net(net(n)).into()).collect())
        }
    };
    let spis = [0x1000 + id as u32 * 2, 0x1001 + id as u32 * 2].map(Spi);
    let seeds = [id as u8, id as u8 ^ 0x80];
    let other = 1 - end;
    let port = if setup.udp { 4500 } else { 0 };
    let [local, remote] = [end, other].map(|end| SocketAddr::new(setup.outer[end], port));
    ChildSa {
        id: SaId(id),
        label: label(),
        inbound_spi: spis[end],
        outbound_spi: spis[other],
        suite: setup.suite,
        keys: ChildKeys { inbound: keys(setup.suite, seeds[end]), outbound: keys(setup.suite, seeds[other]) },
        path: Path { local, remote, udp: setup.udp },
        local: nets[end].clone(),
        remote: nets[other].clone(),
        routing: setup.routing.clone(),
        limits: Limits::default(),
        replay_window: 2048,
        df: setup.df,
        copy_dscp: false,
        mtu: None,
        mss: None,
    }
}

fn policy(setup: &Setup, end: usize) -> esp::Policy {
    let ChildSa { label, local, remote, routing, .. } = child(setup, end, 1);
    esp::Policy { label, local, remote, routing }
}

/// Runs netlink work in a namespace.
fn netlink<F: Future<Output = ()>>(namespace: &Namespace, work: impl FnOnce(Netlink) -> F + Send) {
    namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(Netlink::open().unwrap()).await });
        })
        .unwrap();
}

/// Both ends, with devices, addresses and routes; no SA yet.
fn sites(setup: &Setup) -> [Site; 2] {
    let namespaces = [(); 2].map(|()| Namespace::new().unwrap());
    veth(&namespaces);
    let mut end = 0;
    let sites = namespaces.map(|namespace| {
        let site = site(setup, namespace, end);
        end += 1;
        site
    });
    // A veth carries packets a moment after it is set up.
    let far = setup.outer[1].to_string();
    assert!((0..20).any(|_| sites[0].ping(&["-c", "1", &far])), "the way between the sites");
    sites
}

/// A veth between the two, by `ip` in the second, which has the first as its parent's target.
fn veth([a, b]: &[Namespace; 2]) {
    // Both ends are made in A; B's end is moved there by the number of a process that lives in B.
    let mut there = b.run(|| Command::new("sleep").arg("30").spawn().unwrap()).unwrap();
    let pid = there.id().to_string();
    let made = a.run(|| run("ip", &["link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", &pid]));
    assert!(made.unwrap().status.success());
    there.kill().unwrap();
    there.wait().unwrap();
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn site(setup: &Setup, namespace: Namespace, end: usize) -> Site {
    let inner = [["10.1.0.1/24", "fd01::1/64"], ["10.2.0.1/24", "fd02::1/64"]][end];
    let far = [["10.2.0.0/16", "fd02::/16"], ["10.1.0.0/16", "fd01::/16"]][end];
    let name = match &setup.routing {
        Routing::Policy => gateway::plan::SHARED_DEVICE,
        Routing::Device { name, .. } => name,
    };
    let options = TunOptions { multi_queue: setup.workers > 1, ..TunOptions::new(name) };
    let tun = namespace.run(|| Tun::open(&options).unwrap()).unwrap();
    let index = tun.index();
    netlink(&namespace, |netlink| async move {
        let lo = netlink.link("lo").await.unwrap().unwrap().index;
        let wan = netlink.link("wan").await.unwrap().unwrap().index;
        let length = if setup.outer[end].is_ipv4() { 24 } else { 64 };
        netlink.add_address(wan, IpNet::new(setup.outer[end], length).unwrap()).await.unwrap();
        netlink.set_mtu(wan, setup.outer_mtu).await.unwrap();
        netlink.set_mtu(index, setup.inner_mtu).await.unwrap();
        netlink.set_tx_queue_len(index, 1000).await.unwrap();
        for link in [lo, wan, index] {
            netlink.set_up(link, true).await.unwrap();
        }
        for address in inner {
            netlink.add_address(index, net(address)).await.unwrap();
        }
        for destination in far {
            netlink.add_route(&Route::through(index, net(destination))).await.unwrap();
        }
    });
    let (clock, offloads, workers) = (Clock::start(), setup.offloads, setup.workers);
    let options = Options { listen: vec![], ports: Ports::default(), clock, offloads, workers };
    let data::Running { handle, reports, workers } = namespace.run(|| data::start(&options).unwrap()).unwrap();
    let policy = PolicyChange::Install(policy(setup, end));
    // More queues of the device are opened where it is.
    namespace.run(|| handle.send([Order::Policy(policy), Order::AddDevice(tun)])).unwrap();
    Site { namespace, handle, reports, workers }
}

/// Both ends with an SA that is in use.
fn tunnel(setup: &Setup) -> [Site; 2] {
    let sites = sites(setup);
    for (end, site) in sites.iter().enumerate() {
        let child = Box::new(child(setup, end, 1));
        site.handle.send([Order::Sa(SaChange::Install(child)), Order::Sa(SaChange::Activate(SaId(1)))]);
    }
    sites
}

impl Site {
    /// Runs a program in this site.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.namespace.run(|| run(program, arguments)).unwrap()
    }

    fn ping(&self, arguments: &[&str]) -> bool {
        self.run("ping", &[&["-n", "-W", "1", "-i", "0.01"], arguments].concat()).status.success()
    }

    fn snapshot(&self) -> data::Snapshot {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.handle.snapshot()).unwrap()
    }

    /// The reports so far that `pick` picks.
    fn reports<T>(&mut self, mut pick: impl FnMut(Report) -> Option<T>) -> Vec<T> {
        std::iter::from_fn(|| self.reports.try_recv()).filter_map(&mut pick).collect()
    }

    fn stop(mut self) -> Vec<Report> {
        self.handle.send([Order::Stop]);
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
        self.reports(Some)
    }
}

#[test]
fn a_ping_passes_in_both_families_plain_and_in_udp() {
    let name = "a_ping_passes_in_both_families_plain_and_in_udp";
    let Some(_alone) = leave(name) else { return };
    let v6 = [ip("2001:db8::1"), ip("2001:db8::2")];
    let own = Routing::Device { name: "vti7".into(), addresses: vec![], routes: vec![], mark: None };
    let base = Setup::default();
    for (what, setup) in [
        ("in UDP", base.clone()),
        ("plain", Setup { udp: false, suite: CBC, ..base.clone() }),
        ("in UDP over IPv6", Setup { outer: v6, suite: CBC, ..base.clone() }),
        ("plain over IPv6", Setup { outer: v6, udp: false, ..base.clone() }),
        ("with a device of its own", Setup { routing: own, ..base.clone() }),
        ("one packet at a time", Setup { offloads: Offloads::Off, ..base.clone() }),
        ("three workers", Setup { workers: 3, ..base.clone() }),
        ("three workers, plain", Setup { workers: 3, udp: false, ..base.clone() }),
    ] {
        let [a, mut b] = tunnel(&setup);
        assert!(a.ping(&["-c", "5", "10.2.0.1"]), "{what}");
        assert!(b.ping(&["-c", "5", "fd01::1"]), "{what}");
        let snapshot = a.snapshot();
        let traffic = &snapshot.sas[&SaId(1)];
        assert!(traffic.outbound.packets >= 10 && traffic.inbound.packets >= 10, "{what}: {traffic:?}");
        assert_eq!(traffic.sequence_sent, traffic.outbound.packets, "{what}");
        assert_eq!(traffic.replay_bitmap & 0x3ff, 0x3ff, "{what}");
        assert!(traffic.outbound.dropped.is_empty() && traffic.inbound.dropped.is_empty(), "{what}: {traffic:?}");
        let reports = b.reports(Some);
        let first = Report::Esp(esp::Event::FirstInbound(SaId(1)));
        assert_eq!(reports.iter().filter(|report| **report == first).count(), 1, "{what}");
        assert!(reports.iter().any(|r| matches!(r, Report::Alive { id: SaId(1), .. })), "{what}");
        assert_eq!(a.stop().last(), Some(&Report::Ended(None)));
    }
}

#[test]
fn without_an_sa_nothing_leaves_and_one_is_asked_for() {
    let Some(_alone) = leave("without_an_sa_nothing_leaves_and_one_is_asked_for") else { return };
    let setup = Setup::default();
    let [mut a, b] = sites(&setup);
    let wan = b.namespace.spawn("sniff", || {
        let socket = UdpSocket::bind("192.0.2.2:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.recv(&mut [0; 100]).is_err()
    });
    assert!(!a.ping(&["-c", "3", "10.2.0.1"]));
    assert!(wan.unwrap().join().unwrap().unwrap());
    let asked = a.reports(|report| match report {
        Report::Esp(esp::Event::NoSa { label, flow }) => Some((label, flow.destination)),
        _ => None,
    });
    assert_eq!(asked.first(), Some(&(label(), ip("10.2.0.1"))));
    assert!(a.snapshot().rest.dropped["no_sa"] >= 3);
    // The packet that waits is not kept, but the next one passes.
    for (end, site) in [&a, &b].into_iter().enumerate() {
        let child = Box::new(child(&setup, end, 1));
        site.handle.send([Order::Sa(SaChange::Install(child)), Order::Sa(SaChange::Activate(SaId(1)))]);
    }
    assert!(a.ping(&["-c", "1", "10.2.0.1"]));
}

#[test]
fn a_packet_that_is_too_large_is_answered_or_cut_as_the_sa_says() {
    let Some(_alone) = leave("a_packet_that_is_too_large_is_answered_or_cut_as_the_sa_says") else { return };
    // 1438 bytes fit (esp::wire): 1410 of payload behind 28 of headers.
    let [a, _b] = tunnel(&Setup::default());
    assert!(a.ping(&["-c", "1", "-M", "dont", "-s", "3000", "10.2.0.1"]), "cut before encryption");
    assert!(a.ping(&["-c", "1", "-M", "do", "-s", "1410", "10.2.0.1"]));
    let refused = a.run("ping", &["-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1411", "10.2.0.1"]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("mtu = 1438") || said.contains("mtu=1438"), "{said}");
    assert!(a.ping(&["-c", "1", "-s", "1390", "fd02::1"]), "1438 bytes of IPv6");
    assert!(a.ping(&["-c", "9", "-M", "want", "-s", "1400", "fd02::1"]), "the host has learnt to fragment");
    let traffic = &a.snapshot().sas[&SaId(1)];
    assert!(traffic.fragmented >= 1 && traffic.too_big_sent >= 2, "{traffic:?}");

    let [a, _b] = tunnel(&Setup { df: DfPolicy::Clear, ..Setup::default() });
    assert!(a.ping(&["-c", "1", "-M", "do", "-s", "1472", "10.2.0.1"]), "cut though the sender forbade it");
    assert!(a.snapshot().sas[&SaId(1)].fragments_created >= 2);
    assert!(a.snapshot().sas[&SaId(1)].inner_fragments >= 2, "the answer was cut too");
}

#[test]
fn a_narrow_path_is_learnt_from_what_the_kernel_refuses() {
    let Some(_alone) = leave("a_narrow_path_is_learnt_from_what_the_kernel_refuses") else { return };
    for udp in [true, false] {
        let setup = Setup { outer_mtu: 1300, udp, ..Setup::default() };
        let [mut a, b] = tunnel(&setup);
        assert!(a.ping(&["-c", "1", "-s", "1200", "10.2.0.1"]));
        // The first too large one goes out in fragments; the next is answered.
        assert!(a.ping(&["-c", "1", "-M", "do", "-s", "1350", "10.2.0.1"]));
        let learnt = a.reports(|report| match report {
            Report::PathMtu { remote, mtu } => Some((remote, mtu)),
            _ => None,
        });
        assert_eq!(learnt, [(setup.outer[1], 1300)]);
        assert!(!a.ping(&["-c", "1", "-M", "do", "-s", "1350", "10.2.0.1"]));
        assert!(a.ping(&["-c", "1", "-M", "dont", "-s", "1350", "10.2.0.1"]));
        assert_eq!(a.snapshot().sas[&SaId(1)].path_mtu_received, 1);
        drop(b);
    }
}

#[test]
fn ike_passes_up_and_down_in_the_order_of_the_changes() {
    let Some(_alone) = leave("ike_passes_up_and_down_in_the_order_of_the_changes") else { return };
    let setup = Setup::default();
    let [a, mut b] = sites(&setup);
    let at = |end: usize, port| SocketAddr::new(setup.outer[end], port);
    let long = [&[0; 4][..], &[7; 4000]].concat();
    for (port, payload) in [(500, b"main mode".to_vec()), (4500, long.clone()), (4500, vec![0xff]), (4500, vec![1])] {
        a.handle.send([Order::Transmit(ike::Transmit {
            local: at(0, port),
            remote: at(1, port),
            payload,
            is_probe: false,
        })]);
    }
    a.snapshot();
    std::thread::sleep(Duration::from_millis(100));
    let arrived = b.reports(|report| match report {
        Report::Ike { local, remote, payload, .. } => Some((local, remote, payload)),
        _ => None,
    });
    let expected = [(at(1, 500), at(0, 500), b"main mode".to_vec()), (at(1, 4500), at(0, 4500), long)];
    assert!(arrived == expected, "{arrived:.100?}");
    assert_eq!(b.snapshot().rest.dropped["malformed_datagram"], 1, "the byte that is no keepalive");
}

#[test]
fn what_makes_no_sense_is_refused_and_a_device_that_goes_is_noticed() {
    let Some(_alone) = leave("what_makes_no_sense_is_refused_and_a_device_that_goes_is_noticed") else { return };
    let [mut a, _b] = tunnel(&Setup::default());
    a.handle.send([Order::Sa(SaChange::Activate(SaId(77)))]);
    a.snapshot();
    let refused = a.reports(|report| if let Report::Refused(why) = report { Some(why) } else { None });
    assert_eq!(refused, ["cannot activate SA 77: there is no such SA"]);
    assert!(a.run("ip", &["link", "del", "simplon0"]).status.success());
    let mut notices = Vec::new();
    for _ in 0..100 {
        notices = a.reports(|report| if let Report::Notice(text) = report { Some(text) } else { None });
        if !notices.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(notices.iter().any(|text| text.starts_with("the device simplon0 is gone")), "{notices:?}");
    a.snapshot();
}

#[test]
fn a_rekey_loses_nothing() {
    let Some(_alone) = leave("a_rekey_loses_nothing") else { return };
    for workers in [1, 3] {
        rekey_under_pings(&Setup { workers, ..Setup::default() });
    }
}

fn rekey_under_pings(setup: &Setup) {
    let [a, b] = tunnel(setup);
    let flood =
        a.namespace.spawn("flood", || run("ping", &["-n", "-q", "-c", "1000", "-i", "0.001", "-W", "1", "10.2.0.1"]));
    for id in 2..10 {
        std::thread::sleep(Duration::from_millis(100));
        for (end, site) in [&a, &b].into_iter().enumerate() {
            site.handle.send([Order::Sa(SaChange::Install(Box::new(child(setup, end, id))))]);
        }
        [&a, &b].into_iter().for_each(|site| drop(site.snapshot()));
        [&a, &b].into_iter().for_each(|site| site.handle.send([Order::Sa(SaChange::Activate(SaId(id)))]));
        [&a, &b].into_iter().for_each(|site| drop(site.snapshot()));
        std::thread::sleep(Duration::from_millis(20));
        [&a, &b].into_iter().for_each(|site| site.handle.send([Order::Sa(SaChange::Remove(SaId(id - 1)))]));
    }
    let said = String::from_utf8_lossy(&flood.unwrap().join().unwrap().unwrap().stdout).into_owned();
    assert!(said.contains(" 0% packet loss"), "{said}");
}

/// Bytes that anyone can check, wherever in a stream they stand.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Sends `total` bytes over TCP from A to B and checks each of them.
fn stream(a: &Site, b: &Site, to: &str, total: usize) {
    stream_to(a, b, SocketAddr::new(ip(to), 7000), total);
}

fn stream_to(a: &Site, b: &Site, at: SocketAddr, total: usize) {
    let listener = b.namespace.run(|| TcpListener::bind(at).unwrap()).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut got = 0;
        let mut bytes = vec![0; 100_000];
        loop {
            let len = stream.read(&mut bytes).unwrap();
            if len == 0 {
                return got;
            }
            assert!(bytes[..len] == pattern(got, len), "a byte differs near {got}");
            got += len;
        }
    });
    let mut stream = a.namespace.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(10)).unwrap()).unwrap();
    for from in (0..total).step_by(50_000) {
        stream.write_all(&pattern(from, 50_000)).unwrap();
    }
    drop(stream);
    assert_eq!(receiver.join().unwrap(), total);
}

#[test]
fn streams_arrive_byte_for_byte_with_and_without_offloads() {
    if let Some(_alone) = leave("streams_arrive_byte_for_byte_with_and_without_offloads") {
        for (what, setup) in [
            ("in UDP", Setup::default()),
            ("CBC", Setup { suite: CBC, ..Setup::default() }),
            ("plain", Setup { udp: false, ..Setup::default() }),
            ("one packet at a time", Setup { offloads: Offloads::Off, ..Setup::default() }),
        ] {
            let [a, b] = tunnel(&setup);
            stream(&a, &b, "10.2.0.1", 20_000_000);
            stream(&a, &b, "fd02::1", 5_000_000);
            let traffic = &b.snapshot().sas[&SaId(1)];
            assert!(traffic.inbound.dropped.is_empty(), "{what}: {traffic:?}");
            assert_eq!(traffic.sequence_received, traffic.inbound.packets, "{what}");
        }
    }
}

/// How often the threads of this name have waited for something.
fn waits(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name));
    let status = named.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let waits = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    status.filter_map(waits).sum()
}

#[test]
fn several_workers_share_the_flows_of_one_sa_and_each_byte_arrives() {
    if let Some(_alone) = leave("several_workers_share_the_flows_of_one_sa_and_each_byte_arrives") {
        for (what, setup) in [
            ("GCM", Setup { workers: 3, ..Setup::default() }),
            ("CBC", Setup { workers: 3, suite: CBC, ..Setup::default() }),
            ("plain", Setup { workers: 3, udp: false, ..Setup::default() }),
        ] {
            let [a, b] = tunnel(&setup);
            std::thread::scope(|scope| {
                for flow in 0..12 {
                    let (a, b, at) = (&a, &b, SocketAddr::new(ip("10.2.0.1"), 7000 + flow));
                    scope.spawn(move || stream_to(a, b, at, 2_000_000));
                }
            });
            let both = || [&a, &b].map(|site| site.snapshot().sas[&SaId(1)].clone());
            // The last acknowledgements are on their way for a while.
            let settled = (0..100).map(|_| both()).find(|[out, back]| {
                std::thread::sleep(Duration::from_millis(20));
                back.inbound.packets == out.outbound.packets && out.inbound.packets == back.outbound.packets
            });
            let [out, back] = settled.unwrap_or_else(|| panic!("{what}: packets are missing: {:?}", both()));
            assert!(back.inbound.dropped.is_empty() && out.inbound.dropped.is_empty(), "{what}: {back:?}");
            assert_eq!(out.sequence_sent, out.outbound.packets, "{what}");
            assert!(back.inbound.bytes > 24_000_000, "{what}");
            for name in ["simplon-data", "simplon-data1", "simplon-data2"] {
                assert!(waits(name) > 20, "{what}: {name} had little to do");
            }
            assert_eq!(a.stop().iter().filter(|report| **report == Report::Ended(None)).count(), 3);
        }
    }
}

#[test]
fn a_stream_gets_through_a_path_that_is_narrower_than_anyone_knew() {
    if let Some(_alone) = leave("a_stream_gets_through_a_path_that_is_narrower_than_anyone_knew") {
        for udp in [true, false] {
            // The SYN is clamped for 1,500 bytes, so that the first super-packets are too large.
            let [mut a, b] = tunnel(&Setup { outer_mtu: 1350, udp, ..Setup::default() });
            stream(&a, &b, "10.2.0.1", 5_000_000);
            let learnt = a.reports(|report| if let Report::PathMtu { mtu, .. } = report { Some(mtu) } else { None });
            assert_eq!(learnt, [1350]);
            let traffic = &a.snapshot().sas[&SaId(1)];
            assert!(traffic.too_big_sent > 0, "{traffic:?}");
        }
    }
}

#[test]
fn datagrams_of_all_sizes_arrive_whole_and_in_order() {
    if let Some(_alone) = leave("datagrams_of_all_sizes_arrive_whole_and_in_order") {
        // What does not fit is cut by the host itself.
        let [a, b] = tunnel(&Setup { suite: CBC, inner_mtu: 1422, ..Setup::default() });
        for (from, to) in [("10.1.0.1:0", "10.2.0.1:7000"), ("[fd01::1]:0", "[fd02::1]:7000")] {
            let receiver = b.namespace.run(|| UdpSocket::bind(to).unwrap()).unwrap();
            let sender = a.namespace.run(|| UdpSocket::bind(from).unwrap()).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // Runs of equal sizes, which are joined, among others.
            let len_of = |nth: usize| if nth % 40 < 25 { 200 } else { 1 + nth * 37 % 3000 };
            let mut bytes = vec![0; 4000];
            for batch in (0..4000).step_by(50) {
                for nth in batch..batch + 50 {
                    sender.send_to(&pattern(nth, len_of(nth)), to).unwrap();
                }
                for nth in batch..batch + 50 {
                    let len = receiver.recv(&mut bytes).unwrap();
                    assert!(bytes[..len] == pattern(nth, len_of(nth)), "datagram {nth}");
                }
            }
        }
    }
}

/// Not a verdict: the figures of this machine, for whoever reads the log. One stream with each suite.
#[test]
fn throughput_is_printed() {
    let name = "throughput_is_printed";
    let Some(_alone) = leave(name) else { return };
    if !is_installed("iperf3") {
        return left_out(name, "iperf3 is not installed");
    }
    let inner = |suite, udp| {
        let path = child(&Setup { suite, udp, ..Setup::default() }, 0, 1).path;
        esp::wire::inner_mtu(suite, &path, 1500) as u32
    };
    for (suite, udp, offloads) in [
        (GCM, true, Offloads::Auto),
        (CBC, true, Offloads::Auto),
        (GCM, false, Offloads::Auto),
        (GCM, true, Offloads::Off),
    ] {
        let [a, b] = tunnel(&Setup { suite, udp, offloads, inner_mtu: inner(suite, udp), ..Setup::default() });
        let mut server = b.namespace.run(|| Command::new("iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn());
        std::thread::sleep(Duration::from_millis(300));
        let cpu = || os::process::usage(std::process::id()).unwrap().cpu;
        let before = cpu();
        let out = a.run("iperf3", &["-c", "10.2.0.1", "-t", "2", "-f", "m"]);
        let used = cpu() - before;
        let gigabytes = b.snapshot().sas[&SaId(1)].inbound.bytes as f64 / 1e9;
        let ping = a.run("ping", &["-n", "-q", "-c", "500", "-i", "0.001", "10.2.0.1"]);
        let pick = |out: &Output, what: &str| {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.lines().rev().find(|line| line.contains(what)).unwrap_or_default().to_owned()
        };
        let how = if udp { "in UDP" } else { "plain" };
        let _ = writeln!(
            io::stderr(),
            "{suite} {how}, offloads {offloads:?}: {}; {:.2} CPU s per GB, both ends; {}",
            pick(&out, "receiver"),
            used.as_secs_f64() / gigabytes,
            pick(&ping, "rtt"),
        );
        let server = server.as_mut().unwrap().as_mut().unwrap();
        let _ = server.kill();
        let _ = server.wait();
    }
}
