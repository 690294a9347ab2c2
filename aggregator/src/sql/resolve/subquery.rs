//! Resolves subqueries in expressions: IN, ANY, ALL, EXISTS and scalar subqueries.
//!
//! In a filter they remain conditions that the planner turns into joins. Elsewhere they count rows.

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator as Op, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value as Literal,
};
use proto::{Code, Problem};

use super::{
    build::{select_from, select_where},
    expression::{Rewritten, in_list},
    operator::{binary, nested},
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::OutputColumn,
    select::{is_one_row, keeps_rows},
    value::{call, column, literal, number, quoted, text_literal},
};

/// Nesting of subqueries in expressions. The planner visits the inside of each twice, and so of nested ones 2^n times.
const SUBQUERIES_NESTED_MAX: usize = 8;

/// What [`membership`] uses more than once: the subquery three times, its left side twice.
const MEMBERSHIP_COPIES: usize = 2;
/// What a quantified comparison uses more than once: both sides twice.
const QUANTIFIED_COPIES: usize = 1;

impl Resolver<'_> {
    /// Resolves a query in an expression.
    fn subquery(&mut self, query: &ast::Query) -> Result<(ast::Query, Vec<OutputColumn>), Problem> {
        self.within_subquery(|resolver| resolver.query(query))
    }

    /// Resolves what is inside a query in an expression.
    pub(in crate::sql) fn within_subquery<T>(
        &mut self,
        resolve: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.subqueries_around += 1;
        if self.subqueries_around > SUBQUERIES_NESTED_MAX {
            let detail = format!("subqueries in expressions are nested more than {SUBQUERIES_NESTED_MAX} levels deep");
            return Err(Problem::new(Code::TooComplex, detail).hint("move some of them to FROM or WITH, and join"));
        }
        self.count_subqueries(1)?;
        let resolved = resolve(self);
        self.subqueries_around -= 1;
        resolved
    }

    /// Resolves `left op ANY (right)`.
    pub(super) fn any(&mut self, left: Expr, op: Op, right: Expr) -> Result<Rewritten, Problem> {
        if op == Op::Eq
            && let Some(items) = self.list_parameter(&right)?
        {
            return Ok(in_list(Box::new(left), items, false));
        }
        match (op, right) {
            (Op::Eq, Expr::Subquery(query)) => self.in_subquery_anywhere(&left, &query, false).map(Rewritten::Done),
            (Op::Eq, Expr::Array(array)) => Ok(Rewritten::Open(Expr::InList {
                expr: Box::new(left),
                list: array.elem,
                negated: false,
            })),
            (Op::Eq, Expr::Nested(inner)) => self.any(left, Op::Eq, *inner),
            (op, Expr::Subquery(query)) => self.quantified(&left, &op, &query, false).map(Rewritten::Done),
            (Op::Eq, list) if text_literal(&list).is_some() => {
                Err(not_offered("ANY of a text").hint("write = ANY(ARRAY['a', 'b']) or IN ('a', 'b')"))
            }
            (Op::Eq, list) => Ok(Rewritten::Open(call("array_has", vec![list, left]))),
            (op, _) => Err(not_offered(format!("{op} ANY of a list")).hint("write = ANY(list)")),
        }
    }

    /// Resolves `left op ALL (right)`.
    pub(super) fn all(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Expr, Problem> {
        if *op == Op::NotEq {
            let items = match right {
                Expr::Array(array) => Some(array.elem.clone()),
                other => self.list_parameter(other)?,
            };
            if let Some(list) = items {
                let expr = Box::new(left.clone());
                return self.expression(&Expr::InList {
                    expr,
                    list,
                    negated: true,
                });
            }
        }
        match right {
            Expr::Subquery(query) if *op == Op::NotEq => self.in_subquery_anywhere(left, query, true),
            Expr::Subquery(query) => self.quantified(left, op, query, true),
            _ => Err(not_offered("ALL of anything but a subquery, or <> ALL of a list")),
        }
    }

    /// Resolves a subquery that is used as one value.
    pub(super) fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Expr, Problem> {
        let (query, columns) = self.subquery(query)?;
        match columns.as_slice() {
            [_] => Ok(Expr::Subquery(Box::new(query))),
            _ => Err(
                bad(format!("a subquery of {} columns is used as one value", columns.len())).hint("select one column"),
            ),
        }
    }

    /// Resolves `x IN (SELECT …)` where only rows for which it is true are returned.
    pub(super) fn in_subquery(&mut self, expr: &Expr, subquery: &ast::Query, negated: bool) -> Result<Expr, Problem> {
        let begun = self.resolved();
        let left = self.expression(expr)?;
        let outermost_scope = std::mem::replace(&mut self.outermost_scope, usize::MAX);
        let (query, column) = self.one_column(subquery)?;
        let correlated = self.outermost_scope < self.scopes.len();
        self.outermost_scope = self.outermost_scope.min(outermost_scope);
        // The planner makes a join of NOT IN only if the subquery is not correlated.
        if negated && correlated {
            self.charge_copies(MEMBERSHIP_COPIES, begun)?;
        }
        Ok(match negated && correlated {
            true => membership(&left, &query, &column, &self.visible_aliases(), negated),
            false => Expr::InSubquery {
                expr: Box::new(left),
                subquery: Box::new(query),
                negated,
            },
        })
    }

    fn one_column(&mut self, subquery: &ast::Query) -> Result<(ast::Query, String), Problem> {
        let (query, mut columns) = self.subquery(subquery)?;
        match (columns.pop(), columns.len()) {
            (Some(only), 0) => Ok((query, only.name)),
            (_, others) => Err(bad(format!(
                "IN takes a subquery of one column; this one has {}",
                others + 1
            ))),
        }
    }

    /// Resolves `x IN (SELECT …)` in any expression, in three-valued logic: NULL if a NULL leaves the answer open.
    pub(super) fn in_subquery_anywhere(
        &mut self,
        expr: &Expr,
        subquery: &ast::Query,
        negated: bool,
    ) -> Result<Expr, Problem> {
        let begun = self.resolved();
        let left = self.expression(expr)?;
        let (query, column) = self.one_column(subquery)?;
        self.charge_copies(MEMBERSHIP_COPIES, begun)?;
        Ok(membership(&left, &query, &column, &self.visible_aliases(), negated))
    }

    /// The quoted aliases of all inputs in scope.
    fn visible_aliases(&self) -> Vec<String> {
        self.scopes
            .iter()
            .flat_map(|scope| &scope.inputs)
            .map(|input| quoted(&input.alias).to_string())
            .collect()
    }

    /// Resolves `x > ALL (SELECT …)` and `x < ANY (SELECT …)`, in three-valued logic: NULL if a comparison that is NULL
    /// leaves the answer open.
    fn quantified(&mut self, expr: &Expr, op: &Op, subquery: &ast::Query, all: bool) -> Result<Expr, Problem> {
        let begun = self.resolved();
        let left = self.expression(expr)?;
        let (query, name) = self.one_column(subquery)?;
        self.charge_copies(QUANTIFIED_COPIES, begun)?;
        let holds = |member: Expr| nested(binary(nested(left.clone()), op.clone(), nested(member)));
        let (in_filter, aliases) = (self.in_filter, self.visible_aliases());
        let some = |condition: &dyn Fn(Expr) -> Expr| match in_filter {
            true => Expr::Exists {
                subquery: Box::new(rows_where(query.clone(), &name, number("1"), &aliases, condition)),
                negated: false,
            },
            false => has_rows(rows_where(query.clone(), &name, count_rows(), &aliases, condition)),
        };
        let decided = match all {
            true => some(&|member| Expr::UnaryOp {
                op: ast::UnaryOperator::Not,
                expr: Box::new(holds(member)),
            }),
            false => some(&holds),
        };
        Ok(decided_or_unknown(
            decided,
            !all,
            some(&|member| Expr::IsNull(Box::new(holds(member)))),
        ))
    }

    pub(super) fn exists(&mut self, subquery: &ast::Query, negated: bool) -> Result<Expr, Problem> {
        // An aggregate over all rows returns one row, even if there are none.
        if let ast::SetExpr::Select(select) = &*subquery.body
            && subquery.limit_clause.is_none()
            && subquery.fetch.is_none()
            && is_one_row(select)
        {
            self.subquery(subquery)?;
            return Ok(literal(Literal::Boolean(!negated)));
        }
        let (query, _) = self.subquery(subquery)?;
        Ok(match self.in_filter {
            true => Expr::Exists {
                subquery: Box::new(query),
                negated,
            },
            // The planner supports EXISTS as a condition only; elsewhere the rows are counted.
            false => counted(query, negated),
        })
    }
}

/// `count(*)`.
fn count_rows() -> Expr {
    let mut count = call("count", vec![]);
    if let Expr::Function(function) = &mut count
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
    }
    count
}

/// `(counting query) > 0`.
fn has_rows(counting: ast::Query) -> Expr {
    binary(Expr::Subquery(Box::new(counting)), Op::Gt, number("0"))
}

/// Rewrites `left IN (query)` to a CASE that counts rows of the query; `name` is its only column. NULL if a NULL leaves
/// the answer open.
fn membership(left: &Expr, query: &ast::Query, name: &str, aliases: &[String], negated: bool) -> Expr {
    let some =
        |condition: &dyn Fn(Expr) -> Expr| has_rows(rows_where(query.clone(), name, count_rows(), aliases, condition));
    let equal = some(&|member| binary(nested(member), Op::Eq, nested(left.clone())));
    let any = some(&|_| literal(Literal::Boolean(true)));
    let unknown = binary(
        nested(some(&|member| Expr::IsNull(Box::new(nested(member))))),
        Op::Or,
        nested(binary(Expr::IsNull(Box::new(nested(left.clone()))), Op::And, any)),
    );
    decided_or_unknown(equal, !negated, unknown)
}

/// `CASE WHEN decided THEN value WHEN unknown THEN NULL ELSE NOT value END`.
fn decided_or_unknown(decided: Expr, value: bool, unknown: Expr) -> Expr {
    let when = |condition, result| ast::CaseWhen { condition, result };
    let boolean = |value| literal(Literal::Boolean(value));
    Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![when(decided, boolean(value)), when(unknown, literal(Literal::Null))],
        else_result: Some(Box::new(boolean(!value))),
    }
}

/// `SELECT item` from the rows of a query whose only column meets a condition.
///
/// The condition is added to a plain query itself, which may be correlated with the rows around it. Any other query is
/// wrapped, and so is one that reads a table with the alias of a table around it: there, the condition would refer to
/// the wrong table.
fn rows_where(
    mut query: ast::Query,
    name: &str,
    item: Expr,
    aliases: &[String],
    condition: &dyn Fn(Expr) -> Expr,
) -> ast::Query {
    if query.limit_clause.is_none()
        && let ast::SetExpr::Select(select) = &mut *query.body
        && keeps_rows(select)
        && !select
            .from
            .iter()
            .any(|from| aliases.iter().any(|alias| from.to_string().contains(alias)))
        && let [ast::SelectItem::ExprWithAlias { expr, .. } | ast::SelectItem::UnnamedExpr(expr)] =
            select.projection.as_slice()
    {
        let condition = condition(expr.clone());
        select.selection = Some(match select.selection.take() {
            Some(before) => binary(nested(before), Op::And, nested(condition)),
            None => condition,
        });
        select.projection = vec![ast::SelectItem::UnnamedExpr(item)];
        query.order_by = None;
        return query;
    }
    select_where(query, "member", item, condition(column("member", name)))
}

/// `(SELECT count(*) > 0 FROM …)`. A plain query, which may be correlated with the rows around it, counts its own rows;
/// any other query is wrapped.
fn counted(mut query: ast::Query, negated: bool) -> Expr {
    let some = binary(count_rows(), if negated { Op::Eq } else { Op::Gt }, number("0"));
    if query.limit_clause.is_none()
        && let ast::SetExpr::Select(select) = &mut *query.body
        && keeps_rows(select)
    {
        select.projection = vec![ast::SelectItem::UnnamedExpr(some)];
        query.order_by = None;
        return Expr::Subquery(Box::new(query));
    }
    Expr::Subquery(Box::new(select_from(query, "there", some)))
}
