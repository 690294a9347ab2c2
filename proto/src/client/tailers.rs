//! All tailers as one: what they know of sources, and the log of pushes behind them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{ASK_WAIT, Peer};
use crate::{
    address::SourceName,
    catalog::{Catalog, CollectionName, SourceSettings},
    cluster::{Members, Role},
    ingest::{Ingest, Push, Pushed, Pushes, ShardId},
    limits::{MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    problem::{Code, Problem},
    record::{Record, RequestKey},
    status::{SourceState, TailStatus},
    tailer::Tailing,
    wire::{
        ingest::there,
        problem::malformed,
        tailer::{self as wire, pushes_client::PushesClient, sources_client::SourcesClient},
    },
};

/// How long one tailer may take to put a push into the log.
const APPEND_WAIT: Duration = Duration::from_secs(10);
/// How long a push is tried again of which surely nothing is in the log yet.
const NOT_BEGUN_WAIT: Duration = Duration::from_secs(5);
/// How long a push that is in the log waits for a leaf that does not answer.
const LEAF_AWAY_WAIT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How soon it is noticed that nobody reads what a push waits for.
const STOPPED_NOTICED: Duration = Duration::from_secs(2);
/// Within what time a shard has to answer to be chosen for a push, and how long that is believed.
const REACHABLE_WITHIN: Duration = Duration::from_millis(500);
const REACHABLE_FOR: Duration = Duration::from_secs(1);
/// Shards whose answer is remembered.
const SHARDS_MAX: usize = 65_536;

/// All tailers of a cluster. A cheap handle.
#[derive(Debug, Clone)]
pub struct Tailers {
    peers: Arc<Vec<Peer>>,
    turn: Arc<AtomicUsize>,
}

impl Tailers {
    /// The tailers among the members.
    pub fn new(members: &Members, catalog: watch::Receiver<Arc<Catalog>>) -> Result<Self, Problem> {
        let peers = members
            .of(Role::Tailer)
            .map(|(name, url)| Peer::new(name.clone(), url, catalog.clone()));
        Ok(Self {
            peers: Arc::new(peers.collect::<Result<_, _>>()?),
            turn: Arc::default(),
        })
    }

    /// All of them, another one first each time.
    fn in_turn(&self) -> impl Iterator<Item = &Peer> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.peers.len()).map(move |at| &self.peers[(first + at) % self.peers.len()])
    }

    /// The first answer of one that answers.
    async fn any<T, F>(&self, ask: impl Fn(Peer) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut last =
            Problem::new(Code::Unavailable, "this node knows no tailer").hint("add one to [cluster] tailers");
        for peer in self.in_turn() {
            match ask(peer.clone()).await {
                Err(problem) if problem.code == Code::Unavailable => last = problem,
                done => return done,
            }
        }
        Err(last)
    }
}

fn sources(peer: &Peer) -> SourcesClient<Channel> {
    SourcesClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn json(settings: &SourceSettings) -> Result<bytes::Bytes, Problem> {
    serde_json::to_vec(settings)
        .map(Into::into)
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))
}

#[async_trait]
impl Tailing for Tailers {
    async fn status(&self) -> Result<Vec<TailStatus>, Problem> {
        let ask = |peer: &Peer| {
            let peer = peer.clone();
            async move {
                let answer = sources(&peer)
                    .status(peer.request(wire::StatusRequest {}, ASK_WAIT))
                    .await;
                let rows = answer.map_err(|status| peer.problem(status))?.into_inner().rows;
                rows.into_iter()
                    .map(TailStatus::try_from)
                    .collect::<Result<Vec<_>, Problem>>()
            }
        };
        let answers = join_all(self.peers.iter().map(ask)).await;
        if let (false, Some(Err(problem))) = (answers.iter().any(Result::is_ok), answers.first()) {
            return Err(problem.clone());
        }
        // A tailer that is away reads nothing: its partitions are others' by now, or nobody's.
        Ok(merged(answers.into_iter().flatten().flatten().collect()))
    }

    async fn ends(&self, settings: &SourceSettings) -> Result<Vec<i64>, Problem> {
        let settings = json(settings)?;
        self.any(|peer| {
            let question = wire::TopicRequest {
                settings: settings.clone(),
            };
            async move {
                let answer = sources(&peer).ends(peer.request(question, ASK_WAIT * 2)).await;
                Ok(answer.map_err(|status| peer.problem(status))?.into_inner().ends)
            }
        })
        .await
    }

    async fn preview(&self, settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
        let settings = json(settings)?;
        self.any(|peer| {
            let question = wire::PreviewRequest {
                settings: settings.clone(),
                records: records as u64,
            };
            async move {
                let mut client =
                    SourcesClient::new(peer.data.clone()).max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX);
                let answer = client.preview(peer.request(question, ASK_WAIT * 3)).await;
                let mut stream = answer.map_err(|status| peer.problem(status))?.into_inner();
                let mut found = Vec::new();
                while let Some(one) = stream.message().await.map_err(|status| peer.problem(status))? {
                    found.push((one.partition, there(one.record, "the record")?.try_into()?));
                }
                Ok(found)
            }
        })
        .await
    }
}

/// What several tailers say of the same sources. Where one reads a partition, what the others say of the whole source
/// (they read none of it) is left out; where two say something of one partition, it just changes hands, and the one
/// with an end known is right.
fn merged(rows: Vec<TailStatus>) -> Vec<TailStatus> {
    let mut by_place: BTreeMap<(CollectionName, SourceName, Option<i32>), TailStatus> = BTreeMap::new();
    for row in rows {
        let place = (row.collection.clone(), row.source.clone(), row.partition);
        let sent = row.sent.max(by_place.get(&place).and_then(|known| known.sent));
        let kept = match by_place.remove(&place) {
            Some(known) if rank(&known) >= rank(&row) => known,
            _ => row,
        };
        by_place.insert(place, TailStatus { sent, ..kept });
    }
    let read: BTreeSet<(CollectionName, SourceName)> = by_place
        .keys()
        .filter(|(.., partition)| partition.is_some())
        .map(|(collection, source, _)| (collection.clone(), source.clone()))
        .collect();
    let kept = |((collection, source, partition), _): &(&(CollectionName, SourceName, Option<i32>), &TailStatus)| {
        partition.is_some() || !read.contains(&(collection.clone(), source.clone()))
    };
    by_place.iter().filter(kept).map(|(_, row)| row.clone()).collect()
}

fn rank(row: &TailStatus) -> (bool, bool) {
    (
        row.error.is_some(),
        row.end.is_some() && row.state != SourceState::Starting,
    )
}

impl From<TailStatus> for wire::TailStatus {
    fn from(row: TailStatus) -> Self {
        Self {
            collection: row.collection.as_str().to_owned(),
            source: row.source.as_str().to_owned(),
            partition: row.partition,
            state: row.state.word().to_owned(),
            end: row.end,
            lag: row.lag,
            sent: row.sent,
            error: row.error,
        }
    }
}

impl TryFrom<wire::TailStatus> for TailStatus {
    type Error = Problem;
    fn try_from(row: wire::TailStatus) -> Result<Self, Problem> {
        let state = SourceState::ALL
            .into_iter()
            .find(|state| state.word() == row.state)
            .ok_or_else(|| malformed("an unknown state of a source"))?;
        Ok(Self {
            collection: row
                .collection
                .parse()
                .map_err(|e: crate::address::Malformed| malformed(&e.to_string()))?,
            source: crate::wire::ingest::source(&row.source)?,
            partition: row.partition,
            state,
            end: row.end,
            lag: row.lag,
            sent: row.sent,
            error: row.error,
        })
    }
}

/// Pushes through the log: a tailer appends, and the answer comes when the leaf has taken it in.
pub struct LoggedPushes {
    tailers: Tailers,
    leaf: Arc<dyn Ingest>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Which shards answered when they were asked last, and when that was.
    answered: Mutex<HashMap<ShardId, (Instant, bool)>>,
    /// What the tailers have stopped, and when that was asked.
    stopped: Mutex<Option<(Instant, Arc<Stopped>)>>,
    /// One asks them, others go by what is known.
    asking: tokio::sync::Mutex<()>,
}

/// Partitions of pushes that are not read, and why.
type Stopped = BTreeMap<(CollectionName, i32), String>;

impl LoggedPushes {
    /// Through these tailers, into these leaves.
    pub fn new(tailers: Tailers, leaf: Arc<dyn Ingest>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            tailers,
            leaf,
            catalog,
            answered: Mutex::default(),
            stopped: Mutex::default(),
            asking: Default::default(),
        }
    }

    /// What of the pushes the tailers have stopped, as they said a moment ago.
    async fn stopped(&self) -> Arc<Stopped> {
        let known = self.stopped.lock().clone();
        if let Some((_, stopped)) = known.as_ref().filter(|(asked, _)| asked.elapsed() < REACHABLE_FOR) {
            return stopped.clone();
        }
        let known = known.map(|(_, stopped)| stopped).unwrap_or_default();
        let Ok(_asking) = self.asking.try_lock() else {
            return known;
        };
        let stopped = match tokio::time::timeout(REACHABLE_WITHIN, self.tailers.status()).await {
            Ok(Ok(rows)) => {
                let of_pushes = rows
                    .into_iter()
                    .filter(|row| row.source.is_push() && row.state == SourceState::Stopped);
                Arc::new(
                    of_pushes
                        .filter_map(|row| Some(((row.collection, row.partition?), row.error.unwrap_or_default())))
                        .collect(),
                )
            }
            _ => known,
        };
        *self.stopped.lock() = Some((Instant::now(), stopped.clone()));
        stopped
    }

    /// Why nothing that is pushed there becomes visible, if that is so: "the pushes of …".
    async fn why_stopped(&self, shard: ShardId, partition: i32) -> Option<String> {
        let stopped = self.stopped().await;
        let name = self.catalog.borrow().collection(shard.collection)?.0.clone();
        stopped
            .get(&(name.clone(), partition))
            .map(|why| format!("the pushes of {name}, partition {partition}, are stopped: {why}"))
    }

    /// Waits until the leaf has taken in what stands in the log.
    async fn outcome(
        &self,
        push: &Push,
        offset: i64,
        request: &RequestKey,
        deadline: Instant,
    ) -> Result<Pushed, Problem> {
        let not_visible = |why: &str| {
            Problem::new(
                Code::UnknownOutcome,
                format!("the push is in the log and not visible yet: {why}"),
            )
            .hint("it will be; repeat it with the same Idempotency-Key to learn its outcome")
        };
        let mut away_since = None;
        loop {
            let soon = deadline.min(Instant::now() + STOPPED_NOTICED);
            match self
                .leaf
                .pushed(push.shard, push.partition, offset, request, soon)
                .await
            {
                // A leaf answers busy while it opens the shard. The log already has the push, so the caller must not
                // take this for a refusal.
                Err(problem) if matches!(problem.code, Code::Unavailable | Code::Timeout | Code::Busy) => {
                    away_since = (problem.code == Code::Unavailable).then(|| away_since.unwrap_or_else(Instant::now));
                    let given_up = away_since.is_some_and(|since: Instant| since.elapsed() >= LEAF_AWAY_WAIT);
                    if given_up || Instant::now() + RETRY_PAUSE >= deadline {
                        return Err(not_visible(&problem.detail));
                    }
                    if let Some(why) = self.why_stopped(push.shard, push.partition).await {
                        return Err(not_visible(&why));
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                // Any other failure, too, comes after the push was stored, and must not read as if it was not.
                Err(problem) if !matches!(problem.code, Code::UnknownOutcome | Code::Conflict | Code::NotFound) => {
                    return Err(not_visible(&problem.detail));
                }
                done => return done,
            }
        }
    }

    /// Puts a push into the log: its offset there, and whether it surely stands there once. After a failure another
    /// tailer is asked: what is there twice is applied once. While surely nothing of it is in the log, it is given up
    /// soon; once that is unknown, it is tried until the deadline.
    async fn append(&self, push: &Push, request: &RequestKey, deadline: Instant) -> Result<(i64, bool), Problem> {
        let message = wire::AppendRequest {
            collection: bytes::Bytes::copy_from_slice(push.shard.collection.0.as_bytes()),
            partition: push.partition,
            request: Some(request.clone().into()),
            time_ms: push.time_ms,
            items: push.items.clone(),
        };
        let mut begun = false;
        let refused_at = deadline.min(Instant::now() + NOT_BEGUN_WAIT);
        loop {
            let mut last = None;
            for peer in self.tailers.in_turn() {
                let wait = APPEND_WAIT.min(deadline.saturating_duration_since(Instant::now()));
                let mut client =
                    PushesClient::new(peer.data.clone()).max_encoding_message_size(WRITE_MESSAGE_BYTES_MAX);
                match client.append(peer.request(message.clone(), wait)).await {
                    Ok(appended) => return Ok((appended.into_inner().offset, !begun)),
                    Err(status) => {
                        let (answered, unconnected) = (!status.details().is_empty(), never_connected(&status));
                        let problem = peer.problem(status);
                        if !matches!(
                            problem.code,
                            Code::Unavailable | Code::UnknownOutcome | Code::Timeout | Code::Busy
                        ) {
                            return Err(problem);
                        }
                        // A tailer that says so itself has not begun, nor has one that was never reached; of all others
                        // nobody knows.
                        begun |= !(unconnected || answered && matches!(problem.code, Code::Busy | Code::Unavailable));
                        last = Some(problem);
                    }
                }
            }
            let problem = last.unwrap_or_else(|| Problem::new(Code::Unavailable, "this node knows no tailer"));
            if Instant::now() + RETRY_PAUSE >= if begun { deadline } else { refused_at } {
                return Err(if begun { unknown(&problem) } else { not_begun(problem) });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Whether a shard answered a moment ago.
    fn answered_lately(&self, shard: ShardId) -> Option<bool> {
        let known = self.answered.lock().get(&shard).copied();
        known
            .filter(|(asked, _)| asked.elapsed() < REACHABLE_FOR)
            .map(|(_, answers)| answers)
    }

    fn note_answer(&self, shard: ShardId, answers: bool) {
        let mut answered = self.answered.lock();
        if answered.len() >= SHARDS_MAX {
            answered.clear();
        }
        answered.insert(shard, (Instant::now(), answers));
    }
}

/// Whether a call failed before there was a connection, so that the other side has not heard of it.
fn never_connected(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn not_begun(problem: Problem) -> Problem {
    match problem.code {
        Code::Unavailable => problem.hint("nothing of this request was stored: send it again later"),
        _ => problem,
    }
}

fn stopped_there(why: String) -> Problem {
    Problem::new(Code::Unavailable, why)
        .hint("other partitions go on: a push without a key and without ids goes to one of them")
}

fn unknown(problem: &Problem) -> Problem {
    Problem::new(
        Code::UnknownOutcome,
        format!("it is not known yet whether the push is stored: {}", problem.detail),
    )
    .hint("repeat it with the same Idempotency-Key: it is applied once")
}

#[async_trait]
impl Pushes for LoggedPushes {
    async fn push(&self, push: Push, deadline: Instant) -> Result<Pushed, Problem> {
        // Every push has a key, so that it may be appended again after a failure, and found again.
        let request = push.request.clone().unwrap_or_else(|| RequestKey {
            key: uuid::Uuid::now_v7().simple().to_string(),
            body: 0,
        });
        if let Some(why) = self.why_stopped(push.shard, push.partition).await {
            return Err(stopped_there(why));
        }
        let (offset, appended_once) = self.append(&push, &request, deadline).await?;
        let pushed = self.outcome(&push, offset, &request, deadline).await?;
        // What this very call may have put there twice is no repetition of an earlier request.
        Ok(Pushed {
            repeated: appended_once && pushed.position.offset != offset,
            ..pushed
        })
    }

    async fn ready(&self, shard: ShardId, partition: i32, deadline: Instant) -> Result<(), Problem> {
        if let Some(why) = self.why_stopped(shard, partition).await {
            return Err(stopped_there(why));
        }
        if self.answered_lately(shard) == Some(true) {
            return Ok(());
        }
        let source = SourceName::push();
        let holder = self
            .catalog
            .borrow()
            .collection(shard.collection)
            .and_then(|(_, collection)| collection.leaf_of(shard.number).cloned());
        let holder = holder.map_or_else(
            || format!("the leaf of shard {}", shard.number),
            |leaf| leaf.to_string(),
        );
        let mut last = Problem::new(Code::Unavailable, format!("{holder} does not answer"));
        loop {
            match tokio::time::timeout_at(deadline.into(), self.leaf.stored(shard, &source, partition)).await {
                Ok(Err(problem)) if problem.code == Code::Unavailable => last = problem,
                // Whatever else is wrong, the push itself finds out.
                Ok(_) => {
                    self.note_answer(shard, true);
                    return Ok(());
                }
                Err(_) => {}
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                self.note_answer(shard, false);
                return Err(not_begun(last));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn reachable(&self, shard: ShardId, partition: i32) -> bool {
        if self.why_stopped(shard, partition).await.is_some() {
            return false;
        }
        if let Some(answers) = self.answered_lately(shard) {
            return answers;
        }
        let source = SourceName::push();
        let asked = tokio::time::timeout(REACHABLE_WITHIN, self.leaf.stored(shard, &source, 0)).await;
        let answers = matches!(asked, Ok(Ok(_)));
        self.note_answer(shard, answers);
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{
        address::{Position, SourceName},
        catalog::CollectionUid,
        ingest::{Batch, Loss, PartitionStatus, Stored, Verdict},
        record::Rules,
    };

    /// A leaf that returns the given outcomes, one per call.
    struct Scripted(Mutex<VecDeque<Result<Pushed, Problem>>>);

    #[async_trait]
    impl Ingest for Scripted {
        async fn pushed(&self, _: ShardId, _: i32, _: i64, _: &RequestKey, _: Instant) -> Result<Pushed, Problem> {
            self.0.lock().pop_front().expect("an answer is left")
        }

        async fn write(&self, _: Batch) -> Result<Verdict, Problem> {
            unreachable!("nothing is written")
        }

        async fn stored(&self, _: ShardId, _: &SourceName, _: i32) -> Result<Stored, Problem> {
            unreachable!("nothing is stored")
        }

        async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
            unreachable!("there are no partitions")
        }

        async fn note_loss(&self, _: ShardId, _: Loss) -> Result<(), Problem> {
            unreachable!("nothing is lost")
        }

        async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
            unreachable!("nothing is lost")
        }
    }

    #[tokio::test]
    async fn a_push_that_is_in_the_log_is_never_refused() {
        let failure = |code| Err(Problem::new(code, "the shard is being opened"));
        let request = RequestKey {
            key: "k".into(),
            body: 0,
        };
        let shard = ShardId {
            collection: CollectionUid(uuid::Uuid::nil()),
            number: 0,
        };
        let push = Push {
            shard,
            partition: 0,
            rules: Rules::default(),
            request: None,
            time_ms: 0,
            level: 0,
            items: Vec::new(),
        };
        let pushed = Pushed {
            accepted: 1,
            rejected: 0,
            errors: Vec::new(),
            position: Position {
                source: SourceName::push(),
                partition: 0,
                offset: 7,
            },
            repeated: false,
        };
        let outcome = async |answers: Vec<Result<Pushed, Problem>>| {
            let catalog = watch::channel(Arc::default()).1;
            let tailers = Tailers::new(&Members::default(), catalog.clone()).expect("none");
            let pushes = LoggedPushes::new(tailers, Arc::new(Scripted(Mutex::new(answers.into()))), catalog);
            pushes
                .outcome(&push, 7, &request, Instant::now() + Duration::from_secs(60))
                .await
                .map_err(|problem| problem.code)
        };
        for passing in [Code::Busy, Code::Unavailable, Code::Timeout] {
            assert_eq!(
                outcome(vec![failure(passing), failure(passing), Ok(pushed.clone())]).await,
                Ok(pushed.clone()),
                "{passing:?}"
            );
        }
        for lasting in [Code::Internal, Code::TooLarge, Code::LimitReached] {
            assert_eq!(
                outcome(vec![failure(lasting)]).await,
                Err(Code::UnknownOutcome),
                "{lasting:?}"
            );
        }
        for of_the_push in [Code::Conflict, Code::NotFound, Code::UnknownOutcome] {
            assert_eq!(outcome(vec![failure(of_the_push)]).await, Err(of_the_push));
        }
    }
}
