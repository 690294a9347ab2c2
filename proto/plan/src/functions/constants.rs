//! The memory that constants of an expression need: somewhere each is repeated for every row of a batch, so long
//! constants require small batches.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Schema},
    common::{Result, ScalarValue, tree_node::TreeNodeRecursion},
    physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions::Literal, scalar_subquery::ScalarSubqueryExpr},
};

use crate::walk::Walk as _;

use super::{
    registry::{self, Property},
    score::SCORE,
};

/// Rows of a batch by default.
pub const BATCH_ROWS: usize = 8_192;
/// Bytes that the constants of an expression may take when repeated for all rows of a batch.
const REPEATED_BYTES_MAX: usize = 8 << 20;
/// Constants up to this length are not counted.
const SHORT_BYTES_MAX: usize = 1 << 10;
/// Assumed sizes of the value of a subquery, which is not known beforehand: of a list, and of JSON.
const SUBQUERY_LIST_BYTES: usize = 1 << 20;
const SUBQUERY_JSON_BYTES: usize = 64 << 10;
const ROWS_MIN: usize = 8;

/// Rows of a batch for an expression whose constants have this many bytes.
pub fn rows(bytes: usize) -> usize {
    (REPEATED_BYTES_MAX / bytes.max(1)).clamp(ROWS_MIN, BATCH_ROWS)
}

/// Bytes that the long constants of an expression may take per row.
pub fn bytes(expr: &Arc<dyn PhysicalExpr>) -> Result<usize> {
    let (mut bytes, mut shared) = (0, 0);
    expr.apply(|part| {
        shared += shared_bytes(part);
        bytes += if let Some(literal) = part.downcast_ref::<Literal>() {
            // A Utf8View text is stored only once.
            let repeated = !matches!(literal.value().data_type(), DataType::Utf8View);
            Some(literal.value().size())
                .filter(|size| repeated && *size > SHORT_BYTES_MAX)
                .unwrap_or_default()
        } else if let Some(subquery) = part.downcast_ref::<ScalarSubqueryExpr>() {
            match subquery.return_field(&Schema::empty())?.data_type() {
                list if list.is_nested() => SUBQUERY_LIST_BYTES,
                DataType::LargeUtf8 => SUBQUERY_JSON_BYTES,
                _ => 0,
            }
        } else {
            padded_length(part)
                .filter(|length| *length > SHORT_BYTES_MAX)
                .unwrap_or_default()
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes - shared)
}

/// Assumed bytes of subqueries that a function reads once, however many rows there are: the statistics of a score.
fn shared_bytes(part: &Arc<dyn PhysicalExpr>) -> usize {
    let call = part.downcast_ref::<ScalarFunctionExpr>();
    let arguments = call
        .filter(|call| call.name() == SCORE)
        .map_or(&[][..], |call| call.args());
    let subqueries = arguments
        .iter()
        .skip(1)
        .take(2)
        .filter(|part| part.is::<ScalarSubqueryExpr>());
    subqueries.count() * SUBQUERY_LIST_BYTES
}

/// The length to which a function pads a text.
fn padded_length(part: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let call = part
        .downcast_ref::<ScalarFunctionExpr>()
        .filter(|call| registry::function(call.name()).is_some_and(|entry| entry.has(Property::PadsText)))?;
    let length = call
        .args()
        .get(1)?
        .downcast_ref::<Literal>()?
        .value()
        .cast_to(&DataType::Int64)
        .ok()?;
    match length {
        ScalarValue::Int64(Some(length)) => usize::try_from(length).ok(),
        _ => None,
    }
}

/// Whether values of a type may be long.
pub fn is_long(data_type: &DataType) -> bool {
    data_type.is_nested()
        || matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
        )
}
