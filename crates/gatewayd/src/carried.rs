//! What SAs carried that are gone: without it, a connection's traffic would begin at zero with every rekey.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::status::{Carried, Status};
use sa::{SaChange, SaId};
use tokio::sync::oneshot;

use crate::data::{Order, Snapshot};

/// Last words that are waited for at most. When more SAs go at once, such as with a reload, those beyond are not
/// counted: each snapshot lists every SA.
const WAITING: usize = 64;

/// The sums of each connection.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    owners: BTreeMap<SaId, Arc<str>>,
    waiting: Vec<(SaId, Arc<str>, oneshot::Receiver<Snapshot>)>,
    sums: BTreeMap<Arc<str>, Carried>,
}

impl Ledger {
    /// Follows a change to the SAs. Before one is removed the data path is asked what it carried: the order to give
    /// it first.
    pub(crate) fn note(&mut self, change: &SaChange) -> Option<Order> {
        match change {
            SaChange::Install(sa) => {
                self.owners.insert(sa.id, sa.label.connection.clone());
                None
            }
            SaChange::Remove(id) => {
                let owner = self.owners.remove(id)?;
                self.collect();
                if self.waiting.len() >= WAITING {
                    return None;
                }
                let (answer, asked) = oneshot::channel();
                self.waiting.push((*id, owner, asked));
                Some(Order::Snapshot(answer))
            }
            SaChange::Activate(_) | SaChange::Move { .. } => None,
        }
    }

    /// Takes the last words that have arrived.
    fn collect(&mut self) {
        let sums = &mut self.sums;
        self.waiting.retain_mut(|(id, owner, asked)| match asked.try_recv() {
            Ok(snapshot) => {
                if let Some(traffic) = snapshot.sas.get(id) {
                    sums.entry(owner.clone()).or_default().add(traffic);
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }

    /// Fills the sums into a status, and forgets those of connections that are not in it.
    pub(crate) fn fill(&mut self, status: &mut Status) {
        self.collect();
        self.sums.retain(|name, _| status.connections.iter().any(|connection| connection.name == **name));
        for connection in &mut status.connections {
            connection.carried = self.sums.get(connection.name.as_str()).copied().unwrap_or_default();
        }
    }
}
