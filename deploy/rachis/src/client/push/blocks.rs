//! Cuts a file into blocks of whole documents. The cuts are the same each time, so the block number can be part of the
//! idempotency key.

use std::io::{self, BufRead, Read as _};

use serde_json::value::RawValue;

/// Bytes of a block. A longer line is a block of its own.
const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Bytes of the largest request that a server accepts. A JSON array is sent whole, so it must fit.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Bytes of the documents of one block of rows at most: a server accepts somewhat more.
const ROW_DOCUMENTS_BYTES_MAX: usize = 48 << 20;

/// Lines or rows of one block: half of the documents that a server accepts at once.
const BLOCK_LINES_MAX: usize = 500_000;
/// Bytes of a header.
const HEADER_BYTES_MAX: usize = 256 << 10;

/// How a file is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// Each line is a document.
    Lines,
    /// The file is one JSON array.
    Array,
    /// Documents span several lines.
    Documents,
    /// Rows after a header. Each block begins with the header.
    Rows(Header),
}

/// The header of a file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// With its line break.
    pub bytes: Vec<u8>,
    /// The names of the columns.
    pub names: Vec<String>,
    pub separator: u8,
}

/// Whether documents seem to span several lines: the first line is not a whole document, and some line cannot be JSON
/// by itself.
pub(super) fn is_multiline(block: &[u8]) -> bool {
    let is_open = |line: &[u8]| matches!(line.trim_ascii_end().last(), Some(b'{' | b'[' | b',' | b':'));
    let block = block
        .strip_prefix("\u{feff}".as_bytes())
        .unwrap_or(block)
        .trim_ascii_start();
    let first = block.split(|byte| *byte == b'\n').next().unwrap_or_default();
    block.starts_with(b"{")
        && !first.trim_ascii_end().ends_with(b"}")
        && block.split(|byte| *byte == b'\n').any(is_open)
}

/// Reads the blocks of a file.
pub(super) struct Blocks<R> {
    reader: R,
    cut: Cut,
    bytes_max: usize,
    request_bytes_max: usize,
    /// Bytes that were read and belong to the next block.
    carry: Vec<u8>,
}

impl<R: BufRead> Blocks<R> {
    /// The blocks of what this reads.
    pub(super) fn new(reader: R, cut: Cut) -> Self {
        Self {
            reader,
            cut,
            bytes_max: BLOCK_BYTES_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            carry: Vec::new(),
        }
    }

    pub(super) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// The header that each block is sent with; empty without one.
    pub(super) fn header(&self) -> &[u8] {
        match &self.cut {
            Cut::Rows(header) => &header.bytes,
            _ => &[],
        }
    }

    /// The next block; empty at the end.
    pub(super) fn next(&mut self) -> io::Result<Vec<u8>> {
        match &self.cut {
            Cut::Lines => self.lines(),
            Cut::Array => self.rest(),
            Cut::Documents => {
                let block = self.lines()?;
                self.cut_at_document(block)
            }
            Cut::Rows(header) => {
                let (names, separator) = (header.names.iter().map(|name| name.len() + 4).sum(), header.separator);
                self.rows(names, separator)
            }
        }
    }

    /// The next bytes, as an earlier run has cut them; fewer at the end of the file.
    pub(super) fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut block = std::mem::take(&mut self.carry);
        if block.len() > bytes {
            self.carry = block.split_off(bytes);
        }
        let more = bytes - block.len();
        io::Read::take(&mut self.reader, more as u64).read_to_end(&mut block)?;
        Ok(block)
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.carry.is_empty() && self.reader.fill_buf()?.is_empty())
    }

    fn lines(&mut self) -> io::Result<Vec<u8>> {
        let mut block = std::mem::take(&mut self.carry);
        let mut lines = 0;
        while block.len() < self.bytes_max && lines < BLOCK_LINES_MAX {
            lines += 1;
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if !block.is_empty() && block.len() + line.len() > self.bytes_max {
                self.carry = line;
                break;
            }
            block.extend_from_slice(&line);
        }
        Ok(block)
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let block = self.exactly(self.request_bytes_max)?;
        match self.is_at_end()? {
            true => Ok(block),
            false => Err(io::Error::other(format!(
                "it is a JSON array of more than {} bytes; write one document per line (jq -c '.[]'), or if each line is an \
                 array, add --format ndjson",
                self.request_bytes_max
            ))),
        }
    }

    /// Cuts a block of multi-line documents after its last whole document; the rest starts the next block. A block
    /// never starts with `[`, because a server would take it for an array of documents.
    fn cut_at_document(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        while !self.is_at_end()? {
            let cut = last_cut(&block)?;
            if cut > 0 {
                let mut rest = block.split_off(cut);
                rest.append(&mut self.carry);
                self.carry = rest;
                break;
            }
            if block.len() > self.request_bytes_max {
                return Err(io::Error::other(format!(
                    "a document is longer than {} bytes",
                    self.request_bytes_max
                )));
            }
            block.append(&mut self.lines()?);
        }
        Ok(block)
    }

    /// Whole rows. A row may span lines, so a block ends only where no quote is open.
    fn rows(&mut self, names_bytes: usize, separator: u8) -> io::Result<Vec<u8>> {
        let (mut block, mut documents_bytes, mut lines) = (Vec::new(), 0, 0);
        let mut rows = RowEnds::new(separator);
        loop {
            let is_whole = rows.is_whole;
            let is_full = block.len() >= self.bytes_max || lines >= BLOCK_LINES_MAX;
            if is_whole && (is_full || documents_bytes >= ROW_DOCUMENTS_BYTES_MAX) {
                return Ok(block);
            }
            lines += 1;
            let line = match std::mem::take(&mut self.carry) {
                carry if carry.is_empty() => self.line()?,
                carry => carry,
            };
            if line.is_empty() {
                return Ok(block);
            }
            if is_whole && !block.is_empty() && block.len() + line.len() > self.bytes_max {
                self.carry = line;
                return Ok(block);
            }
            block.extend_from_slice(&line);
            if block.len() > self.request_bytes_max {
                return Err(io::Error::other(format!(
                    "a quote does not close within {} bytes",
                    self.request_bytes_max
                )));
            }
            rows.read(&line);
            documents_bytes += line.len() + if rows.is_whole { names_bytes } else { 0 };
        }
    }

    /// A line with its line break; empty at the end of the file.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut reader = io::Read::take(&mut self.reader, self.request_bytes_max as u64 + 1);
        reader.read_until(b'\n', &mut line)?;
        match line.len() > self.request_bytes_max {
            true => Err(io::Error::other(format!(
                "a line is longer than {} bytes",
                self.request_bytes_max
            ))),
            false => Ok(line),
        }
    }
}

/// The header of rows that begin with these bytes, with one of these separators; none if it is too long or no text, or if
/// lines end with carriage returns alone.
pub(super) fn header(start: &[u8], separators: &[u8]) -> Option<Header> {
    let start = &start[..start.len().min(HEADER_BYTES_MAX)];
    let first = start.split_inclusive(|byte| *byte == b'\n').next()?;
    let separator = likely_separator(first, separators);
    let (mut rows, mut end) = (RowEnds::new(separator), 0);
    for line in start.split_inclusive(|byte| *byte == b'\n') {
        rows.read(line);
        end += line.len();
        if !rows.is_whole || !line.ends_with(b"\n") {
            continue;
        }
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .has_headers(false)
            .flexible(true)
            .from_reader(&start[..end]);
        let mut records = reader.records();
        let names = records.next()?.ok()?;
        return records.next().is_none().then(|| Header {
            bytes: start[..end].to_vec(),
            names: names.iter().map(str::to_owned).collect(),
            separator,
        });
    }
    None
}

/// The separator that a line has most of outside of quotes; of equally many, the first.
fn likely_separator(line: &[u8], separators: &[u8]) -> u8 {
    let mut is_quoted = false;
    let outside_quotes = |byte: &&u8| {
        is_quoted ^= **byte == b'"';
        !is_quoted
    };
    let unquoted: Vec<u8> = line.iter().filter(outside_quotes).copied().collect();
    let count = |separator: &u8| unquoted.iter().filter(|byte| *byte == separator).count();
    let most = separators.iter().rev().max_by_key(|separator| count(separator));
    most.copied().unwrap_or(b',')
}

/// Finds where rows end: a line break within quotes belongs to its row.
struct RowEnds {
    reader: csv_core::Reader,
    /// Whether the last line ended its row.
    is_whole: bool,
}

impl RowEnds {
    fn new(separator: u8) -> Self {
        Self {
            reader: csv_core::ReaderBuilder::new().delimiter(separator).build(),
            is_whole: true,
        }
    }

    fn read(&mut self, mut line: &[u8]) {
        // What is in the fields does not matter.
        let (mut fields, mut ends) = ([0; 4_096], [0; 256]);
        while !line.is_empty() {
            let (result, read, ..) = self.reader.read_record(line, &mut fields, &mut ends);
            self.is_whole = match result {
                csv_core::ReadRecordResult::Record => true,
                csv_core::ReadRecordResult::InputEmpty => self.is_whole && line == b"\n",
                _ => false,
            };
            line = &line[read..];
        }
    }
}

/// Where to cut a block of multi-line documents: behind the last whole one that no array follows. 0 if all must stay
/// together.
fn last_cut(block: &[u8]) -> io::Result<usize> {
    let mut values = serde_json::Deserializer::from_slice(block).into_iter::<&RawValue>();
    let mut cut = 0;
    loop {
        match values.next() {
            Some(Ok(_)) => {
                let end = values.byte_offset();
                let next = block[end..].trim_ascii_start().first();
                if next.is_some_and(|next| *next != b'[') {
                    cut = end;
                }
            }
            Some(Err(error)) if !error.is_eof() => {
                return Err(io::Error::other(format!("a multi-line document is not JSON: {error}")));
            }
            Some(Err(_)) | None => return Ok(cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_blocks<R: BufRead>(reader: R, cut: Cut, bytes_max: usize, request_bytes_max: usize) -> Blocks<R> {
        Blocks {
            bytes_max,
            request_bytes_max,
            ..Blocks::new(reader, cut)
        }
    }

    fn blocks(text: &str, bytes_max: usize) -> Vec<String> {
        let mut blocks = small_blocks(text.as_bytes(), Cut::Lines, bytes_max, 20);
        std::iter::from_fn(|| blocks.next().ok().filter(|block| !block.is_empty()))
            .map(|block| String::from_utf8(block).expect("UTF-8"))
            .collect()
    }

    #[test]
    fn blocks_are_whole_lines_and_add_up_to_the_file() {
        assert_eq!(blocks("aa\nbb\ncc\n", 6), ["aa\nbb\n", "cc\n"]);
        assert_eq!(blocks("aa\nbb\ncc", 7), ["aa\nbb\n", "cc"]);
        assert_eq!(
            blocks("a\nlong long line\nb\n", 4),
            ["a\n", "long long line\n", "b\n"],
            "a longer line is a block of its own"
        );
        assert_eq!(blocks("", 4), [""; 0]);
        let text: String = (0..1_000).map(|i| format!("{i}\n")).collect();
        for bytes_max in [1, 5, 64, 10_000] {
            assert_eq!(blocks(&text, bytes_max).concat(), text);
        }
    }

    #[test]
    fn multiline_documents_are_never_cut_and_no_block_starts_with_an_array() {
        let text: String = (0..20)
            .map(|n| {
                if n % 3 == 0 {
                    format!("[{n},\n1]\n")
                } else {
                    format!("{{\n\"n\":{n}\n}}\n")
                }
            })
            .collect();
        let text = format!("{{\"first\":\n0}}\n{text}");
        for bytes_max in [1, 7, 30, 64, 1_000] {
            let mut blocks = small_blocks(text.as_bytes(), Cut::Documents, bytes_max, 1_000);
            let (mut all, mut documents) = (String::new(), 0);
            loop {
                let block = blocks.next().expect("it reads");
                if block.is_empty() {
                    break;
                }
                assert!(!block.trim_ascii_start().starts_with(b"["), "{bytes_max}");
                let whole = serde_json::Deserializer::from_slice(&block).into_iter::<&RawValue>();
                documents += whole.collect::<Result<Vec<_>, _>>().expect("documents are whole").len();
                all.push_str(std::str::from_utf8(&block).expect("UTF-8"));
            }
            assert_eq!((all.as_str(), documents), (text.as_str(), 21), "{bytes_max}");
        }
        assert!(is_multiline(text.as_bytes()) && !is_multiline(b"{\"a\":1}\n{\"b\":2}\n"));
        let mut broken = small_blocks(&b"{\n\"a\":1}\n{\"a\" 1}\n{\n}"[..], Cut::Documents, 18, 100);
        assert!(broken.next().is_err());
    }

    #[test]
    fn appending_to_a_file_keeps_its_first_blocks() {
        let (before, after) = (blocks("aa\nbb\ncc\n", 6), blocks("aa\nbb\ncc\ndd\nee\n", 6));
        assert_eq!(before[0], after[0]);
        // The last one stays as it was cut, and the next one begins behind it.
        let mut again = small_blocks(&b"aa\nbb\ncc\ndd\nee\n"[..], Cut::Lines, 6, 20);
        assert_eq!(again.exactly(6).expect("bytes"), b"aa\nbb\n");
        assert_eq!(again.exactly(3).expect("bytes"), b"cc\n");
        assert_eq!(again.next().expect("a block"), b"dd\nee\n");
        assert!(again.is_at_end().expect("the end"));
        assert_eq!(again.exactly(3).expect("bytes"), b"");
    }

    #[test]
    fn rows_are_cut_where_no_quote_is_open() {
        let text = "a,b\n1,\"x\ny\"\n2,5\" pipe\n3,\"\"\"\n\"\"\"\n4,z";
        let found = header(text.as_bytes(), b",;\t").expect("a header");
        assert_eq!(
            (found.names.as_slice(), found.separator),
            (&["a".to_owned(), "b".to_owned()][..], b',')
        );
        let rows = &text[found.bytes.len()..];
        for bytes_max in [1, 5, 9, 20, 100] {
            let mut blocks = small_blocks(rows.as_bytes(), Cut::Rows(found.clone()), bytes_max, 1_000);
            let mut all = String::new();
            loop {
                let block = blocks.next().expect("a block");
                if block.is_empty() {
                    break;
                }
                let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&block[..]);
                let records = reader.byte_records().collect::<Result<Vec<_>, _>>().expect("rows");
                assert!(records.iter().all(|record| record.len() == 2), "{bytes_max}");
                all.push_str(std::str::from_utf8(&block).expect("UTF-8"));
            }
            assert_eq!(all, rows, "{bytes_max}");
        }
        let mut open = small_blocks(&b"1,\"x\n2,3\n4,5\n6,7\n"[..], Cut::Rows(found), 4, 10);
        assert!(open.next().is_err_and(|error| error.to_string().contains("quote")));
        assert_eq!(header(b"a;b\n1;2\n", b",;").map(|header| header.separator), Some(b';'));
        assert_eq!(header(b"a\tb\n", b",\t").map(|header| header.separator), Some(b'\t'));
        assert_eq!(header(b"no end", b","), None);
        assert_eq!(header(b"a,b\r1,2\r3,4\r\n", b","), None);
    }

    #[test]
    fn an_endless_line_is_an_error_and_does_not_exhaust_memory() {
        let mut blocks = small_blocks(io::BufReader::new(io::repeat(b'x')), Cut::Lines, 10, 100);
        assert!(blocks.next().is_err());
    }
}
