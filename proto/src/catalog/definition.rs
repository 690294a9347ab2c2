//! Definition: something evaluated at query time, with immutable numbered versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::collection::CollectionName;

/// Which definition: a field of a collection, or a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId {
    /// What it is.
    pub kind: DefinitionKind,
    /// The collection, for a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<CollectionName>,
    /// The name; for a field a path in the spelling that SQL takes.
    pub name: String,
}

/// What a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    /// An expression over one document, usable wherever a path is.
    Field,
    /// A query, usable wherever a collection is.
    View,
}

impl DefinitionKind {
    /// As messages and tables show it.
    pub fn word(self) -> &'static str {
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
        write!(f, "{} ", self.kind.word())?;
        if let Some(collection) = &self.collection {
            write!(f, "{collection}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A definition: all its versions, the last of which is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// By number, ascending; never empty.
    pub versions: Vec<DefinitionVersion>,
}

impl Definition {
    /// The version in force.
    pub fn current(&self) -> &DefinitionVersion {
        self.versions
            .last()
            .expect("a definition has a version from its creation on")
    }

    /// A version by its number.
    pub fn version(&self, number: u32) -> Option<&DefinitionVersion> {
        self.versions.iter().find(|version| version.number == number)
    }
}

/// One version; never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionVersion {
    /// From 1; a number is never given again, not even after a drop.
    pub number: u32,
    /// The expression or query as the user wrote it.
    pub text: String,
    /// The definitions it names.
    pub uses: Vec<DefinitionId>,
    /// The collections it names (for a field: its own).
    pub reads: Vec<CollectionName>,
}

/// A map whose keys are not text, as a list of pairs.
pub(super) mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }
    pub fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}
