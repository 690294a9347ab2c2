//! The data folder: created if missing, locked by one process at a time; the process writes its URL to it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};
use tracing::warn;
use uuid::Uuid;

use crate::client::Failure;

/// The locked data folder of this process.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Never read. The operating system releases the lock with the process, however it ends.
    _lock: File,
}

impl DataFolder {
    /// Opens the folder and locks it for this process.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(format!("cannot {what} the data folder {}: {error}", path.display()))
        };
        // Only this process's user may read the documents and the broker passwords in the catalog.
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        fs::create_dir_all(path).map_err(|e| failed("create", e))?;
        let path = path.canonicalize().map_err(|e| failed("find", e))?;
        let mode = fs::metadata(&path).map_err(|e| failed("read", e))?.permissions().mode();
        if mode & 0o077 != 0 {
            let (folder, mode) = (path.display(), mode & 0o777);
            warn!(
                "other users of this machine can read the data folder {folder} (mode {mode:03o}), which may contain \
                 broker passwords; run chmod -R go-rwx {folder}"
            );
        }
        let file = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(|e| failed("write to", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "the data folder {} is in use by another process",
                    path.display()
                ))
                .hint("stop that process, or choose another folder with --data"));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        let folder = Self { path, _lock: lock };
        folder.remove_url();
        Ok(folder)
    }

    /// Records that the folder belongs to `node`, and returns the id of the folder. Fails if it belongs to another node,
    /// because this node would serve that node's shards as its own.
    pub(crate) fn claim_for(&self, node: &str) -> Result<Uuid, Failure> {
        let file = self.join("node");
        let known = match fs::read_to_string(&file) {
            Ok(known) => known,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", file.display()))),
        };
        let mut lines = known.lines();
        if let Some(owner) = lines.next().filter(|owner| *owner != node) {
            return Err(Failure::new(format!(
                "the data folder {} belongs to {owner}, not to {node}",
                self.path.display(),
            ))
            .hint("choose another folder with --data; each node needs its own"));
        }
        let id = lines.next().and_then(|id| id.parse().ok());
        if let Some(why) = lines.next() {
            return Err(Failure::new(format!("this node left its cluster: {why}")).hint(format!(
                "start it with another --name and another --data folder; to let it be a member again, stop the other node, \
                 remove it from the cluster, and delete the third line of {}",
                file.display()
            )));
        }
        if let Some(id) = id {
            return Ok(id);
        }
        let id = Uuid::new_v4();
        let written = write_atomically(&self.path, "node", &format!("{node}\n{id}\n"));
        written.map_err(|e| Failure::new(format!("cannot write {}: {e}", file.display())))?;
        Ok(id)
    }

    /// With it, the folder can be marked while the server has it.
    pub(crate) fn mark(&self) -> FolderMark {
        FolderMark(self.path.clone())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the URL for clients to the file `listening`, atomically.
    pub(crate) fn write_url(&self, url: &str) -> io::Result<()> {
        write_atomically(&self.path, "listening", &format!("{url}\n"))
    }

    /// Removes the file `listening`.
    pub(crate) fn remove_url(&self) {
        let _ = fs::remove_file(self.join("listening"));
    }
}

/// Marks a data folder whose node must not start again.
pub(crate) struct FolderMark(PathBuf);

impl FolderMark {
    /// No process starts with this folder any more; it says why.
    pub(crate) fn retire(&self, why: &str) -> io::Result<()> {
        let known = fs::read_to_string(self.0.join("node"))?;
        write_atomically(&self.0, "node", &format!("{}\n{why}\n", known.trim_end()))
    }
}

fn write_atomically(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, folder.join(name))
}

/// The URL for clients on this machine.
pub(crate) fn local_url(bound: SocketAddr) -> String {
    let mut reachable = bound;
    if bound.ip().is_unspecified() {
        reachable.set_ip(if bound.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{reachable}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_by_one_process_at_a_time() {
        let root = std::env::temp_dir().join(format!("rachis-{}", uuid::Uuid::now_v7()));
        let first = DataFolder::open(&root.join("data")).expect("the folder is free");
        first.write_url("http://127.0.0.1:0").expect("the URL is written");
        assert_eq!(
            fs::read_to_string(first.join("listening")).expect("the file exists"),
            "http://127.0.0.1:0\n"
        );
        let second = DataFolder::open(&root.join("data")).expect_err("the folder is locked");
        assert!(second.to_string().contains("in use"), "{second}");
        drop(first);
        let third = DataFolder::open(&root.join("data")).expect("the folder is free again");
        assert!(
            !third.join("listening").exists(),
            "the URL of the previous process is removed"
        );
        fs::remove_dir_all(root).expect("the folder is removed");
    }

    #[test]
    fn a_folder_has_one_id_and_one_owner_until_its_node_was_replaced() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(root.path()).expect("the folder is free");
        let id = folder.claim_for("leaf leaf-1").expect("it has no owner");
        assert_eq!(folder.claim_for("leaf leaf-1").expect("the same owner"), id);
        let other = folder.claim_for("leaf leaf-2").expect_err("another owner");
        assert!(other.to_string().contains("belongs to leaf leaf-1"), "{other}");
        folder.mark().retire("another leaf has its name").expect("it is marked");
        let retired = folder.claim_for("leaf leaf-1").expect_err("it was replaced");
        assert!(retired.to_string().contains("another leaf has its name"), "{retired}");
        // As earlier releases wrote it.
        fs::write(folder.join("node"), "leaf leaf-1\n").expect("it is written");
        assert_ne!(folder.claim_for("leaf leaf-1").expect("the same owner"), id);
    }

    #[test]
    fn an_unspecified_address_becomes_loopback() {
        assert_eq!(
            local_url("0.0.0.0:7700".parse().expect("an address")),
            "http://127.0.0.1:7700"
        );
        assert_eq!(local_url("[::]:7700".parse().expect("an address")), "http://[::1]:7700");
        assert_eq!(
            local_url("10.0.0.1:80".parse().expect("an address")),
            "http://10.0.0.1:80"
        );
    }
}
