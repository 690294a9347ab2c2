//! Lowers casts: `value::type` and TRY_CAST.

use datafusion::{
    arrow::{
        compute::can_cast_types,
        datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit},
    },
    common::{DFSchema, DataFusionError, Result, ScalarValue},
    logical_expr::{Expr, lit},
};
use plan::{Kinds, Type, column::is_json, functions::json};

use crate::typing::{
    literals::{cast_literal, literal_sql},
    operand::{
        Operand, TypeClass, bad_sql, call, cast, counted_cast, describe_type, display_name, literal, null_literal,
        try_cast,
    },
};

/// `value::type`, or TRY_CAST if `lenient`. A value of the data that cannot be cast becomes NULL. A literal that cannot
/// be cast is an error, or NULL if `lenient`.
pub(super) fn lower_cast(value: &Operand, to: &DataType, lenient: bool, schema: &DFSchema) -> Result<Expr> {
    if value.class() == TypeClass::Null {
        return Ok(null_literal(to.clone()));
    }
    let path_type = path_type_of(to);
    if let Some(text) = value.quoted() {
        return cast_quoted(text, value, to, path_type, lenient);
    }
    if value.data_type() == to {
        return Ok(value.expr.clone());
    }
    check_castable(value, to)?;
    if is_json(to) {
        return Ok(cast_to_json(value));
    }
    Ok(match (value.class(), path_type, to) {
        (TypeClass::Json(kinds), Some(of), _) => value.read_as(of, !(of == Type::Text && kinds == Kinds::TEXT)),
        (TypeClass::Double, Some(Type::Text), _) => value.text(),
        (TypeClass::Text, Some(Type::Text), _) => cast(value.expr.clone(), DataType::Utf8View),
        (TypeClass::Text, Some(of), _) => value.cast_like_json(of),
        (TypeClass::Double, Some(of @ Type::Int), _)
        | (TypeClass::Int | TypeClass::Double, Some(of @ Type::Time), _) => {
            return cast_number(value, to, of, lenient);
        }
        // A number is in seconds since 1970, as it is at a path.
        (TypeClass::Json(_) | TypeClass::Text | TypeClass::Int | TypeClass::Double, None, DataType::Date32) => {
            try_cast(value.cast_like_json(Type::Time), DataType::Date32)
        }
        (TypeClass::Decimal, Some(Type::Time), _) | (TypeClass::Decimal, None, DataType::Date32) => {
            let double = Operand::of(value.double()?, schema)?;
            return lower_cast(&double, to, lenient, schema);
        }
        // A decimal is rounded as by a cast between decimals.
        (TypeClass::Decimal, Some(Type::Int), _) if !matches!(value.data_type(), DataType::Decimal128(_, 0)) => {
            let whole = cast(value.expr.clone(), DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0));
            return lower_cast(&Operand::of(whole, schema)?, to, lenient, schema);
        }
        (TypeClass::Json(_) | TypeClass::Text, None, _) => counted_cast(value.cast_like_json(Type::Text), to),
        (TypeClass::Time | TypeClass::Date, Some(Type::Time), _) => value.time()?,
        _ => return cast_by_library(value, to, lenient),
    })
}

/// The type as which a path can be read to get this type, if any.
fn path_type_of(to: &DataType) -> Option<Type> {
    match to {
        DataType::Boolean => Some(Type::Bool),
        DataType::Int64 => Some(Type::Int),
        DataType::Float64 => Some(Type::Double),
        DataType::Utf8View => Some(Type::Text),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Some(Type::Time),
        _ => None,
    }
}

/// Returns an error if no value of the operand's type can be cast.
fn check_castable(value: &Operand, to: &DataType) -> Result<()> {
    if matches!(value.class(), TypeClass::Json(_) | TypeClass::Text)
        || is_json(to)
        || can_cast_types(value.data_type(), to)
    {
        return Ok(());
    }
    let hint = match value.class() {
        TypeClass::Time | TypeClass::Date | TypeClass::Interval => {
            "extract(epoch FROM x) returns the seconds of a time or an interval"
        }
        _ => "x::text returns the text of any value",
    };
    Err(bad_sql(
        format!(
            "{} is {}, which cannot be cast to {}",
            display_name(value),
            describe_type(value),
            crate::answer::type_name(to)
        ),
        hint,
    ))
}

fn cast_to_json(value: &Operand) -> Expr {
    match value.class() {
        TypeClass::Json(_) => value.expr.clone(),
        TypeClass::Text => call(json::GET, vec![value.expr.clone(), lit(""), lit("json")]),
        _ => call(json::TO_JSON, vec![value.expr.clone()]),
    }
}

fn cast_number(value: &Operand, to: &DataType, path_type: Type, lenient: bool) -> Result<Expr> {
    let Some(number) = literal(&value.expr) else {
        return Ok(value.cast_like_json(path_type));
    };
    match cast_literal(number, path_type) {
        Some(converted) => Ok(Expr::Literal(converted, None)),
        None if lenient => Ok(null_literal(to.clone())),
        None => Err(literal_error(&literal_sql(number), to)),
    }
}

/// Casts a value by Arrow's cast.
fn cast_by_library(value: &Operand, to: &DataType, lenient: bool) -> Result<Expr> {
    let Some(constant) = literal(&value.expr) else {
        return Ok(counted_cast(value.expr.clone(), to));
    };
    match constant.cast_to(to) {
        Ok(converted) if constant.is_null() || !converted.is_null() => Ok(Expr::Literal(converted, None)),
        _ if lenient => Ok(null_literal(to.clone())),
        _ => Err(literal_error(&literal_sql(constant), to)),
    }
}

/// Casts a quoted literal.
fn cast_quoted(text: &str, value: &Operand, to: &DataType, path_type: Option<Type>, lenient: bool) -> Result<Expr> {
    use plan::value::{bool_of_text, double_of_text, int_of_text};
    let converted = match path_type {
        Some(Type::Bool) => bool_of_text(text).map(lit),
        Some(Type::Int) => int_of_text(text).map(lit),
        Some(Type::Double) => double_of_text(text).map(lit),
        Some(Type::Text) => Some(cast(value.expr.clone(), DataType::Utf8View)),
        Some(Type::Time) => quoted_time(value, lenient)?,
        _ if is_json(to) => {
            let is_valid = proto::json::parse(text.as_bytes()).is_ok();
            is_valid.then(|| Expr::Literal(ScalarValue::LargeUtf8(Some(text.to_owned())), None))
        }
        _ if *to == DataType::Date32 => quoted_time(value, lenient)?.map(|time| cast(time, DataType::Date32)),
        _ => ScalarValue::from(text.trim())
            .cast_to(to)
            .ok()
            .filter(|value| !value.is_null())
            .map(|value| Expr::Literal(value, None)),
    };
    match converted {
        Some(converted) => Ok(converted),
        None if lenient => Ok(null_literal(to.clone())),
        None => Err(literal_error(&format!("'{text}'"), to)),
    }
}

/// A quoted literal as a time. If it is not one, the result is an error, or None if `lenient`.
fn quoted_time(value: &Operand, lenient: bool) -> Result<Option<Expr>> {
    match value.time() {
        Ok(time) => Ok(Some(time)),
        Err(_) if lenient => Ok(None),
        Err(error) => Err(error),
    }
}

fn literal_error(literal: &str, to: &DataType) -> DataFusionError {
    let name = crate::answer::type_name(to);
    bad_sql(
        format!("{literal} cannot be read as {name}"),
        "write a value of that type, or use TRY_CAST to get NULL",
    )
}
