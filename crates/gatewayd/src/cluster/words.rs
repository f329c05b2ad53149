//! What the members of a cluster tell each other over their stream, and what the one that stands by keeps of it.

use std::collections::BTreeMap;

use base::Instant;
use base::export::Bytes;
use esp::export::ExportedSa;
use esp::shared::Mark;
use gateway::ExportedOne;
use ike::PeerId;
use sa::{ChildSa, Path, SaId};
use serde::{Deserialize, Serialize};

/// The form of what is told. It counts what means something else than it did; fields may be added without.
pub(crate) const FORMAT: u32 = 1;
/// Connections, and SAs, that are kept at most.
const MOST: usize = 200_000;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// The first that both say.
    Hello { format: u32, version: String, digest: Bytes },
    /// The conversation ends, and why: a sentence without a full stop.
    Refused(String),
    /// Several that take effect together.
    All(Vec<Self>),
    /// From the active one: everything anew follows.
    Anew,
    /// A connection is like this now.
    One(Box<ExportedOne>),
    /// There is no such connection any more.
    Gone(PeerId),
    /// An SA, and that it begins.
    Sa(Box<ExportedSa>),
    /// It is no more.
    Removed(SaId),
    /// Its packets go elsewhere.
    Moved(SaId, Path),
    /// Packets take it from now on.
    Activated(SaId),
    /// How far the SAs are that have moved on; the first ones say that everything is told.
    Marks { number: u64, marks: Vec<Mark> },
    /// From the one that stands by: it has heard marks of this number, and all before.
    Heard(u64),
    /// From the one that stands by: it wants to be active.
    AskForPlace,
    /// From the active one: be active.
    TakePlace,
}

/// What the active member has told.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    ones: BTreeMap<PeerId, (ExportedOne, Instant)>,
    sas: BTreeMap<SaId, ChildSa>,
    activated: Vec<SaId>,
    marks: BTreeMap<SaId, Mark>,
    /// When it was whole for the first time, and when it was told something last.
    pub(crate) whole_at: Option<Instant>,
    pub(crate) told_at: Option<Instant>,
}

/// What is needed to go on with it.
pub(crate) struct Estate {
    pub(crate) ones: Vec<(ExportedOne, Instant)>,
    pub(crate) sas: Vec<ChildSa>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) activated: Vec<SaId>,
}

impl Replica {
    /// Takes note; the number to be answered, where one is. `Err` when there is more than is kept.
    pub(crate) fn note(&mut self, word: Word, now: Instant) -> Result<Option<u64>, ()> {
        self.told_at = Some(now);
        let mut heard = None;
        match word {
            Word::All(words) => {
                for word in words {
                    heard = self.note(word, now)?.or(heard);
                }
            }
            Word::One(one) => drop(self.ones.insert(one.number(), (*one, now))),
            Word::Gone(id) => drop(self.ones.remove(&id)),
            Word::Sa(sa) => {
                let id = sa.id();
                // Its first mark, as nothing was sealed before it was told.
                self.marks.insert(id, Mark { id, next: 1, top: 0 });
                self.sas.insert(id, sa.into_child(now));
            }
            Word::Removed(id) => {
                self.sas.remove(&id);
                self.marks.remove(&id);
                self.activated.retain(|other| *other != id);
            }
            Word::Moved(id, path) => {
                if let Some(sa) = self.sas.get_mut(&id) {
                    sa.path = path;
                }
            }
            Word::Activated(id) => {
                self.activated.retain(|other| *other != id);
                self.activated.push(id);
            }
            Word::Marks { number, marks } => {
                // An SA that was removed meanwhile is not begun again.
                self.marks.extend(marks.iter().filter(|m| self.sas.contains_key(&m.id)).map(|mark| (mark.id, *mark)));
                self.whole_at = self.whole_at.or(Some(now));
                heard = Some(number);
            }
            Word::Hello { .. }
            | Word::Refused(_)
            | Word::Anew
            | Word::Heard(_)
            | Word::AskForPlace
            | Word::TakePlace => {}
        }
        let is_too_much = self.ones.len() > MOST || self.sas.len() > MOST || self.activated.len() > MOST;
        if is_too_much { Err(()) } else { Ok(heard) }
    }

    /// How many connections and SAs there are.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.ones.len(), self.sas.len())
    }

    /// All of it.
    pub(crate) fn into_estate(self) -> Estate {
        Estate {
            ones: self.ones.into_values().collect(),
            sas: self.sas.into_values().collect(),
            marks: self.marks.into_values().collect(),
            activated: self.activated,
        }
    }
}
