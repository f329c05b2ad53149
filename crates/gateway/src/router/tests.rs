//! What routing makes of tunnels that come, go, flap and are drained.

use std::time::Duration;

use model::{Address, BfdTimers, Child, Connection, DpdAction, Mode, Probe, Routing, Selector, Start};

use super::*;
use crate::health::SaLoss;
use crate::output::{BfdPacket, Hop, Via};

const SECOND: Duration = Duration::from_secs(1);

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let connection = |n: u8| {
        let mut connection = Connection::named(format!("aws-{n}"));
        connection.remote.address = Address::Ip([192, 0, 2, n].into());
        let mut child = Child::named(format!("aws-{n}"));
        child.local = vec![Selector::net("0.0.0.0/0".parse().unwrap())];
        child.remote = child.local.clone();
        child.start = Start::AtOnce;
        let addresses = vec![format!("169.254.{n}.2/30").parse().unwrap()];
        child.routing = Routing::Device { name: format!("tunnel{n}"), addresses, routes: vec![], mark: None };
        connection.children = vec![child];
        connection
    };
    let mut vpn = model::Vpn::named("aws");
    vpn.tunnels = vec!["aws-1".to_owned(), "aws-2".to_owned()];
    vpn.routes = vec!["172.31.0.0/16".parse().unwrap()];
    let mut config = Config { connections: vec![connection(1), connection(2)], vpns: vec![vpn], ..Config::default() };
    change(&mut config);
    assert_eq!(
        model::validate(&config).iter().filter(|p| !p.message.contains("pre-shared")).count(),
        0,
        "the configuration makes sense"
    );
    config
}

struct Played {
    router: Router,
    now: Instant,
    events: Vec<String>,
    probes: Vec<ProbePacket>,
}

impl Played {
    fn new(config: &Config) -> Self {
        let router = Router::new(Random::for_test(1));
        let mut played = Self { router, now: Instant::ZERO, events: Vec::new(), probes: Vec::new() };
        played.router.apply(config, played.now);
        played.drain();
        played
    }

    fn label(n: u8) -> ChildLabel {
        let name: Arc<str> = format!("aws-{n}").into();
        ChildLabel { connection: name.clone(), child: name }
    }

    fn sa(&mut self, n: u8, signal: Signal) {
        self.router.note_sa(&Self::label(n), signal, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let Output::Event(event) = output {
                self.events.push(event.text);
            } else if let Output::Socket(SocketOrder::Probe(probe)) = output {
                self.probes.push(probe);
            }
        }
    }

    /// Lets time pass; each probe is answered at once where `answers` says so.
    fn run_for(&mut self, time: Duration, answers: impl Fn(&str) -> bool) {
        let end = self.now + time;
        loop {
            for packet in std::mem::take(&mut self.probes) {
                if answers(&packet.device) {
                    let (target, payload) = (packet.probe.target, packet.probe.payload);
                    self.router.handle_probe_reply(&packet.device, target, &payload, self.now);
                }
            }
            self.drain();
            if !self.probes.is_empty() {
                continue;
            }
            match self.router.poll_timeout() {
                Some(deadline) if deadline.at <= end => {
                    self.now = deadline.at.max(self.now);
                    self.router.handle_timeout(self.now);
                    self.drain();
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    /// The devices that the VPN connection's route leads to.
    fn devices(&mut self) -> Vec<String> {
        let routes = self.router.routes(&[]);
        let unreachable = routes.iter().filter(|route| route.via == Via::Unreachable).count();
        assert_eq!(unreachable, 1, "packets without a tunnel are refused");
        let hops = routes.iter().filter_map(|route| match &route.via {
            Via::Hops(hops) => Some(hops),
            Via::Throw | Via::Unreachable => None,
        });
        hops.flatten().filter_map(|Hop { device, .. }| Some(device.as_ref()?.to_string())).collect()
    }

    fn told(&self, words: &str) -> usize {
        self.events.iter().filter(|text| text.contains(words)).count()
    }
}

#[test]
fn without_a_tunnel_packets_are_refused_and_the_first_that_comes_up_carries_them() {
    let mut played = Played::new(&config(|_| ()));
    assert_eq!(played.devices(), [""; 0]);
    played.sa(2, Signal::SaUp);
    assert_eq!(played.devices(), ["tunnel2"]);
    played.sa(1, Signal::SaUp);
    assert_eq!(played.devices(), ["tunnel1"], "the preferred one");
    played.sa(1, Signal::SaDown(SaLoss::PeerSilent));
    assert_eq!(played.devices(), ["tunnel2"]);
    assert_eq!(played.told("traffic of aws goes over aws-2 now: aws-1: the peer does not answer IKE (DPD)"), 1);
}

#[test]
fn a_tunnel_that_fell_must_be_good_for_a_while_before_traffic_goes_back() {
    let mut played = Played::new(&config(|_| ()));
    played.sa(1, Signal::SaUp);
    played.sa(2, Signal::SaUp);
    played.sa(1, Signal::SaDown(SaLoss::PeerSilent));
    played.run_for(60 * SECOND, |_| true);
    played.sa(1, Signal::SaUp);
    assert_eq!(played.devices(), ["tunnel2"]);
    played.run_for(Duration::from_millis(4_900), |_| true);
    assert_eq!(played.devices(), ["tunnel2"]);
    played.run_for(SECOND, |_| true);
    assert_eq!(played.devices(), ["tunnel1"]);
}

#[test]
fn active_tunnels_share_the_traffic_and_the_one_that_falls_leaves_it_to_the_others() {
    let mut played = Played::new(&config(|c| c.vpns[0].mode = Mode::ActiveActive));
    played.sa(1, Signal::SaUp);
    played.sa(2, Signal::SaUp);
    assert_eq!(played.devices(), ["tunnel1", "tunnel2"]);
    played.sa(2, Signal::SaDown(SaLoss::PeerDeleted));
    assert_eq!(played.devices(), ["tunnel1"]);
}

#[test]
fn a_tunnel_whose_probe_is_not_answered_for_three_seconds_loses_the_traffic() {
    let mut played = Played::new(&config(|c| c.vpns[0].health.probe = Some(Probe::default())));
    played.sa(1, Signal::SaUp);
    played.sa(2, Signal::SaUp);
    played.run_for(10 * SECOND, |_| true);
    assert_eq!(played.devices(), ["tunnel1"]);
    played.run_for(3 * SECOND, |device| device != "tunnel1");
    assert_eq!(played.devices(), ["tunnel2"]);
    let status = &played.router.vpn_statuses(played.now)[0];
    assert_eq!((status.state.as_str(), status.active.as_slice()), ("up", &["aws-2".to_owned()][..]));
    assert!(!status.tunnels[0].is_healthy && status.tunnels[1].is_healthy);
    assert_eq!(status.tunnels[0].probe.as_ref().map(|probe| probe.target.as_str()), Some("169.254.1.1"));
}

#[test]
fn a_drained_tunnel_is_used_again_only_when_it_is_the_last() {
    let mut played = Played::new(&config(|_| ()));
    played.sa(1, Signal::SaUp);
    assert!(!played.router.has_alternative(&Played::label(1), played.now));
    played.sa(2, Signal::SaUp);
    assert!(played.router.has_alternative(&Played::label(1), played.now));
    played.router.set_drained(&Played::label(1), true, played.now);
    assert_eq!(played.devices(), ["tunnel2"]);
    played.sa(2, Signal::SaDown(SaLoss::PeerSilent));
    assert_eq!(played.devices(), ["tunnel1"]);
    played.router.set_drained(&Played::label(1), false, played.now);
    assert_eq!(played.devices(), ["tunnel1"]);
}

#[test]
fn a_tunnel_that_comes_with_traffic_gets_the_packet_that_brings_it_up() {
    let mut played = Played::new(&config(|c| {
        c.connections[0].dpd = Some(model::Dpd { delay: SECOND, timeout: SECOND, action: DpdAction::Hold });
    }));
    assert_eq!(played.devices(), ["tunnel1"]);
    assert_eq!(played.router.vpn_statuses(played.now)[0].state, "down");
}

#[test]
fn a_reload_keeps_what_is_known_of_tunnels_that_stay() {
    let mut played = Played::new(&config(|_| ()));
    played.sa(1, Signal::SaUp);
    played.sa(2, Signal::SaUp);
    played.events.clear();
    played.router.apply(&config(|c| c.vpns[0].routes.push("10.9.0.0/16".parse().unwrap())), played.now);
    played.drain();
    assert_eq!(played.events, [""; 0]);
    let routes = played.router.routes(&[]);
    assert_eq!(routes.iter().filter(|route| matches!(route.via, Via::Hops(_))).count(), 2);
}

const FAST: BfdTimers = BfdTimers { interval: Duration::from_millis(100), multiplier: 3 };

/// The neighbour at the other end of the first tunnel.
fn far_end() -> ::bfd::Sessions {
    let mut far_end = ::bfd::Sessions::new(::bfd::Options::default(), Random::for_test(9));
    let session = ::bfd::SessionConfig {
        min_tx: FAST.interval,
        min_rx: FAST.interval,
        ..::bfd::SessionConfig::new("169.254.1.1".parse().unwrap(), "169.254.1.2".parse().unwrap())
    };
    far_end.upsert(::bfd::SessionId(1), session, Instant::ZERO).unwrap();
    far_end
}

/// Lets time pass, and what both ends say to each other unless the path is cut.
fn exchange(played: &mut Played, far_end: &mut ::bfd::Sessions, time: Duration, is_cut: bool) {
    let far: SocketAddr = "169.254.1.1:50000".parse().unwrap();
    let end = played.now + time;
    while played.now < end {
        played.now += Duration::from_millis(5);
        played.router.handle_timeout(played.now);
        far_end.handle_timeout(played.now);
        while let Some(output) = far_end.poll_output() {
            if let (::bfd::Output::Transmit(t), false) = (output, is_cut) {
                let near = SocketAddr::new(t.remote.ip(), ::bfd::PORT);
                played.router.handle_bfd(near, far, ::bfd::TTL, t.payload.as_ref(), played.now);
            }
        }
        while let Some(output) = played.router.poll_output() {
            if let Output::Event(event) = output {
                played.events.push(event.text);
            } else if let (Output::Socket(SocketOrder::Bfd(BfdPacket { transmit: t, .. })), false) = (output, is_cut)
                && t.remote.ip() == far.ip()
            {
                let at = SocketAddr::new(far.ip(), ::bfd::PORT);
                let _ = far_end.handle_packet(at, t.local, ::bfd::TTL, t.payload.as_ref(), played.now);
            }
        }
    }
}

#[test]
fn a_silent_bfd_neighbor_costs_the_tunnel_its_traffic_within_the_detection_time() {
    let mut played = Played::new(&config(|c| c.vpns[0].health.bfd = Some(FAST)));
    played.sa(1, Signal::SaUp);
    played.sa(2, Signal::SaUp);
    let mut far_end = far_end();
    exchange(&mut played, &mut far_end, 10 * SECOND, false);
    assert_eq!(played.devices(), ["tunnel1"]);
    assert_eq!(played.router.vpn_statuses(played.now)[0].tunnels[0].bfd.as_deref(), Some("up"));
    exchange(&mut played, &mut far_end, Duration::from_millis(310), true);
    assert_eq!(played.devices(), ["tunnel2"], "a neighbour that never spoke BFD is no fault");
    assert_eq!(played.router.bfd_statuses(played.now)[0].state, "down");
}

/// Two tunnels with a BGP neighbour on each.
fn with_bgp(config: &mut Config) {
    let mut bgp = model::Bgp::of(65_000);
    bgp.networks = vec!["192.168.2.0/24".parse().unwrap()];
    bgp.neighbors = [1, 2]
        .map(|n: u8| model::Neighbor {
            tunnel: Some(format!("aws-{n}")),
            ..model::Neighbor::at([169, 254, n, 1].into(), 64_512)
        })
        .to_vec();
    config.bgp = Some(bgp);
}

/// The neighbours that BGP dials.
fn dialled(router: &mut Router) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    while let Some(output) = router.poll_output() {
        if let Output::Socket(SocketOrder::BgpConnect(connect)) = output {
            all.push((connect.remote.to_string(), connect.device.map(|name| name.to_string())));
        }
    }
    all
}

#[test]
fn a_neighbor_is_dialled_through_its_tunnel_as_soon_as_that_is_up() {
    let mut router = Router::new(Random::for_test(1));
    let mut now = Instant::ZERO;
    router.apply(&config(with_bgp), now);
    now += 60 * SECOND;
    router.handle_timeout(now);
    assert_eq!(dialled(&mut router), [], "there is no way to a neighbour without its tunnel");
    router.note_sa(&Played::label(2), Signal::SaUp, now);
    router.handle_timeout(now + SECOND);
    assert_eq!(dialled(&mut router), [("169.254.2.1:179".to_owned(), Some("tunnel2".to_owned()))]);
}

#[test]
fn the_preferred_tunnel_of_a_standby_pair_is_preferred_both_ways() {
    use ::bgp::policy::{Action, Policy, Rule, Verdict};
    let config = config(with_bgp);
    let bgp = config.bgp.as_ref().unwrap();
    let actions = |policy: Policy| match policy {
        Policy::Rules(rules) => match rules.as_slice() {
            [Rule { when, then: Verdict::Accept(actions) }] if when.is_empty() => actions.clone(),
            rules => panic!("{rules:?}"),
        },
        Policy::Default => panic!("a tunnel's neighbour has a policy"),
    };
    let of = |n: usize| &bgp.neighbors[n];
    assert_eq!(actions(policy::import(&config, bgp, of(0))), [Action::SetLocalPref(100)]);
    assert_eq!(actions(policy::import(&config, bgp, of(1))), [Action::SetLocalPref(90)]);
    assert_eq!(actions(policy::export(&config, bgp, of(0))), []);
    assert_eq!(actions(policy::export(&config, bgp, of(1))), [Action::SetMed(Some(100)), Action::Prepend(1)]);
    let stranger = model::Neighbor { tunnel: None, ..of(0).clone() };
    assert_eq!(policy::import(&config, bgp, &stranger), Policy::Default, "RFC 8212");
}

#[test]
fn after_a_hand_over_bgp_waits_for_the_neighbour_and_bfd_goes_on() {
    let config = config(|config| {
        with_bgp(config);
        config.vpns[0].health.bfd = Some(FAST);
    });
    let (mut before, mut far_end) = (Played::new(&config), far_end());
    before.sa(1, Signal::SaUp);
    exchange(&mut before, &mut far_end, 10 * SECOND, false);
    let bfd = before.router.export_bfd(before.now);
    assert_eq!(bfd.len(), 1, "that of the other tunnel is not up");
    before.router.step_aside(before.now);
    assert_eq!(before.router.export_bfd(before.now), bfd, "the neighbour of BFD is not told that we go");

    let mut router = Router::new(Random::for_test(2));
    router.inherit(Inherited { up: vec![Played::label(1)], bfd, ..Inherited::default() });
    let mut after = Played { router, now: before.now, events: Vec::new(), probes: Vec::new() };
    after.router.apply(&config, after.now);
    exchange(&mut after, &mut far_end, 10 * SECOND, false);
    assert_eq!(after.devices(), ["tunnel1"], "{:?}", after.events);
    assert_eq!((after.told("BFD with 169.254.1.1 is up"), after.told("is not fit")), (1, 0));
    assert_eq!(far_end.status(::bfd::SessionId(1)).unwrap().counters.flaps, 0);
    assert_eq!(after.told("routes are chosen and announced"), 0, "the neighbour has announced nothing yet");
    // One that never comes back is not waited for for ever.
    exchange(&mut after, &mut far_end, 60 * SECOND, false);
    assert_eq!(after.told("routes are chosen and announced"), 1);
}
