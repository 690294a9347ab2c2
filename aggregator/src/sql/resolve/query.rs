//! Queries: WITH, set operations, ORDER BY over them, LIMIT.

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, GroupByExpr, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, Parens, Query, Select, SelectFlavor, SelectItem, SetExpr,
    SetOperator, SetQuantifier, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value as Literal, ValueWithSpan, Values,
    With as WithClause, helpers::attached_token::AttachedToken,
};
use proto::Problem;

use super::{
    Resolver, bad,
    from::With,
    name::OutColumn,
    not_offered,
    value::{Ty, number, quoted},
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
                (SetExpr::Select(Box::new(select)), order, columns)
            }
            other => {
                let (body, columns) = self.set_expression(other)?;
                let order = order.iter().map(|o| order_by_name(o, &columns)).collect::<Result<Vec<_>, _>>()?;
                (body, order, columns)
            }
        };
        let order_by = (!order_by.is_empty()).then_some(OrderBy { kind: OrderByKind::Expressions(order_by), interpolate: None });
        let limit_clause = match (&query.limit_clause, &query.fetch) {
            (None, Some(fetch)) if !fetch.with_ties && !fetch.percent => {
                let limit = Some(fetch.quantity.clone().unwrap_or_else(|| number("1")));
                self.limit(&LimitClause::LimitOffset { limit, offset: None, limit_by: vec![] })?
            }
            (Some(LimitClause::LimitOffset { limit: None, offset, .. }), Some(fetch)) if !fetch.with_ties && !fetch.percent => {
                let limit = Some(fetch.quantity.clone().unwrap_or_else(|| number("1")));
                self.limit(&LimitClause::LimitOffset { limit, offset: offset.clone(), limit_by: vec![] })?
            }
            (_, Some(_)) => return Err(not_offered("this FETCH").hint("write LIMIT n")),
            (limit, None) => limit.as_ref().map(|limit| self.limit(limit)).transpose()?.flatten(),
        };
        Ok((Query { with, body: Box::new(body), order_by, limit_clause, ..empty_query() }, columns))
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
                Some((start, quantifier, step)) => self.recursive(&name, &internal, &renamed, start, quantifier, step)?,
                None => self.query(&cte.query)?,
            };
            let columns = rename(columns, &renamed, &name)?;
            // It counts where it is named.
            let relations = std::mem::replace(&mut self.relations, before).saturating_sub(before).max(1);
            self.with.push(With { name, internal: internal.clone(), columns: columns.clone(), relations });
            let columns = columns.iter().map(|c| TableAliasColumnDef { name: quoted(&c.name), data_type: None }).collect();
            tables.push(Cte {
                alias: TableAlias { explicit: false, name: quoted(&internal), columns, at: None },
                query: Box::new(query),
                from: None,
                materialized: None,
                closing_paren_token: AttachedToken::empty(),
            });
        }
        Ok(WithClause { with_token: AttachedToken::empty(), recursive: with.recursive, cte_tables: tables })
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
        self.with.push(With { name: name.to_owned(), internal: internal.to_owned(), columns: known, relations: 1 });
        let right = self.set_expression(step);
        self.with.pop();
        let (right, _) = right?;
        let body = SetExpr::SetOperation { left: Box::new(left), op: SetOperator::Union, set_quantifier: quantifier, right: Box::new(right) };
        Ok((Query { body: Box::new(body), ..empty_query() }, columns))
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
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                if !matches!(set_quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None) {
                    return Err(not_offered(format!("{op} {set_quantifier}")));
                }
                let (left, columns) = self.set_expression(left)?;
                let (right, others) = self.set_expression(right)?;
                if columns.len() != others.len() {
                    return Err(bad(format!("{op} of {} and {} columns", columns.len(), others.len())).hint("both sides give the same columns"));
                }
                let (left, right, columns) = alike(left, columns, right, others);
                let op = if *op == SetOperator::Minus { SetOperator::Except } else { *op };
                Ok((SetExpr::SetOperation { left: Box::new(left), op, set_quantifier: *set_quantifier, right: Box::new(right) }, columns))
            }
            SetExpr::Values(values) => self.values(values),
            other => Err(not_offered(super::expression::shortened(&other.to_string()))),
        }
    }

    fn values(&mut self, values: &Values) -> Result<(SetExpr, Vec<OutColumn>), Problem> {
        let mut types: Vec<Ty> = Vec::new();
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let mut resolved = Vec::with_capacity(row.len());
            for (i, expr) in row.iter().enumerate() {
                let (expr, ty) = self.expression(expr)?;
                match types.get_mut(i) {
                    None => types.push(ty),
                    Some(known) if *known == Ty::Null => *known = ty,
                    Some(known) if *known == ty || ty == Ty::Null => {}
                    Some(known) if known.is_number() && ty.is_number() => *known = Ty::Double,
                    Some(known) => *known = Ty::Other,
                }
                resolved.push(expr);
            }
            rows.push(Parens { opening_token: AttachedToken::empty(), content: resolved, closing_token: AttachedToken::empty() });
        }
        let columns = types.into_iter().enumerate().map(|(i, ty)| OutColumn::new(format!("column{}", i + 1), ty)).collect();
        Ok((SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows }), columns))
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<Option<LimitClause>, Problem> {
        let (limit, offset, by) = match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => (limit.clone(), offset.clone(), limit_by.len()),
            LimitClause::OffsetCommaLimit { .. } => return Err(not_offered("LIMIT offset, count").hint("write LIMIT count OFFSET offset")),
        };
        if by > 0 {
            return Err(not_offered("LIMIT BY"));
        }
        // Numbers and parameters only: no name means anything here.
        let mut bound = |expr: Expr| match self.closed(|resolver| resolver.expression(&expr))?.0 {
            Expr::Value(ValueWithSpan { value: Literal::Null, .. }) => Ok(None),
            Expr::Value(ValueWithSpan { value: Literal::Number(digits, _), .. }) if digits.parse::<u32>().is_ok() => Ok(Some(number(&digits))),
            other => Err(bad(format!("{other} is no count of rows")).hint("LIMIT and OFFSET take a number or a parameter")),
        };
        let limit = limit.map(&mut bound).transpose()?.flatten();
        let offset = offset.map(|o| bound(o.value)).transpose()?.flatten();
        if limit.is_none() && offset.is_none() {
            return Ok(None);
        }
        let offset = offset.map(|value| Offset { value, rows: datafusion::sql::sqlparser::ast::OffsetRows::None });
        Ok(Some(LimitClause::LimitOffset { limit, offset, limit_by: vec![] }))
    }
}

/// A query of nothing, for struct updates.
pub fn empty_query() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] })),
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
    let relation = derived(query, alias, &[]);
    let select = Select {
        projection: vec![SelectItem::UnnamedExpr(item)],
        from: vec![TableWithJoins { relation, joins: vec![] }],
        ..super::select::empty_select()
    };
    Query { body: Box::new(SetExpr::Select(Box::new(select))), ..empty_query() }
}

/// `(query) AS alias (columns)`.
pub fn derived(query: Query, alias: &str, columns: &[String]) -> TableFactor {
    let columns = columns.iter().map(|name| TableAliasColumnDef { name: quoted(name), data_type: None }).collect();
    let alias = Some(TableAlias { explicit: true, name: quoted(alias), columns, at: None });
    TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None }
}

/// Both sides of a set operation, where one has JSON and the other a plain type: that one becomes JSON too.
fn alike(left: SetExpr, columns: Vec<OutColumn>, right: SetExpr, others: Vec<OutColumn>) -> (SetExpr, SetExpr, Vec<OutColumn>) {
    let mut both = Vec::new();
    let (mut lift_left, mut lift_right) = (Vec::new(), Vec::new());
    for (l, r) in columns.iter().zip(&others) {
        let plain = |ty| matches!(ty, Ty::Bool | Ty::Int | Ty::Double | Ty::Decimal | Ty::Text);
        lift_left.push(r.ty == Ty::Json && plain(l.ty));
        lift_right.push(l.ty == Ty::Json && plain(r.ty));
        let ty = match (l.ty, r.ty) {
            (Ty::Json, _) | (_, Ty::Json) => Ty::Json,
            (l, r) if l == r || r == Ty::Null => l,
            (Ty::Null, r) => r,
            (l, r) if l.is_number() && r.is_number() => Ty::Double,
            _ => Ty::Other,
        };
        both.push(OutColumn { ty, origin: l.origin.clone().filter(|_| l.origin == r.origin), ..l.clone() });
    }
    (lift(left, &columns, &lift_left), lift(right, &others, &lift_right), both)
}

/// A side of a set operation with these columns as JSON.
fn lift(side: SetExpr, columns: &[OutColumn], lifted: &[bool]) -> SetExpr {
    if !lifted.contains(&true) {
        return side;
    }
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let items = columns.iter().zip(lifted).map(|(c, lift)| {
        let expr = super::value::column("side", &c.name);
        let expr = if *lift { super::value::call("to_json", vec![expr]) } else { expr };
        SelectItem::ExprWithAlias { expr, alias: quoted(&c.name) }
    });
    let select = Select {
        projection: items.collect(),
        from: vec![TableWithJoins { relation: derived(Query { body: Box::new(side), ..empty_query() }, "side", &names), joins: vec![] }],
        ..super::select::empty_select()
    };
    SetExpr::Select(Box::new(select))
}

fn recursive_parts(query: &Query) -> Option<(&SetExpr, SetQuantifier, &SetExpr)> {
    match &*query.body {
        SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right } if query.with.is_none() && query.order_by.is_none() => {
            Some((left, *set_quantifier, right))
        }
        _ => None,
    }
}

/// Columns under the names that an alias gives them.
pub fn rename(mut columns: Vec<OutColumn>, names: &[String], alias: &str) -> Result<Vec<OutColumn>, Problem> {
    if names.len() > columns.len() {
        return Err(bad(format!("{alias} has {} columns, {} are named", columns.len(), names.len())));
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
        Some(OrderBy { kind: OrderByKind::Expressions(all), interpolate: None }) if all.iter().all(|o| o.with_fill.is_none()) => Ok(all.clone()),
        Some(_) => Err(not_offered("this ORDER BY").hint("name the columns")),
    }
}

/// ORDER BY over a set operation: its columns by name or number.
fn order_by_name(order: &OrderByExpr, columns: &[OutColumn]) -> Result<OrderByExpr, Problem> {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let index = super::select::output_index(&order.expr, &names)?;
    let place = index.ok_or_else(|| bad(format!("{} is no column of the whole", order.expr)).hint(format!("order by {}", names.join(", "))))?;
    Ok(OrderByExpr { expr: number(&(place + 1).to_string()), options: order.options, with_fill: None })
}

fn refuse_query_extras(query: &Query) -> Result<(), Problem> {
    let Query { locks, for_clause, settings, format_clause, pipe_operators, .. } = query;
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
