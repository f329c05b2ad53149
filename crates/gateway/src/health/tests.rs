//! Tunnels through virtual time: what the router is told, when, and in which words.

use std::net::IpAddr;
use std::time::Duration;

use base::{Instant, Machine, Random};
use packet::build;
use proptest::prelude::*;

use super::*;

const ID: TunnelId = TunnelId(3);
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const OURS: &str = "169.254.44.2";
const THEIRS: &str = "169.254.44.1";

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn at(time: Duration) -> Instant {
    Instant::ZERO + time
}

fn probed() -> HealthConfig {
    HealthConfig { probe: Some(ProbeConfig::echo(ip(OURS), ip(THEIRS))), ..HealthConfig::default() }
}

/// A gateway's health, and the far end of one tunnel that answers probes, or does not.
struct Watch {
    health: Health,
    now: Instant,
    /// How long an answer takes; `None` is a path that swallows everything.
    round_trip: Option<Duration>,
    under_way: Vec<(Instant, Probe)>,
    probes: Vec<(Instant, Probe)>,
    verdicts: Vec<(Instant, Grade, String)>,
}

impl Watch {
    fn new(config: HealthConfig) -> Self {
        let mut health = Health::new(Random::for_test(1));
        health.upsert(ID, config, Instant::ZERO).unwrap();
        Self {
            health,
            now: Instant::ZERO,
            round_trip: Some(20 * MS),
            under_way: vec![],
            probes: vec![],
            verdicts: vec![],
        }
    }

    /// With its SA up, and healthy.
    fn healthy(config: HealthConfig) -> Self {
        let mut watch = Self::new(config);
        watch.signal(Signal::SaUp);
        watch.pass(SECOND / 2);
        assert_eq!(watch.status().grade, Grade::Healthy);
        watch.verdicts.clear();
        watch
    }

    fn signal(&mut self, signal: Signal) {
        self.health.handle_signal(ID, signal, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.health.poll_output() {
            match output {
                Output::Probe(probe) => {
                    self.probes.push((self.now, probe));
                    self.under_way.extend(self.round_trip.map(|time| (self.now + time, probe)));
                }
                Output::Verdict(verdict) => {
                    self.verdicts.push((self.now, verdict.grade, verdict.reason.to_string()));
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            let answer = self.under_way.iter().map(|(at, _)| *at).min();
            let due = self.health.poll_timeout().map(|deadline| deadline.at);
            let Some(next) = [answer, due].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some(index) = self.under_way.iter().position(|(at, _)| *at <= self.now) {
                let (_, probe) = self.under_way.remove(index);
                let _ = self.health.handle_reply(ID, probe.target, &probe.payload, self.now);
            } else {
                self.health.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn status(&self) -> Status {
        self.health.status(ID, self.now).unwrap()
    }

    fn grades(&self) -> Vec<Grade> {
        self.verdicts.iter().map(|(_, grade, _)| *grade).collect()
    }
}

#[test]
fn a_tunnel_without_other_witnesses_is_as_healthy_as_its_sa() {
    let mut watch = Watch::new(HealthConfig::default());
    assert_eq!(
        (watch.status().grade, watch.status().reason.to_string().as_str()),
        (Grade::Unhealthy, "it has no SA yet")
    );
    watch.signal(Signal::SaUp);
    watch.pass(5 * SECOND);
    watch.signal(Signal::SaUp);
    watch.signal(Signal::SaDown(SaLoss::PeerSilent));
    let words: Vec<_> = watch.verdicts.iter().map(|(at, grade, why)| (*at, *grade, why.as_str())).collect();
    assert_eq!(
        words,
        [
            (at(Duration::ZERO), Grade::Healthy, "its SA is up and every check of it succeeds"),
            (at(5 * SECOND), Grade::Unhealthy, "the peer does not answer IKE (DPD)"),
        ]
    );
}

#[test]
fn a_tunnel_waits_for_the_first_answer_after_its_sa_came_up() {
    let mut watch = Watch::new(probed());
    watch.pass(10 * SECOND);
    assert_eq!(watch.probes.len(), 0, "nothing is sent without an SA");
    watch.signal(Signal::SaUp);
    watch.pass(SECOND);
    let words: Vec<_> = watch.verdicts.iter().map(|(at, grade, why)| (*at, *grade, why.as_str())).collect();
    assert_eq!(
        words,
        [
            (at(10 * SECOND), Grade::Unhealthy, "the first probe that 169.254.44.1 answers is waited for"),
            (at(10_020 * MS), Grade::Healthy, "its SA is up and every check of it succeeds"),
        ]
    );
}

#[test]
fn a_tunnel_whose_target_never_answers_is_never_healthy_and_says_why() {
    let mut watch = Watch::new(probed());
    watch.round_trip = None;
    watch.signal(Signal::SaUp);
    watch.pass(60 * SECOND);
    let (when, grade, why) = watch.verdicts.last().unwrap();
    assert_eq!((*grade, why.as_str()), (Grade::Unhealthy, "169.254.44.1 did not answer the last 3 probes"));
    assert_eq!((*when, watch.verdicts.len(), watch.status().is_sa_up), (at(2_650 * MS), 2, true));
    assert!((60..=61).contains(&watch.probes.len()), "in vain it does not hurry: {}", watch.probes.len());
}

#[test]
fn a_path_that_dies_is_found_well_within_three_seconds_of_its_last_answer() {
    // However the moment falls between two probes.
    let most = 2_625 * MS;
    for offset in (0..1000).step_by(50) {
        let mut watch = Watch::healthy(probed());
        watch.pass(10 * SECOND + offset * MS);
        let last_answer = watch.probes.last().unwrap().0 + 20 * MS;
        (watch.round_trip, watch.under_way) = (None, vec![]);
        let died = watch.now;
        watch.pass(4 * SECOND);
        let [(when, Grade::Unhealthy, why)] = &watch.verdicts[..] else { panic!("{:?}", watch.verdicts) };
        assert_eq!(why, "169.254.44.1 did not answer the last 3 probes");
        assert!(*when - died <= most && *when - died >= 1_600 * MS, "{:?}", *when - died);
        assert!(*when - last_answer <= most || last_answer > died);
    }
}

// probe -> (lost) .. 650 ms .. probe -> (lost) .. 325 ms .. probe -> (lost)
#[test]
fn a_lost_probe_is_followed_by_no_more_than_it_takes_to_be_sure() {
    let mut watch = Watch::healthy(probed());
    watch.pass(10 * SECOND);
    watch.round_trip = None;
    let before = watch.probes.len();
    while watch.verdicts.is_empty() {
        watch.pass(MS);
    }
    let sent: Vec<_> = watch.probes[before..].iter().map(|(at, _)| *at - watch.probes[before].0).collect();
    assert_eq!(sent, [Duration::ZERO, 650 * MS, 975 * MS]);
}

#[test]
fn two_lost_probes_are_forgiven() {
    let mut watch = Watch::healthy(probed());
    for _ in 0..20 {
        watch.round_trip = None;
        while watch.status().probe.unwrap().lost_in_a_row < 2 {
            watch.pass(10 * MS);
        }
        // The third is under way already: it is answered.
        let probe = watch.probes.last().unwrap().1;
        watch.round_trip = Some(20 * MS);
        watch.health.handle_reply(ID, probe.target, &probe.payload, watch.now).unwrap();
        watch.pass(3 * SECOND);
    }
    assert_eq!(watch.verdicts, []);
    assert_eq!(watch.status().probe.unwrap().lost, 40);
}

#[test]
fn of_scattered_losses_those_among_the_last_ones_count() {
    let probe =
        ProbeConfig { threshold: LossThreshold::OfLast { lost: 4, of: 10 }, ..ProbeConfig::echo(ip(OURS), ip(THEIRS)) };
    let mut watch = Watch::healthy(HealthConfig { probe: Some(probe), ..HealthConfig::default() });
    let lossy = |watch: &mut Watch, every: usize, count: usize| {
        for index in 0..count {
            watch.round_trip = (index % every != 0).then_some(20 * MS);
            watch.pass(SECOND);
        }
    };
    lossy(&mut watch, 4, 40);
    assert_eq!(watch.verdicts, [], "three of ten are borne");
    lossy(&mut watch, 2, 12);
    assert_eq!(watch.verdicts[0].2, "169.254.44.1 did not answer 4 of the last 10 probes");
    watch.round_trip = Some(20 * MS);
    watch.pass(60 * SECOND);
    assert_eq!(watch.status().grade, Grade::Healthy);
}

#[test]
fn an_answer_that_is_forged_late_or_said_twice_keeps_no_tunnel_alive() {
    let mut watch = Watch::healthy(probed());
    (watch.round_trip, watch.under_way) = (None, vec![]);
    let known = watch.probes.last().unwrap().1;
    for _ in 0..40 {
        watch.pass(100 * MS);
        let (sent, probe) = *watch.probes.last().unwrap();
        let mut forged = probe.payload;
        forged[15] ^= 1;
        for payload in [&forged[..], &[0; 16], &probe.payload[..15], &[], &known.payload] {
            assert_eq!(watch.health.handle_reply(ID, ip(THEIRS), payload, watch.now), Err(Stray::Unknown));
        }
        let verdict = watch.health.handle_reply(ID, ip("10.0.0.1"), &probe.payload, watch.now);
        assert_eq!(verdict, Err(Stray::WrongSource));
        if watch.now - sent >= 650 * MS {
            let verdict = watch.health.handle_reply(ID, ip(THEIRS), &probe.payload, watch.now);
            assert!(matches!(verdict, Err(Stray::Late | Stray::Unknown)), "{verdict:?}");
        }
    }
    assert_eq!((watch.status().grade, watch.grades()), (Grade::Unhealthy, vec![Grade::Unhealthy]));
    let probe = watch.status().probe.unwrap();
    assert!(probe.stray >= 240 && probe.late >= 1 && probe.answered == 1, "{probe:?}");
    assert_eq!(watch.health.handle_reply(TunnelId(9), ip(THEIRS), &known.payload, watch.now), Err(Stray::Unknown));
}

#[test]
fn a_path_that_is_slower_than_the_timeout_is_lost_and_seen_to_be_late() {
    let mut watch = Watch::healthy(probed());
    watch.round_trip = Some(700 * MS);
    watch.pass(30 * SECOND);
    let status = watch.status();
    assert_eq!(status.grade, Grade::Unhealthy);
    assert!(status.probe.unwrap().late >= 25);
}

#[test]
fn a_tunnel_that_fell_must_be_good_for_the_rise_time_and_is_better_than_none_meanwhile() {
    let mut watch = Watch::healthy(probed());
    (watch.round_trip, watch.under_way) = (None, vec![]);
    watch.pass(10 * SECOND);
    watch.round_trip = Some(20 * MS);
    watch.pass(30 * SECOND);
    assert_eq!(watch.grades(), [Grade::Unhealthy, Grade::Settling, Grade::Healthy]);
    assert_eq!(watch.verdicts[1].2, "it is good again, and preferred once it has been so for 10 s");
    assert_eq!(watch.verdicts[2].0 - watch.verdicts[1].0, 10 * SECOND);
    // Bad again while it settles: the time begins anew.
    watch.verdicts.clear();
    (watch.round_trip, watch.under_way) = (None, vec![]);
    watch.pass(10 * SECOND);
    watch.round_trip = Some(20 * MS);
    watch.pass(15 * SECOND);
    (watch.round_trip, watch.under_way) = (None, vec![]);
    watch.pass(10 * SECOND);
    watch.round_trip = Some(20 * MS);
    watch.pass(60 * SECOND);
    assert_eq!(watch.grades(), [Grade::Unhealthy, Grade::Settling, Grade::Unhealthy, Grade::Settling, Grade::Healthy]);
    assert_eq!(watch.verdicts[4].0 - watch.verdicts[3].0, 20 * SECOND);
    assert_eq!(watch.status().falls, 2, "what was not healthy cannot fall");
}

#[test]
fn each_fall_doubles_the_wait_up_to_the_bound_and_calm_takes_it_back() {
    let mut watch = Watch::healthy(HealthConfig::default());
    let holds = |watch: &mut Watch, times: usize| {
        (0..times)
            .map(|_| {
                watch.verdicts.clear();
                watch.signal(Signal::SaDown(SaLoss::PeerDeleted));
                watch.signal(Signal::SaUp);
                watch.pass(301 * SECOND);
                let [_, (settling, Grade::Settling, _), (healthy, Grade::Healthy, _)] = &watch.verdicts[..] else {
                    panic!("{:?}", watch.verdicts)
                };
                (*healthy - *settling).as_secs()
            })
            .collect::<Vec<_>>()
    };
    let mut quick = Watch::healthy(HealthConfig::default());
    let mut waits = vec![];
    for _ in 0..8 {
        quick.signal(Signal::SaDown(SaLoss::PeerDeleted));
        quick.signal(Signal::SaUp);
        let hold = quick.status().hold;
        quick.pass(hold);
        assert_eq!(quick.status().grade, Grade::Healthy, "{hold:?}");
        waits.push(hold.as_secs());
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    // Two falls in each calm time of 600 s: it grows by one level each.
    assert_eq!(holds(&mut watch, 2), [10, 20]);
    // Calm: halved each 600 s, and never less than the rise time for one that fell.
    quick.pass(3 * 600 * SECOND);
    quick.signal(Signal::SaDown(SaLoss::Expired));
    quick.signal(Signal::SaUp);
    assert_eq!(quick.status().hold, 80 * SECOND);
    quick.pass(24 * 3600 * SECOND);
    quick.signal(Signal::SaDown(SaLoss::Expired));
    quick.signal(Signal::SaUp);
    assert_eq!(quick.status().hold, 10 * SECOND);
}

#[test]
fn a_path_that_flaps_all_night_is_followed_once_each_calm_time_and_trusted_minutes_after_dawn() {
    // Fifteen seconds good, ten seconds bad, for eight hours.
    let mut watch = Watch::healthy(probed());
    for _ in 0..8 * 3600 / 25 {
        (watch.round_trip, watch.under_way) = (None, vec![]);
        watch.pass(10 * SECOND);
        watch.round_trip = Some(20 * MS);
        watch.pass(15 * SECOND);
    }
    let falls = watch.status().falls;
    assert!((40..=50).contains(&falls), "{falls} falls of 1,152");
    let morning = watch.now;
    watch.pass(301 * SECOND);
    assert_eq!(watch.status().grade, Grade::Healthy);
    assert!(watch.status().since - morning <= 300 * SECOND);
}

#[test]
fn with_a_fall_time_a_short_fault_is_borne_but_not_the_loss_of_the_sa() {
    let mut watch = Watch::healthy(HealthConfig { bfd: BfdUse::OnceUp, fall: 2 * SECOND, ..HealthConfig::default() });
    watch.signal(Signal::Bfd(Bfd::Up));
    watch.signal(Signal::Bfd(Bfd::Down("the neighbor was not heard".into())));
    watch.pass(1_999 * MS);
    watch.signal(Signal::Bfd(Bfd::Up));
    watch.pass(10 * SECOND);
    assert_eq!(watch.verdicts, []);
    let down = watch.now;
    watch.signal(Signal::Bfd(Bfd::Down("the neighbor was not heard".into())));
    watch.pass(10 * SECOND);
    let expected = (down + 2 * SECOND, Grade::Unhealthy, "BFD is down: the neighbor was not heard".to_owned());
    assert_eq!(watch.verdicts, [expected]);
    watch.signal(Signal::Bfd(Bfd::Up));
    watch.pass(20 * SECOND);
    watch.verdicts.clear();
    watch.signal(Signal::SaDown(SaLoss::PeerSilent));
    assert_eq!(watch.grades(), [Grade::Unhealthy]);
}

#[test]
fn bfd_that_is_held_down_or_was_never_up_counts_for_nothing_unless_it_is_required() {
    let mut watch = Watch::healthy(HealthConfig { bfd: BfdUse::OnceUp, ..HealthConfig::default() });
    watch.signal(Signal::Bfd(Bfd::Down("it has not come up".into())));
    watch.signal(Signal::Bfd(Bfd::Up));
    watch.signal(Signal::Bfd(Bfd::AdminDown));
    assert_eq!(watch.verdicts, []);

    let mut watch = Watch::new(HealthConfig { bfd: BfdUse::Required, ..HealthConfig::default() });
    watch.signal(Signal::SaUp);
    watch.signal(Signal::Bfd(Bfd::Down("it has not come up".into())));
    assert_eq!(watch.status().reason, Reason::FirstBfd);
    watch.signal(Signal::Bfd(Bfd::Up));
    assert_eq!(watch.status().grade, Grade::Healthy);
    // With the SA goes what BFD said; it must come up anew.
    watch.signal(Signal::SaDown(SaLoss::PeerDeleted));
    watch.signal(Signal::SaUp);
    assert_eq!(watch.status().reason, Reason::FirstBfd);

    let mut watch = Watch::healthy(HealthConfig::default());
    watch.signal(Signal::Bfd(Bfd::Up));
    watch.signal(Signal::Bfd(Bfd::Down("ignored".into())));
    assert_eq!(watch.verdicts, []);
}

#[test]
fn a_tunnel_that_was_taken_down_on_purpose_comes_back_as_new() {
    let mut watch = Watch::healthy(HealthConfig::default());
    watch.signal(Signal::SaDown(SaLoss::PeerSilent));
    watch.signal(Signal::SaDown(SaLoss::Planned));
    watch.signal(Signal::SaUp);
    assert_eq!(watch.grades(), [Grade::Unhealthy, Grade::Unhealthy, Grade::Healthy]);
    watch.signal(Signal::SaDown(SaLoss::Planned));
    assert_eq!(watch.verdicts.last().unwrap().2, "its SA was taken down by command");
    watch.signal(Signal::SaUp);
    assert_eq!((watch.status().grade, watch.status().falls), (Grade::Healthy, 1));
}

#[test]
fn a_new_configuration_of_the_probes_lets_a_healthy_tunnel_be_until_it_knows_better() {
    let mut watch = Watch::healthy(probed());
    watch.pass(10 * SECOND);
    watch.health.upsert(ID, probed(), watch.now).unwrap();
    watch.pass(5 * SECOND);
    assert_eq!(watch.status().probe.unwrap().sent, 16, "the same again is nothing new");
    let elsewhere = ProbeConfig::echo(ip(OURS), ip("10.0.0.9"));
    watch.health.upsert(ID, HealthConfig { probe: Some(elsewhere), ..probed() }, watch.now).unwrap();
    (watch.round_trip, watch.under_way) = (None, vec![]);
    watch.collect();
    watch.pass(2 * SECOND);
    assert_eq!((watch.verdicts.len(), watch.status().grade), (0, Grade::Healthy));
    watch.pass(2 * SECOND);
    assert_eq!(watch.verdicts[0].2, "10.0.0.9 did not answer the last 3 probes");
    watch.health.upsert(ID, HealthConfig::default(), watch.now).unwrap();
    watch.pass(11 * SECOND);
    assert_eq!(watch.status().grade, Grade::Healthy);
    assert_eq!((watch.status().probe, watch.health.poll_timeout()), (None, None));
}

#[test]
fn round_trips_are_measured() {
    let mut watch = Watch::healthy(probed());
    for millis in [10, 30, 50, 70, 400] {
        watch.round_trip = Some(millis * MS);
        watch.pass(SECOND);
    }
    let trips = watch.status().probe.unwrap().round_trips.unwrap();
    // Of 20, 10, 30, 50, 70 and 400.
    assert_eq!((trips.min, trips.max, trips.last), (10 * MS, 400 * MS, 400 * MS));
    assert_eq!((trips.p50, trips.avg), (30 * MS, Duration::from_micros(96_666) + Duration::from_nanos(666)));
}

#[test]
fn a_removed_tunnel_is_silent() {
    let mut watch = Watch::healthy(probed());
    watch.health.remove(ID);
    watch.signal(Signal::SaDown(SaLoss::Expired));
    assert_eq!((watch.health.poll_timeout(), watch.health.poll_output()), (None, None));
    assert_eq!(watch.health.status(ID, watch.now), None);
}

#[test]
fn a_probe_as_a_packet_is_answered_by_any_host_and_the_answer_is_read() {
    let udp = ProbeConfig { kind: ProbeKind::UdpEcho { port: 7 }, ..ProbeConfig::echo(ip(OURS), ip(THEIRS)) };
    let six = ProbeConfig::echo(ip("fd00::2"), ip("fd00::1"));
    for config in [ProbeConfig::echo(ip(OURS), ip(THEIRS)), udp, six] {
        let mut watch = Watch::new(HealthConfig { probe: Some(config), ..HealthConfig::default() });
        watch.signal(Signal::SaUp);
        let probe = watch.probes[0].1;
        let packet = probe.to_packet().unwrap();
        assert_eq!(Reply::parse(&packet).is_some(), config.kind != ProbeKind::IcmpEcho, "a request is no reply");
        let answer = answer(&packet);
        let reply = Reply::parse(&answer).unwrap();
        assert_eq!(
            (reply.source, reply.destination, reply.payload),
            (config.target, config.source, &probe.payload[..])
        );
        watch.health.handle_reply(ID, reply.source, reply.payload, watch.now + 5 * MS).unwrap();
        // A damaged answer is none.
        for index in answer.len() - 16..answer.len() {
            let mut damaged = answer.clone();
            damaged[index] ^= 0x10;
            assert_eq!(Reply::parse(&damaged), None);
        }
    }
}

/// What an ordinary host makes of a probe.
fn answer(packet: &[u8]) -> Vec<u8> {
    let request = packet::Ip::parse(packet).unwrap();
    let (source, destination) = (request.source(), request.destination());
    let (kind, upper) = request.upper().unwrap();
    let upper = upper.unwrap();
    if kind == packet::protocol::UDP {
        let udp = packet::Udp::parse(upper).unwrap();
        let (from, to) = ((destination, udp.destination_port()), (source, udp.source_port()));
        return build::udp(from.into(), to.into(), udp.payload()).unwrap();
    }
    let word = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
    let mut reply = build::echo_request(destination, source, word(4), word(6), &upper[8..]).unwrap();
    // An echo reply is an echo request of another type, with the checksum changed by as much.
    let start = reply.len() - upper.len();
    let (from, to) = if source.is_ipv4() { (8, 0) } else { (128, 129) };
    assert_eq!(reply[start], from);
    reply[start] = to;
    let sum = u32::from(u16::from_be_bytes([reply[start + 2], reply[start + 3]]));
    let sum = if to == 0 { sum + 0x0800 } else { sum + 0xffff - 0x0100 };
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    reply[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
    reply
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_its_rule() {
    let probe = ProbeConfig::echo(ip(OURS), ip(THEIRS));
    let with = |probe| HealthConfig { probe: Some(probe), ..HealthConfig::default() };
    let bad = [
        (HealthConfig { longest_rise: SECOND, ..probed() }, "longest_rise"),
        (HealthConfig { calm: MS, ..probed() }, "calm"),
        (HealthConfig { fall: 4000 * SECOND, ..probed() }, "fall"),
        (with(ProbeConfig { target: ip("fd00::1"), ..probe }), "IP version"),
        (with(ProbeConfig { target: ip("0.0.0.0"), ..probe }), "one host"),
        (with(ProbeConfig { interval: 99 * MS, ..probe }), "the interval"),
        (with(ProbeConfig { timeout: 11 * SECOND, ..probe }), "the timeout"),
        (with(ProbeConfig { threshold: LossThreshold::InARow(0), ..probe }), "the loss threshold"),
        (with(ProbeConfig { threshold: LossThreshold::OfLast { lost: 3, of: 2 }, ..probe }), "the loss threshold"),
        (with(ProbeConfig { kind: ProbeKind::UdpEcho { port: 0 }, ..probe }), "the port"),
    ];
    let mut health = Health::new(Random::for_test(1));
    for (config, rule) in bad {
        let error = health.upsert(ID, config, Instant::ZERO).unwrap_err();
        assert!(error.to_string().contains(rule), "{error} is not about {rule}");
    }
    assert_eq!(health.status(ID, Instant::ZERO), None);
}

#[test]
fn health_keeps_the_laws_of_machines() {
    let signal =
        |signal: Signal| move |health: &mut Health, now: Instant| health.handle_signal(ID, signal.clone(), now);
    let (up, down) = (signal(Signal::SaUp), signal(Signal::SaDown(SaLoss::PeerSilent)));
    let (bfd_up, bfd_down) = (signal(Signal::Bfd(Bfd::Up)), signal(Signal::Bfd(Bfd::Down("silent".into()))));
    let script: [sim::laws::Input<'_, Health>; 6] = [
        (SECOND, &up),
        (2 * SECOND, &bfd_up),
        (5 * SECOND, &bfd_down),
        (8 * SECOND, &bfd_up),
        (60 * SECOND, &down),
        (61 * SECOND, &up),
    ];
    for probe in [None, probed().probe] {
        let config = HealthConfig { bfd: BfdUse::OnceUp, fall: 2 * SECOND, probe, ..HealthConfig::default() };
        let make = || {
            let mut health = Health::new(Random::for_test(1));
            health.upsert(ID, config.clone(), Instant::ZERO).unwrap();
            health
        };
        sim::laws::check(make, &script, 300 * SECOND);
    }
}

proptest! {
    #[test]
    fn whatever_witnesses_say_verdicts_agree_with_the_sa_and_nothing_spins(
        steps in prop::collection::vec((0u8..8, 0u32..20_000), 1..80),
        fall in 0u32..3,
    ) {
        let config = HealthConfig { bfd: BfdUse::OnceUp, fall: fall * SECOND, ..probed() };
        let mut watch = Watch::new(config);
        for (step, millis) in steps {
            match step {
                0 | 1 => watch.signal(Signal::SaUp),
                2 => watch.signal(Signal::SaDown(SaLoss::PeerSilent)),
                3 => watch.signal(Signal::Bfd(Bfd::Up)),
                4 => watch.signal(Signal::Bfd(Bfd::Down("silent".into()))),
                5 => watch.signal(Signal::Bfd(Bfd::AdminDown)),
                6 => watch.round_trip = None,
                _ => watch.round_trip = Some(20 * MS),
            }
            watch.pass(millis * MS);
            let status = watch.status();
            prop_assert!(status.is_sa_up || status.grade == Grade::Unhealthy);
            prop_assert_eq!(status.probe.is_some(), status.is_sa_up);
            prop_assert!(status.hold <= 300 * SECOND);
            prop_assert!(watch.health.poll_timeout().is_none_or(|deadline| deadline.at > watch.now));
            if let Some((_, grade, why)) = watch.verdicts.last() {
                prop_assert_eq!((*grade, why.clone()), (status.grade, status.reason.to_string()));
            }
        }
        for two in watch.verdicts.windows(2) {
            prop_assert!((two[0].1, &two[0].2) != (two[1].1, &two[1].2), "said twice: {:?}", two);
        }
        // Left alone with all content, it is healthy within the longest hold time.
        watch.round_trip = Some(20 * MS);
        watch.signal(Signal::SaUp);
        watch.signal(Signal::Bfd(Bfd::Up));
        watch.pass(302 * SECOND);
        prop_assert_eq!(watch.status().grade, Grade::Healthy);
    }
}
