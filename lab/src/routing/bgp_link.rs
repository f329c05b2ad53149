//! simplon and another BGP speaker on a plain link: sessions, routes, and everything that can end a session.
//!
//! ```text
//!  simplon 169.254.10.2 ── 169.254.10.1 peer
//!  AS 4200000001            AS 64512
//! ```
//!
//! The link has addresses of IPv6 too. The session runs over one family and carries its routes; those of the other family
//! join them for a while (RFC 4760, RFC 2545).

use std::time::Duration;

use serde_json::Value;

use crate::bgp_peer::{BgpPeer, BgpPeerKind, Plan};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::routing::config::{table, texts};
use crate::routing::daemon::{Daemon, neighbor};
use crate::routing::report::Reporter;

/// The ground.
pub(super) const DRAWING: &str = "  simplon 169.254.10.2 ── 169.254.10.1 the other speaker
  AS 4200000001            AS 64512
  10.60.0.0/24             10.50.0.0/24";
pub(super) const IPV6_DRAWING: &str = "  simplon fd00:10::2 ── fd00:10::1 the other speaker
  AS 4200000001         AS 64512
  2001:db8:60::/48      2001:db8:50::/48";

/// The addresses between which the session runs, and the networks that are announced on it.
#[derive(Clone, Copy, Debug)]
struct Nets {
    ours: &'static str,
    theirs: &'static str,
    our_net: &'static str,
    our_other_net: &'static str,
    their_net: &'static str,
    their_other_net: &'static str,
    their_third_net: &'static str,
}

const IPV4: Nets = Nets {
    ours: "169.254.10.2",
    theirs: "169.254.10.1",
    our_net: "10.60.0.0/24",
    our_other_net: "10.61.0.0/24",
    their_net: "10.50.0.0/24",
    their_other_net: "10.51.0.0/24",
    their_third_net: "10.52.0.0/24",
};
const IPV6: Nets = Nets {
    ours: "fd00:10::2",
    theirs: "fd00:10::1",
    our_net: "2001:db8:60::/48",
    our_other_net: "2001:db8:61::/48",
    their_net: "2001:db8:50::/48",
    their_other_net: "2001:db8:51::/48",
    their_third_net: "2001:db8:52::/48",
};

const PASSWORD: &str = "of-the-lab";

/// What differs in simplon's configuration from step to step.
#[derive(Clone)]
struct Ours<'a> {
    nets: Nets,
    families: &'static str,
    next_hop: &'a str,
    remote_as: &'static str,
    networks: Vec<&'static str>,
    hold: &'static str,
    keepalive: &'static str,
    password: &'static str,
    max_prefixes: &'static str,
    bfd: &'static str,
}

impl Ours<'_> {
    fn of(nets: Nets) -> Self {
        Self {
            nets,
            families: "",
            next_hop: "",
            remote_as: "64512",
            networks: vec![nets.our_net],
            hold: "\"30s\"",
            keepalive: "\"10s\"",
            password: "",
            max_prefixes: "",
            bfd: "",
        }
    }

    fn toml(&self) -> String {
        let networks = texts(&self.networks);
        let bgp = table("bgp", &[("as", "4200000001"), ("router-id", "\"169.254.10.2\""), ("networks", &networks)]);
        let lists = table("bgp.prefix-list", &[("all", "[\"permit any\"]")]);
        let neighbor = table(
            &format!("bgp.neighbor.\"{}\"", self.nets.theirs),
            &[
                ("as", self.remote_as),
                ("local-address", &format!("\"{}\"", self.nets.ours)),
                ("families", self.families),
                ("next-hop", self.next_hop),
                ("hold", self.hold),
                ("keepalive", self.keepalive),
                ("connect-retry", "\"1s\""),
                ("password", self.password),
                ("max-prefixes", self.max_prefixes),
                ("import", "\"all\""),
                ("export", "\"all\""),
                ("bfd", self.bfd),
            ],
        );
        bgp + &lists + &neighbor
    }
}

/// Both ends.
struct Link {
    nets: Nets,
    /// Of the family that the session does not run over.
    other: Nets,
    simplon: Daemon,
    node: Node,
    peer: Box<dyn BgpPeer>,
}

/// With a session over IPv6, or over IPv4.
pub(super) fn play(kind: BgpPeerKind, over_ipv6: bool, lab: &Lab, reporter: &mut Reporter) -> Result<()> {
    let (nets, other) = if over_ipv6 { (IPV6, IPV4) } else { (IPV4, IPV6) };
    let [ours, theirs] = [lab.node("simplon")?, lab.node(kind.name())?];
    lab.link((&ours, "eth0"), (&theirs, "eth0"))?;
    for (node, ipv4, ipv6) in [(&ours, IPV4.ours, IPV6.ours), (&theirs, IPV4.theirs, IPV6.theirs)] {
        node.address("eth0", &format!("{ipv4}/30"))?;
        node.address("eth0", &format!("{ipv6}/64"))?;
    }
    let plan = Plan {
        address: address(nets.theirs)?,
        router_id: std::net::Ipv4Addr::new(169, 254, 10, 1),
        interface: "eth0".into(),
        asn: 64_512,
        remote: address(nets.ours)?,
        remote_asn: 4_200_000_001,
        other: None,
        networks: vec![nets.their_net.into()],
        password: None,
        bfd: false,
    };
    let mut peer = kind.build(lab, &theirs, plan)?;
    peer.start()?;
    let simplon = Daemon::start(lab, &ours, "simplon-daemon", &Ours::of(nets).toml())?;
    reporter.step(format!("simplon and {kind} run"));
    let mut link = Link { nets, other, simplon, node: ours, peer };
    let played = link.steps(kind, reporter);
    match played {
        Ok(()) => {}
        Err(error @ (Error::Late { .. } | Error::Command { .. })) => {
            reporter.check("the case was played to its end", false, error.to_string());
        }
        Err(error) => return Err(error),
    }
    if reporter.has_failed() {
        reporter.log("simplon", &link.simplon.log_tail(60));
        reporter.log(kind.name(), &link.peer.log_tail(40));
        reporter.log("the neighbour's status", &link.neighbor()?.to_string());
    }
    link.simplon.stop();
    link.peer.crash();
    Ok(())
}

fn address(text: &str) -> Result<std::net::IpAddr> {
    text.parse().map_err(|e| Error::Asked(format!("{text}: {e}")))
}

impl Link {
    fn steps(&mut self, kind: BgpPeerKind, reporter: &mut Reporter) -> Result<()> {
        self.session(reporter)?;
        self.routes(reporter)?;
        self.refresh(reporter)?;
        self.bad_attributes(reporter)?;
        if kind.has_other_next_hop() {
            self.both_families(reporter)?;
        }
        self.restart(reporter)?;
        self.hold_timer(reporter)?;
        self.wrong_as(reporter)?;
        self.too_many_prefixes(reporter)?;
        if kind.has_md5() {
            self.password(reporter)?;
        }
        if kind.has_bfd() {
            self.bfd(reporter)?;
        }
        Ok(())
    }

    fn session(&mut self, reporter: &mut Reporter) -> Result<()> {
        let took = self.wait_until_established()?;
        let now = self.neighbor()?;
        let words = [&now["capabilities"], &now["hold_s"], &now["router_id"]].map(Value::to_string);
        let four_octets = words[0].contains('4') || words[0].to_lowercase().contains("four");
        let what = format!("{took:.1} s; capabilities {}, hold {}, router {}", words[0], words[1], words[2]);
        reporter.check("the session comes up, with an AS number of four octets", four_octets, what);
        Ok(())
    }

    /// Routes pass both ways, are withdrawn and come again.
    fn routes(&mut self, reporter: &mut Reporter) -> Result<()> {
        let took = self.wait_for_route(self.nets.their_net, true)?;
        let route = self.kernel_routes(self.nets.their_net)?;
        let held = route.contains(&format!("via {}", self.nets.theirs)) && route.contains("metric 20");
        reporter.check("their route is in our kernel", held, format!("{took:.2} s: {}", route.trim()));
        self.wait_for_theirs(self.nets.our_net, true)?;
        reporter.check("our route is in their table", true, self.nets.our_net);

        self.peer.announce(self.nets.their_other_net)?;
        let took = self.wait_for_route(self.nets.their_other_net, true)?;
        reporter.check("a route they announce later comes in", true, format!("{took:.2} s"));
        self.peer.withdraw(self.nets.their_other_net)?;
        let took = self.wait_for_route(self.nets.their_other_net, false)?;
        reporter.check("and goes when they withdraw it", true, format!("{took:.2} s"));

        self.simplon.reconfigure(
            &Ours { networks: vec![self.nets.our_net, self.nets.our_other_net], ..Ours::of(self.nets) }.toml(),
        )?;
        self.wait_for_theirs(self.nets.our_other_net, true)?;
        self.simplon.reconfigure(&Ours::of(self.nets).toml())?;
        self.wait_for_theirs(self.nets.our_other_net, false)?;
        let now = self.neighbor()?;
        let held = now["flaps"] == 0 && now["state"] == "established";
        reporter.check(
            "a reload announces and withdraws without touching the session",
            held,
            format!("flaps {}", now["flaps"]),
        );
        Ok(())
    }

    /// They ask for our routes again.
    fn refresh(&mut self, reporter: &mut Reporter) -> Result<()> {
        let count = |link: &Self| -> Result<u64> { Ok(link.neighbor()?["updates_out"].as_u64().unwrap_or(0)) };
        let before = count(self)?;
        if !self.peer.refresh()? {
            reporter.step("left out: this speaker cannot be made to send ROUTE-REFRESH");
            return Ok(());
        }
        let answered =
            clock::wait_for("an answer to ROUTE-REFRESH", Duration::from_secs(5), || Ok(count(self)? > before));
        let held = answered.is_ok();
        reporter.check(
            "ROUTE-REFRESH is answered with our routes",
            held,
            format!("{before} updates, then {}", count(self)?),
        );
        Ok(())
    }

    /// RFC 7606: a malformed attribute takes its route with it or is ignored, and the session goes on.
    fn bad_attributes(&mut self, reporter: &mut Reporter) -> Result<()> {
        // A MULTI_EXIT_DISC that claims to be transitive; an ATOMIC_AGGREGATE with a value.
        if !self.peer.announce_with(self.nets.their_other_net, ["04", "c0", "00000009"])? {
            return Ok(());
        }
        let told = clock::wait_for("word of the malformed attribute", Duration::from_secs(10), || {
            Ok(self.events()?.contains("MULTI_EXIT_DISC, its flags are wrong"))
        });
        let events = self.events()?;
        let line = events.lines().find(|line| line.contains("malformed")).unwrap_or("nothing was said").to_owned();
        let is_there = self.kernel_routes(self.nets.their_other_net)?.contains("via");
        reporter.check(
            "a route with a malformed attribute is none, and the log has it",
            told.is_ok() && !is_there,
            line,
        );
        // AS_SEQUENCE 64512, AS_SET 9 (RFC 9774).
        self.peer.announce_with(self.nets.their_other_net, ["02", "40", "02010000fc00010100000009"])?;
        let told = clock::wait_for("word of the AS_SET", Duration::from_secs(10), || {
            Ok(self.events()?.contains("AS_PATH, it has an AS_SET"))
        });
        let is_there = self.kernel_routes(self.nets.their_other_net)?.contains("via");
        reporter.check("nor is one with an AS_SET in its path", told.is_ok() && !is_there, "and the log has it");
        self.peer.announce_with(self.nets.their_third_net, ["06", "40", "01"])?;
        let took = self.wait_for_route(self.nets.their_third_net, true)?;
        let ignored = self.events()?.contains("ATOMIC_AGGREGATE, its length is not 0");
        reporter.check("one that may be ignored is ignored, and said", ignored, format!("{took:.2} s"));
        for network in [self.nets.their_other_net, self.nets.their_third_net] {
            self.peer.withdraw(network)?;
        }
        self.wait_for_route(self.nets.their_third_net, false)?;
        let now = self.neighbor()?;
        let held = now["state"] == "established" && now["flaps"] == 0;
        reporter.check("the session goes on", held, format!("{}, flaps {}", now["state"], now["flaps"]));
        Ok(())
    }

    /// Routes of the family that the session does not run over, with next hops of that family (RFC 4760 §3).
    fn both_families(&mut self, reporter: &mut Reporter) -> Result<()> {
        let (nets, other) = (self.nets, self.other);
        self.peer.crash();
        self.peer.plan().other = Some(address(other.theirs)?);
        self.peer.plan().networks.push(other.their_net.into());
        let both = Ours {
            families: "[\"ipv4\", \"ipv6\"]",
            next_hop: &format!("\"{}\"", other.ours),
            networks: vec![nets.our_net, other.our_net],
            ..Ours::of(nets)
        };
        self.simplon.reconfigure(&both.toml())?;
        self.peer.start()?;
        self.wait_until_established()?;
        for nets in [nets, other] {
            self.wait_for_route(nets.their_net, true)?;
            self.wait_for_theirs(nets.our_net, true)?;
        }
        let routes = [nets, other].map(|nets| self.kernel_routes(nets.their_net));
        let [route, other_route] = routes.map(Result::unwrap_or_default);
        let held = other_route.contains(&format!("via {}", other.theirs));
        let what = format!("{} | {}", route.trim(), other_route.trim());
        reporter.check("routes of both families pass on one session, both ways", held, what);
        self.peer.withdraw(other.their_net)?;
        self.wait_for_route(other.their_net, false)?;
        self.simplon.reconfigure(&Ours { networks: vec![nets.our_net], ..both }.toml())?;
        self.wait_for_theirs(other.our_net, false)?;
        let now = self.neighbor()?;
        let held = now["state"] == "established" && self.kernel_routes(nets.their_net)?.contains("via");
        reporter.check("and are withdrawn, without touching those of the session's own family", held, other.their_net);
        self.peer.crash();
        self.peer.plan().other = None;
        self.simplon.reconfigure(&Ours::of(nets).toml())?;
        self.peer.start()?;
        self.wait_until_established().map(drop)
    }

    /// They are killed and come again.
    fn restart(&mut self, reporter: &mut Reporter) -> Result<()> {
        self.peer.crash();
        self.wait_until_down(Duration::from_secs(10))?;
        self.peer.start()?;
        let took = self.wait_until_established()?;
        self.wait_for_route(self.nets.their_net, true)?;
        self.wait_for_theirs(self.nets.our_net, true)?;
        reporter.check("the session comes back after their restart", true, format!("{took:.1} s after it"));
        Ok(())
    }

    /// The path is cut; only the hold timer notices.
    fn hold_timer(&mut self, reporter: &mut Reporter) -> Result<()> {
        let short = Ours { hold: "\"3s\"", keepalive: "\"1s\"", ..Ours::of(self.nets) };
        self.simplon.reconfigure(&short.toml())?;
        // Timers are agreed when a session begins.
        clock::wait_for("a session with a hold time of 3 s", Duration::from_secs(20), || {
            let now = self.neighbor()?;
            if now["hold_s"] == 30 && now["state"] == "established" {
                self.peer.crash();
                self.peer.start()?;
            }
            Ok(now["hold_s"] == 3 && now["state"] == "established")
        })?;
        self.wait_for_route(self.nets.their_net, true)?;
        self.cut(true)?;
        let took = self.wait_until_down(Duration::from_secs(8))?;
        let why = self.last_error()?;
        reporter.check("the hold timer ends a session that is silent", took < 5.0, format!("{took:.1} s: {why}"));
        let gone = self.wait_for_route(self.nets.their_net, false).is_ok();
        reporter.check("and its routes leave the kernel", gone, self.nets.their_net);
        self.cut(false)?;
        let took = self.wait_until_established()?;
        self.wait_for_route(self.nets.their_net, true)?;
        reporter.check("the session comes back when the path does", true, format!("{took:.1} s after it"));
        self.simplon.reconfigure(&Ours::of(self.nets).toml())?;
        self.wait_until_established().map(drop)
    }

    /// We expect another AS: RFC 4271 §6.2, Bad Peer AS, and a word on what to change.
    fn wrong_as(&mut self, reporter: &mut Reporter) -> Result<()> {
        self.simplon.reconfigure(&Ours { remote_as: "64999", ..Ours::of(self.nets) }.toml())?;
        let named = |why: &str| why.contains("64512") && why.contains("64999");
        let told = clock::wait_for("the reason why the session does not come up", Duration::from_secs(15), || {
            Ok(named(&self.last_error()?))
        });
        let why = self.last_error()?;
        reporter.check("a wrong AS is refused, and the reason names both", told.is_ok(), why);
        let events = self.events()?;
        let sent = events.contains("2/2") || events.to_lowercase().contains("bad peer as");
        reporter.check("with the NOTIFICATION Bad Peer AS (2/2)", sent, last_lines(&events, 2));
        self.simplon.reconfigure(&Ours::of(self.nets).toml())?;
        self.peer.wake()?;
        let took = self.wait_until_established()?;
        reporter.check("it comes up once the AS is right", true, format!("{took:.1} s"));
        Ok(())
    }

    /// RFC 4486: Cease, Maximum Number of Prefixes Reached.
    fn too_many_prefixes(&mut self, reporter: &mut Reporter) -> Result<()> {
        self.simplon.reconfigure(&Ours { max_prefixes: "2", ..Ours::of(self.nets) }.toml())?;
        self.wait_until_established()?;
        self.wait_for_route(self.nets.their_net, true)?;
        // Three are too many; some speakers also give us our own route back, which counts as any other.
        for network in [self.nets.their_other_net, self.nets.their_third_net] {
            self.peer.announce(network)?;
        }
        self.wait_until_down(Duration::from_secs(10))?;
        let (why, events) = (self.last_error()?, self.events()?);
        let held = events.contains("6/1") || why.contains("6/1") || why.to_lowercase().contains("prefixes");
        reporter.check("more prefixes than max-prefixes end the session with Cease 6/1", held, why);
        for network in [self.nets.their_other_net, self.nets.their_third_net] {
            self.peer.withdraw(network)?;
        }
        self.simplon.reconfigure(&Ours::of(self.nets).toml())?;
        self.peer.wake()?;
        let took = self.wait_until_established()?;
        reporter.check("it comes up once the limit is lifted", true, format!("{took:.1} s"));
        Ok(())
    }

    /// RFC 2385.
    fn password(&mut self, reporter: &mut Reporter) -> Result<()> {
        self.peer.crash();
        self.peer.plan().password = Some(PASSWORD.into());
        self.simplon.reconfigure(&Ours { password: "\"another\"", ..Ours::of(self.nets) }.toml())?;
        self.peer.start()?;
        clock::sleep(Duration::from_secs(3))?;
        let now = self.neighbor()?;
        let (state, why) = (now["state"].to_string(), self.last_error()?);
        reporter.check(
            "a wrong key of TCP MD5 keeps the session down",
            state != "\"established\"",
            format!("{state}: {why}"),
        );
        self.simplon.reconfigure(&Ours { password: "\"of-the-lab\"", ..Ours::of(self.nets) }.toml())?;
        self.peer.wake()?;
        let took = self.wait_until_established()?;
        self.wait_for_route(self.nets.their_net, true)?;
        reporter.check("with the right key it comes up", true, format!("{took:.1} s"));
        self.peer.crash();
        self.peer.plan().password = None;
        self.simplon.reconfigure(&Ours::of(self.nets).toml())?;
        self.peer.start()?;
        self.wait_until_established().map(drop)
    }

    /// BFD 3 × 100 ms ends the session long before the hold timer.
    fn bfd(&mut self, reporter: &mut Reporter) -> Result<()> {
        self.peer.crash();
        self.peer.plan().bfd = true;
        self.simplon
            .reconfigure(&Ours { bfd: "{ interval = \"100ms\", multiplier = 3 }", ..Ours::of(self.nets) }.toml())?;
        self.peer.start()?;
        self.wait_until_established()?;
        clock::wait_for("BFD", Duration::from_secs(15), || Ok(self.neighbor()?["bfd"] == "up"))?;
        // The intervals of both ends are in force once a poll sequence is done (RFC 5880 §6.8.3).
        clock::wait_for("the agreed intervals of BFD", Duration::from_secs(10), || {
            Ok(self.simplon.status()?["bfd"][0]["detection_ms"].as_u64().is_some_and(|ms| ms <= 300))
        })?;
        self.wait_for_route(self.nets.their_net, true)?;
        let cut = clock::now();
        self.cut(true)?;
        clock::wait_for("the end of the session", Duration::from_secs(5), || {
            Ok(!self.kernel_routes(self.nets.their_net)?.contains("via"))
        })?;
        let ms = (clock::now() - cut).as_secs_f64() * 1000.0;
        let why = self.last_error()?;
        reporter.check("BFD ends the session and its routes within 500 ms", ms < 500.0, format!("{ms:.0} ms: {why}"));
        self.cut(false)?;
        let took = self.wait_until_established()?;
        self.wait_for_route(self.nets.their_net, true)?;
        reporter.check("the session comes back when the path does", true, format!("{took:.1} s after it"));
        Ok(())
    }

    fn neighbor(&self) -> Result<Value> {
        Ok(neighbor(&self.simplon.status()?, self.nets.theirs).clone())
    }

    fn last_error(&self) -> Result<String> {
        Ok(self.neighbor()?["last_error"].as_str().unwrap_or("nothing is said").to_owned())
    }

    fn events(&self) -> Result<String> {
        self.simplon.ask(&["show", "events"])
    }

    /// How many seconds it took.
    fn wait_until_established(&mut self) -> Result<f64> {
        let took = clock::wait_for("an established session at both ends", Duration::from_secs(20), || {
            Ok(self.neighbor()?["state"] == "established" && self.peer.is_established()?)
        })?;
        Ok(took.as_secs_f64())
    }

    fn wait_until_down(&self, limit: Duration) -> Result<f64> {
        let took = clock::wait_for("the end of the session", limit, || Ok(self.neighbor()?["state"] != "established"))?;
        Ok(took.as_secs_f64())
    }

    /// Our kernel's routes for exactly this prefix.
    fn kernel_routes(&self, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        self.node.ip(&[family, "route", "show", prefix])
    }

    /// Waits for a route of theirs in our kernel, or for its end.
    fn wait_for_route(&self, prefix: &str, is_there: bool) -> Result<f64> {
        let what = format!("{prefix} {} our kernel", if is_there { "in" } else { "out of" });
        let took = clock::wait_for(&what, Duration::from_secs(10), || {
            Ok(self.kernel_routes(prefix)?.contains("via") == is_there)
        })?;
        Ok(took.as_secs_f64())
    }

    fn wait_for_theirs(&mut self, prefix: &str, is_there: bool) -> Result<()> {
        let what = format!("{prefix} {} their table", if is_there { "in" } else { "out of" });
        clock::wait_for(&what, Duration::from_secs(10), || Ok(self.peer.has_route(prefix)? == is_there)).map(drop)
    }

    /// Nothing comes in or goes out any more, or everything does again.
    fn cut(&self, is_cut: bool) -> Result<()> {
        let mut commands = String::from("table inet cut\ndelete table inet cut\n");
        if is_cut {
            commands.push_str(
                "table inet cut {\n\tchain in {\n\t\ttype filter hook input priority 0;\n\t\tiifname \"eth0\" drop\n\t}\n\
                 \tchain out {\n\t\ttype filter hook output priority 0;\n\t\toifname \"eth0\" drop\n\t}\n}\n",
            );
        }
        self.node.nft(&commands)
    }
}

fn last_lines(text: &str, lines: usize) -> String {
    crate::peer::tail(text, lines).replace('\n', " | ")
}
