//! Finds one common type for values that become one result: those of CASE, COALESCE, an array, a column of a UNION.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, ScalarValue},
    logical_expr::Expr,
};
use plan::{Kinds, Type};

use crate::typing::operand::{Operand, TypeClass, cast, literal};

/// The values converted to a common type, and the class of that type (None if all values are NULL).
///
/// If one value is a text, all become texts, each its own text. Document values of different kinds stay JSON.
pub(crate) fn unify(values: &[Operand]) -> Result<(Vec<Expr>, Option<TypeClass>)> {
    if let Some(texts) = as_texts(values) {
        return Ok((texts, Some(TypeClass::Text)));
    }
    let is_temporal = |value: &Operand| matches!(value.class(), TypeClass::Time | TypeClass::Date);
    let may_be_temporal =
        |value: &Operand| matches!(value.class(), TypeClass::Null | TypeClass::Json(_) | TypeClass::Text);
    if values.iter().any(is_temporal) && values.iter().all(|value| is_temporal(value) || may_be_temporal(value)) {
        return as_times(values);
    }
    let natives: Vec<Expr> = values.iter().map(Operand::native).collect();
    if values.iter().all(|value| value.kinds().is_none()) {
        let classes: Vec<TypeClass> = values
            .iter()
            .map(Operand::class)
            .filter(|class| *class != TypeClass::Null)
            .collect();
        if classes
            .windows(2)
            .all(|pair| pair[0] == pair[1] || (pair[0].is_number() && pair[1].is_number()))
        {
            if are_integers_and_doubles(values) {
                return Ok((as_doubles(values, natives), Some(TypeClass::Double)));
            }
            return Ok((natives, classes.first().copied()));
        }
    }
    if have_common_native_type(values) {
        if are_integers_and_doubles(values) {
            return Ok((as_doubles(values, natives), Some(TypeClass::Double)));
        }
        return Ok((natives, Some(TypeClass::Other)));
    }
    let json = |value: &Operand| match value.class() {
        TypeClass::Json(_) => value.expr.clone(),
        _ => value.canonical(),
    };
    Ok((
        values.iter().map(json).collect(),
        Some(TypeClass::Json(Kinds::default())),
    ))
}

/// All values as texts, if one of them is a text and none is a time, an interval, a list or of another type.
fn as_texts(values: &[Operand]) -> Option<Vec<Expr>> {
    let has_text = values.iter().any(|value| value.class() == TypeClass::Text);
    let all_convertible = values.iter().all(|value| {
        !matches!(
            value.class(),
            TypeClass::Time | TypeClass::Date | TypeClass::Interval | TypeClass::List | TypeClass::Other
        )
    });
    (has_text && all_convertible).then(|| values.iter().map(Operand::text).collect())
}

/// All values as dates if they are dates or NULL, otherwise as times.
fn as_times(values: &[Operand]) -> Result<(Vec<Expr>, Option<TypeClass>)> {
    let all_dates = values
        .iter()
        .all(|value| matches!(value.class(), TypeClass::Date | TypeClass::Null));
    if all_dates {
        let dates = values.iter().map(|value| value.expr.clone()).collect();
        return Ok((dates, Some(TypeClass::Date)));
    }
    let times = values.iter().map(Operand::time).collect::<Result<_>>()?;
    Ok((times, Some(TypeClass::Time)))
}

/// The type that a value has without a conversion. None if it is JSON.
fn native_type(value: &Operand) -> Option<DataType> {
    match value.class() {
        TypeClass::Json(kinds) => kinds.native().filter(|native| *native != Type::Json).map(Type::arrow),
        _ => Some(value.data_type().clone()),
    }
}

/// Whether there are integers and doubles among the values, and nothing else but NULL. The planner takes a CASE for an
/// integer if its first branch is one, so they are not left to it.
fn are_integers_and_doubles(values: &[Operand]) -> bool {
    let values = values.iter().filter(|value| value.class() != TypeClass::Null);
    let types: Vec<Option<DataType>> = values.map(native_type).collect();
    let is_integer = |of: &Option<DataType>| of.as_ref().is_some_and(DataType::is_integer);
    let is_double = |of: &Option<DataType>| *of == Some(DataType::Float64);
    types.iter().any(is_integer)
        && types.iter().any(is_double)
        && types.iter().all(|of| is_integer(of) || is_double(of))
}

/// Numbers as doubles.
fn as_doubles(values: &[Operand], natives: Vec<Expr>) -> Vec<Expr> {
    let double = |(value, native): (&Operand, Expr)| match native_type(value) {
        Some(of) if of.is_integer() => cast(native, DataType::Float64),
        _ => native,
    };
    values.iter().zip(natives).map(double).collect()
}

/// Whether the native types of all values are equal, or are numbers that convert to each other without rounding.
fn have_common_native_type(values: &[Operand]) -> bool {
    let types: Option<Vec<DataType>> = values
        .iter()
        .filter(|value| value.class() != TypeClass::Null)
        .map(native_type)
        .collect();
    let types = types.unwrap_or_default();
    let all_equal = types.windows(2).all(|pair| pair[0] == pair[1]);
    let all_numbers = types
        .iter()
        .all(|data_type| matches!(data_type, DataType::Int64 | DataType::Float64));
    !types.is_empty() && (all_equal || (all_numbers && !values.iter().any(may_be_wide)))
}

/// Whether the operand may be an integer that a double cannot represent exactly.
fn may_be_wide(value: &Operand) -> bool {
    match value.class() {
        TypeClass::Json(kinds) => kinds.any(Kinds::WIDE),
        TypeClass::Int => {
            !matches!(literal(&value.expr), Some(ScalarValue::Int64(Some(int))) if int.unsigned_abs() <= 1 << 53)
        }
        _ => false,
    }
}
