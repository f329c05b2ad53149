//! The replay window (RFC 4303 §3.4.3) and the inference of extended sequence numbers (App. A2).
//!
//! Numbers are 64 bits wide throughout; without ESN the high half stays 0. [`Window::check`] changes
//! nothing and comes before authentication, [`Window::accept`] after it.

use crate::{Dropped, Unusable};

/// The smallest window.
pub const MIN_SIZE: u32 = 64;
/// The largest window.
pub const MAX_SIZE: u32 = 8192;

/// Which of the latest sequence numbers were received: a ring of bits. Moving on clears whole words
/// that fall out behind, so the ring has one word more than the window needs (RFC 6479).
#[derive(Clone, Debug)]
pub struct Window {
    size: u64,
    /// The highest number accepted; 0 before the first.
    top: u64,
    /// A power of two words.
    ring: Box<[u64]>,
}

impl Window {
    /// A window of `size` numbers, brought into [`MIN_SIZE`]..=[`MAX_SIZE`].
    pub fn new(size: u32) -> Self {
        let size = size.clamp(MIN_SIZE, MAX_SIZE);
        let words = (size.div_ceil(64) as usize + 1).next_power_of_two();
        Self { size: u64::from(size), top: 0, ring: vec![0; words].into() }
    }

    /// The highest number accepted; 0 before the first.
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// The newest 64 places: the lowest bit is the highest number accepted.
    pub fn bitmap(&self) -> u64 {
        let is_seen = |back: u64| {
            let sequence = self.top.checked_sub(back).filter(|&sequence| sequence > 0);
            sequence.is_some_and(|sequence| self.ring[self.word(sequence)] & bit(sequence) != 0)
        };
        (0..64).filter(|&back| is_seen(back)).fold(0, |bits, back| bits | 1 << back)
    }

    /// Whether a packet with this number may be new.
    ///
    /// # Errors
    ///
    /// [`Dropped::OutsideWindow`] for a number left of the window and for 0, which no sender uses;
    /// [`Dropped::Replayed`] for one that was accepted before.
    pub fn check(&self, sequence: u64) -> Result<(), Dropped> {
        if sequence == 0 || (sequence <= self.top && self.top - sequence >= self.size) {
            return Err(Dropped::OutsideWindow);
        }
        if sequence <= self.top && self.ring[self.word(sequence)] & bit(sequence) != 0 {
            return Err(Dropped::Replayed);
        }
        Ok(())
    }

    /// Notes a number that was checked and whose packet is authentic. Says whether it is the
    /// highest so far.
    pub fn accept(&mut self, sequence: u64) -> bool {
        let is_newest = sequence > self.top;
        if is_newest {
            let passed = (sequence / 64 - self.top / 64).min(self.ring.len() as u64);
            for block in 0..passed {
                let word = self.word(sequence - block * 64);
                self.ring[word] = 0;
            }
            self.top = sequence;
        }
        let word = self.word(sequence);
        self.ring[word] |= bit(sequence);
        is_newest
    }

    /// The whole number of which a packet carries the `low` half, when ESN is used: the one that
    /// lies in or closest ahead of the window.
    ///
    /// # Errors
    ///
    /// [`Dropped::OutsideWindow`] when that number would lie before 0 or behind the last one.
    // Deliberate: no search for a resynchronized high half after 2^32 lost packets (App. A3); the
    // SA is renegotiated long before.
    pub fn infer(&self, low: u32) -> Result<u64, Dropped> {
        let (top_high, top_low) = (self.top >> 32, self.top as u32);
        // RFC 4303 App. A2.2: the bottom of the window, in 32 bits.
        let bottom = top_low.wrapping_sub(self.size as u32 - 1);
        let high = if u64::from(top_low) >= self.size - 1 {
            // Case A: the window lies within one subspace.
            if low >= bottom { Some(top_high) } else { top_high.checked_add(1) }
        } else if low >= bottom {
            // Case B: the window spans two subspaces, and this is in the lower.
            top_high.checked_sub(1)
        } else {
            Some(top_high)
        };
        match high {
            Some(high) if high <= u64::from(u32::MAX) => Ok(high << 32 | u64::from(low)),
            Some(_) | None => Err(Dropped::OutsideWindow),
        }
    }

    /// Which numbers were accepted, for [`Self::restore`]: the ring.
    pub(crate) fn seen(&self) -> &[u64] {
        &self.ring
    }

    /// Stands where another window of the same size stood.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`]; nothing has changed then.
    pub(crate) fn restore(&mut self, top: u64, seen: &[u64]) -> Result<(), Unusable> {
        if seen.len() != self.ring.len() {
            return Err(Unusable::BadStanding);
        }
        self.top = top;
        self.ring.copy_from_slice(seen);
        Ok(())
    }

    /// Takes everything up to `top` for received. It never goes back.
    pub(crate) fn forward(&mut self, top: u64) {
        if top <= self.top {
            return;
        }
        self.top = top;
        self.ring.fill(u64::MAX);
        // Numbers of the same word that are still to come.
        let word = self.word(top);
        self.ring[word] = u64::MAX >> (63 - top % 64);
    }

    fn word(&self, sequence: u64) -> usize {
        (sequence / 64) as usize & (self.ring.len() - 1)
    }
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The window as RFC 4303 describes it, without any bits.
    struct Model {
        size: u64,
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn offer(&mut self, sequence: u64) -> Result<(), Dropped> {
            let top = self.seen.last().copied().unwrap_or(0);
            if sequence == 0 || sequence + self.size <= top {
                return Err(Dropped::OutsideWindow);
            }
            self.seen.insert(sequence).then_some(()).ok_or(Dropped::Replayed)
        }
    }

    fn offer(window: &mut Window, sequence: u64) -> Result<(), Dropped> {
        window.check(sequence)?;
        window.accept(sequence);
        Ok(())
    }

    #[test]
    fn the_bitmap_begins_with_the_highest_number() {
        let mut window = Window::new(64);
        assert_eq!(window.bitmap(), 0);
        for sequence in [1, 2, 4] {
            window.accept(sequence);
        }
        assert_eq!(window.bitmap(), 0b1101);
        window.accept(67);
        assert_eq!(window.bitmap(), 1 | 1 << 63, "4 is the last in sight");
    }

    #[test]
    fn sizes_are_brought_into_range() {
        assert_eq!(Window::new(0).size, 64);
        assert_eq!(Window::new(1_000).size, 1_000);
        assert_eq!(Window::new(100_000).size, 8192);
    }

    #[test]
    fn the_oldest_number_in_the_window_passes_and_the_one_before_does_not() {
        for size in [64, 100, 1024, 8192] {
            let mut window = Window::new(size);
            let size = u64::from(size);
            assert_eq!(offer(&mut window, 10 * size), Ok(()));
            assert_eq!(offer(&mut window, 9 * size), Err(Dropped::OutsideWindow));
            assert_eq!(offer(&mut window, 9 * size + 1), Ok(()));
            assert_eq!(offer(&mut window, 9 * size + 1), Err(Dropped::Replayed));
        }
    }

    #[test]
    fn a_window_that_is_moved_forward_refuses_all_before_and_takes_all_behind_in_any_order() {
        for top in [1_u64, 62, 63, 64, 1_000, 0xffff_ffff, 0x1_0000_0003] {
            let mut window = Window::new(128);
            window.accept(1);
            window.forward(top);
            assert!((1..=top).rev().take(300).all(|sequence| window.check(sequence).is_err()), "{top}");
            for sequence in (top + 1..top + 128).rev() {
                assert_eq!(offer(&mut window, sequence), Ok(()), "{sequence} after {top}");
            }
            window.forward(top);
            assert_eq!(window.top(), top + 127, "never back");
        }
    }

    #[test]
    fn the_high_half_follows_the_window_across_the_wrap() {
        let mut window = Window::new(64);
        assert_eq!(window.infer(1), Ok(1));
        assert_eq!(window.infer(u32::MAX), Err(Dropped::OutsideWindow), "before the first subspace");
        window.accept(0xffff_fff0);
        assert_eq!(window.infer(0xffff_fff1), Ok(0xffff_fff1));
        assert_eq!(window.infer(5), Ok(0x1_0000_0005));
        window.accept(0x1_0000_0005);
        assert_eq!(window.infer(0xffff_fff1), Ok(0xffff_fff1), "late, of the lower subspace");
        assert_eq!(window.infer(6), Ok(0x1_0000_0006));
        window.accept(0x1_0000_0100);
        assert_eq!(window.infer(0xffff_fff1), Ok(0x1_ffff_fff1), "too late: taken for a far jump ahead");
    }

    #[test]
    fn there_is_nothing_behind_the_last_number() {
        let mut window = Window::new(64);
        window.accept(u64::MAX - 10);
        assert_eq!(window.infer(u32::MAX), Ok(u64::MAX));
        assert_eq!(window.infer(3), Err(Dropped::OutsideWindow));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_model(
            size in prop::sample::select(vec![64u32, 65, 127, 128, 1000, 1024, 8192]),
            start in prop::sample::select(vec![0u64, 60, 0xffff_ff00, u64::MAX / 2]),
            steps in prop::collection::vec((-9000i64..9000, 0u8..10), 1..400),
        ) {
            let mut window = Window::new(size);
            let mut model = Model { size: u64::from(size), seen: BTreeSet::new() };
            let mut at = start;
            for (step, scale) in steps {
                // Mostly near the top, sometimes far off.
                let step = match scale { 0 => step * 1000, 1..4 => step, _ => step % 70 };
                let sequence = at.saturating_add_signed(step);
                let top = model.seen.last().copied().unwrap_or(0);
                prop_assert_eq!(offer(&mut window, sequence), model.offer(sequence));
                prop_assert_eq!(window.top(), model.seen.last().copied().unwrap_or(0));
                at = top.max(sequence);
            }
        }

        #[test]
        fn every_number_in_or_ahead_of_the_window_is_inferred(
            size in 64u32..8192,
            top in any::<u64>(),
            ahead in prop_oneof![0u64..10_000, 0u64..0xffff_0000],
            behind in 0u64..8192,
        ) {
            let mut window = Window::new(size);
            window.accept(top.max(1));
            let ahead = window.top().saturating_add(ahead.min((1 << 32) - u64::from(size)));
            prop_assert_eq!(window.infer(ahead as u32), Ok(ahead));
            let behind = window.top().saturating_sub(behind % u64::from(size)).max(1);
            prop_assert_eq!(window.infer(behind as u32), Ok(behind));
        }
    }
}
