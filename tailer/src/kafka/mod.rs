//! Kafka sources: which are to be read stands in the catalog; each that is not suspended has a consumer of its own.

mod board;
mod closing;
pub mod cluster;
mod config;
mod context;
mod partition;
mod probe;
mod record;
mod sender;
mod source;
mod windows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use config::KEYS_THAT_LOAD_CODE;
use parking_lot::Mutex;
pub use probe::PREVIEW_RECORDS_MAX;
use proto::{
    Catalog, Code, CollectionUid, Problem, SourceName,
    catalog::{Source, SourceSettings},
    ingest::Ingest,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    record::Record,
    status::{SourceState, TailStatus},
    tailer::{Changes, Tailing},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{board::Board, closing::Closing, cluster::ClusterKafka, partition::Limits, source::Job, windows::Windows};

/// A source of one collection: names of Kafka sources are unique, and every collection has its `push`.
type JobName = (CollectionUid, SourceName);

/// How a tailer reads.
#[derive(Debug, Clone)]
pub struct TailerOptions {
    /// The node's name in consumer groups, the same after a restart and no other node's. Without one a restarted node
    /// waits until the group has given up its old self.
    pub node: Option<String>,
    /// Bytes in hand of one partition: above, it is paused and Kafka holds the rest.
    pub window_bytes_max: usize,
    /// Bytes in hand of all partitions together: near it each has its even share.
    pub windows_bytes_max: usize,
    /// Records of one batch.
    pub batch_records_max: usize,
    /// Bytes of one batch; a single larger record travels alone.
    pub batch_bytes_max: usize,
    /// How long a shutdown waits for consumers to close.
    pub shutdown_wait: Duration,
    /// Where the pushes of a cluster are logged; none where leaves take them themselves.
    pub pushes: Option<ClusterKafka>,
    /// How long the pushes of a dropped collection are kept in their log.
    pub dropped_kept: Duration,
}

impl Default for TailerOptions {
    fn default() -> Self {
        Self {
            node: Some("rachis-1".into()),
            window_bytes_max: 32 << 20,
            windows_bytes_max: 64 << 20,
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            shutdown_wait: Duration::from_secs(10),
            pushes: None,
            dropped_kept: Duration::from_secs(24 * 3600),
        }
    }
}

impl TailerOptions {
    fn limits(&self) -> Limits {
        Limits {
            batch_records_max: self.batch_records_max,
            batch_bytes_max: self.batch_bytes_max,
        }
    }
}

/// Reads every Kafka source of the catalog into the leaf.
pub struct Tailer {
    catalog: watch::Receiver<Arc<Catalog>>,
    running: Arc<Mutex<BTreeMap<JobName, Running>>>,
    stop: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
    shutdown_wait: Duration,
}

struct Running {
    job: Arc<Job>,
    board: Arc<Board>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Tailer {
    /// Starts reading. Must be called within a tokio runtime.
    pub fn start(options: TailerOptions, leaf: Arc<dyn Ingest>, changes: Arc<dyn Changes>) -> Arc<Self> {
        let (running, stop, shutdown_wait) = (Arc::default(), CancellationToken::new(), options.shutdown_wait);
        let keeper = Keeper {
            windows: Windows::new(options.windows_bytes_max),
            options,
            leaf,
            catalog: changes.catalog(),
            running: Arc::clone(&running),
            ending: BTreeMap::new(),
            closing: BTreeMap::new(),
            stop: stop.clone(),
        };
        Arc::new(Self {
            catalog: changes.catalog(),
            running,
            stop,
            keeper: Mutex::new(Some(tokio::spawn(keeper.run()))),
            shutdown_wait,
        })
    }

    /// How far every partition is that is read here.
    pub fn rows(&self) -> Vec<TailStatus> {
        let catalog = self.catalog.borrow().clone();
        let running = self.running.lock();
        let row = |name: &SourceName, source: &Source, state| TailStatus {
            collection: source.settings.collection.clone(),
            source: name.clone(),
            partition: None,
            state,
            end: None,
            lag: None,
            sent: None,
            error: None,
        };
        let rows = |(name, source): (&SourceName, &Source)| {
            let uid = catalog
                .collections
                .get(&source.settings.collection)
                .map(|collection| collection.uid);
            match uid.and_then(|uid| running.get(&(uid, name.clone()))) {
                _ if source.suspended => vec![row(name, source, SourceState::Suspended)],
                Some(running) => running.board.rows(),
                None => vec![row(name, source, SourceState::Starting)],
            }
        };
        let pushes = running
            .values()
            .filter(|running| running.job.source.is_push())
            .flat_map(|running| running.board.rows());
        catalog.sources.iter().flat_map(rows).chain(pushes).collect()
    }

    /// Stops reading and waits until batches on their way are answered and the consumers are closed.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let keeper = self.keeper.lock().take();
        let all = async {
            if let Some(keeper) = keeper {
                let _ = keeper.await;
            }
        };
        if tokio::time::timeout(self.shutdown_wait, all).await.is_err() {
            tracing::warn!("a Kafka consumer did not close in time and is left behind");
        }
    }
}

/// Makes what runs what the catalog says.
struct Keeper {
    options: TailerOptions,
    windows: Arc<Windows>,
    leaf: Arc<dyn Ingest>,
    catalog: watch::Receiver<Arc<Catalog>>,
    running: Arc<Mutex<BTreeMap<JobName, Running>>>,
    /// Told to stop, and not yet seen to have ended.
    ending: BTreeMap<JobName, JoinHandle<()>>,
    /// Consumers that are being closed, for as long as anything of their source runs: they outlive its settings.
    closing: BTreeMap<JobName, Arc<Closing>>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let catalog = self.catalog.borrow_and_update().clone();
            self.adapt(&catalog);
            tokio::select! {
                changed = self.catalog.changed() => if changed.is_err() { break },
                () = self.stop.cancelled() => break,
            }
        }
        let all = std::mem::take(&mut *self.running.lock());
        all.values().for_each(|running| running.stop.cancel());
        for task in all
            .into_values()
            .map(|running| running.task)
            .chain(self.ending.into_values())
        {
            let _ = task.await;
        }
    }

    fn adapt(&mut self, catalog: &Catalog) {
        let sources = catalog
            .sources
            .iter()
            .filter_map(|(name, source)| Job::of(catalog, name, source, &self.options, &self.leaf));
        let pushes = catalog
            .collections
            .iter()
            .filter_map(|(name, collection)| Job::of_pushes(name, collection, &self.options, &self.leaf));
        let wanted: BTreeMap<JobName, Job> = sources
            .chain(pushes)
            .map(|job| ((job.uid, job.source.clone()), job))
            .collect();
        let mut running = self.running.lock();
        let unwanted =
            |(name, running): &(&JobName, &Running)| wanted.get(*name).is_none_or(|job| !running.job.is_same(job));
        let stopping: Vec<JobName> = running.iter().filter(unwanted).map(|(name, _)| name.clone()).collect();
        self.ending.retain(|_, task| !task.is_finished());
        self.closing
            .retain(|name, closing| wanted.contains_key(name) || Arc::strong_count(closing) > 1);
        for name in stopping {
            let Some(old) = running.remove(&name) else { continue };
            info!(source = %name.1, "source stops");
            old.stop.cancel();
            self.ending.insert(name, old.task);
        }
        for (name, job) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            let before = self.ending.remove(&name);
            let closing = self.closing.entry(name.clone()).or_default().clone();
            running.insert(name, self.launch(job, before, closing));
        }
    }

    /// Starts a source, once what ran under its name before has ended: both would be the same member of the group.
    fn launch(&self, job: Job, before: Option<JoinHandle<()>>, closing: Arc<Closing>) -> Running {
        let job = Arc::new(job);
        let board = Arc::new(Board::new(job.collection.clone(), job.source.clone()));
        let stop = self.stop.child_token();
        let (kept, shown, until, windows) = (job.clone(), board.clone(), stop.clone(), self.windows.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            source::keep(kept, shown, windows, closing, until).await;
        });
        Running { job, board, stop, task }
    }
}

#[async_trait]
impl Tailing for Tailer {
    async fn status(&self) -> Result<Vec<TailStatus>, Problem> {
        Ok(self.rows())
    }

    async fn ends(&self, settings: &SourceSettings) -> Result<Vec<i64>, Problem> {
        let settings = settings.clone();
        blocking(move || probe::ends(&settings)).await
    }

    async fn preview(&self, settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
        let settings = settings.clone();
        blocking(move || probe::preview(&settings, records)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::new(Code::Internal, format!("asking Kafka was interrupted: {error}")))?
}
