//! GoBGP, asked with its own client over gRPC on the loopback of its namespace.

use super::{BgpPeer, Place, Plan, family, family_of};
use crate::error::Result;
use crate::shell::Process;

pub(super) struct Gobgp {
    place: Place,
    process: Option<Process>,
}

impl Gobgp {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, process: None }
    }

    fn configuration(&self) -> String {
        let plan = &self.place.plan;
        let Plan { router_id, asn, remote, remote_asn, password, .. } = plan;
        let families: String = plan.addresses().map(|own| {
            let family = family(own);
            format!("  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{family}-unicast\"\n")
        }).collect();
        let password = password.as_ref().map(|key| format!("    auth-password = \"{key}\"\n")).unwrap_or_default();
        format!(
            "[global.config]\n  as = {asn}\n  router-id = \"{router_id}\"\n[[neighbors]]\n  [neighbors.config]\n    \
             neighbor-address = \"{remote}\"\n    peer-as = {remote_asn}\n{password}  [neighbors.timers.config]\n    \
             hold-time = 30\n    keepalive-interval = 10\n    connect-retry = 2\n    idle-hold-time-after-reset = 2\n{families}"
        )
    }

    fn gobgp(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["gobgp"];
        all.extend(words);
        self.place.node.run(&all)
    }

    /// Adds a network of its own to its table, or takes it out.
    fn network(&self, verb: &str, prefix: &str) -> Result<()> {
        let next_hop = self.place.plan.next_hop(prefix).unwrap_or(self.place.plan.address);
        let words = ["global", "rib", verb, prefix, "nexthop", &next_hop.to_string(), "-a", family(next_hop)];
        self.gobgp(&words).map(drop)
    }
}

impl BgpPeer for Gobgp {
    fn plan(&mut self) -> &mut Plan {
        &mut self.place.plan
    }

    fn start(&mut self) -> Result<()> {
        self.place.write("gobgpd.toml", &self.configuration())?;
        let conf = self.place.file("gobgpd.toml");
        let words = ["gobgpd", "-f", &conf, "--api-hosts", "127.0.0.1:50051"];
        let mut process = self.place.node.spawn(&words, &[], &self.place.dir.join("out"))?;
        self.place.wait_for("GoBGP's interface", &mut process, || {
            Ok(self.place.node.output(&["gobgp", "global"])?.stdout.contains("AS:"))
        })?;
        self.process = Some(process);
        for network in self.place.plan.networks.clone() {
            self.network("add", &network)?;
        }
        Ok(())
    }

    fn is_established(&mut self) -> Result<bool> {
        Ok(self.gobgp(&["neighbor"])?.contains("Establ"))
    }

    fn has_route(&mut self, prefix: &str) -> Result<bool> {
        Ok(self.gobgp(&["global", "rib", "-a", family_of(prefix)])?.contains(prefix))
    }

    fn announce(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.push(prefix.into());
        self.network("add", prefix)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.retain(|network| network != prefix);
        self.network("del", prefix)
    }

    /// It keeps everything that it heard, and `softresetin` goes through that again without asking anybody.
    fn refresh(&mut self) -> Result<bool> {
        Ok(false)
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
