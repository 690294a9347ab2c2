//! A real Apache Kafka: one broker (KRaft), in a temporary folder, on free ports; it can be killed, paused and started
//! again.

use std::{
    path::PathBuf,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use crate::{
    PATIENCE,
    network::Host,
    process::{Folder, Process},
};

/// A broker.
pub struct Kafka {
    process: Process,
    folder: Folder,
    host: Host,
    port: u16,
}

/// A record to produce.
#[derive(Debug, Clone, Default)]
pub struct Produce {
    /// The partition; by the key's hash or at random, if none.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; null, if none.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The producer's time, milliseconds since 1970; now, if none.
    pub time_ms: Option<i64>,
}

impl Produce {
    /// A record that has only a value.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record with a key.
    pub fn keyed(key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value,
            ..Self::default()
        }
    }
}

impl Kafka {
    /// Starts a broker and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a broker with further lines of its configuration.
    pub async fn start_with(further: &[&str]) -> Self {
        Self::start_on(Host::here(), further).await
    }

    /// Starts a broker on a host.
    pub async fn start_on(host: Host, further: &[&str]) -> Self {
        let folder = Folder::new("kafka").expect("a temporary folder");
        let ports = host.free_ports(2).expect("free ports");
        let (port, controller) = (ports[0], ports[1]);
        std::fs::write(
            folder.path().join("server.properties"),
            properties(
                &folder.path().join("log").display().to_string(),
                &host,
                port,
                controller,
                further,
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

    /// `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.host.at(self.port).to_string()
    }

    async fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while self.topics().is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
            assert!(self.process.ended().is_none(), "Kafka ended\n{}", log());
            assert!(begun.elapsed() < PATIENCE, "Kafka does not answer\n{}", log());
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
        // A broker that has started and not yet registered takes no topics.
        ensure!(!metadata.brokers().is_empty(), "no broker is registered");
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts it again after a kill, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.host).expect("Kafka starts again");
        self.wait_until_ready().await;
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    /// How many consumers a group has; none while it shares out its partitions anew.
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
        let created = self
            .admin()
            .expect("an admin client")
            .create_topics([&topic], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        self.leads(name, partitions).await;
    }

    /// Waits until the broker leads all partitions of a topic: the controller answers a change before the broker has
    /// heard of it.
    async fn leads(&self, topic: &str, partitions: i32) {
        crate::eventually(
            &format!("the broker leads {partitions} partitions of {topic}"),
            || async {
                let (config, topic) = (self.config(), topic.to_owned());
                let ask = move || -> Result<()> {
                    let client: BaseProducer = config.create()?;
                    for partition in 0..partitions {
                        client
                            .client()
                            .fetch_watermarks(&topic, partition, Duration::from_secs(2))?;
                    }
                    Ok(())
                };
                tokio::task::spawn_blocking(ask).await?
            },
        )
        .await;
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        let deleted = self
            .admin()
            .expect("an admin client")
            .delete_topics(&[name], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Gives a topic these settings, and the defaults for all others.
    pub async fn set_topic_config(&self, name: &str, settings: &[(&str, &str)]) {
        let mut altered = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in settings {
            altered = altered.set(key, value);
        }
        let answer = self
            .admin()
            .expect("an admin client")
            .alter_configs([&altered], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(answer.iter().all(Result::is_ok), "{answer:?}");
    }

    /// Drops the records of a partition before `offset`, as retention would.
    pub async fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        let deleted = self
            .admin()
            .expect("an admin client")
            .delete_records(&before, &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(
            deleted.elements().iter().all(|element| element.error().is_ok()),
            "{deleted:?}"
        );
    }

    /// Gives a topic more partitions.
    pub async fn add_partitions(&self, topic: &str, partitions: usize) {
        let more = NewPartitions::new(topic, partitions);
        let created = self
            .admin()
            .expect("an admin client")
            .create_partitions([&more], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        self.leads(topic, i32::try_from(partitions).expect("few partitions"))
            .await;
    }

    /// Takes the batches that end at `offset` or later out of the newest segment of a partition, as a disk that lost
    /// its newest writes. Only while the broker is killed; it then starts with what is left, and takes it for the same
    /// topic.
    pub fn cut_log(&self, topic: &str, partition: i32, offset: i64) {
        let segments = self.segments(topic, partition);
        let newest = segments.last().expect("a segment");
        let log = std::fs::read(newest).expect("the segment can be read");
        let file = std::fs::File::options()
            .write(true)
            .open(newest)
            .expect("the segment can be written");
        file.set_len(length_before(&log, offset) as u64).expect("it can be cut");
    }

    /// The files of a partition's records, the newest last.
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

    /// The offsets that a plain consumer is given of a partition, from the first to the end.
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
                match consumer.poll(PATIENCE) {
                    Some(Ok(record)) => offsets.push(record.offset()),
                    Some(Err(KafkaError::PartitionEOF(_))) => return Ok(offsets),
                    Some(Err(error)) => bail!("{error}"),
                    None => bail!("the broker gives nothing"),
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .context("the consumer does not panic")?
    }

    /// Produces records in one transaction that is committed or aborted.
    pub async fn produce_in_transaction(&self, topic: &str, partition: i32, values: Vec<String>, commit: bool) {
        let producer = self.begin_transaction(topic, partition, values).await;
        let end = move || {
            if commit {
                producer.commit_transaction(PATIENCE)
            } else {
                producer.abort_transaction(PATIENCE)
            }
        };
        tokio::task::spawn_blocking(end)
            .await
            .expect("the producer does not panic")
            .expect("the transaction ends");
    }

    /// Produces records in a transaction that its producer has yet to end.
    pub async fn begin_transaction(&self, topic: &str, partition: i32, values: Vec<String>) -> BaseProducer {
        let mut config = self.config();
        config.set("transactional.id", format!("harness-{topic}-{partition}"));
        let topic = topic.to_owned();
        let work = move || -> Result<BaseProducer> {
            let producer: BaseProducer = config.create()?;
            producer.init_transactions(PATIENCE)?;
            producer.begin_transaction()?;
            for value in &values {
                // A compacted topic takes no record without a key.
                producer
                    .send(BaseRecord::to(&topic).partition(partition).key("k").payload(value))
                    .map_err(|(error, _)| error)?;
            }
            producer.flush(PATIENCE)?;
            Ok(producer)
        };
        tokio::task::spawn_blocking(work)
            .await
            .expect("the producer does not panic")
            .expect("the transaction begins")
    }

    /// Produces records in order (idempotent, all acknowledged) and gives back partition and offset of each.
    pub async fn produce(&self, topic: &str, records: Vec<Produce>) -> Vec<(i32, i64)> {
        self.writer().produce(topic, records).await
    }

    /// Produces without holding the broker, which may be killed meanwhile.
    pub fn writer(&self) -> Writer {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "20000000")
            .set("queue.buffering.max.messages", "1000000");
        Writer(config)
    }
}

/// Produces to a broker that may be killed meanwhile.
#[derive(Clone)]
pub struct Writer(ClientConfig);

impl Writer {
    /// Produces records in order (idempotent, all acknowledged) and gives back partition and offset of each.
    pub async fn produce(&self, topic: &str, records: Vec<Produce>) -> Vec<(i32, i64)> {
        let (config, topic) = (self.0.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || produce(&config, &topic, &records))
            .await
            .expect("the producer does not panic")
            .unwrap_or_else(|error| panic!("all are acknowledged: {error:#}"))
    }
}

/// How many bytes of a segment come before the batch that holds `offset`. A batch begins with its first offset (8
/// bytes) and the length of what follows (4 bytes); the offset of its last record, from the first, is at byte 23.
fn length_before(log: &[u8], offset: i64) -> usize {
    let mut at = 0;
    while let (Some(first), Some(length), Some(last)) =
        (number(log, at, 8), number(log, at + 8, 4), number(log, at + 23, 4))
    {
        if first + last >= offset {
            break;
        }
        at += 12 + length as usize;
    }
    at.min(log.len())
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<i64> {
    Some(
        bytes
            .get(at..at + length)?
            .iter()
            .fold(0, |number, byte| number << 8 | i64::from(*byte)),
    )
}

/// Notes where each record went.
struct Deliveries(Mutex<Vec<Result<(i32, i64), KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Ok(mut deliveries) = self.0.lock() {
            deliveries[*index] = result
                .as_ref()
                .map(|message| (message.partition(), message.offset()))
                .map_err(|(error, _)| error.clone());
        }
    }
}

fn produce(config: &ClientConfig, topic: &str, records: &[Produce]) -> Result<Vec<(i32, i64)>> {
    let producer: BaseProducer<Deliveries> =
        config.create_with_context(Deliveries(Mutex::new(vec![Err(KafkaError::Canceled); records.len()])))?;
    for (index, record) in records.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        let mut next = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(index)).headers(headers);
        next.partition = record.partition;
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.timestamp = record.time_ms;
        while let Err((error, back)) = producer.send(next) {
            if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                bail!("record {index}: {error}");
            }
            producer.poll(Duration::from_millis(10));
            next = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE)?;
    let deliveries = producer
        .context()
        .0
        .lock()
        .map_err(|_| anyhow::anyhow!("a callback panicked"))?
        .clone();
    deliveries
        .into_iter()
        .enumerate()
        .map(|(index, delivery)| delivery.with_context(|| format!("record {index} of {topic} was not acknowledged")))
        .collect()
}

/// The jars, as `tests/run` fetched them.
pub fn jars() -> Result<PathBuf> {
    let folder = std::env::var_os("RACHIS_KAFKA_JARS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
        Some(cache.join("rachis/kafka-4.1.1"))
    });
    let folder = folder.context("no home folder")?;
    ensure!(
        folder.is_dir(),
        "{} is not there; ./tests/run --prepare fetches Apache Kafka",
        folder.display()
    );
    Ok(folder)
}

fn java(folder: &Folder, host: &Host) -> Result<Command> {
    let mut command = host.command("java");
    command
        .current_dir(folder.path())
        .args(["-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jars()?.join("*"));
    Ok(command)
}

fn format_storage(folder: &Folder) -> Result<()> {
    // Any 22 characters of URL-safe base64 that decode to 16 bytes name a cluster.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut id: String = (0..21)
        .map(|_| char::from(alphabet[rand::random_range(0..alphabet.len())]))
        .collect();
    id.push('A');
    let output = java(folder, &Host::here())?
        .args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            &id,
            "-c",
            "server.properties",
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn spawn(folder: &Folder, host: &Host) -> Result<Process> {
    Process::start(
        "kafka",
        java(folder, host)?.args(["kafka.Kafka", "server.properties"]),
        &folder.path().join("output"),
    )
}

fn properties(log: &str, host: &Host, port: u16, controller: u16, further: &[&str]) -> String {
    let (broker, controller) = (host.at(port), host.at(controller));
    let lines = [
        "process.roles=broker,controller".to_owned(),
        "node.id=1".into(),
        format!("controller.quorum.bootstrap.servers={controller}"),
        format!("listeners=PLAINTEXT://{broker},CONTROLLER://{controller}"),
        format!("advertised.listeners=PLAINTEXT://{broker}"),
        "controller.listener.names=CONTROLLER".into(),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".into(),
        format!("log.dirs={log}"),
        "auto.create.topics.enable=false".into(),
        "offsets.topic.replication.factor=1".into(),
        "offsets.topic.num.partitions=1".into(),
        "transaction.state.log.replication.factor=1".into(),
        "transaction.state.log.min.isr=1".into(),
        "transaction.state.log.num.partitions=1".into(),
        "group.initial.rebalance.delay.ms=0".into(),
        "group.min.session.timeout.ms=1000".into(),
        "message.max.bytes=20000000".into(),
        // A killed broker waits for its own old session; short, so that a test need not.
        "broker.session.timeout.ms=1500".into(),
        "broker.heartbeat.interval.ms=300".into(),
        "controller.quorum.election.timeout.ms=300".into(),
        "controller.quorum.fetch.timeout.ms=600".into(),
    ];
    lines
        .into_iter()
        .chain(further.iter().map(|line| (*line).to_owned()))
        .map(|line| line + "\n")
        .collect()
}
