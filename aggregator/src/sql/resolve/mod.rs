//! Resolves a query: every name becomes a flat typed column of a base table, and every definition is expanded. The
//! result is a query again, with no path, view or field left in it for the planner.

mod access;
mod asof;
pub(super) mod build;
mod defined_function;
mod expression;
mod from;
mod function;
mod grouping;
mod list_parameter;
mod name;
mod operator;
mod parsed;
mod pattern;
mod problem;
mod query;
mod resolver;
mod sample;
pub(super) mod scope;
mod select;
mod select_list;
mod set_operation;
mod subquery;
mod table;
pub(super) mod unnest;
mod unresolved;
pub(super) mod value;
mod with;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{ast, tokenizer::Location};
use front::{Node, Root, walk};
use proto::Problem;

pub(super) use self::{
    access::json_path,
    build::{empty_query, empty_select},
    function::function_name,
    resolver::Resolver,
    select_list::default_name,
    value::Value,
};
use super::{ResolvedQuery, SchemaContext, copies::Copies, parsed_statement::given_parameters};

/// Resolves a query. The quoted texts that begin at `quoted` become parameters.
pub(super) fn resolve(
    query: &ast::Query,
    context: &dyn SchemaContext,
    parameters: &[serde_json::Value],
    quoted: &[Location],
) -> Result<ResolvedQuery, Problem> {
    check_all_are_used(query, parameters)?;
    let mut resolver = Resolver::new(context, context.catalog(), parameters);
    resolver.quoted = quoted;
    resolver.copies = Copies::of_query(query);
    let (query, _) = resolver.query(query)?;
    Ok(resolver.into_resolved(query))
}

/// Refuses more parameters than a query with parameters has. A query without any may be a part of a statement that has
/// some.
fn check_all_are_used(query: &ast::Query, parameters: &[serde_json::Value]) -> Result<(), Problem> {
    let mut last = 0;
    walk(Root::Query(query), &mut |node| {
        if let Node::Expr(expr) = node {
            last = last.max(super::search::parameter_index(expr).unwrap_or(0));
        }
        ControlFlow::Continue(())
    });
    let given = parameters.len();
    if last == 0 || given <= last {
        return Ok(());
    }
    let detail = format!(
        "the last parameter of the statement is ${last}, but {}",
        given_parameters(given)
    );
    Err(problem::bad(detail).hint("leave the other values out, or check the numbers of the parameters"))
}

/// Resolves an expression without inputs to a query that selects it.
pub(super) fn resolve_expression(
    context: &dyn SchemaContext,
    expression: impl FnOnce(&mut Resolver<'_>) -> Result<ast::Expr, Problem>,
) -> Result<ResolvedQuery, Problem> {
    let mut resolver = Resolver::new(context, context.catalog(), &[]);
    let mut select = empty_select();
    select.projection = vec![ast::SelectItem::UnnamedExpr(expression(&mut resolver)?)];
    let mut query = empty_query();
    query.body = Box::new(ast::SetExpr::Select(Box::new(select)));
    Ok(resolver.into_resolved(query))
}

/// The names of the columns that a query returns.
pub(super) fn columns(query: &ast::Query, context: &dyn SchemaContext) -> Result<Vec<String>, Problem> {
    let (_, columns) = Resolver::new(context, context.catalog(), &[]).query(query)?;
    Ok(columns.into_iter().map(|column| column.name).collect())
}
