//! Tests of `batch_check`.

use proto::{
    ingest::{INGEST_RULES_LEVEL, ShardId},
    record::{Record, RecordValue, Rules},
};

use super::*;

fn record(offset: i64, text: &'static str) -> Record {
    Record {
        offset,
        value: RecordValue::One(text.into()),
        ..Record::default()
    }
}

fn batch(after: i64, through: i64) -> Batch {
    Batch {
        shard: ShardId {
            collection: proto::CollectionUid(uuid::Uuid::nil()),
            number: 0,
        },
        source: "clicks".parse().expect("a name"),
        topic: "t".into(),
        partition: 0,
        after,
        through,
        level: INGEST_RULES_LEVEL,
        runs: 0,
        rules: Rules::default(),
        records: (after + 1..=through).map(|offset| record(offset, "{}")).collect(),
    }
}

fn stored(offset: i64) -> PartitionRow {
    PartitionRow {
        topic: Some("t".into()),
        offset,
        last_offset: offset,
        hash: record(offset, "{}").hash(),
        ..PartitionRow::default()
    }
}

fn refusal(batch: &Batch, row: &PartitionRow) -> String {
    match check(batch, row) {
        BatchCheck::Refused(reason) => reason,
        other => panic!("{other:?} is not a refusal"),
    }
}

#[test]
fn the_position_decides_what_is_new() {
    assert_eq!(check(&batch(-1, 4), &PartitionRow::default()), BatchCheck::Take);
    assert_eq!(check(&batch(4, 9), &stored(4)), BatchCheck::Take);
    assert_eq!(check(&batch(2, 9), &stored(4)), BatchCheck::Take);
    assert_eq!(check(&batch(2, 4), &stored(4)), BatchCheck::Already);
    assert_eq!(check(&batch(-1, 2), &stored(4)), BatchCheck::Already);
    assert_eq!(check(&batch(5, 9), &stored(4)), BatchCheck::Gap);
}

#[test]
fn another_record_at_the_stored_position_is_rejected() {
    let mut other = batch(3, 9);
    other.records[0] = record(4, "{\"another\":1}");
    assert!(refusal(&other, &stored(4)).contains("clicks/0@4 holds a different record"));
    assert_eq!(
        check(&batch(3, 9), &stored(4)),
        BatchCheck::Take,
        "the same record proves the topic"
    );
    other.through = 4;
    other.records.truncate(1);
    assert!(
        refusal(&other, &stored(4)).contains("different record"),
        "even if nothing is new"
    );
}

#[test]
fn an_invalid_batch_is_rejected_with_a_reason() {
    let row = stored(4);
    let other_topic = Batch {
        topic: "u".into(),
        ..batch(4, 9)
    };
    assert!(refusal(&other_topic, &row).contains("was read from topic t"));
    let other_level = Batch {
        level: 99,
        ..batch(4, 9)
    };
    assert!(refusal(&other_level, &row).contains("level 99"));
    let descending = Batch {
        records: vec![record(6, ""), record(5, "")],
        ..batch(4, 9)
    };
    assert!(refusal(&descending, &row).contains("ascending"));
    let outside = Batch {
        records: vec![record(10, "")],
        ..batch(4, 9)
    };
    assert!(refusal(&outside, &row).contains("within"));
    let stopped = PartitionRow {
        stopped_by_dead_letters: true,
        ..row
    };
    assert!(refusal(&batch(4, 9), &stopped).contains("dead_letters"));
}

#[test]
fn other_rules_than_those_of_the_stored_records_are_refused() {
    let row = PartitionRow {
        rules_hash: Rules::default().hash(),
        ..stored(4)
    };
    assert_eq!(check(&batch(4, 9), &row), BatchCheck::Take);
    let rules = Rules {
        format: proto::record::Format::Text,
        key: None,
    };
    let other = Batch { rules, ..batch(4, 9) };
    assert!(refusal(&other, &row).contains("another format or key"));
}
