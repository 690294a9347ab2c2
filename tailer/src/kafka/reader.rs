//! The poll thread of a source: owns the consumer, fills the windows of the partitions, and follows rebalances.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::record::Record;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Error,
    closing::ConsumerCloser,
    config,
    context::{Rebalance, SourceContext},
    error::ClientError,
    feed_apart::ApartReaders,
    hold_back::HoldBack,
    idle::IdleComparison,
    partition::{Flow, Partition},
    record::{decode_push, record},
    sender::Sender,
    slot::{PartitionSlot, Replica},
    status::SourceStatus,
    task::{Routing, SourceTask},
    windows::SourceWindows,
};

/// How long one poll waits for a record. This delays the handling of what senders request.
const POLL: Duration = Duration::from_millis(20);
/// The most records that are polled before the thread handles everything else.
const BURST_RECORDS_MAX: usize = 1_000;
/// How often a thread that is held back checks whether there is room again.
const HELD_BACK_CHECK: Duration = Duration::from_millis(5);
/// A partition that needs a seek waits this long for others that need one too.
const SEEK_TOGETHER: Duration = Duration::from_millis(50);
/// How often offsets are committed and metrics recorded.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The client reports an offset out of range without its partition. All partitions are then resolved, at most this
/// often.
const RESOLVE_ALL_EVERY: Duration = Duration::from_secs(1);
/// How much longer than its session a consumer may wait for an assignment. If a broker was frozen for longer than the
/// session, the client may wait forever.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(5);
/// A consumer that is not closed within this time is left behind.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for the answers to batches in flight before the consumer is closed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

type Consumer = Arc<BaseConsumer<SourceContext>>;

/// The state of the poll thread.
pub(super) struct Reader {
    task: Arc<SourceTask>,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    slots: BTreeMap<i32, Arc<PartitionSlot>>,
    /// Changes when replicas are added or removed.
    routing: watch::Receiver<Routing>,
    windows: SourceWindows,
    closer: Arc<ConsumerCloser>,
    /// Closes the consumers that feed replicas apart.
    apart_closer: Arc<ConsumerCloser>,
    /// Stops the senders of the partitions that are assigned now …
    senders_stop: CancellationToken,
    /// … and of one of them, with these. After a rebalance the next senders of a partition wait for the last ones.
    slot_senders: BTreeMap<i32, (CancellationToken, TaskTracker)>,
    senders: TaskTracker,
    committed: BTreeMap<i32, i64>,
    hold_back: HoldBack,
    /// Whether the group has assigned partitions and the consumer is not positioned yet.
    must_seek: bool,
    /// Since when at least one partition has needed a seek.
    seek_needed_since: Option<Instant>,
    /// Since when the group has assigned nothing.
    unassigned_since: Option<Instant>,
    reported: Instant,
    idle: IdleComparison,
    /// Records received since the last report.
    received: u64,
    resolved_all: Option<Instant>,
    /// Whether an offset was out of range. The client does not report of which partition.
    out_of_range: bool,
    /// The partition that it reads for one replica which is behind, instead of those that the group assigns.
    apart: Option<Arc<PartitionSlot>>,
}

impl Reader {
    /// A reader that is not running yet.
    pub(super) fn new(
        task: Arc<SourceTask>,
        status: Arc<SourceStatus>,
        windows: SourceWindows,
        closer: Arc<ConsumerCloser>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            routing: task.routing.subscribe(),
            task,
            status,
            windows,
            closer,
            apart_closer: Arc::default(),
            senders_stop: stop.child_token(),
            stop,
            slots: BTreeMap::new(),
            slot_senders: BTreeMap::new(),
            senders: TaskTracker::new(),
            committed: BTreeMap::new(),
            hold_back: HoldBack::default(),
            must_seek: false,
            seek_needed_since: None,
            unassigned_since: Some(Instant::now()),
            reported: Instant::now(),
            idle: IdleComparison::new(),
            received: 0,
            resolved_all: None,
            out_of_range: false,
            apart: None,
        }
    }

    /// The same, for one partition and one replica, outside of the group.
    pub(super) fn apart(self, slot: Arc<PartitionSlot>) -> Self {
        Self {
            apart: Some(slot),
            unassigned_since: None,
            ..self
        }
    }

    /// Polls until the source is stopped, or until an error that this consumer cannot survive. Blocks its thread.
    pub(super) fn run(mut self, handle: &Handle) -> Result<(), Error> {
        let consumer = self.subscribe()?;
        self.status.set_stopped(false);
        let (source, topic, group) = (&self.task.source, &self.task.settings.topic, self.task.group());
        let apart = self.apart.as_ref().map(|slot| slot.number);
        info!(%source, topic, group, apart, "consumer started");
        if let Some(slot) = self.apart.clone() {
            self.must_seek = true;
            self.start_senders(slot, &consumer, handle);
        }
        let result = self.poll(&consumer, handle);
        if self.apart.is_none() {
            self.commit(&consumer);
        }
        self.senders_stop.cancel();
        self.senders.close();
        let senders = self.senders.clone();
        if handle
            .block_on(async { tokio::time::timeout(ANSWERED_WITHIN, senders.wait()).await })
            .is_err()
        {
            warn!(source = %self.task.source, "the leaf did not respond to a batch in time");
        }
        self.close(consumer);
        result
    }

    /// Creates the consumer and joins the group, unless it reads apart.
    fn subscribe(&self) -> Result<Consumer, Error> {
        let settings = &self.task.settings;
        let config = config::consumer(settings, &self.task.group(), self.task.options.node.as_deref())
            .map_err(Error::Settings)?;
        config::check_topic(&settings.topic).map_err(Error::Settings)?;
        let consumer: BaseConsumer<SourceContext> = config
            .create_with_context(SourceContext::new(self.status.clone()))
            .map_err(Error::CreateClient)?;
        if self.apart.is_none() {
            let subscribed = consumer.subscribe(&[&settings.topic]);
            subscribed.map_err(|error| Error::Subscribe {
                topic: settings.topic.clone(),
                error,
            })?;
        }
        Ok(Arc::new(consumer))
    }

    /// Leaves the group and closes the consumer, within a time limit.
    fn close(&self, consumer: Consumer) {
        consumer.context().close();
        // A sender may still use the consumer for a request to the broker, for some seconds.
        let close = move || {
            while Arc::strong_count(&consumer) > 1 {
                std::thread::sleep(POLL);
            }
            drop(consumer);
        };
        let source = &self.task.source;
        match self.closer.run(&format!("close-{source}"), CLOSED_WITHIN, close) {
            Ok(true) => info!(%source, "consumer closed"),
            // The client's thread is left behind. The group expires its member after the session.
            Ok(false) => {
                let seconds = CLOSED_WITHIN.as_secs();
                warn!(%source, "the consumer did not close within {seconds} s and is abandoned")
            }
            Err(error) => warn!(%source, %error, "could not start a thread to close the consumer"),
        }
    }

    fn poll(&mut self, consumer: &Consumer, handle: &Handle) -> Result<(), Error> {
        while !self.stop.is_cancelled() {
            match self.hold_back.is_holding() {
                true => std::thread::sleep(HELD_BACK_CHECK),
                false => self.poll_records(consumer),
            }
            for change in consumer.context().rebalances() {
                self.rebalance(change, consumer, handle);
            }
            self.check_topic_recreated(consumer);
            self.resolve_all_if_out_of_range();
            self.follow_routing(consumer, handle);
            self.seek(consumer)?;
            self.control_flow(consumer);
            self.check_alive(consumer)?;
            self.idle.start_if_due(&self.task, &self.slots, handle);
            if self.reported.elapsed() >= REPORT_EVERY {
                self.reported = Instant::now();
                self.report(consumer);
            }
        }
        Ok(())
    }

    fn poll_records(&mut self, consumer: &Consumer) {
        let mut wait = POLL;
        for _ in 0..BURST_RECORDS_MAX {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    self.check_topic_recreated(consumer);
                    self.receive(message.partition(), record(&message));
                }
                Some(Err(error)) => self.handle_error(&error),
            }
            wait = Duration::ZERO;
        }
    }

    fn receive(&mut self, partition: i32, record: Record) {
        self.received += 1;
        let record = match self.task.source.is_own() {
            true => decode_push(record),
            false => record,
        };
        let Some(slot) = self.slots.get(&partition) else { return };
        let record = Record {
            offset: record.offset + self.task.begins_at(partition),
            ..record
        };
        if slot.partition.lock().add(record) {
            slot.wake();
        }
    }

    fn handle_error(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                if let Some(slot) = self.slots.get(partition) {
                    slot.partition.lock().reached_end();
                }
                self.status.clear_error();
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.out_of_range = true
            }
            other => {
                debug!(source = %self.task.source, error = %other, "the Kafka client reports an error");
                // Records from before do not show that it is over.
                self.received = 0;
            }
        }
    }

    /// Fails if the consumer can no longer make progress. After a fatal error (mostly because of another member with
    /// the same name) the client does nothing more, but does not mark the event as fatal, so it must be asked.
    fn check_alive(&self, consumer: &Consumer) -> Result<(), Error> {
        if let Some((code, reason)) = consumer.client().fatal_error() {
            return Err(Error::Client(ClientError::new(code, reason)));
        }
        let silent = self
            .unassigned_since
            .map(|since| since.elapsed())
            .filter(|silent| *silent > self.task.session() + ASSIGNED_WITHIN);
        match silent {
            // A known error (no topic, no broker) explains more than the silence that follows from it.
            Some(silent) => Err(self.status.error().unwrap_or(Error::NotAssigned {
                seconds: silent.as_secs(),
            })),
            None => Ok(()),
        }
    }

    /// Resolves all partitions after an offset was out of range. A request that comes too early is not forgotten: the
    /// client reads nothing more of the affected partition until it is positioned again.
    fn resolve_all_if_out_of_range(&mut self) {
        if !self.out_of_range || self.resolved_all.is_some_and(|at| at.elapsed() < RESOLVE_ALL_EVERY) {
            return;
        }
        self.resolved_all = Some(Instant::now());
        self.out_of_range = false;
        info!(source = %self.task.source, "an offset is out of range: checking where each partition continues");
        self.resolve_all();
    }

    /// If the topic was recreated under the same name, discards the windows before a record of the new topic is
    /// received, and compares each partition with what is stored.
    fn check_topic_recreated(&self, consumer: &Consumer) {
        if consumer.context().take_topic_recreated() {
            info!(source = %self.task.source, "the topic was recreated: checking where each partition continues");
            self.resolve_all();
        }
    }

    fn resolve_all(&self) {
        for slot in self.slots.values() {
            slot.partition.lock().resolve_all();
            slot.wake();
        }
    }

    fn rebalance(&mut self, change: Rebalance, consumer: &Consumer, handle: &Handle) {
        info!(source = %self.task.source, ?change, "the consumer group was rebalanced");
        self.senders_stop.cancel();
        self.slots.clear();
        // Records from before do not show that the source works from here on, so they must not clear an error that
        // came with the rebalance.
        self.received = 0;
        self.unassigned_since = matches!(change, Rebalance::Revoked).then(Instant::now);
        if let Rebalance::Assigned(numbers) = change {
            self.senders_stop = self.stop.child_token();
            self.must_seek = true;
            for number in numbers {
                self.start_partition(number, consumer, handle);
            }
        }
        self.status.set_slots(self.slots.clone());
    }

    /// Begins anew with the partitions of shards that have other replicas by now, and with those that belong to other
    /// shards. The senders that end have their last batches answered; who follows them asks each leaf what it has.
    fn follow_routing(&mut self, consumer: &Consumer, handle: &Handle) {
        if self.apart.is_some() || !self.routing.has_changed().unwrap_or(false) {
            return;
        }
        self.routing.mark_unchanged();
        let is_moved = |slot: &PartitionSlot| {
            let now = self.task.replicas(slot.number);
            let is_same = |(one, other): (&Replica, &Replica)| one.is_same(other);
            now.len() != slot.replicas.len() || !slot.replicas.iter().zip(&now).all(is_same)
        };
        let moved: Vec<i32> = self
            .slots
            .values()
            .filter(|slot| is_moved(slot))
            .map(|slot| slot.number)
            .collect();
        for number in &moved {
            if let Some((stop, _)) = self.slot_senders.get(number) {
                stop.cancel();
            }
            self.start_partition(*number, consumer, handle);
        }
        for slot in self.slots.values() {
            slot.partition.lock().hold(self.task.held(slot.number));
            slot.wake();
        }
        if !moved.is_empty() {
            info!(source = %self.task.source, partitions = ?moved, "the records go to other replicas");
            self.status.set_slots(self.slots.clone());
        }
    }

    fn start_partition(&mut self, number: i32, consumer: &Consumer, handle: &Handle) {
        let (limits, skips) = (self.task.options.batch_limits(), self.task.skips.of(number));
        let slot = PartitionSlot::new(number, limits, skips, self.task.replicas(number));
        slot.partition.lock().hold(self.task.held(number));
        self.start_senders(slot, consumer, handle);
    }

    /// Starts a sender for each replica of a partition.
    fn start_senders(&mut self, slot: Arc<PartitionSlot>, consumer: &Consumer, handle: &Handle) {
        self.slots.insert(slot.number, slot.clone());
        let (stop, senders) = (self.senders_stop.child_token(), TaskTracker::new());
        let before = self.slot_senders.insert(slot.number, (stop.clone(), senders.clone()));
        let before = before.map(|(_, before)| before);
        for replica in 0..slot.replicas.len() {
            let sender = Sender {
                task: self.task.clone(),
                slot: slot.clone(),
                replica,
                others: Default::default(),
                apart: ApartReaders {
                    budget: self.windows.budget(),
                    closer: self.apart_closer.clone(),
                },
                status: self.status.clone(),
                consumer: Arc::downgrade(consumer),
                stop: stop.clone(),
            };
            let sending = senders.track_future(sender.run(before.clone()));
            self.senders.spawn_on(sending, handle);
        }
    }

    /// Positions the consumer, if a partition must be read from another offset.
    fn seek(&mut self, consumer: &Consumer) -> Result<(), Error> {
        let waiting = self
            .slots
            .values()
            .filter(|slot| slot.partition.lock().needs_seek())
            .count();
        if waiting == 0 && !self.must_seek {
            self.seek_needed_since = None;
            return Ok(());
        }
        let since = *self.seek_needed_since.get_or_insert_with(Instant::now);
        if waiting < self.slots.len() && since.elapsed() < SEEK_TOGETHER {
            return Ok(());
        }
        self.assign(consumer).map_err(|error| Error::Seek {
            topic: self.task.settings.topic.clone(),
            error,
        })?;
        self.must_seek = false;
        self.seek_needed_since = None;
        Ok(())
    }

    /// Assigns all partitions that are to be read, each at its next offset.
    fn assign(&self, consumer: &Consumer) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for slot in self.slots.values() {
            if let Some(offset) = self.next_offset(slot) {
                list.add_partition_offset(&self.task.settings.topic, slot.number, offset)?;
            }
        }
        consumer.assign(&list)?;
        // A sender may have chosen another offset in the meantime; then the partition still needs a seek.
        for element in list.elements() {
            let Some(slot) = self.slots.get(&element.partition()) else {
                continue;
            };
            if self.next_offset(slot) == Some(element.offset()) {
                slot.partition.lock().seek_done();
            }
        }
        // The client remembers that a partition was paused.
        consumer.resume(&list)
    }

    /// The next offset to read at the broker, if the partition is to be read.
    fn next_offset(&self, slot: &PartitionSlot) -> Option<Offset> {
        let next = slot.partition.lock().next_offset()?;
        Some(Offset::Offset((next - self.task.begins_at(slot.number)).max(0)))
    }

    /// Pauses partitions whose window stays full, and resumes those with room.
    fn control_flow(&mut self, consumer: &Consumer) {
        let bytes = self
            .slots
            .values()
            .map(|slot| slot.partition.lock().buffered_bytes())
            .sum();
        let window_bytes_max = self
            .windows
            .update(self.slots.len(), bytes, self.task.options.window_bytes_max);
        let is_any = |is: &dyn Fn(&Partition) -> bool| self.slots.values().any(|slot| is(&slot.partition.lock()));
        let is_full = is_any(&|partition| partition.is_full(window_bytes_max));
        let is_starved = is_any(&|partition| partition.is_starved());
        let now = Instant::now();
        let may_pause = self.hold_back.update(is_full, is_starved, now);
        for slot in self.slots.values() {
            let (behind, goes_on) = slot.partition.lock().keep_pace(window_bytes_max, now);
            if goes_on || !behind.is_empty() {
                slot.wake();
            }
            for replica in behind {
                let leaf = slot.replicas[replica].name.as_ref().map(ToString::to_string);
                warn!(
                    source = %self.task.source,
                    partition = slot.number,
                    leaf,
                    "a replica does not keep up with the others: it is fed apart until it has caught up"
                );
            }
            let Some(flow) = slot.partition.lock().flow(window_bytes_max, may_pause) else {
                continue;
            };
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.task.settings.topic, slot.number);
            let result = match flow {
                Flow::Pause => consumer.pause(&list),
                Flow::Resume => consumer.resume(&list),
            };
            if let Err(error) = result {
                // Reading continues unchanged: only memory is at risk.
                let source = &self.task.source;
                warn!(%source, partition = slot.number, ?flow, %error, "could not pause or resume the partition");
            }
        }
    }

    fn report(&mut self, consumer: &Consumer) {
        let ends = consumer.context().ends();
        if std::mem::take(&mut self.received) > 0 {
            self.status.clear_error();
        }
        for slot in self.slots.values() {
            if let Some(end) = ends.get(&slot.number) {
                slot.partition.lock().note_end(*end + self.task.begins_at(slot.number));
            }
        }
        // The partition is reported by the reader that the group has assigned it to.
        if self.apart.is_none() {
            self.status.record_metrics();
            self.commit(consumer);
        }
    }

    /// Commits offsets to the group, for the lag tools of operators. Rachis never reads them back.
    fn commit(&mut self, consumer: &Consumer) {
        let mut list = TopicPartitionList::new();
        for slot in self.slots.values() {
            let next = slot.partition.lock().stored() + 1 - self.task.begins_at(slot.number);
            if next > 0 && self.committed.insert(slot.number, next) != Some(next) {
                let _ = list.add_partition_offset(&self.task.settings.topic, slot.number, Offset::Offset(next));
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            debug!(source = %self.task.source, %error, "could not commit offsets");
        }
    }
}
