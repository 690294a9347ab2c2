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
            ast::{Expr, ObjectName, Query, SelectItem, Statement, Value, Visit, VisitMut, Visitor, VisitorMut},
            tokenizer::Span,
        },
    },
};
use futures::{FutureExt as _, future::BoxFuture};

/// A node that a walk comes by, before its children.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// The whole, or a sub-query.
    Query(&'a Query),
    /// A name of a table.
    Relation(&'a ObjectName),
    /// An expression.
    Expr(&'a Expr),
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy)]
pub enum Root<'a> {
    /// At a query.
    Query(&'a Query),
    /// At an expression.
    Expr(&'a Expr),
    /// At what a SELECT gives.
    Projection(&'a Vec<SelectItem>),
}

/// Goes through everything below the root, and ends where it is told to. What it was told there is given back.
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

/// Rewrites an expression from the outside in. `enter` may change a node before its children are met, or give what
/// stands in its place for good, into which the walk does not go. A break ends the walk.
pub fn rewrite(expr: &mut Expr, enter: &mut dyn FnMut(&mut Expr) -> ControlFlow<(), Option<Expr>>) -> ControlFlow<()> {
    expr.visit(&mut Rewriter {
        enter,
        done: Vec::new(),
    })
}

struct Rewriter<'a> {
    enter: &'a mut dyn FnMut(&mut Expr) -> ControlFlow<(), Option<Expr>>,
    /// What stands in the place of nodes that the walk comes by as marks.
    done: Vec<Option<Expr>>,
}

/// No statement can hold a placeholder that begins so.
const MARK: char = '\0';

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(done) = (self.enter)(expr)? {
            let mark = Value::Placeholder(format!("{MARK}{}", self.done.len()));
            self.done.push(Some(done));
            *expr = Expr::Value(mark.with_span(Span::empty()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
            && let Some(place) = name.strip_prefix(MARK).and_then(|place| place.parse::<usize>().ok())
            && let Some(done) = self.done.get_mut(place).and_then(Option::take)
        {
            *expr = done;
        }
        ControlFlow::Continue(())
    }
}

/// A query -> DataFusion's logical plan, over the tables of the session.
pub fn logical_plan(session: &SessionState, query: Box<Query>) -> BoxFuture<'_, Result<LogicalPlan>> {
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
    async move { session.statement_to_plan(statement).await }.boxed()
}

/// An optimised logical plan -> what runs.
pub fn physical_plan<'a>(
    session: &'a SessionState,
    plan: &'a LogicalPlan,
) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
    async move { session.query_planner().create_physical_plan(plan, session).await }.boxed()
}
