//! The server under test: `rachis dev` as a process, with an HTTP client of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use crate::{
    WAIT_MAX,
    client::Client,
    process::{Process, TestDir},
};

/// How a server is started.
#[derive(Clone, Default)]
pub struct Settings {
    /// Additional environment variables (`RACHIS_…`).
    pub environment: Vec<(String, String)>,
    /// The binary, if not the one built beside the test.
    pub binary: Option<PathBuf>,
    /// A limit for its address space (`ulimit -v`), in bytes.
    pub address_space: Option<u64>,
    /// Whether it pushes the demo streams.
    pub demo: bool,
    /// The parent of its folder, if not the system's temporary folder.
    pub parent_dir: Option<PathBuf>,
}

impl Settings {
    /// Adds an environment variable.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Publishes and merges splits at small sizes, so that a few thousand documents already cause merges of merges.
    pub fn small_splits(self) -> Self {
        self.with("RACHIS_LEAF__PUBLISH_DOCUMENTS", 500)
            .with("RACHIS_LEAF__SPLIT_DOCUMENTS", 1000)
            .with("RACHIS_LEAF__MERGE_SPLITS", 3)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 300)
    }

    /// Stores each shard of new collections on one leaf of a cluster.
    pub fn one_replica(self) -> Self {
        self.with("RACHIS_CLUSTER__REPLICAS", 1)
    }

    /// Has several aggregators compute every query that they can compute together.
    pub fn distributed(self) -> Self {
        self.with("RACHIS_AGGREGATOR__DISTRIBUTE_DOCUMENTS_MIN", 1)
            .with("RACHIS_AGGREGATOR__COLLECTED_JOIN_ROWS_MAX", 1)
    }

    /// Publishes no splits to disk: every answer comes from the tail and from micro-splits.
    pub fn no_splits(self) -> Self {
        self.with("RACHIS_LEAF__SPLIT_DOCUMENTS", 100_000_000)
            .with("RACHIS_LEAF__SPLIT_BYTES", 1_u64 << 40)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 86_400_000)
    }
}

/// A running server.
pub struct Server {
    process: Process,
    folder: TestDir,
    settings: Settings,
    client: Client,
}

impl std::ops::Deref for Server {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The server's binary: `RACHIS_BIN`, else the one built beside the test.
pub fn binary() -> PathBuf {
    std::env::var_os("RACHIS_BIN").map_or_else(|| workspace_binary("rachis"), PathBuf::from)
}

/// A binary of this workspace, located relative to the test's own executable.
pub fn workspace_binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a process has an executable");
    // A test is built into <target>/<profile>/deps, a binary of the workspace into <target>/<profile>.
    let program = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    program.unwrap_or_else(|| panic!("{name} has not been built beside {}; run ./tests/run", this.display()))
}

impl Server {
    /// Starts a server on an empty folder and waits until it is ready.
    pub async fn start(settings: Settings) -> Self {
        Self::start_on(settings, |_| ()).await
    }

    /// Starts a server on a folder that `fill` has filled; the server's data is in its `data`.
    pub async fn start_on(settings: Settings, fill: impl FnOnce(&Path)) -> Self {
        let parent = settings.parent_dir.clone().unwrap_or_else(std::env::temp_dir);
        let folder = TestDir::new_in(&parent, "server").expect("a temporary folder");
        fill(&folder.path());
        let process = spawn(&folder.path(), &settings).expect("the server starts");
        let mut server = Self {
            process,
            folder,
            settings,
            client: Client::new(vec![String::new()]),
        };
        server.wait_until_ready().await.expect("the server is ready");
        server
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let started = std::time::Instant::now();
        let listening = self.folder.path().join("data/listening");
        loop {
            if let Some(status) = self.process.exit_status() {
                bail!("the server exited with {status}\n{}", self.log_tail());
            }
            if let Ok(url) = std::fs::read_to_string(&listening) {
                self.client = Client::new(vec![url.trim().to_owned()]);
                let ready = self
                    .client
                    .request(reqwest::Method::GET, "/readyz")
                    .timeout(Duration::from_secs(2))
                    .send()
                    .await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
            }
            ensure!(
                started.elapsed() < WAIT_MAX,
                "the server was not ready within {WAIT_MAX:?}\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Kills it with `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Restarts it on its folder after a kill or a stop, with new settings.
    pub async fn restart_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.restart().await;
    }

    /// Restarts it on its folder.
    pub async fn restart(&mut self) {
        self.process = spawn(&self.folder.path(), &self.settings).expect("the server restarts");
        self.wait_until_ready()
            .await
            .expect("the server is ready after a restart");
    }

    /// Stops it gracefully.
    pub fn stop(&mut self) {
        let status = self.process.stop().expect("the server exits");
        assert!(
            status.success(),
            "a graceful stop ended with {status}\n{}",
            self.log_tail()
        );
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn spawn(folder: &Path, settings: &Settings) -> Result<Process> {
    let data = folder.join("data");
    // The file from the previous run names an address that is no longer in use.
    let _ = std::fs::remove_file(data.join("listening"));
    let binary = settings.binary.clone().unwrap_or_else(binary);
    let mut command = match settings.address_space {
        Some(bytes) => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("ulimit -v {}; exec \"$0\" \"$@\"", bytes >> 10)])
                .arg(binary);
            shell
        }
        None => Command::new(binary),
    };
    command
        .arg("dev")
        .arg("--data")
        .arg(&data)
        .args(["--listen", "127.0.0.1:0"]);
    if settings.demo {
        command.arg("--demo");
    }
    command
        .env_remove("RACHIS_URL")
        .envs(settings.environment.iter().cloned());
    Process::start("rachis", &mut command, &folder.join("log"))
}
