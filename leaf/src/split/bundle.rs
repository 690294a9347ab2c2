//! Bundle: the one file of a split. Whatever the split consists of stands one after another; a footer names it.
//!
//! ```text
//! magic | entry … | footer: entries (name, offset, bytes, xxh3), count first | offset of the footer | xxh3 of the footer | version | magic
//! ```
//!
//! It is written under a temporary name, synced, renamed, and its folder synced; so a file under its final name is whole. Opening it checks
//! every length and every checksum: nothing is read from a broken file.

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
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::bytes::{Reader, Writer};

const MAGIC: u64 = u64::from_le_bytes(*b"rachspl\n");
const VERSION: u32 = 1;
/// Bytes after the footer: its offset, its checksum, version, magic.
const TRAILER_BYTES: usize = 8 + 8 + 4 + 8;

/// What ends the name of a file that is being written.
pub(super) const TEMPORARY: &str = "tmp";

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    offset: u64,
    bytes: u64,
    checksum: u64,
}

/// Writes a bundle.
pub(super) struct BundleWriter {
    file: BufWriter<File>,
    temporary: Temporary,
    at: u64,
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
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary.0)?);
        file.write_all(&MAGIC.to_le_bytes())?;
        Ok(Self { file, temporary, at: 8, entries: Vec::new() })
    }

    /// Adds an entry.
    pub fn entry(&mut self, name: String, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut counted = Counted { to: &mut self.file, bytes: 0, hash: Xxh3::new() };
        write(&mut counted)?;
        let (bytes, checksum) = (counted.bytes, counted.hash.digest());
        self.entries.push(Entry { name, offset: self.at, bytes, checksum });
        self.at += bytes;
        Ok(())
    }

    /// Ends the file and gives it its name.
    pub fn publish(mut self, file: &FilePath) -> io::Result<()> {
        let mut footer = Writer::default();
        footer.u32(self.entries.len() as u32);
        for Entry { name, offset, bytes, checksum } in &self.entries {
            footer.text(name);
            [*offset, *bytes, *checksum].into_iter().for_each(|number| footer.u64(number));
        }
        let footer = footer.into_bytes();
        let mut trailer = Writer::default();
        trailer.u64(self.at);
        trailer.u64(xxh3_64(&footer));
        trailer.u32(VERSION);
        trailer.u64(MAGIC);
        self.file.write_all(&footer)?;
        self.file.write_all(&trailer.into_bytes())?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.temporary.0, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
        File::open(folder)?.sync_all()
    }
}

struct Counted<'a> {
    to: &'a mut BufWriter<File>,
    bytes: u64,
    hash: Xxh3,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        self.hash.update(&bytes[..written]);
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
    /// Of the file.
    pub bytes: u64,
}

impl Bundle {
    /// Opens a file and checks all of it.
    pub fn open(file: &FilePath) -> io::Result<Self> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
        let name = file.file_name().ok_or_else(|| broken("it has no name"))?;
        let folder = MmapDirectory::open(folder).map_err(io::Error::other)?;
        let whole = folder.open_read(FilePath::new(name)).map_err(|e| match e {
            OpenReadError::FileDoesNotExist(_) => io::Error::new(ErrorKind::NotFound, "the file does not exist"),
            other => io::Error::other(other),
        })?;
        let length = usize::try_from(whole.num_bytes().get_bytes()).map_err(io::Error::other)?;
        let footer_end = length.checked_sub(TRAILER_BYTES).filter(|end| *end >= 8).ok_or_else(|| broken("it is too short"))?;
        let trailer = whole.read_bytes_slice(footer_end..length)?;
        let mut trailer = Reader::new(&trailer);
        let (at, checksum, version, magic) = (trailer.u64()? as usize, trailer.u64()?, trailer.u32()?, trailer.u64()?);
        if magic != MAGIC {
            return Err(broken("it does not end as a split does"));
        }
        if version != VERSION {
            return Err(broken(&format!("it is of version {version}, this program reads version {VERSION}")));
        }
        if at < 8 || at > footer_end {
            return Err(broken("its footer is out of place"));
        }
        let footer = whole.read_bytes_slice(at..footer_end)?;
        if xxh3_64(&footer) != checksum {
            return Err(broken("its footer does not match its checksum"));
        }
        let mut footer = Reader::new(&footer);
        let count = footer.u32()?;
        let entries = (0..count).map(|_| read_entry(&mut footer, &whole, at)).collect::<io::Result<_>>()?;
        Ok(Self { entries, bytes: length as u64 })
    }

    /// An entry.
    pub fn get(&self, name: &str) -> io::Result<FileSlice> {
        self.entries.get(name).cloned().ok_or_else(|| broken(&format!("it has no {name}")))
    }

    /// The entries whose names begin so, by the rest of their names.
    pub fn folder(&self, prefix: &str) -> Folder {
        let files = self.entries.iter().filter_map(|(name, slice)| Some((PathBuf::from(name.strip_prefix(prefix)?), slice.clone()))).collect();
        Folder { files: Arc::new(files) }
    }
}

fn read_entry(footer: &mut Reader, whole: &FileSlice, end: usize) -> io::Result<(String, FileSlice)> {
    let (name, offset, bytes, checksum) = (footer.text()?, footer.u64()? as usize, footer.u64()? as usize, footer.u64()?);
    let until = offset.checked_add(bytes).filter(|until| *until <= end).ok_or_else(|| broken("an entry is out of place"))?;
    let slice = whole.slice(offset..until);
    if xxh3_64(&slice.read_bytes()?) != checksum {
        return Err(broken(&format!("{name} does not match its checksum")));
    }
    Ok((name, slice))
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
        let slice = self.files.get(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        Ok(Arc::new(slice.clone()))
    }

    fn delete(&self, path: &FilePath) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn exists(&self, path: &FilePath) -> Result<bool, OpenReadError> {
        Ok(self.files.contains_key(path))
    }

    fn open_write(&self, path: &FilePath) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn atomic_read(&self, path: &FilePath) -> Result<Vec<u8>, OpenReadError> {
        let slice = self.files.get(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        let bytes = slice.read_bytes().map_err(|e| OpenReadError::IoError { io_error: Arc::new(e), filepath: path.to_owned() })?;
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
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let file = folder.path().join("7.split");
        let mut unfinished = BundleWriter::create(&file).expect("a file");
        let full = unfinished.entry("a".into(), |to| to.write_all(&[1; 4 << 20]).and_then(|()| Err(io::ErrorKind::StorageFull.into())));
        assert!(full.is_err() && names() == ["7.split.tmp"], "{:?}", names());
        drop(unfinished);
        assert_eq!(names(), [""; 0]);
        let mut finished = BundleWriter::create(&file).expect("a file");
        finished.entry("a".into(), |to| to.write_all(b"1")).expect("an entry");
        finished.publish(&file).expect("a bundle");
        assert_eq!(names(), ["7.split"]);
    }
}
