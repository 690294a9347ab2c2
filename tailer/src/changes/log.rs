//! The change log as a file: one line that names the format, then one line for each record: 16 hexadecimal digits of
//! xxh3 over the JSON, a space, the JSON.
//!
//! A record is synced before the next one is written. So a crash can only tear the last line, which was not
//! acknowledged.
//!
//! A second file states the length of the log when a record was last acknowledged. A shorter log has lost acknowledged
//! changes (an old copy was restored, or the file system was repaired). It is not opened, and stays unchanged, until an
//! operator decides.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use proto::{
    Code, Problem,
    catalog::{CATALOG_RULES_LEVEL, ChangeRecord},
};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    CHANGE_BYTES_MAX,
    error::{LogFileError, LogLineError},
};

/// The name of the log in the data folder.
pub(super) const FILE: &str = "changes.log";
/// The name of the file that states the length of the log.
pub(super) const END_FILE: &str = "changes.end";
const HEAD: &[u8] = b"rachis changes 1\n";
const CHECKSUM_DIGITS: usize = 16;

/// The open file, locked against other processes.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// The offset of the next line.
    end: u64,
    /// The file with the length at the last acknowledged record.
    end_file: Option<File>,
}

pub(super) enum AppendOutcome {
    /// The record is on disk.
    Durable,
    /// The record was not written, and the log is unchanged.
    NotWritten(io::Error),
    /// The record may or may not be on disk. A failed fsync must not be retried.
    Unknown(io::Error),
}

impl LogFile {
    /// Opens or creates the file and passes every record in it to `each`, which fails if a record cannot be applied.
    pub(super) fn open(
        folder: &Path,
        mut each: impl FnMut(ChangeRecord) -> Result<(), LogLineError>,
    ) -> Result<Self, LogFileError> {
        let path = folder.join(FILE);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let file = open_locked(&path)?;
        let end_path = folder.join(END_FILE);
        let end_file = open_end_file(&end_path)?;
        let acknowledged = end_file.as_ref().map_or(Ok(0), |file| read_end(file, &end_path))?;
        let mut log = Self {
            path: path.clone(),
            file,
            end: 0,
            end_file,
        };
        match log.read_head()? {
            false if acknowledged == 0 => log.write_head(folder).map_err(io_error("write", &path))?,
            has_head => log.read_records(has_head, acknowledged, &mut each)?,
        }
        // If a process was killed during an append, its record may not be on disk yet. It counts from now on.
        log.file.sync_data().map_err(io_error("sync", &path))?;
        log.write_end();
        Ok(log)
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file has its first line. It has none if it was just created, or if its creation was interrupted.
    fn read_head(&mut self) -> Result<bool, LogFileError> {
        let mut begin = Vec::new();
        let mut reader = BufReader::new(io::Read::take(&self.file, HEAD.len() as u64));
        reader
            .read_until(b'\n', &mut begin)
            .map_err(io_error("read", &self.path))?;
        match begin.as_slice() {
            HEAD => Ok(true),
            torn if HEAD.starts_with(torn) => Ok(false),
            zeros if zeros.iter().all(|b| *b == 0) => Ok(false),
            _ => Err(LogFileError::NotALog {
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
        // The directory entry must be as durable as the content.
        File::open(folder)?.sync_all()?;
        self.end = HEAD.len() as u64;
        Ok(())
    }

    /// Reads the records after the first line, and cuts off a torn last line. The log must have at least the
    /// acknowledged length.
    fn read_records(
        &mut self,
        has_head: bool,
        acknowledged: u64,
        each: &mut impl FnMut(ChangeRecord) -> Result<(), LogLineError>,
    ) -> Result<(), LogFileError> {
        let too_short = |bytes| LogFileError::Short {
            file: self.path.clone(),
            bytes,
            acknowledged,
            end_file: self.path.with_file_name(END_FILE),
        };
        if !has_head {
            return Err(too_short(0));
        }
        let length = self.file.metadata().map_err(io_error("read", &self.path))?.len();
        let end = self.replay(length, each)?;
        if end < acknowledged {
            return Err(too_short(end));
        }
        if end < length {
            self.file
                .set_len(end)
                .and_then(|()| self.file.sync_all())
                .map_err(io_error("cut", &self.path))?;
        }
        self.end = end;
        Ok(())
    }

    /// Passes every record to `each` and returns the end of the last whole line.
    fn replay(
        &self,
        length: u64,
        each: &mut impl FnMut(ChangeRecord) -> Result<(), LogLineError>,
    ) -> Result<u64, LogFileError> {
        let io = |source| LogFileError::Io {
            what: "read",
            file: self.path.clone(),
            source,
        };
        let damaged = |line, reason| LogFileError::Damaged {
            file: self.path.clone(),
            line,
            reason,
        };
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(HEAD.len() as u64)).map_err(io)?;
        let (mut end, mut line, mut bytes) = (HEAD.len() as u64, 1, Vec::new());
        while reader.read_until(b'\n', &mut bytes).map_err(io)? > 0 {
            line += 1;
            let json = match json_of(&bytes) {
                Ok(json) => json,
                Err(reason) if end + bytes.len() as u64 == length && is_torn(&bytes) => {
                    let (file, bytes) = (self.path.display(), bytes.len());
                    warn!(%file, line, bytes, %reason, "removing the incomplete last line of the change log");
                    break;
                }
                Err(reason) => return Err(damaged(line, reason)),
            };
            let record = parse_record(json).map_err(|reason| LogFileError::Unknown {
                file: self.path.clone(),
                line,
                reason,
            })?;
            each(record).map_err(|reason| damaged(line, reason))?;
            end += bytes.len() as u64;
            bytes.clear();
        }
        Ok(end)
    }

    /// Appends a record and syncs it.
    pub(super) fn append(&mut self, record: &ChangeRecord) -> Result<AppendOutcome, Problem> {
        let json = serde_json::to_vec(record)
            .map_err(|e| Problem::new(Code::Internal, format!("cannot serialize the change: {e}")))?;
        if json.len() > CHANGE_BYTES_MAX {
            return Err(Problem::new(
                Code::TooLarge,
                format!("the change has {} bytes; the limit is {CHANGE_BYTES_MAX}", json.len()),
            ));
        }
        let line = line(&json);
        let written = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&line));
        if let Err(error) = written {
            // Mostly because the disk is full. Nothing was synced, so truncating the file undoes the write.
            return Ok(match self.file.set_len(self.end).and_then(|()| self.file.sync_all()) {
                Ok(()) => AppendOutcome::NotWritten(error),
                Err(_) => AppendOutcome::Unknown(error),
            });
        }
        if let Err(error) = self.file.sync_data() {
            return Ok(AppendOutcome::Unknown(error));
        }
        self.end += line.len() as u64;
        self.write_end();
        Ok(AppendOutcome::Durable)
    }

    /// Writes down the length of the log. If this fails, the log itself is safe; only a later loss of its end would go
    /// unnoticed.
    fn write_end(&self) {
        let Some(file) = &self.end_file else { return };
        if let Err(error) = file.write_all_at(&end_line(self.end), 0).and_then(|()| file.sync_all()) {
            warn!(file = END_FILE, %error, "could not record the length of the change log");
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogFileError {
    let file = path.to_owned();
    move |source| LogFileError::Io { what, file, source }
}

/// Opens the log, or creates it, and locks it against other processes.
fn open_locked(path: &Path) -> Result<File, LogFileError> {
    let file = open_or_create(path).map_err(io_error("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogFileError::InUse { file: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", path)(source)),
    }
}

/// Opens the file that states the length of the log, or creates it.
fn open_end_file(path: &Path) -> Result<Option<File>, LogFileError> {
    match open_or_create(path) {
        Ok(file) => Ok(Some(file)),
        // A full disk has no room for a new file, but the log can be read all the same.
        Err(error) if !path.exists() => {
            warn!(file = END_FILE, %error, "could not create the file that records the length of the change log");
            Ok(None)
        }
        Err(error) => Err(io_error("open", path)(error)),
    }
}

fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Encodes a length: decimal digits, a space, 16 hexadecimal digits of xxh3 over them. It fits into one disk sector.
fn end_line(end: u64) -> Vec<u8> {
    let digits = format!("{end:020}");
    format!("{digits} {:016x}\n", xxh3_64(digits.as_bytes())).into_bytes()
}

/// Reads the length; 0 if none was written yet.
fn read_end(mut file: &File, path: &Path) -> Result<u64, LogFileError> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(io_error("read", path))?;
    let end = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    match end {
        Some(end) if end_line(end) == text => Ok(end),
        // The file was created, but a crash came before the length was written.
        _ if text.iter().all(|byte| *byte == 0) => Ok(0),
        _ => Err(LogFileError::UnreadableEnd { file: path.to_owned() }),
    }
}

/// Encodes a record as a line.
pub(super) fn line(json: &[u8]) -> Vec<u8> {
    let mut line = format!("{:016x} ", xxh3_64(json)).into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The JSON of a line, if the checksum matches.
fn json_of(line: &[u8]) -> Result<&[u8], LogLineError> {
    let line = line.strip_suffix(b"\n").ok_or(LogLineError::Unterminated)?;
    let (checksum, json) = line.split_at_checked(CHECKSUM_DIGITS).ok_or(LogLineError::TooShort)?;
    let json = json.strip_prefix(b" ").ok_or(LogLineError::NoSpace)?;
    let expected = format!("{:016x}", xxh3_64(json));
    if checksum != expected.as_bytes() {
        return Err(LogLineError::Checksum { expected });
    }
    Ok(json)
}

/// Whether a damaged last line is the trace of a crash: it was cut short, or has a hole where a block was not written.
/// Such a line was never acknowledged.
fn is_torn(line: &[u8]) -> bool {
    !line.ends_with(b"\n") || line.contains(&0)
}

/// Parses a record, if this release knows its level and its kind.
fn parse_record(json: &[u8]) -> Result<ChangeRecord, LogLineError> {
    #[derive(serde::Deserialize)]
    struct RecordLevel {
        level: u16,
    }
    let RecordLevel { level } = serde_json::from_slice(json).map_err(LogLineError::Json)?;
    if level > CATALOG_RULES_LEVEL {
        return Err(LogLineError::Level { level });
    }
    serde_json::from_slice(json).map_err(LogLineError::Json)
}
