//! Opens a file: decompresses it, finds its format, and cuts it into blocks.

use std::{
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use indicatif::ProgressBar;

use super::{
    blocks::{Blocks, Cut, header, is_multiline},
    columnar::RowLines,
};
use crate::cli::PushFormat;

/// Bytes of the read buffer, and of the beginning of a file that shows its format.
const READ_BYTES: usize = 1 << 20;
/// Memory that a file compressed with xz may ask for.
const XZ_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Rows that show whether a text is a table.
const ROWS_READ: usize = 100;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const CSV: &[u8] = b",;";
const TSV: &[u8] = b"\t";

/// A file to push.
pub(super) struct Input {
    pub blocks: Blocks<Box<dyn BufRead>>,
    pub format: PushFormat,
    /// How its format was found and what it is, unless it is JSON.
    pub guess: Option<String>,
    /// None for standard input.
    pub metadata: Option<Metadata>,
}

impl Input {
    /// Opens a file. The bar counts its bytes as they are read.
    pub(super) fn open(path: &Path, wanted: Option<PushFormat>, bar: &ProgressBar) -> io::Result<Self> {
        let bar = bar.clone();
        if path == Path::new("-") {
            let reader = decompressed(CountingReader {
                inner: io::stdin(),
                bar,
            })?;
            return Self::of_text(reader, path, wanted, None);
        }
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let reader = decompressed(CountingReader { inner: file, bar })?;
            return Self::of_text(reader, path, wanted, None);
        }
        let mut start = [0; 6];
        let read = file.read(&mut start)?;
        io::Seek::rewind(&mut file)?;
        let length = metadata.len();
        match wanted.or_else(|| columnar(&start[..read])) {
            Some(format @ PushFormat::Parquet) => {
                return Ok(Self::of_rows(
                    RowLines::of_parquet(file, length, bar)?,
                    format,
                    metadata,
                ));
            }
            Some(format @ PushFormat::Arrow) => {
                return Ok(Self::of_rows(RowLines::of_arrow(file, length, bar)?, format, metadata));
            }
            _ => {}
        }
        // What is appended meanwhile is for the next push. Files of the kernel have no length.
        let inner = file.take(if length == 0 { u64::MAX } else { length });
        let reader = decompressed(CountingReader { inner, bar })?;
        Self::of_text(reader, path, wanted, Some(metadata))
    }

    /// The length of the last line of a file if it seems to be still written: it has no line break, and its document or row
    /// does not end.
    pub(super) fn unfinished_line(&mut self, block: &[u8]) -> io::Result<usize> {
        if self.metadata.is_none() || block.is_empty() || block.ends_with(b"\n") || !self.blocks.is_at_end()? {
            return Ok(0);
        }
        let (line, is_unfinished) = match self.blocks.cut() {
            Cut::Lines => {
                let line = &block[block.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..];
                let read = serde_json::from_slice::<serde::de::IgnoredAny>(line);
                let is_unfinished = match read {
                    // A number goes on as long as digits come.
                    Ok(_) => line.last().is_some_and(u8::is_ascii_digit),
                    Err(error) => error.is_eof(),
                };
                (line, is_unfinished)
            }
            Cut::Rows(header) => {
                let (row, fields) = last_row(block, header.separator);
                (row, fields < header.names.len())
            }
            Cut::Array | Cut::Documents => return Ok(0),
        };
        Ok(if is_unfinished { line.len() } else { 0 })
    }

    fn of_rows(lines: RowLines, format: PushFormat, metadata: Metadata) -> Self {
        Self {
            guess: Some(lines.summary()),
            blocks: Blocks::new(Box::new(BufReader::with_capacity(READ_BYTES, lines)), Cut::Lines),
            format,
            metadata: Some(metadata),
        }
    }

    fn of_text(
        mut reader: Box<dyn BufRead>,
        path: &Path,
        wanted: Option<PushFormat>,
        metadata: Option<Metadata>,
    ) -> io::Result<Self> {
        let mut start = Vec::new();
        Read::take(&mut reader, READ_BYTES as u64).read_to_end(&mut start)?;
        if start.starts_with(BYTE_ORDER_MARK) {
            start.drain(..BYTE_ORDER_MARK.len());
        }
        if wanted
            .or_else(|| columnar(&start))
            .is_some_and(|format| matches!(format, PushFormat::Parquet | PushFormat::Arrow))
        {
            return Err(io::Error::other(
                "a Parquet or Arrow file must be a file by itself, and not compressed",
            ));
        }
        let format = wanted.or_else(|| by_name(path)).unwrap_or_else(|| by_content(&start));
        let separators = match format {
            PushFormat::Csv if !start.is_empty() => CSV,
            PushFormat::Tsv if !start.is_empty() => TSV,
            _ => {
                let is_ndjson = format == PushFormat::Ndjson;
                let cut = match start.trim_ascii_start().starts_with(b"[") {
                    true if !is_ndjson => Cut::Array,
                    _ if !is_ndjson && is_multiline(&start) => Cut::Documents,
                    _ => Cut::Lines,
                };
                return Ok(Self {
                    blocks: Blocks::new(joined(start, reader), cut),
                    format,
                    guess: None,
                    metadata,
                });
            }
        };
        // A file of a single line has only a header.
        let ended = if start.ends_with(b"\n") {
            start.clone()
        } else {
            [&start[..], b"\n"].concat()
        };
        let header = header(&ended, separators).ok_or_else(|| {
            io::Error::other("its first line is no header: it must name the columns, and end with a line feed")
        })?;
        let rest = start.split_off(header.bytes.len().min(start.len()));
        let separator = match header.separator {
            b'\t' => "tabs",
            b';' => "semicolons",
            _ => "commas",
        };
        let guess = format!(
            "rows with {separator} between {} columns: {}",
            header.names.len(),
            shortened(&header.names)
        );
        Ok(Self {
            blocks: Blocks::new(joined(rest, reader), Cut::Rows(header)),
            format,
            guess: Some(guess),
            metadata,
        })
    }
}

/// The format of a file of columns that begins so.
fn columnar(start: &[u8]) -> Option<PushFormat> {
    match start {
        [b'P', b'A', b'R', b'1', ..] => Some(PushFormat::Parquet),
        // The second is how a stream begins.
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => Some(PushFormat::Arrow),
        _ => None,
    }
}

/// The last row of a block, and the number of its fields.
fn last_row(block: &[u8], separator: u8) -> (&[u8], usize) {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .from_reader(block);
    let (mut row, mut last) = (csv::ByteRecord::new(), (0, 0));
    while reader.read_byte_record(&mut row).unwrap_or(false) {
        let start = row.position().map_or(0, |position| position.byte() as usize);
        last = (start, row.len());
    }
    (&block[last.0.min(block.len())..], last.1)
}

fn joined(start: Vec<u8>, rest: Box<dyn BufRead>) -> Box<dyn BufRead> {
    Box::new(Cursor::new(start).chain(rest))
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// The format that the name of a file says, compressed or not.
fn by_name(path: &Path) -> Option<PushFormat> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let packed = [".gz", ".zst", ".xz"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    let (_, ending) = packed.unwrap_or(&name).rsplit_once('.')?;
    match ending {
        "ndjson" | "jsonl" => Some(PushFormat::Ndjson),
        "csv" => Some(PushFormat::Csv),
        "tsv" | "tab" => Some(PushFormat::Tsv),
        _ => None,
    }
}

/// The format of a text that begins so: rows if its first lines have equally many fields and none of them is JSON.
fn by_content(start: &[u8]) -> PushFormat {
    let is_json = |line: &[u8]| {
        matches!(line.first(), Some(b'{' | b'[' | b'"'))
            || serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
    };
    let whole = &start[..start.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)];
    let mut lines = whole
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .take(ROWS_READ);
    if lines.any(is_json) {
        return PushFormat::Json;
    }
    for (format, separators) in [(PushFormat::Csv, CSV), (PushFormat::Tsv, TSV)] {
        let Some(header) = header(whole, separators) else {
            continue;
        };
        let mut reader = csv::ReaderBuilder::new().delimiter(header.separator).from_reader(whole);
        let mut rows = reader.byte_records().take(ROWS_READ).peekable();
        if header.names.len() > 1 && rows.peek().is_some() && rows.all(|row| row.is_ok()) {
            return format;
        }
    }
    PushFormat::Json
}

/// Decompresses a file; its first bytes show the format.
fn decompressed(file: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut compressed = BufReader::with_capacity(READ_BYTES, file);
    let start = compressed.fill_buf()?;
    let unsupported = |what: &str, command: &str| {
        Err(io::Error::other(format!(
            "{what} is not supported, and nothing was sent; use {command} | rachis push COLLECTION -"
        )))
    };
    fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
        Box::new(BufReader::with_capacity(READ_BYTES, reader))
    }
    match start {
        [0x1f, 0x8b, ..] => Ok(buffered(flate2::bufread::MultiGzDecoder::new(compressed))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(buffered(zstd::stream::read::Decoder::with_buffer(compressed)?)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, liblzma::stream::CONCATENATED)?;
            Ok(buffered(liblzma::bufread::XzDecoder::new_stream(compressed, stream)))
        }
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => unsupported("bzip2 compression", "bzip2 -dc FILE"),
        [b'P', b'K', 3, 4, ..] => unsupported("a ZIP archive", "unzip -p FILE"),
        _ => Ok(Box::new(compressed)),
    }
}

struct CountingReader<R> {
    inner: R,
    bar: ProgressBar,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bar.inc(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_may_say_its_format() {
        for (name, format) in [
            ("a.ndjson", Some(PushFormat::Ndjson)),
            ("a.jsonl.gz", Some(PushFormat::Ndjson)),
            ("A.NDJSON.zst", Some(PushFormat::Ndjson)),
            ("b/a.csv.xz", Some(PushFormat::Csv)),
            ("a.tsv", Some(PushFormat::Tsv)),
            ("a.json", None),
            ("a.gz", None),
            ("ndjson", None),
        ] {
            assert_eq!(by_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_text_is_rows_only_if_all_of_them_have_the_fields_of_the_header() {
        for (text, format) in [
            ("a,b\n1,2\n3,4\n", PushFormat::Csv),
            ("a;b\n1;2\n", PushFormat::Csv),
            ("a\tb\n1\t2\nun", PushFormat::Tsv),
            ("a,b\n1\n", PushFormat::Json),
            ("one, two\nthree, four, five\n", PushFormat::Json),
            ("a,b\n{\"n\":1}\n", PushFormat::Json),
            ("1\n2\n", PushFormat::Json),
            ("a,b\n", PushFormat::Json),
            ("", PushFormat::Json),
        ] {
            assert_eq!(by_content(text.as_bytes()), format, "{text:?}");
        }
    }
}
