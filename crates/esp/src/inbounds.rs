//! The SAs that arrive, by SPI.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use base::Instant;
use packet::Tos;
use sa::{ChildSa, Path, SaId, Spi};

use crate::event::Events;
use crate::export::InboundStanding;
use crate::fit::Fit;
use crate::policy::Via;
use crate::transform::LANES;
use crate::{Content, Counters, Dropped, Drops, Event, InboundSa, Limit, Opened, Unusable, wire};

/// The table of inbound SAs of one worker.
#[derive(Debug, Default)]
pub struct Inbounds {
    sas: BTreeMap<Spi, Row>,
    spis: BTreeMap<SaId, Spi>,
    drops: Drops,
    retired: Counters,
    events: Events,
}

#[derive(Debug)]
struct Row {
    sa: InboundSa,
    path: Path,
    via: Via,
    fit: Fit,
    /// Where the peer was last said to have moved to.
    told: Option<SocketAddr>,
}

/// An ESP packet that was received.
#[derive(Debug)]
pub struct Received<'a> {
    /// The packet; it is opened in place.
    pub esp: &'a mut [u8],
    /// Its outer source where it was in UDP, `None` where it was plain.
    pub from: Option<SocketAddr>,
    /// The traffic class of its outer header.
    pub outer: Tos,
}

/// An inner packet to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The SA it came by.
    pub id: SaId,
    /// The device to write it to.
    pub via: Via,
    /// Its place in the buffer.
    pub range: Range<usize>,
}

impl Inbounds {
    /// No SAs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an SA in service.
    ///
    /// # Errors
    ///
    /// [`Unusable`]; nothing has changed then.
    pub fn install(&mut self, child: &ChildSa, via: Via) -> Result<(), Unusable> {
        self.adopt(InboundSa::new(child)?, child, via)
    }

    /// Puts an SA in service that another worker made from the same `child`, to open its packets too.
    ///
    /// # Errors
    ///
    /// As [`Inbounds::install`].
    pub fn adopt(&mut self, sa: InboundSa, child: &ChildSa, via: Via) -> Result<(), Unusable> {
        if self.spis.contains_key(&child.id) || sa.id() != child.id {
            return Err(Unusable::BadId);
        }
        if self.sas.contains_key(&child.inbound_spi) {
            return Err(Unusable::BadSpi);
        }
        let row = Row { sa, path: child.path, via, fit: Fit::new(child), told: None };
        self.spis.insert(child.id, child.inbound_spi);
        self.sas.insert(child.inbound_spi, row);
        Ok(())
    }

    /// Forgets an SA.
    pub fn remove(&mut self, id: SaId) -> Option<Counters> {
        let row = self.sas.remove(&self.spis.remove(&id)?)?;
        self.retired += *row.sa.counters();
        Some(*row.sa.counters())
    }

    /// Packets of this SA are expected from elsewhere from now on.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn move_to(&mut self, id: SaId, path: Path) -> Result<(), Unusable> {
        let row = self.row_mut(id)?;
        row.path = path;
        row.told = None;
        row.fit.follow(&path);
        Ok(())
    }

    /// The outer MTU towards the peer of this SA is now known to be this.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn set_outer_mtu(&mut self, id: SaId, outer_mtu: usize) -> Result<(), Unusable> {
        let row = self.row_mut(id)?;
        let path = row.path;
        row.fit.set_outer_mtu(outer_mtu, &path);
        Ok(())
    }

    /// Opens an ESP packet in place. `from` is its outer source where it was in UDP, `None` where it
    /// was plain: either is taken from any peer (RFC 7296 §2.23). `outer` is the traffic class of the
    /// outer header.
    ///
    /// # Errors
    ///
    /// Why nothing is passed on. The packet is counted.
    pub fn open(
        &mut self,
        esp: &mut [u8],
        from: Option<SocketAddr>,
        outer: Tos,
        now: Instant,
    ) -> Result<Arrived, Dropped> {
        let found = match wire::spi(esp) {
            Some(spi) => self.sas.get_mut(&spi).ok_or(Dropped::UnknownSpi),
            None => Err(Dropped::Malformed),
        };
        let row = found.inspect_err(|&reason| self.drops.count(reason))?;
        let opened = row.sa.open(esp, outer, now)?;
        tell(row.sa.id(), &opened, from, &row.path, &mut row.told, &mut self.events);
        match opened.content {
            Content::Packet(range) => {
                if let Some(clamp) = row.fit.clamp() {
                    clamp.apply(&mut esp[range.clone()]);
                }
                Ok(Arrived { id: row.sa.id(), via: row.via, range })
            }
            Content::Unusable(reason) => Err(reason),
        }
    }

    /// Opens ESP packets that arrived together and hands the inner packets to `each` with the device they go to. Those
    /// of one SA keep their order; they are opened side by side where that is faster, whoever sent them. What is not
    /// passed on is counted.
    pub fn open_run<'a>(
        &mut self,
        mut packets: impl Iterator<Item = Received<'a>>,
        now: Instant,
        mut each: impl FnMut(Via, &'a [u8]),
    ) {
        let mut window: [Option<Received<'_>>; LANES] = [const { None }; LANES];
        loop {
            let mut count = 0;
            for (place, packet) in window.iter_mut().zip(&mut packets) {
                *place = Some(packet);
                count += 1;
            }
            for first in 0..count {
                self.open_sa(&mut window[first..count], now, &mut each);
            }
            if count < LANES {
                return;
            }
        }
    }

    /// Opens the packets of the SA that the first one belongs to.
    fn open_sa<'a>(&mut self, window: &mut [Option<Received<'a>>], now: Instant, each: &mut impl FnMut(Via, &'a [u8])) {
        let Some(Some(first)) = window.first() else { return };
        let spi = wire::spi(first.esp);
        let found = match spi {
            Some(spi) => self.sas.get_mut(&spi).ok_or(Dropped::UnknownSpi),
            None => Err(Dropped::Malformed),
        };
        let Row { sa, via, fit, told, path } = match found {
            Ok(row) => row,
            Err(reason) => {
                window[0] = None;
                return self.drops.count(reason);
            }
        };
        let mut run: [Option<Received<'_>>; LANES] = [const { None }; LANES];
        let mut count = 0;
        for packet in window.iter_mut() {
            if packet.as_ref().is_some_and(|packet| wire::spi(packet.esp) == spi) {
                run[count] = packet.take();
                count += 1;
            }
        }
        let id = sa.id();
        sa.open_run(&mut run[..count], now, |packet, opened| {
            tell(id, &opened, packet.from, path, told, &mut self.events);
            if let Content::Packet(range) = opened.content {
                let inner = &mut packet.esp[range];
                if let Some(clamp) = fit.clamp() {
                    clamp.apply(inner);
                }
                each(*via, inner);
            }
        });
    }

    /// The SA itself.
    pub fn sa(&self, id: SaId) -> Option<&InboundSa> {
        self.sas.get(self.spis.get(&id)?).map(|row| &row.sa)
    }

    /// The SAs, by number.
    pub fn iter(&self) -> impl Iterator<Item = &InboundSa> {
        self.spis.values().filter_map(|spi| self.sas.get(spi)).map(|row| &row.sa)
    }

    /// What one SA did.
    pub fn counters(&self, id: SaId) -> Option<Counters> {
        self.sa(id).map(|sa| *sa.counters())
    }

    /// What all SAs did, those removed included, and the packets that found none.
    pub fn total(&self) -> Counters {
        let mut total = self.retired;
        total.drops += self.drops;
        for row in self.sas.values() {
            total += *row.sa.counters();
        }
        total
    }

    /// What SAs counted that are gone, and what belonged to none.
    pub(crate) fn retired(&self) -> Counters {
        let mut retired = self.retired;
        retired.drops += self.drops;
        retired
    }

    /// The same of a predecessor.
    pub(crate) fn add_retired(&mut self, retired: Counters) {
        self.retired += retired;
    }

    /// An SA goes on where it stood in another process.
    ///
    /// # Errors
    ///
    /// [`Unusable`]; nothing has changed then.
    pub(crate) fn resume(&mut self, id: SaId, standing: &InboundStanding, now: Instant) -> Result<(), Unusable> {
        self.row_mut(id)?.sa.resume(standing, now)
    }

    /// Takes every number of an SA up to this one for received.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub(crate) fn forward(&mut self, id: SaId, top: u64) -> Result<(), Unusable> {
        self.row_mut(id)?.sa.forward(top);
        Ok(())
    }

    /// The next thing to tell the control side.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    fn row_mut(&mut self, id: SaId) -> Result<&mut Row, Unusable> {
        let spi = self.spis.get(&id).ok_or(Unusable::UnknownId)?;
        self.sas.get_mut(spi).ok_or(Unusable::UnknownId)
    }
}

/// What the control side should know of an authentic packet.
fn tell(
    id: SaId,
    opened: &Opened,
    from: Option<SocketAddr>,
    path: &Path,
    told: &mut Option<SocketAddr>,
    events: &mut Events,
) {
    if opened.is_first {
        events.push(Event::FirstInbound(id));
    }
    match opened.limit {
        Some(Limit::Soft) => events.push(Event::SoftLimit(id)),
        Some(Limit::Hard) => events.push(Event::HardLimit(id)),
        None => {}
    }
    // Only the newest packet tells where the peer is: a late one may have been kept back to lead
    // us astray.
    if let Some(from) = from
        && opened.is_newest
        && path.udp
    {
        if from == path.remote {
            *told = None;
        } else if *told != Some(from) {
            *told = Some(from);
            events.push(Event::PeerMoved { id, from });
        }
    }
}
