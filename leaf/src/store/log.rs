//! The write-ahead log, looked at before RocksDB reads it. RocksDB opens a log up to its first damaged record. That is
//! right where the power failed while the end was written: nothing stands behind it. Where a byte in the middle was
//! flipped, it would drop every acknowledged write behind that byte without a word.
//!
//! A synced write carries a mark. Once it was acknowledged, all of the log before it was on disk; so a mark behind a
//! damaged record shows that the damage came later, unless the power failed during that very write. Writes that are
//! synced only later carry none: they come from Kafka, which still has them. The format is RocksDB's: blocks of 32 KiB,
//! in them records of a masked CRC-32C, a length, a type and as many bytes.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use memchr::memmem;

/// What a synced write carries. It is in the log alone, and no document is likely to have it.
pub const MARK: &[u8; 33] = b"\x00rachis: synced 5d0c8e1f7a3b9246\x00";

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

/// A damaged record that was whole once.
#[derive(Debug, PartialEq, Eq)]
pub struct Hole {
    /// The log.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
}

/// Looks for a damaged record with a synced write behind it.
pub fn hole(folder: &Path) -> io::Result<Option<Hole>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension() == Some("log".as_ref())) {
            logs.push((number, path));
        }
    }
    logs.sort();
    let mut damaged: Option<Hole> = None;
    for (_, path) in logs {
        let mut file = BufReader::with_capacity(BLOCK_BYTES, File::open(&path)?);
        let (mut block, mut offset) = (Vec::with_capacity(BLOCK_BYTES), 0);
        // The end of the record before: a mark may lie across two.
        let mut end: Vec<u8> = Vec::new();
        loop {
            block.clear();
            file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                break;
            }
            for (at, record) in (Records { block: &block, at: 0 }) {
                match record {
                    None => {
                        end.clear();
                        damaged.get_or_insert_with(|| Hole {
                            file: path.clone(),
                            offset: offset + at as u64,
                        });
                    }
                    Some(bytes) => {
                        end.extend_from_slice(bytes);
                        if damaged.is_some() && memmem::find(&end, MARK).is_some() {
                            return Ok(damaged);
                        }
                        end.drain(..end.len().saturating_sub(MARK.len() - 1));
                    }
                }
            }
            offset += block.len() as u64;
        }
    }
    Ok(None)
}

/// The records of a block and where each begins; none where one is damaged.
struct Records<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let header = self.block.get(at..at + HEADER_BYTES)?;
        // A page that was zeroed, and perhaps space that was set aside: then nothing stands behind it.
        if header.iter().all(|byte| *byte == 0) {
            self.at = self.block.len();
            return Some((at, None));
        }
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let bytes = self.block.get(at + HEADER_BYTES..at + HEADER_BYTES + length);
        let whole = bytes.filter(|bytes| {
            let sum = crc32c::crc32c_append(crc32c::crc32c(&header[6..]), bytes);
            u32::from_le_bytes([header[0], header[1], header[2], header[3]]) == masked(sum)
        });
        // A length that is damaged leads nowhere; then the rest of the block is lost, and the next block begins with a
        // record.
        self.at = if bytes.is_some() {
            at + HEADER_BYTES + length
        } else {
            self.block.len()
        };
        Some((at, whole))
    }
}

/// RocksDB stores a sum so that the sum of bytes that hold sums is no weaker.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}
