//! `rachis sql -o FILE`: writes the whole answer of a statement to a file, as it arrives. The file appears under its name
//! when it is complete; until then, its bytes are in a hidden file beside it.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Instant,
};

use arrow::{
    array::RecordBatch,
    buffer::Buffer,
    datatypes::SchemaRef,
    ipc::{reader::StreamDecoder, writer::FileWriter},
};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression as ParquetCompression, ZstdLevel},
    file::properties::WriterProperties,
};
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

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
    let mut writer = Writer::new(target.file().map_err(|e| cannot_write(&file.path, &e))?, file)?;
    let bar = ProgressBar::no_length().with_style(
        ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let format = match file.format {
        FileFormat::Text(format, _) => format,
        FileFormat::Parquet | FileFormat::Arrow => Output::Arrow,
    };
    let mut write = |bytes: &[u8]| {
        bar.inc(bytes.len() as u64);
        writer.write(bytes).map_err(|e| cannot_write(&file.path, &e))
    };
    let stats = tokio::select! {
        stats = sql::pass_on(client, arguments, sql, format, &mut write) => stats,
        interrupted = interrupted() => Err(interrupted),
    };
    bar.finish_and_clear();
    let not_written = |failure: Failure| failure.within(&format!("{} was not written", file.path.display()));
    let stats = stats.map_err(not_written)?;
    let written = writer
        .finish()
        .and_then(|rows| target.complete().map(|bytes| (rows, bytes)));
    let (rows, bytes) = written.map_err(|e| not_written(cannot_write(&file.path, &e)))?;
    let rows = rows.map_or(String::new(), |rows| format!("{rows} rows, "));
    let seconds = started.elapsed().as_secs_f64();
    output::note(&format!(
        "wrote {}: {rows}{} in {seconds:.1} s",
        file.path.display(),
        HumanBytes(bytes)
    ));
    note_warnings(&stats);
    sql::require_complete(&stats)
}

async fn interrupted() -> Failure {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Failure::new("interrupted")
        }
        (Err(error), _) | (_, Err(error)) => Failure::with_cause("cannot wait for signals", &error),
    }
}

fn cannot_write(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

/// Where the bytes go.
enum Target {
    /// A hidden file, which takes its name when it is complete. It is removed otherwise.
    Hidden(NamedTempFile, std::path::PathBuf),
    /// A pipe or a device.
    Special(File),
}

impl Target {
    fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Special(File::options().write(true).open(path)?));
        }
        // Behind a symbolic link, the file that it names is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        Ok(Self::Hidden(hidden, path))
    }

    fn file(&self) -> io::Result<File> {
        match self {
            Self::Hidden(hidden, _) => hidden.as_file().try_clone(),
            Self::Special(file) => file.try_clone(),
        }
    }

    /// Makes the file durable and gives it its name. Returns its size in bytes.
    fn complete(self) -> io::Result<u64> {
        match self {
            Self::Hidden(hidden, path) => {
                hidden.as_file().sync_all()?;
                let bytes = hidden.as_file().metadata()?.len();
                hidden.persist(path).map_err(|e| e.error)?;
                Ok(bytes)
            }
            Self::Special(_) => Ok(0),
        }
    }
}

/// Writes the bytes of an answer in the format of the file.
enum Writer {
    Text(CompressedFile),
    /// An Arrow stream, batch by batch.
    Batches(Box<StreamDecoder>, BatchFile),
}

impl Writer {
    fn new(file: File, export: &ExportFile) -> Result<Self, Failure> {
        Ok(match export.format {
            FileFormat::Text(_, compression) => {
                let file = CompressedFile::new(file, compression);
                Self::Text(file.map_err(|e| cannot_write(&export.path, &e))?)
            }
            FileFormat::Parquet | FileFormat::Arrow => {
                let is_parquet = export.format == FileFormat::Parquet;
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
                writer.write(batch).map_err(not_storable)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES_MAX {
                    writer.flush().map_err(io::Error::other)?;
                }
                *rows += batch.num_rows() as u64;
            }
            Self::Arrow { writer, rows } => {
                writer.write(batch).map_err(not_storable)?;
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
