//! Request row. Family `meta`, key: 20 partition, then the request's key. Value: the body's hash, the time, and the
//! answer that was given.
//!
//! Its age row (key: 21 partition, time, request's key; empty value) lets old ones be found without a pass over all.

use proto::ingest::Pushed;

use super::codec::{Read, Reader, Unreadable, Writer};

const VERSION: u8 = 1;

/// A push that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// The hash of its body.
    pub body: u128,
    /// When it came, milliseconds since 1970, by the record's time.
    pub time_ms: i64,
    /// The answer that was given.
    pub answer: Pushed,
}

impl RequestRow {
    /// The value of the row.
    pub fn encode(&self) -> Vec<u8> {
        let answer = serde_json::to_vec(&self.answer).expect("an answer holds nothing that JSON cannot");
        Writer::new(VERSION)
            .rest(&self.body.to_be_bytes())
            .signed(self.time_ms)
            .rest(&answer)
            .finish()
    }

    /// The row of a value.
    pub fn decode(value: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(value, VERSION)?;
        let (body, time_ms) = (u128::from_be_bytes(reader.fixed()?), reader.signed()?);
        let answer = serde_json::from_slice(reader.rest()).map_err(|e| Unreadable(e.to_string()))?;
        Ok(Self { body, time_ms, answer })
    }
}

/// The value of an age row.
pub fn age() -> Vec<u8> {
    Writer::new(VERSION).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::{Position, SourceName, ingest::ItemError};

    use super::*;

    proptest! {
        #[test]
        fn a_request_reads_back(body: u128, time_ms: i64, counts: (u64, u64), offset in 0i64.., errors in proptest::collection::vec(any::<(u64, String, String)>(), 0..3)) {
            let errors = errors.into_iter().map(|(index, code, detail)| ItemError { index, code, detail }).collect();
            let position = Position { source: SourceName::push(), partition: 3, offset };
            let row = RequestRow { body, time_ms, answer: Pushed { accepted: counts.0, rejected: counts.1, errors, position, repeated: false } };
            prop_assert_eq!(RequestRow::decode(&row.encode())?, row);
        }
    }
}
