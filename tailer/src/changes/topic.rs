//! The change log of a cluster: one topic, one partition, never compacted. This node reads it, keeps a copy of what it
//! adds up to, and puts proposals into it.
//!
//! A node decides nothing while the log is in trouble: missing, shorter, another, wrongly configured, or with a record
//! that it does not understand. It goes on by itself once the log is as it should be.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionUid, Problem,
    catalog::{Begin, Change, ChangeRecord, Entry, LEVEL, LogChange, LogRecord, Outcome, State, Trouble},
    client::follower::Known,
    cluster::{NodeName, place},
    tailer::{Changes, LogHealth},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminOptions, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::CHANGE_BYTES_MAX;
use crate::kafka::cluster::{Appender, ClusterKafka, unavailable};

/// How the topic must be.
const TOPIC_SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", "16777216"),
];
/// Which of them are looked at: the last only says how large a change may be.
const TOPIC_SETTINGS_CHECKED: usize = 4;
const PARTITION: i32 = 0;
const POLL: Duration = Duration::from_millis(50);
const BROKER_ANSWER: Duration = Duration::from_secs(5);
/// How often the topic is looked at, while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long to wait after trouble.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A proposal that comes into the log later than this is refused by everybody.
const VALID_FOR: Duration = Duration::from_secs(60);
/// How long a proposal waits to be read back.
const JUDGED_WITHIN: Duration = Duration::from_secs(8);

type Judged = (i64, Result<(), Problem>);

/// The change log in its topic. A cheap handle.
#[derive(Clone)]
pub struct TopicChanges {
    shared: Arc<Shared>,
}

struct Shared {
    kafka: ClusterKafka,
    known: Arc<Known>,
    appender: Appender,
    leaves: Vec<NodeName>,
    waiting: Mutex<HashMap<Uuid, Vec<oneshot::Sender<Judged>>>>,
    stop: CancellationToken,
}

impl TopicChanges {
    /// Begins to read. New collections are placed on `leaves`.
    pub fn start(
        kafka: ClusterKafka,
        known: Arc<Known>,
        leaves: Vec<NodeName>,
        stop: CancellationToken,
    ) -> Result<Self, Problem> {
        let appender = Appender::new(&kafka)?;
        known.unread();
        let shared = Arc::new(Shared {
            kafka,
            known,
            appender,
            leaves,
            waiting: Mutex::default(),
            stop,
        });
        // Of its own: the process' runtime may end before the thread has noticed.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Problem::new(Code::Internal, format!("no runtime for the change log: {error}")))?;
        let reader = shared.clone();
        std::thread::Builder::new()
            .name("changes".into())
            .spawn(move || reader.keep(&runtime))
            .map_err(|error| Problem::new(Code::Internal, format!("no thread for the change log: {error}")))?;
        Ok(Self { shared })
    }

    /// Puts a change into the log and waits until this node has read it back: its offset. The same uid may be proposed
    /// again.
    pub async fn submit(&self, uid: Uuid, change: Change, expected: Option<u64>) -> Result<i64, Problem> {
        let shared = &self.shared;
        if let Some(trouble) = shared.known.health().trouble {
            return Err(
                Problem::new(Code::Unavailable, format!("nothing can be agreed on: {trouble}"))
                    .hint("rachis cluster status shows how each node sees it"),
            );
        }
        let state = shared.known.state().borrow().clone();
        if state.cluster.is_none() {
            return Err(
                Problem::new(Code::Unavailable, "the change log was not read yet").hint("try again a little later")
            );
        }
        let change = placed(change, uid, &shared.leaves);
        let record = ChangeRecord {
            uid,
            level: LEVEL,
            expected,
            change,
        };
        let not_after_ms = now_ms() + i64::try_from(VALID_FOR.as_millis()).unwrap_or(i64::MAX);
        let entry = Entry::Change(LogChange {
            record,
            not_after_ms,
            seen: state.seen(),
        });
        let json = serde_json::to_vec(&LogRecord { level: LEVEL, entry })
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        if json.len() > CHANGE_BYTES_MAX {
            return Err(Problem::new(
                Code::TooLarge,
                format!("the change has {} bytes, the limit is {CHANGE_BYTES_MAX}", json.len()),
            ));
        }
        let (told, judged) = oneshot::channel();
        shared.waiting.lock().entry(uid).or_default().push(told);
        let begun = Instant::now();
        let appended = shared
            .appender
            .append(&shared.kafka.changes_topic, PARTITION, &json)
            .await;
        let judged = match appended {
            Ok(_) => tokio::time::timeout(JUDGED_WITHIN, judged)
                .await
                .ok()
                .and_then(Result::ok),
            Err(problem) => {
                shared.waiting.lock().remove(&uid);
                return Err(problem);
            }
        };
        shared.waiting.lock().remove(&uid);
        metrics::histogram!("rachis_change_write_seconds").record(begun.elapsed().as_secs_f64());
        match judged {
            Some((offset, result)) => result.map(|()| offset),
            None => Err(Problem::new(
                Code::UnknownOutcome,
                "the change is in the log and was not read back in time",
            )
            .hint("read what is in force")),
        }
    }
}

/// A new collection with its shards placed.
fn placed(change: Change, uid: Uuid, leaves: &[NodeName]) -> Change {
    match change {
        Change::CreateCollection {
            name,
            settings,
            placement,
        } if placement.is_empty() => {
            let placement = place(CollectionUid(uid), settings.shards, leaves);
            Change::CreateCollection {
                name,
                settings,
                placement,
            }
        }
        other => other,
    }
}

/// The time on this machine, milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Changes for TopicChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.shared.known.catalog()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        self.submit(Uuid::now_v7(), change, expected).await?;
        Ok(self.shared.known.catalog().borrow().clone())
    }

    fn health(&self) -> LogHealth {
        self.shared.known.health()
    }
}

impl Shared {
    /// Reads until it is stopped; after trouble again, from the last record that was read.
    fn keep(&self, runtime: &Runtime) {
        while !self.stop.is_cancelled() {
            if let Err(trouble) = self.read(runtime) {
                self.known.trouble(Some(trouble));
                // Who waits is told at once: another tailer may do better.
                self.waiting.lock().clear();
            }
            runtime.block_on(async {
                tokio::select! { () = tokio::time::sleep(AGAIN_AFTER) => {}, () = self.stop.cancelled() => {} }
            });
        }
    }

    fn read(&self, runtime: &Runtime) -> Result<(), String> {
        let consumer = self.consumer()?;
        self.look(&consumer, runtime)?;
        let mut state = (*self.known.state().borrow().clone()).clone();
        let mut next = state.offset.max(0);
        self.assign(&consumer, next)?;
        let (mut looked, mut unsaved) = (Instant::now(), false);
        while !self.stop.is_cancelled() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    if message.offset() != next {
                        return Err(Trouble::Hole {
                            expected: next,
                            found: message.offset(),
                        }
                        .to_string());
                    }
                    next += 1;
                    let (bytes, time_ms) = (
                        message.payload().unwrap_or_default(),
                        message.timestamp().to_millis().unwrap_or_default(),
                    );
                    match state.read(message.offset(), time_ms, bytes) {
                        Ok(outcome) => {
                            unsaved = true;
                            // A proposer is told after this node serves what was decided.
                            if let Outcome::Judged(uid, result) = outcome {
                                self.known.advance(state.clone());
                                unsaved = false;
                                self.tell(uid, message.offset(), &result);
                            }
                        }
                        Err(Trouble::Other { .. }) if message.offset() > 0 => {
                            state = self.adopt(&consumer, &state)?;
                            next = 1;
                            self.known.advance(state.clone());
                            self.assign(&consumer, next)?;
                        }
                        Err(trouble) => return Err(trouble.to_string()),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if std::mem::take(&mut unsaved) {
                        self.known.advance(state.clone());
                    }
                    if state.cluster.is_none() {
                        return Err(format!(
                            "topic {} is empty: run `rachis cluster init` again",
                            self.kafka.changes_topic
                        ));
                    }
                    self.known.trouble(None);
                }
                Some(Err(error)) => self.note(&error)?,
                None => {}
            }
            if looked.elapsed() > LOOK_EVERY {
                looked = Instant::now();
                // The client tells of the end once: that its brokers answer again has to be seen here.
                if self.look(&consumer, runtime)? <= next {
                    self.known.trouble(None);
                }
            }
        }
        Ok(())
    }

    /// Whether an error of the client ends this attempt. While no broker answers, the client tries by itself.
    fn note(&self, error: &KafkaError) -> Result<(), String> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {
                self.known
                    .trouble(Some("the cluster's Kafka does not answer".to_owned()));
                Ok(())
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err("the log is shorter than what was read".to_owned())
            }
            _ => Err(unavailable(error).detail),
        }
    }

    fn tell(&self, uid: Uuid, offset: i64, result: &Result<(), Problem>) {
        for waiting in self.waiting.lock().remove(&uid).unwrap_or_default() {
            let _ = waiting.send((offset, result.clone()));
        }
    }

    fn consumer(&self) -> Result<BaseConsumer, String> {
        let config = self.kafka.client(&[
            ("group.id", "rachis-changes"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
            ("allow.auto.create.topics", "false"),
            ("fetch.wait.max.ms", "100"),
            ("topic.metadata.refresh.interval.ms", "5000"),
        ]);
        config.create().map_err(|error: KafkaError| unavailable(&error).detail)
    }

    fn assign(&self, consumer: &BaseConsumer, offset: i64) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.kafka.changes_topic, PARTITION, Offset::Offset(offset))
            .map_err(|e| e.to_string())?;
        consumer.assign(&list).map_err(|e| e.to_string())
    }

    /// Whether the topic is there, as long as it must be, and configured as it must be; the offset after its last
    /// record.
    fn look(&self, consumer: &BaseConsumer, runtime: &Runtime) -> Result<i64, String> {
        let topic = &self.kafka.changes_topic;
        let metadata = consumer
            .fetch_metadata(Some(topic), BROKER_ANSWER)
            .map_err(|error| unavailable(&error).detail)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty());
        let Some(found) = found else {
            let known = self.known.health().offset;
            let hint = match known {
                ..0 => "`rachis cluster init` makes it".to_owned(),
                _ => format!(
                    "this node has read it through {known}: `rachis cluster restore-changes --from FILE` makes it anew; FILE is the catalog.json of a node that is up to date"
                ),
            };
            return Err(format!("the change log, topic {topic}, is missing ({hint})"));
        };
        if found.partitions().len() != 1 {
            return Err(format!(
                "topic {topic} has {} partitions; the change log has one",
                found.partitions().len()
            ));
        }
        // Taken first: peers may tell of records that came since the log was measured.
        let known = self.known.health().offset;
        let (low, high) = consumer
            .fetch_watermarks(topic, PARTITION, BROKER_ANSWER)
            .map_err(|error| unavailable(&error).detail)?;
        if low > 0 {
            return Err(format!(
                "the first {low} records of topic {topic} are gone; the change log keeps all"
            ));
        }
        if high <= known && !self.restored(consumer) {
            return Err(format!(
                "topic {topic} ends at {high}, and this node has read it through {known}: it was cut or made anew (delete it, and `rachis cluster restore-changes --from FILE` makes it anew from a node's catalog.json)"
            ));
        }
        self.check_settings(runtime)?;
        Ok(high)
    }

    /// Whether the topic was made anew from a copy that this node may go on from.
    fn restored(&self, consumer: &BaseConsumer) -> bool {
        let state = self.known.state().borrow().clone();
        match self.adopt(consumer, &state) {
            Ok(adopted) => {
                self.known.advance(adopted);
                true
            }
            Err(_) => false,
        }
    }

    fn check_settings(&self, runtime: &Runtime) -> Result<(), String> {
        let topic = &self.kafka.changes_topic;
        let described = runtime.block_on(async {
            let admin = self.kafka.admin()?;
            let options = AdminOptions::new().request_timeout(Some(BROKER_ANSWER));
            admin
                .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
                .await
                .map_err(|error| unavailable(&error))
        });
        let described = described.map_err(|problem| problem.detail)?.into_iter().next();
        let described = described
            .ok_or("the broker does not tell the topic's settings")?
            .map_err(|code| code.to_string())?;
        for (key, wanted) in &TOPIC_SETTINGS[..TOPIC_SETTINGS_CHECKED] {
            let found = described.get(key).and_then(|entry| entry.value.as_deref());
            if found != Some(*wanted) {
                return Err(format!(
                    "topic {topic} has {key}={}; the change log needs {key}={wanted}",
                    found.unwrap_or("nothing")
                ));
            }
        }
        Ok(())
    }

    /// The state that a log made anew begins with, where this node may go on from it.
    fn adopt(&self, consumer: &BaseConsumer, state: &State) -> Result<State, String> {
        self.assign(consumer, 0)?;
        let deadline = Instant::now() + BROKER_ANSWER;
        while Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(POLL)
                && message.offset() == 0
            {
                let adopted = state
                    .adopt(message.payload().unwrap_or_default())
                    .map_err(|trouble| trouble.to_string())?;
                warn!(
                    from = adopted.catalog.version,
                    "the change log was made anew from a copy, and this node goes on from there"
                );
                return Ok(adopted);
            }
        }
        Err("the first record of the change log does not come".to_owned())
    }
}

/// Makes the change log of a new cluster; its id.
pub async fn init(kafka: &ClusterKafka) -> Result<Uuid, Problem> {
    let cluster = Uuid::now_v7();
    begin(kafka, Begin { cluster, from: None }).await?;
    info!(topic = kafka.changes_topic, cluster = %cluster.simple(), "change log made");
    Ok(cluster)
}

/// Makes the change log anew from a node's copy, where it is gone.
pub async fn restore(kafka: &ClusterKafka, from: State) -> Result<(), Problem> {
    let Some(cluster) = from.cluster else {
        return Err(Problem::new(Code::BadRequest, "the copy belongs to no cluster").hint("take another node's"));
    };
    begin(
        kafka,
        Begin {
            cluster,
            from: Some(Box::new(from)),
        },
    )
    .await
}

async fn begin(kafka: &ClusterKafka, begin: Begin) -> Result<(), Problem> {
    let topic = &kafka.changes_topic;
    if !kafka.make_topic(topic, 1, &TOPIC_SETTINGS).await? && records(kafka).await? > 0 {
        return Err(Problem::new(Code::Conflict, format!("the change log, topic {topic}, exists already"))
            .hint("one log serves one cluster: another cluster needs another [cluster] changes_topic. To restore a log, delete the topic first"));
    }
    let record = LogRecord {
        level: LEVEL,
        entry: Entry::Begin(begin),
    };
    let json = serde_json::to_vec(&record).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    let offset = Appender::new(kafka)?.append(topic, PARTITION, &json).await?;
    match offset {
        0 => Ok(()),
        _ => Err(Problem::new(
            Code::Conflict,
            format!("somebody else wrote into topic {topic} at the same moment"),
        )),
    }
}

/// How many records the log has.
async fn records(kafka: &ClusterKafka) -> Result<i64, Problem> {
    let (config, topic) = (
        kafka.client(&[("group.id", "rachis-changes")]),
        kafka.changes_topic.clone(),
    );
    let ask = move || {
        let consumer: BaseConsumer = config.create().map_err(|error: KafkaError| unavailable(&error))?;
        let (_, high) = consumer
            .fetch_watermarks(&topic, PARTITION, BROKER_ANSWER)
            .map_err(|error| unavailable(&error))?;
        Ok(high)
    };
    tokio::task::spawn_blocking(ask)
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
}
