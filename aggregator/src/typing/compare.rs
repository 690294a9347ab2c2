//! Comparisons: each value by its own kind.
//!
//! Equality of different kinds is false, never NULL; order between kinds is NULL and counted; a quoted literal takes
//! the kind of the value that it meets. Where the kinds that a path has had leave nothing to decide, the comparison is
//! the plain one of its type, which an index knows.

use std::slice;

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, Result, ScalarValue},
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList, lit, when},
};
use plan::{Kinds, Type, functions::json, value::canonical};
use proto::json::Value;

use super::operand::{Class, Operand, bad, call, cast, described, literal, null_of, number_literal, shown};

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
pub fn compared(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    // A literal stands on the right.
    if left.quoted().is_some()
        && right.quoted().is_none()
        && let Some(op) = swapped(op)
    {
        return compared(right, op, left);
    }
    if let Some(text) = right.quoted()
        && left.quoted().is_none()
    {
        return beside_quoted(left, op, text, right);
    }
    if is_equality(op) {
        let (l, r) = equal_pair(left, right)?;
        let equal = binary(l.clone(), op, r.clone());
        // What is no time at all is no time that differs, rather than nothing that is known.
        return Ok(match (left.class(), right.class()) {
            (Class::Json(_) | Class::Text, Class::Time | Class::Date)
                if matches!(op, Operator::Eq | Operator::NotEq) =>
            {
                let no_time = left.expr.clone().is_not_null().and(l.is_null());
                when(no_time.and(r.is_not_null()), lit(op == Operator::NotEq)).otherwise(equal)?
            }
            (Class::Time | Class::Date, Class::Json(_) | Class::Text) => compared(right, op, left)?,
            _ => equal,
        });
    }
    ordered(left, op, right)
}

fn swapped(op: Operator) -> Option<Operator> {
    if is_equality(op) { Some(op) } else { op.swap() }
}

/// Two expressions that are equal, as DataFusion compares them, exactly where the values are.
pub fn equal_pair(left: &Operand, right: &Operand) -> Result<(Expr, Expr)> {
    use Class::{Bool, Date, Int, Interval, Json, List, Null, Other, Text, Time};
    let plain = (left.native(), right.native());
    Ok(match (left.class(), right.class()) {
        (Null, _) | (_, Null) => plain,
        (Json(a), Json(b)) if a.native().is_some_and(|native| native != Type::Json) && a.native() == b.native() => {
            plain
        }
        (Json(kinds), other) | (other, Json(kinds))
            if native_class(kinds) == Some(other) && (other != Int || both_int64(left, right)) =>
        {
            plain
        }
        (Json(_), Time | Date) => (left.time()?, right.time()?),
        (Time | Date, Json(_)) => (left.time()?, right.time()?),
        (Json(kinds), other) if other.is_number() && left.only_numbers() && !is_rounded(kinds) => numbers(left, right)?,
        (other, Json(kinds)) if other.is_number() && right.only_numbers() && !is_rounded(kinds) => {
            numbers(left, right)?
        }
        (Json(_), _) | (_, Json(_)) => (left.canonical(), right.canonical()),
        (a, b) if a.is_number() && b.is_number() => numbers(left, right)?,
        // A computed text beside a number is read as one.
        (Text, other) | (other, Text) if other.is_number() => (left.number()?, right.number()?),
        (Text, Time | Date) | (Time | Date, Text) | (Time, Date) | (Date, Time) => (left.time()?, right.time()?),
        (Interval, Interval) => (left.sort_key(), right.sort_key()),
        (a, b) if a == b || matches!((a, b), (List | Other, _) | (_, List | Other)) => plain,
        (Bool, _) | (_, Bool) => (left.canonical(), right.canonical()),
        _ => {
            let detail = format!(
                "{} is {} and {} is {}",
                shown(left),
                described(left),
                shown(right),
                described(right)
            );
            return Err(bad(detail, "convert one of them: x::text, x::timestamp, …"));
        }
    })
}

/// Whether a view as doubles rounds some of its integers.
fn is_rounded(kinds: Kinds) -> bool {
    kinds.any(Kinds::WIDE) && kinds.any(Kinds::FLOAT | Kinds::BIG)
}

fn both_int64(left: &Operand, right: &Operand) -> bool {
    [left, right]
        .iter()
        .all(|operand| operand.kinds().is_some() || *operand.data_type() == DataType::Int64)
}

fn native_class(kinds: Kinds) -> Option<Class> {
    Some(match kinds.native()? {
        Type::Bool => Class::Bool,
        Type::Int => Class::Int,
        Type::Double => Class::Double,
        Type::Text => Class::Text,
        _ => return None,
    })
}

/// Two numbers, compared by their exact values.
fn numbers(left: &Operand, right: &Operand) -> Result<(Expr, Expr)> {
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

enum Exactness {
    Integer,
    Double,
    Decimal,
}

fn exactness(operand: &Operand) -> Exactness {
    match operand.class() {
        Class::Int => Exactness::Integer,
        Class::Json(kinds) if kinds.any(Kinds::INT) && !kinds.any(Kinds::FLOAT | Kinds::BIG) => Exactness::Integer,
        Class::Decimal => Exactness::Decimal,
        _ => Exactness::Double,
    }
}

/// A double literal that is an integer, as one.
fn as_integer_literal(expr: &Expr) -> Option<Expr> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0; // 2^63
    match literal(expr)? {
        ScalarValue::Float64(Some(double)) if double.fract() == 0.0 && (-BEYOND..BEYOND).contains(double) => {
            Some(lit(*double as i64))
        }
        _ => None,
    }
}

/// A number beside which the rounding of a wide integer to a double changes no comparison.
fn is_small_literal(expr: &Expr) -> bool {
    const EXACT_IN_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    match literal(expr) {
        Some(ScalarValue::Float64(Some(double))) => double.abs() < EXACT_IN_DOUBLE_MAX,
        Some(ScalarValue::Int64(Some(int))) => (*int as f64).abs() < EXACT_IN_DOUBLE_MAX,
        _ => false,
    }
}

/// `<`, `<=`, `>`, `>=`.
fn ordered(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    use Class::{Date, Interval, Json, Null, Text, Time};
    let by_kind = || {
        binary(
            call(json::COMPARE, vec![left.canonical(), right.canonical()]),
            op,
            lit(0_i64),
        )
    };
    let plain = |left: Expr, right: Expr| Ok(binary(left, op, right));
    match (left.class(), right.class()) {
        (Null, _) | (_, Null) => Ok(null_of(DataType::Boolean)),
        (Json(a), Json(b)) if a == Kinds::TEXT && b == Kinds::TEXT => plain(left.native(), right.native()),
        (Json(a), Json(b)) if left.only_numbers() && right.only_numbers() && !is_rounded(a | b) => {
            exactly(left, op, right)
        }
        (Json(_), Json(_)) => Ok(by_kind()),
        (Json(_), Time | Date) | (Time | Date, Json(_)) => plain(left.time()?, right.time()?),
        (Json(kinds), other) | (other, Json(kinds)) if other.is_number() => {
            match kinds.any(Kinds::WIDE) || kinds == Kinds::default() {
                true if kinds.any(Kinds::FLOAT | Kinds::BIG) || kinds == Kinds::default() => Ok(by_kind()),
                _ => exactly(left, op, right),
            }
        }
        (Json(_), Text) => plain(left.view(Type::Text, false), right.expr.clone()),
        (Text, Json(_)) => plain(left.expr.clone(), right.view(Type::Text, false)),
        (Json(_), Class::Bool) => plain(left.view(Type::Bool, false), right.expr.clone()),
        (Class::Bool, Json(_)) => plain(left.expr.clone(), right.view(Type::Bool, false)),
        (a, b) if a.is_number() && b.is_number() => exactly(left, op, right),
        (Text, other) | (other, Text) if other.is_number() => plain(left.number()?, right.number()?),
        (Text, Time | Date) | (Time | Date, Text) | (Time, Date) | (Date, Time) => plain(left.time()?, right.time()?),
        (Interval, Interval) => plain(left.sort_key(), right.sort_key()),
        _ => plain(left.native(), right.native()),
    }
}

/// An order of two numbers by their exact values.
fn exactly(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    let (l, r) = numbers(left, right)?;
    let canonical = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if matches!(call.func.name(), json::TO_JSON) || call.func.name() == json::GET);
    match (exactness(left), exactness(right)) {
        (Exactness::Integer, Exactness::Double) | (Exactness::Double, Exactness::Integer)
            if canonical(&l)
                && canonical(&r)
                && literal(&l).is_none()
                && literal(&r).is_none()
                && l == left.canonical() =>
        {
            Ok(binary(call(json::COMPARE, vec![l, r]), op, lit(0_i64)))
        }
        _ => Ok(binary(l, op, r)),
    }
}

/// A value beside a quoted literal: the literal is of the value's kind.
fn beside_quoted(left: &Operand, op: Operator, text: &str, right: &Operand) -> Result<Expr> {
    let spelled = number_literal(text);
    match left.class() {
        Class::Json(kinds) if kinds == Kinds::TEXT => Ok(binary(left.native(), op, right.expr.clone())),
        Class::Json(_) if left.only_numbers() && spelled.is_some() => beside_number(left, op, spelled),
        Class::Json(_) if matches!(op, Operator::Eq | Operator::NotEq) => {
            one_of(left, slice::from_ref(right), op == Operator::NotEq)
        }
        Class::Json(_) if is_equality(op) => {
            let equal = one_of(left, slice::from_ref(right), false)?;
            Ok(if op == Operator::IsDistinctFrom {
                equal.is_not_true()
            } else {
                equal.is_true()
            })
        }
        Class::Json(_) => {
            // What the text spells besides itself.
            let spelled = spelled
                .map(|number| folded(&Operand::of(number, &DFSchema::empty())?))
                .transpose()?;
            let spelled = spelled.or_else(|| {
                let truth = proto::json::parse(text.as_bytes())
                    .ok()
                    .filter(|value| matches!(value, Value::Bool(_)));
                truth.map(|truth| json_literal(canonical(&truth)))
            });
            Ok(match spelled {
                Some(spelled) => {
                    let sides = vec![
                        left.canonical(),
                        json_literal(canonical(&Value::Text(text.into()))),
                        spelled,
                    ];
                    binary(call(json::COMPARE, sides), op, lit(0_i64))
                }
                None => binary(left.view(Type::Text, false), op, right.expr.clone()),
            })
        }
        class if class.is_number() => match spelled {
            Some(_) => beside_number(left, op, spelled),
            None if is_equality(op) => {
                let (left, right) = (left.canonical(), right.canonical());
                Ok(binary(left, op, right))
            }
            None => Err(bad(
                format!("'{text}' is not a number"),
                "write the number without quotes",
            )),
        },
        Class::Bool => match plan::value::bool_of_text(text) {
            Some(value) => Ok(binary(left.expr.clone(), op, lit(value))),
            None => Ok(binary(left.canonical(), op, right.canonical())),
        },
        Class::Time => Ok(binary(left.expr.clone(), op, right.time()?)),
        Class::Date => Ok(match ScalarValue::from(text.trim()).cast_to(&DataType::Date32) {
            Ok(date) if text.trim().len() <= "2026-01-31".len() => {
                binary(left.expr.clone(), op, Expr::Literal(date, None))
            }
            _ => binary(left.time()?, op, right.time()?),
        }),
        Class::Interval => {
            let interval = cast(
                right.expr.clone(),
                DataType::Interval(datafusion::arrow::datatypes::IntervalUnit::MonthDayNano),
            );
            let micros = |expr| call(plan::functions::interval::MICROS, vec![expr]);
            Ok(binary(micros(left.expr.clone()), op, micros(interval)))
        }
        _ => Ok(binary(left.expr.clone(), op, right.expr.clone())),
    }
}

fn beside_number(left: &Operand, op: Operator, number: Option<Expr>) -> Result<Expr> {
    let number = number.unwrap_or_else(|| null_of(DataType::Int64));
    compared(left, op, &Operand::of(number, &DFSchema::empty())?)
}

/// `value IN (…)`.
pub fn one_of(value: &Operand, list: &[Operand], negated: bool) -> Result<Expr> {
    let in_list = |expr: Expr, list: Vec<Expr>| Expr::InList(InList::new(Box::new(expr), list, negated));
    let numbers_only = value.only_numbers() || value.class().is_number();
    let literal_number = |item: &Operand| match item.quoted() {
        Some(text) => number_literal(text),
        None if item.class().is_number() && item.is_literal() => Some(item.expr.clone()),
        None => None,
    };
    // The plain list of a type, where every item is a literal of it: an index knows it.
    if numbers_only && let Some(numbers) = list.iter().map(literal_number).collect::<Option<Vec<_>>>() {
        let integers = matches!(exactness(value), Exactness::Integer);
        let typed = |number: Expr| match as_integer_literal(&number) {
            Some(int) if integers => Some(int),
            _ if integers => matches!(literal(&number), Some(ScalarValue::Int64(_))).then_some(number),
            _ => is_small_literal(&number).then(|| cast(number, DataType::Float64)),
        };
        // A fraction is no integer: it is in no list of them.
        let of_type: Option<Vec<Expr>> = numbers.into_iter().map(typed).collect();
        if let Some(list) = of_type
            && value.class() != Class::Decimal
        {
            return Ok(in_list(value.number()?, list));
        }
    }
    let texts_only = value.kinds() == Some(Kinds::TEXT) || value.class() == Class::Text;
    if texts_only
        && list
            .iter()
            .all(|item| item.quoted().is_some() || item.class() == Class::Null)
    {
        return Ok(in_list(
            value.native(),
            list.iter().map(|item| item.expr.clone()).collect(),
        ));
    }
    let json = value.kinds().is_some() || list.iter().any(|item| item.kinds().is_some());
    let mixed =
        json || (numbers_only && list.iter().any(|item| item.quoted().is_some())) || value.class() == Class::Interval;
    let temporal = |operand: &Operand| matches!(operand.class(), Class::Time | Class::Date);
    if temporal(value) || list.iter().any(temporal) || !mixed {
        // `IN` is a chain of equalities.
        let equal = list
            .iter()
            .map(|item| compared(value, Operator::Eq, item))
            .collect::<Result<Vec<_>>>()?;
        let any =
            balanced(equal, Operator::Or).ok_or_else(|| bad("IN () has nothing to be in".into(), "write IN (…)"))?;
        return Ok(if negated { Expr::Not(Box::new(any)) } else { any });
    }
    let mut items = Vec::new();
    for item in list {
        match item.quoted() {
            Some(text) => {
                items.push(json_literal(canonical(&Value::Text(text.into()))));
                // A quoted literal also equals a number or a boolean that it spells.
                if let Ok(value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_))) =
                    proto::json::parse(text.as_bytes())
                {
                    items.push(json_literal(canonical(&value)));
                }
            }
            None => items.push(folded(item)?),
        }
    }
    Ok(in_list(value.canonical(), items))
}

/// A literal's canonical text is a literal.
fn folded(item: &Operand) -> Result<Expr> {
    match literal(&item.expr) {
        Some(value) if item.kinds().is_none() && !value.is_null() => {
            let texts = json::json_of(&value.to_array()?)?;
            Ok(Expr::Literal(ScalarValue::try_from_array(&texts, 0)?, None))
        }
        _ => Ok(item.canonical()),
    }
}

fn json_literal(text: String) -> Expr {
    Expr::Literal(ScalarValue::LargeUtf8(Some(text)), None)
}

/// Conditions joined so that a thousand of them are ten levels deep.
fn balanced(mut conditions: Vec<Expr>, op: Operator) -> Option<Expr> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut pairs = conditions.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(left, op, right),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}
