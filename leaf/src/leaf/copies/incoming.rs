//! The side of a leaf that copies a replica from another one, or from a snapshot.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use proto::{
    Catalog, Code, Problem,
    cluster::NodeName,
    ingest::{CopyStatus, ShardId},
    replica::{CopiedFile, OfferedCopy, ReplicaPeers},
    snapshot::Sha256,
};
use snapshots::hash_file;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{super::Leaf, CopySource, Origin, next_read, placed_since, sources};
use crate::{
    error::Error,
    leaf::shards::{COPYING, PLACED_SINCE},
    shard::{SPLITS_FOLDER, STORE_FOLDER},
    store::{Adopted, Store},
    threads::blocking,
};

/// For how long a copied shard that does not serve yet keeps the place of the next one. It takes seconds to get what was
/// written meanwhile. One that takes longer may never get it.
const CATCHES_UP_WITHIN: Duration = Duration::from_mins(1);
/// How long a copy that has failed waits for its next attempt …
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// … and how often that is doubled if nothing was read.
const RETRY_DOUBLED_MAX: u32 = 4;
/// How often a complete copy is tried to be put in place: a reader of the shard's summary holds its lock for a moment …
const PLACED_TRIES: u32 = 20;
/// … and after which pause.
const PLACED_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The file in the folder of a copy that names the replica whose files are in it.
const COPY_OF: &str = "COPY-OF";

/// A shard that is copied from another leaf, or from a snapshot.
pub(super) struct Incoming {
    from: String,
    begun: Instant,
    bytes: u64,
    total: u64,
    read: u64,
    /// How many leaves were tried that gave nothing …
    pub(super) tried: usize,
    /// … and how many of them one after another.
    pub(super) failed: u32,
    /// Whether the last attempt failed because of this leaf, which still uses files of an earlier placement.
    is_in_use: bool,
    /// When the last attempt has failed.
    pub(super) ended: Option<Instant>,
    pub(super) error: Option<String>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Incoming {
    pub(super) fn status(&self, shard: ShardId) -> CopyStatus {
        CopyStatus {
            shard,
            from: Some(self.from.clone()),
            bytes: self.bytes,
            total: self.total,
            read: self.read,
            elapsed_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            error: self.error.clone(),
        }
    }

    /// Whether the next attempt waits, the longer the more of them have failed.
    fn is_paused(&self) -> bool {
        let pause = RETRY_AFTER * (1 << self.failed.min(RETRY_DOUBLED_MAX));
        self.ended.is_some_and(|ended| ended.elapsed() < pause)
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Leaf {
    /// Starts the copies of shards in the background, as many as may run at once. `waiting` are all shards that wait for
    /// one; copies of others are stopped.
    pub(in crate::leaf) fn copy_missing(
        &self,
        catalog: &Catalog,
        peers: Option<&Arc<dyn ReplicaPeers>>,
        waiting: &[ShardId],
    ) {
        metrics::gauge!("rachis_leaf_replicas_to_copy").set(waiting.len() as f64);
        *self.copies.waiting.lock() = waiting.to_vec();
        let mut incoming = self.copies.incoming.lock();
        // One that is not needed any more stays until its task has ended, so that no other one writes to its folder.
        incoming.retain(|shard, copy| {
            let is_needed = waiting.contains(shard);
            let is_running = copy.is_running();
            if !is_needed && is_running {
                copy.stop.cancel();
            } else if !is_needed {
                let (shards, shard) = (self.shards.clone(), *shard);
                tokio::task::spawn_blocking(move || shards.remove_copy(shard));
            }
            is_needed || is_running
        });
        let running = incoming.values().filter(|copy| copy.is_running()).count();
        let mut under_way = running + self.catching_up(catalog);
        for shard in waiting {
            if under_way >= self.options.copies_at_once.max(1) {
                break;
            }
            let known = incoming.get(shard);
            if known.is_some_and(|copy| copy.is_running() || copy.is_paused()) {
                continue;
            }
            // As long as a leaf gives something, the copy goes on with it.
            let gave_nothing = known.is_some_and(|copy| copy.read == 0 && !copy.is_in_use);
            let failed = known.filter(|_| gave_nothing).map_or(0, |copy| copy.failed + 1);
            let tried = known.map_or(0, |copy| copy.tried + usize::from(gave_nothing));
            let Some((from, since)) = self.source_of(catalog, peers, *shard, tried) else {
                continue;
            };
            let stop = CancellationToken::new();
            let entry_from = from.to_string();
            let copy = Copy {
                leaf: self.this.clone(),
                shard: *shard,
                from,
                since,
                stop: stop.clone(),
            };
            let entry = Incoming {
                from: entry_from,
                begun: Instant::now(),
                bytes: 0,
                total: 0,
                read: 0,
                tried,
                failed,
                is_in_use: false,
                ended: None,
                error: known.and_then(|copy| copy.error.clone()),
                task: tokio::spawn(copy.run()),
                stop,
            };
            incoming.insert(*shard, entry);
            under_way += 1;
        }
    }

    /// The copied shards that do not serve yet. Each takes a third replica's part of the ingest while it catches up, so the
    /// next one waits, and then has less to catch up with.
    pub(super) fn catching_up(&self, catalog: &Catalog) -> usize {
        let lags = |shard: &ShardId| {
            let node = self.options.node.as_ref();
            let (_, collection) = catalog.collection(shard.collection)?;
            collection.replica_state(shard.number, node?)?.not_asked_since()
        };
        let mut copied = self.copies.catching_up.lock();
        copied.retain(|shard, since| since.elapsed() < CATCHES_UP_WITHIN && lags(shard).is_some());
        copied.len()
    }

    /// Where a shard is copied from, and the catalog version since which it has been placed here.
    fn source_of(
        &self,
        catalog: &Catalog,
        peers: Option<&Arc<dyn ReplicaPeers>>,
        shard: ShardId,
        tried: usize,
    ) -> Option<(CopySource, u64)> {
        match self.copied_from(catalog, shard)? {
            Origin::Leaves(collection) => {
                let node = self.options.node.as_ref()?;
                let leaves: Vec<&NodeName> = sources(catalog, collection, shard.number, node).collect();
                let name = leaves.get((tried + shard.number as usize) % leaves.len().max(1))?;
                let source = CopySource::Leaf {
                    name: (*name).clone(),
                    peers: peers?.clone(),
                };
                Some((source, placed_since(collection, shard.number, node).unwrap_or(0)))
            }
            Origin::Snapshot(from) => {
                let since = from.since;
                let source = CopySource::Snapshot {
                    from,
                    store: self.options.snapshots.clone(),
                    damaged: self.copies.damaged.lock().clone(),
                    reading: Arc::default(),
                };
                Some((source, since))
            }
        }
    }

    /// Notes that a part of a file was read.
    pub(in crate::leaf) fn note_read(&self, bytes: u64) {
        metrics::counter!("rachis_leaf_copied_bytes_total").increment(bytes);
        let mut next = self.copies.next_read.lock();
        *next = Some(next_read(
            *next,
            bytes,
            self.options.copy_bytes_per_second,
            Instant::now(),
        ));
    }

    /// How long to wait before the next read, if at all.
    pub(in crate::leaf) fn pause_of_reads(&self) -> Option<Duration> {
        let next = *self.copies.next_read.lock();
        next?
            .checked_duration_since(Instant::now())
            .filter(|wait| !wait.is_zero())
    }

    /// Renames a complete copy to the folder of the shard, if the shard still waits for it. `was` is the shard in its files;
    /// `None` if there are none.
    fn put_in_place(&self, shard: ShardId, was: Option<ShardId>, copy: &Path, since: u64) -> Result<(), Error> {
        // From here on, the copy differs from the replica that it was made of.
        remove_file(&copy.join(COPY_OF))?;
        sync_folder(copy)?;
        let adopt = |was| {
            Store::adopt(
                Adopted { was, shard },
                &copy.join(STORE_FOLDER),
                self.services.tables_open_max,
            )
        };
        let adopted = was
            .map_or(Ok(()), adopt)
            .and_then(|()| write(&copy.join(PLACED_SINCE), since.to_string().as_bytes(), 0, true, None))
            .and_then(|()| sync_folder(copy));
        let waits = || self.awaits_copy(&self.catalog.borrow().clone(), shard);
        let place = || {
            for _ in 1..PLACED_TRIES {
                if self.shards.replace_folder(shard, Some(copy), waits)? {
                    return Ok(true);
                }
                std::thread::sleep(PLACED_AGAIN_AFTER);
            }
            self.shards.replace_folder(shard, Some(copy), waits)
        };
        match adopted.and_then(|()| place()) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.shards.remove_copy(shard);
                let detail = format!("shard {shard} was opened, or placed anew, while it was copied");
                Err(Problem::new(Code::Busy, detail).into())
            }
            Err(error) => {
                self.shards.remove_copy(shard);
                Err(error)
            }
        }
    }
}

/// One attempt to copy a shard.
struct Copy {
    leaf: Weak<Leaf>,
    shard: ShardId,
    from: CopySource,
    /// The catalog version since which the shard has been placed here.
    since: u64,
    /// Cancelled if the copy is not needed any more.
    stop: CancellationToken,
}

impl Copy {
    async fn run(self) {
        let began = Instant::now();
        let copied = self.copy().await;
        let Ok(leaf) = self.leaf() else { return };
        let (shard, from) = (self.shard, &self.from);
        match copied {
            Ok(bytes) => {
                let seconds = began.elapsed().as_secs_f64();
                info!(%shard, %from, bytes, seconds, "a shard was copied");
                leaf.copies.catching_up.lock().insert(shard, Instant::now());
            }
            Err(_) if self.stop.is_cancelled() => {
                let shards = leaf.shards.clone();
                let removed = blocking(move || {
                    shards.remove_copy(shard);
                    Ok(())
                });
                // What is left is removed at the next start.
                let _ = removed.await;
            }
            Err(problem) => {
                warn!(%shard, %from, %problem, "a shard could not be copied; this will be retried");
                if let Some(id) = from.damaged().await {
                    warn!(%shard, snapshot = %id, "a snapshot is damaged: the next older one is tried");
                    leaf.copies.damaged.lock().insert(id);
                }
                if let Some(copy) = leaf.copies.incoming.lock().get_mut(&shard) {
                    copy.error = Some(problem.to_string());
                    copy.is_in_use = problem.code == Code::InUse;
                    copy.ended = Some(Instant::now());
                }
            }
        }
    }

    /// The leaf, while the copy is needed.
    fn leaf(&self) -> Result<Arc<Leaf>, Problem> {
        let ended = || Problem::new(Code::Unavailable, "the leaf is shutting down");
        self.leaf.upgrade().ok_or_else(ended)
    }

    fn check_needed(&self) -> Result<(), Problem> {
        match self.stop.is_cancelled() {
            true => Err(Problem::new(Code::Unavailable, "the copy is not needed any more")),
            false => Ok(()),
        }
    }

    /// Copies the shard. Returns the bytes that were read.
    async fn copy(&self) -> Result<u64, Problem> {
        self.check_room(0).await?;
        self.close_earlier().await?;
        let Some(offer) = self.from.offer(self.shard).await? else {
            self.remove_earlier().await?;
            return self.begin_empty().await.map(|()| 0);
        };
        let read = match self.remove_earlier().await {
            Ok(()) => self.read(&offer).await,
            Err(problem) => Err(problem),
        };
        self.from.end(offer.id).await;
        read
    }

    /// Has the shard begin without documents: it is filled from the log.
    async fn begin_empty(&self) -> Result<(), Problem> {
        let (leaf, shard, since) = (self.leaf()?, self.shard, self.since);
        warn!(%shard, "no snapshot has a shard that no leaf has any more: it is filled from the log");
        let begin = blocking(move || {
            leaf.shards.remove_copy(shard);
            let folder = leaf.shards.folder(shard).with_extension(COPYING);
            std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
            leaf.put_in_place(shard, None, &folder, since)
        });
        begin.await
    }

    /// Closes the shard of an earlier placement: before another leaf makes a copy for nothing.
    async fn close_earlier(&self) -> Result<(), Problem> {
        self.unless_in_use(|leaf, shard, waits| Ok(leaf.shards.close_left(shard, waits)))
            .await
    }

    /// Removes files of an earlier placement.
    async fn remove_earlier(&self) -> Result<(), Problem> {
        self.unless_in_use(|leaf, shard, waits| leaf.shards.replace_folder(shard, None, waits))
            .await
    }

    /// Does something with files of an earlier placement, if the shard still waits for its copy.
    async fn unless_in_use(
        &self,
        work: impl FnOnce(&Leaf, ShardId, &dyn Fn() -> bool) -> Result<bool, Error> + Send + 'static,
    ) -> Result<(), Problem> {
        let (leaf, shard) = (self.leaf()?, self.shard);
        let done = blocking(move || {
            let waits = || leaf.awaits_copy(&leaf.catalog.borrow().clone(), shard);
            work(&leaf, shard, &waits)
        });
        match done.await? {
            true => Ok(()),
            false => {
                let detail = format!("files of shard {shard} of an earlier placement are still in use");
                Err(Problem::new(Code::InUse, detail).hint("it is copied once the queries that read them have ended"))
            }
        }
    }

    async fn read(&self, offer: &OfferedCopy) -> Result<u64, Problem> {
        if let Some(file) = offer.files.iter().find(|file| !is_plain(&file.name)) {
            let detail = format!("{} names a file {:?}", self.from, file.name);
            return Err(Problem::new(Code::Internal, detail));
        }
        let folder = self.leaf()?.shards.folder(self.shard).with_extension(COPYING);
        let (prepared, files, store) = (folder.clone(), offer.files.clone(), offer.store);
        let missing = blocking(move || prepare(&prepared, &files, store)).await?;
        let sum = |files: &[CopiedFile]| files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        let (total, mut left) = (sum(&offer.files), sum(&missing));
        let mut read = 0;
        self.note(total - left, total, read)?;
        for file in missing {
            let (path, mut from) = (folder.join(&file.name), 0);
            loop {
                self.check_needed()?;
                // Other copies of this leaf read meanwhile.
                while let Some(wait) = self.leaf()?.pause_of_reads() {
                    tokio::time::sleep(wait).await;
                }
                self.check_room(left).await?;
                let part = self.from.read(offer.id, &file, from).await?;
                let length = part.len() as u64;
                self.leaf()?.note_read(length);
                if from + length > file.bytes || length == 0 && from < file.bytes {
                    let detail = format!("{} has not as much of {} as it said", self.from, file.name);
                    return Err(Problem::new(Code::Internal, detail));
                }
                let (to, is_last) = (path.clone(), from + length == file.bytes);
                let hash = file.sha256;
                blocking(move || write(&to, &part, from, is_last, hash)).await?;
                (from, left, read) = (from + length, left - length, read + length);
                self.note(total - left, total, read)?;
                if is_last {
                    break;
                }
            }
        }
        self.check_needed()?;
        let (leaf, shard, since) = (self.leaf()?, self.shard, self.since);
        let was = Some(self.from.shard_there(shard));
        blocking(move || leaf.put_in_place(shard, was, &folder, since)).await?;
        Ok(read)
    }

    /// Fails if the disk would be full afterwards: then ingest would stop for all shards.
    async fn check_room(&self, bytes: u64) -> Result<(), Problem> {
        let (leaf, shard) = (self.leaf()?, self.shard);
        let check = blocking(move || match leaf.services.disk.has_room_for(bytes) {
            true => Ok(()),
            false => {
                leaf.shards.remove_copy(shard);
                let detail = format!("this leaf has no room for {bytes} more bytes of shard {shard}");
                let hint = "free space on its disk, or move other shards away";
                Err(Problem::new(Code::Unavailable, detail).hint(hint).into())
            }
        });
        check.await
    }

    fn note(&self, bytes: u64, total: u64, read: u64) -> Result<(), Problem> {
        if let Some(copy) = self.leaf()?.copies.incoming.lock().get_mut(&self.shard) {
            (copy.bytes, copy.total, copy.read) = (bytes, total, read);
            if read > 0 {
                copy.error = None;
            }
        }
        Ok(())
    }
}

/// Whether a name is that of a file in one of the folders of a shard.
fn is_plain(name: &str) -> bool {
    let is_name = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        !name.starts_with('.') && !name.is_empty() && name.bytes().all(is_plain)
    };
    name.split_once('/')
        .is_some_and(|(folder, file)| [STORE_FOLDER, SPLITS_FOLDER].contains(&folder) && is_name(file))
}

/// Whether a file of a replica never changes once it is written.
pub(in crate::leaf) fn never_changes(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".split")
}

/// Makes a folder ready for a copy: removes what it does not need. Returns the files that are missing.
fn prepare(folder: &Path, files: &[CopiedFile], store: Uuid) -> Result<Vec<CopiedFile>, Error> {
    let copy_of = folder.join(COPY_OF);
    let is_of_store = std::fs::read_to_string(&copy_of).is_ok_and(|text| text == store.to_string());
    if !is_of_store && folder.exists() {
        std::fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    for part in [STORE_FOLDER, SPLITS_FOLDER] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path).map_err(Error::file(&path))?;
        for entry in std::fs::read_dir(&path).map_err(Error::file(&path))? {
            let file = entry.map_err(Error::file(&path))?;
            let name = format!("{part}/{}", file.file_name().to_string_lossy());
            let bytes = file.metadata().map_err(Error::file(&path))?.len();
            let is_offered = |offered: &CopiedFile| offered.name == name && offered.bytes == bytes;
            if !never_changes(&name) || !files.iter().any(is_offered) {
                std::fs::remove_file(file.path()).map_err(Error::file(&file.path()))?;
            }
        }
    }
    std::fs::write(&copy_of, store.to_string()).map_err(Error::file(&copy_of))?;
    let is_missing = |file: &&CopiedFile| !folder.join(&file.name).exists();
    Ok(files.iter().filter(is_missing).cloned().collect())
}

/// Writes a part of a file. The file gets its name with the last part, once it is on disk and has its hash, if one is known.
fn write(path: &Path, part: &[u8], from: u64, is_last: bool, hash: Option<Sha256>) -> Result<(), Error> {
    let unfinished = path.with_added_extension("part");
    let written = || {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&unfinished)?;
        file.write_all_at(part, from)?;
        if is_last {
            file.sync_all()?;
            if let Some(hash) = hash.filter(|hash| !hash_file(&unfinished).is_ok_and(|found| found == *hash)) {
                std::fs::remove_file(&unfinished)?;
                return Err(std::io::Error::other(format!(
                    "what was copied has not the hash {hash}"
                )));
            }
            std::fs::rename(&unfinished, path)?;
        }
        Ok(())
    };
    written().map_err(Error::file(path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::file(folder))
}
