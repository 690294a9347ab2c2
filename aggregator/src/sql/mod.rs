//! SQL text -> a statement over flat typed columns. Pure: no I/O, no leaf; the catalog and the kinds of paths come in
//! as arguments.

mod define;
mod names;
mod reads;
mod resolve;
mod search;
mod statement;
mod token;

use std::{collections::BTreeSet, sync::Arc};

use datafusion::sql::sqlparser::ast;
use plan::{Column, PathKinds};
use proto::{
    Catalog, CollectionName, Problem,
    catalog::{Change, DefinitionId},
};

pub use names::nearest;

/// What a statement says.
#[derive(Debug, Clone)]
pub enum Statement {
    /// SELECT, WITH, VALUES.
    Query(Box<ast::Query>),
    /// EXPLAIN [ANALYZE] of a query.
    Explain {
        /// The query.
        query: Box<ast::Query>,
        /// Whether it is run.
        analyze: bool,
    },
    /// CREATE [OR REPLACE] FIELD | VIEW.
    Define {
        /// Which.
        id: DefinitionId,
        /// The expression or query as written.
        text: String,
        /// Where it begins in the statement: line and column from 1.
        at: (u64, u64),
        /// OR REPLACE.
        replace: bool,
    },
    /// DROP FIELD | VIEW [IF EXISTS].
    Undefine {
        /// Which.
        id: DefinitionId,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// SHOW DEFINITIONS.
    ShowDefinitions,
    /// SHOW TABLES.
    ShowTables,
    /// DESCRIBE name.
    Describe {
        /// A collection, a view or a system table.
        name: String,
    },
}

/// A query in which every name is resolved.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The query: every base table is called `"rachis_0"`, `"rachis_1"`, … (one a use, aliased to what the statement
    /// calls it), every column is a quoted flat name, top-level items have the names the user sees. DataFusion plans it
    /// as it is.
    pub query: Box<ast::Query>,
    /// What those tables are.
    pub tables: Vec<TableUse>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A base table of a resolved query.
#[derive(Debug, Clone)]
pub struct TableUse {
    /// `rachis_0`, …
    pub name: String,
    /// What it is.
    pub table: Table,
}

/// What a base table is.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    /// A collection, with the columns that the query reads of it.
    Collection {
        /// Which.
        collection: CollectionName,
        /// Flat columns, each once.
        columns: Vec<Column>,
    },
    /// A system table: `rachis.<name>` or `information_schema.<name>`.
    System {
        /// `rachis` or `information_schema`.
        schema: String,
        /// Which.
        name: String,
    },
}

/// What the resolver has to know of the world.
pub trait World {
    /// The catalog.
    fn catalog(&self) -> &Catalog;
    /// The kinds of a collection's paths.
    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds>;
    /// The columns of a system table, if there is one of this name.
    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, plan::Type)>>;
}

/// Bytes of stack that reading and resolving run on, whatever thread they are called from.
const STACK_BYTES: usize = 64 << 20;
/// Bytes that must be free of the stack that is there, or another one is made.
const STACK_FREE_BYTES: usize = 48 << 20;

/// Runs what recurses over a statement on a stack that is deep enough for every statement within the limits.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_FREE_BYTES, STACK_BYTES, work)
}

/// Reads one statement. Length, tokens, nesting and operator chains are bounded before anything recursive runs.
pub fn parse(sql: &str, statement_bytes_max: usize) -> Result<Statement, Problem> {
    deep(|| statement::parse(sql, statement_bytes_max))
}

/// The collections that a query reads, through views too.
pub fn collections(query: &ast::Query, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    deep(|| reads::collections(query, catalog))
}

/// Resolves a query; `parameters` replace `$1`, `$2`, …
pub fn resolve(query: &ast::Query, world: &dyn World, parameters: &[serde_json::Value]) -> Result<Resolved, Problem> {
    deep(|| resolve::resolve(query, world, parameters))
}

/// The names of the columns that a query gives.
pub fn columns(query: &ast::Query, world: &dyn World) -> Result<Vec<String>, Problem> {
    deep(|| resolve::columns(query, world))
}

/// A definition that was resolved.
#[derive(Debug)]
pub struct Defined {
    /// The change that creates it.
    pub change: Change,
    /// What it computes, to be planned once: a field of every document, or the view's query.
    pub query: Resolved,
    /// What to tell the user, such as: the field hides a path that documents have.
    pub warnings: Vec<String>,
}

/// Checks a definition against the world. The place of a problem counts from the beginning of the text.
pub fn define(id: &DefinitionId, text: &str, replace: bool, world: &dyn World) -> Result<Defined, Problem> {
    deep(|| define::define(id, text, replace, world))
}

/// A search of a collection as a condition over flat columns (names without qualifier), and those columns. Fields of
/// the collection may be used as paths are.
pub fn search_condition(
    query: &str,
    collection: &CollectionName,
    world: &dyn World,
) -> Result<(datafusion::logical_expr::Expr, Vec<Column>, Vec<String>), Problem> {
    deep(|| search::condition(query, collection, world))
}

#[cfg(test)]
mod tests;
