//! Recorder: the second pass over the documents of a part. It writes values to columns and strings to postings, and
//! counts everything in the path tree.
//!
//! Every path has one column per kind of value, and separate columns for the values inside of arrays. So no value is
//! ever converted to fit into a column, and a column is exact by construction.

use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::{
    TantivyError,
    columnar::{ColumnType, ColumnarWriter},
    directory::RamDirectory,
};

use super::{
    column_name::{ColumnKind, ColumnName},
    footer::BUILDER_LEVEL,
    header,
    path_stats::DICTIONARY_VALUE_BYTES_MAX,
    path_tree::{ArrayScope, PathNode, PathTree},
    statistics::TimeBounds,
    text::TextWriter,
    token,
};
use crate::{
    document::Document,
    error::Error,
    fault,
    key_tree::{KeyTree, ROOT},
};

/// Characters of a sample.
const SAMPLE_CHARS_MAX: usize = 200;

/// Records the documents of a part in order.
pub(super) struct Recorder {
    nodes: KeyTree<PathNode>,
    times: TimeBounds,
    columns: ColumnarWriter,
    text: Option<TextWriter>,
    header_only: RoaringBitmap,
    untracked: RoaringBitmap,
    partly_indexed: RoaringBitmap,
    oversized_tokens: RoaringBitmap,
}

impl Recorder {
    /// `nodes` are the paths that are tracked; `bytes` is the approximate size of all documents.
    pub(super) fn new(nodes: KeyTree<PathNode>, bytes: usize) -> Result<Self, Error> {
        let mut columns = ColumnarWriter::default();
        header::declare_columns(&mut columns);
        let text = nodes
            .iter()
            .any(|(_, node)| node.postings)
            .then(|| TextWriter::new(nodes.len(), bytes))
            .transpose()?;
        let none = RoaringBitmap::new;
        Ok(Self {
            nodes,
            times: TimeBounds::default(),
            columns,
            text,
            header_only: none(),
            untracked: none(),
            partly_indexed: none(),
            oversized_tokens: none(),
        })
    }

    /// Records the next document. Without a value, only its header is indexed.
    pub(super) fn document(&mut self, number: u32, document: &Document, value: Option<&Value>) -> Result<(), Error> {
        header::record(&mut self.columns, number, document);
        self.times.observe(&document.header);
        match value {
            Some(value) => {
                fault::panic_on("panic-in-build", &document.bytes);
                self.value(number, ROOT, value, false);
            }
            None => {
                self.header_only.insert(number);
            }
        }
        if let Some(text) = &mut self.text {
            text.end_document()?;
        }
        Ok(())
    }

    fn value(&mut self, document: u32, at: u32, value: &Value, inside: bool) {
        let node = &mut self.nodes[at];
        if node.sample.is_none() {
            node.sample = sample(value);
        }
        match value {
            Value::Null => scope_mut(node, inside).nulls += 1,
            Value::Big(_) => insert(&mut scope_mut(node, inside).big_numbers, document),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.scalar(document, at, value, inside),
            Value::Text(text) => self.text(document, at, text, inside),
            Value::Array(items) => {
                insert(&mut scope_mut(node, inside).arrays, document);
                items.iter().for_each(|item| self.value(document, at, item, true));
            }
            Value::Object(entries) => {
                insert(&mut scope_mut(node, inside).objects, document);
                let mut expected = 0;
                for (key, value) in entries {
                    match self.nodes.child(at, key, &mut expected) {
                        Some(child) => self.value(document, child, value, inside),
                        None => insert(&mut self.untracked, document),
                    }
                }
            }
        }
    }

    fn scalar(&mut self, document: u32, at: u32, value: &Value, inside: bool) {
        let node = &mut self.nodes[at];
        let scope = scope_mut(node, inside);
        let (count, kind, column_type) = match value {
            Value::Int(value) => (scope.add_int(*value), ColumnKind::Int, ColumnType::I64),
            Value::Float(value) => (scope.add_float(*value), ColumnKind::Float, ColumnType::F64),
            _ => {
                scope.bools += 1;
                (scope.bools, ColumnKind::Bool, ColumnType::Bool)
            }
        };
        let is_first = count == 1;
        if !node.column {
            insert(&mut self.partly_indexed, document);
            return;
        }
        let name = ColumnName::new(at, kind, inside);
        // Declare the type once; otherwise tantivy chooses one by the values.
        if is_first {
            self.columns.record_column_type(name.as_str(), column_type, false);
        }
        match value {
            Value::Bool(value) => self.columns.record_bool(document, name.as_str(), *value),
            Value::Int(value) => self.columns.record_numerical(document, name.as_str(), *value),
            Value::Float(value) => self.columns.record_numerical(document, name.as_str(), *value),
            _ => {}
        }
    }

    fn text(&mut self, document: u32, at: u32, text: &str, inside: bool) {
        let node = &mut self.nodes[at];
        let long = text.len() > DICTIONARY_VALUE_BYTES_MAX;
        scope_mut(node, inside).add_text(document, text, long);
        if !node.column {
            insert(&mut self.partly_indexed, document);
            return;
        }
        if !long {
            self.columns
                .record_str(document, ColumnName::new(at, ColumnKind::Text, inside).as_str(), text);
        }
        if let Some(writer) = self.text.as_mut().filter(|_| node.postings) {
            writer.add(at, text);
            if token::has_oversized_token(text) {
                insert(&mut self.oversized_tokens, document);
            }
        }
    }

    /// The path tree, the columns and the files of the postings.
    pub(super) fn finish(
        self,
        documents: u32,
    ) -> Result<(PathTree, ColumnarWriter, Option<RamDirectory>), TantivyError> {
        let mut nodes = self.nodes;
        for PathNode { outside, inside, .. } in nodes.values_mut() {
            for ArrayScope {
                long_texts,
                big_numbers,
                arrays,
                objects,
                ..
            } in [outside, inside]
            {
                for bitmap in [long_texts, big_numbers, arrays, objects] {
                    bitmap.optimize();
                }
            }
        }
        let paths = PathTree {
            documents,
            builder_level: BUILDER_LEVEL,
            times: self.times,
            nodes,
            header_only: self.header_only,
            untracked: self.untracked,
            partly_indexed: self.partly_indexed,
            oversized_tokens: self.oversized_tokens,
        };
        Ok((paths, self.columns, self.text.map(TextWriter::finish).transpose()?))
    }
}

fn scope_mut(node: &mut PathNode, inside: bool) -> &mut ArrayScope {
    if inside { &mut node.inside } else { &mut node.outside }
}

/// Adds a document that is not before the last one added.
fn insert(documents: &mut RoaringBitmap, document: u32) {
    let _already_last = documents.try_push(document);
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
