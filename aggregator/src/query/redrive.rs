//! Dead letters: reads one with its record, and has shards ingest them again.
//!
//! ```text
//! leaf ══changes of those that would become documents══> the shard's partition of the source of changes ══> leaf
//! ```
//!
//! A change has the whole record of its dead letter, so it means the same to a shard that is filled again. However
//! many clients ask, and however often, the leaf makes at most one document of a dead letter.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use plan::scan::{DeadRecord, OfferedRedrive, RedriveQuery};
use proto::{
    Address, Catalog, CollectionName, PositionVector, Problem, SourceName,
    catalog::Collection,
    ingest::{ALREADY_REDRIVEN, CHANGE_RULES_LEVEL, PUSH_ERRORS_MAX, Push, ShardId},
    limits::REDRIVES_MAX,
    record::{Format, Key, Rules},
    routing::changes_partition,
};
use tokio::time::Instant;

use super::{AppendUntil, Engine, OUTCOME_WAIT_MAX, find_collection::find_collection};

/// How long one request ingests dead letters again; the next request continues.
const REDRIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// What to do after a failure.
const REPEAT: &str = "repeat the request: a dead letter becomes a document at most once";

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
    /// Those that became documents, or with `dry_run` those that would.
    pub redriven: u64,
    /// Those that still cannot become documents: they stay.
    pub rejected: u64,
    /// Those that another request ingested again meanwhile, or that are no dead letters.
    pub gone: u64,
    /// Why the first ones cannot become documents, at most [`PUSH_ERRORS_MAX`].
    pub errors: Vec<RejectedLetter>,
    /// An answer at this position has the documents.
    pub position: PositionVector,
    /// Where the next request goes on, if the time was over before all were tried.
    pub next: Option<Address>,
}

/// Why a dead letter still cannot become a document.
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
        self.roles.leaf.dead_record(shard, address).await
    }

    /// Ingests dead letters again. When it returns, the next answers have the documents that they became.
    pub(crate) async fn redrive(&self, name: &CollectionName, request: &RedriveRequest) -> Result<Redriven, Problem> {
        let _one_of_few = self.deletes.acquire().await;
        let catalog = self.catalog();
        let collection = find_collection(&catalog, name)?;
        let mut run = RedriveRun {
            engine: self,
            name,
            collection,
            request,
            rules: rules(&catalog, name, collection, request),
            until: Instant::now() + REDRIVE_TIME_MAX,
            redriven: Redriven::default(),
        };
        let finished = match &request.addresses {
            Some(addresses) => run.single_letters(addresses).await,
            None => run.all_shards().await,
        };
        finished.map_err(|problem| problem.hint(REPEAT))?;
        Ok(run.redriven)
    }
}

/// The rules by which the dead letters of each source are ingested again, dropped sources included.
fn rules(
    catalog: &Catalog,
    name: &CollectionName,
    collection: &Collection,
    request: &RedriveRequest,
) -> BTreeMap<SourceName, Rules> {
    let push = [(SourceName::push(), Rules::default())].into_iter();
    let retired = collection
        .retired_sources
        .iter()
        .map(|(name, source)| (name.clone(), source.rules.clone()));
    let sources = catalog
        .sources_of(name)
        .map(|(name, source)| (name.clone(), source.settings.rules.clone()));
    let with_request = |(source, of_source): (SourceName, Rules)| {
        let rules = Rules {
            format: request.format.unwrap_or(of_source.format),
            key: request.key.clone().or(of_source.key),
        };
        (source, rules)
    };
    push.chain(retired).chain(sources).map(with_request).collect()
}

fn shard_with(collection: &Collection, address: &Address) -> ShardId {
    collection.shard_at(&address.source, address.partition, address.offset)
}

struct RedriveRun<'a> {
    engine: &'a Engine,
    name: &'a CollectionName,
    collection: &'a Collection,
    request: &'a RedriveRequest,
    rules: BTreeMap<SourceName, Rules>,
    until: Instant,
    redriven: Redriven,
}

impl RedriveRun<'_> {
    fn query(&self, from: Option<Address>, only: bool) -> RedriveQuery {
        RedriveQuery {
            source: self.request.source.clone(),
            code: self.request.code.clone(),
            from,
            only,
            limit: REDRIVES_MAX,
            rules: self.rules.clone(),
            value: self.request.value.clone(),
        }
    }

    async fn single_letters(&mut self, addresses: &BTreeSet<Address>) -> Result<(), Problem> {
        for address in addresses
            .iter()
            .filter(|address| self.request.from.as_ref() <= Some(address))
        {
            let shard = shard_with(self.collection, address);
            let query = self.query(Some(address.clone()), true);
            let page = self.engine.roles.leaf.redrives(shard, &query).await?;
            if page.offered.is_empty() {
                self.redriven.gone += 1;
                self.note(
                    address.clone(),
                    "no_dead_letter",
                    "there is no dead letter at this address",
                );
            }
            self.ingest(shard, page.offered).await?;
            if Instant::now() >= self.until {
                self.redriven.next = Some(address_after(address.clone()));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes on with the other shards if one fails.
    async fn all_shards(&mut self) -> Result<(), Problem> {
        let mut from = self.request.from.clone();
        let first = from.as_ref().map(|from| shard_with(self.collection, from));
        let shards = self
            .collection
            .shards()
            .skip_while(|shard| first.is_some_and(|first| *shard != first));
        let mut failed = None;
        for shard in shards {
            match self.shard(shard, from.take()).await {
                Ok(()) if self.redriven.next.is_some() => break,
                Ok(()) => {}
                Err(problem) => failed = Some(problem),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn shard(&mut self, shard: ShardId, mut from: Option<Address>) -> Result<(), Problem> {
        loop {
            let page = self.engine.roles.leaf.redrives(shard, &self.query(from, false)).await?;
            self.ingest(shard, page.offered).await?;
            let Some(next) = page.next else {
                return Ok(());
            };
            if Instant::now() >= self.until {
                self.redriven.next = Some(next);
                return Ok(());
            }
            from = Some(next);
        }
    }

    /// Ingests some dead letters of a shard again, in one record.
    async fn ingest(&mut self, shard: ShardId, offered: Vec<OfferedRedrive>) -> Result<(), Problem> {
        let (mut addresses, mut items) = (Vec::new(), Vec::new());
        for OfferedRedrive { address, change } in offered {
            match change {
                Ok(change) => {
                    items.push(change);
                    addresses.push(address);
                }
                Err((code, detail)) => {
                    self.redriven.rejected += 1;
                    self.note(address, &code, &detail);
                }
            }
        }
        if items.is_empty() || self.request.dry_run {
            self.redriven.redriven += items.len() as u64;
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
