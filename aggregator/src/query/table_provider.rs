//! The DataFusion table provider of a collection: plans [`ShardScan`]s over its [`ShardTable`].

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::Statistics,
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, expr_rewriter::unnormalize_cols},
    physical_plan::ExecutionPlan,
};
use plan::{Column, pushdown::is_exact, scan::Stage};

use super::{
    shard_scan::ShardScan,
    shard_table::{ShardTable, schema_with},
};
use crate::typing;

/// The DataFusion table provider of a [`ShardTable`].
#[derive(Debug)]
pub(crate) struct ShardTableProvider(pub(super) Arc<ShardTable>);

impl ShardTableProvider {
    /// Downcasts a provider.
    pub(crate) fn of(provider: &dyn TableProvider) -> Option<&Self> {
        provider.downcast_ref::<Self>()
    }

    /// Adds columns that are missing. Returns the index of each wanted column.
    pub(crate) fn with_columns(&self, columns: impl Iterator<Item = Column>) -> (Self, Vec<usize>) {
        let (table, indexes) = self.0.with_columns(columns);
        (Self(Arc::new(table)), indexes)
    }
}

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
        let decide = |filter: &&Expr| {
            Ok(match is_exact(&typing::condition_over_columns((*filter).clone())?) {
                true => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Unsupported,
            })
        };
        filters.iter().map(decide).collect()
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
        let columns =
            columns.ok_or_else(|| DataFusionError::Internal("a projection refers to an unknown column".into()))?;
        // The leaf knows flat column names only, not the table aliases of the statement.
        let filter = unnormalize_cols(filters.iter().cloned())
            .into_iter()
            .map(typing::condition_over_columns)
            .collect::<Result<_>>()?;
        let schema = schema_with(&columns, &table.paths);
        Ok(Arc::new(ShardScan::new(
            Arc::clone(table),
            columns,
            filter,
            Stage::Rows { limit },
            schema,
        )))
    }
}
