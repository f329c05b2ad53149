//! Two members in virtual time: who is active, whatever the paths between them do.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Instant, Machine as _, Random};
use cluster::{Heartbeat, Member, Options, Output, Role};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn options(member: u8) -> Options {
    Options { member, preference: 100, preempt: false, interval: 100 * MS, dead_after: 400 * MS }
}

struct World {
    now: Instant,
    members: [Option<Member>; 2],
    options: [Options; 2],
    events: Vec<(Duration, usize, Output)>,
    under_way: BTreeMap<(Instant, u64), (usize, Heartbeat)>,
    /// Whether what each sends arrives.
    passes: [bool; 2],
    loss_percent: u64,
    recorded: Vec<(usize, Heartbeat)>,
    random: Random,
    boots: u64,
}

impl World {
    fn new(options: [Options; 2]) -> Self {
        Self {
            now: Instant::ZERO,
            members: [None, None],
            options,
            events: Vec::new(),
            under_way: BTreeMap::new(),
            passes: [true; 2],
            loss_percent: 0,
            recorded: Vec::new(),
            random: Random::for_test(1),
            boots: 0,
        }
    }

    fn boot(&mut self, who: usize) {
        self.boots += 1;
        self.members[who] = Some(Member::new(self.options[who], 1_000 * self.boots, self.now));
    }

    /// Both, one after the other, until one is active and the other stands by.
    fn up(options: [Options; 2]) -> Self {
        let mut world = Self::new(options);
        world.boot(0);
        world.run_for(2 * SECOND);
        world.boot(1);
        world.run_for(2 * SECOND);
        assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Standby)]);
        world.events.clear();
        world
    }

    fn roles(&self) -> [Option<Role>; 2] {
        [0, 1].map(|who: usize| self.members[who].as_ref().map(Member::role))
    }

    fn act(&mut self, who: usize, act: impl FnOnce(&mut Member, Instant)) {
        let now = self.now;
        let Some(member) = &mut self.members[who] else { return };
        act(member, now);
        while let Some(output) = member.poll_output() {
            if let Output::Send(said) = output {
                self.recorded.push((1 - who, said));
                let is_lost = !self.passes[who] || self.random.below(100) < self.loss_percent;
                if !is_lost {
                    self.under_way.insert((now + MS, self.recorded.len() as u64), (1 - who, said));
                }
            } else {
                self.events.push((now.saturating_since(Instant::ZERO), who, output));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wakes =
                [0, 1].into_iter().filter_map(|who: usize| Some((self.members[who].as_ref()?.poll_timeout()?.at, who)));
            let wake = wakes.min();
            let arrival = self.under_way.keys().next().copied();
            let next = [wake.map(|(at, _)| at), arrival.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if let Some(key) = arrival.filter(|(at, _)| *at <= self.now) {
                let (to, said) = self.under_way.remove(&key).unwrap();
                self.act(to, |member, now| member.handle_heartbeat(said, now));
            } else if let Some((_, who)) = wake {
                self.act(who, Member::handle_timeout);
            }
        }
        self.now = end;
    }

    fn took_over(&self, who: usize) -> Option<Duration> {
        let is_it = |event: &&(Duration, usize, Output)| event.1 == who && matches!(event.2, Output::TakeOver { .. });
        self.events.iter().find(is_it).map(|(at, ..)| *at)
    }

    fn active(&self) -> usize {
        self.roles().iter().filter(|role| **role == Some(Role::Active)).count()
    }
}

#[test]
fn an_active_member_that_dies_is_succeeded_within_the_silence_and_stands_by_when_it_comes_back() {
    let mut world = World::up([options(0), options(1)]);
    let died = world.now.saturating_since(Instant::ZERO);
    world.members[0] = None;
    world.run_for(SECOND);
    let after = world.took_over(1).unwrap() - died;
    assert!(after >= 300 * MS && after <= 401 * MS, "{after:?}");
    world.boot(0);
    world.run_for(3 * SECOND);
    assert_eq!(world.roles(), [Some(Role::Standby), Some(Role::Active)], "no preemption where none is asked for");
    world.members[1] = None;
    world.run_for(SECOND);
    assert_eq!(world.roles()[0], Some(Role::Active), "and back");
}

#[test]
fn of_two_that_start_at_once_the_preferred_one_is_active() {
    for apart in 0..1_500 {
        for (preference, expected) in [(100, 0), (200, 1)] {
            let mut world = World::new([options(0), Options { preference, ..options(1) }]);
            world.boot(0);
            world.run_for(apart * MS);
            world.boot(1);
            world.run_for(3 * SECOND);
            assert_eq!(world.active(), 1, "{apart} ms apart");
            if apart < 400 {
                assert_eq!(world.roles()[expected], Some(Role::Active), "{apart} ms apart, {preference}");
            }
        }
    }
}

#[test]
fn a_member_alone_waits_for_the_other_and_then_goes_on_alone() {
    let mut world = World::new([options(0), options(1)]);
    world.boot(1);
    world.run_for(1_199 * MS);
    assert_eq!(world.roles()[1], Some(Role::Starting));
    world.run_for(MS);
    assert_eq!(world.roles()[1], Some(Role::Active));
}

// The path is cut both ways, or one way: both are active until they hear each other again, then the one that took over.
#[test]
fn who_took_over_during_a_split_stays_active_when_it_ends() {
    for cut in [[false, false], [false, true], [true, false]] {
        let mut world = World::up([options(0), options(1)]);
        world.passes = cut;
        world.run_for(5 * SECOND);
        world.passes = [true; 2];
        world.run_for(SECOND);
        assert_eq!(world.active(), 1, "{cut:?}");
        // Where the active one was heard all the time, nothing happened.
        let expected = if cut[0] { Role::Standby } else { Role::Active };
        assert_eq!(world.roles()[1], Some(expected), "{cut:?}");
        let terms: Vec<u64> = world.members.iter().flatten().map(Member::term).collect();
        assert_eq!(terms[0], terms[1], "{cut:?}");
    }
}

#[test]
fn a_third_of_all_heartbeats_may_be_lost() {
    let mut world = World::up([options(0), Options { dead_after: 800 * MS, ..options(1) }]);
    world.loss_percent = 20;
    world.run_for(60 * SECOND);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Standby)]);
    assert_eq!(world.events, []);
}

#[test]
fn what_was_recorded_keeps_nobody_alive_and_deposes_nobody() {
    let mut world = World::up([options(0), options(1)]);
    // An earlier life of the cluster, in which the other one took over.
    world.members[0] = None;
    world.run_for(SECOND);
    world.boot(0);
    world.run_for(SECOND);
    world.members[1] = None;
    world.run_for(SECOND);
    world.boot(1);
    world.run_for(SECOND);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Standby)]);
    world.events.clear();
    let recorded = world.recorded.clone();
    for chunk in recorded.chunks(20) {
        for (to, said) in chunk {
            world.act(*to, |member, now| member.handle_heartbeat(*said, now));
        }
        world.run_for(100 * MS);
    }
    assert_eq!(world.events, [], "nothing happens");
    world.members[0] = None;
    for (to, said) in recorded.iter().filter(|(to, _)| *to == 1) {
        world.act(*to, |member, now| member.handle_heartbeat(*said, now));
        world.run_for(10 * MS);
    }
    assert!(world.took_over(1).is_some());
}

#[test]
fn a_place_is_changed_when_that_is_asked_for_and_a_preferred_member_asks() {
    let mut world = World::up([options(0), Options { preference: 200, preempt: true, ..options(1) }]);
    world.act(1, |member, now| member.note_in_step(true, now));
    world.run_for(29 * SECOND);
    assert_eq!(world.events, []);
    world.run_for(2 * SECOND);
    assert_eq!(
        world.events.iter().map(|(_, who, event)| (*who, event.clone())).collect::<Vec<_>>(),
        [(1, Output::AskForPlace)]
    );
    world.act(1, Member::take_place);
    world.run_for(100 * MS);
    assert_eq!(world.roles(), [Some(Role::Standby), Some(Role::Active)]);
    world.act(1, Member::take_place);
    assert_eq!(world.roles(), [Some(Role::Standby), Some(Role::Active)], "only who stands by takes a place");
}

#[test]
fn two_with_the_same_number_do_not_hear_each_other() {
    let mut world = World::new([options(1), options(1)]);
    world.boot(0);
    world.boot(1);
    world.run_for(3 * SECOND);
    assert!(world.members.iter().flatten().all(|member| member.partner().is_none()));
}

#[test]
fn it_keeps_the_laws_of_machines() {
    let heard = |term: u64, role| {
        move |member: &mut Member, now: Instant| {
            let counter = now.as_micros();
            member.handle_heartbeat(Heartbeat { role, member: 1, preference: 1, boot: 9, echo: 7, counter, term }, now);
        }
    };
    let (active, standby) = (heard(5, Role::Active), heard(3, Role::Standby));
    sim::laws::check(
        || Member::new(options(0), 7, Instant::ZERO),
        &[(300 * MS, &active), (500 * MS, &active), (700 * MS, &active), (2 * SECOND, &standby), (3 * SECOND, &active)],
        5 * SECOND,
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Kill(usize),
    Boot(usize),
    Paths([bool; 2]),
    Wait(u16),
}

proptest! {
    #[test]
    fn whatever_happens_terms_are_never_shared_and_in_peace_one_is_active(
        steps in prop::collection::vec(prop_oneof![
            (0..2_usize).prop_map(Step::Kill),
            (0..2_usize).prop_map(Step::Boot),
            any::<[bool; 2]>().prop_map(Step::Paths),
            (0..3_000_u16).prop_map(Step::Wait),
        ], 0..40),
    ) {
        let mut world = World::new([options(0), options(1)]);
        for step in steps {
            match step {
                Step::Kill(who) => world.members[who] = None,
                Step::Boot(who) if world.members[who].is_none() => world.boot(who),
                Step::Boot(_) => {}
                Step::Paths(passes) => world.passes = passes,
                Step::Wait(ms) => world.run_for(u32::from(ms) * MS),
            }
            let active: Vec<&Member> = world.members.iter().flatten().filter(|m| m.role() == Role::Active).collect();
            if let [a, b] = active[..] {
                prop_assert_ne!(a.term(), b.term());
            }
        }
        world.passes = [true; 2];
        for who in [0, 1] {
            if world.members[who].is_none() {
                world.boot(who);
            }
        }
        world.run_for(4 * SECOND);
        prop_assert_eq!(world.active(), 1);
        prop_assert!(world.roles().contains(&Some(Role::Standby)));
    }
}
