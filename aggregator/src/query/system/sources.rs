//! `rachis.sources`: joins what the tailers and the leaves report about each partition of a source.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use proto::{
    Catalog, CollectionName, Position, PositionVector, Problem, SourceName,
    catalog::Collection,
    ingest::{PartitionStatus, ShardAnswers},
    status::{SourceState, TailStatus},
};
use serde_json::{Value, json};

use super::{
    super::{Engine, TailStatuses},
    REQUESTS_AT_ONCE_MAX,
};

/// The state of a partition whose leaf is unavailable: its tailer has nothing to send or cannot send it, and how much
/// is stored is not known.
const UNKNOWN: &str = "unknown";

/// The key of a row. Without a partition, the row is about the whole source.
type SourceRowKey = (CollectionName, SourceName, Option<i32>);

/// What is known about a partition.
#[derive(Default)]
struct SourceRow {
    /// What its tailer reports.
    tail: Option<TailStatus>,
    /// What its shards have stored, as one.
    stored: Option<PartitionStatus>,
    /// Whether its records belong to several shards.
    is_spread: bool,
    /// Why its leaf did not answer.
    leaf_unavailable: Option<Problem>,
}

/// `rachis.sources`: a row per partition that a tailer reads or a leaf stores.
pub(super) async fn sources(engine: &Engine) -> Result<Vec<Value>, Problem> {
    let catalog = engine.catalog();
    let mut rows: BTreeMap<SourceRowKey, SourceRow> = BTreeMap::new();
    let TailStatuses {
        rows: tails,
        unavailable: tailers_unavailable,
    } = engine.tails().await?;
    for tail in tails {
        let key = (tail.collection.clone(), tail.source.clone(), tail.partition);
        rows.entry(key).or_default().tail = Some(tail);
    }
    if tailers_unavailable.is_some() {
        for (name, source) in &catalog.sources {
            rows.entry((source.settings.collection.clone(), name.clone(), None))
                .or_default();
        }
    }
    add_stored(engine, &catalog, &mut rows).await;
    // While a source is not read (its broker is unavailable, or it is suspended), its status is that of each partition.
    let source_tails: BTreeMap<(&CollectionName, &SourceName), &TailStatus> = rows
        .iter()
        .filter(|((_, _, partition), _)| partition.is_none())
        .filter_map(|((collection, source, _), row)| Some(((collection, source), row.tail.as_ref()?)))
        .collect();
    let with_partitions: BTreeSet<(&CollectionName, &SourceName)> = rows
        .keys()
        .filter(|(_, _, partition)| partition.is_some())
        .map(|(collection, source, _)| (collection, source))
        .collect();
    // The row of a whole source is shown only for partitions that neither a tailer nor a leaf reports.
    let shown = rows.iter().filter(|((collection, source, partition), row)| {
        partition.is_some() || row.leaf_unavailable.is_some() || !with_partitions.contains(&(collection, source))
    });
    Ok(shown
        .map(|(key, row)| {
            let tail = row
                .tail
                .as_ref()
                .or_else(|| source_tails.get(&(&key.0, &key.1)).copied());
            source_row(key, row, tail, tailers_unavailable.as_deref())
        })
        .collect())
}

/// Adds what the leaves report. If a leaf is unavailable, what the tailers report is still shown, and what only the
/// leaf knows is NULL.
async fn add_stored(engine: &Engine, catalog: &Catalog, rows: &mut BTreeMap<SourceRowKey, SourceRow>) {
    let requests = catalog
        .collections
        .iter()
        .map(|(name, collection)| available_partitions(engine, name.clone(), collection.clone()))
        .collect::<Vec<_>>();
    let answers: Vec<_> = stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await;
    let mut incomplete = BTreeMap::new();
    for (name, collection, partitions) in answers {
        let mut of_partitions: BTreeMap<(SourceName, i32), Vec<PartitionStatus>> = BTreeMap::new();
        for stored in partitions.available {
            let key = (stored.position.source.clone(), stored.position.partition);
            of_partitions.entry(key).or_default().push(stored);
        }
        for ((source, partition), stored) in of_partitions {
            let is_spread = collection.route(&source, partition).is_spread();
            let row = rows.entry((name.clone(), source, Some(partition))).or_default();
            (row.stored, row.is_spread) = (of_shards(&collection, stored), is_spread);
        }
        if !partitions.unavailable.is_empty() {
            incomplete.insert(name, (collection, partitions.unavailable));
        }
    }
    for ((name, source, partition), row) in rows {
        let Some((collection, unavailable)) = incomplete.get(name) else {
            continue;
        };
        row.leaf_unavailable = match partition {
            Some(partition) => {
                let shares = collection.route(source, *partition).shares().into_iter();
                let mut away = shares.filter_map(|share| unavailable.get(&share.shard));
                away.next().cloned()
            }
            None => unavailable.values().next().cloned(),
        };
        if row.leaf_unavailable.is_some() {
            row.stored = None;
        }
    }
}

/// What several shards have stored of one partition, as one: the shard of its newest records, and the sum of the events.
fn of_shards(collection: &Collection, stored: Vec<PartitionStatus>) -> Option<PartitionStatus> {
    let outcomes = stored.iter().map(|of| of.outcomes).sum();
    let heat = stored.iter().map(|of| of.heat).sum();
    let keys_elsewhere = stored.iter().map(|of| of.keys_elsewhere).sum();
    let last_record_ms = stored.iter().filter_map(|of| of.last_record_ms).max();
    let last_ingested_ms = stored.iter().filter_map(|of| of.last_ingested_ms).max();
    let first = stored.first()?.clone();
    let (source, partition) = (&first.position.source, first.position.partition);
    let route = collection.route(source, partition);
    let of_shard = |shard: u32| stored.iter().find(|of| of.shard.number == shard);
    let offset = route.position(|shard| Some(of_shard(shard).map(|of| of.position.offset)));
    let newest = route.shard_at(offset.unwrap_or_default());
    Some(PartitionStatus {
        outcomes,
        heat,
        keys_elsewhere,
        last_record_ms,
        last_ingested_ms,
        position: Position {
            offset: offset.unwrap_or(-1),
            ..first.position.clone()
        },
        ..of_shard(newest).cloned().unwrap_or(first)
    })
}

/// `rachis.deletes`: the last deletes of each collection, and whether the bytes of their documents are gone from the disks
/// of the leaves. That is NULL while a leaf does not answer.
pub(super) async fn deletes(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let with_deletes = catalog
        .collections
        .iter()
        .filter(|(_, collection)| !collection.deletions.is_empty());
    let requests: Vec<_> = with_deletes
        .map(|(name, collection)| available_partitions(engine, name.clone(), collection.clone()))
        .collect();
    let answers: Vec<_> = stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await;
    let mut rows = Vec::new();
    for (name, _, partitions) in answers {
        let erased = |status: PartitionStatus| {
            let offset = status.erased_through?;
            Some(Position {
                offset,
                ..status.position
            })
        };
        let error = partitions.error();
        let erased: PositionVector = partitions.available.into_iter().filter_map(erased).collect();
        let deletions = catalog.collections.get(&name).into_iter();
        for deletion in deletions.flat_map(|collection| &collection.deletions) {
            let is_known = |p: Position| erased.get(&p.source, p.partition).is_some();
            let is_erased = deletion
                .position
                .iter()
                .all(is_known)
                .then(|| erased.covers(&deletion.position));
            rows.push(json!({
                "id": deletion.id.to_string(),
                "collection": name,
                "requested": deletion.requested_ms,
                "condition": deletion.condition,
                "documents": deletion.documents,
                "complete": deletion.complete,
                "erased": is_erased,
                "cause": if deletion.expired { "retention" } else { "request" },
                "author": deletion.author,
                "position": deletion.position.to_string(),
                "error": error.as_ref().filter(|_| is_erased.is_none()),
            }));
        }
    }
    rows
}

async fn available_partitions(
    engine: &Engine,
    name: CollectionName,
    collection: Collection,
) -> (CollectionName, Collection, ShardAnswers<PartitionStatus>) {
    let shards = collection.settings.shards;
    let partitions = engine.roles.ingest.available_partitions(collection.uid, shards).await;
    (name, collection, partitions)
}

fn source_row(
    (collection, source, partition): &SourceRowKey,
    row: &SourceRow,
    tail: Option<&TailStatus>,
    tailers_unavailable: Option<&str>,
) -> Value {
    let stored = row.stored.as_ref();
    let leaf_answered = row.leaf_unavailable.is_none();
    let count = |count: fn(&PartitionStatus) -> u64| stored.map(count).or(leaf_answered.then_some(0));
    let error = tail
        .and_then(|tail| tail.error.clone())
        .or_else(|| row.leaf_unavailable.as_ref().map(Problem::to_string))
        .or_else(|| tailers_unavailable.map(str::to_owned));
    json!({
        "collection": collection,
        "source": source,
        "partition": partition,
        "state": state(source, row, tail, tailers_unavailable.is_some()),
        "position": stored.map(|stored| stored.position.offset),
        "end": tail.and_then(|tail| tail.end),
        "lag": tail.filter(|_| leaf_answered).and_then(|tail| tail.lag),
        "last_record": stored.and_then(|stored| stored.last_record_ms),
        "last_ingested": stored.and_then(|stored| stored.last_ingested_ms),
        "events": count(|stored| stored.outcomes.events),
        "accepted": count(|stored| stored.outcomes.accepted),
        "tombstones": count(|stored| stored.outcomes.tombstones),
        "duplicates": count(|stored| stored.outcomes.duplicates),
        "dead_letters": count(|stored| stored.outcomes.dead_letters),
        "superseded": count(|stored| stored.outcomes.superseded),
        "deleted": count(|stored| stored.outcomes.deleted),
        "expired": count(|stored| stored.outcomes.expired),
        "documents": count(|stored| stored.outcomes.documents),
        "bytes": count(|stored| stored.outcomes.bytes),
        "keys_elsewhere": count(|stored| stored.keys_elsewhere),
        "events_per_minute": count(|stored| stored.heat.events_per_minute),
        "bytes_per_minute": count(|stored| stored.heat.bytes_per_minute),
        "shard": stored.filter(|_| !row.is_spread).map(|stored| stored.shard.number),
        "error": error,
    })
}

fn state(
    source: &SourceName,
    row: &SourceRow,
    tail: Option<&TailStatus>,
    tailers_unavailable: bool,
) -> Option<&'static str> {
    let leaf_answered = row.leaf_unavailable.is_none();
    let is_halted = |state: SourceState| matches!(state, SourceState::Suspended | SourceState::Stopped);
    match tail {
        Some(tail) if leaf_answered || is_halted(tail.state) => Some(tail.state.as_str()),
        _ if !leaf_answered => Some(UNKNOWN),
        // No tailer can lag behind the own sources: their records are acknowledged once they are stored.
        None if row.stored.is_some() && source.is_own() && !tailers_unavailable => Some(SourceState::CaughtUp.as_str()),
        _ => None,
    }
}
