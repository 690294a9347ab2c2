//! Plans what has to be changed in the catalog to restore collections of a snapshot. Their leaves do the rest.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem, SourceName,
    catalog::{Change, RestoredCollection, RetiredSource, Source},
    cluster::Role,
    snapshot::SnapshotId,
};

use crate::{CollectionSnapshot, ShardFiles, SnapshotStore, store::REQUESTS_AT_ONCE};

/// What is to be restored.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The snapshot.
    pub id: SnapshotId,
    /// The collections; all, if none is named.
    pub collections: Vec<CollectionName>,
    /// The name that the collection gets, if only one is named.
    pub rename: Option<CollectionName>,
    /// Whether they go on with their topics. Otherwise they are copies.
    pub continued: bool,
}

/// A collection that is restored.
#[derive(Debug, Clone)]
pub struct RestoreStep {
    /// The name that it gets.
    pub name: CollectionName,
    /// The change that creates it.
    pub change: Change,
    /// The sources that fed it, for this name.
    pub sources: BTreeMap<SourceName, Source>,
}

/// What has to be done, collection by collection. Fails before anything is changed, if a name is taken or not in the
/// snapshot.
pub async fn plan_restore(
    store: &SnapshotStore,
    request: &RestoreRequest,
    catalog: &Catalog,
) -> Result<Vec<RestoreStep>, Problem> {
    let manifest = store.manifest(&request.id).await?;
    let is_single = catalog.members_of(Role::Leaf).next().is_none();
    let bad = |detail: String, hint: &str| Problem::new(Code::BadRequest, detail).hint(hint);
    if request.rename.is_some() && request.collections.len() != 1 {
        return Err(bad(
            "a new name is for one collection".to_owned(),
            "name the one collection of the snapshot that is to get it",
        ));
    }
    let names: Vec<&CollectionName> = match request.collections.is_empty() {
        true => manifest.collections.keys().collect(),
        false => request
            .collections
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    let mut steps = Vec::new();
    for was in names {
        let Some(found) = manifest.collections.get(was) else {
            let has: Vec<&str> = manifest
                .collections
                .keys()
                .map(CollectionName::as_str)
                .take(20)
                .collect();
            return Err(Problem::new(
                Code::NotFound,
                format!("snapshot {} has no collection {was}", request.id),
            )
            .hint(format!("it has {}", has.join(", "))));
        };
        let name = request.rename.clone().unwrap_or_else(|| was.clone());
        if found.shards.len() != found.collection.settings.shards as usize {
            let detail = format!("snapshot {} does not have all shards of {was}", request.id);
            return Err(Problem::new(Code::Unavailable, detail).hint("restore from another snapshot"));
        }
        if let Some((other, _)) = catalog.collection(found.collection.uid).filter(|_| request.continued) {
            let detail = format!("collection {was} cannot go on with its topics: it is still there, as {other}");
            return Err(Problem::new(Code::Conflict, detail).hint("restore it as a copy, which gets topics of its own"));
        }
        if catalog.view(name.as_str()).is_some() {
            let detail = format!("a view named {name} exists already");
            return Err(
                Problem::new(Code::Conflict, detail).hint("restore the collection under another name (`--as NAME`)")
            );
        }
        if catalog.collections.contains_key(&name) {
            return Err(
                Problem::new(Code::Conflict, format!("collection {name} exists already"))
                    .hint("restore one collection under another name (`--as NAME`), or drop that one first"),
            );
        }
        steps.push(step(store, request, name, found, is_single).await?);
    }
    Ok(steps)
}

async fn step(
    store: &SnapshotStore,
    request: &RestoreRequest,
    name: CollectionName,
    found: &CollectionSnapshot,
    is_single: bool,
) -> Result<RestoreStep, Problem> {
    let mut collection = found.collection.clone().without_placement();
    if is_single {
        // One process holds one replica of each shard.
        collection.settings.replicas = None;
    }
    if request.rename.is_some() {
        // Who looks at what was there before wants to see it.
        collection.settings.retention = None;
    }
    collection
        .retired_sources
        .extend(found.sources.iter().map(|(source, known)| {
            let retired = RetiredSource {
                topic: known.settings.topic.clone(),
                rules: known.settings.rules.clone(),
                skips: known.skips.clone(),
            };
            (source.clone(), retired)
        }));
    let mut own_positions = positions(store, found).await?;
    if request.continued {
        let has_topic = |source: &SourceName| is_single || found.collection.has_own_topic(source);
        if let Some(position) = own_positions.iter().find(|position| !has_topic(&position.source)) {
            let detail = format!(
                "collection {name} cannot go on with its topics: {} came from no topic",
                position.source
            );
            return Err(Problem::new(Code::BadRequest, detail).hint("restore it without --continue"));
        }
        own_positions = PositionVector::default();
    }
    let sources = found.sources.iter().map(|(source, known)| {
        let mut known = known.clone();
        known.settings.collection = name.clone();
        (source.clone(), known)
    });
    Ok(RestoreStep {
        sources: sources.collect(),
        change: Change::RestoreCollection {
            name: name.clone(),
            restored: Box::new(RestoredCollection {
                snapshot: request.id.clone(),
                collection,
                continued: request.continued,
                own_positions,
            }),
            placement: Vec::new(),
        },
        name,
    })
}

/// What a collection in a snapshot has of its own sources.
async fn positions(store: &SnapshotStore, found: &CollectionSnapshot) -> Result<PositionVector, Problem> {
    let lists = lists_of(store, found).await?;
    let all = lists.iter().flat_map(|list| list.positions.iter());
    Ok(all.filter(|position| position.source.is_own()).collect())
}

/// The lists of files of the shards of a collection, by number.
pub async fn lists_of(store: &SnapshotStore, found: &CollectionSnapshot) -> Result<Vec<ShardFiles>, Problem> {
    let lists = found
        .shards
        .iter()
        .map(|shard| store.get_json::<ShardFiles>(&shard.files).boxed());
    let lists: Vec<BoxFuture<'_, _>> = lists.collect();
    stream::iter(lists).buffered(REQUESTS_AT_ONCE).try_collect().await
}
