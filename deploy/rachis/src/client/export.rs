//! `rachis sql -o FILE`: writes the whole answer of a statement to a file, as it arrives. The file appears under its name
//! when it is complete; until then, its bytes are in a hidden file beside it.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use arrow::{
    array::RecordBatch,
    buffer::Buffer,
    datatypes::SchemaRef,
    ipc::{reader::StreamDecoder, writer::FileWriter},
};
use futures::future::select_all;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression as ParquetCompression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Failure,
    http::Client,
    output::{self, note_warnings},
    sql,
};
use crate::cli::{
    Output, SqlArgs,
    sql_output::{Compression, ExportFile, FileFormat},
};

/// Bytes of a row group of a Parquet file that are held in memory.
const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// Writes the whole answer of a statement to a file.
pub(crate) async fn run(client: &Client, arguments: &SqlArgs, sql: &str, file: &ExportFile) -> Result<(), Failure> {
    let started = Instant::now();
    let target = Target::create(&file.path).map_err(|e| cannot_write(&file.path, &e))?;
    let export = Export {
        client: client.clone(),
        arguments: arguments.clone(),
        sql: sql.to_owned(),
        file: file.clone(),
        hidden: target.file().map_err(|e| cannot_write(&file.path, &e))?,
    };
    let mut signals = signals().map_err(|e| Failure::with_cause("cannot wait for signals", &e))?;
    let interrupted = select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    // A write to a pipe or a lost disk may block for good, and signals must still be heard.
    let runtime = tokio::runtime::Handle::current();
    let writing = tokio::task::spawn_blocking(move || runtime.block_on(export.run()));
    let written = tokio::select! {
        written = writing => written.unwrap_or_else(|e| Err(Failure::with_cause("cannot write the answer", &e))),
        _ = interrupted => Err(Failure::new("interrupted")),
    };
    let completed = written.and_then(|written| {
        let bytes = target.complete().map_err(|e| cannot_write(&file.path, &e))?;
        Ok((written, bytes))
    });
    let (Written { stats, rows }, bytes) =
        completed.map_err(|failure| failure.within(&format!("{} was not written", file.path.display())))?;
    let rows = rows.map_or(String::new(), |rows| format!("{rows} rows, "));
    let bytes = bytes.map_or(String::new(), |bytes| format!("{} ", HumanBytes(bytes)));
    let seconds = started.elapsed().as_secs_f64();
    let path = file.path.display();
    output::note(&format!("wrote {path}: {rows}{bytes}in {seconds:.1} s"));
    note_warnings(&stats);
    sql::require_complete(&stats)
}

/// What ends an export, from now on.
fn signals() -> io::Result<Vec<Signal>> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    kinds.into_iter().map(signal).collect()
}

/// The work of a thread: to ask and to write.
struct Export {
    client: Client,
    arguments: SqlArgs,
    sql: String,
    file: ExportFile,
    /// None if the file is a pipe or a device, which is opened by the thread.
    hidden: Option<File>,
}

/// What was written.
struct Written {
    stats: Value,
    /// None if they were not counted.
    rows: Option<u64>,
}

impl Export {
    async fn run(self) -> Result<Written, Failure> {
        let failed = |e: io::Error| cannot_write(&self.file.path, &e);
        let file = match &self.hidden {
            Some(hidden) => hidden.try_clone(),
            None => File::options().write(true).open(&self.file.path),
        };
        let mut writer = Writer::new(file.map_err(failed)?, self.file.format).map_err(failed)?;
        let bar = ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let format = match self.file.format {
            FileFormat::Text(format, _) => format,
            FileFormat::Parquet | FileFormat::Arrow => Output::Arrow,
        };
        let mut write = |bytes: &[u8]| {
            bar.inc(bytes.len() as u64);
            writer.write(bytes).map_err(failed)
        };
        let asked = sql::pass_on(&self.client, &self.arguments, &self.sql, format, &mut write).await;
        bar.finish_and_clear();
        match asked {
            Ok(stats) => {
                let rows = writer.finish().map_err(failed)?;
                if let Some(hidden) = &self.hidden {
                    hidden.sync_all().map_err(failed)?;
                }
                Ok(Written { stats, rows })
            }
            Err(failure) => {
                // Dropped, it would write the end of a complete file, which who reads a pipe would believe.
                std::mem::forget(writer);
                Err(failure)
            }
        }
    }
}

fn cannot_write(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

/// Where the bytes go.
enum Target {
    /// A hidden file, which takes the path when it is complete. It is removed otherwise.
    Hidden(NamedTempFile, PathBuf),
    /// A pipe or a device.
    Special,
}

impl Target {
    fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Special);
        }
        let path = behind_links(path);
        let mut hidden = tempfile::Builder::new();
        hidden.prefix(".rachis-").suffix(".partial");
        if !path.exists() {
            // What the umask leaves of it. Otherwise it takes the mode of the file that it replaces.
            hidden.permissions(Permissions::from_mode(0o666));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let hidden = hidden.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        Ok(Self::Hidden(hidden, path))
    }

    fn file(&self) -> io::Result<Option<File>> {
        match self {
            Self::Hidden(hidden, _) => hidden.as_file().try_clone().map(Some),
            Self::Special => Ok(None),
        }
    }

    /// Gives the file its name. Returns its size in bytes.
    fn complete(self) -> io::Result<Option<u64>> {
        let Self::Hidden(hidden, path) = self else {
            return Ok(None);
        };
        if let Ok(replaced) = path.metadata() {
            // Only root may give a file to another owner.
            let _ = std::os::unix::fs::fchown(hidden.as_file(), Some(replaced.uid()), Some(replaced.gid()));
            hidden.as_file().set_permissions(replaced.permissions())?;
        }
        let bytes = hidden.as_file().metadata()?.len();
        hidden.persist(path).map_err(|e| e.error)?;
        Ok(Some(bytes))
    }
}

/// The file that a path names, which need not exist: a file behind a symbolic link is replaced, not the link.
fn behind_links(path: &Path) -> PathBuf {
    const LINKS_MAX: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match path.read_link() {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => break,
        }
    }
    path
}

/// Writes the bytes of an answer in the format of the file.
enum Writer {
    Text(CompressedFile),
    /// An Arrow stream, batch by batch.
    Batches(Box<StreamDecoder>, BatchFile),
}

impl Writer {
    fn new(file: File, format: FileFormat) -> io::Result<Self> {
        Ok(match format {
            FileFormat::Text(_, compression) => Self::Text(CompressedFile::new(file, compression)?),
            FileFormat::Parquet | FileFormat::Arrow => {
                let is_parquet = format == FileFormat::Parquet;
                Self::Batches(Box::default(), BatchFile::Unopened { file, is_parquet })
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Text(file) => file.write_all(bytes),
            Self::Batches(decoder, file) => {
                let mut buffer = Buffer::from(bytes);
                while !buffer.is_empty() {
                    if let Some(batch) = decoder.decode(&mut buffer).map_err(io::Error::other)? {
                        file.write(&batch)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes what comes behind the rows. Returns their number, if it is known.
    fn finish(self) -> io::Result<Option<u64>> {
        match self {
            Self::Text(file) => file.finish().map(|()| None),
            Self::Batches(mut decoder, file) => {
                decoder.finish().map_err(io::Error::other)?;
                let schema = decoder
                    .schema()
                    .ok_or_else(|| io::Error::other("the answer has no columns"))?;
                file.finish(&schema).map(Some)
            }
        }
    }
}

/// A Parquet or Arrow file, which is opened when its columns are known.
enum BatchFile {
    Unopened {
        file: File,
        is_parquet: bool,
    },
    Parquet {
        writer: Box<ArrowWriter<BufWriter<File>>>,
        rows: u64,
    },
    Arrow {
        writer: Box<FileWriter<BufWriter<File>>>,
        rows: u64,
    },
    /// It could not be opened.
    Failed,
}

impl BatchFile {
    fn open(&mut self, schema: &SchemaRef) -> io::Result<()> {
        let Self::Unopened { file, is_parquet } = std::mem::replace(self, Self::Failed) else {
            return Ok(());
        };
        let (file, rows) = (BufWriter::new(file), 0);
        *self = if is_parquet {
            let properties = WriterProperties::builder()
                .set_compression(ParquetCompression::ZSTD(ZstdLevel::default()))
                .build();
            let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(not_storable)?;
            let writer = Box::new(writer);
            Self::Parquet { writer, rows }
        } else {
            let writer = Box::new(FileWriter::try_new(file, schema).map_err(not_storable)?);
            Self::Arrow { writer, rows }
        };
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        if matches!(self, Self::Unopened { .. }) {
            self.open(&batch.schema())?;
        }
        match self {
            Self::Parquet { writer, rows } => {
                writer.write(batch).map_err(io::Error::other)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES_MAX {
                    writer.flush().map_err(io::Error::other)?;
                }
                *rows += batch.num_rows() as u64;
            }
            Self::Arrow { writer, rows } => {
                writer.write(batch).map_err(io::Error::other)?;
                *rows += batch.num_rows() as u64;
            }
            Self::Unopened { .. } | Self::Failed => {}
        }
        Ok(())
    }

    fn finish(mut self, schema: &SchemaRef) -> io::Result<u64> {
        if matches!(self, Self::Unopened { .. }) {
            self.open(schema)?;
        }
        match self {
            Self::Parquet { writer, rows } => {
                writer.into_inner().map_err(io::Error::other)?.flush()?;
                Ok(rows)
            }
            Self::Arrow { mut writer, rows } => {
                writer.finish().map_err(io::Error::other)?;
                writer.get_mut().flush()?;
                Ok(rows)
            }
            Self::Unopened { .. } | Self::Failed => Ok(0),
        }
    }
}

fn not_storable(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{error}; cast the column to another type, for example to TEXT"))
}

/// A text file that is compressed as it is written.
enum CompressedFile {
    None(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<File>>),
    Xz(liblzma::write::XzEncoder<BufWriter<File>>),
}

impl CompressedFile {
    fn new(file: File, compression: Compression) -> io::Result<Self> {
        const XZ_LEVEL: u32 = 6;
        let file = BufWriter::new(file);
        Ok(match compression {
            Compression::None => Self::None(file),
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(
                file,
                zstd::DEFAULT_COMPRESSION_LEVEL,
            )?),
            Compression::Xz => Self::Xz(liblzma::write::XzEncoder::new(file, XZ_LEVEL)),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(file) => file.write_all(bytes),
            Self::Gzip(file) => file.write_all(bytes),
            Self::Zstd(file) => file.write_all(bytes),
            Self::Xz(file) => file.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut file = match self {
            Self::None(file) => file,
            Self::Gzip(file) => file.finish()?,
            Self::Zstd(file) => file.finish()?,
            Self::Xz(file) => file.finish()?,
        };
        file.flush()
    }
}
