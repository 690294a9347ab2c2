//! Reads Kafka sources into the leaves. Each source of the catalog that is not suspended has its own consumer.

mod backoff;
mod closing;
pub(crate) mod cluster;
mod config;
mod context;
mod error;
mod feed_apart;
mod hold_back;
mod idle;
mod options;
mod other_times;
mod partition;
mod probe;
mod reader;
mod record;
mod sender;
mod slot;
mod start;
mod status;
mod supervisor;
mod task;
mod windows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionUid, Problem, SourceName,
    catalog::{Source, SourceSettings},
    ingest::Ingest,
    record::Record,
    status::{SourceState, TailStatus},
    tailer::{Changes, SourceAdmin},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(crate) use self::error::{ClientError, Error};
pub use self::options::TailerOptions;
use self::{closing::ConsumerCloser, status::SourceStatus, task::SourceTask, windows::WindowBudget};

/// A source of one collection. The name alone is not unique: every collection has sources of its own, such as `push`.
type SourceTaskName = (CollectionUid, SourceName);

/// Sources that were stopped, and may not have ended yet.
type Stopping = BTreeMap<SourceTaskName, JoinHandle<()>>;

/// Reads every Kafka source of the catalog into the leaves.
pub struct Tailer {
    catalog: watch::Receiver<Arc<Catalog>>,
    running: Arc<Mutex<BTreeMap<SourceTaskName, Running>>>,
    stopping: Arc<Mutex<Stopping>>,
    stop: CancellationToken,
    reconciler: Mutex<Option<JoinHandle<()>>>,
    shutdown_wait: Duration,
}

/// A source that is being read.
struct Running {
    task: Arc<SourceTask>,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Tailer {
    /// Starts reading. Must be called within a tokio runtime.
    pub fn start(options: TailerOptions, leaf: Arc<dyn Ingest>, changes: Arc<dyn Changes>) -> Arc<Self> {
        let (running, stopping) = (Arc::default(), Arc::default());
        let (stop, shutdown_wait) = (CancellationToken::new(), options.shutdown_wait);
        let reconciler = Reconciler {
            budget: WindowBudget::new(options.windows_bytes_max),
            options,
            leaf,
            catalog: changes.catalog(),
            running: Arc::clone(&running),
            stopping: Arc::clone(&stopping),
            closers: BTreeMap::new(),
            stop: stop.clone(),
        };
        Arc::new(Self {
            catalog: changes.catalog(),
            running,
            stopping,
            stop,
            reconciler: Mutex::new(Some(tokio::spawn(reconciler.run()))),
            shutdown_wait,
        })
    }

    /// The status of every partition that is read here.
    pub fn rows(&self) -> Vec<TailStatus> {
        let catalog = self.catalog.borrow().clone();
        let (running, stopping) = (self.running.lock(), self.stopping.lock());
        let has_ended = |name: &SourceTaskName| {
            !running.contains_key(name) && stopping.get(name).is_none_or(|handle| handle.is_finished())
        };
        let row = |name: &SourceName, source: &Source, state| TailStatus {
            collection: source.settings.collection.clone(),
            uid: catalog.collections.get(&source.settings.collection).map(|of| of.uid),
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
                // Until its last batches are answered, it may still store records.
                _ if source.suspended => match uid.is_none_or(|uid| has_ended(&(uid, name.clone()))) {
                    true => vec![row(name, source, SourceState::Suspended)],
                    false => vec![row(name, source, SourceState::Reading)],
                },
                Some(running) => running.status.rows(),
                None => vec![row(name, source, SourceState::Starting)],
            }
        };
        let own = running
            .values()
            .filter(|running| running.task.source.is_own())
            .flat_map(|running| running.status.rows());
        catalog.sources.iter().flat_map(rows).chain(own).collect()
    }

    /// Stops reading, and waits until batches in flight are answered and the consumers are closed.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let reconciler = self.reconciler.lock().take();
        let all = async {
            if let Some(reconciler) = reconciler {
                let _ = reconciler.await;
            }
        };
        if tokio::time::timeout(self.shutdown_wait, all).await.is_err() {
            tracing::warn!("a Kafka consumer did not close in time and is abandoned");
        }
    }
}

/// Starts and stops sources, so that the running ones match the catalog.
struct Reconciler {
    options: TailerOptions,
    budget: Arc<WindowBudget>,
    leaf: Arc<dyn Ingest>,
    catalog: watch::Receiver<Arc<Catalog>>,
    running: Arc<Mutex<BTreeMap<SourceTaskName, Running>>>,
    /// Sources that were stopped and may not have ended yet.
    stopping: Arc<Mutex<Stopping>>,
    /// Counts the consumers that are not closed yet. A closer outlives changes of its source.
    closers: BTreeMap<SourceTaskName, Arc<ConsumerCloser>>,
    stop: CancellationToken,
}

impl Reconciler {
    async fn run(mut self) {
        loop {
            let catalog = self.catalog.borrow_and_update().clone();
            self.reconcile(&catalog);
            tokio::select! {
                changed = self.catalog.changed() => if changed.is_err() { break },
                () = self.stop.cancelled() => break,
            }
        }
        let all = std::mem::take(&mut *self.running.lock());
        all.values().for_each(|running| running.stop.cancel());
        let stopping = std::mem::take(&mut *self.stopping.lock());
        for handle in all
            .into_values()
            .map(|running| running.handle)
            .chain(stopping.into_values())
        {
            let _ = handle.await;
        }
    }

    fn reconcile(&mut self, catalog: &Catalog) {
        let wanted = self.wanted(catalog);
        let stopping = self.stopping.clone();
        let (mut running, mut stopping) = (self.running.lock(), stopping.lock());
        let is_outdated = |(name, running): &(&SourceTaskName, &Running)| {
            wanted.get(*name).is_none_or(|task| !running.task.is_same(task))
        };
        let outdated: Vec<SourceTaskName> = running
            .iter()
            .filter(is_outdated)
            .map(|(name, _)| name.clone())
            .collect();
        stopping.retain(|_, handle| !handle.is_finished());
        self.closers
            .retain(|name, closer| wanted.contains_key(name) || Arc::strong_count(closer) > 1);
        for name in outdated {
            let Some(old) = running.remove(&name) else { continue };
            info!(source = %name.1, "stopping the source");
            old.stop.cancel();
            stopping.insert(name, old.handle);
        }
        for (name, task) in wanted {
            if let Some(running) = running.get(&name) {
                running.task.follow_routing(&task);
                continue;
            }
            let predecessor = stopping.remove(&name);
            let closer = self.closers.entry(name.clone()).or_default().clone();
            running.insert(name, self.launch(task, predecessor, closer));
        }
    }

    /// The sources that the catalog requires to be read, and the collections' own ones.
    fn wanted(&self, catalog: &Catalog) -> BTreeMap<SourceTaskName, SourceTask> {
        let sources = catalog
            .sources
            .iter()
            .filter_map(|(name, source)| SourceTask::from_source(catalog, name, source, &self.options, &self.leaf));
        let own = catalog.collections.iter().flat_map(|(name, collection)| {
            let of = |source| SourceTask::from_own(name, collection, source, &self.options, &self.leaf);
            [SourceName::push(), SourceName::changes()].into_iter().filter_map(of)
        });
        sources
            .chain(own)
            .map(|task| ((task.uid, task.source.clone()), task))
            .collect()
    }

    /// Starts a source after its predecessor has ended: both would be the same member of the group.
    fn launch(&self, task: SourceTask, predecessor: Option<JoinHandle<()>>, closer: Arc<ConsumerCloser>) -> Running {
        let task = Arc::new(task);
        let status = Arc::new(SourceStatus::of(&task));
        let stop = self.stop.child_token();
        let run = supervisor::supervise(task.clone(), status.clone(), self.budget.clone(), closer, stop.clone());
        let handle = tokio::spawn(async move {
            if let Some(predecessor) = predecessor {
                let _ = predecessor.await;
            }
            run.await;
        });
        Running {
            task,
            status,
            stop,
            handle,
        }
    }
}

#[async_trait]
impl SourceAdmin for Tailer {
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
        .map_err(|error| Problem::new(Code::Internal, format!("the request to Kafka was interrupted: {error}")))?
}
