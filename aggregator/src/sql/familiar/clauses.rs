//! Familiar clauses: `FROM events` without SELECT, and QUALIFY.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, WildcardAdditionalOptions,
};
use front::Part;
use proto::Problem;

use crate::sql::{
    copies::{Copies, expressions},
    resolve::{empty_query, empty_select},
};

/// The names of the condition and of the subquery that QUALIFY becomes.
const QUALIFIES: &str = "__qualifies";
const QUALIFIED: &str = "qualified";

/// `FROM events` is `SELECT * FROM events`.
pub(super) fn complete_from_first(select: &mut Select) {
    if matches!(select.flavor, SelectFlavor::FromFirstNoSelect) {
        select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    }
    select.flavor = SelectFlavor::Standard;
}

/// `SELECT … QUALIFY condition` is `SELECT * FROM (SELECT …, condition AS c) WHERE c`, without c.
pub(super) fn nest_qualify(select: &mut Select, copies: &mut Copies) -> Result<(), Problem> {
    let Some(mut condition) = select.qualify.take() else {
        return Ok(());
    };
    let mut aliased: HashMap<&str, &Expr> = HashMap::new();
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { expr, alias } = item {
            aliased.entry(&alias.value).or_insert(expr);
        }
    }
    let mut charged = Ok(());
    let _ = front::revise_expression(&mut condition, &mut |part| {
        if let Part::Expr(expr) = part
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
    let subquery = Query {
        body: Box::new(SetExpr::Select(Box::new(inner))),
        ..empty_query()
    };
    select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions {
        opt_exclude: Some(ExcludeSelectItem::Single(ObjectName::from(vec![column.clone()]))),
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
