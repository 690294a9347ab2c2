//! Batches for a join, as large as the join is fast.
//!
//! A join compares each batch of one input with all rows of the other before it asks for the next batch. That may take
//! minutes, and a task that is computing can be neither cancelled nor stopped at its deadline, and keeps its thread
//! from other queries. So the time between two requests is measured: where it is long, the next batches are smaller,
//! and the task yields between them.

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

/// A task that has computed for so long yields.
const YIELDS_AFTER: Duration = Duration::from_millis(10);
/// A batch should take the join no longer than this …
const SLOW: Duration = Duration::from_millis(40);
/// … and the next one may be larger if it takes less than this.
const FAST: Duration = Duration::from_millis(5);
/// By how much batches shrink and grow.
const STEP: usize = 4;
/// A batch is not made smaller than this: what a join does once for each batch would take longer than its rows.
const ROWS_MIN: usize = 64;

/// The stream.
pub(super) struct Paced {
    input: SendableRecordBatchStream,
    /// What is left of the last batch of the input.
    rest: Option<RecordBatch>,
    /// Rows of the next batch, at most.
    rows_max: usize,
    /// When the last batch was given, and how many rows it had.
    given: Option<(Instant, usize)>,
    /// When the task asked here first since it waited. What passes while it waits, for input or for its turn, is not
    /// its own.
    busy_since: Option<Instant>,
}

impl Paced {
    /// The batches of an input.
    pub(super) fn new(input: SendableRecordBatchStream) -> Self {
        Self {
            input,
            rest: None,
            rows_max: usize::MAX,
            given: None,
            busy_since: None,
        }
    }

    fn adapt(&mut self, took: Duration, rows: usize) {
        if took > SLOW {
            self.rows_max = (self.rows_max.min(rows) / STEP).max(ROWS_MIN);
        } else if took < FAST {
            self.rows_max = self.rows_max.saturating_mul(STEP);
        }
    }
}

impl Stream for Paced {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((given, rows)) = self.given.take() {
            self.adapt(given.elapsed(), rows);
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
        self.given = Some((Instant::now(), rows));
        Poll::Ready(Some(Ok(batch.slice(0, rows))))
    }
}

impl RecordBatchStream for Paced {
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
    async fn batches_shrink_for_a_slow_join_grow_again_for_a_fast_one_and_hold_all_rows_in_order() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers = |from: i64| Arc::new(Int64Array::from_iter_values(from..from + 4_096));
        let batch = |number| {
            Ok(RecordBatch::try_new(
                schema.clone(),
                vec![numbers(i64::from(number) * 4_096)],
            )?)
        };
        let batches = stream::iter((0..16).map(batch).collect::<Vec<_>>());
        let mut paced = Paced::new(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        while let Some(batch) = paced.next().await {
            let batch = batch.expect("a batch");
            rows.push(batch.num_rows());
            all.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            // The first batches take long.
            let took = if rows.len() <= 3 { 2 * SLOW } else { Duration::ZERO };
            paced.given = paced.given.map(|(given, rows)| (given - took, rows));
        }
        assert_eq!(rows[..7], [4_096, 1_024, 256, 64, 256, 1_024, 1_472], "{rows:?}");
        assert_eq!(rows[7..], [4_096; 14][..], "{rows:?}");
        assert_eq!(all, (0..65_536).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_task_that_computes_long_yields() {
        let schema = Arc::new(Schema::empty());
        let batches = stream::iter(vec![
            Ok(RecordBatch::new_empty(schema.clone())),
            Ok(RecordBatch::new_empty(schema.clone())),
        ]);
        let mut paced = Paced::new(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        assert!(futures::poll!(paced.next()).is_ready(), "it has not computed for long");
        paced.busy_since = paced.busy_since.map(|since| since - 2 * YIELDS_AFTER);
        assert!(futures::poll!(paced.next()).is_pending());
        // However long it then waited for its turn.
        tokio::time::interval_at(tokio::time::Instant::now() + 2 * YIELDS_AFTER, YIELDS_AFTER)
            .tick()
            .await;
        assert!(futures::poll!(paced.next()).is_ready());
    }
}
