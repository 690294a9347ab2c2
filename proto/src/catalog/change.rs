//! Changes: the transitions of the catalog, and the rules by which they are accepted or refused.

mod controller;
mod definitions;
mod members;
mod moves;
mod replicas;
mod restore;
mod runs;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Catalog, Collection, CollectionName, CollectionSettings, CollectionUid, DefinitionId, DefinitionUse, Deletion,
    RetiredSource, Run, RunRef, Skips, Source, SourceSettings,
};
use crate::{
    address::{PositionVector, SourceName},
    cluster::{Member, NodeName, Role},
    ingest::ShardId,
    limits::{REPLICAS_MAX, SHARDS_MAX, SOURCES_MAX},
    problem::{Code, Problem},
    snapshot::SnapshotId,
};

/// The version of the rules by which changes of the catalog are accepted or refused, as this release supports them. A
/// node stops at a record of the change log with a higher level; it never skips one.
pub const CATALOG_RULES_LEVEL: u16 = 12;
/// From this level on, `expected` of a change of a definition is the version of all definitions, and their size and depth
/// are limited.
const CHECKED_DEFINITIONS_LEVEL: u16 = 2;
/// From this level on, several definitions change together, a new version may name its number, a renamed definition may get
/// its name back, and all that definitions take is limited, not only their texts. There are parsers.
const BATCHES_LEVEL: u16 = 3;
/// From this level on, documents can be deleted (and from level 5 on they expire), and the name of the source of changes is reserved.
const DELETES_LEVEL: u16 = 4;
// From level 6 on, nodes announce themselves.
/// From this level on, shards have several replicas, and a leaf with another data folder has replicas that do not serve.
const REPLICAS_LEVEL: u16 = 7;
/// From this level on, replicas are added and removed, and the number of replicas of a collection can be changed. No rule
/// has changed since, so new records have this level unless they are about something newer.
pub(super) const MOVES_LEVEL: u16 = 8;
/// From this level on, an aggregator is the controller, which replaces lost replicas.
pub const CONTROLLER_LEVEL: u16 = 9;
/// From this level on, collections are restored from snapshots.
const RESTORE_LEVEL: u16 = 10;
/// From this level on, shards that no leaf serves any more are looked for in snapshots.
const LOST_SHARDS_LEVEL: u16 = 11;
/// From this level on, runs spread the records of a partition over several shards, and a source that starts at the latest
/// record notes where its partitions ended.
pub const RUNS_LEVEL: u16 = 12;

/// How long the catalog remembers a dropped collection. A leaf that is down for longer keeps its shards.
const DROPPED_RETENTION_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// A request to change the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The id of the request: a repetition changes nothing.
    pub uid: Uuid,
    /// The version of the rules to apply, see [`CATALOG_RULES_LEVEL`].
    pub level: u16,
    /// The version that the changed entry must have; `None` accepts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// The change.
    pub change: Change,
}

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the entries' own")]
pub enum Change {
    /// Creates a collection; an existing one stays as it is. In a cluster, `placement` lists the leaves of each shard.
    CreateCollection {
        name: CollectionName,
        settings: CollectionSettings,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        placement: Vec<Vec<NodeName>>,
    },
    /// Creates a collection whose shards come from a snapshot; refused if one of its name exists.
    RestoreCollection {
        name: CollectionName,
        restored: Box<RestoredCollection>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        placement: Vec<Vec<NodeName>>,
    },
    /// States that shards that were restored, or lost, are on this leaf, or on the process that holds all. From then on,
    /// other replicas are copied from there.
    PlaceRestored {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leaf: Option<NodeName>,
        instance: Uuid,
        shards: Vec<ShardId>,
    },
    /// States that the topic for the collection's pushes exists.
    OpenPushes { collection: CollectionUid },
    /// States that the topic for the changes of the collection's documents exists.
    OpenChanges { collection: CollectionUid },
    /// States that shards of the collection have applied a delete.
    AddDeletion {
        collection: CollectionUid,
        deletion: Deletion,
    },
    /// States that every answer must cover these changes of the collection's documents.
    CoverChanges {
        collection: CollectionUid,
        position: PositionVector,
    },
    /// Changes the settings of a collection, except the number of shards. A rebalance makes the number of replicas true.
    AlterCollection {
        name: CollectionName,
        settings: CollectionSettings,
    },
    /// Drops a collection with its documents; refused while a source feeds it or another definition reads it.
    DropCollection { name: CollectionName },
    /// Creates a source, or changes its config; collection, topic, format and key are immutable.
    PutSource { name: SourceName, settings: SourceSettings },
    /// Drops a source; its documents stay, and the collection remembers its rules and its skips.
    DropSource { name: SourceName },
    /// Suspends or resumes reading.
    SuspendSource { name: SourceName, suspended: bool },
    /// Skips ranges of partitions of a source.
    SkipSource { name: SourceName, skips: Skips },
    /// Skips ranges of partitions of a collection's pushes.
    SkipPushes { collection: CollectionName, skips: Skips },
    /// Creates a definition or, with `replace`, a new version of it.
    Define {
        id: DefinitionId,
        text: String,
        uses: Vec<DefinitionUse>,
        reads: Vec<CollectionName>,
        replace: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
        /// The number of the version. Without it, the next one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u32>,
    },
    /// Moves a tag to a version, or removes it. With `from`, only if that version has it.
    SetTag {
        id: DefinitionId,
        tag: String,
        to: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
    },
    /// Gives a definition another name; refused while another one uses it.
    RenameDefinition { id: DefinitionId, to: String },
    /// Drops a definition; refused while another one uses it. With `if_exists`, a missing definition is not an error.
    Undefine { id: DefinitionId, if_exists: bool },
    /// States where a node is, and what it offers. With `replaces`, it takes over the name of a node with that data
    /// folder. With `from_snapshots`, shards that no leaf serves because of it are looked for in snapshots.
    Announce {
        name: NodeName,
        member: Member,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Uuid>,
        #[serde(default, skip_serializing_if = "super::collection::is_false")]
        from_snapshots: bool,
    },
    /// Removes a node with this data folder from the cluster; refused for a leaf that holds shards, unless its disk is
    /// lost. With `from_snapshots`, shards that no leaf serves because of it are looked for in snapshots.
    RemoveMember {
        name: NodeName,
        instance: Uuid,
        #[serde(default, skip_serializing_if = "super::collection::is_false")]
        lost: bool,
        #[serde(default, skip_serializing_if = "super::collection::is_false")]
        from_snapshots: bool,
    },
    /// States that a replica on `leaf` does not keep up, or does not answer, as the serving replica on `by` sees it; or
    /// that its own leaf takes it out. A shard whose last serving replica it is, or of which `by` does not serve itself,
    /// stays as it is.
    LeaveBehind {
        leaf: NodeName,
        by: NodeName,
        /// The data folder of `by`.
        instance: Uuid,
        shards: Vec<ShardId>,
    },
    /// States that replicas on this leaf, with this data folder, have what the serving ones had a moment ago.
    JoinReplicas {
        leaf: NodeName,
        instance: Uuid,
        shards: Vec<ShardId>,
    },
    /// States that replicas on this leaf have everything that was acknowledged before they joined. Each shard with the
    /// catalog version since which its replica has been joining.
    ServeReplicas {
        leaf: NodeName,
        instance: Uuid,
        shards: Vec<(ShardId, u64)>,
    },
    /// Adds replicas to shards, on leaves that have none. They are behind until they have been copied and have caught up.
    /// What does not apply any more is left out; refused if nothing does.
    AddReplicas { replicas: Vec<AddedReplica> },
    /// Has replicas leave that are not needed: no question is asked of them any more. The last serving one of a shard stays.
    RetireReplicas { replicas: Vec<RetiredReplica> },
    /// Removes replicas that have been leaving since these versions, as a leaf sees it that serves the shards.
    RemoveReplicas {
        by: NodeName,
        /// The data folder of `by`.
        instance: Uuid,
        replicas: Vec<(RetiredReplica, u64)>,
    },
    /// Has a leaf get no new shards and give its own away, or take shards again.
    DrainLeaf { leaf: NodeName, draining: bool },
    /// Makes an aggregator with this data folder the controller; refused unless this is the next epoch.
    TakeControl { node: NodeName, instance: Uuid, epoch: u64 },
    /// Has the controller replace nothing, or go on. What is under way goes on in both cases.
    HoldReplacements { held: bool },
    /// Retires and adds replicas, as [`Change::RetireReplicas`] and [`Change::AddReplicas`] do, for the controller of this
    /// epoch; refused for another one, and while replacements are held.
    ReplaceReplicas {
        epoch: u64,
        retired: Vec<RetiredReplica>,
        added: Vec<AddedReplica>,
    },
    /// Proposes that the records of a partition belong to several shards, from an offset on.
    ProposeRun {
        source: SourceName,
        partition: i32,
        run: Run,
    },
    /// States that a leaf with this data folder, or the process that holds all shards, knows of a proposed run and has no
    /// record at or after its first offset. The run is in force once every leaf with a replica of its shards has stated it.
    ConfirmRun {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leaf: Option<NodeName>,
        instance: Uuid,
        run: RunRef,
    },
    /// Withdraws a proposed run, because a leaf has records at or after its first offset, or because a user asks for it.
    WithdrawRun { run: RunRef },
    /// Changes of definitions, one after another: all are accepted, or none.
    All { changes: Vec<Change> },
}

/// A collection that is restored from a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoredCollection {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The collection as it was, without placement. Its sources that were not dropped are among the retired ones.
    pub collection: Collection,
    /// Whether the collection goes on with its uid, and so with its topics. Otherwise it is a copy with a new uid.
    pub continued: bool,
    /// Of a copy, what its shards have of its own sources: their topics begin after that.
    pub own_positions: PositionVector,
}

/// A replica that is added to a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddedReplica {
    /// The shard.
    pub shard: ShardId,
    /// Where the replica will be.
    pub leaf: NodeName,
    /// The leaf whose replica leaves once this one serves; none if the shard gets one more replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<NodeName>,
}

/// A replica that is not needed any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetiredReplica {
    /// The shard.
    pub shard: ShardId,
    /// Where the replica is.
    pub leaf: NodeName,
}

impl Change {
    /// The level of the rules in a new record of this change: the lowest that has everything this change can contain. A
    /// node of an older release stops at the first record with a higher level than its own, and at no other.
    pub fn rules_level(&self) -> u16 {
        match self {
            Change::TakeControl { .. } | Change::HoldReplacements { .. } | Change::ReplaceReplicas { .. } => {
                CONTROLLER_LEVEL
            }
            Change::ProposeRun { .. } | Change::ConfirmRun { .. } | Change::WithdrawRun { .. } => RUNS_LEVEL,
            Change::SkipSource { skips, .. } if skips.0.values().flatten().any(|skip| skip.shard.is_some()) => {
                RUNS_LEVEL
            }
            Change::PutSource { settings, .. } if !settings.ends.is_empty() => RUNS_LEVEL,
            Change::RestoreCollection { restored, .. } if !restored.collection.runs.is_empty() => RUNS_LEVEL,
            Change::RestoreCollection { .. } | Change::PlaceRestored { .. } => RESTORE_LEVEL,
            Change::Announce { from_snapshots, .. } | Change::RemoveMember { from_snapshots, .. }
                if *from_snapshots =>
            {
                LOST_SHARDS_LEVEL
            }
            _ => MOVES_LEVEL,
        }
    }
}

impl Catalog {
    /// Applies a request: returns the catalog afterwards, and whether the request was accepted. A refused request still
    /// increments the version.
    pub fn apply(&self, record: &ChangeRecord) -> (Self, Result<(), Problem>) {
        let mut next = self.clone();
        next.version += 1;
        let result = match record.expected {
            Some(expected) if self.version_of(record) != expected => Err(Problem::new(
                Code::Conflict,
                format!(
                    "the entry was changed in the meantime (its version is {}, not {expected})",
                    self.version_of(record)
                ),
            )
            .hint("read it again and retry the change")),
            _ => next.apply_change(record),
        };
        match result {
            Ok(()) => {
                // The change may have removed the last replica whose leaf had not confirmed a run.
                let collections = next.collections.values_mut();
                collections.for_each(Collection::adopt_confirmed_runs);
                (next, Ok(()))
            }
            Err(problem) => (
                Self {
                    version: next.version,
                    ..self.clone()
                },
                Err(problem),
            ),
        }
    }

    /// The version of the entry that a change refers to; 0 if there is none.
    fn version_of(&self, record: &ChangeRecord) -> u64 {
        match &record.change {
            Change::OpenPushes { collection }
            | Change::OpenChanges { collection }
            | Change::AddDeletion { collection, .. }
            | Change::CoverChanges { collection, .. } => self.collection(*collection).map_or(0, |(_, c)| c.version),
            Change::CreateCollection { name, .. }
            | Change::RestoreCollection { name, .. }
            | Change::AlterCollection { name, .. }
            | Change::DropCollection { name }
            | Change::SkipPushes { collection: name, .. } => self.collections.get(name).map_or(0, |c| c.version),
            Change::PutSource { name, .. }
            | Change::DropSource { name }
            | Change::SuspendSource { name, .. }
            | Change::SkipSource { name, .. } => self.sources.get(name).map_or(0, |s| s.version),
            Change::Define { id, .. } | Change::Undefine { id, .. } if record.level < CHECKED_DEFINITIONS_LEVEL => {
                self.definitions.get(id).map_or(0, |d| u64::from(d.current().number))
            }
            Change::Define { .. }
            | Change::Undefine { .. }
            | Change::SetTag { .. }
            | Change::RenameDefinition { .. }
            | Change::All { .. } => self.definitions_version,
            // They name the data folder that they refer to.
            Change::Announce { .. }
            | Change::RemoveMember { .. }
            | Change::LeaveBehind { .. }
            | Change::JoinReplicas { .. }
            | Change::ServeReplicas { .. }
            | Change::AddReplicas { .. }
            | Change::RetireReplicas { .. }
            | Change::RemoveReplicas { .. }
            | Change::DrainLeaf { .. }
            | Change::TakeControl { .. }
            | Change::HoldReplacements { .. }
            | Change::ReplaceReplicas { .. }
            | Change::PlaceRestored { .. }
            | Change::ProposeRun { .. }
            | Change::ConfirmRun { .. }
            | Change::WithdrawRun { .. } => 0,
        }
    }

    fn apply_change(&mut self, record: &ChangeRecord) -> Result<(), Problem> {
        match &record.change {
            Change::CreateCollection {
                name,
                settings,
                placement,
            } => self.create_collection(record.uid, name, settings, placement),
            Change::RestoreCollection {
                name,
                restored,
                placement,
            } => self.restore_collection(record.uid, name, restored, placement),
            Change::PlaceRestored { leaf, instance, shards } => self.place_restored(leaf.as_ref(), *instance, shards),
            Change::OpenPushes { collection } => self
                .collection_mut(*collection)
                .map(|collection| collection.push_topic = true),
            Change::OpenChanges { collection } => self
                .collection_mut(*collection)
                .map(|collection| collection.change_topic = true),
            Change::AddDeletion { collection, deletion } => self
                .collection_mut(*collection)
                .map(|collection| collection.add_deletion(deletion)),
            Change::CoverChanges { collection, position } => self
                .collection_mut(*collection)
                .map(|collection| collection.changed_through.merge(position)),
            Change::AlterCollection { name, settings } => self.alter_collection(record.level, name, settings),
            Change::DropCollection { name } => self.drop_collection(record, name),
            Change::PutSource { name, settings } => self.put_source(record.level, name, settings),
            Change::DropSource { name } => self.drop_source(name),
            Change::SuspendSource { name, suspended } => {
                self.update_source(name, |source| source.suspended = *suspended)
            }
            Change::SkipSource { name, skips } => self.update_source(name, |source| source.skips.add(skips))?,
            Change::SkipPushes { collection, skips } => {
                let found = self.collections.get_mut(collection);
                found.ok_or_else(|| no_collection(collection))?.push_skips.add(skips)
            }
            Change::Define { .. }
            | Change::SetTag { .. }
            | Change::RenameDefinition { .. }
            | Change::Undefine { .. } => self.change_definition(record, &record.change),
            Change::Announce {
                name,
                member,
                replaces,
                from_snapshots,
            } => self.announce(record.level, name, member, *replaces, *from_snapshots),
            Change::RemoveMember {
                name,
                instance,
                lost,
                from_snapshots,
            } => self.remove_member(record.level, name, *instance, *lost, *from_snapshots),
            Change::LeaveBehind {
                leaf,
                by,
                instance,
                shards,
            } => self.leave_behind(leaf, by, *instance, shards),
            Change::JoinReplicas { leaf, instance, shards } => self.join_replicas(leaf, *instance, shards),
            Change::ServeReplicas { leaf, instance, shards } => self.serve_replicas(leaf, *instance, shards),
            Change::AddReplicas { replicas } => self.add_replicas(replicas),
            Change::RetireReplicas { replicas } => self.retire_replicas(replicas),
            Change::RemoveReplicas { by, instance, replicas } => self.remove_replicas(by, *instance, replicas),
            Change::DrainLeaf { leaf, draining } => self.drain_leaf(leaf, *draining),
            Change::TakeControl { node, instance, epoch } => self.take_control(node, *instance, *epoch),
            Change::HoldReplacements { held } => self.hold_replacements(*held),
            Change::ReplaceReplicas { epoch, retired, added } => self.replace_replicas(*epoch, retired, added),
            Change::ProposeRun { source, partition, run } => self.propose_run(source, *partition, run),
            Change::ConfirmRun { leaf, instance, run } => self.confirm_run(leaf.as_ref(), *instance, run),
            Change::WithdrawRun { run } => self.withdraw_run(run),
            Change::All { changes } => changes
                .iter()
                .try_for_each(|change| self.change_definition(record, change)),
        }
    }

    fn create_collection(
        &mut self,
        uid: Uuid,
        name: &CollectionName,
        settings: &CollectionSettings,
        placement: &[Vec<NodeName>],
    ) -> Result<(), Problem> {
        if self.collections.contains_key(name) {
            return Ok(());
        }
        if self.view(name.as_str()).is_some() {
            return Err(
                Problem::new(Code::Conflict, format!("a view named {name} already exists"))
                    .hint("choose another name, or drop the view"),
            );
        }
        if settings.shards == 0 || settings.shards > SHARDS_MAX {
            return Err(Problem::new(
                Code::BadRequest,
                format!("collection {name} cannot have {} shards", settings.shards),
            )
            .hint(format!("a collection has 1 to {SHARDS_MAX} shards")));
        }
        if !placement.is_empty() && (placement.len() != settings.shards as usize || placement.iter().any(Vec::is_empty))
        {
            return Err(Problem::new(
                Code::BadRequest,
                format!(
                    "the placement of {name} must name a leaf for each of {} shards (it has {} entries)",
                    settings.shards,
                    placement.len()
                ),
            ));
        }
        check_replicas(name, settings, placement)?;
        let mut leaves = placement.iter();
        if let Some(twice) = leaves.find(|leaves| leaves.iter().collect::<BTreeSet<_>>().len() < leaves.len()) {
            return Err(Problem::new(
                Code::BadRequest,
                format!("the placement of {name} names a leaf twice for one shard: {twice:?}"),
            ));
        }
        // One may have been removed since the placement was computed. Before level 6, there were no members.
        let is_leaf = |leaf: &NodeName| self.members.get(leaf).is_some_and(|member| member.role == Role::Leaf);
        if !self.members.is_empty()
            && let Some(other) = placement.iter().flatten().find(|leaf| !is_leaf(leaf))
        {
            return Err(Problem::new(
                Code::Unavailable,
                format!("{name} cannot be created: {other} is not a leaf of the cluster any more"),
            )
            .hint("retry: it is then placed on other leaves"));
        }
        let collection = Collection {
            placement: placement.to_vec(),
            ..Collection::new(CollectionUid(uid), self.version, settings.clone())
        };
        self.collections.insert(name.clone(), collection);
        Ok(())
    }

    fn collection_mut(&mut self, uid: CollectionUid) -> Result<&mut Collection, Problem> {
        let found = self.collections.values_mut().find(|collection| collection.uid == uid);
        found.ok_or_else(|| Problem::new(Code::NotFound, format!("the collection with uid {uid} does not exist")))
    }

    fn alter_collection(
        &mut self,
        level: u16,
        name: &CollectionName,
        settings: &CollectionSettings,
    ) -> Result<(), Problem> {
        let version = self.version;
        let collection = self.collections.get_mut(name).ok_or_else(|| no_collection(name))?;
        if settings.shards != collection.settings.shards {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "collection {name} has {} shards, and their number cannot be changed",
                    collection.settings.shards
                ),
            ));
        }
        if settings.replicas != collection.settings.replicas && level < MOVES_LEVEL {
            return Err(Problem::new(
                Code::Conflict,
                format!("the number of replicas of collection {name} cannot be changed"),
            ));
        }
        if settings.replicas != collection.settings.replicas {
            check_replicas(name, settings, &collection.placement)?;
        }
        collection.settings = settings.clone();
        collection.version = version;
        Ok(())
    }

    fn drop_collection(&mut self, record: &ChangeRecord, name: &CollectionName) -> Result<(), Problem> {
        if let Some((source, _)) = self.sources_of(name).next() {
            return Err(Problem::new(
                Code::InUse,
                format!("collection {name} is in use: source {source} feeds it"),
            )
            .hint("drop the source first"));
        }
        let own = |id: &DefinitionId| id.collection.as_ref() == Some(name);
        let reads = |(id, number): &(&DefinitionId, u32)| {
            let version = self
                .definitions
                .get(id)
                .and_then(|definition| definition.numbered(*number));
            !own(id) && version.is_some_and(|version| version.reads.contains(name))
        };
        if let Some((id, _)) = self.versions_in_use().into_iter().find(reads) {
            return Err(
                Problem::new(Code::InUse, format!("collection {name} is in use: {id} reads it"))
                    .hint(format!("drop {id} first")),
            );
        }
        let collection = self.collections.remove(name).ok_or_else(|| no_collection(name))?;
        // A request without a time never expires.
        let at_ms = requested_ms(record.uid).unwrap_or(i64::MAX);
        self.dropped
            .retain(|_, dropped_ms| *dropped_ms > at_ms.saturating_sub(DROPPED_RETENTION_MS));
        self.dropped.insert(collection.uid, at_ms);
        let fields: Vec<DefinitionId> = self.definitions.keys().filter(|id| own(id)).cloned().collect();
        if !fields.is_empty() && record.level >= CHECKED_DEFINITIONS_LEVEL {
            self.definitions_version = self.version;
        }
        for id in fields {
            self.retire(&id, record.level);
        }
        Ok(())
    }

    fn put_source(&mut self, level: u16, name: &SourceName, settings: &SourceSettings) -> Result<(), Problem> {
        if name.is_push() || (name.is_changes() && level >= DELETES_LEVEL) {
            return Err(reserved_source(name));
        }
        if !self.collections.contains_key(&settings.collection) {
            return Err(no_collection(&settings.collection));
        }
        let Some(existing) = self.sources.get(name) else {
            return self.create_source(name, settings);
        };
        let fixed = |s: &SourceSettings| (s.collection.clone(), s.topic.clone(), s.rules.clone());
        if fixed(&existing.settings) != fixed(settings) {
            return Err(Problem::new(
                Code::Conflict,
                format!("source {name} already exists with another collection, topic, format or key"),
            )
            .hint("these determine its documents and cannot be changed; create a source with another name"));
        }
        let (settings, version) = (settings.clone(), self.version);
        self.update_source(name, |source| {
            source.settings = settings;
            source.version = version;
        })
    }

    /// Creates a source. One that has a retired name continues that source: with its rules, and with its skips.
    fn create_source(&mut self, name: &SourceName, settings: &SourceSettings) -> Result<(), Problem> {
        let live = self.sources_of(&settings.collection).count();
        let found = self.collections.get_mut(&settings.collection);
        let collection = found.ok_or_else(|| no_collection(&settings.collection))?;
        let retired = collection.retired_sources.get(name);
        if retired.is_some_and(|retired| (&retired.topic, &retired.rules) != (&settings.topic, &settings.rules)) {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "collection {} still has the documents of an earlier source {name} with another topic, format or key",
                    settings.collection
                ),
            )
            .hint("create a source with another name, or with the topic, format and key of the earlier one"));
        }
        if retired.is_none() && live + collection.retired_sources.len() >= SOURCES_MAX {
            return Err(Problem::new(
                Code::LimitReached,
                format!(
                    "collection {} has reached the limit of {SOURCES_MAX} sources, dropped ones included",
                    settings.collection
                ),
            )
            .hint("use the name of a dropped source, or another collection"));
        }
        let skips = collection.retired_sources.remove(name).map(|retired| retired.skips);
        let source = Source {
            version: self.version,
            settings: settings.clone(),
            suspended: false,
            skips: skips.unwrap_or_default(),
        };
        self.sources.insert(name.clone(), source);
        Ok(())
    }

    /// Drops a source. Its documents stay, and so does what decided them, for a later source of the same name.
    fn drop_source(&mut self, name: &SourceName) -> Result<(), Problem> {
        let Source { settings, skips, .. } = self.sources.remove(name).ok_or_else(|| no_source(name))?;
        if let Some(collection) = self.collections.get_mut(&settings.collection) {
            let retired = RetiredSource {
                topic: settings.topic,
                rules: settings.rules,
                skips,
            };
            collection.retired_sources.insert(name.clone(), retired);
            collection.withdraw_runs_of(name);
        }
        Ok(())
    }

    fn update_source<T>(&mut self, name: &SourceName, change: impl FnOnce(&mut Source) -> T) -> Result<T, Problem> {
        let version = self.version;
        let source = self.sources.get_mut(name).ok_or_else(|| no_source(name))?;
        let result = change(source);
        source.version = version;
        Ok(result)
    }
}

/// When a request was made, in milliseconds since 1970, by the timestamp of its uid: it is the same on every node.
fn requested_ms(request: Uuid) -> Option<i64> {
    let (seconds, nanos) = request.get_timestamp()?.to_unix();
    i64::try_from(seconds * 1_000 + u64::from(nanos) / 1_000_000).ok()
}

/// The problem of a source of a user with the name of a collection's own source.
pub fn reserved_source(name: &SourceName) -> Problem {
    Problem::new(
        Code::BadRequest,
        format!("the source name {name} is reserved: every collection has such a source of its own"),
    )
    .hint("choose another name for the topic; documents are pushed with POST /v1/collections/{c}/documents")
}

/// Fails unless a collection with this placement can have as many replicas as its settings say.
fn check_replicas(
    name: &CollectionName,
    settings: &CollectionSettings,
    placement: &[Vec<NodeName>],
) -> Result<(), Problem> {
    let Some(replicas) = settings.replicas else {
        return Ok(());
    };
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        let detail = format!("collection {name} cannot have {replicas} replicas");
        return Err(Problem::new(Code::BadRequest, detail).hint(format!("a shard has 1 to {REPLICAS_MAX} replicas")));
    }
    if placement.is_empty() && replicas > 1 {
        return Err(Problem::new(
            Code::BadRequest,
            format!("collection {name} cannot have replicas: one process holds all shards"),
        )
        .hint("replicas are on the leaves of a cluster: leave them out here"));
    }
    Ok(())
}

fn no_collection(name: &CollectionName) -> Problem {
    Problem::new(Code::NotFound, format!("collection {name} does not exist"))
        .hint("SHOW TABLES lists all collections; a push or a source creates one")
}

fn no_source(name: &SourceName) -> Problem {
    Problem::new(Code::NotFound, format!("source {name} does not exist"))
        .hint("select * from rachis.sources lists all sources")
}

#[cfg(test)]
mod tests;
