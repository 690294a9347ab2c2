//! Format row. Family `meta`, key: 16. Value: the incarnation, a unique id assigned when the replica was created. A
//! store whose format row has another version is rejected.

use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// Encodes an incarnation.
pub(crate) fn encode(incarnation: u128) -> Vec<u8> {
    ValueWriter::new(VERSION).rest(&incarnation.to_be_bytes()).finish()
}

/// Decodes an incarnation.
pub(crate) fn decode(value: &[u8]) -> DecodeResult<u128> {
    let mut reader = ValueReader::new(value, VERSION)?;
    let incarnation = u128::from_be_bytes(reader.fixed()?);
    reader.end()?;
    Ok(incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_round_trips_and_another_version_is_rejected() {
        assert_eq!(decode(&encode(u128::MAX - 3)), Ok(u128::MAX - 3));
        assert!(decode(&[2, 0]).is_err_and(|e| e.to_string().contains("version is 2")));
    }
}
