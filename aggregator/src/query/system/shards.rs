//! Tables of what the leaves store: collections, shards, splits, dead letters and losses.

use futures::{StreamExt as _, stream};
use plan::scan::SplitStatus;
use proto::{
    Code, CollectionName, Problem,
    catalog::{Collection, ReplicaState, Run},
    cluster::NodeName,
    ingest::{Loss, Outcomes, ShardId},
};
use serde_json::{Value, json};

use super::{super::Engine, REQUESTS_AT_ONCE_MAX};

/// Limit on the rows of `rachis.digests`.
const DIGEST_ROWS_MAX: usize = 200_000;

/// `rachis.collections`.
pub(super) async fn collections(engine: &Engine) -> Result<Vec<Value>, Problem> {
    let requests = engine
        .catalog()
        .collections
        .iter()
        .map(|(name, collection)| collection_row(engine, name.clone(), collection.clone()))
        .collect::<Vec<_>>();
    Ok(stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await)
}

async fn collection_row(engine: &Engine, name: CollectionName, collection: Collection) -> Value {
    // If a shard does not answer, the row has only what the catalog contains, and the error.
    let shards = collection.settings.shards;
    let partitions = engine.roles.ingest.available_partitions(collection.uid, shards).await;
    let restored = collection.restored.as_ref().map(|restored| {
        let (shards, snapshot) = (restored.awaited.len(), &restored.snapshot);
        format!("{shards} shards are being restored from snapshot {snapshot}: see rachis.moves")
    });
    let error = partitions.error().or(restored);
    let sum = || {
        partitions
            .available
            .iter()
            .map(|partition| partition.outcomes)
            .sum::<Outcomes>()
    };
    let outcomes = error.is_none().then(sum);
    json!({
        "name": name,
        "uid": collection.uid.to_string(),
        "version": collection.version,
        "shards": collection.settings.shards,
        "replicas": collection.settings.replicas.unwrap_or(engine.options.replicas),
        "time_path": collection.settings.time_path,
        "retention": collection.settings.retention,
        "documents": outcomes.map(|outcomes| outcomes.documents),
        "bytes": outcomes.map(|outcomes| outcomes.bytes),
        "error": error,
    })
}

/// `rachis.shards`. The row of a shard that does not answer has the error.
pub(super) async fn shards(engine: &Engine) -> Result<Vec<Value>, Problem> {
    let catalog = engine.catalog();
    let mut requests = Vec::new();
    for (name, collection) in &catalog.collections {
        for shard in collection.shards() {
            let leaf = collection.serving(shard.number).next().cloned();
            let replicas = collection.describe_replicas(shard.number);
            requests.push(shard_row(engine, name.clone(), leaf, replicas, shard));
        }
    }
    Ok(stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await)
}

async fn shard_row(
    engine: &Engine,
    collection: CollectionName,
    leaf: Option<NodeName>,
    replicas: Option<String>,
    shard: ShardId,
) -> Value {
    let mut row = json!({ "collection": collection, "shard": shard.number, "leaf": leaf, "replicas": replicas });
    match engine.roles.leaf.status(shard).await {
        Ok(status) => {
            row["position"] = status.positions.to_string().into();
            row["documents"] = status.outcomes.documents.into();
            row["tail"] = status.tail.into();
            row["splits"] = status.splits.len().into();
            row["bytes"] = status.bytes.into();
            row["events_per_minute"] = status.heat.events_per_minute.into();
            row["bytes_per_minute"] = status.heat.bytes_per_minute.into();
        }
        Err(problem) => row["error"] = problem.to_string().into(),
    }
    row
}

/// `rachis.replicas`: each replica of each shard, and whether it answers questions.
pub(super) fn replicas(engine: &Engine) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in collection.shards() {
            rows.extend(collection.replicas_of(shard.number).iter().map(|leaf| {
                let state = collection.replica_state(shard.number, leaf).map(ReplicaState::as_str);
                json!({ "collection": name, "shard": shard.number, "leaf": leaf, "state": state })
            }));
        }
    }
    rows
}

/// `rachis.digests`: what each replica has ingested. A replica that does not answer has a row with the error.
pub(super) async fn digests(engine: &Engine) -> Vec<Value> {
    let mut requests = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in collection.shards() {
            let replicas = collection.replicas_of(shard.number);
            if replicas.is_empty() {
                requests.push((name.clone(), shard, None));
            }
            requests.extend(replicas.iter().map(|leaf| (name.clone(), shard, Some(leaf.clone()))));
        }
    }
    let ask = async |(name, shard, leaf): (CollectionName, ShardId, Option<NodeName>)| {
        let ingest = &engine.roles.ingest;
        let digests = match leaf.as_ref().and_then(|leaf| ingest.replica_on(leaf)) {
            Some(replica) => replica.digests(shard).await,
            None => ingest.digests(shard).await,
        };
        (name, shard, leaf, digests)
    };
    let mut answers = stream::iter(requests).map(ask).buffered(REQUESTS_AT_ONCE_MAX);
    let mut rows = Vec::new();
    while let Some((name, shard, leaf, digests)) = answers.next().await {
        if rows.len() + digests.as_ref().map_or(0, Vec::len) > DIGEST_ROWS_MAX {
            let detail = format!("left out, and all that follow: the table has at most {DIGEST_ROWS_MAX} rows");
            rows.push(error_row(&name, shard, &Problem::new(Code::LimitReached, detail)));
            break;
        }
        match digests {
            Ok(digests) => rows.extend(digests.into_iter().map(|block| {
                json!({
                    "collection": name,
                    "shard": shard.number,
                    "leaf": leaf,
                    "source": block.source,
                    "partition": block.partition,
                    "from_offset": block.from,
                    "through_offset": block.through,
                    "digest": block.digest,
                })
            })),
            Err(problem) => {
                let mut row = error_row(&name, shard, &problem);
                row["leaf"] = json!(leaf);
                rows.push(row);
            }
        }
    }
    rows
}

/// `rachis.splits`. A shard that does not answer has a row with the error.
pub(super) async fn splits(engine: &Engine) -> Result<Vec<Value>, Problem> {
    let split_rows = |name: CollectionName, shard: ShardId| async move {
        let status = match engine.roles.leaf.status(shard).await {
            Ok(status) => status,
            Err(problem) => return vec![error_row(&name, shard, &problem)],
        };
        let row = |split: SplitStatus| {
            json!({
                "collection": name,
                "shard": shard.number,
                "id": split.id,
                "place": if split.on_disk { "disk" } else { "memory" },
                "generation": split.generation,
                "documents": split.documents,
                "gone": split.deleted,
                "bytes": split.bytes,
                "paths": split.paths,
            })
        };
        status.splits.into_iter().map(row).collect()
    };
    let catalog = engine.catalog();
    let collections = catalog.collections.iter();
    let shards = collections.flat_map(|(name, of)| of.shards().map(|shard| (name.clone(), shard)));
    let requests: Vec<_> = shards.map(|(name, shard)| split_rows(name, shard)).collect();
    let rows: Vec<Vec<Value>> = stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await;
    Ok(rows.into_iter().flatten().collect())
}

pub(super) fn error_row(name: &CollectionName, shard: ShardId, problem: &Problem) -> Value {
    json!({ "collection": name, "shard": shard.number, "error": problem.to_string() })
}

/// `rachis.losses`: records that were never ingested, because they are lost or were skipped on request. If shards do not
/// answer, a row has the error.
pub(super) async fn losses(engine: &Engine) -> Result<Vec<Value>, Problem> {
    let mut rows = Vec::new();
    let catalog = engine.catalog();
    let ask = async |(name, collection): (&CollectionName, &Collection)| {
        let shards = collection.settings.shards;
        let answers = engine.roles.ingest.available_losses(collection.uid, shards).await;
        (name.clone(), collection.clone(), answers)
    };
    let requests: Vec<_> = catalog.collections.iter().map(ask).collect();
    let mut answers = stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX);
    while let Some((name, collection, answers)) = answers.next().await {
        let error = answers.error();
        rows.extend(merged_losses(&collection, answers.available).into_iter().map(|loss| {
            json!({
                "collection": name,
                "source": loss.source,
                "partition": loss.partition,
                "from_offset": loss.from,
                "through_offset": loss.through,
                "noticed": loss.noticed_ms,
                "reason": loss.reason,
            })
        }));
        rows.extend(error.map(|error| json!({ "collection": name, "error": error })));
    }
    Ok(rows)
}

/// The losses of a partition whose records belong to several shards: each shard has noted its own, so those that meet are
/// one.
fn merged_losses(collection: &Collection, mut losses: Vec<Loss>) -> Vec<Loss> {
    losses
        .sort_by(|a, b| (&a.source, a.partition, &a.reason, a.from).cmp(&(&b.source, b.partition, &b.reason, b.from)));
    let mut merged: Vec<Loss> = Vec::with_capacity(losses.len());
    for loss in losses {
        let is_spread = collection.route(&loss.source, loss.partition).is_spread();
        let of = |loss: &Loss| (loss.source.clone(), loss.partition, loss.reason.clone());
        match merged.last_mut() {
            Some(last) if is_spread && of(last) == of(&loss) && loss.from <= last.through + 1 => {
                last.through = last.through.max(loss.through);
                last.noticed_ms = last.noticed_ms.min(loss.noticed_ms);
            }
            _ => merged.push(loss),
        }
    }
    merged
}

/// `rachis.runs`: from which offset on the records of a partition belong to several shards.
pub(super) fn runs(engine: &Engine) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for of in &collection.runs {
            let row = |run: &Run, waits_for: Option<String>| {
                let shards: Vec<String> = run.shards.iter().map(u32::to_string).collect();
                json!({
                    "collection": name,
                    "source": of.source,
                    "partition": of.partition,
                    "from_offset": run.from,
                    "shards": shards.join(", "),
                    "block": run.block,
                    "state": if waits_for.is_some() { "proposed" } else { "in force" },
                    "waits_for": waits_for,
                })
            };
            rows.extend(of.runs.iter().map(|run| row(run, None)));
            if let Some(proposed) = &of.proposed {
                rows.push(row(&proposed.run, Some(collection.unconfirmed(of).join(", "))));
            }
        }
    }
    rows
}
