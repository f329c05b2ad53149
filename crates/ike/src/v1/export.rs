//! Established ISAKMP SAs for another process, with the quick modes under way and the answers that a peer may ask for
//! again. Main modes under way are left out: they are begun anew.

use std::net::SocketAddr;
use std::sync::Arc;

use base::Instant;
use base::algorithm::{Encryption, Group, Prf};
use base::export::{Bytes, Exposed, Moment};
use crypto::KeyPair;
use model::{Dpd, Identity};
use sa::{ChildSuite, Path, SaId, Spi, TrafficSelector};
use serde::{Deserialize, Serialize};

use super::children::{Child, Stage, Want};
use super::established::{Established, Gone, Recent, Standing};
use super::flight::{Flight, Timer};
use super::info::{Asked as Question, Watch};
use super::keys::{Cookies, Digest, Iv, Keys};
use super::phase1::Suite;
use super::quick::{Answered, Asked, Quick, Stage as QuickStage};
use super::vendor::{Dialect, Nat};
use super::{Link, Session, State};
use crate::context::Ends;
use crate::export::Import;
use crate::peer::PeerId;

/// An ISAKMP SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedSession {
    pub(crate) peer: PeerId,
    is_initiator: bool,
    cookies: (u64, u64),
    local: SocketAddr,
    remote: SocketAddr,
    suite: (Encryption, Prf, Group),
    /// SKEYID_d, SKEYID_a and the encryption key.
    keys: [Exposed; 3],
    last_block: Bytes,
    /// The dialect where one is spoken, and whether our address and the peer's are translated.
    nat: (Option<Dialect>, bool, bool),
    dpd: Option<Dpd>,
    peer_has_dpd: bool,
    identities: (Identity, Identity),
    established_at: Moment,
    renew_at: Moment,
    expires_at: Moment,
    standing: Standing,
    keepalive_at: Option<Moment>,
    watch: ExportedWatch,
    children: Vec<ExportedChild>,
    wanted: Vec<ExportedWant>,
    quick: Vec<ExportedQuick>,
    answered: Vec<u32>,
    recent: Vec<ExportedRecent>,
    deleted: Vec<Spi>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedWatch {
    last_heard: Moment,
    /// Since when, with which number, and when again.
    asked: Option<(Moment, u32, Moment)>,
    sequence: u32,
    peer_sequence: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedChild {
    id: SaId,
    name: Arc<str>,
    spis: (Spi, Spi),
    suite: ChildSuite,
    pfs: Option<Group>,
    local: TrafficSelector,
    remote: TrafficSelector,
    path: Path,
    installed_at: Moment,
    rekey_at: Option<Moment>,
    expires_at: Moment,
    stage: ExportedStage,
    was_up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ExportedStage {
    Pending { until: Option<Moment> },
    Active,
    Replaced { delete_at: Moment, is_settled: bool },
    Leaving { next_at: Moment, repeats: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedWant {
    child: Arc<str>,
    local: TrafficSelector,
    remote: TrafficSelector,
    at: Moment,
    refused: u32,
    group: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedQuick {
    message_id: u32,
    iv: Bytes,
    flight: ExportedFlight,
    stage: ExportedQuickStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ExportedQuickStage {
    Asked { want: ExportedWant, id: SaId, spi: Spi, nonce: Bytes, own: Option<(Group, Exposed)>, mode: u16 },
    Answered { child: SaId, spi: Spi, expected: Exposed },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedRecent {
    message_id: u32,
    flight: ExportedFlight,
    until: Moment,
    /// Our SPI of an SA that is gone, the vector of message 3 and HASH(3).
    gone: Option<(Spi, Bytes, Exposed)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedFlight {
    sent: Bytes,
    answers: Option<Bytes>,
    timer: Option<(u32, Moment)>,
}

impl Session {
    /// What another process needs to go on with it; nothing while it is not established.
    pub(crate) fn export(&self, now: Instant) -> Option<ExportedSession> {
        match &self.state {
            State::Established(established) => Some(export(&self.link, established, now)),
            State::SaSent(_)
            | State::KeSent(_)
            | State::AuthSent(_)
            | State::SaAnswered(_)
            | State::KeAnswered(_)
            | State::Refused(_)
            | State::Closed => None,
        }
    }

    /// Goes on with what another process exported.
    ///
    /// # Errors
    /// What cannot be.
    pub(crate) fn import(exported: ExportedSession, now: Instant) -> Result<Self, Import> {
        let x = exported;
        let link = Link {
            cookies: Cookies { initiator: x.cookies.0, responder: x.cookies.1 },
            is_initiator: x.is_initiator,
            ends: Ends { local: x.local, remote: x.remote },
        };
        let suite = Suite { encryption: x.suite.0, hash: x.suite.1, group: x.suite.2 };
        let [d, a, encryption] = x.keys.map(|Exposed(key)| key);
        if encryption.len() != suite.encryption.key_len() {
            return Err(Import("the key of an ISAKMP SA does not fit its suite"));
        }
        let block = suite.encryption.iv_len();
        let established = Established {
            peer: x.peer,
            keys: Keys { suite, d, a, encryption },
            last_block: import_iv(&x.last_block, block)?,
            nat: Nat { dialect: x.nat.0, ours: x.nat.1, theirs: x.nat.2 },
            dpd: x.dpd,
            peer_has_dpd: x.peer_has_dpd,
            probing: None,
            local_id: x.identities.0,
            remote_id: x.identities.1,
            suite_name: suite.to_string().into(),
            established_at: x.established_at.at(now),
            renew_at: x.renew_at.at(now),
            expires_at: x.expires_at.at(now),
            standing: x.standing,
            keepalive_at: x.keepalive_at.map(|at| at.at(now)),
            watch: Watch {
                last_heard: x.watch.last_heard.at(now),
                asked: x.watch.asked.map(|(since, first, again_at)| Question {
                    since: since.at(now),
                    first,
                    again_at: again_at.at(now),
                }),
                sequence: x.watch.sequence,
                peer_sequence: x.watch.peer_sequence,
            },
            children: x.children.into_iter().map(|child| import_child(child, now)).collect(),
            wanted: x.wanted.into_iter().map(|want| import_want(want, now)).collect(),
            quick: x.quick.into_iter().map(|quick| import_quick(quick, block, now)).collect::<Result<_, _>>()?,
            answered: x.answered.into(),
            recent: x.recent.into_iter().map(|recent| import_recent(recent, block, now)).collect::<Result<_, _>>()?,
            deleted: x.deleted,
            told: None,
        };
        Ok(Self { link, state: State::Established(Box::new(established)) })
    }
}

impl ExportedSession {
    /// The SAs whose numbers and SPIs it holds.
    pub(crate) fn numbers(&self) -> Vec<SaId> {
        let asked = self.quick.iter().filter_map(|quick| match &quick.stage {
            ExportedQuickStage::Asked { id, .. } => Some(*id),
            ExportedQuickStage::Answered { .. } => None,
        });
        self.children.iter().map(|child| child.id).chain(asked).collect()
    }
}

fn export(link: &Link, e: &Established, now: Instant) -> ExportedSession {
    let of = |at: Instant| Moment::of(at, now);
    let Suite { encryption, hash, group } = e.keys.suite;
    ExportedSession {
        peer: e.peer,
        is_initiator: link.is_initiator,
        cookies: (link.cookies.initiator, link.cookies.responder),
        local: link.ends.local,
        remote: link.ends.remote,
        suite: (encryption, hash, group),
        keys: [&e.keys.d, &e.keys.a, &e.keys.encryption].map(|key| Exposed(key.clone())),
        last_block: e.last_block.get().into(),
        nat: (e.nat.dialect, e.nat.ours, e.nat.theirs),
        dpd: e.dpd,
        peer_has_dpd: e.peer_has_dpd,
        identities: (e.local_id.clone(), e.remote_id.clone()),
        established_at: of(e.established_at),
        renew_at: of(e.renew_at),
        expires_at: of(e.expires_at),
        standing: e.standing,
        keepalive_at: e.keepalive_at.map(of),
        watch: ExportedWatch {
            last_heard: of(e.watch.last_heard),
            asked: e.watch.asked.map(|asked| (of(asked.since), asked.first, of(asked.again_at))),
            sequence: e.watch.sequence,
            peer_sequence: e.watch.peer_sequence,
        },
        children: e.children.iter().map(|child| export_child(child, now)).collect(),
        wanted: e.wanted.iter().map(|want| export_want(want, now)).collect(),
        quick: e.quick.iter().map(|quick| export_quick(quick, now)).collect(),
        answered: e.answered.iter().copied().collect(),
        recent: e.recent.iter().map(|recent| export_recent(recent, now)).collect(),
        deleted: e.deleted.clone(),
    }
}

fn export_child(child: &Child, now: Instant) -> ExportedChild {
    let of = |at: Instant| Moment::of(at, now);
    ExportedChild {
        id: child.id,
        name: child.name.clone(),
        spis: child.spis,
        suite: child.suite,
        pfs: child.pfs,
        local: child.local,
        remote: child.remote,
        path: child.path,
        installed_at: of(child.installed_at),
        rekey_at: child.rekey_at.map(of),
        expires_at: of(child.expires_at),
        stage: match child.stage {
            Stage::Pending { until } => ExportedStage::Pending { until: until.map(of) },
            Stage::Active => ExportedStage::Active,
            Stage::Replaced { delete_at, is_settled } => {
                ExportedStage::Replaced { delete_at: of(delete_at), is_settled }
            }
            Stage::Leaving { next_at, repeats } => ExportedStage::Leaving { next_at: of(next_at), repeats },
        },
        was_up: child.was_up,
    }
}

fn import_child(x: ExportedChild, now: Instant) -> Child {
    Child {
        id: x.id,
        name: x.name,
        spis: x.spis,
        suite: x.suite,
        pfs: x.pfs,
        local: x.local,
        remote: x.remote,
        path: x.path,
        installed_at: x.installed_at.at(now),
        rekey_at: x.rekey_at.map(|at| at.at(now)),
        expires_at: x.expires_at.at(now),
        stage: match x.stage {
            ExportedStage::Pending { until } => Stage::Pending { until: until.map(|at| at.at(now)) },
            ExportedStage::Active => Stage::Active,
            ExportedStage::Replaced { delete_at, is_settled } => {
                Stage::Replaced { delete_at: delete_at.at(now), is_settled }
            }
            ExportedStage::Leaving { next_at, repeats } => Stage::Leaving { next_at: next_at.at(now), repeats },
        },
        was_up: x.was_up,
    }
}

fn export_want(want: &Want, now: Instant) -> ExportedWant {
    let Want { child, local, remote, at, refused, group } = want.clone();
    ExportedWant { child, local, remote, at: Moment::of(at, now), refused, group }
}

fn import_want(x: ExportedWant, now: Instant) -> Want {
    let ExportedWant { child, local, remote, at, refused, group } = x;
    Want { child, local, remote, at: at.at(now), refused, group }
}

fn export_quick(quick: &Quick, now: Instant) -> ExportedQuick {
    ExportedQuick {
        message_id: quick.message_id,
        iv: quick.iv.get().into(),
        flight: export_flight(&quick.flight, now),
        stage: match &quick.stage {
            QuickStage::Asked(asked) => ExportedQuickStage::Asked {
                want: export_want(&asked.want, now),
                id: asked.id,
                spi: asked.spi,
                nonce: asked.nonce.as_slice().into(),
                own: asked.key_pair.as_ref().map(|own| (own.group(), Exposed(own.export()))),
                mode: asked.mode,
            },
            QuickStage::Answered(answered) => {
                let Answered { child, spi, expected } = answered;
                ExportedQuickStage::Answered { child: *child, spi: *spi, expected: Exposed(expected.clone()) }
            }
        },
    }
}

fn import_quick(x: ExportedQuick, block: usize, now: Instant) -> Result<Quick, Import> {
    let stage = match x.stage {
        ExportedQuickStage::Asked { want, id, spi, nonce, own, mode } => {
            let own = own.map(|(group, own)| {
                KeyPair::import(group, &own.0).ok_or(Import("a private value is not of its group"))
            });
            let nonce = nonce.0.as_slice().try_into().map_err(|_| Import("a nonce of ours has another length"))?;
            let (want, key_pair) = (import_want(want, now), own.transpose()?);
            QuickStage::Asked(Box::new(Asked { want, id, spi, nonce, key_pair, mode }))
        }
        ExportedQuickStage::Answered { child, spi, expected } => {
            QuickStage::Answered(Answered { child, spi, expected: expected.0 })
        }
    };
    let (iv, flight) = (import_iv(&x.iv, block)?, import_flight(x.flight, now)?);
    Ok(Quick { message_id: x.message_id, iv, flight, stage })
}

fn export_flight(flight: &Flight, now: Instant) -> ExportedFlight {
    ExportedFlight {
        sent: (&*flight.sent).into(),
        answers: flight.answers.as_ref().map(|digest| digest.0.as_slice().into()),
        timer: flight.timer.map(|timer| (timer.sent, Moment::of(timer.at, now))),
    }
}

fn import_flight(x: ExportedFlight, now: Instant) -> Result<Flight, Import> {
    let digest = |bytes: Bytes| bytes.0.try_into().map(Digest).map_err(|_| Import("a digest has another length"));
    Ok(Flight {
        sent: x.sent.0.into(),
        answers: x.answers.map(digest).transpose()?,
        timer: x.timer.map(|(sent, at)| Timer { sent, at: at.at(now) }),
    })
}

fn export_recent(recent: &Recent, now: Instant) -> ExportedRecent {
    let gone = |gone: &Gone| (gone.spi, gone.iv.get().into(), Exposed(gone.expected.clone()));
    ExportedRecent {
        message_id: recent.message_id,
        flight: export_flight(&recent.flight, now),
        until: Moment::of(recent.until, now),
        gone: recent.gone.as_ref().map(gone),
    }
}

fn import_recent(x: ExportedRecent, block: usize, now: Instant) -> Result<Recent, Import> {
    let gone =
        |(spi, iv, expected): (Spi, Bytes, Exposed)| Ok(Gone { spi, iv: import_iv(&iv, block)?, expected: expected.0 });
    let (flight, until, gone) = (import_flight(x.flight, now)?, x.until.at(now), x.gone.map(gone).transpose()?);
    Ok(Recent { message_id: x.message_id, flight, until, gone })
}

fn import_iv(bytes: &Bytes, block: usize) -> Result<Iv, Import> {
    if bytes.0.len() == block { Ok(Iv::new(&bytes.0, block)) } else { Err(Import("a vector has another length")) }
}
