//! A small file system in memory, for tests that fill a disk.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A file system of its own; gone when it is dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Makes one of so many bytes. Takes root, or sudo that asks no password.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes into a file until nothing more goes in.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        let mut written = 0u64;
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {
                written += size as u64;
            }
        }
        ensure!(written > 0, "nothing went into {}", self.filler().display());
        Ok(())
    }

    /// Takes the file away again.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("it was not filled")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it.
        if let Err(error) = as_root("umount", &["-l", &self.path().display().to_string()]) {
            eprintln!("{} stays: {error:#}", self.path().display());
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
        .with_context(|| format!("{program} cannot be run"))?;
    ensure!(
        status.success(),
        "{program} {arguments:?} ends with {status}; it takes root, or sudo without a password"
    );
    Ok(())
}
