//! A collection as a table of one query: the columns that the query reads of it, over the shards that it pinned.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::{Statistics, stats::Precision},
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, expr_rewriter::unnormalize_cols},
    physical_plan::ExecutionPlan,
};
use plan::{Column, Kinds, Path, PathKinds, What, pushdown::is_exact, scan::Stage};
use proto::{CollectionName, ingest::ShardId};

use super::{context::QueryContext, pins::PinnedCollection, shard_scan::ShardScan};
use crate::typing;

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
    paths: Arc<PathKinds>,
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
            schema: schema_with(&columns, &pinned.paths),
            paths: Arc::clone(&pinned.paths),
            columns,
        }
    }

    /// The table with these columns, and where each stands.
    fn with_columns(&self, wanted: impl Iterator<Item = Column>) -> (Self, Vec<usize>) {
        let mut columns = self.columns.clone();
        let mut places: HashMap<Column, usize> = columns.iter().cloned().zip(0..).collect();
        let place = |column: Column| {
            *places.entry(column).or_insert_with_key(|column| {
                columns.push(column.clone());
                columns.len() - 1
            })
        };
        let places = wanted.map(place).collect();
        let schema = schema_with(&columns, &self.paths);
        let (context, collection, shards) = (Arc::clone(&self.context), self.collection.clone(), self.shards.clone());
        let (documents, time_path, paths) = (self.documents, self.time_path.clone(), Arc::clone(&self.paths));
        (
            Self {
                context,
                collection,
                shards,
                documents,
                time_path,
                columns,
                paths,
                schema,
            },
            places,
        )
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

/// The same, with the kinds that each path has had.
fn schema_with(columns: &[Column], paths: &PathKinds) -> SchemaRef {
    let kinds = |column: &Column| match &column.what {
        What::Path(path) => paths.paths.get(path).copied().unwrap_or_default(),
        _ => Kinds::default(),
    };
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|column| column.field_of(kinds(column)))
            .collect::<Vec<_>>(),
    ))
}

/// The table as DataFusion holds it.
#[derive(Debug)]
pub(crate) struct ShardTableProvider(pub(super) Arc<ShardTable>);

impl ShardTableProvider {
    /// The provider, if it is one.
    pub fn of(provider: &dyn TableProvider) -> Option<&Self> {
        provider.downcast_ref::<Self>()
    }

    /// The table with these columns, and where each stands.
    pub fn with_columns(&self, columns: impl Iterator<Item = Column>) -> (Self, Vec<usize>) {
        let (table, places) = self.0.with_columns(columns);
        (Self(Arc::new(table)), places)
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
            Ok(match is_exact(&typing::over_columns((*filter).clone())?) {
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
            columns.ok_or_else(|| DataFusionError::Internal("a projection names a column that is not there".into()))?;
        // The leaf knows flat names, not what a statement calls its tables.
        let filter = unnormalize_cols(filters.iter().cloned())
            .into_iter()
            .map(typing::over_columns)
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
