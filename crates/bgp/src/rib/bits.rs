//! A set of small numbers as bits.

/// A set of numbers; its memory follows the greatest.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// No word before this one has a bit: a few changes among a hundred thousand prefixes are found at once.
    first: usize,
    count: usize,
}

impl Bits {
    pub(super) fn contains(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, number: u32) {
        let place = number as usize / 64;
        if place >= self.words.len() {
            self.words.resize(place + 1, 0);
        }
        self.first = if self.count == 0 { place } else { self.first.min(place) };
        let bit = 1 << (number % 64);
        self.count += usize::from(self.words[place] & bit == 0);
        self.words[place] |= bit;
    }

    pub(super) fn remove(&mut self, number: u32) {
        if self.contains(number) {
            self.words[number as usize / 64] &= !(1 << (number % 64));
            self.count -= 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The numbers, from the lowest to the highest.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.words.get(self.first..).unwrap_or_default();
        (self.first as u32..).zip(words).flat_map(|(place, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(place * 64 + bit)
            })
        })
    }

    /// Adds the numbers of another set.
    pub(super) fn extend(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.first = if self.count == 0 { other.first } else { self.first.min(other.first) };
        let (mine, theirs) = (self.words.iter_mut().skip(other.first), other.words.iter().skip(other.first));
        for (mine, theirs) in mine.zip(theirs) {
            self.count += (theirs & !*mine).count_ones() as usize;
            *mine |= theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0u32..300), 0..200),
            more in proptest::collection::btree_set(0u32..400, 0..20),
        ) {
            let (mut bits, mut model) = (Bits::default(), BTreeSet::new());
            for (put, number) in steps {
                if put {
                    bits.insert(number);
                    model.insert(number);
                } else {
                    bits.remove(number);
                    model.remove(&number);
                }
                prop_assert_eq!(bits.contains(number), put);
            }
            let mut other = Bits::default();
            more.iter().for_each(|&number| other.insert(number));
            bits.extend(&other);
            model.extend(more);
            prop_assert_eq!(bits.count(), model.len());
            prop_assert_eq!(bits.is_empty(), model.is_empty());
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
