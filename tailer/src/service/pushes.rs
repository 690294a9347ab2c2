//! `rachis.tailer.v1.Pushes`: pushes into the topic of their collection, which is made when the first one comes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proto::{
    Catalog, Code, CollectionUid, Problem,
    catalog::{Change, Collection, push_topic_of},
    service::caught_up,
    tailer::Changes,
    wire::{
        ingest::{there, uid},
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

/// How a topic of pushes is made. A leaf that is away for longer than its records are kept has lost them, and says so.
const TOPIC_SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "604800000"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", "94371840"),
];

/// How often topics of dropped collections are looked for.
const REMOVE_EVERY: Duration = Duration::from_secs(5);

/// The log of pushes.
pub struct PushLog {
    kafka: ClusterKafka,
    changes: Arc<dyn Changes>,
    catalog: watch::Receiver<Arc<Catalog>>,
    appender: Appender,
    /// One topic is made at a time.
    making: Mutex<()>,
}

impl PushLog {
    /// Into the cluster's Kafka.
    pub fn new(kafka: ClusterKafka, changes: Arc<dyn Changes>) -> Result<Arc<Self>, Problem> {
        let appender = Appender::new(&kafka)?;
        Ok(Arc::new(Self {
            catalog: changes.catalog(),
            kafka,
            changes,
            appender,
            making: Mutex::default(),
        }))
    }

    /// Everything that was taken is delivered.
    pub fn flush(&self, wait: std::time::Duration) {
        self.appender.flush(wait);
    }

    /// Removes the topics of collections that were dropped so long ago, while the change log is well; goes on for ever.
    pub async fn remove_dropped(self: Arc<Self>, kept: Duration) {
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let mut removed: BTreeSet<CollectionUid> = BTreeSet::new();
        loop {
            let (now_ms, catalog) = (now_ms(), self.catalog.borrow().clone());
            let due = |(uid, dropped_ms): &(&CollectionUid, &i64)| {
                dropped_ms.saturating_add(kept_ms) <= now_ms && !removed.contains(uid)
            };
            let due: Vec<CollectionUid> = catalog.dropped.iter().filter(due).map(|(uid, _)| *uid).collect();
            if !due.is_empty() && self.changes.health().trouble.is_none() {
                let topics: Vec<String> = due.iter().map(|uid| push_topic_of(*uid)).collect();
                match self.kafka.remove_topics(&topics).await {
                    Ok(()) => removed.extend(due),
                    Err(problem) => {
                        warn!(%problem, "the topics of dropped collections could not be removed; it is tried again")
                    }
                }
            }
            removed.retain(|uid| catalog.dropped.contains_key(uid));
            tokio::time::sleep(REMOVE_EVERY).await;
        }
    }

    fn collection(&self, uid: CollectionUid) -> Result<Collection, Problem> {
        let catalog = self.catalog.borrow().clone();
        let found = catalog.collection(uid).map(|(_, collection)| collection.clone());
        found.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("there is no collection of uid {uid}"))
                .hint("it may have been dropped")
        })
    }

    /// The collection, with a topic for its pushes.
    async fn opened(&self, uid: CollectionUid) -> Result<Collection, Problem> {
        let collection = self.collection(uid)?;
        if collection.push_topic {
            return Ok(collection);
        }
        let _making = self.making.lock().await;
        let collection = self.collection(uid)?;
        if collection.push_topic {
            return Ok(collection);
        }
        let partitions = i32::try_from(collection.settings.shards).unwrap_or(i32::MAX);
        self.kafka
            .make_topic(&collection.push_topic_name(), partitions, &TOPIC_SETTINGS)
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
        caught_up(&request, &self.catalog).await?;
        let push = request.into_inner();
        // What fails from here to the sending leaves nothing behind: `Unavailable` says so to who asked.
        self.appender.look().await?;
        let collection = self.opened(CollectionUid(uid(&push.collection)?)).await?;
        if !u32::try_from(push.partition).is_ok_and(|partition| partition < collection.settings.shards) {
            return Err(Problem::new(
                Code::BadRequest,
                format!(
                    "the pushes have {} partitions, and {} is not one of them",
                    collection.settings.shards, push.partition
                ),
            )
            .into());
        }
        let payload = encode(there(push.request, "the request")?, push.items);
        let offset = self
            .appender
            .append(&collection.push_topic_name(), push.partition, &payload)
            .await?;
        metrics::counter!("rachis_append_bytes_total").increment(payload.len() as u64);
        Ok(Response::new(wire::Appended { offset }))
    }
}
