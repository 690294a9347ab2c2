//! Part: an index over as many documents as one build holds in memory. A segment has one part or, when it is large, several.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use plan::search::Clause;
use roaring::RoaringBitmap;
use tantivy::{
    Directory,
    columnar::ColumnarReader,
    directory::{FileSlice, RamDirectory},
};

use super::{
    build::{Built, build},
    bundle::{Bundle, BundleWriter},
    columns::{Columns, range},
    header::{self, Headers},
    lookup::Found,
    shape::{Node, Shape},
    text::TextIndex,
};
use crate::{document::Document, error::Error};

/// Clauses whose documents a part remembers: a scan asks for the same one block by block.
pub(super) const CLAUSES_KEPT_MAX: usize = 8;

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

impl Part {
    /// Indexes documents in memory.
    pub fn in_memory(documents: &[Arc<Document>]) -> Result<Self, Error> {
        let Built { shape, runs, mut columns, text } = build(documents)?;
        let mut bytes = Vec::new();
        columns.serialize(shape.documents, None, &mut bytes).map_err(index_error)?;
        drop(columns);
        let memory = bytes.len() + text.as_ref().map_or(0, RamDirectory::total_mem_usage);
        let text = text.map(TextIndex::open).transpose()?;
        Self::assemble(shape, runs, FileSlice::from(bytes), text, memory as u64)
    }

    fn assemble(shape: Shape, runs: Vec<header::Run>, columns: FileSlice, text: Option<TextIndex>, bytes: u64) -> Result<Self, Error> {
        let reader = ColumnarReader::open(columns).map_err(index_error)?;
        let headers = Headers::open(&reader, runs).map_err(index_error)?;
        Ok(Self { shape, headers, columns: Columns::new(reader), text, clauses: Mutex::default(), bytes })
    }

    /// Indexes documents into a file, as its part of this number.
    pub fn write(documents: &[Arc<Document>], number: usize, bundle: &mut BundleWriter) -> Result<(), Error> {
        let Built { shape, runs, mut columns, text } = build(documents)?;
        let encoded = shape.encode().map_err(index_error)?;
        let mut write = || -> io::Result<()> {
            bundle.entry(format!("{number}/columns"), |to| columns.serialize(shape.documents, None, to))?;
            bundle.entry(format!("{number}/shape"), |to| to.write_all(&encoded))?;
            bundle.entry(format!("{number}/runs"), |to| to.write_all(&header::encode_runs(&runs)))?;
            text.iter().try_for_each(|files| write_text(files, number, bundle))
        };
        write().map_err(index_error)
    }

    /// Opens a part of a file.
    pub fn open(bundle: &Bundle, number: usize) -> Result<Self, Error> {
        let bytes = |name: &str| bundle.get(&format!("{number}/{name}")).and_then(|slice| slice.read_bytes()).map_err(index_error);
        let shape = Shape::decode(&bytes("shape")?).map_err(index_error)?;
        let runs = header::decode_runs(&bytes("runs")?).map_err(index_error)?;
        let files = bundle.folder(&format!("{number}/text/"));
        let text = if files.is_empty() { None } else { Some(TextIndex::open(files)?) };
        Self::assemble(shape, runs, bundle.get(&format!("{number}/columns")).map_err(index_error)?, text, 0)
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
    let components = [C::Terms, C::Postings, C::Positions, C::FieldNorms, C::FastFields, C::Store];
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
    tantivy::TantivyError::from(error).into()
}
