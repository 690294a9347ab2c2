//! Replicas: which of this leaf's may answer questions, and which others must have a push before it is acknowledged.
//!
//! The catalog says which replicas of a shard serve, join or are behind. A serving replica answers only while each other
//! one that serves or joins has granted it that ([`proto::replica`]), and once it has what the serving ones had when it
//! started. So:
//!
//! - A push is acknowledged when every replica has it that serves or joins, or may still use a grant of a leaf whose
//!   catalog says that it is behind ([`Leaf::must_confirm`]).
//! - A replica that is cut off or frozen stops answering when its grants end, at the latest as long after as its peers
//!   take them into account.
//! - Two leaves that do not hear each other each propose that the other is behind. The log accepts the first one.
//!
//! What it assumes: clocks that run at about the same rate (see [`proto::replica::GRANT_USED_FOR`]), nothing else. With a
//! catalog from before, a leaf waits for more replicas than it must, and a replica that serves as of an old catalog has no
//! grant. While Kafka is away, the change log accepts no change, so no replica is left behind: if a leaf dies then, the
//! replicas of its shards on other leaves lose its grants and do not answer until Kafka is back.

mod comparison;
pub(super) mod grants;
mod rounds;

use std::{
    collections::BTreeSet,
    future::ready,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use proto::{
    Catalog, Code, PositionVector, Problem,
    catalog::{Collection, ReplicaState},
    clock::since_boot,
    cluster::NodeName,
    ingest::ShardId,
    replica::{Grant, GrantRequest},
};

pub use self::rounds::ReplicaLinks;
use super::{Leaf, ShardInfo};
use crate::shard::{Shard, state::positions};

/// How long an answer to a leaf waits for shards. It must arrive within the second that the other leaf waits.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Shards that are compared at the same time.
const COMPARED_AT_ONCE: usize = 16;

/// How long a question waits for the first grant of a leaf, after a start or for a new collection: as long as it takes until
/// a leaf is left behind that has died meanwhile …
const FIRST_GRANT_WAIT: Duration = Duration::from_secs(5);
/// … and how often it looks.
const FIRST_GRANT_POLL: Duration = Duration::from_millis(10);

impl Leaf {
    /// Fails unless the replica of a shard on this leaf may answer a question that has arrived before the call. Waits, at
    /// most until the deadline, until it has what the others had when this leaf started.
    pub(super) async fn wait_until_it_may_answer(&self, shard: &Shard, deadline: Instant) -> Result<(), Problem> {
        self.wait_for_first_grants(shard.id, deadline).await;
        let catalog = self.catalog.borrow().clone();
        let (Some(node), Some((name, collection))) = (&self.options.node, catalog.collection(shard.id.collection))
        else {
            return Ok(());
        };
        let number = shard.id.number;
        // One process holds all shards.
        if collection.replicas_of(number).is_empty() {
            return Ok(());
        }
        let refused = |why: String| {
            Problem::new(
                Code::Unavailable,
                format!("the replica of shard {number} of {name} on {node} cannot answer: {why}"),
            )
            .hint("another replica answers; `rachis cluster status` shows the state of each")
        };
        match collection.replica_state(number, node) {
            Some(ReplicaState::Serving) => {}
            Some(other) => return Err(refused(format!("it is {}", other.as_str()))),
            None => return Err(refused("it is not placed there".to_owned())),
        }
        // One that joins may serve by now, as of a later catalog. All at one moment, before anything is waited for.
        for other in collection.confirming(number).filter(|other| *other != node) {
            if !self.grants.is_held(other, since_boot()) {
                return Err(refused(format!("it does not hear {other}, which has the shard, too")));
            }
        }
        for other in collection.serving(number).filter(|other| *other != node) {
            let Some(floor) = self.grants.floor(shard.id, other) else {
                return Err(refused(format!("{other} has not said yet what it has")));
            };
            if let Some(positions) = &floor.positions {
                let waited = shard.wait_for_positions(positions, deadline).await;
                waited.map_err(|problem| refused(problem.detail))?;
                self.grants.reach_floor(shard.id, other, floor.version);
            }
        }
        Ok(())
    }

    /// Waits until the replica of a shard on this leaf has its first grants, or needs none by a later catalog.
    async fn wait_for_first_grants(&self, shard: ShardId, deadline: Instant) {
        let until = deadline.min(Instant::now() + FIRST_GRANT_WAIT);
        let mut catalogs = self.catalog.clone();
        // Looked up once for each catalog: many questions may wait.
        loop {
            let catalog = catalogs.borrow_and_update().clone();
            let others = self.granters(&catalog, shard);
            loop {
                let is_awaited =
                    |(other, state): &(NodeName, ReplicaState)| self.awaits_first_grant(shard, other, *state);
                if !others.iter().any(is_awaited) || Instant::now() >= until {
                    return;
                }
                self.first_grants_wanted.notify_one();
                match tokio::time::timeout(FIRST_GRANT_POLL, catalogs.changed()).await {
                    Ok(Ok(())) => break,
                    // The leaf is shutting down.
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
        }
    }

    /// The other leaves without whose grants the replica of a shard on this leaf does not answer; none if it does not serve.
    fn granters(&self, catalog: &Catalog, shard: ShardId) -> Vec<(NodeName, ReplicaState)> {
        let (Some(node), Some((_, collection))) = (&self.options.node, catalog.collection(shard.collection)) else {
            return Vec::new();
        };
        if collection.replica_state(shard.number, node) != Some(ReplicaState::Serving) {
            return Vec::new();
        }
        let others = collection.confirming(shard.number).filter(|other| *other != node);
        let state = |other: &NodeName| Some((other.clone(), collection.replica_state(shard.number, other)?));
        others.filter_map(state).collect()
    }

    /// Whether a leaf with a replica in this state has granted nothing since this leaf started, or has not said yet what it has
    /// of the shard.
    fn awaits_first_grant(&self, shard: ShardId, other: &NodeName, state: ReplicaState) -> bool {
        !self.grants.was_held(other) || state == ReplicaState::Serving && !self.grants.has_floor(shard, other)
    }

    /// Whether questions may be asked of the replica of a shard on this leaf, now or once it has joined.
    pub(crate) fn is_asked(&self, shard: ShardId) -> bool {
        let catalog = self.catalog.borrow().clone();
        let (Some(node), Some((_, collection))) = (&self.options.node, catalog.collection(shard.collection)) else {
            return true;
        };
        collection.replicas_of(shard.number).is_empty() || collection.confirming(shard.number).any(|leaf| leaf == node)
    }

    /// Waits until the process before this one, which may be frozen, has no grant any more with which it answers. Fails if
    /// that is not before the deadline.
    pub(crate) async fn wait_for_earlier_grants(&self, deadline: Instant) -> Result<(), Problem> {
        let until = Instant::now() + self.grants.earlier_end_in(since_boot());
        tokio::time::sleep_until(until.min(deadline).into()).await;
        match self.grants.earlier_end_in(since_boot()).is_zero() {
            true => Ok(()),
            false => {
                let detail = "the process that ran before this one under its name may still answer";
                Err(Problem::new(Code::Timeout, detail).hint("repeat it"))
            }
        }
    }

    /// Identifies this process together with the leaves that serve a shard: the aggregators ask anew what was pushed to it if
    /// one of these has changed. Its replica may serve because the one that had everything is lost.
    pub(super) fn boot_of(&self, shard: ShardId) -> u64 {
        let catalog = self.catalog.borrow().clone();
        let mut serving = match catalog.collection(shard.collection) {
            Some((_, collection)) if self.options.node.is_some() => collection.serving(shard.number).peekable(),
            _ => return self.boot,
        };
        if serving.peek().is_none() {
            return self.boot;
        }
        let mut hasher = DefaultHasher::new();
        self.boot.hash(&mut hasher);
        serving.for_each(|leaf| (leaf, catalog.members.get(leaf).map(|member| member.instance)).hash(&mut hasher));
        hasher.finish()
    }

    /// Whether the replica of a shard on this leaf serves, as of the catalog.
    pub(super) fn serves(&self, shard: ShardId) -> bool {
        let catalog = self.catalog.borrow().clone();
        let (Some(node), Some((_, collection))) = (&self.options.node, catalog.collection(shard.collection)) else {
            return true;
        };
        let state = collection.replica_state(shard.number, node);
        state.is_none_or(|state| state == ReplicaState::Serving)
    }

    /// The leaves of the other replicas that must have a push before it is acknowledged. Called once this one has it.
    pub(crate) fn must_confirm(&self, shard: ShardId) -> Vec<NodeName> {
        let catalog = self.catalog.borrow().clone();
        let Some((_, collection)) = catalog.collection(shard.collection) else {
            return Vec::new();
        };
        // It may not know yet that it is asked no more.
        let may_be_asked = |other: &NodeName, since| self.grants.is_given_before(other, since, since_boot());
        let not_asked = collection.not_asked(shard.number);
        let still_asked = not_asked
            .filter(|(other, since)| may_be_asked(other, *since))
            .map(|(other, _)| other);
        let all = collection.confirming(shard.number).chain(still_asked);
        let others: BTreeSet<&NodeName> = all.filter(|other| self.options.node.as_ref() != Some(other)).collect();
        others.into_iter().cloned().collect()
    }

    /// Lets the replicas on another leaf answer for a while.
    pub(crate) async fn grant(&self, request: GrantRequest) -> Result<Grant, Problem> {
        let catalog = self.catalog.borrow().clone();
        let member = catalog.members.get(&request.leaf);
        if member.is_none_or(|member| member.instance != request.instance) {
            let detail = format!("a node with this data folder is not the member {}", request.leaf);
            return Err(Problem::new(Code::Conflict, detail));
        }
        self.check_knows_that_it_is_not_asked(&request)?;
        // From now on, what this leaf acknowledges must be confirmed by that one. So what was acknowledged without it is in
        // the answer, and the catalog is looked up again: by the one from before, it may have been acknowledged meanwhile.
        self.grants.give(&request.leaf, request.version, since_boot());
        self.check_knows_that_it_is_not_asked(&request)?;
        let answered_until = tokio::time::Instant::now() + ANSWER_WAIT;
        let positions = |shard| tokio::time::timeout_at(answered_until, self.positions_of(shard));
        // The grant does not wait for a shard that takes longer to open.
        let positions = async |shard| positions(shard).await.ok()?.ok();
        let has = stream::iter(request.compared).map(async |shard| Some((shard, positions(shard).await?)));
        let lacks = stream::iter(request.expected).map(async |(shard, expected)| {
            let has = positions(shard).await;
            let is_covered = has.is_some_and(|has| has.covers(&expected));
            (!is_covered).then_some(shard)
        });
        let has = has.buffer_unordered(COMPARED_AT_ONCE).filter_map(ready).collect();
        let lacks = lacks.buffer_unordered(COMPARED_AT_ONCE).filter_map(ready).collect();
        let (has, lacks) = futures::join!(has, lacks);
        Ok(Grant { has, lacks })
    }

    /// Refuses a leaf that does not know yet that a replica of it was left behind, or has left: by its older catalog, it would
    /// answer without what was acknowledged since.
    fn check_knows_that_it_is_not_asked(&self, request: &GrantRequest) -> Result<(), Problem> {
        let catalog = self.catalog.borrow().clone();
        let mut not_asked = catalog.collections.values().flat_map(Collection::all_not_asked);
        match not_asked.any(|(leaf, since)| *leaf == request.leaf && since > request.version) {
            true => Err(Problem::new(
                Code::Conflict,
                format!(
                    "{} does not know yet that it is asked about some shards no more",
                    request.leaf
                ),
            )),
            false => Ok(()),
        }
    }

    /// What the replica of a shard on this leaf has.
    async fn positions_of(&self, shard: ShardId) -> Result<PositionVector, Problem> {
        Ok(match self.info(shard).await? {
            ShardInfo::Closed(summary) => positions(&summary.rows),
            ShardInfo::Open(shard) => shard.with_state(|state| state.positions()),
        })
    }
}

#[cfg(test)]
mod tests;
