//! Looks into a topic without reading it for good: how many partitions it has, and what its first records are.
//!
//! A client of its own, for moments; it joins no group, commits nothing and stores nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    Code, Problem, SourceName,
    catalog::{SourceSettings, Start},
    record::Record,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{board::Board, config, context::Context, record::record};

const METADATA_WAIT: Duration = Duration::from_secs(6);
const PREVIEW_WAIT: Duration = Duration::from_secs(8);
/// Between two questions for a leader.
const LEADER_WAIT: Duration = Duration::from_millis(200);
/// Records of one preview.
pub const PREVIEW_RECORDS_MAX: usize = 1_000;

fn leader_is_chosen(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        FencedLeaderEpoch, LeaderNotAvailable, NotLeaderForPartition, ReplicaNotAvailable, UnknownLeaderEpoch,
        UnknownTopicOrPartition,
    };
    // The partition is in the metadata: a broker that does not know it yet will.
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            NotLeaderForPartition
                | LeaderNotAvailable
                | FencedLeaderEpoch
                | UnknownLeaderEpoch
                | ReplicaNotAvailable
                | UnknownTopicOrPartition
        )
    )
}

struct Probe {
    consumer: BaseConsumer<Context>,
    board: Arc<Board>,
    topic: String,
}

/// The offset after the last record of each partition, or why the topic cannot be read. Blocks for seconds.
pub fn ends(settings: &SourceSettings) -> Result<Vec<i64>, Problem> {
    let probe = Probe::new(settings)?;
    (0..)
        .zip(probe.partitions()?)
        .map(|(number, _)| probe.end(number).map_err(|error| probe.unreachable(&error)))
        .collect()
}

/// The first records that a source would give (of one that starts at the end: the last that are there). Blocks for
/// seconds.
pub fn preview(settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
    let probe = Probe::new(settings)?;
    let numbers = probe.partitions()?;
    probe.read(&numbers, settings.start, records.min(PREVIEW_RECORDS_MAX))
}

impl Probe {
    fn new(settings: &SourceSettings) -> Result<Self, Problem> {
        config::check_topic(&settings.topic)?;
        let source: SourceName = "probe"
            .parse()
            .map_err(|error: proto::address::Malformed| Problem::new(Code::Internal, error.to_string()))?;
        let board = Arc::new(Board::new(settings.collection.clone(), source));
        let mut config = config::consumer(settings, "rachis-preview", None)?;
        config
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("statistics.interval.ms", "0");
        let consumer = config
            .create_with_context(Context::new(board.clone()))
            .map_err(|error: KafkaError| {
                Problem::new(Code::BadRequest, format!("the Kafka client cannot be made: {error}"))
            })?;
        Ok(Self {
            consumer,
            board,
            topic: settings.topic.clone(),
        })
    }

    /// The offset after the last record of a partition. It is asked again while the brokers choose a leader, as they do
    /// for a new topic.
    fn end(&self, partition: i32) -> Result<i64, KafkaError> {
        let deadline = Instant::now() + METADATA_WAIT;
        loop {
            match self.consumer.fetch_watermarks(&self.topic, partition, METADATA_WAIT) {
                Err(error) if leader_is_chosen(&error) && Instant::now() < deadline => {
                    let _ = self.consumer.poll(LEADER_WAIT);
                    let _ = self.consumer.fetch_metadata(Some(&self.topic), METADATA_WAIT);
                }
                answered => return answered.map(|(_, high)| high),
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
            let kind = if code == RDKafkaErrorCode::UnknownTopicOrPartition {
                Code::NotFound
            } else {
                Code::Unavailable
            };
            return Err(Problem::new(
                kind,
                format!(
                    "topic {} cannot be read: {}",
                    self.topic,
                    config::without_retry(&config::explain(code, ""))
                ),
            ));
        }
        let numbers: Vec<i32> =
            topic.map_or_else(Vec::new, |topic| topic.partitions().iter().map(|p| p.id()).collect());
        match numbers.is_empty() {
            true => Err(
                Problem::new(Code::NotFound, format!("topic {} does not exist there", self.topic))
                    .hint("create it, or check its name"),
            ),
            false => Ok(numbers),
        }
    }

    /// The client says that it got no answer; why, it has said by itself.
    fn unreachable(&self, error: &KafkaError) -> Problem {
        let deadline = Instant::now() + Duration::from_millis(300);
        while Instant::now() < deadline && self.said().is_none() {
            let _ = self.consumer.poll(Duration::from_millis(50));
        }
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::OperationTimedOut);
        let detail = self
            .said()
            .unwrap_or_else(|| config::explain(code, &format!("no answer from the brokers: {code}")));
        Problem::new(Code::Unavailable, config::without_retry(&detail))
    }

    fn said(&self) -> Option<String> {
        self.board.rows().into_iter().find_map(|row| row.error)
    }

    fn read(&self, numbers: &[i32], start: Start, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
        let internal = |error: KafkaError| Problem::new(Code::Unavailable, error.to_string());
        let share = records.div_ceil(numbers.len().max(1));
        let mut list = TopicPartitionList::new();
        for number in numbers {
            let offset = match start {
                Start::Earliest => Offset::Beginning,
                Start::Latest => Offset::OffsetTail(i64::try_from(share).unwrap_or(1)),
            };
            list.add_partition_offset(&self.topic, *number, offset)
                .map_err(internal)?;
        }
        self.consumer.assign(&list).map_err(internal)?;
        let (mut found, mut open, deadline) = (Vec::new(), numbers.len(), Instant::now() + PREVIEW_WAIT);
        while found.len() < records && open > 0 && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => found.push((message.partition(), record(&message))),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(_)) | None => {}
            }
        }
        match self.said() {
            Some(error) if found.is_empty() && open > 0 => {
                Err(Problem::new(Code::Unavailable, config::without_retry(&error)))
            }
            _ => Ok(found),
        }
    }
}
