//! The read views of a query: it opens every shard that it reads before it is planned, and drops the views when it ends
//! in any way. Names are resolved against what they hold.

mod collection_kinds;
mod open;
mod watermarks;

use std::{collections::BTreeSet, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use datafusion::{
    arrow::datatypes::Schema,
    common::{Statistics, stats::Precision},
};
use futures::future::join_all;
use plan::{
    Path, PathKinds, Type,
    scan::ScanStream,
    views::{ReadViews, ShardView},
};
use proto::{Catalog, Code, CollectionName, PositionVector, Problem, catalog::Collection, ingest::ShardId};

pub(super) use self::{collection_kinds::CollectionKinds, open::ScanOfShards, watermarks::ReadWatermarks};
use super::{context::QueryContext, system::tables};
use crate::{answer::Stats, sql::SchemaContext};

/// The open shards of one collection.
pub(super) struct CollectionViews {
    pub name: CollectionName,
    /// The shards that could be opened, with what each holds.
    pub shards: Vec<(ShardId, ShardView)>,
    /// The shards that could not be opened, each with the reason.
    pub missing: Vec<(ShardId, Problem)>,
    /// Why open shards may lack what was acknowledged before the query, as its warnings say.
    pub behind: Vec<(ShardId, String)>,
    /// The kinds of the collection's paths, merged over its open shards.
    pub paths: Arc<PathKinds>,
    /// The path of a document's event time.
    pub time_path: Option<Path>,
    /// Scans the shards.
    pub views: Box<dyn ReadViews>,
}

impl CollectionViews {
    /// The number of documents in its read views.
    pub(super) fn documents(&self) -> u64 {
        self.shards.iter().map(|(_, view)| view.documents).sum()
    }
}

impl fmt::Debug for CollectionViews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read views of {}", self.name)
    }
}

/// A number of documents as an inexact row count: DataFusion would put an exact one into the plan as a constant.
pub(super) fn row_count(documents: u64, schema: &Schema) -> Statistics {
    let rows = usize::try_from(documents).unwrap_or(usize::MAX);
    Statistics::new_unknown(schema).with_num_rows(Precision::Inexact(rows))
}

/// All read views of a query. They are released when it and the plan that reads them are dropped.
#[derive(Debug)]
pub(super) struct QueryViews {
    catalog: Arc<Catalog>,
    now: DateTime<Utc>,
    /// Ordered by name.
    collections: Vec<Arc<CollectionViews>>,
}

impl QueryViews {
    /// Opens every shard of these collections concurrently. Each read view covers the positions in `at_least` that are
    /// routed to its shard.
    pub(super) async fn open(
        context: &QueryContext,
        catalog: &Arc<Catalog>,
        names: &BTreeSet<CollectionName>,
        at_least: &PositionVector,
    ) -> Result<Self, Problem> {
        let opened = Self::open_to_scan(context, catalog, names, at_least, &|_, _| None).await;
        opened.map(|(views, _)| views)
    }

    /// Like [`Self::open`], for a query that will probably ask for this scan: of one collection, once. Also returns the
    /// answers of the scan, one for each shard, if it has begun.
    pub(super) async fn open_to_scan(
        context: &QueryContext,
        catalog: &Arc<Catalog>,
        names: &BTreeSet<CollectionName>,
        at_least: &PositionVector,
        expected: ScanOfShards<'_>,
    ) -> Result<(Self, Option<Vec<ScanStream>>), Problem> {
        let single = names.len() == 1;
        // Of several collections, it is not known which one the scan is of.
        let expected = if single { expected } else { &|_, _| None };
        let each = names
            .iter()
            .map(|name| open::open_collection(context, catalog, name, at_least, single, expected));
        let (mut collections, mut prefetched) = (Vec::with_capacity(names.len()), None);
        for opened in join_all(each).await {
            let (collection, answers) = opened?;
            collections.push(Arc::new(collection));
            prefetched = answers;
        }
        let missed: usize = collections.iter().map(|collection| collection.missing.len()).sum();
        metrics::counter!("rachis_shards_missed_total").increment(missed as u64);
        let catalog = Arc::clone(catalog);
        let now = context.now;
        let views = Self {
            catalog,
            now,
            collections,
        };
        Ok((views, prefetched))
    }

    /// The same read views, with names looked up in another catalog.
    pub(super) fn under(&self, catalog: &Arc<Catalog>) -> Self {
        Self {
            catalog: Arc::clone(catalog),
            now: self.now,
            collections: self.collections.clone(),
        }
    }

    /// The collections, by name.
    pub(super) fn collections(&self) -> &[Arc<CollectionViews>] {
        &self.collections
    }

    pub(super) fn collection(&self, name: &CollectionName) -> Option<&Arc<CollectionViews>> {
        self.collections.iter().find(|collection| collection.name == *name)
    }

    /// The catalog that the collections were found in.
    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Whether a shard of a collection has several replicas.
    pub(super) fn is_replicated(&self) -> bool {
        let found = |views: &Arc<CollectionViews>| self.catalog.collections.get(&views.name);
        let mut collections = self.collections.iter().filter_map(found);
        collections.any(Collection::is_replicated)
    }

    /// The collections, by name, with the kinds of their paths.
    pub(super) fn kinds(&self) -> Vec<(CollectionName, Arc<PathKinds>)> {
        self.collections
            .iter()
            .map(|collection| (collection.name.clone(), Arc::clone(&collection.paths)))
            .collect()
    }

    /// The first shard that could not be opened, and why.
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

    /// Writes coverage, freshness and position into an answer's statistics. Every collection has sources of its own with
    /// the same names, so an answer from several collections leaves out their positions.
    pub(super) fn fill(&self, stats: &mut Stats) {
        let single = self.collections.len() == 1;
        for collection in &self.collections {
            stats.shards_total += u32::try_from(collection.shards.len() + collection.missing.len()).unwrap_or(u32::MAX);
            stats.shards_answered += u32::try_from(collection.shards.len()).unwrap_or(u32::MAX);
            stats.partial |= !collection.missing.is_empty();
            for (_, view) in &collection.shards {
                stats.freshness_ms = stats.freshness_ms.max(view.freshness_ms);
            }
            let of_shards = collection
                .shards
                .iter()
                .map(|(shard, view)| (shard.number, &view.positions));
            let positions = match self.catalog.collections.get(&collection.name) {
                Some(found) => found.merged_positions(of_shards),
                None => of_shards.flat_map(|(_, positions)| positions.iter()).collect(),
            };
            let positions = positions.iter().filter(|p| single || !p.source.is_own());
            positions.for_each(|p| stats.position.advance(&p.source, p.partition, p.offset));
        }
    }
}

/// The schema as of the read views: only open collections have paths.
impl SchemaContext for QueryViews {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds> {
        self.collection(collection)
            .map(|collection| Arc::clone(&collection.paths))
            .unwrap_or_default()
    }

    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, Type)>> {
        let table = tables::find(schema, name)?;
        Some(
            table
                .columns
                .iter()
                .map(|(name, column)| ((*name).to_owned(), *column))
                .collect(),
        )
    }
}
