//! ExaBGP, which forwards nothing: it is told by lines that a process of ours prints, and tells another one in JSON.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{BgpPeer, Place, Plan, family};
use crate::clock;
use crate::error::{Error, Result};
use crate::shell::Process;

pub(super) struct Exabgp {
    place: Place,
    process: Option<Process>,
}

impl Exabgp {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, process: None }
    }

    fn configuration(&self) -> String {
        let plan = &self.place.plan;
        let Plan { address, router_id, asn, remote, remote_asn, networks, .. } = plan;
        let routes: String = networks.iter().map(|network| format!("    {};\n", self.route(network))).collect();
        let families: String = plan.addresses().map(|own| format!("    {} unicast;\n", family(own))).collect();
        let (heard, orders) = (self.place.file("heard"), self.place.file("orders"));
        format!(
            "process listener {{\n  run /bin/sh -c \"cat >> {heard}\";\n  encoder json;\n}}\n\
             process speaker {{\n  run /bin/sh -c \"exec tail -n +1 -f {orders}\";\n  encoder text;\n}}\n\
             neighbor {remote} {{\n  router-id {router_id};\n  local-address {address};\n  local-as {asn};\n  \
             peer-as {remote_asn};\n  hold-time 30;\n  capability {{\n    route-refresh enable;\n    asn4 enable;\n  }}\n  \
             family {{\n{families}  }}\n  \
             static {{\n{routes}  }}\n  api listen {{\n    processes [ listener ];\n    neighbor-changes;\n    \
             receive {{\n      parsed;\n      update;\n    }}\n  }}\n  api speak {{\n    processes [ speaker ];\n  }}\n}}\n"
        )
    }

    fn route(&self, prefix: &str) -> String {
        let next_hop = self.place.plan.next_hop(prefix).unwrap_or(self.place.plan.address);
        format!("route {prefix} next-hop {next_hop}")
    }

    fn order(&self, line: &str) -> Result<()> {
        let path = self.place.dir.join("orders");
        let write = || writeln!(std::fs::OpenOptions::new().append(true).open(&path)?, "{line}");
        write().map_err(|e| Error::io(format!("writing {}", path.display()), e))
    }

    fn heard(&self) -> Heard {
        Heard::read(&std::fs::read_to_string(self.place.dir.join("heard")).unwrap_or_default())
    }
}

/// What the listener was told up to now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    is_established: bool,
    routes: BTreeSet<String>,
}

impl Heard {
    fn read(text: &str) -> Self {
        let mut this = Self::default();
        for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            match message["neighbor"]["state"].as_str() {
                Some("up") => this.is_established = true,
                Some("down") => this = Self::default(),
                Some(_) | None => {}
            }
            let update = &message["neighbor"]["message"]["update"];
            for family in ["ipv4 unicast", "ipv6 unicast"] {
                let announced = update["announce"][family].as_object().into_iter().flat_map(|hops| hops.values());
                this.routes.extend(announced.flat_map(prefixes));
                for prefix in prefixes(&update["withdraw"][family]) {
                    this.routes.remove(&prefix);
                }
            }
        }
        this
    }
}

fn prefixes(list: &Value) -> Vec<String> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["nlri"].as_str().or(entry.as_str()).map(str::to_owned)).collect()
}

impl BgpPeer for Exabgp {
    fn plan(&mut self) -> &mut Plan {
        &mut self.place.plan
    }

    fn start(&mut self) -> Result<()> {
        self.place.write("exabgp.conf", &self.configuration())?;
        for name in ["heard", "orders"] {
            self.place.write(name, "")?;
        }
        let conf = self.place.file("exabgp.conf");
        let log = self.place.file("log");
        let env: [(&str, &OsStr); 5] = [
            ("exabgp.daemon.user", OsStr::new("root")),
            ("exabgp.log.destination", OsStr::new(&log)),
            ("exabgp.api.cli", OsStr::new("false")),
            ("exabgp.api.ack", OsStr::new("false")),
            ("exabgp.tcp.delay", OsStr::new("0")),
        ];
        let mut process = self.place.node.spawn(&["exabgp", &conf], &env, &self.place.dir.join("out"))?;
        clock::sleep(Duration::from_millis(300))?;
        if !process.is_running() {
            return Err(Error::Command { line: process.line().into(), said: self.log_tail(15) });
        }
        self.process = Some(process);
        Ok(())
    }

    fn is_established(&mut self) -> Result<bool> {
        Ok(self.heard().is_established)
    }

    fn has_route(&mut self, prefix: &str) -> Result<bool> {
        Ok(self.heard().routes.contains(prefix))
    }

    fn announce(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.push(prefix.into());
        self.order(&format!("announce {}", self.route(prefix)))
    }

    fn announce_with(&mut self, prefix: &str, [code, flags, value]: [&str; 3]) -> Result<bool> {
        self.order(&format!("announce {} attribute [ 0x{code} 0x{flags} 0x{value} ]", self.route(prefix)))
            .map(|()| true)
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.retain(|network| network != prefix);
        self.order(&format!("withdraw {}", self.route(prefix)))
    }

    fn refresh(&mut self) -> Result<bool> {
        self.order(&format!("announce route-refresh {} unicast", family(self.place.plan.address))).map(|()| true)
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn log_tail(&self, lines: usize) -> String {
        self.place.tail(&["out", "log"], lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_and_not_withdrawn_since_the_session_came_up_is_there() {
        let up = r#"{"neighbor":{"state":"up"}}"#;
        let announce = r#"{"neighbor":{"message":{"update":{"announce":{"ipv4 unicast":{"169.254.10.2":[{"nlri":"10.60.0.0/24"},{"nlri":"10.61.0.0/24"}]}}}}}}"#;
        let withdraw = r#"{"neighbor":{"message":{"update":{"withdraw":{"ipv4 unicast":[{"nlri":"10.61.0.0/24"}]}}}}}"#;
        let heard = Heard::read(&[up, announce, withdraw, "no JSON"].join("\n"));
        assert!(heard.is_established);
        assert_eq!(heard.routes.into_iter().collect::<Vec<_>>(), ["10.60.0.0/24"]);
        let down = r#"{"neighbor":{"state":"down","reason":"peer reset"}}"#;
        assert_eq!(Heard::read(&[up, announce, down].join("\n")), Heard::default());
    }
}
