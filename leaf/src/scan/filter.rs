//! Filter -> index: which documents a condition is true for, as far as an index can say so exactly.
//!
//! SQL's conditions have three values. For each condition two questions are asked of an index: where is it true, where
//! is it false; NULL is the rest. `NOT` swaps the questions, `AND` and `OR` intersect and join the answers, so nothing
//! is guessed. An answer is a pair: documents for which it is so, and documents for which it may be so. For those
//! between, the caller evaluates the condition on values.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    logical_expr::{BinaryExpr, Expr, Like, Operator},
    scalar::ScalarValue,
};
use plan::{Column, Path, Type, What};
use proto::json::Value;
use roaring::RoaringBitmap;

use crate::{
    error::Error,
    split::{Literal, Lookup, Narrowed, Segment},
};

/// What decides conditions: a segment, or a stand-in that looks at every document.
pub trait Index {
    /// Where a condition is true, as far as this index can say; None where it knows nothing of it.
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Known>, Error>;
    /// How many documents there are.
    fn documents(&self) -> u32;
}

impl Index for Segment {
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Known>, Error> {
        Ok(self.narrow(lookup)?.map(|Narrowed { sure, doubtful }| Known {
            possible: &sure | doubtful,
            sure,
        }))
    }
    fn documents(&self) -> u32 {
        Segment::documents(self)
    }
}

/// What is known of where a condition is true: everywhere in `sure`, nowhere outside of `possible`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Documents for which it is true.
    pub sure: RoaringBitmap,
    /// Documents for which it may be true, those of `sure` among them.
    pub possible: RoaringBitmap,
}

impl Known {
    /// There and nowhere else.
    pub fn exactly(found: RoaringBitmap) -> Self {
        Self {
            sure: found.clone(),
            possible: found,
        }
    }

    /// Whether nothing is left open.
    pub fn is_exact(&self) -> bool {
        self.sure.len() == self.possible.len()
    }

    /// Where both are true.
    pub fn and(self, other: &Self) -> Self {
        Self {
            sure: self.sure & &other.sure,
            possible: self.possible & &other.possible,
        }
    }

    fn or(self, other: &Self) -> Self {
        Self {
            sure: self.sure | &other.sure,
            possible: self.possible | &other.possible,
        }
    }

    /// Where this is true and the other is not true.
    fn without(self, other: &Self) -> Self {
        Self {
            sure: self.sure - &other.possible,
            possible: self.possible - &other.sure,
        }
    }
}

type Found = Result<Known, Error>;

/// Where a condition is true, as far as an index can say.
pub fn decide(condition: &Expr, index: &dyn Index, time_path: Option<&Path>) -> Found {
    Decider { index, time_path }.decide(condition, true)
}

struct Decider<'a> {
    index: &'a dyn Index,
    time_path: Option<&'a Path>,
}

impl Decider<'_> {
    fn all(&self) -> Known {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.index.documents());
        Known::exactly(all)
    }

    /// Nothing is known.
    fn unknown(&self) -> Found {
        Ok(Known {
            sure: RoaringBitmap::new(),
            ..self.all()
        })
    }

    fn lookup(&self, lookup: &Lookup) -> Found {
        self.index.lookup(lookup)?.map_or_else(|| self.unknown(), Ok)
    }

    /// Where the condition is `wanted`.
    fn decide(&self, condition: &Expr, wanted: bool) -> Found {
        match condition {
            Expr::Alias(alias) => self.decide(&alias.expr, wanted),
            Expr::Literal(value, _) => self.constant(value, wanted),
            Expr::Not(inner) => self.decide(inner, !wanted),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => self.both(left, right, wanted, wanted),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Or,
                right,
            }) => self.both(left, right, wanted, !wanted),
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
                Ok(if wanted != between.negated {
                    low.and(&high)
                } else {
                    low.or(&high)
                })
            }
            Expr::InList(list) => self.in_list(&list.expr, &list.list, wanted != list.negated),
            Expr::Like(like) => self.like(like, wanted != like.negated),
            Expr::Column(column) => match Column::parse(&column.name) {
                Some(column) => self.boolean(&column, wanted),
                None => self.unknown(),
            },
            Expr::ScalarFunction(call) if call.func.name() == "starts_with" => match call.args.as_slice() {
                [subject, Expr::Literal(prefix, _)] => self.prefix(subject, prefix.try_as_str().flatten(), wanted),
                _ => self.unknown(),
            },
            _ => self.unknown(),
        }
    }

    fn constant(&self, value: &ScalarValue, wanted: bool) -> Found {
        match value {
            ScalarValue::Boolean(Some(value)) if *value == wanted => Ok(self.all()),
            ScalarValue::Boolean(_) | ScalarValue::Null => Ok(Known::default()),
            _ => self.unknown(),
        }
    }

    /// Two conditions, of which both must be `wanted` or one.
    fn both(&self, left: &Expr, right: &Expr, wanted: bool, all: bool) -> Found {
        let left = self.decide(left, wanted)?;
        if all && left.possible.is_empty() {
            return Ok(left);
        }
        let right = self.decide(right, wanted)?;
        Ok(if all { left.and(&right) } else { left.or(&right) })
    }

    /// `IS TRUE`, `IS FALSE`: never NULL themselves.
    fn is(&self, inner: &Expr, value: bool, wanted: bool) -> Found {
        let found = self.decide(inner, value)?;
        Ok(if wanted { found } else { self.all().without(&found) })
    }

    fn is_null(&self, inner: &Expr, wanted: bool) -> Found {
        let present = match subject(inner) {
            Some(column) => self.present(&column)?,
            None => self.decide(inner, true)?.or(&self.decide(inner, false)?),
        };
        Ok(if wanted { self.all().without(&present) } else { present })
    }

    /// Where a column is not NULL.
    fn present(&self, column: &Column) -> Found {
        match &column.what {
            What::Path(path) if !column.view.cast => self.lookup(&Lookup::Exists(path.clone(), column.view.to)),
            // Any value has a text.
            What::Path(path) if column.view.to == Type::Text => self.lookup(&Lookup::Exists(path.clone(), Type::Json)),
            // What is not there cannot be converted.
            What::Path(path) => Ok(Known {
                sure: RoaringBitmap::new(),
                ..self.lookup(&Lookup::Exists(path.clone(), Type::Json))?
            }),
            What::Key => self.unknown(),
            _ => Ok(self.all()),
        }
    }

    /// A column that is itself a condition.
    fn boolean(&self, column: &Column, wanted: bool) -> Found {
        match &column.what {
            What::Search(clause) => {
                let found = self.lookup(&Lookup::Search(clause.clone()))?;
                Ok(if wanted { found } else { self.all().without(&found) })
            }
            What::Path(path) if column.view.to == Type::Bool && !column.view.cast => {
                self.lookup(&Lookup::In(path.clone(), Type::Bool, vec![Literal::Bool(wanted)]))
            }
            _ => self.where_present(column),
        }
    }

    /// A condition on a column that only its values decide; it is not true for a NULL.
    fn where_present(&self, column: &Column) -> Found {
        Ok(Known {
            sure: RoaringBitmap::new(),
            ..self.present(column)?
        })
    }

    fn in_list(&self, needle: &Expr, list: &[Expr], wanted: bool) -> Found {
        let Some(values) = list.iter().map(constant).collect::<Option<Vec<_>>>() else {
            return self.unknown();
        };
        let has_null = values.iter().any(|value| value.is_null());
        if has_null && !wanted {
            return Ok(Known::default()); // whatever is not in the list is NULL, not false
        }
        let values: Vec<&ScalarValue> = values.into_iter().filter(|value| !value.is_null()).collect();
        let Some(column) = subject(needle) else {
            return self.unknown();
        };
        if let Some(path) = canonical(&column) {
            let values: Option<Vec<&str>> = values.iter().map(|value| value.try_as_str().flatten()).collect();
            return values.map_or_else(
                || self.unknown(),
                |values| self.equal_to_one_of(&column, path, &values, wanted),
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
        self.one_of(&column, literals, wanted)
    }

    /// Where a column equals one of some values (or, if not wanted, is another value).
    fn one_of(&self, column: &Column, literals: Vec<Literal>, wanted: bool) -> Found {
        let found = match &column.what {
            What::Path(_) if literals.is_empty() => Known::default(),
            What::Path(path) => self.lookup(&Lookup::In(path.clone(), column.view.to, literals))?,
            What::Id => self.lookup(&Lookup::Id(literals.into_iter().filter_map(text).collect()))?,
            What::Source => {
                let mut found = Known::default();
                for source in literals.into_iter().filter_map(text) {
                    found = found.or(&self.lookup(&Lookup::Source(source))?);
                }
                found
            }
            What::Search(_) | What::Doc | What::Key => return self.unknown(),
            _ => {
                let mut found = Known::default();
                for number in literals.iter().filter_map(number) {
                    found = found.or(&self.header(column, number, number)?);
                }
                found
            }
        };
        Ok(if wanted {
            found
        } else {
            self.present(column)?.without(&found)
        })
    }

    /// Where the value at a path equals one of these, by their canonical JSON texts (or, if not wanted, is another
    /// value).
    fn equal_to_one_of(&self, column: &Column, path: &Path, values: &[&str], wanted: bool) -> Found {
        const EXACT_IN_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
        let mut found = Known::default();
        for value in values {
            let value = proto::json::parse(value.as_bytes()).unwrap_or(Value::Null);
            let (to, literals) = match &value {
                Value::Bool(bool) => (Type::Bool, vec![Literal::Bool(*bool)]),
                Value::Text(text) => (Type::Text, vec![Literal::Text(text.to_string())]),
                // Columns tell -0 from 0.
                Value::Int(0) => (Type::Double, vec![Literal::Double(0.0), Literal::Double(-0.0)]),
                Value::Int(int) if (*int as f64).abs() < EXACT_IN_DOUBLE_MAX => {
                    (Type::Double, vec![Literal::Double(*int as f64)])
                }
                Value::Float(double) if double.fract() != 0.0 => (Type::Double, vec![Literal::Double(*double)]),
                _ => return self.where_present(column),
            };
            found = found.or(&self.lookup(&Lookup::In(path.clone(), to, literals))?);
        }
        Ok(if wanted {
            found
        } else {
            self.present(column)?.without(&found)
        })
    }

    /// A header's number between two bounds, both inclusive.
    fn header(&self, column: &Column, low: i64, high: i64) -> Found {
        let known = match column.what {
            What::Partition | What::Offset | What::Ingested => true,
            What::Time => self.time_path.is_none(),
            _ => false,
        };
        match known {
            true if low > high => Ok(Known::default()),
            true => self.lookup(&Lookup::Header(column.what.clone(), low, high)),
            false => self.unknown(),
        }
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr, wanted: bool) -> Found {
        let (subject_side, op, value) = match (constant(left), constant(right)) {
            (None, Some(value)) => (left, op, value),
            (Some(value), None) => match op.swap() {
                Some(op) => (right, op, value),
                None => return self.unknown(),
            },
            _ => return self.unknown(),
        };
        // Where a comparison is false, its opposite is true: neither holds for a NULL.
        let op = match (op, wanted) {
            (op, true) => op,
            (Operator::IsDistinctFrom | Operator::IsNotDistinctFrom, false) => return self.unknown(),
            (op, false) => match op.negate() {
                Some(op) => op,
                None => return self.unknown(),
            },
        };
        let Some(column) = subject(subject_side) else {
            return self.unknown();
        };
        if value.is_null() {
            return if is_order(op) {
                Ok(Known::default())
            } else {
                self.unknown()
            };
        }
        if let (Some(path), Operator::Eq | Operator::NotEq, Some(Some(value))) =
            (canonical(&column), op, value.try_as_str())
        {
            return self.equal_to_one_of(&column, path, &[value], op == Operator::Eq);
        }
        let Some(point) = point(&column, subject_side, value) else {
            return if is_order(op) {
                self.where_present(&column)
            } else {
                self.unknown()
            };
        };
        match op {
            // -0 and 0 are told apart by some and not by others.
            _ if is_zero(&point) && !matches!(op, Operator::Gt | Operator::LtEq) && is_order(op) => {
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
                self.lookup(&Lookup::Range(path.clone(), column.view.to, from, to))
            }
            What::Id | What::Source => self.unknown(),
            _ => {
                let Some(number) = number(&literal) else {
                    return self.unknown();
                };
                let (low, high) = match (above, inclusive) {
                    (true, true) => (number, i64::MAX),
                    (true, false) if number == i64::MAX => return Ok(Known::default()),
                    (true, false) => (number + 1, i64::MAX),
                    (false, true) => (i64::MIN, number),
                    (false, false) if number == i64::MIN => return Ok(Known::default()),
                    (false, false) => (i64::MIN, number - 1),
                };
                self.header(column, low, high)
            }
        }
    }

    fn like(&self, like: &Like, wanted: bool) -> Found {
        let Some(pattern) = constant(&like.pattern) else {
            return self.unknown();
        };
        let Some(Some(pattern)) = pattern.try_as_str() else {
            return self.unknown();
        };
        if like.case_insensitive || like.escape_char.is_some() || pattern.contains(['_', '\\']) {
            return self.unknown();
        }
        match pattern.strip_suffix('%') {
            Some(prefix) if !prefix.contains('%') => self.prefix(&like.expr, Some(prefix), wanted),
            None if !pattern.contains('%') => {
                let op = if wanted { Operator::Eq } else { Operator::NotEq };
                self.comparison(&like.expr, op, &like.pattern, true)
            }
            _ => self.unknown(),
        }
    }

    fn prefix(&self, subject_side: &Expr, prefix: Option<&str>, wanted: bool) -> Found {
        let (Some(column), Some(prefix)) = (subject(subject_side), prefix) else {
            return self.unknown();
        };
        let What::Path(path) = &column.what else {
            return self.unknown();
        };
        if column.view.to != Type::Text || column.view.cast {
            return self.where_present(&column);
        }
        let found = match prefix {
            "" => self.present(&column)?,
            prefix => self.lookup(&Lookup::Prefix(path.clone(), prefix.to_owned()))?,
        };
        Ok(if wanted {
            found
        } else {
            self.present(&column)?.without(&found)
        })
    }
}

fn is_order(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    )
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

/// The path of a column of canonical texts.
fn canonical(column: &Column) -> Option<&Path> {
    match &column.what {
        What::Path(path) if column.view.to == Type::Canonical => Some(path),
        _ => None,
    }
}

/// The column that an expression is, through casts that keep the order of its values (see [`point`]). Casting views of
/// paths are not among what an index knows, nor is JSON text.
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
        (Type::Int, DataType::Decimal128(precision, scale)) => {
            i32::from(*precision) - i32::from(*scale) >= INT64_DIGITS && *scale >= 0
        }
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
    if matches!(column.what, What::Path(_))
        && (column.view.cast || matches!(column.view.to, Type::Json | Type::Canonical | Type::Rank))
    {
        return None;
    }
    let at = |literal| Some(Point::At(literal));
    match (column.view.to, value) {
        (Type::Bool, ScalarValue::Boolean(Some(bool))) => at(Literal::Bool(*bool)),
        (Type::Text, value) => at(Literal::Text(value.try_as_str()??.to_owned())),
        // A literal -0 is the same as 0.
        (Type::Double, ScalarValue::Float64(Some(double))) if double.is_finite() => at(Literal::Double(*double + 0.0)),
        (Type::Int, ScalarValue::Int64(Some(int))) => at(Literal::Int(*int)),
        (Type::Int, ScalarValue::Float64(Some(double))) if double.abs() < EXACT_IN_DOUBLE_MAX && !is_plain(seen) => {
            let floor = Literal::Int(double.floor() as i64);
            Some(if double.fract() == 0.0 {
                Point::At(floor)
            } else {
                Point::After(floor)
            })
        }
        (Type::Int, ScalarValue::Decimal128(Some(decimal), _, scale)) => {
            let unit = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            among(decimal.div_euclid(unit), decimal.rem_euclid(unit) == 0, Literal::Int)
        }
        (Type::Time, ScalarValue::TimestampSecond(Some(time), _)) => {
            among(i128::from(*time) * 1_000_000, true, Literal::Time)
        }
        (Type::Time, ScalarValue::TimestampMillisecond(Some(time), _)) => {
            among(i128::from(*time) * 1_000, true, Literal::Time)
        }
        (Type::Time, ScalarValue::TimestampMicrosecond(Some(time), _)) => at(Literal::Time(*time)),
        _ => None,
    }
}

fn is_zero(point: &Point) -> bool {
    matches!(point, Point::At(Literal::Double(double)) if *double == 0.0)
}

fn is_plain(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

fn among(floor: i128, exact: bool, literal: fn(i64) -> Literal) -> Option<Point> {
    let literal = literal(i64::try_from(floor).ok()?);
    Some(if exact {
        Point::At(literal)
    } else {
        Point::After(literal)
    })
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
