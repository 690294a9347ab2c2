//! Format row. Family `meta`, key: 16. Value: the incarnation, drawn when the replica was made. A store of another
//! version is refused.

use super::codec::{Read, Reader, Writer};

const VERSION: u8 = 1;

/// The value of the row.
pub fn encode(incarnation: u128) -> Vec<u8> {
    Writer::new(VERSION).rest(&incarnation.to_be_bytes()).finish()
}

/// The incarnation of a row.
pub fn decode(value: &[u8]) -> Read<u128> {
    let mut reader = Reader::new(value, VERSION)?;
    let incarnation = u128::from_be_bytes(reader.fixed()?);
    reader.end()?;
    Ok(incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_reads_back_and_another_version_is_refused() {
        assert_eq!(decode(&encode(u128::MAX - 3)), Ok(u128::MAX - 3));
        assert!(decode(&[2, 0]).is_err_and(|e| e.to_string().contains("version 2")));
    }
}
