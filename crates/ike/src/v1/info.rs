//! Informational exchanges (RFC 2409 §5.7): notifications, deletes and dead peer detection (RFC 3706).

use std::time::Duration;

use base::{Deadline, Instant};
use model::Dpd;
use sa::Spi;

use super::Link;
use super::established::{After, Established};
use super::keys::{Iv, Keys};
use super::phase2::spi_of;
use crate::context::{Context, Ends};
use crate::event::{CloseReason, DropReason};
use crate::wire::header::{self, Header};
use crate::wire::v1::{Chain, Delete, Notify, Padding, Payloads, exchange, flag, notify, payload, protocol};

/// An informational message with its hash, encrypted.
pub(super) fn sealed(
    link: &Link,
    keys: &Keys,
    last_block: &Iv,
    payloads: &[(u8, Vec<u8>)],
    ctx: &mut Context<'_>,
) -> Vec<u8> {
    let message_id = ctx.random.next_u32() | 1;
    let header = link.cookies.header(exchange::INFORMATIONAL, message_id);
    let inner = payloads.iter().fold(Payloads::new(), |inner, (kind, body)| inner.with(*kind, body));
    let hash = keys.authenticate(&[&message_id.to_be_bytes(), inner.bytes()]);
    let first = Payloads::new().with(payload::HASH, hash.expose());
    let all = payloads.iter().fold(first, |all, (kind, body)| all.with(*kind, body));
    keys.seal(&keys.phase2_iv(last_block, message_id), header, &all).0
}

/// The delete of the ISAKMP SA.
pub(super) fn delete_isakmp(link: &Link, keys: &Keys, last_block: &Iv, ctx: &mut Context<'_>) -> Vec<u8> {
    let cookies = link.cookies.bytes();
    let delete = Delete { protocol: protocol::ISAKMP, spis: vec![&cookies] };
    sealed(link, keys, last_block, &[(payload::DELETE, delete.encode())], ctx)
}

/// What an authentic informational message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Notify { kind: u16, spi: Vec<u8>, data: Vec<u8> },
    Delete { protocol: u8, spis: Vec<Vec<u8>> },
}

/// An informational message whose hash verified: only [`open`] makes it.
#[derive(Debug)]
pub(super) struct Opened(Vec<Said>);

impl Opened {
    /// Error notifications, and the ESP SPI each is about.
    pub(super) fn errors(&self) -> Vec<(u16, Option<Spi>)> {
        let error = |said: &Said| match said {
            Said::Notify { kind, spi, .. } if *kind <= notify::LAST_ERROR => Some((*kind, spi_of(spi))),
            Said::Notify { .. } | Said::Delete { .. } => None,
        };
        self.0.iter().filter_map(error).collect()
    }
}

/// Decrypts an informational message and verifies its hash.
pub(super) fn open(keys: &Keys, last_block: &Iv, header: &Header, message: &[u8]) -> Result<Opened, DropReason> {
    if header.flags & flag::ENCRYPTED == 0 || header.message_id == 0 {
        return Err(DropReason::NotAuthentic);
    }
    let (plain, _) = keys.open(&keys.phase2_iv(last_block, header.message_id), message)?;
    let chain = Chain::decode(header.next_payload, &plain, Padding::Encrypted).map_err(|_| DropReason::NotAuthentic)?;
    let (hash, covered) = chain.hashed().ok_or(DropReason::NotAuthentic)?;
    if keys.authenticate(&[&header.message_id.to_be_bytes(), covered]) != hash.into() {
        return Err(DropReason::NotAuthentic);
    }
    let mut said = Vec::new();
    for body in chain.all(payload::NOTIFY) {
        let Notify { kind, spi, data, .. } = Notify::decode(body)?;
        said.push(Said::Notify { kind, spi: spi.to_vec(), data: data.to_vec() });
    }
    for body in chain.all(payload::DELETE) {
        let Delete { protocol, spis } = Delete::decode(body)?;
        said.push(Said::Delete { protocol, spis: spis.into_iter().map(<[u8]>::to_vec).collect() });
    }
    Ok(Opened(said))
}

/// Error notifications of an informational message in the clear: hints, no more.
pub(super) fn clear_errors(header: &Header, message: &[u8]) -> Result<Vec<u16>, DropReason> {
    if header.flags & flag::ENCRYPTED != 0 {
        return Err(DropReason::NotAuthentic);
    }
    let body = message.get(header::LEN..).ok_or(DropReason::Malformed)?;
    let chain = Chain::decode(header.next_payload, body, Padding::Clear)?;
    let kinds = chain.all(payload::NOTIFY).filter_map(|body| Notify::decode(body).ok()).map(|note| note.kind);
    Ok(kinds.filter(|kind| *kind <= notify::LAST_ERROR).collect())
}

/// Dead peer detection: who was heard when, and what was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) last_heard: Instant,
    pub(super) asked: Option<Asked>,
    /// The number of our last question.
    pub(super) sequence: u32,
    /// The highest number that the peer asked with.
    pub(super) peer_sequence: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When the first question that was not answered left, and its number.
    pub(super) since: Instant,
    pub(super) first: u32,
    pub(super) again_at: Instant,
}

impl Watch {
    pub(super) fn new(ctx: &mut Context<'_>) -> Self {
        // RFC 3706 §7.1: the first number is random, its high bit clear.
        let sequence = ctx.random.next_u32() >> 1;
        Self { last_heard: ctx.now, asked: None, sequence, peer_sequence: None }
    }

    /// The peer said something then.
    pub(super) fn note_alive(&mut self, at: Instant) {
        self.last_heard = self.last_heard.max(at);
        self.asked = self.asked.filter(|asked| asked.since > at);
    }

    /// When a peer that was asked is given up.
    fn give_up_at(&self, asked: &Asked, dpd: &Dpd) -> Instant {
        (self.last_heard + dpd.timeout).max(asked.since + dpd.least_wait())
    }

    /// Another gateway asked since with numbers that are not known here: a peer hears only those that grow.
    pub(super) const fn leap(&mut self, now: Instant) {
        self.sequence = self.sequence.wrapping_add(1_000);
        (self.last_heard, self.asked) = (now, None);
    }

    pub(super) fn poll_timeout(&self, dpd: &Dpd) -> Deadline {
        match self.asked {
            Some(asked) => {
                let at = asked.again_at.min(self.give_up_at(&asked, dpd));
                Deadline { at, why: "dead peer detection: an answer" }
            }
            None => Deadline { at: self.last_heard + dpd.delay, why: "dead peer detection: a question" },
        }
    }
}

/// A peer that deletes phase 1 this soon, without a phase 2, has refused us.
const AT_ONCE: Duration = Duration::from_secs(2);

impl Established {
    pub(super) fn send_info(&self, link: &Link, ends: Ends, payloads: &[(u8, Vec<u8>)], ctx: &mut Context<'_>) {
        let message = sealed(link, &self.keys, &self.last_block, payloads, ctx);
        ctx.transmit(ends, &message);
    }

    /// Tells the peer that it shall not use these inbound SPIs of ours any more.
    pub(super) fn send_delete(&self, link: &Link, spis: &[Spi], ctx: &mut Context<'_>) {
        let bytes: Vec<_> = spis.iter().map(|spi| spi.0.to_be_bytes()).collect();
        if !bytes.is_empty() {
            let delete = Delete { protocol: protocol::ESP, spis: bytes.iter().map(|spi| &spi[..]).collect() };
            self.send_info(link, link.ends, &[(payload::DELETE, delete.encode())], ctx);
        }
    }

    pub(super) fn send_delete_isakmp(&self, link: &Link, ctx: &mut Context<'_>) {
        let message = delete_isakmp(link, &self.keys, &self.last_block, ctx);
        ctx.transmit(link.ends, &message);
    }

    /// A notification about phase 2, encrypted.
    pub(super) fn notification(&self, link: &Link, kind: u16, spi: &[u8], ctx: &mut Context<'_>) -> Vec<u8> {
        let note = Notify { protocol: protocol::ESP, spi, kind, data: &[] };
        sealed(link, &self.keys, &self.last_block, &[(payload::NOTIFY, note.encode())], ctx)
    }

    fn send_dpd(&self, link: &Link, ends: Ends, kind: u16, sequence: u32, ctx: &mut Context<'_>) {
        let cookies = link.cookies.bytes();
        let note = Notify { protocol: protocol::ISAKMP, spi: &cookies, kind, data: &sequence.to_be_bytes() };
        self.send_info(link, ends, &[(payload::NOTIFY, note.encode())], ctx);
    }

    pub(super) fn handle_info(
        &mut self,
        link: &mut Link,
        ends: Ends,
        header: &Header,
        message: &[u8],
        ctx: &mut Context<'_>,
    ) -> After {
        let opened = match open(&self.keys, &self.last_block, header, message) {
            Ok(opened) => opened,
            Err(reason) => {
                ctx.drop(reason);
                return After::Stays;
            }
        };
        for (kind, spi) in opened.errors() {
            if let After::Closed = self.handle_error(kind, spi, link, ctx) {
                return After::Closed;
            }
        }
        for said in &opened.0 {
            let after = match said {
                Said::Notify { kind: notify::R_U_THERE, data, .. } => {
                    self.handle_question(link, ends, data, ctx);
                    After::Stays
                }
                Said::Notify { kind: notify::R_U_THERE_ACK, data, .. } => {
                    self.handle_answer(link, ends, data, ctx);
                    After::Stays
                }
                Said::Delete { protocol: protocol::ISAKMP, spis } => self.handle_delete_isakmp(link, spis, ctx),
                Said::Delete { protocol: protocol::ESP, spis } => {
                    spis.iter().filter_map(|spi| spi_of(spi)).for_each(|spi| self.handle_delete(spi, link, ctx));
                    After::Stays
                }
                // INITIAL_CONTACT behind message 5 comes too late to mean more than the new SA itself; CONNECTED
                // (commit bit) and other status change nothing.
                Said::Notify { .. } | Said::Delete { .. } => After::Stays,
            };
            if let After::Closed = after {
                return After::Closed;
            }
        }
        After::Stays
    }

    /// A peer that refuses right after message 6 refuses our identity; later it is about a quick mode.
    fn handle_error(&mut self, kind: u16, spi: Option<Spi>, link: &mut Link, ctx: &mut Context<'_>) -> After {
        let is_about_us = kind == notify::AUTHENTICATION_FAILED
            || kind == notify::INVALID_ID_INFORMATION && spi.is_none() && !self.has_quick_under_way();
        if !is_about_us {
            self.handle_quick_refused(kind, spi, link, ctx);
            return After::Stays;
        }
        self.tell_refused(link, ctx);
        self.end(CloseReason::Failed, crate::context::Again::Later, ctx)
    }

    fn tell_refused(&self, link: &Link, ctx: &mut Context<'_>) {
        let cause = crate::Cause::PeerRefusedUs { claimed: self.local_id.clone() };
        let connection = ctx.peers.get(self.peer).map(|peer| peer.connection.as_ref());
        let failure = crate::Failure::new(cause, crate::Side::Theirs, connection);
        ctx.fail(Some(self.peer), link.ends.remote, failure);
    }

    fn handle_delete_isakmp(&mut self, link: &Link, spis: &[Vec<u8>], ctx: &mut Context<'_>) -> After {
        if !spis.iter().any(|spi| *spi == link.cookies.bytes()) {
            return After::Stays;
        }
        // An initiator that dislikes our identity in message 6 may say no more than that: strongSwan does so.
        let age = ctx.now.saturating_since(self.established_at);
        if !link.is_initiator && self.children.is_empty() && age < AT_ONCE {
            self.tell_refused(link, ctx);
        }
        self.note_deleted(ctx)
    }

    fn handle_question(&mut self, link: &mut Link, ends: Ends, data: &[u8], ctx: &mut Context<'_>) {
        let Ok(sequence) = data.try_into().map(u32::from_be_bytes) else {
            ctx.drop(DropReason::Malformed);
            return;
        };
        self.send_dpd(link, ends, notify::R_U_THERE_ACK, sequence, ctx);
        // RFC 3706 §7.1: a number that does not grow may be a replay: answered, but no sign of life.
        if self.watch.peer_sequence.is_none_or(|last| sequence > last) {
            self.watch.peer_sequence = Some(sequence);
            self.note_fresh(link, ends, ctx);
        }
    }

    fn handle_answer(&mut self, link: &mut Link, ends: Ends, data: &[u8], ctx: &mut Context<'_>) {
        let sequence = data.try_into().map(u32::from_be_bytes);
        if let Ok(sequence) = sequence
            && self.on_probe_answer(sequence, ctx)
        {
            return self.note_fresh(link, ends, ctx);
        }
        let (Ok(sequence), Some(asked)) = (sequence, self.watch.asked) else {
            ctx.drop(DropReason::OutOfOrder);
            return;
        };
        if (asked.first..=self.watch.sequence).contains(&sequence) {
            self.note_fresh(link, ends, ctx);
        }
    }

    /// What the peer sent cannot be a replay: it lives, and there.
    pub(super) fn note_fresh(&mut self, link: &mut Link, ends: Ends, ctx: &mut Context<'_>) {
        self.watch.note_alive(ctx.now);
        self.follow(link, ends, ctx);
    }

    /// Asks a silent peer whether it is there, and gives up one that has not answered for long.
    pub(super) fn handle_dpd_timeout(&mut self, link: &Link, dpd: &Dpd, ctx: &mut Context<'_>) -> After {
        if self.watch.poll_timeout(dpd).at > ctx.now {
            return After::Stays;
        }
        if let Some(asked) = self.watch.asked
            && ctx.now >= self.watch.give_up_at(&asked, dpd)
        {
            let again = self.again_after_loss(ctx);
            return self.end(CloseReason::PeerDead, again, ctx);
        }
        self.watch.sequence = self.watch.sequence.wrapping_add(1);
        let sequence = self.watch.sequence;
        // Once it is silent it is asked more often: of few questions all might be lost.
        let again_at = ctx.now + dpd.delay.min(dpd.timeout / 5).max(Duration::from_secs(1));
        let (since, first) = self.watch.asked.map_or((ctx.now, sequence), |asked| (asked.since, asked.first));
        self.watch.asked = Some(Asked { since, first, again_at });
        self.send_dpd(link, link.ends, notify::R_U_THERE, sequence, ctx);
        After::Stays
    }
}
