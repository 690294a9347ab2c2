//! Reads a Parquet or Arrow file as lines of JSON.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _},
};

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
};
use arrow_json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited};
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Rows that are read at once, and their bytes, if one row does not have more.
const BATCH_ROWS_MAX: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// The rows of a file, one document per line; a null value is left out.
pub(super) struct RowLines {
    batches: Batches,
    /// The rows of a batch that are not in `lines` yet.
    batch: Option<RecordBatch>,
    lines: io::Cursor<Vec<u8>>,
    rows: u64,
    rows_read: u64,
    file_bytes: u64,
    kind: &'static str,
    bar: ProgressBar,
}

impl RowLines {
    /// The rows of a Parquet file.
    pub(super) fn of_parquet(file: File, file_bytes: u64, bar: ProgressBar) -> io::Result<Self> {
        const KIND: &str = "Parquet";
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| not_read(KIND, &e))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let groups = builder.metadata().row_groups().iter();
        let group_rows =
            groups.map(|group| rows_of(group.total_byte_size().unsigned_abs(), group.num_rows().unsigned_abs()));
        let batch_rows = group_rows.min().unwrap_or(1);
        let batches = builder.with_batch_size(batch_rows).build();
        let batches = Box::new(batches.map_err(|e| not_read(KIND, &e))?);
        Ok(Self::new(batches, rows, file_bytes, KIND, bar))
    }

    /// The rows of an Arrow IPC file or stream.
    pub(super) fn of_arrow(mut file: File, file_bytes: u64, bar: ProgressBar) -> io::Result<Self> {
        const KIND: &str = "Arrow";
        let reader = |file: File| -> io::Result<Batches> {
            let mut file = BufReader::new(file);
            let is_stream = file.fill_buf()?.first() == Some(&0xff);
            Ok(match is_stream {
                true => Box::new(StreamReader::try_new(file, None).map_err(|e| not_read(KIND, &e))?),
                false => Box::new(FileReader::try_new(file, None).map_err(|e| not_read(KIND, &e))?),
            })
        };
        // Its end does not say how many rows it has.
        let mut rows = 0;
        for batch in reader(file.try_clone()?)? {
            rows += batch.map_err(|e| not_read(KIND, &e))?.num_rows() as u64;
        }
        file.rewind()?;
        Ok(Self::new(reader(file)?, rows, file_bytes, KIND, bar))
    }

    fn new(batches: Batches, rows: u64, file_bytes: u64, kind: &'static str, bar: ProgressBar) -> Self {
        Self {
            batches,
            batch: None,
            lines: io::Cursor::default(),
            rows,
            rows_read: 0,
            file_bytes,
            kind,
            bar,
        }
    }

    /// What the file is, for the user.
    pub(super) fn summary(&self) -> String {
        format!("{}, {} rows", self.kind, self.rows)
    }

    /// The share of the file that rows so far are.
    fn bytes_at(&self, rows: u64) -> u64 {
        let bytes = u128::from(self.file_bytes) * u128::from(rows) / u128::from(self.rows.max(1));
        u64::try_from(bytes).unwrap_or(self.file_bytes)
    }
}

impl io::Read for RowLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.lines.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let failed = |e| not_read(self.kind, &e);
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => match self.batches.next() {
                    Some(batch) => batch.map_err(failed)?,
                    None => return Ok(0),
                },
            };
            let bytes = batch.get_array_memory_size() as u64;
            let at_once = rows_of(bytes, batch.num_rows() as u64).min(batch.num_rows());
            if at_once < batch.num_rows() {
                self.batch = Some(batch.slice(at_once, batch.num_rows() - at_once));
            }
            let batch = batch.slice(0, at_once);
            let mut writer: LineDelimitedWriter<Vec<u8>> = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch).and_then(|()| writer.finish()).map_err(failed)?;
            let before = self.bytes_at(self.rows_read);
            self.rows_read += batch.num_rows() as u64;
            self.bar.inc(self.bytes_at(self.rows_read) - before);
            self.lines = io::Cursor::new(writer.into_inner());
        }
    }
}

/// How many rows of so many bytes are read at once.
fn rows_of(bytes: u64, rows: u64) -> usize {
    let row_bytes = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX);
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX)
}

fn not_read(kind: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("it cannot be read as {kind}: {error}"))
}
