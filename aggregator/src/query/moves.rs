//! Moves of shards between leaves: plans them, starts them, and shows how far they are.

use std::collections::{BTreeMap, BTreeSet};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream,
};
use proto::{
    Code, CollectionName, Problem,
    catalog::{Catalog, Change, Collection, ReplicaState, RetiredReplica},
    cluster::{NodeName, Role},
    ingest::{CopyStatus, ShardId},
    rebalance::{Plan, PlanInput, plan},
};
use serde_json::{Value, json};

use super::Engine;

/// Shards or leaves that are asked at once.
const ASKED_AT_ONCE: usize = 64;
/// Replicas of one change, so that it fits into a record of the change log.
const CHANGED_MAX: usize = 500;

impl Engine {
    /// Plans moves so that every shard has its replicas and the leaves are loaded evenly, and without one leaf if one is
    /// named.
    pub(crate) async fn plan_moves(&self, draining: Option<&NodeName>) -> Result<Plan, Problem> {
        let mut catalog = (*self.catalog()).clone();
        if catalog.members_of(Role::Leaf).next().is_none() {
            return Err(Problem::new(
                Code::BadRequest,
                "one process holds all shards: there is nothing to move",
            )
            .hint("shards are moved between the leaves of a cluster"));
        }
        catalog.draining.extend(draining.cloned());
        let nodes = self.roles.nodes.status().await;
        let sizes = self.shard_bytes(&catalog).await;
        let away = nodes
            .into_iter()
            .filter(|node| node.report.is_err())
            .filter_map(|node| node.name.parse().ok());
        let (replicas, away) = (self.options.replicas, away.collect());
        let planned = move || {
            plan(&PlanInput {
                catalog: &catalog,
                replicas,
                away: &away,
                given_up: &BTreeSet::new(),
                bytes: &sizes,
            })
        };
        // It takes a while for a large cluster.
        let planned = tokio::task::spawn_blocking(planned).await;
        planned.map_err(|failure| Problem::new(Code::Internal, format!("the plan was not made: {failure}")))
    }

    /// The bytes of each shard on a disk, as far as they are known.
    pub(super) async fn shard_bytes(&self, catalog: &Catalog) -> BTreeMap<ShardId, u64> {
        let shards: Vec<ShardId> = catalog.collections.values().flat_map(Collection::shards).collect();
        let bytes =
            stream::iter(shards).map(async |shard| Some((shard, self.roles.leaf.status(shard).await.ok()?.bytes)));
        let known = bytes.buffered(ASKED_AT_ONCE).filter_map(ready);
        known.collect().await
    }

    /// Gives up the moves away from a leaf that are under way. Returns how many.
    pub(crate) async fn give_up_moves(&self, from: &NodeName) -> Result<usize, Problem> {
        let mut plan = Plan::default();
        for collection in self.catalog().collections.values() {
            for (number, moves) in &collection.moves {
                let given_up = moves
                    .iter()
                    .filter(|(_, moved)| moved.instead_of.as_ref() == Some(from));
                plan.retired.extend(given_up.map(|(leaf, _)| RetiredReplica {
                    shard: ShardId {
                        collection: collection.uid,
                        number: *number,
                    },
                    leaf: leaf.clone(),
                }));
            }
        }
        self.start_moves(&plan).await?;
        Ok(plan.retired.len())
    }

    /// Has the cluster do what is planned. What was changed meanwhile in another way is left out.
    pub(crate) async fn start_moves(&self, plan: &Plan) -> Result<(), Problem> {
        let added = plan.added.chunks(CHANGED_MAX).map(|replicas| Change::AddReplicas {
            replicas: replicas.to_vec(),
        });
        let retired = plan.retired.chunks(CHANGED_MAX).map(|replicas| Change::RetireReplicas {
            replicas: replicas.to_vec(),
        });
        // A move that is given up must not stand in the way of the one that replaces it.
        for change in retired.chain(added) {
            self.change_catalog(change).await?;
        }
        Ok(())
    }
}

/// A plan as its answer.
pub(crate) fn plan_json(catalog: &Catalog, plan: &Plan, started: bool) -> Value {
    let name = |shard: ShardId| catalog.collection(shard.collection).map(|(name, _)| name.as_str());
    let added = plan.added.iter().map(|added| {
        let shard = added.shard;
        json!({ "collection": name(shard), "shard": shard.number, "to": added.leaf, "instead_of": added.instead_of })
    });
    let retired = plan.retired.iter().map(|retired| {
        let shard = retired.shard;
        json!({ "collection": name(shard), "shard": shard.number, "leaf": retired.leaf })
    });
    let unplaced = plan
        .unplaced
        .iter()
        .map(|(shard, leaf)| json!({ "collection": name(*shard), "shard": shard.number, "leaf": leaf }));
    let under_way: usize = catalog
        .collections
        .values()
        .flat_map(|of| of.moves.values())
        .map(BTreeMap::len)
        .sum();
    json!({
        "started": started,
        "under_way": under_way,
        "moves": added.collect::<Vec<_>>(),
        "retired": retired.collect::<Vec<_>>(),
        "unplaced": unplaced.collect::<Vec<_>>(),
    })
}

/// A replica that is on its way, or leaves, or is restored from a snapshot.
struct Moving<'a> {
    collection: &'a CollectionName,
    shard: ShardId,
    /// `None` if one process holds all shards.
    leaf: Option<&'a NodeName>,
    instead_of: Option<&'a NodeName>,
    state: ReplicaState,
}

/// `rachis.moves`: the replicas that are being added, copied again, restored or removed.
pub(super) async fn moves(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let moving = moving(&catalog);
    let leaves: BTreeSet<Option<&NodeName>> = moving.iter().map(|moving| moving.leaf).collect();
    let ask = async |leaf: Option<&NodeName>| {
        let replica = leaf.and_then(|leaf| engine.roles.ingest.replica_on(leaf));
        let copies = match (leaf, replica) {
            (_, Some(replica)) => replica.copies().await,
            (None, None) => engine.roles.ingest.copies().await,
            (Some(_), None) => Ok(Vec::new()),
        };
        (leaf.cloned(), copies)
    };
    let asking: Vec<BoxFuture<'_, _>> = leaves.into_iter().map(|leaf| ask(leaf).boxed()).collect();
    let asked = stream::iter(asking).buffered(ASKED_AT_ONCE);
    let copies: BTreeMap<Option<NodeName>, Result<Vec<CopyStatus>, Problem>> = asked.collect().await;
    let row = |moving: &Moving<'_>| {
        let of_leaf = &copies[&moving.leaf.cloned()];
        let copy = of_leaf
            .as_ref()
            .ok()
            .and_then(|copies| copies.iter().find(|copy| copy.shard == moving.shard));
        let is_copying = copy.is_some();
        let is_serving = moving.state == ReplicaState::Serving;
        let is_known = !is_added(&catalog, moving) && !is_leaving(moving.state);
        if !is_copying && (is_serving || moving.instead_of.is_none() && is_known) {
            return None;
        }
        let error = copy.and_then(|copy| copy.error.clone());
        let error = error.or_else(|| of_leaf.as_ref().err().map(ToString::to_string));
        let mut row = json!({
            "collection": moving.collection,
            "shard": moving.shard.number,
            "leaf": moving.leaf,
            "instead_of": moving.instead_of,
            "state": match copy {
                Some(CopyStatus { from: Some(_), .. }) => "copying",
                Some(_) => "waiting",
                None => moving.state.as_str(),
            },
            "error": error,
        });
        if let Some(copy) = copy.filter(|copy| copy.total > 0) {
            let per_second = copy.read.saturating_mul(1_000) / copy.elapsed_ms.max(1);
            row["copied_from"] = json!(copy.from);
            row["bytes"] = copy.bytes.into();
            row["bytes_total"] = copy.total.into();
            row["bytes_per_second"] = per_second.into();
            row["seconds_left"] = copy.total.saturating_sub(copy.bytes).checked_div(per_second).into();
        }
        Some(row)
    };
    moving.iter().filter_map(row).collect()
}

/// The replicas that do not serve, and may be moved, and those that may have to be restored.
fn moving(catalog: &Catalog) -> Vec<Moving<'_>> {
    let mut all = Vec::new();
    for (name, collection) in &catalog.collections {
        for (number, states) in &collection.not_serving {
            let moves = collection.moves.get(number);
            all.extend(states.iter().map(|(leaf, state)| Moving {
                collection: name,
                shard: ShardId {
                    collection: collection.uid,
                    number: *number,
                },
                leaf: Some(leaf),
                instead_of: moves.and_then(|moves| moves.get(leaf)?.instead_of.as_ref()),
                state: *state,
            }));
        }
        let restored = collection
            .shards()
            .filter(|shard| collection.awaits_snapshot(shard.number));
        for shard in restored {
            let moving = |leaf| Moving {
                collection: name,
                shard,
                leaf,
                instead_of: None,
                state: ReplicaState::Serving,
            };
            match collection.replicas_of(shard.number).is_empty() {
                true => all.push(moving(None)),
                false => all.extend(collection.serving(shard.number).map(Some).map(moving)),
            }
        }
    }
    all
}

fn is_leaving(state: ReplicaState) -> bool {
    matches!(state, ReplicaState::Leaving { .. })
}

fn is_added(catalog: &Catalog, moving: &Moving<'_>) -> bool {
    let moves = catalog.collections[moving.collection].moves.get(&moving.shard.number);
    moves.is_some_and(|moves| moving.leaf.is_some_and(|leaf| moves.contains_key(leaf)))
}
