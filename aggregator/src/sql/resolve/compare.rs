//! Operands that meet: each side's view is picked so that it fits the other.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value as Literal,
    ValueWithSpan,
};
use plan::{Kinds, Type, View};
use proto::{Code, Problem};

use super::{
    Resolver,
    cast::cast_as,
    expression::boolean,
    value::{Ty, Value, Want, call, literal, number, text, text_literal},
};
use plan::functions::checked::{PRODUCT, SUM};

const NUMBERS: fn() -> Kinds = || Kinds::INT | Kinds::FLOAT | Kinds::BIG;

impl Resolver<'_> {
    /// Both sides of a comparison.
    pub fn compared(&mut self, left: &Expr, right: &Expr) -> Result<(Expr, Expr), Problem> {
        let (left, right) = (self.value(left)?, self.value(right)?);
        self.fitted_pair(left, right)
    }

    /// Two values as they can be compared.
    pub fn fitted_pair(&mut self, left: Value, right: Value) -> Result<(Expr, Expr), Problem> {
        let (mut both, _) = self.fitted(vec![left, right])?;
        match (both.pop(), both.pop()) {
            (Some(right), Some(left)) => Ok((left, right)),
            _ => Err(super::bad("an operand is missing")),
        }
    }

    /// Values as they can be compared with one another, and the type they then have.
    fn fitted(&mut self, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let want = common(&values);
        let mut resolved = Vec::with_capacity(values.len());
        let mut ty = Ty::Null;
        for value in values {
            let (expr, its) = match want {
                Want::Number => self.number_operand(value),
                Want::Time => {
                    let its = if value.ty() == Ty::Date { Ty::Date } else { Ty::Time };
                    (self.time_operand(value)?, its)
                }
                Want::Bool => self.fit(bool_literal(value), Want::Bool),
                want => self.fit(value, want),
            };
            ty = wider(ty, its);
            resolved.push(expr);
        }
        Ok((resolved, ty))
    }

    /// Values that become one result (CASE, COALESCE, an array): text takes everything in, as it is.
    pub fn unified(&mut self, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let types: Vec<Ty> = values.iter().map(|v| v.ty()).filter(|ty| *ty != Ty::Null).collect();
        let with_text = types.contains(&Ty::Text) && types.iter().any(|ty| !matches!(ty, Ty::Text));
        if with_text && !types.iter().any(|ty| matches!(ty, Ty::Time | Ty::Date | Ty::Other)) {
            return Ok((values.into_iter().map(|v| self.as_text(v)).collect(), Ty::Text));
        }
        let (resolved, ty) = self.fitted(values)?;
        Ok((resolved, if ty == Ty::Null { Ty::Other } else { ty }))
    }

    /// A value as text, whatever it is: numbers and booleans of paths as they are spelled.
    pub fn as_text(&mut self, value: Value) -> Expr {
        match value {
            Value::Path(path) if !path.is_document() => {
                // Where texts are mixed with others, the text is meant.
                let mixed = path.kinds.native() == Some(Type::Json) && path.kinds.any(Kinds::TEXT);
                self.emit(&path, View { to: Type::Text, cast: path.text || !mixed })
            }
            other => {
                let json = other.ty() == Ty::Json;
                let (expr, ty) = self.fit(other, if json { Want::Text } else { Want::Native });
                match ty {
                    Ty::Text | Ty::Null => expr,
                    _ => cast_as(CastKind::Cast, expr, DataType::Text),
                }
            }
        }
    }

    fn number_operand(&mut self, value: Value) -> (Expr, Ty) {
        if let Some(text) = value.text_literal() {
            let text = text.trim();
            if let Ok(parsed) = text.parse::<f64>()
                && parsed.is_finite()
            {
                let ty = super::expression::number_type(text);
                let positive = number(text.trim_start_matches(['-', '+']));
                let minus = |e| Expr::UnaryOp { op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus, expr: Box::new(e) };
                return (if text.starts_with('-') { minus(positive) } else { positive }, ty);
            }
        }
        match self.fit(value, Want::Number) {
            // A computed text is read as a number where it is one.
            (expr, Ty::Text) => (cast_as(CastKind::TryCast, expr, DataType::Double(ExactNumberInfo::None)), Ty::Double),
            (expr, ty) => (expr, ty),
        }
    }

    /// An operand of arithmetic and its type.
    pub fn arithmetic(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        let (left, right) = (self.value(left)?, self.value(right)?);
        let (lt, rt) = (left.ty(), right.ty());
        let temporal = |ty| matches!(ty, Ty::Time | Ty::Date | Ty::Interval);
        if temporal(lt) || temporal(rt) {
            return self.time_arithmetic(left, op, right);
        }
        let ((l, lt), (r, rt)) = (self.number_operand(left), self.number_operand(right));
        let ty = wider(lt, rt);
        let divides = matches!(op, Op::Divide | Op::Modulo);
        // Division by zero in data is NULL, not the end of the query.
        let r = if divides && !is_nonzero(&r) { call("nullif", vec![r, number("0")]) } else { r };
        // What does not fit is NULL, never another number.
        if ty == Ty::Int && !divides {
            return Ok(Value::new(checked(l, op, r)?, ty));
        }
        Ok(Value::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }, ty))
    }

    fn time_arithmetic(&mut self, left: Value, op: &Op, right: Value) -> Result<Value, Problem> {
        let (lt, rt) = (left.ty(), right.ty());
        let plain = |ty| matches!(ty, Ty::Interval | Ty::Date | Ty::Int | Ty::Double | Ty::Decimal);
        let mut side = |value: Value, ty, other| match ty {
            _ if plain(ty) => Ok(self.native(value).0),
            // A number beside an interval multiplies it.
            Ty::Json if other == Ty::Interval && matches!(op, Op::Multiply | Op::Divide) => Ok(self.number_operand(value).0),
            _ => self.time_operand(value),
        };
        let (l, r) = (side(left, lt, rt)?, side(right, rt, lt)?);
        let ty = match (lt, rt) {
            (Ty::Interval, Ty::Interval) => Ty::Interval,
            (Ty::Interval, other) | (other, Ty::Interval) if other.is_number() => Ty::Interval,
            (Ty::Date, Ty::Date) => Ty::Other,
            (_, Ty::Interval) | (Ty::Interval, _) => Ty::Time,
            (Ty::Date, _) | (_, Ty::Date) if *op != Op::Minus => Ty::Date,
            _ => Ty::Interval,
        };
        Ok(Value::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }, ty))
    }

    /// `x IN (…)`. On a mixed path, texts are looked for among texts and numbers among numbers.
    pub fn in_list(&mut self, expr: &Expr, list: &[Expr], negated: bool) -> Result<Value, Problem> {
        let left = self.value(expr)?;
        let values = list.iter().map(|e| self.value(e)).collect::<Result<Vec<_>, _>>()?;
        let mixed = matches!(left, Value::Path(_)) && (matches!(left.ty(), Ty::Json | Ty::Text) || left.ty().is_number());
        let numeric = left.ty().is_number();
        // Beside a number, '5' is the number 5.
        let is_text = |v: &Value| v.text_literal().is_some_and(|text| !numeric || text.trim().parse::<f64>().is_err());
        let with_null = values.iter().any(|value| value.ty() == Ty::Null);
        let (texts, others): (Vec<Value>, Vec<Value>) = if mixed { values.into_iter().partition(is_text) } else { (Vec::new(), values) };
        let mut parts = Vec::new();
        for part in [texts, others].into_iter().filter(|part| !part.is_empty()) {
            let (mut resolved, _) = self.fitted([left.clone()].into_iter().chain(part).collect())?;
            let expr = Box::new(resolved.remove(0));
            parts.push(Expr::InList { expr, list: resolved, negated });
        }
        let op = if negated { Op::And } else { Op::Or };
        let both = |l: Expr, op: &Op, r: Expr| Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) }));
        let several = parts.len() > 1;
        let joined = parts.into_iter().reduce(|l, r| match with_null {
            // Nobody knows whether what is no member is the NULL.
            true => both(l, &op, r),
            // A value of the other kind is no member: the part that does not fit is not "unknown".
            false => {
                let known = |e: Expr| call("coalesce", vec![e, literal(Literal::Boolean(negated))]);
                both(known(l), &op, known(r))
            }
        });
        let joined = joined.ok_or_else(|| super::bad("IN () has nothing to be in"))?;
        if !several || with_null {
            return Ok(boolean(joined));
        }
        // No value is neither in nor out.
        let (value, _) = self.native(left);
        let unknown = match negated {
            false => both(Expr::IsNull(Box::new(value)), &Op::And, literal(Literal::Null)),
            true => both(Expr::IsNotNull(Box::new(value)), &Op::Or, literal(Literal::Null)),
        };
        Ok(boolean(both(joined, &op, unknown)))
    }

    /// `x BETWEEN a AND b`.
    pub fn between(&mut self, expr: &Expr, negated: bool, low: &Expr, high: &Expr) -> Result<Value, Problem> {
        let values = vec![self.value(expr)?, self.value(low)?, self.value(high)?];
        let (resolved, _) = self.fitted(values)?;
        match <[Expr; 3]>::try_from(resolved) {
            Ok([expr, low, high]) => Ok(boolean(Expr::Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) })),
            Err(_) => Err(super::bad("BETWEEN takes three values")),
        }
    }
}

/// Integers added, subtracted or multiplied; a chain becomes one call.
fn checked(left: Expr, op: &Op, right: Expr) -> Result<Expr, Problem> {
    const PRODUCTS_MAX: usize = 100;
    if *op == Op::Multiply {
        if side_by_side(&left) > PRODUCTS_MAX {
            return Err(
                Problem::new(Code::TooComplex, format!("over {PRODUCTS_MAX} products and quotients side by side")).hint("put some into a sub-query")
            );
        }
        let mut factors = arguments_of(&left, PRODUCT).unwrap_or_else(|| vec![left]);
        factors.push(right);
        return Ok(call(PRODUCT, factors));
    }
    let sign = if *op == Op::Minus { '-' } else { '+' };
    let mut terms = arguments_of(&left, SUM).unwrap_or_else(|| vec![text("+"), left]);
    let signs = text_literal(&terms[0]).unwrap_or_default().to_owned();
    terms[0] = text(&format!("{signs}{sign}"));
    terms.push(right);
    Ok(call(SUM, terms))
}

/// The arguments of a call of this function.
fn arguments_of(expr: &Expr, name: &str) -> Option<Vec<Expr>> {
    let Expr::Function(Function { name: called, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let argument = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    if called.to_string() == name { list.args.iter().map(argument).collect() } else { None }
}

/// How many products and quotients lean on one another.
fn side_by_side(mut expr: &Expr) -> usize {
    let mut count = 0;
    loop {
        expr = match expr {
            Expr::BinaryOp { left, .. } => left,
            Expr::Function(Function { args: FunctionArguments::List(list), .. }) => match list.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) => first,
                _ => return count,
            },
            _ => return count,
        };
        count += 1;
    }
}

/// As what values that meet are seen.
fn common(values: &[Value]) -> Want {
    let typed = |of: fn(Ty) -> bool| values.iter().any(|v| of(v.ty()) && v.text_literal().is_none());
    let literals: Vec<&str> = values.iter().filter_map(Value::text_literal).collect();
    let numeric_literals = literals.iter().all(|text| text.trim().parse::<f64>().is_ok());
    if typed(|ty| ty == Ty::Other || ty == Ty::Interval) {
        return Want::Native;
    }
    if typed(|ty| matches!(ty, Ty::Time | Ty::Date)) {
        return Want::Time;
    }
    if typed(Ty::is_number) {
        // 'abc' is never a number: the path is asked for its texts instead.
        return if numeric_literals || !only_paths(values) { Want::Number } else { Want::Text };
    }
    if typed(|ty| ty == Ty::Bool) {
        return Want::Bool;
    }
    if typed(|ty| ty == Ty::Text) {
        return Want::Text;
    }
    // What is left are mixed paths, string literals and NULL.
    let kinds: Vec<Kinds> = values.iter().filter(|v| v.ty() == Ty::Json).map(Value::kinds).collect();
    let all = |of: Kinds| !kinds.is_empty() && kinds.iter().all(|k| k.any(of));
    match (literals.is_empty(), kinds.is_empty()) {
        (true, true) => Want::Native,
        (true, false) if kinds.len() == 1 => Want::Native,
        (true, false) if all(NUMBERS()) => Want::Number,
        (true, false) if all(Kinds::TEXT) => Want::Text,
        (true, false) => Want::Json,
        (false, _) if !kinds.is_empty() && numeric_literals && all(NUMBERS()) && !all(Kinds::TEXT) => Want::Number,
        (false, _) => Want::Text,
    }
}

/// Whether every value but literals is a path.
fn only_paths(values: &[Value]) -> bool {
    values.iter().all(|v| matches!(v, Value::Path(_)) || v.is_literal())
}

/// The type of both together.
fn wider(a: Ty, b: Ty) -> Ty {
    match (a, b) {
        (Ty::Null, other) | (other, Ty::Null) => other,
        (a, b) if a == b => a,
        (Ty::Double, b) if b.is_number() => Ty::Double,
        (a, Ty::Double) if a.is_number() => Ty::Double,
        (a, b) if a.is_number() && b.is_number() => Ty::Decimal,
        (Ty::Time, Ty::Date) | (Ty::Date, Ty::Time) => Ty::Time,
        _ => Ty::Other,
    }
}

fn bool_literal(value: Value) -> Value {
    match value.text_literal().map(str::to_lowercase).as_deref() {
        Some("true" | "t") => Value::new(literal(Literal::Boolean(true)), Ty::Bool),
        Some("false" | "f") => Value::new(literal(Literal::Boolean(false)), Ty::Bool),
        _ => value,
    }
}

fn is_nonzero(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Literal::Number(digits, _), .. }) => digits.parse::<f64>().is_ok_and(|n| n != 0.0),
        Expr::Nested(inner) => is_nonzero(inner),
        Expr::UnaryOp { expr, .. } => is_nonzero(expr),
        _ => false,
    }
}
