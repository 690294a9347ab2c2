//! Appends a record to one of a collection's own sources, and waits until its shard shows it: a push, or changes of
//! documents.

use std::time::Duration;

use proto::{
    Code, CollectionName, Problem,
    ingest::{Push, PushResult},
};
use tokio::time::Instant;

use super::Engine;

/// How long an append may take before its outcome is unknown. Many clients and proxies wait for a minute.
pub(crate) const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(55);
/// The pause before the first retry of a busy leaf. Doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);

/// How long an append is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendUntil {
    /// Until when a busy shard is tried again.
    pub retried: Instant,
    /// Until when the outcome is awaited.
    pub outcome: Instant,
}

impl Engine {
    /// Appends a record. Stops waiting when the collection is dropped.
    pub(crate) async fn append(
        &self,
        name: &CollectionName,
        push: Push,
        until: AppendUntil,
    ) -> Result<PushResult, Problem> {
        let (uid, shard) = (push.shard.collection, push.shard);
        let dropped = || {
            Problem::new(
                Code::Conflict,
                format!("collection {name} was dropped during the request"),
            )
            .hint("its documents were dropped with it; a push creates the collection again")
        };
        let mut catalog = self.roles.changes.catalog();
        let appended = tokio::select! {
            biased;
            appended = self.append_with_retries(push, until) => match appended {
                Err(problem) if problem.code == Code::NotFound => Err(dropped()),
                appended => appended,
            },
            Ok(_) = catalog.wait_for(|catalog| catalog.collection(uid).is_none()) => Err(dropped()),
        }?;
        self.on_push_acknowledged(shard, appended.position.clone());
        Ok(appended)
    }

    /// Retries while the leaf is busy, until the deadline.
    async fn append_with_retries(&self, push: Push, until: AppendUntil) -> Result<PushResult, Problem> {
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let sent = self.roles.pushes.push(push.clone(), until.outcome.into_std());
            match tokio::time::timeout_at(until.outcome, sent).await {
                Ok(Err(problem)) if problem.code == Code::Busy && Instant::now() + pause < until.retried => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                Ok(result) => return result,
                Err(_) => {
                    let detail = format!(
                        "the shard did not respond within {} seconds",
                        OUTCOME_WAIT_MAX.as_secs()
                    );
                    return Err(Problem::new(Code::UnknownOutcome, detail)
                        .hint("retry the push with the same Idempotency-Key: it is applied only once"));
                }
            }
        }
    }
}
