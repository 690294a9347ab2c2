//! A column: something that every document has, and the type in which a query reads it. Its name encodes both, so a
//! schema is a list of names.
//!
//! The resolver turns each path, with the type that its use requires, into one flat column; DataFusion never sees a
//! nested name.
//!
//! A read without a cast is strict: a value of another kind is NULL, and counted. A cast converts what can be converted
//! (`'12'` is 12 as a number, 12 is `'12'` as text); everything else is NULL and counted.

use std::{fmt, sync::Arc};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{kinds::Kinds, matcher::DocumentScore, path::Path, search::Clause};

/// The types a column can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Arrow Boolean.
    Bool,
    /// Arrow Int64.
    Int,
    /// Arrow Float64. Accepts ints, too.
    Double,
    /// Arrow Utf8View. A cast keeps a string as it is and turns any other value into its verbatim JSON text.
    Text,
    /// SQL TIMESTAMP, Arrow Timestamp(Microsecond, UTC). A strict read accepts strings that
    /// [`crate::value::time_of_text`] parses. A cast also accepts a number since 1970: seconds, milli-, micro- or
    /// nanoseconds by its magnitude.
    Time,
    /// Arrow LargeUtf8 with the verbatim JSON text of the value; `null` is NULL. All LargeUtf8 columns are JSON, so the
    /// Arrow type identifies them.
    Json,
    /// Arrow LargeUtf8 with the canonical JSON text of the value: two values are equal exactly if these texts are.
    Canonical,
    /// Arrow Utf8View: texts that sort as ORDER BY does, numbers before texts before the rest.
    Rank,
}

impl Type {
    /// Every type with its keyword in column names and its name in SQL.
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

    /// Its keyword in column names.
    pub fn as_str(self) -> &'static str {
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

/// The field metadata that marks a column as JSON text for clients.
pub const JSON_METADATA: (&str, &str) = ("rachis", "json");
/// The metadata key for the kinds that the values of a JSON column have had, as a number; absent if they are unknown.
pub const KINDS_METADATA: &str = "rachis.kinds";

/// Whether values of this type are JSON text.
pub fn is_json(data_type: &DataType) -> bool {
    *data_type == DataType::LargeUtf8
}

/// A field of JSON text whose values have had these kinds.
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

/// The type in which a path is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathType {
    /// The type.
    pub to: Type,
    /// Whether values of other kinds are converted.
    pub cast: bool,
}

/// The part of a document that a column reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnSource {
    /// `_id` (Text): the document's key or, without one, its address.
    Id,
    /// `_time` (Time): the value at the collection's time path, else the record's time, else the time of ingest.
    Time,
    /// `_ingested` (Time).
    Ingested,
    /// `_source` (Text).
    Source,
    /// `_partition` (Int).
    Partition,
    /// `_offset` (Int).
    Offset,
    /// `_item` (Int): the item's number within the record, 0 if the record has only one. With source, partition and
    /// offset it forms the full address.
    Item,
    /// `_doc` (Text): the document, byte for byte.
    Doc,
    /// `_key` (Text): the record key as text.
    Key,
    /// The value at a path.
    Path(Path),
    /// Whether a search clause matches (Bool, never NULL).
    Search(Clause),
    /// The number of tokens of the texts at a path or, without one, of all texts (Int); NULL if there are none.
    Tokens(Option<Path>),
    /// How well the document fits a search (Double, never NULL): a [`DocumentScore`](crate::matcher::DocumentScore) as
    /// JSON.
    Score(Arc<str>),
}

/// Something that every document has, and the type in which a query reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// The part of the document that it reads.
    pub source: ColumnSource,
    /// The type in which a query reads it.
    pub read_as: PathType,
}

/// The columns that every collection has, and their names in SQL.
pub const SYSTEM_COLUMNS: [(&str, ColumnSource, Type); 9] = [
    ("_id", ColumnSource::Id, Type::Text),
    ("_time", ColumnSource::Time, Type::Time),
    ("_ingested", ColumnSource::Ingested, Type::Time),
    ("_source", ColumnSource::Source, Type::Text),
    ("_partition", ColumnSource::Partition, Type::Int),
    ("_offset", ColumnSource::Offset, Type::Int),
    ("_item", ColumnSource::Item, Type::Int),
    ("_doc", ColumnSource::Doc, Type::Text),
    ("_key", ColumnSource::Key, Type::Text),
];

impl Column {
    /// A system column by its name in SQL.
    pub fn system(name: &str) -> Option<Self> {
        SYSTEM_COLUMNS
            .iter()
            .find(|row| row.0 == name)
            .map(|(_, source, to)| Self {
                source: source.clone(),
                read_as: PathType { to: *to, cast: false },
            })
    }

    /// A path, read strictly.
    pub fn path(path: Path, to: Type) -> Self {
        Self {
            source: ColumnSource::Path(path),
            read_as: PathType { to, cast: false },
        }
    }

    /// A path, read with a cast.
    pub fn cast(path: Path, to: Type) -> Self {
        Self {
            source: ColumnSource::Path(path),
            read_as: PathType { to, cast: true },
        }
    }

    /// Whether a search clause matches.
    pub fn search(clause: Clause) -> Self {
        Self {
            source: ColumnSource::Search(clause),
            read_as: PathType {
                to: Type::Bool,
                cast: false,
            },
        }
    }

    /// The number of tokens at a path, or of a document.
    pub fn tokens(path: Option<Path>) -> Self {
        Self {
            source: ColumnSource::Tokens(path),
            read_as: PathType {
                to: Type::Int,
                cast: false,
            },
        }
    }

    /// How well a document fits a search.
    pub fn score(score: Arc<str>) -> Self {
        Self {
            source: ColumnSource::Score(score),
            read_as: PathType {
                to: Type::Double,
                cast: false,
            },
        }
    }

    /// The flat name: `user.name:text`, `ms:double!` with a cast, `_id`; behind `?`, `#` or `^` the JSON of a clause, of
    /// the path of tokens, or of a score.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// Parses a flat name.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(system) = Self::system(name) {
            return Some(system);
        }
        if let Some(clause) = name.strip_prefix('?') {
            return serde_json::from_str(clause).ok().map(Self::search);
        }
        if let Some(path) = name.strip_prefix('#') {
            return serde_json::from_str(path).ok().map(Self::tokens);
        }
        if let Some(score) = name.strip_prefix('^') {
            let is_score = serde_json::from_str::<DocumentScore>(score).is_ok();
            return is_score.then(|| Self::score(score.into()));
        }
        let (path, keyword) = name.rsplit_once(':')?;
        let (keyword, cast) = keyword
            .strip_suffix('!')
            .map_or((keyword, false), |keyword| (keyword, true));
        let to = Type::TABLE.iter().find(|row| row.1 == keyword)?.0;
        Some(Self {
            source: ColumnSource::Path(Path::parse(path).ok()?),
            read_as: PathType { to, cast },
        })
    }

    /// The Arrow field: flat name, type, nullability, and the metadata that marks JSON.
    pub fn field(&self) -> Field {
        self.field_of(Kinds::default())
    }

    /// The Arrow field, whose metadata also has the kinds of its values if it is JSON.
    pub fn field_of(&self, kinds: Kinds) -> Field {
        match self.read_as.to {
            Type::Json | Type::Canonical => json_field(&self.name(), kinds),
            to => Field::new(
                self.name(),
                to.arrow(),
                matches!(
                    self.source,
                    ColumnSource::Path(_) | ColumnSource::Key | ColumnSource::Time | ColumnSource::Tokens(_)
                ),
            ),
        }
    }
}

/// The Arrow schema of these columns.
pub fn schema<'a>(columns: impl IntoIterator<Item = &'a Column>) -> SchemaRef {
    Arc::new(Schema::new(columns.into_iter().map(Column::field).collect::<Vec<_>>()))
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            ColumnSource::Path(path) => write!(
                f,
                "{path}:{}{}",
                self.read_as.to.as_str(),
                if self.read_as.cast { "!" } else { "" }
            ),
            ColumnSource::Search(clause) => write!(f, "?{}", serde_json::to_string(clause).map_err(|_| fmt::Error)?),
            ColumnSource::Tokens(path) => write!(f, "#{}", serde_json::to_string(path).map_err(|_| fmt::Error)?),
            ColumnSource::Score(score) => write!(f, "^{score}"),
            source => f.write_str(
                SYSTEM_COLUMNS
                    .iter()
                    .find(|row| row.1 == *source)
                    .map_or("_doc", |row| row.0),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Match;

    #[test]
    fn a_column_name_parses_to_the_same_column() {
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
        columns.extend([
            Column::tokens(None),
            Column::tokens(Some(path.clone())),
            Column::score("{\"search\":{\"all\":1.0},\"lengths\":[],\"frequencies\":[]}".into()),
        ]);
        columns.extend(SYSTEM_COLUMNS.iter().filter_map(|row| Column::system(row.0)));
        for (to, ..) in Type::TABLE {
            columns.extend([Column::path(path.clone(), to), Column::cast(path.clone(), to)]);
        }
        for column in columns {
            assert_eq!(Column::parse(&column.name()), Some(column));
        }
        assert_eq!(Column::parse("^{\"a\":1}"), None, "a score of another version");
    }
}
