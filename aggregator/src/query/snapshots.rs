//! Snapshots: takes them, when somebody asks or by the schedule, lists them, removes them, and restores collections.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use proto::{
    Code, CollectionName, CollectionUid, Problem,
    catalog::{Change, Source, SourceSettings},
    snapshot::SnapshotId,
};
use serde_json::{Value, json};
use snapshots::{
    CollectionSnapshot, Known, Removed, RestoreRequest, Running, SnapshotStore, Summary, Take, TakeInput, Verified,
    Work,
};
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::Engine;
use crate::definition_file;

/// How often an aggregator looks whether a snapshot is due, at least and at most: twenty times as often as one is.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_mins(1)];

/// How long a restore waits for a removal that began at the same time, …
const REMOVAL_WAIT: Duration = Duration::from_mins(1);
/// … and how often it looks.
const REMOVAL_POLL: Duration = Duration::from_millis(200);

/// How often it is said that the schedule fails.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Where snapshots are, and when they are taken by themselves.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// The store.
    pub store: SnapshotStore,
    /// How often one is taken; zero for never.
    pub every: Duration,
    /// How many of these are kept.
    pub kept: usize,
    /// Whose snapshots the schedule takes and removes, if not those of the cluster: one process has an id of its own.
    pub owner: Option<Uuid>,
}

/// Takes snapshots by the schedule, until the engine is dropped. Every aggregator does: the store lets one of them.
pub(super) async fn run(engine: Weak<Engine>) {
    let (mut told, mut newest_ms) = (None::<Instant>, chrono::Utc::now().timestamp_millis());
    loop {
        let Some(alive) = engine.upgrade() else { return };
        let Some(options) = alive
            .options
            .snapshots
            .clone()
            .filter(|options| !options.every.is_zero())
        else {
            return;
        };
        let followed = alive.follow_schedule(&options, &mut newest_ms).await;
        // Also while the store does not answer. Without any, the newest one is as old as this process.
        let age_ms = chrono::Utc::now().timestamp_millis().saturating_sub(newest_ms).max(0);
        gauge!("rachis_snapshot_age_seconds").set(age_ms as f64 / 1e3);
        gauge!("rachis_snapshot_due_after_seconds").set(options.every.as_secs_f64());
        drop(alive);
        if let Err(why) = followed
            && told.is_none_or(|told| told.elapsed() >= TOLD_EVERY)
        {
            warn!(%why, "no snapshot is taken or removed by the schedule now; it tries again");
            told = Some(Instant::now());
        }
        // So that several aggregators do not begin at the same moment.
        let wait = (options.every / 20).clamp(LOOK_EVERY[0], LOOK_EVERY[1]);
        sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

impl Engine {
    async fn follow_schedule(&self, options: &SnapshotOptions, newest_ms: &mut i64) -> Result<(), Problem> {
        let health = self.roles.changes.health();
        let Some(owner) = self.snapshots_owner() else {
            return Ok(());
        };
        let (store, now_ms) = (&options.store, chrono::Utc::now().timestamp_millis());
        let mut scheduled = snapshots::of_schedule(store.list().await?, Some(owner));
        if let Some(age) = snapshots::age(&scheduled, now_ms) {
            *newest_ms = now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        }
        // An empty catalog may be one that was lost: a snapshot of it must not replace those of the documents.
        if health.fault.is_some() || self.catalog().collections.is_empty() {
            return Ok(());
        }
        if snapshots::is_due(&scheduled, &store.works().await?, options.every, now_ms) {
            self.begin_snapshot(store, None, true).await?.run().await?;
            counter!("rachis_snapshots_total").increment(1);
            *newest_ms = now_ms;
            scheduled = snapshots::of_schedule(store.list().await?, Some(owner));
        }
        let mut surplus = snapshots::surplus(&scheduled, options.kept);
        let needed = self.being_restored();
        surplus.retain(|id| !needed.contains(id));
        // A leaf may be copying a shard that was lost from any of them.
        if !self.with_lost_shards().is_empty() {
            surplus.clear();
        }
        match surplus.is_empty() {
            true => Ok(()),
            false => self.remove_snapshots(&surplus).await.map(drop),
        }
    }

    /// The collections with shards that leaves look for in snapshots.
    fn with_lost_shards(&self) -> BTreeSet<CollectionUid> {
        let catalog = self.catalog();
        let lost = catalog.collections.values().filter(|known| !known.lost.is_empty());
        lost.map(|known| known.uid).collect()
    }

    /// The snapshots that have shards which no leaf has yet.
    fn being_restored(&self) -> BTreeSet<SnapshotId> {
        let catalog = self.catalog();
        let restored = catalog.collections.values().filter_map(|known| known.restored.as_ref());
        restored.map(|restored| restored.snapshot.clone()).collect()
    }

    /// The store, if there is one.
    pub(crate) fn snapshot_store(&self) -> Result<&SnapshotStore, Problem> {
        self.options
            .snapshots
            .as_ref()
            .map(|options| &options.store)
            .ok_or_else(|| {
                Problem::new(Code::NotSupported, "this server has no snapshot store")
                    .hint("set url in [snapshots] of the settings of all nodes, and restart them")
            })
    }

    /// Whose snapshots this node takes: those of its cluster, or of the one process. `None` until it knows its cluster.
    fn snapshots_owner(&self) -> Option<Uuid> {
        let own = self.options.snapshots.as_ref().and_then(|options| options.owner);
        own.or(self.roles.changes.health().cluster)
    }

    async fn begin_snapshot(
        &self,
        store: &SnapshotStore,
        collections: Option<Vec<CollectionName>>,
        scheduled: bool,
    ) -> Result<Take, Problem> {
        // A node that was frozen would leave out what was created meanwhile.
        self.roles.changes.require_caught_up().await?;
        let input = TakeInput {
            cluster: self.snapshots_owner(),
            by: self.roles.nodes.own().to_owned(),
            collections,
            changes: self.roles.changes.clone(),
            ingest: self.roles.ingest.clone(),
            definitions: definition_file::export(&self.catalog()),
            scheduled,
        };
        Take::begin(store, input).await
    }

    /// Begins a snapshot of these collections, or of all. It goes on in the background.
    pub(crate) async fn take_snapshot(&self, collections: Option<Vec<CollectionName>>) -> Result<SnapshotId, Problem> {
        let take = self.begin_snapshot(self.snapshot_store()?, collections, false).await?;
        let id = take.id().clone();
        tokio::spawn(async move {
            let (id, begun) = (take.id().clone(), Instant::now());
            match take.run().await {
                Ok(manifest) => {
                    counter!("rachis_snapshots_total").increment(1);
                    let Summary { bytes, written, .. } = manifest.summary();
                    info!(%id, bytes, written, seconds = begun.elapsed().as_secs_f64(), "a snapshot was taken");
                }
                Err(problem) => warn!(%id, %problem, "a snapshot was not taken"),
            }
        });
        Ok(id)
    }

    /// Removes snapshots, and what no other one needs.
    pub(crate) async fn remove_snapshots(&self, ids: &[SnapshotId]) -> Result<Removed, Problem> {
        let store = self.snapshot_store()?;
        self.check_removable(store, ids).await?;
        // A restore that begins from now on looks whether a removal is running.
        let check = async {
            self.roles.changes.require_caught_up().await?;
            self.check_removable(store, ids).await
        };
        let by = self.roles.nodes.own();
        let removed = snapshots::remove(store, ids, snapshots::new_id(), by, check).await?;
        let (objects, bytes) = (removed.objects, removed.bytes);
        info!(snapshots = ?removed.snapshots, objects, bytes, "snapshots were removed");
        Ok(removed)
    }

    /// Fails if a shard is being restored from one of these snapshots.
    async fn check_removable(&self, store: &SnapshotStore, ids: &[SnapshotId]) -> Result<(), Problem> {
        let (mut needed, lost) = (self.being_restored(), self.with_lost_shards());
        if !lost.is_empty() {
            let of_lost = |summary: &Summary| summary.uids.iter().any(|uid| lost.contains(uid));
            let known = store.list().await?.into_iter();
            needed.extend(
                known
                    .filter(|(_, summary)| summary.as_ref().is_ok_and(of_lost))
                    .map(|(id, _)| id),
            );
        }
        if let Some(id) = ids.iter().find(|id| needed.contains(*id)) {
            let detail = format!("snapshot {id} cannot be removed: shards are being restored from it");
            return Err(Problem::new(Code::InUse, detail).hint("`select * from rachis.moves` shows how far they are"));
        }
        Ok(())
    }

    /// Looks whether all objects of a snapshot are there.
    pub(crate) async fn verify_snapshot(&self, id: &SnapshotId, read: bool) -> Result<Verified, Problem> {
        snapshots::verify(self.snapshot_store()?, id, read).await
    }

    /// All snapshots, those that are being taken, and those that have failed lately, as rows.
    pub(crate) async fn snapshot_rows(&self) -> Result<Vec<Value>, Problem> {
        let store = self.snapshot_store()?;
        let (known, works) = (store.list().await?, store.works().await?);
        let is_complete = |work: &Running| known.iter().any(|(id, _)| *id == work.id);
        let taken = works
            .iter()
            .filter(|work| work.work == Work::Take && !is_complete(work));
        let mut rows: Vec<Value> = known.iter().map(complete_row).chain(taken.map(running_row)).collect();
        rows.sort_by(|a, b| a["began"].as_i64().cmp(&b["began"].as_i64()));
        Ok(rows)
    }

    /// A snapshot with its collections and shards; with `digests`, also what each shard has. Or how far it is.
    pub(crate) async fn describe_snapshot(&self, id: &SnapshotId, digests: bool) -> Result<Value, Problem> {
        let store = self.snapshot_store()?;
        let manifest = match store.manifest(id).await {
            Err(problem) if problem.code == Code::NotFound => {
                let works = store.works().await?;
                let work = works.iter().find(|work| work.id == *id);
                return work.map(running_row).ok_or(problem);
            }
            manifest => manifest?,
        };
        let mut described = complete_row(&(id.clone(), Ok(manifest.summary())));
        let mut collections = serde_json::Map::new();
        for (name, collection) in &manifest.collections {
            let mut of_collection = describe_collection(collection);
            if digests {
                let lists = snapshots::lists_of(store, collection).await?;
                for (shard, list) in of_collection["shards"].as_array_mut().into_iter().flatten().zip(lists) {
                    shard["files"] = json!(list.files.len());
                    shard["position"] = json!(list.positions);
                    shard["digests"] = json!(list.digests);
                }
            }
            collections.insert(name.to_string(), of_collection);
        }
        described["collections"] = Value::Object(collections);
        described["release"] = json!(manifest.release);
        described["definitions"] = json!(manifest.definitions);
        Ok(described)
    }

    /// Restores collections of a snapshot, and says what was done. Their leaves copy the shards in the background.
    pub(crate) async fn restore(self: &Arc<Self>, request: &RestoreRequest) -> Result<Value, Problem> {
        let store = self.snapshot_store()?;
        let steps = snapshots::plan_restore(store, request, &self.catalog()).await?;
        let sources = steps.iter().flat_map(|step| &step.sources);
        let sources = sources.map(|(name, source)| put_source(name, &source.settings).rules_level());
        let level = steps.iter().map(|step| step.change.rules_level()).chain(sources).max();
        self.require_level(level.unwrap_or_default(), "restore this snapshot")
            .await?;
        if is_removing(store).await? {
            let detail = format!("snapshots are being removed from {}", store.url());
            return Err(Problem::new(Code::Busy, detail).hint("restore it once that has ended"));
        }
        let (mut restored, mut created, mut left_out) = (Vec::new(), Vec::new(), BTreeMap::new());
        for step in steps {
            self.change_catalog(step.change).await?;
            for (name, source) in step.sources {
                match self.restore_source(&name, source).await {
                    Ok(()) => created.push(name),
                    Err(problem) => drop(left_out.insert(name, problem.to_string())),
                }
            }
            restored.push(step.name);
        }
        let mut answer = json!({ "restored": restored, "sources": created, "sources_left_out": left_out });
        // A removal that began meanwhile may not have known of this restore.
        let until = Instant::now() + REMOVAL_WAIT;
        while is_removing(store).await? {
            if Instant::now() >= until {
                let detail = "snapshots have been removed for a minute, and what was restored may be among them";
                let hint = "drop what was restored, and restore it once that has ended";
                return Err(Problem::new(Code::Busy, detail).hint(hint));
            }
            sleep(REMOVAL_POLL).await;
        }
        let manifest = store.manifest(&request.id).await;
        let manifest = manifest.map_err(|problem| match problem.code {
            Code::NotFound => {
                problem.hint("it was removed meanwhile: drop what was restored from it, and restore another one")
            }
            _ => problem,
        })?;
        if request.collections.is_empty() && !manifest.definitions.is_empty() {
            let applied = self.apply_definitions(manifest.definitions.clone(), None, false).await;
            match applied {
                Ok(changes) => answer["definitions"] = json!(changes),
                Err(problem) => answer["definitions_error"] = json!(problem.to_string()),
            }
        }
        Ok(answer)
    }

    /// Creates a source as it was.
    async fn restore_source(&self, name: &proto::SourceName, source: Source) -> Result<(), Problem> {
        let Source {
            settings, suspended, ..
        } = source;
        if settings.is_redacted() {
            let detail = "its password is not part of a snapshot";
            let hint = "create it with the same topic, format and key: it goes on where it was";
            return Err(Problem::new(Code::BadRequest, detail).hint(hint));
        }
        // Version 0: refused if a source of this name exists.
        let put = put_source(name, &settings);
        let created = self.roles.changes.propose(put, Some(0)).await;
        created.map_err(|problem| match problem.code {
            Code::Conflict => Problem::new(Code::Conflict, "there is a source of this name")
                .hint("it goes on as it is, and nothing follows this topic into what was restored"),
            _ => problem,
        })?;
        if suspended {
            let name = name.clone();
            self.change_catalog(Change::SuspendSource { name, suspended }).await?;
        }
        Ok(())
    }
}

/// Whether snapshots are being removed now.
async fn is_removing(store: &SnapshotStore) -> Result<bool, Problem> {
    let works = store.works().await?;
    Ok(works
        .iter()
        .any(|work| work.work == Work::Remove && work.error.is_none()))
}

fn put_source(name: &proto::SourceName, settings: &SourceSettings) -> Change {
    Change::PutSource {
        name: name.clone(),
        settings: settings.clone(),
    }
}

fn complete_row((id, summary): &Known) -> Value {
    match summary {
        Ok(summary) => json!({
            "id": id,
            "state": "complete",
            "node": summary.by,
            "scheduled": summary.scheduled,
            "began": summary.begun_ms,
            "ended": summary.ended_ms,
            "collections": summary.collections.iter().map(CollectionName::as_str).collect::<Vec<_>>().join(", "),
            "shards": summary.shards,
            "bytes": summary.bytes,
            "bytes_total": summary.bytes,
            "bytes_written": summary.written,
        }),
        Err(problem) => json!({ "id": id, "state": "unreadable", "error": problem.to_string() }),
    }
}

fn running_row(work: &Running) -> Value {
    json!({
        "id": work.id,
        "state": if work.error.is_some() { "failed" } else { "running" },
        "node": work.by,
        "began": work.begun_ms,
        "bytes": work.bytes,
        "bytes_total": work.total,
        "bytes_written": work.written,
        "error": work.error,
    })
}

fn describe_collection(collection: &CollectionSnapshot) -> Value {
    let shards = collection.shards.iter().enumerate().map(|(number, shard)| {
        json!({ "shard": number, "leaf": shard.leaf, "bytes": shard.bytes, "bytes_written": shard.written })
    });
    json!({
        "uid": collection.collection.uid,
        "settings": collection.collection.settings,
        "sources": collection.sources.keys().collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<Value>>(),
    })
}
