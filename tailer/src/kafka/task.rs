//! The work of one source: its settings, the limits, and the leaf that receives its records. Shared by the supervisor
//! of the source, its poll thread and its senders.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    CollectionName, CollectionUid, PositionVector, SourceName,
    catalog::{Catalog, Collection, Skips, Source, SourceSettings, Start},
    cluster::NodeName,
    ingest::{Ingest, ShardId},
    record::Rules,
    routing::shard_of,
};

use tokio::sync::watch;

use super::{options::TailerOptions, partition::Replica};

const SESSION_DEFAULT: Duration = Duration::from_secs(10);

/// The work of a source. A change of the source in the catalog replaces it.
pub(super) struct SourceTask {
    pub collection: CollectionName,
    /// The id of the collection, which never changes.
    pub uid: CollectionUid,
    /// The number of shards of the collection.
    pub shards: u32,
    pub source: SourceName,
    /// The catalog version of the last change of the source.
    pub version: u64,
    /// The settings by the user.
    pub settings: SourceSettings,
    /// The ranges that are skipped on request.
    pub skips: Skips,
    /// The limits.
    pub options: TailerOptions,
    /// The leaves that receive the records.
    pub leaf: Arc<dyn Ingest>,
    /// The leaves that hold each shard; none if one process holds all shards. It changes while the source is read.
    pub placement: watch::Sender<Vec<Vec<NodeName>>>,
    /// The positions after which the topic begins: of an own source of a restored collection.
    topic_after: PositionVector,
    cluster: OnceLock<String>,
}

impl SourceTask {
    /// The task of a source, unless the source is suspended or has no collection.
    pub(super) fn from_source(
        catalog: &Catalog,
        name: &SourceName,
        source: &Source,
        options: &TailerOptions,
        leaf: &Arc<dyn Ingest>,
    ) -> Option<Self> {
        let collection = catalog
            .collections
            .get(&source.settings.collection)
            .filter(|_| !source.suspended)?;
        Some(Self {
            collection: source.settings.collection.clone(),
            uid: collection.uid,
            shards: collection.settings.shards,
            source: name.clone(),
            version: source.version,
            settings: source.settings.clone(),
            skips: source.skips.clone(),
            options: options.clone(),
            leaf: leaf.clone(),
            placement: watch::Sender::new(collection.placement.clone()),
            topic_after: PositionVector::default(),
            cluster: OnceLock::new(),
        })
    }

    /// The task of one of a collection's own sources, if these are logged and the source has its topic.
    pub(super) fn from_own(
        name: &CollectionName,
        collection: &Collection,
        source: SourceName,
        options: &TailerOptions,
        leaf: &Arc<dyn Ingest>,
    ) -> Option<Self> {
        let kafka = options.pushes.as_ref().filter(|_| collection.has_own_topic(&source))?;
        Some(Self {
            collection: name.clone(),
            uid: collection.uid,
            shards: collection.settings.shards,
            version: 0,
            settings: SourceSettings {
                collection: name.clone(),
                topic: collection.own_topic_name(&source),
                config: kafka.source_config(),
                rules: Rules::default(),
                start: Start::Earliest,
                partitions: None,
            },
            skips: match source.is_push() {
                true => collection.push_skips.clone(),
                false => Skips::default(),
            },
            source,
            options: options.clone(),
            leaf: leaf.clone(),
            placement: watch::Sender::new(collection.placement.clone()),
            topic_after: collection.own_topics_after.clone(),
            cluster: OnceLock::new(),
        })
    }

    /// Whether this is the same work, wherever the replicas are.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let work = |task: &Self| (task.version, task.uid, task.shards);
        let is_placed = |task: &Self| !task.placement.borrow().is_empty();
        work(self) == work(other) && self.skips == other.skips && is_placed(self) == is_placed(other)
    }

    /// Takes over where the replicas are.
    pub(super) fn follow_placement(&self, other: &Self) {
        let placement = other.placement.borrow();
        self.placement.send_if_modified(|known| {
            let is_other = *known != *placement;
            if is_other {
                known.clone_from(&placement);
            }
            is_other
        });
    }

    /// The labels of its metrics. The name alone is not unique: every collection has a source called `push`.
    pub(super) fn labels(&self) -> [(&'static str, String); 2] {
        [
            ("collection", self.collection.to_string()),
            ("source", self.source.to_string()),
        ]
    }

    /// The position of the first record of a partition, whose offset at the broker is 0.
    pub(super) fn begins_at(&self, partition: i32) -> i64 {
        self.topic_after
            .get(&self.source, partition)
            .map_or(0, |after| after + 1)
    }

    /// The shard that receives the records of a partition.
    pub(super) fn shard(&self, partition: i32) -> ShardId {
        ShardId {
            collection: self.uid,
            number: shard_of(&self.source, partition, self.shards),
        }
    }

    /// The replicas of the shard that receives the records of a partition.
    pub(super) fn replicas(&self, partition: i32) -> Vec<Replica> {
        let shard = self.shard(partition);
        let replica = |name: Option<NodeName>| Replica {
            leaf: name
                .as_ref()
                .and_then(|name| self.leaf.replica_on(name))
                .unwrap_or_else(|| self.leaf.clone()),
            name,
            wake: Arc::default(),
        };
        match self.placement.borrow().get(shard.number as usize) {
            Some(leaves) if !leaves.is_empty() => leaves.iter().cloned().map(Some).map(replica).collect(),
            _ => vec![replica(None)],
        }
    }

    /// The id of the topic: cluster id and name. Valid after [`SourceTask::set_cluster`].
    pub(super) fn topic_id(&self) -> String {
        format!(
            "{}/{}",
            self.cluster.get().map_or("?", String::as_str),
            self.settings.topic
        )
    }

    /// Whether the id of the Kafka cluster is known.
    pub(super) fn knows_cluster(&self) -> bool {
        self.cluster.get().is_some()
    }

    /// Sets the id of the Kafka cluster. Only the first call has an effect: a consumer never changes its cluster.
    pub(super) fn set_cluster(&self, id: String) {
        let _ = self.cluster.set(id);
    }

    /// The session timeout of the consumer group.
    pub(super) fn session(&self) -> Duration {
        let configured = self
            .settings
            .config
            .get("session.timeout.ms")
            .and_then(|text| text.parse().ok());
        configured.map_or(SESSION_DEFAULT, Duration::from_millis)
    }

    /// The consumer group. It never changes, because operators monitor it and grant permissions on it.
    pub(super) fn group(&self) -> String {
        format!("rachis-{}-{}", self.uid, self.source)
    }
}
