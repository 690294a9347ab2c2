//! Query side of the leaf: opens views, and lists documents, fields, status and dead letters.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use plan::{
    scan::{
        DeadLetter, DeadRecord, Document, Lookup, PathStatus, RedrivePage, RedriveQuery, Scan, ShardStatus, SplitStatus,
    },
    views::{OpenRequest, Opened},
};
use proto::{
    Address, Code, PositionVector, Problem,
    ingest::ShardId,
    limits::{LISTED_DEAD_LETTER_BYTES_MAX, LISTED_DEAD_LETTERS_BYTES_MAX},
};

use super::{Leaf, OPEN_WAIT, ShardInfo, redrives};
use crate::{
    error::Error,
    shard::{
        Shard,
        gone::GoneRanges,
        summary::{self, fields, split_status},
    },
    split::Segment,
    store::{Partition, Store},
    threads::blocking,
};

/// How long the lookup of a document waits for positions.
const POSITIONS_WAIT: Duration = Duration::from_secs(3);
/// Dead letters in one response.
const DEAD_LETTERS_MAX: usize = 10_000;
/// Bytes of one dead letter in a list, and of all.
const LISTED_BYTES_MAX: (usize, usize) = (LISTED_DEAD_LETTER_BYTES_MAX, LISTED_DEAD_LETTERS_BYTES_MAX);

#[async_trait]
impl Scan for Leaf {
    async fn open(&self, request: OpenRequest<'_>) -> Opened {
        let (views, outcomes) = self.open_read_views(request.shards, request.deadline).await;
        Opened {
            outcomes,
            prefetched: None,
            views: Box::new(views),
        }
    }

    async fn document(&self, shard: ShardId, id: &str, at_least: &PositionVector) -> Result<Lookup, Problem> {
        let boot = self.boot_of(shard);
        let shard = self.shard(shard).await?;
        let deadline = Instant::now() + OPEN_WAIT;
        self.wait_until_it_may_answer(&shard, deadline).await?;
        self.wait_for_changes(&shard, deadline).await?;
        // Another replica may have them.
        let until = deadline.min(Instant::now() + POSITIONS_WAIT);
        let waited = shard.wait_for_positions(at_least, until).await;
        waited.map_err(|problem| Problem::new(Code::Unavailable, problem.detail).hint("retry"))?;
        let (store, gone) = (shard.store().clone(), shard.with_state(|state| state.gone.clone()));
        let id = id.to_owned();
        let found = blocking(move || find(&store, &gone, &id)).await?;
        let document = found.map(|document| Document {
            id: document.id(),
            json: document.header.json,
            address: document.address,
            bytes: document.bytes,
        });
        Ok(Lookup { document, boot })
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem> {
        let shard = match self.info(shard).await? {
            ShardInfo::Closed(summary) => return Ok(summary.fields),
            ShardInfo::Open(shard) => shard,
        };
        let (paths, mut segments, tail) = shard.with_state(|state| {
            let segments: Vec<_> = state.segments.iter().map(|live| live.segment.clone()).collect();
            (state.paths(), segments, state.tail.live())
        });
        blocking(move || {
            if !tail.is_empty() {
                segments.push(Arc::new(Segment::in_memory(&tail)?));
            }
            Ok(fields(&paths, &segments))
        })
        .await
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        let shard = match self.info(shard).await? {
            ShardInfo::Closed(summary) => return Ok(summary.status(shard)),
            ShardInfo::Open(shard) => shard,
        };
        let (rows, segments, tail, heat) = shard.with_state(|state| {
            (
                state.rows.clone(),
                state.segments.clone(),
                state.tail.documents() as u64,
                state.heat(),
            )
        });
        blocking(move || {
            let splits: Vec<SplitStatus> = segments.iter().map(split_status).collect();
            let on_disk: u64 = splits
                .iter()
                .filter(|split| split.on_disk)
                .map(|split| split.bytes)
                .sum();
            let bytes = shard.store().bytes() + on_disk;
            Ok(ShardStatus {
                heat: heat.into_values().sum(),
                ..summary::status(shard.id, &rows, splits, tail, bytes)
            })
        })
        .await
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let Some(shard) = self.shard_with_dead_letters(shard).await? else {
            return Ok(Vec::new());
        };
        let limit = limit.min(DEAD_LETTERS_MAX);
        blocking(move || {
            let partitions: Vec<Partition> = shard.with_state(|state| state.rows.keys().cloned().collect());
            let mut letters = Vec::new();
            for partition in partitions {
                letters.extend(shard.store().dead_letters(&partition, limit, LISTED_BYTES_MAX)?);
                letters.sort_by(|a: &DeadLetter, b| (b.ingested_ms, &b.address).cmp(&(a.ingested_ms, &a.address)));
                let mut bytes = 0;
                let listed = letters.iter().take_while(|letter| {
                    bytes += letter.bytes.len();
                    bytes <= LISTED_DEAD_LETTERS_BYTES_MAX
                });
                let listed = listed.count().min(limit);
                letters.truncate(listed);
            }
            Ok(letters)
        })
        .await
    }

    async fn dead_record(&self, shard: ShardId, address: &Address) -> Result<Option<DeadRecord>, Problem> {
        let Some(shard) = self.shard_with_dead_letters(shard).await? else {
            return Ok(None);
        };
        let address = address.clone();
        blocking(move || {
            let first = shard
                .store()
                .dead_records(&Partition::of(&address), Some(&address))
                .next()
                .transpose()?;
            Ok(first.filter(|found| found.letter.address == address))
        })
        .await
    }

    async fn redrives(&self, shard: ShardId, query: &RedriveQuery) -> Result<RedrivePage, Problem> {
        let Some(shard) = self.shard_with_dead_letters(shard).await? else {
            return Ok(RedrivePage::default());
        };
        let catalog = self.catalog.borrow().clone();
        let collection = catalog.collection(shard.id.collection);
        let partitions = collection.map_or(1, |(_, collection)| collection.settings.shards);
        let query = query.clone();
        blocking(move || redrives::offer(&shard, &query, partitions)).await
    }
}

impl Leaf {
    /// A shard, unless it has no dead letters, which is true of most closed shards.
    async fn shard_with_dead_letters(&self, shard: ShardId) -> Result<Option<Arc<Shard>>, Problem> {
        Ok(match self.info(shard).await? {
            ShardInfo::Closed(summary) if summary.oldest_dead_letter_ms.is_none() => None,
            ShardInfo::Closed(_) => Some(self.shard(shard).await?),
            ShardInfo::Open(shard) => Some(shard),
        })
    }
}

/// The newest document with this key, or, if the id is an address, the document there unless it has a key.
fn find(store: &Store, gone: &GoneRanges, id: &str) -> Result<Option<crate::document::Document>, Error> {
    if let Ok(address) = id.parse::<Address>() {
        if gone.contains(&address) || store.is_deleted(&address)? {
            return Ok(None);
        }
        return Ok(store
            .document(&address)?
            .filter(|document| document.header.id.is_none()));
    }
    let mut newest: Option<crate::document::Document> = None;
    for address in store
        .key_index(id.as_bytes())?
        .iter()
        .filter(|address| !gone.contains(address))
    {
        let document = store.document(address)?;
        let is_newer = |document: &crate::document::Document| {
            newest
                .as_ref()
                .is_none_or(|newest| document.header.ingested_ms > newest.header.ingested_ms)
        };
        newest = document.filter(is_newer).or(newest);
    }
    Ok(newest)
}
