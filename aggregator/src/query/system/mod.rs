//! The system tables. Every read computes their rows from the catalog and from what the nodes report.

mod catalog;
mod cell;
mod fields;
mod nodes;
mod shards;
mod sources;

use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use plan::Type;
use proto::Problem;

pub(super) use self::cell::{Cell, batch, sql_name};
pub(crate) use self::fields::CollectionFields;
pub(super) use self::fields::merged_fields;
use super::Engine;

/// Limit on the shards or collections whose leaves are asked at once.
const REQUESTS_AT_ONCE_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct SystemTable {
    /// `rachis` or `information_schema`.
    pub schema: &'static str,
    pub name: &'static str,
    pub columns: &'static [(&'static str, Type)],
}

const fn table(schema: &'static str, name: &'static str, columns: &'static [(&'static str, Type)]) -> SystemTable {
    SystemTable { schema, name, columns }
}

use Type::{Bool, Int, Text, Time};

/// All system tables. `information_schema` lists what users can query: collections, views and these tables.
pub(super) const TABLES: &[SystemTable] = &[
    table(
        "rachis",
        "collections",
        &[
            ("name", Text),
            ("uid", Text),
            ("version", Int),
            ("shards", Int),
            ("time_path", Text),
            ("documents", Int),
            ("bytes", Int),
        ],
    ),
    table(
        "rachis",
        "sources",
        &[
            ("collection", Text),
            ("source", Text),
            ("partition", Int),
            ("state", Text),
            ("position", Int),
            ("end", Int),
            ("lag", Int),
            ("last_record", Time),
            ("last_ingested", Time),
            ("events", Int),
            ("accepted", Int),
            ("tombstones", Int),
            ("duplicates", Int),
            ("dead_letters", Int),
            ("superseded", Int),
            ("deleted", Int),
            ("expired", Int),
            ("documents", Int),
            ("bytes", Int),
            ("keys_elsewhere", Int),
            ("shard", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "fields",
        &[
            ("collection", Text),
            ("path", Text),
            ("type", Text),
            ("kinds", Text),
            ("documents", Int),
            ("indexed", Text),
            ("sample", Text),
            ("kind", Text),
            ("definition", Text),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "shards",
        &[
            ("collection", Text),
            ("shard", Int),
            ("leaf", Text),
            ("position", Text),
            ("documents", Int),
            ("tail", Int),
            ("splits", Int),
            ("bytes", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "splits",
        &[
            ("collection", Text),
            ("shard", Int),
            ("id", Int),
            ("place", Text),
            ("generation", Int),
            ("documents", Int),
            ("gone", Int),
            ("bytes", Int),
            ("paths", Int),
        ],
    ),
    table(
        "rachis",
        "dead_letters",
        &[
            ("collection", Text),
            ("source", Text),
            ("partition", Int),
            ("offset", Int),
            ("address", Text),
            ("ingested", Time),
            ("code", Text),
            ("detail", Text),
            ("bytes", Text),
            ("length", Int),
        ],
    ),
    table(
        "rachis",
        "losses",
        &[
            ("collection", Text),
            ("source", Text),
            ("partition", Int),
            ("from_offset", Int),
            ("through_offset", Int),
            ("noticed", Time),
            ("reason", Text),
        ],
    ),
    table(
        "rachis",
        "definitions",
        &[
            ("kind", Text),
            ("collection", Text),
            ("name", Text),
            ("version", Int),
            ("in_force", Bool),
            ("text", Text),
            ("uses", Text),
            ("reads", Text),
        ],
    ),
    table(
        "rachis",
        "queries",
        &[
            ("id", Text),
            ("node", Text),
            ("text", Text),
            ("started", Time),
            ("elapsed_ms", Int),
        ],
    ),
    table(
        "rachis",
        "nodes",
        &[
            ("name", Text),
            ("role", Text),
            ("state", Text),
            ("url", Text),
            ("version", Text),
            ("started", Time),
            ("log_offset", Int),
            ("log_hash", Text),
            ("error", Text),
        ],
    ),
    table(
        "information_schema",
        "tables",
        &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("table_type", Text),
        ],
    ),
    table(
        "information_schema",
        "columns",
        &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("column_name", Text),
            ("ordinal_position", Int),
            ("is_nullable", Text),
            ("data_type", Text),
        ],
    ),
];

/// Finds a table by its schema and name.
pub(super) fn find(schema: &str, name: &str) -> Option<&'static SystemTable> {
    TABLES.iter().find(|table| table.schema == schema && table.name == name)
}

/// Finds a table by `schema.name`.
pub(super) fn find_named(name: &str) -> Option<&'static SystemTable> {
    name.split_once('.').and_then(|(schema, name)| find(schema, name))
}

/// Computes the current rows of a table.
pub(super) async fn rows(engine: &Engine, table: &SystemTable, deadline: Instant) -> Result<RecordBatch, Problem> {
    let rows = match (table.schema, table.name) {
        ("rachis", "collections") => shards::collections(engine).await?,
        ("rachis", "sources") => sources::sources(engine).await?,
        ("rachis", "fields") => fields::fields(engine).await,
        ("rachis", "shards") => shards::shards(engine).await?,
        ("rachis", "splits") => shards::splits(engine).await?,
        ("rachis", "dead_letters") => shards::dead_letters(engine, deadline).await?,
        ("rachis", "losses") => shards::losses(engine).await?,
        ("rachis", "definitions") => catalog::definitions(engine),
        ("rachis", "queries") => nodes::queries(engine).await,
        ("rachis", "nodes") => nodes::nodes(engine).await,
        ("information_schema", "tables") => catalog::tables(engine),
        ("information_schema", "columns") => catalog::columns(engine).await,
        _ => Vec::new(),
    };
    batch(table.columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_and_columns_are_unique() {
        for table in TABLES {
            assert_eq!(
                TABLES
                    .iter()
                    .filter(|other| (other.schema, other.name) == (table.schema, table.name))
                    .count(),
                1,
                "{}",
                table.name
            );
            for (column, _) in table.columns {
                assert_eq!(
                    table.columns.iter().filter(|(name, _)| name == column).count(),
                    1,
                    "{}.{column}",
                    table.name
                );
            }
        }
    }
}
