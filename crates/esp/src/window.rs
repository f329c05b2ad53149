//! The replay window (RFC 4303 §3.4.3) and the inference of extended sequence numbers (App. A2).
//!
//! Numbers are 64 bits wide throughout; without ESN the high half stays 0. [`Window::check`] changes
//! nothing and comes before authentication, [`Window::accept`] after it.

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::{Dropped, Unusable};

/// The smallest window.
pub const MIN_SIZE: u32 = 64;
/// The largest window.
pub const MAX_SIZE: u32 = 8192;

/// Which of the latest sequence numbers were received. Several workers may share it: [`Window::accept`] takes each number
/// once, whoever offers it, and nobody waits.
///
/// It is a ring of words, each of which belongs to one block of 32 numbers at a time and says to which: the low half
/// has a bit for each number, the high half counts the block's rounds. A newer block takes the place of an older one by
/// the same step that notes its first number. The ring has a block more than the window needs, so a block that is pushed
/// out lies wholly behind the window (RFC 6479 clears blocks for the same end, which takes one owner).
#[derive(Debug)]
pub struct Window {
    size: u64,
    /// The highest number accepted; 0 before the first.
    top: AtomicU64,
    /// A power of two words.
    ring: Box<[AtomicU64]>,
}

/// Numbers of one block.
const BLOCK: u64 = 32;

impl Window {
    /// A window of `size` numbers, brought into [`MIN_SIZE`]..=[`MAX_SIZE`].
    pub fn new(size: u32) -> Self {
        let size = u64::from(size.clamp(MIN_SIZE, MAX_SIZE));
        let blocks = (size.div_ceil(BLOCK) + 1).next_power_of_two();
        Self { size, top: AtomicU64::new(0), ring: (0..blocks).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The highest number accepted; 0 before the first.
    pub fn top(&self) -> u64 {
        self.top.load(Relaxed)
    }

    /// The newest 64 places: the lowest bit is the highest number accepted.
    pub fn bitmap(&self) -> u64 {
        let top = self.top();
        let is_seen = |back: u64| top.checked_sub(back).is_some_and(|sequence| sequence > 0 && self.has(sequence));
        (0..64).filter(|&back| is_seen(back)).fold(0, |bits, back| bits | 1 << back)
    }

    /// Whether a packet with this number may be new.
    ///
    /// # Errors
    ///
    /// [`Dropped::OutsideWindow`] for a number left of the window and for 0, which no sender uses;
    /// [`Dropped::Replayed`] for one that was accepted before.
    pub fn check(&self, sequence: u64) -> Result<(), Dropped> {
        let top = self.top();
        if sequence == 0 || (sequence <= top && top - sequence >= self.size) {
            return Err(Dropped::OutsideWindow);
        }
        if sequence <= top && self.has(sequence) { Err(Dropped::Replayed) } else { Ok(()) }
    }

    /// Notes a number whose packet is authentic. Says whether it is the highest so far.
    ///
    /// # Errors
    ///
    /// As [`Window::check`]: another packet with this number may have come first.
    pub fn accept(&self, sequence: u64) -> Result<bool, Dropped> {
        self.check(sequence)?;
        self.leap(sequence);
        // Relaxed, here and elsewhere: the number alone is passed on, and each word is judged by its own order of changes.
        let is_new = |word| match place(word, self.round(sequence)) {
            Place::Here if word & bit(sequence) != 0 => Err(Dropped::Replayed),
            Place::Here => Ok(word | bit(sequence)),
            Place::Older => Ok(self.round(sequence) << BLOCK | bit(sequence)),
            Place::Newer => Err(Dropped::OutsideWindow),
        };
        let word = self.word(sequence);
        let mut seen = word.load(Relaxed);
        while let Err(changed) = word.compare_exchange_weak(seen, is_new(seen)?, Relaxed, Relaxed) {
            seen = changed;
        }
        // The top moves after the bit is set: a number at or below the top is never taken for new.
        Ok(sequence > self.top() && self.top.fetch_max(sequence, Relaxed) < sequence)
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
        let top = self.top();
        let (top_high, top_low) = (top >> 32, top as u32);
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

    /// Which numbers were accepted, for [`Self::restore`]: a ring of words of 64 numbers each, one word more than the
    /// window needs, and a power of two. It says nothing of how a window keeps them.
    pub(crate) fn seen(&self) -> Vec<u64> {
        let mut seen = vec![0; exported_words(self.size)];
        for sequence in self.in_sight().filter(|sequence| self.has(*sequence)) {
            seen[(sequence / 64) as usize % exported_words(self.size)] |= 1 << (sequence % 64);
        }
        seen
    }

    /// Stands where another window of the same size stood. Nobody else may use it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Unusable::BadStanding`]; nothing has changed then.
    pub(crate) fn restore(&self, top: u64, seen: &[u64]) -> Result<(), Unusable> {
        if seen.len() != exported_words(self.size) {
            return Err(Unusable::BadStanding);
        }
        self.ring.iter().for_each(|word| word.store(0, Relaxed));
        self.turn_to(top);
        self.top.store(top, Relaxed);
        for sequence in self.in_sight() {
            if seen[(sequence / 64) as usize % seen.len()] & 1 << (sequence % 64) != 0 {
                self.mark(sequence, bit(sequence));
            }
        }
        Ok(())
    }

    /// Takes everything up to `top` for received. It never goes back.
    pub(crate) fn forward(&self, top: u64) {
        self.leap(top);
        self.top.fetch_max(top, Relaxed);
        let first = top.saturating_sub(self.size) / BLOCK;
        for block in first..top / BLOCK {
            self.mark(block * BLOCK, u64::from(u32::MAX));
        }
        // Numbers of the last block that are still to come stay open.
        self.mark(top, u64::from(u32::MAX >> (BLOCK - 1 - top % BLOCK)));
    }

    /// The numbers that the window spans.
    fn in_sight(&self) -> RangeInclusive<u64> {
        let top = self.top();
        (top.saturating_sub(self.size - 1)).max(1)..=top
    }

    fn has(&self, sequence: u64) -> bool {
        let word = self.word(sequence).load(Relaxed);
        match place(word, self.round(sequence)) {
            Place::Here => word & bit(sequence) != 0,
            Place::Older => false,
            Place::Newer => true,
        }
    }

    /// Sets bits of the block that a number belongs to.
    fn mark(&self, sequence: u64, bits: u64) {
        let round = self.round(sequence);
        let marked = |word| match place(word, round) {
            Place::Here => Some(word | bits),
            Place::Older => Some(round << BLOCK | bits),
            Place::Newer => None,
        };
        // A newer block stays.
        let _ = self.word(sequence).fetch_update(Relaxed, Relaxed, marked);
    }

    /// Prepares for a number that lies so far ahead that the rounds in the words could not be told from later ones.
    fn leap(&self, sequence: u64) {
        if self.rounds(sequence) > self.rounds(self.top()) + u64::from(u32::MAX / 4) {
            self.turn_to(sequence);
        }
    }

    /// Gives every word to the last of its blocks that does not lie ahead of this number. What belongs to it stays.
    fn turn_to(&self, sequence: u64) {
        let last = sequence / BLOCK;
        for block in last.saturating_sub(self.ring.len() as u64 - 1)..=last {
            let round = self.round(block * BLOCK);
            let turned = |word: u64| (word >> BLOCK != round).then_some(round << BLOCK);
            let _ = self.word(block * BLOCK).fetch_update(Relaxed, Relaxed, turned);
        }
    }

    fn word(&self, sequence: u64) -> &AtomicU64 {
        &self.ring[(sequence / BLOCK) as usize & (self.ring.len() - 1)]
    }

    /// How often the ring came round before the block of this number, as far as a word holds it.
    fn round(&self, sequence: u64) -> u64 {
        self.rounds(sequence) & u64::from(u32::MAX)
    }

    /// How often the ring came round before the block of this number.
    fn rounds(&self, sequence: u64) -> u64 {
        // The ring has a power of two words: a shift instead of a division.
        (sequence / BLOCK) >> self.ring.len().trailing_zeros()
    }
}

/// What a word is to a block.
enum Place {
    /// It belongs to it.
    Here,
    /// It belongs to an older one.
    Older,
    /// It belongs to a newer one.
    Newer,
}

fn place(word: u64, round: u64) -> Place {
    // Both are the low halves of numbers that are close to each other.
    match (word >> BLOCK) as u32 {
        at if u64::from(at) == round => Place::Here,
        at if (round as u32).wrapping_sub(at) <= u32::MAX / 2 => Place::Older,
        _ => Place::Newer,
    }
}

const fn exported_words(size: u64) -> usize {
    (size.div_ceil(64) as usize + 1).next_power_of_two()
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % BLOCK)
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

    fn offer(window: &Window, sequence: u64) -> Result<(), Dropped> {
        window.check(sequence)?;
        window.accept(sequence).map(drop)
    }

    #[test]
    fn the_bitmap_begins_with_the_highest_number() {
        let window = Window::new(64);
        assert_eq!(window.bitmap(), 0);
        for sequence in [1, 2, 4] {
            window.accept(sequence).unwrap();
        }
        assert_eq!(window.bitmap(), 0b1101);
        window.accept(67).unwrap();
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
            let window = Window::new(size);
            let size = u64::from(size);
            assert_eq!(offer(&window, 10 * size), Ok(()));
            assert_eq!(offer(&window, 9 * size), Err(Dropped::OutsideWindow));
            assert_eq!(offer(&window, 9 * size + 1), Ok(()));
            assert_eq!(offer(&window, 9 * size + 1), Err(Dropped::Replayed));
        }
    }

    #[test]
    fn a_window_that_is_moved_forward_refuses_all_before_and_takes_all_behind_in_any_order() {
        for top in [1_u64, 62, 63, 64, 1_000, 0xffff_ffff, 0x1_0000_0003] {
            let window = Window::new(128);
            window.accept(1).unwrap();
            window.forward(top);
            assert!((1..=top).rev().take(300).all(|sequence| window.check(sequence).is_err()), "{top}");
            for sequence in (top + 1..top + 128).rev() {
                assert_eq!(offer(&window, sequence), Ok(()), "{sequence} after {top}");
            }
            window.forward(top + 1);
            assert_eq!(window.top(), top + 127, "never back");
            let window = Window::new(128);
            window.accept(top + 100).unwrap();
            window.forward(top + 50);
            assert!((top..=top + 50).all(|sequence| window.check(sequence).is_err()), "{top}");
            assert!((top + 51..top + 100).all(|sequence| window.check(sequence).is_ok()), "{top}");
        }
    }

    #[test]
    fn workers_that_share_a_window_take_each_number_once() {
        for size in [64, 1024] {
            let window = Window::new(size);
            // Each offers all numbers, in its own disorder, and stays near the others: what falls behind is refused.
            let taken: Vec<u64> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4_u64)
                    .map(|worker| {
                        let window = &window;
                        let offers = move |number: u64| number ^ ((worker * 5 + 1) % 8);
                        scope.spawn(move || {
                            let taken = (8..100_000).map(offers).filter(|number| offer(window, *number).is_ok());
                            taken.collect::<Vec<u64>>()
                        })
                    })
                    .collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            });
            let once: BTreeSet<u64> = taken.iter().copied().collect();
            assert_eq!(once.len(), taken.len(), "a number was taken twice");
            assert_eq!(window.top(), 99_999);
            assert!(once.len() > 90_000, "{} of 99,992 were taken by someone", once.len());
        }
    }

    #[test]
    fn a_window_that_goes_on_elsewhere_has_seen_the_same() {
        for top in [1_u64, 31, 32, 200, 5_000, u64::MAX / 2 + 77] {
            let (window, other) = (Window::new(128), Window::new(128));
            for sequence in (1..=top).rev().take(300).filter(|sequence| sequence % 3 != 0) {
                let _ = window.accept(sequence);
            }
            other.restore(window.top(), &window.seen()).unwrap();
            assert_eq!((other.top(), other.bitmap()), (window.top(), window.bitmap()));
            for sequence in (1..=top + 5).rev().take(300) {
                assert_eq!(other.check(sequence), window.check(sequence), "{sequence} at {top}");
            }
            assert_eq!(Window::new(64).restore(1, &window.seen()), Err(Unusable::BadStanding));
        }
    }

    #[test]
    fn the_high_half_follows_the_window_across_the_wrap() {
        let window = Window::new(64);
        assert_eq!(window.infer(1), Ok(1));
        assert_eq!(window.infer(u32::MAX), Err(Dropped::OutsideWindow), "before the first subspace");
        window.accept(0xffff_fff0).unwrap();
        assert_eq!(window.infer(0xffff_fff1), Ok(0xffff_fff1));
        assert_eq!(window.infer(5), Ok(0x1_0000_0005));
        window.accept(0x1_0000_0005).unwrap();
        assert_eq!(window.infer(0xffff_fff1), Ok(0xffff_fff1), "late, of the lower subspace");
        assert_eq!(window.infer(6), Ok(0x1_0000_0006));
        window.accept(0x1_0000_0100).unwrap();
        assert_eq!(window.infer(0xffff_fff1), Ok(0x1_ffff_fff1), "too late: taken for a far jump ahead");
    }

    #[test]
    fn there_is_nothing_behind_the_last_number() {
        let window = Window::new(64);
        window.accept(u64::MAX - 10).unwrap();
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
            let window = Window::new(size);
            let mut model = Model { size: u64::from(size), seen: BTreeSet::new() };
            let mut at = start;
            for (step, scale) in steps {
                // Mostly near the top, sometimes far off.
                let step = match scale { 0 => step * 1000, 1..4 => step, _ => step % 70 };
                let sequence = at.saturating_add_signed(step);
                let top = model.seen.last().copied().unwrap_or(0);
                prop_assert_eq!(offer(&window, sequence), model.offer(sequence));
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
            let window = Window::new(size);
            window.accept(top.max(1)).unwrap();
            let ahead = window.top().saturating_add(ahead.min((1 << 32) - u64::from(size)));
            prop_assert_eq!(window.infer(ahead as u32), Ok(ahead));
            let behind = window.top().saturating_sub(behind % u64::from(size)).max(1);
            prop_assert_eq!(window.infer(behind as u32), Ok(behind));
        }
    }
}
