//! Definition: a field or view that is evaluated at query time, with immutable numbered versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::collection::CollectionName;

/// The identity of a definition: a field of a collection, or a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId {
    /// The kind.
    pub kind: DefinitionKind,
    /// The collection of a field; `None` for a view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<CollectionName>,
    /// The name; for a field, a path in SQL spelling.
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
}

impl DefinitionKind {
    /// The name of the kind in messages and system tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::View => "view",
        }
    }
}

impl DefinitionId {
    /// A field of a collection.
    pub fn field(collection: CollectionName, name: &str) -> Self {
        Self {
            kind: DefinitionKind::Field,
            collection: Some(collection),
            name: name.to_owned(),
        }
    }

    /// A view.
    pub fn view(name: &str) -> Self {
        Self {
            kind: DefinitionKind::View,
            collection: None,
            name: name.to_owned(),
        }
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

/// A definition with all its versions, of which the last is current.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The versions by number, ascending; never empty.
    pub versions: Vec<DefinitionVersion>,
}

impl Definition {
    /// The current version.
    pub fn current(&self) -> &DefinitionVersion {
        self.versions.last().expect("a definition always has a version")
    }

    /// The version of this number, if there is one.
    pub fn version(&self, number: u32) -> Option<&DefinitionVersion> {
        self.versions.iter().find(|version| version.number == number)
    }
}

/// One version of a definition; immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionVersion {
    /// The number, from 1. It is never reused, not even after a drop.
    pub number: u32,
    /// The expression or query as the user wrote it.
    pub text: String,
    /// The definitions that it refers to.
    pub uses: Vec<DefinitionId>,
    /// The collections that it refers to (for a field: its own).
    pub reads: Vec<CollectionName>,
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
