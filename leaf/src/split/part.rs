//! Part: an index over as many documents as one build holds in memory. A large segment has several parts.
//!
//! A document can make a build fail or panic. Such documents are found by bisection and excluded from the index.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use plan::search::Clause;
use proto::problem::panic_text;
use roaring::RoaringBitmap;
use tantivy::{
    Directory, HasLen as _, TantivyError,
    columnar::ColumnarReader,
    directory::{FileSlice, RamDirectory},
};
use tracing::warn;

use super::{
    build,
    bundle::{Bundle, BundleWriter},
    columns::{Columns, range},
    decoded::RecentSlots,
    dictionaries::{self, Dictionaries},
    footer::{PACKED, STORED},
    header::{self, Headers},
    path_tree::{PathNode, PathTree},
    recorder::RecordedPart,
    score::ScoreCache,
    text::TextIndex,
};
use crate::{document::Document, error::Error, fault, matches::Matches};

/// Search clauses whose matches have a place in the cache, for each part.
const CLAUSES_MAX: usize = 32;

/// Documents that a failing build may exclude one by one.
const EXCLUDED_DOCUMENTS_MAX: u64 = 16;

/// The entries of a part in its file; those of its postings begin with [`TEXT`].
const COLUMNS: &str = "columns";
const DICTIONARIES: &str = "dictionaries";
const SHAPE: &str = "shape";
const RUNS: &str = "runs";
const TEXT: &str = "text/";

/// An index over documents, numbered from 0.
pub(super) struct Part {
    pub paths: PathTree,
    pub headers: Headers,
    pub columns: Columns,
    pub text: Option<TextIndex>,
    /// The documents that match the last search clauses.
    pub clauses: RecentSlots<Clause, Matches, CLAUSES_MAX>,
    pub scores: ScoreCache,
    files: PartFiles,
}

/// The bytes that a part was opened from, so that it can be copied to another file.
struct PartFiles {
    columns: FileSlice,
    /// The dictionaries of its text columns as they are stored, and their codec, unless the columns have them.
    dictionaries: Option<(FileSlice, u32)>,
    /// The files of its postings, by name.
    text: Vec<(String, FileSlice)>,
    /// Its path tree and its runs, if it is in a file.
    stored: Option<[FileSlice; 2]>,
}

/// Builds a part and opens it. A panic during the build is returned as an error.
fn build_part(documents: &[Arc<Document>], excluded: &RoaringBitmap) -> Result<Part, Error> {
    let build = || -> Result<Part, Error> {
        let (RecordedPart { paths, columns, text }, runs) = build::build(documents, excluded)?;
        fail_on_unbuildable(documents, excluded)?;
        let columns = FileSlice::from(columns);
        let index = text.clone().map(TextIndex::open).transpose()?;
        let text = text
            .map_or(Ok(Vec::new()), |text| text_files(&text))
            .map_err(index_error)?;
        let files = PartFiles {
            columns,
            dictionaries: None,
            text,
            stored: None,
        };
        Part::assemble(paths, runs, index, None, files)
    };
    catch_unwind(AssertUnwindSafe(build))
        .unwrap_or_else(|panic| Err(TantivyError::InternalError(panic_text(&*panic).to_owned()).into()))
}

/// The fault point `unbuildable`: fails the build if it includes a document that the fault selects.
fn fail_on_unbuildable(documents: &[Arc<Document>], excluded: &RoaringBitmap) -> Result<(), Error> {
    let struck = (0..)
        .zip(documents)
        .find(|(number, document)| !excluded.contains(*number) && fault::affects("unbuildable", &document.bytes));
    match struck {
        Some((_, document)) => Err(TantivyError::InternalError(format!("{} is unbuildable", document.address)).into()),
        None => Ok(()),
    }
}

/// Builds a part. If that fails, finds the documents that cause it by bisection and excludes them from the index.
fn build_excluding_bad(documents: &[Arc<Document>]) -> Result<Part, Error> {
    let mut excluded = RoaringBitmap::new();
    let reason = match build_part(documents, &excluded) {
        Ok(part) => return Ok(part),
        Err(reason) => reason,
    };
    find_unbuildable(documents, 0, &mut excluded);
    // A build that still fails has no single document to blame, only the documents together: exclude all.
    let all = range(0..documents.len() as u32);
    let part = build_part(documents, &excluded).or_else(|_| {
        excluded.clone_from(&all);
        build_part(documents, &all)
    })?;
    let first = excluded
        .min()
        .and_then(|number| documents.get(number as usize))
        .map(|document| document.address.to_string());
    warn!(
        documents = excluded.len(),
        first,
        %reason,
        "an index excludes documents that it cannot be built with; queries read their bytes instead"
    );
    Ok(part)
}

/// Adds the documents that make the build of `documents` fail to `excluded`; `first` is the number of the first one.
///
/// Once [`EXCLUDED_DOCUMENTS_MAX`] documents are excluded, a half that cannot be built is excluded as a whole. So the
/// time of a build is bounded, however many such documents there are.
fn find_unbuildable(documents: &[Arc<Document>], first: u32, excluded: &mut RoaringBitmap) {
    let count = documents.len() as u32;
    if count == 1 || excluded.len() >= EXCLUDED_DOCUMENTS_MAX {
        excluded.insert_range(first..first + count);
        return;
    }
    let (left, right) = documents.split_at(documents.len() / 2);
    for (half, first) in [(left, first), (right, first + left.len() as u32)] {
        if build_part(half, &RoaringBitmap::new()).is_err() {
            find_unbuildable(half, first, excluded);
        }
    }
}

impl Part {
    /// Indexes documents in memory.
    pub(super) fn in_memory(documents: &[Arc<Document>]) -> Result<Self, Error> {
        build_excluding_bad(documents)
    }

    fn assemble(
        paths: PathTree,
        runs: Vec<header::PartitionRun>,
        text: Option<TextIndex>,
        dictionaries: Option<Arc<Dictionaries>>,
        files: PartFiles,
    ) -> Result<Self, Error> {
        let reader = ColumnarReader::open(files.columns.clone()).map_err(index_error)?;
        let headers = Headers::open(&reader, dictionaries.clone(), runs).map_err(index_error)?;
        Ok(Self {
            paths,
            headers,
            columns: Columns::new(reader, dictionaries),
            text,
            clauses: RecentSlots::default(),
            scores: ScoreCache::default(),
            files,
        })
    }

    /// Memory that it takes; 0 if it is in a file.
    pub(super) fn memory_bytes(&self) -> u64 {
        let PartFiles {
            columns, text, stored, ..
        } = &self.files;
        let text: usize = text.iter().map(|(_, file)| file.len()).sum();
        match stored {
            None => (columns.len() + text) as u64,
            Some(_) => 0,
        }
    }

    /// Writes the part to a file as part `number`.
    pub(super) fn write(&self, number: usize, bundle: &mut BundleWriter) -> Result<(), Error> {
        let PartFiles {
            columns,
            dictionaries,
            text,
            stored,
        } = &self.files;
        let (columns, (dictionaries, codec)) = match dictionaries {
            Some(dictionaries) => (columns.clone(), dictionaries.clone()),
            None => {
                let separate = columns
                    .read_bytes()
                    .and_then(|columns| dictionaries::separate(&columns));
                let (columns, dictionaries) = separate.map_err(index_error)?;
                (FileSlice::from(columns), (FileSlice::from(dictionaries), PACKED))
            }
        };
        let (shape, runs) = match stored {
            None => (
                FileSlice::from(self.paths.encode()),
                FileSlice::from(header::encode_runs(&self.headers.runs)),
            ),
            Some([shape, runs]) => (shape.clone(), runs.clone()),
        };
        let mut write = |name: &str, codec: u32, file: &FileSlice| {
            bundle.entry(format!("{number}/{name}"), codec, |to| {
                to.write_all(&file.read_bytes()?)
            })
        };
        write(COLUMNS, STORED, &columns)
            .and_then(|()| write(DICTIONARIES, codec, &dictionaries))
            .and_then(|()| write(SHAPE, STORED, &shape))
            .and_then(|()| write(RUNS, STORED, &runs))
            .and_then(|()| {
                text.iter()
                    .try_for_each(|(name, file)| write(&format!("{TEXT}{name}"), STORED, file))
            })
            .map_err(index_error)
    }

    /// Opens part `number` of a file.
    pub(super) fn open(bundle: &Bundle, number: usize) -> Result<Self, Error> {
        let entry = |name: &str| bundle.get(&format!("{number}/{name}")).map_err(index_error);
        let (shape, runs) = (entry(SHAPE)?, entry(RUNS)?);
        let paths = PathTree::decode(&shape.read_bytes().map_err(index_error)?)
            .map_err(io::Error::from)
            .map_err(index_error)?;
        let partition_runs = header::decode_runs(&runs.read_bytes().map_err(index_error)?).map_err(index_error)?;
        let text = bundle.directory(&format!("{number}/{TEXT}")).map_err(index_error)?;
        let name = format!("{number}/{DICTIONARIES}");
        let stored_dictionaries = bundle.stored(&name).map_err(index_error)?;
        let dictionaries = match &stored_dictionaries {
            None => None,
            Some(_) => {
                let dictionaries = bundle.get(&name).and_then(|entry| Dictionaries::open(&entry));
                Some(Arc::new(dictionaries.map_err(index_error)?))
            }
        };
        let files = PartFiles {
            columns: entry(COLUMNS)?,
            dictionaries: stored_dictionaries,
            text: text.files(),
            stored: Some([shape, runs]),
        };
        let text = match files.text.is_empty() {
            true => None,
            false => Some(TextIndex::open(text)?),
        };
        Self::assemble(paths, partition_runs, text, dictionaries, files)
    }

    /// What is known about a path.
    pub(super) fn node(&self, id: u32) -> &PathNode {
        &self.paths.nodes[id]
    }

    /// All documents.
    pub(super) fn all(&self) -> RoaringBitmap {
        range(0..self.paths.documents)
    }
}

/// The files of an index that are stored with a part.
fn text_files(directory: &RamDirectory) -> io::Result<Vec<(String, FileSlice)>> {
    use tantivy::index::SegmentComponent as C;
    let index = tantivy::Index::open(directory.clone()).map_err(io::Error::other)?;
    let segments = index.searchable_segments().map_err(io::Error::other)?;
    let components = [
        C::Terms,
        C::Postings,
        C::Positions,
        C::FieldNorms,
        C::FastFields,
        C::Store,
    ];
    let files_of = |segment: &tantivy::Segment| components.clone().map(|component| segment.relative_path(component));
    let names = segments.iter().flat_map(files_of).chain(["meta.json".into()]);
    let files = names
        .filter(|name: &PathBuf| directory.exists(name).unwrap_or(false))
        .map(|name| {
            let file = directory.open_read(&name).map_err(io::Error::other)?;
            Ok((name.display().to_string(), file))
        });
    let mut files = files.collect::<io::Result<Vec<_>>>()?;
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// Converts an error of the file or of the index library.
pub(super) fn index_error(error: io::Error) -> Error {
    TantivyError::from(error).into()
}
