//! Reads a Parquet file as lines of JSON.

use std::{fs::File, io};

use arrow_json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited};
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

/// Rows that are read at once.
const BATCH_ROWS: usize = 1_024;

/// The rows of a Parquet file, one document per line; a null value is left out.
pub(super) struct ParquetLines {
    batches: ParquetRecordBatchReader,
    lines: io::Cursor<Vec<u8>>,
    rows: u64,
    rows_read: u64,
    file_bytes: u64,
    bar: ProgressBar,
}

impl ParquetLines {
    pub(super) fn open(file: File, file_bytes: u64, bar: ProgressBar) -> io::Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(not_read)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(not_read)?;
        Ok(Self {
            batches,
            lines: io::Cursor::default(),
            rows,
            rows_read: 0,
            file_bytes,
            bar,
        })
    }

    /// The number of rows in the file.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The share of the file that rows so far are.
    fn bytes_at(&self, rows: u64) -> u64 {
        let bytes = u128::from(self.file_bytes) * u128::from(rows) / u128::from(self.rows.max(1));
        u64::try_from(bytes).unwrap_or(self.file_bytes)
    }
}

impl io::Read for ParquetLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.lines.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(batch) = self.batches.next() else {
                return Ok(0);
            };
            let batch = batch.map_err(not_read)?;
            let mut writer: LineDelimitedWriter<Vec<u8>> = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch).and_then(|()| writer.finish()).map_err(not_read)?;
            let before = self.bytes_at(self.rows_read);
            self.rows_read += batch.num_rows() as u64;
            self.bar.inc(self.bytes_at(self.rows_read) - before);
            self.lines = io::Cursor::new(writer.into_inner());
        }
    }
}

fn not_read(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("it cannot be read as Parquet: {error}"))
}
