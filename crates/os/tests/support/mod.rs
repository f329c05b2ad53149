//! What tests in a network namespace of their own begin with.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use os::netlink::Netlink;
use os::netns::Namespace;
use os::tun::{Tun, TunOptions};

/// Runs `test` in a namespace of its own, or says why not.
pub(crate) fn as_root(name: &str, test: impl FnOnce() + Send) {
    let left_out = |why: &str| {
        let _ = writeln!(io::stderr(), "left out: {name}: {why}");
    };
    if !nix::unistd::geteuid().is_root() {
        return left_out("it needs root");
    }
    match Namespace::new() {
        Ok(namespace) => namespace
            .run(|| {
                // Were `run` to fail at the one thing it is for, these tests would change the host.
                let namespace_of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).unwrap();
                assert_ne!(namespace_of("thread-self"), namespace_of("self"), "not in a namespace of its own");
                test();
            })
            .unwrap(),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => left_out("root here may not make network namespaces"),
        Err(e) => panic!("{e}"),
    }
}

/// The same with netlink, on a runtime of its own.
pub(crate) fn with_netlink<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Netlink) -> F + Send) {
    as_root(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let test = async { test(Netlink::open().unwrap()).await };
            tokio::time::timeout(Duration::from_secs(120), test).await.unwrap();
        });
    });
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A TUN device that is up and has these addresses, each of which the kernel takes for its own already.
pub(crate) async fn tunnel(netlink: &Netlink, name: &str, addresses: &[&str]) -> Tun {
    let tun = Tun::open(&TunOptions::new(name)).unwrap();
    for address in addresses {
        netlink.add_address(tun.index(), net(address)).await.unwrap();
    }
    netlink.set_up(tun.index(), true).await.unwrap();
    let lo = netlink.link("lo").await.unwrap().unwrap().index;
    for address in addresses {
        // For IPv6 it takes a moment.
        while netlink.hop_to(net(address).addr()).await.map(|hop| hop.device).ok() != Some(lo) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    tun
}
