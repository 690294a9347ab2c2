//! Segment: an immutable index over one run of documents, in memory (micro-split) or in one file (split).
//!
//! Which documents it holds, which conditions its index decides, which columns it gives exactly: everything else the
//! caller reads from the raw documents. So an answer never depends on what an index happens to hold.

mod build;
mod bundle;
mod bytes;
mod checked;
mod columns;
mod header;
mod lookup;
mod part;
mod record;
mod search;
mod shape;
mod survey;
mod text;
mod token;
mod values;

use std::{collections::BTreeMap, io, path::Path as FilePath, sync::Arc};

use datafusion::arrow::{
    array::{Array, ArrayRef},
    compute,
};
use plan::{Column, Path, Type, search::Clause};
use proto::Address;
use roaring::RoaringBitmap;
use tantivy::HasLen as _;

pub(crate) use self::checked::Damaged;
use self::{
    bundle::{Bundle, BundleWriter},
    checked::Checked,
    lookup::Found,
    part::Part,
};
use crate::{document::Document, error::Error};

/// Raw bytes of the documents that one build holds in memory, beside about as much for what it builds …
const PART_BYTES_MAX: usize = 48 << 20;
/// … and how many they are at most.
const PART_DOCUMENTS_MAX: usize = 1_000_000;

/// An immutable index over a run of documents. Documents are numbered from 0 in address order.
pub struct Segment {
    /// Each with the number of its first document.
    parts: Vec<(u32, Part)>,
    documents: u32,
    bytes: u64,
    file: Option<Arc<Checked>>,
}

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
    /// One of the header's numbers (`_partition`, `_offset`) or times (`_ingested`, and `_time` without a time path;
    /// microseconds) lies between the bounds, inclusive.
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

/// What an index knows of a condition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Narrowed {
    /// Documents for which it is true.
    pub sure: RoaringBitmap,
    /// Documents for which only their bytes tell.
    pub doubtful: RoaringBitmap,
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
        let parts = parts_of(documents)
            .map(Part::in_memory)
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        Ok(Self::of_parts(parts, bytes, None))
    }

    /// Indexes documents, given in address order, into one new file, synced under its final name when this returns. The
    /// memory it takes is bounded, however many they are.
    pub fn to_file(
        documents: &mut dyn Iterator<Item = Result<Arc<Document>, Error>>,
        file: &FilePath,
    ) -> Result<Self, Error> {
        let failed = |source| Error::File {
            path: file.to_owned(),
            source,
        };
        let mut bundle = BundleWriter::create(file).map_err(failed)?;
        let (mut held, mut held_bytes, mut parts) = (Vec::new(), 0, 0u32);
        for document in documents {
            let document = document?;
            held_bytes += document.weight();
            held.push(document);
            if held_bytes >= PART_BYTES_MAX || held.len() >= PART_DOCUMENTS_MAX {
                Part::write(&held, parts as usize, &mut bundle)?;
                (held_bytes, parts) = (0, parts + 1);
                held.clear();
            }
        }
        if !held.is_empty() || parts == 0 {
            Part::write(&held, parts as usize, &mut bundle)?;
            parts += 1;
        }
        drop(held);
        bundle
            .entry(PARTS.to_owned(), |to| to.write_all(&parts.to_le_bytes()))
            .and_then(|()| bundle.publish(file))
            .map_err(failed)?;
        let written = Self::open(file)?;
        // What was just written is still in memory, so that it reads back is soon known.
        written.scrub(0, u64::MAX).map_err(failed)?;
        Ok(written)
    }

    /// Opens a file. Its bytes are compared with their checksums when they are first read: whatever does not match is
    /// an error, then or now.
    pub fn open(file: &FilePath) -> Result<Self, Error> {
        let failed = |source| Error::File {
            path: file.to_owned(),
            source,
        };
        let bundle = Bundle::open(file).map_err(failed)?;
        let count = bundle.get(PARTS).and_then(|slice| slice.read_bytes()).map_err(failed)?;
        let count = bytes::Reader::new(&count).u32().map_err(failed)?;
        let parts = (0..count as usize)
            .map(|number| Part::open(&bundle, number))
            .collect::<Result<Vec<_>, _>>();
        let parts = parts.map_err(|e| failed(io::Error::other(e.to_string())))?;
        let bytes = bundle.checked.len() as u64;
        Ok(Self::of_parts(parts, bytes, Some(bundle.checked)))
    }

    fn of_parts(parts: Vec<Part>, bytes: u64, file: Option<Arc<Checked>>) -> Self {
        let mut documents = 0;
        let numbered = |part: Part| {
            let first = documents;
            documents += part.shape.documents;
            (first, part)
        };
        let parts = parts.into_iter().map(numbered).collect();
        Self {
            parts,
            documents,
            bytes,
            file,
        }
    }

    /// Documents in it, those gone since included.
    pub fn documents(&self) -> u32 {
        self.documents
    }

    /// Bytes of its file, or in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of its file that were read and compared so far.
    pub fn bytes_read(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.read_bytes())
    }

    /// Whether its file was found to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.damaged().is_some())
    }

    /// Compares its file with its checksums from an extent on, until so many bytes were read: the extent to go on with,
    /// if there is one, and the bytes that were read.
    pub fn scrub(&self, from: usize, bytes_max: u64) -> io::Result<(Option<usize>, u64)> {
        self.file
            .as_ref()
            .map_or(Ok((None, 0)), |file| file.scrub(from, bytes_max))
    }

    /// Documents of which nothing is indexed, because no index could be built with them.
    pub fn unindexed(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.shape.failed.len()).sum()
    }

    /// The address of a document.
    ///
    /// # Panics
    /// If it has no document of this number.
    pub fn address(&self, document: u32) -> Address {
        let (first, part) = &self.parts[self.parts.partition_point(|(first, _)| *first <= document) - 1];
        part.headers
            .address(document - first)
            .expect("every document lies in a run")
    }

    /// The number of the document at an address, if it is here.
    pub fn find(&self, address: &Address) -> Option<u32> {
        self.parts
            .iter()
            .find_map(|(first, part)| part.headers.find(address).map(|document| first + document))
    }

    /// Exactly the documents for which a condition is true, or None where this index cannot say.
    pub fn lookup(&self, lookup: &Lookup) -> Result<Option<RoaringBitmap>, Error> {
        Ok(self
            .narrow(lookup)?
            .filter(|found| found.doubtful.is_empty())
            .map(|found| found.sure))
    }

    /// Where a condition is true for sure and where only the raw documents know; nowhere else is it true. None where
    /// this index cannot say.
    pub fn narrow(&self, lookup: &Lookup) -> Result<Option<Narrowed>, Error> {
        let mut narrowed = Narrowed::default();
        for (first, part) in &self.parts {
            let Some(Found { sure, doubtful }) = part.lookup(lookup)? else {
                return Ok(None);
            };
            add(&mut narrowed.sure, *first, sure);
            add(&mut narrowed.doubtful, *first, doubtful);
        }
        Ok(Some(narrowed))
    }

    /// The values of a column for these documents (ascending), or None where they must be read from the raw documents.
    pub fn values(
        &self,
        column: &Column,
        time_path: Option<&Path>,
        documents: &[u32],
    ) -> Result<Option<Values>, Error> {
        let mut given: Vec<Values> = Vec::with_capacity(1);
        let mut rest = documents;
        for (first, part) in &self.parts {
            let (here, after) = rest.split_at(rest.partition_point(|document| document - first < part.shape.documents));
            rest = after;
            if here.is_empty() && !(documents.is_empty() && given.is_empty()) {
                continue;
            }
            let values = if *first == 0 {
                part.values(column, time_path, here)?
            } else {
                part.values(
                    column,
                    time_path,
                    &here.iter().map(|document| document - first).collect::<Vec<_>>(),
                )?
            };
            match values {
                Some(values) => given.push(values),
                None => return Ok(None),
            }
        }
        join(given)
    }

    /// The paths that were seen here, indexed or not.
    pub fn paths(&self) -> Vec<(Path, PathShape)> {
        let mut paths: BTreeMap<Path, PathShape> = BTreeMap::new();
        for (_, part) in &self.parts {
            for (id, node) in (0..).zip(&part.shape.nodes) {
                let inside = node.inside.kinds();
                let element = if inside == plan::Kinds::default() {
                    inside
                } else {
                    plan::Kinds::ELEMENT
                };
                let kinds = node.outside.kinds() | inside | element;
                if kinds == plan::Kinds::default() || (id == shape::ROOT && kinds == plan::Kinds::OBJECT) {
                    continue;
                }
                let shape = PathShape {
                    kinds,
                    documents: node.outside.present(),
                    column: node.column,
                    postings: node.postings,
                    sample: node.sample.clone(),
                };
                paths
                    .entry(part.shape.path(id))
                    .and_modify(|known| known.merge(&shape))
                    .or_insert(shape);
            }
        }
        paths.into_iter().collect()
    }

    /// Whether it holds documents with paths that [`paths`](Self::paths) does not name.
    pub fn has_untracked(&self) -> bool {
        self.parts.iter().any(|(_, part)| !part.shape.unknown().is_empty())
    }
}

/// The file of a split beside its segment: for whoever compares it, and asks it nothing.
pub struct SplitFile {
    checked: Arc<Checked>,
}

impl SplitFile {
    /// Opens a file; one whose end does not match does not open.
    pub fn open(file: &FilePath) -> io::Result<Self> {
        Ok(Self {
            checked: Bundle::open(file)?.checked,
        })
    }

    /// Compares it with its checksums from an extent on, until so many bytes were read: the extent to go on with, if
    /// there is one, and the bytes that were read; None where it does not match.
    pub fn compare(&self, from: usize, bytes_max: u64) -> io::Result<Option<(Option<usize>, u64)>> {
        Ok(self.checked.compare(from, bytes_max)?.ok())
    }
}

impl PathShape {
    fn merge(&mut self, other: &Self) {
        self.kinds |= other.kinds;
        self.documents += other.documents;
        self.column &= other.column;
        self.postings |= other.postings;
        if self.sample.is_none() {
            self.sample.clone_from(&other.sample);
        }
    }
}

/// The entry of a bundle that says how many parts it has.
const PARTS: &str = "parts";

/// Cuts documents into as many as one build holds; at least one part.
fn parts_of(documents: &[Arc<Document>]) -> impl Iterator<Item = &[Arc<Document>]> {
    let mut rest = Some(documents);
    std::iter::from_fn(move || {
        let here = rest.take()?;
        let mut bytes = 0;
        let fits = |document: &&Arc<Document>| {
            bytes += document.weight();
            bytes <= PART_BYTES_MAX
        };
        let count = here
            .iter()
            .take(PART_DOCUMENTS_MAX)
            .take_while(fits)
            .count()
            .max(1)
            .min(here.len());
        let (part, after) = here.split_at(count);
        rest = (!after.is_empty()).then_some(after);
        Some(part)
    })
}

/// Adds a part's documents, which count from its first.
fn add(all: &mut RoaringBitmap, first: u32, part: RoaringBitmap) {
    if first == 0 {
        *all |= part;
    } else {
        all.extend(part.iter().map(|document| first + document));
    }
}

fn join(given: Vec<Values>) -> Result<Option<Values>, Error> {
    let (misfits, present) = given.iter().fold((0, 0), |(misfits, present), values| {
        (misfits + values.misfits, present + values.present)
    });
    let array = match given.as_slice() {
        [] => return Ok(None),
        [only] => only.array.clone(),
        several => {
            let arrays: Vec<&dyn Array> = several.iter().map(|values| values.array.as_ref()).collect();
            compute::concat(&arrays)?
        }
    };
    Ok(Some(Values {
        array,
        misfits,
        present,
    }))
}
