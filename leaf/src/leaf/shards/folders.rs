//! Folders of shards: which shards have data on disk, and the removal of those whose collection was dropped.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{Catalog, CollectionUid, ingest::ShardId};
use tracing::{info, warn};

use super::{ShardSlot, Shards};
use crate::{error::Error, shard::SPLITS_FOLDER, store::manifest::split_of};

const DROPPED: &str = "dropped-";

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

    /// Finishes interrupted removals, and logs folders that belong to no collection of the catalog.
    pub(crate) fn finish_removals(&self, catalog: &Catalog) -> Result<(), Error> {
        for folder in folders(&self.services.options.folder)? {
            match uid_of(&folder) {
                Some(uid) if catalog.collection(uid).is_some() => {}
                Some(uid) if catalog.dropped.contains_key(&uid) => {}
                Some(uid) => {
                    warn!(%uid, folder = %folder.display(), "ignoring a collection that is not in the catalog");
                }
                None if is_dropped(&folder) => remove_folder(&folder),
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
    let file_error = |source| Error::File {
        path: folder.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(folder).map_err(file_error)?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(paths
        .map_err(file_error)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect())
}

fn uid_of(folder: &Path) -> Option<CollectionUid> {
    uuid::Uuid::try_parse(folder.file_name()?.to_str()?)
        .ok()
        .map(CollectionUid)
}

fn is_dropped(folder: &Path) -> bool {
    folder
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(DROPPED))
}

fn remove_folder(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        warn!(folder = %folder.display(), %error, "could not remove a dropped collection; the next start will retry");
    }
}
