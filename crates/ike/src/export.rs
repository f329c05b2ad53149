//! The state of an endpoint for another process that goes on with it: no peer notices, because everything that it could
//! tell apart is the same. Peers are known by their numbers, which the other process must give them alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base::export::Moment;
use sa::{SaId, Spi};
use serde::{Deserialize, Serialize};

use crate::peer::PeerId;
use crate::{v1, v2};

/// All established IKE SAs, and what is wanted of each peer. It holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub(crate) sessions: Vec<ExportedSlot>,
    pub(crate) wanted: BTreeMap<PeerId, ExportedWanted>,
    /// Peers that a negotiation of ours was under way with: it is begun anew.
    pub(crate) connecting: BTreeSet<PeerId>,
    /// The last number given to an SA, and those in use with the SPIs that belong to them.
    pub(crate) last_sa: u64,
    pub(crate) taken: Vec<(SaId, Spi)>,
    /// What was counted, by name.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// What an [`Exported`] holds of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedPeer {
    pub(crate) sessions: Vec<ExportedSlot>,
    pub(crate) wanted: Option<ExportedWanted>,
    pub(crate) is_connecting: bool,
    pub(crate) last_sa: u64,
    pub(crate) taken: Vec<(SaId, Spi)>,
}

impl Exported {
    /// No peers.
    pub fn empty() -> Self {
        Self {
            sessions: Vec::new(),
            wanted: BTreeMap::new(),
            connecting: BTreeSet::new(),
            last_sa: 0,
            taken: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    /// Adds a peer that is not in it.
    pub fn add_peer(&mut self, id: PeerId, peer: ExportedPeer) {
        let ExportedPeer { sessions, wanted, is_connecting, last_sa, taken } = peer;
        self.sessions.extend(sessions);
        self.wanted.extend(wanted.map(|wanted| (id, wanted)));
        self.connecting.extend(is_connecting.then_some(id));
        self.last_sa = self.last_sa.max(last_sa);
        self.taken.extend(taken);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedSlot {
    pub(crate) session: ExportedSession,
    pub(crate) first_message: Option<(u64, SocketAddr)>,
    pub(crate) began_at: Moment,
    pub(crate) is_redundant: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExportedSession {
    V1(Box<v1::ExportedSession>),
    V2(Box<v2::ExportedSession>),
}

impl ExportedSession {
    pub(crate) fn peer(&self) -> PeerId {
        match self {
            Self::V1(session) => session.peer,
            Self::V2(session) => session.peer,
        }
    }

    pub(crate) fn numbers(&self) -> Vec<SaId> {
        match self {
            Self::V1(session) => session.numbers(),
            Self::V2(session) => session.numbers(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedWanted {
    pub(crate) children: BTreeSet<Arc<str>>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Moment>,
    pub(crate) settle_at: Option<Moment>,
    /// Sent again, answered again and not authentic; of each phase.
    pub(crate) troubles: [(u64, u64, u64); 2],
}

/// What is said of an IKE SA cannot be: a sentence without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import(pub(crate) &'static str);

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Import {}
