//! Checks the write-ahead log for damage before RocksDB opens it.
//!
//! RocksDB replays a log up to its first damaged record. That is right after a power failure during the last write:
//! nothing follows the damaged record. But if a byte in the middle was flipped, RocksDB would silently drop all
//! acknowledged writes after it.
//!
//! A synced write carries a mark. Once it is acknowledged, all of the log before it is on disk. So a mark after a
//! damaged record shows that the damage happened later, unless the power failed during that very write. Writes that are
//! synced later carry no mark: they come from Kafka, which still has them. The format is RocksDB's: blocks of 32 KiB
//! that contain records, each a masked CRC-32C, a length, a type, and that many bytes.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use memchr::memmem;

/// Log data of a synced write. It exists in the log only, and a document is unlikely to contain it.
pub(super) const SYNC_MARK: &[u8; 33] = b"\x00rachis: synced 5d0c8e1f7a3b9246\x00";

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

/// A damaged record that was once intact.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DamagedRecord {
    /// The log file.
    pub file: PathBuf,
    /// The offset of the record in the file.
    pub offset: u64,
}

/// Finds the first damaged record, if a synced write follows it.
pub(super) fn find_damage(folder: &Path) -> io::Result<Option<DamagedRecord>> {
    let mut damaged: Option<DamagedRecord> = None;
    for path in log_files(folder)? {
        let mut file = BufReader::with_capacity(BLOCK_BYTES, File::open(&path)?);
        let (mut block, mut offset) = (Vec::with_capacity(BLOCK_BYTES), 0);
        // The end of the previous record: a mark may span two records.
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
                        damaged.get_or_insert_with(|| DamagedRecord {
                            file: path.clone(),
                            offset: offset + at as u64,
                        });
                    }
                    Some(bytes) => {
                        end.extend_from_slice(bytes);
                        if damaged.is_some() && memmem::find(&end, SYNC_MARK).is_some() {
                            return Ok(damaged);
                        }
                        end.drain(..end.len().saturating_sub(SYNC_MARK.len() - 1));
                    }
                }
            }
            offset += block.len() as u64;
        }
    }
    Ok(None)
}

/// The log files of a folder, oldest first.
fn log_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension() == Some("log".as_ref())) {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// Iterates over the records of a block with their offsets; `None` for a damaged record.
struct Records<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let header = self.block.get(at..at + HEADER_BYTES)?;
        // A zeroed page, or preallocated space, which nothing follows.
        if header.iter().all(|byte| *byte == 0) {
            self.at = self.block.len();
            return Some((at, None));
        }
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let bytes = self.block.get(at + HEADER_BYTES..at + HEADER_BYTES + length);
        let intact = bytes.filter(|bytes| {
            let sum = crc32c::crc32c_append(crc32c::crc32c(&header[6..]), bytes);
            u32::from_le_bytes([header[0], header[1], header[2], header[3]]) == masked(sum)
        });
        // A damaged length does not lead to the next record. Then the rest of the block is lost; the next block begins
        // with a record.
        self.at = if bytes.is_some() {
            at + HEADER_BYTES + length
        } else {
            self.block.len()
        };
        Some((at, intact))
    }
}

/// RocksDB masks stored checksums, because a CRC over data that contains CRCs is weak.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}
