//! Batches of a limited number of rows.

use datafusion::arrow::array::RecordBatch;

/// Splits a batch into parts of at most `rows_max` rows.
pub(super) fn row_slices(batch: RecordBatch, rows_max: usize) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows)
        .step_by(rows_max.max(1))
        .map(move |from| batch.slice(from, rows_max.min(rows - from)))
}
