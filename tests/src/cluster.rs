//! A cluster under test: a real Kafka, and a process per node. Each node can be killed, paused and restarted.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::{
    Kafka, Network, WAIT_MAX,
    client::Client,
    network::Host,
    process::{Process, TestDir},
    server::{Settings, binary},
};

/// The number of nodes of each role.
#[derive(Debug, Clone, Copy)]
pub struct ClusterSize {
    /// Leaves.
    pub leaves: usize,
    /// Tailers.
    pub tailers: usize,
    /// Aggregators.
    pub aggregators: usize,
}

impl Default for ClusterSize {
    fn default() -> Self {
        Self {
            leaves: 3,
            tailers: 2,
            aggregators: 2,
        }
    }
}

impl ClusterSize {
    /// One node of each role.
    pub const ONE_OF_EACH: Self = Self {
        leaves: 1,
        tailers: 1,
        aggregators: 1,
    };

    /// A network with a host for each node and one for Kafka.
    pub fn network(self) -> Network {
        let names: Vec<String> = self
            .nodes()
            .into_iter()
            .map(|(_, name)| name)
            .chain(["kafka".to_owned()])
            .collect();
        Network::new(&names).expect("a network")
    }

    /// Role and name of each node, in start order.
    fn nodes(self) -> Vec<(&'static str, String)> {
        let nodes_of = |role: &'static str, count: usize| (1..=count).map(move |n| (role, format!("{role}-{n}")));
        nodes_of("tailer", self.tailers)
            .chain(nodes_of("leaf", self.leaves))
            .chain(nodes_of("aggregator", self.aggregators))
            .collect()
    }
}

/// A node of a cluster.
pub struct ClusterNode {
    /// `tailer`, `leaf` or `aggregator`.
    pub role: &'static str,
    /// Its name (`leaf-1`).
    pub name: String,
    /// Its base URL.
    pub url: String,
    host: Host,
    /// Environment variables of its own.
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// A running cluster. Dereferences to a client of its aggregators.
pub struct Cluster {
    /// Its Kafka.
    pub kafka: Kafka,
    nodes: BTreeMap<String, ClusterNode>,
    folder: TestDir,
    settings: Settings,
    /// Data directories outside of the cluster's folder, by node.
    data_dirs: BTreeMap<String, PathBuf>,
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
    pub async fn start(size: ClusterSize, settings: Settings) -> Self {
        let init = ["cluster", "init"];
        Self::start_with(Kafka::start().await, &init, size, settings, BTreeMap::new(), |_| {
            Host::local()
        })
        .await
    }

    /// Starts a cluster in which one node uses the given data directory.
    pub async fn start_with_data_dir(size: ClusterSize, settings: Settings, node: &str, data_dir: PathBuf) -> Self {
        Self::start_with(
            Kafka::start().await,
            &["cluster", "init"],
            size,
            settings,
            [(node.to_owned(), data_dir)].into(),
            |_| Host::local(),
        )
        .await
    }

    /// Starts a broker and all nodes, each on its own host of a network.
    pub async fn start_within(network: &Network, size: ClusterSize, settings: Settings) -> Self {
        let kafka = Kafka::start_on(network.host("kafka"), &[]).await;
        let init = ["cluster", "init"];
        Self::start_with(kafka, &init, size, settings, BTreeMap::new(), |name| network.host(name)).await
    }

    /// Starts all nodes on a running broker, which may have topics of others.
    pub async fn start_on(kafka: Kafka, size: ClusterSize, settings: Settings) -> Self {
        let init = ["cluster", "init", "--beside"];
        Self::start_with(kafka, &init, size, settings, BTreeMap::new(), |_| Host::local()).await
    }

    async fn start_with(
        kafka: Kafka,
        init: &[&str],
        size: ClusterSize,
        settings: Settings,
        data_dirs: BTreeMap<String, PathBuf>,
        host_of: impl Fn(&str) -> Host,
    ) -> Self {
        let folder = TestDir::new("cluster").expect("a temporary folder");
        let names = size.nodes();
        let node = |(role, name): &(&'static str, String)| {
            let host = host_of(name);
            let port = host.free_ports(1).expect("a free port")[0];
            (
                name.clone(),
                ClusterNode {
                    role,
                    name: name.clone(),
                    url: format!("http://{}", host.socket_addr(port)),
                    host,
                    environment: Vec::new(),
                    process: None,
                },
            )
        };
        let nodes: BTreeMap<String, ClusterNode> = names.iter().map(node).collect();
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
            data_dirs,
            client: Client::new(urls),
        };
        std::fs::write(cluster.config(), cluster.config_text()).expect("the folder can be written");
        cluster.command(init).expect("the change log is created");
        for (_, name) in &names {
            cluster.spawn(name).expect("the node starts");
        }
        for (_, name) in &names {
            cluster.wait_until_ready(name).await.expect("the node is ready");
        }
        cluster.wait_until_all_know_all().await;
        cluster
    }

    /// Waits until each aggregator knows every node.
    async fn wait_until_all_know_all(&self) {
        for node in self.nodes.values().filter(|node| node.role == "aggregator") {
            let client = self.client_of(&node.name);
            client
                .eventually("select count(*) from rachis.nodes", json!(self.nodes.len()))
                .await;
        }
    }

    /// Starts a further node with these environment variables, and waits until it is ready.
    pub async fn add(&mut self, role: &'static str, name: &str, environment: &[(&str, &str)]) {
        let host = Host::local();
        let port = host.free_ports(1).expect("a free port")[0];
        let url = format!("http://{}", host.socket_addr(port));
        self.insert(role, name, url, host);
        self.restart_with(name, environment).await;
    }

    /// Restarts a node with these environment variables, and waits until it is ready.
    pub async fn restart_with(&mut self, name: &str, environment: &[(&str, &str)]) {
        let environment = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.nodes.get_mut(name).expect("a node").environment = environment.collect();
        self.restart(name).await;
    }

    /// Starts a further node at the address of one that does not run, and waits until it is ready.
    pub async fn add_at(&mut self, role: &'static str, name: &str, address_of: &str) {
        let (url, host) = (self.nodes[address_of].url.clone(), self.nodes[address_of].host.clone());
        self.insert(role, name, url, host);
        self.restart(name).await;
    }

    fn insert(&mut self, role: &'static str, name: &str, url: String, host: Host) {
        let node = ClusterNode {
            role,
            name: name.to_owned(),
            url,
            host,
            environment: Vec::new(),
            process: None,
        };
        self.nodes.insert(name.to_owned(), node);
    }

    /// Starts another process with the name of a node, in the folder of an earlier call or in a new one, at another address.
    pub fn start_rival(&self, name: &str) -> Process {
        let mut command = Command::new(self.settings.binary.clone().unwrap_or_else(binary));
        command
            .args([
                self.nodes[name].role,
                "--name",
                name,
                "--listen",
                "127.0.0.1:0",
                "--config",
            ])
            .arg(self.config())
            .arg("--data")
            .arg(self.folder.path().join(format!("rival-of-{name}")))
            .envs(self.settings.environment.iter().cloned());
        let log = self.log_file(&format!("rival-of-{name}"));
        Process::start(name, &mut command, &log).expect("the process starts")
    }

    /// Waits until a node's process ends by itself.
    pub async fn wait_until_ended(&mut self, name: &str) {
        let started = std::time::Instant::now();
        let process = self.nodes.get_mut(name).and_then(|node| node.process.as_mut());
        let process = process.expect("the node runs");
        while process.exit_status().is_none() {
            assert!(started.elapsed() < WAIT_MAX, "{name} did not end within {WAIT_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Gives a node that does not run another address.
    pub fn change_address(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).expect("a node");
        let port = node.host.free_ports(1).expect("a free port")[0];
        node.url = format!("http://{}", node.host.socket_addr(port));
        let aggregators = self.nodes.values().filter(|node| node.role == "aggregator");
        self.client = Client::new(aggregators.map(|node| node.url.clone()).collect());
    }

    /// Starts another process with the name of a node, in this folder or an empty one. Returns what it says when it ends.
    pub async fn start_double(&self, role: &str, name: &str, folder: Option<&Path>) -> String {
        let empty = TestDir::new("double").expect("a temporary folder");
        let mut command = tokio::process::Command::new(self.settings.binary.clone().unwrap_or_else(binary));
        command
            .args([role, "--name", name, "--listen", "127.0.0.1:0", "--config"])
            .arg(self.config())
            .arg("--data")
            .arg(folder.unwrap_or(&empty.path()))
            .envs(self.settings.environment.iter().cloned())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(WAIT_MAX, command.output()).await;
        let output = ended.expect("the second process ends by itself").expect("it starts");
        assert!(!output.status.success(), "the second {name} ended well");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The configuration file shared by all nodes.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("cluster.toml")
    }

    fn config_text(&self) -> String {
        format!("[cluster]\nkafka = \"{}\"\nreplication = 1\n", self.kafka.bootstrap())
    }

    /// Runs a command of the binary with the cluster's configuration and returns its standard output.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.settings.binary.clone().unwrap_or_else(binary));
        command.envs(self.settings.environment.iter().cloned());
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

    /// Kills all nodes, and returns the Kafka.
    pub fn into_kafka(mut self) -> Kafka {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        names.iter().for_each(|name| self.kill(name));
        self.kafka
    }

    /// All nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = &ClusterNode> {
        self.nodes.values()
    }

    /// A client of one aggregator.
    pub fn client_of(&self, name: &str) -> Client {
        Client::new(vec![self.nodes[name].url.clone()])
    }

    /// A metric of a node, summed over all labels; 0 if it has none.
    pub async fn metric(&self, node: &str, name: &str) -> Result<f64> {
        let text = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .get(format!("{}/metrics", self.nodes[node].url))
            .send()
            .await?
            .text()
            .await?;
        let value = |line: &str| {
            line.strip_prefix(name)
                .filter(|rest| rest.starts_with([' ', '{']))
                .and_then(|_| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        };
        Ok(text.lines().filter_map(value).sum::<f64>())
    }

    /// A node's process; panics if it does not run.
    pub fn process(&self, name: &str) -> &Process {
        self.nodes[name]
            .process
            .as_ref()
            .unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// A node's data directory.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.data_dirs
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

    /// The last lines of a node's log.
    pub fn log_tail(&self, name: &str) -> String {
        let log = self.log(name);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn spawn(&mut self, name: &str) -> Result<()> {
        let node = &self.nodes[name];
        let mut command = node.host.command(self.settings.binary.clone().unwrap_or_else(binary));
        command
            .args([node.role, "--name", name, "--listen"])
            .arg(node.url.trim_start_matches("http://"))
            .arg("--config")
            .arg(self.config())
            .arg("--data")
            .arg(self.data_dir(name));
        if !node.host.address.is_loopback() {
            command.arg("--insecure");
        }
        command
            .env_remove("RACHIS_URL")
            .envs(self.settings.environment.iter().cloned())
            .envs(node.environment.iter().cloned());
        let process = Process::start(name, &mut command, &self.log_file(name))?;
        self.nodes.get_mut(name).expect("a node").process = Some(process);
        Ok(())
    }

    async fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let started = std::time::Instant::now();
        let url = format!("{}/readyz", self.nodes[name].url);
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()?;
        loop {
            let node = self.nodes.get_mut(name).expect("a node");
            if let Some(status) = node.process.as_mut().and_then(Process::exit_status) {
                bail!("{name} exited with {status}\n{}", self.log_tail(name));
            }
            if let Ok(answer) = http.get(&url).send().await {
                // A leaf with replicas that have to catch up has started, too.
                if answer.status().is_success()
                    || answer
                        .text()
                        .await
                        .is_ok_and(|text| text.contains("replicas on this leaf"))
                {
                    return Ok(());
                }
            }
            ensure!(
                started.elapsed() < WAIT_MAX,
                "{name} was not ready within {WAIT_MAX:?}\n{}",
                self.log_tail(name)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills a node with `kill -9`.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut process) = self.nodes.get_mut(name).expect("a node").process.take() {
            process.kill();
        }
    }

    /// Stops a node gracefully.
    pub fn stop(&mut self, name: &str) {
        let process = self.nodes.get_mut(name).expect("a node").process.take();
        let status = process.expect("the node runs").stop().expect("the node exits");
        assert!(
            status.success(),
            "a graceful stop of {name} ended with {status}\n{}",
            self.log_tail(name)
        );
    }

    /// Restarts a node on its data directory and waits until it is ready.
    pub async fn restart(&mut self, name: &str) {
        self.restart_all(&[name.to_owned()]).await;
    }

    /// Restarts a node on its data directory without waiting until it is ready.
    pub fn restart_without_waiting(&mut self, name: &str) {
        self.spawn(name).expect("the node restarts");
    }

    /// Restarts nodes on their data directories and waits until all are ready.
    pub async fn restart_all(&mut self, names: &[String]) {
        for name in names {
            self.spawn(name).expect("the node restarts");
        }
        for name in names {
            self.wait_until_ready(name)
                .await
                .expect("the node is ready after a restart");
        }
    }
}
