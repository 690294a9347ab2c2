//! What all scans of one query share.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plan::{
    functions,
    scan::{QueryId, READING_MAX, Read},
};
use proto::{Code, Problem};
use tokio_util::sync::CancellationToken;

use super::{answered::Answered, report::Report};
use crate::{Leaf, answer::How};

/// What all scans of one query share.
pub(super) struct QueryContext {
    /// Names it for those who ask and operate; the asker may have chosen it.
    pub id: QueryId,
    /// Names its views on the leaves. Always generated, so that two queries never share views.
    pub views: QueryId,
    /// Whom to ask.
    pub leaf: Arc<dyn Leaf>,
    /// What was answered before.
    pub answered: Arc<Answered>,
    /// From what to compute.
    pub read: Read,
    /// When to give up.
    pub time: Arc<Time>,
    /// Set when the client went or an operator said so.
    pub cancel: CancellationToken,
    /// What scans say when they are through.
    pub report: Report,
    scans: AtomicUsize,
    ended: Arc<OnceLock<Problem>>,
}

impl QueryContext {
    /// A new query.
    pub fn new(
        leaf: Arc<dyn Leaf>,
        answered: Arc<Answered>,
        how: &How,
        started: Instant,
        timeout: Duration,
    ) -> Arc<Self> {
        let views = QueryId(uuid::Uuid::now_v7().as_u128());
        let (cancel, report, scans) = (CancellationToken::new(), Report::default(), AtomicUsize::new(0));
        let (id, time) = (how.id.unwrap_or(views), Arc::new(Time::new(started, timeout)));
        Arc::new(Self {
            id,
            views,
            leaf,
            answered,
            read: how.read,
            time,
            cancel,
            report,
            scans,
            ended: Arc::default(),
        })
    }

    /// When to give up, as it is known now.
    pub fn deadline(&self) -> Instant {
        self.time.deadline()
    }

    /// A number for a further scan of the query.
    pub fn next_scan(&self) -> usize {
        self.scans.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the query must end now, if it must.
    pub fn interrupted(&self) -> Option<Problem> {
        interrupted(&self.ended, &self.cancel, &self.time)
    }

    /// Ends the query for a reason of the node's own.
    pub fn end(&self, why: Problem) {
        let _first_reason_counts = self.ended.set(why);
        self.cancel.cancel();
    }

    /// What its functions know of it.
    pub fn for_functions(&self, bytes_max: usize) -> functions::Query {
        let (ended, cancel, time) = (Arc::clone(&self.ended), self.cancel.clone(), Arc::clone(&self.time));
        functions::Query::new(self.report.notices.clone(), move || interrupted(&ended, &cancel, &time))
            .with_memory(bytes_max)
    }
}

/// When a query gives up: at its deadline, later by as long as it waited for who reads its answer. The question's work
/// has a limit, and an export may be read slowly; but for no part of the answer it waits longer than the question's own
/// time.
#[derive(Debug)]
pub(super) struct Time {
    deadline: Instant,
    timeout: Duration,
    waited: Mutex<Waited>,
}

/// How long a query waited for its reader, and since when it does.
#[derive(Debug, Default)]
struct Waited {
    before: Duration,
    since: Option<Instant>,
}

impl Time {
    fn new(started: Instant, timeout: Duration) -> Self {
        Self {
            deadline: started + timeout,
            timeout,
            waited: Mutex::default(),
        }
    }

    /// When to give up, as it is known now.
    pub fn deadline(&self) -> Instant {
        let waited = self.waited.lock();
        let all = waited.before + waited.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.deadline + all.min(READING_MAX)
    }

    /// Waits until the reader has taken a part, which does not count.
    pub async fn reading<T>(&self, taken: impl Future<Output = T>) -> Result<T, Problem> {
        struct Waits<'a>(&'a Time);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                let mut waited = self.0.waited.lock();
                let this_time = waited.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                waited.before += this_time;
            }
        }
        self.waited.lock().since = Some(Instant::now());
        let _until_it_is_taken = Waits(self);
        tokio::time::timeout(self.timeout, taken).await.map_err(|_| {
            Problem::new(
                Code::Timeout,
                format!("the answer was not read on for {} ms", self.timeout.as_millis()),
            )
            .hint("read it faster, or allow more time with timeout_ms: each part of 4 MiB may take so long")
        })
    }

    /// Waits until so long after the deadline, wherever that moves meanwhile.
    pub async fn passed(&self, grace: Duration) {
        loop {
            let end = self.deadline() + grace;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }
}

fn interrupted(ended: &OnceLock<Problem>, cancel: &CancellationToken, time: &Time) -> Option<Problem> {
    if cancel.is_cancelled() {
        return Some(ended.get().cloned().unwrap_or_else(cancelled));
    }
    (Instant::now() >= time.deadline()).then(timed_out)
}

impl fmt::Debug for QueryContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {}", self.id)
    }
}

/// The client went, or somebody cancelled it.
pub(super) fn cancelled() -> Problem {
    Problem::new(Code::Cancelled, "the query was cancelled")
}

/// The deadline passed.
pub(super) fn timed_out() -> Problem {
    Problem::new(Code::Timeout, "the query did not end before its deadline")
        .hint("ask for less (a condition on _time, fewer columns), or give it longer with timeout_ms")
}
