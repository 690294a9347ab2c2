//! DocumentNumbers of a segment that are still to be read.

use std::{ops::Range, vec::IntoIter};

use roaring::RoaringBitmap;

/// DocumentNumbers of a segment, ascending. Mostly they are all of a range, which then is not written out.
#[derive(Debug, Clone)]
pub(crate) enum DocumentNumbers {
    /// All in this range.
    Range(Range<u32>),
    /// These.
    List(IntoIter<u32>),
}

impl DocumentNumbers {
    /// Those of a bitmap that are in a range, each raised by `first`.
    pub(crate) fn within(documents: &RoaringBitmap, range: Range<u32>, first: u32) -> Self {
        let mut numbers = documents.range(range.clone());
        let mut found = vec![0; documents.range_cardinality(range.clone()) as usize];
        let mut filled = 0;
        // It returns fewer than there are if a range ends in another container than it begins.
        while let count @ 1.. = numbers.next_many(&mut found[filled..]).len() {
            filled += count;
        }
        if filled < found.len() {
            found = documents.range(range).collect();
        }
        found.iter_mut().for_each(|document| *document += first);
        found.into()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    /// Removes the first ones, at most so many.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u32> {
        match self {
            Self::Range(range) => range.by_ref().take(count).collect(),
            Self::List(list) => list.by_ref().take(count).collect(),
        }
    }

    /// The range from the first to the last of them.
    pub(crate) fn span(&self) -> Range<u32> {
        match self {
            Self::Range(range) => range.clone(),
            Self::List(list) => match list.as_slice() {
                [] => 0..0,
                [first, .., last] => *first..*last + 1,
                [only] => *only..*only + 1,
            },
        }
    }
}

impl From<Vec<u32>> for DocumentNumbers {
    fn from(list: Vec<u32>) -> Self {
        Self::List(list.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs of numbers over several containers of 65,536 each: full, dense and sparse ones, some of them as runs.
    fn bitmaps() -> impl Strategy<Value = RoaringBitmap> {
        let run = (0..300_000u32, 1..150_000u32, prop_oneof![Just(1), 1..50usize]);
        (prop::collection::vec(run, 0..6), any::<bool>()).prop_map(|(runs, optimized)| {
            let mut all = RoaringBitmap::new();
            for (from, length, step) in runs {
                match step {
                    1 => drop(all.insert_range(from..from + length)),
                    _ => all.extend((from..from + length).step_by(step)),
                }
            }
            if optimized {
                all.optimize();
            }
            all
        })
    }

    proptest! {
        #[test]
        fn the_numbers_within_a_range_are_those_of_the_bitmap(
            documents in bitmaps(),
            from in 0..400_000u32,
            length in 0..200_000u32,
            first in 0..1_000u32,
        ) {
            let range = from..from + length;
            let wanted: Vec<u32> = documents.iter().filter(|document| range.contains(document)).collect();
            let mut numbers = DocumentNumbers::within(&documents, range, first);
            prop_assert_eq!(numbers.len(), wanted.len());
            let raised: Vec<u32> = wanted.iter().map(|document| document + first).collect();
            prop_assert!(numbers.take(usize::MAX) == raised);
        }
    }
}
