//! Tests of `ingest`.

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    ingest::{BatchOutcome, Heat, Outcomes, PartitionStatus, StoredPosition},
    node::QueryId,
    problem::Code,
    tailer::LogHealth,
};

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let value = prop_oneof![
        Just(RecordValue::Null),
        bytes().prop_map(RecordValue::One),
        proptest::collection::vec(bytes(), 0..4).prop_map(RecordValue::Many)
    ];
    let request = proptest::option::of(("[a-z]{1,9}", any::<u128>()).prop_map(|(key, body)| RequestKey { key, body }));
    let headers = proptest::collection::vec(("[a-z]{0,5}", proptest::option::of(bytes())), 0..3);
    (
        any::<i64>(),
        proptest::option::of(bytes()),
        value,
        any::<i64>(),
        0..3,
        headers,
        request,
        any::<Option<i64>>(),
    )
        .prop_map(|(offset, key, value, time_ms, kind, headers, request, ingested_ms)| {
            let time_kind = [TimeKind::None, TimeKind::Create, TimeKind::Append][kind as usize];
            Record {
                offset,
                key,
                value,
                time_ms,
                time_kind,
                headers,
                request,
                ingested_ms,
            }
        })
}

proptest! {
    #[test]
    fn a_batch_round_trips(
        records in proptest::collection::vec(record(), 0..5),
        number in any::<u32>(),
        key in proptest::option::of("[a-z.]{1,8}"),
    ) {
        use prost::Message as _;
        let batch = Batch {
            shard: ShardId { collection: CollectionUid(uuid::Uuid::from_u128(9)), number },
            source: "clicks".parse().expect("a name"),
            topic: "t".into(),
            partition: 3,
            after: -1,
            through: 9,
            level: 1,
            runs: 3,
            rules: Rules { format: Format::Text, key: key.map(Into::into) },
            records,
        };
        let bytes = wire::Batch::from(batch.clone()).encode_to_vec();
        let back = Batch::try_from(wire::Batch::decode(&bytes[..]).expect("it decodes")).expect("it reads");
        prop_assert_eq!(format!("{back:?}"), format!("{batch:?}"));
    }
}

#[test]
fn values_of_control_messages_round_trip_as_json() {
    fn assert_round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        let message = wire::Json::of(value).expect("JSON");
        assert_eq!(message.decode::<T>().as_ref(), Ok(value));
    }
    let position: Position = "clicks/3@-1".parse().expect("a position");
    let shard = ShardId {
        collection: CollectionUid(uuid::Uuid::from_u128(u128::MAX - 1)),
        number: 7,
    };
    assert_round_trips(&QueryId(u128::MAX));
    let key = RequestKey {
        key: "k\u{0}".into(),
        body: u128::MAX - 1,
    };
    assert_round_trips(&(shard, 3_i32, i64::MIN, key, u64::MAX));
    assert_round_trips(&(shard, None::<SourceName>));
    assert_round_trips(&BatchOutcome::Gap { stored: i64::MIN });
    assert_round_trips(&BatchOutcome::Refused { reason: "why".into() });
    assert_round_trips(&StoredPosition {
        awaits_copy: false,
        topic: None,
        offset: -1,
        last: Some(i64::MAX),
        hash: u64::MAX,
        stopped_by_dead_letters: true,
        first: Some(7),
        serving: true,
    });
    assert_round_trips(&LogHealth {
        cluster: Some(uuid::Uuid::from_u128(7)),
        ..LogHealth::default()
    });
    assert_round_trips(&vec![PartitionStatus {
        shard,
        position,
        outcomes: Outcomes {
            events: u64::MAX,
            ..Outcomes::default()
        },
        last_record_ms: None,
        last_ingested_ms: Some(1),
        keys_elsewhere: 2,
        heat: Heat {
            events_per_minute: 4,
            bytes_per_minute: u64::MAX,
        },
        erased_through: Some(3),
    }]);
    let bad = wire::Json::of(&"clicks/0").expect("JSON").decode::<Position>();
    assert_eq!(bad.map_err(|problem| problem.code), Err(Code::BadRequest));
}
