//! The jobs of a shard's writer, each with the channel for its outcome.

use proto::{
    Code, Problem,
    ingest::{Batch, BatchOutcome, Push, PushResult},
};
use tokio::sync::oneshot;

use super::erase::{ErasedDocuments, ForgottenRanges};
use crate::store::Partition;

/// The capacity of the queue of a writer.
pub(crate) const QUEUE_JOBS_MAX: usize = 256;

/// A job of the writer, with the channel for its outcome.
pub(crate) enum Job {
    /// Apply a batch.
    Write(Batch, oneshot::Sender<BatchOutcome>),
    /// Apply a push.
    Push(Push, oneshot::Sender<Result<PushResult, Problem>>),
    /// Remove dead letters.
    Remove(DeadLetterRemoval, oneshot::Sender<Result<(), Problem>>),
    /// Remove the rows and the keys of deleted documents.
    Erase(ErasedDocuments, oneshot::Sender<Result<(), Problem>>),
    /// Forget gone ranges, whose documents are erased.
    Forget(ForgottenRanges, oneshot::Sender<Result<(), Problem>>),
    /// Do nothing: what was sent before is done.
    Settle(oneshot::Sender<Result<(), Problem>>),
}

/// Dead letters of one partition to be removed in one write.
pub(crate) struct DeadLetterRemoval {
    pub partition: Partition,
    /// The keys of their rows.
    pub keys: Vec<Vec<u8>>,
    /// The offset of the last of them; -1 without any.
    pub through: i64,
    /// Whether a client requested the removal; otherwise the letters have expired.
    pub on_request: bool,
}

/// The error of a job for which there is no room now.
pub(super) fn busy(reason: String) -> Problem {
    Problem::new(Code::Busy, reason).hint("retry in a moment")
}
