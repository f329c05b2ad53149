//! What the data path hands to another process: what is open, what its SAs are made of, and how far they are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use base::Instant;
use esp::DataPath;
use esp::export::{ExportedSa, Standing};
use gateway::status::Carried;
use os::tun::Tun;
use serde::{Deserialize, Serialize};

use super::device::Devices;
use super::socket::Sockets;
use super::sums::Sums;

pub use super::socket::Kind;

/// What may be handed over while packets pass.
#[derive(Debug)]
pub struct Offer {
    /// What the SAs are made of.
    pub sas: Vec<ExportedSa>,
    /// The sockets.
    pub sockets: Vec<(Kind, OwnedFd)>,
    /// The TUN devices.
    pub devices: Vec<OwnedFd>,
}

/// How far a data path is that passes no more packets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paused {
    /// Its SAs.
    pub(super) standing: Standing,
    /// What SAs of each connection carried that are gone; and those of connections that are gone.
    pub(super) carried: BTreeMap<Arc<str>, Carried>,
    pub(super) forgotten: Carried,
}

pub(super) fn offer(path: &DataPath, sockets: &Sockets, devices: &Devices, now: Instant) -> io::Result<Offer> {
    let sockets = sockets.iter().map(|(_, socket)| Ok((socket.kind, socket.socket.share()?)));
    Ok(Offer {
        sas: path.export(now),
        sockets: sockets.collect::<io::Result<_>>()?,
        devices: devices.iter().map(|device| device.tun.share()).collect::<io::Result<_>>()?,
    })
}

pub(super) fn pause(path: &DataPath, sums: &Sums, now: Instant) -> Paused {
    let (carried, forgotten) = sums.export();
    Paused { standing: path.standing(now), carried, forgotten }
}

pub(super) fn restore(path: &mut DataPath, sums: &mut Sums, paused: Paused, now: Instant) -> Result<(), esp::Unusable> {
    // Whoever stopped has told the last number of each SA.
    path.resume(&paused.standing, 0, now)?;
    sums.import(paused.carried, paused.forgotten);
    Ok(())
}

/// TUN devices that were handed over.
///
/// # Errors
/// As [`Tun::adopt`].
pub fn devices(files: Vec<OwnedFd>) -> io::Result<Vec<Tun>> {
    files.into_iter().map(Tun::adopt).collect()
}
