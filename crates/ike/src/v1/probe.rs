//! Probing the path with filled questions of dead peer detection (RFC 8899 §5.2 over RFC 3706 §5).
//!
//! ```text
//! a -- HASH, N(R-U-THERE, n), VID(filler) -->, of the size in question, DF set     twice at most, n and n + 1
//! a <-- HASH, N(R-U-THERE-ACK, n) -- b                                           it passes
//!
//! a -- HASH, N(R-U-THERE, n + 2) -->                                             when no answer came, twice at most
//! a <-- HASH, N(R-U-THERE-ACK, n + 2) -- b                                       b lives; the size does not pass
//! ```
//!
//! The answer is encrypted and authenticated, and names the number of its question: only the peer makes it. The filler is
//! a vendor ID that nobody knows, which nobody has to understand (RFC 2408 §3.16): strongSwan 5.9 and Libreswan 4.10 take
//! it here. A status notification for private use would be nearer to IKEv2's probes, but Libreswan calls a message with a
//! type that it does not know malformed. A peer that does not take the filler answers no long question, and is left alone
//! for a while.
//!
//! Questions are numbered upwards whether they are answered or not; strongSwan answers whatever the number, Libreswan what
//! grows.

use std::net::IpAddr;
use std::time::Duration;

use base::{Deadline, Instant};

use super::Link;
use super::established::Established;
use crate::context::Context;
use crate::event::Output;
use crate::natt::NON_ESP_MARKER;
use crate::probe::{CannotProbe, Outcome, Probe, Probed};
use crate::wire::header;
use crate::wire::v1::{Notify, notify, payload, protocol};

/// How the filler begins, for a person who looks into a message.
const FILLER: &[u8] = b"simplon: filler of a path probe";
/// How often a question is asked, filled and not.
const TRIES: usize = 2;
/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// Bytes of a payload's generic header, and of a notification beside its SPI and data.
const GENERIC: usize = 4;
const NOTIFY: usize = GENERIC + 8;
/// SPI and data of a question.
const QUESTION: usize = NOTIFY + 16 + 4;

/// A probe under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    number: u64,
    size: u16,
    /// Bytes of the filler.
    filler: usize,
    /// The numbers of the questions that were asked: those with the filler, those without. Dead peer detection asks in
    /// between.
    filled: Asked,
    short: Asked,
    at: Instant,
}

/// The numbers of the same question, asked again and again.
type Asked = [Option<u32>; TRIES];

impl Probing {
    fn told(&self, outcome: Outcome) -> Output {
        Output::Probed(Probed { number: self.number, size: self.size, outcome })
    }
}

impl Established {
    pub(super) fn probe(&mut self, probe: Probe, link: &Link, ctx: &mut Context<'_>) -> Result<(), CannotProbe> {
        if !self.peer_has_dpd {
            return Err(CannotProbe::NoDpd);
        }
        self.abandon_probe(ctx);
        let Probe { number, .. } = probe;
        // A peer that refuses the filler by an error must not be taken for one that refuses a quick mode.
        if !self.is_in_charge() || self.has_quick_under_way() {
            ctx.outputs.push_back(Output::Probed(Probed { number, size: 0, outcome: Outcome::Cancelled }));
            return Ok(());
        }
        let Some((filler, size)) = self.fill(probe, link, ctx) else {
            ctx.outputs.push_back(Output::Probed(Probed { number, size: 0, outcome: Outcome::Lost }));
            return Ok(());
        };
        let none = [None; TRIES];
        self.probing = Some(Probing { number, size, filler, filled: none, short: none, at: ctx.now });
        self.ask_probe(link, ctx);
        Ok(())
    }

    /// The filler of the largest packet within the bounds, and the size of that.
    fn fill(&self, probe: Probe, link: &Link, ctx: &Context<'_>) -> Option<(usize, u16)> {
        let is_ipv4 = match link.ends.remote.ip() {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
        };
        let marker = if link.ends.local.port() == ctx.options.ports.natt { NON_ESP_MARKER.len() } else { 0 };
        let outer = if is_ipv4 { 20 } else { 40 } + 8 + marker + header::LEN;
        let room = usize::from(probe.most).checked_sub(outer)?;
        let body = room - room % self.keys.suite.encryption.block_len();
        let filler = body.checked_sub(GENERIC + self.keys.suite.hash.output_len() + QUESTION + GENERIC)?;
        Some((filler, u16::try_from(outer + body).ok()?))
    }

    /// Asks once more, with the filler as long as it was not asked often enough; whether there is more to ask.
    fn ask_probe(&mut self, link: &Link, ctx: &mut Context<'_>) -> bool {
        let sequence = self.watch.sequence.wrapping_add(1);
        let Some(probing) = &mut self.probing else { return false };
        let Some(place) = probing.filled.iter_mut().chain(&mut probing.short).position(|asked| {
            let is_free = asked.is_none();
            is_free.then(|| *asked = Some(sequence));
            is_free
        }) else {
            return false;
        };
        self.watch.sequence = sequence;
        probing.at = ctx.now + WAIT;
        let cookies = link.cookies.bytes();
        let question = Notify {
            protocol: protocol::ISAKMP,
            spi: &cookies,
            kind: notify::R_U_THERE,
            data: &sequence.to_be_bytes(),
        };
        let mut parts = vec![(payload::NOTIFY, question.encode())];
        if place >= TRIES {
            self.send_info(link, link.ends, &parts, ctx);
            return true;
        }
        let mut data = FILLER.to_vec();
        data.resize(probing.filler, 0);
        parts.push((payload::VENDOR, data));
        let message = super::info::sealed(link, &self.keys, &self.last_block, &parts, ctx);
        ctx.transmit_probe(link.ends, &message);
        true
    }

    pub(super) fn poll_probe(&self) -> Option<Deadline> {
        self.probing.map(|probing| Deadline { at: probing.at, why: "the answer to a probe of the path" })
    }

    pub(super) fn handle_probe_timeout(&mut self, link: &Link, ctx: &mut Context<'_>) {
        if self.probing.is_some_and(|probing| probing.at <= ctx.now) {
            if self.ask_probe(link, ctx) {
                ctx.counters.retransmitted += 1;
            } else {
                // Whether it lives is for dead peer detection to find out.
                self.abandon_probe(ctx);
            }
        }
    }

    /// An authentic answer with this number came; whether it is about a probe.
    pub(super) fn on_probe_answer(&mut self, sequence: u32, ctx: &mut Context<'_>) -> bool {
        let Some(probing) = self.probing else { return false };
        let is_of = |asked: &Asked| asked.contains(&Some(sequence));
        let outcome = match (is_of(&probing.filled), is_of(&probing.short)) {
            (true, _) => Outcome::Answered,
            (false, true) => Outcome::Lost,
            (false, false) => return false,
        };
        self.probing = None;
        ctx.outputs.push_back(probing.told(outcome));
        true
    }

    /// The probe under way, if there is one, will have no answer.
    pub(super) fn abandon_probe(&mut self, ctx: &mut Context<'_>) {
        if let Some(probing) = self.probing.take() {
            ctx.outputs.push_back(probing.told(Outcome::Cancelled));
        }
    }
}
