//! A small in-memory file system, for tests that fill a disk.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A tmpfs of its own, unmounted on drop.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of `bytes`. Needs root, or sudo without a password.
    pub fn mount(bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rachis-disk-").tempdir()?;
        as_root(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes},mode=777"),
                "tmpfs",
                &folder.path().display().to_string(),
            ],
        )?;
        Ok(Self(folder))
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a filler file until the file system is full.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        let mut written = 0u64;
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {
                written += size as u64;
            }
        }
        ensure!(written > 0, "could not write to {}", self.filler().display());
        Ok(())
    }

    /// Deletes the filler file.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the disk was not filled")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount works while a process still has files open; that process keeps them.
        if let Err(error) = as_root("umount", &["-l", &self.path().display().to_string()]) {
            eprintln!("cannot unmount {}: {error:#}", self.path().display());
        }
    }
}

fn as_root(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = match nix::unistd::Uid::effective().is_root() {
        true => Command::new(program),
        false => {
            let mut command = Command::new("sudo");
            command.args(["-n", program]);
            command
        }
    };
    let status = command
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "{program} {arguments:?} failed with {status}; it needs root, or sudo without a password"
    );
    Ok(())
}
