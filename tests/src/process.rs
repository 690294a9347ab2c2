//! A child process that can be killed, paused and started again; never left behind.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A running process with its log file.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command; what it prints is appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id is positive");
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            eprintln!("{signal} to {} ({pid}): {error}", self.name);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Asks it to end in order, and waits.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.signal(Signal::SIGTERM);
        Ok(self.child.wait()?)
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        Ok(self.status("VmRSS")? * 1024)
    }

    /// Memory of its own in bytes: without files that are mapped, which the system takes back when it needs the room.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        Ok(self.status("RssAnon")? * 1024)
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        Ok(self.status("VmHWM")? * 1024)
    }

    /// Its threads.
    pub fn threads(&self) -> Result<u64> {
        self.status("Threads")
    }

    /// Files and connections that it has open.
    pub fn open_files(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64)
    }

    /// Bytes that it has read from files, those of mapped pages left out.
    pub fn read_bytes(&self) -> Result<u64> {
        self.told("io", "rchar")
    }

    fn status(&self, key: &str) -> Result<u64> {
        self.told("status", key)
    }

    fn told(&self, file: &str, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.split(':').next() == Some(key))
            .with_context(|| format!("no {key}"))?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }

    /// User and system time used so far.
    pub fn cpu_time(&self) -> Result<std::time::Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(std::time::Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.resume();
            self.kill();
        }
    }
}

/// A temporary folder that is kept, and named, where the test fails.
pub struct Folder(Option<TempDir>);

impl Folder {
    /// A new one.
    pub fn new(name: &str) -> Result<Self> {
        Self::new_in(&std::env::temp_dir(), name)
    }

    /// A new one in a folder.
    pub fn new_in(place: &Path, name: &str) -> Result<Self> {
        Ok(Self(Some(
            tempfile::Builder::new()
                .prefix(&format!("rachis-{name}-"))
                .tempdir_in(place)?,
        )))
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0
            .as_ref()
            .map(|folder| folder.path().to_owned())
            .unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("kept: {}", folder.keep().display());
        }
    }
}
