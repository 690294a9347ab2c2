//! The view of a query: every shard it will read, pinned before it is planned, let go of when it ends, however it ends.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use plan::{Path, PathKinds, scan::Pinned};
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem, catalog::Collection, ingest::ShardId, routing::shard_of,
};

use super::{answered, context::QueryContext};
use crate::{answer::Stats, sql::nearest};

/// A collection as one query sees it.
#[derive(Debug)]
pub(super) struct PinnedCollection {
    /// Its name.
    pub name: CollectionName,
    /// The shards that answered, with what they hold.
    pub shards: Vec<(ShardId, Pinned)>,
    /// Those that did not.
    pub missing: Vec<(ShardId, Problem)>,
    /// The kinds of its paths.
    pub paths: Arc<PathKinds>,
    /// Where its documents say when they happened.
    pub time_path: Option<Path>,
}

impl PinnedCollection {
    /// Documents in it.
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|(_, pinned)| pinned.documents).sum()
    }
}

/// All views of a query; they are let go of when this is dropped.
#[derive(Debug)]
pub(super) struct Pins {
    context: Arc<QueryContext>,
    /// By collection, in the order of their names.
    pub collections: Vec<PinnedCollection>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.context.leaf.unpin(self.context.views);
    }
}

impl Pins {
    /// Pins every shard of these collections, all at once. Each view covers what `at_least` says of its partitions.
    pub async fn take(
        context: &Arc<QueryContext>,
        catalog: &Catalog,
        names: &BTreeSet<CollectionName>,
        at_least: &PositionVector,
    ) -> Result<Self, Problem> {
        // Made first: what is pinned when this future is dropped half-way is let go of, too.
        let mut pins = Self {
            context: Arc::clone(context),
            collections: Vec::new(),
        };
        let single = names.len() == 1;
        let each = names
            .iter()
            .map(|name| pin_collection(context, catalog, name, at_least, single));
        pins.collections = join_all(each).await.into_iter().collect::<Result<_, _>>()?;
        let missed: usize = pins.collections.iter().map(|collection| collection.missing.len()).sum();
        metrics::counter!("rachis_shards_missed_total").increment(missed as u64);
        Ok(pins)
    }

    /// One of its collections.
    pub fn collection(&self, name: &CollectionName) -> Option<&PinnedCollection> {
        self.collections.iter().find(|collection| collection.name == *name)
    }

    /// The first shard that is missing, and why.
    pub fn first_missing(&self) -> Option<(&CollectionName, &ShardId, &Problem)> {
        self.collections.iter().find_map(|collection| {
            collection
                .missing
                .first()
                .map(|(shard, why)| (&collection.name, shard, why))
        })
    }

    /// An error unless every shard answered or the question can do without.
    pub fn complete_or(&self, allow_partial: bool) -> Result<(), Problem> {
        match self.first_missing() {
            Some((name, shard, why)) if !allow_partial => {
                let problem = Problem::new(
                    Code::Incomplete,
                    format!("shard {} of {name} did not answer: {}", shard.number, why.detail),
                );
                Err(problem.hint("try again; allow_partial answers from the shards that are there"))
            }
            _ => Ok(()),
        }
    }

    /// Writes coverage and freshness into an answer's statistics. A vector speaks of one collection: every collection
    /// has a source called `push`, so an answer from several says nothing of theirs.
    pub fn fill(&self, stats: &mut Stats) {
        let single = self.collections.len() == 1;
        for collection in &self.collections {
            stats.shards_total += u32::try_from(collection.shards.len() + collection.missing.len()).unwrap_or(u32::MAX);
            stats.shards_answered += u32::try_from(collection.shards.len()).unwrap_or(u32::MAX);
            stats.partial |= !collection.missing.is_empty();
            for (_, pinned) in &collection.shards {
                stats.freshness_ms = stats.freshness_ms.max(pinned.freshness_ms);
                let told = pinned.positions.iter().filter(|p| single || !p.source.is_push());
                told.for_each(|p| stats.position.advance(&p.source, p.partition, p.offset));
            }
        }
    }
}

async fn pin_collection(
    context: &Arc<QueryContext>,
    catalog: &Catalog,
    name: &CollectionName,
    at_least: &PositionVector,
    single: bool,
) -> Result<PinnedCollection, Problem> {
    let collection = catalog
        .collections
        .get(name)
        .ok_or_else(|| no_collection(name, catalog))?;
    let shards = (0..collection.settings.shards).map(|number| ShardId {
        collection: collection.uid,
        number,
    });
    let wanted = shards.map(|shard| {
        (
            shard,
            share_of(at_least, shard.number, name, collection, catalog, single),
        )
    });
    let mut view = PinnedCollection {
        name: name.clone(),
        shards: Vec::new(),
        missing: Vec::new(),
        paths: Arc::default(),
        time_path: time_path(collection)?,
    };
    for (shard, result) in answered::pin(context, wanted.collect()).await {
        match result {
            Ok(pinned) => view.shards.push((shard, pinned)),
            // A leaf that does not know a collection that is here is not up to date, or is another cluster's. One that
            // is busy has no room to open the shard.
            Err(problem)
                if matches!(
                    problem.code,
                    Code::Unavailable | Code::Incomplete | Code::NotFound | Code::Busy
                ) =>
            {
                view.missing.push((shard, problem));
            }
            Err(problem) => return Err(problem),
        }
    }
    view.paths = merged(&view.shards);
    Ok(view)
}

/// What a shard must hold of a vector: the partitions that are routed to it. A source that feeds another collection
/// says nothing of this one, and `push` is said of one collection only.
fn share_of(
    at_least: &PositionVector,
    shard: u32,
    name: &CollectionName,
    collection: &Collection,
    catalog: &Catalog,
    single: bool,
) -> PositionVector {
    let ours = |source: &proto::SourceName| match catalog.sources.get(source) {
        Some(source) => source.settings.collection == *name,
        None => single,
    };
    at_least
        .iter()
        .filter(|p| ours(&p.source) && shard_of(&p.source, p.partition, collection.settings.shards) == shard)
        .collect()
}

fn merged(shards: &[(ShardId, Pinned)]) -> Arc<PathKinds> {
    match shards {
        [] => Arc::default(),
        [(_, only)] => Arc::clone(&only.paths),
        several => {
            let mut all = PathKinds::default();
            several.iter().for_each(|(_, pinned)| all.merge(&pinned.paths));
            Arc::new(all)
        }
    }
}

fn time_path(collection: &Collection) -> Result<Option<Path>, Problem> {
    let read = |text: &String| {
        Path::parse(text).map_err(|e| Problem::new(Code::BadRequest, format!("the collection's time path: {e}")))
    };
    collection.settings.time_path.as_ref().map(read).transpose()
}

/// There is no such collection; the hint names one that may have been meant.
pub(crate) fn no_collection(name: &CollectionName, catalog: &Catalog) -> Problem {
    let near = || nearest(name.as_str(), catalog.collections.keys().map(CollectionName::as_str));
    let hint = match catalog.view(name.as_str()) {
        Some(_) => format!("{name} is a view: ask it by SQL or search it"),
        None => near().map_or_else(
            || {
                "GET /v1/collections and SHOW TABLES list what there is; a push or a source creates a collection"
                    .to_owned()
            },
            |near| format!("perhaps {near} was meant"),
        ),
    };
    Problem::new(Code::NotFound, format!("there is no collection {name}")).hint(hint)
}
