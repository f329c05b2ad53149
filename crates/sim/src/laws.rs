//! The laws that every [`Machine`] keeps, checked on a script of inputs.

use std::fmt::Debug;
use std::time::Duration;

use base::{Instant, Machine, Random};

/// One input of a script: a moment, and what happens then.
pub type Input<'a, M> = (Duration, &'a dyn Fn(&mut M, Instant));

/// Checks all laws on machines that `make` makes, under `script` (in order of time), until `end`:
///
/// - the same inputs give the same outputs;
/// - waking early does nothing;
/// - waking late makes progress: what was due is not due any more.
///
/// # Panics
/// With the law that was broken.
pub fn check<M: Machine>(make: impl Fn() -> M, script: &[Input<'_, M>], end: Duration)
where
    M::Output: Debug,
{
    let punctual = run(&make, script, end, 0, Duration::ZERO);
    assert_eq!(punctual, run(&make, script, end, 0, Duration::ZERO), "the same inputs gave other outputs");
    for seed in 1..=8 {
        assert_eq!(punctual, run(&make, script, end, seed, Duration::ZERO), "waking early did something");
    }
    run(&make, script, end, 0, Duration::from_secs(3));
}

/// Outputs with the moments at which they came. A `seed` other than 0 wakes the machine early at random moments;
/// `late` wakes it late.
fn run<M: Machine>(
    make: &impl Fn() -> M,
    script: &[Input<'_, M>],
    end: Duration,
    seed: u64,
    late: Duration,
) -> Vec<(Instant, String)>
where
    M::Output: Debug,
{
    let (mut machine, mut outputs, mut random) = (make(), Vec::new(), Random::for_test(seed));
    let (mut now, mut script, end) = (Instant::ZERO, script.iter().peekable(), Instant::ZERO + end);
    let mut wakes = 0u32;
    loop {
        outputs.extend(std::iter::from_fn(|| machine.poll_output()).map(|output| (now, format!("{output:?}"))));
        let due = machine.poll_timeout().map(|deadline| deadline.at + late);
        let input = script.peek().map(|(at, _)| Instant::ZERO + *at);
        let Some(next) = [due, input].into_iter().flatten().min().filter(|next| *next <= end) else {
            return outputs;
        };
        if seed > 0 && next > now {
            let early = now + Duration::from_micros(random.below((next - now).as_micros() as u64));
            machine.handle_timeout(early);
            outputs.extend(std::iter::from_fn(|| machine.poll_output()).map(|output| (early, format!("{output:?}"))));
        }
        now = now.max(next);
        if input.is_some_and(|at| at <= now) {
            if let Some((_, act)) = script.next() {
                act(&mut machine, now);
            }
        } else {
            machine.handle_timeout(now);
            let again = machine.poll_timeout();
            assert!(again.is_none_or(|deadline| deadline.at > now), "woken late, still due: {again:?} at {now:?}");
            wakes += 1;
            assert!(wakes < 1_000_000, "woken a million times: {again:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Deadline;
    use std::collections::VecDeque;

    /// Beeps a second after each press; with `eager`, on any waking: that breaks a law.
    #[derive(Default)]
    struct Beeper {
        due: Option<Instant>,
        out: VecDeque<&'static str>,
        eager: bool,
    }

    impl Machine for Beeper {
        type Output = &'static str;

        fn handle_timeout(&mut self, now: Instant) {
            if self.due.is_some_and(|due| due <= now || self.eager) {
                self.due = None;
                self.out.push_back("beep");
            }
        }

        fn poll_timeout(&self) -> Option<Deadline> {
            self.due.map(|at| Deadline { at, why: "beep" })
        }

        fn poll_output(&mut self) -> Option<Self::Output> {
            self.out.pop_front()
        }
    }

    fn press(machine: &mut Beeper, now: Instant) {
        machine.due = Some(now + Duration::from_secs(1));
    }

    #[test]
    fn a_lawful_machine_passes() {
        check(
            Beeper::default,
            &[(Duration::from_secs(1), &press), (Duration::from_secs(5), &press)],
            Duration::from_secs(9),
        );
    }

    #[test]
    #[should_panic(expected = "waking early did something")]
    fn a_machine_that_acts_when_woken_early_is_found() {
        let eager = || Beeper { eager: true, ..Beeper::default() };
        check(eager, &[(Duration::from_secs(1), &press)], Duration::from_secs(9));
    }
}
