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
//! A text that names a version by its number, `price@1`, needs the same number in the other catalog. So the file then has
//! every version of that definition, and a catalog in which they would get other numbers refuses it.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    Catalog, Code, Problem,
    catalog::{
        Definition, DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, LATEST, VersionRef, is_plain_name,
    },
    limits::{DEFINITION_BYTES_MAX, DEFINITIONS_BYTES_MAX, DEFINITIONS_MAX},
};
use serde::Serialize;

use crate::sql::{self, DefinitionChange, NewDefinition, Statement, TagTarget};

/// Bytes of a file: those of all definitions, and their names, notes and tags.
pub(crate) const FILE_BYTES_MAX: usize = 2 * DEFINITIONS_BYTES_MAX;
/// Bytes of a key of a name.
const KEY_BYTES_MAX: usize = 512;
/// Bytes of a statement beside the text of its definition.
const STATEMENT_BYTES: usize = 16 << 10;

/// The definitions of a catalog as a file: what a definition uses comes before it.
pub(crate) fn export(catalog: &Catalog) -> String {
    let mut file = String::from("-- The definitions of Rachis. Apply them with: rachis definition apply -f FILE\n");
    let pinned = pinned(catalog);
    for id in in_order_of_use(catalog) {
        let Some(definition) = catalog.definitions.get(id) else {
            continue;
        };
        file.push('\n');
        let current = definition.current().number;
        let is_written = |number: u32| pinned.contains(id) || definition.tags_of(number).next().is_some();
        let others = definition.versions.iter().filter(|version| version.number != current);
        let others = others.filter(|version| is_written(version.number));
        // Versions that are named by number keep their order. The latest may be among them.
        let mut versions: Vec<&DefinitionVersion> = others.chain([definition.current()]).collect();
        if pinned.contains(id) {
            versions.sort_by_key(|version| version.number);
        }
        let last = versions.last().map(|version| version.number);
        for version in &versions {
            file.push_str(&version.statement(id));
            file.push_str(";\n");
            for tag in definition.tags_of(version.number) {
                if tag != LATEST || last != Some(version.number) {
                    file.push_str(&set_tag(id, tag, LATEST));
                    file.push_str(";\n");
                }
            }
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

/// All definitions, each after those that its versions in use use.
fn in_order_of_use(catalog: &Catalog) -> Vec<&DefinitionId> {
    let mut uses: BTreeMap<&DefinitionId, BTreeSet<&DefinitionId>> = BTreeMap::new();
    for version in catalog.versions_in_use() {
        let used = catalog.uses_of(version).map(|(id, _)| id).filter(|id| *id != version.0);
        uses.entry(version.0).or_default().extend(used);
    }
    let (mut ordered, mut placed) = (Vec::new(), BTreeSet::new());
    let mut ids: Vec<&DefinitionId> = catalog.definitions.keys().collect();
    ids.sort_by_key(|id| (DefinitionKind::ALL.iter().position(|kind| *kind == id.kind), *id));
    for id in ids {
        place(id, &uses, &mut placed, &mut ordered);
    }
    ordered
}

fn place<'a>(
    id: &'a DefinitionId,
    uses: &BTreeMap<&'a DefinitionId, BTreeSet<&'a DefinitionId>>,
    placed: &mut BTreeSet<&'a DefinitionId>,
    ordered: &mut Vec<&'a DefinitionId>,
) {
    // Versions of two definitions may use each other; the depth is limited, as that of definitions is.
    if placed.insert(id) {
        for used in uses.get(id).into_iter().flatten() {
            place(used, uses, placed, ordered);
        }
        ordered.push(id);
    }
}

/// What a file says about one definition.
#[derive(Debug, Default)]
struct Wanted {
    /// Its texts, in order.
    texts: Vec<NewDefinition>,
    /// The index of the text that has each tag.
    tags: BTreeMap<String, usize>,
}

/// One change that a file asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// The definition, as a statement names it.
    pub definition: String,
    /// What becomes of it: `create`, `new version`, `move prod to 2`.
    pub action: String,
    /// The statement that does it.
    pub statement: String,
}

/// The definitions that a file has.
#[derive(Default)]
pub(crate) struct DefinitionFile {
    /// In the order of the file.
    definitions: Vec<(DefinitionId, Wanted)>,
    /// The place of each.
    places: BTreeMap<DefinitionId, usize>,
}

impl DefinitionFile {
    /// Parses a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut file = Self::default();
        for (number, statement) in sql::statements(text).into_iter().enumerate() {
            file.add(statement).map_err(|mut problem| {
                problem.detail = format!("statement {} of the file: {}", number + 1, problem.detail);
                problem
            })?;
        }
        Ok(file)
    }

    fn add(&mut self, statement: &str) -> Result<(), Problem> {
        let unexpected = || {
            Problem::new(
                Code::BadSql,
                "a file of definitions has only CREATE, and ALTER … SET TAG … TO latest",
            )
            .hint("rachis definition export writes such a file")
        };
        let Statement::ChangeDefinition(change) = sql::parse(statement, DEFINITION_BYTES_MAX + STATEMENT_BYTES)? else {
            return Err(unexpected());
        };
        match change {
            DefinitionChange::Define(new) => self.wanted(&new.id.clone())?.texts.push(new),
            DefinitionChange::MoveTag {
                id,
                tag,
                to: TagTarget::Version(to),
                from: None,
            } if to == VersionRef::latest() => {
                let wanted = self.wanted(&id)?;
                let last = wanted.texts.len().checked_sub(1).ok_or_else(|| {
                    Problem::new(Code::BadSql, format!("tag {tag} of {id} comes before its text"))
                        .hint("a tag is on the text above it")
                })?;
                wanted.tags.insert(tag, last);
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn wanted(&mut self, id: &DefinitionId) -> Result<&mut Wanted, Problem> {
        let place = *self.places.entry(id.clone()).or_insert(self.definitions.len());
        if place == self.definitions.len() {
            if place >= DEFINITIONS_MAX {
                let detail = format!("the file has over {DEFINITIONS_MAX} definitions");
                return Err(Problem::new(Code::TooComplex, detail));
            }
            self.definitions.push((id.clone(), Wanted::default()));
        }
        Ok(&mut self.definitions[place].1)
    }

    /// The changes that the catalog lacks. Fails if a version that the file names by its number would get another one.
    pub(crate) fn steps(&self, catalog: &Catalog) -> Result<Vec<Step>, Problem> {
        let named = self.named_by_number();
        let mut steps = Vec::new();
        for (id, wanted) in &self.definitions {
            let definition = catalog.definitions.get(id);
            let last_key = id.name.to_lowercase();
            let last_key = last_key
                .trim_end_matches('"')
                .rsplit(['.', '"'])
                .next()
                .unwrap_or_default();
            // A latest version that is not the last text is found by its number, too.
            if named.contains(last_key) || wanted.is_older_text_latest() {
                wanted.check_numbers(id, definition, catalog.retired.get(id).copied())?;
            }
            steps.extend(wanted.steps(id, definition));
        }
        Ok(steps)
    }

    /// The names before an `@` and a number, in lower case: what the texts of the file seem to name by number.
    fn named_by_number(&self) -> BTreeSet<String> {
        let texts = self.definitions.iter().flat_map(|(_, wanted)| &wanted.texts);
        let mut names = BTreeSet::new();
        for text in texts {
            let text = text.text.to_lowercase();
            for (at, _) in text.match_indices('@') {
                let (before, after) = (&text[..at], &text[at + 1..]);
                if after.starts_with(|first: char| first.is_ascii_digit()) {
                    let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
                    // Within quotes, a name may have any characters.
                    let quoted = before
                        .get(at.saturating_sub(KEY_BYTES_MAX)..)
                        .unwrap_or(before)
                        .rsplit('"');
                    let found = word.take(1).chain(quoted.take(1));
                    names.extend(found.map(str::to_owned));
                }
            }
        }
        names
    }
}

impl Wanted {
    /// Whether the latest version is not the last text.
    fn is_older_text_latest(&self) -> bool {
        self.tags.get(LATEST).is_some_and(|index| index + 1 < self.texts.len())
    }

    /// Checks that each text has, or will have, its place in the file as its number.
    fn check_numbers(
        &self,
        id: &DefinitionId,
        definition: Option<&Definition>,
        retired: Option<u32>,
    ) -> Result<(), Problem> {
        let last = definition.and_then(|definition| definition.versions.last());
        let mut next = 1 + last.map(|version| version.number).or(retired).unwrap_or(0);
        for (index, text) in self.texts.iter().enumerate() {
            let wanted = index as u32 + 1;
            let known = definition.and_then(|definition| definition.numbered(wanted));
            let has = known.is_some_and(|known| known.text == text.text && known.note == text.note);
            if !has && next != wanted {
                return Err(Problem::new(
                    Code::Conflict,
                    format!("version {wanted} of {id} in the file would get another number in this catalog"),
                )
                .hint("name a tag instead of a number in what uses it, for example price@prod, and put its latest text last"));
            }
            next += u32::from(!has);
        }
        Ok(())
    }

    fn steps(&self, id: &DefinitionId, definition: Option<&Definition>) -> Vec<Step> {
        let known: Vec<Option<u32>> = (0..self.texts.len())
            .map(|index| self.number_of(index, definition))
            .collect();
        let mut steps = Vec::new();
        for (index, (text, number)) in self.texts.iter().zip(&known).enumerate() {
            if number.is_none() {
                let action = if definition.is_none() && index == 0 {
                    "create"
                } else {
                    "new version"
                };
                steps.push(Step {
                    definition: id.to_string(),
                    action: action.to_owned(),
                    statement: id.create_statement(&text.text, text.note.as_deref()),
                });
            }
            // The number of a new version is not known before it is created.
            let to = number.map_or(VersionRef::latest(), VersionRef::Number);
            let tags = self.tags.iter().filter(|(tag, at)| **at == index && *tag != LATEST);
            for (tag, _) in tags {
                let now = definition.and_then(|definition| definition.version(&VersionRef::Tag(tag.clone())));
                if number.is_none() || now.map(|version| version.number) != *number {
                    steps.push(moved(id, tag, &to));
                }
            }
        }
        // A new version is the latest; another one has to become it again.
        let last = self.texts.len().saturating_sub(1);
        let wanted = self.tags.get(LATEST).copied().unwrap_or(last);
        let number = known.get(wanted).copied().flatten();
        let is_latest = match number {
            Some(number) => {
                definition.is_some_and(|definition| definition.current().number == number) && !known.contains(&None)
            }
            None => known.iter().rposition(Option::is_none) == Some(wanted),
        };
        if !is_latest {
            // The number of a version that is created here, if it is not the last one, follows from its place.
            let number = number.unwrap_or(wanted as u32 + 1);
            steps.push(moved(id, LATEST, &VersionRef::Number(number)));
        }
        steps
    }

    /// The version with a text and note of the file. Of several, the one at the same place, or with the tags, or the last.
    fn number_of(&self, index: usize, definition: Option<&Definition>) -> Option<u32> {
        let (definition, text) = (definition?, self.texts.get(index)?);
        let is_same = |version: &&DefinitionVersion| version.text == text.text && version.note == text.note;
        let same: Vec<u32> = definition
            .versions
            .iter()
            .filter(is_same)
            .map(|version| version.number)
            .collect();
        let tags = self
            .tags
            .iter()
            .filter(|(_, at)| **at == index)
            .map(|(tag, _)| tag.clone());
        let is_latest = !self.tags.contains_key(LATEST) && index + 1 == self.texts.len();
        let tags = tags.chain(is_latest.then(|| LATEST.to_owned()));
        let mut tagged = tags.filter_map(|tag| Some(definition.version(&VersionRef::Tag(tag))?.number));
        let at_place = Some(index as u32 + 1).filter(|number| same.contains(number));
        tagged
            .find(|number| same.contains(number))
            .or(at_place)
            .or(same.last().copied())
    }
}

fn moved(id: &DefinitionId, tag: &str, to: &VersionRef) -> Step {
    let to = to.to_string();
    let to = to.trim_start_matches('@');
    Step {
        definition: id.to_string(),
        action: format!("move {tag} to {to}"),
        statement: set_tag(id, tag, to),
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
