//! The file: a line that names the format, then a line a record: 16 hexadecimal digits of xxh3 over the JSON, a space, the JSON.
//!
//! A record is synced before the next one is begun, so what a crash can tear is the last line, and nobody was told that it counts.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use proto::{
    Code, Problem,
    catalog::{ChangeRecord, LEVEL},
};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::CHANGE_BYTES_MAX;
use crate::Error;

/// The name of the file in the data folder.
pub(super) const FILE: &str = "changes.log";
const HEAD: &[u8] = b"rachis changes 1\n";
const CHECKSUM_DIGITS: usize = 16;

/// The open file, locked against other processes.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where the next line begins.
    end: u64,
}

/// What became of a record that was to be appended.
pub(super) enum Appended {
    /// It is on disk.
    Durable,
    /// It is not there, the log is as it was.
    Not(io::Error),
    /// Nobody knows; a failed fsync is never repeated.
    Unsure(io::Error),
}

impl Log {
    /// Opens or creates the file and gives every record in it to `each`, which says what is wrong with one.
    pub(super) fn open(folder: &Path, mut each: impl FnMut(ChangeRecord) -> Result<(), String>) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let io = |what, path: &Path| {
            let file = path.to_owned();
            move |source| Error::Io { what, file, source }
        };
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { file: path }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let mut log = Self { path: path.clone(), file, end: 0 };
        if !log.read_head()? {
            log.write_head(folder).map_err(io("write", &path))?;
            return Ok(log);
        }
        log.read_records(&mut each)?;
        Ok(log)
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.path
    }

    /// Whether the first line is there; not, if the file was just created or its creation was interrupted.
    fn read_head(&mut self) -> Result<bool, Error> {
        let mut begin = Vec::new();
        let mut reader = BufReader::new(io::Read::take(&self.file, HEAD.len() as u64));
        reader.read_until(b'\n', &mut begin).map_err(|source| Error::Io { what: "read", file: self.path.clone(), source })?;
        match begin.as_slice() {
            HEAD => Ok(true),
            torn if HEAD.starts_with(torn) => Ok(false),
            zeros if zeros.iter().all(|b| *b == 0) => Ok(false),
            _ => Err(Error::NotALog { file: self.path.clone(), begin: String::from_utf8_lossy(&begin).trim_end().to_owned() }),
        }
    }

    fn write_head(&mut self, folder: &Path) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(HEAD)?;
        self.file.sync_all()?;
        // The name must be as durable as what the file will say.
        File::open(folder)?.sync_all()?;
        self.end = HEAD.len() as u64;
        Ok(())
    }

    fn read_records(&mut self, each: &mut impl FnMut(ChangeRecord) -> Result<(), String>) -> Result<(), Error> {
        let io = |what, source| Error::Io { what, file: self.path.clone(), source };
        let length = self.file.metadata().map_err(|e| io("read", e))?.len();
        self.file.seek(SeekFrom::Start(HEAD.len() as u64)).map_err(|e| io("read", e))?;
        let mut reader = BufReader::new(&self.file);
        let (mut end, mut number, mut bytes) = (HEAD.len() as u64, 1, Vec::new());
        while reader.read_until(b'\n', &mut bytes).map_err(|e| io("read", e))? > 0 {
            number += 1;
            match json_of(&bytes) {
                Ok(json) => {
                    let record = record(json).map_err(|reason| Error::Unknown { file: self.path.clone(), line: number, reason })?;
                    each(record).map_err(|reason| Error::Damaged { file: self.path.clone(), line: number, reason })?;
                    end += bytes.len() as u64;
                }
                // The last line, cut short or with a hole where a block was not written: it was never acknowledged.
                Err(reason) if end + bytes.len() as u64 == length && (!bytes.ends_with(b"\n") || bytes.contains(&0)) => {
                    warn!(file = %self.path.display(), line = number, bytes = bytes.len(), %reason, "the last line of the change log is torn and cut off");
                    break;
                }
                Err(reason) => return Err(Error::Damaged { file: self.path.clone(), line: number, reason }),
            }
            bytes.clear();
        }
        if end < length {
            self.file.set_len(end).and_then(|()| self.file.sync_all()).map_err(|e| io("cut", e))?;
        }
        self.end = end;
        Ok(())
    }

    /// Writes a record and syncs it.
    pub(super) fn append(&mut self, record: &ChangeRecord) -> Result<Appended, Problem> {
        let json = serde_json::to_vec(record).map_err(|e| Problem::new(Code::Internal, format!("cannot write the change as JSON: {e}")))?;
        if json.len() > CHANGE_BYTES_MAX {
            return Err(Problem::new(Code::TooLarge, format!("the change has {} bytes, the limit is {CHANGE_BYTES_MAX}", json.len())));
        }
        let line = line(&json);
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&line));
        if let Err(error) = written {
            // A full disk, mostly. Nothing was synced, so cutting it off again takes it back.
            return Ok(match self.file.set_len(self.end).and_then(|()| self.file.sync_all()) {
                Ok(()) => Appended::Not(error),
                Err(_) => Appended::Unsure(error),
            });
        }
        if let Err(error) = self.file.sync_data() {
            return Ok(Appended::Unsure(error));
        }
        self.end += line.len() as u64;
        Ok(Appended::Durable)
    }
}

/// A record as it stands in the file.
pub(super) fn line(json: &[u8]) -> Vec<u8> {
    let mut line = format!("{:016x} ", xxh3_64(json)).into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The JSON of a line, if it is what was written.
fn json_of(line: &[u8]) -> Result<&[u8], String> {
    let line = line.strip_suffix(b"\n").ok_or("it does not end")?;
    let (checksum, json) = line.split_at_checked(CHECKSUM_DIGITS).ok_or("it is too short")?;
    let json = json.strip_prefix(b" ").ok_or("there is no space after the checksum")?;
    let expected = format!("{:016x}", xxh3_64(json));
    if checksum != expected.as_bytes() {
        return Err(format!("its checksum is not {expected}"));
    }
    Ok(json)
}

/// The record, if this program knows its level and its kind.
fn record(json: &[u8]) -> Result<ChangeRecord, String> {
    #[derive(serde::Deserialize)]
    struct Level {
        level: u16,
    }
    let Level { level } = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if level > LEVEL {
        return Err(format!("its level is {level}, this program knows up to {LEVEL}"));
    }
    serde_json::from_slice(json).map_err(|e| e.to_string())
}
