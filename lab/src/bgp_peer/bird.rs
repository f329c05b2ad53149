//! BIRD 2, asked over its control socket.

use super::{BgpPeer, Place, Plan, family, is_ipv6};
use crate::error::Result;
use crate::shell::Process;

pub(super) struct Bird {
    place: Place,
    process: Option<Process>,
}

impl Bird {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, process: None }
    }

    fn configuration(&self) -> String {
        let plan = &self.place.plan;
        let Plan { address, router_id, interface, asn, remote, remote_asn, password, bfd, .. } = plan;
        let (mut statics, mut channels) = (String::new(), String::new());
        for own in plan.addresses() {
            let family = family(own);
            let networks = plan.networks.iter().filter(|network| is_ipv6(network) == own.is_ipv6());
            let routes: String = networks.map(|network| format!("  route {network} blackhole;\n")).collect();
            statics += &format!("protocol static networks_{family} {{\n  {family};\n{routes}}}\n");
            channels += &format!(
                "  {family} {{\n    import all;\n    export where source = RTS_STATIC;\n    next hop address {own};\n  }};\n"
            );
        }
        let password = password.as_ref().map(|key| format!("  password \"{key}\";\n")).unwrap_or_default();
        let (watch, uses) = if *bfd {
            (
                format!(
                    "protocol bfd {{\n  interface \"{interface}\" {{\n    min rx interval 100 ms;\n    min tx interval 100 ms;\n    \
                     idle tx interval 300 ms;\n    multiplier 3;\n  }};\n}}\n"
                ),
                "  bfd on;\n",
            )
        } else {
            (String::new(), "")
        };
        format!(
            "log \"{}\" all;\nrouter id {router_id};\nprotocol device {{ }}\n{watch}{statics}\
             protocol bgp neighbour {{\n  local {address} as {asn};\n  neighbor {remote} as {remote_asn};\n  hold time 30;\n  \
             keepalive time 10;\n  connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n{password}{uses}{channels}}}\n",
            self.place.file("log")
        )
    }

    fn birdc(&self, words: &[&str]) -> Result<String> {
        let socket = self.place.file("ctl");
        let mut all = vec!["birdc", "-s", &socket];
        all.extend(words);
        self.place.node.run(&all)
    }

    fn reconfigure(&self) -> Result<()> {
        self.place.write("bird.conf", &self.configuration())?;
        self.birdc(&["configure"]).map(drop)
    }
}

impl BgpPeer for Bird {
    fn plan(&mut self) -> &mut Plan {
        &mut self.place.plan
    }

    fn start(&mut self) -> Result<()> {
        self.place.write("bird.conf", &self.configuration())?;
        let (conf, socket) = (self.place.file("bird.conf"), self.place.file("ctl"));
        let words = ["bird", "-f", "-c", &conf, "-s", &socket];
        let mut process = self.place.node.spawn(&words, &[], &self.place.dir.join("out"))?;
        self.place.wait_for("BIRD's control socket", &mut process, || {
            Ok(self.place.node.output(&["birdc", "-s", &socket, "show", "status"])?.ok)
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn is_established(&mut self) -> Result<bool> {
        Ok(self.birdc(&["show", "protocols", "neighbour"])?.contains("Established"))
    }

    fn has_route(&mut self, prefix: &str) -> Result<bool> {
        Ok(self.birdc(&["show", "route", "protocol", "neighbour"])?.contains(prefix))
    }

    fn announce(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.push(prefix.into());
        self.reconfigure()
    }

    fn withdraw(&mut self, prefix: &str) -> Result<()> {
        self.place.plan.networks.retain(|network| network != prefix);
        self.reconfigure()
    }

    fn refresh(&mut self) -> Result<bool> {
        self.birdc(&["reload", "in", "neighbour"]).map(|_| true)
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
