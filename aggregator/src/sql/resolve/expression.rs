//! Resolves expressions: names become columns, and special SQL syntax becomes function calls. Types are not
//! considered here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{self, BinaryOperator as Op, Expr, Value as Literal, ValueWithSpan},
    tokenizer::Span,
};
use proto::{Code, Problem};

use super::{
    function::special_call,
    operator::{balanced, matched_pattern, nested, operands, rewrite_binary, rewrite_unary, truth},
    problem::{at, bad, not_offered, shortened},
    resolver::Resolver,
    scope::{SpelledName, steps},
    value::{Value, call, literal, text, text_literal},
};
use crate::{sql::parsed_statement::given_parameters, typing};

/// Branches of one CASE.
const BRANCHES_MAX: usize = 1_000;

/// The result of rewriting one node of an expression.
pub(super) enum Rewritten {
    /// A new node whose children are still to be rewritten.
    Open(Expr),
    /// A resolved expression.
    Done(Expr),
}

impl Resolver<'_> {
    pub(crate) fn expression(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let value = self.value(expr)?;
        Ok(self.lower(value))
    }

    /// Resolves a condition on rows: WHERE, HAVING, ON.
    pub(crate) fn filter(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let outer = std::mem::replace(&mut self.in_filter, true);
        let conjuncts = operands(expr, &Op::And);
        let resolved = conjuncts
            .into_iter()
            .map(|part| self.conjunct(part))
            .collect::<Result<Vec<_>, _>>();
        self.in_filter = outer;
        balanced(resolved?, &Op::And).ok_or_else(|| bad("a condition is missing"))
    }

    /// Resolves one of the conditions that must all be true. Here false and NULL mean the same, so IN and `= ANY` with
    /// a subquery need no three-valued logic.
    fn conjunct(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        match expr {
            Expr::Nested(inner) => self.conjunct(inner),
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => self.in_subquery(expr, subquery, *negated),
            Expr::AnyOp {
                left,
                compare_op: Op::Eq,
                right,
                ..
            } if matches!(**right, Expr::Subquery(_)) => match &**right {
                Expr::Subquery(query) => self.in_subquery(left, query, false),
                _ => self.expression(expr),
            },
            other => self.expression(&truth(other.clone())),
        }
    }

    /// Resolves an expression to a value, to which steps can be added if it is a path.
    pub(crate) fn value(&mut self, expr: &Expr) -> Result<Value, Problem> {
        match expr {
            Expr::Identifier(ident) => self.identifier(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(idents) => self.identifier(idents),
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Expr::Nested(inner) => match self.value(inner)? {
                Value::Expr(expr) => Ok(Value::Expr(nested(expr))),
                path => Ok(path),
            },
            Expr::BinaryOp {
                left,
                op: op @ (Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow),
                right,
            } => self.arrow(left, op, right),
            other => self.rewrite(other).map(Value::Expr),
        }
    }

    fn identifier(&mut self, idents: &[ast::Ident]) -> Result<Value, Problem> {
        self.count_expression()?;
        let span = idents.first().map_or(Span::empty(), |ident| ident.span);
        self.resolve_name(&SpelledName {
            steps: steps(idents),
            span,
        })
    }

    /// Rewrites an expression from the outside in.
    fn rewrite(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let mut rewritten = expr.clone();
        let mut failed = None;
        let _ = front::rewrite(&mut rewritten, &mut |node| match self.enter(node) {
            Ok(done) => ControlFlow::Continue(done),
            Err(problem) => {
                failed = Some(problem);
                ControlFlow::Break(())
            }
        });
        failed.map_or(Ok(rewritten), Err)
    }

    /// Rewrites a node before its children are visited. Returns the resolved expression if the node is done.
    fn enter(&mut self, node: &mut Expr) -> Result<Option<Expr>, Problem> {
        self.count_expression()?;
        let taken = std::mem::replace(node, literal(Literal::Null));
        match self.rewrite_node(taken)? {
            Rewritten::Open(next) => {
                *node = next;
                Ok(None)
            }
            Rewritten::Done(expr) => Ok(Some(expr)),
        }
    }

    fn rewrite_node(&mut self, node: Expr) -> Result<Rewritten, Problem> {
        match node {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::CompoundFieldAccess { .. }
            | Expr::BinaryOp {
                op: Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow,
                ..
            } => {
                let value = self.value(&node)?;
                Ok(Rewritten::Done(self.lower(value)))
            }
            Expr::Value(_) if let Some(items) = self.list_parameter(&node)? => {
                let list = ast::Array {
                    elem: items,
                    named: true,
                };
                Ok(Rewritten::Open(Expr::Array(list)))
            }
            Expr::Value(value) => self.literal(&value).map(Rewritten::Done),
            Expr::InList { expr, list, negated } => {
                let list = self.with_list_parameters(list)?;
                Ok(in_list(expr, list, negated))
            }
            Expr::BinaryOp { .. } => {
                if let Some(pattern) = matched_pattern(&node) {
                    self.check_pattern(pattern)?;
                }
                rewrite_binary(node).map(Rewritten::Open)
            }
            Expr::UnaryOp { op, expr } => rewrite_unary(op, expr).map(Rewritten::Open),
            Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => Err(not_offered("LIKE ANY")),
            Expr::SimilarTo {
                negated,
                expr,
                pattern,
                escape_char,
            } => self
                .similar_to(negated, expr, &pattern, escape_char.is_some())
                .map(Rewritten::Open),
            Expr::RLike {
                negated, expr, pattern, ..
            } => {
                let op = if negated { Op::PGRegexNotMatch } else { Op::PGRegexMatch };
                let (left, right) = (expr, pattern);
                self.rewrite_node(Expr::BinaryOp { left, op, right })
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => self
                .in_subquery_anywhere(&expr, &subquery, negated)
                .map(Rewritten::Done),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.any(*left, compare_op, *right),
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => self.all(&left, &compare_op, &right).map(Rewritten::Done),
            Expr::Exists { subquery, negated } => self.exists(&subquery, negated).map(Rewritten::Done),
            Expr::Subquery(query) => self.scalar_subquery(&query).map(Rewritten::Done),
            Expr::Cast {
                kind,
                expr,
                data_type,
                array: false,
                format: None,
            } => self.cast(kind, &expr, data_type).map(Rewritten::Done),
            Expr::TypedString(typed) => typed_string(typed).map(Rewritten::Done),
            Expr::Interval(interval) => interval_literal(interval).map(Rewritten::Done),
            Expr::Function(function) => self.function(function),
            Expr::Case { .. } => case_with_conditions(node).map(Rewritten::Open),
            Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_) => Ok(Rewritten::Open(test_of_condition(node))),
            Expr::Nested(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::GroupingSets(_)
            | Expr::Cube(_)
            | Expr::Rollup(_) => Ok(Rewritten::Open(node)),
            other => special_call(self.with_zoned_parameter(other)).map(Rewritten::Open),
        }
    }

    /// Checks a literal or parameter. A quoted text of the statement may become a parameter.
    pub(super) fn literal(&mut self, value: &ValueWithSpan) -> Result<Expr, Problem> {
        if let Some(number) = self.parameter_for(value) {
            return Ok(Expr::Value(Literal::Placeholder(format!("${number}")).into()));
        }
        match &value.value {
            Literal::Number(..) | Literal::Boolean(_) | Literal::Null | Literal::HexStringLiteral(_) => {}
            Literal::Placeholder(name) => self.check_parameter(name).map_err(|problem| at(problem, value.span))?,
            Literal::SingleQuotedString(_)
            | Literal::EscapedStringLiteral(_)
            | Literal::UnicodeStringLiteral(_)
            | Literal::DollarQuotedString(_) => {}
            other => return Err(at(not_offered(format!("the literal {other}")), value.span)),
        }
        // The planner knows fewer notations for strings than the parser.
        let expr = Expr::Value(value.clone());
        Ok(text_literal(&expr).map(text).unwrap_or(expr))
    }

    /// The number of the parameter that a quoted text becomes. Places in a definition are not those of the statement.
    fn parameter_for(&self, value: &ValueWithSpan) -> Option<usize> {
        if !matches!(value.value, Literal::SingleQuotedString(_)) || !self.expanding.is_empty() {
            return None;
        }
        let index = self.quoted.iter().position(|start| *start == value.span.start)?;
        Some(self.parameters.len() + index + 1)
    }

    fn check_parameter(&self, name: &str) -> Result<(), Problem> {
        let given = self.parameters.len();
        let index: Option<usize> = name.strip_prefix('$').and_then(|n| n.parse().ok());
        let index = index.ok_or_else(|| bad(format!("{name} is not a parameter")).hint("write $1, $2, …"))?;
        if index == 0 || index > given {
            return Err(bad(format!("parameter {name} has no value")).hint(given_parameters(given)));
        }
        Ok(())
    }

    pub(super) fn cast(&mut self, kind: ast::CastKind, expr: &Expr, data_type: ast::DataType) -> Result<Expr, Problem> {
        check_type(&data_type)?;
        // The planner names a cast after its operand only, so two casts of one column would have the same name.
        let is_lenient = matches!(kind, ast::CastKind::TryCast | ast::CastKind::SafeCast);
        let type_name = text(&format!("{}{data_type}", if is_lenient { "TRY " } else { "" }));
        let expr = Box::new(self.expression(expr)?);
        let cast = Expr::Cast {
            kind,
            expr,
            data_type,
            array: false,
            format: None,
        };
        Ok(call("cast", vec![cast, type_name]))
    }
}

/// Whether a value is in a list, or not in it. Nothing is in an empty list, which only a parameter can be.
pub(super) fn in_list(expr: Box<Expr>, list: Vec<Expr>, negated: bool) -> Rewritten {
    match list.is_empty() {
        true => Rewritten::Done(Expr::Value(Literal::Boolean(negated).into())),
        false => Rewritten::Open(Expr::InList { expr, list, negated }),
    }
}

/// A literal with a type, such as `TIMESTAMP '2026-01-31'`.
fn typed_string(typed: ast::TypedString) -> Result<Expr, Problem> {
    check_type(&typed.data_type)?;
    if let (Some(arrow), Some(spelled)) = (
        typing::type_of(&typed.data_type),
        text_literal(&Expr::Value(typed.value.clone())),
    ) && arrow.is_temporal()
        && matches!(
            arrow,
            datafusion::arrow::datatypes::DataType::Timestamp(..) | datafusion::arrow::datatypes::DataType::Date32
        )
        && plan::value::time_of_text(spelled).is_none()
    {
        let hint = "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z";
        return Err(at(
            bad(format!("'{spelled}' is not a point in time")).hint(hint),
            typed.value.span,
        ));
    }
    Ok(Expr::TypedString(typed))
}

fn interval_literal(interval: ast::Interval) -> Result<Expr, Problem> {
    match &*interval.value {
        // The planner reads texts only.
        Expr::Value(value) if let (Literal::Number(count, _), Some(unit)) = (&value.value, &interval.leading_field) => {
            let spelled = text(&format!("{count} {unit}"));
            Ok(Expr::Interval(ast::Interval {
                value: Box::new(spelled),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }))
        }
        Expr::Value(_) => Ok(Expr::Interval(interval)),
        computed => Err(
            not_offered(format!("an interval of {}", shortened(&computed.to_string())))
                .hint("write n * INTERVAL '1 day'"),
        ),
    }
}

/// Makes conditions of the WHENs of a CASE without an operand.
fn case_with_conditions(mut case: Expr) -> Result<Expr, Problem> {
    if let Expr::Case {
        operand, conditions, ..
    } = &mut case
    {
        if conditions.len() > BRANCHES_MAX {
            let detail = format!("a CASE has {} branches: the limit is {BRANCHES_MAX}", conditions.len());
            return Err(Problem::new(Code::TooComplex, detail).hint("push the pairs as documents and join with them"));
        }
        if operand.is_none() {
            for when in conditions {
                when.condition = truth(std::mem::replace(&mut when.condition, literal(Literal::Null)));
            }
        }
    }
    Ok(case)
}

/// Makes a condition of the operand of IS [NOT] TRUE, FALSE or UNKNOWN.
fn test_of_condition(test: Expr) -> Expr {
    match test {
        Expr::IsTrue(e) => Expr::IsTrue(Box::new(truth(*e))),
        Expr::IsNotTrue(e) => Expr::IsNotTrue(Box::new(truth(*e))),
        Expr::IsFalse(e) => Expr::IsFalse(Box::new(truth(*e))),
        Expr::IsNotFalse(e) => Expr::IsNotFalse(Box::new(truth(*e))),
        Expr::IsUnknown(e) => Expr::IsUnknown(Box::new(truth(*e))),
        Expr::IsNotUnknown(e) => Expr::IsNotUnknown(Box::new(truth(*e))),
        other => other,
    }
}

fn check_type(data_type: &ast::DataType) -> Result<(), Problem> {
    match typing::type_of(data_type) {
        Some(_) => Ok(()),
        None => Err(not_offered(format!("the type {data_type}"))
            .hint("use BOOLEAN, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, DATE, TIME, INTERVAL or JSON")),
    }
}
