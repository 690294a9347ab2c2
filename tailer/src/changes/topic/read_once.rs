//! Reads the change log once, from what a node knows to its end.

use std::time::Instant;

use proto::{
    Code, Problem,
    catalog::{LogFault, State},
};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
};

use super::{
    BROKER_ANSWER, PARTITION,
    reader::{POLL, assign, log_consumer},
};
use crate::kafka::{Error, cluster::ClusterKafka};

/// The state at the end of the log. `known` is what the node has read of it, for a new node the empty state.
pub async fn read_change_log(kafka: &ClusterKafka, known: State) -> Result<State, Problem> {
    let kafka = kafka.clone();
    tokio::task::spawn_blocking(move || read_to_end(&kafka, known))
        .await
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?
        .map_err(Into::into)
}

fn read_to_end(kafka: &ClusterKafka, mut state: State) -> Result<State, Error> {
    let topic = &kafka.changes_topic;
    let consumer: BaseConsumer = log_consumer(kafka)?;
    let metadata = consumer
        .fetch_metadata(Some(topic), BROKER_ANSWER)
        .map_err(|error| Error::cluster(&error))?;
    let exists = |found: &rdkafka::metadata::MetadataTopic| found.error().is_none() && !found.partitions().is_empty();
    if !metadata
        .topics()
        .iter()
        .any(|found| found.name() == topic && exists(found))
    {
        return Err(Error::LogNotCreated { topic: topic.clone() });
    }
    let (_, end) = consumer
        .fetch_watermarks(topic, PARTITION, BROKER_ANSWER)
        .map_err(|error| Error::cluster(&error))?;
    // The last record that the node knows comes first: it shows whether this is the same log. A shorter log, or one with
    // another record there, may have been restored from a copy.
    let mut is_restored = end <= state.offset;
    let mut next = if is_restored { 0 } else { state.offset.max(0) };
    assign(&consumer, topic, next)?;
    let mut progress = Instant::now();
    while next < end {
        if progress.elapsed() > BROKER_ANSWER {
            return Err(Error::ClusterSilent);
        }
        // The client repeats what fails for a moment.
        let Some(Ok(message)) = consumer.poll(POLL) else {
            continue;
        };
        let time_ms = message.timestamp().to_millis().unwrap_or_default();
        let bytes = message.payload().unwrap_or_default();
        progress = Instant::now();
        if is_restored && message.offset() == 0 {
            state = state.adopt(bytes).map_err(Error::Log)?;
            next = 1;
            continue;
        }
        match state.read(message.offset(), time_ms, bytes) {
            Ok(_) => next = message.offset() + 1,
            Err(LogFault::RecordChanged { offset }) if offset > 0 && !is_restored => {
                (is_restored, next) = (true, 0);
                assign(&consumer, topic, next)?;
            }
            Err(fault) => return Err(Error::Log(fault)),
        }
    }
    match state.cluster {
        Some(_) => Ok(state),
        None => Err(Error::LogEmpty { topic: topic.clone() }),
    }
}
