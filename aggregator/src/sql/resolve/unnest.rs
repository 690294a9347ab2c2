//! Resolves `unnest(list)` in FROM. The input that has the list is wrapped in a subquery that unnests it.

use std::{ops::ControlFlow, rc::Rc};

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, TableWithJoins, WildcardAdditionalOptions,
};
use front::{Node, Root, walk};
use proto::Problem;

use super::{
    build::{derived, empty_query, empty_select},
    problem::not_offered,
    resolver::Resolver,
    scope::{InputKind, OutputColumn, UnnestedList},
    value::{call, column, quoted},
};

impl Resolver<'_> {
    /// Records `unnest(list) AS item`, where the list belongs to an input before it. Returns false if there is no
    /// scope.
    pub(super) fn unnest(&mut self, relation: &TableFactor, from: &[TableWithJoins]) -> Result<bool, Problem> {
        let TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        } = relation
        else {
            return Err(not_offered("unnest WITH ORDINALITY or WITH OFFSET"));
        };
        let [list] = array_exprs.as_slice() else {
            return Err(not_offered("unnest of several lists"));
        };
        if has_outer_join(from) {
            return Err(not_offered("unnest next to an outer join").hint("unnest the list in a subquery"));
        }
        let list = call("items", vec![self.expression(list)?]);
        let default = Ident::new("unnest");
        let name = alias.as_ref().map_or(&default, |alias| &alias.name);
        let column_name = alias
            .as_ref()
            .and_then(|alias| alias.columns.first())
            .map_or(name.value.clone(), |column| column.name.value.clone());
        let input = self.input_of_list(&list)?;
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(false);
        };
        let hidden = format!("unnest_{}", scope.unnested.len());
        let element = column(&input, &hidden);
        scope.unnested.push(UnnestedList {
            input,
            list,
            column: hidden,
        });
        self.add_input(
            name,
            InputKind::Columns(Rc::new([OutputColumn {
                name: column_name,
                origin: None,
                expr: Some(element),
            }])),
        )?;
        Ok(true)
    }

    /// The alias of the one input of the innermost scope that a list is computed from.
    fn input_of_list(&self, list: &Expr) -> Result<String, Problem> {
        let in_scope = |input: &String| {
            self.scopes
                .last()
                .is_some_and(|scope| scope.inputs.iter().any(|i| i.alias == *input))
        };
        match inputs_of(list).as_slice() {
            [only] if in_scope(only) => Ok(only.clone()),
            [] => Err(not_offered("unnest of a list that is in no table").hint("write VALUES (…), (…)")),
            _ => Err(not_offered("unnest of a list computed from several tables").hint("unnest it in a subquery")),
        }
    }
}

fn has_outer_join(from: &[TableWithJoins]) -> bool {
    from.iter().flat_map(|item| &item.joins).any(|join| {
        !matches!(
            join.join_operator,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    })
}

/// The aliases of the inputs that an expression reads.
fn inputs_of(expr: &Expr) -> Vec<String> {
    let mut inputs = Vec::new();
    walk(Root::Expr(expr), &mut |node| {
        if let Node::Expr(Expr::CompoundIdentifier(parts)) = node
            && let Some(alias) = parts.first()
            && !inputs.contains(&alias.value)
        {
            inputs.push(alias.value.clone());
        }
        ControlFlow::Continue(())
    });
    inputs
}

/// Replaces the input with `(SELECT input.*, unnest(list) AS column FROM input) AS input`. Returns false if the input
/// is not in `item`.
pub(super) fn add_unnest(item: &mut TableWithJoins, unnested: &UnnestedList) -> bool {
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

fn with_unnest(factor: TableFactor, alias: &str, unnested: &UnnestedList) -> TableFactor {
    let all = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![quoted(alias)]));
    let element = SelectItem::ExprWithAlias {
        expr: call("unnest", vec![unnested.list.clone()]),
        alias: quoted(&unnested.column),
    };
    let select = Select {
        projection: vec![
            SelectItem::QualifiedWildcard(all, WildcardAdditionalOptions::default()),
            element,
        ],
        from: vec![TableWithJoins {
            relation: factor,
            joins: vec![],
        }],
        ..empty_select()
    };
    let query = Query {
        body: Box::new(SetExpr::Select(Box::new(select))),
        ..empty_query()
    };
    derived(query, alias, &[])
}
