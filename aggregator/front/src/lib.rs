#![doc = include_str!("../README.md")]

use std::{ops::ControlFlow, sync::Arc};

use datafusion::{
    error::Result,
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::{
            ast::{
                Expr, ObjectName, Query, Select, SelectItem, Statement, Value, Visit, VisitMut, Visitor, VisitorMut,
            },
            tokenizer::Span,
        },
    },
};
use futures::{FutureExt as _, future::BoxFuture};

/// A node that a walk visits before its children.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// The whole query, or a subquery.
    Query(&'a Query),
    /// The name of a table.
    Relation(&'a ObjectName),
    /// An expression.
    Expr(&'a Expr),
}

/// Where a walk starts.
#[derive(Debug, Clone, Copy)]
pub enum Root<'a> {
    /// A query.
    Query(&'a Query),
    /// An expression.
    Expr(&'a Expr),
    /// The select list.
    Projection(&'a Vec<SelectItem>),
}

/// Visits every node below the root until `visit` breaks, and returns the value it broke with.
pub fn walk(root: Root<'_>, visit: &mut dyn FnMut(Node<'_>) -> ControlFlow<&'static str>) -> Option<&'static str> {
    let mut walker = Walker(visit);
    let end = match root {
        Root::Query(query) => query.visit(&mut walker),
        Root::Expr(expr) => expr.visit(&mut walker),
        Root::Projection(items) => items.visit(&mut walker),
    };
    end.break_value()
}

struct Walker<'a>(&'a mut dyn FnMut(Node<'_>) -> ControlFlow<&'static str>);

impl Visitor for Walker<'_> {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<&'static str> {
        (self.0)(Node::Query(query))
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<&'static str> {
        (self.0)(Node::Relation(relation))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<&'static str> {
        (self.0)(Node::Expr(expr))
    }
}

/// Rewrites an expression from the outside in. `enter` may change a node before its children are visited, or return a
/// final replacement, which the walk does not descend into. A break ends the walk.
pub fn rewrite(expr: &mut Expr, enter: &mut dyn FnMut(&mut Expr) -> ControlFlow<(), Option<Expr>>) -> ControlFlow<()> {
    expr.visit(&mut Rewriter {
        enter,
        replacements: Vec::new(),
    })
}

struct Rewriter<'a> {
    enter: &'a mut dyn FnMut(&mut Expr) -> ControlFlow<(), Option<Expr>>,
    /// The final replacements. While the walk is below one, a marker with its index stands in the tree, so that the
    /// walk does not descend into it.
    replacements: Vec<Option<Expr>>,
}

/// The prefix of a marker: no parsed statement has a placeholder that starts with it.
const MARKER: char = '\0';

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(replacement) = (self.enter)(expr)? {
            let marker = Value::Placeholder(format!("{MARKER}{}", self.replacements.len()));
            self.replacements.push(Some(replacement));
            *expr = Expr::Value(marker.with_span(Span::empty()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
            && let Some(index) = name.strip_prefix(MARKER).and_then(|index| index.parse::<usize>().ok())
            && let Some(replacement) = self.replacements.get_mut(index).and_then(Option::take)
        {
            *expr = replacement;
        }
        ControlFlow::Continue(())
    }
}

/// A node that a revision may change.
#[derive(Debug)]
pub enum NodeMut<'a> {
    /// A query, before its children.
    Query(&'a mut Query),
    /// A SELECT, before its children.
    EnterSelect(&'a mut Select),
    /// A SELECT, after its children.
    LeaveSelect(&'a mut Select),
    /// An expression, after its children.
    Expr(&'a mut Expr),
}

/// Shows every query, SELECT and expression of a query to `change`, until it breaks.
pub fn revise_query(query: &mut Query, change: &mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    VisitMut::visit(query, &mut Revision(change))
}

/// Shows every query, SELECT and expression of an expression to `change`, until it breaks.
pub fn revise_expression(expr: &mut Expr, change: &mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    VisitMut::visit(expr, &mut Revision(change))
}

struct Revision<'a>(&'a mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>);

impl VisitorMut for Revision<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        (self.0)(NodeMut::Query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        (self.0)(NodeMut::EnterSelect(select))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        (self.0)(NodeMut::LeaveSelect(select))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        (self.0)(NodeMut::Expr(expr))
    }
}

/// Plans a query over the tables of the session: query -> DataFusion's logical plan.
pub fn logical_plan(session: &SessionState, query: Box<Query>) -> BoxFuture<'_, Result<LogicalPlan>> {
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
    async move { session.statement_to_plan(statement).await }.boxed()
}

/// Plans the execution of an optimized logical plan: logical plan -> physical plan.
pub fn physical_plan<'a>(
    session: &'a SessionState,
    plan: &'a LogicalPlan,
) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
    async move { session.query_planner().create_physical_plan(plan, session).await }.boxed()
}
