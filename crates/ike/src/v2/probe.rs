//! Probing the path with padded requests (RFC 8899 §5.2 over RFC 7296 §1.4).
//!
//! ```text
//! a -- INFORMATIONAL { N(filler) }, of the size in question, DF set -> b      twice at most, the same bytes
//! a <- INFORMATIONAL { } -- b                                                 it passes
//!
//! a -- the same request in small fragments (RFC 7383 §2.5) -> b               when no answer came
//! a <- INFORMATIONAL { } -- b                                                 b lives; the size does not pass
//! ```
//!
//! A status notification of an unknown type is ignored (RFC 7296 §3.10.1). The window has room for one request, so a
//! probe must always come to its end: the fragments are what sees to that, and the reason why a peer that does not take
//! them is not probed. Whatever else has to be asked cuts a probe short, at the price of one round trip.
//!
//! After the fragments have left, an answer says nothing about the size, be it the answer to the whole request or not.

use std::net::IpAddr;
use std::time::Duration;

use base::Instant;

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
/// Largest UDP payload of the fragments: with IPv6 and UDP headers, what every host takes (RFC 791 §3.1, 576 bytes).
const FRAGMENT: usize = 512;
/// Bounds of the wait for an answer.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A probe under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probing {
    number: u64,
    size: u16,
    /// Bytes of the filler.
    filler: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The whole request may still be answered.
    Whole,
    /// It was not: the fragments are.
    Fragments,
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
        if !self.channel.fragmentation {
            return Err(CannotProbe::NoFragments);
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
        let probing = Probing { number: probe.number, size, filler, stage: Stage::Whole };
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

    /// The largest request within the bounds. One that works in blocks of 16 bytes has every fourth size with the help
    /// of the fragment header, which a message of one fragment may have (RFC 7383 §2.5).
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
        let (plainly, as_fragment) = (filled(false), filled(true));
        let does = plainly.filter(|filled| filled.size >= probe.least);
        does.or_else(|| plainly.into_iter().chain(as_fragment).max_by_key(|filled| filled.size))
    }

    /// The wait for the answer to a whole probe is over. Nothing but the two sendings of it may be lost by chance.
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
            self.break_up(core, place, Stage::Fragments, ctx);
        }
    }

    /// Something waits for the window: a whole probe in it comes to its end.
    pub(super) fn hurry_probe(&mut self, core: &mut Core, ctx: &mut Context<'_>) {
        let is_whole = |exchange: &Exchange| matches!(exchange, Exchange::Probe(probing) if probing.is_whole());
        let Some(place) = self.outstanding.iter().position(|o| is_whole(&o.exchange)) else { return };
        let waits = |job: &Job| !matches!(job, Job::Probe(_)) && !self.may_start(job);
        if self.tasks.iter().any(|task| task.at <= ctx.now && waits(&task.job)) {
            self.break_up(core, place, Stage::Cut, ctx);
        }
    }

    /// Sends the request again, in fragments that pass: RFC 7383 §2.5.1 lets a sender cut a request anew that has no
    /// answer. From here on it is a request like any other.
    fn break_up(&mut self, core: &mut Core, place: usize, stage: Stage, ctx: &mut Context<'_>) {
        let Some(outstanding) = self.outstanding.get_mut(place) else { return };
        let Exchange::Probe(probing) = &mut outstanding.exchange else { return };
        probing.stage = stage;
        let header = core.header(exchange::INFORMATIONAL, outstanding.id, false);
        outstanding.packets = self.channel.seal(header, &probing.body(), FRAGMENT, ctx.random);
        outstanding.sent = 0;
        outstanding.schedule(ctx.options, ctx.now);
        ctx.counters.retransmitted += 1;
        core.send(core.ends, &outstanding.packets, ctx);
    }

    /// The peer answered.
    pub(super) fn on_probe_answer(&mut self, probing: Probing, asked_at: Instant, ctx: &mut Context<'_>) {
        let outcome = match probing.stage {
            Stage::Whole => {
                let round_trip = ctx.now.saturating_since(asked_at);
                self.probe_wait = (2 * round_trip).clamp(WAIT.0, WAIT.1);
                Outcome::Answered
            }
            Stage::Fragments => Outcome::Lost,
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
