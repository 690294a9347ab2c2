//! The shards of a leaf: opened when they are first needed, closed when nobody has used them for a while, opened again after a failure, removed
//! a day after their collection was dropped.
//!
//! Folder: `<collection uid>/<shard number>/`. A dropped one is first renamed, so that a removal which is cut short goes on at the next start.
//!
//! What holds, whatever comes between:
//!
//! - Each shard has one place, and whoever opens or closes it has that place for itself throughout: it is never open twice.
//! - Only an open shard's place gives handles of it, so meanwhile their number does not grow (but by builds, which the shard itself notices,
//!   `shard/retire.rs`).
//! - Who waits for room to open a shard has its own place, and only tries to get those of others: two never wait for each other.
//! - What an open shard may take of the process's files is set aside before it opens (`room.rs`), and given back after it is closed.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use proto::{Catalog, Code, CollectionUid, Problem, ingest::ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, info, warn};

use super::room::{Reserved, Room, files_of, tables_in};
use crate::{
    error::Error,
    shard::{Crew, SPLITS_FOLDER, STORE_FOLDER, Shard, summary::Summary},
    store::manifest::split_of,
};

const DROPPED: &str = "dropped-";
/// Shards that are opened beside one another; summaries that are read beside one another.
const OPENERS: usize = 4;
/// Shards that the keeper closes one after another before it looks after everything else.
const CLOSED_AT_ONCE_MAX: usize = 32;
/// So long an opening waits for room before it is refused …
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// … and looks so often whether another shard can be closed by now.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// A shard that is open, with what it was given to be open.
struct Open {
    shard: Arc<Shard>,
    reserved: Reserved,
}

/// Where a shard is, if it is open.
struct Place {
    open: RwLock<Option<Open>>,
    /// When it was asked for last, in milliseconds of the leaf; 0 if nobody ever did.
    used_ms: AtomicU64,
}

/// The shards of a leaf.
pub struct Shards {
    crew: Arc<Crew>,
    began: Instant,
    places: Mutex<HashMap<ShardId, Arc<Place>>>,
    room: Arc<Room>,
    openers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// Dropped collections of which nothing is left here.
    removed: Mutex<HashSet<CollectionUid>>,
    closed: AtomicBool,
}

impl Shards {
    /// None yet.
    pub fn new(crew: Arc<Crew>) -> Self {
        let room = Room::new(crew.options.open_shards_max, crew.options.open_files_max);
        Self {
            crew,
            began: Instant::now(),
            places: Mutex::default(),
            room,
            openers: Arc::new(Semaphore::new(OPENERS)),
            readers: Arc::new(Semaphore::new(OPENERS)),
            removed: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The shard, if it is open and works.
    pub fn ready(&self, id: ShardId) -> Option<Arc<Shard>> {
        let place = self.places.lock().get(&id).cloned()?;
        let shard = working(&place)?;
        self.note_use(&place);
        Some(shard)
    }

    /// The same, for who is curious: it is no use of the shard.
    pub fn peek(&self, id: ShardId) -> Option<Arc<Shard>> {
        let place = self.places.lock().get(&id).cloned()?;
        working(&place)
    }

    fn note_use(&self, place: &Place) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        place.used_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// Waits until a shard may be opened: few are at once, and so are the threads for it, however many are asked for.
    pub async fn turn_to_open(&self) -> Option<OwnedSemaphorePermit> {
        self.openers.clone().acquire_owned().await.ok()
    }

    /// Waits until a summary may be read.
    pub async fn turn_to_read(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().acquire_owned().await.ok()
    }

    /// All that are open, but for those that are opened or closed at this moment.
    pub fn all(&self) -> Vec<Arc<Shard>> {
        self.places().into_iter().filter_map(|(_, place)| Some(place.open.try_read()?.as_ref()?.shard.clone())).collect()
    }

    fn places(&self) -> Vec<(ShardId, Arc<Place>)> {
        self.places.lock().iter().map(|(id, place)| (*id, place.clone())).collect()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.room.shards()
    }

    /// The shard, opened where need be. Waits for a disk.
    pub fn open(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        let place = self.place(id);
        self.note_use(&place);
        self.open_at(id, &place)
    }

    /// The same, for work that nobody waits for: it is no use of the shard, which is among the first to be closed again.
    pub fn open_unused(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        self.open_at(id, &self.place(id))
    }

    fn place(&self, id: ShardId) -> Arc<Place> {
        let place = || Arc::new(Place { open: RwLock::default(), used_ms: AtomicU64::new(0) });
        self.places.lock().entry(id).or_insert_with(place).clone()
    }

    fn open_at(&self, id: ShardId, place: &Place) -> Result<Arc<Shard>, Error> {
        let mut open = place.open.write();
        if let Some(there) = open.as_ref().filter(|open| open.shard.failure().is_none()) {
            return Ok(there.shard.clone());
        }
        if let Some(failed) = open.take() {
            failed.shard.close();
        }
        let reserved = self.make_room(id)?;
        let shard = match self.make(id) {
            Err(Error::Storage { .. } | Error::File { .. }) if self.crew.disk.drop_ballast() => self.make(id),
            made => made,
        };
        let shard = shard.map_err(while_held)?;
        if self.closed.load(Ordering::SeqCst) {
            shard.close();
            return Err(Problem::new(Code::Unavailable, "the leaf is closing").into());
        }
        *open = Some(Open { shard: shard.clone(), reserved });
        Ok(shard)
    }

    fn make(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        Shard::open(id, &self.folder(id), self.crew.clone())
    }

    /// Sets aside what the shard takes to be open; closes others for it, those first that were not used for longest.
    fn make_room(&self, id: ShardId) -> Result<Reserved, Error> {
        let files = files_of(tables_in(&self.folder(id).join(STORE_FOLDER)), &self.crew.options);
        let begun = Instant::now();
        loop {
            if let Some(reserved) = self.room.reserve(files) {
                return Ok(reserved);
            }
            if self.close_one(|_, _| true) {
                continue;
            }
            if begun.elapsed() >= ROOM_WAIT || self.closed.load(Ordering::SeqCst) {
                let detail = format!("shard {id} has no room to open: {} are open, and all of them are in use", self.room.shards());
                let hint = "try again a little later; the limit of open files (ulimit -n) and open_shards_max say how many can be open";
                return Err(Problem::new(Code::Busy, detail).hint(hint).into());
            }
            self.room.wait(ROOM_LOOK);
        }
    }

    /// Closes the shard that was not used for longest, of those that nobody uses and for which `may` holds, with the time of their last use.
    fn close_one(&self, may: impl Fn(u64, &Shard) -> bool) -> bool {
        let used = |(_, place): (ShardId, Arc<Place>)| (place.used_ms.load(Ordering::Relaxed), place);
        let mut places: Vec<(u64, Arc<Place>)> = self.places().into_iter().map(used).collect();
        places.sort_by_key(|(used, _)| *used);
        places.iter().any(|(used, place)| close_idle(place, |shard| may(*used, shard)))
    }

    /// Counts the files of open shards anew: they grow.
    pub fn count_files(&self) {
        for (_, place) in self.places() {
            let Some(mut open) = place.open.try_write() else { continue };
            if let Some(Open { shard, reserved }) = open.as_mut() {
                reserved.update(files_of(shard.store().tables(), &self.crew.options));
            }
        }
    }

    /// Closes shards that nobody has used for a while, beyond those few that stay open; so many at once that nobody waits for it. Where there is no
    /// room on the disk all stay as they are: opening takes some of it, and one that was opened without any takes nothing after another opening too.
    pub fn close_idle(&self) {
        let options = &self.crew.options;
        let before = self.began.elapsed().saturating_sub(options.shard_idle).as_millis();
        let room = self.crew.disk.has_room();
        for _ in 0..CLOSED_AT_ONCE_MAX {
            let closed = match self.room.is_exceeded() {
                true => self.close_one(|_, _| true),
                false => {
                    // Until it is to open again.
                    let only_answers = |shard: &Shard| shard.store().is_read_only() && shard.failure().is_none();
                    let may = |used, shard: &Shard| u128::from(used) <= before && !only_answers(shard);
                    room && self.room.shards() > options.idle_shards_max && self.close_one(may)
                }
            };
            if !closed {
                return;
            }
        }
    }

    /// What can be said of a shard that is not open, if anything can. Waits for a disk.
    pub fn summary(&self, id: ShardId) -> Option<Summary> {
        let place = self.place(id);
        // While it is opened or closed, that is waited for by who opens it.
        let open = place.open.try_read()?;
        let folder = self.folder(id);
        match open.as_ref() {
            Some(_) => None,
            // Nothing was ever sent to it.
            None if !folder.exists() => Some(Summary::default()),
            None => Summary::read(&folder.join(STORE_FOLDER)),
        }
    }

    /// The shards of which something is in the folder, open or not, of collections that the catalog has.
    pub fn stored(&self, catalog: &Catalog) -> Result<Vec<ShardId>, Error> {
        let mut found = Vec::new();
        for folder in folders(&self.crew.options.folder)? {
            if let Some(uid) = uid_of(&folder).filter(|uid| catalog.collection(*uid).is_some()) {
                let numbers = folders(&folder)?.into_iter().filter_map(|folder| folder.file_name()?.to_str()?.parse().ok());
                found.extend(numbers.map(|number| ShardId { collection: uid, number }));
            }
        }
        Ok(found)
    }

    /// The files of a shard's splits by their ids, whether it is open or not; some may be no splits of it any more, or not yet.
    pub fn split_files(&self, id: ShardId) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(self.folder(id).join(SPLITS_FOLDER));
        let files = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        files.filter_map(|file| Some((split_of(&file)?, file))).collect()
    }

    /// Finishes removals, and names what is in the folder and is no shard of the catalog.
    pub fn tidy(&self, catalog: &Catalog) -> Result<(), Error> {
        for folder in folders(&self.crew.options.folder)? {
            match uid_of(&folder) {
                Some(uid) if catalog.collection(uid).is_some() => {}
                Some(uid) if catalog.dropped.contains_key(&uid) => {}
                Some(uid) => warn!(%uid, folder = %folder.display(), "a collection that the catalog does not know; its data is left alone"),
                None if is_dropped(&folder) => remove(&folder),
                None => warn!(folder = %folder.display(), "not the folder of a collection; left alone"),
            }
        }
        Ok(())
    }

    /// Opens, one after another, those shards that did not close in order or have more to index than a question should: what the last process
    /// left undone goes on, and a store that is damaged is known. Ends early where the leaf closes.
    pub fn resume(&self, found: &[ShardId]) {
        for id in found {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let left = self.summary(*id).is_none_or(|summary| summary.tail > self.crew.options.scan_tail_documents_max as u64);
            if !left {
                continue;
            }
            if let Err(failure) = self.open_unused(*id) {
                error!(shard = %id, error = %failure, "a shard does not open; it is tried again when it is asked for");
            }
        }
    }

    /// Closes the shards of dropped collections at once, and removes their folders once they were dropped so long ago. A collection that the
    /// catalog does not know at all is left alone.
    pub fn remove_dropped(&self, catalog: &Catalog, now_ms: i64) {
        let kept_ms = i64::try_from(self.crew.options.dropped_kept.as_millis()).unwrap_or(i64::MAX);
        for (uid, dropped_ms) in &catalog.dropped {
            if self.removed.lock().contains(uid) {
                continue;
            }
            let there: Vec<ShardId> = self.places.lock().keys().filter(|id| id.collection == *uid).copied().collect();
            for id in there {
                let place = self.places.lock().remove(&id);
                if let Some(open) = place.and_then(|place| place.open.write().take()) {
                    open.shard.close();
                }
            }
            if dropped_ms.saturating_add(kept_ms) <= now_ms {
                self.remove(*uid);
            }
        }
    }

    fn remove(&self, uid: CollectionUid) {
        let folder = self.crew.options.folder.join(uid.to_string());
        let aside = self.crew.options.folder.join(format!("{DROPPED}{uid}"));
        if folder.exists() {
            if let Err(error) = std::fs::rename(&folder, &aside) {
                warn!(folder = %folder.display(), %error, "the data of a dropped collection could not be removed");
                return;
            }
            remove(&aside);
            info!(%uid, "the shards of a dropped collection are removed");
        }
        self.removed.lock().insert(uid);
    }

    /// No shard opens for good from here on.
    pub fn stop(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Closes all.
    pub fn close(&self) {
        self.stop();
        let places: Vec<Arc<Place>> = self.places.lock().drain().map(|(_, place)| place).collect();
        for Open { shard, .. } in places.iter().filter_map(|place| place.open.write().take()) {
            shard.close();
            let Err(shard) = shard.retire() else { continue };
            if let Err(failure) = shard.store().flush() {
                warn!(shard = %shard.id, error = %failure, "rows in memory could not be flushed; the log has them");
            }
        }
    }

    /// The folder of a shard.
    pub fn folder(&self, id: ShardId) -> PathBuf {
        self.crew.options.folder.join(id.collection.to_string()).join(id.number.to_string())
    }
}

fn working(place: &Place) -> Option<Arc<Shard>> {
    let shard = place.open.try_read()?.as_ref()?.shard.clone();
    shard.failure().is_none().then_some(shard)
}

/// Closes a shard that nobody uses, if it may be, and answers whether it did.
fn close_idle(place: &Place, may: impl Fn(&Shard) -> bool) -> bool {
    let Some(mut open) = place.open.try_write() else { return false };
    if !open.as_ref().is_some_and(|open| may(&open.shard) && open.shard.can_retire()) {
        return false;
    }
    let Some(Open { shard, reserved }) = open.take() else { return false };
    match shard.retire() {
        Ok(()) => true,
        Err(shard) => {
            *open = Some(Open { shard, reserved });
            false
        }
    }
}

/// A store that a query still holds cannot be opened a second time: soon it can.
fn while_held(error: Error) -> Error {
    match &error {
        Error::Storage { shard, source } if source.as_ref().contains("lock hold by current process") => {
            Problem::new(Code::Busy, format!("shard {shard} opens again when running queries let go of it")).hint("try again a little later").into()
        }
        _ => error,
    }
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let file_error = |source| Error::File { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(file_error)?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(paths.map_err(file_error)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn uid_of(folder: &Path) -> Option<CollectionUid> {
    uuid::Uuid::try_parse(folder.file_name()?.to_str()?).ok().map(CollectionUid)
}

fn is_dropped(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(DROPPED))
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        warn!(folder = %folder.display(), %error, "the data of a dropped collection could not be removed; it is tried at the next start");
    }
}
