//! The TUN devices of a worker.

use std::io;

use esp::{DataPath, DeviceId, Via};
use gateway::plan::SHARED_DEVICE;
use os::tun::{self, Tun};

/// All devices. A place in the list is a slot: 0 is the shared device, the others follow [`DeviceId`].
#[derive(Debug, Default)]
pub(super) struct Devices {
    slots: Vec<Option<Device>>,
    /// Inner packets whose device is not there.
    pub(super) missing: u64,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) tun: Tun,
    pub(super) via: Via,
    /// Packets that the kernel did not take.
    pub(super) refused: u64,
}

impl Devices {
    /// The slot of a device by its name.
    pub(super) fn slot(path: &mut DataPath, name: &str) -> usize {
        slot_of(if name == SHARED_DEVICE { Via::Policy } else { Via::Device(path.device(name)) })
    }

    /// Puts a device in its slot.
    pub(super) fn insert(&mut self, path: &mut DataPath, tun: Tun) -> usize {
        let slot = Self::slot(path, tun.name());
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Device { tun, via: via_of(slot), refused: 0 });
        slot
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
        match self.slots.get_mut(slot_of(via)) {
            Some(Some(device)) => device.write(packet),
            Some(None) | None => self.missing += 1,
        }
    }
}

impl Device {
    /// Hands a packet to the kernel. A device that is gone is noticed when it is read.
    pub(super) fn write(&mut self, packet: &[u8]) {
        self.refused += u64::from(self.tun.send(packet).is_err());
    }

    /// Reads a packet; `None` when none is waiting.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match self.tun.recv(bytes) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || tun::is_passing(&e) => Ok(None),
            Err(e) => Err(e),
        }
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
