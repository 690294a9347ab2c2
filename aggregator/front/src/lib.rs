#![doc = include_str!("../README.md")]

use std::{ops::ControlFlow, sync::Arc};

use datafusion::{
    error::Result,
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{Expr, ObjectName, Query, SelectItem, Statement, Visit, Visitor},
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

/// A query -> DataFusion's logical plan, over the tables of the session.
pub fn logical_plan(session: &SessionState, query: Box<Query>) -> BoxFuture<'_, Result<LogicalPlan>> {
    let statement = ParsedStatement::Statement(Box::new(Statement::Query(query)));
    async move { session.statement_to_plan(statement).await }.boxed()
}

/// An optimised logical plan -> what runs.
pub fn physical_plan<'a>(session: &'a SessionState, plan: &'a LogicalPlan) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
    async move { session.query_planner().create_physical_plan(plan, session).await }.boxed()
}
