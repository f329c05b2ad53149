//! Probing the path with padded requests (RFC 8899 §5.2 over RFC 7296 §1.4).
//!
//! ```text
//! a -- INFORMATIONAL { N(filler) }, of the size in question, DF set -> b      twice at most, the same bytes
//! a <- INFORMATIONAL { } -- b                                                 it passes
//!
//! a -- INFORMATIONAL { }, the same message ID -> b                            when no answer came
//! a -- INFORMATIONAL { N(filler) } again, DF clear -> b
//! a <- INFORMATIONAL { } -- b                                                 b lives; the size does not pass
//! ```
//!
//! A status notification of an unknown type is ignored (RFC 7296 §3.10.1). The window has room for one request, so a
//! probe must always come to its end, also where nothing long passes.
//!
//! Deliberate: the empty request has the message ID of the filled one, which RFC 7296 §2.1 wants to be repeated bit by bit.
//! A peer that did not get the filled one has nothing to compare. One that did answers again, be it to the one or to the
//! other, and its answer is the same: both requests ask for nothing. Fragments of the filled one (RFC 7383 §2.5.1) would
//! be by the book, but strongSwan 5.9 does not take fragments in this exchange, and falls silent.
//!
//! After the empty request has left, an answer says nothing about the size, whichever it is to. Whatever else has to be
//! asked cuts a probe short, at the price of one round trip.

use std::net::IpAddr;
use std::time::Duration;

use base::Instant;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::event::Output;
use crate::probe::{CannotProbe, Outcome, Probe, Probed};
use crate::wire::v2::{Body, NotifyType, exchange};

use super::Core;
use super::established::{Established, Exchange, Fate, Job};

/// The filler's type, of those for private use (RFC 7296 §3.10.1).
const FILLER: NotifyType = NotifyType(52_427);
/// Bytes of a Notify payload beside its data.
const NOTIFY: usize = 8;
/// How often the whole request is sent.
const WHOLE_TRIES: u32 = 2;
/// Bounds of the wait for an answer.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A probe under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probing {
    number: u64,
    size: u16,
    /// Bytes of the filler.
    filler: usize,
    stage: Stage,
    /// It only finds out whether the peer takes a message of one fragment; this is what comes next.
    trial_for: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// The whole request may still be answered.
    Whole,
    /// It was not: the empty request may be.
    Empty,
    /// Something else waits.
    Cut,
}

/// A request that fills a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filled {
    filler: usize,
    as_fragment: bool,
    size: u16,
}

impl Probing {
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Whole)
    }

    fn body(&self) -> Body {
        let mut body = Body::new();
        body.notify(FILLER, &vec![0; self.filler]);
        body
    }

    /// It will have no answer.
    pub(super) fn abandon(&self, ctx: &mut Context<'_>) {
        let Self { number, size, .. } = *self;
        ctx.outputs.push_back(Output::Probed(Probed { number, size, outcome: Outcome::Cancelled }));
    }
}

impl Established {
    pub(super) fn probe(&mut self, core: &mut Core, probe: Probe, ctx: &mut Context<'_>) -> Result<(), CannotProbe> {
        if self.fate != Fate::Live {
            return Err(CannotProbe::NoIkeSa);
        }
        self.enqueue(Job::Probe(probe), ctx.now);
        self.pump(core, ctx);
        Ok(())
    }

    pub(super) fn start_probe(&mut self, core: &mut Core, probe: Probe, ctx: &mut Context<'_>) {
        let Some(filled) = self.fill(core, probe, ctx) else {
            let outcome = Outcome::Lost;
            ctx.outputs.push_back(Output::Probed(Probed { number: probe.number, size: 0, outcome }));
            return;
        };
        let Filled { filler, as_fragment, size } = filled;
        let is_trial = as_fragment && self.lone_fragments.is_none();
        let filler = if is_trial { 0 } else { filler };
        let trial_for = is_trial.then_some(probe);
        let probing = Probing { number: probe.number, size, filler, stage: Stage::Whole, trial_for };
        let (kind, body) = (exchange::INFORMATIONAL, probing.body());
        let id = self.take_id();
        let fragment = as_fragment.then_some((1, 1));
        let header = core.header(kind, id, false);
        let packet = self.channel.keys.seal(header, fragment, body.first(), body.as_bytes(), ctx.random);
        ctx.transmit_probe(core.ends, &packet);
        core.last_sent = ctx.now;
        self.await_answer(id, vec![packet], kind, Exchange::Probe(probing), ctx);
        let wait = self.probe_wait;
        if let Some(outstanding) = self.outstanding.last_mut() {
            outstanding.at = ctx.now + wait;
        }
    }

    /// The largest request within the bounds. A suite that works in blocks of 16 bytes has twice as many sizes with the help
    /// of the fragment header, which a message of one fragment may have (RFC 7383 §2.5). Not every peer takes that here:
    /// it is tried first, with a short one.
    fn fill(&self, core: &Core, probe: Probe, ctx: &Context<'_>) -> Option<Filled> {
        let is_ipv4 = match core.ends.remote.ip() {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
        };
        let marker =
            if core.ends.local.port() == ctx.options.ports.natt { crate::natt::NON_ESP_MARKER.len() } else { 0 };
        let outer = if is_ipv4 { 20 } else { 40 } + 8 + marker;
        let filled = |as_fragment| {
            let room = usize::from(probe.most).checked_sub(outer)?;
            let (plain, message) = self.channel.keys.largest_plain(room, as_fragment)?;
            let size = u16::try_from(outer + message).ok()?;
            Some(Filled { filler: plain.checked_sub(NOTIFY)?, as_fragment, size })
        };
        let as_fragment = if self.lone_fragments == Some(false) { None } else { filled(true) };
        let plainly = filled(false);
        let does = plainly.filter(|filled| filled.size >= probe.least);
        does.or_else(|| plainly.into_iter().chain(as_fragment).max_by_key(|filled| filled.size))
    }

    /// The wait for the answer to a whole probe is over.
    pub(super) fn repeat_probe(&mut self, core: &mut Core, place: usize, ctx: &mut Context<'_>) {
        let wait = self.probe_wait;
        let Some(outstanding) = self.outstanding.get_mut(place) else { return };
        outstanding.sent += 1;
        if outstanding.sent < WHOLE_TRIES {
            outstanding.at = ctx.now + wait;
            ctx.counters.retransmitted += 1;
            core.last_sent = ctx.now;
            outstanding.packets.iter().for_each(|packet| ctx.transmit_probe(core.ends, packet));
        } else {
            self.probe_wait = (2 * wait).min(WAIT.1);
            self.break_off(core, place, Stage::Empty, ctx);
        }
    }

    /// Something waits for the window: a whole probe in it comes to its end.
    pub(super) fn hurry_probe(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let is_whole = |exchange: &Exchange| matches!(exchange, Exchange::Probe(probing) if probing.is_whole());
        let Some(place) = self.outstanding.iter().position(|o| is_whole(&o.exchange)) else { return };
        let waits = |job: &Job| !matches!(job, Job::Probe(_)) && !self.may_start(job);
        if self.tasks.iter().any(|task| task.at <= ctx.now && waits(&task.job)) {
            self.break_off(core, place, Stage::Cut, ctx);
        }
    }

    /// Asks by the same message ID for nothing at all: that passes. From here on it is a request like any other.
    fn break_off(&mut self, core: &mut Core, place: usize, stage: Stage, ctx: &mut Context<'_>) {
        let Some(outstanding) = self.outstanding.get_mut(place) else { return };
        let Exchange::Probe(probing) = &mut outstanding.exchange else { return };
        probing.stage = stage;
        let (header, body) = (core.header(exchange::INFORMATIONAL, outstanding.id, false), Body::new());
        let empty = self.channel.keys.seal(header, None, body.first(), body.as_bytes(), ctx.random);
        outstanding.packets.insert(0, empty);
        outstanding.sent = 0;
        outstanding.schedule(ctx.options, ctx.now);
        ctx.counters.retransmitted += 1;
        core.send(core.ends, &outstanding.packets, ctx);
    }

    /// The peer answered.
    pub(super) fn on_probe_answer(&mut self, probing: Probing, asked_at: Instant, ctx: &mut Context<'_>) {
        if let Some(probe) = probing.trial_for {
            self.lone_fragments = match probing.stage {
                Stage::Whole => Some(true),
                Stage::Empty => Some(false),
                Stage::Cut => None,
            };
            return self.enqueue(Job::Probe(probe), ctx.now);
        }
        let outcome = match probing.stage {
            Stage::Whole => {
                let round_trip = ctx.now.saturating_since(asked_at);
                self.probe_wait = (2 * round_trip).clamp(WAIT.0, WAIT.1);
                Outcome::Answered
            }
            Stage::Empty => Outcome::Lost,
            Stage::Cut => Outcome::Cancelled,
        };
        ctx.outputs.push_back(Output::Probed(Probed { number: probing.number, size: probing.size, outcome }));
    }

    /// The shortest wait for an answer.
    pub(super) const fn first_wait() -> Duration {
        WAIT.0
    }
}

/// A probe that was not begun.
pub(super) fn cancel(job: &Job, ctx: &mut Context<'_>) {
    if let Job::Probe(Probe { number, .. }) = *job {
        ctx.outputs.push_back(Output::Probed(Probed { number, size: 0, outcome: Outcome::Cancelled }));
    }
}
