//! The limit of everything that reads from Kafka: a consumer that discards all records.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tests::Kafka;

use crate::documents::DocumentFile;

/// How long it takes to read the topic of these documents.
pub(crate) async fn consume(kafka: &Kafka, documents: &DocumentFile, partitions: i32) -> Result<Duration> {
    let (bootstrap, topic, records) = (kafka.bootstrap(), documents.set.name(), documents.documents);
    tokio::task::spawn_blocking(move || read(&bootstrap, topic, partitions, records)).await?
}

fn read(bootstrap: &str, topic: &str, partitions: i32, records: u64) -> Result<Duration> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "benches")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .context("a consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&list)?;
    let (mut received, mut bytes) = (0, 0);
    while received < records {
        match consumer.poll(Duration::from_secs(30)) {
            Some(message) => {
                bytes += message?.payload_len();
                received += 1;
            }
            None => bail!("received only {received} of {records} records"),
        }
    }
    ensure!(bytes > 0, "the records are empty");
    Ok(started.elapsed())
}
