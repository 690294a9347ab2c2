//! The service `rachis.tailer.v1.Pushes`: appends pushes to the topic of their collection. The first push creates it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proto::{
    Catalog, Code, CollectionUid, Problem,
    catalog::{Change, Collection, push_topic_of},
    service::wait_for_catalog,
    tailer::Changes,
    wire::{
        ingest::{require, uid},
        push::encode,
        tailer::{self as wire, pushes_server},
    },
};
use tokio::sync::{Mutex, watch};
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::{
    changes::topic::now_ms,
    kafka::cluster::{Appender, ClusterKafka},
};

/// The settings of a push topic. A leaf that is down for longer than the retention loses records, and reports the loss.
const TOPIC_SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "604800000"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", "94371840"),
];

/// How often to look for topics of dropped collections.
const DELETE_EVERY: Duration = Duration::from_secs(5);

/// Appends pushes to the push topics, and deletes the topics of dropped collections.
pub struct PushLog {
    kafka: ClusterKafka,
    changes: Arc<dyn Changes>,
    catalog: watch::Receiver<Arc<Catalog>>,
    appender: Appender,
    /// Held while a topic is created.
    creating: Mutex<()>,
}

impl PushLog {
    /// A push log in the cluster's Kafka.
    pub fn new(kafka: ClusterKafka, changes: Arc<dyn Changes>) -> Result<Arc<Self>, Problem> {
        let appender = Appender::new(&kafka)?;
        Ok(Arc::new(Self {
            catalog: changes.catalog(),
            kafka,
            changes,
            appender,
            creating: Mutex::default(),
        }))
    }

    /// Waits until all accepted pushes are delivered.
    pub fn flush(&self, wait: Duration) {
        self.appender.flush(wait);
    }

    /// Deletes the topics of collections that were dropped at least `retention` ago, while the change log is healthy.
    /// Runs forever.
    pub async fn delete_dropped(self: Arc<Self>, retention: Duration) {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let mut deleted: BTreeSet<CollectionUid> = BTreeSet::new();
        loop {
            let (now_ms, catalog) = (now_ms(), self.catalog.borrow().clone());
            let is_due = |(uid, dropped_ms): &(&CollectionUid, &i64)| {
                dropped_ms.saturating_add(retention_ms) <= now_ms && !deleted.contains(uid)
            };
            let due: Vec<CollectionUid> = catalog.dropped.iter().filter(is_due).map(|(uid, _)| *uid).collect();
            if !due.is_empty() && self.changes.health().fault.is_none() {
                let topics: Vec<String> = due.iter().map(|uid| push_topic_of(*uid)).collect();
                match self.kafka.delete_topics(&topics).await {
                    Ok(()) => deleted.extend(due),
                    Err(problem) => {
                        warn!(%problem, "could not delete the topics of dropped collections; this will be retried")
                    }
                }
            }
            deleted.retain(|uid| catalog.dropped.contains_key(uid));
            tokio::time::sleep(DELETE_EVERY).await;
        }
    }

    fn collection(&self, uid: CollectionUid) -> Result<Collection, Problem> {
        let catalog = self.catalog.borrow().clone();
        let found = catalog.collection(uid).map(|(_, collection)| collection.clone());
        found.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("the collection with uid {uid} does not exist"))
                .hint("it may have been dropped")
        })
    }

    /// The collection. Creates its push topic if it has none.
    async fn with_topic(&self, uid: CollectionUid) -> Result<Collection, Problem> {
        let collection = self.collection(uid)?;
        if collection.push_topic {
            return Ok(collection);
        }
        let _creating = self.creating.lock().await;
        let collection = self.collection(uid)?;
        if collection.push_topic {
            return Ok(collection);
        }
        let partitions = i32::try_from(collection.settings.shards).unwrap_or(i32::MAX);
        self.kafka
            .create_topic(&collection.push_topic_name(), partitions, &TOPIC_SETTINGS)
            .await?;
        self.changes
            .propose(Change::OpenPushes { collection: uid }, None)
            .await?;
        self.collection(uid)
    }
}

#[tonic::async_trait]
impl pushes_server::Pushes for PushLog {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::Appended>, Status> {
        wait_for_catalog(&request, &self.catalog).await?;
        let push = request.into_inner();
        // Nothing is stored if one of the next steps fails. `Unavailable` tells the client so.
        self.appender.check().await?;
        let collection = self.with_topic(CollectionUid(uid(&push.collection)?)).await?;
        if !u32::try_from(push.partition).is_ok_and(|partition| partition < collection.settings.shards) {
            return Err(Problem::new(
                Code::BadRequest,
                format!(
                    "the push topic has {} partitions, but no partition {}",
                    collection.settings.shards, push.partition
                ),
            )
            .into());
        }
        let payload = encode(require(push.request, "the request")?, push.items);
        let offset = self
            .appender
            .append(&collection.push_topic_name(), push.partition, &payload)
            .await?;
        metrics::counter!("rachis_append_bytes_total").increment(payload.len() as u64);
        Ok(Response::new(wire::Appended { offset }))
    }
}
