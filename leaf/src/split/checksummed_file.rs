//! Checksummed file: the bytes of a split's file, in blocks that each have a checksum. A block is verified when it is
//! first read.
//!
//! Opening a file therefore reads only what opening needs. The scrubber verifies the whole file in the background,
//! including blocks that a query has verified already: a disk may corrupt them later, and until the scrubber finds the
//! damage, queries would still use them.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path as FilePath, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tantivy::{
    HasLen,
    directory::{FileHandle, FileSlice, OwnedBytes},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes per read of the scrubber.
const SCRUB_READ_BYTES: usize = 1 << 20;

/// A run of bytes with one checksum: 64 KiB, or the footer.
#[derive(Debug)]
pub(super) struct ChecksummedBlock {
    range: Range<usize>,
    checksum: u64,
    verified: AtomicBool,
}

impl ChecksummedBlock {
    pub(super) fn new(range: Range<usize>, checksum: u64) -> Self {
        Self {
            range,
            checksum,
            verified: AtomicBool::new(false),
        }
    }
}

/// A block of a file does not match its checksum.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} is damaged between bytes {} and {}", file.display(), bytes.start, bytes.end)]
pub(crate) struct ChecksumMismatch {
    file: PathBuf,
    bytes: Range<usize>,
}

impl ChecksumMismatch {
    /// The mismatch that caused an error, if one did.
    pub(crate) fn of(error: &tantivy::TantivyError) -> Option<&Self> {
        match error {
            tantivy::TantivyError::IoError(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

/// A file whose blocks are verified on first read.
pub(super) struct ChecksummedFile {
    file: PathBuf,
    whole: FileSlice,
    /// Ascending. Bytes between blocks are never read.
    blocks: Vec<ChecksummedBlock>,
    damaged: OnceLock<ChecksumMismatch>,
}

impl std::fmt::Debug for ChecksummedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChecksummedFile({})", self.file.display())
    }
}

impl ChecksummedFile {
    /// A file with these blocks, which must be ascending.
    pub(super) fn new(file: &FilePath, whole: FileSlice, blocks: Vec<ChecksummedBlock>) -> Self {
        Self {
            file: file.to_owned(),
            whole,
            blocks,
            damaged: OnceLock::new(),
        }
    }

    /// Bytes that readers have verified so far.
    #[cfg(test)]
    pub(super) fn bytes_verified(&self) -> u64 {
        let verified = self
            .blocks
            .iter()
            .filter(|block| block.verified.load(Ordering::Acquire));
        verified.map(|block| block.range.len() as u64).sum()
    }

    /// The first damage found, if any.
    pub(super) fn damaged(&self) -> Option<&ChecksumMismatch> {
        self.damaged.get()
    }

    fn verify_range(&self, range: &Range<usize>) -> io::Result<()> {
        let first = self.blocks.partition_point(|block| block.range.end <= range.start);
        for block in self.blocks[first..]
            .iter()
            .take_while(|block| block.range.start < range.end)
        {
            if block.verified.load(Ordering::Acquire) {
                continue;
            }
            let bytes = self.whole.read_bytes_slice(block.range.clone())?;
            if xxh3_64(&bytes) != block.checksum {
                return Err(self.report_damage(block));
            }
            block.verified.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn report_damage(&self, block: &ChecksummedBlock) -> io::Error {
        let damage = ChecksumMismatch {
            file: self.file.clone(),
            bytes: block.range.clone(),
        };
        if self.damaged.set(damage.clone()).is_ok() {
            metrics::counter!("rachis_leaf_damaged_splits_total").increment(1);
            tracing::error!(%damage, "a split is damaged; it will be rebuilt from its documents");
        }
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }

    /// Verifies the blocks of the file, starting at block `from`, until `bytes_max` bytes are read, and reports damage.
    ///
    /// Returns the next block, or None at the end, and the bytes read.
    pub(super) fn scrub(&self, from: usize, bytes_max: u64) -> io::Result<(Option<usize>, u64)> {
        self.verify(from, bytes_max)?.map_err(|block| self.report_damage(block))
    }

    /// Like [`scrub`](Self::scrub), but returns the first block that does not match instead of reporting it.
    pub(super) fn verify(
        &self,
        from: usize,
        bytes_max: u64,
    ) -> io::Result<Result<(Option<usize>, u64), &ChecksummedBlock>> {
        let file = File::open(&self.file)?;
        let mut buffer = vec![0; SCRUB_READ_BYTES];
        let mut read = 0;
        for (number, block) in self.blocks.iter().enumerate().skip(from) {
            if read >= bytes_max {
                return Ok(Ok((Some(number), read)));
            }
            let mut hash = Xxh3::new();
            let mut at = block.range.start;
            while at < block.range.end {
                let piece = &mut buffer[..SCRUB_READ_BYTES.min(block.range.end - at)];
                // An unreadable block counts as damaged.
                if file.read_exact_at(piece, at as u64).is_err() {
                    return Ok(Err(block));
                }
                hash.update(piece);
                at += piece.len();
            }
            read += block.range.len() as u64;
            if hash.digest() != block.checksum {
                return Ok(Err(block));
            }
        }
        Ok(Ok((None, read)))
    }
}

impl HasLen for ChecksummedFile {
    fn len(&self) -> usize {
        self.whole.len()
    }
}

impl FileHandle for ChecksummedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        self.verify_range(&range)?;
        self.whole.read_bytes_slice(range)
    }
}
