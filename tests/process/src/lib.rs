//! Child processes of tests: killed, paused and resumed, with their log, and networks between them that can be cut. Used
//! by the test harness and by the ledger, which share nothing else. Dropping a process kills it.

pub mod network;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A running process with its log file.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// Bytes of a log that [`Process::log_tail`] shows.
const LOG_TAIL_BYTES: usize = 3_000;

impl Process {
    /// Starts a command and appends its output to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has exited.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the process exits on its own.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {within:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
        format!("the end of {}:\n{text}", self.log.display())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().cast_signed();
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            eprintln!("cannot send {signal} to {} ({pid}): {error}", self.name);
        }
    }

    /// Sends SIGTERM, which asks for a graceful stop.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Sends SIGTERM for a graceful stop and waits for the exit.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate();
        Ok(self.child.wait()?)
    }

    /// Sends SIGSTOP.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        Ok(self.status("VmRSS")? * 1024)
    }

    /// Anonymous memory in bytes: without mapped files, which the kernel can reclaim.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        Ok(self.status("RssAnon")? * 1024)
    }

    /// Peak resident memory in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        Ok(self.status("VmHWM")? * 1024)
    }

    /// The number of threads.
    pub fn threads(&self) -> Result<u64> {
        self.status("Threads")
    }

    /// The number of open files and connections.
    pub fn open_files(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64)
    }

    /// Bytes read through system calls; page faults on mapped files do not count.
    pub fn read_bytes(&self) -> Result<u64> {
        self.proc_field("io", "rchar")
    }

    fn status(&self, key: &str) -> Result<u64> {
        self.proc_field("status", key)
    }

    /// The number behind `key` in `/proc/PID/file`.
    fn proc_field(&self, file: &str, key: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text
            .lines()
            .find(|line| line.split(':').next() == Some(key))
            .with_context(|| format!("no {key}"))?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }

    /// User and system CPU time used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            self.resume();
            self.kill();
        }
    }
}

/// A temporary folder. If the test fails, it is kept and its path printed.
pub struct TestDir(Option<TempDir>);

impl TestDir {
    /// Creates one in the system's temporary folder.
    pub fn new(name: &str) -> Result<Self> {
        Self::new_in(&std::env::temp_dir(), name)
    }

    /// Creates one in `parent`.
    pub fn new_in(parent: &Path, name: &str) -> Result<Self> {
        Ok(Self(Some(
            tempfile::Builder::new()
                .prefix(&format!("rachis-{name}-"))
                .tempdir_in(parent)?,
        )))
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.0
            .as_ref()
            .map(|folder| folder.path().to_owned())
            .unwrap_or_default()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("test folder kept: {}", folder.keep().display());
        }
    }
}

/// A command that runs a class of Apache Kafka, whose jars are in this folder, on a host.
///
/// If `tests/run` has put an archive of the classes beside the jars, it starts faster.
pub fn kafka_command(host: &network::Host, jars: &Path) -> Command {
    let mut command = host.command("java");
    let archive = jars.join("classes.jsa");
    if archive.is_file() {
        command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
    }
    command
        .args(["-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jars.join("*"));
    command
}
