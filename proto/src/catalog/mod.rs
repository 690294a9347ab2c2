//! The catalog: collections, sources and definitions, and the state machine that the change log drives.
//!
//! Pure: applying a change to a catalog yields a new catalog or a refusal, the same on every node, independent of
//! clocks and of anything but the order of the log. Entries refer to each other by name, and a change that would leave
//! a dangling name is refused.

mod change;
mod collection;
mod controller;
mod definition;
mod deletion;
mod retention;
mod runs;
mod source;
mod state;

use std::collections::{BTreeMap, BTreeSet};

pub use change::{
    AddedReplica, CATALOG_RULES_LEVEL, CONTROLLER_LEVEL, Change, ChangeRecord, RUNS_LEVEL, RestoredCollection,
    RetiredReplica, reserved_source,
};
pub use collection::{
    CHANGE_TOPICS, Collection, CollectionName, CollectionSettings, CollectionUid, Move, PUSH_TOPICS, ReplicaState,
    Restored, change_topic_of, push_topic_of,
};
pub use controller::Controller;
pub use definition::{
    Definition, DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, Dependent, LATEST, Origin, Pinned, Tag,
    VersionRef, as_list, is_plain_name, no_definition, parse_tag,
};
pub use deletion::Deletion;
pub use retention::{AgeBy, Retention};
pub use runs::{PartitionRoute, PartitionRuns, PartitionShare, ProposedRun, RUN_BLOCK, Run, RunRef};
use serde::{Deserialize, Serialize};
pub use source::{
    PartitionStart, REDACTED, RetiredSource, Skip, Skips, Source, SourceSettings, Start, is_secret_setting,
};
pub use state::{
    Entry, LogChange, LogFault, LogHeader, LogRecord, Outcome, ReadUpTo, RequestOutcome, State, StatePosition,
};

use crate::{
    address::SourceName,
    cluster::{Member, NodeName, Role},
};

/// The catalog: the result of all accepted changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// The number of changes read. Calls between nodes and `expected` refer to it.
    pub version: u64,
    /// The nodes of the cluster by name; none if one process has all roles.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<NodeName, Member>,
    /// Leaves that are to hold no shards any more: they get no new ones, and a rebalance moves theirs away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub draining: BTreeSet<NodeName>,
    /// Which aggregator replaces lost replicas, and whether it may.
    #[serde(default, skip_serializing_if = "Controller::is_unset")]
    pub controller: Controller,
    /// Collections by name.
    pub collections: BTreeMap<CollectionName, Collection>,
    /// Kafka sources by name, without the `push` source that every collection has.
    pub sources: BTreeMap<SourceName, Source>,
    /// Definitions by id.
    #[serde(with = "as_list")]
    pub definitions: BTreeMap<DefinitionId, Definition>,
    /// The catalog's version at the last change of a definition. A change of one is checked against all others, and
    /// accepted only if none was changed in the meantime.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub definitions_version: u64,
    /// Collections dropped in the last weeks, with the time of the request in milliseconds since 1970. Leaves delete
    /// their shards a while later, also leaves that were down at the time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<CollectionUid, i64>,
    /// The last version number of each dropped definition, so that no number is reused.
    #[serde(with = "as_list")]
    pub retired: BTreeMap<DefinitionId, u32>,
    /// The largest number of a dropped definition that is not in `retired` any more. New names continue from there.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub retired_below: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none_yet(number: &u32) -> bool {
    *number == 0
}

impl Catalog {
    /// A collection by its uid.
    pub fn collection(&self, uid: CollectionUid) -> Option<(&CollectionName, &Collection)> {
        self.collections.iter().find(|(_, collection)| collection.uid == uid)
    }

    /// The nodes of a role.
    pub fn members_of(&self, role: Role) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.members.iter().filter(move |(_, member)| member.role == role)
    }

    /// The Kafka sources of a collection.
    pub fn sources_of<'a>(&'a self, name: &'a CollectionName) -> impl Iterator<Item = (&'a SourceName, &'a Source)> {
        self.sources
            .iter()
            .filter(move |(_, source)| source.settings.collection == *name)
    }

    /// A field of a collection, by name.
    pub fn field(&self, collection: &CollectionName, name: &str) -> Option<&Definition> {
        self.definitions.get(&DefinitionId::field(collection.clone(), name))
    }

    /// The fields and parsers of a collection, by kind and name.
    pub fn columns<'a>(
        &'a self,
        collection: &CollectionName,
    ) -> impl Iterator<Item = (&'a DefinitionId, &'a Definition)> {
        let of_kind = move |kind| {
            let first = DefinitionId::of_collection(kind, collection.clone(), "");
            self.definitions
                .range(first..)
                .take_while(move |(id, _)| id.kind == kind && id.collection.as_ref() == Some(collection))
        };
        of_kind(DefinitionKind::Field).chain(of_kind(DefinitionKind::Parser))
    }

    /// A view, by name.
    pub fn view(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(&DefinitionId::view(name))
    }
}
