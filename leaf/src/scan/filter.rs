//! Filter pushdown to an index: finds the documents for which a condition is certainly true and those for which it may
//! be true.
//!
//! SQL conditions have three values. Each condition is looked up twice: where it is true and where it is false; it is
//! NULL for all other documents. `NOT` swaps the two lookups; `AND` and `OR` intersect and unite their results, so the
//! result is exact wherever the lookups are. A result has two sets: documents that certainly match, and documents that
//! possibly match. For those only in the second set, the caller evaluates the condition on values.

mod literal;
mod needles;
mod preimage;

use datafusion::{
    logical_expr::{BinaryExpr, Expr, Like, Operator},
    scalar::ScalarValue,
};
use plan::{Column, ColumnSource, Path, Type};
use proto::json::Value;
use roaring::RoaringBitmap;

use literal::{EXACT_IN_DOUBLE_MAX, Point, canonical_path, constant, is_zero, number, point, subject, text};
pub(super) use needles::Needles;
use preimage::{TextSet, where_equal, where_true};

use crate::{
    error::Error,
    matches::Matches,
    split::{Literal, Lookup, PartStatistics, SegmentPart},
};

/// Looks conditions up: a part of a segment, or a reference implementation that checks every document.
pub(crate) trait Index {
    /// Where a condition is true, as far as the index can tell; `None` if it cannot look it up.
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Matches>, Error>;
    /// Number of documents in the index.
    fn documents(&self) -> u32;
}

impl Index for SegmentPart<'_> {
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Matches>, Error> {
        self.find_matches(lookup)
    }
    fn documents(&self) -> u32 {
        SegmentPart::documents(self).len() as u32
    }
}

/// The first condition that no document of a part can satisfy, by the statistics of the part alone.
pub(super) fn excluding<'e>(
    part: SegmentPart<'_>,
    conditions: impl Iterator<Item = &'e Expr>,
    time_path: Option<&Path>,
) -> Result<Option<usize>, Error> {
    let statistics = part.statistics();
    for (number, condition) in conditions.enumerate() {
        if matches(condition, &statistics, time_path)?.is_empty() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// A part as one document that stands for all: where no lookup can be true of it, the condition is true for none.
impl Index for PartStatistics<'_> {
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Matches>, Error> {
        Ok((!self.may_match(lookup)).then(Matches::default))
    }
    fn documents(&self) -> u32 {
        1
    }
}

type MatchResult = Result<Matches, Error>;

/// Where a condition is true, as far as an index can tell.
pub(super) fn matches(condition: &Expr, index: &dyn Index, time_path: Option<&Path>) -> MatchResult {
    FilterAnalyzer { index, time_path }.matches(condition, true)
}

struct FilterAnalyzer<'a> {
    index: &'a dyn Index,
    time_path: Option<&'a Path>,
}

impl FilterAnalyzer<'_> {
    fn all(&self) -> Matches {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.index.documents());
        Matches::certain(all)
    }

    /// Any document may match.
    fn unknown(&self) -> MatchResult {
        Ok(self.all().into_candidates())
    }

    fn lookup(&self, lookup: &Lookup) -> MatchResult {
        self.index.lookup(lookup)?.map_or_else(|| self.unknown(), Ok)
    }

    /// Where the condition's value is `truth`.
    fn matches(&self, condition: &Expr, truth: bool) -> MatchResult {
        match condition {
            Expr::Alias(alias) => self.matches(&alias.expr, truth),
            Expr::Literal(value, _) => self.constant(value, truth),
            Expr::Not(inner) => self.matches(inner, !truth),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => self.combine(left, right, truth, truth),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Or,
                right,
            }) => self.combine(left, right, truth, !truth),
            Expr::BinaryExpr(BinaryExpr {
                op: Operator::RegexMatch,
                ..
            }) if truth => self.in_text_set(where_true(condition)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right, truth),
            Expr::IsNull(inner) => self.is_null(inner, truth),
            Expr::IsNotNull(inner) => self.is_null(inner, !truth),
            Expr::IsTrue(inner) => self.is_truth(inner, true, truth),
            Expr::IsNotTrue(inner) => self.is_truth(inner, true, !truth),
            Expr::IsFalse(inner) => self.is_truth(inner, false, truth),
            Expr::IsNotFalse(inner) => self.is_truth(inner, false, !truth),
            Expr::IsUnknown(inner) => self.is_null(inner, truth),
            Expr::IsNotUnknown(inner) => self.is_null(inner, !truth),
            Expr::Between(between) => {
                let low = self.comparison(&between.expr, Operator::GtEq, &between.low, truth != between.negated)?;
                let high = self.comparison(&between.expr, Operator::LtEq, &between.high, truth != between.negated)?;
                Ok(if truth != between.negated {
                    low.and(&high)
                } else {
                    low.or(&high)
                })
            }
            Expr::InList(list) => self.in_list(&list.expr, &list.list, truth != list.negated),
            Expr::Like(like) => self.like(like, truth != like.negated),
            Expr::Column(column) => match Column::parse(&column.name) {
                Some(column) => self.boolean(&column, truth),
                None => self.unknown(),
            },
            Expr::ScalarFunction(call) if call.func.name() == "starts_with" => match call.args.as_slice() {
                [subject, Expr::Literal(prefix, _)] => self.prefix(subject, prefix.try_as_str().flatten(), truth),
                _ => self.unknown(),
            },
            condition if truth => self.in_text_set(where_true(condition)),
            _ => self.unknown(),
        }
    }

    fn constant(&self, value: &ScalarValue, truth: bool) -> MatchResult {
        match value {
            ScalarValue::Boolean(Some(value)) if *value == truth => Ok(self.all()),
            ScalarValue::Boolean(_) | ScalarValue::Null => Ok(Matches::default()),
            _ => self.unknown(),
        }
    }

    /// Where the value of both conditions (if `all`) or of either one is `truth`.
    fn combine(&self, left: &Expr, right: &Expr, truth: bool, all: bool) -> MatchResult {
        let left = self.matches(left, truth)?;
        if all && left.is_empty() {
            return Ok(left);
        }
        let right = self.matches(right, truth)?;
        Ok(if all { left.and(&right) } else { left.or(&right) })
    }

    /// `IS TRUE` and `IS FALSE`, which are never NULL.
    fn is_truth(&self, inner: &Expr, value: bool, truth: bool) -> MatchResult {
        let found = self.matches(inner, value)?;
        Ok(if truth { found } else { self.all().without(&found) })
    }

    fn is_null(&self, inner: &Expr, truth: bool) -> MatchResult {
        let present = match subject(inner) {
            Some(column) => self.present(&column)?,
            None => self.matches(inner, true)?.or(&self.matches(inner, false)?),
        };
        Ok(if truth { self.all().without(&present) } else { present })
    }

    /// Where a column is not NULL.
    fn present(&self, column: &Column) -> MatchResult {
        match &column.source {
            ColumnSource::Path(path) if !column.read_as.cast => {
                self.lookup(&Lookup::Exists(path.clone(), column.read_as.to))
            }
            // Every value can be cast to text.
            ColumnSource::Path(path) if column.read_as.to == Type::Text => {
                self.lookup(&Lookup::Exists(path.clone(), Type::Json))
            }
            // A missing value cannot be cast; a present one may fail to.
            ColumnSource::Path(path) => Ok(self
                .lookup(&Lookup::Exists(path.clone(), Type::Json))?
                .into_candidates()),
            ColumnSource::Key | ColumnSource::Tokens(_) => self.unknown(),
            _ => Ok(self.all()),
        }
    }

    /// A column that is itself a condition.
    fn boolean(&self, column: &Column, truth: bool) -> MatchResult {
        match &column.source {
            ColumnSource::Search(clause) => {
                let found = self.lookup(&Lookup::Search(clause.clone()))?;
                Ok(if truth { found } else { self.all().without(&found) })
            }
            ColumnSource::Path(path) if column.read_as.to == Type::Bool && !column.read_as.cast => {
                self.lookup(&Lookup::In(path.clone(), Type::Bool, vec![Literal::Bool(truth)]))
            }
            _ => self.where_present(column),
        }
    }

    /// A condition that only the column's values decide. It is never true for NULL.
    fn where_present(&self, column: &Column) -> MatchResult {
        Ok(self.present(column)?.into_candidates())
    }

    /// Documents whose text may lie in a set.
    fn in_text_set(&self, set: Option<TextSet>) -> MatchResult {
        let Some(TextSet { column, path, patterns }) = set else {
            return self.unknown();
        };
        let mut found = Matches::default();
        for pattern in patterns {
            found = found.or(&self.text_lookup(&column, &pattern.lookup(path.clone()))?);
        }
        Ok(found.into_candidates())
    }

    /// A lookup of strings at the path of a column of texts. If the column is read with a cast, other values have a
    /// text, too, which is in no dictionary.
    fn text_lookup(&self, column: &Column, lookup: &Lookup) -> MatchResult {
        let found = self.lookup(lookup)?;
        match &column.source {
            ColumnSource::Path(path) if column.read_as.cast => {
                Ok(found.or(&self.lookup(&Lookup::NoText(path.clone()))?.into_candidates()))
            }
            _ => Ok(found),
        }
    }

    fn in_list(&self, needle: &Expr, list: &[Expr], truth: bool) -> MatchResult {
        let Some(values) = list.iter().map(constant).collect::<Option<Vec<_>>>() else {
            return self.unknown();
        };
        let has_null = values.iter().any(|value| value.is_null());
        if has_null && !truth {
            return Ok(Matches::default()); // with a NULL in the list, NOT IN is never true
        }
        let values: Vec<&ScalarValue> = values.into_iter().filter(|value| !value.is_null()).collect();
        let Some(column) = subject(needle) else {
            let equal = |value: &&ScalarValue| where_equal(needle, value.try_as_str()??);
            return match values.iter().map(equal).collect::<Option<Vec<_>>>() {
                Some(sets) if truth => sets.into_iter().try_fold(Matches::default(), |found, set| {
                    Ok(found.or(&self.in_text_set(Some(set))?))
                }),
                _ => self.unknown(),
            };
        };
        if let Some(path) = canonical_path(&column) {
            let values: Option<Vec<&str>> = values.iter().map(|value| value.try_as_str().flatten()).collect();
            return values.map_or_else(
                || self.unknown(),
                |values| self.equal_to_one_of(&column, path, &values, truth),
            );
        }
        let mut literals = Vec::with_capacity(values.len());
        for value in values {
            match point(&column, needle, value) {
                None => return self.where_present(&column),
                Some(point) if is_zero(&point) => return self.where_present(&column),
                Some(Point::At(literal)) => literals.push(literal),
                Some(Point::After(_)) => {}
            }
        }
        self.one_of(&column, literals, truth)
    }

    /// Where a column equals one of these values or, if `truth` is false, has another value.
    fn one_of(&self, column: &Column, literals: Vec<Literal>, truth: bool) -> MatchResult {
        let found = match &column.source {
            ColumnSource::Path(_) if literals.is_empty() => Matches::default(),
            ColumnSource::Path(path) => {
                self.text_lookup(column, &Lookup::In(path.clone(), column.read_as.to, literals))?
            }
            ColumnSource::Id => self.lookup(&Lookup::Id(literals.into_iter().filter_map(text).collect()))?,
            ColumnSource::Source => {
                let mut found = Matches::default();
                for source in literals.into_iter().filter_map(text) {
                    found = found.or(&self.lookup(&Lookup::Source(source))?);
                }
                found
            }
            ColumnSource::Search(_)
            | ColumnSource::Doc
            | ColumnSource::Key
            | ColumnSource::Tokens(_)
            | ColumnSource::Score(_) => return self.unknown(),
            _ => match literals.iter().filter_map(number).collect::<Vec<i64>>()[..] {
                [number] => self.header(column, number, number)?,
                ref numbers if self.is_indexed_header(column) => {
                    self.lookup(&Lookup::HeaderIn(column.source.clone(), numbers.to_vec()))?
                }
                _ => return self.unknown(),
            },
        };
        Ok(if truth {
            found
        } else {
            self.present(column)?.without(&found)
        })
    }

    /// Where the value at a path equals one of these canonical JSON texts or, if `truth` is false, is another value.
    fn equal_to_one_of(&self, column: &Column, path: &Path, values: &[&str], truth: bool) -> MatchResult {
        let (mut bools, mut texts, mut doubles) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            match proto::json::parse(value.as_bytes()).unwrap_or(Value::Null) {
                Value::Bool(bool) => bools.push(Literal::Bool(bool)),
                Value::Text(text) => texts.push(Literal::Text(text.to_string())),
                // Columns distinguish -0 from 0.
                Value::Int(0) => doubles.extend([Literal::Double(0.0), Literal::Double(-0.0)]),
                Value::Int(int) if (int as f64).abs() < EXACT_IN_DOUBLE_MAX => {
                    doubles.push(Literal::Double(int as f64));
                }
                Value::Float(double) if double.fract() != 0.0 => doubles.push(Literal::Double(double)),
                _ => return self.where_present(column),
            }
        }
        let mut found = Matches::default();
        for (to, literals) in [(Type::Bool, bools), (Type::Text, texts), (Type::Double, doubles)] {
            if !literals.is_empty() {
                found = found.or(&self.lookup(&Lookup::In(path.clone(), to, literals))?);
            }
        }
        Ok(if truth {
            found
        } else {
            self.present(column)?.without(&found)
        })
    }

    /// A numeric header column between two inclusive bounds.
    fn header(&self, column: &Column, low: i64, high: i64) -> MatchResult {
        match self.is_indexed_header(column) {
            true if low > high => Ok(Matches::default()),
            true => self.lookup(&Lookup::Header(column.source.clone(), low, high)),
            false => self.unknown(),
        }
    }

    fn is_indexed_header(&self, column: &Column) -> bool {
        match column.source {
            ColumnSource::Partition | ColumnSource::Offset | ColumnSource::Ingested => true,
            ColumnSource::Time => self.time_path.is_none(),
            _ => false,
        }
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr, truth: bool) -> MatchResult {
        let Some((subject_expr, op, value)) = normalize(left, op, right, truth) else {
            return self.unknown();
        };
        let Some(column) = subject(subject_expr) else {
            return match (op, value.try_as_str()) {
                (Operator::Eq, Some(Some(value))) => self.in_text_set(where_equal(subject_expr, value)),
                _ => self.unknown(),
            };
        };
        if value.is_null() {
            return if is_comparison(op) {
                Ok(Matches::default())
            } else {
                self.unknown()
            };
        }
        if let (Some(path), Operator::Eq | Operator::NotEq, Some(Some(value))) =
            (canonical_path(&column), op, value.try_as_str())
        {
            return self.equal_to_one_of(&column, path, &[value], op == Operator::Eq);
        }
        let Some(point) = point(&column, subject_expr, value) else {
            return if is_comparison(op) {
                self.where_present(&column)
            } else {
                self.unknown()
            };
        };
        match op {
            // Some comparisons distinguish -0 from 0 and others do not.
            _ if is_zero(&point) && !matches!(op, Operator::Gt | Operator::LtEq) && is_comparison(op) => {
                self.where_present(&column)
            }
            Operator::Eq | Operator::NotEq => {
                let literals = match point {
                    Point::At(literal) => vec![literal],
                    Point::After(_) => vec![],
                };
                self.one_of(&column, literals, op == Operator::Eq)
            }
            Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq => self.range(&column, op, point),
            _ => self.unknown(),
        }
    }

    fn range(&self, column: &Column, op: Operator, point: Point) -> MatchResult {
        // Between two ints, `>` and `>=` mean the same: greater than the lower int.
        let (literal, op) = match (point, op) {
            (Point::At(literal), op) => (literal, op),
            (Point::After(literal), Operator::Gt | Operator::GtEq) => (literal, Operator::Gt),
            (Point::After(literal), _) => (literal, Operator::LtEq),
        };
        let inclusive = matches!(op, Operator::GtEq | Operator::LtEq);
        let above = matches!(op, Operator::Gt | Operator::GtEq);
        match &column.source {
            ColumnSource::Path(path) => {
                let bound = Some((literal, inclusive));
                let (from, to) = if above { (bound, None) } else { (None, bound) };
                self.text_lookup(column, &Lookup::Range(path.clone(), column.read_as.to, from, to))
            }
            ColumnSource::Id | ColumnSource::Source | ColumnSource::Tokens(_) | ColumnSource::Score(_) => {
                self.unknown()
            }
            _ => {
                let Some(number) = number(&literal) else {
                    return self.unknown();
                };
                let (low, high) = match (above, inclusive) {
                    (true, true) => (number, i64::MAX),
                    (true, false) if number == i64::MAX => return Ok(Matches::default()),
                    (true, false) => (number + 1, i64::MAX),
                    (false, true) => (i64::MIN, number),
                    (false, false) if number == i64::MIN => return Ok(Matches::default()),
                    (false, false) => (i64::MIN, number - 1),
                };
                self.header(column, low, high)
            }
        }
    }

    fn like(&self, like: &Like, truth: bool) -> MatchResult {
        let Some(pattern) = constant(&like.pattern) else {
            return self.unknown();
        };
        let Some(Some(pattern)) = pattern.try_as_str() else {
            return self.unknown();
        };
        let is_plain = !like.case_insensitive && !pattern.contains(['_', '\\']);
        match pattern.strip_suffix('%') {
            _ if like.escape_char.is_some() => self.unknown(),
            Some(prefix) if is_plain && !prefix.contains('%') => self.prefix(&like.expr, Some(prefix), truth),
            None if is_plain && !pattern.contains('%') => {
                let op = if truth { Operator::Eq } else { Operator::NotEq };
                self.comparison(&like.expr, op, &like.pattern, true)
            }
            _ if truth => self.containing(like, pattern),
            _ => self.unknown(),
        }
    }

    /// Where a text may match a pattern: a word of the text contains the longest word of the pattern.
    fn containing(&self, like: &Like, pattern: &str) -> MatchResult {
        // Without case, these equal letters beyond ASCII.
        let has_relatives = |char: char| like.case_insensitive && matches!(char, 'k' | 'K' | 's' | 'S');
        let words = pattern.split(|char: char| !char.is_ascii_alphanumeric() || has_relatives(char));
        let word = words.max_by_key(|word| word.len()).unwrap_or_default();
        let Some(column) = subject(&like.expr).filter(|column| column.read_as.to == Type::Text) else {
            return self.unknown();
        };
        match &column.source {
            ColumnSource::Path(path) if !word.is_empty() => {
                let lookup = Lookup::Containing(path.clone(), word.to_ascii_lowercase());
                Ok(self.text_lookup(&column, &lookup)?.into_candidates())
            }
            _ => self.unknown(),
        }
    }

    fn prefix(&self, subject_expr: &Expr, prefix: Option<&str>, truth: bool) -> MatchResult {
        let (Some(column), Some(prefix)) = (subject(subject_expr), prefix) else {
            return self.unknown();
        };
        let ColumnSource::Path(path) = &column.source else {
            return self.unknown();
        };
        if column.read_as.to != Type::Text {
            return self.where_present(&column);
        }
        let found = match prefix {
            "" => self.present(&column)?,
            prefix => self.text_lookup(&column, &Lookup::StringPrefix(path.clone(), prefix.to_owned()))?,
        };
        Ok(if truth {
            found
        } else {
            self.present(&column)?.without(&found)
        })
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    )
}

/// A comparison of a column with a constant that is true where the original one has the value `truth`: column on the
/// left, constant on the right.
fn normalize<'e>(
    left: &'e Expr,
    op: Operator,
    right: &'e Expr,
    truth: bool,
) -> Option<(&'e Expr, Operator, &'e ScalarValue)> {
    let (subject_expr, op, value) = match (constant(left), constant(right)) {
        (None, Some(value)) => (left, op, value),
        (Some(value), None) => (right, op.swap()?, value),
        _ => return None,
    };
    // A comparison is false where its opposite is true; for NULL neither is true.
    let op = match (op, truth) {
        (op, true) => op,
        (Operator::IsDistinctFrom | Operator::IsNotDistinctFrom, false) => return None,
        (op, false) => op.negate()?,
    };
    Some((subject_expr, op, value))
}
