//! Definitions: the rules for creating, replacing, tagging, renaming and dropping them.

use std::collections::{BTreeMap, BTreeSet};

use super::{BATCHES_LEVEL, CHECKED_DEFINITIONS_LEVEL, Change, ChangeRecord, no_collection, requested_ms};
use crate::{
    catalog::{
        Catalog, CollectionName, Definition, DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, Dependent,
        LATEST, Origin, Tag, VersionRef, no_definition, parse_tag,
    },
    limits::{
        AUTHOR_BYTES_MAX, DEFINITION_BYTES_MAX, DEFINITION_DEPTH_MAX, DEFINITION_NAME_BYTES_MAX,
        DEFINITION_NOTE_BYTES_MAX, DEFINITION_TAGS_MAX, DEFINITION_VERSIONS_MAX, DEFINITIONS_BYTES_MAX,
        DEFINITIONS_MAX, RETIRED_NAMES_MAX,
    },
    problem::{Code, Problem},
};

/// Names in the message of a refusal.
const LISTED_MAX: usize = 20;
/// Bytes of the texts of all definitions, before other bytes were limited.
const TEXTS_BYTES_MAX: usize = 32 << 20;
/// The largest number that a version may be given.
const NUMBER_MAX: u32 = 1 << 30;
/// Former names that a definition may get back.
const FORMER_NAMES_MAX: usize = 16;

impl Catalog {
    /// Applies a change of a definition, which the record has alone or with others.
    pub(super) fn change_definition(&mut self, record: &ChangeRecord, change: &Change) -> Result<(), Problem> {
        let level = record.level;
        let at_ms = requested_ms(record.uid);
        let origin = |author: &Option<String>| Origin {
            author: author.clone(),
            at_ms,
        };
        match change {
            Change::Define {
                id,
                text,
                uses,
                reads,
                replace,
                note,
                author,
                number,
            } => {
                let mut version = DefinitionVersion {
                    number: self.next_definition_number(id),
                    text: text.clone(),
                    uses: uses.clone(),
                    reads: reads.clone(),
                    note: note.clone(),
                    replaces: None,
                    origin: origin(author),
                };
                if level >= BATCHES_LEVEL {
                    let replaced = self.definitions.get(id).map(Definition::current);
                    version.replaces = replaced.map(|replaced| replaced.number);
                }
                let is_checked = level >= CHECKED_DEFINITIONS_LEVEL;
                if !is_checked {
                    return self.define(id, version, *replace);
                }
                match number {
                    Some(number) => {
                        version.number = *number;
                        if self.has_numbered(id, &version)? {
                            return Ok(());
                        }
                    }
                    None if *replace && self.is_current(id, &version) => return Ok(()),
                    None => {}
                }
                self.check_size(id, &version, level)?;
                // Definitions of the first release may be nested more deeply. They must not stop every other change.
                let was_too_deep = self.check_depth().is_err();
                self.define(id, version, *replace)?;
                if !was_too_deep {
                    self.check_depth()?;
                }
                self.forget_versions(id)?;
            }
            Change::SetTag {
                id,
                tag,
                to,
                from,
                author,
            } => {
                let was_too_deep = level >= BATCHES_LEVEL && self.check_depth().is_err();
                self.set_tag(id, tag, *to, *from, origin(author))?;
                if to.is_some() && !was_too_deep {
                    self.check_depth()?;
                }
            }
            Change::RenameDefinition { id, to } => self.rename(id, to, level)?,
            Change::Undefine { id, if_exists } => self.undefine(id, *if_exists, level)?,
            _ => {
                return Err(Problem::new(
                    Code::BadRequest,
                    "only changes of definitions can be made together",
                ));
            }
        }
        // Changes of level 1 leave it at 0, so that a node that loads an old state agrees with one that replays the log.
        if level >= CHECKED_DEFINITIONS_LEVEL {
            self.definitions_version = self.version;
        }
        Ok(())
    }

    /// Whether a replacement equals the latest version. Such a replacement creates no version.
    fn is_current(&self, id: &DefinitionId, version: &DefinitionVersion) -> bool {
        self.definitions.get(id).is_some_and(|definition| {
            let current = definition.current();
            (&current.text, &current.note, &current.uses) == (&version.text, &version.note, &version.uses)
        })
    }

    /// Whether the version with this number exists already, with this text. Fails if the number cannot have this text.
    fn has_numbered(&self, id: &DefinitionId, version: &DefinitionVersion) -> Result<bool, Problem> {
        let number = version.number;
        let definition = self.definitions.get(id);
        if let Some(known) = definition.and_then(|definition| definition.numbered(number)) {
            return match (&known.text, &known.note) == (&version.text, &version.note) {
                true => Ok(true),
                false => Err(Problem::new(
                    Code::Conflict,
                    format!("version {number} of {id} has another text, and a version never changes"),
                )
                .hint("leave out the number to create a new version")),
            };
        }
        let last = definition.and_then(|definition| definition.versions.last());
        let last = last.map_or(0, |version| version.number);
        match (last + 1..=NUMBER_MAX).contains(&number) {
            true => Ok(false),
            false => Err(Problem::new(
                Code::Conflict,
                format!("{id} cannot have a new version {number}: it had versions up to {last}"),
            )
            .hint(format!(
                "leave out the number, or use one from {} to {NUMBER_MAX}",
                last + 1
            ))),
        }
    }

    /// Creates a definition or, with `replace`, adds a version to it, which becomes the latest.
    fn define(&mut self, id: &DefinitionId, version: DefinitionVersion, replace: bool) -> Result<(), Problem> {
        self.check_definition_limits(id, &version)?;
        self.check_name(id)?;
        self.check_references(id, &version.uses, &version.reads)?;
        let number = version.number;
        match self.definitions.get_mut(id) {
            Some(_) if !replace => {
                return Err(Problem::new(Code::Conflict, format!("{id} already exists"))
                    .hint("use CREATE OR REPLACE to create a new version"));
            }
            Some(definition) => {
                let tag = Tag {
                    version: number,
                    origin: version.origin.clone(),
                };
                definition.tags.insert(LATEST.to_owned(), tag);
                definition.versions.push(version);
            }
            None => {
                let definition = Definition {
                    versions: vec![version],
                    tags: BTreeMap::new(),
                    former_names: BTreeMap::new(),
                };
                self.definitions.insert(id.clone(), definition);
            }
        }
        self.check_acyclic(id, number)
    }

    fn check_definition_limits(&self, id: &DefinitionId, version: &DefinitionVersion) -> Result<(), Problem> {
        let bytes = version.text.len();
        if bytes > DEFINITION_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("{id} has {bytes} bytes; the limit is {DEFINITION_BYTES_MAX}"),
            ));
        }
        if !self.definitions.contains_key(id) && self.definitions.len() >= DEFINITIONS_MAX {
            return Err(limit_reached(format!("{DEFINITIONS_MAX} definitions"))
                .hint("drop definitions that are no longer needed"));
        }
        Ok(())
    }

    /// Checks the name, the note, the author, and the bytes of all definitions.
    fn check_size(&self, id: &DefinitionId, version: &DefinitionVersion, level: u16) -> Result<(), Problem> {
        let bytes = version.note.as_ref().map_or(0, String::len);
        if bytes > DEFINITION_NOTE_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("the comment of {id} has {bytes} bytes; the limit is {DEFINITION_NOTE_BYTES_MAX}"),
            ));
        }
        check_author(&version.origin)?;
        let versions = self.definitions.values().flat_map(|definition| &definition.versions);
        let versions = versions.chain([version]);
        let (bytes, bytes_max) = match level >= BATCHES_LEVEL {
            true => {
                check_name_length(id)?;
                (versions.map(bytes_of).sum::<usize>(), DEFINITIONS_BYTES_MAX)
            }
            false => (versions.map(|version| version.text.len()).sum(), TEXTS_BYTES_MAX),
        };
        match bytes > bytes_max {
            true => Err(limit_reached(format!("{bytes_max} bytes of definitions"))
                .hint("drop definitions that are no longer needed")),
            false => Ok(()),
        }
    }

    /// Removes the oldest unused version if there are too many.
    fn forget_versions(&mut self, id: &DefinitionId) -> Result<(), Problem> {
        let versions = self
            .definitions
            .get(id)
            .map_or(0, |definition| definition.versions.len());
        if versions <= DEFINITION_VERSIONS_MAX {
            return Ok(());
        }
        let in_use: BTreeSet<u32> = self
            .versions_in_use()
            .into_iter()
            .filter_map(|(used, number)| (used == id).then_some(number))
            .collect();
        let Some(definition) = self.definitions.get_mut(id) else {
            return Ok(());
        };
        let oldest = definition
            .versions
            .iter()
            .position(|version| !in_use.contains(&version.number));
        match oldest {
            Some(oldest) => drop(definition.versions.remove(oldest)),
            None => {
                return Err(
                    limit_reached(format!("{DEFINITION_VERSIONS_MAX} versions of {id} in use"))
                        .hint("remove tags that are no longer needed"),
                );
            }
        }
        Ok(())
    }

    /// Checks that a view does not hide a collection, and that a parser and a field do not have one name.
    fn check_name(&self, id: &DefinitionId) -> Result<(), Problem> {
        let is_collection = |name: &str| {
            name.parse::<CollectionName>()
                .is_ok_and(|name| self.collections.contains_key(&name))
        };
        if id.kind == DefinitionKind::View && is_collection(&id.name) {
            return Err(
                Problem::new(Code::Conflict, format!("a collection named {} already exists", id.name))
                    .hint("choose another name for the view"),
            );
        }
        let other = match id.kind {
            DefinitionKind::Parser => DefinitionKind::Field,
            DefinitionKind::Field => DefinitionKind::Parser,
            _ => return Ok(()),
        };
        let other = DefinitionId {
            kind: other,
            ..id.clone()
        };
        match self.definitions.contains_key(&other) {
            true => Err(Problem::new(Code::Conflict, format!("{other} already exists")).hint("choose another name")),
            false => Ok(()),
        }
    }

    /// Checks that everything the definition refers to exists.
    fn check_references(
        &self,
        id: &DefinitionId,
        uses: &[DefinitionUse],
        reads: &[CollectionName],
    ) -> Result<(), Problem> {
        let mut collections = id.collection.iter().chain(reads);
        if let Some(missing) = collections.find(|name| !self.collections.contains_key(*name)) {
            return Err(no_collection(missing));
        }
        // A use of itself is a cycle, which is said later.
        let mut others = uses
            .iter()
            .filter(|used| used.id != *id || self.definitions.contains_key(id));
        let missing = others.find(|used| self.definition_version(&used.id, &used.version).is_err());
        match missing {
            Some(missing) => Err(Problem::new(
                Code::NotFound,
                format!("{id} uses {missing}, which does not exist"),
            )),
            None => Ok(()),
        }
    }

    /// Checks that a version does not use itself, directly or through others.
    fn check_acyclic(&self, id: &DefinitionId, number: u32) -> Result<(), Problem> {
        let Some(chain) = self.cycle_through((id, number)) else {
            return Ok(());
        };
        let names: Vec<String> = chain.iter().map(|(id, _)| id.to_string()).collect();
        let hint = match id.kind {
            DefinitionKind::Field | DefinitionKind::Parser => {
                format!("to reach the stored value of the same name, write _doc->'{}'", id.name)
            }
            kind => format!(
                "a {} cannot use itself; it can use an earlier version: {}@1",
                kind.as_str(),
                id.name
            ),
        };
        Err(Problem::new(
            Code::Conflict,
            format!("{id} would use itself: {id} -> {}", names.join(" -> ")),
        )
        .hint(hint))
    }

    /// A chain of uses that leads from a version back to itself, if there is one.
    fn cycle_through<'a>(&'a self, start: (&'a DefinitionId, u32)) -> Option<Vec<(&'a DefinitionId, u32)>> {
        let mut user_of: BTreeMap<(&DefinitionId, u32), Option<(&DefinitionId, u32)>> = BTreeMap::new();
        let mut open: Vec<(&DefinitionId, u32)> = Vec::new();
        let mut from = None;
        loop {
            for (id, version) in self.uses_of(from.unwrap_or(start)) {
                let next = (id, version.number);
                if let std::collections::btree_map::Entry::Vacant(entry) = user_of.entry(next) {
                    entry.insert(from);
                    open.push(next);
                }
            }
            let next = open.pop()?;
            if next == start {
                let mut chain: Vec<_> =
                    std::iter::successors(Some(next), |at| user_of.get(at).copied().flatten()).collect();
                chain.reverse();
                return Some(chain);
            }
            from = Some(next);
        }
    }

    /// Checks that the versions in use do not use each other in a circle, or too deeply.
    fn check_depth(&self) -> Result<(), Problem> {
        let mut depths = BTreeMap::new();
        for version in self.versions_in_use() {
            self.depth(version, &mut Vec::new(), &mut depths)?;
        }
        Ok(())
    }

    /// How many levels of definitions a version has, itself included. `around` are those that use it here.
    fn depth<'a>(
        &'a self,
        version: (&'a DefinitionId, u32),
        around: &mut Vec<(&'a DefinitionId, u32)>,
        depths: &mut BTreeMap<(&'a DefinitionId, u32), usize>,
    ) -> Result<usize, Problem> {
        if let Some(depth) = depths.get(&version) {
            return Ok(*depth);
        }
        let (id, number) = version;
        if around.contains(&version) {
            return Err(Problem::new(Code::Conflict, format!("{id}@{number} would use itself")));
        }
        let mut deepest = 0;
        if around.len() < DEFINITION_DEPTH_MAX {
            around.push(version);
            for (used, version) in self.uses_of(version) {
                deepest = deepest.max(self.depth((used, version.number), around, depths)?);
            }
            around.pop();
        } else {
            deepest = DEFINITION_DEPTH_MAX;
        }
        if deepest >= DEFINITION_DEPTH_MAX {
            let outermost = around.first().unwrap_or(&version);
            return Err(Problem::new(
                Code::TooComplex,
                format!(
                    "{}@{} would have more than {DEFINITION_DEPTH_MAX} levels of definitions that use each other",
                    outermost.0, outermost.1
                ),
            )
            .hint("write the expression of an inner definition into an outer one"));
        }
        depths.insert(version, deepest + 1);
        Ok(deepest + 1)
    }

    /// The number of the next version; it continues after a drop.
    pub fn next_definition_number(&self, id: &DefinitionId) -> u32 {
        let retired = self.retired.get(id).copied();
        let last = match self
            .definitions
            .get(id)
            .and_then(|definition| definition.versions.last())
        {
            Some(version) => version.number.max(retired.unwrap_or(0)),
            None => retired.unwrap_or(self.retired_below),
        };
        last + 1
    }

    fn set_tag(
        &mut self,
        id: &DefinitionId,
        tag: &str,
        to: Option<u32>,
        from: Option<u32>,
        origin: Origin,
    ) -> Result<(), Problem> {
        let tag = parse_tag(tag)?;
        check_author(&origin)?;
        let definition = self.definitions.get(id).ok_or_else(|| no_definition(id))?;
        let now = match tag == LATEST {
            true => Some(definition.current().number),
            false => definition.tags.get(&tag).map(|tag| tag.version),
        };
        if from.is_some() && from != now {
            let now = now.map_or("no version has it".to_owned(), |now| format!("version {now} has it"));
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "tag {tag} of {id} is not on version {}: {now}",
                    from.unwrap_or_default()
                ),
            )
            .hint(format!(
                "SHOW VERSIONS OF {} {} shows the tags; retry with the version that has it",
                id.kind.as_str().to_uppercase(),
                id.spelled()
            )));
        }
        let Some(to) = to else {
            return self.remove_tag(id, &tag);
        };
        let version = self.definition_version(id, &VersionRef::Number(to))?;
        self.check_references(id, &version.uses, &version.reads)?;
        let Some(definition) = self.definitions.get_mut(id) else {
            return Ok(());
        };
        if !definition.tags.contains_key(&tag) && definition.tags.len() >= DEFINITION_TAGS_MAX {
            return Err(limit_reached(format!("{DEFINITION_TAGS_MAX} tags of {id}")).hint("remove a tag"));
        }
        definition.tags.insert(tag, Tag { version: to, origin });
        self.check_acyclic(id, to)
    }

    fn remove_tag(&mut self, id: &DefinitionId, tag: &str) -> Result<(), Problem> {
        if tag == LATEST {
            return Err(
                Problem::new(Code::Conflict, format!("the tag {LATEST} of {id} cannot be removed"))
                    .hint("move it to another version"),
            );
        }
        let follows = |used: &DefinitionUse| matches!(&used.version, VersionRef::Tag(used) if used == tag);
        let users = self.dependents().remove(id).unwrap_or_default();
        let users = users.iter().filter(|dependent| follows(dependent.used));
        let users: BTreeSet<String> = users
            .map(
                |Dependent {
                     user: (user, version), ..
                 }| format!("{user}@{}", version.number),
            )
            .collect();
        if !users.is_empty() {
            return Err(in_use(format!("tag {tag} of {id} is used by {}", listed(users))));
        }
        let removed = self
            .definitions
            .get_mut(id)
            .and_then(|definition| definition.tags.remove(tag));
        removed.map(drop).ok_or_else(|| {
            Problem::new(Code::NotFound, format!("{id} has no tag {tag}")).hint("SHOW VERSIONS lists its tags")
        })
    }

    fn rename(&mut self, id: &DefinitionId, to: &str, level: u16) -> Result<(), Problem> {
        let definition = self.definitions.get(id).ok_or_else(|| no_definition(id))?;
        let renamed = DefinitionId {
            name: to.to_owned(),
            ..id.clone()
        };
        if self.definitions.contains_key(&renamed) {
            return Err(Problem::new(Code::Conflict, format!("{renamed} already exists")).hint("choose another name"));
        }
        self.check_name(&renamed)?;
        if level >= BATCHES_LEVEL {
            check_name_length(&renamed)?;
        }
        let versions = |(user, definition): (&DefinitionId, &Definition)| {
            let uses = definition.versions.iter().flat_map(|version| &version.uses);
            uses.into_iter()
                .any(|used| used.id == renamed)
                .then(|| user.to_string())
        };
        let dangling: BTreeSet<String> = self.definitions.iter().filter_map(versions).collect();
        if !dangling.is_empty() {
            return Err(Problem::new(
                Code::Conflict,
                format!("old versions of {} use the name {renamed}", listed(dangling)),
            )
            .hint("choose another name"));
        }
        // An old version without a tag that uses the old name would find nothing.
        let own = definition
            .versions
            .iter()
            .filter(|version| version.uses.iter().any(|used| used.id == *id));
        let own: Vec<String> = own.map(|version| format!("{id}@{}", version.number)).collect();
        let users: BTreeSet<String> = self.users_of(id).into_iter().chain(own).collect();
        if !users.is_empty() {
            return Err(in_use(format!("{id} is used by {}", listed(users))));
        }
        // Version numbers of a name are never reused, unless it gets back the name under which it had them.
        let first = definition.versions.first().map_or(0, |version| version.number);
        let retired = self.retired.get(&renamed);
        let returns = level >= BATCHES_LEVEL && retired.is_some() && retired == definition.former_names.get(to);
        if let Some(last) = retired.filter(|last| first <= **last && !returns) {
            return Err(Problem::new(
                Code::Conflict,
                format!("an earlier {renamed} had versions up to {last}; their numbers are not reused"),
            )
            .hint("choose another name"));
        }
        let mut definition = definition.clone();
        if level >= BATCHES_LEVEL {
            let last = definition.versions.last().map_or(0, |version| version.number);
            definition.former_names.remove(to);
            definition.former_names.insert(id.name.clone(), last);
            if definition.former_names.len() > FORMER_NAMES_MAX {
                definition.former_names.pop_first();
            }
        }
        self.retire(id, level);
        self.definitions.insert(renamed, definition);
        Ok(())
    }

    /// Drops a definition that no other definition uses.
    fn undefine(&mut self, id: &DefinitionId, if_exists: bool, level: u16) -> Result<(), Problem> {
        if !self.definitions.contains_key(id) {
            return match if_exists {
                true => Ok(()),
                false => Err(no_definition(id)),
            };
        }
        let users = self.users_of(id);
        if !users.is_empty() {
            return Err(in_use(format!("{id} is used by {}", listed(users))));
        }
        self.retire(id, level);
        Ok(())
    }

    /// The names of the other definitions that use this one.
    fn users_of(&self, id: &DefinitionId) -> BTreeSet<String> {
        let users = self.dependents().remove(id).unwrap_or_default();
        let users = users.iter().map(|dependent| dependent.user.0);
        users.filter(|user| *user != id).map(ToString::to_string).collect()
    }

    /// Removes a definition and keeps its last version number, so that the number is not reused.
    pub(super) fn retire(&mut self, id: &DefinitionId, level: u16) {
        let next = self.next_definition_number(id);
        if self.definitions.remove(id).is_none() {
            return;
        }
        self.retired.insert(id.clone(), next - 1);
        // Of too many names, those with the smallest numbers are forgotten, and new names continue from there.
        while level >= BATCHES_LEVEL
            && self.retired.len() > RETIRED_NAMES_MAX
            && let Some((id, last)) = self.retired.iter().min_by_key(|(id, last)| (**last, *id))
        {
            let id = id.clone();
            self.retired_below = self.retired_below.max(*last);
            self.retired.remove(&id);
        }
    }
}

/// The bytes of a version in a saved catalog, about.
fn bytes_of(version: &DefinitionVersion) -> usize {
    const BYTES: usize = 64;
    let uses = version.uses.iter().map(|used| BYTES + used.id.name.len());
    let reads = version.reads.iter().map(|name| name.as_str().len());
    let texts = [version.note.as_ref(), version.origin.author.as_ref()];
    let texts = texts.into_iter().flatten().map(String::len);
    BYTES + version.text.len() + uses.chain(reads).chain(texts).sum::<usize>()
}

fn check_name_length(id: &DefinitionId) -> Result<(), Problem> {
    let bytes = id.name.len();
    match bytes > DEFINITION_NAME_BYTES_MAX {
        true => Err(Problem::new(
            Code::TooComplex,
            format!(
                "the name of a {} has {bytes} bytes; the limit is {DEFINITION_NAME_BYTES_MAX}",
                id.kind.as_str()
            ),
        )),
        false => Ok(()),
    }
}

fn check_author(origin: &Origin) -> Result<(), Problem> {
    let bytes = origin.author.as_ref().map_or(0, String::len);
    match bytes > AUTHOR_BYTES_MAX {
        true => Err(Problem::new(
            Code::BadRequest,
            format!("the name of the author has {bytes} bytes; the limit is {AUTHOR_BYTES_MAX}"),
        )),
        false => Ok(()),
    }
}

fn limit_reached(what: String) -> Problem {
    Problem::new(Code::LimitReached, format!("the limit of {what} is reached"))
}

fn in_use(detail: String) -> Problem {
    Problem::new(Code::InUse, detail).hint("drop or change the definitions that use it first")
}

/// Names separated by commas, the end of a long list as a number.
fn listed(names: BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let mut listed: Vec<String> = names.into_iter().take(LISTED_MAX).collect();
    if more > 0 {
        listed.push(format!("and {more} more"));
    }
    listed.join(", ")
}
