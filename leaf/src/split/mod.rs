//! Segment: an immutable index over one run of documents, in memory (micro-split) or in one file (split).
//!
//! Which documents it holds, which conditions its index decides, which columns it gives exactly: everything else the caller reads from the
//! raw documents. So an answer never depends on what an index happens to hold.

use std::{path::Path as FilePath, sync::Arc};

use datafusion::arrow::array::ArrayRef;
use plan::{Column, Path, Type, search::Clause};
use proto::Address;
use roaring::RoaringBitmap;

use crate::{document::Document, error::Error};

/// An immutable index over a run of documents. Documents are numbered from 0 in address order.
pub struct Segment {}

/// A condition that an index may decide.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The strict view of the path as this type equals one of the values.
    In(Path, Type, Vec<Literal>),
    /// The strict view of the path lies between the bounds; a missing bound is open.
    Range(Path, Type, Option<(Literal, bool)>, Option<(Literal, bool)>),
    /// The strict view of the path as text begins so.
    Prefix(Path, String),
    /// The strict view of the path as this type is not NULL (as JSON: there is a value other than null).
    Exists(Path, Type),
    /// A search clause matches.
    Search(Clause),
    /// `_id` equals one of these.
    Id(Vec<String>),
    /// One of the header's numbers (`_partition`, `_offset`) or times (`_ingested`, and `_time` without a time path; microseconds) lies
    /// between the bounds, inclusive.
    Header(plan::What, i64, i64),
    /// `_source` equals.
    Source(String),
}

/// A value in a lookup.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each holds the value of its type")]
pub enum Literal {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    /// Microseconds since 1970.
    Time(i64),
}

/// Values of a column.
pub struct Values {
    /// One a document, in the order asked, of the column's Arrow type.
    pub array: ArrayRef,
    /// Of the documents asked, those that have a value other than null here that does not fit the view.
    pub misfits: u64,
    /// Of the documents asked, those that have a value other than null here.
    pub present: u64,
}

/// What is known of a path in a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct PathShape {
    /// Kinds seen.
    pub kinds: plan::Kinds,
    /// Documents with a value other than null.
    pub documents: u64,
    /// Whether it has a column, and whether its text has postings.
    pub column: bool,
    /// See `column`.
    pub postings: bool,
    /// A value as JSON text, at most 200 characters.
    pub sample: Option<String>,
}

impl Segment {
    /// Indexes documents, given in address order, in memory.
    pub fn in_memory(documents: &[Arc<Document>]) -> Result<Self, Error> {
        let _ = documents;
        unimplemented_segment()
    }

    /// Indexes documents, given in address order, into one new file, synced under its final name when this returns.
    pub fn to_file(documents: &mut dyn Iterator<Item = Result<Arc<Document>, Error>>, file: &FilePath) -> Result<Self, Error> {
        let _ = (documents, file);
        unimplemented_segment()
    }

    /// Opens a file, checking that it is whole.
    pub fn open(file: &FilePath) -> Result<Self, Error> {
        let _ = file;
        unimplemented_segment()
    }

    /// Documents in it, those gone since included.
    pub fn documents(&self) -> u32 {
        0
    }

    /// Bytes of its file, or in memory.
    pub fn bytes(&self) -> u64 {
        0
    }

    /// The address of a document.
    pub fn address(&self, document: u32) -> Address {
        let _ = document;
        Address { source: proto::SourceName::push(), partition: 0, offset: 0, item: None }
    }

    /// The number of the document at an address, if it is here.
    pub fn find(&self, address: &Address) -> Option<u32> {
        let _ = address;
        None
    }

    /// Exactly the documents for which a condition is true, or None where this index cannot say.
    pub fn lookup(&self, lookup: &Lookup) -> Result<Option<RoaringBitmap>, Error> {
        let _ = lookup;
        Ok(None)
    }

    /// The values of a column for these documents (ascending), or None where they must be read from the raw documents.
    pub fn values(&self, column: &Column, time_path: Option<&Path>, documents: &[u32]) -> Result<Option<Values>, Error> {
        let _ = (column, time_path, documents);
        Ok(None)
    }

    /// The paths that were seen here, indexed or not.
    pub fn paths(&self) -> Vec<(Path, PathShape)> {
        Vec::new()
    }
}

fn unimplemented_segment() -> Result<Segment, Error> {
    Err(proto::Problem::new(proto::Code::NotSupported, "segments are not written yet").into())
}
