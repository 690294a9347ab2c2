//! Takes a snapshot: has the leaves write their shards, then writes the manifest.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionName, Problem,
    catalog::Collection,
    cluster::NodeName,
    ingest::{Ingest, ShardId},
    snapshot::{ShardSnapshotRequest, ShardSnapshotStatus, SnapshotId, StoredObject},
    tailer::Changes,
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    CollectionSnapshot, Manifest, Marker, Running, ShardSnapshot, SnapshotStore, Work,
    manifest::{FORMAT, FORMAT_WITHOUT_RUNS},
};

/// Shards that are written at the same time, by all leaves.
const SHARDS_AT_ONCE: usize = 16;
/// How often a leaf is asked how far it is, at first and later.
const ASKED_EVERY: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// How long a leaf may not answer, until another replica is written.
const SILENT_MAX: Duration = Duration::from_secs(15);
/// How often each replica of a shard is tried.
const TRIES: usize = 3;
/// The pause before a shard is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a snapshot is taken of.
pub struct TakeInput {
    /// The cluster.
    pub cluster: Option<Uuid>,
    /// The node that takes it.
    pub by: String,
    /// The collections; `None` for all.
    pub collections: Option<Vec<CollectionName>>,
    /// The catalog.
    pub changes: Arc<dyn Changes>,
    /// The leaves.
    pub ingest: Arc<dyn Ingest>,
    /// All definitions, as a file.
    pub definitions: String,
    /// Whether the schedule takes it.
    pub scheduled: bool,
}

impl TakeInput {
    fn catalog(&self) -> Arc<Catalog> {
        self.changes.catalog().borrow().clone()
    }
}

/// A snapshot that has been begun.
pub struct Take {
    store: SnapshotStore,
    input: TakeInput,
    marker: Marker,
    progress: Mutex<BTreeMap<ShardId, ShardSnapshotStatus>>,
}

/// The name of a snapshot that is begun now.
pub fn new_id() -> SnapshotId {
    let now = chrono::Utc::now().format("%Y%m%d-%H%M%S");
    let random = Uuid::now_v7().as_u128() as u32;
    format!("{now}-{random:08x}")
        .parse()
        .expect("digits and hyphens are a name")
}

impl Take {
    /// Begins a snapshot. Fails if another one is being taken, or a collection does not exist.
    pub async fn begin(store: &SnapshotStore, input: TakeInput) -> Result<Self, Problem> {
        let catalog = input.catalog();
        for name in input.collections.iter().flatten() {
            if catalog
                .collections
                .get(name)
                .is_some_and(Collection::may_await_snapshots)
            {
                let detail = format!("collection {name} is being restored");
                return Err(Problem::new(Code::Busy, detail).hint("`select * from rachis.moves` shows the progress"));
            }
            if !catalog.collections.contains_key(name) {
                return Err(
                    Problem::new(Code::NotFound, format!("collection {name} does not exist"))
                        .hint("SHOW TABLES lists all collections"),
                );
            }
        }
        let marker = Marker::begin(store, Work::Take, new_id(), &input.by).await?;
        Ok(Self {
            store: store.clone(),
            input,
            marker,
            progress: Mutex::default(),
        })
    }

    /// Its name.
    pub fn id(&self) -> &SnapshotId {
        &self.marker.running.id
    }

    /// Takes it.
    pub async fn run(self) -> Result<Manifest, Problem> {
        let Self {
            store,
            input,
            mut marker,
            progress,
        } = self;
        let (id, begun_ms) = (marker.running.id.clone(), marker.running.begun_ms);
        let show = |running: &mut Running| {
            let shards = progress.lock();
            let sum = |of: fn(&ShardSnapshotStatus) -> u64| shards.values().map(of).sum();
            running.bytes = sum(|shard| shard.bytes);
            running.total = sum(|shard| shard.total);
            running.written = sum(|shard| shard.written);
        };
        let taking = async {
            let manifest = take(&store, &input, &id, begun_ms, &progress).await?;
            store.put_manifest(&manifest).await?;
            Ok(manifest)
        };
        match marker.while_held(taking, show).await {
            Ok(manifest) => {
                marker.end().await;
                Ok(manifest)
            }
            Err(problem) => {
                // Its manifest may be there. What it names may not be, if others have begun a removal meanwhile.
                let _ = store.remove_manifest(&id).await;
                marker.fail(&problem).await;
                Err(problem)
            }
        }
    }
}

async fn take(
    store: &SnapshotStore,
    input: &TakeInput,
    id: &SnapshotId,
    begun_ms: i64,
    progress: &Mutex<BTreeMap<ShardId, ShardSnapshotStatus>>,
) -> Result<Manifest, Problem> {
    let catalog = input.catalog();
    let is_wanted = |name: &CollectionName| input.collections.as_ref().is_none_or(|names| names.contains(name));
    // What is being restored is in its snapshot. A collection with a lost shard is in an earlier one, if in any.
    let is_there = |collection: &Collection| !collection.may_await_snapshots();
    let wanted = catalog.collections.iter();
    let wanted: Vec<(&CollectionName, &Collection)> = wanted
        .filter(|(name, collection)| is_wanted(name) && is_there(collection))
        .collect();
    let earlier = earlier_shards(store, &wanted).await?;
    let shards = wanted.iter().flat_map(|(_, collection)| collection.shards());
    let writing: Vec<BoxFuture<'_, _>> = shards
        .map(|shard| {
            let earlier = earlier.get(&shard);
            async move {
                let written = write(input, id, shard, earlier, progress).await;
                match written {
                    // It was dropped meanwhile.
                    Err(_) if input.catalog().collection(shard.collection).is_none() => Ok((shard, None)),
                    written => written.map(|written| (shard, Some(written))),
                }
            }
            .boxed()
        })
        .collect();
    let written: BTreeMap<ShardId, Option<ShardSnapshot>> = stream::iter(writing)
        .buffer_unordered(SHARDS_AT_ONCE)
        .try_collect()
        .await?;
    // What was deleted, skipped or spread before a shard was written must be in the catalog, and this process may have been
    // frozen meanwhile.
    input.changes.require_caught_up().await?;
    let now = input.catalog();
    let mut collections = BTreeMap::new();
    for (name, collection) in wanted {
        let shards: Option<Vec<ShardSnapshot>> = collection.shards().map(|shard| written[&shard].clone()).collect();
        let Some(shards) = shards else { continue };
        let collection = now.collection(collection.uid).map_or(collection, |(_, now)| now);
        let sources = now.sources_of(name).map(|(name, source)| {
            let mut source = source.clone();
            source.settings = source.settings.redacted();
            (name.clone(), source)
        });
        let of_catalog = CollectionSnapshot {
            collection: collection.clone().without_placement(),
            sources: sources.collect(),
            shards,
        };
        collections.insert(name.clone(), of_catalog);
    }
    // An older release would restore a collection without its runs, and ingest records twice.
    let has_runs = |of: &CollectionSnapshot| !of.collection.runs.is_empty();
    let format = match collections.values().any(has_runs) {
        true => FORMAT,
        false => FORMAT_WITHOUT_RUNS,
    };
    Ok(Manifest {
        format,
        id: id.clone(),
        cluster: input.cluster,
        release: proto::node::VERSION.to_owned(),
        by: input.by.clone(),
        scheduled: input.scheduled,
        begun_ms,
        ended_ms: chrono::Utc::now().timestamp_millis(),
        collections,
        definitions: input.definitions.clone(),
    })
}

/// What the newest snapshot that has a collection has of its shards.
async fn earlier_shards(
    store: &SnapshotStore,
    wanted: &[(&CollectionName, &Collection)],
) -> Result<BTreeMap<ShardId, ShardSnapshot>, Problem> {
    let mut earlier = BTreeMap::new();
    let mut missing: Vec<&Collection> = wanted.iter().map(|(_, collection)| *collection).collect();
    for (id, summary) in store.list().await?.into_iter().rev() {
        if missing.is_empty() {
            break;
        }
        let is_in = |collection: &&Collection| {
            let summary = summary.as_ref().ok();
            summary.is_some_and(|summary| summary.uids.contains(&collection.uid))
        };
        if !missing.iter().any(is_in) {
            continue;
        }
        // One that cannot be read saves nothing.
        let Ok(manifest) = store.manifest(&id).await else {
            continue;
        };
        missing.retain(|collection| {
            if !is_in(collection) {
                return true;
            }
            let known = collection
                .shards()
                .filter_map(|shard| Some((shard, manifest.shard(shard)?.clone())));
            earlier.extend(known);
            false
        });
    }
    Ok(earlier)
}

/// Has a leaf write a shard, and another one if that does not answer or fails.
async fn write(
    input: &TakeInput,
    id: &SnapshotId,
    shard: ShardId,
    earlier: Option<&ShardSnapshot>,
    progress: &Mutex<BTreeMap<ShardId, ShardSnapshotStatus>>,
) -> Result<ShardSnapshot, Problem> {
    let request = ShardSnapshotRequest {
        snapshot: id.clone(),
        shard,
        earlier: earlier.map(|earlier| earlier.files.clone()),
    };
    let mut last = Problem::new(Code::Unavailable, format!("no leaf serves shard {shard}"));
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(RETRY_AFTER).await;
        }
        let catalog = input.catalog();
        for leaf in replicas(&catalog, shard, earlier)? {
            let ingest = leaf.as_ref().and_then(|leaf| input.ingest.replica_on(leaf));
            match write_at(&*ingest.unwrap_or_else(|| input.ingest.clone()), &request, progress).await {
                Ok((files, status)) => {
                    return Ok(ShardSnapshot {
                        files,
                        leaf,
                        bytes: status.total,
                        written: status.written,
                    });
                }
                Err(problem) => {
                    tracing::warn!(%shard, leaf = leaf.as_ref().map(NodeName::as_str), %problem, "a shard was not written to the snapshot store");
                    last = problem;
                }
            }
        }
    }
    let catalog = input.catalog();
    let name = catalog.collection(shard.collection).map(|(name, _)| name.as_str());
    Err(Problem {
        detail: format!(
            "shard {} of {}: {}",
            shard.number,
            name.unwrap_or("a dropped collection"),
            last.detail
        ),
        ..last
    })
}

/// The leaves whose replica can be written: first the one that an earlier snapshot has, because most of its files are in
/// the store. `None` stands for the process that holds all shards.
fn replicas(
    catalog: &Catalog,
    shard: ShardId,
    earlier: Option<&ShardSnapshot>,
) -> Result<Vec<Option<NodeName>>, Problem> {
    let (_, collection) = catalog.collection(shard.collection).ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            format!("the collection with uid {} was dropped", shard.collection),
        )
    })?;
    if collection.replicas_of(shard.number).is_empty() {
        return Ok(vec![None]);
    }
    let mut serving: Vec<NodeName> = collection.serving(shard.number).cloned().collect();
    let turn = shard.number as usize % serving.len().max(1);
    serving.rotate_left(turn);
    let last = earlier.and_then(|earlier| earlier.leaf.as_ref());
    serving.sort_by_key(|leaf| Some(leaf) != last);
    Ok(serving.into_iter().map(Some).collect())
}

async fn write_at(
    leaf: &dyn Ingest,
    request: &ShardSnapshotRequest,
    progress: &Mutex<BTreeMap<ShardId, ShardSnapshotStatus>>,
) -> Result<(StoredObject, ShardSnapshotStatus), Problem> {
    let (mut heard, [mut pause, longest]) = (Instant::now(), ASKED_EVERY);
    loop {
        match leaf.snapshot_shard(request).await {
            Ok(status) => {
                heard = Instant::now();
                progress.lock().insert(request.shard, status.clone());
                match status.ended.clone() {
                    Some(Ok(files)) => return Ok((files, status)),
                    Some(Err(problem)) => return Err(problem),
                    None => {}
                }
            }
            Err(problem) if !proto::ingest::is_transient(&problem) || heard.elapsed() > SILENT_MAX => {
                return Err(problem);
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (2 * pause).min(longest);
    }
}

#[cfg(test)]
mod tests;
