//! Lowers comparisons, in which each value counts by its own kind.
//!
//! Values of different kinds are unequal: equality is false, never NULL. Their order is NULL and counted in a warning.
//! A quoted literal takes the kind of the value that it is compared with. Where the kinds that a path has had allow
//! only one outcome, the result is the plain comparison of a type, which an index can evaluate.

mod in_list;
mod quoted;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, ScalarValue},
    logical_expr::{BinaryExpr, Expr, Operator, lit, when},
};
use plan::{Kinds, Type, functions::json};

use super::operand::{
    Operand, TypeClass, bad_sql, call, cast, describe_type, display_name, literal, null_literal, reads_as_integer,
};

pub(super) use in_list::lower_in_list;

fn is_equality(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
    )
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// `left op right`.
pub(super) fn lower_comparison(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    // Put a quoted literal on the right.
    if left.quoted().is_some()
        && right.quoted().is_none()
        && let Some(op) = swapped(op)
    {
        return lower_comparison(right, op, left);
    }
    if let Some(text) = right.quoted()
        && left.quoted().is_none()
    {
        return quoted::compare_with_quoted(left, op, text, right);
    }
    if !is_equality(op) {
        return lower_ordering(left, op, right);
    }
    let (l, r) = equality_operands(left, right)?;
    let equal = binary(l.clone(), op, r.clone());
    Ok(match (left.class(), right.class()) {
        // A value that is not a time differs from every time. Compared as a time it would be NULL, so that the result
        // would be unknown.
        (TypeClass::Json(_) | TypeClass::Text, TypeClass::Time | TypeClass::Date)
            if matches!(op, Operator::Eq | Operator::NotEq) =>
        {
            let not_a_time = left.expr.clone().is_not_null().and(l.is_null());
            when(not_a_time.and(r.is_not_null()), lit(op == Operator::NotEq)).otherwise(equal)?
        }
        (TypeClass::Time | TypeClass::Date, TypeClass::Json(_) | TypeClass::Text) => lower_comparison(right, op, left)?,
        // So does a text that is not a number from every number.
        (TypeClass::Text, number) if number.is_number() => {
            let not_a_number = left.expr.clone().is_not_null().and(l.is_null());
            let differs = match op {
                Operator::Eq | Operator::NotEq => not_a_number.and(r.is_not_null()),
                _ => not_a_number,
            };
            let is_negated = matches!(op, Operator::NotEq | Operator::IsDistinctFrom);
            when(differs, lit(is_negated)).otherwise(equal)?
        }
        (number, TypeClass::Text) if number.is_number() => lower_comparison(right, op, left)?,
        _ => equal,
    })
}

fn swapped(op: Operator) -> Option<Operator> {
    if is_equality(op) { Some(op) } else { op.swap() }
}

/// The two operands as expressions that DataFusion finds equal exactly where the values are equal.
pub(super) fn equality_operands(left: &Operand, right: &Operand) -> Result<(Expr, Expr)> {
    use TypeClass::{Bool, Date, Int, Interval, Json, List, Null, Other, Text, Time};
    let native = (left.native(), right.native());
    Ok(match (left.class(), right.class()) {
        (Null, _) | (_, Null) => native,
        (Json(a), Json(b)) if a.native().is_some_and(|native| native != Type::Json) && a.native() == b.native() => {
            native
        }
        (Json(kinds), other) | (other, Json(kinds))
            if native_class(kinds) == Some(other) && (other != Int || are_int64(left, right)) =>
        {
            native
        }
        (Json(_), Time | Date) => (left.time()?, right.time()?),
        (Time | Date, Json(_)) => (left.time()?, right.time()?),
        (Json(kinds), other) if other.is_number() && left.only_numbers() && !is_rounded(kinds) => {
            exact_numbers(left, right)?
        }
        (other, Json(kinds)) if other.is_number() && right.only_numbers() && !is_rounded(kinds) => {
            exact_numbers(left, right)?
        }
        (Json(_), _) | (_, Json(_)) => (left.canonical(), right.canonical()),
        (a, b) if a.is_number() && b.is_number() => exact_numbers(left, right)?,
        // A computed text that is compared with a number is read as a number.
        (Text, other) | (other, Text) if other.is_number() => (left.number()?, right.number()?),
        (Text, Time | Date) | (Time | Date, Text) | (Time, Date) | (Date, Time) => (left.time()?, right.time()?),
        (Interval, Interval) => (left.sort_key(), right.sort_key()),
        (a, b) if a == b || matches!((a, b), (List | Other, _) | (_, List | Other)) => native,
        (Bool, _) | (_, Bool) => (left.canonical(), right.canonical()),
        _ => {
            let detail = format!(
                "cannot compare {} ({}) with {} ({})",
                display_name(left),
                describe_type(left),
                display_name(right),
                describe_type(right)
            );
            return Err(bad_sql(detail, "convert one of them: x::text, x::timestamp, …"));
        }
    })
}

/// Whether `left = right` compares the values on the right as they are: those that differ stay different.
pub(super) fn is_equality_of_one_type(left: &Operand, right: &Operand) -> bool {
    use TypeClass::{Date, Interval, Json, Text, Time};
    match (left.class(), right.class()) {
        (Time | Date, Json(_) | Text) | (Interval, _) | (_, Interval) => false,
        (number, Text) | (Text, number) => !number.is_number(),
        _ => true,
    }
}

/// Whether reading a path with values of these kinds as doubles rounds some of its integers.
fn is_rounded(kinds: Kinds) -> bool {
    kinds.any(Kinds::WIDE) && kinds.any(Kinds::FLOAT | Kinds::BIG)
}

/// Whether both operands are JSON or BIGINT.
fn are_int64(left: &Operand, right: &Operand) -> bool {
    [left, right]
        .iter()
        .all(|operand| operand.kinds().is_some() || *operand.data_type() == DataType::Int64)
}

/// The class of the native type of a path, if it is a boolean, a number or a text.
fn native_class(kinds: Kinds) -> Option<TypeClass> {
    Some(match kinds.native()? {
        Type::Bool => TypeClass::Bool,
        Type::Int => TypeClass::Int,
        Type::Double => TypeClass::Double,
        Type::Text => TypeClass::Text,
        _ => return None,
    })
}

/// Two numbers as expressions that compare by their exact values.
fn exact_numbers(left: &Operand, right: &Operand) -> Result<(Expr, Expr)> {
    let (l, r) = (left.number()?, right.number()?);
    Ok(match (exactness(left), exactness(right)) {
        (Exactness::Double, Exactness::Integer) => match as_integer_literal(&l) {
            Some(int) => (int, r),
            None if is_small_literal(&l) || is_small_literal(&r) => (l, cast(r, DataType::Float64)),
            None => (left.canonical(), right.canonical()),
        },
        (Exactness::Integer, Exactness::Double) => match as_integer_literal(&r) {
            Some(int) => (l, int),
            None if is_small_literal(&l) || is_small_literal(&r) => (cast(l, DataType::Float64), r),
            None => (left.canonical(), right.canonical()),
        },
        _ => (l, r),
    })
}

/// The representation in which a number is exact.
enum Exactness {
    Integer,
    Double,
    Decimal,
}

fn exactness(operand: &Operand) -> Exactness {
    match operand.class() {
        TypeClass::Int => Exactness::Integer,
        TypeClass::Json(kinds) if reads_as_integer(kinds) => Exactness::Integer,
        TypeClass::Decimal => Exactness::Decimal,
        _ => Exactness::Double,
    }
}

/// A double literal without a fraction, as an integer literal.
fn as_integer_literal(expr: &Expr) -> Option<Expr> {
    const INT64_END: f64 = 9_223_372_036_854_775_808.0; // 2^63
    match literal(expr)? {
        ScalarValue::Float64(Some(double)) if double.fract() == 0.0 && (-INT64_END..INT64_END).contains(double) => {
            Some(lit(*double as i64))
        }
        _ => None,
    }
}

/// Whether this is a literal so small that comparing it with a wide integer gives the same result after the integer is
/// rounded to a double.
fn is_small_literal(expr: &Expr) -> bool {
    const EXACT_IN_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    match literal(expr) {
        Some(ScalarValue::Float64(Some(double))) => double.abs() < EXACT_IN_DOUBLE_MAX,
        Some(ScalarValue::Int64(Some(int))) => (*int as f64).abs() < EXACT_IN_DOUBLE_MAX,
        _ => false,
    }
}

/// `<`, `<=`, `>`, `>=`.
fn lower_ordering(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    use TypeClass::{Bool, Date, Interval, Json, Null, Text, Time};
    let by_kind = || {
        binary(
            call(json::COMPARE, vec![left.canonical(), right.canonical()]),
            op,
            lit(0_i64),
        )
    };
    let plain = |left: Expr, right: Expr| Ok(binary(left, op, right));
    match (left.class(), right.class()) {
        (Null, _) | (_, Null) => Ok(null_literal(DataType::Boolean)),
        (Json(a), Json(b)) if a == Kinds::TEXT && b == Kinds::TEXT => plain(left.native(), right.native()),
        (Json(a), Json(b)) if left.only_numbers() && right.only_numbers() && !is_rounded(a | b) => {
            exact_ordering(left, op, right)
        }
        (Json(_), Json(_)) => Ok(by_kind()),
        (Json(_), Time | Date) | (Time | Date, Json(_)) => plain(left.time()?, right.time()?),
        (Json(kinds), other) | (other, Json(kinds)) if other.is_number() => {
            match kinds.any(Kinds::WIDE) || kinds == Kinds::default() {
                true if kinds.any(Kinds::FLOAT | Kinds::BIG) || kinds == Kinds::default() => Ok(by_kind()),
                _ => exact_ordering(left, op, right),
            }
        }
        (Json(_), Text) => plain(left.read_as(Type::Text, false), right.expr.clone()),
        (Text, Json(_)) => plain(left.expr.clone(), right.read_as(Type::Text, false)),
        (Json(_), Bool) => plain(left.read_as(Type::Bool, false), right.expr.clone()),
        (Bool, Json(_)) => plain(left.expr.clone(), right.read_as(Type::Bool, false)),
        (a, b) if a.is_number() && b.is_number() => exact_ordering(left, op, right),
        (Text, other) | (other, Text) if other.is_number() => plain(left.number()?, right.number()?),
        (Text, Time | Date) | (Time | Date, Text) | (Time, Date) | (Date, Time) => plain(left.time()?, right.time()?),
        (Interval, Interval) => plain(left.sort_key(), right.sort_key()),
        _ => plain(left.native(), right.native()),
    }
}

/// The order of two numbers by their exact values.
fn exact_ordering(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    let (l, r) = exact_numbers(left, right)?;
    let is_canonical = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) => matches!(call.func.name(), json::TO_JSON | json::GET),
        _ => false,
    };
    match (exactness(left), exactness(right)) {
        (Exactness::Integer, Exactness::Double) | (Exactness::Double, Exactness::Integer)
            if is_canonical(&l)
                && is_canonical(&r)
                && literal(&l).is_none()
                && literal(&r).is_none()
                && l == left.canonical() =>
        {
            Ok(binary(call(json::COMPARE, vec![l, r]), op, lit(0_i64)))
        }
        _ => Ok(binary(l, op, r)),
    }
}
