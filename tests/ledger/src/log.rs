//! What the topics themselves say of records whose producer was never told: a record carries its number in a header, so
//! the whole log, read once at the end, tells which of them it has, and where.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};

use crate::produce::{KEYED_PARTITIONS, PLAIN_PARTITIONS};

/// The header that holds a record's number.
pub const NUMBER: &str = "number";
/// Nothing comes for so long: the broker is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Number -> where it is, for every record of both topics. A number that is there twice is told as an error: then the
/// log itself is wrong.
pub fn read(address: &str) -> Result<HashMap<u64, (i32, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "ledger")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .context("no consumer")?;
    let mut list = TopicPartitionList::new();
    let mut left = 0;
    for (topic, partitions) in [("plain", PLAIN_PARTITIONS), ("keyed", KEYED_PARTITIONS)] {
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        left += partitions;
    }
    consumer.assign(&list)?;
    let mut found = HashMap::new();
    while left > 0 {
        match consumer.poll(PATIENCE) {
            None => bail!("the log cannot be read to its end: {left} partitions are open"),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => eprintln!("ledger: while the log is read: {error}"),
            Some(Ok(message)) => {
                let number = message
                    .headers()
                    .and_then(|headers| headers.iter().find(|header| header.key == NUMBER));
                let text = number
                    .and_then(|header| std::str::from_utf8(header.value?).ok())
                    .context("a record without a number")?;
                let number: u64 = text.parse().context("a number that is none")?;
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
