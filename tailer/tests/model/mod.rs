//! The fixture of the tests: a mock broker, a model of the leaf, and functions to drive both.

mod leaf;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

pub(crate) use leaf::{Chaos, IngestedRange, LeafModel};
use proto::{
    SourceName,
    catalog::{Change, CollectionSettings, SourceSettings, Start},
    record::Rules,
    tailer::Changes,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use tailer::{FileChanges, Tailer, TailerOptions};

/// A mock broker, a change log, and a model of the leaf. A test starts the tailer.
pub(crate) struct Fixture {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub changes: FileChanges,
    pub leaf: Arc<LeafModel>,
    producer: ThreadedProducer<DefaultProducerContext>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new(leaf: Arc<LeafModel>) -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .expect("a producer");
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a change log");
        Self {
            cluster,
            changes,
            leaf,
            producer,
            _folder: folder,
        }
    }

    /// A tailer with small batches, so that it sends many.
    pub(crate) fn tailer(&self) -> Arc<Tailer> {
        // The mock broker does not support static members: a restarted one would wait until its old session expires.
        let options = TailerOptions {
            node: None,
            batch_records_max: 50,
            window_bytes_max: 256 << 10,
            ..TailerOptions::default()
        };
        Tailer::start(options, self.leaf.clone(), Arc::new(self.changes.clone()))
    }

    pub(crate) fn settings(&self, topic: &str) -> SourceSettings {
        let config = BTreeMap::from([
            ("bootstrap.servers".to_owned(), self.cluster.bootstrap_servers()),
            ("topic.metadata.refresh.interval.ms".to_owned(), "200".to_owned()),
        ]);
        SourceSettings {
            collection: "events".parse().expect("a name"),
            topic: topic.into(),
            config,
            rules: Rules::default(),
            start: Start::Earliest,
            partitions: None,
            ends: Vec::new(),
        }
    }

    pub(crate) async fn source(&self, source: &str, settings: SourceSettings) {
        let shards = CollectionSettings {
            shards: 3,
            ..CollectionSettings::default()
        };
        self.change(Change::CreateCollection {
            name: settings.collection.clone(),
            settings: shards,
            placement: Vec::new(),
        })
        .await;
        self.change(Change::PutSource {
            name: name(source),
            settings,
        })
        .await;
    }

    pub(crate) async fn change(&self, change: Change) {
        self.changes.propose(change, None).await.expect("accepted");
    }

    /// Produces distinct records. Every seventh has no value, every third no key.
    pub(crate) fn produce(&self, topic: &str, partition: i32, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let (key, value) = (
                format!("k{}", number % 10),
                format!("{{\"n\":{number},\"p\":{partition}}}"),
            );
            let headers = OwnedHeaders::new()
                .insert(Header {
                    key: "n",
                    value: Some(&number.to_string()),
                })
                .insert(Header {
                    key: "null",
                    value: None::<&[u8]>,
                });
            let mut record = BaseRecord::<str, str>::to(topic)
                .partition(partition)
                .timestamp(1_000 + number as i64)
                .headers(headers);
            if number % 7 != 0 {
                record = record.payload(&value);
            }
            if number % 3 != 0 {
                record = record.key(&key);
            }
            self.producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.producer.flush(Duration::from_secs(10)).expect("produced");
    }
}

pub(crate) fn name(text: &str) -> SourceName {
    text.parse().expect("a name")
}

/// Waits until a condition holds. Panics with the last observation if it does not in time.
pub(crate) async fn eventually<T: std::fmt::Debug>(what: &str, mut observe: impl FnMut() -> (bool, T)) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut last = None;
    let condition = async {
        loop {
            ticks.tick().await;
            let (holds, observed) = observe();
            last = Some(observed);
            if holds {
                break;
            }
        }
    };
    within(30, condition)
        .await
        .unwrap_or_else(|| panic!("{what}: not within 30 s; last observed: {last:?}"));
}

/// The result of `work`, if it finishes in time.
pub(crate) async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(seconds), work).await.ok()
}

/// The states and errors of a source's partitions.
pub(crate) fn states(tailer: &Tailer, source: &str) -> Vec<(Option<i32>, &'static str, Option<String>)> {
    tailer
        .rows()
        .into_iter()
        .filter(|row| row.source.as_str() == source)
        .map(|row| (row.partition, row.state.as_str(), row.error))
        .collect()
}
