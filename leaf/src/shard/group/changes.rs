//! Applies changes of documents: hides what they delete or expire, in one row for each partition, however many documents
//! there are; and ingests dead letters again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::{
    document_change::{DeletedRanges, DocumentChange},
    place_ranges::PlaceRanges,
    record::{Record, RecordValue},
};

use super::{Group, IngestContext};
use crate::{
    error::Error,
    shard::{
        erase::{ErasedDocuments, ForgottenRanges},
        event::Event,
        gone::GoneRanges,
        sweep::remove_rows,
    },
    store::{Family, GoneRangeRow, KeyedDocument, Partition, digest::DigestTag, gone_range},
};

/// How much later than its record documents may have been found to be too old: then the clock of an aggregator runs ahead.
/// The clock of a tailer that stamps records is not checked.
const CLOCK_AHEAD_MAX_MS: i64 = 5 * 60 * 1_000;

/// Why an item is rejected: code and detail.
pub(super) const NOT_A_CHANGE: (&str, &str) = (
    "not_a_change",
    "the record is not a change of documents: another program wrote it to the topic",
);
const CLOCK_AHEAD: (&str, &str) = (
    "clock_ahead",
    "documents were found to be expired at a time that is more than five minutes after the record: the clock of an \
     aggregator is wrong",
);

impl Group<'_> {
    /// Applies the changes in a record. An item that is no valid change becomes a dead letter.
    pub(super) fn apply_changes(
        &mut self,
        context: &IngestContext,
        record: &Record,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let items = match &record.value {
            RecordValue::Null => &[][..],
            RecordValue::One(item) => std::slice::from_ref(item),
            RecordValue::Many(items) => items,
        };
        let (mut deleted, mut expired) = (DeletedRanges::new(), DeletedRanges::new());
        let mut redrives = Vec::new();
        for (number, bytes) in (0u32..).zip(items) {
            let item = (items.len() > 1).then_some(number);
            let (ranges, hidden) = match DocumentChange::decode(bytes) {
                Some(DocumentChange::Delete(ranges)) => (ranges, &mut deleted),
                Some(DocumentChange::Expire { ranges, as_of_ms }) => {
                    if as_of_ms > record.time_ms.saturating_add(CLOCK_AHEAD_MAX_MS) {
                        self.reject(context, record, item, bytes, CLOCK_AHEAD, on_dead)?;
                        continue;
                    }
                    (ranges, &mut expired)
                }
                Some(DocumentChange::Redrive(redrive)) => {
                    redrives.push((item, bytes, *redrive));
                    continue;
                }
                None => {
                    self.reject(context, record, item, bytes, NOT_A_CHANGE, on_dead)?;
                    continue;
                }
            };
            let address = context.partition.address(record.offset, item);
            self.digest(&address, DigestTag::Accepted, bytes)?;
            for (partition, ranges) in ranges {
                hidden.entry(partition).or_default().add(&ranges);
            }
        }
        self.put_gone_ranges(context, record, deleted, expired);
        for (item, bytes, redrive) in redrives {
            self.redrive(context, record, item, bytes, redrive, on_dead)?;
        }
        self.advance(context, record);
        Ok(())
    }

    /// Has an item that is no valid change become a dead letter.
    pub(super) fn reject(
        &mut self,
        context: &IngestContext,
        record: &Record,
        item: Option<u32>,
        bytes: &Bytes,
        (code, detail): (&'static str, &'static str),
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let event = Event::DeadLetter {
            code,
            detail: detail.into(),
        };
        self.row(&context.partition).outcomes.events += 1;
        self.put_event(context, record, item, Some(bytes), event, on_dead)
    }

    /// Writes what a record hides, one row for each partition. What earlier changes have hidden stays theirs: so each
    /// document counts as deleted or as expired by the first change, in whatever order documents and changes are read.
    fn put_gone_ranges(
        &mut self,
        context: &IngestContext,
        record: &Record,
        mut deleted: DeletedRanges,
        mut expired: DeletedRanges,
    ) {
        let partitions: BTreeSet<_> = deleted.keys().chain(expired.keys()).cloned().collect();
        for of in partitions {
            let hidden = [&mut deleted, &mut expired].map(|ranges| ranges.remove(&of).unwrap_or_default());
            let (source, number) = of;
            let partition = Partition { source, number };
            let known = [self.gone.of(&partition), self.change.gone.of(&partition)];
            let new = |ranges: PlaceRanges| {
                known
                    .into_iter()
                    .flatten()
                    .fold(ranges, |ranges, known| ranges.without(known))
            };
            let [deleted, expired] = hidden.map(new);
            let row = GoneRangeRow {
                // A broker whose clock runs ahead must not put off the erasure.
                time_ms: record.time_ms.min(context.now_ms),
                expired: expired.without(&deleted),
                deleted,
            };
            if row.deleted.is_empty() && row.expired.is_empty() {
                continue;
            }
            self.change.gone.add(record.offset, &partition, &row);
            let key = gone_range::key(&partition, record.offset);
            self.store.put(&mut self.batch, Family::Meta, &key, &row.encode());
        }
    }

    /// Removes the rows and the keys of deleted documents. A key may belong to a later document by now.
    pub(crate) fn erase(&mut self, erased: &ErasedDocuments) -> Result<(), Error> {
        let rows = self.state.lock().rows.clone();
        let is_due = |known: &KeyedDocument| {
            known.redriven.as_ref().is_none_or(|letter| {
                let row = rows.get(&Partition::of(&letter.address));
                row.is_some_and(|row| row.offset >= letter.read_through)
            })
        };
        for (address, id) in &erased.documents {
            // A group without a partition writes nothing.
            self.row(&Partition::of(address));
            if let Some(id) = id {
                // In a shard that is filled again, one that was a dead letter still replaces what is before it.
                self.key_index(id)?
                    .retain(|known| known.address != *address || !is_due(known));
            }
            remove_rows(self.store, &mut self.batch, address);
        }
        Ok(())
    }

    /// Forgets ranges, whose documents are erased.
    pub(crate) fn forget(&mut self, forgotten: &ForgottenRanges) -> Result<(), Error> {
        let store = self.store;
        let is_left = |row: &Result<(Partition, i64, GoneRangeRow), Error>| {
            row.as_ref().map_or(true, |(partition, change, _)| {
                !forgotten.rows.contains(&(partition.clone(), *change))
            })
        };
        let left = GoneRanges::of_rows(store.gone_ranges().filter(is_left))?;
        for (partition, change) in &*forgotten.rows {
            // A group without a partition writes nothing.
            self.row(partition);
            let key = gone_range::key(partition, *change);
            store.delete(&mut self.batch, Family::Meta, &key);
        }
        self.change.gone_left = Some(left);
        Ok(())
    }

    /// Counts the documents that the changes of this group delete or expire.
    pub(super) fn count_gone(&mut self) {
        let (hidden, expired) = {
            let state = self.state.lock();
            let live = |(partition, ranges): (&Partition, &PlaceRanges)| {
                let documents = state.live_in(partition, ranges);
                (documents > 0).then(|| (partition.clone(), documents))
            };
            let hidden: Vec<_> = self.change.gone.iter().filter_map(live).collect();
            let expired: BTreeMap<_, _> = self.change.gone.expired().filter_map(live).collect();
            (hidden, expired)
        };
        for (partition, documents) in hidden {
            let expired = expired.get(&partition).copied().unwrap_or_default();
            let outcomes = &mut self.row(&partition).outcomes;
            outcomes.deleted += documents - expired;
            outcomes.expired += expired;
            outcomes.documents -= documents;
        }
    }
}
