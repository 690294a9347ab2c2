//! The server under test: `rachis dev` as a process, and a client that speaks plain HTTP to it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use crate::{
    PATIENCE,
    client::Client,
    process::{Folder, Process},
};

/// How a server is started.
#[derive(Clone, Default)]
pub struct Settings {
    /// Further environment variables (`RACHIS_…`).
    pub environment: Vec<(String, String)>,
    /// Another binary than the one built.
    pub binary: Option<PathBuf>,
    /// Bytes of addresses that it may use, if not all.
    pub address_space: Option<u64>,
    /// Where its folder is made, if not where temporary folders are.
    pub place: Option<PathBuf>,
}

impl Settings {
    /// With one more environment variable.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Splits and merges at small sizes, so that a test of some thousand documents sees merges of merges.
    pub fn small_splits(self) -> Self {
        self.with("RACHIS_LEAF__PUBLISH_DOCUMENTS", 500)
            .with("RACHIS_LEAF__SPLIT_DOCUMENTS", 1000)
            .with("RACHIS_LEAF__MERGE_SPLITS", 3)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 300)
    }

    /// Nothing reaches disk as a split: everything is answered from the tail and micro-splits.
    pub fn no_splits(self) -> Self {
        self.with("RACHIS_LEAF__SPLIT_DOCUMENTS", 100_000_000)
            .with("RACHIS_LEAF__SPLIT_BYTES", 1_u64 << 40)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 86_400_000)
    }
}

/// A running server.
pub struct Server {
    process: Process,
    folder: Folder,
    settings: Settings,
    client: Client,
}

impl std::ops::Deref for Server {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The binary that was built beside the test.
pub fn binary() -> PathBuf {
    std::env::var_os("RACHIS_BIN").map_or_else(|| built("rachis"), PathBuf::from)
}

/// A program of this workspace, beside the test's own executable.
pub fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a process has an executable");
    // A test lies in <target>/<profile>/deps, a program of the workspace in <target>/<profile>.
    let program = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    program.unwrap_or_else(|| panic!("{name} is not built beside {}; run ./tests/run", this.display()))
}

impl Server {
    /// Starts a server on an empty folder and waits until it is ready.
    pub async fn start(settings: Settings) -> Self {
        let place = settings.place.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder::new_in(&place, "server").expect("a temporary folder");
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
        let begun = std::time::Instant::now();
        let listening = self.folder.path().join("data/listening");
        loop {
            if let Some(status) = self.process.ended() {
                bail!("the server ended with {status}\n{}", self.log_end());
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
                begun.elapsed() < PATIENCE,
                "not ready within {PATIENCE:?}\n{}",
                self.log_end()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its folder, killed or stopped before, with these settings from now on.
    pub async fn start_again_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.start_again().await;
    }

    /// Starts it again on its folder.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.folder.path(), &self.settings).expect("the server starts again");
        self.wait_until_ready().await.expect("the server is ready again");
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        let status = self.process.stop().expect("it ends");
        assert!(
            status.success(),
            "an ordered stop ends with {status}\n{}",
            self.log_end()
        );
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn spawn(folder: &Path, settings: &Settings) -> Result<Process> {
    let data = folder.join("data");
    // The file of the run before would name an address that nobody listens on.
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
    command
        .env_remove("RACHIS_URL")
        .envs(settings.environment.iter().cloned());
    Process::start("rachis", &mut command, &folder.join("log"))
}
