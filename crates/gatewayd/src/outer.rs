//! Whether the devices towards the peers join packets of ESP in UDP before they hand them over.
//!
//! A network card receives packet by packet. The kernel joins those of one flow for sockets that ask for it (`UDP_GRO`,
//! which the data path does) if generic receive offload of the device is on, as it is on any card. A veth, which a
//! container has for a card, joins nothing before its `rx-udp-gro-forwarding` is on: half of the throughput is lost then
//! where the sender's side cuts packets up. What is off is said, and switched on with `manage-sysctl = true`; it stays on
//! when the gateway stops.

use std::collections::BTreeSet;
use std::io;

use model::{Address, Config, Encapsulation};
use os::features::{Features, RX_GRO, RX_UDP_GRO_FORWARDING};
use os::netlink::Netlink;
use tracing::{debug, info, warn};

/// Looks at the devices that lead to the peers of this configuration.
pub(crate) async fn settle(config: &Config, netlink: &Netlink) {
    let found = match devices(config, netlink).await {
        Ok(found) => found,
        Err(e) => return debug!("which devices lead to the peers is not known: {e}"),
    };
    for device in found {
        // Devices of kinds that have no such features are as good as they get.
        if let Err(e) = settle_device(&device, config.gateway.manage_sysctl) {
            debug!("{e}");
        }
    }
}

fn settle_device(device: &str, manage: bool) -> io::Result<()> {
    let features = Features::of(device)?;
    let is_veth = features.driver().is_ok_and(|driver| driver == "veth");
    let wanted = [Some(RX_GRO), is_veth.then_some(RX_UDP_GRO_FORWARDING)];
    for name in wanted.into_iter().flatten() {
        if features.is_on(name)? != Some(false) {
            continue;
        }
        if !manage {
            info!(
                "{device} hands over packets one by one, which costs speed; to have it join them: ethtool -K {device} {name} on"
            );
        } else if let Err(e) = features.switch_on(name) {
            warn!("{device} hands over packets one by one, which costs speed: {e}");
        } else {
            info!("{device} joins the packets of a flow from now on: {name} was off");
        }
    }
    Ok(())
}

/// The devices on the ways to the peers. Who has no fixed address is thought to be where the default route leads.
async fn devices(config: &Config, netlink: &Netlink) -> io::Result<BTreeSet<String>> {
    let in_udp = config.connections.iter().filter(|connection| connection.encapsulation != Encapsulation::Never);
    let (mut fixed, mut is_any_elsewhere) = (BTreeSet::new(), false);
    for connection in in_udp {
        match connection.remote.address {
            Address::Ip(ip) => drop(fixed.insert(ip)),
            Address::Any | Address::Prefix(_) | Address::Name(_) => is_any_elsewhere = true,
        }
    }
    let mut numbers = BTreeSet::new();
    for ip in fixed {
        // Without a route there is nothing to be received from it.
        numbers.extend(netlink.hop_to(ip).await.ok().map(|hop| hop.device));
    }
    if is_any_elsewhere {
        for is_v6 in [false, true] {
            numbers.extend(netlink.default_route(is_v6).await?.map(|route| route.device));
        }
    }
    let links = netlink.links().await?;
    Ok(links.into_iter().filter(|link| numbers.contains(&link.index)).map(|link| link.name).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use model::Connection;
    use os::netns::Namespace;

    use super::*;

    /// Whether the veth to the peer joins UDP packets after a look at it, once with leave to change it and once without.
    fn joins_after_a_look(encapsulation: Encapsulation, manage: bool) -> bool {
        for words in [
            "link add wan type veth peer name end",
            "address add 192.0.2.1/24 dev wan",
            "link set wan up",
            "link set end up",
        ] {
            assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        }
        let mut connection = Connection::named("a");
        connection.remote.address = Address::Ip("192.0.2.2".parse().unwrap());
        connection.encapsulation = encapsulation;
        let mut config = Config { connections: vec![connection], ..Config::default() };
        config.gateway.manage_sysctl = manage;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { settle(&config, &Netlink::open().unwrap()).await });
        let [wan, end] = ["wan", "end"].map(|device| Features::of(device).unwrap());
        assert_eq!(end.is_on(RX_UDP_GRO_FORWARDING).unwrap(), Some(false), "another device was touched");
        [RX_GRO, RX_UDP_GRO_FORWARDING].iter().all(|name| wan.is_on(name).unwrap() == Some(true))
    }

    #[test]
    fn the_device_to_a_peer_in_udp_joins_packets_where_we_may_switch_that_on() {
        let cases = [(Encapsulation::Auto, true), (Encapsulation::Never, false)];
        for (encapsulation, expected) in cases {
            for manage in [true, false] {
                let Ok(namespace) = Namespace::new() else {
                    let _ = writeln!(io::stderr(), "left out: it needs the right to make network namespaces");
                    return;
                };
                let joins = namespace.run(|| joins_after_a_look(encapsulation, manage)).unwrap();
                assert_eq!(joins, manage && expected, "{encapsulation:?}, manage {manage}");
            }
        }
    }
}
