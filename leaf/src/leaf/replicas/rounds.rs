//! The rounds in which a leaf asks the others that hold replicas of its shards: for grants, for what they have, and
//! whether they keep up. Then it proposes which replicas are behind, join or serve.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::join_all;
use proto::{
    Catalog, PositionVector,
    catalog::{Change, ReplicaState},
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
    grants::{Floor, now},
};

const ROUND_EVERY: Duration = Duration::from_secs(1);
/// A leaf that has not answered for this long, and not in two rounds, is behind.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// So is a replica that lacks for so many rounds what another one has.
const LACKING_ROUNDS_MAX: u32 = 2;
/// How long a replica that is behind waits before it joins again: one that does not keep up must not delay every push.
const JOIN_AFTER: Duration = Duration::from_secs(5);
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
    /// For how many rounds a replica has lacked what this leaf has.
    lacking: HashMap<(NodeName, ShardId), u32>,
    /// Since when replicas of this leaf have been behind.
    pub(super) behind: HashMap<ShardId, Duration>,
    /// The number of the round.
    round: usize,
    pub(super) proposing: Option<JoinHandle<()>>,
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

    fn is_serving(&self) -> bool {
        self.state == ReplicaState::Serving
    }

    /// Whether this replica may say that another one is behind.
    fn can_leave_behind(&self, other: &NodeName) -> bool {
        let is_behind = |state: &ReplicaState| matches!(state, ReplicaState::Behind { .. });
        self.is_serving() && self.others.get(other).is_some_and(|state| !is_behind(state))
    }
}

impl Leaf {
    /// Keeps the replicas of a leaf serving, until it is dropped.
    pub async fn keep_replicas(leaf: Weak<Self>, links: ReplicaLinks) {
        let mut known = RoundHistory::default();
        let mut rounds = tokio::time::interval(ROUND_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Some(leaf) = leaf.upgrade() else { return };
            leaf.replica_round(&links, &mut known).await;
        }
    }

    pub(super) async fn replica_round(&self, links: &ReplicaLinks, known: &mut RoundHistory) {
        let catalog = self.catalog.borrow().clone();
        let own = Own::all(&catalog, &links.name);
        let not_serving = own.iter().filter(|own| !own.is_serving()).count();
        metrics::gauge!("rachis_leaf_replicas_not_serving").set(not_serving as f64);
        let of: BTreeMap<ShardId, &Own> = own.iter().map(|own| (own.id, own)).collect();
        let has = |shard: ShardId, leaf: &NodeName| of.get(&shard).is_some_and(|own| own.others.contains_key(leaf));
        let is_expected =
            |shard: &ShardId, leaf: &NodeName| of.get(shard).is_some_and(|own| own.can_leave_behind(leaf));
        known.confirmed.retain(|(leaf, shard), _| is_expected(shard, leaf));
        known.lacking.retain(|(leaf, shard), _| is_expected(shard, leaf));
        self.grants.retain_floors(has);
        known.round += 1;

        let leaves: BTreeSet<&NodeName> = own.iter().flat_map(|own| own.others.keys()).collect();
        known.heard.retain(|leaf, _| leaves.contains(leaf));
        let started = now();
        let requests = leaves.into_iter().map(|leaf| {
            let request = self.grant_request(links, known, &own, leaf, catalog.version);
            async move {
                let answer = links.peers.grant(leaf, &request).await;
                if answer.is_ok() {
                    self.grants.hold(leaf, started);
                }
                (leaf, answer, request)
            }
        });
        // Concurrently: a shard that is slow to open must not delay a grant.
        let requests = join_all(requests.collect::<Vec<_>>());
        let (answers, (mut changes, behind)) =
            futures::join!(requests, self.changes_of_own(links, &known.behind, &own));
        known.behind = behind;
        for (leaf, answer, request) in answers {
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
            let is_silent = failures >= 2 && now().saturating_sub(heard) >= SILENT_MAX;
            let lacking = |shard: ShardId| known.lacking.get(&(leaf.clone(), shard)).copied().unwrap_or(0);
            let is_lacking = |shard: ShardId| {
                request.expected.iter().any(|(expected, _)| *expected == shard) && lacking(shard) >= LACKING_ROUNDS_MAX
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
        known.had = self.positions_of_open_shards(&of);
        propose(links, known, changes);
    }

    /// The changes of this leaf's own replicas: those that have caught up join or serve.
    /// Also returns since when which of them are behind. By what the others had in the round before.
    async fn changes_of_own(
        &self,
        links: &ReplicaLinks,
        known_behind: &HashMap<ShardId, Duration>,
        own: &[Own],
    ) -> (Vec<Change>, HashMap<ShardId, Duration>) {
        let (mut joining, mut serving) = (Vec::new(), Vec::new());
        let mut behind = HashMap::new();
        for own in own {
            match own.state {
                ReplicaState::Serving => {}
                ReplicaState::Behind { .. } => {
                    let since = *known_behind.get(&own.id).unwrap_or(&now());
                    behind.insert(own.id, since);
                    let is_recent = |floor: &Floor| now().saturating_sub(floor.asked) < 3 * ROUND_EVERY;
                    if now().saturating_sub(since) >= JOIN_AFTER && self.has_caught_up(own, is_recent).await {
                        joining.push(own.id);
                    }
                }
                ReplicaState::Joining { since } => {
                    if self.has_caught_up(own, |floor| floor.version >= since).await {
                        serving.push((own.id, since));
                    }
                }
            }
        }
        joining.truncate(CHANGED_MAX);
        serving.truncate(CHANGED_MAX);
        let (leaf, instance) = (links.name.clone(), links.instance);
        let join = (!joining.is_empty()).then(|| Change::JoinReplicas {
            leaf: leaf.clone(),
            instance,
            shards: joining,
        });
        let serve = (!serving.is_empty()).then(|| Change::ServeReplicas {
            leaf: leaf.clone(),
            instance,
            shards: serving,
        });
        (join.into_iter().chain(serve).collect(), behind)
    }

    /// Whether a replica has what each serving one had, by what these have said that is valid.
    async fn has_caught_up(&self, own: &Own, is_valid: impl Fn(&Floor) -> bool) -> bool {
        let Ok(positions) = self.positions_of(own.id).await else {
            return false;
        };
        let serving = own.others.iter().filter(|(_, state)| **state == ReplicaState::Serving);
        serving.into_iter().all(|(leaf, _)| {
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
                ReplicaState::Behind { .. } => false,
            }
        };
        let mut compared: Vec<ShardId> = shared().filter(needs_floor).map(|own| own.id).collect();
        // Those that are behind in turns: many may be for long.
        let behind = |own: &&Own| matches!(own.state, ReplicaState::Behind { .. });
        let mut behind: Vec<ShardId> = shared().filter(behind).map(|own| own.id).collect();
        let turn = known.round * COMPARED_MAX % behind.len().max(1);
        behind.rotate_left(turn);
        compared.extend(behind);
        compared.truncate(COMPARED_MAX);
        let expected = |own: &Own| {
            let had = known.had.get(&own.id)?;
            let is_confirmed = known.confirmed.get(&(leaf.clone(), own.id)) == Some(had);
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
                *known.lacking.entry(key).or_default() += 1;
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

/// Proposes changes in the background, one after another, unless earlier ones are not accepted yet: then the next round
/// decides anew.
fn propose(links: &ReplicaLinks, known: &mut RoundHistory, changes: Vec<Change>) {
    if changes.is_empty() || known.proposing.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let log = links.changes.clone();
    known.proposing = Some(tokio::spawn(async move {
        for change in changes {
            let what = describe(&change);
            match log.propose(change, None).await {
                Ok(_) => info!(change = what, "the replicas of the cluster have changed"),
                // Another leaf may have been faster.
                Err(problem) => debug!(change = what, %problem, "a change of replicas was not accepted"),
            }
        }
    }));
}

fn describe(change: &Change) -> String {
    match change {
        Change::LeaveBehind { leaf, shards, .. } => format!("{} replicas on {leaf} are behind", shards.len()),
        Change::JoinReplicas { leaf, shards, .. } => format!("{} replicas on {leaf} join", shards.len()),
        Change::ServeReplicas { leaf, shards, .. } => format!("{} replicas on {leaf} serve", shards.len()),
        other => format!("{other:?}"),
    }
}
