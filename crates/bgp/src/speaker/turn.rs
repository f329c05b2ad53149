//! What a neighbour may touch of its speaker while it acts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Instant, Random};

use super::output::{BgpEvent, EventKind, Output};
use super::{ConnectionId, NeighborId, SpeakerOptions};
use crate::rib::Rib;

/// The connections of a speaker: whose each is.
#[derive(Debug, Default)]
pub(super) struct Connections {
    owners: BTreeMap<ConnectionId, NeighborId>,
    last: u64,
}

impl Connections {
    pub(super) fn owner(&self, connection: ConnectionId) -> Option<NeighborId> {
        self.owners.get(&connection).copied()
    }
}

/// One input, as a neighbour sees it.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) options: &'a SpeakerOptions,
    /// Whether we have restarted, and the neighbours are still announcing all they have.
    pub(super) is_restarting: bool,
    pub(super) rib: &'a mut Rib,
    pub(super) random: &'a mut Random,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) connections: &'a mut Connections,
}

impl Turn<'_> {
    /// A name for a connection of this neighbour.
    pub(super) fn new_connection(&mut self, neighbor: NeighborId) -> ConnectionId {
        self.connections.last += 1;
        let id = ConnectionId(self.connections.last);
        self.connections.owners.insert(id, neighbor);
        id
    }

    /// Closes a connection, if it is known.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        if self.connections.owners.remove(&connection).is_some() {
            self.outputs.push_back(Output::Close { connection });
        }
    }

    /// A connection is gone by itself.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.connections.owners.remove(&connection);
    }

    /// Up to a quarter less (RFC 4271 §10).
    pub(super) fn jittered(&mut self, time: Duration) -> Duration {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros - self.random.below(micros / 4 + 1))
    }

    pub(super) fn event(&mut self, neighbor: Option<NeighborId>, kind: EventKind, sentence: String) {
        self.outputs.push_back(Output::Event(BgpEvent { neighbor, kind, sentence }));
    }
}
