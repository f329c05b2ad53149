//! The measure of routed scenarios, on the real kernel, and one of them. Needs root; says what it left out. All of them
//! are in `simplon lab matrix`.

#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use lab::nat::{self, Impairment};
use lab::netns::{Lab, Node};
use lab::routing::{Event, Host, Losses, Options, Scenario, Stream, run};
use lab::shell::Shell;

/// Says what a test left out, past the test harness, which keeps what passed tests print to itself.
fn left_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {why}");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// What a stream loses on its way through a router while `meanwhile` happens.
fn losses(meanwhile: impl Fn(&Node)) -> Option<Losses> {
    if !is_root() || !["/usr/sbin/ip", "/usr/sbin/nft"].iter().all(|program| Path::new(program).exists()) {
        left_out("needs root, iproute2 and nftables");
        return None;
    }
    let shell = Shell::new(Box::new(std::io::sink()), false);
    let lab = Lab::new(&shell).unwrap();
    let [a, router, b] = ["a", "router", "b"].map(|name| lab.node(name).unwrap());
    let mut hosts = Vec::new();
    for (node, name, net) in [(&a, "a", "192.0.2"), (&b, "b", "198.51.100")] {
        lab.link((node, "eth0"), (&router, name)).unwrap();
        node.address("eth0", &format!("{net}.2/24")).unwrap();
        router.address(name, &format!("{net}.1/24")).unwrap();
        node.route("default", &format!("{net}.1")).unwrap();
        hosts.push(Host { node: node.clone(), address: format!("{net}.2").parse().unwrap() });
    }
    router.forward().unwrap();
    let stream = Stream::start(&hosts[0], &hosts[1], 2).unwrap();
    stream.wait_for_packets(20, Duration::from_secs(10)).unwrap();
    meanwhile(&router);
    stream.wait_until_steady(Duration::from_millis(300), Duration::from_secs(10)).unwrap();
    Some(stream.finish().unwrap())
}

#[test]
fn a_stream_says_how_long_a_path_was_cut() {
    let cut = Duration::from_millis(300);
    let losses = losses(|router| {
        nat::impair(router, &[Impairment::Cut]).unwrap();
        std::thread::park_timeout(cut);
        nat::impair(router, &[]).unwrap();
    });
    let Some(losses) = losses else { return };
    for way in [&losses.out, &losses.back] {
        // Two flows with a packet each 10 ms; `nft` itself takes some milliseconds, more on a busy machine.
        assert!((250.0..800.0).contains(&way.interrupted_ms), "{losses}");
        assert!((40..160).contains(&way.lost), "{losses}");
        assert!(!way.is_open && way.duplicated == 0, "{losses}");
    }
}

#[test]
fn a_stream_counts_each_lost_packet() {
    let losses = losses(|router| {
        // Of the packets of both directions together.
        nat::impair(router, &[Impairment::EveryNth(4)]).unwrap();
        std::thread::park_timeout(Duration::from_millis(500));
        nat::impair(router, &[]).unwrap();
    });
    let Some(losses) = losses else { return };
    let rate = f64::from(losses.lost()) / f64::from(losses.out.sent + losses.back.sent);
    assert!((0.02..0.25).contains(&rate), "{losses}");
}

#[test]
fn a_path_that_is_left_alone_loses_nothing() {
    let Some(losses) = losses(|_| {}) else { return };
    assert_eq!(losses.lost(), 0, "{losses}");
    assert!(losses.out.sent > 40 && losses.back.sent > 40, "{losses}");
}

#[test]
fn a_reload_of_another_connection_costs_two_tunnels_nothing() {
    let options = Options { event: Event::Reload, json: true, ..Options::new(Scenario::TwoTunnels) };
    if let Some(missing) = options.missing().map(|missing| missing.to_string()).or((!is_root()).then(|| "root".into()))
    {
        return left_out(&missing);
    }
    let report = run(&options, Box::new(std::io::sink())).unwrap();
    assert!(report.passed, "{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.events.len(), 1);
}
