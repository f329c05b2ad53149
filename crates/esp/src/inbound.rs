//! One SA, the direction that arrives.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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

/// Opens packets, and refuses those that were seen before. Several workers may open packets of one SA, each with a handle
/// of its own ([`InboundSa::handle`]): what was seen and what is spent is known to all, what passed each counts for itself.
#[derive(Debug)]
pub struct InboundSa {
    common: Arc<Common>,
    counters: Counters,
    fragments: u64,
}

/// What all handles have in common. All that changes is atomic.
#[derive(Debug)]
struct Common {
    id: SaId,
    spi: Spi,
    transform: Transform,
    window: Window,
    meter: Meter,
    local: Box<[TrafficSelector]>,
    remote: Box<[TrafficSelector]>,
    /// Authentic packets and the bytes they decrypted to, of whatever use they were: what limits are about.
    spent: (AtomicU64, AtomicU64),
    /// 0 before the first packet.
    last_at: AtomicU64,
    soft_told: AtomicBool,
    hard_told: AtomicBool,
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
        let common = Common {
            id: child.id,
            spi: child.inbound_spi,
            transform: Transform::new(child.suite, &child.keys.inbound)?,
            window: Window::new(child.replay_window),
            meter: Meter::new(child.limits, child.suite),
            local: child.local.as_slice().into(),
            remote: child.remote.as_slice().into(),
            spent: (AtomicU64::new(0), AtomicU64::new(0)),
            last_at: AtomicU64::new(0),
            soft_told: AtomicBool::new(false),
            hard_told: AtomicBool::new(false),
        };
        Ok(Self { common: Arc::new(common), counters: Counters::default(), fragments: 0 })
    }

    /// For another worker that opens packets of the same SA. It has counted nothing.
    pub fn handle(&self) -> Self {
        Self { common: Arc::clone(&self.common), counters: Counters::default(), fragments: 0 }
    }

    /// The same, with a window that has seen this number.
    #[cfg(test)]
    pub(crate) fn standing_at(child: &ChildSa, top: u64) -> Result<Self, Unusable> {
        let sa = Self::new(child)?;
        // A window that has seen nothing is where 0 was the last number.
        sa.common.window.forward(top);
        Ok(sa)
    }

    /// Whose direction it is.
    pub fn id(&self) -> SaId {
        self.common.id
    }

    /// The SPI of its packets.
    pub fn spi(&self) -> Spi {
        self.common.spi
    }

    /// Packets and bytes passed on by this handle, and what it dropped.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets passed on by this handle that are fragments, for the receiver to reassemble.
    pub const fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Which of the latest sequence numbers arrived.
    pub fn window(&self) -> &Window {
        &self.common.window
    }

    /// When the last authentic packet arrived: a sign of life of the peer.
    pub fn last_used(&self) -> Option<Instant> {
        let Common { spent, last_at, .. } = &*self.common;
        (spent.0.load(Relaxed) > 0).then(|| Instant::from_micros(last_at.load(Relaxed)))
    }

    /// How far it is, for another process; what was counted is what this handle did.
    pub(crate) fn standing(&self, now: Instant) -> InboundStanding {
        let Common { window, spent, soft_told, hard_told, .. } = &*self.common;
        InboundStanding {
            top: window.top(),
            seen: window.seen(),
            spent: (spent.0.load(Relaxed), spent.1.load(Relaxed)),
            counted: self.counters.into(),
            fragments: self.fragments,
            last_at: self.last_used().map(|at| Moment::of(at, now)),
            soft_told: soft_told.load(Relaxed),
            hard_told: hard_told.load(Relaxed),
        }
    }

    /// Takes everything up to this number for received.
    pub(crate) fn forward(&self, top: u64) {
        self.common.window.forward(top);
    }

    /// Goes on from there. No other handle may be in use.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`]; nothing has changed then.
    pub(crate) fn resume(&mut self, standing: &InboundStanding, now: Instant) -> Result<(), Unusable> {
        let Common { window, spent, last_at, soft_told, hard_told, .. } = &*self.common;
        window.restore(standing.top, &standing.seen)?;
        spent.0.store(standing.spent.0, Relaxed);
        spent.1.store(standing.spent.1, Relaxed);
        last_at.store(standing.last_at.map_or(0, |moment| moment.at(now).as_micros()), Relaxed);
        soft_told.store(standing.soft_told, Relaxed);
        hard_told.store(standing.hard_told, Relaxed);
        self.counters = (&standing.counted).into();
        self.fragments = standing.fragments;
        Ok(())
    }

    /// Checks, decrypts in place and judges one ESP packet. `outer` is the traffic class of the outer
    /// header: its congestion mark is carried over to the inner one.
    ///
    /// # Errors
    ///
    /// A packet that is not authentic. Nothing but a counter has changed then, and the buffer.
    pub fn open(&mut self, esp: &mut [u8], outer: Tos, now: Instant) -> Result<Opened, Dropped> {
        let accepted = self.common.authenticate(esp, now);
        accepted
            .and_then(|sequence| self.accept(esp, sequence, outer, now))
            .inspect_err(|&reason| self.counters.drops.count(reason))
    }

    /// The same for several packets: they are authenticated side by side where that is faster, and
    /// judged one after the other. Of a packet that is no good only the counters tell.
    pub(crate) fn open_run<'a>(
        &mut self,
        packets: &mut [Option<Received<'a>>],
        now: Instant,
        mut each: impl FnMut(Received<'a>, Opened),
    ) {
        if self.common.transform.lanes().is_none() || packets.len() < 2 {
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
                match self.common.check(esp, now) {
                    Ok(sequence) => {
                        jobs[count] = OpenJob::new(esp, self.common.transform.esn_high(sequence));
                        notes[count] = (sequence, from, outer);
                        count += 1;
                    }
                    Err(reason) => self.counters.drops.count(reason),
                }
            }
            self.common.transform.open_all(&mut jobs[..count]);
            for (job, (sequence, from, outer)) in jobs.into_iter().zip(notes).take(count) {
                // The packets before it may have moved the window, been the same, or reached a limit.
                let verdict =
                    if job.is_verified() { self.common.check_limits(now) } else { Err(Dropped::BadIntegrity) };
                match verdict.and_then(|()| self.accept(job.packet, sequence, outer, now)) {
                    Ok(opened) => each(Received { esp: job.packet, from, outer }, opened),
                    Err(reason) => self.counters.drops.count(reason),
                }
            }
        }
    }

    /// Takes in an authentic packet, which is decrypted.
    fn accept(&mut self, esp: &mut [u8], sequence: u64, outer: Tos, now: Instant) -> Result<Opened, Dropped> {
        let is_newest = self.common.window.accept(sequence)?;
        let content = match self.common.judge(esp, outer) {
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
        let (is_first, limit) = self.common.note(esp.len(), now);
        Ok(Opened { content, is_first, is_newest, limit })
    }
}

impl Common {
    /// The sequence number of an authentic packet, which is decrypted then.
    fn authenticate(&self, esp: &mut [u8], now: Instant) -> Result<u64, Dropped> {
        let sequence = self.check(esp, now)?;
        self.transform.open(esp, sequence)?;
        Ok(sequence)
    }

    /// Whether a packet may still pass.
    fn check_limits(&self, now: Instant) -> Result<(), Dropped> {
        let is_over = self.meter.is_over(self.spent.0.load(Relaxed), self.spent.1.load(Relaxed), now);
        if is_over { Err(Dropped::Expired) } else { Ok(()) }
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
        self.check_limits(now)?;
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

    /// Counts an authentic packet; whether it is the first, and which limit it is the first to reach.
    fn note(&self, esp_len: usize, now: Instant) -> (bool, Option<Limit>) {
        let layout = self.transform.layout();
        let len = (esp_len - layout.payload_at() - layout.icv_len() - TRAILER) as u64;
        self.last_at.store(now.as_micros(), Relaxed);
        let before = self.spent.0.fetch_add(1, Relaxed);
        let bytes = self.spent.1.fetch_add(len, Relaxed) + len;
        let limit = self.meter.reached(before + 1, bytes).filter(|limit| {
            let told = match limit {
                Limit::Soft => &self.soft_told,
                Limit::Hard => &self.hard_told,
            };
            !told.load(Relaxed) && !told.swap(true, Relaxed)
        });
        (before == 0, limit)
    }
}

fn is_fragment(inner: &[u8]) -> bool {
    match Ip::parse(inner) {
        Ok(Ip::V4(ip)) => ip.is_fragment(),
        Ok(Ip::V6(ip)) => ip.upper().is_ok_and(|upper| upper.is_fragment),
        Err(_) => false,
    }
}
