//! Lowers arithmetic with times, dates and intervals.

use datafusion::{
    arrow::datatypes::{DataType, IntervalUnit},
    common::{Result, ScalarValue},
    logical_expr::{Expr, Operator, lit},
};
use plan::functions::{checked, interval};

use super::operator::{counted_operator, division_by_zero, is_zero};
use crate::typing::operand::{
    Operand,
    TypeClass::{Date, Interval, Json, Null, Text, Time},
    bad_sql, call, cast, describe_type, display_name, null_literal, time_type,
};

/// `left op right` where at least one operand is a time, a date or an interval.
pub(super) fn temporal_arithmetic(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    match (left.class(), right.class()) {
        (Null, _) => return Ok(null_literal(right.data_type().clone())),
        (_, Null) => return Ok(null_literal(left.data_type().clone())),
        _ => {}
    }
    if let Some(scaled) = scaled_interval(op, left, right)? {
        return Ok(scaled);
    }
    if let Some(result) = date_arithmetic(op, left, right)? {
        return Ok(result);
    }
    let by_library = |left: Expr, right: Expr| counted_operator(op, left, right);
    match (left.class(), op, right.class()) {
        (Interval, _, Interval) => {
            let same_type = left.data_type() == right.data_type();
            let interval = |operand: &Operand| {
                if same_type {
                    operand.expr.clone()
                } else {
                    call(interval::SCALE, vec![operand.expr.clone(), lit(1.0)])
                }
            };
            by_library(interval(left), interval(right))
        }
        // A text or a path next to an interval or a time is a time, too.
        (Json(_) | Text, _, Interval) => Ok(shift(op, left.time()?, right.expr.clone())),
        (Interval, Operator::Plus, Json(_) | Text) => Ok(shift(op, right.time()?, left.expr.clone())),
        // A literal that is not a time is an interval.
        (Time, Operator::Plus | Operator::Minus, Text)
            if right
                .quoted()
                .is_some_and(|text| plan::value::time_of_text(text).is_none()) =>
        {
            let interval = cast(right.expr.clone(), DataType::Interval(IntervalUnit::MonthDayNano));
            by_library(left.expr.clone(), interval)
        }
        (Json(_) | Text | Time | Date, Operator::Minus, Json(_) | Text | Time | Date) => {
            by_library(left.time()?, right.time()?)
        }
        (Time, Operator::Plus | Operator::Minus, Interval) if *left.data_type() == time_type() => {
            Ok(shift(op, left.expr.clone(), right.expr.clone()))
        }
        (Interval, Operator::Plus, Time) if *right.data_type() == time_type() => {
            Ok(shift(op, right.expr.clone(), left.expr.clone()))
        }
        (Time, Operator::Plus | Operator::Minus, Interval) | (Interval, Operator::Plus, Time) => {
            by_library(left.expr.clone(), right.expr.clone())
        }
        _ => Err(bad_sql(
            format!(
                "{} {op} {}: {op} does not accept {} and {}",
                display_name(left),
                display_name(right),
                describe_type(left),
                describe_type(right)
            ),
            "add an interval to a time, or subtract one: _time - interval '1 day'",
        )),
    }
}

/// An interval multiplied or divided by a number; None for other operands.
fn scaled_interval(op: Operator, left: &Operand, right: &Operand) -> Result<Option<Expr>> {
    Ok(Some(match (left.class(), op, right.class()) {
        (Interval, _, Interval) => return Ok(None),
        (Interval, Operator::Multiply, _) => call(interval::SCALE, vec![left.expr.clone(), right.double()?]),
        (_, Operator::Multiply, Interval) => call(interval::SCALE, vec![right.expr.clone(), left.double()?]),
        (Interval, Operator::Divide, _) if is_zero(right) => return Err(division_by_zero()),
        (Interval, Operator::Divide, _) => {
            let factor = call(checked::QUOTIENT, vec![lit(1.0), right.double()?]);
            call(interval::SCALE, vec![left.expr.clone(), factor])
        }
        _ => return Ok(None),
    }))
}

/// A date plus or minus a number of days, an interval or a date; None for other operands.
fn date_arithmetic(op: Operator, left: &Operand, right: &Operand) -> Result<Option<Expr>> {
    let is_days = right.class().is_number() || (op == Operator::Plus && right.kinds().is_some());
    Ok(Some(match (left.class(), op, right.class()) {
        (Date, Operator::Plus | Operator::Minus, _) if is_days => {
            let days = call(interval::SCALE, vec![one_day(), right.double()?]);
            cast(shift(op, left.time()?, days), DataType::Date32)
        }
        (Json(_), Operator::Plus, Date) => temporal_arithmetic(op, right, left)?,
        (number, Operator::Plus, Date) if number.is_number() => temporal_arithmetic(op, right, left)?,
        (Date, Operator::Plus | Operator::Minus, Interval) => {
            cast(shift(op, left.time()?, right.expr.clone()), DataType::Date32)
        }
        (Interval, Operator::Plus, Date) => cast(shift(op, right.time()?, left.expr.clone()), DataType::Date32),
        (Date, Operator::Minus, Date) => {
            let days = |operand: &Operand| cast(cast(operand.expr.clone(), DataType::Int32), DataType::Int64);
            call(checked::SUM, vec![lit("+-"), days(left), days(right)])
        }
        _ => return Ok(None),
    }))
}

/// A time moved by an interval: back for `-`, otherwise forward.
fn shift(op: Operator, time: Expr, interval: Expr) -> Expr {
    let sign = if op == Operator::Minus { "-" } else { "+" };
    call(interval::SHIFT, vec![lit(sign), time, interval])
}

fn one_day() -> Expr {
    Expr::Literal(ScalarValue::new_interval_mdn(0, 1, 0), None)
}
