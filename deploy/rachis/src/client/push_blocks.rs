//! A file -> blocks of whole lines, the same blocks each time: their numbers make the keys under which a push can be
//! repeated.

use std::io::{self, BufRead};

use serde_json::value::RawValue;

/// Bytes of a block; a longer line is a block of its own.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Whether documents seem to spread over lines: the first line is no document, and some line is surely no JSON by
/// itself.
pub fn spreads_over_lines(block: &[u8]) -> bool {
    let ends = |line: &[u8]| matches!(line.trim_ascii_end().last(), Some(b'{' | b'[' | b',' | b':'));
    let block = block
        .strip_prefix("\u{feff}".as_bytes())
        .unwrap_or(block)
        .trim_ascii_start();
    let first = block.split(|byte| *byte == b'\n').next().unwrap_or_default();
    block.starts_with(b"{") && !first.trim_ascii_end().ends_with(b"}") && block.split(|byte| *byte == b'\n').any(ends)
}

/// The blocks of a reader.
pub struct Blocks<R> {
    reader: R,
    bytes_max: usize,
    line_bytes_max: usize,
    /// What did not fit into the block before.
    next_line: Vec<u8>,
}

impl<R: BufRead> Blocks<R> {
    /// Blocks of at most `bytes_max` bytes, of lines of at most `line_bytes_max`.
    pub fn new(reader: R, bytes_max: usize, line_bytes_max: usize) -> Self {
        Self {
            reader,
            bytes_max,
            line_bytes_max,
            next_line: Vec::new(),
        }
    }

    /// The next block; empty at the end.
    pub fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut block = std::mem::take(&mut self.next_line);
        while block.len() < self.bytes_max {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if !block.is_empty() && block.len() + line.len() > self.bytes_max {
                self.next_line = line;
                break;
            }
            block.extend_from_slice(&line);
        }
        Ok(block)
    }

    /// A block of documents that spread over lines, cut behind the last one that is whole: what is behind it begins the
    /// next block. A block never begins with `[`, which a server would take for a list of documents.
    pub fn cut_at_document(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        while !self.is_at_end()? {
            let mut values = serde_json::Deserializer::from_slice(&block).into_iter::<&RawValue>();
            let mut whole = 0;
            loop {
                match values.next() {
                    Some(Ok(_)) => {
                        let end = values.byte_offset();
                        if block[end..]
                            .trim_ascii_start()
                            .first()
                            .is_some_and(|next| *next != b'[')
                        {
                            whole = end;
                        }
                    }
                    Some(Err(error)) if !error.is_eof() => {
                        return Err(io::Error::other(format!(
                            "a document that spreads over lines is not JSON: {error}"
                        )));
                    }
                    Some(Err(_)) | None => break,
                }
            }
            if whole > 0 {
                let mut rest = block.split_off(whole);
                rest.append(&mut self.next_line);
                self.next_line = rest;
                break;
            }
            if block.len() > self.line_bytes_max {
                return Err(io::Error::other(format!(
                    "a document has more than {} bytes",
                    self.line_bytes_max
                )));
            }
            block.append(&mut self.next()?);
        }
        Ok(block)
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.next_line.is_empty() && self.reader.fill_buf()?.is_empty())
    }

    /// A line with its end; empty at the end of all.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut reader = io::Read::take(&mut self.reader, self.line_bytes_max as u64 + 1);
        reader.read_until(b'\n', &mut line)?;
        match line.len() > self.line_bytes_max {
            true => Err(io::Error::other(format!(
                "a line has more than {} bytes",
                self.line_bytes_max
            ))),
            false => Ok(line),
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
    fn blocks_hold_whole_lines_and_together_everything() {
        assert_eq!(blocks("aa\nbb\ncc\n", 6), ["aa\nbb\n", "cc\n"]);
        assert_eq!(blocks("aa\nbb\ncc", 7), ["aa\nbb\n", "cc"]);
        assert_eq!(
            blocks("a\nlong long line\nb\n", 4),
            ["a\n", "long long line\n", "b\n"],
            "a longer line is alone"
        );
        assert_eq!(blocks("", 4), [""; 0]);
        let text: String = (0..1_000).map(|i| format!("{i}\n")).collect();
        for bytes_max in [1, 5, 64, 10_000] {
            assert_eq!(blocks(&text, bytes_max).concat(), text);
        }
    }

    #[test]
    fn documents_over_lines_are_never_cut_and_no_block_begins_with_a_list() {
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
        assert!(spreads_over_lines(text.as_bytes()) && !spreads_over_lines(b"{\"a\":1}\n{\"b\":2}\n"));
        let mut broken = Blocks::new(&b"{\n\"a\":1}\n{\"a\" 1}\n{\n}"[..], 18, 100);
        assert!(broken.next().and_then(|block| broken.cut_at_document(block)).is_err());
    }

    #[test]
    fn what_grows_at_its_end_keeps_its_first_blocks() {
        let (before, after) = (blocks("aa\nbb\ncc\n", 6), blocks("aa\nbb\ncc\ndd\nee\n", 6));
        assert_eq!(before[0], after[0]);
    }

    #[test]
    fn a_line_without_end_is_an_error_and_not_all_memory() {
        let mut blocks = Blocks::new(io::BufReader::new(io::repeat(b'x')), 10, 100);
        assert!(blocks.next().is_err());
    }
}
