//! The registry of running queries, listed in `rachis.queries` and cancelled by id.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use proto::{
    Code, Problem,
    node::{QueryId, RunningQuery},
};
use tokio_util::sync::CancellationToken;

use super::context::QueryContext;

/// A listed statement is cut after this many characters.
const TEXT_CHARACTERS_MAX: usize = 1_000;

struct Entry {
    text: String,
    started_ms: i64,
    since: Instant,
    context: Weak<QueryContext>,
    cancel: CancellationToken,
}

/// All running queries of this node.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<QueryId, Entry>>);

impl Registry {
    /// Lists a query until the returned guard is dropped. Fails if its id is in use.
    pub(super) fn register(
        self: &Arc<Self>,
        context: &Arc<QueryContext>,
        text: &str,
    ) -> Result<RegisteredQuery, Problem> {
        let id = context.id;
        let started_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let text = text.chars().take(TEXT_CHARACTERS_MAX).collect();
        let mut running = self.0.lock();
        if running.contains_key(&id) {
            return Err(
                Problem::new(Code::Conflict, format!("a query with the id {id} is already running"))
                    .hint("choose a new id for each query"),
            );
        }
        running.insert(
            id,
            Entry {
                text,
                started_ms,
                since: Instant::now(),
                context: Arc::downgrade(context),
                cancel: context.cancel.clone(),
            },
        );
        record_running(running.len());
        drop(running);
        Ok(RegisteredQuery {
            registry: Arc::clone(self),
            id,
        })
    }

    /// Lists the running queries, oldest first.
    pub(super) fn list(&self) -> Vec<RunningQuery> {
        let elapsed = |entry: &Entry| u64::try_from(entry.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = |(id, entry): (&QueryId, &Entry)| {
            let context = entry.context.upgrade();
            let context = context.as_ref();
            let (documents, documents_scanned) = context.map_or((0, 0), |context| context.report.progress());
            let (memory_bytes, memory_bytes_most) = context.map_or((0, 0), |context| context.memory.bytes());
            RunningQuery {
                id: *id,
                text: entry.text.clone(),
                started_ms: entry.started_ms,
                elapsed_ms: elapsed(entry),
                documents,
                documents_scanned,
                memory_bytes,
                memory_bytes_most,
            }
        };
        self.0.lock().iter().map(shown).collect()
    }

    /// Cancels a query. Returns whether it was running.
    pub(super) fn cancel(&self, id: QueryId) -> bool {
        self.0.lock().get(&id).map(|entry| entry.cancel.cancel()).is_some()
    }
}

fn record_running(running: usize) {
    metrics::gauge!("rachis_queries_running").set(running as f64);
}

/// Keeps a query listed for as long as it lives.
pub(super) struct RegisteredQuery {
    registry: Arc<Registry>,
    id: QueryId,
}

impl Drop for RegisteredQuery {
    fn drop(&mut self) {
        let mut running = self.registry.0.lock();
        running.remove(&self.id);
        record_running(running.len());
    }
}
