//! Computes expressions over one row, as the rules of mixed values define them.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    expression::{BEGINS_WITH_X, ComparisonOp, DIGITS, EvalExpr, Row},
    value::{Number, SqlValue, Unspecified},
};

impl EvalExpr {
    /// Its value for a row.
    pub fn value(&self, row: &Row) -> Result<SqlValue, Unspecified> {
        Ok(match self {
            Self::Path(path) => row.get(path).cloned().unwrap_or(SqlValue::Null),
            Self::Literal("NULL") => SqlValue::Null,
            Self::Literal(literal) => SqlValue::parse(literal),
            Self::Quoted(literal) => SqlValue::Text((*literal).to_owned()),
            Self::Compare(comparison, a, b) => SqlValue::truth(compare(*comparison, a, b, row)?),
            Self::Distinct(is_not, a, b) => SqlValue::Bool(is_distinct(a, b, row)? != *is_not),
            Self::In(is_not, a, list) => SqlValue::truth(is_in(a, list, row)?.map(|found| found != *is_not)),
            Self::Between(is_not, a, b, c) => {
                let (above, below) = (
                    compare(ComparisonOp::GreaterOrEqual, a, b, row)?,
                    compare(ComparisonOp::LessOrEqual, a, c, row)?,
                );
                SqlValue::truth(and(above, below).map(|between| between != *is_not))
            }
            Self::IsNull(is_not, a) => SqlValue::Bool(a.value(row)?.is_null() != *is_not),
            Self::AndOr(is_and, a, b) => {
                let (a, b) = (a.truth(row)?, b.truth(row)?);
                SqlValue::truth(if *is_and { and(a, b) } else { or(a, b) })
            }
            Self::Not(a) => SqlValue::truth(a.truth(row)?.map(|truth| !truth)),
            Self::Case(a, whens) => first_match(a, whens, row)?,
            Self::CaseElse(when, a, other) => match when.truth(row)? {
                Some(true) => text(a.value(row)?.text()?),
                _ => SqlValue::Text((*other).to_owned()),
            },
            Self::Coalesce(list, other) => coalesce(list, other, row)?,
            Self::NullIf(a, b) => {
                if compare(ComparisonOp::Equal, a, b, row)? == Some(true) {
                    SqlValue::Null
                } else {
                    a.value(row)?
                }
            }
            Self::Concat(a, b) => match (a.value(row)?.text()?, b.value(row)?.text()?) {
                (Some(a), Some(b)) => SqlValue::Text(a + &b),
                _ => SqlValue::Null,
            },
            Self::TextFunction(name, a) => match (*name, a.value(row)?) {
                ("length", SqlValue::Json(Value::Array(items), _)) => SqlValue::count(items.len()),
                (name, value) => text_function(name, value.text()?),
            },
            Self::Like(is_not, a, pattern) => {
                SqlValue::truth(a.value(row)?.text()?.map(|text| is_like(&text, pattern) != *is_not))
            }
            Self::Regex(a, pattern) => SqlValue::truth(a.value(row)?.text()?.map(|text| matches(&text, pattern))),
            Self::Cast(a, kind) => cast(a.value(row)?, kind)?,
            Self::Arithmetic(sign, a, b) => arithmetic(*sign, a.value(row)?, b.value(row)?)?,
            Self::NumberFunction(name, a) => number_function(name, a.value(row)?)?,
            Self::DocArrow(path) => text(row.get(path).cloned().unwrap_or(SqlValue::Null).text()?),
        })
    }

    /// Its truth as a condition; `None` is NULL.
    pub fn truth(&self, row: &Row) -> Result<Option<bool>, Unspecified> {
        match self.value(row)? {
            SqlValue::Null => Ok(None),
            SqlValue::Bool(truth) => Ok(Some(truth)),
            _ => Err(Unspecified),
        }
    }

    /// Whether it computes numbers; beyond 2^53 the rules do not specify the result.
    pub fn has_arithmetic(&self) -> bool {
        match self {
            Self::Arithmetic(..) | Self::NumberFunction(..) => true,
            Self::Cast(_, kind) => *kind == "double",
            Self::Compare(_, a, b) => a.has_arithmetic() || b.has_arithmetic(),
            _ => false,
        }
    }

    /// Whether arithmetic skips a value of this row that is not a number, which requires a warning.
    pub fn skips_values(&self, row: &Row) -> bool {
        let not_a_number = |a: &Self| {
            matches!(
                a.value(row),
                Ok(SqlValue::Text(_) | SqlValue::Bool(_) | SqlValue::Json(..))
            ) && matches!(a, Self::Path(_))
        };
        match self {
            // Division by a literal 0 is NULL in any case, so the server need not read the value.
            Self::Arithmetic('/', _, b) if **b == Self::Literal("0") => false,
            Self::Arithmetic(_, a, b) => {
                not_a_number(a) || not_a_number(b) || a.skips_values(row) || b.skips_values(row)
            }
            Self::NumberFunction(_, a) => not_a_number(a) || a.skips_values(row),
            _ => false,
        }
    }
}

fn text(text: Option<String>) -> SqlValue {
    text.map_or(SqlValue::Null, SqlValue::Text)
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(false) || b == Some(false) {
        Some(false)
    } else {
        Some(a? && b?)
    }
}

fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(true) || b == Some(true) {
        Some(true)
    } else {
        Some(a? || b?)
    }
}

/// Compares two expressions; a quoted literal takes the kind of the other operand.
fn compare(comparison: ComparisonOp, a: &EvalExpr, b: &EvalExpr, row: &Row) -> Result<Option<bool>, Unspecified> {
    let (left, right) = (a.value(row)?, b.value(row)?);
    let (left, right) = match (a, b) {
        (EvalExpr::Quoted(literal), _) => (SqlValue::coerce_literal(literal, &right), right),
        (_, EvalExpr::Quoted(literal)) => {
            let literal = SqlValue::coerce_literal(literal, &left);
            (left, literal)
        }
        _ => (left, right),
    };
    let has_quoted = matches!(a, EvalExpr::Quoted(_)) || matches!(b, EvalExpr::Quoted(_));
    let has_boolean = matches!(left, SqlValue::Bool(_)) || matches!(right, SqlValue::Bool(_));
    match comparison {
        ComparisonOp::Equal => left.equals(&right),
        ComparisonOp::NotEqual => Ok(left.equals(&right)?.map(|equal| !equal)),
        _ if has_quoted && has_boolean => Err(Unspecified),
        _ => Ok(left.order(&right)?.map(|order| match comparison {
            ComparisonOp::Less => order == Ordering::Less,
            ComparisonOp::LessOrEqual => order != Ordering::Greater,
            ComparisonOp::Greater => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })),
    }
}

fn is_distinct(a: &EvalExpr, b: &EvalExpr, row: &Row) -> Result<bool, Unspecified> {
    Ok(match (a.value(row)?.is_null(), b.value(row)?.is_null()) {
        (true, true) => false,
        (true, false) | (false, true) => true,
        _ => compare(ComparisonOp::Equal, a, b, row)? != Some(true),
    })
}

fn is_in(a: &EvalExpr, list: &[EvalExpr], row: &Row) -> Result<Option<bool>, Unspecified> {
    let mut found = Some(false);
    for b in list {
        found = or(found, compare(ComparisonOp::Equal, a, b, row)?);
    }
    Ok(found)
}

/// The index of the first WHEN that equals the operand, else -1.
fn first_match(a: &EvalExpr, whens: &[EvalExpr], row: &Row) -> Result<SqlValue, Unspecified> {
    for (i, when) in whens.iter().enumerate() {
        if compare(ComparisonOp::Equal, a, when, row)? == Some(true) {
            return Ok(SqlValue::count(i));
        }
    }
    Ok(SqlValue::Number(Number::integer(-1)))
}

fn coalesce(list: &[EvalExpr], other: &str, row: &Row) -> Result<SqlValue, Unspecified> {
    for a in list {
        let value = a.value(row)?;
        if !value.is_null() {
            return Ok(text(value.text()?));
        }
    }
    Ok(SqlValue::Text(other.to_owned()))
}

fn text_function(name: &str, argument: Option<String>) -> SqlValue {
    match (argument, name) {
        (argument, "concat") => SqlValue::Text(argument.unwrap_or_default() + "-"),
        (None, _) => SqlValue::Null,
        (Some(text), "upper") => SqlValue::Text(text.to_uppercase()),
        (Some(text), "lower") => SqlValue::Text(text.to_lowercase()),
        (Some(text), _) => SqlValue::count(text.chars().count()),
    }
}

fn arithmetic(sign: char, a: SqlValue, b: SqlValue) -> Result<SqlValue, Unspecified> {
    Ok(match (a, b) {
        (SqlValue::Number(a), SqlValue::Number(b)) if sign == '/' => {
            match (a.fits_double() && b.fits_double(), b.to_double()) {
                (false, _) => return Err(Unspecified),
                (true, 0.0) => SqlValue::Null,
                (true, b) => SqlValue::Approximate(a.to_double() / b),
            }
        }
        (SqlValue::Number(a), SqlValue::Number(b)) => SqlValue::Number(a.compute(sign, &b)?),
        (SqlValue::Approximate(_), _) | (_, SqlValue::Approximate(_)) => return Err(Unspecified),
        _ => SqlValue::Null,
    })
}

fn number_function(name: &str, argument: SqlValue) -> Result<SqlValue, Unspecified> {
    Ok(match argument {
        SqlValue::Number(number) if !number.fits_double() => return Err(Unspecified),
        SqlValue::Number(number) if name == "abs" => SqlValue::Approximate(number.to_double().abs()),
        SqlValue::Number(number) => SqlValue::Approximate(number.to_double().floor()),
        SqlValue::Approximate(_) => return Err(Unspecified),
        _ => SqlValue::Null,
    })
}

fn cast(value: SqlValue, kind: &str) -> Result<SqlValue, Unspecified> {
    Ok(match (value, kind) {
        (SqlValue::Null, _) => SqlValue::Null,
        (value, "text") => text(value.text()?),
        (SqlValue::Json(..), _) => SqlValue::Null,
        (SqlValue::Bool(value), "boolean") => SqlValue::Bool(value),
        (SqlValue::Text(text), "boolean") => match text.as_str() {
            "true" | "false" => SqlValue::Bool(text == "true"),
            text if text == "y" || Number::parse(text).is_some() => return Err(Unspecified),
            _ => SqlValue::Null,
        },
        (SqlValue::Number(number), "bigint") => {
            SqlValue::Number(Number::integer(number.as_integer().ok_or(Unspecified)?))
        }
        (SqlValue::Number(number), "double") if number.fits_double() => SqlValue::Approximate(number.to_double()),
        (SqlValue::Text(text), "bigint" | "double") => match Number::parse(&text) {
            None => SqlValue::Null,
            Some(number) if kind == "double" && number.fits_double() => SqlValue::Approximate(number.to_double()),
            Some(number) if kind == "bigint" && !text.contains('.') => {
                SqlValue::Number(Number::integer(number.as_integer().ok_or(Unspecified)?))
            }
            Some(_) => return Err(Unspecified),
        },
        _ => return Err(Unspecified),
    })
}

/// Whether a string matches one of the two regular expressions.
fn matches(text: &str, pattern: &str) -> bool {
    match pattern {
        DIGITS => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
        BEGINS_WITH_X => text.starts_with('x'),
        _ => panic!("the evaluator does not know the pattern {pattern}"),
    }
}

fn is_like(text: &str, pattern: &str) -> bool {
    let mut wanted = pattern.chars();
    match wanted.next() {
        None => text.is_empty(),
        Some('%') => (0..=text.len())
            .filter(|at| text.is_char_boundary(*at))
            .any(|at| is_like(&text[at..], wanted.as_str())),
        Some(c) => {
            let mut rest = text.chars();
            rest.next()
                .is_some_and(|first| (c == '_' || c == first) && is_like(rest.as_str(), wanted.as_str()))
        }
    }
}
