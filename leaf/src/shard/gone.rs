//! Gone ranges: the places of each partition whose documents were deleted, or expired, by a change. What is read there
//! later, because a shard is filled again, is hidden at once. They are forgotten when the documents are erased.

use std::collections::BTreeMap;

use proto::{
    Address,
    place_ranges::{Place, PlaceRange, PlaceRanges},
};

use crate::{
    error::Error,
    store::{GoneRangeRow, Partition, Store},
};

/// The gone ranges of a shard, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GoneRanges {
    ranges: BTreeMap<Partition, PlaceRanges>,
    /// Those of them whose documents expired.
    expired: BTreeMap<Partition, PlaceRanges>,
    /// When each change that they come from was requested, by its offset.
    changes: BTreeMap<i64, i64>,
}

impl GoneRanges {
    /// The ranges of all changes that the store has.
    pub(crate) fn load(store: &Store) -> Result<Self, Error> {
        Self::of_rows(store.gone_ranges())
    }

    /// The ranges of these rows: partition, offset of the change, ranges.
    pub(crate) fn of_rows(
        rows: impl Iterator<Item = Result<(Partition, i64, GoneRangeRow), Error>>,
    ) -> Result<Self, Error> {
        let mut ranges: BTreeMap<Partition, Vec<PlaceRange>> = BTreeMap::new();
        let mut expired = ranges.clone();
        let mut changes = BTreeMap::new();
        for row in rows {
            let (partition, change, row) = row?;
            if !row.expired.is_empty() {
                expired.entry(partition.clone()).or_default().extend(row.expired.iter());
            }
            let all = row.deleted.iter().chain(row.expired.iter());
            ranges.entry(partition).or_default().extend(all);
            changes.insert(change, row.time_ms);
        }
        // Sorted once, however many changes there are.
        let joined = |ranges: BTreeMap<Partition, Vec<PlaceRange>>| {
            let ranges = ranges.into_iter();
            ranges
                .map(|(partition, ranges)| (partition, ranges.into_iter().collect()))
                .collect()
        };
        Ok(Self {
            ranges: joined(ranges),
            expired: joined(expired),
            changes,
        })
    }

    /// Adds the ranges that the change at this offset hides of a partition.
    pub(crate) fn add(&mut self, change: i64, partition: &Partition, row: &GoneRangeRow) {
        let ranges = self.ranges.entry(partition.clone()).or_default();
        ranges.add(&row.deleted);
        ranges.add(&row.expired);
        if !row.expired.is_empty() {
            self.expired.entry(partition.clone()).or_default().add(&row.expired);
        }
        self.changes.insert(change, row.time_ms);
    }

    /// Adds all ranges of others.
    pub(crate) fn add_all(&mut self, others: &Self) {
        for (partition, ranges) in &others.ranges {
            self.ranges.entry(partition.clone()).or_default().add(ranges);
        }
        for (partition, ranges) in &others.expired {
            self.expired.entry(partition.clone()).or_default().add(ranges);
        }
        self.changes.extend(&others.changes);
    }

    /// Whether the document at an address is deleted or has expired.
    pub(crate) fn contains(&self, address: &Address) -> bool {
        // Most shards have none, and then no partition is built to look for.
        let of = || self.ranges.get(&Partition::of(address));
        !self.is_empty() && of().is_some_and(|ranges| ranges.contains(Place::of(address)))
    }

    /// Whether the document at an address has expired.
    pub(crate) fn has_expired(&self, address: &Address) -> bool {
        let of = || self.expired.get(&Partition::of(address));
        !self.expired.is_empty() && of().is_some_and(|ranges| ranges.contains(Place::of(address)))
    }

    /// The ranges of a partition.
    pub(crate) fn of(&self, partition: &Partition) -> Option<&PlaceRanges> {
        self.ranges.get(partition)
    }

    /// The ranges of expired documents, by partition.
    pub(crate) fn expired(&self) -> impl Iterator<Item = (&Partition, &PlaceRanges)> {
        self.expired.iter()
    }

    /// The ranges, by partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Partition, &PlaceRanges)> {
        self.ranges.iter()
    }

    /// Whether nothing is hidden.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The offset of the first change whose documents are not erased, and when the first was requested, in milliseconds
    /// since 1970.
    pub(crate) fn unerased(&self) -> Option<(i64, i64)> {
        Some((*self.changes.keys().next()?, *self.changes.values().min()?))
    }
}
