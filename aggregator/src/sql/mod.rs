//! Parses SQL text and resolves it to a query over flat typed columns. Pure: no I/O and no leaf; the catalog and the
//! kinds of paths are arguments.

mod compat;
mod copies;
mod define;
mod defined_columns;
mod dialect;
mod names;
mod parsed_statement;
mod parser_text;
mod reads;
mod resolve;
mod resolved_query;
mod schema_context;
pub(crate) mod score;
mod script;
mod search;
mod signature;
mod statement;
mod token;

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::{ast, tokenizer::Location};
use proto::{
    Catalog, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionUse, VersionRef},
};

pub use self::script::ScriptStatement;
use self::signature::{SavedQuery, Unknown};
pub(crate) use self::{
    defined_columns::{DefinedColumn, defined_columns},
    parsed_statement::{
        Arguments, DefinitionChange, DefinitionDiff, DocumentDelete, ExplainOptions, NewDefinition, Statement,
        StatementText, Summarized, TagTarget, place_within,
    },
    resolved_query::{ResolvedDefinition, ResolvedQuery, Table, TableUse},
    schema_context::SchemaContext,
    signature::BoundQuery,
};
use crate::deep_stack::on_deep_stack;

/// Parses one statement. Length, tokens, nesting and operator chains are limited before anything recursive runs.
pub(crate) fn parse(sql: &str, statement_bytes_max: usize) -> Result<Statement, Problem> {
    on_deep_stack(|| statement::parse(sql, statement_bytes_max))
}

/// A delete of the documents of a collection that meet a condition, as after WHERE.
pub(crate) fn delete_where(
    collection: CollectionName,
    condition: &str,
    bytes_max: usize,
) -> Result<DocumentDelete, Problem> {
    on_deep_stack(|| statement::delete_where(collection, condition, bytes_max))
}

/// The statements of a file, which `;` separates. Each ends at a `;` outside of texts, quoted names and comments.
pub fn statements(file: &str) -> Vec<ScriptStatement<'_>> {
    script::statements(file)
}

/// The quoted texts and the parameters of a statement, in order. None if it cannot be split into tokens.
pub(crate) fn texts(sql: &str) -> Option<Vec<StatementText>> {
    token::texts(sql)
}

/// The collections that a query reads, directly or through views.
pub(crate) fn collections(query: &ast::Query, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    on_deep_stack(|| reads::collections(query, catalog))
}

/// Resolves a query; `parameters` replace `$1`, `$2`, … The quoted texts that begin at `quoted` become the parameters
/// behind them, in this order.
pub(crate) fn resolve(
    query: &ast::Query,
    context: &dyn SchemaContext,
    parameters: &[serde_json::Value],
    quoted: &[Location],
) -> Result<ResolvedQuery, Problem> {
    on_deep_stack(|| resolve::resolve(query, context, parameters, quoted))
}

/// The names of the columns that a query returns.
pub(crate) fn columns(query: &ast::Query, context: &dyn SchemaContext) -> Result<Vec<String>, Problem> {
    on_deep_stack(|| resolve::columns(query, context))
}

/// Checks a new definition against the catalog. Positions in errors are relative to the start of its text.
pub(crate) fn define(new: &NewDefinition, context: &dyn SchemaContext) -> Result<ResolvedDefinition, Problem> {
    on_deep_stack(|| define::define(new, context))
}

/// Checks that the name of a definition is free for use. Returns warnings for the user: that a field hides a path.
pub(crate) fn check_name(id: &DefinitionId, context: &dyn SchemaContext) -> Result<Vec<String>, Problem> {
    define::check_name(id, context)
}

/// A query that uses a definition of this text, and its parameters: planning it checks the definition.
pub(crate) fn query_of(
    id: &DefinitionId,
    text: &str,
    context: &dyn SchemaContext,
) -> Result<(ResolvedQuery, Vec<serde_json::Value>), Problem> {
    on_deep_stack(|| define::query_of(id, text, context))
}

/// The definitions that a definition of this text uses directly.
pub(crate) fn uses_of(
    id: &DefinitionId,
    text: &str,
    context: &dyn SchemaContext,
) -> Result<Vec<DefinitionUse>, Problem> {
    on_deep_stack(|| define::uses_of(id, text, context))
}

/// Whether documents may have a path with the name of this field or parser.
pub(crate) fn is_stored_path(id: &DefinitionId, context: &dyn SchemaContext) -> bool {
    define::is_stored_path(id, context)
}

/// The collections that a definition of this text reads, directly or through views.
pub(crate) fn collections_of(
    id: &DefinitionId,
    text: &str,
    catalog: &Catalog,
) -> Result<BTreeSet<CollectionName>, Problem> {
    on_deep_stack(|| define::collections_of(id, text, catalog))
}

/// The view of a name, and which version of it: `slow`, `slow@2`.
pub(crate) fn view_version(name: &str, catalog: &Catalog) -> Result<Option<(DefinitionId, VersionRef)>, Problem> {
    reads::view_version(name, catalog)
}

/// A saved query with values for its parameters. A value without a name is for the parameter at its position.
pub(crate) fn bind_call(text: &str, values: Vec<(Option<String>, serde_json::Value)>) -> Result<BoundQuery, Problem> {
    on_deep_stack(|| {
        let query = SavedQuery::parse(text)?;
        let given = query.named(values)?;
        query.bind(&given, Unknown::Refused)
    })
}

#[cfg(test)]
mod tests;
