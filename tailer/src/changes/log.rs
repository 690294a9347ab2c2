//! The file: a line that names the format, then a line a record: 16 hexadecimal digits of xxh3 over the JSON, a space,
//! the JSON.
//!
//! A record is synced before the next one is begun, so what a crash can tear is the last line, and nobody was told that
//! it counts.
//!
//! A second file says how long the first was when a record counted last. A log that is shorter has lost what was agreed
//! on (a copy that is too old, a repaired file system): it is not opened, and nothing of it is changed, until somebody
//! decides.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
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
/// The name of the file that says how long that one is.
pub(super) const END_FILE: &str = "changes.end";
const HEAD: &[u8] = b"rachis changes 1\n";
const CHECKSUM_DIGITS: usize = 16;

/// The open file, locked against other processes.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where the next line begins.
    end: u64,
    /// Holds the length at which a record counted last.
    end_file: Option<File>,
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
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { file: path }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let end_path = folder.join(END_FILE);
        let end_file = match OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&end_path)
        {
            Ok(file) => Some(file),
            // A full disk has no room for a new file, and the log is read all the same.
            Err(error) if !end_path.exists() => {
                warn!(file = END_FILE, %error, "the length of the change log cannot be noted");
                None
            }
            Err(error) => return Err(io("open", &end_path)(error)),
        };
        let acknowledged = end_file.as_ref().map_or(Ok(0), |file| read_end(file, &end_path))?;
        let mut log = Self {
            path: path.clone(),
            file,
            end: 0,
            end_file,
        };
        match log.read_head()? {
            false if acknowledged == 0 => log.write_head(folder).map_err(io("write", &path))?,
            begun => log.read_records(begun, acknowledged, &mut each)?,
        }
        // What was read may not be on disk yet, where a process was killed in the middle of an append: from now on it
        // counts.
        log.file.sync_data().map_err(io("sync", &path))?;
        log.note_end();
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
        reader.read_until(b'\n', &mut begin).map_err(|source| Error::Io {
            what: "read",
            file: self.path.clone(),
            source,
        })?;
        match begin.as_slice() {
            HEAD => Ok(true),
            torn if HEAD.starts_with(torn) => Ok(false),
            zeros if zeros.iter().all(|b| *b == 0) => Ok(false),
            _ => Err(Error::NotALog {
                file: self.path.clone(),
                begin: String::from_utf8_lossy(&begin).trim_end().to_owned(),
            }),
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

    /// Reads the lines after the first, if that is there. The log must be at least so long.
    fn read_records(
        &mut self,
        begun: bool,
        acknowledged: u64,
        each: &mut impl FnMut(ChangeRecord) -> Result<(), String>,
    ) -> Result<(), Error> {
        let io = |what, source| Error::Io {
            what,
            file: self.path.clone(),
            source,
        };
        let short = |bytes| Error::Short {
            file: self.path.clone(),
            bytes,
            acknowledged,
            end_file: self.path.with_file_name(END_FILE),
        };
        if !begun {
            return Err(short(0));
        }
        let length = self.file.metadata().map_err(|e| io("read", e))?.len();
        self.file
            .seek(SeekFrom::Start(HEAD.len() as u64))
            .map_err(|e| io("read", e))?;
        let mut reader = BufReader::new(&self.file);
        let (mut end, mut number, mut bytes) = (HEAD.len() as u64, 1, Vec::new());
        while reader.read_until(b'\n', &mut bytes).map_err(|e| io("read", e))? > 0 {
            number += 1;
            match json_of(&bytes) {
                Ok(json) => {
                    let record = record(json).map_err(|reason| Error::Unknown {
                        file: self.path.clone(),
                        line: number,
                        reason,
                    })?;
                    each(record).map_err(|reason| Error::Damaged {
                        file: self.path.clone(),
                        line: number,
                        reason,
                    })?;
                    end += bytes.len() as u64;
                }
                // The last line, cut short or with a hole where a block was not written: it was never acknowledged.
                Err(reason)
                    if end + bytes.len() as u64 == length && (!bytes.ends_with(b"\n") || bytes.contains(&0)) =>
                {
                    warn!(file = %self.path.display(), line = number, bytes = bytes.len(), %reason, "the last line of the change log is torn");
                    break;
                }
                Err(reason) => {
                    return Err(Error::Damaged {
                        file: self.path.clone(),
                        line: number,
                        reason,
                    });
                }
            }
            bytes.clear();
        }
        if end < acknowledged {
            return Err(short(end));
        }
        if end < length {
            self.file
                .set_len(end)
                .and_then(|()| self.file.sync_all())
                .map_err(|e| io("cut", e))?;
        }
        self.end = end;
        Ok(())
    }

    /// Writes a record and syncs it.
    pub(super) fn append(&mut self, record: &ChangeRecord) -> Result<Appended, Problem> {
        let json = serde_json::to_vec(record)
            .map_err(|e| Problem::new(Code::Internal, format!("cannot write the change as JSON: {e}")))?;
        if json.len() > CHANGE_BYTES_MAX {
            return Err(Problem::new(
                Code::TooLarge,
                format!("the change has {} bytes, the limit is {CHANGE_BYTES_MAX}", json.len()),
            ));
        }
        let line = line(&json);
        let written = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&line));
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
        self.note_end();
        Ok(Appended::Durable)
    }

    /// Notes how long the log is. Where that fails what is in the log is safe; only a later loss of it would not be
    /// noticed.
    fn note_end(&self) {
        let Some(file) = &self.end_file else { return };
        if let Err(error) = file.write_all_at(&end_line(self.end), 0).and_then(|()| file.sync_all()) {
            warn!(file = END_FILE, %error, "the length of the change log could not be noted");
        }
    }
}

/// A length as it stands in its file: decimal digits, a space, 16 hexadecimal digits of xxh3 over them. It fits into a
/// sector.
fn end_line(end: u64) -> Vec<u8> {
    let digits = format!("{end:020}");
    format!("{digits} {:016x}\n", xxh3_64(digits.as_bytes())).into_bytes()
}

/// The length that is noted; 0 where nothing is yet.
fn read_end(mut file: &File, path: &Path) -> Result<u64, Error> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|source| Error::Io {
        what: "read",
        file: path.to_owned(),
        source,
    })?;
    let end = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    match end {
        Some(end) if end_line(end) == text => Ok(end),
        // Made, and not written before a crash.
        _ if text.iter().all(|byte| *byte == 0) => Ok(0),
        _ => Err(Error::UnreadableEnd { file: path.to_owned() }),
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
