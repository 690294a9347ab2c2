//! Resolves GROUP BY and ORDER BY: by input name, output name, number or expression.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, GroupByWithModifier, OrderByExpr, Value as Literal, ValueWithSpan,
};
use front::{Node, Root, walk};
use proto::{Code, Problem};

use super::{
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::OutputColumn,
    select::is_aggregated,
    select_list::{ItemSource, SelectedItem},
    value::{Value, call, number},
};
use crate::sql::copies::expressions;

/// Keys of one GROUP BY. Each is compared with all others.
const KEYS_MAX: usize = 1_000;
/// Grouping sets of one GROUP BY. The rows are grouped once for each set.
const GROUPING_SETS_MAX: u64 = 512;

impl Resolver<'_> {
    /// Resolves GROUP BY: input names first, then output names and numbers.
    pub(crate) fn group_by(
        &mut self,
        group: &GroupByExpr,
        items: &[SelectedItem],
        aliases: &[(String, Expr)],
    ) -> Result<GroupByExpr, Problem> {
        let keys = &match group {
            GroupByExpr::All(modifiers) => with_modifiers(all_keys(items), modifiers)?,
            GroupByExpr::Expressions(keys, modifiers) => with_modifiers(keys.clone(), modifiers)?,
        };
        if keys.len() > KEYS_MAX {
            let detail = format!("GROUP BY has {} keys: the limit is {KEYS_MAX}", keys.len());
            return Err(Problem::new(Code::TooComplex, detail).hint("group by fewer expressions"));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases = aliases.to_vec();
        }
        let mut resolved: Vec<Expr> = Vec::new();
        for written in keys {
            let value = self.group_key(written, items)?;
            let key = match self.lower(value) {
                // Without the call, a constant would be taken for the number of an item.
                constant if is_constant(&constant) => call("coalesce", vec![constant]),
                key => key,
            };
            if let Expr::Rollup(sets) | Expr::Cube(sets) = &key
                && sets.iter().enumerate().any(|(index, set)| sets[..index].contains(set))
            {
                return Err(not_offered(format!("a repeated column in {written}")).hint("name it once"));
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
            .hint("CUBE of n columns has 2^n sets: list the sets that you need with GROUPING SETS ((a, b), (a))"));
        }
        // The planner writes out every set.
        let written: usize = resolved.iter().map(expressions).sum();
        self.copies
            .charge(1, expressions_of_sets(&resolved, sets).saturating_sub(written))?;
        Ok(GroupByExpr::Expressions(resolved, vec![]))
    }

    /// Resolves one key of GROUP BY: the number of an item, or an expression.
    fn group_key(&mut self, key: &Expr, items: &[SelectedItem]) -> Result<Value, Problem> {
        let number = ordinal(key);
        let item = number
            .and_then(|number| items.get(number.wrapping_sub(1)))
            .map(|item| &item.source);
        if has_query(key) || matches!(item, Some(ItemSource::Written(expr)) if has_query(expr)) {
            return Err(not_offered("a subquery in GROUP BY")
                .hint("compute it in FROM: SELECT … FROM (SELECT (…) AS x …) AS t GROUP BY x"));
        }
        let Some(number) = number else {
            return self.value(key);
        };
        match item {
            Some(ItemSource::Written(expr)) if is_aggregated(expr) => {
                Err(bad(format!("GROUP BY {number}: {expr} is an aggregate"))
                    .hint("group by a column or expression without aggregates"))
            }
            Some(ItemSource::Written(expr)) => {
                let begun = self.resolved();
                let value = self.value(expr)?;
                self.charge_as_copy(begun).map(|()| value)
            }
            Some(ItemSource::Star(value)) => Ok((**value).clone()),
            None => Err(bad(format!(
                "GROUP BY {number}: the select list has {} items",
                items.len()
            ))),
        }
    }

    /// Resolves ORDER BY. `values` are the expressions of the output columns.
    pub(crate) fn order_by(
        &mut self,
        order: &[OrderByExpr],
        columns: &[OutputColumn],
        values: &[Expr],
        distinct: Option<&Distinct>,
    ) -> Result<Vec<OrderByExpr>, Problem> {
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let distinct_on = matches!(distinct, Some(Distinct::On(_)));
        let mut indexes: HashMap<&Expr, usize> = HashMap::new();
        for (index, value) in values.iter().enumerate() {
            indexes.entry(value).or_insert(index);
        }
        let mut resolved = Vec::new();
        for item in order {
            if item.with_fill.is_some() {
                return Err(not_offered("WITH FILL"));
            }
            let (index, expr) = match output_index(&item.expr, &names)? {
                Some(index) => {
                    if distinct_on {
                        self.charge_expression(1, &values[index])?;
                    }
                    (Some(index), values[index].clone())
                }
                // An expression that is in the select list refers to that item.
                None => {
                    let expr = self.expression(&item.expr)?;
                    (indexes.get(&expr).copied(), expr)
                }
            };
            let expr = match (index, distinct) {
                (None, Some(Distinct::Distinct)) => {
                    return Err(bad(format!(
                        "ORDER BY {}: SELECT DISTINCT does not return this column",
                        item.expr
                    ))
                    .hint("select it too, or order by a selected column"));
                }
                (Some(index), _) if !distinct_on => number(&(index + 1).to_string()),
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
}

/// The keys of `GROUP BY ALL`, as numbers of items: all items that are no aggregates.
fn all_keys(items: &[SelectedItem]) -> Vec<Expr> {
    let is_key = |item: &SelectedItem| match &item.source {
        ItemSource::Written(expr) => !is_aggregated(expr) && !has_window(expr),
        ItemSource::Star(_) => true,
    };
    let numbered = items.iter().zip(1..).filter(|(item, _)| is_key(item));
    numbered.map(|(_, index)| number(&index.to_string())).collect()
}

/// `GROUP BY a, b WITH ROLLUP`, `WITH CUBE` and `WITH TOTALS`.
fn with_modifiers(keys: Vec<Expr>, modifiers: &[GroupByWithModifier]) -> Result<Vec<Expr>, Problem> {
    let each = |keys: Vec<Expr>| keys.into_iter().map(|key| vec![key]).collect();
    Ok(match modifiers {
        [] => keys,
        [GroupByWithModifier::Rollup] => vec![Expr::Rollup(each(keys))],
        [GroupByWithModifier::Cube] => vec![Expr::Cube(each(keys))],
        [GroupByWithModifier::Totals] => vec![Expr::GroupingSets(vec![keys, vec![]])],
        _ => {
            return Err(not_offered("this GROUP BY").hint("use GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS ((…))"));
        }
    })
}

fn has_window(expr: &Expr) -> bool {
    let mut visit = |node: Node<'_>| match node {
        Node::Expr(Expr::Function(function)) if function.over.is_some() => ControlFlow::Break("a window"),
        _ => ControlFlow::Continue(()),
    };
    walk(Root::Expr(expr), &mut visit).is_some()
}

/// Whether an expression is a literal, with or without sign and parentheses.
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

/// The index of the output column that an ORDER BY item names, by number or by name.
pub(super) fn output_index(expr: &Expr, names: &[&str]) -> Result<Option<usize>, Problem> {
    if let Some(number) = ordinal(expr) {
        return match number.checked_sub(1).filter(|index| *index < names.len()) {
            Some(index) => Ok(Some(index)),
            None => Err(bad(format!(
                "ORDER BY {number}: the select list has {} items",
                names.len()
            ))),
        };
    }
    let Expr::Identifier(ident) = expr else { return Ok(None) };
    let exact = names.iter().position(|name| *name == ident.value);
    Ok(exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(&ident.value))))
}

fn has_query(expr: &Expr) -> bool {
    let mut visit = |node: Node<'_>| match node {
        Node::Query(_) => ControlFlow::Break("a subquery"),
        _ => ControlFlow::Continue(()),
    };
    walk(Root::Expr(expr), &mut visit).is_some()
}

/// The number of grouping sets of one key of GROUP BY.
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

/// The number of expressions in all grouping sets, if there are so many sets.
fn expressions_of_sets(keys: &[Expr], sets: u64) -> usize {
    let of_columns = |columns: &[Expr]| columns.iter().map(expressions).sum::<usize>();
    let of_key = |key: &Expr| match key {
        Expr::GroupingSets(sets) => sets.iter().map(|set| of_columns(set)).sum(),
        // About half of the columns are in each set.
        Expr::Cube(columns) | Expr::Rollup(columns) => {
            let all: usize = columns.iter().map(|columns| of_columns(columns)).sum();
            all.saturating_mul(to_usize(grouping_sets(key))) / 2
        }
        other => expressions(other),
    };
    // Each set of a key occurs once with each combination of the sets of the others.
    let of_all_sets = keys
        .iter()
        .map(|key| of_key(key).saturating_mul(to_usize(sets / grouping_sets(key).max(1))));
    of_all_sets.fold(0, usize::saturating_add)
}

fn to_usize(sets: u64) -> usize {
    usize::try_from(sets).unwrap_or(usize::MAX)
}
