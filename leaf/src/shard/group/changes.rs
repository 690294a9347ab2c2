//! Applies changes of documents: hides what they delete, in one row for each partition, however many documents there are.

use bytes::Bytes;
use proto::{
    document_change::{DeletedRanges, DocumentChange},
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
    store::{Family, GoneRangeRow, Partition, digest::DigestTag, gone_range},
};

impl Group<'_> {
    /// Applies the changes in a record. An item that is not a change becomes a dead letter.
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
        let mut deleted = DeletedRanges::new();
        for (number, bytes) in (0u32..).zip(items) {
            let item = (items.len() > 1).then_some(number);
            match DocumentChange::decode(bytes) {
                Some(DocumentChange::Delete(ranges)) => {
                    let address = context.partition.address(record.offset, item);
                    self.digest(&address, DigestTag::Accepted, bytes)?;
                    for (partition, ranges) in ranges {
                        deleted.entry(partition).or_default().add(&ranges);
                    }
                }
                None => self.reject(context, record, item, bytes, on_dead)?,
            }
        }
        self.put_gone_ranges(context, record, deleted);
        self.advance(context, record);
        Ok(())
    }

    fn reject(
        &mut self,
        context: &IngestContext,
        record: &Record,
        item: Option<u32>,
        bytes: &Bytes,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let detail = "the record is not a change of documents: another program wrote it to the topic";
        let event = Event::DeadLetter {
            code: "not_a_change",
            detail: detail.into(),
        };
        self.row(&context.partition).outcomes.events += 1;
        self.put_event(context, record, item, Some(bytes), event, on_dead)
    }

    /// Writes what a record deletes, one row for each partition.
    fn put_gone_ranges(&mut self, context: &IngestContext, record: &Record, deleted: DeletedRanges) {
        for ((source, number), ranges) in deleted {
            let partition = Partition { source, number };
            if ranges.is_empty() {
                continue;
            }
            let row = GoneRangeRow {
                // A broker whose clock runs ahead must not put off the erasure.
                time_ms: record.time_ms.min(context.now_ms),
                ranges,
            };
            self.change.gone.add(record.offset, &partition, &row);
            let key = gone_range::key(&partition, record.offset);
            self.store.put(&mut self.batch, Family::Meta, &key, &row.encode());
        }
    }

    /// Removes the rows and the keys of deleted documents. A key may belong to a later document by now.
    pub(crate) fn erase(&mut self, erased: &ErasedDocuments) -> Result<(), Error> {
        for (address, id) in &erased.documents {
            // A group without a partition writes nothing.
            self.row(&Partition::of(address));
            if let Some(id) = id {
                self.key_index(id)?.retain(|known| known != address);
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

    /// Counts the documents that the changes of this group delete.
    pub(super) fn count_gone(&mut self) {
        let counted: Vec<(Partition, u64)> = {
            let state = self.state.lock();
            let gone = self.change.gone.iter();
            gone.map(|(partition, ranges)| (partition.clone(), state.live_in(partition, ranges)))
                .filter(|(_, documents)| *documents > 0)
                .collect()
        };
        for (partition, documents) in counted {
            let outcomes = &mut self.row(&partition).outcomes;
            outcomes.deleted += documents;
            outcomes.documents -= documents;
        }
    }
}
