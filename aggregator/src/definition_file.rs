//! All definitions as one text file that fits into git, and how a catalog gets to what such a file says.
//!
//! ```text
//! CREATE OR REPLACE FIELD events.price AS cents / 100.0;
//! ALTER FIELD events.price SET TAG prod TO latest;
//! CREATE OR REPLACE FIELD events.price AS cents / 100.0 + shipping;
//! ```
//!
//! The file says what each definition is, not what to do: its last text is the latest version, and a tag is on the text
//! above it. What the catalog has already stays as it is, so the same file changes nothing the second time. What the
//! file does not name stays, too.
//!
//! A text that names a version by its number, `price@1`, needs the same number in the other catalog. So the versions of
//! such a definition are written with their numbers, `CREATE OR REPLACE FIELD events.price@1 AS …`.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    Catalog, Code, Problem,
    catalog::{
        Definition, DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, LATEST, VersionRef, is_plain_name,
    },
    limits::{DEFINITION_BYTES_MAX, DEFINITIONS_BYTES_MAX, DEFINITIONS_MAX},
};
use serde::Serialize;

use crate::{
    deep_stack::on_deep_stack,
    sql::{self, DefinitionChange, NewDefinition, ScriptStatement, Statement, TagTarget},
};

/// Bytes of a file: those of all definitions, and their names, notes and tags.
pub(crate) const FILE_BYTES_MAX: usize = 2 * DEFINITIONS_BYTES_MAX;
/// Bytes of a statement beside the text of its definition.
const STATEMENT_BYTES: usize = 16 << 10;

/// A version of a definition.
type Written<'a> = (&'a DefinitionId, u32);

/// The definitions of a catalog as a file: what a version uses comes before it.
pub(crate) fn export(catalog: &Catalog) -> String {
    let mut file = String::from("-- The definitions of Rachis. Apply them with: rachis definition apply -f FILE\n");
    let pinned = pinned(catalog);
    let ordered = in_order_of_use(catalog, &pinned);
    let mut last_of: BTreeMap<&DefinitionId, u32> = BTreeMap::new();
    last_of.extend(ordered.iter().copied());
    let mut before = None;
    for (id, number) in ordered {
        let Some(definition) = catalog.definitions.get(id) else {
            continue;
        };
        let Some(version) = definition.numbered(number) else {
            continue;
        };
        if before != Some(id) {
            file.push('\n');
        }
        before = Some(id);
        let numbered = pinned.contains(id).then_some(number);
        file.push_str(&id.create_statement(&version.text, version.note.as_deref(), numbered));
        file.push_str(";\n");
        let (here, current) = (
            numbered.map_or(LATEST.to_owned(), |number| number.to_string()),
            definition.current(),
        );
        let mut tag = |tag: &str, to: &str| file.push_str(&format!("{};\n", set_tag(id, tag, to)));
        for name in definition.tags_of(number).filter(|name| *name != LATEST) {
            tag(name, &here);
        }
        // The latest version is the last one, unless numbers decide about their order.
        if last_of.get(id) == Some(&number) && current.number != number {
            tag(LATEST, &current.number.to_string());
        }
    }
    file
}

/// The definitions of which a version is named by its number.
fn pinned(catalog: &Catalog) -> BTreeSet<&DefinitionId> {
    let by_number = |used: &&DefinitionUse| matches!(used.version, VersionRef::Number(_));
    let versions = catalog.versions_in_use().into_iter();
    let versions = versions.filter_map(|(id, number)| catalog.definitions.get(id)?.numbered(number));
    versions
        .flat_map(|version| &version.uses)
        .filter(by_number)
        .map(|used| &used.id)
        .collect()
}

/// The versions in use, each after those that it uses, and the latest one of a definition last. Those that are named by
/// number keep the order of their numbers.
fn in_order_of_use<'a>(catalog: &'a Catalog, pinned: &BTreeSet<&DefinitionId>) -> Vec<Written<'a>> {
    let in_use = catalog.versions_in_use();
    let mut versions: BTreeMap<&DefinitionId, Vec<u32>> = BTreeMap::new();
    for (id, number) in &in_use {
        versions.entry(*id).or_default().push(*number);
    }
    for (id, numbers) in &mut versions {
        let current = catalog
            .definitions
            .get(*id)
            .map(|definition| definition.current().number);
        if !pinned.contains(*id) {
            numbers.sort_by_key(|number| (Some(*number) == current, *number));
        }
    }
    let mut order = Order {
        catalog,
        versions: &versions,
        placed: BTreeSet::new(),
        ordered: Vec::new(),
        waiting: BTreeSet::new(),
    };
    let mut ids: Vec<&DefinitionId> = versions.keys().copied().collect();
    ids.sort_by_key(|id| (DefinitionKind::ALL.iter().position(|kind| *kind == id.kind), *id));
    on_deep_stack(|| {
        for id in ids {
            for number in versions.get(id).into_iter().flatten() {
                order.place((id, *number));
            }
        }
    });
    order.ordered
}

struct Order<'a, 'v> {
    catalog: &'a Catalog,
    /// The versions of each definition, in their order.
    versions: &'v BTreeMap<&'a DefinitionId, Vec<u32>>,
    /// Those that are ordered, or wait for what they use.
    placed: BTreeSet<Written<'a>>,
    ordered: Vec<Written<'a>>,
    waiting: BTreeSet<Written<'a>>,
}

impl<'a> Order<'a, '_> {
    /// Places a version after those that it uses, and then the next ones of its definition, unless they use one that
    /// waits for this. How deep versions use each other is limited.
    fn place(&mut self, version: Written<'a>) {
        let mut next = Some(version);
        while let Some(version) = next.filter(|version| self.placed.insert(*version)) {
            self.waiting.insert(version);
            for needed in self.needed_by(version) {
                self.place(needed);
            }
            self.waiting.remove(&version);
            self.ordered.push(version);
            let (id, number) = version;
            let own = self.versions.get(id).into_iter().flatten().copied();
            let following = own.skip_while(|own| *own != number).nth(1);
            next = following.map(|next| (id, next)).filter(|next| self.is_free(*next));
        }
    }

    /// Whether nothing that a version needs waits.
    fn is_free(&self, version: Written<'a>) -> bool {
        let (mut open, mut seen) = (vec![version], BTreeSet::new());
        while let Some(version) = open.pop() {
            if self.waiting.contains(&version) {
                return false;
            }
            if !self.placed.contains(&version) && seen.insert(version) {
                open.extend(self.needed_by(version));
            }
        }
        true
    }

    /// The version before, and those that a version uses.
    fn needed_by(&self, version: Written<'a>) -> Vec<Written<'a>> {
        let (id, number) = version;
        let own = self.versions.get(id).into_iter().flatten().copied();
        let before = own.take_while(|own| *own != number).last().map(|before| (id, before));
        let uses = self.catalog.uses_of(version);
        before
            .into_iter()
            .chain(uses.map(|(used, version)| (used, version.number)))
            .collect()
    }
}

/// What a file says about one definition.
#[derive(Debug, Default)]
struct Wanted {
    /// Its texts, in order.
    texts: Vec<NewDefinition>,
    /// Where each tag is.
    tags: BTreeMap<String, TagPlace>,
}

/// Where a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagPlace {
    /// On a text of the file, by its index.
    Text(usize),
    /// On a version, by its number.
    Version(u32),
}

/// One change that a file asks for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// The definition, as a statement names it.
    pub definition: String,
    /// What becomes of it: `create`, `new version`, `move prod to 2`.
    pub action: String,
    /// The statement that does it.
    pub statement: String,
    /// The same, parsed.
    #[serde(skip)]
    pub change: DefinitionChange,
}

/// The definitions that a file has.
#[derive(Default)]
pub(crate) struct DefinitionFile {
    wanted: BTreeMap<DefinitionId, Wanted>,
    /// The texts in the order of the file: the definition of each, and the index of the text within it.
    order: Vec<(DefinitionId, usize)>,
}

impl DefinitionFile {
    /// Parses a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut file = Self::default();
        // Editors of Windows begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for statement in sql::statements(text) {
            file.add(statement).map_err(|problem| Problem {
                at: Some(sql::place_within(statement.at, problem.at)),
                ..problem
            })?;
        }
        Ok(file)
    }

    fn add(&mut self, statement: ScriptStatement<'_>) -> Result<(), Problem> {
        let unexpected = || {
            Problem::new(
                Code::BadSql,
                "a file of definitions has only CREATE and ALTER … SET TAG",
            )
            .hint("rachis definition export writes such a file")
        };
        let Statement::ChangeDefinition(change) = sql::parse(statement.text, DEFINITION_BYTES_MAX + STATEMENT_BYTES)?
        else {
            return Err(unexpected());
        };
        match change {
            DefinitionChange::Define(new) => {
                let id = new.id.clone();
                let wanted = self.wanted.entry(id.clone()).or_default();
                self.order.push((id, wanted.texts.len()));
                wanted.texts.push(NewDefinition {
                    replace: true,
                    at: sql::place_within(statement.at, Some(new.at)),
                    ..new
                });
                if self.wanted.len() > DEFINITIONS_MAX {
                    let detail = format!("the file has over {DEFINITIONS_MAX} definitions");
                    return Err(Problem::new(Code::TooComplex, detail));
                }
            }
            DefinitionChange::MoveTag {
                id,
                tag,
                to: TagTarget::Version(to),
                from: None,
            } => {
                let above = self.wanted.get_mut(&id).filter(|wanted| !wanted.texts.is_empty());
                let wanted = above.ok_or_else(|| {
                    Problem::new(Code::BadSql, format!("tag {tag} of {id} comes before its text"))
                        .hint("a tag is on the text above it")
                })?;
                let place = match to {
                    VersionRef::Number(number) => TagPlace::Version(number),
                    to if to == VersionRef::latest() => TagPlace::Text(wanted.texts.len() - 1),
                    VersionRef::Tag(_) => return Err(unexpected()),
                };
                wanted.tags.insert(tag, place);
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// The changes that the catalog lacks, in the order of the file.
    pub(crate) fn steps(&self, catalog: &Catalog) -> Vec<Step> {
        let versions = |(id, wanted): (_, &Wanted)| {
            let next = catalog.next_definition_number(id);
            (id, wanted.versions(catalog.definitions.get(id), next))
        };
        let versions: BTreeMap<&DefinitionId, Vec<(u32, bool)>> = self.wanted.iter().map(versions).collect();
        let mut steps = Vec::new();
        for (id, index) in &self.order {
            if let (Some(wanted), Some(versions)) = (self.wanted.get(id), versions.get(id)) {
                wanted.steps(id, *index, catalog.definitions.get(id), versions, &mut steps);
            }
        }
        steps
    }
}

impl Wanted {
    /// The changes for one text, its tags and, if it is the last text, the other tags.
    fn steps(
        &self,
        id: &DefinitionId,
        index: usize,
        definition: Option<&Definition>,
        versions: &[(u32, bool)],
        steps: &mut Vec<Step>,
    ) {
        let (Some(text), Some((number, is_known))) = (self.texts.get(index), versions.get(index)) else {
            return;
        };
        if !is_known {
            let is_first = definition.is_none() && index == 0;
            steps.push(Step {
                definition: id.to_string(),
                action: if is_first { "create" } else { "new version" }.to_owned(),
                statement: id.create_statement(&text.text, text.note.as_deref(), text.number),
                change: DefinitionChange::Define(text.clone()),
            });
        }
        let is_last = index + 1 == self.texts.len();
        for (tag, place) in self.tags.iter().filter(|(tag, _)| *tag != LATEST) {
            let to = match place {
                TagPlace::Text(at) if *at == index => *number,
                TagPlace::Version(to) if to == number || is_last && !versions.iter().any(|(known, _)| known == to) => {
                    *to
                }
                _ => continue,
            };
            let now = definition.and_then(|definition| definition.version(&VersionRef::Tag(tag.clone())));
            if now.map(|version| version.number) != Some(to) {
                steps.push(moved(id, tag, to));
            }
        }
        if is_last {
            let wanted = match self.tags.get(LATEST) {
                Some(TagPlace::Version(number)) => Some(*number),
                Some(TagPlace::Text(at)) => versions.get(*at).map(|(number, _)| *number),
                None => Some(*number),
            };
            // A new version is the latest; another one has to become it again.
            let created = versions.iter().rev().find(|(_, is_known)| !is_known);
            let created = created.map(|(number, _)| *number);
            let now = created.or(definition.map(|definition| definition.current().number));
            if let Some(wanted) = wanted.filter(|wanted| now != Some(*wanted)) {
                steps.push(moved(id, LATEST, wanted));
            }
        }
    }

    /// The number that each text has or will have, and whether the catalog has it.
    fn versions(&self, definition: Option<&Definition>, mut next: u32) -> Vec<(u32, bool)> {
        let mut versions = Vec::with_capacity(self.texts.len());
        for (index, text) in self.texts.iter().enumerate() {
            let known = self.number_of(index, definition);
            let number = known.or(text.number).unwrap_or(next);
            if known.is_none() {
                next = next.max(number.saturating_add(1));
            }
            versions.push((number, known.is_some()));
        }
        versions
    }

    /// The version with a text and note of the file, and with its number if it has one. Of several, the one with the tags,
    /// or at the same place, or the last.
    fn number_of(&self, index: usize, definition: Option<&Definition>) -> Option<u32> {
        let (definition, text) = (definition?, self.texts.get(index)?);
        let is_same = |version: &&DefinitionVersion| {
            is_same_text(&version.text, &text.text)
                && version.note == text.note
                && text.number.is_none_or(|number| version.number == number)
        };
        let same = definition.versions.iter().filter(is_same);
        let same: Vec<u32> = same.map(|version| version.number).collect();
        let tags = self.tags.iter().filter(|(_, place)| **place == TagPlace::Text(index));
        let is_latest = !self.tags.contains_key(LATEST) && index + 1 == self.texts.len();
        let tags = tags
            .map(|(tag, _)| tag.clone())
            .chain(is_latest.then(|| LATEST.to_owned()));
        let mut tagged = tags.filter_map(|tag| Some(definition.version(&VersionRef::Tag(tag))?.number));
        let at_place = Some(index as u32 + 1).filter(|number| same.contains(number));
        tagged
            .find(|number| same.contains(number))
            .or(at_place)
            .or(same.last().copied())
    }
}

/// Whether two texts are the same. A checkout may change how lines end.
fn is_same_text(a: &str, b: &str) -> bool {
    let lines = |text: &str| text.replace("\r\n", "\n");
    a == b || lines(a) == lines(b)
}

fn moved(id: &DefinitionId, tag: &str, to: u32) -> Step {
    Step {
        definition: id.to_string(),
        action: format!("move {tag} to {to}"),
        statement: set_tag(id, tag, &to.to_string()),
        change: DefinitionChange::MoveTag {
            id: id.clone(),
            tag: tag.to_owned(),
            to: TagTarget::Version(VersionRef::Number(to)),
            from: None,
        },
    }
}

/// The statement that moves a tag.
fn set_tag(id: &DefinitionId, tag: &str, to: &str) -> String {
    let tag = match is_plain_name(tag) {
        true => tag.to_owned(),
        false => format!("\"{tag}\""),
    };
    format!(
        "ALTER {} {} SET TAG {tag} TO {to}",
        id.kind.as_str().to_uppercase(),
        id.spelled()
    )
}

#[cfg(test)]
mod tests;
