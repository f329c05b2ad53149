//! The table in virtual time, against a kernel of a few lines.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Instant, Machine};
use ipnet::IpNet;
use os::netlink::{Link, NextHop, PROTOCOL, Place, Route, RouteKind, Write};

use super::{Act, Counts, Event, Hop, Path, Standing, Table};

const EEXIST: i32 = 17;
const ENETUNREACH: i32 = 101;
const BIRD: u8 = 12;

/// A kernel that has one route a place.
#[derive(Default)]
struct Kernel {
    routes: BTreeMap<Place, (Route, u8)>,
    /// Places that it refuses, whatever is to be there.
    refuses: Vec<Place>,
    writes: Vec<String>,
    events: Vec<Event>,
    audits: u32,
}

fn place(destination: &str) -> Place {
    Place::new(254, destination.parse::<IpNet>().unwrap(), 20)
}

fn link(name: &str, index: u32, up: bool) -> Link {
    Link { index, name: name.to_owned(), up, mtu: 1_500, tx_queue_len: 500, hardware: None }
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn route(destination: &str, device: u32) -> Route {
    Route { metric: 20, ..Route::through(device, destination.parse().unwrap()) }
}

impl Kernel {
    /// With routes of an earlier process.
    fn with(left: &[Route]) -> Self {
        Self {
            routes: left.iter().map(|route| (route.place(), (route.clone(), PROTOCOL))).collect(),
            ..Self::default()
        }
    }

    /// Does everything that the table wants done now.
    fn serve(&mut self, table: &mut Table, now: Instant) {
        table.handle_timeout(now);
        while let Some(act) = table.poll_output() {
            match act {
                Act::Event(event) => self.events.push(event),
                Act::Audit => {
                    self.audits += 1;
                    table.begin_audit();
                    for (route, protocol) in self.routes.values() {
                        table.handle_seen(route.clone(), *protocol, now);
                    }
                    table.end_audit(true, now);
                }
                Act::Write(write) => {
                    let (place, outcome) = (write.place(), self.write(&write));
                    table.handle_written(place, outcome.map_err(|errno| (errno, format!("error {errno}"))), now);
                }
            }
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), i32> {
        self.writes.push(write.to_string());
        let place = write.place();
        match write {
            Write::Add(_) if self.routes.contains_key(&place) => return Err(EEXIST),
            Write::Add(_) | Write::Replace(_) if self.refuses.contains(&place) => return Err(ENETUNREACH),
            Write::Add(route) | Write::Replace(route) => drop(self.routes.insert(place, (route.clone(), PROTOCOL))),
            Write::Remove(_) if self.routes.get(&place).is_some_and(|(_, who)| *who != PROTOCOL) => {}
            Write::Remove(_) => drop(self.routes.remove(&place)),
        }
        Ok(())
    }

    /// Serves it from deadline to deadline, until `end`.
    fn serve_until(&mut self, table: &mut Table, end: Instant) {
        self.serve(table, Instant::ZERO);
        for _ in 0..10_000 {
            let Some(due) = table.poll_timeout().map(|deadline| deadline.at).filter(|due| *due <= end) else { break };
            self.serve(table, due);
        }
        self.serve(table, end);
    }

    fn written(&mut self) -> Vec<String> {
        std::mem::take(&mut self.writes)
    }

    fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// A table that has had its first look, with two devices.
fn ready(kernel: &mut Kernel, grace: Duration) -> Table {
    let mut table = Table::new(grace);
    table.handle_links(&[link("a", 1, true), link("b", 2, true)]);
    kernel.serve(&mut table, Instant::ZERO);
    table
}

fn both() -> Path {
    Path::over(vec![Hop::through("a"), Hop::through("b")])
}

#[test]
fn what_is_wanted_is_added_changed_and_removed_by_one_write_each() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let there = place("10.1.0.0/16");
    table.set(there, both());
    table.set(there, both());
    assert_eq!(table.standing(there), Standing::Coming);
    kernel.serve(&mut table, at(0.1));
    assert_eq!(
        kernel.written(),
        ["add the route 10.1.0.0/16 in table 254 with metric 20 through device 1 through device 2"]
    );
    assert_eq!(table.standing(there), Standing::InPlace);
    table.set(there, both());
    kernel.serve(&mut table, at(0.2));
    assert_eq!(kernel.written(), [""; 0], "the same once more");
    table.set(there, Path::nowhere(RouteKind::Unreachable));
    kernel.serve(&mut table, at(0.3));
    assert_eq!(kernel.written(), ["set the route 10.1.0.0/16 in table 254 with metric 20"]);
    table.remove(there);
    kernel.serve(&mut table, at(0.4));
    assert_eq!(kernel.written(), ["remove the route 10.1.0.0/16 in table 254 with metric 20"]);
    assert_eq!((table.standing(there), kernel.told()), (Standing::Absent, vec![]));
    // What was never wanted, or only in passing, costs nothing.
    table.remove(there);
    table.set(there, both());
    table.remove(there);
    kernel.serve(&mut table, at(0.5));
    assert_eq!(kernel.written(), [""; 0]);
}

#[test]
fn what_an_earlier_process_left_stays_if_it_is_wanted_and_goes_after_the_grace_if_not() {
    let left = [route("10.1.0.0/16", 1), route("10.2.0.0/16", 1), route("10.3.0.0/16", 1)];
    let mut kernel = Kernel::with(&left);
    let mut table = ready(&mut kernel, Duration::from_secs(120));
    assert_eq!(kernel.told(), [Event::Adopted { routes: 3 }]);
    table.set(place("10.1.0.0/16"), Path::through("a"));
    table.set(place("10.2.0.0/16"), Path::through("b"));
    kernel.serve_until(&mut table, at(119.9));
    assert_eq!(kernel.written(), ["set the route 10.2.0.0/16 in table 254 with metric 20 through device 2"]);
    assert_eq!(table.counts(), Counts { wanted: 2, in_place: 2, unclaimed: 1, ..Counts::default() });
    kernel.serve_until(&mut table, at(120.0));
    assert_eq!(kernel.written(), ["remove the route 10.3.0.0/16 in table 254 with metric 20"]);
    assert_eq!(kernel.told(), [Event::Swept { routes: 1, example: place("10.3.0.0/16") }]);

    // The caller may know sooner, and before the first look.
    for early in [false, true] {
        let mut kernel = Kernel::with(&left);
        let mut table = Table::new(Duration::from_secs(120));
        if early {
            table.end_grace();
        }
        kernel.serve_until(&mut table, at(0.0));
        assert_eq!(kernel.routes.len(), 3 * usize::from(!early));
        table.end_grace();
        kernel.serve(&mut table, at(1.0));
        assert!(kernel.routes.is_empty());
    }
}

#[test]
fn nothing_is_written_before_it_is_known_what_there_is() {
    let mut table = Table::new(Duration::ZERO);
    table.handle_links(&[link("a", 1, true)]);
    table.set(place("10.1.0.0/16"), Path::through("a"));
    assert_eq!(table.poll_output(), Some(Act::Audit));
    assert_eq!(table.poll_output(), None);
    assert!(!table.is_settled());
    // A list that changed while it was made does not count, for three times.
    for _ in 0..3 {
        table.begin_audit();
        table.end_audit(false, at(0.0));
        assert_eq!(table.poll_output(), None);
    }
    table.begin_audit();
    table.end_audit(false, at(3.0));
    assert!(matches!(table.poll_output(), Some(Act::Write(_))));
}

#[test]
fn a_route_that_somebody_deletes_is_put_back_ever_slower() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let there = route("10.1.0.0/16", 1);
    table.set(there.place(), Path::through("a"));
    kernel.serve(&mut table, at(0.0));
    let mut now = at(1.0);
    let mut waits = Vec::new();
    for _ in 0..10 {
        kernel.routes.clear();
        kernel.told();
        table.handle_route_gone(&there, PROTOCOL, now);
        let due = table.poll_timeout().unwrap().at;
        waits.push((due - now).as_secs_f64());
        kernel.serve(&mut table, due);
        assert!(kernel.routes.contains_key(&there.place()));
        assert_eq!(kernel.told(), [Event::PutBack { routes: 1, example: there.place() }]);
        now = due;
    }
    assert_eq!(waits, [0.05, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]);
    // Eleven minutes of peace forget it.
    now += Duration::from_secs(660);
    kernel.serve_until(&mut table, now);
    table.handle_route_gone(&there, PROTOCOL, now);
    assert_eq!(table.poll_timeout().unwrap().at - now, Duration::from_millis(50));
}

#[test]
fn what_the_kernel_drops_without_a_word_is_found_and_put_back() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let there = place("10.1.0.0/16");
    table.set(there, Path { source: Some("192.0.2.1".parse().unwrap()), ..Path::through("a") });
    kernel.serve(&mut table, at(0.0));
    // An address that is nobody's source does not matter; one that is, does.
    table.handle_address_gone("192.0.2.2".parse().unwrap(), at(10.0));
    assert_eq!(table.poll_timeout().unwrap().at, at(300.0), "the next look in any case");
    kernel.routes.clear();
    kernel.refuses.push(there);
    table.handle_address_gone("192.0.2.1".parse().unwrap(), at(10.0));
    kernel.serve_until(&mut table, at(11.0));
    assert_eq!(table.standing(there), Standing::Refused("error 101".into()));
    kernel.refuses.clear();
    table.handle_address();
    kernel.serve(&mut table, at(11.1));
    assert_eq!(table.standing(there), Standing::InPlace);
    // After an overrun, and without any sign at all.
    kernel.routes.clear();
    table.handle_overrun(at(20.0));
    kernel.serve_until(&mut table, at(25.0));
    assert!(kernel.routes.contains_key(&there));
    kernel.routes.clear();
    kernel.serve_until(&mut table, at(400.0));
    assert!(kernel.routes.contains_key(&there));
}

#[test]
fn a_route_of_somebody_else_stays_and_ours_comes_when_it_goes() {
    let mut kernel = Kernel::default();
    let theirs = route("10.1.0.0/16", 2);
    kernel.routes.insert(theirs.place(), (theirs.clone(), BIRD));
    let mut table = ready(&mut kernel, Duration::ZERO);
    table.set(theirs.place(), Path::through("a"));
    kernel.serve(&mut table, at(1.0));
    assert_eq!(table.standing(theirs.place()), Standing::InTheWay(None));
    assert!(table.must_see_others());
    kernel.serve_until(&mut table, at(2.0));
    let in_the_way = Event::InTheWay { routes: 1, example: theirs.place(), protocol: BIRD };
    assert_eq!(kernel.told(), std::slice::from_ref(&in_the_way));
    assert!(in_the_way.to_string().contains("BIRD"), "{in_the_way}");
    assert_eq!(table.standing(theirs.place()), Standing::InTheWay(Some(BIRD)));
    assert!(!table.must_see_others());
    // It is tried again without another word.
    kernel.serve_until(&mut table, at(200.0));
    assert_eq!((kernel.told(), kernel.written().len()), (vec![], 4));
    assert_eq!(kernel.routes.get(&theirs.place()), Some(&(theirs.clone(), BIRD)));
    kernel.routes.clear();
    table.handle_route_gone(&theirs, BIRD, at(200.0));
    kernel.serve(&mut table, at(200.0));
    assert_eq!(table.standing(theirs.place()), Standing::InPlace);

    // Somebody takes the place of ours: the same.
    kernel.routes.insert(theirs.place(), (theirs.clone(), BIRD));
    table.handle_route(theirs.clone(), BIRD, true, at(201.0));
    kernel.serve(&mut table, at(201.0));
    assert_eq!((table.standing(theirs.place()), kernel.told()), (Standing::InTheWay(Some(BIRD)), vec![in_the_way]));
    table.remove(theirs.place());
    kernel.serve_until(&mut table, at(400.0));
    assert_eq!(kernel.routes.len(), 1, "theirs is not removed with ours");
}

#[test]
fn a_route_goes_by_the_devices_that_are_there() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let (one, two) = (place("10.1.0.0/16"), place("10.2.0.0/16"));
    table.set(one, Path::through("a"));
    table.set(two, both());
    kernel.serve(&mut table, at(0.0));
    kernel.written();
    // The kernel drops the route with one way, and keeps the other with a way that is dead.
    kernel.routes.remove(&one);
    table.handle_link_gone(&link("a", 1, true));
    kernel.serve(&mut table, at(1.0));
    assert_eq!(kernel.told(), [Event::DeviceGone { device: "a".into(), routes: 2 }]);
    assert_eq!((table.standing(one), table.standing(two)), (Standing::Waits, Standing::InPlace));
    let hops = |kernel: &Kernel, place| kernel.routes.get(&place).map(|(route, _)| route.hops.clone());
    assert_eq!(hops(&kernel, two), Some(vec![NextHop::through(2)]));
    // It comes back with another index, down at first.
    table.handle_link(&link("a", 7, false));
    kernel.serve(&mut table, at(2.0));
    assert_eq!((hops(&kernel, one), kernel.told()), (None, vec![]));
    table.handle_link(&link("a", 7, true));
    kernel.serve(&mut table, at(2.0));
    assert_eq!(kernel.told(), [Event::DeviceBack { device: "a".into(), routes: 2 }]);
    assert_eq!(hops(&kernel, one), Some(vec![NextHop::through(7)]));
    assert_eq!(hops(&kernel, two), Some(vec![NextHop::through(2), NextHop::through(7)]));
    // A change that is none, and a new name.
    kernel.written();
    table.handle_link(&Link { mtu: 1_400, ..link("a", 7, true) });
    kernel.serve(&mut table, at(3.0));
    assert_eq!(kernel.written(), [""; 0]);
    table.handle_link(&link("c", 7, true));
    kernel.serve(&mut table, at(4.0));
    assert_eq!(table.standing(one), Standing::Waits);
    table.handle_links(&[link("a", 7, true), link("b", 2, true)]);
    kernel.serve(&mut table, at(5.0));
    assert_eq!(table.counts(), Counts { wanted: 2, in_place: 2, ..Counts::default() });
}

#[test]
fn one_way_of_several_that_goes_is_put_back_at_once_when_its_device_went() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let there = place("fd10::/32");
    table.set(there, both());
    kernel.serve(&mut table, at(0.0));
    kernel.written();
    let one_way = route("fd10::/32", 1);
    // `ip route del` of one way: the other is there still, so this is no addition.
    table.handle_route_gone(&one_way, PROTOCOL, at(1.0));
    kernel.serve(&mut table, at(1.0));
    assert_eq!(kernel.written(), [""; 0]);
    kernel.serve(&mut table, at(1.1));
    assert_eq!(
        kernel.written(),
        ["set the route fd10::/32 in table 254 with metric 20 through device 1 through device 2"]
    );
    assert_eq!(kernel.told(), [Event::PutBack { routes: 1, example: there }]);
    // The kernel itself, with the device: nobody is to blame.
    table.handle_link(&link("a", 1, false));
    table.handle_route_gone(&one_way, PROTOCOL, at(2.0));
    kernel.serve(&mut table, at(2.0));
    assert_eq!(kernel.written(), ["set the route fd10::/32 in table 254 with metric 20 through device 2"]);
    assert_eq!(kernel.told(), [Event::DeviceGone { device: "a".into(), routes: 1 }]);
}

#[test]
fn what_is_refused_is_told_once_and_tried_again() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let all: Vec<_> = (0..1_000).map(|n| place(&format!("10.{}.{}.0/24", n / 256, n % 256))).collect();
    kernel.refuses.clone_from(&all);
    for place in &all {
        table.set(*place, Path::through("a"));
    }
    kernel.serve_until(&mut table, at(100.0));
    let why = "error 101".into();
    assert_eq!(kernel.told(), [Event::Refused { routes: 1_000, example: place("10.0.0.0/24"), why }]);
    assert_eq!(kernel.writes.len(), 8_000, "at 0, 1, 2, 4, 8, 16, 32 and 64 s");
    kernel.refuses.clear();
    kernel.serve_until(&mut table, at(200.0));
    assert_eq!(table.counts(), Counts { wanted: 1_000, in_place: 1_000, ..Counts::default() });
    table.remove_all();
    kernel.serve(&mut table, at(201.0));
    assert!(kernel.routes.is_empty() && table.is_settled());
}

#[test]
fn when_the_answers_are_lost_the_kernel_is_asked_what_it_has() {
    let mut kernel = Kernel::default();
    let mut table = ready(&mut kernel, Duration::ZERO);
    let (made, not_made) = (place("10.1.0.0/16"), place("10.2.0.0/16"));
    table.set(made, Path::through("a"));
    table.set(not_made, Path::through("a"));
    let writes: Vec<_> = std::iter::from_fn(|| table.poll_output()).collect();
    assert_eq!(writes.len(), 2);
    kernel.routes.insert(made, (route("10.1.0.0/16", 1), PROTOCOL));
    table.handle_lost(at(1.0));
    kernel.serve_until(&mut table, at(5.0));
    assert_eq!(table.counts(), Counts { wanted: 2, in_place: 2, ..Counts::default() });
    assert_eq!(kernel.routes.len(), 2);
}

#[test]
fn the_laws_of_machines_hold() {
    let there = || route("10.1.0.0/16", 1);
    let answer = |table: &mut Table, now| table.handle_written(there().place(), Ok(()), now);
    let refuse = |table: &mut Table, now| table.handle_written(there().place(), Err((EEXIST, "taken".into())), now);
    sim::laws::check(
        || Table::new(Duration::from_secs(5)),
        &[
            (Duration::from_millis(100), &|table: &mut Table, now| {
                table.handle_link(&link("a", 1, true));
                table.begin_audit();
                table.handle_seen(route("10.9.0.0/16", 1), PROTOCOL, now);
                table.end_audit(true, now);
            }),
            (Duration::from_millis(200), &|table, _| table.set(there().place(), Path::through("a"))),
            (Duration::from_millis(300), &answer),
            (Duration::from_millis(400), &|table, now| table.handle_route_gone(&there(), PROTOCOL, now)),
            (Duration::from_secs(1), &refuse),
            (Duration::from_secs(2), &|table, _| table.remove_all()),
        ],
        Duration::from_secs(1_000),
    );
}

#[test]
fn a_network_of_ours_whose_device_goes_is_refused_and_not_left_to_the_default_route() {
    let mut kernel = Kernel::default();
    let lan = route("10.1.2.0/24", 2);
    for other in [&route("0.0.0.0/0", 1), &lan] {
        kernel.routes.insert(other.place(), (other.clone(), BIRD));
    }
    let mut table = ready(&mut kernel, Duration::ZERO);
    table.keep_inside(vec!["10.1.0.0/16".parse().unwrap()], Default::default());
    kernel.serve_until(&mut table, at(0.2));
    assert_eq!(kernel.written(), ["add the route 10.1.2.0/24 in table 254 with metric 4294967293"]);
    assert_eq!(kernel.told(), []);
    // The kernel drops the route with the device, and does not tell of it.
    kernel.routes.remove(&lan.place());
    table.handle_link(&link("b", 2, false));
    kernel.serve_until(&mut table, at(0.4));
    assert_eq!(kernel.told(), [Event::CutOff { networks: vec![lan.destination] }]);
    kernel.routes.insert(lan.place(), (lan.clone(), BIRD));
    table.handle_route(lan, BIRD, false, at(0.5));
    kernel.serve_until(&mut table, at(0.7));
    assert_eq!(kernel.told(), [Event::CutOff { networks: vec![] }]);
    table.remove_all();
    kernel.serve_until(&mut table, at(0.9));
    assert_eq!(kernel.written(), ["remove the route 10.1.2.0/24 in table 254 with metric 4294967293"]);
}
