//! The read views of a query: pins every shard that the query reads before it is planned, and unpins them when the
//! query ends in any way. Names are resolved against what they hold.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use datafusion::{
    arrow::datatypes::Schema,
    common::{Statistics, stats::Precision},
};
use futures::future::join_all;
use plan::{
    Path, PathKinds, Type,
    scan::{PinnedShard, ScanRequest, VIEW_LEASE},
};
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem, catalog::Collection, ingest::ShardId, routing::shard_of,
};
use tokio_util::task::AbortOnDropHandle;

use super::{context::QueryContext, find_collection::find_collection, system};
use crate::{answer::Stats, sql::SchemaContext};

/// How often a query renews the lease of its read views: a lost renewal does no harm.
const RENEW_EVERY: Duration = VIEW_LEASE.checked_div(3).expect("three is not zero");

/// Computes the scan that a query will probably ask for: of all shards of a collection with this time path.
pub(super) type ScanOfShards<'a> = &'a (dyn Fn(Option<Path>, Vec<ShardId>) -> Option<ScanRequest> + Send + Sync);

/// The pinned shards of one collection.
#[derive(Debug)]
pub(super) struct PinnedCollection {
    pub name: CollectionName,
    /// The shards that were pinned, with what each holds.
    pub shards: Vec<(ShardId, PinnedShard)>,
    /// The shards that could not be pinned, each with the reason.
    pub missing: Vec<(ShardId, Problem)>,
    /// The kinds of the collection's paths, merged over its pinned shards.
    pub paths: Arc<PathKinds>,
    /// The path of a document's event time.
    pub time_path: Option<Path>,
}

impl PinnedCollection {
    /// The number of documents in its read views.
    pub(super) fn documents(&self) -> u64 {
        self.shards.iter().map(|(_, pinned)| pinned.documents).sum()
    }
}

/// A number of documents as an inexact row count: DataFusion would put an exact one into the plan as a constant.
pub(super) fn row_count(documents: u64, schema: &Schema) -> Statistics {
    let rows = usize::try_from(documents).unwrap_or(usize::MAX);
    Statistics::new_unknown(schema).with_num_rows(Precision::Inexact(rows))
}

/// All read views of a query. Dropping it unpins them.
#[derive(Debug)]
pub(super) struct Pins {
    context: Arc<QueryContext>,
    catalog: Arc<Catalog>,
    /// Ordered by name.
    collections: Vec<Arc<PinnedCollection>>,
    _renewal: Option<AbortOnDropHandle<()>>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.context.leaf.unpin(self.context.read_view_id);
    }
}

impl Pins {
    /// Pins every shard of these collections concurrently. Each read view covers the positions in `at_least` that are
    /// routed to its shard.
    pub(super) async fn take(
        context: &Arc<QueryContext>,
        catalog: &Arc<Catalog>,
        names: &BTreeSet<CollectionName>,
        at_least: &PositionVector,
    ) -> Result<Self, Problem> {
        Self::take_to_scan(context, catalog, names, at_least, &|_, _| None).await
    }

    /// Like [`Self::take`], for a query that will probably ask for this scan: of one collection, once.
    pub(super) async fn take_to_scan(
        context: &Arc<QueryContext>,
        catalog: &Arc<Catalog>,
        names: &BTreeSet<CollectionName>,
        at_least: &PositionVector,
        expected: ScanOfShards<'_>,
    ) -> Result<Self, Problem> {
        // Created first, so that a future dropped half-way unpins whatever it has pinned.
        let mut pins = Self {
            context: Arc::clone(context),
            catalog: Arc::clone(catalog),
            collections: Vec::new(),
            _renewal: (!names.is_empty())
                .then(|| AbortOnDropHandle::new(context.background.spawn(renew_lease(Arc::clone(context))))),
        };
        let single = names.len() == 1;
        // Of several collections, it is not known which one the scan is of.
        let expected = if single { expected } else { &|_, _| None };
        let each = names
            .iter()
            .map(|name| pin_collection(context, catalog, name, at_least, single, expected));
        let pinned = join_all(each).await.into_iter().map(|result| result.map(Arc::new));
        pins.collections = pinned.collect::<Result<_, _>>()?;
        let missed: usize = pins.collections.iter().map(|collection| collection.missing.len()).sum();
        metrics::counter!("rachis_shards_missed_total").increment(missed as u64);
        Ok(pins)
    }

    /// The pinned collections, by name.
    pub(super) fn collections(&self) -> &[Arc<PinnedCollection>] {
        &self.collections
    }

    pub(super) fn collection(&self, name: &CollectionName) -> Option<&Arc<PinnedCollection>> {
        self.collections.iter().find(|collection| collection.name == *name)
    }

    /// The catalog that the collections were found in.
    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The pinned collections, by name, with the kinds of their paths.
    pub(super) fn kinds(&self) -> Vec<(CollectionName, Arc<PathKinds>)> {
        self.collections
            .iter()
            .map(|collection| (collection.name.clone(), Arc::clone(&collection.paths)))
            .collect()
    }

    /// The first shard that could not be pinned, and why.
    pub(super) fn first_missing(&self) -> Option<(&CollectionName, &ShardId, &Problem)> {
        self.collections.iter().find_map(|collection| {
            collection
                .missing
                .first()
                .map(|(shard, why)| (&collection.name, shard, why))
        })
    }

    /// Fails if a shard is missing, unless the query allows partial answers.
    pub(super) fn require_complete(&self, allow_partial: bool) -> Result<(), Problem> {
        match self.first_missing() {
            Some((name, shard, why)) if !allow_partial => {
                let problem = Problem::new(
                    Code::Incomplete,
                    format!("shard {} of {name} is unavailable: {}", shard.number, why.detail),
                );
                Err(problem.hint("retry, or set allow_partial to query the other shards only"))
            }
            _ => Ok(()),
        }
    }

    /// Writes coverage, freshness and position into an answer's statistics. Every collection has a source named `push`,
    /// so an answer from several collections leaves out the positions of pushes.
    pub(super) fn fill(&self, stats: &mut Stats) {
        let single = self.collections.len() == 1;
        for collection in &self.collections {
            stats.shards_total += u32::try_from(collection.shards.len() + collection.missing.len()).unwrap_or(u32::MAX);
            stats.shards_answered += u32::try_from(collection.shards.len()).unwrap_or(u32::MAX);
            stats.partial |= !collection.missing.is_empty();
            for (_, pinned) in &collection.shards {
                stats.freshness_ms = stats.freshness_ms.max(pinned.freshness_ms);
                let positions = pinned.positions.iter().filter(|p| single || !p.source.is_push());
                positions.for_each(|p| stats.position.advance(&p.source, p.partition, p.offset));
            }
        }
    }
}

/// The schema as of the read views: only pinned collections have paths.
impl SchemaContext for Pins {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds> {
        self.collection(collection)
            .map(|pinned| Arc::clone(&pinned.paths))
            .unwrap_or_default()
    }

    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, Type)>> {
        let table = system::find(schema, name)?;
        Some(
            table
                .columns
                .iter()
                .map(|(name, column)| ((*name).to_owned(), *column))
                .collect(),
        )
    }
}

/// Renews the lease of a query's read views until the query must end.
async fn renew_lease(context: Arc<QueryContext>) {
    let renew = async {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            context.leaf.renew(context.read_view_id);
        }
    };
    tokio::select! {
        () = renew => {}
        () = context.cancel.cancelled() => {}
        () = context.time.passed(VIEW_LEASE) => {}
    }
}

async fn pin_collection(
    context: &Arc<QueryContext>,
    catalog: &Catalog,
    name: &CollectionName,
    at_least: &PositionVector,
    single: bool,
    expected: ScanOfShards<'_>,
) -> Result<PinnedCollection, Problem> {
    let collection = find_collection(catalog, name)?;
    let time_path = time_path(collection)?;
    let expected = || expected(time_path.clone(), collection.shards().collect());
    let wanted = collection.shards().map(|shard| {
        (
            shard,
            positions_of_shard(at_least, shard.number, name, collection, catalog, single),
        )
    });
    let mut pinned_collection = PinnedCollection {
        name: name.clone(),
        shards: Vec::new(),
        missing: Vec::new(),
        paths: Arc::default(),
        time_path: time_path.clone(),
    };
    let pinning = context.pinning();
    let pinned = context.watermarks.pin(&pinning, wanted.collect(), &expected).await;
    for (shard, result) in pinned {
        match result {
            Ok(pinned) => pinned_collection.shards.push((shard, pinned)),
            // NotFound: the leaf's catalog is outdated, or the leaf belongs to another cluster. Busy: the leaf has no
            // room to open the shard.
            Err(problem)
                if matches!(
                    problem.code,
                    Code::Unavailable | Code::Incomplete | Code::NotFound | Code::Busy
                ) =>
            {
                pinned_collection.missing.push((shard, problem));
            }
            Err(problem) => return Err(problem),
        }
    }
    pinned_collection.paths = context.kinds.of(collection.uid, &pinned_collection.shards);
    Ok(pinned_collection)
}

/// The part of `at_least` that a shard must cover: the partitions that are routed to it, of sources that feed this
/// collection. Positions of `push` count only if the query reads a single collection.
fn positions_of_shard(
    at_least: &PositionVector,
    shard: u32,
    name: &CollectionName,
    collection: &Collection,
    catalog: &Catalog,
    single: bool,
) -> PositionVector {
    let feeds_collection = |source: &proto::SourceName| match catalog.sources.get(source) {
        Some(source) => source.settings.collection == *name,
        None => single,
    };
    at_least
        .iter()
        .filter(|p| {
            feeds_collection(&p.source) && shard_of(&p.source, p.partition, collection.settings.shards) == shard
        })
        .collect()
}

fn time_path(collection: &Collection) -> Result<Option<Path>, Problem> {
    let read = |text: &String| {
        Path::parse(text).map_err(|e| {
            Problem::new(
                Code::BadRequest,
                format!("the collection has an invalid time path: {e}"),
            )
        })
    };
    collection.settings.time_path.as_ref().map(read).transpose()
}
