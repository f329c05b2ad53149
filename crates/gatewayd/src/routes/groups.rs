//! Which routes have their ways in a group of next hops, so that flows stay on theirs: [`Groups`].
//!
//! A route gets its group with its second way and keeps it for as long as it leads anywhere: only a group that changes keeps
//! flows. Where the kernel refuses, a route has its ways in itself, as it has without all this.

use std::collections::BTreeMap;
use std::io;

use os::netlink::{Bulk, GroupId, PROTOCOL, Place, Route, Write};
use os::sysctl;
use tracing::debug;

/// The groups of our routes.
#[derive(Debug)]
pub(super) struct Groups {
    of: BTreeMap<Place, GroupId>,
    /// The one to give next; `None` where there are none to give.
    free: Option<GroupId>,
}

impl Groups {
    /// None yet. Where the kernel shows routes without the ways of their groups, there will be none: what is there
    /// could not be told from what is wanted.
    pub(super) fn open() -> Self {
        let shows_ways = sysctl::read("net/ipv4/nexthop_compat_mode").is_ok_and(|mode| mode == "1");
        Self { of: BTreeMap::new(), free: shows_ways.then_some(GroupId::FIRST) }
    }

    /// A route that is there: an earlier process, which this one follows, may have given it a group.
    pub(super) fn see(&mut self, route: &Route, protocol: u8) {
        if protocol == PROTOCOL
            && let Some(id) = route.group
        {
            self.of.insert(route.place(), id);
            self.free = self.free.max(id.next());
        }
    }

    /// Gives the route that is to be written its group, where it has one or should have.
    ///
    /// # Errors
    /// When the kernel's answers were lost.
    pub(super) fn prepare(&mut self, write: &mut Write, keeps_flows: bool, bulk: &mut Bulk) -> io::Result<()> {
        let place = write.place();
        let (Write::Add(route) | Write::Replace(route)) = write else { return Ok(()) };
        let known = self.of.get(&place).copied();
        if !keeps_flows || route.hops.is_empty() || (route.hops.len() == 1 && known.is_none()) {
            return Ok(());
        }
        let Some(id) = known.or(self.free) else { return Ok(()) };
        match bulk.set_group(id, place.destination.addr().is_ipv6(), &route.hops)? {
            Ok(true) => {
                route.group = Some(id);
                if self.of.insert(place, id).is_none() {
                    self.free = id.next();
                }
            }
            Ok(false) => {}
            Err(refusal) => debug!("flows to {place} are spread without a group: {refusal}"),
        }
        Ok(())
    }

    /// Removes the groups of those places that were written to and do not lead there any more.
    ///
    /// # Errors
    /// When the kernel's answers were lost.
    pub(super) fn remove_unused(&mut self, written: &[Write], bulk: &mut Bulk) -> io::Result<()> {
        for write in written {
            let has_group = match write {
                Write::Add(route) | Write::Replace(route) => route.group.is_some(),
                Write::Remove(_) => false,
            };
            if !has_group && let Some(id) = self.of.remove(&write.place()) {
                bulk.remove_group(id)?;
            }
        }
        Ok(())
    }
}
