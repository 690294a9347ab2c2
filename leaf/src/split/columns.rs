//! Columns: the typed columns of a part. Each is opened on first use and stays open.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanBufferBuilder, StringViewArray, StringViewBuilder, UInt32Array},
    buffer::BooleanBuffer,
    compute,
};
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use tantivy::columnar::{Column, ColumnIndex, ColumnarReader, DynamicColumn};

use super::{
    column_name::{ColumnKind, ColumnName},
    decoded::DecodedSlot,
    dictionaries::{Dictionaries, TextDictionary},
    stored_column::{DocumentValues, StoredColumn},
};
use crate::{error::Error, raw};

/// Rows per read of a column.
const BLOCK_ROWS: usize = 1_024;
/// Distinct values that are decoded in the time in which one is looked up, at least.
const LOOKUP_VALUES: usize = 16;
/// Bytes of the distinct values of a column that are decoded at once. Cached are up to twice as many for all columns.
const DECODED_TEXT_BYTES_MAX: usize = 128 << 20;

/// The columns of a part.
pub(super) struct Columns {
    reader: ColumnarReader,
    /// None if the text columns have their dictionaries.
    dictionaries: Option<Arc<Dictionaries>>,
    opened: RwLock<HashMap<(u32, ColumnKind, bool), OpenColumn>>,
}

#[derive(Clone)]
enum OpenColumn {
    Bool(StoredColumn<bool>),
    Int(StoredColumn<i64>),
    Float(StoredColumn<f64>),
    Text(Arc<TextColumn>),
}

impl Columns {
    pub(super) fn new(reader: ColumnarReader, dictionaries: Option<Arc<Dictionaries>>) -> Self {
        Self {
            reader,
            dictionaries,
            opened: RwLock::default(),
        }
    }

    pub(super) fn bools(&self, path: u32, inside: bool) -> io::Result<StoredColumn<bool>> {
        match self.open(path, ColumnKind::Bool, inside)? {
            OpenColumn::Bool(column) => Ok(column),
            _ => Err(missing(path, ColumnKind::Bool, inside)),
        }
    }

    pub(super) fn ints(&self, path: u32, inside: bool) -> io::Result<StoredColumn<i64>> {
        match self.open(path, ColumnKind::Int, inside)? {
            OpenColumn::Int(column) => Ok(column),
            _ => Err(missing(path, ColumnKind::Int, inside)),
        }
    }

    pub(super) fn floats(&self, path: u32, inside: bool) -> io::Result<StoredColumn<f64>> {
        match self.open(path, ColumnKind::Float, inside)? {
            OpenColumn::Float(column) => Ok(column),
            _ => Err(missing(path, ColumnKind::Float, inside)),
        }
    }

    pub(super) fn texts(&self, path: u32, inside: bool) -> io::Result<Arc<TextColumn>> {
        match self.open(path, ColumnKind::Text, inside)? {
            OpenColumn::Text(column) => Ok(column),
            _ => Err(missing(path, ColumnKind::Text, inside)),
        }
    }

    /// Opens a column that the path tree lists.
    fn open(&self, path: u32, kind: ColumnKind, inside: bool) -> io::Result<OpenColumn> {
        if let Some(opened) = self.opened.read().get(&(path, kind, inside)) {
            return Ok(opened.clone());
        }
        let name = ColumnName::new(path, kind, inside);
        let handles = self.reader.read_columns(name.as_str())?;
        let handle = handles.first().ok_or_else(|| missing(path, kind, inside))?;
        let opened = match handle.open()? {
            DynamicColumn::Bool(column) => OpenColumn::Bool(StoredColumn::new(column)),
            DynamicColumn::I64(column) => OpenColumn::Int(StoredColumn::new(column)),
            DynamicColumn::F64(column) => OpenColumn::Float(StoredColumn::new(column)),
            column => {
                let column = TextColumn::open(column, name.as_str(), self.dictionaries.as_deref())?;
                OpenColumn::Text(Arc::new(column.ok_or_else(|| missing(path, kind, inside))?))
            }
        };
        Ok(self
            .opened
            .write()
            .entry((path, kind, inside))
            .or_insert(opened)
            .clone())
    }
}

fn missing(path: u32, kind: ColumnKind, inside: bool) -> io::Error {
    let scope = if inside { "inside" } else { "outside" };
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the split has no {kind:?} column for path {path} {scope} of arrays"),
    )
}

/// The documents with a value.
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

/// The documents with a value for which `holds` is true.
pub(super) fn documents_where<T>(column: &Column<T>, holds: impl Fn(T) -> bool) -> RoaringBitmap
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    /// Rows per hit, up to which all documents with a value are read instead of looking for those of the hits.
    const SPARSE_MIN: usize = 16;
    let rows = column.values.num_vals() as usize;
    let (mut block, mut hits) = ([T::default(); BLOCK_ROWS], BooleanBufferBuilder::new(rows));
    for at in (0..rows).step_by(BLOCK_ROWS) {
        let block = &mut block[..BLOCK_ROWS.min(rows - at)];
        column.values.get_range(at as u64, block);
        hits.append_buffer(&BooleanBuffer::collect_bool(block.len(), |row| holds(block[row])));
    }
    let hits = hits.finish();
    match &column.index {
        ColumnIndex::Full => RoaringBitmap::from_lsb0_bytes(0, hits.values()),
        ColumnIndex::Optional(optional) if hits.count_set_bits() * SPARSE_MIN > rows => {
            let mut documents = BooleanBufferBuilder::new(optional.num_docs() as usize);
            documents.append_n(optional.num_docs() as usize, false);
            let with_hits = optional.iter_non_null_docs().zip(&hits).filter(|(_, hit)| *hit);
            with_hits.for_each(|(document, _)| documents.set_bit(document as usize, true));
            RoaringBitmap::from_lsb0_bytes(0, documents.finish().values())
        }
        _ => {
            let mut hits: Vec<u32> = hits.set_indices_u32().collect();
            column.index.select_batch_in_place(0, &mut hits);
            sorted(hits)
        }
    }
}

/// The documents with a value whose code is one of these.
pub(super) fn documents_with_codes<T>(
    column: &Column<T>,
    codes: &BooleanBuffer,
    code: impl Fn(T) -> u64,
) -> RoaringBitmap
where
    T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    documents_where(column, |value| codes.value(code(value) as usize))
}

pub(super) fn range(documents: std::ops::Range<u32>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(documents);
    all
}

/// Collects documents read from a column, which usually are ascending.
pub(super) fn sorted(documents: Vec<u32>) -> RoaringBitmap {
    /// A set with more than one in this many documents is built from bits.
    const DOCUMENTS_PER_MEMBER: usize = 32;
    match documents.iter().max() {
        Some(last) if documents.len() * DOCUMENTS_PER_MEMBER > *last as usize => {
            let mut bits = vec![0_u8; *last as usize / 8 + 1];
            for document in documents {
                bits[document as usize / 8] |= 1 << (document % 8);
            }
            RoaringBitmap::from_lsb0_bytes(0, &bits)
        }
        _ => RoaringBitmap::from_sorted_iter(documents.iter().copied())
            .unwrap_or_else(|_| documents.into_iter().collect()),
    }
}

/// A column of strings: ordinals of a sorted dictionary.
pub(super) struct TextColumn {
    dictionary: Arc<TextDictionary>,
    pub ordinals: StoredColumn<u64>,
    decoded: DecodedSlot<StringViewArray>,
    /// Rows whose values were looked up one by one since the dictionary was last decoded.
    looked_up: AtomicUsize,
    /// Whether its values take more than [`DECODED_TEXT_BYTES_MAX`].
    is_large: AtomicBool,
    /// How many documents have each value and, at the end, none: of [`Codes`](super::groups::Codes).
    pub counts: DecodedSlot<Vec<u32>>,
    /// The distinct values parsed as times.
    times: DecodedSlot<Vec<Option<i64>>>,
    bounds: OnceLock<Option<(String, String)>>,
    time_bounds: OnceLock<(Option<(i64, i64)>, bool)>,
    times_ascend: OnceLock<bool>,
}

impl TextColumn {
    /// Opens a column that has its dictionary, or whose dictionary is among these. None if it is not one of text.
    pub(super) fn open(
        column: DynamicColumn,
        name: &str,
        dictionaries: Option<&Dictionaries>,
    ) -> io::Result<Option<Self>> {
        Ok(match (column, dictionaries) {
            (DynamicColumn::Str(column), _) => {
                let (dictionary, ordinals) = column.into_parts();
                Some(Self::new(dictionary, ordinals))
            }
            (DynamicColumn::U64(ordinals), Some(dictionaries)) => Some(Self::new(dictionaries.get(name)?, ordinals)),
            _ => None,
        })
    }

    fn new(dictionary: Arc<TextDictionary>, ordinals: Column<u64>) -> Self {
        Self {
            dictionary,
            ordinals: StoredColumn::new(ordinals),
            decoded: DecodedSlot::default(),
            looked_up: AtomicUsize::new(0),
            is_large: AtomicBool::new(false),
            times: DecodedSlot::default(),
            counts: DecodedSlot::default(),
            bounds: OnceLock::new(),
            time_bounds: OnceLock::new(),
            times_ascend: OnceLock::new(),
        }
    }

    /// The number of distinct values.
    pub(super) fn distinct(&self) -> usize {
        self.dictionary.num_terms()
    }

    /// Calls `visit` with the ordinal and text of every distinct value, in order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(u64, &str)) -> io::Result<()> {
        let mut stream = self.dictionary.stream()?;
        let mut ordinal = 0;
        while stream.advance() {
            visit(ordinal, text(stream.key())?);
            ordinal += 1;
        }
        Ok(())
    }

    /// All distinct values, indexed by ordinal, for a request of so many rows. None if looking these up costs less.
    ///
    /// A lookup decompresses a block of the dictionary for each row, so that rows of many batches cost much more than
    /// the whole dictionary does. It is decoded when as many were looked up as cost the same: the next ones are then
    /// likely.
    fn decoded(&self, rows: usize) -> io::Result<Option<Arc<StringViewArray>>> {
        if let Some(decoded) = self.decoded.get() {
            return Ok(Some(decoded));
        }
        let rows = rows.saturating_add(self.looked_up.fetch_add(rows, Ordering::Relaxed));
        if self.distinct() > rows.saturating_mul(LOOKUP_VALUES) || self.is_large.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.looked_up.store(0, Ordering::Relaxed);
        let mut values = StringViewBuilder::with_capacity(self.distinct());
        let (mut stream, mut bytes) = (self.dictionary.stream()?, 0);
        while stream.advance() {
            bytes += stream.key().len();
            if bytes > DECODED_TEXT_BYTES_MAX {
                self.is_large.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            values.append_value(text(stream.key())?);
        }
        let values = Arc::new(values.finish());
        self.decoded.put(values.clone(), values.get_array_memory_size());
        Ok(Some(values))
    }

    /// The distinct values parsed as times in microseconds since 1970, indexed by ordinal.
    pub(super) fn times(&self) -> io::Result<Arc<Vec<Option<i64>>>> {
        if let Some(times) = self.times.get() {
            return Ok(times);
        }
        let mut times = Vec::with_capacity(self.distinct());
        self.for_each(|_, value| times.push(raw::time_of_text(value)))?;
        let times = Arc::new(times);
        self.times.put(times.clone(), size_of_val(&times[..]));
        Ok(times)
    }

    /// The first and the last of the distinct values, if there is any.
    pub(super) fn bounds(&self) -> io::Result<&Option<(String, String)>> {
        if let Some(bounds) = self.bounds.get() {
            return Ok(bounds);
        }
        let value = |ordinal: usize| {
            let mut value = Vec::new();
            self.dictionary.ord_to_term(ordinal as u64, &mut value)?;
            String::from_utf8(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        };
        let bounds = match self.distinct() {
            0 => None,
            distinct => Some((value(0)?, value(distinct - 1)?)),
        };
        Ok(self.bounds.get_or_init(|| bounds))
    }

    /// The earliest and the latest time in microseconds since 1970 among the distinct values, if any is a time; and
    /// whether all are times.
    pub(super) fn time_bounds(&self) -> io::Result<(Option<(i64, i64)>, bool)> {
        if let Some(bounds) = self.time_bounds.get() {
            return Ok(*bounds);
        }
        let times = self.times()?;
        let known = || times.iter().flatten().copied();
        let bounds = (known().min().zip(known().max()), times.iter().all(Option::is_some));
        Ok(*self.time_bounds.get_or_init(|| bounds))
    }

    /// Whether the distinct values are all times, which ascend like the values.
    pub(super) fn times_ascend(&self) -> io::Result<bool> {
        if let Some(ascend) = self.times_ascend.get() {
            return Ok(*ascend);
        }
        let times = self.times()?;
        let ascend = times.first().is_none_or(Option::is_some) && times.is_sorted();
        Ok(*self.times_ascend.get_or_init(|| ascend))
    }

    /// Converts the values of these ordinals and calls `set` with the position of each. Each distinct value is
    /// converted once.
    pub(super) fn convert<T: Clone>(
        &self,
        ordinals: &[Option<u64>],
        convert: impl Fn(&str) -> Option<T>,
        mut set: impl FnMut(usize, Option<T>),
    ) -> io::Result<()> {
        // Fewer values than rows are converted once each.
        if self.distinct() > ordinals.len()
            && let Some(decoded) = self.decoded(ordinals.len())?
        {
            for (row, ordinal) in ordinals.iter().enumerate() {
                if let Some(ordinal) = ordinal {
                    set(row, convert(decoded.value(*ordinal as usize)));
                }
            }
            return Ok(());
        }
        let distinct = distinct(ordinals);
        let mut converted = Vec::with_capacity(distinct.len());
        self.dictionary.sorted_ords_to_term_cb(&distinct, |value| {
            converted.push(std::str::from_utf8(value).ok().and_then(&convert))
        })?;
        for (row, ordinal) in ordinals.iter().enumerate() {
            if let Some(at) = ordinal.and_then(|ordinal| distinct.binary_search(&ordinal).ok()) {
                set(row, converted.get(at).cloned().flatten());
            }
        }
        Ok(())
    }

    /// The first value of each of these documents (ascending).
    pub(super) fn values_of(&self, documents: &[u32]) -> Result<ArrayRef, Error> {
        let Some(decoded) = self.decoded(documents.len()).map_err(tantivy::TantivyError::from)? else {
            return self.look_up(&self.ordinals.first_values(documents));
        };
        let DocumentValues { values, present } = self.ordinals.values_of(documents);
        let ordinals: Vec<u32> = values.into_iter().map(|ordinal| ordinal as u32).collect();
        Ok(compute::take(
            &*decoded,
            &UInt32Array::new(ordinals.into(), present),
            None,
        )?)
    }

    /// The values of these ordinals, as views into one buffer of the distinct values.
    pub(super) fn values(&self, ordinals: &[Option<u64>]) -> Result<ArrayRef, Error> {
        let Some(decoded) = self.decoded(ordinals.len()).map_err(tantivy::TantivyError::from)? else {
            return self.look_up(ordinals);
        };
        let indices: UInt32Array = ordinals
            .iter()
            .map(|ordinal| ordinal.and_then(|o| u32::try_from(o).ok()))
            .collect();
        Ok(compute::take(&*decoded, &indices, None)?)
    }

    fn look_up(&self, ordinals: &[Option<u64>]) -> Result<ArrayRef, Error> {
        let distinct = distinct(ordinals);
        let mut values = StringViewBuilder::with_capacity(distinct.len());
        let mut invalid = false;
        let all = self
            .dictionary
            .sorted_ords_to_term_cb(&distinct, |value| match std::str::from_utf8(value) {
                Ok(value) => values.append_value(value),
                Err(_) => invalid = true,
            });
        if invalid || !all.map_err(tantivy::TantivyError::from)? {
            return Err(tantivy::TantivyError::InternalError("a dictionary of the split lacks a value".into()).into());
        }
        let index = |ordinal: &u64| {
            distinct
                .binary_search(ordinal)
                .ok()
                .and_then(|index| u32::try_from(index).ok())
        };
        let indices: UInt32Array = ordinals
            .iter()
            .map(|ordinal| ordinal.as_ref().and_then(index))
            .collect();
        Ok(compute::take(&values.finish(), &indices, None)?)
    }

    /// The documents with a value of one of these ordinals: there is a bit for each of the dictionary.
    pub(super) fn documents(&self, ordinals: &BooleanBuffer) -> RoaringBitmap {
        const RANGES_MAX: usize = 4;
        if ordinals.count_set_bits() > RANGES_MAX {
            return documents_with_codes(&self.ordinals, ordinals, |ordinal| ordinal);
        }
        let (mut hits, mut found) = (Vec::new(), RoaringBitmap::new());
        for ordinal in ordinals.set_indices() {
            self.range(ordinal as u64..ordinal as u64 + 1, &mut hits, &mut found);
        }
        found
    }

    /// Adds the documents with an ordinal in this range. Ordinals are dense, so a range of existing ones lies within
    /// the column's bounds.
    fn range(&self, ordinals: std::ops::Range<u64>, hits: &mut Vec<u32>, found: &mut RoaringBitmap) {
        let ords = &self.ordinals;
        hits.clear();
        ords.get_docids_for_value_range(ordinals.start..=ordinals.end - 1, 0..ords.num_docs(), hits);
        *found |= sorted(std::mem::take(hits));
    }

    /// The documents with a value whose ordinal lies in this range.
    pub(super) fn documents_in_range(&self, ordinals: std::ops::Range<u64>) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        if ordinals.start < ordinals.end {
            self.range(ordinals, &mut Vec::new(), &mut found);
        }
        found
    }

    /// The documents with a value between two bounds, each of which says whether it is inclusive; None is unbounded.
    pub(super) fn documents_between(
        &self,
        from: Option<&(String, bool)>,
        until: Option<&(String, bool)>,
    ) -> io::Result<RoaringBitmap> {
        // An exclusive lower bound and an inclusive upper bound lie past their value.
        let ordinal_past = |(value, inclusive): &(String, bool), wanted: bool| -> io::Result<u64> {
            Ok(self.lower_bound(value)? + u64::from(*inclusive == wanted && self.ordinal(value)?.is_some()))
        };
        let start = from.map_or(Ok(0), |bound| ordinal_past(bound, false))?;
        let end = until.map_or(Ok(self.distinct() as u64), |bound| ordinal_past(bound, true))?;
        Ok(self.documents_in_range(start..end))
    }

    /// The documents with a value that is a time, in microseconds since 1970, for which `holds` is true.
    pub(super) fn documents_at(&self, holds: impl Fn(i64) -> bool) -> io::Result<RoaringBitmap> {
        let times = self.times()?;
        let ordinals = BooleanBuffer::collect_bool(times.len(), |ordinal| times[ordinal].is_some_and(&holds));
        Ok(self.documents(&ordinals))
    }

    /// The documents with a value for which `holds` is true.
    pub(super) fn documents_matching(&self, holds: impl Fn(&str) -> bool) -> io::Result<RoaringBitmap> {
        let mut ordinals = BooleanBufferBuilder::new(self.distinct());
        self.for_each(|_, value| ordinals.append(holds(value)))?;
        Ok(self.documents(&ordinals.finish()))
    }

    /// Calls `add` with each document and the number of each of its values, given by ordinal, that is not 0.
    pub(super) fn for_each_number(&self, numbers: &[u32], mut add: impl FnMut(u32, u32)) {
        let column = &self.ordinals;
        let mut add = |document: u32, ordinal: u64| match numbers[ordinal as usize] {
            0 => {}
            number => add(document, number),
        };
        let values = || column.values.iter();
        match &column.index {
            ColumnIndex::Empty { .. } => {}
            ColumnIndex::Full => (0..)
                .zip(values())
                .for_each(|(document, ordinal)| add(document, ordinal)),
            ColumnIndex::Optional(optional) => {
                let documents = optional.iter_non_null_docs();
                documents
                    .zip(values())
                    .for_each(|(document, ordinal)| add(document, ordinal));
            }
            ColumnIndex::Multivalued(_) => {
                for document in 0..column.num_docs() {
                    column
                        .values_for_doc(document)
                        .for_each(|ordinal| add(document, ordinal));
                }
            }
        }
    }

    /// The documents with a value that has this prefix.
    pub(super) fn documents_with_prefix(&self, prefix: &str) -> io::Result<RoaringBitmap> {
        let start = self.lower_bound(prefix)?;
        let mut stream = self.dictionary.prefix_range(prefix).into_stream()?;
        let mut end = start;
        while stream.advance() {
            end += 1;
        }
        Ok(self.documents_in_range(start..end))
    }

    /// The ordinal of the first value that is greater than or equal to this one.
    pub(super) fn lower_bound(&self, value: &str) -> io::Result<u64> {
        use tantivy::columnar::TermOrdHit;
        let distinct = self.distinct() as u64;
        Ok(match self.dictionary.term_ord_or_next(value)? {
            TermOrdHit::Exact(ordinal) | TermOrdHit::Next(ordinal) => ordinal.min(distinct),
        })
    }

    /// The ordinal of a value, if the dictionary has it.
    pub(super) fn ordinal(&self, value: &str) -> io::Result<Option<u64>> {
        self.dictionary.term_ord(value)
    }
}

/// The distinct ordinals, ascending.
fn distinct(ordinals: &[Option<u64>]) -> Vec<u64> {
    let mut distinct: Vec<u64> = ordinals.iter().copied().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray as _;
    use tantivy::columnar::ColumnarWriter;

    use super::*;

    const DOCUMENTS: u32 = 5_000;

    fn value(document: u32) -> String {
        format!("value {}", document.wrapping_mul(2_654_435_761))
    }

    fn column() -> TextColumn {
        let mut writer = ColumnarWriter::default();
        for document in 0..DOCUMENTS {
            writer.record_str(document, "text", &value(document));
        }
        let mut bytes = Vec::new();
        writer.serialize(DOCUMENTS, None, &mut bytes).expect("columns");
        let reader = ColumnarReader::open(bytes).expect("columns");
        let column = reader.read_columns("text").expect("columns")[0]
            .open()
            .expect("a column");
        let column = TextColumn::open(column, "text", None).expect("a column");
        column.expect("texts")
    }

    #[test]
    fn the_values_of_many_small_requests_are_decoded_once() {
        let column = column();
        let mut requests = 0;
        for document in 0..DOCUMENTS {
            let values = column.values_of(&[document]).expect("values");
            assert_eq!(values.as_string_view().value(0), value(document));
            requests += u32::from(column.decoded.get().is_none());
        }
        // The last one of them decodes, and answers from it.
        assert_eq!(requests, DOCUMENTS / LOOKUP_VALUES as u32);
    }

    #[test]
    fn values_convert_alike_whether_they_are_looked_up_or_decoded() {
        let column = column();
        let ordinals = column.ordinals.first_values(&[7, 1, 4_999]);
        let converted = || {
            let mut found = vec![None; 3];
            let convert = |text: &str| text.strip_prefix("value ")?.parse::<u32>().ok();
            let set = |row: usize, value| found[row] = value;
            column.convert(&ordinals, convert, set).expect("values");
            found
        };
        let looked_up = converted();
        assert!(column.decoded.get().is_none());
        column.decoded(DOCUMENTS as usize).expect("values");
        assert!(column.decoded.get().is_some());
        assert_eq!(converted(), looked_up);
        assert_eq!(looked_up[0], Some(7_u32.wrapping_mul(2_654_435_761)));
    }
}
