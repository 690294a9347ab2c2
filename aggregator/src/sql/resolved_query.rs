//! Resolved queries and definitions, as they are planned.

use datafusion::sql::sqlparser::ast;
use plan::Column;
use proto::{CollectionName, catalog::DefinitionUse};

/// A query in which every name is resolved.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedQuery {
    /// The query, ready for DataFusion to plan. Base tables are named `"rachis_0"`, `"rachis_1"`, …: one for each use,
    /// aliased to its name in the statement. Every column is a quoted flat name, and top-level items have the names
    /// that the user sees.
    pub query: Box<ast::Query>,
    /// The base tables that the query reads.
    pub tables: Vec<TableUse>,
    /// A hash of the definitions that are expanded in the query: of their names, versions and texts. Zero without any.
    pub definitions_hash: u64,
    /// Whether it has a time that is relative to now, in a search.
    pub is_relative: bool,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// A base table of a resolved query.
#[derive(Debug, Clone)]
pub(crate) struct TableUse {
    /// `rachis_0`, …
    pub name: String,
    /// The table behind the name.
    pub table: Table,
}

/// The kinds of base table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Table {
    /// A collection, and the columns that the query reads from it.
    Collection {
        /// The collection's name.
        collection: CollectionName,
        /// Flat columns, each once.
        columns: Vec<Column>,
    },
    /// A system table: `rachis.<name>` or `information_schema.<name>`.
    System {
        /// `rachis` or `information_schema`.
        schema: String,
        /// The table's name in its schema.
        name: String,
    },
}

/// A checked definition.
#[derive(Debug)]
pub(crate) struct ResolvedDefinition {
    /// The definitions that it uses.
    pub uses: Vec<DefinitionUse>,
    /// The collections that it reads.
    pub reads: Vec<CollectionName>,
    /// The query to plan once as a check: a field over every document, a view's query.
    pub query: ResolvedQuery,
    /// The parameters of that query.
    pub parameters: Vec<serde_json::Value>,
    /// Warnings for the user, for example that the field hides a path in documents.
    pub warnings: Vec<String>,
}
