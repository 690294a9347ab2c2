//! Builds queries, SELECTs and relations of a resolved statement.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, ObjectName, Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Values, WildcardAdditionalOptions,
    helpers::attached_token::AttachedToken,
};

use super::{
    scope::OutputColumn,
    value::{column, quoted},
};

/// A query without any clause, for struct updates.
pub(in crate::sql) fn empty_query() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(Values {
            explicit_row: false,
            value_keyword: false,
            rows: vec![],
        })),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

/// A SELECT without any clause, for struct updates.
pub(in crate::sql) fn empty_select() -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![],
        exclude: None,
        into: None,
        from: vec![],
        lateral_views: vec![],
        prewhere: None,
        selection: None,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// `SELECT item FROM (query) AS alias`.
pub(super) fn select_from(query: Query, alias: &str, item: Expr) -> Query {
    select_of(query, alias, vec![SelectItem::UnnamedExpr(item)], None)
}

/// `SELECT item FROM (query) AS alias WHERE condition`.
pub(super) fn select_where(query: Query, alias: &str, item: Expr, condition: Expr) -> Query {
    select_of(query, alias, vec![SelectItem::UnnamedExpr(item)], Some(condition))
}

fn select_of(query: Query, alias: &str, projection: Vec<SelectItem>, selection: Option<Expr>) -> Query {
    let from = vec![TableWithJoins {
        relation: derived(query, alias, &[]),
        joins: vec![],
    }];
    let select = Select {
        projection,
        from,
        selection,
        ..empty_select()
    };
    Query {
        body: Box::new(SetExpr::Select(Box::new(select))),
        ..empty_query()
    }
}

/// `SELECT columns FROM (body)`.
pub(super) fn select_columns(body: SetExpr, columns: &[OutputColumn]) -> SetExpr {
    const ALIAS: &str = "whole";
    let query = Query {
        body: Box::new(body),
        ..empty_query()
    };
    let items = columns
        .iter()
        .map(|c| SelectItem::ExprWithAlias {
            expr: column(ALIAS, &c.name),
            alias: quoted(&c.name),
        })
        .collect();
    SetExpr::Query(Box::new(select_of(query, ALIAS, items, None)))
}

/// `(query) AS alias (columns)`.
pub(super) fn derived(query: Query, alias: &str, columns: &[String]) -> TableFactor {
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(TableAlias {
            explicit: true,
            name: quoted(alias),
            columns: columns.iter().map(|name| untyped_column(name)).collect(),
            at: None,
        }),
        sample: None,
    }
}

/// `(SELECT alias.*, items FROM factor WHERE selection) AS alias`: the input with more columns or fewer rows.
pub(super) fn with_columns(
    factor: TableFactor,
    alias: &str,
    items: Vec<SelectItem>,
    selection: Option<Expr>,
) -> TableFactor {
    let all = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![quoted(alias)]));
    let all = SelectItem::QualifiedWildcard(all, WildcardAdditionalOptions::default());
    let select = Select {
        projection: std::iter::once(all).chain(items).collect(),
        from: vec![TableWithJoins {
            relation: factor,
            joins: vec![],
        }],
        selection,
        ..empty_select()
    };
    let query = Query {
        body: Box::new(SetExpr::Select(Box::new(select))),
        ..empty_query()
    };
    derived(query, alias, &[])
}

/// A column name in the column list of an alias.
pub(super) fn untyped_column(name: &str) -> TableAliasColumnDef {
    TableAliasColumnDef {
        name: quoted(name),
        data_type: None,
    }
}

/// `name AS alias`.
pub(super) fn table_factor(name: &str, alias: &str) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![quoted(name)]),
        alias: Some(TableAlias {
            explicit: true,
            name: quoted(alias),
            columns: vec![],
            at: None,
        }),
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}
