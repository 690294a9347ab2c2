//! Lowers operators: arithmetic, bits, regular expressions, concatenation.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, DataFusionError, Result, ScalarValue, internal_err},
    logical_expr::{BinaryExpr, Expr, Operator, lit},
};
use plan::functions::{self, checked, interval, text};

use super::{
    arguments::{function_call, library_function},
    pattern::is_slow_regex,
    temporal::temporal_arithmetic,
};
use crate::typing::{
    compare::lower_comparison,
    operand::{Operand, TypeClass, bad_sql, call, literal, reads_as_integer},
};

/// `left op right`.
pub(super) fn lower_operator(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    use Operator::{
        BitwiseAnd, BitwiseOr, BitwiseShiftLeft, BitwiseShiftRight, BitwiseXor, Divide, Eq, Gt, GtEq, IsDistinctFrom,
        IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus, RegexIMatch, RegexMatch, RegexNotIMatch,
        RegexNotMatch, StringConcat,
    };
    let binary = |left: Expr, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => lower_comparison(left, op, right),
        Plus | Minus | Multiply | Divide | Modulo => lower_arithmetic(op, left, right),
        BitwiseAnd | BitwiseOr | BitwiseXor | BitwiseShiftLeft | BitwiseShiftRight => {
            Ok(binary(left.integer()?, right.integer()?))
        }
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch
            if !right.is_literal() || right.quoted().is_some_and(is_slow_regex) =>
        {
            let flags = matches!(op, RegexIMatch | RegexNotIMatch).then(|| lit("i"));
            let args = [left.text(), right.text()].into_iter().chain(flags).collect();
            // A pattern from a document may be invalid; the library's function then returns NULL.
            let matched = function_call(library_function("regexp_like")?, args);
            Ok(if matches!(op, RegexNotMatch | RegexNotIMatch) {
                Expr::Not(Box::new(matched))
            } else {
                matched
            })
        }
        StringConcat if [left, right].iter().any(|operand| operand.class() == TypeClass::List) => {
            Ok(binary(left.native(), right.native()))
        }
        StringConcat => Ok(concatenate(left.text(), right.text())),
        _ => Ok(binary(left.text(), right.text())),
    }
}

fn lower_arithmetic(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    let is_temporal = |class| matches!(class, TypeClass::Time | TypeClass::Date | TypeClass::Interval);
    let (left_class, right_class) = (left.class(), right.class());
    if is_temporal(left_class) || is_temporal(right_class) {
        return temporal_arithmetic(op, left, right);
    }
    let by_library = |left: Expr, right: Expr| match [left_class, right_class].contains(&TypeClass::Other) {
        true => Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))),
        false => counted_operator(op, left, right),
    };
    match op {
        Operator::Divide | Operator::Modulo if left.is_literal() && is_zero(right) => Err(division_by_zero()),
        Operator::Divide => Ok(call(checked::QUOTIENT, vec![left.double()?, right.double()?])),
        Operator::Modulo if is_integer(left) && is_integer(right) => {
            Ok(call(checked::REMAINDER, vec![left.number()?, right.number()?]))
        }
        Operator::Modulo => {
            let divisor = right.number()?;
            let is_literal = Operand::of(divisor.clone(), &DFSchema::empty()).is_ok_and(|d| d.is_literal());
            let divisor = if is_literal {
                divisor
            } else {
                datafusion::functions::core::expr_fn::nullif(divisor, lit(0_i64))
            };
            by_library(left.number()?, divisor)
        }
        _ if is_integer(left) && is_integer(right) => Ok(flat_arithmetic(
            op,
            [checked::SUM, checked::PRODUCT],
            left.number()?,
            right.number()?,
        )),
        _ if may_be_double(left) && may_be_double(right) => Ok(flat_arithmetic(
            op,
            [checked::DOUBLE_SUM, checked::DOUBLE_PRODUCT],
            left.double()?,
            right.double()?,
        )),
        _ => by_library(left.number()?, right.number()?),
    }
}

/// Whether arithmetic takes the operand as an integer.
fn is_integer(operand: &Operand) -> bool {
    match operand.class() {
        TypeClass::Int | TypeClass::Null => true,
        TypeClass::Json(kinds) => reads_as_integer(kinds),
        TypeClass::Text => operand.quoted().is_some_and(|text| text.trim().parse::<i64>().is_ok()),
        _ => false,
    }
}

/// Whether arithmetic may take the operand as a double.
fn may_be_double(operand: &Operand) -> bool {
    !matches!(
        operand.class(),
        TypeClass::Decimal | TypeClass::Other | TypeClass::Bool | TypeClass::List
    )
}

/// An operator as the function that returns NULL for a row whose result does not fit, and counts such rows.
pub(super) fn counted_operator(op: Operator, left: Expr, right: Expr) -> Result<Expr> {
    match functions::arithmetic::name(op) {
        Some(name) => Ok(call(name, vec![left, right])),
        None => internal_err!("{op} is not an arithmetic operator"),
    }
}

pub(super) fn division_by_zero() -> DataFusionError {
    bad_sql(
        "division by zero".into(),
        "write NULLIF(divisor, 0) where data may be zero",
    )
}

/// Whether the operand is a literal zero.
pub(super) fn is_zero(operand: &Operand) -> bool {
    literal(&operand.expr).is_some_and(|value| {
        !value.is_null()
            && value
                .cast_to(&DataType::Float64)
                .is_ok_and(|value| value == ScalarValue::Float64(Some(0.0)))
    })
}

/// Adds, subtracts or multiplies numbers by the checked functions of their type. A chain of operators becomes one flat
/// call.
fn flat_arithmetic(op: Operator, [sum, product]: [&str; 2], left: Expr, right: Expr) -> Expr {
    let (name, sign) = match op {
        Operator::Multiply => (product, None),
        Operator::Minus => (sum, Some('-')),
        _ => (sum, Some('+')),
    };
    let mut args = match left {
        Expr::ScalarFunction(call) if call.func.name() == name => call.args,
        other if sign.is_some() => vec![lit("+"), other],
        other => vec![other],
    };
    if let (Some(sign), Some(first)) = (sign, args.first_mut()) {
        let signs = literal(first)
            .and_then(|signs| signs.try_as_str().flatten())
            .unwrap_or_default();
        *first = lit(format!("{signs}{sign}"));
    }
    args.push(right);
    call(name, args)
}

/// Concatenates texts. A chain of operators becomes one flat call.
fn concatenate(left: Expr, right: Expr) -> Expr {
    let mut args = match left {
        Expr::ScalarFunction(call) if call.func.name() == text::JOIN => call.args,
        other => vec![other],
    };
    args.push(right);
    call(text::JOIN, args)
}

/// `-value`.
pub(super) fn negate(value: &Operand) -> Result<Expr> {
    let number = match value.class() {
        TypeClass::Interval => return Ok(call(interval::SCALE, vec![value.expr.clone(), lit(-1.0)])),
        _ => value.number()?,
    };
    match value.class() {
        TypeClass::Int if value.is_literal() => match literal(&number) {
            Some(ScalarValue::Int64(Some(int))) => match int.checked_neg() {
                Some(negative) => Ok(lit(negative)),
                None => Err(bad_sql(
                    format!("-({int}) has no result"),
                    "write the number with a decimal point",
                )),
            },
            _ => Ok(Expr::Negative(Box::new(number))),
        },
        TypeClass::Int => Ok(call(checked::SUM, vec![lit("-"), number])),
        TypeClass::Json(kinds) if reads_as_integer(kinds) => Ok(call(checked::SUM, vec![lit("-"), number])),
        _ => Ok(Expr::Negative(Box::new(number))),
    }
}
