//! Checked: the bytes of a split's file, each extent compared with its checksum when it is first read.
//!
//! Opening a file therefore reads only what opening needs. The scrubber verifies the whole file in the background,
//! including extents that a query has verified already: a disk may corrupt them later, and until the scrubber comes by
//! a query would still use them.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path as FilePath, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tantivy::{
    HasLen,
    directory::{FileHandle, FileSlice, OwnedBytes},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that the scrubber reads at once.
const SCRUB_READ_BYTES: usize = 1 << 20;

/// A run of bytes with its checksum.
#[derive(Debug)]
pub(super) struct Extent {
    range: Range<usize>,
    checksum: u64,
    checked: AtomicBool,
}

impl Extent {
    pub fn new(range: Range<usize>, checksum: u64) -> Self {
        Self {
            range,
            checksum,
            checked: AtomicBool::new(false),
        }
    }
}

/// A file that holds other bytes than were written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} is damaged between its bytes {} and {}", file.display(), bytes.start, bytes.end)]
pub(crate) struct Damaged {
    file: PathBuf,
    bytes: Range<usize>,
}

impl Damaged {
    /// The damage that is behind an error, if it is.
    pub fn of(error: &tantivy::TantivyError) -> Option<&Self> {
        match error {
            tantivy::TantivyError::IoError(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

/// The bytes of a file.
pub(super) struct Checked {
    file: PathBuf,
    whole: FileSlice,
    /// Ascending; what lies between them is not read.
    extents: Vec<Extent>,
    read_bytes: AtomicU64,
    damaged: OnceLock<Damaged>,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checked({})", self.file.display())
    }
}

impl Checked {
    /// The bytes of a file in these extents, ascending.
    pub fn new(file: &FilePath, whole: FileSlice, extents: Vec<Extent>) -> Self {
        Self {
            file: file.to_owned(),
            whole,
            extents,
            read_bytes: AtomicU64::new(0),
            damaged: OnceLock::new(),
        }
    }

    /// Bytes that were compared so far for those who read them.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// What is damaged, if that was noticed.
    pub fn damaged(&self) -> Option<&Damaged> {
        self.damaged.get()
    }

    fn check(&self, range: &Range<usize>) -> io::Result<()> {
        let first = self.extents.partition_point(|extent| extent.range.end <= range.start);
        for extent in self.extents[first..]
            .iter()
            .take_while(|extent| extent.range.start < range.end)
        {
            if extent.checked.load(Ordering::Acquire) {
                continue;
            }
            let bytes = self.whole.read_bytes_slice(extent.range.clone())?;
            self.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if xxh3_64(&bytes) != extent.checksum {
                return Err(self.report(extent));
            }
            extent.checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn report(&self, extent: &Extent) -> io::Error {
        let damage = Damaged {
            file: self.file.clone(),
            bytes: extent.range.clone(),
        };
        if self.damaged.set(damage.clone()).is_ok() {
            metrics::counter!("rachis_leaf_damaged_splits_total").increment(1);
            tracing::error!(%damage, "a split is damaged; it is built again from its documents");
        }
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }

    /// Compares the extents from this one on with the file, until so many bytes were read; the next extent, or none at
    /// the end. What does not match is damaged for whoever reads it from now on.
    pub fn scrub(&self, from: usize, bytes_max: u64) -> io::Result<(Option<usize>, u64)> {
        self.compare(from, bytes_max)?.map_err(|extent| self.report(extent))
    }

    /// The same, and only says which extent does not match.
    pub fn compare(&self, from: usize, bytes_max: u64) -> io::Result<Result<(Option<usize>, u64), &Extent>> {
        let file = File::open(&self.file)?;
        let mut buffer = vec![0; SCRUB_READ_BYTES];
        let mut read = 0;
        for (number, extent) in self.extents.iter().enumerate().skip(from) {
            if read >= bytes_max {
                return Ok(Ok((Some(number), read)));
            }
            let mut hash = Xxh3::new();
            let mut at = extent.range.start;
            while at < extent.range.end {
                let piece = &mut buffer[..SCRUB_READ_BYTES.min(extent.range.end - at)];
                // Bytes that a disk does not give back are lost, too.
                if file.read_exact_at(piece, at as u64).is_err() {
                    return Ok(Err(extent));
                }
                hash.update(piece);
                at += piece.len();
            }
            read += extent.range.len() as u64;
            if hash.digest() != extent.checksum {
                return Ok(Err(extent));
            }
        }
        Ok(Ok((None, read)))
    }
}

impl HasLen for Checked {
    fn len(&self) -> usize {
        self.whole.len()
    }
}

impl FileHandle for Checked {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        self.check(&range)?;
        self.whole.read_bytes_slice(range)
    }
}
