//! Recorder: one pass over the documents of a part. It buffers all values by path, and counts everything in the path
//! tree. At the end it decides which paths get columns and which get postings, and writes them.
//!
//! Every path has one column per kind of value, and separate columns for the values inside of arrays. So no value is
//! ever converted to fit into a column, and a column is exact by construction.

use std::{cmp::Reverse, io};

use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::{TantivyError, directory::RamDirectory};

use super::{
    column_name::{ColumnKind, ColumnName},
    columnar::{BufferedColumn, ColumnBuffer, ColumnarFile, TextBuffer},
    footer::BUILDER_LEVEL,
    header::HeaderBuffers,
    path_stats::{DOCUMENT_PATHS_MAX, PATHS_MAX},
    path_tree::{ArrayScope, PathNode, PathTree},
    postings::write_postings,
    statistics::TimeBounds,
    token,
};
use crate::{
    document::Document,
    fault,
    key_tree::{KeyTree, ROOT},
};

/// Paths with columns: the most frequent ones.
const COLUMN_PATHS_MAX: usize = 2_000;
/// Bytes of the longest string in a dictionary.
pub(super) const DICTIONARY_VALUE_BYTES_MAX: usize = 256;
/// Characters of a sample.
const SAMPLE_CHARS_MAX: usize = 200;

/// The values of a path, either inside or outside of arrays.
#[derive(Debug, Default)]
struct ScopeBuffers {
    bools: ColumnBuffer<bool>,
    ints: ColumnBuffer<i64>,
    floats: ColumnBuffer<f64>,
    /// Also has the strings that are too long for the dictionary.
    texts: TextBuffer,
}

impl ScopeBuffers {
    /// The documents of each kind of value.
    fn documents(&self) -> [&[u32]; 4] {
        [
            &self.bools.documents,
            &self.ints.documents,
            &self.floats.documents,
            &self.texts.column.documents,
        ]
    }
}

/// A path and its values.
#[derive(Debug, Default)]
struct RecordedPath {
    node: PathNode,
    /// Documents that have it.
    documents: u32,
    /// The last of these documents, counted from 1.
    last_document: u32,
    outside: ScopeBuffers,
    inside: ScopeBuffers,
}

impl RecordedPath {
    /// The part of the node and the values that belong to a value inside or outside of arrays.
    fn scope(&mut self, inside: bool) -> (&mut ArrayScope, &mut ScopeBuffers) {
        if inside {
            (&mut self.node.inside, &mut self.inside)
        } else {
            (&mut self.node.outside, &mut self.outside)
        }
    }

    fn has_scalars(&self) -> bool {
        let scopes = [&self.outside, &self.inside];
        scopes
            .iter()
            .any(|scope| scope.documents().iter().any(|documents| !documents.is_empty()))
    }

    fn is_text_like(&self) -> bool {
        let scopes = [&self.outside, &self.inside];
        scopes.iter().any(|scope| scope.texts.distinct.iter().any(is_text_like))
    }
}

/// The contents of a part, written.
pub(super) struct RecordedPart {
    pub paths: PathTree,
    /// The file of the columns.
    pub columns: Vec<u8>,
    /// The files of the postings, if any path has postings.
    pub text: Option<RamDirectory>,
}

/// Records the documents of a part in order.
pub(super) struct Recorder {
    paths: KeyTree<RecordedPath>,
    headers: HeaderBuffers,
    times: TimeBounds,
    /// Whether new paths are added.
    grows: bool,
    /// The number of paths from which on the current document adds none.
    paths_max: usize,
    /// Documents so far.
    documents: u32,
    header_only: RoaringBitmap,
    untracked: RoaringBitmap,
}

impl Recorder {
    /// Tracks all paths.
    pub(super) fn new() -> Self {
        Self {
            paths: KeyTree::default(),
            headers: HeaderBuffers::default(),
            times: TimeBounds::default(),
            grows: true,
            paths_max: 0,
            documents: 0,
            header_only: RoaringBitmap::new(),
            untracked: RoaringBitmap::new(),
        }
    }

    /// Tracks only these paths.
    pub(super) fn of_paths(paths: KeyTree<()>) -> Self {
        Self {
            paths: paths.into_map(|()| RecordedPath::default()),
            grows: false,
            ..Self::new()
        }
    }

    /// Records the next document. Without a value, only its header is indexed.
    ///
    /// False if the documents have more paths than a part tracks: then the paths to track must be chosen first.
    pub(super) fn document(&mut self, document: &Document, value: Option<&Value>) -> bool {
        let number = self.documents;
        self.headers.push(number, document);
        self.times.observe(&document.header);
        self.documents += 1;
        let Some(value) = value else {
            self.header_only.insert(number);
            return true;
        };
        fault::panic_on("panic-in-build", &document.bytes);
        self.paths_max = PATHS_MAX.min(self.paths.len() + DOCUMENT_PATHS_MAX);
        self.value(number, ROOT, value, false);
        !self.grows || self.untracked.is_empty()
    }

    fn value(&mut self, document: u32, at: u32, value: &Value, inside: bool) {
        let path = &mut self.paths[at];
        if path.last_document != document + 1 {
            path.last_document = document + 1;
            path.documents += 1;
        }
        if path.node.sample.is_none() {
            path.node.sample = sample(value);
        }
        let (scope, buffers) = path.scope(inside);
        match value {
            Value::Null => scope.nulls += 1,
            Value::Big(_) => insert(&mut scope.big_numbers, document),
            Value::Bool(value) => {
                scope.bools += 1;
                buffers.bools.push(document, *value);
            }
            Value::Int(value) => {
                scope.add_int(*value);
                buffers.ints.push(document, *value);
            }
            Value::Float(value) => {
                scope.add_float(*value);
                buffers.floats.push(document, *value);
            }
            Value::Text(text) => {
                scope.add_text(document, text, text.len() > DICTIONARY_VALUE_BYTES_MAX);
                buffers.texts.push(document, text);
            }
            Value::Array(items) => {
                insert(&mut scope.arrays, document);
                items.iter().for_each(|item| self.value(document, at, item, true));
            }
            Value::Object(entries) => {
                insert(&mut scope.objects, document);
                let mut expected = 0;
                for (key, value) in entries {
                    let child = match self.paths.child(at, key, &mut expected) {
                        Some(child) => child,
                        None if self.grows && self.paths.len() < self.paths_max => {
                            self.paths.add(at, key, RecordedPath::default())
                        }
                        None => {
                            insert(&mut self.untracked, document);
                            continue;
                        }
                    };
                    self.value(document, child, value, inside);
                }
            }
        }
    }

    /// Chooses the paths with columns and postings, and writes both.
    pub(super) fn finish(mut self) -> Result<RecordedPart, TantivyError> {
        self.choose_paths();
        let columns = self.write_columns()?;
        let with_postings: Vec<(u32, [&TextBuffer; 2])> = (self.paths.iter())
            .filter(|(_, path)| path.node.postings)
            .map(|(id, path)| (id, [&path.outside.texts, &path.inside.texts]))
            .collect();
        let text = (!with_postings.is_empty())
            .then(|| write_postings(self.documents, &with_postings))
            .transpose()?;
        let paths = PathTree {
            documents: self.documents,
            builder_level: BUILDER_LEVEL,
            times: self.times,
            partly_indexed: self.partly_indexed(),
            oversized_tokens: self.oversized_tokens(),
            nodes: self.paths.into_map(|path| compact(path.node)),
            header_only: self.header_only,
            untracked: self.untracked,
        };
        Ok(RecordedPart { paths, columns, text })
    }

    /// The most frequent paths get columns, and of these the text-like ones get postings.
    fn choose_paths(&mut self) {
        for path in self.paths.values_mut() {
            path.node.column = !path.has_scalars();
        }
        let mut ranked: Vec<(Reverse<u32>, u32)> = (self.paths.iter())
            .filter(|(_, path)| !path.node.column)
            .map(|(id, path)| (Reverse(path.documents), id))
            .collect();
        ranked.sort_unstable();
        for (_, id) in ranked.into_iter().take(COLUMN_PATHS_MAX) {
            let path = &mut self.paths[id];
            path.node.column = true;
            path.node.postings = path.is_text_like();
        }
    }

    fn write_columns(&self) -> io::Result<Vec<u8>> {
        let mut columns: Vec<(ColumnName, BufferedColumn)> = Vec::new();
        for (id, path) in self.paths.iter().filter(|(_, path)| path.node.column) {
            let scopes = [(&path.node.outside, &path.outside), (&path.node.inside, &path.inside)];
            for ((scope, buffers), inside) in scopes.into_iter().zip([false, true]) {
                let texts = BufferedColumn::Text(&buffers.texts, DICTIONARY_VALUE_BYTES_MAX);
                let kinds = [
                    (scope.bools, ColumnKind::Bool, BufferedColumn::Bool(&buffers.bools)),
                    (scope.ints, ColumnKind::Int, BufferedColumn::Int(&buffers.ints)),
                    (scope.floats, ColumnKind::Float, BufferedColumn::Float(&buffers.floats)),
                    (scope.texts, ColumnKind::Text, texts),
                ];
                let with_values = kinds.into_iter().filter(|(count, _, _)| *count > 0);
                columns.extend(with_values.map(|(_, kind, column)| (ColumnName::new(id, kind, inside), column)));
            }
        }
        let columns = columns.iter().map(|(name, column)| (name.as_str(), *column));
        let mut columns: Vec<(&str, BufferedColumn)> = columns.chain(self.headers.columns()).collect();
        columns.sort_unstable_by_key(|(name, _)| *name);
        let mut file = ColumnarFile::new(self.documents)?;
        for (name, column) in columns {
            file.column(name, column)?;
        }
        file.finish()
    }

    /// Documents with a scalar at a path that has no column.
    fn partly_indexed(&self) -> RoaringBitmap {
        let mut documents = RoaringBitmap::new();
        for (_, path) in self.paths.iter().filter(|(_, path)| !path.node.column) {
            for scope in [&path.outside, &path.inside] {
                documents.extend(scope.documents().into_iter().flatten().copied());
            }
        }
        documents
    }

    /// Documents with a token that is too long for postings, at a path that has postings.
    fn oversized_tokens(&self) -> RoaringBitmap {
        let mut documents = RoaringBitmap::new();
        for (_, path) in self.paths.iter().filter(|(_, path)| path.node.postings) {
            for TextBuffer { column, distinct } in [&path.outside.texts, &path.inside.texts] {
                let oversized = (0..).zip(distinct.iter());
                let oversized = oversized.filter(|(_, text)| token::has_oversized_token(text));
                let oversized: Vec<u32> = oversized.map(|(number, _)| number).collect();
                if !oversized.is_empty() {
                    let values = column.documents.iter().zip(&column.values);
                    let affected = values.filter(|(_, number)| oversized.binary_search(number).is_ok());
                    documents.extend(affected.map(|(document, _)| *document));
                }
            }
        }
        documents
    }
}

fn compact(mut node: PathNode) -> PathNode {
    for scope in [&mut node.outside, &mut node.inside] {
        let ArrayScope {
            long_texts,
            big_numbers,
            arrays,
            objects,
            ..
        } = scope;
        for bitmap in [long_texts, big_numbers, arrays, objects] {
            bitmap.optimize();
        }
    }
    node
}

/// Adds a document that is not before the last one added.
fn insert(documents: &mut RoaringBitmap, document: u32) {
    let _already_last = documents.try_push(document);
}

/// Whether a string is running text rather than an id: it has white space or non-ASCII letters, or is too long for the
/// dictionary.
fn is_text_like(text: &str) -> bool {
    text.len() > DICTIONARY_VALUE_BYTES_MAX || text.bytes().any(|b| !b.is_ascii() || b.is_ascii_whitespace())
}

fn sample(value: &Value) -> Option<String> {
    let cut = |text: String| text.chars().take(SAMPLE_CHARS_MAX).collect();
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Big(text) => Some(cut(text.to_string())),
        Value::Text(text) => {
            let start: String = text.chars().take(SAMPLE_CHARS_MAX).collect();
            serde_json::to_string(&start).ok().map(cut)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
