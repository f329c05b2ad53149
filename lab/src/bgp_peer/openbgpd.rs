//! OpenBGPD, asked with bgpctl. It wants a `/run` of its own.

use super::{BgpPeer, Place, Plan};
use crate::error::Result;
use crate::shell::Process;

pub(super) struct Openbgpd {
    place: Place,
    process: Option<Process>,
}

/// A private `/run`, in which its processes leave their privileges behind.
const SCRIPT: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/openbgpd && exec \"$0\" \"$@\"";

impl Openbgpd {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, process: None }
    }

    fn configuration(&self) -> String {
        let plan = &self.place.plan;
        let Plan { address, router_id, asn, remote, remote_asn, networks, password, .. } = plan;
        let families =
            |own: std::net::IpAddr| format!("  announce {} unicast\n", if own.is_ipv6() { "IPv6" } else { "IPv4" });
        let families: String = plan.addresses().map(families).collect();
        let networks: String = networks.iter().map(|network| format!("network {network}\n")).collect();
        let password = password.as_ref().map(|key| format!("  tcp md5sig password \"{key}\"\n")).unwrap_or_default();
        format!(
            "AS {asn}\nrouter-id {router_id}\nsocket \"{}\"\nfib-update no\nholdtime 30\nconnect-retry 2\n{networks}\
             neighbor {remote} {{\n  remote-as {remote_asn}\n  local-address {address}\n{families}{password}}}\n\
             allow from any\nallow to any\n",
            self.place.file("ctl")
        )
    }

    fn bgpctl(&self, words: &[&str]) -> Result<String> {
        let socket = self.place.file("ctl");
        let mut all = vec!["bgpctl", "-s", &socket];
        all.extend(words);
        self.place.node.run(&all)
    }
}

impl BgpPeer for Openbgpd {
    fn plan(&mut self) -> &mut Plan {
        &mut self.place.plan
    }

    fn start(&mut self) -> Result<()> {
        self.place.write("bgpd.conf", &self.configuration())?;
        let (conf, socket) = (self.place.file("bgpd.conf"), self.place.file("ctl"));
        let words = ["unshare", "-m", "sh", "-c", SCRIPT, "/usr/sbin/bgpd", "-d", "-f", &conf];
        let mut process = self.place.node.spawn(&words, &[], &self.place.dir.join("out"))?;
        self.place.wait_for("OpenBGPD's control socket", &mut process, || {
            Ok(self.place.node.output(&["bgpctl", "-s", &socket, "show"])?.ok)
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn is_established(&mut self) -> Result<bool> {
        Ok(self.bgpctl(&["show", "neighbor"])?.contains("BGP state = Established"))
    }

    fn has_route(&mut self, prefix: &str) -> Result<bool> {
        Ok(self.bgpctl(&["show", "rib"])?.contains(prefix))
    }

    fn announce(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.push(prefix.into());
        self.bgpctl(&["network", "add", prefix]).map(drop)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.retain(|network| network != prefix);
        self.bgpctl(&["network", "delete", prefix]).map(drop)
    }

    fn refresh(&mut self) -> Result<bool> {
        self.bgpctl(&["neighbor", &self.place.plan.remote.to_string(), "refresh"]).map(|_| true)
    }

    /// It waits 30 s after an error, and twice as long after the next.
    fn wake(&mut self) -> Result<()> {
        self.bgpctl(&["neighbor", &self.place.plan.remote.to_string(), "clear"]).map(drop)
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn log_tail(&self, lines: usize) -> String {
        self.place.tail(&["out"], lines)
    }
}
