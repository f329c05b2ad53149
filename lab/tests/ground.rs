//! The ground under the scenarios, on the real kernel. Needs root; says what it left out.

#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use lab::capture::Capture;
use lab::nat::{self, Impairment};
use lab::netns::{Lab, Node};
use lab::shell::Shell;
use lab::wire::{Inner, Tally};

/// Says what a test left out, past the test harness, which keeps what passed tests print to itself.
fn left_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {why}");
}

fn shell() -> Option<Shell> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    let found = ["/usr/sbin/ip", "/usr/sbin/nft"].iter().all(|program| Path::new(program).exists());
    if is_root && found {
        return Some(Shell::new(Box::new(std::io::sink()), false));
    }
    left_out("needs root, iproute2 and nftables");
    None
}

fn namespaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// a 192.0.2.2 -- router -- b 198.51.100.2
fn routed(lab: &Lab) -> (Node, Node, Node) {
    let [a, router, b] = ["a", "router", "b"].map(|name| lab.node(name).unwrap());
    lab.link((&a, "eth0"), (&router, "a")).unwrap();
    lab.link((&b, "eth0"), (&router, "b")).unwrap();
    a.address("eth0", "192.0.2.2/24").unwrap();
    b.address("eth0", "198.51.100.2/24").unwrap();
    router.address("a", "192.0.2.1/24").unwrap();
    router.address("b", "198.51.100.1/24").unwrap();
    router.forward().unwrap();
    a.route("default", "192.0.2.1").unwrap();
    b.route("default", "198.51.100.1").unwrap();
    (a, router, b)
}

/// How many of `count` pings were answered.
fn answered(from: &Node, to: &str, count: u32) -> u32 {
    let count = count.to_string();
    let output = from.output(&["ping", "-q", "-c", &count, "-i", "0.02", "-W", "0.5", to]).unwrap().stdout;
    let line = output.lines().find(|line| line.contains("transmitted")).unwrap();
    line.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn two_labs_stand_side_by_side_and_leave_nothing() {
    let Some(shell) = shell() else { return };
    let (one, two) = (Lab::new(&shell).unwrap(), Lab::new(&shell).unwrap());
    let ids = [one.id().to_owned(), two.id().to_owned()];
    let dirs = [one.dir().to_owned(), two.dir().to_owned()];
    for lab in [&one, &two] {
        let (a, ..) = routed(lab);
        assert_eq!(answered(&a, "198.51.100.2", 1), 1);
    }
    drop((one, two));
    assert!(!namespaces().iter().any(|name| ids.iter().any(|id| name.starts_with(id))), "{:?}", namespaces());
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn a_panic_takes_the_lab_and_its_processes_with_it() {
    let Some(shell) = shell() else { return };
    let id = std::sync::Mutex::new((String::new(), 0));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new(&shell).unwrap();
        let node = lab.node("a").unwrap();
        let process = node.spawn(&["sleep", "100"], &[], &lab.dir().join("log")).unwrap();
        *id.lock().unwrap() = (lab.id().to_owned(), process.pid());
        // Not even its handle is left to end it.
        std::mem::forget(process);
        panic!("as a failed assertion would");
    }));
    assert!(panicked.is_err());
    let (id, pid) = id.into_inner().unwrap_or_default();
    assert!(!namespaces().iter().any(|name| name.starts_with(&id)));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
}

#[test]
fn what_a_killed_lab_left_is_removed_by_the_next() {
    let Some(shell) = shell() else { return };
    // A pid that was given and is free again.
    let dead = {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let (netns, dir) = (format!("s{dead}-0-left"), std::env::temp_dir().join(format!("simplon-lab-s{dead}-0-0")));
    shell.run(&["ip", "netns", "add", &netns]).unwrap();
    std::fs::create_dir(&dir).unwrap();
    drop(Lab::new(&shell).unwrap());
    assert!(!namespaces().contains(&netns));
    assert!(!dir.exists());
}

#[test]
fn a_path_is_impaired_as_told_and_heals() {
    let Some(shell) = shell() else { return };
    let lab = Lab::new(&shell).unwrap();
    let (a, router, _b) = routed(&lab);
    assert_eq!(answered(&a, "198.51.100.2", 20), 20);
    nat::impair(&router, &[Impairment::EveryNth(5)]).unwrap();
    // Each answered ping is two packets: of any 20 packets 4 are lost.
    let some = answered(&a, "198.51.100.2", 20);
    assert!((10..=14).contains(&some), "{some} of 20");
    nat::impair(&router, &[Impairment::Cut]).unwrap();
    assert_eq!(answered(&a, "198.51.100.2", 2), 0);
    nat::impair(&router, &[]).unwrap();
    assert_eq!(answered(&a, "198.51.100.2", 5), 5);
}

#[test]
fn a_rebound_masquerade_changes_the_port_that_the_peer_sees() {
    let Some(shell) = shell() else { return };
    if !Path::new("/usr/sbin/conntrack").exists() {
        return left_out("needs conntrack");
    }
    let lab = Lab::new(&shell).unwrap();
    let (a, router, b) = routed(&lab);
    nat::masquerade(&router, "b").unwrap();
    let mut ports = Vec::new();
    for _ in 0..2 {
        let capture = Capture::start(&b).unwrap();
        // bash's /dev/udp from a fixed port is not to be had: IKE's own port matters little here.
        a.run(&["bash", "-c", "exec 3<>/dev/udp/198.51.100.2/4500; for i in 1 2 3; do printf x >&3; done"]).unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
        let frames = capture.finish().unwrap();
        let frame = frames.iter().find(|frame| frame.bytes.get(23) == Some(&17)).expect("a UDP packet arrives");
        assert_eq!(frame.bytes[26..30], Ipv4Addr::new(198, 51, 100, 1).octets());
        ports.push(u16::from_be_bytes([frame.bytes[34], frame.bytes[35]]));
        nat::rebind(&router).unwrap();
    }
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn the_wire_check_sees_a_ping_in_clear() {
    let Some(shell) = shell() else { return };
    let lab = Lab::new(&shell).unwrap();
    let (a, router, _b) = routed(&lab);
    let capture = Capture::start(&router).unwrap();
    assert_eq!(answered(&a, "198.51.100.2", 2), 2);
    let frames = capture.finish().unwrap();
    let inner = Inner { networks: vec!["192.0.2.0/24".parse().unwrap()], pattern: Vec::new() };
    // Two pings and their answers, on both interfaces of the router.
    assert_eq!(Tally::of(&frames, 0, &inner).leaks, 8);
}
