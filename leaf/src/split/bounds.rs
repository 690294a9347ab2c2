//! Bounds: between which values a column lies in a part. A scan that wants the first rows of an order leaves out the
//! parts that cannot have one of them.
//!
//! They come from the statistics of the part and, for texts, from the first and the last entry of the dictionary. So
//! they also cover documents that were deleted since the part was built.

use std::cmp::Ordering;

use datafusion::{common::Result as DataFusionResult, scalar::ScalarValue};
use plan::{Column, ColumnSource, Path, Type};

use super::{
    part::{Part, index_error},
    path_tree::PathNode,
    statistics::Bounds,
    values::micros,
};
use crate::error::Error;

/// Between which values a column lies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnBounds {
    /// A value that no value is less than, and one that none is greater than; None if all are NULL.
    pub range: Option<(ScalarValue, ScalarValue)>,
    /// Whether a document may have NULL.
    pub has_nulls: bool,
}

impl Part {
    /// Between which values a column lies, if the part knows it exactly. It does not where values would be converted:
    /// then every document has to be looked at to count those that do not convert.
    pub(super) fn bounds(&self, column: &Column, time_path: Option<&Path>) -> Result<Option<ColumnBounds>, Error> {
        match (&column.source, time_path) {
            (ColumnSource::Path(path), _) if !column.read_as.cast => self.path_bounds(path, column.read_as.to),
            (ColumnSource::Ingested, _) => Ok(Some(times(in_micros(self.paths.times.ingested_ms))?)),
            (ColumnSource::Time, None) => Ok(Some(times(in_micros(self.paths.times.time_ms))?)),
            (ColumnSource::Time, Some(path)) => match self.path_times(path)? {
                Some((by_path, true)) => Ok(Some(times(by_path)?)),
                Some((by_path, false)) => Ok(Some(times(union(
                    by_path,
                    in_micros(self.paths.times.time_ms),
                    i64::cmp,
                ))?)),
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
        let bounds = &outside.bounds;
        let range = match to {
            Type::Int => (bounds.ints).map(|(least, greatest)| (ScalarValue::from(least), ScalarValue::from(greatest))),
            Type::Double => {
                let ints = bounds.ints.map(|(least, greatest)| (least as f64, greatest as f64));
                union(ints, bounds.floats, f64::total_cmp)
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

    /// The times that texts at a path stand for, in microseconds since 1970, and whether every document has one. None
    /// if the path has other values, which may be times, too.
    fn path_times(&self, path: &Path) -> Result<Option<(Bounds<i64>, bool)>, Error> {
        let Some(node) = self.complete_node(path) else {
            return Ok(None);
        };
        let Some((id, PathNode { outside, column, .. })) = node.filter(|(_, node)| node.outside.present() > 0) else {
            return Ok(Some((None, false)));
        };
        if !column || u64::from(outside.texts) < outside.present() {
            return Ok(None);
        }
        let texts = self.columns.texts(id, false).map_err(index_error)?;
        let (range, all_are_times) = texts.time_bounds().map_err(index_error)?;
        Ok(Some((range, all_are_times && outside.texts == self.paths.documents)))
    }
}

fn union<T: Copy>(one: Bounds<T>, other: Bounds<T>, compare: impl Fn(&T, &T) -> Ordering) -> Bounds<T> {
    match (one, other) {
        (Some((least, greatest)), Some(other)) => Some((
            std::cmp::min_by(least, other.0, &compare),
            std::cmp::max_by(greatest, other.1, &compare),
        )),
        (one, other) => one.or(other),
    }
}

fn in_micros(bounds: Bounds<i64>) -> Bounds<i64> {
    bounds.map(|(least, greatest)| (micros(least), micros(greatest)))
}

/// Every document has a time.
fn times(range: Bounds<i64>) -> DataFusionResult<ColumnBounds> {
    let time = |micros: i64| ScalarValue::from(micros).cast_to(&Type::Time.arrow());
    let range = match range {
        Some((least, greatest)) => Some((time(least)?, time(greatest)?)),
        None => None,
    };
    Ok(ColumnBounds {
        range,
        has_nulls: false,
    })
}
