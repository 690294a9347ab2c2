//! What all scans of one query share.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use plan::{
    functions,
    scan::{QueryId, Read},
};
use proto::{Code, Problem};
use tokio_util::sync::CancellationToken;

use super::{answered::Answered, report::Report};
use crate::Leaf;

/// What all scans of one query share.
pub(super) struct QueryContext {
    /// Names it on every node.
    pub id: QueryId,
    /// Whom to ask.
    pub leaf: Arc<dyn Leaf>,
    /// What was answered before.
    pub answered: Arc<Answered>,
    /// From what to compute.
    pub read: Read,
    /// When to give up.
    pub deadline: Instant,
    /// Set when the client went or an operator said so.
    pub cancel: CancellationToken,
    /// What scans say when they are through.
    pub report: Report,
    scans: AtomicUsize,
    ended: Arc<OnceLock<Problem>>,
}

impl QueryContext {
    /// A new query.
    pub fn new(leaf: Arc<dyn Leaf>, answered: Arc<Answered>, read: Read, deadline: Instant) -> Arc<Self> {
        let id = QueryId(uuid::Uuid::now_v7().as_u128());
        let (cancel, report, scans) = (CancellationToken::new(), Report::default(), AtomicUsize::new(0));
        Arc::new(Self { id, leaf, answered, read, deadline, cancel, report, scans, ended: Arc::default() })
    }

    /// A number for a further scan of the query.
    pub fn next_scan(&self) -> usize {
        self.scans.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the query must end now, if it must.
    pub fn interrupted(&self) -> Option<Problem> {
        interrupted(&self.ended, &self.cancel, self.deadline)
    }

    /// Ends the query for a reason of the node's own.
    pub fn end(&self, why: Problem) {
        let _first_reason_counts = self.ended.set(why);
        self.cancel.cancel();
    }

    /// What its functions know of it.
    pub fn for_functions(&self, bytes_max: usize) -> functions::Query {
        let (ended, cancel, deadline) = (Arc::clone(&self.ended), self.cancel.clone(), self.deadline);
        functions::Query::new(self.report.notices.clone(), move || interrupted(&ended, &cancel, deadline)).with_memory(bytes_max)
    }
}

fn interrupted(ended: &OnceLock<Problem>, cancel: &CancellationToken, deadline: Instant) -> Option<Problem> {
    if cancel.is_cancelled() {
        return Some(ended.get().cloned().unwrap_or_else(cancelled));
    }
    (Instant::now() >= deadline).then(timed_out)
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
