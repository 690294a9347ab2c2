//! Resolves SELECT: its clauses in the order in which names become visible.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, OrderByExpr, Select, SelectItem,
};
use front::{Node, Root, walk};
use proto::{Code, Problem};

use super::{
    build::empty_select,
    function::function_name,
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::OutputColumn,
    select_list::{ItemSource, OutputNames, SelectedItem, origin},
    value::quoted,
};
use crate::typing::is_aggregate;

/// Columns that a SELECT may return. Planning compares each with all others.
const COLUMNS_MAX: usize = 2_000;

/// A resolved select list.
struct Projection {
    items: Vec<SelectItem>,
    columns: Vec<OutputColumn>,
    /// The expression of each item.
    values: Vec<Expr>,
}

impl Resolver<'_> {
    /// Resolves a SELECT and the ORDER BY after it. Also returns the columns of the result.
    pub(crate) fn select(
        &mut self,
        select: &Select,
        order: Vec<OrderByExpr>,
    ) -> Result<(Select, Vec<OrderByExpr>, Vec<OutputColumn>), Problem> {
        refuse_select_extras(select)?;
        let depth = self.scopes.len();
        let outer = std::mem::take(&mut self.in_filter);
        let result = self.select_in_scope(select, order);
        self.scopes.truncate(depth);
        self.in_filter = outer;
        result
    }

    fn select_in_scope(
        &mut self,
        select: &Select,
        order: Vec<OrderByExpr>,
    ) -> Result<(Select, Vec<OrderByExpr>, Vec<OutputColumn>), Problem> {
        let from = self.from(&select.from)?;
        let selection = select.selection.as_ref().map(|e| self.filter(e)).transpose()?;
        let items = self.items(&select.projection)?;
        if items.is_empty() {
            return Err(bad("the select list is empty").hint("list the columns to select, or *"));
        }
        let aliases: Vec<(String, Expr)> = select.projection.iter().filter_map(alias_of).collect();
        let group_by = self.group_by(&select.group_by, &items, &aliases)?;
        let projection = self.projection(&items)?;
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases.clone_from(&aliases);
        }
        let having = select.having.as_ref().map(|e| self.filter(e)).transpose()?;
        let mut named_window = Vec::new();
        for NamedWindowDefinition(name, window) in &select.named_window {
            named_window.push(NamedWindowDefinition(
                quoted(&name.value.to_lowercase()),
                self.named_window(window)?,
            ));
        }
        let distinct = match &select.distinct {
            Some(Distinct::On(keys)) => {
                let keys: Result<Vec<Expr>, Problem> = keys.iter().map(|e| self.expression(e)).collect();
                Some(Distinct::On(keys?))
            }
            other => other.clone(),
        };
        let order = self.order_by(&order, &projection.columns, &projection.values, distinct.as_ref())?;
        let select = Select {
            distinct,
            projection: projection.items,
            from,
            selection,
            group_by,
            having,
            named_window,
            ..empty_select()
        };
        Ok((select, order, projection.columns))
    }

    /// Resolves the items of a select list and gives each a unique name.
    fn projection(&mut self, items: &[SelectedItem]) -> Result<Projection, Problem> {
        let mut names = OutputNames::default();
        let mut projection = Projection {
            items: Vec::new(),
            columns: Vec::new(),
            values: Vec::new(),
        };
        check_column_count(items.len())?;
        for item in items {
            let value = match &item.source {
                ItemSource::Written(expr) => self.value(expr)?,
                ItemSource::Star(value) => (**value).clone(),
            };
            let name = names.unique(&item.name);
            let origin = origin(&value);
            let expr = self.lower(value);
            projection.items.push(SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: quoted(&name),
            });
            projection.columns.push(OutputColumn {
                name,
                origin,
                expr: None,
            });
            projection.values.push(expr);
        }
        Ok(projection)
    }

    /// `WINDOW w AS (…)`.
    fn named_window(&mut self, window: &NamedWindowExpr) -> Result<NamedWindowExpr, Problem> {
        Ok(match window {
            NamedWindowExpr::NamedWindow(name) => NamedWindowExpr::NamedWindow(quoted(&name.value.to_lowercase())),
            NamedWindowExpr::WindowSpec(spec) => {
                let mut spec = spec.clone();
                self.window_spec(&mut spec)?;
                spec.partition_by = spec
                    .partition_by
                    .iter()
                    .map(|e| self.expression(e))
                    .collect::<Result<_, _>>()?;
                for key in &mut spec.order_by {
                    key.expr = self.expression(&key.expr)?;
                }
                NamedWindowExpr::WindowSpec(spec)
            }
        })
    }
}

/// Rejects a query of too many columns.
pub(super) fn check_column_count(count: usize) -> Result<(), Problem> {
    if count > COLUMNS_MAX {
        let detail = format!("the query returns {count} columns: the limit is {COLUMNS_MAX}");
        return Err(Problem::new(Code::TooComplex, detail).hint("select whole documents (_doc), or fewer columns"));
    }
    Ok(())
}

fn alias_of(item: &SelectItem) -> Option<(String, Expr)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), expr.clone())),
        _ => None,
    }
}

/// Whether a SELECT always returns exactly one row: an aggregate over all rows.
pub(super) fn is_one_row(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let aggregated = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => is_aggregated(expr),
        _ => false,
    };
    !grouped && select.having.is_none() && select.projection.iter().any(aggregated)
}

/// Whether a SELECT returns one row for each row that it reads: it neither groups, aggregates nor unnests.
pub(super) fn keeps_rows(select: &Select) -> bool {
    let changes_rows = |f: &Function| {
        f.over.is_some() || function_name(&f.name).is_some_and(|name| is_aggregate(&name) || name == "unnest")
    };
    let mut visit = |node: Node<'_>| match node {
        Node::Expr(Expr::Function(f)) if changes_rows(f) => ControlFlow::Break("other rows"),
        _ => ControlFlow::Continue(()),
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    !grouped
        && select.having.is_none()
        && select.distinct.is_none()
        && walk(Root::Projection(&select.projection), &mut visit).is_none()
}

/// Whether an expression contains an aggregate that is no window function.
pub(super) fn is_aggregated(expr: &Expr) -> bool {
    let mut visit = |node: Node<'_>| match node {
        Node::Expr(Expr::Function(f))
            if f.over.is_none() && function_name(&f.name).is_some_and(|name| is_aggregate(&name)) =>
        {
            ControlFlow::Break("an aggregate")
        }
        _ => ControlFlow::Continue(()),
    };
    walk(Root::Expr(expr), &mut visit).is_some()
}

fn refuse_select_extras(select: &Select) -> Result<(), Problem> {
    let clauses = [
        (select.top.is_some(), "TOP"),
        (select.exclude.is_some(), "EXCLUDE"),
        (select.into.is_some(), "SELECT INTO"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!select.sort_by.is_empty(), "SORT BY"),
        (select.qualify.is_some(), "QUALIFY"),
        (select.value_table_mode.is_some(), "SELECT AS VALUE"),
        (
            select.select_modifiers.as_ref().is_some_and(|m| m.is_any_set()),
            "a SELECT modifier",
        ),
    ];
    match clauses.into_iter().find(|(present, _)| *present) {
        Some((_, clause)) => Err(not_offered(clause)),
        None => Ok(()),
    }
}
