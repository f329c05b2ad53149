//! Refuses what arrives in clear and should have been encrypted (RFC 4301 §5.2): with a firewall table of our own,
//! written whole by the `nft` program whenever the policies change.
//!
//! What comes out of a tunnel comes from a device of ours. A packet from any other device with addresses that a policy
//! protects is dropped before it is routed; IKE and ESP themselves, neighbour discovery and traffic between our own
//! networks are not. Left out: route-based children, where routes and not addresses say what is protected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use esp::Policy;
use gateway::{DeviceChange, PolicyChange};
use model::{Ports, Routing};
use sa::{ChildLabel, TrafficSelector};
use tracing::{debug, warn};

/// Our table; there is no other like it in the namespace.
const TABLE: &str = "inet simplon";

/// The table, and what it follows from.
#[derive(Debug)]
pub(crate) struct Guard {
    policies: BTreeMap<ChildLabel, Policy>,
    devices: BTreeSet<Arc<str>>,
    ports: Ports,
    /// The rules in effect; empty when there is no table.
    standing: String,
    is_stale: bool,
    has_warned: bool,
}

impl Guard {
    /// A guard without policies: there is no table.
    pub(crate) fn new(ports: Ports) -> Self {
        Self {
            policies: BTreeMap::new(),
            devices: BTreeSet::new(),
            ports,
            standing: String::new(),
            is_stale: false,
            has_warned: false,
        }
    }

    /// Follows a change to the policies.
    pub(crate) fn note_policy(&mut self, change: &PolicyChange) {
        self.is_stale = true;
        match change {
            PolicyChange::Install(policy) => drop(self.policies.insert(policy.label.clone(), policy.clone())),
            PolicyChange::Remove(label) => drop(self.policies.remove(label)),
        }
    }

    /// Follows a change to our devices.
    pub(crate) fn note_device(&mut self, change: &DeviceChange) {
        match change {
            DeviceChange::Create(device) => self.is_stale |= self.devices.insert(device.name.clone()),
            DeviceChange::Configure(_) => {}
            DeviceChange::Remove(name) => self.is_stale |= self.devices.remove(name),
        }
    }

    /// Brings the table up to date, where something changed. Where that is impossible a person is told, once.
    pub(crate) fn settle(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        let rules = rules(&self.policies, &self.devices, self.ports);
        if rules == self.standing {
            return;
        }
        match run_nft(&script(&rules)) {
            Ok(()) => {
                debug!("packets in clear are refused by {} rules", rules.lines().count());
                self.standing = rules;
            }
            Err(e) if !std::mem::replace(&mut self.has_warned, true) => {
                warn!(
                    "cannot refuse packets in clear that pretend to come from the other side ({e}); \
                     install nftables, or set rp_filter=1 on the outer devices"
                );
            }
            Err(e) => debug!("nft: {e}"),
        }
    }

    /// Removes the table.
    pub(crate) fn clear(&mut self) {
        self.policies.clear();
        self.is_stale = true;
        self.settle();
    }
}

/// The whole table in one transaction; without rules, no table.
fn script(rules: &str) -> String {
    // "delete" fails for what is not there, so it is added first.
    let mut script = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if !rules.is_empty() {
        let _ = write!(
            script,
            "table {TABLE} {{\n chain clear_text {{\n  type filter hook prerouting priority raw; policy accept;\n{rules} }}\n}}\n"
        );
    }
    script
}

/// The rules of the chain.
fn rules(policies: &BTreeMap<ChildLabel, Policy>, devices: &BTreeSet<Arc<str>>, ports: Ports) -> String {
    let pairs: Vec<_> = policies.values().filter(|policy| policy.routing == Routing::Policy).flat_map(pairs).collect();
    if pairs.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    // Writing to a String does not fail. Nothing below concerns other sources, and ESP comes from such: one look at a
    // packet, not five.
    for (family, ranges) in sources(&pairs) {
        let _ = writeln!(text, "  {family} saddr != {{ {ranges} }} accept");
    }
    let names: Vec<String> = devices.iter().map(|name| format!(", \"{}\"", safe(name))).collect();
    let _ = writeln!(text, "  iifname {{ \"lo\"{} }} accept", names.concat());
    let _ = writeln!(text, "  udp dport {{ {}, {} }} fib daddr type local accept", ports.ike, ports.natt);
    let _ = writeln!(text, "  meta l4proto esp fib daddr type local accept");
    text += "  icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept\n";
    let own: BTreeSet<_> = pairs.iter().map(|pair| addresses(&pair.local)).collect();
    for (family, range) in own {
        let _ = writeln!(text, "  {family} saddr {range} {family} daddr {range} accept");
    }
    for pair in &pairs {
        let ((family, remote), (_, local)) = (addresses(&pair.remote), addresses(&pair.local));
        let upper = upper(&pair.remote, &pair.local);
        let label = safe(&pair.label.to_string());
        let _ =
            writeln!(text, "  {family} saddr {remote} {family} daddr {local}{upper} counter drop comment \"{label}\"");
    }
    text
}

/// Traffic from the other side to ours that a policy protects.
struct Pair<'a> {
    label: &'a ChildLabel,
    remote: TrafficSelector,
    local: TrafficSelector,
}

fn pairs(policy: &Policy) -> impl Iterator<Item = Pair<'_>> {
    let fits = |remote: &TrafficSelector, local: &TrafficSelector| {
        remote.first.is_ipv4() == local.first.is_ipv4()
            && (remote.protocol == local.protocol || remote.protocol == 0 || local.protocol == 0)
    };
    policy.remote.iter().flat_map(move |remote| {
        let local = policy.local.iter().filter(move |local| fits(remote, local));
        local.map(|local| Pair { label: &policy.label, remote: *remote, local: *local })
    })
}

/// Where traffic comes from that a policy protects: the families in nft's words, and their ranges, none of which meet.
fn sources(pairs: &[Pair<'_>]) -> impl Iterator<Item = (&'static str, String)> {
    let mut all: Vec<(IpAddr, IpAddr)> = pairs.iter().map(|pair| (pair.remote.first, pair.remote.last)).collect();
    all.sort_unstable();
    all.dedup_by(|next, before| {
        let meets = next.0.is_ipv4() == before.1.is_ipv4() && next.0 <= before.1;
        before.1 = if meets { before.1.max(next.1) } else { before.1 };
        meets
    });
    [("ip", true), ("ip6", false)].into_iter().filter_map(move |(family, is_v4)| {
        let of_family = all.iter().filter(|(first, _)| first.is_ipv4() == is_v4);
        let ranges: Vec<String> = of_family.map(|(first, last)| format!("{first}-{last}")).collect();
        (!ranges.is_empty()).then(|| (family, ranges.join(", ")))
    })
}

/// The family in nft's words, and the addresses.
fn addresses(selector: &TrafficSelector) -> (&'static str, String) {
    let family = if matches!(selector.first, IpAddr::V4(_)) { "ip" } else { "ip6" };
    let range = match selector.as_net() {
        Some(net) => net.to_string(),
        None => format!("{}-{}", selector.first, selector.last),
    };
    (family, range)
}

/// Protocol and ports, where the selectors have them.
fn upper(remote: &TrafficSelector, local: &TrafficSelector) -> String {
    let protocol = remote.protocol.max(local.protocol);
    if protocol == 0 {
        return String::new();
    }
    let mut text = format!(" meta l4proto {protocol}");
    let has_ports = matches!(protocol, 6 | 17 | 33 | 132 | 136);
    for (name, ports) in [("sport", remote.ports), ("dport", local.ports)] {
        // OPAQUE and the types of ICMP say nothing that a rule could look at: the whole protocol is refused.
        if has_ports && ports != (0, u16::MAX) && ports.0 <= ports.1 {
            let _ = write!(text, " th {name} {}-{}", ports.0, ports.1);
        }
    }
    text
}

/// A name as a quoted string of nft holds it: nothing in it can end the string.
fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._/-@:".contains(c) { c } else { '_' };
    name.chars().take(100).map(plain).collect()
}

fn run_nft(script: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("nft: {e}")))?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.lines().next().unwrap_or("nft failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Child, Selector};

    fn policy(name: &str, local: &str, remote: &str) -> Policy {
        let mut child = Child::named(name);
        child.local = vec![Selector::net(local.parse().unwrap())];
        child.remote = vec![Selector::net(remote.parse().unwrap())];
        Policy::of(name.into(), &child)
    }

    fn rules_of(policies: Vec<Policy>) -> String {
        let policies = policies.into_iter().map(|policy| (policy.label.clone(), policy)).collect();
        rules(&policies, &BTreeSet::from(["simplon0".into()]), Ports::default())
    }

    #[test]
    fn what_a_policy_protects_is_dropped_from_other_devices() {
        let text = rules_of(vec![policy("site", "10.1.0.0/24", "0.0.0.0/0")]);
        let expected = [
            "ip saddr != { 0.0.0.0-255.255.255.255 } accept",
            "iifname { \"lo\", \"simplon0\" } accept",
            "udp dport { 500, 4500 } fib daddr type local accept",
            "meta l4proto esp fib daddr type local accept",
            "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept",
            "ip saddr 10.1.0.0/24 ip daddr 10.1.0.0/24 accept",
            "ip saddr 0.0.0.0/0 ip daddr 10.1.0.0/24 counter drop comment \"site\"",
        ];
        assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_packet_from_elsewhere_is_looked_at_once() {
        let text = rules_of(vec![
            policy("a", "10.1.0.0/24", "10.2.0.0/16"),
            policy("b", "10.1.0.0/24", "10.2.7.0/24"),
            policy("c", "10.1.0.0/24", "10.4.0.0/24"),
            policy("d", "2001:db8:1::/48", "2001:db8:2::/48"),
        ]);
        let first: Vec<_> = text.lines().map(str::trim).take(2).collect();
        let six = "ip6 saddr != { 2001:db8:2::-2001:db8:2:ffff:ffff:ffff:ffff:ffff } accept";
        assert_eq!(first, ["ip saddr != { 10.2.0.0-10.2.255.255, 10.4.0.0-10.4.0.255 } accept", six]);
    }

    #[test]
    fn protocols_and_ports_narrow_the_rule() {
        let mut web = policy("web", "2001:db8:1::/48", "2001:db8:2::/48");
        (web.local[0].protocol, web.local[0].ports) = (6, (80, 81));
        assert!(rules_of(vec![web]).contains("ip6 daddr 2001:db8:1::/48 meta l4proto 6 th dport 80-81 counter drop"));
    }

    #[test]
    fn a_name_cannot_add_rules_and_without_policies_there_is_no_table() {
        let text = rules_of(vec![policy("x\" accept; }\n", "10.1.0.0/24", "10.2.0.0/24")]);
        assert!(text.ends_with("comment \"x__accept____\"\n"), "{text}");
        assert_eq!(rules_of(vec![]), "");
        assert!(!script("").contains("chain"));
    }
}
