//! The work of one source: its settings, the limits, and the leaf that receives its records. Shared by the supervisor
//! of the source, its poll thread and its senders.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    CollectionName, CollectionUid, PositionVector, SourceName,
    catalog::{
        Catalog, Collection, PartitionRoute, PartitionRuns, PartitionShare, Skips, Source, SourceSettings, Start,
    },
    cluster::NodeName,
    ingest::{Ingest, ShardId},
    record::Rules,
};

use tokio::sync::watch;

use super::{
    Error,
    options::TailerOptions,
    slot::{Part, Replica},
};

const SESSION_DEFAULT: Duration = Duration::from_secs(10);

/// Which shards the records of a source belong to, and where these are.
#[derive(Clone, PartialEq)]
pub(super) struct Routing {
    /// The number of shards of the collection.
    shards: u32,
    /// The leaves that hold each shard; none if one process holds all shards.
    placement: Vec<Vec<NodeName>>,
    /// The partitions of the source whose records belong to several shards.
    runs: Vec<PartitionRuns>,
    /// The runs that are proposed: partition, first offset, and the leaves that have not confirmed them.
    proposed: Vec<(i32, i64, Vec<String>)>,
}

impl Routing {
    fn of(collection: &Collection, source: &SourceName) -> Self {
        let runs = || collection.runs.iter().filter(|of| of.source == *source);
        let proposed = |of: &PartitionRuns| {
            let from = of.proposed.as_ref()?.run.from;
            Some((of.partition, from, collection.unconfirmed(of)))
        };
        Self {
            shards: collection.settings.shards,
            placement: collection.placement.clone(),
            proposed: runs().filter_map(proposed).collect(),
            runs: runs().map(PartitionRuns::without_proposal).collect(),
        }
    }
}

/// The work of a source. A change of the source in the catalog replaces it.
pub(super) struct SourceTask {
    pub collection: CollectionName,
    /// The id of the collection, which never changes.
    pub uid: CollectionUid,
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
    /// Where the records go: it changes while the source is read.
    pub routing: watch::Sender<Routing>,
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
            source: name.clone(),
            version: source.version,
            settings: source.settings.clone(),
            skips: source.skips.clone(),
            options: options.clone(),
            leaf: leaf.clone(),
            routing: watch::Sender::new(Routing::of(collection, name)),
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
            version: 0,
            settings: SourceSettings {
                collection: name.clone(),
                topic: collection.own_topic_name(&source),
                config: kafka.source_config(),
                rules: Rules::default(),
                start: Start::Earliest,
                partitions: None,
                ends: Vec::new(),
            },
            skips: match source.is_push() {
                true => collection.push_skips.clone(),
                false => Skips::default(),
            },
            routing: watch::Sender::new(Routing::of(collection, &source)),
            source,
            options: options.clone(),
            leaf: leaf.clone(),
            topic_after: collection.own_topics_after.clone(),
            cluster: OnceLock::new(),
        })
    }

    /// Whether this is the same work, wherever the records go.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (own, others) = (self.routing.borrow(), other.routing.borrow());
        let work = |task: &Self, routing: &Routing| (task.version, task.uid, routing.shards);
        work(self, &own) == work(other, &others)
            && self.skips == other.skips
            && own.placement.is_empty() == others.placement.is_empty()
    }

    /// Takes over where the records go.
    pub(super) fn follow_routing(&self, other: &Self) {
        let routing = other.routing.borrow();
        self.routing.send_if_modified(|known| {
            let is_other = *known != *routing;
            if is_other {
                known.clone_from(&routing);
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

    /// Which shards the records of a partition belong to.
    pub(super) fn route(&self, partition: i32) -> PartitionRoute {
        let routing = self.routing.borrow();
        PartitionRoute::new(&self.source, partition, routing.shards, &routing.runs)
    }

    /// The first offset of a partition that no leaf accepts, and why: all have to know of its next run first.
    pub(super) fn held(&self, partition: i32) -> Option<(i64, Error)> {
        let routing = self.routing.borrow();
        let (_, from, leaves) = routing.proposed.iter().find(|(of, ..)| *of == partition)?;
        let reason = Error::SpreadWaits {
            partition: format!("{}/{partition}", self.source),
            source_name: self.source.to_string(),
            number: partition,
            from: *from,
            waits_for: match leaves.is_empty() {
                true => "this node".to_owned(),
                false => leaves.join(", "),
            },
        };
        Some((*from, reason))
    }

    /// The replicas of the shards that receive the records of a partition.
    pub(super) fn replicas(&self, partition: i32) -> Vec<Replica> {
        let route = Arc::new(self.route(partition));
        let routing = self.routing.borrow();
        let replica = |share: PartitionShare, name: Option<NodeName>| Replica {
            shard: ShardId {
                collection: self.uid,
                number: share.shard,
            },
            part: Part {
                share,
                route: route.clone(),
            },
            leaf: name
                .as_ref()
                .and_then(|name| self.leaf.replica_on(name))
                .unwrap_or_else(|| self.leaf.clone()),
            name,
            wake: Arc::default(),
        };
        let of_share = |share: PartitionShare| match routing.placement.get(share.shard as usize) {
            Some(leaves) if !leaves.is_empty() => {
                leaves.iter().cloned().map(|leaf| replica(share, Some(leaf))).collect()
            }
            _ => vec![replica(share, None)],
        };
        route.shares().into_iter().flat_map(of_share).collect()
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
