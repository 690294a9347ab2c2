//! FROM: collections, system tables, views, WITH queries, sub-queries, and how they are joined.

use std::{ops::ControlFlow, rc::Rc};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, WildcardAdditionalOptions,
};
use front::{Node, Root, walk};
use plan::path::Step;
use proto::{Code, CollectionName, Problem, catalog::DefinitionId};

use super::{
    Resolver, TABLES_MAX, at, bad,
    name::{Input, Merged, OutColumn, Rows, Scope, Spelled, Unnested},
    not_offered,
    query::{derived, rename},
    value::{Value, call, quoted},
};
use crate::sql::{Table, TableUse, reads::no_such_table, statement};

/// A WITH query in sight.
#[derive(Debug, Clone)]
pub struct With {
    /// What the statement calls it.
    pub name: String,
    /// What the resolved query calls it: no table of ours can have this name.
    pub internal: String,
    /// What it gives.
    pub columns: Vec<OutColumn>,
    /// How many relations it reads.
    pub relations: usize,
}

impl Resolver<'_> {
    /// Opens a scope with the inputs of a FROM clause. The caller closes it.
    pub fn from(&mut self, from: &[TableWithJoins]) -> Result<Vec<TableWithJoins>, Problem> {
        self.scopes.push(Scope::default());
        let mut resolved = Vec::with_capacity(from.len());
        for item in from {
            // An unnested list is no relation of its own: it changes the one that has it.
            match &item.relation {
                TableFactor::UNNEST { .. } if self.unnest(&item.relation, from)? && item.joins.is_empty() => {}
                _ => resolved.push(self.joined(item, from)?),
            }
        }
        let unnested = self
            .scopes
            .last_mut()
            .map(|scope| std::mem::take(&mut scope.unnested))
            .unwrap_or_default();
        for unnested in &unnested {
            if !resolved.iter_mut().any(|item| multiplied(item, unnested)) {
                return Err(
                    not_offered(format!("unnest of a list of {}", unnested.input)).hint("unnest it in a sub-query")
                );
            }
        }
        Ok(resolved)
    }

    fn joined(&mut self, item: &TableWithJoins, from: &[TableWithJoins]) -> Result<TableWithJoins, Problem> {
        let relation = self.relation(&item.relation)?;
        let mut joins = Vec::with_capacity(item.joins.len());
        for join in &item.joins {
            let crossed = matches!(join.join_operator, JoinOperator::CrossJoin(JoinConstraint::None));
            match &join.relation {
                TableFactor::UNNEST { .. } if crossed && self.unnest(&join.relation, from)? => {}
                _ => joins.push(self.join(join)?),
            }
        }
        Ok(TableWithJoins { relation, joins })
    }

    fn join(&mut self, join: &Join) -> Result<Join, Problem> {
        let before = self.scopes.last().map_or(0, |scope| scope.inputs.len());
        let relation = self.relation(&join.relation)?;
        let mut on = |constraint: &JoinConstraint, kind: Outer| self.constraint(constraint, before, kind);
        let join_operator = match &join.join_operator {
            JoinOperator::Join(c) => JoinOperator::Inner(on(c, Outer::None)?),
            JoinOperator::Inner(c) => JoinOperator::Inner(on(c, Outer::None)?),
            JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => JoinOperator::LeftOuter(on(c, Outer::Left)?),
            JoinOperator::Right(c) | JoinOperator::RightOuter(c) => JoinOperator::RightOuter(on(c, Outer::Right)?),
            JoinOperator::FullOuter(c) => JoinOperator::FullOuter(on(c, Outer::Full)?),
            JoinOperator::CrossJoin(JoinConstraint::None) => JoinOperator::CrossJoin(JoinConstraint::None),
            JoinOperator::LeftSemi(c) | JoinOperator::Semi(c) => JoinOperator::LeftSemi(on(c, Outer::Left)?),
            JoinOperator::LeftAnti(c) | JoinOperator::Anti(c) => JoinOperator::LeftAnti(on(c, Outer::Left)?),
            _ => return Err(not_offered("this kind of join").hint("there are JOIN, LEFT, RIGHT, FULL and CROSS JOIN")),
        };
        Ok(Join {
            relation,
            global: false,
            join_operator,
        })
    }

    fn constraint(
        &mut self,
        constraint: &JoinConstraint,
        before: usize,
        outer: Outer,
    ) -> Result<JoinConstraint, Problem> {
        match constraint {
            JoinConstraint::On(condition) => Ok(JoinConstraint::On(self.filter(condition)?)),
            JoinConstraint::Using(names) => self.using(names, before, outer),
            JoinConstraint::Natural => {
                Err(not_offered("NATURAL JOIN").hint("documents have no fixed columns: write USING (…) or ON …"))
            }
            JoinConstraint::None => Err(bad("a join without ON").hint("write ON …, USING (…), or CROSS JOIN")),
        }
    }

    /// `USING (a, b)`: an equality of both sides, and one column for both.
    fn using(&mut self, names: &[ObjectName], before: usize, outer: Outer) -> Result<JoinConstraint, Problem> {
        let inputs = self.scopes.last().map(|scope| scope.inputs.clone()).unwrap_or_default();
        let (left, right) = inputs.split_at(before.min(inputs.len()));
        let mut condition: Option<Expr> = None;
        for name in names {
            let name = super::select::last_part(name).ok_or_else(|| bad("USING takes names"))?;
            let l = self.side_of_using(&name, left)?;
            let r = self.side_of_using(&name, right)?;
            let (le, re) = (self.written(l.1.clone()), self.written(r.1.clone()));
            let merged = match outer {
                Outer::None | Outer::Left => l.1,
                Outer::Right => r.1,
                Outer::Full => Value::Expr(call("coalesce", vec![le.clone(), re.clone()])),
            };
            if let Some(scope) = self.scopes.last_mut() {
                scope.merged.retain(|m| m.name != name);
                scope.merged.push(Merged {
                    name: name.clone(),
                    inputs: vec![l.0, r.0],
                    value: merged,
                });
            }
            let equal = Expr::BinaryOp {
                left: Box::new(le),
                op: BinaryOperator::Eq,
                right: Box::new(re),
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
            .ok_or_else(|| bad("USING () names nothing"))
    }

    /// One side's column of USING: the input's alias and the value.
    fn side_of_using(&mut self, name: &str, inputs: &[Input]) -> Result<(String, Value), Problem> {
        let span = datafusion::sql::sqlparser::tokenizer::Span::empty();
        let spelled = Spelled {
            steps: vec![Step::Key(name.into())],
            span,
        };
        // Only this side is in sight.
        self.scopes.push(Scope {
            inputs: inputs.to_vec(),
            closed: true,
            ..Scope::default()
        });
        let value = self.name(&spelled);
        self.scopes.pop();
        let value = value?;
        let shown = self.written(value.clone());
        let alias = match &shown {
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
        self.count()?;
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
                name, args: Some(_), ..
            } => Err(not_offered(format!("the table function {name}"))
                .hint("tables are collections, views and the tables of rachis")),
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let alias = alias
                    .as_ref()
                    .ok_or_else(|| bad("a sub-query in FROM needs a name").hint("write (SELECT …) AS name"))?;
                // Its neighbours are out of its sight, unless it is lateral.
                let hidden = (!lateral).then(|| self.scopes.last_mut().map(std::mem::take)).flatten();
                let resolved = self.query(subquery);
                if let (Some(hidden), Some(scope)) = (hidden, self.scopes.last_mut()) {
                    *scope = hidden;
                }
                let (query, columns) = resolved?;
                let names: Vec<String> = alias.columns.iter().map(|c| c.name.value.clone()).collect();
                let columns = rename(columns, &names, &alias.name.value)?;
                self.input(&alias.name, Rows::Columns(columns.clone()))?;
                Ok(
                    match derived(
                        query,
                        &alias.name.value,
                        &columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>(),
                    ) {
                        TableFactor::Derived {
                            subquery,
                            alias,
                            sample,
                            ..
                        } => TableFactor::Derived {
                            lateral: *lateral,
                            subquery,
                            alias,
                            sample,
                        },
                        other => other,
                    },
                )
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => Ok(TableFactor::NestedJoin {
                table_with_joins: Box::new(self.joined(table_with_joins, std::slice::from_ref(table_with_joins))?),
                alias: None,
            }),
            TableFactor::NestedJoin { .. } => Err(not_offered("an alias for a join in parentheses")),
            TableFactor::Function { name, .. } => Err(not_offered(format!("the table function {name}"))),
            other => Err(not_offered(super::expression::shortened(&other.to_string()))
                .hint("FROM takes collections, views, sub-queries and the tables of rachis")),
        }
    }

    /// `unnest(list) AS item` in FROM, where the list is of an input before it. False where it is a list of no input.
    fn unnest(&mut self, relation: &TableFactor, from: &[TableWithJoins]) -> Result<bool, Problem> {
        let TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        } = relation
        else {
            return Err(not_offered("unnest with a number for each element"));
        };
        let [list] = array_exprs.as_slice() else {
            return Err(not_offered("unnest of several lists"));
        };
        let outer = from.iter().flat_map(|item| &item.joins).any(|join| {
            !matches!(
                join.join_operator,
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
            )
        });
        if outer {
            return Err(not_offered("unnest beside an outer join").hint("unnest the list in a sub-query"));
        }
        let list = call("items", vec![self.expression(list)?]);
        let inputs = inputs_of(&list);
        let default = Ident::new("unnest");
        let name = alias.as_ref().map_or(&default, |alias| &alias.name);
        let column_name = alias
            .as_ref()
            .and_then(|alias| alias.columns.first())
            .map_or(name.value.clone(), |column| column.name.value.clone());
        let here = |input: &String| {
            self.scopes
                .last()
                .is_some_and(|scope| scope.inputs.iter().any(|i| i.alias == *input))
        };
        let input = match inputs.as_slice() {
            [one] if here(one) => one.clone(),
            [] => return Err(not_offered("unnest of a list that is of no input").hint("write VALUES (…), (…)")),
            _ => return Err(not_offered("unnest of a list of several inputs").hint("unnest it in a sub-query")),
        };
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(false);
        };
        let hidden = format!("unnest_{}", scope.unnested.len());
        let spelled = super::value::column(&input, &hidden);
        scope.unnested.push(Unnested {
            input,
            list,
            column: hidden,
        });
        self.input(
            name,
            Rows::Columns(vec![OutColumn {
                name: column_name,
                origin: None,
                expr: Some(spelled),
            }]),
        )?;
        Ok(true)
    }

    /// Adds an input to the innermost scope.
    fn input(&mut self, alias: &Ident, rows: Rows) -> Result<(), Problem> {
        let Some(scope) = self.scopes.last_mut() else {
            return Err(bad("FROM is missing"));
        };
        if scope.inputs.iter().any(|input| input.alias == alias.value) {
            return Err(at(
                bad(format!("{} stands for two inputs", alias.value))
                    .hint(format!("give one another name: {} AS other", alias.value)),
                alias.span,
            ));
        }
        scope.inputs.push(Input {
            alias: alias.value.clone(),
            rows,
        });
        Ok(())
    }

    /// A table by its name.
    fn table(&mut self, name: &ObjectName, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        let parts: Vec<Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        match parts.as_slice() {
            [one] => {
                if let Some(with) = self
                    .with
                    .iter()
                    .rev()
                    .find(|w| w.name == one.value)
                    .or_else(|| self.with.iter().rev().find(|w| w.name.eq_ignore_ascii_case(&one.value)))
                    .cloned()
                {
                    self.count_relations(with.relations)?;
                    return self.fixed(&with.internal, with.columns, one, alias);
                }
                self.count_relations(1)?;
                self.named(one, alias)
            }
            [schema, one] => {
                let (schema_name, table) = (schema.value.to_lowercase(), one.value.to_lowercase());
                let columns = self.world.system_table(&schema_name, &table).ok_or_else(|| {
                    let hint = "SHOW TABLES lists what there is; a collection has no schema before it";
                    at(
                        Problem::new(Code::NotFound, format!("there is no table {schema_name}.{table}")).hint(hint),
                        schema.span,
                    )
                })?;
                let columns = columns.into_iter().map(|(name, _)| OutColumn::new(name)).collect();
                let internal = self.base_table(Table::System {
                    schema: schema_name,
                    name: table,
                })?;
                self.fixed(&internal, columns, one, alias)
            }
            _ => Err(Problem::new(Code::NotFound, format!("there is no table {name}"))),
        }
    }

    /// A collection or a view, as written or in lower case.
    fn named(&mut self, name: &Ident, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        let catalog = self.catalog;
        for spelled in [name.value.clone(), name.value.to_lowercase()] {
            if catalog.view(&spelled).is_some() {
                return self.view_named(&spelled, name, alias);
            }
            if let Ok(collection) = spelled.parse::<CollectionName>()
                && catalog.collections.contains_key(&collection)
            {
                return self.collection(&collection, name, alias);
            }
        }
        Err(at(no_such_table(&name.value, catalog), name.span))
    }

    fn collection(
        &mut self,
        collection: &CollectionName,
        name: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            return Err(not_offered("a list of column names for a collection").hint("documents have no fixed columns"));
        }
        self.reads.insert(collection.clone());
        let internal = self.base_table(Table::Collection {
            collection: collection.clone(),
            columns: vec![],
        })?;
        let names = self.names(collection);
        let alias = alias.map_or(name, |alias| &alias.name);
        self.input(
            alias,
            Rows::Documents {
                table: self.tables.len() - 1,
                names: Rc::clone(&names),
            },
        )?;
        Ok(table_factor(&internal, &alias.value))
    }

    fn view_named(&mut self, view: &str, name: &Ident, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        let id = DefinitionId::view(view);
        let catalog = self.catalog;
        let text = &catalog
            .view(view)
            .ok_or_else(|| bad(format!("there is no {id}")))?
            .current()
            .text;
        let parsed = statement::parse_query(text, proto::limits::DEFINITION_BYTES_MAX)?;
        let (query, columns) = self.expand(&id, |resolver| resolver.closed(|resolver| resolver.query(&parsed)))?;
        let renamed: Vec<String> = alias
            .map(|a| a.columns.iter().map(|c| c.name.value.clone()).collect())
            .unwrap_or_default();
        let alias = alias.map_or(name, |alias| &alias.name);
        let columns = rename(columns, &renamed, &alias.value)?;
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        self.input(alias, Rows::Columns(columns))?;
        Ok(derived(query, &alias.value, &names))
    }

    /// A table of fixed columns.
    fn fixed(
        &mut self,
        internal: &str,
        columns: Vec<OutColumn>,
        name: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let renamed: Vec<String> = alias
            .map(|a| a.columns.iter().map(|c| c.name.value.clone()).collect())
            .unwrap_or_default();
        let alias = alias.map_or(name, |alias| &alias.name);
        if renamed.is_empty() {
            self.input(alias, Rows::Columns(columns))?;
            return Ok(table_factor(internal, &alias.value));
        }
        let columns = rename(columns, &renamed, &alias.value)?;
        let names = columns
            .iter()
            .map(|c| datafusion::sql::sqlparser::ast::TableAliasColumnDef {
                name: quoted(&c.name),
                data_type: None,
            })
            .collect();
        self.input(alias, Rows::Columns(columns))?;
        let mut factor = table_factor(internal, &alias.value);
        if let TableFactor::Table { alias: Some(alias), .. } = &mut factor {
            alias.columns = names;
        }
        Ok(factor)
    }

    /// A base table of a collection's documents; its index.
    pub fn document_table(&mut self, collection: &CollectionName) -> Result<usize, Problem> {
        self.base_table(Table::Collection {
            collection: collection.clone(),
            columns: vec![],
        })?;
        Ok(self.tables.len() - 1)
    }

    fn base_table(&mut self, table: Table) -> Result<String, Problem> {
        if self.tables.len() >= TABLES_MAX {
            return Err(
                Problem::new(Code::TooComplex, format!("over {TABLES_MAX} tables")).hint("views in views multiply")
            );
        }
        let name = format!("rachis_{}", self.tables.len());
        self.tables.push(TableUse {
            name: name.clone(),
            table,
        });
        Ok(name)
    }
}

/// The inputs that an expression is over.
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

/// Puts `(SELECT input.*, unnest(list) AS column FROM input) AS input` in the place of the input. False where it is not
/// there.
fn multiplied(item: &mut TableWithJoins, unnested: &Unnested) -> bool {
    let factors = std::iter::once(&mut item.relation).chain(item.joins.iter_mut().map(|join| &mut join.relation));
    for factor in factors {
        let alias = match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                alias.name.value.clone()
            }
            TableFactor::NestedJoin { table_with_joins, .. } => match multiplied(table_with_joins, unnested) {
                true => return true,
                false => continue,
            },
            _ => continue,
        };
        if alias != unnested.input {
            continue;
        }
        let all = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![quoted(&alias)]));
        let element = call("unnest", vec![unnested.list.clone()]);
        let element = SelectItem::ExprWithAlias {
            expr: element,
            alias: quoted(&unnested.column),
        };
        let select = Select {
            projection: vec![
                SelectItem::QualifiedWildcard(all, WildcardAdditionalOptions::default()),
                element,
            ],
            from: vec![TableWithJoins {
                relation: factor.clone(),
                joins: vec![],
            }],
            ..super::select::empty_select()
        };
        let query = Query {
            body: Box::new(SetExpr::Select(Box::new(select))),
            ..super::query::empty_query()
        };
        *factor = derived(query, &alias, &[]);
        return true;
    }
    false
}

/// Which side of a join may have no partner.
#[derive(Clone, Copy)]
enum Outer {
    None,
    Left,
    Right,
    Full,
}

fn table_factor(internal: &str, alias: &str) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![quoted(internal)]),
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
