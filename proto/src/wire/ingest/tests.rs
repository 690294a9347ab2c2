//! Tests of `ingest`.

use proptest::prelude::*;

use super::*;

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
            rules: Rules { format: Format::Text, key: key.map(Into::into) },
            records,
        };
        let bytes = wire::Batch::from(batch.clone()).encode_to_vec();
        let back = Batch::try_from(wire::Batch::decode(&bytes[..]).expect("it decodes")).expect("it reads");
        prop_assert_eq!(format!("{back:?}"), format!("{batch:?}"));
    }
}
