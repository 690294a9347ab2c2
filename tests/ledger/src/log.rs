//! Reads both topics once at the end, to learn what happened to records whose producer got no acknowledgement: each
//! record carries its number in a header.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

use crate::topics::{NUMBER_HEADER, TOPICS};

/// If nothing arrives within this time, the broker is considered down.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);

/// Number -> partition and offset, for every record of both topics. Fails if a number is in the log twice: then the log
/// itself is wrong.
pub(crate) fn read(address: &str) -> Result<HashMap<u64, (i32, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "ledger")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .context("cannot create a consumer")?;
    let mut assignment = TopicPartitionList::new();
    let mut unfinished = 0;
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        unfinished += partitions;
    }
    consumer.assign(&assignment)?;
    let mut found = HashMap::new();
    while unfinished > 0 {
        match consumer.poll(POLL_TIMEOUT) {
            None => bail!("cannot read the log to its end: {unfinished} partitions are unfinished"),
            Some(Err(KafkaError::PartitionEOF(_))) => unfinished -= 1,
            Some(Err(error)) => eprintln!("ledger: while reading the log: {error}"),
            Some(Ok(message)) => {
                let number = number_of(&message)?;
                if let Some(other) = found.insert(number, (message.partition(), message.offset())) {
                    bail!(
                        "record {number} is in the log twice, at {other:?} and {}/{}",
                        message.partition(),
                        message.offset()
                    );
                }
            }
        }
    }
    Ok(found)
}

fn number_of(message: &BorrowedMessage<'_>) -> Result<u64> {
    let header = message
        .headers()
        .and_then(|headers| headers.iter().find(|header| header.key == NUMBER_HEADER));
    let text = header
        .and_then(|header| std::str::from_utf8(header.value?).ok())
        .context("a record without a number")?;
    text.parse::<u64>()
        .with_context(|| format!("{text:?} is not a record number"))
}
