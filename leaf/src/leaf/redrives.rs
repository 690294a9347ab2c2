//! Finds the dead letters that can become documents, and makes the changes that ingest them. Nothing is written here: a dead
//! letter that still cannot become a document leaves no change.

use std::sync::Arc;

use bytes::Bytes;
use plan::scan::{DeadRecord, OfferedRedrive, RedrivePage, RedriveQuery};
use proto::{
    Address,
    document_change::{DocumentChange, Redrive},
    place_ranges::Place,
    record::{Record, RecordValue},
    routing::push_partition,
};

use crate::{
    error::Error,
    shard::{
        Shard,
        event::{self, Event, KeyRule},
        gone::GoneRanges,
    },
    store::Partition,
};

/// Bytes of the changes of one response; a larger change is alone.
const CHANGES_BYTES_MAX: usize = 4 << 20;
/// How many dead letters one request reads, and about how many bytes of them.
const READ_MAX: usize = 10_000;
const READ_BYTES_MAX: usize = 64 << 20;

/// Why a dead letter stays one: code and detail.
type Reason = (String, String);

/// The next dead letters of a query. `partitions` is the number of partitions of the push source.
pub(super) fn offer(shard: &Arc<Shard>, query: &RedriveQuery, partitions: u32) -> Result<RedrivePage, Error> {
    let (rows, gone) = shard.with_state(|state| (state.rows.clone(), state.gone.clone()));
    let from = query.from.as_ref();
    let first = from.map(Partition::of);
    let is_wanted = |partition: &Partition| {
        let is_of_source = query.source.as_ref().is_none_or(|source| partition.source == *source);
        let is_only = !query.only || first.as_ref() == Some(partition);
        is_of_source && is_only && first.as_ref().is_none_or(|first| partition >= first)
    };
    let mut page = RedrivePage::default();
    let (mut bytes, mut read, mut bytes_read) = (0, 0, 0);
    for (partition, row) in rows.iter().filter(|(partition, _)| is_wanted(partition)) {
        let from = from.filter(|from| Partition::of(from) == *partition);
        for dead in shard.store().dead_records(partition, from) {
            let dead = dead?;
            let address = dead.letter.address.clone();
            if query.only && from != Some(&address) {
                return Ok(page);
            }
            read += 1;
            let is_full = page.offered.len() >= query.limit || read > READ_MAX || bytes_read > READ_BYTES_MAX;
            if is_full {
                page.next = Some(address);
                return Ok(page);
            }
            bytes_read += dead.letter.bytes.len();
            if query.code.as_ref().is_some_and(|code| dead.letter.code != *code) {
                continue;
            }
            let offer = Offer {
                shard,
                query,
                gone: &gone,
                partitions,
                read_through: row.offset,
            };
            let change = offer.change(dead)?;
            bytes += change.as_ref().map_or(0, Bytes::len);
            if bytes > CHANGES_BYTES_MAX && !page.offered.is_empty() {
                page.next = Some(address);
                return Ok(page);
            }
            page.offered.push(OfferedRedrive { address, change });
            if query.only {
                return Ok(page);
            }
        }
    }
    Ok(page)
}

/// What an offer depends on.
struct Offer<'a> {
    shard: &'a Shard,
    query: &'a RedriveQuery,
    gone: &'a GoneRanges,
    partitions: u32,
    read_through: i64,
}

impl Offer<'_> {
    /// The change that makes a dead letter a document, or why it cannot become one.
    fn change(&self, dead: DeadRecord) -> Result<Result<Bytes, Reason>, Error> {
        let is_whole = dead.is_whole();
        let DeadRecord { letter, record } = dead;
        let address = letter.address;
        let stays = |code: &str, detail: String| Ok(Err((code.to_owned(), detail)));
        if address.source.is_changes() {
            let detail = "it was no event: another program wrote it to the topic for changes";
            return stays("not_a_change", detail.into());
        }
        let Some(record) = record else {
            let detail = "the key, the time and the headers of its record are not stored: push what it should be";
            return stays("not_stored", detail.into());
        };
        let value = match &self.query.value {
            Some(value) => value.clone(),
            None if is_whole => letter.bytes,
            None => {
                let detail = format!(
                    "only the first {} of its {} bytes are stored: give it a value",
                    letter.bytes.len(),
                    letter.length
                );
                return stays("not_stored", detail);
            }
        };
        let rules = self.query.rules.get(&address.source).cloned().unwrap_or_default();
        let key_rule = match KeyRule::of(&rules, address.source.is_push()) {
            Ok(key_rule) => key_rule,
            Err(reason) => return stays("bad_rules", reason),
        };
        let id = match event::classify(Some(&value), record.key.as_deref(), rules.format, &key_rule) {
            Event::Document { id, .. } => id,
            Event::DeadLetter { code, detail } => return stays(code, detail),
            Event::Tombstone { .. } => return stays("empty", "it has no value".into()),
        };
        if let Some(id) = &id
            && let Some((code, detail)) = self.other_document(&address, id)?
        {
            return stays(code, detail);
        }
        let redrive = Redrive {
            read_through: self.read_through.max(address.offset),
            address,
            rules,
            record: Record {
                value: RecordValue::One(value),
                ..record
            },
        };
        Ok(Ok(DocumentChange::Redrive(Box::new(redrive)).encode()))
    }

    /// Why a document with a key cannot be here: it would replace a later one, or be beside it in another partition.
    fn other_document(&self, letter: &Address, id: &str) -> Result<Option<(&'static str, String)>, Error> {
        let partition = push_partition(id, self.partitions).cast_signed();
        if letter.source.is_push() && partition != letter.partition {
            let detail = format!(
                "a pushed document with the _id {id} belongs to partition {partition}, and this one was pushed without: push \
                 it again, and clear the dead letter"
            );
            return Ok(Some(("other_partition", detail)));
        }
        let known = self.shard.store().key_index(id.as_bytes())?;
        let mut later = known.documents().filter(|known| {
            let is_later = known.event() > Place::of(letter);
            known.partition() == Partition::of(letter) && is_later && !self.gone.contains(&known.address)
        });
        Ok(later.next().map(|later| {
            let detail = format!("a later record with the key {id} is there: {}", later.address);
            ("superseded", detail)
        }))
    }
}
