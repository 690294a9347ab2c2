//! Arithmetic in which every row has its own answer: what does not fit into 64 bits, and a division by zero, is NULL and counted.
//!
//! `checked_sum('+-+', a, b, c)` is `a - b + c`, `checked_mul(a, b, c)` is `a * b * c`, both over integers from left to right: a long chain is
//! one call, not a deep one. `checked_div(a, b)` is over doubles, `checked_mod(a, b)` over integers. A statement cannot name them; they stand
//! for operators once the types of operands are known.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array, Int64Array},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::notices::Notices;

/// Adds and subtracts.
pub const SUM: &str = "checked_sum";
/// Multiplies.
pub const PRODUCT: &str = "checked_mul";
/// Divides.
pub const QUOTIENT: &str = "checked_div";
/// What an integer division leaves over.
pub const REMAINDER: &str = "checked_mod";

/// All of them, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name| Arc::new(ScalarUDF::from(Checked { name, signature: Signature::variadic_any(Volatility::Immutable) }));
    [SUM, PRODUCT, QUOTIENT, REMAINDER].map(function).into()
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
        Ok(if self.name == QUOTIENT { DataType::Float64 } else { DataType::Int64 })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (signs, operands) = match (self.name, args.args.as_slice()) {
            (SUM, [ColumnarValue::Scalar(signs), operands @ ..]) => (signs.try_as_str().flatten().unwrap_or_default().to_owned(), operands),
            (SUM, _) => return exec_err!("{SUM} takes its signs first"),
            (_, operands) => (String::new(), operands),
        };
        let scalar = operands.iter().all(|operand| matches!(operand, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let of = if self.name == QUOTIENT { DataType::Float64 } else { DataType::Int64 };
        let columns = operands.iter().map(|operand| Ok(cast(&operand.to_array(rows)?, &of)?)).collect::<Result<Vec<ArrayRef>>>()?;
        let computed: ArrayRef = match self.name {
            QUOTIENT => Arc::new(quotients(&columns, rows)),
            _ => Arc::new(self.integers(&signs, &columns, rows)),
        };
        let asked = (0..rows).filter(|row| columns.iter().all(|column| column.is_valid(*row))).count();
        let answered = rows - computed.null_count();
        if let Some(notices) = Notices::of(&args.config_options) {
            let what = match self.name {
                QUOTIENT => "division",
                REMAINDER => "remainder",
                _ => "integer arithmetic",
            };
            notices.count(what, (asked - answered) as u64, asked as u64);
        }
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)),
            false => Ok(ColumnarValue::Array(computed)),
        }
    }
}

impl Checked {
    fn integers(&self, signs: &str, columns: &[ArrayRef], rows: usize) -> Int64Array {
        let columns: Vec<&Int64Array> = columns.iter().map(|column| column.as_primitive::<Int64Type>()).collect();
        let operand = |column: &Int64Array, row: usize| column.is_valid(row).then(|| column.value(row));
        let sum = |row| {
            columns.iter().zip(signs.bytes()).try_fold(0_i64, |sum, (column, sign)| match sign {
                b'-' => sum.checked_sub(operand(column, row)?),
                _ => sum.checked_add(operand(column, row)?),
            })
        };
        let product = |row| columns.iter().try_fold(1_i64, |product, column| product.checked_mul(operand(column, row)?));
        let remainder = |row| match columns.as_slice() {
            [left, right] => remainder_of(operand(left, row)?, operand(right, row)?),
            _ => None,
        };
        match self.name {
            SUM => (0..rows).map(sum).collect(),
            PRODUCT => (0..rows).map(product).collect(),
            _ => (0..rows).map(remainder).collect(),
        }
    }
}

fn remainder_of(left: i64, right: i64) -> Option<i64> {
    if right == 0 { None } else { Some(left.wrapping_rem(right)) }
}

fn quotients(columns: &[ArrayRef], rows: usize) -> Float64Array {
    let columns: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
    let quotient = |row: usize| match columns.as_slice() {
        [left, right] if left.is_valid(row) && right.is_valid(row) && right.value(row) != 0.0 => Some(left.value(row) / right.value(row)),
        _ => None,
    };
    (0..rows).map(quotient).collect()
}
