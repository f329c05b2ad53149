//! FRR: bgpd, and zebra with bfdd where it needs them; asked with vtysh.

use std::time::Duration;

use super::{BgpPeer, Place, Plan, family, family_of, is_ipv6};
use crate::clock;
use crate::error::Result;
use crate::shell::Process;

/// A private `/etc/group`, in which root may have terminals: zebra and bfdd insist on that.
const SCRIPT: &str = "mount --bind \"$0\" /etc/group && exec \"$@\"";

pub(super) struct Frr {
    place: Place,
    /// In the order in which they were started.
    processes: Vec<Process>,
}

impl Frr {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, processes: Vec::new() }
    }

    fn configuration(&self) -> String {
        let plan = &self.place.plan;
        let Plan { router_id, asn, remote, remote_asn, password, bfd, .. } = plan;
        let of_family = |own: std::net::IpAddr| {
            let networks = plan.networks.iter().filter(|network| is_ipv6(network) == own.is_ipv6());
            let networks: String = networks.map(|network| format!("  network {network}\n")).collect();
            let family = family(own);
            format!(" address-family {family} unicast\n  neighbor {remote} activate\n{networks} exit-address-family\n")
        };
        let families: String = plan.addresses().map(of_family).collect();
        let password = password.as_ref().map(|key| format!(" neighbor {remote} password {key}\n")).unwrap_or_default();
        let bfd = if *bfd { format!(" neighbor {remote} bfd 3 100 100\n") } else { String::new() };
        format!(
            "log file {} debugging\ndebug bgp neighbor-events\nrouter bgp {asn}\n bgp router-id {router_id}\n \
             no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n timers bgp 10 30\n \
             neighbor {remote} remote-as {remote_asn}\n neighbor {remote} timers connect 2\n{password}{bfd}{families}",
            self.place.file("log")
        )
    }

    fn vtysh(&self, commands: &[&str]) -> Result<String> {
        let mut words = vec!["vtysh", "--vty_socket"];
        let dir = self.place.dir.to_string_lossy();
        words.push(&dir);
        for command in commands {
            words.extend(["-c", command]);
        }
        self.place.node.run(&words)
    }

    /// Has a network announced, or no longer.
    fn network(&self, verb: &str, prefix: &str) -> Result<()> {
        let router = format!("router bgp {}", self.place.plan.asn);
        let family = format!("address-family {} unicast", family_of(prefix));
        self.vtysh(&["configure terminal", &router, &family, &format!("{verb} {prefix}")]).map(drop)
    }

    fn spawn(&mut self, daemon: &str, more: &[&str]) -> Result<()> {
        let program = format!("/usr/lib/frr/{daemon}");
        let (conf, pid) = (self.place.file(&format!("{daemon}.conf")), self.place.file(&format!("{daemon}.pid")));
        let (dir, zebra) = (self.place.dir.to_string_lossy().into_owned(), self.place.file("zserv.api"));
        let group = self.place.file("group");
        let mut words = vec!["unshare", "-m", "sh", "-c", SCRIPT, &group, &program];
        words.extend(["-f", &conf, "-i", &pid, "-u", "root", "-g", "root", "-z", &zebra]);
        words.extend(["--vty_socket", &dir, "-A", "127.0.0.1", "-P", "0"]);
        words.extend(more);
        let mut process = self.place.node.spawn(&words, &[], &self.place.dir.join(format!("{daemon}.out")))?;
        let socket = self.place.dir.join(format!("{daemon}.vty"));
        self.place.wait_for(&format!("{daemon}'s terminal"), &mut process, || Ok(socket.exists()))?;
        self.processes.push(process);
        Ok(())
    }
}

impl BgpPeer for Frr {
    fn plan(&mut self) -> &mut Plan {
        &mut self.place.plan
    }

    fn start(&mut self) -> Result<()> {
        self.place.write("bgpd.conf", &self.configuration())?;
        self.place.write("group", &group_with_root(&std::fs::read_to_string("/etc/group").unwrap_or_default()))?;
        for daemon in ["zebra", "bfdd"] {
            self.place.write(&format!("{daemon}.conf"), "")?;
        }
        // Next hops of the other family are addresses of interfaces, which zebra knows.
        if !self.place.plan.bfd && self.place.plan.other.is_none() {
            return self.spawn("bgpd", &["-S", "-Z"]);
        }
        self.spawn("zebra", &[])?;
        let socket = self.place.file("bfdd.sock");
        self.spawn("bfdd", &["--bfdctl", &socket])?;
        self.spawn("bgpd", &["-S"])
    }

    fn is_established(&mut self) -> Result<bool> {
        let text = self.vtysh(&["show bgp summary json"])?;
        Ok(text.contains("\"state\":\"Established\""))
    }

    fn has_route(&mut self, prefix: &str) -> Result<bool> {
        let text = self.vtysh(&[&format!("show bgp {} unicast {prefix} json", family_of(prefix))])?;
        let remote = self.place.plan.remote.to_string();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let paths = json["paths"].as_array().into_iter().flatten();
        Ok(paths.into_iter().any(|path| path["peer"]["peerId"] == remote))
    }

    fn announce(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.push(prefix.into());
        self.network("network", prefix)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.retain(|network| network != prefix);
        self.network("no network", prefix)
    }

    fn refresh(&mut self) -> Result<bool> {
        let remote = self.place.plan.remote;
        self.vtysh(&[&format!("clear bgp {} unicast {remote} soft in", family(remote))]).map(|_| true)
    }

    fn crash(&mut self) {
        while let Some(mut process) = self.processes.pop() {
            process.kill();
        }
        for daemon in ["bgpd", "zebra", "bfdd"] {
            let _ = std::fs::remove_file(self.place.dir.join(format!("{daemon}.vty")));
        }
        // The kernel lets go of the ports of a killed one.
        clock::sleep_through(Duration::from_millis(50));
    }

    fn log_tail(&self, lines: usize) -> String {
        self.place.tail(&["bgpd.out", "log"], lines)
    }
}

/// The groups of this system, with root a member of `frrvty`.
fn group_with_root(groups: &str) -> String {
    let with_root = |line: &str| match line.strip_prefix("frrvty:") {
        Some(_) if line.ends_with(':') => format!("{line}root\n"),
        Some(_) => format!("{line},root\n"),
        None => format!("{line}\n"),
    };
    groups.lines().map(with_root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_joins_the_group_whoever_is_in_it() {
        assert_eq!(group_with_root("root:x:0:\nfrrvty:x:113:\n"), "root:x:0:\nfrrvty:x:113:root\n");
        assert_eq!(group_with_root("frrvty:x:113:frr\n"), "frrvty:x:113:frr,root\n");
    }
}
