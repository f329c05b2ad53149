//! What SAs carried that are gone: without it, a connection's traffic would begin at zero with every rekey. The worker
//! keeps it, so that what a snapshot says of an SA is never lost between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::status::{Carried, Traffic};
use sa::{SaChange, SaId};

/// The sums of each connection.
#[derive(Debug, Default)]
pub(super) struct Sums {
    owners: BTreeMap<SaId, Arc<str>>,
    carried: BTreeMap<Arc<str>, Carried>,
    /// By connections that are forgotten.
    forgotten: Carried,
}

impl Sums {
    /// What was summed up, by connection and of those that are gone.
    pub(super) fn export(&self) -> (BTreeMap<Arc<str>, Carried>, Carried) {
        (self.carried.clone(), self.forgotten.clone())
    }

    /// Goes on with what another process summed up.
    pub(super) fn import(&mut self, carried: BTreeMap<Arc<str>, Carried>, forgotten: Carried) {
        (self.carried, self.forgotten) = (carried, forgotten);
    }

    /// Follows a change to the SAs, before it is in effect. `traffic` says what an SA carried.
    pub(super) fn note(&mut self, change: &SaChange, traffic: impl FnOnce(SaId) -> Traffic) {
        match change {
            SaChange::Install(sa) => drop(self.owners.insert(sa.id, sa.label.connection.clone())),
            SaChange::Remove(id) => {
                if let Some(owner) = self.owners.remove(id) {
                    self.carried.entry(owner).or_default().add(&traffic(*id));
                }
            }
            SaChange::Activate(_) | SaChange::Move { .. } | SaChange::Skip { .. } => {}
        }
    }

    /// Forgets the names of connections that are not among `names` and have no SA.
    pub(super) fn keep(&mut self, names: &BTreeSet<Arc<str>>) {
        let live: BTreeSet<&Arc<str>> = self.owners.values().collect();
        let forgotten = &mut self.forgotten;
        self.carried.retain(|name, sum| {
            let stays = names.contains(name) || live.contains(name);
            if !stays {
                forgotten.merge(sum);
            }
            stays
        });
    }

    /// By connection.
    pub(super) fn by_connection(&self) -> BTreeMap<Arc<str>, Carried> {
        self.carried.clone()
    }

    /// Of all connections, those forgotten too.
    pub(super) fn all(&self) -> Carried {
        let mut all = self.forgotten.clone();
        self.carried.values().for_each(|sum| all.merge(sum));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(bytes: u64) -> Traffic {
        let mut traffic = Traffic::default();
        (traffic.inbound.packets, traffic.inbound.bytes) = (1, bytes);
        traffic.inbound.dropped.insert("replay".to_owned(), 2);
        traffic
    }

    fn with(sums: &mut Sums, connection: &str, id: u64) {
        sums.owners.insert(SaId(id), connection.into());
    }

    #[test]
    fn a_connection_keeps_what_its_sas_carried_and_forgets_it_only_when_it_is_gone() {
        let mut sums = Sums::default();
        with(&mut sums, "a", 1);
        with(&mut sums, "a", 2);
        with(&mut sums, "b", 3);
        sums.note(&SaChange::Remove(SaId(1)), |_| traffic(100));
        sums.note(&SaChange::Remove(SaId(9)), |_| unreachable!("an SA that nobody installed"));
        sums.note(&SaChange::Remove(SaId(3)), |_| traffic(7));
        sums.keep(&BTreeSet::new());
        let carried = sums.by_connection();
        assert_eq!(carried["a"].bytes_in, 100, "it has an SA yet");
        assert!(!carried.contains_key("b"));
        sums.note(&SaChange::Remove(SaId(2)), |_| traffic(1));
        assert_eq!(sums.by_connection()["a"].bytes_in, 101);
        assert_eq!(sums.all().dropped_in["replay"], 6);
    }
}
