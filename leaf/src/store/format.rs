//! Format row. Family `meta`, key: 16. Value: the incarnation, a unique id assigned when the replica was created; the
//! level of the ingest rules; the cluster, the collection and the shard that the store belongs to.
//!
//! It is read before any other row. So its version stands for the whole store: it is raised when an older release must
//! not touch the store at all.

use proto::{
    catalog::CollectionUid,
    ingest::{INGEST_RULES_LEVEL, ShardId},
};
use uuid::Uuid;

use crate::codec::{DecodeResult, NewerVersion, ValueReader, ValueWriter, decode_error};

const VERSION: u8 = 2;
/// Stores of older versions were written before the first release.
const OLDEST_VERSION: u8 = 2;

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// A unique id, assigned when the replica was created.
    pub incarnation: u128,
    /// The level of the rules by which its events were accepted or refused.
    pub level: u16,
    /// The cluster; none while a leaf is not told its cluster.
    pub cluster: Option<Uuid>,
    pub shard: ShardId,
}

impl Format {
    /// The format of a new store.
    pub(crate) fn new(shard: ShardId) -> Self {
        Self {
            incarnation: Uuid::now_v7().as_u128(),
            level: INGEST_RULES_LEVEL,
            cluster: None,
            shard,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        ValueWriter::new(VERSION)
            .rest(&self.incarnation.to_be_bytes())
            .number(u64::from(self.level))
            .bytes(self.cluster.as_ref().map_or(&[], |cluster| cluster.as_bytes()))
            .rest(self.shard.collection.0.as_bytes())
            .number(u64::from(self.shard.number))
            .finish()
    }

    pub(crate) fn decode(value: &[u8]) -> DecodeResult<Self> {
        let mut reader = ValueReader::new(value, "store", VERSION)?;
        if value[0] < OLDEST_VERSION {
            return decode_error(format!(
                "the store has version {}, but this release reads versions from {OLDEST_VERSION} on: ingest the data \
                 again, into another folder",
                value[0]
            ));
        }
        let incarnation = u128::from_be_bytes(reader.fixed()?);
        let level: u16 = reader.small()?;
        if level > INGEST_RULES_LEVEL {
            return Err(NewerVersion {
                thing: "set of ingest rules of the store",
                found: level.into(),
                supported: INGEST_RULES_LEVEL.into(),
            }
            .into());
        }
        let cluster = match reader.bytes()? {
            [] => None,
            bytes => match Uuid::from_slice(bytes) {
                Ok(cluster) => Some(cluster),
                Err(error) => return decode_error(format!("the cluster: {error}")),
            },
        };
        let collection = CollectionUid(Uuid::from_bytes(reader.fixed()?));
        let number = reader.small()?;
        Ok(Self {
            incarnation,
            level,
            cluster,
            shard: ShardId { collection, number },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_format_round_trips(
            incarnation: u128,
            level in 0..=INGEST_RULES_LEVEL,
            cluster: Option<u128>,
            shard: (u128, u32),
        ) {
            let shard = ShardId { collection: CollectionUid(Uuid::from_u128(shard.0)), number: shard.1 };
            let format = Format { incarnation, level, cluster: cluster.map(Uuid::from_u128), shard };
            prop_assert_eq!(Format::decode(&format.encode())?, format);
        }
    }

    #[test]
    fn a_store_of_an_older_or_newer_version_or_level_is_refused() {
        let shard = ShardId {
            collection: CollectionUid(Uuid::nil()),
            number: 3,
        };
        let format = Format::new(shard);
        let reason = |value: &[u8]| Format::decode(value).expect_err("it is refused").to_string();
        let with_version = |version: u8| [&[version], &format.encode()[1..]].concat();
        assert!(reason(&with_version(1)).contains("the store has version 1"));
        assert!(reason(&with_version(VERSION + 1)).contains("the store has version 3"));
        let level = INGEST_RULES_LEVEL + 1;
        let newer = Format { level, ..format }.encode();
        assert!(
            reason(&newer).contains("ingest rules of the store has version 2"),
            "{}",
            reason(&newer)
        );
    }
}
