//! The system tables. Every read computes their rows from the catalog and from what the nodes report.

mod batch;
mod catalog;
mod dead_letters;
mod fields;
mod nodes;
mod shards;
mod sources;
pub(super) mod tables;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use proto::Problem;

pub(super) use self::batch::{batch, sql_name};
pub(crate) use self::fields::CollectionFields;
pub(super) use self::fields::merged_fields;
use self::tables::SystemTable;
use super::{Engine, context::QueryContext, definitions, moves};

/// Limit on the shards or collections whose leaves are asked at once.
const REQUESTS_AT_ONCE_MAX: usize = 64;

/// Computes the current rows of a table.
pub(super) async fn rows(
    engine: &Engine,
    context: &Arc<QueryContext>,
    table: &SystemTable,
) -> Result<RecordBatch, Problem> {
    let rows = match (table.schema, table.name) {
        ("rachis", "collections") => shards::collections(engine).await?,
        ("rachis", "sources") => sources::sources(engine).await?,
        ("rachis", "fields") => fields::fields(engine).await,
        ("rachis", "functions") => catalog::functions(engine),
        ("rachis", "shards") => shards::shards(engine).await?,
        ("rachis", "digests") => shards::digests(engine).await,
        ("rachis", "splits") => shards::splits(engine).await?,
        ("rachis", "dead_letters") => dead_letters::dead_letters(engine, context.deadline()).await,
        ("rachis", "deletes") => sources::deletes(engine).await,
        ("rachis", "losses") => shards::losses(engine).await?,
        ("rachis", "definitions") => catalog::definitions(engine),
        ("rachis", "definition_errors") => definitions::all_errors(engine, context).await?,
        ("rachis", "queries") => nodes::queries(engine).await,
        ("rachis", "runs") => shards::runs(engine),
        ("rachis", "replicas") => shards::replicas(engine),
        ("rachis", "moves") => moves::moves(engine).await,
        ("rachis", "nodes") => nodes::nodes(engine).await,
        ("rachis", "controller") => nodes::controller(engine),
        // Without a store there are none.
        ("rachis", "snapshots") if engine.options.snapshots.is_none() => Vec::new(),
        ("rachis", "snapshots") => engine.snapshot_rows().await?,
        ("information_schema", "tables") => catalog::tables(engine),
        ("information_schema", "columns") => catalog::columns(engine).await,
        _ => Vec::new(),
    };
    batch(table.columns, &rows)
}
