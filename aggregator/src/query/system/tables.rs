//! The names and columns of the system tables.

use plan::Type;

use super::super::definitions::ERROR_COLUMNS;

/// A system table.
#[derive(Debug)]
pub(in crate::query) struct SystemTable {
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
pub(in crate::query) const TABLES: &[SystemTable] = &[
    table(
        "rachis",
        "collections",
        &[
            ("name", Text),
            ("uid", Text),
            ("version", Int),
            ("shards", Int),
            ("replicas", Int),
            ("time_path", Text),
            ("retention", Text),
            ("documents", Int),
            ("bytes", Int),
            ("error", Text),
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
            ("events_per_minute", Int),
            ("bytes_per_minute", Int),
            ("shard", Int),
            ("error", Text),
        ],
    ),
    table("rachis", "definition_errors", ERROR_COLUMNS),
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
        "functions",
        &[
            ("name", Text),
            ("signature", Text),
            ("summary", Text),
            ("kind", Text),
            ("other_names", Text),
        ],
    ),
    table(
        "rachis",
        "shards",
        &[
            ("collection", Text),
            ("shard", Int),
            ("leaf", Text),
            ("replicas", Text),
            ("position", Text),
            ("documents", Int),
            ("tail", Int),
            ("splits", Int),
            ("bytes", Int),
            ("events_per_minute", Int),
            ("bytes_per_minute", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "runs",
        &[
            ("collection", Text),
            ("source", Text),
            ("partition", Int),
            ("from_offset", Int),
            ("shards", Text),
            ("block", Int),
            ("state", Text),
            ("waits_for", Text),
        ],
    ),
    table(
        "rachis",
        "digests",
        &[
            ("collection", Text),
            ("shard", Int),
            ("leaf", Text),
            ("source", Text),
            ("partition", Int),
            ("from_offset", Int),
            ("through_offset", Int),
            ("digest", Text),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "replicas",
        &[("collection", Text), ("shard", Int), ("leaf", Text), ("state", Text)],
    ),
    table(
        "rachis",
        "controller",
        &[("node", Text), ("epoch", Int), ("held", Bool)],
    ),
    table(
        "rachis",
        "snapshots",
        &[
            ("id", Text),
            ("state", Text),
            ("node", Text),
            ("scheduled", Bool),
            ("began", Time),
            ("ended", Time),
            ("collections", Text),
            ("shards", Int),
            ("bytes", Int),
            ("bytes_total", Int),
            ("bytes_written", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "moves",
        &[
            ("collection", Text),
            ("shard", Int),
            ("leaf", Text),
            ("instead_of", Text),
            ("state", Text),
            ("copied_from", Text),
            ("bytes", Int),
            ("bytes_total", Int),
            ("bytes_per_second", Int),
            ("seconds_left", Int),
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
            ("error", Text),
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
            ("shard", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "deletes",
        &[
            ("id", Text),
            ("collection", Text),
            ("requested", Time),
            ("condition", Text),
            ("documents", Int),
            ("complete", Bool),
            ("erased", Bool),
            ("cause", Text),
            ("author", Text),
            ("position", Text),
            ("error", Text),
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
            ("error", Text),
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
            ("tags", Text),
            ("text", Text),
            ("note", Text),
            ("author", Text),
            ("created", Time),
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
            ("documents", Int),
            ("documents_scanned", Int),
            ("memory_bytes", Int),
            ("memory_bytes_most", Int),
            ("error", Text),
        ],
    ),
    table(
        "rachis",
        "nodes",
        &[
            ("name", Text),
            ("role", Text),
            ("zone", Text),
            ("capacity", Int),
            ("draining", Bool),
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
pub(in crate::query) fn find(schema: &str, name: &str) -> Option<&'static SystemTable> {
    TABLES.iter().find(|table| table.schema == schema && table.name == name)
}

/// Finds a table by `schema.name`.
pub(in crate::query) fn find_named(name: &str) -> Option<&'static SystemTable> {
    name.split_once('.').and_then(|(schema, name)| find(schema, name))
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
