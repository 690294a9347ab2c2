//! Raw rows: raw documents -> columns. A document is parsed once, however many columns are read from it.

use std::{borrow::Cow, cell::OnceCell};

use plan::{
    Column, ColumnSource, Path,
    builder::Builder,
    matcher::{DocumentScore, Scorer, count_tokens},
};
use proto::{json, json::Value};

use super::{CastResult, Scalar, matcher::Matcher, parts::ReadParts};
use crate::{document::Document, split::ColumnValues};

/// Raw documents to read columns from. They are parsed when the first column needs it.
pub(crate) struct RawRows<'a> {
    documents: Vec<&'a Document>,
    time_path: Option<&'a Path>,
    parts: &'a ReadParts,
    roots: OnceCell<Vec<Value<'a>>>,
}

impl<'a> RawRows<'a> {
    /// Over these documents, of which only these parts are read; `time_path` is where `_time` is read.
    pub(crate) fn new(documents: Vec<&'a Document>, parts: &'a ReadParts, time_path: Option<&'a Path>) -> Self {
        Self {
            documents,
            time_path,
            parts,
            roots: OnceCell::new(),
        }
    }

    /// A column of the documents at these indexes, in this order.
    pub(crate) fn column(&self, column: &Column, indexes: &[u32]) -> ColumnValues {
        match &column.source {
            ColumnSource::Path(path) => self.path(path, column, indexes),
            ColumnSource::Search(clause) => {
                let matcher = Matcher::new(clause);
                self.collect(column, indexes, |index| {
                    Scalar::Bool(matcher.matches(&self.roots()[index]))
                })
            }
            ColumnSource::Tokens(path) => {
                let mut builder = Builder::new(column.read_as.to, indexes.len());
                for index in indexes {
                    let count = count_tokens(&self.roots()[*index as usize], path.as_ref());
                    let count = i64::try_from(count).ok().filter(|count| *count > 0);
                    builder.push(count.map_or(CastResult::Absent, |count| CastResult::Fits(Scalar::Int(count))));
                }
                values(builder)
            }
            ColumnSource::Score(score) => {
                let scorer = serde_json::from_str(score).ok();
                let scorer = scorer.map(|of: DocumentScore| Scorer::new(&of.search, &of.statistics));
                self.collect(column, indexes, |index| {
                    let score = scorer
                        .as_ref()
                        .map(|scorer| scorer.score(&[Some(&self.roots()[index])]));
                    Scalar::Double(score.unwrap_or(0.0))
                })
            }
            ColumnSource::Time => self.collect(column, indexes, |index| {
                let root = self.time_path.map(|_| &self.roots()[index]);
                Scalar::Time(super::time_of_document(self.documents[index], root, self.time_path))
            }),
            ColumnSource::Key => self.record_key(column, indexes),
            header => self.collect(column, indexes, |index| header_value(self.documents[index], header)),
        }
    }

    fn roots(&self) -> &[Value<'a>] {
        self.roots.get_or_init(|| {
            self.documents
                .iter()
                .map(|document| root(document, self.parts))
                .collect()
        })
    }

    fn path(&self, path: &Path, column: &Column, indexes: &[u32]) -> ColumnValues {
        let roots = self.roots();
        let mut builder = Builder::new(column.read_as.to, indexes.len());
        for index in indexes {
            let index = *index as usize;
            let document = self.documents[index];
            let verbatim = || {
                if document.header.json {
                    json::raw_at(document.text(), path.steps())
                } else {
                    Some(document.text())
                }
            };
            builder.push(super::at(&roots[index], path).map_or(CastResult::Absent, |value| {
                super::read_value(value, verbatim, column.read_as)
            }));
        }
        values(builder)
    }

    fn record_key(&self, column: &Column, indexes: &[u32]) -> ColumnValues {
        let mut builder = Builder::new(column.read_as.to, indexes.len());
        for index in indexes {
            let key = self.documents[*index as usize].header.record_key.as_ref();
            builder.push(key.map_or(CastResult::Absent, |key| {
                CastResult::Fits(Scalar::Text(String::from_utf8_lossy(key)))
            }));
        }
        values(builder)
    }

    fn collect<'s>(&'s self, column: &Column, indexes: &[u32], value: impl Fn(usize) -> Scalar<'s>) -> ColumnValues {
        let mut builder = Builder::new(column.read_as.to, indexes.len());
        indexes
            .iter()
            .for_each(|index| builder.push(CastResult::Fits(value(*index as usize))));
        values(builder)
    }
}

/// The document as a value; parts that are not read may be missing.
fn root<'d>(document: &'d Document, parts: &ReadParts) -> Value<'d> {
    match document.header.json {
        true => parts.parse(document.text()),
        false => super::root(document),
    }
}

fn values(builder: Builder) -> ColumnValues {
    let (cast_failures, present) = (builder.cast_failures, builder.present);
    ColumnValues {
        array: builder.finish(),
        cast_failures,
        present,
    }
}

/// A column that comes from the header or the address, or the whole text.
fn header_value<'d>(document: &'d Document, source: &ColumnSource) -> Scalar<'d> {
    let address = &document.address;
    match source {
        ColumnSource::Id => Scalar::Text(Cow::Owned(document.id())),
        ColumnSource::Ingested => Scalar::Time(document.header.ingested_ms.saturating_mul(1_000)),
        ColumnSource::Source => Scalar::Text(Cow::Borrowed(address.source.as_str())),
        ColumnSource::Partition => Scalar::Int(i64::from(address.partition)),
        ColumnSource::Offset => Scalar::Int(address.offset),
        ColumnSource::Item => Scalar::Int(address.item.map_or(0, i64::from)),
        _ => Scalar::Text(Cow::Borrowed(document.text())),
    }
}
