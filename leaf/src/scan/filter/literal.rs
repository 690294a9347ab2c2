//! Columns and literals of a condition: which column an expression refers to, and where a literal lies among its
//! values.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    logical_expr::Expr,
    scalar::ScalarValue,
};
use plan::{Column, ColumnSource, Path, Type};

use crate::split::Literal;

/// 2^53: every smaller int is exact as a double.
pub(super) const EXACT_IN_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0;

pub(super) fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

/// The path of a column of canonical JSON texts.
pub(super) fn canonical_path(column: &Column) -> Option<&Path> {
    match &column.source {
        ColumnSource::Path(path) if column.read_as.to == Type::Canonical => Some(path),
        _ => None,
    }
}

/// The column that an expression refers to, through casts that keep the order of its values (see [`point`]).
pub(super) fn subject(expr: &Expr) -> Option<Column> {
    match expr {
        Expr::Column(column) => Column::parse(&column.name),
        Expr::Alias(alias) => subject(&alias.expr),
        Expr::Cast(cast) => subject(&cast.expr).filter(|column| keeps_order(column.read_as.to, cast.field.data_type())),
        Expr::TryCast(cast) => {
            subject(&cast.expr).filter(|column| keeps_order(column.read_as.to, cast.field.data_type()))
        }
        _ => None,
    }
}

/// True if a cast never fails and never changes how values compare (for ints as doubles see [`point`]).
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

/// The position of a literal among a column's values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Point {
    /// At this value.
    At(Literal),
    /// Between this int and the next.
    After(Literal),
}

/// The position of a literal among a column's values, if it is exact and an index can look the column up. That excludes
/// paths read with a cast, but for casts to text, and JSON text.
pub(super) fn point(column: &Column, expr: &Expr, value: &ScalarValue) -> Option<Point> {
    let is_looked_up = match column.read_as.to {
        Type::Text => true,
        Type::Json | Type::Canonical | Type::Rank => false,
        _ => !column.read_as.cast,
    };
    if matches!(column.source, ColumnSource::Path(_)) && !is_looked_up {
        return None;
    }
    let at = |literal| Some(Point::At(literal));
    match (column.read_as.to, value) {
        (Type::Bool, ScalarValue::Boolean(Some(bool))) => at(Literal::Bool(*bool)),
        (Type::Text, value) => at(Literal::Text(value.try_as_str()??.to_owned())),
        // A literal -0 equals 0.
        (Type::Double, ScalarValue::Float64(Some(double))) if double.is_finite() => at(Literal::Double(*double + 0.0)),
        (Type::Int, ScalarValue::Int64(Some(int))) => at(Literal::Int(*int)),
        (Type::Int, ScalarValue::Float64(Some(double)))
            if double.abs() < EXACT_IN_DOUBLE_MAX && !is_plain_column(expr) =>
        {
            let floor = Literal::Int(double.floor() as i64);
            Some(if double.fract() == 0.0 {
                Point::At(floor)
            } else {
                Point::After(floor)
            })
        }
        (Type::Int, ScalarValue::Decimal128(Some(decimal), _, scale)) => {
            let unit = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            exact_point(decimal.div_euclid(unit), decimal.rem_euclid(unit) == 0, Literal::Int)
        }
        (Type::Time, ScalarValue::TimestampSecond(Some(time), _)) => {
            exact_point(i128::from(*time) * 1_000_000, true, Literal::Time)
        }
        (Type::Time, ScalarValue::TimestampMillisecond(Some(time), _)) => {
            exact_point(i128::from(*time) * 1_000, true, Literal::Time)
        }
        (Type::Time, ScalarValue::TimestampMicrosecond(Some(time), _)) => at(Literal::Time(*time)),
        _ => None,
    }
}

pub(super) fn is_zero(point: &Point) -> bool {
    matches!(point, Point::At(Literal::Double(double)) if *double == 0.0)
}

fn is_plain_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

fn exact_point(floor: i128, exact: bool, literal: fn(i64) -> Literal) -> Option<Point> {
    let literal = literal(i64::try_from(floor).ok()?);
    Some(if exact {
        Point::At(literal)
    } else {
        Point::After(literal)
    })
}

pub(super) fn text(literal: Literal) -> Option<String> {
    match literal {
        Literal::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn number(literal: &Literal) -> Option<i64> {
    match literal {
        Literal::Int(number) | Literal::Time(number) => Some(*number),
        _ => None,
    }
}
