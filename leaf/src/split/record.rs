//! Record: the second pass over the documents of a part: values into columns, texts into postings, everything counted
//! in the shape.
//!
//! Every path has a column of its own for each kind of value, and apart from these one for each kind of what lies in
//! arrays. So no value is ever converted to fit beside another, and a column is exact by construction.

use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::{
    TantivyError,
    columnar::{ColumnType, ColumnarWriter},
    directory::RamDirectory,
};

use super::{
    header,
    shape::{Node, ROOT, Shape, Side},
    survey::{DICTIONARY_VALUE_BYTES_MAX, Survey},
    text::TextWriter,
    token,
};
use crate::{document::Document, error::Error, fault};

/// Characters of a sample.
const SAMPLE_CHARS_MAX: usize = 200;

/// A kind of values that has columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Text,
}

/// The name of a column: kind, side of the arrays, path. Six characters, none of them special to tantivy.
pub(super) struct ColumnName([u8; 6]);

impl ColumnName {
    pub fn new(path: u32, kind: Kind, inside: bool) -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let kind = match kind {
            Kind::Bool => b'b',
            Kind::Int => b'i',
            Kind::Float => b'f',
            Kind::Text => b't',
        };
        let digit = |place: u32| DIGITS[(path >> (5 * place) & 31) as usize];
        Self([
            if inside { kind.to_ascii_uppercase() } else { kind },
            digit(4),
            digit(3),
            digit(2),
            digit(1),
            digit(0),
        ])
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

/// Records documents in order.
pub(super) struct Recorder<'s> {
    survey: &'s Survey,
    nodes: Vec<Node>,
    columns: ColumnarWriter,
    text: Option<TextWriter>,
    failed: RoaringBitmap,
    untracked: RoaringBitmap,
    unindexed: RoaringBitmap,
    giant: RoaringBitmap,
}

impl<'s> Recorder<'s> {
    /// For documents of about so many bytes.
    pub fn new(survey: &'s Survey, bytes: usize) -> Result<Self, Error> {
        let nodes = survey.nodes();
        let mut columns = ColumnarWriter::default();
        header::declare(&mut columns);
        let text = nodes
            .iter()
            .any(|node| node.postings)
            .then(|| TextWriter::new(nodes.len(), bytes))
            .transpose()?;
        let none = RoaringBitmap::new;
        Ok(Self {
            survey,
            nodes,
            columns,
            text,
            failed: none(),
            untracked: none(),
            unindexed: none(),
            giant: none(),
        })
    }

    /// Records the next document; without a value it is one that cannot be indexed.
    pub fn document(&mut self, number: u32, document: &Document, value: Option<&Value>) -> Result<(), Error> {
        header::record(&mut self.columns, number, document);
        match value {
            Some(value) => {
                fault::panic_on("panic-in-build", &document.bytes);
                self.value(number, ROOT, value, false);
            }
            None => {
                self.failed.insert(number);
            }
        }
        if let Some(text) = &mut self.text {
            text.end_document()?;
        }
        Ok(())
    }

    fn value(&mut self, document: u32, at: u32, value: &Value, inside: bool) {
        let node = &mut self.nodes[at as usize];
        if node.sample.is_none() {
            node.sample = sample(value);
        }
        match value {
            Value::Null => side(node, inside).nulls += 1,
            Value::Big(_) => push(&mut side(node, inside).bigs, document),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.scalar(document, at, value, inside),
            Value::Text(text) => self.text(document, at, text, inside),
            Value::Array(items) => {
                push(&mut side(node, inside).arrays, document);
                items.iter().for_each(|item| self.value(document, at, item, true));
            }
            Value::Object(entries) => {
                push(&mut side(node, inside).objects, document);
                let mut expected = 0;
                for (key, value) in entries {
                    match self.survey.child(at, key, &mut expected) {
                        Some(child) => self.value(document, child, value, inside),
                        None => push(&mut self.untracked, document),
                    }
                }
            }
        }
    }

    fn scalar(&mut self, document: u32, at: u32, value: &Value, inside: bool) {
        let node = &mut self.nodes[at as usize];
        let (count, kind, column_type) = match value {
            Value::Bool(_) => (&mut side(node, inside).bools, Kind::Bool, ColumnType::Bool),
            Value::Int(_) => (&mut side(node, inside).ints, Kind::Int, ColumnType::I64),
            _ => (&mut side(node, inside).floats, Kind::Float, ColumnType::F64),
        };
        *count += 1;
        let is_first = *count == 1;
        if !node.column {
            push(&mut self.unindexed, document);
            return;
        }
        let name = ColumnName::new(at, kind, inside);
        // The type is told once, or tantivy chooses one by the values.
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
        let node = &mut self.nodes[at as usize];
        let long = text.len() > DICTIONARY_VALUE_BYTES_MAX;
        if long {
            push(&mut side(node, inside).longs, document);
        } else {
            side(node, inside).texts += 1;
        }
        if !node.column {
            push(&mut self.unindexed, document);
            return;
        }
        if !long {
            self.columns
                .record_str(document, ColumnName::new(at, Kind::Text, inside).as_str(), text);
        }
        if let Some(writer) = self.text.as_mut().filter(|_| node.postings) {
            writer.add(at, text);
            if token::is_beyond_postings(text) {
                push(&mut self.giant, document);
            }
        }
    }

    /// Shape, columns and the files of the postings.
    pub fn finish(self, documents: u32) -> Result<(Shape, ColumnarWriter, Option<RamDirectory>), TantivyError> {
        let mut shape = Shape::new(documents, self.nodes);
        for Node { outside, inside, .. } in &mut shape.nodes {
            for Side {
                longs,
                bigs,
                arrays,
                objects,
                ..
            } in [outside, inside]
            {
                for bitmap in [longs, bigs, arrays, objects] {
                    bitmap.optimize();
                }
            }
        }
        (shape.failed, shape.untracked, shape.unindexed, shape.giant) =
            (self.failed, self.untracked, self.unindexed, self.giant);
        Ok((shape, self.columns, self.text.map(TextWriter::finish).transpose()?))
    }
}

fn side(node: &mut Node, inside: bool) -> &mut Side {
    if inside { &mut node.inside } else { &mut node.outside }
}

/// Notes a document, which is the one noted last or a later one.
fn push(documents: &mut RoaringBitmap, document: u32) {
    let _noted_before = documents.try_push(document);
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
