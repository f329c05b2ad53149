//! What the settings of the host must be for packets to pass through a gateway.
//!
//! What is wrong is said, and set right where the configuration has `manage_sysctl = true`. It stays set when the gateway
//! stops: by then others may rely on it. Some settings belong to a device and can be looked at only once it is there:
//! [`check_device`].

use std::fs;
use std::net::IpAddr;

use model::{Address, Config, Mode, Routing};
use os::{sysctl, tcp};
use tracing::{info, warn};

/// A setting that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The setting, with slashes; or what the kernel lacks.
    pub setting: String,
    /// What it is.
    pub is: String,
    /// What it should be.
    pub should_be: &'static str,
    /// What happens otherwise, in a sentence without a full stop.
    pub why: &'static str,
    /// Whether it is a setting at all, which can be set.
    pub can_set: bool,
}

impl Finding {
    /// A setting that differs; nothing when it is right, or this kernel does not have it.
    fn differs(setting: impl Into<String>, should_be: &'static str, why: &'static str) -> Option<Self> {
        let setting = setting.into();
        let is = sysctl::read(&setting).ok().filter(|is| is != should_be)?;
        Some(Self { setting, is, should_be, why, can_set: true })
    }
}

const FORWARDING: &str = "the host passes no packets between its networks and the tunnels";
const ACCEPT_RA: &str = "the host forgets its own IPv6 default route once it forwards IPv6";
const HASH_POLICY: &str = "all flows between two hosts take the same one of several tunnels";
const RP_FILTER: &str = "packets are dropped that come by another tunnel than the answer goes by";
const ACCEPT_LOCAL: &str = "packets between two ends of a tunnel on this one host are dropped";
const REDIRECTS: &str = "hosts behind a tunnel are told to take a shorter way that there is not";
const MD5: &str = "BGP sessions with a password do not come up";

/// Looks at the settings that this configuration needs, with those of its tunnels' devices as far as they are there. In
/// the order in which they are to be set.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for v6 in [false, true] {
        if !has_networks(config, v6) {
            continue;
        }
        let forwarding = if v6 { sysctl::IPV6_FORWARD } else { sysctl::IPV4_FORWARD };
        if let Some(finding) = Finding::differs(forwarding, "1", FORWARDING) {
            if v6 {
                found.extend(accept_ra(config));
            }
            found.push(finding);
        }
        if is_multipath(config) {
            let policy = if v6 { IPV6_HASH_POLICY } else { IPV4_HASH_POLICY };
            // 1 and more look at ports, in one way or another.
            found.extend(Finding::differs(policy, "1", HASH_POLICY).filter(|finding| finding.is == "0"));
        }
    }
    if config.bgp.iter().flat_map(|bgp| &bgp.neighbors).any(|neighbor| neighbor.password.is_some())
        && let Err(e) = tcp::check_md5()
    {
        let setting = "TCP MD5 (CONFIG_TCP_MD5SIG)".to_owned();
        found.push(Finding { setting, is: e.to_string(), should_be: "present", why: MD5, can_set: false });
    }
    for device in devices(config) {
        found.extend(check_device(config, device));
    }
    found
}

const IPV4_HASH_POLICY: &str = "net/ipv4/fib_multipath_hash_policy";
const IPV6_HASH_POLICY: &str = "net/ipv6/fib_multipath_hash_policy";

/// Looks at the settings of a tunnel's device, which must be there.
pub fn check_device(config: &Config, device: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let ipv4 = |device: &str, name: &str| format!("net/ipv4/conf/{device}/{name}");
    if sysctl::read(&sysctl::rp_filter(device)).is_err() {
        return found; // there is no such device, or no IPv4
    }
    // The kernel takes the larger of this and that of all devices: 2, loose, also wins over a 1 of all.
    let effective = [device, "all"].map(|device| sysctl::read(&sysctl::rp_filter(device)).unwrap_or_default());
    if effective.iter().max().is_some_and(|largest| largest == "1") {
        let [is, all] = effective;
        let is = if is == "1" { is } else { format!("{is} and that of all devices {all}") };
        let setting = sysctl::rp_filter(device);
        found.push(Finding { setting, is, should_be: "2", why: RP_FILTER, can_set: true });
    }
    if has_both_ends(config) {
        // Either of the two suffices (IN_DEV_ACCEPT_LOCAL).
        let all = sysctl::read(&ipv4("all", "accept_local")).is_ok_and(|all| all == "1");
        found.extend(Finding::differs(ipv4(device, "accept_local"), "1", ACCEPT_LOCAL).filter(|_| !all));
    }
    // Either of the two sends them (IN_DEV_TX_REDIRECTS); other devices have a 1 of their own unless somebody took it.
    for device in ["all", device] {
        found.extend(Finding::differs(ipv4(device, "send_redirects"), "0", REDIRECTS));
    }
    found
}

/// Devices that take their routes from router advertisements, and would not any more once the host forwards
/// (`accept_ra` 1 means: unless forwarding).
fn accept_ra(config: &Config) -> Vec<Finding> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Vec::new() };
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    let ours: Vec<_> = devices(config).collect();
    let others = names.iter().filter(|name| !["all", "default", "lo"].contains(&name.as_str()));
    let others = others.filter(|name| !ours.contains(&name.as_str()));
    let found = others.filter_map(|name| Finding::differs(format!("net/ipv6/conf/{name}/accept_ra"), "2", ACCEPT_RA));
    found.filter(|finding| finding.is == "1").collect()
}

/// The devices of the tunnels.
fn devices(config: &Config) -> impl Iterator<Item = &str> {
    let mut names: Vec<_> = config
        .connections
        .iter()
        .flat_map(|connection| &connection.children)
        .map(|child| match &child.routing {
            Routing::Policy => gateway::plan::SHARED_DEVICE,
            Routing::Device { name, .. } => name.as_str(),
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// Whether packets of this family pass through a tunnel.
fn has_networks(config: &Config, v6: bool) -> bool {
    let mut remote = config.connections.iter().flat_map(|c| &c.children).flat_map(|child| &child.remote);
    let mut routed = config.vpns.iter().flat_map(|vpn| &vpn.routes);
    let mut spoken = config.bgp.iter().flat_map(|bgp| &bgp.neighbors).map(|neighbor| neighbor.families);
    remote.any(|selector| selector.net.addr().is_ipv6() == v6)
        || routed.any(|net| net.addr().is_ipv6() == v6)
        || spoken.any(|families| if v6 { families.ipv6 } else { families.ipv4 })
}

/// Whether a route may lead over several tunnels.
fn is_multipath(config: &Config) -> bool {
    config.vpns.iter().any(|vpn| vpn.mode == Mode::ActiveActive)
        || config.bgp.as_ref().is_some_and(|bgp| bgp.multipath > 1)
}

/// Whether a connection leads from this host to itself, as a lab may have it.
fn has_both_ends(config: &Config) -> bool {
    let ends = |from: &Address, to: &Address| match (from, to) {
        (Address::Ip(from), Address::Ip(to)) => Some((*from, *to)),
        _ => None,
    };
    let all: Vec<(IpAddr, IpAddr)> =
        config.connections.iter().filter_map(|c| ends(&c.local.address, &c.remote.address)).collect();
    all.iter().any(|(local, remote)| all.contains(&(*remote, *local)))
}

/// Tells of the findings, and sets them right if `manage` says so. Returns those that remain.
pub fn settle(findings: &[Finding], manage: bool) -> Vec<Finding> {
    let mut left = Vec::new();
    for finding in findings {
        let Finding { setting, is, should_be, why, can_set } = finding;
        if manage && *can_set {
            match sysctl::write(setting, should_be) {
                Ok(()) => {
                    info!("sysctl {setting} was {is} and is now {should_be}: otherwise {why}");
                    continue;
                }
                Err(e) => warn!("sysctl {setting} is {is} and cannot be set to {should_be} ({e}): {why}"),
            }
        } else if *can_set {
            warn!("sysctl {setting} is {is}; set it to {should_be}: otherwise {why}");
        } else {
            warn!("{setting} is not {should_be} ({is}): {why}");
        }
        left.push(finding.clone());
    }
    left
}
