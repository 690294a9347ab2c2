//! One source: a consumer, its poll thread, and a sender for each partition.
//!
//! ```text
//! broker ─ librdkafka ─ poll thread ─ Cell (window) ─ sender ══Write══> leaf
//!                           ^  where to read on          │
//!                           └────────────────────────────┘
//! ```
//!
//! The group says which partitions; the leaf says where each begins. The consumer is placed with one list of explicit
//! offsets, again whenever a partition is to be read from elsewhere. A record that was fetched for an earlier placing
//! is never delivered after the next one.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use proto::{
    CollectionName, CollectionUid, SourceName,
    catalog::{Catalog, Collection, Skips, Source, SourceSettings, Start},
    ingest::{Ingest, ShardId},
    record::Rules,
    routing::shard_of,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    TailerOptions,
    board::{Board, Cell},
    closing::Closing,
    config::{self, explain},
    context::{Context, Rebalance},
    partition::{Backoff, Flow, Partition},
    record::{push, record},
    sender::Sender,
    windows::{Held, Windows},
};

/// How long the poll thread waits for a record: how late it notices what senders want of it.
const POLL: Duration = Duration::from_millis(20);
/// Records taken before the poll thread looks after everything else.
const BURST_RECORDS_MAX: usize = 1_000;
/// Partitions that want to be placed wait so long for others that want it too.
const PLACE_TOGETHER: Duration = Duration::from_millis(50);
/// How often offsets are committed and figures told.
const REPORT: Duration = Duration::from_secs(1);
/// How often what idle partitions have stored is compared with what was acknowledged, and how many at once.
const COMPARE: Duration = Duration::from_secs(2);
const COMPARED_AT_ONCE: usize = 16;
/// All partitions are asked about at most this often, when the broker says that an offset is gone without saying of
/// which.
const RESOLVE_ALL: Duration = Duration::from_secs(1);
/// How much longer than its session a consumer may wait to hear what it is to read. After a broker stood still for
/// longer than its own session, the client may wait for ever.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(5);
/// So many consumers of a source may be left behind; then none is made until one of them is closed.
const CLOSING_MAX: usize = 3;
/// A consumer that is not closed by then is left behind.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
const SESSION_DEFAULT: Duration = Duration::from_secs(10);
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_MOST: Duration = Duration::from_secs(30);

/// What a source is to do; made anew when the catalog changes it.
pub struct Job {
    /// The collection.
    pub collection: CollectionName,
    /// What never changes about it.
    pub uid: CollectionUid,
    /// How many shards it has.
    pub shards: u32,
    /// The source.
    pub source: SourceName,
    /// The catalog version that changed the source last.
    pub version: u64,
    /// What the user said.
    pub settings: SourceSettings,
    /// What is left out on request.
    pub skips: Skips,
    /// How much to hold and send.
    pub options: TailerOptions,
    /// Where records go.
    pub leaf: Arc<dyn Ingest>,
    cluster: OnceLock<String>,
}

impl Job {
    /// What names it in metrics: every collection has a source called `push`.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        [
            ("collection", self.collection.to_string()),
            ("source", self.source.to_string()),
        ]
    }

    /// Where a partition's records go.
    pub fn shard(&self, partition: i32) -> ShardId {
        ShardId {
            collection: self.uid,
            number: shard_of(&self.source, partition, self.shards),
        }
    }

    /// What the catalog says of a source; nothing, if it is suspended or has no collection.
    pub fn of(
        catalog: &Catalog,
        name: &SourceName,
        source: &Source,
        options: &TailerOptions,
        leaf: &Arc<dyn Ingest>,
    ) -> Option<Self> {
        let collection = catalog
            .collections
            .get(&source.settings.collection)
            .filter(|_| !source.suspended)?;
        Some(Self {
            collection: source.settings.collection.clone(),
            uid: collection.uid,
            shards: collection.settings.shards,
            source: name.clone(),
            version: source.version,
            settings: source.settings.clone(),
            skips: source.skips.clone(),
            options: options.clone(),
            leaf: leaf.clone(),
            cluster: OnceLock::new(),
        })
    }

    /// The pushes of a collection, where they are logged and there were any.
    pub fn of_pushes(
        name: &CollectionName,
        collection: &Collection,
        options: &TailerOptions,
        leaf: &Arc<dyn Ingest>,
    ) -> Option<Self> {
        let kafka = options.pushes.as_ref().filter(|_| collection.push_topic)?;
        Some(Self {
            collection: name.clone(),
            uid: collection.uid,
            shards: collection.settings.shards,
            source: SourceName::push(),
            version: 0,
            settings: SourceSettings {
                collection: name.clone(),
                topic: collection.push_topic_name(),
                config: kafka.source_config(),
                rules: Rules::default(),
                start: Start::Earliest,
                partitions: None,
            },
            skips: collection.push_skips.clone(),
            options: options.clone(),
            leaf: leaf.clone(),
            cluster: OnceLock::new(),
        })
    }

    /// Whether this is the same work.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.version, self.uid, self.shards, &self.skips) == (other.version, other.uid, other.shards, &other.skips)
    }

    /// What identifies the topic beyond its name. Known once [`Job::set_cluster`] was called.
    pub fn topic_id(&self) -> String {
        format!(
            "{}/{}",
            self.cluster.get().map_or("?", String::as_str),
            self.settings.topic
        )
    }

    /// Whether the cluster's identity is known.
    pub fn knows_cluster(&self) -> bool {
        self.cluster.get().is_some()
    }

    /// The cluster said who it is. The first word counts: a consumer never changes its cluster.
    pub fn set_cluster(&self, id: String) {
        let _ = self.cluster.set(id);
    }

    /// After how long the group gives a silent member up.
    fn session(&self) -> Duration {
        let said = self
            .settings
            .config
            .get("session.timeout.ms")
            .and_then(|text| text.parse().ok());
        said.map_or(SESSION_DEFAULT, Duration::from_millis)
    }

    /// The consumer group, the same for ever: operators look at it and grant rights on it.
    fn group(&self) -> String {
        format!("rachis-{}-{}", self.uid, self.source)
    }
}

/// Keeps a source running until it is stopped: after an error that a consumer cannot survive, another one is made.
pub async fn keep(
    job: Arc<Job>,
    board: Arc<Board>,
    windows: Arc<Windows>,
    closing: Arc<Closing>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(RESTART_FIRST, RESTART_MOST);
    while !stop.is_cancelled() {
        if closing.unfinished() >= CLOSING_MAX {
            board.error(&format!(
                "{CLOSING_MAX} consumers of the source could not be closed, and no other is made: restart the node"
            ));
            tokio::select! { () = tokio::time::sleep(RESTART_MOST) => continue, () = stop.cancelled() => break }
        }
        let started = Instant::now();
        let run = Reader::new(
            job.clone(),
            board.clone(),
            Held::new(windows.clone()),
            closing.clone(),
            stop.child_token(),
        );
        let (handle, (done, ended)) = (Handle::current(), tokio::sync::oneshot::channel());
        let thread = std::thread::Builder::new()
            .name(format!("kafka-{}", job.source))
            .spawn(move || {
                let _ = done.send(run.run(&handle));
            });
        let trouble = match thread {
            Ok(_) => ended
                .await
                .unwrap_or_else(|_| Err("the reader of the source broke; this is our fault".into())),
            Err(error) => Err(format!("no thread for the source: {error}")),
        };
        board.show(BTreeMap::new());
        let Err(trouble) = trouble else { break };
        board.error(&trouble);
        board.stopped(true);
        if started.elapsed() > ASSIGNED_WITHIN {
            backoff.reset();
        }
        tokio::select! { () = tokio::time::sleep(backoff.next()) => {}, () = stop.cancelled() => {} }
    }
    board.close();
}

struct Reader {
    job: Arc<Job>,
    board: Arc<Board>,
    stop: CancellationToken,
    cells: BTreeMap<i32, Arc<Cell>>,
    /// What they have in hand, as others see it.
    held: Held,
    closing: Arc<Closing>,
    /// Ends the senders of the partitions that are read now.
    senders_stop: CancellationToken,
    senders: TaskTracker,
    committed: BTreeMap<i32, i64>,
    /// Whether the group has said what to read and the client waits to be placed.
    must_place: bool,
    /// Since when the group has said nothing of what to read.
    unassigned_since: Option<Instant>,
    wants_place_since: Option<Instant>,
    reported: Instant,
    compared: Instant,
    comparing: Option<JoinHandle<()>>,
    /// Records that came since.
    taken: u64,
    resolved_all: Option<Instant>,
    /// An offset that was to be read is not there, and the client does not say of which partition.
    out_of_range: bool,
}

type Consumer = Arc<BaseConsumer<Context>>;

impl Reader {
    fn new(job: Arc<Job>, board: Arc<Board>, held: Held, closing: Arc<Closing>, stop: CancellationToken) -> Self {
        Self {
            job,
            board,
            held,
            closing,
            senders_stop: stop.child_token(),
            stop,
            cells: BTreeMap::new(),
            senders: TaskTracker::new(),
            committed: BTreeMap::new(),
            must_place: false,
            unassigned_since: Some(Instant::now()),
            wants_place_since: None,
            reported: Instant::now(),
            compared: Instant::now(),
            comparing: None,
            taken: 0,
            resolved_all: None,
            out_of_range: false,
        }
    }

    /// Runs on a thread of its own until it is stopped, or until an error that this consumer cannot survive.
    fn run(mut self, handle: &Handle) -> Result<(), String> {
        let config = config::consumer(&self.job.settings, &self.job.group(), self.job.options.node.as_deref())
            .map_err(|problem| problem.to_string())?;
        config::check_topic(&self.job.settings.topic).map_err(|problem| problem.to_string())?;
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::new(self.board.clone()))
            .map_err(|error| format!("the Kafka client cannot be made: {error}"))?;
        consumer
            .subscribe(&[&self.job.settings.topic])
            .map_err(|error| error.to_string())?;
        let consumer = Arc::new(consumer);
        self.board.stopped(false);
        info!(source = %self.job.source, topic = self.job.settings.topic, group = self.job.group(), "consumer started");
        let result = self.poll(&consumer, handle);
        self.commit(&consumer);
        self.senders_stop.cancel();
        self.senders.close();
        // A batch on its way is answered before the consumer is closed.
        let rest = self.senders.clone();
        if handle
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), rest.wait()).await })
            .is_err()
        {
            warn!(source = %self.job.source, "a batch on its way was not answered in time");
        }
        self.close(consumer);
        result
    }

    /// Leaves the group, and waits a while until it is left.
    fn close(&self, consumer: Consumer) {
        consumer.context().close();
        // A sender may still ask the broker something with it, for some seconds.
        let close = move || {
            while Arc::strong_count(&consumer) > 1 {
                std::thread::sleep(POLL);
            }
            drop(consumer);
        };
        let source = &self.job.source;
        match self.closing.run(&format!("close-{source}"), CLOSED_WITHIN, close) {
            Ok(true) => info!(%source, "consumer closed"),
            // The client's thread is left behind; the group gives its member up after the session.
            Ok(false) => {
                warn!(%source, "the consumer could not be closed within {} s and is left behind", CLOSED_WITHIN.as_secs())
            }
            Err(error) => warn!(%source, %error, "no thread to close the consumer on"),
        }
    }

    fn poll(&mut self, consumer: &Consumer, handle: &Handle) -> Result<(), String> {
        while !self.stop.is_cancelled() {
            let mut wait = POLL;
            for _ in 0..BURST_RECORDS_MAX {
                match consumer.poll(wait) {
                    None => break,
                    Some(Ok(message)) => {
                        self.notice_other_topic(consumer);
                        self.take(message.partition(), record(&message));
                    }
                    Some(Err(error)) => self.error(&error),
                }
                wait = Duration::ZERO;
            }
            for change in consumer.context().rebalances() {
                self.rebalance(change, consumer, handle);
            }
            self.notice_other_topic(consumer);
            self.resolve_all();
            self.place(consumer)?;
            self.steer(consumer);
            self.check_alive(consumer)?;
            self.compare(handle);
            if self.reported.elapsed() >= REPORT {
                self.reported = Instant::now();
                self.report(consumer);
            }
        }
        Ok(())
    }

    fn take(&mut self, partition: i32, record: proto::record::Record) {
        self.taken += 1;
        let record = if self.job.source.is_push() {
            push(record)
        } else {
            record
        };
        let Some(cell) = self.cells.get(&partition) else { return };
        if cell.partition.lock().push(record) {
            cell.wake.notify_one();
        }
    }

    fn error(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                if let Some(cell) = self.cells.get(partition) {
                    cell.partition.lock().reached_end();
                }
                self.board.fine();
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.out_of_range = true
            }
            other => debug!(source = %self.job.source, error = %other, "the client reports"),
        }
    }

    /// After a fatal error (another member of the same name, mostly) the client does nothing more, and does not mark
    /// the event as fatal: it has to be asked.
    fn check_alive(&self, consumer: &Consumer) -> Result<(), String> {
        if let Some((code, reason)) = consumer.client().fatal_error() {
            return Err(explain(code, &reason));
        }
        match self
            .unassigned_since
            .filter(|since| since.elapsed() > self.job.session() + ASSIGNED_WITHIN)
        {
            // What is known to be wrong (no topic, no broker) says more than the silence that comes of it.
            Some(since) => Err(self.board.shown().unwrap_or_else(|| {
                format!(
                    "the consumer group has not said for {} s what to read (another consumer is made)",
                    since.elapsed().as_secs()
                )
            })),
            None => Ok(()),
        }
    }

    /// Asks where every partition goes on, if an offset was out of range. Not more often than the limit, and never
    /// forgotten: the client reads nothing more of that partition until it is placed anew.
    fn resolve_all(&mut self) {
        if !self.out_of_range || self.resolved_all.is_some_and(|at| at.elapsed() < RESOLVE_ALL) {
            return;
        }
        self.resolved_all = Some(Instant::now());
        self.out_of_range = false;
        info!(source = %self.job.source, "an offset is out of range: looking where each partition goes on");
        self.resolve();
    }

    /// Before a record of another topic under the same name is taken, what is in hand goes, and each partition is
    /// compared with what is stored.
    fn notice_other_topic(&self, consumer: &Consumer) {
        if consumer.context().is_other_topic() {
            info!(source = %self.job.source, "the topic was made anew: looking where each partition goes on");
            self.resolve();
        }
    }

    fn resolve(&self) {
        for cell in self.cells.values() {
            cell.partition.lock().resolve();
            cell.wake.notify_one();
        }
    }

    fn rebalance(&mut self, change: Rebalance, consumer: &Consumer, handle: &Handle) {
        info!(source = %self.job.source, ?change, "partitions");
        self.senders_stop.cancel();
        self.cells.clear();
        // What was taken before says nothing of how the source is from here on: an error that came with the change
        // stays shown.
        self.taken = 0;
        self.unassigned_since = matches!(change, Rebalance::Revoked).then(Instant::now);
        if let Rebalance::Assigned(numbers) = change {
            self.senders_stop = self.stop.child_token();
            self.must_place = true;
            for number in numbers {
                let cell = Arc::new(Cell {
                    number,
                    partition: Partition::new(self.job.options.limits(), self.job.skips.of(number)).into(),
                    wake: tokio::sync::Notify::new(),
                });
                self.cells.insert(number, cell.clone());
                let sender = Sender {
                    job: self.job.clone(),
                    cell,
                    board: self.board.clone(),
                    consumer: Arc::downgrade(consumer),
                    stop: self.senders_stop.clone(),
                };
                self.senders.spawn_on(sender.run(), handle);
            }
        }
        self.board.show(self.cells.clone());
    }

    /// Places the consumer, if a partition is to be read from elsewhere than it is.
    fn place(&mut self, consumer: &Consumer) -> Result<(), String> {
        let wanting = self
            .cells
            .values()
            .filter(|cell| cell.partition.lock().wants_place())
            .count();
        if wanting == 0 && !self.must_place {
            self.wants_place_since = None;
            return Ok(());
        }
        let since = *self.wants_place_since.get_or_insert_with(Instant::now);
        if wanting < self.cells.len() && since.elapsed() < PLACE_TOGETHER {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for cell in self.cells.values() {
            if let Some(offset) = cell.partition.lock().place() {
                list.add_partition_offset(&self.job.settings.topic, cell.number, Offset::Offset(offset))
                    .map_err(|error| error.to_string())?;
            }
        }
        consumer
            .assign(&list)
            .map_err(|error| format!("the consumer cannot be placed: {error}"))?;
        // Only what was told to the client is placed: a sender may have decided anew in between.
        for element in list.elements() {
            let Some(cell) = self.cells.get(&element.partition()) else {
                continue;
            };
            let mut partition = cell.partition.lock();
            if partition.place().map(Offset::Offset) == Some(element.offset()) {
                partition.placed();
            }
        }
        // A partition that was paused before stays so within the client.
        consumer.resume(&list).map_err(|error| error.to_string())?;
        self.must_place = false;
        self.wants_place_since = None;
        Ok(())
    }

    /// Pauses partitions whose window is full, resumes those with room.
    fn steer(&mut self, consumer: &Consumer) {
        let bytes = self.cells.values().map(|cell| cell.partition.lock().held_bytes()).sum();
        let window_bytes_max = self
            .held
            .update(self.cells.len(), bytes, self.job.options.window_bytes_max);
        for cell in self.cells.values() {
            let Some(flow) = cell.partition.lock().flow(window_bytes_max) else {
                continue;
            };
            let mut one = TopicPartitionList::new();
            one.add_partition(&self.job.settings.topic, cell.number);
            let result = match flow {
                Flow::Pause => consumer.pause(&one),
                Flow::Resume => consumer.resume(&one),
            };
            if let Err(error) = result {
                // It then goes on without: memory is at risk, nothing else.
                warn!(source = %self.job.source, partition = cell.number, ?flow, %error, "the flow cannot be changed");
            }
        }
    }

    /// A leaf that came back from an older disk holds less than it has acknowledged. A partition that has nothing to
    /// send would not notice: its leaf is asked now and then, and gets again what it lacks.
    fn compare(&mut self, handle: &Handle) {
        if self.compared.elapsed() < COMPARE || self.comparing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.compared = Instant::now();
        let idle = self
            .cells
            .values()
            .filter(|cell| cell.partition.lock().held_bytes() == 0);
        let acknowledged: Vec<(Arc<Cell>, i64)> = idle
            .map(|cell| (cell.clone(), cell.partition.lock().stored()))
            .collect();
        let job = self.job.clone();
        let compare = move |(cell, acknowledged): (Arc<Cell>, i64)| {
            let job = job.clone();
            async move {
                // A leaf that is away holds what it holds, and is asked again.
                let Ok(held) = job.leaf.stored(job.shard(cell.number), &job.source, cell.number).await else {
                    return;
                };
                if held.offset < acknowledged {
                    warn!(source = %job.source, partition = cell.number, held = held.offset, acknowledged, "the leaf holds less than it has acknowledged: going back");
                    cell.partition.lock().resolve();
                    cell.wake.notify_one();
                }
            }
        };
        self.comparing =
            Some(handle.spawn(futures::stream::iter(acknowledged).for_each_concurrent(COMPARED_AT_ONCE, compare)));
    }

    fn report(&mut self, consumer: &Consumer) {
        let ends = consumer.context().ends();
        if std::mem::take(&mut self.taken) > 0 {
            self.board.fine();
        }
        for cell in self.cells.values() {
            if let Some(end) = ends.get(&cell.number) {
                cell.partition.lock().note_end(*end);
            }
        }
        self.board.tell();
        self.commit(consumer);
    }

    /// Tells the group how far it is, for operators' lag tools; nothing here reads it back.
    fn commit(&mut self, consumer: &Consumer) {
        let mut list = TopicPartitionList::new();
        for cell in self.cells.values() {
            let next = cell.partition.lock().stored() + 1;
            if next > 0 && self.committed.insert(cell.number, next) != Some(next) {
                let _ = list.add_partition_offset(&self.job.settings.topic, cell.number, Offset::Offset(next));
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            debug!(source = %self.job.source, %error, "offsets not committed");
        }
    }
}
