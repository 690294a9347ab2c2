//! SELECT: the select list with its names, stars, GROUP BY, HAVING, ORDER BY by output name, number or expression.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, ObjectName, ObjectNamePart,
    OrderByExpr, Select, SelectItem, SelectItemQualifiedWildcardKind, Value as Literal, ValueWithSpan,
    WildcardAdditionalOptions, helpers::attached_token::AttachedToken,
};
use front::{Node, Root, walk};
use plan::{Path, path::Step};
use proto::{Code, Problem};

use super::{
    Resolver, STAR_KEYS_MAX, bad,
    expression::{function_name, shortened, window_spec},
    name::{Input, OutColumn, Rows, Spelled},
    not_offered,
    query::{FLAVOR, no_group},
    value::{Stored, Value, call, number, quoted},
};
use crate::{sql::names::Fit, typing::is_aggregate};

/// An item of the select list, stars spelled out.
struct Item {
    source: Source,
    name: String,
}

/// Where an item comes from. There are few of them, so the larger variant costs nothing.
#[expect(clippy::large_enum_variant, reason = "as many as a select list has items")]
enum Source {
    /// An expression of the statement.
    Written(Expr),
    /// A column that a star stands for.
    Star(Box<Value>),
}

impl Resolver<'_> {
    /// A SELECT with the ORDER BY behind it: resolved, and the columns it gives.
    pub fn select(
        &mut self,
        select: &Select,
        order: Vec<OrderByExpr>,
    ) -> Result<(Select, Vec<OrderByExpr>, Vec<OutColumn>), Problem> {
        refuse_select_extras(select)?;
        let depth = self.scopes.len();
        let around = std::mem::take(&mut self.filtering);
        let result = self.select_in_scope(select, order);
        self.scopes.truncate(depth);
        self.filtering = around;
        result
    }

    fn select_in_scope(
        &mut self,
        select: &Select,
        order: Vec<OrderByExpr>,
    ) -> Result<(Select, Vec<OrderByExpr>, Vec<OutColumn>), Problem> {
        let from = self.from(&select.from)?;
        let selection = select.selection.as_ref().map(|e| self.filter(e)).transpose()?;
        let items = self.items(&select.projection)?;
        if items.is_empty() {
            return Err(bad("SELECT of nothing").hint("name what to select, or *"));
        }
        let aliases: Vec<(String, Expr)> = select.projection.iter().filter_map(alias_of).collect();
        let group_by = self.group_by(&select.group_by, &items, &aliases)?;
        let mut names = Names::default();
        let (mut projection, mut columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for item in &items {
            let value = match &item.source {
                Source::Written(expr) => self.value(expr)?,
                Source::Star(value) => (**value).clone(),
            };
            let name = names.unique(&item.name);
            let origin = origin(&value);
            let expr = self.written(value.clone());
            projection.push(SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: quoted(&name),
            });
            columns.push(OutColumn {
                name,
                origin,
                expr: None,
            });
            values.push(expr);
        }
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
                Some(Distinct::On(keys.iter().map(|e| self.expression(e)).collect::<Result<
                    _,
                    Problem,
                >>(
                )?))
            }
            other => other.clone(),
        };
        let order = self.order_by(&order, &columns, &values, distinct.as_ref())?;
        let select = Select {
            distinct,
            projection,
            from,
            selection,
            group_by,
            having,
            named_window,
            ..empty_select()
        };
        Ok((select, order, columns))
    }

    /// The select list with stars spelled out, each item with the name it asks for.
    fn items(&mut self, projection: &[SelectItem]) -> Result<Vec<Item>, Problem> {
        let mut items = Vec::new();
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(expr) => items.push(Item {
                    name: default_name(expr),
                    source: Source::Written(expr.clone()),
                }),
                SelectItem::ExprWithAlias { expr, alias } => items.push(Item {
                    name: alias.value.clone(),
                    source: Source::Written(expr.clone()),
                }),
                SelectItem::Wildcard(options) => {
                    refuse_wildcard_options(options)?;
                    let scope = self.scopes.last().cloned().unwrap_or_default();
                    if scope.inputs.is_empty() {
                        return Err(bad("SELECT * without FROM").hint("name a collection; SHOW TABLES lists them"));
                    }
                    for (i, input) in scope.inputs.iter().enumerate() {
                        let before: Vec<&str> = scope.inputs[..i].iter().map(|i| i.alias.as_str()).collect();
                        // A column that USING has merged is shown once.
                        let shown = |name: &str| {
                            !scope.merged.iter().any(|m| {
                                m.name == name
                                    && m.inputs.contains(&input.alias)
                                    && m.inputs.iter().any(|a| before.contains(&a.as_str()))
                            })
                        };
                        items.extend(self.star(input)?.into_iter().filter(|item| shown(&item.name)));
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    refuse_wildcard_options(options)?;
                    let alias = last_part(name).ok_or_else(|| bad(format!("{name}.* names no input")))?;
                    let input = self.scopes.iter().rev().find_map(|scope| {
                        scope
                            .inputs
                            .iter()
                            .find(|i| i.alias == alias)
                            .or_else(|| scope.inputs.iter().find(|i| i.alias.eq_ignore_ascii_case(&alias)))
                            .cloned()
                    });
                    let Some(input) = input else {
                        return Err(bad(format!("{name} is no input of this query"))
                            .hint(format!("name the keys, or select {name} as a whole")));
                    };
                    items.extend(self.star(&input)?);
                }
                other => return Err(not_offered(format!("{other} in a select list"))),
            }
        }
        Ok(items)
    }

    /// What `*` stands for in one input.
    fn star(&mut self, input: &Input) -> Result<Vec<Item>, Problem> {
        match &input.rows {
            Rows::Columns(columns) => {
                let mut items = Vec::with_capacity(columns.len());
                for column in columns {
                    let whole = [Step::Key(column.name.as_str().into())];
                    if let Some(value) = self.name_in_columns(&input.alias, columns, &whole, Fit::Exact) {
                        items.push(Item {
                            source: Source::Star(Box::new(value)),
                            name: column.name.clone(),
                        });
                    }
                }
                Ok(items)
            }
            Rows::Documents { names, .. } => {
                // What is always there goes before a key of the same name, which `_doc->'key'` still reaches.
                let mut top = names.top_level();
                top.retain(|path| path.keys().is_none_or(|keys| plan::Column::always(keys[0]).is_none()));
                if top.len() > STAR_KEYS_MAX {
                    let at_least = if names.overflow() { "at least " } else { "" };
                    self.warn(format!(
                        "{} has {at_least}{} top-level keys; * shows the first {STAR_KEYS_MAX}",
                        names.collection,
                        top.len()
                    ));
                    top.truncate(STAR_KEYS_MAX);
                }
                let mut items = Vec::new();
                for path in [Path::of_keys(["_id"]), Path::of_keys(["_time"])]
                    .into_iter()
                    .chain(top)
                {
                    let qualified: Vec<Step> = [Step::Key(input.alias.as_str().into())]
                        .into_iter()
                        .chain(path.steps().iter().cloned())
                        .collect();
                    let value = self.name(&Spelled {
                        steps: qualified,
                        span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
                    })?;
                    let name = path.keys().map_or_else(|| path.to_string(), |keys| keys.join("."));
                    items.push(Item {
                        source: Source::Star(Box::new(value)),
                        name,
                    });
                }
                Ok(items)
            }
        }
    }

    /// GROUP BY: input names first, then output names and numbers.
    fn group_by(
        &mut self,
        group: &GroupByExpr,
        items: &[Item],
        aliases: &[(String, Expr)],
    ) -> Result<GroupByExpr, Problem> {
        let GroupByExpr::Expressions(keys, modifiers) = group else {
            return Err(not_offered("GROUP BY ALL").hint("name the columns"));
        };
        if !modifiers.is_empty() {
            return Err(
                not_offered("this GROUP BY").hint("GROUP BY ROLLUP (…), CUBE (…) and GROUPING SETS ((…)) are there")
            );
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases = aliases.to_vec();
        }
        let mut resolved: Vec<Expr> = Vec::new();
        for key in keys {
            let named = ordinal(key)
                .and_then(|place| items.get(place.wrapping_sub(1)))
                .map(|item| &item.source);
            if has_query(key) || matches!(named, Some(Source::Written(expr)) if has_query(expr)) {
                return Err(not_offered("a sub-query in GROUP BY")
                    .hint("compute it in FROM: SELECT … FROM (SELECT (…) AS x …) AS t GROUP BY x"));
            }
            let value = match ordinal(key) {
                Some(place) => match named {
                    Some(Source::Written(expr)) if is_aggregated(expr) => {
                        return Err(bad(format!("GROUP BY {place}: {expr} is an aggregate"))
                            .hint("group by what it is computed over"));
                    }
                    Some(Source::Written(expr)) => self.value(expr)?,
                    Some(Source::Star(value)) => (**value).clone(),
                    None => {
                        return Err(bad(format!(
                            "GROUP BY {place}: the select list has {} items",
                            items.len()
                        )));
                    }
                },
                None => self.value(key)?,
            };
            let written = key;
            let key = match self.written(value) {
                // A constant is not the number of an item.
                constant if is_constant(&constant) => call("coalesce", vec![constant]),
                key => key,
            };
            if let Expr::Rollup(sets) | Expr::Cube(sets) = &key
                && sets.iter().enumerate().any(|(place, set)| sets[..place].contains(set))
            {
                return Err(not_offered(format!("one column twice in {written}")).hint("name it once"));
            }
            if !resolved.contains(&key) {
                resolved.push(key);
            }
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases.clear();
        }
        let sets = resolved.iter().map(grouping_sets).fold(1, u64::saturating_mul);
        if sets > GROUPING_SETS_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("GROUP BY asks for {sets} grouping sets; the limit is {GROUPING_SETS_MAX}"),
            )
            .hint("CUBE of n columns has 2^n sets: name the ones that you need with GROUPING SETS ((a, b), (a))"));
        }
        Ok(GroupByExpr::Expressions(resolved, vec![]))
    }

    fn order_by(
        &mut self,
        order: &[OrderByExpr],
        columns: &[OutColumn],
        values: &[Expr],
        distinct: Option<&Distinct>,
    ) -> Result<Vec<OrderByExpr>, Problem> {
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let on = matches!(distinct, Some(Distinct::On(_)));
        let mut places: HashMap<&Expr, usize> = HashMap::new();
        for (place, value) in values.iter().enumerate() {
            places.entry(value).or_insert(place);
        }
        let mut resolved = Vec::new();
        for item in order {
            if item.with_fill.is_some() {
                return Err(not_offered("WITH FILL"));
            }
            let (place, expr) = match output_index(&item.expr, &names)? {
                Some(place) => (Some(place), values[place].clone()),
                // What stands in the select list already is meant.
                None => {
                    let expr = self.expression(&item.expr)?;
                    (places.get(&expr).copied(), expr)
                }
            };
            let expr = match (place, distinct) {
                (None, Some(Distinct::Distinct)) => {
                    return Err(
                        bad(format!("ORDER BY {}: SELECT DISTINCT gives no such column", item.expr))
                            .hint("select it too, or order by a column of the list"),
                    );
                }
                (Some(place), _) if !on => number(&(place + 1).to_string()),
                _ if is_constant(&expr) => call("coalesce", vec![expr]),
                _ => expr,
            };
            resolved.push(OrderByExpr {
                expr,
                options: item.options,
                with_fill: None,
            });
        }
        Ok(resolved)
    }

    /// `WINDOW w AS (…)`.
    fn named_window(&mut self, window: &NamedWindowExpr) -> Result<NamedWindowExpr, Problem> {
        Ok(match window {
            NamedWindowExpr::NamedWindow(name) => NamedWindowExpr::NamedWindow(quoted(&name.value.to_lowercase())),
            NamedWindowExpr::WindowSpec(spec) => {
                let mut spec = spec.clone();
                window_spec(&mut spec)?;
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

/// Names of result columns: a repeated one is numbered.
#[derive(Default)]
struct Names {
    taken: std::collections::HashSet<String>,
}

impl Names {
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1usize;
        while !self.taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        unique
    }
}

/// The path that an item shows as it is.
fn origin(value: &Value) -> Option<Stored> {
    match value {
        Value::Path(path) => path.stored(),
        Value::Expr(_) => None,
    }
}

fn alias_of(item: &SelectItem) -> Option<(String, Expr)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), expr.clone())),
        _ => None,
    }
}

/// A literal, with a sign or in parentheses.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) => true,
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => is_constant(inner),
        _ => false,
    }
}

fn ordinal(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan {
            value: Literal::Number(digits, _),
            ..
        }) => digits.parse().ok(),
        _ => None,
    }
}

/// The output column that an ORDER BY item names: by its number, or by its name.
pub fn output_index(expr: &Expr, names: &[&str]) -> Result<Option<usize>, Problem> {
    if let Some(place) = ordinal(expr) {
        return match place.checked_sub(1).filter(|index| *index < names.len()) {
            Some(index) => Ok(Some(index)),
            None => Err(bad(format!(
                "ORDER BY {place}: the select list has {} items",
                names.len()
            ))),
        };
    }
    let Expr::Identifier(ident) = expr else { return Ok(None) };
    let exact = names.iter().position(|name| *name == ident.value);
    Ok(exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(&ident.value))))
}

/// What a result column is called that has no alias.
fn default_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => idents.last().map_or_else(String::new, |ident| ident.value.clone()),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let path = access_chain.iter().rev().find_map(|access| match access {
                datafusion::sql::sqlparser::ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident.value.clone()),
                _ => None,
            });
            path.unwrap_or_else(|| default_name(root))
        }
        Expr::BinaryOp { left, op, right } if matches!(op.to_string().as_str(), "->" | "->>") => {
            match super::value::text_literal(right) {
                Some(key) => key.to_owned(),
                None => default_name(left),
            }
        }
        Expr::Nested(inner) => default_name(inner),
        Expr::Cast { expr: inner, .. } if !matches!(**inner, Expr::Value(_)) => default_name(inner),
        Expr::Function(function) => {
            last_part(&function.name).map_or_else(|| function.name.to_string(), |name| name.to_lowercase())
        }
        Expr::Case { .. } => "case".into(),
        Expr::Extract { .. } => "extract".into(),
        Expr::Exists { .. } => "exists".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Position { .. } => "position".into(),
        Expr::Trim { .. } => "trim".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::Subquery(query) => match &*query.body {
            datafusion::sql::sqlparser::ast::SetExpr::Select(select) => match select.projection.as_slice() {
                [SelectItem::UnnamedExpr(inner)] => default_name(inner),
                [SelectItem::ExprWithAlias { alias, .. }] => alias.value.clone(),
                _ => "column".into(),
            },
            _ => "column".into(),
        },
        Expr::Value(ValueWithSpan {
            value: Literal::Placeholder(name),
            ..
        }) => name.clone(),
        other => shortened(&other.to_string()),
    }
}

/// Whether a SELECT gives one row, whatever there is: an aggregate over all rows.
pub fn is_one_row(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let aggregated = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => is_aggregated(expr),
        _ => false,
    };
    !grouped && select.having.is_none() && select.projection.iter().any(aggregated)
}

/// Whether a SELECT gives a row for each that it reads: it neither groups nor aggregates nor multiplies them.
pub fn keeps_rows(select: &Select) -> bool {
    let other_rows = |f: &Function| {
        f.over.is_some() || function_name(&f.name).is_some_and(|name| is_aggregate(&name) || name == "unnest")
    };
    let mut look = |node: Node<'_>| match node {
        Node::Expr(Expr::Function(f)) if other_rows(f) => ControlFlow::Break("other rows"),
        _ => ControlFlow::Continue(()),
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    !grouped
        && select.having.is_none()
        && select.distinct.is_none()
        && walk(Root::Projection(&select.projection), &mut look).is_none()
}

fn has_query(expr: &Expr) -> bool {
    let mut look = |node: Node<'_>| match node {
        Node::Query(_) => ControlFlow::Break("a sub-query"),
        _ => ControlFlow::Continue(()),
    };
    walk(Root::Expr(expr), &mut look).is_some()
}

fn is_aggregated(expr: &Expr) -> bool {
    let mut look = |node: Node<'_>| match node {
        Node::Expr(Expr::Function(f))
            if f.over.is_none() && function_name(&f.name).is_some_and(|name| is_aggregate(&name)) =>
        {
            ControlFlow::Break("an aggregate")
        }
        _ => ControlFlow::Continue(()),
    };
    walk(Root::Expr(expr), &mut look).is_some()
}

/// The last part of a name.
pub fn last_part(name: &ObjectName) -> Option<String> {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => Some(ident.value.clone()),
        _ => None,
    }
}

/// A SELECT of nothing, for struct updates.
pub fn empty_select() -> Select {
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
        group_by: no_group(),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: FLAVOR,
    }
}

fn refuse_wildcard_options(options: &WildcardAdditionalOptions) -> Result<(), Problem> {
    let spelled = options.to_string();
    if spelled.trim().is_empty() {
        Ok(())
    } else {
        Err(not_offered(format!("*{spelled}")).hint("name the columns"))
    }
}

fn refuse_select_extras(select: &Select) -> Result<(), Problem> {
    let refused = [
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
            "a modifier of SELECT",
        ),
    ];
    match refused.into_iter().find(|(there, _)| *there) {
        Some((_, what)) => Err(not_offered(what)),
        None => Ok(()),
    }
}

/// Grouping sets of one GROUP BY: the rows are grouped once for each.
const GROUPING_SETS_MAX: u64 = 512;

/// How many grouping sets a key of GROUP BY stands for.
fn grouping_sets(key: &Expr) -> u64 {
    match key {
        Expr::Cube(columns) => u32::try_from(columns.len())
            .ok()
            .and_then(|columns| 1_u64.checked_shl(columns))
            .unwrap_or(u64::MAX),
        Expr::Rollup(columns) => columns.len() as u64 + 1,
        Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    }
}
