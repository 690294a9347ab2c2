//! A file -> blocks of whole lines, the same blocks each time: their numbers make the keys under which a push can be repeated.

use std::io::{self, BufRead};

/// Bytes of a block; a longer line is a block of its own.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// The blocks of a reader.
pub struct Blocks<R> {
    reader: R,
    bytes_max: usize,
    line_bytes_max: usize,
    /// A line that did not fit into the block before.
    next_line: Vec<u8>,
}

impl<R: BufRead> Blocks<R> {
    /// Blocks of at most `bytes_max` bytes, of lines of at most `line_bytes_max`.
    pub fn new(reader: R, bytes_max: usize, line_bytes_max: usize) -> Self {
        Self { reader, bytes_max, line_bytes_max, next_line: Vec::new() }
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

    /// A line with its end; empty at the end of all.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut reader = io::Read::take(&mut self.reader, self.line_bytes_max as u64 + 1);
        reader.read_until(b'\n', &mut line)?;
        match line.len() > self.line_bytes_max {
            true => Err(io::Error::other(format!("a line has more than {} bytes", self.line_bytes_max))),
            false => Ok(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str, bytes_max: usize) -> Vec<String> {
        let mut blocks = Blocks::new(text.as_bytes(), bytes_max, 20);
        std::iter::from_fn(|| blocks.next().ok().filter(|block| !block.is_empty())).map(|block| String::from_utf8(block).expect("UTF-8")).collect()
    }

    #[test]
    fn blocks_hold_whole_lines_and_together_everything() {
        assert_eq!(blocks("aa\nbb\ncc\n", 6), ["aa\nbb\n", "cc\n"]);
        assert_eq!(blocks("aa\nbb\ncc", 7), ["aa\nbb\n", "cc"]);
        assert_eq!(blocks("a\nlong long line\nb\n", 4), ["a\n", "long long line\n", "b\n"], "a longer line is alone");
        assert_eq!(blocks("", 4), [""; 0]);
        let text: String = (0..1_000).map(|i| format!("{i}\n")).collect();
        for bytes_max in [1, 5, 64, 10_000] {
            assert_eq!(blocks(&text, bytes_max).concat(), text);
        }
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
