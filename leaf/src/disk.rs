//! Disk: watches how full the shards' disk is, and keeps a ballast file to recover from a full one.
//!
//! Above the limit the leaf stops ingest and keeps answering queries. Other processes may still fill the disk. Then the
//! ballast is deleted, so that a shard whose write failed can be reopened. It is recreated once there is space.

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
/// On a small disk the ballast takes 1/32 of the space.
const BALLAST_DIVISOR: u64 = 32;

/// The disk that stores the shards.
pub(crate) struct Disk {
    folder: PathBuf,
    used_percent_max: u8,
    /// Why ingest stops, if the disk is full.
    full: Mutex<Option<String>>,
}

/// Space of a file system that this process may use, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    used: u64,
    total: u64,
}

impl Space {
    fn of(folder: &Path) -> io::Result<Self> {
        let stat = statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        let used = bytes(stat.blocks().saturating_sub(stat.blocks_free()));
        Ok(Self {
            used,
            total: used + bytes(stat.blocks_available()),
        })
    }

    fn is_above(self, percent: u8) -> bool {
        self.used.saturating_mul(100) >= self.total.saturating_mul(u64::from(percent))
    }

    /// True if there is enough space to open a shard for writing.
    fn has_room(self) -> bool {
        self.total - self.used.min(self.total) >= self.ballast_bytes()
    }

    fn plus(self, bytes: u64) -> Self {
        Self {
            used: self.used + bytes,
            ..self
        }
    }

    fn ballast_bytes(self) -> u64 {
        (self.total / BALLAST_DIVISOR).min(BALLAST_BYTES_MAX)
    }
}

impl Disk {
    /// The disk of an existing folder. It counts as full from `used_percent_max` on.
    pub(crate) fn new(folder: &Path, used_percent_max: u8) -> Self {
        let disk = Self {
            folder: folder.to_owned(),
            used_percent_max,
            full: Mutex::default(),
        };
        disk.refresh();
        disk
    }

    /// Why ingest stops, if the disk is full.
    pub(crate) fn full(&self) -> Option<String> {
        self.full.lock().clone()
    }

    /// True if a read-only shard can be opened for writing: the disk is below its limit and the size of the ballast is
    /// free.
    pub(crate) fn has_room(&self) -> bool {
        self.full().is_none() && self.has_space()
    }

    /// True if the size of the ballast is free, enough to close and reopen shards. Ingest may still be stopped.
    pub(crate) fn has_space(&self) -> bool {
        Space::of(&self.folder).is_ok_and(Space::has_room)
    }

    /// Whether so many bytes can be written without the disk being full afterwards.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.has_room() && Space::of(&self.folder).is_ok_and(|space| !space.plus(bytes).is_above(self.used_percent_max))
    }

    /// Reads the disk usage again. Returns true if the disk was full and is not full any more.
    pub(crate) fn refresh(&self) -> bool {
        let space = match Space::of(&self.folder) {
            Ok(space) => space,
            Err(problem) => {
                warn!(folder = %self.folder.display(), error = %problem, "could not read the disk usage");
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
            format!("the disk of {folder} is {used} % full, and ingest stops at {max} %")
        });
        let ballast = space.ballast_bytes();
        if now.is_none() && !self.ballast().exists() && !space.plus(ballast).is_above(self.used_percent_max) {
            self.create_ballast(ballast);
        }
        gauge!("rachis_leaf_disk_full").set(f64::from(u8::from(now.is_some())));
        let before = std::mem::replace(&mut *self.full.lock(), now.clone());
        match (&before, &now) {
            (None, Some(reason)) => error!(
                reason,
                "the disk is full: sources wait, pushes are refused, queries continue"
            ),
            (Some(_), None) => info!("the disk has space again; ingest resumes"),
            _ => {}
        }
        before.is_some() && now.is_none()
    }

    /// Deletes the ballast. Returns false if there was none.
    pub(crate) fn drop_ballast(&self) -> bool {
        let dropped = fs::remove_file(self.ballast()).is_ok();
        if dropped {
            warn!("the disk is full: deleted the ballast to make room for opening shards");
        }
        dropped
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join(BALLAST)
    }

    fn create_ballast(&self, bytes: u64) {
        let created =
            fs::File::create(self.ballast()).and_then(|file| Ok(posix_fallocate(file, 0, bytes.cast_signed())?));
        if let Err(problem) = created {
            warn!(error = %problem, bytes, "could not create the ballast");
            let _ = fs::remove_file(self.ballast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_at_its_limit() {
        let space = Space {
            used: 899,
            total: 1_000,
        };
        assert!(!space.is_above(90) && space.plus(1).is_above(90));
        assert_eq!(
            Space {
                used: 0,
                total: 64 << 40
            }
            .ballast_bytes(),
            BALLAST_BYTES_MAX
        );
        assert_eq!(
            Space {
                used: 0,
                total: 32 << 20
            }
            .ballast_bytes(),
            1 << 20
        );
    }

    #[test]
    fn the_ballast_exists_while_there_is_space_and_can_be_dropped_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path(), 100);
        assert_eq!(disk.full(), None);
        let bytes = fs::metadata(folder.path().join(BALLAST)).expect("the ballast").len();
        assert!(bytes > 0 && bytes <= BALLAST_BYTES_MAX, "{bytes}");
        assert!(disk.drop_ballast() && !disk.drop_ballast());
        disk.refresh();
        assert!(folder.path().join(BALLAST).exists());
        let full = Disk::new(folder.path(), 0);
        assert!(full.full().is_some_and(|reason| reason.contains("stops at 0 %")));
    }
}
