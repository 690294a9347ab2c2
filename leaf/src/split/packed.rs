//! Packed entries: bytes in pieces, each as it is or compressed with zstd. They are read like the bytes themselves.
//!
//! ```text
//! piece … | table: number of pieces, then the bytes and the stored bytes of each | bytes of the table
//! ```
//!
//! The writer chooses the pieces, so that what is read together is decompressed together. Bytes that are stored as they
//! are stay mapped; what is read of compressed pieces is copied.

use std::{cell::RefCell, io, ops::Range};

use tantivy::{
    HasLen,
    directory::{FileHandle, FileSlice, OwnedBytes},
};
use zstd::bulk::{Compressor, Decompressor};

use crate::codec::{ValueReader, ValueWriter};

/// Text of high entropy becomes 1 % smaller with level 3, which takes twice the time.
const ZSTD_LEVEL: i32 = 1;
/// Bytes that are reserved before the first piece of a range is decompressed.
const RESERVED_BYTES_MAX: usize = 4 << 20;
/// Pieces of fewer bytes are stored as they are.
const COMPRESSED_BYTES_MIN: usize = 256;
/// A piece is compressed if that saves one byte of so many.
const SAVED_SHARE: usize = 8;
/// The most bytes of a compressed piece: an entry that states more is damaged.
const COMPRESSED_BYTES_MAX: usize = 1 << 20;
/// Bytes of the length of the table.
const TABLE_LENGTH_BYTES: usize = 4;

thread_local! {
    /// The decompressor of this thread, and the bytes of the piece that it decompresses.
    static DECOMPRESSOR: RefCell<Option<(Decompressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Packs the bytes of an entry.
pub(super) struct Packer {
    stored: Vec<u8>,
    /// The bytes and the stored bytes of each piece; equal if it is stored as it is.
    pieces: Vec<(usize, usize)>,
    compressor: Compressor<'static>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            stored: Vec::new(),
            pieces: Vec::new(),
            compressor: Compressor::new(ZSTD_LEVEL)?,
        })
    }

    /// Appends bytes as they are.
    pub(super) fn plain(&mut self, bytes: &[u8]) {
        self.stored.extend(bytes);
        match self.pieces.last_mut() {
            Some((length, stored)) if length == stored => {
                *length += bytes.len();
                *stored += bytes.len();
            }
            _ => self.pieces.push((bytes.len(), bytes.len())),
        }
    }

    /// Appends a piece, compressed if that is worth it.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        if (COMPRESSED_BYTES_MIN..=COMPRESSED_BYTES_MAX).contains(&bytes.len()) {
            let compressed = self.compressor.compress(bytes)?;
            if compressed.len() + bytes.len() / SAVED_SHARE <= bytes.len() {
                self.stored.extend(&compressed);
                self.pieces.push((bytes.len(), compressed.len()));
                return Ok(());
            }
        }
        self.plain(bytes);
        Ok(())
    }

    /// The stored bytes of the entry.
    pub(super) fn finish(self) -> Vec<u8> {
        let table = ValueWriter::unversioned().number(self.pieces.len() as u64);
        let table = (self.pieces.iter()).fold(table, |table, (bytes, stored)| {
            table.number(*bytes as u64).number(*stored as u64)
        });
        let (mut stored, table) = (self.stored, table.finish());
        stored.extend(&table);
        stored.extend((table.len() as u32).to_le_bytes());
        stored
    }
}

/// A piece of an entry.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where its bytes begin.
    start: usize,
    /// Where its stored bytes begin.
    stored_start: usize,
}

/// The bytes that an entry was packed from.
pub(super) struct PackedFile {
    stored: FileSlice,
    /// The pieces, and their end as the last one.
    pieces: Vec<Piece>,
}

impl std::fmt::Debug for PackedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedFile({} pieces)", self.pieces.len() - 1)
    }
}

impl PackedFile {
    /// Opens an entry. Reads its table.
    pub(super) fn open(entry: &FileSlice) -> io::Result<Self> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the table of a packed entry is malformed");
        let length_at = entry.len().checked_sub(TABLE_LENGTH_BYTES).ok_or_else(broken)?;
        let length = entry.read_bytes_slice(length_at..entry.len())?;
        let length = ValueReader::unversioned(&length).u32()? as usize;
        let table_at = length_at.checked_sub(length).ok_or_else(broken)?;
        let table = entry.read_bytes_slice(table_at..length_at)?;
        let mut table = ValueReader::unversioned(&table);
        let mut end = Piece {
            start: 0,
            stored_start: 0,
        };
        let mut pieces = vec![end];
        for _ in 0..table.number()? {
            let (bytes, stored): (usize, usize) = (table.small()?, table.small()?);
            if bytes != stored && (bytes > COMPRESSED_BYTES_MAX || stored > bytes || stored == 0) {
                return Err(broken());
            }
            end = Piece {
                start: end.start.checked_add(bytes).ok_or_else(broken)?,
                stored_start: end.stored_start.checked_add(stored).ok_or_else(broken)?,
            };
            pieces.push(end);
        }
        if end.stored_start != table_at {
            return Err(broken());
        }
        Ok(Self {
            stored: entry.slice_to(table_at),
            pieces,
        })
    }

    /// Appends the bytes of a range that lies within one piece.
    fn append(&self, [piece, next]: [Piece; 2], range: Range<usize>, to: &mut Vec<u8>) -> io::Result<()> {
        let bytes = next.start - piece.start;
        let stored = self.stored.read_bytes_slice(piece.stored_start..next.stored_start)?;
        if stored.len() == bytes {
            to.extend(&stored[range]);
            return Ok(());
        }
        DECOMPRESSOR.with_borrow_mut(|slot| {
            let (decompressor, piece) = match slot {
                Some(state) => state,
                None => slot.insert((Decompressor::new()?, Vec::new())),
            };
            piece.clear();
            piece.reserve(bytes);
            if decompressor.decompress_to_buffer(&stored, piece)? != bytes {
                let reason = "a piece of a packed entry has another length than its table says";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            to.extend(&piece[range]);
            Ok(())
        })
    }
}

impl HasLen for PackedFile {
    fn len(&self) -> usize {
        self.pieces.last().map_or(0, |end| end.start)
    }
}

impl FileHandle for PackedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start >= range.end {
            return Ok(OwnedBytes::empty());
        }
        let first = self.pieces.partition_point(|piece| piece.start <= range.start) - 1;
        let pieces = self.pieces[first..].windows(2).map(|pair| [pair[0], pair[1]]);
        // The length of the range comes from the file: it may be damaged.
        let mut bytes = Vec::with_capacity(range.len().min(RESERVED_BYTES_MAX));
        for [piece, next] in pieces.take_while(|[piece, _]| piece.start < range.end) {
            let within = range.start.max(piece.start) - piece.start..range.end.min(next.start) - piece.start;
            let is_plain = next.start - piece.start == next.stored_start - piece.stored_start;
            if is_plain && within.len() == range.len() {
                let start = piece.stored_start + within.start;
                return self.stored.read_bytes_slice(start..start + within.len());
            }
            self.append([piece, next], within, &mut bytes)?;
        }
        Ok(OwnedBytes::new(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_range_of_an_entry_is_read_as_it_was_packed(
            pieces: Vec<(bool, String, u8)>,
            [one, other]: [prop::sample::Index; 2],
        ) {
            let (mut packer, mut whole) = (Packer::new()?, Vec::new());
            for (plain, text, repeated) in pieces {
                let bytes = text.repeat(repeated.into()).into_bytes();
                match plain {
                    true => packer.plain(&bytes),
                    false => packer.piece(&bytes)?,
                }
                whole.extend(bytes);
            }
            let entry = packer.finish();
            let packed = FileSlice::new(Arc::new(PackedFile::open(&FileSlice::from(entry))?));
            prop_assert_eq!(packed.len(), whole.len());
            let [one, other] = [one, other].map(|index| index.index(whole.len() + 1));
            let range = one.min(other)..one.max(other);
            prop_assert_eq!(&packed.read_bytes_slice(range.clone())?[..], &whole[range]);
            prop_assert_eq!(&packed.read_bytes()?[..], &whole[..]);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage: Vec<u8>) {
            if let Ok(packed) = PackedFile::open(&FileSlice::from(garbage)) {
                let packed = FileSlice::new(Arc::new(packed));
                let _may_fail = packed.read_bytes();
            }
        }
    }

    #[test]
    fn a_compressed_piece_takes_less_and_says_if_it_is_damaged() {
        let mut packer = Packer::new().expect("a packer");
        let text = "three words repeated ".repeat(100);
        packer.piece(text.as_bytes()).expect("packed");
        let mut entry = packer.finish();
        assert!(entry.len() < text.len() / 4, "{}", entry.len());
        entry[8] ^= 1;
        let packed = PackedFile::open(&FileSlice::from(entry)).expect("its table is whole");
        let read = packed.read_bytes(0..text.len());
        assert!(
            read.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::UnexpectedEof)
                || read.is_ok_and(|b| b[..] != *text.as_bytes())
        );
    }
}
