//! Stored column: the values of a typed column for some documents.
//!
//! The file stores only values that are there, and finds the document of a value, or the value of a document, by a
//! search within a block. A query that reads many documents needs neither: which documents have a value is decoded once,
//! as a bit for each, and then values and documents are walked through together.

use std::{
    ops::{Deref, Range},
    sync::Arc,
};

use datafusion::arrow::{
    array::BooleanBufferBuilder,
    buffer::{BooleanBuffer, NullBuffer},
};
use tantivy::columnar::{Column, ColumnIndex};

use super::decoded::DecodedSlot;

/// Documents per requested document, up to which all of them are read at once.
const SPARSE_MAX: usize = 8;
/// Requested documents that are worth decoding which documents of the part have a value.
const WORTH_DECODING: usize = 512;

/// A column of one type.
#[derive(Clone)]
pub(super) struct StoredColumn<T> {
    column: Column<T>,
    presence: Arc<Presence>,
}

impl<T> Deref for StoredColumn<T> {
    type Target = Column<T>;

    fn deref(&self) -> &Column<T> {
        &self.column
    }
}

/// Which documents have a value, decoded on first use.
#[derive(Default)]
struct Presence(DecodedSlot<BooleanBuffer>);

impl Presence {
    /// A bit for each document of the part. None if the column has a value for every document, or several for some; or
    /// if the bits are not there yet and so few requested documents are not worth decoding them.
    fn bits(&self, index: &ColumnIndex, requested: usize) -> Option<BooleanBuffer> {
        let ColumnIndex::Optional(optional) = index else {
            return None;
        };
        if let Some(bits) = self.0.get() {
            return Some((*bits).clone());
        }
        let documents = optional.num_docs() as usize;
        if requested < WORTH_DECODING {
            return None;
        }
        let mut bits = BooleanBufferBuilder::new(documents);
        bits.append_n(documents, false);
        optional
            .iter_non_null_docs()
            .for_each(|document| bits.set_bit(document as usize, true));
        let bits = bits.finish();
        self.0.put(Arc::new(bits.clone()), bits.inner().len());
        Some(bits)
    }
}

/// One value for each of some documents.
pub(super) struct DocumentValues<T> {
    /// A document without a value has the type's default.
    pub values: Vec<T>,
    /// Which documents have a value. None if all have one.
    pub present: Option<NullBuffer>,
}

impl<T> DocumentValues<T> {
    fn into_options(self) -> Vec<Option<T>> {
        match self.present {
            None => self.values.into_iter().map(Some).collect(),
            Some(present) => (self.values.into_iter().zip(&present))
                .map(|(value, present)| present.then_some(value))
                .collect(),
        }
    }
}

impl<T> StoredColumn<T>
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    pub(super) fn new(column: Column<T>) -> Self {
        Self {
            column,
            presence: Arc::default(),
        }
    }

    /// The first value of each of these documents, which are ascending.
    pub(super) fn values_of(&self, documents: &[u32]) -> DocumentValues<T> {
        let is_dense = |span: &Range<u32>| span.len() <= documents.len().saturating_mul(SPARSE_MAX);
        let Some(span) = span_of(documents).filter(is_dense) else {
            return values_of(&self.column, documents);
        };
        let Some(bits) = self.presence.bits(&self.column.index, documents.len()) else {
            return values_of(&self.column, documents);
        };
        let present = bits.slice(span.start as usize, span.len());
        let rows = self.column.index.docid_range_to_rowids(span.clone());
        let mut values = vec![T::default(); rows.len()];
        self.column.values.get_range(u64::from(rows.start), &mut values);
        if rows.len() < span.len() {
            let mut spread = vec![T::default(); span.len()];
            for (at, value) in present.set_indices().zip(values) {
                spread[at] = value;
            }
            values = spread;
        }
        if span.len() == documents.len() {
            return DocumentValues {
                values,
                present: (rows.len() < span.len()).then(|| NullBuffer::new(present)),
            };
        }
        let at = |document: &u32| (document - span.start) as usize;
        DocumentValues {
            values: documents.iter().map(|document| values[at(document)]).collect(),
            present: Some(documents.iter().map(|document| present.value(at(document))).collect()),
        }
    }

    /// The same as options.
    pub(super) fn first_values(&self, documents: &[u32]) -> Vec<Option<T>> {
        self.values_of(documents).into_options()
    }

    /// The number of these documents (ascending) that have a value.
    pub(super) fn count_with_value(&self, documents: &[u32]) -> u64 {
        let index = &self.column.index;
        match (index, span_of(documents)) {
            (ColumnIndex::Empty { .. }, _) | (_, None) => 0,
            (ColumnIndex::Full, _) => documents.len() as u64,
            (ColumnIndex::Optional(_), Some(span)) if span.len() == documents.len() => {
                index.docid_range_to_rowids(span).len() as u64
            }
            _ => match self.presence.bits(index, documents.len()) {
                Some(bits) => documents
                    .iter()
                    .filter(|document| bits.value(**document as usize))
                    .count() as u64,
                None => documents.iter().filter(|document| index.has_value(**document)).count() as u64,
            },
        }
    }
}

/// The first value of each of these documents, which are ascending.
fn values_of<T>(column: &Column<T>, documents: &[u32]) -> DocumentValues<T>
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    let span = span_of(documents).filter(|span| span.len() == documents.len());
    let mut values = vec![T::default(); documents.len()];
    let present = match (&column.index, span) {
        (ColumnIndex::Full, Some(span)) => {
            column.values.get_range(u64::from(span.start), &mut values);
            None
        }
        (ColumnIndex::Full, None) => {
            column.values.get_vals(documents, &mut values);
            None
        }
        (ColumnIndex::Optional(_), Some(span)) => {
            let rows = column.index.docid_range_to_rowids(span.clone());
            let mut stored = vec![T::default(); rows.len()];
            column.values.get_range(u64::from(rows.start), &mut stored);
            let mut with_value: Vec<u32> = rows.collect();
            column.index.select_batch_in_place(span.start, &mut with_value);
            let mut present = BooleanBufferBuilder::new(documents.len());
            present.append_n(documents.len(), false);
            for (document, value) in with_value.into_iter().zip(stored) {
                let at = (document - span.start) as usize;
                values[at] = value;
                present.set_bit(at, true);
            }
            Some(NullBuffer::new(present.finish()))
        }
        _ => {
            let mut first = vec![None; documents.len()];
            column.first_vals(documents, &mut first);
            let present = first.iter().map(Option::is_some).collect();
            values = first.into_iter().map(Option::unwrap_or_default).collect();
            Some(present)
        }
    };
    DocumentValues { values, present }
}

/// The first value of each of these documents (ascending) in a column that is read rarely.
pub(super) fn first_values<T>(column: &Column<T>, documents: &[u32]) -> Vec<Option<T>>
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    values_of(column, documents).into_options()
}

/// The range from the first to the last of these documents, which are ascending.
fn span_of(documents: &[u32]) -> Option<Range<u32>> {
    Some(*documents.first()?..*documents.last()? + 1)
}
