//! Views that are open on the leaves of a cluster: one call to each leaf opens them and, if the scan is known
//! beforehand, begins to scan them. Each shard is opened on one of its replicas, and scanned there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    client::{ASK_WAIT, Peer},
    cluster::NodeName,
    ingest::ShardId,
    wire::{
        ingest::{positions, require},
        leaf::{self as wire, open_outcome::Outcome, scan_part::Part},
        problem::malformed,
    },
};
use tonic::Status;

use super::{
    RemoteScan, control, data, failed,
    leaf_scan::{LeafParts, scan_leaf},
    lease::{Lease, id_bytes},
    path_tables::CachedPaths,
};
use crate::{
    scan::{ScanRequest, ScanStream},
    views::{OpenOutcomes, OpenRequest, Opened, ReadViews, ShardView, WantedShards},
    wire::{encode_request, is_scanned},
};

/// The parts of the answers of a leaf.
type PartStream = Box<tonic::Streaming<wire::ScanPart>>;

/// Views that are open on leaves.
pub(super) struct RemoteViews {
    client: RemoteScan,
    lease: Lease,
    /// The leaf on which the view of each shard is open.
    opened_on: Mutex<HashMap<ShardId, Peer>>,
}

/// What a leaf answered to the call that opens views: an outcome for each, and the scan that it has begun.
type LeafAnswer = Result<(OpenOutcomes, Option<PartStream>), Problem>;

/// A leaf, and the indexes of shards.
type IndexesOnLeaf = (Peer, Vec<usize>);

/// What happens while views are opened.
enum Event {
    /// A leaf has answered for the shards with these indexes.
    Answered(Box<IndexesOnLeaf>, LeafAnswer),
    /// A leaf that was asked about these takes longer than usual.
    Slow(Vec<usize>),
    /// No replica has opened this one, but another one may serve by now.
    Anew(usize),
}

/// How often a shard that no replica opens is looked up again, because it may be moving …
const LOOKED_UP_MAX: u32 = 5;
/// … and after which pause.
const LOOKED_UP_AFTER: Duration = Duration::from_millis(100);

/// What is known of a shard that is being opened.
struct Opening {
    /// The replicas that were not asked yet, the next one in front.
    replicas: VecDeque<Peer>,
    /// The leaves that were asked.
    asked: Vec<NodeName>,
    /// How often it was looked up again.
    looked_up: u32,
    /// Calls that are not answered yet.
    calls: u32,
    /// Why each replica that answered has not opened it.
    refusals: Vec<Problem>,
    outcome: Option<Result<ShardView, Problem>>,
}

/// What is to be done for a shard that is being opened.
enum Next {
    /// It is decided, or another leaf has not answered yet.
    Nothing,
    AskAnother,
    LookUpAgain,
}

impl Opening {
    /// Notes what a leaf has answered.
    fn note(&mut self, outcome: Result<ShardView, Problem>, is_moving: impl FnOnce() -> bool) -> Next {
        self.calls -= 1;
        if self.outcome.is_some() {
            return Next::Nothing;
        }
        // It has waited until the deadline, after which a further leaf is of no use.
        let is_late = match &outcome {
            Err(problem) if problem.code == Code::Timeout => true,
            Err(problem) if problem.code.is_of_one_replica() => false,
            _ => {
                self.outcome = Some(outcome);
                return Next::Nothing;
            }
        };
        self.refusals.extend(outcome.err());
        if !is_late && !self.replicas.is_empty() {
            Next::AskAnother
        } else if self.calls > 0 {
            Next::Nothing
        } else if !is_late && self.looked_up == 0 && is_moving() {
            self.looked_up = 1;
            Next::LookUpAgain
        } else {
            self.refuse();
            Next::Nothing
        }
    }

    /// Notes which leaves serve the shard by now.
    fn note_holders(&mut self, holders: Vec<Peer>) -> Next {
        let asked = &self.asked;
        let others = holders.into_iter().filter(|leaf| !asked.contains(&leaf.name));
        self.replicas.extend(others);
        if !self.replicas.is_empty() {
            Next::AskAnother
        } else if self.looked_up < LOOKED_UP_MAX {
            self.looked_up += 1;
            Next::LookUpAgain
        } else {
            self.refuse();
            Next::Nothing
        }
    }

    /// The answer if no replica opens it: what each has said, and what the last one hints at.
    fn refuse(&mut self) {
        let mut refusals = std::mem::take(&mut self.refusals);
        let Some(mut last) = refusals.pop() else { return };
        let mut details: Vec<String> = Vec::new();
        for detail in refusals.into_iter().map(|problem| problem.detail) {
            if detail != last.detail && !details.contains(&detail) {
                details.push(detail);
            }
        }
        details.push(last.detail);
        last.detail = details.join("; ");
        self.outcome = Some(Err(last));
    }
}

/// Looks a shard up again after a pause.
fn anew<'a>(index: usize) -> BoxFuture<'a, Event> {
    let pause = async move {
        tokio::time::sleep(LOOKED_UP_AFTER).await;
        Event::Anew(index)
    };
    pause.boxed()
}

impl RemoteViews {
    /// Opens views, and begins the expected scan if every leaf can.
    pub(super) async fn open(client: RemoteScan, request: OpenRequest<'_>) -> Opened {
        let lease = Lease::new(client.releases.clone(), request.renewed_until, request.cancelled);
        let views = Self {
            client,
            lease,
            opened_on: Mutex::default(),
        };
        let OpenRequest {
            shards,
            deadline,
            expected,
            ..
        } = request;
        let (outcomes, prefetched) = views.open_shards(shards, deadline, expected.as_ref()).await;
        Opened {
            outcomes,
            prefetched,
            views: Box::new(views),
        }
    }

    /// Opens each shard on one of its replicas. Another one is asked if that is away or does not serve and, in addition,
    /// if it takes longer than usual: the first answer counts.
    async fn open_shards(
        &self,
        shards: &WantedShards,
        deadline: Instant,
        expected: Option<&ScanRequest>,
    ) -> (OpenOutcomes, Option<Vec<ScanStream>>) {
        let mut opening: Vec<Opening> = shards.iter().map(|(shard, _)| self.opening(*shard)).collect();
        let is_placed = opening.iter().all(|shard| shard.outcome.is_none());
        let scan = expected.filter(|_| is_placed);
        let scan = scan.and_then(|request| Some((encode_request(request).ok()?, request.deadline)));
        let mut events = FuturesUnordered::new();
        let all: Vec<usize> = (0..shards.len()).collect();
        let message = scan.as_ref().map(|(message, _)| message);
        self.ask_next(&mut events, &mut opening, &all, shards, deadline, message);
        let mut started = scan.as_ref().map(|_| Vec::new());
        while opening.iter().any(|shard| shard.outcome.is_none()) {
            let Some(event) = events.next().await else { break };
            match event {
                Event::Slow(indexes) => {
                    let late = indexes
                        .into_iter()
                        .filter(|index| opening[*index].outcome.is_none())
                        .collect::<Vec<_>>();
                    self.ask_next(&mut events, &mut opening, &late, shards, deadline, None);
                }
                Event::Anew(index) => {
                    let holders = self.client.leaves.holders(shards[index].0).unwrap_or_default();
                    match opening[index].note_holders(holders) {
                        Next::Nothing => {}
                        Next::AskAnother => {
                            self.ask_next(&mut events, &mut opening, &[index], shards, deadline, None);
                        }
                        Next::LookUpAgain => events.push(anew(index)),
                    }
                }
                Event::Answered(of, answer) => {
                    let (leaf, indexes) = *of;
                    let (outcomes, parts) = match answer {
                        Ok((outcomes, parts)) => (outcomes, parts),
                        Err(problem) => (indexes.iter().map(|_| Err(problem.clone())).collect(), None),
                    };
                    let mut again = Vec::new();
                    let mut decides_all = true;
                    for (index, outcome) in indexes.iter().zip(outcomes) {
                        let (shard, id) = (&mut opening[*index], shards[*index].0);
                        let decides = shard.outcome.is_none() && outcome.is_ok();
                        if decides {
                            self.opened_on.lock().insert(id, leaf.clone());
                        }
                        decides_all &= decides;
                        match shard.note(outcome, || self.client.leaves.is_moving(id)) {
                            Next::Nothing => {}
                            Next::AskAnother => again.push(*index),
                            Next::LookUpAgain => events.push(anew(*index)),
                        }
                    }
                    // The scans that were begun are of use only if they are of the views that count.
                    started = started.zip(parts.filter(|_| decides_all)).map(|(mut started, parts)| {
                        started.push((leaf, indexes, LeafParts::Started(parts)));
                        started
                    });
                    self.ask_next(&mut events, &mut opening, &again, shards, deadline, None);
                }
            }
        }
        let missing = || Err(malformed("a view is missing"));
        let outcomes = opening
            .into_iter()
            .map(|shard| shard.outcome.unwrap_or_else(missing))
            .collect();
        let prefetched = started
            .zip(scan)
            .map(|(started, (_, deadline))| streams(Vec::new(), started, deadline));
        (outcomes, prefetched)
    }

    fn opening(&self, shard: ShardId) -> Opening {
        let (replicas, outcome) = match self.client.leaves.holders(shard) {
            Ok(replicas) => (replicas.into(), None),
            Err(problem) => (VecDeque::new(), Some(Err(problem))),
        };
        Opening {
            replicas,
            asked: Vec::new(),
            looked_up: 0,
            calls: 0,
            refusals: Vec::new(),
            outcome,
        }
    }

    /// Asks the next replica of each of these shards, with one call to each leaf. Shards without a further one are left
    /// out.
    fn ask_next<'a>(
        &'a self,
        events: &mut FuturesUnordered<BoxFuture<'a, Event>>,
        opening: &mut [Opening],
        indexes: &[usize],
        shards: &'a WantedShards,
        deadline: Instant,
        scan: Option<&wire::ScanRequest>,
    ) {
        let mut by_leaf: BTreeMap<NodeName, IndexesOnLeaf> = BTreeMap::new();
        for index in indexes {
            let Some(leaf) = opening[*index].replicas.pop_front() else {
                continue;
            };
            opening[*index].calls += 1;
            opening[*index].asked.push(leaf.name.clone());
            by_leaf
                .entry(leaf.name.clone())
                .or_insert_with(|| (leaf, Vec::new()))
                .1
                .push(*index);
        }
        let loads = self.client.leaves.loads();
        for (leaf, indexes) in by_leaf.into_values() {
            let has_other = indexes.iter().any(|index| !opening[*index].replicas.is_empty());
            if has_other {
                let slow_after = loads.slow_after(&leaf.name);
                let of = indexes.clone();
                let slow = async move {
                    tokio::time::sleep(slow_after).await;
                    Event::Slow(of)
                };
                events.push(slow.boxed());
            }
            let wanted = LeafShards::new(self, &leaf, shards, &indexes);
            let call = loads.begin(&leaf.name);
            let scan = scan.cloned();
            let peer = leaf.clone();
            let answered = async move {
                let answer = match scan {
                    Some(scan) => wanted.open_and_scan(deadline, scan).await,
                    None => wanted.open(deadline).await.map(|outcomes| (outcomes, None)),
                };
                call.end(&answer);
                Event::Answered(Box::new((peer, indexes)), answer)
            };
            events.push(answered.boxed());
        }
    }

    /// The leaves on which the views of these shards are open, each with the indexes of its shards.
    fn by_leaf(&self, shards: &[ShardId]) -> (Vec<IndexesOnLeaf>, Vec<(usize, Problem)>) {
        let opened_on = self.opened_on.lock();
        let (mut by_leaf, mut without_leaf) = (BTreeMap::<NodeName, IndexesOnLeaf>::new(), Vec::new());
        for (index, shard) in shards.iter().enumerate() {
            match opened_on.get(shard) {
                Some(leaf) => by_leaf
                    .entry(leaf.name.clone())
                    .or_insert_with(|| (leaf.clone(), Vec::new()))
                    .1
                    .push(index),
                None => without_leaf.push((index, malformed("a shard is scanned that was not opened"))),
            }
        }
        (by_leaf.into_values().collect(), without_leaf)
    }
}

#[async_trait]
impl ReadViews for RemoteViews {
    async fn reopen(&mut self, shards: &WantedShards, deadline: Instant) -> OpenOutcomes {
        self.open_shards(shards, deadline, None).await.0
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let message = match encode_request(&request) {
            Ok(message) => message,
            Err(problem) => return request.shards.iter().map(|_| failed(problem.clone())).collect(),
        };
        let (by_leaf, without_leaf) = self.by_leaf(&request.shards);
        let unrequested = |(leaf, indexes): IndexesOnLeaf| {
            let message = wire::ScanRequest {
                views: id_bytes(self.lease.id),
                shards: indexes.iter().map(|index| request.shards[*index].into()).collect(),
                ..message.clone()
            };
            (leaf, indexes, LeafParts::Unrequested(Box::new(message)))
        };
        streams(
            without_leaf,
            by_leaf.into_iter().map(unrequested).collect(),
            request.deadline,
        )
    }
}

/// The answers of all shards, in the order of their indexes.
fn streams(
    without_leaf: Vec<(usize, Problem)>,
    by_leaf: Vec<(Peer, Vec<usize>, LeafParts)>,
    deadline: Instant,
) -> Vec<ScanStream> {
    let mut answers: Vec<(usize, ScanStream)> = without_leaf
        .into_iter()
        .map(|(index, problem)| (index, failed(problem)))
        .collect();
    for (leaf, indexes, parts) in by_leaf {
        let of_leaf = scan_leaf(leaf, indexes.len(), parts, deadline);
        answers.extend(indexes.into_iter().zip(of_leaf));
    }
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The shards of one call to a leaf, each with the positions that it must cover and the path table that is known of it.
struct LeafShards<'a> {
    views: &'a RemoteViews,
    leaf: Peer,
    shards: Vec<(&'a (ShardId, proto::PositionVector), Option<CachedPaths>)>,
}

impl<'a> LeafShards<'a> {
    fn new(views: &'a RemoteViews, leaf: &Peer, shards: &'a WantedShards, indexes: &[usize]) -> Self {
        views.lease.add(leaf);
        let with_paths = |index: &usize| {
            let wanted = &shards[*index];
            (wanted, views.client.paths.of(wanted.0))
        };
        Self {
            views,
            leaf: leaf.clone(),
            shards: indexes.iter().map(with_paths).collect(),
        }
    }

    fn message(&self, wait: Duration) -> wire::OpenRequest {
        let wanted = self.shards.iter().map(|((shard, at_least), cached)| wire::Wanted {
            shard: Some((*shard).into()),
            at_least: positions(at_least),
            paths_known: cached.as_ref().map_or(0, |(hash, _)| *hash),
        });
        wire::OpenRequest {
            views: id_bytes(self.views.lease.id),
            shards: wanted.collect(),
            wait_ms: wait.as_millis() as u64,
        }
    }

    /// Opens the views. The leaf waits until the deadline for the positions; after that it still needs time to build
    /// the views.
    async fn open(self, deadline: Instant) -> Result<OpenOutcomes, Problem> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let message = self.leaf.request(self.message(wait), wait + ASK_WAIT);
        let answer = control(&self.leaf).open(message).await;
        let answer = answer.map_err(|status| self.leaf.problem(status))?;
        self.decode(answer.into_inner())
    }

    /// Opens the views, and begins to scan them. There is no scan if the leaf could not open all of them, or their path
    /// tables are not those that were known.
    async fn open_and_scan(self, deadline: Instant, scan: wire::ScanRequest) -> LeafAnswer {
        let wait = deadline.saturating_duration_since(Instant::now());
        let message = wire::OpenAndScanRequest {
            open: Some(self.message(wait)),
            scan: Some(wire::ScanRequest {
                views: id_bytes(self.views.lease.id),
                shards: self.shards.iter().map(|((shard, _), _)| (*shard).into()).collect(),
                ..scan
            }),
        };
        let first = async {
            let message = self.leaf.request(message, wait + ASK_WAIT);
            let mut parts = Box::new(data(&self.leaf).open_and_scan(message).await?.into_inner());
            let first = parts.message().await?;
            Ok((first, parts))
        };
        let answered = tokio::time::timeout(wait + ASK_WAIT, first).await;
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not open the read views")));
        let (first, parts) = answered.map_err(|status| self.leaf.problem(status))?;
        let Some(Part::Opened(opened)) = first.and_then(|first| first.part) else {
            return Err(malformed("the read views are missing"));
        };
        let is_scanned = is_scanned(&opened);
        Ok((self.decode(opened)?, is_scanned.then_some(parts)))
    }

    fn decode(self, answer: wire::OpenAnswer) -> Result<OpenOutcomes, Problem> {
        if answer.outcomes.len() != self.shards.len() {
            return Err(malformed("the number of views differs from the number of shards"));
        }
        let tables = &self.views.client.paths;
        let decode =
            |(outcome, ((shard, _), cached)): (wire::OpenOutcome, (&(ShardId, _), Option<CachedPaths>))| match require(
                outcome.outcome,
                "the view",
            )? {
                Outcome::View(view) => tables.decode(*shard, view, cached),
                Outcome::Problem(problem) => Err(problem.into()),
            };
        Ok(answer.outcomes.into_iter().zip(self.shards).map(decode).collect())
    }
}
