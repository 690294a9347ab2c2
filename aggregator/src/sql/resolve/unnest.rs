//! Resolves `unnest(list)` in FROM. The input that has the list is wrapped in a subquery that unnests it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, JoinOperator, SelectItem, TableFactor, TableWithJoins,
};
use front::{Node, Root, walk};
use plan::functions::list_rows::{OR_NULL, POSITIONS};
use proto::Problem;

use super::{
    build::with_columns,
    operator::{binary, nested},
    problem::not_offered,
    resolver::Resolver,
    scope::{InputKind, OutputColumn, UnnestedLists},
    value::{call, column, number, quoted},
};

/// Whether rows without items remain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsWithoutItems {
    Dropped,
    /// As one row of NULLs: LEFT JOIN.
    Kept,
}

impl Resolver<'_> {
    /// Records `unnest(list, …) AS t(item, …)`, where the lists belong to one input before it. Returns false if there is
    /// no scope.
    pub(super) fn unnest(
        &mut self,
        relation: &TableFactor,
        from: &[TableWithJoins],
        empty: RowsWithoutItems,
    ) -> Result<bool, Problem> {
        let TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset,
            with_offset_alias,
            with_ordinality,
        } = relation
        else {
            return Ok(false);
        };
        if has_outer_join(from) {
            return Err(not_offered("unnest next to an outer join").hint("unnest the list in a subquery"));
        }
        let mut lists = Vec::with_capacity(array_exprs.len());
        for list in array_exprs {
            lists.push(call("items", vec![self.expression(list)?]));
        }
        let input = self.input_of_lists(&lists)?;
        let Some(first) = self
            .scopes
            .last()
            .map(|scope| scope.unnested.iter().map(|u| u.lists.len()).sum::<usize>())
        else {
            return Ok(false);
        };
        let positions = (*with_ordinality || *with_offset).then(|| call(POSITIONS, lists.clone()));
        if empty == RowsWithoutItems::Kept {
            // The first list decides that there is a row. The others are as long as the longest.
            let without_items = |list: Expr| call(OR_NULL, vec![list]);
            if let Some(list) = lists.first_mut() {
                *list = without_items(list.clone());
            }
        }
        let default = Ident::new("unnest");
        let name = alias.as_ref().map_or(&default, |alias| &alias.name);
        let mut names = alias
            .iter()
            .flat_map(|alias| &alias.columns)
            .map(|column| column.name.value.clone());
        let mut columns = Vec::with_capacity(lists.len() + 1);
        let mut unnested = Vec::with_capacity(lists.len() + 1);
        let single = lists.len() == 1;
        for (number, list) in lists.into_iter().enumerate() {
            let hidden = format!("unnest_{}", first + number);
            let default = if single {
                name.value.clone()
            } else {
                format!("{}_{}", name.value, number + 1)
            };
            columns.push(OutputColumn {
                name: names.next().unwrap_or(default),
                origin: None,
                expr: Some(column(&input, &hidden)),
            });
            unnested.push((list, hidden));
        }
        if let Some(positions) = positions {
            let hidden = format!("unnest_{}", first + unnested.len());
            let position = column(&input, &hidden);
            let offset_name = with_offset_alias.as_ref().map(|alias| alias.value.clone());
            let default = if *with_offset { "offset" } else { "ordinality" };
            columns.push(OutputColumn {
                name: offset_name
                    .or_else(|| names.next())
                    .unwrap_or_else(|| default.to_owned()),
                origin: None,
                // An offset counts from 0.
                expr: Some(match with_offset {
                    true => nested(binary(position, BinaryOperator::Minus, number("1"))),
                    false => position,
                }),
            });
            unnested.push((positions, hidden));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.unnested.push(UnnestedLists { input, lists: unnested });
        }
        self.add_input(name, InputKind::Columns(columns.into()))?;
        Ok(true)
    }

    /// The alias of the one input of the innermost scope that lists are computed from.
    fn input_of_lists(&self, lists: &[Expr]) -> Result<String, Problem> {
        let in_scope = |input: &String| {
            self.scopes
                .last()
                .is_some_and(|scope| scope.inputs.iter().any(|i| i.alias == *input))
        };
        let mut inputs = Vec::new();
        lists.iter().for_each(|list| add_inputs_of(list, &mut inputs));
        match inputs.as_slice() {
            [only] if in_scope(only) => Ok(only.clone()),
            [] => Err(
                not_offered("unnest of several lists, or with positions, outside of a table")
                    .hint("unnest one list: FROM unnest(list) AS t(item)"),
            ),
            [_] => Err(not_offered("unnest of a list of the outer query").hint(
                "unnest it next to its table, and group: SELECT d._id, sum(t.item) FROM events AS d, unnest(d.list) AS \
                 t(item) GROUP BY 1",
            )),
            _ => Err(not_offered("unnest of lists from several tables").hint(
                "unnest each list on its own: FROM a JOIN b ON …, unnest(a.list) AS t(x), unnest(b.list) AS u(y)",
            )),
        }
    }
}

/// The list of `unnest(list)`, if it is one list that names nothing, such as `['a', 'b']` or a parameter.
pub(super) fn list_alone(relation: &TableFactor) -> Option<&Expr> {
    let TableFactor::UNNEST {
        array_exprs,
        with_offset: false,
        with_ordinality: false,
        ..
    } = relation
    else {
        return None;
    };
    let [list] = array_exprs.as_slice() else { return None };
    let named = walk(Root::Expr(list), &mut |node| match node {
        Node::Expr(Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_)) => {
            ControlFlow::Break("a list with names")
        }
        _ => ControlFlow::Continue(()),
    });
    named.is_none().then_some(list)
}

fn has_outer_join(from: &[TableWithJoins]) -> bool {
    from.iter().flat_map(|item| &item.joins).any(|join| {
        !matches!(join.relation, TableFactor::UNNEST { .. })
            && !matches!(
                join.join_operator,
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
            )
    })
}

/// Adds the aliases of the inputs that an expression reads.
pub(in crate::sql) fn add_inputs_of(expr: &Expr, inputs: &mut Vec<String>) {
    walk(Root::Expr(expr), &mut |node| {
        if let Node::Expr(Expr::CompoundIdentifier(parts)) = node
            && let Some(alias) = parts.first()
            && !inputs.contains(&alias.value)
        {
            inputs.push(alias.value.clone());
        }
        ControlFlow::Continue(())
    });
}

/// Replaces the input with `(SELECT input.*, unnest(list) AS column, … FROM input) AS input`. Returns false if the input
/// is not in `item`.
pub(super) fn add_unnest(item: &mut TableWithJoins, unnested: &UnnestedLists) -> bool {
    let factors = std::iter::once(&mut item.relation).chain(item.joins.iter_mut().map(|join| &mut join.relation));
    for factor in factors {
        let alias = match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                alias.name.value.clone()
            }
            TableFactor::NestedJoin { table_with_joins, .. } => match add_unnest(table_with_joins, unnested) {
                true => return true,
                false => continue,
            },
            _ => continue,
        };
        if alias == unnested.input {
            *factor = with_unnest(factor.clone(), &alias, unnested);
            return true;
        }
    }
    false
}

fn with_unnest(factor: TableFactor, alias: &str, unnested: &UnnestedLists) -> TableFactor {
    let item = |(list, column): &(Expr, String)| SelectItem::ExprWithAlias {
        expr: call("unnest", vec![list.clone()]),
        alias: quoted(column),
    };
    with_columns(factor, alias, unnested.lists.iter().map(item).collect(), None)
}
