//! The data folder: made where it does not exist, used by one process at a time, and the place where the process says
//! how it is reached.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};
use tracing::warn;

use crate::client::Failure;

/// The data folder of this process, until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Held, not read: the operating system lets go of it with the process, however that ends.
    _lock: File,
}

impl DataFolder {
    /// Takes a folder for this process alone.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(format!("cannot {what} the data folder {}: {error}", path.display()))
        };
        // What is stored, and the passwords of brokers in the catalog, is for the user of this process alone.
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        fs::create_dir_all(path).map_err(|e| failed("make", e))?;
        let path = path.canonicalize().map_err(|e| failed("find", e))?;
        let mode = fs::metadata(&path).map_err(|e| failed("read", e))?.permissions().mode();
        if mode & 0o077 != 0 {
            let (folder, mode) = (path.display(), mode & 0o777);
            warn!(
                "other users of this machine may look into the data folder {folder} (mode {mode:03o}), where passwords of brokers may be: chmod -R go-rwx {folder}"
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
                .hint("stop that one, or give this one another folder with --data"));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        let folder = Self { path, _lock: lock };
        folder.not_listening();
        Ok(folder)
    }

    /// Notes whose folder it is; refused where it is another's: its shards would be taken for this one's.
    pub fn belongs_to(&self, node: &str) -> Result<(), Failure> {
        let file = self.join("node");
        match fs::read_to_string(&file) {
            Ok(owner) if owner.trim_end() == node => Ok(()),
            Ok(owner) => Err(Failure::new(format!(
                "the data folder {} is that of {}, not of {node}",
                self.path.display(),
                owner.trim_end()
            ))
            .hint("give each node its own folder with --data")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let written =
                    File::create(&file).and_then(|mut file| writeln!(file, "{node}").and_then(|()| file.sync_all()));
                written.map_err(|e| Failure::new(format!("cannot write {}: {e}", file.display())))
            }
            Err(error) => Err(Failure::new(format!("cannot read {}: {error}", file.display()))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the address that clients take into `listening`, whole or not at all.
    pub fn listening(&self, url: &str) -> io::Result<()> {
        let temporary = self.join("listening.new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{url}")?;
        drop(file);
        fs::rename(temporary, self.join("listening"))
    }

    /// Takes the address away.
    pub fn not_listening(&self) {
        let _ = fs::remove_file(self.join("listening"));
    }
}

/// The address as clients on this machine take it.
pub fn url(bound: SocketAddr) -> String {
    let mut reached = bound;
    if bound.ip().is_unspecified() {
        reached.set_ip(if bound.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{reached}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() {
        let place = std::env::temp_dir().join(format!("rachis-{}", uuid::Uuid::now_v7()));
        let first = DataFolder::take(&place.join("data")).expect("it is free");
        first.listening("http://127.0.0.1:0").expect("it is written");
        assert_eq!(
            fs::read_to_string(first.join("listening")).expect("it is there"),
            "http://127.0.0.1:0\n"
        );
        let second = DataFolder::take(&place.join("data")).expect_err("it is taken");
        assert!(second.to_string().contains("in use"), "{second}");
        drop(first);
        let third = DataFolder::take(&place.join("data")).expect("it is free again");
        assert!(
            !third.join("listening").exists(),
            "the address of the process before is gone"
        );
        fs::remove_dir_all(place).expect("it is removed");
    }

    #[test]
    fn an_address_of_everywhere_is_reached_here() {
        assert_eq!(
            url("0.0.0.0:7700".parse().expect("an address")),
            "http://127.0.0.1:7700"
        );
        assert_eq!(url("[::]:7700".parse().expect("an address")), "http://[::1]:7700");
        assert_eq!(url("10.0.0.1:80".parse().expect("an address")), "http://10.0.0.1:80");
    }
}
