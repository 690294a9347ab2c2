//! The server under test, as one process or as many: each started on its folder, found by the address it has, started
//! again after every end. It takes the ledger's own environment, so settings of the server (`RACHIS_…`) go through.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{crash::Faults, http::Client, process::Process};

/// The roles of a server whose roles are apart, and how many nodes there are of each.
const APART: [(Role, usize); 3] = [(Role::Tailer, 2), (Role::Leaf, 3), (Role::Aggregator, 2)];

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All roles in one.
    Whole,
    Tailer,
    Leaf,
    Aggregator,
}

impl Role {
    /// The sub-command that runs it.
    fn command(self) -> &'static str {
        match self {
            Self::Whole => "dev",
            Self::Tailer => "tailer",
            Self::Leaf => "leaf",
            Self::Aggregator => "aggregator",
        }
    }

    /// What befell it, as the report counts it: kill, kill at the start, pause, restart.
    pub fn words(self) -> [&'static str; 4] {
        match self {
            Self::Whole => [
                "kills of the server",
                "kills of the server while it starts",
                "pauses of the server",
                "orderly restarts of the server",
            ],
            Self::Tailer => [
                "kills of a tailer",
                "kills of a tailer while it starts",
                "pauses of a tailer",
                "orderly restarts of a tailer",
            ],
            Self::Leaf => [
                "kills of a leaf",
                "kills of a leaf while it starts",
                "pauses of a leaf",
                "orderly restarts of a leaf",
            ],
            Self::Aggregator => [
                "kills of an aggregator",
                "kills of an aggregator while it starts",
                "pauses of an aggregator",
                "orderly restarts of an aggregator",
            ],
        }
    }
}

/// One process of the server.
struct Node {
    role: Role,
    name: String,
    /// Where it listens, where that is agreed on before it starts.
    url: Option<String>,
    process: Option<Process>,
}

/// The server of one run.
pub struct Server {
    binary: PathBuf,
    folder: PathBuf,
    faults: Faults,
    client: Client,
    nodes: Vec<Node>,
    /// Batches that leaves did not take, because they had them or because some were missing before; by tailers that
    /// have ended since.
    refused: u64,
}

impl Server {
    /// As one process or, with the address of its Kafka, as many.
    pub async fn start(binary: &Path, folder: &Path, faults: Faults, apart: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let nodes = match apart {
            None => vec![Node {
                role: Role::Whole,
                name: "server".to_owned(),
                url: None,
                process: None,
            }],
            Some(_) => apart_nodes()?,
        };
        let mut server = Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            faults,
            client: Client::new()?,
            nodes,
            refused: 0,
        };
        if let Some(kafka) = apart {
            server.make_cluster(kafka)?;
        }
        for who in server.everybody() {
            server.spawn(who, None)?;
        }
        server.ready(Duration::from_secs(60)).await?;
        Ok(server)
    }

    fn make_cluster(&self, kafka: &str) -> Result<()> {
        let members = |role: Role| {
            let of = self.nodes.iter().filter(|node| node.role == role);
            of.map(|node| format!("{}={}", node.name, node.url.as_deref().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        };
        let text = format!(
            "[cluster]\nkafka = \"{kafka}\"\nreplication = 1\ntailers = \"{}\"\nleaves = \"{}\"\naggregators = \"{}\"\n\
             [cluster.kafka_config]\n\"session.timeout.ms\" = \"1500\"\n\"heartbeat.interval.ms\" = \"300\"\n",
            members(Role::Tailer),
            members(Role::Leaf),
            members(Role::Aggregator)
        );
        std::fs::write(self.config(), text)?;
        let made = Command::new(&self.binary)
            .args(["cluster", "init", "--config"])
            .arg(self.config())
            .output()
            .context("cannot run the server")?;
        ensure!(
            made.status.success(),
            "the cluster is not made: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Its processes.
    pub fn everybody(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// What one of its processes is.
    pub fn role(&self, who: usize) -> Role {
        self.nodes[who].role
    }

    /// Whether some ends are the server's own, at a named point.
    pub fn crashes(&self) -> bool {
        !self.faults.crash_at.is_empty()
    }

    /// Starts a process, without waiting until it is ready.
    pub fn spawn(&mut self, who: usize, crash: Option<(usize, u32)>) -> Result<()> {
        // What an earlier process wrote says nothing about this one.
        let listening = self.listening(who);
        if listening.exists() {
            std::fs::remove_file(&listening).context("cannot remove the earlier address")?;
        }
        let node = &self.nodes[who];
        let mut command = Command::new(&self.binary);
        command.arg(node.role.command()).arg("--data").arg(self.data(who));
        match node.role {
            Role::Whole => command.args(["--listen", "127.0.0.1:0"]),
            _ => command.arg("--name").arg(&node.name).arg("--config").arg(self.config()),
        };
        command.envs(self.faults.environment(crash)).env("RUST_BACKTRACE", "1");
        let process = Process::start(command, &self.folder.join(format!("{}.log", node.name)))?;
        self.nodes[who].process = Some(process);
        Ok(())
    }

    fn data(&self, who: usize) -> PathBuf {
        self.folder.join(&self.nodes[who].name)
    }

    fn listening(&self, who: usize) -> PathBuf {
        self.data(who).join("listening")
    }

    pub fn process(&mut self, who: usize) -> Result<&mut Process> {
        self.nodes[who].process.as_mut().context("the server does not run")
    }

    /// Fails if a process ended without being asked to.
    pub fn must_run(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let process = node.process.as_mut().context("the server does not run")?;
            if let Some(status) = process.ended() {
                bail!("{} ended by itself: {status}; {}", node.name, process.last_words());
            }
        }
        Ok(())
    }

    /// Waits until all processes say that they are ready, and tells everybody where to ask.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for who in self.everybody() {
            loop {
                self.must_run()?;
                let url = std::fs::read_to_string(self.listening(who))
                    .ok()
                    .map(|url| url.trim().to_owned())
                    .filter(|url| url.starts_with("http"));
                if let Some(url) = url
                    && self.client.is_ready(&url).await
                {
                    self.nodes[who].url = Some(url);
                    break;
                }
                if Instant::now() > deadline {
                    let words = self.process(who)?.last_words();
                    bail!("{} is not ready within {within:?}; {words}", self.nodes[who].name);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let doors = self
            .nodes
            .iter()
            .filter(|node| matches!(node.role, Role::Whole | Role::Aggregator));
        self.client.moved(doors.filter_map(|node| node.url.clone()).collect());
        Ok(())
    }

    /// An orderly stop.
    pub async fn stop(&mut self, who: usize) -> Result<()> {
        self.note_refused(who).await;
        let name = self.nodes[who].name.clone();
        let process = self.process(who)?;
        process.signal(Signal::SIGTERM)?;
        match process.wait(Duration::from_secs(60)).await {
            Ok(_) => Ok(()),
            Err(error) => bail!("{name} does not stop when asked to: {error}; {}", process.last_words()),
        }
    }

    /// `kill -9`.
    pub async fn kill(&mut self, who: usize) -> Result<()> {
        self.note_refused(who).await;
        self.process(who)?.kill()
    }

    /// Remembers what a tailer counted, before it goes.
    async fn note_refused(&mut self, who: usize) {
        self.refused += self.refused_by(who).await;
    }

    async fn refused_by(&self, who: usize) -> u64 {
        let node = &self.nodes[who];
        let (Role::Tailer | Role::Whole, Some(url)) = (node.role, &node.url) else {
            return 0;
        };
        // One that does not answer just now is killed without its count.
        let text = self.client.metrics(url).await.unwrap_or_default();
        let verdicts = text
            .lines()
            .filter(|line| line.starts_with("rachis_tail_batches_total{"));
        let refused = verdicts.filter(|line| {
            ["already", "gap", "refused"]
                .iter()
                .any(|verdict| line.contains(&format!("verdict=\"{verdict}\"")))
        });
        refused
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Batches that leaves did not take as they came, so far.
    pub async fn refused(&self) -> u64 {
        let mut refused = self.refused;
        for who in self.everybody() {
            refused += self.refused_by(who).await;
        }
        refused
    }
}

/// Nodes on ports that are free now, and differ: their addresses are agreed on before they start.
fn apart_nodes() -> Result<Vec<Node>> {
    let names = APART
        .iter()
        .flat_map(|(role, count)| (1..=*count).map(move |number| (*role, format!("{}-{number}", role.command()))));
    let mut held = Vec::new();
    let mut nodes = Vec::new();
    for (role, name) in names {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
        nodes.push(Node {
            role,
            name,
            url: Some(format!("http://{}", listener.local_addr()?)),
            process: None,
        });
        held.push(listener);
    }
    Ok(nodes)
}
