//! The task of a query on the query runtime, and the channel of its answer: first the columns, then the rows as they
//! are computed, then the statistics, or an error at any point.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema, SchemaRef},
};
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use parking_lot::Mutex;
use plan::arrays;
use proto::{Code, Problem, problem::panic_text};
use tokio::sync::{mpsc, oneshot};

use super::{
    admission::QuerySlot,
    context::{QueryContext, cancelled, timed_out},
    read_views::QueryViews,
    registry::RegisteredQuery,
};
use crate::answer::{Answer, AnswerChunk, Stats};

/// Parts of an answer that are buffered for a slow reader before the query waits.
const CHUNKS_MAX: usize = 4;
/// The size limit of a part in bytes, because the response writer holds a whole part in memory. A part has at least one
/// row.
const PART_BYTES_MAX: u64 = 4 << 20;
/// The first rows of an answer whose query can be run again are held back until there are this many bytes …
const HELD_BYTES_MAX: u64 = 4 << 20;
/// … or this long: what fails, often fails soon.
const HELD_MAX: Duration = Duration::from_millis(100);
/// The size limit of one row in bytes.
const ROW_BYTES_MAX: u64 = 64 << 20;
/// A query keeps its slot for this long while it waits for the client to read a part.
const SLOT_HOLD_MAX: Duration = Duration::from_secs(1);
/// How long a failed query waits for a slow reader to make room for the error.
const ERROR_SEND_MAX: Duration = Duration::from_secs(10);
/// How long after its deadline a query may take to report the timeout itself, before the receiver does.
const GRACE: Duration = Duration::from_secs(2);

/// The output of a query that has started to run.
pub(super) struct QueryOutput {
    /// Columns. [`AnswerSender::send`] makes their names unique.
    pub schema: SchemaRef,
    /// Rows. Declared before `read_views`, so that the scans are dropped before their read views.
    pub rows: BoxStream<'static, Result<RecordBatch, Problem>>,
    /// The answer is cut after this many rows.
    pub rows_max: Option<usize>,
    /// The read views that the scans use.
    pub read_views: Option<QueryViews>,
    /// Whether several aggregators compute it.
    pub is_distributed: bool,
}

impl QueryOutput {
    /// An output that is already computed.
    pub(super) fn of_batch(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            rows: futures::stream::once(async { Ok(batch) }).boxed(),
            rows_max: None,
            read_views: None,
            is_distributed: false,
        }
    }

    /// Waits for the first rows if the query runs on several aggregators, or reads shards with several replicas; also for more
    /// of them, within limits. Fails at an error meanwhile: then the query can be run again.
    pub(super) async fn begin_if_repeatable(mut self) -> Result<Self, Problem> {
        let is_replicated = self.read_views.as_ref().is_some_and(QueryViews::is_replicated);
        if !self.is_distributed && !is_replicated {
            return Ok(self);
        }
        let mut rows = self.rows.fuse();
        let (mut held, mut count, mut bytes) = (Vec::new(), 0, 0);
        let mut until = None;
        loop {
            let next = match until {
                None => rows.next().await,
                Some(until) => match tokio::time::timeout_at(until, rows.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(batch) = next.transpose()? else { break };
            if batch.num_rows() == 0 {
                continue;
            }
            count += batch.num_rows();
            bytes += arrays::batch_size(&batch);
            held.push(Ok(batch));
            let now = tokio::time::Instant::now();
            let is_full = bytes >= HELD_BYTES_MAX || self.rows_max.is_some_and(|rows_max| count > rows_max);
            if is_full || *until.get_or_insert(now + HELD_MAX) <= now {
                break;
            }
        }
        self.rows = futures::stream::iter(held).chain(rows).boxed();
        Ok(self)
    }
}

/// The statistics of an answer whose rows have all been computed.
pub(super) fn statistics(context: &QueryContext, read_views: Option<&QueryViews>, started: Instant) -> Stats {
    let mut stats = Stats {
        query_id: Some(context.id),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..Stats::default()
    };
    if let Some(read_views) = read_views {
        read_views.fill(&mut stats);
    }
    context.report.fill(&mut stats);
    stats.aggregators = context.aggregators();
    stats
}

/// Runs a query until it finishes, is cancelled or passes its deadline. A panic becomes an error of this query only.
pub(super) async fn guarded<T>(
    context: &QueryContext,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let started = Instant::now();
    let result = tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(context.ended_by(context.interrupted().unwrap_or_else(cancelled))),
        () = context.time.passed(Duration::ZERO) => Err(context.ended_by(timed_out())),
        result = AssertUnwindSafe(work).catch_unwind() => result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
    };
    let outcome = result
        .as_ref()
        .map_or_else(|problem| problem.code.as_str(), |_| "answered");
    metrics::counter!("rachis_queries_total", "outcome" => outcome).increment(1);
    metrics::histogram!("rachis_query_seconds").record(started.elapsed().as_secs_f64());
    result
}

pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Problem {
    tracing::error!(panic = panic_text(panic), "a query panicked");
    Problem::new(
        Code::Internal,
        "an internal error ended this query; other queries are not affected",
    )
    .hint("please report the statement")
}

/// The sending half of an answer, held by the query's task.
pub(super) struct AnswerSender {
    /// The query's slot and registration. Released before the last part is sent, so that a client that has read its
    /// whole answer no longer finds the query running.
    slot: Option<(QuerySlot, RegisteredQuery)>,
    head: Option<oneshot::Sender<Result<SchemaRef, Problem>>>,
    chunks: mpsc::Sender<Result<SentChunk, Problem>>,
    /// The last chunks sent, which the client may not have read yet.
    unread: VecDeque<SentChunk>,
}

/// A chunk in transit. The sender can replace it by an error until it is read: otherwise a client that keeps its
/// connection open without reading would keep the chunk in memory.
type SentChunk = Arc<Mutex<Option<Result<AnswerChunk, Problem>>>>;

impl AnswerSender {
    /// Sends the columns, the rows and the statistics of a query.
    pub(super) async fn send(
        &mut self,
        output: QueryOutput,
        context: &QueryContext,
        started: Instant,
    ) -> Result<(), Problem> {
        let QueryOutput {
            schema,
            mut rows,
            rows_max,
            read_views,
            is_distributed: _,
        } = output;
        let schema = distinct_names(&schema);
        if let Some(head) = self.head.take() {
            // If the receiver is gone, its drop guard has cancelled this task already.
            let _ = head.send(Ok(Arc::clone(&schema)));
        }
        let (mut left, mut truncated) = (rows_max.unwrap_or(usize::MAX), false);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            truncated = batch.num_rows() > left;
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            self.send_rows(batch, &schema, context).await?;
            if truncated {
                break;
            }
        }
        drop(rows);
        let mut stats = statistics(context, read_views.as_ref(), started);
        if truncated {
            stats.truncated = true;
            let rows_max = rows_max.unwrap_or_default();
            stats.warnings.push(format!(
                "only the first {rows_max} rows are returned; a statement with a LIMIT may return more, and one with all_rows \
                 returns all"
            ));
        }
        drop(read_views);
        drop(self.slot.take());
        self.send_chunk(AnswerChunk::End(Box::new(stats)), context).await
    }

    async fn send_rows(
        &mut self,
        batch: RecordBatch,
        schema: &SchemaRef,
        context: &QueryContext,
    ) -> Result<(), Problem> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for part in arrays::split_batch(with_schema(batch, schema)?, PART_BYTES_MAX) {
            let bytes = arrays::batch_size(&part);
            if bytes > ROW_BYTES_MAX {
                return Err(too_wide(bytes));
            }
            self.send_chunk(AnswerChunk::Rows(arrays::compact_batch(&part)), context)
                .await?;
        }
        Ok(())
    }

    /// Sends a chunk. While the client does not read, the query releases its slot and its deadline is suspended. If too
    /// many queries wait for their clients already, this one keeps its slot and its deadline runs.
    async fn send_chunk(&mut self, chunk: AnswerChunk, context: &QueryContext) -> Result<(), Problem> {
        let time = &context.time;
        let accepted = match time
            .wait_for_reader(tokio::time::timeout(SLOT_HOLD_MAX, self.chunks.reserve()))
            .await?
        {
            Ok(accepted) => accepted,
            Err(_) => {
                let released = self.slot.as_mut().is_none_or(|(slot, _)| slot.release_while_reading());
                let accepted = if released {
                    time.wait_for_reader(self.chunks.reserve()).await?
                } else {
                    time.read_in_time(self.chunks.reserve()).await?
                };
                if let Some((slot, _)) = &mut self.slot {
                    slot.reacquire();
                }
                accepted
            }
        };
        let permit = accepted.map_err(|_| cancelled())?;
        let sent = Arc::new(Mutex::new(Some(Ok(chunk))));
        self.unread.push_back(Arc::clone(&sent));
        if self.unread.len() > CHUNKS_MAX {
            self.unread.pop_front();
        }
        permit.send(Ok(sent));
        Ok(())
    }

    /// Sends an error in place of the answer or of its rest. If the client does not read in time, the error replaces
    /// the chunks that it has not read.
    pub(super) async fn fail(mut self, problem: Problem) {
        drop(self.slot.take());
        match self.head.take() {
            Some(head) => drop(head.send(Err(problem))),
            None if tokio::time::timeout(ERROR_SEND_MAX, self.chunks.send(Err(problem.clone())))
                .await
                .is_err() =>
            {
                for sent in &self.unread {
                    if let Some(unread) = sent.lock().as_mut() {
                        *unread = Err(problem.clone());
                    }
                }
            }
            None => {}
        }
    }
}

/// Creates both halves of an answer. The receiving half is a future that waits for the columns, and times out on behalf
/// of a query that does not report its own timeout. Dropping it, or the answer that it returns, cancels the query.
pub(super) fn answer_channel(
    context: &QueryContext,
    slot: Option<(QuerySlot, RegisteredQuery)>,
) -> (AnswerSender, impl Future<Output = Result<Answer, Problem>> + use<>) {
    let (head, head_receiver) = oneshot::channel();
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let sender = AnswerSender {
        slot,
        head: Some(head),
        chunks,
        unread: VecDeque::new(),
    };
    // The future owns the guard even before its first poll.
    let (guard, time) = (context.cancel.clone().drop_guard(), Arc::clone(&context.time));
    let answer = async move {
        let schema = tokio::select! {
            head = head_receiver => head.unwrap_or_else(|_| Err(node_stopping()))?,
            () = time.passed(GRACE) => return Err(timed_out()),
        };
        let chunks = futures::stream::unfold(Some((receiver, guard, time)), |state| async move {
            let (mut receiver, guard, time) = state?;
            let chunk = tokio::select! {
                biased;
                sent = receiver.recv() => sent
                    .unwrap_or_else(|| Err(node_stopping()))
                    .and_then(|sent| sent.lock().take().unwrap_or_else(|| Err(node_stopping()))),
                () = time.passed(GRACE) => Err(timed_out()),
            };
            let has_more = matches!(chunk, Ok(AnswerChunk::Rows(_)));
            Some((chunk, has_more.then_some((receiver, guard, time))))
        });
        Ok(Answer {
            schema,
            chunks: chunks.boxed(),
        })
    };
    (sender, answer)
}

/// Creates both halves of an answer in one piece. The receiving half is a future; dropping it cancels the query.
pub(super) fn single_answer_channel<T>(
    context: &QueryContext,
) -> (
    oneshot::Sender<Result<T, Problem>>,
    impl Future<Output = Result<T, Problem>> + use<T>,
) {
    let (sender, receiver) = oneshot::channel::<Result<T, Problem>>();
    let guard = context.cancel.clone().drop_guard();
    let deadline = tokio::time::Instant::from(context.deadline() + GRACE);
    let answer = async move {
        // Named, so that the future owns it even before its first poll.
        let _cancels_when_dropped = guard;
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(node_stopping())),
            Err(_) => Err(timed_out()),
        }
    };
    (sender, answer)
}

fn too_wide(bytes: u64) -> Problem {
    Problem::new(
        Code::LimitReached,
        format!("a row of the answer has {bytes} bytes; the limit is {ROW_BYTES_MAX}"),
    )
    .hint("select fewer columns, or shorten the values, for example with left(x, 1000)")
}

/// The error of a task that ended without sending one, because its runtime was shut down.
fn node_stopping() -> Problem {
    Problem::new(Code::Unavailable, "the query ended because the node is shutting down").hint("retry")
}

/// Numbers repeated names: `x`, `x_2`.
fn distinct_names(schema: &SchemaRef) -> SchemaRef {
    let mut seen = std::collections::BTreeSet::new();
    let distinct = |field: &Arc<Field>| {
        let candidates = std::iter::once(field.name().clone()).chain((2..).map(|n| format!("{}_{n}", field.name())));
        let name = candidates
            .into_iter()
            .find(|name| seen.insert(name.clone()))
            .unwrap_or_default();
        field.as_ref().clone().with_name(name)
    };
    Arc::new(Schema::new(schema.fields().iter().map(distinct).collect::<Vec<_>>()))
}

fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Problem> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| Problem::new(Code::Internal, format!("the rows do not match their columns: {e}")))
}
