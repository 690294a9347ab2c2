//! Shard: one replica of a slice of a collection. Batches and pushes in, views out.
//!
//! ```text
//! write, push ─ queue ─ writer thread: judge, one RocksDB batch ─ state: tail ─ ack
//!                                          publisher: tail ─ micro-split     (in memory)
//!                                          splitter: micro-splits ─ split    (file, then manifest row, then the state)
//!                                          compactor: splits ─ bigger split  (the same)
//! pin ─ state: a view of one moment, in which everything acknowledged before is
//! ```
//!
//! Only the writer changes rows of documents, keys and positions; only a rebuild changes the manifest. The state in memory changes under one
//! lock, after what it says is stored.

pub mod apply;
pub mod dead_letters;
pub mod event;
pub mod judge;
pub mod publish;
pub mod rebuild;
pub mod recover;
pub mod state;
pub mod tail;
pub mod trie;
pub mod work;
pub mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use proto::{
    Code, PositionVector, Problem, SourceName,
    ingest::{Batch, Push, Pushed, ShardId, Stored, Verdict},
};
use state::{Change, Moment, State};
use tokio::sync::{mpsc, oneshot, watch};
use work::{Task, Work};
use writer::{Job, QUEUE_JOBS_MAX, Writer};

use crate::{
    disk::Disk,
    error::Error,
    options::LeafOptions,
    store::{Partition, Store},
};

/// A push waits so long for room before it is told to come again.
const PUSH_WAIT: Duration = Duration::from_secs(10);
/// A shard that was opened without room on the disk stays so for so long at least, whatever the disk says.
const READ_ONLY_WAIT: Duration = Duration::from_secs(2);
const STORE_FOLDER: &str = "rows";
const SPLITS_FOLDER: &str = "splits";

/// One replica of a shard.
pub struct Shard {
    /// Which.
    pub id: ShardId,
    options: Arc<LeafOptions>,
    store: Arc<Store>,
    splits: PathBuf,
    state: Mutex<State>,
    /// Counts changes of the state, for those who wait for one.
    changed: watch::Sender<u64>,
    queue: mpsc::Sender<Job>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    work: Arc<Work>,
    disk: Arc<Disk>,
    failed: OnceLock<String>,
    opened_at: Instant,
    building: Mutex<()>,
    graves: Mutex<Vec<rebuild::Grave>>,
    /// Serializes the removal of dead letters, so that no letter's bytes are subtracted twice.
    removing: Mutex<()>,
    /// Its micro-splits go to disk although there are few of them.
    hurries: AtomicBool,
}

impl Shard {
    /// Opens a shard's folder, or makes it.
    pub fn open(id: ShardId, folder: &Path, options: Arc<LeafOptions>, work: Arc<Work>, disk: Arc<Disk>) -> Result<Arc<Self>, Error> {
        let store = Arc::new(open_store(id, &folder.join(STORE_FOLDER), &disk)?);
        let splits = folder.join(SPLITS_FOLDER);
        let state = recover::recover(&store, &splits)?;
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let shard = Arc::new(Self {
            id,
            options,
            store,
            splits,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            queue,
            writer: Mutex::new(None),
            work,
            disk,
            failed: OnceLock::new(),
            opened_at: Instant::now(),
            building: Mutex::new(()),
            graves: Mutex::new(Vec::new()),
            removing: Mutex::new(()),
            hurries: AtomicBool::new(false),
        });
        let writer = Writer::new(shard.clone(), jobs);
        let thread = std::thread::Builder::new().name(format!("write-{}", id.number)).spawn(move || writer.run());
        *shard.writer.lock() = Some(thread.map_err(|source| Error::File { path: folder.to_owned(), source })?);
        shard.schedule_all();
        Ok(shard)
    }

    /// Stops the writer and lets go of it. What waits in the queue is answered with an error; what was acknowledged is stored.
    pub fn close(&self) {
        let thread = self.writer.lock().take();
        if let Some(thread) = thread {
            while let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(Job::Stop) {
                std::thread::yield_now();
            }
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the writer does not panic");
        }
    }

    /// Why the replica must be opened again, if it must.
    pub fn failure(&self) -> Option<&str> {
        let ended = || self.queue.is_closed().then_some("its writer has ended");
        self.failed.get().map(String::as_str).or_else(ended)
    }

    fn fail(&self, reason: String) {
        let _first_reason_stays = self.failed.set(reason);
        self.wake();
    }

    /// Something is not as it was: who waits looks again.
    pub fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Has its micro-splits go to disk.
    pub fn split_now(self: &Arc<Self>) {
        self.hurries.store(true, Ordering::Relaxed);
        self.work.schedule(Task::Split, self, Instant::now());
    }

    /// Has damaged splits built again, if there are any.
    pub fn mend(self: &Arc<Self>) {
        if self.look(|state| state.segments.iter().any(|indexed| indexed.segment.is_damaged())) {
            self.work.schedule(Task::Compact, self, Instant::now());
        }
    }

    /// There is room on the disk: a shard that was opened without any opens again.
    pub fn open_for_writing(&self) {
        if self.store.is_read_only() && self.opened_at.elapsed() >= READ_ONLY_WAIT && self.failure().is_none() {
            self.fail("there is room on the disk again".into());
        }
    }

    /// Its rows.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Reads the state of this moment.
    pub fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// Judges a batch.
    pub async fn write(&self, batch: Batch) -> Result<Verdict, Problem> {
        let (to, answer) = oneshot::channel();
        match self.queue.try_send(Job::Write(batch, to)) {
            Ok(()) => answer.await.map_err(|_| self.closed()),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Verdict::Busy { reason: format!("{QUEUE_JOBS_MAX} batches wait for the writer") }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.closed()),
        }
    }

    /// Applies a push; waits for room.
    pub async fn push(&self, push: Push) -> Result<Pushed, Problem> {
        let deadline = tokio::time::Instant::now() + PUSH_WAIT;
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let (to, answer) = oneshot::channel();
            let sent = tokio::time::timeout_at(deadline, self.queue.send(Job::Push(push.clone(), to))).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.closed()),
                Err(_) => return Err(writer::busy(format!("{QUEUE_JOBS_MAX} pushes wait for the writer"))),
            }
            let answer = answer.await.map_err(|_| self.unknown())?;
            match answer {
                Err(problem) if problem.code == Code::Busy => {
                    let waited = tokio::time::timeout_at(deadline, changed.changed()).await;
                    if !matches!(waited, Ok(Ok(()))) {
                        return Err(problem);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// What is stored of a partition.
    pub fn stored(&self, source: &SourceName, partition: i32) -> Stored {
        let row = self.state.lock().rows.get(&Partition { source: source.clone(), number: partition }).cloned().unwrap_or_default();
        Stored { topic: row.topic, offset: row.offset, hash: row.hash, dead: row.dead }
    }

    /// Waits until everything through these positions was taken in: every question that begins then sees it.
    pub async fn covered(&self, at_least: &PositionVector, deadline: Instant) -> Result<(), Problem> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(reason) = self.failure() {
                return Err(self.opens_again(reason));
            }
            if self.state.lock().positions().covers(at_least) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline.into(), changed.changed()).await.is_err() {
                return Err(self.too_late(at_least));
            }
        }
    }

    /// A moment in which everything is that was acknowledged before the call, and everything through `at_least`.
    pub async fn moment(self: &Arc<Self>, at_least: &PositionVector, deadline: Instant) -> Result<Arc<Moment>, Problem> {
        let mut changed = self.changed.subscribe();
        let wanted = self.state.lock().sequence;
        loop {
            changed.borrow_and_update();
            if let Some(reason) = self.failure() {
                return Err(self.opens_again(reason));
            }
            if let Some(moment) = self.ready(wanted, at_least) {
                return Ok(moment);
            }
            let waited = tokio::time::timeout_at(deadline.into(), changed.changed()).await;
            if waited.is_err() {
                return Err(self.too_late(at_least));
            }
        }
    }

    /// The moment, if it is there without a build; else a build is asked for.
    fn ready(self: &Arc<Self>, wanted: u64, at_least: &PositionVector) -> Option<Arc<Moment>> {
        let mut state = self.state.lock();
        if !state.positions().covers(at_least) {
            return None;
        }
        if state.tail.documents() <= self.options.scan_tail_documents_max || state.unindexable {
            return Some(state.moment());
        }
        let published = state.published().filter(|moment| moment.sequence >= wanted && moment.view.positions.covers(at_least));
        if published.is_none() {
            let pause = state.built_at.map_or(Duration::ZERO, |at| self.options.publish_pause.saturating_sub(at.elapsed()));
            drop(state);
            self.work.schedule(Task::Publish, self, Instant::now() + pause);
        }
        published
    }

    fn opens_again(&self, reason: &str) -> Problem {
        Problem::new(Code::Unavailable, format!("shard {} opens again: {reason}", self.id)).hint("try again a little later")
    }

    fn too_late(&self, at_least: &PositionVector) -> Problem {
        let positions = self.state.lock().positions();
        if positions.covers(at_least) {
            return Problem::new(Code::Timeout, format!("shard {} could not index what came in before the deadline", self.id))
                .hint("allow more time");
        }
        Problem::new(Code::Timeout, format!("shard {} lacks {}", self.id, positions.lacking(at_least)))
            .hint("the source may be behind or stopped: select * from rachis.sources; or allow more time")
    }

    /// Makes a stored change visible.
    fn apply(self: &Arc<Self>, change: Change) {
        let mut state = self.state.lock();
        let removes = !change.gone.is_empty();
        state.apply(change, now_ms());
        let publish = self.publish_at(&state);
        let hollow = removes && state.segments.iter().any(|indexed| indexed.on_disk && indexed.is_hollow());
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        if let Some(at) = publish {
            self.work.schedule(Task::Publish, self, at);
        }
        if hollow {
            self.work.schedule(Task::Compact, self, Instant::now());
        }
    }

    /// When the tail is published unasked.
    fn publish_at(&self, state: &State) -> Option<Instant> {
        let options = &self.options;
        let full = state.tail.documents() >= options.publish_documents || state.tail.bytes() >= options.publish_bytes;
        match state.waiting_since {
            _ if full => Some(Instant::now()),
            Some(since) => Some(since + options.publish_after),
            None => None,
        }
    }

    /// Why nothing more can be taken now, on top of so many documents and bytes.
    fn full(&self, (documents, bytes): (usize, usize)) -> Option<String> {
        if let Some(reason) = self.disk.full() {
            return Some(reason);
        }
        if self.store.is_read_only() {
            return Some(format!("there was no room on the disk when shard {} was opened, so it only answers until there is some", self.id));
        }
        let state = self.state.lock();
        let options = &self.options;
        let (waiting, weight) = (state.tail.documents() + documents, state.tail.bytes() + bytes);
        let (_, in_memory) = state.in_memory();
        if waiting >= options.tail_documents_max || weight >= options.tail_bytes_max {
            return Some(format!("{waiting} documents ({weight} bytes) wait to be indexed"));
        }
        (in_memory >= options.memory_bytes_max).then(|| format!("{in_memory} bytes of documents wait for their split"))
    }

    fn schedule_all(self: &Arc<Self>) {
        let now = Instant::now();
        let publish = self.publish_at(&self.state.lock());
        if let Some(at) = publish {
            self.work.schedule(Task::Publish, self, at);
        }
        self.work.schedule(Task::Split, self, now);
        self.work.schedule(Task::Compact, self, now);
    }

    fn closed(&self) -> Problem {
        Problem::new(Code::Unavailable, format!("shard {} is closed", self.id)).hint("try again a little later")
    }

    fn unknown(&self) -> Problem {
        Problem::new(Code::UnknownOutcome, format!("shard {} closed before it answered", self.id)).hint("send it again with the same Idempotency-Key")
    }
}

/// The rows of a shard; where there is no room on the disk, first without the ballast, then read-only.
fn open_store(id: ShardId, folder: &Path, disk: &Disk) -> Result<Store, Error> {
    let opened = match Store::open(id, folder) {
        Err(full) if full.is_no_room() && disk.drop_ballast() => Store::open(id, folder),
        opened => opened,
    };
    match opened {
        Err(full) if full.is_no_room() => {
            tracing::error!(shard = %id, error = %full, "no room to open the shard: it is opened read-only, and again when there is room");
            Store::open_read_only(id, folder).map_err(|failure| if failure.is_no_room() { failure } else { full })
        }
        opened => opened,
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
