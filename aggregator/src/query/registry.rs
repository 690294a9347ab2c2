//! The queries that run: listed for `rachis.queries`, cancelled by id.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use proto::{
    Code, Problem,
    node::{QueryId, RunningQuery},
};
use tokio_util::sync::CancellationToken;

/// Characters of a statement that are kept to show it.
const TEXT_CHARACTERS_MAX: usize = 1_000;

struct Entry {
    text: String,
    started_ms: i64,
    since: Instant,
    cancel: CancellationToken,
}

/// All queries that run.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<QueryId, Entry>>);

impl Registry {
    /// Notes a query until the answer's guard is dropped.
    pub fn enter(self: &Arc<Self>, id: QueryId, text: &str, cancel: CancellationToken) -> Result<Registered, Problem> {
        let started_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let text = text.chars().take(TEXT_CHARACTERS_MAX).collect();
        let mut running = self.0.lock();
        if running.contains_key(&id) {
            return Err(
                Problem::new(Code::Conflict, format!("a query of the id {id} runs already"))
                    .hint("choose a new id for each question"),
            );
        }
        running.insert(
            id,
            Entry {
                text,
                started_ms,
                since: Instant::now(),
                cancel,
            },
        );
        tell(running.len());
        drop(running);
        Ok(Registered {
            registry: Arc::clone(self),
            id,
        })
    }

    /// What runs, oldest first.
    pub fn list(&self) -> Vec<RunningQuery> {
        let elapsed = |entry: &Entry| u64::try_from(entry.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = |(id, entry): (&QueryId, &Entry)| RunningQuery {
            id: *id,
            text: entry.text.clone(),
            started_ms: entry.started_ms,
            elapsed_ms: elapsed(entry),
        };
        self.0.lock().iter().map(shown).collect()
    }

    /// Cancels one; whether it was there.
    pub fn cancel(&self, id: QueryId) -> bool {
        self.0.lock().get(&id).map(|entry| entry.cancel.cancel()).is_some()
    }
}

fn tell(running: usize) {
    metrics::gauge!("rachis_queries_running").set(running as f64);
}

/// A query is listed for as long as this lives.
pub(super) struct Registered {
    registry: Arc<Registry>,
    id: QueryId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut running = self.registry.0.lock();
        running.remove(&self.id);
        tell(running.len());
    }
}
