//! The server under test, as one process or as one per role. Each process has its own folder and is restarted on it.
//!
//! The processes inherit the environment of the ledger, so settings of the server (`RACHIS_…`) pass through.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use child_process::Process;

use crate::{faults::Faults, http::Client};

/// The roles of a cluster, and how many nodes of each there are.
const CLUSTER: [(Role, usize); 3] = [(Role::Tailer, 2), (Role::Leaf, 3), (Role::Aggregator, 2)];

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All roles in one process.
    Whole,
    Tailer,
    Leaf,
    Aggregator,
}

/// How the report names what was done to a node.
pub(crate) struct RoleLabels {
    pub kill: &'static str,
    pub kill_at_start: &'static str,
    pub pause: &'static str,
    pub restart: &'static str,
}

impl Role {
    /// The sub-command that runs this role.
    fn command(self) -> &'static str {
        match self {
            Self::Whole => "dev",
            Self::Tailer => "tailer",
            Self::Leaf => "leaf",
            Self::Aggregator => "aggregator",
        }
    }

    pub(crate) fn labels(self) -> RoleLabels {
        match self {
            Self::Whole => RoleLabels {
                kill: "kills of the server",
                kill_at_start: "kills of the server while it starts",
                pause: "pauses of the server",
                restart: "orderly restarts of the server",
            },
            Self::Tailer => RoleLabels {
                kill: "kills of a tailer",
                kill_at_start: "kills of a tailer while it starts",
                pause: "pauses of a tailer",
                restart: "orderly restarts of a tailer",
            },
            Self::Leaf => RoleLabels {
                kill: "kills of a leaf",
                kill_at_start: "kills of a leaf while it starts",
                pause: "pauses of a leaf",
                restart: "orderly restarts of a leaf",
            },
            Self::Aggregator => RoleLabels {
                kill: "kills of an aggregator",
                kill_at_start: "kills of an aggregator while it starts",
                pause: "pauses of an aggregator",
                restart: "orderly restarts of an aggregator",
            },
        }
    }
}

/// One process of the server.
struct Node {
    role: Role,
    name: String,
    /// The address; in a cluster it is fixed before the node starts.
    url: Option<String>,
    process: Option<Process>,
}

pub(crate) struct Server {
    binary: PathBuf,
    folder: PathBuf,
    faults: Faults,
    client: Client,
    nodes: Vec<Node>,
    /// Batches that leaves refused from tailers that have since ended; see [`Server::refused_batches`].
    refused_batches: u64,
}

impl Server {
    /// Starts one process or, if the address of a Kafka is given, a cluster.
    pub(crate) async fn start(binary: &Path, folder: &Path, faults: Faults, kafka: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let nodes = match kafka {
            None => vec![Node {
                role: Role::Whole,
                name: "server".to_owned(),
                url: None,
                process: None,
            }],
            Some(_) => cluster_nodes()?,
        };
        let mut server = Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            faults,
            client: Client::new()?,
            nodes,
            refused_batches: 0,
        };
        if let Some(kafka) = kafka {
            server.init_cluster(kafka)?;
        }
        for node in server.nodes() {
            server.spawn(node, None)?;
        }
        server.wait_until_ready(Duration::from_secs(60)).await?;
        Ok(server)
    }

    fn init_cluster(&self, kafka: &str) -> Result<()> {
        let text = format!(
            "[cluster]\nkafka = \"{kafka}\"\nreplication = 1\n\
             [cluster.kafka_config]\n\"session.timeout.ms\" = \"1500\"\n\"heartbeat.interval.ms\" = \"300\"\n",
        );
        std::fs::write(self.config(), text)?;
        let output = Command::new(&self.binary)
            .args(["cluster", "init", "--config"])
            .arg(self.config())
            .output()
            .context("cannot run the server")?;
        ensure!(
            output.status.success(),
            "cannot initialise the cluster: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The indexes of all nodes.
    pub(crate) fn nodes(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    pub(crate) fn role(&self, node: usize) -> Role {
        self.nodes[node].role
    }

    /// Whether the server can end itself at named points.
    pub(crate) fn crashes(&self) -> bool {
        !self.faults.crash_at.is_empty()
    }

    /// Starts a node, without waiting until it is ready.
    pub(crate) fn spawn(&mut self, node: usize, crash: Option<(usize, u32)>) -> Result<()> {
        // The address file of an earlier process says nothing about this one.
        let listening = self.listening(node);
        if listening.exists() {
            std::fs::remove_file(&listening).context("cannot remove the earlier address")?;
        }
        let Node { role, name, url, .. } = &self.nodes[node];
        let mut command = Command::new(&self.binary);
        let listen = url.as_deref().and_then(|url| url.strip_prefix("http://"));
        command.arg(role.command()).arg("--data").arg(self.data(node));
        command.arg("--listen").arg(listen.unwrap_or("127.0.0.1:0"));
        if *role != Role::Whole {
            command.arg("--name").arg(name).arg("--config").arg(self.config());
        }
        command.envs(self.faults.environment(crash)).env("RUST_BACKTRACE", "1");
        let process = Process::start(name, &mut command, &self.folder.join(format!("{name}.log")))?;
        self.nodes[node].process = Some(process);
        Ok(())
    }

    fn data(&self, node: usize) -> PathBuf {
        self.folder.join(&self.nodes[node].name)
    }

    /// The file in which a node writes its address.
    fn listening(&self, node: usize) -> PathBuf {
        self.data(node).join("listening")
    }

    pub(crate) fn process(&mut self, node: usize) -> Result<&mut Process> {
        self.nodes[node].process.as_mut().context("the server is not running")
    }

    /// Fails if a process exited on its own.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let process = node.process.as_mut().context("the server is not running")?;
            if let Some(status) = process.exit_status() {
                bail!("{} exited on its own: {status}; {}", node.name, process.log_tail());
            }
        }
        Ok(())
    }

    /// Waits until all nodes are ready, and points the client at them.
    pub(crate) async fn wait_until_ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for node in self.nodes() {
            loop {
                self.check_running()?;
                let url = std::fs::read_to_string(self.listening(node))
                    .ok()
                    .map(|url| url.trim().to_owned())
                    .filter(|url| url.starts_with("http"));
                if let Some(url) = url
                    && self.client.is_ready(&url).await
                {
                    self.nodes[node].url = Some(url);
                    break;
                }
                if Instant::now() > deadline {
                    let log = self.process(node)?.log_tail();
                    bail!("{} is not ready within {within:?}; {log}", self.nodes[node].name);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let queryable = self
            .nodes
            .iter()
            .filter(|node| matches!(node.role, Role::Whole | Role::Aggregator));
        self.client
            .set_urls(queryable.filter_map(|node| node.url.clone()).collect());
        Ok(())
    }

    /// Stops a node with `SIGTERM`.
    pub(crate) async fn stop(&mut self, node: usize) -> Result<()> {
        self.add_refused_batches(node).await;
        let name = self.nodes[node].name.clone();
        let process = self.process(node)?;
        process.terminate();
        match process.wait(Duration::from_secs(60)).await {
            Ok(_) => Ok(()),
            Err(error) => bail!("{name} does not stop on SIGTERM: {error}; {}", process.log_tail()),
        }
    }

    /// Kills a node with `SIGKILL`.
    pub(crate) async fn kill(&mut self, node: usize) -> Result<()> {
        self.add_refused_batches(node).await;
        self.process(node)?.kill();
        Ok(())
    }

    /// Saves the count of a tailer before it ends.
    async fn add_refused_batches(&mut self, node: usize) {
        self.refused_batches += self.refused_batches_of(node).await;
    }

    async fn refused_batches_of(&self, node: usize) -> u64 {
        const REFUSALS: [&str; 3] = ["already", "gap", "refused"];
        let node = &self.nodes[node];
        let (Role::Tailer | Role::Whole, Some(url)) = (node.role, &node.url) else {
            return 0;
        };
        // If the node does not answer, its count is lost.
        let text = self.client.metrics(url).await.unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("rachis_tail_batches_total{"))
            .filter(|line| {
                REFUSALS
                    .iter()
                    .any(|verdict| line.contains(&format!("verdict=\"{verdict}\"")))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Batches that leaves have refused so far, because they were duplicates or because earlier ones were missing.
    pub(crate) async fn refused_batches(&self) -> u64 {
        let mut refused = self.refused_batches;
        for node in self.nodes() {
            refused += self.refused_batches_of(node).await;
        }
        refused
    }
}

/// Nodes on different free ports: their addresses are fixed before they start.
fn cluster_nodes() -> Result<Vec<Node>> {
    let names = CLUSTER
        .iter()
        .flat_map(|(role, count)| (1..=*count).map(move |number| (*role, format!("{}-{number}", role.command()))));
    // All ports stay bound until the last one is chosen, so no two are equal.
    let mut listeners = Vec::new();
    let mut nodes = Vec::new();
    for (role, name) in names {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
        nodes.push(Node {
            role,
            name,
            url: Some(format!("http://{}", listener.local_addr()?)),
            process: None,
        });
        listeners.push(listener);
    }
    Ok(nodes)
}
