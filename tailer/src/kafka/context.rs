//! The callbacks of the Kafka client. They run inside the client, so they only record what happened; the poll thread
//! acts on it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tracing::{debug, warn};

use super::{Error, error::ClientError, status::SourceStatus};

/// A change of the partitions that the group assigns to this consumer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// The consumer reads exactly these partitions.
    Assigned(Vec<i32>),
    /// The consumer reads nothing.
    Revoked,
}

/// State that the client shares with the poll thread.
pub(super) struct SourceContext {
    status: Arc<SourceStatus>,
    rebalances: Mutex<Vec<Rebalance>>,
    ends: Mutex<HashMap<i32, i64>>,
    /// Whether the current error is about the connection to the brokers. It is cleared once they are connected.
    disconnected: AtomicBool,
    topic_recreated: AtomicBool,
    /// Whether the consumer is closed. What the client reports afterwards no longer concerns the source.
    closed: AtomicBool,
}

impl SourceContext {
    /// A context that reports errors to `status`.
    pub(super) fn new(status: Arc<SourceStatus>) -> Self {
        Self {
            status,
            rebalances: Mutex::default(),
            ends: Mutex::default(),
            disconnected: AtomicBool::new(false),
            topic_recreated: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The rebalances since the last call, in order.
    pub(super) fn rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut self.rebalances.lock())
    }

    /// Stops reporting: another consumer may report for the source from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the topic was recreated under the same name since the last call. This is known before any record of the
    /// new topic is delivered, because the client fetches by the id of the topic.
    pub(super) fn take_topic_recreated(&self) -> bool {
        self.topic_recreated.load(Ordering::Acquire) && self.topic_recreated.swap(false, Ordering::AcqRel)
    }

    /// The end offsets that were reported since the last call, by partition: one after the last readable record.
    pub(super) fn ends(&self) -> HashMap<i32, i64> {
        std::mem::take(&mut self.ends.lock())
    }
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if reports_new_topic_id(message) {
            self.topic_recreated.store(true, Ordering::Release);
        }
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                debug!(source = %self.status.source, facility, "{message}")
            }
            // Warnings that matter also arrive as errors, and are logged as such once.
            _ => debug!(source = %self.status.source, facility, level = "warning", "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if self.disconnected.load(Ordering::Relaxed) && all_connected(&statistics) {
            self.disconnected.store(false, Ordering::Relaxed);
            self.status.clear_error();
        }
        let mut ends = self.ends.lock();
        for (number, partition) in statistics.topics.values().flat_map(|topic| &topic.partitions) {
            let end = if partition.ls_offset >= 0 {
                partition.ls_offset
            } else {
                partition.hi_offset
            };
            if *number >= 0 && end >= 0 {
                ends.insert(*number, end);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        match error.rdkafka_error_code() {
            // These concern one partition and reach the poll thread.
            None
            | Some(
                RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {}
            // It follows the error that gives the reason.
            Some(RDKafkaErrorCode::AllBrokersDown) if self.status.error().is_some() => {}
            Some(code) => {
                self.disconnected.store(is_connection(code), Ordering::Relaxed);
                self.status.set_error(Error::Client(ClientError::new(code, reason)));
            }
        }
    }
}

/// Whether the client logs `Topic … changed id from … to …`. A change from zeros means that it has just learned the id.
fn reports_new_topic_id(message: &str) -> bool {
    const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    message
        .split_once(" changed id from ")
        .is_some_and(|(_, ids)| !ids.starts_with(ZEROS))
}

fn is_connection(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::AllBrokersDown | E::BrokerTransportFailure | E::OperationTimedOut | E::Resolve | E::Authentication | E::SSL
    )
}

/// Whether every needed broker is connected. The client connects only to brokers that it needs.
fn all_connected(statistics: &Statistics) -> bool {
    let mut states = statistics
        .brokers
        .values()
        .filter(|broker| broker.nodeid >= 0)
        .map(|broker| broker.state.as_str())
        .peekable();
    states.peek().is_some()
        && states.clone().any(|state| state == "UP")
        && states.all(|state| matches!(state, "UP" | "INIT"))
}

impl ConsumerContext for SourceContext {
    // The default implementation would assign the committed offsets of the group. The leaf determines where to
    // continue, so the poll thread asks it.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let rebalance = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                Rebalance::Assigned(partitions.elements().iter().map(|p| p.partition()).collect())
            }
            _ => {
                // Immediately: the group waits for it, and so does a consumer that closes, when the poll thread no
                // longer handles rebalances.
                if let Err(error) = consumer.unassign() {
                    warn!(source = %self.status.source, %error, "could not release the partitions");
                }
                Rebalance::Revoked
            }
        };
        self.rebalances.lock().push(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // Committed offsets only serve the lag tools of operators.
            debug!(source = %self.status.source, %error, "could not commit offsets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reports_new_topic_id;

    #[test]
    fn a_recreated_topic_is_distinguished_from_one_whose_id_was_just_learned() {
        assert!(reports_new_topic_id(
            "[thrd:main]: Topic t changed id from izJppd3lT1Sybik5_HK7fw to Jg-4vRnpQuOv_0cLRJZWtA"
        ));
        assert!(!reports_new_topic_id(
            "[thrd:main]: Topic t changed id from AAAAAAAAAAAAAAAAAAAAAA to Jg-4vRnpQuOv_0cLRJZWtA"
        ));
        assert!(!reports_new_topic_id("[thrd:main]: Topic t [0] Leader 1 Epoch 0"));
    }
}
