//! Integer arithmetic that does not wrap: `checked_add`, `checked_sub`, `checked_mul`. What does not fit into 64 bits is NULL.
//!
//! A statement cannot name them; the resolver puts them where integers are added, subtracted and multiplied.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// What is computed of two integers.
type Operation = fn(i64, i64) -> Option<i64>;

const OPERATIONS: [(&str, Operation); 3] = [("checked_add", i64::checked_add), ("checked_sub", i64::checked_sub), ("checked_mul", i64::checked_mul)];

/// All of them, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::exact(vec![DataType::Int64, DataType::Int64], Volatility::Immutable);
    let function = |(name, _): &(&'static str, Operation)| Arc::new(ScalarUDF::from(Checked { name, signature: signature.clone() }));
    OPERATIONS.iter().map(function).collect()
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
        let Some((_, operation)) = OPERATIONS.iter().find(|(name, _)| *name == self.name) else { return exec_err!("{} is unknown", self.name) };
        let [left, right] = args.args.as_slice() else { return exec_err!("{} takes two integers", self.name) };
        let scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let (left, right) = (integers(left, rows)?, integers(right, rows)?);
        let pairs = left.as_primitive::<Int64Type>().iter().zip(right.as_primitive::<Int64Type>());
        let computed: Int64Array = pairs.map(|(left, right)| operation(left?, right?)).collect();
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(computed))),
        }
    }
}

fn integers(value: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    Ok(cast(&value.to_array(rows)?, &DataType::Int64)?)
}
