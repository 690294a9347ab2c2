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
    /// Those of a bitmap that are in a range, each raised by `first`. One by one: roaring's `next_many` leaves numbers out
    /// if a range ends in another container than it begins.
    pub(crate) fn within(documents: &RoaringBitmap, range: Range<u32>, first: u32) -> Self {
        let mut found = Vec::with_capacity(documents.range_cardinality(range.clone()) as usize);
        found.extend(documents.range(range).map(|document| first + document));
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

    /// Runs of numbers over several containers of 65,536 each, full, dense and sparse ones.
    fn bitmaps() -> impl Strategy<Value = RoaringBitmap> {
        let run = (0..300_000u32, 1..80_000u32, 1..50usize);
        prop::collection::vec(run, 0..6).prop_map(|runs| {
            let numbers = |(from, length, step): (u32, u32, usize)| (from..from + length).step_by(step);
            runs.into_iter().flat_map(numbers).collect()
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
