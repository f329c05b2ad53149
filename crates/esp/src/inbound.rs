//! One SA, the direction that arrives. One worker owns it.

use std::ops::Range;

use base::Instant;
use base::export::Moment;
use lanes::OpenJob;
use packet::{FlowKey, Ip, Tos, protocol};
use sa::{ChildSa, SaId, Spi, TrafficSelector};

use crate::export::InboundStanding;
use crate::limits::Meter;
use crate::transform::{LANES, Transform};
use crate::window::Window;
use crate::wire::TRAILER;
use crate::{Counters, Dropped, Limit, Received, Unusable, ecn, selector, wire};

/// Opens packets, and refuses those that were seen before.
#[derive(Debug)]
pub struct InboundSa {
    id: SaId,
    spi: Spi,
    transform: Transform,
    window: Window,
    meter: Meter,
    local: Box<[TrafficSelector]>,
    remote: Box<[TrafficSelector]>,
    /// Authentic packets and the bytes they decrypted to, of whatever use they were: what limits are about.
    spent: (u64, u64),
    counters: Counters,
    fragments: u64,
    last_at: Option<Instant>,
    soft_told: bool,
    hard_told: bool,
}

/// An authentic packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was inside.
    pub content: Content,
    /// Whether it is the first authentic packet of this SA.
    pub is_first: bool,
    /// Whether it has the highest sequence number so far.
    pub is_newest: bool,
    /// A limit that this packet was the first to reach.
    pub limit: Option<Limit>,
}

/// What an authentic packet held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An IP packet that the SA was agreed for: its place in the buffer, any padding cut off.
    Packet(Range<usize>),
    /// Nothing to pass on, and why.
    Unusable(Dropped),
}

impl InboundSa {
    /// Puts the inbound keys of a Child SA in service.
    ///
    /// # Errors
    ///
    /// [`Unusable`] when suite, keys or SPI are not fit for use.
    pub fn new(child: &ChildSa) -> Result<Self, Unusable> {
        if child.inbound_spi.0 < 256 {
            return Err(Unusable::BadSpi);
        }
        Ok(Self {
            id: child.id,
            spi: child.inbound_spi,
            transform: Transform::new(child.suite, &child.keys.inbound)?,
            window: Window::new(child.replay_window),
            meter: Meter::new(child.limits, child.suite),
            local: child.local.as_slice().into(),
            remote: child.remote.as_slice().into(),
            spent: (0, 0),
            counters: Counters::default(),
            fragments: 0,
            last_at: None,
            soft_told: false,
            hard_told: false,
        })
    }

    /// The same, with a window that has seen this number.
    #[cfg(test)]
    pub(crate) fn standing_at(child: &ChildSa, top: u64) -> Result<Self, Unusable> {
        let mut sa = Self::new(child)?;
        sa.window.accept(top);
        Ok(sa)
    }

    /// Whose direction it is.
    pub const fn id(&self) -> SaId {
        self.id
    }

    /// The SPI of its packets.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Packets and bytes passed on, and what was dropped.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets passed on that are fragments, for the receiver to reassemble.
    pub const fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Which of the latest sequence numbers arrived.
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// When the last authentic packet arrived: a sign of life of the peer.
    pub const fn last_used(&self) -> Option<Instant> {
        self.last_at
    }

    /// How far it is, for another process.
    pub(crate) fn standing(&self, now: Instant) -> InboundStanding {
        InboundStanding {
            top: self.window.top(),
            seen: self.window.seen().to_vec(),
            spent: self.spent,
            counted: self.counters.into(),
            fragments: self.fragments,
            last_at: self.last_at.map(|at| Moment::of(at, now)),
            soft_told: self.soft_told,
            hard_told: self.hard_told,
        }
    }

    /// Takes everything up to this number for received.
    pub(crate) fn forward(&mut self, top: u64) {
        self.window.forward(top);
    }

    /// Goes on from there.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`]; nothing has changed then.
    pub(crate) fn resume(&mut self, standing: &InboundStanding, now: Instant) -> Result<(), Unusable> {
        self.window.restore(standing.top, &standing.seen)?;
        self.spent = standing.spent;
        self.counters = (&standing.counted).into();
        self.fragments = standing.fragments;
        self.last_at = standing.last_at.map(|moment| moment.at(now));
        (self.soft_told, self.hard_told) = (standing.soft_told, standing.hard_told);
        Ok(())
    }

    /// Checks, decrypts in place and judges one ESP packet. `outer` is the traffic class of the outer
    /// header: its congestion mark is carried over to the inner one.
    ///
    /// # Errors
    ///
    /// A packet that is not authentic. Nothing but a counter has changed then, and the buffer.
    pub fn open(&mut self, esp: &mut [u8], outer: Tos, now: Instant) -> Result<Opened, Dropped> {
        let sequence = self.authenticate(esp, now).inspect_err(|&reason| self.counters.drops.count(reason))?;
        Ok(self.accept(esp, sequence, outer, now))
    }

    /// The same for several packets: they are authenticated side by side where that is faster, and
    /// judged one after the other. Of a packet that is no good only the counters tell.
    pub(crate) fn open_run<'a>(
        &mut self,
        packets: &mut [Option<Received<'a>>],
        now: Instant,
        mut each: impl FnMut(Received<'a>, Opened),
    ) {
        if self.transform.lanes().is_none() || packets.len() < 2 {
            for packet in packets.iter_mut().filter_map(Option::take) {
                if let Ok(opened) = self.open(packet.esp, packet.outer, now) {
                    each(packet, opened);
                }
            }
            return;
        }
        for window in packets.chunks_mut(LANES) {
            let mut jobs: [OpenJob<'_>; LANES] = std::array::from_fn(|_| OpenJob::new(&mut [], None));
            let mut notes = [(0, None, Tos(0)); LANES];
            let mut count = 0;
            for Received { esp, from, outer } in window.iter_mut().filter_map(Option::take) {
                match self.check(esp, now) {
                    Ok(sequence) => {
                        jobs[count] = OpenJob::new(esp, self.transform.esn_high(sequence));
                        notes[count] = (sequence, from, outer);
                        count += 1;
                    }
                    Err(reason) => self.counters.drops.count(reason),
                }
            }
            self.transform.open_all(&mut jobs[..count]);
            for (job, (sequence, from, outer)) in jobs.into_iter().zip(notes).take(count) {
                // The packets before it may have moved the window, or been the same.
                let verdict =
                    if job.is_verified() { self.check_order(sequence, now) } else { Err(Dropped::BadIntegrity) };
                match verdict {
                    Ok(()) => {
                        let opened = self.accept(job.packet, sequence, outer, now);
                        each(Received { esp: job.packet, from, outer }, opened);
                    }
                    Err(reason) => self.counters.drops.count(reason),
                }
            }
        }
    }

    /// Takes in an authentic packet, which is decrypted.
    fn accept(&mut self, esp: &mut [u8], sequence: u64, outer: Tos, now: Instant) -> Opened {
        let is_newest = self.window.accept(sequence);
        let is_first = self.spent.0 == 0;
        self.last_at = Some(now);
        let content = match self.judge(esp, outer) {
            Ok(range) => {
                self.counters.packets += 1;
                self.counters.bytes += range.len() as u64;
                self.fragments += u64::from(is_fragment(&esp[range.clone()]));
                Content::Packet(range)
            }
            Err(reason) => {
                self.counters.drops.count(reason);
                Content::Unusable(reason)
            }
        };
        let limit = self.note(esp.len());
        Opened { content, is_first, is_newest, limit }
    }

    /// The sequence number of an authentic packet, which is decrypted then.
    fn authenticate(&self, esp: &mut [u8], now: Instant) -> Result<u64, Dropped> {
        let sequence = self.check(esp, now)?;
        self.transform.open(esp, sequence)?;
        Ok(sequence)
    }

    /// Whether a packet may still pass after those before it.
    fn check_order(&self, sequence: u64, now: Instant) -> Result<(), Dropped> {
        if self.meter.is_over(self.spent.0, self.spent.1, now) {
            return Err(Dropped::Expired);
        }
        self.window.check(sequence)
    }

    /// The sequence number of a packet that may be authentic.
    fn check(&self, esp: &[u8], now: Instant) -> Result<u64, Dropped> {
        let Some(&[spi @ .., a, b, c, d]) = esp.first_chunk::<{ wire::HEADER }>() else {
            return Err(Dropped::Malformed);
        };
        if u32::from_be_bytes(spi) != self.spi.0 {
            return Err(Dropped::UnknownSpi);
        }
        if !self.transform.layout().fits(esp.len()) {
            return Err(Dropped::Malformed);
        }
        if self.meter.is_over(self.spent.0, self.spent.1, now) {
            return Err(Dropped::Expired);
        }
        let low = u32::from_be_bytes([a, b, c, d]);
        let sequence = if self.transform.esn() { self.window.infer(low)? } else { u64::from(low) };
        self.window.check(sequence)?;
        Ok(sequence)
    }

    /// Where the inner packet lies, if it is one that may pass.
    fn judge(&self, esp: &mut [u8], outer: Tos) -> Result<Range<usize>, Dropped> {
        let layout = self.transform.layout();
        let start = layout.payload_at();
        let trailer_at = esp.len() - layout.icv_len() - TRAILER;
        let (pad_len, next_header) = (usize::from(esp[trailer_at]), esp[trailer_at + 1]);
        let end = trailer_at.checked_sub(pad_len).filter(|&end| end >= start).ok_or(Dropped::BadPadding)?;
        // RFC 4303 §2.4: the receiver should inspect the padding.
        if esp[end..trailer_at].iter().zip(1..).any(|(&pad, value)| pad != value) {
            return Err(Dropped::BadPadding);
        }
        let inner = &mut esp[start..end];
        let ip = match next_header {
            protocol::IPV4 | protocol::IPV6 => Ip::parse(inner).map_err(|_| Dropped::NotIp)?,
            protocol::NO_NEXT_HEADER => return Err(Dropped::Dummy),
            _ => return Err(Dropped::NotIp),
        };
        if matches!(ip, Ip::V4(_)) != (next_header == protocol::IPV4) {
            return Err(Dropped::NotIp);
        }
        let flow = FlowKey::of_ip(ip).map_err(|_| Dropped::NotIp)?;
        if !selector::covers(&self.local, &self.remote, &flow.reversed()) {
            return Err(Dropped::SelectorMismatch);
        }
        let (tos, len) = (ip.tos(), ip.bytes().len());
        let ecn = ecn::inner_ecn(tos.ecn(), outer.ecn())?;
        if ecn != tos.ecn() {
            packet::set_tos(inner, tos.with_ecn(ecn));
        }
        Ok(start..start + len)
    }

    /// Counts an authentic packet, and says which limit it is the first to reach.
    fn note(&mut self, esp_len: usize) -> Option<Limit> {
        let layout = self.transform.layout();
        self.spent.0 += 1;
        self.spent.1 += (esp_len - layout.payload_at() - layout.icv_len() - TRAILER) as u64;
        let limit = self.meter.reached(self.spent.0, self.spent.1)?;
        let told = match limit {
            Limit::Soft => &mut self.soft_told,
            Limit::Hard => &mut self.hard_told,
        };
        (!std::mem::replace(told, true)).then_some(limit)
    }
}

fn is_fragment(inner: &[u8]) -> bool {
    match Ip::parse(inner) {
        Ok(Ip::V4(ip)) => ip.is_fragment(),
        Ok(Ip::V6(ip)) => ip.upper().is_ok_and(|upper| upper.is_fragment),
        Err(_) => false,
    }
}
