//! Resolves FROM: its inputs (collections, system tables, views, WITH queries, subqueries) and their joins.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query,
    Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, Value as Literal,
};
use plan::{
    functions::series::{RANGE, SERIES},
    path::Step,
};
use proto::Problem;

use super::{
    asof::asof_conditions,
    build::{derived, empty_query, empty_select},
    problem::{at, bad, not_offered, shortened},
    query::rename,
    resolver::Resolver,
    sample::without_sample,
    scope::{Input, InputKind, MergedColumn, Scope, SpelledName},
    unnest::{RowsWithoutItems, add_unnest, list_alone},
    value::{Value, call, quoted},
};

impl<'c> Resolver<'c> {
    /// Opens a scope with the inputs of a FROM clause. The caller closes it.
    pub(crate) fn from(&mut self, from: &[TableWithJoins]) -> Result<Vec<TableWithJoins>, Problem> {
        self.scopes.push(Scope::default());
        let mut resolved = Vec::with_capacity(from.len());
        for item in from {
            // An unnested list is no relation of its own: it changes the relation that has the list.
            match &item.relation {
                TableFactor::UNNEST { .. }
                    if list_alone(&item.relation).is_none()
                        && self.unnest(&item.relation, from, RowsWithoutItems::Dropped)?
                        && item.joins.is_empty() => {}
                _ => resolved.push(self.joined(item, from)?),
            }
        }
        let unnested = self
            .scopes
            .last_mut()
            .map(|scope| std::mem::take(&mut scope.unnested))
            .unwrap_or_default();
        for unnested in &unnested {
            if !resolved.iter_mut().any(|item| add_unnest(item, unnested)) {
                return Err(
                    not_offered(format!("unnest of a list from {}", unnested.input)).hint("unnest it in a subquery")
                );
            }
        }
        Ok(resolved)
    }

    fn joined(&mut self, item: &TableWithJoins, from: &[TableWithJoins]) -> Result<TableWithJoins, Problem> {
        let relation = self.relation(&item.relation)?;
        let mut joins = Vec::with_capacity(item.joins.len());
        for join in &item.joins {
            match &join.relation {
                TableFactor::UNNEST { .. } if list_alone(&join.relation).is_none() => {
                    let empty = rows_without_items(&join.join_operator)?;
                    self.unnest(&join.relation, from, empty)?;
                }
                _ => joins.push(self.join(join)?),
            }
        }
        Ok(TableWithJoins { relation, joins })
    }

    fn join(&mut self, join: &Join) -> Result<Join, Problem> {
        let before = self.scopes.last().map_or(0, |scope| scope.inputs.len());
        let relation = self.relation(&join.relation)?;
        if let Some(conditions) = asof_conditions(join) {
            return self.asof_join(relation, before, conditions);
        }
        let mut on = |constraint: &JoinConstraint, side: OuterSide| self.constraint(constraint, before, side);
        let join_operator = match &join.join_operator {
            JoinOperator::Join(c) => JoinOperator::Inner(on(c, OuterSide::None)?),
            JoinOperator::Inner(c) => JoinOperator::Inner(on(c, OuterSide::None)?),
            JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => JoinOperator::LeftOuter(on(c, OuterSide::Left)?),
            JoinOperator::Right(c) | JoinOperator::RightOuter(c) => JoinOperator::RightOuter(on(c, OuterSide::Right)?),
            JoinOperator::FullOuter(c) => JoinOperator::FullOuter(on(c, OuterSide::Full)?),
            JoinOperator::CrossJoin(JoinConstraint::None) => JoinOperator::CrossJoin(JoinConstraint::None),
            JoinOperator::LeftSemi(c) | JoinOperator::Semi(c) => JoinOperator::LeftSemi(on(c, OuterSide::Left)?),
            JoinOperator::LeftAnti(c) | JoinOperator::Anti(c) => JoinOperator::LeftAnti(on(c, OuterSide::Left)?),
            _ => return Err(not_offered("this kind of join").hint("use JOIN, LEFT, RIGHT, FULL or CROSS JOIN")),
        };
        Ok(Join {
            relation,
            global: false,
            join_operator,
        })
    }

    /// Resolves a join's condition. The first `before` inputs of the scope are the left side.
    fn constraint(
        &mut self,
        constraint: &JoinConstraint,
        before: usize,
        outer: OuterSide,
    ) -> Result<JoinConstraint, Problem> {
        match constraint {
            JoinConstraint::On(condition) => {
                let condition = self.filter(condition)?;
                // A score is that of the search in WHERE.
                if let Some(scope) = self.scopes.last_mut() {
                    scope.scored.clear();
                }
                Ok(JoinConstraint::On(condition))
            }
            JoinConstraint::Using(names) => self.using(names, before, outer),
            JoinConstraint::Natural => {
                Err(not_offered("NATURAL JOIN").hint("documents have no fixed columns: write USING (…) or ON …"))
            }
            JoinConstraint::None => Err(bad("a join needs a condition").hint("write ON …, USING (…), or CROSS JOIN")),
        }
    }

    /// Resolves `USING (a, b)` to equalities between the sides, and one merged column for each name.
    fn using(&mut self, names: &[ObjectName], before: usize, outer: OuterSide) -> Result<JoinConstraint, Problem> {
        let inputs = self.scopes.last().map(|scope| scope.inputs.clone()).unwrap_or_default();
        let (left, right) = inputs.split_at(before.min(inputs.len()));
        let mut condition: Option<Expr> = None;
        for name in names {
            let name = super::select_list::last_part(name).ok_or_else(|| bad("USING takes column names"))?;
            let (left_alias, left_value) = self.side_of_using(&name, left)?;
            let (right_alias, right_value) = self.side_of_using(&name, right)?;
            let (left_expr, right_expr) = (self.lower(left_value.clone()), self.lower(right_value.clone()));
            let merged = match outer {
                OuterSide::None | OuterSide::Left => left_value,
                OuterSide::Right => right_value,
                OuterSide::Full => Value::Expr(call("coalesce", vec![left_expr.clone(), right_expr.clone()])),
            };
            if let Some(scope) = self.scopes.last_mut() {
                scope.merged.retain(|m| m.name != name);
                scope.merged.push(MergedColumn {
                    name: name.clone(),
                    inputs: vec![left_alias, right_alias],
                    value: merged,
                });
            }
            let equal = Expr::BinaryOp {
                left: Box::new(left_expr),
                op: BinaryOperator::Eq,
                right: Box::new(right_expr),
            };
            condition = Some(match condition {
                None => equal,
                Some(before) => Expr::BinaryOp {
                    left: Box::new(before),
                    op: BinaryOperator::And,
                    right: Box::new(equal),
                },
            });
        }
        condition
            .map(JoinConstraint::On)
            .ok_or_else(|| bad("USING () lists no columns"))
    }

    /// One side's column of USING: the input's alias and the value.
    fn side_of_using(&mut self, name: &str, inputs: &[Input<'c>]) -> Result<(String, Value), Problem> {
        let span = datafusion::sql::sqlparser::tokenizer::Span::empty();
        let spelled = SpelledName {
            steps: vec![Step::Key(name.into())],
            span,
        };
        // Only this side is visible.
        self.scopes.push(Scope {
            inputs: inputs.to_vec(),
            closed: true,
            ..Scope::default()
        });
        let value = self.resolve_name(&spelled);
        self.scopes.pop();
        let value = value?;
        let lowered = self.lower(value.clone());
        let alias = match &lowered {
            Expr::CompoundIdentifier(parts) => parts.first().map(|part| part.value.clone()),
            _ => None,
        };
        Ok((
            alias
                .or_else(|| inputs.first().map(|i| i.alias.clone()))
                .unwrap_or_default(),
            value,
        ))
    }

    fn relation(&mut self, relation: &TableFactor) -> Result<TableFactor, Problem> {
        let without_sample = without_sample(relation);
        let whole = without_sample.as_ref().map_or(relation, |(whole, _)| whole);
        let resolved = self.resolved_relation(whole)?;
        let can_be_read_again = match relation {
            TableFactor::Derived { lateral, .. } => !lateral,
            other => matches!(other, TableFactor::Table { args: None, .. }),
        };
        let input = self.scopes.last_mut().and_then(|scope| scope.inputs.last_mut());
        if let Some(input) = input.filter(|_| can_be_read_again) {
            input.relation = Some(Rc::new(relation.clone()));
        }
        match &without_sample {
            Some((_, sample)) => self.sampled(resolved, sample),
            None => Ok(resolved),
        }
    }

    fn resolved_relation(&mut self, relation: &TableFactor) -> Result<TableFactor, Problem> {
        self.count_expression()?;
        match relation {
            TableFactor::Table {
                name,
                alias,
                args: None,
                with_hints,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                index_hints,
            } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
                self.table(name, alias.as_ref())
            }
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                with_ordinality: false,
                ..
            } if series_name(name).is_some() => self.series(name, &args.args, alias.as_ref()),
            TableFactor::Table {
                name, args: Some(_), ..
            } => Err(not_offered(format!("the table function {name}"))
                .hint("tables are collections, views and the system tables of the schema rachis")),
            TableFactor::UNNEST { alias, .. } if let Some(list) = list_alone(relation) => {
                self.rows_of("unnest", list.clone(), alias.as_ref())
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => self.derived_table(*lateral, subquery, alias.as_ref()),
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => Ok(TableFactor::NestedJoin {
                table_with_joins: Box::new(self.joined(table_with_joins, std::slice::from_ref(table_with_joins))?),
                alias: None,
            }),
            TableFactor::NestedJoin { .. } => Err(not_offered("an alias for a join in parentheses")),
            TableFactor::Function { name, .. } => Err(not_offered(format!("the table function {name}"))),
            other => Err(not_offered(shortened(&other.to_string()))
                .hint("FROM accepts collections, views, subqueries and the system tables of the schema rachis")),
        }
    }

    /// `generate_series(…)` or `range(…)` in FROM: `(SELECT unnest(generate_series(…)) AS name)`.
    fn series(
        &mut self,
        name: &ObjectName,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let name = series_name(name).unwrap_or_default();
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => values.push(value.clone()),
                other => return Err(not_offered(format!("the argument {other} of {name}"))),
            }
        }
        self.rows_of(name, call(name, values), alias)
    }

    /// A row for each item of a list that is in no table: `(SELECT unnest(list) AS name)`.
    fn rows_of(&mut self, name: &str, list: Expr, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        // With one name, it is that of the column, too.
        let column = alias.map_or(name, |alias| alias.name.value.as_str());
        let item = SelectItem::ExprWithAlias {
            expr: call("unnest", vec![list]),
            alias: quoted(column),
        };
        let select = Select {
            projection: vec![item],
            ..empty_select()
        };
        let query = Query {
            body: Box::new(SetExpr::Select(Box::new(select))),
            ..empty_query()
        };
        let unnamed = TableAlias {
            explicit: true,
            name: quoted(name),
            columns: Vec::new(),
            at: None,
        };
        self.derived_table(false, &query, Some(alias.unwrap_or(&unnamed)))
    }

    /// A subquery in FROM.
    fn derived_table(
        &mut self,
        lateral: bool,
        subquery: &Query,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let alias = &alias.cloned().unwrap_or_else(|| self.unnamed_table());
        // The other inputs of this FROM are invisible to it, unless it is lateral.
        let hidden = (!lateral).then(|| self.scopes.last_mut().map(std::mem::take)).flatten();
        let resolved = self.query(subquery);
        if let (Some(hidden), Some(scope)) = (hidden, self.scopes.last_mut()) {
            *scope = hidden;
        }
        let (query, columns) = resolved?;
        let names: Vec<String> = alias.columns.iter().map(|c| c.name.value.clone()).collect();
        let columns = rename(columns, &names, &alias.name.value)?;
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        self.add_input(&alias.name, InputKind::Columns(columns.into()))?;
        let mut table = derived(query, &alias.name.value, &names);
        if let TableFactor::Derived { lateral: of_table, .. } = &mut table {
            *of_table = lateral;
        }
        Ok(table)
    }

    /// The alias of a subquery in FROM that has none.
    fn unnamed_table(&self) -> TableAlias {
        let inputs = self.scopes.last().map_or(0, |scope| scope.inputs.len());
        TableAlias {
            explicit: true,
            name: quoted(&format!("subquery_{}", inputs + 1)),
            columns: Vec::new(),
            at: None,
        }
    }

    /// Adds an input to the innermost scope.
    pub(super) fn add_input(&mut self, alias: &Ident, kind: InputKind<'c>) -> Result<(), Problem> {
        let Some(scope) = self.scopes.last_mut() else {
            return Err(bad("FROM is missing"));
        };
        if scope.inputs.iter().any(|input| input.alias == alias.value) {
            return Err(at(
                bad(format!("{} names two tables in FROM", alias.value))
                    .hint(format!("give one of them another name: {} AS other", alias.value)),
                alias.span,
            ));
        }
        scope.inputs.push(Input {
            alias: alias.value.clone(),
            kind,
            relation: None,
        });
        Ok(())
    }
}

/// The side of a join whose rows are returned even without a match.
#[derive(Clone, Copy)]
enum OuterSide {
    None,
    Left,
    Right,
    Full,
}

/// The name of a function that FROM accepts.
fn series_name(name: &ObjectName) -> Option<&'static str> {
    let name = name.to_string();
    [SERIES, RANGE]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(&name))
}

/// What happens to rows whose list is empty, in a join with `unnest`.
fn rows_without_items(operator: &JoinOperator) -> Result<RowsWithoutItems, Problem> {
    let is_true = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::None => true,
        JoinConstraint::On(Expr::Value(value)) => value.value == Literal::Boolean(true),
        _ => false,
    };
    match operator {
        JoinOperator::CrossJoin(c) | JoinOperator::Join(c) | JoinOperator::Inner(c) if is_true(c) => {
            Ok(RowsWithoutItems::Dropped)
        }
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) if is_true(c) => Ok(RowsWithoutItems::Kept),
        _ => Err(not_offered("this kind of join with unnest")
            .hint("write CROSS JOIN unnest(list), or LEFT JOIN unnest(list) ON TRUE to keep rows without items")),
    }
}
