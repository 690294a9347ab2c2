//! Applies the events of a group: documents, tombstones and dead letters, with the key index and the outcome counters.

use bytes::Bytes;
use proto::{Address, ingest::ALREADY_REDRIVEN, place_ranges::Place, record::Record};

use super::{Group, IngestContext, TRIAL_EVENTS};
use crate::{
    document::{Document, Header},
    error::Error,
    fault,
    shard::event::{self, Event},
    store::{
        Family, KeyIndexRow, KeyedDocument, Partition, RowKey, RowKind, dead_letter, delete_marker::DeleteMarker,
        digest::DigestTag, document,
    },
};

impl Group<'_> {
    pub(super) fn apply_event(
        &mut self,
        context: &IngestContext,
        record: &Record,
        item: Option<u32>,
        bytes: Option<&Bytes>,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let classify = || {
            event::classify(
                bytes.map(|b| &b[..]),
                record.key.as_deref(),
                context.rules.format,
                &context.key_rule,
            )
        };
        let event = self.quarantine.dead_letter(item).unwrap_or_else(classify);
        let row = self.row(&context.partition);
        row.outcomes.events += 1;
        let may_be_redriven = record.offset <= row.redriven_through;
        let on_trial = row.trial_records < TRIAL_EVENTS;
        row.trial_records += u64::from(on_trial);
        row.trial_dead += u64::from(on_trial && matches!(event, Event::DeadLetter { .. }));
        let address = context.partition.address(record.offset, item);
        if may_be_redriven && let Some(change) = self.store.redriven(&address)? {
            // A shard that is filled again has read the change before. Its document stands for the event.
            self.row(&context.partition).outcomes.dead_letters += 1;
            let detail = format!("it was ingested again by the change {change}");
            on_dead(u64::from(item.unwrap_or_default()), ALREADY_REDRIVEN, &detail);
            return self.digest(&address, DigestTag::Dead, bytes.map_or(&[], |bytes| &bytes[..]));
        }
        self.put_event(context, record, item, bytes, event, on_dead)
    }

    /// Writes the outcome of an event that is counted.
    pub(super) fn put_event(
        &mut self,
        context: &IngestContext,
        record: &Record,
        item: Option<u32>,
        bytes: Option<&Bytes>,
        event: Event<'_>,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let address = context.partition.address(record.offset, item);
        let ingested_ms = context.ingested_ms(record);
        match event {
            Event::Document { id, value } => {
                if let Some(value) = &value {
                    self.kinds_cache.trie(self.store, &context.partition)?.observe(value);
                }
                let header = Header {
                    ingested_ms,
                    time_ms: record.time_ms,
                    time_kind: record.time_kind,
                    id,
                    record_key: record.key.clone(),
                    headers: record.headers.clone(),
                    json: value.is_some(),
                };
                let bytes = bytes.cloned().unwrap_or_default();
                self.digest(&address, DigestTag::Accepted, &bytes)?;
                self.put_document(context, Document { address, header, bytes })
            }
            Event::Tombstone { id } => {
                self.row(&context.partition).outcomes.tombstones += 1;
                let key = record.key.as_deref().unwrap_or_default();
                self.digest(&address, DigestTag::Tombstone, key)?;
                id.map_or(Ok(()), |id| self.delete_document(&address, &id))
            }
            Event::DeadLetter { code, detail } => {
                let bytes = bytes.map(|b| &b[..]).unwrap_or_default();
                let row = self.row(&context.partition);
                row.dead_letters += 1;
                on_dead(u64::from(item.unwrap_or_default()), code, &detail);
                if !fault::on("dead-letter-dropped") {
                    row.outcomes.dead_letters += 1;
                    let key = RowKey::new(RowKind::DeadLetter).address(&address).bytes();
                    let (value, counted) = dead_letter::encode(ingested_ms, code, &detail, record, bytes);
                    self.row(&context.partition).dead_bytes += counted;
                    self.store.put(&mut self.batch, Family::DeadLetters, &key, &value);
                }
                self.digest(&address, DigestTag::Dead, bytes)
            }
        }
    }

    /// Stores a document, unless it was deleted before it is read: a shard that is filled again reads it again.
    fn put_document(&mut self, context: &IngestContext, document: Document) -> Result<(), Error> {
        let is_gone = self.gone.contains(&document.address);
        let has_expired = is_gone && self.gone.has_expired(&document.address);
        let outcomes = &mut self.row(&context.partition).outcomes;
        outcomes.accepted += 1;
        outcomes.deleted += u64::from(is_gone && !has_expired);
        outcomes.expired += u64::from(has_expired);
        outcomes.documents += u64::from(!is_gone);
        outcomes.bytes += document.bytes.len() as u64;
        if let Some(id) = &document.header.id {
            let keyed = KeyedDocument {
                address: document.address.clone(),
                redriven: context.redriven.as_ref().map(|redriving| redriving.letter.clone()),
            };
            let (partition, place) = (keyed.partition(), keyed.place());
            let others = self.live_key_index(id)?;
            let replaced = match is_gone {
                true => self.key_index(id)?.take_through(&partition, place),
                false => self.key_index(id)?.put(keyed),
            };
            match self.unless_gone(replaced) {
                Some(old) => {
                    let outcomes = &mut self.row(&Partition::of(&old)).outcomes;
                    outcomes.superseded += 1;
                    outcomes.documents -= 1;
                    if old == document.address {
                        return Ok(());
                    }
                    self.put_delete_marker(old, DeleteMarker::Superseded);
                }
                None if is_gone => {}
                None => self.count_keys_elsewhere(&partition, &others, true),
            }
        }
        if is_gone {
            return Ok(());
        }
        let key = RowKey::new(RowKind::Document).address(&document.address).bytes();
        self.store
            .put(&mut self.batch, Family::Docs, &key, &document::encode(&document));
        fault::panic_on("panic-in-writer", &document.bytes);
        self.add_document(document);
        Ok(())
    }

    /// Deletes the document with a key in the partition of a tombstone, if there is one.
    fn delete_document(&mut self, tombstone: &Address, id: &str) -> Result<(), Error> {
        let partition = Partition::of(tombstone);
        let taken = self.key_index(id)?.take_through(&partition, Place::of(tombstone));
        let Some(old) = self.unless_gone(taken) else {
            return Ok(());
        };
        let others = self.live_key_index(id)?;
        let outcomes = &mut self.row(&Partition::of(&old)).outcomes;
        outcomes.deleted += 1;
        outcomes.documents -= 1;
        self.put_delete_marker(old, DeleteMarker::Deleted);
        self.count_keys_elsewhere(&partition, &others, false);
        Ok(())
    }

    /// The address, unless its document was deleted by a change: its key is forgotten later. Until then, it still replaces
    /// what is before it.
    fn unless_gone(&self, address: Option<Address>) -> Option<Address> {
        address.filter(|address| !self.gone.contains(address))
    }

    pub(super) fn put_delete_marker(&mut self, address: Address, reason: DeleteMarker) {
        if !fault::on("delete-per-split") {
            let key = RowKey::new(RowKind::DeleteMarker).address(&address).bytes();
            self.store.put(&mut self.batch, Family::Meta, &key, &reason.encode());
        }
        self.change.deleted.push(address);
    }

    /// Updates the counters of keys that other partitions have, too, after a partition gained or lost a key.
    fn count_keys_elsewhere(&mut self, partition: &Partition, others: &KeyIndexRow, gained: bool) {
        if others.is_empty() {
            return;
        }
        let mut count = |partition: &Partition| {
            let row = self.row(partition);
            row.keys_elsewhere = if gained {
                row.keys_elsewhere + 1
            } else {
                row.keys_elsewhere.saturating_sub(1)
            };
        };
        count(partition);
        if let (1, Some(other)) = (others.len(), others.partitions().next()) {
            count(&other);
        }
    }

    /// The documents with a key, without those that changes deleted.
    fn live_key_index(&mut self, id: &str) -> Result<KeyIndexRow, Error> {
        let mut row = self.key_index(id)?.clone();
        row.retain(|known| !self.gone.contains(&known.address));
        Ok(row)
    }

    pub(super) fn key_index(&mut self, id: &str) -> Result<&mut KeyIndexRow, Error> {
        if !self.key_index.contains_key(id) {
            let stored = self.store.key_index(id.as_bytes())?;
            self.key_index.insert(id.into(), stored);
        }
        Ok(self.key_index.get_mut(id).expect("it was inserted above"))
    }
}
