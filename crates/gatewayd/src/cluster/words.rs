//! What the members of a cluster tell each other over their stream, and what the one that stands by keeps of it.

use std::collections::BTreeMap;

use base::Instant;
use base::export::Bytes;
use esp::export::ExportedSa;
use esp::shared::Mark;
use gateway::{ExportedOne, RouteChange};
use ike::PeerId;
use sa::{ChildSa, Path, SaId};
use serde::{Deserialize, Serialize};

/// The form of what is told. It counts what means something else than it did; fields may be added without.
pub(crate) const FORMAT: u32 = 2;
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
    /// What BGP learnt, or has lost.
    Learnt(Vec<RouteChange>),
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
    /// Changes of routes, in their order, that have not been made here.
    pub(super) learnt: Vec<RouteChange>,
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
            Word::Learnt(changes) => self.learnt.extend(changes),
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
        let lengths = [self.ones.len(), self.sas.len(), self.activated.len(), self.learnt.len()];
        let is_too_much = lengths.into_iter().any(|len| len > MOST);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: u64, next: u64) -> Mark {
        Mark { id: SaId(id), next, top: next / 2 }
    }

    /// An SA as it is told, by way of bytes.
    fn sa(id: u64) -> Word {
        let child = ChildSa {
            id: SaId(id),
            label: sa::ChildLabel { connection: "a".into(), child: "a".into() },
            inbound_spi: sa::Spi(0x1000 + id as u32),
            outbound_spi: sa::Spi(0x2000 + id as u32),
            suite: sa::ChildSuite { encryption: base::algorithm::Encryption::Aes128Gcm, integrity: None, esn: true },
            keys: sa::ChildKeys {
                inbound: sa::DirectionKeys { encryption: vec![1; 20].into(), integrity: Vec::new().into() },
                outbound: sa::DirectionKeys { encryption: vec![2; 20].into(), integrity: Vec::new().into() },
            },
            path: Path {
                local: "192.0.2.1:4500".parse().unwrap(),
                remote: "192.0.2.2:4500".parse().unwrap(),
                udp: true,
            },
            local: Vec::new(),
            remote: Vec::new(),
            routing: model::Routing::Policy,
            limits: sa::Limits::default(),
            replay_window: 64,
            df: model::DfPolicy::Honour,
            copy_dscp: true,
            mtu: None,
            mss: None,
        };
        Word::Sa(Box::new(ExportedSa::of(&child, Instant::ZERO)))
    }

    fn told(words: Vec<Word>) -> Replica {
        let mut replica = Replica::default();
        for word in words {
            let text = serde_json::to_string(&word).unwrap();
            replica.note(serde_json::from_str(&text).unwrap(), Instant::ZERO).unwrap();
        }
        replica
    }

    #[test]
    fn what_was_told_is_gone_on_with_and_what_was_taken_back_is_not() {
        let replica = told(vec![
            sa(1),
            sa(2),
            Word::Activated(SaId(1)),
            Word::Marks { number: 1, marks: vec![mark(1, 50)] },
            Word::All(vec![sa(3), Word::Activated(SaId(2)), Word::Removed(SaId(1))]),
            // It was under way when the SA was removed.
            Word::Marks { number: 2, marks: vec![mark(1, 60), mark(2, 7)] },
        ]);
        assert!(replica.whole_at.is_some());
        assert_eq!(replica.len(), (0, 2));
        let estate = replica.into_estate();
        assert_eq!(estate.sas.iter().map(|sa| sa.id.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(estate.activated, [SaId(2)]);
        assert_eq!(estate.marks, [mark(2, 7), mark(3, 1)], "of one that is new, nothing was sealed");
    }

    #[test]
    fn marks_are_answered_with_their_number_also_among_others_and_nothing_else_is() {
        let mut replica = Replica::default();
        let mut note = |word| replica.note(word, Instant::ZERO).unwrap();
        assert_eq!(note(sa(1)), None);
        assert_eq!(note(Word::Marks { number: 7, marks: Vec::new() }), Some(7));
        assert_eq!(note(Word::All(vec![Word::Marks { number: 8, marks: Vec::new() }, sa(2)])), Some(8));
        assert_eq!(note(Word::TakePlace), None);
    }

    #[test]
    fn nothing_is_whole_before_the_first_marks() {
        assert!(told(vec![sa(1), Word::Activated(SaId(1))]).whole_at.is_none());
    }
}
