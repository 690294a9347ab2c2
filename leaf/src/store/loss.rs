//! Loss row. Family `meta`, key: 24 partition, first offset. Value: the last offset, when it was noticed, and why, for
//! a person.

use proto::ingest::Loss;

use super::{
    codec::{Read, Reader, Writer},
    key::{KeyReader, Kind, Partition, RowKey},
};

const VERSION: u8 = 1;

/// The key of the row.
pub fn key(loss: &Loss) -> Vec<u8> {
    let partition = Partition {
        source: loss.source.clone(),
        number: loss.partition,
    };
    RowKey::new(Kind::Loss).partition(&partition).signed(loss.from).bytes()
}

/// The value of the row.
pub fn encode(loss: &Loss) -> Vec<u8> {
    Writer::new(VERSION)
        .signed(loss.through)
        .signed(loss.noticed_ms)
        .bytes(loss.reason.as_bytes())
        .finish()
}

/// The row of a key and a value.
pub fn decode(key: &[u8], value: &[u8]) -> Read<Loss> {
    let mut key = KeyReader::new(key, Kind::Loss)?;
    let (partition, from) = (key.partition()?, key.signed()?);
    let mut reader = Reader::new(value, VERSION)?;
    let loss = Loss {
        source: partition.source,
        partition: partition.number,
        from,
        through: reader.signed()?,
        noticed_ms: reader.signed()?,
        reason: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_loss_reads_back(partition: i32, from: i64, through: i64, noticed_ms: i64, reason: String) {
            let loss = Loss { source: "clicks".parse().expect("a name"), partition, from, through, noticed_ms, reason };
            prop_assert_eq!(decode(&key(&loss), &encode(&loss))?, loss);
        }
    }
}
