//! The operator that asks the leaves. Everything below it happens there, everything above it is plain DataFusion.
//!
//! ```text
//!   partition 0 ── ScanRequest ──> shard 0 ──> batches, trailer
//!   partition 1 ── ScanRequest ──> shard 1 ──> batches, trailer
//! ```
//!
//! There are at least two partitions, the extra one empty: an aggregate over one partition would be planned in one
//! phase, and its first phase could not go to the leaf.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::SchemaRef,
    },
    common::{Statistics, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::Expr,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, Partitioning, PlanProperties,
        SendableRecordBatchStream,
        coop::make_cooperative,
        execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use plan::{
    Column,
    scan::{Chunk, READING_MAX, ScanRequest, ScanStream, SortKey, Stage},
};
use proto::{Code, Problem, ingest::ShardId};

use super::{failure, shard_table::ShardTable};

/// Partitions that a scan has at least.
const PARTITIONS_MIN: usize = 2;

/// A scan of all shards of a collection.
#[derive(Debug, Clone)]
pub(super) struct ShardScan {
    /// The table.
    pub table: Arc<ShardTable>,
    /// What comes back, or goes into the stage.
    pub columns: Vec<Column>,
    /// Conditions over flat names.
    pub filter: Vec<Expr>,
    /// What becomes of the rows.
    pub stage: Stage,
    number: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ShardScan {
    /// A scan whose answers have this schema.
    pub fn new(
        table: Arc<ShardTable>,
        columns: Vec<Column>,
        filter: Vec<Expr>,
        stage: Stage,
        schema: SchemaRef,
    ) -> Self {
        let partitions = Partitioning::UnknownPartitioning(table.shards.len().max(PARTITIONS_MIN));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            partitions,
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let number = table.context.next_scan();
        Self {
            table,
            columns,
            filter,
            stage,
            number,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same scan with another stage.
    pub fn with_stage(&self, stage: Stage, schema: SchemaRef) -> Self {
        Self::new(
            Arc::clone(&self.table),
            self.columns.clone(),
            self.filter.clone(),
            stage,
            schema,
        )
    }

    /// Whether rows come back as they are, all of them: only then can a further stage go to the leaf.
    pub fn gives_all_rows(&self) -> bool {
        matches!(self.stage, Stage::Rows { limit: None })
    }

    fn request(&self, shard: ShardId) -> ScanRequest {
        let context = &self.table.context;
        ScanRequest {
            query: context.views,
            shard,
            read: context.read,
            time_path: self.table.time_path.clone(),
            columns: self.columns.clone(),
            filter: self.filter.clone(),
            stage: self.stage.clone(),
            // While its reader takes its time a scan waits. It ends with its query, not by itself.
            deadline: context.deadline() + READING_MAX,
        }
    }

    /// One shard's rows. The leaf is asked when they are first polled.
    fn rows(&self, shard: ShardId) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        struct State {
            chunks: ScanStream,
            scan: usize,
            table: Arc<ShardTable>,
            schema: SchemaRef,
        }
        let (request, context) = (self.request(shard), Arc::clone(&self.table.context));
        let chunks = stream::once(async move { context.leaf.scan(request) })
            .flatten()
            .boxed();
        let state = State {
            chunks,
            scan: self.number,
            table: Arc::clone(&self.table),
            schema: self.schema(),
        };
        stream::try_unfold(state, move |mut state| async move {
            if let Some(problem) = state.table.context.interrupted() {
                return Err(failure::error(problem));
            }
            let report = |trailer| state.table.context.report.tell(state.scan, shard, trailer);
            loop {
                match state.chunks.next().await {
                    Some(Ok(Chunk::Rows(batch))) => {
                        let batch = in_schema(batch, &state.schema)?;
                        return Ok(Some((batch, state)));
                    }
                    Some(Ok(Chunk::SoFar(trailer))) => report(trailer),
                    Some(Ok(Chunk::End(trailer))) => {
                        report(trailer);
                        return Ok(None);
                    }
                    Some(Err(problem)) => return Err(failure::error(problem)),
                    None => return Err(failure::error(unfinished(&state.table, shard))),
                }
            }
        })
    }
}

/// A leaf that answers with other columns than it was asked for must not be believed.
fn in_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(DataFusionError::from)
}

/// A batch in parts of so many rows at most.
pub(super) fn parts(batch: RecordBatch, rows_max: usize) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows)
        .step_by(rows_max.max(1))
        .map(move |from| batch.slice(from, rows_max.min(rows - from)))
}

/// Rows without an end may be half of what there is.
fn unfinished(table: &ShardTable, shard: ShardId) -> Problem {
    Problem::new(
        Code::Incomplete,
        format!(
            "shard {} of {} stopped answering half-way",
            shard.number, table.collection
        ),
    )
    .hint("try again")
}

impl DisplayAs for ShardScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<String> = self.columns.iter().map(Column::name).collect();
        write!(
            f,
            "ShardScan: collection={}, shards={}, columns=[{}]",
            self.table.collection,
            self.table.shards.len(),
            columns.join(", ")
        )?;
        if !self.filter.is_empty() {
            let filter: Vec<String> = self.filter.iter().map(ToString::to_string).collect();
            write!(f, ", filter=[{}]", filter.join(" AND "))?;
        }
        match &self.stage {
            Stage::Rows { limit: None } => Ok(()),
            Stage::Rows { limit: Some(limit) } => write!(f, ", limit={limit}"),
            Stage::Top { keys, limit, .. } => write!(
                f,
                ", top={limit} by [{}]",
                keys.iter().map(told).collect::<Vec<_>>().join(", ")
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

fn told(key: &SortKey) -> String {
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
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
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
        let Some(shard) = self.table.shards.get(partition) else {
            return Ok(Box::pin(EmptyRecordBatchStream::new(self.schema())));
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batch_rows = context.session_config().batch_size();
        let rows = self
            .rows(*shard)
            .map_ok(move |batch| stream::iter(parts(batch.record_output(&metrics), batch_rows).map(Ok)))
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
        Ok(Arc::new(self.table.statistics_for(&self.schema())))
    }
}
