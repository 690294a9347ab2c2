//! Removes dead letters when they expire or on request; their bytes then no longer count against their partition.
//!
//! They are found outside the writer, in batches of some thousands. The writer removes those of each batch that are still
//! there, and subtracts their bytes, in one write. So a crash between two batches leaves the rest for the next time, and
//! other writes wait for one
//! batch at most. The outcome counters and the digest do not change: they describe what was ingested.

use std::{sync::Arc, time::Instant};

use chrono::Utc;
use proto::ingest::ClearedDeadLetters;

use super::{
    job::{DeadLetterRemoval, Job},
    open_shard::Shard,
};
use crate::{error::Error, options::LeafOptions, store::Partition};

/// Rows that are removed in one write.
const REMOVED_ROWS_MAX: usize = 5_000;
/// Their total size; about this much is read to find them.
const REMOVED_BYTES_MAX: u64 = 16 << 20;
/// How many dead letters with a future timestamp are skipped in search of an older one.
const SKIPPED_LETTERS_MAX: usize = 1_000;

const NONE_CLEARED: ClearedDeadLetters = ClearedDeadLetters {
    letters: 0,
    complete: true,
};

/// Dead letters ingested before this time have exceeded their retention.
pub(crate) fn dead_letter_cutoff_ms(options: &LeafOptions) -> i64 {
    let retention_ms = i64::try_from(options.dead_letters_kept.as_millis()).unwrap_or(i64::MAX);
    Utc::now().timestamp_millis().saturating_sub(retention_ms)
}

impl Shard {
    /// A lower bound of the ingest time of the oldest dead letter; none if there are no dead letters. Takes the first
    /// letter of each partition and skips letters stamped by a clock that ran ahead. If it skips too many, it returns
    /// 0, which stands for any age.
    pub(super) fn oldest_dead_letter_ms(&self) -> Result<Option<i64>, Error> {
        let (now, mut oldest) = (Utc::now().timestamp_millis(), None::<i64>);
        for partition in self.with_state(|state| state.rows.keys().cloned().collect::<Vec<_>>()) {
            let (mut first, mut skipped) = (None, 0);
            for row in self.store.dead_letter_rows(&partition, None) {
                let (_, ingested_ms, _) = row?;
                skipped += 1;
                first = Some(if skipped > SKIPPED_LETTERS_MAX { 0 } else { ingested_ms });
                if ingested_ms <= now || skipped > SKIPPED_LETTERS_MAX {
                    break;
                }
            }
            oldest = first
                .map(|first| oldest.map_or(first, |known| known.min(first)))
                .or(oldest);
        }
        Ok(oldest)
    }

    /// Removes all dead letters, or those of one source, and gives up at `until`. Waits for the writer.
    pub(crate) fn clear_dead_letters(
        self: &Arc<Self>,
        source: Option<&proto::SourceName>,
        until: Instant,
    ) -> Result<ClearedDeadLetters, Error> {
        let matches = |partition: &&Partition| source.is_none_or(|source| partition.source == *source);
        let partitions: Vec<Partition> = self.with_state(|state| state.rows.keys().filter(matches).cloned().collect());
        let mut cleared = NONE_CLEARED;
        for partition in partitions {
            cleared.add(self.remove_dead_letters(&partition, None, until)?);
        }
        Ok(cleared)
    }

    /// Removes expired dead letters and gives up at `until`. Waits for the writer.
    pub(crate) fn expire_dead_letters(self: &Arc<Self>, until: Instant) -> Result<ClearedDeadLetters, Error> {
        let before_ms = dead_letter_cutoff_ms(&self.options);
        let partitions: Vec<Partition> = self.with_state(|state| state.rows.keys().cloned().collect());
        let mut expired = NONE_CLEARED;
        for partition in partitions {
            expired.add(self.remove_dead_letters(&partition, Some(before_ms), until)?);
        }
        Ok(expired)
    }

    /// Removes dead letters of a partition in address order: all of them, or only those ingested before `before_ms`.
    fn remove_dead_letters(
        self: &Arc<Self>,
        partition: &Partition,
        before_ms: Option<i64>,
        until: Instant,
    ) -> Result<ClearedDeadLetters, Error> {
        let _one_at_a_time = self.dead_letter_removal.lock();
        let now = Utc::now().timestamp_millis();
        let mut cleared = NONE_CLEARED;
        // On request, a stopped partition resumes even if it has no dead letters left.
        let mut resumes = before_ms.is_none()
            && self.with_state(|state| state.rows.get(partition).is_some_and(|row| row.stopped_by_dead_letters));
        let mut from = None;
        loop {
            let (removal, next) = self.find_dead_letters(partition, from.take(), before_ms, now)?;
            if removal.keys.is_empty() && !resumes {
                return Ok(cleared);
            }
            resumes = false;
            let letters = removal.keys.len() as u64;
            self.run_job(|done| Job::Remove(removal, done))?;
            cleared.letters += letters;
            metrics::counter!("rachis_leaf_dead_letters_removed_total").increment(letters);
            if next.is_none() || Instant::now() >= until {
                return Ok(ClearedDeadLetters {
                    complete: next.is_none(),
                    ..cleared
                });
            }
            from = next;
        }
    }

    /// Finds dead letters for one write, starting at a row key, and the row key at which the next search starts, if
    /// there may be more.
    fn find_dead_letters(
        &self,
        partition: &Partition,
        from: Option<Vec<u8>>,
        before_ms: Option<i64>,
        now: i64,
    ) -> Result<(DeadLetterRemoval, Option<Vec<u8>>), Error> {
        let mut removal = DeadLetterRemoval {
            partition: partition.clone(),
            keys: Vec::new(),
            through: -1,
            on_request: before_ms.is_none(),
        };
        let mut bytes = 0;
        for row in self.store.dead_letter_rows(partition, from) {
            let (key, ingested_ms, length) = row?;
            if before_ms.is_some_and(|before_ms| ingested_ms >= before_ms && ingested_ms <= now) {
                break;
            }
            // A letter stamped by a clock that ran ahead must not keep the letters behind it from expiring.
            if before_ms.is_some() && ingested_ms > now {
                continue;
            }
            if removal.keys.len() >= REMOVED_ROWS_MAX || bytes >= REMOVED_BYTES_MAX {
                return Ok((removal, Some(key.into_vec())));
            }
            removal.through = self.store.dead_letter_offset(&key)?;
            removal.keys.push(key.into_vec());
            bytes += length;
        }
        Ok((removal, None))
    }
}

#[cfg(test)]
mod tests;
