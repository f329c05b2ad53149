//! The routes that BGP of the active member learnt. The one that stands by has them in its kernel, too: packets that come to
//! it are refused like those of any tunnel that it holds, and when it takes over they go on before BGP has come back, as
//! after the restart of one gateway (RFC 4724).

use std::collections::{BTreeMap, BTreeSet};

use base::Instant;
use gateway::{Route, RouteChange};
use ipnet::IpNet;

use crate::world::GRACE;

/// Routes that the other member is told of at most: a full table it learns itself when it takes over.
const MOST: usize = 100_000;

/// Where a route is: table, destination and metric.
type Key = (Option<u32>, IpNet, u32);

fn key(route: &Route) -> Key {
    (route.table, route.destination, route.metric)
}

/// The change as a member makes it that stands by: the source address may be a shared one, which it does not have.
pub(crate) fn held(change: RouteChange) -> RouteChange {
    match change {
        RouteChange::Add(route) => RouteChange::Add(Route { source: None, ..route }),
        other @ (RouteChange::Remove(_) | RouteChange::AddRule(_) | RouteChange::RemoveRule(_)) => other,
    }
}

/// The routes, and whether BGP of this gateway learnt them.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    routes: BTreeMap<Key, (Route, bool)>,
    /// When those go that it did not learn.
    released_at: Option<Instant>,
}

impl Learnt {
    /// A change that BGP makes: here, if `is_own`, or at the other member.
    pub(crate) fn note(&mut self, change: &RouteChange, is_own: bool) {
        match change {
            RouteChange::Add(route) if self.routes.len() < MOST || self.routes.contains_key(&key(route)) => {
                self.routes.insert(key(route), (route.clone(), is_own));
            }
            RouteChange::Remove(route) => drop(self.routes.remove(&key(route))),
            RouteChange::Add(_) | RouteChange::AddRule(_) | RouteChange::RemoveRule(_) => {}
        }
    }

    /// The other member tells everything anew: what goes because it is not among it.
    pub(crate) fn begin_anew(&mut self, told: &[RouteChange]) -> Vec<RouteChange> {
        let stays: BTreeSet<Key> = told
            .iter()
            .filter_map(|change| match change {
                RouteChange::Add(route) => Some(key(route)),
                RouteChange::Remove(_) | RouteChange::AddRule(_) | RouteChange::RemoveRule(_) => None,
            })
            .collect();
        let gone = self.routes.extract_if(.., |key, _| !stays.contains(key));
        gone.map(|(_, (route, _))| RouteChange::Remove(route)).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = RouteChange> {
        self.routes.values().map(|(route, _)| RouteChange::Add(route.clone()))
    }

    /// This member takes over: BGP has some time to learn them here.
    pub(crate) fn take_over(&mut self, now: Instant) {
        self.routes.values_mut().for_each(|(_, is_own)| *is_own = false);
        self.released_at = (!self.routes.is_empty()).then(|| now + GRACE);
    }

    /// It stands by, and keeps them until it is told others: as they are here then.
    pub(crate) fn stand_by(&mut self) -> Vec<RouteChange> {
        self.released_at = None;
        self.all().map(held).collect()
    }

    /// When [`Self::release`] is due.
    pub(crate) const fn released_at(&self) -> Option<Instant> {
        self.released_at
    }

    /// What BGP has not learnt here goes, if it is time.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<RouteChange> {
        if self.released_at.take_if(|at| *at <= now).is_none() {
            return Vec::new();
        }
        let gone = self.routes.extract_if(.., |_, (_, is_own)| !*is_own);
        gone.map(|(_, (route, _))| RouteChange::Remove(route)).collect()
    }
}

#[cfg(test)]
mod tests {
    use gateway::Via;

    use super::*;

    fn route(destination: &str) -> Route {
        let via = Via::device("tunnel1".into());
        Route {
            destination: destination.parse().unwrap(),
            via,
            table: None,
            metric: 20,
            source: Some([10, 0, 0, 1].into()),
        }
    }

    fn add(destination: &str) -> RouteChange {
        RouteChange::Add(route(destination))
    }

    fn remove(destination: &str) -> RouteChange {
        RouteChange::Remove(route(destination))
    }

    #[test]
    fn what_is_told_anew_takes_the_place_of_all_that_was() {
        let mut learnt = Learnt::default();
        [add("10.1.0.0/16"), add("10.2.0.0/16")].iter().for_each(|change| learnt.note(change, false));
        assert_eq!(learnt.begin_anew(&[add("10.2.0.0/16"), add("10.3.0.0/16")]), [remove("10.1.0.0/16")]);
        learnt.note(&add("10.3.0.0/16"), false);
        assert_eq!(learnt.all().collect::<Vec<_>>(), [add("10.2.0.0/16"), add("10.3.0.0/16")]);
    }

    #[test]
    fn after_a_takeover_what_bgp_does_not_learn_again_goes_with_the_grace() {
        let start = Instant::ZERO;
        let mut learnt = Learnt::default();
        let all = [add("10.1.0.0/16"), add("10.2.0.0/16"), add("10.3.0.0/16")];
        all.iter().for_each(|change| learnt.note(change, false));
        assert_eq!((learnt.released_at(), learnt.release(start + GRACE)), (None, vec![]), "it stands by");
        assert_eq!(learnt.stand_by(), all.clone().map(held));
        learnt.take_over(start);
        learnt.note(&all[1], true);
        learnt.note(&remove("10.3.0.0/16"), true);
        assert_eq!(learnt.release(start), []);
        assert_eq!(learnt.release(start + GRACE), [remove("10.1.0.0/16")]);
        assert_eq!(learnt.all().collect::<Vec<_>>(), [add("10.2.0.0/16")]);
        assert_eq!(learnt.released_at(), None, "once");
    }

    #[test]
    fn a_full_table_is_not_told() {
        let mut learnt = Learnt::default();
        for n in 0..=u32::try_from(MOST).unwrap() {
            let net = IpNet::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap();
            learnt.note(&RouteChange::Add(Route { destination: net, ..route("10.0.0.0/8") }), true);
        }
        assert_eq!(learnt.all().count(), MOST);
    }
}
