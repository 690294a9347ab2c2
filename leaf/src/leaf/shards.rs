//! Shards: the life cycle of a leaf's shards. They open on first use, close when idle, reopen after a failure, and are
//! removed a day after their collection was dropped.
//!
//! Folder: `<collection uid>/<shard number>/`. The folder of a dropped collection is renamed before it is removed, so
//! that an interrupted removal continues at the next start.
//!
//! Invariants:
//!
//! - Each shard has one slot with a life cycle lock. Opening and closing hold the lock from start to end, so a shard is
//!   never open twice. Requests to an open shard do not take the lock and never wait for it.
//! - The closing thread takes the shard out of its slot first. From then on requests get no handle of it. Builds still
//!   can; `shard/retire.rs` detects that and keeps the shard open.
//! - An opening thread holds one life cycle lock and only tries to take those of other shards, so two never wait for
//!   each other. No thread keeps a lock while it waits for room. Requests for the same shard queue at its slot and one
//!   of them opens it, so the few opening threads stay free for other shards.
//! - A failed shard stays in its slot until its store has no users; then the store is opened again. Views do not count
//!   as users: a query that continues to read an old view fails with a hint to run it again.
//! - An open shard's share of the process's files is reserved before it opens (`open_limits.rs`) and released after it
//!   is closed.

mod folders;
mod idle;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use proto::{Code, CollectionUid, Problem, ingest::ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, warn};

pub(super) use self::folders::{COPYING, PLACED_SINCE};
use super::open_limits::{OpenReservation, OpenShardLimits, files_of, tables_in};
use crate::{
    error::Error,
    shard::{STORE_FOLDER, Shard, ShardServices, summary::Summary},
    threads::blocking,
};

/// Shards that open at the same time, and summaries that are read at the same time.
const CONCURRENT_OPENS_MAX: usize = 4;
/// How long an open waits for room before it is refused …
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// … and how often the first in the queue checks whether another shard can be closed.
const ROOM_POLL: Duration = Duration::from_millis(20);

/// An open shard and its reservation.
struct OpenShard {
    shard: Arc<Shard>,
    reserved: OpenReservation,
}

/// One shard's slot in the leaf, open or not.
#[derive(Default)]
struct ShardSlot {
    /// Requests queue here to have the shard opened.
    open_queue: Arc<tokio::sync::Mutex<()>>,
    /// Write-locked while the shard is opened or closed; read-locked while its summary is read.
    lifecycle: RwLock<()>,
    /// Never locked for long.
    open: RwLock<Option<OpenShard>>,
    /// Last use, in milliseconds since the leaf started; 0 if it was never used.
    used_ms: AtomicU64,
}

impl ShardSlot {
    /// The shard, if it is open.
    fn shard(&self) -> Option<Arc<Shard>> {
        self.open.read().as_ref().map(|open| open.shard.clone())
    }

    /// The shard, if it is open and has not failed.
    fn working(&self) -> Option<Arc<Shard>> {
        self.shard().filter(|shard| shard.failure().is_none())
    }
}

/// The shards of a leaf.
pub(super) struct Shards {
    services: Arc<ShardServices>,
    started_at: Instant,
    slots: Mutex<HashMap<ShardId, Arc<ShardSlot>>>,
    limits: Arc<OpenShardLimits>,
    open_permits: Arc<Semaphore>,
    /// Requests queue here for room; the first in the queue polls for it.
    room_queue: Arc<tokio::sync::Mutex<()>>,
    /// Cloned by each request that waits for room.
    room_waiters: Arc<()>,
    summary_permits: Arc<Semaphore>,
    /// Which placement the folder of a shard belongs to, as far as it was asked for since the shard was opened.
    placed_since: Mutex<HashMap<ShardId, Option<u64>>>,
    /// Dropped collections that have no folder on this node any more.
    removed: Mutex<HashSet<CollectionUid>>,
    closed: AtomicBool,
}

impl Shards {
    /// No shard is open yet.
    pub(super) fn new(services: Arc<ShardServices>) -> Self {
        let limits = OpenShardLimits::new(services.options.open_shards_max, services.options.open_files_max);
        Self {
            services,
            started_at: Instant::now(),
            slots: Mutex::default(),
            limits,
            open_permits: Arc::new(Semaphore::new(CONCURRENT_OPENS_MAX)),
            room_queue: Arc::default(),
            room_waiters: Arc::default(),
            summary_permits: Arc::new(Semaphore::new(CONCURRENT_OPENS_MAX)),
            placed_since: Mutex::default(),
            removed: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The shard, if it is open and has not failed. Counts as a use.
    pub(super) fn ready(&self, id: ShardId) -> Option<Arc<Shard>> {
        let slot = self.slots.lock().get(&id).cloned()?;
        let shard = slot.working()?;
        self.note_use(&slot);
        Some(shard)
    }

    /// The same, without counting as a use.
    pub(super) fn peek(&self, id: ShardId) -> Option<Arc<Shard>> {
        let slot = self.slots.lock().get(&id).cloned()?;
        slot.working()
    }

    fn note_use(&self, slot: &ShardSlot) {
        let now = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        slot.used_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// Waits for a permit to read a summary.
    pub(super) async fn summary_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.summary_permits.clone().acquire_owned().await.ok()
    }

    /// All open shards, as weak handles, so that they can be closed meanwhile.
    pub(super) fn all(&self) -> Vec<Weak<Shard>> {
        self.slots()
            .into_iter()
            .filter_map(|(_, slot)| Some(Arc::downgrade(&slot.shard()?)))
            .collect()
    }

    fn slots(&self) -> Vec<(ShardId, Arc<ShardSlot>)> {
        self.slots.lock().iter().map(|(id, slot)| (*id, slot.clone())).collect()
    }

    /// Number of open shards.
    pub(super) fn open_count(&self) -> usize {
        self.limits.shards()
    }

    /// The shard, opened if necessary. If all open shards are in use and there is no room for another, waits up to
    /// [`ROOM_WAIT`] for room.
    pub(super) async fn open(self: &Arc<Self>, id: ShardId) -> Result<Arc<Shard>, Problem> {
        let slot = self.slot(id);
        let mut slot_turn = slot.open_queue.clone().lock_owned().await;
        let (mut waiter, mut room_turn) = (None, None);
        let mut until = None;
        loop {
            // Requests that already wait for room go first.
            if waiter.is_some() || Arc::strong_count(&self.room_waiters) > 1 {
                waiter.get_or_insert_with(|| self.room_waiters.clone());
                let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + ROOM_WAIT);
                if room_turn.is_none() {
                    room_turn = tokio::time::timeout_at(until, self.room_queue.clone().lock_owned())
                        .await
                        .ok();
                }
                if room_turn.is_none() || tokio::time::Instant::now() >= until {
                    return Err(self.no_room(id));
                }
            }
            // Bounds the threads that wait for a disk, however many shards are requested.
            let permit = self.open_permits.clone().acquire_owned().await.ok();
            let (shards, slot) = (self.clone(), slot.clone());
            let opened = blocking(move || {
                let _until_it_is_open = permit;
                let (mut room_turn, mut waiter) = (room_turn, waiter);
                while let Some(reserved) = shards.reserve_room(id, &slot) {
                    // It has room, so others can wait for theirs, however long this open takes.
                    (room_turn, waiter) = (None, None);
                    shards.note_use(&slot);
                    if let Some(shard) = shards.open_at(id, &slot, reserved)? {
                        return Ok(Ok(shard));
                    }
                }
                Ok(Err((slot_turn, room_turn, waiter)))
            });
            (slot_turn, room_turn, waiter) = match opened.await? {
                Ok(shard) => return Ok(shard),
                Err(still_waiting) => still_waiting,
            };
            if waiter.replace(self.room_waiters.clone()).is_some() {
                tokio::time::sleep(ROOM_POLL).await;
            }
        }
    }

    /// The same for background work: does not count as a use, so the shard is among the first to be closed again.
    /// Blocks on the disk.
    pub(super) fn open_unused(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        let (slot, until) = (self.slot(id), Instant::now() + ROOM_WAIT);
        loop {
            while let Some(reserved) = self.reserve_room(id, &slot) {
                if let Some(shard) = self.open_at(id, &slot, reserved)? {
                    return Ok(shard);
                }
            }
            if Instant::now() >= until || self.closed.load(Ordering::SeqCst) {
                return Err(self.no_room(id).into());
            }
            self.limits.wait(ROOM_POLL);
        }
    }

    fn no_room(&self, id: ShardId) -> Problem {
        let detail = format!(
            "cannot open shard {id}: all {} open shards are in use",
            self.limits.shards()
        );
        Problem::new(Code::Busy, detail)
            .hint("retry in a moment, query fewer shards at once, or allow more open files (ulimit -n)")
    }

    fn slot(&self, id: ShardId) -> Arc<ShardSlot> {
        let slot = || Arc::<ShardSlot>::default();
        self.slots.lock().entry(id).or_insert_with(slot).clone()
    }

    /// Reserves room to open a shard, closing idle shards if necessary. `None`: there is no room. `Some(None)`: the
    /// shard is open and has a reservation.
    fn reserve_room(&self, id: ShardId, slot: &ShardSlot) -> Option<Option<OpenReservation>> {
        match slot.shard() {
            Some(_) => Some(None),
            None => self.make_room(id).map(Some),
        }
    }

    /// The shard, opened with the reservation if necessary. `None`: it was open when room was reserved, and was closed
    /// while this thread waited for the lock, so it needs a reservation now.
    fn open_at(
        &self,
        id: ShardId,
        slot: &ShardSlot,
        reserved: Option<OpenReservation>,
    ) -> Result<Option<Arc<Shard>>, Error> {
        let _lifecycle = slot.lifecycle.write();
        if let Some(shard) = slot.working() {
            return Ok(Some(shard));
        }
        let failed = slot.open.write().take();
        let reserved = match failed {
            None => reserved,
            Some(OpenShard {
                shard: failed,
                reserved,
            }) => {
                failed.close();
                match failed.close_store() {
                    Ok(()) => Some(reserved),
                    Err(shard) => {
                        *slot.open.write() = Some(OpenShard { shard, reserved });
                        let detail = format!("shard {id} cannot reopen until its work in progress has ended");
                        return Err(Problem::new(Code::Busy, detail).hint("retry in a moment").into());
                    }
                }
            }
        };
        let Some(reserved) = reserved else { return Ok(None) };
        // Opening a shard may create its folder.
        self.placed_since.lock().remove(&id);
        let shard = match self.open_shard(id) {
            Err(full) if full.is_no_room() && self.services.disk.drop_ballast() => self.open_shard(id),
            opened => opened,
        }?;
        if self.closed.load(Ordering::SeqCst) {
            shard.close();
            return Err(Problem::new(Code::Unavailable, "the leaf is shutting down").into());
        }
        self.placed_since.lock().remove(&id);
        *slot.open.write() = Some(OpenShard {
            shard: shard.clone(),
            reserved,
        });
        Ok(Some(shard))
    }

    fn open_shard(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        Shard::open(id, &self.folder(id), self.services.clone())
    }

    /// Reserves a shard's files, closing the least recently used idle shards for it. If all are in use, only the limit
    /// on files counts: one query may need more shards than should be open.
    fn make_room(&self, id: ShardId) -> Option<OpenReservation> {
        let files = files_of(tables_in(&self.folder(id).join(STORE_FOLDER)), &self.services.options);
        while !self.limits.has_room(files) && self.close_one(|_, _| true) {}
        self.limits.reserve(files)
    }

    /// A closed shard's summary, if it left one that is still valid. Blocks on the disk.
    pub(super) fn summary(&self, id: ShardId) -> Option<Summary> {
        let slot = self.slot(id);
        // While it is being opened or closed there is no summary; the caller then opens the shard and waits there.
        let _lifecycle = slot.lifecycle.try_read()?;
        let folder = self.folder(id);
        match slot.shard() {
            Some(_) => None,
            // The shard never received anything.
            None if !folder.exists() => Some(Summary::default()),
            None => Summary::read(&folder.join(STORE_FOLDER)),
        }
    }

    /// Opens, one after another, the shards that did not close cleanly or whose tail is too long for queries to scan.
    /// This resumes unfinished work and reports damaged stores. Ends early if the leaf closes.
    pub(super) fn resume(&self, stored: &[ShardId]) {
        for id in stored {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let unfinished = self
                .summary(*id)
                .is_none_or(|summary| summary.tail > self.services.options.index_tail_documents as u64);
            if !unfinished {
                continue;
            }
            if let Err(failure) = self.open_unused(*id) {
                error!(shard = %id, error = %failure, "could not open a shard; the next request for it will retry");
            }
        }
    }

    /// From now on no shard stays open after it was opened.
    pub(super) fn stop(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Closes all shards.
    pub(super) fn close(&self) {
        self.stop();
        let slots: Vec<Arc<ShardSlot>> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            let _lifecycle = slot.lifecycle.write();
            let open = slot.open.write().take();
            let Some(OpenShard { shard, .. }) = open else { continue };
            shard.close();
            let Err(shard) = shard.retire() else { continue };
            if let Err(failure) = shard.store().flush() {
                warn!(shard = %shard.id, error = %failure, "could not flush rows from memory; the log has them");
            }
        }
    }
}

#[cfg(test)]
mod tests;
