//! Cuts a file into blocks of whole lines. The cuts are the same each time, so the block number can be part of the
//! idempotency key.

use std::io::{self, BufRead};

use serde_json::value::RawValue;

/// Bytes of a block. A longer line is a block of its own.
pub(super) const BLOCK_BYTES_MAX: usize = 8 << 20;

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
    bytes_max: usize,
    line_bytes_max: usize,
    /// Bytes read beyond the previous block.
    carry: Vec<u8>,
}

impl<R: BufRead> Blocks<R> {
    /// Blocks of at most `bytes_max` bytes, of lines of at most `line_bytes_max`.
    pub(super) fn new(reader: R, bytes_max: usize, line_bytes_max: usize) -> Self {
        Self {
            reader,
            bytes_max,
            line_bytes_max,
            carry: Vec::new(),
        }
    }

    /// The next block; empty at the end.
    pub(super) fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut block = std::mem::take(&mut self.carry);
        while block.len() < self.bytes_max {
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

    /// Cuts a block of multi-line documents after its last whole document; the rest starts the next block. A block
    /// never starts with `[`, because a server would take it for an array of documents.
    pub(super) fn cut_at_document(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        while !self.is_at_end()? {
            let cut = last_cut(&block)?;
            if cut > 0 {
                let mut rest = block.split_off(cut);
                rest.append(&mut self.carry);
                self.carry = rest;
                break;
            }
            if block.len() > self.line_bytes_max {
                return Err(io::Error::other(format!(
                    "a document is longer than {} bytes",
                    self.line_bytes_max
                )));
            }
            block.append(&mut self.next()?);
        }
        Ok(block)
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.carry.is_empty() && self.reader.fill_buf()?.is_empty())
    }

    /// A line with its line break; empty at the end of the file.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut reader = io::Read::take(&mut self.reader, self.line_bytes_max as u64 + 1);
        reader.read_until(b'\n', &mut line)?;
        match line.len() > self.line_bytes_max {
            true => Err(io::Error::other(format!(
                "a line is longer than {} bytes",
                self.line_bytes_max
            ))),
            false => Ok(line),
        }
    }
}

/// The end of the last document after which a block may be cut; 0 if there is none.
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

    fn blocks(text: &str, bytes_max: usize) -> Vec<String> {
        let mut blocks = Blocks::new(text.as_bytes(), bytes_max, 20);
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
            let mut blocks = Blocks::new(text.as_bytes(), bytes_max, 1_000);
            let (mut all, mut documents) = (String::new(), 0);
            loop {
                let block = blocks
                    .next()
                    .and_then(|block| blocks.cut_at_document(block))
                    .expect("it reads");
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
        let mut broken = Blocks::new(&b"{\n\"a\":1}\n{\"a\" 1}\n{\n}"[..], 18, 100);
        assert!(broken.next().and_then(|block| broken.cut_at_document(block)).is_err());
    }

    #[test]
    fn appending_to_a_file_keeps_its_first_blocks() {
        let (before, after) = (blocks("aa\nbb\ncc\n", 6), blocks("aa\nbb\ncc\ndd\nee\n", 6));
        assert_eq!(before[0], after[0]);
    }

    #[test]
    fn an_endless_line_is_an_error_and_does_not_exhaust_memory() {
        let mut blocks = Blocks::new(io::BufReader::new(io::repeat(b'x')), 10, 100);
        assert!(blocks.next().is_err());
    }
}
