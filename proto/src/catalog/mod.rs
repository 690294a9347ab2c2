//! What everybody has agreed to: collections, sources, definitions; and the state machine that the change log feeds.
//!
//! Pure: a catalog and a change give a catalog or a refusal, the same on every node, whatever the time or the order of
//! anything else. Names live here once; what refers to another entry does so by name, and a change that would leave a
//! dangling name is refused.

mod change;
mod collection;
mod definition;
mod source;
mod state;

use std::collections::BTreeMap;

pub use change::{Change, ChangeRecord, LEVEL};
pub use collection::{Collection, CollectionName, CollectionSettings, CollectionUid, push_topic_of};
pub use definition::{Definition, DefinitionId, DefinitionKind, DefinitionVersion};
use serde::{Deserialize, Serialize};
pub use source::{Skip, Skips, Source, SourceSettings, Start};
pub use state::{Begin, Entry, LogChange, LogRecord, Outcome, Recent, Seen, State, Trouble};

use crate::address::SourceName;

/// The state that the change log adds up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// How many changes were read; the version that scans and expectations name.
    pub version: u64,
    /// Collections by name.
    pub collections: BTreeMap<CollectionName, Collection>,
    /// Kafka sources by name. Every collection has its `push` besides.
    pub sources: BTreeMap<SourceName, Source>,
    /// Definitions that are in force.
    #[serde(with = "definition::as_list")]
    pub definitions: BTreeMap<DefinitionId, Definition>,
    /// Collections that were dropped in the last weeks, with the time of the request, milliseconds since 1970: their
    /// shards go a while later, and on leaves that were away meanwhile, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<CollectionUid, i64>,
    /// The highest number that a dropped definition had, so that a number never means two things.
    #[serde(with = "definition::as_list")]
    pub retired: BTreeMap<DefinitionId, u32>,
}

impl Catalog {
    /// A collection by what never changes about it.
    pub fn collection(&self, uid: CollectionUid) -> Option<(&CollectionName, &Collection)> {
        self.collections.iter().find(|(_, collection)| collection.uid == uid)
    }

    /// The sources that feed a collection.
    pub fn sources_of<'a>(&'a self, name: &'a CollectionName) -> impl Iterator<Item = (&'a SourceName, &'a Source)> {
        self.sources
            .iter()
            .filter(move |(_, source)| source.settings.collection == *name)
    }

    /// A field of a collection.
    pub fn field(&self, collection: &CollectionName, name: &str) -> Option<&Definition> {
        self.definitions.get(&DefinitionId::field(collection.clone(), name))
    }

    /// The fields of a collection with what is in force, by name.
    pub fn fields<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> impl Iterator<Item = (&'a str, &'a DefinitionVersion)> {
        let own =
            move |id: &DefinitionId| id.kind == DefinitionKind::Field && id.collection.as_ref() == Some(collection);
        self.definitions
            .iter()
            .filter(move |(id, _)| own(id))
            .map(|(id, definition)| (id.name.as_str(), definition.current()))
    }

    /// A view.
    pub fn view(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(&DefinitionId::view(name))
    }

    /// Definitions that use this one.
    pub fn dependents<'a>(&'a self, id: &'a DefinitionId) -> impl Iterator<Item = &'a DefinitionId> {
        self.definitions
            .iter()
            .filter(move |(_, definition)| definition.current().uses.contains(id))
            .map(|(id, _)| id)
    }
}
