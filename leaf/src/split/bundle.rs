//! Bundle: the one file of a split. Whatever the split consists of stands one after another; a footer names it.
//!
//! ```text
//! magic | entry … | footer: entries (name, offset, bytes), checksums of the blocks before it, counts first | offset of the footer | xxh3 of the footer | version | magic
//! ```
//!
//! It is written under a temporary name, synced, renamed, and its folder synced; so a file under its final name is
//! whole. Opening it checks the footer and every length; the blocks before it are checked when they are first read. In
//! version 1, which is read and no more written, an entry has one checksum, in the footer, and is checked as a whole.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, ErrorKind, Write},
    ops::Range,
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
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    bytes::{Reader, Writer},
    checked::{Checked, Extent},
};

const MAGIC: u64 = u64::from_le_bytes(*b"rachspl\n");
const VERSION: u32 = 2;
/// Each entry with a checksum of its own, and none of the blocks.
const VERSION_OF_ENTRY_CHECKSUMS: u32 = 1;
/// Bytes that have one checksum.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes after the footer: its offset, its checksum, version, magic.
const TRAILER_BYTES: usize = 8 + 8 + 4 + 8;

/// What ends the name of a file that is being written.
pub(super) const TEMPORARY: &str = "tmp";

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    offset: u64,
    bytes: u64,
}

/// Writes a bundle.
pub(super) struct BundleWriter {
    file: Hashed,
    temporary: Temporary,
    entries: Vec<Entry>,
}

/// A file that goes with its writer, unless it got another name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.0.display(), %error, "an unfinished split could not be removed; it is removed at the next start");
            }
            _ => {}
        }
    }
}

impl BundleWriter {
    /// Under the temporary name of this file; what a crash has left there is overwritten.
    pub fn create(file: &FilePath) -> io::Result<Self> {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".");
        name.push(TEMPORARY);
        let temporary = Temporary(file.with_file_name(name));
        let mut file = Hashed::new(File::create(&temporary.0)?);
        file.write_all(&MAGIC.to_le_bytes())?;
        Ok(Self {
            file,
            temporary,
            entries: Vec::new(),
        })
    }

    /// Adds an entry.
    pub fn entry(&mut self, name: String, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let offset = self.file.written;
        write(&mut self.file)?;
        self.entries.push(Entry {
            name,
            offset,
            bytes: self.file.written - offset,
        });
        Ok(())
    }

    /// Ends the file and gives it its name.
    pub fn publish(self, file: &FilePath) -> io::Result<()> {
        let mut footer = Writer::default();
        footer.u32(self.entries.len() as u32);
        for Entry { name, offset, bytes } in &self.entries {
            footer.text(name);
            footer.u64(*offset);
            footer.u64(*bytes);
        }
        let at = self.file.written;
        let (mut to, checksums) = self.file.finish();
        footer.u32(checksums.len() as u32);
        checksums.into_iter().for_each(|checksum| footer.u64(checksum));
        let footer = footer.into_bytes();
        let mut trailer = Writer::default();
        trailer.u64(at);
        trailer.u64(xxh3_64(&footer));
        trailer.u32(VERSION);
        trailer.u64(MAGIC);
        to.write_all(&footer)?;
        to.write_all(&trailer.into_bytes())?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.temporary.0, file)?;
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(FilePath::new("."));
        File::open(folder)?.sync_all()
    }
}

/// A file with the checksums of its blocks so far.
struct Hashed {
    to: BufWriter<File>,
    written: u64,
    /// Of the block that is not full yet.
    hash: Xxh3,
    hashed: usize,
    checksums: Vec<u64>,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self {
            to: BufWriter::with_capacity(1 << 20, file),
            written: 0,
            hash: Xxh3::new(),
            hashed: 0,
            checksums: Vec::new(),
        }
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (here, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.hashed));
            self.hash.update(here);
            self.hashed += here.len();
            bytes = rest;
            if self.hashed == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.checksums.push(self.hash.digest());
        self.hash.reset();
        self.hashed = 0;
    }

    fn finish(mut self) -> (BufWriter<File>, Vec<u64>) {
        if self.hashed > 0 {
            self.end_block();
        }
        (self.to, self.checksums)
    }
}

impl Write for Hashed {
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

/// The entries of a bundle, by name, not copied out of the file.
#[derive(Debug)]
pub(super) struct Bundle {
    entries: HashMap<String, FileSlice>,
    /// The file.
    pub checked: Arc<Checked>,
}

impl Bundle {
    /// Opens a file and checks its footer.
    pub fn open(path: &FilePath) -> io::Result<Self> {
        let file = path;
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(FilePath::new("."));
        let name = file.file_name().ok_or_else(|| broken("it has no name"))?;
        let folder = MmapDirectory::open(folder).map_err(io::Error::other)?;
        let whole = folder.open_read(FilePath::new(name)).map_err(|e| match e {
            OpenReadError::FileDoesNotExist(_) => io::Error::new(ErrorKind::NotFound, "the file does not exist"),
            other => io::Error::other(other),
        })?;
        let length = usize::try_from(whole.num_bytes().get_bytes()).map_err(io::Error::other)?;
        let footer_end = length
            .checked_sub(TRAILER_BYTES)
            .filter(|end| *end >= 8)
            .ok_or_else(|| broken("it is too short"))?;
        let trailer = whole.read_bytes_slice(footer_end..length)?;
        let mut trailer = Reader::new(&trailer);
        let (at, checksum, version, magic) = (trailer.u64()? as usize, trailer.u64()?, trailer.u32()?, trailer.u64()?);
        if magic != MAGIC {
            return Err(broken("it does not end as a split does"));
        }
        if version != VERSION && version != VERSION_OF_ENTRY_CHECKSUMS {
            return Err(broken(&format!(
                "it is of version {version}, this program reads version {VERSION} and older ones"
            )));
        }
        if at < 8 || at > footer_end {
            return Err(broken("its footer is out of place"));
        }
        let footer = whole.read_bytes_slice(at..footer_end)?;
        if xxh3_64(&footer) != checksum {
            return Err(broken("its footer does not match its checksum"));
        }
        let mut footer = Reader::new(&footer);
        let of_entries = version == VERSION_OF_ENTRY_CHECKSUMS;
        let (mut ranges, mut extents) = (Vec::new(), Vec::new());
        for _ in 0..footer.u32()? {
            let (name, range) = read_entry(&mut footer, at)?;
            if of_entries {
                extents.push(Extent::new(range.clone(), footer.u64()?));
            }
            ranges.push((name, range));
        }
        if !of_entries {
            let count = footer.u32()? as usize;
            if count != at.div_ceil(BLOCK_BYTES) {
                return Err(broken("it has checksums of more or fewer blocks than it has"));
            }
            for start in (0..at).step_by(BLOCK_BYTES) {
                extents.push(Extent::new(start..at.min(start + BLOCK_BYTES), footer.u64()?));
            }
        }
        // Nobody reads the footer again; that it is still there is for the scrubber to see.
        extents.push(Extent::new(at..length, xxh3_64(&whole.read_bytes_slice(at..length)?)));
        let checked = Arc::new(Checked::new(path, whole, extents));
        let entries = ranges
            .into_iter()
            .map(|(name, range)| (name, FileSlice::new(checked.clone()).slice(range)))
            .collect();
        Ok(Self { entries, checked })
    }

    /// An entry.
    pub fn get(&self, name: &str) -> io::Result<FileSlice> {
        self.entries
            .get(name)
            .cloned()
            .ok_or_else(|| broken(&format!("it has no {name}")))
    }

    /// The entries whose names begin so, by the rest of their names.
    pub fn folder(&self, prefix: &str) -> Folder {
        let files = self
            .entries
            .iter()
            .filter_map(|(name, slice)| Some((PathBuf::from(name.strip_prefix(prefix)?), slice.clone())))
            .collect();
        Folder { files: Arc::new(files) }
    }
}

fn read_entry(footer: &mut Reader, end: usize) -> io::Result<(String, Range<usize>)> {
    let (name, offset, bytes) = (footer.text()?, footer.u64()? as usize, footer.u64()? as usize);
    let until = offset
        .checked_add(bytes)
        .filter(|until| *until <= end)
        .ok_or_else(|| broken("an entry is out of place"))?;
    Ok((name, offset..until))
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the split is broken: {reason}"))
}

/// Entries of a bundle as tantivy sees them: a folder in which nothing ever changes.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    files: Arc<HashMap<PathBuf, FileSlice>>,
}

impl Folder {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::ReadOnlyFilesystem, "a published split never changes")
}

impl Directory for Folder {
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
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_finished_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("the folder");
            entries
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        let file = folder.path().join("7.split");
        let mut unfinished = BundleWriter::create(&file).expect("a file");
        let full = unfinished.entry("a".into(), |to| {
            to.write_all(&[1; 4 << 20])
                .and_then(|()| Err(io::ErrorKind::StorageFull.into()))
        });
        assert!(full.is_err() && names() == ["7.split.tmp"], "{:?}", names());
        drop(unfinished);
        assert_eq!(names(), [""; 0]);
        let mut finished = BundleWriter::create(&file).expect("a file");
        finished.entry("a".into(), |to| to.write_all(b"1")).expect("an entry");
        finished.publish(&file).expect("a bundle");
        assert_eq!(names(), ["7.split"]);
    }

    /// The same entries as version 1 has them.
    fn as_version_1(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = MAGIC.to_le_bytes().to_vec();
        let mut footer = Writer::default();
        footer.u32(entries.len() as u32);
        for (name, bytes) in entries {
            footer.text(name);
            [file.len() as u64, bytes.len() as u64, xxh3_64(bytes)]
                .into_iter()
                .for_each(|number| footer.u64(number));
            file.extend_from_slice(bytes);
        }
        let (footer, mut trailer) = (footer.into_bytes(), Writer::default());
        trailer.u64(file.len() as u64);
        trailer.u64(xxh3_64(&footer));
        trailer.u32(VERSION_OF_ENTRY_CHECKSUMS);
        trailer.u64(MAGIC);
        [file, footer, trailer.into_bytes()].concat()
    }

    #[test]
    fn a_file_of_version_1_is_read_and_its_damage_is_found_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("7.split");
        let entries: [(&str, &[u8]); 3] = [("a", b"first"), ("empty", b""), ("b", b"second")];
        let whole = as_version_1(&entries);
        std::fs::write(&file, &whole).expect("written");
        let bundle = Bundle::open(&file).expect("a bundle");
        for (name, bytes) in entries {
            assert_eq!(
                &*bundle.get(name).and_then(|slice| slice.read_bytes()).expect("an entry"),
                bytes
            );
        }
        assert_eq!(bundle.checked.scrub(0, u64::MAX).expect("it is whole").0, None);
        let mut damaged = whole;
        damaged[8 + 5] ^= 1;
        std::fs::write(&file, &damaged).expect("written");
        let bundle = Bundle::open(&file).expect("a bundle");
        assert_eq!(
            &*bundle.get("a").and_then(|slice| slice.read_bytes()).expect("an entry"),
            b"first"
        );
        assert!(bundle.checked.damaged().is_none());
        assert!(bundle.get("b").and_then(|slice| slice.read_bytes()).is_err());
        assert!(bundle.checked.damaged().is_some());
    }
}
