//! The shards of a leaf: opened when they are first needed, closed when nobody has used them for a while, opened again
//! after a failure, removed a day after their collection was dropped.
//!
//! Folder: `<collection uid>/<shard number>/`. A dropped one is first renamed, so that a removal which is cut short
//! goes on at the next start.
//!
//! What holds, whatever comes between:
//!
//! - Each shard has one place, with a lock called its turn. Opening and closing hold the turn from start to end, so a
//!   shard is never open twice. Requests to an open shard take no turn and do not wait.
//! - The closing thread takes the shard out of its place first. From then on requests get no handle of it. Builds still
//!   can; `shard/retire.rs` detects that and keeps the shard open.
//! - Whoever opens a shard has one turn, and only tries to get those of others: two never wait for each other. Nobody
//!   keeps a turn while waiting for room. Those who wait for one shard stand at its place, and one of them opens it:
//!   the few threads that open are left to other shards.
//! - A failed shard stays in its place until its store has no users; then the store is opened again. Views do not count
//!   as users: a query that reads on in an old view fails with a hint to ask again.
//! - What an open shard may take of the process's files is set aside before it opens (`room.rs`), and given back after
//!   it is closed.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
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
/// … and the first of those who wait looks so often whether another shard can be closed by now.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// A shard that is open, with what it was given to be open.
struct Open {
    shard: Arc<Shard>,
    reserved: Reserved,
}

/// Where a shard is, if it is open.
#[derive(Default)]
struct Place {
    /// Those who want it opened stand here.
    queue: Arc<tokio::sync::Mutex<()>>,
    /// Write-locked while the shard is opened or closed; read-locked while its summary is read.
    turn: RwLock<()>,
    /// Locked for a moment only.
    open: RwLock<Option<Open>>,
    /// When it was asked for last, in milliseconds of the leaf; 0 if nobody ever did.
    used_ms: AtomicU64,
}

impl Place {
    /// The shard, if it is open.
    fn shard(&self) -> Option<Arc<Shard>> {
        self.open.read().as_ref().map(|open| open.shard.clone())
    }

    /// The shard, if it is open and works.
    fn working(&self) -> Option<Arc<Shard>> {
        self.shard().filter(|shard| shard.failure().is_none())
    }
}

/// The shards of a leaf.
pub struct Shards {
    crew: Arc<Crew>,
    began: Instant,
    places: Mutex<HashMap<ShardId, Arc<Place>>>,
    room: Arc<Room>,
    openers: Arc<Semaphore>,
    /// Those who wait for room stand in line, of whom the first looks for it; and each of them has one of these.
    line: Arc<tokio::sync::Mutex<()>>,
    waiting: Arc<()>,
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
            line: Arc::default(),
            waiting: Arc::default(),
            readers: Arc::new(Semaphore::new(OPENERS)),
            removed: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The shard, if it is open and works.
    pub fn ready(&self, id: ShardId) -> Option<Arc<Shard>> {
        let place = self.places.lock().get(&id).cloned()?;
        let shard = place.working()?;
        self.note_use(&place);
        Some(shard)
    }

    /// The same, for who is curious: it is no use of the shard.
    pub fn peek(&self, id: ShardId) -> Option<Arc<Shard>> {
        let place = self.places.lock().get(&id).cloned()?;
        place.working()
    }

    fn note_use(&self, place: &Place) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        place.used_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// Waits until a summary may be read.
    pub async fn turn_to_read(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().acquire_owned().await.ok()
    }

    /// All that are open. Without a hold on them, so that they can be closed meanwhile.
    pub fn all(&self) -> Vec<Weak<Shard>> {
        self.places()
            .into_iter()
            .filter_map(|(_, place)| Some(Arc::downgrade(&place.shard()?)))
            .collect()
    }

    fn places(&self) -> Vec<(ShardId, Arc<Place>)> {
        self.places
            .lock()
            .iter()
            .map(|(id, place)| (*id, place.clone()))
            .collect()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.room.shards()
    }

    /// The shard, opened where need be. Where all open ones are in use and there is no room for another, it waits a few
    /// seconds for room.
    pub async fn open(self: &Arc<Self>, id: ShardId) -> Result<Arc<Shard>, Problem> {
        let place = self.place(id);
        let mut at_place = place.queue.clone().lock_owned().await;
        let (mut waits, mut first_in_line) = (None, None);
        let mut until = None;
        loop {
            // Who waits for room already has it before who comes now.
            if waits.is_some() || Arc::strong_count(&self.waiting) > 1 {
                waits.get_or_insert_with(|| self.waiting.clone());
                let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + ROOM_WAIT);
                if first_in_line.is_none() {
                    first_in_line = tokio::time::timeout_at(until, self.line.clone().lock_owned())
                        .await
                        .ok();
                }
                if first_in_line.is_none() || tokio::time::Instant::now() >= until {
                    return Err(self.no_room(id));
                }
            }
            // Few are opened at once, and so few threads wait for a disk, however many are asked for.
            let turn = self.openers.clone().acquire_owned().await.ok();
            let (shards, place) = (self.clone(), place.clone());
            let opened = super::blocking(move || {
                let _until_it_is_open = turn;
                let Some(reserved) = shards.room_at(id, &place) else {
                    return Ok(Err((at_place, first_in_line, waits)));
                };
                // From here on it waits for no room, however long it opens.
                drop((first_in_line, waits));
                shards.note_use(&place);
                let opened = shards.open_at(id, &place, reserved);
                drop(at_place);
                opened.map(Ok)
            });
            (at_place, first_in_line, waits) = match opened.await? {
                Ok(shard) => return Ok(shard),
                Err(waits_on) => waits_on,
            };
            if waits.replace(self.waiting.clone()).is_some() {
                tokio::time::sleep(ROOM_LOOK).await;
            }
        }
    }

    /// The same for background work. It does not count as a use, so the shard is among the first to be closed again.
    /// Blocks on disk reads.
    pub fn open_unused(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        let (place, until) = (self.place(id), Instant::now() + ROOM_WAIT);
        loop {
            if let Some(reserved) = self.room_at(id, &place) {
                return self.open_at(id, &place, reserved);
            }
            if Instant::now() >= until || self.closed.load(Ordering::SeqCst) {
                return Err(self.no_room(id).into());
            }
            self.room.wait(ROOM_LOOK);
        }
    }

    fn no_room(&self, id: ShardId) -> Problem {
        let detail = format!(
            "shard {id} has no room to open: {} are open, and all of them are in use",
            self.room.shards()
        );
        Problem::new(Code::Busy, detail)
            .hint("try again a little later, ask of fewer shards at once, or allow more open files (ulimit -n)")
    }

    fn place(&self, id: ShardId) -> Arc<Place> {
        let place = || Arc::<Place>::default();
        self.places.lock().entry(id).or_insert_with(place).clone()
    }

    /// Reserves room to open a shard, closing idle shards if necessary. `None`: there is no room. `Some(None)`: the
    /// shard has its room already.
    fn room_at(&self, id: ShardId, place: &Place) -> Option<Option<Reserved>> {
        match place.shard() {
            Some(_) => Some(None),
            None => self.make_room(id).map(Some),
        }
    }

    fn open_at(&self, id: ShardId, place: &Place, reserved: Option<Reserved>) -> Result<Arc<Shard>, Error> {
        let _turn = place.turn.write();
        if let Some(shard) = place.working() {
            return Ok(shard);
        }
        let again = || {
            let detail = format!("shard {id} opens again when what is under way in it has ended");
            Error::from(Problem::new(Code::Busy, detail).hint("try again a little later"))
        };
        let failed = place.open.write().take();
        let reserved = match failed {
            None => reserved,
            Some(Open {
                shard: failed,
                reserved,
            }) => {
                failed.close();
                match failed.let_go() {
                    Ok(()) => Some(reserved),
                    Err(shard) => {
                        *place.open.write() = Some(Open { shard, reserved });
                        return Err(again());
                    }
                }
            }
        };
        // It was closed while its turn was waited for.
        let reserved = reserved.ok_or_else(again)?;
        let shard = match self.make(id) {
            Err(full) if full.is_no_room() && self.crew.disk.drop_ballast() => self.make(id),
            made => made,
        }?;
        if self.closed.load(Ordering::SeqCst) {
            shard.close();
            return Err(Problem::new(Code::Unavailable, "the leaf is closing").into());
        }
        *place.open.write() = Some(Open {
            shard: shard.clone(),
            reserved,
        });
        Ok(shard)
    }

    fn make(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        Shard::open(id, &self.folder(id), self.crew.clone())
    }

    /// Sets aside what the shard takes to be open; closes others for it, those first that were not used for longest.
    /// Where all of them are in use the files alone decide: a question may need more shards at once than stay open
    /// otherwise.
    fn make_room(&self, id: ShardId) -> Option<Reserved> {
        let files = files_of(tables_in(&self.folder(id).join(STORE_FOLDER)), &self.crew.options);
        while !self.room.has(files) && self.close_one(|_, _| true) {}
        self.room.reserve(files)
    }

    /// Closes the shard that was not used for longest, of those that nobody uses and for which `may` holds, with the
    /// time of their last use. Where the disk has no space, those stay that still could write: opening takes some of
    /// it, and rows in memory may find none.
    fn close_one(&self, may: impl Fn(u64, &Shard) -> bool) -> bool {
        let space = self.crew.disk.has_space();
        let used = |(_, place): (ShardId, Arc<Place>)| (place.used_ms.load(Ordering::Relaxed), place);
        let mut places: Vec<(u64, Arc<Place>)> = self.places().into_iter().map(used).collect();
        places.sort_by_key(|(used, _)| *used);
        places.iter().any(|(used, place)| {
            close_idle(place, |shard| {
                (space || shard.store().is_read_only()) && may(*used, shard)
            })
        })
    }

    /// Counts the files of open shards anew: they grow.
    pub fn count_files(&self) {
        for (_, place) in self.places() {
            let Some(shard) = place.shard() else { continue };
            let files = files_of(shard.store().tables(), &self.crew.options);
            if let Some(open) = place
                .open
                .write()
                .as_mut()
                .filter(|open| Arc::ptr_eq(&open.shard, &shard))
            {
                open.reserved.update(files);
            }
        }
    }

    /// Closes idle shards until only `idle_shards_max` of them are open. Also closes each read-only shard that could be
    /// opened for writing: it would hold memory until somebody asks for it. Closes at most [`CLOSED_AT_ONCE_MAX`]
    /// shards a call, so that requests do not wait for it.
    pub fn close_idle(&self) {
        let options = &self.crew.options;
        let before = self.began.elapsed().saturating_sub(options.shard_idle).as_millis();
        for _ in 0..CLOSED_AT_ONCE_MAX {
            let opens_again = |_, shard: &Shard| shard.store().is_read_only() && shard.failure().is_some();
            let reopens = self.crew.disk.has_room() && self.close_one(opens_again);
            let closed = match self.room.is_exceeded() {
                _ if reopens => true,
                true => self.close_one(|_, _| true),
                // One that was opened without room on the disk only answers until it opens again, and would take
                // nothing after another opening too.
                false if self.crew.disk.has_space() && self.room.shards() > options.idle_shards_max => {
                    let only_answers = |shard: &Shard| shard.store().is_read_only() && shard.failure().is_none();
                    self.close_one(|used, shard| u128::from(used) <= before && !only_answers(shard))
                }
                false => false,
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
        let _turn = place.turn.try_read()?;
        let folder = self.folder(id);
        match place.shard() {
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

    /// The files of a shard's splits by their ids, whether it is open or not; some may be no splits of it any more, or
    /// not yet.
    pub fn split_files(&self, id: ShardId) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(self.folder(id).join(SPLITS_FOLDER));
        let files = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        files.filter_map(|file| Some((split_of(&file)?, file))).collect()
    }

    /// Finishes removals, and names what is in the folder and is no shard of the catalog.
    pub fn tidy(&self, catalog: &Catalog) -> Result<(), Error> {
        for folder in folders(&self.crew.options.folder)? {
            match uid_of(&folder) {
                Some(uid) if catalog.collection(uid).is_some() => {}
                Some(uid) if catalog.dropped.contains_key(&uid) => {}
                Some(uid) => {
                    warn!(%uid, folder = %folder.display(), "a collection that the catalog does not know; its data is left alone")
                }
                None if is_dropped(&folder) => remove(&folder),
                None => warn!(folder = %folder.display(), "not the folder of a collection; left alone"),
            }
        }
        Ok(())
    }

    /// Opens, one after another, those shards that did not close in order or have more to index than a question should:
    /// what the last process left undone goes on, and a store that is damaged is known. Ends early where the leaf
    /// closes.
    pub fn resume(&self, found: &[ShardId]) {
        for id in found {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let left = self
                .summary(*id)
                .is_none_or(|summary| summary.tail > self.crew.options.scan_tail_documents_max as u64);
            if !left {
                continue;
            }
            if let Err(failure) = self.open_unused(*id) {
                error!(shard = %id, error = %failure, "a shard does not open; it is tried again when it is asked for");
            }
        }
    }

    /// Closes the shards of dropped collections at once, and removes their folders once they were dropped so long ago.
    /// A collection that the catalog does not know at all is left alone.
    pub fn remove_dropped(&self, catalog: &Catalog, now_ms: i64) {
        let kept_ms = i64::try_from(self.crew.options.dropped_kept.as_millis()).unwrap_or(i64::MAX);
        for (uid, dropped_ms) in &catalog.dropped {
            if self.removed.lock().contains(uid) {
                continue;
            }
            let there: Vec<(ShardId, Arc<Place>)> = self
                .places()
                .into_iter()
                .filter(|(id, _)| id.collection == *uid)
                .collect();
            let mut all_closed = true;
            for (id, place) in there {
                // One that is opened at this moment is closed the next time.
                let Some(_turn) = place.turn.try_write() else {
                    all_closed = false;
                    continue;
                };
                self.places.lock().remove(&id);
                let open = place.open.write().take();
                if let Some(open) = open {
                    open.shard.close();
                }
            }
            if all_closed && dropped_ms.saturating_add(kept_ms) <= now_ms {
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
        for place in places {
            let _turn = place.turn.write();
            let open = place.open.write().take();
            let Some(Open { shard, .. }) = open else { continue };
            shard.close();
            let Err(shard) = shard.retire() else { continue };
            if let Err(failure) = shard.store().flush() {
                warn!(shard = %shard.id, error = %failure, "rows in memory could not be flushed; the log has them");
            }
        }
    }

    /// The folder of a shard.
    pub fn folder(&self, id: ShardId) -> PathBuf {
        self.crew
            .options
            .folder
            .join(id.collection.to_string())
            .join(id.number.to_string())
    }
}

/// Closes a shard that nobody uses, if it may be, and answers whether it did.
fn close_idle(place: &Place, may: impl Fn(&Shard) -> bool) -> bool {
    let Some(_turn) = place.turn.try_write() else {
        return false;
    };
    let Some(shard) = place.shard() else { return false };
    if !may(&shard) || !shard.can_retire() {
        return false;
    }
    let taken = {
        let mut open = place.open.write();
        drop(shard);
        // Somebody may have asked for it meanwhile.
        if open.as_ref().is_none_or(|open| Arc::strong_count(&open.shard) > 1) {
            return false;
        }
        open.take()
    };
    let Some(Open { shard, reserved }) = taken else {
        return false;
    };
    match shard.retire() {
        Ok(()) => true,
        Err(shard) => {
            *place.open.write() = Some(Open { shard, reserved });
            false
        }
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

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        warn!(folder = %folder.display(), %error, "the data of a dropped collection could not be removed; it is tried at the next start");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::{StreamExt as _, stream};
    use plan::scan::Scan as _;
    use proto::{
        PositionVector,
        catalog::{Collection, CollectionSettings},
        ingest::{Push, Pushes as _},
    };

    use super::*;
    use crate::support::{Fixture, everything, query, small};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shard_that_takes_long_to_open_holds_up_no_other() {
        let fixture = Fixture::start(small);
        let other = ShardId {
            collection: CollectionUid(uuid::Uuid::now_v7()),
            number: 0,
        };
        fixture.catalog.send_modify(|catalog| {
            let settings = CollectionSettings {
                shards: 1,
                ..CollectionSettings::default()
            };
            Arc::make_mut(catalog).collections.insert(
                "other".parse().expect("a name"),
                Collection::new(other.collection, 1, settings),
            );
        });
        let place = fixture.leaf.shards.place(fixture.shard);
        let ((begins, begun), (ends, ended)) =
            (std::sync::mpsc::sync_channel(1), std::sync::mpsc::sync_channel::<()>(1));
        let opens = std::thread::spawn(move || {
            let _turn = place.turn.write();
            begins.send(()).expect("it is waited for");
            let _ends = ended.recv();
        });
        begun.recv().expect("it has its turn");
        let waiting = Arc::new(AtomicUsize::new(0));
        let many = stream::iter(0..4 * OPENERS).map(|_| {
            let (leaf, push, waiting) = (fixture.leaf.clone(), fixture.pushing(&["1"]), waiting.clone());
            tokio::spawn(async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                leaf.push(push, soon()).await
            })
        });
        let many: Vec<_> = many.collect().await;
        while waiting.load(Ordering::SeqCst) < many.len() {
            tokio::task::yield_now().await;
        }
        fixture
            .leaf
            .push(
                Push {
                    shard: other,
                    ..fixture.pushing(&["1"])
                },
                soon(),
            )
            .await
            .expect("another shard opens and takes");
        assert!(!many.iter().any(tokio::task::JoinHandle::is_finished));
        drop(ends);
        opens.join().expect("it ends");
        for one in many {
            one.await.expect("it ends").expect("it is open by now");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shard_that_failed_opens_again_though_views_of_it_are_held_and_its_store_is_never_open_twice() {
        let fixture = Fixture::start(small);
        fixture.push(&["1"]).await;
        let (held, other) = (query(), query());
        fixture
            .leaf
            .pin(held, fixture.shard, &PositionVector::default(), soon())
            .await
            .expect("a view");
        let view = fixture.leaf.pinned(held, fixture.shard).expect("it is pinned");
        assert_eq!(everything(&view).len(), 1);
        // What has no writer any more has failed. While somebody is at work in its store, that is left alone.
        let at_work = fixture.leaf.shard(fixture.shard).await.expect("the shard");
        at_work.close();
        let files = || {
            std::fs::read_dir(fixture.leaf.shards.folder(fixture.shard).join(STORE_FOLDER))
                .expect("a folder")
                .count()
        };
        let before = files();
        for _ in 0..3 {
            let refused = fixture
                .try_push(fixture.pushing(&["1"]))
                .await
                .expect_err("somebody is at work in it");
            assert_eq!(refused.code, Code::Busy, "{refused}");
        }
        assert_eq!(files(), before, "nothing was written beside it");
        drop(at_work);
        fixture
            .try_push(fixture.pushing(&["1"]))
            .await
            .expect("it is open again");
        let addresses = ["push/0@0".parse().expect("an address")];
        let told = view
            .store
            .read(&addresses)
            .map(|_| ())
            .expect_err("its store is closed");
        assert_eq!(Problem::from(told).code, Code::Unavailable);
        fixture.leaf.unpin(held);
        let pinned = fixture
            .leaf
            .pin(other, fixture.shard, &PositionVector::default(), soon())
            .await
            .expect("a view");
        assert_eq!(pinned.documents, 2);
    }
}
