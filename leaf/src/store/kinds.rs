//! Kinds row. Family `meta`, key: 22 partition, then the path as text. Value: the kinds of the values seen at the path.
//! The set of kinds never shrinks.
//!
//! A row with an empty path means that there were more paths than the limit allows to remember.

use plan::Kinds;

use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

pub(crate) fn encode(kinds: Kinds) -> Vec<u8> {
    ValueWriter::new(VERSION).number(u64::from(kinds.0)).finish()
}

pub(crate) fn decode(value: &[u8]) -> DecodeResult<Kinds> {
    let mut reader = ValueReader::new(value, "kinds row", VERSION)?;
    let kinds = Kinds(reader.small()?);
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip() {
        for bits in 0..=u16::MAX {
            assert_eq!(decode(&encode(Kinds(bits))), Ok(Kinds(bits)));
        }
    }
}
