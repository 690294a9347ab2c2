//! Bundle: the single file of a split. Its entries follow one another, and a footer lists them.
//!
//! ```text
//! magic | entry … | footer | offset of the footer | xxh3 of the footer | version | magic
//!
//! footer: what the file holds, the entries, the checksum of each block before the footer (`footer.rs`)
//! ```
//!
//! | entry | contents | encoded by |
//! |---|---|---|
//! | `parts` | the number of parts | `mod.rs` |
//! | `N/columns` | the columns of part N, headers included | tantivy's columnar format (`recorder.rs`, `header.rs`) |
//! | `N/dictionaries` | the strings of its text columns, packed | tantivy's dictionaries (`dictionaries.rs`, `packed.rs`) |
//! | `N/shape` | its path tree: how each path is indexed, and its statistics | `path_tree.rs` |
//! | `N/runs` | its runs of documents of one partition | `header.rs` |
//! | `N/text/…` | the files of its postings, if it has any | tantivy (`text.rs`) |
//!
//! A block is 64 KiB, or what is left before the footer; blocks ignore the bounds of entries.
//!
//! The file is written under a temporary name, synced and renamed, and then its folder is synced; so a file with its
//! final name is complete. Opening it verifies the footer and every length. The blocks before the footer are verified
//! when they are first read.
//!
//! A leaf refuses a file of a newer release and leaves it alone, so a flipped bit in the version must not look like one.
//! From version 4 on, the version seeds the checksum of the footer. A file whose footer does not match its checksum is
//! damaged, whatever version it states.
//!
//! What older releases may ignore is appended to a record or becomes an entry with a new name, and `VERSION` stays.
//! Any other change raises it: older files are read as long as their version is, and otherwise built again when their
//! shard opens; a newer file is refused and left alone.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use tantivy::{
    Directory,
    directory::{
        FileHandle, FileSlice, MmapDirectory, WatchCallback, WatchHandle, WritePtr,
        error::{DeleteError, OpenReadError, OpenWriteError},
    },
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::{
    checksummed_file::{ChecksummedBlock, ChecksummedFile},
    footer::{Entry, Footer, PACKED, SplitFacts},
    packed::PackedFile,
};
use crate::codec::{NewerVersion, ValueReader, ValueWriter};

const MAGIC: u64 = u64::from_le_bytes(*b"rachspl\n");
/// Version 3 had the dictionaries in the columns.
const VERSION: u32 = 4;
/// Files of older versions were written before the first release.
const OLDEST_VERSION: u32 = 3;
/// Bytes covered by one checksum.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes after the footer: its offset, its checksum, version, magic.
const TRAILER_BYTES: usize = 8 + 8 + 4 + 8;

/// The extension of a file that is still being written.
const TEMPORARY_SUFFIX: &str = "tmp";

pub(super) struct BundleWriter {
    file: ChecksumWriter,
    temporary: TemporaryFile,
    entries: Vec<Entry>,
}

/// Removes the file when it is dropped, unless the file was renamed.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(
                    file = %self.0.display(),
                    %error,
                    "could not remove an unfinished split; the next start will remove it"
                );
            }
            _ => {}
        }
    }
}

impl BundleWriter {
    /// Creates the file under its temporary name and overwrites what a crash left there.
    pub(super) fn create(file: &FilePath) -> io::Result<Self> {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".");
        name.push(TEMPORARY_SUFFIX);
        let temporary = TemporaryFile(file.with_file_name(name));
        let mut file = ChecksumWriter::new(File::create(&temporary.0)?);
        file.write_all(&MAGIC.to_le_bytes())?;
        Ok(Self {
            file,
            temporary,
            entries: Vec::new(),
        })
    }

    /// Adds an entry, which `write` fills with bytes of this codec.
    pub(super) fn entry(
        &mut self,
        name: String,
        codec: u32,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let offset = self.file.written;
        write(&mut self.file)?;
        self.entries
            .push(Entry::new(name, codec, offset, self.file.written - offset));
        Ok(())
    }

    /// Writes the footer, syncs the file and renames it to its final name. The hash of the facts is filled in.
    pub(super) fn publish(self, file: &FilePath, facts: SplitFacts) -> io::Result<()> {
        let at = self.file.written;
        let (mut to, checksums, hash) = self.file.finish();
        let footer = Footer {
            facts: SplitFacts { hash, ..facts },
            entries: self.entries,
            checksums,
        };
        let footer = footer.encode();
        to.write_all(&footer)?;
        to.write_all(&trailer(at, &footer, VERSION))?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.temporary.0, file)?;
        File::open(folder_of(file))?.sync_all()
    }
}

/// Computes the checksum of each block while it writes a file.
struct ChecksumWriter {
    to: BufWriter<File>,
    written: u64,
    /// The checksum of the current block so far, and the bytes it covers.
    block_hash: Xxh3,
    block_bytes: usize,
    checksums: Vec<u64>,
    /// The hash of all bytes so far.
    whole_hash: Xxh3,
}

impl ChecksumWriter {
    fn new(file: File) -> Self {
        Self {
            to: BufWriter::with_capacity(1 << 20, file),
            written: 0,
            block_hash: Xxh3::new(),
            block_bytes: 0,
            checksums: Vec::new(),
            whole_hash: Xxh3::new(),
        }
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        self.whole_hash.update(bytes);
        while !bytes.is_empty() {
            let (here, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block_bytes));
            self.block_hash.update(here);
            self.block_bytes += here.len();
            bytes = rest;
            if self.block_bytes == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.checksums.push(self.block_hash.digest());
        self.block_hash.reset();
        self.block_bytes = 0;
    }

    fn finish(mut self) -> (BufWriter<File>, Vec<u64>, u128) {
        if self.block_bytes > 0 {
            self.end_block();
        }
        (self.to, self.checksums, self.whole_hash.digest128())
    }
}

impl Write for ChecksumWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.written += written as u64;
        self.hash(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The entries of a bundle by name. Each is a slice of the mapped file.
#[derive(Debug)]
pub(super) struct Bundle {
    entries: HashMap<String, Entry>,
    /// The offset of the footer, where the entries end.
    end: usize,
    /// What the file holds.
    pub facts: SplitFacts,
    /// The file behind the entries.
    pub file: Arc<ChecksummedFile>,
}

impl Bundle {
    /// Opens a file and verifies its footer.
    pub(super) fn open(path: &FilePath) -> io::Result<Self> {
        let whole = map(path)?;
        let length = usize::try_from(whole.num_bytes().get_bytes()).map_err(io::Error::other)?;
        let footer_end = length
            .checked_sub(TRAILER_BYTES)
            .filter(|end| *end >= 8)
            .ok_or_else(|| broken("it is too short"))?;
        let Trailer { at, checksum, version } = read_trailer(&whole.read_bytes_slice(footer_end..length)?)?;
        if at < 8 || at > footer_end {
            return Err(broken("the offset of its footer is out of range"));
        }
        let footer = whole.read_bytes_slice(at..footer_end)?;
        if footer_checksum(&footer, version) != checksum {
            return Err(broken("its footer does not match its checksum"));
        }
        check_version(version)?;
        let Footer {
            facts,
            entries,
            checksums,
        } = Footer::decode(&footer)?;
        if checksums.len() != at.div_ceil(BLOCK_BYTES) {
            return Err(broken("its number of checksums does not match its number of blocks"));
        }
        let starts = (0..at).step_by(BLOCK_BYTES);
        let mut blocks: Vec<ChecksummedBlock> = starts
            .zip(checksums)
            .map(|(start, checksum)| ChecksummedBlock::new(start..at.min(start + BLOCK_BYTES), checksum))
            .collect();
        // No reader needs the footer again. As a block, the scrubber can detect that it was damaged later.
        blocks.push(ChecksummedBlock::new(
            at..length,
            xxh3_64(&whole.read_bytes_slice(at..length)?),
        ));
        let file = Arc::new(ChecksummedFile::new(path, whole, blocks));
        let entries = entries.into_iter().map(|entry| (entry.name.clone(), entry));
        Ok(Self {
            entries: entries.collect(),
            end: at,
            facts,
            file,
        })
    }

    /// The bytes of an entry.
    pub(super) fn get(&self, name: &str) -> io::Result<FileSlice> {
        let entry = self.entries.get(name);
        self.slice(entry.ok_or_else(|| broken(&format!("it has no entry {name}")))?)
    }

    /// The bytes of an entry as they are stored, and their codec. None if there is no such entry.
    pub(super) fn stored(&self, name: &str) -> io::Result<Option<(FileSlice, u32)>> {
        let Some(entry) = self.entries.get(name) else {
            return Ok(None);
        };
        let stored = FileSlice::new(self.file.clone()).slice(entry.range(self.end)?);
        Ok(Some((stored, entry.codec)))
    }

    fn slice(&self, entry: &Entry) -> io::Result<FileSlice> {
        let stored = FileSlice::new(self.file.clone()).slice(entry.range(self.end)?);
        Ok(match entry.codec {
            PACKED => FileSlice::new(Arc::new(PackedFile::open(&stored)?)),
            _ => stored,
        })
    }

    /// The entries with this prefix, by the rest of their names.
    pub(super) fn directory(&self, prefix: &str) -> io::Result<BundleDirectory> {
        let files = self.entries.values().filter_map(|entry| {
            let name = PathBuf::from(entry.name.strip_prefix(prefix)?);
            Some(self.slice(entry).map(|slice| (name, slice)))
        });
        Ok(BundleDirectory {
            files: Arc::new(files.collect::<io::Result<_>>()?),
        })
    }
}

/// Maps a file into memory.
fn map(path: &FilePath) -> io::Result<FileSlice> {
    let name = path.file_name().ok_or_else(|| broken("its path has no file name"))?;
    let folder = MmapDirectory::open(folder_of(path)).map_err(io::Error::other)?;
    folder.open_read(FilePath::new(name)).map_err(|e| match e {
        OpenReadError::FileDoesNotExist(_) => io::Error::new(ErrorKind::NotFound, "the file does not exist"),
        other => io::Error::other(other),
    })
}

fn folder_of(file: &FilePath) -> &FilePath {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(FilePath::new("."))
}

/// The bytes after the footer.
struct Trailer {
    /// The offset of the footer.
    at: usize,
    /// The checksum of the footer.
    checksum: u64,
    version: u32,
}

/// The checksum of a footer in a file of this version.
fn footer_checksum(footer: &[u8], version: u32) -> u64 {
    match version {
        ..=3 => xxh3_64(footer),
        _ => xxh3_64_with_seed(footer, version.into()),
    }
}

fn trailer(at: u64, footer: &[u8], version: u32) -> Vec<u8> {
    let trailer = ValueWriter::unversioned().u64(at);
    let trailer = trailer.u64(footer_checksum(footer, version));
    trailer.u32(version).u64(MAGIC).finish()
}

fn read_trailer(bytes: &[u8]) -> io::Result<Trailer> {
    let mut trailer = ValueReader::unversioned(bytes);
    let (at, checksum, version, magic) = (trailer.u64()? as usize, trailer.u64()?, trailer.u32()?, trailer.u64()?);
    if magic != MAGIC {
        return Err(broken("it does not end with the magic number of a split"));
    }
    Ok(Trailer { at, checksum, version })
}

fn check_version(version: u32) -> io::Result<()> {
    if version > VERSION {
        return Err(io::Error::other(NewerVersion {
            thing: "split",
            found: version,
            supported: VERSION,
        }));
    }
    if version < OLDEST_VERSION {
        return Err(broken(&format!(
            "it has version {version}; this release reads versions {OLDEST_VERSION} to {VERSION}"
        )));
    }
    Ok(())
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("broken split: {reason}"))
}

/// Entries of a bundle as tantivy sees them: a read-only directory.
#[derive(Debug, Clone)]
pub(super) struct BundleDirectory {
    files: Arc<HashMap<PathBuf, FileSlice>>,
}

impl BundleDirectory {
    /// Its files, by name.
    pub(super) fn files(&self) -> Vec<(String, FileSlice)> {
        let mut files: Vec<_> = (self.files.iter())
            .map(|(name, file)| (name.display().to_string(), file.clone()))
            .collect();
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        files
    }
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::ReadOnlyFilesystem, "a published split is read-only")
}

impl Directory for BundleDirectory {
    fn get_file_handle(&self, path: &FilePath) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        let slice = self
            .files
            .get(path)
            .ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        Ok(Arc::new(slice.clone()))
    }

    fn delete(&self, path: &FilePath) -> Result<(), DeleteError> {
        Err(DeleteError::IoError {
            io_error: Arc::new(read_only()),
            filepath: path.to_owned(),
        })
    }

    fn exists(&self, path: &FilePath) -> Result<bool, OpenReadError> {
        Ok(self.files.contains_key(path))
    }

    fn open_write(&self, path: &FilePath) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::IoError {
            io_error: Arc::new(read_only()),
            filepath: path.to_owned(),
        })
    }

    fn atomic_read(&self, path: &FilePath) -> Result<Vec<u8>, OpenReadError> {
        let slice = self
            .files
            .get(path)
            .ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        let bytes = slice.read_bytes().map_err(|e| OpenReadError::IoError {
            io_error: Arc::new(e),
            filepath: path.to_owned(),
        })?;
        Ok(bytes.to_vec())
    }

    fn atomic_write(&self, _: &FilePath, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::tests::of_newer_version;
