//! Creates the change log of a new cluster, and recreates a lost one from the copy of a node.

use std::time::{Duration, Instant};

use proto::{
    Code, Problem,
    catalog::{CHANGE_TOPICS, Entry, LogHeader, LogRecord, PUSH_TOPICS, State},
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::info;
use uuid::Uuid;

use super::{BROKER_ANSWER, PARTITION, TOPIC_SETTINGS};
use crate::kafka::{
    Error,
    cluster::{Appender, ClusterKafka},
};

/// How long to wait for a broker that has just started to read its groups …
const GROUPS_WAIT: Duration = Duration::from_secs(30);
/// … or to count as one that can hold a topic; shorter, because there may really be too few …
const TOPIC_WAIT: Duration = Duration::from_secs(10);
/// … and how often to ask.
const BROKER_POLL: Duration = Duration::from_millis(200);

/// Creates the change log of a new cluster and returns the id of the cluster. Refused if the log is missing or empty and
/// the broker has topics or consumer groups of collections, unless the cluster is to be `beside` the one that these
/// belong to.
pub async fn create_change_log(kafka: &ClusterKafka, beside: bool) -> Result<Uuid, Problem> {
    if !beside && let Some(trace) = trace_of_a_lost_log(kafka).await? {
        return Err(Problem::new(
            Code::Conflict,
            format!(
                "{trace} belongs to a collection, so this Kafka has a cluster, but not its change log, topic {}",
                kafka.changes_topic
            ),
        )
        .hint(
            "if the log is lost, restore it with `rachis cluster restore-changes --from FILE`; FILE is the catalog.json of \
             an up-to-date node. If it belongs to a `rachis dev`, or to a cluster with another `changes_topic` in \
             [cluster], add --beside",
        ));
    }
    let cluster = Uuid::now_v7();
    create(kafka, LogHeader { cluster, from: None }).await?;
    info!(topic = kafka.changes_topic, cluster = %cluster.simple(), "created the change log");
    Ok(cluster)
}

/// A topic or a consumer group of a collection, if there is one and no change log with records.
async fn trace_of_a_lost_log(kafka: &ClusterKafka) -> Result<Option<String>, Problem> {
    let (topics, groups) = topics_and_groups(kafka).await?;
    if topics.contains(&kafka.changes_topic) && record_count(kafka).await? > 0 {
        return Ok(None);
    }
    // `rachis-push-UID`, `rachis-changes-UID`.
    let is_topic = |topic: &&String| {
        let uid = [PUSH_TOPICS, CHANGE_TOPICS]
            .into_iter()
            .find_map(|prefix| topic.strip_prefix(prefix));
        uid.is_some_and(|uid| Uuid::parse_str(uid).is_ok())
    };
    // `rachis-UID-SOURCE`.
    let is_group = |group: &&String| {
        let uid = group.strip_prefix("rachis-").and_then(|rest| rest.split('-').next());
        uid.is_some_and(|uid| Uuid::parse_str(uid).is_ok())
    };
    let topic = topics.iter().find(is_topic).map(|topic| format!("topic {topic}"));
    Ok(topic.or_else(|| {
        groups
            .iter()
            .find(is_group)
            .map(|group| format!("the consumer group {group}"))
    }))
}

async fn topics_and_groups(kafka: &ClusterKafka) -> Result<(Vec<String>, Vec<String>), Problem> {
    let config = kafka.client(&[("group.id", "rachis-changes")]);
    let request = move || -> Result<_, KafkaError> {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(None, BROKER_ANSWER)?;
        let until = Instant::now() + GROUPS_WAIT;
        let groups = loop {
            match consumer.fetch_group_list(None, BROKER_ANSWER) {
                // A broker that has just started reads its groups first.
                Err(error) if is_loading(&error) && Instant::now() < until => std::thread::sleep(BROKER_POLL),
                groups => break groups?,
            }
        };
        Ok((
            metadata.topics().iter().map(|topic| topic.name().to_owned()).collect(),
            groups.groups().iter().map(|group| group.name().to_owned()).collect(),
        ))
    };
    ask(request).await
}

fn is_loading(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
        )
    )
}

async fn ask<T: Send + 'static>(
    request: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(request)
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
        .map_err(|error| Error::cluster(&error).into())
}

/// Recreates a lost change log from the copy of a node.
pub async fn restore_change_log(kafka: &ClusterKafka, from: State) -> Result<(), Problem> {
    let Some(cluster) = from.cluster else {
        return Err(Problem::new(Code::BadRequest, "the copy does not belong to a cluster")
            .hint("use the copy of another node"));
    };
    let header = LogHeader {
        cluster,
        from: Some(Box::new(from)),
    };
    create(kafka, header).await
}

async fn create(kafka: &ClusterKafka, header: LogHeader) -> Result<(), Problem> {
    let (topic, until) = (&kafka.changes_topic, Instant::now() + TOPIC_WAIT);
    let created = loop {
        match kafka.create_topic(topic, 1, &TOPIC_SETTINGS).await {
            Err(problem) if problem.code == Code::Unavailable && Instant::now() < until => {
                tokio::time::sleep(BROKER_POLL).await;
            }
            created => break created?,
        }
    };
    if !created && record_count(kafka).await? > 0 {
        return Err(
            Problem::new(Code::Conflict, format!("the change log, topic {topic}, already exists")).hint(
                "a log serves one cluster: for another cluster, set another `changes_topic` in [cluster]; to restore a \
                 log, delete the topic first",
            ),
        );
    }
    let record = LogRecord {
        level: header.level(),
        entry: Entry::Begin(header),
    };
    let json = serde_json::to_vec(&record).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    let offset = Appender::new(kafka)?.append(topic, PARTITION, &json).await?;
    match offset {
        0 => Ok(()),
        _ => Err(Problem::new(
            Code::Conflict,
            format!("another process wrote to topic {topic} at the same time"),
        )),
    }
}

async fn record_count(kafka: &ClusterKafka) -> Result<i64, Problem> {
    let (config, topic) = (
        kafka.client(&[("group.id", "rachis-changes")]),
        kafka.changes_topic.clone(),
    );
    let request = move || -> Result<i64, KafkaError> {
        let consumer: BaseConsumer = config.create()?;
        let (_, high) = consumer.fetch_watermarks(&topic, PARTITION, BROKER_ANSWER)?;
        Ok(high)
    };
    ask(request).await
}
