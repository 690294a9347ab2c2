//! Casts of computed values. A value that cannot be converted is NULL, and counted under the type's name.
//!
//! - `lenient_cast(value, NULL::type, 'TYPE')` converts as Arrow does.
//! - `json_cast(value, NULL::type, 'TYPE')` converts as [`read_value`] does: to what the same value in a document is cast.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _},
        compute::{CastOptions, cast, cast_with_options},
        datatypes::{DataType, Field, Float64Type, Int64Type},
    },
    common::{Result, exec_err},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};
use proto::json::{self, Value};

use super::{
    function::{Call, Function, Returns},
    json::{text_views, to_json},
};
use crate::{
    PathType, Type,
    builder::Builder,
    value::{CastResult, Scalar, canonical, number, read_value},
};

/// The name of the function that converts as Arrow does.
pub const CAST: &str = "lenient_cast";
/// The name of the function that converts as values of documents are cast.
pub const JSON_CAST: &str = "json_cast";

/// Both functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(CAST, Some(3), Returns::Of(field), convert).into(),
        Function::new(JSON_CAST, Some(3), Returns::Of(field), convert_as_json).into(),
    ]
}

fn field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let [_, to, _] = args.arg_fields else {
        return exec_err!("{name} takes a value, a type and its name");
    };
    Ok(Field::new(name, to.data_type().clone(), true))
}

/// The type to which a call converts.
fn target(call: &Call) -> Result<DataType> {
    match call.args() {
        [_, to, _] => Ok(to.data_type()),
        _ => exec_err!("{} takes a value, a type and its name", call.name),
    }
}

fn convert(call: &Call) -> Result<ArrayRef> {
    let values = call.column(0)?;
    let converted = cast_with_options(
        &values,
        &target(call)?,
        &CastOptions {
            safe: true,
            ..Default::default()
        },
    )?;
    let failed = converted.null_count() - values.logical_null_count();
    call.count(
        &format!("as {}", call.text(2)?),
        failed,
        call.rows - values.logical_null_count(),
    );
    Ok(converted)
}

fn convert_as_json(call: &Call) -> Result<ArrayRef> {
    let target = target(call)?;
    let Some((to, ..)) = Type::TABLE.into_iter().find(|(to, ..)| to.arrow() == target) else {
        return exec_err!("{JSON_CAST} does not convert to {target}");
    };
    let converted = cast_as_json(&call.column(0)?, to)?;
    // As `json_get` does. What counts successes, too, is computed twice where a row stands for many documents.
    if converted.cast_failures > 0 {
        call.count(
            &format!("as {}", call.text(2)?),
            converted.cast_failures as usize,
            converted.present as usize,
        );
    }
    Ok(converted.finish())
}

/// Converts each value to what it would be cast to in a document. A double that is an integer within int64 is that
/// integer there, as `-0.0` is 0, and one that is not finite is NULL.
pub fn cast_as_json(values: &ArrayRef, to: Type) -> Result<Builder> {
    Ok(match values.data_type() {
        DataType::Utf8 | DataType::Utf8View => cast_each(text_views(values)?.as_string_view(), to, |text| {
            Some(Value::Text(text.into()))
        }),
        of if of.is_floating() => cast_each(
            cast(values, &DataType::Float64)?.as_primitive::<Float64Type>(),
            to,
            number,
        ),
        // Not all of UInt64 are integers in documents.
        of if of.is_integer() && *of != DataType::UInt64 => {
            let int = |int| Some(Value::Int(int));
            cast_each(cast(values, &DataType::Int64)?.as_primitive::<Int64Type>(), to, int)
        }
        // Others are rare: decimals, lists.
        _ => cast_each(to_json(values)?.as_string::<i64>(), to, |text| {
            json::parse(text.as_bytes()).ok()
        }),
    })
}

/// Casts the value in a document that `json` returns for each value.
fn cast_each<'v, T>(
    values: impl IntoIterator<Item = Option<T>>,
    to: Type,
    json: impl Fn(T) -> Option<Value<'v>>,
) -> Builder {
    let values = values.into_iter();
    let mut converted = Builder::new(to, values.size_hint().0);
    for value in values {
        converted.push(match &value.and_then(&json) {
            None | Some(Value::Null) => CastResult::Absent,
            // No document spells it.
            Some(value) if to == Type::Text && !matches!(value, Value::Text(_)) => {
                CastResult::Fits(Scalar::Text(canonical(value).into()))
            }
            Some(value) => read_value(value, || None, PathType { to, cast: true }),
        });
    }
    converted
}

#[cfg(test)]
mod tests;
