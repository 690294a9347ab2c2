//! The operator that scans the shards on the leaves. Everything above it is plain DataFusion.
//!
//! ```text
//!   partition 0 ─┬─ ScanRequest ──> leaves ─┬─ shard 0 ──> batches, trailer
//!   partition 1 ─┘                          └─ shard 1 ──> batches, trailer
//! ```
//!
//! The leaves are asked when the first partition is polled. Then the build side of a hash join above has been read, and
//! the leaves leave out documents that cannot join ([`join_filter`](super::join_filter)).
//!
//! There are at least two partitions, if need be an empty one: DataFusion plans an aggregate over a single partition in
//! one phase, which leaves no partial phase to push down. Of a top-k, leaves return few rows, so that a single partition
//! reads those of all shards: a task for each shard would take longer than sorting them.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::SchemaRef,
    },
    common::{Statistics, internal_err, tree_node::TreeNodeRecursion},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::Expr,
    physical_expr::{EquivalenceProperties, PhysicalExpr, aggregate::AggregateFunctionExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
        aggregates::PhysicalGroupBy,
        coop::make_cooperative,
        execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType},
        filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use plan::{
    Column, ColumnSource, Path,
    scan::{ANSWER_READ_MAX, PageStart, PartialAggregate, ScanChunk, ScanRequest, ScanStream, SortKey, Stage},
    search::Match,
};
use proto::{Code, CollectionName, Problem, ingest::ShardId};

use super::{
    bound_functions::{has_function, with_settings},
    context::QueryContext,
    join_filter,
    placeholders::{Texts, condition_with_tests, condition_with_texts},
    read_views::{CollectionViews, row_count},
    row_slices::row_slices,
};
use crate::failure;

const PARTITIONS_MIN: usize = 2;

/// The query of a running plan and what it reads. The task context of the plan carries it, so that a plan can run for
/// another query.
#[derive(Debug)]
pub(super) struct QueryScans {
    pub context: Arc<QueryContext>,
    pub collections: Vec<Arc<CollectionViews>>,
    pub values: ScanValues,
    /// The answers that no partition has read yet, by the number of their scan: one for each shard.
    pub answers: Answers,
}

/// What a run puts into the scans of its plan.
#[derive(Debug, Clone, Default)]
pub(super) struct ScanValues {
    /// For the placeholders in their conditions.
    pub texts: Texts,
    /// For the only scan of a search.
    pub page: Option<Arc<SearchPage>>,
}

impl ScanValues {
    pub(super) fn texts(texts: Texts) -> Self {
        Self { texts, page: None }
    }
}

/// A page of a search, whose plan is that of all searches with the same template.
#[derive(Debug)]
pub(super) struct SearchPage {
    /// The tests of its clauses.
    pub tests: Vec<Match>,
    pub time_range: Vec<Expr>,
    pub after: Option<PageStart>,
    pub limit: usize,
    /// The score of this search. It replaces the one in the plan, which may have been made for another search.
    pub score: Option<Column>,
}

impl SearchPage {
    /// The column to read in place of a planned one.
    fn column(&self, planned: &Column) -> Column {
        match (&self.score, &planned.source) {
            (Some(score), ColumnSource::Score(_)) => score.clone(),
            _ => planned.clone(),
        }
    }
}

/// The answers of scans, see [`QueryScans`].
#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<usize, Vec<Option<ScanStream>>>>);

impl Answers {
    /// The prefetched answers of the scan, one for each shard.
    pub(super) fn prefetched(scan: &ShardScan, answers: Vec<ScanStream>) -> Self {
        let answers = answers.into_iter().map(Some).collect();
        Self(Mutex::new(HashMap::from([(scan.number, answers)])))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// A scan of all shards of a collection.
#[derive(Debug, Clone)]
pub(super) struct ShardScan {
    collection: CollectionName,
    /// The number of shards, the same in all read views that the plan may read.
    shards: usize,
    /// The documents in the read views that the plan was made for.
    documents: u64,
    /// The columns that the scan returns or that its stage reads.
    pub columns: Vec<Column>,
    /// Conditions over flat column names, combined by AND. They may have placeholders. Shared: the list of an IN may be long,
    /// and each shard has a copy of the scan.
    pub filter: Arc<Vec<Expr>>,
    /// What hash joins above know about the rows that can join. It changes while the plan runs.
    join_filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What the leaf does with the filtered rows.
    pub stage: Stage,
    /// Tells the scans of a plan apart.
    pub number: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ShardScan {
    /// Creates a scan; `schema` is the output of its stage.
    pub(super) fn new(
        number: usize,
        collection: &CollectionViews,
        columns: Vec<Column>,
        filter: Vec<Expr>,
        stage: Stage,
        schema: SchemaRef,
    ) -> Self {
        let shards = collection.shards.len();
        Self {
            collection: collection.name.clone(),
            shards,
            documents: collection.documents(),
            columns,
            filter: Arc::new(filter),
            join_filters: Vec::new(),
            number,
            properties: properties(partitions(shards, &stage), schema),
            stage,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same scan with another stage.
    pub(super) fn with_stage(&self, stage: Stage, schema: SchemaRef) -> Self {
        Self {
            properties: properties(partitions(self.shards, &stage), schema),
            stage,
            metrics: ExecutionPlanMetricsSet::new(),
            ..self.clone()
        }
    }

    /// The collection that it scans.
    pub(super) fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The number of its shards.
    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    /// The documents in the read views that the plan was made for.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// The columns by which a hash join above says which documents to read.
    pub(super) fn join_keys(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let keys = self.join_filters.iter().flat_map(|filter| filter.children());
        keys.map(Arc::clone).collect()
    }

    /// The expressions of the aggregate that the leaves compute, if any.
    pub(super) fn aggregated(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        match &self.stage {
            Stage::Partial(aggregate) => expressions(aggregate),
            Stage::Rows { .. } | Stage::Top { .. } => Vec::new(),
        }
    }

    /// A copy with another number, whose functions find their query in these settings.
    pub(super) fn for_run(&self, settings: &Arc<ConfigOptions>, number: usize) -> Result<Self> {
        let stage = match &self.stage {
            Stage::Partial(aggregate) => Stage::Partial(partial_with_settings(aggregate, settings)?),
            stage => stage.clone(),
        };
        Ok(Self {
            stage,
            number,
            metrics: ExecutionPlanMetricsSet::new(),
            ..self.clone()
        })
    }

    /// Whether a hash join above says which documents to read. It belongs to one run of one plan.
    pub(super) fn has_join_filters(&self) -> bool {
        !self.join_filters.is_empty()
    }

    /// Whether it has one of these join filters, by the ids of their expressions.
    pub(super) fn has_join_filter_of(&self, filters: &[u64]) -> bool {
        self.join_filters.iter().any(|filter| is_one_of(filter, filters))
    }

    /// A copy with only these of its join filters, by the ids of their expressions; `None` if it has no others.
    pub(super) fn with_join_filters_of(&self, filters: &[u64]) -> Option<Self> {
        let (kept, others): (Vec<_>, Vec<_>) =
            (self.join_filters.iter().cloned()).partition(|filter| is_one_of(filter, filters));
        (!others.is_empty()).then(|| Self {
            join_filters: kept,
            metrics: ExecutionPlanMetricsSet::new(),
            ..self.clone()
        })
    }

    /// Whether the scan returns all documents of its collection.
    pub(super) fn reads_all_documents(&self) -> bool {
        self.filter.is_empty() && self.join_filters.is_empty() && self.returns_all_rows()
    }

    /// Whether the scan returns all filtered rows. Only then can another stage be pushed down.
    pub(super) fn returns_all_rows(&self) -> bool {
        matches!(self.stage, Stage::Rows { limit: None })
    }

    /// The same scan with these values.
    pub(super) fn with_values(&self, values: &ScanValues) -> Result<Self> {
        let mut scan = self.clone();
        if !values.texts.is_empty() {
            for condition in Arc::make_mut(&mut scan.filter) {
                *condition = condition_with_texts(condition, &values.texts)?;
            }
        }
        if let (Some(page), Stage::Top { keys, .. }) = (&values.page, &self.stage) {
            let filter = Arc::make_mut(&mut scan.filter);
            for condition in filter.iter_mut() {
                *condition = condition_with_tests(condition, &page.tests)?;
            }
            filter.extend(page.time_range.iter().cloned());
            scan.columns = self.columns.iter().map(|column| page.column(column)).collect();
            let key = |key: &SortKey| SortKey {
                column: page.column(&key.column),
                ..key.clone()
            };
            scan.stage = Stage::Top {
                keys: keys.iter().map(key).collect(),
                after: page.after.clone(),
                limit: page.limit,
                counts_all: true,
            };
        }
        Ok(scan)
    }

    /// What it asks the leaves for.
    pub(super) fn request(&self, context: &QueryContext, time_path: Option<Path>, shards: Vec<ShardId>) -> ScanRequest {
        let joinable = (self.join_filters.iter())
            .flat_map(|filter| join_filter::known_conditions(filter, &self.columns))
            .collect::<Vec<_>>();
        ScanRequest {
            shards,
            read: context.read,
            time_path,
            columns: self.columns.clone(),
            filter: self.filter.iter().cloned().chain(joinable).collect(),
            stage: self.stage.clone(),
            // A scan may wait for a slow client without passing its own deadline: its query ends it.
            deadline: context.deadline() + ANSWER_READ_MAX,
        }
    }

    /// The answer of the shard with this index. The first partition that runs requests those of all shards.
    fn answer(&self, scans: &QueryScans, collection: &CollectionViews, index: usize) -> Option<ScanStream> {
        let scan = |shards| {
            let request = self.request(&scans.context, collection.time_path.clone(), shards);
            collection.views.scan(request)
        };
        let mut answers = scans.answers.0.lock();
        let of_scan = answers.entry(self.number).or_insert_with(|| {
            let shards = collection.shards.iter().map(|(shard, _)| *shard).collect();
            scan(shards).into_iter().map(Some).collect()
        });
        let answer = of_scan.get_mut(index).and_then(Option::take);
        // A partition that runs again scans its shard again.
        answer.or_else(|| scan(vec![collection.shards[index].0]).pop())
    }

    /// The rows of the shard with this index. It is asked on the first poll.
    fn rows(
        &self,
        scans: &Arc<QueryScans>,
        collection: &Arc<CollectionViews>,
        index: usize,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        struct ShardStream {
            chunks: ScanStream,
            asked_at: Instant,
            scan: usize,
            context: Arc<QueryContext>,
            collection: CollectionName,
            schema: SchemaRef,
        }
        let (shard, view) = &collection.shards[index];
        let shard = *shard;
        scans.context.report.begun(self.number, shard, view.documents);
        let (scan, asked, views) = (self.clone(), Arc::clone(scans), Arc::clone(collection));
        let answer = async move {
            scan.answer(&asked, &views, index)
                .unwrap_or_else(|| stream::empty().boxed())
        };
        let state = ShardStream {
            chunks: answer.flatten_stream().boxed(),
            asked_at: Instant::now(),
            scan: self.number,
            context: Arc::clone(&scans.context),
            collection: self.collection.clone(),
            schema: self.schema(),
        };
        stream::try_unfold(state, move |mut state| async move {
            if let Some(problem) = state.context.interrupted() {
                return Err(failure::error(problem));
            }
            let report = |trailer| state.context.report.record(state.scan, shard, trailer);
            loop {
                match state.chunks.next().await {
                    Some(Ok(ScanChunk::Rows(batch))) => {
                        let batch = with_schema(batch, &state.schema)?;
                        return Ok(Some((batch, state)));
                    }
                    Some(Ok(ScanChunk::Progress(trailer))) => report(trailer),
                    Some(Ok(ScanChunk::End(trailer))) => {
                        report(trailer);
                        state.context.report.answered(state.scan, state.asked_at.elapsed());
                        return Ok(None);
                    }
                    Some(Err(problem)) => return Err(failure::error(problem)),
                    None => return Err(failure::error(unfinished(&state.collection, shard))),
                }
            }
        })
    }
}

/// The number of partitions of a scan of this many shards.
fn partitions(shards: usize, stage: &Stage) -> usize {
    match stage {
        Stage::Top { .. } => 1,
        Stage::Rows { .. } | Stage::Partial(_) => shards.max(PARTITIONS_MIN),
    }
}

fn properties(partitions: usize, schema: SchemaRef) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

fn expressions(aggregate: &PartialAggregate) -> Vec<Arc<dyn PhysicalExpr>> {
    let groups = aggregate.group_by.input_exprs().into_iter();
    let arguments = aggregate.aggregates.iter().flat_map(|call| call.expressions());
    let filters = aggregate.filters.iter().flatten().cloned();
    groups.chain(arguments).chain(filters).collect()
}

/// The same aggregate, whose functions find their query in these settings. It has no grouping sets and no order.
fn partial_with_settings(
    aggregate: &Arc<PartialAggregate>,
    settings: &Arc<ConfigOptions>,
) -> Result<Arc<PartialAggregate>> {
    if !expressions(aggregate).iter().any(has_function) {
        return Ok(Arc::clone(aggregate));
    }
    let replaced = |expr: &Arc<dyn PhysicalExpr>| with_settings(expr, settings);
    let group = |(expr, name): &(Arc<dyn PhysicalExpr>, String)| Ok((replaced(expr)?, name.clone()));
    let groups = aggregate.group_by.expr().iter().map(group).collect::<Result<_>>()?;
    let call = |call: &Arc<AggregateFunctionExpr>| {
        let arguments = call.expressions().iter().map(replaced).collect::<Result<_>>()?;
        match call.with_new_expressions(arguments, Vec::new()) {
            Some(replaced) => Ok(Arc::new(replaced)),
            None => internal_err!("the arguments of {} cannot be replaced", call.name()),
        }
    };
    Ok(Arc::new(PartialAggregate {
        group_by: PhysicalGroupBy::new_single(groups),
        aggregates: aggregate.aggregates.iter().map(call).collect::<Result<_>>()?,
        filters: aggregate
            .filters
            .iter()
            .map(|filter| filter.as_ref().map(replaced).transpose())
            .collect::<Result<_>>()?,
        input: Arc::clone(&aggregate.input),
        output: Arc::clone(&aggregate.output),
    }))
}

/// Adopts the requested schema; fails if the leaf has returned other columns.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(DataFusionError::from)
}

/// The error of a stream without an end message: its rows may be incomplete.
fn unfinished(collection: &CollectionName, shard: ShardId) -> Problem {
    Problem::new(
        Code::Incomplete,
        format!("the answer of shard {} of {collection} ended early", shard.number),
    )
    .hint("retry")
}

impl DisplayAs for ShardScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<String> = self.columns.iter().map(Column::name).collect();
        write!(
            f,
            "ShardScan: collection={}, shards={}, columns=[{}]",
            self.collection,
            self.shards,
            columns.join(", ")
        )?;
        if !self.filter.is_empty() {
            let filter: Vec<String> = self.filter.iter().map(ToString::to_string).collect();
            write!(f, ", filter=[{}]", filter.join(" AND "))?;
        }
        if self.has_join_filters() {
            let keys: Vec<String> = self.join_keys().iter().map(ToString::to_string).collect();
            write!(f, ", joinable=[{}]", keys.join(", "))?;
        }
        match &self.stage {
            Stage::Rows { limit: None } => Ok(()),
            Stage::Rows { limit: Some(limit) } => write!(f, ", limit={limit}"),
            Stage::Top { keys, limit, .. } => write!(
                f,
                ", top={limit} by [{}]",
                keys.iter().map(describe_key).collect::<Vec<_>>().join(", ")
            ),
            Stage::Partial(partial) => {
                let groups: Vec<String> = partial
                    .group_by
                    .expr()
                    .iter()
                    .map(|(group, _)| group.to_string())
                    .collect();
                let aggregates: Vec<&str> = partial.aggregates.iter().map(|aggregate| aggregate.name()).collect();
                write!(f, ", partial=[{}] by [{}]", aggregates.join(", "), groups.join(", "))
            }
        }
    }
}

fn is_one_of(filter: &Arc<dyn PhysicalExpr>, ids: &[u64]) -> bool {
    filter.expression_id().is_some_and(|id| ids.contains(&id))
}

fn describe_key(key: &SortKey) -> String {
    let direction = if key.descending { "desc" } else { "asc" };
    format!(
        "{} {direction} nulls {}",
        key.column,
        if key.nulls_first { "first" } else { "last" }
    )
}

impl ExecutionPlan for ShardScan {
    fn name(&self) -> &str {
        "ShardScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for filter in &self.join_filters {
            if visit(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let conditions = pushed.parent_filters.into_iter().map(|condition| condition.filter);
        let (dynamic, others): (Vec<_>, Vec<_>) = conditions.partition(join_filter::is_dynamic);
        // Whatever the scan uses of them, the join compares all rows itself.
        let unsupported = vec![PushedDown::No; dynamic.len() + others.len()];
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(unsupported);
        if dynamic.is_empty() || !self.returns_all_rows() {
            return Ok(propagation);
        }
        let scan = Self {
            join_filters: self.join_filters.iter().cloned().chain(dynamic).collect(),
            ..self.clone()
        };
        Ok(propagation.with_updated_node(Arc::new(scan)))
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(scans) = context.session_config().get_extension::<QueryScans>() else {
            return internal_err!("a scan runs outside a query");
        };
        let views = scans.collections.iter().find(|views| views.name == self.collection);
        let Some(views) = views.filter(|views| views.shards.len() == self.shards) else {
            return internal_err!("a scan runs over other shards than it was planned for");
        };
        let shards = match self.stage {
            Stage::Top { .. } => 0..views.shards.len(),
            Stage::Rows { .. } | Stage::Partial(_) => partition..views.shards.len().min(partition + 1),
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batch_rows = context.session_config().batch_size();
        let scan = self.with_values(&scans.values)?;
        let rows = stream::select_all(shards.map(|index| scan.rows(&scans, views, index).boxed()))
            .map_ok(move |batch| stream::iter(row_slices(batch.record_output(&metrics), batch_rows).map(Ok)))
            .try_flatten();
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            rows,
        ))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(row_count(self.documents, &self.schema())))
    }
}
