//! Dead letters go when they are old, or at once when somebody asks for it, and what they weighed counts no more
//! against their partition.
//!
//! They are found beside the writer, some thousands at a time, and each such run is removed by the writer together with
//! what it weighed, in one write. So a crash between two runs leaves the rest for the next time, and those who write
//! wait for one run at most. What became of the events stays counted, and the digest is over what came in: neither
//! changes.

use std::{sync::Arc, time::Instant};

use proto::ingest::Cleared;
use tokio::sync::oneshot;

use super::{Shard, now_ms, writer::Job};
use crate::{error::Error, options::LeafOptions, store::Partition};

/// Rows that are removed in one write.
const REMOVED_ROWS_MAX: usize = 5_000;
/// What they weighed, in bytes: about so much is read to find them.
const REMOVED_BYTES_MAX: u64 = 16 << 20;

/// So many dead letters of the future are looked at to find an older one behind them.
const PASSED_OVER_MAX: usize = 1_000;

/// A run of dead letters of one partition, to be removed.
pub struct Removal {
    /// Whose.
    pub partition: Partition,
    /// The keys of their rows.
    pub keys: Vec<Vec<u8>>,
    /// The bytes they were long.
    pub bytes: u64,
    /// Whether somebody asked for it, rather than that they are old.
    pub on_request: bool,
}

/// Dead letters that were taken in before this are older than they are kept.
pub fn expired_before_ms(options: &LeafOptions) -> i64 {
    let kept_ms = i64::try_from(options.dead_letters_kept.as_millis()).unwrap_or(i64::MAX);
    now_ms().saturating_sub(kept_ms)
}

impl Shard {
    /// When the oldest dead letter was taken in, or earlier; nothing where there are none. Of each partition that is
    /// its first, save those that a clock which ran ahead has stamped: where there are many of them the answer is 0,
    /// for any age.
    pub(super) fn oldest_dead_letter_ms(&self) -> Result<Option<i64>, Error> {
        let (now, mut oldest) = (now_ms(), None::<i64>);
        for partition in self.look(|state| state.rows.keys().cloned().collect::<Vec<_>>()) {
            let (mut first, mut passed_over) = (None, 0);
            for row in self.store.dead_letter_rows(&partition, None) {
                let (_, ingested_ms, _) = row?;
                passed_over += 1;
                first = Some(if passed_over > PASSED_OVER_MAX { 0 } else { ingested_ms });
                if ingested_ms <= now || passed_over > PASSED_OVER_MAX {
                    break;
                }
            }
            oldest = first
                .map(|first| oldest.map_or(first, |known| known.min(first)))
                .or(oldest);
        }
        Ok(oldest)
    }

    /// Removes all dead letters, or those of one source, until this time at the latest. Waits for the writer.
    pub fn clear_dead_letters(
        self: &Arc<Self>,
        source: Option<&proto::SourceName>,
        until: Instant,
    ) -> Result<Cleared, Error> {
        let of_it = |partition: &&Partition| source.is_none_or(|source| partition.source == *source);
        let partitions: Vec<Partition> = self.look(|state| state.rows.keys().filter(of_it).cloned().collect());
        let mut cleared = Cleared {
            letters: 0,
            complete: true,
        };
        for partition in partitions {
            cleared.add(self.remove(&partition, None, until)?);
        }
        Ok(cleared)
    }

    /// Removes the dead letters that are older than they are kept. Waits for the writer.
    pub fn expire_dead_letters(self: &Arc<Self>, until: Instant) -> Result<Cleared, Error> {
        let before_ms = expired_before_ms(&self.options);
        let partitions: Vec<Partition> = self.look(|state| state.rows.keys().cloned().collect());
        let mut expired = Cleared {
            letters: 0,
            complete: true,
        };
        for partition in partitions {
            expired.add(self.remove(&partition, Some(before_ms), until)?);
        }
        Ok(expired)
    }

    /// Removes dead letters of a partition in the order of their addresses: all, or those from the first on that are so
    /// old.
    fn remove(
        self: &Arc<Self>,
        partition: &Partition,
        before_ms: Option<i64>,
        until: Instant,
    ) -> Result<Cleared, Error> {
        let _one_at_a_time = self.removing.lock();
        let now = now_ms();
        let mut cleared = Cleared {
            letters: 0,
            complete: true,
        };
        // A stopped partition goes on also where nothing is left to remove.
        let mut lifts = before_ms.is_none() && self.look(|state| state.rows.get(partition).is_some_and(|row| row.dead));
        let mut from = None;
        loop {
            let mut removal = Removal {
                partition: partition.clone(),
                keys: Vec::new(),
                bytes: 0,
                on_request: before_ms.is_none(),
            };
            let mut rows = self.store.dead_letter_rows(partition, from.take());
            let more = loop {
                let Some(row) = rows.next() else { break false };
                let (key, ingested_ms, length) = row?;
                if before_ms.is_some_and(|before_ms| ingested_ms >= before_ms && ingested_ms <= now) {
                    break false;
                }
                // A letter stamped by a clock that ran ahead must not keep the letters behind it from expiring.
                if before_ms.is_some() && ingested_ms > now {
                    continue;
                }
                if removal.keys.len() >= REMOVED_ROWS_MAX || removal.bytes >= REMOVED_BYTES_MAX {
                    from = Some(key.into_vec());
                    break true;
                }
                removal.keys.push(key.into_vec());
                removal.bytes += length;
            };
            drop(rows);
            if removal.keys.is_empty() && !lifts {
                return Ok(cleared);
            }
            lifts = false;
            let letters = removal.keys.len() as u64;
            let (to, done) = oneshot::channel();
            self.queue
                .blocking_send(Job::Remove(removal, to))
                .map_err(|_| self.closed())?;
            self.crew.writers.enqueue(self);
            done.blocking_recv().map_err(|_| self.closed())??;
            cleared.letters += letters;
            metrics::counter!("rachis_leaf_dead_letters_removed_total").increment(letters);
            if !more || Instant::now() >= until {
                return Ok(Cleared {
                    complete: !more,
                    ..cleared
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::SourceName;

    use super::*;
    use crate::support::{Fixture, tail_only};

    /// How many dead letters there are, and whether the partition counts exactly their bytes.
    async fn kept(fixture: &Fixture) -> usize {
        let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
        let partition = Partition {
            source: SourceName::push(),
            number: 0,
        };
        let lengths: Vec<u64> = shard
            .store
            .dead_letter_rows(&partition, None)
            .map(|row| row.expect("a row").2)
            .collect();
        assert_eq!(
            shard.look(|state| state.rows[&partition].dead_bytes),
            lengths.iter().sum::<u64>()
        );
        lengths.len()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_clearing_that_is_cut_short_leaves_the_rest_and_counts_what_is_left() {
        let fixture = Fixture::start(tail_only);
        for _ in 0..2 {
            fixture.push(&vec!["nonsense"; REMOVED_ROWS_MAX]).await;
        }
        fixture.push(&["1", "more nonsense"]).await;
        let all = 2 * REMOVED_ROWS_MAX + 1;
        assert_eq!(kept(&fixture).await, all);
        let outcomes = fixture.outcomes(&SourceName::push(), 0).await;

        let shard = fixture.leaf.shard(fixture.shard).await.expect("the shard");
        let (one, now) = (shard.clone(), Instant::now());
        let cleared = tokio::task::spawn_blocking(move || one.clear_dead_letters(None, now))
            .await
            .expect("it ends")
            .expect("it clears");
        assert_eq!(
            cleared,
            Cleared {
                letters: REMOVED_ROWS_MAX as u64,
                complete: false
            }
        );
        drop(shard);
        assert_eq!(kept(&fixture).await, REMOVED_ROWS_MAX + 1);
        let crashed = fixture.crashed();
        assert_eq!(kept(&crashed).await, REMOVED_ROWS_MAX + 1);
        let fixture = fixture.restart().await;
        assert_eq!(kept(&fixture).await, REMOVED_ROWS_MAX + 1);

        let cleared = proto::ingest::Ingest::clear_dead_letters(&*fixture.leaf, fixture.shard.collection, None)
            .await
            .expect("it clears");
        assert_eq!(
            cleared,
            Cleared {
                letters: REMOVED_ROWS_MAX as u64 + 1,
                complete: true
            }
        );
        assert_eq!(kept(&fixture).await, 0);
        assert_eq!(
            fixture.outcomes(&SourceName::push(), 0).await,
            outcomes,
            "what became of the events stays counted"
        );
    }
}
