//! One SA, the direction that leaves. Several workers may seal with it at once.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};

use base::Instant;
use base::export::Moment;
use packet::{Ip, Tos, protocol};
use sa::{ChildSa, SaId, Spi};

use crate::export::OutboundStanding;
use crate::limits::{LAST_SHORT_SEQUENCE, Meter, SOFT_SHORT_SEQUENCE};
use crate::shared::RESERVE;
use crate::transform::{LANES, Transform};
use crate::wire::{Layout, TRAILER};
use crate::{Counters, Dropped, Drops, Limit, Unusable, ecn};

/// Seals packets. All state that changes is atomic, so that it can be shared.
///
/// There must be one such object for one set of keys, ever: sequence numbers, and with them the IVs
/// of AEAD suites, start at 1 in each.
#[derive(Debug)]
pub struct OutboundSa {
    id: SaId,
    spi: Spi,
    transform: Transform,
    meter: Meter,
    copy_dscp: bool,
    /// The next number to give out.
    next: AtomicU64,
    /// From this number on they belong to another gateway that may go on with the SA; [`NO_CEILING`] while none may.
    ceiling: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    last_at: AtomicU64,
    soft_told: AtomicBool,
    hard_told: AtomicBool,
}

const NO_CEILING: u64 = u64::MAX;

/// A packet that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes at the beginning of the caller's buffer.
    pub len: usize,
    /// The traffic class that the outer header should have.
    pub tos: Tos,
    /// A limit that this packet was the first to reach.
    pub limit: Option<Limit>,
}

/// Sequence numbers that belong to whoever holds this, to be used with the SA they came from.
#[derive(Debug)]
pub struct Reserved<'a> {
    sa: &'a OutboundSa,
    next: u64,
    end: u64,
}

impl OutboundSa {
    /// The last number with ESN. Deliberate: 2^32 fewer than there are, so that workers who add to
    /// an exhausted counter cannot wrap it.
    const LAST_LONG_SEQUENCE: u64 = u64::MAX - u32::MAX as u64;

    /// Puts the outbound keys of a Child SA in service.
    ///
    /// # Errors
    ///
    /// [`Unusable`] when suite, keys or SPI are not fit for use.
    pub fn new(child: &ChildSa) -> Result<Self, Unusable> {
        Self::starting_at(child, 1)
    }

    /// The same, the first packet having this number.
    pub(crate) fn starting_at(child: &ChildSa, first: u64) -> Result<Self, Unusable> {
        // RFC 4303 §2.1: 0 is never sent, 1 to 255 are reserved.
        if child.outbound_spi.0 < 256 {
            return Err(Unusable::BadSpi);
        }
        Ok(Self {
            id: child.id,
            spi: child.outbound_spi,
            transform: Transform::new(child.suite, &child.keys.outbound)?,
            meter: Meter::new(child.limits, child.suite),
            copy_dscp: child.copy_dscp,
            next: AtomicU64::new(first),
            ceiling: AtomicU64::new(NO_CEILING),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_at: AtomicU64::new(0),
            soft_told: AtomicBool::new(false),
            hard_told: AtomicBool::new(false),
        })
    }

    /// How far it is, for another process. It must seal no more.
    pub(crate) fn standing(&self, now: Instant) -> OutboundStanding {
        OutboundStanding {
            next: self.next.load(Relaxed),
            counted: self.counters().into(),
            last_at: self.last_used().map(|at| Moment::of(at, now)),
            soft_told: self.soft_told.load(Relaxed),
            hard_told: self.hard_told.load(Relaxed),
        }
    }

    /// Goes on from there, so many numbers `ahead`. It must not have sealed anything.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`] when it would use numbers again; nothing has changed then.
    pub(crate) fn resume(&self, standing: &OutboundStanding, ahead: u64, now: Instant) -> Result<(), Unusable> {
        if standing.next == 0 || standing.next < self.next.load(Relaxed) {
            return Err(Unusable::BadStanding);
        }
        let next = standing.next.saturating_add(ahead).min(Self::LAST_LONG_SEQUENCE + 1);
        self.next.store(next.max(standing.next), Relaxed);
        let Counters { packets, bytes, .. } = (&standing.counted).into();
        self.packets.store(packets, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.last_at.store(standing.last_at.map_or(0, |moment| moment.at(now).as_micros()), Relaxed);
        self.soft_told.store(standing.soft_told, Relaxed);
        self.hard_told.store(standing.hard_told, Relaxed);
        Ok(())
    }

    /// Binds it, before another gateway hears of it that goes on from what it is told, and says what that is told: the
    /// next number. Only numbers below that and [`RESERVE`] are used until [`Self::confirm`].
    pub(crate) fn share(&self) -> u64 {
        if self.ceiling.load(Relaxed) != NO_CEILING {
            // Another was told before, is lost, and may have gone on, a reserve behind what it heard last, with a reserve.
            self.skip(2 * RESERVE);
        }
        // Another worker may be about to use a number. Either its addition comes before the second look, and the number is
        // below what is told; or it sees this ceiling afterwards.
        self.ceiling.store(self.next.load(Relaxed).saturating_add(RESERVE), SeqCst);
        let next = self.next.load(SeqCst);
        self.bind(next);
        next
    }

    /// Another gateway hears that this is the next number.
    pub(crate) fn bind(&self, told: u64) {
        self.ceiling.store(told.saturating_add(RESERVE), Relaxed);
    }

    /// The other gateway knows that this number was the next.
    pub(crate) fn confirm(&self, next: u64) {
        // Where there is no ceiling this changes nothing.
        self.ceiling.fetch_max(next.saturating_add(RESERVE), Relaxed);
    }

    /// Goes on in place of another gateway, which said last that this was its next number and may go on too.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`] when it has sealed something already; nothing has changed then.
    pub(crate) fn succeed(&self, next: u64) -> Result<(), Unusable> {
        if next == 0 || self.next.load(Relaxed) != 1 {
            return Err(Unusable::BadStanding);
        }
        let first = next.saturating_add(RESERVE);
        self.ceiling.store(first.saturating_add(RESERVE), Relaxed);
        self.next.store(first, Relaxed);
        Ok(())
    }

    /// Leaves out as many numbers: the peer asks for it (RFC 6311 §5.2).
    pub(crate) fn skip(&self, count: u64) {
        let last = Self::LAST_LONG_SEQUENCE;
        // Never refused: the new number is at least the old one.
        let _ =
            self.next.fetch_update(Relaxed, Relaxed, |next| Some(next.saturating_add(count).min(last + 1).max(next)));
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Whose direction it is.
    pub const fn id(&self) -> SaId {
        self.id
    }

    /// The SPI in its packets.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Where the parts of its packets lie.
    pub const fn layout(&self) -> Layout {
        self.transform.layout()
    }

    /// Packets and bytes sealed. What was refused is counted by the table that asked.
    pub fn counters(&self) -> Counters {
        Counters { packets: self.packets.load(Relaxed), bytes: self.bytes.load(Relaxed), drops: Drops::default() }
    }

    /// The highest sequence number given out; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        let last = if self.transform.esn() { Self::LAST_LONG_SEQUENCE } else { LAST_SHORT_SEQUENCE };
        self.next.load(Relaxed).saturating_sub(1).min(last)
    }

    /// When the last packet was sealed; `None` before the first.
    pub fn last_used(&self) -> Option<Instant> {
        let is_used = self.packets.load(Relaxed) > 0;
        is_used.then(|| Instant::from_micros(self.last_at.load(Relaxed)))
    }

    /// Builds the ESP packet of `inner` at the beginning of `out`.
    ///
    /// # Errors
    ///
    /// [`Dropped::NotIp`], [`Dropped::TooBig`] when it does not fit into `out`, [`Dropped::Expired`],
    /// [`Dropped::SequenceExhausted`]. No sequence number is spent then.
    pub fn seal(&self, inner: &[u8], out: &mut [u8], now: Instant) -> Result<Sealed, Dropped> {
        self.place(inner, out)?;
        self.seal_in_place(inner.len(), out, now)
    }

    /// The same where the inner packet, `inner_len` bytes, lies in `out` already, at
    /// [`Layout::payload_at`].
    ///
    /// # Errors
    ///
    /// As [`OutboundSa::seal`].
    pub fn seal_in_place(&self, inner_len: usize, out: &mut [u8], now: Instant) -> Result<Sealed, Dropped> {
        let (next_header, tos) = self.inspect(inner_len, out)?;
        self.check_limits(now)?;
        let sequence = self.reserve(1)?.next;
        Ok(self.finish(sequence, next_header, tos, inner_len, out, now))
    }

    /// Seals packets that lie back to back in `packets`, as one: each has `sealed_len(inner_len)` bytes of room but the
    /// last, which has `sealed_len(last_len)` and ends the buffer. `write` puts the inner packets, all of one version
    /// and of these lengths, where they belong, one after the other. A limit that they reach together is returned.
    ///
    /// # Errors
    ///
    /// [`Dropped::TooBig`] when `write` or the buffer ends early, [`Dropped::Expired`],
    /// [`Dropped::SequenceExhausted`]. Nothing may be sent then.
    pub(crate) fn seal_run(
        &self,
        next_header: u8,
        (inner_len, last_len): (usize, usize),
        packets: &mut [u8],
        mut write: impl FnMut(&mut [u8]) -> Option<usize>,
        now: Instant,
    ) -> Result<Option<Limit>, Dropped> {
        let layout = self.layout();
        let (len, last) = (layout.sealed_len(inner_len), layout.sealed_len(last_len));
        let full = packets.len().checked_sub(last).ok_or(Dropped::TooBig)? / len;
        self.check_limits(now)?;
        let count = u32::try_from(full + 1).map_err(|_| Dropped::TooBig)?;
        let mut sequence = self.reserve(count)?.next;
        let end = sequence + u64::from(count);
        // Windows that stay in the nearest cache between writing and sealing.
        for window in packets.chunks_mut(len * LANES) {
            let first = sequence;
            for packet in window.chunks_mut(len) {
                let expected = if sequence + 1 < end { inner_len } else { last_len };
                let written = packet.get_mut(layout.payload_at()..).and_then(&mut write);
                if written != Some(expected) || packet.len() != layout.sealed_len(expected) {
                    return Err(Dropped::TooBig);
                }
                self.frame(sequence, next_header, expected, packet);
                sequence += 1;
            }
            self.transform.seal_all(window, len, first);
        }
        Ok(self.note(u64::from(count), full * inner_len + last_len, now))
    }

    /// Whether packets are best sealed several at a time, by [`OutboundSa::seal_framed`].
    pub(crate) fn gains_by_company(&self) -> bool {
        self.transform.lanes().is_some()
    }

    /// Numbers, frames and counts a packet as [`OutboundSa::seal_run`] does, and leaves it in clear: its number, and a
    /// limit that was reached.
    pub(crate) fn frame_one(
        &self,
        next_header: u8,
        inner_len: usize,
        packet: &mut [u8],
        mut write: impl FnMut(&mut [u8]) -> Option<usize>,
        now: Instant,
    ) -> Result<(u64, Option<Limit>), Dropped> {
        let layout = self.layout();
        self.check_limits(now)?;
        if packet.len() != layout.sealed_len(inner_len) {
            return Err(Dropped::TooBig);
        }
        let sequence = self.reserve(1)?.next;
        if packet.get_mut(layout.payload_at()..).and_then(&mut write) != Some(inner_len) {
            return Err(Dropped::TooBig);
        }
        self.frame(sequence, next_header, inner_len, packet);
        Ok((sequence, self.note(1, inner_len, now)))
    }

    /// Seals packets that [`Room::defer`](crate::Room::defer) was told of with this SA, each with the number that it
    /// said. It must happen once to each, before any is sent.
    pub fn seal_framed(&self, packets: &mut [(u64, &mut [u8])]) {
        self.transform.seal_each(packets);
    }

    /// Takes `count` consecutive sequence numbers by one atomic addition.
    ///
    /// # Errors
    ///
    /// [`Dropped::SequenceExhausted`] when fewer are left; numbers never repeat.
    pub fn reserve(&self, count: u32) -> Result<Reserved<'_>, Dropped> {
        if self.next.load(Relaxed) > self.last() {
            return Err(Dropped::SequenceExhausted);
        }
        let next = self.next.fetch_add(u64::from(count), SeqCst);
        let end = next.saturating_add(u64::from(count));
        // As it is after the addition: see `share`.
        let last = self.last();
        if next > last || end - 1 > last {
            return Err(Dropped::SequenceExhausted);
        }
        Ok(Reserved { sa: self, next, end })
    }

    /// The last number that may be used now.
    fn last(&self) -> u64 {
        let last = if self.transform.esn() { Self::LAST_LONG_SEQUENCE } else { LAST_SHORT_SEQUENCE };
        last.min(self.ceiling.load(SeqCst) - 1)
    }

    fn place(&self, inner: &[u8], out: &mut [u8]) -> Result<(), Dropped> {
        let at = self.layout().payload_at();
        out.get_mut(at..at + inner.len()).ok_or(Dropped::TooBig)?.copy_from_slice(inner);
        Ok(())
    }

    fn inspect(&self, inner_len: usize, out: &[u8]) -> Result<(u8, Tos), Dropped> {
        let layout = self.layout();
        let inner = out.get(layout.payload_at()..layout.payload_at() + inner_len).ok_or(Dropped::TooBig)?;
        if out.len() < layout.sealed_len(inner_len) {
            return Err(Dropped::TooBig);
        }
        self.describe(inner)
    }

    /// The next header of an inner packet, and the traffic class of its outer one.
    pub(crate) fn describe(&self, inner: &[u8]) -> Result<(u8, Tos), Dropped> {
        let ip = Ip::parse(inner).map_err(|_| Dropped::NotIp)?;
        let next_header = match ip {
            Ip::V4(_) => protocol::IPV4,
            Ip::V6(_) => protocol::IPV6,
        };
        Ok((next_header, ecn::outer_tos(ip.tos(), self.copy_dscp)))
    }

    fn check_limits(&self, now: Instant) -> Result<(), Dropped> {
        let is_over = self.meter.is_over(self.packets.load(Relaxed), self.bytes.load(Relaxed), now);
        if is_over { Err(Dropped::Expired) } else { Ok(()) }
    }

    fn finish(
        &self,
        sequence: u64,
        next_header: u8,
        tos: Tos,
        inner_len: usize,
        out: &mut [u8],
        now: Instant,
    ) -> Sealed {
        let len = self.layout().sealed_len(inner_len);
        let packet = &mut out[..len];
        self.frame(sequence, next_header, inner_len, packet);
        self.transform.seal(packet, sequence);
        Sealed { len, tos, limit: self.note(1, inner_len, now) }
    }

    /// Writes header and trailer around an inner packet.
    fn frame(&self, sequence: u64, next_header: u8, inner_len: usize, packet: &mut [u8]) {
        let layout = self.layout();
        packet[..4].copy_from_slice(&self.spi.0.to_be_bytes());
        packet[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
        let pad_at = layout.payload_at() + inner_len;
        let pad_len = layout.pad_len(inner_len);
        // RFC 4303 §2.4: the padding is 1, 2, 3, …
        for (pad, value) in packet[pad_at..pad_at + pad_len].iter_mut().zip(1..) {
            *pad = value;
        }
        packet[pad_at + pad_len] = pad_len as u8;
        packet[pad_at + pad_len + TRAILER - 1] = next_header;
    }

    /// Whether it is time for other keys because few numbers are left: numbers that were left out count here, and half of
    /// a reserve is used only while the other gateway of a cluster does not answer.
    fn is_short_of_numbers(&self) -> bool {
        let next = self.next.load(Relaxed);
        let is_near = next >= self.ceiling.load(Relaxed).saturating_sub(RESERVE / 2);
        is_near || (!self.transform.esn() && next >= SOFT_SHORT_SEQUENCE)
    }

    /// Counts packets of so many bytes, and says which limit they are the first to reach.
    fn note(&self, count: u64, inner_len: usize, now: Instant) -> Option<Limit> {
        let packets = self.packets.fetch_add(count, Relaxed) + count;
        let bytes = self.bytes.fetch_add(inner_len as u64, Relaxed) + inner_len as u64;
        self.last_at.store(now.as_micros(), Relaxed);
        let limit = self.meter.reached(packets, bytes).or_else(|| self.is_short_of_numbers().then_some(Limit::Soft))?;
        let told = match limit {
            Limit::Soft => &self.soft_told,
            Limit::Hard => &self.hard_told,
        };
        (!told.load(Relaxed) && !told.swap(true, Relaxed)).then_some(limit)
    }
}

impl Reserved<'_> {
    /// Numbers left.
    pub const fn len(&self) -> u64 {
        self.end - self.next
    }

    /// The number behind the last.
    #[cfg(test)]
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// As [`OutboundSa::seal_in_place`], with the next of these numbers.
    ///
    /// # Errors
    ///
    /// As there; [`Dropped::SequenceExhausted`] when none of these numbers is left.
    pub fn seal_in_place(&mut self, inner_len: usize, out: &mut [u8], now: Instant) -> Result<Sealed, Dropped> {
        let (next_header, tos) = self.sa.inspect(inner_len, out)?;
        self.sa.check_limits(now)?;
        if self.is_empty() {
            return Err(Dropped::SequenceExhausted);
        }
        let sequence = self.next;
        self.next += 1;
        Ok(self.sa.finish(sequence, next_header, tos, inner_len, out, now))
    }

    /// As [`OutboundSa::seal`], with the next of these numbers.
    ///
    /// # Errors
    ///
    /// As [`Reserved::seal_in_place`].
    pub fn seal(&mut self, inner: &[u8], out: &mut [u8], now: Instant) -> Result<Sealed, Dropped> {
        self.sa.place(inner, out)?;
        self.seal_in_place(inner.len(), out, now)
    }
}
