//! Errors on the way between Kafka and a leaf, and of the change log in Kafka. Each says what happened, and to what. It
//! becomes text only in a status, in the fault of the change log, or in a `Problem`.

use std::fmt;

use proto::{Code, Problem, catalog::LogFault, ingest::Backpressure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why a source, one of its partitions, or the change log makes no progress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings of the source are not accepted.
    #[error("{0}")]
    Settings(Problem),
    /// The Kafka client of the source cannot be created.
    #[error("cannot create the Kafka client: {0}")]
    CreateClient(KafkaError),
    /// The consumer cannot join its group.
    #[error("cannot subscribe to topic {topic}: {error}")]
    Subscribe { topic: String, error: KafkaError },
    /// The consumer cannot be positioned.
    #[error("cannot set the read position in topic {topic}: {error}")]
    Seek { topic: String, error: KafkaError },
    /// The Kafka client of a source reports an error.
    #[error("{0}")]
    Client(ClientError),
    /// The group coordinator is silent.
    #[error("the consumer group has assigned no partitions for {seconds} s (a new consumer replaces this one)")]
    NotAssigned { seconds: u64 },
    /// Too many earlier consumers of the source hang while they close.
    #[error("{count} consumers of the source could not be closed, so no new one is created: restart the node")]
    ConsumersNotClosed { count: usize },
    /// The operating system refuses a thread.
    #[error("cannot start a thread for the source: {reason}")]
    Thread { reason: String },
    /// The poll thread panicked.
    #[error("the reader of the source panicked; this is a bug in Rachis")]
    ReaderPanicked,
    /// A blocking request to the broker did not run to its end.
    #[error("a request to the broker was interrupted: {reason}")]
    Interrupted { reason: String },
    /// The consumer is already closed.
    #[error("the source is stopping")]
    Stopping,

    /// The leaf does not answer, or refuses the request.
    #[error("{0}")]
    Leaf(Problem),
    /// The replica accepts nothing yet.
    #[error("the replica waits for a copy of another one: `select * from rachis.moves` shows the progress")]
    AwaitsCopy,
    /// Backpressure from the leaf.
    #[error("{}", .0.reason)]
    LeafBusy(Backpressure),
    #[error(
        "{partition} is being spread over other shards: its records from offset {from} on wait for {waits_for}; \
         `rachis source spread {source_name} {number} --withdraw` gives it up"
    )]
    SpreadWaits {
        partition: String,
        source_name: String,
        number: i32,
        from: i64,
        waits_for: String,
    },
    /// The leaf refuses a batch for good.
    #[error("{reason}")]
    BatchRefused { reason: String },
    /// The source now points to another topic than its stored records.
    #[error(
        "the stored records were read from {stored}, but the source now reads {found}: this is another cluster or \
         topic (change the source back, or create a source with another name)"
    )]
    OtherTopic { stored: String, found: String },
    /// Records were deleted before they were ingested.
    #[error(
        "the records {partition}@{from} through {partition}@{through} no longer exist at the broker and were not \
         ingested: the topic's retention deleted them first (to continue without them: {command})"
    )]
    Lost {
        partition: String,
        from: i64,
        through: i64,
        command: String,
    },
    /// Records were deleted at the broker that this replica lacks and another one has.
    #[error(
        "this replica lacks the records {partition}@{from} through {partition}@{through}, which another replica has and the \
         broker has no more: it stays behind, and the others answer"
    )]
    ReplicaLacks { partition: String, from: i64, through: i64 },
    /// This replica stored records although they are skipped.
    #[error(
        "this replica has stored the record {partition}@{offset}, which is skipped on request: it was still being stored \
         when the skip began (stop this leaf, remove the folder of the shard from its data folder, and start it, and it \
         copies the shard from another leaf)"
    )]
    StoredSkipped { partition: String, offset: i64 },
    /// Changes of documents were deleted at the broker before the leaf read them.
    #[error(
        "the changes {partition}@{from} through {partition}@{through} no longer exist at the broker, and the shard has \
         not read them: it would show documents that were deleted, so it answers nothing (restore the topic {topic} \
         from a copy; its retention is without end unless someone changed it)"
    )]
    ChangesLost {
        partition: String,
        from: i64,
        through: i64,
        topic: String,
    },
    /// The broker has fewer records than the leaf, or than when the source was created.
    #[error(
        "the broker has offsets only up to {newest}, but it had {partition}@{stored}: the topic was truncated or \
         recreated (create a source with another name for the records that it has now)"
    )]
    Shorter {
        partition: String,
        stored: i64,
        newest: i64,
    },
    /// A skip ends after the last record.
    #[error("the source should continue at offset {to}, but the broker has offsets only up to {newest}")]
    SkipAhead { to: i64, newest: i64 },
    /// Too many of the first records became dead letters.
    #[error(
        "too many records became dead letters, so nothing more is read: see rachis.dead_letters (if the records are \
         text, create a source with \"format\": \"text\"; to continue without them: DELETE \
         /v1/collections/{collection}/dead-letters?source={source_name})"
    )]
    TooManyDead { collection: String, source_name: String },

    /// The client of the cluster's own Kafka reports an error.
    #[error("the cluster's Kafka reported an error: {0}")]
    Cluster(ClientError),
    /// No broker of the cluster's own Kafka answers.
    #[error("the cluster's Kafka does not respond")]
    ClusterSilent,
    /// The change log was never created.
    #[error("the change log, topic {topic}, is missing (`rachis cluster init` creates it)")]
    LogNotCreated { topic: String },
    /// The change log was deleted.
    #[error(
        "the change log, topic {topic}, is missing, and this node has read it through {read}: `rachis cluster \
         restore-changes --from FILE` recreates it; FILE is the catalog.json of a node that is up to date"
    )]
    LogDeleted { topic: String, read: i64 },
    /// The change log has no header.
    #[error("topic {topic} is empty: run `rachis cluster init` again")]
    LogEmpty { topic: String },
    /// The change log is not one sequence.
    #[error("topic {topic} has {partitions} partitions, but the change log must have exactly one")]
    LogPartitions { topic: String, partitions: usize },
    /// The beginning of the change log was deleted.
    #[error("the first {records} records of topic {topic} were deleted, but the change log must keep all of them")]
    LogStartDeleted { topic: String, records: i64 },
    /// The change log is shorter than what this node has read.
    #[error(
        "topic {topic} ends at offset {end}, but this node has read it through {read}: it was truncated or recreated \
         (delete it, then `rachis cluster restore-changes --from FILE` recreates it from a node's catalog.json)"
    )]
    LogTruncated { topic: String, end: i64, read: i64 },
    /// The next record of the change log does not exist any more.
    #[error("the change log is shorter than what this node has read")]
    LogOutOfRange,
    /// The broker does not return the settings of the change log.
    #[error("the broker did not return the settings of topic {topic}")]
    LogSettingsUnknown { topic: String },
    /// A setting of the change log could lose changes.
    #[error("topic {topic} has {key}={found}; the change log needs {key}={expected}")]
    LogSetting {
        topic: String,
        key: &'static str,
        found: String,
        expected: &'static str,
    },
    /// The header of the change log does not arrive.
    #[error("the first record of topic {topic} did not arrive in time")]
    LogHeaderLate { topic: String },
    /// A record of the change log must not be applied.
    #[error("{0}")]
    Log(LogFault),
}

impl Error {
    /// An error of a client of the cluster's own Kafka.
    pub fn cluster(error: &KafkaError) -> Self {
        Self::Cluster(ClientError::from(error))
    }

    /// Whether a partition that stopped for this reason is checked again from time to time: the cause can go away while
    /// the source stays as it is.
    pub fn is_rechecked(&self) -> bool {
        matches!(
            self,
            Self::OtherTopic { .. }
                | Self::Lost { .. }
                | Self::ReplicaLacks { .. }
                | Self::StoredSkipped { .. }
                | Self::ChangesLost { .. }
                | Self::Shorter { .. }
                | Self::SkipAhead { .. }
                | Self::TooManyDead { .. }
        )
    }

    /// The text for a caller whose request is not retried in the background.
    pub fn without_retry(&self) -> String {
        match self {
            Self::Client(error) => error.without_retry(),
            other => other.to_string(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(problem) | Error::Leaf(problem) => problem,
            other => Problem::new(Code::Unavailable, other.to_string()),
        }
    }
}

/// An error of the Kafka client. Its text includes what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    code: RDKafkaErrorCode,
    /// The client's own text; the text of the code if empty.
    reason: String,
}

/// What the text of an error says if the client retries.
const RETRIED: &str = "this is retried automatically";

impl ClientError {
    /// An error with the client's own text.
    pub fn new(code: RDKafkaErrorCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// The text for a caller whose request is not retried in the background.
    pub fn without_retry(&self) -> String {
        self.text(advice(self.code).0)
    }

    fn text(&self, advice: Option<&str>) -> String {
        let what = match self.reason.is_empty() {
            true => self.code.to_string(),
            false => self.reason.clone(),
        };
        match advice {
            Some(advice) => format!("{what} ({advice})"),
            None => what,
        }
    }
}

impl From<&KafkaError> for ClientError {
    fn from(error: &KafkaError) -> Self {
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
        Self::new(code, error.to_string())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match advice(self.code) {
            (Some(advice), true) => self.text(Some(&format!("{advice}; {RETRIED}"))),
            (None, true) => self.text(Some(RETRIED)),
            (advice, false) => self.text(advice),
        };
        f.write_str(&text)
    }
}

/// What an operator can do about an error of the client, and whether the client retries.
fn advice(code: RDKafkaErrorCode) -> (Option<&'static str>, bool) {
    use RDKafkaErrorCode as E;
    match code {
        E::AllBrokersDown | E::BrokerTransportFailure | E::OperationTimedOut => (
            Some("no broker responds: check bootstrap.servers, the network and the broker"),
            true,
        ),
        E::UnknownTopicOrPartition | E::UnknownTopic | E::UnknownPartition => {
            (Some("the topic does not exist: create it, or check its name"), true)
        }
        E::Resolve => (
            Some("the broker's name cannot be resolved: check bootstrap.servers and the broker's advertised.listeners"),
            false,
        ),
        E::Authentication | E::SaslAuthenticationFailed => (
            Some(
                "the broker rejects the login: check sasl.mechanisms, sasl.username, sasl.password and \
                 security.protocol",
            ),
            false,
        ),
        E::SSL => (
            Some("TLS failed: check security.protocol, ssl.ca.location, and that the broker's port speaks TLS"),
            false,
        ),
        E::TopicAuthorizationFailed => (
            Some("the login may not read the topic: grant it READ and DESCRIBE on the topic"),
            false,
        ),
        E::GroupAuthorizationFailed => (
            Some(
                "the login may not use the consumer group: grant it READ on the group, or set group.id to a group that \
                 it may use",
            ),
            false,
        ),
        E::ClusterAuthorizationFailed => (Some("the login lacks this permission on the cluster"), false),
        E::Fenced | E::FencedInstanceId => (
            Some("another process reads this source under the same node name: stop one of them"),
            false,
        ),
        E::PollExceeded => (Some("the reader was blocked for too long and is restarted"), false),
        _ => (None, true),
    }
}
