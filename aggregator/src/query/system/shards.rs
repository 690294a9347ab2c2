//! Tables of what the leaves store: collections, shards, splits, dead letters and losses.

use std::time::Instant;

use futures::{StreamExt as _, stream};
use proto::{
    Code, CollectionName, Problem,
    catalog::Collection,
    cluster::NodeName,
    ingest::{PartitionStatus, ShardId},
};

use super::{super::Engine, REQUESTS_AT_ONCE_MAX, cell::Cell};

/// Limit on the rows of `rachis.dead_letters`.
const DEAD_LETTERS_MAX: usize = 10_000;

/// `rachis.collections`.
pub(super) async fn collections(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let requests = engine
        .catalog()
        .collections
        .iter()
        .map(|(name, collection)| collection_row(engine, name.clone(), collection.clone()))
        .collect::<Vec<_>>();
    Ok(stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await)
}

async fn collection_row(engine: &Engine, name: CollectionName, collection: Collection) -> Vec<Cell> {
    // If a leaf does not answer, the row has only what the catalog contains.
    let partitions = engine.roles.ingest.partitions(collection.uid).await.ok();
    let sum = |count: fn(&PartitionStatus) -> u64| {
        partitions
            .as_ref()
            .map_or(Cell::Int(None), |all| Cell::count(all.iter().map(count).sum()))
    };
    vec![
        Cell::text(name.as_str()),
        Cell::text(collection.uid.to_string()),
        Cell::count(collection.version),
        Cell::count(u64::from(collection.settings.shards)),
        Cell::Text(collection.settings.time_path.clone()),
        sum(|partition| partition.outcomes.documents),
        sum(|partition| partition.outcomes.bytes),
    ]
}

/// `rachis.shards`. The row of a shard that does not answer has the error.
pub(super) async fn shards(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let catalog = engine.catalog();
    let mut requests = Vec::new();
    for (name, collection) in &catalog.collections {
        for shard in collection.shards() {
            let leaf = collection.leaf_of(shard.number).cloned();
            requests.push(shard_row(engine, name.clone(), leaf, shard));
        }
    }
    Ok(stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await)
}

async fn shard_row(engine: &Engine, collection: CollectionName, leaf: Option<NodeName>, shard: ShardId) -> Vec<Cell> {
    let mut row = vec![
        Cell::text(collection.as_str()),
        Cell::count(u64::from(shard.number)),
        Cell::Text(leaf.map(|leaf| leaf.to_string())),
    ];
    match engine.roles.leaf.status(shard).await {
        Ok(status) => row.extend([
            Cell::text(status.positions.to_string()),
            Cell::count(status.outcomes.documents),
            Cell::count(status.tail),
            Cell::count(status.splits.len() as u64),
            Cell::count(status.bytes),
            Cell::Text(None),
        ]),
        Err(problem) => {
            row.extend([
                Cell::Text(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::text(problem.to_string()),
            ]);
        }
    }
    row
}

/// `rachis.splits`.
pub(super) async fn splits(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in collection.shards() {
            for split in engine.roles.leaf.status(shard).await?.splits {
                rows.push(vec![
                    Cell::text(name.as_str()),
                    Cell::count(u64::from(shard.number)),
                    Cell::count(split.id),
                    Cell::text(if split.on_disk { "disk" } else { "memory" }),
                    Cell::count(u64::from(split.generation)),
                    Cell::count(split.documents),
                    Cell::count(split.deleted),
                    Cell::count(split.bytes),
                    Cell::count(split.paths),
                ]);
            }
        }
    }
    Ok(rows)
}

/// `rachis.losses`: records that were never ingested, because they are lost or were skipped on request.
pub(super) async fn losses(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        let losses = engine.roles.ingest.losses(collection.uid).await?;
        rows.extend(losses.into_iter().map(|loss| {
            vec![
                Cell::text(name.as_str()),
                Cell::text(loss.source.as_str()),
                Cell::Int(Some(i64::from(loss.partition))),
                Cell::Int(Some(loss.from)),
                Cell::Int(Some(loss.through)),
                Cell::Time(Some(loss.noticed_ms)),
                Cell::text(loss.reason),
            ]
        }));
    }
    Ok(rows)
}

/// `rachis.dead_letters`: the newest ones of every shard.
pub(super) async fn dead_letters(engine: &Engine, deadline: Instant) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in collection.shards() {
            let limit = DEAD_LETTERS_MAX.saturating_sub(rows.len());
            let letters = tokio::time::timeout_at(deadline.into(), engine.roles.leaf.dead_letters(shard, limit)).await;
            let letters =
                letters.map_err(|_| Problem::new(Code::Timeout, "reading the dead letters took too long"))??;
            rows.extend(letters.into_iter().map(|letter| {
                vec![
                    Cell::text(name.as_str()),
                    Cell::text(letter.address.source.as_str()),
                    Cell::Int(Some(i64::from(letter.address.partition))),
                    Cell::Int(Some(letter.address.offset)),
                    Cell::text(letter.address.to_string()),
                    Cell::Time(Some(letter.ingested_ms)),
                    Cell::text(letter.code),
                    Cell::text(letter.detail),
                    Cell::text(String::from_utf8_lossy(&letter.bytes)),
                    Cell::count(letter.length),
                ]
            }));
        }
    }
    Ok(rows)
}
