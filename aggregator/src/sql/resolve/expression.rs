//! Expressions: a walk that resolves names and lets every operator pick the views of its operands.

use datafusion::sql::sqlparser::ast::{self, AccessExpr, BinaryOperator as Op, Expr, Subscript, UnaryOperator, Value as Literal, ValueWithSpan};
use plan::path::Step;
use proto::{Code, Problem};

use super::{
    Resolver, at, bad,
    name::{Spelled, steps},
    not_offered,
    value::{Ty, Value, Want, call, literal, number, text, text_literal},
};

impl Resolver<'_> {
    /// Resolves an expression that is used as it is.
    pub fn expression(&mut self, expr: &Expr) -> Result<(Expr, Ty), Problem> {
        let value = self.value(expr)?;
        Ok(self.native(value))
    }

    /// Resolves an expression that is used as this.
    pub fn wanted(&mut self, expr: &Expr, want: Want) -> Result<(Expr, Ty), Problem> {
        let value = self.value(expr)?;
        Ok(self.fit(value, want))
    }

    /// Resolves a condition on rows: WHERE, HAVING, ON.
    pub fn filter(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        self.filtering = true;
        let condition = self.condition(expr);
        self.filtering = false;
        condition
    }

    /// Resolves a condition.
    pub fn condition(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        let value = self.value(expr)?;
        let value = match value.text_literal().map(str::to_lowercase).as_deref() {
            Some("true" | "t" | "yes" | "on" | "1") => Value::new(literal(Literal::Boolean(true)), Ty::Bool),
            Some("false" | "f" | "no" | "off" | "0") => Value::new(literal(Literal::Boolean(false)), Ty::Bool),
            _ => value,
        };
        Ok(self.fit(value, Want::Bool).0)
    }

    /// Resolves an expression whose use is not known yet.
    pub fn value(&mut self, expr: &Expr) -> Result<Value, Problem> {
        self.count()?;
        match expr {
            Expr::Identifier(ident) => self.name(&Spelled { steps: steps(std::slice::from_ref(ident)), span: ident.span }),
            Expr::CompoundIdentifier(idents) => {
                let span = idents.first().map_or(datafusion::sql::sqlparser::tokenizer::Span::empty(), |ident| ident.span);
                self.name(&Spelled { steps: steps(idents), span })
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Expr::Nested(inner) => Ok(match self.value(inner)? {
                Value::Expr { expr, ty } => Value::new(nested(expr), ty),
                path => path,
            }),
            Expr::Value(value) => self.literal(value),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op, expr } => self.unary(op, expr),
            Expr::IsNull(e) => Ok(boolean(Expr::IsNull(Box::new(self.expression(e)?.0)))),
            Expr::IsNotNull(e) => Ok(boolean(Expr::IsNotNull(Box::new(self.expression(e)?.0)))),
            Expr::IsTrue(e) => Ok(boolean(Expr::IsTrue(Box::new(self.condition(e)?)))),
            Expr::IsNotTrue(e) => Ok(boolean(Expr::IsNotTrue(Box::new(self.condition(e)?)))),
            Expr::IsFalse(e) => Ok(boolean(Expr::IsFalse(Box::new(self.condition(e)?)))),
            Expr::IsNotFalse(e) => Ok(boolean(Expr::IsNotFalse(Box::new(self.condition(e)?)))),
            Expr::IsUnknown(e) => Ok(boolean(Expr::IsUnknown(Box::new(self.condition(e)?)))),
            Expr::IsNotUnknown(e) => Ok(boolean(Expr::IsNotUnknown(Box::new(self.condition(e)?)))),
            Expr::IsDistinctFrom(l, r) => {
                let (l, r) = self.compared(l, r)?;
                Ok(boolean(Expr::IsDistinctFrom(Box::new(l), Box::new(r))))
            }
            Expr::IsNotDistinctFrom(l, r) => {
                let (l, r) = self.compared(l, r)?;
                Ok(boolean(Expr::IsNotDistinctFrom(Box::new(l), Box::new(r))))
            }
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let (expr, pattern) = (self.text_operand(expr)?, self.text_operand(pattern)?);
                Ok(boolean(Expr::Like { negated: *negated, any: false, expr, pattern, escape_char: escape_char.clone() }))
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                let (expr, pattern) = (self.text_operand(expr)?, self.text_operand(pattern)?);
                Ok(boolean(Expr::ILike { negated: *negated, any: false, expr, pattern, escape_char: escape_char.clone() }))
            }
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                let (left, pattern) = (self.text_operand(expr)?, self.text_operand(pattern)?);
                let (Some(similar), None) = (text_literal(&pattern), escape_char) else {
                    return Err(not_offered("SIMILAR TO a pattern that is computed, or with ESCAPE").hint("write a regular expression behind ~"));
                };
                let pattern = regex_of_similar(similar);
                check_pattern(&pattern)?;
                let op = if *negated { Op::PGRegexNotMatch } else { Op::PGRegexMatch };
                Ok(boolean(Expr::BinaryOp { left, op, right: Box::new(text(&pattern)) }))
            }
            Expr::AnyOp { left, compare_op: Op::Eq, right, .. } => match &**right {
                Expr::Subquery(query) => self.in_subquery(left, query, false),
                Expr::Array(array) => self.in_list(left, &array.elem, false),
                Expr::Nested(inner) if matches!(**inner, Expr::Array(_)) => match &**inner {
                    Expr::Array(array) => self.in_list(left, &array.elem, false),
                    _ => Err(not_offered("= ANY of that")),
                },
                _ => Err(not_offered("= ANY of anything but a sub-query or ARRAY[…]").hint("write IN (…)")),
            },
            Expr::AllOp { left, compare_op: Op::NotEq, right } => match &**right {
                Expr::Subquery(query) => self.in_subquery(left, query, true),
                _ => Err(not_offered("<> ALL of anything but a sub-query").hint("write NOT IN (…)")),
            },
            Expr::Cast { kind, expr, data_type, array: false, format: None } => self.cast(kind, expr, data_type),
            Expr::TypedString(typed) => self.typed_literal(typed),
            Expr::Interval(interval) => {
                let value = Box::new(self.expression(&interval.value)?.0);
                Ok(Value::new(Expr::Interval(ast::Interval { value, ..interval.clone() }), Ty::Interval))
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let timestamp = Box::new(self.wanted(timestamp, Want::Time)?.0);
                let time_zone = Box::new(self.wanted(time_zone, Want::Text)?.0);
                Ok(Value::new(Expr::AtTimeZone { timestamp, time_zone }, Ty::Time))
            }
            Expr::Extract { field, syntax, expr } => {
                let value = self.value(expr)?;
                let expr = Box::new(self.time_operand(value)?);
                let ty = if matches!(field, ast::DateTimeField::Epoch) { Ty::Double } else { Ty::Int };
                Ok(Value::new(Expr::Extract { field: field.clone(), syntax: syntax.clone(), expr }, ty))
            }
            Expr::Ceil { expr, field } => {
                let (expr, ty) = self.wanted(expr, Want::Number)?;
                Ok(Value::new(Expr::Ceil { expr: Box::new(expr), field: field.clone() }, ty))
            }
            Expr::Floor { expr, field } => {
                let (expr, ty) = self.wanted(expr, Want::Number)?;
                Ok(Value::new(Expr::Floor { expr: Box::new(expr), field: field.clone() }, ty))
            }
            Expr::Position { expr, r#in } => {
                let (expr, r#in) = (self.text_operand(expr)?, self.text_operand(r#in)?);
                Ok(Value::new(Expr::Position { expr, r#in }, Ty::Int))
            }
            Expr::Substring { expr, substring_from, substring_for, special, shorthand } => Ok(Value::new(
                Expr::Substring {
                    expr: self.text_operand(expr)?,
                    substring_from: self.optional(substring_from, Want::Number)?,
                    substring_for: self.optional(substring_for, Want::Number)?,
                    special: *special,
                    shorthand: *shorthand,
                },
                Ty::Text,
            )),
            Expr::Trim { trim_where, trim_what, expr, trim_characters } => Ok(Value::new(
                Expr::Trim {
                    trim_where: *trim_where,
                    trim_what: self.optional(trim_what, Want::Text)?,
                    expr: self.text_operand(expr)?,
                    trim_characters: trim_characters
                        .as_ref()
                        .map(|all| all.iter().map(|e| Ok(self.wanted(e, Want::Text)?.0)).collect::<Result<_, Problem>>())
                        .transpose()?,
                },
                Ty::Text,
            )),
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => Ok(Value::new(
                Expr::Overlay {
                    expr: self.text_operand(expr)?,
                    overlay_what: self.text_operand(overlay_what)?,
                    overlay_from: Box::new(self.wanted(overlay_from, Want::Number)?.0),
                    overlay_for: self.optional(overlay_for, Want::Number)?,
                },
                Ty::Text,
            )),
            Expr::Function(function) => self.function(function),
            Expr::Case { case_token, end_token, operand, conditions, else_result } => {
                let (case, ty) = self.case(operand.as_deref(), conditions, else_result.as_deref())?;
                let (operand, conditions, else_result) = case;
                Ok(Value::new(Expr::Case { case_token: case_token.clone(), end_token: end_token.clone(), operand, conditions, else_result }, ty))
            }
            Expr::Exists { subquery, negated } => {
                let (query, _) = self.query(subquery)?;
                Ok(boolean(match self.filtering {
                    true => Expr::Exists { subquery: Box::new(query), negated: *negated },
                    // The planner knows EXISTS as a condition only; elsewhere its rows are counted.
                    false => counted(query, *negated),
                }))
            }
            Expr::Subquery(query) => {
                let (query, columns) = self.query(query)?;
                match columns.as_slice() {
                    [column] => Ok(Value::new(Expr::Subquery(Box::new(query)), column.ty)),
                    _ => Err(bad(format!("a sub-query of {} columns stands where one value is wanted", columns.len()))),
                }
            }
            Expr::GroupingSets(sets) => Ok(Value::new(Expr::GroupingSets(self.sets(sets)?), Ty::Other)),
            Expr::Cube(sets) => Ok(Value::new(Expr::Cube(self.sets(sets)?), Ty::Other)),
            Expr::Rollup(sets) => Ok(Value::new(Expr::Rollup(self.sets(sets)?), Ty::Other)),
            Expr::Tuple(_) => Err(not_offered("a row of values").hint("compare the values one by one")),
            Expr::Array(array) => {
                let values = array.elem.iter().map(|e| self.value(e)).collect::<Result<Vec<_>, _>>()?;
                let (elem, _) = self.unified(values)?;
                Ok(Value::new(Expr::Array(ast::Array { elem, named: array.named }), Ty::Other))
            }
            other => Err(not_offered(format!("the expression {}", shortened(&other.to_string())))),
        }
    }

    fn optional(&mut self, expr: &Option<Box<Expr>>, want: Want) -> Result<Option<Box<Expr>>, Problem> {
        expr.as_ref().map(|e| Ok(Box::new(self.wanted(e, want)?.0))).transpose()
    }

    fn text_operand(&mut self, expr: &Expr) -> Result<Box<Expr>, Problem> {
        Ok(Box::new(self.wanted(expr, Want::Text)?.0))
    }

    fn sets(&mut self, sets: &[Vec<Expr>]) -> Result<Vec<Vec<Expr>>, Problem> {
        sets.iter().map(|set| set.iter().map(|e| Ok(self.expression(e)?.0)).collect()).collect()
    }

    fn literal(&mut self, value: &ValueWithSpan) -> Result<Value, Problem> {
        let ty = match &value.value {
            Literal::Number(digits, _) => number_type(digits),
            Literal::Boolean(_) => Ty::Bool,
            Literal::Null => Ty::Null,
            Literal::Placeholder(name) => return self.parameter(name).map_err(|p| at(p, value.span)),
            Literal::SingleQuotedString(_) | Literal::EscapedStringLiteral(_) | Literal::UnicodeStringLiteral(_) | Literal::DollarQuotedString(_) => {
                Ty::Text
            }
            Literal::HexStringLiteral(_) => Ty::Other,
            other => return Err(at(not_offered(format!("the literal {other}")), value.span)),
        };
        // The planner knows fewer spellings of strings than the parser.
        match (ty, text_literal(&Expr::Value(value.clone()))) {
            (Ty::Text, Some(plain)) => Ok(Value::new(text(plain), ty)),
            _ => Ok(Value::new(Expr::Value(value.clone()), ty)),
        }
    }

    fn parameter(&mut self, name: &str) -> Result<Value, Problem> {
        let given = self.parameters.len();
        let index: usize =
            name.strip_prefix('$').and_then(|n| n.parse().ok()).ok_or_else(|| bad(format!("{name} is no parameter")).hint("write $1, $2, …"))?;
        let value = index.checked_sub(1).and_then(|i| self.parameters.get(i));
        let value = value.ok_or_else(|| bad(format!("there is no value for {name}")).hint(format!("{given} parameters were given")))?;
        Ok(match value {
            serde_json::Value::Null => Value::new(literal(Literal::Null), Ty::Null),
            serde_json::Value::Bool(b) => Value::new(literal(Literal::Boolean(*b)), Ty::Bool),
            serde_json::Value::Number(n) => {
                let digits = n.to_string();
                let ty = number_type(&digits);
                let positive = number(digits.trim_start_matches('-'));
                let minus = |e| Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(e) }));
                Value::new(if digits.starts_with('-') { minus(positive) } else { positive }, ty)
            }
            serde_json::Value::String(s) => Value::new(text(s), Ty::Text),
            _ => return Err(bad(format!("{name} is a list or an object")).hint("a parameter is a string, a number, a boolean or null")),
        })
    }

    /// `items[0].sku`, and a subscript of anything else.
    fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Value, Problem> {
        let mut path = match root {
            Expr::Identifier(ident) => steps(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(idents) => steps(idents),
            _ => Vec::new(),
        };
        let named = !path.is_empty();
        let further: Option<Vec<Step>> = chain.iter().map(access_step).collect();
        match (named, further) {
            (true, Some(further)) => {
                path.extend(further);
                let span = match root {
                    Expr::Identifier(ident) => ident.span,
                    Expr::CompoundIdentifier(idents) => {
                        idents.first().map_or(datafusion::sql::sqlparser::tokenizer::Span::empty(), |ident| ident.span)
                    }
                    _ => datafusion::sql::sqlparser::tokenizer::Span::empty(),
                };
                self.name(&Spelled { steps: path, span })
            }
            (_, further) => {
                match (self.value(root)?, further) {
                    (value @ (Value::Path(_) | Value::Expr { ty: Ty::Json, .. }), Some(further)) => self.step(value, further),
                    (Value::Expr { expr, ty: Ty::Other }, _) if chain.iter().all(|c| matches!(c, AccessExpr::Subscript(_))) => {
                        let chain = chain.iter().map(|c| self.subscript(c)).collect::<Result<_, _>>()?;
                        Ok(Value::new(Expr::CompoundFieldAccess { root: Box::new(expr), access_chain: chain }, Ty::Other))
                    }
                    _ => Err(bad(format!("{root} has nothing inside that could be reached so"))
                        .hint("an index into a list of a document is a number from 0")),
                }
            }
        }
    }

    fn subscript(&mut self, access: &AccessExpr) -> Result<AccessExpr, Problem> {
        match access {
            AccessExpr::Subscript(Subscript::Index { index }) => {
                Ok(AccessExpr::Subscript(Subscript::Index { index: self.wanted(index, Want::Number)?.0 }))
            }
            AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                let mut bound = |e: &Option<Expr>| e.as_ref().map(|e| Ok::<_, Problem>(self.wanted(e, Want::Number)?.0)).transpose();
                Ok(AccessExpr::Subscript(Subscript::Slice {
                    lower_bound: bound(lower_bound)?,
                    upper_bound: bound(upper_bound)?,
                    stride: bound(stride)?,
                }))
            }
            AccessExpr::Dot(_) => Err(not_offered("a name behind this expression")),
        }
    }

    fn unary(&mut self, op: &UnaryOperator, expr: &Expr) -> Result<Value, Problem> {
        match op {
            UnaryOperator::Not => Ok(boolean(Expr::UnaryOp { op: *op, expr: Box::new(self.condition(expr)?) })),
            UnaryOperator::Minus | UnaryOperator::Plus => {
                let (inner, ty) = self.wanted(expr, Want::Number)?;
                if *op == UnaryOperator::Minus && ty == Ty::Int && !matches!(inner, Expr::Value(_)) {
                    return Ok(Value::new(call(plan::functions::checked::SUM, vec![text("-"), inner]), ty));
                }
                Ok(Value::new(Expr::UnaryOp { op: *op, expr: Box::new(inner) }, ty))
            }
            UnaryOperator::BitwiseNot => Ok(Value::new(Expr::UnaryOp { op: *op, expr: Box::new(self.wanted(expr, Want::Number)?.0) }, Ty::Int)),
            other => Err(not_offered(format!("the operator {other}"))),
        }
    }

    fn binary(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        match op {
            Op::And | Op::Or => self.connected(left, op, right),
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                let (l, r) = self.compared(left, right)?;
                Ok(boolean(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }))
            }
            Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo => self.arithmetic(left, op, right),
            Op::PGExp => {
                let (l, r) = (self.wanted(left, Want::Number)?.0, self.wanted(right, Want::Number)?.0);
                Ok(Value::new(call("power", vec![l, r]), Ty::Double))
            }
            Op::BitwiseAnd | Op::BitwiseOr | Op::BitwiseXor | Op::PGBitwiseXor | Op::PGBitwiseShiftLeft | Op::PGBitwiseShiftRight => {
                let (l, r) = (self.wanted(left, Want::Number)?.0, self.wanted(right, Want::Number)?.0);
                Ok(Value::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }, Ty::Int))
            }
            Op::StringConcat => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                if left.ty() == Ty::Other || right.ty() == Ty::Other {
                    let (l, r) = (self.native(left).0, self.native(right).0);
                    return Ok(Value::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }, Ty::Other));
                }
                let (l, r) = (self.as_text(left), self.as_text(right));
                Ok(Value::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }, Ty::Text))
            }
            Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::PGLikeMatch
            | Op::PGILikeMatch
            | Op::PGNotLikeMatch
            | Op::PGNotILikeMatch => {
                let (left, right) = (self.text_operand(left)?, self.text_operand(right)?);
                if matches!(op, Op::PGRegexMatch | Op::PGRegexIMatch | Op::PGRegexNotMatch | Op::PGRegexNotIMatch)
                    && let Some(pattern) = text_literal(&right)
                {
                    check_pattern(pattern)?;
                }
                Ok(boolean(Expr::BinaryOp { left, op: op.clone(), right }))
            }
            Op::PGStartsWith => Ok(boolean(call("starts_with", vec![*self.text_operand(left)?, *self.text_operand(right)?]))),
            Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow => self.arrow(left, op, right),
            other => Err(not_offered(format!("the operator {other}")).hint("-> and ->> reach into documents; search('…') looks into lists")),
        }
    }

    /// AND and OR chains come out balanced: deep ones would cost every later walk its stack.
    fn connected(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        let mut operands = vec![right];
        let mut at = left;
        loop {
            match at {
                Expr::BinaryOp { left, op: same, right } if same == op => {
                    operands.push(right);
                    at = left;
                }
                _ => break,
            }
        }
        operands.push(at);
        let mut resolved = operands.into_iter().rev().map(|operand| self.condition(operand)).collect::<Result<Vec<_>, _>>()?;
        while resolved.len() > 1 {
            let mut next = Vec::with_capacity(resolved.len().div_ceil(2));
            let mut pairs = resolved.into_iter();
            while let Some(left) = pairs.next() {
                next.push(match pairs.next() {
                    Some(right) => Expr::BinaryOp { left: Box::new(operand(left)), op: op.clone(), right: Box::new(operand(right)) },
                    None => left,
                });
            }
            resolved = next;
        }
        resolved.pop().map(boolean).ok_or_else(|| bad("a condition is missing"))
    }

    /// `_doc->'a'->>'b'`, `tags->0`, `_doc#>>'{a,b}'`.
    fn arrow(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        let value = self.value(left)?;
        let key = self.value(right)?;
        let steps = match (op, &key) {
            (Op::HashArrow | Op::HashLongArrow, key) => {
                let list = key.text_literal().ok_or_else(|| bad(format!("{op} takes a list of keys")).hint("write _doc #>> '{user,name}'"))?;
                list.trim()
                    .trim_start_matches('{')
                    .trim_end_matches('}')
                    .split(',')
                    .map(|part| part.trim().trim_matches('"'))
                    .filter(|p| !p.is_empty())
                    .map(text_step)
                    .collect()
            }
            (_, Value::Expr { expr, .. }) => vec![arrow_step(expr).ok_or_else(|| {
                bad(format!("{right} is neither a key nor an index")).hint("write _doc->'key' or tags->0; a path is not computed from data")
            })?],
            _ => return Err(bad(format!("{op} takes a key or an index, not a path")).hint("write _doc->'key' or tags->0")),
        };
        let mut value = self.step(value, steps)?;
        if matches!(op, Op::LongArrow | Op::HashLongArrow)
            && let Value::Path(path) = &mut value
        {
            path.text = true;
        }
        Ok(value)
    }

    #[allow(clippy::type_complexity, reason = "the parts of a CASE")]
    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<((Option<Box<Expr>>, Vec<ast::CaseWhen>, Option<Box<Expr>>), Ty), Problem> {
        let (operand, conditions_resolved) = match operand {
            None => (None, conditions.iter().map(|when| self.condition(&when.condition)).collect::<Result<Vec<_>, _>>()?),
            Some(operand) => {
                let mut values = vec![self.value(operand)?];
                for when in conditions {
                    values.push(self.value(&when.condition)?);
                }
                let (mut resolved, _) = self.unified(values)?;
                let first = resolved.remove(0);
                (Some(Box::new(first)), resolved)
            }
        };
        let results = conditions.iter().map(|when| &when.result).chain(otherwise).map(|e| self.value(e)).collect::<Result<Vec<_>, _>>()?;
        let (mut results, ty) = self.unified(results)?;
        let otherwise = if otherwise.is_some() { results.pop().map(Box::new) } else { None };
        let whens = conditions_resolved.into_iter().zip(results).map(|(condition, result)| ast::CaseWhen { condition, result }).collect();
        Ok(((operand, whens, otherwise), ty))
    }

    fn in_subquery(&mut self, expr: &Expr, subquery: &ast::Query, negated: bool) -> Result<Value, Problem> {
        let left = self.value(expr)?;
        if !self.filtering {
            return Err(not_offered("IN of a sub-query outside of a condition").hint("put it into WHERE, or join"));
        }
        let (query, columns) = self.query(subquery)?;
        let [column] = columns.as_slice() else {
            return Err(bad(format!("IN takes a sub-query of one column; this one has {}", columns.len())));
        };
        // The sub-query's column takes part in the choice of a view like any other operand.
        let inner = super::value::column("in", &column.name);
        let (left, right) = self.fitted_pair(left, Value::new(inner.clone(), column.ty))?;
        let query = if right.to_string() == inner.to_string() { query } else { super::query::select_from(query, "in", right) };
        Ok(boolean(Expr::InSubquery { expr: Box::new(left), subquery: Box::new(query), negated }))
    }
}

/// What is true or false.
pub fn boolean(expr: Expr) -> Value {
    Value::new(expr, Ty::Bool)
}

/// In parentheses, unless it already stands alone.
fn nested(expr: Expr) -> Expr {
    match expr {
        alone @ (Expr::Nested(_) | Expr::Value(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)) => alone,
        other => Expr::Nested(Box::new(other)),
    }
}

/// In parentheses where AND and OR would regroup it.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { op: Op::And | Op::Or, .. } => Expr::Nested(Box::new(expr)),
        other => other,
    }
}

/// `(SELECT count(*) > 0 FROM …)`: over the rows of a plain query itself, which may look at rows around it, else over its result.
fn counted(mut query: ast::Query, negated: bool) -> Expr {
    let mut count = call("count", vec![]);
    if let Expr::Function(function) = &mut count
        && let ast::FunctionArguments::List(list) = &mut function.args
    {
        list.args = vec![ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)];
    }
    let op = if negated { Op::Eq } else { Op::Gt };
    let some = Expr::BinaryOp { left: Box::new(count), op, right: Box::new(number("0")) };
    if query.limit_clause.is_none()
        && let ast::SetExpr::Select(select) = &mut *query.body
        && super::select::keeps_rows(select)
    {
        select.projection = vec![ast::SelectItem::UnnamedExpr(some)];
        query.order_by = None;
        return Expr::Subquery(Box::new(query));
    }
    Expr::Subquery(Box::new(super::query::select_from(query, "there", some)))
}

/// Refuses a regular expression that cannot be used, before anything runs.
fn check_pattern(pattern: &str) -> Result<(), Problem> {
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(bytes)) => {
            Err(Problem::new(Code::TooComplex, format!("the regular expression takes over {bytes} bytes when it is compiled"))
                .hint("repeat less: (a{1000}){1000} is a million states"))
        }
        Err(why) => Err(bad(format!("the regular expression is not understood: {why}"))),
    }
}

/// SQL's pattern as a regular expression over the whole text: `%` and `_` are any text and any character, the rest is alike.
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
        Expr::Value(ValueWithSpan { value: Literal::Number(digits, _), .. }) => digits.parse().ok().map(Step::Index),
        Expr::Nested(inner) => arrow_step(inner),
        other => text_literal(other).map(|key| Step::Key(key.into())),
    }
}

fn text_step(part: &str) -> Step {
    part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)
}

/// The type of a number as it is written.
pub fn number_type(digits: &str) -> Ty {
    if digits.parse::<i64>().is_ok() { Ty::Int } else { Ty::Double }
}

/// The beginning of a long text, for messages.
pub fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A problem of an argument.
pub fn refused(detail: impl Into<String>, hint: &str) -> Problem {
    Problem::new(Code::NotSupported, detail).hint(hint)
}
