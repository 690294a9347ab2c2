//! Gone row. Family `meta`, key: 19 address. Value: why. The document there was replaced or deleted; removed together
//! with the document.

use super::codec::{Read, Reader, Writer, unreadable};

const VERSION: u8 = 1;

/// Why a document is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// A later document of the same key.
    Superseded,
    /// A null value of the same key, or a request.
    Deleted,
}

impl Gone {
    /// The value of the row.
    pub fn encode(self) -> Vec<u8> {
        Writer::new(VERSION).byte(self as u8).finish()
    }

    /// The row of a value.
    pub fn decode(value: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(value, VERSION)?;
        let why = match reader.byte()? {
            0 => Self::Superseded,
            1 => Self::Deleted,
            other => return unreadable(format!("{other} is no reason")),
        };
        reader.end()?;
        Ok(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_back() {
        for why in [Gone::Superseded, Gone::Deleted] {
            assert_eq!(Gone::decode(&why.encode()), Ok(why));
        }
        assert!(Gone::decode(&[1, 9]).is_err());
    }
}
