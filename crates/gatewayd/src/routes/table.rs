//! Which routes the kernel should have, and what leads there: [`Table`], without a kernel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine};
use ipnet::IpNet;
use os::netlink::{Link, PROTOCOL, Place, Route, RouteKind, Write};

use super::event::{Counts, Event, Standing};
use super::inside::{Inside, Kept};
use super::path::{Path, Placed};
use super::places::Places;

/// Writes that are on their way at most.
const IN_FLIGHT: usize = 512;
/// How soon a route that somebody deleted is put back: many that go at once are put back at once.
const PUT_BACK: Duration = Duration::from_millis(50);
/// How soon it is put back, or tried, the second time, and at most: each time doubles it.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// After so much peace the first time counts as the first again.
const PEACE: Duration = Duration::from_secs(640);
/// How soon the kernel's routes are looked at when something is not as it should be, and how often in any case: the
/// kernel does not tell of every route that it drops.
const AUDIT_SOON: Duration = Duration::from_millis(100);
const AUDIT_AGAIN: Duration = Duration::from_secs(1);
const AUDIT_EVERY: Duration = Duration::from_secs(300);
/// Lists in a row that changed while they were read, after which one is taken as it is.
const RESTLESS: u32 = 3;

/// What the table wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Change a route, and tell [`Table::handle_written`] of it.
    Write(Write),
    /// List the routes: [`Table::begin_audit`], [`Table::handle_seen`] for each, [`Table::end_audit`].
    Audit,
    /// Tell a person.
    Event(Event),
}

/// What the kernel has at a place.
#[derive(Clone, Debug)]
enum Have<P> {
    /// Nothing of ours.
    No,
    /// Something of ours, or nothing.
    Unknown,
    /// This.
    Yes(P),
}

/// Why a wanted route is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    No,
    Refused(Arc<str>),
    InTheWay(Option<u8>),
}

/// What there is to know of a place. There may be a million: what few of them have stands in [`Ailment`].
#[derive(Debug)]
struct Entry {
    want: Option<Arc<Path>>,
    there: Option<Arc<Placed>>,
    /// Whether there is perhaps something else.
    is_unsure: bool,
    /// An earlier process left it, and nobody has wanted it yet.
    unclaimed: bool,
    /// Somebody else took it away.
    disturbed: bool,
    /// The last audit that saw it.
    seen: u16,
}

impl Entry {
    const fn new() -> Self {
        Self { want: None, there: None, is_unsure: false, unclaimed: false, disturbed: false, seen: 0 }
    }

    const fn have(&self) -> Have<&Arc<Placed>> {
        match (&self.there, self.is_unsure) {
            (_, true) => Have::Unknown,
            (None, false) => Have::No,
            (Some(placed), false) => Have::Yes(placed),
        }
    }

    fn set_have(&mut self, have: Have<Arc<Placed>>) {
        (self.there, self.is_unsure) = match have {
            Have::No => (None, false),
            Have::Unknown => (None, true),
            Have::Yes(placed) => (Some(placed), false),
        };
    }
}

/// What went wrong with a place lately.
#[derive(Debug, Default)]
struct Ailment {
    trouble: Trouble,
    /// How often something went wrong with it lately, and when it last did.
    tries: u8,
    tried_at: Instant,
}

impl Ailment {
    /// How long to wait now that something went wrong; `first` is for the first time in a while.
    fn back_off(&mut self, first: Duration, now: Instant) -> Duration {
        if self.is_over(now) {
            self.tries = 0;
        }
        let wait = match self.tries.checked_sub(1) {
            None => first,
            Some(before) => BACK_OFF.0.saturating_mul(1 << before.min(10)).min(BACK_OFF.1),
        };
        self.tries = self.tries.saturating_add(1);
        self.tried_at = now;
        wait
    }

    /// Whether nothing went wrong for so long that it is as if nothing ever had.
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_since(self.tried_at) >= PEACE
    }
}

/// What happened since the table last came to rest; told together.
#[derive(Debug, Default)]
struct News {
    put_back: (u64, Option<Place>),
    swept: (u64, Option<Place>),
    refused: BTreeMap<Arc<str>, (u64, Place)>,
    in_the_way: BTreeMap<u8, (u64, Place)>,
}

fn count((count, example): &mut (u64, Option<Place>), place: Place) {
    *count += 1;
    example.get_or_insert(place);
}

/// The routes that are wanted and those that the kernel has. A place takes some 50 bytes, whatever it leads to.
#[derive(Debug)]
pub struct Table {
    entries: Places<Entry>,
    /// Of the places with which something went wrong lately.
    ailing: BTreeMap<Place, Ailment>,
    /// What differs, or may.
    due: BTreeSet<Place>,
    /// What is looked at again later.
    later: BTreeSet<(Instant, Place)>,
    in_flight: BTreeMap<Place, Option<Arc<Placed>>>,
    acts: VecDeque<Act>,
    news: News,
    /// Devices by name: index, and whether it is up.
    devices: BTreeMap<Arc<str>, (u32, bool)>,
    /// Each path once, however many routes lead there, with what it is to the kernel now.
    paths: BTreeMap<Arc<Path>, Option<Arc<Placed>>>,
    placed: BTreeSet<Arc<Placed>>,
    /// What there was at the start is known.
    is_known: bool,
    audit: u16,
    audit_at: Option<Instant>,
    restless: u32,
    grace: Duration,
    grace_end: Option<Instant>,
    inside: Inside,
}

impl Table {
    /// A table that begins with a look at what there is: [`Act::Audit`] comes first. What an earlier process left
    /// stays for `grace` from then on, so that forwarding goes on until it is wanted again; then the rest is removed.
    pub fn new(grace: Duration) -> Self {
        Self {
            entries: Places::new(),
            ailing: BTreeMap::new(),
            due: BTreeSet::new(),
            later: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            acts: VecDeque::from([Act::Audit]),
            news: News::default(),
            devices: BTreeMap::new(),
            paths: BTreeMap::new(),
            placed: BTreeSet::new(),
            is_known: false,
            audit: 0,
            audit_at: None,
            restless: 0,
            grace,
            grace_end: None,
            inside: Inside::default(),
        }
    }

    /// Wants a route from now on, in place of what was wanted there.
    pub fn set(&mut self, place: Place, path: Path) {
        let path = self.intern(path);
        let entry = self.entries.get_or_insert_with(place, Entry::new);
        entry.unclaimed = false;
        if entry.want.as_ref() != Some(&path) {
            entry.want = Some(path);
            // What was wrong with the other path says nothing of this one.
            if let Some(ailment) = self.ailing.get_mut(&place) {
                ailment.tries = 0;
            }
        }
        self.due.insert(place);
    }

    /// Wants nothing there any more.
    pub fn remove(&mut self, place: Place) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.want = None;
            entry.unclaimed = false;
            self.due.insert(place);
        }
    }

    /// Packets for these networks of ours never take the default route while there was another way once, other than
    /// through these devices of tunnels.
    pub fn keep_inside(&mut self, local: Vec<IpNet>, tunnels: BTreeSet<Arc<str>>) {
        self.inside.keep(local, tunnels);
    }

    /// Wants nothing at all any more, not even what an earlier process left.
    pub fn remove_all(&mut self) {
        self.inside = Inside::default();
        for (place, entry) in self.entries.iter_mut() {
            entry.want = None;
            entry.unclaimed = false;
            self.due.insert(place);
        }
    }

    /// Everything is wanted that will be: what an earlier process left beside that is removed now.
    pub fn end_grace(&mut self) {
        self.grace = Duration::ZERO;
        if self.grace_end.take().is_some() {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        for (place, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.unclaimed) {
            entry.unclaimed = false;
            count(&mut self.news.swept, place);
            self.due.insert(place);
        }
    }

    /// Whether flows of the route that is wanted there stay on their ways.
    pub fn keeps_flows(&self, place: Place) -> bool {
        self.entries.get(place).and_then(|entry| entry.want.as_ref()).is_some_and(|path| path.keeps_flows)
    }

    /// How it stands with a route.
    pub fn standing(&self, place: Place) -> Standing {
        let Some(entry) = self.entries.get(place) else { return Standing::Absent };
        match (&entry.want, entry.have(), self.trouble(place)) {
            (None, ..) => Standing::Absent,
            (_, _, Trouble::InTheWay(who)) => Standing::InTheWay(*who),
            (_, _, Trouble::Refused(why)) => Standing::Refused(why.clone()),
            (Some(path), _, Trouble::No) if self.paths.get(path).is_some_and(Option::is_none) => Standing::Waits,
            (_, Have::Yes(_), Trouble::No) if !self.due.contains(&place) => Standing::InPlace,
            (_, Have::Yes(_) | Have::Unknown | Have::No, Trouble::No) => Standing::Coming,
        }
    }

    fn trouble(&self, place: Place) -> &Trouble {
        self.ailing.get(&place).map_or(&Trouble::No, |ailment| &ailment.trouble)
    }

    /// The trouble with a place is this, or over.
    fn set_trouble(&mut self, place: Place, trouble: Trouble) {
        match self.ailing.get_mut(&place) {
            Some(ailment) => ailment.trouble = trouble,
            None if trouble == Trouble::No => {}
            None => drop(self.ailing.insert(place, Ailment { trouble, ..Ailment::default() })),
        }
    }

    /// Nothing is wanted at a place, and nothing is there.
    fn forget(&mut self, place: Place) {
        self.entries.remove(place);
        self.ailing.remove(&place);
    }

    /// How many places differ from what is wanted, or may.
    pub fn unwritten(&self) -> usize {
        self.due.len() + self.in_flight.len()
    }

    /// How many routes stand how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (place, entry) in self.entries.iter() {
            counts.unclaimed += u64::from(entry.unclaimed);
            counts.wanted += u64::from(entry.want.is_some());
            match self.standing(place) {
                Standing::Absent | Standing::Coming => {}
                Standing::InPlace => counts.in_place += 1,
                Standing::Waits => counts.waiting += 1,
                Standing::InTheWay(_) => counts.in_the_way += 1,
                Standing::Refused(_) => counts.refused += 1,
            }
        }
        counts
    }

    /// Whether there is nothing to do but to wait.
    pub fn is_settled(&self) -> bool {
        self.is_known && self.due.is_empty() && self.in_flight.is_empty() && self.acts.is_empty()
    }

    /// A write was made, or refused with an error number and why.
    pub fn handle_written(&mut self, place: Place, outcome: Result<(), (i32, String)>, now: Instant) {
        let (Some(target), Some(entry)) = (self.in_flight.remove(&place), self.entries.get_mut(place)) else { return };
        match outcome {
            Ok(()) => {
                entry.set_have(target.map_or(Have::No, Have::Yes));
                if std::mem::take(&mut entry.disturbed) && entry.want.is_some() {
                    count(&mut self.news.put_back, place);
                }
                if entry.want.is_none() && matches!(entry.have(), Have::No) {
                    self.forget(place);
                } else {
                    self.set_trouble(place, Trouble::No);
                }
            }
            Err((EEXIST, _)) => {
                entry.set_have(Have::No);
                if !matches!(self.trouble(place), Trouble::InTheWay(_)) {
                    self.set_trouble(place, Trouble::InTheWay(None));
                    self.audit_within(AUDIT_SOON, now);
                }
                self.later.insert((now + BACK_OFF.1, place));
            }
            Err((_, why)) => {
                entry.set_have(Have::Unknown);
                let ailment = self.ailing.entry(place).or_default();
                let why: Arc<str> = why.into();
                let trouble = Trouble::Refused(why.clone());
                if ailment.trouble != trouble {
                    ailment.trouble = trouble;
                    self.news.refused.entry(why).or_insert((0, place)).0 += 1;
                }
                let wait = ailment.back_off(BACK_OFF.0, now);
                self.later.insert((now + wait, place));
            }
        }
    }

    /// What became of the writes that are on their way is not known.
    pub fn handle_lost(&mut self, now: Instant) {
        for place in std::mem::take(&mut self.in_flight).into_keys() {
            if let Some(entry) = self.entries.get_mut(place) {
                entry.set_have(Have::Unknown);
            }
            self.later.insert((now + AUDIT_AGAIN, place));
        }
        self.audit_within(AUDIT_AGAIN, now);
    }

    /// Changes were lost: everything is looked at again.
    pub fn handle_overrun(&mut self, now: Instant) {
        self.audit_within(AUDIT_SOON, now);
    }

    /// Somebody else added or changed a route.
    pub fn handle_route(&mut self, route: Route, protocol: u8, replaces: bool, now: Instant) {
        self.inside.note_route(&route, protocol);
        let place = route.place();
        let Some(entry) = self.entries.get_mut(place) else { return };
        if protocol == PROTOCOL {
            entry.set_have(Have::Yes(intern(&mut self.placed, Placed::of(route))));
            self.disturb(place, now);
        } else if replaces && !matches!(entry.have(), Have::No) {
            entry.set_have(Have::No);
            self.note_in_the_way(place, protocol);
            self.later.insert((now + BACK_OFF.1, place));
        }
    }

    /// Somebody else removed a route.
    pub fn handle_route_gone(&mut self, route: &Route, protocol: u8, now: Instant) {
        self.inside.note_route(route, protocol);
        let (place, leads_nowhere) = (route.place(), self.leads_nowhere(route));
        let Some(entry) = self.entries.get_mut(place) else { return };
        if protocol != PROTOCOL {
            if entry.want.is_some() && matches!(entry.have(), Have::No) {
                self.due.insert(place);
            }
        } else if leads_nowhere {
            // With a device, the kernel drops that one of several ways to an IPv6 prefix, and tells of it.
            entry.set_have(Have::Unknown);
            self.due.insert(place);
        } else if let Have::Yes(placed) = entry.have() {
            // One way of several may be left.
            let is_all = placed.is_met_by(&Placed::of(route.clone()));
            entry.set_have(if is_all { Have::No } else { Have::Unknown });
            self.disturb(place, now);
        }
    }

    /// Whether one of its devices is down or gone.
    fn leads_nowhere(&self, route: &Route) -> bool {
        let is_usable = |index: u32| self.devices.values().any(|device| *device == (index, true));
        route.hops.iter().filter_map(|hop| hop.device).any(|index| !is_usable(index))
    }

    /// Something happened to a route of ours that we did not do.
    fn disturb(&mut self, place: Place, now: Instant) {
        let entry = entry_of(&mut self.entries, place);
        if entry.want.is_some() {
            entry.disturbed = true;
            let wait = self.ailing.entry(place).or_default().back_off(PUT_BACK, now);
            self.later.insert((now + wait, place));
        } else {
            self.due.insert(place);
        }
    }

    fn note_in_the_way(&mut self, place: Place, protocol: u8) {
        if *self.trouble(place) != Trouble::InTheWay(Some(protocol)) {
            self.set_trouble(place, Trouble::InTheWay(Some(protocol)));
            self.news.in_the_way.entry(protocol).or_insert((0, place)).0 += 1;
        }
    }

    /// There is a device, or it changed.
    pub fn handle_link(&mut self, link: &Link) {
        let renamed = self.devices.iter().find(|(name, (index, _))| *index == link.index && ***name != *link.name);
        if let Some(old) = renamed.map(|(name, _)| name.clone()) {
            self.change_device(old, None);
        }
        self.change_device(link.name.as_str().into(), Some((link.index, link.up)));
    }

    /// A device is gone.
    pub fn handle_link_gone(&mut self, link: &Link) {
        if self.devices.get(link.name.as_str()).is_some_and(|(index, _)| *index == link.index) {
            self.change_device(link.name.as_str().into(), None);
        }
    }

    /// What devices there are: all of them, after changes were lost.
    pub fn handle_links(&mut self, links: &[Link]) {
        let names: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let gone: Vec<_> = self.devices.keys().filter(|name| !names.contains(&***name)).cloned().collect();
        gone.into_iter().for_each(|name| self.change_device(name, None));
        links.iter().for_each(|link| self.handle_link(link));
    }

    fn change_device(&mut self, name: Arc<str>, to: Option<(u32, bool)>) {
        let from = match to {
            Some(state) => self.devices.insert(name.clone(), state),
            None => self.devices.remove(&name),
        };
        if from == to {
            return;
        }
        let usable = |state: Option<(u32, bool)>| state.filter(|(_, up)| *up).map(|(index, _)| index);
        let (before, after) = (usable(from), usable(to));
        if before == after {
            return;
        }
        self.inside.note_change();
        for (path, placed) in &mut self.paths {
            if path.uses(&name) {
                *placed = resolve(&self.devices, &mut self.placed, path);
            }
        }
        let mut routes = 0;
        for (place, entry) in self.entries.iter_mut() {
            // The kernel drops what leads through a device that goes down, without a word; and of several ways the one.
            if let (Have::Yes(placed), Some(index)) = (entry.have(), before)
                && placed.uses(index)
            {
                entry.set_have(Have::Unknown);
                self.due.insert(place);
            }
            if entry.want.as_ref().is_some_and(|path| path.uses(&name)) {
                routes += 1;
                self.due.insert(place);
            }
        }
        if routes > 0 {
            let event = match after {
                Some(_) => Event::DeviceBack { device: name, routes },
                None => Event::DeviceGone { device: name, routes },
            };
            self.acts.push_back(Act::Event(event));
        }
        self.retry();
    }

    /// There is a new address: what was refused may be possible now.
    pub fn handle_address(&mut self) {
        self.retry();
    }

    /// An address is gone. The kernel drops the IPv4 routes that have it as their source, without a word.
    pub fn handle_address_gone(&mut self, ip: IpAddr, now: Instant) {
        self.inside.note_change();
        if self.placed.iter().any(|placed| placed.source() == Some(ip)) {
            self.audit_within(AUDIT_SOON, now);
        }
    }

    /// Tries again at once what the kernel refused.
    fn retry(&mut self) {
        let is_refused = |(_, place): &&(Instant, Place)| matches!(self.trouble(*place), Trouble::Refused(_));
        let again: Vec<_> = self.later.iter().filter(is_refused).copied().collect();
        for late in again {
            self.later.remove(&late);
            self.due.insert(late.1);
        }
    }

    fn audit_within(&mut self, wait: Duration, now: Instant) {
        let at = now + wait;
        self.audit_at = Some(self.audit_at.map_or(at, |known| known.min(at)));
    }

    /// Whether the list must also have what others made, to say who is in the way; those with our number suffice
    /// otherwise.
    pub fn must_see_others(&self) -> bool {
        self.inside.is_looking() || self.ailing.values().any(|ailment| ailment.trouble == Trouble::InTheWay(None))
    }

    /// A list of the kernel's routes begins.
    pub fn begin_audit(&mut self) {
        self.inside.begin();
        self.audit = self.audit.wrapping_add(1);
    }

    /// A route that is there, whoever made it.
    pub fn handle_seen(&mut self, route: Route, protocol: u8, now: Instant) {
        self.inside.see(&route, protocol);
        let place = route.place();
        if protocol != PROTOCOL {
            if *self.trouble(place) == Trouble::InTheWay(None) {
                self.note_in_the_way(place, protocol);
            }
            return;
        }
        if !self.is_known {
            let entry = self.entries.get_or_insert_with(place, Entry::new);
            entry.set_have(Have::Yes(intern(&mut self.placed, Placed::of(route))));
            (entry.unclaimed, entry.seen) = (entry.want.is_none(), self.audit);
            return;
        }
        // One that was never ours is not ours now: somebody borrows our number.
        let Some(entry) = self.entries.get_mut(place) else { return };
        entry.seen = self.audit;
        let found = Placed::of(route);
        match entry.have() {
            Have::Yes(placed) if placed.is_met_by(&found) => {}
            Have::Yes(_) => {
                entry.set_have(Have::Yes(intern(&mut self.placed, found)));
                self.disturb(place, now);
            }
            Have::Unknown | Have::No => {
                entry.set_have(Have::Yes(intern(&mut self.placed, found)));
                self.set_trouble(place, Trouble::No);
                self.due.insert(place);
            }
        }
    }

    /// The list ends. `consistent`: nothing changed while it was made.
    pub fn end_audit(&mut self, consistent: bool, now: Instant) {
        self.audit_at = Some(now + AUDIT_EVERY);
        if !consistent && self.restless < RESTLESS {
            // Something may be missing from it.
            self.restless += 1;
            self.audit_within(AUDIT_AGAIN, now);
            return;
        }
        self.restless = 0;
        if !self.is_known {
            self.is_known = true;
            let adopted = self.entries.values().filter(|entry| entry.unclaimed).count();
            if adopted > 0 {
                let routes = u64::try_from(adopted).unwrap_or(u64::MAX);
                self.acts.push_back(Act::Event(Event::Adopted { routes }));
            }
            self.grace_end = Some(now + self.grace);
        }
        self.note_missing(now);
        self.settle_inside();
        self.ailing.retain(|_, ailment| ailment.trouble != Trouble::No || !ailment.is_over(now));
        self.forget_paths();
    }

    fn settle_inside(&mut self) {
        let devices = &self.devices;
        let name = |index: u32| devices.iter().find(|(_, device)| device.0 == index).map(|(name, _)| name.clone());
        let Kept { added, removed, cut_off } = self.inside.end(name);
        added.into_iter().for_each(|place| self.set(place, Path::nowhere(RouteKind::Unreachable)));
        removed.into_iter().for_each(|place| self.remove(place));
        self.acts.extend(cut_off.map(|networks| Act::Event(Event::CutOff { networks })));
    }

    fn note_missing(&mut self, now: Instant) {
        let (audit, in_flight) = (self.audit, &self.in_flight);
        let is_missing = |(place, entry): &(Place, &Entry)| {
            entry.seen != audit && !matches!(entry.have(), Have::No) && !in_flight.contains_key(place)
        };
        let missing: Vec<_> = self.entries.iter().filter(is_missing).map(|(place, _)| place).collect();
        for place in missing {
            let entry = entry_of(&mut self.entries, place);
            let was_there = matches!(entry.have(), Have::Yes(_));
            entry.set_have(Have::No);
            if was_there {
                self.disturb(place, now);
            } else {
                self.due.insert(place);
            }
        }
    }

    /// Forgets paths to which no route leads any more.
    fn forget_paths(&mut self) {
        self.paths.retain(|path, _| Arc::strong_count(path) > 1);
        self.placed.retain(|placed| Arc::strong_count(placed) > 1);
    }

    fn intern(&mut self, path: Path) -> Arc<Path> {
        if let Some((known, _)) = self.paths.get_key_value(&path) {
            return known.clone();
        }
        let path = Arc::new(path);
        let placed = resolve(&self.devices, &mut self.placed, &path);
        self.paths.insert(path.clone(), placed);
        path
    }

    /// The write that a place needs now.
    fn decide(&mut self, place: Place) -> Option<Write> {
        let entry = self.entries.get_mut(place)?;
        let target = entry.want.as_ref().and_then(|path| self.paths.get(path).cloned().flatten());
        if target.is_none()
            && let Some(ailment) = self.ailing.get_mut(&place)
        {
            ailment.trouble = Trouble::No;
        }
        let write = match (&target, entry.have()) {
            (None, Have::No) => {
                if entry.want.is_none() {
                    self.forget(place);
                }
                return None;
            }
            (None, Have::Yes(_) | Have::Unknown) if entry.unclaimed => return None,
            (None, Have::Yes(_) | Have::Unknown) => Write::Remove(place),
            (Some(target), Have::Yes(there)) if target.is_met_by(there) => {
                entry.disturbed = false;
                return None;
            }
            (Some(target), Have::Yes(_) | Have::Unknown) => Write::Replace(target.at(place)),
            (Some(target), Have::No) => Write::Add(target.at(place)),
        };
        self.in_flight.insert(place, target);
        Some(write)
    }

    /// Tells of what happened, once it has come to rest.
    fn tell(&mut self) {
        let News { put_back, swept, refused, in_the_way } = std::mem::take(&mut self.news);
        let mut events = Vec::new();
        if let (routes, Some(example)) = put_back {
            events.push(Event::PutBack { routes, example });
        }
        if let (routes, Some(example)) = swept {
            events.push(Event::Swept { routes, example });
        }
        let refused = refused.into_iter().map(|(why, (routes, example))| Event::Refused { routes, example, why });
        events.extend(refused);
        let in_the_way = in_the_way.into_iter();
        events.extend(in_the_way.map(|(protocol, (routes, example))| Event::InTheWay { routes, example, protocol }));
        self.acts.extend(events.into_iter().map(Act::Event));
    }
}

/// `EEXIST` of Linux: something is in the place already.
const EEXIST: i32 = 17;

fn intern(known: &mut BTreeSet<Arc<Placed>>, placed: Placed) -> Arc<Placed> {
    if let Some(known) = known.get(&placed) {
        return known.clone();
    }
    let placed = Arc::new(placed);
    known.insert(placed.clone());
    placed
}

fn resolve(
    devices: &BTreeMap<Arc<str>, (u32, bool)>,
    placed: &mut BTreeSet<Arc<Placed>>,
    path: &Path,
) -> Option<Arc<Placed>> {
    let index = |name: &str| devices.get(name).filter(|(_, up)| *up).map(|(index, _)| *index);
    path.resolve(index).map(|found| intern(placed, found))
}

fn entry_of(entries: &mut Places<Entry>, place: Place) -> &mut Entry {
    entries.get_or_insert_with(place, Entry::new)
}

impl Machine for Table {
    type Output = Act;

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(late) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&late);
            self.due.insert(late.1);
        }
        if self.grace_end.is_some_and(|end| end <= now) {
            self.grace_end = None;
            self.grace = Duration::ZERO;
            self.sweep();
        }
        if self.inside.take_stale() {
            self.audit_within(AUDIT_SOON, now);
        }
        if self.audit_at.is_some_and(|at| at <= now) {
            self.audit_at = None;
            self.acts.push_back(Act::Audit);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let later = self.later.first().map(|(at, _)| Deadline { at: *at, why: "a route is put back or tried again" });
        let grace = self.grace_end.map(|at| Deadline { at, why: "what an earlier process left is removed" });
        let audit = self.audit_at.map(|at| Deadline { at, why: "the kernel's routes are looked at" });
        Deadline::earliest(Deadline::earliest(later, grace), audit)
    }

    fn poll_output(&mut self) -> Option<Act> {
        if let Some(act) = self.acts.pop_front() {
            return Some(act);
        }
        // Nothing is decided before it is known what there is.
        while self.is_known && self.in_flight.len() < IN_FLIGHT {
            let in_flight = &self.in_flight;
            // What is on its way is decided on again when it has arrived.
            let Some(place) = self.due.iter().find(|place| !in_flight.contains_key(place)).copied() else { break };
            self.due.remove(&place);
            if let Some(write) = self.decide(place) {
                return Some(Act::Write(write));
            }
        }
        if self.due.is_empty() && self.in_flight.is_empty() {
            self.tell();
        }
        self.acts.pop_front()
    }
}
