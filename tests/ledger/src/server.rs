//! The server under test: started on a port it chooses, found by the file it writes, started again after every end. It takes the ledger's
//! own environment, so settings of the server (`RACHIS_…`) go through.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::{crash::Faults, http::Client, process::Process};

/// The server of one run.
pub struct Server {
    binary: PathBuf,
    folder: PathBuf,
    faults: Faults,
    client: Client,
    process: Option<Process>,
}

impl Server {
    pub async fn start(binary: &Path, folder: &Path, faults: Faults) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut server = Self { binary: binary.to_owned(), folder: folder.to_owned(), faults, client: Client::new()?, process: None };
        server.spawn(None)?;
        server.ready(Duration::from_secs(60)).await?;
        Ok(server)
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether some ends are the server's own, at a named point.
    pub fn crashes(&self) -> bool {
        !self.faults.crash_at.is_empty()
    }

    /// Starts it, without waiting until it is ready.
    pub fn spawn(&mut self, crash: Option<(usize, u32)>) -> Result<()> {
        // What an earlier process wrote says nothing about this one.
        let listening = self.listening();
        if listening.exists() {
            std::fs::remove_file(&listening).context("cannot remove the earlier address")?;
        }
        let mut command = Command::new(&self.binary);
        command.arg("dev").arg("--data").arg(self.folder.join("data")).args(["--listen", "127.0.0.1:0"]);
        command.envs(self.faults.environment(crash)).env("RUST_BACKTRACE", "1");
        self.process = Some(Process::start(command, &self.folder.join("log"))?);
        Ok(())
    }

    fn listening(&self) -> PathBuf {
        self.folder.join("data/listening")
    }

    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server does not run")
    }

    /// Fails if it ended without being asked to.
    pub fn must_run(&mut self) -> Result<()> {
        let process = self.process()?;
        match process.ended() {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself: {status}; {}", process.last_words()),
        }
    }

    /// Waits until it says that it is ready, and tells everybody where it is.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            self.must_run()?;
            if let Some(url) = std::fs::read_to_string(self.listening()).ok().filter(|url| url.trim().starts_with("http")) {
                self.client.moved(url.trim());
                if self.client.is_ready().await {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                bail!("the server is not ready within {within:?}; {}", self.process()?.last_words());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// An orderly stop.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process()?;
        process.signal(Signal::SIGTERM)?;
        match process.wait(Duration::from_secs(60)).await {
            Ok(_) => Ok(()),
            Err(error) => bail!("the server does not stop when asked to: {error}; {}", process.last_words()),
        }
    }
}
