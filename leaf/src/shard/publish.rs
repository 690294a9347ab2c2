//! Tail -> micro-split: takes all there is, builds one index in memory, wakes all who wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::histogram;

use super::{Shard, work::Task};
use crate::{error::Error, split::Segment};

/// Another thread is at it: ask again so much later.
const AGAIN_AFTER: Duration = Duration::from_millis(2);

/// Publishes the tail. Answers when to come again, if that is known now.
pub fn publish(shard: &Arc<Shard>) -> Result<Option<Instant>, Error> {
    let Some(_one_at_a_time) = shard.building.try_lock() else {
        return Ok(Some(Instant::now() + AGAIN_AFTER));
    };
    let started = Instant::now();
    let begun = {
        let mut state = shard.state.lock();
        if state.tail.is_empty() {
            return Ok(None);
        }
        state.begin_build()
    };
    let documents = &begun.taken.documents;
    let segment = if documents.is_empty() {
        None
    } else {
        Some(Arc::new(Segment::in_memory(documents)?))
    };
    let built = documents.len();
    let again = {
        let mut state = shard.state.lock();
        state.end_build(begun, segment);
        shard.publish_at(&state)
    };
    shard.changed.send_modify(|count| *count += 1);
    histogram!("rachis_leaf_publish_seconds").record(started.elapsed());
    histogram!("rachis_leaf_publish_documents").record(built as f64);
    shard.work.schedule(Task::Split, shard, Instant::now());
    Ok(again)
}
