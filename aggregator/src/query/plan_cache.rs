//! Keeps the plans of statements, for statements that are asked again.
//!
//! A plan depends on the text and the parameters of its statement, on the catalog and on the kinds of the paths in the
//! read views. It is used again while these are the same, also for a statement with other texts if these are only
//! [compared with columns](super::quoted_texts). If it can have a [`PlanTemplate`], that is kept, as long as
//! the number of documents is about the same. Otherwise the optimized logical plan is kept: its tables are
//! [`UnboundTable`]s, which are bound to the read views of each query that uses it. Not kept are plans whose statement
//! calls a function such as `now()`, that read system tables, or whose planning has warned.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::Arc,
};

use datafusion::{
    common::tree_node::Transformed,
    config::ConfigOptions,
    datasource::{provider_as_source, source_as_provider},
    error::Result,
    logical_expr::{Expr, LogicalPlan, TableScan, TableSource},
};
use parking_lot::Mutex;
use plan::{PathKinds, byte_lru::ByteLru};
use proto::{Catalog, CollectionName};

use super::{
    context::QueryContext,
    plan_template::PlanTemplate,
    plan_walk::each_node,
    query_plan::QueryPlan,
    quoted_texts::{StatementShape, are_replaceable, may_be_kept},
    read_views::QueryViews,
    shard_table::{ShardTable, UnboundTable},
};
use crate::answer::SqlQuery;

/// The number of statements that are kept.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// The bytes of all plans and of the texts of their statements.
pub(super) const PLANS_BYTES_MAX: usize = 32 << 20;
/// What an operator or an expression of a plan takes, with its share of schemas and properties.
const NODE_BYTES: usize = 2 << 10;
/// A plan with more operators and expressions is not kept.
const NODES_MAX: usize = 500;
/// A plan with more bytes of constants is not kept: the value of `lpad('a', 10000)` is one expression.
const CONSTANT_BYTES_MAX: usize = 64 << 10;

/// A physical plan is used again while the number of documents is at most this many times larger or smaller.
const DOCUMENTS_FACTOR_MAX: u64 = 4;
/// Fewer documents than this make no difference to a plan.
const DOCUMENTS_FEW: u64 = 1_000;

/// The plans of the statements that were asked most recently.
pub(super) struct PlanCache {
    kept: Mutex<KeptPlans>,
}

/// Plans that were made under one catalog.
struct KeptPlans {
    catalog: Arc<Catalog>,
    by_statement: ByteLru<StatementKey, KeptStatement>,
}

/// What is known of a statement or of a shape of statements.
#[derive(Clone)]
enum KeptStatement {
    Plan(Arc<CachedPlan>),
    /// Statements of this shape cannot share a plan.
    NotShared,
}

impl KeptPlans {
    fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            by_statement: ByteLru::new(PLANS_BYTES_MAX, STATEMENTS_MAX),
        }
    }

    /// What is kept under this catalog. Drops what is kept under another one.
    fn under(&mut self, catalog: &Arc<Catalog>) -> &mut ByteLru<StatementKey, KeptStatement> {
        if !Arc::ptr_eq(&self.catalog, catalog) {
            *self = Self::new(Arc::clone(catalog));
        }
        &mut self.by_statement
    }
}

/// A statement with its parameters as JSON.
type StatementKey = (String, String);

/// A plan, and what it was made for.
pub(super) struct CachedPlan {
    /// The collections that it reads, by name, with the kinds of their paths.
    collections: Vec<(CollectionName, Arc<PathKinds>)>,
    /// The documents in these collections. The shape of a physical plan depends on their number.
    documents: u64,
    pub plan: KeptPlan,
    /// The answer is cut after this many rows.
    pub rows_max: Option<usize>,
    /// The marks in its conditions, if it is kept for all statements of a shape.
    marks: Vec<String>,
}

/// A plan that was kept, for a statement with other texts.
pub(super) struct FoundPlan {
    pub cached: Arc<CachedPlan>,
    /// The text of the statement for each mark in the plan.
    pub texts: HashMap<String, String>,
}

/// What is kept of a plan.
pub(super) enum KeptPlan {
    Physical(PlanTemplate),
    /// An optimized plan. Its tables are [`UnboundTable`]s.
    Logical(LogicalPlan),
}

impl PlanCache {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::new(KeptPlans::new(Arc::default())),
        }
    }

    /// The plan of a statement that was kept under this catalog.
    pub(super) fn get(&self, request: &SqlQuery, catalog: &Arc<Catalog>) -> Option<FoundPlan> {
        let find = |key: &StatementKey| match self.kept.lock().under(catalog).get(key)? {
            KeptStatement::Plan(plan) => Some(Arc::clone(plan)),
            KeptStatement::NotShared => None,
        };
        if let Some(cached) = find(&key(request)?) {
            let texts = HashMap::new();
            return Some(FoundPlan { cached, texts });
        }
        let shape = StatementShape::of(request)?;
        let cached = find(&shape.key())?;
        let texts = cached.marks.iter().cloned().zip(shape.texts).collect();
        Some(FoundPlan { cached, texts })
    }

    /// Keeps the plan of a statement if it can be used again.
    pub(super) fn put(
        &self,
        request: &SqlQuery,
        context: &QueryContext,
        read_views: &QueryViews,
        planned: &QueryPlan,
        rows_max: Option<usize>,
        settings: &Arc<ConfigOptions>,
    ) {
        if let Some(key) = key(request) {
            self.keep(key, Vec::new(), context, read_views, planned, rows_max, settings);
        }
    }

    /// Whether it is not known that statements of this shape cannot share a plan.
    pub(super) fn may_share(&self, shape: &StatementShape<'_>, catalog: &Arc<Catalog>) -> bool {
        let mut kept = self.kept.lock();
        !matches!(kept.under(catalog).get(&shape.key()), Some(KeptStatement::NotShared))
    }

    /// Keeps a plan that was made for these marks for all statements of a shape. Returns false if it cannot be shared.
    #[allow(clippy::too_many_arguments, reason = "what the plan was made for")]
    pub(super) fn put_shared(
        &self,
        shape: &StatementShape<'_>,
        marks: Vec<String>,
        context: &QueryContext,
        read_views: &QueryViews,
        planned: &QueryPlan,
        rows_max: Option<usize>,
        settings: &Arc<ConfigOptions>,
    ) -> bool {
        are_replaceable(&marks, &planned.logical, &planned.executable.physical)
            && self.keep(shape.key(), marks, context, read_views, planned, rows_max, settings)
    }

    /// From now on, statements of this shape are not tried again.
    pub(super) fn never_share(&self, shape: &StatementShape<'_>, catalog: &Arc<Catalog>) {
        let key = shape.key();
        let bytes = bytes_of(&key);
        // Dropped after the lock is released.
        let _displaced = self
            .kept
            .lock()
            .under(catalog)
            .put(key, KeptStatement::NotShared, bytes);
    }

    #[allow(clippy::too_many_arguments, reason = "what the plan was made for")]
    fn keep(
        &self,
        key: StatementKey,
        marks: Vec<String>,
        context: &QueryContext,
        read_views: &QueryViews,
        planned: &QueryPlan,
        rows_max: Option<usize>,
        settings: &Arc<ConfigOptions>,
    ) -> bool {
        if !(planned.repeatable && read_views.first_missing().is_none() && context.report.is_silent()) {
            return false;
        }
        let Some((logical, plan_bytes)) = unbind(&planned.logical) else {
            return false;
        };
        let plan = match PlanTemplate::of(&planned.executable.physical, settings) {
            Some(template) => KeptPlan::Physical(template),
            None if marks.is_empty() => KeptPlan::Logical(logical),
            // Only a template has other texts for each run.
            None => return false,
        };
        let plan = CachedPlan {
            collections: read_views.kinds(),
            documents: documents(read_views),
            plan,
            rows_max,
            marks,
        };
        let bytes = bytes_of(&key) + plan_bytes;
        // Dropped after the lock is released.
        let (_outdated, _displaced);
        let mut kept = self.kept.lock();
        let plans = kept.under(read_views.catalog());
        // Plans for other kinds of the same paths would only keep those kinds in memory.
        _outdated = plans.retain(|_, other| match other {
            KeptStatement::Plan(other) => plan.agrees_with(other),
            KeptStatement::NotShared => true,
        });
        _displaced = plans.put(key, KeptStatement::Plan(Arc::new(plan)), bytes);
        true
    }
}

#[cfg(test)]
impl PlanCache {
    /// Whether a plan is kept for a statement without parameters.
    pub(super) fn has(&self, sql: &str) -> bool {
        self.plan_of(sql).is_some()
    }

    fn plan_of(&self, sql: &str) -> Option<Arc<CachedPlan>> {
        match self.kept.lock().by_statement.get(&(sql.to_owned(), String::new()))? {
            KeptStatement::Plan(plan) => Some(Arc::clone(plan)),
            KeptStatement::NotShared => None,
        }
    }

    /// Whether a physical plan is kept for it, and for how many documents.
    pub(super) fn documents_of_template(&self, sql: &str) -> Option<u64> {
        let plan = self.plan_of(sql)?;
        matches!(plan.plan, KeptPlan::Physical(_)).then_some(plan.documents)
    }

    /// How many plans and other statements are kept, and their bytes.
    pub(super) fn size(&self) -> (usize, usize, usize) {
        let kept = self.kept.lock();
        let is_plan = |statement: &&KeptStatement| matches!(statement, KeptStatement::Plan(_));
        let plans = kept.by_statement.values().filter(is_plan).count();
        let all = kept.by_statement.values().count();
        (plans, all - plans, kept.by_statement.bytes())
    }

    /// Removes all plans.
    pub(super) fn clear(&self) {
        *self.kept.lock() = KeptPlans::new(Arc::default());
    }

    /// Removes that plan.
    pub(super) fn forget(&self, sql: &str) {
        drop(self.kept.lock().by_statement.remove(&(sql.to_owned(), String::new())));
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
        (is_alike || matches!(self.plan, KeptPlan::Logical(_)))
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

/// The key of a statement that is short enough.
fn key(request: &SqlQuery) -> Option<StatementKey> {
    if !may_be_kept(request) {
        return None;
    }
    let parameters = match request.parameters.as_slice() {
        [] => String::new(),
        parameters => serde_json::to_string(parameters).ok()?,
    };
    Some((request.sql.clone(), parameters))
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
    let replaced = plan.transform_up_with_subqueries(|node| match node {
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
