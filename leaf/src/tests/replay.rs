//! Batches from a log: every record counts once, whether it is sent twice, late, out of order or by two senders.

use std::collections::{BTreeMap, BTreeSet};

use plan::scan::Scan as _;
use proptest::prelude::*;
use proto::{
    ingest::{Backpressure, Batch, BatchOutcome, Outcomes},
    record::{Format, Record, Rules},
};

use super::{
    made_up,
    support::{Fixture, all_documents, clicks, record, small, tail_only, texts},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_with_the_stored_position() {
    let fixture = Fixture::start(tail_only);
    let records = |from: i64, to: i64| {
        (from..=to)
            .map(|offset| record(offset, None, Some("{}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fixture.write(fixture.batch(0, 4, 6, records(5, 6))).await,
        BatchOutcome::Gap { stored: -1 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, -1, 9, records(0, 9))).await,
        BatchOutcome::Applied { stored: 9 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 2, 5, records(3, 5))).await,
        BatchOutcome::Already { stored: 9 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 5, 11, records(6, 11))).await,
        BatchOutcome::Applied { stored: 11 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 12, 13, records(13, 13))).await,
        BatchOutcome::Gap { stored: 11 }
    );
    assert_eq!(
        fixture.write(fixture.batch(0, 11, 20, vec![])).await,
        BatchOutcome::Applied { stored: 20 },
        "missing offsets within a range are not a gap"
    );
    assert_eq!(fixture.documents().await.len(), 12);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.events, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_for_another_shard_topic_or_log_are_refused_with_a_reason() {
    let fixture = Fixture::start(tail_only);
    let reason_of = |outcome| match outcome {
        BatchOutcome::Refused { reason } => reason,
        other => panic!("{other:?}"),
    };
    let good = fixture.batch(0, -1, 0, vec![record(0, None, Some("1"))]);
    fixture.write(good.clone()).await;
    let other_topic = Batch {
        topic: "topic-2".into(),
        ..fixture.batch(0, 0, 1, vec![record(1, None, Some("1"))])
    };
    assert!(reason_of(fixture.write(other_topic).await).contains("topic-1"));
    let truncated = fixture.batch(0, -1, 1, vec![record(0, None, Some("2")), record(1, None, Some("1"))]);
    assert!(reason_of(fixture.write(truncated).await).contains("different record"));
    let resumed = fixture.batch(0, -1, 1, vec![record(0, None, Some("1")), record(1, None, Some("1"))]);
    assert_eq!(fixture.write(resumed).await, BatchOutcome::Applied { stored: 1 });
    assert!(
        reason_of(
            fixture
                .write(Batch {
                    level: 7,
                    ..good.clone()
                })
                .await
        )
        .contains("level 7")
    );
    let elsewhere = proto::ingest::ShardId {
        number: 3,
        ..fixture.shard
    };
    assert!(
        reason_of(
            fixture
                .write(Batch {
                    shard: elsewhere,
                    ..good.clone()
                })
                .await
        )
        .contains("belongs to shard 0")
    );
    let rules = Rules {
        key: Some("a..b".to_owned().into()),
        ..Rules::default()
    };
    assert!(
        reason_of(
            fixture
                .write(Batch {
                    rules,
                    ..fixture.batch(0, 1, 2, vec![])
                })
                .await
        )
        .contains("a..b")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tail_answers_busy_and_loses_nothing() {
    let fixture = Fixture::start(|options| {
        tail_only(options);
        options.tail_documents_max = 10;
    });
    let records = |from: i64, to: i64| {
        (from..=to)
            .map(|offset| record(offset, None, Some("{}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fixture.write(fixture.batch(0, -1, 14, records(0, 14))).await,
        BatchOutcome::Applied { stored: 14 },
        "an empty tail accepts any batch"
    );
    assert!(matches!(
        fixture.write(fixture.batch(0, 14, 15, records(15, 15))).await,
        BatchOutcome::Busy(Backpressure { passes: true, .. })
    ));
    assert_eq!(fixture.documents().await.len(), 15);
    assert_eq!(fixture.outcomes(&clicks(), 0).await.events, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_json_stops_at_the_same_record_for_any_batch_size() {
    let mut stops = BTreeSet::new();
    for step in [1, 7, 400, 5_000] {
        let fixture = Fixture::start(tail_only);
        let records: Vec<Record> = (0..1_200)
            .map(|offset| record(offset, None, Some(if offset % 3 == 0 { "{}" } else { "nonsense" })))
            .collect();
        let mut after = -1;
        let reason = loop {
            let slice: Vec<Record> = records
                .iter()
                .filter(|r| r.offset > after && r.offset <= after + step)
                .cloned()
                .collect();
            let through = slice.last().expect("it stops before the end").offset;
            match fixture.write(fixture.batch(0, after, through, slice)).await {
                BatchOutcome::Applied { stored } => after = stored,
                BatchOutcome::Refused { reason } => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert!(reason.contains("dead_letters"), "{reason}");
        let outcomes = fixture.outcomes(&clicks(), 0).await;
        let stored = proto::ingest::Ingest::stored(&*fixture.leaf, fixture.shard, &clicks(), 0)
            .await
            .expect("stored");
        assert!(stored.stopped_by_dead_letters);
        stops.insert((stored.offset, outcomes.events, outcomes.dead_letters));
        let more = fixture.batch(
            0,
            stored.offset,
            stored.offset + 1,
            vec![record(stored.offset + 1, None, Some("{}"))],
        );
        assert!(matches!(fixture.write(more).await, BatchOutcome::Refused { .. }));
    }
    assert_eq!(stops.into_iter().collect::<Vec<_>>(), [(751, 752, 501)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_source_accepts_every_nonempty_record() {
    let fixture = Fixture::start(tail_only);
    let rules = Rules {
        format: Format::Text,
        key: None,
    };
    let records = vec![
        record(0, None, Some("plain text")),
        record(1, None, Some("{\"a\":1}")),
        record(2, None, Some("")),
    ];
    fixture
        .write(Batch {
            rules,
            ..fixture.batch(0, -1, 2, records)
        })
        .await;
    let view = fixture.view().await;
    assert!(all_documents(&view).iter().all(|document| !document.header.json));
    assert!(view.paths.paths.is_empty());
    let outcomes = fixture.outcomes(&clicks(), 0).await;
    assert_eq!((outcomes.accepted, outcomes.dead_letters), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_replace_and_tombstones_delete_within_a_partition() {
    let fixture = Fixture::start(tail_only);
    let records = vec![
        record(0, Some("a"), Some("1")),
        record(1, Some("b"), Some("2")),
        record(2, Some("a"), Some("3")),
        record(3, Some("b"), None),
        record(4, Some("nobody"), None),
        record(5, None, None),
        record(6, None, Some("4")),
    ];
    fixture.write(fixture.batch(0, -1, 6, records)).await;
    fixture
        .write(fixture.batch(1, -1, 0, vec![record(0, Some("a"), Some("5"))]))
        .await;
    let expected = [("clicks/0@2", "3"), ("clicks/0@6", "4"), ("clicks/1@0", "5")];
    assert_eq!(
        fixture.documents().await,
        expected.map(|(a, t)| (a.to_owned(), t.to_owned())).into()
    );
    let outcomes = fixture.outcomes(&clicks(), 0).await;
    let expected = Outcomes {
        events: 7,
        accepted: 4,
        tombstones: 3,
        superseded: 1,
        deleted: 1,
        documents: 2,
        bytes: 4,
        ..Outcomes::default()
    };
    assert_eq!(outcomes, expected);
    let partitions = proto::ingest::Ingest::partitions(&*fixture.leaf, fixture.shard.collection)
        .await
        .expect("partitions");
    assert!(
        partitions.iter().all(|partition| partition.keys_elsewhere == 1),
        "a key that occurs in two partitions is counted in both"
    );
    let by_id = async |id: &str| {
        fixture
            .leaf
            .document(fixture.shard, id, &Default::default())
            .await
            .expect("an answer")
            .document
            .map(|d| d.address.to_string())
    };
    assert!(by_id("a").await.is_some());
    assert_eq!(by_id("b").await, None);
    assert_eq!(by_id("clicks/0@6").await.as_deref(), Some("clicks/0@6"));
    assert_eq!(by_id("clicks/0@2").await, None, "its id is its key");
    assert_eq!(by_id("clicks/0@0").await, None);
}

/// The expected documents and counters of one partition, computed from its records alone.
pub(super) fn model(records: &[Record]) -> (BTreeMap<String, String>, Outcomes) {
    let mut outcomes = Outcomes::default();
    let mut documents: BTreeMap<String, String> = BTreeMap::new();
    let mut by_key: BTreeMap<String, String> = BTreeMap::new();
    for record in records {
        outcomes.events += 1;
        let key = record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
        let address = format!("clicks/0@{}", record.offset);
        let text = match &record.value {
            proto::record::RecordValue::One(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => {
                outcomes.tombstones += 1;
                if let Some(old) = key.and_then(|key| by_key.remove(&key)) {
                    outcomes.deleted += 1;
                    documents.remove(&old);
                }
                continue;
            }
        };
        if text == "bad" {
            outcomes.dead_letters += 1;
            continue;
        }
        outcomes.accepted += 1;
        outcomes.bytes += text.len() as u64;
        if let Some(old) = key.and_then(|key| by_key.insert(key, address.clone())) {
            outcomes.superseded += 1;
            documents.remove(&old);
        }
        documents.insert(address, text);
    }
    outcomes.documents = documents.len() as u64;
    (documents, outcomes)
}

pub(super) fn streams() -> impl Strategy<Value = Vec<Record>> {
    let event = (
        1i64..4,
        proptest::option::of("[a-e]"),
        prop_oneof![3 => "[0-9]{1,3}".prop_map(Some), 1 => Just(None), 1 => Just(Some("bad".to_owned()))],
    );
    proptest::collection::vec(event, 1..60).prop_map(|events| {
        let mut offset = -1;
        let place = |(gap, key, value): (i64, Option<String>, Option<String>)| {
            offset += gap;
            record(
                offset,
                key.as_deref(),
                value.as_deref().map(|v| if v.starts_with('0') { "7" } else { v }),
            )
        };
        events.into_iter().map(place).collect()
    })
}

proptest! {
    #![proptest_config(made_up::cases(10))]

    #[test]
    fn any_batching_and_replay_of_a_stream_produces_the_same_shard(
        records in streams(),
        cuts in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()),
            0..12,
        ),
        indexed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let fixture = Fixture::start(if indexed { small } else { tail_only });
            let end = records.last().expect("records").offset;
            let slice = |after: i64, through: i64| -> Vec<Record> {
                records.iter().filter(|record| record.offset > after && record.offset <= through).cloned().collect()
            };
            let mut stored = -1;
            for (from, to, restart) in cuts {
                let after = from.index(usize::try_from(end + 2).expect("small")) as i64 - 1;
                let through = (after + to.index(20) as i64).min(end);
                let outcome = fixture.write(fixture.batch(0, after, through, slice(after, through))).await;
                let expected = match (after, through) {
                    (_, through) if through <= stored => BatchOutcome::Already { stored },
                    (after, _) if after > stored => BatchOutcome::Gap { stored },
                    (_, through) => { stored = through; BatchOutcome::Applied { stored } }
                };
                assert_eq!(outcome, expected);
                if restart {
                    let seen = records.iter().filter(|record| record.offset <= stored).cloned().collect::<Vec<_>>();
                    assert_eq!(fixture.documents().await, model(&seen).0, "through {stored}");
                }
            }
            fixture.write(fixture.batch(0, stored, end, slice(stored, end))).await;
            let (documents, outcomes) = model(&records);
            assert_eq!(fixture.documents().await, documents);
            assert_eq!(fixture.outcomes(&clicks(), 0).await, outcomes);
            let crashed = fixture.crashed();
            assert_eq!(crashed.documents().await, documents, "after a crash");
            assert_eq!(crashed.outcomes(&clicks(), 0).await, outcomes);
            let fixture = fixture.restart().await;
            assert_eq!(texts(&all_documents(&fixture.view().await)), documents, "after a restart");
        });
    }
}
