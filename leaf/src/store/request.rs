//! Request row. Family `meta`, key: 20 partition, request key. Value: hash of the body, time, and the response.
//!
//! The age row (key: 21 partition, time, request key; empty value) finds expired requests without a full scan.

use proto::ingest::PushResult;

use crate::codec::{DecodeError, DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// A push that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestRow {
    /// The hash of its body.
    pub body: u128,
    /// The timestamp of its record, milliseconds since 1970.
    pub time_ms: i64,
    /// The response that was sent.
    pub answer: PushResult,
}

impl RequestRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let answer = serde_json::to_vec(&self.answer).expect("a push result can always be written as JSON");
        ValueWriter::new(VERSION)
            .rest(&self.body.to_be_bytes())
            .signed(self.time_ms)
            .bytes(&answer)
            .finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "request", VERSION)?;
        let (body, time_ms) = (u128::from_be_bytes(reader.fixed()?), reader.signed()?);
        let answer = serde_json::from_slice(reader.bytes()?).map_err(|e| DecodeError::Malformed(e.to_string()))?;
        Ok(Self { body, time_ms, answer })
    }
}

/// The value of an age row.
pub(crate) fn age() -> Vec<u8> {
    ValueWriter::new(VERSION).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::{Position, SourceName, ingest::ItemError};

    use super::*;

    proptest! {
        #[test]
        fn a_request_row_round_trips(
            body: u128,
            time_ms: i64,
            counts: (u64, u64),
            offset in 0i64..,
            errors in proptest::collection::vec(any::<(u64, String, String)>(), 0..3),
        ) {
            let errors = errors.into_iter().map(|(index, code, detail)| ItemError { index, code, detail }).collect();
            let position = Position { source: SourceName::push(), partition: 3, offset };
            let answer = PushResult { accepted: counts.0, rejected: counts.1, errors, position, repeated: false };
            let row = RequestRow { body, time_ms, answer };
            prop_assert_eq!(RequestRow::decode(&row.encode())?, row);
        }
    }
}
