//! The state of a gateway for another process that goes on with it.
//!
//! What the world outside is like (devices, routes, policies) is not handed over but planned again, from the same
//! connections; the shell finds most of it there already. Neither is what routing knows: health is judged anew, BGP comes
//! back as after a restart that its neighbours were promised (RFC 4724). BFD sessions go on: their neighbours notice
//! nothing. The last failure of a connection is left out: its history tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use base::export::{Exposed, Moment};
use base::{Instant, Random};
use ike::{Endpoint, PeerId};
use model::{Connection, GatewayOptions, Ports};
use sa::{ChildLabel, ChildSuite, Path, SaChange, SaId};
use serde::{Deserialize, Serialize};

use super::leaving::Lingering;
use super::{Gateway, ike_options};
use crate::drain::Drain;
use crate::health::Signal;
use crate::output::Output;
use crate::paths::Paths;
use crate::record::{Entry, LiveSa, Record, State};
use crate::router::Inherited;
use crate::tally::Negotiations;

/// All of it. It holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    listen: Vec<IpAddr>,
    ports: Ports,
    ike: ike::Exported,
    records: Vec<ExportedRecord>,
    drained: Vec<ChildLabel>,
    paths: ExportedPaths,
    /// SAs that are gone for IKE and carry what is under way, and until when.
    #[serde(default)]
    lingering: Vec<(SaId, Moment, ChildLabel)>,
    /// BFD sessions that are up.
    #[serde(default)]
    bfd: Vec<bfd::Exported>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedRecord {
    peer: PeerId,
    connection: Connection,
    addresses: (Option<IpAddr>, Option<IpAddr>),
    state: State,
    since: Moment,
    why: String,
    history: Vec<(Moment, String)>,
    retiring: Option<(Moment, Vec<Exposed>)>,
    negotiations: Negotiations,
    is_held_down: bool,
    is_connecting: bool,
    sas: Vec<(Arc<str>, SaId, ChildSuite, Path)>,
}

/// One connection for a gateway that stands by. It holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedOne {
    record: ExportedRecord,
    ike: ike::ExportedPeer,
}

impl ExportedOne {
    /// The number of the connection.
    pub const fn number(&self) -> PeerId {
        self.record.peer
    }
}

/// What was found out of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedPaths {
    /// Probes are numbered on: answers to old ones say nothing.
    pub(crate) last_probe: u64,
    /// What each takes, in bytes; and when the peer last received a packet of this size.
    pub(crate) known: Vec<(PeerId, IpAddr, u16, Moment)>,
}

impl Exported {
    /// Whether the sockets that come with it are those that `options` ask for.
    pub fn has_sockets_of(&self, options: &GatewayOptions) -> bool {
        (&self.listen, self.ports) == (&options.listen, options.ports)
    }
}

impl Gateway {
    /// Everything that another process needs to go on. This gateway must do nothing more once the other does.
    pub fn export(&self, now: Instant) -> Exported {
        let all = self.by_name.values().filter_map(|id| Some((*id, self.records.get(id)?)));
        Exported {
            listen: self.options.listen.clone(),
            ports: self.options.ports,
            ike: self.endpoint.export(now),
            records: all.map(|(id, record)| export_record(id, record, now)).collect(),
            drained: self.drains.keys().cloned().collect(),
            paths: self.paths.export(now),
            lingering: self
                .lingering
                .iter()
                .map(|(id, until, label)| (id, Moment::of(until, now), label.clone()))
                .collect(),
            bfd: self.router.export_bfd(now),
        }
    }

    /// Goes on with what another gateway exported; to be called before anything else. [`Self::apply`] with the
    /// configuration has to follow, which treats the connections as those of an older configuration, and has the world
    /// outside set up. A peer hears nothing of it unless its connection changed.
    ///
    /// # Errors
    /// [`ike::Import`]; the gateway is of no use then.
    pub fn import(&mut self, exported: Exported, now: Instant) -> Result<(), ike::Import> {
        for record in exported.records {
            self.import_record(record, now);
        }
        self.keys_retire_at = self.records.values().filter_map(|record| Some(record.retiring.as_ref()?.0)).min();
        self.paths.import(&exported.paths, now);
        let up = self.tunnels_with_sas();
        let leaving = exported.lingering.iter().map(|(_, _, label)| label).filter(|label| !up.contains(label));
        self.router.inherit(Inherited { leaving: leaving.cloned().collect(), up, bfd: exported.bfd });
        self.endpoint.import(exported.ike, now)?;
        self.drains = exported.drained.into_iter().map(|label| (label, Drain::new(now))).collect();
        for (id, until, label) in exported.lingering {
            self.lingering.insert(id, label, until.at(now));
        }
        self.pump(now);
        Ok(())
    }

    fn import_record(&mut self, record: ExportedRecord, now: Instant) {
        let id = record.peer;
        self.last_peer = self.last_peer.max(id.0);
        let record = import_record(record, now);
        self.endpoint.upsert_peer(id, record.negotiated(), now);
        self.endpoint.set_addresses(id, record.local, record.remote, now);
        for ((child, sa), live) in &record.sas {
            self.by_sa.insert(*sa, (id, child.clone()));
            self.paths.install(id, *sa, (live.suite, live.path), now);
        }
        self.by_name.insert(record.name.clone(), id);
        self.records.insert(id, record);
    }

    /// The connections, by the numbers that another gateway knows them by.
    pub fn numbers(&self) -> Vec<PeerId> {
        self.by_name.values().copied().collect()
    }

    /// The connections with which something changed since the last call, those that are gone too.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        self.endpoint.take_changed()
    }

    /// What another gateway needs to go on with one connection, of its own configuration.
    pub fn export_one(&self, id: PeerId, now: Instant) -> Option<ExportedOne> {
        let record = self.records.get(&id).filter(|record| self.by_name.get(&record.name) == Some(&id))?;
        let record = ExportedRecord { history: Vec::new(), ..export_record(id, record, now) };
        Some(ExportedOne { record, ike: self.endpoint.export_peer(id, now) })
    }

    /// Whether this SA is one of a connection.
    pub fn has_sa(&self, id: SaId) -> bool {
        self.by_sa.contains_key(&id)
    }

    /// The SAs of all connections.
    pub fn sas(&self) -> Vec<SaId> {
        self.by_sa.keys().copied().collect()
    }

    /// Another gateway that was told of these connections is lost, and may have gone on with them.
    pub fn keep_off(&mut self) {
        self.endpoint.keep_off();
    }

    /// Goes on in place of another gateway, which may still live, with what it said of each connection and when that was.
    /// What this one had is forgotten, but for the world outside, which stays as it is set up. [`Self::apply`] has to
    /// follow.
    ///
    /// # Errors
    /// [`ike::Import`]; the gateway is of no use then.
    pub fn succeed(
        &mut self,
        told: Vec<(ExportedOne, Instant)>,
        random: Random,
        now: Instant,
    ) -> Result<(), ike::Import> {
        self.forget(random);
        let mut parts = Vec::new();
        for (one, at) in told {
            parts.push((one.record.peer, one.ike, at));
            self.import_record(one.record, at);
        }
        self.keys_retire_at = self.records.values().filter_map(|record| Some(record.retiring.as_ref()?.0)).min();
        self.router.inherit(Inherited { up: self.tunnels_with_sas(), ..Inherited::default() });
        self.endpoint.succeed(parts, now)?;
        self.pump(now);
        Ok(())
    }

    /// Another gateway goes on: all SAs and connections are forgotten, and nobody is told. The world outside stays as it
    /// is set up. [`Self::apply`] has to follow.
    pub fn stand_by(&mut self, random: Random, now: Instant) {
        self.router.step_aside(now);
        self.pump_router(now);
        for id in self.by_sa.keys().copied().chain(self.lingering.iter().map(|(id, ..)| id)) {
            self.outputs.push_back(Output::Sa(SaChange::Remove(id)));
        }
        self.forget(random);
    }

    fn forget(&mut self, random: Random) {
        self.endpoint = Endpoint::new(ike_options(&self.options), random);
        self.paths = Paths::default();
        (self.records, self.by_name, self.by_sa) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        (self.departed, self.drains) = (BTreeMap::new(), BTreeMap::new());
        (self.keys_retire_at, self.is_plan_stale) = (None, true);
        self.lingering = Lingering::default();
    }

    /// Another process is about to go on: neighbours of BGP are told what they have to know for keeping what they learnt.
    /// Peers of IKE and neighbours of BFD are told nothing.
    pub fn step_aside(&mut self, now: Instant) {
        self.router.step_aside(now);
        self.pump_router(now);
    }

    /// Tells the router which tunnels have SAs and which are drained: it may not have known these tunnels before.
    pub(super) fn note_tunnels(&mut self, now: Instant) {
        for label in self.tunnels_with_sas() {
            self.router.note_sa(&label, Signal::SaUp, now);
        }
        for label in self.drains.keys().cloned().collect::<Vec<_>>() {
            self.router.set_drained(&label, true, now);
        }
    }
}

impl Gateway {
    fn tunnels_with_sas(&self) -> Vec<ChildLabel> {
        let with_sas = |record: &Record| -> Vec<ChildLabel> {
            let children = record.sas.keys().map(|(child, _)| child.clone());
            children.map(|child| ChildLabel { connection: record.name.clone(), child }).collect()
        };
        self.by_name.values().filter_map(|id| self.records.get(id)).flat_map(with_sas).collect()
    }
}

fn export_record(peer: PeerId, record: &Record, now: Instant) -> ExportedRecord {
    let retiring = |(at, keys): &(Instant, Vec<base::Secret>)| {
        (Moment::of(*at, now), keys.iter().map(|key| Exposed(key.clone())).collect())
    };
    ExportedRecord {
        peer,
        connection: Connection::clone(&record.connection),
        addresses: (record.local, record.remote),
        state: record.state,
        since: Moment::of(record.since, now),
        why: record.why.clone(),
        history: record.history.iter().map(|entry| (Moment::of(entry.at, now), entry.text.clone())).collect(),
        retiring: record.retiring.as_ref().map(retiring),
        negotiations: record.negotiations.clone(),
        is_held_down: record.is_held_down,
        is_connecting: record.is_connecting,
        sas: record.sas.iter().map(|((child, id), live)| (child.clone(), *id, live.suite, live.path)).collect(),
    }
}

fn import_record(exported: ExportedRecord, now: Instant) -> Record {
    let x = exported;
    let entry = |(at, text): (Moment, String)| Entry { at: at.at(now), text };
    let retiring =
        |(at, keys): (Moment, Vec<Exposed>)| (at.at(now), keys.into_iter().map(|Exposed(key)| key).collect());
    Record {
        local: x.addresses.0,
        remote: x.addresses.1,
        state: x.state,
        since: x.since.at(now),
        why: x.why,
        history: x.history.into_iter().map(entry).collect(),
        retiring: x.retiring.map(retiring),
        negotiations: x.negotiations,
        is_held_down: x.is_held_down,
        is_connecting: x.is_connecting,
        sas: x.sas.into_iter().map(|(child, id, suite, path)| ((child, id), LiveSa { suite, path })).collect(),
        ..Record::new(Arc::new(x.connection), now)
    }
}
