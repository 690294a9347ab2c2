//! Lookup: the documents of a part that match a condition on a path or a header, from dictionaries and columns.

use std::collections::HashSet;

use datafusion::arrow::array::{Array as _, ArrayRef, BooleanArray, BooleanBufferBuilder, new_null_array};
use memchr::memmem::Finder;
use plan::{ColumnSource, Path, Type};
use proto::Address;
use roaring::RoaringBitmap;
use tantivy::columnar::Column;

use super::{
    Literal, Lookup,
    column_name::ColumnKind,
    columns::{documents_where, documents_with, range, sorted},
    groups::Codes,
    part::{Part, index_error},
    path_tree::ArrayScope,
    recorder::DICTIONARY_VALUE_BYTES_MAX,
};
use crate::{error::Error, matches::Matches};

/// A bound: a value, and whether it is inclusive. None is unbounded.
type LiteralBound<'a> = Option<&'a (Literal, bool)>;

/// What the distinct values of a column decide about a condition.
pub(crate) struct DecidedValues {
    /// Where the condition is true. Its candidates are the documents whose value has to be read.
    pub found: Matches,
    /// The documents with a non-null value.
    pub present: RoaringBitmap,
    /// Those of them, not to be read, whose value does not convert to the column's type.
    pub cast_failures: RoaringBitmap,
}

impl Part {
    /// The documents that match a condition, or None if this part knows nothing about it.
    pub(super) fn lookup(&self, lookup: &Lookup) -> Result<Option<Matches>, Error> {
        match lookup {
            Lookup::In(path, to, values) => self.on_path(path, |id| self.equal_to_any(id, *to, values)),
            Lookup::Range(path, to, from, until) => {
                self.on_path(path, |id| self.between(id, *to, from.as_ref(), until.as_ref()))
            }
            Lookup::StringPrefix(path, prefix) => self.on_path(path, |id| self.with_prefix(id, prefix)),
            Lookup::Containing(path, letters) => self.on_path(path, |id| self.containing(id, letters)),
            Lookup::Exists(path, to) => self.on_path(path, |id| self.non_null(id, *to)),
            Lookup::NoText(path) => self.on_path(path, |id| Ok(Some(Matches::certain(self.no_text(id, false)?)))),
            Lookup::Search(clause) => Ok(self.search(clause)?.as_ref().clone()),
            Lookup::Id(ids) => self.with_ids(ids).map(Some),
            Lookup::Header(source, low, high) => self.header_between(source, *low, *high),
            Lookup::HeaderIn(source, values) => {
                let values: HashSet<i64> = values.iter().copied().collect();
                self.header_where(source, |value| values.contains(&value))
            }
            Lookup::Source(name) => {
                let runs = self.headers.runs.iter().filter(|run| run.source.as_str() == name);
                Ok(Some(Matches::certain(runs.fold(RoaringBitmap::new(), |all, run| {
                    all | range(run.first..run.end)
                }))))
            }
        }
    }

    /// See [`SegmentPart::decide_values`](super::SegmentPart::decide_values).
    pub(super) fn decide_values(
        &self,
        column: &plan::Column,
        candidates: &RoaringBitmap,
        mut passes: impl FnMut(ArrayRef) -> Result<BooleanArray, Error>,
    ) -> Result<Option<DecidedValues>, Error> {
        /// Documents per distinct value that make it worth while.
        const DOCUMENTS_PER_VALUE: u64 = 2;
        const BLOCK_VALUES: u64 = 8_192;
        let ColumnSource::Path(path) = &column.source else {
            return Ok(None);
        };
        let Some(id) = path.keys().and_then(|keys| self.paths.find(keys)) else {
            return Ok(None);
        };
        if candidates.is_empty() || !self.node(id).column {
            return Ok(None);
        }
        let Some(codes) = Codes::open(&self.columns, id, self.outside(id), column.read_as)? else {
            return Ok(None);
        };
        if codes.null().saturating_mul(DOCUMENTS_PER_VALUE) > candidates.len() {
            return Ok(None);
        }
        let mut passing = BooleanBufferBuilder::new(codes.null() as usize);
        for from in (0..codes.null()).step_by(BLOCK_VALUES as usize) {
            let block: Vec<Option<u64>> = (from..codes.null().min(from + BLOCK_VALUES)).map(Some).collect();
            let values = codes.values(&block)?;
            if values.null_count() > 0 {
                // What cannot be converted is counted for documents.
                return Ok(None);
            }
            passing.append_buffer(passes(values)?.values());
        }
        let mut certain = codes.documents(&passing.finish());
        let with_code = match codes.kind() {
            ColumnKind::Text => self.with_texts(id, false)?,
            ColumnKind::Bool => self.with_bools(id, false)?,
            _ => self.with_ints(id, false)?,
        };
        let present = self.present(id, false)?;
        let without_code = &present - &with_code;
        let mut others = match codes.has_all_values() {
            true => self.outside(id).long_texts.clone(),
            false => without_code.clone(),
        };
        others |= &self.paths.header_only;
        if passes(new_null_array(&column.read_as.to.arrow(), 1))?.value(0) {
            certain |= self.all() - with_code;
        }
        Ok(Some(DecidedValues {
            found: Matches::certain(certain).with_candidates(&others),
            present,
            cast_failures: without_code - others,
        }))
    }

    /// Resolves a path of keys and calls `find` with it. Only incompletely indexed documents may have values at a path
    /// that the path tree does not list.
    fn on_path(
        &self,
        path: &Path,
        find: impl FnOnce(u32) -> Result<Option<Matches>, Error>,
    ) -> Result<Option<Matches>, Error> {
        let Some(keys) = path.keys() else { return Ok(None) };
        match self.paths.find(keys) {
            None => Ok(Some(Matches::default().with_candidates(&self.paths.incomplete()))),
            Some(id) if !self.node(id).column => Ok(None),
            Some(id) => Ok(find(id)?.map(|found| found.with_candidates(&self.paths.header_only))),
        }
    }

    fn outside(&self, id: u32) -> &ArrayScope {
        &self.node(id).outside
    }

    /// The documents whose value is one of these. The column is read once, however many there are.
    fn equal_to_any(&self, id: u32, to: Type, values: &[Literal]) -> Result<Option<Matches>, Error> {
        /// So few are faster to find one by one, in the packed values.
        const ONE_BY_ONE_MAX: usize = 4;
        match to {
            Type::Text => self.equal_to_any_text(id, values),
            Type::Double if values.len() > ONE_BY_ONE_MAX => {
                let bits = distinct(values, |value| match value {
                    Literal::Double(double) if !double.is_nan() => Some(double.to_bits()),
                    _ => None,
                });
                let Some(bits) = bits else { return Ok(None) };
                self.doubles_where(id, |double| bits.contains(&double.to_bits()))
                    .map(Some)
            }
            Type::Int if values.len() > ONE_BY_ONE_MAX => {
                let ints = distinct(values, |value| match value {
                    Literal::Int(int) => Some(*int),
                    _ => None,
                });
                let Some(ints) = ints else { return Ok(None) };
                if self.outside(id).ints == 0 {
                    return Ok(Some(Matches::default()));
                }
                let column = self.columns.ints(id, false).map_err(index_error)?;
                Ok(Some(Matches::certain(documents_where(&column, |int| {
                    ints.contains(&int)
                }))))
            }
            Type::Time if values.len() > ONE_BY_ONE_MAX => {
                let times = distinct(values, |value| match value {
                    Literal::Time(time) => Some(*time),
                    _ => None,
                });
                let Some(times) = times else { return Ok(None) };
                self.times_where(id, |time| times.contains(&time)).map(Some)
            }
            _ => {
                let mut found = Matches::default();
                for value in values {
                    let bound = Some((value.clone(), true));
                    match self.between(id, to, bound.as_ref(), bound.as_ref())? {
                        None => return Ok(None),
                        Some(more) => found = found.or(&more),
                    }
                }
                Ok(Some(found))
            }
        }
    }

    fn equal_to_any_text(&self, id: u32, values: &[Literal]) -> Result<Option<Matches>, Error> {
        fn text(value: &Literal) -> Option<&str> {
            match value {
                Literal::Text(text) => Some(text),
                _ => None,
            }
        }
        let Some(texts) = values.iter().map(text).collect::<Option<Vec<&str>>>() else {
            return Ok(None);
        };
        // A string that fits into the dictionary cannot equal a longer one.
        let are_short = texts.iter().all(|text| text.len() <= DICTIONARY_VALUE_BYTES_MAX);
        let none = RoaringBitmap::new();
        let candidates = if are_short { &none } else { &self.outside(id).long_texts };
        if self.outside(id).texts == 0 {
            return Ok(Some(Matches::default().with_candidates(candidates)));
        }
        let column = self.columns.texts(id, false).map_err(index_error)?;
        let mut ordinals = BooleanBufferBuilder::new(column.distinct());
        ordinals.append_n(column.distinct(), false);
        for text in texts {
            let ordinal = column.ordinal(text).map_err(index_error)?;
            ordinal
                .into_iter()
                .for_each(|ordinal| ordinals.set_bit(ordinal as usize, true));
        }
        Ok(Some(
            Matches::certain(column.documents(&ordinals.finish())).with_candidates(candidates),
        ))
    }

    fn between(&self, id: u32, to: Type, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        match to {
            Type::Int => self.ints_between(id, from, until),
            Type::Double => self.doubles_between(id, from, until),
            Type::Text => self.texts_between(id, from, until),
            Type::Bool => self.bools_between(id, from, until),
            Type::Time => self.times_between(id, from, until),
            Type::Json | Type::Canonical | Type::Rank => Ok(None),
        }
    }

    fn ints_between(&self, id: u32, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        let int = |literal: &Literal| match literal {
            Literal::Int(int) => Some(*int),
            _ => None,
        };
        let (Some(from), Some(until)) = (typed(from, int), typed(until, int)) else {
            return Ok(None);
        };
        if self.outside(id).ints == 0 {
            return Ok(Some(Matches::default()));
        }
        let column = self.columns.ints(id, false).map_err(index_error)?;
        let low = from.map_or(Some(i64::MIN), |(value, inclusive)| {
            if inclusive { Some(value) } else { value.checked_add(1) }
        });
        let high = until.map_or(Some(i64::MAX), |(value, inclusive)| {
            if inclusive { Some(value) } else { value.checked_sub(1) }
        });
        Ok(Some(Matches::certain(
            low.zip(high)
                .map_or_else(RoaringBitmap::new, |(low, high)| in_range(&column, low, high)),
        )))
    }

    /// Compares doubles in their total order, as the query engine does. An int is compared as the double it converts
    /// to.
    fn doubles_between(&self, id: u32, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        let double = |literal: &Literal| match literal {
            Literal::Double(double) if !double.is_nan() => Some(*double),
            _ => None,
        };
        let (Some(from), Some(until)) = (typed(from, double), typed(until, double)) else {
            return Ok(None);
        };
        let holds = |value: f64| {
            use std::cmp::Ordering::{Equal, Greater, Less};
            let above = from.is_none_or(|(bound, inclusive)| {
                matches!((value.total_cmp(&bound), inclusive), (Greater, _) | (Equal, true))
            });
            above
                && until.is_none_or(|(bound, inclusive)| {
                    matches!((value.total_cmp(&bound), inclusive), (Less, _) | (Equal, true))
                })
        };
        self.doubles_where(id, holds).map(Some)
    }

    /// The documents with a number for which `holds` is true.
    fn doubles_where(&self, id: u32, holds: impl Fn(f64) -> bool) -> Result<Matches, Error> {
        let mut certain = RoaringBitmap::new();
        if self.outside(id).ints > 0 {
            certain |= documents_where(&*self.columns.ints(id, false).map_err(index_error)?, |int| {
                holds(int as f64)
            });
        }
        if self.outside(id).floats > 0 {
            certain |= documents_where(&*self.columns.floats(id, false).map_err(index_error)?, holds);
        }
        Ok(Matches::certain(certain))
    }

    fn bools_between(&self, id: u32, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        let bool = |literal: &Literal| match literal {
            Literal::Bool(bool) => Some(*bool),
            _ => None,
        };
        let (Some(from), Some(until)) = (typed(from, bool), typed(until, bool)) else {
            return Ok(None);
        };
        if self.outside(id).bools == 0 {
            return Ok(Some(Matches::default()));
        }
        let above = |value: bool| from.is_none_or(|(bound, inclusive)| value & !bound || (inclusive && value == bound));
        let below =
            |value: bool| until.is_none_or(|(bound, inclusive)| !value & bound || (inclusive && value == bound));
        let column = self.columns.bools(id, false).map_err(index_error)?;
        Ok(Some(Matches::certain(documents_where(&column, |value| {
            above(value) && below(value)
        }))))
    }

    fn texts_between(&self, id: u32, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        let text = |literal: &Literal| match literal {
            Literal::Text(text) => Some(text.clone()),
            _ => None,
        };
        let (Some(from), Some(until)) = (typed(from, text), typed(until, text)) else {
            return Ok(None);
        };
        let candidates = &self.outside(id).long_texts;
        if self.outside(id).texts == 0 {
            return Ok(Some(Matches::default().with_candidates(candidates)));
        }
        let column = self.columns.texts(id, false).map_err(index_error)?;
        let found = column.documents_between(from.as_ref(), until.as_ref());
        Ok(Some(
            Matches::certain(found.map_err(index_error)?).with_candidates(candidates),
        ))
    }

    fn times_between(&self, id: u32, from: LiteralBound, until: LiteralBound) -> Result<Option<Matches>, Error> {
        let time = |literal: &Literal| match literal {
            Literal::Time(time) => Some(*time),
            _ => None,
        };
        let (Some(from), Some(until)) = (typed(from, time), typed(until, time)) else {
            return Ok(None);
        };
        let holds = |value: i64| {
            let above = from.is_none_or(|(bound, inclusive)| value > bound || (inclusive && value == bound));
            above && until.is_none_or(|(bound, inclusive)| value < bound || (inclusive && value == bound))
        };
        self.times_where(id, holds).map(Some)
    }

    /// The documents whose string is a time for which `holds` is true. Strings too long for the dictionary are
    /// candidates.
    fn times_where(&self, id: u32, holds: impl Fn(i64) -> bool) -> Result<Matches, Error> {
        let ArrayScope { texts, long_texts, .. } = self.outside(id);
        let mut certain = RoaringBitmap::new();
        if *texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            let times = column.times().map_err(index_error)?;
            let ordinals = times.iter().map(|time| time.is_some_and(&holds)).collect();
            certain = column.documents(&ordinals);
        }
        Ok(Matches::certain(certain).with_candidates(long_texts))
    }

    fn with_prefix(&self, id: u32, prefix: &str) -> Result<Option<Matches>, Error> {
        let ArrayScope { texts, long_texts, .. } = self.outside(id);
        if *texts == 0 {
            return Ok(Some(Matches::default().with_candidates(long_texts)));
        }
        let column = self.columns.texts(id, false).map_err(index_error)?;
        Ok(Some(
            Matches::certain(column.documents_with_prefix(prefix).map_err(index_error)?).with_candidates(long_texts),
        ))
    }

    /// None if so few texts are not in the dictionary that reading them is no slower than going through all tokens.
    fn containing(&self, id: u32, letters: &str) -> Result<Option<Matches>, Error> {
        const LONG_TEXTS_MIN: u64 = 1_000;
        let long_texts = &self.outside(id).long_texts;
        let is_worth_it = self.node(id).postings && long_texts.len() >= LONG_TEXTS_MIN;
        let Some(index) = self.text.as_ref().filter(|_| is_worth_it) else {
            return Ok(None);
        };
        let (mut found, letters) = (self.paths.oversized_tokens.clone(), Finder::new(letters));
        index.tokens(id, "", |token| letters.find(token).is_some(), &mut found)?;
        let candidates = self.with_texts(id, false)? | (found & long_texts);
        Ok(Some(Matches::default().with_candidates(&candidates)))
    }

    fn non_null(&self, id: u32, to: Type) -> Result<Option<Matches>, Error> {
        let ArrayScope { long_texts, .. } = self.outside(id);
        let found = match to {
            Type::Bool => Matches::certain(self.with_bools(id, false)?),
            Type::Int => Matches::certain(self.with_ints(id, false)?),
            Type::Double => Matches::certain(self.with_ints(id, false)? | self.with_floats(id, false)?),
            Type::Text => Matches::certain(self.with_texts(id, false)? | long_texts),
            Type::Time => self.times_where(id, |_| true)?,
            Type::Json | Type::Canonical | Type::Rank => Matches::certain(self.present(id, false)?),
        };
        Ok(Some(found))
    }

    /// The documents with a non-null value at a path with columns, inside or outside of arrays.
    pub(super) fn present(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        let texts = self.with_texts(id, inside)? | &self.scope(id, inside).long_texts;
        Ok(texts | self.no_text(id, inside)?)
    }

    /// The documents with a value that is neither null nor a string.
    fn no_text(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        let ArrayScope {
            big_numbers,
            arrays,
            objects,
            ..
        } = self.scope(id, inside);
        let scalars = self.with_bools(id, inside)? | self.with_ints(id, inside)? | self.with_floats(id, inside)?;
        Ok(scalars | big_numbers | arrays | objects)
    }

    fn with_bools(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with_value(self.scope(id, inside).bools, || {
            Ok(self.columns.bools(id, inside)?.index.clone())
        })
    }

    fn with_ints(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with_value(self.scope(id, inside).ints, || {
            Ok(self.columns.ints(id, inside)?.index.clone())
        })
    }

    fn with_floats(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with_value(self.scope(id, inside).floats, || {
            Ok(self.columns.floats(id, inside)?.index.clone())
        })
    }

    fn with_texts(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with_value(self.scope(id, inside).texts, || {
            Ok(self.columns.texts(id, inside)?.ordinals.index.clone())
        })
    }

    /// What is known about the values of a path inside or outside of arrays.
    pub(super) fn scope(&self, id: u32, inside: bool) -> &ArrayScope {
        if inside {
            &self.node(id).inside
        } else {
            &self.node(id).outside
        }
    }

    /// The documents with a value in a column, which exists only if `count` values were recorded.
    fn with_value(
        &self,
        count: u32,
        index: impl FnOnce() -> std::io::Result<tantivy::columnar::ColumnIndex>,
    ) -> Result<RoaringBitmap, Error> {
        if count == 0 {
            return Ok(RoaringBitmap::new());
        }
        Ok(documents_with(&index().map_err(index_error)?, self.paths.documents))
    }

    fn with_ids(&self, ids: &[String]) -> Result<Matches, Error> {
        let headers = &self.headers;
        let own = headers.id().map_err(index_error)?;
        let mut certain = RoaringBitmap::new();
        for id in ids {
            if let Some(ordinal) = own.ordinal(id).map_err(index_error)? {
                certain |= own.documents_in_range(ordinal..ordinal + 1);
            }
            // An address is the id only of a document without an id of its own.
            let by_address = id.parse::<Address>().ok().and_then(|address| headers.find(&address));
            if let Some(document) = by_address.filter(|document| own.ordinals.first(*document).is_none()) {
                certain.insert(document);
            }
        }
        Ok(Matches::certain(certain))
    }

    fn header_between(&self, source: &ColumnSource, low: i64, high: i64) -> Result<Option<Matches>, Error> {
        match source {
            ColumnSource::Offset => Ok(Some(Matches::certain(in_range(&self.headers.offset, low, high)))),
            _ => self.header_where(source, |value| low <= value && value <= high),
        }
    }

    /// The documents for whose header number `holds` is true. The column is read once.
    fn header_where(&self, source: &ColumnSource, holds: impl Fn(i64) -> bool) -> Result<Option<Matches>, Error> {
        let headers = &self.headers;
        let ms_holds = |ms: i64| holds(ms.saturating_mul(1_000));
        let found = match source {
            ColumnSource::Offset => documents_where(&headers.offset, holds),
            ColumnSource::Partition => {
                let runs = headers.runs.iter().filter(|run| holds(i64::from(run.partition)));
                runs.fold(RoaringBitmap::new(), |all, run| all | range(run.first..run.end))
            }
            ColumnSource::Item => {
                let without_item = if holds(0) {
                    self.all() - documents_with(&headers.item.index, self.paths.documents)
                } else {
                    RoaringBitmap::new()
                };
                without_item | documents_where(&headers.item, holds)
            }
            ColumnSource::Ingested => documents_where(headers.ingested().map_err(index_error)?, ms_holds),
            ColumnSource::Time => {
                let time = headers.time().map_err(index_error)?;
                let ingested = headers.ingested().map_err(index_error)?;
                let without_time =
                    documents_where(ingested, ms_holds) - documents_with(&time.index, self.paths.documents);
                documents_where(time, ms_holds) | without_time
            }
            _ => return Ok(None),
        };
        Ok(Some(Matches::certain(found)))
    }
}

/// The different values of a list, or None if one of them has another type.
fn distinct<T: Eq + std::hash::Hash>(values: &[Literal], value: impl Fn(&Literal) -> Option<T>) -> Option<HashSet<T>> {
    values.iter().map(value).collect()
}

/// The typed value of a bound, or None if the bound has another type.
fn typed<T>(bound: LiteralBound, value: impl Fn(&Literal) -> Option<T>) -> Option<Option<(T, bool)>> {
    match bound {
        None => Some(None),
        Some((literal, inclusive)) => value(literal).map(|value| Some((value, *inclusive))),
    }
}

/// The documents with a value between `low` and `high`, inclusive.
fn in_range<T>(column: &Column<T>, low: T, high: T) -> RoaringBitmap
where
    T: Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    // tantivy maps bounds outside of the column's range wrongly.
    let (least, greatest) = (column.min_value(), column.max_value());
    let low = if low < least { least } else { low };
    let high = if high > greatest { greatest } else { high };
    if low <= high {
        let mut hits = Vec::new();
        column.get_docids_for_value_range(low..=high, 0..column.num_docs(), &mut hits);
        return sorted(hits);
    }
    RoaringBitmap::new()
}
