//! Filter -> index: which documents a condition is true for, as far as an index can say so exactly.
//!
//! SQL's conditions have three values. For each condition two questions are asked of an index: where is it true, where is it false; NULL is
//! the rest. `NOT` swaps the questions, `AND` and `OR` intersect and join the answers, so nothing is guessed. What no lookup answers is
//! None: the caller evaluates the condition on values.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    logical_expr::{BinaryExpr, Expr, Like, Operator},
    scalar::ScalarValue,
};
use plan::{Column, Path, Type, What};
use roaring::RoaringBitmap;

use crate::{
    error::Error,
    split::{Literal, Lookup, Segment},
};

/// What decides conditions: a segment, or a stand-in that looks at every document.
pub trait Index {
    /// Exactly the documents for which a condition is true, or None where this index cannot say.
    fn lookup(&self, lookup: &Lookup) -> Result<Option<RoaringBitmap>, Error>;
    /// How many documents there are.
    fn documents(&self) -> u32;
}

impl Index for Segment {
    fn lookup(&self, lookup: &Lookup) -> Result<Option<RoaringBitmap>, Error> {
        Segment::lookup(self, lookup)
    }
    fn documents(&self) -> u32 {
        Segment::documents(self)
    }
}

type Found = Result<Option<RoaringBitmap>, Error>;

/// The documents for which a condition is true, or None where the index cannot say.
pub fn decide(condition: &Expr, index: &dyn Index, time_path: Option<&Path>) -> Found {
    Decider { index, time_path }.decide(condition, true)
}

struct Decider<'a> {
    index: &'a dyn Index,
    time_path: Option<&'a Path>,
}

impl Decider<'_> {
    fn all(&self) -> RoaringBitmap {
        (0..self.index.documents()).collect()
    }

    fn without(&self, found: Option<RoaringBitmap>) -> Found {
        Ok(found.map(|found| self.all() - found))
    }

    /// Where the condition is `wanted`.
    fn decide(&self, condition: &Expr, wanted: bool) -> Found {
        match condition {
            Expr::Alias(alias) => self.decide(&alias.expr, wanted),
            Expr::Literal(value, _) => self.constant(value, wanted),
            Expr::Not(inner) => self.decide(inner, !wanted),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => self.both(left, right, wanted, wanted),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => self.both(left, right, wanted, !wanted),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right, wanted),
            Expr::IsNull(inner) => self.is_null(inner, wanted),
            Expr::IsNotNull(inner) => self.is_null(inner, !wanted),
            Expr::IsTrue(inner) => self.is(inner, true, wanted),
            Expr::IsNotTrue(inner) => self.is(inner, true, !wanted),
            Expr::IsFalse(inner) => self.is(inner, false, wanted),
            Expr::IsNotFalse(inner) => self.is(inner, false, !wanted),
            Expr::IsUnknown(inner) => self.is_null(inner, wanted),
            Expr::IsNotUnknown(inner) => self.is_null(inner, !wanted),
            Expr::Between(between) => {
                let low = self.comparison(&between.expr, Operator::GtEq, &between.low, wanted != between.negated)?;
                let high = self.comparison(&between.expr, Operator::LtEq, &between.high, wanted != between.negated)?;
                Ok(combine(low, high, wanted != between.negated))
            }
            Expr::InList(list) => self.in_list(&list.expr, &list.list, wanted != list.negated),
            Expr::Like(like) => self.like(like, wanted != like.negated),
            Expr::Column(column) => match Column::parse(&column.name) {
                Some(column) => self.boolean(&column, wanted),
                None => Ok(None),
            },
            Expr::ScalarFunction(call) if call.func.name() == "starts_with" => match call.args.as_slice() {
                [subject, Expr::Literal(prefix, _)] => self.prefix(subject, prefix.try_as_str().flatten(), wanted),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn constant(&self, value: &ScalarValue, wanted: bool) -> Found {
        Ok(match value {
            ScalarValue::Boolean(Some(value)) if *value == wanted => Some(self.all()),
            ScalarValue::Boolean(_) | ScalarValue::Null => Some(RoaringBitmap::new()),
            _ => None,
        })
    }

    /// Two conditions, of which both must be `wanted` or one.
    fn both(&self, left: &Expr, right: &Expr, wanted: bool, all: bool) -> Found {
        let left = self.decide(left, wanted)?;
        if left.as_ref().is_some_and(|left| all && left.is_empty()) {
            return Ok(left);
        }
        let right = self.decide(right, wanted)?;
        if right.as_ref().is_some_and(|right| all && right.is_empty()) {
            return Ok(right);
        }
        Ok(combine(left, right, all))
    }

    /// `IS TRUE`, `IS FALSE`: never NULL themselves.
    fn is(&self, inner: &Expr, value: bool, wanted: bool) -> Found {
        let found = self.decide(inner, value)?;
        if wanted { Ok(found) } else { self.without(found) }
    }

    fn is_null(&self, inner: &Expr, wanted: bool) -> Found {
        let present = match subject(inner) {
            Some(column) => self.present(&column)?,
            None => combine(self.decide(inner, true)?, self.decide(inner, false)?, false),
        };
        if wanted { self.without(present) } else { Ok(present) }
    }

    /// Where a column is not NULL.
    fn present(&self, column: &Column) -> Found {
        match &column.what {
            What::Path(path) if !column.view.cast => self.index.lookup(&Lookup::Exists(path.clone(), column.view.to)),
            // Any value has a text.
            What::Path(path) if column.view.to == Type::Text => self.index.lookup(&Lookup::Exists(path.clone(), Type::Json)),
            What::Path(_) | What::Key => Ok(None),
            _ => Ok(Some(self.all())),
        }
    }

    /// A column that is itself a condition.
    fn boolean(&self, column: &Column, wanted: bool) -> Found {
        match &column.what {
            What::Search(clause) => {
                let found = self.index.lookup(&Lookup::Search(clause.clone()))?;
                if wanted { Ok(found) } else { self.without(found) }
            }
            What::Path(path) if column.view.to == Type::Bool && !column.view.cast => {
                self.index.lookup(&Lookup::In(path.clone(), Type::Bool, vec![Literal::Bool(wanted)]))
            }
            _ => Ok(None),
        }
    }

    fn in_list(&self, needle: &Expr, list: &[Expr], wanted: bool) -> Found {
        let Some(values) = list.iter().map(constant).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let has_null = values.iter().any(|value| value.is_null());
        if has_null && !wanted {
            return Ok(Some(RoaringBitmap::new())); // whatever is not in the list is NULL, not false
        }
        let values: Vec<&ScalarValue> = values.into_iter().filter(|value| !value.is_null()).collect();
        let Some(column) = subject(needle) else { return Ok(None) };
        let mut literals = Vec::with_capacity(values.len());
        for value in values {
            match point(&column, needle, value) {
                Some(Point::At(Literal::Double(0.0))) | None => return Ok(None),
                Some(Point::At(literal)) => literals.push(literal),
                Some(Point::After(_)) => {}
            }
        }
        self.one_of(&column, literals, wanted)
    }

    /// Where a column equals one of some values (or, if not wanted, is another value).
    fn one_of(&self, column: &Column, literals: Vec<Literal>, wanted: bool) -> Found {
        let found = match &column.what {
            What::Path(path) => match (column.view.to, literals.is_empty()) {
                (_, true) => Some(RoaringBitmap::new()),
                (to, false) => self.index.lookup(&Lookup::In(path.clone(), to, literals))?,
            },
            What::Id => self.index.lookup(&Lookup::Id(literals.into_iter().filter_map(text).collect()))?,
            What::Source => {
                let mut found = Some(RoaringBitmap::new());
                for source in literals.into_iter().filter_map(text) {
                    found = combine(found, self.index.lookup(&Lookup::Source(source))?, false);
                }
                found
            }
            What::Search(_) | What::Doc | What::Key => return Ok(None),
            _ => {
                let mut found = Some(RoaringBitmap::new());
                for number in literals.iter().filter_map(number) {
                    found = combine(found, self.header(column, number, number)?, false);
                }
                found
            }
        };
        if wanted {
            return Ok(found);
        }
        Ok(self.present(column)?.zip(found).map(|(present, found)| present - found))
    }

    /// A header's number between two bounds, both inclusive.
    fn header(&self, column: &Column, low: i64, high: i64) -> Found {
        let known = match column.what {
            What::Partition | What::Offset | What::Ingested => true,
            What::Time => self.time_path.is_none(),
            _ => false,
        };
        match known {
            true if low > high => Ok(Some(RoaringBitmap::new())),
            true => self.index.lookup(&Lookup::Header(column.what.clone(), low, high)),
            false => Ok(None),
        }
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr, wanted: bool) -> Found {
        let (subject_side, op, value) = match (constant(left), constant(right)) {
            (None, Some(value)) => (left, op, value),
            (Some(value), None) => match op.swap() {
                Some(op) => (right, op, value),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        // Where a comparison is false, its opposite is true: neither holds for a NULL.
        let op = match (op, wanted) {
            (op, true) => op,
            (Operator::IsDistinctFrom | Operator::IsNotDistinctFrom, false) => return Ok(None),
            (op, false) => match op.negate() {
                Some(op) => op,
                None => return Ok(None),
            },
        };
        let Some(column) = subject(subject_side) else { return Ok(None) };
        if value.is_null() {
            return Ok(is_order(op).then(RoaringBitmap::new));
        }
        let Some(point) = point(&column, subject_side, value) else { return Ok(None) };
        match op {
            // -0 and 0 are told apart by some and not by others.
            Operator::Gt | Operator::LtEq => self.range(&column, op, point),
            _ if point == Point::At(Literal::Double(0.0)) => Ok(None),
            Operator::Eq | Operator::NotEq => {
                let literals = match point {
                    Point::At(literal) => vec![literal],
                    Point::After(_) => vec![],
                };
                self.one_of(&column, literals, op == Operator::Eq)
            }
            Operator::GtEq | Operator::Lt => self.range(&column, op, point),
            _ => Ok(None),
        }
    }

    fn range(&self, column: &Column, op: Operator, point: Point) -> Found {
        // Between two ints, `>` and `>=` are the same: above the lower one.
        let (literal, op) = match (point, op) {
            (Point::At(literal), op) => (literal, op),
            (Point::After(literal), Operator::Gt | Operator::GtEq) => (literal, Operator::Gt),
            (Point::After(literal), _) => (literal, Operator::LtEq),
        };
        let inclusive = matches!(op, Operator::GtEq | Operator::LtEq);
        let above = matches!(op, Operator::Gt | Operator::GtEq);
        match &column.what {
            What::Path(path) => {
                let bound = Some((literal, inclusive));
                let (from, to) = if above { (bound, None) } else { (None, bound) };
                self.index.lookup(&Lookup::Range(path.clone(), column.view.to, from, to))
            }
            What::Id | What::Source => Ok(None),
            _ => {
                let Some(number) = number(&literal) else { return Ok(None) };
                let (low, high) = match (above, inclusive) {
                    (true, true) => (number, i64::MAX),
                    (true, false) if number == i64::MAX => return Ok(Some(RoaringBitmap::new())),
                    (true, false) => (number + 1, i64::MAX),
                    (false, true) => (i64::MIN, number),
                    (false, false) if number == i64::MIN => return Ok(Some(RoaringBitmap::new())),
                    (false, false) => (i64::MIN, number - 1),
                };
                self.header(column, low, high)
            }
        }
    }

    fn like(&self, like: &Like, wanted: bool) -> Found {
        let Some(pattern) = constant(&like.pattern) else { return Ok(None) };
        let Some(Some(pattern)) = pattern.try_as_str() else { return Ok(None) };
        if like.case_insensitive || like.escape_char.is_some() || pattern.contains(['_', '\\']) {
            return Ok(None);
        }
        match pattern.strip_suffix('%') {
            Some(prefix) if !prefix.contains('%') => self.prefix(&like.expr, Some(prefix), wanted),
            None if !pattern.contains('%') => {
                let op = if wanted { Operator::Eq } else { Operator::NotEq };
                self.comparison(&like.expr, op, &like.pattern, true)
            }
            _ => Ok(None),
        }
    }

    fn prefix(&self, subject_side: &Expr, prefix: Option<&str>, wanted: bool) -> Found {
        let (Some(column), Some(prefix)) = (subject(subject_side), prefix) else { return Ok(None) };
        let What::Path(path) = &column.what else { return Ok(None) };
        if column.view.to != Type::Text || column.view.cast {
            return Ok(None);
        }
        let found = match prefix {
            "" => self.present(&column)?,
            prefix => self.index.lookup(&Lookup::Prefix(path.clone(), prefix.to_owned()))?,
        };
        match wanted {
            true => Ok(found),
            false => Ok(self.present(&column)?.zip(found).map(|(present, found)| present - found)),
        }
    }
}

fn combine(left: Option<RoaringBitmap>, right: Option<RoaringBitmap>, all: bool) -> Option<RoaringBitmap> {
    left.zip(right).map(|(left, right)| if all { left & right } else { left | right })
}

fn is_order(op: Operator) -> bool {
    matches!(op, Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

/// The column that an expression is, through casts that keep the order of its values (see [`point`]). Casting views of paths are not among
/// what an index knows, nor is JSON text.
fn subject(expr: &Expr) -> Option<Column> {
    match expr {
        Expr::Column(column) => Column::parse(&column.name),
        Expr::Alias(alias) => subject(&alias.expr),
        Expr::Cast(cast) => subject(&cast.expr).filter(|column| keeps_order(column.view.to, cast.field.data_type())),
        Expr::TryCast(cast) => subject(&cast.expr).filter(|column| keeps_order(column.view.to, cast.field.data_type())),
        _ => None,
    }
}

/// Whether a cast never fails and never changes how a value compares (ints as doubles: see [`point`]).
fn keeps_order(from: Type, to: &DataType) -> bool {
    const INT64_DIGITS: i32 = 19;
    match (from, to) {
        (Type::Int, DataType::Float64 | DataType::Int64) => true,
        (Type::Int, DataType::Decimal128(precision, scale)) => i32::from(*precision) - i32::from(*scale) >= INT64_DIGITS && *scale >= 0,
        (Type::Double, DataType::Float64) | (Type::Bool, DataType::Boolean) => true,
        (Type::Time, DataType::Timestamp(TimeUnit::Microsecond, _)) => true,
        (Type::Text | Type::Json, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => true,
        _ => false,
    }
}

/// Where a literal lies among a column's values.
#[derive(Debug, Clone, PartialEq)]
enum Point {
    /// At this value.
    At(Literal),
    /// Above this int and below the next.
    After(Literal),
}

/// Where a literal lies among a column's values, where that can be said exactly and an index may know the column.
fn point(column: &Column, seen: &Expr, value: &ScalarValue) -> Option<Point> {
    const EXACT_IN_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    if matches!(column.what, What::Path(_)) && (column.view.cast || column.view.to == Type::Json) {
        return None;
    }
    let at = |literal| Some(Point::At(literal));
    match (column.view.to, value) {
        (Type::Bool, ScalarValue::Boolean(Some(bool))) => at(Literal::Bool(*bool)),
        (Type::Text, value) => at(Literal::Text(value.try_as_str()??.to_owned())),
        (Type::Double, ScalarValue::Float64(Some(double))) if double.is_finite() => at(Literal::Double(*double)),
        (Type::Int, ScalarValue::Int64(Some(int))) => at(Literal::Int(*int)),
        (Type::Int, ScalarValue::Float64(Some(double))) if double.abs() < EXACT_IN_DOUBLE_MAX && !is_plain(seen) => {
            let floor = Literal::Int(double.floor() as i64);
            Some(if double.fract() == 0.0 { Point::At(floor) } else { Point::After(floor) })
        }
        (Type::Int, ScalarValue::Decimal128(Some(decimal), _, scale)) => {
            let unit = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            among(decimal.div_euclid(unit), decimal.rem_euclid(unit) == 0, Literal::Int)
        }
        (Type::Time, ScalarValue::TimestampSecond(Some(time), _)) => among(i128::from(*time) * 1_000_000, true, Literal::Time),
        (Type::Time, ScalarValue::TimestampMillisecond(Some(time), _)) => among(i128::from(*time) * 1_000, true, Literal::Time),
        (Type::Time, ScalarValue::TimestampMicrosecond(Some(time), _)) => at(Literal::Time(*time)),
        _ => None,
    }
}

fn is_plain(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

fn among(floor: i128, exact: bool, literal: fn(i64) -> Literal) -> Option<Point> {
    let literal = literal(i64::try_from(floor).ok()?);
    Some(if exact { Point::At(literal) } else { Point::After(literal) })
}

fn text(literal: Literal) -> Option<String> {
    match literal {
        Literal::Text(text) => Some(text),
        _ => None,
    }
}

fn number(literal: &Literal) -> Option<i64> {
    match literal {
        Literal::Int(number) | Literal::Time(number) => Some(*number),
        _ => None,
    }
}
