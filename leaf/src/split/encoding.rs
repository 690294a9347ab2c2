//! Encoding: the binary form of a split's own records. Numbers are little endian; texts and bitmaps have a length
//! prefix.

use std::io::{self, ErrorKind};

use roaring::RoaringBitmap;

/// Writes a record.
#[derive(Debug, Default)]
pub(super) struct ByteWriter {
    bytes: Vec<u8>,
}

impl ByteWriter {
    pub(super) fn u32(&mut self, number: u32) {
        self.bytes.extend(number.to_le_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
    }

    /// An empty bitmap, the usual case, is four bytes.
    pub(super) fn bitmap(&mut self, bitmap: &RoaringBitmap) -> io::Result<()> {
        if bitmap.is_empty() {
            self.u32(0);
            return Ok(());
        }
        self.u32(bitmap.serialized_size() as u32);
        bitmap.serialize_into(&mut self.bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a record. Fails if the record is too short.
#[derive(Debug)]
pub(super) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, "a record of a split is too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        Ok(self
            .take(4)?
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        Ok(self
            .take(8)?
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn text(&mut self) -> io::Result<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
    }

    pub(super) fn bitmap(&mut self) -> io::Result<RoaringBitmap> {
        match self.u32()? as usize {
            0 => Ok(RoaringBitmap::new()),
            length => RoaringBitmap::deserialize_from(self.take(length)?),
        }
    }
}
