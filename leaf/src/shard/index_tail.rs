//! Indexes the tail in memory: builds a micro-split of all its documents and wakes the queries that wait for it. The
//! documents are visible before that, because a query scans the tail, unless it is long.

use std::{sync::Arc, time::Instant};

use metrics::histogram;

use super::{open_shard::Shard, scheduler::Task};
use crate::{error::Error, split::Segment};

/// Replaces the tail by a micro-split. Returns when to run again, if that is already known.
pub(crate) fn index_tail(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    let started = Instant::now();
    let build = {
        let mut state = shard.state.lock();
        if state.tail.is_empty() {
            return Ok(None);
        }
        state.begin_build()
    };
    let documents = &build.snapshot.documents;
    let segment = if documents.is_empty() {
        None
    } else {
        let built = Segment::in_memory(documents);
        Some(Arc::new(built.inspect_err(|_| shard.state.lock().is_indexing = false)?))
    };
    let built = documents.len();
    let next = {
        let mut state = shard.state.lock();
        state.end_build(build, segment);
        shard.index_tail_at(&state)
    };
    shard.changed.send_modify(|count| *count += 1);
    histogram!("rachis_leaf_publish_seconds").record(started.elapsed());
    histogram!("rachis_leaf_publish_documents").record(built as f64);
    shard.scheduler.schedule(Task::Split, shard, Instant::now());
    Ok(next)
}
