//! What the gateway remembers of one connection: how it is, since when, and what changed and why.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::tally::Negotiations;
use base::{Instant, Secret};
use ike::Failure;
use model::{Child, Connection, Start};
use sa::{ChildLabel, ChildSuite, Path, SaId};
use serde::{Deserialize, Serialize};

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At least one of its children carries packets.
    Up,
    /// It is being negotiated.
    Connecting,
    /// It comes up by itself: with traffic, with the next try, or when the peer begins.
    Waiting,
    /// It was ordered down; an order or the peer brings it up.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Down => "down",
        })
    }
}

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

/// An SA that carries packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveSa {
    pub(crate) suite: ChildSuite,
    pub(crate) path: Path,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) connection: Arc<Connection>,
    pub(crate) name: Arc<str>,
    /// Our address towards the peer, as the shell found it.
    pub(crate) local: Option<IpAddr>,
    /// The peer's address, where the configuration or the shell names it.
    pub(crate) remote: Option<IpAddr>,
    pub(crate) state: State,
    pub(crate) since: Instant,
    pub(crate) why: String,
    pub(crate) history: VecDeque<Entry>,
    pub(crate) last_failure: Option<(Instant, Failure)>,
    /// Pre-shared keys that were replaced, and until when they are accepted.
    pub(crate) retiring: Option<(Instant, Vec<Secret>)>,
    pub(crate) negotiations: Negotiations,
    /// Whether it was ordered down.
    pub(crate) is_held_down: bool,
    /// Whether a negotiation is under way.
    pub(crate) is_connecting: bool,
    /// Its SAs by child and age.
    pub(crate) sas: BTreeMap<(Arc<str>, SaId), LiveSa>,
    /// When traffic last asked for a child.
    pub(crate) asked: BTreeMap<Arc<str>, Instant>,
}

/// Entries of history that are kept a connection.
const HISTORY: usize = 32;

impl Record {
    pub(crate) fn new(connection: Arc<Connection>, now: Instant) -> Self {
        Self {
            name: connection.name.as_str().into(),
            local: connection.local.address.ip(),
            remote: connection.remote.address.ip(),
            state: State::Waiting,
            since: now,
            why: "loaded".to_owned(),
            history: VecDeque::new(),
            last_failure: None,
            retiring: None,
            negotiations: Negotiations::default(),
            is_held_down: false,
            is_connecting: false,
            sas: BTreeMap::new(),
            asked: BTreeMap::new(),
            connection,
        }
    }

    /// The connection as IKE is to know it: with the keys that are still accepted.
    pub(crate) fn negotiated(&self) -> Arc<Connection> {
        match &self.retiring {
            None => self.connection.clone(),
            Some((_, keys)) => {
                let mut connection = Connection::clone(&self.connection);
                connection.psk.extend(keys.iter().cloned());
                Arc::new(connection)
            }
        }
    }

    /// Takes new pre-shared keys; the old ones stay good until `until`.
    pub(crate) fn change_keys(&mut self, connection: Connection, until: Instant) {
        let mut old = self.connection.psk.clone();
        old.extend(self.retiring.take().into_iter().flat_map(|(_, keys)| keys));
        old.retain(|key| !connection.psk.contains(key));
        self.retiring = (!old.is_empty()).then_some((until, old));
        self.connection = Arc::new(connection);
    }

    /// Remembers what happened.
    pub(crate) fn note(&mut self, text: impl Into<String>, now: Instant) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Entry { at: now, text: text.into() });
    }

    /// Sets the state right after something happened; the change, if it is one.
    pub(crate) fn settle(&mut self, why: &str, now: Instant) -> Option<(State, State)> {
        let state = if !self.sas.is_empty() {
            State::Up
        } else if self.is_connecting {
            State::Connecting
        } else if self.is_held_down {
            State::Down
        } else {
            State::Waiting
        };
        if state == self.state {
            return None;
        }
        let old = std::mem::replace(&mut self.state, state);
        (self.since, self.why) = (now, why.to_owned());
        Some((old, state))
    }

    /// The labels of its children, or of the one that is named.
    pub(crate) fn labels(&self, child: Option<&str>) -> Vec<ChildLabel> {
        let named = self.connection.children.iter().filter(|c| child.is_none_or(|name| *c.name == *name));
        named.map(|c| ChildLabel { connection: self.name.clone(), child: c.name.as_str().into() }).collect()
    }

    /// Children that are brought up without being asked.
    pub(crate) fn starting_children(&self) -> Vec<Arc<str>> {
        let at_once = self.connection.children.iter().filter(|child| child.start == Start::AtOnce);
        at_once.map(|child| child.name.as_str().into()).collect()
    }

    /// Whether a child has an SA.
    pub(crate) fn has_sa(&self, child: &Arc<str>) -> bool {
        let all = (child.clone(), SaId(u64::MIN))..=(child.clone(), SaId(u64::MAX));
        self.sas.range(all).next().is_some()
    }

    /// Suite and path of the newest SA of each child.
    pub(crate) fn newest_sas(&self) -> BTreeMap<Arc<str>, (ChildSuite, Path)> {
        // A connection that takes any peer has thousands of them: they are not all looked at.
        let newest = |child: &Child| {
            let name: Arc<str> = child.name.as_str().into();
            let all = (name.clone(), SaId(u64::MIN))..=(name, SaId(u64::MAX));
            self.sas.range(all).next_back().map(|((name, _), sa)| (name.clone(), (sa.suite, sa.path)))
        };
        self.connection.children.iter().filter_map(newest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_keeps_the_newest() {
        let mut record = Record::new(Arc::new(Connection::named("a")), Instant::ZERO);
        (0..100).for_each(|i| record.note(format!("{i}"), Instant::ZERO));
        assert_eq!(record.history.len(), HISTORY);
        assert_eq!(record.history.back().map(|e| e.text.as_str()), Some("99"));
    }
}
