//! Queries: WITH, set operations, ORDER BY over them, LIMIT.

use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, Parens, Query, Select,
    SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, Value as Literal, ValueWithSpan, Values, WindowSpec, WindowType, With as WithClause,
    helpers::attached_token::AttachedToken,
};
use proto::Problem;

use super::{
    Resolver, bad,
    from::With,
    name::OutColumn,
    not_offered,
    value::{call, column, number, quoted},
};

impl Resolver<'_> {
    /// A query, and the columns it gives.
    pub fn query(&mut self, query: &Query) -> Result<(Query, Vec<OutColumn>), Problem> {
        self.count()?;
        refuse_query_extras(query)?;
        let outer = self.with.len();
        let result = self.query_with(query);
        self.with.truncate(outer);
        result
    }

    fn query_with(&mut self, query: &Query) -> Result<(Query, Vec<OutColumn>), Problem> {
        let with = query.with.as_ref().map(|with| self.with_clause(with)).transpose()?;
        let order = order_expressions(query.order_by.as_ref())?;
        let (body, order_by, columns) = match &*query.body {
            SetExpr::Select(select) => {
                let (select, order, columns) = self.select(select, order)?;
                match order.is_empty() || !matches!(select.distinct, Some(Distinct::Distinct)) {
                    true => (SetExpr::Select(Box::new(select)), order, columns),
                    // What is left once is ordered by its columns.
                    false => (whole(SetExpr::Select(Box::new(select)), &columns), order, columns),
                }
            }
            other => {
                let (body, columns) = self.set_expression(other)?;
                let order = order
                    .iter()
                    .map(|o| order_by_name(o, &columns))
                    .collect::<Result<Vec<_>, _>>()?;
                (body, order, columns)
            }
        };
        let order_by = (!order_by.is_empty()).then_some(OrderBy {
            kind: OrderByKind::Expressions(order_by),
            interpolate: None,
        });
        let limit_clause = match (&query.limit_clause, &query.fetch) {
            (None, Some(fetch)) if !fetch.with_ties && !fetch.percent => {
                let limit = Some(fetch.quantity.clone().unwrap_or_else(|| number("1")));
                self.limit(&LimitClause::LimitOffset {
                    limit,
                    offset: None,
                    limit_by: vec![],
                })?
            }
            (
                Some(LimitClause::LimitOffset {
                    limit: None, offset, ..
                }),
                Some(fetch),
            ) if !fetch.with_ties && !fetch.percent => {
                let limit = Some(fetch.quantity.clone().unwrap_or_else(|| number("1")));
                self.limit(&LimitClause::LimitOffset {
                    limit,
                    offset: offset.clone(),
                    limit_by: vec![],
                })?
            }
            (_, Some(_)) => return Err(not_offered("this FETCH").hint("write LIMIT n")),
            (limit, None) => limit.as_ref().map(|limit| self.limit(limit)).transpose()?.flatten(),
        };
        Ok((
            Query {
                with,
                body: Box::new(body),
                order_by,
                limit_clause,
                ..empty_query()
            },
            columns,
        ))
    }

    fn with_clause(&mut self, with: &WithClause) -> Result<WithClause, Problem> {
        let mut tables = Vec::new();
        for cte in &with.cte_tables {
            let name = cte.alias.name.value.clone();
            let internal = format!("with_{}", self.with_count);
            self.with_count += 1;
            let renamed: Vec<String> = cte.alias.columns.iter().map(|c| c.name.value.clone()).collect();
            let before = self.relations;
            let (query, columns) = match with.recursive.then(|| recursive_parts(&cte.query)).flatten() {
                Some((start, quantifier, step)) => {
                    self.recursive(&name, &internal, &renamed, start, quantifier, step)?
                }
                None => self.query(&cte.query)?,
            };
            let columns = rename(columns, &renamed, &name)?;
            // It counts where it is named.
            let relations = std::mem::replace(&mut self.relations, before)
                .saturating_sub(before)
                .max(1);
            self.with.push(With {
                name,
                internal: internal.clone(),
                columns: columns.clone(),
                relations,
            });
            let columns = columns
                .iter()
                .map(|c| TableAliasColumnDef {
                    name: quoted(&c.name),
                    data_type: None,
                })
                .collect();
            tables.push(Cte {
                alias: TableAlias {
                    explicit: false,
                    name: quoted(&internal),
                    columns,
                    at: None,
                },
                query: Box::new(query),
                from: None,
                materialized: None,
                closing_paren_token: AttachedToken::empty(),
            });
        }
        Ok(WithClause {
            with_token: AttachedToken::empty(),
            recursive: with.recursive,
            cte_tables: tables,
        })
    }

    /// `WITH RECURSIVE name AS (start UNION [ALL] step)`: the step sees the columns of the start.
    fn recursive(
        &mut self,
        name: &str,
        internal: &str,
        renamed: &[String],
        start: &SetExpr,
        quantifier: SetQuantifier,
        step: &SetExpr,
    ) -> Result<(Query, Vec<OutColumn>), Problem> {
        let (left, columns) = self.set_expression(start)?;
        let known = rename(columns.clone(), renamed, name)?;
        self.with.push(With {
            name: name.to_owned(),
            internal: internal.to_owned(),
            columns: known,
            relations: 1,
        });
        let right = self.set_expression(step);
        self.with.pop();
        let (right, _) = right?;
        let body = SetExpr::SetOperation {
            left: Box::new(left),
            op: SetOperator::Union,
            set_quantifier: quantifier,
            right: Box::new(right),
        };
        Ok((
            Query {
                body: Box::new(body),
                ..empty_query()
            },
            columns,
        ))
    }

    /// SELECT, VALUES, (query), or two of them with a set operator.
    fn set_expression(&mut self, body: &SetExpr) -> Result<(SetExpr, Vec<OutColumn>), Problem> {
        self.count()?;
        match body {
            SetExpr::Select(select) => {
                let (select, _, columns) = self.select(select, vec![])?;
                Ok((SetExpr::Select(Box::new(select)), columns))
            }
            SetExpr::Query(query) => {
                let (query, columns) = self.query(query)?;
                Ok((SetExpr::Query(Box::new(query)), columns))
            }
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => {
                if !matches!(
                    set_quantifier,
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                ) {
                    return Err(not_offered(format!("{op} {set_quantifier}")));
                }
                let (left, columns) = self.set_expression(left)?;
                let (right, others) = self.set_expression(right)?;
                if columns.len() != others.len() {
                    return Err(bad(format!("{op} of {} and {} columns", columns.len(), others.len()))
                        .hint("both sides give the same columns"));
                }
                let columns = columns.into_iter().zip(others).map(|(l, r)| OutColumn {
                    origin: l.origin.clone().filter(|_| l.origin == r.origin),
                    ..l
                });
                let columns: Vec<OutColumn> = columns.collect();
                let op = if *op == SetOperator::Minus {
                    SetOperator::Except
                } else {
                    *op
                };
                if *set_quantifier == SetQuantifier::All && op != SetOperator::Union {
                    return Ok((counted(left, op, right, &columns), columns));
                }
                Ok((
                    SetExpr::SetOperation {
                        left: Box::new(left),
                        op,
                        set_quantifier: *set_quantifier,
                        right: Box::new(right),
                    },
                    columns,
                ))
            }
            SetExpr::Values(values) => self.values(values),
            other => Err(not_offered(super::expression::shortened(&other.to_string()))),
        }
    }

    fn values(&mut self, values: &Values) -> Result<(SetExpr, Vec<OutColumn>), Problem> {
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let content = row.iter().map(|expr| self.expression(expr)).collect::<Result<_, _>>()?;
            rows.push(Parens {
                opening_token: AttachedToken::empty(),
                content,
                closing_token: AttachedToken::empty(),
            });
        }
        let width = values.rows.first().map_or(0, |row| row.content.len());
        let columns = (1..=width)
            .map(|place| OutColumn::new(format!("column{place}")))
            .collect();
        Ok((
            SetExpr::Values(Values {
                explicit_row: false,
                value_keyword: false,
                rows,
            }),
            columns,
        ))
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<Option<LimitClause>, Problem> {
        let (limit, offset, by) = match limit {
            LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            } => (limit.clone(), offset.clone(), limit_by.len()),
            LimitClause::OffsetCommaLimit { .. } => {
                return Err(not_offered("LIMIT offset, count").hint("write LIMIT count OFFSET offset"));
            }
        };
        if by > 0 {
            return Err(not_offered("LIMIT BY"));
        }
        // Numbers and parameters only: no name means anything here.
        let mut bound = |expr: Expr| match self.closed(|resolver| resolver.expression(&expr))? {
            Expr::Value(ValueWithSpan {
                value: Literal::Placeholder(name),
                ..
            }) => self.bound_parameter(&name),
            Expr::Value(ValueWithSpan {
                value: Literal::Null, ..
            }) => Ok(None),
            Expr::Value(ValueWithSpan {
                value: Literal::Number(digits, _),
                ..
            }) if digits.parse::<u32>().is_ok() => Ok(Some(number(&digits))),
            other => {
                Err(bad(format!("{other} is no count of rows")).hint("LIMIT and OFFSET take a number or a parameter"))
            }
        };
        let limit = limit.map(&mut bound).transpose()?.flatten();
        let offset = offset.map(|o| bound(o.value)).transpose()?.flatten();
        if limit.is_none() && offset.is_none() {
            return Ok(None);
        }
        let offset = offset.map(|value| Offset {
            value,
            rows: datafusion::sql::sqlparser::ast::OffsetRows::None,
        });
        Ok(Some(LimitClause::LimitOffset {
            limit,
            offset,
            limit_by: vec![],
        }))
    }

    /// A parameter as a count of rows.
    fn bound_parameter(&self, name: &str) -> Result<Option<Expr>, Problem> {
        let index: Option<usize> = name.strip_prefix('$').and_then(|n| n.parse().ok());
        match index.and_then(|index| self.parameters.get(index.wrapping_sub(1))) {
            Some(serde_json::Value::Null) => Ok(None),
            Some(value) if value.as_u64().is_some_and(|n| u32::try_from(n).is_ok()) => {
                Ok(Some(number(&value.to_string())))
            }
            _ => Err(bad(format!("{name} is no count of rows")).hint("LIMIT and OFFSET take a number or a parameter")),
        }
    }
}

/// A query of nothing, for struct updates.
pub fn empty_query() -> Query {
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

/// `SELECT item FROM (query) AS alias`.
pub fn select_from(query: Query, alias: &str, item: Expr) -> Query {
    select_of(query, alias, vec![SelectItem::UnnamedExpr(item)], None)
}

/// `SELECT item FROM (query) AS alias WHERE condition`.
pub fn select_where(query: Query, alias: &str, item: Expr, condition: Expr) -> Query {
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
        ..super::select::empty_select()
    };
    Query {
        body: Box::new(SetExpr::Select(Box::new(select))),
        ..empty_query()
    }
}

fn items(alias: &str, columns: &[OutColumn]) -> Vec<SelectItem> {
    columns
        .iter()
        .map(|c| SelectItem::ExprWithAlias {
            expr: column(alias, &c.name),
            alias: quoted(&c.name),
        })
        .collect()
}

/// `SELECT columns FROM (body)`.
fn whole(body: SetExpr, columns: &[OutColumn]) -> SetExpr {
    let query = Query {
        body: Box::new(body),
        ..empty_query()
    };
    SetExpr::Query(Box::new(select_of(query, "whole", items("whole", columns), None)))
}

/// EXCEPT ALL and INTERSECT ALL: of equal rows each has a number, and rows with their numbers are a set.
fn counted(left: SetExpr, op: SetOperator, right: SetExpr, columns: &[OutColumn]) -> SetExpr {
    const NUMBER: &str = "\u{1}number";
    let numbered = |side: SetExpr| {
        let names: Vec<String> = (0..columns.len()).map(|place| format!("column_{place}")).collect();
        let mut row_number = call("row_number", vec![]);
        if let Expr::Function(function) = &mut row_number {
            function.over = Some(WindowType::WindowSpec(WindowSpec {
                window_name: None,
                partition_by: names.iter().map(|name| column("side", name)).collect(),
                order_by: vec![],
                window_frame: None,
            }));
        }
        let items = names.iter().zip(columns).map(|(name, c)| SelectItem::ExprWithAlias {
            expr: column("side", name),
            alias: quoted(&c.name),
        });
        let number = SelectItem::ExprWithAlias {
            expr: row_number,
            alias: quoted(NUMBER),
        };
        let from = derived(
            Query {
                body: Box::new(side),
                ..empty_query()
            },
            "side",
            &names,
        );
        let select = Select {
            projection: items.chain([number]).collect(),
            from: vec![TableWithJoins {
                relation: from,
                joins: vec![],
            }],
            ..super::select::empty_select()
        };
        Box::new(SetExpr::Select(Box::new(select)))
    };
    let set = SetExpr::SetOperation {
        left: numbered(left),
        op,
        set_quantifier: SetQuantifier::None,
        right: numbered(right),
    };
    whole(set, columns)
}

/// `(query) AS alias (columns)`.
pub fn derived(query: Query, alias: &str, columns: &[String]) -> TableFactor {
    let columns = columns
        .iter()
        .map(|name| TableAliasColumnDef {
            name: quoted(name),
            data_type: None,
        })
        .collect();
    let alias = Some(TableAlias {
        explicit: true,
        name: quoted(alias),
        columns,
        at: None,
    });
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias,
        sample: None,
    }
}

fn recursive_parts(query: &Query) -> Option<(&SetExpr, SetQuantifier, &SetExpr)> {
    match &*query.body {
        SetExpr::SetOperation {
            left,
            op: SetOperator::Union,
            set_quantifier,
            right,
        } if query.with.is_none() && query.order_by.is_none() => Some((left, *set_quantifier, right)),
        _ => None,
    }
}

/// Columns under the names that an alias gives them.
pub fn rename(mut columns: Vec<OutColumn>, names: &[String], alias: &str) -> Result<Vec<OutColumn>, Problem> {
    if names.len() > columns.len() {
        return Err(bad(format!(
            "{alias} has {} columns, {} are named",
            columns.len(),
            names.len()
        )));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    Ok(columns)
}

/// The expressions of an ORDER BY.
fn order_expressions(order: Option<&OrderBy>) -> Result<Vec<OrderByExpr>, Problem> {
    match order {
        None => Ok(vec![]),
        Some(OrderBy {
            kind: OrderByKind::Expressions(all),
            interpolate: None,
        }) if all.iter().all(|o| o.with_fill.is_none()) => Ok(all.clone()),
        Some(_) => Err(not_offered("this ORDER BY").hint("name the columns")),
    }
}

/// ORDER BY over a set operation: its columns by name or number.
fn order_by_name(order: &OrderByExpr, columns: &[OutColumn]) -> Result<OrderByExpr, Problem> {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let index = super::select::output_index(&order.expr, &names)?;
    let place = index.ok_or_else(|| {
        bad(format!("{} is no column of the whole", order.expr)).hint(format!("order by {}", names.join(", ")))
    })?;
    Ok(OrderByExpr {
        expr: number(&(place + 1).to_string()),
        options: order.options,
        with_fill: None,
    })
}

fn refuse_query_extras(query: &Query) -> Result<(), Problem> {
    let Query {
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
        ..
    } = query;
    match () {
        () if !locks.is_empty() => Err(not_offered("FOR UPDATE and FOR SHARE").hint("queries lock nothing")),
        () if for_clause.is_some() => Err(not_offered("FOR JSON and FOR XML")),
        () if settings.is_some() => Err(not_offered("SETTINGS")),
        () if format_clause.is_some() => Err(not_offered("FORMAT").hint("the Accept header picks the format")),
        () if !pipe_operators.is_empty() => Err(not_offered("|>")),
        () => Ok(()),
    }
}

/// The flavour of every SELECT that is made here.
pub const FLAVOR: SelectFlavor = SelectFlavor::Standard;
/// No GROUP BY.
pub fn no_group() -> GroupByExpr {
    GroupByExpr::Expressions(vec![], vec![])
}
