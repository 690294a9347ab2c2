//! Arithmetic that never fails a query: a row whose result does not fit into 64 bits, or that divides by zero, is NULL
//! and counted.
//!
//! `checked_sum('+-+', a, b, c)` is `a - b + c`, `checked_mul(a, b, c)` is `a * b * c`, both over integers from left to
//! right. A long chain is one flat call, because DataFusion's planning time grows with the square of the depth or
//! faster. `double_sum` and `double_mul` are the same over doubles. `checked_div(a, b)` works on doubles,
//! `checked_mod(a, b)` on integers. Statements cannot name these functions; they replace operators once the types of
//! the operands are known.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, PrimitiveArray},
        compute::cast,
        datatypes::{Float64Type, Int64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::function::{Call, Function, Returns};

/// Adds and subtracts.
pub const SUM: &str = "checked_sum";
/// Multiplies.
pub const PRODUCT: &str = "checked_mul";
/// Adds and subtracts doubles.
pub const DOUBLE_SUM: &str = "double_sum";
/// Multiplies doubles.
pub const DOUBLE_PRODUCT: &str = "double_mul";
/// Divides.
pub const QUOTIENT: &str = "checked_div";
/// The remainder of an integer division.
pub const REMAINDER: &str = "checked_mod";

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let integer = |name, compute| {
        Function::new(name, None, Returns::Type(Int64Type::DATA_TYPE), compute)
            .strict()
            .into()
    };
    let double = |name, compute| {
        Function::new(name, None, Returns::Type(Float64Type::DATA_TYPE), compute)
            .strict()
            .into()
    };
    vec![
        double(DOUBLE_SUM, double_sum),
        double(DOUBLE_PRODUCT, double_product),
        double(QUOTIENT, quotient),
        integer(SUM, sum),
        integer(PRODUCT, product),
        integer(REMAINDER, remainder),
    ]
}

fn sum(call: &Call) -> Result<ArrayRef> {
    let signs = call.text(0)?;
    compute_rows::<Int64Type>(call, 1, "integer arithmetic", |operands| {
        operands
            .iter()
            .zip(signs.bytes())
            .try_fold(0_i64, |sum, (operand, sign)| match sign {
                b'-' => sum.checked_sub(*operand),
                _ => sum.checked_add(*operand),
            })
    })
}

fn double_sum(call: &Call) -> Result<ArrayRef> {
    let signs = call.text(0)?;
    compute_rows::<Float64Type>(call, 1, "arithmetic", |operands| {
        let mut terms = operands
            .iter()
            .zip(signs.bytes())
            .map(|(operand, sign)| if sign == b'-' { -operand } else { *operand });
        // Starting with 0.0 would be wrong: the sum of -0.0 alone is -0.0.
        let first = terms.next()?;
        terms.try_fold(first, |sum, term| finite(sum + term))
    })
}

fn double_product(call: &Call) -> Result<ArrayRef> {
    let product = |operands: &[f64]| {
        operands
            .iter()
            .try_fold(1.0, |product, operand| finite(product * operand))
    };
    compute_rows::<Float64Type>(call, 0, "arithmetic", product)
}

fn finite(double: f64) -> Option<f64> {
    Some(double).filter(|double| double.is_finite())
}

fn product(call: &Call) -> Result<ArrayRef> {
    let product = |operands: &[i64]| {
        operands
            .iter()
            .try_fold(1_i64, |product, operand| product.checked_mul(*operand))
    };
    compute_rows::<Int64Type>(call, 0, "integer arithmetic", product)
}

fn quotient(call: &Call) -> Result<ArrayRef> {
    compute_rows::<Float64Type>(call, 0, "division", |operands| match operands {
        [left, right] if *right != 0.0 => finite(left / right),
        _ => None,
    })
}

fn remainder(call: &Call) -> Result<ArrayRef> {
    compute_rows::<Int64Type>(call, 0, "remainder", |operands| match operands {
        [left, right] if *right != 0 => Some(left.wrapping_rem(*right)),
        _ => None,
    })
}

/// Computes a result for each row whose operands (the arguments from `from` on) are all non-NULL. Rows without a result
/// are NULL and counted.
fn compute_rows<T: ArrowPrimitiveType>(
    call: &Call,
    from: usize,
    operation: &str,
    result: impl Fn(&[T::Native]) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let columns = call
        .columns(from)?
        .iter()
        .map(|column| Ok(cast(column, &T::DATA_TYPE)?))
        .collect::<Result<Vec<_>>>()?;
    let columns: Vec<&PrimitiveArray<T>> = columns.iter().map(|column| column.as_primitive()).collect();
    let (mut complete_rows, mut operands) = (0, Vec::with_capacity(columns.len()));
    let compute_row = |row| {
        operands.clear();
        operands.extend(
            columns
                .iter()
                .filter(|column| column.is_valid(row))
                .map(|column| column.value(row)),
        );
        let complete = operands.len() == columns.len();
        complete_rows += usize::from(complete);
        if complete { result(&operands) } else { None }
    };
    let computed: PrimitiveArray<T> = (0..call.rows).map(compute_row).collect();
    let computed_rows = computed.len() - computed.null_count();
    call.count(operation, complete_rows - computed_rows, complete_rows);
    Ok(Arc::new(computed))
}
