//! Folders of shards: which shards have data on disk, and the removal of those whose collection was dropped, or that were
//! moved to another leaf.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{Catalog, CollectionUid, catalog::ReplicaState, ingest::ShardId};
use tracing::{info, warn};
use uuid::Uuid;

use super::{ShardSlot, Shards, idle::close_if_idle};
use crate::{error::Error, leaf::copies::OFFERED, shard::SPLITS_FOLDER, store::manifest::split_of};

const DROPPED: &str = "dropped-";
const MOVED: &str = "moved-";
/// The file in the folder of a shard with the catalog version since which the shard has been placed here.
pub(in crate::leaf) const PLACED_SINCE: &str = "PLACED-SINCE";
/// The extension of the folder of a shard while it is copied from another leaf.
pub(in crate::leaf) const COPYING: &str = "copying";

impl Shards {
    pub(crate) fn folder(&self, id: ShardId) -> PathBuf {
        self.services
            .options
            .folder
            .join(id.collection.to_string())
            .join(id.number.to_string())
    }

    /// The shards that have a folder, open or not, of collections in the catalog.
    pub(crate) fn stored(&self, catalog: &Catalog) -> Result<Vec<ShardId>, Error> {
        let mut found = Vec::new();
        for folder in folders(&self.services.options.folder)? {
            if let Some(uid) = uid_of(&folder).filter(|uid| catalog.collection(*uid).is_some()) {
                let numbers = folders(&folder)?
                    .into_iter()
                    .filter_map(|folder| folder.file_name()?.to_str()?.parse().ok());
                found.extend(numbers.map(|number| ShardId {
                    collection: uid,
                    number,
                }));
            }
        }
        Ok(found)
    }

    /// Ids and files of a shard's splits, whether it is open or not. Some may no longer, or not yet, belong to the
    /// shard.
    pub(crate) fn split_files(&self, id: ShardId) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(self.folder(id).join(SPLITS_FOLDER));
        let files = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        files.filter_map(|file| Some((split_of(&file)?, file))).collect()
    }

    /// The catalog version of the placement that the folder of a shard belongs to; 0 for the first one, `None` without a
    /// folder. If that cannot be read now, it is as late as can be: nothing is copied, or removed, because of it.
    pub(crate) fn placed_since(&self, id: ShardId) -> Option<u64> {
        let mut known = self.placed_since.lock();
        if let Some(known) = known.get(&id) {
            return *known;
        }
        let folder = self.folder(id);
        let text = std::fs::read_to_string(folder.join(PLACED_SINCE));
        let since = match text.map(|text| text.trim().parse()) {
            Ok(Ok(since)) => Some(since),
            Err(error) if error.kind() == ErrorKind::NotFound => match folder.try_exists() {
                Ok(exists) => exists.then_some(0),
                Err(_) => return Some(u64::MAX),
            },
            Err(error) if error.kind() != ErrorKind::InvalidData => {
                warn!(shard = %id, %error, "cannot read since when a shard is placed here");
                return Some(u64::MAX);
            }
            _ => {
                warn!(shard = %id, file = PLACED_SINCE, "a file in the folder of a shard is damaged: the shard stays here");
                Some(u64::MAX)
            }
        };
        known.insert(id, since);
        since
    }

    /// Replaces the folder of a shard by another one, or removes it. `is_right` is asked before the shard is closed, and again
    /// while its lifecycle is locked, so no request can open it meanwhile. Returns false if it says no, or if the shard is in
    /// use. Blocks on the disk.
    pub(crate) fn replace_folder(
        &self,
        id: ShardId,
        by: Option<&Path>,
        is_right: impl Fn() -> bool,
    ) -> Result<bool, Error> {
        let slot = self.slot(id);
        if !self.close_left(id, &is_right) {
            return Ok(false);
        }
        let Some(lifecycle) = slot.lifecycle.try_write() else {
            return Ok(false);
        };
        // A request may have opened it again meanwhile.
        if slot.shard().is_some() || !is_right() {
            return Ok(false);
        }
        let folder = self.folder(id);
        if by.is_none() && !folder.exists() {
            return Ok(true);
        }
        let aside = self.aside();
        let renamed = match std::fs::rename(&folder, &aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => by.map_or(Ok(()), |by| std::fs::rename(by, &folder)),
        };
        let synced = renamed.and_then(|()| folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()));
        self.placed_since.lock().remove(&id);
        synced.map_err(Error::file(&folder))?;
        drop(lifecycle);
        remove_folder(&aside);
        Ok(true)
    }

    /// Closes a shard whose files are no longer needed, if it is open. Its builds end. `is_right` is asked about the shard that
    /// is open. Returns false if it says no, or if the shard is in use.
    pub(crate) fn close_left(&self, id: ShardId, is_right: impl Fn() -> bool) -> bool {
        let slot = self.slots.lock().get(&id).cloned();
        let Some(slot) = slot else { return true };
        let Some(shard) = slot.shard() else { return true };
        if !is_right() {
            return false;
        }
        shard.end_builds();
        drop(shard);
        close_if_idle(&slot, |_| true)
    }

    /// Removes a copy that is not complete.
    pub(crate) fn remove_copy(&self, id: ShardId) {
        let (copy, aside) = (self.folder(id).with_extension(COPYING), self.aside());
        // At once, so that the next copy has a folder of its own.
        if std::fs::rename(&copy, &aside).is_ok() {
            remove_folder(&aside);
        }
    }

    /// A folder for something that is to be removed. What is left there is removed at the next start.
    fn aside(&self) -> PathBuf {
        let name = format!("{MOVED}{}", Uuid::now_v7().simple());
        self.services.options.folder.join(name)
    }

    /// Whether the replica of a shard is behind, or is restored, that was being copied to this folder: then the copy goes on.
    fn is_copied(&self, catalog: &Catalog, uid: CollectionUid, copy: &Path) -> bool {
        let number = copy.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
        let (Some(number), Some((_, collection))) = (number, catalog.collection(uid)) else {
            return false;
        };
        let node = self.services.options.node.as_ref();
        let state = node.and_then(|node| collection.replica_state(number, node));
        matches!(state, Some(ReplicaState::Behind { .. })) || collection.awaits_snapshot(number)
    }

    /// Finishes interrupted removals, and logs folders that belong to no collection of the catalog.
    pub(crate) fn finish_removals(&self, catalog: &Catalog) -> Result<(), Error> {
        for folder in folders(&self.services.options.folder)? {
            match uid_of(&folder) {
                Some(uid) if catalog.collection(uid).is_some() => {
                    let copies = folders(&folder)?
                        .into_iter()
                        .filter(|of| of.extension() == Some(COPYING.as_ref()));
                    copies
                        .filter(|copy| !self.is_copied(catalog, uid, copy))
                        .for_each(|copy| remove_folder(&copy));
                }
                Some(uid) if catalog.dropped.contains_key(&uid) => {}
                Some(uid) => {
                    warn!(%uid, folder = %folder.display(), "ignoring a collection that is not in the catalog");
                }
                None if is_left_over(&folder) => remove_folder(&folder),
                None => warn!(folder = %folder.display(), "ignoring a folder that does not belong to a collection"),
            }
        }
        Ok(())
    }

    /// Closes the shards of dropped collections at once, and removes their folders after `dropped_kept`. Collections
    /// that the catalog does not know at all are left alone.
    pub(crate) fn remove_dropped(&self, catalog: &Catalog, now_ms: i64) {
        let kept_ms = i64::try_from(self.services.options.dropped_kept.as_millis()).unwrap_or(i64::MAX);
        for (uid, dropped_ms) in &catalog.dropped {
            if self.removed.lock().contains(uid) {
                continue;
            }
            let of_collection: Vec<(ShardId, Arc<ShardSlot>)> = self
                .slots()
                .into_iter()
                .filter(|(id, _)| id.collection == *uid)
                .collect();
            let mut all_closed = true;
            for (id, slot) in of_collection {
                // A shard that is being opened right now is closed by the next call.
                let Some(_lifecycle) = slot.lifecycle.try_write() else {
                    all_closed = false;
                    continue;
                };
                self.slots.lock().remove(&id);
                let open = slot.open.write().take();
                if let Some(open) = open {
                    open.shard.close();
                }
            }
            if all_closed && dropped_ms.saturating_add(kept_ms) <= now_ms {
                self.remove_folder(*uid);
            }
        }
    }

    fn remove_folder(&self, uid: CollectionUid) {
        let folder = self.services.options.folder.join(uid.to_string());
        let aside = self.services.options.folder.join(format!("{DROPPED}{uid}"));
        if folder.exists() {
            if let Err(error) = std::fs::rename(&folder, &aside) {
                warn!(folder = %folder.display(), %error, "could not remove the data of a dropped collection");
                return;
            }
            remove_folder(&aside);
            info!(%uid, "removed the shards of a dropped collection");
        }
        self.removed.lock().insert(uid);
    }
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let file_error = Error::file(folder);
    let entries = std::fs::read_dir(folder).map_err(file_error)?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(paths
        .map_err(file_error)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect())
}

fn uid_of(folder: &Path) -> Option<CollectionUid> {
    Uuid::try_parse(folder.file_name()?.to_str()?).ok().map(CollectionUid)
}

/// Whether a folder was put aside to be removed, or is a copy that an earlier process offered.
fn is_left_over(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| [DROPPED, MOVED, OFFERED].iter().any(|begin| name.starts_with(begin)))
}

fn remove_folder(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            warn!(folder = %folder.display(), %error, "could not remove a folder; the next start will retry");
        }
        _ => {}
    }
}
