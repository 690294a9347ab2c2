//! Bytes of stored values: a version byte first, then numbers of variable length and byte strings with their length
//! before them.
//!
//! Reading never panics: whatever is on disk, it is a record or a reason.

/// Writes one value.
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins a value of this version.
    pub fn new(version: u8) -> Self {
        Self(vec![version])
    }

    /// One byte.
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// A number without sign, seven bits a byte.
    pub fn number(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
        self
    }

    /// A number with sign: small ones of either sign are short.
    pub fn signed(self, number: i64) -> Self {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned())
    }

    /// A byte string with its length.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).rest(bytes)
    }

    /// A byte string that ends the value.
    pub fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The value.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Why a stored value does not read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Shorthand of everything that reads.
pub type Read<T> = Result<T, Unreadable>;

/// A reason.
pub fn unreadable<T>(reason: impl Into<String>) -> Read<T> {
    Err(Unreadable(reason.into()))
}

/// Reads one value.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins a value that must be of this version.
    pub fn new(value: &'a [u8], version: u8) -> Read<Self> {
        match value.split_first() {
            Some((found, rest)) if *found == version => Ok(Self(rest)),
            Some((found, _)) => unreadable(format!(
                "version {found} is unknown here, {version} is known; it was written by a newer program"
            )),
            None => unreadable("it is empty"),
        }
    }

    /// One byte.
    pub fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| Unreadable("it ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number without sign.
    pub fn number(&mut self) -> Read<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        unreadable("a number has no end")
    }

    /// A number with sign.
    pub fn signed(&mut self) -> Read<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// A number that fits its type.
    pub fn small<N: TryFrom<u64>>(&mut self) -> Read<N> {
        let number = self.number()?;
        N::try_from(number).map_err(|_| Unreadable(format!("{number} is out of range")))
    }

    /// Fixed bytes.
    pub fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (first, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| Unreadable("it ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A byte string with its length.
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let length: usize = self.small()?;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| Unreadable("it ends early".into()))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A text with its length.
    pub fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|e| Unreadable(e.to_string()))
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Ends a value of which nothing may be left.
    pub fn end(self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            unreadable(format!("{} bytes too many", self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, signed: i64, bytes: Vec<u8>, text: String, rest: Vec<u8>) {
            let value = Writer::new(3).number(number).signed(signed).bytes(&bytes).bytes(text.as_bytes()).byte(7).rest(&rest).finish();
            let mut reader = Reader::new(&value, 3)?;
            prop_assert_eq!(reader.number()?, number);
            prop_assert_eq!(reader.signed()?, signed);
            prop_assert_eq!(reader.bytes()?, &bytes[..]);
            prop_assert_eq!(reader.text()?, &text);
            prop_assert_eq!(reader.byte()?, 7);
            prop_assert_eq!(reader.rest(), &rest[..]);
        }

        #[test]
        fn garbage_is_a_reason_and_never_a_panic(garbage: Vec<u8>) {
            if let Ok(mut reader) = Reader::new(&garbage, 1) {
                while reader.bytes().is_ok() && reader.signed().is_ok() {}
            }
        }
    }
}
