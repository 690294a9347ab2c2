//! Segment: an immutable index over a run of documents, in memory (micro-split) or in one file (split).
//!
//! A segment knows which documents it holds, which conditions its index decides and which columns it can return
//! exactly. For everything else the caller reads the raw documents, so an answer never depends on what an index happens
//! to cover.
//!
//! Building a segment, in the order in which a document passes the files:
//!
//! 1. `mod.rs` cuts the documents into parts, so that the memory of a build is bounded.
//! 2. `part.rs` builds a part in memory and excludes the documents that make the build fail.
//! 3. `build.rs` passes over the documents of a part: once, unless they have too many paths, from which
//!    `path_stats.rs` then chooses in a pass of its own.
//! 4. `recorder.rs` buffers the values by path, and `header.rs` addresses, times and ids. At the end the recorder
//!    chooses which paths get columns and which get postings.
//! 5. `columnar.rs` writes the columns and `postings.rs` the postings. Both number texts and tokens with
//!    `distinct_texts.rs`.
//! 6. `path_tree.rs` is the path tree that the recorder leaves behind: which values each path has, which of them are
//!    indexed, and between which bounds they lie (`statistics.rs`).
//! 7. `bundle.rs` writes columns, postings, the path tree and the runs of addresses to one file with block checksums.
//!    Its footer says what it holds (`footer.rs`).
//!    `codec.rs` of the crate encodes the records among them.
//!
//! Reading a segment:
//!
//! 1. `bundle.rs` opens the file, and `checksummed_file.rs` verifies each block when it is first read or scrubbed.
//! 2. `part.rs` opens each part and decodes its path tree (`path_tree.rs`) and its runs of addresses (`header.rs`).
//! 3. `prune.rs` leaves out parts of which no document can match, by their statistics.
//! 4. `lookup.rs` answers typed conditions and `search.rs` search clauses. Both consult the path tree first, then the
//!    columns and dictionaries (`columns.rs`), the postings (`text.rs`) and the headers (`header.rs`).
//! 5. `values.rs` returns a column as an Arrow array, or nothing where the index does not hold it exactly. `groups.rs`
//!    counts documents by their values of columns that have few, `totals.rs` counts and sums columns that the index knows.
//!    `bounds.rs` says between which values a column lies.
//! 6. `mod.rs` joins the results of the parts.

mod bounds;
mod build;
mod bundle;
mod checksummed_file;
mod column_name;
mod columnar;
mod columns;
mod decoded;
mod dictionaries;
mod distinct_texts;
mod document_numbers;
mod footer;
mod groups;
mod header;
mod lookup;
mod packed;
mod part;
mod path_stats;
mod path_tree;
mod postings;
mod prune;
mod recorder;
mod score;
mod search;
mod statistics;
mod stored_column;
mod text;
mod token;
mod totals;
mod values;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    ops::Range,
    path::Path as FilePath,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray},
    compute,
};
use plan::{Column, Path, Type, calendar::Interval, search::Clause};
use proto::{Address, SourceName, place_ranges::PlaceRanges};
use roaring::RoaringBitmap;
use tantivy::{HasLen as _, TantivyError};

pub(crate) use self::{
    bounds::ColumnBounds,
    checksummed_file::ChecksumMismatch,
    document_numbers::DocumentNumbers,
    footer::{SplitFacts, SplitOrigin},
    groups::Groups,
    lookup::DecidedValues,
    prune::PartStatistics,
    statistics::TimeBounds,
    totals::Totals,
};
#[cfg(test)]
pub(crate) use self::{bundle::of_newer_version, groups::GroupColumn};
use self::{
    bundle::{Bundle, BundleWriter},
    checksummed_file::ChecksummedFile,
    part::Part,
};
use crate::{
    codec::{NewerVersion, ValueReader},
    document::Document,
    error::Error,
    key_tree::ROOT,
    matches::Matches,
};

/// Raw bytes of the documents that one build holds in memory. The index under construction takes about as much again,
/// and while it is written, without the documents, its packed columns are copied once more.
pub(crate) const PART_BYTES_MAX: usize = 96 << 20;
/// Documents that one build holds in memory.
const PART_DOCUMENTS_MAX: usize = 1_000_000;
/// The numbers of all documents of a part, from which every part takes as many as it has.
static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| (0..PART_DOCUMENTS_MAX as u32).collect());

/// An immutable index over a run of documents. Documents are numbered from 0 in address order.
pub(crate) struct Segment {
    /// Each part with the number of its first document.
    parts: Vec<(u32, Part)>,
    documents: u32,
    bytes: u64,
    file: Option<SegmentFile>,
    uid: u64,
}

/// The segments that this process has opened or built.
static SEGMENTS: AtomicU64 = AtomicU64::new(0);

/// An index part of a segment: an index over some of its documents, one after another.
#[derive(Clone, Copy)]
pub(crate) struct SegmentPart<'a> {
    first: u32,
    part: &'a Part,
}

impl SegmentPart<'_> {
    /// The numbers of its documents in the segment.
    pub(crate) fn documents(&self) -> Range<u32> {
        self.first..self.first + self.part.paths.documents
    }

    /// The documents that match a condition and those that may match, or None if the index knows nothing about it.
    /// They are numbered from 0 at the first document of the part.
    pub(crate) fn find_matches(&self, lookup: &Lookup) -> Result<Option<Matches>, Error> {
        self.part.lookup(lookup)
    }

    /// Where a condition on one column is true, given the documents whose values must be read. It is evaluated once for
    /// each distinct value, by `passes`; None if they are too many, or not known. Documents whose value is not among them
    /// must be read. They are numbered like those of [`find_matches`](Self::find_matches).
    pub(crate) fn decide_values(
        &self,
        column: &Column,
        candidates: &RoaringBitmap,
        passes: impl FnMut(ArrayRef) -> Result<BooleanArray, Error>,
    ) -> Result<Option<DecidedValues>, Error> {
        self.part.decide_values(column, candidates, passes)
    }

    /// Between which values a column lies, or None if that is not known exactly.
    pub(crate) fn bounds(&self, column: &Column, time_path: Option<&Path>) -> Result<Option<ColumnBounds>, Error> {
        self.part.bounds(column, time_path)
    }

    /// Whether the part stores a column, so that its values need not be read from the raw documents.
    pub(crate) fn stores(&self, column: &Column, time_path: Option<&Path>) -> Result<bool, Error> {
        Ok(self.part.values(column, time_path, &[])?.is_some())
    }

    /// Whether a document may match a condition, by the statistics of the part alone.
    pub(crate) fn statistics(&self) -> PartStatistics<'_> {
        PartStatistics(self.part)
    }
}

/// The file of a segment that has one.
struct SegmentFile {
    file: Arc<ChecksummedFile>,
    facts: SplitFacts,
}

/// A condition that an index may decide.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lookup {
    /// The value at the path, read strictly as this type, equals one of the literals.
    In(Path, Type, Vec<Literal>),
    /// The value at the path, read strictly as this type, lies between the bounds. Each bound says whether it is
    /// inclusive; a missing bound is open.
    Range(Path, Type, Option<(Literal, bool)>, Option<(Literal, bool)>),
    /// The value at the path is a string that begins with this text. (A prefix of a token is a [`Self::Search`].)
    StringPrefix(Path, String),
    /// The value at the path is a string that may have a token which contains these lower-case letters.
    Containing(Path, String),
    /// The value at the path, read strictly as this type, is not NULL (as JSON: it is a value other than null).
    Exists(Path, Type),
    /// The value at the path is neither null nor a string.
    NoText(Path),
    /// A search clause matches.
    Search(Clause),
    /// `_id` equals one of these ids.
    Id(Vec<String>),
    /// A header number (`_partition`, `_offset`, `_item`) or a header time in microseconds (`_ingested`, and `_time`
    /// without a time path) lies between the inclusive bounds.
    Header(plan::ColumnSource, i64, i64),
    /// Such a header number or time equals one of these.
    HeaderIn(plan::ColumnSource, Vec<i64>),
    /// `_source` equals this name.
    Source(String),
}

/// A constant in a lookup.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant holds the value of its type")]
pub(crate) enum Literal {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    /// Microseconds since 1970.
    Time(i64),
}

/// The values of a column.
pub(crate) struct ColumnValues {
    /// One value per requested document, in the requested order, of the column's Arrow type.
    pub array: ArrayRef,
    /// Requested documents whose non-null value does not convert to the column's type.
    pub cast_failures: u64,
    /// Requested documents with a non-null value.
    pub present: u64,
}

/// What a segment knows about a path, in all of its parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PathSummary {
    /// The kinds of its values.
    pub kinds: plan::Kinds,
    /// Documents with a non-null value outside of arrays.
    pub documents: u64,
    /// Whether its scalars are in columns.
    pub column: bool,
    /// Whether its strings have postings.
    pub postings: bool,
    /// A value as JSON text, cut to 200 characters.
    pub sample: Option<String>,
}

/// These numbers of documents of a part.
fn numbers(range: Range<u32>) -> Cow<'static, [u32]> {
    match NUMBERS.get(range.start as usize..range.end as usize) {
        Some(numbers) => Cow::Borrowed(numbers),
        None => range.collect(),
    }
}

impl Segment {
    /// Indexes documents in memory. They must be in address order.
    pub(crate) fn in_memory(documents: &[Arc<Document>]) -> Result<Self, Error> {
        let parts = parts_of(documents)
            .map(Part::in_memory)
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = parts.iter().map(Part::memory_bytes).sum();
        Ok(Self::of_parts(parts, bytes, None))
    }

    /// Indexes documents into one new file. They must be in address order.
    ///
    /// When this returns, the file has its final name and is synced. Memory is bounded, however many documents there
    /// are.
    pub(crate) fn to_file(
        documents: &mut dyn Iterator<Item = Result<Arc<Document>, Error>>,
        origin: SplitOrigin,
        file: &FilePath,
    ) -> Result<Self, Error> {
        Self::write_file(file, origin, &mut |parts| {
            let (mut pending, mut pending_bytes) = (Vec::new(), 0);
            for document in &mut *documents {
                let document = document?;
                pending_bytes += document.memory_bytes();
                pending.push(document);
                if pending_bytes >= PART_BYTES_MAX || pending.len() >= PART_DOCUMENTS_MAX {
                    let part = Part::in_memory(&pending)?;
                    pending_bytes = 0;
                    pending.clear();
                    parts.write(&part)?;
                }
            }
            if !pending.is_empty() || parts.written == 0 {
                parts.write(&Part::in_memory(&pending)?)?;
            }
            Ok(())
        })
    }

    /// Writes the parts of these segments, which follow one another in address order, into one new file. When this
    /// returns, the file has its final name and is synced.
    ///
    /// Files are verified first, also what was verified when it was read: the copy of a block that was damaged since then
    /// would have a checksum that matches.
    pub(crate) fn join_to_file(segments: &[&Self], origin: SplitOrigin, file: &FilePath) -> Result<Self, Error> {
        for segment in segments {
            segment.scrub(0, u64::MAX).map_err(part::index_error)?;
        }
        Self::write_file(file, origin, &mut |parts| {
            let mut all = segments.iter().flat_map(|segment| &segment.parts);
            all.try_for_each(|(_, part)| parts.write(part))
        })
    }

    /// Writes a new file and opens it. `write_parts` writes the parts.
    fn write_file(
        file: &FilePath,
        origin: SplitOrigin,
        write_parts: &mut dyn FnMut(&mut PartsWriter) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let file_error = Error::file(file);
        let mut parts = PartsWriter {
            bundle: BundleWriter::create(file).map_err(file_error)?,
            written: 0,
            facts: SplitFacts {
                origin,
                documents: 0,
                builder_level: footer::BUILDER_LEVEL,
                times: TimeBounds::default(),
                hash: 0,
            },
        };
        write_parts(&mut parts)?;
        let PartsWriter {
            mut bundle,
            written,
            facts,
        } = parts;
        bundle
            .entry(PARTS.to_owned(), footer::STORED, |to| {
                to.write_all(&written.to_le_bytes())
            })
            .and_then(|()| bundle.publish(file, facts))
            .map_err(file_error)?;
        let written = Self::open(file)?;
        // The file is still in the page cache, so verifying it now is cheap.
        written.scrub(0, u64::MAX).map_err(file_error)?;
        Ok(written)
    }

    /// Opens a file. Its footer is verified now and every other block when it is first read; a mismatch is an error.
    pub(crate) fn open(file: &FilePath) -> Result<Self, Error> {
        let file_error = Error::file(file);
        let bundle = Bundle::open(file).map_err(file_error)?;
        let count = bundle
            .get(PARTS)
            .and_then(|slice| slice.read_bytes())
            .map_err(file_error)?;
        let count = ValueReader::unversioned(&count)
            .u32()
            .map_err(|e| file_error(e.into()))?;
        let parts = (0..count as usize)
            .map(|number| Part::open(&bundle, number))
            .collect::<Result<Vec<_>, _>>();
        let parts = parts.map_err(|error| {
            let newer = match &error {
                Error::Index(TantivyError::IoError(source)) => NewerVersion::of(source),
                _ => None,
            };
            file_error(match newer {
                Some(newer) => io::Error::other(newer.clone()),
                None => io::Error::other(error.to_string()),
            })
        })?;
        let bytes = bundle.file.len() as u64;
        let Bundle { file, facts, .. } = bundle;
        Ok(Self::of_parts(parts, bytes, Some(SegmentFile { file, facts })))
    }

    fn of_parts(parts: Vec<Part>, bytes: u64, file: Option<SegmentFile>) -> Self {
        let mut documents = 0;
        let numbered = |part: Part| {
            let first = documents;
            documents += part.paths.documents;
            (first, part)
        };
        let parts = parts.into_iter().map(numbered).collect();
        Self {
            parts,
            documents,
            bytes,
            file,
            uid: SEGMENTS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Distinguishes it from all other segments, as long as the process runs.
    pub(crate) fn uid(&self) -> u64 {
        self.uid
    }

    /// Whether it is in a file.
    pub(crate) fn is_stored(&self) -> bool {
        self.file.is_some()
    }

    /// Documents in the segment, including those deleted since it was built.
    pub(crate) fn documents(&self) -> u32 {
        self.documents
    }

    /// Its index parts, in the order of their documents.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = SegmentPart<'_>> {
        self.parts
            .iter()
            .map(|(first, part)| SegmentPart { first: *first, part })
    }

    /// The index part with this number.
    pub(crate) fn part(&self, number: usize) -> SegmentPart<'_> {
        let (first, part) = &self.parts[number];
        SegmentPart { first: *first, part }
    }

    /// Bytes of its file, or of its memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its file says about itself; none in memory.
    pub(crate) fn facts(&self) -> Option<&SplitFacts> {
        self.file.as_ref().map(|on_disk| &on_disk.facts)
    }

    /// Bytes of its file that readers have verified so far.
    #[cfg(test)]
    pub(crate) fn bytes_read(&self) -> u64 {
        self.file.as_ref().map_or(0, |on_disk| on_disk.file.bytes_verified())
    }

    /// Whether its file was found to be damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|on_disk| on_disk.file.damaged().is_some())
    }

    /// Verifies the checksums of its file, starting at block `from`, until `bytes_max` bytes are read.
    ///
    /// Returns the block to continue with, if any is left, and the bytes read.
    pub(crate) fn scrub(&self, from: usize, bytes_max: u64) -> io::Result<(Option<usize>, u64)> {
        self.file
            .as_ref()
            .map_or(Ok((None, 0)), |on_disk| on_disk.file.scrub(from, bytes_max))
    }

    /// Documents of which only the header is indexed: they could not be parsed, or no index could be built with them.
    /// Documents that lack only some of their paths do not count.
    pub(crate) fn unindexed(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.paths.header_only.len()).sum()
    }

    /// The address of a document.
    ///
    /// # Panics
    /// If the segment has no document with this number.
    pub(crate) fn address(&self, document: u32) -> Address {
        let (first, part) = &self.parts[self.parts.partition_point(|(first, _)| *first <= document) - 1];
        part.headers
            .address(document - first)
            .expect("every document belongs to a run")
    }

    /// The number of the document at an address, if the segment holds it.
    pub(crate) fn find(&self, address: &Address) -> Option<u32> {
        self.parts
            .iter()
            .find_map(|(first, part)| part.headers.find(address).map(|document| first + document))
    }

    /// The documents in these ranges of a partition.
    pub(crate) fn find_ranges(&self, source: &SourceName, partition: i32, ranges: &PlaceRanges) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        for (first, part) in &self.parts {
            part.headers.find_ranges(source, partition, ranges, *first, &mut found);
        }
        found
    }

    /// The values of a column for these documents (ascending), or None if they must be read from the raw documents.
    pub(crate) fn values(
        &self,
        column: &Column,
        time_path: Option<&Path>,
        documents: &[u32],
    ) -> Result<Option<ColumnValues>, Error> {
        let values = self
            .parts_with(documents)
            .map(|(part, documents)| part.values(column, time_path, &documents));
        match values.collect::<Result<Option<Vec<_>>, _>>()? {
            Some(values) => join(values),
            None => Ok(None),
        }
    }

    /// Counts these documents (ascending) by their values of some columns, part by part. None if the values of some
    /// documents must be read one by one. With an interval, groups of the only column whose times follow each other and
    /// are in the same interval may be one group, with the first of the times.
    pub(crate) fn count_groups(
        &self,
        columns: &[&Column],
        interval: Option<Interval>,
        documents: &DocumentNumbers,
    ) -> Result<Option<Vec<Groups>>, Error> {
        let count = |(part, documents): (&Part, Cow<[u32]>)| part.count_groups(columns, interval, &documents);
        match documents {
            DocumentNumbers::Range(range) => {
                let parts = self.parts_within(range);
                parts.map(|(_, part, within)| count((part, numbers(within)))).collect()
            }
            DocumentNumbers::List(list) => self.parts_with(list.as_slice()).map(count).collect(),
        }
    }

    /// Counts and sums the values of these columns of these documents, as far as the index knows them. None if it knows
    /// nothing about a column.
    pub(crate) fn totals(&self, columns: &[&Column], documents: &DocumentNumbers) -> Result<Option<Totals>, Error> {
        let mut all = Totals::of_none(columns.len());
        for (first, part, within) in self.parts_within(&documents.span()) {
            let of_part = match documents {
                DocumentNumbers::Range(_) => {
                    let mut all = RoaringBitmap::new();
                    all.insert_range(within);
                    all
                }
                DocumentNumbers::List(list) => {
                    let list = list.as_slice().iter();
                    let of_part = list.filter_map(|document| document.checked_sub(first));
                    of_part.filter(|document| within.contains(document)).collect()
                }
            };
            match part.totals(columns, of_part)? {
                Some(totals) => all.add(first, totals),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// The parts with documents in this range, each with the number of its first document, and the range as it numbers
    /// documents.
    fn parts_within(&self, range: &Range<u32>) -> impl Iterator<Item = (u32, &Part, Range<u32>)> {
        let Range { start, end } = *range;
        self.parts.iter().filter_map(move |(first, part)| {
            let from = start.saturating_sub(*first);
            let to = end.saturating_sub(*first).min(part.paths.documents);
            (from < to).then_some((*first, part, from..to))
        })
    }

    /// The parts that hold these documents (ascending), each with the documents as it numbers them. The first part, if
    /// there are none.
    fn parts_with<'a>(&'a self, documents: &'a [u32]) -> impl Iterator<Item = (&'a Part, Cow<'a, [u32]>)> {
        let mut rest = documents;
        self.parts.iter().filter_map(move |(first, part)| {
            let (here, after) = rest.split_at(rest.partition_point(|document| document - first < part.paths.documents));
            rest = after;
            match here {
                [] if !documents.is_empty() || *first > 0 => None,
                _ if *first == 0 => Some((part, Cow::Borrowed(here))),
                _ => {
                    let are_all = here.len() == part.paths.documents as usize;
                    let shifted = || here.iter().map(|document| document - first).collect();
                    Some((
                        part,
                        if are_all {
                            numbers(0..part.paths.documents)
                        } else {
                            shifted()
                        },
                    ))
                }
            }
        })
    }

    /// The paths of its documents, indexed or not.
    pub(crate) fn paths(&self) -> Vec<(Path, PathSummary)> {
        let mut paths: BTreeMap<Path, PathSummary> = BTreeMap::new();
        for (_, part) in &self.parts {
            for (id, node) in part.paths.nodes.iter() {
                let inside = node.inside.kinds();
                let element = if inside == plan::Kinds::default() {
                    inside
                } else {
                    plan::Kinds::ELEMENT
                };
                let kinds = node.outside.kinds() | inside | element;
                if kinds == plan::Kinds::default() || (id == ROOT && kinds == plan::Kinds::OBJECT) {
                    continue;
                }
                let summary = PathSummary {
                    kinds,
                    documents: node.outside.present(),
                    column: node.column,
                    postings: node.postings,
                    sample: node.sample.clone(),
                };
                paths
                    .entry(part.paths.path(id))
                    .and_modify(|merged| merged.merge(&summary))
                    .or_insert(summary);
            }
        }
        paths.into_iter().collect()
    }

    /// Whether its documents may have paths that [`paths`](Self::paths) does not list.
    pub(crate) fn has_untracked(&self) -> bool {
        self.parts.iter().any(|(_, part)| !part.paths.incomplete().is_empty())
    }
}

/// Writes the parts of a new file, and sums up what they hold.
struct PartsWriter {
    bundle: BundleWriter,
    written: u32,
    facts: SplitFacts,
}

impl PartsWriter {
    fn write(&mut self, part: &Part) -> Result<(), Error> {
        part.write(self.written as usize, &mut self.bundle)?;
        self.written += 1;
        self.facts.documents += u64::from(part.paths.documents);
        self.facts.builder_level = self.facts.builder_level.min(part.paths.builder_level);
        self.facts.times.merge(&part.paths.times);
        Ok(())
    }
}

/// The file of a split, opened only to verify its checksums and not to query it.
pub(crate) struct SplitFile {
    file: Arc<ChecksummedFile>,
}

impl SplitFile {
    /// Opens a file. Fails if its footer is damaged.
    pub(crate) fn open(file: &FilePath) -> io::Result<Self> {
        Ok(Self {
            file: Bundle::open(file)?.file,
        })
    }

    /// Verifies the checksums, starting at block `from`, until `bytes_max` bytes are read.
    ///
    /// Returns the block to continue with, if any is left, and the bytes read. Returns None on a mismatch.
    pub(crate) fn verify(&self, from: usize, bytes_max: u64) -> io::Result<Option<(Option<usize>, u64)>> {
        Ok(self.file.verify(from, bytes_max)?.ok())
    }
}

impl PathSummary {
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

/// The bundle entry that holds the number of parts.
const PARTS: &str = "parts";

/// Cuts documents into slices that one build can hold in memory; returns at least one.
fn parts_of(documents: &[Arc<Document>]) -> impl Iterator<Item = &[Arc<Document>]> {
    let mut rest = Some(documents);
    std::iter::from_fn(move || {
        let here = rest.take()?;
        let mut bytes = 0;
        let fits = |document: &&Arc<Document>| {
            bytes += document.memory_bytes();
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

/// Concatenates the values of consecutive parts.
fn join(parts: Vec<ColumnValues>) -> Result<Option<ColumnValues>, Error> {
    let (cast_failures, present) = parts.iter().fold((0, 0), |(cast_failures, present), values| {
        (cast_failures + values.cast_failures, present + values.present)
    });
    let array = match parts.as_slice() {
        [] => return Ok(None),
        [only] => only.array.clone(),
        several => {
            let arrays: Vec<&dyn Array> = several.iter().map(|values| values.array.as_ref()).collect();
            compute::concat(&arrays)?
        }
    };
    Ok(Some(ColumnValues {
        array,
        cast_failures,
        present,
    }))
}
