//! What an index knows about a condition: the documents that certainly match, and those whose values must be read.

use roaring::RoaringBitmap;

/// What an index knows about a condition. It is not true for documents in neither set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Matches {
    /// Documents for which the condition is true.
    pub certain: RoaringBitmap,
    /// Documents whose values decide the condition; disjoint from `certain`.
    pub candidates: RoaringBitmap,
}

impl Matches {
    /// Exactly these documents match.
    pub(crate) fn certain(certain: RoaringBitmap) -> Self {
        Self {
            certain,
            candidates: RoaringBitmap::new(),
        }
    }

    /// All of `certain` match, and none outside of `certain` and `possible`.
    pub(crate) fn bounded(certain: RoaringBitmap, possible: RoaringBitmap) -> Self {
        Self {
            candidates: possible - &certain,
            certain,
        }
    }

    /// Adds candidates and removes them from the certain matches.
    pub(crate) fn with_candidates(mut self, candidates: &RoaringBitmap) -> Self {
        self.candidates |= candidates;
        self.certain -= &self.candidates;
        self
    }

    /// The same documents, with none of them certain.
    pub(crate) fn into_candidates(self) -> Self {
        Self {
            candidates: self.possible(),
            certain: RoaringBitmap::new(),
        }
    }

    /// True if no value has to be read.
    pub(crate) fn is_exact(&self) -> bool {
        self.candidates.is_empty()
    }

    /// True if no document can match.
    pub(crate) fn is_empty(&self) -> bool {
        self.certain.is_empty() && self.candidates.is_empty()
    }

    /// All documents that may match.
    pub(crate) fn possible(&self) -> RoaringBitmap {
        &self.certain | &self.candidates
    }

    /// Where both conditions are true.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::bounded(&self.certain & &other.certain, self.possible() & other.possible())
    }

    /// Where at least one of the conditions is true.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self::bounded(&self.certain | &other.certain, &self.candidates | &other.candidates)
    }

    /// Where this condition is true and the other is not.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self::bounded(&self.certain - other.possible(), self.possible() - &other.certain)
    }
}
