//! Bounds the memory and work of function calls. A library function computes a whole batch at once, however large its
//! result, and cannot be interrupted. So each call is weighed first: the sizes of its arguments limit the bytes or
//! steps that its rows may take. A heavy batch is computed in parts, and between two parts the query may end at its
//! deadline or memory limit.

mod pattern;
mod weight;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, UInt64Array},
        compute::{concat, take},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

use self::weight::WeighedCall;
use super::{
    constants,
    context::{FunctionContext, limit_reached},
    registry,
};
use crate::arrays::{compact, size, value_size};

/// Maximum bytes of one call's result for a batch.
const CALL_BYTES_MAX: u64 = 128 << 20;
/// Maximum bytes of a value computed from constants: it is copied while the query is planned, and for every row.
const CONSTANT_BYTES_MAX: u64 = 16 << 20;

/// Computes a call, in parts if the whole batch is too heavy.
pub(super) fn invoke(
    name: &str,
    args: ScalarFunctionArgs,
    compute: impl Fn(ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let context = FunctionContext::of(&args.config_options).cloned().unwrap_or_default();
    let has_columns = args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
    let rows = if has_columns { args.number_rows } else { 1 };
    // A join may call this for every batch of pairs, and checks the deadline nowhere else.
    context.check()?;
    let call = WeighedCall::new(name, &args, rows)?;
    let limit = ResultLimit {
        name,
        rows,
        bytes_max: if has_columns {
            context.available_bytes().min(CALL_BYTES_MAX)
        } else {
            CONSTANT_BYTES_MAX
        },
    };
    if !call.is_heavy() {
        let computed = compute(args)?;
        let bytes = computed_size(&computed);
        limit.check(bytes)?;
        if let ColumnarValue::Array(array) = &computed {
            context.track(array, bytes);
        }
        return Ok(computed);
    }
    if has_columns {
        return compute_in_parts(&context, &call, &args, &limit, compute);
    }
    context.check()?;
    let computed = compute(sliced(&args, 0, call.part_end(0)?)?)?;
    limit.check(computed_size(&computed))?;
    Ok(computed)
}

/// Computes a call part by part. Before each part, the query may end.
fn compute_in_parts(
    context: &FunctionContext,
    call: &WeighedCall<'_>,
    args: &ScalarFunctionArgs,
    limit: &ResultLimit<'_>,
    compute: impl Fn(ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let mut parts: Vec<ArrayRef> = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    while from < limit.rows {
        context.check()?;
        let to = call.part_end(from)?;
        let part = compute(sliced(args, from, to - from)?)?.into_array(to - from)?;
        bytes += size(&part);
        limit.check(bytes)?;
        parts.push(part);
        from = to;
    }
    let whole = match parts.as_slice() {
        [part] => Arc::clone(part),
        parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    };
    context.track(&whole, bytes);
    Ok(ColumnarValue::Array(whole))
}

/// The limit for the result of one call.
struct ResultLimit<'a> {
    name: &'a str,
    rows: usize,
    bytes_max: u64,
}

impl ResultLimit<'_> {
    fn check(&self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        let Self { name, rows, bytes_max } = self;
        Err(limit_reached(
            format!(
                "{} produces {bytes} bytes for {rows} rows at once; the limit is {bytes_max}",
                spelling(name)
            ),
            "produce shorter texts or lists, or fewer of them",
        ))
    }
}

/// A function as spelled in statements.
fn spelling(name: &str) -> &str {
    registry::function(name)
        .and_then(|entry| entry.operator)
        .unwrap_or(name)
}

fn computed_size(value: &ColumnarValue) -> u64 {
    match value {
        ColumnarValue::Scalar(value) => value_size(value),
        ColumnarValue::Array(array) => size(array),
    }
}

fn sliced(args: &ScalarFunctionArgs, from: usize, rows: usize) -> Result<ScalarFunctionArgs> {
    let slice = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => copied_rows(array, from, rows).map(ColumnarValue::Array),
        scalar => Ok(scalar.clone()),
    };
    Ok(ScalarFunctionArgs {
        args: args.args.iter().map(slice).collect::<Result<_>>()?,
        number_rows: rows,
        ..args.clone()
    })
}

/// Copies some rows of an array into buffers of their own: functions allocate results by the length of these buffers.
fn copied_rows(array: &ArrayRef, from: usize, rows: usize) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(compact(&array.slice(from, rows))),
        data_type if constants::is_long(data_type) => Ok(take(
            array,
            &UInt64Array::from_iter_values((from..from + rows).map(|row| row as u64)),
            None,
        )?),
        _ => Ok(array.slice(from, rows)),
    }
}

#[cfg(test)]
mod tests;
