//! A stream that adapts the size of its batches to the speed of the join that reads them.
//!
//! A join compares each batch of one input with all rows of the other before it polls for the next batch. That may take
//! minutes, during which the task can neither be cancelled nor stopped at its deadline, and blocks its thread for other
//! queries. So this stream measures the time between two polls: if it is long, the next batches are smaller, and the
//! task yields between them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::Result,
    execution::RecordBatchStream,
    physical_plan::SendableRecordBatchStream,
};
use futures::{Stream, StreamExt as _};

/// A task yields after computing for this long.
const YIELDS_AFTER: Duration = Duration::from_millis(10);
/// If the join takes longer than this for a batch, the next ones are smaller.
const SLOW: Duration = Duration::from_millis(40);
/// If it takes less than this, the next ones may be larger.
const FAST: Duration = Duration::from_millis(5);
/// The factor by which batches shrink and grow.
const STEP: usize = 4;
/// The smallest batch: below this, the work of a join per batch exceeds the work per row.
const ROWS_MIN: usize = 64;

/// The input, in batches of adaptive size.
pub(super) struct PacedStream {
    input: SendableRecordBatchStream,
    /// The rest of the input's last batch.
    rest: Option<RecordBatch>,
    /// Row limit of the next batch.
    rows_max: usize,
    /// When the last batch was emitted, and its rows.
    emitted: Option<(Instant, usize)>,
    /// When the task first polled after its last wait. Time spent waiting, for input or for its thread, does not count.
    busy_since: Option<Instant>,
}

impl PacedStream {
    pub(super) fn new(input: SendableRecordBatchStream) -> Self {
        Self {
            input,
            rest: None,
            rows_max: usize::MAX,
            emitted: None,
            busy_since: None,
        }
    }

    /// Adapts the size to how long the join took for a batch.
    fn adapt(&mut self, took: Duration, rows: usize) {
        if took > SLOW {
            self.rows_max = (self.rows_max.min(rows) / STEP).max(ROWS_MIN);
        } else if took < FAST {
            self.rows_max = self.rows_max.saturating_mul(STEP);
        }
    }
}

impl Stream for PacedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((emitted, rows)) = self.emitted.take() {
            self.adapt(emitted.elapsed(), rows);
        }
        if self.busy_since.get_or_insert_with(Instant::now).elapsed() > YIELDS_AFTER {
            self.busy_since = None;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(batch))) => batch,
                Poll::Pending => {
                    self.busy_since = None;
                    return Poll::Pending;
                }
                ended => return ended,
            },
        };
        let rows = batch.num_rows().min(self.rows_max);
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        self.emitted = Some((Instant::now(), rows));
        Poll::Ready(Some(Ok(batch.slice(0, rows))))
    }
}

impl RecordBatchStream for PacedStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::{
        arrow::{
            array::{AsArray as _, Int64Array},
            datatypes::{DataType, Field, Int64Type, Schema},
        },
        physical_plan::stream::RecordBatchStreamAdapter,
    };
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn batches_shrink_for_a_slow_join_grow_for_a_fast_one_and_keep_all_rows_in_order() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers = |from: i64| Arc::new(Int64Array::from_iter_values(from..from + 4_096));
        let batch = |number| {
            Ok(RecordBatch::try_new(
                schema.clone(),
                vec![numbers(i64::from(number) * 4_096)],
            )?)
        };
        let batches = stream::iter((0..16).map(batch).collect::<Vec<_>>());
        let mut paced = PacedStream::new(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        while let Some(batch) = paced.next().await {
            let batch = batch.expect("a batch");
            rows.push(batch.num_rows());
            all.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            // The first batches take long.
            let took = if rows.len() <= 3 { 2 * SLOW } else { Duration::ZERO };
            paced.emitted = paced.emitted.map(|(emitted, rows)| (emitted - took, rows));
        }
        assert_eq!(rows[..7], [4_096, 1_024, 256, 64, 256, 1_024, 1_472], "{rows:?}");
        assert_eq!(rows[7..], [4_096; 14][..], "{rows:?}");
        assert_eq!(all, (0..65_536).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_task_yields_after_a_long_computation() {
        let schema = Arc::new(Schema::empty());
        let batches = stream::iter(vec![
            Ok(RecordBatch::new_empty(schema.clone())),
            Ok(RecordBatch::new_empty(schema.clone())),
        ]);
        let mut paced = PacedStream::new(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        assert!(futures::poll!(paced.next()).is_ready(), "it has just started");
        paced.busy_since = paced.busy_since.map(|since| since - 2 * YIELDS_AFTER);
        assert!(futures::poll!(paced.next()).is_pending());
        // The wait for its thread does not count as computing, however long it is.
        tokio::time::interval_at(tokio::time::Instant::now() + 2 * YIELDS_AFTER, YIELDS_AFTER)
            .tick()
            .await;
        assert!(futures::poll!(paced.next()).is_ready());
    }
}
