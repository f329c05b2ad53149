//! The steps that every scenario takes.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::algorithm::Group;

use crate::capture::{Capture, write_pcap};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{Peer, PeerKind, Status};
use crate::ping::{self, PATTERN};
use crate::report::{Report, Reporter};
use crate::scenario::{Fault, Initiator, Options, Scenario, Trouble, checks};
use crate::shell::Shell;
use crate::spec::{Encapsulation, EspProposal, IkeProposal, Start};
use crate::topology::{Ground, Site};
use crate::wire::{Inner, Tally};

/// How many pings run over the rekeys: 0.2 s each.
const PINGS_OVER_REKEY: u32 = 70;

/// The algorithms that the options ask for, as far as the peers know them.
pub(super) fn suite(options: &Options, notes: &mut Vec<String>) -> (IkeProposal, EspProposal) {
    let (mut ike, mut esp) = (options.suite.ike(), options.suite.esp(options.esn));
    if [options.customer, options.cloud].contains(&PeerKind::Libreswan) && ike.group == Group::Modp1024 {
        notes.push("Debian builds Libreswan without group 2: both ends use modp2048".into());
        ike.group = Group::Modp2048;
        esp.group = Some(Group::Modp2048);
    }
    (ike, esp)
}

/// A run: everything that is up, in the order in which it goes down.
pub(super) struct Run<'a> {
    pub(super) options: &'a Options,
    pub(super) reporter: Reporter,
    pub(super) customer: Option<Box<dyn Peer>>,
    pub(super) cloud: Option<Box<dyn Peer>>,
    capture: Option<Capture>,
    pub(super) ground: Ground,
    pub(super) lab: Lab,
}

/// Plays a scenario to its end.
pub(crate) fn play(scenario: Scenario, options: &Options, shell: &Shell) -> Result<Report> {
    let version = options.version.unwrap_or(scenario.version());
    let mut reporter = Reporter::new(shell, scenario.name(), options, version);
    reporter.show(&format!(
        "\n{scenario}: {}\ncustomer {}, cloud {}, {version}, {}\n\n{}\n",
        scenario.summary(),
        options.customer,
        options.cloud,
        variant(options),
        scenario.drawing(),
    ));
    for kind in [options.customer, options.cloud] {
        kind.prepare(shell)?;
    }
    let lab = Lab::new(shell)?;
    let ground = scenario.build(&lab)?;
    for (kind, site) in [(options.customer, &ground.customer), (options.cloud, &ground.cloud)] {
        if !kind.in_guest() {
            site.gateway.settle(kind)?;
        }
    }
    let plans = altered(scenario.plans(&lab, &ground, options)?, options);
    reporter.step(format!("topology built: namespaces {}*", lab.id()));
    for note in &plans.notes {
        reporter.step(format!("note: {note}"));
    }
    let mut run = Run { options, reporter, customer: None, cloud: None, capture: None, ground, lab };
    match run.steps(scenario, &plans) {
        Ok(()) => {}
        // What a gateway did not do is a finding; what the lab could not do is an error.
        Err(error @ (Error::Late { .. } | Error::Command { .. })) => run.give_up(&error),
        Err(error) => return Err(error),
    }
    run.check_wire()?;
    run.show_logs_of_a_failure();
    if options.keep {
        run.hold()?;
    }
    run.stop();
    Ok(run.reporter.finish())
}

/// The plans with what the options put in: a fault at one end, a short patience with dead peers.
fn altered(mut plans: super::Plans, options: &Options) -> super::Plans {
    if let Some(fault) = options.fault {
        let plan = match Fault::end(options) {
            Some(Initiator::Cloud) => &mut plans.cloud,
            Some(Initiator::Customer) | None => &mut plans.customer,
        };
        fault.put_into(&mut plan.spec);
    }
    if options.trouble.is_some() {
        plans.customer.spec.dpd = Some(Trouble::dpd());
        plans.cloud.spec.dpd = Some(Trouble::dpd());
    }
    plans
}

/// What was asked for besides the peers and the version, in words.
fn variant(options: &Options) -> String {
    let mut words = vec![format!("the {} initiates", options.initiator)];
    if options.encapsulation == Encapsulation::Plain {
        words.push("plain ESP".into());
    }
    if options.esn {
        words.push("ESN".into());
    }
    if options.suite != crate::spec::Suite::Classic {
        words.push(options.suite.ike().to_string());
    }
    words.extend(options.trouble.map(|trouble| format!("trouble: {trouble}")));
    words.extend(options.fault.map(|fault| format!("wrong in simplon's configuration: {fault}")));
    words.join(", ")
}

impl Run<'_> {
    fn steps(&mut self, scenario: Scenario, plans: &super::Plans) -> Result<()> {
        self.pings_fail()?;
        self.start(plans)?;
        if let Some(fault) = self.options.fault {
            return self.expect_fault(fault);
        }
        self.wait_until_up(plans)?;
        self.trouble_after()?;
        self.use_tunnel(scenario, plans)
    }

    pub(super) fn customer_status(&mut self) -> Result<Status> {
        status(&mut self.customer)
    }

    pub(super) fn cloud_status(&mut self) -> Result<Status> {
        status(&mut self.cloud)
    }

    fn starting_site(&self) -> (&Site, &Site) {
        match self.options.initiator {
            Initiator::Customer => (&self.ground.customer, &self.ground.cloud),
            Initiator::Cloud => (&self.ground.cloud, &self.ground.customer),
        }
    }

    fn pings_fail(&mut self) -> Result<()> {
        let (from, to) = self.starting_site();
        let (from, to) = (from.host_address, to.host_address);
        let pings = ping::ping(&self.starting_site().0.host, to, 2, 56)?;
        self.reporter.step(format!("ping {from} -> {to} without a tunnel"));
        self.reporter.check(
            "no ping passes without the tunnel",
            pings.sent > 0 && pings.answered == 0,
            pings.to_string(),
        );
        // Pings still wait for the hardware address of a gateway that is not there: they must not
        // leave when it comes.
        for node in self.lab.nodes() {
            node.ip(&["neigh", "flush", "all"])?;
        }
        Ok(())
    }

    /// Starts the responder, then the initiator.
    fn start(&mut self, plans: &super::Plans) -> Result<()> {
        self.capture = Some(Capture::start(&self.ground.internet)?);
        self.trouble_before()?;
        let order = match self.options.initiator {
            Initiator::Customer => [Initiator::Cloud, Initiator::Customer],
            Initiator::Cloud => [Initiator::Customer, Initiator::Cloud],
        };
        for end in order {
            let (kind, place, plan) = match end {
                Initiator::Customer => (self.options.customer, &self.ground.customer.gateway, &plans.customer),
                Initiator::Cloud => (self.options.cloud, &self.ground.cloud.gateway, &plans.cloud),
            };
            let mut peer = kind.build(&self.lab, place, plan.clone())?;
            let started = peer.start();
            match end {
                Initiator::Customer => self.customer = Some(peer),
                Initiator::Cloud => self.cloud = Some(peer),
            }
            started?;
            self.reporter.step(format!("{kind} runs as the {end}'s gateway"));
        }
        Ok(())
    }

    fn wait_until_up(&mut self, plans: &super::Plans) -> Result<()> {
        let start = clock::now();
        let spec = match self.options.initiator {
            Initiator::Customer => &plans.customer.spec,
            Initiator::Cloud => &plans.cloud.spec,
        };
        if spec.start == Start::OnTraffic {
            self.first_packet()?;
        }
        let patience = Duration::from_secs(if self.options.trouble.is_some() { 60 } else { 20 });
        clock::wait_for("a tunnel at both ends", patience, || {
            Ok(is_up(&status(&mut self.customer)?) && is_up(&status(&mut self.cloud)?))
        })?;
        let seconds = (clock::now() - start).as_secs_f64();
        self.reporter.report.tunnel_up_seconds = Some(seconds);
        self.reporter.step("the tunnel is up at both ends");
        self.reporter.check(
            "both gateways report the tunnel",
            true,
            format!("{seconds:.2} s after the initiator's start"),
        );
        Ok(())
    }

    /// Sends pings until the initiating gateway starts to negotiate.
    fn first_packet(&mut self) -> Result<()> {
        let (from, to) = self.starting_site();
        let (line, to) = (
            format!("ping {} -> {}: the first packet of traffic", from.host_address, to.host_address),
            to.host_address,
        );
        let pings = ping::ping_meanwhile(&self.starting_site().0.host, to, 50, &self.lab.dir().join("first-ping"))?;
        self.reporter.step(line);
        let initiator = match self.options.initiator {
            Initiator::Customer => &mut self.customer,
            Initiator::Cloud => &mut self.cloud,
        };
        if let Some(peer) = initiator.as_mut().filter(|peer| !peer.starts_on_traffic()) {
            peer.initiate()?;
        }
        clock::wait_for("a tunnel on the first packet", Duration::from_secs(10), || {
            Ok(is_up(&status(&mut self.customer)?) && is_up(&status(&mut self.cloud)?))
        })?;
        drop(pings);
        Ok(())
    }

    /// Everything that is done with a tunnel that is up.
    fn use_tunnel(&mut self, scenario: Scenario, plans: &super::Plans) -> Result<()> {
        let ends = [
            (self.ground.customer.host.clone(), self.ground.customer.host_address),
            (self.ground.cloud.host.clone(), self.ground.cloud.host_address),
        ];
        let mut answered = 0;
        for ((host, from), (_, to)) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            let pings = ping::ping(host, *to, 5, 56)?;
            answered += pings.answered;
            self.reporter.check(format!("ping {from} -> {to} passes"), pings.all_answered(), pings.to_string());
        }
        // A peer that does not probe answers into the black hole.
        let is_swallowed = self.options.trouble == Some(Trouble::BlackHole)
            && [self.options.customer, self.options.cloud] != [PeerKind::Simplon; 2];
        if !is_swallowed {
            let pings = ping::ping(&ends[0].0, ends[1].1, 2, 1472)?;
            answered += pings.answered;
            self.reporter.check("packets of 1500 bytes pass", pings.all_answered(), pings.to_string());
        }
        let mut watch = checks::Watch::default();
        if scenario == Scenario::NcpVgw && self.options.trouble.is_none() {
            answered += self.rekey_under_traffic(&ends[0], ends[1].1, &mut watch)?;
        }
        let (customer, cloud) = self.agreed_status()?;
        watch.look(&customer, &cloud);
        let wrapped = self.ground.nat || [self.options.customer, self.options.cloud].contains(&PeerKind::Strongswan);
        for (kind, end, status) in
            [(self.options.customer, "customer", &customer), (self.options.cloud, "cloud", &cloud)]
        {
            checks::status(&mut self.reporter, kind, end, status, &plans.customer.spec, wrapped);
        }
        checks::same_sas(&mut self.reporter, &customer, &cloud);
        watch.check_counted(&mut self.reporter, answered);
        self.reporter.report.customer_status = Some(customer);
        self.reporter.report.cloud_status = Some(cloud);
        self.reporter.show_status();
        self.reporter.show("");
        for (end, peer) in [("customer", &mut self.customer), ("cloud", &mut self.cloud)] {
            if let Some(peer) = peer {
                let undisturbed = self.options.trouble.is_none();
                checks::simplon(&mut self.reporter, scenario, end, undisturbed, peer.as_mut())?;
            }
        }
        Ok(())
    }

    /// What both say, asked again where a rekey came between the two questions.
    fn agreed_status(&mut self) -> Result<(Status, Status)> {
        let mut both = (self.customer_status()?, self.cloud_status()?);
        for _ in 0..10 {
            if checks::common_sas(&both.0, &both.1) > 0 {
                break;
            }
            clock::sleep(Duration::from_millis(200))?;
            both = (self.customer_status()?, self.cloud_status()?);
        }
        Ok(both)
    }

    fn rekey_under_traffic(&mut self, from: &(Node, Ipv4Addr), to: Ipv4Addr, watch: &mut checks::Watch) -> Result<u32> {
        let mut pings = ping::ping_meanwhile(&from.0, to, PINGS_OVER_REKEY, &self.lab.dir().join("rekey-ping"))?;
        self.reporter.step(format!(
            "ping {} -> {to} for {:.0} s, over the rekeys",
            from.1,
            f64::from(PINGS_OVER_REKEY) * 0.2
        ));
        while pings.is_running() {
            let (customer, cloud) = (status(&mut self.customer)?, status(&mut self.cloud)?);
            for what in watch.look(&customer, &cloud) {
                self.reporter.step(what);
            }
            clock::sleep(Duration::from_millis(150))?;
        }
        let pings = pings.finish()?;
        self.reporter.check("no ping is lost while rekeying", pings.all_answered(), pings.to_string());
        watch.check_rekeyed(&mut self.reporter);
        Ok(pings.answered)
    }

    fn check_wire(&mut self) -> Result<()> {
        let Some(capture) = self.capture.take() else { return Ok(()) };
        let frames = capture.finish()?;
        if let Some(path) = &self.options.pcap {
            write_pcap(path, &frames)?;
        }
        let inner = Inner {
            networks: vec![self.ground.customer.network, self.ground.cloud.network],
            pattern: PATTERN.to_vec(),
        };
        let tally = Tally::of(&frames, self.ground.wire, &inner);
        let plain = !self.ground.nat && ![self.options.customer, self.options.cloud].contains(&PeerKind::Strongswan);
        checks::wire(&mut self.reporter, &tally, plain, self.options.fault.is_none());
        self.reporter.report.wire = Some(tally);
        Ok(())
    }

    fn give_up(&mut self, error: &Error) {
        self.reporter.check("the scenario was played to its end", false, error.to_string());
    }

    fn show_logs_of_a_failure(&mut self) {
        if self.reporter.report.checks.iter().all(|check| check.held) {
            return;
        }
        for (end, peer) in [("customer", &mut self.customer), ("cloud", &mut self.cloud)] {
            if let Some(peer) = peer {
                self.reporter.log(end, peer.kind(), peer.log_tail(40));
            }
        }
    }

    fn hold(&mut self) -> Result<()> {
        self.reporter.show(&format!(
            "\nEverything stays up until Ctrl-C; {} holds configurations and logs.",
            self.lab.dir().display()
        ));
        for node in self.lab.nodes() {
            self.reporter.show(&format!("  ip netns exec {} bash", node.netns()));
        }
        match clock::sleep(Duration::MAX / 4) {
            Err(Error::Interrupted) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn stop(&mut self) {
        for peer in [&mut self.customer, &mut self.cloud] {
            if let Some(peer) = peer {
                peer.stop();
            }
            *peer = None;
        }
    }
}

fn is_up(status: &Status) -> bool {
    status.established && !status.children.is_empty()
}

fn status(peer: &mut Option<Box<dyn Peer>>) -> Result<Status> {
    match peer {
        Some(peer) => peer.status(),
        None => Ok(Status::default()),
    }
}
