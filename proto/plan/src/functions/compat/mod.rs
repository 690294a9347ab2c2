//! Functions of other systems that DataFusion cannot express. Each returns what the original returns, NULLs included;
//! where the original reports an error, the row is NULL and counted.
//!
//! Names here are ours. The [registry](super::registry) says which name of which system is which of these.

mod calendar;
mod containment;
mod json_values;
mod numbers;
mod texts;
mod time_text;

use std::sync::Arc;

use datafusion::{
    arrow::array::{Array, ArrayRef},
    logical_expr::ScalarUDF,
};

use super::function::Call;

pub use calendar::{DAY_OF, DIFF as DATE_DIFF, EPOCH_MILLIS, EPOCH_MILLIS_TRUNCATED, check_unit};
pub use json_values::DEFAULT as JSON_DEFAULT;
pub use numbers::WRAPPED as WRAPPED_INT;
pub use texts::HEX as TEXT_HEX;

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        calendar::functions(),
        containment::functions(),
        json_values::functions(),
        numbers::functions(),
        texts::functions(),
        time_text::functions(),
    ];
    all.into_iter().flatten().collect()
}

/// Computes a value for each row in which every one of these columns has one. Rows without a result are counted.
fn each_row<T>(call: &Call, columns: &[&ArrayRef], mut result: impl FnMut(usize) -> Option<T>) -> Vec<Option<T>> {
    let (mut complete, mut failed) = (0, 0);
    let rows = (0..call.rows).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return None;
        }
        let value = result(row);
        complete += 1;
        failed += usize::from(value.is_none());
        value
    });
    let results = rows.collect();
    call.count(call.name, failed, complete);
    results
}
