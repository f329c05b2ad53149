//! Address translation and impairment of a path, as nftables rules in a router's namespace.
//!
//! What this kernel lacks (netem: delay, jitter) is left out.

use crate::error::Result;
use crate::netns::Node;

/// Translates one private address to one public address and back, as a cloud's Elastic IP does
/// (RFC 2663 §4.1.1, static NAT). `outside` is the interface towards the internet.
///
/// # Errors
///
/// When `nft` refuses it.
pub fn one_to_one(router: &Node, outside: &str, public: &str, private: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat {{\n\
         \tchain in {{ type nat hook prerouting priority -100; iifname \"{outside}\" ip daddr {public} dnat to {private}; }}\n\
         \tchain out {{ type nat hook postrouting priority 100; oifname \"{outside}\" ip saddr {private} snat to {public}; }}\n\
         }}\n"
    ))
}

/// Hides everything behind the address of `outside`, with new ports (RFC 2663 §4.1.2, NAPT).
///
/// # Errors
///
/// When `nft` refuses it.
pub fn masquerade(router: &Node, outside: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat {{\n\
         \tchain out {{ type nat hook postrouting priority 100; oifname \"{outside}\" masquerade random; }}\n\
         }}\n"
    ))
}

/// Lets the translator forget all flows, so that the next packets get new ports.
///
/// # Errors
///
/// When `conntrack` is missing or fails.
pub fn rebind(router: &Node) -> Result<()> {
    router.run(&["conntrack", "-F"]).map(drop)
}

/// What a path does to packets that a router forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// Each packet is lost with this probability, in percent.
    Loss(u8),
    /// Every n-th packet is lost, and no other.
    EveryNth(u32),
    /// Packets for `to` leave twice through `device` with this probability, in percent.
    Duplicate {
        /// The destination whose packets are doubled.
        to: String,
        /// The interface on which they leave.
        device: String,
        /// How many of a hundred.
        percent: u8,
    },
    /// Nothing passes.
    Cut,
}

impl Impairment {
    fn rule(&self) -> String {
        match self {
            Self::Loss(percent) => format!("numgen random mod 100 < {percent} counter drop"),
            Self::EveryNth(n) => format!("numgen inc mod {n} 0 counter drop"),
            Self::Duplicate { to, device, percent } => {
                format!("ip daddr {to} numgen random mod 100 < {percent} dup to {to} device \"{device}\"")
            }
            Self::Cut => "counter drop".into(),
        }
    }
}

/// Impairs what `router` forwards, instead of what was asked before; an empty list heals the path.
///
/// # Errors
///
/// When `nft` refuses it.
pub fn impair(router: &Node, impairments: &[Impairment]) -> Result<()> {
    // Declared first, so that deleting it succeeds also when it is not there.
    let mut commands = String::from("table ip impair\ndelete table ip impair\n");
    if !impairments.is_empty() {
        commands.push_str("table ip impair {\n\tchain path {\n\t\ttype filter hook forward priority 10;\n");
        for impairment in impairments {
            commands.push_str(&format!("\t\t{}\n", impairment.rule()));
        }
        commands.push_str("\t}\n}\n");
    }
    router.nft(&commands)
}

/// Makes the path through `router` take packets of at most `mtu` bytes and drop larger ones without a word: a black hole.
///
/// By the devices' own MTU, so that a super-packet counts as what it will be cut into.
///
/// # Errors
///
/// When `ip` or `nft` refuses it.
pub fn black_hole(router: &Node, devices: &[&str], mtu: u32) -> Result<()> {
    for device in devices {
        router.ip(&["link", "set", "dev", device, "mtu", &mtu.to_string()])?;
    }
    router.nft(
        "table ip silent\ndelete table ip silent\ntable ip silent {\n\tchain out {\n\t\ttype filter hook output priority 0;\n\
         \t\ticmp type destination-unreachable icmp code frag-needed counter drop\n\t}\n}\n",
    )
}

/// Limits what leaves through `device`, in Mbit/s.
///
/// # Errors
///
/// When `tc` refuses it.
pub fn limit_rate(router: &Node, device: &str, mbit: u32) -> Result<()> {
    let rate = format!("{mbit}mbit");
    let words =
        ["tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", &rate, "burst", "64k", "latency", "50ms"];
    router.run(&words).map(drop)
}
