//! Established IKE SAs for another process: everything that the peer can tell apart. Negotiations that are not
//! established are left out, they are begun anew; so are fragments of a message that is not whole, the peer repeats it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use base::algorithm::Group;
use base::export::{Bytes, Exposed, Moment};
use crypto::KeyPair;
use model::{Connection, Identity};
use sa::{ChildSuite, SaId, Spi, TrafficSelector};
use serde::{Deserialize, Serialize};

use super::child::{Child, Pending, Stage};
use super::create::{RekeyingChild, Rival};
use super::established::{Established, Exchange, Fate, Job, Outstanding, Task};
use super::fragment::{Channel, Packets};
use super::init::NONCE_LEN;
use super::keys::{Direction, IkeSuite, Keys};
use super::probe::Probing;
use super::rekey::{Born, RekeyingIke};
use super::sync::{Agreed, Asking, Sync};
use super::{Core, Nat, Session, State};
use crate::context::{Again, Ends};
use crate::event::CloseReason;
use crate::export::Import;
use crate::peer::{Options, PeerId};

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedSession {
    pub(crate) peer: PeerId,
    is_initiator: bool,
    spis: (u64, u64),
    local: SocketAddr,
    remote: SocketAddr,
    nat: Nat,
    last_sent: Moment,
    identities: (Identity, Identity),
    keys: ExportedKeys,
    fragmentation: bool,
    children: Vec<ExportedChild>,
    tasks: Vec<(Moment, Job)>,
    outstanding: Vec<ExportedOutstanding>,
    stillborn: Vec<Spi>,
    rival: Option<Box<ExportedBorn>>,
    fate: ExportedFate,
    /// Message IDs: of our next request, of the peer's.
    next_request: u32,
    expected: u32,
    window: u32,
    /// The answer to the peer's last request, should it come again.
    answer: Vec<Bytes>,
    last_alive: Moment,
    established_at: Moment,
    rekey_at: Option<Moment>,
    expires_at: Moment,
    probe_wait: Duration,
    lone_fragments: Option<bool>,
    #[serde(default)]
    sync: ExportedSync,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedSync {
    agreed: Agreed,
    heard: Option<(u32, Moment)>,
    /// It is asked anew, with other numbers.
    is_asking: bool,
    is_heir: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedKeys {
    suite: IkeSuite,
    derive: Exposed,
    /// Encryption and integrity, of each direction.
    inbound: (Exposed, Exposed),
    outbound: (Exposed, Exposed),
    sealed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedChild {
    id: SaId,
    name: Arc<str>,
    spis: (Spi, Spi),
    suite: ChildSuite,
    pfs: Option<Group>,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    stage: Stage,
    is_up: bool,
    replaces: Option<SaId>,
    installed_at: Moment,
    rekey_at: Option<Moment>,
    expires_at: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedOutstanding {
    id: u32,
    packets: Vec<Bytes>,
    kind: u8,
    sent: u32,
    asked_at: Moment,
    at: Moment,
    give_up_at: Option<Moment>,
    exchange: ExportedExchange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ExportedExchange {
    CreateChild { pending: ExportedPending, tries: u8 },
    RekeyChild { pending: ExportedPending, tries: u8, old: SaId, rival: Option<(SaId, Bytes)> },
    DeleteChild { id: SaId },
    Disown { id: SaId },
    Inherited { id: SaId, inbound: Spi, again: Option<Job> },
    RekeyIke { group: Group, own: Exposed, nonce: Bytes, spi: u64, tries: u8 },
    DeleteIke,
    Ask,
    Probe(Probing),
    Drain { name: Arc<str>, is_drained: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedPending {
    name: Arc<str>,
    id: SaId,
    inbound: Spi,
    nonce: Bytes,
    own: Option<(Group, Exposed)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ExportedFate {
    Live,
    Closing { reason: CloseReason, again: Again, is_silent: bool },
    Superseded { until: Moment },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedBorn {
    session: ExportedSession,
    lowest: Bytes,
}

impl Session {
    /// What another process needs to go on with it; nothing while it is not established.
    pub(crate) fn export(&self, now: Instant) -> Option<ExportedSession> {
        match &self.state {
            State::Established(established) => export(&self.core, established, now),
            State::InitSent(_) | State::AuthSent(_) | State::HalfOpen(_) | State::Refused(_) | State::Closed => None,
        }
    }

    /// Goes on with what another process exported; `connection` is its peer's.
    ///
    /// # Errors
    /// What cannot be.
    pub(crate) fn import(
        exported: ExportedSession,
        connection: &Arc<Connection>,
        options: &Options,
        now: Instant,
    ) -> Result<Self, Import> {
        let (core, established) = import(exported, connection, options, now)?;
        Ok(Self { core, state: State::Established(established) })
    }
}

impl ExportedSession {
    /// The SAs whose numbers and SPIs it holds.
    pub(crate) fn numbers(&self) -> Vec<SaId> {
        let children = self.children.iter().map(|child| child.id);
        let tasks = self.tasks.iter().filter_map(|(_, job)| match job {
            Job::Disown { id, .. } => Some(*id),
            Job::CreateChild { .. }
            | Job::RekeyChild { .. }
            | Job::DeleteChild { .. }
            | Job::RekeyIke { .. }
            | Job::DeleteIke
            | Job::Ask
            | Job::Probe(_)
            | Job::Drain { .. } => None,
        });
        let outstanding = self.outstanding.iter().filter_map(|outstanding| match &outstanding.exchange {
            ExportedExchange::CreateChild { pending, .. } | ExportedExchange::RekeyChild { pending, .. } => {
                Some(pending.id)
            }
            ExportedExchange::Disown { id } | ExportedExchange::Inherited { id, .. } => Some(*id),
            ExportedExchange::DeleteChild { .. }
            | ExportedExchange::RekeyIke { .. }
            | ExportedExchange::DeleteIke
            | ExportedExchange::Ask
            | ExportedExchange::Probe(_)
            | ExportedExchange::Drain { .. } => None,
        });
        children.chain(tasks).chain(outstanding).collect()
    }
}

fn export(core: &Core, established: &Established, now: Instant) -> Option<ExportedSession> {
    let of = |at: Instant| Moment::of(at, now);
    let e = established;
    // A probe of the path that has not begun is of no use to another process.
    let tasks = e.tasks.iter().filter(|task| !matches!(task.job, Job::Probe(_)));
    let rival = e.rival.as_ref().and_then(|born| {
        let session = export(&born.core, &born.established, now)?;
        Some(Box::new(ExportedBorn { session, lowest: born.lowest.as_slice().into() }))
    });
    Some(ExportedSession {
        peer: e.peer,
        is_initiator: core.is_initiator,
        spis: (core.spi_i, core.spi_r),
        local: core.ends.local,
        remote: core.ends.remote,
        nat: core.nat,
        last_sent: of(core.last_sent),
        identities: (e.local_id.clone(), e.remote_id.clone()),
        keys: export_keys(&e.channel.keys),
        fragmentation: e.channel.fragmentation,
        children: e.children.iter().map(|child| export_child(child, now)).collect(),
        tasks: tasks.map(|task| (of(task.at), task.job.clone())).collect(),
        outstanding: e.outstanding.iter().map(|outstanding| export_outstanding(outstanding, now)).collect(),
        stillborn: e.stillborn.clone(),
        rival,
        fate: match &e.fate {
            Fate::Live => ExportedFate::Live,
            Fate::Closing { reason, again, is_silent } => {
                ExportedFate::Closing { reason: reason.clone(), again: *again, is_silent: *is_silent }
            }
            Fate::Superseded { until } => ExportedFate::Superseded { until: of(*until) },
        },
        next_request: e.next_request,
        expected: e.expected,
        window: e.window,
        answer: bytes(&e.answer),
        last_alive: of(e.last_alive),
        established_at: of(e.established_at),
        rekey_at: e.rekey_at.map(of),
        expires_at: of(e.expires_at),
        probe_wait: e.probe_wait,
        lone_fragments: e.lone_fragments,
        sync: ExportedSync {
            agreed: e.sync.agreed,
            heard: e.sync.heard.map(|(id, at)| (id, of(at))),
            is_asking: e.sync.asking.is_some(),
            is_heir: e.sync.is_heir,
        },
    })
}

fn import(
    exported: ExportedSession,
    connection: &Arc<Connection>,
    options: &Options,
    now: Instant,
) -> Result<(Core, Box<Established>), Import> {
    let x = exported;
    let core = Core {
        is_initiator: x.is_initiator,
        spi_i: x.spis.0,
        spi_r: x.spis.1,
        ends: Ends { local: x.local, remote: x.remote },
        nat: x.nat,
        peer: Some(x.peer),
        connection: Some(connection.clone()),
        last_sent: x.last_sent.at(now),
        keepalive: options.nat_keepalive,
        natt_port: options.ports.natt,
    };
    let rival = match x.rival {
        Some(born) => {
            let (core, established) = import(born.session, connection, options, now)?;
            Some(Box::new(Born { core, established, lowest: born.lowest.0 }))
        }
        None => None,
    };
    let established = Established {
        peer: x.peer,
        connection: connection.clone(),
        local_id: x.identities.0,
        remote_id: x.identities.1,
        channel: Channel::new(import_keys(x.keys)?, x.fragmentation),
        children: x.children.into_iter().map(|child| import_child(child, now)).collect(),
        tasks: x.tasks.into_iter().map(|(at, job)| Task { at: at.at(now), job }).collect(),
        outstanding: x.outstanding.into_iter().map(|o| import_outstanding(o, now)).collect::<Result<_, _>>()?,
        stillborn: x.stillborn,
        rival,
        fate: match x.fate {
            ExportedFate::Live => Fate::Live,
            ExportedFate::Closing { reason, again, is_silent } => Fate::Closing { reason, again, is_silent },
            ExportedFate::Superseded { until } => Fate::Superseded { until: until.at(now) },
        },
        next_request: x.next_request,
        expected: x.expected,
        window: x.window,
        answer: packets(x.answer),
        last_alive: x.last_alive.at(now),
        established_at: x.established_at.at(now),
        rekey_at: x.rekey_at.map(|at| at.at(now)),
        expires_at: x.expires_at.at(now),
        probe_wait: x.probe_wait,
        lone_fragments: x.lone_fragments,
        sync: Sync {
            agreed: x.sync.agreed,
            heard: x.sync.heard.map(|(id, at)| (id, at.at(now))),
            asking: x.sync.is_asking.then(|| Asking::begin(now)),
            is_heir: x.sync.is_heir,
        },
    };
    Ok((core, Box::new(established)))
}

fn export_keys(keys: &Keys) -> ExportedKeys {
    let both = |from: &Direction| (Exposed(from.encryption.clone()), Exposed(from.integrity.clone()));
    let (inbound, outbound) = (both(&keys.inbound), both(&keys.outbound));
    ExportedKeys { suite: keys.suite, derive: Exposed(keys.derive.clone()), inbound, outbound, sealed: keys.sealed }
}

fn import_keys(exported: ExportedKeys) -> Result<Keys, Import> {
    let ExportedKeys { suite, derive, inbound, outbound, sealed } = exported;
    let both = |(Exposed(encryption), Exposed(integrity))| Direction { encryption, integrity };
    let keys = Keys { suite, derive: derive.0, inbound: both(inbound), outbound: both(outbound), sealed };
    let encryption_len = suite.encryption.key_len() + suite.encryption.salt_len();
    let integrity_len = suite.integrity.map_or(0, base::algorithm::Integrity::key_len);
    let fits = |d: &Direction| d.encryption.len() == encryption_len && d.integrity.len() == integrity_len;
    let is_whole =
        fits(&keys.inbound) && fits(&keys.outbound) && suite.encryption.is_aead() != suite.integrity.is_some();
    if is_whole { Ok(keys) } else { Err(Import("the keys of an IKE SA do not fit its suite")) }
}

fn export_child(child: &Child, now: Instant) -> ExportedChild {
    let of = |at: Instant| Moment::of(at, now);
    ExportedChild {
        id: child.id,
        name: child.name.clone(),
        spis: (child.inbound, child.outbound),
        suite: child.suite,
        pfs: child.pfs,
        local: child.local.to_vec(),
        remote: child.remote.to_vec(),
        stage: child.stage.clone(),
        is_up: child.is_up,
        replaces: child.replaces,
        installed_at: of(child.installed_at),
        rekey_at: child.rekey_at.map(of),
        expires_at: of(child.expires_at),
    }
}

fn import_child(x: ExportedChild, now: Instant) -> Child {
    Child {
        id: x.id,
        name: x.name,
        inbound: x.spis.0,
        outbound: x.spis.1,
        suite: x.suite,
        pfs: x.pfs,
        local: x.local.into(),
        remote: x.remote.into(),
        stage: x.stage,
        is_up: x.is_up,
        replaces: x.replaces,
        installed_at: x.installed_at.at(now),
        rekey_at: x.rekey_at.map(|at| at.at(now)),
        expires_at: x.expires_at.at(now),
    }
}

fn export_outstanding(outstanding: &Outstanding, now: Instant) -> ExportedOutstanding {
    let of = |at: Instant| Moment::of(at, now);
    ExportedOutstanding {
        id: outstanding.id,
        packets: bytes(&outstanding.packets),
        kind: outstanding.kind,
        sent: outstanding.sent,
        asked_at: of(outstanding.asked_at),
        at: of(outstanding.at),
        give_up_at: outstanding.give_up_at.map(of),
        exchange: match &outstanding.exchange {
            Exchange::CreateChild { pending, tries } => {
                ExportedExchange::CreateChild { pending: export_pending(pending), tries: *tries }
            }
            Exchange::RekeyChild(rekeying) => {
                let RekeyingChild { pending, tries, old, rival } = &**rekeying;
                let rival = rival.as_ref().map(|rival| (rival.id, rival.lowest.as_slice().into()));
                ExportedExchange::RekeyChild { pending: export_pending(pending), tries: *tries, old: *old, rival }
            }
            Exchange::DeleteChild { id } => ExportedExchange::DeleteChild { id: *id },
            Exchange::Disown { id } => ExportedExchange::Disown { id: *id },
            Exchange::Inherited { id, inbound, again } => {
                ExportedExchange::Inherited { id: *id, inbound: *inbound, again: again.clone() }
            }
            Exchange::RekeyIke(rekeying) => {
                let RekeyingIke { own, nonce, spi, tries } = &**rekeying;
                let (group, own, nonce) = (own.group(), Exposed(own.export()), nonce.as_slice().into());
                ExportedExchange::RekeyIke { group, own, nonce, spi: *spi, tries: *tries }
            }
            Exchange::DeleteIke => ExportedExchange::DeleteIke,
            Exchange::Ask => ExportedExchange::Ask,
            Exchange::Probe(probing) => ExportedExchange::Probe(*probing),
            Exchange::Drain { name, is_drained } => {
                ExportedExchange::Drain { name: name.clone(), is_drained: *is_drained }
            }
        },
    }
}

fn import_outstanding(x: ExportedOutstanding, now: Instant) -> Result<Outstanding, Import> {
    let exchange = match x.exchange {
        ExportedExchange::CreateChild { pending, tries } => {
            Exchange::CreateChild { pending: Box::new(import_pending(pending)?), tries }
        }
        ExportedExchange::RekeyChild { pending, tries, old, rival } => {
            let rival = rival.map(|(id, lowest)| Rival { id, lowest: lowest.0 });
            Exchange::RekeyChild(Box::new(RekeyingChild { pending: import_pending(pending)?, tries, old, rival }))
        }
        ExportedExchange::DeleteChild { id } => Exchange::DeleteChild { id },
        ExportedExchange::Disown { id } => Exchange::Disown { id },
        ExportedExchange::Inherited { id, inbound, again } => Exchange::Inherited { id, inbound, again },
        ExportedExchange::RekeyIke { group, own, nonce, spi, tries } => {
            let (own, nonce) = (import_pair(group, &own)?, import_nonce(&nonce)?);
            Exchange::RekeyIke(Box::new(RekeyingIke { own, nonce, spi, tries }))
        }
        ExportedExchange::DeleteIke => Exchange::DeleteIke,
        ExportedExchange::Ask => Exchange::Ask,
        ExportedExchange::Probe(probing) => Exchange::Probe(probing),
        ExportedExchange::Drain { name, is_drained } => Exchange::Drain { name, is_drained },
    };
    Ok(Outstanding {
        id: x.id,
        packets: packets(x.packets),
        kind: x.kind,
        sent: x.sent,
        asked_at: x.asked_at.at(now),
        at: x.at.at(now),
        give_up_at: x.give_up_at.map(|at| at.at(now)),
        exchange,
    })
}

fn export_pending(pending: &Pending) -> ExportedPending {
    ExportedPending {
        name: pending.name.clone(),
        id: pending.id,
        inbound: pending.inbound,
        nonce: pending.nonce.as_slice().into(),
        own: pending.own.as_ref().map(|own| (own.group(), Exposed(own.export()))),
    }
}

fn import_pending(x: ExportedPending) -> Result<Pending, Import> {
    let own = x.own.map(|(group, own)| import_pair(group, &own)).transpose()?;
    Ok(Pending { name: x.name, id: x.id, inbound: x.inbound, nonce: import_nonce(&x.nonce)?, own })
}

fn import_pair(group: Group, private: &Exposed) -> Result<KeyPair, Import> {
    KeyPair::import(group, &private.0).ok_or(Import("a private value is not of its group"))
}

fn import_nonce(nonce: &Bytes) -> Result<[u8; NONCE_LEN], Import> {
    nonce.0.as_slice().try_into().map_err(|_| Import("a nonce of ours has another length"))
}

fn bytes(packets: &Packets) -> Vec<Bytes> {
    packets.iter().map(|packet| packet.as_slice().into()).collect()
}

fn packets(bytes: Vec<Bytes>) -> Packets {
    bytes.into_iter().map(|Bytes(packet)| packet).collect()
}
