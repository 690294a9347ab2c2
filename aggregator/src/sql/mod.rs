//! Parses SQL text and resolves it to a query over flat typed columns. Pure: no I/O and no leaf; the catalog and the
//! kinds of paths are arguments.

mod compat;
mod copies;
mod define;
mod dialect;
mod names;
mod reads;
mod resolve;
mod search;
mod statement;
mod token;

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use datafusion::sql::sqlparser::ast;
use plan::{Column, PathKinds};
use proto::{
    Catalog, CollectionName, Problem,
    catalog::{Change, DefinitionId},
};

pub(crate) use names::nearest;

#[derive(Debug, Clone)]
pub(crate) enum Statement {
    /// SELECT, WITH, VALUES.
    Query(Box<ast::Query>),
    /// EXPLAIN [ANALYZE] of a query.
    Explain {
        /// The query to explain.
        query: Box<ast::Query>,
        /// Whether the query is also run.
        analyze: bool,
    },
    /// CREATE [OR REPLACE] FIELD | VIEW.
    Define {
        /// The field or view.
        id: DefinitionId,
        /// The expression or query, verbatim.
        text: String,
        /// Where the text begins in the statement: line and column, both from 1.
        at: (u64, u64),
        /// OR REPLACE.
        replace: bool,
    },
    /// DROP FIELD | VIEW [IF EXISTS].
    Undefine {
        /// The field or view.
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
pub(crate) struct ResolvedQuery {
    /// The query, ready for DataFusion to plan. Base tables are named `"rachis_0"`, `"rachis_1"`, …: one for each use,
    /// aliased to its name in the statement. Every column is a quoted flat name, and top-level items have the names
    /// that the user sees.
    pub query: Box<ast::Query>,
    /// The base tables that the query reads.
    pub tables: Vec<TableUse>,
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

/// The catalog and schema information that the resolver needs.
pub(crate) trait SchemaContext {
    fn catalog(&self) -> &Catalog;
    /// The kinds of a collection's paths.
    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds>;
    /// The columns of a system table, or `None` if there is no table of this name.
    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, plan::Type)>>;
}

/// Size of the stack that parsing and resolving run on, whichever thread calls them.
const STACK_BYTES: usize = 64 << 20;
/// A new stack is allocated if the current one has less than this left.
const STACK_FREE_BYTES: usize = 48 << 20;

/// Runs work that recurses over a statement on a stack deep enough for every statement within the limits.
pub(crate) fn on_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_FREE_BYTES, STACK_BYTES, work)
}

/// Parses one statement. Length, tokens, nesting and operator chains are limited before anything recursive runs.
pub(crate) fn parse(sql: &str, statement_bytes_max: usize) -> Result<Statement, Problem> {
    on_deep_stack(|| statement::parse(sql, statement_bytes_max))
}

/// A quoted text of a statement, or the place of a parameter.
pub(crate) struct StatementText {
    /// Where it is in the statement, in bytes.
    pub span: Range<usize>,
    /// `$1`, …; none for a quoted text.
    pub parameter: Option<String>,
    /// The text without quotes; empty for a parameter.
    pub text: String,
    /// Whether it is the right operand of `=` or `<>`, or in a list after IN.
    pub is_compared: bool,
}

/// The quoted texts and the parameters of a statement, in order. None if it cannot be split into tokens.
pub(crate) fn texts(sql: &str) -> Option<Vec<StatementText>> {
    token::texts(sql)
}

/// The collections that a query reads, directly or through views.
pub(crate) fn collections(query: &ast::Query, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    on_deep_stack(|| reads::collections(query, catalog))
}

/// Resolves a query; `parameters` replace `$1`, `$2`, …
pub(crate) fn resolve(
    query: &ast::Query,
    context: &dyn SchemaContext,
    parameters: &[serde_json::Value],
) -> Result<ResolvedQuery, Problem> {
    on_deep_stack(|| resolve::resolve(query, context, parameters))
}

/// The names of the columns that a query returns.
pub(crate) fn columns(query: &ast::Query, context: &dyn SchemaContext) -> Result<Vec<String>, Problem> {
    on_deep_stack(|| resolve::columns(query, context))
}

/// A checked field or view definition.
#[derive(Debug)]
pub(crate) struct ResolvedDefinition {
    /// The change that creates it.
    pub change: Change,
    /// The query to plan once as a check: the field over every document, or the view's query.
    pub query: ResolvedQuery,
    /// Warnings for the user, for example that the field hides a path in documents.
    pub warnings: Vec<String>,
}

/// Checks a definition against the catalog. Positions in errors are relative to the start of `text`.
pub(crate) fn define(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    context: &dyn SchemaContext,
) -> Result<ResolvedDefinition, Problem> {
    on_deep_stack(|| define::define(id, text, replace, context))
}

/// Converts a search of a collection to a condition over flat columns (unqualified names). Returns the condition, those
/// columns and the warnings. Fields of the collection can be used like paths.
pub(crate) fn search_condition(
    query: &str,
    collection: &CollectionName,
    context: &dyn SchemaContext,
) -> Result<(datafusion::logical_expr::Expr, Vec<Column>, Vec<String>), Problem> {
    on_deep_stack(|| search::condition(query, collection, context))
}

#[cfg(test)]
mod tests;
