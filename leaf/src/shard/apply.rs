//! Records -> rows: everything that a group of batches and pushes writes, as one RocksDB batch.
//!
//! Reads what it replaces, writes nothing itself: a group that fails leaves no trace but kinds that are stored later.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    Address, Position, SourceName,
    ingest::{Batch, ItemError, PUSH_ERRORS_MAX, Push, Pushed, Verdict},
    record::{Record, RequestKey, TimeKind, Value},
};

use super::{
    dead_letters::Removal,
    event::{self, Event, Naming},
    judge::{self, Judgement},
    state::Change,
    trie::Trie,
};
use crate::{
    document::{Document, Header},
    error::Error,
    fault,
    options::LeafOptions,
    store::{
        Family, Holders, Kind, Partition, PartitionRow, RequestRow, RowKey, Store, WriteBatch, dead_letter,
        digest::{self, Fate},
        document,
        gone::Gone,
        kinds, request,
    },
};

/// Of the first so many events of a topic's partition …
const TRIAL_EVENTS: u64 = 1_000;
/// … more than so many dead ones stop it.
const TRIAL_DEAD_MAX: u64 = TRIAL_EVENTS / 2;
/// Items of one record that are set aside one by one; if there are more, all of its items are.
const SET_ASIDE_ITEMS_MAX: usize = 16;
/// Requests that one push clears away for their age.
const REQUESTS_CLEARED_MAX: usize = 100;

/// What outlives a group: the kinds of each partition's paths.
#[derive(Default)]
pub struct Memory {
    tries: HashMap<Partition, Trie>,
}

impl Memory {
    /// The kinds of a partition's paths; read from the store where they are not here.
    fn trie(&mut self, store: &Store, partition: &Partition) -> Result<&mut Trie, Error> {
        if !self.tries.contains_key(partition) {
            let (paths, overflow) = store.kinds(partition)?;
            self.tries.insert(partition.clone(), Trie::load(paths, overflow));
        }
        Ok(self.tries.get_mut(partition).expect("it was put in above"))
    }

    /// A group was written.
    pub fn saved(&mut self) {
        self.tries.values_mut().for_each(Trie::saved);
    }
}

/// The items of one record that become dead letters because the writer panicked on them.
#[derive(Default)]
pub struct SetAside {
    items: BTreeSet<u32>,
    all: bool,
    panic: String,
    /// The item at work.
    at: Cell<u32>,
}

impl SetAside {
    /// Adds the item at work, on which the writer panicked so; after so many all items. False, where all were set aside
    /// before.
    pub fn add(&mut self, panic: String) -> bool {
        let before = std::mem::replace(
            &mut self.all,
            !self.items.insert(self.at.get()) || self.items.len() > SET_ASIDE_ITEMS_MAX,
        );
        self.panic = panic;
        !before
    }

    fn dead<'e>(&self, item: Option<u32>) -> Option<Event<'e>> {
        let item = item.unwrap_or_default();
        self.at.set(item);
        (self.all || self.items.contains(&item)).then(|| Event::Dead {
            code: "panicked",
            detail: self.detail(),
        })
    }

    fn detail(&self) -> String {
        format!(
            "a defect of the program: it panicked while it took this in ({}); report it, and send it again to a version without it",
            self.panic
        )
    }
}

/// What became of a push.
pub enum PushOutcome {
    /// It is in this group.
    Applied(Pushed),
    /// It was applied before; the answer of then.
    Repeated(Pushed),
    /// The key was used for another body.
    OtherBody,
    /// Never; why.
    Refused(String),
}

/// How the records of one partition are read.
struct Target {
    partition: Partition,
    rules: proto::record::Rules,
    naming: Naming,
    now_ms: i64,
    /// Whether the records come from a log that has them still.
    logged: bool,
}

/// A group that is ready to be written.
pub struct Finished {
    /// All of it.
    pub batch: WriteBatch,
    /// Empty, save where a seeded bug tears the batch in two.
    pub torn: WriteBatch,
    /// What becomes visible once it is written.
    pub change: Change,
}

/// One group on its way into the store.
pub struct Group<'a> {
    store: &'a Store,
    memory: &'a mut Memory,
    known: &'a dyn Fn(&Partition) -> PartitionRow,
    options: &'a LeafOptions,
    aside: &'a SetAside,
    batch: WriteBatch,
    /// Always empty, save where a seeded bug tears the batch in two.
    torn: WriteBatch,
    rows: BTreeMap<Partition, PartitionRow>,
    holders: HashMap<Box<str>, Holders>,
    digests: BTreeMap<(Partition, i64), u128>,
    requests: HashMap<(Partition, String), RequestRow>,
    change: Change,
    weight: usize,
}

impl<'a> Group<'a> {
    /// An empty group. `known` gives a partition as it is stored; `aside` is for a group of one record.
    pub fn new(
        store: &'a Store,
        memory: &'a mut Memory,
        known: &'a dyn Fn(&Partition) -> PartitionRow,
        options: &'a LeafOptions,
        aside: &'a SetAside,
    ) -> Self {
        Self {
            store,
            memory,
            known,
            options,
            aside,
            batch: WriteBatch::default(),
            torn: WriteBatch::default(),
            rows: BTreeMap::new(),
            holders: HashMap::new(),
            digests: BTreeMap::new(),
            requests: HashMap::new(),
            change: Change::default(),
            weight: 0,
        }
    }

    /// Documents in it and what they weigh, in bytes.
    pub fn load(&self) -> (usize, usize) {
        (self.change.documents.len(), self.weight)
    }

    fn row(&mut self, partition: &Partition) -> &mut PartitionRow {
        let known = self.known;
        self.rows.entry(partition.clone()).or_insert_with(|| known(partition))
    }

    /// Judges a batch and takes what is new of it.
    pub fn write(&mut self, batch: &Batch, now_ms: i64) -> Result<Verdict, Error> {
        let partition = Partition {
            source: batch.source.clone(),
            number: batch.partition,
        };
        let row = self
            .rows
            .get(&partition)
            .cloned()
            .unwrap_or_else(|| (self.known)(&partition));
        let stored = row.offset;
        match judge::judge(batch, &row) {
            Judgement::Already => return Ok(Verdict::Already { stored }),
            Judgement::Gap => return Ok(Verdict::Gap { stored }),
            Judgement::Refused(reason) => return Ok(Verdict::Refused { reason }),
            Judgement::Take => {}
        }
        let naming = match Naming::of(&batch.rules, batch.source.is_push()) {
            Ok(naming) => naming,
            Err(reason) => return Ok(Verdict::Refused { reason }),
        };
        let target = Target {
            partition,
            rules: batch.rules.clone(),
            naming,
            now_ms,
            logged: true,
        };
        for record in batch.records.iter().filter(|record| record.offset > stored) {
            match &record.request {
                Some(request) if self.request(&target.partition, request, record.time_ms)?.is_some() => {
                    self.repeat(&target, record, request)?
                }
                Some(_) => drop(self.push_record(&target, record)?),
                None => self.record(&target, record, &mut |_, _, _| ())?,
            }
            if self.is_hopeless(&target.partition) {
                return Ok(self.stop(&target.partition, &batch.topic));
            }
        }
        let row = self.row(&target.partition);
        row.topic = Some(batch.topic.clone());
        row.offset = batch.through;
        row.last_ingested_ms = Some(now_ms);
        Ok(Verdict::Applied { stored: batch.through })
    }

    /// Whether so much of a topic is unusable that it cannot be meant.
    fn is_hopeless(&mut self, partition: &Partition) -> bool {
        let bytes_max = self.options.dead_letter_bytes_max;
        let row = self.row(partition);
        !partition.source.is_push() && (row.trial_dead > TRIAL_DEAD_MAX || row.dead_bytes > bytes_max)
    }

    fn request_rows_kept_ms(&self) -> i64 {
        i64::try_from(self.options.request_rows_kept.as_millis()).unwrap_or(i64::MAX)
    }

    /// Removes dead letters. A partition that they stopped goes on once few enough are left; what became of its events
    /// stays counted.
    pub fn remove_dead_letters(&mut self, removal: &Removal) {
        for key in &removal.keys {
            self.store.delete(&mut self.batch, Family::Docs, key);
        }
        let row = self.row(&removal.partition);
        row.dead_bytes = row.dead_bytes.saturating_sub(removal.bytes);
        if removal.on_request {
            // Whoever clears them says that the rest may be better: it is tried anew.
            (row.trial_records, row.trial_dead) = (0, 0);
        }
        let goes_on = row.dead && !self.is_hopeless(&removal.partition);
        self.row(&removal.partition).dead &= !goes_on;
    }

    /// Stops a partition at its last record, wherever the batch was cut.
    fn stop(&mut self, partition: &Partition, topic: &str) -> Verdict {
        let name = partition.to_string();
        let row = self.row(partition);
        row.topic = Some(topic.to_owned());
        row.offset = row.last_offset;
        row.dead = true;
        Verdict::Refused {
            reason: judge::dead_reason(&name, row),
        }
    }

    /// Applies a push at the next offset of its partition, unless its request was applied before.
    pub fn push(&mut self, push: &Push, now_ms: i64) -> Result<PushOutcome, Error> {
        let partition = Partition {
            source: SourceName::push(),
            number: push.partition,
        };
        let naming = judge::check_level(push.level).and_then(|()| Naming::of(&push.rules, true));
        let naming = match naming {
            Ok(naming) => naming,
            Err(reason) => return Ok(PushOutcome::Refused(reason)),
        };
        if let Some(request) = &push.request
            && let Some(known) = self.request(&partition, request, push.time_ms)?
        {
            let same = known.body == request.body;
            return Ok(if same {
                PushOutcome::Repeated(known.answer)
            } else {
                PushOutcome::OtherBody
            });
        }
        let offset = self.row(&partition).offset + 1;
        let value = match &push.items[..] {
            [one] => Value::One(one.clone()),
            many => Value::Many(many.to_vec()),
        };
        let request = push.request.clone();
        let record = Record {
            offset,
            value,
            time_ms: push.time_ms,
            time_kind: TimeKind::Append,
            request,
            ..Record::default()
        };
        let target = Target {
            partition,
            rules: push.rules.clone(),
            naming,
            now_ms,
            logged: false,
        };
        let answer = self.push_record(&target, &record)?;
        let row = self.row(&target.partition);
        row.topic.get_or_insert_with(|| SourceName::PUSH.to_owned());
        row.offset = offset;
        row.last_ingested_ms = Some(now_ms);
        Ok(PushOutcome::Applied(answer))
    }

    /// Takes a record that is a push, and notes its request with the answer.
    fn push_record(&mut self, target: &Target, record: &Record) -> Result<Pushed, Error> {
        let position = Position {
            source: target.partition.source.clone(),
            partition: target.partition.number,
            offset: record.offset,
        };
        let mut answer = Pushed {
            accepted: record.value.events(),
            rejected: 0,
            errors: Vec::new(),
            position,
            repeated: false,
        };
        self.record(target, record, &mut |index, code, detail| {
            answer.accepted -= 1;
            answer.rejected += 1;
            if answer.errors.len() < PUSH_ERRORS_MAX {
                answer.errors.push(ItemError {
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
                answer: answer.clone(),
            };
            self.requests
                .insert((target.partition.clone(), request.key.clone()), row);
        }
        Ok(answer)
    }

    /// Counts a push that stands in the log again: its request was applied before.
    fn repeat(&mut self, target: &Target, record: &Record, request: &RequestKey) -> Result<(), Error> {
        let outcomes = &mut self.row(&target.partition).outcomes;
        outcomes.events += record.value.events();
        outcomes.duplicates += record.value.events();
        self.digest(
            &target.partition.address(record.offset, None),
            Fate::Repeated,
            request.key.as_bytes(),
        )?;
        self.took(target, record);
        Ok(())
    }

    /// What became of a request, where it was applied and is not too old to count.
    fn request(&self, partition: &Partition, request: &RequestKey, time_ms: i64) -> Result<Option<RequestRow>, Error> {
        let known = match self.requests.get(&(partition.clone(), request.key.clone())) {
            Some(row) => Some(row.clone()),
            None => self.store.request(partition, &request.key)?,
        };
        Ok(known.filter(|row| row.time_ms >= time_ms.saturating_sub(self.request_rows_kept_ms())))
    }

    /// Takes one record. `dead` hears of every item that becomes a dead letter: its index, code and detail.
    fn record(&mut self, target: &Target, record: &Record, dead: &mut dyn FnMut(u64, &str, &str)) -> Result<(), Error> {
        match &record.value {
            Value::Null => self.event(target, record, None, None, dead)?,
            Value::One(bytes) => self.event(target, record, None, Some(bytes), dead)?,
            Value::Many(items) => {
                for (item, bytes) in (0u32..).zip(items) {
                    self.event(target, record, Some(item), Some(bytes), dead)?;
                }
            }
        }
        self.took(target, record);
        Ok(())
    }

    /// Notes the last record of a partition. Its hash proves the log where there is one.
    fn took(&mut self, target: &Target, record: &Record) {
        let hash = if target.logged { record.hash() } else { 0 };
        let row = self.row(&target.partition);
        row.last_offset = record.offset;
        row.hash = hash;
        if record.time_kind != TimeKind::None {
            row.last_record_ms = Some(record.time_ms);
        }
    }

    fn event(
        &mut self,
        target: &Target,
        record: &Record,
        item: Option<u32>,
        bytes: Option<&Bytes>,
        dead: &mut dyn FnMut(u64, &str, &str),
    ) -> Result<(), Error> {
        let address = target.partition.address(record.offset, item);
        let ingested_ms = if record.time_kind == TimeKind::Append {
            record.time_ms
        } else {
            target.now_ms
        };
        let read = || {
            event::read(
                bytes.map(|b| &b[..]),
                record.key.as_deref(),
                target.rules.format,
                &target.naming,
            )
        };
        let event = self.aside.dead(item).unwrap_or_else(read);
        let row = self.row(&target.partition);
        row.outcomes.events += 1;
        let on_trial = row.trial_records < TRIAL_EVENTS;
        row.trial_records += u64::from(on_trial);
        match event {
            Event::Document { id, value } => {
                if let Some(value) = &value {
                    self.memory.trie(self.store, &target.partition)?.observe(value);
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
                self.digest(&address, Fate::Accepted, &bytes)?;
                self.document(target, Document { address, header, bytes })
            }
            Event::Tombstone { id } => {
                row.outcomes.tombstones += 1;
                self.digest(&address, Fate::Tombstone, record.key.as_deref().unwrap_or_default())?;
                id.map_or(Ok(()), |id| self.remove(&target.partition, &id))
            }
            Event::Dead { code, detail } => {
                let bytes = bytes.map(|b| &b[..]).unwrap_or_default();
                if !fault::on("dead-letter-dropped") {
                    row.outcomes.dead_letters += 1;
                    let key = RowKey::new(Kind::DeadLetter).address(&address).bytes();
                    let value = dead_letter::encode(ingested_ms, code, &detail, bytes);
                    self.store.put(&mut self.batch, Family::Docs, &key, &value);
                }
                let row = self.row(&target.partition);
                row.trial_dead += u64::from(on_trial);
                row.dead_bytes += bytes.len() as u64;
                dead(u64::from(item.unwrap_or_default()), code, &detail);
                self.digest(&address, Fate::Dead, bytes)
            }
        }
    }

    fn document(&mut self, target: &Target, document: Document) -> Result<(), Error> {
        let key = RowKey::new(Kind::Document).address(&document.address).bytes();
        self.store
            .put(&mut self.batch, Family::Docs, &key, &document::encode(&document));
        let outcomes = &mut self.row(&target.partition).outcomes;
        outcomes.accepted += 1;
        outcomes.documents += 1;
        outcomes.bytes += document.bytes.len() as u64;
        if let Some(id) = &document.header.id {
            let others = self.holders(id)?.clone();
            let replaced = self.holders(id)?.put(document.address.clone());
            match replaced {
                Some(old) => {
                    let outcomes = &mut self.row(&target.partition).outcomes;
                    outcomes.superseded += 1;
                    outcomes.documents -= 1;
                    self.put_gone(old, Gone::Superseded);
                }
                None => self.count_elsewhere(&target.partition, &others, true),
            }
        }
        fault::panic_on("panic-in-writer", &document.bytes);
        self.weight += document.weight();
        self.change.documents.push(Arc::new(document));
        Ok(())
    }

    /// Removes the document of a key, if there is one.
    fn remove(&mut self, partition: &Partition, id: &str) -> Result<(), Error> {
        let Some(old) = self.holders(id)?.take(partition) else {
            return Ok(());
        };
        let others = self.holders(id)?.clone();
        let outcomes = &mut self.row(partition).outcomes;
        outcomes.deleted += 1;
        outcomes.documents -= 1;
        self.put_gone(old, Gone::Deleted);
        self.count_elsewhere(partition, &others, false);
        Ok(())
    }

    fn put_gone(&mut self, address: Address, why: Gone) {
        if !fault::on("delete-per-split") {
            let key = RowKey::new(Kind::Gone).address(&address).bytes();
            self.store.put(&mut self.batch, Family::Meta, &key, &why.encode());
        }
        self.change.gone.push(address);
    }

    /// A key came to a partition or left it: each partition counts its keys that another has too.
    fn count_elsewhere(&mut self, partition: &Partition, others: &Holders, came: bool) {
        if others.is_empty() {
            return;
        }
        let mut count = |partition: &Partition| {
            let row = self.row(partition);
            row.keys_elsewhere = if came {
                row.keys_elsewhere + 1
            } else {
                row.keys_elsewhere.saturating_sub(1)
            };
        };
        count(partition);
        if let (1, Some(other)) = (others.len(), others.iter().next()) {
            count(&Partition::of(other));
        }
    }

    fn holders(&mut self, id: &str) -> Result<&mut Holders, Error> {
        if !self.holders.contains_key(id) {
            let stored = self.store.holders(id.as_bytes())?;
            self.holders.insert(id.into(), stored);
        }
        Ok(self.holders.get_mut(id).expect("it was put in above"))
    }

    fn digest(&mut self, address: &Address, fate: Fate, bytes: &[u8]) -> Result<(), Error> {
        let key = (Partition::of(address), digest::block(address.offset));
        if !self.digests.contains_key(&key) {
            let stored = self.store.digest(&key.0, key.1)?;
            self.digests.insert(key.clone(), stored);
        }
        let sum = self.digests.get_mut(&key).expect("it was put in above");
        *sum = sum.wrapping_add(digest::term(address, fate, bytes));
        Ok(())
    }

    /// Everything to be written, and what becomes visible once it is. Nothing, where nothing changes.
    pub fn finish(mut self) -> Result<Option<Finished>, Error> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let store = self.store;
        for (partition, row) in &self.rows {
            debug_assert!(
                row.outcomes.balance() || fault::on("dead-letter-dropped"),
                "{partition}: {:?}",
                row.outcomes
            );
            let batch = if fault::on("position-in-second-batch") {
                &mut self.torn
            } else {
                &mut self.batch
            };
            store.put(
                batch,
                Family::Meta,
                &RowKey::new(Kind::Partition).partition(partition).bytes(),
                &row.encode(),
            );
        }
        for (id, holders) in &self.holders {
            match holders.is_empty() {
                true => store.delete(&mut self.batch, Family::Keys, id.as_bytes()),
                false => store.put(&mut self.batch, Family::Keys, id.as_bytes(), &holders.encode()),
            }
        }
        for ((partition, block), sum) in &self.digests {
            store.put(
                &mut self.batch,
                Family::Meta,
                &RowKey::new(Kind::Digest).partition(partition).signed(*block).bytes(),
                &digest::encode(*sum),
            );
        }
        self.put_requests()?;
        self.put_kinds();
        let mut change = self.change;
        change.rows = self.rows;
        Ok(Some(Finished {
            batch: self.batch,
            torn: self.torn,
            change,
        }))
    }

    fn put_requests(&mut self) -> Result<(), Error> {
        let requests = std::mem::take(&mut self.requests);
        let mut newest: BTreeMap<Partition, i64> = BTreeMap::new();
        for ((partition, key), row) in &requests {
            let time = newest.entry(partition.clone()).or_insert(row.time_ms);
            *time = (*time).max(row.time_ms);
            let batch = if fault::on("request-row-outside") {
                &mut self.torn
            } else {
                &mut self.batch
            };
            self.store
                .put(batch, Family::Meta, &request_key(partition, key), &row.encode());
            self.store.put(
                &mut self.batch,
                Family::Meta,
                &age_key(partition, row.time_ms, key),
                &request::age(),
            );
        }
        for (partition, time_ms) in newest {
            let before = time_ms.saturating_sub(self.request_rows_kept_ms());
            for (time_ms, key) in self.store.requests_before(&partition, before, REQUESTS_CLEARED_MAX)? {
                self.store
                    .delete(&mut self.batch, Family::Meta, &age_key(&partition, time_ms, &key));
                // A key that was used again has one row, of its newest use.
                let row = (partition.clone(), key);
                let used_again = match requests.get(&row) {
                    Some(_) => true,
                    None => self
                        .store
                        .request(&partition, &row.1)?
                        .is_some_and(|row| row.time_ms > time_ms),
                };
                if !used_again {
                    self.store
                        .delete(&mut self.batch, Family::Meta, &request_key(&partition, &row.1));
                }
            }
        }
        Ok(())
    }

    fn put_kinds(&mut self) {
        for (partition, trie) in &self.memory.tries {
            for (path, kinds) in trie.unsaved() {
                let key = RowKey::new(Kind::Kinds)
                    .partition(partition)
                    .rest(path.to_string().as_bytes())
                    .bytes();
                self.store
                    .put(&mut self.batch, Family::Meta, &key, &kinds::encode(kinds));
                self.change.kinds.push((path, kinds));
            }
            if trie.overflow_unsaved() {
                self.change.overflow = true;
                self.store.put(
                    &mut self.batch,
                    Family::Meta,
                    &RowKey::new(Kind::Kinds).partition(partition).bytes(),
                    &kinds::encode(plan::Kinds::default()),
                );
            }
        }
    }
}

fn request_key(partition: &Partition, key: &str) -> Vec<u8> {
    RowKey::new(Kind::Request)
        .partition(partition)
        .rest(key.as_bytes())
        .bytes()
}

fn age_key(partition: &Partition, time_ms: i64, key: &str) -> Vec<u8> {
    RowKey::new(Kind::RequestAge)
        .partition(partition)
        .signed(time_ms)
        .rest(key.as_bytes())
        .bytes()
}
