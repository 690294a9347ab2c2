//! DocumentNumbers of a segment that are still to be read.

use std::{ops::Range, vec::IntoIter};

/// DocumentNumbers of a segment, ascending. Mostly they are all of a range, which then is not written out.
#[derive(Debug, Clone)]
pub(crate) enum DocumentNumbers {
    /// All in this range.
    Range(Range<u32>),
    /// These.
    List(IntoIter<u32>),
}

impl DocumentNumbers {
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
