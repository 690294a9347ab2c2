//! Groups: documents counted by their values of columns that have few.
//!
//! A query that groups and counts needs each distinct value once, not the value of every document. Each value has a code:
//! a text its ordinal in the dictionary, an integer its distance from the least one. Codes are counted, and only those of
//! the groups that occur become values.

mod codes;

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef};
use plan::{Column, ColumnSource, arrays, calendar::Interval};

use self::codes::OrderedTimes;
pub(super) use self::codes::{Codes, length_counts};
use super::{part::Part, path_tree::PathNode, values::RequestedDocuments};
use crate::error::Error;

/// Groups are counted in an array of this many slots for each document, and by sorting if there may be more groups.
const SLOTS_PER_DOCUMENT: u64 = 4;
/// Documents whose codes are read at once: they stay in the processor's first cache.
const BLOCK_DOCUMENTS: usize = 1_024;

/// Documents counted by their values of some columns.
pub(crate) struct Groups {
    /// The columns, in the requested order, with a row for each group.
    pub values: Vec<ArrayRef>,
    /// The number of documents in each group.
    pub documents: Vec<i64>,
    /// What each column has counted.
    pub columns: Vec<GroupColumn>,
}

/// What one column has counted in the requested documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GroupColumn {
    /// Documents whose non-null value does not convert to the column's type.
    pub cast_failures: u64,
    /// Documents with a non-null value.
    pub present: u64,
}

/// A column to group by.
struct GroupKey {
    codes: Codes,
    /// Documents with a non-null value; None if all of them have a code.
    present: Option<u64>,
}

impl Part {
    /// Counts these documents (ascending) by their values of the columns; without columns, all are one group. None if a
    /// column has no codes, or not for all documents, or if its values are so different that grouping would save nothing.
    /// With an interval, see [`Segment::count_groups`](super::Segment::count_groups).
    pub(super) fn count_groups(
        &self,
        columns: &[&Column],
        interval: Option<Interval>,
        documents: &[u32],
    ) -> Result<Option<Groups>, Error> {
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
            match self.group_key(column, interval, requested)? {
                Some(key) => keys.push(key),
                None => return Ok(None),
            }
        }
        let slots = keys
            .iter()
            .try_fold(1u64, |slots, key| slots.checked_mul(key.codes.count()));
        let Some(slots) = slots else { return Ok(None) };
        let of_part = match keys.as_slice() {
            [key] if requested.are_all() => key.codes.counts(documents),
            _ => None,
        };
        let times = match (keys.as_slice(), interval) {
            ([key], Some(interval)) => key.codes.ordered_times()?.zip(Some(interval)),
            _ => None,
        };
        let counts = match of_part {
            Some(counts) => GroupCounts::Array(counts),
            None => count_codes(&keys, GroupCounter::new(slots, documents.len()), documents),
        };
        let (mut groups, counts) = match times {
            Some((times, interval)) => counts.merged(&times, interval),
            None => counts.occurring(),
        };
        // The last key is the least significant digit of a group.
        let (mut values, mut columns) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for key in keys.iter().rev() {
            let (null, count) = (key.codes.null(), key.codes.count());
            let codes: Vec<Option<u64>> = groups
                .iter_mut()
                .map(|group| {
                    let code = *group % count;
                    *group /= count;
                    (code != null).then_some(code)
                })
                .collect();
            // Without its own buffer, a state that is passed on would carry the whole dictionary along.
            let of_groups = arrays::compact(&key.codes.values(&codes)?);
            let with_value = (0..).zip(&counts).filter(|(group, _)| of_groups.is_valid(*group));
            let with_value = with_value.map(|(_, documents)| documents).sum::<i64>() as u64;
            let present = key.present.unwrap_or(with_value);
            columns.push(GroupColumn {
                cast_failures: present - with_value,
                present,
            });
            values.push(of_groups);
        }
        values.reverse();
        columns.reverse();
        Ok(Some(Groups {
            values,
            documents: counts,
            columns,
        }))
    }

    /// The codes of a column's values, if it has few, or those of an interval are merged; and if all that are requested have
    /// codes.
    fn group_key(
        &self,
        column: &Column,
        interval: Option<Interval>,
        requested: RequestedDocuments,
    ) -> Result<Option<GroupKey>, Error> {
        let are_few = |codes: &Codes| {
            let are_merged = interval.is_some() && codes.are_times();
            are_merged || codes.null() <= requested.documents.len() as u64 / 2
        };
        let path = match &column.source {
            ColumnSource::Path(path) => path,
            ColumnSource::Tokens(path) => {
                let codes = self.length_codes(path.as_ref(), requested)?.filter(are_few);
                return Ok(codes.map(|codes| GroupKey { codes, present: None }));
            }
            _ => return Ok(None),
        };
        let Some(id) = path.keys().and_then(|keys| self.paths.find(keys)) else {
            return Ok(None);
        };
        let PathNode {
            outside,
            column: stored,
            ..
        } = self.node(id);
        if !stored || requested.count_in(&self.paths.header_only) > 0 {
            return Ok(None);
        }
        let codes = Codes::open(&self.columns, id, outside, column.read_as)?;
        let Some(codes) = codes.filter(are_few) else {
            return Ok(None);
        };
        let kinds = self.count_kinds(id, requested)?;
        let present = Some(kinds.present());
        Ok(kinds.are_in(&codes).then_some(GroupKey { codes, present }))
    }
}

/// The groups of these documents, and how often each occurs. The first key is the most significant digit of a group.
fn count_codes(keys: &[GroupKey], mut counter: GroupCounter, documents: &[u32]) -> GroupCounts {
    for block in documents.chunks(BLOCK_DOCUMENTS) {
        let mut groups = Vec::new();
        for key in keys {
            let (codes, count) = (key.codes.of(block), key.codes.count());
            if groups.is_empty() {
                groups = codes;
                continue;
            }
            for (group, code) in groups.iter_mut().zip(codes) {
                *group = *group * count + code;
            }
        }
        counter.add(groups);
    }
    counter.finish()
}

/// How often groups occur.
enum GroupCounts {
    /// Of each possible group.
    Array(Arc<Vec<u32>>),
    /// Of those that occur, ascending.
    List(Vec<(u64, i64)>),
}

impl GroupCounts {
    /// The groups that occur, ascending, and how often.
    fn occurring(self) -> (Vec<u64>, Vec<i64>) {
        match self {
            Self::Array(counts) => occurring(&counts).unzip(),
            Self::List(counts) => counts.into_iter().unzip(),
        }
    }

    /// The same, if a group is the code of a time. Those whose times follow each other and are in the same interval become
    /// one, the first of them.
    fn merged(self, times: &OrderedTimes, interval: Interval) -> (Vec<u64>, Vec<i64>) {
        match self {
            Self::Array(counts) if times.ascend => merged_ascending(&counts, times.of_codes, interval),
            Self::Array(counts) => merged(occurring(&counts), times.of_codes, interval),
            Self::List(counts) => merged(counts.into_iter(), times.of_codes, interval),
        }
    }
}

fn occurring(counts: &[u32]) -> impl Iterator<Item = (u64, i64)> {
    let counted = (0..).zip(counts).filter(|(_, count)| **count > 0);
    counted.map(|(group, count)| (group, i64::from(*count)))
}

fn merged(counts: impl Iterator<Item = (u64, i64)>, times: &[Option<i64>], interval: Interval) -> (Vec<u64>, Vec<i64>) {
    let (mut groups, mut sums) = (Vec::new(), Vec::new());
    // The interval of the last group, and its documents.
    let (mut span, mut sum) = (0..0, 0);
    for (code, documents) in counts {
        let time = times.get(code as usize).copied().flatten();
        if time.is_some_and(|time| span.contains(&time)) {
            sum += documents;
            continue;
        }
        sums.extend((!groups.is_empty()).then_some(sum));
        groups.push(code);
        sum = documents;
        span = time.and_then(|time| interval.span(time)).unwrap_or(0..0);
    }
    sums.extend((!groups.is_empty()).then_some(sum));
    (groups, sums)
}

/// The same of groups whose times ascend: it looks for the ends of intervals, and not at each time.
fn merged_ascending(counts: &[u32], times: &[Option<i64>], interval: Interval) -> (Vec<u64>, Vec<i64>) {
    let (mut groups, mut sums) = (Vec::new(), Vec::new());
    let mut code = 0;
    while code < counts.len() {
        let rest = times.get(code..).unwrap_or_default();
        let span = rest.first().copied().flatten().and_then(|time| interval.span(time));
        let same = span.map_or(1, |span| rest.partition_point(|time| *time < Some(span.end)));
        let documents: i64 = counts[code..code + same].iter().map(|count| i64::from(*count)).sum();
        if documents > 0 {
            groups.push(code as u64);
            sums.push(documents);
        }
        code += same;
    }
    (groups, sums)
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

    /// How often each group occurs.
    fn finish(self) -> GroupCounts {
        match self {
            Self::Array(counts) => GroupCounts::Array(Arc::new(counts)),
            Self::Sort(mut all) => {
                all.sort_unstable();
                let same = all.chunk_by(|one, other| one == other);
                GroupCounts::List(same.map(|same| (same[0], same.len() as i64)).collect())
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
                counter.finish().occurring()
            };
            let (dense, sorted) = (count(50), count(u64::MAX));
            prop_assert_eq!(&dense, &sorted);
            prop_assert_eq!(dense.1.iter().sum::<i64>(), repeated.len() as i64);
            prop_assert!(dense.0.is_sorted_by(|one, next| one < next));
        }
    }
}
