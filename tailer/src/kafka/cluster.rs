//! The cluster's own Kafka, which holds the change log and the push topics: its clients, and the administration of its
//! topics.

use std::{
    collections::BTreeMap,
    mem::ManuallyDrop,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    Code, Problem,
    catalog::{SourceSettings, Start},
    record::Rules,
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Error, config::KEYS_THAT_LOAD_CODE, error::ClientError, probe};

const ADMIN_WAIT: Duration = Duration::from_secs(10);
/// How long the delivery of a record may take.
const DELIVERY_WAIT: Duration = Duration::from_secs(8);
/// How long the broker may take to answer a health check.
const CHECK_WAIT: Duration = Duration::from_secs(2);
/// Grace period on top of a client's own timeouts. A client that exceeds it is considered stuck.
const CLIENT_DELAY_MAX: Duration = Duration::from_secs(1);
/// How long the result of a health check is valid.
const CHECK_VALID: Duration = Duration::from_secs(1);
/// The most records that wait for the broker.
const QUEUE_RECORDS_MAX: usize = 20_000;
/// The most kilobytes that wait for the broker.
const QUEUE_KBYTES_MAX: usize = 256 << 10;

/// The address of the cluster's Kafka, and the settings for its topics.
#[derive(Debug, Clone, Default)]
pub struct ClusterKafka {
    /// `bootstrap.servers`.
    pub servers: String,
    /// Further librdkafka keys.
    pub config: BTreeMap<String, String>,
    /// The topic of the change log.
    pub changes_topic: String,
    /// The replication factor of each topic.
    pub replication: i32,
}

impl ClusterKafka {
    /// The configuration of a client. `fixed` overrides what the user has configured.
    pub fn client(&self, fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
            .set("client.id", "rachis")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000");
        config.set("socket.connection.setup.timeout.ms", "3000");
        for (key, value) in self
            .config
            .iter()
            .filter(|(key, _)| !KEYS_THAT_LOAD_CODE.contains(&key.as_str()))
        {
            config.set(key.as_str(), value.as_str());
        }
        config.set("bootstrap.servers", self.servers.as_str());
        config.extend(
            fixed
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        config
    }

    /// The configuration of a source that reads from this Kafka.
    pub fn source_config(&self) -> BTreeMap<String, String> {
        let mut config = self.config.clone();
        config.insert("bootstrap.servers".to_owned(), self.servers.clone());
        config
    }

    /// A client to administer topics.
    pub(crate) fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Error> {
        self.client(&[]).create().map_err(|error| Error::cluster(&error))
    }

    /// Creates a topic. Returns whether it was created; `false` if it exists already.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<bool, Problem> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.replication));
        topic.config = settings.to_vec();
        let in_sync = if self.replication > 2 { "2" } else { "1" };
        topic = topic.set("min.insync.replicas", in_sync);
        let created = self
            .admin()?
            .create_topics(&[topic], &admin_options())
            .await
            .map_err(|error| Error::cluster(&error))?;
        match created.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((topic, RDKafkaErrorCode::InvalidReplicationFactor))) => Err(Problem::new(
                Code::Unavailable,
                format!(
                    "cannot create topic {topic} with {} copies: too few brokers are up",
                    self.replication
                ),
            )
            .hint("start the other brokers, or set `replication` in [cluster] to their number")),
            Some(Err((topic, code))) => Err(Problem::new(
                Code::Unavailable,
                format!("cannot create topic {topic}: {}", ClientError::new(code, "")),
            )),
            None => Err(Problem::new(
                Code::Unavailable,
                format!("cannot create topic {name}: the broker gave no reason"),
            )),
        }
    }

    /// The end offset of each partition of a topic; `None` if it does not exist.
    pub(crate) async fn ends_of(&self, topic: &str) -> Result<Option<Vec<i64>>, Problem> {
        let settings = SourceSettings {
            collection: "any".parse()?,
            topic: topic.to_owned(),
            config: self.source_config(),
            rules: Rules::default(),
            start: Start::Earliest,
            partitions: None,
            ends: Vec::new(),
        };
        let asked = tokio::task::spawn_blocking(move || probe::ends(&settings)).await;
        match asked.map_err(|error| Problem::new(Code::Internal, error.to_string()))? {
            Ok(ends) => Ok(Some(ends)),
            Err(problem) if problem.code == Code::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Deletes topics of collections. A topic that does not exist is not an error.
    pub async fn delete_topics(&self, names: &[String]) -> Result<(), Problem> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let deleted = self
            .admin()?
            .delete_topics(&names, &admin_options())
            .await
            .map_err(|error| Error::cluster(&error))?;
        for outcome in deleted {
            match outcome {
                Ok(topic) => info!(topic, "deleted a topic of a dropped collection"),
                Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((topic, code)) => {
                    return Err(Problem::new(
                        Code::Unavailable,
                        format!("cannot delete topic {topic}: {}", ClientError::new(code, "")),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(ADMIN_WAIT))
        .request_timeout(Some(ADMIN_WAIT))
}

/// Appends records to topics. All in-sync replicas acknowledge a record before [`Appender::append`] returns.
///
/// The producer is not idempotent: every record carries its own id, so readers detect duplicates.
pub(crate) struct Appender {
    config: ClientConfig,
    /// It is replaced when it does not deliver a record in time: after a broker froze for some seconds, producers were
    /// seen to send nothing any more, although the broker answered their other requests.
    producer: Mutex<Arc<RecordProducer>>,
    /// The topic to check: it exists as long as the cluster does.
    changes_topic: String,
    /// The result of the last health check, and its time.
    checked: Mutex<Option<(Instant, Result<(), Problem>)>>,
    /// Held during a health check; other callers wait for its result.
    checking: tokio::sync::Mutex<()>,
}

/// A producer that shuts down on a separate thread, whoever drops it: shutdown joins librdkafka's threads, which may
/// take long or never return after the broker froze.
struct RecordProducer(Option<ThreadedProducer<DeliveryCallback>>);

impl RecordProducer {
    fn new(config: &ClientConfig) -> Result<Arc<Self>, KafkaError> {
        let producer = ThreadedProducer::from_config_and_context(config, DeliveryCallback)?;
        Ok(Arc::new(Self(Some(producer))))
    }
}

impl Deref for RecordProducer {
    type Target = ThreadedProducer<DeliveryCallback>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is taken only when it is dropped")
    }
}

impl Drop for RecordProducer {
    fn drop(&mut self) {
        let producer = ManuallyDrop::new(self.0.take());
        let ended = std::thread::Builder::new()
            .name("kafka-end".to_owned())
            .spawn(move || drop(ManuallyDrop::into_inner(producer)));
        if let Err(error) = ended {
            warn!(%error, "cannot start a thread to shut down a Kafka client; the client is leaked");
        }
    }
}

struct DeliveryCallback;

impl ClientContext for DeliveryCallback {}

impl ProducerContext for DeliveryCallback {
    type DeliveryOpaque = Box<oneshot::Sender<Result<i64, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        // Fails if the caller no longer waits.
        let _ = answer.send(
            result
                .as_ref()
                .map(|message| message.offset())
                .map_err(|(error, _)| error.clone()),
        );
    }
}

impl Appender {
    /// A producer for the cluster's topics.
    pub(crate) fn new(kafka: &ClusterKafka) -> Result<Self, Problem> {
        let (records, kbytes, delivery) = (
            QUEUE_RECORDS_MAX.to_string(),
            QUEUE_KBYTES_MAX.to_string(),
            DELIVERY_WAIT.as_millis().to_string(),
        );
        let config = kafka.client(&[
            ("acks", "all"),
            ("enable.idempotence", "false"),
            ("message.timeout.ms", &delivery),
            ("linger.ms", "0"),
            ("compression.type", "lz4"),
            ("message.max.bytes", "100000000"),
            ("queue.buffering.max.messages", &records),
            ("queue.buffering.max.kbytes", &kbytes),
        ]);
        let producer = RecordProducer::new(&config).map_err(|error| Error::cluster(&error))?;
        Ok(Self {
            config,
            producer: Mutex::new(producer),
            changes_topic: kafka.changes_topic.clone(),
            checked: Mutex::default(),
            checking: Default::default(),
        })
    }

    fn producer(&self) -> Arc<RecordProducer> {
        self.producer.lock().clone()
    }

    /// Replaces a producer that did not deliver a record, or answer, in time, unless it was replaced already.
    fn replace(&self, late: &Arc<RecordProducer>) {
        let mut producer = self.producer.lock();
        if !Arc::ptr_eq(&producer, late) {
            return;
        }
        match RecordProducer::new(&self.config) {
            Ok(new) => {
                warn!("the Kafka client did not deliver a record, or answer, in time; a new client replaces it");
                *producer = new;
            }
            Err(error) => warn!(%error, "cannot start a new Kafka client"),
        }
    }

    /// Checks that the broker answers. Callers check it before they send: if the broker is silent while a record is
    /// sent, it is unknown whether the record is stored.
    pub(crate) async fn check(&self) -> Result<(), Problem> {
        if let Some(result) = self.recent_check() {
            return result;
        }
        let _checking = self.checking.lock().await;
        if let Some(result) = self.recent_check() {
            return result;
        }
        let (producer, topic) = (self.producer(), self.changes_topic.clone());
        let asked = producer.clone();
        let answer =
            tokio::task::spawn_blocking(move || asked.client().fetch_metadata(Some(&topic), CHECK_WAIT).map(drop));
        let answer = tokio::time::timeout(CHECK_WAIT + CLIENT_DELAY_MAX, answer).await;
        if answer.is_err() {
            self.replace(&producer);
        }
        let result = answer
            .unwrap_or(Ok(Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))))
            .map_err(|error| Problem::new(Code::Internal, error.to_string()))?
            .map_err(|error| {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
                let reason = ClientError::new(code, "").without_retry();
                Problem::new(
                    Code::Unavailable,
                    format!("the cluster's Kafka does not respond: {reason}"),
                )
            });
        *self.checked.lock() = Some((Instant::now(), result.clone()));
        result
    }

    fn recent_check(&self) -> Option<Result<(), Problem>> {
        self.checked
            .lock()
            .clone()
            .filter(|(at, _)| at.elapsed() < CHECK_VALID)
            .map(|(_, result)| result)
    }

    /// Appends a record and returns its offset. `Busy` if too many records wait already, `UnknownOutcome` if the broker
    /// does not acknowledge the record.
    pub(crate) async fn append(&self, topic: &str, partition: i32, payload: &[u8]) -> Result<i64, Problem> {
        let (answer, delivered) = oneshot::channel();
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(answer))
            .partition(partition)
            .payload(payload);
        let started = Instant::now();
        let producer = self.producer();
        match producer.send(record) {
            Ok(()) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                return Err(
                    Problem::new(Code::Busy, "too many records are waiting for Kafka").hint("retry in a moment")
                );
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                return Err(Problem::new(
                    Code::TooLarge,
                    format!("a record of {} bytes is too large for Kafka", payload.len()),
                ));
            }
            Err((error, _)) => return Err(Error::cluster(&error).into()),
        }
        let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        let delivered = tokio::time::timeout(DELIVERY_WAIT + CLIENT_DELAY_MAX, delivered)
            .await
            .unwrap_or(Ok(Err(late)))
            .map_err(|_| Problem::new(Code::UnknownOutcome, "the Kafka client is shutting down"))?;
        metrics::histogram!("rachis_append_seconds").record(started.elapsed().as_secs_f64());
        *self.checked.lock() = delivered.is_ok().then(|| (Instant::now(), Ok(())));
        if is_late(&delivered) {
            self.replace(&producer);
        }
        delivered.map_err(|error| Problem {
            code: Code::UnknownOutcome,
            ..Problem::from(Error::cluster(&error))
        })
    }

    /// Waits until all records are delivered.
    pub(crate) fn flush(&self, wait: Duration) {
        if let Err(error) = self.producer().flush(wait) {
            warn!(%error, "Kafka did not acknowledge all records in time");
        }
    }
}

/// Whether the client gave up a record.
fn is_late(delivered: &Result<i64, KafkaError>) -> bool {
    matches!(
        delivered,
        Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_deliver_is_replaced() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("changes", 1, 1).expect("a topic");
        let kafka = ClusterKafka {
            servers: broker.bootstrap_servers(),
            changes_topic: "changes".to_owned(),
            replication: 1,
            ..ClusterKafka::default()
        };
        let appender = Appender::new(&kafka).expect("a client");
        let first = appender.producer();
        assert_eq!(appender.append("changes", 0, b"first").await, Ok(0));
        assert!(Arc::ptr_eq(&first, &appender.producer()), "it delivers");
        let answer_after = |delay| broker.broker_round_trip_time(1, delay).expect("a delay");
        answer_after(Duration::from_secs(3_600));
        let late = appender.append("changes", 0, b"second").await;
        assert_eq!(late.map_err(|problem| problem.code), Err(Code::UnknownOutcome));
        assert!(!Arc::ptr_eq(&first, &appender.producer()), "it does not deliver");
        answer_after(Duration::ZERO);
        let third = appender.append("changes", 0, b"third").await;
        assert!(third.is_ok(), "{third:?}");
    }
}
