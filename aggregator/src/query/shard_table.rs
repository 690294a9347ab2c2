//! A collection in one query: the columns that the query reads, over its read views. DataFusion sees a
//! table, whose scans are [`ShardScan`]s.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::Statistics,
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableSource, TableType, expr_rewriter::unnormalize_cols},
    physical_plan::ExecutionPlan,
};
use plan::{Column, ColumnSource, Kinds, PathKinds, pushdown::is_exact, scan::Stage};
use proto::CollectionName;

use super::{
    context::QueryContext,
    read_views::{CollectionViews, row_count},
    shard_scan::ShardScan,
};
use crate::typing;

/// The read views of a collection as a DataFusion table.
#[derive(Debug)]
pub(super) struct ShardTable {
    context: Arc<QueryContext>,
    collection: Arc<CollectionViews>,
    /// Columns in schema order.
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl ShardTable {
    /// A table with these columns.
    pub(super) fn new(context: Arc<QueryContext>, collection: Arc<CollectionViews>, columns: Vec<Column>) -> Self {
        let schema = schema_with(&columns, &collection.paths);
        Self {
            context,
            collection,
            columns,
            schema,
        }
    }

    /// The table without its query.
    pub(super) fn unbound(&self) -> UnboundTable {
        UnboundTable {
            collection: self.collection.name.clone(),
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
        }
    }

    /// Adds columns that are missing. Returns the index of each wanted column.
    pub(super) fn with_columns(&self, wanted: impl Iterator<Item = Column>) -> (Self, Vec<usize>) {
        let mut columns = self.columns.clone();
        let mut index_of: HashMap<Column, usize> = columns.iter().cloned().zip(0..).collect();
        let add = |column: Column| {
            *index_of.entry(column).or_insert_with_key(|column| {
                columns.push(column.clone());
                columns.len() - 1
            })
        };
        let indexes = wanted.map(add).collect();
        let table = Self::new(Arc::clone(&self.context), Arc::clone(&self.collection), columns);
        (table, indexes)
    }
}

/// A [`ShardTable`] without a query. Cached plans refer to it.
pub(super) struct UnboundTable {
    pub collection: CollectionName,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl UnboundTable {
    /// The table in a query whose read views have the same kinds.
    pub(super) fn bind(&self, context: Arc<QueryContext>, collection: Arc<CollectionViews>) -> ShardTable {
        ShardTable {
            context,
            collection,
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
        }
    }
}

impl TableSource for UnboundTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[async_trait]
impl TableProvider for ShardTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(row_count(self.collection.documents(), &self.schema))
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
        let column = |index: &usize| self.columns.get(*index).cloned();
        let columns = match projection {
            None => Some(self.columns.clone()),
            Some(indexes) => indexes.iter().map(column).collect(),
        };
        let columns =
            columns.ok_or_else(|| DataFusionError::Internal("a projection refers to an unknown column".into()))?;
        // The leaf knows flat column names only, not the table aliases of the statement.
        let filter = unnormalize_cols(filters.iter().cloned())
            .into_iter()
            .map(typing::condition_over_columns)
            .collect::<Result<_>>()?;
        let schema = schema_with(&columns, &self.collection.paths);
        Ok(Arc::new(ShardScan::new(
            self.context.next_scan(),
            &self.collection,
            columns,
            filter,
            Stage::Rows { limit },
            schema,
        )))
    }
}

/// The schema of these columns with the kinds that occur in each path.
fn schema_with(columns: &[Column], paths: &PathKinds) -> SchemaRef {
    let kinds = |column: &Column| match &column.source {
        ColumnSource::Path(path) => paths.paths.get(path).copied().unwrap_or_default(),
        _ => Kinds::default(),
    };
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|column| column.field_of(kinds(column)))
            .collect::<Vec<_>>(),
    ))
}
