//! The settings of the host, in a network namespace of their own.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]

use std::io::{self, Write as _};

use gatewayd::host::{self, Finding};
use model::{Address, Bgp, Child, Config, Connection, Mode, Neighbor, Routing, Selector, Vpn};
use os::netns::Namespace;
use os::sysctl;
use os::tun::{Tun, TunOptions};

/// Runs `test` in a namespace of its own with the devices vpn0 and wan0, or says why not.
fn with_devices(name: &str, test: impl FnOnce() + Send) {
    let namespace = match Namespace::new() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let _ = writeln!(io::stderr(), "left out: {name}: it needs the right to make network namespaces");
            return;
        }
        namespace => namespace.unwrap(),
    };
    let run = namespace.run(|| {
        let _devices = ["vpn0", "wan0"].map(|name| Tun::open(&TunOptions::new(name)).unwrap());
        test();
    });
    run.unwrap();
}

/// A connection through vpn0 to `remote`.
fn config(remote: &str) -> Config {
    let mut connection = Connection::named("a");
    let mut child = Child::named("net");
    child.remote = vec![Selector::net(remote.parse().unwrap())];
    child.routing = Routing::Device { name: "vpn0".to_owned(), addresses: vec![], routes: vec![], mark: None };
    connection.children = vec![child];
    Config { connections: vec![connection], ..Config::default() }
}

fn set(setting: &str, value: &str) {
    sysctl::write(setting, value).unwrap();
}

fn names(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.setting.as_str()).collect()
}

/// What a host has that was never a router.
fn as_a_host_has_it() {
    for (setting, value) in [
        (sysctl::IPV4_FORWARD, "0"),
        (sysctl::IPV6_FORWARD, "0"),
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/vpn0/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "1"),
        ("net/ipv4/conf/vpn0/send_redirects", "1"),
        ("net/ipv4/conf/wan0/send_redirects", "1"),
        ("net/ipv4/fib_multipath_hash_policy", "0"),
        ("net/ipv6/fib_multipath_hash_policy", "0"),
        ("net/ipv6/conf/wan0/accept_ra", "1"),
        ("net/ipv6/conf/vpn0/accept_ra", "1"),
    ] {
        set(setting, value);
    }
}

#[test]
fn what_is_wrong_is_found_and_set_right_when_it_may_be() {
    with_devices("what_is_wrong_is_found_and_set_right_when_it_may_be", || {
        as_a_host_has_it();
        let v4 = ["net/ipv4/ip_forward"];
        let device =
            ["net/ipv4/conf/vpn0/rp_filter", "net/ipv4/conf/all/send_redirects", "net/ipv4/conf/vpn0/send_redirects"];
        let findings = host::check(&config("10.1.0.0/16"));
        assert_eq!(names(&findings), [&v4[..], &device].concat());
        assert!(findings[1].is.contains("all devices 1"), "{:?}", findings[1]);
        // It may not, and nothing is touched.
        assert_eq!(host::settle(&findings, false), findings);
        assert_eq!(host::check(&config("10.1.0.0/16")), findings);
        assert_eq!(host::settle(&findings, true), []);
        assert_eq!(host::check(&config("10.1.0.0/16")), []);
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        assert_eq!(sysctl::read("net/ipv4/conf/all/rp_filter").unwrap(), "1", "that of the others stays");
        assert_eq!(sysctl::read("net/ipv4/conf/wan0/send_redirects").unwrap(), "1");

        // A device that comes later.
        assert_eq!(host::check_device(&config("10.1.0.0/16"), "vpn1"), []);
        let _late = Tun::open(&TunOptions::new("vpn1")).unwrap();
        let findings = host::check_device(&config("10.1.0.0/16"), "vpn1");
        assert!(names(&findings).contains(&"net/ipv4/conf/vpn1/rp_filter"));
        assert_eq!(host::settle(&findings, true), []);
        assert_eq!(host::check_device(&config("10.1.0.0/16"), "vpn1"), []);
    });
}

#[test]
fn forwarding_ipv6_does_not_cost_the_host_its_default_route() {
    with_devices("forwarding_ipv6_does_not_cost_the_host_its_default_route", || {
        as_a_host_has_it();
        set("net/ipv4/conf/all/rp_filter", "0");
        set("net/ipv4/conf/all/send_redirects", "0");
        set("net/ipv4/conf/vpn0/send_redirects", "0");
        let findings = host::check(&config("fd10::/16"));
        assert_eq!(names(&findings), ["net/ipv6/conf/wan0/accept_ra", "net/ipv6/conf/all/forwarding"]);
        assert_eq!(host::settle(&findings, true), []);
        assert_eq!(sysctl::read("net/ipv6/conf/wan0/accept_ra").unwrap(), "2");
        assert_eq!(host::check(&config("fd10::/16")), []);
    });
}

#[test]
fn several_tunnels_and_both_ends_on_one_host_need_more() {
    with_devices("several_tunnels_and_both_ends_on_one_host_need_more", || {
        as_a_host_has_it();
        let base = config("10.1.0.0/16");
        host::settle(&host::check(&base), true);
        let policy = "net/ipv4/fib_multipath_hash_policy";
        let vpn = Vpn { mode: Mode::ActiveActive, routes: vec!["fd10::/16".parse().unwrap()], ..Vpn::named("v") };
        let with_vpn = Config { vpns: vec![vpn], ..base.clone() };
        let needed = host::check(&with_vpn);
        let v6 = ["net/ipv6/conf/wan0/accept_ra", "net/ipv6/conf/all/forwarding", "net/ipv6/fib_multipath_hash_policy"];
        assert_eq!(names(&needed), [&[policy][..], &v6].concat());
        let with_bgp = Config { bgp: Some(Bgp { multipath: 2, ..Bgp::of(64_512) }), ..base.clone() };
        assert_eq!(names(&host::check(&with_bgp)), [policy]);
        set(policy, "2");
        assert_eq!(host::check(&with_bgp), [], "which looks at the packet within, is as good");

        let mut there = base.connections[0].clone();
        let mut back = there.clone();
        for (connection, local, remote) in [(&mut there, 1, 2), (&mut back, 2, 1)] {
            connection.local.address = Address::Ip([192, 0, 2, local].into());
            connection.remote.address = Address::Ip([192, 0, 2, remote].into());
        }
        let one_end = Config { connections: vec![there.clone()], ..base.clone() };
        assert_eq!(host::check(&one_end), []);
        let both = Config { connections: vec![there, back], ..base };
        assert_eq!(names(&host::check(&both)), ["net/ipv4/conf/vpn0/accept_local"]);
        assert_eq!(host::settle(&host::check(&both), true), []);
        assert_eq!(host::check(&both), []);
    });
}

#[test]
fn a_password_needs_a_kernel_that_knows_it() {
    with_devices("a_password_needs_a_kernel_that_knows_it", || {
        let mut neighbor = Neighbor::at([10, 0, 0, 1].into(), 64_513);
        neighbor.password = Some(base::Secret::from(&b"key"[..]));
        let bgp = Bgp { neighbors: vec![neighbor], ..Bgp::of(64_512) };
        let findings = host::check(&Config { bgp: Some(bgp), ..Config::default() });
        let md5: Vec<_> = findings.iter().filter(|finding| !finding.can_set).collect();
        assert_eq!(md5.is_empty(), os::tcp::check_md5().is_ok());
        // What cannot be set remains.
        let lacks =
            Finding { setting: "X".into(), is: "no".into(), should_be: "present", why: "it is", can_set: false };
        assert_eq!(host::settle(std::slice::from_ref(&lacks), true), [lacks]);
    });
}
