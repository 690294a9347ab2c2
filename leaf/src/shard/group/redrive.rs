//! Ingests dead letters again, each once: its document has the address of the change. One that still cannot become
//! a document stays as it is.

use bytes::Bytes;
use proto::{
    Address,
    document_change::Redrive,
    ingest::ALREADY_REDRIVEN,
    record::{Record, RecordValue},
};

use super::{Group, IngestContext, Redriving, changes::NOT_A_CHANGE};
use crate::{
    error::Error,
    shard::event::{self, Event, KeyRule},
    store::{
        Family, Partition, RowKey, RowKind, delete_marker::DeleteMarker, digest::DigestTag, key_index::RedrivenLetter,
        redriven,
    },
};

impl Group<'_> {
    /// Ingests a dead letter again, unless an earlier change did so. It need not be stored: it may have been cleared
    /// meanwhile, and a shard that is filled again may read it later.
    pub(super) fn redrive(
        &mut self,
        context: &IngestContext,
        record: &Record,
        item: Option<u32>,
        change: &Bytes,
        redrive: Redrive,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        // A group counts what it hides in what earlier groups have written, so it cannot hide and ingest documents.
        let hides = !self.change.gone.is_empty();
        let letter = redrive.address;
        let key_rule = KeyRule::of(&redrive.rules, letter.source.is_push());
        let is_read = redrive.read_through >= letter.offset;
        let (Ok(key_rule), RecordValue::One(value), true) = (key_rule, &redrive.record.value, is_read && !hides) else {
            return self.reject(context, record, item, change, NOT_A_CHANGE, on_dead);
        };
        let address = context.partition.address(record.offset, item);
        let earlier = match self.redriven.get(&letter) {
            Some(earlier) => Some(earlier.to_string()),
            None => self.store.redriven(&letter)?,
        };
        let event = match earlier {
            Some(earlier) => Event::DeadLetter {
                code: ALREADY_REDRIVEN,
                detail: format!("{letter} was ingested again before, as {earlier}"),
            },
            None => self.quarantine.dead_letter(item).unwrap_or_else(|| {
                let record_key = redrive.record.key.as_deref();
                event::classify(Some(value), record_key, redrive.rules.format, &key_rule)
            }),
        };
        self.row(&context.partition).outcomes.events += 1;
        if let Event::DeadLetter { code, detail } = event {
            self.row(&context.partition).outcomes.duplicates += 1;
            on_dead(u64::from(item.unwrap_or_default()), code, &detail);
            return self.digest(&address, DigestTag::Repeated, change);
        }
        let key = redriven::key(&letter);
        self.store
            .put(&mut self.batch, Family::Meta, &key, &redriven::encode(&address));
        self.redriven.insert(letter.clone(), address);
        let partition = Partition::of(&letter);
        let row = self.row(&partition);
        row.redriven_through = row.redriven_through.max(letter.offset);
        let key = RowKey::new(RowKind::DeadLetter).address(&letter).bytes();
        self.remove_dead_letter(&partition, &key)?;
        self.resume(&partition);
        self.replace_document_at(&letter)?;
        let again = Record {
            offset: record.offset,
            ..redrive.record.clone()
        };
        let context = IngestContext {
            partition: context.partition.clone(),
            rules: redrive.rules,
            key_rule,
            now_ms: context.now_ms,
            logged: context.logged,
            redriven: Some(Redriving {
                letter: RedrivenLetter {
                    address: letter,
                    read_through: redrive.read_through,
                },
                ingested_ms: context.ingested_ms(record),
            }),
        };
        self.put_event(&context, &again, item, Some(value), event, on_dead)
    }

    /// Hides the document at the address of a dead letter: a later release, which has read it again, takes it for one.
    fn replace_document_at(&mut self, address: &Address) -> Result<(), Error> {
        if self.gone.contains(address) || self.store.is_deleted(address)? {
            return Ok(());
        }
        let Some(document) = self.store.document(address)? else {
            return Ok(());
        };
        if let Some(id) = &document.header.id {
            self.key_index(id)?.retain(|known| known.address != *address);
        }
        let outcomes = &mut self.row(&Partition::of(address)).outcomes;
        outcomes.superseded += 1;
        outcomes.documents -= 1;
        self.put_delete_marker(address.clone(), DeleteMarker::Superseded);
        Ok(())
    }
}
