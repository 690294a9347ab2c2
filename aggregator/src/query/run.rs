//! A question's way through its task on the query runtime: plan, then rows as they come, then the end; whatever happens
//! is told.

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
use proto::{Code, Problem};
use tokio::sync::{mpsc, oneshot};

use super::{
    admission::Ticket,
    context::{QueryContext, Time, cancelled, timed_out},
    pins::Pins,
    registry::Registered,
};
use crate::answer::{Answer, Part, Stats};

/// Parts of an answer that wait for a slow reader; then the query waits.
const PARTS_MAX: usize = 4;
/// The size limit of a part in bytes, because a client's writer holds a whole part in memory. A part has at least one
/// row.
const PART_BYTES_MAX: u64 = 4 << 20;
/// The size limit of one row in bytes.
const ROW_BYTES_MAX: u64 = 64 << 20;
/// A query keeps its place for this long while it waits for the client to read a part.
const READ_SOON: Duration = Duration::from_secs(1);
/// How long the last word of a query waits for a slow reader.
const LAST_WORD_MAX: Duration = Duration::from_secs(10);
/// How long after its deadline a query may take to say so itself, before its door does.
const GRACE: Duration = Duration::from_secs(2);

/// Rows on their way, and what is known about the answer before they are through.
pub(super) struct Running {
    /// Columns; names are unique.
    pub schema: SchemaRef,
    /// Rows. Before `pins`: they end before the views are let go of.
    pub rows: BoxStream<'static, Result<RecordBatch, Problem>>,
    /// Rows after which the answer is cut.
    pub rows_max: Option<usize>,
    /// The views that are read.
    pub pins: Option<Pins>,
    /// What is known.
    pub stats: Stats,
}

impl Running {
    /// An answer that is there already.
    pub fn of_batch(batch: RecordBatch, stats: Stats) -> Self {
        Self {
            schema: batch.schema(),
            rows: futures::stream::once(async { Ok(batch) }).boxed(),
            rows_max: None,
            pins: None,
            stats,
        }
    }
}

/// Runs a piece of a query to its end, its deadline or its cancellation; a panic in it ends it and nothing else.
pub(super) async fn guarded<T>(
    context: &QueryContext,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let begun = Instant::now();
    let result = tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(context.interrupted().unwrap_or_else(cancelled)),
        () = context.time.passed(Duration::ZERO) => Err(timed_out()),
        result = AssertUnwindSafe(work).catch_unwind() => result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
    };
    let outcome = result
        .as_ref()
        .map_or_else(|problem| problem.code.word(), |_| "answered");
    metrics::counter!("rachis_queries_total", "outcome" => outcome).increment(1);
    metrics::histogram!("rachis_query_seconds").record(begun.elapsed().as_secs_f64());
    result
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Problem {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(said, "a query panicked");
    Problem::new(
        Code::Internal,
        "the query met a fault of ours; it ended and nothing else did",
    )
    .hint("please report the statement")
}

/// The task's end of an answer.
pub(super) struct Reply {
    /// The query's place among those that run; given back before the last word, so that who has read it sees none.
    held: Option<(Ticket, Registered)>,
    head: Option<oneshot::Sender<Result<SchemaRef, Problem>>>,
    parts: mpsc::Sender<Result<Sent, Problem>>,
    /// The last parts that were sent. The client may not have read them yet.
    unread: VecDeque<Sent>,
}

/// A part on its way, until it is read or its query is given up. A client that keeps its connection and reads nothing
/// would else keep it, too.
type Sent = Arc<Mutex<Option<Result<Part, Problem>>>>;

impl Reply {
    /// Sends what a statement gives: its columns, its rows, its end.
    pub async fn send(&mut self, running: Running, context: &QueryContext, started: Instant) -> Result<(), Problem> {
        let Running {
            schema,
            mut rows,
            rows_max,
            pins,
            mut stats,
        } = running;
        let schema = distinct_names(&schema);
        if let Some(head) = self.head.take() {
            // Nobody listens: the guard of the answer cancels this very task.
            let _ = head.send(Ok(Arc::clone(&schema)));
        }
        let mut left = rows_max.unwrap_or(usize::MAX);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            if batch.num_rows() > left {
                stats.truncated = true;
            }
            let kept = batch.slice(0, batch.num_rows().min(left));
            left -= kept.num_rows();
            if kept.num_rows() > 0 {
                for part in arrays::cut(renamed(kept, &schema)?, PART_BYTES_MAX) {
                    let bytes = arrays::batch_size(&part);
                    if bytes > ROW_BYTES_MAX {
                        return Err(too_wide(bytes));
                    }
                    self.part(Part::Rows(arrays::compacted(&part)), context).await?;
                }
            }
            if stats.truncated {
                break;
            }
        }
        drop(rows);
        context.report.fill(&mut stats);
        if stats.truncated {
            let rows_max = rows_max.unwrap_or_default();
            stats.warnings.push(format!(
                "only the first {rows_max} rows are returned; a statement with a LIMIT may return more"
            ));
        }
        stats.query_id = Some(context.id);
        stats.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        drop(pins);
        drop(self.held.take());
        self.part(Part::End(Box::new(stats)), context).await
    }

    /// Sends a part. While the client does not read, the query gives its place to another one and its deadline stands
    /// still. If too many queries wait for their clients already, this one keeps its place and its deadline runs.
    async fn part(&mut self, part: Part, context: &QueryContext) -> Result<(), Problem> {
        let time = &context.time;
        let taken = match time
            .reading(tokio::time::timeout(READ_SOON, self.parts.reserve()))
            .await?
        {
            Ok(taken) => taken,
            Err(_) => {
                let gave_way = self.held.as_mut().is_none_or(|(ticket, _)| ticket.gives_way());
                let taken = if gave_way {
                    time.reading(self.parts.reserve()).await?
                } else {
                    self.parts.reserve().await
                };
                if let Some((ticket, _)) = &mut self.held {
                    ticket.goes_on();
                }
                taken
            }
        };
        let place = taken.map_err(|_| cancelled())?;
        let sent = Arc::new(Mutex::new(Some(Ok(part))));
        self.unread.push_back(Arc::clone(&sent));
        if self.unread.len() > PARTS_MAX {
            self.unread.pop_front();
        }
        place.send(Ok(sent));
        Ok(())
    }

    /// Tells why there is no answer, or no more of it.
    pub async fn fail(mut self, problem: Problem) {
        drop(self.held.take());
        match self.head.take() {
            Some(head) => drop(head.send(Err(problem))),
            None if tokio::time::timeout(LAST_WORD_MAX, self.parts.send(Err(problem.clone())))
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

/// The asker's end of an answer. Dropping it, or what it becomes, cancels the query.
pub(super) struct Asked {
    head: oneshot::Receiver<Result<SchemaRef, Problem>>,
    parts: mpsc::Receiver<Result<Sent, Problem>>,
    guard: tokio_util::sync::DropGuard,
    time: Arc<Time>,
}

/// Both ends of an answer.
pub(super) fn answer(context: &QueryContext, held: Option<(Ticket, Registered)>) -> (Reply, Asked) {
    let (head, asked_head) = oneshot::channel();
    let (parts, asked_parts) = mpsc::channel(PARTS_MAX);
    let time = Arc::clone(&context.time);
    (
        Reply {
            held,
            head: Some(head),
            parts,
            unread: VecDeque::new(),
        },
        Asked {
            head: asked_head,
            parts: asked_parts,
            guard: context.cancel.clone().drop_guard(),
            time,
        },
    )
}

impl Asked {
    /// Waits for the columns. A query that cannot even say that its time is over is left alone.
    pub async fn answer(self) -> Result<Answer, Problem> {
        let Self {
            head,
            parts,
            guard,
            time,
        } = self;
        let schema = tokio::select! {
            head = head => head.unwrap_or_else(|_| Err(gone()))?,
            () = time.passed(GRACE) => return Err(timed_out()),
        };
        let parts = futures::stream::unfold(Some((parts, guard, time)), |state| async move {
            let (mut parts, guard, time) = state?;
            let part = tokio::select! {
                biased;
                sent = parts.recv() => sent.unwrap_or_else(|| Err(gone())).and_then(|sent| sent.lock().take().unwrap_or_else(|| Err(gone()))),
                () = time.passed(GRACE) => Err(timed_out()),
            };
            let more = matches!(part, Ok(Part::Rows(_)));
            Some((part, more.then_some((parts, guard, time))))
        });
        Ok(Answer {
            schema,
            parts: parts.boxed(),
        })
    }
}

/// The asker's end of an answer that comes in one piece. Dropping it cancels the query.
pub(super) struct Single<T> {
    answer: oneshot::Receiver<Result<T, Problem>>,
    _guard: tokio_util::sync::DropGuard,
    deadline: tokio::time::Instant,
}

/// Both ends of an answer that comes in one piece.
pub(super) fn single<T>(context: &QueryContext) -> (oneshot::Sender<Result<T, Problem>>, Single<T>) {
    let (answered, answer) = oneshot::channel();
    (
        answered,
        Single {
            answer,
            _guard: context.cancel.clone().drop_guard(),
            deadline: (context.deadline() + GRACE).into(),
        },
    )
}

impl<T> Single<T> {
    /// Waits for it.
    pub async fn wait(self) -> Result<T, Problem> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(timed_out()),
        }
    }
}

fn too_wide(bytes: u64) -> Problem {
    Problem::new(
        Code::LimitReached,
        format!("a row of the answer has {bytes} bytes; the limit is {ROW_BYTES_MAX}"),
    )
    .hint("ask for fewer columns, or shorten the values, as left(x, 1000)")
}

/// The task ended without a word: the engine is shutting down.
fn gone() -> Problem {
    Problem::new(Code::Unavailable, "the query ended because the node is stopping").hint("try again")
}

/// Repeated names are numbered: `x`, `x_2`.
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

fn renamed(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Problem> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| Problem::new(Code::Internal, format!("the rows do not fit their columns: {e}")))
}
