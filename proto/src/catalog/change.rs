//! Change: one step of the catalog, and the rules by which it is accepted or refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Catalog, Collection, CollectionName, CollectionSettings, CollectionUid, Definition, DefinitionId, DefinitionKind,
    DefinitionVersion, Skips, Source, SourceSettings,
};
use crate::{
    address::SourceName,
    cluster::NodeName,
    limits::{DEFINITION_BYTES_MAX, DEFINITIONS_MAX, SHARDS_MAX},
    problem::{Code, Problem},
};

/// The rules that this program knows. A record of a higher level stops a node: it never skips.
pub const LEVEL: u16 = 1;

/// How long a dropped collection is remembered: a leaf that is away for longer keeps its shards.
const DROPPED_REMEMBERED_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// A record of the change log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Names the request: a repeated record changes nothing.
    pub uid: Uuid,
    /// By which rules to judge it.
    pub level: u16,
    /// The version of the changed entry that the requester had seen; any, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// What to change.
    pub change: Change,
}

/// What can be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the entries' own")]
pub enum Change {
    /// Creates a collection; one that is there stays as it is. In a cluster it says which leaves hold each shard.
    CreateCollection {
        name: CollectionName,
        settings: CollectionSettings,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        placement: Vec<Vec<NodeName>>,
    },
    /// A topic for the collection's pushes is there.
    OpenPushes { collection: CollectionUid },
    /// Changes what may be changed of a collection: everything but its shards.
    AlterCollection {
        name: CollectionName,
        settings: CollectionSettings,
    },
    /// Drops a collection with its documents; refused while a source or a definition names it.
    DropCollection { name: CollectionName },
    /// Creates a source, or changes its config; collection, topic, format and key stay as they were.
    PutSource { name: SourceName, settings: SourceSettings },
    /// Drops a source; its documents stay.
    DropSource { name: SourceName },
    /// Suspends or resumes reading.
    SuspendSource { name: SourceName, suspended: bool },
    /// Leaves out a range of each of these partitions.
    SkipSource { name: SourceName, skips: Skips },
    /// The same among the pushes of a collection.
    SkipPushes { collection: CollectionName, skips: Skips },
    /// Creates a definition or, with `replace`, a further version of it.
    Define {
        id: DefinitionId,
        text: String,
        uses: Vec<DefinitionId>,
        reads: Vec<CollectionName>,
        replace: bool,
    },
    /// Drops a definition; refused while another uses it. With `if_exists` a missing one is no error.
    Undefine { id: DefinitionId, if_exists: bool },
}

impl Catalog {
    /// Reads one record: the catalog afterwards, or why it was refused. A refused record still counts as read.
    pub fn apply(&self, record: &ChangeRecord) -> (Self, Result<(), Problem>) {
        let mut next = self.clone();
        next.version += 1;
        let result = match record.expected {
            Some(expected) if self.version_of(&record.change) != expected => Err(Problem::new(
                Code::Conflict,
                format!(
                    "it was changed by somebody else (version {}, expected {expected})",
                    self.version_of(&record.change)
                ),
            )
            .hint("read it again and repeat the change")),
            _ => next.change(record),
        };
        match result {
            Ok(()) => (next, Ok(())),
            Err(problem) => (
                Self {
                    version: next.version,
                    ..self.clone()
                },
                Err(problem),
            ),
        }
    }

    /// The version of the entry that a change is about; 0 where there is none.
    fn version_of(&self, change: &Change) -> u64 {
        match change {
            Change::OpenPushes { collection } => self.collection(*collection).map_or(0, |(_, c)| c.version),
            Change::CreateCollection { name, .. }
            | Change::AlterCollection { name, .. }
            | Change::DropCollection { name }
            | Change::SkipPushes { collection: name, .. } => self.collections.get(name).map_or(0, |c| c.version),
            Change::PutSource { name, .. }
            | Change::DropSource { name }
            | Change::SuspendSource { name, .. }
            | Change::SkipSource { name, .. } => self.sources.get(name).map_or(0, |s| s.version),
            Change::Define { id, .. } | Change::Undefine { id, .. } => {
                self.definitions.get(id).map_or(0, |d| u64::from(d.current().number))
            }
        }
    }

    fn change(&mut self, record: &ChangeRecord) -> Result<(), Problem> {
        match &record.change {
            Change::CreateCollection {
                name,
                settings,
                placement,
            } => self.create_collection(record.uid, name, settings, placement),
            Change::OpenPushes { collection } => self.open_pushes(*collection),
            Change::AlterCollection { name, settings } => self.alter_collection(name, settings),
            Change::DropCollection { name } => self.drop_collection(record.uid, name),
            Change::PutSource { name, settings } => self.put_source(name, settings),
            Change::DropSource { name } => self.sources.remove(name).map(drop).ok_or_else(|| no_source(name)),
            Change::SuspendSource { name, suspended } => self.with_source(name, |source| source.suspended = *suspended),
            Change::SkipSource { name, skips } => self.with_source(name, |source| source.skips.add(skips))?,
            Change::SkipPushes { collection, skips } => {
                let there = self
                    .collections
                    .get_mut(collection)
                    .ok_or_else(|| no_collection(collection))?;
                there.push_skips.add(skips)
            }
            Change::Define {
                id,
                text,
                uses,
                reads,
                replace,
            } => self.define(id, text, uses, reads, *replace),
            Change::Undefine { id, if_exists } => self.undefine(id, *if_exists),
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
                Problem::new(Code::Conflict, format!("{name} is a view")).hint("choose another name, or drop the view")
            );
        }
        if settings.shards == 0 || settings.shards > SHARDS_MAX {
            return Err(Problem::new(Code::BadRequest, format!("{} shards", settings.shards))
                .hint(format!("a collection has 1 to {SHARDS_MAX} shards")));
        }
        if !placement.is_empty() && (placement.len() != settings.shards as usize || placement.iter().any(Vec::is_empty))
        {
            return Err(Problem::new(
                Code::BadRequest,
                format!("{} of {} shards are placed", placement.len(), settings.shards),
            ));
        }
        let collection = Collection {
            placement: placement.to_vec(),
            ..Collection::new(CollectionUid(uid), self.version, settings.clone())
        };
        self.collections.insert(name.clone(), collection);
        Ok(())
    }

    fn open_pushes(&mut self, uid: CollectionUid) -> Result<(), Problem> {
        let there = self.collections.values_mut().find(|collection| collection.uid == uid);
        there
            .map(|collection| collection.push_topic = true)
            .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no collection of uid {uid}")))
    }

    fn alter_collection(&mut self, name: &CollectionName, settings: &CollectionSettings) -> Result<(), Problem> {
        let version = self.version;
        let collection = self.collections.get_mut(name).ok_or_else(|| no_collection(name))?;
        if settings.shards != collection.settings.shards {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "{name} has {} shards, which cannot be changed",
                    collection.settings.shards
                ),
            ));
        }
        collection.settings = settings.clone();
        collection.version = version;
        Ok(())
    }

    fn drop_collection(&mut self, request: Uuid, name: &CollectionName) -> Result<(), Problem> {
        if let Some((source, _)) = self.sources_of(name).next() {
            return Err(
                Problem::new(Code::InUse, format!("source {source} feeds {name}")).hint("drop the source first")
            );
        }
        let own = |id: &DefinitionId| id.collection.as_ref() == Some(name);
        if let Some((id, _)) = self
            .definitions
            .iter()
            .find(|(id, d)| !own(id) && d.current().reads.contains(name))
        {
            return Err(Problem::new(Code::InUse, format!("{id} reads {name}")).hint(format!("drop {id} first")));
        }
        let collection = self.collections.remove(name).ok_or_else(|| no_collection(name))?;
        // The request's own time, the same on every node. One that has none is never old enough.
        let at_ms = request.get_timestamp().map_or(i64::MAX, |time| {
            (time.to_unix().0 * 1_000).try_into().unwrap_or(i64::MAX)
        });
        self.dropped
            .retain(|_, dropped_ms| *dropped_ms > at_ms.saturating_sub(DROPPED_REMEMBERED_MS));
        self.dropped.insert(collection.uid, at_ms);
        let fields: Vec<DefinitionId> = self.definitions.keys().filter(|id| own(id)).cloned().collect();
        for id in fields {
            self.retire(&id);
        }
        Ok(())
    }

    fn put_source(&mut self, name: &SourceName, settings: &SourceSettings) -> Result<(), Problem> {
        if name.is_push() {
            return Err(
                Problem::new(Code::BadRequest, "push is the name of every collection's own source")
                    .hint("choose another name"),
            );
        }
        if !self.collections.contains_key(&settings.collection) {
            return Err(no_collection(&settings.collection));
        }
        let Some(there) = self.sources.get(name) else {
            let source = Source {
                version: self.version,
                settings: settings.clone(),
                suspended: false,
                skips: Skips::default(),
            };
            self.sources.insert(name.clone(), source);
            return Ok(());
        };
        let fixed = |s: &SourceSettings| (s.collection.clone(), s.topic.clone(), s.rules.clone());
        if fixed(&there.settings) != fixed(settings) {
            return Err(Problem::new(
                Code::Conflict,
                format!("source {name} is there with another collection, topic, format or key"),
            )
            .hint("these say what its documents are and stay as they are; create a source of another name"));
        }
        let (settings, version) = (settings.clone(), self.version);
        self.with_source(name, |source| {
            source.settings = settings;
            source.version = version;
        })
    }

    fn with_source<T>(&mut self, name: &SourceName, change: impl FnOnce(&mut Source) -> T) -> Result<T, Problem> {
        let version = self.version;
        let source = self.sources.get_mut(name).ok_or_else(|| no_source(name))?;
        let done = change(source);
        source.version = version;
        Ok(done)
    }

    fn define(
        &mut self,
        id: &DefinitionId,
        text: &str,
        uses: &[DefinitionId],
        reads: &[CollectionName],
        replace: bool,
    ) -> Result<(), Problem> {
        if text.len() > DEFINITION_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("{id} has {} bytes, the limit is {DEFINITION_BYTES_MAX}", text.len()),
            ));
        }
        if !self.definitions.contains_key(id) && self.definitions.len() >= DEFINITIONS_MAX {
            return Err(
                Problem::new(Code::LimitReached, format!("there are {DEFINITIONS_MAX} definitions")).hint("drop some"),
            );
        }
        if let Some(collection) = id
            .collection
            .iter()
            .chain(reads)
            .find(|name| !self.collections.contains_key(*name))
        {
            return Err(no_collection(collection));
        }
        if id.kind == DefinitionKind::View
            && id
                .name
                .parse::<CollectionName>()
                .is_ok_and(|name| self.collections.contains_key(&name))
        {
            return Err(Problem::new(Code::Conflict, format!("{} is a collection", id.name))
                .hint("choose another name for the view"));
        }
        if let Some(missing) = uses
            .iter()
            .find(|used| !self.definitions.contains_key(used) && *used != id)
        {
            return Err(Problem::new(
                Code::NotFound,
                format!("{id} uses {missing}, which does not exist"),
            ));
        }
        if let Some(way) = self.way(uses, id) {
            let names: Vec<String> = way.iter().map(DefinitionId::to_string).collect();
            let hint = match id.kind {
                DefinitionKind::Field => {
                    format!("to reach the stored value of the same name, write _doc->'{}'", id.name)
                }
                DefinitionKind::View => "a view cannot read itself".into(),
            };
            return Err(Problem::new(
                Code::Conflict,
                format!("{id} would use itself: {id} -> {}", names.join(" -> ")),
            )
            .hint(hint));
        }
        let number = self
            .definitions
            .get(id)
            .map(|d| d.current().number)
            .or(self.retired.get(id).copied())
            .unwrap_or(0)
            + 1;
        let version = DefinitionVersion {
            number,
            text: text.to_owned(),
            uses: uses.to_vec(),
            reads: reads.to_vec(),
        };
        match self.definitions.get_mut(id) {
            Some(_) if !replace => Err(Problem::new(Code::Conflict, format!("{id} is there"))
                .hint("CREATE OR REPLACE makes a new version of it")),
            Some(definition) => {
                definition.versions.push(version);
                Ok(())
            }
            None => {
                self.definitions.insert(
                    id.clone(),
                    Definition {
                        versions: vec![version],
                    },
                );
                Ok(())
            }
        }
    }

    /// A chain of uses from one of `from` to `to`, if there is one.
    fn way(&self, from: &[DefinitionId], to: &DefinitionId) -> Option<Vec<DefinitionId>> {
        let mut before: BTreeMap<&DefinitionId, Option<&DefinitionId>> = from.iter().map(|id| (id, None)).collect();
        let mut open: Vec<&DefinitionId> = before.keys().copied().collect();
        while let Some(id) = open.pop() {
            if id == to {
                let mut way: Vec<DefinitionId> =
                    std::iter::successors(Some(id), |at| before.get(at).copied().flatten())
                        .cloned()
                        .collect();
                way.reverse();
                return Some(way);
            }
            for next in self
                .definitions
                .get(id)
                .map(|d| &d.current().uses[..])
                .unwrap_or_default()
            {
                if !before.contains_key(next) {
                    before.insert(next, Some(id));
                    open.push(next);
                }
            }
        }
        None
    }

    fn undefine(&mut self, id: &DefinitionId, if_exists: bool) -> Result<(), Problem> {
        if !self.definitions.contains_key(id) {
            return if if_exists {
                Ok(())
            } else {
                Err(Problem::new(Code::NotFound, format!("there is no {id}")))
            };
        }
        let users: Vec<String> = self.dependents(id).map(DefinitionId::to_string).collect();
        if !users.is_empty() {
            return Err(
                Problem::new(Code::InUse, format!("{id} is used by {}", users.join(", ")))
                    .hint("drop or change what uses it first"),
            );
        }
        self.retire(id);
        Ok(())
    }

    fn retire(&mut self, id: &DefinitionId) {
        if let Some(definition) = self.definitions.remove(id) {
            self.retired.insert(id.clone(), definition.current().number);
        }
    }
}

fn no_collection(name: &CollectionName) -> Problem {
    Problem::new(Code::NotFound, format!("there is no collection {name}"))
        .hint("SHOW TABLES lists them; a push or a source creates one")
}

fn no_source(name: &SourceName) -> Problem {
    Problem::new(Code::NotFound, format!("there is no source {name}")).hint("select * from rachis.sources lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CollectionName {
        text.parse().expect("a name")
    }

    fn with(changes: Vec<Change>) -> (Catalog, Result<(), Problem>) {
        changes
            .into_iter()
            .fold((Catalog::default(), Ok(())), |(catalog, _), change| {
                catalog.apply(&ChangeRecord {
                    uid: Uuid::now_v7(),
                    level: LEVEL,
                    expected: None,
                    change,
                })
            })
    }

    fn create(text: &str) -> Change {
        Change::CreateCollection {
            name: name(text),
            settings: CollectionSettings::default(),
            placement: Vec::new(),
        }
    }

    fn field(text: &str, uses: &[&str], replace: bool) -> Change {
        let id = |text: &str| DefinitionId::field(name("events"), text);
        Change::Define {
            id: id(text),
            text: "1".into(),
            uses: uses.iter().map(|u| id(u)).collect(),
            reads: vec![],
            replace,
        }
    }

    #[test]
    fn a_version_number_never_means_two_things() {
        let drop = Change::Undefine {
            id: DefinitionId::field(name("events"), "a"),
            if_exists: false,
        };
        let (catalog, result) = with(vec![
            create("events"),
            field("a", &[], false),
            field("a", &[], true),
            drop,
            field("a", &[], false),
        ]);
        assert_eq!(result, Ok(()));
        assert_eq!(catalog.field(&name("events"), "a").map(|d| d.current().number), Some(3));
    }

    #[test]
    fn cycles_and_drops_of_what_is_used_are_refused_with_a_reason() {
        let (catalog, result) = with(vec![
            create("events"),
            field("a", &[], false),
            field("b", &["a"], false),
            field("c", &["b"], false),
            field("a", &["c"], true),
        ]);
        let problem = result.expect_err("a cycle");
        assert_eq!(
            problem.detail,
            "field events.a would use itself: field events.a -> field events.c -> field events.b -> field events.a"
        );
        let uid = Uuid::now_v7();
        let change = Change::Undefine {
            id: DefinitionId::field(name("events"), "b"),
            if_exists: false,
        };
        let (after, result) = catalog.apply(&ChangeRecord {
            uid,
            level: LEVEL,
            expected: None,
            change,
        });
        assert_eq!(
            result.expect_err("in use").detail,
            "field events.b is used by field events.c"
        );
        assert_eq!(after.definitions, catalog.definitions);
        let (_, result) = with(vec![create("events"), field("a", &["a"], false)]);
        assert_eq!(
            result.expect_err("itself").hint.as_deref(),
            Some("to reach the stored value of the same name, write _doc->'a'")
        );
    }

    #[test]
    fn a_catalog_reads_back_from_its_json() {
        let (catalog, _) = with(vec![
            create("events"),
            field("a", &[], false),
            field("b", &["a"], false),
        ]);
        let json = serde_json::to_string(&catalog).expect("json");
        assert_eq!(serde_json::from_str::<Catalog>(&json).ok(), Some(catalog));
    }

    #[test]
    fn a_change_on_an_old_version_is_a_conflict() {
        let (catalog, _) = with(vec![create("events")]);
        let record = |expected| ChangeRecord {
            uid: Uuid::now_v7(),
            level: LEVEL,
            expected: Some(expected),
            change: Change::DropCollection { name: name("events") },
        };
        assert_eq!(catalog.apply(&record(7)).1.map_err(|p| p.code), Err(Code::Conflict));
        assert_eq!(catalog.apply(&record(1)).1, Ok(()));
    }
}
