//! Converts records to rows: everything that a group of batches and pushes writes, as one RocksDB batch.
//!
//! A group reads what it replaces but writes nothing itself. A group that fails leaves no trace, except for path kinds
//! that are stored later.

mod changes;
mod events;
mod finish;
mod quarantine;
mod redrive;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use proto::{
    Address, Position,
    ingest::{Batch, BatchOutcome, ItemError, PUSH_ERRORS_MAX, Push, PushResult},
    record::{Record, RecordValue, RequestKey, TimeKind},
};
pub(crate) use quarantine::QuarantinedItems;

use super::{
    batch_check::{self, BatchCheck},
    event::KeyRule,
    gone::GoneRanges,
    job::DeadLetterRemoval,
    state::{ShardState, StateChange},
    trie::Trie,
};
use crate::{
    document::Document,
    error::Error,
    options::LeafOptions,
    store::{
        KeyIndexRow, Partition, PartitionRow, RequestRow, Store, WriteBatch,
        digest::{self, DigestTag},
        key_index::RedrivenLetter,
    },
};

/// A partition of a topic is stopped if more than `TRIAL_DEAD_MAX` of its first `TRIAL_EVENTS` events are dead letters.
const TRIAL_EVENTS: u64 = 1_000;
const TRIAL_DEAD_MAX: u64 = TRIAL_EVENTS / 2;

/// The kinds of the paths of each partition, cached across groups.
#[derive(Default)]
pub(crate) struct KindsCache {
    tries: HashMap<Partition, Trie>,
}

impl KindsCache {
    /// The trie of a partition; loaded from the store if it is not cached.
    fn trie(&mut self, store: &Store, partition: &Partition) -> Result<&mut Trie, Error> {
        if !self.tries.contains_key(partition) {
            let (paths, overflow) = store.kinds(partition)?;
            self.tries.insert(partition.clone(), Trie::load(paths, overflow));
        }
        Ok(self.tries.get_mut(partition).expect("it was inserted above"))
    }

    /// Marks all kinds as stored, after a group was written.
    pub(crate) fn saved(&mut self) {
        self.tries.values_mut().for_each(Trie::saved);
    }
}

pub(crate) enum PushOutcome {
    /// It is applied in this group.
    Applied(PushResult),
    /// It was applied before, with this result.
    Repeated(PushResult),
    /// Its request key was used for a different body.
    BodyMismatch,
    /// It can never be applied; the reason.
    Refused(String),
}

/// The rules for the records of one partition.
struct IngestContext {
    partition: Partition,
    rules: proto::record::Rules,
    key_rule: KeyRule,
    now_ms: i64,
    /// Whether the records come from a log that still has them.
    logged: bool,
    /// The dead letter that is ingested again.
    redriven: Option<Redriving>,
}

/// A dead letter that a change ingests again.
struct Redriving {
    letter: RedrivenLetter,
    /// When the change was ingested.
    ingested_ms: i64,
}

impl IngestContext {
    /// When a record was ingested: when the log appended it or, if the log does not say, when it was read from there.
    fn ingested_ms(&self, record: &Record) -> i64 {
        if let Some(redriven) = &self.redriven {
            return redriven.ingested_ms;
        }
        match record.time_kind {
            TimeKind::Append => record.time_ms,
            TimeKind::None | TimeKind::Create => record.ingested_ms.unwrap_or(self.now_ms),
        }
    }
}

/// A group that is ready to be written.
pub(crate) struct FinishedGroup {
    /// All of its rows.
    pub batch: WriteBatch,
    /// What becomes visible once the group is written.
    pub change: StateChange,
}

/// Requests by partition and request key.
type Requests = HashMap<(Partition, String), RequestRow>;

/// A group of batches, pushes and removals that is written at once.
pub(crate) struct Group<'a> {
    store: &'a Store,
    kinds_cache: &'a mut KindsCache,
    state: &'a Mutex<ShardState>,
    /// What was deleted before this group.
    gone: Arc<GoneRanges>,
    options: &'a LeafOptions,
    quarantine: &'a QuarantinedItems,
    batch: WriteBatch,
    rows: BTreeMap<Partition, PartitionRow>,
    key_index: HashMap<Box<str>, KeyIndexRow>,
    digests: BTreeMap<(Partition, i64), u128>,
    requests: Requests,
    /// The dead letters that this group ingests again, each with the address of its change.
    redriven: BTreeMap<Address, Address>,
    change: StateChange,
    memory_bytes: usize,
}

impl<'a> Group<'a> {
    /// An empty group over the state of the shard; `quarantine` applies to a group of one record.
    pub(crate) fn new(
        store: &'a Store,
        kinds_cache: &'a mut KindsCache,
        state: &'a Mutex<ShardState>,
        options: &'a LeafOptions,
        quarantine: &'a QuarantinedItems,
    ) -> Self {
        Self {
            store,
            kinds_cache,
            gone: state.lock().gone.clone(),
            state,
            options,
            quarantine,
            batch: WriteBatch::default(),
            rows: BTreeMap::new(),
            key_index: HashMap::new(),
            digests: BTreeMap::new(),
            requests: HashMap::new(),
            redriven: BTreeMap::new(),
            change: StateChange::default(),
            memory_bytes: 0,
        }
    }

    /// The number of documents in the group, and their size in memory in bytes.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.change.documents.len(), self.memory_bytes)
    }

    fn row(&mut self, partition: &Partition) -> &mut PartitionRow {
        let state = self.state;
        self.rows
            .entry(partition.clone())
            .or_insert_with(|| state.lock().row(partition))
    }

    /// Checks a batch and applies its new records.
    pub(crate) fn add_batch(&mut self, batch: &Batch, now_ms: i64) -> Result<BatchOutcome, Error> {
        let partition = Partition {
            source: batch.source.clone(),
            number: batch.partition,
        };
        let row = self
            .rows
            .get(&partition)
            .cloned()
            .unwrap_or_else(|| self.state.lock().row(&partition));
        let stored = row.offset;
        let key_rule = match KeyRule::of(&batch.rules, batch.source.is_push()) {
            Ok(key_rule) => key_rule,
            Err(reason) => return Ok(BatchOutcome::Refused { reason }),
        };
        match batch_check::check(batch, &row) {
            BatchCheck::Already => return Ok(BatchOutcome::Already { stored }),
            BatchCheck::Gap => return Ok(BatchOutcome::Gap { stored }),
            BatchCheck::Refused(reason) => return Ok(BatchOutcome::Refused { reason }),
            BatchCheck::Take => {}
        }
        let context = IngestContext {
            partition,
            rules: batch.rules.clone(),
            key_rule,
            now_ms,
            logged: true,
            redriven: None,
        };
        let row = self.row(&context.partition);
        if row.topic.is_none() && row.last_offset < 0 {
            row.run_from = batch.records.first().map_or(batch.through + 1, |record| record.offset);
        }
        for record in batch.records.iter().filter(|record| record.offset > stored) {
            match &record.request {
                Some(request) if self.request(&context.partition, request, record.time_ms)?.is_some() => {
                    self.count_repeated(&context, record, request)?
                }
                Some(_) => drop(self.apply_push_record(&context, record)?),
                None => self.apply_record(&context, record, &mut |_, _, _| ())?,
            }
            if self.exceeds_dead_letter_limits(&context.partition) {
                return Ok(self.stop(&context.partition, &batch.topic));
            }
        }
        let row = self.row(&context.partition);
        row.topic = Some(batch.topic.clone());
        row.rules_hash = batch.rules.hash();
        row.offset = batch.through;
        row.last_ingested_ms = Some(now_ms);
        Ok(BatchOutcome::Applied { stored: batch.through })
    }

    /// Whether so much of a topic is unusable that its configuration must be wrong.
    fn exceeds_dead_letter_limits(&mut self, partition: &Partition) -> bool {
        let bytes_max = self.options.dead_letter_bytes_max;
        let row = self.row(partition);
        !partition.source.is_own() && (row.trial_dead > TRIAL_DEAD_MAX || row.dead_bytes > bytes_max)
    }

    fn request_retention_ms(&self) -> i64 {
        i64::try_from(self.options.request_rows_kept.as_millis()).unwrap_or(i64::MAX)
    }

    /// Removes dead letters. A partition that was stopped because of them resumes once few enough are left. The outcome
    /// counters do not change.
    pub(crate) fn remove_dead_letters(&mut self, removal: &DeadLetterRemoval) -> Result<(), Error> {
        for key in &removal.keys {
            self.remove_dead_letter(&removal.partition, key)?;
        }
        let row = self.row(&removal.partition);
        row.dead_letters_cleared_through = row.dead_letters_cleared_through.max(removal.through);
        if removal.on_request {
            // The request implies that the remaining events may be usable, so the trial starts again.
            (row.trial_records, row.trial_dead) = (0, 0);
        }
        self.resume(&removal.partition);
        Ok(())
    }

    /// Removes the row of a dead letter, if it is stored.
    fn remove_dead_letter(&mut self, partition: &Partition, key: &[u8]) -> Result<(), Error> {
        let Some(length) = self.store.delete_dead_letter(&mut self.batch, key)? else {
            return Ok(());
        };
        let row = self.row(partition);
        row.dead_bytes = row.dead_bytes.saturating_sub(length);
        row.dead_letters = row.dead_letters.saturating_sub(1);
        Ok(())
    }

    /// Resumes a partition that dead letters have stopped, if few enough are left.
    fn resume(&mut self, partition: &Partition) {
        let resumes = self.row(partition).stopped_by_dead_letters && !self.exceeds_dead_letter_limits(partition);
        self.row(partition).stopped_by_dead_letters &= !resumes;
    }

    /// Stops a partition at its last record, which may be in the middle of a batch.
    fn stop(&mut self, partition: &Partition, topic: &str) -> BatchOutcome {
        let name = partition.to_string();
        let row = self.row(partition);
        row.topic = Some(topic.to_owned());
        row.offset = row.last_offset;
        row.stopped_by_dead_letters = true;
        BatchOutcome::Refused {
            reason: batch_check::dead_reason(&name, row),
        }
    }

    /// Applies a push at the next offset of its partition, unless its request was already applied.
    pub(crate) fn add_push(&mut self, push: &Push, now_ms: i64) -> Result<PushOutcome, Error> {
        let partition = Partition {
            source: push.source.clone(),
            number: push.partition,
        };
        let key_rule = batch_check::check_level(push.level, &push.source).and_then(|()| KeyRule::of(&push.rules, true));
        let key_rule = match key_rule {
            Ok(key_rule) => key_rule,
            Err(reason) => return Ok(PushOutcome::Refused(reason)),
        };
        if let Some(request) = &push.request
            && let Some(known) = self.request(&partition, request, push.time_ms)?
        {
            let same = known.body == request.body;
            return Ok(if same {
                PushOutcome::Repeated(known.answer)
            } else {
                PushOutcome::BodyMismatch
            });
        }
        let offset = self.row(&partition).offset + 1;
        let value = match &push.items[..] {
            [one] => RecordValue::One(one.clone()),
            many => RecordValue::Many(many.to_vec()),
        };
        let record = Record {
            offset,
            value,
            time_ms: push.time_ms,
            time_kind: TimeKind::Append,
            request: push.request.clone(),
            ..Record::default()
        };
        let context = IngestContext {
            partition,
            rules: push.rules.clone(),
            key_rule,
            now_ms,
            logged: false,
            redriven: None,
        };
        let result = self.apply_push_record(&context, &record)?;
        let row = self.row(&context.partition);
        row.topic.get_or_insert_with(|| push.source.to_string());
        row.offset = offset;
        row.last_ingested_ms = Some(now_ms);
        Ok(PushOutcome::Applied(result))
    }

    /// Applies a record that is a push, and records its request with the result.
    fn apply_push_record(&mut self, context: &IngestContext, record: &Record) -> Result<PushResult, Error> {
        let position = Position {
            source: context.partition.source.clone(),
            partition: context.partition.number,
            offset: record.offset,
        };
        let mut result = PushResult {
            accepted: record.value.events(),
            rejected: 0,
            errors: Vec::new(),
            position,
            repeated: false,
        };
        self.apply_record(context, record, &mut |index, code, detail| {
            result.accepted -= 1;
            result.rejected += 1;
            if result.errors.len() < PUSH_ERRORS_MAX {
                result.errors.push(ItemError {
                    index,
                    code: code.to_owned(),
                    detail: detail.to_owned(),
                });
            }
        })?;
        if let Some(request) = &record.request {
            let row = RequestRow {
                body: request.body,
                time_ms: record.time_ms,
                answer: result.clone(),
            };
            self.requests
                .insert((context.partition.clone(), request.key.clone()), row);
        }
        Ok(result)
    }

    /// Counts a record of an own source that is in the log again although its request was already applied.
    fn count_repeated(&mut self, context: &IngestContext, record: &Record, request: &RequestKey) -> Result<(), Error> {
        let outcomes = &mut self.row(&context.partition).outcomes;
        outcomes.events += record.value.events();
        outcomes.duplicates += record.value.events();
        self.digest(
            &context.partition.address(record.offset, None),
            DigestTag::Repeated,
            request.key.as_bytes(),
        )?;
        self.advance(context, record);
        Ok(())
    }

    /// The row of a request that was applied, unless it has expired.
    fn request(&self, partition: &Partition, request: &RequestKey, time_ms: i64) -> Result<Option<RequestRow>, Error> {
        let known = match self.requests.get(&(partition.clone(), request.key.clone())) {
            Some(row) => Some(row.clone()),
            None => self.store.request(partition, &request.key)?,
        };
        Ok(known.filter(|row| row.time_ms >= time_ms.saturating_sub(self.request_retention_ms())))
    }

    /// Applies one record. Calls `on_dead` for every item that becomes a dead letter, with its index, code and detail.
    fn apply_record(
        &mut self,
        context: &IngestContext,
        record: &Record,
        on_dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        if context.partition.source.is_changes() {
            return self.apply_changes(context, record, on_dead);
        }
        match &record.value {
            RecordValue::Null => self.apply_event(context, record, None, None, on_dead)?,
            RecordValue::One(bytes) => self.apply_event(context, record, None, Some(bytes), on_dead)?,
            RecordValue::Many(items) => {
                for (item, bytes) in (0u32..).zip(items) {
                    self.apply_event(context, record, Some(item), Some(bytes), on_dead)?;
                }
            }
        }
        self.advance(context, record);
        Ok(())
    }

    /// Records the last record of a partition. Its hash identifies the log, if there is one.
    fn advance(&mut self, context: &IngestContext, record: &Record) {
        let hash = if context.logged { record.hash() } else { 0 };
        let row = self.row(&context.partition);
        row.last_offset = record.offset;
        row.hash = hash;
        if record.time_kind != TimeKind::None {
            row.last_record_ms = Some(record.time_ms);
        }
    }

    fn digest(&mut self, address: &Address, tag: DigestTag, bytes: &[u8]) -> Result<(), Error> {
        let key = (Partition::of(address), digest::block(address.offset));
        if !self.digests.contains_key(&key) {
            let stored = self.store.digest(&key.0, key.1)?;
            self.digests.insert(key.clone(), stored);
        }
        let sum = self.digests.get_mut(&key).expect("it was inserted above");
        *sum = sum.wrapping_add(digest::term(address, tag, bytes));
        Ok(())
    }

    fn add_document(&mut self, document: Document) {
        self.memory_bytes += document.memory_bytes();
        self.change.documents.push(Arc::new(document));
    }
}
