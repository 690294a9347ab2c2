//! Fields of the matches: what their paths hold, found by reading the newest of them.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{Array as _, AsArray as _};
use plan::{Kinds, Path, value::canonical};
use proto::{
    Code, CollectionName, Problem,
    json::{self, Value},
};

use super::Matches;
use crate::{
    answer::{SearchedField, SearchedFields},
    query::search::{
        Searched,
        statement::{INPUT, input_path},
    },
    render::{self, LineBreaks},
};

/// The documents that are read if the request does not say how many.
const DOCUMENTS_DEFAULT: usize = 1_000;
/// The documents that are read, at most.
const DOCUMENTS_MAX: usize = 10_000;
/// The paths of an answer, at most: those that most documents have.
const PATHS_MAX: usize = 1_000;
/// The paths that are counted, at most.
const COUNTED_PATHS_MAX: usize = 20_000;
/// The samples of a path, at most.
const SAMPLES_MAX: usize = 3;
/// A longer value is no sample.
const SAMPLE_BYTES_MAX: usize = 100;

/// How many documents are read for the fields of a search.
#[derive(Debug, PartialEq)]
pub(super) struct FieldsRequest {
    documents: usize,
}

impl FieldsRequest {
    pub(super) fn of(documents: Option<usize>) -> Result<Self, Problem> {
        let documents = documents.unwrap_or(DOCUMENTS_DEFAULT);
        if (1..=DOCUMENTS_MAX).contains(&documents) {
            return Ok(Self { documents });
        }
        Err(
            Problem::new(Code::BadRequest, format!("fields: cannot read {documents} documents")).hint(format!(
                "write fields=true, or the number of documents to read, from 1 to {DOCUMENTS_MAX}"
            )),
        )
    }

    pub(super) async fn compute(&self, matches: &Matches<'_>) -> Result<SearchedFields, Problem> {
        let from = matches.input_sql();
        let (selected, order) = match matches.searched {
            Searched::Collection(name) => (
                document_columns(matches, name),
                format!("ORDER BY {INPUT}.\"_time\" DESC "),
            ),
            Searched::View(_) => {
                let columns = matches.typed(&format!("SELECT {INPUT}.* {from}")).await?;
                let time = columns
                    .column_with_name("_time")
                    .map(|_| format!("ORDER BY {INPUT}.\"_time\" DESC "));
                let columns = columns
                    .fields()
                    .iter()
                    .map(|column| Path::of_keys([column.name().as_str()]));
                (columns.collect(), time.unwrap_or_default())
            }
        };
        let column = |(number, path): (usize, &Path)| {
            let value = if path.steps().is_empty() {
                format!("{INPUT}.\"_doc\"")
            } else {
                input_path(path)
            };
            format!("{value} AS \"{number}\"")
        };
        let columns: Vec<String> = selected.iter().enumerate().map(column).collect();
        let rows = matches
            .rows(&format!(
                "SELECT {} {from} {order}LIMIT {}",
                columns.join(", "),
                self.documents
            ))
            .await?;
        let mut paths = Paths::default();
        let (schema, arrays) = (rows.schema(), render::plain_columns(&rows));
        for row in 0..rows.num_rows() {
            for ((path, field), array) in selected.iter().zip(schema.fields()).zip(&arrays) {
                let mut text = Vec::new();
                match path.steps().is_empty() {
                    true if array.is_valid(row) => text.extend_from_slice(array.as_string_view().value(row).as_bytes()),
                    true => {}
                    false => render::json(&mut text, field, array, row, LineBreaks::Keep),
                }
                // A document of plain text has no paths.
                if let Ok(value) = json::parse(&text) {
                    paths.add(&value, path, row);
                }
            }
        }
        Ok(paths.into_fields(rows.num_rows()))
    }
}

/// The whole document, as the empty path, and the fields and parsers of a collection.
fn document_columns(matches: &Matches<'_>, collection: &CollectionName) -> Vec<Path> {
    let defined = matches.search.catalog.columns(collection);
    std::iter::once(Path::default())
        .chain(defined.filter_map(|(id, _)| Path::parse(&id.name).ok()))
        .collect()
}

/// What paths hold.
#[derive(Default)]
struct Paths {
    found: BTreeMap<Path, FoundPath>,
}

#[derive(Default)]
struct FoundPath {
    kinds: Kinds,
    documents: u64,
    /// The last of these documents.
    last: Option<usize>,
    samples: BTreeSet<String>,
}

impl Paths {
    /// Adds the values at and below a path of a document. Those in lists have the path of their list.
    fn add(&mut self, value: &Value<'_>, path: &Path, document: usize) {
        if !path.steps().is_empty() {
            let is_full = self.found.len() >= COUNTED_PATHS_MAX;
            if is_full && !self.found.contains_key(path) {
                return;
            }
            self.found.entry(path.clone()).or_default().add(value, document);
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, path, document)),
            Value::Object(members) => {
                members
                    .iter()
                    .for_each(|(key, value)| self.add(value, &path.key(key), document));
            }
            _ => {}
        }
    }

    fn into_fields(self, documents: usize) -> SearchedFields {
        let mut fields: Vec<SearchedField> = self
            .found
            .into_iter()
            .map(|(path, found)| SearchedField {
                path: path.to_string(),
                kinds: found.kinds,
                documents: found.documents,
                samples: found.samples.into_iter().collect(),
            })
            .collect();
        fields.sort_by_key(|field| std::cmp::Reverse(field.documents));
        fields.truncate(PATHS_MAX);
        SearchedFields {
            documents: documents as u64,
            fields,
        }
    }
}

impl FoundPath {
    fn add(&mut self, value: &Value<'_>, document: usize) {
        self.kinds |= Kinds::of(value);
        if *value != Value::Null && self.last.replace(document) != Some(document) {
            self.documents += 1;
        }
        if self.samples.len() < SAMPLES_MAX && !matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
            let sample = canonical(value);
            if sample.len() <= SAMPLE_BYTES_MAX {
                self.samples.insert(sample);
            }
        }
    }
}
