//! Items of one request -> partitions of the collection's own source -> what became of them.
//!
//! A body without ids goes to one partition: the request's own (by its key, else in turn). Where documents name
//! themselves (`_id`), each goes by its id, so that a later document of the same id finds the earlier; a body is atomic
//! per partition. The request's own partition comes first: it is the one that knows whether the key was used with
//! another body.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt as _, stream};
use metrics::counter;
use proto::{
    Code, CollectionName, CollectionUid, PositionVector, Problem, SourceName,
    catalog::{Change, Collection, CollectionSettings},
    ingest::{ItemError, LEVEL, PUSH_ERRORS_MAX, Push, Pushed, ShardId},
    json::Value,
    record::{RequestKey, Rules},
    routing::shard_of,
};
use tokio::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::room::Room;
use crate::query::Engine;

/// Bytes of a client's key.
const REQUEST_KEY_BYTES_MAX: usize = 255;
/// Partitions of one push that are written at once.
const PARTITIONS_AT_ONCE_MAX: usize = 16;
/// Partitions that are looked at for one that can be reached.
const PARTITIONS_TRIED_MAX: usize = 8;
/// How long a push waits for a leaf that is away before it is refused with nothing written.
const AWAY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a leaf may take for what it has taken in before the outcome is called unknown.
const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(60);
/// The first pause before a busy leaf is asked again; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LAST: Duration = Duration::from_millis(250);

/// One request.
struct Request {
    /// Its items, at least one.
    items: Vec<Bytes>,
    /// The client's key and the hash of the body.
    key: Option<RequestKey>,
    /// How many pushes came before it here: shares out those without key and ids over partitions.
    number: u64,
    /// Until when it waits for room.
    deadline: Instant,
}

/// A client's key with the body that it goes with.
pub(super) fn request_key(key: &str, body: &[u8]) -> Result<RequestKey, Problem> {
    let visible = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    match visible && (1..=REQUEST_KEY_BYTES_MAX).contains(&key.len()) {
        true => Ok(RequestKey {
            key: key.to_owned(),
            body: xxh3_128(body),
        }),
        false => Err(bad_request_key()),
    }
}

pub(super) fn bad_request_key() -> Problem {
    Problem::new(Code::BadRequest, "the idempotency key is not understood").hint(format!(
        "it is one text of 1 to {REQUEST_KEY_BYTES_MAX} visible ASCII characters"
    ))
}

/// Where pushes come in, over whichever door: one limit holds for all of them.
pub(super) struct Intake {
    /// Bytes under way.
    pub room: Room,
    /// Pushes so far.
    count: AtomicU64,
}

impl Intake {
    /// With room for so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            room: Room::new(bytes_max),
            count: AtomicU64::new(0),
        }
    }

    /// Stores what one request holds.
    pub async fn take(
        &self,
        engine: &Engine,
        name: &CollectionName,
        items: Vec<Bytes>,
        key: Option<RequestKey>,
        deadline: Instant,
    ) -> Result<Outcome, Problem> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let keyed = key.is_some();
        let outcome = push(
            engine,
            name,
            Request {
                items,
                key,
                number,
                deadline,
            },
        )
        .await;
        let outcome = outcome.map_err(|problem| if keyed { problem } else { without_key(problem) })?;
        counter!("rachis_push_items_total", "outcome" => "accepted").increment(outcome.accepted);
        counter!("rachis_push_items_total", "outcome" => "rejected").increment(outcome.rejected);
        Ok(outcome)
    }
}

/// What became of all items of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub accepted: u64,
    pub rejected: u64,
    /// By index; at most `PUSH_ERRORS_MAX`.
    pub errors: Vec<ItemError>,
    /// Every partition that it went to.
    pub position: PositionVector,
    /// Parts of it, and how many of them an earlier request under the same key had stored already.
    pub parts: usize,
    pub parts_repeated: usize,
}

/// Stores a request's items, durable and visible when it returns. The collection is created where it does not exist.
async fn push(engine: &Engine, name: &CollectionName, request: Request) -> Result<Outcome, Problem> {
    let collection = collection_or_new(engine, name).await?;
    let shards = collection.settings.shards.max(1);
    let home = match &request.key {
        Some(key) => xxh3_64(key.key.as_bytes()) % u64::from(shards),
        None => reachable(engine, collection.uid, request.number % u64::from(shards), shards).await,
    };
    let groups = share_out(request.items, shards, home as u32, request.key.is_some());
    let time_ms = chrono::Utc::now().timestamp_millis();
    let send = |group: Group| {
        let source = SourceName::push();
        let partition = group.partition as i32;
        let shard = ShardId {
            collection: collection.uid,
            number: shard_of(&source, partition, shards),
        };
        let push = Push {
            shard,
            partition,
            rules: Rules::default(),
            request: request.key.clone(),
            time_ms,
            level: LEVEL,
            items: group.items,
        };
        let deadline = request.deadline;
        async move {
            let pushed = send_unless_dropped(engine, name, push, deadline).await?;
            engine.acknowledged(shard, pushed.position.clone());
            Ok::<_, Problem>((pushed, group.indexes))
        }
    };
    // Nothing is written before every part of it could be: what is away then refuses the whole, and nobody has to find
    // out which part is stored.
    let ready_by = std::time::Instant::now() + AWAY_WAIT_MAX;
    let ready = groups.iter().map(|group| {
        let (partition, number) = (
            group.partition as i32,
            shard_of(&SourceName::push(), group.partition as i32, shards),
        );
        engine.roles.pushes.ready(
            ShardId {
                collection: collection.uid,
                number,
            },
            partition,
            ready_by,
        )
    });
    stream::iter(ready.collect::<Vec<_>>())
        .buffer_unordered(PARTITIONS_AT_ONCE_MAX)
        .try_collect::<()>()
        .await?;
    let mut outcome = Outcome::default();
    let mut groups = groups.into_iter();
    if let Some(first) = groups.next() {
        let (pushed, indexes) = send(first).await?;
        outcome.add(pushed, indexes);
    }
    let mut others = stream::iter(groups.map(send)).buffered(PARTITIONS_AT_ONCE_MAX);
    while let Some(sent) = others.next().await {
        let (pushed, indexes) = sent.map_err(|problem| partly(&problem))?;
        outcome.add(pushed, indexes);
    }
    outcome.errors.sort_by_key(|error| error.index);
    outcome.errors.truncate(PUSH_ERRORS_MAX);
    Ok(outcome)
}

/// The partition whose turn it is, or the next one that can be reached: a push that may go anywhere does not wait for a
/// leaf that is away.
async fn reachable(engine: &Engine, collection: CollectionUid, turn: u64, shards: u32) -> u64 {
    for next in (turn..turn + u64::from(shards)).take(PARTITIONS_TRIED_MAX) {
        let partition = next % u64::from(shards);
        let shard = ShardId {
            collection,
            number: shard_of(&SourceName::push(), partition as i32, shards),
        };
        if engine.roles.pushes.reachable(shard, partition as i32).await {
            return partition;
        }
    }
    turn
}

async fn collection_or_new(engine: &Engine, name: &CollectionName) -> Result<Collection, Problem> {
    let catalog = engine.catalog();
    if let Some(collection) = catalog.collections.get(name) {
        return Ok(collection.clone());
    }
    let settings = CollectionSettings {
        shards: engine.options.push_shards.max(1),
        ..CollectionSettings::default()
    };
    let catalog = engine
        .roles
        .changes
        .propose(
            Change::CreateCollection {
                name: name.clone(),
                settings,
                placement: Vec::new(),
            },
            None,
        )
        .await?;
    let created = catalog.collections.get(name).cloned();
    created.ok_or_else(|| {
        Problem::new(
            Code::Conflict,
            format!("collection {name} was dropped at the same moment"),
        )
        .hint("repeat the push")
    })
}

/// Writes one partition's share, unless its collection is dropped meanwhile.
async fn send_unless_dropped(
    engine: &Engine,
    name: &CollectionName,
    push: Push,
    deadline: Instant,
) -> Result<Pushed, Problem> {
    let uid = push.shard.collection;
    let mut catalog = engine.roles.changes.catalog();
    let dropped = || {
        Problem::new(
            Code::Conflict,
            format!("collection {name} was dropped while the push was under way"),
        )
        .hint("what was pushed was dropped with it; push again to create the collection anew")
    };
    tokio::select! {
        biased;
        sent = send(engine, push, deadline) => match sent {
            Err(problem) if problem.code == Code::NotFound => Err(dropped()),
            sent => sent,
        },
        Ok(_) = catalog.wait_for(|catalog| catalog.collection(uid).is_none()) => Err(dropped()),
    }
}

/// Writes one partition's share, waiting for room until the deadline.
async fn send(engine: &Engine, push: Push, deadline: Instant) -> Result<Pushed, Problem> {
    let mut pause = PAUSE_FIRST;
    loop {
        let outcome_by = Instant::now() + OUTCOME_WAIT_MAX;
        let answer = tokio::time::timeout_at(
            outcome_by,
            engine.roles.pushes.push(push.clone(), outcome_by.into_std()),
        )
        .await;
        match answer {
            Ok(Err(problem)) if problem.code == Code::Busy && Instant::now() + pause < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LAST);
            }
            Ok(result) => return result,
            Err(_) => {
                let detail = format!("no answer from the shard within {} seconds", OUTCOME_WAIT_MAX.as_secs());
                return Err(Problem::new(Code::UnknownOutcome, detail)
                    .hint("repeat it with the same Idempotency-Key: it is applied once"));
            }
        }
    }
}

/// The problem of a request of which a part is stored already.
fn partly(problem: &Problem) -> Problem {
    Problem::new(
        Code::UnknownOutcome,
        format!("one part of the push is stored and another is not: {problem}"),
    )
    .hint("repeat it with the same Idempotency-Key: each part is applied once")
}

/// Nobody can repeat a push that has no key without harm.
fn without_key(problem: Problem) -> Problem {
    match problem.code {
        Code::UnknownOutcome => problem.hint(
            "look for its documents before you send it again; a push with an Idempotency-Key can always be sent again",
        ),
        _ => problem,
    }
}

/// What one partition gets.
#[derive(Debug, PartialEq)]
struct Group {
    partition: u32,
    items: Vec<Bytes>,
    /// Where its items stood in the request; none where it has all.
    indexes: Option<Vec<u64>>,
}

/// Shares items out over partitions, the request's own first: it learns of a keyed request even where none of the items
/// is its, so that the same key with another body is noticed wherever its items go.
fn share_out(items: Vec<Bytes>, partitions: u32, home: u32, keyed: bool) -> Vec<Group> {
    if partitions == 1 {
        return vec![Group {
            partition: 0,
            items,
            indexes: None,
        }];
    }
    let places: Vec<u32> = items
        .iter()
        .map(|item| id_hash(item).map_or(home, |hash| (hash % u64::from(partitions)) as u32))
        .collect();
    if places.iter().all(|place| *place == home) {
        return vec![Group {
            partition: home,
            items,
            indexes: None,
        }];
    }
    let mut groups: std::collections::BTreeMap<(bool, u32), Group> = std::collections::BTreeMap::new();
    if keyed {
        groups.insert(
            (false, home),
            Group {
                partition: home,
                items: Vec::new(),
                indexes: Some(Vec::new()),
            },
        );
    }
    for (index, (item, partition)) in items.into_iter().zip(places).enumerate() {
        let empty = || Group {
            partition,
            items: Vec::new(),
            indexes: Some(Vec::new()),
        };
        let group = groups.entry((partition != home, partition)).or_insert_with(empty);
        group.items.push(item);
        group.indexes.get_or_insert_default().push(index as u64);
    }
    groups.into_values().collect()
}

/// The hash of a document's own id, if it has one that may be one.
fn id_hash(item: &[u8]) -> Option<u64> {
    // The key may be spelled with an escape; only then, or where it stands as it is, the document is worth reading.
    let has = |needle: &[u8]| item.windows(needle.len()).any(|window| window == needle);
    if !has(b"\"_id\"") && !has(b"\\u") {
        return None;
    }
    match proto::json::parse(item).ok()?.get("_id")? {
        Value::Text(text) => Some(xxh3_64(text.as_bytes())),
        Value::Int(int) => Some(xxh3_64(int.to_string().as_bytes())),
        _ => None,
    }
}

impl Outcome {
    /// Whether an earlier request under the same key had stored all of it.
    pub fn repeated(&self) -> bool {
        self.parts > 0 && self.parts_repeated == self.parts
    }

    fn add(&mut self, pushed: Pushed, indexes: Option<Vec<u64>>) {
        self.parts += 1;
        self.parts_repeated += usize::from(pushed.repeated);
        self.accepted += pushed.accepted;
        self.rejected += pushed.rejected;
        self.position.advance(
            &pushed.position.source,
            pushed.position.partition,
            pushed.position.offset,
        );
        let place = |index: u64| {
            indexes
                .as_ref()
                .and_then(|all| all.get(index as usize))
                .copied()
                .unwrap_or(index)
        };
        self.errors.extend(pushed.errors.into_iter().map(|error| ItemError {
            index: place(error.index),
            ..error
        }));
    }
}

#[cfg(test)]
mod tests {
    use proto::Position;

    use super::*;

    fn items(texts: &[&str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect()
    }

    #[test]
    fn a_body_without_ids_stays_together() {
        let body = items(&["{\"a\":1}", "oops", "{\"b\":{\"_id\":7}}"]);
        assert_eq!(
            share_out(body.clone(), 8, 5, true),
            vec![Group {
                partition: 5,
                items: body,
                indexes: None
            }]
        );
    }

    #[test]
    fn the_same_id_goes_to_the_same_partition_whatever_its_spelling() {
        let spellings = [
            "{\"_id\":\"x1\"}",
            "{\"a\":0,\"_id\":\"\\u0078\\u0031\"}",
            "{\"\\u005fid\":\"x1\"}",
            "{\"_id\":\"no\",\"_id\":\"x1\"}",
        ];
        let hashes: Vec<Option<u64>> = spellings.iter().map(|item| id_hash(item.as_bytes())).collect();
        assert!(
            hashes.iter().all(|hash| hash.is_some() && *hash == hashes[0]),
            "{hashes:?}"
        );
        assert_eq!(
            id_hash(b"{\"_id\":7}"),
            id_hash(b"{\"_id\":\"7\"}"),
            "an integer is an id by its text"
        );
        assert_eq!(id_hash(b"{\"_id\":{}}"), None);
    }

    #[test]
    fn shares_keep_order_and_know_where_their_items_stood() {
        let body: Vec<String> = (0..100).map(|i| format!("{{\"_id\":{i}}}")).collect();
        let body = items(&body.iter().map(String::as_str).collect::<Vec<_>>());
        let groups = share_out(body.clone(), 4, 2, false);
        assert_eq!(groups[0].partition, 2, "the request's own partition is first");
        let mut seen = 0;
        for group in &groups {
            let indexes = group.indexes.clone().expect("the body is shared out");
            assert!(indexes.is_sorted());
            for (item, index) in group.items.iter().zip(&indexes) {
                assert_eq!(*item, body[*index as usize]);
            }
            seen += indexes.len();
        }
        assert_eq!((seen, groups.len()), (100, 4));
    }

    #[test]
    fn a_request_is_held_in_its_own_partition_even_where_no_item_is_its() {
        let elsewhere = (0..)
            .find(|id| id_hash(format!("{{\"_id\":{id}}}").as_bytes()).is_some_and(|hash| hash % 4 != 2))
            .expect("an id");
        let body = items(&[&format!("{{\"_id\":{elsewhere}}}")]);
        let held = |keyed| {
            share_out(body.clone(), 4, 2, keyed)
                .iter()
                .map(|group| (group.partition == 2, group.items.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(held(true), [(true, 0), (false, 1)]);
        assert_eq!(held(false), [(false, 1)]);
    }

    #[test]
    fn errors_name_the_index_that_the_client_knows() {
        let error = |index| ItemError {
            index,
            code: "not_json".into(),
            detail: String::new(),
        };
        let position = Position {
            source: SourceName::push(),
            partition: 3,
            offset: 9,
        };
        let mut outcome = Outcome::default();
        outcome.add(
            Pushed {
                accepted: 1,
                rejected: 2,
                errors: vec![error(0), error(2)],
                position,
                repeated: false,
            },
            Some(vec![4, 8, 15]),
        );
        assert_eq!(outcome.errors.iter().map(|e| e.index).collect::<Vec<_>>(), [4, 15]);
        assert_eq!(outcome.position.to_string(), "push/3@9");
    }
}
