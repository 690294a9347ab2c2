//! Clauses of other systems: `FROM events` without SELECT, and QUALIFY.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, GroupByExpr, Ident, ObjectName, OrderByKind, Query, Select, SelectFlavor, SelectItem,
    SetExpr, TableAlias, TableFactor, TableWithJoins, WildcardAdditionalOptions,
};
use front::{Node, NodeMut, Root};
use proto::Problem;

use crate::sql::{
    copies::{Copies, expressions},
    resolve::{empty_query, empty_select},
};

/// The names of the condition and of the subquery that QUALIFY becomes.
const QUALIFIES: &str = "__qualifies";
const QUALIFIED: &str = "qualified";
/// Prefix of the hidden columns that the result of a QUALIFY is sorted by.
const ORDER_KEY: &str = "__order_";

/// `FROM events` is `SELECT * FROM events`.
pub(super) fn complete_from_first(select: &mut Select) {
    if matches!(select.flavor, SelectFlavor::FromFirstNoSelect) {
        select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    }
    select.flavor = SelectFlavor::Standard;
}

/// QUALIFY makes a subquery, outside of which only selected columns are known. So whatever else the query is sorted by
/// becomes a column of it, which [`nest_qualify`] leaves out again.
pub(super) fn select_order_keys(query: &mut Query) {
    let (SetExpr::Select(select), Some(order)) = (&mut *query.body, &mut query.order_by) else {
        return;
    };
    let OrderByKind::Expressions(keys) = &mut order.kind else {
        return;
    };
    if select.qualify.is_none() || select.distinct.is_some() || matches!(select.group_by, GroupByExpr::All(_)) {
        return;
    }
    let selected: HashSet<String> = select.projection.iter().filter_map(selected_name).collect();
    for (number, key) in keys.iter_mut().enumerate() {
        let uses_selected = front::walk(Root::Expr(&key.expr), &mut |node| match node {
            Node::Expr(Expr::Identifier(name)) if selected.contains(&name.value.to_lowercase()) => {
                ControlFlow::Break("a selected column")
            }
            _ => ControlFlow::Continue(()),
        });
        if uses_selected.is_some() || matches!(key.expr, Expr::Value(_)) {
            continue;
        }
        let column = Ident::with_quote('"', format!("{ORDER_KEY}{number}"));
        let expr = std::mem::replace(&mut key.expr, Expr::Identifier(column.clone()));
        select
            .projection
            .push(SelectItem::ExprWithAlias { expr, alias: column });
    }
}

/// The name of a column of a select list, in lower case.
fn selected_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.to_lowercase()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.to_lowercase()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => Some(names.last()?.value.to_lowercase()),
        _ => None,
    }
}

/// `SELECT … QUALIFY condition` is `SELECT * FROM (SELECT …, condition AS c) WHERE c`, without c.
pub(super) fn nest_qualify(select: &mut Select, copies: &mut Copies) -> Result<(), Problem> {
    let Some(mut condition) = select.qualify.take() else {
        return Ok(());
    };
    let mut aliased: HashMap<&str, &Expr> = HashMap::new();
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { expr, alias } = item
            && !alias.value.starts_with(ORDER_KEY)
        {
            aliased.entry(&alias.value).or_insert(expr);
        }
    }
    let mut charged = Ok(());
    let _ = front::revise_expression(&mut condition, &mut |node| {
        if let NodeMut::Expr(expr) = node
            && let Expr::Identifier(name) = &*expr
            && let Some(value) = aliased.get(name.value.as_str())
        {
            charged = copies.charge(1, expressions(value));
            if charged.is_err() {
                return ControlFlow::Break(());
            }
            *expr = Expr::Nested(Box::new((*value).clone()));
        }
        ControlFlow::Continue(())
    });
    charged?;
    let mut inner = std::mem::replace(select, empty_select());
    let column = Ident::with_quote('"', QUALIFIES);
    inner.projection.push(SelectItem::ExprWithAlias {
        expr: condition,
        alias: column.clone(),
    });
    let hidden = inner.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } if alias.value == QUALIFIES || alias.value.starts_with(ORDER_KEY) => {
            Some(ObjectName::from(vec![alias.clone()]))
        }
        _ => None,
    });
    let hidden = hidden.collect();
    let subquery = Query {
        body: Box::new(SetExpr::Select(Box::new(inner))),
        ..empty_query()
    };
    select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions {
        opt_exclude: Some(ExcludeSelectItem::Multiple(hidden)),
        ..WildcardAdditionalOptions::default()
    })];
    select.from = vec![TableWithJoins {
        relation: TableFactor::Derived {
            lateral: false,
            subquery: Box::new(subquery),
            alias: Some(TableAlias {
                explicit: true,
                name: Ident::with_quote('"', QUALIFIED),
                columns: Vec::new(),
                at: None,
            }),
            sample: None,
        },
        joins: Vec::new(),
    }];
    select.selection = Some(Expr::Identifier(column));
    Ok(())
}
