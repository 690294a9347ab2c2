//! Integer arithmetic that does not wrap: what does not fit into 64 bits, on the way or in the end, is NULL.
//!
//! `checked_sum('+-+', a, b, c)` is `a - b + c`, `checked_mul(a, b, c)` is `a * b * c`, both from left to right: a long chain is one call, not
//! a deep one. A statement cannot name them; the resolver puts them where integers are added, subtracted and multiplied.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, Int64Array},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// Adds and subtracts.
pub const SUM: &str = "checked_sum";
/// Multiplies.
pub const PRODUCT: &str = "checked_mul";

/// Both, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name| Arc::new(ScalarUDF::from(Checked { name, signature: Signature::variadic_any(Volatility::Immutable) }));
    vec![function(SUM), function(PRODUCT)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (signs, operands) = match (self.name, args.args.as_slice()) {
            (SUM, [ColumnarValue::Scalar(signs), operands @ ..]) => (signs.try_as_str().flatten().unwrap_or_default().to_owned(), operands),
            (SUM, _) => return exec_err!("{SUM} takes its signs first"),
            (_, operands) => (String::new(), operands),
        };
        let scalar = operands.iter().all(|operand| matches!(operand, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let columns = operands.iter().map(|operand| Ok(cast(&operand.to_array(rows)?, &DataType::Int64)?)).collect::<Result<Vec<_>>>()?;
        let columns: Vec<&Int64Array> = columns.iter().map(|column| column.as_primitive::<Int64Type>()).collect();
        let operand = |column: &Int64Array, row: usize| column.is_valid(row).then(|| column.value(row));
        let sum = |row| {
            columns.iter().zip(signs.bytes()).try_fold(0_i64, |sum, (column, sign)| match sign {
                b'-' => sum.checked_sub(operand(column, row)?),
                _ => sum.checked_add(operand(column, row)?),
            })
        };
        let product = |row| columns.iter().try_fold(1_i64, |product, column| product.checked_mul(operand(column, row)?));
        let computed: Int64Array = match self.name {
            SUM => (0..rows).map(sum).collect(),
            _ => (0..rows).map(product).collect(),
        };
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(computed))),
        }
    }
}
