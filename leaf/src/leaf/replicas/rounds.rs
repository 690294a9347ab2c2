//! The rounds in which a leaf asks the others that hold replicas of its shards: for grants, for what they have, and
//! whether they keep up. Then it proposes which replicas are behind, join or serve.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{join_all, ready},
    stream,
};
use proto::{
    Catalog, PositionVector, Problem,
    catalog::{Change, ReplicaState, RetiredReplica},
    clock::since_boot,
    cluster::NodeName,
    ingest::ShardId,
    replica::{Grant, GrantRequest, ReplicaPeers},
    tailer::Changes,
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    super::Leaf,
    ANSWER_WAIT, COMPARED_AT_ONCE,
    comparison::{Comparison, compare},
    grants::Floor,
};

const ROUND_EVERY: Duration = Duration::from_secs(1);
/// How long first grants are not asked for again.
const FIRST_GRANTS_PAUSE: Duration = Duration::from_millis(50);
/// A leaf that has not answered for this long, and not in two rounds, is behind.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// So is a replica that lacks for so many rounds what another one had before the first of them.
pub(super) const LACKING_ROUNDS_MAX: u32 = 4;
/// How long a replica that is behind waits before it joins again: one that does not keep up must not delay every push.
const JOIN_AFTER: Duration = Duration::from_secs(5);
/// So often a replica may have been left behind in the last [`LEFT_KEPT`] and wait no longer than that. Then it waits twice
/// as long each time, until …
const LEFT_MAX: u32 = 3;
/// … this long: each time writes three records to the change log.
const JOIN_AFTER_MAX: Duration = Duration::from_mins(1);
/// How long it is known that a replica was left behind.
const LEFT_KEPT: Duration = Duration::from_mins(10);
/// How long one waits that has ingested something else than another replica, until it is compared again.
const COMPARE_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// How long a replica that leaves is fed, so that no push waits for it: longer than any grant for it.
const LEAVING_FOR: Duration = Duration::from_secs(8);
/// Shards that are compared with one leaf in one round.
const COMPARED_MAX: usize = 1_000;
/// Shards of one change, so that it fits into a record of the change log. The next round proposes the rest.
const CHANGED_MAX: usize = 1_000;

/// What a leaf needs to keep its replicas serving.
pub struct ReplicaLinks {
    /// Its name …
    pub name: NodeName,
    /// … and its data folder.
    pub instance: Uuid,
    /// The leaves with replicas of the same shards.
    pub peers: Arc<dyn ReplicaPeers>,
    /// Accepts which replicas serve.
    pub changes: Arc<dyn Changes>,
}

/// What is known from the rounds before.
#[derive(Default)]
pub(super) struct RoundHistory {
    /// When each leaf was last asked and answered, and how often it has not answered since.
    pub(super) heard: HashMap<NodeName, (Duration, u32)>,
    /// What the open shards had in the last round.
    had: BTreeMap<ShardId, PositionVector>,
    /// What other leaves have confirmed to have.
    confirmed: HashMap<(NodeName, ShardId), PositionVector>,
    /// What a replica lacks that this leaf had, and for how many rounds it has.
    lacking: HashMap<(NodeName, ShardId), (PositionVector, u32)>,
    /// When the replicas of this leaf that are behind may join.
    pub(super) behind: HashMap<ShardId, Duration>,
    /// How often each replica of this leaf was left behind lately, and when it was last.
    left: HashMap<ShardId, (u32, Duration)>,
    /// Those that are behind and have ingested something else than another replica.
    pub(super) different: BTreeSet<ShardId>,
    /// Those that wait for a copy of another replica.
    pub(super) waiting: BTreeSet<ShardId>,
    /// Since when it has been known that a replica of another leaf is leaving.
    leaving: HashMap<(RetiredReplica, u64), Duration>,
    /// The number of the round.
    round: usize,
    pub(super) proposing: Option<JoinHandle<()>>,
    /// Compares replicas with the others, and proposes that those join which are equal. Returns which differ.
    pub(super) joining: Option<JoinHandle<Vec<ShardId>>>,
}

/// A replica on this leaf of a shard that has others.
struct Own {
    id: ShardId,
    state: ReplicaState,
    /// The other replicas, with their states.
    others: BTreeMap<NodeName, ReplicaState>,
}

impl Own {
    /// All of a leaf, as of a catalog.
    fn all(catalog: &Catalog, name: &NodeName) -> Vec<Self> {
        let mut all = Vec::new();
        for collection in catalog.collections.values() {
            for id in collection.shards() {
                let replicas = collection.replicas_of(id.number);
                let Some(state) = collection.replica_state(id.number, name).filter(|_| replicas.len() > 1) else {
                    continue;
                };
                let other = |leaf: &NodeName| Some((leaf.clone(), collection.replica_state(id.number, leaf)?));
                let others = replicas.iter().filter(|leaf| *leaf != name).filter_map(other).collect();
                all.push(Self { id, state, others });
            }
        }
        all
    }

    /// Whether it is to answer, and does not yet.
    fn must_catch_up(&self) -> bool {
        matches!(self.state, ReplicaState::Behind { .. } | ReplicaState::Joining { .. })
    }

    fn is_serving(&self) -> bool {
        self.state == ReplicaState::Serving
    }

    /// The leaves of the other replicas that serve.
    fn serving(&self) -> impl Iterator<Item = &NodeName> {
        let serving = self.others.iter().filter(|(_, state)| **state == ReplicaState::Serving);
        serving.map(|(leaf, _)| leaf)
    }

    /// Whether this replica may say that another one is behind.
    fn can_leave_behind(&self, other: &NodeName) -> bool {
        let state = self.others.get(other);
        self.is_serving() && state.is_some_and(|state| state.not_asked_since().is_none())
    }
}

/// What follows for this leaf's replicas from what the others have.
struct OwnReplicas {
    /// The replicas that have caught up, each with the leaves of the others that serve.
    joining: Vec<(ShardId, Vec<NodeName>)>,
    /// Has those serve that have joined and caught up since.
    serve: Option<Change>,
}

impl RoundHistory {
    /// Notes which replicas of this leaf are behind, and when those may join that are newly so.
    fn note_behind(&mut self, own: &[Own]) {
        let now = since_boot();
        let is_behind = |own: &&Own| matches!(own.state, ReplicaState::Behind { .. });
        let behind: BTreeSet<ShardId> = own.iter().filter(is_behind).map(|own| own.id).collect();
        self.behind.retain(|shard, _| behind.contains(shard));
        self.different.retain(|shard| behind.contains(shard));
        self.left.retain(|_, (_, last)| now.saturating_sub(*last) < LEFT_KEPT);
        for shard in behind {
            if self.behind.contains_key(&shard) {
                continue;
            }
            let (times, last) = self.left.entry(shard).or_insert((0, now));
            (*times, *last) = (*times + 1, now);
            let doublings = times.saturating_sub(LEFT_MAX).min(8);
            self.behind
                .insert(shard, now + (JOIN_AFTER * (1 << doublings)).min(JOIN_AFTER_MAX));
        }
    }
}

impl Leaf {
    /// Keeps the replicas of a leaf serving, until it is dropped.
    pub async fn keep_replicas(leaf: Weak<Self>, links: ReplicaLinks) {
        let mut known = RoundHistory::default();
        let mut rounds = tokio::time::interval(ROUND_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let opened = leaf.upgrade();
        let Some((wanted, mut catalog)) = opened.map(|leaf| (leaf.first_grants_wanted.clone(), leaf.catalog.clone()))
        else {
            return;
        };
        loop {
            let is_round = tokio::select! {
                // A round asks for the same. It never waits for more than one other call: its grants end after seconds.
                biased;
                _ = rounds.tick() => true,
                () = wanted.notified() => false,
                // Replicas that are new serve at once: their leaf may be the only one that is left in a second.
                Ok(()) = catalog.changed() => false,
            };
            let Some(leaf) = leaf.upgrade() else { return };
            let member = catalog.borrow().members.get(&links.name).map(|member| member.instance);
            if member == Some(links.instance) {
                leaf.grants.note_member(since_boot());
            }
            match is_round {
                true => leaf.replica_round(&links, &mut known).await,
                false => leaf.ask_for_first_grants(&links).await,
            }
        }
    }

    /// Asks the other leaves, before the next round, for what a question would wait for.
    pub(super) async fn ask_for_first_grants(&self, links: &ReplicaLinks) {
        let catalog = self.catalog.borrow().clone();
        let mut own = Own::all(&catalog, &links.name);
        own.retain(|own| {
            let is_awaited = |(leaf, state): (&NodeName, &ReplicaState)| {
                state.not_asked_since().is_none() && self.awaits_first_grant(own.id, leaf, *state)
            };
            own.is_serving() && own.others.iter().any(is_awaited)
        });
        let (mut nothing, asked) = (RoundHistory::default(), since_boot());
        for (leaf, request, answer) in self.ask_others(links, &nothing, &own, catalog.version).await {
            match answer {
                Ok(grant) => self.note_grant(&mut nothing, leaf, &request, grant, asked),
                Err(problem) => debug!(%leaf, %problem, "a leaf with replicas of the same shards does not answer"),
            }
        }
        tokio::time::sleep(FIRST_GRANTS_PAUSE).await;
    }

    /// Asks all leaves with replicas of the same shards for grants.
    async fn ask_others<'a>(
        &self,
        links: &ReplicaLinks,
        known: &RoundHistory,
        own: &'a [Own],
        version: u64,
    ) -> Vec<(&'a NodeName, GrantRequest, Result<Grant, Problem>)> {
        let leaves: BTreeSet<&NodeName> = own.iter().flat_map(|own| own.others.keys()).collect();
        let asked = since_boot();
        let requests = leaves.into_iter().map(|leaf| {
            let request = self.grant_request(links, known, own, leaf, version);
            async move {
                let answer = links.peers.grant(leaf, &request).await;
                if answer.is_ok() {
                    self.grants.hold(leaf, asked);
                }
                (leaf, request, answer)
            }
        });
        join_all(requests.collect::<Vec<_>>()).await
    }

    pub(super) async fn replica_round(&self, links: &ReplicaLinks, known: &mut RoundHistory) {
        let catalog = self.catalog.borrow().clone();
        let own = Own::all(&catalog, &links.name);
        let of: BTreeMap<ShardId, &Own> = own.iter().map(|own| (own.id, own)).collect();
        let has = |shard: ShardId, leaf: &NodeName| of.get(&shard).is_some_and(|own| own.others.contains_key(leaf));
        let is_expected =
            |shard: &ShardId, leaf: &NodeName| of.get(shard).is_some_and(|own| own.can_leave_behind(leaf));
        known.confirmed.retain(|(leaf, shard), _| is_expected(shard, leaf));
        known.lacking.retain(|(leaf, shard), _| is_expected(shard, leaf));
        self.grants.retain_floors(has);
        known.round += 1;
        known.note_behind(&own);
        note_differences(known).await;
        let waiting = own.iter().map(|own| own.id);
        known.waiting = waiting.filter(|shard| self.awaits_copy(&catalog, *shard)).collect();
        let is_behind = |own: &&Own| own.must_catch_up() && !known.waiting.contains(&own.id);
        metrics::gauge!("rachis_leaf_replicas_not_serving").set(own.iter().filter(is_behind).count() as f64);
        self.copy_shards(&catalog, Some(&links.peers), &known.waiting);

        known
            .heard
            .retain(|leaf, _| own.iter().any(|own| own.others.contains_key(leaf)));
        let started = since_boot();
        // Concurrently: a shard that is slow to open must not delay a grant.
        let asking = self.ask_others(links, known, &own, catalog.version);
        let (answers, own_replicas) = futures::join!(asking, self.own_replicas(links, known, &own));
        metrics::gauge!("rachis_leaf_replicas_different").set(known.different.len() as f64);
        self.join(links, known, own_replicas.joining);
        let mut changes: Vec<Change> = own_replicas.serve.into_iter().collect();
        for (leaf, request, answer) in answers {
            let (mut heard, mut failures) = known.heard.get(leaf).copied().unwrap_or((started, 0));
            match answer {
                Ok(grant) => {
                    (heard, failures) = (started, 0);
                    self.note_grant(known, leaf, &request, grant, started);
                }
                Err(problem) => {
                    debug!(%leaf, %problem, "a leaf with replicas of the same shards does not answer");
                    failures += 1;
                }
            }
            known.heard.insert(leaf.clone(), (heard, failures));
            let is_silent = failures >= 2 && since_boot().saturating_sub(heard) >= SILENT_MAX;
            let is_lacking = |shard: ShardId| {
                let lacks = known.lacking.get(&(leaf.clone(), shard));
                request.expected.iter().any(|(expected, _)| *expected == shard)
                    && lacks.is_some_and(|(_, rounds)| *rounds >= LACKING_ROUNDS_MAX)
            };
            let is_left = |own: &&Own| own.can_leave_behind(leaf) && (is_silent || is_lacking(own.id));
            let left = own.iter().filter(is_left).map(|own| own.id);
            let shards: Vec<ShardId> = left.take(CHANGED_MAX).collect();
            if !shards.is_empty() {
                warn!(%leaf, shards = shards.len(), is_silent, "replicas do not keep up: they are to stop answering");
                changes.push(Change::LeaveBehind {
                    leaf: leaf.clone(),
                    by: links.name.clone(),
                    instance: links.instance,
                    shards,
                });
            }
        }
        changes.extend(remove_leaving(links, known, &own));
        changes.extend(self.place_restored(links, &catalog));
        known.had = self.positions_of_open_shards(&of);
        propose(links, known, changes);
    }

    /// Says which restored shards this leaf has, so that other leaves copy them from here.
    fn place_restored(&self, links: &ReplicaLinks, catalog: &Catalog) -> Option<Change> {
        let mut shards = self.restored_here(catalog);
        shards.retain(|shard| self.serves(*shard));
        shards.truncate(CHANGED_MAX);
        (!shards.is_empty()).then(|| Change::PlaceRestored {
            leaf: Some(links.name.clone()),
            instance: links.instance,
            shards,
        })
    }

    /// What follows for this leaf's replicas from what the others had in the round before.
    async fn own_replicas(&self, links: &ReplicaLinks, known: &RoundHistory, own: &[Own]) -> OwnReplicas {
        let may_join = |own: &Own| {
            !known.waiting.contains(&own.id) && known.behind.get(&own.id).is_some_and(|at| since_boot() >= *at)
        };
        let is_candidate = |own: &&Own| match own.state {
            ReplicaState::Serving | ReplicaState::Leaving { .. } => false,
            ReplicaState::Behind { .. } => may_join(own),
            ReplicaState::Joining { .. } => true,
        };
        let mut candidates: Vec<&Own> = own.iter().filter(is_candidate).collect();
        // A round does not wait for shards that take longer to open, and they do not hide the others.
        let turn = known.round * COMPARED_AT_ONCE % candidates.len().max(1);
        candidates.rotate_left(turn);
        let until = tokio::time::Instant::now() + ANSWER_WAIT;
        let found = candidates.into_iter().map(|own| {
            let positions = tokio::time::timeout_at(until, self.positions_of(own.id));
            async move { Some((own, positions.await.ok()?.ok()?)) }.boxed()
        });
        let found = stream::iter(found.collect::<Vec<_>>()).buffer_unordered(COMPARED_AT_ONCE);
        let found: Vec<(&Own, PositionVector)> = found.filter_map(ready).collect().await;
        let (mut joining, mut serving) = (Vec::new(), Vec::new());
        for (own, positions) in found {
            match own.state {
                ReplicaState::Joining { since } => {
                    if self.has_caught_up(own, &positions, |floor| floor.version >= since) {
                        serving.push((own.id, since));
                    }
                }
                _ => {
                    let is_recent = |floor: &Floor| since_boot().saturating_sub(floor.asked) < 3 * ROUND_EVERY;
                    if self.has_caught_up(own, &positions, is_recent) {
                        joining.push((own.id, own.serving().cloned().collect()));
                    }
                }
            }
        }
        joining.truncate(CHANGED_MAX);
        serving.truncate(CHANGED_MAX);
        let serve = (!serving.is_empty()).then(|| Change::ServeReplicas {
            leaf: links.name.clone(),
            instance: links.instance,
            shards: serving,
        });
        OwnReplicas { joining, serve }
    }

    /// In the background, compares replicas that have caught up with the others, and proposes that those join which are equal;
    /// unless earlier ones are being compared: then the next round decides anew.
    fn join(&self, links: &ReplicaLinks, known: &mut RoundHistory, joining: Vec<(ShardId, Vec<NodeName>)>) {
        if joining.is_empty() || known.joining.is_some() {
            return;
        }
        let (leaf, peers, log) = (self.this.clone(), links.peers.clone(), links.changes.clone());
        let (name, instance) = (links.name.clone(), links.instance);
        known.joining = Some(tokio::spawn(async move {
            let (mut shards, mut different) = (Vec::new(), Vec::new());
            for (shard, others) in joining {
                match compare(&leaf, &peers, shard, &others).await {
                    Comparison::Same => shards.push(shard),
                    Comparison::Different => different.push(shard),
                    Comparison::Unknown => {}
                }
            }
            if !shards.is_empty() {
                let join = Change::JoinReplicas {
                    leaf: name,
                    instance,
                    shards,
                };
                propose_one(&*log, join).await;
            }
            different
        }));
    }

    /// Whether a replica with these positions has what each serving one had, by what these have said that is valid.
    fn has_caught_up(&self, own: &Own, positions: &PositionVector, is_valid: impl Fn(&Floor) -> bool) -> bool {
        own.serving().all(|leaf| {
            let Some(floor) = self.grants.floor(own.id, leaf).filter(&is_valid) else {
                return false;
            };
            let is_reached = floor.positions.as_ref().is_none_or(|floor| positions.covers(floor));
            if is_reached {
                self.grants.reach_floor(own.id, leaf, floor.version);
            }
            is_reached
        })
    }

    fn grant_request(
        &self,
        links: &ReplicaLinks,
        known: &RoundHistory,
        own: &[Own],
        leaf: &NodeName,
        version: u64,
    ) -> GrantRequest {
        let shared = || own.iter().filter(|own| own.others.contains_key(leaf));
        let needs_floor = |own: &&Own| {
            let floor = self.grants.floor(own.id, leaf);
            match own.state {
                ReplicaState::Serving => floor.is_none(),
                ReplicaState::Joining { since } => floor.is_none_or(|floor| floor.version < since),
                ReplicaState::Behind { .. } | ReplicaState::Leaving { .. } => false,
            }
        };
        let mut compared: Vec<ShardId> = shared().filter(needs_floor).map(|own| own.id).collect();
        // Those that are behind in turns: many may be for long.
        let behind = |own: &&Own| matches!(own.state, ReplicaState::Behind { .. }) && !known.waiting.contains(&own.id);
        let mut behind: Vec<ShardId> = shared().filter(behind).map(|own| own.id).collect();
        let turn = known.round * COMPARED_MAX % behind.len().max(1);
        behind.rotate_left(turn);
        compared.extend(behind);
        compared.truncate(COMPARED_MAX);
        let expected = |own: &Own| {
            let key = (leaf.clone(), own.id);
            let had = known.had.get(&own.id)?;
            // One that is always a moment late is asked for the same until it has that.
            let had = known.lacking.get(&key).map_or(had, |(lacks, _)| lacks);
            let is_confirmed = known.confirmed.get(&key) == Some(had);
            (own.can_leave_behind(leaf) && !is_confirmed).then(|| (own.id, had.clone()))
        };
        GrantRequest {
            leaf: links.name.clone(),
            instance: links.instance,
            version,
            compared,
            expected: shared().filter_map(expected).collect(),
        }
    }

    fn note_grant(
        &self,
        known: &mut RoundHistory,
        leaf: &NodeName,
        request: &GrantRequest,
        grant: Grant,
        asked: Duration,
    ) {
        for (shard, positions) in grant.has {
            let floor = Floor {
                version: request.version,
                asked,
                positions: Some(positions),
            };
            self.grants.set_floor(shard, leaf, floor);
        }
        for (shard, expected) in &request.expected {
            let key = (leaf.clone(), *shard);
            if grant.lacks.contains(shard) {
                known.lacking.entry(key).or_insert_with(|| (expected.clone(), 0)).1 += 1;
            } else {
                known.lacking.remove(&key);
                known.confirmed.insert(key, expected.clone());
            }
        }
    }

    fn positions_of_open_shards(&self, own: &BTreeMap<ShardId, &Own>) -> BTreeMap<ShardId, PositionVector> {
        let open = self.shards.all().into_iter().filter_map(|shard| shard.upgrade());
        let serving = open.filter(|shard| own.get(&shard.id).is_some_and(|own| own.is_serving()));
        serving
            .map(|shard| (shard.id, shard.with_state(|state| state.positions())))
            .collect()
    }
}

/// Removes replicas of other leaves that have been leaving for a while, of shards that this leaf serves.
fn remove_leaving(links: &ReplicaLinks, known: &mut RoundHistory, own: &[Own]) -> Option<Change> {
    let mut leaving: HashMap<(RetiredReplica, u64), Duration> = HashMap::new();
    for own in own.iter().filter(|own| own.is_serving()) {
        for (leaf, state) in &own.others {
            let ReplicaState::Leaving { since } = state else {
                continue;
            };
            let retired = RetiredReplica {
                shard: own.id,
                leaf: leaf.clone(),
            };
            let key = (retired, *since);
            let seen = known.leaving.get(&key).copied().unwrap_or_else(since_boot);
            leaving.insert(key, seen);
        }
    }
    known.leaving = leaving;
    let has_left = |(key, seen): (&(RetiredReplica, u64), &Duration)| {
        (since_boot().saturating_sub(*seen) >= LEAVING_FOR).then(|| key.clone())
    };
    let replicas: Vec<(RetiredReplica, u64)> = known.leaving.iter().filter_map(has_left).take(CHANGED_MAX).collect();
    (!replicas.is_empty()).then(|| Change::RemoveReplicas {
        by: links.name.clone(),
        instance: links.instance,
        replicas,
    })
}

/// Proposes changes in the background, one after another, unless earlier ones are not accepted yet: then the next round
/// decides anew.
fn propose(links: &ReplicaLinks, known: &mut RoundHistory, changes: Vec<Change>) {
    if changes.is_empty() || known.proposing.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let log = links.changes.clone();
    known.proposing = Some(tokio::spawn(async move {
        for change in changes {
            propose_one(&*log, change).await;
        }
    }));
}

async fn propose_one(log: &dyn Changes, change: Change) {
    let what = describe(&change);
    match log.propose(change, None).await {
        Ok(_) => info!(change = what, "the replicas of the cluster have changed"),
        // Another leaf may have been faster.
        Err(problem) => debug!(change = what, %problem, "a change of replicas was not accepted"),
    }
}

/// Notes what a comparison has shown that has ended: replicas that differ are compared again later.
async fn note_differences(known: &mut RoundHistory) {
    let Some(ended) = known.joining.take_if(|task| task.is_finished()) else {
        return;
    };
    for shard in ended.await.unwrap_or_default() {
        known.behind.insert(shard, since_boot() + COMPARE_AGAIN_AFTER);
        known.different.insert(shard);
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::PlaceRestored { shards, .. } => format!("{} restored shards are here", shards.len()),
        Change::LeaveBehind { leaf, shards, .. } => format!("{} replicas on {leaf} are behind", shards.len()),
        Change::JoinReplicas { leaf, shards, .. } => format!("{} replicas on {leaf} join", shards.len()),
        Change::ServeReplicas { leaf, shards, .. } => format!("{} replicas on {leaf} serve", shards.len()),
        Change::RemoveReplicas { replicas, .. } => format!("{} replicas have left", replicas.len()),
        other => format!("{other:?}"),
    }
}
