//! Disk: how full the disk of the shards is, and the ballast that makes room for a way out of a full one.
//!
//! Above its limit the leaf takes nothing more and goes on answering. Others may fill the disk all the same: then the
//! ballast goes, so that a shard whose write failed can be opened again, and it comes back when there is room.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use metrics::gauge;
use nix::{fcntl::posix_fallocate, sys::statvfs::statvfs};
use parking_lot::Mutex;
use tracing::{error, info, warn};

const BALLAST: &str = "ballast";
const BALLAST_BYTES_MAX: u64 = 64 << 20;
/// Of a small disk the ballast takes one part in so many.
const BALLAST_PART: u64 = 32;

/// The disk that the shards are on.
pub struct Disk {
    folder: PathBuf,
    used_percent_max: u8,
    full: Mutex<Option<String>>,
}

/// What a file system says of itself, in bytes that we may use.
#[derive(Debug, Clone, Copy)]
struct Space {
    used: u64,
    total: u64,
}

impl Space {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        let used = bytes(found.blocks().saturating_sub(found.blocks_free()));
        Ok(Self {
            used,
            total: used + bytes(found.blocks_available()),
        })
    }

    fn is_above(self, percent: u8) -> bool {
        self.used.saturating_mul(100) >= self.total.saturating_mul(u64::from(percent))
    }

    /// Whether something can be opened for writing.
    fn has_room(self) -> bool {
        self.total - self.used.min(self.total) >= self.ballast()
    }

    fn with(self, bytes: u64) -> Self {
        Self {
            used: self.used + bytes,
            ..self
        }
    }

    fn ballast(self) -> u64 {
        (self.total / BALLAST_PART).min(BALLAST_BYTES_MAX)
    }
}

impl Disk {
    /// The disk of a folder that is there. From so many percent on it is full.
    pub fn new(folder: &Path, used_percent_max: u8) -> Self {
        let disk = Self {
            folder: folder.to_owned(),
            used_percent_max,
            full: Mutex::default(),
        };
        disk.look();
        disk
    }

    /// Why nothing can be taken, if the disk is full.
    pub fn full(&self) -> Option<String> {
        self.full.lock().clone()
    }

    /// Whether a shard that was opened without room may find some now: as much as the ballast takes, and the disk is
    /// not full.
    pub fn has_room(&self) -> bool {
        self.full().is_none() && self.has_space()
    }

    /// Whether as much is free as the ballast takes, however full the disk may be for new documents: enough to close
    /// shards and to open them again.
    pub fn has_space(&self) -> bool {
        Space::of(&self.folder).is_ok_and(Space::has_room)
    }

    /// Looks again, and answers whether there is room now that was not there before.
    pub fn look(&self) -> bool {
        let space = match Space::of(&self.folder) {
            Ok(space) => space,
            Err(problem) => {
                warn!(folder = %self.folder.display(), error = %problem, "the disk does not say how full it is");
                return false;
            }
        };
        gauge!("rachis_leaf_disk_used_ratio").set(space.used as f64 / space.total.max(1) as f64);
        let now = space.is_above(self.used_percent_max).then(|| {
            let (folder, used, max) = (
                self.folder.display(),
                space.used.saturating_mul(100) / space.total.max(1),
                self.used_percent_max,
            );
            format!("the disk of {folder} is {used} % full, and from {max} % on nothing is taken in")
        });
        if now.is_none() && !self.ballast().exists() && !space.with(space.ballast()).is_above(self.used_percent_max) {
            self.take_ballast(space.ballast());
        }
        gauge!("rachis_leaf_disk_full").set(f64::from(u8::from(now.is_some())));
        let before = std::mem::replace(&mut *self.full.lock(), now.clone());
        match (&before, &now) {
            (None, Some(reason)) => error!(reason, "no room: sources wait, pushes are refused, questions go on"),
            (Some(_), None) => info!("there is room again"),
            _ => {}
        }
        before.is_some() && now.is_none()
    }

    /// Throws the ballast off, and answers whether there was any.
    pub fn drop_ballast(&self) -> bool {
        let dropped = fs::remove_file(self.ballast()).is_ok();
        if dropped {
            warn!("a write failed: the ballast is thrown off, so that what is here can be opened");
        }
        dropped
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join(BALLAST)
    }

    fn take_ballast(&self, bytes: u64) {
        let taken =
            fs::File::create(self.ballast()).and_then(|file| Ok(posix_fallocate(file, 0, bytes.cast_signed())?));
        if let Err(problem) = taken {
            warn!(error = %problem, bytes, "no ballast was taken");
            let _ = fs::remove_file(self.ballast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_from_its_limit_on() {
        let space = Space {
            used: 899,
            total: 1_000,
        };
        assert!(!space.is_above(90) && space.with(1).is_above(90));
        assert_eq!(
            Space {
                used: 0,
                total: 64 << 40
            }
            .ballast(),
            BALLAST_BYTES_MAX
        );
        assert_eq!(
            Space {
                used: 0,
                total: 32 << 20
            }
            .ballast(),
            1 << 20
        );
    }

    #[test]
    fn the_ballast_is_there_while_there_is_room_and_can_be_thrown_off_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path(), 100);
        assert_eq!(disk.full(), None);
        let bytes = fs::metadata(folder.path().join(BALLAST)).expect("the ballast").len();
        assert!(bytes > 0 && bytes <= BALLAST_BYTES_MAX, "{bytes}");
        assert!(disk.drop_ballast() && !disk.drop_ballast());
        disk.look();
        assert!(folder.path().join(BALLAST).exists());
        let full = Disk::new(folder.path(), 0);
        assert!(full.full().is_some_and(|reason| reason.contains("from 0 % on")));
    }
}
