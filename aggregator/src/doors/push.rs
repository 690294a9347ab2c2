//! Stores the items of a push in partitions of the collection's push source.
//!
//! Every push has a home partition: that of its idempotency key or, without a key, the next one in turn. A body without
//! ids goes there as a whole. A document with an `_id` goes to the partition of its id, so that it finds earlier
//! documents with the same id. A push is atomic per partition. The home partition is written first, because it is the
//! one that notices that the key was used with another body.

mod delivery;
mod partition;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use metrics::counter;
use proto::{
    Code, CollectionName, PositionVector, Problem,
    catalog::{Change, Collection, CollectionSettings},
    ingest::{ItemError, PUSH_ERRORS_MAX, PushResult},
    record::RequestKey,
};
use tokio::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use self::{
    delivery::{Delivery, partly_stored, reachable_partition, without_key},
    partition::partition_items,
};
use super::byte_budget::ByteBudget;
use crate::query::{AppendUntil, Engine, OUTCOME_WAIT_MAX};

/// Bytes of an idempotency key.
const REQUEST_KEY_BYTES_MAX: usize = 255;
/// Partitions of one push that are written at once.
const PARTITIONS_AT_ONCE_MAX: usize = 16;

struct PushRequest {
    /// At least one.
    items: Vec<Bytes>,
    /// The idempotency key and the hash of the body.
    key: Option<RequestKey>,
    /// Counts the pushes of this node: spreads those without a key over the partitions.
    number: u64,
    /// Until when busy shards are retried.
    deadline: Instant,
}

/// Checks an idempotency key and joins it with the hash of the body.
pub(super) fn request_key(key: &str, body: &[u8]) -> Result<RequestKey, Problem> {
    let is_printable = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    match is_printable && (1..=REQUEST_KEY_BYTES_MAX).contains(&key.len()) {
        true => Ok(RequestKey {
            key: key.to_owned(),
            body: xxh3_128(body),
        }),
        false => Err(bad_request_key()),
    }
}

pub(super) fn bad_request_key() -> Problem {
    Problem::new(Code::BadRequest, "invalid idempotency key").hint(format!(
        "send one key of 1 to {REQUEST_KEY_BYTES_MAX} printable ASCII characters"
    ))
}

/// The entry point of all pushes. HTTP and gRPC share one, and so one byte budget.
pub(super) struct PushPipeline {
    /// Bytes of pushes in flight.
    pub budget: ByteBudget,
    /// Pushes so far.
    count: AtomicU64,
}

impl PushPipeline {
    /// `bytes_max` limits the bytes of pushes in flight.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            budget: ByteBudget::new(bytes_max),
            count: AtomicU64::new(0),
        }
    }

    /// Stores the items of one push. Creates the collection if it does not exist.
    pub(super) async fn push(
        &self,
        engine: &Engine,
        name: &CollectionName,
        items: Vec<Bytes>,
        key: Option<RequestKey>,
        deadline: Instant,
    ) -> Result<PushSummary, Problem> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let has_key = key.is_some();
        let request = PushRequest {
            items,
            key,
            number,
            deadline,
        };
        let outcome = push(engine, name, request)
            .await
            .map_err(|problem| if has_key { problem } else { without_key(problem) })?;
        counter!("rachis_push_items_total", "outcome" => "accepted").increment(outcome.accepted);
        counter!("rachis_push_items_total", "outcome" => "rejected").increment(outcome.rejected);
        Ok(outcome)
    }
}

/// The result of a push over all its partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PushSummary {
    pub accepted: u64,
    pub rejected: u64,
    /// Sorted by index, at most `PUSH_ERRORS_MAX`.
    pub errors: Vec<ItemError>,
    /// The position after the push in every partition that it wrote.
    pub position: PositionVector,
    /// Partitions that it was sent to.
    pub parts: usize,
    /// How many of them had stored their part already, for an earlier request with the same key.
    pub parts_repeated: usize,
}

/// Stores the items of a push. They are durable and visible when this returns.
async fn push(engine: &Engine, name: &CollectionName, request: PushRequest) -> Result<PushSummary, Problem> {
    let collection = get_or_create_collection(engine, name).await?;
    let shards = collection.settings.shards.max(1);
    let home = match &request.key {
        Some(key) => xxh3_64(key.key.as_bytes()) % u64::from(shards),
        None => reachable_partition(engine, collection.uid, request.number % u64::from(shards), shards).await,
    };
    let batches = partition_items(request.items, shards, home as u32, request.key.is_some());
    let delivery = Delivery {
        engine,
        name,
        collection: collection.uid,
        shards,
        key: request.key,
        time_ms: chrono::Utc::now().timestamp_millis(),
        until: AppendUntil {
            retried: request.deadline,
            outcome: Instant::now() + OUTCOME_WAIT_MAX,
        },
    };
    // Nothing is written before every partition is ready. A partition that is unavailable then fails the whole push,
    // and no client has to find out which part of it is stored.
    delivery.wait_until_ready(&batches).await?;
    let mut outcome = PushSummary::default();
    let mut batches = batches.into_iter();
    if let Some(first) = batches.next() {
        let (result, indexes) = delivery.send(first).await?;
        outcome.add(result, indexes);
    }
    let mut others = stream::iter(batches.map(|batch| delivery.send(batch))).buffered(PARTITIONS_AT_ONCE_MAX);
    while let Some(sent) = others.next().await {
        let (result, indexes) = sent.map_err(|problem| partly_stored(&problem))?;
        outcome.add(result, indexes);
    }
    outcome.errors.sort_by_key(|error| error.index);
    outcome.errors.truncate(PUSH_ERRORS_MAX);
    Ok(outcome)
}

async fn get_or_create_collection(engine: &Engine, name: &CollectionName) -> Result<Collection, Problem> {
    let catalog = engine.catalog();
    if let Some(collection) = catalog.collections.get(name) {
        return Ok(collection.clone());
    }
    let change = Change::CreateCollection {
        name: name.clone(),
        settings: CollectionSettings {
            shards: engine.options.push_shards.max(1),
            ..CollectionSettings::default()
        },
        placement: Vec::new(),
    };
    let catalog = engine.change_catalog(change).await?;
    let created = catalog.collections.get(name).cloned();
    created.ok_or_else(|| {
        Problem::new(Code::Conflict, format!("collection {name} was dropped during the push")).hint("retry the push")
    })
}

impl PushSummary {
    /// Whether an earlier request with the same key had stored all of it.
    pub(super) fn repeated(&self) -> bool {
        self.parts > 0 && self.parts_repeated == self.parts
    }

    /// Adds the result of one partition. `indexes` are the indexes of its items in the request, if it has not all.
    fn add(&mut self, result: PushResult, indexes: Option<Vec<u64>>) {
        self.parts += 1;
        self.parts_repeated += usize::from(result.repeated);
        self.accepted += result.accepted;
        self.rejected += result.rejected;
        self.position.advance(
            &result.position.source,
            result.position.partition,
            result.position.offset,
        );
        let request_index = |index: u64| {
            indexes
                .as_ref()
                .and_then(|all| all.get(index as usize))
                .copied()
                .unwrap_or(index)
        };
        self.errors.extend(result.errors.into_iter().map(|error| ItemError {
            index: request_index(error.index),
            ..error
        }));
    }
}

#[cfg(test)]
mod tests;
