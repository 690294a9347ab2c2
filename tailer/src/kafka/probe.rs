//! Inspects a topic without ingesting it: the end offsets of its partitions, and its first records.
//!
//! Uses a short-lived client that joins no group, commits nothing and stores nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    Code, Problem, SourceName,
    catalog::{SourceSettings, Start},
    limits::PREVIEW_RECORDS_MAX,
    record::Record,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{config, context::SourceContext, error::ClientError, record::record, status::SourceStatus};

const METADATA_WAIT: Duration = Duration::from_secs(6);
const PREVIEW_WAIT: Duration = Duration::from_secs(8);
/// The pause between two attempts while a leader is elected.
const LEADER_WAIT: Duration = Duration::from_millis(200);
/// How long to wait for the client to report why it got no answer.
const REASON_WAIT: Duration = Duration::from_millis(300);

/// The end offset of each partition, or why the topic cannot be read. Blocks for seconds.
pub(super) fn ends(settings: &SourceSettings) -> Result<Vec<i64>, Problem> {
    let probe = Probe::new(settings)?;
    (0..)
        .zip(probe.partitions()?)
        .map(|(number, _)| probe.end(number).map_err(|error| probe.unreachable(&error)))
        .collect()
}

/// The first records that a source would deliver, or the last ones if it starts at the latest record. Blocks for
/// seconds.
pub(super) fn preview(settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
    let probe = Probe::new(settings)?;
    let numbers = probe.partitions()?;
    probe.read(&numbers, settings.start, records.min(PREVIEW_RECORDS_MAX))
}

struct Probe {
    consumer: BaseConsumer<SourceContext>,
    status: Arc<SourceStatus>,
    topic: String,
}

impl Probe {
    fn new(settings: &SourceSettings) -> Result<Self, Problem> {
        config::check_topic(&settings.topic)?;
        let source: SourceName = "probe"
            .parse()
            .map_err(|error: proto::address::Malformed| Problem::new(Code::Internal, error.to_string()))?;
        let status = Arc::new(SourceStatus::new(settings.collection.clone(), None, source));
        let mut config = config::consumer(settings, "rachis-preview", None)?;
        config
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("statistics.interval.ms", "0");
        let consumer =
            config
                .create_with_context(SourceContext::new(status.clone()))
                .map_err(|error: KafkaError| {
                    Problem::new(Code::BadRequest, format!("cannot create the Kafka client: {error}"))
                })?;
        Ok(Self {
            consumer,
            status,
            topic: settings.topic.clone(),
        })
    }

    /// The end offset of a partition: one after its last record. Retries while the brokers elect a leader, as they do
    /// for a new topic.
    fn end(&self, partition: i32) -> Result<i64, KafkaError> {
        let deadline = Instant::now() + METADATA_WAIT;
        loop {
            match self.consumer.fetch_watermarks(&self.topic, partition, METADATA_WAIT) {
                Err(error) if is_electing_leader(&error) && Instant::now() < deadline => {
                    let _ = self.consumer.poll(LEADER_WAIT);
                    let _ = self.consumer.fetch_metadata(Some(&self.topic), METADATA_WAIT);
                }
                answer => return answer.map(|(_, high)| high),
            }
        }
    }

    fn partitions(&self) -> Result<Vec<i32>, Problem> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), METADATA_WAIT)
            .map_err(|error| self.unreachable(&error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        if let Some(error) = topic.and_then(|topic| topic.error()) {
            let code = RDKafkaErrorCode::from(error);
            let kind = match code {
                RDKafkaErrorCode::UnknownTopicOrPartition => Code::NotFound,
                _ => Code::Unavailable,
            };
            let reason = ClientError::new(code, "").without_retry();
            return Err(Problem::new(
                kind,
                format!("cannot read topic {}: {reason}", self.topic),
            ));
        }
        let numbers: Vec<i32> =
            topic.map_or_else(Vec::new, |topic| topic.partitions().iter().map(|p| p.id()).collect());
        match numbers.is_empty() {
            true => Err(
                Problem::new(Code::NotFound, format!("topic {} does not exist", self.topic))
                    .hint("create it, or check its name"),
            ),
            false => Ok(numbers),
        }
    }

    /// The problem of a request without an answer. The client reports the reason separately, a moment later.
    fn unreachable(&self, error: &KafkaError) -> Problem {
        let deadline = Instant::now() + REASON_WAIT;
        while Instant::now() < deadline && self.status.error().is_none() {
            let _ = self.consumer.poll(Duration::from_millis(50));
        }
        let detail = match self.status.error() {
            Some(reason) => reason.without_retry(),
            None => {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
                ClientError::new(code, format!("no response from the brokers: {code}")).without_retry()
            }
        };
        Problem::new(Code::Unavailable, detail)
    }

    fn read(&self, numbers: &[i32], start: Start, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
        self.seek(numbers, start, records)
            .map_err(|error| Problem::new(Code::Unavailable, error.to_string()))?;
        let (mut found, mut open, deadline) = (Vec::new(), numbers.len(), Instant::now() + PREVIEW_WAIT);
        while found.len() < records && open > 0 && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => found.push((message.partition(), record(&message))),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(_)) | None => {}
            }
        }
        match self.status.error() {
            Some(error) if found.is_empty() && open > 0 => Err(Problem::new(Code::Unavailable, error.without_retry())),
            _ => Ok(found),
        }
    }

    /// Positions the consumer so that it delivers about `records` records of all partitions together.
    fn seek(&self, numbers: &[i32], start: Start, records: usize) -> Result<(), KafkaError> {
        let share = records.div_ceil(numbers.len().max(1));
        let mut list = TopicPartitionList::new();
        for number in numbers {
            let offset = match start {
                Start::Earliest => Offset::Beginning,
                Start::Latest => Offset::OffsetTail(i64::try_from(share).unwrap_or(1)),
            };
            list.add_partition_offset(&self.topic, *number, offset)?;
        }
        self.consumer.assign(&list)
    }
}

fn is_electing_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        FencedLeaderEpoch, LeaderNotAvailable, NotLeaderForPartition, ReplicaNotAvailable, UnknownLeaderEpoch,
        UnknownTopicOrPartition,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            NotLeaderForPartition
                | LeaderNotAvailable
                | FencedLeaderEpoch
                | UnknownLeaderEpoch
                | ReplicaNotAvailable
                // The metadata has the partition, so a broker that does not know it yet will learn of it.
                | UnknownTopicOrPartition
        )
    )
}
