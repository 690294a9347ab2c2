//! The shards of a leaf: opened when they are first needed, opened again after a failure, removed a day after their collection was dropped.
//!
//! Folder: `<collection uid>/<shard number>/`. A dropped one is first renamed, so that a removal which is cut short goes on at the next start.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use proto::{Catalog, Code, CollectionUid, Problem, ingest::ShardId};
use tracing::{error, info, warn};

use crate::{
    disk::Disk,
    error::Error,
    options::LeafOptions,
    shard::{Shard, work::Work},
};

const DROPPED: &str = "dropped-";
/// Shards that are open at once.
const OPEN_SHARDS_MAX: usize = 1_000;
/// Shards that are opened beside one another at the start.
const OPENERS: usize = 4;

type Slot = Arc<Mutex<Option<Arc<Shard>>>>;

/// The shards of a leaf.
#[derive(Clone)]
pub struct Shards {
    options: Arc<LeafOptions>,
    work: Arc<Work>,
    disk: Arc<Disk>,
    slots: Arc<Mutex<HashMap<ShardId, Slot>>>,
    /// Dropped collections of which nothing is left here.
    removed: Arc<Mutex<HashSet<CollectionUid>>>,
}

impl Shards {
    /// None yet.
    pub fn new(options: Arc<LeafOptions>, work: Arc<Work>, disk: Arc<Disk>) -> Self {
        Self { options, work, disk, slots: Arc::default(), removed: Arc::default() }
    }

    /// The shard, if it is open and works.
    pub fn ready(&self, id: ShardId) -> Option<Arc<Shard>> {
        let slot = self.slots.lock().get(&id).cloned()?;
        let shard = slot.try_lock()?.clone()?;
        shard.failure().is_none().then_some(shard)
    }

    /// All that are open.
    pub fn all(&self) -> Vec<Arc<Shard>> {
        let slots: Vec<Slot> = self.slots.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.try_lock()?.clone()).collect()
    }

    /// The shard, opened where need be. Waits for a disk.
    pub fn open(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        let slot = {
            let mut slots = self.slots.lock();
            if slots.len() >= OPEN_SHARDS_MAX && !slots.contains_key(&id) {
                let detail = format!("{OPEN_SHARDS_MAX} shards are open on this node");
                return Err(Problem::new(Code::LimitReached, detail).hint("use fewer shards a collection, or more nodes").into());
            }
            slots.entry(id).or_default().clone()
        };
        let mut open = slot.lock();
        if let Some(shard) = open.as_ref().filter(|shard| shard.failure().is_none()) {
            return Ok(shard.clone());
        }
        if let Some(failed) = open.take() {
            failed.close();
        }
        let shard = match self.make(id) {
            Err(Error::Storage { .. } | Error::File { .. }) if self.disk.drop_ballast() => self.make(id),
            made => made,
        };
        let shard = shard.map_err(while_held)?;
        *open = Some(shard.clone());
        Ok(shard)
    }

    fn make(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        Shard::open(id, &self.folder(id), self.options.clone(), self.work.clone(), self.disk.clone())
    }

    /// Opens what is in the folder and in the catalog, several at once, and finishes removals.
    pub fn open_existing(&self, catalog: &Catalog) -> Result<(), Error> {
        let mut found = Vec::new();
        for folder in folders(&self.options.folder)? {
            match uid_of(&folder) {
                Some(uid) if catalog.collection(uid).is_some() => {
                    let numbers = folders(&folder)?.into_iter().filter_map(|folder| folder.file_name()?.to_str()?.parse().ok());
                    found.extend(numbers.map(|number| ShardId { collection: uid, number }));
                }
                Some(uid) if catalog.dropped.contains_key(&uid) => {}
                Some(uid) => warn!(%uid, folder = %folder.display(), "a collection that the catalog does not know; its data is left alone"),
                None if is_dropped(&folder) => remove(&folder),
                None => warn!(folder = %folder.display(), "not the folder of a collection; left alone"),
            }
        }
        let next = Mutex::new(found.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..OPENERS {
                scope.spawn(|| {
                    loop {
                        let Some(id) = next.lock().next() else { return };
                        if let Err(failure) = self.open(id) {
                            error!(shard = %id, error = %failure, "a shard does not open; it is tried again when it is asked for");
                        }
                    }
                });
            }
        });
        Ok(())
    }

    /// Closes the shards of dropped collections at once, and removes their folders once they were dropped so long ago. A collection that the
    /// catalog does not know at all is left alone.
    pub fn remove_dropped(&self, catalog: &Catalog, now_ms: i64) {
        let kept_ms = i64::try_from(self.options.dropped_kept.as_millis()).unwrap_or(i64::MAX);
        for (uid, dropped_ms) in &catalog.dropped {
            if self.removed.lock().contains(uid) {
                continue;
            }
            let open: Vec<ShardId> = self.slots.lock().keys().filter(|id| id.collection == *uid).copied().collect();
            for id in open {
                let slot = self.slots.lock().remove(&id);
                if let Some(shard) = slot.and_then(|slot| slot.lock().take()) {
                    shard.close();
                }
            }
            if dropped_ms.saturating_add(kept_ms) <= now_ms {
                self.remove(*uid);
            }
        }
    }

    fn remove(&self, uid: CollectionUid) {
        let folder = self.options.folder.join(uid.to_string());
        let aside = self.options.folder.join(format!("{DROPPED}{uid}"));
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

    /// Closes all.
    pub fn close(&self) {
        let slots: Vec<Slot> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        for shard in slots.iter().filter_map(|slot| slot.lock().take()) {
            shard.close();
            if let Err(failure) = shard.store().flush() {
                warn!(shard = %shard.id, error = %failure, "rows in memory could not be flushed; the log has them");
            }
        }
    }

    fn folder(&self, id: ShardId) -> PathBuf {
        self.options.folder.join(id.collection.to_string()).join(id.number.to_string())
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
