//! Fields of the matches: what their paths hold, found by reading the newest of them.

use std::collections::{BTreeSet, HashMap};

use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use plan::{Kinds, Path, value::canonical};
use proto::{
    Code, Problem, SourceName,
    json::{self, Value},
};

use super::Matches;
use crate::{
    answer::{SearchedField, SearchedFields},
    query::search::{
        Searched,
        hit::is_text_source,
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
/// Longer paths are left out.
const PATH_BYTES_MAX: usize = 4_096;
/// Fields and parsers that are computed, at most.
const DEFINED_MAX: usize = 500;
/// After so many documents, other tasks may run.
const ROWS_AT_ONCE: usize = 100;
/// The samples of a path, at most.
const SAMPLES_MAX: usize = 3;
/// Longer values are not used as samples.
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
        let context = matches.search.context;
        let from = matches.input_sql();
        let newest_first = format!("ORDER BY {INPUT}.\"_time\" DESC NULLS LAST ");
        let (selected, order) = match matches.searched {
            // The whole document, as the empty path, and what is computed from it.
            Searched::Collection(_) => {
                let defined = matches.defined.iter().take(DEFINED_MAX).cloned();
                (
                    std::iter::once(Path::default()).chain(defined).collect::<Vec<_>>(),
                    newest_first,
                )
            }
            Searched::View(_) => {
                let columns = matches.typed(&format!("SELECT {INPUT}.* {from}")).await?;
                let has_time = columns.column_with_name("_time").is_some();
                let columns = columns.fields().iter();
                let columns = columns.map(|column| Path::of_keys([column.name().as_str()]));
                (columns.collect(), if has_time { newest_first } else { String::new() })
            }
        };
        let column = |(number, path): (usize, &Path)| match path.steps().is_empty() {
            true => format!("{INPUT}.\"_doc\" AS \"{number}\""),
            false => format!("{} AS \"{number}\"", input_path(path)),
        };
        let mut columns: Vec<String> = selected.iter().enumerate().map(column).collect();
        if let Searched::Collection(_) = matches.searched {
            columns.push(format!("{INPUT}.\"_source\" AS source"));
        }
        let sql = format!("SELECT {} {from} {order}LIMIT {}", columns.join(", "), self.documents);
        let rows = matches.rows(&sql).await?;
        let mut paths = FoundPaths::new(&selected);
        let (schema, arrays) = (rows.schema(), render::plain_columns(&rows));
        for row in 0..rows.num_rows() {
            if row % ROWS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            if let Some(why) = context.interrupted() {
                return Err(why);
            }
            // The source follows the selected columns.
            for (number, (path, array)) in selected.iter().zip(&arrays).enumerate() {
                let mut text = Vec::new();
                match path.steps().is_empty() {
                    true if array.is_null(row) || is_plain_text(matches, &rows, row) => {}
                    true => text.extend_from_slice(array.as_string_view().value(row).as_bytes()),
                    false => render::json(&mut text, schema.field(number), array, row, LineBreaks::Keep),
                }
                // A document of plain text has no paths.
                if let Ok(value) = json::parse(&text) {
                    paths.add(number, &value, row);
                }
            }
        }
        if matches.defined.len() > DEFINED_MAX {
            context.report.warn(format!(
                "fields: only the first {DEFINED_MAX} of {} fields and parsers are described",
                matches.defined.len()
            ));
        }
        if paths.is_cut {
            context.report.warn(format!(
                "fields: the matches have more than {COUNTED_PATHS_MAX} paths, or very long ones; some are left out"
            ));
        }
        let mut fields = paths.into_fields();
        if fields.len() > PATHS_MAX {
            let warning = format!(
                "fields: the {} least frequent paths are left out",
                fields.len() - PATHS_MAX
            );
            context.report.warn(warning);
            fields.truncate(PATHS_MAX);
        }
        Ok(SearchedFields {
            documents: rows.num_rows() as u64,
            fields,
        })
    }
}

/// Whether a document comes from a source of plain text, so that it has no paths whatever it looks like.
fn is_plain_text(matches: &Matches<'_>, rows: &RecordBatch, row: usize) -> bool {
    let source = rows
        .column_by_name("source")
        .map(|sources| sources.as_string_view().value(row));
    let source = source.and_then(|source| source.parse::<SourceName>().ok());
    source.is_some_and(|source| is_text_source(matches.search.catalog, &source))
}

/// What paths hold, as a tree of keys.
struct FoundPaths {
    nodes: Vec<FoundPath>,
    /// The node of each selected column.
    selected: Vec<usize>,
    /// Whether there were more paths.
    is_cut: bool,
}

#[derive(Default)]
struct FoundPath {
    children: HashMap<Box<str>, usize>,
    path_bytes: usize,
    /// A field or a parser, which hides what documents have there.
    is_defined: bool,
    kinds: Kinds,
    documents: u64,
    /// The last of these documents.
    last: Option<usize>,
    samples: BTreeSet<String>,
}

impl FoundPaths {
    fn new(selected: &[Path]) -> Self {
        let mut paths = Self {
            nodes: vec![FoundPath::default()],
            selected: Vec::new(),
            is_cut: false,
        };
        for path in selected {
            let keys = path.steps().iter().filter_map(|step| step.key());
            let node = keys.fold(0, |node, key| paths.child(node, key).unwrap_or(node));
            paths.nodes[node].is_defined = node != 0;
            paths.selected.push(node);
        }
        paths
    }

    /// The node of a key below another one; None if there are too many.
    fn child(&mut self, node: usize, key: &str) -> Option<usize> {
        if let Some(child) = self.nodes[node].children.get(key) {
            return Some(*child);
        }
        let path_bytes = self.nodes[node].path_bytes + key.len();
        if self.nodes.len() >= COUNTED_PATHS_MAX || path_bytes > PATH_BYTES_MAX {
            self.is_cut = true;
            return None;
        }
        let child = self.nodes.len();
        self.nodes.push(FoundPath {
            path_bytes,
            ..FoundPath::default()
        });
        self.nodes[node].children.insert(key.into(), child);
        Some(child)
    }

    /// Adds the values of a selected column in a document.
    fn add(&mut self, column: usize, value: &Value<'_>, document: usize) {
        let node = self.selected[column];
        self.add_at(node, value, document);
    }

    /// Adds the values at and below a path. Those in lists have the path of their list.
    fn add_at(&mut self, node: usize, value: &Value<'_>, document: usize) {
        self.nodes[node].add(value, document);
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add_at(node, item, document)),
            Value::Object(members) => {
                for (key, value) in members {
                    match self.child(node, key) {
                        Some(child) if !self.nodes[child].is_defined => self.add_at(child, value, document),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// The paths, the most frequent first.
    fn into_fields(self) -> Vec<SearchedField> {
        let mut fields = Vec::new();
        let mut pending = vec![(0, Path::default())];
        while let Some((node, path)) = pending.pop() {
            let found = &self.nodes[node];
            pending.extend(found.children.iter().map(|(key, child)| (*child, path.key(key))));
            if node != 0 && found.kinds != Kinds::default() {
                fields.push(SearchedField {
                    path: path.to_string(),
                    kinds: found.kinds,
                    documents: found.documents,
                    samples: found.samples.iter().cloned().collect(),
                });
            }
        }
        fields.sort_unstable_by(|a, b| b.documents.cmp(&a.documents).then_with(|| a.path.cmp(&b.path)));
        fields
    }
}

impl FoundPath {
    fn add(&mut self, value: &Value<'_>, document: usize) {
        self.kinds |= Kinds::of(value);
        if *value != Value::Null && self.last.replace(document) != Some(document) {
            self.documents += 1;
        }
        let is_short = match value {
            Value::Null | Value::Array(_) | Value::Object(_) => false,
            Value::Text(text) => text.len() <= SAMPLE_BYTES_MAX,
            _ => true,
        };
        if is_short && self.samples.len() < SAMPLES_MAX {
            let sample = canonical(value);
            if sample.len() <= 2 * SAMPLE_BYTES_MAX {
                self.samples.insert(sample);
            }
        }
    }
}
