//! The server under test, as one process or as one per role. Each process has its own folder and is restarted on it.
//!
//! The processes inherit the environment of the ledger, so settings of the server (`RACHIS_…`) pass through.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use child_process::Process;
use rand::rngs::StdRng;

use crate::{
    faults::Faults,
    hosts::{Hosts, Place},
    http::Client,
};

/// The roles of a cluster, and how many nodes of each there are at first.
pub(crate) const CLUSTER: [(Role, usize); 3] = [(Role::Tailer, 2), (Role::Leaf, 3), (Role::Aggregator, 2)];

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
    pub cut: &'static str,
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
                cut: "network cuts of the server",
                restart: "orderly restarts of the server",
            },
            Self::Tailer => RoleLabels {
                kill: "kills of a tailer",
                kill_at_start: "kills of a tailer while it starts",
                pause: "pauses of a tailer",
                cut: "network cuts of a tailer",
                restart: "orderly restarts of a tailer",
            },
            Self::Leaf => RoleLabels {
                kill: "kills of a leaf",
                kill_at_start: "kills of a leaf while it starts",
                pause: "pauses of a leaf",
                cut: "network cuts of a leaf",
                restart: "orderly restarts of a leaf",
            },
            Self::Aggregator => RoleLabels {
                kill: "kills of an aggregator",
                kill_at_start: "kills of an aggregator while it starts",
                pause: "pauses of an aggregator",
                cut: "network cuts of an aggregator",
                restart: "orderly restarts of an aggregator",
            },
        }
    }
}

/// The programs that the nodes run.
pub(crate) struct Binaries {
    pub server: PathBuf,
    /// What nodes run until they are upgraded.
    pub older: Option<PathBuf>,
}

/// One process of the server.
struct Node {
    role: Role,
    name: String,
    /// Whether it runs the older program, if there is one.
    is_older: bool,
    place: Place,
    /// The address; in a cluster it is fixed before the node starts.
    url: Option<String>,
    process: Option<Process>,
}

impl Node {
    /// A node of a cluster that does not run yet.
    fn new(role: Role, number: usize, place: Place) -> Result<Self> {
        let port = place.host.free_ports(1)?[0];
        Ok(Self {
            role,
            name: format!("{}-{number}", role.command()),
            is_older: false,
            url: Some(format!("http://{}", place.host.socket_addr(port))),
            place,
            process: None,
        })
    }
}

pub(crate) struct Server {
    binaries: Binaries,
    folder: PathBuf,
    faults: Faults,
    client: Client,
    hosts: Hosts,
    nodes: Vec<Node>,
    /// The number in the name of the last node that was added.
    added: usize,
    /// Batches that leaves refused from tailers that have since ended; see [`Server::refused_batches`].
    refused_batches: u64,
}

impl Server {
    /// Starts one process or, if the address of a Kafka is given, a cluster.
    pub(crate) async fn start(
        binaries: Binaries,
        folder: &Path,
        faults: Faults,
        mut hosts: Hosts,
        kafka: Option<&str>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut nodes = match kafka {
            None => vec![Node {
                role: Role::Whole,
                name: "server".to_owned(),
                is_older: false,
                place: hosts.take()?,
                url: None,
                process: None,
            }],
            Some(_) => cluster_nodes(&mut hosts)?,
        };
        nodes
            .iter_mut()
            .for_each(|node| node.is_older = binaries.older.is_some());
        let mut server = Self {
            binaries,
            folder: folder.to_owned(),
            faults,
            client: Client::new()?,
            hosts,
            nodes,
            added: CLUSTER.iter().map(|(_, count)| count).sum(),
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
        let output = Command::new(self.binaries.older.as_ref().unwrap_or(&self.binaries.server))
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

    /// The indexes of the nodes with a role. They change when a node is removed.
    pub(crate) fn nodes_of(&self, role: Role) -> Vec<usize> {
        self.nodes().filter(|node| self.role(*node) == role).collect()
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    /// Starts another node, with a name that no other one had.
    pub(crate) fn add(&mut self, role: Role) -> Result<()> {
        self.added += 1;
        let place = self.hosts.take()?;
        self.nodes.push(Node::new(role, self.added, place)?);
        self.spawn(self.nodes.len() - 1, None)
    }

    /// The index of a node that runs the older program, if one does.
    pub(crate) fn older_node(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.is_older)
    }

    /// Stops a node in order and starts it with the program that is tested.
    pub(crate) async fn upgrade(&mut self, node: usize) -> Result<()> {
        self.stop(node).await?;
        self.nodes[node].is_older = false;
        self.spawn(node, None)
    }

    /// Stops a node and forgets it.
    pub(crate) async fn remove(&mut self, name: &str) -> Result<()> {
        let node = self.nodes().find(|node| self.name(*node) == name);
        let node = node.with_context(|| format!("there is no {name}"))?;
        self.stop(node).await?;
        let node = self.nodes.remove(node);
        self.hosts.give_back(node.place);
        Ok(())
    }

    /// Cuts some of the connections of a node with the other nodes and the broker.
    pub(crate) fn cut_some(&self, rng: &mut StdRng, node: usize, broker: Option<&Place>) -> Result<()> {
        let others = self.nodes().filter(|other| *other != node);
        let others: Vec<&Place> = others.map(|other| &self.nodes[other].place).chain(broker).collect();
        self.hosts.cut_some(rng, &self.nodes[node].place, &others)
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        self.hosts.heal();
    }

    /// Removes everything that a node has on its disk. It must not run.
    pub(crate) fn empty_disk(&self, node: usize) -> Result<()> {
        std::fs::remove_dir_all(self.data(node))
            .with_context(|| format!("cannot empty the disk of {}", self.name(node)))
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
        let Node {
            role,
            name,
            is_older,
            place,
            url,
            ..
        } = &self.nodes[node];
        let older = self.binaries.older.as_ref().filter(|_| *is_older);
        let mut command = place.host.command(older.unwrap_or(&self.binaries.server));
        let listen = url.as_deref().and_then(|url| url.strip_prefix("http://"));
        command.arg(role.command()).arg("--data").arg(self.data(node));
        command.arg("--listen").arg(listen.unwrap_or("127.0.0.1:0"));
        if *role != Role::Whole {
            command.arg("--name").arg(name).arg("--config").arg(self.config());
            // In a namespace it does not listen on loopback.
            command.arg("--insecure");
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
                    && self.client.has_started(&url).await
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

/// The nodes that a cluster has at first. Their addresses are fixed before they start.
fn cluster_nodes(hosts: &mut Hosts) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for (role, count) in CLUSTER {
        for number in 1..=count {
            nodes.push(Node::new(role, number, hosts.take()?)?);
        }
    }
    Ok(nodes)
}
