//! Part: an index over as many documents as one build holds in memory. A segment has one part or, when it is large,
//! several.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use plan::search::Clause;
use roaring::RoaringBitmap;
use tantivy::{
    Directory, TantivyError,
    columnar::ColumnarReader,
    directory::{FileSlice, RamDirectory},
};
use tracing::warn;

use super::{
    build::{Built, build},
    bundle::{Bundle, BundleWriter},
    columns::{Columns, range},
    header::{self, Headers},
    lookup::Found,
    shape::{Node, Shape},
    text::TextIndex,
};
use crate::{
    document::Document,
    error::{Error, panic_text},
    fault,
};

/// Clauses whose documents a part remembers: a scan asks for the same one block by block.
pub(super) const CLAUSES_KEPT_MAX: usize = 8;

/// Documents that are found one by one to keep a part from being built.
const SEARCHED_DOCUMENTS_MAX: u64 = 16;

/// An index over documents, numbered from 0.
pub(super) struct Part {
    pub shape: Shape,
    pub headers: Headers,
    pub columns: Columns,
    pub text: Option<TextIndex>,
    pub clauses: Mutex<Vec<(Clause, Option<Arc<Found>>)>>,
    /// In memory; 0 if it lies in a file.
    pub bytes: u64,
}

/// A part in memory, with what a file of it holds beside its shape and its runs.
struct Made {
    part: Part,
    columns: FileSlice,
    text: Option<RamDirectory>,
}

/// Makes a part and opens it; a panic on the way is an error.
fn made(documents: &[Arc<Document>], left_out: &RoaringBitmap) -> Result<Made, Error> {
    let make = || -> Result<Made, Error> {
        let Built {
            shape,
            runs,
            mut columns,
            text,
        } = build(documents, left_out)?;
        let mut bytes = Vec::new();
        columns
            .serialize(shape.documents, None, &mut bytes)
            .map_err(index_error)?;
        drop(columns);
        let struck = (0..)
            .zip(documents)
            .find(|(number, document)| !left_out.contains(*number) && fault::strikes("unbuildable", &document.bytes));
        if let Some((_, document)) = struck {
            return Err(TantivyError::InternalError(format!("{} is unbuildable", document.address)).into());
        }
        let memory = bytes.len() + text.as_ref().map_or(0, RamDirectory::total_mem_usage);
        let columns = FileSlice::from(bytes);
        let index = text.clone().map(TextIndex::open).transpose()?;
        Ok(Made {
            part: Part::assemble(shape, runs, columns.clone(), index, memory as u64)?,
            columns,
            text,
        })
    };
    catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|panic| Err(TantivyError::InternalError(panic_text(&*panic)).into()))
}

/// Makes a part. Documents that keep it from being built are found by halving and left out of the index.
fn made_with_what_can_be(documents: &[Arc<Document>]) -> Result<Made, Error> {
    let mut left_out = RoaringBitmap::new();
    let reason = match made(documents, &left_out) {
        Ok(made) => return Ok(made),
        Err(reason) => reason,
    };
    leave_out(documents, 0, &mut left_out);
    // A build that fails only with all documents together has no single culprit to leave out.
    let all = range(0..documents.len() as u32);
    let made = made(documents, &left_out).or_else(|_| {
        left_out.clone_from(&all);
        made(documents, &all)
    })?;
    let first = left_out
        .min()
        .and_then(|number| documents.get(number as usize))
        .map(|document| document.address.to_string());
    warn!(documents = left_out.len(), first, %reason, "documents were left out of an index that could not be built with them; they are answered from their bytes");
    Ok(made)
}

/// Finds which of these documents, with which together no part can be built, keep it from that. After so many searches
/// a half that cannot be built is left out whole, so a build takes a bounded time however many there are.
fn leave_out(documents: &[Arc<Document>], first: u32, left_out: &mut RoaringBitmap) {
    let count = documents.len() as u32;
    if count == 1 || left_out.len() >= SEARCHED_DOCUMENTS_MAX {
        left_out.insert_range(first..first + count);
        return;
    }
    let (left, right) = documents.split_at(documents.len() / 2);
    for (half, first) in [(left, first), (right, first + left.len() as u32)] {
        if made(half, &RoaringBitmap::new()).is_err() {
            leave_out(half, first, left_out);
        }
    }
}

impl Part {
    /// Indexes documents in memory.
    pub fn in_memory(documents: &[Arc<Document>]) -> Result<Self, Error> {
        Ok(made_with_what_can_be(documents)?.part)
    }

    fn assemble(
        shape: Shape,
        runs: Vec<header::Run>,
        columns: FileSlice,
        text: Option<TextIndex>,
        bytes: u64,
    ) -> Result<Self, Error> {
        let reader = ColumnarReader::open(columns).map_err(index_error)?;
        let headers = Headers::open(&reader, runs).map_err(index_error)?;
        Ok(Self {
            shape,
            headers,
            columns: Columns::new(reader),
            text,
            clauses: Mutex::default(),
            bytes,
        })
    }

    /// Indexes documents into a file, as its part of this number.
    pub fn write(documents: &[Arc<Document>], number: usize, bundle: &mut BundleWriter) -> Result<(), Error> {
        let Made { part, columns, text } = made_with_what_can_be(documents)?;
        let encoded = part.shape.encode().map_err(index_error)?;
        let mut write = || -> io::Result<()> {
            bundle.entry(format!("{number}/columns"), |to| to.write_all(&columns.read_bytes()?))?;
            bundle.entry(format!("{number}/shape"), |to| to.write_all(&encoded))?;
            bundle.entry(format!("{number}/runs"), |to| {
                to.write_all(&header::encode_runs(&part.headers.runs))
            })?;
            text.iter().try_for_each(|files| write_text(files, number, bundle))
        };
        write().map_err(index_error)
    }

    /// Opens a part of a file.
    pub fn open(bundle: &Bundle, number: usize) -> Result<Self, Error> {
        let bytes = |name: &str| {
            bundle
                .get(&format!("{number}/{name}"))
                .and_then(|slice| slice.read_bytes())
                .map_err(index_error)
        };
        let shape = Shape::decode(&bytes("shape")?).map_err(index_error)?;
        let runs = header::decode_runs(&bytes("runs")?).map_err(index_error)?;
        let files = bundle.folder(&format!("{number}/text/"));
        let text = if files.is_empty() {
            None
        } else {
            Some(TextIndex::open(files)?)
        };
        Self::assemble(
            shape,
            runs,
            bundle.get(&format!("{number}/columns")).map_err(index_error)?,
            text,
            0,
        )
    }

    /// A path's shape.
    pub fn node(&self, id: u32) -> &Node {
        &self.shape.nodes[id as usize]
    }

    /// All documents.
    pub fn all(&self) -> RoaringBitmap {
        range(0..self.shape.documents)
    }
}

fn write_text(files: &RamDirectory, number: usize, bundle: &mut BundleWriter) -> io::Result<()> {
    use tantivy::index::SegmentComponent as C;
    let index = tantivy::Index::open(files.clone()).map_err(io::Error::other)?;
    let segments = index.searchable_segments().map_err(io::Error::other)?;
    let components = [
        C::Terms,
        C::Postings,
        C::Positions,
        C::FieldNorms,
        C::FastFields,
        C::Store,
    ];
    let of_segment = |segment: &tantivy::Segment| components.clone().map(|component| segment.relative_path(component));
    let names = segments.iter().flat_map(of_segment).chain(["meta.json".into()]);
    for name in names.filter(|name: &PathBuf| files.exists(name).unwrap_or(false)) {
        let bytes = files.open_read(&name).map_err(io::Error::other)?.read_bytes()?;
        bundle.entry(format!("{number}/text/{}", name.display()), |to| to.write_all(&bytes))?;
    }
    Ok(())
}

/// A failure of the file or of the library under an index.
pub(super) fn index_error(error: io::Error) -> Error {
    TantivyError::from(error).into()
}
