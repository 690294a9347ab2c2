//! Expressions: every name in them becomes a column, and what SQL spells with words of its own becomes a call. Types
//! are not looked at here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        self, AccessExpr, BinaryOperator as Op, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
        Subscript, UnaryOperator, Value as Literal, ValueWithSpan, WindowFrameBound, WindowType,
    },
    tokenizer::Span,
};
use plan::path::Step;
use proto::{Code, Problem};

use super::{
    Resolver, at, bad,
    name::{Spelled, steps},
    not_offered,
    query::{select_from, select_where},
    value::{Value, call, column, literal, number, quoted, text, text_literal},
};
use crate::typing;

impl Resolver<'_> {
    /// Resolves an expression.
    pub fn expression(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let value = self.value(expr)?;
        Ok(self.written(value))
    }

    /// Resolves a condition on rows: WHERE, HAVING, ON.
    pub fn filter(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let around = std::mem::replace(&mut self.filtering, true);
        let conjuncts = operands(expr, &Op::And);
        let resolved = conjuncts
            .into_iter()
            .map(|part| self.conjunct(part))
            .collect::<Result<Vec<_>, _>>();
        self.filtering = around;
        balanced(resolved?, &Op::And).ok_or_else(|| bad("a condition is missing"))
    }

    /// One of the conditions that must all be true: what is not true of a sub-query may be false or NULL.
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
            other => self.condition(other),
        }
    }

    /// Resolves a condition.
    pub fn condition(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let resolved = self.expression(&truth(expr.clone()))?;
        Ok(resolved)
    }

    /// Resolves an expression that may be looked into.
    pub fn value(&mut self, expr: &Expr) -> Result<Value, Problem> {
        match expr {
            Expr::Identifier(ident) => self.counted_name(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(idents) => self.counted_name(idents),
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
            other => self.rewritten(other).map(Value::Expr),
        }
    }

    fn counted_name(&mut self, idents: &[ast::Ident]) -> Result<Value, Problem> {
        self.count()?;
        let span = idents.first().map_or(Span::empty(), |ident| ident.span);
        self.name(&Spelled {
            steps: steps(idents),
            span,
        })
    }

    fn rewritten(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let mut rewritten = expr.clone();
        let mut failed = None;
        let _ = front::rewrite(&mut rewritten, &mut |node| match self.entered(node) {
            Ok(done) => ControlFlow::Continue(done),
            Err(problem) => {
                failed = Some(problem);
                ControlFlow::Break(())
            }
        });
        failed.map_or(Ok(rewritten), Err)
    }

    /// A node before its children are met: it may become another, whose children are met, or be done with.
    fn entered(&mut self, node: &mut Expr) -> Result<Option<Expr>, Problem> {
        self.count()?;
        let taken = std::mem::replace(node, literal(Literal::Null));
        let (next, done) = self.replaced(taken)?;
        *node = next;
        Ok(done)
    }

    fn replaced(&mut self, node: Expr) -> Result<(Expr, Option<Expr>), Problem> {
        let done = |expr: Expr| Ok((literal(Literal::Null), Some(expr)));
        let open = |expr: Expr| Ok((expr, None));
        match node {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::CompoundFieldAccess { .. }
            | Expr::BinaryOp {
                op: Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow,
                ..
            } => {
                let value = self.value(&node)?;
                done(self.written(value))
            }
            Expr::Value(value) => done(self.literal(&value)?),
            Expr::BinaryOp { ref op, .. } if matches!(op, Op::And | Op::Or) => {
                let op = op.clone();
                let parts = operands(&node, &op)
                    .into_iter()
                    .map(|part| operand(truth(part.clone())))
                    .collect();
                balanced(parts, &op).map_or_else(|| Err(bad("a condition is missing")), open)
            }
            Expr::BinaryOp {
                left,
                op: Op::PGCustomBinaryOperator(name),
                right,
            } => match name.as_slice() {
                [name] if name == "is_distinct" || name == "is_not_distinct" => open(call(name, vec![*left, *right])),
                _ => Err(not_offered("OPERATOR(…)")),
            },
            Expr::BinaryOp {
                left,
                op: Op::PGExp,
                right,
            } => open(call("power", vec![*left, *right])),
            Expr::BinaryOp {
                left,
                op: Op::PGStartsWith,
                right,
            } => open(call("starts_with", vec![*left, *right])),
            Expr::BinaryOp { left, op, right } => {
                check_operator(&op)?;
                if matches!(
                    op,
                    Op::PGRegexMatch | Op::PGRegexIMatch | Op::PGRegexNotMatch | Op::PGRegexNotIMatch
                ) && let Some(pattern) = text_literal(&right)
                {
                    check_pattern(pattern)?;
                }
                open(Expr::BinaryOp { left, op, right })
            }
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => open(Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: Box::new(truth(*expr)),
            }),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } if matches!(*expr, Expr::Value(_) | Expr::Interval(_)) => open(Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            }),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => open(call("negative", vec![*expr])),
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => open(call("positive", vec![*expr])),
            Expr::UnaryOp { op, .. } => Err(not_offered(format!("the operator {op}"))),
            Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => Err(not_offered("LIKE ANY")),
            Expr::SimilarTo {
                negated,
                expr,
                pattern,
                escape_char,
            } => {
                let (Some(similar), None) = (text_literal(&pattern), escape_char) else {
                    return Err(not_offered("SIMILAR TO a pattern that is computed, or with ESCAPE")
                        .hint("write a regular expression behind ~"));
                };
                let pattern = regex_of_similar(similar);
                check_pattern(&pattern)?;
                let op = if negated { Op::PGRegexNotMatch } else { Op::PGRegexMatch };
                open(Expr::BinaryOp {
                    left: expr,
                    op,
                    right: Box::new(text(&pattern)),
                })
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => done(self.in_subquery_anywhere(&expr, &subquery, negated)?),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.any(*left, compare_op, *right),
            Expr::AllOp {
                left,
                compare_op: Op::NotEq,
                right,
            } if matches!(*right, Expr::Subquery(_)) => match *right {
                Expr::Subquery(query) => done(self.in_subquery_anywhere(&left, &query, true)?),
                other => open(other),
            },
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => match *right {
                Expr::Subquery(query) => done(self.quantified(&left, &compare_op, &query, true)?),
                _ => Err(not_offered("ALL of anything but a sub-query")),
            },
            Expr::Cast {
                kind,
                expr,
                data_type,
                array: false,
                format: None,
            } => {
                known_type(&data_type)?;
                // The planner names a cast by what is cast alone, so two casts of one column would have one name.
                let (expr, named) = (Box::new(self.expression(&expr)?), text(&data_type.to_string()));
                done(call(
                    "cast",
                    vec![
                        Expr::Cast {
                            kind,
                            expr,
                            data_type,
                            array: false,
                            format: None,
                        },
                        named,
                    ],
                ))
            }
            Expr::TypedString(typed) => {
                known_type(&typed.data_type)?;
                if let (Some(arrow), Some(spelled)) = (
                    typing::type_of(&typed.data_type),
                    text_literal(&Expr::Value(typed.value.clone())),
                ) && arrow.is_temporal()
                    && matches!(
                        arrow,
                        datafusion::arrow::datatypes::DataType::Timestamp(..)
                            | datafusion::arrow::datatypes::DataType::Date32
                    )
                    && plan::value::time_of_text(spelled).is_none()
                {
                    let hint = "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z";
                    return Err(at(
                        bad(format!("'{spelled}' is not a point in time")).hint(hint),
                        typed.value.span,
                    ));
                }
                done(Expr::TypedString(typed))
            }
            Expr::Interval(interval) if matches!(*interval.value, Expr::Value(_)) => done(Expr::Interval(interval)),
            Expr::Interval(interval) => Err(not_offered(format!(
                "an interval of {}",
                shortened(&interval.value.to_string())
            ))
            .hint("write n * INTERVAL '1 day'")),
            Expr::AtTimeZone { timestamp, time_zone } => open(call("at_time_zone", vec![*timestamp, *time_zone])),
            Expr::Extract { field, expr, .. } => {
                open(call("date_part", vec![text(&field.to_string().to_lowercase()), *expr]))
            }
            Expr::Ceil {
                expr,
                field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => open(call("ceil", vec![*expr])),
            Expr::Floor {
                expr,
                field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => open(call("floor", vec![*expr])),
            Expr::Position { expr, r#in } => open(call("strpos", vec![*r#in, *expr])),
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let from = substring_from.map_or_else(|| number("1"), |from| *from);
                open(call(
                    "substr",
                    [*expr, from]
                        .into_iter()
                        .chain(substring_for.map(|length| *length))
                        .collect(),
                ))
            }
            Expr::Trim {
                trim_where,
                trim_what,
                expr,
                trim_characters,
            } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let what = trim_what
                    .map(|what| *what)
                    .into_iter()
                    .chain(trim_characters.unwrap_or_default());
                open(call(name, [*expr].into_iter().chain(what).collect()))
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                let arguments = [*expr, *overlay_what, *overlay_from]
                    .into_iter()
                    .chain(overlay_for.map(|length| *length));
                open(call("overlay", arguments.collect()))
            }
            Expr::Case {
                case_token,
                end_token,
                operand,
                mut conditions,
                else_result,
            } => {
                if operand.is_none() {
                    for when in &mut conditions {
                        when.condition = truth(std::mem::replace(&mut when.condition, literal(Literal::Null)));
                    }
                }
                open(Expr::Case {
                    case_token,
                    end_token,
                    operand,
                    conditions,
                    else_result,
                })
            }
            Expr::Exists { subquery, negated } => done(self.exists(&subquery, negated)?),
            Expr::Subquery(query) => {
                let (query, columns) = self.query(&query)?;
                match columns.as_slice() {
                    [_] => done(Expr::Subquery(Box::new(query))),
                    _ => Err(bad(format!(
                        "a sub-query of {} columns stands where one value is wanted",
                        columns.len()
                    ))),
                }
            }
            Expr::Function(function) => self.function(function),
            Expr::Array(array) => open(call("make_array", array.elem)),
            Expr::Tuple(_) => Err(not_offered("a row of values").hint("compare the values one by one")),
            Expr::IsTrue(e) => open(Expr::IsTrue(Box::new(truth(*e)))),
            Expr::IsNotTrue(e) => open(Expr::IsNotTrue(Box::new(truth(*e)))),
            Expr::IsFalse(e) => open(Expr::IsFalse(Box::new(truth(*e)))),
            Expr::IsNotFalse(e) => open(Expr::IsNotFalse(Box::new(truth(*e)))),
            Expr::IsUnknown(e) => open(Expr::IsUnknown(Box::new(truth(*e)))),
            Expr::IsNotUnknown(e) => open(Expr::IsNotUnknown(Box::new(truth(*e)))),
            other @ (Expr::Nested(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::GroupingSets(_)
            | Expr::Cube(_)
            | Expr::Rollup(_)) => open(other),
            other => Err(not_offered(format!("the expression {}", shortened(&other.to_string())))),
        }
    }

    fn any(&mut self, left: Expr, op: Op, right: Expr) -> Result<(Expr, Option<Expr>), Problem> {
        let list = |left, array: ast::Array| Expr::InList {
            expr: Box::new(left),
            list: array.elem,
            negated: false,
        };
        match (op, right) {
            (Op::Eq, Expr::Subquery(query)) => Ok((
                literal(Literal::Null),
                Some(self.in_subquery_anywhere(&left, &query, false)?),
            )),
            (Op::Eq, Expr::Array(array)) => Ok((list(left, array), None)),
            (Op::Eq, Expr::Nested(inner)) => self.any(left, Op::Eq, *inner),
            (compare_op, Expr::Subquery(query)) => Ok((
                literal(Literal::Null),
                Some(self.quantified(&left, &compare_op, &query, false)?),
            )),
            _ => Err(not_offered("ANY of anything but a sub-query or ARRAY[…]").hint("write IN (…)")),
        }
    }

    fn literal(&mut self, value: &ValueWithSpan) -> Result<Expr, Problem> {
        match &value.value {
            Literal::Number(..) | Literal::Boolean(_) | Literal::Null | Literal::HexStringLiteral(_) => {}
            Literal::Placeholder(name) => {
                let given = self.parameters.len();
                let index: Option<usize> = name.strip_prefix('$').and_then(|n| n.parse().ok());
                let index = index.ok_or_else(|| {
                    at(
                        bad(format!("{name} is no parameter")).hint("write $1, $2, …"),
                        value.span,
                    )
                })?;
                if index == 0 || index > given {
                    return Err(at(
                        bad(format!("there is no value for {name}")).hint(format!("{given} parameters were given")),
                        value.span,
                    ));
                }
            }
            Literal::SingleQuotedString(_)
            | Literal::EscapedStringLiteral(_)
            | Literal::UnicodeStringLiteral(_)
            | Literal::DollarQuotedString(_) => {}
            other => return Err(at(not_offered(format!("the literal {other}")), value.span)),
        }
        // The planner knows fewer spellings of strings than the parser.
        let expr = Expr::Value(value.clone());
        Ok(text_literal(&expr).map(text).unwrap_or(expr))
    }

    /// `items[0].sku`, and a subscript of anything else.
    fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Value, Problem> {
        let further: Option<Vec<Step>> = chain.iter().map(access_step).collect();
        match (root, further) {
            (Expr::Identifier(_) | Expr::CompoundIdentifier(_), Some(further)) => {
                let idents = match root {
                    Expr::Identifier(ident) => std::slice::from_ref(ident),
                    Expr::CompoundIdentifier(idents) => idents,
                    _ => &[],
                };
                let span = idents.first().map_or(Span::empty(), |ident| ident.span);
                let path: Vec<Step> = steps(idents).into_iter().chain(further).collect();
                self.name(&Spelled { steps: path, span })
            }
            (_, Some(further)) => {
                let value = self.value(root)?;
                Ok(self.step(value, further))
            }
            (_, None) => {
                let root = Box::new(self.expression(root)?);
                let chain = chain
                    .iter()
                    .map(|access| self.subscript(access))
                    .collect::<Result<_, _>>()?;
                Ok(Value::Expr(Expr::CompoundFieldAccess {
                    root,
                    access_chain: chain,
                }))
            }
        }
    }

    fn subscript(&mut self, access: &AccessExpr) -> Result<AccessExpr, Problem> {
        match access {
            AccessExpr::Subscript(Subscript::Index { index }) => Ok(AccessExpr::Subscript(Subscript::Index {
                index: self.expression(index)?,
            })),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => {
                let mut bound = |e: &Option<Expr>| e.as_ref().map(|e| self.expression(e)).transpose();
                Ok(AccessExpr::Subscript(Subscript::Slice {
                    lower_bound: bound(lower_bound)?,
                    upper_bound: bound(upper_bound)?,
                    stride: bound(stride)?,
                }))
            }
            AccessExpr::Dot(_) => Err(not_offered("a name behind this expression")),
        }
    }

    /// `_doc->'a'->>'b'`, `tags->0`, `_doc#>>'{a,b}'`.
    fn arrow(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        let value = self.value(left)?;
        let key = match right {
            Expr::Value(value) => self.literal(value)?,
            other => other.clone(),
        };
        let steps = match op {
            Op::HashArrow | Op::HashLongArrow => {
                let list = text_literal(&key)
                    .ok_or_else(|| bad(format!("{op} takes a list of keys")).hint("write _doc #>> '{user,name}'"))?;
                let parts = list.trim().trim_start_matches('{').trim_end_matches('}').split(',');
                parts
                    .map(|part| part.trim().trim_matches('"'))
                    .filter(|p| !p.is_empty())
                    .map(text_step)
                    .collect()
            }
            _ => vec![arrow_step(&key).ok_or_else(|| {
                bad(format!("{right} is neither a key nor an index"))
                    .hint("write _doc->'key' or tags->0; a path is not computed from data")
            })?],
        };
        let value = self.step(value, steps);
        if matches!(op, Op::LongArrow | Op::HashLongArrow) {
            let expr = self.written(value);
            return Ok(Value::Expr(call("as_text", vec![expr])));
        }
        Ok(value)
    }

    fn function(&mut self, mut function: Function) -> Result<(Expr, Option<Expr>), Problem> {
        let name =
            function_name(&function.name).ok_or_else(|| not_offered(format!("the function {}", function.name)))?;
        if INTERNAL.contains(&name.as_str()) {
            return Ok((Expr::Function(function), None));
        }
        typing::offered(&name)?;
        if !matches!(function.parameters, FunctionArguments::None) {
            return Err(not_offered(format!("{name} with two lists of arguments")));
        }
        if name == "search" {
            return Ok((literal(Literal::Null), Some(self.search_call(&function)?)));
        }
        match &mut function.args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => {
                return Err(
                    not_offered(format!("{name} of a sub-query")).hint("put the sub-query in parentheses of its own")
                );
            }
            FunctionArguments::List(list) => {
                let alone = list.args.len() == 1;
                for arg in &list.args {
                    match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) => {}
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if name == "count" && alone => {}
                        other => return Err(not_offered(format!("the argument {other} of {name}"))),
                    }
                }
                if name == "unnest" {
                    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))] = list.args.as_mut_slice() else {
                        return Err(bad("unnest takes one list"));
                    };
                    *list = call("items", vec![std::mem::replace(list, literal(Literal::Null))]);
                }
                if matches!(
                    name.as_str(),
                    "regexp_like" | "regexp_match" | "regexp_replace" | "regexp_count" | "regexp_instr"
                ) && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))) = list.args.get(1)
                    && let Some(pattern) = text_literal(pattern)
                {
                    check_pattern(pattern)?;
                }
            }
        }
        function.name = ast::ObjectName::from(vec![quoted(&name)]);
        if let Some(filter) = function.filter.take() {
            function.filter = Some(Box::new(truth(*filter)));
        }
        match &mut function.over {
            Some(WindowType::NamedWindow(window)) => *window = quoted(&window.value.to_lowercase()),
            Some(WindowType::WindowSpec(spec)) => window_spec(spec)?,
            None => {}
        }
        Ok((Expr::Function(function), None))
    }

    /// `x IN (SELECT …)` where only the rows for which it is true go on.
    fn in_subquery(&mut self, expr: &Expr, subquery: &ast::Query, negated: bool) -> Result<Expr, Problem> {
        let left = self.expression(expr)?;
        let reached = std::mem::replace(&mut self.reached, usize::MAX);
        let (query, column) = self.one_column(subquery)?;
        let correlated = self.reached < self.scopes.len();
        self.reached = self.reached.min(reached);
        // The planner joins by NOT IN only where nothing else is compared.
        Ok(match negated && correlated {
            true => membership(&left, &query, &column, &self.aliases_around(), negated),
            false => Expr::InSubquery {
                expr: Box::new(left),
                subquery: Box::new(query),
                negated,
            },
        })
    }

    fn one_column(&mut self, subquery: &ast::Query) -> Result<(ast::Query, String), Problem> {
        let (query, mut columns) = self.query(subquery)?;
        match (columns.pop(), columns.len()) {
            (Some(only), 0) => Ok((query, only.name)),
            (_, others) => Err(bad(format!(
                "IN takes a sub-query of one column; this one has {}",
                others + 1
            ))),
        }
    }

    /// `x IN (SELECT …)` in any expression, by three-valued logic: NULL where a NULL leaves it open.
    fn in_subquery_anywhere(&mut self, expr: &Expr, subquery: &ast::Query, negated: bool) -> Result<Expr, Problem> {
        let left = self.expression(expr)?;
        let (query, column) = self.one_column(subquery)?;
        Ok(membership(&left, &query, &column, &self.aliases_around(), negated))
    }

    /// What inputs are called that an expression here may look at.
    fn aliases_around(&self) -> Vec<String> {
        self.scopes
            .iter()
            .flat_map(|scope| &scope.inputs)
            .map(|input| quoted(&input.alias).to_string())
            .collect()
    }

    /// `x > ALL (SELECT …)` and `x < ANY (SELECT …)`, by three-valued logic: NULL where a comparison that is NULL
    /// leaves it open.
    fn quantified(&mut self, expr: &Expr, op: &Op, subquery: &ast::Query, all: bool) -> Result<Expr, Problem> {
        let left = self.expression(expr)?;
        let (query, name) = self.one_column(subquery)?;
        let holds = |member: Expr| nested(binary(nested(left.clone()), op.clone(), nested(member)));
        let (filtering, around) = (self.filtering, self.aliases_around());
        let some = |condition: &dyn Fn(Expr) -> Expr| match filtering {
            true => Expr::Exists {
                subquery: Box::new(rows_where(query.clone(), &name, number("1"), &around, condition)),
                negated: false,
            },
            false => binary(
                Expr::Subquery(Box::new(rows_where(
                    query.clone(),
                    &name,
                    call_count(),
                    &around,
                    condition,
                ))),
                Op::Gt,
                number("0"),
            ),
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

    fn exists(&mut self, subquery: &ast::Query, negated: bool) -> Result<Expr, Problem> {
        // An aggregate over all rows has one row, even over none.
        if let ast::SetExpr::Select(select) = &*subquery.body
            && subquery.limit_clause.is_none()
            && subquery.fetch.is_none()
            && super::select::is_one_row(select)
        {
            self.query(subquery)?;
            return Ok(literal(Literal::Boolean(!negated)));
        }
        let (query, _) = self.query(subquery)?;
        Ok(match self.filtering {
            true => Expr::Exists {
                subquery: Box::new(query),
                negated,
            },
            // The planner knows EXISTS as a condition only; elsewhere its rows are counted.
            false => counted(query, negated),
        })
    }
}

/// Functions that the resolver itself writes down.
const INTERNAL: [&str; 13] = [
    "cast",
    "is_distinct",
    "is_not_distinct",
    "as_text",
    "truth",
    "negative",
    "positive",
    "items",
    "inside",
    "at_time_zone",
    "json_get",
    "to_json",
    "search_match",
];

/// An expression as a condition, unless it can be nothing else.
fn truth(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(inner) => nested(truth(*inner)),
        Expr::BinaryOp { left, op, right } if is_condition(&op) => Expr::BinaryOp { left, op, right },
        condition @ (Expr::UnaryOp {
            op: UnaryOperator::Not, ..
        }
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. }
        | Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::Exists { .. }) => condition,
        other => call("truth", vec![other]),
    }
}

fn is_condition(op: &Op) -> bool {
    !matches!(
        op,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::PGExp
            | Op::BitwiseAnd
            | Op::BitwiseOr
            | Op::BitwiseXor
            | Op::PGBitwiseXor
            | Op::PGBitwiseShiftLeft
            | Op::PGBitwiseShiftRight
            | Op::Arrow
            | Op::LongArrow
            | Op::HashArrow
            | Op::HashLongArrow
    )
}

fn check_operator(op: &Op) -> Result<(), Problem> {
    let known = is_condition(op) || !matches!(op, Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow);
    let refused = matches!(
        op,
        Op::Xor
            | Op::Spaceship
            | Op::MyIntegerDivide
            | Op::DuckIntegerDivide
            | Op::Custom(_)
            | Op::PGCustomBinaryOperator(_)
    ) || matches!(
        op,
        Op::AtArrow
            | Op::ArrowAt
            | Op::AtQuestion
            | Op::AtAt
            | Op::Question
            | Op::QuestionAnd
            | Op::QuestionPipe
            | Op::HashMinus
    ) || matches!(
        op,
        Op::PGOverlap | Op::Overlaps | Op::Assignment | Op::Match | Op::Regexp
    );
    match known && !refused {
        true => Ok(()),
        false => Err(not_offered(format!("the operator {op}"))
            .hint("-> and ->> reach into documents; search('…') looks into lists")),
    }
}

fn known_type(of: &ast::DataType) -> Result<(), Problem> {
    match typing::type_of(of) {
        Some(_) => Ok(()),
        None => Err(not_offered(format!("the type {of}"))
            .hint("there are BOOLEAN, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, DATE, TIME, INTERVAL and JSON")),
    }
}

/// A window's named base, and its frame.
pub fn window_spec(spec: &mut ast::WindowSpec) -> Result<(), Problem> {
    if let Some(name) = &mut spec.window_name {
        *name = quoted(&name.value.to_lowercase());
    }
    if let Some(frame) = &spec.window_frame {
        for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
            if let WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e)) = bound
                && !matches!(**e, Expr::Value(_) | Expr::Interval(_))
            {
                return Err(not_offered("a window frame that is not a literal"));
            }
        }
    }
    Ok(())
}

/// The plain name of a function.
pub fn function_name(name: &ast::ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ast::ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

/// The operands of a chain of one operator, the first first.
fn operands<'e>(expr: &'e Expr, op: &Op) -> Vec<&'e Expr> {
    let mut operands = Vec::new();
    let mut at = expr;
    while let Expr::BinaryOp { left, op: same, right } = at
        && same == op
    {
        operands.push(&**right);
        at = left;
    }
    operands.push(at);
    operands.reverse();
    operands
}

/// A chain of AND or OR, balanced: a deep one would cost every later walk its stack.
pub fn balanced(mut conditions: Vec<Expr>, op: &Op) -> Option<Expr> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut pairs = conditions.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(operand(left), op.clone(), operand(right)),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}

fn binary(left: Expr, op: Op, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// In parentheses, unless it already stands alone.
pub fn nested(expr: Expr) -> Expr {
    match expr {
        alone @ (Expr::Nested(_) | Expr::Value(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)) => alone,
        other => Expr::Nested(Box::new(other)),
    }
}

/// In parentheses where AND and OR would regroup it.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp {
            op: Op::And | Op::Or, ..
        } => Expr::Nested(Box::new(expr)),
        other => other,
    }
}

fn call_count() -> Expr {
    let mut count = call("count", vec![]);
    if let Expr::Function(function) = &mut count
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
    }
    count
}

/// Rewrites `left IN (query)` to a CASE that counts rows of the query; `name` is its only column. NULL where a NULL
/// leaves it open.
fn membership(left: &Expr, query: &ast::Query, name: &str, around: &[String], negated: bool) -> Expr {
    let some = |condition: &dyn Fn(Expr) -> Expr| {
        let rows = rows_where(query.clone(), name, call_count(), around, condition);
        binary(Expr::Subquery(Box::new(rows)), Op::Gt, number("0"))
    };
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

/// `SELECT item` over the rows of a query whose only column meets a condition; of a plain query its own rows, which may
/// look at rows around it, unless these are called alike: then the condition would look at the wrong ones.
fn rows_where(
    mut query: ast::Query,
    name: &str,
    item: Expr,
    around: &[String],
    condition: &dyn Fn(Expr) -> Expr,
) -> ast::Query {
    if query.limit_clause.is_none()
        && let ast::SetExpr::Select(select) = &mut *query.body
        && super::select::keeps_rows(select)
        && !select
            .from
            .iter()
            .any(|from| around.iter().any(|alias| from.to_string().contains(alias)))
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

/// `(SELECT count(*) > 0 FROM …)`: over the rows of a plain query itself, which may look at rows around it, else over
/// its result.
fn counted(mut query: ast::Query, negated: bool) -> Expr {
    let some = binary(call_count(), if negated { Op::Eq } else { Op::Gt }, number("0"));
    if query.limit_clause.is_none()
        && let ast::SetExpr::Select(select) = &mut *query.body
        && super::select::keeps_rows(select)
    {
        select.projection = vec![ast::SelectItem::UnnamedExpr(some)];
        query.order_by = None;
        return Expr::Subquery(Box::new(query));
    }
    Expr::Subquery(Box::new(select_from(query, "there", some)))
}

/// Refuses a regular expression that cannot be used, before anything runs.
fn check_pattern(pattern: &str) -> Result<(), Problem> {
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(bytes)) => Err(Problem::new(
            Code::TooComplex,
            format!("the regular expression takes over {bytes} bytes when it is compiled"),
        )
        .hint("repeat less: (a{1000}){1000} is a million states")),
        Err(why) => Err(bad(format!("the regular expression is not understood: {why}"))),
    }
}

/// SQL's pattern as a regular expression over the whole text: `%` and `_` are any text and any character, the rest is
/// alike.
fn regex_of_similar(pattern: &str) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                in_class = false;
                regex.push(c);
            }
            '[' if !in_class => {
                in_class = true;
                regex.push(c);
            }
            c if in_class && c != '\\' => regex.push(c),
            // A group never begins with a flag.
            '(' => regex.push_str("(?:"),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.extend(chars.next().map(|c| regex::escape(&c.to_string()))),
            '.' | '^' | '$' => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    regex + ")$"
}

fn access_step(access: &AccessExpr) -> Option<Step> {
    match access {
        AccessExpr::Dot(Expr::Identifier(ident)) => Some(Step::Key(ident.value.as_str().into())),
        AccessExpr::Dot(_) => None,
        AccessExpr::Subscript(Subscript::Index { index }) => arrow_step(index),
        AccessExpr::Subscript(Subscript::Slice { .. }) => None,
    }
}

fn arrow_step(expr: &Expr) -> Option<Step> {
    match expr {
        Expr::Value(ValueWithSpan {
            value: Literal::Number(digits, _),
            ..
        }) => digits.parse().ok().map(Step::Index),
        Expr::Nested(inner) => arrow_step(inner),
        other => text_literal(other).map(|key| Step::Key(key.into())),
    }
}

fn text_step(part: &str) -> Step {
    part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)
}

/// The beginning of a long text, for messages.
pub fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
