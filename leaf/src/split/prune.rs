//! Prune: whether any document of a part can match a condition, by the statistics of the part alone.
//!
//! Nothing of the part is read for it but what opening it has read. Documents of which the part does not know the
//! values may match anything, so a part with such documents is left out only by conditions on headers.

use plan::{ColumnSource, Path, Type};

use super::{
    Literal, Lookup,
    part::Part,
    path_tree::ArrayScope,
    statistics::{Bound, Bounds},
};

/// What a part knows without reading its columns.
#[derive(Clone, Copy)]
pub(crate) struct PartStatistics<'a>(pub(super) &'a Part);

impl PartStatistics<'_> {
    /// Whether the condition may be true for a document of the part.
    pub(crate) fn may_match(&self, lookup: &Lookup) -> bool {
        match lookup {
            Lookup::In(path, to, values) => self.may_have(path, |scope| {
                let equal = |value| may_lie(scope, *to, Some((value, true)), Some((value, true)));
                values.iter().any(equal)
            }),
            Lookup::Range(path, to, from, until) => self.may_have(path, |scope| {
                may_lie(scope, *to, borrowed(from.as_ref()), borrowed(until.as_ref()))
            }),
            Lookup::StringPrefix(path, prefix) => self.may_have(path, |scope| scope.bounds.may_have_prefix(prefix)),
            Lookup::Containing(path, _) => self.may_have(path, |scope| may_exist(scope, Type::Text)),
            Lookup::Exists(path, to) => self.may_have(path, |scope| may_exist(scope, *to)),
            Lookup::NoText(path) => self.may_have(path, |scope| {
                scope.present() > u64::from(scope.texts) + scope.long_texts.len()
            }),
            Lookup::Header(source, low, high) => self.may_have_header(source, *low, *high),
            Lookup::HeaderIn(source, values) => values.iter().any(|value| self.may_have_header(source, *value, *value)),
            Lookup::Source(name) => self.0.headers.runs.iter().any(|run| run.source.as_str() == name),
            Lookup::Search(_) | Lookup::Id(_) => true,
        }
    }

    /// Whether `holds` for the values at a path, or a value there may be unknown.
    fn may_have(&self, path: &Path, holds: impl FnOnce(&ArrayScope) -> bool) -> bool {
        let Some(keys) = path.keys() else { return true };
        let paths = &self.0.paths;
        match paths.find(keys) {
            None => !paths.incomplete().is_empty(),
            Some(id) => {
                let node = self.0.node(id);
                !node.column || !paths.header_only.is_empty() || holds(&node.outside)
            }
        }
    }

    fn may_have_header(&self, source: &ColumnSource, low: i64, high: i64) -> bool {
        let headers = &self.0.headers;
        let overlaps = |(least, greatest): (i64, i64)| least <= high && low <= greatest;
        let times = |bounds: Bounds<i64>| {
            bounds.is_some_and(|(least, greatest)| {
                overlaps((least.saturating_mul(1_000), greatest.saturating_mul(1_000)))
            })
        };
        match source {
            ColumnSource::Ingested => times(self.0.paths.times.ingested_ms),
            ColumnSource::Time => times(self.0.paths.times.time_ms),
            ColumnSource::Offset => overlaps((headers.offset.min_value(), headers.offset.max_value())),
            ColumnSource::Partition => {
                let mut partitions = headers.runs.iter().map(|run| i64::from(run.partition));
                partitions.any(|partition| overlaps((partition, partition)))
            }
            _ => true,
        }
    }
}

/// Whether a value, read strictly as this type, may lie in a range.
fn may_lie(scope: &ArrayScope, to: Type, from: Bound<&Literal>, until: Bound<&Literal>) -> bool {
    match to {
        Type::Int => {
            let int = |literal: &Literal| match literal {
                Literal::Int(int) => Some(*int),
                _ => None,
            };
            typed(from, until, int).is_none_or(|(from, until)| scope.bounds.may_have_int(from, until))
        }
        Type::Double => {
            let double = |literal: &Literal| match literal {
                Literal::Double(double) if !double.is_nan() => Some(*double),
                _ => None,
            };
            typed(from, until, double).is_none_or(|(from, until)| scope.bounds.may_have_double(from, until))
        }
        Type::Text => match (text(from), text(until)) {
            (Some(low), Some(high)) => scope.bounds.may_have_text(low, high),
            _ => true,
        },
        Type::Bool | Type::Time | Type::Json | Type::Canonical | Type::Rank => may_exist(scope, to),
    }
}

/// Whether a value other than null, read strictly as this type, may exist.
fn may_exist(scope: &ArrayScope, to: Type) -> bool {
    match to {
        Type::Bool => scope.bools > 0,
        Type::Int => scope.ints > 0,
        Type::Double => scope.ints > 0 || scope.floats > 0,
        Type::Text | Type::Time => scope.bounds.texts.is_some(),
        Type::Json | Type::Canonical | Type::Rank => scope.present() > 0,
    }
}

fn borrowed(bound: Option<&(Literal, bool)>) -> Bound<&Literal> {
    bound.map(|(value, inclusive)| (value, *inclusive))
}

/// The ends of a range, or none if an end has another type.
fn typed<T>(
    from: Bound<&Literal>,
    until: Bound<&Literal>,
    value: impl Fn(&Literal) -> Option<T>,
) -> Option<(Bound<T>, Bound<T>)> {
    let end = |bound: Bound<&Literal>| match bound {
        None => Some(None),
        Some((literal, inclusive)) => value(literal).map(|value| Some((value, inclusive))),
    };
    end(from).zip(end(until))
}

/// The text of an end; none if it has another type.
fn text(bound: Bound<&Literal>) -> Option<Option<&str>> {
    match bound {
        None => Some(None),
        Some((Literal::Text(text), _)) => Some(Some(text)),
        Some(_) => None,
    }
}
