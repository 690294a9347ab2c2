//! Reads the change log into the replica of this node, and checks that the topic is the log that the node knows.

use std::time::{Duration, Instant};

use proto::{
    Problem,
    catalog::{LogFault, Outcome, State},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminOptions, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::runtime::Runtime;
use tracing::warn;
use uuid::Uuid;

use super::{BROKER_ANSWER, PARTITION, TOPIC_SETTINGS, TOPIC_SETTINGS_CHECKED, TopicLog};
use crate::kafka::{ClientError, Error, cluster::ClusterKafka};

pub(super) const POLL: Duration = Duration::from_millis(50);
/// How often the topic is checked.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long to wait after a fault.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The progress of reading.
struct LogCursor {
    state: State,
    /// The offset of the next record.
    next: i64,
    /// Whether `state` is ahead of the replica.
    unsaved: bool,
}

impl TopicLog {
    /// Reads until the log is stopped. After a fault, reads again from the last record that was read.
    pub(super) fn run(&self, runtime: &Runtime) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.read(runtime) {
                self.replica.set_fault(Some(error.to_string()));
                // Waiting proposers get an answer at once: another tailer may do better.
                self.waiting.lock().clear();
            }
            runtime.block_on(async {
                tokio::select! { () = tokio::time::sleep(RETRY_AFTER) => {}, () = self.stop.cancelled() => {} }
            });
        }
    }

    fn read(&self, runtime: &Runtime) -> Result<(), Error> {
        let consumer = log_consumer(&self.kafka)?;
        self.check(&consumer, runtime)?;
        let state = (*self.replica.state().borrow().clone()).clone();
        let mut cursor = LogCursor {
            next: state.offset.max(0),
            state,
            unsaved: false,
        };
        self.assign(&consumer, cursor.next)?;
        let mut checked = Instant::now();
        while !self.stop.is_cancelled() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.read_record(&consumer, &mut cursor, &message)?,
                Some(Err(KafkaError::PartitionEOF(_))) => self.reach_end(&mut cursor)?,
                Some(Err(error)) => self.handle_error(&error)?,
                None => {}
            }
            if checked.elapsed() > CHECK_EVERY {
                checked = Instant::now();
                // The client reports the end of the partition only once, so it does not tell that the brokers answer
                // again.
                if self.check(&consumer, runtime)? <= cursor.next {
                    self.replica.set_fault(None);
                }
            }
        }
        Ok(())
    }

    fn read_record(
        &self,
        consumer: &BaseConsumer,
        cursor: &mut LogCursor,
        message: &BorrowedMessage<'_>,
    ) -> Result<(), Error> {
        if message.offset() != cursor.next {
            return Err(Error::Log(LogFault::MissingRecords {
                expected: cursor.next,
                found: message.offset(),
            }));
        }
        cursor.next += 1;
        let (bytes, time_ms) = (
            message.payload().unwrap_or_default(),
            message.timestamp().to_millis().unwrap_or_default(),
        );
        match cursor.state.read(message.offset(), time_ms, bytes) {
            Ok(outcome) => {
                cursor.unsaved = true;
                // A proposer gets its answer after this node serves the new state.
                if let Outcome::Judged(uid, result) = outcome {
                    self.replica.advance(cursor.state.clone());
                    cursor.unsaved = false;
                    self.answer(uid, message.offset(), &result);
                }
                Ok(())
            }
            Err(LogFault::RecordChanged { .. }) if message.offset() > 0 => {
                cursor.state = self.adopt(consumer, &cursor.state)?;
                cursor.next = 1;
                self.replica.advance(cursor.state.clone());
                self.assign(consumer, cursor.next)
            }
            Err(fault) => Err(Error::Log(fault)),
        }
    }

    fn reach_end(&self, cursor: &mut LogCursor) -> Result<(), Error> {
        if std::mem::take(&mut cursor.unsaved) {
            self.replica.advance(cursor.state.clone());
        }
        if cursor.state.cluster.is_none() {
            return Err(Error::LogEmpty {
                topic: self.kafka.changes_topic.clone(),
            });
        }
        self.replica.set_fault(None);
        Ok(())
    }

    /// Handles an error of the client. Fails if the client cannot continue; while no broker answers, it retries by
    /// itself.
    fn handle_error(&self, error: &KafkaError) -> Result<(), Error> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {
                self.replica.set_fault(Some(Error::ClusterSilent.to_string()));
                Ok(())
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Err(Error::LogOutOfRange),
            _ => Err(Error::cluster(error)),
        }
    }

    fn answer(&self, uid: Uuid, offset: i64, result: &Result<(), Problem>) {
        for waiting in self.waiting.lock().remove(&uid).unwrap_or_default() {
            let _ = waiting.send((offset, result.clone()));
        }
    }

    fn assign(&self, consumer: &BaseConsumer, offset: i64) -> Result<(), Error> {
        assign(consumer, &self.kafka.changes_topic, offset)
    }

    /// Checks that the topic exists, has every record that this node has read, and is configured as required. Returns
    /// its end offset.
    fn check(&self, consumer: &BaseConsumer, runtime: &Runtime) -> Result<i64, Error> {
        let topic = &self.kafka.changes_topic;
        self.check_partitions(consumer)?;
        // Read before the offsets: peers may report records that were appended after the offsets were measured.
        let read = self.replica.health().offset;
        let (low, high) = consumer
            .fetch_watermarks(topic, PARTITION, BROKER_ANSWER)
            .map_err(|error| Error::cluster(&error))?;
        if low > 0 {
            return Err(Error::LogStartDeleted {
                topic: topic.clone(),
                records: low,
            });
        }
        if high <= read && !self.try_adopt(consumer) {
            return Err(Error::LogTruncated {
                topic: topic.clone(),
                end: high,
                read,
            });
        }
        self.check_settings(runtime)?;
        Ok(high)
    }

    fn check_partitions(&self, consumer: &BaseConsumer) -> Result<(), Error> {
        let topic = &self.kafka.changes_topic;
        let metadata = consumer
            .fetch_metadata(Some(topic), BROKER_ANSWER)
            .map_err(|error| Error::cluster(&error))?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty());
        match found.map(|found| found.partitions().len()) {
            Some(1) => Ok(()),
            Some(partitions) => Err(Error::LogPartitions {
                topic: topic.clone(),
                partitions,
            }),
            None => Err(match self.replica.health().offset {
                ..0 => Error::LogNotCreated { topic: topic.clone() },
                read => Error::LogDeleted {
                    topic: topic.clone(),
                    read,
                },
            }),
        }
    }

    fn check_settings(&self, runtime: &Runtime) -> Result<(), Error> {
        let topic = &self.kafka.changes_topic;
        let described = runtime.block_on(async {
            let options = AdminOptions::new().request_timeout(Some(BROKER_ANSWER));
            self.kafka
                .admin()?
                .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
                .await
                .map_err(|error| Error::cluster(&error))
        })?;
        let described = described
            .into_iter()
            .next()
            .ok_or_else(|| Error::LogSettingsUnknown { topic: topic.clone() })?
            .map_err(|code| Error::Cluster(ClientError::new(code, "")))?;
        for (key, expected) in TOPIC_SETTINGS.into_iter().take(TOPIC_SETTINGS_CHECKED) {
            let found = described.get(key).and_then(|entry| entry.value.as_deref());
            if found != Some(expected) {
                return Err(Error::LogSetting {
                    topic: topic.clone(),
                    key,
                    found: found.unwrap_or("nothing").to_owned(),
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Whether the log was recreated from a copy that this node can continue from. If so, the replica adopts it.
    fn try_adopt(&self, consumer: &BaseConsumer) -> bool {
        let state = self.replica.state().borrow().clone();
        match self.adopt(consumer, &state) {
            Ok(adopted) => {
                self.replica.advance(adopted);
                true
            }
            Err(_) => false,
        }
    }

    /// The state after the first record of a recreated log, if this node can continue from it.
    fn adopt(&self, consumer: &BaseConsumer, state: &State) -> Result<State, Error> {
        self.assign(consumer, 0)?;
        let deadline = Instant::now() + BROKER_ANSWER;
        while Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(POLL)
                && message.offset() == 0
            {
                let adopted = state.adopt(message.payload().unwrap_or_default()).map_err(Error::Log)?;
                warn!(
                    from = adopted.catalog.version,
                    "the change log was recreated from a copy; this node continues from it"
                );
                return Ok(adopted);
            }
        }
        Err(Error::LogHeaderLate {
            topic: self.kafka.changes_topic.clone(),
        })
    }
}

/// A client that reads the log.
pub(super) fn log_consumer(kafka: &ClusterKafka) -> Result<BaseConsumer, Error> {
    let config = kafka.client(&[
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
    config.create().map_err(|error| Error::cluster(&error))
}

/// Lets a client read the log from this offset on.
pub(super) fn assign(consumer: &BaseConsumer, topic: &str, offset: i64) -> Result<(), Error> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, PARTITION, Offset::Offset(offset))
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| Error::Seek {
            topic: topic.to_owned(),
            error,
        })
}
