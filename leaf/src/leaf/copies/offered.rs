//! The side of a leaf that is copied from.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proto::{
    Code, Problem,
    ingest::ShardId,
    replica::{COPY_READ_BYTES, CopiedFile, OfferedCopy},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    super::{Leaf, shards::Shards},
    OFFERED,
};
use crate::{
    error::Error,
    shard::{SPLITS_FOLDER, STORE_FOLDER, Shard},
    threads::blocking,
};

/// How long an offered copy is kept without a read. Its links hold files on the disk that the shard has since replaced.
const KEPT: Duration = Duration::from_mins(2);
/// Copies that a leaf offers at once.
const OFFERED_MAX: usize = 4;

/// A copy that this leaf offers.
pub(super) struct Offered {
    folder: PathBuf,
    files: BTreeMap<String, u64>,
    used: Instant,
}

impl Leaf {
    /// Links the files of the replica of a shard, for another leaf to read. They are removed by [`Leaf::end_copy`], or two
    /// minutes after the last read.
    pub(crate) async fn offer_copy(&self, shard: ShardId) -> Result<OfferedCopy, Problem> {
        self.check_serves(shard)?;
        let id = Uuid::now_v7();
        let folder = self.options.folder.join(format!("{OFFERED}{}", id.simple()));
        // Registered first: then the folder is removed even if the caller goes away meanwhile.
        self.reserve_copy(id, folder.clone())?;
        let shard = self
            .shard(shard)
            .await
            .inspect_err(|_| drop(self.copies.offered.lock().remove(&id)))?;
        let shards = self.shards.clone();
        let linked = folder.clone();
        let made = blocking(move || {
            let files = copy_to(&shards, &shard, &folder)?;
            Ok((Uuid::from_u128(shard.store().incarnation()), files))
        });
        let (store, files) = match made.await {
            Ok(made) => made,
            Err(problem) => {
                self.remove_offered(id, linked).await;
                return Err(problem);
            }
        };
        let listed = files.iter().map(|(name, bytes)| CopiedFile {
            name: name.clone(),
            bytes: *bytes,
            sha256: None,
        });
        let offer = OfferedCopy {
            id,
            store,
            files: listed.collect(),
        };
        let is_kept = match self.copies.offered.lock().get_mut(&id) {
            Some(offered) => {
                (offered.files, offered.used) = (files, Instant::now());
                true
            }
            None => false,
        };
        if is_kept {
            return Ok(offer);
        }
        self.remove_offered(id, linked).await;
        let detail = "the files of the shard were not linked in time";
        Err(Problem::new(Code::Timeout, detail))
    }

    async fn remove_offered(&self, id: Uuid, folder: PathBuf) {
        self.copies.offered.lock().remove(&id);
        // What is left is removed at the next start.
        let _ = tokio::task::spawn_blocking(move || remove(&folder)).await;
    }

    fn reserve_copy(&self, id: Uuid, folder: PathBuf) -> Result<(), Problem> {
        let mut offered = self.copies.offered.lock();
        if offered.len() >= OFFERED_MAX {
            let detail = format!("this leaf offers {OFFERED_MAX} copies already");
            return Err(Problem::new(Code::Busy, detail).hint("retry once one of them has ended"));
        }
        let (files, used) = (BTreeMap::new(), Instant::now());
        offered.insert(id, Offered { folder, files, used });
        Ok(())
    }

    /// A part of a file of a copy.
    pub(crate) async fn read_copy(&self, copy: Uuid, file: String, from: u64) -> Result<Bytes, Problem> {
        let ended = || {
            let detail = format!("the copy {} has ended, or has no file {file:?}", copy.simple());
            Problem::new(Code::NotFound, detail).hint("begin another one")
        };
        let (path, bytes) = {
            let mut offered = self.copies.offered.lock();
            let offered = offered.get_mut(&copy).ok_or_else(ended)?;
            offered.used = Instant::now();
            let bytes = *offered.files.get(&file).ok_or_else(ended)?;
            (offered.folder.join(&file), bytes)
        };
        blocking(move || {
            let length = bytes.saturating_sub(from).min(COPY_READ_BYTES as u64);
            let mut part = vec![0; length as usize];
            let read = File::open(&path).and_then(|opened| opened.read_exact_at(&mut part, from));
            read.map_err(Error::file(&path))?;
            Ok(part.into())
        })
        .await
    }

    /// Removes an offered copy.
    pub(crate) async fn end_copy(&self, copy: Uuid) -> Result<(), Problem> {
        let ended = self.copies.offered.lock().remove(&copy);
        blocking(move || {
            ended.into_iter().for_each(|offered| remove(&offered.folder));
            Ok(())
        })
        .await
    }

    /// Removes copies that no leaf has read for two minutes.
    pub(super) fn expire_copies(&self) {
        let expired: Vec<Offered> = {
            let mut offered = self.copies.offered.lock();
            let expired = offered.extract_if(|_, offered| offered.used.elapsed() >= KEPT);
            expired.map(|(_, offered)| offered).collect()
        };
        for Offered { folder, .. } in expired {
            info!(folder = %folder.display(), "removed a copy that no leaf has read for two minutes");
            remove(&folder);
        }
    }
}

pub(in crate::leaf) fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(folder = %folder.display(), %error, "could not remove a copy; the next start will retry");
    }
}

/// Links the files of a shard into a folder. Returns them with their sizes. The rows are those of one moment; a split that
/// is replaced meanwhile may be missing, and is then built again from the rows.
pub(in crate::leaf) fn copy_to(shards: &Shards, shard: &Shard, folder: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let splits = folder.join(SPLITS_FOLDER);
    std::fs::create_dir_all(&splits).map_err(Error::file(&splits))?;
    // Before and after the rows are copied: splits that these name may be removed soon, or have just been written.
    link_splits(shards, shard.id, &splits)?;
    shard.store().copy_to(&folder.join(STORE_FOLDER))?;
    link_splits(shards, shard.id, &splits)?;
    let mut files = BTreeMap::new();
    for part in [STORE_FOLDER, SPLITS_FOLDER] {
        let path = folder.join(part);
        for entry in std::fs::read_dir(&path).map_err(Error::file(&path))? {
            let entry = entry.map_err(Error::file(&path))?;
            let bytes = entry.metadata().map_err(Error::file(&path))?.len();
            files.insert(format!("{part}/{}", entry.file_name().to_string_lossy()), bytes);
        }
    }
    Ok(files)
}

fn link_splits(shards: &Shards, shard: ShardId, to: &Path) -> Result<(), Error> {
    for (_, file) in shards.split_files(shard) {
        let Some(name) = file.file_name() else { continue };
        match std::fs::hard_link(&file, to.join(name)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound
                ) =>
            {
                return Err(Error::file(to)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
