//! Lowers comparisons with a quoted literal, which takes the kind of the value that it is compared with.

use std::slice;

use datafusion::{
    arrow::datatypes::{DataType, IntervalUnit},
    common::{DFSchema, Result, ScalarValue},
    logical_expr::{Expr, Operator, lit},
};
use plan::{Kinds, Type, functions::json, value::canonical};
use proto::json::Value;

use super::{
    binary,
    in_list::{canonical_item, json_literal, lower_in_list},
    is_equality, lower_comparison,
};
use crate::typing::operand::{Operand, TypeClass, bad_sql, call, cast, null_literal, number_literal};

/// `left op right`, where `right` is a quoted literal with this text.
pub(super) fn compare_with_quoted(left: &Operand, op: Operator, text: &str, right: &Operand) -> Result<Expr> {
    let number = number_literal(text);
    match left.class() {
        TypeClass::Json(kinds) if kinds == Kinds::TEXT => Ok(binary(left.native(), op, right.expr.clone())),
        TypeClass::Json(_) if left.only_numbers() && number.is_some() => compare_with_number(left, op, number),
        TypeClass::Json(_) if is_equality(op) => json_equality(left, op, right),
        TypeClass::Json(_) => json_ordering(left, op, text, right, number),
        class if class.is_number() => match number {
            Some(_) => compare_with_number(left, op, number),
            None if is_equality(op) => Ok(binary(left.canonical(), op, right.canonical())),
            None => Err(bad_sql(
                format!("'{text}' is not a number"),
                "write the number without quotes",
            )),
        },
        TypeClass::Bool => match plan::value::bool_of_text(text) {
            Some(value) => Ok(binary(left.expr.clone(), op, lit(value))),
            None => Ok(binary(left.canonical(), op, right.canonical())),
        },
        TypeClass::Time => Ok(binary(left.expr.clone(), op, right.time()?)),
        TypeClass::Date => Ok(match ScalarValue::from(text.trim()).cast_to(&DataType::Date32) {
            Ok(date) if text.trim().len() <= "2026-01-31".len() => {
                binary(left.expr.clone(), op, Expr::Literal(date, None))
            }
            _ => binary(left.time()?, op, right.time()?),
        }),
        TypeClass::Interval => {
            let interval = cast(right.expr.clone(), DataType::Interval(IntervalUnit::MonthDayNano));
            let micros = |expr| call(plan::functions::interval::MICROS, vec![expr]);
            Ok(binary(micros(left.expr.clone()), op, micros(interval)))
        }
        _ => Ok(binary(left.expr.clone(), op, right.expr.clone())),
    }
}

/// The equality of JSON and a quoted literal.
fn json_equality(left: &Operand, op: Operator, right: &Operand) -> Result<Expr> {
    if matches!(op, Operator::Eq | Operator::NotEq) {
        return lower_in_list(left, slice::from_ref(right), op == Operator::NotEq);
    }
    let equal = lower_in_list(left, slice::from_ref(right), false)?;
    Ok(if op == Operator::IsDistinctFrom {
        equal.is_not_true()
    } else {
        equal.is_true()
    })
}

/// The order of JSON and a quoted literal. The literal may also be written like a number or a boolean, and is then
/// compared with such values.
fn json_ordering(left: &Operand, op: Operator, text: &str, right: &Operand, number: Option<Expr>) -> Result<Expr> {
    let number = number
        .map(|number| canonical_item(&Operand::of(number, &DFSchema::empty())?))
        .transpose()?;
    let number_or_bool = number.or_else(|| {
        let truth = proto::json::parse(text.as_bytes())
            .ok()
            .filter(|value| matches!(value, Value::Bool(_)));
        truth.map(|truth| json_literal(canonical(&truth)))
    });
    Ok(match number_or_bool {
        Some(number_or_bool) => {
            let operands = vec![
                left.canonical(),
                json_literal(canonical(&Value::Text(text.into()))),
                number_or_bool,
            ];
            binary(call(json::COMPARE, operands), op, lit(0_i64))
        }
        None => binary(left.read_as(Type::Text, false), op, right.expr.clone()),
    })
}

fn compare_with_number(left: &Operand, op: Operator, number: Option<Expr>) -> Result<Expr> {
    let number = number.unwrap_or_else(|| null_literal(DataType::Int64));
    lower_comparison(left, op, &Operand::of(number, &DFSchema::empty())?)
}
