//! Values: columns of a part as Arrow arrays. A column is returned only if its values are exactly those of the raw
//! documents.

mod convert;

use std::{io, sync::Arc};

use datafusion::arrow::{
    array::{
        Array, ArrayRef, AsArray as _, BooleanArray, BooleanBufferBuilder, Int64Array, StringViewBuilder,
        new_null_array,
    },
    buffer::BooleanBuffer,
};
use plan::{Column, ColumnSource, Path, PathType, Type};
use roaring::RoaringBitmap;

pub(super) use self::convert::times;
use super::{
    ColumnValues,
    column_name::ColumnKind,
    groups::Codes,
    header::{Headers, PartitionRun},
    part::{Part, index_error},
    path_tree::{ArrayScope, PathNode},
    stored_column::first_values,
};
use crate::error::Error;

/// None if the values must be read from the raw documents.
pub(super) type ColumnResult = Result<Option<ColumnValues>, Error>;

/// The documents of a part whose values are requested, ascending, each once.
#[derive(Clone, Copy)]
pub(super) struct RequestedDocuments<'a> {
    pub documents: &'a [u32],
    /// Whether these are all documents of the part.
    all: bool,
}

impl<'a> RequestedDocuments<'a> {
    /// These documents of a part that has `of` documents.
    pub(super) fn of(documents: &'a [u32], of: u32) -> Self {
        Self {
            documents,
            all: documents.len() == of as usize,
        }
    }

    /// Whether these are all documents of the part.
    pub(super) fn are_all(&self) -> bool {
        self.all
    }

    /// How many of them are in a set.
    pub(super) fn count_in(&self, set: &RoaringBitmap) -> u64 {
        match (set.is_empty(), self.all) {
            (true, _) => 0,
            (false, true) => set.len(),
            (false, false) => self.are_in(set).count_set_bits() as u64,
        }
    }

    /// Which of them are in a set.
    fn are_in(&self, set: &RoaringBitmap) -> BooleanBuffer {
        /// If the requested documents are spread this thinly, looking each one up is faster than iterating over the set.
        const SPAN_PER_DOCUMENT: usize = 8;
        let mut bits = BooleanBufferBuilder::new(self.documents.len());
        bits.append_n(self.documents.len(), false);
        let (Some(first), Some(last)) = (self.documents.first(), self.documents.last()) else {
            return bits.finish();
        };
        let span = (last - first) as usize + 1;
        if span / self.documents.len() >= SPAN_PER_DOCUMENT {
            let is_in = |at: usize| set.contains(self.documents[at]);
            return BooleanBuffer::collect_bool(self.documents.len(), is_in);
        }
        let members = set.range(*first..=*last);
        if span == self.documents.len() {
            members.for_each(|member| bits.set_bit((member - first) as usize, true));
            return bits.finish();
        }
        let mut documents = (0..).zip(self.documents).peekable();
        for member in members {
            while documents.next_if(|(_, document)| **document < member).is_some() {}
            match documents.peek() {
                Some((at, document)) if **document == member => bits.set_bit(*at, true),
                Some(_) => {}
                None => break,
            }
        }
        bits.finish()
    }
}

/// How many requested documents have a value of each kind at a path, outside of arrays.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KindCounts {
    bools: u64,
    ints: u64,
    floats: u64,
    texts: u64,
    long_texts: u64,
    big_numbers: u64,
    nested: u64,
}

impl KindCounts {
    pub(super) fn present(&self) -> u64 {
        self.bools + self.ints + self.floats + self.texts + self.long_texts + self.big_numbers + self.nested
    }

    /// Whether every value has one of these codes or is NULL, as it is read.
    pub(super) fn are_in(&self, codes: &Codes) -> bool {
        let with_code = match codes.kind() {
            ColumnKind::Text => self.texts,
            ColumnKind::Int => self.ints,
            ColumnKind::Float => self.floats,
            ColumnKind::Bool => self.bools,
        };
        with_code == self.present() || (codes.has_all_values() && self.long_texts == 0)
    }
}

impl Part {
    /// The values of a column for these documents (ascending), or None if they must be read from the raw documents.
    pub(super) fn values(&self, column: &Column, time_path: Option<&Path>, documents: &[u32]) -> ColumnResult {
        let requested = RequestedDocuments::of(documents, self.paths.documents);
        match (&column.source, time_path) {
            (ColumnSource::Doc | ColumnSource::Key, _) => Ok(None),
            (ColumnSource::Path(path), _) => self.path_values(path, column.read_as, requested),
            (ColumnSource::Search(clause), _) => self.search_values(clause, requested),
            (ColumnSource::Tokens(path), _) => self.token_counts(path.as_ref(), requested),
            (ColumnSource::Score(score), _) => self.score_values(score, requested),
            (ColumnSource::Time, Some(path)) => self.event_times(path, requested),
            (source, _) => self.header_values(source, requested),
        }
    }

    fn header_values(&self, source: &ColumnSource, requested: RequestedDocuments) -> ColumnResult {
        let headers = &self.headers;
        let ints = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let array = match source {
            ColumnSource::Offset => ints(first_values(&headers.offset, requested.documents)),
            ColumnSource::Item => ints(
                first_values(&headers.item, requested.documents)
                    .into_iter()
                    .map(|item| item.or(Some(0)))
                    .collect(),
            ),
            ColumnSource::Partition => ints(self.map_runs(requested, |run| i64::from(run.partition))),
            ColumnSource::Ingested => times(ingested(headers, requested.documents).map_err(index_error)?),
            ColumnSource::Time => times(record_times(headers, requested.documents).map_err(index_error)?),
            ColumnSource::Source => self.sources(requested),
            ColumnSource::Id => self.ids(requested)?,
            _ => return Ok(None),
        };
        Ok(Some(without_cast_failures(array)))
    }

    fn map_runs<T>(&self, requested: RequestedDocuments, value: impl Fn(&PartitionRun) -> T) -> Vec<Option<T>> {
        requested
            .documents
            .iter()
            .map(|document| self.headers.run(*document).map(&value))
            .collect()
    }

    fn sources(&self, requested: RequestedDocuments) -> ArrayRef {
        let mut values = StringViewBuilder::with_capacity(requested.documents.len()).with_deduplicate_strings();
        requested
            .documents
            .iter()
            .for_each(|document| values.append_option(self.headers.run(*document).map(|run| run.source.as_str())));
        Arc::new(values.finish())
    }

    fn ids(&self, requested: RequestedDocuments) -> Result<ArrayRef, Error> {
        let id = self.headers.id().map_err(index_error)?;
        let own = id.ordinals.first_values(requested.documents);
        if own.iter().all(Option::is_some) && !own.is_empty() {
            return id.values(&own);
        }
        let own = id.values(&own)?;
        let mut values = StringViewBuilder::with_capacity(requested.documents.len());
        for (document, own) in requested.documents.iter().zip(own.as_string_view()) {
            match (own, self.headers.address(*document)) {
                (Some(own), _) => values.append_value(own),
                (None, Some(address)) => values.append_value(address.to_string()),
                (None, None) => values.append_null(),
            }
        }
        Ok(Arc::new(values.finish()))
    }

    /// Whether a clause matches, which is never NULL. Candidates must be decided by the raw documents.
    fn search_values(&self, clause: &plan::search::Clause, requested: RequestedDocuments) -> ColumnResult {
        let matches = self.search(clause)?;
        let Some(matches) = matches.as_ref() else {
            return Ok(None);
        };
        if requested.count_in(&matches.candidates) > 0 {
            return Ok(None);
        }
        let values = BooleanArray::new(requested.are_in(&matches.certain), None);
        Ok(Some(without_cast_failures(Arc::new(values))))
    }

    fn path_values(&self, path: &Path, target: PathType, requested: RequestedDocuments) -> ColumnResult {
        let Some(keys) = path.keys() else {
            return self.indexed_path_values(path, target, requested);
        };
        match self.paths.find(keys) {
            Some(id) => self.node_values(id, target, requested),
            None => Ok(self.nulls_if_absent(target, requested)),
        }
    }

    /// The values of a path with array indexes. They are known only if no requested document has an array at the
    /// longest prefix of keys: then all are NULL.
    fn indexed_path_values(&self, path: &Path, target: PathType, requested: RequestedDocuments) -> ColumnResult {
        let prefix = Path::new(
            path.steps()
                .iter()
                .take_while(|step| matches!(step, plan::path::Step::Key(_)))
                .cloned()
                .collect(),
        );
        let arrays = prefix
            .keys()
            .and_then(|keys| self.paths.find(keys))
            .map_or(0, |id| requested.count_in(&self.node(id).outside.arrays));
        Ok(if arrays == 0 {
            self.nulls_if_absent(target, requested)
        } else {
            None
        })
    }

    /// NULL for all documents, for a path that is not in the path tree. None if a requested document may have values at
    /// such paths.
    fn nulls_if_absent(&self, target: PathType, requested: RequestedDocuments) -> Option<ColumnValues> {
        let unknown = requested.count_in(&self.paths.header_only) + requested.count_in(&self.paths.untracked);
        (unknown == 0).then(|| nulls(target, requested))
    }

    pub(super) fn count_kinds(&self, id: u32, requested: RequestedDocuments) -> Result<KindCounts, Error> {
        let ArrayScope {
            bools,
            ints,
            floats,
            texts,
            long_texts,
            big_numbers,
            arrays,
            objects,
            ..
        } = &self.node(id).outside;
        let (columns, documents) = (&self.columns, requested.documents);
        // `all` is the number of values in the column.
        let count_of = |all: u32, count: &dyn Fn() -> io::Result<u64>| match all {
            0 => Ok(0),
            _ if requested.all => Ok(u64::from(all)),
            _ => count().map_err(index_error),
        };
        Ok(KindCounts {
            bools: count_of(*bools, &|| Ok(columns.bools(id, false)?.count_with_value(documents)))?,
            ints: count_of(*ints, &|| Ok(columns.ints(id, false)?.count_with_value(documents)))?,
            floats: count_of(*floats, &|| Ok(columns.floats(id, false)?.count_with_value(documents)))?,
            texts: count_of(*texts, &|| {
                Ok(columns.texts(id, false)?.ordinals.count_with_value(documents))
            })?,
            long_texts: requested.count_in(long_texts),
            big_numbers: requested.count_in(big_numbers),
            nested: requested.count_in(arrays) + requested.count_in(objects),
        })
    }

    fn node_values(&self, id: u32, target: PathType, requested: RequestedDocuments) -> ColumnResult {
        let PathNode { outside, column, .. } = self.node(id);
        if outside.present() == 0 {
            let all_indexed = requested.count_in(&self.paths.header_only) == 0;
            return Ok(all_indexed.then(|| nulls(target, requested)));
        }
        if !column || requested.count_in(&self.paths.header_only) > 0 {
            return Ok(None);
        }
        let kinds = self.count_kinds(id, requested)?;
        if kinds.present() == 0 {
            return Ok(Some(nulls(target, requested)));
        }
        let array = self.converted(id, target, &kinds, requested)?;
        let non_null = |array: &ArrayRef| (array.len() - array.null_count()) as u64;
        Ok(array.map(|array| ColumnValues {
            cast_failures: kinds.present() - non_null(&array),
            present: kinds.present(),
            array,
        }))
    }

    /// `_time`: the time at the collection's time path or, if it has none, the time of the header.
    fn event_times(&self, path: &Path, requested: RequestedDocuments) -> ColumnResult {
        let none = || vec![None; requested.documents.len()];
        let target = PathType {
            to: Type::Time,
            cast: true,
        };
        let by_path = match path.keys().map(|keys| self.paths.find(keys)) {
            None => return Ok(None),
            Some(None) => self.nulls_if_absent(target, requested).map(|_| none()),
            Some(Some(id)) if self.node(id).outside.present() == 0 => {
                (requested.count_in(&self.paths.header_only) == 0).then(none)
            }
            Some(Some(id)) if !self.node(id).column || requested.count_in(&self.paths.header_only) > 0 => None,
            Some(Some(id)) => self.time_values(id, true, &self.count_kinds(id, requested)?, requested)?,
        };
        let Some(by_path) = by_path else { return Ok(None) };
        let by_header = record_times(&self.headers, requested.documents).map_err(index_error)?;
        Ok(Some(without_cast_failures(times(
            by_path
                .into_iter()
                .zip(by_header)
                .map(|(path, header)| path.or(header))
                .collect(),
        ))))
    }
}

pub(super) fn micros(ms: i64) -> i64 {
    ms.saturating_mul(1_000)
}

fn ingested(headers: &Headers, documents: &[u32]) -> io::Result<Vec<Option<i64>>> {
    Ok(first_values(headers.ingested()?, documents)
        .into_iter()
        .map(|ms| ms.map(micros))
        .collect())
}

/// The record's time or, if it has none, the time of ingestion.
fn record_times(headers: &Headers, documents: &[u32]) -> io::Result<Vec<Option<i64>>> {
    let stamped = first_values(headers.time()?, documents);
    Ok(stamped
        .into_iter()
        .zip(ingested(headers, documents)?)
        .map(|(stamped, ingested)| stamped.map(micros).or(ingested))
        .collect())
}

/// NULL for all documents, without cast failures.
fn nulls(target: PathType, requested: RequestedDocuments) -> ColumnValues {
    ColumnValues {
        array: new_null_array(&target.to.arrow(), requested.documents.len()),
        cast_failures: 0,
        present: 0,
    }
}

/// Values that all have the column's type.
pub(super) fn without_cast_failures(array: ArrayRef) -> ColumnValues {
    let present = (array.len() - array.null_count()) as u64;
    ColumnValues {
        array,
        cast_failures: 0,
        present,
    }
}
