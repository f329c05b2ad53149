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
use sa::SaId;
use serde::{Deserialize, Serialize};

use super::device::{Devices, Queues};
use super::socket::Sockets;
use super::sums::Sums;

pub use super::socket::Kind;

/// What may be handed over while packets pass, of one worker.
#[derive(Debug)]
pub struct Offer {
    /// What the SAs are made of; the leader says it.
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

impl Paused {
    /// Adds what another worker counted.
    pub(super) fn add(&mut self, more: Self) {
        self.standing.add(&more.standing);
        for (name, carried) in &more.carried {
            self.carried.entry(name.clone()).or_default().merge(carried);
        }
        self.forgotten.merge(&more.forgotten);
    }

    /// SAs that packets take or took, in the order of their activation.
    pub(super) fn activated(&self) -> &[SaId] {
        self.standing.activated()
    }
}

pub(super) fn offer(
    path: &DataPath,
    sockets: &Sockets,
    devices: &Devices,
    is_leader: bool,
    now: Instant,
) -> io::Result<Offer> {
    let sockets = sockets.served().map(|(_, socket)| Ok((socket.kind, socket.socket.share()?)));
    Ok(Offer {
        sas: if is_leader { path.export(now) } else { Vec::new() },
        sockets: sockets.collect::<io::Result<_>>()?,
        devices: devices.iter().map(|device| device.queues.own().share()).collect::<io::Result<_>>()?,
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

/// Devices whose queues were handed over, for each worker by its number those that it had.
pub(super) fn devices(files: Vec<Vec<OwnedFd>>) -> io::Result<Vec<(usize, Queues)>> {
    let mut by_name: BTreeMap<String, (Vec<usize>, Vec<Tun>)> = BTreeMap::new();
    for (worker, files) in files.into_iter().enumerate() {
        for file in files {
            let tun = Tun::adopt(file)?;
            let (workers, queues) = by_name.entry(tun.name().to_owned()).or_default();
            workers.push(worker);
            queues.push(tun);
        }
    }
    let of_device = |(workers, queues): (Vec<usize>, Vec<Tun>)| {
        let all: Arc<[Tun]> = queues.into();
        workers.into_iter().enumerate().map(move |(own, worker)| (worker, Queues::new(all.clone(), own)))
    };
    Ok(by_name.into_values().flat_map(of_device).collect())
}
