//! Delete marker. Family `meta`, key: 19 address. Value: why the document at the address is deleted. The marker is
//! removed together with the document.

use crate::codec::{DecodeResult, ValueReader, ValueWriter, decode_error};

const VERSION: u8 = 1;

/// Why a document is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteMarker {
    /// A later document has the same key.
    Superseded,
    /// A tombstone with the same key, or a request.
    Deleted,
}

impl DeleteMarker {
    pub(crate) fn encode(self) -> Vec<u8> {
        ValueWriter::new(VERSION).byte(self as u8).finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "delete marker", VERSION)?;
        let why = match reader.byte()? {
            0 => Self::Superseded,
            1 => Self::Deleted,
            other => return decode_error(format!("unknown reason: {other}")),
        };
        Ok(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_marker_round_trips() {
        for why in [DeleteMarker::Superseded, DeleteMarker::Deleted] {
            assert_eq!(DeleteMarker::decode(&why.encode()), Ok(why));
        }
        assert!(DeleteMarker::decode(&[1, 9]).is_err());
    }
}
