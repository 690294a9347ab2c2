//! What is said of a partition: its position, its state, and its errors.

use std::collections::BTreeMap;

use proto::status::SourceState;

use super::{Cursor, Error, Partition, Phase};

impl Partition {
    /// The replica that the partition waits for: takes the furthest one of each shard, and of these one that is stopped, or
    /// the one that is least far.
    fn leading(&self) -> &Cursor {
        let is_stopped = |cursor: &Cursor| matches!(cursor.phase, Phase::Stopped { .. });
        let mut of_shards: BTreeMap<u32, &Cursor> = BTreeMap::new();
        for cursor in &self.cursors {
            let most = of_shards.entry(cursor.part.share.shard).or_insert(cursor);
            if (!is_stopped(cursor), cursor.stored) > (!is_stopped(most), most.stored) {
                *most = cursor;
            }
        }
        let rank = |cursor: &&Cursor| (!is_stopped(cursor), cursor.stored);
        of_shards
            .into_values()
            .min_by_key(rank)
            .expect("a partition has a replica")
    }

    /// The position of the partition, as far as known: of the replica that has most, and of the shard that has least.
    pub(in crate::kafka) fn stored(&self) -> i64 {
        self.leading().stored
    }

    /// The size of all records that were read and that a replica has not acknowledged.
    pub(in crate::kafka) fn buffered_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The state of the partition, as users see it.
    pub(in crate::kafka) fn state(&self) -> SourceState {
        let cursor = self.leading();
        match cursor.phase {
            Phase::Resolving => SourceState::Starting,
            Phase::Stopped { .. } => SourceState::Stopped,
            Phase::Reading if cursor.busy || self.held_back().is_some() => SourceState::Waiting,
            Phase::Reading if self.at_end && cursor.pending_bytes == 0 => SourceState::CaughtUp,
            Phase::Reading | Phase::Behind | Phase::Attaching => SourceState::Reading,
        }
    }

    /// The end offset at the broker, and the number of offsets between the position and the end. At the end of the
    /// partition the lag is 0, even if the last offsets have no records.
    pub(in crate::kafka) fn end_and_lag(&self) -> (Option<i64>, Option<i64>) {
        let stored = self.stored();
        match self.state() {
            SourceState::CaughtUp => (self.end.map(|end| end.max(stored + 1)), Some(0)),
            _ => (self.end, self.end.map(|end| (end - 1 - stored).max(0))),
        }
    }

    /// The last error of a replica, until something succeeds, and which it is.
    pub(in crate::kafka) fn error(&self) -> Option<(usize, &Error)> {
        let errors = self.cursors.iter().enumerate();
        let mut errors = errors.filter_map(|(replica, cursor)| Some((replica, cursor.error.as_ref()?)));
        errors.next()
    }

    /// The last error of one replica, until something succeeds.
    pub(in crate::kafka) fn error_of(&self, replica: usize) -> Option<&Error> {
        self.cursors[replica].error.as_ref()
    }
}
