//! Bounds: between which values a column lies in a part. A scan that wants the first rows of an order leaves out the
//! parts that cannot have one of them.
//!
//! They come from what the columns store: the first and the last entry of a dictionary, the least and the greatest
//! number. So they also cover documents that were deleted since the part was built.

use datafusion::{common::Result as DataFusionResult, scalar::ScalarValue};
use plan::{Column, ColumnSource, Path, Type};
use tantivy::columnar::{Column as ValueColumn, MonotonicallyMappableToU64};

use super::{
    header::Headers,
    part::{Part, index_error},
    path_tree::PathNode,
    values::micros,
};
use crate::error::Error;

/// Between which values a column lies.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnBounds {
    /// A value that no value is less than, and one that none is greater than; None if all are NULL.
    pub range: Option<(ScalarValue, ScalarValue)>,
    /// Whether a document may have NULL.
    pub has_nulls: bool,
}

/// The least and the greatest value, if there is any value; and whether a document may have none.
type Range<T> = (Option<(T, T)>, bool);

impl Part {
    /// Between which values a column lies, if the part knows it exactly. It does not where values would be converted:
    /// then every document has to be looked at to count those that do not convert.
    pub(super) fn bounds(&self, column: &Column, time_path: Option<&Path>) -> Result<Option<ColumnBounds>, Error> {
        match (&column.source, time_path) {
            (ColumnSource::Path(path), _) if !column.read_as.cast => self.path_bounds(path, column.read_as.to),
            (ColumnSource::Ingested, _) => Ok(Some(times(ingested(&self.headers)?)?)),
            (ColumnSource::Time, None) => Ok(Some(times(record_times(&self.headers)?)?)),
            (ColumnSource::Time, Some(path)) => match self.path_times(path)? {
                Some(by_path) => Ok(Some(times(or_else(by_path, || record_times(&self.headers))?)?)),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The node of a path that all documents are indexed at; `Some(None)` if no document has the path.
    fn complete_node(&self, path: &Path) -> Option<Option<(u32, &PathNode)>> {
        let keys = path.keys()?;
        match self.paths.find(keys) {
            _ if !self.paths.header_only.is_empty() => None,
            None => self.paths.untracked.is_empty().then_some(None),
            Some(id) => Some(Some((id, self.node(id)))),
        }
    }

    fn path_bounds(&self, path: &Path, to: Type) -> Result<Option<ColumnBounds>, Error> {
        let Some(node) = self.complete_node(path) else {
            return Ok(None);
        };
        let Some((id, PathNode { outside, column, .. })) = node.filter(|(_, node)| node.outside.present() > 0) else {
            return Ok(Some(ColumnBounds {
                range: None,
                has_nulls: true,
            }));
        };
        let fitting = match to {
            Type::Int => outside.ints,
            Type::Double => outside.ints + outside.floats,
            Type::Text => outside.texts,
            _ => return Ok(None),
        };
        if !column || u64::from(fitting) < outside.present() {
            return Ok(None);
        }
        let ints = || match outside.ints {
            0 => Ok(None),
            _ => Ok::<_, Error>(extremes(&self.columns.ints(id, false).map_err(index_error)?)),
        };
        let range = match to {
            Type::Int => ints()?.map(|(least, greatest)| (ScalarValue::from(least), ScalarValue::from(greatest))),
            Type::Double => {
                let floats = match outside.floats {
                    0 => None,
                    _ => extremes(&self.columns.floats(id, false).map_err(index_error)?),
                };
                let ints = ints()?.map(|(least, greatest)| (least as f64, greatest as f64));
                union(ints, floats, f64::total_cmp)
                    .map(|(least, greatest)| (ScalarValue::from(least), ScalarValue::from(greatest)))
            }
            _ => {
                let texts = self.columns.texts(id, false).map_err(index_error)?;
                let text = |text: &str| ScalarValue::Utf8View(Some(text.to_owned()));
                let bounds = texts.bounds().map_err(index_error)?;
                bounds.as_ref().map(|(least, greatest)| (text(least), text(greatest)))
            }
        };
        Ok(range.map(|range| ColumnBounds {
            range: Some(range),
            has_nulls: fitting < self.paths.documents,
        }))
    }

    /// The times that texts at a path stand for. None if the path has other values, which may be times, too.
    fn path_times(&self, path: &Path) -> Result<Option<Range<i64>>, Error> {
        let Some(node) = self.complete_node(path) else {
            return Ok(None);
        };
        let Some((id, PathNode { outside, column, .. })) = node.filter(|(_, node)| node.outside.present() > 0) else {
            return Ok(Some((None, true)));
        };
        if !column || u64::from(outside.texts) < outside.present() {
            return Ok(None);
        }
        let texts = self.columns.texts(id, false).map_err(index_error)?;
        let (range, all_are_times) = texts.time_bounds().map_err(index_error)?;
        Ok(Some((range, !all_are_times || outside.texts < self.paths.documents)))
    }
}

/// The least and the greatest value of a column, if it has any.
fn extremes<T: MonotonicallyMappableToU64 + PartialOrd + Default + std::fmt::Debug>(
    column: &ValueColumn<T>,
) -> Option<(T, T)> {
    (column.values.num_vals() > 0).then(|| (column.min_value(), column.max_value()))
}

fn union<T: Copy>(
    one: Option<(T, T)>,
    other: Option<(T, T)>,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<(T, T)> {
    match (one, other) {
        (Some((least, greatest)), Some(other)) => Some((
            std::cmp::min_by(least, other.0, &compare),
            std::cmp::max_by(greatest, other.1, &compare),
        )),
        (one, other) => one.or(other),
    }
}

/// The first values or, where they are missing, the second ones.
fn or_else(first: Range<i64>, second: impl FnOnce() -> Result<Range<i64>, Error>) -> Result<Range<i64>, Error> {
    let (range, has_nulls) = first;
    if !has_nulls {
        return Ok((range, false));
    }
    let (other, has_nulls) = second()?;
    Ok((union(range, other, i64::cmp), has_nulls))
}

fn ingested(headers: &Headers) -> Result<Range<i64>, Error> {
    let ingested = headers.ingested().map_err(index_error)?;
    Ok((
        extremes(ingested).map(|(least, greatest)| (micros(least), micros(greatest))),
        false,
    ))
}

/// The record's time or, if it has none, the time of ingestion.
fn record_times(headers: &Headers) -> Result<Range<i64>, Error> {
    let stamped = headers.time().map_err(index_error)?;
    let range = extremes(stamped).map(|(least, greatest)| (micros(least), micros(greatest)));
    or_else((range, !stamped.get_cardinality().is_full()), || ingested(headers))
}

fn times((range, has_nulls): Range<i64>) -> DataFusionResult<ColumnBounds> {
    let time = |micros: i64| ScalarValue::from(micros).cast_to(&Type::Time.arrow());
    let range = match range {
        Some((least, greatest)) => Some((time(least)?, time(greatest)?)),
        None => None,
    };
    Ok(ColumnBounds { range, has_nulls })
}
