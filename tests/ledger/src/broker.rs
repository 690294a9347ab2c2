//! A real Apache Kafka in its own folder: one process as broker and controller, on free ports.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use child_process::{Process, kafka_command};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use crate::hosts::Place;

/// A JVM of a busy machine takes a minute to start.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(180);

pub(crate) struct Broker {
    jars: PathBuf,
    folder: PathBuf,
    place: Place,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    pub(crate) async fn start(jars: &Path, folder: &Path, place: Place) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // The broker must return to the same ports after a restart, so it cannot choose them itself.
        let ports = place.host.free_ports(2)?;
        let [broker, controller] = [ports[0], ports[1]].map(|port| place.host.socket_addr(port));
        std::fs::write(
            folder.join("server.properties"),
            properties(broker, controller, &folder.join("data")),
        )?;
        let mut broker = Self {
            jars: jars.to_owned(),
            folder: folder.to_owned(),
            place,
            port: ports[0],
            process: None,
        };
        broker.format()?;
        broker.spawn()?;
        broker.wait_until_reachable(READY_WITHIN).await?;
        Ok(broker)
    }

    /// Where it runs.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// `bootstrap.servers`.
    pub(crate) fn address(&self) -> String {
        self.place.host.socket_addr(self.port).to_string()
    }

    fn java(&self) -> Command {
        kafka_command(&self.place.host, &self.jars)
    }

    fn format(&self) -> Result<()> {
        // A Kafka cluster id is 16 bytes in URL-safe base64.
        let cluster_id: String = (0..22)
            .map(|_| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWX"[usize::from(rand::random::<u8>() % 24)]))
            .collect();
        let output = self
            .java()
            .args(["kafka.tools.StorageTool", "format", "--standalone", "-t"])
            .arg(cluster_id[..21].to_owned() + "A")
            .arg("-c")
            .arg(self.folder.join("server.properties"))
            .output()
            .context("cannot run java")?;
        if !output.status.success() {
            bail!(
                "cannot format the storage of the broker: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Starts the broker, without waiting until it is reachable.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(self.folder.join("server.properties"));
        self.process = Some(Process::start("broker", &mut command, &self.folder.join("log"))?);
        Ok(())
    }

    pub(crate) fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the broker is not running")
    }

    /// Waits until the broker returns its metadata.
    pub(crate) async fn wait_until_reachable(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let address = self.address();
        loop {
            if let Some(status) = self.process()?.exit_status() {
                bail!("the broker exited: {status}; {}", self.process()?.log_tail());
            }
            let address = address.clone();
            let brokers = tokio::task::spawn_blocking(move || {
                let consumer: BaseConsumer = ClientConfig::new()
                    .set("bootstrap.servers", &address)
                    .set("log_level", "0")
                    .create()?;
                consumer
                    .fetch_metadata(None, Duration::from_secs(2))
                    .map(|metadata| metadata.brokers().len())
            })
            .await?;
            match brokers {
                Ok(brokers) if brokers > 0 => return Ok(()),
                _ if Instant::now() > deadline => bail!(
                    "the broker did not answer within {within:?}; {}",
                    self.process()?.log_tail()
                ),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.address()).create()?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let results = admin
            .create_topics(
                [&topic],
                &AdminOptions::new().operation_timeout(Some(Duration::from_secs(30))),
            )
            .await?;
        for result in results {
            result.map_err(|(topic, code)| anyhow::anyhow!("cannot create topic {topic}: {code}"))?;
        }
        Ok(())
    }
}

fn properties(broker: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
controller.quorum.election.timeout.ms=300
controller.quorum.fetch.timeout.ms=600
"
    )
}
