//! Dead letters: reads one with its record, and has shards ingest them again.
//!
//! ```text
//! leaf ══dead records══> changes ══append══> the shard's partition of the source of changes ══> leaf: documents
//! ```
//!
//! A change has the whole record of its dead letter, so it means the same to a shard that is filled again. The leaf
//! ingests each dead letter again once, whoever asks for it and however often.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use plan::scan::{DeadLettersFrom, DeadRecord};
use proto::{
    Address, Catalog, CollectionName, PositionVector, Problem, SourceName,
    catalog::Collection,
    document_change::{DocumentChange, Redrive},
    ingest::{ALREADY_REDRIVEN, CHANGE_RULES_LEVEL, PUSH_ERRORS_MAX, Push, ShardId},
    limits::REDRIVES_MAX,
    record::{Format, Key, Record, RecordValue, Rules},
    routing::{changes_partition, shard_of},
};
use tokio::time::Instant;

use super::{AppendUntil, Engine, OUTCOME_WAIT_MAX, find_collection::find_collection};

/// How long one request ingests dead letters again; the next request continues.
const REDRIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// What to do after a failure.
const REPEAT: &str = "repeat the request: no dead letter is ingested again twice";

/// Which dead letters of a collection to ingest again, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedriveRequest {
    /// Only those of this source.
    pub source: Option<SourceName>,
    /// Only those with this code.
    pub code: Option<String>,
    /// Only these.
    pub addresses: Option<BTreeSet<Address>>,
    /// The value of the record, instead of its own: for a single address.
    pub value: Option<Bytes>,
    /// The format, instead of that of the source.
    pub format: Option<Format>,
    /// Where the key comes from, instead of the rule of the source.
    pub key: Option<Key>,
    /// Where an earlier request ended.
    pub from: Option<Address>,
    /// Whether the dead letters are only counted.
    pub dry_run: bool,
}

/// What became of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Redriven {
    /// Those that became documents, or with `dry_run` those that would be tried.
    pub redriven: u64,
    /// Those that became no documents again, and those that cannot: they stay.
    pub rejected: u64,
    /// Those that another request ingested again meanwhile, or that are no dead letters.
    pub gone: u64,
    /// Why the first ones became no documents, at most [`PUSH_ERRORS_MAX`].
    pub errors: Vec<RejectedLetter>,
    /// An answer at this position has the documents.
    pub position: PositionVector,
    /// Where the next request goes on, if the time was over before all were tried.
    pub next: Option<Address>,
}

/// Why a dead letter became no document again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RejectedLetter {
    pub address: Address,
    /// A stable word.
    pub code: String,
    pub detail: String,
}

impl Engine {
    /// A dead letter with its record.
    pub(crate) async fn dead_letter(
        &self,
        name: &CollectionName,
        address: &Address,
    ) -> Result<Option<DeadRecord>, Problem> {
        let catalog = self.catalog();
        let shard = shard_with(find_collection(&catalog, name)?, address);
        self.dead_record(shard, address).await
    }

    async fn dead_record(&self, shard: ShardId, address: &Address) -> Result<Option<DeadRecord>, Problem> {
        let wanted = DeadLettersFrom {
            source: Some(address.source.clone()),
            from: Some(address.clone()),
            limit: 1,
        };
        let found = self.roles.leaf.dead_records(shard, &wanted).await?;
        Ok(found.into_iter().find(|record| record.letter.address == *address))
    }

    /// Ingests dead letters again. When it returns, every answer has the documents that they became.
    pub(crate) async fn redrive(&self, name: &CollectionName, request: &RedriveRequest) -> Result<Redriven, Problem> {
        let catalog = self.catalog();
        let collection = find_collection(&catalog, name)?;
        let mut run = RedriveRun {
            engine: self,
            name,
            catalog: &catalog,
            collection,
            request,
            until: Instant::now() + REDRIVE_TIME_MAX,
            redriven: Redriven::default(),
        };
        let run_result = match &request.addresses {
            Some(addresses) => run.single_letters(addresses).await,
            None => run.all_shards().await,
        };
        let repeat = |problem: Problem| match problem.hint {
            None => problem.hint(REPEAT),
            Some(_) => problem,
        };
        run_result.map_err(repeat)?;
        Ok(run.redriven)
    }
}

fn shard_with(collection: &Collection, address: &Address) -> ShardId {
    ShardId {
        collection: collection.uid,
        number: shard_of(&address.source, address.partition, collection.settings.shards),
    }
}

struct RedriveRun<'a> {
    engine: &'a Engine,
    name: &'a CollectionName,
    catalog: &'a Catalog,
    collection: &'a Collection,
    request: &'a RedriveRequest,
    until: Instant,
    redriven: Redriven,
}

impl RedriveRun<'_> {
    async fn single_letters(&mut self, addresses: &BTreeSet<Address>) -> Result<(), Problem> {
        for address in addresses
            .iter()
            .filter(|address| self.request.from.as_ref() <= Some(address))
        {
            if self.is_over(address) {
                return Ok(());
            }
            let shard = shard_with(self.collection, address);
            match self.engine.dead_record(shard, address).await? {
                Some(record) => self.ingest(shard, vec![record]).await?,
                None => {
                    self.redriven.gone += 1;
                    self.note(
                        address.clone(),
                        "no_dead_letter",
                        "there is no dead letter at this address",
                    );
                }
            }
        }
        Ok(())
    }

    async fn all_shards(&mut self) -> Result<(), Problem> {
        let mut from = self.request.from.clone();
        let first = from.as_ref().map(|from| shard_with(self.collection, from));
        for shard in self
            .collection
            .shards()
            .skip_while(|shard| first.is_some_and(|first| *shard != first))
        {
            let mut wanted = DeadLettersFrom {
                source: self.request.source.clone(),
                from: from.take(),
                limit: REDRIVES_MAX,
            };
            loop {
                let records = self.engine.roles.leaf.dead_records(shard, &wanted).await?;
                let address = |record: &DeadRecord| record.letter.address.clone();
                let (Some(first), Some(last)) = (records.first().map(address), records.last().map(address)) else {
                    break;
                };
                if self.is_over(&first) {
                    return Ok(());
                }
                let has_code = |record: &DeadRecord| {
                    let code = self.request.code.as_ref();
                    code.is_none_or(|code| record.letter.code == *code)
                };
                let records = records.into_iter().filter(has_code).collect();
                self.ingest(shard, records).await?;
                wanted.from = Some(address_after(last));
            }
        }
        Ok(())
    }

    /// Whether the time is over, so that the next request goes on at this address.
    fn is_over(&mut self, next: &Address) -> bool {
        let is_over = Instant::now() >= self.until;
        self.redriven.next = is_over.then(|| next.clone());
        is_over
    }

    /// Ingests some dead letters of a shard again, in one record.
    async fn ingest(&mut self, shard: ShardId, records: Vec<DeadRecord>) -> Result<(), Problem> {
        let (mut addresses, mut items) = (Vec::new(), Vec::new());
        for dead in records {
            let address = dead.letter.address.clone();
            match self.change(dead) {
                Ok(change) => {
                    items.push(change);
                    addresses.push(address);
                }
                Err((code, detail)) => {
                    self.redriven.rejected += 1;
                    self.note(address, code, &detail);
                }
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let tried = items.len() as u64;
        if self.request.dry_run {
            self.redriven.redriven += tried;
            return Ok(());
        }
        let push = Push {
            shard,
            source: SourceName::changes(),
            partition: changes_partition(shard.number, self.collection.settings.shards),
            rules: Rules::default(),
            request: None,
            time_ms: chrono::Utc::now().timestamp_millis(),
            level: CHANGE_RULES_LEVEL,
            items,
        };
        let until = Instant::now() + OUTCOME_WAIT_MAX;
        let until = AppendUntil {
            retried: until,
            outcome: until,
        };
        let appended = self.engine.append(self.name, push, until).await?;
        self.redriven.redriven += appended.accepted;
        self.redriven
            .position
            .merge(&PositionVector::from_iter([appended.position]));
        for error in appended.errors {
            match error.code == ALREADY_REDRIVEN {
                true => self.redriven.gone += 1,
                false => self.redriven.rejected += 1,
            }
            let index = usize::try_from(error.index).unwrap_or(usize::MAX);
            if let Some(address) = addresses.get(index) {
                self.note(address.clone(), &error.code, &error.detail);
            }
        }
        Ok(())
    }

    /// The change that ingests a dead letter again, or why that cannot be: code and detail.
    fn change(&self, dead: DeadRecord) -> Result<Bytes, (&'static str, String)> {
        let DeadRecord { letter, record } = dead;
        let of_source = self.rules_of(&letter.address.source);
        let rules = Rules {
            format: self.request.format.unwrap_or(of_source.format),
            key: self.request.key.clone().or(of_source.key),
        };
        if letter.address.source.is_changes() {
            let detail = "it was no event: another program wrote it to the topic for changes";
            return Err(("not_a_change", detail.into()));
        }
        let record = match (&self.request.value, record) {
            (Some(value), record) => Record {
                value: RecordValue::One(value.clone()),
                ..record.unwrap_or_default()
            },
            (None, Some(record)) => record,
            (None, None) => {
                let detail = format!(
                    "only the first {} of its {} bytes are stored, or not its headers: give it a value",
                    letter.bytes.len(),
                    letter.length
                );
                return Err(("not_stored", detail));
            }
        };
        let redrive = Redrive {
            address: letter.address,
            rules,
            record,
        };
        Ok(DocumentChange::Redrive(Box::new(redrive)).encode())
    }

    /// The rules of a source, which may be dropped.
    fn rules_of(&self, source: &SourceName) -> Rules {
        let known = self.catalog.sources.get(source).map(|source| &source.settings);
        let known = known.filter(|settings| settings.collection == *self.name);
        let retired = || {
            self.collection
                .retired_sources
                .get(source)
                .map(|retired| &retired.rules)
        };
        known
            .map(|settings| &settings.rules)
            .or_else(retired)
            .cloned()
            .unwrap_or_default()
    }

    fn note(&mut self, address: Address, code: &str, detail: &str) {
        if self.redriven.errors.len() < PUSH_ERRORS_MAX {
            self.redriven.errors.push(RejectedLetter {
                address,
                code: code.to_owned(),
                detail: detail.to_owned(),
            });
        }
    }
}

/// The first address after another one.
fn address_after(address: Address) -> Address {
    let item = match address.item {
        None => Some(0),
        Some(item) => Some(item.saturating_add(1)),
    };
    Address { item, ..address }
}
