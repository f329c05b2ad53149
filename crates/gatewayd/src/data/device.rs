//! The TUN devices of a worker.

use std::io;
use std::sync::Arc;

use esp::{DataPath, DeviceId, Via};
use gateway::plan::SHARED_DEVICE;
use os::tun::{self, MAX_PARTS, Offload, Segments, Tun};
use packet::checksum;
use packet::coalesce::Joined;
use packet::segment::Kind;

use super::Offloads;

/// All devices. A place in the list is a slot: 0 is the shared device, the others follow [`DeviceId`].
#[derive(Debug, Default)]
pub(super) struct Devices {
    slots: Vec<Option<Device>>,
    /// Inner packets whose device is not there.
    pub(super) missing: u64,
    /// Whether the kernel knows super-packets of UDP.
    pub(super) joins_udp: bool,
}

/// The queues of a device, as one worker has them.
///
/// The kernel sends a flow's packets to the queue by which its answers came last. So packets that arrive for the host are
/// written to a queue by their flow, whichever worker opened them: what then leaves is shared out among all workers, also
/// where a single peer's datagrams, which are one flow to the kernel, all come to one of them.
#[derive(Clone, Debug)]
pub struct Queues {
    all: Arc<[Tun]>,
    /// The one that this worker reads.
    own: usize,
}

impl From<Tun> for Queues {
    fn from(tun: Tun) -> Self {
        Self::new([tun].into(), 0)
    }
}

impl Queues {
    /// All queues of a device, in the same order for each worker, and which of them is its own: less than their number.
    pub(super) const fn new(all: Arc<[Tun]>, own: usize) -> Self {
        Self { all, own }
    }

    /// The one to read.
    pub(super) fn own(&self) -> &Tun {
        &self.all[self.own]
    }

    /// The one to write a packet to that begins so.
    fn for_flow(&self, header: &[u8]) -> &Tun {
        match &*self.all {
            [only] => only,
            several => &several[packet::spread(header) as usize % several.len()],
        }
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) queues: Queues,
    pub(super) via: Via,
    /// Packets that the kernel did not take.
    pub(super) refused: u64,
}

impl Devices {
    /// The slot of a device by its name.
    pub(super) fn slot(path: &mut DataPath, name: &str) -> usize {
        slot_of(if name == SHARED_DEVICE { Via::Policy } else { Via::Device(path.device(name)) })
    }

    /// Puts a device in its slot, and has the kernel hand out super-packets where that is wanted.
    pub(super) fn insert(&mut self, path: &mut DataPath, queues: Queues, offloads: Offloads) -> io::Result<usize> {
        let wanted = match offloads {
            Offloads::Auto => tun::Offloads::TcpAndUdp,
            Offloads::Off => tun::Offloads::Nothing,
        };
        self.joins_udp = queues.own().set_offloads(wanted)? == tun::Offloads::TcpAndUdp;
        let slot = Self::slot(path, queues.own().name());
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Device { queues, via: via_of(slot), refused: 0 });
        Ok(slot)
    }

    /// Takes a device out of its slot.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Device> {
        self.slots.get_mut(slot)?.take()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Device> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The devices that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.slots.iter().flatten()
    }

    /// Hands an inner packet to the kernel.
    pub(super) fn write(&mut self, via: Via, packet: &[u8]) {
        self.write_joined(via, Joined::Single(packet));
    }

    /// Hands inner packets to the kernel.
    pub(super) fn write_joined(&mut self, via: Via, joined: Joined<'_, '_>) {
        let Some(Some(device)) = self.slots.get_mut(slot_of(via)) else {
            self.missing += 1;
            return;
        };
        match joined {
            Joined::Single(packet) => device.write(packet),
            Joined::Super { header, payloads, kind, is_v4, size, checksum: (start, offset) } => {
                let kind = match (kind, is_v4) {
                    (Kind::Tcp, true) => Segments::TcpV4,
                    (Kind::Tcp, false) => Segments::TcpV6,
                    (Kind::Udp, _) => Segments::Udp,
                };
                // All of these are less than the 65,535 bytes that a packet may have.
                let offload = Offload {
                    segments: Some((kind, size as u16)),
                    header_len: header.len() as u16,
                    checksum: Some((start as u16, offset as u16)),
                };
                device.write_super(offload, header, payloads);
            }
        }
    }
}

/// What was read from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A packet of this length.
    Packet(usize),
    /// A super-packet: its length, of what it is made, and how much payload each has.
    Super(usize, Kind, usize),
    /// A packet that makes no sense.
    Odd,
    /// Nothing is waiting.
    Nothing,
}

impl Device {
    /// Hands a packet to the kernel. A device that is gone is noticed when it is read.
    pub(super) fn write(&mut self, packet: &[u8]) {
        self.refused += u64::from(self.queues.for_flow(packet).send(packet).is_err());
    }

    fn write_super(&mut self, offload: Offload, header: &[u8], payloads: &[&[u8]]) {
        let mut parts: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
        parts[0] = header;
        let count = 1 + payloads.len();
        for (part, payload) in parts[1..].iter_mut().zip(payloads) {
            *part = payload;
        }
        self.refused += u64::from(self.queues.for_flow(header).send_super(offload, &parts[..count]).is_err());
    }

    /// Reads a packet. Its checksum is complete, unless it is a super-packet.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<Read> {
        let (offload, len) = match self.queues.own().recv_super(bytes) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || tun::is_passing(&e) => return Ok(Read::Nothing),
            Err(e) => return Err(e),
        };
        Ok(match (offload.segments, offload.checksum) {
            (Some((Segments::TcpV4 | Segments::TcpV6, size)), _) => Read::Super(len, Kind::Tcp, size.into()),
            (Some((Segments::Udp, size)), _) => Read::Super(len, Kind::Udp, size.into()),
            (Some((Segments::Other, _)), _) => Read::Odd,
            (None, Some((start, offset))) => {
                let is_done = checksum::complete(&mut bytes[..len], start.into(), offset.into());
                if is_done { Read::Packet(len) } else { Read::Odd }
            }
            (None, None) => Read::Packet(len),
        })
    }
}

fn slot_of(via: Via) -> usize {
    match via {
        Via::Policy => 0,
        Via::Device(DeviceId(id)) => id as usize + 1,
    }
}

fn via_of(slot: usize) -> Via {
    slot.checked_sub(1).and_then(|id| u32::try_from(id).ok()).map_or(Via::Policy, |id| Via::Device(DeviceId(id)))
}
