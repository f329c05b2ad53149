//! What the settings of the host must be for packets to pass through a gateway.

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
    pub why: &'static str,
}

/// Looks at the settings that this configuration needs.
pub fn check(config: &Config) -> Vec<Finding> {
    let remote = || config.connections.iter().flat_map(|c| &c.children).flat_map(|child| &child.remote);
    let why = "the host passes no packets between its networks and the tunnels";
    let families = [(sysctl::IPV4_FORWARD, false), (sysctl::IPV6_FORWARD, true)];
    let needed = families.into_iter().filter(|(_, v6)| remote().any(|s| matches!(s.net.addr(), IpAddr::V6(_)) == *v6));
    needed
        .filter_map(|(setting, _)| {
            let is = sysctl::read(setting).ok().filter(|is| is != "1")?;
            Some(Finding { setting: setting.to_owned(), is, should_be: "1", why })
        })
        .collect()
}

/// Tells of the findings, and sets them right if `manage` says so.
pub fn settle(findings: &[Finding], manage: bool) {
    for finding in findings {
        let Finding { setting, is, should_be, why } = finding;
        if manage {
            match sysctl::write(setting, should_be) {
                Ok(()) => info!("sysctl {setting} was {is} and is now {should_be}: otherwise {why}"),
                Err(e) => warn!("sysctl {setting} is {is} and cannot be set to {should_be} ({e}): {why}"),
            }
        } else {
            warn!("sysctl {setting} is {is}; set it to {should_be}: otherwise {why}");
        }
    }
}
