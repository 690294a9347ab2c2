//! Loss row. Family `meta`, key: 24 partition, first offset. Value: the last offset, when the loss was noticed, and a
//! human-readable reason.

use proto::ingest::Loss;

use super::key::{KeyReader, Partition, RowKey, RowKind};
use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

pub(crate) fn key(loss: &Loss) -> Vec<u8> {
    let partition = Partition {
        source: loss.source.clone(),
        number: loss.partition,
    };
    RowKey::new(RowKind::Loss)
        .partition(&partition)
        .signed(loss.from)
        .bytes()
}

pub(crate) fn encode(loss: &Loss) -> Vec<u8> {
    ValueWriter::new(VERSION)
        .signed(loss.through)
        .signed(loss.noticed_ms)
        .bytes(loss.reason.as_bytes())
        .finish()
}

pub(crate) fn decode(key: &[u8], value: &[u8]) -> DecodeResult<Loss> {
    let mut key = KeyReader::new(key, RowKind::Loss)?;
    let (partition, from) = (key.partition()?, key.signed()?);
    let mut reader = ValueReader::new(value, "loss", VERSION)?;
    let loss = Loss {
        source: partition.source,
        partition: partition.number,
        from,
        through: reader.signed()?,
        noticed_ms: reader.signed()?,
        reason: reader.text()?.to_owned(),
    };
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_loss_round_trips(partition: i32, from: i64, through: i64, noticed_ms: i64, reason: String) {
            let loss = Loss { source: "clicks".parse().expect("a name"), partition, from, through, noticed_ms, reason };
            prop_assert_eq!(decode(&key(&loss), &encode(&loss))?, loss);
        }
    }
}
