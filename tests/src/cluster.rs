//! A cluster under test: a real Kafka, and every role as processes of their own. Each node can be killed, paused and
//! started again.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, bail, ensure};

use crate::{
    Kafka, Network, PATIENCE,
    client::Client,
    network::Host,
    process::{Folder, Process},
    server::{Settings, binary},
};

/// How many nodes of each role.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Leaves.
    pub leaves: usize,
    /// Tailers.
    pub tailers: usize,
    /// Aggregators.
    pub aggregators: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            leaves: 3,
            tailers: 2,
            aggregators: 2,
        }
    }
}

impl Size {
    /// A network with a host for each node and one for their Kafka.
    pub fn network(self) -> Network {
        let names: Vec<String> = self
            .nodes()
            .into_iter()
            .map(|(_, name)| name)
            .chain(["kafka".to_owned()])
            .collect();
        Network::new(&names).expect("a network")
    }

    /// The role and name of each node, in the order in which they start.
    fn nodes(self) -> Vec<(&'static str, String)> {
        let of = |role: &'static str, count: usize| (1..=count).map(move |n| (role, format!("{role}-{n}")));
        of("tailer", self.tailers)
            .chain(of("leaf", self.leaves))
            .chain(of("aggregator", self.aggregators))
            .collect()
    }
}

/// A node.
pub struct Node {
    /// `tailer`, `leaf` or `aggregator`.
    pub role: &'static str,
    /// Such as `leaf-1`.
    pub name: String,
    /// Where it listens.
    pub url: String,
    host: Host,
    process: Option<Process>,
}

/// A running cluster. Dereferences to a client of its aggregators.
pub struct Cluster {
    /// Its Kafka.
    pub kafka: Kafka,
    nodes: BTreeMap<String, Node>,
    folder: Folder,
    settings: Settings,
    /// Where nodes have their data, if not in the folder.
    places: BTreeMap<String, PathBuf>,
    client: Client,
}

impl std::ops::Deref for Cluster {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Cluster {
    /// Starts a broker and all nodes, and waits until they are ready.
    pub async fn start(size: Size, settings: Settings) -> Self {
        Self::start_on(Kafka::start().await, size, settings).await
    }

    /// Starts a cluster in which a node has its data elsewhere.
    pub async fn start_with_place(size: Size, settings: Settings, node: &str, place: PathBuf) -> Self {
        Self::start_placed(
            Kafka::start().await,
            size,
            settings,
            [(node.to_owned(), place)].into(),
            |_| Host::here(),
        )
        .await
    }

    /// Starts a broker and all nodes, each on its host of a network.
    pub async fn start_within(network: &Network, size: Size, settings: Settings) -> Self {
        let kafka = Kafka::start_on(network.host("kafka"), &[]).await;
        Self::start_placed(kafka, size, settings, BTreeMap::new(), |name| network.host(name)).await
    }

    /// Starts all nodes on a broker that runs.
    pub async fn start_on(kafka: Kafka, size: Size, settings: Settings) -> Self {
        Self::start_placed(kafka, size, settings, BTreeMap::new(), |_| Host::here()).await
    }

    async fn start_placed(
        kafka: Kafka,
        size: Size,
        settings: Settings,
        places: BTreeMap<String, PathBuf>,
        host_of: impl Fn(&str) -> Host,
    ) -> Self {
        let folder = Folder::new("cluster").expect("a temporary folder");
        let names = size.nodes();
        let node = |(role, name): &(&'static str, String)| {
            let host = host_of(name);
            let port = host.free_ports(1).expect("a free port")[0];
            (
                name.clone(),
                Node {
                    role,
                    name: name.clone(),
                    url: format!("http://{}", host.at(port)),
                    host,
                    process: None,
                },
            )
        };
        let nodes: BTreeMap<String, Node> = names.iter().map(node).collect();
        let urls = nodes
            .values()
            .filter(|node| node.role == "aggregator")
            .map(|node| node.url.clone())
            .collect();
        let mut cluster = Self {
            kafka,
            nodes,
            folder,
            settings,
            places,
            client: Client::new(urls),
        };
        std::fs::write(cluster.config(), cluster.config_text()).expect("the folder can be written");
        cluster.command(&["cluster", "init"]).expect("the change log is made");
        for (_, name) in &names {
            cluster.spawn(name).expect("the node starts");
        }
        for (_, name) in &names {
            cluster.wait_until_ready(name).await.expect("the node is ready");
        }
        cluster
    }

    /// The file of settings that all nodes have.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("cluster.toml")
    }

    fn config_text(&self) -> String {
        let members = |role: &str| {
            let of: Vec<String> = self
                .nodes
                .values()
                .filter(|node| node.role == role)
                .map(|node| format!("{}={}", node.name, node.url))
                .collect();
            of.join(",")
        };
        format!(
            "[cluster]\nkafka = \"{}\"\nreplication = 1\ntailers = \"{}\"\nleaves = \"{}\"\naggregators = \"{}\"\n",
            self.kafka.bootstrap(),
            members("tailer"),
            members("leaf"),
            members("aggregator")
        )
    }

    /// Runs a command of the binary with the cluster's settings; what it wrote to standard output.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.settings.binary.clone().unwrap_or_else(binary));
        let output = command.args(arguments).arg("--config").arg(self.config()).output()?;
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        ensure!(
            output.status.success(),
            "{arguments:?}: {}\n{error}\n{out}",
            output.status
        );
        Ok(out)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A client of one aggregator.
    pub fn door(&self, name: &str) -> Client {
        Client::new(vec![self.nodes[name].url.clone()])
    }

    /// A metric of a node, summed over its labels; 0, where there is none.
    pub async fn metric(&self, node: &str, name: &str) -> Result<f64> {
        let text = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .get(format!("{}/metrics", self.nodes[node].url))
            .send()
            .await?
            .text()
            .await?;
        let of = |line: &str| {
            line.strip_prefix(name)
                .filter(|rest| rest.starts_with([' ', '{']))
                .and_then(|_| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        };
        Ok(text.lines().filter_map(of).sum::<f64>())
    }

    /// A node's process, while it runs.
    pub fn process(&self, name: &str) -> &Process {
        self.nodes[name]
            .process
            .as_ref()
            .unwrap_or_else(|| panic!("{name} runs"))
    }

    /// The data folder of a node.
    pub fn data(&self, name: &str) -> PathBuf {
        self.places
            .get(name)
            .cloned()
            .unwrap_or_else(|| self.folder.path().join(name))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// A node's log.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// The end of a node's log.
    pub fn log_end(&self, name: &str) -> String {
        let log = self.log(name);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn spawn(&mut self, name: &str) -> Result<()> {
        let node = &self.nodes[name];
        let mut command = node.host.command(self.settings.binary.clone().unwrap_or_else(binary));
        command
            .args([node.role, "--name", name])
            .arg("--config")
            .arg(self.config())
            .arg("--data")
            .arg(self.data(name));
        if !node.host.address.is_loopback() {
            command.arg("--insecure");
        }
        command
            .env_remove("RACHIS_URL")
            .envs(self.settings.environment.iter().cloned());
        let process = Process::start(name, &mut command, &self.log_file(name))?;
        self.nodes.get_mut(name).expect("a node").process = Some(process);
        Ok(())
    }

    async fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let begun = std::time::Instant::now();
        let url = format!("{}/readyz", self.nodes[name].url);
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()?;
        loop {
            let node = self.nodes.get_mut(name).expect("a node");
            if let Some(status) = node.process.as_mut().and_then(Process::ended) {
                bail!("{name} ended with {status}\n{}", self.log_end(name));
            }
            if http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{name} is not ready within {PATIENCE:?}\n{}",
                self.log_end(name)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9` of a node.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut process) = self.nodes.get_mut(name).expect("a node").process.take() {
            process.kill();
        }
    }

    /// Ends a node in order.
    pub fn stop(&mut self, name: &str) {
        let process = self.nodes.get_mut(name).expect("a node").process.take();
        let status = process.expect("it runs").stop().expect("it ends");
        assert!(
            status.success(),
            "an ordered stop of {name} ends with {status}\n{}",
            self.log_end(name)
        );
    }

    /// Starts a node again on its folder, and waits until it is ready.
    pub async fn start_again(&mut self, name: &str) {
        self.start_all_again(&[name.to_owned()]).await;
    }

    /// Starts a node again on its folder; it need not become ready.
    pub fn start_unready(&mut self, name: &str) {
        self.spawn(name).expect("the node starts again");
    }

    /// Starts nodes again on their folders, and waits until all are ready.
    pub async fn start_all_again(&mut self, names: &[String]) {
        for name in names {
            self.spawn(name).expect("the node starts again");
        }
        for name in names {
            self.wait_until_ready(name).await.expect("the node is ready again");
        }
    }
}
