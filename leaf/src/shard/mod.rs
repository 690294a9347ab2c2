//! Shard: one replica of a slice of a collection. Batches and pushes in, views out.
//!
//! ```text
//! write, push ─ queue ─ writer: judge, one RocksDB batch ─ state: tail ─ ack
//!                                          publisher: tail ─ micro-split     (in memory)
//!                                          splitter: micro-splits ─ split    (file, then manifest row, then the state)
//!                                          compactor: splits ─ bigger split  (the same)
//! pin ─ state: a view of one moment, in which everything acknowledged before is
//! ```
//!
//! Only the writer changes rows of documents, keys and positions; only a rebuild changes the manifest. The state in
//! memory changes under one lock, after what it says is stored.
//!
//! A shard is used through counted handles. It is closed for idleness by whoever has the last one (`retire.rs`), so
//! nothing of it is lost by that: no job waits, no build runs, no view is held.

pub mod apply;
pub mod budget;
pub mod dead_letters;
pub mod event;
pub mod judge;
pub mod publish;
pub mod rebuild;
pub mod recover;
mod retire;
pub mod state;
pub mod summary;
pub mod tail;
pub mod trie;
pub mod work;
pub mod writer;
pub mod writers;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use budget::Budget;
use metrics::counter;
use parking_lot::Mutex;
use proto::{
    Code, PositionVector, Problem, SourceName,
    ingest::{Batch, Push, Pushed, ShardId, Stored, Verdict},
};
use state::{Change, Moment, State};
use summary::Summary;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};
use work::{Task, Work};
use writer::{Job, QUEUE_JOBS_MAX, Writer};
use writers::Writers;

use crate::{
    disk::Disk,
    error::{Error, panic_text},
    options::LeafOptions,
    store::Store,
};

/// A push waits so long for room before it is told to come again.
const PUSH_WAIT: Duration = Duration::from_secs(10);
/// A shard that was opened without room on the disk stays so for so long at least, whatever the disk says.
const READ_ONLY_WAIT: Duration = Duration::from_secs(2);
/// The folder of a shard's rows, in that of the shard.
pub const STORE_FOLDER: &str = "rows";
/// The folder of a shard's splits, in that of the shard.
pub const SPLITS_FOLDER: &str = "splits";

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
    /// None once it is closed or failed; its queue ends with it.
    writer: Mutex<Option<Writer>>,
    /// Whether it stands in the line of the writers, or one of them is at it.
    in_line: AtomicBool,
    crew: Arc<Crew>,
    work: Arc<Work>,
    failed: OnceLock<String>,
    opened_at: Instant,
    building: Mutex<()>,
    graves: Mutex<Vec<rebuild::Grave>>,
    /// Serializes the removal of dead letters, so that no letter's bytes are subtracted twice.
    removing: Mutex<()>,
    /// Its micro-splits go to disk although there are few of them.
    hurries: AtomicBool,
}

/// What the shards of a leaf share.
pub struct Crew {
    /// Limits.
    pub options: Arc<LeafOptions>,
    /// The threads that write.
    pub writers: Arc<Writers>,
    /// The threads that build.
    pub work: Arc<Work>,
    /// Where the shards are.
    pub disk: Arc<Disk>,
    /// What all shards hold in memory.
    pub budget: Arc<Budget>,
    /// Files of rows that a shard has open at most.
    pub tables_open_max: usize,
}

impl Shard {
    /// Opens a shard's folder, or makes it.
    pub fn open(id: ShardId, folder: &Path, crew: Arc<Crew>) -> Result<Arc<Self>, Error> {
        let rows = folder.join(STORE_FOLDER);
        let store = Arc::new(open_store(id, &rows, &crew)?);
        // Before anything is written to it. One that takes nothing stays as its summary says.
        if !store.is_read_only() {
            Summary::remove(&rows).map_err(|source| Error::File {
                path: rows.clone(),
                source,
            })?;
        }
        let splits = folder.join(SPLITS_FOLDER);
        let mut state = recover::recover(&store, &splits)?;
        state.count_against(&crew.budget);
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let shard = Arc::new(Self {
            id,
            options: crew.options.clone(),
            store,
            splits,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            queue,
            writer: Mutex::new(Some(Writer::new(jobs))),
            in_line: AtomicBool::new(false),
            work: crew.work.clone(),
            crew,
            failed: OnceLock::new(),
            opened_at: Instant::now(),
            building: Mutex::new(()),
            graves: Mutex::new(Vec::new()),
            removing: Mutex::new(()),
            hurries: AtomicBool::new(false),
        });
        shard.schedule_all();
        Ok(shard)
    }

    /// Takes no more jobs, and writes those that wait; what was acknowledged is stored. Its handles are let go of by
    /// who has them.
    pub fn close(self: &Arc<Self>) {
        let Some(mut writer) = self.writer.lock().take() else {
            return;
        };
        // Whoever closes a shard goes on with others.
        let written = catch_unwind(AssertUnwindSafe(|| writer.write_rest(self)));
        match written {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                error!(shard = %self.id, error = %failure, "the store failed while it was closed");
                self.fail(failure.to_string());
            }
            Err(panic) => self.note_panic(&*panic),
        }
        self.sync();
        // Who waits for something of it waits in vain.
        self.wake();
    }

    /// Writes one group of jobs.
    fn write_group(self: &Arc<Self>) {
        let mut writer = self.writer.lock();
        let written = writer.as_mut().map_or(Ok(()), |writer| writer.write_group(self));
        if let Err(failure) = written {
            error!(shard = %self.id, error = %failure, "the store failed; the replica closes and opens again");
            self.fail(failure.to_string());
            *writer = None;
            self.sync();
        }
    }

    /// Its writer panicked where nobody caught it: what it holds in memory is not to be trusted.
    fn note_panic(&self, panic: &(dyn std::any::Any + Send)) {
        counter!("rachis_leaf_panics_total").increment(1);
        let panic = panic_text(panic);
        error!(shard = %self.id, panic, "the writer panicked; the replica closes and opens again");
        self.fail(format!("its writer panicked: {panic}"));
    }

    /// Lets go of the writer. What waits in the queue is answered with an error.
    fn stop_writing(&self) {
        *self.writer.lock() = None;
    }

    fn has_jobs(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(Writer::has_jobs)
    }

    fn sync(&self) {
        if let Err(failure) = self.store.sync() {
            warn!(shard = %self.id, error = %failure, "the log could not be synced at the end");
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

    /// Has what is in no split go to disk.
    pub fn split_now(self: &Arc<Self>) {
        self.hurries.store(true, Ordering::Relaxed);
        if self.state.lock().tail.documents() > 0 {
            self.work.schedule(Task::Publish, self, Instant::now());
        }
        self.work.schedule(Task::Split, self, Instant::now());
    }

    /// Has damaged splits built again, and answers whether there are any.
    pub fn mend(self: &Arc<Self>) -> bool {
        let damaged = self.look(|state| state.segments.iter().any(|indexed| indexed.segment.is_damaged()));
        if damaged {
            self.work.schedule(Task::Compact, self, Instant::now());
        }
        damaged
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
    pub async fn write(self: &Arc<Self>, batch: Batch) -> Result<Verdict, Problem> {
        let (to, answer) = oneshot::channel();
        match self.queue.try_send(Job::Write(batch, to)) {
            Ok(()) => {
                self.crew.writers.enqueue(self);
                answer.await.map_err(|_| self.closed())
            }
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Verdict::Busy {
                reason: format!("{QUEUE_JOBS_MAX} batches wait for the writer"),
            }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.closed()),
        }
    }

    /// Applies a push; waits for room.
    pub async fn push(self: &Arc<Self>, push: Push) -> Result<Pushed, Problem> {
        let deadline = tokio::time::Instant::now() + PUSH_WAIT;
        let (mut changed, mut freed) = (self.changed.subscribe(), self.crew.budget.freed());
        loop {
            changed.borrow_and_update();
            freed.borrow_and_update();
            let (to, answer) = oneshot::channel();
            let sent = tokio::time::timeout_at(deadline, self.queue.send(Job::Push(push.clone(), to))).await;
            match sent {
                Ok(Ok(())) => self.crew.writers.enqueue(self),
                Ok(Err(_)) => return Err(self.closed()),
                Err(_) => return Err(writer::busy(format!("{QUEUE_JOBS_MAX} pushes wait for the writer"))),
            }
            let answer = answer.await.map_err(|_| self.unknown())?;
            match answer {
                Err(problem) if problem.code == Code::Busy => {
                    let room = async {
                        tokio::select! { changed = changed.changed() => changed, freed = freed.changed() => freed }
                    };
                    if !matches!(tokio::time::timeout_at(deadline, room).await, Ok(Ok(()))) {
                        return Err(problem);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// What is stored of a partition.
    pub fn stored(&self, source: &SourceName, partition: i32) -> Stored {
        summary::stored(&self.state.lock().rows, source, partition)
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
            if tokio::time::timeout_at(deadline.into(), changed.changed())
                .await
                .is_err()
            {
                return Err(self.too_late(at_least));
            }
        }
    }

    /// A moment in which everything is that was acknowledged before the call, and everything through `at_least`.
    pub async fn moment(
        self: &Arc<Self>,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<Arc<Moment>, Problem> {
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
        let published = state
            .published()
            .filter(|moment| moment.sequence >= wanted && moment.view.positions.covers(at_least));
        if published.is_none() {
            let pause = state.built_at.map_or(Duration::ZERO, |at| {
                self.options.publish_pause.saturating_sub(at.elapsed())
            });
            drop(state);
            self.work.schedule(Task::Publish, self, Instant::now() + pause);
        }
        published
    }

    fn opens_again(&self, reason: &str) -> Problem {
        Problem::new(Code::Unavailable, format!("shard {} opens again: {reason}", self.id))
            .hint("try again a little later")
    }

    fn too_late(&self, at_least: &PositionVector) -> Problem {
        let positions = self.state.lock().positions();
        if positions.covers(at_least) {
            return Problem::new(
                Code::Timeout,
                format!("shard {} could not index what came in before the deadline", self.id),
            )
            .hint("allow more time");
        }
        Problem::new(
            Code::Timeout,
            format!("shard {} lacks {}", self.id, positions.lacking(at_least)),
        )
        .hint("the source may be behind or stopped: select * from rachis.sources; or allow more time")
    }

    /// Makes a stored change visible.
    fn apply(self: &Arc<Self>, change: Change) {
        let mut state = self.state.lock();
        let removes = !change.gone.is_empty();
        state.apply(change, now_ms());
        let publish = self.publish_at(&state);
        let hollow = removes
            && state
                .segments
                .iter()
                .any(|indexed| indexed.on_disk && indexed.is_hollow());
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
        if let Some(reason) = self.crew.disk.full() {
            return Some(reason);
        }
        if self.store.is_read_only() {
            return Some(format!(
                "there was no room on the disk when shard {} was opened, so it only answers until there is some",
                self.id
            ));
        }
        let state = self.state.lock();
        let options = &self.options;
        let (waiting, weight) = (state.tail.documents() + documents, state.tail.bytes() + bytes);
        let (_, in_memory) = state.in_memory();
        if waiting >= options.tail_documents_max || weight >= options.tail_bytes_max {
            return Some(format!("{waiting} documents ({weight} bytes) wait to be indexed"));
        }
        if in_memory >= options.memory_bytes_max {
            return Some(format!("{in_memory} bytes of documents wait for their split"));
        }
        let (own, budget) = (state.held_bytes(), &self.crew.budget);
        budget.is_full(own, bytes).then(|| {
            format!(
                "{} bytes of all shards of this node wait for their splits",
                budget.bytes()
            )
        })
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
        Problem::new(
            Code::UnknownOutcome,
            format!("shard {} closed before it answered", self.id),
        )
        .hint("send it again with the same Idempotency-Key")
    }
}

/// The rows of a shard; where there is no room on the disk, first without the ballast, then read-only.
fn open_store(id: ShardId, folder: &Path, crew: &Crew) -> Result<Store, Error> {
    let opened = match Store::open(id, folder, crew.tables_open_max) {
        Err(full) if full.is_no_room() && crew.disk.drop_ballast() => Store::open(id, folder, crew.tables_open_max),
        opened => opened,
    };
    match opened {
        Err(full) if full.is_no_room() => {
            tracing::error!(shard = %id, error = %full, "no room to open the shard: it is opened read-only, and again when there is room");
            Store::open_read_only(id, folder, crew.tables_open_max)
                .map_err(|failure| if failure.is_no_room() { failure } else { full })
        }
        opened => opened,
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
