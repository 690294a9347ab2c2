//! A real Apache Kafka in its own folder: one process as broker and controller, on free ports.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use child_process::Process;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

pub(crate) struct Broker {
    jars: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    pub(crate) async fn start(jars: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let (port, controller_port) = two_free_ports()?;
        std::fs::write(
            folder.join("server.properties"),
            properties(port, controller_port, &folder.join("data")),
        )?;
        let mut broker = Self {
            jars: jars.to_owned(),
            folder: folder.to_owned(),
            port,
            process: None,
        };
        broker.format()?;
        broker.spawn()?;
        broker.wait_until_reachable(Duration::from_secs(60)).await?;
        Ok(broker)
    }

    /// `bootstrap.servers`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(self.jars.join("*"));
        command
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

/// Two different free ports. The broker must return to the same ports after a restart, so it cannot choose them itself.
fn two_free_ports() -> Result<(u16, u16)> {
    let first = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    let second = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

fn properties(port: u16, controller: u16, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
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
