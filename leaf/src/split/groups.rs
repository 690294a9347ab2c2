//! Groups: documents counted by the values of their text columns.
//!
//! A query that groups by texts and counts needs each distinct value once, not the value of every document. Ordinals of
//! the dictionaries are counted, and only the groups that occur become texts.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use plan::{Column, ColumnSource, Type, arrays};

use super::{columns::TextColumn, part::Part, values::RequestedDocuments};
use crate::error::Error;

/// Groups are counted in an array of this many slots for each document, and by sorting if there may be more groups.
const SLOTS_PER_DOCUMENT: u64 = 4;
/// Documents whose ordinals are read at once: they stay in the processor's first cache.
const BLOCK_DOCUMENTS: usize = 1_024;

/// Documents counted by their values of some text columns.
pub struct Groups {
    /// The columns, in the requested order, with a row for each group.
    pub values: Vec<ArrayRef>,
    /// The number of documents in each group.
    pub documents: Vec<i64>,
    /// What each column has counted.
    pub columns: Vec<GroupColumn>,
}

/// What one column has counted in the requested documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupColumn {
    /// Documents whose non-null value does not convert to the column's type.
    pub cast_failures: u64,
    /// Documents with a non-null value.
    pub present: u64,
}

/// A column to group by.
struct GroupKey {
    texts: Arc<TextColumn>,
    /// The number of its ordinals, with the last one for NULL.
    ordinals: u64,
    counted: GroupColumn,
}

impl Part {
    /// Counts these documents (ascending) by their values of the columns; without columns, all are one group. None if a
    /// column is no text column that the part stores exactly, or if its values are so different that grouping would save
    /// nothing.
    pub(super) fn count_groups(&self, columns: &[&Column], documents: &[u32]) -> Result<Option<Groups>, Error> {
        if columns.is_empty() {
            return Ok(Some(Groups {
                values: Vec::new(),
                documents: vec![documents.len() as i64],
                columns: Vec::new(),
            }));
        }
        let requested = RequestedDocuments::of(documents, self.paths.documents);
        let mut keys = Vec::with_capacity(columns.len());
        for column in columns {
            match self.group_key(column, requested)? {
                Some(key) => keys.push(key),
                None => return Ok(None),
            }
        }
        let slots = keys.iter().try_fold(1u64, |slots, key| slots.checked_mul(key.ordinals));
        let Some(slots) = slots else { return Ok(None) };
        let mut counter = GroupCounter::new(slots, documents.len());
        for block in documents.chunks(BLOCK_DOCUMENTS) {
            let mut groups = Vec::new();
            for key in &keys {
                let ordinals = key.texts.ordinals_of(block);
                if groups.is_empty() {
                    groups = ordinals;
                    continue;
                }
                for (group, ordinal) in groups.iter_mut().zip(ordinals) {
                    *group = *group * key.ordinals + ordinal;
                }
            }
            counter.add(groups);
        }
        let (mut groups, counts) = counter.finish();
        // The last key is the least significant digit of a group.
        let mut values = Vec::with_capacity(keys.len());
        for key in keys.iter().rev() {
            let null = key.ordinals - 1;
            let ordinals: Vec<Option<u64>> = groups
                .iter_mut()
                .map(|group| {
                    let ordinal = *group % key.ordinals;
                    *group /= key.ordinals;
                    (ordinal != null).then_some(ordinal)
                })
                .collect();
            // Without its own buffer, a state that is passed on would carry the whole dictionary along.
            values.push(arrays::compact(&key.texts.values(&ordinals)?));
        }
        values.reverse();
        Ok(Some(Groups {
            values,
            documents: counts,
            columns: keys.iter().map(|key| key.counted).collect(),
        }))
    }

    fn group_key(&self, column: &Column, requested: RequestedDocuments) -> Result<Option<GroupKey>, Error> {
        let (ColumnSource::Path(path), Type::Text) = (&column.source, column.read_as.to) else {
            return Ok(None);
        };
        let Some(id) = path.keys().and_then(|keys| self.paths.find(keys)) else {
            return Ok(None);
        };
        let Some(texts) = self.exact_texts(id, requested)? else {
            return Ok(None);
        };
        let distinct = texts.distinct();
        if distinct > requested.documents.len() / 2 {
            return Ok(None);
        }
        let kinds = self.count_kinds(id, requested)?;
        let cast_failures = kinds.present() - kinds.texts;
        if kinds.long_texts > 0 || (column.read_as.cast && cast_failures > 0) {
            return Ok(None);
        }
        Ok(Some(GroupKey {
            texts,
            ordinals: distinct as u64 + 1,
            counted: GroupColumn {
                cast_failures,
                present: kinds.present(),
            },
        }))
    }
}

/// Counts how often each group occurs.
enum GroupCounter {
    /// A counter for each possible group.
    Array(Vec<u32>),
    /// All groups, to be sorted.
    Sort(Vec<u64>),
}

impl GroupCounter {
    /// For groups below `slots` of this many documents.
    fn new(slots: u64, documents: usize) -> Self {
        match slots <= documents as u64 * SLOTS_PER_DOCUMENT {
            true => Self::Array(vec![0; slots as usize]),
            false => Self::Sort(Vec::with_capacity(documents)),
        }
    }

    fn add(&mut self, groups: Vec<u64>) {
        match self {
            Self::Array(counts) => groups.into_iter().for_each(|group| counts[group as usize] += 1),
            Self::Sort(all) => all.extend(groups),
        }
    }

    /// The distinct groups, ascending, and how often each occurs.
    fn finish(self) -> (Vec<u64>, Vec<i64>) {
        match self {
            Self::Array(counts) => (0..)
                .zip(counts)
                .filter(|(_, count)| *count > 0)
                .map(|(group, count)| (group, i64::from(count)))
                .unzip(),
            Self::Sort(mut all) => {
                all.sort_unstable();
                all.chunk_by(|one, other| one == other)
                    .map(|same| (same[0], same.len() as i64))
                    .unzip()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn groups_are_counted_alike_in_an_array_and_by_sorting(groups in prop::collection::vec(0..50u64, 1..40)) {
            let repeated: Vec<u64> = groups.iter().copied().cycle().take(groups.len() * 50).collect();
            let count = |slots| {
                let mut counter = GroupCounter::new(slots, repeated.len());
                repeated.chunks(7).for_each(|block| counter.add(block.to_vec()));
                counter.finish()
            };
            let (dense, sorted) = (count(50), count(u64::MAX));
            prop_assert_eq!(&dense, &sorted);
            prop_assert_eq!(dense.1.iter().sum::<i64>(), repeated.len() as i64);
            prop_assert!(dense.0.is_sorted_by(|one, next| one < next));
        }
    }
}
