//! Functions that are computed row by row.

use datafusion::arrow::array::{Array, ArrayRef};

use crate::functions::function::Call;

/// Computes a value for each row in which every one of these columns has one. Rows without a result are counted.
pub(super) fn each_row<T>(
    call: &Call,
    columns: &[&ArrayRef],
    mut result: impl FnMut(usize) -> Option<T>,
) -> Vec<Option<T>> {
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
