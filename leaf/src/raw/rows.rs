//! Rows: raw documents -> columns. A document is read once, however many columns are asked of it.

use std::{borrow::Cow, cell::OnceCell};

use plan::{Column, Path, What, builder::Builder};
use proto::{json, json::Value};

use super::{Scalar, Seen, clause::Matcher};
use crate::{document::Document, split::Values};

/// Raw documents of which columns are asked. They are parsed when the first column needs it.
pub struct Rows<'a> {
    documents: Vec<&'a Document>,
    time_path: Option<&'a Path>,
    roots: OnceCell<Vec<Value<'a>>>,
}

impl<'a> Rows<'a> {
    /// Over these documents, `_time` by this path.
    pub fn new(documents: Vec<&'a Document>, time_path: Option<&'a Path>) -> Self {
        Self {
            documents,
            time_path,
            roots: OnceCell::new(),
        }
    }

    /// A column of the documents at these places, in this order.
    pub fn column(&self, column: &Column, places: &[u32]) -> Values {
        match &column.what {
            What::Path(path) => self.path(path, column, places),
            What::Search(clause) => {
                let matcher = Matcher::new(clause);
                self.collect(column, places, |place| {
                    Scalar::Bool(matcher.matches(&self.roots()[place]))
                })
            }
            What::Time => self.collect(column, places, |place| {
                let root = self.time_path.map(|_| &self.roots()[place]);
                Scalar::Time(super::time_of_document(self.documents[place], root, self.time_path))
            }),
            What::Key => self.record_key(column, places),
            header => self.collect(column, places, |place| of_header(self.documents[place], header)),
        }
    }

    fn roots(&self) -> &[Value<'a>] {
        self.roots
            .get_or_init(|| self.documents.iter().map(|document| super::root(document)).collect())
    }

    fn path(&self, path: &Path, column: &Column, places: &[u32]) -> Values {
        let steps = path.json_steps();
        let roots = self.roots();
        let mut built = Builder::new(column.view.to, places.len());
        for place in places {
            let place = *place as usize;
            let document = self.documents[place];
            let verbatim = || {
                if document.header.json {
                    json::raw_at(document.text(), &steps)
                } else {
                    Some(document.text())
                }
            };
            built.push(
                super::at(&roots[place], path).map_or(Seen::Absent, |value| super::view(value, verbatim, column.view)),
            );
        }
        values(built)
    }

    fn record_key(&self, column: &Column, places: &[u32]) -> Values {
        let mut built = Builder::new(column.view.to, places.len());
        for place in places {
            let key = self.documents[*place as usize].header.record_key.as_ref();
            built.push(key.map_or(Seen::Absent, |key| {
                Seen::Fits(Scalar::Text(String::from_utf8_lossy(key)))
            }));
        }
        values(built)
    }

    fn collect<'s>(&'s self, column: &Column, places: &[u32], value: impl Fn(usize) -> Scalar<'s>) -> Values {
        let mut built = Builder::new(column.view.to, places.len());
        places
            .iter()
            .for_each(|place| built.push(Seen::Fits(value(*place as usize))));
        values(built)
    }
}

fn values(built: Builder) -> Values {
    let (misfits, present) = (built.misfits, built.present);
    Values {
        array: built.finish(),
        misfits,
        present,
    }
}

/// What stands beside the bytes, and the bytes themselves.
fn of_header<'d>(document: &'d Document, what: &What) -> Scalar<'d> {
    let address = &document.address;
    match what {
        What::Id => Scalar::Text(Cow::Owned(document.id())),
        What::Ingested => Scalar::Time(document.header.ingested_ms.saturating_mul(1_000)),
        What::Source => Scalar::Text(Cow::Borrowed(address.source.as_str())),
        What::Partition => Scalar::Int(i64::from(address.partition)),
        What::Offset => Scalar::Int(address.offset),
        What::Item => Scalar::Int(address.item.map_or(0, i64::from)),
        _ => Scalar::Text(Cow::Borrowed(document.text())),
    }
}
