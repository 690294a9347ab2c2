//! What does a system cost? CPU time and memory of a process with its descendants (from `/proc`), and bytes on disk.
//! And what did everything else on the machine use meanwhile, which makes figures worse than they are?

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Clock ticks per second in `/proc/PID/stat` (`USER_HZ`): 100 on x86 and on ARM.
const TICKS_PER_SECOND: u64 = 100;

/// What a process and its descendants have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, with that of descendants that have exited.
    pub(crate) cpu: Duration,
    /// Peak of resident memory in bytes; of several processes, the sum of their peaks.
    pub(crate) peak_bytes: u64,
}

/// One line of `/proc/PID/stat`.
struct ProcessStat {
    parent: u32,
    /// User and system time of the process and of children that it has waited for.
    ticks: u64,
}

/// What the process `root` and its descendants have used so far; an error if it does not run.
pub(crate) fn usage(root: u32) -> Result<Usage> {
    let stats = process_stats()?;
    ensure!(stats.contains_key(&root), "process {root} does not run");
    let mut usage = Usage::default();
    for pid in with_descendants(root, &stats) {
        usage.cpu += stats.get(&pid).map_or(Duration::ZERO, |stat| ticks(stat.ticks));
        usage.peak_bytes += peak_bytes(pid);
    }
    Ok(usage)
}

/// A process and all of its descendants.
fn with_descendants(root: u32, stats: &BTreeMap<u32, ProcessStat>) -> Vec<u32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(
            stats
                .iter()
                .filter(|(_, stat)| stat.parent == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    family
}

/// Lets the peaks of resident memory of a process and its descendants begin again with what is resident now.
pub(crate) fn reset_peaks(root: u32) -> Result<()> {
    /// `man 5 proc_pid_clear_refs`: reset `VmHWM`.
    const RESET_PEAK: &str = "5";
    for pid in with_descendants(root, &process_stats()?) {
        let path = format!("/proc/{pid}/clear_refs");
        std::fs::write(&path, RESET_PEAK).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// The CPU time of everything on this machine but this process and its descendants.
#[derive(Debug)]
pub(crate) struct OtherLoad {
    begun: Instant,
    busy_before: Duration,
    own_before: Duration,
}

impl OtherLoad {
    /// Begins to measure.
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            busy_before: busy_time()?,
            own_before: usage(std::process::id())?.cpu,
        })
    }

    /// How many cores others have kept busy since then, on average.
    pub(crate) fn cores(&self) -> Result<f64> {
        let busy = busy_time()?.saturating_sub(self.busy_before);
        let own = usage(std::process::id())?.cpu.saturating_sub(self.own_before);
        Ok(busy.saturating_sub(own).as_secs_f64() / self.begun.elapsed().as_secs_f64())
    }
}

/// The time that all cores together have not been idle since the machine started.
fn busy_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Vec<u64> = line
        .context("/proc/stat does not begin with all cores")?
        .split_whitespace()
        .map(|field| field.parse().context("/proc/stat has a field that is not a number"))
        .collect::<Result<_>>()?;
    // user, nice, system, idle, iowait, irq, softirq, steal: all but waiting and what the host took.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(ticks(busy))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// All processes. Those that exit meanwhile are left out.
fn process_stats() -> Result<BTreeMap<u32, ProcessStat>> {
    let folders = std::fs::read_dir("/proc").context("cannot list /proc")?;
    let stat = |folder: std::io::Result<std::fs::DirEntry>| {
        let pid: u32 = folder.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, read_stat(pid)?))
    };
    Ok(folders.filter_map(stat).collect())
}

fn read_stat(pid: u32) -> Option<ProcessStat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may contain anything: state, parent, …; at 11 to 14 the times.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(ProcessStat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

/// `VmHWM` of a process; 0 if it has just exited.
fn peak_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kibibytes = text.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kibibytes.unwrap_or_default() * 1024
}

/// The bytes of all files in a folder. Files that disappear meanwhile are left out, and so is Rachis's ballast, which
/// only reserves disk space.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_entry(|entry| entry.file_name() != "ballast");
    let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    sizes.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_the_process_and_its_descendants() {
        let (other, before) = (
            OtherLoad::begin().expect("a figure"),
            usage(std::process::id()).expect("a figure"),
        );
        // `bash` runs the loop in a child of its own, which it waits for.
        let script = "( for ((i = 0; i < 100000; i++)); do :; done ); exit 0";
        let status = std::process::Command::new("bash").args(["-c", script]).status();
        assert!(status.expect("bash runs").success());
        let after = usage(std::process::id()).expect("a figure");
        assert!(after.cpu - before.cpu >= Duration::from_millis(50), "{:?}", after.cpu);
        assert!(after.peak_bytes > 1 << 20);
        let cores = std::thread::available_parallelism().expect("cores").get() as f64;
        assert!((0.0..=cores + 0.5).contains(&other.cores().expect("a figure")));
    }

    #[test]
    fn a_process_that_does_not_run_is_an_error() {
        assert!(usage(u32::MAX).is_err());
    }
}
