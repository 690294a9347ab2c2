//! A topic of a real Kafka is ingested byte for byte, through transactions, lost ranges, recreated topics and killed
//! brokers.
//!
//! The tailer runs in this process, against a model of the leaf that stores the records it receives, so the tests
//! compare exactly what the tailer read from Kafka.

#[path = "../../tailer/tests/model/leaf.rs"]
mod leaf;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::ensure;
use leaf::{Chaos, LeafModel};
use proto::{
    SourceName,
    catalog::{Change, CollectionSettings, Skip, Skips, SourceSettings, Start},
    record::{Record, RecordValue, Rules, TimeKind},
    tailer::Changes as _,
};
use tailer::{FileChanges, Tailer, TailerOptions};
use tests::{Kafka, eventually, kafka::NewRecord};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_ingested_byte_for_byte() {
    let kafka = Kafka::start().await;
    kafka.create_topic("plain", 2, &[]).await;
    kafka
        .create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let node = TailerNode::new(&kafka, "one");
    node.source("plain").await;
    node.source("stamped").await;
    let records = sample_records();
    kafka.produce("plain", records.clone()).await;
    kafka
        .produce(
            "stamped",
            vec![NewRecord {
                partition: Some(0),
                time_ms: Some(1),
                ..NewRecord::value("{}")
            }],
        )
        .await;
    node.has("plain", 6).await;
    let ingested = node.leaf.ingested("plain", 0).records;
    for (produced, stored) in records.iter().zip(&ingested) {
        assert_unchanged(produced, stored);
    }
    assert_eq!(ingested[0].time_ms, 1_234);
    node.has("stamped", 1).await;
    let stamped = &node.leaf.ingested("stamped", 0).records[0];
    assert!(
        stamped.time_kind == TimeKind::Append && stamped.time_ms > 1_700_000_000_000,
        "{stamped:?}"
    );
    node.tailer.shutdown().await;
}

/// Records with odd headers, keys, values and sizes, six in all.
fn sample_records() -> Vec<NewRecord> {
    vec![
        NewRecord {
            headers: vec![
                ("a".into(), Some(b"1".to_vec())),
                ("a".into(), None),
                ("".into(), Some(vec![0, 255])),
            ],
            time_ms: Some(1_234),
            ..keyed("k", Some("{}"))
        },
        keyed("k", None),
        keyed("", Some("")),
        NewRecord {
            partition: Some(0),
            value: Some(vec![0, 159, 146, 150]),
            ..NewRecord::default()
        },
        NewRecord {
            partition: Some(0),
            ..NewRecord::default()
        },
        NewRecord {
            partition: Some(0),
            value: Some(vec![b'x'; 9_000_000]),
            ..NewRecord::default()
        },
    ]
}

fn assert_unchanged(produced: &NewRecord, stored: &Record) {
    let value = produced
        .value
        .clone()
        .map_or(RecordValue::Null, |value| RecordValue::One(value.into()));
    let headers: Vec<_> = produced
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().map(Into::into)))
        .collect();
    assert_eq!(
        (stored.key.as_deref(), &stored.value, &stored.headers),
        (produced.key.as_deref(), &value, &headers)
    );
    assert_eq!(stored.time_kind, TimeKind::Create);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_skipped_and_a_source_still_catches_up() {
    let (kafka, node) = start_with_topic(1, "one").await;
    let mut expected = Vec::new();
    for round in 0..6 {
        let values: Vec<String> = (0..10).map(|i| format!("{{\"round\":{round},\"i\":{i}}}")).collect();
        kafka
            .produce_in_transaction("t", 0, values.clone(), round % 2 == 0)
            .await;
        if round % 2 == 0 {
            expected.extend(values);
        }
    }
    node.has("t", expected.len()).await;
    let came: Vec<String> = node.leaf.ingested("t", 0).records.iter().map(text).collect();
    assert_eq!(came, expected);
    node.state("t", "caught_up", "").await;
    assert_eq!(
        node.tailer.rows()[0].lag,
        Some(0),
        "the last offsets contain no records"
    );
    node.tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_range_stops_its_partition_until_it_is_skipped() {
    let (kafka, node) = start_with_topic(2, "one").await;
    node.produce(&kafka, "t", 0, 0..20).await;
    node.has("t", 20).await;
    node.suspend("t", true).await;
    node.produce(&kafka, "t", 0, 20..100).await;
    node.produce(&kafka, "t", 1, 0..30).await;
    kafka.delete_records_before("t", 0, 50).await;
    kafka.delete_records_before("t", 1, 10).await;
    node.suspend("t", false).await;
    // Nothing of partition 1 had been ingested, so its deleted records are not a loss. Partition 0 stops at the gap.
    node.state("t", "stopped", "t/0@20 through t/0@49 no longer exist")
        .await;
    node.has("t", 40).await;
    assert_eq!(node.leaf.ingested("t", 1).records[0].offset, 10);
    node.change(Change::SkipSource {
        name: name("t"),
        skips: Skips(BTreeMap::from([(0, vec![Skip::new(20, 50)])])),
    })
    .await;
    node.has("t", 90).await;
    let offsets: Vec<i64> = node.leaf.ingested("t", 0).records.iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (0..20).chain(50..100).collect::<Vec<_>>());
    node.tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_detected_and_not_ingested() {
    let kafka = Kafka::start().await;
    for (topic, records, suspended) in [("shorter", 5, true), ("longer", 200, true), ("live", 5, false)] {
        kafka.create_topic(topic, 1, &[]).await;
        let node = TailerNode::new(&kafka, topic);
        node.source(topic).await;
        node.produce(&kafka, topic, 0, 0..100).await;
        node.has(topic, 100).await;
        node.suspend(topic, suspended).await;
        kafka.delete_topic(topic).await;
        eventually("the topic is deleted", || async {
            ensure!(!kafka.topics()?.contains(&topic.to_owned()), "still there");
            Ok(())
        })
        .await;
        kafka.create_topic(topic, 1, &[]).await;
        node.produce(&kafka, topic, 0, 1_000..1_000 + records).await;
        node.suspend(topic, false).await;
        node.state(topic, "stopped", "recreated").await;
        assert_eq!(node.leaf.count(topic), 100);
        node.tailer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_and_a_paused_broker_lose_and_duplicate_nothing() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("t", 3, &[]).await;
    let node = TailerNode::with(
        &kafka,
        "one",
        LeafModel::new(
            tests::seed(),
            Chaos {
                busy: 5,
                unreachable: 5,
                applied_but_unanswered: 5,
                loses_newest: 1,
            },
        ),
    );
    node.source("t").await;
    for round in 0..4_usize {
        for partition in 0..3 {
            node.produce(&kafka, "t", partition, round * 500..(round + 1) * 500)
                .await;
        }
        match round {
            0 => node.has("t", 1_500).await,
            1 => {
                kafka.kill();
                node.state("t", "", "bootstrap.servers").await;
                kafka.restart().await;
            }
            2 => {
                kafka.pause();
                let _ = tokio::time::timeout(Duration::from_secs(2), std::future::pending::<()>()).await;
                kafka.resume();
            }
            _ => {}
        }
    }
    node.has("t", 6_000).await;
    node.state("t", "caught_up", "").await;
    for partition in 0..3 {
        assert_numbers(&node, partition, 2_000);
    }
    node.tailer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tailers_on_one_source_duplicate_nothing_and_a_successor_starts_at_once() {
    let (kafka, first) = start_with_topic(2, "same").await;
    first.produce(&kafka, "t", 0, 0..1_000).await;
    first.has("t", 1_000).await;
    // The first tailer is not shut down: as after a kill -9, the group still counts it as a member.
    let begun = std::time::Instant::now();
    let second = first.tailer("same");
    first.produce(&kafka, "t", 1, 0..1_000).await;
    first.has("t", 2_000).await;
    let third = first.tailer("another");
    first.produce(&kafka, "t", 0, 1_000..2_000).await;
    first.has("t", 3_000).await;
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    for (partition, count) in [(0, 2_000), (1, 1_000)] {
        assert_numbers(&first, partition, count);
    }
    // Tailers of the same name fence each other; the one that is left continues on its own.
    second.shutdown().await;
    third.shutdown().await;
    first.produce(&kafka, "t", 1, 1_000..1_100).await;
    first.has("t", 3_100).await;
    first.tailer.shutdown().await;
}

/// Asserts that a partition of topic `t` was ingested as the numbers below `count`, in order.
fn assert_numbers(node: &TailerNode, partition: i32, count: usize) {
    let ingested: Vec<String> = node.leaf.ingested("t", partition).records.iter().map(text).collect();
    let expected: Vec<String> = (0..count).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(ingested, expected, "partition {partition}");
}

/// Starts a broker with a topic `t`, and a tailer with a source for it.
async fn start_with_topic(partitions: i32, node: &str) -> (Kafka, TailerNode) {
    let kafka = Kafka::start().await;
    kafka.create_topic("t", partitions, &[]).await;
    let node = TailerNode::new(&kafka, node);
    node.source("t").await;
    (kafka, node)
}

/// A tailer with its own change log, and a leaf whose contents the test can inspect.
struct TailerNode {
    tailer: Arc<Tailer>,
    leaf: Arc<LeafModel>,
    changes: FileChanges,
    bootstrap: String,
    _folder: tempfile::TempDir,
}

impl TailerNode {
    fn new(kafka: &Kafka, node: &str) -> Self {
        Self::with(kafka, node, LeafModel::calm())
    }

    fn with(kafka: &Kafka, node: &str, leaf: Arc<LeafModel>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a change log");
        let tailer = start_tailer(&changes, &leaf, node);
        Self {
            tailer,
            leaf,
            changes,
            bootstrap: kafka.bootstrap(),
            _folder: folder,
        }
    }

    /// Starts another tailer on the same change log and leaf.
    fn tailer(&self, node: &str) -> Arc<Tailer> {
        start_tailer(&self.changes, &self.leaf, node)
    }

    async fn change(&self, change: Change) {
        self.changes.propose(change, None).await.expect("accepted");
    }

    async fn source(&self, topic: &str) {
        let collection: proto::CollectionName = "events".parse().expect("a name");
        self.change(Change::CreateCollection {
            name: collection.clone(),
            settings: CollectionSettings::default(),
            placement: Vec::new(),
        })
        .await;
        let config = BTreeMap::from([
            ("bootstrap.servers".to_owned(), self.bootstrap.clone()),
            ("fetch.message.max.bytes".to_owned(), "10000000".to_owned()),
        ]);
        let settings = SourceSettings {
            collection,
            topic: topic.into(),
            config,
            rules: Rules::default(),
            start: Start::Earliest,
            partitions: None,
            ends: Vec::new(),
        };
        self.change(Change::PutSource {
            name: name(topic),
            settings,
        })
        .await;
    }

    async fn suspend(&self, topic: &str, suspended: bool) {
        self.change(Change::SuspendSource {
            name: name(topic),
            suspended,
        })
        .await;
    }

    async fn produce(&self, kafka: &Kafka, topic: &str, partition: i32, numbers: std::ops::Range<usize>) {
        let record = |n| NewRecord {
            partition: Some(partition),
            ..NewRecord::value(format!("{{\"n\":{n}}}"))
        };
        kafka.produce(topic, numbers.map(record).collect()).await;
    }

    async fn has(&self, topic: &str, records: usize) {
        eventually(&format!("{topic} has {records} records"), || async {
            ensure!(
                self.leaf.count(topic) == records,
                "{}; {:?}",
                self.leaf.count(topic),
                self.tailer.rows()
            );
            Ok(())
        })
        .await;
    }

    /// Waits until a partition is in this state with an error that contains this text. An empty state stands for any
    /// state, an empty text for no error.
    async fn state(&self, topic: &str, state: &str, error: &str) {
        eventually(&format!("{topic} is {state} {error}"), || async {
            let rows = self.tailer.rows();
            let mut rows_of = rows.iter().filter(|row| row.source == name(topic));
            let matches = |row: &proto::status::TailStatus| {
                let text = row.error.as_deref().unwrap_or_default();
                (state.is_empty() || row.state.as_str() == state)
                    && if error.is_empty() {
                        text.is_empty()
                    } else {
                        text.contains(error)
                    }
            };
            ensure!(rows_of.any(matches), "{rows:?}");
            Ok(())
        })
        .await;
    }
}

fn start_tailer(changes: &FileChanges, leaf: &Arc<LeafModel>, node: &str) -> Arc<Tailer> {
    let options = TailerOptions {
        node: Some(node.into()),
        batch_records_max: 200,
        ..TailerOptions::default()
    };
    Tailer::start(options, leaf.clone(), Arc::new(changes.clone()))
}

fn name(text: &str) -> SourceName {
    text.parse().expect("a name")
}

fn keyed(key: &str, value: Option<&str>) -> NewRecord {
    NewRecord {
        partition: Some(0),
        ..NewRecord::keyed(key, value.map(|v| v.as_bytes().to_vec()))
    }
}

fn text(record: &Record) -> String {
    match &record.value {
        RecordValue::One(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}
