//! What was sent last and may have to be sent again.

use std::fmt;

use base::{Deadline, Instant};

use super::keys::Digest;
use crate::context::{Context, Ends};
use crate::peer::Retransmission;

/// A message of ours: repeated by a timer where an answer is due, and whenever the peer repeats the message that it
/// answers.
#[derive(Clone)]
pub(super) struct Flight {
    /// The message.
    pub(super) sent: Box<[u8]>,
    /// The peer's message that it answers.
    pub(super) answers: Option<Digest>,
    pub(super) timer: Option<Timer>,
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flight({} bytes)", self.sent.len())
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    pub(super) sent: u32,
    pub(super) at: Instant,
}

/// What a timer that went off calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    NotYet,
    /// The message was sent again.
    Repeated,
    /// The last wait is over: it was sent this often.
    GivenUp(u32),
}

impl Flight {
    /// Sends `message`, an answer to `answers`, and repeats it by a timer until the peer goes on.
    pub(super) fn ask(ends: Ends, message: Vec<u8>, answers: Option<&[u8]>, ctx: &mut Context<'_>) -> Self {
        let mut flight = Self::answer(ends, message, answers, ctx);
        flight.timer = ctx.options.retransmission.wait(0).map(|wait| Timer { sent: 1, at: ctx.now + wait });
        flight
    }

    /// Sends `message`, an answer to `answers`, once and whenever that comes again.
    pub(super) fn answer(ends: Ends, message: Vec<u8>, answers: Option<&[u8]>, ctx: &mut Context<'_>) -> Self {
        ctx.transmit(ends, &message);
        Self { sent: message.into(), answers: answers.map(Digest::of), timer: None }
    }

    /// Stops the timer: the peer went on.
    pub(super) fn settle(&mut self) {
        self.timer = None;
    }

    /// Sends the same bytes again when `message` is what they answer.
    pub(super) fn answer_again(&self, ends: Ends, message: &[u8], ctx: &mut Context<'_>) -> bool {
        let is_same = self.answers.is_some_and(|answered| answered == Digest::of(message));
        if is_same {
            ctx.counters.answered_again += 1;
            ctx.transmit(ends, &self.sent);
        }
        is_same
    }

    /// Repeats the message when it is time.
    pub(super) fn handle_timeout(&mut self, ends: Ends, ctx: &mut Context<'_>) -> Due {
        let Some(timer) = self.timer.filter(|timer| timer.at <= ctx.now) else { return Due::NotYet };
        let Some(wait) = ctx.options.retransmission.wait(timer.sent) else { return Due::GivenUp(timer.sent) };
        self.timer = Some(Timer { sent: timer.sent + 1, at: ctx.now + wait });
        ctx.counters.retransmitted += 1;
        ctx.transmit(ends, &self.sent);
        Due::Repeated
    }

    pub(super) fn poll_timeout(&self, why: &'static str) -> Option<Deadline> {
        self.timer.map(|timer| Deadline { at: timer.at, why })
    }
}

/// How long an answer is kept for a peer that missed it: until it has given up asking.
pub(super) fn memory(retransmission: &Retransmission) -> std::time::Duration {
    retransmission.total() * 2
}
