//! What the settings of the host must be for packets to pass through a gateway, and not past its tunnels.

use std::net::IpAddr;

use model::Config;
use os::sysctl;
use tracing::{info, warn};

/// A setting that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The setting, with slashes.
    pub setting: String,
    /// What it is.
    pub is: String,
    /// What it should be.
    pub should_be: &'static str,
    /// What happens otherwise, in a sentence without a full stop.
    pub why: String,
    /// Whether it may be set when the configuration says `manage_sysctl`.
    pub may_be_set: bool,
}

/// Looks at the settings that this configuration needs. `outer` are the devices that peers are reached through.
pub fn check(config: &Config, outer: &[String]) -> Vec<Finding> {
    let remote = || config.connections.iter().flat_map(|c| &c.children).flat_map(|child| &child.remote);
    let mut settings = Vec::new();
    let forward = |ipv6: bool| (if ipv6 { sysctl::IPV6_FORWARD } else { sysctl::IPV4_FORWARD }).to_owned();
    for ipv6 in [false, true] {
        if remote().any(|selector| matches!(selector.net.addr(), IpAddr::V6(_)) == ipv6) {
            let why = "the host passes no packets between its networks and the tunnels".to_owned();
            settings.push((forward(ipv6), "1", why, true));
        }
    }
    let mut found: Vec<Finding> = settings
        .into_iter()
        .filter_map(|(setting, should_be, why, may_be_set)| {
            let is = sysctl::read(&setting).ok().filter(|is| is != should_be)?;
            Some(Finding { setting, is, should_be, why, may_be_set })
        })
        .collect();
    for device in outer {
        found.extend(reverse_path(device));
    }
    found
}

/// Without a reverse path filter the kernel takes packets that pretend to come from behind a tunnel and arrive in
/// clear on an outer device.
fn reverse_path(device: &str) -> Option<Finding> {
    let setting = sysctl::rp_filter(device);
    let read = |name: &str| sysctl::read(&sysctl::rp_filter(name)).ok()?.parse::<u8>().ok();
    // The kernel takes the larger of the two.
    let is = read(device)?.max(read("all")?);
    let why = "packets in clear with addresses of the other side are taken as if they had come through the tunnel";
    (is != 1).then(|| Finding { setting, is: is.to_string(), should_be: "1", why: why.to_owned(), may_be_set: false })
}

/// Tells of the findings, and sets what may be set if `manage` says so.
pub fn settle(findings: &[Finding], manage: bool) {
    for finding in findings {
        let Finding { setting, is, should_be, why, may_be_set } = finding;
        if manage && *may_be_set {
            match sysctl::write(setting, should_be) {
                Ok(()) => info!("sysctl {setting} was {is} and is now {should_be}: otherwise {why}"),
                Err(e) => warn!("sysctl {setting} is {is} and cannot be set to {should_be} ({e}): {why}"),
            }
        } else {
            warn!("sysctl {setting} is {is}; set it to {should_be}: otherwise {why}");
        }
    }
}
