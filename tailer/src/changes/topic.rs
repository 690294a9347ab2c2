//! The change log of a cluster: one topic with one partition, never compacted. Each tailer reads it, replicates the
//! state that it adds up to, and appends proposals.
//!
//! A node accepts no changes while the log has a fault: it is missing, shorter than before, another log, misconfigured,
//! or has a record that the node cannot read. The node recovers by itself once the log is healthy.

mod create;
mod read_once;
mod reader;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionUid, Problem, SourceName,
    catalog::{Change, ChangeRecord, Entry, LogChange, LogRecord},
    cluster::{Member, NodeName, PlacementLeaf, Role, place},
    tailer::{Changes, LogHealth},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::{
    create::{create_change_log, restore_change_log},
    read_once::read_change_log,
};
use super::{CHANGE_BYTES_MAX, follower::Follower, replica::CatalogReplica};
use crate::kafka::cluster::{Appender, ClusterKafka};

/// The required settings of the topic.
const TOPIC_SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", "16777216"),
];
/// The number of settings that are checked. The last one only limits the size of a change.
const TOPIC_SETTINGS_CHECKED: usize = 4;
const PARTITION: i32 = 0;
/// How long the broker may take to answer a request.
const BROKER_ANSWER: Duration = Duration::from_secs(5);
/// Every node refuses a proposal that reaches the log later than this.
const VALID_FOR: Duration = Duration::from_secs(60);
/// A leaf that has not answered for so long gets no shards of new collections.
const LEAF_AWAY: Duration = Duration::from_secs(60);
/// How long a proposal waits until it is read back.
const JUDGED_WITHIN: Duration = Duration::from_secs(8);

/// The offset of a proposal, and whether it was accepted.
type Verdict = (i64, Result<(), Problem>);

/// The change log in its topic. Cheap to clone.
#[derive(Clone)]
pub struct TopicChanges {
    log: Arc<TopicLog>,
}

struct TopicLog {
    kafka: ClusterKafka,
    replica: Arc<CatalogReplica>,
    appender: Appender,
    /// Knows which leaves answer.
    follower: Arc<Follower>,
    /// The number of replicas of a new collection that names none.
    replicas: u32,
    /// The proposals that wait for their verdict.
    waiting: Mutex<HashMap<Uuid, Vec<oneshot::Sender<Verdict>>>>,
    stop: CancellationToken,
}

impl TopicChanges {
    /// Starts to read the log into `replica`. New collections are placed on leaves that answer `follower`, and have so many
    /// `replicas` unless they name a number.
    pub fn start(
        kafka: ClusterKafka,
        replica: Arc<CatalogReplica>,
        follower: Arc<Follower>,
        replicas: u32,
        stop: CancellationToken,
    ) -> Result<Self, Problem> {
        let appender = Appender::new(&kafka)?;
        replica.mark_unread();
        let log = Arc::new(TopicLog {
            kafka,
            replica,
            appender,
            follower,
            replicas,
            waiting: Mutex::default(),
            stop,
        });
        // The thread has its own runtime, because that of the process may end before the thread has noticed.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Problem::new(
                    Code::Internal,
                    format!("cannot create a runtime for the change log: {error}"),
                )
            })?;
        let reader = log.clone();
        std::thread::Builder::new()
            .name("changes".into())
            .spawn(move || reader.run(&runtime))
            .map_err(|error| {
                Problem::new(
                    Code::Internal,
                    format!("cannot start a thread for the change log: {error}"),
                )
            })?;
        Ok(Self { log })
    }

    /// Appends a change to the log, waits until this node has read it back, and returns its offset. The same uid may be
    /// proposed again.
    pub async fn submit(&self, uid: Uuid, change: Change, expected: Option<u64>) -> Result<i64, Problem> {
        let change = self.log.with_own_topics(change).await?;
        let json = self.log.encode(uid, change, expected)?;
        let (answer, verdict) = oneshot::channel();
        self.log.waiting.lock().entry(uid).or_default().push(answer);
        let started = Instant::now();
        let appended = self
            .log
            .appender
            .append(&self.log.kafka.changes_topic, PARTITION, &json)
            .await;
        let verdict = match appended {
            Ok(_) => tokio::time::timeout(JUDGED_WITHIN, verdict)
                .await
                .ok()
                .and_then(Result::ok),
            Err(problem) => {
                self.log.waiting.lock().remove(&uid);
                return Err(problem);
            }
        };
        self.log.waiting.lock().remove(&uid);
        metrics::histogram!("rachis_change_write_seconds").record(started.elapsed().as_secs_f64());
        match verdict {
            Some((offset, result)) => result.map(|()| offset),
            None => Err(Problem::new(
                Code::UnknownOutcome,
                "the change is in the log, but was not read back in time",
            )
            .hint("check whether the change is in effect")),
        }
    }
}

impl TopicLog {
    /// Finds out which topics a collection has that goes on with them: some may have been opened after its snapshot. Every
    /// answer then covers all changes of documents that are in the topic.
    async fn with_own_topics(&self, mut change: Change) -> Result<Change, Problem> {
        let restored = match &mut change {
            Change::RestoreCollection { restored, .. } if restored.continued => restored,
            _ => return Ok(change),
        };
        let collection = &mut restored.collection;
        for source in [SourceName::push(), SourceName::changes()] {
            let topic = collection.own_topic_name(&source);
            let ends = self.kafka.ends_of(&topic).await?;
            if ends.is_none() && collection.has_own_topic(&source) {
                let detail = format!("the collection cannot go on with its topics: this Kafka has no topic {topic}");
                return Err(Problem::new(Code::Conflict, detail)
                    .hint("restore it as a copy, without --continue: it then gets topics of its own"));
            }
            match source.is_changes() {
                true => collection.change_topic = ends.is_some(),
                false => collection.push_topic = ends.is_some(),
            }
            let ends = ends
                .unwrap_or_default()
                .into_iter()
                .zip(0..)
                .filter(|_| source.is_changes());
            for (end, partition) in ends.filter(|(end, _)| *end > 0) {
                let last = collection.own_topic_begins(&source, partition) + end - 1;
                collection.changed_through.advance(&source, partition, last);
            }
        }
        Ok(change)
    }

    /// Encodes a proposal, if this node may make one now.
    fn encode(&self, uid: Uuid, change: Change, expected: Option<u64>) -> Result<Vec<u8>, Problem> {
        if let Some(fault) = self.replica.health().fault {
            return Err(
                Problem::new(Code::Unavailable, format!("no change can be accepted: {fault}"))
                    .hint("`rachis cluster status` shows the state of each node"),
            );
        }
        let state = self.replica.state().borrow().clone();
        if state.cluster.is_none() {
            return Err(
                Problem::new(Code::Unavailable, "the change log has not been read yet").hint("retry in a moment")
            );
        }
        let change = with_placement(change, uid, &state.catalog, &self.follower.silent(), self.replicas)?;
        let level = change.rules_level();
        let record = ChangeRecord {
            uid,
            level,
            expected,
            change,
        };
        let not_after_ms = now_ms() + i64::try_from(VALID_FOR.as_millis()).unwrap_or(i64::MAX);
        let entry = Entry::Change(Box::new(LogChange {
            record,
            not_after_ms,
            seen: state.seen(),
        }));
        let json =
            serde_json::to_vec(&LogRecord { level, entry }).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        if json.len() > CHANGE_BYTES_MAX {
            return Err(Problem::new(
                Code::TooLarge,
                format!("the change has {} bytes; the limit is {CHANGE_BYTES_MAX}", json.len()),
            ));
        }
        Ok(json)
    }
}

/// Places the shards of a new or restored collection on the leaves that are members, but for those that have not answered
/// for long, unless none has.
fn with_placement(
    mut change: Change,
    uid: Uuid,
    catalog: &Catalog,
    silent: &BTreeMap<NodeName, Duration>,
    replicas: u32,
) -> Result<Change, Problem> {
    let (name, settings, placement) = match &mut change {
        Change::CreateCollection {
            name,
            settings,
            placement,
        } => (name, settings, placement),
        Change::RestoreCollection {
            name,
            restored,
            placement,
        } => (name, &mut restored.collection.settings, placement),
        _ => return Ok(change),
    };
    if !placement.is_empty() {
        return Ok(change);
    }
    let leaf = |(name, member): (&NodeName, &Member)| PlacementLeaf {
        name: name.clone(),
        capacity: member.capacity,
        zone: member.zone.clone(),
    };
    let leaves = catalog.members_of(Role::Leaf);
    let all: Vec<PlacementLeaf> = leaves
        .filter(|(name, _)| !catalog.draining.contains(*name))
        .map(leaf)
        .collect();
    let answers = |leaf: &&PlacementLeaf| silent.get(&leaf.name).is_none_or(|silent| *silent < LEAF_AWAY);
    let up: Vec<_> = all.iter().filter(answers).cloned().collect();
    let leaves = if up.is_empty() { all } else { up };
    if leaves.is_empty() && !catalog.draining.is_empty() {
        let detail = format!("{name} cannot be created: all leaves are being drained");
        return Err(Problem::new(Code::Unavailable, detail)
            .hint("start another leaf, or let one take shards again: `rachis cluster drain NAME --undo`"));
    }
    if leaves.is_empty() {
        return Err(Problem::new(
            Code::Unavailable,
            format!("{name} cannot be created: the cluster has no leaf"),
        )
        .hint("start one with `rachis leaf`; `rachis cluster status` lists the members"));
    }
    if let Some(replicas) = settings.replicas.filter(|replicas| *replicas as usize > leaves.len()) {
        let (names, leaves) = (if leaves.len() == 1 { "leaf" } else { "leaves" }, leaves.len());
        return Err(Problem::new(
            Code::Unavailable,
            format!("{name} cannot have {replicas} replicas: the cluster has {leaves} {names}"),
        )
        .hint("start more leaves, or ask for fewer replicas"));
    }
    *placement = place(
        CollectionUid(uid),
        settings.shards,
        settings.replicas.unwrap_or(replicas),
        &leaves,
    );
    Ok(change)
}

/// The time of this machine in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Changes for TopicChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.log.replica.catalog()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        self.submit(Uuid::now_v7(), change, expected).await?;
        Ok(self.log.replica.catalog().borrow().clone())
    }

    fn health(&self) -> LogHealth {
        self.log.replica.health()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::catalog::CollectionSettings;

    use super::*;

    #[test]
    fn a_new_collection_is_placed_on_leaves_that_answer_or_on_all_if_none_does() {
        let leaf = |number: u32| -> NodeName { format!("leaf-{number}").parse().expect("a name") };
        let mut catalog = Catalog::default();
        let placed = |catalog: &Catalog, silent: &[(u32, u64)]| {
            let create = Change::CreateCollection {
                name: "events".parse().expect("a name"),
                settings: CollectionSettings {
                    shards: 4,
                    ..CollectionSettings::default()
                },
                placement: Vec::new(),
            };
            let silent = silent
                .iter()
                .map(|(number, seconds)| (leaf(*number), Duration::from_secs(*seconds)));
            let placed = with_placement(create, Uuid::nil(), catalog, &silent.collect(), 1);
            let Change::CreateCollection { placement, .. } = placed.map_err(|problem| problem.code)? else {
                panic!("another change");
            };
            let leaves: BTreeSet<NodeName> = placement.into_iter().flatten().collect();
            Ok(leaves.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(placed(&catalog, &[]), Err(Code::Unavailable));
        for number in [1, 2] {
            let member = Member::new(Role::Leaf, format!("http://10.0.0.{number}:7700"), Uuid::nil());
            catalog.members.insert(leaf(number), member);
        }
        let both = Ok(vec![leaf(1), leaf(2)]);
        assert_eq!(placed(&catalog, &[]), both);
        assert_eq!(placed(&catalog, &[(2, 59)]), both, "it may restart");
        assert_eq!(placed(&catalog, &[(2, 60)]), Ok(vec![leaf(1)]));
        assert_eq!(placed(&catalog, &[(1, 60), (2, 60)]), both);
    }
}
