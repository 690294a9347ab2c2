//! Kinds row. Family `meta`, key: 22 partition, then the path's spelling. Value: the kinds of values seen there. It
//! never shrinks.
//!
//! The row of the empty path says that there were more paths than are remembered.

use plan::Kinds;

use super::codec::{Read, Reader, Writer};

const VERSION: u8 = 1;

/// The value of the row.
pub fn encode(kinds: Kinds) -> Vec<u8> {
    Writer::new(VERSION).number(u64::from(kinds.0)).finish()
}

/// The row of a value.
pub fn decode(value: &[u8]) -> Read<Kinds> {
    let mut reader = Reader::new(value, VERSION)?;
    let kinds = Kinds(reader.small()?);
    reader.end()?;
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back() {
        for bits in 0..=u16::MAX {
            assert_eq!(decode(&encode(Kinds(bits))), Ok(Kinds(bits)));
        }
    }
}
