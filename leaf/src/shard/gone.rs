//! Gone ranges: the places of each partition whose documents were deleted by a change. What is read there later, because
//! a shard is filled again, is deleted at once.

use std::collections::BTreeMap;

use proto::{
    Address,
    place_ranges::{Place, PlaceRange, PlaceRanges},
};

use crate::{
    error::Error,
    store::{Partition, Store},
};

/// The gone ranges of a shard, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GoneRanges(BTreeMap<Partition, PlaceRanges>);

impl GoneRanges {
    /// The ranges of all changes that the store has.
    pub(crate) fn load(store: &Store) -> Result<Self, Error> {
        let mut ranges: BTreeMap<Partition, Vec<PlaceRange>> = BTreeMap::new();
        for row in store.gone_ranges() {
            let (partition, row) = row?;
            ranges.entry(partition).or_default().extend(row.ranges.iter());
        }
        // Sorted once, however many changes there are.
        let joined = ranges
            .into_iter()
            .map(|(partition, ranges)| (partition, ranges.into_iter().collect()));
        Ok(Self(joined.collect()))
    }

    /// Adds ranges of a partition.
    pub(crate) fn add(&mut self, partition: &Partition, ranges: &PlaceRanges) {
        if !ranges.is_empty() {
            self.0.entry(partition.clone()).or_default().add(ranges);
        }
    }

    /// Whether the document at an address is deleted.
    pub(crate) fn contains(&self, address: &Address) -> bool {
        // Most shards have none, and then no partition is built to look for.
        let of = || self.0.get(&Partition::of(address));
        !self.0.is_empty() && of().is_some_and(|ranges| ranges.contains(Place::of(address)))
    }

    /// The ranges, by partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Partition, &PlaceRanges)> {
        self.0.iter()
    }

    /// Whether nothing is deleted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
