//! Column: a typed view of something every document has. Its name says all of it, so a schema is a list of names.
//!
//! The resolver turns each path, with the type that its use asks for, into one flat column; DataFusion never sees a
//! nested name.
//!
//! A view without a cast is strict: a value of another kind is NULL there, and counted. A cast converts what can be
//! converted (`'12'` is 12 as a number, 12 is `'12'` as text), and what cannot is NULL and counted.

use std::fmt;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

use crate::{kinds::Kinds, path::Path, search::Clause};

/// The types a column can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Arrow Boolean.
    Bool,
    /// Arrow Int64.
    Int,
    /// Arrow Float64. An int is a double here.
    Double,
    /// Arrow Utf8View. As a cast: a string as it is, any other value as its verbatim JSON text.
    Text,
    /// Arrow Timestamp(Microsecond, UTC). Strict: a string that [`crate::value::time_of_text`] reads. As a cast also a
    /// number since 1970: seconds, milli-, micro- or nanoseconds by its size.
    Time,
    /// Arrow LargeUtf8 with the verbatim JSON text of the value; `null` is NULL. No other column is LargeUtf8: the type
    /// says that it is JSON.
    Json,
    /// Arrow LargeUtf8 with the canonical JSON text of the value: two values are equal exactly where these texts are.
    Canonical,
    /// Arrow Utf8View: texts that sort as ORDER BY does, numbers before texts before the rest.
    Rank,
}

impl Type {
    /// Every type with its word in column names and its name in SQL.
    pub const TABLE: [(Type, &'static str, &'static str); 8] = [
        (Type::Bool, "bool", "BOOLEAN"),
        (Type::Int, "int", "BIGINT"),
        (Type::Double, "double", "DOUBLE"),
        (Type::Text, "text", "TEXT"),
        (Type::Time, "time", "TIMESTAMP"),
        (Type::Json, "json", "JSON"),
        (Type::Canonical, "canonical", "JSON"),
        (Type::Rank, "rank", "TEXT"),
    ];

    /// Its word in column names.
    pub fn word(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("json", |row| row.1)
    }

    /// The Arrow type.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Text | Self::Rank => DataType::Utf8View,
            Self::Json | Self::Canonical => DataType::LargeUtf8,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// The metadata that tells a client that a column is JSON text.
pub const JSON_METADATA: (&str, &str) = ("rachis", "json");
/// The metadata key of a JSON column for the kinds its values have had, as a number; absent if they are unknown.
pub const KINDS_METADATA: &str = "rachis.kinds";

/// Whether values of this type are JSON text.
pub fn is_json(data_type: &DataType) -> bool {
    *data_type == DataType::LargeUtf8
}

/// The field of JSON text whose values have these kinds.
pub fn json_field(name: &str, kinds: Kinds) -> Field {
    let mut metadata = std::collections::HashMap::from([(JSON_METADATA.0.to_owned(), JSON_METADATA.1.to_owned())]);
    if kinds != Kinds::default() {
        metadata.insert(KINDS_METADATA.to_owned(), kinds.0.to_string());
    }
    Field::new(name, DataType::LargeUtf8, true).with_metadata(metadata)
}

/// The kinds that the values of a JSON field have had; empty if they are unknown.
pub fn kinds_of(field: &Field) -> Kinds {
    field
        .metadata()
        .get(KINDS_METADATA)
        .and_then(|bits| bits.parse().ok())
        .map(Kinds)
        .unwrap_or_default()
}

/// How a value is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    /// As what.
    pub to: Type,
    /// Whether values of other kinds are converted.
    pub cast: bool,
}

/// What a column is a view of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// `_id` (Text): the document's key or, without one, its address.
    Id,
    /// `_time` (Time): by the collection's time path, else the record's time, else when it was taken in.
    Time,
    /// `_ingested` (Time).
    Ingested,
    /// `_source` (Text).
    Source,
    /// `_partition` (Int).
    Partition,
    /// `_offset` (Int).
    Offset,
    /// The item in the record (Int), 0 where the record holds one: with source, partition and offset the whole address.
    Item,
    /// `_doc` (Text): the document, byte for byte.
    Doc,
    /// `_key` (Text): the record key as text.
    Key,
    /// The value at a path.
    Path(Path),
    /// Whether a search clause matches (Bool, never NULL).
    Search(Clause),
}

/// A typed view of something every document has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// Of what.
    pub what: What,
    /// As what.
    pub view: View,
}

/// The columns that every collection has, and their names in SQL.
pub const ALWAYS: [(&str, What, Type); 9] = [
    ("_id", What::Id, Type::Text),
    ("_time", What::Time, Type::Time),
    ("_ingested", What::Ingested, Type::Time),
    ("_source", What::Source, Type::Text),
    ("_partition", What::Partition, Type::Int),
    ("_offset", What::Offset, Type::Int),
    ("_item", What::Item, Type::Int),
    ("_doc", What::Doc, Type::Text),
    ("_key", What::Key, Type::Text),
];

impl Column {
    /// One of the columns that every collection has.
    pub fn always(name: &str) -> Option<Self> {
        ALWAYS.iter().find(|row| row.0 == name).map(|(_, what, to)| Self {
            what: what.clone(),
            view: View { to: *to, cast: false },
        })
    }

    /// A strict view of a path.
    pub fn path(path: Path, to: Type) -> Self {
        Self {
            what: What::Path(path),
            view: View { to, cast: false },
        }
    }

    /// A converting view of a path.
    pub fn cast(path: Path, to: Type) -> Self {
        Self {
            what: What::Path(path),
            view: View { to, cast: true },
        }
    }

    /// Whether a search clause matches.
    pub fn search(clause: Clause) -> Self {
        Self {
            what: What::Search(clause),
            view: View {
                to: Type::Bool,
                cast: false,
            },
        }
    }

    /// The flat name: `user.name:text`, `ms:double!` with a cast, `_id`, `?level:error`.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// Reads a flat name.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(always) = Self::always(name) {
            return Some(always);
        }
        if let Some(clause) = name.strip_prefix('?') {
            return serde_json::from_str(clause).ok().map(Self::search);
        }
        let (path, view) = name.rsplit_once(':')?;
        let (word, cast) = view.strip_suffix('!').map_or((view, false), |word| (word, true));
        let to = Type::TABLE.iter().find(|row| row.1 == word)?.0;
        Some(Self {
            what: What::Path(Path::parse(path).ok()?),
            view: View { to, cast },
        })
    }

    /// The Arrow field: flat name, type, nullability; JSON says so.
    pub fn field(&self) -> Field {
        self.field_of(Kinds::default())
    }

    /// The same, saying which kinds its values have had.
    pub fn field_of(&self, kinds: Kinds) -> Field {
        match self.view.to {
            Type::Json | Type::Canonical => json_field(&self.name(), kinds),
            to => Field::new(
                self.name(),
                to.arrow(),
                matches!(self.what, What::Path(_) | What::Key | What::Time),
            ),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Path(path) => write!(
                f,
                "{path}:{}{}",
                self.view.to.word(),
                if self.view.cast { "!" } else { "" }
            ),
            What::Search(clause) => write!(f, "?{}", serde_json::to_string(clause).map_err(|_| fmt::Error)?),
            what => f.write_str(ALWAYS.iter().find(|row| row.1 == *what).map_or("_doc", |row| row.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Match;

    #[test]
    fn a_column_reads_back_from_its_name() {
        let path = Path::of_keys(["odd:key", "a.b", "😀\"\0"]);
        let clause = Clause {
            path: Some(path.clone()),
            matches: Match::Words("disk full".into()),
        };
        let mut columns = vec![
            Column::search(clause),
            Column::search(Clause {
                path: None,
                matches: Match::Exists,
            }),
        ];
        columns.extend(ALWAYS.iter().filter_map(|row| Column::always(row.0)));
        for (to, ..) in Type::TABLE {
            columns.extend([Column::path(path.clone(), to), Column::cast(path.clone(), to)]);
        }
        for column in columns {
            assert_eq!(Column::parse(&column.name()), Some(column));
        }
    }
}
