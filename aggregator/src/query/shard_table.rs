//! A collection in one query: the columns that the query reads, over the shards that it has pinned.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    common::{Statistics, stats::Precision},
};
use plan::{Column, ColumnSource, Kinds, Path, PathKinds};
use proto::{CollectionName, ingest::ShardId};

use super::{context::QueryContext, pins::PinnedCollection};

/// The state that all scans of a table share.
#[derive(Debug)]
pub(super) struct ShardTable {
    pub context: Arc<QueryContext>,
    pub collection: CollectionName,
    /// The pinned shards.
    pub shards: Vec<ShardId>,
    /// The number of documents in these shards.
    pub documents: usize,
    pub time_path: Option<Path>,
    /// Columns in schema order.
    pub columns: Vec<Column>,
    pub paths: Arc<PathKinds>,
    pub schema: SchemaRef,
}

impl ShardTable {
    /// Creates a table over the pinned shards.
    pub(super) fn new(context: Arc<QueryContext>, pinned: &PinnedCollection, columns: Vec<Column>) -> Self {
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
            indexes,
        )
    }

    /// Reports the document count as an inexact row count: DataFusion would put an exact one into the plan as a
    /// constant.
    pub(super) fn statistics_for(&self, schema: &Schema) -> Statistics {
        Statistics::new_unknown(schema).with_num_rows(Precision::Inexact(self.documents))
    }
}

/// The schema of these columns, without their kinds.
pub(super) fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()))
}

/// The schema of these columns with the kinds that occur in each path.
pub(super) fn schema_with(columns: &[Column], paths: &PathKinds) -> SchemaRef {
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
