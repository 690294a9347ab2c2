//! The service `rachis.tailer.v1.Pushes`: appends pushes and changes of documents to the topics of their collection. The
//! first one creates the topic.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proto::{
    Catalog, Code, CollectionUid, Problem, SourceName,
    catalog::{Change, Collection, change_topic_of, push_topic_of},
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

/// How long the topic for pushes keeps them, in milliseconds. A leaf that is down for longer loses records, and reports
/// the loss.
const PUSHES_RETENTION_MS: &str = "604800000";
/// The topic for changes keeps them for ever: a shard that is filled again from its sources must not show what was
/// deleted.
const CHANGES_RETENTION_MS: &str = "-1";

/// The settings of the topic of an own source.
fn topic_settings(source: &SourceName) -> [(&'static str, &'static str); 5] {
    let retention_ms = match source.is_changes() {
        true => CHANGES_RETENTION_MS,
        false => PUSHES_RETENTION_MS,
    };
    [
        ("cleanup.policy", "delete"),
        ("retention.ms", retention_ms),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "94371840"),
    ]
}

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
                let topics: Vec<String> = due
                    .iter()
                    .flat_map(|uid| [push_topic_of(*uid), change_topic_of(*uid)])
                    .collect();
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

    /// The collection. Creates the topic of its own source if it has none.
    async fn with_topic(&self, uid: CollectionUid, source: &SourceName) -> Result<Collection, Problem> {
        let collection = self.collection(uid)?;
        if collection.has_own_topic(source) {
            return Ok(collection);
        }
        let _creating = self.creating.lock().await;
        let collection = self.collection(uid)?;
        if collection.has_own_topic(source) {
            return Ok(collection);
        }
        let partitions = i32::try_from(collection.settings.shards).unwrap_or(i32::MAX);
        self.kafka
            .create_topic(&collection.own_topic_name(source), partitions, &topic_settings(source))
            .await?;
        let opened = match source.is_changes() {
            true => Change::OpenChanges { collection: uid },
            false => Change::OpenPushes { collection: uid },
        };
        self.changes.propose(opened, None).await?;
        self.collection(uid)
    }

    /// Appends a record to the topic of an own source.
    async fn append_to(
        &self,
        source: &SourceName,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::Appended>, Status> {
        wait_for_catalog(&request, &self.catalog).await?;
        let push = request.into_inner();
        // Nothing is stored if one of the next steps fails. `Unavailable` tells the client so.
        self.appender.check().await?;
        let collection = self.with_topic(CollectionUid(uid(&push.collection)?), source).await?;
        if !u32::try_from(push.partition).is_ok_and(|partition| partition < collection.settings.shards) {
            return Err(Problem::new(
                Code::BadRequest,
                format!(
                    "the topic of source {source} has {} partitions, but no partition {}",
                    collection.settings.shards, push.partition
                ),
            )
            .into());
        }
        let payload = encode(require(push.request, "the request")?, push.items);
        let offset = self
            .appender
            .append(&collection.own_topic_name(source), push.partition, &payload)
            .await?;
        metrics::counter!("rachis_append_bytes_total").increment(payload.len() as u64);
        let begins = collection.own_topic_begins(source, push.partition);
        Ok(Response::new(wire::Appended {
            offset: offset + begins,
        }))
    }
}

#[tonic::async_trait]
impl pushes_server::Pushes for PushLog {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::Appended>, Status> {
        self.append_to(&SourceName::push(), request).await
    }

    async fn append_changes(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::Appended>, Status> {
        self.append_to(&SourceName::changes(), request).await
    }
}
