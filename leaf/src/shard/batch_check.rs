//! Checks a batch against the stored partition before the records themselves are read.
//!
//! Pure. The positions decide which records are new; the hash of the last record decides whether it is still the same
//! topic.

use proto::{
    SourceName,
    ingest::{Batch, INGEST_RULES_LEVEL, rules_level},
};

use crate::store::PartitionRow;

/// What to do with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchCheck {
    /// All of it is already ingested.
    Already,
    /// Records before it are missing.
    Gap,
    /// The batch can never be applied; the reason.
    Refused(String),
    /// Apply the records above the stored position.
    Take,
}

/// Checks a batch that was sent to the right shard.
pub(crate) fn check(batch: &Batch, row: &PartitionRow) -> BatchCheck {
    if let Err(reason) = check_range(batch).and_then(|()| check_source(batch, row)) {
        return BatchCheck::Refused(reason);
    }
    if batch.through <= row.offset {
        return BatchCheck::Already;
    }
    if batch.after > row.offset && !crate::fault::on("no-gap-check") {
        return BatchCheck::Gap;
    }
    BatchCheck::Take
}

/// Rejects an unknown protocol level, which stands for the rules that the sender knows.
pub(crate) fn check_level(level: u16, source: &SourceName) -> Result<(), String> {
    let supported = rules_level(source);
    // Each level of the rules for changes has all changes of the levels before; the first one is that of documents.
    if level == supported || source.is_changes() && (INGEST_RULES_LEVEL + 1..supported).contains(&level) {
        return Ok(());
    }
    Err(format!(
        "level {level} is not supported; this node supports level {supported} for source {source}: run the same release on \
         all nodes"
    ))
}

fn check_range(batch: &Batch) -> Result<(), String> {
    check_level(batch.level, &batch.source)?;
    if batch.partition < 0 || batch.after < -1 || batch.through < batch.after {
        return Err(format!(
            "partition {}: the range must end after it begins (after {}, through {})",
            batch.partition, batch.after, batch.through
        ));
    }
    // The record at the stored position may be included for its hash, so one offset before the range is allowed.
    let ascending = batch.records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
    let inside = batch
        .records
        .iter()
        .all(|record| record.offset >= batch.after.max(0) && record.offset <= batch.through);
    if ascending && inside {
        Ok(())
    } else {
        Err("the offsets of the records are not ascending within the range of their batch".into())
    }
}

fn check_source(batch: &Batch, row: &PartitionRow) -> Result<(), String> {
    let name = format!("{}/{}", batch.source, batch.partition);
    if let Some(topic) = row.topic.as_ref().filter(|topic| **topic != batch.topic) {
        return Err(format!(
            "{name} was read from topic {topic} and now comes from {}: the topic was deleted and recreated, or the \
             source now reads another topic; create a source with another name for it",
            batch.topic
        ));
    }
    // A shard that is filled again must read the records that it has by the rules by which it read them.
    if !batch.source.is_own() && row.rules_hash != 0 && row.rules_hash != batch.rules.hash() {
        return Err(format!(
            "{name} was ingested with another format or key; create a source with another name for the new ones"
        ));
    }
    if row.stopped_by_dead_letters {
        return Err(dead_reason(&name, row));
    }
    let same =
        |record: &proto::record::Record| record.offset != row.last_offset || row.hash == 0 || record.hash() == row.hash;
    if !batch.records.iter().all(same) {
        return Err(format!(
            "{name}@{} holds a different record than the one that was ingested: the topic was truncated or recreated; \
             create a source with another name for it, or skip to the offset where it should continue",
            row.last_offset
        ));
    }
    Ok(())
}

/// Why a partition is stopped, and what to do about it.
pub(crate) fn dead_reason(name: &str, row: &PartitionRow) -> String {
    format!(
        "{name} is stopped: {} of {} events became dead letters ({} bytes of them are stored); see \
         rachis.dead_letters. If the format is wrong, create the source under another name with the right format; if \
         the remaining events are usable, remove the dead letters with \
         DELETE /v1/collections/{{collection}}/dead-letters?source={} and the partition resumes",
        row.outcomes.dead_letters,
        row.outcomes.events,
        row.dead_bytes,
        name.rsplit_once('/').map_or(name, |(source, _)| source)
    )
}

#[cfg(test)]
mod tests;
