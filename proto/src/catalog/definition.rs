//! Definition: what is evaluated at query time, with immutable numbered versions and movable tags.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{Catalog, collection::CollectionName};
use crate::problem::{Code, Problem};

/// The tag of the version that a name without `@` means. A new version gets it.
pub const LATEST: &str = "latest";
/// Bytes of the name of a tag.
const TAG_BYTES_MAX: usize = 64;

/// The identity of a definition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId {
    /// The kind.
    pub kind: DefinitionKind,
    /// The collection of a field or parser; `None` for the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<CollectionName>,
    /// The name; for a field or parser, a path in SQL spelling.
    pub name: String,
}

/// The kind of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    /// An expression over one document, usable wherever a path is.
    Field,
    /// A query, usable wherever a collection is.
    View,
    /// An expression over its parameters, usable wherever a function is.
    Function,
    /// A query with parameters, called by its name.
    Query,
    /// Reads a text of a document; the fields that it finds are paths below its name.
    Parser,
}

impl DefinitionKind {
    /// All kinds, in the order in which definitions can use each other.
    pub const ALL: [Self; 5] = [Self::Function, Self::Parser, Self::Field, Self::View, Self::Query];

    /// The name of the kind in statements, messages and system tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::View => "view",
            Self::Function => "function",
            Self::Query => "query",
            Self::Parser => "parser",
        }
    }

    /// The kind of a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(name))
    }
}

impl DefinitionId {
    /// A field of a collection.
    pub fn field(collection: CollectionName, name: &str) -> Self {
        Self::of_collection(DefinitionKind::Field, collection, name)
    }

    /// A field or parser of a collection.
    pub fn of_collection(kind: DefinitionKind, collection: CollectionName, name: &str) -> Self {
        Self {
            kind,
            collection: Some(collection),
            name: name.to_owned(),
        }
    }

    /// A definition that belongs to no collection.
    pub fn global(kind: DefinitionKind, name: &str) -> Self {
        Self {
            kind,
            collection: None,
            name: name.to_owned(),
        }
    }

    /// A view.
    pub fn view(name: &str) -> Self {
        Self::global(DefinitionKind::View, name)
    }

    /// The statement that creates a version with this text and note, and with this number if there is one.
    pub fn create_statement(&self, text: &str, note: Option<&str>, number: Option<u32>) -> String {
        let kind = self.kind.as_str().to_uppercase();
        let name = number.map_or_else(|| self.spelled(), |number| self.spelled_version(number));
        let mut statement = format!("CREATE OR REPLACE {kind} {name}");
        statement.push_str(match self.kind {
            DefinitionKind::Field | DefinitionKind::View => " AS ",
            DefinitionKind::Function | DefinitionKind::Query | DefinitionKind::Parser => " ",
        });
        statement.push_str(text);
        if let Some(note) = note {
            statement.push_str(&format!(" COMMENT '{}'", note.replace('\'', "''")));
        }
        statement
    }

    /// A version as a statement spells it: `events.price@3`.
    fn spelled_version(&self, number: u32) -> String {
        let name = self.spelled();
        match name.strip_suffix('"') {
            Some(name) => format!("{name}@{number}\""),
            None => format!("{name}@{number}"),
        }
    }

    /// The name as a statement spells it: `events.price`, `slow`.
    pub fn spelled(&self) -> String {
        match &self.collection {
            Some(collection) => format!("{}.{}", spelled_name(collection.as_str()), spelled_path(&self.name)),
            None => spelled_name(&self.name),
        }
    }
}

/// A path in SQL spelling, with quotes around each key that a statement would read as something else.
fn spelled_path(path: &str) -> String {
    let is_word = |key: &str| is_plain_name(&key.to_ascii_lowercase());
    let (mut spelled, mut rest) = (String::new(), path);
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(quoted_len);
        let length = quoted.map_or_else(|| rest.find('.').unwrap_or(rest.len()), |length| length + 1);
        let (key, after) = rest.split_at(length);
        match quoted.is_some() || is_word(key) {
            true => spelled.push_str(key),
            false => spelled.push_str(&format!("\"{key}\"")),
        }
        rest = after;
        if let Some(after) = rest.strip_prefix('.') {
            spelled.push('.');
            rest = after;
        }
    }
    spelled
}

/// The bytes up to the closing quote and with it. A doubled quote is part of the text.
fn quoted_len(text: &str) -> Option<usize> {
    let (mut at, bytes) = (0, text.as_bytes());
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// A name in quotes if a statement needs them.
fn spelled_name(name: &str) -> String {
    match is_plain_name(name) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_str())?;
        if let Some(collection) = &self.collection {
            write!(f, "{collection}.")?;
        }
        f.write_str(&self.name)
    }
}

/// Selects a version of a definition: `@2` or `@prod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VersionRef {
    /// The version of this number.
    Number(u32),
    /// The version that has this tag.
    Tag(String),
}

impl VersionRef {
    /// The version that a name without `@` means.
    pub fn latest() -> Self {
        Self::Tag(LATEST.to_owned())
    }

    /// Reads what follows the `@`: a number, or a tag in any case.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Number)
                .map_err(|_| Problem::new(Code::BadSql, format!("{text} is not the number of a version")));
        }
        parse_tag(text).map(Self::Tag)
    }

    fn is_latest(&self) -> bool {
        matches!(self, Self::Tag(tag) if tag == LATEST)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "@{number}"),
            Self::Tag(tag) => write!(f, "@{tag}"),
        }
    }
}

/// Whether a text is a plain name: lower-case letters, digits and underscores, not beginning with a digit.
pub fn is_plain_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().all(is_of_name) && !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// Parses the name of a tag and returns it in lower case. A tag may also contain hyphens.
pub fn parse_tag(text: &str) -> Result<String, Problem> {
    let tag = text.to_ascii_lowercase();
    let is_tag = !tag.starts_with('-') && is_plain_name(&tag.replace('-', "_"));
    match is_tag && tag.len() <= TAG_BYTES_MAX {
        true => Ok(tag),
        false => Err(
            Problem::new(Code::BadSql, format!("{text:?} is not a tag")).hint(format!(
                "a tag is a letter or underscore, then letters, digits, _ or -, at most {TAG_BYTES_MAX} bytes"
            )),
        ),
    }
}

/// A use of a definition by another one: it names a version, or follows a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionUse {
    /// The definition that is used.
    #[serde(flatten)]
    pub id: DefinitionId,
    /// Its version.
    #[serde(default = "VersionRef::latest", skip_serializing_if = "VersionRef::is_latest")]
    pub version: VersionRef,
}

impl fmt::Display for DefinitionUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, self.version)
    }
}

/// A definition with all its versions and tags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The versions by number, ascending; never empty.
    pub versions: Vec<DefinitionVersion>,
    /// The tags by name. Without [`LATEST`], the last version has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Tag>,
    /// Names that it had, each with its last version at the time. It may get one back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former_names: BTreeMap<String, u32>,
}

/// Where a tag is, and who put it there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// The version that has the tag.
    pub version: u32,
    /// Who moved it, and when.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Who made a change, and when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The author, as the client says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The time of the request in milliseconds since 1970; unknown for changes by early releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
}

impl Definition {
    /// The version that a name without `@` means.
    pub fn current(&self) -> &DefinitionVersion {
        let last = || self.versions.last().expect("a definition always has a version");
        let tagged = self.tags.get(LATEST).and_then(|tag| self.numbered(tag.version));
        tagged.unwrap_or_else(last)
    }

    /// The version of this number, if there is one.
    pub fn numbered(&self, number: u32) -> Option<&DefinitionVersion> {
        let at = self.versions.binary_search_by_key(&number, |version| version.number);
        self.versions.get(at.ok()?)
    }

    /// The selected version, if it exists.
    pub fn version(&self, wanted: &VersionRef) -> Option<&DefinitionVersion> {
        match wanted {
            VersionRef::Number(number) => self.numbered(*number),
            wanted if wanted.is_latest() => Some(self.current()),
            VersionRef::Tag(tag) => self.numbered(self.tags.get(tag)?.version),
        }
    }

    /// The tags of a version, in order.
    pub fn tags_of(&self, number: u32) -> impl Iterator<Item = &str> {
        let latest = (self.current().number == number).then_some(LATEST);
        let others = self
            .tags
            .iter()
            .filter(move |(name, tag)| *name != LATEST && tag.version == number);
        latest.into_iter().chain(others.map(|(name, _)| name.as_str()))
    }

    /// The numbers of the versions that have a tag.
    pub(super) fn tagged(&self) -> BTreeSet<u32> {
        let tagged = self.tags.values().map(|tag| tag.version);
        tagged.chain([self.current().number]).collect()
    }
}

/// One version of a definition; immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionVersion {
    /// The number, from 1. After a drop, it is not used again unless a change names it.
    pub number: u32,
    /// The definition as the user wrote it: of a field the expression, of a view the query, of other kinds everything
    /// after the name.
    pub text: String,
    /// The definitions that it refers to.
    pub uses: Vec<DefinitionUse>,
    /// The collections that it refers to (for a field: its own).
    pub reads: Vec<CollectionName>,
    /// What the user noted about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The version that was the latest before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u32>,
    /// Who created it, and when.
    #[serde(flatten)]
    pub origin: Origin,
}

impl DefinitionVersion {
    /// The statement that creates this version again.
    pub fn statement(&self, id: &DefinitionId) -> String {
        id.create_statement(&self.text, self.note.as_deref(), None)
    }
}

/// A definition and one of its versions.
pub type Pinned<'a> = (&'a DefinitionId, &'a DefinitionVersion);

/// A version in use that uses another definition.
#[derive(Debug, Clone, Copy)]
pub struct Dependent<'a> {
    /// The version that uses it.
    pub user: Pinned<'a>,
    /// What it uses.
    pub used: &'a DefinitionUse,
}

impl Catalog {
    /// The selected version of a definition. Fails if the definition or the version does not exist.
    pub fn definition_version(&self, id: &DefinitionId, wanted: &VersionRef) -> Result<&DefinitionVersion, Problem> {
        let definition = self.definitions.get(id).ok_or_else(|| no_definition(id))?;
        definition.version(wanted).ok_or_else(|| {
            let numbers: Vec<String> = definition
                .versions
                .iter()
                .map(|version| version.number.to_string())
                .collect();
            let tags: Vec<&str> = definition
                .tags
                .keys()
                .map(String::as_str)
                .filter(|tag| *tag != LATEST)
                .collect();
            let (what, mut hint) = match wanted {
                VersionRef::Number(number) => (
                    format!("version {number}"),
                    format!("its versions are {}", shortened(&numbers)),
                ),
                VersionRef::Tag(tag) => (
                    format!("tag {tag}"),
                    format!("its tags are {}", [&[LATEST], &tags[..]].concat().join(", ")),
                ),
            };
            if matches!(wanted, VersionRef::Tag(_)) {
                hint.push_str(&format!(
                    "; set one with ALTER {} {} SET TAG …",
                    id.kind.as_str().to_uppercase(),
                    id.spelled()
                ));
            }
            Problem::new(Code::BadSql, format!("{id} has no {what}")).hint(hint)
        })
    }

    /// The versions in use: those with a tag, and those that these use. Others can still be asked for by number.
    pub fn versions_in_use(&self) -> BTreeSet<(&DefinitionId, u32)> {
        let mut open: Vec<(&DefinitionId, u32)> = Vec::new();
        for (id, definition) in &self.definitions {
            open.extend(definition.tagged().into_iter().map(|number| (id, number)));
        }
        let mut found = BTreeSet::new();
        while let Some(version) = open.pop() {
            if found.insert(version) {
                open.extend(self.uses_of(version).map(|(id, version)| (id, version.number)));
            }
        }
        found
    }

    /// The versions that a version uses.
    pub fn uses_of<'a>(&'a self, (id, number): (&'a DefinitionId, u32)) -> impl Iterator<Item = Pinned<'a>> {
        let version = self
            .definitions
            .get(id)
            .and_then(|definition| definition.numbered(number));
        let uses = version.map(|version| version.uses.iter());
        uses.into_iter().flatten().filter_map(|used| {
            let definition = self.definitions.get(&used.id)?;
            Some((&used.id, definition.version(&used.version)?))
        })
    }

    /// The versions in use that use each definition, and how they name it.
    pub fn dependents(&self) -> BTreeMap<&DefinitionId, Vec<Dependent<'_>>> {
        let mut dependents: BTreeMap<&DefinitionId, Vec<Dependent<'_>>> = BTreeMap::new();
        for (user, number) in self.versions_in_use() {
            let definition = self.definitions.get(user);
            let Some(version) = definition.and_then(|definition| definition.numbered(number)) else {
                continue;
            };
            for used in &version.uses {
                let user = (user, version);
                dependents.entry(&used.id).or_default().push(Dependent { user, used });
            }
        }
        dependents
    }
}

/// The problem that a definition does not exist.
pub fn no_definition(id: &DefinitionId) -> Problem {
    Problem::new(Code::NotFound, format!("{id} does not exist")).hint("SHOW DEFINITIONS lists all definitions")
}

/// A list, the middle of a long one left out.
fn shortened(items: &[String]) -> String {
    const ENDS: usize = 5;
    match items.len() {
        0..=12 => items.join(", "),
        count => format!("{}, …, {}", items[..ENDS].join(", "), items[count - ENDS..].join(", ")),
    }
}

/// Serializes a map as a list of pairs, because its keys are not strings.
pub mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// The map as a list.
    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }
    /// The map of a list.
    pub fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}
