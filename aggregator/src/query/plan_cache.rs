//! Caches the plans of statements, for statements that come again.
//!
//! A plan depends on the text and the parameters of its statement, on the catalog and on the kinds of the paths in the
//! read views. It is used again while these are the same, also for a statement with other texts if it has
//! [`placeholders`](super::placeholders) for them. If it can have a [`PlanTemplate`], that is cached, as
//! long as the number of documents is about the same. Otherwise the optimized logical plan is cached: its tables are
//! [`UnboundTable`]s, which are bound to the read views of each query that uses it. Not cached are plans whose statement
//! calls a function such as `now()`, that read system tables, or whose planning has warned.
//!
//! Its key is a statement, its limit [`PLANS_BYTES_MAX`]. Another catalog invalidates all plans, other kinds of a path
//! those that read its collection.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use datafusion::{
    common::tree_node::Transformed,
    config::ConfigOptions,
    datasource::{provider_as_source, source_as_provider},
    error::Result,
    logical_expr::{Expr, LogicalPlan, TableScan, TableSource},
};
use parking_lot::Mutex;
use plan::{PathKinds, byte_lru::ByteLru, walk::transform_up_with_subqueries};
use proto::{Catalog, CollectionName};

use super::{
    context::QueryContext,
    plan_template::PlanTemplate,
    plan_walk::each_node,
    query_plan::QueryPlan,
    read_views::QueryViews,
    shard_table::{ShardTable, UnboundTable},
    statement_shape::StatementKey,
};

/// The number of statements whose plans are cached.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// The bytes of all plans and of the texts of their statements.
pub(super) const PLANS_BYTES_MAX: usize = 32 << 20;
/// What an operator or an expression of a plan takes, with its share of schemas and properties.
const NODE_BYTES: usize = 2 << 10;
/// A plan with more operators and expressions is not cached.
const NODES_MAX: usize = 500;
/// A plan with more bytes of constants is not cached: the value of `lpad('a', 10000)` is one expression.
const CONSTANT_BYTES_MAX: usize = 64 << 10;

/// A physical plan is used again while the number of documents is at most this many times larger or smaller.
const DOCUMENTS_FACTOR_MAX: u64 = 4;
/// Fewer documents than this make no difference to a plan.
const DOCUMENTS_FEW: u64 = 1_000;

/// The plans of the most recently used statements.
pub(super) struct PlanCache {
    cached: Mutex<CachedPlans>,
}

/// Plans that were made under one catalog.
struct CachedPlans {
    catalog: Arc<Catalog>,
    by_statement: ByteLru<StatementKey, Arc<CachedPlan>>,
}

impl CachedPlans {
    fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            by_statement: ByteLru::new(PLANS_BYTES_MAX, STATEMENTS_MAX),
        }
    }

    /// The plans under this catalog. Drops those under another one.
    fn under(&mut self, catalog: &Arc<Catalog>) -> &mut ByteLru<StatementKey, Arc<CachedPlan>> {
        if !Arc::ptr_eq(&self.catalog, catalog) {
            *self = Self::new(Arc::clone(catalog));
        }
        &mut self.by_statement
    }
}

/// A plan, and what it was made for.
pub(super) struct CachedPlan {
    /// The collections that it reads, by name, with the kinds of their paths.
    collections: Vec<(CollectionName, Arc<PathKinds>)>,
    /// The documents in these collections. The shape of a physical plan depends on their number.
    documents: u64,
    pub plan: ReusablePlan,
    /// See [`ResolvedQuery::definitions_hash`](crate::sql::ResolvedQuery).
    pub definitions_hash: u64,
    /// The answer is cut after this many rows.
    pub rows_max: Option<usize>,
}

/// A plan as it is cached.
pub(super) enum ReusablePlan {
    Physical(PlanTemplate),
    /// An optimized plan. Its tables are [`UnboundTable`]s.
    Logical(LogicalPlan),
}

impl PlanCache {
    pub(super) fn new() -> Self {
        Self {
            cached: Mutex::new(CachedPlans::new(Arc::default())),
        }
    }

    /// The plan that was cached for a key under this catalog.
    pub(super) fn get(&self, key: &StatementKey, catalog: &Arc<Catalog>) -> Option<Arc<CachedPlan>> {
        self.cached.lock().under(catalog).get(key).map(Arc::clone)
    }

    /// Caches a plan if it can be used again.
    pub(super) fn put(
        &self,
        key: Option<StatementKey>,
        context: &QueryContext,
        read_views: &QueryViews,
        planned: &QueryPlan,
        rows_max: Option<usize>,
        settings: &Arc<ConfigOptions>,
    ) {
        if !(planned.repeatable && read_views.first_missing().is_none() && context.report.is_silent()) {
            return;
        }
        let (Some(key), Some((logical, plan_bytes))) = (key, unbind(&planned.logical)) else {
            return;
        };
        let template = PlanTemplate::of(&planned.executable.physical, settings);
        let plan = CachedPlan {
            collections: read_views.kinds(),
            documents: documents(read_views),
            plan: template.map_or(ReusablePlan::Logical(logical), ReusablePlan::Physical),
            definitions_hash: planned.definitions_hash,
            rows_max,
        };
        let bytes = bytes_of(&key) + plan_bytes;
        // Dropped after the lock is released.
        let (_outdated, _displaced);
        let mut cached = self.cached.lock();
        let plans = cached.under(read_views.catalog());
        // Plans for other kinds of the same paths would only hold those kinds in memory.
        _outdated = plans.retain(|_, other| plan.agrees_with(other));
        _displaced = plans.put(key, Arc::new(plan), bytes);
    }
}

#[cfg(test)]
impl PlanCache {
    /// Whether a plan is cached for a statement without parameters.
    pub(super) fn has(&self, sql: &str) -> bool {
        self.plan_of(sql).is_some()
    }

    fn plan_of(&self, sql: &str) -> Option<Arc<CachedPlan>> {
        let key = (sql.to_owned(), String::new());
        self.cached.lock().by_statement.get(&key).map(Arc::clone)
    }

    /// Whether a physical plan is cached for it, and for how many documents.
    pub(super) fn documents_of_template(&self, sql: &str) -> Option<u64> {
        let plan = self.plan_of(sql)?;
        matches!(plan.plan, ReusablePlan::Physical(_)).then_some(plan.documents)
    }

    /// How many plans are cached, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let cached = self.cached.lock();
        (cached.by_statement.values().count(), cached.by_statement.bytes())
    }

    /// Removes all plans.
    pub(super) fn clear(&self) {
        *self.cached.lock() = CachedPlans::new(Arc::default());
    }

    /// Removes that plan.
    pub(super) fn forget(&self, sql: &str) {
        drop(self.cached.lock().by_statement.remove(&(sql.to_owned(), String::new())));
    }
}

impl CachedPlan {
    /// The collections that the statement reads.
    pub(super) fn collections(&self) -> BTreeSet<CollectionName> {
        self.collections.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether both plans were made for the same kinds of the collections that both read.
    fn agrees_with(&self, other: &Self) -> bool {
        self.collections.iter().all(|(name, kinds)| {
            let others = other.collections.iter().find(|(other, _)| other == name);
            others.is_none_or(|(_, other)| Arc::ptr_eq(kinds, other) || kinds == other)
        })
    }

    /// Whether the plan may run over these read views: the kinds of all paths are the same, and no shard is missing.
    pub(super) fn fits(&self, read_views: &QueryViews) -> bool {
        let documents = documents(read_views);
        let (fewer, more) = (self.documents.min(documents), self.documents.max(documents));
        let is_alike = more <= fewer.max(DOCUMENTS_FEW).saturating_mul(DOCUMENTS_FACTOR_MAX);
        (is_alike || matches!(self.plan, ReusablePlan::Logical(_)))
            && read_views.first_missing().is_none()
            && read_views.kinds() == self.collections
    }
}

/// The number of documents in all read views.
fn documents(read_views: &QueryViews) -> u64 {
    read_views
        .collections()
        .iter()
        .map(|collection| collection.documents())
        .sum()
}

/// A logical plan over these read views.
pub(super) fn bind(logical: &LogicalPlan, context: &Arc<QueryContext>, read_views: &QueryViews) -> Result<LogicalPlan> {
    let bind = |table: &UnboundTable| {
        let views = read_views.collection(&table.collection)?;
        Some(provider_as_source(Arc::new(
            table.bind(Arc::clone(context), Arc::clone(views)),
        )))
    };
    let bound = |scan: &TableScan| scan.source.downcast_ref::<UnboundTable>().and_then(bind);
    replace_sources(logical.clone(), bound)
}

/// What a key takes in memory.
fn bytes_of((sql, parameters): &StatementKey) -> usize {
    size_of::<StatementKey>() + sql.capacity() + parameters.capacity()
}

/// The plan without read views, if it is small and reads collections only. Also returns about how many bytes it takes.
fn unbind(logical: &LogicalPlan) -> Option<(LogicalPlan, usize)> {
    let bytes = small_size(logical)?;
    let mut only_collections = true;
    let unbound = replace_sources(logical.clone(), |scan| {
        let provider = source_as_provider(&scan.source).ok();
        let table = provider
            .as_ref()
            .and_then(|provider| provider.downcast_ref::<ShardTable>());
        only_collections &= table.is_some();
        table.map(|table| Arc::new(table.unbound()) as Arc<dyn TableSource>)
    });
    unbound
        .ok()
        .filter(|_| only_collections)
        .map(|unbound| (unbound, bytes))
}

/// Replaces the source of each table for which there is another one.
fn replace_sources(
    plan: LogicalPlan,
    mut other: impl FnMut(&TableScan) -> Option<Arc<dyn TableSource>>,
) -> Result<LogicalPlan> {
    let replaced = transform_up_with_subqueries(plan, &mut |node| match node {
        LogicalPlan::TableScan(mut scan) => {
            if let Some(source) = other(&scan) {
                scan.source = source;
            }
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        node => Ok(Transformed::no(node)),
    })?;
    Ok(replaced.data)
}

/// About how many bytes a plan takes, unless it is too large.
fn small_size(plan: &LogicalPlan) -> Option<usize> {
    let (mut nodes, mut constant_bytes) = (0, 0);
    let walked = each_node(plan, |expr| {
        nodes += 1;
        if let Some(Expr::Literal(value, _)) = expr {
            constant_bytes += value.size();
        }
        true
    });
    let is_small = walked.is_ok() && nodes <= NODES_MAX && constant_bytes <= CONSTANT_BYTES_MAX;
    is_small.then_some(nodes * NODE_BYTES + constant_bytes)
}
