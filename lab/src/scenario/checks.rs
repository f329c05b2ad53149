//! What must hold in every scenario, each with what was found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::Result;
use crate::peer::{Peer, PeerKind, Status};
use crate::report::Reporter;
use crate::scenario::{Scenario, asa};
use crate::spec::{ConnectionSpec, Suite};
use crate::wire::Tally;

/// What one gateway says agrees with what was asked for.
pub(super) fn status(
    reporter: &mut Reporter,
    kind: PeerKind,
    end: &str,
    status: &Status,
    spec: &ConnectionSpec,
    wrapped: bool,
) {
    let Some(child) = status.children.last() else {
        reporter.check(format!("the {end}'s gateway has a Child SA"), false, status.state.clone());
        return;
    };
    let mut wrong = Vec::new();
    if status.version.is_some_and(|version| version != spec.version.number()) {
        wrong.push("the version of IKE");
    }
    if child.esn.is_some_and(|esn| esn != spec.esp.esn) {
        wrong.push("extended sequence numbers");
    }
    if child.udp.is_some_and(|udp| udp != wrapped) {
        wrong.push("encapsulation");
    }
    let found =
        if wrong.is_empty() { format!("{} {}", spec.version, child.esp) } else { format!("not {}", wrong.join(", ")) };
    reporter.check(format!("the {end}'s gateway ({kind}) has what was asked for"), wrong.is_empty(), found);
}

/// How many Child SAs both ends have.
pub(super) fn common_sas(customer: &Status, cloud: &Status) -> usize {
    let pairs = |status: &Status, swap: bool| -> BTreeSet<(u32, u32)> {
        let spi = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0);
        let pair = |(a, b)| if swap { (b, a) } else { (a, b) };
        status.children.iter().map(|child| pair((spi(&child.spi_in), spi(&child.spi_out)))).collect()
    };
    pairs(customer, false).intersection(&pairs(cloud, true)).count()
}

/// The two ends name the same SAs.
pub(super) fn same_sas(reporter: &mut Reporter, customer: &Status, cloud: &Status) {
    let common = common_sas(customer, cloud);
    let found = format!("{common} in common of {} and {}", customer.children.len(), cloud.children.len());
    reporter.check("both ends have the same Child SA", common > 0, found);
}

/// What the two gateways have shown of their Child SAs over time: those that were rekeyed too.
#[derive(Default)]
pub(super) struct Watch {
    /// By inbound SPI: bytes in, bytes out.
    seen: [BTreeMap<String, (u64, u64)>; 2],
}

impl Watch {
    /// Looks at both; what is new since the first look.
    pub(super) fn look(&mut self, customer: &Status, cloud: &Status) -> Vec<String> {
        let mut news = Vec::new();
        for ((end, status), seen) in [("customer", customer), ("cloud", cloud)].iter().zip(&mut self.seen) {
            for child in &status.children {
                let bytes = (child.bytes_in, child.bytes_out);
                if seen.insert(child.spi_in.clone(), bytes).is_none() && seen.len() > 1 {
                    news.push(format!("the {end}'s gateway has a new Child SA, inbound SPI {}", child.spi_in));
                }
            }
        }
        news
    }

    /// At least one rekey was seen at each end.
    pub(super) fn check_rekeyed(&self, reporter: &mut Reporter) {
        let [customer, cloud] = [0, 1].map(|end: usize| self.seen[end].len().saturating_sub(1));
        let found = format!("{customer} seen at the customer, {cloud} at the cloud");
        reporter.check("the Child SA was rekeyed", customer > 0 && cloud > 0, found);
    }

    /// The counters have counted what passed: a ping is at least 84 bytes inside. What an SA counted
    /// between the last look and its end is not seen, so half of it is enough after a rekey.
    pub(super) fn check_counted(&self, reporter: &mut Reporter, answered: u32) {
        for (end, seen) in ["customer", "cloud"].iter().zip(&self.seen) {
            let (input, output) = seen.values().fold((0, 0), |sum, bytes| (sum.0 + bytes.0, sum.1 + bytes.1));
            let all = u64::from(answered) * 84;
            let least = if seen.len() > 1 { all / 2 } else { all };
            let found = format!("{input} bytes in, {output} bytes out, for {answered} pings");
            reporter.check(format!("the {end}'s counters count"), input >= least && output >= least, found);
        }
    }
}

/// Only what may be between gateways was there.
pub(super) fn wire(reporter: &mut Reporter, tally: &Tally, plain: bool, tunnel: bool) {
    reporter.check(
        "only IKE and ESP pass between the gateways",
        tally.leaks == 0,
        match tally.leak_samples.as_slice() {
            [] => tally.to_string(),
            samples => samples.join("; "),
        },
    );
    if !tunnel {
        let esp = tally.esp + tally.esp_in_udp;
        return reporter.check("no ESP passes between the gateways", esp == 0, format!("{esp} packets"));
    }
    let (wanted, other) = if plain { (tally.esp, tally.esp_in_udp) } else { (tally.esp_in_udp, tally.esp) };
    let name = if plain { "ESP travels plain, as IP protocol 50" } else { "ESP travels in UDP" };
    reporter.check(name, wanted > 0 && other == 0, format!("{wanted} packets, {other} otherwise"));
}

/// What only simplon can be asked.
pub(super) fn simplon(
    reporter: &mut Reporter,
    scenario: Scenario,
    end: &str,
    undisturbed: bool,
    peer: &mut dyn Peer,
) -> Result<()> {
    let Some(detail) = peer.detail()? else { return Ok(()) };
    let connection = &detail["connections"][0];
    let weak: Vec<&str> = connection["weak"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let named_weak = reporter.report.suite == Suite::Classic;
    let name = if named_weak { "status marks what is weak" } else { "status marks nothing as weak" };
    reporter.check(format!("the {end}'s {name}"), weak.is_empty() != named_weak, format!("weak: {}", weak.join(" ")));
    let sas = || {
        connection["children"].as_array().into_iter().flatten().filter_map(|child| child["sas"].as_array()).flatten()
    };
    let dropped: Vec<String> = sas()
        .filter_map(|sa| sa["traffic"]["inbound"]["dropped"].as_object())
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(reason, count)| format!("{reason}: {count}"))
        .collect();
    let found = if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") };
    // Doubled packets are dropped, as they should be.
    if undisturbed {
        reporter.check(format!("the {end}'s SAs dropped nothing that arrived"), dropped.is_empty(), found);
    }
    if scenario == Scenario::NcpVgw {
        let text = peer.detail_text()?.unwrap_or_default();
        asa::check(reporter, end, &detail, &text);
    }
    Ok(())
}
