//! Columns: the typed columns of a part, opened when first asked for and kept open.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::arrow::{
    array::{Array, ArrayRef, StringViewArray, StringViewBuilder, UInt32Array},
    compute,
};
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use tantivy::columnar::{Column, ColumnIndex, ColumnarReader, DynamicColumn, StrColumn};

use super::record::{ColumnName, Kind};
use crate::{error::Error, raw};

/// Bytes of dictionaries that are kept unpacked in this process.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
static UNPACKED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Rows that are looked at at once.
const BLOCK_ROWS: usize = 1_024;

/// The columns of a part.
pub(super) struct Columns {
    reader: ColumnarReader,
    opened: RwLock<HashMap<(u32, Kind, bool), Opened>>,
}

#[derive(Clone)]
enum Opened {
    Bool(Column<bool>),
    Int(Column<i64>),
    Float(Column<f64>),
    Text(Arc<TextColumn>),
}

impl Columns {
    pub fn new(reader: ColumnarReader) -> Self {
        Self {
            reader,
            opened: RwLock::default(),
        }
    }

    pub fn bools(&self, path: u32, inside: bool) -> io::Result<Column<bool>> {
        match self.open(path, Kind::Bool, inside)? {
            Opened::Bool(column) => Ok(column),
            _ => Err(missing(path, Kind::Bool, inside)),
        }
    }

    pub fn ints(&self, path: u32, inside: bool) -> io::Result<Column<i64>> {
        match self.open(path, Kind::Int, inside)? {
            Opened::Int(column) => Ok(column),
            _ => Err(missing(path, Kind::Int, inside)),
        }
    }

    pub fn floats(&self, path: u32, inside: bool) -> io::Result<Column<f64>> {
        match self.open(path, Kind::Float, inside)? {
            Opened::Float(column) => Ok(column),
            _ => Err(missing(path, Kind::Float, inside)),
        }
    }

    pub fn texts(&self, path: u32, inside: bool) -> io::Result<Arc<TextColumn>> {
        match self.open(path, Kind::Text, inside)? {
            Opened::Text(column) => Ok(column),
            _ => Err(missing(path, Kind::Text, inside)),
        }
    }

    /// A column that the shape says is there.
    fn open(&self, path: u32, kind: Kind, inside: bool) -> io::Result<Opened> {
        if let Some(opened) = self.opened.read().get(&(path, kind, inside)) {
            return Ok(opened.clone());
        }
        let handles = self.reader.read_columns(ColumnName::new(path, kind, inside).as_str())?;
        let handle = handles.first().ok_or_else(|| missing(path, kind, inside))?;
        let opened = match handle.open()? {
            DynamicColumn::Bool(column) => Opened::Bool(column),
            DynamicColumn::I64(column) => Opened::Int(column),
            DynamicColumn::F64(column) => Opened::Float(column),
            DynamicColumn::Str(column) => Opened::Text(Arc::new(TextColumn::new(column))),
            _ => return Err(missing(path, kind, inside)),
        };
        Ok(self
            .opened
            .write()
            .entry((path, kind, inside))
            .or_insert(opened)
            .clone())
    }
}

fn missing(path: u32, kind: Kind, inside: bool) -> io::Error {
    let side = if inside { "inside" } else { "outside" };
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a split lacks the {kind:?} column of path {path}, {side} of arrays"),
    )
}

/// The first values of these documents.
pub(super) fn firsts<T: Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static>(
    column: &Column<T>,
    documents: &[u32],
) -> Vec<Option<T>> {
    let mut values = vec![None; documents.len()];
    column.first_vals(documents, &mut values);
    values
}

/// The documents that have a value.
pub(super) fn documents_with(index: &ColumnIndex, documents: u32) -> RoaringBitmap {
    match index {
        ColumnIndex::Empty { .. } => RoaringBitmap::new(),
        ColumnIndex::Full => range(0..documents),
        ColumnIndex::Optional(optional) => optional.iter_non_null_docs().collect(),
        several @ ColumnIndex::Multivalued(_) => {
            (0..documents).filter(|document| several.has_value(*document)).collect()
        }
    }
}

/// The documents that have a value for which this holds.
pub(super) fn documents_where<T>(column: &Column<T>, holds: impl Fn(T) -> bool) -> RoaringBitmap
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    let rows = column.values.num_vals();
    let (mut block, mut at) = ([T::default(); BLOCK_ROWS], 0);
    let mut hits = Vec::new();
    while at < rows {
        let length = BLOCK_ROWS.min((rows - at) as usize);
        column.values.get_range(u64::from(at), &mut block[..length]);
        hits.extend(
            (at..)
                .zip(&block[..length])
                .filter(|(_, value)| holds(**value))
                .map(|(row, _)| row),
        );
        at += length as u32;
    }
    column.index.select_batch_in_place(0, &mut hits);
    sorted(hits)
}

/// A range of documents.
pub(super) fn range(documents: std::ops::Range<u32>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(documents);
    all
}

/// Documents as they come out of a column: ascending.
pub(super) fn sorted(documents: Vec<u32>) -> RoaringBitmap {
    RoaringBitmap::from_sorted_iter(documents.iter().copied()).unwrap_or_else(|_| documents.into_iter().collect())
}

/// A column of strings: ordinals of a sorted dictionary.
pub(super) struct TextColumn {
    pub column: StrColumn,
    unpacked: OnceLock<Arc<StringViewArray>>,
    /// The times that the values spell.
    times: OnceLock<Arc<[Option<i64>]>>,
}

impl Drop for TextColumn {
    fn drop(&mut self) {
        let unpacked = self.unpacked.get().map_or(0, |values| values.get_array_memory_size());
        let times: usize = self.times.get().map_or(0, |times| size_of_val(&**times));
        UNPACKED_BYTES.fetch_sub(unpacked + times, Ordering::Relaxed);
    }
}

/// Keeps a value, if that many bytes are still free.
fn keep<T>(place: &OnceLock<T>, value: T, bytes: usize) {
    let fits = UNPACKED_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes <= UNPACKED_BYTES_MAX;
    if !fits || place.set(value).is_err() {
        UNPACKED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl TextColumn {
    pub fn new(column: StrColumn) -> Self {
        Self {
            column,
            unpacked: OnceLock::new(),
            times: OnceLock::new(),
        }
    }

    /// Distinct values.
    pub fn distinct(&self) -> usize {
        self.column.num_terms()
    }

    /// Calls with every distinct value in order, with its ordinal.
    pub fn for_each(&self, mut call: impl FnMut(u64, &str)) -> io::Result<()> {
        let mut stream = self.column.dictionary().stream()?;
        let mut ordinal = 0;
        while stream.advance() {
            call(ordinal, text(stream.key())?);
            ordinal += 1;
        }
        Ok(())
    }

    /// All distinct values by ordinal.
    pub fn unpacked(&self) -> io::Result<Arc<StringViewArray>> {
        if let Some(unpacked) = self.unpacked.get() {
            return Ok(unpacked.clone());
        }
        let mut values = StringViewBuilder::with_capacity(self.distinct());
        self.for_each(|_, value| values.append_value(value))?;
        let values = Arc::new(values.finish());
        keep(&self.unpacked, values.clone(), values.get_array_memory_size());
        Ok(values)
    }

    /// The times that the distinct values spell, in microseconds since 1970, by ordinal.
    pub fn times(&self) -> io::Result<Arc<[Option<i64>]>> {
        if let Some(times) = self.times.get() {
            return Ok(times.clone());
        }
        let mut times = Vec::with_capacity(self.distinct());
        self.for_each(|_, value| times.push(raw::time_of_text(value)))?;
        let times: Arc<[Option<i64>]> = times.into();
        keep(&self.times, times.clone(), size_of_val(&*times));
        Ok(times)
    }

    /// Converts the values of these ordinals, each distinct one once, and calls with every place that has one.
    pub fn convert<T: Clone>(
        &self,
        ordinals: &[Option<u64>],
        convert: impl Fn(&str) -> Option<T>,
        mut set: impl FnMut(usize, Option<T>),
    ) -> io::Result<()> {
        let distinct = distinct(ordinals);
        let mut converted = Vec::with_capacity(distinct.len());
        self.column.dictionary().sorted_ords_to_term_cb(&distinct, |value| {
            converted.push(std::str::from_utf8(value).ok().and_then(&convert))
        })?;
        for (place, ordinal) in ordinals.iter().enumerate() {
            if let Some(at) = ordinal.and_then(|ordinal| distinct.binary_search(&ordinal).ok()) {
                set(place, converted.get(at).cloned().flatten());
            }
        }
        Ok(())
    }

    /// The values of these ordinals, as views into one buffer of the distinct ones.
    pub fn values(&self, ordinals: &[Option<u64>]) -> Result<ArrayRef, Error> {
        const DENSE: usize = 4;
        if self.unpacked.get().is_some() || self.distinct() <= ordinals.len().saturating_mul(DENSE) {
            let indices: UInt32Array = ordinals
                .iter()
                .map(|ordinal| ordinal.and_then(|o| u32::try_from(o).ok()))
                .collect();
            return Ok(compute::take(
                &*self.unpacked().map_err(tantivy::TantivyError::from)?,
                &indices,
                None,
            )?);
        }
        let distinct = distinct(ordinals);
        let mut values = StringViewBuilder::with_capacity(distinct.len());
        let mut invalid = false;
        let all =
            self.column
                .dictionary()
                .sorted_ords_to_term_cb(&distinct, |value| match std::str::from_utf8(value) {
                    Ok(value) => values.append_value(value),
                    Err(_) => invalid = true,
                });
        if invalid || !all.map_err(tantivy::TantivyError::from)? {
            return Err(tantivy::TantivyError::InternalError("a dictionary of a split lacks a value".into()).into());
        }
        let place = |ordinal: &u64| {
            distinct
                .binary_search(ordinal)
                .ok()
                .and_then(|place| u32::try_from(place).ok())
        };
        let indices: UInt32Array = ordinals
            .iter()
            .map(|ordinal| ordinal.as_ref().and_then(place))
            .collect();
        Ok(compute::take(&values.finish(), &indices, None)?)
    }

    /// The documents whose value is one of these ordinals.
    pub fn documents(&self, ordinals: &RoaringBitmap) -> RoaringBitmap {
        const RANGES_MAX: u64 = 4;
        let mut found = RoaringBitmap::new();
        if ordinals.len() <= RANGES_MAX {
            let mut hits = Vec::new();
            for ordinal in ordinals {
                self.range(u64::from(ordinal)..u64::from(ordinal) + 1, &mut hits, &mut found);
            }
            return found;
        }
        let mut set = vec![0u64; self.distinct() / 64 + 1];
        ordinals
            .iter()
            .for_each(|ordinal| set[ordinal as usize / 64] |= 1 << (ordinal % 64));
        documents_where(self.column.ords(), |ordinal| {
            set[ordinal as usize / 64] >> (ordinal % 64) & 1 == 1
        })
    }

    /// Ordinals are dense, so a range of existing ones lies within the column's bounds.
    fn range(&self, ordinals: std::ops::Range<u64>, hits: &mut Vec<u32>, found: &mut RoaringBitmap) {
        let ords = self.column.ords();
        hits.clear();
        ords.get_docids_for_value_range(ordinals.start..=ordinals.end - 1, 0..ords.num_docs(), hits);
        *found |= sorted(std::mem::take(hits));
    }

    /// The documents whose value's ordinal lies here.
    pub fn documents_in(&self, ordinals: std::ops::Range<u64>) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        if ordinals.start < ordinals.end {
            self.range(ordinals, &mut Vec::new(), &mut found);
        }
        found
    }

    /// The documents that have a value for which this holds.
    pub fn documents_matching(&self, holds: impl Fn(&str) -> bool) -> io::Result<RoaringBitmap> {
        let mut ordinals = Vec::new();
        self.for_each(|ordinal, value| {
            if holds(value) {
                ordinals.push(ordinal as u32);
            }
        })?;
        Ok(self.documents(&ordinals.into_iter().collect()))
    }

    /// The documents that have a value that begins so.
    pub fn documents_beginning(&self, prefix: &str) -> io::Result<RoaringBitmap> {
        let start = self.lower_bound(prefix)?;
        let mut stream = self.column.dictionary().prefix_range(prefix).into_stream()?;
        let mut end = start;
        while stream.advance() {
            end += 1;
        }
        Ok(self.documents_in(start..end))
    }

    /// The ordinal of the first value that is not less.
    pub fn lower_bound(&self, value: &str) -> io::Result<u64> {
        use tantivy::columnar::TermOrdHit;
        let distinct = self.distinct() as u64;
        Ok(match self.column.dictionary().term_ord_or_next(value)? {
            TermOrdHit::Exact(ordinal) | TermOrdHit::Next(ordinal) => ordinal.min(distinct),
        })
    }

    /// The ordinal of a value.
    pub fn ordinal(&self, value: &str) -> io::Result<Option<u64>> {
        self.column.dictionary().term_ord(value)
    }
}

/// The ordinals, each once, ascending.
fn distinct(ordinals: &[Option<u64>]) -> Vec<u64> {
    let mut distinct: Vec<u64> = ordinals.iter().copied().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
