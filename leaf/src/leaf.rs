//! Leaf: all shards of this node, behind the traits `Ingest` (for writers) and `Scan` (for queries).
//!
//! Nothing that touches a disk runs on the async runtime's threads: writes run on the writers, builds on the workers,
//! reads through `blocking`. The number of threads does not depend on the number of shards.

mod copies;
mod ingest;
mod leases;
mod maintenance;
mod memory;
mod open_limits;
mod query;
mod redrives;
pub(crate) mod replicas;
mod runs;
mod scrub;
mod shards;
mod snapshot_writes;
pub(crate) mod views;

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use metrics::gauge;
use parking_lot::{Condvar, Mutex, RwLock};
use proto::{Catalog, Code, Problem, catalog::Collection, cluster::NodeName, ingest::ShardId};
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::{
    disk::Disk,
    error::Error,
    options::LeafOptions,
    scan::ScanPool,
    shard::{
        ShardServices, budget::MemoryBudget, scheduler::BuildScheduler, summary::Summary, sweep,
        writer_pool::WriterPool,
    },
    threads::{self, blocking},
};
use copies::Copies;
use leases::ViewLeases;
use replicas::grants::Grants;
use shards::Shards;
use snapshot_writes::SnapshotWrites;

/// How long a request without a deadline of its own waits for a shard to open.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Set and notified when the leaf closes.
type CloseSignal = (Mutex<bool>, Condvar);
/// A function that runs on its own thread until the leaf is closed.
type BackgroundThread = fn(&Weak<Leaf>, &CloseSignal);

/// A shard's state: from the shard itself if it is open, else from the summary it left.
enum ShardInfo {
    Open(Arc<crate::shard::Shard>),
    Closed(Summary),
}

/// All shards of this node.
pub struct Leaf {
    options: Arc<LeafOptions>,
    /// A new id at each start.
    boot: u64,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Read while a batch is checked by the catalog and handed to its shard.
    routing: RwLock<()>,
    shards: Arc<Shards>,
    services: Arc<ShardServices>,
    scans: ScanPool,
    /// The views of clients on other nodes.
    pub(crate) leases: ViewLeases,
    /// What other leaves with replicas of the same shards have granted, and what this one has granted them.
    grants: Grants,
    /// Shards that are copied from other leaves, and to them.
    copies: Copies,
    /// Shards that are written to the snapshot store.
    snapshot_writes: SnapshotWrites,
    /// Notified when a question waits for the first grant of another leaf.
    first_grants_wanted: Arc<Notify>,
    /// A clone for each query with open views.
    views_counter: Arc<()>,
    this: Weak<Self>,
    /// Housekeeping, maintenance, and the thread that resumes unfinished work at the start.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    closed: Arc<CloseSignal>,
    closing: AtomicBool,
}

impl Leaf {
    /// Opens the folder. Shards open when they are first used; those with unfinished work from the last process also
    /// open in the background. If a shard cannot be opened, that is logged, and the next use tries again.
    pub fn open(options: LeafOptions, catalog: watch::Receiver<Arc<Catalog>>) -> Result<Arc<Self>, Error> {
        let options = Arc::new(options);
        let file_error = Error::file(&options.folder);
        std::fs::create_dir_all(&options.folder).map_err(file_error)?;
        let services = Arc::new(ShardServices {
            options: options.clone(),
            writers: WriterPool::start().map_err(file_error)?,
            scheduler: BuildScheduler::start(options.index_threads).map_err(file_error)?,
            disk: Arc::new(Disk::new(&options.folder, options.disk_used_percent_max)),
            budget: MemoryBudget::new(options.unsplit_bytes_max),
            tables_open_max: open_limits::tables_open_max(&options),
        });
        let scans = ScanPool::new(options.scan_threads, options.kept_states_bytes_max).map_err(file_error)?;
        let leaf = Arc::new_cyclic(|this| Self {
            boot: uuid::Uuid::now_v7().as_u64_pair().1,
            shards: Arc::new(Shards::new(services.clone())),
            services,
            catalog,
            routing: RwLock::new(()),
            scans,
            leases: ViewLeases::default(),
            grants: Grants::new(proto::clock::since_boot()),
            copies: Copies::default(),
            snapshot_writes: SnapshotWrites::default(),
            first_grants_wanted: Arc::default(),
            views_counter: Arc::default(),
            this: this.clone(),
            threads: Mutex::default(),
            closed: Arc::default(),
            closing: AtomicBool::new(false),
            options,
        });
        let catalog = leaf.catalog.borrow().clone();
        leaf.shards.finish_removals(&catalog)?;
        let mut stored = leaf.shards.stored(&catalog)?;
        // Not what has left this leaf, or waits for a copy.
        stored.retain(|shard| leaf.check_placement(*shard).is_ok());
        let shards = leaf.shards.clone();
        leaf.spawn("resume", move || shards.resume(&stored))?;
        let threads = [
            ("housekeeping", keep_house as BackgroundThread),
            ("maintenance", maintenance::run),
        ];
        for (name, run) in threads {
            let (weak, closed) = (Arc::downgrade(&leaf), leaf.closed.clone());
            leaf.spawn(name, move || run(&weak, &closed))?;
        }
        Ok(leaf)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads
            .lock()
            .push(thread.map_err(Error::file(&self.options.folder))?);
        Ok(())
    }

    /// Shuts down cleanly: everything acknowledged is on disk, and all threads have ended. Later calls fail.
    pub async fn close(self: &Arc<Self>) {
        let leaf = self.clone();
        if tokio::task::spawn_blocking(move || leaf.close_now()).await.is_err() {
            warn!("the leaf did not shut down cleanly");
        }
    }

    fn close_now(&self) {
        if self.closing.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        *self.closed.0.lock() = true;
        self.closed.1.notify_all();
        self.shards.stop();
        threads::join(&self.threads);
        self.leases.clear();
        self.services.scheduler.stop();
        self.scans.close();
        self.services.writers.stop();
        self.shards.close();
    }

    /// The shard, opened if necessary.
    pub(crate) async fn shard(&self, id: ShardId) -> Result<Arc<crate::shard::Shard>, Problem> {
        self.shard_until(id, Instant::now() + OPEN_WAIT).await
    }

    /// The shard, opened if necessary, or an error at the deadline. Opening continues in the background after that.
    async fn shard_until(&self, id: ShardId, deadline: Instant) -> Result<Arc<crate::shard::Shard>, Problem> {
        self.check_open()?;
        if let Some(shard) = self.shards.ready(id) {
            return Ok(shard);
        }
        self.check_placement(id)?;
        let opened = tokio::time::timeout_at(deadline.into(), self.shards.open(id)).await;
        opened.unwrap_or_else(|_| {
            let detail = format!("shard {id} is still opening, or is waiting for other shards to open");
            Err(Problem::new(Code::Unavailable, detail).hint("retry in a moment"))
        })
    }

    /// A shard's state, for requests that need none of its documents. A closed shard stays closed if it left a summary.
    async fn info(&self, id: ShardId) -> Result<ShardInfo, Problem> {
        self.check_open()?;
        if let Some(shard) = self.shards.peek(id) {
            return Ok(ShardInfo::Open(shard));
        }
        self.check_placement(id)?;
        let permit = self.shards.summary_permit().await;
        let shards = self.shards.clone();
        let summary = blocking(move || {
            let _until_it_is_read = permit;
            Ok(shards.summary(id))
        });
        match summary.await? {
            Some(summary) => Ok(ShardInfo::Closed(summary)),
            None => Ok(ShardInfo::Open(self.shard(id).await?)),
        }
    }

    fn check_open(&self) -> Result<(), Problem> {
        match self.closing.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(Problem::new(Code::Unavailable, "the leaf is shutting down")),
            false => Ok(()),
        }
    }

    /// Number of shards that are open now.
    pub fn open_shards(&self) -> usize {
        self.shards.open_count()
    }

    /// True if a shard is placed on this node.
    fn owns(&self, collection: &Collection, number: u32) -> bool {
        let names_us = |nodes: &Vec<NodeName>| self.options.node.as_ref().is_none_or(|node| nodes.contains(node));
        number < collection.settings.shards
            && (collection.placement.is_empty() || collection.placement.get(number as usize).is_some_and(names_us))
    }

    /// Bytes in memory, over all shards, that are in no split on disk yet.
    pub fn unsplit_bytes(&self) -> usize {
        self.services.budget.bytes()
    }

    /// Refuses a shard that is not in the catalog, is placed on another node, or waits for a copy.
    fn check_placement(&self, id: ShardId) -> Result<(), Problem> {
        let catalog = self.catalog.borrow().clone();
        match catalog.collection(id.collection) {
            Some((name, collection)) if self.owns(collection, id.number) => self.check_copied(&catalog, name, id),
            Some((name, collection)) if id.number < collection.settings.shards => {
                let leaves: Vec<&str> = collection.replicas_of(id.number).iter().map(NodeName::as_str).collect();
                let leaves = if leaves.is_empty() {
                    "no leaf".to_owned()
                } else {
                    leaves.join(", ")
                };
                Err(Problem::new(
                    Code::Unavailable,
                    format!("shard {} of {name} is placed on {leaves}, not on this node", id.number),
                ))
            }
            Some((name, collection)) => {
                let detail = format!(
                    "collection {name} has no shard {}; it has {} shards",
                    id.number, collection.settings.shards
                );
                Err(Problem::new(Code::NotFound, detail))
            }
            None => Err(Problem::new(
                Code::NotFound,
                format!("the collection with uid {} does not exist", id.collection),
            )
            .hint("it may have been dropped")),
        }
    }

    /// Updates the gauges about open shards.
    fn record_metrics(&self, shards: &[Weak<crate::shard::Shard>]) {
        let (mut tail, mut splits, mut unindexed, mut read_only) = (0, 0, 0, 0);
        for shard in shards.iter().filter_map(Weak::upgrade) {
            read_only += usize::from(shard.store().is_read_only());
            shard.with_state(|state| {
                tail += state.tail.documents();
                unindexed += state.segments.iter().map(|live| live.segment.unindexed()).sum::<u64>();
                splits += state.segments.iter().filter(|live| live.on_disk).count();
            });
        }
        gauge!("rachis_leaf_shards").set(shards.len() as f64);
        gauge!("rachis_leaf_read_only_shards").set(read_only as f64);
        gauge!("rachis_leaf_splits").set(splits as f64);
        gauge!("rachis_leaf_tail_documents").set(tail as f64);
        gauge!("rachis_leaf_unindexed_documents").set(unindexed as f64);
        gauge!("rachis_leaf_unsplit_bytes").set(self.unsplit_bytes() as f64);
        gauge!("rachis_leaf_views").set(self.open_views() as f64);
    }

    /// One round of housekeeping: drops what is no longer needed, refreshes metrics and the disk usage, closes idle
    /// shards.
    fn clean_up(&self) {
        self.leases.expire(Instant::now());
        let catalog = self.catalog.borrow().clone();
        self.shards
            .remove_dropped(&catalog, chrono::Utc::now().timestamp_millis());
        self.remove_moved(&catalog);
        self.expire_snapshot_writes();
        let disk_has_room_again = self.services.disk.refresh();
        self.shards.count_files();
        let shards = self.shards.all();
        memory::govern(&shards, &self.services.budget);
        self.record_metrics(&shards);
        for shard in shards.iter().filter_map(Weak::upgrade) {
            if disk_has_room_again {
                shard.notify_waiters();
            }
            if shard.store().is_read_only() && self.services.disk.has_room() {
                shard.open_for_writing();
            }
            if let Err(error) = sweep::sweep(&shard) {
                warn!(shard = %shard.id, %error, "could not remove obsolete data; this will be retried");
            }
        }
        self.shards.close_idle();
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Runs housekeeping at short intervals until the leaf is closed.
fn keep_house(leaf: &Weak<Leaf>, closed: &CloseSignal) {
    let mut ended = closed.0.lock();
    while !*ended {
        closed.1.wait_for(&mut ended, sweep::SWEEP_EVERY);
        if *ended {
            return;
        }
        let Some(leaf) = leaf.upgrade() else { return };
        drop(ended);
        leaf.clean_up();
        drop(leaf);
        ended = closed.0.lock();
    }
}
