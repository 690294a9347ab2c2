//! Integers as ClickHouse computes them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, Int64Array},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use proto::json::{self, Value};

use super::{
    super::{
        function::{Call, Function, Returns},
        json::text_views,
    },
    each_row::each_row,
};

/// `int_div(a, b)`: the quotient without its fraction; of integers it is exact.
const DIVIDE: &str = "int_div";
/// `wrapped_int(json, 'uint8')` is ClickHouse's `toUInt8`: a fraction is cut off, and the lowest bits remain.
pub const WRAPPED: &str = "wrapped_int";

/// `int_or_null(json, 'int32')` is ClickHouse's `toInt32OrNull`: the integer that is spelled, if it fits.
const OR_NULL: &str = "int_or_null";

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let integer = |name, compute| {
        Function::new(name, Some(2), Returns::Type(DataType::Int64), compute)
            .strict()
            .into()
    };
    vec![
        integer(DIVIDE, divide),
        integer(WRAPPED, wrapped),
        integer(OR_NULL, or_null),
    ]
}

fn divide(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.column(0)?, call.column(1)?);
    let found = if left.data_type().is_integer() && right.data_type().is_integer() {
        let (left, right) = (cast(&left, &DataType::Int64)?, cast(&right, &DataType::Int64)?);
        each_row(call, &[&left, &right], |row| {
            let value = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(row);
            value(&left).checked_div(value(&right))
        })
    } else {
        let (left, right) = (cast(&left, &DataType::Float64)?, cast(&right, &DataType::Float64)?);
        each_row(call, &[&left, &right], |row| {
            let value = |column: &ArrayRef| column.as_primitive::<Float64Type>().value(row);
            truncated(value(&left) / value(&right))
        })
    };
    Ok(Arc::new(Int64Array::from(found)))
}

/// A double without its fraction, if it fits.
fn truncated(double: f64) -> Option<i64> {
    const INT64_END: f64 = 9_223_372_036_854_775_808.0; // 2^63
    let whole = double.trunc();
    (-INT64_END..INT64_END).contains(&whole).then_some(whole as i64)
}

fn wrapped(call: &Call) -> Result<ArrayRef> {
    let values = text_views(&call.column(0)?)?;
    let to = call.text(1)?;
    let found = each_row(call, &[&values], |row| {
        let text = values.as_string_view().value(row);
        let integer = match json::parse(text.as_bytes()).ok()? {
            Value::Int(int) => int,
            Value::Float(double) => truncated(double)?,
            Value::Bool(bool) => i64::from(bool),
            Value::Text(text) => whole_number(&text, to)?,
            _ => return None,
        };
        wrap(integer, to)
    });
    Ok(Arc::new(Int64Array::from(found)))
}

fn or_null(call: &Call) -> Result<ArrayRef> {
    let values = text_views(&call.column(0)?)?;
    let to = call.text(1)?;
    let found = values.as_string_view().iter().map(|text| {
        let integer = match json::parse(text?.as_bytes()).ok()? {
            Value::Int(int) => int,
            Value::Text(text) => whole_number(&text, to)?,
            _ => return None,
        };
        wrap(integer, to).filter(|wrapped| *wrapped == integer)
    });
    Ok(Arc::new(found.collect::<Int64Array>()))
}

/// The integer that a text spells, and nothing but that.
fn whole_number(text: &str, to: &str) -> Option<i64> {
    let is_unsigned = to.starts_with('u');
    text.parse().ok().filter(|_| !(is_unsigned && text.starts_with('-')))
}

/// The lowest bits of an integer. None if the result is larger than our integers.
fn wrap(integer: i64, to: &str) -> Option<i64> {
    Some(match to {
        "int8" => (integer as i8).into(),
        "int16" => (integer as i16).into(),
        "int32" => (integer as i32).into(),
        "int64" => integer,
        "uint8" => (integer as u8).into(),
        "uint16" => (integer as u16).into(),
        "uint32" => (integer as u32).into(),
        "uint64" if integer >= 0 => integer,
        _ => return None,
    })
}
