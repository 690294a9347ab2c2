//! The state that all scans of one query share: its ids, deadline, cancellation and report.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use plan::{
    functions,
    scan::{ANSWER_READ_MAX, Scan, ScanSource},
};
use proto::{Code, Problem, node::QueryId};
use tokio_util::sync::CancellationToken;

use super::{
    read_views::{CollectionKinds, ReadWatermarks},
    report::QueryReport,
};
use crate::answer::QueryOptions;

/// How long a part of an answer may wait for its reader, whatever the timeout: who stops reading must not keep a slot, or
/// read views, for the hour that an export may work.
const PART_READ_MAX: Duration = Duration::from_secs(600);

/// The state that all scans of one query share.
pub(super) struct QueryContext {
    /// Identifies the query to clients and operators; the client may have chosen it.
    pub id: QueryId,
    /// The time that `now` means in searches.
    pub now: DateTime<Utc>,
    pub leaf: Arc<dyn Scan>,
    pub watermarks: Arc<ReadWatermarks>,
    pub kinds: Arc<CollectionKinds>,
    /// What scans read: index and columns where they are exact, or the raw documents only.
    pub read: ScanSource,
    pub time: Arc<Deadline>,
    /// Cancelled when the client disconnects or an operator cancels the query.
    pub cancel: CancellationToken,
    /// Statistics and warnings of all scans.
    pub report: QueryReport,
    /// The memory that its operators have reserved.
    pub memory: ReservedMemory,
    scans: AtomicUsize,
    ended: Arc<OnceLock<Problem>>,
    /// What to do if the query ends now: it has asked for a change, and the outcome is not known yet.
    changing: Mutex<Option<&'static str>>,
    /// How many aggregators compute it; 0 if it must be one.
    aggregators: AtomicUsize,
}

/// Bytes that the operators of a query have reserved on this node.
#[derive(Debug, Default)]
pub(super) struct ReservedMemory {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl ReservedMemory {
    /// Notes how many bytes are reserved now.
    pub(super) fn record(&self, bytes: usize) {
        self.now.store(bytes, Ordering::Relaxed);
        self.most.fetch_max(bytes, Ordering::Relaxed);
    }

    /// The bytes that are reserved now, and the most that were.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (
            self.now.load(Ordering::Relaxed) as u64,
            self.most.load(Ordering::Relaxed) as u64,
        )
    }
}

impl QueryContext {
    /// Creates the context of a new query. Its deadline is `timeout` after `started`.
    pub(super) fn new(
        leaf: Arc<dyn Scan>,
        watermarks: Arc<ReadWatermarks>,
        kinds: Arc<CollectionKinds>,
        options: &QueryOptions,
        started: Instant,
        timeout: Duration,
    ) -> Arc<Self> {
        let (cancel, report, scans) = (CancellationToken::new(), QueryReport::default(), AtomicUsize::new(0));
        let (id, time) = (
            options.id.unwrap_or_else(|| QueryId(uuid::Uuid::now_v7().as_u128())),
            Arc::new(Deadline::new(started, timeout)),
        );
        Arc::new(Self {
            id,
            now: Utc::now(),
            leaf,
            watermarks,
            kinds,
            read: options.read,
            time,
            cancel,
            report,
            memory: ReservedMemory::default(),
            scans,
            ended: Arc::default(),
            changing: Mutex::default(),
            aggregators: AtomicUsize::new(1),
        })
    }

    /// The deadline as of now; time spent waiting for the reader moves it.
    pub(super) fn deadline(&self) -> Instant {
        self.time.at()
    }

    /// How many aggregators compute it.
    pub(super) fn aggregators(&self) -> usize {
        self.aggregators.load(Ordering::Relaxed).max(1)
    }

    /// Notes that several aggregators compute it.
    pub(super) fn note_aggregators(&self, aggregators: usize) {
        self.aggregators.store(aggregators, Ordering::Relaxed);
    }

    /// It runs again after this problem; if several aggregators have failed to compute it, on this one.
    pub(super) fn begin_again(&self, problem: &Problem) {
        if self.aggregators() > 1 {
            tracing::info!(query = %self.id, %problem, "a query that several aggregators computed runs again on one");
            metrics::counter!("rachis_queries_distributed_failed_total").increment(1);
            self.aggregators.store(0, Ordering::Relaxed);
        }
        self.report.reset();
    }

    /// Whether it may have another outcome if it runs again: on other replicas, or on this aggregator alone.
    pub(super) fn may_run_again(&self, problem: &Problem) -> bool {
        let is_of_distribution = matches!(
            problem.code,
            Code::Unavailable | Code::Internal | Code::LimitReached | Code::BadRequest
        );
        problem.code == Code::Unavailable || self.aggregators() > 1 && is_of_distribution
    }

    /// Whether several aggregators may compute it.
    pub(super) fn may_be_distributed(&self) -> bool {
        self.aggregators.load(Ordering::Relaxed) > 0
    }

    /// The next scan number; numbers are unique within the query.
    pub(super) fn next_scan(&self) -> usize {
        self.scans.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the query must end now, if it must.
    pub(super) fn interrupted(&self) -> Option<Problem> {
        interrupted(&self.ended, &self.cancel, &self.time)
    }

    /// Waits for the outcome of a change. A query that ends before says that the outcome is unknown, with this hint.
    pub(super) async fn outcome_of<T>(&self, hint: &'static str, change: impl Future<Output = T>) -> T {
        *self.changing.lock() = Some(hint);
        let outcome = change.await;
        *self.changing.lock() = None;
        outcome
    }

    /// The problem of a query that ended for a reason: if it waited for the outcome of a change, that is what matters.
    pub(super) fn ended_by(&self, why: Problem) -> Problem {
        match *self.changing.lock() {
            Some(hint) => Problem::new(
                Code::UnknownOutcome,
                format!("the change may or may not have been made: {}", why.detail),
            )
            .hint(hint),
            None => why,
        }
    }

    /// Ends the query for a reason that lies with this node, such as its memory. The first reason wins.
    pub(super) fn end(&self, why: Problem) {
        let _first_reason_wins = self.ended.set(why);
        self.cancel.cancel();
    }

    /// The part of the context that SQL functions see: warnings, interruption, a memory limit.
    pub(super) fn for_functions(&self, bytes_max: usize) -> functions::FunctionContext {
        let (ended, cancel, time) = (Arc::clone(&self.ended), self.cancel.clone(), Arc::clone(&self.time));
        functions::FunctionContext::new(self.report.warning_counts.clone(), move || {
            interrupted(&ended, &cancel, &time)
        })
        .with_memory_limit(bytes_max)
    }
}

/// The deadline of a query, extended by the time that the query has spent waiting for its client to read. The timeout
/// bounds the work, so that an export may be read slowly; but no single part of the answer waits longer than the
/// timeout itself, or than [`PART_READ_MAX`].
#[derive(Debug)]
pub(super) struct Deadline {
    without_waits: Instant,
    timeout: Duration,
    reader_wait: Mutex<ReaderWait>,
}

/// How long a query has waited for its reader so far, and the start of the current wait.
#[derive(Debug, Default)]
struct ReaderWait {
    total: Duration,
    since: Option<Instant>,
}

impl Deadline {
    fn new(started: Instant, timeout: Duration) -> Self {
        Self {
            without_waits: started + timeout,
            timeout,
            reader_wait: Mutex::default(),
        }
    }

    /// The deadline as of now.
    pub(super) fn at(&self) -> Instant {
        let wait = self.reader_wait.lock();
        let waited = wait.total + wait.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.without_waits + waited.min(ANSWER_READ_MAX)
    }

    /// Waits for the reader to accept a part. The wait extends the deadline, and fails if it is too long.
    pub(super) async fn wait_for_reader<T>(&self, accepted: impl Future<Output = T>) -> Result<T, Problem> {
        struct ReaderWaitGuard<'a>(&'a Deadline);
        impl Drop for ReaderWaitGuard<'_> {
            fn drop(&mut self) {
                let mut wait = self.0.reader_wait.lock();
                let waited = wait.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                wait.total += waited;
            }
        }
        self.reader_wait.lock().since = Some(Instant::now());
        let _until_accepted = ReaderWaitGuard(self);
        self.read_in_time(accepted).await
    }

    /// The same, but the deadline stays.
    pub(super) async fn read_in_time<T>(&self, accepted: impl Future<Output = T>) -> Result<T, Problem> {
        let wait_max = self.timeout.min(PART_READ_MAX);
        tokio::time::timeout(wait_max, accepted).await.map_err(|_| {
            let detail = format!("the client read nothing of the answer for {} ms", wait_max.as_millis());
            Problem::new(Code::Timeout, detail).hint(
                "read it faster, or raise timeout_ms: each part of up to 4 MiB may take that long, and ten minutes at \
                 most",
            )
        })
    }

    /// Waits until `grace` after the deadline, which may move meanwhile.
    pub(super) async fn passed(&self, grace: Duration) {
        loop {
            let end = self.at() + grace;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }
}

fn interrupted(ended: &OnceLock<Problem>, cancel: &CancellationToken, time: &Deadline) -> Option<Problem> {
    if cancel.is_cancelled() {
        return Some(ended.get().cloned().unwrap_or_else(cancelled));
    }
    (Instant::now() >= time.at()).then(timed_out)
}

impl fmt::Debug for QueryContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {}", self.id)
    }
}

/// The error of a query whose client disconnected or that an operator cancelled.
pub(super) fn cancelled() -> Problem {
    Problem::new(Code::Cancelled, "the query was cancelled")
}

/// The error of a query that passed its deadline.
pub(super) fn timed_out() -> Problem {
    Problem::new(Code::Timeout, "the query did not finish before its deadline")
        .hint("narrow the query (a condition on _time, fewer columns), or raise timeout_ms")
}
