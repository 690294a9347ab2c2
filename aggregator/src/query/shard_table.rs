//! A collection as a table of one query: the columns that the query reads of it, over the shards that it pinned.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::{Statistics, stats::Precision},
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, expr_rewriter::unnormalize_cols},
    physical_plan::ExecutionPlan,
};
use plan::{Column, Path, pushdown::is_exact, scan::Stage};
use proto::{CollectionName, ingest::ShardId};

use super::{context::QueryContext, pins::PinnedCollection, shard_scan::ShardScan};

/// What all scans of one table of a query share.
#[derive(Debug)]
pub(super) struct ShardTable {
    /// The query.
    pub context: Arc<QueryContext>,
    /// The collection.
    pub collection: CollectionName,
    /// The shards to ask.
    pub shards: Vec<ShardId>,
    /// Documents in them.
    pub documents: usize,
    /// The collection's time path.
    pub time_path: Option<Path>,
    /// The columns, in the order of the schema.
    pub columns: Vec<Column>,
    schema: SchemaRef,
}

impl ShardTable {
    /// A table over what was pinned.
    pub fn new(context: Arc<QueryContext>, pinned: &PinnedCollection, columns: Vec<Column>) -> Self {
        Self {
            context,
            collection: pinned.name.clone(),
            shards: pinned.shards.iter().map(|(shard, _)| *shard).collect(),
            documents: usize::try_from(pinned.documents()).unwrap_or(usize::MAX),
            time_path: pinned.time_path.clone(),
            schema: schema_of(&columns),
            columns,
        }
    }

    /// Rows at most, as a planner may guess them. Never exact: an exact count would be put into the plan as a constant.
    pub fn statistics_for(&self, schema: &Schema) -> Statistics {
        Statistics::new_unknown(schema).with_num_rows(Precision::Inexact(self.documents))
    }
}

/// The schema of these columns.
pub(super) fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()))
}

/// The table as DataFusion holds it.
#[derive(Debug)]
pub(super) struct ShardTableProvider(pub Arc<ShardTable>);

#[async_trait]
impl TableProvider for ShardTableProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.0.statistics_for(&self.0.schema))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let decide = |filter: &&Expr| match is_exact(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(decide).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = &self.0;
        let column = |index: &usize| table.columns.get(*index).cloned();
        let columns = match projection {
            None => Some(table.columns.clone()),
            Some(indexes) => indexes.iter().map(column).collect(),
        };
        let columns = columns.ok_or_else(|| DataFusionError::Internal("a projection names a column that is not there".into()))?;
        // The leaf knows flat names, not what a statement calls its tables.
        let filter = unnormalize_cols(filters.iter().cloned());
        let schema = schema_of(&columns);
        Ok(Arc::new(ShardScan::new(Arc::clone(table), columns, filter, Stage::Rows { limit }, schema)))
    }
}
