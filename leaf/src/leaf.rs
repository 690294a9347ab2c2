//! Leaf: all shards of this node; the doors `Ingest` (for those who send events) and `Scan` (for those who ask).
//!
//! Whatever touches a disk runs off the runtime's own threads: writes on the writers, builds on the workers, reads
//! through `blocking`. How many threads there are does not depend on how many shards there are.

mod ask;
mod memory;
mod room;
mod scrub;
mod shards;
mod take;
mod tend;

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use metrics::gauge;
use parking_lot::{Condvar, Mutex};
use plan::scan::QueryId;
use proto::{Catalog, Code, Problem, catalog::Collection, cluster::NodeName, ingest::ShardId};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    disk::Disk,
    error::Error,
    options::LeafOptions,
    scan::ScanPool,
    shard::{Crew, budget::Budget, rebuild, state::Moment, summary::Summary, work::Work, writers::Writers},
};
use shards::Shards;

/// The leaf drops a query's views this long after the deadline, unless a scan of the query is still being read.
const PIN_GRACE: Duration = Duration::from_secs(10);

/// Who wants a shard and names no deadline waits so long for it to be opened.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Views that are held for a query.
struct Pins {
    until: Instant,
    /// Also held by each scan of the query, for as long as somebody may read on in it.
    scanned: Arc<()>,
    moments: HashMap<ShardId, Arc<Moment>>,
}

/// Whether the leaf is closed, and who waits for it.
type Closed = (Mutex<bool>, Condvar);
/// What runs beside the leaf until it is closed.
type Keeper = fn(&Weak<Leaf>, &Closed);

/// Who knows how a shard is.
enum ShardInfo {
    Open(Arc<crate::shard::Shard>),
    Closed(Summary),
}

/// All shards of this node.
pub struct Leaf {
    options: Arc<LeafOptions>,
    /// Another one after each start.
    boot: u64,
    catalog: watch::Receiver<Arc<Catalog>>,
    shards: Arc<Shards>,
    crew: Arc<Crew>,
    scans: ScanPool,
    pins: Mutex<HashMap<QueryId, Pins>>,
    /// The keeper, the tender, and who goes on with what the last process left undone.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    closed: Arc<Closed>,
    closing: AtomicBool,
}

impl Leaf {
    /// Opens the folder. Shards are opened when they are asked for, and in the background where the last process left
    /// something undone. A shard that does not open is logged, and tried again when it is asked for.
    pub fn open(options: LeafOptions, catalog: watch::Receiver<Arc<Catalog>>) -> Result<Arc<Self>, Error> {
        let options = Arc::new(options);
        let file_error = |source| Error::File {
            path: options.folder.clone(),
            source,
        };
        std::fs::create_dir_all(&options.folder).map_err(file_error)?;
        let crew = Arc::new(Crew {
            options: options.clone(),
            writers: Writers::start().map_err(file_error)?,
            work: Work::start(options.index_threads).map_err(file_error)?,
            disk: Arc::new(Disk::new(&options.folder, options.disk_used_percent_max)),
            budget: Budget::new(options.unsplit_bytes_max),
            tables_open_max: room::tables_open_max(&options),
        });
        let leaf = Arc::new(Self {
            boot: uuid::Uuid::now_v7().as_u64_pair().1,
            shards: Arc::new(Shards::new(crew.clone())),
            crew,
            catalog,
            scans: ScanPool::new(options.scan_threads).map_err(file_error)?,
            pins: Mutex::default(),
            threads: Mutex::default(),
            closed: Arc::default(),
            closing: AtomicBool::new(false),
            options,
        });
        let known = leaf.catalog.borrow().clone();
        leaf.shards.tidy(&known)?;
        let found = leaf.shards.stored(&known)?;
        let shards = leaf.shards.clone();
        leaf.spawn("resume", move || shards.resume(&found))?;
        for (name, run) in [("keep", keep as Keeper), ("tend", tend::tend)] {
            let (kept, closed) = (Arc::downgrade(&leaf), leaf.closed.clone());
            leaf.spawn(name, move || run(&kept, &closed))?;
        }
        Ok(leaf)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.lock().push(thread.map_err(|source| Error::File {
            path: self.options.folder.clone(),
            source,
        })?);
        Ok(())
    }

    /// Ends in order: what was acknowledged is on disk, threads are gone. Calls after it are answered with an error.
    pub async fn close(self: &Arc<Self>) {
        let leaf = self.clone();
        if tokio::task::spawn_blocking(move || leaf.close_now()).await.is_err() {
            warn!("the leaf did not close in order");
        }
    }

    fn close_now(&self) {
        if self.closing.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        *self.closed.0.lock() = true;
        self.closed.1.notify_all();
        self.shards.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads
            .into_iter()
            .filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "none of them panics");
        }
        self.pins.lock().clear();
        self.crew.work.stop();
        self.scans.close();
        self.crew.writers.stop();
        self.shards.close();
    }

    /// The shard, opened where need be.
    pub(crate) async fn shard(&self, id: ShardId) -> Result<Arc<crate::shard::Shard>, Problem> {
        self.shard_until(id, Instant::now() + OPEN_WAIT).await
    }

    /// The same, within this time. One that does not open in time goes on opening.
    async fn shard_until(&self, id: ShardId, deadline: Instant) -> Result<Arc<crate::shard::Shard>, Problem> {
        self.is_here()?;
        if let Some(shard) = self.shards.ready(id) {
            return Ok(shard);
        }
        self.known(id)?;
        let opened = tokio::time::timeout_at(deadline.into(), self.shards.open(id)).await;
        opened.unwrap_or_else(|_| {
            let detail = format!("shard {id} is being opened, or waits for others that are");
            Err(Problem::new(Code::Unavailable, detail).hint("try again a little later"))
        })
    }

    /// Where questions about a shard are answered that are none to its documents: one that is closed stays so, where it
    /// left a summary.
    async fn info(&self, id: ShardId) -> Result<ShardInfo, Problem> {
        self.is_here()?;
        if let Some(shard) = self.shards.peek(id) {
            return Ok(ShardInfo::Open(shard));
        }
        self.known(id)?;
        let turn = self.shards.turn_to_read().await;
        let shards = self.shards.clone();
        let summary = blocking(move || {
            let _until_it_is_read = turn;
            Ok(shards.summary(id))
        });
        match summary.await? {
            Some(summary) => Ok(ShardInfo::Closed(summary)),
            None => Ok(ShardInfo::Open(self.shard(id).await?)),
        }
    }

    fn is_here(&self) -> Result<(), Problem> {
        match self.closing.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(Problem::new(Code::Unavailable, "the leaf is closing")),
            false => Ok(()),
        }
    }

    /// Shards that are open at this moment.
    pub fn open_shards(&self) -> usize {
        self.shards.open_count()
    }

    /// Whether a shard is this node's.
    fn holds(&self, collection: &Collection, number: u32) -> bool {
        let here = |placed: &Vec<NodeName>| self.options.node.as_ref().is_none_or(|node| placed.contains(node));
        number < collection.settings.shards
            && (collection.placement.is_empty() || collection.placement.get(number as usize).is_some_and(here))
    }

    /// Bytes in memory that no split on disk has yet, of all shards.
    pub fn unsplit_bytes(&self) -> usize {
        self.crew.budget.bytes()
    }

    /// Refuses a shard that the catalog does not have, or has elsewhere.
    fn known(&self, id: ShardId) -> Result<(), Problem> {
        let catalog = self.catalog.borrow().clone();
        match catalog.collection(id.collection) {
            Some((_, collection)) if self.holds(collection, id.number) => Ok(()),
            Some((name, collection)) if id.number < collection.settings.shards => {
                let place = collection.leaf_of(id.number).map_or("nowhere", |leaf| leaf.as_str());
                Err(Problem::new(
                    Code::Unavailable,
                    format!("shard {} of {name} is placed on {place}, not here", id.number),
                ))
            }
            Some((name, collection)) => {
                let detail = format!(
                    "collection {name} has {} shards, {} is none of them",
                    collection.settings.shards, id.number
                );
                Err(Problem::new(Code::NotFound, detail))
            }
            None => Err(Problem::new(
                Code::NotFound,
                format!("there is no collection of uid {}", id.collection),
            )
            .hint("it may have been dropped")),
        }
    }

    /// Tells the metrics what is open here.
    fn tell(&self, shards: &[Weak<crate::shard::Shard>]) {
        let (mut tail, mut splits, mut unindexed, mut read_only) = (0, 0, 0, 0);
        for shard in shards.iter().filter_map(Weak::upgrade) {
            read_only += usize::from(shard.store().is_read_only());
            shard.look(|state| {
                tail += state.tail.documents();
                unindexed += state
                    .segments
                    .iter()
                    .map(|indexed| indexed.segment.unindexed())
                    .sum::<u64>();
                splits += state.segments.iter().filter(|indexed| indexed.on_disk).count();
            });
        }
        gauge!("rachis_leaf_shards").set(shards.len() as f64);
        gauge!("rachis_leaf_read_only_shards").set(read_only as f64);
        gauge!("rachis_leaf_splits").set(splits as f64);
        gauge!("rachis_leaf_tail_documents").set(tail as f64);
        gauge!("rachis_leaf_unindexed_documents").set(unindexed as f64);
        gauge!("rachis_leaf_unsplit_bytes").set(self.unsplit_bytes() as f64);
        gauge!("rachis_leaf_views").set(self.pins.lock().len() as f64);
    }

    /// Lets go of views whose query should be over.
    fn expire_pins(&self) {
        let now = Instant::now();
        self.pins
            .lock()
            .retain(|_, pins| pins.until > now || Arc::strong_count(&pins.scanned) > 1);
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Runs what may wait for a disk, off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Problem::from),
        Err(failure) => Err(Problem::new(Code::Internal, format!("the work panicked: {failure}"))),
    }
}

/// The keeper: now and then removes what is not needed any more, and the shards of dropped collections.
fn keep(leaf: &Weak<Leaf>, closed: &Closed) {
    let mut ended = closed.0.lock();
    while !*ended {
        closed.1.wait_for(&mut ended, rebuild::SWEEP_EVERY);
        if *ended {
            return;
        }
        let Some(leaf) = leaf.upgrade() else { return };
        drop(ended);
        leaf.expire_pins();
        let catalog = leaf.catalog.borrow().clone();
        leaf.shards
            .remove_dropped(&catalog, chrono::Utc::now().timestamp_millis());
        let room = leaf.crew.disk.look();
        leaf.shards.count_files();
        let shards = leaf.shards.all();
        memory::govern(&shards, &leaf.crew.budget);
        leaf.tell(&shards);
        for shard in shards.iter().filter_map(Weak::upgrade) {
            if room {
                shard.wake();
            }
            if shard.store().is_read_only() && leaf.crew.disk.has_room() {
                shard.open_for_writing();
            }
            if let Err(error) = rebuild::sweep(&shard) {
                warn!(shard = %shard.id, %error, "what is not needed any more stays for now");
            }
        }
        leaf.shards.close_idle();
        drop(leaf);
        ended = closed.0.lock();
    }
}
