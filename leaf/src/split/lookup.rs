//! Lookup: the documents of a part for which a condition on a path or a header is true, from dictionaries and columns.

use std::{io, ops::Range};

use plan::{Path, Type, What};
use proto::Address;
use roaring::RoaringBitmap;
use tantivy::columnar::Column;

use super::{
    Literal, Lookup,
    columns::{documents_where, documents_with, range, sorted},
    part::{Part, index_error},
    shape::{Node, Side},
};
use crate::error::Error;

/// What an index knows of a condition: for all other documents it is not true.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    /// Here it is true.
    pub sure: RoaringBitmap,
    /// Here only the raw document knows.
    pub doubtful: RoaringBitmap,
}

impl Found {
    fn sure(sure: RoaringBitmap) -> Self {
        Self {
            sure,
            ..Self::default()
        }
    }

    /// With more documents to doubt.
    pub fn doubting(mut self, doubtful: &RoaringBitmap) -> Self {
        self.doubtful |= doubtful;
        self.sure -= &self.doubtful;
        self
    }
}

/// A bound: a value, and whether it is in.
type Bound<'a> = Option<&'a (Literal, bool)>;

impl Part {
    /// Where a condition is true, or None where this part cannot say.
    pub fn lookup(&self, lookup: &Lookup) -> Result<Option<Found>, Error> {
        match lookup {
            Lookup::In(path, to, values) => self.at(path, |id| self.one_of(id, *to, values)),
            Lookup::Range(path, to, from, until) => {
                self.at(path, |id| self.between(id, *to, from.as_ref(), until.as_ref()))
            }
            Lookup::Prefix(path, prefix) => self.at(path, |id| self.beginning(id, prefix)),
            Lookup::Exists(path, to) => self.at(path, |id| self.existing(id, *to)),
            Lookup::Search(clause) => Ok(self.search(clause)?.map(|found| found.as_ref().clone())),
            Lookup::Id(ids) => self.ids_among(ids).map(Some),
            Lookup::Header(what, low, high) => Ok(self
                .header_between(what, *low, *high)
                .map_err(index_error)?
                .map(Found::sure)),
            Lookup::Source(name) => {
                let here = self.headers.runs.iter().filter(|run| run.source.as_str() == name);
                Ok(Some(Found::sure(here.fold(RoaringBitmap::new(), |all, run| {
                    all | range(run.first..run.end)
                }))))
            }
        }
    }

    /// Looks at a path of keys; a path that was not seen has values at most in documents that were not seen whole.
    fn at(&self, path: &Path, look: impl FnOnce(u32) -> Result<Option<Found>, Error>) -> Result<Option<Found>, Error> {
        let Some(keys) = path.keys() else { return Ok(None) };
        match self.shape.find(keys) {
            None => Ok(Some(Found::default().doubting(&self.shape.unknown()))),
            Some(id) if !self.node(id).column => Ok(None),
            Some(id) => Ok(look(id)?.map(|found| found.doubting(&self.shape.failed))),
        }
    }

    fn side(&self, id: u32) -> &Side {
        &self.node(id).outside
    }

    fn one_of(&self, id: u32, to: Type, values: &[Literal]) -> Result<Option<Found>, Error> {
        let mut found = Found::default();
        for value in values {
            let exactly = Some((value.clone(), true));
            match self.between(id, to, exactly.as_ref(), exactly.as_ref())? {
                None => return Ok(None),
                Some(more) => {
                    found.sure |= more.sure;
                    found.doubtful |= more.doubtful;
                }
            }
        }
        Ok(Some(found))
    }

    fn between(&self, id: u32, to: Type, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        match to {
            Type::Int => self.ints_between(id, from, until),
            Type::Double => self.doubles_between(id, from, until),
            Type::Text => self.texts_between(id, from, until),
            Type::Bool => self.bools_between(id, from, until),
            Type::Time => self.times_between(id, from, until),
            Type::Json | Type::Canonical | Type::Rank => Ok(None),
        }
    }

    fn ints_between(&self, id: u32, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        let int = |literal: &Literal| match literal {
            Literal::Int(int) => Some(*int),
            _ => None,
        };
        let (Some(from), Some(until)) = (read(from, int), read(until, int)) else {
            return Ok(None);
        };
        if self.side(id).ints == 0 {
            return Ok(Some(Found::default()));
        }
        let column = self.columns.ints(id, false).map_err(index_error)?;
        let low = from.map_or(Some(i64::MIN), |(value, inclusive)| {
            if inclusive { Some(value) } else { value.checked_add(1) }
        });
        let high = until.map_or(Some(i64::MAX), |(value, inclusive)| {
            if inclusive { Some(value) } else { value.checked_sub(1) }
        });
        Ok(Some(Found::sure(
            low.zip(high)
                .map_or_else(RoaringBitmap::new, |(low, high)| in_range(&column, low, high)),
        )))
    }

    /// Doubles are compared in their total order, as the engine does above; an int counts as the double it becomes.
    fn doubles_between(&self, id: u32, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        let double = |literal: &Literal| match literal {
            Literal::Double(double) if !double.is_nan() => Some(*double),
            _ => None,
        };
        let (Some(from), Some(until)) = (read(from, double), read(until, double)) else {
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
        let mut sure = RoaringBitmap::new();
        if self.side(id).ints > 0 {
            sure |= documents_where(&self.columns.ints(id, false).map_err(index_error)?, |int| {
                holds(int as f64)
            });
        }
        if self.side(id).floats > 0 {
            sure |= documents_where(&self.columns.floats(id, false).map_err(index_error)?, holds);
        }
        Ok(Some(Found::sure(sure)))
    }

    fn bools_between(&self, id: u32, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        let bool = |literal: &Literal| match literal {
            Literal::Bool(bool) => Some(*bool),
            _ => None,
        };
        let (Some(from), Some(until)) = (read(from, bool), read(until, bool)) else {
            return Ok(None);
        };
        if self.side(id).bools == 0 {
            return Ok(Some(Found::default()));
        }
        let above = |value: bool| from.is_none_or(|(bound, inclusive)| value & !bound || (inclusive && value == bound));
        let below =
            |value: bool| until.is_none_or(|(bound, inclusive)| !value & bound || (inclusive && value == bound));
        let column = self.columns.bools(id, false).map_err(index_error)?;
        Ok(Some(Found::sure(documents_where(&column, |value| {
            above(value) && below(value)
        }))))
    }

    fn texts_between(&self, id: u32, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        let text = |literal: &Literal| match literal {
            Literal::Text(text) => Some(text.clone()),
            _ => None,
        };
        let (Some(from), Some(until)) = (read(from, text), read(until, text)) else {
            return Ok(None);
        };
        let is_one = from.is_some() && from == until;
        let within_dictionary = from
            .as_ref()
            .is_some_and(|(value, _)| value.len() <= super::survey::DICTIONARY_VALUE_BYTES_MAX);
        let none = RoaringBitmap::new();
        let doubtful = if is_one && within_dictionary {
            &none
        } else {
            &self.side(id).longs
        };
        if self.side(id).texts == 0 {
            return Ok(Some(Found::default().doubting(doubtful)));
        }
        let column = self.columns.texts(id, false).map_err(index_error)?;
        let past = |(value, inclusive): &(String, bool), wanted: bool| -> Result<u64, Error> {
            let lower = column.lower_bound(value).map_err(index_error)?;
            let is_there = *inclusive == wanted && column.ordinal(value).map_err(index_error)?.is_some();
            Ok(lower + u64::from(is_there))
        };
        // An exclusive lower bound and an inclusive upper one lie after their value.
        let low = from.as_ref().map_or(Ok(0), |bound| past(bound, false))?;
        let high = until
            .as_ref()
            .map_or(Ok(column.distinct() as u64), |bound| past(bound, true))?;
        Ok(Some(
            Found::sure(column.documents_in(Range { start: low, end: high })).doubting(doubtful),
        ))
    }

    fn times_between(&self, id: u32, from: Bound, until: Bound) -> Result<Option<Found>, Error> {
        let time = |literal: &Literal| match literal {
            Literal::Time(time) => Some(*time),
            _ => None,
        };
        let (Some(from), Some(until)) = (read(from, time), read(until, time)) else {
            return Ok(None);
        };
        let holds = |value: i64| {
            let above = from.is_none_or(|(bound, inclusive)| value > bound || (inclusive && value == bound));
            above && until.is_none_or(|(bound, inclusive)| value < bound || (inclusive && value == bound))
        };
        self.times_where(id, holds).map(Some)
    }

    /// Documents whose string is a time for which this holds; the strings beyond the dictionary are in doubt.
    fn times_where(&self, id: u32, holds: impl Fn(i64) -> bool) -> Result<Found, Error> {
        let Side { texts, longs, .. } = self.side(id);
        let mut sure = RoaringBitmap::new();
        if *texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            let times = column.times().map_err(index_error)?;
            let ordinals = (0u32..)
                .zip(times.iter())
                .filter(|(_, time)| time.is_some_and(&holds))
                .map(|(ordinal, _)| ordinal)
                .collect();
            sure = column.documents(&ordinals);
        }
        Ok(Found::sure(sure).doubting(longs))
    }

    fn beginning(&self, id: u32, prefix: &str) -> Result<Option<Found>, Error> {
        let Side { texts, longs, .. } = self.side(id);
        if *texts == 0 {
            return Ok(Some(Found::default().doubting(longs)));
        }
        let column = self.columns.texts(id, false).map_err(index_error)?;
        Ok(Some(
            Found::sure(column.documents_beginning(prefix).map_err(index_error)?).doubting(longs),
        ))
    }

    fn existing(&self, id: u32, to: Type) -> Result<Option<Found>, Error> {
        let Side { longs, .. } = self.side(id);
        let found = match to {
            Type::Bool => Found::sure(self.with_bools(id, false)?),
            Type::Int => Found::sure(self.with_ints(id, false)?),
            Type::Double => Found::sure(self.with_ints(id, false)? | self.with_floats(id, false)?),
            Type::Text => Found::sure(self.with_texts(id, false)? | longs),
            Type::Time => self.times_where(id, |_| true)?,
            Type::Json | Type::Canonical | Type::Rank => Found::sure(self.present(id, false)?),
        };
        Ok(Some(found))
    }

    /// Documents with a value other than null at a path with columns, on one side of arrays.
    pub fn present(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        let Node {
            outside,
            inside: within,
            ..
        } = self.node(id);
        let Side {
            longs,
            bigs,
            arrays,
            objects,
            ..
        } = if inside { within } else { outside };
        let scalars = self.with_bools(id, inside)?
            | self.with_ints(id, inside)?
            | self.with_floats(id, inside)?
            | self.with_texts(id, inside)?;
        Ok(scalars | longs | bigs | arrays | objects)
    }

    fn with_bools(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with(self.counted(id, inside).bools, || {
            Ok(self.columns.bools(id, inside)?.index)
        })
    }

    fn with_ints(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with(self.counted(id, inside).ints, || {
            Ok(self.columns.ints(id, inside)?.index)
        })
    }

    fn with_floats(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with(self.counted(id, inside).floats, || {
            Ok(self.columns.floats(id, inside)?.index)
        })
    }

    fn with_texts(&self, id: u32, inside: bool) -> Result<RoaringBitmap, Error> {
        self.with(self.counted(id, inside).texts, || {
            Ok(self.columns.texts(id, inside)?.column.ords().index.clone())
        })
    }

    pub fn counted(&self, id: u32, inside: bool) -> &Side {
        if inside {
            &self.node(id).inside
        } else {
            &self.node(id).outside
        }
    }

    fn with(
        &self,
        count: u32,
        index: impl FnOnce() -> std::io::Result<tantivy::columnar::ColumnIndex>,
    ) -> Result<RoaringBitmap, Error> {
        if count == 0 {
            return Ok(RoaringBitmap::new());
        }
        Ok(documents_with(&index().map_err(index_error)?, self.shape.documents))
    }

    fn ids_among(&self, ids: &[String]) -> Result<Found, Error> {
        let headers = &self.headers;
        let own = headers.id().map_err(index_error)?;
        let mut sure = RoaringBitmap::new();
        for id in ids {
            if let Some(ordinal) = own.ordinal(id).map_err(index_error)? {
                sure |= own.documents_in(ordinal..ordinal + 1);
            }
            // A document with a key of its own is not named by its address.
            let at = id.parse::<Address>().ok().and_then(|address| headers.find(&address));
            if let Some(document) = at.filter(|document| own.column.ords().first(*document).is_none()) {
                sure.insert(document);
            }
        }
        Ok(Found::sure(sure))
    }

    fn header_between(&self, what: &What, low: i64, high: i64) -> io::Result<Option<RoaringBitmap>> {
        let headers = &self.headers;
        let inside = |micros: i64| low <= micros && micros <= high;
        let of_ms = |ms: i64| inside(ms.saturating_mul(1_000));
        Ok(match what {
            What::Offset => Some(in_range(&headers.offset, low, high)),
            What::Partition => {
                let here = headers.runs.iter().filter(|run| inside(i64::from(run.partition)));
                Some(here.fold(RoaringBitmap::new(), |all, run| all | range(run.first..run.end)))
            }
            What::Item => {
                let first = if inside(0) {
                    self.all() - documents_with(&headers.item.index, self.shape.documents)
                } else {
                    RoaringBitmap::new()
                };
                Some(first | in_range(&headers.item, low, high))
            }
            What::Ingested => Some(documents_where(headers.ingested()?, of_ms)),
            What::Time => {
                let (time, ingested) = (headers.time()?, headers.ingested()?);
                let others = documents_where(ingested, of_ms) - documents_with(&time.index, self.shape.documents);
                Some(documents_where(time, of_ms) | others)
            }
            _ => None,
        })
    }
}

/// A bound's value; None if it is of another type.
fn read<T>(bound: Bound, value: impl Fn(&Literal) -> Option<T>) -> Option<Option<(T, bool)>> {
    match bound {
        None => Some(None),
        Some((literal, inclusive)) => value(literal).map(|value| Some((value, *inclusive))),
    }
}

/// The documents with a value between two, inclusive.
pub(super) fn in_range<T>(column: &Column<T>, low: T, high: T) -> RoaringBitmap
where
    T: Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static,
{
    // Bounds outside of what a column holds are mapped wrongly by it.
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
