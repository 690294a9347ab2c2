//! A real Apache Kafka: one broker (KRaft) in a temporary folder, on free ports. It can be killed, paused and
//! restarted.

mod broker_process;
mod producer;

use std::{
    fmt::Debug,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer as _},
};

pub use broker_process::jars;
use broker_process::{format_storage, properties, spawn};
pub use producer::{KafkaProducer, NewRecord};

use crate::{
    WAIT_MAX,
    network::Host,
    process::{Process, TestDir},
};

/// A running broker.
pub struct Kafka {
    process: Process,
    folder: TestDir,
    host: Host,
    port: u16,
}

impl Kafka {
    /// Starts a broker and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a broker with additional lines of `server.properties`.
    pub async fn start_with(extra: &[&str]) -> Self {
        Self::start_on(Host::local(), extra).await
    }

    /// Starts a broker on a host.
    pub async fn start_on(host: Host, extra: &[&str]) -> Self {
        let folder = TestDir::new("kafka").expect("a temporary folder");
        let ports = host.free_ports(2).expect("free ports");
        let (port, controller) = (ports[0], ports[1]);
        std::fs::write(
            folder.path().join("server.properties"),
            properties(
                &folder.path().join("log").display().to_string(),
                &host,
                port,
                controller,
                extra,
            ),
        )
        .expect("the folder can be written");
        format_storage(&folder).expect("the storage is formatted");
        let process = spawn(&folder, &host).expect("Kafka starts");
        let mut kafka = Self {
            process,
            folder,
            host,
            port,
        };
        kafka.wait_until_ready().await;
        kafka
    }

    /// Its address, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.host.socket_addr(self.port).to_string()
    }

    async fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while self.topics().is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
            assert!(self.process.exit_status().is_none(), "Kafka exited\n{}", log());
            assert!(started.elapsed() < WAIT_MAX, "Kafka does not answer\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("log_level", "0");
        config
    }

    /// The names of its topics.
    pub fn topics(&self) -> Result<Vec<String>> {
        let client: BaseProducer = self.config().create()?;
        let metadata = client.client().fetch_metadata(None, Duration::from_secs(2))?;
        // Topics cannot be created before the broker has registered with the controller.
        ensure!(!metadata.brokers().is_empty(), "no broker is registered");
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Kills it with `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Pauses it with SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Resumes it with SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Restarts it after a kill and waits until it answers.
    pub async fn restart(&mut self) {
        self.process = spawn(&self.folder, &self.host).expect("Kafka restarts");
        self.wait_until_ready().await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    /// The number of consumers in a group; 0 while it rebalances.
    pub fn members(&self, group: &str) -> Result<usize> {
        let client: BaseProducer = self.config().create()?;
        let groups = client.client().fetch_group_list(Some(group), Duration::from_secs(2))?;
        Ok(groups
            .groups()
            .iter()
            .find(|found| found.name() == group && found.state() == "Stable")
            .map_or(0, |found| found.members().len()))
    }

    /// Creates a topic with this configuration.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic.config = config.to_vec();
        let created = self.admin().create_topics([&topic], &AdminOptions::new()).await;
        assert_accepted(created);
        self.wait_until_leader(name, partitions).await;
    }

    /// Waits until the broker leads all partitions of a topic: the controller acknowledges a change before the broker
    /// applies it.
    async fn wait_until_leader(&self, topic: &str, partitions: i32) {
        crate::eventually(
            &format!("the broker leads {partitions} partitions of {topic}"),
            || async {
                let (config, topic) = (self.config(), topic.to_owned());
                let fetch = move || -> Result<()> {
                    let client: BaseProducer = config.create()?;
                    for partition in 0..partitions {
                        client
                            .client()
                            .fetch_watermarks(&topic, partition, Duration::from_secs(2))?;
                    }
                    Ok(())
                };
                tokio::task::spawn_blocking(fetch).await?
            },
        )
        .await;
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        let deleted = self.admin().delete_topics(&[name], &AdminOptions::new()).await;
        assert_accepted(deleted);
    }

    /// Replaces a topic's settings; all others return to their defaults.
    pub async fn set_topic_config(&self, name: &str, settings: &[(&str, &str)]) {
        let mut altered = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in settings {
            altered = altered.set(key, value);
        }
        let changed = self.admin().alter_configs([&altered], &AdminOptions::new()).await;
        assert_accepted(changed);
    }

    /// Deletes the records of a partition before `offset`, as retention would.
    pub async fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        let deleted = self
            .admin()
            .delete_records(&before, &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(
            deleted.elements().iter().all(|element| element.error().is_ok()),
            "{deleted:?}"
        );
    }

    /// Raises a topic's number of partitions to `partitions`.
    pub async fn add_partitions(&self, topic: &str, partitions: usize) {
        let more = NewPartitions::new(topic, partitions);
        let created = self.admin().create_partitions([&more], &AdminOptions::new()).await;
        assert_accepted(created);
        self.wait_until_leader(topic, i32::try_from(partitions).expect("few partitions"))
            .await;
    }

    /// Truncates the newest segment of a partition before the first batch that ends at `offset` or later, like a disk
    /// that lost its newest writes. Only while the broker is down; it restarts with the rest as the same topic.
    pub fn truncate_log(&self, topic: &str, partition: i32, offset: i64) {
        let segments = self.segments(topic, partition);
        let newest = segments.last().expect("a segment");
        let log = std::fs::read(newest).expect("the segment can be read");
        let file = std::fs::File::options()
            .write(true)
            .open(newest)
            .expect("the segment can be written");
        file.set_len(length_before(&log, offset) as u64)
            .expect("the segment can be truncated");
    }

    /// The segment files of a partition, newest last.
    fn segments(&self, topic: &str, partition: i32) -> Vec<PathBuf> {
        let folder = self.folder.path().join("log").join(format!("{topic}-{partition}"));
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut segments: Vec<PathBuf> = files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|file| file.extension() == Some("log".as_ref()))
            .collect();
        segments.sort();
        segments
    }

    /// The offsets of all records that a plain consumer reads from a partition.
    pub async fn offsets(&self, topic: &str, partition: i32) -> Result<Vec<i64>> {
        let mut config = self.config();
        config
            .set("group.id", "harness")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
        let work = move || -> Result<Vec<i64>> {
            let consumer: BaseConsumer = config.create()?;
            consumer.assign(&all)?;
            let mut offsets = Vec::new();
            loop {
                match consumer.poll(WAIT_MAX) {
                    Some(Ok(record)) => offsets.push(record.offset()),
                    Some(Err(KafkaError::PartitionEOF(_))) => return Ok(offsets),
                    Some(Err(error)) => bail!("{error}"),
                    None => bail!("the broker returns no records"),
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .context("the consumer does not panic")?
    }

    /// Produces records in one transaction, which is then committed or aborted.
    pub async fn produce_in_transaction(&self, topic: &str, partition: i32, values: Vec<String>, commit: bool) {
        let producer = self.begin_transaction(topic, partition, values).await;
        let end = move || {
            if commit {
                producer.commit_transaction(WAIT_MAX)
            } else {
                producer.abort_transaction(WAIT_MAX)
            }
        };
        tokio::task::spawn_blocking(end)
            .await
            .expect("the producer does not panic")
            .expect("the transaction ends");
    }

    /// Produces records in a transaction and leaves it open; its producer must end it.
    pub async fn begin_transaction(&self, topic: &str, partition: i32, values: Vec<String>) -> BaseProducer {
        let mut config = self.config();
        config.set("transactional.id", format!("harness-{topic}-{partition}"));
        let topic = topic.to_owned();
        let work = move || -> Result<BaseProducer> {
            let producer: BaseProducer = config.create()?;
            producer.init_transactions(WAIT_MAX)?;
            producer.begin_transaction()?;
            for value in &values {
                // A compacted topic rejects records without a key.
                producer
                    .send(BaseRecord::to(&topic).partition(partition).key("k").payload(value))
                    .map_err(|(error, _)| error)?;
            }
            producer.flush(WAIT_MAX)?;
            Ok(producer)
        };
        tokio::task::spawn_blocking(work)
            .await
            .expect("the producer does not panic")
            .expect("the transaction begins")
    }

    /// Produces records in order (idempotent, all acknowledged) and returns partition and offset of each.
    pub async fn produce(&self, topic: &str, records: Vec<NewRecord>) -> Vec<(i32, i64)> {
        self.producer().produce(topic, records).await
    }

    /// A producer that does not borrow the broker, which may be killed meanwhile.
    pub fn producer(&self) -> KafkaProducer {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "20000000")
            .set("queue.buffering.max.messages", "1000000");
        KafkaProducer(config)
    }
}

/// Asserts that the broker accepted every part of a request.
fn assert_accepted<T: Debug, E: Debug>(answer: Result<Vec<Result<T, E>>, KafkaError>) {
    let results = answer.expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// The length of a segment's prefix before the first batch that ends at `offset` or later. A batch begins with its base
/// offset (8 bytes) and the length of the rest (4 bytes); the last offset delta is at byte 23.
fn length_before(log: &[u8], offset: i64) -> usize {
    let mut at = 0;
    while let (Some(first), Some(length), Some(last)) = (
        big_endian(log, at, 8),
        big_endian(log, at + 8, 4),
        big_endian(log, at + 23, 4),
    ) {
        if first + last >= offset {
            break;
        }
        at += 12 + length as usize;
    }
    at.min(log.len())
}

fn big_endian(bytes: &[u8], at: usize, length: usize) -> Option<i64> {
    Some(
        bytes
            .get(at..at + length)?
            .iter()
            .fold(0, |number, byte| number << 8 | i64::from(*byte)),
    )
}
