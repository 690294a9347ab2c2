//! Idle shards: closes those that no request, build or view uses, and updates the reservations of the others.

use std::sync::{Arc, atomic::Ordering};

use proto::ingest::ShardId;

use super::{OpenShard, ShardSlot, Shards};
use crate::{leaf::open_limits::files_of, shard::Shard};

/// Shards that one call of [`Shards::close_idle`] closes.
const CLOSED_AT_ONCE_MAX: usize = 32;

impl Shards {
    /// Closes the least recently used idle shard for which `may` returns true, given the time of its last use. Without
    /// space on the disk only read-only shards are closed: reopening the others takes space, and their rows in memory
    /// might not find any.
    pub(super) fn close_one(&self, may: impl Fn(u64, &Shard) -> bool) -> bool {
        let has_space = self.services.disk.has_space();
        let used = |(_, slot): (ShardId, Arc<ShardSlot>)| (slot.used_ms.load(Ordering::Relaxed), slot);
        let mut slots: Vec<(u64, Arc<ShardSlot>)> = self.slots().into_iter().map(used).collect();
        slots.sort_by_key(|(used, _)| *used);
        slots.iter().any(|(used, slot)| {
            close_if_idle(slot, |shard| {
                (has_space || shard.store().is_read_only()) && may(*used, shard)
            })
        })
    }

    /// Updates the reservations of open shards, whose number of files changes.
    pub(crate) fn count_files(&self) {
        for (_, slot) in self.slots() {
            let Some(shard) = slot.shard() else { continue };
            let files = files_of(shard.store().tables(), &self.services.options);
            if let Some(open) = slot
                .open
                .write()
                .as_mut()
                .filter(|open| Arc::ptr_eq(&open.shard, &shard))
            {
                open.reserved.update(files);
            }
        }
    }

    /// Closes idle shards until only `idle_shards_max` are open. Also closes idle read-only shards once they can be
    /// opened for writing: they would use memory until their next request. Closes at most [`CLOSED_AT_ONCE_MAX`] shards
    /// per call, so that neither requests nor other housekeeping wait long.
    pub(crate) fn close_idle(&self) {
        let options = &self.services.options;
        let before = self.started_at.elapsed().saturating_sub(options.shard_idle).as_millis();
        for _ in 0..CLOSED_AT_ONCE_MAX {
            let can_reopen = |_, shard: &Shard| shard.store().is_read_only() && shard.failure().is_some();
            let reopens = self.services.disk.has_room() && self.close_one(can_reopen);
            let closed = match self.limits.is_exceeded() {
                _ if reopens => true,
                true => self.close_one(|_, _| true),
                // A read-only shard stays open: closed and reopened, it would be read-only again.
                false if self.services.disk.has_space() && self.limits.shards() > options.idle_shards_max => {
                    let is_read_only = |shard: &Shard| shard.store().is_read_only() && shard.failure().is_none();
                    self.close_one(|used, shard| u128::from(used) <= before && !is_read_only(shard))
                }
                false => false,
            };
            if !closed {
                return;
            }
        }
    }
}

/// Closes a shard if it is idle and `may` returns true. Returns whether it was closed.
pub(super) fn close_if_idle(slot: &ShardSlot, may: impl Fn(&Shard) -> bool) -> bool {
    let Some(_lifecycle) = slot.lifecycle.try_write() else {
        return false;
    };
    let Some(shard) = slot.shard() else { return false };
    if !may(&shard) || !shard.can_retire() {
        return false;
    }
    let open = {
        let mut open = slot.open.write();
        drop(shard);
        // A request may have taken a handle meanwhile.
        if open.as_ref().is_none_or(|open| Arc::strong_count(&open.shard) > 1) {
            return false;
        }
        open.take()
    };
    let Some(OpenShard { shard, reserved }) = open else {
        return false;
    };
    match shard.retire() {
        Ok(()) => true,
        Err(shard) => {
            *slot.open.write() = Some(OpenShard { shard, reserved });
            false
        }
    }
}
