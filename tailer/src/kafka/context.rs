//! What the client calls back: noted, and acted on by the poll thread. Callbacks run within the client, so they do as
//! little as they can.

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

use super::{board::Board, config::explain};

/// A change of what this member of the group is to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These partitions, and no others.
    Assigned(Vec<i32>),
    /// None any more.
    Revoked,
}

/// Shared between the client and the poll thread.
pub struct Context {
    board: Arc<Board>,
    notes: Mutex<Vec<Rebalance>>,
    ends: Mutex<HashMap<i32, i64>>,
    /// The error that is shown is about the way to the brokers, and past once they are reached.
    unconnected: AtomicBool,
    other_topic: AtomicBool,
    /// Whether it is closed: what the client says from then on is not about the source any more.
    closed: AtomicBool,
}

impl Context {
    /// A context whose errors are shown on `board`.
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            notes: Mutex::default(),
            ends: Mutex::default(),
            unconnected: AtomicBool::new(false),
            other_topic: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// What was noted since the last call, in order.
    pub fn rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut self.notes.lock())
    }

    /// From here on nothing of it is shown: another consumer may speak for the source.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the topic has become another one of the same name since the last call. Known before any record of it is
    /// given: the client asks for records by the id of the topic.
    pub fn is_other_topic(&self) -> bool {
        self.other_topic.load(Ordering::Acquire) && self.other_topic.swap(false, Ordering::AcqRel)
    }

    /// The offsets after the last readable record, by partition, as last heard since the last call.
    pub fn ends(&self) -> HashMap<i32, i64> {
        std::mem::take(&mut self.ends.lock())
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if says_other_topic(message) {
            self.other_topic.store(true, Ordering::Release);
        }
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                debug!(source = %self.board.source, facility, "{message}")
            }
            // What matters of it comes as an error too, and is logged once, there.
            _ => debug!(source = %self.board.source, facility, level = "warning", "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if self.unconnected.load(Ordering::Relaxed) && all_connected(&statistics) {
            self.unconnected.store(false, Ordering::Relaxed);
            self.board.fine();
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
            // These belong to one partition and reach the poll thread.
            None
            | Some(
                RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {}
            // It comes after the error that says why.
            Some(RDKafkaErrorCode::AllBrokersDown) if self.board.shown().is_some() => {}
            Some(code) => {
                self.unconnected.store(is_connection(code), Ordering::Relaxed);
                self.board.error(&explain(code, reason));
            }
        }
    }
}

/// Whether the client says `Topic … changed id from … to …`. From zeros, it has just learned the id.
fn says_other_topic(message: &str) -> bool {
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

/// Whether every broker that is needed is connected. The client connects to those only.
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

impl ConsumerContext for Context {
    // The client's own rule would assign the group's committed offsets. Where to read on is the leaf's to say, and the
    // poll thread asks it.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let note = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                Rebalance::Assigned(partitions.elements().iter().map(|p| p.partition()).collect())
            }
            _ => {
                // At once: the group waits for it, and closing a consumer does too, when no poll thread looks at notes
                // any more.
                if let Err(error) = consumer.unassign() {
                    warn!(source = %self.board.source, %error, "partitions could not be given back");
                }
                Rebalance::Revoked
            }
        };
        self.notes.lock().push(note);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // Only operators' lag tools look at committed offsets.
            debug!(source = %self.board.source, %error, "offsets not committed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::says_other_topic;

    #[test]
    fn a_topic_that_was_made_anew_is_told_from_one_just_met() {
        assert!(says_other_topic(
            "[thrd:main]: Topic t changed id from izJppd3lT1Sybik5_HK7fw to Jg-4vRnpQuOv_0cLRJZWtA"
        ));
        assert!(!says_other_topic(
            "[thrd:main]: Topic t changed id from AAAAAAAAAAAAAAAAAAAAAA to Jg-4vRnpQuOv_0cLRJZWtA"
        ));
        assert!(!says_other_topic("[thrd:main]: Topic t [0] Leader 1 Epoch 0"));
    }
}
