//! Codec of what a leaf writes: rows of the store and records of a split.
//!
//! A row begins with a version byte and consists of varints and byte strings. A record of a split has no version of its
//! own, since its file has one, and consists of little-endian numbers of fixed size, strings and bitmaps.
//!
//! Formats grow in two ways. A field that older releases may ignore is appended and the version stays: they read what
//! they know and leave the rest of the value. Any other change raises the version: it is compared by order, so a
//! release reads its own version and the older ones, and refuses a newer one with [`NewerVersion`]. Therefore bytes of
//! unknown length never end a value whose head may grow: the head has its length in front.
//!
//! Decoding never panics: whatever is on disk, the result is a value or an error.

use std::io;

use roaring::RoaringBitmap;

/// Encodes one value.
pub(crate) struct ValueWriter(Vec<u8>);

impl ValueWriter {
    /// Starts a value with its version byte.
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    /// Starts a value whose version is elsewhere.
    pub(crate) fn unversioned() -> Self {
        Self(Vec::new())
    }

    /// Appends one byte.
    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Appends an unsigned varint, seven bits per byte.
    pub(crate) fn number(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
        self
    }

    /// Appends a signed varint, zigzag-encoded so that numbers near 0 are short.
    pub(crate) fn signed(self, number: i64) -> Self {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned())
    }

    /// Appends a byte string with its length in front.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).rest(bytes)
    }

    /// Appends bytes without a length: a field of fixed size, or the end of the value.
    pub(crate) fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends four bytes.
    pub(crate) fn u32(self, number: u32) -> Self {
        self.rest(&number.to_le_bytes())
    }

    /// Appends eight bytes.
    pub(crate) fn u64(self, number: u64) -> Self {
        self.rest(&number.to_le_bytes())
    }

    /// Appends a string with its length as four bytes in front.
    pub(crate) fn u32_text(self, text: &str) -> Self {
        self.u32(text.len() as u32).rest(text.as_bytes())
    }

    /// Appends a bitmap with its length as four bytes in front. An empty bitmap, the usual case, has no further bytes.
    pub(crate) fn u32_bitmap(self, bitmap: &RoaringBitmap) -> Self {
        if bitmap.is_empty() {
            return self.u32(0);
        }
        let mut sized = self.u32(bitmap.serialized_size() as u32);
        bitmap.serialize_into(&mut sized.0).expect("a vector takes all bytes");
        sized
    }

    /// Returns the encoded value.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Something stored has a version that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {thing} has version {found}, but this release reads versions up to {supported}: run the release that wrote it, \
     or a newer one"
)]
pub struct NewerVersion {
    /// What it is.
    pub thing: &'static str,
    /// Its version.
    pub found: u32,
    /// The newest version that this release reads.
    pub supported: u32,
}

impl NewerVersion {
    /// The newer version that made reading a file fail, if that was the reason.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// Why a stored value cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// It is damaged.
    #[error("{0}")]
    Malformed(String),
    /// A newer release wrote it.
    #[error(transparent)]
    Newer(#[from] NewerVersion),
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        let error: Box<dyn std::error::Error + Send + Sync> = match error {
            DecodeError::Malformed(reason) => format!("broken record of a split: {reason}").into(),
            DecodeError::Newer(newer) => newer.into(),
        };
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The result of decoding.
pub(crate) type DecodeResult<T> = Result<T, DecodeError>;

/// Fails with this reason.
pub(crate) fn decode_error<T>(reason: impl Into<String>) -> DecodeResult<T> {
    Err(DecodeError::Malformed(reason.into()))
}

/// Decodes one value.
pub(crate) struct ValueReader<'a>(&'a [u8]);

impl<'a> ValueReader<'a> {
    /// Starts decoding a value of at most this version. `thing` names it if it is newer.
    pub(crate) fn new(value: &'a [u8], thing: &'static str, supported: u8) -> DecodeResult<Self> {
        match value.split_first() {
            Some((0, _)) => decode_error("its version is 0"),
            Some((found, rest)) if *found <= supported => Ok(Self(rest)),
            Some((found, _)) => Err(NewerVersion {
                thing,
                found: u32::from(*found),
                supported: u32::from(supported),
            }
            .into()),
            None => decode_error("it is empty"),
        }
    }

    /// Starts decoding a value whose version is elsewhere.
    pub(crate) fn unversioned(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// Whether nothing is left: an older release wrote no more.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> DecodeResult<u8> {
        let (first, rest) = self
            .0
            .split_first()
            .ok_or_else(|| DecodeError::Malformed("it ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    /// Reads an unsigned varint.
    pub(crate) fn number(&mut self) -> DecodeResult<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        decode_error("a number is too long")
    }

    /// Reads a signed varint.
    pub(crate) fn signed(&mut self) -> DecodeResult<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// Reads an unsigned varint that must fit into a smaller type.
    pub(crate) fn small<N: TryFrom<u64>>(&mut self) -> DecodeResult<N> {
        let number = self.number()?;
        N::try_from(number).map_err(|_| DecodeError::Malformed(format!("{number} is out of range")))
    }

    /// Reads a field of fixed size.
    pub(crate) fn fixed<const N: usize>(&mut self) -> DecodeResult<[u8; N]> {
        let (first, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| DecodeError::Malformed("it ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    /// Reads a length-prefixed byte string.
    pub(crate) fn bytes(&mut self) -> DecodeResult<&'a [u8]> {
        let length = self.small()?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> DecodeResult<&'a [u8]> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| DecodeError::Malformed("it ends early".into()))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads a length-prefixed string.
    pub(crate) fn text(&mut self) -> DecodeResult<&'a str> {
        utf8(self.bytes()?)
    }

    /// Reads four bytes.
    pub(crate) fn u32(&mut self) -> DecodeResult<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// Reads eight bytes.
    pub(crate) fn u64(&mut self) -> DecodeResult<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// Reads a byte string with its length as four bytes in front.
    pub(crate) fn u32_bytes(&mut self) -> DecodeResult<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// Reads a string with its length as four bytes in front.
    pub(crate) fn u32_text(&mut self) -> DecodeResult<&'a str> {
        utf8(self.u32_bytes()?)
    }

    /// Reads a bitmap with its length as four bytes in front.
    pub(crate) fn u32_bitmap(&mut self) -> DecodeResult<RoaringBitmap> {
        match self.u32()? as usize {
            0 => Ok(RoaringBitmap::new()),
            length => {
                RoaringBitmap::deserialize_from(self.take(length)?).map_err(|e| DecodeError::Malformed(e.to_string()))
            }
        }
    }

    /// Returns all remaining bytes.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

fn utf8(bytes: &[u8]) -> DecodeResult<&str> {
    std::str::from_utf8(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(number: u64, signed: i64, bytes: Vec<u8>, text: String, rest: Vec<u8>) {
            let value = ValueWriter::new(3).number(number).signed(signed).bytes(&bytes).bytes(text.as_bytes());
            let value = value.byte(7).rest(&rest).finish();
            let mut reader = ValueReader::new(&value, "test", 3)?;
            prop_assert_eq!(reader.number()?, number);
            prop_assert_eq!(reader.signed()?, signed);
            prop_assert_eq!(reader.bytes()?, &bytes[..]);
            prop_assert_eq!(reader.text()?, &text);
            prop_assert_eq!(reader.byte()?, 7);
            prop_assert_eq!(reader.rest(), &rest[..]);
        }

        #[test]
        fn records_round_trip(small: u32, large: u64, text: String, numbers: Vec<u32>) {
            let bitmap: RoaringBitmap = numbers.into_iter().collect();
            let record = ValueWriter::unversioned().u32(small).u64(large).u32_text(&text).u32_bitmap(&bitmap).finish();
            let mut reader = ValueReader::unversioned(&record);
            prop_assert_eq!(reader.u32()?, small);
            prop_assert_eq!(reader.u64()?, large);
            prop_assert_eq!(reader.u32_text()?, &text);
            prop_assert_eq!(reader.u32_bitmap()?, bitmap);
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn a_version_is_read_up_to_the_supported_one_and_a_newer_one_is_named(found: u8, supported in 1u8..) {
            let value = [found, 7];
            let read = ValueReader::new(&value, "example", supported).map(ValueReader::rest);
            match found {
                0 => prop_assert!(read.is_err()),
                found if found <= supported => prop_assert_eq!(read?, &[7]),
                found => {
                    let error = read.expect_err("it is newer").to_string();
                    let says = format!("the example has version {found}, but this release reads versions up to {supported}");
                    prop_assert!(error.starts_with(&says), "{}", error);
                }
            }
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage: Vec<u8>) {
            if let Ok(mut reader) = ValueReader::new(&garbage, "test", 1) {
                while reader.bytes().is_ok() && reader.signed().is_ok() {}
            }
            let mut reader = ValueReader::unversioned(&garbage);
            while reader.u32_bitmap().is_ok() && reader.u32_text().is_ok() {}
        }
    }
}
