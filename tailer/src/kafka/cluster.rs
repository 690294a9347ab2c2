//! The cluster's own Kafka: where the change log and the topics of pushes are. Clients for it, and its topics' making.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{Code, Problem};
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
use tracing::info;

use super::config::{KEYS_THAT_LOAD_CODE, explain, without_retry};

const ADMIN_WAIT: Duration = Duration::from_secs(10);
/// How long a record may be on its way to the broker.
const DELIVERY_WAIT: Duration = Duration::from_secs(8);
/// How long the broker may take to say that it is there, and how long that is believed.
const LOOK_WAIT: Duration = Duration::from_secs(2);
const BELIEVED_FOR: Duration = Duration::from_secs(1);
/// Records that wait for the broker.
const QUEUE_RECORDS_MAX: usize = 20_000;
/// Kilobytes that wait for the broker.
const QUEUE_KBYTES_MAX: usize = 256 << 10;

/// Where the cluster's Kafka is, and how its topics are made.
#[derive(Debug, Clone, Default)]
pub struct ClusterKafka {
    /// `bootstrap.servers`.
    pub servers: String,
    /// Further librdkafka keys.
    pub config: BTreeMap<String, String>,
    /// The topic of the change log.
    pub changes_topic: String,
    /// Copies of each topic.
    pub replication: i32,
}

impl ClusterKafka {
    /// The keys of a client, ours before the user's.
    pub fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
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
        config.extend(ours.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        config
    }

    /// The config of a source that reads from it.
    pub fn source_config(&self) -> BTreeMap<String, String> {
        let mut config = self.config.clone();
        config.insert("bootstrap.servers".to_owned(), self.servers.clone());
        config
    }

    /// A client for topics and their settings.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Problem> {
        self.client(&[]).create().map_err(|error| unavailable(&error))
    }

    /// Makes a topic. Whether it was made; not, where it was there.
    pub async fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<bool, Problem> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.replication));
        topic.config = settings.to_vec();
        let in_sync = if self.replication > 2 { "2" } else { "1" };
        topic = topic.set("min.insync.replicas", in_sync);
        let options = AdminOptions::new()
            .operation_timeout(Some(ADMIN_WAIT))
            .request_timeout(Some(ADMIN_WAIT));
        let made = self
            .admin()?
            .create_topics(&[topic], &options)
            .await
            .map_err(|error| unavailable(&error))?;
        match made.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((topic, code))) => Err(Problem::new(
                Code::Unavailable,
                format!("topic {topic} cannot be made: {}", explain(code, "")),
            )),
            None => Err(Problem::new(
                Code::Unavailable,
                format!("topic {name} cannot be made: the broker does not say why"),
            )),
        }
    }

    /// Removes topics; one that is not there is none too many.
    pub async fn remove_topics(&self, names: &[String]) -> Result<(), Problem> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let options = AdminOptions::new()
            .operation_timeout(Some(ADMIN_WAIT))
            .request_timeout(Some(ADMIN_WAIT));
        let removed = self
            .admin()?
            .delete_topics(&names, &options)
            .await
            .map_err(|error| unavailable(&error))?;
        for outcome in removed {
            match outcome {
                Ok(topic) => info!(topic, "a topic of pushes is removed: its collection was dropped"),
                Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((topic, code)) => {
                    return Err(Problem::new(
                        Code::Unavailable,
                        format!("topic {topic} cannot be removed: {}", explain(code, "")),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Kafka said no, or nothing.
pub fn unavailable(error: &KafkaError) -> Problem {
    let code = error
        .rdkafka_error_code()
        .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
    Problem::new(
        Code::Unavailable,
        format!("the cluster's Kafka: {}", explain(code, &error.to_string())),
    )
}

/// Writes records, each acknowledged by all copies before its answer.
///
/// It does not ask the broker to drop what is sent twice: every record of ours names itself, and who reads it knows
/// what it has seen.
pub struct Appender {
    producer: Arc<ThreadedProducer<Delivered>>,
    /// A topic that is there as long as the cluster is.
    changes_topic: String,
    /// When the broker answered last, and whether it did.
    looked: Mutex<Option<(Instant, Result<(), Problem>)>>,
    /// One asks it, others wait for what it says.
    looking: tokio::sync::Mutex<()>,
}

struct Delivered;

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<oneshot::Sender<Result<i64, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        // Nobody waits any more where the asker has gone.
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
    pub fn new(kafka: &ClusterKafka) -> Result<Self, Problem> {
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
        let producer =
            ThreadedProducer::from_config_and_context(&config, Delivered).map_err(|error| unavailable(&error))?;
        Ok(Self {
            producer: Arc::new(producer),
            changes_topic: kafka.changes_topic.clone(),
            looked: Mutex::default(),
            looking: Default::default(),
        })
    }

    /// Whether the broker answers, asked before anything is sent: of what was sent into silence nobody knows whether it
    /// is stored.
    pub async fn look(&self) -> Result<(), Problem> {
        let lately = || {
            self.looked
                .lock()
                .clone()
                .filter(|(at, _)| at.elapsed() < BELIEVED_FOR)
                .map(|(_, answer)| answer)
        };
        if let Some(answer) = lately() {
            return answer;
        }
        let _looking = self.looking.lock().await;
        if let Some(answer) = lately() {
            return answer;
        }
        let (producer, topic) = (Arc::clone(&self.producer), self.changes_topic.clone());
        let asked =
            tokio::task::spawn_blocking(move || producer.client().fetch_metadata(Some(&topic), LOOK_WAIT).map(drop))
                .await;
        let answer = asked
            .map_err(|error| Problem::new(Code::Internal, error.to_string()))?
            .map_err(|error| {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
                Problem::new(
                    Code::Unavailable,
                    format!(
                        "the cluster's Kafka does not answer: {}",
                        without_retry(&explain(code, ""))
                    ),
                )
            });
        *self.looked.lock() = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Writes a record: its offset. `Busy` where too much waits already, `UnknownOutcome` where the broker does not
    /// say.
    pub async fn append(&self, topic: &str, partition: i32, payload: &[u8]) -> Result<i64, Problem> {
        let (answer, delivered) = oneshot::channel();
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(answer))
            .partition(partition)
            .payload(payload);
        let begun = Instant::now();
        match self.producer.send(record) {
            Ok(()) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                return Err(Problem::new(Code::Busy, "too much waits for Kafka").hint("try again a little later"));
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                return Err(Problem::new(
                    Code::TooLarge,
                    format!("{} bytes are too much for one record of Kafka", payload.len()),
                ));
            }
            Err((error, _)) => return Err(unavailable(&error)),
        }
        let delivered = delivered
            .await
            .map_err(|_| Problem::new(Code::UnknownOutcome, "the Kafka client is closing"))?;
        metrics::histogram!("rachis_append_seconds").record(begun.elapsed().as_secs_f64());
        *self.looked.lock() = delivered.is_ok().then(|| (Instant::now(), Ok(())));
        delivered.map_err(|error| Problem {
            code: Code::UnknownOutcome,
            ..unavailable(&error)
        })
    }

    /// Waits until everything is delivered.
    pub fn flush(&self, wait: Duration) {
        if let Err(error) = self.producer.flush(wait) {
            tracing::warn!(%error, "records on their way to Kafka were not all acknowledged");
        }
    }
}
